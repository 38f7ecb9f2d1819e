//! What an agent does with tasks, once the guard has allowed it.

use anyhow::Result;
use serde_json::json;

use super::context::SessionContext;
use crate::container::Containers;
use crate::render::describe_instant;
use crate::rules::tasks::{TaskDraft, TaskEdit, TaskRefusal};
use crate::tools::ToolAnswer;
use crate::types::{Group, GroupName, Lang, Role, Task, TaskState};

pub struct TaskTools<'a, C> {
    pub context: &'a SessionContext<C>,
}

impl<C: Containers> TaskTools<'_, C> {
    pub async fn schedule_task(&self, group: &GroupName, draft: &TaskDraft) -> Result<ToolAnswer> {
        let (store, zone) = (&self.context.store, self.context.settings.zone.clone());
        let added = store.add_task(group, draft.clone(), zone, self.context.clock.now()).await;
        self.answer_change("planned", added)
    }

    pub async fn update_task(&self, number: i64, edit: &TaskEdit) -> Result<ToolAnswer> {
        let changed = self.context.store.update_task(number, edit.clone(), self.context.clock.now()).await;
        self.answer_change("changed", changed)
    }

    pub async fn pause_task(&self, number: i64) -> Result<ToolAnswer> {
        let paused = self.context.store.pause_task(number, self.context.clock.now()).await;
        self.answer_change("paused", paused)
    }

    pub async fn resume_task(&self, number: i64) -> Result<ToolAnswer> {
        let resumed = self.context.store.resume_task(number, self.context.clock.now()).await;
        self.answer_change("resumed", resumed)
    }

    pub async fn cancel_task(&self, number: i64) -> Result<ToolAnswer> {
        Ok(match self.context.store.cancel_task(number).await {
            Ok(task) => {
                self.context.tasks_hint.notify_one();
                ToolAnswer::done(format!("Task {} is cancelled.", task.id))
            }
            Err(error) => refusal_answer(error)?,
        })
    }

    /// The tasks of the agent's own group; in the main channel those of all.
    pub async fn list_tasks(&self, group: &Group) -> Result<ToolAnswer> {
        let of_group = match group.role {
            Role::Main => None,
            Role::Member => Some(&group.name),
        };
        let tasks = self.context.store.tasks(of_group).await?;
        let shown = tasks.iter().map(|task| {
            json!({
                "task": task.id,
                "group": task.group.as_str(),
                "text": task.text,
                "schedule": task.schedule,
                "zone": task.zone,
                "context": task.context.name(),
                "only_if": task.only_if,
                "next": self.describe_next_run(task),
                "last": task.last_run.as_ref().map(|run| run.state.name()),
            })
        });
        Ok(ToolAnswer::done(json!(shown.collect::<Vec<_>>()).to_string()))
    }

    fn answer_change(&self, what: &str, task: Result<Task>) -> Result<ToolAnswer> {
        Ok(match task {
            Ok(task) => {
                self.context.tasks_hint.notify_one();
                let next = self.describe_next_run(&task);
                ToolAnswer::done(format!("Task {} is {what}; next: {next}.", task.id))
            }
            Err(error) => refusal_answer(error)?,
        })
    }

    /// When it is next due, said back in its own zone; the model says it in the chat's language.
    fn describe_next_run(&self, task: &Task) -> String {
        let now = self.context.clock.now();
        match (task.state, task.next_at, crate::schedule::parse_zone(&task.zone)) {
            (TaskState::Active, Some(at), Ok(zone)) => describe_instant(Lang::En, at, &zone, now),
            (TaskState::Paused(_), _, _) => "never, as it is paused".to_owned(),
            (TaskState::Active | TaskState::Done, _, _) => "never".to_owned(),
        }
    }
}

/// A mistake of the model is told to it; any other error is the host's.
fn refusal_answer(error: anyhow::Error) -> Result<ToolAnswer> {
    match error.downcast::<TaskRefusal>() {
        Ok(refusal) => Ok(ToolAnswer::failed(format!("{refusal}. Nothing was changed."))),
        Err(error) => Err(error),
    }
}
