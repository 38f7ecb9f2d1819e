//! The table `outbox`: what Kai says, from the end of a turn to the bridge.
//!
//! A row gets its message id when it is written, and every attempt to send uses that id. The attempt is
//! counted before it is made. What is given up stays as `dead`, for `nanokimi status`.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, millis, time};
use crate::types::{ChatId, MessageId, TurnId};

/// Attempts before a reply is given up: with the pauses below a day and a half.
const SEND_ATTEMPTS: i64 = 40;
/// The first pause after a failed attempt; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A reply whose time has come; its attempt is already counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReply {
    pub row: i64,
    pub chat: ChatId,
    pub id: MessageId,
    pub text: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendResult {
    Sent,
    /// To be tried again after a pause.
    Later(String),
    /// Given up.
    Never(String),
}

impl Store {
    /// Writes something that nanokimi itself says in a chat, outside of a turn's end.
    pub async fn say(&self, chat: &ChatId, text: &str, now: Timestamp) -> Result<()> {
        let (chat, text) = (chat.clone(), text.to_owned());
        self.with(move |connection| enqueue(connection, &chat, None, &text, now)).await
    }

    /// The oldest unsent reply among those that are due, its attempt counted. Within a chat the order is kept:
    /// a reply waits for the one before it. `only` limits the search to one chat.
    pub async fn next_due(&self, only: Option<&ChatId>, now: Timestamp) -> Result<Option<DueReply>> {
        let only = only.map(|chat| chat.as_str().to_owned());
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            // By itself SQLite would walk through every reply ever sent, for the order of their ids.
            let due = transaction
                .prepare_cached(
                    "SELECT id, chat, wa_id, text FROM outbox AS reply INDEXED BY outbox_queued
                     WHERE state = 'queued' AND due_at <= ?1 AND (?2 IS NULL OR chat = ?2)
                       AND NOT EXISTS (SELECT 1 FROM outbox WHERE chat = reply.chat AND state = 'queued' AND id < reply.id)
                     ORDER BY id LIMIT 1",
                )?
                .query_row(params![millis(now), only], |row| {
                    Ok(DueReply {
                        row: row.get(0)?,
                        chat: ChatId::new(row.get::<_, String>(1)?),
                        id: MessageId::new(row.get::<_, String>(2)?),
                        text: row.get(3)?,
                    })
                })
                .optional()?;
            if let Some(due) = &due {
                transaction
                    .prepare_cached("UPDATE outbox SET attempts = attempts + 1 WHERE id = ?1")?
                    .execute([due.row])?;
            }
            transaction.commit()?;
            Ok(due)
        })
        .await
    }

    /// When the next reply that now waits will be due.
    pub async fn next_due_at(&self, only: Option<&ChatId>) -> Result<Option<Timestamp>> {
        let only = only.map(|chat| chat.as_str().to_owned());
        self.with(move |connection| {
            let due_at: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(due_at) FROM outbox AS reply
                     WHERE state = 'queued' AND (?1 IS NULL OR chat = ?1)
                       AND NOT EXISTS (SELECT 1 FROM outbox WHERE chat = reply.chat AND state = 'queued' AND id < reply.id)",
                )?
                .query_row([only], |row| row.get(0))?;
            Ok(due_at.map(time))
        })
        .await
    }

    /// Records how an attempt ended. Too many [`SendResult::Later`] become the end.
    pub async fn attempted(&self, reply: &DueReply, result: SendResult, now: Timestamp) -> Result<()> {
        let row = reply.row;
        self.with(move |connection| {
            match result {
                SendResult::Sent => connection
                    .prepare_cached("UPDATE outbox SET state = 'sent', sent_at = ?2, error = NULL WHERE id = ?1")?
                    .execute(params![row, millis(now)])?,
                SendResult::Later(error) => {
                    let attempts: i64 =
                        connection.query_row("SELECT attempts FROM outbox WHERE id = ?1", [row], |row| row.get(0))?;
                    let due = now.saturating_add(SignedDuration::try_from(pause(attempts))?)?;
                    connection.execute(
                        "UPDATE outbox SET state = iif(attempts >= ?4, 'dead', 'queued'), due_at = ?2, error = ?3
                         WHERE id = ?1",
                        params![row, millis(due), error, SEND_ATTEMPTS],
                    )?
                }
                SendResult::Never(error) => connection
                    .execute("UPDATE outbox SET state = 'dead', error = ?2 WHERE id = ?1", params![row, error])?,
            };
            Ok(())
        })
        .await
    }
}

/// The pause after the given number of attempts, with a quarter of jitter so that chats do not march in step.
fn pause(attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    pause.mul_f64(rand::rng().random_range(1.0..1.25))
}

/// Writes a reply, with the message id that it keeps.
pub(super) fn enqueue(
    connection: &Connection,
    chat: &ChatId,
    turn: Option<TurnId>,
    text: &str,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO outbox (chat, wa_id, turn, text, due_at, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        )?
        .execute(params![chat.as_str(), new_message_id(), turn.map(|turn| turn.0), text, millis(now)])?;
    Ok(())
}

/// A message id of the shape that WhatsApp's own clients make: `3EB0` and 18 hex digits.
fn new_message_id() -> String {
    let mut bytes = [0_u8; 9];
    rand::rng().fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("3EB0{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        assert!(pause(1) >= FIRST_PAUSE && pause(1) < FIRST_PAUSE * 2);
        assert!(pause(3) >= FIRST_PAUSE * 4);
        assert!(pause(1_000) <= LONGEST_PAUSE * 2);
    }
}
