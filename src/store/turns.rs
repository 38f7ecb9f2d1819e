//! The table `turns`: how a turn begins, and its end in one transaction with the replies. What it takes is in
//! `claims`.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::outbox::enqueue;
use super::sessions::OpenCompaction;
use super::waiting::next_claim;
use super::{Reply, RowId, Store, from_unix_millis, outage, sessions, tasks, to_unix_millis};
use crate::rules::turns::{
    MAX_ATTEMPTS, PendingAfterTurn, RowsFate, TurnFacts, TurnOutcome, after_turn, pending_after_turn,
};
use crate::types::{ChatId, Engine, Group, GroupName, TaskContext, TokenUsage, TurnId};

/// The end of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnEnding {
    pub turn: TurnId,
    pub chat: ChatId,
    pub finish: TurnOutcome,
    /// Rows of the turn that the agent never read, since they were steered too late: they go back into the
    /// queue, and the attempt does not count.
    pub never_read: Vec<RowId>,
    /// In order.
    pub replies: Vec<Reply>,
    pub usage: TokenUsage,
}

/// How much is where, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub waiting: u64,
    pub claimed: u64,
    pub parked: u64,
    /// Replies that wait to be sent.
    pub unsent: u64,
    /// Replies that were sent, and that WhatsApp has not answered.
    pub unanswered: u64,
    /// Replies that WhatsApp refused.
    pub nacked: u64,
    /// Replies that could not be sent.
    pub dead: u64,
    pub usage: TokenUsage,
}

impl Store {
    /// Whether something waits in a group's chat: to be answered, or a summary to be made.
    pub async fn has_pending_calls(&self, group: &Group) -> Result<bool> {
        let chat = group.chat.clone();
        self.with_connection(move |connection| {
            // Of a turn that runs nobody asks: these are of one whose end could not be written.
            let left = connection
                .prepare_cached(
                    "SELECT 1 FROM inbox INDEXED BY inbox_claimed
                     WHERE state = 'claimed' AND wake = 'wakes' AND chat = ?1",
                )?
                .exists([chat.as_str()])?;
            Ok(left
                || next_claim(connection, &chat)?.is_some()
                || sessions::read_open_compaction(connection, &chat)?.is_some())
        })
        .await
    }

    /// The turn that holds rows of a chat.
    pub async fn turn_with_claimed_rows(&self, chat: &ChatId) -> Result<Option<TurnId>> {
        let chat = chat.clone();
        self.with_connection(move |connection| Ok(running_turn(connection, &chat)?.map(|(turn, _)| turn)))
            .await
    }

    /// Ends a turn: its rows, its replies and its tokens in one transaction, and says what is pending then.
    pub async fn finish_turn(&self, ending: TurnEnding, now: Timestamp) -> Result<PendingAfterTurn> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            if is_turn_over(&transaction, ending.turn)? {
                // The owner has stopped it, or an earlier try to write this end has succeeded without our
                // hearing of it. Nothing is said; only what it has used may be news.
                record_turn_usage(&transaction, ending.turn, ending.usage)?;
                let has_next = next_claim(&transaction, &ending.chat)?.is_some()
                    || sessions::read_open_compaction(&transaction, &ending.chat)?.is_some();
                transaction.commit()?;
                return Ok(PendingAfterTurn::from_next(has_next));
            }
            for row in &ending.never_read {
                return_claimed_rows(&transaction, "id = ?1", row.0)?;
            }
            let facts = TurnFacts {
                most_attempts: most_attempts_in_turn(&transaction, ending.turn)?,
                tried_since_others_were_answered: match ending.finish {
                    // Walks through the turns: only if it matters.
                    TurnOutcome::Kept { outage, .. } if outage.may_depend_on_messages() => {
                        outage::count_tries_since_others_were_answered(&transaction, ending.turn)?
                    }
                    TurnOutcome::Answered
                    | TurnOutcome::Failed { .. }
                    | TurnOutcome::Hopeless { .. }
                    | TurnOutcome::Skipped
                    | TurnOutcome::Returned
                    | TurnOutcome::Kept { .. } => 0,
                },
            };
            let is_of_tasks_only = tasks::is_turn_of_tasks_only(&transaction, ending.turn)?;
            let outcome = settle_rows(&transaction, &ending, after_turn(&ending.finish, facts), now)?;
            for reply in &ending.replies {
                enqueue::enqueue_reply(&transaction, &ending.chat, Some(ending.turn), reply, now)?;
            }
            close_turn(&transaction, ending.turn, outcome, ending.usage, now)?;
            sessions::end_compaction(&transaction, ending.turn, !ending.replies.is_empty())?;
            let tokens_of_tasks = if is_of_tasks_only { ending.usage.counted_tokens() } else { 0 };
            tasks::follow_turn_end(&transaction, (ending.turn, &ending.chat), tokens_of_tasks, now)?;
            discard_unregistered_rows(&transaction, &ending.chat)?;
            let has_next = next_claim(&transaction, &ending.chat)?.is_some()
                || sessions::read_open_compaction(&transaction, &ending.chat)?.is_some();
            transaction.commit()?;
            Ok(pending_after_turn(&ending.finish, facts, has_next))
        })
        .await
    }

    /// Frees what a process that was killed had claimed; what is of a group that was removed meanwhile is
    /// over. Rows that were tried often enough are parked, and each chat of such rows is told `notice` once. A
    /// run of a task is not repeated: its outcome is unknown.
    pub async fn release_lost_claims(&self, notice: String, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "UPDATE inbox SET state = 'done'
                 WHERE state = 'claimed' AND chat NOT IN (SELECT chat FROM groups)",
                [],
            )?;
            tasks::abandon_claimed_runs(&transaction, None, now)?;
            sessions::release_lost_compactions(&transaction)?;
            // By itself SQLite would walk through the whole inbox, for the order of the chats.
            let mut statement = transaction.prepare(
                "SELECT DISTINCT chat FROM inbox INDEXED BY inbox_claimed
                 WHERE state = 'claimed' AND wake = 'wakes' AND attempts >= ?1",
            )?;
            let hopeless = statement
                .query_map([MAX_ATTEMPTS], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            for chat in hopeless {
                transaction.execute(
                    "UPDATE inbox INDEXED BY inbox_claimed SET state = 'parked'
                     WHERE state = 'claimed' AND chat = ?1 AND attempts >= ?2",
                    params![chat, MAX_ATTEMPTS],
                )?;
                enqueue::enqueue_reply(
                    &transaction,
                    &ChatId::new(chat),
                    None,
                    &Reply::from_text(&notice),
                    now,
                )?;
            }
            transaction.execute("UPDATE inbox SET state = 'pending' WHERE state = 'claimed'", [])?;
            transaction.execute(
                "UPDATE turns SET ended_at = ?1, outcome = 'lost' WHERE ended_at IS NULL",
                [to_unix_millis(now)],
            )?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How much waits, and how many tokens were used in all.
    pub async fn queue_counts(&self) -> Result<QueueCounts> {
        self.with_connection(|connection| {
            let count =
                |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned));
            Ok(QueueCounts {
                waiting: count("SELECT count(*) FROM inbox WHERE state = 'pending' AND wake = 'wakes'")?,
                claimed: count("SELECT count(*) FROM inbox WHERE state = 'claimed' AND wake = 'wakes'")?,
                parked: count("SELECT count(*) FROM inbox WHERE state = 'parked' AND wake = 'wakes'")?,
                unsent: count("SELECT count(*) FROM outbox WHERE state = 'queued'")?,
                unanswered: count("SELECT count(*) FROM outbox WHERE state = 'sent'")?,
                nacked: count("SELECT count(*) FROM outbox WHERE state = 'nacked'")?,
                dead: count("SELECT count(*) FROM outbox WHERE state = 'dead'")?,
                usage: TokenUsage {
                    input: count("SELECT coalesce(sum(input_tokens), 0) FROM turns")?,
                    cached: count("SELECT coalesce(sum(cached_tokens), 0) FROM turns")?,
                    output: count("SELECT coalesce(sum(output_tokens), 0) FROM turns")?,
                },
            })
        })
        .await
    }

    /// How much is still to come in a chat: messages that wait for an answer or are being answered, and
    /// replies that are not sent.
    pub async fn count_unfinished_work(&self, chat: &ChatId) -> Result<u64> {
        let chat = chat.clone();
        self.with_connection(move |connection| {
            let count: i64 = connection
                .prepare_cached(
                    "SELECT (SELECT count(*) FROM inbox
                             WHERE chat = ?1 AND wake = 'wakes' AND state IN ('pending', 'claimed'))
                          + (SELECT count(*) FROM outbox WHERE chat = ?1 AND state = 'queued')",
                )?
                .query_row([chat.as_str()], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
        .await
    }
}

/// Frees what is claimed in a chat that has no turn now: a group has one at a time, so this is of one whose
/// end could not be written.
pub(super) fn release_claimed_rows(connection: &Connection, chat: &ChatId, now: Timestamp) -> Result<()> {
    tasks::abandon_claimed_runs(connection, Some(chat), now)?;
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_claimed SET state = 'pending'
             WHERE state = 'claimed' AND chat = ?1",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

/// A turn that begins now.
pub(super) fn insert_turn(
    connection: &Connection,
    group: &GroupName,
    engine: Engine,
    context: TaskContext,
    now: Timestamp,
) -> Result<TurnId> {
    connection
        .prepare_cached("INSERT INTO turns (group_name, began_at, engine, context) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![group.as_str(), to_unix_millis(now), engine.name(), context.name()])?;
    Ok(TurnId(connection.last_insert_rowid()))
}

/// How often the most tried message of a turn has been tried, this time included.
fn most_attempts_in_turn(connection: &Connection, turn: TurnId) -> Result<u32> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(max(attempts), 0) FROM inbox WHERE turn = ?1 AND state = 'claimed' AND wake = 'wakes'",
        )?
        .query_row([turn.0], |row| row.get(0))?)
}

pub(super) fn is_turn_over(connection: &Connection, turn: TurnId) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM turns WHERE id = ?1 AND ended_at IS NOT NULL")?
        .exists([turn.0])?)
}

/// Does what was decided about a turn's rows; returns how the turn has ended.
fn settle_rows(
    transaction: &Transaction<'_>,
    ending: &TurnEnding,
    fate: RowsFate<'_>,
    now: Timestamp,
) -> Result<&'static str> {
    Ok(match fate {
        RowsFate::Done => {
            set_claimed_rows_state(transaction, ending.turn, "done")?;
            outage::resolve_outage(transaction, ending.turn, now)?;
            "answered"
        }
        RowsFate::TriedAgain => {
            set_claimed_rows_state(transaction, ending.turn, "pending")?;
            "failed"
        }
        RowsFate::Parked { from_attempts, notice } => {
            park_rows_and_notify(transaction, ending, from_attempts, notice, now)?;
            // What came later and was tried less often goes on.
            set_claimed_rows_state(transaction, ending.turn, "pending")?;
            "failed"
        }
        RowsFate::Skipped => {
            tasks::skip_runs_of_turn(transaction, ending.turn, now)?;
            set_claimed_rows_state(transaction, ending.turn, "done")?;
            "returned"
        }
        RowsFate::Returned => {
            return_claimed_rows(transaction, "turn = ?1", ending.turn.0)?;
            "returned"
        }
        RowsFate::Kept { outage, to_chat, to_owner } => {
            return_claimed_rows(transaction, "turn = ?1", ending.turn.0)?;
            let whose = (&ending.chat, ending.turn);
            outage::record_outage(transaction, outage, whose, (to_chat, to_owner), now)?;
            "failed"
        }
    })
}

/// A group that was removed during its turn gets nothing answered any more.
fn discard_unregistered_rows(connection: &Connection, chat: &ChatId) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_pending SET state = 'done' WHERE chat = ?1 AND state = 'pending'
             AND NOT EXISTS (SELECT 1 FROM groups WHERE chat = ?1)",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

fn set_claimed_rows_state(connection: &Connection, turn: TurnId, state: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE inbox SET state = ?2 WHERE turn = ?1 AND state = 'claimed'")?
        .execute(params![turn.0, state])?;
    Ok(())
}

/// Back to pending as if the turn had never been.
fn return_claimed_rows(connection: &Connection, which: &str, value: i64) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE inbox SET state = 'pending', attempts = attempts - 1 WHERE state = 'claimed' AND {which}"
        ))?
        .execute([value])?;
    Ok(())
}

/// Gives up what was tried `attempts` times or more, and tells the chat.
fn park_rows_and_notify(
    transaction: &Transaction<'_>,
    ending: &TurnEnding,
    attempts: u32,
    notice: &str,
    now: Timestamp,
) -> Result<()> {
    transaction
        .prepare_cached(
            "UPDATE inbox SET state = 'parked' WHERE turn = ?1 AND state = 'claimed' AND attempts >= ?2",
        )?
        .execute(params![ending.turn.0, attempts])?;
    enqueue::enqueue_reply(transaction, &ending.chat, Some(ending.turn), &Reply::from_text(notice), now)
}

/// Ends what a chat waits for: the running turn, and all that nobody has begun with. Returns the turn. Its
/// session finds it over, says nothing, and adds what it has used.
pub(super) fn stop_chat_work(
    connection: &Connection,
    chat: &ChatId,
    now: Timestamp,
) -> Result<Option<TurnId>> {
    let turn = running_turn(connection, chat)?.map(|(turn, _)| turn);
    tasks::stop_runs_of_chat(connection, chat, now)?;
    sessions::drop_compaction(connection, chat)?;
    if let Some(turn) = turn {
        connection
            .prepare_cached(
                "UPDATE turns SET ended_at = ?2, outcome = 'failed' WHERE id = ?1 AND ended_at IS NULL",
            )?
            .execute(params![turn.0, to_unix_millis(now)])?;
    }
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_claimed SET state = 'done' WHERE state = 'claimed' AND chat = ?1",
        )?
        .execute([chat.as_str()])?;
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_pending SET state = 'done'
             WHERE state = 'pending' AND chat = ?1 AND wake = 'wakes'",
        )?
        .execute([chat.as_str()])?;
    Ok(turn)
}

/// The turn that holds rows of a chat, or makes a summary of its session, and when it began.
pub(super) fn running_turn(connection: &Connection, chat: &ChatId) -> Result<Option<(TurnId, Timestamp)>> {
    let with_rows = connection
        .prepare_cached(
            "SELECT turns.id, turns.began_at FROM inbox INDEXED BY inbox_claimed
             JOIN turns ON turns.id = inbox.turn
             WHERE inbox.state = 'claimed' AND inbox.chat = ?1 ORDER BY turns.id DESC LIMIT 1",
        )?
        .query_row([chat.as_str()], |row| Ok((TurnId(row.get(0)?), from_unix_millis(row.get(1)?))))
        .optional()?;
    match (with_rows, sessions::read_open_compaction(connection, chat)?) {
        (None, Some(OpenCompaction::InTurn(turn))) => Ok(connection
            .prepare_cached("SELECT began_at FROM turns WHERE id = ?1 AND ended_at IS NULL")?
            .query_row([turn.0], |row| Ok((turn, from_unix_millis(row.get(0)?))))
            .optional()?),
        (with_rows, Some(_) | None) => Ok(with_rows),
    }
}

fn close_turn(
    connection: &Connection,
    turn: TurnId,
    outcome: &str,
    usage: TokenUsage,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached("UPDATE turns SET ended_at = ?2, outcome = ?3 WHERE id = ?1")?
        .execute(params![turn.0, to_unix_millis(now), outcome])?;
    record_turn_usage(connection, turn, usage)
}

fn record_turn_usage(connection: &Connection, turn: TurnId, usage: TokenUsage) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE turns SET input_tokens = ?2, cached_tokens = ?3, output_tokens = ?4 WHERE id = ?1",
        )?
        .execute(params![
            turn.0,
            usage.input.cast_signed(),
            usage.cached.cast_signed(),
            usage.output.cast_signed(),
        ])?;
    Ok(())
}
