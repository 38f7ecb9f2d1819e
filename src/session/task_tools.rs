//! What an agent does with tasks, once the guard has allowed it.

use anyhow::Result;
use serde_json::{Value, json};

use super::context::SessionContext;
use crate::container::Containers;
use crate::render::describe_instant;
use crate::rules::tasks::{TaskDraft, TaskEdit, TaskRefusal};
use crate::tools::ToolAnswer;
use crate::types::{Group, GroupName, Lang, Role, Task, TaskState};

/// The most characters of a task's text, and of its command, that a list has.
const LISTED_TEXT_MAX_CHARS: usize = 300;
/// The most bytes of a list of tasks: every later request to the model carries it.
const LIST_MAX_BYTES: usize = 16 * 1024;

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
        let planned = tasks.iter().filter(|task| task.state != TaskState::Done).map(|task| {
            json!({
                "task": task.id,
                "group": task.group.as_str(),
                "text": shorten_text(&task.text),
                "schedule": task.schedule,
                "zone": task.zone,
                "context": task.context.name(),
                "only_if": task.only_if.as_deref().map(shorten_text),
                "next": self.describe_next_run(task),
                "last": task.last_run.as_ref().map(|run| run.state.name()),
            })
        });
        Ok(ToolAnswer::done(render_task_list(planned.collect())))
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

fn shorten_text(text: &str) -> String {
    match text.char_indices().nth(LISTED_TEXT_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// As many tasks as have room, the first of them, and how many have none.
fn render_task_list(tasks: Vec<Value>) -> String {
    let count = tasks.len();
    let mut room = LIST_MAX_BYTES;
    let listed: Vec<Value> = tasks
        .into_iter()
        .take_while(|task| {
            let bytes = task.to_string().len() + 1;
            let has_room = bytes <= room;
            room = room.saturating_sub(bytes);
            has_room
        })
        .collect();
    match count - listed.len() {
        0 => json!(listed).to_string(),
        left_out => format!(
            "{}\n{left_out} more that are due later are left out; `nanokimi tasks list` on the server shows all.",
            json!(listed)
        ),
    }
}

/// A mistake of the model is told to it; any other error is the host's.
fn refusal_answer(error: anyhow::Error) -> Result<ToolAnswer> {
    match error.downcast::<TaskRefusal>() {
        Ok(refusal) => Ok(ToolAnswer::failed(format!("{refusal}. Nothing was changed."))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_length_and_says_what_it_leaves_out() {
        let task = |number: usize| json!({"task": number, "text": shorten_text(&"é".repeat(4_000))});
        let all = render_task_list((0..20).map(task).collect());
        assert_eq!(serde_json::from_str::<Vec<Value>>(&all).unwrap().len(), 20);
        let part = render_task_list((0..500).map(task).collect());
        assert!(part.len() <= LIST_MAX_BYTES + 200, "{}", part.len());
        let (listed, rest) = part.split_once('\n').unwrap();
        let listed = serde_json::from_str::<Vec<Value>>(listed).unwrap();
        assert_eq!(listed.last(), Some(&task(listed.len() - 1)), "the next that are due");
        assert!(rest.starts_with(&format!("{} more", 500 - listed.len())), "{rest}");
    }
}
