//! The tables `tasks` and `task_runs`: what Kai does on time, and every time that it was due.
//!
//! ```text
//! due ──claimed by a turn──▶ running ──▶ answered | failed
//!  ▲                            │ └──nanokimi was killed──▶ unknown (told, never repeated)
//!  └──returned, kept, retried───┘          skipped: too late, or another run was open
//! ```
//! A run is a row of `inbox` too, written by the transaction that claims its instant and moves the task on:
//! `(task, due_at)` is unique, so an instant has one run. What follows from times and ends, `rules::tasks`
//! decides. How runs follow the turns is in `runs`, what somebody does to a task in `changes`.

mod changes;
mod runs;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::outbox::enqueue;
use super::{OutboxChange, Reply, Store, from_unix_millis, to_unix_millis};
use crate::rules::Rules;
use crate::rules::tasks::{
    DueTaskChange, TaskDraft, decide_due_task, paused_task_notice, unknown_run_notice,
};
use crate::schedule::{DueRun, LateRule, Schedule, ScheduleBase, parse_zone};
use crate::types::{
    ChatId, GroupName, PauseReason, RunReason, Task, TaskContext, TaskRun, TaskRunState, TaskState,
};

pub(super) use runs::{
    LateRuns, abandon_claimed_runs, fail_waiting_runs, follow_turn_end, is_turn_of_tasks_only,
    lateness_of_row, read_last_answer, read_only_if, read_tokens_left, record_running_run, skip_late_runs,
    skip_runs_of_turn, stop_runs_of_chat, task_id_of_sender,
};

/// Most tasks whose instants one transaction claims, so that other writers do not wait long.
const CLAIMED_AT_ONCE: i64 = 64;
/// The runs of each task that are kept: half a year of a daily one.
const RUNS_KEPT: i64 = 200;

/// What has come of claiming what is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimedTasks {
    /// The groups that have something new to do, each once.
    pub woken: Vec<GroupName>,
    /// Whether more may be due.
    pub has_more: bool,
}

/// What [`task_from_row`] reads.
const TASK_COLUMNS: &str = "tasks.id, tasks.group_name, tasks.text, tasks.schedule, tasks.zone, tasks.late,
    tasks.context, tasks.only_if, tasks.max_tokens, tasks.state, tasks.paused_why, tasks.next_at, tasks.failures, tasks.created_at";
/// What [`run_from_row`] reads.
const RUN_COLUMNS: &str = "due_at, late_millis, state, why, tokens, ended_at";

impl Store {
    /// Claims the instants that have passed: each becomes a run with its row in the inbox, or is skipped, in
    /// the transaction that moves its task on.
    pub async fn claim_due_tasks(&self, now: Timestamp) -> Result<ClaimedTasks> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(&format!(
                "SELECT {TASK_COLUMNS}, groups.chat FROM tasks INDEXED BY tasks_due
                 JOIN groups ON groups.name = tasks.group_name
                 WHERE tasks.state = 'active' AND tasks.next_at <= ?1 ORDER BY tasks.next_at LIMIT ?2"
            ))?;
            let due = statement
                .query_map(params![to_unix_millis(now), CLAIMED_AT_ONCE], |row| {
                    Ok((task_from_row(row)?, ChatId::new(row.get::<_, String>("chat")?)))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            let mut claimed =
                ClaimedTasks { has_more: due.len() as i64 >= CLAIMED_AT_ONCE, ..ClaimedTasks::default() };
            for (task, chat) in due {
                let task = task?;
                let has_run = claim_due_task(&transaction, &task, &chat, now)?;
                if has_run && !claimed.woken.contains(&task.group) {
                    claimed.woken.push(task.group);
                }
            }
            transaction.commit()?;
            Ok(claimed)
        })
        .await
    }

    /// When the next task is due.
    pub async fn next_task_due_at(&self) -> Result<Option<Timestamp>> {
        self.with_connection(|connection| {
            let next: Option<i64> = connection
                .prepare_cached("SELECT min(next_at) FROM tasks INDEXED BY tasks_due WHERE state = 'active'")?
                .query_row([], |row| row.get(0))?;
            Ok(next.map(from_unix_millis))
        })
        .await
    }

    /// The groups that have a task due up to this time in the chat's own session, each once. An isolated one
    /// begins with an engine of its own, which starts when the run does.
    pub async fn groups_with_tasks_due_until(&self, until: Timestamp) -> Result<Vec<GroupName>> {
        self.with_connection(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT group_name FROM tasks INDEXED BY tasks_due
                 WHERE state = 'active' AND next_at <= ?1 AND context = 'group'",
            )?;
            let names = statement
                .query_map([to_unix_millis(until)], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            names.iter().map(|name| GroupName::parse(name)).collect()
        })
        .await
    }

    /// After the wall clock was set back, tasks would be silent until it is where it was: brings each forward
    /// to its next instant that has no run yet. If the clock only went on, this changes nothing.
    pub async fn bring_tasks_forward(&self, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks INDEXED BY tasks_due WHERE state = 'active' AND next_at > ?1"
            ))?;
            let tasks = statement
                .query_map([to_unix_millis(now)], task_from_row)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            for task in tasks {
                bring_task_forward(&transaction, &task?, now)?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Tells the chats of tasks that were paused because of something, and of runs whose outcome is unknown;
    /// each once.
    pub async fn tell_task_news(&self, rules: Rules, now: Timestamp) -> Result<OutboxChange> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let told =
                tell_unknown_runs(&transaction, &rules, now)? + tell_pauses(&transaction, &rules, now)?;
            transaction.commit()?;
            Ok(if told > 0 { OutboxChange::Changed } else { OutboxChange::Same })
        })
        .await
    }

    /// The groups with a run that waits to be told to their agents, such as one that somebody has asked for in
    /// another process.
    pub async fn groups_with_waiting_runs(&self) -> Result<Vec<GroupName>> {
        self.with_connection(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT tasks.group_name FROM task_runs INDEXED BY task_runs_open
                 JOIN tasks ON tasks.id = task_runs.task
                 JOIN inbox INDEXED BY inbox_task_run ON inbox.task_run = task_runs.id
                 WHERE task_runs.state IN ('due', 'running') AND task_runs.state = 'due'
                   AND inbox.state = 'pending'",
            )?;
            let names = statement
                .query_map([], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            names.iter().map(|name| GroupName::parse(name)).collect()
        })
        .await
    }

    /// A group's tasks, or all; the next that is due comes first.
    pub async fn tasks(&self, group: Option<&GroupName>) -> Result<Vec<Task>> {
        let group = group.cloned();
        self.with_connection(move |connection| read_tasks(connection, group.as_ref())).await
    }

    pub async fn task(&self, id: i64) -> Result<Option<Task>> {
        self.with_connection(move |connection| {
            read_task(connection, id)?.map(|task| with_last_run(connection, task)).transpose()
        })
        .await
    }

    /// The runs of a task, the newest first; at most 200 are kept.
    pub async fn task_history(&self, id: i64) -> Result<Vec<TaskRun>> {
        self.with_connection(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {RUN_COLUMNS} FROM task_runs WHERE task = ?1 ORDER BY due_at DESC"
            ))?;
            let runs = statement.query_map([id], run_from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            runs.into_iter().collect()
        })
        .await
    }
}

/// Claims the instants of one task that have passed; returns whether it has a new run.
fn claim_due_task(connection: &Connection, task: &Task, chat: &ChatId, now: Timestamp) -> Result<bool> {
    let Some(next_at) = task.next_at else { return Ok(false) };
    let (schedule, zone, late) = match read_plan(task) {
        Ok(plan) => plan,
        Err(error) => {
            // Such as a zone that this version's database does not have any more.
            tracing::error!(task = task.id, "Failed to read a task, which is paused: {error:#}");
            runs::set_task_paused(connection, task.id, PauseReason::Unreadable, now)?;
            return Ok(false);
        }
    };
    runs::close_orphaned_runs(connection, task.id, now)?;
    skip_late_runs(connection, LateRuns::OfTask(task.id), now)?;
    let has_open_run = runs::has_open_run(connection, task.id)?;
    let change = decide_due_task((&schedule, &zone), next_at, late, has_open_run, now);
    let Some(DueTaskChange { run, skipped, next_at }) = change else { return Ok(false) };
    connection
        .prepare_cached(
            "UPDATE tasks SET next_at = ?2, state = iif(?2 IS NULL, 'done', state) WHERE id = ?1",
        )?
        .execute(params![task.id, next_at.map(to_unix_millis)])?;
    let inserted = insert_run(connection, task, chat, run, skipped, now)?;
    Ok(inserted && skipped.is_none())
}

fn bring_task_forward(connection: &Connection, task: &Task, now: Timestamp) -> Result<()> {
    let (Some(known), Ok((schedule, zone, _))) = (task.next_at, read_plan(task)) else { return Ok(()) };
    let mut has_run = connection.prepare_cached("SELECT 1 FROM task_runs WHERE task = ?1 AND due_at = ?2")?;
    let mut next = schedule.next_after(now, &zone);
    while let Some(instant) = next.filter(|instant| *instant < known) {
        if !has_run.exists(params![task.id, to_unix_millis(instant)])? {
            connection
                .prepare_cached("UPDATE tasks SET next_at = ?2 WHERE id = ?1")?
                .execute(params![task.id, to_unix_millis(instant)])?;
            return Ok(());
        }
        next = schedule.next_after(instant, &zone);
    }
    Ok(())
}

/// Writes a run, and the row that tells it to the agent if it is not skipped; returns false if its instant
/// has a run already.
fn insert_run(
    connection: &Connection,
    task: &Task,
    chat: &ChatId,
    run: DueRun,
    skipped: Option<RunReason>,
    now: Timestamp,
) -> Result<bool> {
    let state = if skipped.is_some() { TaskRunState::Skipped } else { TaskRunState::Due };
    let due_at = to_unix_millis(run.due_at);
    let inserted = connection
        .prepare_cached(
            "INSERT INTO task_runs (task, due_at, late_millis, state, ended_at, why)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (task, due_at) DO NOTHING",
        )?
        .execute(params![
            task.id,
            due_at,
            i64::try_from(run.late_by.as_millis())?,
            state.name(),
            skipped.map(|_| to_unix_millis(now)),
            skipped.map(RunReason::name)
        ])?;
    if inserted == 0 {
        return Ok(false);
    }
    let row = connection.last_insert_rowid();
    if skipped.is_none() {
        connection
            .prepare_cached(
                "INSERT INTO inbox (chat, wa_id, sender, sender_name, text, sent_at, received_at, wake, task_run)
                 VALUES (?1, ?2, ?3, '', ?4, ?5, ?6, 'wakes', ?7)
                 ON CONFLICT (chat, wa_id, sender) DO NOTHING",
            )?
            .execute(params![
                chat.as_str(),
                format!("task-{}-{due_at}", task.id),
                format!("{}{}", runs::TASK_SENDER, task.id),
                task.text,
                due_at,
                to_unix_millis(now),
                row
            ])?;
    }
    connection
        .prepare_cached(
            "DELETE FROM task_runs WHERE task = ?1 AND state NOT IN ('due', 'running') AND due_at <
             (SELECT due_at FROM task_runs WHERE task = ?1 ORDER BY due_at DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![task.id, RUNS_KEPT - 1])?;
    Ok(true)
}

fn tell_unknown_runs(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<usize> {
    let mut statement = connection.prepare_cached(
        "SELECT task_runs.id, tasks.id, tasks.text, tasks.zone, due_at, groups.chat
         FROM task_runs INDEXED BY task_runs_untold
         JOIN tasks ON tasks.id = task JOIN groups ON groups.name = tasks.group_name
         WHERE task_runs.state = 'unknown' AND told_at IS NULL",
    )?;
    let untold = statement
        .query_map([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                from_unix_millis(row.get(4)?),
                ChatId::new(row.get::<_, String>(5)?),
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (run, task, text, zone, due_at, chat) in &untold {
        let zone = parse_zone(zone).unwrap_or(TimeZone::UTC);
        let notice = unknown_run_notice(rules, (*task, text), *due_at, &zone);
        enqueue::enqueue_reply(connection, chat, None, &Reply::from_text(notice), now)?;
        connection
            .prepare_cached("UPDATE task_runs SET told_at = ?2 WHERE id = ?1")?
            .execute(params![run, to_unix_millis(now)])?;
    }
    Ok(untold.len())
}

fn tell_pauses(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<usize> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {TASK_COLUMNS}, groups.chat FROM tasks INDEXED BY tasks_untold
         JOIN groups ON groups.name = tasks.group_name
         WHERE tasks.state = 'paused' AND pause_told_at IS NULL"
    ))?;
    let untold = statement
        .query_map([], |row| Ok((task_from_row(row)?, ChatId::new(row.get::<_, String>("chat")?))))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut told = 0;
    for (task, chat) in untold {
        let task = task?;
        if let TaskState::Paused(why) = task.state
            && let Some(notice) = paused_task_notice(rules, task.id, &task.text, why)
        {
            enqueue::enqueue_reply(connection, &chat, None, &Reply::from_text(notice), now)?;
            told += 1;
        }
        connection
            .prepare_cached("UPDATE tasks SET pause_told_at = ?2 WHERE id = ?1")?
            .execute(params![task.id, to_unix_millis(now)])?;
    }
    Ok(told)
}

/// Forgets the tasks that were over before this time.
pub(super) fn delete_done_tasks(connection: &Connection, before_millis: i64) -> Result<()> {
    connection.execute(
        "DELETE FROM tasks WHERE state = 'done' AND created_at < ?1
         AND NOT EXISTS (SELECT 1 FROM task_runs WHERE task = tasks.id AND due_at >= ?1)",
        [before_millis],
    )?;
    Ok(())
}

/// A group's tasks, or all; the next that is due comes first.
pub(super) fn read_tasks(connection: &Connection, group: Option<&GroupName>) -> Result<Vec<Task>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {TASK_COLUMNS} FROM tasks WHERE ?1 IS NULL OR group_name = ?1
         ORDER BY next_at IS NULL, next_at, id"
    ))?;
    let tasks = statement
        .query_map([group.map(GroupName::as_str)], task_from_row)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    tasks.into_iter().map(|task| with_last_run(connection, task?)).collect()
}

fn read_task(connection: &Connection, id: i64) -> Result<Option<Task>> {
    connection
        .prepare_cached(&format!("SELECT {TASK_COLUMNS} FROM tasks WHERE id = ?1"))?
        .query_row([id], task_from_row)
        .optional()?
        .transpose()
}

fn with_last_run(connection: &Connection, task: Task) -> Result<Task> {
    let last_run = connection
        .prepare_cached(&format!(
            "SELECT {RUN_COLUMNS} FROM task_runs WHERE task = ?1 ORDER BY due_at DESC LIMIT 1"
        ))?
        .query_row([task.id], run_from_row)
        .optional()?
        .transpose()?;
    Ok(Task { last_run, ..task })
}

/// What a stored task says about its times.
fn read_plan(task: &Task) -> Result<(Schedule, TimeZone, LateRule)> {
    let zone = parse_zone(&task.zone)?;
    // What is stored is relative to nothing.
    let base = ScheduleBase { now: task.created_at, zone: &zone };
    let schedule = Schedule::parse(&task.schedule, base)?;
    Ok((schedule, zone, LateRule::parse(&task.late)?))
}

/// A stored task as somebody would ask for it.
fn draft_of_task(task: &Task) -> TaskDraft {
    TaskDraft {
        text: task.text.clone(),
        schedule: task.schedule.clone(),
        zone: task.zone.clone(),
        late: task.late.clone(),
        context: task.context.name().to_owned(),
        only_if: task.only_if.clone().unwrap_or_default(),
        max_tokens: task.max_tokens,
    }
}

fn task_from_row(row: &Row<'_>) -> rusqlite::Result<Result<Task>> {
    let (state, why): (String, Option<String>) = (row.get("state")?, row.get("paused_why")?);
    let why = PauseReason::ALL.into_iter().find(|reason| stored_pause_reason(*reason) == why.as_deref());
    let group: String = row.get("group_name")?;
    let task = Task {
        id: row.get("id")?,
        group: match GroupName::parse(&group) {
            Ok(group) => group,
            Err(error) => return Ok(Err(error)),
        },
        text: row.get("text")?,
        schedule: row.get("schedule")?,
        zone: row.get("zone")?,
        late: row.get("late")?,
        context: TaskContext::find_by_name(&row.get::<_, String>("context")?).unwrap_or_default(),
        only_if: row.get("only_if")?,
        max_tokens: row.get::<_, Option<i64>>("max_tokens")?.map(i64::cast_unsigned),
        state: match state.as_str() {
            "active" => TaskState::Active,
            "done" => TaskState::Done,
            _ => TaskState::Paused(why.unwrap_or(PauseReason::Asked)),
        },
        next_at: row.get::<_, Option<i64>>("next_at")?.map(from_unix_millis),
        failures: row.get("failures")?,
        created_at: from_unix_millis(row.get("created_at")?),
        last_run: None,
    };
    Ok(Ok(task))
}

/// The word for it in the database.
fn stored_pause_reason(why: PauseReason) -> Option<&'static str> {
    match why {
        PauseReason::Asked | PauseReason::Failures | PauseReason::Tokens => Some(why.name()),
        PauseReason::Unreadable => None,
    }
}

fn run_from_row(row: &Row<'_>) -> rusqlite::Result<Result<TaskRun>> {
    let state: String = row.get("state")?;
    let known = TaskRunState::ALL.into_iter().find(|known| known.name() == state);
    let run = |state| -> rusqlite::Result<TaskRun> {
        Ok(TaskRun {
            due_at: from_unix_millis(row.get("due_at")?),
            late_by: SignedDuration::from_millis(row.get("late_millis")?),
            state,
            why: row.get::<_, Option<String>>("why")?.and_then(|why| RunReason::find_by_name(&why)),
            tokens: row.get::<_, i64>("tokens")?.cast_unsigned(),
            ended_at: row.get::<_, Option<i64>>("ended_at")?.map(from_unix_millis),
        })
    };
    known.map(run).transpose().map(|run| run.context("Failed to read the state of a task's run"))
}
