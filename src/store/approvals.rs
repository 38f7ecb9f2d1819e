//! The table `approvals`: what waits for the owner's answer in the main channel, and how each question ended.
//!
//! `rules::approvals` says what an answer does. What the owner has allowed is done in the transaction that
//! ends the question, so that no kill and no second answer does it twice.

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::outbox::enqueue;
use super::{OutboxChange, Reply, Store, from_unix_millis, groups, people, to_unix_millis};
use crate::rules::Rules;
use crate::rules::approvals::{
    AgentNote, Approval, ApprovalChange, ApprovalEffect, ApprovalStanding, ApprovalState, HeldAction,
    OPEN_PER_GROUP_MAX, decide_expiry, direct_chat_group_name, owner_question,
};
use crate::rules::inbox::WakeDecision;
use crate::types::{ChatId, DirectChatPolicy, Group, GroupName, MessageId, Role, TurnId};

/// What stands before a question's number, in the place of a sender. No name on WhatsApp is like that.
const HOST_SENDER: &str = "approval:";

/// What an agent wants, and only the owner can allow or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCall {
    /// The group whose agent it is, with the turn that it works on.
    pub group: Group,
    pub turn: TurnId,
    pub action: HeldAction,
    /// The chat that it is about, as people call it.
    pub about: String,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldResult {
    Asked,
    /// The owner is being asked just this.
    AskedBefore,
    /// The owner has as many questions of this agent to answer as there may be.
    TooMany,
    /// There is no main channel in which to ask.
    NoMainChannel,
    TurnOver,
}

/// What has come of looking for questions that nobody has answered in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiredApprovals {
    pub outbox: OutboxChange,
    /// The groups whose agents are told.
    pub woken: Vec<GroupName>,
    /// When the next question will be over.
    pub next_at: Option<Timestamp>,
}

/// What follows outside of the database when a question has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndedApproval {
    pub woken: Option<GroupName>,
}

impl Store {
    /// Keeps what an agent wants, and asks the owner.
    pub async fn hold_action(&self, call: HeldCall, rules: Rules, now: Timestamp) -> Result<HoldResult> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let is_open = transaction
                .prepare_cached("SELECT 1 FROM turns WHERE id = ?1 AND ended_at IS NULL")?
                .exists([call.turn.0])?;
            if !is_open {
                return Ok(HoldResult::TurnOver);
            }
            let Some(main) = groups::main_chat(&transaction)? else { return Ok(HoldResult::NoMainChannel) };
            let HeldCall { group, action, about, .. } = &call;
            let open = read_open_approvals(&transaction, Some(&group.name))?;
            if open.iter().any(|approval| approval.action == *action) {
                return Ok(HoldResult::AskedBefore);
            }
            if open.len() >= OPEN_PER_GROUP_MAX as usize {
                return Ok(HoldResult::TooMany);
            }
            let question = owner_question(&rules, Some(&group.name), action, about);
            let id = enqueue::new_question_id();
            insert_approval(&transaction, Some(group), action, about, &id, now)?;
            enqueue::enqueue_question(&transaction, &id, &main, &question, now)?;
            transaction.commit()?;
            Ok(HoldResult::Asked)
        })
        .await
    }

    /// Ends the questions that nobody has answered in time, and tells the owner and the agents of it.
    pub async fn expire_approvals(&self, rules: Rules, now: Timestamp) -> Result<ExpiredApprovals> {
        self.with_connection(move |connection| {
            let mut expired = ExpiredApprovals::default();
            let open = read_open_approvals(connection, None)?;
            if open.is_empty() {
                return Ok(expired);
            }
            let transaction = connection.transaction()?;
            for approval in &open {
                if approval.is_open_at(now) {
                    expired.next_at = expired.next_at.into_iter().chain([approval.expires_at]).min();
                    continue;
                }
                let ended = end_approval(&transaction, approval, decide_expiry(approval, &rules), now)?;
                expired.outbox = OutboxChange::Changed;
                expired.woken.extend(ended.woken);
            }
            transaction.commit()?;
            Ok(expired)
        })
        .await
    }
}

/// Keeps a question; the outbox has it under the id `question`. Returns its number.
pub(super) fn insert_approval(
    connection: &Connection,
    asker: Option<&Group>,
    action: &HeldAction,
    about: &str,
    question: &MessageId,
    now: Timestamp,
) -> Result<i64> {
    let (chat, group, text) = match action {
        HeldAction::SendMessage { chat, text } => (Some(chat), None, text.as_str()),
        HeldAction::RemoveGroup { group, chat } => (Some(chat), Some(group), ""),
        HeldAction::ServeChat { chat } => (Some(chat), None, ""),
        HeldAction::AskOwner { question } => (None, None, question.as_str()),
    };
    connection
        .prepare_cached(
            "INSERT INTO approvals (asker, asker_chat, action, target_chat, target_group, text, about, question_id,
                                    asked_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            asker.map(|group| group.name.as_str()),
            asker.map(|group| group.chat.as_str()),
            action_name(action),
            chat.map(ChatId::as_str),
            group.map(GroupName::as_str),
            text,
            about,
            question.as_str(),
            to_unix_millis(now),
            to_unix_millis(now.saturating_add(action.open_for())?)
        ])?;
    Ok(connection.last_insert_rowid())
}

/// The question that a message in this chat was, if it was one.
pub(super) fn read_approval_by_question(
    connection: &Connection,
    chat: &ChatId,
    question: &MessageId,
) -> Result<Option<Approval>> {
    connection
        .prepare_cached(
            "SELECT approvals.* FROM approvals JOIN outbox ON outbox.wa_id = question_id
             WHERE question_id = ?1 AND outbox.chat = ?2",
        )?
        .query_row([question.as_str(), chat.as_str()], |row| Ok(approval_from_row(row)))
        .optional()?
        .transpose()
}

/// The questions that wait for an answer, of one group or of all, the oldest first.
fn read_open_approvals(connection: &Connection, asker: Option<&GroupName>) -> Result<Vec<Approval>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM approvals INDEXED BY approvals_open
         WHERE state = 'open' AND (?1 IS NULL OR asker = ?1) ORDER BY id",
    )?;
    let rows = statement.query_map([asker.map(GroupName::as_str)], |row| Ok(approval_from_row(row)))?;
    rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().collect()
}

/// How many questions wait that nanokimi itself has put.
pub(super) fn count_open_chat_questions(connection: &Connection) -> Result<u32> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FROM approvals INDEXED BY approvals_open WHERE state = 'open' AND action = 'serve_chat'",
        )?
        .query_row([], |row| row.get(0))?)
}

/// Whether the owner was asked before if this chat is to be served.
pub(super) fn was_asked_of_chat(
    connection: &Connection,
    chat: &ChatId,
    policy: DirectChatPolicy,
) -> Result<bool> {
    Ok(connection
        .prepare_cached(&format!(
            "SELECT 1 FROM approvals INDEXED BY approvals_chat
             WHERE action = 'serve_chat' AND target_chat IN {} AND (state <> 'expired' OR ?2)",
            people::aliases_sql("?1")
        ))?
        // A question that nobody has answered is no refusal once everybody is served.
        .exists(params![chat.as_str(), policy != DirectChatPolicy::Anyone])?)
}

/// What the rule depends on when an answer comes.
pub(super) fn read_standing(connection: &Connection, approval: &Approval) -> Result<ApprovalStanding> {
    let served_by = match &approval.action {
        HeldAction::SendMessage { chat, .. }
        | HeldAction::RemoveGroup { chat, .. }
        | HeldAction::ServeChat { chat } => groups::read_group_by_chat(connection, chat)?,
        HeldAction::AskOwner { .. } => None,
    };
    let free_name = match direct_chat_group_name(&approval.about, approval.id) {
        Some(name) if groups::read_group(connection, &name)?.is_none() => Some(name),
        Some(_) | None => None,
    };
    Ok(ApprovalStanding {
        asker_role: read_asker(connection, approval.id)?.map(|group| group.role),
        served_by: served_by.map(|group| group.name),
        free_name,
    })
}

/// The group that has asked, if it serves still the chat that it served then.
fn read_asker(connection: &Connection, question: i64) -> Result<Option<Group>> {
    let asker: Option<(Option<String>, Option<String>)> = connection
        .prepare_cached("SELECT asker, asker_chat FROM approvals WHERE id = ?1")?
        .query_row([question], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((Some(name), Some(chat))) = asker else { return Ok(None) };
    let group = groups::read_group(connection, &GroupName::parse(&name)?)?;
    match group {
        Some(group) if people::is_same_person(connection, group.chat.as_str(), &chat)? => Ok(Some(group)),
        Some(_) | None => Ok(None),
    }
}

/// Writes how a question has ended, does what was allowed, and tells everybody whom it concerns.
pub(super) fn end_approval(
    connection: &Connection,
    approval: &Approval,
    change: ApprovalChange,
    now: Timestamp,
) -> Result<EndedApproval> {
    let ApprovalChange { state, effect, notice, note } = change;
    connection
        .prepare_cached("UPDATE approvals SET state = ?2, ended_at = ?3 WHERE id = ?1 AND state = 'open'")?
        .execute(params![approval.id, state.name(), to_unix_millis(now)])?;
    carry_out(connection, effect, now)?;
    if let Some(main) = groups::main_chat(connection)? {
        enqueue::enqueue_reply(connection, &main, None, &Reply::from_text(notice), now)?;
    }
    match (note, read_asker(connection, approval.id)?) {
        (Some(note), Some(asker)) => write_note(connection, approval, &asker, note, now),
        (_, _) => Ok(EndedApproval::default()),
    }
}

/// Ends a question that need not be asked.
pub(super) fn mark_granted(connection: &Connection, id: i64, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE approvals SET state = 'granted', ended_at = ?2 WHERE id = ?1")?
        .execute(params![id, to_unix_millis(now)])?;
    Ok(())
}

/// Does what was allowed.
pub(super) fn carry_out(connection: &Connection, effect: ApprovalEffect, now: Timestamp) -> Result<()> {
    match effect {
        ApprovalEffect::Nothing => Ok(()),
        ApprovalEffect::SendMessage { chat, text } => {
            enqueue::enqueue_reply(connection, &chat, None, &Reply::from_text(text), now)
        }
        ApprovalEffect::RemoveGroup(name) => groups::delete_group(connection, &name),
        ApprovalEffect::ServeChat { chat, name, greeting } => {
            groups::insert_group(connection, &Group::new(name, chat.clone(), Role::Member), now)?;
            enqueue::enqueue_reply(connection, &chat, None, &Reply::from_text(greeting), now)
        }
    }
}

/// Tells the agent that has asked, with the next prompt, or by one.
fn write_note(
    connection: &Connection,
    approval: &Approval,
    asker: &Group,
    note: AgentNote,
    now: Timestamp,
) -> Result<EndedApproval> {
    let wakes = note.wake == WakeDecision::Wakes;
    connection
        .prepare_cached(
            "INSERT INTO inbox (chat, wa_id, sender, sender_name, text, sent_at, received_at, wake)
             VALUES (?1, ?2, ?2, '', ?3, ?4, ?4, ?5)
             ON CONFLICT (chat, wa_id, sender) DO NOTHING",
        )?
        .execute(params![
            asker.chat.as_str(),
            format!("{HOST_SENDER}{}", approval.id),
            note.text,
            to_unix_millis(now),
            if wakes { "wakes" } else { "context" }
        ])?;
    Ok(EndedApproval { woken: wakes.then(|| asker.name.clone()) })
}

/// Whether nanokimi itself has written a row of `inbox`.
pub(super) fn is_host_sender(sender: &str) -> bool {
    sender.starts_with(HOST_SENDER) && !sender.contains('@')
}

/// Forgets questions that ended before this time; of direct chats it is known for ever that they were asked about.
pub(super) fn delete_old_approvals(connection: &Connection, before_millis: i64) -> Result<()> {
    connection.execute(
        "DELETE FROM approvals WHERE action != 'serve_chat' AND state != 'open' AND ended_at < ?1",
        [before_millis],
    )?;
    Ok(())
}

fn action_name(action: &HeldAction) -> &'static str {
    match action {
        HeldAction::SendMessage { .. } => "send_message",
        HeldAction::RemoveGroup { .. } => "remove_group",
        HeldAction::ServeChat { .. } => "serve_chat",
        HeldAction::AskOwner { .. } => "ask_owner",
    }
}

fn approval_from_row(row: &Row<'_>) -> Result<Approval> {
    let chat = || -> Result<ChatId> {
        Ok(ChatId::new(row.get::<_, Option<String>>("target_chat")?.context("A question is about no chat")?))
    };
    let text: String = row.get("text")?;
    let action: String = row.get("action")?;
    let state: String = row.get("state")?;
    Ok(Approval {
        id: row.get("id")?,
        asker: row.get::<_, Option<String>>("asker")?.map(|name| GroupName::parse(&name)).transpose()?,
        action: match action.as_str() {
            "send_message" => HeldAction::SendMessage { chat: chat()?, text },
            "remove_group" => HeldAction::RemoveGroup {
                group: GroupName::parse(&row.get::<_, String>("target_group")?)?,
                chat: chat()?,
            },
            "serve_chat" => HeldAction::ServeChat { chat: chat()? },
            _ => HeldAction::AskOwner { question: text },
        },
        about: row.get("about")?,
        asked_at: from_unix_millis(row.get("asked_at")?),
        expires_at: from_unix_millis(row.get("expires_at")?),
        state: match state.as_str() {
            "open" => ApprovalState::Open,
            "granted" => ApprovalState::Granted,
            "refused" => ApprovalState::Refused,
            "expired" => ApprovalState::Expired,
            _ => ApprovalState::Void,
        },
    })
}
