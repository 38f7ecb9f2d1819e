//! A model as fast as Kimi is when it writes: an answer at once, or a long stream of fifty events a second. On a thread
//! of its own, so that it takes no time from what is measured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use axum::routing::post;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::time::sleep;

/// Events of a long stream, and the time between two.
const LONG_EVENTS: usize = 1_000;
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// Events of a short stream, which come at once.
const SHORT_EVENTS: usize = 3;

/// A running one, until the program ends.
pub struct PacedModel {
    address: SocketAddr,
}

impl PacedModel {
    pub fn start() -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("Failed to start a runtime")?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("Failed to listen")?;
        let address = listener.local_addr().context("Failed to listen")?;
        let router = Router::new().route("/coding/v1/chat/completions", post(answer_chat));
        let serve = move || runtime.block_on(async move { axum::serve(listener, router).await });
        thread::Builder::new().name("model".to_owned()).spawn(serve).context("Failed to start a thread")?;
        Ok(Self { address })
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/coding/v1", self.address)
    }
}

async fn answer_chat(body: Bytes) -> Response<Body> {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13 });
    if request["stream"] != true {
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": "word" }, "finish_reason": "stop" });
        let body = json!({ "id": "c", "object": "chat.completion", "choices": [choice], "usage": usage });
        return respond("application/json", Body::from(body.to_string()));
    }
    let (events, pause) = match request["messages"][0]["content"].as_str() {
        Some("LONG") => (LONG_EVENTS, LONG_PAUSE),
        Some(_) | None => (SHORT_EVENTS, Duration::ZERO),
    };
    let pieces = stream::unfold(0, move |sent| {
        let usage = usage.clone();
        async move {
            if sent > 0 && !pause.is_zero() {
                sleep(pause).await;
            }
            let delta = json!({ "role": "assistant", "content": "word " });
            let event = |delta, finish_reason: Value| {
                json!({ "id": "c", "object": "chat.completion.chunk",
                "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }] })
            };
            let text = match sent {
                _ if sent < events => format!("data: {}\n\n", event(delta, Value::Null)),
                _ if sent == events => {
                    let mut last = event(json!({}), json!("stop"));
                    last["usage"] = usage;
                    format!("data: {last}\n\ndata: [DONE]\n\n")
                }
                _ => return None,
            };
            Some((Ok::<_, Infallible>(text), sent + 1))
        }
    });
    respond("text/event-stream", Body::from_stream(pieces))
}

fn respond(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
