//! Errors as the Responses API tells them: in place of an answer, or inside a response that has failed.

use serde_json::{Value, json};

use crate::api_error::ApiError;

/// Why there is no response, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponsesError {
    /// The HTTP status, if nothing of the answer went out yet.
    pub status: u16,
    /// `error.type`, such as `invalid_request_error`.
    pub kind: String,
    /// `error.code`: what clients decide by.
    pub code: ErrorCode,
    /// Which field of the request is wrong, such as `input[3].type`.
    pub param: Option<String>,
    pub message: String,
}

/// The codes that Codex tells apart (`codex-api/src/sse/responses.rs`); it asks again after any other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The conversation is longer than the model can read; Codex then compacts it.
    ContextLengthExceeded,
    /// The quota of the account is used up.
    InsufficientQuota,
    RateLimitExceeded,
    /// The request is at fault, and would be again.
    InvalidPrompt,
    ServerError,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::InsufficientQuota => "insufficient_quota",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::InvalidPrompt => "invalid_prompt",
            Self::ServerError => "server_error",
        }
    }

    fn of_api_error(status: u16, api_error: &ApiError) -> Self {
        let reason = api_error.reason.to_ascii_lowercase();
        let is_too_long = ["exceeded model token limit", "context length", "context window"]
            .iter()
            .any(|words| reason.contains(words));
        if is_too_long {
            Self::ContextLengthExceeded
        } else if api_error.is_quota_used_up() {
            Self::InsufficientQuota
        } else if api_error.kind == "rate_limit_reached_error" || status == 429 {
            Self::RateLimitExceeded
        } else if api_error.kind == "invalid_request_error" || (400..500).contains(&status) {
            Self::InvalidPrompt
        } else {
            Self::ServerError
        }
    }
}

impl ResponsesError {
    /// The request cannot be translated.
    pub fn invalid_request(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error".to_owned(),
            code: ErrorCode::InvalidPrompt,
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// What the Kimi API says in place of an answer.
    pub fn from_api_error(status: u16, api_error: &ApiError) -> Self {
        let kind = if api_error.kind.is_empty() { "api_error" } else { &api_error.kind };
        let reason = if api_error.reason.is_empty() { "no reason given" } else { &api_error.reason };
        Self {
            status,
            kind: kind.to_owned(),
            code: ErrorCode::of_api_error(status, api_error),
            param: None,
            message: format!("The Kimi API: {reason}"),
        }
    }

    /// Whether the conversation is too long for the model.
    pub fn is_of_context_length(&self) -> bool {
        self.code == ErrorCode::ContextLengthExceeded
    }

    /// The answer of the Kimi API ended too early, or made no sense.
    pub fn broken_answer(message: impl Into<String>) -> Self {
        Self {
            status: 502,
            kind: "server_error".to_owned(),
            code: ErrorCode::ServerError,
            param: None,
            message: message.into(),
        }
    }

    /// The body of an HTTP error.
    pub fn to_body(&self) -> String {
        let Self { status: _, kind, code, param, message } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code.as_str() } })
            .to_string()
    }

    /// The `error` of a response that has failed.
    pub(super) fn to_response_error(&self) -> Value {
        json!({ "code": self.code.as_str(), "message": self.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_they_decide_by() {
        use ErrorCode::{
            ContextLengthExceeded, InsufficientQuota, InvalidPrompt, RateLimitExceeded, ServerError,
        };
        for (status, kind, reason, code) in [
            (
                400,
                "invalid_request_error",
                "Invalid request: Your request exceeded model token limit: 262144",
                ContextLengthExceeded,
            ),
            (400, "invalid_request_error", "invalid tool schema", InvalidPrompt),
            (401, "", "The API Key appears to be invalid", InvalidPrompt),
            (403, "", "You've reached your weekly (7-day) usage limit.", InsufficientQuota),
            (429, "exceeded_current_quota_error", "", InsufficientQuota),
            (429, "rate_limit_reached_error", "slow down", RateLimitExceeded),
            (200, "rate_limit_reached_error", "slow down", RateLimitExceeded),
            (200, "invalid_request_error", "no", InvalidPrompt),
            (200, "engine_overloaded_error", "The engine is currently overloaded", ServerError),
            (503, "", "", ServerError),
        ] {
            let api_error = ApiError { kind: kind.to_owned(), reason: reason.to_owned() };
            assert_eq!(ErrorCode::of_api_error(status, &api_error), code, "{status} {kind} {reason}");
        }
    }

    #[test]
    fn an_error_has_openais_form() {
        let error = ResponsesError::invalid_request("input[2].type", "no");
        assert_eq!(
            error.to_body(),
            r#"{"error":{"message":"no","type":"invalid_request_error","param":"input[2].type","code":"invalid_prompt"}}"#
        );
        let silent = ResponsesError::from_api_error(503, &ApiError::default());
        assert_eq!(
            silent.to_body(),
            r#"{"error":{"message":"The Kimi API: no reason given","type":"api_error","param":null,"code":"server_error"}}"#
        );
    }
}
