//! The table `inbox`: every message of a registered chat, once, from its arrival to its answer.
//!
//! ```text
//! pending ──claim──▶ claimed ──answered──▶ done
//!    ▲                  ├──failed, tried too often──▶ parked
//!    └──failed, returned, lost──┘
//! ```
//! Claims and their endings are in `turns`.

use std::collections::HashMap;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{Store, groups, millis};
use crate::router::{Quotes, Wake, wake};
use crate::types::{ChatId, Group, GroupName, Inbound, MessageId};

/// An inbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub(super) i64);

impl Store {
    /// Stores messages and chat names, all or nothing; on disk when this returns.
    ///
    /// A message that is there already, or that we sent ourselves, is a no-op. Of an unregistered chat only its
    /// existence is kept. `assistant` is the trigger of groups that have none of their own. Returns the groups that
    /// have something new to answer, each once.
    pub async fn take_in(
        &self,
        messages: Vec<Inbound>,
        chat_names: Vec<(ChatId, String)>,
        assistant: String,
        now: Timestamp,
    ) -> Result<Vec<GroupName>> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for (chat, name) in &chat_names {
                groups::see_chat(&transaction, chat, Some(name), now)?;
            }
            let mut known: HashMap<&ChatId, Option<Group>> = HashMap::new();
            let mut woken = Vec::new();
            for message in &messages {
                if !known.contains_key(&message.chat) {
                    groups::see_chat(&transaction, &message.chat, None, now)?;
                    known.insert(&message.chat, groups::group_of(&transaction, &message.chat)?);
                }
                let Some(Some(group)) = known.get(&message.chat) else { continue };
                let quotes = match &message.quote {
                    Some(quote) if is_ours(&transaction, &message.chat, &quote.id)? => Quotes::Kai,
                    Some(_) | None => Quotes::Other,
                };
                let wake = wake(group.role, group.trigger_or(&assistant), message, quotes);
                if is_ours(&transaction, &message.chat, &message.id)?
                    || !insert(&transaction, message, wake, now)?
                {
                    continue;
                }
                if wake == Wake::Wakes && !woken.contains(&group.name) {
                    woken.push(group.name.clone());
                }
            }
            transaction.commit()?;
            Ok(woken)
        })
        .await
    }

    /// The groups that have something to answer, the longest waiting first.
    pub async fn groups_waiting(&self) -> Result<Vec<GroupName>> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT groups.name FROM groups JOIN inbox ON inbox.chat = groups.chat
                 WHERE inbox.state = 'pending' AND inbox.wake = 'wakes'
                 GROUP BY groups.name ORDER BY min(inbox.id)",
            )?;
            let names = statement
                .query_map([], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            names.iter().map(|name| GroupName::parse(name)).collect()
        })
        .await
    }
}

/// Whether we sent this message ourselves: known by its id, never by its text.
fn is_ours(connection: &Connection, chat: &ChatId, id: &MessageId) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM outbox WHERE wa_id = ?1 AND chat = ?2")?
        .exists([id.as_str(), chat.as_str()])?)
}

/// Stores one message; false when it was there already.
fn insert(connection: &Connection, message: &Inbound, wake: Wake, now: Timestamp) -> Result<bool> {
    let quote = message.quote.as_ref();
    let rows = connection
        .prepare_cached(
            "INSERT INTO inbox (chat, wa_id, sender, sender_name, text, sent_at, received_at,
                                quote_id, quote_sender_name, quote_text, wake)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (chat, wa_id) DO NOTHING",
        )?
        .execute(params![
            message.chat.as_str(),
            message.id.as_str(),
            message.sender.as_str(),
            message.sender_name,
            message.text,
            millis(message.sent_at),
            millis(now),
            quote.map(|quote| quote.id.as_str()),
            quote.map(|quote| quote.sender_name.as_str()),
            quote.map(|quote| quote.text.as_str()),
            match wake {
                Wake::Wakes => "wakes",
                Wake::Context => "context",
            },
        ])?;
    Ok(rows == 1)
}
