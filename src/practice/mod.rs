//! The practice model: a small server on this machine that speaks the Kimi API's chat completions, so that
//! nanokimi can be tried and tested without an account. No real model is behind it.
//!
//! `conversation` takes what people wrote out of a request, a brain (`tutor` or `script`) decides on a
//! [`Reply`], `wire` says it as Kimi does. `desk` is Kimi's login server; once it is [open](Practice::open_desk), only
//! tokens that it gave out are good for an answer. The server remembers the latest requests for tests, and nothing else.

mod conversation;
mod desk;
mod script;
mod tutor;
mod wire;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use conversation::Conversation;
pub use desk::{Approval, Counts, Fault, LoginDesk, Terms};

/// Connections at a time, of all engines together.
const CONNECTIONS_MAX: usize = 64;
/// The pause after a failed accept, which means that the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest request in bytes: a practice history with a photo or two.
const REQUEST_MAX: usize = 4 * 1024 * 1024;
/// How many requests are remembered; with `REQUEST_MAX` the bound of this server's memory.
const REQUESTS_KEPT: usize = 64;
/// How many different failing prompts are counted; then the counting starts again.
const FAILURES_COUNTED: usize = 256;

/// How the practice model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brain {
    /// For people who try nanokimi: friendly, plain, and clear about being practice.
    Tutor,
    /// For tests: does what the prompt says, see `script`.
    Script,
}

/// A running practice model. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Practice {
    address: SocketAddr,
    classroom: Arc<Classroom>,
    server: JoinHandle<()>,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Method and path, such as `POST /coding/v1/chat/completions`.
    pub line: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// `Null` where there was none.
    pub body: Value,
}

/// What the model does about a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Answer(Vec<Step>),
    /// No good answer, the first `times` times that this is asked; then the steps.
    Fail {
        how: Failing,
        times: u32,
        then: Vec<Step>,
    },
}

/// How the practice model fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    /// With an HTTP status.
    Refuses {
        status: u16,
        /// What it says of when to ask again, in seconds.
        retry_after_secs: Option<u32>,
    },
    /// It says something and cuts the connection.
    Drops,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Think(String),
    Say(String),
    Call {
        tool: String,
        arguments: String,
    },
    /// Says a word every half second, for this long.
    Dawdle(Duration),
    /// Breaks the connection off.
    Cut,
    /// Nothing more, but the connection stays.
    Hang,
}

/// Starts a practice model on `listen`, where port 0 takes a free one.
///
/// # Errors
/// `listen` is not an address of this machine's loopback, or cannot be listened on.
pub async fn start(brain: Brain, listen: SocketAddr) -> Result<Practice> {
    ensure!(listen.ip().is_loopback(), "The practice model listens on this machine only, not on {listen}");
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("Failed to listen on {listen}"))?;
    let address = listener.local_addr().context("Failed to learn the practice model's port")?;
    let classroom = Arc::new(Classroom { brain, register: Mutex::default(), desk: Mutex::default() });
    let server = tokio::spawn(serve(listener, Arc::clone(&classroom)));
    Ok(Practice { address, classroom, server })
}

impl Practice {
    /// The model's API, as the door and kimi-cli's `base_url` want it.
    pub fn base_url(&self) -> String {
        format!("http://{}/coding/v1", self.address)
    }

    /// Its login server, as `KIMI_CODE_OAUTH_HOST` wants it.
    pub fn oauth_host(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on there is a login server, and whoever asks the model without one of its tokens gets 401. What it
    /// does is in the hands of whoever opened it; a second one takes the place of the first.
    pub fn open_desk(&self, terms: Terms) -> LoginDesk {
        let desk = LoginDesk::new(self.address.port(), terms);
        *self.classroom.desk() = Some(desk.clone());
        desk
    }

    /// How many answers the model has begun.
    pub fn answers(&self) -> u64 {
        self.classroom.register().answers
    }

    /// The latest requests, oldest first.
    pub fn requests(&self) -> Vec<Received> {
        self.classroom.register().requests.iter().cloned().collect()
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
struct Classroom {
    brain: Brain,
    register: Mutex<Register>,
    desk: Mutex<Option<LoginDesk>>,
}

#[derive(Debug, Default)]
struct Register {
    requests: VecDeque<Received>,
    /// Numbers the answers, so that ids are unique.
    answers: u64,
    /// How often there was no good answer, by what asked for one.
    failures: HashMap<String, u32>,
}

/// Accepts until it is aborted; its connections live in the set and end with it.
async fn serve(listener: TcpListener, classroom: Arc<Classroom>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&classroom)));
                }
                Err(error) => {
                    tracing::warn!("Failed to accept a connection to the practice model: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, classroom: Arc<Classroom>) {
    let answer = service_fn(move |request| {
        let classroom = Arc::clone(&classroom);
        async move { classroom.answer(request).await }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!("A connection to the practice model broke: {error}");
    }
}

/// Ends a connection without an answer.
#[derive(Debug)]
struct HungUp;

impl fmt::Display for HungUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script hangs up here")
    }
}

impl Error for HungUp {}

impl Classroom {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HungUp> {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(Body::new(body), REQUEST_MAX).await else {
            return Ok(wire::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The practice model reads short requests only.",
            ));
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| desk::form(&body));
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let line = format!("{} {}", head.method, head.uri.path());
        self.register().note(Received { line, headers: headers.collect(), body: body.clone() });

        let path = head.uri.path();
        let desk = self.desk().clone();
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let (Some(desk), Some(path), &Method::POST) =
            (&desk, path.strip_prefix("/api/oauth/"), &head.method)
        {
            let desk::Said { status, body, after } = desk.answer(path, &body);
            sleep(after).await;
            return body.map(|body| wire::json(status, &body)).ok_or(HungUp);
        }
        if desk.is_some_and(|desk| !desk.knows(authorization)) {
            return Ok(wire::error(
                StatusCode::UNAUTHORIZED,
                "The API Key appears to be invalid or may have expired. Please verify your credentials and try again.",
            ));
        }
        Ok(match head.method {
            Method::POST if path.ends_with("/chat/completions") => self.complete(&body),
            Method::POST if path.ends_with("/search") => wire::json(StatusCode::OK, &results(&body)),
            Method::POST if path.ends_with("/fetch") => {
                wire::page(&format!("A practice page of {}.", body["url"]))
            }
            Method::GET if path.ends_with("/models") => wire::json(StatusCode::OK, &models()),
            Method::GET if path.ends_with("/usages") => wire::json(StatusCode::OK, &usages()),
            _ => wire::error(StatusCode::NOT_FOUND, "The practice model has nothing here."),
        })
    }

    fn complete(&self, request: &Value) -> Response<Body> {
        let Some(conversation) = Conversation::read(request) else {
            return wire::error(StatusCode::BAD_REQUEST, "The practice model needs a list of messages.");
        };
        let reply = match self.brain {
            Brain::Tutor => tutor::reply(&conversation),
            Brain::Script => script::reply(&conversation),
        };
        let mut register = self.register();
        register.answers += 1;
        let steps = match reply {
            Reply::Answer(steps) => steps,
            Reply::Fail { times, then, .. } if !register.fails(&conversation.to_string(), times) => then,
            Reply::Fail { how: Failing::Drops, .. } => vec![Step::Cut],
            Reply::Fail { how: Failing::Refuses { status, retry_after_secs }, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut refusal = wire::error(status, &format!("practice error {}", status.as_u16()));
                if let Some(seconds) = retry_after_secs {
                    refusal.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                }
                return refusal;
            }
        };
        wire::answer(request, steps, register.answers)
    }

    fn desk(&self) -> MutexGuard<'_, Option<LoginDesk>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register {
    fn note(&mut self, received: Received) {
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(received);
    }

    fn fails(&mut self, prompt: &str, times: u32) -> bool {
        if self.failures.len() == FAILURES_COUNTED {
            self.failures.clear();
        }
        let failures = self.failures.entry(prompt.to_owned()).or_default();
        let again = *failures < times;
        *failures = failures.saturating_add(1);
        again
    }
}

fn models() -> Value {
    json!({ "object": "list", "data": [{
        "id": "kimi-for-coding", "object": "model", "created": wire::CREATED, "owned_by": "nanokimi",
        "display_name": "Practice model", "context_length": 262_144,
        "supports_reasoning": true, "supports_image_in": true, "supports_video_in": false,
    }] })
}

/// What a search finds, always.
fn results(request: &Value) -> Value {
    json!({ "search_results": [{
        "site_name": "practice", "title": format!("A practice result for {}", request["text_query"]),
        "url": "https://public.example/", "snippet": "Nothing was searched.", "content": "", "date": "",
    }] })
}

fn usages() -> Value {
    let detail =
        json!({ "limit": "100", "used": "1", "remaining": "99", "resetTime": "2100-01-01T00:00:00Z" });
    let window = json!({ "duration": 300, "timeUnit": "TIME_UNIT_MINUTE" });
    let user = json!({ "userId": "practice", "membership": { "level": "LEVEL_BASIC" } });
    json!({ "user": user, "usage": detail, "limits": [{ "window": window, "detail": detail }] })
}

#[cfg(test)]
mod tests;
