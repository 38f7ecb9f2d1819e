//! Which rows of `inbox` the next claim of a chat takes, and which context is too much for it.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use crate::types::{ChatId, TaskContext};

/// Most waking messages in one prompt; the rest is the next turn's.
const CLAIM_MAX: i64 = 100;
/// Most messages of mere context in one prompt: the newest are given, older ones are let go.
const CONTEXT_MAX: i64 = 100;

/// Whether a row of `inbox` is claimed alone: the run of a task in a session of its own, or one whose task
/// has a command that says whether it begins, or a limit of its tokens, which are those of its turn.
pub(super) const IS_TOLD_ALONE: &str = "(task_run IS NOT NULL AND EXISTS
    (SELECT 1 FROM task_runs JOIN tasks ON tasks.id = task_runs.task
     WHERE task_runs.id = inbox.task_run AND (tasks.context = 'isolated' OR tasks.only_if IS NOT NULL
                                           OR tasks.max_tokens IS NOT NULL)))";

/// Whether a row of `inbox` may be told to a turn that runs.
pub(super) const IS_OF_NO_TASK: &str = "task_run IS NULL";

/// The first row of a chat whose file is still to be fetched.
const FIRST_WITHOUT_FILE: &str = "SELECT min(id) FROM inbox INDEXED BY inbox_wanted
    WHERE chat = ?1 AND state = 'pending' AND (media_state = 'wanted' OR quote_media_state = 'wanted')";

/// What a chat's next turn takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextClaim {
    /// What waits up to this row, but what is claimed alone.
    Messages { up_to: i64 },
    /// The row of this run of a task, and nothing else.
    Run { row: i64, run: i64, context: TaskContext },
}

/// What a chat's next turn takes: whatever has waited for longer.
pub(super) fn next_claim(connection: &Connection, chat: &ChatId) -> Result<Option<NextClaim>> {
    let alone = connection
        .prepare_cached(&format!(
            "SELECT id, task_run, (SELECT context FROM tasks JOIN task_runs ON tasks.id = task
                                   WHERE task_runs.id = task_run) FROM inbox INDEXED BY inbox_pending
             WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending' AND {IS_TOLD_ALONE} ORDER BY id LIMIT 1"
        ))?
        .query_row([chat.as_str()], |row| {
            let context = TaskContext::find_by_name(&row.get::<_, String>(2)?).unwrap_or_default();
            let place: i64 = row.get(0)?;
            Ok((place, NextClaim::Run { row: place, run: row.get(1)?, context }))
        })
        .optional()?;
    Ok(match (alone, claimable_rows(connection, chat, &format!("NOT {IS_TOLD_ALONE}"))?) {
        (Some((_, claim)), None) => Some(claim),
        (Some((row, claim)), Some((oldest, _))) if row < oldest => Some(claim),
        (Some(_) | None, Some((_, newest))) => Some(NextClaim::Messages { up_to: newest }),
        (None, None) => None,
    })
}

/// The last row that can be told in the chat's own session: the [`CLAIM_MAX`]th waking message that waits, or
/// the last there is.
pub(super) fn newest_claimable_row(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
    Ok(claimable_rows(connection, chat, &format!("NOT {IS_TOLD_ALONE}"))?.map(|(_, newest)| newest))
}

/// The last row that can be told beside the row `own` of a run: all up to it, but none from a file on that is still to
/// be fetched.
pub(super) fn newest_row_beside(connection: &Connection, chat: &ChatId, own: i64) -> Result<Option<i64>> {
    let first_without_file: Option<i64> =
        connection.prepare_cached(FIRST_WITHOUT_FILE)?.query_row([chat.as_str()], |row| row.get(0))?;
    let newest = newest_claimable_row(connection, chat)?.map_or(own, |newest| newest.max(own));
    Ok(match first_without_file {
        Some(first) => Some(newest.min(first - 1)).filter(|newest| *newest > 0),
        None => Some(newest),
    })
}

/// The same for what a turn that runs can be told: a task begins with a turn, since its run may do less than a
/// person's turn.
pub(super) fn newest_steerable_row(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
    Ok(claimable_rows(connection, chat, IS_OF_NO_TASK)?.map(|(_, newest)| newest))
}

/// The first and the last waking message of this kind that the chat's own session can be told; none behind a file that is
/// still to be fetched: nothing is told without its file, and nothing before it.
fn claimable_rows(connection: &Connection, chat: &ChatId, kind: &str) -> Result<Option<(i64, i64)>> {
    let (oldest, newest): (Option<i64>, Option<i64>) = connection
        .prepare_cached(&format!(
            "SELECT min(id), max(id) FROM (SELECT id FROM inbox
             WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending' AND {kind}
             ORDER BY id LIMIT ?2)
             WHERE id < coalesce(({FIRST_WITHOUT_FILE}), id + 1)"
        ))?
        .query_row(params![chat.as_str(), CLAIM_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(oldest.zip(newest))
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
