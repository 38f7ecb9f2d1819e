//! `ask_owner`: puts a question to the owner, in their main channel.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments};
use super::guard::{CallFacts, Denial, GuardDecision};
use crate::rules::approvals::HELD_TEXT_MAX;
use crate::types::Role;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "ask_owner",
    description: "Asks the owner something, in their own channel: what only they can decide or know. Do not wait for it: \
                  end your answer, and tell the chat that you have asked. What they say comes as a <notice>, within a \
                  day.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskOwnerArguments {
    question: String,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {"question": {"type": "string", "description": "All that they need to know to answer it"}},
        "required": ["question"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let AskOwnerArguments { question } = read_arguments(arguments)?;
    let question = question.trim();
    if question.is_empty() {
        return Err("`question` is empty".to_owned());
    }
    if question.chars().count() > HELD_TEXT_MAX {
        return Err(format!("`question` is longer than {HELD_TEXT_MAX} characters"));
    }
    Ok(ToolAction::AskOwner { question: question.to_owned() })
}

fn rule(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    match facts.role {
        _ if !facts.is_in_turn => GuardDecision::Deny(Denial::NoTurn),
        Role::Main => GuardDecision::Deny(Denial::OwnersChannel),
        Role::Member => GuardDecision::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Destination;
    use super::*;

    #[test]
    fn it_needs_a_question_that_can_be_read_whole() {
        let asked = |question: &str| parse(json!({"question": question}));
        assert_eq!(asked(" May we? \n"), Ok(ToolAction::AskOwner { question: "May we?".to_owned() }));
        assert!(asked(&"é".repeat(HELD_TEXT_MAX)).is_ok());
        assert!(asked(&"é".repeat(HELD_TEXT_MAX + 1)).is_err());
        assert!(asked(" \n").is_err());
        assert!(parse(json!({"question": "x", "to": "main"})).is_err());
    }

    #[test]
    fn the_owners_own_channel_needs_no_question() {
        let action = ToolAction::AskOwner { question: "May we?".to_owned() };
        let decide = |role| rule(&action, &CallFacts::in_turn_of(role, Destination::OwnChat));
        assert_eq!(decide(Role::Member), GuardDecision::Hold);
        assert_eq!(decide(Role::Main), GuardDecision::Deny(Denial::OwnersChannel));
    }
}
