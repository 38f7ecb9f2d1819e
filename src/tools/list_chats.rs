//! `list_chats`: the chats that Kai has heard of, with their ids.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "list_chats",
    description: "Lists the WhatsApp chats that are known, with their ids, and which group serves them.",
    audience: ToolAudience::Main,
    parameters,
    parse,
    rule: guard::allow_main_in_turn,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListChatsArguments {}

fn parameters() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let ListChatsArguments {} = read_arguments(arguments)?;
    Ok(ToolAction::ListChats)
}
