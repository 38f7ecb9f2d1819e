//! What a group's session does next: a pure function of what happened and when.
//!
//! ```text
//!            work              slot                 ready             prompt
//!   Cold ───────────▶ Queued ────────▶ Starting ────────────▶ Idle ─────────────▶ Busy
//!    ▲                                    │ failed, too slow    │  ◀───────────────  │
//!    │              gone                  ▼                     ▼   turn over        │ too long, stopped
//!    └──────────────────────────────── Closing ◀────────────────┴────────────────────┘
//! ```
//! The happy path: work comes in, a slot is asked for and granted, the container starts, the engine says that
//! it is ready, what waits is claimed and prompted, the turn ends, and after a while without work the engine
//! is closed. The machine knows no messages: the driver claims and finishes rows, and reports back. Closing
//! always ends in Cold when the container ends: that is waited for, then forced.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::exponential_backoff;
use crate::types::{Outage, Trouble};

/// From the launch of a container to the engine's handshake: measured 1.3 s, and 9 s for ten
/// at once on two processors.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// From asking an engine to end to killing its container: measured 0.4 to 1 s.
pub const CLOSE_GRACE: Duration = Duration::from_secs(10);
/// From cancelling a turn that takes too long to giving up on the engine: measured 20 ms.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// The same for a turn that the owner stops, whom the chat has told that it was stopped: it ends within a second.
pub const STOP_GRACE: Duration = Duration::from_millis(500);
/// How long an engine that was started ahead of need waits for it: people type for less, and record for less.
pub const AHEAD_LIMIT: Duration = Duration::from_secs(3 * 60);
/// The pause after the first failed attempt; it doubles with each.
pub const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(20 * 60);
/// How long kept messages wait in an outage until they are tried again, if nobody says before that it is
/// over. Shorter than an idle engine is kept by default, so that trying costs one request.
pub const OUTAGE_PAUSE: Duration = Duration::from_secs(10 * 60);
/// The same for a full disk: nobody reports that there is room again, and trying costs no request.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(30);

/// The owner's limits on time.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// How long an engine without work is kept.
    pub idle: Duration,
    /// How long a turn may take.
    pub turn: Duration,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Something waits to be answered.
    Work,
    SlotGranted,
    /// A slot that was not asked for: somebody may ask for something soon.
    SlotGrantedAhead,
    /// Another group waits for a slot.
    SlotWanted,
    /// The outage may be over: the kept messages are tried now.
    TryAgain,
    EngineReady,
    /// The group's prompt files have changed since the engine started. They are read only at a start.
    PromptChanged,
    /// The session that the engine is in has nothing more to do.
    SessionOver,
    /// What waited was claimed and handed to the engine.
    Prompted,
    /// Nothing waited after all: nothing was launched or prompted.
    NothingToDo,
    /// What waits could not be claimed: the database failed.
    ClaimFailed,
    /// The engine takes steers from here on.
    SteersWelcome,
    /// The owner has stopped the running turn. Its rows are finished; the engine does not know it yet.
    TurnStopped,
    /// The running turn has used all the tokens that it may.
    TurnTokensUsedUp,
    /// The turn is over and its rows are finished.
    TurnOver(AfterTurn),
    /// The engine or its container cannot be used any more, or the launch failed.
    Lost(Trouble),
    /// The container has ended.
    Ended,
    /// The group is not registered any more.
    Removed,
    /// The service stops.
    Stop,
    /// The time of [`SessionMachine::next_deadline`] has come.
    Tick,
}

/// What is pending after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterTurn {
    Nothing,
    More,
    /// The same again, after a pause that grows with the number of the failed attempt, counted from 1.
    Retry {
        attempt: u32,
    },
    /// The same again when the outage is over. That is tried after its [`outage_backoff`].
    Outage(Outage),
}

/// Why a turn is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    TookTooLong,
    UsedUpTokens,
    /// The chat has heard of it, and nothing is tried again.
    StoppedByOwner,
}

impl CancelReason {
    fn grace(self) -> Duration {
        match self {
            Self::TookTooLong | Self::UsedUpTokens => CANCEL_GRACE,
            Self::StoppedByOwner => STOP_GRACE,
        }
    }

    /// How a turn ends whose engine does not end it.
    fn forced_end(self) -> Effect {
        match self {
            Self::TookTooLong | Self::UsedUpTokens => Effect::FailTurn(Trouble::TurnTooLong),
            Self::StoppedByOwner => Effect::EndStoppedTurn,
        }
    }
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    AskForSlot,
    GiveSlotBack,
    /// Launch the container; report `Lost` if that fails, `NothingToDo` if nothing waits any more.
    Launch,
    /// The same, if nothing waits yet.
    LaunchAhead,
    /// Claim what waits and prompt it; report `Prompted`, `NothingToDo`, `PromptChanged` or `ClaimFailed`.
    Prompt,
    /// Claim what has come since and steer it into the turn.
    Steer,
    /// Ask the engine to end the turn early.
    Cancel(CancelReason),
    /// Finish the turn's rows as failed with this trouble; report `TurnOver`.
    FailTurn(Trouble),
    /// Forget the turn that the owner has stopped; report `TurnOver`.
    EndStoppedTurn,
    /// Claim what waits and finish it as failed, since there is no engine to try it on; report `TurnOver`.
    FailWaiting(Trouble),
    /// Give the turn's rows back, uncounted.
    ReturnTurn,
    /// Close the engine's stdin.
    CloseEngine,
    /// Kill and remove the container; report `Ended`.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No container, no slot.
    Cold,
    /// A slot was asked for.
    Queued,
    /// A container is being launched, or runs and its engine has not yet said that it is ready.
    Starting { since: Instant },
    /// The engine waits.
    Idle { since: Instant },
    /// Rows are being claimed for a turn.
    Prompting,
    /// A turn runs.
    Busy { since: Instant, steers: Steers, cancelled: Option<Cancellation> },
    /// The engine was asked to end.
    Closing { since: Instant },
}

/// That the engine was asked to end its turn early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cancellation {
    at: Instant,
    reason: CancelReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steers {
    /// The engine would lose a steer: it has not begun its first step.
    TooEarly,
    Welcome,
}

/// Whether something waits to be answered that no turn has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    None,
    Waiting,
    /// Waiting, but not to be tried before this.
    WaitingUntil(Instant),
    /// The same, because of an outage. A person who asks meanwhile may know that it is over.
    KeptUntil(Instant),
}

impl Work {
    /// When the work is to be tried, if not now.
    fn retry_at(self) -> Option<Instant> {
        match self {
            Self::WaitingUntil(at) | Self::KeptUntil(at) => Some(at),
            Self::None | Self::Waiting => None,
        }
    }
}

/// How much the session may still do in the slot that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// As much as there is to do.
    Ours,
    /// Another group waits for it, but we have not worked in it yet. To give it up now would only launch
    /// containers in turn.
    WantedAfterOneTurn,
    /// We have worked in it.
    Used,
    /// We have worked in it, and another group waits for it.
    Wanted,
}

/// The state of one group's session.
#[derive(Debug)]
pub struct SessionMachine {
    limits: TimeLimits,
    state: State,
    work: Work,
    slot: Slot,
    /// The engine was started before anything was asked, and nothing was asked since.
    started_ahead: bool,
    stopping: bool,
}

impl SessionMachine {
    pub fn new(limits: TimeLimits) -> Self {
        Self {
            limits,
            state: State::Cold,
            work: Work::None,
            slot: Slot::Ours,
            started_ahead: false,
            stopping: false,
        }
    }

    /// Whether the session holds a slot that nobody works in.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Whether a turn runs.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy { .. })
    }

    /// Whether the running turn is to end early.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.state, State::Busy { cancelled: Some(_), .. })
    }

    /// Whether there is an engine, or will be one, that was not needed yet.
    pub fn is_started_ahead(&self) -> bool {
        self.started_ahead
    }

    /// Whether the session has stopped for good: no container, no slot, and none will be asked for.
    pub fn has_stopped(&self) -> bool {
        self.stopping && self.state == State::Cold
    }

    /// When [`SessionEvent::Tick`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = self.work.retry_at();
        match self.state {
            State::Cold => retry,
            State::Queued | State::Prompting => None,
            State::Starting { since } => Some(since + START_LIMIT),
            State::Idle { since } => {
                let end = since + self.idle_limit();
                Some(retry.map_or(end, |at| at.min(end)))
            }
            State::Busy { cancelled: Some(Cancellation { at, reason }), .. } => Some(at + reason.grace()),
            State::Busy { since, cancelled: None, .. } => Some(since + self.limits.turn),
            State::Closing { since } => Some(since + CLOSE_GRACE),
        }
    }

    fn idle_limit(&self) -> Duration {
        if self.started_ahead { self.limits.idle.min(AHEAD_LIMIT) } else { self.limits.idle }
    }

    /// Takes in what happened and says what to do, in order.
    pub fn decide_effects(&mut self, event: SessionEvent, now: Instant) -> Vec<Effect> {
        match event {
            SessionEvent::Work => self.on_work(now),
            SessionEvent::SlotGranted => self.on_slot_granted(now),
            SessionEvent::SlotGrantedAhead => self.on_slot_granted_ahead(now),
            SessionEvent::SlotWanted => {
                self.slot = match self.slot {
                    Slot::Ours | Slot::WantedAfterOneTurn => Slot::WantedAfterOneTurn,
                    Slot::Used | Slot::Wanted => Slot::Wanted,
                };
                self.advance_session(now)
            }
            SessionEvent::TryAgain => {
                if matches!(self.work, Work::KeptUntil(_)) {
                    self.work = Work::Waiting;
                }
                self.advance_session(now)
            }
            SessionEvent::EngineReady => self.on_engine_ready(now),
            SessionEvent::PromptChanged | SessionEvent::SessionOver => self.close_engine(now),
            SessionEvent::Prompted => {
                self.work = Work::None;
                self.started_ahead = false;
                self.slot = match self.slot {
                    Slot::Ours | Slot::Used => Slot::Used,
                    Slot::WantedAfterOneTurn | Slot::Wanted => Slot::Wanted,
                };
                self.state = State::Busy { since: now, steers: Steers::TooEarly, cancelled: None };
                Vec::new()
            }
            SessionEvent::NothingToDo => {
                self.work = Work::None;
                if matches!(self.state, State::Starting { .. }) {
                    self.on_ended(now)
                } else {
                    self.become_idle(now)
                }
            }
            SessionEvent::ClaimFailed => {
                self.work = Work::WaitingUntil(now + FIRST_RETRY_PAUSE);
                self.become_idle(now)
            }
            SessionEvent::SteersWelcome => self.on_steers_welcome(),
            SessionEvent::TurnStopped => self.on_turn_stopped(now),
            SessionEvent::TurnTokensUsedUp => self.on_turn_tokens_used_up(now),
            SessionEvent::TurnOver(after) => self.on_turn_over(after, now),
            SessionEvent::Lost(trouble) => self.on_lost(trouble, now),
            SessionEvent::Ended => self.on_ended(now),
            SessionEvent::Removed => self.on_removed(now),
            SessionEvent::Stop => {
                self.stopping = true;
                self.stop_session(now)
            }
            SessionEvent::Tick => self.on_tick(now),
        }
    }

    fn on_work(&mut self, now: Instant) -> Vec<Effect> {
        match self.work {
            Work::None | Work::KeptUntil(_) => self.work = Work::Waiting,
            // During a pause the newcomer waits with the others.
            Work::Waiting | Work::WaitingUntil(_) => {}
        }
        if let State::Busy { steers: Steers::Welcome, cancelled: None, .. } = self.state {
            self.work = Work::None;
            return vec![Effect::Steer];
        }
        self.advance_session(now)
    }

    fn on_slot_granted(&mut self, now: Instant) -> Vec<Effect> {
        if self.state != State::Queued {
            // The slot was given back before it came.
            return Vec::new();
        }
        self.slot = Slot::Ours;
        self.state = State::Starting { since: now };
        vec![Effect::Launch]
    }

    fn on_slot_granted_ahead(&mut self, now: Instant) -> Vec<Effect> {
        match self.state {
            // If there is work, it waits for its time or for the end of an outage, not for an engine.
            State::Cold if self.stopping || self.work != Work::None => vec![Effect::GiveSlotBack],
            State::Cold => {
                self.slot = Slot::Ours;
                self.started_ahead = true;
                self.state = State::Starting { since: now };
                vec![Effect::LaunchAhead]
            }
            // The session has asked for a slot meanwhile.
            State::Queued => self.on_slot_granted(now),
            // The session has a slot.
            State::Starting { .. }
            | State::Idle { .. }
            | State::Prompting
            | State::Busy { .. }
            | State::Closing { .. } => Vec::new(),
        }
    }

    fn on_engine_ready(&mut self, now: Instant) -> Vec<Effect> {
        match self.state {
            State::Starting { .. } => self.become_idle(now),
            State::Cold
            | State::Queued
            | State::Idle { .. }
            | State::Prompting
            | State::Busy { .. }
            | State::Closing { .. } => Vec::new(),
        }
    }

    fn on_steers_welcome(&mut self) -> Vec<Effect> {
        let State::Busy { steers, cancelled: None, .. } = &mut self.state else { return Vec::new() };
        *steers = Steers::Welcome;
        if self.work == Work::None {
            return Vec::new();
        }
        self.work = Work::None;
        vec![Effect::Steer]
    }

    fn on_turn_stopped(&mut self, now: Instant) -> Vec<Effect> {
        let State::Busy { cancelled, .. } = &mut self.state else { return Vec::new() };
        let reason = CancelReason::StoppedByOwner;
        match cancelled {
            Some(Cancellation { reason: CancelReason::StoppedByOwner, .. }) => Vec::new(),
            // The engine is asked already. From here on it has less time.
            Some(_) => {
                *cancelled = Some(Cancellation { at: now, reason });
                Vec::new()
            }
            None => {
                *cancelled = Some(Cancellation { at: now, reason });
                vec![Effect::Cancel(reason)]
            }
        }
    }

    fn on_turn_tokens_used_up(&mut self, now: Instant) -> Vec<Effect> {
        let State::Busy { cancelled: cancelled @ None, .. } = &mut self.state else { return Vec::new() };
        let reason = CancelReason::UsedUpTokens;
        *cancelled = Some(Cancellation { at: now, reason });
        vec![Effect::Cancel(reason)]
    }

    fn on_turn_over(&mut self, after: AfterTurn, now: Instant) -> Vec<Effect> {
        match after {
            AfterTurn::Nothing => {}
            AfterTurn::More => self.work = Work::Waiting,
            AfterTurn::Retry { attempt } => self.work = Work::WaitingUntil(now + turn_retry_backoff(attempt)),
            AfterTurn::Outage(outage) => self.work = Work::KeptUntil(now + outage_backoff(outage)),
        }
        match self.state {
            // What the turn has begun in the container ends with it.
            State::Busy { cancelled: Some(_), .. } => self.close_engine(now),
            // What had no answer stays in this engine's memory. With each further try it would be there once
            // more.
            State::Busy { .. } if matches!(after, AfterTurn::Outage(_)) => self.close_engine(now),
            State::Busy { .. } => self.become_idle(now),
            State::Cold
            | State::Queued
            | State::Starting { .. }
            | State::Idle { .. }
            | State::Prompting
            | State::Closing { .. } => self.advance_session(now),
        }
    }

    fn on_lost(&mut self, trouble: Trouble, now: Instant) -> Vec<Effect> {
        let mut effects = match self.state {
            State::Starting { .. } if !self.stopping => vec![Effect::FailWaiting(trouble)],
            State::Busy { cancelled: Some(cancellation), .. } => vec![cancellation.reason.forced_end()],
            State::Busy { .. } => vec![Effect::FailTurn(trouble)],
            // The engine was asked to end, or nobody waits for it. Only the container's end matters.
            State::Closing { .. } | State::Cold | State::Queued => return Vec::new(),
            State::Starting { .. } | State::Idle { .. } | State::Prompting => Vec::new(),
        };
        if matches!(self.state, State::Starting { .. }) {
            self.work = Work::None;
        }
        self.state = State::Closing { since: now };
        effects.push(Effect::Kill);
        effects
    }

    fn on_ended(&mut self, now: Instant) -> Vec<Effect> {
        // The driver reports `Lost` before it reports the end, so no turn is left here.
        self.state = State::Cold;
        self.started_ahead = false;
        let mut effects = vec![Effect::GiveSlotBack];
        effects.extend(self.advance_session(now));
        effects
    }

    /// Nobody waits any more, and the answer of a running turn has no reader.
    fn on_removed(&mut self, now: Instant) -> Vec<Effect> {
        self.work = Work::None;
        match self.state {
            State::Busy { .. } => {
                self.state = State::Closing { since: now };
                vec![Effect::ReturnTurn, Effect::CloseEngine]
            }
            State::Idle { .. } => self.close_engine(now),
            State::Cold
            | State::Queued
            | State::Starting { .. }
            | State::Prompting
            | State::Closing { .. } => Vec::new(),
        }
    }

    fn on_tick(&mut self, now: Instant) -> Vec<Effect> {
        if self.work.retry_at().is_some_and(|at| at <= now) {
            self.work = Work::Waiting;
            return self.advance_session(now);
        }
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        match &mut self.state {
            State::Starting { .. } => self.on_lost(Trouble::NeverReady, now),
            State::Idle { .. } => self.close_engine(now),
            State::Busy { cancelled: Some(_), .. } => self.on_lost(Trouble::TurnTooLong, now),
            State::Busy { cancelled, .. } => {
                let reason = CancelReason::TookTooLong;
                *cancelled = Some(Cancellation { at: now, reason });
                vec![Effect::Cancel(reason)]
            }
            State::Closing { since } => {
                // If the kill fails, too, it is tried again after the same time.
                *since = now;
                vec![Effect::Kill]
            }
            State::Cold | State::Queued | State::Prompting => Vec::new(),
        }
    }

    fn become_idle(&mut self, now: Instant) -> Vec<Effect> {
        self.state = State::Idle { since: now };
        self.advance_session(now)
    }

    /// Moves on from a state in which nothing runs, as far as there is work.
    fn advance_session(&mut self, now: Instant) -> Vec<Effect> {
        if self.stopping {
            return self.stop_session(now);
        }
        match self.state {
            State::Cold if self.work == Work::Waiting => {
                self.state = State::Queued;
                vec![Effect::AskForSlot]
            }
            State::Idle { .. } if self.work == Work::Waiting && self.slot != Slot::Wanted => {
                self.state = State::Prompting;
                vec![Effect::Prompt]
            }
            // Another group's turn comes first. With work of our own we queue up behind it.
            State::Idle { .. } if matches!(self.slot, Slot::Wanted | Slot::WantedAfterOneTurn) => {
                self.close_engine(now)
            }
            State::Cold
            | State::Queued
            | State::Starting { .. }
            | State::Idle { .. }
            | State::Prompting
            | State::Busy { .. }
            | State::Closing { .. } => Vec::new(),
        }
    }

    fn close_engine(&mut self, now: Instant) -> Vec<Effect> {
        self.state = State::Closing { since: now };
        vec![Effect::CloseEngine]
    }

    fn stop_session(&mut self, now: Instant) -> Vec<Effect> {
        match self.state {
            State::Cold | State::Closing { .. } | State::Prompting => Vec::new(),
            State::Queued => {
                self.state = State::Cold;
                vec![Effect::GiveSlotBack]
            }
            State::Starting { .. } => {
                self.state = State::Closing { since: now };
                vec![Effect::Kill]
            }
            State::Idle { .. } => self.close_engine(now),
            State::Busy { .. } => {
                self.state = State::Closing { since: now };
                vec![Effect::ReturnTurn, Effect::CloseEngine]
            }
        }
    }
}

/// How long kept messages wait in an outage until they are tried again.
fn outage_backoff(outage: Outage) -> Duration {
    match outage {
        Outage::NoSpace => FULL_DISK_PAUSE,
        Outage::NoDocker
        | Outage::NotLoggedIn
        | Outage::ClientRefused
        | Outage::AccountEnded
        | Outage::NoMembership
        | Outage::Refused
        | Outage::RateLimited
        | Outage::QuotaUsedUp
        | Outage::ModelRefused => OUTAGE_PAUSE,
    }
}

/// 5 s after the first attempt, then twice as long each time.
pub fn turn_retry_backoff(attempt: u32) -> Duration {
    exponential_backoff(FIRST_RETRY_PAUSE, attempt.saturating_sub(1), LONGEST_RETRY_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: TimeLimits = TimeLimits { idle: Duration::from_secs(900), turn: Duration::from_secs(1800) };

    /// The world around a machine, which checks that every effect makes sense in it.
    struct World {
        machine: SessionMachine,
        now: Instant,
        slot: WorldSlot,
        container: bool,
        ready: bool,
        turn: bool,
        /// The owner has stopped the turn, and its rows are over.
        stopped: bool,
        /// Waking rows that no turn has claimed.
        pending: u32,
        answered: u32,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum WorldSlot {
        None,
        Asked,
        Held,
    }

    /// What may happen from outside.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Message,
        Grant,
        /// A slot comes unasked.
        GrantAhead,
        Want,
        Ready,
        Step,
        Answer,
        Fail,
        /// The owner stops the turn, and all that waits is over.
        StopTurn,
        EngineDies,
        ContainerEnds,
        Removed,
        UseUpTokens,
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => Just(Act::Message),
            3 => Just(Act::Grant),
            2 => Just(Act::GrantAhead),
            1 => Just(Act::Want),
            3 => Just(Act::Ready),
            2 => Just(Act::Step),
            1 => Just(Act::UseUpTokens),
            3 => Just(Act::Answer),
            1 => Just(Act::Fail),
            2 => Just(Act::StopTurn),
            1 => Just(Act::EngineDies),
            2 => Just(Act::ContainerEnds),
            1 => Just(Act::Removed),
            2 => (0_u64..2_000).prop_map(Act::Wait),
        ]
    }

    impl World {
        fn new() -> Self {
            let (machine, now) = (SessionMachine::new(LIMITS), Instant::now());
            Self {
                machine,
                now,
                slot: WorldSlot::None,
                container: false,
                ready: false,
                turn: false,
                stopped: false,
                pending: 0,
                answered: 0,
            }
        }

        fn act(&mut self, act: Act) {
            match act {
                Act::Message => {
                    self.pending += 1;
                    self.event(SessionEvent::Work);
                }
                Act::Grant if self.slot == WorldSlot::Asked => {
                    self.slot = WorldSlot::Held;
                    self.event(SessionEvent::SlotGranted);
                }
                // It may cross with what the session asks for.
                Act::GrantAhead if self.slot != WorldSlot::Held => {
                    self.slot = WorldSlot::Held;
                    self.event(SessionEvent::SlotGrantedAhead);
                }
                Act::Want if self.slot == WorldSlot::Held => self.event(SessionEvent::SlotWanted),
                Act::Ready if self.container && !self.ready => {
                    self.ready = true;
                    self.event(SessionEvent::EngineReady);
                }
                Act::Step if self.turn => self.event(SessionEvent::SteersWelcome),
                // It may be of a turn that has just ended.
                Act::UseUpTokens => self.event(SessionEvent::TurnTokensUsedUp),
                Act::Answer if self.turn => {
                    self.turn = false;
                    self.answered += 1;
                    let after = if self.pending > 0 { AfterTurn::More } else { AfterTurn::Nothing };
                    self.event(SessionEvent::TurnOver(after));
                }
                Act::StopTurn if self.turn => {
                    self.stopped = true;
                    self.pending = 0;
                    self.event(SessionEvent::TurnStopped);
                }
                Act::StopTurn => self.pending = 0,
                // Nothing of a stopped turn is tried again.
                Act::Fail if self.turn && self.stopped => self.act(Act::Answer),
                Act::Fail if self.turn => {
                    self.turn = false;
                    self.pending += 1;
                    self.event(SessionEvent::TurnOver(AfterTurn::Retry { attempt: 1 }));
                }
                Act::EngineDies if self.container => {
                    self.ready = false;
                    self.event(SessionEvent::Lost(Trouble::EngineDied));
                }
                Act::ContainerEnds if self.container => self.container_ends(),
                Act::Removed => {
                    self.event(SessionEvent::Removed);
                    self.pending = 0;
                }
                Act::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
                Act::Grant
                | Act::GrantAhead
                | Act::Want
                | Act::Ready
                | Act::Step
                | Act::Answer
                | Act::Fail
                | Act::EngineDies
                | Act::ContainerEnds => {}
            }
        }

        /// As the driver reports it: lost first, then ended.
        fn container_ends(&mut self) {
            self.ready = false;
            self.event(SessionEvent::Lost(Trouble::EngineDied));
            if self.container {
                self.container = false;
                self.event(SessionEvent::Ended);
            }
        }

        fn wait(&mut self, length: Duration) {
            let until = self.now + length;
            while let Some(deadline) = self.machine.next_deadline().filter(|deadline| *deadline <= until) {
                self.now = self.now.max(deadline);
                self.event(SessionEvent::Tick);
            }
            self.now = until;
        }

        fn event(&mut self, event: SessionEvent) {
            let mut events = VecDeque::from([event]);
            while let Some(event) = events.pop_front() {
                for effect in self.machine.decide_effects(event, self.now) {
                    events.extend(self.perform(effect));
                }
            }
        }

        fn perform(&mut self, effect: Effect) -> Option<SessionEvent> {
            match effect {
                Effect::AskForSlot => {
                    assert_eq!(self.slot, WorldSlot::None);
                    self.slot = WorldSlot::Asked;
                    None
                }
                Effect::GiveSlotBack => {
                    assert_ne!(self.slot, WorldSlot::None);
                    assert!(!self.container, "a slot is given back with its container still there");
                    self.slot = WorldSlot::None;
                    None
                }
                Effect::Launch => {
                    assert_eq!(self.slot, WorldSlot::Held);
                    assert!(!self.container, "two containers at once");
                    if self.pending == 0 {
                        return Some(SessionEvent::NothingToDo);
                    }
                    self.container = true;
                    None
                }
                Effect::LaunchAhead => {
                    assert_eq!(self.slot, WorldSlot::Held);
                    assert!(!self.container, "two containers at once");
                    self.container = true;
                    None
                }
                Effect::Prompt => {
                    assert!(self.ready && !self.turn);
                    if self.pending == 0 {
                        return Some(SessionEvent::NothingToDo);
                    }
                    self.pending = 0;
                    self.turn = true;
                    self.stopped = false;
                    Some(SessionEvent::Prompted)
                }
                Effect::Steer => {
                    assert!(self.ready && self.turn && !self.stopped, "a stopped turn is told more");
                    self.pending = 0;
                    None
                }
                Effect::Cancel(_) => {
                    assert!(self.turn);
                    None
                }
                Effect::EndStoppedTurn => {
                    assert!(self.turn && self.stopped);
                    self.turn = false;
                    Some(SessionEvent::TurnOver(if self.pending > 0 {
                        AfterTurn::More
                    } else {
                        AfterTurn::Nothing
                    }))
                }
                Effect::FailTurn(_) => {
                    assert!(self.turn && !self.stopped, "a stopped turn fails");
                    self.turn = false;
                    self.pending += 1;
                    Some(SessionEvent::TurnOver(AfterTurn::Retry { attempt: 1 }))
                }
                Effect::FailWaiting(_) => {
                    assert!(!self.turn);
                    Some(SessionEvent::TurnOver(if self.pending > 0 {
                        AfterTurn::Retry { attempt: 1 }
                    } else {
                        AfterTurn::Nothing
                    }))
                }
                Effect::ReturnTurn => {
                    assert!(self.turn);
                    self.turn = false;
                    self.pending += u32::from(!self.stopped);
                    None
                }
                Effect::CloseEngine => {
                    assert!(self.container && !self.turn, "an engine is closed in mid-turn");
                    None
                }
                Effect::Kill => {
                    self.container = false;
                    self.ready = false;
                    Some(SessionEvent::Ended)
                }
            }
        }
    }

    proptest! {
        /// Whatever has happened: with a friendly world from here on, everything that waits is answered.
        #[test]
        fn nothing_waits_for_ever(acts in prop::collection::vec(act(), 0..60)) {
            let mut world = World::new();
            acts.into_iter().for_each(|act| world.act(act));
            for _ in 0..20 {
                for act in [Act::Wait(3_000), Act::Grant, Act::Want, Act::Ready, Act::Step, Act::Answer] {
                    world.act(act);
                }
            }
            prop_assert_eq!(world.pending, 0);
            prop_assert!(!world.turn);
        }

        /// Whatever has happened: after a stop the container goes, and the session is done.
        #[test]
        fn a_stop_always_ends(acts in prop::collection::vec(act(), 0..60)) {
            let mut world = World::new();
            acts.into_iter().for_each(|act| world.act(act));
            world.event(SessionEvent::Stop);
            world.wait(CLOSE_GRACE);
            prop_assert!(world.machine.has_stopped());
            prop_assert!(!world.container && !world.turn);
            prop_assert_eq!(world.slot, WorldSlot::None);
        }
    }

    proptest! {
        /// Whatever has happened, and whatever the engine does: a turn that the owner stops is over in time, is
        /// not tried again, and what comes after it is answered.
        #[test]
        fn a_stopped_turn_ends_in_time(
            before in prop::collection::vec(act(), 0..60), after in prop::collection::vec(act(), 0..3),
        ) {
            let mut world = World::new();
            before.into_iter().for_each(|act| world.act(act));
            for _ in 0..20 {
                for act in [Act::Wait(30), Act::Message, Act::Grant, Act::Ready] {
                    if !world.turn {
                        world.act(act);
                    }
                }
            }
            prop_assert!(world.turn);
            let began = world.now;
            world.act(Act::StopTurn);
            // The engine says nothing more.
            for act in after {
                match act {
                    Act::Message | Act::StopTurn | Act::UseUpTokens | Act::Want | Act::Grant | Act::GrantAhead => {
                        world.act(act);
                    }
                    Act::Ready | Act::Step | Act::Answer | Act::Fail | Act::EngineDies
                    | Act::ContainerEnds | Act::Removed | Act::Wait(_) => {}
                }
            }
            world.wait(STOP_GRACE);
            prop_assert!(!world.turn && world.now == began + STOP_GRACE);
            let answered = world.answered;
            world.act(Act::Message);
            for act in [Act::Wait(3_000), Act::Grant, Act::Want, Act::Ready, Act::Step, Act::Answer] {
                world.act(act);
            }
            prop_assert_eq!(world.answered, answered + 1);
        }
    }

    #[test]
    fn the_pauses_are_5_10_and_20_seconds() {
        assert_eq!([1, 2, 3].map(|attempt| turn_retry_backoff(attempt).as_secs()), [5, 10, 20]);
    }
}
