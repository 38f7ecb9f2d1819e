//! The rows of a message in the service's database, for a run that looks for the place where it was lost.

use std::path::Path;

use nanokimi::paths::Paths;
use rusqlite::{Connection, OpenFlags, Row};

/// The rows of a message that came in, and of the replies of its turn.
pub fn of_message(home: &Path, id: &str) -> Vec<String> {
    let database = Paths::new(home).database_file();
    let Ok(database) = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY) else {
        return vec!["the database cannot be read".to_owned()];
    };
    let inbox = |row: &Row<'_>| {
        let (state, attempts, turn): (String, u32, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("inbox: {state}, attempts: {attempts}, turn: {turn:?}"))
    };
    let outbox = |row: &Row<'_>| {
        let (id, state, attempts): (String, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (error, kind, text): (Option<String>, String, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
        Ok(format!("outbox: {id}: {state}, attempts: {attempts}, error: {error:?}, {kind}: {text:?}"))
    };
    let mut found = rows(&database, "SELECT state, attempts, turn FROM inbox WHERE wa_id = ?1", id, inbox);
    if found.is_empty() {
        found.push("inbox: no row".to_owned());
    }
    let replies = "SELECT wa_id, state, attempts, error, kind, text FROM outbox
                   WHERE turn IN (SELECT turn FROM inbox WHERE wa_id = ?1) ORDER BY id";
    found.extend(rows(&database, replies, id, outbox));
    found
}

fn rows(
    database: &Connection,
    sql: &str,
    id: &str,
    shown: impl FnMut(&Row<'_>) -> rusqlite::Result<String>,
) -> Vec<String> {
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map([id], shown).unwrap();
    rows.map(Result::unwrap).collect()
}
