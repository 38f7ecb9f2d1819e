//! What people may not do in a group: their messages call nobody and start nothing, and they may be told so.

use anyhow::Result;
use rusqlite::{OptionalExtension, params};

use super::{Intake, NewRow};
use crate::rules::inbox::{AskPermission, CallDecision, RefusalReason, WakeDecision};
use crate::rules::refusals;
use crate::store::outbox::enqueue;
use crate::store::{OutboxChange, Reply, RowId, senders};
use crate::types::{Group, SenderId, SenderPolicy};

/// Whether a call was counted before, with an earlier text of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallCount {
    New,
    Counted,
}

impl Intake<'_> {
    /// Whether this person may ask in this group now. If everybody may as often as they like, nothing is
    /// looked up: a week's messages come at once.
    pub(super) fn read_permission(&self, group: &Group, sender: &SenderId) -> Result<AskPermission> {
        let by_rule = match group.senders.may_ask {
            SenderPolicy::Anyone => AskPermission::Granted,
            SenderPolicy::Listed | SenderPolicy::Owner => {
                senders::read_permission(self.connection, group, sender)?
            }
        };
        if group.turns_per_hour.is_none() || by_rule != AskPermission::Granted {
            return Ok(by_rule);
        }
        let calls = senders::read_recent_calls(self.connection, &group.name, sender, self.now)?;
        let standing = senders::read_sender_standing(self.connection, group, sender)?;
        Ok(by_rule.limit_calls(standing, group.turns_per_hour, calls.count))
    }

    /// The same for the new text of a message that waits: if that calls already, it was counted.
    pub(super) fn read_edit_permission(
        &self,
        group: &Group,
        sender: &SenderId,
        waiting: Option<i64>,
    ) -> Result<(AskPermission, CallCount)> {
        let permission = self.read_permission(group, sender)?;
        let is_counted = match waiting {
            Some(row) if group.turns_per_hour.is_some() => self
                .connection
                .prepare_cached("SELECT 1 FROM inbox WHERE id = ?1 AND wake = 'wakes'")?
                .exists([row])?,
            Some(_) | None => false,
        };
        Ok(if is_counted {
            (permission.for_counted_call(), CallCount::Counted)
        } else {
            (permission, CallCount::New)
        })
    }

    /// Counts a call where the owner limits how often one person may.
    pub(super) fn count_call(
        &self,
        group: &Group,
        sender: &SenderId,
        call: CallDecision,
        count: CallCount,
    ) -> Result<()> {
        if group.turns_per_hour.is_none() || call.wake != WakeDecision::Wakes || count == CallCount::Counted {
            return Ok(());
        }
        senders::record_call(self.connection, &group.name, sender, self.now)
    }

    /// Writes a row. No agent is started ahead for the words of somebody who may not ask; a call that was
    /// granted before wakes the group, whatever its author may ask now.
    pub(super) fn record_permitted_row(
        &mut self,
        group: &Group,
        permission: AskPermission,
        row: &NewRow<'_>,
    ) -> Result<()> {
        match (row.wake, permission) {
            (WakeDecision::Wakes, _) | (WakeDecision::Context, AskPermission::Granted) => {
                self.record_inbox_row(group, row)
            }
            (WakeDecision::Context, AskPermission::Refused(_)) => self.insert_inbox_row(group, row),
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
        let calls = senders::read_recent_calls(self.connection, &group.name, row.sender, self.now)?;
        let notice = refusals::refusal_notice(self.rules, group, reason, calls, self.now);
        let Some(notice) = notice else { return Ok(()) };
        let (why, since) =
            (refusals::refusal_name(reason), refusals::told_again_after(reason, calls, self.now));
        if !senders::record_sender_notice(self.connection, &group.name, row.sender, why, since, self.now)? {
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
