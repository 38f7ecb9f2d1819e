//! What an error of SQLite, or of its files, means to the person whose database it is: what happened, then
//! what to do.

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Error, anyhow};
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::panics::WorkPanicked;

/// Puts an error in words. Errors that are ours already stay as they are.
pub fn explain_error(error: Error, path: &Path) -> Error {
    let shown = path.display();
    match find_error_cause(&error) {
        None => error,
        // Kept as an error of the system's kind: a turn that fails of it is not tried again.
        Some(ErrorCause::DiskFull) => Error::new(io::Error::new(
            ErrorKind::StorageFull,
            format!("There is no space left for the database {shown}; make room on that disk and try again"),
        )),
        Some(ErrorCause::NotADatabase) => anyhow!(
            "{shown} is not a database of nanokimi; restore it from a copy, or move it away to begin anew. \
             Nothing was changed"
        ),
        Some(ErrorCause::Damaged) => anyhow!(
            "The database {shown} is damaged; stop nanokimi and restore it from a copy, or move it away to begin anew"
        ),
        Some(ErrorCause::InUse) => {
            anyhow!(
                "Another program works on the database {shown} just now; end that program, or try again later"
            )
        }
        Some(ErrorCause::OutOfReach) => anyhow!(
            "The database {shown} cannot be opened for writing; it and its folder must belong to the user who runs \
             nanokimi, on a disk that can be written to"
        ),
        Some(ErrorCause::Other) => error.context(format!("Failed to use the database {shown}")),
    }
}

/// Whether an error says only that nothing can be written.
pub fn is_write_error(error: &Error) -> bool {
    matches!(find_error_cause(error), Some(ErrorCause::DiskFull | ErrorCause::OutOfReach))
}

/// What `PRAGMA quick_check` has found, if it does not say "ok".
pub fn corrupt_database_error(path: &Path) -> Error {
    explain_error(Error::new(sqlite_error(rusqlite::ffi::SQLITE_CORRUPT)), path)
}

/// Whether it is what was to be stored that makes it fail, again and again, rather than the state of the
/// database.
pub fn is_caused_by_data(error: &Error) -> bool {
    error.chain().any(|link| match link.downcast_ref::<rusqlite::Error>() {
        Some(rusqlite::Error::SqliteFailure(failure, _)) => {
            let codes = [ErrorCode::ConstraintViolation, ErrorCode::TooBig, ErrorCode::TypeMismatch];
            codes.contains(&failure.code)
        }
        // A value that is not one of SQLite's.
        Some(_) => true,
        None => link.is::<WorkPanicked>(),
    })
}

fn sqlite_error(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorCause {
    DiskFull,
    NotADatabase,
    Damaged,
    InUse,
    OutOfReach,
    Other,
}

/// The cause, if SQLite or the system reported it.
fn find_error_cause(error: &Error) -> Option<ErrorCause> {
    error.chain().find_map(|link| match link.downcast_ref::<rusqlite::Error>() {
        Some(error) => Some(error.sqlite_error().map_or(ErrorCause::Other, sqlite_cause)),
        None => link.downcast_ref::<io::Error>().map(|error| system_cause(error.kind())),
    })
}

fn sqlite_cause(error: &rusqlite::ffi::Error) -> ErrorCause {
    // The shared memory of a database is made on disk before anything is read.
    if error.code == ErrorCode::DiskFull || error.extended_code == SQLITE_IOERR_SHMSIZE {
        return ErrorCause::DiskFull;
    }
    let known = [
        (ErrorCode::NotADatabase, ErrorCause::NotADatabase),
        (ErrorCode::DatabaseCorrupt, ErrorCause::Damaged),
        (ErrorCode::DatabaseBusy, ErrorCause::InUse),
        (ErrorCode::DatabaseLocked, ErrorCause::InUse),
        (ErrorCode::CannotOpen, ErrorCause::OutOfReach),
        (ErrorCode::ReadOnly, ErrorCause::OutOfReach),
        (ErrorCode::PermissionDenied, ErrorCause::OutOfReach),
    ];
    known.iter().find(|(code, _)| *code == error.code).map_or(ErrorCause::Other, |(_, cause)| *cause)
}

fn system_cause(kind: ErrorKind) -> ErrorCause {
    let known = [
        (ErrorKind::StorageFull, ErrorCause::DiskFull),
        (ErrorKind::QuotaExceeded, ErrorCause::DiskFull),
        (ErrorKind::IsADirectory, ErrorCause::NotADatabase),
        (ErrorKind::PermissionDenied, ErrorCause::OutOfReach),
        (ErrorKind::ReadOnlyFilesystem, ErrorCause::OutOfReach),
    ];
    known.iter().find(|(known, _)| *known == kind).map_or(ErrorCause::Other, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use rusqlite::ffi;

    use super::*;

    fn explained(error: impl Into<Error>) -> String {
        format!("{:#}", explain_error(error.into(), Path::new("/x.db")))
    }

    #[test]
    fn every_known_trouble_has_a_sentence_of_its_own() {
        for (code, beginning) in [
            (ffi::SQLITE_FULL, "There is no space left for the database /x.db"),
            (ffi::SQLITE_IOERR_SHMSIZE, "There is no space left for the database /x.db"),
            (ffi::SQLITE_NOTADB, "/x.db is not a database of nanokimi"),
            (ffi::SQLITE_CORRUPT_INDEX, "The database /x.db is damaged"),
            (ffi::SQLITE_BUSY_SNAPSHOT, "Another program works on the database /x.db"),
            (ffi::SQLITE_CANTOPEN, "The database /x.db cannot be opened for writing"),
            (ffi::SQLITE_READONLY, "The database /x.db cannot be opened for writing"),
            (ffi::SQLITE_IOERR_READ, "Failed to use the database /x.db: "),
        ] {
            let sentence = explained(sqlite_error(code));
            assert!(sentence.starts_with(beginning), "{code}: {sentence}");
        }
    }

    #[test]
    fn a_full_disk_stays_one_for_those_who_ask_for_the_kind() {
        let error = explain_error(sqlite_error(ffi::SQLITE_FULL).into(), Path::new("/x.db"));
        assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn what_can_never_be_stored_is_told_from_a_database_that_cannot_be_used() {
        for (code, is_about_it) in [
            (ffi::SQLITE_CONSTRAINT_TRIGGER, true),
            (ffi::SQLITE_CONSTRAINT_NOTNULL, true),
            (ffi::SQLITE_TOOBIG, true),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_IOERR_READ, false),
            (ffi::SQLITE_BUSY_SNAPSHOT, false),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_CORRUPT_INDEX, false),
            (ffi::SQLITE_NOMEM, false),
            (ffi::SQLITE_ERROR, false),
        ] {
            let error = explain_error(sqlite_error(code).into(), Path::new("/x.db"));
            assert_eq!(is_caused_by_data(&error), is_about_it, "{code}");
        }
        assert!(is_caused_by_data(&Error::new(WorkPanicked).context("Failed to end a call")));
        assert!(!is_caused_by_data(&anyhow!("Failed")));
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        assert_eq!(explained(anyhow!("Taken").context("Sorry")), "Sorry: Taken");
        let folder: Result<(), _> = Err(io::Error::from(ErrorKind::IsADirectory));
        let folder = folder.context("Failed to open it").unwrap_err();
        assert!(explained(folder).starts_with("/x.db is not a database of nanokimi"));
    }
}
