//! The Kimi API in a story. It refuses one request of an engine through its group's real egress proxy, so the
//! service knows only what the proxy saw.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use support::scripted_engine::HeldPrompt;
use support::test_service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use crate::world::World;

/// How long a refusal may take in real time, since sockets work in real time.
const REAL_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the egress proxy itself waits before it gives up, so it reports the refusal at once.
const LATER_SECS: u32 = 600;

const ASKS: &str = r#"{"model":"kimi-for-coding"}"#;
const SAYS: &str = "the story wants it so";

pub struct Api(TcpListener);

impl Api {
    pub async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn base(&self) -> String {
        format!("http://{}/coding/v1", self.0.local_addr().unwrap())
    }
}

impl World {
    /// The engine of this prompt asks the model and is refused. It reports this in its own words.
    pub async fn refuse(&self, prompt: &HeldPrompt, status: u16, kind: &str) {
        self.refusal(prompt, ASKS, status, kind, SAYS).await;
    }

    /// The same for a request with this body.
    pub async fn refuse_asked(&self, prompt: &HeldPrompt, asks: &str, status: u16, kind: &str) {
        self.refusal(prompt, asks, status, kind, SAYS).await;
    }

    /// The same with these words of the API; the type of the error tells nothing.
    pub async fn refuse_saying(&self, prompt: &HeldPrompt, status: u16, says: &str) {
        self.refusal(prompt, ASKS, status, "access_terminated_error", says).await;
    }

    async fn refusal(&self, prompt: &HeldPrompt, asks: &str, status: u16, kind: &str, says: &str) {
        let why = json!({"error": {"type": kind, "message": says}}).to_string();
        let told = self.exchange(prompt, asks, &format!("{status} No"), &why).await;
        assert!(told.starts_with("HTTP/1.1 ") && told.contains(says), "{told}");
        prompt.fails(-32003, &format!("Error code: {status} - {why}"));
    }

    /// The engine of this prompt asks the model, which has used so many tokens for its answer.
    pub async fn uses_tokens(&self, prompt: &HeldPrompt, input: u64, output: u64) {
        let usage = json!({"usage": {"prompt_tokens": input, "completion_tokens": output}}).to_string();
        let told = self.exchange(prompt, ASKS, "200 OK", &usage).await;
        assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    }

    /// The engine asks the model; the egress proxy itself answers, and the API hears nothing.
    pub async fn asks_in_vain(&self, prompt: &HeldPrompt) -> String {
        let mut engine = self.ask_model(prompt, ASKS).await;
        let mut told = String::new();
        engine.read_to_string(&mut told).await.unwrap();
        told
    }

    async fn ask_model(&self, prompt: &HeldPrompt, asks: &str) -> UnixStream {
        let door = self.paths().egress_folder(&test_service::name(&prompt.group)).join("door.sock");
        let mut engine = UnixStream::connect(door).await.unwrap();
        let request = format!(
            "POST /coding/v1/chat/completions HTTP/1.1\r\nhost: door\r\nconnection: close\r\n\
             user-agent: KimiCLI/1.51.0\r\n\
             content-length: {}\r\n\r\n{asks}",
            asks.len()
        );
        engine.write_all(request.as_bytes()).await.unwrap();
        engine
    }

    /// The engine asks, the API answers with this status and body; returns what the engine is told.
    async fn exchange(&self, prompt: &HeldPrompt, asks: &str, status: &str, body: &str) -> String {
        let (done, is_done) = mpsc::channel();
        // Paused time stands still while a thread works, but sockets run in real time.
        let time_stands = tokio::task::spawn_blocking(move || is_done.recv_timeout(REAL_LIMIT));
        let mut engine = self.ask_model(prompt, asks).await;
        let (mut door, _) = self.api.0.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(asks.as_bytes()) {
            assert!(door.read_buf(&mut asked).await.unwrap() > 0, "the door asks to the end");
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\nretry-after: {LATER_SECS}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        door.write_all(answer.as_bytes()).await.unwrap();
        let mut told = String::new();
        engine.read_to_string(&mut told).await.unwrap();
        done.send(()).unwrap();
        time_stands.await.unwrap().expect("the door answers in time");
        told
    }
}
