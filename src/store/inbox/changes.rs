//! What authors do to a message after they sent it: edits, deletions, and what everybody does to it, such as
//! reactions.
//!
//! What becomes of each is decided in `rules`.

use anyhow::Result;
use rusqlite::{OptionalExtension, params};

use super::{Intake, NewRow, quote_source_name, wake_name};
use crate::rules::inbox::{
    AskPermission, CallDecision, EarlierEdit, EditChange, KnownEdit, KnownQuote, WakeDecision, decide_edit,
    note_of_reaction,
};
use crate::store::media::stored_bytes;
use crate::store::{people, to_unix_millis, unread};
use crate::types::{
    ChatId, ChatNote, Edit, Forwarded, Group, IncomingMessage, MessageId, Reaction, SenderId,
};

/// An edit whose text stands elsewhere, or counts no more. It keeps its own id, so that it is known when it
/// comes again.
fn superseded_edit_row<'a>(target: &'a MessageId, message: &'a IncomingMessage) -> NewRow<'a> {
    NewRow {
        id: &message.id,
        sender: &message.sender,
        sender_name: &message.sender_name,
        text: "",
        sent_at: message.sent_at,
        forwarded: Forwarded::No,
        quote: None,
        edits: Some(target),
        media: None,
        wake: WakeDecision::Context,
        state: "done",
    }
}

impl Intake<'_> {
    pub(super) fn handle_edit(&mut self, Edit { target, message }: &Edit) -> Result<()> {
        let Some(group) = self.registered_group(&message.chat)? else { return Ok(()) };
        let original = self.quoted_message_id(&group, &message.sender, target)?;
        let quoted = message.quote.as_ref().map(|quote| &quote.id).or(original.as_ref());
        let pending_row = self.find_pending_row(&group, &message.sender, target)?;
        let (permission, count) = self.read_edit_permission(&group, &message.sender, pending_row)?;
        let known = KnownEdit {
            is_known: self.is_duplicate_or_own(&group, &message.id, &message.sender)?
                || self.is_own_message(&group, target)?,
            has_newer: self.has_newer_edit(&group, message, target)?,
            pending_row,
            permission,
            quotes: self.quoted_author(&group, quoted)?,
        };
        match decide_edit(&group, message, known, self.rules, self.now) {
            EditChange::Dropped => Ok(()),
            EditChange::Superseded => {
                let row = superseded_edit_row(target, message);
                self.record_permitted_row(&group, permission, &row)
            }
            EditChange::ReplacesText { row, call } => {
                self.notify_if_missed(&group, call)?;
                self.replace_pending_text(&group, row, target, message, permission, call.wake)?;
                self.count_call(&group, &message.sender, call, count)?;
                self.notify_refused_edit(&group, target, message, call)
            }
            EditChange::Follows(call) => {
                self.notify_if_missed(&group, call)?;
                self.insert_edit_row(&group, target, message, permission, call.wake)?;
                self.count_call(&group, &message.sender, call, count)?;
                self.notify_refused_edit(&group, target, message, call)
            }
        }
    }

    /// Puts the new text where the old one waits.
    fn replace_pending_text(
        &mut self,
        group: &Group,
        waiting: i64,
        target: &MessageId,
        message: &IncomingMessage,
        permission: AskPermission,
        wake: WakeDecision,
    ) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE inbox SET text = ?2, wake = ?3 WHERE id = ?1")?
            .execute(params![waiting, message.text, wake_name(wake)])?;
        if wake == WakeDecision::Wakes {
            self.add_woken_group(group);
        }
        self.record_permitted_row(group, permission, &superseded_edit_row(target, message))
    }

    fn notify_refused_edit(
        &mut self,
        group: &Group,
        target: &MessageId,
        message: &IncomingMessage,
        call: CallDecision,
    ) -> Result<()> {
        match call.refusal {
            Some(reason) => self.notify_refused_sender(group, &superseded_edit_row(target, message), reason),
            None => Ok(()),
        }
    }

    /// A new row that tells of the edit.
    fn insert_edit_row(
        &mut self,
        group: &Group,
        target: &MessageId,
        message: &IncomingMessage,
        permission: AskPermission,
        wake: WakeDecision,
    ) -> Result<()> {
        let unknown = || KnownQuote::unknown_message(target, &message.sender_name);
        let quote = self.find_quoted_message(group, target)?.unwrap_or_else(unknown).without_file();
        self.record_permitted_row(
            group,
            permission,
            &NewRow {
                id: &message.id,
                sender: &message.sender,
                sender_name: &message.sender_name,
                text: &message.text,
                sent_at: message.sent_at,
                forwarded: message.forwarded,
                quote: Some(&quote),
                edits: Some(target),
                media: None,
                wake,
                state: "pending",
            },
        )
    }

    /// Only the author can take a message back, and only before it was read.
    pub(super) fn handle_deletion(
        &mut self,
        chat: &ChatId,
        sender: &SenderId,
        target: &MessageId,
    ) -> Result<()> {
        let Some(group) = self.registered_group(chat)? else { return Ok(()) };
        unread::resolve_unread_message(self.connection, &group.chat, target)?;
        while let Some(waiting) = self.find_pending_row(&group, sender, target)? {
            let paths: [Option<String>; 2] = self
                .connection
                .prepare_cached("SELECT media_path, text_path FROM inbox WHERE id = ?1")?
                .query_row([waiting], |row| Ok([row.get(0)?, row.get(1)?]))?;
            self.taken.taken_back.extend(paths.into_iter().flatten().map(|path| (group.name.clone(), path)));
            self.connection
                .prepare_cached(
                    "UPDATE inbox SET state = 'done', text = '', media_kind = NULL, media_mime = NULL,
                                      media_name = NULL, media_bytes = NULL, media_handle = NULL, media_state = NULL,
                                      media_path = NULL, media_missing = NULL, text_path = NULL,
                                      media_words = NULL, media_unheard = NULL
                     WHERE id = ?1",
                )?
                .execute([waiting])?;
        }
        let has_come = self
            .connection
            .prepare_cached("SELECT 1 FROM inbox WHERE chat = ?1 AND wa_id = ?2")?
            .exists([group.chat.as_str(), target.as_str()])?;
        if has_come || self.is_own_message(&group, target)? {
            return Ok(());
        }
        // It is still to come: in its place, so that it is there already.
        self.record_inbox_row(
            &group,
            &NewRow {
                id: target,
                sender,
                sender_name: "",
                text: "",
                sent_at: self.now,
                forwarded: Forwarded::No,
                quote: None,
                edits: None,
                media: None,
                wake: WakeDecision::Context,
                state: "done",
            },
        )
    }

    /// The newest edit of a message that has come before it.
    pub(super) fn find_earlier_edit(
        &self,
        group: &Group,
        message: &IncomingMessage,
    ) -> Result<Option<EarlierEdit>> {
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT id, text, state = 'pending', wake = 'wakes' FROM inbox INDEXED BY inbox_edits
                 WHERE chat = ?2 AND edits = ?3 AND sender IN {} AND NOT (state = 'done' AND text = '')
                 ORDER BY id DESC LIMIT 1",
                people::aliases_sql("?1")
            ))?
            .query_row(params![message.sender.as_str(), group.chat.as_str(), message.id.as_str()], |row| {
                let wake = if row.get(3)? { WakeDecision::Wakes } else { WakeDecision::Context };
                Ok(EarlierEdit { row: row.get(0)?, text: row.get(1)?, is_pending: row.get(2)?, wake })
            })
            .optional()?)
    }

    /// An edit is over, as its message has come and tells its text.
    pub(super) fn clear_edit_row(&self, row: i64) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE inbox SET state = 'done', text = '' WHERE id = ?1")?
            .execute([row])?;
        Ok(())
    }

    /// A message has come that others named before: they wait with what their clients said of it.
    pub(super) fn update_pending_quotes(&self, group: &Group, id: &MessageId) -> Result<()> {
        let is_named = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM inbox INDEXED BY inbox_claims
                 WHERE chat = ?1 AND quote_id = ?2 AND state = 'pending' AND quote_source = 'client'",
            )?
            .exists([group.chat.as_str(), id.as_str()])?;
        if !is_named {
            return Ok(());
        }
        let Some(known) = self.find_quoted_message(group, id)? else { return Ok(()) };
        let media = known.media.as_ref();
        self.connection
            .prepare_cached(
                "UPDATE inbox INDEXED BY inbox_claims
                 SET quote_source = ?3, quote_sender = ?4, quote_sender_name = ?5, quote_text = ?6,
                     quote_media_kind = iif(quote_media_state IS NULL, NULL, ?7),
                     quote_media_mime = iif(quote_media_state IS NULL, NULL, ?8),
                     quote_media_name = iif(quote_media_state IS NULL, NULL, ?9),
                     quote_media_bytes = iif(quote_media_state IS NULL, NULL, ?10),
                     quote_media_handle = iif(quote_media_state IS NULL, NULL, ?11),
                     quote_media_state = iif(quote_media_state IS NULL OR ?7 IS NULL, NULL, 'wanted'),
                     quote_media_path = NULL
                 WHERE chat = ?1 AND quote_id = ?2 AND state = 'pending' AND quote_source = 'client'",
            )?
            .execute(params![
                group.chat.as_str(),
                id.as_str(),
                quote_source_name(known.source),
                known.sender.as_ref().map(SenderId::as_str),
                known.sender_name,
                known.text,
                media.map(|media| media.kind.name()),
                media.map(|media| media.mime.as_str()),
                media.and_then(|media| media.name.as_deref()),
                media.map(stored_bytes),
                media.map(|media| media.handle.as_slice()),
            ])?;
        Ok(())
    }

    /// Whether a later edit of the same message came before this one.
    fn has_newer_edit(&self, group: &Group, message: &IncomingMessage, target: &MessageId) -> Result<bool> {
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT 1 FROM inbox INDEXED BY inbox_edits
                 WHERE chat = ?2 AND edits = ?3 AND sent_at > ?4 AND sender IN {}",
                people::aliases_sql("?1")
            ))?
            .exists(params![
                message.sender.as_str(),
                group.chat.as_str(),
                target.as_str(),
                to_unix_millis(message.sent_at)
            ])?)
    }

    pub(super) fn handle_reaction(&mut self, reaction: &Reaction) -> Result<()> {
        if self.settle_owner_reaction(reaction)? {
            return Ok(());
        }
        self.handle_note(&note_of_reaction(reaction))
    }

    /// What is only done never calls Kai; he hears of it with the next message that does.
    pub(super) fn handle_note(&mut self, note: &ChatNote) -> Result<()> {
        let Some(group) = self.registered_group(&note.chat)? else { return Ok(()) };
        if self.is_duplicate_or_own(&group, &note.id, &note.sender)? {
            return Ok(());
        }
        let permission = self.read_permission(&group, &note.sender)?;
        if !permission.is_kept(group.senders) {
            return Ok(());
        }
        let quote = match &note.target {
            Some(target) => {
                let unknown = || KnownQuote::unknown_message(target, "");
                Some(self.find_quoted_message(&group, target)?.unwrap_or_else(unknown).without_file())
            }
            None => None,
        };
        self.record_permitted_row(
            &group,
            permission,
            &NewRow {
                id: &note.id,
                sender: &note.sender,
                sender_name: &note.sender_name,
                text: &note.text,
                sent_at: note.sent_at,
                forwarded: Forwarded::No,
                quote: quote.as_ref(),
                edits: None,
                media: None,
                wake: WakeDecision::Context,
                state: "pending",
            },
        )
    }

    /// What still waits of a message of this author: itself, or the row that tells of its latest edit.
    fn find_pending_row(&self, group: &Group, sender: &SenderId, target: &MessageId) -> Result<Option<i64>> {
        Ok(self
            .connection
            .prepare_cached(&format!(
                "SELECT id FROM inbox INDEXED BY inbox_pending
                 WHERE chat = ?2 AND state = 'pending' AND sender IN {} AND (wa_id = ?3 OR edits = ?3)
                 ORDER BY id DESC LIMIT 1",
                people::aliases_sql("?1")
            ))?
            .query_row([sender.as_str(), group.chat.as_str(), target.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// The message that the original one answered.
    fn quoted_message_id(
        &self,
        group: &Group,
        sender: &SenderId,
        target: &MessageId,
    ) -> Result<Option<MessageId>> {
        let quoted: Option<Option<String>> = self
            .connection
            .prepare_cached(&format!(
                "SELECT quote_id FROM inbox WHERE chat = ?2 AND wa_id = ?3 AND sender IN {}",
                people::aliases_sql("?1")
            ))?
            .query_row(params![sender.as_str(), group.chat.as_str(), target.as_str()], |row| row.get(0))
            .optional()?;
        Ok(quoted.flatten().map(MessageId::new))
    }
}
