//! Brings work to the sessions and shares the slots among them. Owns the sessions' mailboxes.
//!
//! A session is made at the first message for its group and kept: without a container it costs next to nothing. One that
//! breaks off ends no other: what it left is cleared away, and after a pause the group gets a new one.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ahead::Ahead;
use super::slots::{Order, Slots};
use crate::auth::claimed_account;
use crate::clock::sleep_until_or_never;
use crate::container::{Containers, Memory, Pressure};
use crate::panics::contain;
use crate::session::machine::{After, FIRST_RETRY_PAUSE, OUTAGE_PAUSE, retry_pause};
use crate::session::{self, Command, Host, Report, ReportKind};
use crate::types::{Authorization, GroupName, Outage};

/// Commands on their way to a session.
const COMMANDS_IN_FLIGHT: usize = 16;
/// Of those, the places that `Work` leaves free: at most one grant and one wish are on their way at a time.
const SLOT_COMMANDS: usize = 2;
/// How often what the agents hold of the memory is looked at, while there are any.
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_secs(5);
/// Reports on their way from all sessions.
const REPORTS_IN_FLIGHT: usize = 64;

/// Runs until told to stop; returns when every session has stopped.
pub async fn run<C: Containers>(
    host: Host<C>,
    mut hints: mpsc::Receiver<GroupName>,
    mut expected: mpsc::Receiver<GroupName>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut account = host.login.authorization();
    let usable = account.borrow_and_update().clone();
    let (report_sender, mut reports) = mpsc::channel(REPORTS_IN_FLIGHT);
    let mut dispatch = Dispatch {
        slots: Slots::new(host.settings.max_agents, host.settings.agents_memory_bytes),
        ahead: Ahead::default(),
        host,
        places: HashMap::new(),
        tasks: JoinSet::new(),
        reports: report_sender,
        account: usable.clone(),
        usable,
        late_renewal: None,
        docker: JoinSet::new(),
        looks: JoinSet::new(),
    };
    let mut look_at_memory = interval(LOOK_AT_MEMORY_EVERY);
    look_at_memory.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next_return = dispatch.next_return();
        tokio::select! {
            Some(group) = hints.recv() => dispatch.wake(group),
            Some(group) = expected.recv() => dispatch.start_ahead(group),
            Some(report) = reports.recv() => dispatch.take_report(report),
            Ok(()) = account.changed() => {
                let now = account.borrow_and_update().clone();
                dispatch.take_account(now);
            }
            Some(Ok(end)) = dispatch.tasks.join_next() => dispatch.take_end(end, &mut reports),
            () = sleep_until_or_never(next_return) => dispatch.let_return(),
            Some(_) = dispatch.docker.join_next() => dispatch.docker_is_back().await,
            _ = look_at_memory.tick(), if dispatch.may_look() => dispatch.look_at_memory(),
            Some(Ok(memory)) = dispatch.looks.join_next() => dispatch.take_memory(&memory),
            _ = &mut stopped => break,
        }
    }
    // A session whose mailbox is closed stops, and nobody comes back.
    dispatch.places.clear();
    loop {
        tokio::select! {
            Some(report) = reports.recv() => dispatch.take_report(report),
            end = dispatch.tasks.join_next() => match end {
                Some(Ok(end)) => dispatch.take_end(end, &mut reports),
                Some(Err(_)) => {}
                None => return,
            },
        }
    }
}

struct Dispatch<C> {
    host: Host<C>,
    slots: Slots,
    ahead: Ahead,
    places: HashMap<GroupName, Place>,
    tasks: JoinSet<(GroupName, End)>,
    reports: mpsc::Sender<Report>,
    account: Authorization,
    /// The login that was last good for something, as far as is known.
    usable: Authorization,
    /// When a renewal was last told to those who wait.
    late_renewal: Option<Instant>,
    /// Looks for Docker while it does not answer; empty while it does.
    docker: JoinSet<()>,
    /// Looks at what the agents hold of the memory.
    looks: JoinSet<Memory>,
}

/// What there is for a group.
enum Place {
    Session(mpsc::Sender<Command>),
    /// Its session broke off. `until` is when the next one may begin, once all is cleared away.
    Resting {
        until: Option<Instant>,
        is_woken: bool,
    },
}

/// How a task for a group has ended.
enum End {
    Stopped,
    BrokeOff,
    /// What was left of a session is cleared away, and this is pending.
    ClearedAway(After),
}

/// As far as both say whose they are.
fn is_of_another_account(one: &Authorization, other: &Authorization) -> bool {
    let whose = |authorization: &Authorization| match authorization {
        Authorization::Login(token) => claimed_account(token),
        Authorization::ApiKey(_) | Authorization::Missing(_) => None,
    };
    whose(one).zip(whose(other)).is_some_and(|(one, other)| one != other)
}

impl Place {
    fn rests_until(&self) -> Option<Instant> {
        match self {
            Self::Session(_) => None,
            Self::Resting { until, .. } => *until,
        }
    }
}

/// How long a group rests whose session broke off, and whether something is pending then.
fn rest_after(after: After) -> (Duration, bool) {
    match after {
        After::Nothing => (FIRST_RETRY_PAUSE, false),
        After::More | After::Outage(_) => (FIRST_RETRY_PAUSE, true),
        After::Retry { attempt } => (retry_pause(attempt), true),
    }
}

impl<C: Containers> Dispatch<C> {
    /// There is somebody who may ask for something soon.
    fn start_ahead(&mut self, group: GroupName) {
        let rests = matches!(self.places.get(&group), Some(Place::Resting { .. }));
        if rests || !self.ahead.may_start(&group, Instant::now()) || !self.slots.take_ahead(&group) {
            return;
        }
        tracing::debug!(%group, "An agent is started ahead of need");
        self.place(&group);
        self.tell(&group, Command::SlotGrantedAhead);
    }

    /// What there is for a group, which is made where it is missing.
    fn place(&mut self, group: &GroupName) -> &mut Place {
        self.places.entry(group.clone()).or_insert_with(|| {
            let group = group.clone();
            let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
            let session = session::run(self.host.clone(), group.clone(), receiver, self.reports.clone());
            self.tasks.spawn(async move {
                let end = contain(session).await.map_or(End::BrokeOff, |()| End::Stopped);
                (group, end)
            });
            Place::Session(commands)
        })
    }

    fn wake(&mut self, group: GroupName) {
        match self.place(&group) {
            // Where none fits, several are still to come, and all say the same: look at the rows.
            Place::Session(session) if session.capacity() > SLOT_COMMANDS => {
                session.try_send(Command::Work).ok();
            }
            Place::Session(_) => {}
            Place::Resting { is_woken, .. } => *is_woken = true,
        }
    }

    fn take_end(&mut self, (group, end): (GroupName, End), reports: &mut mpsc::Receiver<Report>) {
        match end {
            End::Stopped => {}
            End::BrokeOff => {
                tracing::error!(%group, "A session broke off; the group gets another one");
                // What it has said of its slot must not come after the slot was given back.
                while let Ok(report) = reports.try_recv() {
                    self.take_report(report);
                }
                self.places.insert(group.clone(), Place::Resting { until: None, is_woken: false });
                let clearing = session::clear_away(self.host.clone(), group.clone());
                self.tasks.spawn(async move {
                    let after = contain(clearing).await.unwrap_or(After::Retry { attempt: 1 });
                    (group, End::ClearedAway(after))
                });
            }
            End::ClearedAway(after) => {
                self.take_report(Report { group: group.clone(), kind: ReportKind::SlotReturned });
                if let Some(Place::Resting { until, is_woken }) = self.places.get_mut(&group) {
                    let (pause, is_pending) = rest_after(after);
                    *until = Some(Instant::now() + pause);
                    *is_woken |= is_pending;
                }
            }
        }
    }

    /// When the next group may have a session again.
    fn next_return(&self) -> Option<Instant> {
        self.places.values().filter_map(Place::rests_until).min()
    }

    fn let_return(&mut self) {
        let now = Instant::now();
        let rested = self.places.extract_if(|_, place| place.rests_until().is_some_and(|until| until <= now));
        for (group, place) in rested.collect::<Vec<_>>() {
            if matches!(place, Place::Resting { is_woken: true, .. }) {
                self.wake(group);
            }
        }
    }

    /// Kimi may let another login in: whoever waits for that need not wait any longer.
    fn take_account(&mut self, now: Authorization) {
        let before = std::mem::replace(&mut self.account, now.clone());
        if matches!(now, Authorization::Missing(_)) {
            return;
        }
        let last = std::mem::replace(&mut self.usable, now);
        // A login that was only doubted is no other one.
        let was_missing = matches!(before, Authorization::Missing(_)) && last != self.usable;
        let may_try = was_missing || is_of_another_account(&last, &self.usable) || self.was_waited_for(&last);
        if !may_try {
            return;
        }
        self.let_all_try_again();
    }

    fn let_all_try_again(&self) {
        for place in self.places.values() {
            match place {
                Place::Session(session) if session.capacity() > SLOT_COMMANDS => {
                    session.try_send(Command::TryAgain).ok();
                }
                Place::Session(_) | Place::Resting { .. } => {}
            }
        }
    }

    /// Whoever waits for Docker need not wait any longer.
    async fn docker_is_back(&mut self) {
        tracing::info!("Docker answers");
        if let Err(error) = self.host.store.end_outage(Outage::NoDocker, self.host.clock.now()).await {
            tracing::error!("Failed to note that Docker answers: {error:#}");
        }
        self.let_all_try_again();
    }

    /// Whether a renewal is the one that a refusal has asked for, and that came too late for whoever was refused: others
    /// change nothing for who waits. Where each new login is refused again, that counts as news now and then only.
    fn was_waited_for(&mut self, last: &Authorization) -> bool {
        let Authorization::Login(token) = last else { return false };
        let refusals = self.host.login.refusals();
        let was_refused = *last != self.usable && refusals.borrow().as_ref() == Some(token);
        let is_news = self.late_renewal.is_none_or(|at| at.elapsed() >= OUTAGE_PAUSE);
        if was_refused && is_news {
            self.late_renewal = Some(Instant::now());
        }
        was_refused && is_news
    }

    fn take_report(&mut self, Report { group, kind }: Report) {
        let orders = match kind {
            ReportKind::SlotAsked => {
                self.ahead.asked(&group);
                self.slots.ask(group)
            }
            ReportKind::SlotReturned => self.slots.give_back(&group),
            ReportKind::NoDocker => {
                if self.docker.is_empty() {
                    let host = self.host.clone();
                    self.docker.spawn(async move { session::docker_answers(&host).await });
                }
                Vec::new()
            }
            ReportKind::Idle => self.slots.idle(&group),
            ReportKind::Busy => {
                self.slots.busy(&group);
                Vec::new()
            }
            ReportKind::AheadUsed => {
                self.ahead.was_used(&group);
                self.slots.needed(&group);
                self.count_ahead();
                Vec::new()
            }
            ReportKind::AheadInVain => {
                self.ahead.was_in_vain(group, Instant::now());
                self.count_ahead();
                Vec::new()
            }
        };
        self.give(orders);
    }

    /// Whether somebody could be asked for a slot, and nobody looks already.
    fn may_look(&self) -> bool {
        self.looks.is_empty() && self.slots.holders().next().is_some()
    }

    fn look_at_memory(&mut self) {
        let (containers, paths) = (self.host.containers.clone(), &self.host.paths);
        let groups = self.slots.holders().map(|group| (group.clone(), paths.group(group))).collect();
        self.looks.spawn(async move { containers.memory(groups).await });
    }

    fn take_memory(&mut self, memory: &Memory) {
        let is_short = memory.pressure == Pressure::Some;
        let orders = self.slots.measured(|group| memory.held.get(group).copied(), is_short);
        self.give(orders);
    }

    fn give(&self, orders: Vec<Order>) {
        for order in orders {
            let (group, command) = match order {
                Order::Grant(group) => (group, Command::SlotGranted),
                Order::Want(group) => (group, Command::SlotWanted),
            };
            self.tell(&group, command);
        }
    }

    fn count_ahead(&self) {
        let Ahead { used, in_vain, .. } = self.ahead;
        tracing::info!(used, in_vain, "Agents were started ahead of need");
    }

    fn tell(&self, group: &GroupName, command: Command) {
        let Some(Place::Session(session)) = self.places.get(group) else { return };
        if session.try_send(command).is_err() {
            tracing::error!(%group, ?command, "A session's mailbox is full or gone");
        }
    }
}
