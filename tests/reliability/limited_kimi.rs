//! A Kimi API whose accounts run out in turn. It knows an account by its token, of which only the newest is good, and
//! says what is wrong with it as Kimi does; its errors repeat the token, as no server should.
//!
//! ```text
//! step of 3 s:   0    1    2    3    4    5    6    7    8    9   …
//! in trouble:    0,1  1,2  2,3  3,0  all  1,2  2,3  3,0  0,1  all
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::{get, post};
use futures_util::stream;
use nanokimi::clock::Clock;
use nanokimi::panics::lock_unpoisoned;
use serde_json::{Value, json};
use support::login_server::MockLoginServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub const ACCOUNTS: usize = 4;
/// How long each account's trouble lasts.
const STEP: Duration = Duration::from_secs(3);
/// In every fifth step all accounts are in trouble.
const STEPS_UNTIL_ALL: u64 = 5;
/// What it says of when to ask again, in seconds, and at the end of the run.
const RETRY_AFTER_SECS: u64 = 2;
pub const LAST_RETRY_AFTER_SECS: u64 = 400;
/// An allowance is whole again a little after its step: whoever comes then is not too early.
const RESET_SLACK: Duration = Duration::from_millis(100);
/// Between two pieces of a stream; every tenth takes longer than a renewal does.
const PIECE_PAUSE: Duration = Duration::from_millis(10);
const LONG_PIECE_PAUSE: Duration = Duration::from_millis(300);

/// How an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    /// 403, until its allowance is whole again.
    UsedUp,
    /// 429, for this many seconds.
    AsksTooOften(u64),
    /// 503.
    Overloaded,
}

/// What it has been asked, and what it has said.
#[derive(Clone, Debug, Default)]
pub struct KimiCounts {
    /// Good answers that were begun, by the request's text.
    pub answers: HashMap<String, usize>,
    /// Good answers of each account.
    pub answers_of: [usize; ACCOUNTS],
    /// By status.
    pub errors: HashMap<u16, usize>,
    /// How often it has said what is left of a plan.
    pub looks_at_plan: usize,
}

/// A running one; it ends when it is dropped.
pub struct LimitedKimi {
    pub base_url: String,
    state: Arc<KimiState>,
    server: JoinHandle<()>,
}

struct KimiState {
    login_server: MockLoginServer,
    began: Instant,
    is_over: AtomicBool,
    /// How often somebody has looked at each account's plan.
    looks: Mutex<[usize; ACCOUNTS]>,
    counts: Mutex<KimiCounts>,
}

impl LimitedKimi {
    pub async fn start(login_server: MockLoginServer) -> Self {
        let state = Arc::new(KimiState {
            login_server,
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            looks: Mutex::default(),
            counts: Mutex::default(),
        });
        let router = Router::new()
            .route("/coding/v1/chat/completions", post(answer_chat))
            .route("/coding/v1/usages", get(answer_plan))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/coding/v1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base_url, state, server }
    }

    /// From now on each account has asked too often, for [`LAST_RETRY_AFTER_SECS`].
    pub fn close(&self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }

    pub fn counts(&self) -> KimiCounts {
        lock_unpoisoned(&self.state.counts).clone()
    }
}

impl Drop for LimitedKimi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl KimiState {
    fn condition_of(&self, account: usize) -> Condition {
        if self.is_over.load(Ordering::Relaxed) {
            return Condition::AsksTooOften(LAST_RETRY_AFTER_SECS);
        }
        condition_in_step(account, self.step())
    }

    fn step(&self) -> u64 {
        self.began.elapsed().as_secs() / STEP.as_secs()
    }

    fn until_step_ends(&self) -> Duration {
        let ends = STEP * u32::try_from(self.step() + 1).unwrap();
        ends.saturating_sub(self.began.elapsed())
    }

    fn account_of(&self, headers: &HeaderMap) -> Option<usize> {
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.login_server.login_of_newest_token(authorization)
    }
}

fn condition_in_step(account: usize, step: u64) -> Condition {
    let kinds = [Condition::UsedUp, Condition::AsksTooOften(RETRY_AFTER_SECS), Condition::Overloaded];
    let kind = |number: u64| kinds[usize::try_from(number % 3).unwrap()];
    if step % STEPS_UNTIL_ALL == STEPS_UNTIL_ALL - 1 {
        return kind(step / STEPS_UNTIL_ALL);
    }
    let troubled = usize::try_from(step % ACCOUNTS as u64).unwrap();
    if account == troubled {
        kind(step)
    } else if account == (troubled + 1) % ACCOUNTS {
        kind(step + 1)
    } else {
        Condition::Well
    }
}

async fn answer_chat(State(kimi): State<Arc<KimiState>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let told = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(account) = kimi.account_of(&headers) else {
        return refuse(
            &kimi,
            StatusCode::UNAUTHORIZED,
            &format!("{told} is invalid or may have expired"),
            None,
        );
    };
    match kimi.condition_of(account) {
        Condition::Well => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            let asked = request["messages"][0]["content"].as_str().unwrap().to_owned();
            let mut counts = lock_unpoisoned(&kimi.counts);
            *counts.answers.entry(asked.clone()).or_default() += 1;
            counts.answers_of[account] += 1;
            let number: usize = counts.answers_of.iter().sum();
            drop(counts);
            good_answer(&asked, request["stream"] == true, number)
        }
        Condition::UsedUp => {
            let why = format!("{told}: You've reached your weekly (7-day) usage limit.");
            refuse(&kimi, StatusCode::FORBIDDEN, &why, None)
        }
        Condition::AsksTooOften(seconds) => {
            refuse(&kimi, StatusCode::TOO_MANY_REQUESTS, &format!("{told} asks too often"), Some(seconds))
        }
        Condition::Overloaded => {
            let why = format!("{told}: The engine is currently overloaded");
            refuse(&kimi, StatusCode::SERVICE_UNAVAILABLE, &why, Some(RETRY_AFTER_SECS))
        }
    }
}

/// Nothing is left of an account's plan, until its step is over; it says so a moment longer. Every other look at an
/// account's plan fails.
async fn answer_plan(State(kimi): State<Arc<KimiState>>, headers: HeaderMap) -> Response<Body> {
    let Some(account) = kimi.account_of(&headers) else {
        return refuse(&kimi, StatusCode::UNAUTHORIZED, "no", None);
    };
    let mut looks = lock_unpoisoned(&kimi.looks);
    looks[account] += 1;
    let fails = looks[account] % 2 == 1;
    drop(looks);
    if fails {
        return refuse(&kimi, StatusCode::SERVICE_UNAVAILABLE, "not now", None);
    }
    lock_unpoisoned(&kimi.counts).looks_at_plan += 1;
    let is_used_up = kimi.condition_of(account) == Condition::UsedUp;
    let whole_in = if is_used_up { kimi.until_step_ends() } else { Duration::ZERO } + RESET_SLACK;
    let resets_at = Clock::System.now().saturating_add(whole_in).unwrap();
    let plan =
        json!({ "usages": { "limit_7d": { "used_ratio": 1.0, "reset_time": resets_at.to_string() } } });
    respond(StatusCode::OK, "application/json", Body::from(plan.to_string()))
}

fn refuse(kimi: &KimiState, status: StatusCode, why: &str, retry_after_secs: Option<u64>) -> Response<Body> {
    *lock_unpoisoned(&kimi.counts).errors.entry(status.as_u16()).or_default() += 1;
    let kind = match status.as_u16() {
        401 => "invalid_authentication_error",
        403 => "access_terminated_error",
        429 => "rate_limit_reached_error",
        _ => "engine_overloaded_error",
    };
    let body = json!({ "error": { "message": why, "type": kind } });
    let mut response = respond(status, "application/json", Body::from(body.to_string()));
    if let Some(seconds) = retry_after_secs {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Repeats what was asked, whole or in pieces.
fn good_answer(asked: &str, is_stream: bool, number: usize) -> Response<Body> {
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12 });
    if !is_stream {
        let message = json!({ "role": "assistant", "content": format!("echo of {asked}") });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        let body = json!({ "id": "c", "object": "chat.completion", "choices": [choice], "usage": usage });
        return respond(StatusCode::OK, "application/json", Body::from(body.to_string()));
    }
    let chunk = |delta: Value, finish_reason: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason });
        json!({ "id": "c", "object": "chat.completion.chunk", "choices": [choice] })
    };
    let mut last = chunk(json!({}), json!("stop"));
    last["usage"] = usage;
    let events = [
        chunk(json!({ "role": "assistant", "content": format!("echo of {asked}") }), Value::Null).to_string(),
        chunk(json!({ "content": ", and that is all" }), Value::Null).to_string(),
        last.to_string(),
        "[DONE]".to_owned(),
    ];
    let pause = if number.is_multiple_of(10) { LONG_PIECE_PAUSE } else { PIECE_PAUSE };
    let pieces = stream::unfold(events.into_iter(), move |mut events| async move {
        let event = events.next()?;
        sleep(pause).await;
        Some((Ok::<_, Infallible>(format!("data: {event}\n\n")), events))
    });
    respond(StatusCode::OK, "text/event-stream", Body::from_stream(pieces))
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, content_type);
    response.body(body).unwrap()
}
