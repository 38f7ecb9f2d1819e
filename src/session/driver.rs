//! Performs what the machine decides for one group. Alone owns the group's container, its engine and its
//! turn.
//!
//! One task, one mailbox. Everything that happens becomes an event in one queue. The machine decides on it,
//! the effects are carried out one after the other, and what they lead to goes to the queue's end. What the
//! engine says is taken in only when the queue is empty. Never decides by itself when to do what.

use std::collections::VecDeque;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::context::SessionContext;
use super::images;
use super::launch::RunningEngine;
use super::machine::{CancelReason, Effect, SessionEvent, SessionMachine};
use super::mailbox::{ReportKind, SessionCommand, SessionReport};
use super::memory::MemoryTrust;
use super::progress::{ProgressSchedule, ProgressUpdate};
use super::running_turn::RunningTurn;
use super::share::Overuse;
use super::task_command::RunningCondition;
use super::token_limit::{TurnTokenLimit, group_within_token_limit};
use super::tool_calls;
use super::turn::{Turn, TurnWork};
use super::whole_texts;
use crate::agent::{AgentEvent, EngineInput, Request};
use crate::bridge::{Order, Typing};
use crate::clock::sleep_until_or_never;
use crate::container::{ContainerExit, Containers};
use crate::notices;
use crate::render::prompt::Prompt;
use crate::store::{Claim, TurnOutcome};
use crate::types::{ChatId, Group, GroupName, TurnId};

/// Runs the session of a group until its mailbox is closed and its container is gone.
#[tracing::instrument(name = "session", skip_all, fields(group = %name))]
pub async fn run_session<C: Containers>(
    context: SessionContext<C>,
    name: GroupName,
    mut commands: mpsc::Receiver<SessionCommand>,
    reports: mpsc::Sender<SessionReport>,
) {
    let machine = SessionMachine::new(context.settings.time_limits);
    let mut driver = SessionDriver {
        context,
        name,
        reports,
        machine,
        events: VecDeque::new(),
        engine: None,
        is_next_engine_blind: false,
        memory: MemoryTrust::trusted(),
        turn: None,
        condition: None,
        progress: None,
        is_mailbox_closed: false,
    };
    while !driver.machine.has_stopped() {
        let event = tokio::select! {
            command = commands.recv(), if !driver.is_mailbox_closed => Some(match command {
                Some(SessionCommand::Work) => SessionEvent::Work,
                Some(SessionCommand::SlotGranted) => SessionEvent::SlotGranted,
                Some(SessionCommand::SlotGrantedAhead) => SessionEvent::SlotGrantedAhead,
                Some(SessionCommand::SlotWanted) => SessionEvent::SlotWanted,
                Some(SessionCommand::TryAgain) => SessionEvent::TryAgain,
                Some(SessionCommand::StopTurn(turn)) => match driver.mark_turn_stopped(turn) {
                    Some(event) => event,
                    None => continue,
                },
                None => driver.close_mailbox().await,
            }),
            signal = next_engine_signal(&mut driver.engine) => driver.handle_engine_signal(signal).await,
            result = RunningCondition::wait_for_result(&mut driver.condition) => {
                driver.handle_condition_result(result).await
            }
            () = sleep_until_or_never(driver.machine.next_deadline()) => Some(SessionEvent::Tick),
            () = sleep_until_or_never(driver.progress.as_ref().map(ProgressSchedule::next_update_at)) => {
                driver.send_progress_update().await
            }
        };
        driver.events.extend(event);
        driver.drain_events().await;
    }
}

pub struct SessionDriver<C> {
    pub context: SessionContext<C>,
    pub name: GroupName,
    pub reports: mpsc::Sender<SessionReport>,
    pub machine: SessionMachine,
    /// What has happened and the machine has not decided on yet, oldest first.
    pub events: VecDeque<SessionEvent>,
    pub engine: Option<RunningEngine>,
    /// The next engine is shown no pictures: perhaps the model's API has refused one of them.
    pub is_next_engine_blind: bool,
    pub memory: MemoryTrust,
    pub turn: Option<Turn>,
    /// The command that says whether the turn goes on.
    pub condition: Option<RunningCondition>,
    pub progress: Option<ProgressSchedule>,
    /// The service stops, and nothing new begins.
    is_mailbox_closed: bool,
}

/// Why an engine is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchReason {
    /// Something waits to be answered.
    Waits,
    /// Somebody may ask for something soon.
    Expected,
}

/// What an engine's process, container or watch reports.
enum EngineSignal {
    Agent(AgentEvent),
    ContainerEnded(ContainerExit),
    Overuse(Overuse),
    /// The running turn has used all the tokens that it may.
    TurnTokensUsedUp,
}

/// The next thing that the engine reports; never resolves without an engine.
async fn next_engine_signal(engine: &mut Option<RunningEngine>) -> EngineSignal {
    let Some(engine) = engine else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(event) = engine.events.recv() => EngineSignal::Agent(event),
        exit = RunningEngine::wait_for_exit(&mut engine.exit) => EngineSignal::ContainerEnded(exit),
        overuse = RunningEngine::wait_for_overuse(&mut engine.overuse) => EngineSignal::Overuse(overuse),
        () = engine.egress.wait_for_turn_tokens() => EngineSignal::TurnTokensUsedUp,
    }
}

impl<C: Containers> SessionDriver<C> {
    /// Lets the machine decide on each event and carries the effects out. They lead to more events; returns
    /// when no event is left.
    pub async fn drain_events(&mut self) {
        let (was_idle, was_ahead) = (self.machine.is_idle(), self.machine.is_started_ahead());
        loop {
            while let Some(event) = self.events.pop_front() {
                for effect in self.machine.decide_effects(event, Instant::now()) {
                    tracing::trace!(?event, ?effect, "The session moves on");
                    let led_to = self.perform_effect(effect).await;
                    self.events.extend(led_to);
                }
            }
            if !(self.machine.is_idle() && self.engine.as_ref().is_some_and(RunningEngine::is_of_run)) {
                break;
            }
            // Nobody else is ever answered in the session of a run.
            self.events.push_back(SessionEvent::SessionOver);
        }
        match (was_idle, self.machine.is_idle()) {
            (false, true) => self.send_report(ReportKind::Idle).await,
            (true, false) => self.send_report(ReportKind::Busy).await,
            (true, true) | (false, false) => {}
        }
        if was_ahead && !self.machine.is_started_ahead() {
            let used = self.machine.is_busy();
            self.send_report(if used { ReportKind::AheadUsed } else { ReportKind::AheadInVain }).await;
        }
    }

    async fn perform_effect(&mut self, effect: Effect) -> Option<SessionEvent> {
        match effect {
            Effect::AskForSlot => {
                self.send_report(ReportKind::SlotAsked).await;
                None
            }
            Effect::GiveSlotBack => {
                self.send_report(ReportKind::SlotReturned).await;
                None
            }
            Effect::Launch => self.launch_engine(LaunchReason::Waits).await,
            Effect::LaunchAhead => self.launch_engine(LaunchReason::Expected).await,
            // A session that stops begins nothing: an engine that is asked now would do its work for nobody.
            Effect::Prompt if self.is_mailbox_closed => Some(SessionEvent::NothingToDo),
            Effect::Steer if self.is_mailbox_closed => None,
            Effect::Prompt => Some(self.prompt_engine().await.unwrap_or_else(|error| {
                tracing::error!("Failed to claim what waits: {error:#}");
                SessionEvent::ClaimFailed
            })),
            Effect::Steer => self.steer_turn().await.unwrap_or_else(|error| {
                tracing::error!("Failed to steer: {error:#}");
                None
            }),
            Effect::Cancel(reason) => {
                match reason {
                    CancelReason::TookTooLong => tracing::warn!("The turn takes too long and is cancelled"),
                    CancelReason::UsedUpTokens => {
                        tracing::warn!("The turn has used up its tokens and is cancelled");
                    }
                    CancelReason::StoppedByOwner => tracing::info!("The owner has stopped the turn"),
                }
                self.send_engine_request(Request::Cancel);
                None
            }
            Effect::EndStoppedTurn => Some(self.end_stopped_turn().await),
            Effect::FailTurn(trouble) => match self.end_turn_over_tokens().await {
                Some(event) => Some(event),
                None => Some(self.fail_turn(trouble).await),
            },
            Effect::FailWaiting(trouble) => Some(self.fail_waiting_rows(trouble).await),
            Effect::ReturnTurn => {
                self.finish_current_turn(TurnOutcome::Returned, Vec::new()).await;
                None
            }
            Effect::CloseEngine => {
                self.send_engine_request(Request::Close);
                None
            }
            Effect::Kill => self.kill_container().await,
        }
    }

    /// Notes that the owner has stopped the running turn, if it is this one: it may have ended by itself, and
    /// the next one has begun.
    fn mark_turn_stopped(&mut self, stopped: TurnId) -> Option<SessionEvent> {
        let turn = self.turn.as_mut().filter(|turn| turn.id == stopped)?;
        turn.mark_stopped();
        if let Some(engine) = &self.engine {
            engine.running_turn.send_replace(None);
        }
        Some(SessionEvent::TurnStopped)
    }

    async fn handle_engine_signal(&mut self, signal: EngineSignal) -> Option<SessionEvent> {
        match signal {
            EngineSignal::Agent(event) => self.handle_agent_event(event).await,
            EngineSignal::ContainerEnded(exit) => self.handle_container_exit(exit).await,
            EngineSignal::Overuse(overuse) => Some(self.stop_overusing_agent(overuse).await),
            EngineSignal::TurnTokensUsedUp => {
                let turn = self.turn.as_mut()?;
                turn.record_tokens_used_up(self.engine.as_ref()?.turn_tokens?);
                Some(SessionEvent::TurnTokensUsedUp)
            }
        }
    }

    /// Takes in what the engine says. What concerns the machine comes back as an event.
    async fn handle_agent_event(&mut self, event: AgentEvent) -> Option<SessionEvent> {
        match event {
            AgentEvent::Ready => {
                tracing::debug!("The engine is ready");
                Some(SessionEvent::EngineReady)
            }
            AgentEvent::StepBegan => {
                self.turn.as_mut()?.start_step();
                Some(SessionEvent::SteersWelcome)
            }
            AgentEvent::AnswerText(piece) => {
                self.turn.as_mut()?.append_text(&piece);
                None
            }
            AgentEvent::SteerTaken => {
                self.turn.as_mut()?.acknowledge_steer();
                None
            }
            AgentEvent::Working { tool } => {
                tracing::debug!(tool, "The engine uses a tool");
                None
            }
            AgentEvent::ToolCalled(call) => {
                tracing::debug!(tool = call.tool.tool_name(), "The engine calls a tool of the host");
                if let Some(engine) = &self.engine {
                    tool_calls::forward_engine_call(engine.agent.clone(), &engine.tool_calls, call);
                }
                None
            }
            AgentEvent::TurnOver(end) => self.handle_turn_end(end).await,
            AgentEvent::CompactionOver(end) => {
                let turn = self.turn.as_ref().filter(|turn| turn.work == TurnWork::Compaction)?;
                Some(match turn.is_stopped() {
                    true => self.end_stopped_turn().await,
                    false => self.end_compaction(end).await,
                })
            }
            AgentEvent::Gone(gone) => Some(SessionEvent::Lost(self.classify_engine_loss(&gone))),
        }
    }

    /// Takes in what the engine has said, in order: all that one thing leads to comes before the next.
    pub async fn handle_agent_events(&mut self, said: Vec<AgentEvent>) {
        for agent_event in said {
            let event = self.handle_agent_event(agent_event).await;
            self.events.extend(event);
            self.drain_events().await;
        }
    }

    /// Takes in what the engine has said already before the session stops: a whole answer may be among it.
    async fn close_mailbox(&mut self) -> SessionEvent {
        self.is_mailbox_closed = true;
        if let Some(engine) = &mut self.engine {
            let said = std::iter::from_fn(|| engine.events.try_recv().ok()).collect();
            self.handle_agent_events(said).await;
        }
        SessionEvent::Stop
    }

    /// Claims what waits and hands it to the engine as one prompt.
    async fn prompt_engine(&mut self) -> Result<SessionEvent> {
        let group = group_within_token_limit(&self.context, &self.name).await?;
        let Some(group) = group else { return Ok(SessionEvent::NothingToDo) };
        let Some(engine) = &mut self.engine else { return Ok(SessionEvent::NothingToDo) };
        let session = self.context.store.next_engine_session(&group).await?;
        if engine.is_stale(&group, &session, &self.context.paths) {
            return Ok(SessionEvent::PromptChanged);
        }
        let (chosen_engine, now) = (self.context.settings.engine_for_group(&group), self.context.clock.now());
        if !session.is_of_run()
            && let Some(turn) = self.context.store.begin_compaction(&group, chosen_engine, now).await?
        {
            return Ok(self.begin_compaction(&group, turn));
        }
        let Some(mut claim) = self.context.store.claim_pending_rows(&group, chosen_engine, now).await? else {
            return Ok(SessionEvent::NothingToDo);
        };
        if !engine.is_in_session(&claim.session) {
            // What was to come next was dropped in this moment.
            self.turn = Some(Turn::from_claim(&claim, &group, &EngineInput::from_text("")));
            self.finish_current_turn(TurnOutcome::Returned, Vec::new()).await;
            return Ok(SessionEvent::PromptChanged);
        }
        if let Some(line) = claim.only_if.take() {
            return Ok(self.begin_condition(group, claim, line));
        }
        self.prompt_claim(&group, claim).await;
        Ok(SessionEvent::Prompted)
    }

    /// Hands a claim to the engine as one prompt.
    pub async fn prompt_claim(&mut self, group: &Group, mut claim: Claim) {
        let Some(engine) = &mut self.engine else { return };
        engine.has_worked = true;
        // A failure from before says nothing of this turn.
        engine.egress.take_failure();
        // What a person has called for may take what the group may.
        let left_to_task = claim.tokens_left.filter(|_| claim.called_by.is_none());
        engine.turn_tokens = TurnTokenLimit::first_reached(group.turn_tokens, left_to_task);
        engine.egress.begin_turn(engine.turn_tokens.map(TurnTokenLimit::tokens));
        self.context.accounts.reload_if_changed(self.context.clock.now());
        tracing::info!(turn = claim.turn.0, messages = claim.messages.len(), "A turn begins");
        self.send_read_receipts(&group.chat, &claim);
        let input = self.build_input(group, &mut claim).await;
        self.turn = Some(Turn::from_claim(&claim, group, &input));
        if let Some(engine) = &self.engine {
            let turn = RunningTurn::from_claim(&claim, &group.chat);
            engine.running_turn.send_replace(Some(turn));
        }
        self.progress = Some(ProgressSchedule::new(Instant::now()));
        self.send_engine_request(Request::Prompt(input));
    }

    /// What a claim says to the engine, with the images that the model can see.
    async fn build_input(&mut self, group: &Group, claim: &mut Claim) -> EngineInput {
        let (zone, folder) = (&self.context.settings.zone, self.context.paths.group_folder(&self.name));
        whole_texts::save_cut_texts(&self.context.store, folder.clone(), zone, claim).await;
        let names = self.assistant_names(group).await;
        let text = Prompt { zone, names: &names, earlier: &claim.earlier, messages: &claim.messages }
            .render_prompt();
        let images = match &mut self.engine {
            Some(engine) => images::images_for(folder, &claim.messages, &mut engine.vision).await,
            None => Vec::new(),
        };
        EngineInput { text, images }
    }

    /// What calls Kai in this chat: its trigger, and the account as WhatsApp writes a mention of it.
    async fn assistant_names(&self, group: &Group) -> Vec<String> {
        let account = self.context.store.linked_account().await.unwrap_or_else(|error| {
            tracing::warn!("Failed to look for the account's names: {error:#}");
            None
        });
        let ids = account.into_iter().flat_map(|account| [Some(account.id), account.lid]).flatten();
        let digits = ids.filter_map(|id| Some(id.as_str().split_once('@')?.0.to_owned()));
        digits.chain([group.trigger_or(&self.context.settings.assistant).to_owned()]).collect()
    }

    /// Lets the senders see that their messages were read. A failure does not matter.
    fn send_read_receipts(&self, chat: &ChatId, claim: &Claim) {
        for (sender, messages) in &claim.senders {
            let (chat, sender, messages) = (chat.clone(), sender.clone(), messages.clone());
            self.context.orders.try_send(Order::Read { chat, sender, messages }).ok();
        }
    }

    /// Claims what has come since, for the running turn. It counts as read only when the engine's receipt
    /// comes.
    async fn steer_turn(&mut self) -> Result<Option<SessionEvent>> {
        let Some(turn) = &self.turn else { return Ok(None) };
        let (id, chat) = (turn.id, turn.chat.clone());
        let Some(group) = self.current_group().await? else { return Ok(None) };
        let session = self.context.store.chat_session(&self.name).await?;
        if self.engine.as_ref().is_none_or(|engine| !engine.is_in_session(&session)) {
            // It is the next turn's: a task runs by itself, or the owner has changed to another session.
            return Ok(None);
        }
        let Some(mut claim) = self.context.store.claim_more_rows(id, &session, &chat).await? else {
            return Ok(None);
        };
        tracing::info!(turn = id.0, messages = claim.messages.len(), "More is told to the running turn");
        self.send_read_receipts(&chat, &claim);
        let input = self.build_input(&group, &mut claim).await;
        let more = RunningTurn::from_claim(&claim, &chat);
        if let (Some(engine), false) = (&mut self.engine, more.is_of_task()) {
            // A person has called for it now, perhaps in the turn of a task.
            engine.turn_tokens = TurnTokenLimit::first_reached(group.turn_tokens, None);
            engine.egress.set_turn_limit(engine.turn_tokens.map(TurnTokenLimit::tokens));
            engine.running_turn.send_replace(Some(more));
        }
        if let Some(turn) = &mut self.turn {
            turn.record_steer(claim, &input);
        }
        self.send_engine_request(Request::Steer(input));
        Ok(None)
    }

    /// Shows the chat that its turn goes on, unless the group was removed meanwhile.
    async fn send_progress_update(&mut self) -> Option<SessionEvent> {
        let now = Instant::now();
        let progress = self.progress.as_mut()?;
        let show = progress.take_due_update(now)?;
        let minutes = progress.minutes_since_start(now);
        if let Ok(None) = self.current_group().await {
            tracing::info!("The group was removed; its turn ends");
            return Some(SessionEvent::Removed);
        }
        let Turn { chat, .. } = self.turn.as_ref()?;
        match show {
            ProgressUpdate::Typing => {
                self.context.orders.try_send(Order::Typing { chat: chat.clone(), shown: Typing::On }).ok();
            }
            ProgressUpdate::Progress(nth) => {
                let settings = &self.context.settings;
                let line = format!(
                    "{}{}",
                    settings.reply_prefix,
                    notices::still_working_notice(settings.lang, nth, minutes)
                );
                self.context.try_notify_chat(chat, &line).await;
            }
        }
        None
    }

    pub fn send_engine_request(&self, request: Request) {
        if let Some(engine) = &self.engine {
            engine.agent.queue_request(request);
        }
    }

    /// The group as it is registered now, if it was not removed.
    pub async fn current_group(&self) -> Result<Option<Group>> {
        self.context.store.group_by_name(&self.name).await
    }

    pub async fn send_report(&self, kind: ReportKind) {
        // Dispatch outlives its sessions. If it is gone, there is nobody left to tell.
        self.reports.send(SessionReport { group: self.name.clone(), kind }).await.ok();
    }
}
