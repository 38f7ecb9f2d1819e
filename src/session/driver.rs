//! Performs what the machine decides, for one group: the only owner of its container, engine and turn.
//!
//! One task, one mailbox. Everything that happens becomes an event of the machine, its effects are carried
//! out one after the other, and what they lead to is the next event. Never decides by itself when to do what.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::SessionContext;
use super::ending::finish_turn_with_retry;
use super::images::{self, Vision};
use super::launch::{HasWorked, RunningEngine, failure_from_error, is_disk_full, launch_engine_with_retry};
use super::machine::{AfterTurn, Effect, SessionEvent, SessionMachine};
use super::mailbox::{ReportKind, SessionCommand, SessionReport};
use super::memory::MemoryTrust;
use super::progress::{ProgressSchedule, ProgressUpdate};
use super::replies::{QuotePlacement, build_replies};
use super::share::Overuse;
use super::token_limit::group_within_token_limit;
use super::troubles::{is_retryable_trouble, may_come_from_memory};
use super::turn::{AnswerLength, Turn};
use super::whole_texts;
use crate::agent::{AgentEvent, EngineInput, EngineLoss, Request, TurnEnd};
use crate::bridge::{Order, Typing};
use crate::clock::sleep_until_or_never;
use crate::container::{ContainerExit, Containers};
use crate::notices;
use crate::render::prompt::Prompt;
use crate::store::{Claim, MAX_ATTEMPTS, PendingAfterTurn, Reply, TurnEnding, TurnOutcome};
use crate::types::{Authorization, ChatId, Failure, Group, GroupName, Outage, Role, Trouble, WebTraffic};

/// What an ended container may still have in its pipes is read for this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long Docker may take to remove a container before it is asked again.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Runs the session of a group until its mailbox is closed and its container is gone.
#[tracing::instrument(name = "session", skip_all, fields(group = %name))]
pub async fn run_session<C: Containers>(
    host: SessionContext<C>,
    name: GroupName,
    mut commands: mpsc::Receiver<SessionCommand>,
    reports: mpsc::Sender<SessionReport>,
) {
    let machine = SessionMachine::new(host.settings.time_limits);
    let mut driver = Driver {
        host,
        name,
        reports,
        machine,
        engine: None,
        next_vision: NextVision::AsConfigured,
        memory: MemoryTrust::trusted(),
        turn: None,
        progress: None,
        mailbox: MailboxState::Open,
    };
    while !driver.machine.has_stopped() {
        let event = tokio::select! {
            command = commands.recv(), if driver.mailbox == MailboxState::Open => Some(match command {
                Some(SessionCommand::Work) => SessionEvent::Work,
                Some(SessionCommand::SlotGranted) => SessionEvent::SlotGranted,
                Some(SessionCommand::SlotGrantedAhead) => SessionEvent::SlotGrantedAhead,
                Some(SessionCommand::SlotWanted) => SessionEvent::SlotWanted,
                Some(SessionCommand::TryAgain) => SessionEvent::TryAgain,
                None => {
                    driver.mailbox = MailboxState::Closed;
                    driver.drain_engine_events().await;
                    SessionEvent::Stop
                }
            }),
            news = next_engine_signal(&mut driver.engine) => driver.handle_engine_signal(news).await,
            () = sleep_until_or_never(driver.machine.next_deadline()) => Some(SessionEvent::Tick),
            () = sleep_until_or_never(driver.progress.as_ref().map(ProgressSchedule::next_update_at)) => {
                driver.send_progress_update().await
            }
        };
        if let Some(event) = event {
            driver.apply_event(event).await;
        }
    }
}

impl From<PendingAfterTurn> for AfterTurn {
    fn from(finished: PendingAfterTurn) -> Self {
        match finished {
            PendingAfterTurn::NothingPending => Self::Nothing,
            PendingAfterTurn::MorePending => Self::More,
            PendingAfterTurn::RetryPending { attempt } => Self::Retry { attempt },
            PendingAfterTurn::KeptPending(outage) => Self::Outage(outage),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MailboxState {
    Open,
    Closed,
}

/// What comes from the engine's side.
enum EngineSignal {
    Agent(AgentEvent),
    ContainerEnded(ContainerExit),
    Overuse(Overuse),
}

/// The next thing that an engine reports; never, where there is none.
async fn next_engine_signal(engine: &mut Option<RunningEngine>) -> EngineSignal {
    let Some(engine) = engine else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(event) = engine.events.recv() => EngineSignal::Agent(event),
        exit = RunningEngine::wait_for_exit(&mut engine.exit) => EngineSignal::ContainerEnded(exit),
        overuse = RunningEngine::wait_for_overuse(&mut engine.overuse) => EngineSignal::Overuse(overuse),
    }
}

struct Driver<C> {
    host: SessionContext<C>,
    name: GroupName,
    reports: mpsc::Sender<SessionReport>,
    machine: SessionMachine,
    engine: Option<RunningEngine>,
    next_vision: NextVision,
    memory: MemoryTrust,
    turn: Option<Turn>,
    progress: Option<ProgressSchedule>,
    mailbox: MailboxState,
}

/// Why an engine is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaunchReason {
    /// Something waits to be answered.
    Waits,
    /// Somebody may ask for something soon.
    Expected,
}

/// What the next engine is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextVision {
    AsConfigured,
    /// No pictures: perhaps the model's API has refused one of them.
    Blind,
}

impl<C: Containers> Driver<C> {
    /// Lets the machine decide on an event and carries its effects out, and those of what they lead to.
    async fn apply_event(&mut self, event: SessionEvent) {
        let (was_idle, was_ahead) = (self.machine.is_idle(), self.machine.is_started_ahead());
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.decide_effects(event, Instant::now()) {
                tracing::trace!(?event, ?effect, "The session moves on");
                events.extend(self.perform_effect(effect).await);
            }
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
            // Who stops begins nothing: an engine that is asked now would do its work for nobody.
            Effect::Prompt if self.mailbox == MailboxState::Closed => Some(SessionEvent::NothingToDo),
            Effect::Steer if self.mailbox == MailboxState::Closed => None,
            Effect::Prompt => Some(self.prompt_engine().await.unwrap_or_else(|error| {
                tracing::error!("Failed to claim what waits: {error:#}");
                SessionEvent::ClaimFailed
            })),
            Effect::Steer => self.steer_turn().await.unwrap_or_else(|error| {
                tracing::error!("Failed to steer: {error:#}");
                None
            }),
            Effect::Cancel => {
                tracing::warn!("The turn takes too long and is cancelled");
                self.send_engine_request(Request::Cancel);
                None
            }
            Effect::FailTurn(trouble) => Some(self.fail_turn(trouble).await),
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

    /// Takes in what the engine says; what concerns the machine comes back as an event.
    async fn handle_engine_signal(&mut self, news: EngineSignal) -> Option<SessionEvent> {
        let event = match news {
            EngineSignal::Agent(event) => event,
            EngineSignal::ContainerEnded(exit) => return self.handle_container_exit(exit).await,
            EngineSignal::Overuse(overuse) => return Some(self.stop_overusing_agent(overuse).await),
        };
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
            AgentEvent::TurnOver(end) => self.handle_turn_end(end).await,
            AgentEvent::Gone(gone) => Some(SessionEvent::Lost(self.classify_engine_loss(&gone))),
        }
    }

    /// What the engine has said already is heard before the session stops: a whole answer may be among it.
    async fn drain_engine_events(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let here: Vec<AgentEvent> = std::iter::from_fn(|| engine.events.try_recv().ok()).collect();
        for event in here {
            if let Some(event) = self.handle_engine_signal(EngineSignal::Agent(event)).await {
                self.apply_event(event).await;
            }
        }
    }

    async fn launch_engine(&mut self, need: LaunchReason) -> Option<SessionEvent> {
        let began = Instant::now();
        let group = match need {
            LaunchReason::Waits => self.group_to_answer().await,
            LaunchReason::Expected => group_within_token_limit(&self.host, &self.name).await,
        };
        let launched = match group {
            Ok(Some(group)) => match self.login_failure() {
                Some(failure) => Err(failure),
                None => match self.memory.set_aside_doubted_memory(&self.host, &group).await {
                    Ok(()) => launch_engine_with_retry(&self.host, group).await,
                    Err(error) => Err(failure_from_error(&self.host, &error)),
                },
            },
            Ok(None) => return Some(SessionEvent::NothingToDo),
            Err(error) => Err(failure_from_error(&self.host, &error)),
        };
        match launched {
            Ok(mut engine) => {
                if std::mem::replace(&mut self.next_vision, NextVision::AsConfigured) == NextVision::Blind {
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

    /// The agent takes more of the machine than is one chat's share: its container goes, and its chat is told.
    async fn stop_overusing_agent(&mut self, overuse: Overuse) -> SessionEvent {
        tracing::warn!(?overuse, "The agent takes too much of this machine and is stopped");
        let trouble = overuse.trouble();
        if let Err(error) =
            self.host.store.record_agent_stop(&self.name, trouble, self.host.clock.now()).await
        {
            tracing::warn!("Failed to note that an agent was stopped: {error:#}");
        }
        // With a turn, its end tells.
        if self.machine.is_idle()
            && let Ok(Some(group)) = self.current_group().await
        {
            let settings = &self.host.settings;
            let sentence =
                settings.with_reply_prefix(notices::background_stopped_notice(settings.lang, trouble));
            self.host.try_notify_chat(&group.chat, &sentence).await;
        }
        SessionEvent::Lost(trouble)
    }

    /// An engine that is started without a login would only learn that there is none.
    fn login_failure(&self) -> Option<Failure> {
        self.host.login.reload_if_changed(self.host.clock.now());
        match &*self.host.login.watch_authorization().borrow() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(Failure::new(Trouble::NotLoggedIn, why)),
        }
    }

    /// Claims what waits and hands it to the engine as one prompt.
    async fn prompt_engine(&mut self) -> Result<SessionEvent> {
        let group = group_within_token_limit(&self.host, &self.name).await?;
        let Some(group) = group else { return Ok(SessionEvent::NothingToDo) };
        let Some(engine) = &mut self.engine else { return Ok(SessionEvent::NothingToDo) };
        if engine.is_stale(&group, &self.host.paths) {
            return Ok(SessionEvent::PromptChanged);
        }
        let chosen_engine = self.host.settings.engine_for_group(&group);
        let Some(mut claim) =
            self.host.store.claim_pending_rows(&group, chosen_engine, self.host.clock.now()).await?
        else {
            return Ok(SessionEvent::NothingToDo);
        };
        engine.has_worked = HasWorked::Yes;
        // What went wrong before says nothing of this turn.
        engine.egress.take_failure();
        self.host.login.reload_if_changed(self.host.clock.now());
        tracing::info!(turn = claim.turn.0, messages = claim.messages.len(), "A turn begins");
        self.send_read_receipts(&group.chat, &claim);
        let input = self.build_input(&group, &mut claim).await;
        self.turn = Some(Turn::from_claim(&claim, &group, &input));
        self.progress = Some(ProgressSchedule::new(Instant::now()));
        self.send_engine_request(Request::Prompt(input));
        Ok(SessionEvent::Prompted)
    }

    /// What a claim says to the engine, with the pictures that it can see.
    async fn build_input(&mut self, group: &Group, claim: &mut Claim) -> EngineInput {
        let (zone, folder) = (&self.host.settings.zone, self.host.paths.group_folder(&self.name));
        whole_texts::save_cut_texts(&self.host.store, folder.clone(), zone, claim).await;
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
        let account = self.host.store.linked_account().await.unwrap_or_else(|error| {
            tracing::warn!("Failed to look for the account's names: {error:#}");
            None
        });
        let ids = account.into_iter().flat_map(|account| [Some(account.id), account.lid]).flatten();
        let digits = ids.filter_map(|id| Some(id.as_str().split_once('@')?.0.to_owned()));
        digits.chain([group.trigger_or(&self.host.settings.assistant).to_owned()]).collect()
    }

    /// Lets who wrote see that it was read. A failure does not matter.
    fn send_read_receipts(&self, chat: &ChatId, claim: &Claim) {
        for (sender, messages) in &claim.senders {
            let (chat, sender, messages) = (chat.clone(), sender.clone(), messages.clone());
            self.host.orders.try_send(Order::Read { chat, sender, messages }).ok();
        }
    }

    /// Claims what has come since for the running turn. It counts as read only when its receipt comes.
    async fn steer_turn(&mut self) -> Result<Option<SessionEvent>> {
        let Some(turn) = &self.turn else { return Ok(None) };
        let (id, chat) = (turn.id, turn.chat.clone());
        let Some(group) = self.current_group().await? else { return Ok(None) };
        let Some(mut claim) = self.host.store.claim_more_rows(id, &chat).await? else { return Ok(None) };
        tracing::info!(turn = id.0, messages = claim.messages.len(), "More is told to the running turn");
        self.send_read_receipts(&chat, &claim);
        let input = self.build_input(&group, &mut claim).await;
        if let Some(turn) = &mut self.turn {
            turn.record_steer(claim, &input);
        }
        self.send_engine_request(Request::Steer(input));
        Ok(None)
    }

    async fn handle_turn_end(&mut self, end: TurnEnd) -> Option<SessionEvent> {
        let settings = Arc::clone(&self.host.settings);
        let mut replies = self.render_replies().await;
        if self.turn.as_ref()?.answer_length() == AnswerLength::Cut {
            replies.push(Reply::from_text(
                settings.with_reply_prefix(notices::answer_cut_notice(settings.lang)),
            ));
        }
        match self.turn_end_seen_by_proxy(end) {
            TurnEnd::Finished | TurnEnd::FinishedOrFailed => {}
            TurnEnd::StepLimit(steps) => {
                tracing::warn!(steps, "The engine reached its limit of steps");
                replies.push(Reply::from_text(
                    settings.with_reply_prefix(notices::step_limit_notice(settings.lang)),
                ));
            }
            TurnEnd::Cancelled => return Some(self.fail_turn(Trouble::TurnTooLong).await),
            TurnEnd::Failed(failure) => {
                if failure.trouble == Trouble::Unsupported && self.retry_without_images() {
                    return None;
                }
                // The door has seen what the API said; the engine tells it in fewer words.
                let seen = self.engine.as_ref().and_then(|engine| engine.egress.take_failure());
                let Failure { trouble, detail } = seen.unwrap_or(failure);
                tracing::warn!(?trouble, "The engine could not answer");
                tracing::debug!("What it said of that: {detail}");
                if matches!(trouble, Trouble::BadRequest | Trouble::TooLarge) {
                    // What the API refuses stays in this engine's memory, and goes with every later request. The
                    // next one begins without what had no answer.
                    if self.turn.as_ref().is_some_and(Turn::has_shown_images) {
                        self.next_vision = NextVision::Blind;
                    }
                    return Some(SessionEvent::Lost(trouble));
                }
                return Some(self.fail_turn(trouble).await);
            }
        }
        Some(SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Answered, replies).await))
    }

    /// The end of a turn of which the engine may hide that it failed: the door has seen the model's API.
    fn turn_end_seen_by_proxy(&self, end: TurnEnd) -> TurnEnd {
        let seen = match end {
            TurnEnd::FinishedOrFailed => self.engine.as_ref().and_then(|engine| engine.egress.take_failure()),
            TurnEnd::Finished | TurnEnd::Cancelled | TurnEnd::StepLimit(_) | TurnEnd::Failed(_) => None,
        };
        seen.map_or(end, TurnEnd::Failed)
    }

    /// What the running turn has said so far, as the chat will read it.
    async fn render_replies(&self) -> Vec<Reply> {
        let Some(turn) = &self.turn else { return Vec::new() };
        let (people, quoted) = if turn.chat.is_whatsapp_group() {
            let people = self.host.store.recent_senders(&turn.chat).await.unwrap_or_else(|error| {
                tracing::warn!("Failed to look for people to mention: {error:#}");
                Vec::new()
            });
            (people, QuotePlacement::FirstPart)
        } else {
            (Vec::new(), QuotePlacement::NoPart)
        };
        let (prefix, lang) = (&self.host.settings.reply_prefix, self.host.settings.lang);
        turn.collect_answers()
            .iter()
            .flat_map(|answer| build_replies(answer, prefix, lang, &people, quoted))
            .collect()
    }

    /// The model turned out not to see: the same prompt once more, without pictures. False where it had none.
    fn retry_without_images(&mut self) -> bool {
        let Some(input) = self.turn.as_mut().and_then(Turn::restart_without_images) else { return false };
        tracing::info!("The model does not take pictures; they are left out from here on");
        if let Some(engine) = &mut self.engine {
            engine.vision = Vision::Blind;
        }
        self.send_engine_request(Request::Prompt(input));
        true
    }

    /// Ends the running turn without an answer.
    async fn fail_turn(&mut self, trouble: Trouble) -> SessionEvent {
        let trouble = self.trouble_or_full_disk(trouble);
        let door_was_asked = self.engine.as_ref().is_some_and(|engine| engine.egress.was_model_asked());
        let asked = door_was_asked || self.turn.as_ref().is_some_and(Turn::has_reached_model);
        if may_come_from_memory(trouble, asked) {
            self.memory.record_engine_failure().await;
        } else if asked && let Some(chat) = self.turn.as_ref().map(|turn| turn.chat.clone()) {
            self.memory.record_engine_success(&self.host, &chat).await;
        }
        let finish = self.finish_for_trouble(trouble);
        SessionEvent::TurnOver(self.finish_current_turn(finish, Vec::new()).await)
    }

    /// There is no engine to try what waits on: that counts as an attempt too.
    async fn fail_waiting_rows(&mut self, trouble: Trouble) -> SessionEvent {
        let trouble = self.trouble_or_full_disk(trouble);
        if may_come_from_memory(trouble, false) {
            self.memory.record_engine_failure().await;
        }
        let begun = async {
            let Some(group) = self.current_group().await? else { return Ok(None) };
            let engine = self.host.settings.engine_for_group(&group);
            let claim = self.host.store.claim_pending_rows(&group, engine, self.host.clock.now()).await?;
            anyhow::Ok(claim.map(|claim| Turn::from_claim(&claim, &group, &EngineInput::from_text(""))))
        };
        match begun.await {
            Ok(Some(turn)) => {
                self.turn = Some(turn);
                let finish = self.finish_for_trouble(trouble);
                SessionEvent::TurnOver(self.finish_current_turn(finish, Vec::new()).await)
            }
            Ok(None) => SessionEvent::TurnOver(AfterTurn::Nothing),
            Err(error) => {
                tracing::error!("Failed to claim what waits: {error:#}");
                SessionEvent::TurnOver(AfterTurn::Retry { attempt: 1 })
            }
        }
    }

    /// Nearly everything may fail on a full disk: then that is the reason, and what was asked is kept.
    fn trouble_or_full_disk(&self, trouble: Trouble) -> Trouble {
        if is_retryable_trouble(trouble) && is_disk_full(&self.host) { Trouble::NoSpace } else { trouble }
    }

    fn finish_for_trouble(&self, trouble: Trouble) -> TurnOutcome {
        let settings = &self.host.settings;
        let gave_up =
            |attempts| settings.with_reply_prefix(notices::gave_up_notice(settings.lang, trouble, attempts));
        if let Some(outage) = Outage::from_trouble(trouble) {
            let to_owner = settings.with_reply_prefix(notices::outage_notice_to_owner(settings.lang, outage));
            let is_main = self.turn.as_ref().is_some_and(|turn| turn.role == Role::Main);
            let to_chat = settings.with_reply_prefix(notices::outage_notice_to_chat(settings.lang, outage));
            let to_chat = if is_main { to_owner.clone() } else { to_chat };
            return TurnOutcome::Kept { outage, to_chat, to_owner, gave_up: gave_up(MAX_ATTEMPTS) };
        }
        if is_retryable_trouble(trouble) || self.next_vision == NextVision::Blind {
            TurnOutcome::Failed { notice: gave_up(MAX_ATTEMPTS) }
        } else {
            TurnOutcome::Hopeless { notice: gave_up(1) }
        }
    }

    /// Writes the end of the turn and its replies, and tells delivery.
    async fn finish_current_turn(&mut self, finish: TurnOutcome, replies: Vec<Reply>) -> AfterTurn {
        let Some(turn) = self.turn.take() else { return AfterTurn::Nothing };
        if matches!(finish, TurnOutcome::Answered) {
            self.memory.record_engine_success(&self.host, &turn.chat).await;
        }
        self.progress = None;
        let usage = self.engine.as_ref().map(|engine| engine.egress.take_usage()).unwrap_or_default();
        self.host.orders.try_send(Order::Typing { chat: turn.chat.clone(), shown: Typing::Off }).ok();
        let unread = turn.unread_rows();
        let ending =
            TurnEnding { turn: turn.id, chat: turn.chat, finish, never_read: unread, replies, usage };
        let finished = finish_turn_with_retry(&self.host, &ending).await.unwrap_or_else(|error| {
            // The rows stay claimed; the next claim of this chat frees them.
            tracing::error!(turn = turn.id.0, "Failed to finish the turn: {error:#}");
            PendingAfterTurn::RetryPending { attempt: 1 }
        });
        tracing::info!(turn = turn.id.0, ?finished, output_tokens = usage.output, "The turn is over");
        self.flush_web_traffic().await;
        self.host.outbox_hint.notify_one();
        finished.into()
    }

    /// Writes down what went over the web since the last time. It is worth no second try.
    async fn flush_web_traffic(&self) {
        let Some(engine) = &self.engine else { return };
        let moved = engine.egress.take_web_traffic();
        if moved == WebTraffic::default() {
            return;
        }
        let today = self.host.clock.now().to_zoned(self.host.settings.zone.clone()).date();
        if let Err(error) = self.host.store.add_web_traffic(&self.name, today, moved).await {
            tracing::warn!("Failed to note what went over the web: {error:#}");
        }
    }

    /// Removes the container; `Ended` only once it is certainly gone.
    async fn kill_container(&mut self) -> Option<SessionEvent> {
        let Some(engine) = &self.engine else { return Some(SessionEvent::Ended) };
        match timeout(KILL_LIMIT, self.host.containers.remove_container(&engine.container)).await {
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

    /// The container has ended: what its pipes still hold is heard first.
    async fn handle_container_exit(&mut self, exit: ContainerExit) -> Option<SessionEvent> {
        let engine = self.engine.as_mut()?;
        let container = engine.container.clone();
        let mut rest = Vec::new();
        let read_rest = async {
            while let Some(event) = engine.events.recv().await {
                rest.push(event);
            }
        };
        timeout(DRAIN_LIMIT, read_rest).await.ok();
        let mut lost = false;
        for event in rest {
            lost |= matches!(event, AgentEvent::Gone(_));
            if let Some(event) = Box::pin(self.handle_engine_signal(EngineSignal::Agent(event))).await {
                Box::pin(self.apply_event(event)).await;
            }
        }
        if !lost {
            Box::pin(self.apply_event(SessionEvent::Lost(Trouble::EngineDied))).await;
        }
        tracing::info!(container, ?exit, "The container has ended");
        self.flush_web_traffic().await;
        match exit {
            ContainerExit::Code(_) => self.engine.take().map(|_| SessionEvent::Ended),
            // Docker has lost sight of it: only its removal is certain.
            ContainerExit::Unknown if self.engine.is_some() => self.kill_container().await,
            ContainerExit::Unknown => None,
        }
    }

    fn classify_engine_loss(&self, gone: &EngineLoss) -> Trouble {
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

    /// Shows the chat that its turn goes on, unless the group was removed meanwhile.
    async fn send_progress_update(&mut self) -> Option<SessionEvent> {
        let now = Instant::now();
        let attention = self.progress.as_mut()?;
        let show = attention.take_due_update(now)?;
        let minutes = attention.minutes_since_start(now);
        if let Ok(None) = self.current_group().await {
            tracing::info!("The group was removed; its turn ends");
            return Some(SessionEvent::Removed);
        }
        let Turn { chat, .. } = self.turn.as_ref()?;
        match show {
            ProgressUpdate::Typing => {
                self.host.orders.try_send(Order::Typing { chat: chat.clone(), shown: Typing::On }).ok();
            }
            ProgressUpdate::Progress(nth) => {
                let settings = &self.host.settings;
                let line = format!(
                    "{}{}",
                    settings.reply_prefix,
                    notices::still_working_notice(settings.lang, nth, minutes)
                );
                self.host.try_notify_chat(chat, &line).await;
            }
        }
        None
    }

    fn send_engine_request(&self, request: Request) {
        if let Some(engine) = &self.engine {
            engine.agent.queue_request(request);
        }
    }

    /// The group as it is registered now; none when it was removed.
    async fn current_group(&self) -> Result<Option<Group>> {
        self.host.store.group_by_name(&self.name).await
    }

    /// The group, if it still has something to answer, and may.
    async fn group_to_answer(&self) -> Result<Option<Group>> {
        let Some(group) = group_within_token_limit(&self.host, &self.name).await? else { return Ok(None) };
        Ok(self.host.store.has_pending_calls(&group).await?.then_some(group))
    }

    async fn send_report(&self, kind: ReportKind) {
        // Dispatch outlives its sessions; should it be gone, there is nobody left to tell.
        self.reports.send(SessionReport { group: self.name.clone(), kind }).await.ok();
    }
}
