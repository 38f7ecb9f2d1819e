//! What somebody does to a task: from the command line, or through an agent.
//!
//! Whoever may ask is decided elsewhere. An error that is a [`TaskRefusal`] is a mistake of whoever asked, and
//! says what to do.

use anyhow::{Result, ensure};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Store, to_unix_millis};
use super::{draft_of_task, insert_run, read_plan, read_task, runs, with_last_run};
use crate::rules::tasks::{
    CheckedTask, TASKS_PER_GROUP_MAX, TaskDraft, TaskEdit, TaskRefusal, check_task, check_task_edit,
};
use crate::schedule::DueRun;
use crate::types::{ChatId, GroupName, PauseReason, Task, TaskState};

impl Store {
    /// Keeps a new task of a group. `home` is the zone of a task that names none.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn add_task(
        &self,
        group: &GroupName,
        draft: TaskDraft,
        home: TimeZone,
        now: Timestamp,
    ) -> Result<Task> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let checked = check_task(&draft, &home, now)?;
            let transaction = connection.transaction()?;
            let is_group = transaction
                .prepare_cached("SELECT 1 FROM groups WHERE name = ?1")?
                .exists([group.as_str()])?;
            ensure!(is_group, TaskRefusal::NoSuchGroup);
            let count: u32 = transaction
                .prepare_cached("SELECT count(*) FROM tasks WHERE group_name = ?1 AND state != 'done'")?
                .query_row([group.as_str()], |row| row.get(0))?;
            ensure!(count < TASKS_PER_GROUP_MAX, TaskRefusal::TooMany);
            transaction
                .prepare_cached(
                    "INSERT INTO tasks (group_name, text, schedule, zone, late, max_tokens, next_at, created_at,
                                        context, only_if)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )?
                .execute(params![
                    group.as_str(),
                    checked.text,
                    checked.schedule.to_string(),
                    checked.zone_name(),
                    checked.late.to_string(),
                    checked.max_tokens.map(u64::cast_signed),
                    to_unix_millis(checked.next_at),
                    to_unix_millis(now),
                    checked.context.name(),
                    checked.only_if
                ])?;
            let task = find_task(&transaction, transaction.last_insert_rowid())?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }

    /// Changes a task. If that is about when it runs, its next instant is counted from now; a task that is paused
    /// stays so.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn update_task(&self, id: i64, edit: TaskEdit, now: Timestamp) -> Result<Task> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let known = find_task(&transaction, id)?;
            let checked = check_task_edit(&draft_of_task(&known), known.next_at, &edit, now)?;
            write_edit(&transaction, id, &checked)?;
            let task = find_task(&transaction, id)?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }

    /// Keeps a task from coming due until it is resumed. A run that waits or goes on is not stopped.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn pause_task(&self, id: i64, now: Timestamp) -> Result<Task> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let known = find_task(&transaction, id)?;
            ensure!(known.state != TaskState::Done, TaskRefusal::Past);
            if known.state == TaskState::Active {
                runs::set_task_paused(&transaction, id, PauseReason::Asked, now)?;
            }
            let task = find_task(&transaction, id)?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }

    /// Lets a task come due again, from now on: what it missed while it was paused is not made up for.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn resume_task(&self, id: i64, now: Timestamp) -> Result<Task> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let known = find_task(&transaction, id)?;
            if known.state == TaskState::Active {
                return Ok(known);
            }
            let (schedule, zone, _) = read_plan(&known)?;
            let next_at = schedule.next_after(now, &zone).ok_or(TaskRefusal::Past)?;
            transaction
                .prepare_cached(
                    "UPDATE tasks SET state = 'active', paused_why = NULL, pause_told_at = NULL, failures = 0,
                                      next_at = ?2 WHERE id = ?1",
                )?
                .execute(params![id, to_unix_millis(next_at)])?;
            let task = find_task(&transaction, id)?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }

    /// Forgets a task with its history; a run of it that waits does not begin any more. Returns what it was.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn cancel_task(&self, id: i64) -> Result<Task> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let task = find_task(&transaction, id)?;
            transaction
                .prepare_cached(
                    "UPDATE inbox SET state = 'done' WHERE state = 'pending' AND task_run IN
                     (SELECT id FROM task_runs WHERE task = ?1 AND state IN ('due', 'running'))",
                )?
                .execute([id])?;
            transaction.prepare_cached("DELETE FROM tasks WHERE id = ?1")?.execute([id])?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }

    /// Runs a task now, beside its schedule.
    ///
    /// # Errors
    /// A [`TaskRefusal`], or the database.
    pub async fn run_task_now(&self, id: i64, now: Timestamp) -> Result<Task> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let task = find_task(&transaction, id)?;
            let chat: Option<String> = transaction
                .prepare_cached("SELECT chat FROM groups WHERE name = ?1")?
                .query_row([task.group.as_str()], |row| row.get(0))
                .optional()?;
            let Some(chat) = chat.map(ChatId::new) else { return Err(TaskRefusal::NoSuchGroup.into()) };
            runs::close_orphaned_runs(&transaction, id, now)?;
            ensure!(!runs::has_open_run(&transaction, id)?, TaskRefusal::RunIsOpen);
            let due_at = Timestamp::from_second(now.as_second())?;
            let run = DueRun { due_at, late_by: SignedDuration::ZERO };
            let inserted = insert_run(&transaction, &task, &chat, run, None, now)?;
            ensure!(inserted, TaskRefusal::RunIsOpen);
            let task = find_task(&transaction, id)?;
            transaction.commit()?;
            Ok(task)
        })
        .await
    }
}

fn find_task(connection: &Connection, id: i64) -> Result<Task> {
    let task = read_task(connection, id)?.ok_or(TaskRefusal::NoSuchTask(id))?;
    with_last_run(connection, task)
}

/// A task that was over comes due again if its schedule says so.
fn write_edit(connection: &Connection, id: i64, checked: &CheckedTask) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE tasks SET text = ?2, schedule = ?3, zone = ?4, late = ?5, max_tokens = ?6,
                              next_at = iif(state = 'paused', NULL, ?7),
                              state = iif(state = 'paused', state, 'active'), context = ?8,
                              only_if = ?9
             WHERE id = ?1",
        )?
        .execute(params![
            id,
            checked.text,
            checked.schedule.to_string(),
            checked.zone_name(),
            checked.late.to_string(),
            checked.max_tokens.map(u64::cast_signed),
            to_unix_millis(checked.next_at),
            checked.context.name(),
            checked.only_if
        ])?;
    Ok(())
}
