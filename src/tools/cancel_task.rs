//! `cancel_task`: forgets a task.

use serde_json::Value;

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition};
use super::guard;
use super::task_number::{parse_task_number, task_number_parameters};

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "cancel_task",
    description: "Forgets a task for good.",
    audience: ToolAudience::Everyone,
    parameters: task_number_parameters,
    parse,
    rule: guard::allow_own_task,
};

fn parse(arguments: Value) -> Result<ToolAction, String> {
    parse_task_number(arguments).map(|task| ToolAction::CancelTask { task })
}
