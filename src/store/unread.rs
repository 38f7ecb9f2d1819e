//! The table `unread`: messages of registered chats that are known to have been sent and could not be read.
//!
//! ```text
//! noticed ─▶ asked for, up to four times ─▶ the message comes: the row is gone
//!    └─ nothing after 10 minutes ─▶ the chat is told, once; asking goes on for 14 days
//! ```

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

use super::{OutboxChange, Reply, Rules, Store, groups, millis, outbox, time};
use crate::notices;
use crate::types::{Author, ChatId, MessageId, Unread};

/// Whoever wrote it is asked by WhatsApp's own means first, and mostly sends it again within seconds. Nobody asks the
/// own phone.
const OTHERS_SEND_AGAIN_WITHIN: SignedDuration = SignedDuration::from_secs(20);
/// How often the phone is asked for one message.
const ASKED_TIMES: u32 = 4;
/// The pauses between two times of asking.
const PAUSES: [SignedDuration; ASKED_TIMES as usize - 1] =
    [SignedDuration::from_mins(5), SignedDuration::from_hours(1), SignedDuration::from_hours(24)];
/// Most messages that the phone is asked for at a time.
const ASKED_AT_ONCE: u32 = 20;
/// The pause between two such lots.
const BETWEEN_LOTS: SignedDuration = SignedDuration::from_secs(30);
/// How long a chat is not told that something is missing.
const TOLD_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// How long a phone answers for a message: WhatsApp's own clients ask no longer.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What is to be done about the messages that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UnreadWork {
    /// To be asked for now, as the bridge knows them. That it was done is noted already.
    pub ask: Vec<Vec<u8>>,
    pub outbox: OutboxChange,
    /// When something is to be done again.
    pub next: Option<Timestamp>,
}

/// How many messages could not be read, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadCount {
    pub messages: u64,
    pub since: Timestamp,
}

impl Store {
    /// Says what is to be asked for, where somebody can be asked, and tells chats what is missing for too long.
    pub async fn unread_work(&self, can_ask: bool, rules: Rules, now: Timestamp) -> Result<UnreadWork> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "DELETE FROM unread WHERE sent_at < ?1 OR chat NOT IN (SELECT chat FROM groups)",
                [millis(now - KEPT_FOR)],
            )?;
            let mut work = UnreadWork { outbox: tell(&transaction, &rules, now)?, ..UnreadWork::default() };
            if can_ask {
                work.ask = ask(&transaction, now)?;
            }
            work.next = next(&transaction, can_ask, now)?;
            transaction.commit()?;
            Ok(work)
        })
        .await
    }

    /// For `status`; none where everything could be read.
    pub async fn unread(&self) -> Result<Option<UnreadCount>> {
        self.with(|connection| {
            let (messages, since): (i64, Option<i64>) =
                connection.query_row("SELECT count(*), min(noticed_at) FROM unread", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            Ok(since.map(|since| UnreadCount { messages: messages.unsigned_abs(), since: time(since) }))
        })
        .await
    }
}

/// Notes a message of a registered chat.
pub(super) fn notice(connection: &Connection, chat: &ChatId, unread: &Unread, now: Timestamp) -> Result<()> {
    if unread.sent_at < now - KEPT_FOR {
        return Ok(());
    }
    let ask_at = match unread.author {
        Author::OwnPhone => now,
        Author::Somebody => now + OTHERS_SEND_AGAIN_WITHIN,
    };
    connection
        .prepare_cached(
            "INSERT INTO unread (chat, wa_id, sender_name, sent_at, noticed_at, ask_at, handle)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (chat, wa_id) DO NOTHING",
        )?
        .execute(params![
            chat.as_str(),
            unread.id.as_str(),
            unread.sender_name,
            millis(unread.sent_at),
            millis(now),
            millis(ask_at),
            unread.handle,
        ])?;
    Ok(())
}

/// The message has come, or nobody needs it any more.
pub(super) fn came(connection: &Connection, chat: &ChatId, id: &MessageId) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM unread WHERE chat = ?1 AND wa_id = ?2")?
        .execute([chat.as_str(), id.as_str()])?;
    Ok(())
}

fn ask(connection: &Connection, now: Timestamp) -> Result<Vec<Vec<u8>>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, asked, handle FROM unread WHERE asked < ?2 AND ask_at <= ?1 ORDER BY ask_at, id LIMIT ?3",
    )?;
    let due = statement
        .query_map(params![millis(now), ASKED_TIMES, ASKED_AT_ONCE], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, u32, Vec<u8>)>>>()?;
    let mut handles = Vec::new();
    for (id, asked, handle) in due {
        let pause = PAUSES.into_iter().nth(asked as usize).unwrap_or(KEPT_FOR);
        connection
            .prepare_cached("UPDATE unread SET asked = asked + 1, ask_at = ?2 WHERE id = ?1")?
            .execute(params![id, millis(now + pause)])?;
        handles.push(handle);
    }
    Ok(handles)
}

/// Tells each chat once what is missing there for too long.
fn tell(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<OutboxChange> {
    let mut statement = connection.prepare_cached(
        "SELECT chat, sender_name FROM unread WHERE told_at IS NULL AND noticed_at <= ?1 ORDER BY id",
    )?;
    let missing = statement
        .query_map([millis(now - TOLD_AFTER)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    let mut chats: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (chat, sender) in missing {
        chats.entry(chat).or_default().push(sender);
    }
    for (chat, senders) in &chats {
        let chat = ChatId::new(chat);
        connection
            .prepare_cached(
                "UPDATE unread SET told_at = ?2 WHERE chat = ?1 AND told_at IS NULL AND noticed_at <= ?3",
            )?
            .execute(params![chat.as_str(), millis(now), millis(now - TOLD_AFTER)])?;
        if groups::group_of(connection, &chat)?.is_some() {
            let notice = rules.notice(&notices::could_not_read(rules.lang, senders));
            outbox::enqueue(connection, &chat, None, &Reply::text(notice), now)?;
        }
    }
    Ok(if chats.is_empty() { OutboxChange::Same } else { OutboxChange::Changed })
}

fn next(connection: &Connection, can_ask: bool, now: Timestamp) -> Result<Option<Timestamp>> {
    let (ask, tell): (Option<i64>, Option<i64>) = connection.query_row(
        "SELECT min(ask_at) FILTER (WHERE asked < ?1), min(noticed_at) FILTER (WHERE told_at IS NULL) FROM unread",
        [ASKED_TIMES],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let ask = ask.filter(|_| can_ask).map(|at| time(at).max(now + BETWEEN_LOTS));
    Ok(ask.into_iter().chain(tell.map(|at| time(at) + TOLD_AFTER)).min())
}
