//! What people may not do in a group: their messages call nobody and start nothing, and they may be told so.

use anyhow::Result;
use rusqlite::{OptionalExtension, params};

use super::{Intake, NewRow};
use crate::rules::inbox::{AskPermission, RefusalReason};
use crate::rules::refusals;
use crate::store::outbox::enqueue;
use crate::store::{OutboxChange, Reply, RowId, senders};
use crate::types::{Group, SenderId, SenderPolicy};

impl Intake<'_> {
    /// Whether this person may ask in this group. If everybody may, nothing is looked up: a week's messages
    /// come at once.
    pub(super) fn read_permission(&self, group: &Group, sender: &SenderId) -> Result<AskPermission> {
        match group.senders.may_ask {
            SenderPolicy::Anyone => Ok(AskPermission::Granted),
            SenderPolicy::Listed | SenderPolicy::Owner => {
                senders::read_permission(self.connection, group, sender)
            }
        }
    }

    /// Writes a row. No agent is started ahead for the words of somebody who may not ask.
    pub(super) fn record_permitted_row(
        &mut self,
        group: &Group,
        permission: AskPermission,
        row: &NewRow<'_>,
    ) -> Result<()> {
        match permission {
            AskPermission::Granted => self.record_inbox_row(group, row),
            AskPermission::Refused(_) => self.insert_inbox_row(group, row),
        }
    }

    /// Tells the author of a call why there is no answer, if the owner wants that, and if they were not told
    /// lately. The sentence quotes their message, if that is stored.
    pub(super) fn notify_refused_sender(
        &mut self,
        group: &Group,
        row: &NewRow<'_>,
        reason: RefusalReason,
    ) -> Result<()> {
        let Some(notice) = refusals::refusal_notice(self.rules, group.senders, reason) else { return Ok(()) };
        let (name, within) = (refusals::refusal_name(reason), refusals::told_within(reason));
        if !senders::record_sender_notice(self.connection, &group.name, row.sender, name, within, self.now)? {
            return Ok(());
        }
        let called = self
            .connection
            .prepare_cached("SELECT id FROM inbox WHERE chat = ?1 AND wa_id = ?2 AND sender = ?3")?
            .query_row(params![group.chat.as_str(), row.id.as_str(), row.sender.as_str()], |row| row.get(0))
            .optional()?;
        let reply = Reply { to: called.map(RowId), ..Reply::from_text(notice) };
        self.taken.outbox = OutboxChange::Changed;
        enqueue::enqueue_reply(self.connection, &group.chat, None, &reply, self.now)
    }
}
