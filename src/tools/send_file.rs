//! `send_file`: sends a file of the group's folder to its chat at once.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard::{self, CallFacts, Denial, GuardDecision};

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "send_file",
    description: "Sends a file of your work folder to the chat at once, while you go on working. In the owner's main \
                  channel, `to` names another chat that is served: a group's name, or its chat's id.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendFileArguments {
    path: String,
    #[serde(default, deserialize_with = "read_optional_text")]
    caption: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    to: Option<String>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Relative to your work folder"},
            "caption": {"type": "string"},
            "to": {"type": "string", "description": "Another chat; main channel only"},
        },
        "required": ["path"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let SendFileArguments { path, caption, to } = read_arguments(arguments)?;
    if path.trim().is_empty() {
        return Err("`path` is empty".to_owned());
    }
    Ok(ToolAction::SendFile { to, path, caption: caption.unwrap_or_default() })
}

fn rule(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    guard::allow_destination(facts, GuardDecision::Deny(Denial::UnservedChat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_needs_a_path() {
        let read = parse(json!({"path": "chart.png", "caption": "The year"}));
        let of_file = |to: Option<&str>, caption: &str| ToolAction::SendFile {
            to: to.map(str::to_owned),
            path: "chart.png".to_owned(),
            caption: caption.to_owned(),
        };
        assert_eq!(read, Ok(of_file(None, "The year")));
        let to_family = json!({"path": "chart.png", "to": "family"});
        assert_eq!(parse(to_family), Ok(of_file(Some("family"), "")));
        assert!(parse(json!({"caption": "The year"})).is_err());
        assert!(parse(json!({"path": " "})).is_err());
        assert!(parse(json!({"path": "a", "from": "main"})).is_err());
    }
}
