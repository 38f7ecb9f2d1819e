//! What the Kimi API says when it does not answer, in the shape of OpenAI's errors, and what it refuses an
//! account for: pure.

use std::fmt;

use serde_json::Value;

use crate::types::Trouble;

/// What is kept of a reason, in characters: a line for the log.
pub const REASON_MAX: usize = 300;

/// Why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// The API's word for it, such as `rate_limit_reached_error`; empty if there is none.
    pub kind: String,
    /// In its words, on one line.
    pub reason: String,
}

impl ApiError {
    /// Reads `{"error": {"type": …, "message": …}}`, if it is there.
    pub fn from_error_json(answer: &Value) -> Option<Self> {
        let error = answer.get("error").filter(|error| !error.is_null())?;
        let text = |name| error.get(name).and_then(Value::as_str).map(clean_error_line).unwrap_or_default();
        let api_error = Self { kind: text("type"), reason: text("message") };
        let has_words = !api_error.kind.is_empty() || !api_error.reason.is_empty();
        Some(if has_words {
            api_error
        } else {
            Self { kind: String::new(), reason: clean_error_line(&error.to_string()) }
        })
    }

    /// Why the account gets no answer, if this is about it: by the words that Kimi documents
    /// (kimi.com/code/docs, "Error Reference"), since its type is the same for three of them.
    pub fn account_refusal(&self, status: u16) -> Option<Trouble> {
        match status {
            403 if self.reason_contains("access terminated") => Some(Trouble::AccountEnded),
            402 | 403 | 429 if self.is_quota_used_up() => Some(Trouble::QuotaUsedUp),
            402 => Some(Trouble::NoMembership),
            403 if self.reason_contains("only available for") => Some(Trouble::ClientRefused),
            403 => Some(Trouble::Refused),
            _ => None,
        }
    }

    /// Whether the quota of the plan or the account is used up, rather than a rate limit reached: by the
    /// platform's error type, and by the words that the API uses for the windows of a plan.
    pub fn is_quota_used_up(&self) -> bool {
        self.kind == "exceeded_current_quota_error"
            || ["quota", "usage limit", "billing", "insufficient balance"]
                .iter()
                .any(|words| self.reason_contains(words))
    }

    fn reason_contains(&self, words: &str) -> bool {
        self.reason.to_ascii_lowercase().contains(words)
    }

    /// Reads the body of an answer that is no success, whatever it is.
    pub fn from_error_body(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(answer) => Self::from_error_json(&answer).unwrap_or_default(),
            Err(_) => Self { kind: String::new(), reason: clean_error_line(&String::from_utf8_lossy(body)) },
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, reason } = self;
        let joint = if kind.is_empty() || reason.is_empty() { "" } else { ": " };
        write!(f, "{kind}{joint}{reason}")
    }
}

fn clean_error_line(text: &str) -> String {
    text.trim().chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_one_line() {
        for (body, line) in [
            (
                r#"{"error":{"message":"slow\ndown","type":"rate_limit_reached_error"}}"#,
                "rate_limit_reached_error: slow down",
            ),
            (r#"{"error":{"message":"no"}}"#, "no"),
            (r#"{"error":{"type":"server_error"}}"#, "server_error"),
            (r#"{"error":"flat"}"#, "\"flat\""),
            (r#"{"error":null}"#, ""),
            ("{}", ""),
            ("", ""),
            ("<h1>Bad gateway</h1>\n", "<h1>Bad gateway</h1>"),
        ] {
            assert_eq!(ApiError::from_error_body(body.as_bytes()).to_string(), line, "{body}");
        }
        let long = ApiError::from_error_body("é".repeat(2 * REASON_MAX).as_bytes());
        assert_eq!(long.reason.chars().count(), REASON_MAX);
    }

    #[test]
    fn each_refusal_has_its_cause() {
        use Trouble::{AccountEnded, ClientRefused, NoMembership, QuotaUsedUp, Refused};
        // As Kimi has said them, in its documents and in reports.
        let ended = "Access terminated. Review our Community Guidelines (https://www.kimi.com/code/docs) or contact support.";
        let client = "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI, Claude Code, Roo Code, Kilo Code, etc.";
        let week = "You've reached your weekly (7-day) usage limit. Your quota will reset when the current 7-day window ends.";
        let cycle = "You've reached your usage limit for this billing cycle. Your quota will be refreshed in the next cycle.";
        let member = "We're unable to verify your membership benefits at this time. Please ensure your membership is active.";
        for (status, kind, reason, cause) in [
            (403, "access_terminated_error", ended, Some(AccountEnded)),
            (403, "access_terminated_error", client, Some(ClientRefused)),
            (403, "access_terminated_error", week, Some(QuotaUsedUp)),
            (403, "permission_error", cycle, Some(QuotaUsedUp)),
            (403, "access_terminated_error", "", Some(Refused)),
            (403, "", "no", Some(Refused)),
            (402, "", member, Some(NoMembership)),
            (402, "", "", Some(NoMembership)),
            (402, "", "Insufficient balance", Some(QuotaUsedUp)),
            (429, "", "You've reached kimi monthly usage limit", Some(QuotaUsedUp)),
            (429, "", "You've reached your usage limit for this period", Some(QuotaUsedUp)),
            (429, "exceeded_current_quota_error", "", Some(QuotaUsedUp)),
            (429, "rate_limit_reached_error", "We're receiving too many requests at the moment.", None),
            (429, "engine_overloaded_error", "The engine is currently overloaded", None),
            (401, "", "The API Key appears to be invalid or may have expired", None),
            (400, "", "total message size 9 exceeds limit 2097152", None),
            (500, "", "quota", None),
        ] {
            let api_error = ApiError { kind: kind.to_owned(), reason: reason.to_owned() };
            assert_eq!(api_error.account_refusal(status), cause, "{status} {kind} {reason}");
        }
    }
}
