//! `list_tasks`: the tasks that are planned, with their numbers.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "list_tasks",
    description: "Lists the tasks of this group that are not over, in the main channel those of all groups: number, \
                  text (a long one is cut), schedule, when it is next due, and how its last run ended.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule: guard::allow_in_turn,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListTasksArguments {}

fn parameters() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let ListTasksArguments {} = read_arguments(arguments)?;
    Ok(ToolAction::ListTasks)
}
