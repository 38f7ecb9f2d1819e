//! The one argument of the tools that do something to a task as it is.

use serde::Deserialize;
use serde_json::{Value, json};

use super::definition::read_arguments;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskNumberArguments {
    task: i64,
}

pub(super) fn task_number_parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"task": {"type": "integer", "description": "Its number"}},
        "required": ["task"],
        "additionalProperties": false,
    })
}

pub(super) fn parse_task_number(arguments: Value) -> Result<i64, String> {
    let TaskNumberArguments { task } = read_arguments(arguments)?;
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_its_number() {
        assert_eq!(parse_task_number(json!({"task": 7})), Ok(7));
        for wrong in
            [json!({}), json!({"task": "7"}), json!({"task": 7.5}), json!({"task": 7, "group": "main"})]
        {
            assert!(parse_task_number(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
