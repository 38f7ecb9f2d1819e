//! What a turn takes: rows of `inbox`, whole or one run of a task alone, or the making of a session's
//! summary.
//!
//! A claim raises the rows' attempts before anything is tried, so that a message which kills the process is
//! given up like any other that fails.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::claimed::{CLAIMED_COLUMNS, ClaimedRow, claimed_from_row};
use super::sessions::{self, EngineSession, session_of_claim};
use super::tasks::LateRuns;
use super::waiting::{
    IS_OF_NO_TASK, IS_TOLD_ALONE, NextClaim, newest_row_beside, newest_steerable_row, next_claim,
    skip_excess_context,
};
use super::{RowId, Store, handover, tasks, turns};
use crate::rules::inbox::WakeDecision;
use crate::types::{
    ChatId, Engine, Group, MessageId, PromptAuthor, PromptMessage, SenderId, TaskContext, TurnId,
};

/// Rows in the hands of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub turn: TurnId,
    /// The session in which they are told.
    pub session: EngineSession,
    /// A command that says whether the turn goes on: of the run of a task, which is all that is claimed so
    /// far.
    pub only_if: Option<String>,
    /// The least that its runs of tasks may still use, if there are such and their tokens are limited.
    pub tokens_left: Option<u64>,
    /// Oldest first.
    pub rows: Vec<RowId>,
    /// The same rows as the agent reads them.
    pub messages: Vec<PromptMessage>,
    /// What was said before, if that was with another engine: this one has not heard it.
    pub earlier: Vec<PromptMessage>,
    /// The newest message of them that calls Kai: the answer is to it. Nobody wrote what a task says, or what
    /// nanokimi itself says.
    pub called_by: Option<RowId>,
    /// Whether they tell the owner's answer to a question of the agent.
    pub has_owner_answer: bool,
    /// The same rows by who sent them, in the order of each sender's first.
    pub senders: Vec<(SenderId, Vec<MessageId>)>,
}

impl Claim {
    /// A claim that holds nothing yet.
    fn begin(turn: TurnId, session: EngineSession) -> Self {
        Self {
            turn,
            session,
            only_if: None,
            tokens_left: None,
            rows: Vec::new(),
            messages: Vec::new(),
            earlier: Vec::new(),
            has_owner_answer: false,
            called_by: None,
            senders: Vec::new(),
        }
    }

    fn sort_by_row(&mut self) {
        let rows = std::mem::take(&mut self.rows).into_iter();
        let mut told: Vec<_> = rows.zip(std::mem::take(&mut self.messages)).collect();
        told.sort_by_key(|(row, _)| *row);
        (self.rows, self.messages) = told.into_iter().unzip();
    }
}

impl Store {
    /// Claims what waits in a group's chat for a new turn with this engine; nothing to answer means no turn.
    /// The run of an isolated task is a turn of its own.
    pub async fn claim_pending_rows(
        &self,
        group: &Group,
        engine: Engine,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            turns::release_claimed_rows(&transaction, &group.chat, now)?;
            tasks::skip_late_runs(&transaction, LateRuns::OfChat(&group.chat), now)?;
            let Some(next) = next_claim(&transaction, &group.chat)? else {
                transaction.commit()?;
                return Ok(None);
            };
            let session = session_of_claim(&transaction, &group.name, Some(next))?;
            let turn = turns::insert_turn(&transaction, &group.name, engine, session.context(), now)?;
            let mut claim = Claim::begin(turn, session);
            match next {
                NextClaim::Messages { up_to } => {
                    claim_messages(&transaction, &mut claim, &group.chat, up_to)?
                }
                NextClaim::Run { row, run, .. } => {
                    claim_run(&transaction, &mut claim, &group.chat, (row, run))?;
                }
            }
            if !claim.session.is_of_run() {
                claim.earlier = handover::read_handover_messages(&transaction, &group, engine)?;
            }
            transaction.commit()?;
            Ok(Some(claim))
        })
        .await
    }

    /// Begins a turn that puts a group's current session into a summary, if that is asked for.
    pub async fn begin_compaction(
        &self,
        group: &Group,
        engine: Engine,
        now: Timestamp,
    ) -> Result<Option<TurnId>> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            if sessions::read_open_compaction(&transaction, &group.chat)?.is_none() {
                return Ok(None);
            }
            let turn = turns::insert_turn(&transaction, &group.name, engine, TaskContext::Group, now)?;
            sessions::begin_compaction(&transaction, &group.name, turn)?;
            transaction.commit()?;
            Ok(Some(turn))
        })
        .await
    }

    /// Adds to the claim of a run in the chat's own session all that the chat waits for beside it; but what a
    /// limited run uses, nobody else does. Nothing is returned for a turn that is over.
    pub async fn claim_beside_run(&self, claim: Claim, chat: &ChatId) -> Result<Option<Claim>> {
        let (chat, mut claim) = (chat.clone(), claim);
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            if turns::is_turn_over(&transaction, claim.turn)? {
                return Ok(None);
            }
            let own = claim.rows.last().map_or(0, |row| row.0);
            let newest = newest_row_beside(&transaction, &chat, own)?;
            if let Some(up_to) = newest.filter(|_| claim.tokens_left.is_none()) {
                claim_messages(&transaction, &mut claim, &chat, up_to)?;
                claim.sort_by_row();
            }
            transaction.commit()?;
            Ok(Some(claim))
        })
        .await
    }

    /// Claims what people have written since for a turn that runs in the chat's own session; nothing new means
    /// nothing is claimed. A turn that the owner has stopped gets no more.
    pub async fn claim_more_rows(
        &self,
        turn: TurnId,
        session: &EngineSession,
        chat: &ChatId,
    ) -> Result<Option<Claim>> {
        let (chat, session) = (chat.clone(), session.clone());
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            if turns::is_turn_over(&transaction, turn)? {
                return Ok(None);
            }
            let Some(up_to) = newest_steerable_row(&transaction, &chat)? else { return Ok(None) };
            let mut claim = Claim::begin(turn, session);
            skip_excess_context(&transaction, &chat, up_to)?;
            let which = format!("id <= ?3 AND {IS_OF_NO_TASK}");
            claim_rows(&transaction, &mut claim, &chat, &which, up_to)?;
            transaction.commit()?;
            Ok(Some(claim))
        })
        .await
    }
}

/// Hands the pending rows up to `up_to` to a turn, counting the attempt, but those that are told alone.
fn claim_messages(transaction: &Transaction<'_>, claim: &mut Claim, chat: &ChatId, up_to: i64) -> Result<()> {
    skip_excess_context(transaction, chat, up_to)?;
    claim_rows(transaction, claim, chat, &format!("id <= ?3 AND NOT {IS_TOLD_ALONE}"), up_to)
}

/// Hands the row of one run to a turn, with its task's command. In a session of its own it is told what the
/// last one has said.
fn claim_run(
    transaction: &Transaction<'_>,
    claim: &mut Claim,
    chat: &ChatId,
    (row, run): (i64, i64),
) -> Result<()> {
    claim_rows(transaction, claim, chat, "id = ?3", row)?;
    claim.only_if = tasks::read_only_if(transaction, run)?;
    if !claim.session.is_of_run() {
        return Ok(());
    }
    let known = tasks::read_last_answer(transaction, run)?;
    for message in &mut claim.messages {
        if let PromptAuthor::Task { last_answer, .. } = &mut message.author {
            last_answer.clone_from(&known);
        }
    }
    Ok(())
}

fn claim_rows(
    transaction: &Transaction<'_>,
    claim: &mut Claim,
    chat: &ChatId,
    which: &str,
    value: i64,
) -> Result<()> {
    let mut statement = transaction.prepare_cached(&format!(
        "UPDATE inbox INDEXED BY inbox_pending SET state = 'claimed', turn = ?1, attempts = attempts + 1
             WHERE chat = ?2 AND state = 'pending' AND {which}
             RETURNING {CLAIMED_COLUMNS}"
    ))?;
    let mut claimed = statement
        .query_map(params![claim.turn.0, chat.as_str(), value], claimed_from_row)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    claimed.sort_by_key(|claimed| claimed.row);
    for ClaimedRow { row, sender, wake, task_run, message } in claimed {
        claim.rows.push(row);
        if let Some((run, late_by)) = task_run {
            tasks::record_running_run(transaction, run, claim.turn, late_by)?;
            let left = tasks::read_tokens_left(transaction, run)?;
            claim.tokens_left = claim.tokens_left.into_iter().chain(left).min();
            claim.messages.push(message);
            continue;
        }
        if message.author == PromptAuthor::Host {
            claim.has_owner_answer |= wake == WakeDecision::Wakes;
            claim.messages.push(message);
            continue;
        }
        if wake == WakeDecision::Wakes {
            claim.called_by = Some(row);
        }
        match claim.senders.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, messages)) => messages.push(message.id.clone()),
            None => claim.senders.push((sender, vec![message.id.clone()])),
        }
        claim.messages.push(message);
    }
    Ok(())
}
