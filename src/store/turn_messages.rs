//! What an agent says while its turn goes on, before its answer: rows of `outbox` that belong to the turn.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::{ReplyContent, enqueue};
use super::{Reply, Store, to_unix_millis};
use crate::types::{ChatId, TurnId};

/// Most messages that a turn may send before its answer: more would only bury a chat.
const MESSAGES_MAX: u64 = 20;
/// How many of the newest rows of `outbox` are looked at for what a turn has said.
const ROWS_LOOKED_AT: i64 = 500;
/// A turn that got no answer is tried again, and may write the same once more. Within this time it is sent once.
const SAID_ONCE_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// What an agent says in a chat during its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnMessage {
    pub turn: TurnId,
    pub chat: ChatId,
    /// In order.
    pub replies: Vec<Reply>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnMessageResult {
    Written,
    /// The same words were written in this chat a few minutes ago, by a turn that got no answer and that this
    /// one tries again.
    SaidBefore,
    /// The turn has said as much as it may.
    TooMany,
    TurnOver,
}

impl Store {
    /// Writes what an agent says, all or nothing.
    pub async fn record_turn_message(
        &self,
        message: TurnMessage,
        now: Timestamp,
    ) -> Result<TurnMessageResult> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let TurnMessage { turn, chat, replies } = &message;
            let Some(group) = group_of_open_turn(&transaction, *turn)? else {
                return Ok(TurnMessageResult::TurnOver);
            };
            if count_turn_messages(&transaction, *turn)? + replies.len() as u64 > MESSAGES_MAX {
                return Ok(TurnMessageResult::TooMany);
            }
            let since = now.saturating_sub(SAID_ONCE_WITHIN)?;
            let was_said = |reply: &Reply| was_said_before(&transaction, *turn, &group, chat, reply, since);
            if !replies.is_empty()
                && replies.iter().map(was_said).collect::<Result<Vec<_>>>()?.into_iter().all(|said| said)
            {
                return Ok(TurnMessageResult::SaidBefore);
            }
            for reply in replies {
                enqueue::enqueue_reply(&transaction, chat, Some(*turn), reply, now)?;
            }
            transaction.commit()?;
            Ok(TurnMessageResult::Written)
        })
        .await
    }
}

/// The group's name, as the turn's row has it.
fn group_of_open_turn(connection: &Connection, turn: TurnId) -> Result<Option<String>> {
    Ok(connection
        .prepare_cached("SELECT group_name FROM turns WHERE id = ?1 AND ended_at IS NULL")?
        .query_row([turn.0], |row| row.get(0))
        .optional()?)
}

fn count_turn_messages(connection: &Connection, turn: TurnId) -> Result<u64> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM outbox
             WHERE id > (SELECT max(id) FROM outbox) - ?2 AND turn = ?1",
        )?
        .query_row(params![turn.0, ROWS_LOOKED_AT], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// Files and reactions are not compared: a file may have changed since, and a reaction replaces the one before.
fn was_said_before(
    connection: &Connection,
    turn: TurnId,
    group: &str,
    chat: &ChatId,
    reply: &Reply,
    since: Timestamp,
) -> Result<bool> {
    let ReplyContent::Text { text, .. } = &reply.content else { return Ok(false) };
    // A turn that the owner has stopped counts as failed, but nothing of it is tried again.
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM outbox JOIN turns ON turns.id = outbox.turn
             WHERE outbox.id > (SELECT max(id) FROM outbox) - ?1 AND turns.group_name = ?2
               AND chat = ?3 AND kind = 'text' AND text = ?4 AND created_at >= ?5
               AND (turns.outcome IN ('returned', 'lost')
                    OR (turns.outcome = 'failed'
                        AND EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_claimed
                                    WHERE turn = ?6 AND state = 'claimed' AND attempts > 1)))",
        )?
        .exists(params![ROWS_LOOKED_AT, group, chat.as_str(), text, to_unix_millis(since), turn.0])?)
}
