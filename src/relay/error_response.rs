//! Error responses: what the Kimi API, or the relay in its place, says instead of an answer, and how an engine
//! gets it.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::headers::filter_response_headers;
use super::retry_policy;
use crate::api_error::ApiError;
use crate::clock::Clock;
use crate::types::Secret;

/// How much of an error's body is read; the reason stands at its beginning.
const BODY_MAX: usize = 16 * 1024;
/// How long an error's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The status after which engines do not ask again by themselves.
const FINAL: StatusCode = StatusCode::BAD_REQUEST;

/// An error in place of an answer.
#[derive(Debug)]
pub struct ErrorResponse {
    pub status: StatusCode,
    pub api_error: ApiError,
    /// How long the API wants to be left alone.
    pub retry_after: Option<Duration>,
    headers: HeaderMap,
    body: Bytes,
}

impl ErrorResponse {
    /// An error of our own, in the shape of the OpenAI API, which engines show or log.
    pub fn new(status: StatusCode, kind: &str, why: impl Into<String>) -> Self {
        let api_error = ApiError { kind: kind.to_owned(), reason: why.into() };
        let body = json!({
            "error": { "message": api_error.reason, "type": kind, "param": null, "code": null }
        });
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { status, api_error, retry_after: None, headers, body: body.to_string().into() }
    }

    /// The same, and when it makes sense to ask again.
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs().max(1)));
        Self { retry_after: Some(pause), ..self }
    }

    /// Reads an answer that is no success. If it shows the login, that is cut out, and the engine gets the
    /// rest in a response of our own.
    pub async fn read_api_response(mut answer: reqwest::Response, login: &Secret) -> Self {
        let status = answer.status();
        let retry_after = retry_policy::parse_retry_after(answer.headers(), Clock::System.now());
        let headers = filter_response_headers(answer.headers());
        let mut body = BytesMut::new();
        let read = async {
            while let Ok(Some(piece)) = answer.chunk().await {
                let left = BODY_MAX - body.len();
                body.extend_from_slice(&piece[..piece.len().min(left)]);
                if body.len() == BODY_MAX {
                    return;
                }
            }
        };
        // What has come by then is enough.
        timeout(BODY_TIMEOUT, read).await.ok();
        let text = String::from_utf8_lossy(&body);
        let redacted = login.redact_from(&text);
        let api_error = ApiError::from_error_body(redacted.as_bytes());
        if redacted != text {
            let in_own_words = Self::new(status, &api_error.kind, api_error.reason.clone());
            return Self { api_error, retry_after, ..in_own_words };
        }
        Self { status, api_error, retry_after, headers, body: body.freeze() }
    }

    /// For the log and the session: what the API said.
    pub fn error_detail(&self) -> String {
        format!("HTTP {} {}", self.status.as_u16(), self.api_error).trim_end().to_owned()
    }

    /// As it came.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        // The body may have been cut.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }

    /// With a status that keeps the engine from asking again by itself.
    pub fn into_final_response(self) -> Response<Body> {
        Self { status: FINAL, ..self }.into_response()
    }
}

/// An error with what lies behind it, on one line.
pub fn render_error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
