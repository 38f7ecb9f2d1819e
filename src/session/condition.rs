//! The command of a task that says whether a run of it begins: run in the container before the engine is
//! asked, so that it costs no tokens.
//!
//! The run's row is claimed meanwhile, and nothing else of the chat: the turn can be stopped, fail and be
//! given back like any other. No tool of the host serves the command, and the chat sees nothing of it. If the
//! command says no, the turn is over as if it had never been; else it goes on with what waits in the chat.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::driver::SessionDriver;
use super::machine::SessionEvent;
use super::task_command::{RunningCondition, spawn_command};
use super::turn::Turn;
use crate::agent::EngineInput;
use crate::container::{CommandResult, Containers, ShellCommand};
use crate::notices;
use crate::rules::tasks::{CommandEnd, ONLY_IF_LIMIT, RunVerdict, judge_command};
use crate::store::{Claim, TurnOutcome};
use crate::types::{Group, PromptAuthor, RunReason, Trouble};

/// How long Docker may take to answer after a command that it did not run.
const PING_LIMIT: Duration = Duration::from_secs(10);

impl<C: Containers> SessionDriver<C> {
    /// Runs the command of a claimed run.
    pub fn begin_condition(&mut self, group: Group, claim: Claim, line: String) -> SessionEvent {
        let Some(engine) = &mut self.engine else { return SessionEvent::NothingToDo };
        engine.has_worked = true;
        tracing::info!(turn = claim.turn.0, "The command of a task says whether it begins");
        self.turn = Some(Turn::from_claim(&claim, &group, &EngineInput::from_text("")));
        let command = ShellCommand { line, limit: ONLY_IF_LIMIT };
        let (containers, container) = (self.context.containers.clone(), engine.container.clone());
        let result = spawn_command(containers, container, command);
        self.condition = Some(RunningCondition { claim, group, result });
        SessionEvent::Prompted
    }

    /// The command has ended: the run begins, or is over.
    pub async fn handle_condition_result(&mut self, result: Result<CommandResult>) -> Option<SessionEvent> {
        let RunningCondition { claim, group, .. } = self.condition.take()?;
        let turn = self.turn.as_ref().filter(|turn| turn.id == claim.turn)?;
        if turn.is_stopped() {
            return Some(self.end_stopped_turn().await);
        }
        if self.machine.is_cancelled() {
            return Some(self.fail_turn(Trouble::TurnTooLong).await);
        }
        let CommandResult { end, output } = match result {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!("Failed to run the command of a task: {error:#}");
                if !matches!(timeout(PING_LIMIT, self.context.containers.ping_docker()).await, Ok(Ok(()))) {
                    return Some(self.fail_turn(Trouble::NoDocker).await);
                }
                CommandResult { end: CommandEnd::Unknown, output: String::new() }
            }
        };
        let verdict = match self.context.store.has_running_run(claim.turn).await {
            // Its task was cancelled meanwhile.
            Ok(false) => RunVerdict::Skipped,
            Ok(true) => judge_command(end),
            Err(error) => {
                tracing::error!("Failed to look for the run of a task: {error:#}");
                return Some(SessionEvent::Lost(Trouble::Internal));
            }
        };
        match verdict {
            RunVerdict::Begins => match self.begin_checked_run(group, claim, output).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::error!("Failed to claim what waits beside a task: {error:#}");
                    Some(SessionEvent::Lost(Trouble::Internal))
                }
            },
            RunVerdict::Skipped => {
                tracing::info!(turn = claim.turn.0, "The run of a task does not begin");
                Some(SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Skipped, Vec::new()).await))
            }
            RunVerdict::Fails(why) => Some(self.fail_checked_run(&claim, why).await),
        }
    }

    async fn begin_checked_run(&mut self, group: Group, mut claim: Claim, output: String) -> Result<()> {
        for message in &mut claim.messages {
            if let PromptAuthor::Task { output: printed, .. } = &mut message.author {
                *printed = Some(output.clone()).filter(|output| !output.is_empty());
            }
        }
        if !claim.session.is_of_run() {
            match self.context.store.claim_beside_run(claim, &group.chat).await? {
                Some(more) => claim = more,
                // The owner has stopped it in this moment, of which the session is told next.
                None => return Ok(()),
            }
        }
        self.prompt_claim(&group, claim).await;
        Ok(())
    }

    async fn fail_checked_run(&mut self, claim: &Claim, why: RunReason) -> SessionEvent {
        tracing::warn!(turn = claim.turn.0, why = why.name(), "The command of a task has failed");
        if let Err(error) = self.context.store.record_run_reason(claim.turn, why).await {
            tracing::warn!("Failed to note why a task did not run: {error:#}");
        }
        let settings = &self.context.settings;
        let (task, text) = match claim.messages.first().map(|message| (&message.author, &message.text)) {
            Some((PromptAuthor::Task { id, .. }, text)) => (*id, text.as_str()),
            Some((PromptAuthor::Kai | PromptAuthor::Host | PromptAuthor::Person { .. }, _)) | None => (0, ""),
        };
        let limit = ONLY_IF_LIMIT.as_secs();
        let notice = notices::task_condition_failed_notice(settings.lang, task, text, why, limit);
        let finish = TurnOutcome::Hopeless { notice: settings.with_reply_prefix(notice) };
        SessionEvent::TurnOver(self.finish_current_turn(finish, Vec::new()).await)
    }
}
