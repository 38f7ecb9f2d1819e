//! Errors in the form of the API that a client speaks: OpenAI's or Anthropic's. Pure.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::routes::ApiForm;

/// An error in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayError {
    pub status: StatusCode,
    /// A word of Kimi's for it, if Kimi has said it. Only OpenAI's form has a place for it.
    pub kind: Option<String>,
    /// For the person in front of the client.
    pub message: String,
    /// When it is worth another try.
    pub retry_after: Option<Duration>,
}

impl GatewayError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, kind: None, message: message.into(), retry_after: None }
    }

    pub fn retry_after(self, pause: Duration) -> Self {
        Self { retry_after: Some(pause), ..self }
    }

    /// The error's body.
    pub fn to_json(&self, form: ApiForm) -> String {
        match form {
            ApiForm::OpenAi => {
                let (kind, code) = openai_type(self.status);
                let kind = self.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(kind);
                json!({ "error": { "message": self.message, "type": kind, "param": null, "code": code } })
            }
            ApiForm::Anthropic => json!({
                "type": "error", "error": { "type": anthropic_type(self.status), "message": self.message },
            }),
        }
        .to_string()
    }

    /// The last event of a stream that cannot go on.
    pub fn to_event(&self, form: ApiForm) -> Bytes {
        let body = self.to_json(form);
        match form {
            ApiForm::OpenAi => format!("data: {body}\n\n"),
            ApiForm::Anthropic => format!("event: error\ndata: {body}\n\n"),
        }
        .into()
    }

    pub fn into_response(self, form: ApiForm) -> Response<Body> {
        let mut response = json_response(self.status, self.to_json(form));
        let headers = response.headers_mut();
        if let Some(pause) = self.retry_after {
            // Whole seconds, rounded up: a client that waits for less would come too early.
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // HTTP wants to be told how to log in (RFC 9110, 15.5.2).
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer in one piece of JSON.
pub fn json_response(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// OpenAI's words for a status: the type, and the code if there is one.
fn openai_type(status: StatusCode) -> (&'static str, Option<&'static str>) {
    match status.as_u16() {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("permission_error", None),
        404 => ("invalid_request_error", Some("not_found")),
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", None),
        _ => ("server_error", None),
    }
}

/// Anthropic's type of a status, by its documents on errors.
fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_own_words_for_an_error() {
        for (status, openai, anthropic) in [
            (400, "invalid_request_error null", "invalid_request_error"),
            (401, "invalid_request_error \"invalid_api_key\"", "authentication_error"),
            (402, "insufficient_quota \"insufficient_quota\"", "billing_error"),
            (403, "permission_error null", "permission_error"),
            (404, "invalid_request_error \"not_found\"", "not_found_error"),
            (413, "invalid_request_error null", "request_too_large"),
            (429, "rate_limit_error \"rate_limit_exceeded\"", "rate_limit_error"),
            (500, "server_error null", "api_error"),
            (502, "server_error null", "api_error"),
            (503, "server_error null", "overloaded_error"),
            (529, "server_error null", "overloaded_error"),
        ] {
            let error = GatewayError::new(StatusCode::from_u16(status).unwrap(), "no \"x\"");
            let read = |form| serde_json::from_str::<serde_json::Value>(&error.to_json(form)).unwrap();
            let shown = read(ApiForm::OpenAi);
            let words = format!("{} {}", shown["error"]["type"].as_str().unwrap(), shown["error"]["code"]);
            assert_eq!(
                (words.as_str(), &shown["error"]["message"]),
                (openai, &"no \"x\"".into()),
                "{status}"
            );
            let shown = read(ApiForm::Anthropic);
            assert_eq!(
                (&shown["type"], &shown["error"]["type"]),
                (&"error".into(), &anthropic.into()),
                "{status}"
            );
        }
    }

    #[test]
    fn a_stream_ends_in_its_own_error_event() {
        let error = GatewayError::new(StatusCode::BAD_GATEWAY, "cut");
        assert_eq!(
            error.to_event(ApiForm::Anthropic),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"cut\"}}\n\n"
        );
        let event = error.to_event(ApiForm::OpenAi);
        assert!(event.starts_with(b"data: {\"error\":{") && event.ends_with(b"}}\n\n"), "{event:?}");
    }

    #[test]
    fn what_kimi_calls_it_is_kept_and_a_pause_is_rounded_up() {
        let error = GatewayError::new(StatusCode::TOO_MANY_REQUESTS, "slow")
            .retry_after(Duration::from_millis(1_200));
        let error = GatewayError { kind: Some("engine_overloaded_error".to_owned()), ..error };
        assert!(error.to_json(ApiForm::OpenAi).contains("\"type\":\"engine_overloaded_error\""));
        assert_eq!(error.into_response(ApiForm::OpenAi).headers()[header::RETRY_AFTER], "2");
    }
}
