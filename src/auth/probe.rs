//! Whether the Kimi API takes the login: one small request, for the list of models, which costs nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::web::{Said, Web, client_headers};
use crate::complaint::Complaint;
use crate::types::{Secret, Trouble};

/// Somebody waits for it at a terminal.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the Kimi API says to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// HTTP 401.
    NotAccepted,
    /// The login is one, but its account or this program may not use it, and why.
    Refused(Trouble),
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
    match models(base, login).await {
        Ok(said) => verdict(&said),
        Err(error) => Verdict::Unreachable(innermost(&format!("{error:#}")).to_owned()),
    }
}

async fn models(base: &str, login: &Secret) -> Result<Said> {
    let web = Web::new(base);
    let answer = timeout(ANSWER_LIMIT, web.get("/models", login, client_headers())).await;
    answer.with_context(|| format!("no answer within {} s", ANSWER_LIMIT.as_secs()))?
}

fn verdict(said: &Said) -> Verdict {
    let Said { status, body } = said;
    match *status {
        200..=299 => Verdict::Accepted,
        401 => Verdict::NotAccepted,
        status => match Complaint::in_body(body).refusal(status) {
            Some(trouble) => Verdict::Refused(trouble),
            None if status == 429 || status >= 500 => Verdict::Busy { status },
            None => Verdict::Strange { status },
        },
    }
}

/// What lies at the bottom of an error, such as "Connection refused": the rest says only who asked.
fn innermost(causes: &str) -> &str {
    let bottom = causes.rsplit(": ").next().unwrap_or(causes);
    bottom.split(" (os error").next().unwrap_or(bottom)
}
