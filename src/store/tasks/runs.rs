//! How the runs of tasks follow the turns that tell them to the agent.

use anyhow::Result;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::outbox::enqueue;
use super::super::{Reply, Store, from_unix_millis, to_unix_millis};
use super::{TASK_COLUMNS, read_plan, stored_pause_reason, task_from_row};
use crate::clock::Day;
use crate::rules::Rules;
use crate::rules::inbox::own_text_for_agent;
use crate::rules::tasks::{TaskAfterRun, after_task_run, late_by, limited_run_notice};
use crate::schedule::{LateRule, ON_TIME_WITHIN, parse_zone};
use crate::types::{ChatId, LastAnswer, PauseReason, RunReason, Task, TaskRunState, TurnId};

/// What stands before a task's number, in the place of a sender.
pub(super) const TASK_SENDER: &str = "task:";

/// The number of the task that has written a row, as the row's sender tells it.
pub fn task_id_of_sender(sender: &str) -> i64 {
    sender.strip_prefix(TASK_SENDER).and_then(|id| id.parse().ok()).unwrap_or_default()
}

/// Characters that are kept of what a run has said: as much as a prompt tells of one text.
const LAST_ANSWER_MAX_CHARS: usize = 8_000;

impl Store {
    /// Notes why the runs of a turn do not do their work; its end says what becomes of them.
    pub async fn record_run_reason(&self, turn: TurnId, why: RunReason) -> Result<()> {
        self.with_connection(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE task_runs INDEXED BY task_runs_running SET why = ?2
                     WHERE state = 'running' AND turn = ?1",
                )?
                .execute(params![turn.0, why.name()])?;
            Ok(())
        })
        .await
    }

    /// Whether a turn tells a run to the agent whose task there still is.
    pub async fn has_running_run(&self, turn: TurnId) -> Result<bool> {
        self.with_connection(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT 1 FROM task_runs INDEXED BY task_runs_running WHERE state = 'running' AND turn = ?1",
                )?
                .exists([turn.0])?)
        })
        .await
    }

    /// Skips the runs that have waited for an agent for longer than the rules of their tasks allow: at the
    /// start, before anybody is woken for them.
    pub async fn skip_runs_that_are_too_late(&self, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            skip_late_runs(&transaction, LateRuns::All, now)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }
}

/// The runs that are looked at for being too late.
#[derive(Clone, Copy, Debug)]
pub enum LateRuns<'a> {
    All,
    OfChat(&'a ChatId),
    OfTask(i64),
}

/// Skips the runs that wait to be told and are later by now than the rules of their tasks allow. Whatever kept
/// them, nobody wants them any more; but one whose engine has died is tried again, or given up with a word.
pub fn skip_late_runs(connection: &Connection, which: LateRuns<'_>, now: Timestamp) -> Result<()> {
    let (chat, task) = match which {
        LateRuns::All => (None, None),
        LateRuns::OfChat(chat) => (Some(chat.as_str()), None),
        LateRuns::OfTask(task) => (None, Some(task)),
    };
    let mut statement = connection.prepare_cached(
        "SELECT task_runs.id, due_at, late FROM task_runs INDEXED BY task_runs_open
         JOIN tasks ON tasks.id = task
         JOIN inbox INDEXED BY inbox_task_run ON inbox.task_run = task_runs.id
         WHERE task_runs.state IN ('due', 'running') AND inbox.state = 'pending' AND inbox.attempts = 0
           AND (?1 IS NULL OR inbox.chat = ?1) AND (?2 IS NULL OR task = ?2)
           AND inbox.received_at < ?3",
    )?;
    // When its instant was claimed, it was looked at; then its agent may have to start.
    let looked_at = to_unix_millis(now.saturating_sub(ON_TIME_WITHIN)?);
    let waiting = statement
        .query_map(params![chat, task, looked_at], |row| {
            Ok((row.get(0)?, from_unix_millis(row.get(1)?), row.get(2)?))
        })?
        .collect::<rusqlite::Result<Vec<(i64, Timestamp, String)>>>()?;
    for (run, due_at, late) in waiting {
        // One that cannot be read keeps no chat from being answered: its task is paused when it is due next.
        if LateRule::parse(&late).unwrap_or_default().allows(now.duration_since(due_at)) {
            continue;
        }
        connection
            .prepare_cached("UPDATE inbox INDEXED BY inbox_task_run SET state = 'done' WHERE task_run = ?1")?
            .execute([run])?;
        end_run(connection, run, RunEnd::skipped(RunReason::Late), now)?;
    }
    Ok(())
}

/// Whether a run of a task waits or goes on.
pub(super) fn has_open_run(connection: &Connection, task: i64) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM task_runs INDEXED BY task_runs_open WHERE task = ?1 AND state IN ('due', 'running')",
        )?
        .exists([task])?)
}

/// Ends the runs of a task whose rows nobody will tell any more: their group was another chat's for a while.
pub(super) fn close_orphaned_runs(connection: &Connection, task: i64, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE task_runs INDEXED BY task_runs_open SET state = 'skipped', ended_at = ?2
             WHERE task = ?1 AND state IN ('due', 'running')
               AND NOT EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_task_run
                               WHERE task_run = task_runs.id AND inbox.state IN ('pending', 'claimed'))",
        )?
        .execute(params![task, to_unix_millis(now)])?;
    Ok(())
}

/// A turn tells this run to the agent.
pub fn record_running_run(
    connection: &Connection,
    run: i64,
    turn: TurnId,
    late_by: SignedDuration,
) -> Result<()> {
    connection
        .prepare_cached("UPDATE task_runs SET state = 'running', turn = ?2, late_millis = ?3 WHERE id = ?1")?
        .execute(params![run, turn.0, i64::try_from(late_by.as_millis())?])?;
    Ok(())
}

/// Whether nobody but tasks has called for a turn, whose rows are still claimed. One that a person has called
/// for, too, would have used its tokens without the tasks.
pub fn is_turn_of_tasks_only(connection: &Connection, turn: TurnId) -> Result<bool> {
    let is_called_for = connection
        .prepare_cached(
            "SELECT 1 FROM inbox INDEXED BY inbox_claimed
             WHERE turn = ?1 AND state = 'claimed' AND task_run IS NULL AND wake = 'wakes'",
        )?
        .exists([turn.0])?;
    Ok(!is_called_for)
}

/// Gives the runs of a turn the ends of their rows, whatever those were decided to be, and the tokens that were
/// used for them.
pub fn follow_turn_end(
    connection: &Connection,
    (turn, chat): (TurnId, &ChatId),
    tokens: u64,
    now: Timestamp,
) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT task_runs.id, inbox.state FROM task_runs INDEXED BY task_runs_running
         JOIN inbox INDEXED BY inbox_task_run ON inbox.task_run = task_runs.id
         WHERE task_runs.state = 'running' AND task_runs.turn = ?1",
    )?;
    let runs = statement
        .query_map([turn.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
    for (run, row_state) in runs {
        let end = match row_state.as_str() {
            "done" => TaskRunState::Answered,
            "parked" => TaskRunState::Failed,
            _ => TaskRunState::Due,
        };
        if end == TaskRunState::Answered {
            keep_last_answer(connection, (turn, chat), run, now)?;
        }
        end_run(connection, run, RunEnd { state: end, tokens, why: None }, now)?;
    }
    // A row whose task was cancelled meanwhile is not tried again.
    connection
        .prepare_cached(
            "UPDATE inbox INDEXED BY inbox_pending SET state = 'done'
             WHERE chat = ?1 AND state = 'pending' AND task_run IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM task_runs WHERE task_runs.id = task_run)",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

/// What the earlier runs of an isolated run's task have said: the latest that said something.
pub fn read_last_answer(connection: &Connection, run: i64) -> Result<Option<LastAnswer>> {
    let known = connection
        .prepare_cached(
            "SELECT last_answer, last_answer_at FROM task_runs JOIN tasks ON tasks.id = task
             WHERE task_runs.id = ?1 AND last_answer IS NOT NULL AND last_answer_at IS NOT NULL",
        )?
        .query_row([run], |row| Ok(LastAnswer { text: row.get(0)?, said_at: from_unix_millis(row.get(1)?) }))
        .optional()?;
    Ok(known)
}

/// Keeps what the turn of an isolated run has said in its chat, for the next run of its task.
fn keep_last_answer(
    connection: &Connection,
    (turn, chat): (TurnId, &ChatId),
    run: i64,
    now: Timestamp,
) -> Result<()> {
    let mut said = connection.prepare_cached(
        "SELECT text, path FROM outbox INDEXED BY outbox_turn
         WHERE turn = ?1 AND chat = ?2 AND kind IN ('text', 'file')
           AND EXISTS (SELECT 1 FROM turns WHERE turns.id = ?1 AND context = 'isolated') ORDER BY id",
    )?;
    let said = said
        .query_map(params![turn.0, chat.as_str()], |row| {
            Ok(own_text_for_agent(row.get(0)?, row.get::<_, Option<String>>(1)?.as_deref()))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if said.is_empty() {
        return Ok(());
    }
    let text: String = said.join("\n\n").chars().take(LAST_ANSWER_MAX_CHARS).collect();
    connection
        .prepare_cached(
            "UPDATE tasks SET last_answer = ?2, last_answer_at = ?3
             WHERE id = (SELECT task FROM task_runs WHERE id = ?1)",
        )?
        .execute(params![run, text, to_unix_millis(now)])?;
    Ok(())
}

/// Ends the runs whose turn nobody can end any more, of one chat or of all: their outcome is unknown, and they
/// are not repeated.
pub fn abandon_claimed_runs(connection: &Connection, chat: Option<&ChatId>, now: Timestamp) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE inbox INDEXED BY inbox_claimed SET state = 'parked'
         WHERE state = 'claimed' AND task_run IS NOT NULL AND (?1 IS NULL OR chat = ?1) RETURNING task_run",
    )?;
    let runs = statement
        .query_map([chat.map(ChatId::as_str)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<i64>>>()?;
    for run in runs {
        end_run(connection, run, RunEnd { state: TaskRunState::Unknown, tokens: 0, why: None }, now)?;
    }
    Ok(())
}

/// Ends the runs that wait in a chat without an agent having been asked: its day's tokens are used up. That is
/// no failure of the task. The chat is told of each task once a day, and always of one that comes only once.
/// Returns whether it was told of any.
pub fn fail_waiting_runs(
    connection: &Connection,
    chat: &ChatId,
    rules: &Rules,
    today: Day,
    now: Timestamp,
) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "UPDATE inbox INDEXED BY inbox_pending SET state = 'parked'
         WHERE chat = ?1 AND state = 'pending' AND wake = 'wakes' AND task_run IS NOT NULL RETURNING task_run",
    )?;
    let runs =
        statement.query_map([chat.as_str()], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut is_told = false;
    for run in runs {
        let due_at: i64 = connection
            .prepare_cached("SELECT due_at FROM task_runs WHERE id = ?1")?
            .query_row([run], |row| row.get(0))?;
        let task: Task = connection
            .prepare_cached(&format!(
                "SELECT {TASK_COLUMNS} FROM tasks WHERE id = (SELECT task FROM task_runs WHERE id = ?1)"
            ))?
            .query_row([run], task_from_row)??;
        if !is_told_of_limit(connection, &task, today)? {
            let zone = parse_zone(&task.zone).unwrap_or(TimeZone::UTC);
            let notice = limited_run_notice(rules, (task.id, &task.text), from_unix_millis(due_at), &zone);
            enqueue::enqueue_reply(connection, chat, None, &Reply::from_text(notice), now)?;
            is_told = true;
        }
        connection
            .prepare_cached("UPDATE task_runs SET state = 'failed', ended_at = ?2, why = ?3 WHERE id = ?1")?
            .execute(params![run, to_unix_millis(now), RunReason::DailyTokens.name()])?;
    }
    Ok(is_told)
}

/// Whether the chat knows today already that this task is not done, and will come again.
fn is_told_of_limit(connection: &Connection, task: &Task, today: Day) -> Result<bool> {
    if read_plan(task).is_ok_and(|(schedule, _, _)| schedule.is_once()) {
        return Ok(false);
    }
    Ok(connection
        .prepare_cached("SELECT 1 FROM task_runs WHERE task = ?1 AND why = ?2 AND ended_at >= ?3")?
        .exists(params![task.id, RunReason::DailyTokens.name(), to_unix_millis(today.begins)])?)
}

/// Ends the runs of a chat that wait or go on, since the owner has stopped all work there. That is no failure.
pub fn stop_runs_of_chat(connection: &Connection, chat: &ChatId, now: Timestamp) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT task_runs.id FROM task_runs INDEXED BY task_runs_open
         JOIN inbox INDEXED BY inbox_task_run ON inbox.task_run = task_runs.id
         WHERE task_runs.state IN ('due', 'running') AND inbox.chat = ?1
           AND inbox.state IN ('pending', 'claimed')",
    )?;
    let runs =
        statement.query_map([chat.as_str()], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    for run in runs {
        end_run(connection, run, RunEnd::skipped(RunReason::Stopped), now)?;
    }
    Ok(())
}

/// Ends the runs of a turn whose task's command has said that there is nothing to do.
pub fn skip_runs_of_turn(connection: &Connection, turn: TurnId, now: Timestamp) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM task_runs INDEXED BY task_runs_running WHERE state = 'running' AND turn = ?1",
    )?;
    let runs = statement.query_map([turn.0], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    for run in runs {
        end_run(connection, run, RunEnd::skipped(RunReason::Condition), now)?;
    }
    Ok(())
}

/// How many tokens a run may still use, if its task limits them.
pub fn read_tokens_left(connection: &Connection, run: i64) -> Result<Option<u64>> {
    let left: Option<Option<i64>> = connection
        .prepare_cached(
            "SELECT max(max_tokens - task_runs.tokens, 0) FROM task_runs JOIN tasks ON tasks.id = task
             WHERE task_runs.id = ?1",
        )?
        .query_row([run], |row| row.get(0))
        .optional()?;
    Ok(left.flatten().map(i64::cast_unsigned))
}

/// The command of a run's task.
pub fn read_only_if(connection: &Connection, run: i64) -> Result<Option<String>> {
    let command = connection
        .prepare_cached(
            "SELECT only_if FROM task_runs JOIN tasks ON tasks.id = task WHERE task_runs.id = ?1",
        )?
        .query_row([run], |row| row.get(0))
        .optional()?;
    Ok(command.flatten())
}

/// Where a run is after a turn.
#[derive(Clone, Copy, Debug)]
struct RunEnd {
    state: TaskRunState,
    /// What it has used, beside what it had used before.
    tokens: u64,
    /// Without one, the reason stays that was noted.
    why: Option<RunReason>,
}

impl RunEnd {
    fn skipped(why: RunReason) -> Self {
        Self { state: TaskRunState::Skipped, tokens: 0, why: Some(why) }
    }
}

/// Writes where a run is after a turn, and what follows for its task.
fn end_run(connection: &Connection, run: i64, end: RunEnd, now: Timestamp) -> Result<()> {
    let RunEnd { state, tokens, why } = end;
    let is_over = !matches!(state, TaskRunState::Due | TaskRunState::Running);
    let task: Option<(i64, u64)> = connection
        .prepare_cached(
            "UPDATE task_runs SET state = ?2, tokens = tokens + ?3, ended_at = ?4, why = coalesce(?5, why)
             WHERE id = ?1 RETURNING task, tokens",
        )?
        .query_row(
            params![
                run,
                state.name(),
                tokens.cast_signed(),
                is_over.then(|| to_unix_millis(now)),
                why.map(RunReason::name)
            ],
            |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())),
        )
        .optional()?;
    let Some((task, tokens)) = task else { return Ok(()) };
    if !is_over {
        return Ok(());
    }
    let (failures, max_tokens, is_active) = connection
        .prepare_cached("SELECT failures, max_tokens, state = 'active' FROM tasks WHERE id = ?1")?
        .query_row([task], |row| {
            let max_tokens = row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned);
            Ok((row.get(0)?, max_tokens, row.get::<_, bool>(2)?))
        })?;
    let TaskAfterRun { failures, pause } = after_task_run(state, failures, tokens, max_tokens);
    connection
        .prepare_cached("UPDATE tasks SET failures = ?2 WHERE id = ?1")?
        .execute(params![task, failures])?;
    match pause {
        Some(why) if is_active => set_task_paused(connection, task, why, now),
        Some(_) | None => Ok(()),
    }
}

/// How late a run is when its turn begins.
pub fn lateness_of_row(due_at: Timestamp, turn_began_at: Option<Timestamp>) -> SignedDuration {
    turn_began_at.map_or(SignedDuration::ZERO, |began| late_by(due_at, began))
}

/// Whoever has asked for it needs not be told.
pub(super) fn set_task_paused(
    connection: &Connection,
    id: i64,
    why: PauseReason,
    now: Timestamp,
) -> Result<()> {
    let told_at = match why {
        PauseReason::Asked => Some(to_unix_millis(now)),
        PauseReason::Failures | PauseReason::Tokens | PauseReason::Unreadable => None,
    };
    connection
        .prepare_cached(
            "UPDATE tasks SET state = 'paused', paused_why = ?2, pause_told_at = ?3, next_at = NULL WHERE id = ?1",
        )?
        .execute(params![id, stored_pause_reason(why), told_at])?;
    Ok(())
}
