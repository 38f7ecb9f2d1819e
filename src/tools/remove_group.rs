//! `remove_group`: has Kai no longer serve a chat.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;
use crate::types::GroupName;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "remove_group",
    description: "Has a chat no longer be served. Its folder and its history stay on the server.",
    audience: ToolAudience::Main,
    parameters,
    parse,
    rule: guard::hold_main_for_person,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveGroupArguments {
    name: String,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let RemoveGroupArguments { name } = read_arguments(arguments)?;
    GroupName::parse(&name).map(|name| ToolAction::RemoveGroup { name }).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_a_group() {
        let name = GroupName::parse("family").unwrap();
        assert_eq!(parse(json!({"name": "family"})), Ok(ToolAction::RemoveGroup { name }));
        assert!(parse(json!({"name": "../main"})).is_err());
        assert!(parse(json!({})).is_err());
    }
}
