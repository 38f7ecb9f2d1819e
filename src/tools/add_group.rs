//! `add_group`: has Kai serve one more chat.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard;
use crate::types::GroupName;
use crate::writing::parse_trigger_word;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "add_group",
    description: "Has an agent of its own serve one more chat, under a new name. The chat's id is from list_chats.",
    audience: ToolAudience::Main,
    parameters,
    parse,
    rule: guard::allow_main_for_person,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddGroupArguments {
    name: String,
    chat: String,
    #[serde(default, deserialize_with = "read_optional_text")]
    trigger: Option<String>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Letters, digits, - and _; also its folder's name"},
            "chat": {"type": "string", "description": "The chat's id"},
            "trigger": {"type": "string", "description": "The word after @ that calls you there; yours if left out"},
        },
        "required": ["name", "chat"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let AddGroupArguments { name, chat, trigger } = read_arguments(arguments)?;
    let name = GroupName::parse(&name).map_err(|error| error.to_string())?;
    let trigger =
        trigger.as_deref().map(parse_trigger_word).transpose().map_err(|error| error.to_string())?;
    Ok(ToolAction::AddGroup { chat, name, trigger })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_name_is_a_plain_folder_name() {
        let read = parse(json!({"name": "new-group", "chat": "1@g.us", "trigger": "@Andy"}));
        assert_eq!(
            read,
            Ok(ToolAction::AddGroup {
                chat: "1@g.us".to_owned(),
                name: GroupName::parse("new-group").unwrap(),
                trigger: Some("Andy".to_owned())
            })
        );
        for name in ["../../etc", "/tmp", "global", "", "a b", "é"] {
            assert!(parse(json!({"name": name, "chat": "1@g.us"})).is_err(), "{name:?}");
        }
        assert!(parse(json!({"name": "x"})).is_err());
        assert!(parse(json!({"name": "x", "chat": "1@g.us", "trigger": "@"})).is_err());
    }
}
