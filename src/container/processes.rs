//! What the processes of a group's container hold of the machine, besides files that have a name. Read from
//! /proc.
//!
//! They are found by what they see in place of the group's folder, which no agent can change. They run as our
//! user, so that /proc hides nothing of them from us.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::spec::GROUP;

/// Most descriptors that one look goes through: those of a hundred usual programs. A container with more
/// holds too much.
const DESCRIPTORS_MAX: u64 = 20_000;

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldResources {
    /// Of files that have no name any more, on the disk of the group's folder.
    pub nameless_bytes: u64,
    pub nameless_files: u64,
    /// Written to disks since the start, less what was removed before it got there.
    pub written_bytes: u64,
    /// Sets of watches: `epoll` and `inotify`. Both are bounded for all programs of a user together.
    pub watch_sets: u64,
    /// Files and folders in /dev, which is in memory and bounded in bytes only.
    pub files_in_dev: u64,
}

/// Looks at all processes of the container that has this folder for its group's.
///
/// # Errors
/// The folder or /proc cannot be read.
pub fn measure_held_resources(folder: &Path) -> io::Result<HeldResources> {
    let folder = fs::metadata(folder)?;
    let (folder, disk) = (file_identity(&folder), folder.dev());
    let mut held = HeldResources::default();
    let mut rest = DESCRIPTORS_MAX;
    for process in list_process_folders()? {
        if group_folder_id(&process) == Some(folder) {
            // A process that ends meanwhile holds nothing.
            held.written_bytes += read_written_bytes(&process).unwrap_or(0);
            held.files_in_dev = held.files_in_dev.max(count_files_in_dev(&process).unwrap_or(0));
            count_descriptors(&process, disk, &mut held, &mut rest).ok();
        }
    }
    Ok(held)
}

/// The folders of all processes in /proc.
pub(super) fn list_process_folders() -> io::Result<impl Iterator<Item = PathBuf>> {
    let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| entry.path())
    });
    Ok(processes)
}

/// What a process sees in place of its group's folder, if it sees something there.
pub(super) fn group_folder_id(process: &Path) -> Option<(u64, u64)> {
    Some(file_identity(&fs::metadata(path_in_process_root(process, GROUP)).ok()?))
}

/// Its disk and its number there: no other file on this machine has both.
pub(super) fn file_identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// A path as a process sees it.
pub(super) fn path_in_process_root(process: &Path, path: &str) -> PathBuf {
    process.join("root").join(path.trim_start_matches('/'))
}

/// See proc_pid_io(5).
fn read_written_bytes(process: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(process.join("io"))?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let written = number("write_bytes:").unwrap_or(0);
    Ok(written.saturating_sub(number("cancelled_write_bytes:").unwrap_or(0)))
}

fn count_files_in_dev(process: &Path) -> io::Result<u64> {
    let dev = rustix::fs::statvfs(path_in_process_root(process, "/dev"))?;
    Ok(dev.f_files.saturating_sub(dev.f_ffree))
}

fn count_descriptors(process: &Path, disk: u64, held: &mut HeldResources, rest: &mut u64) -> io::Result<()> {
    for descriptor in fs::read_dir(process.join("fd"))? {
        if *rest == 0 {
            held.watch_sets = u64::MAX;
            held.nameless_files = u64::MAX;
            return Ok(());
        }
        *rest -= 1;
        let descriptor = descriptor?.path();
        let Ok(leads_to) = fs::read_link(&descriptor) else { continue };
        let name = leads_to.as_os_str().as_encoded_bytes();
        if name.starts_with(b"anon_inode:[eventpoll]") || name.starts_with(b"anon_inode:inotify") {
            held.watch_sets = held.watch_sets.saturating_add(1);
        } else if name.starts_with(b"/")
            && let Ok(file) = fs::metadata(&descriptor)
            && file.nlink() == 0
            && file.dev() == disk
        {
            held.nameless_bytes += file.blocks() * 512;
            held.nameless_files = held.nameless_files.saturating_add(1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_written_is_told_by_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path();
        fs::write(process.join("io"), "rchar: 7\nwrite_bytes: 1000\ncancelled_write_bytes: 400\n").unwrap();
        assert_eq!(read_written_bytes(process).unwrap(), 600);
        fs::write(process.join("io"), "").unwrap();
        assert_eq!(read_written_bytes(process).unwrap(), 0);
    }

    #[test]
    fn files_without_a_name_and_sets_of_watches_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("gone")).unwrap();
        io::Write::write_all(&mut &file, &[1; 1024 * 1024]).unwrap();
        let disk = file.metadata().unwrap().dev();
        let count = || {
            let mut held = HeldResources::default();
            count_descriptors(Path::new("/proc/self"), disk, &mut held, &mut 1_000).unwrap();
            held
        };
        let before = count();
        fs::remove_file(folder.path().join("gone")).unwrap();
        let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
        let after = count();
        // Other tests of this process open and close files meanwhile.
        assert!(after.nameless_bytes >= 1024 * 1024 && after.nameless_files >= 1, "{before:?} {after:?}");
        assert!(after.watch_sets >= 1, "{after:?}");
        drop((file, inotify));

        let mut held = HeldResources::default();
        count_descriptors(Path::new("/proc/self"), disk, &mut held, &mut 1).unwrap();
        assert_eq!(held.watch_sets, u64::MAX, "too many to look at is too much");
    }

    #[test]
    fn no_process_of_this_machine_has_our_folder_for_its_groups() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(measure_held_resources(folder.path()).unwrap(), HeldResources::default());
    }
}
