//! `update_task`: changes what a task does, or when.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard;
use crate::rules::tasks::TaskEdit;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "update_task",
    description: "Changes a task. What is left out stays. The words are those of schedule_task; max_tokens 0 takes the \
                  limit away, an empty only_if the command.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule: guard::allow_planning_own_task,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateTaskArguments {
    task: i64,
    #[serde(default, deserialize_with = "read_optional_text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    schedule: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    zone: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    late: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    context: Option<String>,
    /// An empty one takes the command away.
    only_if: Option<String>,
    max_tokens: Option<u64>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "task": {"type": "integer", "description": "Its number"},
            "text": {"type": "string"},
            "schedule": {"type": "string"},
            "zone": {"type": "string"},
            "late": {"type": "string"},
            "context": {"type": "string"},
            "only_if": {"type": "string"},
            "max_tokens": {"type": "integer", "minimum": 0},
        },
        "required": ["task"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let UpdateTaskArguments { task, text, schedule, zone, late, context, only_if, max_tokens } =
        read_arguments(arguments)?;
    let max_tokens = max_tokens.map(|tokens| Some(tokens).filter(|tokens| *tokens > 0));
    let edit = TaskEdit { text, schedule, zone, late, context, only_if, max_tokens };
    if edit == TaskEdit::default() {
        return Err("nothing is to be changed".to_owned());
    }
    Ok(ToolAction::UpdateTask { task, edit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_stays() {
        let read = parse(json!({"task": 7, "schedule": "every 2h", "max_tokens": 0}));
        let edit =
            TaskEdit { schedule: Some("every 2h".to_owned()), max_tokens: Some(None), ..TaskEdit::default() };
        assert_eq!(read, Ok(ToolAction::UpdateTask { task: 7, edit }));
        assert!(parse(json!({"task": 7})).is_err());
        assert!(parse(json!({"schedule": "every 2h"})).is_err());
        assert!(parse(json!({"task": "7", "text": "x"})).is_err());
    }
}
