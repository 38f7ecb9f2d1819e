//! One event of a stream of chat completions, as Kimi sends it.

use serde::Deserialize;
use serde_json::Value;

use crate::api_error::ApiError;

/// What one event says.
#[derive(Debug)]
pub enum CompletionEvent {
    Chunk(CompletionChunk),
    /// Kimi cannot go on.
    ApiError(ApiError),
    /// The answer is complete.
    Done,
}

/// A piece of the answer.
#[derive(Debug, Default, Deserialize)]
pub struct CompletionChunk {
    choices: Option<Vec<ChunkChoice>>,
    usage: Option<CompletionUsage>,
}

#[derive(Debug, Default, Deserialize)]
struct ChunkChoice {
    delta: Option<CompletionDelta>,
    finish_reason: Option<String>,
    usage: Option<CompletionUsage>,
}

/// What is added to the answer.
#[derive(Debug, Default, Deserialize)]
pub struct CompletionDelta {
    pub reasoning_content: Option<String>,
    pub content: Option<String>,
    pub tool_calls: Option<Vec<CallDelta>>,
}

/// What is added to one of the calls; the first one names its tool.
#[derive(Debug, Default, Deserialize)]
pub struct CallDelta {
    pub index: Option<u64>,
    pub id: Option<String>,
    pub function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
pub struct FunctionDelta {
    pub name: Option<String>,
    pub arguments: Option<String>,
}

/// Tokens, with the details in either of the two places in which Kimi has them.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct CompletionUsage {
    #[serde(default)]
    pub prompt_tokens: u64,
    #[serde(default)]
    pub completion_tokens: u64,
    cached_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptTokensDetails>,
    completion_tokens_details: Option<CompletionTokensDetails>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct CompletionTokensDetails {
    reasoning_tokens: Option<u64>,
}

impl CompletionEvent {
    /// # Errors
    /// If the data is not what Kimi sends.
    pub fn parse(data: &[u8]) -> serde_json::Result<Self> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Self::Done);
        }
        let event: Value = serde_json::from_slice(data)?;
        match ApiError::from_error_json(&event) {
            Some(api_error) => Ok(Self::ApiError(api_error)),
            None => Ok(Self::Chunk(serde_json::from_value(event)?)),
        }
    }
}

impl CompletionChunk {
    /// The delta, the reason for the end and the usage, as far as they are there. Only one choice is asked for.
    pub fn into_parts(self) -> (CompletionDelta, Option<String>, Option<CompletionUsage>) {
        let choice = self.choices.into_iter().flatten().next().unwrap_or_default();
        (choice.delta.unwrap_or_default(), choice.finish_reason, self.usage.or(choice.usage))
    }
}

impl CompletionUsage {
    pub fn cached_tokens(&self) -> u64 {
        let details = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        self.cached_tokens.or(details).unwrap_or(0)
    }

    pub fn reasoning_tokens(&self) -> u64 {
        self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens).unwrap_or(0)
    }
}
