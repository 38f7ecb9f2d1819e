//! What was said in a chat while another engine answered there: the newest messages of both sides, so that an
//! engine which was chosen later knows what people speak of.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::claimed::{CLAIMED_COLUMNS, claimed_from_row};
use super::from_unix_millis;
use crate::types::{Engine, Forwarded, Group, MessageId, PromptAuthor, PromptMessage};

/// Most messages of the past that an engine is told when it takes over.
const EARLIER_MAX: usize = 50;

/// What this engine has not heard: everything since its own last answer in the chat, if another one has
/// answered since. Oldest first.
pub fn read_handover_messages(
    connection: &Connection,
    group: &Group,
    engine: Engine,
) -> Result<Vec<PromptMessage>> {
    let newest: Option<String> = connection
        .prepare_cached(
            "SELECT engine FROM turns INDEXED BY turns_answered
             WHERE group_name = ?1 AND outcome = 'answered' ORDER BY id DESC LIMIT 1",
        )?
        .query_row([group.name.as_str()], |row| row.get(0))
        .optional()?;
    if newest.is_none_or(|newest| newest == engine.name()) {
        return Ok(Vec::new());
    }
    // What was said before the owner began this session belongs to another one.
    let own_last: i64 = connection
        .prepare_cached(
            "SELECT max((SELECT coalesce(max(id), 0) FROM turns INDEXED BY turns_answered
                         WHERE group_name = ?1 AND outcome = 'answered' AND engine = ?2),
                        coalesce((SELECT since_turn FROM sessions WHERE group_name = ?1), 0))",
        )?
        .query_row(params![group.name.as_str(), engine.name()], |row| row.get(0))?;
    let most = EARLIER_MAX as i64;
    let mut heard = connection.prepare_cached(&format!(
        "SELECT {} FROM inbox INDEXED BY inbox_chat
         WHERE chat = ?1 AND state IN ('done', 'parked') AND turn > ?2 ORDER BY id DESC LIMIT ?3",
        CLAIMED_COLUMNS
    ))?;
    let mut messages = heard
        .query_map(params![group.chat.as_str(), own_last, most], |row| {
            claimed_from_row(row).map(|claimed| claimed.message)
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut said = connection.prepare_cached(
        "SELECT wa_id, text, created_at FROM outbox
         WHERE chat = ?1 AND kind = 'text' AND turn > ?2
           AND EXISTS (SELECT 1 FROM turns WHERE turns.id = outbox.turn AND outcome = 'answered')
         ORDER BY id DESC LIMIT ?3",
    )?;
    let replies = said.query_map(params![group.chat.as_str(), own_last, most], |row| {
        Ok(PromptMessage {
            id: MessageId::new(row.get::<_, String>(0)?),
            author: PromptAuthor::Kai,
            text: row.get(1)?,
            sent_at: from_unix_millis(row.get(2)?),
            forwarded: Forwarded::No,
            quote: None,
            file: None,
            whole: None,
        })
    })?;
    for reply in replies {
        messages.push(reply?);
    }
    messages.sort_by_key(|message| message.sent_at);
    messages.drain(..messages.len().saturating_sub(EARLIER_MAX));
    Ok(messages)
}
