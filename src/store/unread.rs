//! The table `unread`: messages of registered chats that are known to have been sent and could not be read.
//!
//! ```text
//! noticed ─▶ asked for, up to four times ─▶ the message comes: the row is gone
//!    └─ nothing after 10 minutes ─▶ the chat is told, once; asking goes on for 14 days
//! ```
//!
//! A chat is told at most once an hour, of all that is missing by then. How many messages it misses beyond
//! those that have rows, and when it was told, is in `groups`.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

use super::outbox::enqueue;
use super::{OutboxChange, Reply, Store, from_unix_millis, to_unix_millis};
use crate::rules::{Rules, inbox};
use crate::types::{Author, ChatId, MessageId, UnreadableMessage};

/// Its author is asked by WhatsApp's own means first, and mostly sends it again within seconds. Nobody asks
/// the account's own phone.
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
/// How long a chat is not told again: what is missing by then is told in one sentence.
const TOLD_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// Most messages of one chat that are looked after. Of more, the chat hears the number.
const KEPT_PER_CHAT: u32 = 200;
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
    /// Says what is to be asked for, if somebody can be asked, and tells chats what is missing for too long.
    pub async fn process_unread_messages(
        &self,
        can_ask: bool,
        rules: Rules,
        now: Timestamp,
    ) -> Result<UnreadWork> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM unread WHERE chat NOT IN (SELECT chat FROM groups)", [])?;
            clamp_unread_times(&transaction, now)?;
            let mut work = UnreadWork::default();
            if can_ask {
                work.ask = claim_due_resends(&transaction, now)?;
            }
            work.outbox = notify_chats_of_unread(&transaction, &rules, now)?;
            // The clock may be wrong: nothing is forgotten before it was asked for and told.
            transaction.execute(
                "DELETE FROM unread WHERE sent_at < ?1 AND asked > 0 AND told_at IS NOT NULL",
                [to_unix_millis(now - KEPT_FOR)],
            )?;
            work.next = next_unread_check(&transaction, can_ask, now)?;
            transaction.commit()?;
            Ok(work)
        })
        .await
    }

    /// For `status`; nothing if every message could be read.
    pub async fn count_unread(&self) -> Result<Option<UnreadCount>> {
        self.with_connection(|connection| {
            let (messages, since): (i64, Option<i64>) = connection.query_row(
                "SELECT count(*) + (SELECT coalesce(sum(unread_more), 0) FROM groups), min(noticed_at)
                     FROM unread",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok(since.map(|since| UnreadCount {
                messages: messages.unsigned_abs(),
                since: from_unix_millis(since),
            }))
        })
        .await
    }
}

/// Notes a message of a registered chat.
pub(super) fn record_unread_message(
    connection: &Connection,
    chat: &ChatId,
    unread: &UnreadableMessage,
    now: Timestamp,
) -> Result<()> {
    let is_noted = connection
        .prepare_cached("SELECT 1 FROM unread WHERE chat = ?1 AND wa_id = ?2")?
        .exists([chat.as_str(), unread.id.as_str()])?;
    if is_noted || !make_room_for_unread(connection, chat)? {
        return Ok(());
    }
    let ask_at = match unread.author {
        Author::OwnPhone => now,
        Author::Somebody => now + OTHERS_SEND_AGAIN_WITHIN,
    };
    // It has waited at WhatsApp for longer than a phone answers, or our clock is wrong: it is asked for once.
    let is_too_old = unread.sent_at < now - KEPT_FOR;
    let asked = if is_too_old { ASKED_TIMES - 1 } else { 0 };
    connection
        .prepare_cached(
            "INSERT INTO unread (chat, wa_id, sender_name, sent_at, noticed_at, ask_at, asked, handle)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            chat.as_str(),
            unread.id.as_str(),
            unread.sender_name,
            to_unix_millis(unread.sent_at),
            to_unix_millis(now),
            to_unix_millis(ask_at),
            asked,
            unread.handle,
        ])?;
    Ok(())
}

/// Sees that one more message of this chat may be noted: the oldest of which the chat has been told goes. If
/// it was told of no message yet, this one is only counted, and there is no room.
fn make_room_for_unread(connection: &Connection, chat: &ChatId) -> Result<bool> {
    let kept: u32 = connection
        .prepare_cached("SELECT count(*) FROM unread WHERE chat = ?1")?
        .query_row([chat.as_str()], |row| row.get(0))?;
    if kept < KEPT_PER_CHAT {
        return Ok(true);
    }
    let gone = connection
        .prepare_cached(
            "DELETE FROM unread WHERE id =
             (SELECT id FROM unread WHERE chat = ?1 AND told_at IS NOT NULL ORDER BY id LIMIT 1)",
        )?
        .execute([chat.as_str()])?;
    if gone == 0 {
        connection
            .prepare_cached("UPDATE groups SET unread_more = unread_more + 1 WHERE chat = ?1")?
            .execute([chat.as_str()])?;
    }
    Ok(gone > 0)
}

/// The message has come, or nobody needs it any more.
pub(super) fn resolve_unread_message(connection: &Connection, chat: &ChatId, id: &MessageId) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM unread WHERE chat = ?1 AND wa_id = ?2")?
        .execute([chat.as_str(), id.as_str()])?;
    Ok(())
}

fn claim_due_resends(connection: &Connection, now: Timestamp) -> Result<Vec<Vec<u8>>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, asked, handle FROM unread WHERE asked < ?2 AND ask_at <= ?1 ORDER BY ask_at, id LIMIT ?3",
    )?;
    let due = statement
        .query_map(params![to_unix_millis(now), ASKED_TIMES, ASKED_AT_ONCE], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, u32, Vec<u8>)>>>()?;
    let mut handles = Vec::new();
    for (id, asked, handle) in due {
        let pause = PAUSES.into_iter().nth(asked as usize).unwrap_or(KEPT_FOR);
        connection
            .prepare_cached("UPDATE unread SET asked = asked + 1, ask_at = ?2 WHERE id = ?1")?
            .execute(params![id, to_unix_millis(now + pause)])?;
        handles.push(handle);
    }
    Ok(handles)
}

/// After the clock was set back no wait is longer than it would be as a whole: what is to be asked for later
/// than that is asked for now, and what was noticed or told in the future was so just now.
fn clamp_unread_times(connection: &Connection, now: Timestamp) -> Result<()> {
    let [after_first, after_second, after_third] = PAUSES.map(duration_to_millis);
    connection
        .prepare_cached(
            "UPDATE unread SET ask_at = ?1
             WHERE ask_at > ?1 + CASE asked WHEN 0 THEN ?2 WHEN 1 THEN ?3 WHEN 2 THEN ?4 ELSE ?5 END",
        )?
        .execute(params![
            to_unix_millis(now),
            duration_to_millis(OTHERS_SEND_AGAIN_WITHIN),
            after_first,
            after_second,
            after_third
        ])?;
    connection
        .prepare_cached("UPDATE unread SET noticed_at = ?1 WHERE noticed_at > ?1")?
        .execute([to_unix_millis(now)])?;
    connection
        .prepare_cached("UPDATE groups SET unread_told_at = ?1 WHERE unread_told_at > ?1")?
        .execute([to_unix_millis(now)])?;
    Ok(())
}

/// Tells each chat what is missing there for too long, unless it was told of something else a short time ago.
fn notify_chats_of_unread(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<OutboxChange> {
    let noticed_by = to_unix_millis(now - TOLD_AFTER);
    let mut statement = connection.prepare_cached(
        "SELECT chat, unread_more FROM groups
         WHERE coalesce(unread_told_at, ?2) <= ?2
           AND (EXISTS (SELECT 1 FROM unread
                        WHERE unread.chat = groups.chat AND told_at IS NULL AND noticed_at <= ?1)
                -- Those that are counted only, and all others have come.
                OR (unread_more > 0
                    AND NOT EXISTS (SELECT 1 FROM unread WHERE unread.chat = groups.chat AND told_at IS NULL)))
         ORDER BY chat",
    )?;
    let chats = statement
        .query_map([noticed_by, to_unix_millis(now - TOLD_AGAIN_AFTER)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<Vec<(String, u32)>>>()?;
    for (chat, more) in &chats {
        let chat = ChatId::new(chat);
        let senders = connection
            .prepare_cached(
                "UPDATE unread SET told_at = ?2 WHERE chat = ?1 AND told_at IS NULL AND noticed_at <= ?3
                 RETURNING sender_name",
            )?
            .query_map(params![chat.as_str(), to_unix_millis(now), noticed_by], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()?;
        connection
            .prepare_cached("UPDATE groups SET unread_told_at = ?2, unread_more = 0 WHERE chat = ?1")?
            .execute(params![chat.as_str(), to_unix_millis(now)])?;
        let messages = u64::from(*more) + senders.len() as u64;
        let notice = inbox::unreadable_messages_notice(rules, messages, &senders);
        enqueue::enqueue_reply(connection, &chat, None, &Reply::from_text(notice), now)?;
    }
    Ok(if chats.is_empty() { OutboxChange::Same } else { OutboxChange::Changed })
}

fn next_unread_check(connection: &Connection, can_ask: bool, now: Timestamp) -> Result<Option<Timestamp>> {
    let ask: Option<i64> =
        connection
            .query_row("SELECT min(ask_at) FROM unread WHERE asked < ?1", [ASKED_TIMES], |row| row.get(0))?;
    let tell: Option<i64> = connection.query_row(
        "SELECT min(max(noticed + ?1, coalesce(unread_told_at + ?2, 0)))
         FROM (SELECT chat, min(noticed_at) AS noticed FROM unread WHERE told_at IS NULL GROUP BY chat)
         JOIN groups USING (chat)",
        [duration_to_millis(TOLD_AFTER), duration_to_millis(TOLD_AGAIN_AFTER)],
        |row| row.get(0),
    )?;
    let ask = ask.filter(|_| can_ask).map(|at| from_unix_millis(at).max(now + BETWEEN_LOTS));
    Ok(ask.into_iter().chain(tell.map(from_unix_millis)).min())
}

/// A length of time as the database keeps it.
fn duration_to_millis(length: SignedDuration) -> i64 {
    length.as_secs() * 1000
}
