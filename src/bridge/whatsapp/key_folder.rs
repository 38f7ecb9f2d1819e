//! The folder that holds the keys of the link: made private before anything is in it, moved aside when the
//! link is over. Never deletes keys, unless a person asked for it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::statvfs;

use crate::types::DiskSpace;

/// The library's database.
const DATABASE: &str = "wa.db";
/// How every database of SQLite's begins: its "Database File Format", section 1.3.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// The last page of WhatsApp's that named the version it wants.
const VERSION: &str = "sw.js";
/// Most folders that are kept aside from one day.
const ASIDE_MAX: u32 = 1000;

/// The folder of one link.
#[derive(Clone, Debug)]
pub struct KeyFolder(PathBuf);

impl KeyFolder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn database_path(&self) -> PathBuf {
        self.0.join(DATABASE)
    }

    pub fn version_path(&self) -> PathBuf {
        self.0.join(VERSION)
    }

    /// Whether there are keys at all.
    ///
    /// # Errors
    /// What is there cannot be read or is no database, which the library would try to open for half a minute.
    pub fn has_keys(&self) -> Result<bool> {
        let mut begin = Vec::new();
        let database = match File::open(self.database_path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            database => database,
        };
        let read = database.and_then(|file| file.take(SQLITE.len() as u64).read_to_end(&mut begin));
        read.with_context(|| format!("Failed to look at {}", self.0.display()))?;
        if !begin.is_empty() && begin != SQLITE {
            bail!("Failed to open {}: it is no database any more", self.database_path().display());
        }
        Ok(!begin.is_empty())
    }

    /// Makes the folder and an empty database, or takes all rights on existing ones away from others. SQLite
    /// gives its other files the rights of the database.
    pub fn prepare_folder(&self) -> Result<()> {
        let shown = self.0.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("Failed to make {shown}"))?;
        set_mode(&self.0, 0o700)?;
        open_private_file(&self.database_path())?;
        for file in self.list_files()? {
            set_mode(&file, 0o600)?;
        }
        Ok(())
    }

    /// What the disk has left for the link, and for the database in the folder around it. If the system
    /// cannot say, there is enough: a write then fails, and the run is begun anew.
    pub fn min_free_disk_space(&self) -> DiskSpace {
        let folders = [Some(self.0.as_path()), self.0.parent()];
        let rooms = folders.into_iter().flatten().filter_map(free_space_of);
        rooms.reduce(DiskSpace::min).unwrap_or(DiskSpace::UNKNOWN)
    }

    /// Moves everything to a folder beside this one, whose name says why and when.
    pub fn move_aside(&self, why: &str, now: Timestamp) -> Result<PathBuf> {
        let name = self.0.file_name().and_then(|name| name.to_str()).context("Failed to name the folder")?;
        let date = now.strftime("%Y-%m-%d");
        for number in 1..=ASIDE_MAX {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let aside = self.0.with_file_name(format!("{name}-{why}-{date}{suffix}"));
            // Making the folder claims its name; a rename over a folder works only while that one is empty.
            match DirBuilder::new().mode(0o700).create(&aside) {
                Ok(()) => {
                    fs::rename(&self.0, &aside)
                        .with_context(|| format!("Failed to move {} aside", self.0.display()))?;
                    return Ok(aside);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("Failed to make {}", aside.display()));
                }
            }
        }
        bail!("There are {ASIDE_MAX} old links beside {} already", self.0.display());
    }

    /// Removes the keys and the folder: the link is over at the server too.
    pub fn remove_keys(&self) -> Result<()> {
        for file in self.list_files()? {
            fs::remove_file(&file).with_context(|| format!("Failed to remove {}", file.display()))?;
        }
        fs::remove_dir(&self.0).with_context(|| format!("Failed to remove {}", self.0.display()))
    }

    fn list_files(&self) -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(&self.0).with_context(|| format!("Failed to list {}", self.0.display()))?;
        entries.map(|entry| Ok(entry.context("Failed to list the link's folder")?.path())).collect()
    }
}

/// Opens a file that only we can read, from its first byte; makes it if it is not there.
fn open_private_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("Failed to open {}", path.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("Failed to make {} private", path.display()))
}

/// Replaces a file of the folder as a whole.
pub fn replace_private_file(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let mut file = open_private_file(&beside)?;
    file.set_len(0).context("Failed to empty a file")?;
    std::io::Write::write_all(&mut file, content)
        .with_context(|| format!("Failed to write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("Failed to replace {}", path.display()))
}

/// What the disk of a folder has left; `None` if the system cannot say.
fn free_space_of(folder: &Path) -> Option<DiskSpace> {
    statvfs(folder).ok().map(DiskSpace::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_that_of_the_folder_s_disk() {
        assert!(free_space_of(Path::new("/")).unwrap().bytes > 0);
        assert_eq!(free_space_of(Path::new("/nowhere/at/all")), None);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_we_can_read_the_keys_even_where_somebody_opened_them() {
        let root = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(root.path().join("auth"));
        assert!(!folder.has_keys().unwrap());
        folder.prepare_folder().unwrap();
        assert_eq!((mode(&root.path().join("auth")), mode(&folder.database_path())), (0o700, 0o600));
        assert!(!folder.has_keys().unwrap(), "an empty database holds no keys");

        fs::write(folder.database_path(), SQLITE).unwrap();
        fs::set_permissions(folder.database_path(), fs::Permissions::from_mode(0o644)).unwrap();
        folder.prepare_folder().unwrap();
        assert_eq!(mode(&folder.database_path()), 0o600);
        assert_eq!(fs::read(folder.database_path()).unwrap(), SQLITE);
        assert!(folder.has_keys().unwrap());
        fs::write(folder.database_path(), "SQLite format").unwrap();
        assert!(folder.has_keys().is_err());

        replace_private_file(&folder.version_path(), b"one").unwrap();
        replace_private_file(&folder.version_path(), b"2").unwrap();
        assert_eq!(
            (fs::read(folder.version_path()).unwrap(), mode(&folder.version_path())),
            (b"2".to_vec(), 0o600)
        );
    }

    #[test]
    fn an_old_link_is_moved_aside_and_never_over_another() {
        let root = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(root.path().join("auth"));
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let mut names = Vec::new();
        for keys in ["first", "second"] {
            folder.prepare_folder().unwrap();
            fs::write(folder.database_path(), keys).unwrap();
            let aside = folder.move_aside("logged-out", now).unwrap();
            assert_eq!(fs::read_to_string(aside.join(DATABASE)).unwrap(), keys);
            assert!(!folder.has_keys().unwrap());
            names.push(aside.file_name().unwrap().to_str().unwrap().to_owned());
        }
        assert_eq!(names, ["auth-logged-out-2026-11-21", "auth-logged-out-2026-11-21-2"]);
    }

    #[test]
    fn a_removed_link_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(root.path().join("auth"));
        folder.prepare_folder().unwrap();
        replace_private_file(&folder.version_path(), b"one").unwrap();
        folder.remove_keys().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
