//! The life of a group's engine: launched, stopped if it takes too much, lost, killed, ended.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, timeout};

use super::driver::{LaunchReason, SessionDriver};
use super::images::Vision;
use super::launch::{failure_from_error, launch_engine_with_retry};
use super::machine::SessionEvent;
use super::mailbox::ReportKind;
use super::share::Overuse;
use super::token_limit::group_within_token_limit;
use crate::agent::{AgentEvent, EngineLoss};
use crate::container::{ContainerExit, Containers};
use crate::notices;
use crate::store::EngineSession;
use crate::types::{Authorization, Failure, Group, Trouble, WebTraffic};

/// How long the pipes of an ended container are read for what they still hold.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long Docker may take to remove a container before it is asked again.
pub const KILL_LIMIT: Duration = Duration::from_secs(30);

impl<C: Containers> SessionDriver<C> {
    pub async fn launch_engine(&mut self, reason: LaunchReason) -> Option<SessionEvent> {
        let began = Instant::now();
        let group = match reason {
            LaunchReason::Waits => self.group_to_answer().await,
            LaunchReason::Expected => group_within_token_limit(&self.context, &self.name).await,
        };
        let launched = match group {
            Ok(Some(group)) => match self.login_failure() {
                Some(failure) => Err(failure),
                None => match self.prepare_next_session(&group).await {
                    Ok(session) => launch_engine_with_retry(&self.context, group, session).await,
                    Err(error) => Err(failure_from_error(&self.context, &error)),
                },
            },
            Ok(None) => return Some(SessionEvent::NothingToDo),
            Err(error) => Err(failure_from_error(&self.context, &error)),
        };
        match launched {
            Ok(mut engine) => {
                if std::mem::take(&mut self.is_next_engine_blind) {
                    engine.vision = Vision::Blind;
                }
                let took_ms = began.elapsed().as_millis();
                tracing::info!(container = engine.container, took_ms, "The container runs");
                self.engine = Some(engine);
                None
            }
            Err(Failure { trouble, detail }) => {
                tracing::warn!(?trouble, "Failed to launch the container: {detail}");
                if trouble == Trouble::NoDocker {
                    self.send_report(ReportKind::NoDocker).await;
                }
                Some(SessionEvent::Lost(trouble))
            }
        }
    }

    /// The session that the next engine goes on with.
    async fn prepare_next_session(&mut self, group: &Group) -> Result<EngineSession> {
        let session = self.context.store.next_engine_session(group).await?;
        self.memory.set_aside_doubted_memory(&self.context, group, &session).await?;
        Ok(session)
    }

    /// Without a login no engine is started: it would only learn that there is none.
    fn login_failure(&self) -> Option<Failure> {
        self.context.accounts.reload_if_changed(self.context.clock.now());
        match self.context.accounts.usable_authorization() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(Failure::new(Trouble::NotLoggedIn, why)),
        }
    }

    /// The agent takes more of the machine than one chat's share: its container goes, and its chat is told.
    pub async fn stop_overusing_agent(&mut self, overuse: Overuse) -> SessionEvent {
        tracing::warn!(?overuse, "The agent takes too much of this machine and is stopped");
        let trouble = overuse.trouble();
        if let Err(error) =
            self.context.store.record_agent_stop(&self.name, trouble, self.context.clock.now()).await
        {
            tracing::warn!("Failed to note that an agent was stopped: {error:#}");
        }
        // If a turn runs, its end tells the chat.
        if self.machine.is_idle()
            && let Ok(Some(group)) = self.current_group().await
        {
            let settings = &self.context.settings;
            let sentence =
                settings.with_reply_prefix(notices::background_stopped_notice(settings.lang, trouble));
            self.context.try_notify_chat(&group.chat, &sentence).await;
        }
        SessionEvent::Lost(trouble)
    }

    /// The group, if it still has something to answer and is allowed to.
    async fn group_to_answer(&self) -> Result<Option<Group>> {
        let Some(group) = group_within_token_limit(&self.context, &self.name).await? else { return Ok(None) };
        Ok(self.context.store.has_pending_calls(&group).await?.then_some(group))
    }

    /// Removes the container. Reports `Ended` only when the container is certainly gone.
    pub async fn kill_container(&mut self) -> Option<SessionEvent> {
        let Some(engine) = &self.engine else { return Some(SessionEvent::Ended) };
        match timeout(KILL_LIMIT, self.context.containers.remove_container(&engine.container)).await {
            Ok(Ok(())) => {
                self.flush_web_traffic().await;
                self.engine = None;
                Some(SessionEvent::Ended)
            }
            Ok(Err(error)) => {
                tracing::warn!("Failed to remove the container, will try again: {error:#}");
                None
            }
            Err(_) => {
                tracing::warn!("Docker did not remove the container in time, will try again");
                None
            }
        }
    }

    /// The container has ended. What its pipes still hold is taken in first.
    pub async fn handle_container_exit(&mut self, exit: ContainerExit) -> Option<SessionEvent> {
        let engine = self.engine.as_mut()?;
        let container = engine.container.clone();
        let mut rest = Vec::new();
        let read_rest = async {
            while let Some(event) = engine.events.recv().await {
                rest.push(event);
            }
        };
        timeout(DRAIN_LIMIT, read_rest).await.ok();
        let is_loss_reported = rest.iter().any(|event| matches!(event, AgentEvent::Gone(_)));
        self.handle_agent_events(rest).await;
        if !is_loss_reported {
            self.events.push_back(SessionEvent::Lost(Trouble::EngineDied));
            self.drain_events().await;
        }
        tracing::info!(container, ?exit, "The container has ended");
        self.flush_web_traffic().await;
        match exit {
            ContainerExit::Code(_) => self.engine.take().map(|_| SessionEvent::Ended),
            // Docker has lost sight of it. Only its removal is certain.
            ContainerExit::Unknown if self.engine.is_some() => self.kill_container().await,
            ContainerExit::Unknown => None,
        }
    }

    pub fn classify_engine_loss(&self, gone: &EngineLoss) -> Trouble {
        match gone {
            EngineLoss::Ended => Trouble::EngineDied,
            EngineLoss::NeverReady { said } => {
                tracing::warn!("The engine ended before it was ready");
                tracing::debug!(said, "What it said instead");
                Trouble::NeverReady
            }
            EngineLoss::Garbage { said } => {
                tracing::warn!("The engine printed something that is not its protocol");
                tracing::debug!(said, "What the engine printed");
                Trouble::EngineGarbage
            }
        }
    }

    /// Records what went over the web since the last time. A failure is worth no second try.
    pub async fn flush_web_traffic(&self) {
        let Some(engine) = &self.engine else { return };
        let moved = engine.egress.take_web_traffic();
        if moved == WebTraffic::default() {
            return;
        }
        let today = self.context.clock.now().to_zoned(self.context.settings.zone.clone()).date();
        if let Err(error) = self.context.store.add_web_traffic(&self.name, today, moved).await {
            tracing::warn!("Failed to note what went over the web: {error:#}");
        }
    }
}
