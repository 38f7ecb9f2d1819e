//! `set_group`: changes what was chosen for a group.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard;
use crate::types::GroupName;
use crate::writing::parse_trigger_word;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "set_group",
    description: "Changes a group: its trigger, or how many tokens a day it may use (0: no limit). What is left out \
                  stays as it is.",
    audience: ToolAudience::Main,
    parameters,
    parse,
    rule: guard::allow_main_for_person,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetGroupArguments {
    name: String,
    #[serde(default, deserialize_with = "read_optional_text")]
    trigger: Option<String>,
    daily_tokens: Option<u64>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "trigger": {"type": "string", "description": "The word after @ that calls you there"},
            "daily_tokens": {"type": "integer", "minimum": 0},
        },
        "required": ["name"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let SetGroupArguments { name, trigger, daily_tokens } = read_arguments(arguments)?;
    let name = GroupName::parse(&name).map_err(|error| error.to_string())?;
    let trigger =
        trigger.as_deref().map(parse_trigger_word).transpose().map_err(|error| error.to_string())?;
    if trigger.is_none() && daily_tokens.is_none() {
        return Err("nothing is to be changed".to_owned());
    }
    Ok(ToolAction::SetGroup { name, trigger, daily_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_to_be_changed() {
        let name = GroupName::parse("family").unwrap();
        let read = parse(json!({"name": "family", "daily_tokens": 0}));
        assert_eq!(read, Ok(ToolAction::SetGroup { name, trigger: None, daily_tokens: Some(0) }));
        assert!(parse(json!({"name": "family"})).is_err());
        assert!(parse(json!({"name": "family", "daily_tokens": -1})).is_err());
        assert!(parse(json!({"name": "family", "role": "main"})).is_err());
    }
}
