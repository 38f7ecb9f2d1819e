//! Which rows of `inbox` the next claim of a chat takes, and which context is too much for it.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use crate::types::ChatId;

/// Most waking messages in one prompt; the rest is the next turn's.
const CLAIM_MAX: i64 = 100;
/// Most messages of mere context in one prompt: the newest are given, older ones are let go.
const CONTEXT_MAX: i64 = 100;

/// The last row of the next claim: the [`CLAIM_MAX`]th waking message that waits, or the last there is, but
/// none behind a file that is still to be fetched: nothing is told without its file, and nothing before it.
pub(super) fn newest_claimable_row(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
    Ok(connection
        .prepare_cached(
            "SELECT max(id) FROM (SELECT id FROM inbox
             WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending' ORDER BY id LIMIT ?2)
             WHERE id < coalesce((SELECT min(id) FROM inbox INDEXED BY inbox_wanted
                                  WHERE chat = ?1 AND state = 'pending'
                                    AND (media_state = 'wanted' OR quote_media_state = 'wanted')), id + 1)",
        )?
        .query_row(params![chat.as_str(), CLAIM_MAX], |row| row.get(0))?)
}

/// The last row that claims would take if every file were there, the next one's and all that follow it.
/// Context that the next one would let go is let go now: nobody needs its files.
pub(super) fn newest_claimable_with_files(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT max(id) FROM (SELECT id FROM inbox
         WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending' ORDER BY id LIMIT ?2)",
    )?;
    let mut newest_of = |calls: i64| -> rusqlite::Result<Option<i64>> {
        statement.query_row(params![chat.as_str(), calls], |row| row.get(0))
    };
    if let Some(next) = newest_of(CLAIM_MAX)? {
        skip_excess_context(connection, chat, next)?;
    }
    Ok(newest_of(i64::MAX)?)
}

/// Lets the context go that is too much for a claim up to this row.
pub(super) fn skip_excess_context(connection: &Connection, chat: &ChatId, up_to: i64) -> Result<()> {
    let oldest_context: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM inbox WHERE chat = ?1 AND wake = 'context' AND state = 'pending' AND id <= ?2
             ORDER BY id DESC LIMIT 1 OFFSET ?3",
        )?
        .query_row(params![chat.as_str(), up_to, CONTEXT_MAX - 1], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "UPDATE inbox SET state = 'done' WHERE chat = ?1 AND wake = 'context' AND state = 'pending' AND id < ?2",
        )?
        .execute(params![chat.as_str(), oldest_context.unwrap_or(0)])?;
    Ok(())
}
