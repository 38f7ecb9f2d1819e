//! Trees that an agent has made: walked and removed in constant depth of our own stack, and bounded.
//!
//! An agent makes thousands of nested folders in a second; whatever follows them by recursion overflows its stack. No
//! link is followed, and folders that the agent has closed are opened to us again, since they belong to our user.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::beneath::open_folder;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// No link on the way, and nothing of another file system.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub entries: u64,
    /// Folders within each other.
    pub depth: usize,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    Whole,
    /// There is more than the bounds, a folder that stays closed to us, or somebody moves folders meanwhile: what the walk
    /// has not seen counts as too much.
    InPart,
}

/// Something that a walk has found.
pub struct Entry<'a> {
    /// The folder that it is in, and its inode.
    pub folder: BorrowedFd<'a>,
    pub folder_inode: u64,
    pub name: &'a CStr,
    pub stat: Stat,
    /// Folders between it and the one where the walk began.
    pub depth: usize,
}

impl Entry<'_> {
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What a walk does after an entry; only a folder is ever entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Enter,
    PassBy,
}

/// A folder on the way to where a walk is.
struct Level {
    /// Its disk and inode, by which it is known again on the way back.
    id: (u64, u64),
    /// What is still to be entered.
    folders: Vec<CString>,
}

/// Shows everything beneath a folder to `visit`, a folder before what is in it. What disappears meanwhile is left out.
/// One descriptor is open at a time: the way back goes by "..".
///
/// # Errors
/// The folder itself cannot be opened.
pub fn walk(folder: &Path, bounds: Bounds, mut visit: impl FnMut(&Entry<'_>) -> Next) -> io::Result<Walked> {
    let mut rest = bounds.entries;
    let mut walked = Walked::Whole;
    let mut here = open_folder(folder)?;
    let Some(first) = look_into(&here, 0, &mut rest, &mut visit)? else { return Ok(Walked::InPart) };
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.folders.pop() else {
            levels.pop();
            let Some(parent) = levels.last() else { break };
            here = rustix::fs::openat(&here, "..", FOLDER, Mode::empty())?;
            if id(&rustix::fs::fstat(&here)?) != parent.id {
                return Ok(Walked::InPart);
            }
            continue;
        };
        if levels.len() >= bounds.depth {
            walked = Walked::InPart;
            continue;
        }
        match open_beneath_it(here.as_fd(), &name) {
            Ok(inner) => here = inner,
            Err(Errno::NOENT) => continue,
            Err(_) => {
                walked = Walked::InPart;
                continue;
            }
        }
        match look_into(&here, levels.len(), &mut rest, &mut visit)? {
            Some(level) => levels.push(level),
            None => return Ok(Walked::InPart),
        }
    }
    Ok(walked)
}

/// Shows what is directly in a folder; nothing comes back when there is more than `rest` entries.
fn look_into(
    folder: &OwnedFd,
    depth: usize,
    rest: &mut u64,
    visit: &mut impl FnMut(&Entry<'_>) -> Next,
) -> io::Result<Option<Level>> {
    let id = id(&rustix::fs::fstat(folder)?);
    let mut folders = Vec::new();
    for found in Dir::read_from(folder)? {
        let Ok(found) = found else { break };
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if *rest == 0 {
            return Ok(None);
        }
        *rest -= 1;
        let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let entry = Entry { folder: folder.as_fd(), folder_inode: id.1, name, stat, depth };
        if visit(&entry) == Next::Enter && entry.file_type() == FileType::Directory {
            folders.push(name.to_owned());
        }
    }
    Ok(Some(Level { id, folders }))
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Opens a folder within another one, and takes back the rights that the agent has taken from us.
fn open_beneath_it(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat2(folder, name, FOLDER, Mode::empty(), RESOLVE) {
        Err(Errno::ACCESS) => {
            regain(folder, name)?;
            rustix::fs::openat2(folder, name, FOLDER, Mode::empty(), RESOLVE)
        }
        opened => opened,
    }
}

/// Makes a folder ours to read and write. By its descriptor, so that a link in its place gains nothing.
fn regain(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)
}

/// How much a removal has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// What is over the bound, for the next time.
    Some,
}

/// Removes a folder with all that is in it, at most `most` entries at a time.
///
/// Every folder within is moved up to the first before it is emptied, so that none is ever deeper than two. No agent
/// may still reach the place: what it puts there meanwhile is removed too, or stays for the next time.
///
/// # Errors
/// Something resists, such as on a disk that can only be read.
pub fn remove_tree(folder: &Path, most: u64) -> io::Result<Left> {
    let top = match open_folder(folder) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(Left::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            fs::remove_file(folder)?;
            return Ok(Left::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { top, rest: most, moved: 0 };
    while removal.pass()? {
        if removal.rest == 0 {
            return Ok(Left::Some);
        }
    }
    fs::remove_dir(folder)?;
    Ok(Left::Nothing)
}

struct Removal {
    top: OwnedFd,
    rest: u64,
    /// How many names were given to folders that were moved up.
    moved: u64,
}

impl Removal {
    /// Removes what is directly in the folder; whether there was anything.
    fn pass(&mut self) -> io::Result<bool> {
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
                Err(Errno::ISDIR | Errno::PERM) => self.remove_folder(name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found_any)
    }

    /// Empties a folder, moving those within it up, and removes it. What is left over the bound stays where it is.
    fn remove_folder(&mut self, name: &CStr) -> io::Result<()> {
        regain(self.top.as_fd(), name)?;
        let inner = open_beneath_it(self.top.as_fd(), name)?;
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
                Err(Errno::ISDIR | Errno::PERM) => self.move_up(inner.as_fd(), name)?,
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::unlinkat(&self.top, name, AtFlags::REMOVEDIR) {
            // One that has been put there meanwhile is the next pass's.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn move_up(&mut self, from: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        // Moving a folder writes its "..".
        regain(from, name)?;
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

    const WIDE: Bounds = Bounds { entries: 1_000, depth: 50 };

    /// Folders within each other, made as an agent would: from the inside.
    fn nest(folder: &Path, levels: usize) {
        let mut inner = open_folder(folder).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            inner = rustix::fs::openat(&inner, "d", flags, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&inner, "last", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    fn names(folder: &Path, bounds: Bounds) -> (Vec<String>, Walked) {
        let mut names = Vec::new();
        let walked = walk(folder, bounds, |entry| {
            names.push(format!("{}{}", "/".repeat(entry.depth), entry.name.to_str().unwrap()));
            Next::Enter
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
        assert_eq!((seen, walked), (all, Walked::Whole));
    }

    #[test]
    fn a_walk_ends_at_its_bounds_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        nest(root.path(), 100);
        assert_eq!(names(root.path(), WIDE).1, Walked::InPart);
        assert_eq!(names(root.path(), Bounds { entries: 1_000, depth: 200 }).1, Walked::Whole);
        let (seen, walked) = names(root.path(), Bounds { entries: 7, depth: 200 });
        assert_eq!((seen.len(), walked), (7, Walked::InPart));

        // However deep, it comes back to what is beside.
        nest(root.path(), 0);
        let deep = tempfile::tempdir().unwrap();
        nest(deep.path(), 20_000);
        nest(deep.path(), 0);
        let endless = Bounds { entries: u64::MAX, depth: usize::MAX };
        let (mut entries, mut files) = (0, 0);
        let walked = walk(deep.path(), endless, |entry| {
            entries += 1;
            files += u64::from(entry.file_type() == FileType::RegularFile);
            Next::Enter
        });
        assert_eq!((walked.unwrap(), entries, files), (Walked::Whole, 20_002, 2));
        remove_tree(deep.path(), u64::MAX).unwrap();
    }

    #[test]
    fn what_would_overflow_a_stack_is_removed() {
        for levels in [0, 1, 3, 20_000] {
            let root = tempfile::tempdir().unwrap();
            let tree = root.path().join("tree");
            fs::create_dir(&tree).unwrap();
            nest(&tree, levels);
            assert_eq!(remove_tree(&tree, 1_000_000).unwrap(), Left::Nothing, "{levels}");
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
        for closed in ["a/moved-1/x", "a/moved-1", "a", "moved-1"] {
            fs::set_permissions(tree.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), Left::Nothing);
        assert!(!tree.exists() && root.path().join("outside/kept").is_dir());

        // A link or a file in the folder's place goes, not what it leads to.
        symlink(root.path().join("outside"), &tree).unwrap();
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), Left::Nothing);
        assert!(tree.symlink_metadata().is_err() && root.path().join("outside/kept").is_dir());
        assert_eq!(remove_tree(&tree, 1_000).unwrap(), Left::Nothing, "there is nothing any more");
    }

    #[test]
    fn a_removal_goes_on_where_it_stopped() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 40);
        (0..40).for_each(|number| fs::write(tree.join(format!("f{number}")), "").unwrap());
        let mut rounds = 0;
        while remove_tree(&tree, 10).unwrap() == Left::Some {
            rounds += 1;
            assert!(rounds < 40, "it comes to an end");
        }
        assert!(rounds > 4 && !tree.exists(), "{rounds}");
    }
}
