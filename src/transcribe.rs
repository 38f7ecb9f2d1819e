//! The way to a server that turns speech into words: anything that speaks the audio transcription API of OpenAI
//! (`POST /audio/transcriptions`, a form with `file` and `model`; the answer is `{"text": …}`).
//!
//! Knows no chat and no file. Everything is bounded: what is sent, what is read, and how long it takes.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, header};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use crate::kimi_http::{bearer_header, build_kimi_http_client};
use crate::panics::lock_unpoisoned;
use crate::types::TranscriptionServer;

/// The most that OpenAI itself takes; an hour of WhatsApp's speech is below 10 MB.
pub const AUDIO_MAX_BYTES: u64 = 25 * 1024 * 1024;
/// A server that is there accepts within seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a note may take: a person waits, and a small machine needs about as long as a minute's note lasts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// For how long nothing is asked of a server that did not answer in time: twenty notes in a row would each make
/// their chat wait.
const REST: Duration = Duration::from_secs(2 * 60);
/// The words of hours have fewer bytes.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// What is kept of the words: half an hour of quick speech.
const WORDS_MAX_CHARS: usize = 20_000;

/// Turns speech into words.
#[derive(Debug)]
pub struct Transcriber {
    server: TranscriptionServer,
    client: OnceCell<Client>,
    rests_until: Mutex<Option<Instant>>,
}

impl Transcriber {
    pub fn new(server: TranscriptionServer) -> Self {
        Self { server, client: OnceCell::new(), rests_until: Mutex::new(None) }
    }

    /// The words of a voice note.
    ///
    /// # Errors
    /// The server cannot be reached, takes too long, refuses, or answers something else. Nothing of it is for
    /// a chat.
    pub async fn transcribe_audio(&self, audio: &[u8], file_name: &str) -> Result<String> {
        let rests = lock_unpoisoned(&self.rests_until).is_some_and(|until| Instant::now() < until);
        ensure!(!rests, "The server did not answer a moment ago");
        let answer = timeout(ANSWER_TIMEOUT, self.ask_server(audio, file_name)).await;
        *lock_unpoisoned(&self.rests_until) = answer.is_err().then(|| Instant::now() + REST);
        answer.context("The server took too long")?
    }

    async fn ask_server(&self, audio: &[u8], file_name: &str) -> Result<String> {
        let TranscriptionServer { base, key, model } = &self.server;
        let with_timeouts = |client: reqwest::ClientBuilder| client.connect_timeout(CONNECT_TIMEOUT);
        let client = self.client.get_or_try_init(|| build_kimi_http_client(base, with_timeouts)).await?;
        let form = Form::new(audio, file_name, model);
        let mut request = client
            .post(format!("{base}/audio/transcriptions"))
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={}", form.boundary))
            .body(form.body);
        if let Some(key) = key {
            let bearer = bearer_header(key).context("The key has characters that no header may have")?;
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let mut answer = request.send().await.context("Failed to reach the server")?;
        let status = answer.status();
        ensure!(status.is_success(), "The server answered with {status}");
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.context("The answer broke off")? {
            ensure!(body.len() + piece.len() <= ANSWER_MAX_BYTES, "The answer is far too long");
            body.extend_from_slice(&piece);
        }
        read_words(&body)
    }
}

fn read_words(body: &[u8]) -> Result<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).context("The answer is no JSON")?;
    let Some(words) = answer.get("text").and_then(serde_json::Value::as_str) else {
        bail!("The answer has no text");
    };
    let words = words.trim();
    ensure!(!words.is_empty(), "The server heard no words");
    Ok(words.chars().take(WORDS_MAX_CHARS).collect())
}

/// A form as RFC 7578 has it.
struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    fn new(audio: &[u8], file_name: &str, model: &str) -> Self {
        // Random, so that whoever has made the audio cannot have put it there.
        let boundary = format!("nanokimi-{}", hex::encode(rand::random::<[u8; 16]>()));
        let model: String = model.chars().filter(|c| !c.is_control()).collect();
        let mut body = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
             --{boundary}\r\ncontent-disposition: form-data; name=\"response_format\"\r\n\r\njson\r\n\
             --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\n\
             content-type: audio/ogg\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(audio);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Self { boundary, body }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::types::Secret;

    /// Asks a server that answers so; returns the words, and what the server read.
    async fn ask(answer: &'static str) -> (Result<String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"--\r\n") {
                if socket.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
            socket.write_all(answer.as_bytes()).await.ok();
            String::from_utf8_lossy(&read).into_owned()
        });
        let key = Some(Secret::new("sk-canary"));
        let transcriber = Transcriber::new(TranscriptionServer { base, key, model: "whisper-1".to_owned() });
        let words = transcriber.transcribe_audio(b"OggS nanokimi-0000000000000000", "note.ogg").await;
        (words, server.await.unwrap())
    }

    #[tokio::test]
    async fn a_note_is_posted_as_the_api_has_it_and_its_words_come_back() {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"text\": \" Where is the key?\\n\"}";
        let (words, asked) = ask(answer).await;
        assert_eq!(words.unwrap(), "Where is the key?");
        for part in [
            "POST /v1/audio/transcriptions HTTP/1.1\r\n",
            "authorization: Bearer sk-canary\r\n",
            "content-type: multipart/form-data; boundary=nanokimi-",
            "name=\"model\"\r\n\r\nwhisper-1\r\n",
            "filename=\"note.ogg\"\r\ncontent-type: audio/ogg\r\n\r\nOggS nanokimi-0000000000000000\r\n",
        ] {
            assert!(asked.contains(part), "{part} in {asked}");
        }
    }

    #[tokio::test]
    async fn twenty_notes_do_not_wait_for_a_server_that_hangs_and_a_later_one_asks_again() {
        // It takes every connection and never says anything.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let transcriber = Transcriber::new(TranscriptionServer { base, key: None, model: "m".to_owned() });
        let hears =
            async || format!("{:#}", transcriber.transcribe_audio(b"OggS", "n.ogg").await.unwrap_err());
        // Only now: the client is made beside the tasks, in real time.
        tokio::time::pause();
        let began = Instant::now();
        assert!(hears().await.contains("took too long"));
        for _ in 1..20 {
            assert!(hears().await.contains("a moment ago"));
        }
        assert_eq!(began.elapsed().as_secs(), ANSWER_TIMEOUT.as_secs());
        tokio::time::advance(REST).await;
        assert!(hears().await.contains("took too long"));
    }

    #[tokio::test]
    async fn whatever_else_the_server_says_is_an_error_without_the_key() {
        for (answer, expected) in [
            ("HTTP/1.1 500 No\r\nconnection: close\r\n\r\nsk-canary", "answered with 500"),
            (
                "HTTP/1.1 302 Away\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n",
                "answered with 302",
            ),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", "no JSON"),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "no text"),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"text\": 5}", "no text"),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"text\": \"  \"}", "heard no words"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "broke off"),
            ("", "Failed to reach the server"),
        ] {
            let error = format!("{:#}", ask(answer).await.0.unwrap_err());
            assert!(error.contains(expected) && !error.contains("canary"), "{answer}: {error}");
        }
        let long = format!("{{\"text\": \"{}\"}}", "word ".repeat(20_000));
        assert_eq!(read_words(long.as_bytes()).unwrap().chars().count(), WORDS_MAX_CHARS);
    }
}
