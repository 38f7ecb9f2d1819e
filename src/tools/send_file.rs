//! `send_file`: sends a file of the group's folder to its chat at once.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "send_file",
    description: "Sends a file of your work folder to the chat at once, while you go on working.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule: guard::allow_in_turn,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendFileArguments {
    path: String,
    #[serde(default)]
    caption: String,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Relative to your work folder"},
            "caption": {"type": "string"},
        },
        "required": ["path"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let SendFileArguments { path, caption } = read_arguments(arguments)?;
    if path.trim().is_empty() {
        return Err("`path` is empty".to_owned());
    }
    Ok(ToolAction::SendFile { path, caption })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_needs_a_path() {
        let read = parse(json!({"path": "chart.png", "caption": "The year"}));
        let expected = ToolAction::SendFile { path: "chart.png".to_owned(), caption: "The year".to_owned() };
        assert_eq!(read, Ok(expected));
        assert!(parse(json!({"caption": "The year"})).is_err());
        assert!(parse(json!({"path": " "})).is_err());
        assert!(parse(json!({"path": "a", "to": "main"})).is_err());
    }
}
