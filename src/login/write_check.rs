//! Whether a renewed login could be saved. The server voids the old one before the new one is on disk.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::paths::Paths;

/// What is made in the login's folder for a moment, and its second name.
const TRIAL: [&str; 2] = ["saving-trial", "saving-trial-renamed"];

/// What would keep a renewed login from being saved.
#[derive(Debug)]
pub enum WriteObstacle {
    /// The login file is a mount point, over which nothing can be renamed (EBUSY).
    MountedFile,
    /// Nothing can be made or renamed in its folder.
    Folder(io::Error),
}

/// Saves something else the way a login is saved, and leaves nothing behind. The login itself is not touched.
/// If the folder is missing, that is no obstacle: it is made at the first start.
pub fn check_writable(paths: &Paths) -> Option<WriteObstacle> {
    if is_mount_point(&paths.login_file()) {
        return Some(WriteObstacle::MountedFile);
    }
    match try_create_and_rename(&paths.credentials_folder()) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(WriteObstacle::Folder(error)),
    }
}

fn try_create_and_rename(folder: &Path) -> io::Result<()> {
    let [made, renamed] = TRIAL.map(|name| folder.join(name));
    File::create(&made)?;
    let tried = fs::rename(&made, &renamed);
    let removed = fs::remove_file(if tried.is_ok() { &renamed } else { &made });
    tried.and(removed)
}

/// Whether something is mounted right at this path.
fn is_mount_point(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let (Some(folder), Some(name)) = (folder, path.file_name()) else { return false };
    fs::read("/proc/self/mountinfo")
        .is_ok_and(|mounts| parse_mount_points(&mounts).contains(&folder.join(name)))
}

/// The mount points of a `/proc/self/mountinfo` (proc_pid_mountinfo(5)): the fifth field of each line, in
/// which `\040` and the like are characters.
fn parse_mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsStr::from_bytes(&unescape_octal(field)))).collect()
}

fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let mountinfo = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            36 22 0:33 /x /home/ana/my\\040login\\134.json rw,relatime shared:1 - tmpfs tmpfs rw\nbroken\n";
        assert_eq!(parse_mount_points(mountinfo), [Path::new("/"), Path::new("/home/ana/my login\\.json")]);
    }

    #[test]
    fn trying_leaves_nothing_behind_and_makes_no_folder() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        assert!(check_writable(&paths).is_none() && !paths.credentials_folder().exists());
        fs::create_dir_all(paths.credentials_folder()).unwrap();
        assert!(check_writable(&paths).is_none());
        assert_eq!(fs::read_dir(paths.credentials_folder()).unwrap().count(), 0);
        fs::remove_dir(paths.credentials_folder()).unwrap();
        fs::write(paths.credentials_folder(), "a file").unwrap();
        assert!(matches!(check_writable(&paths), Some(WriteObstacle::Folder(_))));
    }
}
