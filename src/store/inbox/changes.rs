//! What authors do to a message after they sent it: edits, deletions, and what everybody does to it, such as reactions.
//!
//! What waits is changed where it stands. What was read already cannot be changed any more: the agent is told of an
//! edit by a row that follows it. Nothing here ever makes a second answer to one text.

use anyhow::Result;
use rusqlite::{OptionalExtension, params};

use super::{Intake, NewRow, wake_name};
use crate::router::Wake;
use crate::store::people;
use crate::types::{ChatId, Edit, Group, Inbound, MessageId, Note, Quote, Reaction, SenderId};

impl Intake<'_> {
    pub(super) fn edited(&mut self, Edit { target, message }: &Edit) -> Result<()> {
        let Some(group) = self.group_of(&message.chat)? else { return Ok(()) };
        if self.is_there(&group, &message.id, &message.sender)? || self.is_ours(&group, target)? {
            return Ok(());
        }
        let original = self.quoted_by(&group, &message.sender, target)?;
        let quoted = message.quote.as_ref().map(|quote| &quote.id).or(original.as_ref());
        let wake = self.wake(&group, message, quoted)?;
        match self.waiting(&group, &message.sender, target)? {
            Some(waiting) => self.replace(&group, waiting, target, message, wake),
            None => self.follow(&group, target, message, wake),
        }
    }

    /// Puts the new text where the old one waits. A row that is done keeps the edit's own id, so that the edit is
    /// known when it comes again.
    fn replace(
        &mut self,
        group: &Group,
        waiting: i64,
        target: &MessageId,
        message: &Inbound,
        wake: Wake,
    ) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE inbox SET text = ?2, wake = ?3 WHERE id = ?1")?
            .execute(params![waiting, message.text, wake_name(wake)])?;
        if wake == Wake::Wakes {
            self.wakes(group);
        }
        self.insert(
            group,
            &NewRow {
                id: &message.id,
                sender: &message.sender,
                sender_name: &message.sender_name,
                text: "",
                sent_at: message.sent_at,
                quote: None,
                edits: Some(target),
                media: None,
                wake: Wake::Context,
                state: "done",
            },
        )
    }

    /// A new row that tells of the edit.
    fn follow(&mut self, group: &Group, target: &MessageId, message: &Inbound, wake: Wake) -> Result<()> {
        let unknown =
            Quote { id: target.clone(), sender_name: message.sender_name.clone(), text: String::new() };
        let quote = self.known_quote(group, target)?.unwrap_or(unknown);
        self.insert(
            group,
            &NewRow {
                id: &message.id,
                sender: &message.sender,
                sender_name: &message.sender_name,
                text: &message.text,
                sent_at: message.sent_at,
                quote: Some(&quote),
                edits: Some(target),
                media: None,
                wake,
                state: "pending",
            },
        )
    }

    /// Only the author can take a message back, and only before it was read.
    pub(super) fn deleted(&mut self, chat: &ChatId, sender: &SenderId, target: &MessageId) -> Result<()> {
        let Some(group) = self.group_of(chat)? else { return Ok(()) };
        while let Some(waiting) = self.waiting(&group, sender, target)? {
            let path = self
                .connection
                .prepare_cached("SELECT media_path FROM inbox WHERE id = ?1")?
                .query_row([waiting], |row| row.get::<_, Option<String>>(0))?;
            self.taken.taken_back.extend(path.map(|path| (group.name.clone(), path)));
            self.connection
                .prepare_cached(
                    "UPDATE inbox SET state = 'done', text = '', media_kind = NULL, media_mime = NULL,
                                      media_name = NULL, media_bytes = NULL, media_handle = NULL, media_state = NULL,
                                      media_path = NULL, media_missing = NULL
                     WHERE id = ?1",
                )?
                .execute([waiting])?;
        }
        Ok(())
    }

    pub(super) fn reacted(&mut self, reaction: &Reaction) -> Result<()> {
        let text = match reaction.emoji.as_str() {
            "" => "[Reaction taken back]".to_owned(),
            emoji => format!("[Reaction: {emoji}]"),
        };
        let Reaction { chat, id, sender, sender_name, target, sent_at, .. } = reaction.clone();
        self.noted(&Note { chat, id, sender, sender_name, target: Some(target), text, sent_at })
    }

    /// What is only done never calls Kai; he hears of it with the next message that does.
    pub(super) fn noted(&mut self, note: &Note) -> Result<()> {
        let Some(group) = self.group_of(&note.chat)? else { return Ok(()) };
        if self.is_there(&group, &note.id, &note.sender)? {
            return Ok(());
        }
        let quote = match &note.target {
            Some(target) => {
                let unknown = Quote { id: target.clone(), sender_name: String::new(), text: String::new() };
                Some(self.known_quote(&group, target)?.unwrap_or(unknown))
            }
            None => None,
        };
        self.insert(
            &group,
            &NewRow {
                id: &note.id,
                sender: &note.sender,
                sender_name: &note.sender_name,
                text: &note.text,
                sent_at: note.sent_at,
                quote: quote.as_ref(),
                edits: None,
                media: None,
                wake: Wake::Context,
                state: "pending",
            },
        )
    }

    /// What still waits of a message of this author: itself, or the row that tells of its latest edit.
    fn waiting(&self, group: &Group, sender: &SenderId, target: &MessageId) -> Result<Option<i64>> {
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT id FROM inbox INDEXED BY inbox_pending
                 WHERE chat = ?2 AND state = 'pending' AND sender IN {} AND (wa_id = ?3 OR edits = ?3)
                 ORDER BY id DESC LIMIT 1",
                people::names_of("?1")
            ))?
            .query_row([sender.as_str(), group.chat.as_str(), target.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// The message that the original one answered.
    fn quoted_by(&self, group: &Group, sender: &SenderId, target: &MessageId) -> Result<Option<MessageId>> {
        let quoted: Option<Option<String>> = self
            .connection
            .prepare_cached(&format!(
                "SELECT quote_id FROM inbox WHERE chat = ?2 AND wa_id = ?3 AND sender IN {}",
                people::names_of("?1")
            ))?
            .query_row(params![sender.as_str(), group.chat.as_str(), target.as_str()], |row| row.get(0))
            .optional()?;
        Ok(quoted.flatten().map(MessageId::new))
    }
}
