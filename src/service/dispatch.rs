//! Brings work to the sessions and shares the slots among them. Owns the sessions' mailboxes.
//!
//! A session is made at the first message for its group and kept: without a container it costs next to nothing.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::slots::{Order, Slots};
use crate::auth::claimed_account;
use crate::container::Containers;
use crate::session::machine::OUTAGE_PAUSE;
use crate::session::{self, Command, Host, Report, ReportKind};
use crate::types::{Authorization, GroupName};

/// Commands on their way to a session.
const COMMANDS_IN_FLIGHT: usize = 16;
/// Of those, the places that `Work` leaves free: at most one grant and one wish are on their way at a time.
const SLOT_COMMANDS: usize = 2;
/// Reports on their way from all sessions.
const REPORTS_IN_FLIGHT: usize = 64;

/// Runs until told to stop; returns when every session has stopped, or one has broken off.
pub async fn run<C: Containers>(
    host: Host<C>,
    mut hints: mpsc::Receiver<GroupName>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut account = host.login.authorization();
    let usable = account.borrow_and_update().clone();
    let (report_sender, mut reports) = mpsc::channel(REPORTS_IN_FLIGHT);
    let mut dispatch = Dispatch {
        slots: Slots::new(host.settings.max_agents),
        host,
        sessions: HashMap::new(),
        tasks: JoinSet::new(),
        reports: report_sender,
        account: usable.clone(),
        usable,
        late_renewal: None,
    };
    loop {
        tokio::select! {
            Some(group) = hints.recv() => dispatch.wake(group),
            Some(report) = reports.recv() => dispatch.take_report(report),
            Ok(()) = account.changed() => {
                let now = account.borrow_and_update().clone();
                dispatch.take_account(now);
            }
            Some(Err(error)) = dispatch.tasks.join_next() => {
                tracing::error!("A session broke off: {error}");
                return;
            }
            _ = &mut stopped => break,
        }
    }
    // A session whose mailbox is closed stops.
    dispatch.sessions.clear();
    loop {
        tokio::select! {
            Some(report) = reports.recv() => dispatch.take_report(report),
            ended = dispatch.tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!("A session broke off: {error}"),
                None => return,
            },
        }
    }
}

struct Dispatch<C> {
    host: Host<C>,
    slots: Slots,
    sessions: HashMap<GroupName, mpsc::Sender<Command>>,
    tasks: JoinSet<()>,
    reports: mpsc::Sender<Report>,
    account: Authorization,
    /// The login that was last good for something, as far as is known.
    usable: Authorization,
    /// When a renewal was last told to those who wait.
    late_renewal: Option<Instant>,
}

/// As far as both say whose they are.
fn is_of_another_account(one: &Authorization, other: &Authorization) -> bool {
    let whose = |authorization: &Authorization| match authorization {
        Authorization::Login(token) => claimed_account(token),
        Authorization::ApiKey(_) | Authorization::Missing(_) => None,
    };
    whose(one).zip(whose(other)).is_some_and(|(one, other)| one != other)
}

impl<C: Containers> Dispatch<C> {
    fn wake(&mut self, group: GroupName) {
        let session = self.sessions.entry(group.clone()).or_insert_with(|| {
            let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
            self.tasks.spawn(session::run(self.host.clone(), group.clone(), receiver, self.reports.clone()));
            commands
        });
        // Where none fits, several are still to come, and all say the same: look at the rows.
        if session.capacity() > SLOT_COMMANDS {
            session.try_send(Command::Work).ok();
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
        for session in self.sessions.values().filter(|session| session.capacity() > SLOT_COMMANDS) {
            session.try_send(Command::TryAgain).ok();
        }
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
            ReportKind::SlotAsked => self.slots.ask(group),
            ReportKind::SlotReturned => self.slots.give_back(&group),
            ReportKind::Idle => self.slots.idle(&group),
            ReportKind::Busy => {
                self.slots.busy(&group);
                Vec::new()
            }
        };
        for order in orders {
            let (group, command) = match order {
                Order::Grant(group) => (group, Command::SlotGranted),
                Order::Want(group) => (group, Command::SlotWanted),
            };
            self.tell(&group, command);
        }
    }

    fn tell(&self, group: &GroupName, command: Command) {
        let Some(session) = self.sessions.get(group) else { return };
        if session.try_send(command).is_err() {
            tracing::error!(%group, ?command, "A session's mailbox is full or gone");
        }
    }
}
