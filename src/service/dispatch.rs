//! Brings work to the sessions, and shares the slots among them. Owns the sessions' mailboxes.
//!
//! A session is made at the first message for its group and kept: without a container it costs next to
//! nothing. If a session breaks off, no other one ends. What it left is cleared away, and after a pause the
//! group gets a new session.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ahead::{AheadBackoff, AheadHint};
use super::slots::{SlotOrder, Slots};
use crate::clock::sleep_until_or_never;
use crate::container::{AgentMemory, Containers, MemoryPressure};
use crate::login::{AccountsWatch, parse_claimed_account};
use crate::panics::catch_panic;
use crate::session::machine::{AfterTurn, FIRST_RETRY_PAUSE, OUTAGE_PAUSE, turn_retry_backoff};
use crate::session::{self, ReportKind, SessionCommand, SessionContext, SessionReport};
use crate::store::StoppedTurn;
use crate::types::{Authorization, GroupName, Outage};

/// The most commands on their way to a session.
const COMMANDS_IN_FLIGHT: usize = 16;
/// The places in the mailbox that `Work` leaves free. At most one `SlotGranted`, one `SlotWanted` and one
/// `StopTurn` are on their way at a time: a turn is stopped once, and the next one begins behind it.
const RESERVED_COMMANDS: usize = 3;
/// How often the agents' memory is measured, while there are agents.
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_secs(5);
/// The most reports on their way from all sessions.
const REPORTS_IN_FLIGHT: usize = 64;

/// Runs until it is told to stop. Returns when every session has stopped.
pub async fn run_dispatch<C: Containers>(
    context: SessionContext<C>,
    mut hints: mpsc::Receiver<GroupName>,
    mut expected: mpsc::Receiver<AheadHint>,
    mut turn_stops: mpsc::Receiver<StoppedTurn>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut accounts = AccountsWatch::new(context.accounts.watch_logins());
    let usable = accounts.authorization();
    let (report_sender, mut reports) = mpsc::channel(REPORTS_IN_FLIGHT);
    let mut dispatch = Dispatch {
        slots: Slots::new(context.settings.max_agents, context.settings.agents_memory_bytes),
        ahead: AheadBackoff::default(),
        context,
        entries: HashMap::new(),
        tasks: JoinSet::new(),
        reports: report_sender,
        authorization: usable.clone(),
        usable,
        late_renewal: None,
        docker: JoinSet::new(),
        measurements: JoinSet::new(),
    };
    let mut look_at_memory = interval(LOOK_AT_MEMORY_EVERY);
    look_at_memory.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next_return = dispatch.next_rest_end();
        tokio::select! {
            Some(group) = hints.recv() => dispatch.wake_group(group),
            Some(hint) = expected.recv() => dispatch.start_agent_ahead(hint),
            Some(StoppedTurn { group, turn }) = turn_stops.recv() => {
                dispatch.send_command(&group, SessionCommand::StopTurn(turn));
            }
            Some(report) = reports.recv() => dispatch.handle_report(report),
            () = accounts.changed() => dispatch.handle_login_change(accounts.authorization()),
            Some(Ok(end)) = dispatch.tasks.join_next() => dispatch.handle_task_end(end, &mut reports),
            () = sleep_until_or_never(next_return) => dispatch.end_due_rests(),
            Some(_) = dispatch.docker.join_next() => dispatch.handle_docker_recovery().await,
            _ = look_at_memory.tick(), if dispatch.may_measure_memory() => dispatch.spawn_memory_measurement(),
            Some(Ok(memory)) = dispatch.measurements.join_next() => dispatch.handle_memory_measurement(&memory),
            _ = &mut stopped => break,
        }
    }
    // A session whose mailbox is closed stops, and gets no successor.
    dispatch.entries.clear();
    loop {
        tokio::select! {
            Some(report) = reports.recv() => dispatch.handle_report(report),
            end = dispatch.tasks.join_next() => match end {
                Some(Ok(end)) => dispatch.handle_task_end(end, &mut reports),
                Some(Err(_)) => {}
                None => return,
            },
        }
    }
}

struct Dispatch<C> {
    context: SessionContext<C>,
    slots: Slots,
    ahead: AheadBackoff,
    entries: HashMap<GroupName, GroupEntry>,
    tasks: JoinSet<(GroupName, GroupTaskEnd)>,
    reports: mpsc::Sender<SessionReport>,
    authorization: Authorization,
    /// The last login that was usable, as far as is known.
    usable: Authorization,
    /// When a late renewal last made the sessions try again.
    late_renewal: Option<Instant>,
    /// Waits for Docker while it does not answer. Empty while it does.
    docker: JoinSet<()>,
    /// Measures the agents' memory.
    measurements: JoinSet<AgentMemory>,
}

/// What there is for a group.
enum GroupEntry {
    Session(mpsc::Sender<SessionCommand>),
    /// The group's session broke off. `until` is when the next one may begin, set when all is cleared away.
    Resting {
        until: Option<Instant>,
        is_woken: bool,
    },
}

/// How a task for a group has ended.
enum GroupTaskEnd {
    Stopped,
    BrokeOff,
    /// What a session left is cleared away, and this is pending.
    ClearedAway(AfterTurn),
}

/// Whether two logins belong to different accounts, as far as both name theirs.
fn is_other_account(one: &Authorization, other: &Authorization) -> bool {
    let whose = |authorization: &Authorization| match authorization {
        Authorization::Login(token) => parse_claimed_account(token),
        Authorization::ApiKey(_) | Authorization::Missing(_) => None,
    };
    whose(one).zip(whose(other)).is_some_and(|(one, other)| one != other)
}

impl GroupEntry {
    fn rests_until(&self) -> Option<Instant> {
        match self {
            Self::Session(_) => None,
            Self::Resting { until, .. } => *until,
        }
    }
}

/// How long a group rests after its session broke off, and whether something is pending then.
fn backoff_after_break(after: AfterTurn) -> (Duration, bool) {
    match after {
        AfterTurn::Nothing => (FIRST_RETRY_PAUSE, false),
        AfterTurn::More | AfterTurn::Outage(_) => (FIRST_RETRY_PAUSE, true),
        AfterTurn::Retry { attempt } => (turn_retry_backoff(attempt), true),
    }
}

impl<C: Containers> Dispatch<C> {
    /// Starts an agent ahead of need, if it may: somebody may ask for something soon.
    fn start_agent_ahead(&mut self, AheadHint { group, is_asked_for }: AheadHint) {
        if is_asked_for {
            self.ahead.reset_backoff(&group);
        }
        let rests = matches!(self.entries.get(&group), Some(GroupEntry::Resting { .. }));
        if rests
            || !self.ahead.may_start_ahead(&group, Instant::now())
            || !self.slots.try_take_slot_ahead(&group)
        {
            return;
        }
        tracing::debug!(%group, "An agent is started ahead of need");
        self.get_or_spawn_session(&group);
        self.send_command(&group, SessionCommand::SlotGrantedAhead);
    }

    /// The group's entry. Spawns a session if there is no entry.
    fn get_or_spawn_session(&mut self, group: &GroupName) -> &mut GroupEntry {
        self.entries.entry(group.clone()).or_insert_with(|| {
            let group = group.clone();
            let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
            let session =
                session::run_session(self.context.clone(), group.clone(), receiver, self.reports.clone());
            self.tasks.spawn(async move {
                let end =
                    catch_panic(session).await.map_or(GroupTaskEnd::BrokeOff, |()| GroupTaskEnd::Stopped);
                (group, end)
            });
            GroupEntry::Session(commands)
        })
    }

    fn wake_group(&mut self, group: GroupName) {
        match self.get_or_spawn_session(&group) {
            // If the mailbox is full, several wake-ups are on their way already. All say the same: look at
            // the rows.
            GroupEntry::Session(session) if session.capacity() > RESERVED_COMMANDS => {
                session.try_send(SessionCommand::Work).ok();
            }
            GroupEntry::Session(_) => {}
            GroupEntry::Resting { is_woken, .. } => *is_woken = true,
        }
    }

    fn handle_task_end(
        &mut self,
        (group, end): (GroupName, GroupTaskEnd),
        reports: &mut mpsc::Receiver<SessionReport>,
    ) {
        match end {
            GroupTaskEnd::Stopped => {}
            GroupTaskEnd::BrokeOff => {
                tracing::error!(%group, "A session broke off; the group gets another one");
                // Its reports about its slot must not come after the slot was given back.
                while let Ok(report) = reports.try_recv() {
                    self.handle_report(report);
                }
                self.entries.insert(group.clone(), GroupEntry::Resting { until: None, is_woken: false });
                let clearing = session::clean_up_broken_session(self.context.clone(), group.clone());
                self.tasks.spawn(async move {
                    let after = catch_panic(clearing).await.unwrap_or(AfterTurn::Retry { attempt: 1 });
                    (group, GroupTaskEnd::ClearedAway(after))
                });
            }
            GroupTaskEnd::ClearedAway(after) => {
                self.handle_report(SessionReport { group: group.clone(), kind: ReportKind::SlotReturned });
                if let Some(GroupEntry::Resting { until, is_woken }) = self.entries.get_mut(&group) {
                    let (pause, is_pending) = backoff_after_break(after);
                    *until = Some(Instant::now() + pause);
                    *is_woken |= is_pending;
                }
            }
        }
    }

    /// When the next group may have a session again.
    fn next_rest_end(&self) -> Option<Instant> {
        self.entries.values().filter_map(GroupEntry::rests_until).min()
    }

    fn end_due_rests(&mut self) {
        let now = Instant::now();
        let rested =
            self.entries.extract_if(|_, place| place.rests_until().is_some_and(|until| until <= now));
        for (group, place) in rested.collect::<Vec<_>>() {
            if matches!(place, GroupEntry::Resting { is_woken: true, .. }) {
                self.wake_group(group);
            }
        }
    }

    /// Kimi may accept another login. Sessions that wait for one need not wait any longer.
    fn handle_login_change(&mut self, now: Authorization) {
        let before = std::mem::replace(&mut self.authorization, now.clone());
        if matches!(now, Authorization::Missing(_)) {
            return;
        }
        let last = std::mem::replace(&mut self.usable, now);
        // A login that was only in doubt for a while is the same one.
        let was_missing = matches!(before, Authorization::Missing(_)) && last != self.usable;
        let may_try = was_missing || is_other_account(&last, &self.usable) || self.is_awaited_refresh(&last);
        if !may_try {
            return;
        }
        self.retry_all_sessions();
    }

    fn retry_all_sessions(&self) {
        for place in self.entries.values() {
            match place {
                GroupEntry::Session(session) if session.capacity() > RESERVED_COMMANDS => {
                    session.try_send(SessionCommand::TryAgain).ok();
                }
                GroupEntry::Session(_) | GroupEntry::Resting { .. } => {}
            }
        }
    }

    /// Sessions that wait for Docker need not wait any longer.
    async fn handle_docker_recovery(&mut self) {
        tracing::info!("Docker answers");
        if let Err(error) = self.context.store.end_outage(Outage::NoDocker, self.context.clock.now()).await {
            tracing::error!("Failed to note that Docker answers: {error:#}");
        }
        self.retry_all_sessions();
    }

    /// Whether this renewal is the one that a refused request has asked for, and that came too late for it.
    /// Other renewals change nothing for the sessions that wait. If Kimi refuses each new login, a renewal
    /// counts as news only now and then.
    fn is_awaited_refresh(&mut self, last: &Authorization) -> bool {
        let Authorization::Login(token) = last else { return false };
        let was_refused = *last != self.usable && self.context.accounts.was_refused(token);
        let is_news = self.late_renewal.is_none_or(|at| at.elapsed() >= OUTAGE_PAUSE);
        if was_refused && is_news {
            self.late_renewal = Some(Instant::now());
        }
        was_refused && is_news
    }

    fn handle_report(&mut self, SessionReport { group, kind }: SessionReport) {
        let orders = match kind {
            ReportKind::SlotAsked => {
                self.ahead.reset_backoff(&group);
                self.slots.request_slot(group)
            }
            ReportKind::SlotReturned => self.slots.release_slot(&group),
            ReportKind::NoDocker => {
                if self.docker.is_empty() {
                    let context = self.context.clone();
                    self.docker.spawn(async move { session::wait_for_docker(&context).await });
                }
                Vec::new()
            }
            ReportKind::Idle => self.slots.mark_idle(&group),
            ReportKind::Busy => {
                self.slots.mark_busy(&group);
                Vec::new()
            }
            ReportKind::AheadUsed => {
                self.ahead.record_ahead_used(&group);
                self.slots.mark_needed(&group);
                self.log_ahead_counts();
                Vec::new()
            }
            ReportKind::AheadInVain => {
                self.ahead.record_ahead_unused(group, Instant::now());
                self.log_ahead_counts();
                Vec::new()
            }
        };
        self.send_slot_orders(orders);
    }

    /// Whether a group holds a slot, and no measurement is running.
    fn may_measure_memory(&self) -> bool {
        self.measurements.is_empty() && self.slots.holding_groups().next().is_some()
    }

    fn spawn_memory_measurement(&mut self) {
        let (containers, paths) = (self.context.containers.clone(), &self.context.paths);
        let groups =
            self.slots.holding_groups().map(|group| (group.clone(), paths.group_folder(group))).collect();
        self.measurements.spawn(async move { containers.measure_group_memory(groups).await });
    }

    fn handle_memory_measurement(&mut self, memory: &AgentMemory) {
        let is_short = memory.pressure == MemoryPressure::Some;
        let orders = self.slots.update_memory_use(|group| memory.held.get(group).copied(), is_short);
        self.send_slot_orders(orders);
    }

    fn send_slot_orders(&self, orders: Vec<SlotOrder>) {
        for order in orders {
            let (group, command) = match order {
                SlotOrder::Grant(group) => (group, SessionCommand::SlotGranted),
                SlotOrder::Want(group) => (group, SessionCommand::SlotWanted),
            };
            self.send_command(&group, command);
        }
    }

    fn log_ahead_counts(&self) {
        let AheadBackoff { used, in_vain, .. } = self.ahead;
        tracing::info!(used, in_vain, "Agents were started ahead of need");
    }

    fn send_command(&self, group: &GroupName, command: SessionCommand) {
        let Some(GroupEntry::Session(session)) = self.entries.get(group) else { return };
        if session.try_send(command).is_err() {
            tracing::error!(%group, ?command, "A session's mailbox is full or gone");
        }
    }
}
