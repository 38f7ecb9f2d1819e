//! What a group's engine reads when it starts, put out of its sight: its histories, and instructions in the
//! work folder.
//!
//! An agent can spoil them by accident, and then no engine starts on them any more. They are moved, never
//! opened, to a folder that no container reaches. If an engine without them does no better they are moved
//! back, else they are kept there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::shared::move_to_trash;
use super::tree::move_regaining_rights;
use super::{SKILLS_FOLDER, create_private_folder};
use crate::paths::Paths;
use crate::types::GroupName;

/// What is read in the work folder before anybody has said a word: by the engines, and `skills` by the
/// agent-runner, which offers them only what is good of it. (`KIMI.md` is read in a way that nothing can be
/// in.)
const READ_AT_START: [&str; 10] = [
    "AGENTS.md",
    "agents.md",
    ".agents",
    ".claude",
    ".codex",
    ".kimi",
    ".kimi-code",
    ".mcp.json",
    "mcp.json",
    SKILLS_FOLDER,
];
/// The histories, as they are called once they are set aside.
const SESSIONS: &str = "sessions";
/// How many are kept of a group; the oldest goes first.
const KEPT: u64 = 3;
/// The name of one on trial: nobody knows yet whether the engine does better without it.
const ON_TRIAL: &str = "on-trial";

/// What was set aside and may come back.
#[derive(Debug, PartialEq, Eq)]
pub struct SetAsideTrial {
    paths: Paths,
    group: GroupName,
    /// The folder in which the engine has its histories.
    sessions: PathBuf,
}

impl SetAsideTrial {
    /// Moves away what an engine of this group would begin with. `sessions` is where it has its histories.
    ///
    /// # Errors
    /// A disk that is full or can only be read. [`SetAsideTrial::resume_trial`] goes on with what was begun.
    pub fn begin_trial(paths: &Paths, group: &GroupName, sessions: &Path) -> Result<Self> {
        let aside = Self { paths: paths.clone(), group: group.clone(), sessions: sessions.to_owned() };
        create_private_folder(&aside.trial_folder())?;
        aside.move_sources_away()?;
        Ok(aside)
    }

    /// One that an earlier run has left without a decision, or that an error has ended half-way. What it has
    /// not moved yet is moved now.
    ///
    /// # Errors
    /// As of [`SetAsideTrial::begin_trial`].
    pub fn resume_trial(paths: &Paths, group: &GroupName, sessions: &Path) -> Result<Option<Self>> {
        let aside = Self { paths: paths.clone(), group: group.clone(), sessions: sessions.to_owned() };
        if !aside.trial_folder().is_dir() {
            return Ok(None);
        }
        aside.move_sources_away()?;
        Ok(Some(aside))
    }

    /// The places that an engine reads at its start, each with its name once it is set aside.
    fn source_paths(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let group = self.paths.group_folder(&self.group);
        let read = READ_AT_START.into_iter().map(move |name| (name, group.join(name)));
        std::iter::once((SESSIONS, self.sessions.clone())).chain(read)
    }

    fn move_sources_away(&self) -> Result<()> {
        let explain = || format!("Failed to set aside what {} begins with", self.group);
        let folder = self.trial_folder();
        for (name, place) in self.source_paths() {
            match move_regaining_rights(&place, &folder.join(name)) {
                // What stands in the place of something that was moved belongs to an engine on trial.
                Ok(()) | Err(Errno::NOENT | Errno::EXIST) => {}
                Err(error) => return Err(io::Error::from(error)).with_context(explain),
            }
        }
        create_private_folder(&self.sessions)
    }

    fn trial_folder(&self) -> PathBuf {
        self.paths.set_aside_folder(&self.group).join(ON_TRIAL)
    }

    /// The instructions that were moved out of the work folder.
    fn moved_instruction_names(&self) -> Vec<&'static str> {
        let folder = self.trial_folder();
        READ_AT_START.into_iter().filter(|name| folder.join(name).symlink_metadata().is_ok()).collect()
    }

    /// Puts everything back where it was. What has been made in its place meanwhile goes to the trash.
    ///
    /// # Errors
    /// A disk that is full or can only be read.
    pub fn undo_trial(&self) -> Result<()> {
        let folder = self.trial_folder();
        let explain = || format!("Failed to put back what {} begins with", self.group);
        for (name, place) in self.source_paths() {
            let kept = folder.join(name);
            if kept.symlink_metadata().is_ok() {
                move_to_trash(&self.paths, &self.group, &place).with_context(explain)?;
                move_regaining_rights(&kept, &place).map_err(io::Error::from).with_context(explain)?;
            }
        }
        fs::remove_dir(&folder).with_context(explain)
    }

    /// Keeps it for the owner to look at. Returns the place, beneath the install's root, and the names of
    /// what was moved out of the work folder.
    ///
    /// # Errors
    /// A disk that is full or can only be read.
    pub fn keep_aside(&self) -> Result<(String, Vec<&'static str>)> {
        let names = self.moved_instruction_names();
        let kept = self.paths.set_aside_folder(&self.group);
        let explain = || format!("Failed to keep what {} began with", self.group);
        let numbers = fs::read_dir(&kept)
            .with_context(explain)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
        let number = numbers.max().unwrap_or(0) + 1;
        let folder = kept.join(number.to_string());
        fs::rename(self.trial_folder(), &folder).with_context(explain)?;
        if let Some(oldest) = number.checked_sub(KEPT) {
            move_to_trash(&self.paths, &self.group, &kept.join(oldest.to_string())).with_context(explain)?;
        }
        let shown = folder.strip_prefix(self.paths.root()).unwrap_or(&folder);
        Ok((shown.display().to_string(), names))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn spoiled() -> (tempfile::TempDir, Paths, GroupName, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (paths, family) = (Paths::new(root.path()), GroupName::parse("family").unwrap());
        let sessions = paths.sessions_folder(&family);
        for folder in [&sessions, &paths.group_folder(&family)] {
            create_private_folder(folder).unwrap();
        }
        fs::write(sessions.join("context.jsonl"), "spoiled").unwrap();
        fs::write(paths.group_folder(&family).join("AGENTS.md"), [0xff]).unwrap();
        symlink("/etc", paths.group_folder(&family).join(".kimi")).unwrap();
        fs::create_dir_all(paths.group_folder(&family).join("skills/bread")).unwrap();
        fs::write(paths.group_folder(&family).join("list.txt"), "milk").unwrap();
        (root, paths, family, sessions)
    }

    fn list(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_an_engine_begins_with_goes_and_is_kept() {
        let (_root, paths, family, sessions) = spoiled();
        let aside = SetAsideTrial::begin_trial(&paths, &family, &sessions).unwrap();
        assert_eq!(
            (list(&sessions), list(&paths.group_folder(&family))),
            (vec![], vec!["list.txt".to_owned()])
        );
        let (place, names) = aside.keep_aside().unwrap();
        assert_eq!(
            (place.as_str(), names),
            ("data/agents/family/set-aside/1", vec!["AGENTS.md", ".kimi", "skills"])
        );
        assert_eq!(
            list(&paths.set_aside_folder(&family).join("1")),
            [".kimi", "AGENTS.md", "sessions", "skills"]
        );
        for number in 2..=5 {
            let aside = SetAsideTrial::begin_trial(&paths, &family, &sessions).unwrap();
            assert_eq!(aside.keep_aside().unwrap().0, format!("data/agents/family/set-aside/{number}"));
        }
        assert_eq!(list(&paths.set_aside_folder(&family)), ["3", "4", "5"]);
    }

    #[test]
    fn what_was_not_to_blame_comes_back() {
        let (_root, paths, family, sessions) = spoiled();
        SetAsideTrial::begin_trial(&paths, &family, &sessions).unwrap();
        fs::write(sessions.join("new"), "of the trial").unwrap();
        fs::create_dir(paths.group_folder(&family).join("AGENTS.md")).unwrap();
        // Also after a kill.
        SetAsideTrial::resume_trial(&paths, &family, &sessions).unwrap().unwrap().undo_trial().unwrap();
        assert_eq!(list(&sessions), ["context.jsonl"]);
        assert_eq!(list(&paths.group_folder(&family)), [".kimi", "AGENTS.md", "list.txt", "skills"]);
        assert!(paths.group_folder(&family).join("skills/bread").is_dir());
        assert_eq!(fs::read(paths.group_folder(&family).join("AGENTS.md")).unwrap(), [0xff]);
        assert_eq!(SetAsideTrial::resume_trial(&paths, &family, &sessions).unwrap(), None);
    }

    /// A broken skill in a folder that its agent has closed, in a work folder that is closed too.
    #[test]
    fn what_is_closed_is_moved_away_and_back_and_to_the_trash() {
        for mode in [0o500, 0o300, 0o400, 0o000] {
            let (_root, paths, family, sessions) = spoiled();
            let group = paths.group_folder(&family);
            fs::remove_file(group.join(".kimi")).unwrap();
            let close = |names: &[&str]| {
                for name in names {
                    fs::set_permissions(group.join(name), fs::Permissions::from_mode(mode)).unwrap();
                }
                fs::set_permissions(&sessions, fs::Permissions::from_mode(mode)).unwrap();
            };
            fs::create_dir_all(group.join(".kimi/skills/broken")).unwrap();
            close(&[".kimi", ""]);
            let aside = SetAsideTrial::begin_trial(&paths, &family, &sessions).unwrap();
            fs::set_permissions(&group, fs::Permissions::from_mode(0o700)).unwrap();
            assert_eq!((list(&group), list(&sessions)), (vec!["list.txt".to_owned()], vec![]), "{mode:o}");
            // The engine on trial leaves the same.
            fs::create_dir_all(group.join(".kimi/skills/new")).unwrap();
            close(&[".kimi", ""]);
            aside.undo_trial().unwrap();
            for folder in [&group, &sessions] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
            }
            assert!(group.join(".kimi/skills/broken").is_dir());
            assert_eq!(list(&sessions), ["context.jsonl"]);

            for number in 1..=4 {
                fs::create_dir_all(group.join(".kimi/skills/broken")).unwrap();
                close(&[".kimi", ""]);
                let (place, _) =
                    SetAsideTrial::begin_trial(&paths, &family, &sessions).unwrap().keep_aside().unwrap();
                assert!(place.ends_with(&format!("set-aside/{number}")));
            }
            assert_eq!(list(&paths.set_aside_folder(&family)), ["2", "3", "4"]);
        }
    }

    #[test]
    fn one_that_was_left_half_way_is_finished() {
        let (_root, paths, family, sessions) = spoiled();
        // A kill, or a full disk, after the first of what is moved.
        let folder = paths.set_aside_folder(&family).join(ON_TRIAL);
        create_private_folder(&folder).unwrap();
        fs::rename(&sessions, folder.join(SESSIONS)).unwrap();
        create_private_folder(&sessions).unwrap();
        fs::write(sessions.join("new"), "of the trial").unwrap();
        let aside = SetAsideTrial::resume_trial(&paths, &family, &sessions).unwrap().unwrap();
        assert_eq!(list(&paths.group_folder(&family)), ["list.txt"]);
        assert_eq!(list(&sessions), ["new"], "what was moved before is not moved again");
        assert_eq!(aside.keep_aside().unwrap().1, ["AGENTS.md", ".kimi", "skills"]);
    }
}
