//! The practice model: a small server on this machine that speaks the Kimi API's chat completions and its Anthropic
//! surface, so that nanokimi can be tried and tested without an account. No real model is behind it.
//!
//! `conversation` takes what people wrote out of a request, a [`Brain`] decides on a [`ModelReply`],
//! `completions` and `messages` say it as Kimi does. People who try nanokimi meet the tutor. Tests have brains of their
//! own, and an [`OAuthServer`] in the place of Kimi's; once there is one, only tokens that it gave out are
//! good for an answer (`tests/support`). The practice model remembers the latest requests for tests, and
//! nothing else.

mod completions;
mod conversation;
mod messages;
mod tutor;

use crate::panics::lock_unpoisoned;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

pub use conversation::Conversation;
pub use tutor::tutor_reply;

/// Connections at a time, of all engines together.
const CONNECTIONS_MAX: usize = 64;
/// The pause after a failed accept, which means that the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest request in bytes: a practice history with a photo or two.
const REQUEST_MAX: usize = 4 * 1024 * 1024;
/// How many requests are remembered; with `REQUEST_MAX` the bound of this server's memory.
pub const REQUESTS_KEPT: usize = 64;
/// How many different failing prompts are counted; then the counting starts again.
const FAILURES_COUNTED: usize = 256;

/// How a practice model thinks: what it does about a conversation.
pub type Brain = fn(&Conversation) -> ModelReply;

/// What stands in the place of Kimi's login server.
pub trait OAuthServer: fmt::Debug + Send + Sync {
    /// Answers a request for codes or tokens; `path` is what follows `/api/oauth/`.
    fn handle_oauth_request(&self, path: &str, form: &Value) -> OAuthAnswer;

    /// Whether the model answers a request with this `Authorization` header.
    fn is_bearer_token_valid(&self, authorization: Option<&str>) -> bool;
}

/// A login server's answer.
#[derive(Debug)]
pub struct OAuthAnswer {
    pub status: StatusCode,
    /// `None` if the connection ends without an answer.
    pub body: Option<Value>,
    /// It is given this much later.
    pub after: Duration,
}

/// A running practice model. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Practice {
    address: SocketAddr,
    model_server: Arc<ModelServer>,
    server: JoinHandle<()>,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedRequest {
    /// Method and path, such as `POST /coding/v1/chat/completions`.
    pub line: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    /// `Null` if there was none.
    pub body: Value,
}

/// What the model does about a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelReply {
    Answer(Vec<ReplyStep>),
    /// No good answer, the first `times` times that this is asked; then the steps.
    Fail {
        how: ModelFailure,
        times: u32,
        then: Vec<ReplyStep>,
    },
}

/// How the practice model fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFailure {
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
pub enum ReplyStep {
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
pub async fn start_practice_model(brain: Brain, listen: SocketAddr) -> Result<Practice> {
    ensure!(listen.ip().is_loopback(), "The practice model listens on this machine only, not on {listen}");
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("Failed to listen on {listen}"))?;
    let address = listener.local_addr().context("Failed to learn the practice model's port")?;
    let model_server =
        Arc::new(ModelServer { brain, request_log: Mutex::default(), login_server: Mutex::default() });
    let server = tokio::spawn(accept_connections(listener, Arc::clone(&model_server)));
    Ok(Practice { address, model_server, server })
}

impl Practice {
    /// The model's API, as the egress proxy and kimi-cli's `base_url` want it.
    pub fn base_url(&self) -> String {
        format!("http://{}/coding/v1", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its login server, as `KIMI_CODE_OAUTH_HOST` wants it.
    pub fn oauth_host(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on there is this login server, and a request to the model without one of its tokens gets 401.
    /// A second one takes the place of the first.
    pub fn set_login_server(&self, server: Arc<dyn OAuthServer>) {
        *self.model_server.lock_login_server() = Some(server);
    }

    /// How many answers the model has begun.
    pub fn answer_count(&self) -> u64 {
        self.model_server.lock_request_log().answers
    }

    /// The latest requests, oldest first.
    pub fn received_requests(&self) -> Vec<ReceivedRequest> {
        self.model_server.lock_request_log().requests.iter().cloned().collect()
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
struct ModelServer {
    brain: Brain,
    request_log: Mutex<RequestLog>,
    login_server: Mutex<Option<Arc<dyn OAuthServer>>>,
}

#[derive(Debug, Default)]
struct RequestLog {
    requests: VecDeque<ReceivedRequest>,
    /// Numbers the answers, so that ids are unique.
    answers: u64,
    /// How often there was no good answer, by what asked for one.
    failures: HashMap<String, u32>,
}

/// Accepts until it is aborted; its connections live in the set and end with it.
async fn accept_connections(listener: TcpListener, model_server: Arc<ModelServer>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(handle_connection(stream, Arc::clone(&model_server)));
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

async fn handle_connection(stream: TcpStream, model_server: Arc<ModelServer>) {
    let answer = service_fn(move |request| {
        let model_server = Arc::clone(&model_server);
        async move { model_server.handle_request(request).await }
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

impl ModelServer {
    async fn handle_request(&self, request: Request<Incoming>) -> Result<Response<Body>, HungUp> {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(Body::new(body), REQUEST_MAX).await else {
            return Ok(completions::api_error_response(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The practice model reads short requests only.",
            ));
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| parse_form(&body));
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let line = format!("{} {}", head.method, head.uri.path());
        self.lock_request_log().record_request(ReceivedRequest {
            line,
            headers: headers.collect(),
            body: body.clone(),
        });

        let path = head.uri.path();
        let server = self.lock_login_server().clone();
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let (Some(server), Some(path), &Method::POST) =
            (&server, path.strip_prefix("/api/oauth/"), &head.method)
        {
            let OAuthAnswer { status, body, after } = server.handle_oauth_request(path, &body);
            sleep(after).await;
            return body.map(|body| completions::json_response(status, &body)).ok_or(HungUp);
        }
        if server.is_some_and(|server| !server.is_bearer_token_valid(authorization)) {
            return Ok(completions::api_error_response(
                StatusCode::UNAUTHORIZED,
                "The API Key appears to be invalid or may have expired. Please verify your credentials and try again.",
            ));
        }
        Ok(match head.method {
            Method::POST if path.ends_with("/chat/completions") => self.handle_chat_completion(&body),
            Method::POST if path.ends_with("/messages") => self.handle_message(&body),
            Method::POST if path.ends_with("/messages/count_tokens") => messages::token_count_response(&body),
            Method::POST if path.ends_with("/search") => {
                completions::json_response(StatusCode::OK, &search_results_json(&body))
            }
            Method::POST if path.ends_with("/fetch") => {
                completions::markdown_response(&format!("A practice page of {}.", body["url"]))
            }
            Method::GET if path.ends_with("/models") => {
                completions::json_response(StatusCode::OK, &model_list_json())
            }
            Method::GET if path.ends_with("/usages") => {
                completions::json_response(StatusCode::OK, &plan_usages_json())
            }
            _ => {
                completions::api_error_response(StatusCode::NOT_FOUND, "The practice model has nothing here.")
            }
        })
    }

    fn handle_chat_completion(&self, request: &Value) -> Response<Body> {
        let Some(conversation) = Conversation::from_request(request) else {
            return completions::api_error_response(
                StatusCode::BAD_REQUEST,
                "The practice model needs a list of messages.",
            );
        };
        match self.decide_reply(&conversation) {
            Ok((steps, number)) => completions::completion_response(request, steps, number),
            Err(refusal) => refusal.into_response(completions::api_error_response),
        }
    }

    fn handle_message(&self, request: &Value) -> Response<Body> {
        let Some(conversation) = messages::read_conversation(request) else {
            let why = "The practice model needs a list of messages.";
            return messages::message_error_response(StatusCode::BAD_REQUEST, why);
        };
        match self.decide_reply(&conversation) {
            Ok((steps, number)) => messages::message_response(request, steps, number),
            Err(refusal) => refusal.into_response(messages::message_error_response),
        }
    }

    /// What the model says, and which answer of its that is.
    fn decide_reply(&self, conversation: &Conversation) -> Result<(Vec<ReplyStep>, u64), PracticeRefusal> {
        let reply = (self.brain)(conversation);
        let mut log = self.lock_request_log();
        log.answers += 1;
        let steps = match reply {
            ModelReply::Answer(steps) => steps,
            ModelReply::Fail { times, then, .. }
                if !log.should_still_fail(&conversation.to_string(), times) =>
            {
                then
            }
            ModelReply::Fail { how: ModelFailure::Drops, .. } => vec![ReplyStep::Cut],
            ModelReply::Fail { how: ModelFailure::Refuses { status, retry_after_secs }, .. } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Err(PracticeRefusal { status, retry_after_secs });
            }
        };
        Ok((steps, log.answers))
    }

    fn lock_login_server(&self) -> MutexGuard<'_, Option<Arc<dyn OAuthServer>>> {
        lock_unpoisoned(&self.login_server)
    }

    fn lock_request_log(&self) -> MutexGuard<'_, RequestLog> {
        lock_unpoisoned(&self.request_log)
    }
}

/// What [`ModelFailure::Refuses`] says, before it has the form of an API.
struct PracticeRefusal {
    status: StatusCode,
    retry_after_secs: Option<u32>,
}

impl PracticeRefusal {
    fn into_response(self, error_response: fn(StatusCode, &str) -> Response<Body>) -> Response<Body> {
        let Self { status, retry_after_secs } = self;
        let mut refusal = error_response(status, &format!("practice error {}", status.as_u16()));
        if let Some(seconds) = retry_after_secs {
            refusal.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        refusal
    }
}

impl RequestLog {
    fn record_request(&mut self, received: ReceivedRequest) {
        if self.requests.len() == REQUESTS_KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(received);
    }

    fn should_still_fail(&mut self, prompt: &str, times: u32) -> bool {
        if self.failures.len() == FAILURES_COUNTED {
            self.failures.clear();
        }
        let failures = self.failures.entry(prompt.to_owned()).or_default();
        let again = *failures < times;
        *failures = failures.saturating_add(1);
        again
    }
}

fn model_list_json() -> Value {
    json!({ "object": "list", "data": [{
        "id": "kimi-for-coding", "object": "model", "created": completions::CREATED, "owned_by": "nanokimi",
        "display_name": "Practice model", "context_length": 262_144,
        "supports_reasoning": true, "supports_image_in": true, "supports_video_in": false,
    }] })
}

/// What a search finds, always.
fn search_results_json(request: &Value) -> Value {
    json!({ "search_results": [{
        "site_name": "practice", "title": format!("A practice result for {}", request["text_query"]),
        "url": "https://public.example/", "snippet": "Nothing was searched.", "content": "", "date": "",
    }] })
}

fn plan_usages_json() -> Value {
    let detail =
        json!({ "limit": "100", "used": "1", "remaining": "99", "resetTime": "2100-01-01T00:00:00Z" });
    let window = json!({ "duration": 300, "timeUnit": "TIME_UNIT_MINUTE" });
    let user = json!({ "userId": "practice", "membership": { "level": "LEVEL_BASIC" } });
    json!({ "user": user, "usage": detail, "limits": [{ "window": window, "detail": detail }] })
}

/// The fields of a form (`application/x-www-form-urlencoded`); `Null` if it has none.
fn parse_form(body: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(body) else { return Value::Null };
    let fields: Map<String, Value> = text
        .split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (percent_decode(name), Value::String(percent_decode(value))))
        .collect();
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let escaped = others
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
