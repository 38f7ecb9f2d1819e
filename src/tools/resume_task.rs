//! `resume_task`: lets a paused task come due again.

use serde_json::Value;

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition};
use super::guard;
use super::task_number::{parse_task_number, task_number_parameters};

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "resume_task",
    description: "Lets a paused task come due again, from now on.",
    audience: ToolAudience::Everyone,
    parameters: task_number_parameters,
    parse,
    rule: guard::allow_planning_own_task,
};

fn parse(arguments: Value) -> Result<ToolAction, String> {
    parse_task_number(arguments).map(|task| ToolAction::ResumeTask { task })
}
