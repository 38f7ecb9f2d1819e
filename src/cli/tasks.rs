//! `nanokimi tasks`: what the assistant does on time.

mod listing;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand as ClapSubcommand};

use super::install::Install;
use super::ui;
use crate::render::describe_instant;
use crate::schedule::parse_zone;
use crate::service;
use crate::store::{Store, TaskDraft, TaskEdit, TaskRefusal};
use crate::types::{GroupName, Lang, Task, TaskState};
use crate::writing::normalize_typed_text;

/// The word of `--max-tokens` for no limit.
const NO_LIMIT: &str = "none";

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Show the tasks, the next that is due first
    List {
        /// This group's only
        #[arg(long, value_name = "NAME", value_parser = ui::parse_typed_text)]
        group: Option<String>,
        #[command(flatten)]
        format: ListingFormat,
    },
    /// Show all of a task
    Show {
        #[command(flatten)]
        which: TaskNumber,
        #[command(flatten)]
        format: ListingFormat,
    },
    /// Plan a task
    Add {
        /// The group in whose chat it is done
        #[arg(value_parser = ui::parse_typed_text)]
        group: String,
        /// When: "cron 0 9 * * MON-FRI", "every 2h", "at 2026-12-01 09:00" or "in 30m"
        #[arg(value_parser = ui::parse_typed_text)]
        schedule: String,
        /// What the assistant is to do
        text: String,
        #[command(flatten)]
        options: TaskOptions,
    },
    /// Change a task
    Edit {
        #[command(flatten)]
        which: TaskNumber,
        /// When, as for `add`
        #[arg(long, value_name = "SCHEDULE", value_parser = ui::parse_typed_text)]
        schedule: Option<String>,
        /// What the assistant is to do
        #[arg(long)]
        text: Option<String>,
        #[command(flatten)]
        options: TaskOptions,
    },
    /// Keep a task from coming due
    Pause(TaskNumber),
    /// Let a task come due again, from now on
    Resume(TaskNumber),
    /// Run a task now, beside its schedule
    Run(TaskNumber),
    /// Forget a task and its history
    Cancel(TaskNumber),
    /// Show when a task was due, and what came of it
    History {
        #[command(flatten)]
        which: TaskNumber,
        #[command(flatten)]
        format: ListingFormat,
    },
}

/// One task.
#[derive(Args, Clone, Copy)]
pub struct TaskNumber {
    /// The task's number, as `list` shows it
    #[arg(value_name = "TASK")]
    id: i64,
}

/// How results are written.
#[derive(Args, Clone, Copy)]
pub struct ListingFormat {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct TaskOptions {
    /// The time zone of its times, such as Europe/Madrid; a new task has that of TZ
    #[arg(long, value_name = "ZONE", value_parser = ui::parse_typed_text)]
    zone: Option<String>,
    /// What to do about a time that passed unseen: "skip", "once" or "within 2h"; a new task has "once"
    #[arg(long, value_name = "RULE", value_parser = ui::parse_typed_text)]
    late: Option<String>,
    /// What it knows: "group", the chat's own conversation, which a new task has, or "isolated", a fresh one
    /// each time, with its last answer
    #[arg(long, value_name = "CONTEXT", value_parser = ui::parse_typed_text)]
    context: Option<String>,
    /// A command of its container that is run first: with exit code 0 the task runs, with another one this
    /// time is skipped; "" is no command
    #[arg(long, value_name = "COMMAND")]
    only_if: Option<String>,
    /// End a run that uses more tokens than this, and pause the task; "none" is no limit
    #[arg(long, value_name = "NUMBER", value_parser = ui::parse_typed_text)]
    max_tokens: Option<String>,
}

pub async fn run_tasks_command(install: &Install, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::List { group, format } => {
            listing::print_tasks(install, group.as_deref(), format).await?;
        }
        Verb::Show { which, format } => listing::print_task(install, which.id, format).await?,
        Verb::History { which, format } => listing::print_history(install, which.id, format).await?,
        Verb::Add { group, schedule, text, options } => {
            add_task(install, &group, schedule, text, options).await?
        }
        Verb::Edit { which, schedule, text, options } => {
            let TaskOptions { zone, late, context, only_if, max_tokens } = options;
            let max_tokens = max_tokens.as_deref().map(parse_max_tokens).transpose()?;
            let edit = TaskEdit { text, schedule, zone, late, context, only_if, max_tokens };
            ensure!(
                edit != TaskEdit::default(),
                "Say what to change; `nanokimi tasks edit --help` shows what can be"
            );
            let task =
                open_store(install, which.id)?.update_task(which.id, edit, install.clock.now()).await?;
            tell_service_and_person(install, &task)?;
        }
        Verb::Pause(TaskNumber { id }) => {
            let task = open_store(install, id)?.pause_task(id, install.clock.now()).await?;
            tell_service_and_person(install, &task)?;
        }
        Verb::Resume(TaskNumber { id }) => {
            let task = open_store(install, id)?.resume_task(id, install.clock.now()).await?;
            tell_service_and_person(install, &task)?;
        }
        Verb::Run(TaskNumber { id }) => {
            open_store(install, id)?.run_task_now(id, install.clock.now()).await?;
            if signal_service(install) {
                ui::print_info(format!("Task {id} runs now; its answer comes in the chat."));
            } else {
                ui::print_info(format!("Task {id} runs when the service is started."));
            }
        }
        Verb::Cancel(TaskNumber { id }) => {
            let task = open_store(install, id)?.cancel_task(id).await?;
            signal_service(install);
            ui::print_info(format!("Cancelled task {id} of {}; nothing of it is left.", task.group));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add_task(
    install: &Install,
    group: &str,
    schedule: String,
    text: String,
    options: TaskOptions,
) -> Result<()> {
    let group = GroupName::parse(group)?;
    let Some((store, _)) = install.find_group(&group).await? else {
        bail!("There is no group {group}; `nanokimi groups list` shows those there are");
    };
    let TaskOptions { zone, late, context, only_if, max_tokens } = options;
    let draft = TaskDraft {
        text,
        schedule,
        zone: zone.unwrap_or_default(),
        late: late.unwrap_or_default(),
        context: context.unwrap_or_default(),
        only_if: only_if.unwrap_or_default(),
        max_tokens: max_tokens.as_deref().map(parse_max_tokens).transpose()?.flatten(),
    };
    let task = store.add_task(&group, draft, install.config.zone.clone(), install.clock.now()).await?;
    tell_service_and_person(install, &task)
}

/// The number of `--max-tokens`; no number is no limit.
fn parse_max_tokens(text: &str) -> Result<Option<u64>> {
    let text = normalize_typed_text(text);
    if text == NO_LIMIT {
        return Ok(None);
    }
    match text.parse() {
        Ok(tokens) => Ok(Some(tokens)),
        Err(_) => bail!("--max-tokens takes a number of tokens such as 200000, or \"{NO_LIMIT}\""),
    }
}

/// The database, in which the task may be.
fn open_store(install: &Install, id: i64) -> Result<Store> {
    install.open_existing_store()?.ok_or_else(|| TaskRefusal::NoSuchTask(id).into())
}

/// Whether a service runs, which looks at the tasks at once.
fn signal_service(install: &Install) -> bool {
    service::signal_changed_tasks(&install.paths.task_signal_socket()).is_ok()
}

/// Says back when a task is due.
fn tell_service_and_person(install: &Install, task: &Task) -> Result<()> {
    let runs = signal_service(install);
    ui::print_result(format!("Task {}: {}", task.id, render_next_time(install, task)))?;
    if !runs && task.state == TaskState::Active {
        ui::print_info("The service is not running; tasks come due while it is: `nanokimi run`.");
    }
    Ok(())
}

/// When a task is due next, or why it is not.
fn render_next_time(install: &Install, task: &Task) -> String {
    match (task.state, task.next_at) {
        (TaskState::Active, Some(next)) => match parse_zone(&task.zone) {
            Ok(zone) => describe_instant(Lang::En, next, &zone, install.clock.now()),
            Err(_) => next.to_string(),
        },
        (TaskState::Paused(why), _) => format!("paused ({})", why.name()),
        (TaskState::Active | TaskState::Done, _) => "over".to_owned(),
    }
}
