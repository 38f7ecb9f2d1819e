//! What was said in a chat outside of its engine's session: while another engine answered there, and by tasks
//! that ran by themselves. The newest messages of both sides, so that the engine knows what people speak of.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::claimed::{CLAIMED_COLUMNS, claimed_from_row};
use super::from_unix_millis;
use crate::rules::inbox::own_text_for_agent;
use crate::types::{Engine, Forwarded, Group, MessageId, PromptAuthor, PromptMessage};

/// Most messages of the past that an engine is told when it takes over.
const EARLIER_MAX: usize = 50;

/// What this engine has not heard in the chat's own session: everything since its last answer there, if
/// another one has answered since, or a task alone. A task that had nothing to say is left out. Oldest first.
pub fn read_handover_messages(
    connection: &Connection,
    group: &Group,
    engine: Engine,
) -> Result<Vec<PromptMessage>> {
    let is_own_newest: Option<bool> = connection
        .prepare_cached(
            "SELECT engine = ?2 AND context = 'group' FROM turns INDEXED BY turns_answered
             WHERE group_name = ?1 AND outcome = 'answered' ORDER BY id DESC LIMIT 1",
        )?
        .query_row([group.name.as_str(), engine.name()], |row| row.get(0))
        .optional()?;
    if is_own_newest.is_none_or(|is_own| is_own) {
        return Ok(Vec::new());
    }
    // What was said before the owner began this session belongs to another one.
    let own_last: i64 = connection
        .prepare_cached(
            "SELECT max((SELECT coalesce(max(id), 0) FROM turns INDEXED BY turns_answered
                         WHERE group_name = ?1 AND outcome = 'answered' AND engine = ?2 AND context = 'group'),
                        coalesce((SELECT since_turn FROM sessions WHERE group_name = ?1), 0))",
        )?
        .query_row(params![group.name.as_str(), engine.name()], |row| row.get(0))?;
    let most = EARLIER_MAX as i64;
    let mut heard = connection.prepare_cached(&format!(
        "SELECT {} FROM inbox INDEXED BY inbox_chat
         WHERE chat = ?1 AND state IN ('done', 'parked') AND turn > ?2
           AND EXISTS (SELECT 1 FROM turns WHERE turns.id = inbox.turn AND (context = 'group' OR
                       EXISTS (SELECT 1 FROM outbox INDEXED BY outbox_turn WHERE outbox.turn = turns.id)))
         ORDER BY id DESC LIMIT ?3",
        CLAIMED_COLUMNS
    ))?;
    let mut messages = heard
        .query_map(params![group.chat.as_str(), own_last, most], |row| {
            claimed_from_row(row).map(|claimed| claimed.message)
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut said = connection.prepare_cached(
        "SELECT wa_id, text, created_at, path FROM outbox INDEXED BY outbox_turn
         WHERE chat = ?1 AND kind IN ('text', 'file') AND turn > ?2
           AND EXISTS (SELECT 1 FROM turns WHERE turns.id = outbox.turn AND outcome = 'answered')
         ORDER BY id DESC LIMIT ?3",
    )?;
    let replies = said.query_map(params![group.chat.as_str(), own_last, most], |row| {
        Ok(PromptMessage {
            id: MessageId::new(row.get::<_, String>(0)?),
            author: PromptAuthor::Kai,
            text: own_text_for_agent(row.get(1)?, row.get::<_, Option<String>>(3)?.as_deref()),
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
