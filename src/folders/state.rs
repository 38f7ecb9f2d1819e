//! Tells one state of a folder from another one by metadata, without opening anything: what lies there belongs
//! to an agent, which may have put anything in its place.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::tree::{TreeEntry, WalkAction, WalkBounds, walk_tree};

/// The name of a skill's file.
const SKILL_FILE: &[u8] = b"SKILL.md";
/// The agent-runner offers 50 skills of a folder. Looking at so many entries takes 5 ms.
const SKILLS_BOUNDS: WalkBounds = WalkBounds { entries: 2_000, depth: 2 };

/// One state of a folder, of what of it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderState(u64);

impl FolderState {
    /// Adds one more entry; the order does not matter.
    pub(super) fn add_entry(&mut self, entry: &TreeEntry<'_>) {
        let Stat { st_ino, st_size, st_mtime, st_mtime_nsec, .. } = entry.stat;
        let mut hasher = DefaultHasher::new();
        (entry.folder_inode, entry.name.to_bytes(), st_ino).hash(&mut hasher);
        // Of a folder, what is in it tells.
        if entry.file_type() != FileType::Directory {
            (st_size, st_mtime, st_mtime_nsec).hash(&mut hasher);
        }
        self.0 = self.0.wrapping_add(hasher.finish());
    }

    /// Adds the state of another folder.
    pub(super) fn add_folder(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// The state of a `skills` folder: which skills there are, and their SKILL.md. What else lies in a skill's
/// folder does not count: a script may write there each time that it runs.
pub fn skills_folder_state(skills: &Path) -> FolderState {
    let mut state = FolderState::default();
    let walked = walk_tree(skills, SKILLS_BOUNDS, |entry| {
        let counts = match entry.depth {
            0 => matches!(entry.file_type(), FileType::Directory | FileType::Symlink),
            _ => entry.name.to_bytes() == SKILL_FILE,
        };
        if counts {
            state.add_entry(entry);
        }
        if entry.depth == 0 { WalkAction::Enter } else { WalkAction::PassBy }
    });
    if walked.is_ok() { state } else { FolderState::default() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_skill_counts_and_what_its_scripts_write_does_not() {
        let root = tempfile::tempdir().unwrap();
        let skills = root.path().join("skills");
        let none = skills_folder_state(&skills);
        assert_eq!(none, FolderState::default());
        fs::create_dir_all(skills.join("bread/scripts")).unwrap();
        fs::write(skills.join("bread/SKILL.md"), "one").unwrap();
        let state = || skills_folder_state(&skills);
        let before = state();
        assert_ne!(before, none);
        assert_eq!(state(), before);
        fs::write(skills.join("bread/scripts/SKILL.md"), "x").unwrap();
        fs::write(skills.join("bread/cache"), "x").unwrap();
        fs::write(skills.join("README.md"), "x").unwrap();
        assert_eq!(state(), before);

        let mut seen = vec![before];
        let mut is_new = |changed: &str| {
            assert!(!seen.contains(&state()), "{changed}");
            seen.push(state());
        };
        fs::write(skills.join("bread/SKILL.md"), "other").unwrap();
        is_new("another text");
        symlink("bread", skills.join("cake")).unwrap();
        is_new("another skill");
        fs::rename(skills.join("bread"), skills.join("buns")).unwrap();
        is_new("another name");
        fs::remove_file(skills.join("buns/SKILL.md")).unwrap();
        is_new("no text any more");
    }

    #[test]
    fn whatever_stands_in_the_place_of_skills_counts_for_none() {
        let root = tempfile::tempdir().unwrap();
        let skills = root.path().join("skills");
        fs::write(&skills, "x").unwrap();
        assert_eq!(skills_folder_state(&skills), FolderState::default());
        fs::remove_file(&skills).unwrap();
        symlink("skills", &skills).unwrap();
        assert_eq!(skills_folder_state(&skills), FolderState::default());
    }
}
