//! The parts of a tool: each tool's file has one such definition.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::action::ToolAction;
use super::guard::{CallFacts, GuardDecision};

/// The parts of a tool.
pub(super) struct ToolDefinition {
    pub name: &'static str,
    /// What the model reads of it.
    pub description: &'static str,
    pub audience: ToolAudience,
    /// The JSON schema of its arguments.
    pub parameters: fn() -> Value,
    /// Reads the arguments. The error is a sentence for the model.
    pub parse: fn(Value) -> Result<ToolAction, String>,
    pub rule: fn(&ToolAction, &CallFacts) -> GuardDecision,
}

/// The agents that are told of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToolAudience {
    Everyone,
    /// The agent of the main channel alone.
    Main,
}

/// The arguments of a call as its tool's type has them. The error is a sentence for the model.
pub(super) fn read_arguments<T: DeserializeOwned>(arguments: Value) -> Result<T, String> {
    serde_json::from_value(arguments).map_err(|error| error.to_string())
}

/// A text that may be left out. Models often write one that is empty, or `null`, for what they leave out.
pub(super) fn read_optional_text<'de, D: Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(text)?;
    Ok(text.filter(|text| !text.trim().is_empty()))
}
