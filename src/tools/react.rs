//! `react`: puts an emoji on the message that called for the running turn.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard;

/// Longest emoji, in characters: a family of seven with its joiners.
const EMOJI_MAX_CHARS: usize = 16;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "react",
    description: "Puts an emoji on the message that you answer, at once.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule: guard::allow_in_turn,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReactArguments {
    emoji: String,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"emoji": {"type": "string", "description": "One emoji"}},
        "required": ["emoji"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let ReactArguments { emoji } = read_arguments(arguments)?;
    let emoji = emoji.trim();
    let is_emoji = !emoji.is_empty()
        && emoji.chars().count() <= EMOJI_MAX_CHARS
        && !emoji.chars().any(|c| c.is_alphabetic() || c.is_whitespace() || c.is_control());
    if is_emoji {
        Ok(ToolAction::React { emoji: emoji.to_owned() })
    } else {
        Err("`emoji` is no emoji".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_one_emoji() {
        for emoji in ["👍", " ❤️ ", "👨‍👩‍👧‍👦", "1️⃣"] {
            assert_eq!(
                parse(json!({"emoji": emoji})),
                Ok(ToolAction::React { emoji: emoji.trim().to_owned() })
            );
        }
        for other in ["", "ok", "a👍", "👍 👍", "\u{7}", &"👍".repeat(20)] {
            assert!(parse(json!({"emoji": other})).is_err(), "{other:?}");
        }
    }
}
