//! Whether the Kimi API takes the login: one small request, for the list of models, which costs nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::web::{Web, client_headers};
use crate::types::Secret;

/// Somebody waits for it at a terminal.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the Kimi API says to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// HTTP 401.
    NotAccepted,
    /// HTTP 403: the login is one, but its account or this program may not use it.
    Refused,
    /// HTTP 429 or 5xx.
    Busy {
        status: u16,
    },
    /// Whatever answered is not the Kimi API.
    Strange {
        status: u16,
    },
    /// No answer, and why.
    Unreachable(String),
}

/// Asks the Kimi API at `base`, which has no slash at its end, with this login.
pub async fn probe(base: &str, login: &Secret) -> Verdict {
    match status(base, login).await {
        Ok(200..=299) => Verdict::Accepted,
        Ok(401) => Verdict::NotAccepted,
        Ok(403) => Verdict::Refused,
        Ok(status @ (429 | 500..)) => Verdict::Busy { status },
        Ok(status) => Verdict::Strange { status },
        Err(error) => Verdict::Unreachable(innermost(&format!("{error:#}")).to_owned()),
    }
}

async fn status(base: &str, login: &Secret) -> Result<u16> {
    let web = Web::new(base);
    let answer = timeout(ANSWER_LIMIT, web.get("/models", login, client_headers())).await;
    Ok(answer.with_context(|| format!("no answer within {} s", ANSWER_LIMIT.as_secs()))??.status)
}

/// What lies at the bottom of an error, such as "Connection refused": the rest says only who asked.
fn innermost(causes: &str) -> &str {
    let bottom = causes.rsplit(": ").next().unwrap_or(causes);
    bottom.split(" (os error").next().unwrap_or(bottom)
}
