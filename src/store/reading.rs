//! A connection for somebody who only reads, when nothing can be written: the disk is full, or read-only.
//!
//! A database with a journal beside it needs a file of shared memory before anything is read. If that is
//! there, because the service runs or was killed, reading is all it takes. If it cannot be made, a database
//! that was closed in order is read as a file that nobody changes, and one that was not, alone and with the
//! shared memory in our own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::reserve::journal_path;
use super::schema;

/// # Errors
/// It cannot be read either, or is of another version.
pub fn connect_read_only(path: &Path) -> Result<Connection> {
    open_read_only(path).or_else(|error| {
        if has_journal(path) { open_exclusive(path) } else { open_immutable(path) }.map_err(|_| error)
    })
}

fn open_read_only(path: &Path) -> Result<Connection> {
    verify_readable(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

/// Never if there is a journal: what stands in it would not be seen.
fn open_immutable(path: &Path) -> Result<Connection> {
    let mut address = "file:".to_owned();
    for byte in path.to_str().context("Failed to read a path that is not UTF-8")?.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => address.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => address.push(char::from(byte)),
            byte => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    verify_readable(Connection::open_with_flags(address, flags)?)
}

/// Keeps the shared memory in our own, so that nobody else may have the database meanwhile.
fn open_exclusive(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // It would write.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    verify_readable(connection)
}

fn verify_readable(connection: Connection) -> Result<Connection> {
    schema::require_newest_version(&connection)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn has_journal(path: &Path) -> bool {
    fs::metadata(journal_path(path)).is_ok_and(|journal| journal.len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn groups(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM outages", [], |row| row.get(0)).unwrap()
    }

    fn note(connection: &Connection, outage: &str) {
        connection.execute("INSERT INTO outages (outage, since) VALUES (?1, 0)", [outage]).unwrap();
    }

    #[test]
    fn what_was_closed_in_order_and_what_was_not_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a %41 ?b#.db");
        drop(Store::open(&path).unwrap());
        note(&Connection::open(&path).unwrap(), "one");
        assert!(!has_journal(&path));
        assert_eq!(groups(&open_immutable(&path).unwrap()), 1);
        assert_eq!(groups(&open_read_only(&path).unwrap()), 1);

        // As a process that was killed leaves it.
        let other = folder.path().join("killed.db");
        {
            let open = Connection::open(&path).unwrap();
            note(&open, "two");
            fs::copy(&path, &other).unwrap();
            fs::copy(format!("{}-wal", path.display()), format!("{}-wal", other.display())).unwrap();
        }
        assert!(has_journal(&other));
        assert_eq!(groups(&open_exclusive(&other).unwrap()), 2);
        assert!(has_journal(&other), "nothing was written");
        assert_eq!(groups(&connect_read_only(&other).unwrap()), 2);
    }
}
