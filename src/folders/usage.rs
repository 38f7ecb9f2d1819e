//! How much of the disk the agent of a group takes with its files.

use std::io::ErrorKind;

use rustix::fs::FileType;

use super::tree::{WalkAction, WalkBounds, WalkResult, walk_tree};
use crate::paths::Paths;
use crate::types::{DiskSpace, Group, Role};

/// What a count has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskUsage {
    All(DiskSpace),
    /// Somebody has moved folders while they were counted; there may be more.
    AtLeast(DiskSpace),
}

/// What a group's agent has filled of the disk, as far as names lead to it; looked at no further than `most`
/// entries, beyond which all counts as too much.
pub fn measure_disk_usage(paths: &Paths, group: &Group, most: u64) -> DiskUsage {
    let mut taken = DiskSpace::default();
    let mut is_whole = true;
    let name = &group.name;
    let trash = paths.agent_trash_folder(name);
    let mut places = vec![
        paths.group_folder(name),
        paths.sessions_folder(name),
        paths.separate_sessions_folder(name, ""),
        paths.agent_credentials_folder(name),
        paths.set_aside_folder(name),
        trash.clone(),
    ];
    if group.role == Role::Main {
        places.push(paths.global_folder());
    }
    for place in places {
        let rest = most.saturating_sub(taken.entries).saturating_add(1);
        let walked = walk_tree(&place, WalkBounds { entries: rest, depth: usize::MAX }, |entry| {
            taken.entries += 1;
            let blocks = u64::try_from(entry.stat.st_blocks).unwrap_or(0) * 512;
            // A file of several names counts once, if all of them are the agent's.
            let is_file = entry.file_type() == FileType::RegularFile;
            taken.bytes += if is_file { blocks / entry.stat.st_nlink.max(1) } else { blocks };
            WalkAction::Enter
        });
        match walked {
            Ok(WalkResult::Whole) => {}
            // No container reaches the trash: only this process changes it, and empties it just now.
            Ok(WalkResult::Disturbed) => is_whole &= place == trash,
            // A folder that is not there yet takes nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // What cannot be read counts as too much, whatever the reason.
            Ok(WalkResult::InPart) | Err(_) => {
                return DiskUsage::All(DiskSpace { entries: u64::MAX, ..taken });
            }
        }
    }
    if is_whole { DiskUsage::All(taken) } else { DiskUsage::AtLeast(taken) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::types::{ChatId, GroupName};

    fn family() -> Group {
        Group::new(GroupName::parse("family").unwrap(), ChatId::new("c"), Role::Member)
    }

    fn whole(taken: DiskUsage) -> DiskSpace {
        let DiskUsage::All(room) = taken else { panic!("{taken:?}: nobody moves anything") };
        room
    }

    fn taken_of(paths: &Paths, group: &Group) -> DiskSpace {
        whole(measure_disk_usage(paths, group, 1_000))
    }

    #[test]
    fn all_that_an_agent_can_write_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let family = family();
        super::super::prepare_install_folders(&paths).unwrap();
        super::super::prepare_group_folders(&paths, &family).unwrap();
        let before = taken_of(&paths, &family);
        let places = [
            paths.group_folder(&family.name),
            paths.sessions_folder(&family.name),
            paths.agent_credentials_folder(&family.name),
            paths.separate_sessions_folder(&family.name, "kimi-code/main"),
            paths.agent_trash_folder(&family.name),
        ];
        for place in &places {
            fs::create_dir_all(place.join("deep/er")).unwrap();
            fs::write(place.join("deep/er/file"), vec![1; 1024 * 1024]).unwrap();
            fs::hard_link(place.join("deep/er/file"), place.join("again")).unwrap();
            // A file of 1 TB that holds nothing takes nothing.
            fs::File::create(place.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        }
        fs::write(paths.global_folder().join("large"), vec![1; 1024 * 1024]).unwrap();
        let after = taken_of(&paths, &family);
        let grown_mb = (after.bytes - before.bytes) / 1024 / 1024;
        assert_eq!(grown_mb, 5);
        assert!(after.is_beyond(before) && !before.is_beyond(after));
        let main = Group { role: Role::Main, ..family.clone() };
        assert_eq!((taken_of(&paths, &main).bytes - before.bytes) / 1024 / 1024, 6);

        assert_eq!(whole(measure_disk_usage(&paths, &family, 10)).entries, u64::MAX);
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn no_folder_is_closed_to_a_count() {
        for mode in [0o300, 0o400, 0o500, 0o000] {
            for closed in ["", "inner", "inner/most"] {
                let root = tempfile::tempdir().unwrap();
                let (paths, family) = (Paths::new(root.path()), family());
                let inner = paths.group_folder(&family.name).join("inner/most");
                fs::create_dir_all(&inner).unwrap();
                fs::write(inner.join("large"), vec![1; 1024 * 1024]).unwrap();
                chmod(&paths.group_folder(&family.name).join(closed), mode);
                let taken = taken_of(&paths, &family);
                assert!(taken.bytes >= 1024 * 1024 && taken.entries == 3, "{mode:o} {closed}: {taken:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_too_much() {
        let root = tempfile::tempdir().unwrap();
        let (paths, family) = (Paths::new(root.path()), family());
        assert_eq!(taken_of(&paths, &family), DiskSpace::default(), "there is nothing yet");
        fs::create_dir(paths.groups_folder()).unwrap();
        symlink("/etc", paths.group_folder(&family.name)).unwrap();
        assert_eq!(taken_of(&paths, &family).entries, u64::MAX);
    }

    #[test]
    fn an_agent_that_moves_folders_is_counted_in_part_and_then_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let (paths, family) = (Paths::new(root.path()), family());
        let group = paths.group_folder(&family.name);
        fs::create_dir_all(group.join("a/moving/deep/er")).unwrap();
        fs::create_dir_all(group.join("b")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(group.join("a/moving"), group.join("b/moving")).unwrap();
                    fs::rename(group.join("b/moving"), group.join("a/moving")).unwrap();
                }
            });
            let disturbed = (0..100_000)
                .any(|_| matches!(measure_disk_usage(&paths, &family, 1_000), DiskUsage::AtLeast(_)));
            stop.store(true, Ordering::Relaxed);
            assert!(disturbed, "it is seen that folders move");
        });
        assert_eq!(taken_of(&paths, &family).entries, 5);
    }
}
