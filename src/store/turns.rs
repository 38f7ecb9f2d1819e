//! The table `turns`: a claim on inbox rows, and its end in one transaction with the replies.
//!
//! A claim raises the rows' attempts before anything is tried, so that a message which kills the host is
//! given up like any other that fails.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{FileOf, Reply, RowId, Store, earlier, media, millis, outage, outbox, people, time};
use crate::render::prompt::{Author, PromptMessage, PromptQuote};
use crate::router::Wake;
use crate::types::{ChatId, EngineName, Forwarded, Group, MessageId, Outage, SenderId, TokenUsage, TurnId};

/// How often a message is tried before it is parked and the chat is told.
pub const MAX_ATTEMPTS: u32 = 3;
/// Most waking messages in one prompt; the rest is the next turn's.
const CLAIM_MAX: i64 = 100;
/// Most messages of mere context in one prompt: the newest are given, older ones are let go.
const CONTEXT_MAX: i64 = 100;
/// In front of a new text, where the old one was read already.
const EDITED: &str = "[Edited] ";

/// Rows in the hands of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub turn: TurnId,
    /// Oldest first.
    pub rows: Vec<RowId>,
    /// The same rows as the agent reads them.
    pub messages: Vec<PromptMessage>,
    /// What was said before, where that was with another engine: this one has not heard it.
    pub earlier: Vec<PromptMessage>,
    /// The newest of them that calls Kai: the answer is to it.
    pub called_by: Option<RowId>,
    /// The same rows by who sent them, in the order of each sender's first.
    pub senders: Vec<(SenderId, Vec<MessageId>)>,
}

/// What becomes of a turn's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    Answered,
    /// To be tried again, until [`MAX_ATTEMPTS`]; then parked, and `notice` is said.
    Failed {
        notice: String,
    },
    /// Parked at once, since another try cannot help; `notice` is said.
    Hopeless {
        notice: String,
    },
    /// Back into the queue, and the attempt does not count: nobody tried to answer.
    Returned,
    /// Back into the queue, uncounted, until the outage is over. Who was not told of it yet reads `to_chat`, the owner
    /// `to_owner`. Where others are answered meanwhile, and these never, they are parked and `gave_up` is said.
    Kept {
        outage: Outage,
        to_chat: String,
        to_owner: String,
        gave_up: String,
    },
}

/// The end of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnEnding {
    pub turn: TurnId,
    pub chat: ChatId,
    pub finish: Finish,
    /// Rows of the turn that the agent never read, since they were steered too late: they go back into the
    /// queue, and the attempt does not count.
    pub unread: Vec<RowId>,
    /// In order.
    pub replies: Vec<Reply>,
    pub usage: TokenUsage,
}

/// What a finished turn leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    NothingPending,
    /// More to answer now.
    MorePending,
    /// To be tried again after a pause; this was attempt number so-and-so, counted from 1.
    RetryPending {
        attempt: u32,
    },
    /// To be tried again when the outage is over.
    KeptPending(Outage),
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
    /// Claims what waits in a group's chat for a new turn with this engine; nothing to answer means no turn.
    pub async fn claim(&self, group: &Group, engine: &EngineName, now: Timestamp) -> Result<Option<Claim>> {
        let (group, engine) = (group.clone(), engine.clone());
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            free_claimed(&transaction, &group.chat)?;
            let Some(up_to) = newest_to_claim(&transaction, &group.chat)? else { return Ok(None) };
            transaction
                .prepare_cached("INSERT INTO turns (group_name, began_at, engine) VALUES (?1, ?2, ?3)")?
                .execute(params![group.name.as_str(), millis(now), engine.as_str()])?;
            let turn = TurnId(transaction.last_insert_rowid());
            let mut claim = claim_rows(&transaction, turn, &group.chat, up_to)?;
            claim.earlier = earlier::unheard(&transaction, &group, &engine)?;
            transaction.commit()?;
            Ok(Some(claim))
        })
        .await
    }

    /// Whether something waits to be answered in a group's chat.
    pub async fn waits(&self, group: &Group) -> Result<bool> {
        let chat = group.chat.clone();
        self.with(move |connection| {
            // Of a turn that runs nobody asks: these are of one whose end could not be written.
            let left = connection
                .prepare_cached(
                    "SELECT 1 FROM inbox INDEXED BY inbox_claimed
                     WHERE state = 'claimed' AND wake = 'wakes' AND chat = ?1",
                )?
                .exists([chat.as_str()])?;
            Ok(left || newest_to_claim(connection, &chat)?.is_some())
        })
        .await
    }

    /// The turn that holds rows of a chat.
    pub async fn turn_of_claimed(&self, chat: &ChatId) -> Result<Option<TurnId>> {
        let chat = chat.clone();
        self.with(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT turn FROM inbox INDEXED BY inbox_claimed
                     WHERE state = 'claimed' AND chat = ?1 ORDER BY turn DESC LIMIT 1",
                )?
                .query_row([chat.as_str()], |row| row.get(0).map(TurnId))
                .optional()?)
        })
        .await
    }

    /// Claims what has come since for a turn that runs; nothing new means nothing is claimed.
    pub async fn claim_more(&self, turn: TurnId, chat: &ChatId) -> Result<Option<Claim>> {
        let chat = chat.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let Some(up_to) = newest_to_claim(&transaction, &chat)? else { return Ok(None) };
            let claim = claim_rows(&transaction, turn, &chat, up_to)?;
            transaction.commit()?;
            Ok(Some(claim))
        })
        .await
    }

    /// Ends a turn: its rows, its replies and its tokens in one transaction, and says what is pending then.
    pub async fn finish_turn(&self, ending: TurnEnding, now: Timestamp) -> Result<Finished> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            if is_over(&transaction, ending.turn)? {
                // An earlier try to write this end has succeeded without our hearing of it.
                return Ok(pending(newest_to_claim(&transaction, &ending.chat)?));
            }
            for row in &ending.unread {
                give_back(&transaction, "id = ?1", row.0)?;
            }
            let attempt = attempts_of(&transaction, ending.turn)?;
            let outcome = match &ending.finish {
                Finish::Answered => {
                    set_claimed(&transaction, ending.turn, "done")?;
                    outage::over(&transaction, ending.turn, now)?;
                    "answered"
                }
                Finish::Failed { notice } => {
                    if attempt >= MAX_ATTEMPTS {
                        park(&transaction, &ending, MAX_ATTEMPTS, notice, now)?;
                    }
                    // What came later and was tried less often goes on.
                    set_claimed(&transaction, ending.turn, "pending")?;
                    "failed"
                }
                Finish::Hopeless { notice } => {
                    park(&transaction, &ending, 1, notice, now)?;
                    "failed"
                }
                Finish::Returned => {
                    give_back(&transaction, "turn = ?1", ending.turn.0)?;
                    "returned"
                }
                Finish::Kept { outage, gave_up, .. }
                    if outage.may_be_about_messages()
                        && outage::is_about_messages(&transaction, ending.turn, MAX_ATTEMPTS)? =>
                {
                    park(&transaction, &ending, 1, gave_up, now)?;
                    "failed"
                }
                Finish::Kept { outage, to_chat, to_owner, .. } => {
                    give_back(&transaction, "turn = ?1", ending.turn.0)?;
                    let whose = (&ending.chat, ending.turn);
                    outage::met(&transaction, *outage, whose, (to_chat, to_owner), now)?;
                    "failed"
                }
            };
            for reply in &ending.replies {
                outbox::enqueue(&transaction, &ending.chat, Some(ending.turn), reply, now)?;
            }
            close(&transaction, ending.turn, outcome, ending.usage, now)?;
            forget_unregistered(&transaction, &ending.chat)?;
            let next = newest_to_claim(&transaction, &ending.chat)?;
            transaction.commit()?;
            Ok(match ending.finish {
                Finish::Failed { .. } if attempt < MAX_ATTEMPTS && next.is_some() => {
                    Finished::RetryPending { attempt }
                }
                Finish::Kept { outage, .. } if next.is_some() => Finished::KeptPending(outage),
                Finish::Answered
                | Finish::Failed { .. }
                | Finish::Hopeless { .. }
                | Finish::Returned
                | Finish::Kept { .. } => pending(next),
            })
        })
        .await
    }

    /// Frees what a host that was killed had claimed; what is of a group that was removed meanwhile is over. Rows that were tried often enough are parked, and each
    /// chat of such rows is told `notice` once.
    pub async fn unclaim_lost(&self, notice: String, now: Timestamp) -> Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "UPDATE inbox SET state = 'done'
                 WHERE state = 'claimed' AND chat NOT IN (SELECT chat FROM groups)",
                [],
            )?;
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
                outbox::enqueue(&transaction, &ChatId::new(chat), None, &Reply::text(&notice), now)?;
            }
            transaction.execute("UPDATE inbox SET state = 'pending' WHERE state = 'claimed'", [])?;
            transaction.execute(
                "UPDATE turns SET ended_at = ?1, outcome = 'lost' WHERE ended_at IS NULL",
                [millis(now)],
            )?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How much waits, and how many tokens were used in all.
    pub async fn queue_counts(&self) -> Result<QueueCounts> {
        self.with(|connection| {
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

    /// How much is still to come in a chat: messages that wait for an answer or are being answered, and replies
    /// that are not sent.
    pub async fn still_to_come(&self, chat: &ChatId) -> Result<u64> {
        let chat = chat.clone();
        self.with(move |connection| {
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

/// Frees what is claimed in a chat that has no turn now: a group has one at a time, so this is of one whose end could not
/// be written.
pub(super) fn free_claimed(connection: &Connection, chat: &ChatId) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_claimed SET state = 'pending'
             WHERE state = 'claimed' AND chat = ?1",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

/// The last row of the next claim: the [`CLAIM_MAX`]th waking message that waits, or the last there is, but none
/// behind a file that is still to be fetched: nothing is told without its file, and nothing before it.
fn newest_to_claim(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
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

/// The last row that claims would take if every file were there, the next one's and all that follow it. Context that
/// the next one would let go is let go now: nobody needs its files.
pub(super) fn newest_to_wait_for(connection: &Connection, chat: &ChatId) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT max(id) FROM (SELECT id FROM inbox
         WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending' ORDER BY id LIMIT ?2)",
    )?;
    let mut newest_of = |calls: i64| -> rusqlite::Result<Option<i64>> {
        statement.query_row(params![chat.as_str(), calls], |row| row.get(0))
    };
    if let Some(next) = newest_of(CLAIM_MAX)? {
        let_context_go(connection, chat, next)?;
    }
    Ok(newest_of(i64::MAX)?)
}

/// Lets the context go that is too much for a claim up to this row.
fn let_context_go(connection: &Connection, chat: &ChatId, up_to: i64) -> Result<()> {
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

/// Hands the pending rows up to `up_to` to a turn, counting the attempt.
fn claim_rows(transaction: &Transaction<'_>, turn: TurnId, chat: &ChatId, up_to: i64) -> Result<Claim> {
    let_context_go(transaction, chat, up_to)?;
    let mut statement = transaction.prepare_cached(&format!(
        "UPDATE inbox INDEXED BY inbox_pending SET state = 'claimed', turn = ?1, attempts = attempts + 1
             WHERE chat = ?2 AND state = 'pending' AND id <= ?3
             RETURNING {CLAIMED}"
    ))?;
    let mut claimed = statement
        .query_map(params![turn.0, chat.as_str(), up_to], claimed_from)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    claimed.sort_by_key(|claimed| claimed.row);
    let mut claim = Claim {
        turn,
        rows: Vec::new(),
        messages: Vec::new(),
        earlier: Vec::new(),
        called_by: None,
        senders: Vec::new(),
    };
    for Claimed { row, sender, wake, message } in claimed {
        if wake == Wake::Wakes {
            claim.called_by = Some(row);
        }
        match claim.senders.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, messages)) => messages.push(message.id.clone()),
            None => claim.senders.push((sender, vec![message.id.clone()])),
        }
        claim.rows.push(row);
        claim.messages.push(message);
    }
    Ok(claim)
}

/// A row as it is claimed.
pub(super) struct Claimed {
    row: RowId,
    sender: SenderId,
    wake: Wake,
    pub message: PromptMessage,
}

/// What [`claimed_from`] reads of a row of `inbox`.
pub(super) const CLAIMED: &str = "*, (SELECT person FROM people WHERE people.id = sender) AS person,
    (SELECT person FROM people WHERE people.id = quote_sender) AS quote_person";

pub(super) fn claimed_from(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    let person = |id: &str, name: &str| -> rusqlite::Result<Author> {
        let id = people::prompt_id(row.get(id)?);
        Ok(Author::Person { id, name: row.get::<_, Option<String>>(name)?.unwrap_or_default() })
    };
    let quote_id: Option<String> = row.get("quote_id")?;
    let quote = match quote_id {
        Some(id) => {
            let source: Option<String> = row.get("quote_source")?;
            Some(PromptQuote {
                id: MessageId::new(id),
                author: match source.as_deref() {
                    Some("kai") => Author::Kai,
                    Some(_) | None => person("quote_person", "quote_sender_name")?,
                },
                is_claimed: source.as_deref() == Some("client"),
                text: row.get::<_, Option<String>>("quote_text")?.unwrap_or_default(),
                file: media::prompt_file(row, FileOf::Quoted)?,
                whole: None,
            })
        }
        None => None,
    };
    let edited = row.get::<_, Option<String>>("edits")?.map_or("", |_| EDITED);
    let text: String = row.get("text")?;
    let message = PromptMessage {
        id: MessageId::new(row.get::<_, String>("wa_id")?),
        author: person("person", "sender_name")?,
        text: format!("{edited}{text}"),
        sent_at: time(row.get("sent_at")?),
        forwarded: match row.get::<_, Option<String>>("forwarded")?.as_deref() {
            Some("many") => Forwarded::Many,
            Some(_) => Forwarded::Once,
            None => Forwarded::No,
        },
        quote,
        file: media::prompt_file(row, FileOf::Message)?,
        whole: None,
    };
    let wakes = row.get::<_, String>("wake")? == "wakes";
    Ok(Claimed {
        row: RowId(row.get("id")?),
        sender: SenderId::new(row.get::<_, String>("sender")?),
        wake: if wakes { Wake::Wakes } else { Wake::Context },
        message,
    })
}

/// How often the most tried message of a turn has been tried, this time included.
fn attempts_of(connection: &Connection, turn: TurnId) -> Result<u32> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(max(attempts), 0) FROM inbox WHERE turn = ?1 AND state = 'claimed' AND wake = 'wakes'",
        )?
        .query_row([turn.0], |row| row.get(0))?)
}

fn is_over(connection: &Connection, turn: TurnId) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM turns WHERE id = ?1 AND ended_at IS NOT NULL")?
        .exists([turn.0])?)
}

/// What a chat's next claim says of it.
fn pending(next: Option<i64>) -> Finished {
    match next {
        Some(_) => Finished::MorePending,
        None => Finished::NothingPending,
    }
}

/// A group that was removed during its turn gets nothing answered any more.
fn forget_unregistered(connection: &Connection, chat: &ChatId) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_pending SET state = 'done' WHERE chat = ?1 AND state = 'pending'
             AND NOT EXISTS (SELECT 1 FROM groups WHERE chat = ?1)",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

fn set_claimed(connection: &Connection, turn: TurnId, state: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE inbox SET state = ?2 WHERE turn = ?1 AND state = 'claimed'")?
        .execute(params![turn.0, state])?;
    Ok(())
}

/// Back to pending as if the turn had never been.
fn give_back(connection: &Connection, which: &str, value: i64) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE inbox SET state = 'pending', attempts = attempts - 1 WHERE state = 'claimed' AND {which}"
        ))?
        .execute([value])?;
    Ok(())
}

/// Gives up what was tried `attempts` times or more, and tells the chat.
fn park(
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
    outbox::enqueue(transaction, &ending.chat, Some(ending.turn), &Reply::text(notice), now)
}

fn close(
    connection: &Connection,
    turn: TurnId,
    outcome: &str,
    usage: TokenUsage,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE turns SET ended_at = ?2, outcome = ?3, input_tokens = ?4, cached_tokens = ?5, output_tokens = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            turn.0,
            millis(now),
            outcome,
            usage.input.cast_signed(),
            usage.cached.cast_signed(),
            usage.output.cast_signed(),
        ])?;
    Ok(())
}
