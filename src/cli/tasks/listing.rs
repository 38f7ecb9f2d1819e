//! `nanokimi tasks list`, `show` and `history`: for eyes, or as JSON.
//!
//! JSON has times as RFC 3339 in UTC, and durations in seconds.

use anyhow::{Result, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::install::Install;
use super::super::ui;
use super::{ListingFormat, render_next_time};
use crate::render::{describe_duration, describe_local_time};
use crate::schedule::parse_zone;
use crate::store::{Store, TaskRefusal};
use crate::types::{GroupName, Lang, RunReason, Task, TaskRun, TaskState};

/// Characters of a task's text in the list.
const TEXT_SHOWN_CHARS: usize = 40;

pub async fn print_tasks(install: &Install, group: Option<&str>, format: ListingFormat) -> Result<()> {
    let group = group.map(GroupName::parse).transpose()?;
    let tasks = match install.open_store_to_read()? {
        Some(store) => {
            if let Some(group) = &group
                && store.group_by_name(group).await?.is_none()
            {
                bail!("There is no group {group}; `nanokimi groups list` shows those there are");
            }
            store.tasks(group.as_ref()).await?
        }
        None => Vec::new(),
    };
    if format.json {
        return ui::print_result(Value::from(tasks.iter().map(task_to_json).collect::<Vec<_>>()));
    }
    if tasks.is_empty() {
        ui::print_info("No tasks yet. `nanokimi tasks add GROUP \"every 2h\" TEXT` plans one.");
        return Ok(());
    }
    let mut rows = vec![["TASK", "GROUP", "NEXT", "LAST", "CONTEXT", "TEXT"].map(str::to_owned).to_vec()];
    for task in &tasks {
        rows.push(vec![
            task.id.to_string(),
            task.group.to_string(),
            render_next_time(install, task),
            task.last_run.as_ref().map_or_else(|| "-".to_owned(), render_run_end),
            task.context.name().to_owned(),
            shorten_text(&task.text),
        ]);
    }
    ui::print_table(&rows)
}

pub async fn print_task(install: &Install, id: i64, format: ListingFormat) -> Result<()> {
    let (_, task) = find_task(install, id).await?;
    if format.json {
        return ui::print_result(task_to_json(&task));
    }
    let mut rows = vec![
        ("Task", task.id.to_string()),
        ("Group", task.group.to_string()),
        ("Schedule", task.schedule.clone()),
        ("Zone", task.zone.clone()),
        ("Late", task.late.clone()),
        ("Context", task.context.name().to_owned()),
        ("Next", render_next_time(install, &task)),
        ("Last", task.last_run.as_ref().map_or_else(|| "-".to_owned(), render_run_end)),
        ("Failures", task.failures.to_string()),
    ];
    if let Some(command) = &task.only_if {
        rows.push(("Only if", ui::sanitize_to_one_line(command)));
    }
    if let Some(tokens) = task.max_tokens {
        rows.push(("Tokens", format!("at most {tokens} a run")));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    ui::print_table(&rows)?;
    ui::print_result("")?;
    ui::print_result(&task.text)
}

pub async fn print_history(install: &Install, id: i64, format: ListingFormat) -> Result<()> {
    let (store, task) = find_task(install, id).await?;
    let runs = store.task_history(id).await?;
    if format.json {
        return ui::print_result(Value::from(runs.iter().map(run_to_json).collect::<Vec<_>>()));
    }
    if runs.is_empty() {
        ui::print_info(format!("Task {id} was not due yet. {}", render_next_time(install, &task)));
        return Ok(());
    }
    let zone = parse_zone(&task.zone).unwrap_or(TimeZone::UTC);
    let mut rows = vec![["DUE", "STATE", "LATE", "TOKENS"].map(str::to_owned).to_vec()];
    for run in runs {
        rows.push(vec![
            describe_local_time(Lang::En, run.due_at, &zone, install.clock.now()),
            match run.why {
                Some(why) => format!("{} ({})", run.state.name(), why.name()),
                None => run.state.name().to_owned(),
            },
            render_lateness(&run),
            run.tokens.to_string(),
        ]);
    }
    ui::align_right(&mut rows, 3..4);
    ui::print_table(&rows)
}

async fn find_task(install: &Install, id: i64) -> Result<(Store, Task)> {
    let Some(store) = install.open_store_to_read()? else { return Err(TaskRefusal::NoSuchTask(id).into()) };
    let task = store.task(id).await?.ok_or(TaskRefusal::NoSuchTask(id))?;
    Ok((store, task))
}

fn render_run_end(run: &TaskRun) -> String {
    match render_lateness(run).as_str() {
        "-" => run.state.name().to_owned(),
        late => format!("{}, {late} late", run.state.name()),
    }
}

fn render_lateness(run: &TaskRun) -> String {
    if run.late_by.is_zero() { "-".to_owned() } else { describe_duration(Lang::En, run.late_by) }
}

fn shorten_text(text: &str) -> String {
    let line = ui::sanitize_to_one_line(text);
    match line.char_indices().nth(TEXT_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn task_to_json(task: &Task) -> Value {
    let (state, paused_why) = match task.state {
        TaskState::Active => ("active", None),
        TaskState::Paused(why) => ("paused", Some(why.name())),
        TaskState::Done => ("done", None),
    };
    json!({
        "id": task.id,
        "group": task.group.as_str(),
        "text": task.text,
        "schedule": task.schedule,
        "zone": task.zone,
        "late": task.late,
        "context": task.context.name(),
        "only_if": task.only_if,
        "max_tokens": task.max_tokens,
        "state": state,
        "paused_why": paused_why,
        "next_at": time_to_json(task.next_at),
        "failures": task.failures,
        "created_at": task.created_at.to_string(),
        "last_run": task.last_run.as_ref().map(run_to_json),
    })
}

fn run_to_json(run: &TaskRun) -> Value {
    json!({
        "due_at": run.due_at.to_string(),
        "late_secs": run.late_by.as_secs(),
        "state": run.state.name(),
        "why": run.why.map(RunReason::name),
        "tokens": run.tokens,
        "ended_at": time_to_json(run.ended_at),
    })
}

fn time_to_json(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
