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

use super::Host;
use super::allowance::group_that_may_begin;
use super::attention::{Attention, Show};
use super::ending::write_ending;
use super::launch::{Engine, HasWorked, disk_is_full, failure_of, launch};
use super::machine::{After, Effect, Event, Machine};
use super::mailbox::{Command, Report, ReportKind};
use super::memory::Memory;
use super::pictures::{self, Sight};
use super::replies::{QuotedIn, replies_to};
use super::share::Overuse;
use super::troubles::{another_try_may_help, may_be_the_memory};
use super::turn::{Length, Turn};
use super::whole_texts;
use crate::agent::{AgentEvent, Gone, Input, Request, TurnEnd};
use crate::bridge::{Order, Typing};
use crate::clock::sleep_until_or_never;
use crate::container::{Containers, Exit};
use crate::notices;
use crate::render::prompt::Prompt;
use crate::store::{Claim, Finish, Finished, MAX_ATTEMPTS, Reply, TurnEnding};
use crate::types::{Authorization, ChatId, Failure, Group, GroupName, Outage, Role, Trouble, WebTraffic};

/// What an ended container may still have in its pipes is read for this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long Docker may take to remove a container before it is asked again.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Runs the session of a group until its mailbox is closed and its container is gone.
#[tracing::instrument(name = "session", skip_all, fields(group = %name))]
pub async fn run<C: Containers>(
    host: Host<C>,
    name: GroupName,
    mut commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<Report>,
) {
    let machine = Machine::new(host.settings.time_limits);
    let mut driver = Driver {
        host,
        name,
        reports,
        machine,
        engine: None,
        next_sight: NextSight::AsConfigured,
        memory: Memory::trusted(),
        turn: None,
        attention: None,
        mailbox: Mailbox::Open,
    };
    while !driver.machine.stopped() {
        let event = tokio::select! {
            command = commands.recv(), if driver.mailbox == Mailbox::Open => Some(match command {
                Some(Command::Work) => Event::Work,
                Some(Command::SlotGranted) => Event::SlotGranted,
                Some(Command::SlotGrantedAhead) => Event::SlotGrantedAhead,
                Some(Command::SlotWanted) => Event::SlotWanted,
                Some(Command::TryAgain) => Event::TryAgain,
                None => {
                    driver.mailbox = Mailbox::Closed;
                    driver.hear_what_is_here().await;
                    Event::Stop
                }
            }),
            news = next_news(&mut driver.engine) => driver.engine_news(news).await,
            () = sleep_until_or_never(driver.machine.deadline()) => Some(Event::Tick),
            () = sleep_until_or_never(driver.attention.as_ref().map(Attention::next_at)) => {
                driver.show_attention().await
            }
        };
        if let Some(event) = event {
            driver.step(event).await;
        }
    }
}

impl From<Finished> for After {
    fn from(finished: Finished) -> Self {
        match finished {
            Finished::NothingPending => Self::Nothing,
            Finished::MorePending => Self::More,
            Finished::RetryPending { attempt } => Self::Retry { attempt },
            Finished::KeptPending(outage) => Self::Outage(outage),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mailbox {
    Open,
    Closed,
}

/// What comes from the engine's side.
enum News {
    Agent(AgentEvent),
    ContainerEnded(Exit),
    Overuse(Overuse),
}

/// The next thing that an engine reports; never, where there is none.
async fn next_news(engine: &mut Option<Engine>) -> News {
    let Some(engine) = engine else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(event) = engine.events.recv() => News::Agent(event),
        exit = Engine::ended(&mut engine.exit) => News::ContainerEnded(exit),
        overuse = Engine::overuses(&mut engine.overuse) => News::Overuse(overuse),
    }
}

struct Driver<C> {
    host: Host<C>,
    name: GroupName,
    reports: mpsc::Sender<Report>,
    machine: Machine,
    engine: Option<Engine>,
    next_sight: NextSight,
    memory: Memory,
    turn: Option<Turn>,
    attention: Option<Attention>,
    mailbox: Mailbox,
}

/// Why an engine is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Something waits to be answered.
    Waits,
    /// Somebody may ask for something soon.
    Expected,
}

/// What the next engine is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextSight {
    AsConfigured,
    /// No pictures: perhaps the model's API has refused one of them.
    Blind,
}

impl<C: Containers> Driver<C> {
    /// Lets the machine decide on an event and carries its effects out, and those of what they lead to.
    async fn step(&mut self, event: Event) {
        let (was_idle, was_ahead) = (self.machine.idle(), self.machine.ahead());
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.machine.handle(event, Instant::now()) {
                tracing::trace!(?event, ?effect, "The session moves on");
                events.extend(self.perform(effect).await);
            }
        }
        match (was_idle, self.machine.idle()) {
            (false, true) => self.report(ReportKind::Idle).await,
            (true, false) => self.report(ReportKind::Busy).await,
            (true, true) | (false, false) => {}
        }
        if was_ahead && !self.machine.ahead() {
            let used = self.machine.busy();
            self.report(if used { ReportKind::AheadUsed } else { ReportKind::AheadInVain }).await;
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::AskForSlot => {
                self.report(ReportKind::SlotAsked).await;
                None
            }
            Effect::GiveSlotBack => {
                self.report(ReportKind::SlotReturned).await;
                None
            }
            Effect::Launch => self.launch(Need::Waits).await,
            Effect::LaunchAhead => self.launch(Need::Expected).await,
            // Who stops begins nothing: an engine that is asked now would do its work for nobody.
            Effect::Prompt if self.mailbox == Mailbox::Closed => Some(Event::NothingToDo),
            Effect::Steer if self.mailbox == Mailbox::Closed => None,
            Effect::Prompt => Some(self.prompt().await.unwrap_or_else(|error| {
                tracing::error!("Failed to claim what waits: {error:#}");
                Event::ClaimFailed
            })),
            Effect::Steer => self.steer().await.unwrap_or_else(|error| {
                tracing::error!("Failed to steer: {error:#}");
                None
            }),
            Effect::Cancel => {
                tracing::warn!("The turn takes too long and is cancelled");
                self.ask(Request::Cancel);
                None
            }
            Effect::FailTurn(trouble) => Some(self.fail_turn(trouble).await),
            Effect::FailWaiting(trouble) => Some(self.fail_waiting(trouble).await),
            Effect::ReturnTurn => {
                self.finish(Finish::Returned, Vec::new()).await;
                None
            }
            Effect::CloseEngine => {
                self.ask(Request::Close);
                None
            }
            Effect::Kill => self.kill().await,
        }
    }

    /// Takes in what the engine says; what concerns the machine comes back as an event.
    async fn engine_news(&mut self, news: News) -> Option<Event> {
        let event = match news {
            News::Agent(event) => event,
            News::ContainerEnded(exit) => return self.container_ended(exit).await,
            News::Overuse(overuse) => return Some(self.stop_agent(overuse).await),
        };
        match event {
            AgentEvent::Ready => {
                tracing::debug!("The engine is ready");
                Some(Event::EngineReady)
            }
            AgentEvent::StepBegan => {
                self.turn.as_mut()?.step_began();
                Some(Event::SteersWelcome)
            }
            AgentEvent::Said(piece) => {
                self.turn.as_mut()?.said(&piece);
                None
            }
            AgentEvent::SteerTaken => {
                self.turn.as_mut()?.steer_taken();
                None
            }
            AgentEvent::Working { tool } => {
                tracing::debug!(tool, "The engine uses a tool");
                None
            }
            AgentEvent::TurnOver(end) => self.turn_over(end).await,
            AgentEvent::Gone(gone) => Some(Event::Lost(self.explain_loss(&gone))),
        }
    }

    /// What the engine has said already is heard before the session stops: a whole answer may be among it.
    async fn hear_what_is_here(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        let here: Vec<AgentEvent> = std::iter::from_fn(|| engine.events.try_recv().ok()).collect();
        for event in here {
            if let Some(event) = self.engine_news(News::Agent(event)).await {
                self.step(event).await;
            }
        }
    }

    async fn launch(&mut self, need: Need) -> Option<Event> {
        let began = Instant::now();
        let group = match need {
            Need::Waits => self.waiting_group().await,
            Need::Expected => group_that_may_begin(&self.host, &self.name).await,
        };
        let launched = match group {
            Ok(Some(group)) => match self.not_logged_in() {
                Some(failure) => Err(failure),
                None => match self.memory.before_launch(&self.host, &group).await {
                    Ok(()) => launch(&self.host, group).await,
                    Err(error) => Err(failure_of(&self.host, &error)),
                },
            },
            Ok(None) => return Some(Event::NothingToDo),
            Err(error) => Err(failure_of(&self.host, &error)),
        };
        match launched {
            Ok(mut engine) => {
                if std::mem::replace(&mut self.next_sight, NextSight::AsConfigured) == NextSight::Blind {
                    engine.sight = Sight::Blind;
                }
                let took_ms = began.elapsed().as_millis();
                tracing::info!(container = engine.container, took_ms, "The container runs");
                self.engine = Some(engine);
                None
            }
            Err(Failure { trouble, detail }) => {
                tracing::warn!(?trouble, "Failed to launch the container: {detail}");
                if trouble == Trouble::NoDocker {
                    self.report(ReportKind::NoDocker).await;
                }
                Some(Event::Lost(trouble))
            }
        }
    }

    /// The agent takes more of the machine than is one chat's share: its container goes, and its chat is told.
    async fn stop_agent(&mut self, overuse: Overuse) -> Event {
        tracing::warn!(?overuse, "The agent takes too much of this machine and is stopped");
        let trouble = overuse.trouble();
        if let Err(error) = self.host.store.note_stop(&self.name, trouble, self.host.clock.now()).await {
            tracing::warn!("Failed to note that an agent was stopped: {error:#}");
        }
        // With a turn, its end tells.
        if self.machine.idle()
            && let Ok(Some(group)) = self.group().await
        {
            let settings = &self.host.settings;
            let sentence = settings.notice(notices::stopped(settings.lang, trouble));
            self.host.say(&group.chat, &sentence).await;
        }
        Event::Lost(trouble)
    }

    /// An engine that is started without a login would only learn that there is none.
    fn not_logged_in(&self) -> Option<Failure> {
        self.host.login.reread(self.host.clock.now());
        match &*self.host.login.authorization().borrow() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(Failure::new(Trouble::NotLoggedIn, why)),
        }
    }

    /// Claims what waits and hands it to the engine as one prompt.
    async fn prompt(&mut self) -> Result<Event> {
        let group = group_that_may_begin(&self.host, &self.name).await?;
        let Some(group) = group else { return Ok(Event::NothingToDo) };
        let Some(engine) = &mut self.engine else { return Ok(Event::NothingToDo) };
        if engine.is_stale(&group, &self.host.paths) {
            return Ok(Event::PromptChanged);
        }
        let engine_name = self.host.settings.engine_of(&group).name();
        let Some(mut claim) = self.host.store.claim(&group, &engine_name, self.host.clock.now()).await?
        else {
            return Ok(Event::NothingToDo);
        };
        engine.has_worked = HasWorked::Yes;
        // What went wrong before says nothing of this turn.
        engine.door.take_failure();
        self.host.login.reread(self.host.clock.now());
        tracing::info!(turn = claim.turn.0, messages = claim.messages.len(), "A turn begins");
        self.show_read(&group.chat, &claim);
        let input = self.input(&group, &mut claim).await;
        self.turn = Some(Turn::begin(&claim, &group, &input));
        self.attention = Some(Attention::begin(Instant::now()));
        self.ask(Request::Prompt(input));
        Ok(Event::Prompted)
    }

    /// What a claim says to the engine, with the pictures that it can see.
    async fn input(&mut self, group: &Group, claim: &mut Claim) -> Input {
        let (zone, folder) = (&self.host.settings.zone, self.host.paths.group(&self.name));
        whole_texts::write(&self.host.store, folder.clone(), zone, claim).await;
        let names = self.names_of_kai(group).await;
        let text = Prompt { zone, names: &names, earlier: &claim.earlier, messages: &claim.messages }.text();
        let images = match &mut self.engine {
            Some(engine) => pictures::of(folder, &claim.messages, &mut engine.sight).await,
            None => Vec::new(),
        };
        Input { text, images }
    }

    /// What calls Kai in this chat: its trigger, and the account as WhatsApp writes a mention of it.
    async fn names_of_kai(&self, group: &Group) -> Vec<String> {
        let account = self.host.store.account().await.unwrap_or_else(|error| {
            tracing::warn!("Failed to look for the account's names: {error:#}");
            None
        });
        let ids = account.into_iter().flat_map(|account| [Some(account.id), account.lid]).flatten();
        let digits = ids.filter_map(|id| Some(id.as_str().split_once('@')?.0.to_owned()));
        digits.chain([group.trigger_or(&self.host.settings.assistant).to_owned()]).collect()
    }

    /// Lets who wrote see that it was read. A failure does not matter.
    fn show_read(&self, chat: &ChatId, claim: &Claim) {
        for (sender, messages) in &claim.senders {
            let (chat, sender, messages) = (chat.clone(), sender.clone(), messages.clone());
            self.host.orders.try_send(Order::Read { chat, sender, messages }).ok();
        }
    }

    /// Claims what has come since for the running turn. It counts as read only when its receipt comes.
    async fn steer(&mut self) -> Result<Option<Event>> {
        let Some(turn) = &self.turn else { return Ok(None) };
        let (id, chat) = (turn.id, turn.chat.clone());
        let Some(group) = self.group().await? else { return Ok(None) };
        let Some(mut claim) = self.host.store.claim_more(id, &chat).await? else { return Ok(None) };
        tracing::info!(turn = id.0, messages = claim.messages.len(), "More is told to the running turn");
        self.show_read(&chat, &claim);
        let input = self.input(&group, &mut claim).await;
        if let Some(turn) = &mut self.turn {
            turn.steered(claim, &input);
        }
        self.ask(Request::Steer(input));
        Ok(None)
    }

    async fn turn_over(&mut self, end: TurnEnd) -> Option<Event> {
        let settings = Arc::clone(&self.host.settings);
        let mut replies = self.answers().await;
        if self.turn.as_ref()?.length() == Length::Cut {
            replies.push(Reply::text(settings.notice(notices::answer_cut(settings.lang))));
        }
        match self.as_the_door_saw(end) {
            TurnEnd::Finished | TurnEnd::FinishedOrFailed => {}
            TurnEnd::StepLimit(steps) => {
                tracing::warn!(steps, "The engine reached its limit of steps");
                replies.push(Reply::text(settings.notice(notices::step_limit(settings.lang))));
            }
            TurnEnd::Cancelled => return Some(self.fail_turn(Trouble::TurnTooLong).await),
            TurnEnd::Failed(failure) => {
                if failure.trouble == Trouble::Unsupported && self.prompts_again_blind() {
                    return None;
                }
                // The door has seen what the API said; the engine tells it in fewer words.
                let seen = self.engine.as_ref().and_then(|engine| engine.door.take_failure());
                let Failure { trouble, detail } = seen.unwrap_or(failure);
                tracing::warn!(?trouble, "The engine could not answer");
                tracing::debug!("What it said of that: {detail}");
                if matches!(trouble, Trouble::BadRequest | Trouble::TooLarge) {
                    // What the API refuses stays in this engine's memory, and goes with every later request. The
                    // next one begins without what had no answer.
                    if self.turn.as_ref().is_some_and(Turn::showed_pictures) {
                        self.next_sight = NextSight::Blind;
                    }
                    return Some(Event::Lost(trouble));
                }
                return Some(self.fail_turn(trouble).await);
            }
        }
        Some(Event::TurnOver(self.finish(Finish::Answered, replies).await))
    }

    /// The end of a turn of which the engine may hide that it failed: the door has seen the model's API.
    fn as_the_door_saw(&self, end: TurnEnd) -> TurnEnd {
        let seen = match end {
            TurnEnd::FinishedOrFailed => self.engine.as_ref().and_then(|engine| engine.door.take_failure()),
            TurnEnd::Finished | TurnEnd::Cancelled | TurnEnd::StepLimit(_) | TurnEnd::Failed(_) => None,
        };
        seen.map_or(end, TurnEnd::Failed)
    }

    /// What the running turn has said so far, as the chat will read it.
    async fn answers(&self) -> Vec<Reply> {
        let Some(turn) = &self.turn else { return Vec::new() };
        let (people, quoted) = if turn.chat.is_whatsapp_group() {
            let people = self.host.store.recent_senders(&turn.chat).await.unwrap_or_else(|error| {
                tracing::warn!("Failed to look for people to mention: {error:#}");
                Vec::new()
            });
            (people, QuotedIn::FirstPart)
        } else {
            (Vec::new(), QuotedIn::NoPart)
        };
        let (prefix, lang) = (&self.host.settings.reply_prefix, self.host.settings.lang);
        turn.answers().iter().flat_map(|answer| replies_to(answer, prefix, lang, &people, quoted)).collect()
    }

    /// The model turned out not to see: the same prompt once more, without pictures. False where it had none.
    fn prompts_again_blind(&mut self) -> bool {
        let Some(input) = self.turn.as_mut().and_then(Turn::begin_again_blind) else { return false };
        tracing::info!("The model does not take pictures; they are left out from here on");
        if let Some(engine) = &mut self.engine {
            engine.sight = Sight::Blind;
        }
        self.ask(Request::Prompt(input));
        true
    }

    /// Ends the running turn without an answer.
    async fn fail_turn(&mut self, trouble: Trouble) -> Event {
        let trouble = self.blame(trouble);
        let door_was_asked = self.engine.as_ref().is_some_and(|engine| engine.door.was_asked());
        let asked = door_was_asked || self.turn.as_ref().is_some_and(Turn::has_begun);
        if may_be_the_memory(trouble, asked) {
            self.memory.engine_failed().await;
        } else if asked && let Some(chat) = self.turn.as_ref().map(|turn| turn.chat.clone()) {
            self.memory.engine_works(&self.host, &chat).await;
        }
        let finish = self.failed(trouble);
        Event::TurnOver(self.finish(finish, Vec::new()).await)
    }

    /// There is no engine to try what waits on: that counts as an attempt too.
    async fn fail_waiting(&mut self, trouble: Trouble) -> Event {
        let trouble = self.blame(trouble);
        if may_be_the_memory(trouble, false) {
            self.memory.engine_failed().await;
        }
        let begun = async {
            let Some(group) = self.group().await? else { return Ok(None) };
            let engine = self.host.settings.engine_of(&group).name();
            let claim = self.host.store.claim(&group, &engine, self.host.clock.now()).await?;
            anyhow::Ok(claim.map(|claim| Turn::begin(&claim, &group, &Input::text(""))))
        };
        match begun.await {
            Ok(Some(turn)) => {
                self.turn = Some(turn);
                let finish = self.failed(trouble);
                Event::TurnOver(self.finish(finish, Vec::new()).await)
            }
            Ok(None) => Event::TurnOver(After::Nothing),
            Err(error) => {
                tracing::error!("Failed to claim what waits: {error:#}");
                Event::TurnOver(After::Retry { attempt: 1 })
            }
        }
    }

    /// Nearly everything may fail on a full disk: then that is the reason, and what was asked is kept.
    fn blame(&self, trouble: Trouble) -> Trouble {
        if another_try_may_help(trouble) && disk_is_full(&self.host) { Trouble::NoSpace } else { trouble }
    }

    fn failed(&self, trouble: Trouble) -> Finish {
        let settings = &self.host.settings;
        let gave_up = |attempts| settings.notice(notices::gave_up(settings.lang, trouble, attempts));
        if let Some(outage) = Outage::of(trouble) {
            let to_owner = settings.notice(notices::outage(settings.lang, outage));
            let is_main = self.turn.as_ref().is_some_and(|turn| turn.role == Role::Main);
            let to_chat = settings.notice(notices::kept(settings.lang, outage));
            let to_chat = if is_main { to_owner.clone() } else { to_chat };
            return Finish::Kept { outage, to_chat, to_owner, gave_up: gave_up(MAX_ATTEMPTS) };
        }
        if another_try_may_help(trouble) || self.next_sight == NextSight::Blind {
            Finish::Failed { notice: gave_up(MAX_ATTEMPTS) }
        } else {
            Finish::Hopeless { notice: gave_up(1) }
        }
    }

    /// Writes the end of the turn and its replies, and tells delivery.
    async fn finish(&mut self, finish: Finish, replies: Vec<Reply>) -> After {
        let Some(turn) = self.turn.take() else { return After::Nothing };
        if matches!(finish, Finish::Answered) {
            self.memory.engine_works(&self.host, &turn.chat).await;
        }
        self.attention = None;
        let usage = self.engine.as_ref().map(|engine| engine.door.take_usage()).unwrap_or_default();
        self.host.orders.try_send(Order::Typing { chat: turn.chat.clone(), shown: Typing::Off }).ok();
        let unread = turn.unread();
        let ending = TurnEnding { turn: turn.id, chat: turn.chat, finish, unread, replies, usage };
        let finished = write_ending(&self.host, &ending).await.unwrap_or_else(|error| {
            // The rows stay claimed; the next claim of this chat frees them.
            tracing::error!(turn = turn.id.0, "Failed to finish the turn: {error:#}");
            Finished::RetryPending { attempt: 1 }
        });
        tracing::info!(turn = turn.id.0, ?finished, output_tokens = usage.output, "The turn is over");
        self.note_web_traffic().await;
        self.host.outbox_hint.notify_one();
        finished.into()
    }

    /// Writes down what went over the web since the last time. It is worth no second try.
    async fn note_web_traffic(&self) {
        let Some(engine) = &self.engine else { return };
        let moved = engine.door.take_web_traffic();
        if moved == WebTraffic::default() {
            return;
        }
        let today = self.host.clock.now().to_zoned(self.host.settings.zone.clone()).date();
        if let Err(error) = self.host.store.add_web_traffic(&self.name, today, moved).await {
            tracing::warn!("Failed to note what went over the web: {error:#}");
        }
    }

    /// Removes the container; `Ended` only once it is certainly gone.
    async fn kill(&mut self) -> Option<Event> {
        let Some(engine) = &self.engine else { return Some(Event::Ended) };
        match timeout(KILL_LIMIT, self.host.containers.remove(&engine.container)).await {
            Ok(Ok(())) => {
                self.note_web_traffic().await;
                self.engine = None;
                Some(Event::Ended)
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
    async fn container_ended(&mut self, exit: Exit) -> Option<Event> {
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
            if let Some(event) = Box::pin(self.engine_news(News::Agent(event))).await {
                Box::pin(self.step(event)).await;
            }
        }
        if !lost {
            Box::pin(self.step(Event::Lost(Trouble::EngineDied))).await;
        }
        tracing::info!(container, ?exit, "The container has ended");
        self.note_web_traffic().await;
        match exit {
            Exit::Code(_) => self.engine.take().map(|_| Event::Ended),
            // Docker has lost sight of it: only its removal is certain.
            Exit::Unknown if self.engine.is_some() => self.kill().await,
            Exit::Unknown => None,
        }
    }

    fn explain_loss(&self, gone: &Gone) -> Trouble {
        match gone {
            Gone::Ended => Trouble::EngineDied,
            Gone::NeverReady { said } => {
                tracing::warn!("The engine ended before it was ready");
                tracing::debug!(said, "What it said instead");
                Trouble::NeverReady
            }
            Gone::Garbage { said } => {
                tracing::warn!("The engine printed something that is not its protocol");
                tracing::debug!(said, "What the engine printed");
                Trouble::EngineGarbage
            }
        }
    }

    /// Shows the chat that its turn goes on, unless the group was removed meanwhile.
    async fn show_attention(&mut self) -> Option<Event> {
        let now = Instant::now();
        let attention = self.attention.as_mut()?;
        let show = attention.due(now)?;
        let minutes = attention.minutes(now);
        if let Ok(None) = self.group().await {
            tracing::info!("The group was removed; its turn ends");
            return Some(Event::Removed);
        }
        let Turn { chat, .. } = self.turn.as_ref()?;
        match show {
            Show::Typing => {
                self.host.orders.try_send(Order::Typing { chat: chat.clone(), shown: Typing::On }).ok();
            }
            Show::Progress(nth) => {
                let settings = &self.host.settings;
                let line = format!(
                    "{}{}",
                    settings.reply_prefix,
                    notices::still_working(settings.lang, nth, minutes)
                );
                self.host.say(chat, &line).await;
            }
        }
        None
    }

    fn ask(&self, request: Request) {
        if let Some(engine) = &self.engine {
            engine.agent.ask(request);
        }
    }

    /// The group as it is registered now; none when it was removed.
    async fn group(&self) -> Result<Option<Group>> {
        self.host.store.group(&self.name).await
    }

    /// The group, if it still has something to answer, and may.
    async fn waiting_group(&self) -> Result<Option<Group>> {
        let Some(group) = group_that_may_begin(&self.host, &self.name).await? else { return Ok(None) };
        Ok(self.host.store.waits(&group).await?.then_some(group))
    }

    async fn report(&self, kind: ReportKind) {
        // Dispatch outlives its sessions; should it be gone, there is nobody left to tell.
        self.reports.send(Report { group: self.name.clone(), kind }).await.ok();
    }
}
