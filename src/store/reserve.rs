//! Room on the disk that is the database's own, whatever else fills it.
//!
//! Everything that is written goes into the journal first, and stays readable there for as long as the
//! database itself cannot grow. So it is the journal's file that has its blocks ahead of time, behind its
//! end, where SQLite does not look.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The journal of a database.
pub fn journal_path(database: &Path) -> PathBuf {
    let mut journal = OsString::from(database);
    journal.push("-wal");
    journal.into()
}

/// Gives a database that is open `bytes` of room for what it will write.
///
/// # Errors
/// The disk has not so much room, or its file system knows no such thing.
pub fn preallocate_journal(database: &Path, bytes: u64) -> io::Result<()> {
    // SQLite holds its locks on the other files.
    let journal = OpenOptions::new().write(true).open(journal_path(database))?;
    Ok(fallocate(&journal, FallocateFlags::KEEP_SIZE, 0, bytes)?)
}
