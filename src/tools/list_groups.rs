//! `list_groups`: the groups that Kai serves.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "list_groups",
    description: "Lists the groups that are served: name, chat, role, trigger, limits.",
    audience: ToolAudience::Main,
    parameters,
    parse,
    rule: guard::allow_main_in_turn,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListGroupsArguments {}

fn parameters() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let ListGroupsArguments {} = read_arguments(arguments)?;
    Ok(ToolAction::ListGroups)
}
