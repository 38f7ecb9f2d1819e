//! What the Kimi API says when it does not answer, in the shape of OpenAI's errors: pure.

use std::fmt;

use serde_json::Value;

/// What is kept of a reason, in characters: a line for the log.
pub const REASON_MAX: usize = 300;

/// Why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaint {
    /// The API's word for it, such as `rate_limit_reached_error`; empty where it has none.
    pub kind: String,
    /// In its words, on one line.
    pub reason: String,
}

impl Complaint {
    /// Reads `{"error": {"type": …, "message": …}}`, if it is there.
    pub fn in_json(answer: &Value) -> Option<Self> {
        let error = answer.get("error").filter(|error| !error.is_null())?;
        let text = |name| error.get(name).and_then(Value::as_str).map(one_line).unwrap_or_default();
        let complaint = Self { kind: text("type"), reason: text("message") };
        let has_words = !complaint.kind.is_empty() || !complaint.reason.is_empty();
        Some(if has_words {
            complaint
        } else {
            Self { kind: String::new(), reason: one_line(&error.to_string()) }
        })
    }

    /// Reads the body of an answer that is no success, whatever it is.
    pub fn in_body(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(answer) => Self::in_json(&answer).unwrap_or_default(),
            Err(_) => Self { kind: String::new(), reason: one_line(&String::from_utf8_lossy(body)) },
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, reason } = self;
        let joint = if kind.is_empty() || reason.is_empty() { "" } else { ": " };
        write!(f, "{kind}{joint}{reason}")
    }
}

fn one_line(text: &str) -> String {
    text.trim().chars().take(REASON_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_one_line() {
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
            assert_eq!(Complaint::in_body(body.as_bytes()).to_string(), line, "{body}");
        }
        let long = Complaint::in_body("é".repeat(2 * REASON_MAX).as_bytes());
        assert_eq!(long.reason.chars().count(), REASON_MAX);
    }
}
