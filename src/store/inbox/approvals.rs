//! The owner's answers to questions in the main channel, and direct chats that Kai does not serve: intake's
//! part of `approvals`.

use anyhow::Result;

use super::{Intake, NewRow};
use crate::rules::approvals::{
    ApprovalChange, HeldAction, OPEN_CHATS_MAX, OwnerReply, decide_answer, describe_person,
    direct_chat_group_name, may_answer, may_ask_of_chat, owner_question, serve_chat, served_chat_notice,
};
use crate::rules::inbox::{SenderStanding, WakeDecision, note_of_reaction};
use crate::store::outbox::enqueue;
use crate::store::{OutboxChange, approvals, groups, people, senders};
use crate::types::{
    DirectChatPolicy, Forwarded, Group, IncomingMessage, MessageId, Reaction, Role, SenderId,
};

impl Intake<'_> {
    /// Takes a message for the owner's answer to the question that it quotes, if it is one. It is over at once:
    /// no agent reads it.
    pub(super) fn settle_owner_answer(&mut self, group: &Group, message: &IncomingMessage) -> Result<bool> {
        let Some(quote) = message.quote.as_ref().filter(|_| group.role == Role::Main) else {
            return Ok(false);
        };
        let standing = senders::read_command_standing(self.connection, group, &message.sender)?;
        if !may_answer(group, standing, message) {
            return Ok(false);
        }
        let row = NewRow {
            id: &message.id,
            sender: &message.sender,
            sender_name: &message.sender_name,
            text: &message.text,
            sent_at: message.sent_at,
            forwarded: message.forwarded,
            quote: None,
            edits: None,
            media: None,
            wake: WakeDecision::Context,
            state: "done",
        };
        self.settle_reply(group, &quote.id, OwnerReply::Words(&message.text), &row)
    }

    /// The same for a reaction on the question.
    pub(super) fn settle_owner_reaction(&mut self, reaction: &Reaction) -> Result<bool> {
        let Some(group) = self.registered_group(&reaction.chat)?.filter(|group| group.role == Role::Main)
        else {
            return Ok(false);
        };
        let sender = &reaction.sender;
        let standing = senders::read_command_standing(self.connection, &group, sender)?;
        if standing != SenderStanding::Owner || self.is_duplicate_or_own(&group, &reaction.id, sender)? {
            return Ok(false);
        }
        let note = note_of_reaction(reaction);
        let row = NewRow {
            id: &note.id,
            sender,
            sender_name: &note.sender_name,
            text: &note.text,
            sent_at: note.sent_at,
            forwarded: Forwarded::No,
            quote: None,
            edits: None,
            media: None,
            wake: WakeDecision::Context,
            state: "done",
        };
        self.settle_reply(&group, &reaction.target, OwnerReply::Emoji(&reaction.emoji), &row)
    }

    fn settle_reply(
        &mut self,
        group: &Group,
        question: &MessageId,
        reply: OwnerReply<'_>,
        row: &NewRow<'_>,
    ) -> Result<bool> {
        let approval = approvals::read_approval_by_question(self.connection, &group.chat, question)?;
        let Some(approval) = approval else { return Ok(false) };
        let standing = approvals::read_standing(self.connection, &approval)?;
        let change = decide_answer(&approval, reply, &standing, self.rules, self.now);
        let Some(change): Option<ApprovalChange> = change else { return Ok(false) };
        self.insert_inbox_row(group, row)?;
        let ended = approvals::end_approval(self.connection, &approval, change, self.now)?;
        self.taken.outbox = OutboxChange::Changed;
        if let Some(woken) = ended.woken.filter(|woken| !self.taken.woken.contains(woken)) {
            self.taken.woken.push(woken);
        }
        Ok(true)
    }

    /// Somebody has written in a chat that Kai does not serve. The owner may want to be asked, once, or to serve
    /// all direct chats. Of the message itself nothing is kept.
    pub(super) fn handle_unserved_message(&mut self, message: &IncomingMessage) -> Result<()> {
        let policy = self.rules.direct_chats;
        let is_reason = policy != DirectChatPolicy::Listed && may_ask_of_chat(message, self.rules, self.now);
        if !is_reason
            || people::is_own_account(self.connection, &message.sender)?
            || people::is_own_account(self.connection, &SenderId::new(message.chat.as_str()))?
            || approvals::was_asked_of_chat(self.connection, &message.chat, policy)?
        {
            return Ok(());
        }
        let Some(main) = groups::main_chat(self.connection)? else { return Ok(()) };
        let is_asked = policy == DirectChatPolicy::Ask;
        if is_asked && approvals::count_open_chat_questions(self.connection)? >= OPEN_CHATS_MAX {
            return Ok(());
        }
        let action = HeldAction::ServeChat { chat: message.chat.clone() };
        let number = people::read_phone_number(self.connection, &message.sender)?;
        let about = describe_person(&message.sender_name, number.as_deref());
        let id = enqueue::new_question_id();
        let number = approvals::insert_approval(self.connection, None, &action, &about, &id, self.now)?;
        let text = if is_asked {
            owner_question(self.rules, None, &action, &about)
        } else {
            approvals::mark_granted(self.connection, number, self.now)?;
            let Some(name) = direct_chat_group_name(&about, number) else { return Ok(()) };
            let notice = served_chat_notice(self.rules, &about, &name);
            let served = serve_chat(&message.chat, name, self.rules);
            approvals::carry_out(self.connection, served, self.now)?;
            notice
        };
        enqueue::enqueue_question(self.connection, &id, &main, &text, self.now)?;
        self.taken.outbox = OutboxChange::Changed;
        self.taken.asked |= is_asked;
        Ok(())
    }
}
