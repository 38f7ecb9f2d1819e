//! Files beneath a folder that an agent owns: opened, made and renamed without ever leaving it.
//!
//! The agent may put anything there at any time: links, pipes, folders in a file's place. So no path is
//! looked at first and opened afterwards: the kernel resolves it in one step and refuses every link
//! (openat2(2)), and what was opened is looked at by its handle.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::types::DiskSpace;

/// Nothing on the way may lead out of the folder, not even by a link that comes back.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Why a file was not opened.
#[derive(Debug)]
pub enum OpenError {
    NotThere,
    /// No plain file of this folder: the path leads out of it, over a link, or to something else.
    NotAFile,
    Failed(io::Error),
}

/// Opens a plain file for reading; returns its length in bytes as well.
///
/// `path` is relative, with `/` between its names.
///
/// # Errors
/// [`OpenError`].
pub fn open_beneath(folder: &Path, path: &str) -> Result<(File, u64), OpenError> {
    if !path.split('/').all(is_safe_name) {
        return Err(OpenError::NotAFile);
    }
    let folder = open_folder_nofollow(folder)?;
    // NONBLOCK: a pipe must not hold us until somebody writes into it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat2(&folder, path, flags, Mode::empty(), RESOLVE)?);
    let metadata = file.metadata().map_err(OpenError::Failed)?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(OpenError::NotAFile) }
}

/// A file that is being written. Dropping it removes it, unless it was kept.
#[derive(Debug)]
pub struct PartialFile {
    folder: OwnedFd,
    name: String,
    file: File,
}

/// Makes a file for writing in a folder beneath `folder`, with every folder on the way that is missing. One
/// that an earlier try has left under this name is replaced.
///
/// # Errors
/// A name that is not safe, something else in a folder's place, or no room.
pub fn create_beneath(folder: &Path, folders: &[&str], name: &str) -> io::Result<PartialFile> {
    if !folders.iter().chain([&name]).all(|name| is_safe_name(name)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut folder = open_folder_nofollow(folder)?;
    for next in folders {
        match rustix::fs::mkdirat(&folder, *next, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        folder = rustix::fs::openat2(&folder, *next, flags, Mode::empty(), RESOLVE)?;
    }
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(&folder, name, flags, Mode::RUSR | Mode::WUSR, RESOLVE)?;
    Ok(PartialFile { folder, name: name.to_owned(), file: file.into() })
}

/// Removes a file, if it is there. Never follows a link.
///
/// # Errors
/// A path that leads out of the folder or over a link, or a folder in the file's place.
pub fn remove_beneath(folder: &Path, path: &str) -> io::Result<()> {
    if !path.split('/').all(is_safe_name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut parent = open_folder_nofollow(folder)?;
    let mut name = path;
    if let Some((folders, last)) = path.rsplit_once('/') {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        parent = match rustix::fs::openat2(&parent, folders, flags, Mode::empty(), RESOLVE) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        name = last;
    }
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an ordinary user may still use of the disk of a folder.
///
/// # Errors
/// The folder is not there, or a link stands in its place.
pub fn free_space_of_folder(folder: &Path) -> io::Result<DiskSpace> {
    Ok(rustix::fs::fstatvfs(open_folder_nofollow(folder)?)?.into())
}

impl PartialFile {
    /// Another handle to the same file.
    ///
    /// # Errors
    /// The host is out of handles.
    pub fn clone_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// On disk, and under its own name, when this returns. What was there before is gone.
    ///
    /// # Errors
    /// The disk is full, or a folder stands in its place.
    pub fn persist_as(self, name: &str) -> io::Result<()> {
        if !is_safe_name(name) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.sync_all()?;
        Ok(rustix::fs::renameat(&self.folder, self.name.as_str(), &self.folder, name)?)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // A file that was kept is not there any more under this name. One that resists is left to the next
        // try.
        rustix::fs::unlinkat(&self.folder, self.name.as_str(), AtFlags::empty()).ok();
    }
}

/// The folder itself is ours, but what stands in its place must not be a link.
fn open_folder_nofollow(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, folder, flags, Mode::empty())
}

/// Whether a name names something in the folder that it is looked for in, on any system.
fn is_safe_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::NotThere,
            // A link, a way out, a file in a folder's place, a socket, a name that cannot be one, a closed
            // folder.
            Errno::LOOP
            | Errno::XDEV
            | Errno::NOTDIR
            | Errno::NXIO
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ACCESS => Self::NotAFile,
            error => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A group's folder beside what its agent must not reach.
    fn world() -> (tempfile::TempDir, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("family");
        fs::create_dir_all(group.join("charts/new")).unwrap();
        fs::create_dir(root.path().join("victim-dir")).unwrap();
        fs::write(root.path().join("secret.txt"), "secret").unwrap();
        fs::write(group.join("chart.png"), "a chart").unwrap();
        fs::write(group.join("charts/new/two words.png"), "another").unwrap();
        (root, group)
    }

    fn read(group: &Path, path: &str) -> String {
        match open_beneath(group, path) {
            Ok((mut file, bytes)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(bytes, text.len() as u64);
                text
            }
            Err(OpenError::NotThere) => "not there".to_owned(),
            Err(OpenError::NotAFile) => "no file".to_owned(),
            Err(OpenError::Failed(error)) => panic!("{path}: {error}"),
        }
    }

    #[test]
    fn names_that_stay_in_their_folder_are_safe() {
        for safe in ["baby-duck.png", "file with spaces.pdf", "report.v2.docx", ".hidden", "año.txt", "..."]
        {
            assert!(is_safe_name(safe), "{safe:?}");
        }
        for unsafe_name in [
            "",
            ".",
            "..",
            "../evil.png",
            "/etc/passwd",
            "nested/file.txt",
            "windows\\path.exe",
            "clean\0.png",
            "a/b",
            "./thing",
        ] {
            assert!(!is_safe_name(unsafe_name), "{unsafe_name:?}");
        }
    }

    #[test]
    fn only_plain_files_of_the_folder_are_opened() {
        let (root, group) = world();
        symlink("/etc/passwd", group.join("safe-name.txt")).unwrap();
        symlink("../secret.txt", group.join("out")).unwrap();
        symlink("chart.png", group.join("in")).unwrap();
        symlink(root.path(), group.join("up")).unwrap();
        symlink("charts", group.join("charts-too")).unwrap();
        symlink("loop", group.join("loop")).unwrap();
        rustix::fs::mkfifoat(CWD, group.join("pipe"), Mode::RWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(group.join("socket")).unwrap();
        for (path, expected) in [
            ("chart.png", "a chart"),
            ("charts/new/two words.png", "another"),
            ("missing.png", "not there"),
            ("charts/missing/chart.png", "not there"),
            // ways out
            ("../secret.txt", "no file"),
            ("charts/../../secret.txt", "no file"),
            ("../../../../../outside.txt", "no file"),
            ("/etc/passwd", "no file"),
            ("", "no file"),
            ("charts//chart.png", "no file"),
            ("windows\\path.exe", "no file"),
            ("chart.png\0.txt", "no file"),
            // links, wherever they lead
            ("safe-name.txt", "no file"),
            ("out", "no file"),
            ("in", "no file"),
            ("up/secret.txt", "no file"),
            ("charts-too/new/two words.png", "no file"),
            ("loop", "no file"),
            // what is no file
            ("charts", "no file"),
            ("chart.png/x", "no file"),
            ("pipe", "no file"),
            ("socket", "no file"),
        ] {
            assert_eq!(read(&group, path), expected, "{path:?}");
        }
        assert_eq!(read(&group, &"x".repeat(300)), "no file");
        symlink(&group, root.path().join("linked-group")).unwrap();
        assert_eq!(read(&root.path().join("linked-group"), "chart.png"), "no file");
    }

    #[test]
    fn a_file_that_was_opened_stays_the_one_it_was() {
        let (root, group) = world();
        let (mut file, _) = open_beneath(&group, "chart.png").unwrap();
        fs::remove_file(group.join("chart.png")).unwrap();
        symlink(root.path().join("secret.txt"), group.join("chart.png")).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a chart");
    }

    #[test]
    fn a_new_file_is_private_and_only_there_once_it_is_kept() {
        let (_root, group) = world();
        let unfinished = create_beneath(&group, &["inbox", "2026-11-21"], ".part").unwrap();
        unfinished.clone_handle().unwrap().write_all(b"a picture").unwrap();
        unfinished.persist_as("101502-a1b2c3.jpg").unwrap();
        assert_eq!(read(&group, "inbox/2026-11-21/101502-a1b2c3.jpg"), "a picture");
        assert_eq!(read(&group, "inbox/2026-11-21/.part"), "not there");
        let mode = |path: &str| fs::metadata(group.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("inbox/2026-11-21/101502-a1b2c3.jpg"), 0o600);
        assert_eq!((mode("inbox"), mode("inbox/2026-11-21")), (0o700, 0o700));

        drop(create_beneath(&group, &["inbox", "2026-11-21"], ".part").unwrap());
        assert_eq!(read(&group, "inbox/2026-11-21/.part"), "not there");
        // What a kill has left is replaced.
        fs::write(group.join("inbox/2026-11-21/.part"), "half a pic").unwrap();
        let again = create_beneath(&group, &["inbox", "2026-11-21"], ".part").unwrap();
        assert_eq!(again.clone_handle().unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_file_is_removed_and_nothing_outside_of_the_folder() {
        let (root, group) = world();
        symlink(root.path(), group.join("up")).unwrap();
        symlink(root.path().join("secret.txt"), group.join("link")).unwrap();
        for gone in ["charts/new/two words.png", "charts/new/two words.png", "no/such", "chart.png", "link"] {
            remove_beneath(&group, gone).unwrap();
            assert!(!group.join(gone).exists(), "{gone}");
        }
        for bad in ["../secret.txt", "up/secret.txt", "/etc/passwd", "", "charts/new", "charts/.."] {
            remove_beneath(&group, bad).unwrap_err();
        }
        assert_eq!(fs::read_to_string(root.path().join("secret.txt")).unwrap(), "secret");
    }

    #[test]
    fn the_disk_of_a_folder_has_some_room() {
        let (root, group) = world();
        let room = free_space_of_folder(&group).unwrap();
        assert!(room.bytes > 0 && room.entries > 0, "{room:?}");
        free_space_of_folder(&root.path().join("nowhere")).unwrap_err();
    }

    #[test]
    fn nothing_is_made_outside_of_the_folder() {
        let (root, group) = world();
        let victim = root.path().join("victim-dir");
        symlink(&victim, group.join("inbox")).unwrap();
        create_beneath(&group, &["inbox"], "a").unwrap_err();
        create_beneath(&group, &["inbox", "2026-11-21"], "a").unwrap_err();
        symlink(victim.join("planted"), group.join("b")).unwrap();
        let unfinished = create_beneath(&group, &[], "b").unwrap();
        unfinished.clone_handle().unwrap().write_all(b"mine").unwrap();
        // A link in the place of the last name is replaced, never followed.
        symlink(root.path().join("secret.txt"), group.join("c")).unwrap();
        unfinished.persist_as("c").unwrap();
        assert_eq!(read(&group, "c"), "mine");
        for bad in ["../../escape", "..", "", "/etc/x", "a\\b"] {
            create_beneath(&group, &[bad], "a").unwrap_err();
            create_beneath(&group, &[], bad).unwrap_err();
            create_beneath(&group, &[], "d").unwrap().persist_as(bad).unwrap_err();
        }
        create_beneath(&group, &["chart.png"], "a").unwrap_err();
        fs::create_dir(group.join("e")).unwrap();
        create_beneath(&group, &[], "d").unwrap().persist_as("e").unwrap_err();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(root.path().join("secret.txt")).unwrap(), "secret");
        assert_eq!(read(&group, "d"), "not there");
    }
}
