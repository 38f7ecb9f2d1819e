//! Trees that an agent has made: walked and removed in constant depth of our own stack, and bounded.
//!
//! An agent makes thousands of nested folders in a second; recursion over them would overflow the stack. No
//! link is followed. Folders that the agent has closed are opened to us again, since they belong to our user.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A folder as a place: it opens whatever the folder's own rights are.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// No link on the way, and nothing of another file system.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// What it takes to see what is in a folder: its names, and what they stand for.
const TO_READ: Mode = Mode::RUSR.union(Mode::XUSR);
/// What it takes to change what is in a folder, and to move it: that writes its "..".
const TO_CHANGE: Mode = Mode::RWXU;

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkBounds {
    pub entries: u64,
    /// Folders within each other.
    pub depth: usize,
}

/// How a walk ended, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalkResult {
    Whole,
    /// Somebody moves folders or closes them while we walk. Another walk may see the whole.
    Disturbed,
    /// There is more than the bounds, or something that is not the agent's: a folder of another user or file
    /// system.
    InPart,
}

/// Something that a walk has found.
pub struct TreeEntry<'a> {
    /// The folder that it is in, and its inode.
    pub folder: BorrowedFd<'a>,
    pub folder_inode: u64,
    pub name: &'a CStr,
    pub stat: Stat,
    /// Folders between it and the one where the walk began.
    pub depth: usize,
}

impl TreeEntry<'_> {
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What a walk does after an entry; only a folder is ever entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkAction {
    Enter,
    PassBy,
}

/// A folder on the way to where a walk is.
struct WalkLevel {
    /// Its disk and inode, by which it is known again on the way back.
    id: (u64, u64),
    /// What is still to be entered.
    folders: Vec<CString>,
}

/// Shows everything beneath a folder to `visit`, a folder before what is in it. What disappears meanwhile is
/// left out. One descriptor is open at a time: the way back goes by "..".
///
/// # Errors
/// The folder itself is not there, or is no folder.
pub fn walk_tree(
    folder: &Path,
    bounds: WalkBounds,
    visit: impl FnMut(&TreeEntry<'_>) -> WalkAction,
) -> io::Result<WalkResult> {
    let mut walk = TreeWalker { rest: bounds.entries, walked: WalkResult::Whole, visit };
    let mut here = match open_folder_for_reading(folder) {
        Ok(here) => here,
        Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => return Err(error.into()),
        Err(error) => return Ok(walk_result_after_error(error)),
    };
    let Some(first) = walk.visit_folder_entries(&here, 0)? else { return Ok(WalkResult::InPart) };
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.folders.pop() else {
            levels.pop();
            let Some(parent) = levels.last() else { break };
            match open_expected_parent(&here, parent.id) {
                Ok(Some(parent)) => here = parent,
                Ok(None) | Err(_) => return Ok(walk.walked.max(WalkResult::Disturbed)),
            }
            continue;
        };
        if levels.len() >= bounds.depth {
            walk.walked = WalkResult::InPart;
            continue;
        }
        match open_subfolder(here.as_fd(), &name, TO_READ) {
            Ok(inner) => here = inner,
            Err(Errno::NOENT) => continue,
            Err(error) => {
                walk.walked = walk.walked.max(walk_result_after_error(error));
                continue;
            }
        }
        match walk.visit_folder_entries(&here, levels.len())? {
            Some(level) => levels.push(level),
            None => return Ok(WalkResult::InPart),
        }
    }
    Ok(walk.walked)
}

/// What a walk has seen that could not open a folder. We have just taken back all rights; only an agent that
/// takes them away again in the same moment can still keep us out.
fn walk_result_after_error(error: Errno) -> WalkResult {
    if matches!(error, Errno::PERM | Errno::ROFS | Errno::XDEV) {
        WalkResult::InPart
    } else {
        WalkResult::Disturbed
    }
}

struct TreeWalker<V> {
    rest: u64,
    walked: WalkResult,
    visit: V,
}

impl<V: FnMut(&TreeEntry<'_>) -> WalkAction> TreeWalker<V> {
    /// Shows what is directly in a folder; nothing comes back when there is more than `rest` entries.
    fn visit_folder_entries(&mut self, folder: &OwnedFd, depth: usize) -> io::Result<Option<WalkLevel>> {
        let mut level = WalkLevel { id: device_and_inode(&rustix::fs::fstat(folder)?), folders: Vec::new() };
        let Ok(names) = Dir::read_from(folder) else {
            self.walked = self.walked.max(WalkResult::Disturbed);
            return Ok(Some(level));
        };
        for found in names {
            let Ok(found) = found else {
                self.walked = self.walked.max(WalkResult::Disturbed);
                break;
            };
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.rest == 0 {
                return Ok(None);
            }
            self.rest -= 1;
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(_) => {
                    self.walked = self.walked.max(WalkResult::Disturbed);
                    continue;
                }
            };
            let entry = TreeEntry { folder: folder.as_fd(), folder_inode: level.id.1, name, stat, depth };
            if (self.visit)(&entry) == WalkAction::Enter && entry.file_type() == FileType::Directory {
                level.folders.push(name.to_owned());
            }
        }
        Ok(Some(level))
    }
}

fn device_and_inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Opens a folder by its path, for reading; its own rights do not matter, since it belongs to our user.
pub fn open_folder_for_reading(folder: &Path) -> rustix::io::Result<OwnedFd> {
    regain_and_open(&rustix::fs::openat(CWD, folder, PLACE, Mode::empty())?, TO_READ)
}

/// Opens a folder within another one.
fn open_subfolder(folder: BorrowedFd<'_>, name: &CStr, rights: Mode) -> rustix::io::Result<OwnedFd> {
    regain_and_open(&rustix::fs::openat2(folder, name, PLACE, Mode::empty(), RESOLVE)?, rights)
}

/// The folder around one, when it is the expected one. Nothing of any other is changed.
fn open_expected_parent(folder: &OwnedFd, expected: (u64, u64)) -> rustix::io::Result<Option<OwnedFd>> {
    let parent = rustix::fs::openat(folder, "..", PLACE, Mode::empty())?;
    if device_and_inode(&rustix::fs::fstat(&parent)?) != expected {
        return Ok(None);
    }
    regain_and_open(&parent, TO_READ).map(Some)
}

fn regain_and_open(place: &OwnedFd, rights: Mode) -> rustix::io::Result<OwnedFd> {
    regain_folder_rights(place, rights)?;
    rustix::fs::openat(place, ".", FOLDER, Mode::empty())
}

/// Takes back the rights to a folder that the agent has taken from us: all of them, so that an agent that is
/// opening it in the same moment finds no less than it asked for. By its descriptor, so that a link in its
/// place gains nothing.
fn regain_folder_rights(place: &OwnedFd, rights: Mode) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(place)?.st_mode);
    if mode.contains(rights) {
        return Ok(());
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), mode | TO_CHANGE)
}

/// Moves something to a place where nothing is, also if its agent has closed it or the folder around it.
///
/// # Errors
/// There is nothing to move (`ENOENT`), something stands in the new place (`EEXIST`), or a disk that can only
/// be read.
pub fn move_regaining_rights(from: &Path, to: &Path) -> rustix::io::Result<()> {
    let moves = || rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match moves() {
        Err(Errno::ACCESS) => {
            for folder in [from.parent(), Some(from), to.parent()].into_iter().flatten() {
                match rustix::fs::openat(CWD, folder, PLACE, Mode::empty()) {
                    Ok(place) => regain_folder_rights(&place, TO_CHANGE)?,
                    // A file or a link is moved as it is.
                    Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
            moves()
        }
        moved => moved,
    }
}

/// How much a removal has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalResult {
    Complete,
    /// What is over the bound, for the next time.
    Partial,
}

/// Removes a folder with all that is in it, at most `most` entries at a time.
///
/// Every folder within is moved up to the first before it is emptied, so that none is ever deeper than two.
/// No agent may still reach the place: what it puts there meanwhile is removed too, or stays for the next
/// time.
///
/// # Errors
/// Something resists, such as on a disk that can only be read.
pub fn remove_tree(folder: &Path, most: u64) -> io::Result<RemovalResult> {
    let place = rustix::fs::openat(CWD, folder, PLACE, Mode::empty());
    let top = match place.and_then(|place| regain_and_open(&place, TO_CHANGE)) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(RemovalResult::Complete),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            fs::remove_file(folder)?;
            return Ok(RemovalResult::Complete);
        }
        Err(error) => return Err(error.into()),
    };
    let mut removal = TreeRemoval { top, rest: most, moved: 0 };
    while removal.remove_direct_entries()? {
        if removal.rest == 0 {
            return Ok(RemovalResult::Partial);
        }
    }
    fs::remove_dir(folder)?;
    Ok(RemovalResult::Complete)
}

struct TreeRemoval {
    top: OwnedFd,
    rest: u64,
    /// How many names were given to folders that were moved up.
    moved: u64,
}

impl TreeRemoval {
    /// Removes what is directly in the folder; whether there was anything.
    fn remove_direct_entries(&mut self) -> io::Result<bool> {
        let mut found_any = false;
        for found in Dir::read_from(&self.top)? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.rest == 0 {
                return Ok(true);
            }
            found_any = true;
            self.rest -= 1;
            match rustix::fs::unlinkat(&self.top, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // EISDIR by Linux, EPERM by POSIX.
                Err(Errno::ISDIR | Errno::PERM) => self.empty_and_remove_folder(name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found_any)
    }

    /// Empties a folder, moving those within it up, and removes it. What is left over the bound stays where
    /// it is.
    fn empty_and_remove_folder(&mut self, name: &CStr) -> io::Result<()> {
        let inner = open_subfolder(self.top.as_fd(), name, TO_CHANGE)?;
        for found in Dir::read_from(&inner)? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.rest == 0 {
                return Ok(());
            }
            self.rest -= 1;
            match rustix::fs::unlinkat(&inner, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => self.move_folder_up(inner.as_fd(), name)?,
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR) {
            // One that has been put there meanwhile is the next pass's.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn move_folder_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        regain_folder_rights(&rustix::fs::openat2(from, name, PLACE, Mode::empty(), RESOLVE)?, TO_CHANGE)?;
        loop {
            self.moved += 1;
            let new = format!("moved-{}", self.moved);
            match rustix::fs::renameat_with(from, name, &self.top, new, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                moved => return Ok(moved?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const WIDE: WalkBounds = WalkBounds { entries: 1_000, depth: 50 };

    /// Folders within each other, made as an agent would: from the inside.
    fn nest(folder: &Path, levels: usize) {
        let mut inner = open_folder_for_reading(folder).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            inner = rustix::fs::openat(&inner, "d", flags, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&inner, "last", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    fn names(folder: &Path, bounds: WalkBounds) -> (Vec<String>, WalkResult) {
        let mut names = Vec::new();
        let walked = walk_tree(folder, bounds, |entry| {
            names.push(format!("{}{}", "/".repeat(entry.depth), entry.name.to_str().unwrap()));
            WalkAction::Enter
        });
        names.sort();
        (names, walked.unwrap())
    }

    #[test]
    fn a_walk_sees_everything_but_what_links_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir_all(root.path().join("outside/secret")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        symlink(root.path().join("outside"), tree.join("out")).unwrap();
        symlink("..", tree.join("a/up")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        let all = ["///file", "//b", "//up", "/a", "/out"].map(|name| name[1..].to_owned());
        let (mut seen, walked) = names(&tree, WIDE);
        seen.sort();
        let mut all = all.to_vec();
        all.sort();
        assert_eq!((seen, walked), (all, WalkResult::Whole));
    }

    #[test]
    fn a_walk_ends_at_its_bounds_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        nest(root.path(), 100);
        assert_eq!(names(root.path(), WIDE).1, WalkResult::InPart);
        assert_eq!(names(root.path(), WalkBounds { entries: 1_000, depth: 200 }).1, WalkResult::Whole);
        let (seen, walked) = names(root.path(), WalkBounds { entries: 7, depth: 200 });
        assert_eq!((seen.len(), walked), (7, WalkResult::InPart));

        // However deep, it comes back to what is beside.
        nest(root.path(), 0);
        let deep = tempfile::tempdir().unwrap();
        nest(deep.path(), 20_000);
        nest(deep.path(), 0);
        let endless = WalkBounds { entries: u64::MAX, depth: usize::MAX };
        let (mut entries, mut files) = (0, 0);
        let walked = walk_tree(deep.path(), endless, |entry| {
            entries += 1;
            files += u64::from(entry.file_type() == FileType::RegularFile);
            WalkAction::Enter
        });
        assert_eq!((walked.unwrap(), entries, files), (WalkResult::Whole, 20_002, 2));
        remove_tree(deep.path(), u64::MAX).unwrap();
    }

    /// The ways in which an agent can close a folder to its own user. None of them holds root up, so that
    /// these tests say more when an ordinary user runs them.
    const CLOSED: [u32; 6] = [0o300, 0o400, 0o500, 0o100, 0o200, 0o000];

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn no_right_that_an_agent_takes_away_hides_anything() {
        for mode in CLOSED {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("a/b/c")).unwrap();
            fs::write(root.path().join("a/b/file"), "x").unwrap();
            for closed in ["a/b/c", "a/b", "a", ""] {
                chmod(&root.path().join(closed), mode);
            }
            let all = ["//c", "//file", "/b", "a"].map(str::to_owned).to_vec();
            assert_eq!(names(root.path(), WIDE), (all, WalkResult::Whole), "{mode:o}");
        }
        let open = tempfile::tempdir().unwrap();
        chmod(open.path(), 0o555);
        names(open.path(), WIDE);
        let mode = fs::metadata(open.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o555, "who can be read is left as it is");
    }

    #[test]
    fn a_folder_that_moves_while_we_are_in_it_disturbs_and_one_that_goes_does_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        fs::write(root.path().join("a/b/file"), "x").unwrap();
        let walk_and = |act: &dyn Fn()| {
            walk_tree(root.path(), WIDE, |entry| {
                if entry.name.to_bytes() == b"file" {
                    act();
                }
                WalkAction::Enter
            })
            .unwrap()
        };
        let moves = || fs::rename(root.path().join("a/b"), root.path().join("c/b")).unwrap();
        assert_eq!(walk_and(&moves), WalkResult::Disturbed);
        assert_eq!(walk_and(&|| ()), WalkResult::Whole, "the next walk is a new one");
        let goes = || fs::remove_file(root.path().join("c/b/file")).unwrap();
        assert_eq!(walk_and(&goes), WalkResult::Whole);
    }

    #[test]
    fn what_is_closed_moves_as_anything_does() {
        for mode in CLOSED {
            let root = tempfile::tempdir().unwrap();
            let (from, to) = (root.path().join("from"), root.path().join("to"));
            fs::create_dir_all(from.join("folder/skill")).unwrap();
            fs::create_dir(&to).unwrap();
            symlink("/etc", from.join("link")).unwrap();
            for closed in [&from.join("folder"), &from, &to] {
                chmod(closed, mode);
            }
            for name in ["folder", "link"] {
                move_regaining_rights(&from.join(name), &to.join(name)).unwrap();
            }
            assert!(to.join("folder/skill").is_dir() && to.join("link").is_symlink());
            assert_eq!(move_regaining_rights(&from.join("folder"), &to.join("x")), Err(Errno::NOENT));
            assert_eq!(move_regaining_rights(&to.join("folder"), &to.join("link")), Err(Errno::EXIST));
        }
    }

    #[test]
    fn what_would_overflow_a_stack_is_removed() {
        for levels in [0, 1, 3, 20_000] {
            let root = tempfile::tempdir().unwrap();
            let tree = root.path().join("tree");
            fs::create_dir(&tree).unwrap();
            nest(&tree, levels);
            assert_eq!(remove_tree(&tree, 1_000_000).unwrap(), RemovalResult::Complete, "{levels}");
            assert!(!tree.exists());
        }
    }

    #[test]
    fn a_removal_takes_all_kinds_and_no_link_leads_it_away() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/moved-1/x")).unwrap();
        fs::create_dir_all(tree.join("moved-1/moved-2/y")).unwrap();
        fs::create_dir_all(root.path().join("outside/kept")).unwrap();
        symlink(root.path().join("outside"), tree.join("out")).unwrap();
        symlink(root.path().join("outside"), tree.join("a/out")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("a/pipe"), Mode::RWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
        for (closed, mode) in
            [("a/moved-1/x", 0o000), ("a/moved-1", 0o500), ("a", 0o400), ("moved-1", 0o000), ("", 0o300)]
        {
            chmod(&tree.join(closed), mode);
        }
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), RemovalResult::Complete);
        assert!(!tree.exists() && root.path().join("outside/kept").is_dir());

        // A link or a file in the folder's place goes, not what it leads to.
        symlink(root.path().join("outside"), &tree).unwrap();
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), RemovalResult::Complete);
        assert!(tree.symlink_metadata().is_err() && root.path().join("outside/kept").is_dir());
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), RemovalResult::Complete, "there is nothing any more");
    }

    #[test]
    fn a_removal_goes_on_where_it_stopped() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 40);
        (0..40).for_each(|number| fs::write(tree.join(format!("f{number}")), "").unwrap());
        let mut rounds = 0;
        while remove_tree(&tree, 10).unwrap() == RemovalResult::Partial {
            rounds += 1;
            assert!(rounds < 40, "it comes to an end");
        }
        assert!(rounds > 4 && !tree.exists(), "{rounds}");
    }
}
