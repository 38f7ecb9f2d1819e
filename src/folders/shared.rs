//! What all groups read, as a copy for each of them: the global folder and the engines' `config.toml`.
//!
//! The copies are made at a launch, in folders that no container can write to. What lies in the global folder
//! belongs to the main channel's agent, which may have put anything there: no link is followed, sockets and
//! pipes are left out, and the whole is bounded.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::state::{FolderState, skills_folder_state};
use super::tree::{
    RemovalResult, TreeEntry, WalkAction, WalkBounds, WalkResult, move_regaining_rights,
    open_folder_for_reading, remove_tree, walk_tree,
};
use super::{PROMPT_FILE, SKILLS_FOLDER, create_private_folder};
use crate::paths::Paths;
use crate::types::{GroupName, Role};

/// What of the global folder a group gets: notes, lists, a few documents. Each start of each group copies it,
/// which takes 1 ms for a handful of files and some 100 ms at these bounds.
const COPY_MAX_BYTES: u64 = 64 * 1024 * 1024;
const COPY_BOUNDS: WalkBounds = WalkBounds { entries: 2_000, depth: 16 };

/// Most entries of the trash that one launch removes; 100 ms.
const TRASH_PER_LAUNCH: u64 = 20_000;

/// What the global folder holds now for an agent of this role: for the main channel, whose agent reads the
/// folder itself, only its prompt and its skills; for all others everything that is copied. It is told by
/// metadata; nothing is opened.
pub fn global_folder_state(paths: &Paths, role: Role) -> FolderState {
    let mut state = FolderState::default();
    let bounds = match role {
        Role::Main => WalkBounds { depth: 1, ..COPY_BOUNDS },
        Role::Member => COPY_BOUNDS,
    };
    let walked = walk_tree(&paths.global_folder(), bounds, |entry| match role {
        Role::Main if entry.depth > 0 || entry.name.to_bytes() != PROMPT_FILE.as_bytes() => {
            WalkAction::PassBy
        }
        Role::Main | Role::Member => {
            state.add_entry(entry);
            WalkAction::Enter
        }
    });
    if role == Role::Main {
        state.add_folder(skills_folder_state(&paths.global_folder().join(SKILLS_FOLDER)));
    }
    if walked.is_ok() { state } else { FolderState::default() }
}

/// Makes a group's copies anew, each in one step. Returns the state of the global folder from before.
///
/// # Errors
/// `config.toml` is missing, or there is no room.
pub fn copy_shared_files(paths: &Paths, group: &GroupName, role: Role) -> Result<FolderState> {
    let state = global_folder_state(paths, role);
    create_private_folder(&paths.agent_folder(group))?;
    copy_engine_config(&paths.engine_config_file(), &paths.agent_config_file(group))?;
    if role == Role::Member {
        copy_global_folder(paths, group)?;
    }
    Ok(state)
}

fn copy_engine_config(from: &Path, to: &Path) -> Result<()> {
    let explain = || format!("Failed to copy {}", from.display());
    let new = to.with_extension("toml.new");
    let copied = File::open(from).and_then(|mut config| {
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::copy(&mut config, &mut copy)
    });
    copied.with_context(explain)?;
    fs::rename(&new, to).with_context(explain)
}

fn copy_global_folder(paths: &Paths, group: &GroupName) -> Result<()> {
    let (from, to) = (paths.global_folder(), paths.agent_global_folder(group));
    let explain = || format!("Failed to copy {}", from.display());
    let new = paths.agent_folder(group).join("global.new");
    remove_tree(&new, u64::MAX).with_context(explain)?;
    create_private_folder(&new)?;
    if copy_tree(&from, &new).with_context(explain)? != WalkResult::Whole {
        tracing::warn!(
            "The folder {} holds more than {} MB, {} entries or {} levels, or what cannot be read; agents get a part of it",
            from.display(),
            COPY_MAX_BYTES / 1024 / 1024,
            COPY_BOUNDS.entries,
            COPY_BOUNDS.depth
        );
    }
    let swap = |flags| rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &to, flags);
    match swap(RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => swap(RenameFlags::NOREPLACE),
        swapped => swapped,
    }
    .map_err(io::Error::from)
    .with_context(explain)?;
    remove_tree(&new, u64::MAX).with_context(explain)?;
    Ok(())
}

/// Copies plain files and folders, the prompt first: nothing else may take its room. What cannot be copied is
/// left out: no agent may keep the others from starting.
///
/// # Errors
/// There is no room for the copy, or it cannot be written to.
fn copy_tree(from: &Path, to: &Path) -> io::Result<WalkResult> {
    let Ok(folder) = open_folder_for_reading(from) else { return Ok(WalkResult::InPart) };
    let folders = HashMap::from([(rustix::fs::fstat(&folder)?.st_ino, to.to_owned())]);
    let mut copy = TreeCopy { folders, room_bytes: COPY_MAX_BYTES, left_out: false, failed: None };
    copy.copy_plain_file(folder.as_fd(), OsStr::new(PROMPT_FILE), &to.join(PROMPT_FILE));
    let walked = walk_tree(from, COPY_BOUNDS, |entry| copy.copy_entry(entry));
    match copy.failed {
        Some(error) => Err(error),
        None if copy.left_out => Ok(WalkResult::InPart),
        None => Ok(walked.unwrap_or(WalkResult::InPart)),
    }
}

struct TreeCopy {
    /// The place of a folder's copy, by the folder's inode.
    folders: HashMap<u64, PathBuf>,
    room_bytes: u64,
    left_out: bool,
    failed: Option<io::Error>,
}

impl TreeCopy {
    fn copy_entry(&mut self, entry: &TreeEntry<'_>) -> WalkAction {
        let name = OsStr::from_bytes(entry.name.to_bytes());
        let Some(to) = self.folders.get(&entry.folder_inode).map(|folder| folder.join(name)) else {
            return WalkAction::PassBy;
        };
        if self.failed.is_some() || (entry.depth == 0 && name == PROMPT_FILE) {
            return WalkAction::PassBy;
        }
        if entry.file_type() == FileType::Directory {
            if let Err(error) = fs::create_dir(&to) {
                self.record_copy_failure(error);
                return WalkAction::PassBy;
            }
            self.folders.insert(entry.stat.st_ino, to);
            return WalkAction::Enter;
        }
        if entry.file_type() == FileType::RegularFile {
            self.copy_plain_file(entry.folder, name, &to);
        }
        WalkAction::PassBy
    }

    /// One that is not there, or no plain file any more, is left out.
    fn copy_plain_file(&mut self, folder: BorrowedFd<'_>, name: &OsStr, to: &Path) {
        // NONBLOCK: neither a pipe nor a file that its agent has a lease on (fcntl(2)) may hold us up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(error) => {
                self.left_out |= error != Errno::NOENT;
                return;
            }
        };
        let Ok(metadata) = file.metadata() else { return };
        if !metadata.is_file() {
            return;
        }
        if metadata.len() > self.room_bytes {
            self.left_out = true;
            return;
        }
        self.room_bytes -= metadata.len();
        // Scripts stay executable.
        let mode = 0o600 | (metadata.permissions().mode() & 0o100);
        let copied =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(to).and_then(|mut new| {
                // It may grow meanwhile.
                io::copy(&mut file.take(metadata.len()), &mut new)
            });
        if let Err(error) = copied {
            self.record_copy_failure(error);
        }
    }

    /// Decides what it means that something was not copied. Only an error that keeps everything from being
    /// copied ends it: a full disk, or a place that cannot be written to. Any other, such as a path that gets
    /// too long, may be an agent's doing.
    fn record_copy_failure(&mut self, error: io::Error) {
        let is_everything = matches!(
            error.kind(),
            ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::PermissionDenied
        );
        if is_everything {
            self.failed = Some(error);
        } else {
            self.left_out = true;
        }
    }
}

/// Puts a new, empty folder in the place of one that an agent could write to; the old one goes to the trash,
/// where no container reaches it.
///
/// # Errors
/// There is no room, or a disk that can only be read.
pub fn replace_with_empty_folder(paths: &Paths, group: &GroupName, folder: &Path) -> Result<()> {
    move_to_trash(paths, group, folder)
        .with_context(|| format!("Failed to move {} away", folder.display()))?;
    create_private_folder(folder)
}

/// Moves the history of the last task that ran by itself to the trash, if there is one. The next such run
/// begins without it, and no other engine sees it.
///
/// # Errors
/// There is no room, or a disk that can only be read.
pub fn discard_isolated_sessions(paths: &Paths, group: &GroupName) -> Result<()> {
    let folder = paths.isolated_sessions_folder(group);
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    move_to_trash(paths, group, &folder).with_context(|| format!("Failed to move {} away", folder.display()))
}

pub(super) fn move_to_trash(paths: &Paths, group: &GroupName, path: &Path) -> Result<()> {
    let trash = paths.agent_trash_folder(group);
    create_private_folder(&trash)?;
    for number in 0_u64.. {
        let to = trash.join(number.to_string());
        match move_regaining_rights(path, &to) {
            Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => return Ok(()),
            moved => return Ok(moved.map_err(io::Error::from)?),
        }
    }
    Ok(())
}

/// Removes what lies in a group's trash, as much as is quick.
pub fn empty_trash(paths: &Paths, group: &GroupName) {
    match remove_tree(&paths.agent_trash_folder(group), TRASH_PER_LAUNCH) {
        Ok(RemovalResult::Complete) => {}
        Ok(RemovalResult::Partial) => {
            tracing::info!(%group, "An agent has left much to remove; the next start goes on with it")
        }
        Err(error) => tracing::warn!(%group, "Failed to remove what an agent has left: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn install() -> (tempfile::TempDir, Paths, GroupName) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        super::super::prepare_install_folders(&paths).unwrap();
        fs::write(paths.engine_config_file(), "a = 1").unwrap();
        (root, paths, GroupName::parse("family").unwrap())
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
    fn a_member_gets_files_of_its_own_that_say_the_same() {
        let (_root, paths, family) = install();
        fs::write(paths.global_folder().join("KIMI.md"), "Be kind.").unwrap();
        fs::create_dir_all(paths.global_folder().join("tools/new")).unwrap();
        fs::write(paths.global_folder().join("tools/new/run.sh"), "#!/bin/sh").unwrap();
        fs::set_permissions(
            paths.global_folder().join("tools/new/run.sh"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        let copy = paths.agent_global_folder(&family);
        assert_eq!(fs::read_to_string(copy.join("KIMI.md")).unwrap(), "Be kind.");
        assert_eq!(fs::read_to_string(paths.agent_config_file(&family)).unwrap(), "a = 1");
        assert_eq!(fs::metadata(copy.join("tools/new/run.sh")).unwrap().mode() & 0o777, 0o700);
        for (one, other) in [
            (paths.global_folder(), copy.clone()),
            (paths.global_folder().join("KIMI.md"), copy.join("KIMI.md")),
            (paths.engine_config_file(), paths.agent_config_file(&family)),
        ] {
            assert_ne!(fs::metadata(one).unwrap().ino(), fs::metadata(other).unwrap().ino());
        }

        fs::remove_dir_all(paths.global_folder().join("tools")).unwrap();
        fs::write(paths.global_folder().join("KIMI.md"), "Be kinder.").unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        assert_eq!(list(&copy), ["KIMI.md"]);
        assert_eq!(fs::read_to_string(copy.join("KIMI.md")).unwrap(), "Be kinder.");
        assert_eq!(list(&paths.agent_folder(&family)), ["config.toml", "global"], "nothing else is left");
    }

    #[test]
    fn links_pipes_and_sockets_are_not_copied() {
        let (root, paths, family) = install();
        fs::write(root.path().join(".env"), "KEY=secret").unwrap();
        symlink("../../.env", paths.global_folder().join("env")).unwrap();
        symlink("../..", paths.global_folder().join("up")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, paths.global_folder().join("pipe"), Mode::RWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(paths.global_folder().join("socket")).unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        assert_eq!(list(&paths.agent_global_folder(&family)), ["KIMI.md"]);

        // Nor is a prompt that is no plain file, and its group starts all the same.
        fs::remove_file(paths.global_folder().join("KIMI.md")).unwrap();
        symlink("../../.env", paths.global_folder().join("KIMI.md")).unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        assert_eq!(list(&paths.agent_global_folder(&family)), [""; 0]);
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn no_right_that_main_takes_away_keeps_others_from_starting() {
        for mode in [0o300, 0o400, 0o500, 0o000] {
            for closed in ["", "a", "a/b"] {
                let (_root, paths, family) = install();
                let global = paths.global_folder();
                fs::create_dir_all(global.join("a/b")).unwrap();
                fs::write(global.join("a/b/list.txt"), "milk").unwrap();
                chmod(&global.join(closed), mode);
                copy_shared_files(&paths, &family, Role::Member).unwrap();
                let copy = paths.agent_global_folder(&family);
                assert_eq!(list(&copy), ["KIMI.md", "a"], "{mode:o} {closed}");
                assert_eq!(fs::read_to_string(copy.join("a/b/list.txt")).unwrap(), "milk");
            }
        }
    }

    /// Names of 255 bytes at each depth: the copy's path gets longer than the kernel takes.
    #[test]
    fn names_that_are_too_long_in_all_are_left_out() {
        let (_root, paths, family) = install();
        let mut inner = open_folder_for_reading(&paths.global_folder()).unwrap();
        let long = "x".repeat(255);
        for _ in 0..17 {
            fs::write(format!("/proc/self/fd/{}/note", inner.as_raw_fd()), "x").unwrap();
            rustix::fs::mkdirat(&inner, &long, Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            inner = rustix::fs::openat(&inner, &long, flags, Mode::empty()).unwrap();
        }
        for _ in 0..2 {
            copy_shared_files(&paths, &family, Role::Member).unwrap();
            let copy = paths.agent_global_folder(&family);
            assert_eq!(list(&copy), ["KIMI.md", "note", &long]);
            assert!(copy.join([long.as_str(); 12].join("/")).join("note").exists());
        }
    }

    #[test]
    fn whatever_lies_in_the_global_folder_its_neighbours_are_copied() {
        let (_root, paths, family) = install();
        let global = paths.global_folder();
        fs::write(global.join("closed"), "x").unwrap();
        chmod(&global.join("closed"), 0o000);
        fs::write(global.join("one"), "x").unwrap();
        fs::hard_link(global.join("one"), global.join("two")).unwrap();
        File::create(global.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        fs::write(global.join(OsStr::from_bytes(b"not-utf8-\xff")), "x").unwrap();
        fs::write(global.join("y".repeat(255)), "x").unwrap();
        fs::write(global.join("new\nline"), "x").unwrap();
        fs::create_dir(global.join("global.new")).unwrap();
        fs::create_dir(global.join("loop")).unwrap();
        symlink("../loop", global.join("loop/loop")).unwrap();
        symlink("nowhere", global.join("dangling")).unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        let mut copied = list(&paths.agent_global_folder(&family));
        // Root may read it.
        copied.retain(|name| name != "closed");
        let long = "y".repeat(255);
        let all = ["KIMI.md", "global.new", "loop", "new\nline", "not-utf8-\u{fffd}", "one", "two", &long];
        assert_eq!(copied, all);
    }

    #[test]
    fn what_comes_and_goes_meanwhile_keeps_nobody_from_starting() {
        let (_root, paths, family) = install();
        let global = paths.global_folder();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    fs::create_dir_all(global.join("a/b/c")).unwrap();
                    fs::write(global.join("a/b/file"), "x".repeat(usize::try_from(number % 10_000).unwrap()))
                        .unwrap();
                    fs::rename(global.join("a/b"), global.join("moved")).unwrap();
                    // The service may just have closed one for us, and opened it again.
                    chmod(&global.join("moved"), 0o400);
                    chmod(&global.join("moved"), 0o700);
                    fs::remove_dir_all(global.join("moved")).unwrap();
                }
            });
            for _ in 0..300 {
                copy_shared_files(&paths, &family, Role::Member).unwrap();
                assert!(paths.agent_global_folder(&family).join("KIMI.md").exists());
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn only_what_keeps_everything_from_being_copied_is_an_error() {
        let after = |error: Errno| {
            let mut copy = TreeCopy { folders: HashMap::new(), room_bytes: 0, left_out: false, failed: None };
            copy.record_copy_failure(error.into());
            (copy.failed.is_some(), copy.left_out)
        };
        for error in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS] {
            assert_eq!(after(error), (true, false), "{error}");
        }
        for error in [
            Errno::NAMETOOLONG,
            Errno::EXIST,
            Errno::IO,
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::LOOP,
            Errno::MLINK,
        ] {
            assert_eq!(after(error), (false, true), "{error}");
        }
    }

    #[test]
    fn a_flood_in_the_global_folder_costs_no_group_its_prompt() {
        let (_root, paths, family) = install();
        for number in 0..3_000 {
            fs::write(paths.global_folder().join(format!("a{number}")), "x").unwrap();
        }
        let large = File::create(paths.global_folder().join("large")).unwrap();
        large.set_len(COPY_MAX_BYTES + 1).unwrap();
        copy_shared_files(&paths, &family, Role::Member).unwrap();
        let copied = list(&paths.agent_global_folder(&family));
        assert!(copied.contains(&"KIMI.md".to_owned()) && copied.len() <= 2_001, "{}", copied.len());
        assert!(!copied.contains(&"large".to_owned()));
    }

    #[test]
    fn a_change_is_seen_by_those_whom_it_concerns() {
        let (_root, paths, _) = install();
        let states = || [Role::Main, Role::Member].map(|role| global_folder_state(&paths, role));
        let before = states();
        assert_eq!(states(), before);
        fs::write(paths.global_folder().join("list.txt"), "milk").unwrap();
        let after_a_file = states();
        assert_eq!(after_a_file[0], before[0], "main reads the folder itself");
        assert_ne!(after_a_file[1], before[1]);
        fs::write(paths.global_folder().join("KIMI.md"), "Be kind.").unwrap();
        let after_the_prompt = states();
        assert_ne!(after_the_prompt[0], after_a_file[0]);
        assert_ne!(after_the_prompt[1], after_a_file[1]);
        fs::create_dir_all(paths.global_folder().join("skills/bread")).unwrap();
        fs::write(paths.global_folder().join("skills/bread/SKILL.md"), "Knead.").unwrap();
        let after_a_skill = states();
        assert_ne!(after_a_skill[0], after_the_prompt[0]);
        assert_ne!(after_a_skill[1], after_the_prompt[1]);
    }

    #[test]
    fn a_renewed_folder_is_empty_whatever_an_agent_has_made_of_it() {
        let (_root, paths, family) = install();
        let folder = paths.agent_credentials_folder(&family);
        for number in 0..3 {
            create_private_folder(&folder).unwrap();
            fs::create_dir_all(folder.join("kimi-code.json/a/b")).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).unwrap();
            replace_with_empty_folder(&paths, &family, &folder).unwrap();
            assert_eq!(list(&folder), [""; 0]);
            assert_eq!(list(&paths.agent_trash_folder(&family)).len(), number + 1);
        }
        empty_trash(&paths, &family);
        assert!(!paths.agent_trash_folder(&family).exists());
        fs::remove_dir(&folder).unwrap();
        replace_with_empty_folder(&paths, &family, &folder).unwrap();
        assert_eq!(list(&folder), [""; 0]);
    }
}
