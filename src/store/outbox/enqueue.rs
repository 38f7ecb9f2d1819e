//! How a reply gets into `outbox`.

use anyhow::Result;
use jiff::Timestamp;
use rand::Rng;
use rusqlite::{Connection, params};

use super::super::{people, to_unix_millis};
use super::row::{MENTIONS_BETWEEN, Reply, ReplyContent};
use crate::types::{ChatId, MessageId, SenderId, TurnId};

/// Writes a reply, with the message id that it keeps. What a turn says in the chat of a group that was
/// removed meanwhile is said to nobody.
pub(in super::super) fn enqueue_reply(
    connection: &Connection,
    chat: &ChatId,
    turn: Option<TurnId>,
    reply: &Reply,
    now: Timestamp,
) -> Result<()> {
    enqueue_as(connection, &new_message_id(), chat, turn, reply, now)
}

/// Writes a sentence of our own under an id that is known before: its answer matters.
pub(in super::super) fn enqueue_question(
    connection: &Connection,
    id: &MessageId,
    chat: &ChatId,
    text: &str,
    now: Timestamp,
) -> Result<()> {
    enqueue_as(connection, id.as_str(), chat, None, &Reply::from_text(text), now)
}

fn enqueue_as(
    connection: &Connection,
    id: &str,
    chat: &ChatId,
    turn: Option<TurnId>,
    reply: &Reply,
    now: Timestamp,
) -> Result<()> {
    let (kind, text, mentions, path) = match &reply.content {
        ReplyContent::Text { text, mentions } => ("text", text, mentions.as_slice(), None),
        ReplyContent::File { path, caption } => ("file", caption, [].as_slice(), Some(path)),
        ReplyContent::UsageChart { caption, .. } => ("file", caption, [].as_slice(), None),
        ReplyContent::Reaction { emoji } => ("reaction", emoji, [].as_slice(), None),
    };
    let chart = match &reply.content {
        ReplyContent::UsageChart { chart, .. } => Some(chart.to_string()),
        ReplyContent::Text { .. } | ReplyContent::File { .. } | ReplyContent::Reaction { .. } => None,
    };
    let mentions: Vec<&str> = mentions.iter().map(SenderId::as_str).collect();
    connection
        .prepare_cached(&format!(
            "INSERT INTO outbox (chat, wa_id, turn, kind, text, mentions, path, created_at,
                                 chart, quote_id, quote_sender, quote_text)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?10,
                    coalesce(quoted.edits, quoted.wa_id), quoted.sender, quoted.text
             FROM (SELECT 1) LEFT JOIN inbox AS quoted ON quoted.id = ?9
             WHERE ?3 IS NULL OR EXISTS (SELECT 1 FROM groups WHERE chat IN {})",
            people::aliases_sql("?1")
        ))?
        .execute(params![
            chat.as_str(),
            id,
            turn.map(|turn| turn.0),
            kind,
            text,
            (!mentions.is_empty()).then(|| mentions.join(MENTIONS_BETWEEN)),
            path,
            to_unix_millis(now),
            reply.to.map(|row| row.0),
            chart
        ])?;
    Ok(())
}

/// The id of a question that is still to be written.
pub(in super::super) fn new_question_id() -> MessageId {
    MessageId::new(new_message_id())
}

/// A message id of the shape that WhatsApp's own clients make: `3EB0` and 18 hex digits.
fn new_message_id() -> String {
    let mut bytes = [0_u8; 9];
    rand::rng().fill(&mut bytes);
    format!("3EB0{}", hex::encode_upper(bytes))
}
