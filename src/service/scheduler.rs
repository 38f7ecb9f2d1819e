//! Brings tasks to their groups on time, tells chats what went wrong with tasks, and ends the questions that the
//! owner has not answered in time.
//!
//! The rows say what is due, and when. This sleeps until then, or until somebody has changed a task: in this
//! process by the hint, in another one by the signal. Nothing is polled. But the wall clock may be set, and
//! goes on while the machine sleeps: as long as there is a task, it is looked at now and then.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::ahead::AheadHint;
use super::task_signal::TaskSignal;
use crate::container::Containers;
use crate::session::SessionContext;
use crate::store::OutboxChange;
use crate::types::GroupName;

/// How often the wall clock is looked at while there is a task: well within the time in which a run counts as
/// on time.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_secs(2 * 60);
/// How long before a task is due its agent is started. It takes 2 to 3 seconds, on a busy machine longer.
const START_AHEAD: SignedDuration = SignedDuration::from_secs(10);
/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(30);
/// If the wall clock has fallen back by more than this, somebody has set it.
const CLOCK_SET_BACK: SignedDuration = SignedDuration::from_mins(1);

/// Where what is due is passed on, as intake does it.
pub struct TaskHints {
    /// The groups that have something new to do.
    pub woken: mpsc::Sender<GroupName>,
    /// The groups that will have something to do in a moment.
    pub expected: mpsc::Sender<AheadHint>,
}

/// What the scheduler remembers between two looks.
struct Scheduler<'a, C> {
    context: &'a SessionContext<C>,
    hints: TaskHints,
    /// The groups whose agents were started for what is due next.
    started_ahead: Vec<GroupName>,
    /// The wall clock and the clock that nobody sets, at the last look.
    last_look: Option<(Timestamp, Instant)>,
}

/// Runs until the service stops.
pub async fn run_scheduler<C: Containers>(
    context: &SessionContext<C>,
    hints: TaskHints,
    signal: TaskSignal,
) -> Infallible {
    let mut scheduler = Scheduler { context, hints, started_ahead: Vec::new(), last_look: None };
    loop {
        let pause = scheduler.handle_due_work().await.unwrap_or_else(|error| {
            tracing::error!("Failed to look after tasks and questions: {error:#}");
            Some(ERROR_PAUSE)
        });
        tokio::select! {
            () = context.tasks_hint.notified() => {}
            () = signal.wait_for_signal() => scheduler.wake_waiting_groups().await,
            () = sleep_or_never(pause) => {}
        }
    }
}

async fn sleep_or_never(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

impl<C: Containers> Scheduler<'_, C> {
    /// Returns for how long nothing is to be done then, if ever.
    async fn handle_due_work(&mut self) -> Result<Option<Duration>> {
        let of_tasks = self.handle_due_tasks().await?;
        let of_questions = self.end_old_questions().await?;
        Ok(of_tasks.into_iter().chain(of_questions).min())
    }

    /// Ends the questions to the owner that are over; the rest as [`Self::handle_due_tasks`].
    async fn end_old_questions(&self) -> Result<Option<Duration>> {
        let (now, rules) = (self.context.clock.now(), self.context.settings.store_rules());
        let expired = self.context.store.expire_approvals(rules, now).await?;
        for group in expired.woken {
            self.hints.woken.send(group).await.ok();
        }
        if expired.outbox == OutboxChange::Changed {
            self.context.outbox_hint.notify_one();
        }
        Ok(expired.next_at.map(|next_at| pause_of(next_at.duration_since(now))))
    }

    /// Claims what is due and wakes its groups; returns for how long nothing is to be done then, if ever.
    async fn handle_due_tasks(&mut self) -> Result<Option<Duration>> {
        let store = &self.context.store;
        if self.is_clock_set_back() {
            let brought = store.bring_tasks_forward(self.context.clock.now()).await;
            if brought.is_err() {
                // The next look finds it out again.
                self.last_look = None;
            }
            brought?;
        }
        loop {
            let claimed = store.claim_due_tasks(self.context.clock.now()).await?;
            for group in claimed.woken {
                tracing::info!(%group, "A task is due");
                self.started_ahead.retain(|started| *started != group);
                self.hints.woken.send(group).await.ok();
            }
            if !claimed.has_more {
                break;
            }
        }
        let now = self.context.clock.now();
        let told = store.tell_task_news(self.context.settings.store_rules(), now).await?;
        if told == OutboxChange::Changed {
            self.context.outbox_hint.notify_one();
        }
        let Some(next) = store.next_task_due_at().await? else {
            self.last_look = None;
            return Ok(None);
        };
        let left = next.duration_since(now);
        if left > START_AHEAD {
            return Ok(Some(pause_of(left.saturating_sub(START_AHEAD))));
        }
        self.start_agents_ahead(now).await?;
        Ok(Some(pause_of(left)))
    }

    /// Wakes the groups of runs that another process has made due. For others that wait it is one more try.
    async fn wake_waiting_groups(&self) {
        match self.context.store.groups_with_waiting_runs().await {
            Ok(groups) => {
                for group in groups {
                    self.hints.woken.send(group).await.ok();
                }
            }
            Err(error) => tracing::error!("Failed to look for runs of tasks that wait: {error:#}"),
        }
    }

    async fn start_agents_ahead(&mut self, now: Timestamp) -> Result<()> {
        let until = now.saturating_add(START_AHEAD)?;
        for group in self.context.store.groups_with_tasks_due_until(until).await? {
            if !self.started_ahead.contains(&group) {
                self.started_ahead.push(group.clone());
                // It is worth no wait. What will be asked is certain: starts in vain before do not matter.
                self.hints.expected.try_send(AheadHint { group, is_asked_for: true }).ok();
            }
        }
        Ok(())
    }

    /// Whether the wall clock has gone back since the last look. What an earlier process saw is not known, so
    /// the first look counts, too.
    fn is_clock_set_back(&mut self) -> bool {
        let (wall, instant) = (self.context.clock.now(), Instant::now());
        let last = self.last_look.replace((wall, instant));
        last.is_none_or(|(last_wall, last_instant)| {
            let gone = SignedDuration::try_from(instant.duration_since(last_instant));
            let expected = last_wall.saturating_add(gone.unwrap_or_default()).unwrap_or(last_wall);
            expected.duration_since(wall) > CLOCK_SET_BACK
        })
    }
}

/// The wall clock may be set meanwhile.
fn pause_of(left: SignedDuration) -> Duration {
    Duration::try_from(left).unwrap_or_default().min(LOOK_AT_CLOCK_EVERY)
}
