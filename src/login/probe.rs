//! Whether the Kimi API takes the login: one small request, for the list of models, which costs nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::http::{HttpAnswer, KimiClient, client_headers};
use crate::api_error::ApiError;
use crate::types::{Secret, Trouble};

/// A person waits for it at a terminal.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the Kimi API says to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Accepted,
    /// HTTP 401.
    NotAccepted,
    /// The login is valid, but its account or this program may not use it, and why.
    Refused(Trouble),
    /// HTTP 429 or 5xx.
    Busy {
        status: u16,
    },
    /// What answered is not the Kimi API.
    Strange {
        status: u16,
    },
    /// No answer, and why.
    Unreachable(String),
}

/// Asks the Kimi API at `base`, which has no slash at its end, with this login.
pub async fn probe_login(base: &str, login: &Secret) -> ProbeResult {
    match request_model_list(base, login).await {
        Ok(said) => classify_probe_answer(&said),
        Err(error) => ProbeResult::Unreachable(innermost_message(&format!("{error:#}")).to_owned()),
    }
}

async fn request_model_list(base: &str, login: &Secret) -> Result<HttpAnswer> {
    let web = KimiClient::new(base);
    let answer = timeout(ANSWER_LIMIT, web.get_with_token("/models", login, client_headers())).await;
    answer.with_context(|| format!("no answer within {} s", ANSWER_LIMIT.as_secs()))?
}

fn classify_probe_answer(said: &HttpAnswer) -> ProbeResult {
    let HttpAnswer { status, body } = said;
    match *status {
        200..=299 => ProbeResult::Accepted,
        401 => ProbeResult::NotAccepted,
        status => match ApiError::from_error_body(body).account_refusal(status) {
            Some(trouble) => ProbeResult::Refused(trouble),
            None if status == 429 || status >= 500 => ProbeResult::Busy { status },
            None => ProbeResult::Strange { status },
        },
    }
}

/// The last cause of an error, such as "Connection refused": the rest says only who asked.
fn innermost_message(causes: &str) -> &str {
    let bottom = causes.rsplit(": ").next().unwrap_or(causes);
    bottom.split(" (os error").next().unwrap_or(bottom)
}
