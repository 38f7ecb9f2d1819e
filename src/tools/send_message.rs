//! `send_message`: says something in a chat at once, while the turn goes on.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard::{self, CallFacts, GuardDecision};

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "send_message",
    description: "Sends a message to the chat at once, while you go on working: to say what takes long, or a part of \
                  the result. Your answer at the end is sent by itself, so do not send it with this tool too. In the \
                  owner's main channel, `to` names another chat: a group's name, or a chat's id from list_chats; if that \
                  chat is not served, the owner is asked first.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendMessageArguments {
    text: String,
    #[serde(default, deserialize_with = "read_optional_text")]
    to: Option<String>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "Markdown"},
            "to": {"type": "string", "description": "Another chat; main channel only"},
        },
        "required": ["text"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let SendMessageArguments { text, to } = read_arguments(arguments)?;
    if text.trim().is_empty() {
        return Err("`text` is empty".to_owned());
    }
    Ok(ToolAction::SendMessage { to, text })
}

fn rule(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    guard::allow_destination(facts, GuardDecision::Hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_needs_words_and_takes_another_chat() {
        let read = |arguments| parse(arguments).map_err(|error| error.len() > 5);
        let said = |to: Option<&str>| {
            Ok(ToolAction::SendMessage { to: to.map(str::to_owned), text: "hi".to_owned() })
        };
        assert_eq!(read(json!({"text": "hi"})), said(None));
        assert_eq!(read(json!({"text": "hi", "to": "family"})), said(Some("family")));
        assert_eq!(read(json!({"text": "hi", "to": ""})), said(None));
        for wrong in [
            json!({}),
            json!({"text": " \n"}),
            json!({"text": 7}),
            json!({"text": "hi", "to": 7}),
            json!({"text": "hi", "from": "main"}),
            json!({"text": null}),
        ] {
            assert_eq!(read(wrong.clone()), Err(true), "{wrong}");
        }
    }
}
