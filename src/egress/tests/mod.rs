//! Egress proxies over real unix sockets. The test itself is the engine on one side and the Kimi API on the
//! other, byte by byte, so that it knows what has been sent and what has not.

mod tools;
mod troubles;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::server::{CONNECTIONS_MAX, SOCKET_NAME};
use super::{EgressProxy, ToolCall, api_proxy, start_egress_proxy};
use crate::relay::{self, KimiUpstream};
use crate::types::{
    Authorization, ChatId, Failure, Group, GroupName, Role, Secret, TokenUsage, Trouble, WebPolicy,
};

/// How long a test waits for what should come at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const CANARY: &str = "sk-canary-real-login";

/// An egress proxy between the test's two hands.
struct EgressFixture {
    egress: EgressProxy,
    folder: TempDir,
    api: TcpListener,
    login: watch::Sender<Authorization>,
    refused_login: watch::Receiver<Option<Secret>>,
}

impl EgressFixture {
    async fn new() -> Self {
        Self::with(&[], without_web()).await
    }

    /// The egress proxy of a group whose engine is configured with these models.
    async fn with(models: &[&str], group: Group) -> Self {
        let folder = TempDir::new().unwrap();
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (login, authorization) = watch::channel(Authorization::Login(Secret::new(CANARY)));
        let base = format!("http://{}/coding/v1", api.local_addr().unwrap());
        let (refused_tokens, refused_login) = watch::channel(None);
        let upstream = KimiUpstream::new(base, authorization, refused_tokens)
            .with_models(models.iter().copied().map(str::to_owned).collect());
        let egress = start_egress_proxy(folder.path(), upstream, &group, no_tools()).await.unwrap();
        Self { egress, folder, api, login, refused_login }
    }

    async fn send_request(&self, request: &str) -> Pipe<UnixStream> {
        let mut engine = connect_to(self.folder.path()).await;
        engine.send(request).await;
        engine
    }

    /// The next connection to the API, with the request on it read up to the end of its head.
    async fn next_api_request(&self) -> (String, Pipe<TcpStream>) {
        let (stream, _) =
            timeout(PATIENCE, self.api.accept()).await.expect("no request reached the API").unwrap();
        let mut api = Pipe(stream);
        let head = api.until("\r\n\r\n").await;
        (head, api)
    }
}

/// Where no call of a tool is answered.
pub(super) fn no_tools() -> mpsc::Sender<ToolCall> {
    mpsc::channel(1).0
}

pub(super) async fn connect_to(folder: &Path) -> Pipe<UnixStream> {
    let descriptor = File::open(folder).unwrap();
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", descriptor.as_raw_fd());
    Pipe(UnixStream::connect(path).await.unwrap())
}

pub(super) struct Pipe<S>(pub(super) S);

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Pipe<S> {
    pub(super) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and including `mark`.
    pub(super) async fn until(&mut self, mark: &str) -> String {
        let mut text = Vec::new();
        timeout(PATIENCE, async {
            while !text.ends_with(mark.as_bytes()) {
                match self.0.read_u8().await {
                    Ok(byte) => text.push(byte),
                    Err(_) => break,
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{mark:?} never came after {:?}", String::from_utf8_lossy(&text)));
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with(mark), "the connection ended before {mark:?} came: {text:?}");
        text
    }

    /// Reads until the connection ends, however it ends.
    pub(super) async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut text)).await.expect("the connection never ended").ok();
        String::from_utf8(text).unwrap()
    }
}

const ASK: &str = "POST /coding/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer stand-in\r\n\
    x-api-key: stand-in\r\ncookie: a=b\r\nuser-agent: KimiCLI/1.51.0 (nanokimi 0.1)\r\nx-msh-device-id: d0\r\n\
    content-type: application/json\r\naccept-encoding: gzip\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const LOOK: &str = "GET /coding/v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: kimi-code-cli/2.1.0\r\n\
    connection: close\r\n\r\n";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-trace-id: t1\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n";

/// [`ASK`] with another body.
fn ask_with(body: &str) -> String {
    ASK.replace("content-length: 2\r\n\r\n{}", &format!("content-length: {}\r\n\r\n{body}", body.len()))
}

/// One HTTP chunk that holds one event.
fn event(data: &str) -> String {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8)
}

fn json_answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// These tests are about the Kimi API; those about the web are in `forward_proxy`.
fn without_web() -> Group {
    let (name, chat) = (GroupName::parse("main").unwrap(), ChatId::new("c"));
    Group { web: WebPolicy::None, ..Group::new(name, chat, Role::Main) }
}

fn missing(why: &str) -> Authorization {
    Authorization::Missing(why.to_owned())
}

#[tokio::test]
async fn the_stand_in_becomes_the_login_and_the_rest_passes() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (head, mut api) = fixture.next_api_request().await;
    let mut lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", fixture.api.local_addr().unwrap());
    assert_eq!(
        lines,
        [
            "POST /coding/v1/chat/completions HTTP/1.1",
            "accept-encoding: identity",
            "accept: */*",
            "authorization: Bearer sk-canary-real-login",
            "content-length: 2",
            "content-type: application/json",
            &host,
            "user-agent: KimiCLI/1.51.0 (nanokimi 0.1)",
            "x-msh-device-id: d0",
        ]
    );
    assert_eq!(api.until("{}").await, "{}");
    api.send(&json_answer("200 OK", r#"{"usage":{"prompt_tokens":3,"completion_tokens":2}}"#)).await;
    let answer = engine.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("2}}"), "{answer}");
    assert_eq!(fixture.egress.take_usage(), TokenUsage { input: 3, cached: 0, output: 2 });
    assert_eq!(fixture.egress.take_failure(), None);
}

#[tokio::test]
async fn an_event_passes_before_the_next_one_is_sent() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send(STREAM_HEAD).await;
    let head = engine.until("\r\n\r\n").await;
    assert!(head.contains("x-trace-id: t1\r\n") && !head.contains("set-cookie"), "{head}");

    api.send(&event(r#"{"choices":[{"delta":{"content":"one"}}]}"#)).await;
    engine.until("one\"}}]}\n\n\r\n").await;
    assert_eq!(fixture.egress.take_usage(), TokenUsage::default());
    let usage = r#"{"prompt_tokens":100,"completion_tokens":7,"cached_tokens":60}"#;
    api.send(&event(&format!(r#"{{"choices":[{{"finish_reason":"stop","usage":{usage}}}]}}"#))).await;
    engine.until("\n\n\r\n").await;
    assert_eq!(fixture.egress.take_usage(), TokenUsage { input: 100, cached: 60, output: 7 });

    api.send(&event(&format!(r#"{{"choices":[],"usage":{usage}}}"#))).await;
    api.send(&event("[DONE]")).await;
    api.send("0\r\n\r\n").await;
    let rest = engine.rest().await;
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "the stream ends whole: {rest}");
    assert_eq!(fixture.egress.take_usage(), TokenUsage::default(), "counted once");
    assert_eq!(fixture.egress.take_failure(), None);
}

/// Lets the API answer once, and returns what the engine hears.
async fn answered(fixture: &EgressFixture, engine: &mut Pipe<UnixStream>, answer: &str) -> String {
    let (_, mut api) = fixture.next_api_request().await;
    api.send(answer).await;
    drop(api);
    engine.rest().await
}

#[tokio::test]
async fn where_the_web_is_closed_kimi_does_not_go_there_either() {
    let fixture = EgressFixture::new().await;
    let search = r#"{"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]}"#;
    let answer = fixture.send_request(&ask_with(search)).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("the web is not open"), "{answer}");
    for body in [
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.example"}}]}]}"#,
        r#"{"messages":[],"use_search":true}"#,
    ] {
        let answer = fixture.send_request(&ask_with(body)).await.rest().await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("the web is not open"), "{answer}");
    }
    assert_eq!((fixture.egress.take_failure(), fixture.egress.was_model_asked()), (None, false));
    let function = r#"{"tools":[{"type":"function","function":{"name":"Shell"}}]}"#;
    let _engine = fixture.send_request(&ask_with(function)).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.until(function).await;
}

#[tokio::test]
async fn where_the_web_is_open_kimi_may_go_there() {
    let fixture = EgressFixture::with(&[], Group { web: WebPolicy::Web, ..without_web() }).await;
    let search =
        r#"{"use_search":true,"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]}"#;
    let _engine = fixture.send_request(&ask_with(search)).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.until(search).await;
}

#[tokio::test]
async fn a_request_that_no_engine_makes_is_refused_and_is_no_trouble() {
    for web in [WebPolicy::None, WebPolicy::Web] {
        let fixture = EgressFixture::with(&["k3"], Group { web, ..without_web() }).await;
        for (request, status, why) in [
            (ASK.replace("KimiCLI/1.51.0 (nanokimi 0.1)", "curl/8.5.0"), 403, "another program's"),
            (ASK.replace("user-agent", "x-user-agent"), 403, "another program's"),
            (ASK.replace("cookie: a=b", "user-agent: curl/8.5.0"), 403, "another program's"),
            (LOOK.replace("kimi-code-cli/2.1.0", "node"), 403, "another program's"),
            (ASK.replace("completions ", "completions?a=b "), 403, "has no query"),
            (ask_with(r#"{"model":"k3","model":"k9"}"#), 400, "names its model more than once"),
        ] {
            let answer = fixture.send_request(&request).await.rest().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(why), "{answer}");
        }
        assert_eq!((fixture.egress.take_failure(), fixture.egress.was_model_asked()), (None, false));
        assert_eq!(*fixture.refused_login.borrow(), None);
        // The next thing that the API hears is the next good request.
        let _engine = fixture.send_request(LOOK).await;
        assert!(fixture.next_api_request().await.0.starts_with("GET /coding/v1/models "));
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_is_asked_for_so_much_at_once_and_the_rest_waits() {
    let fixture = EgressFixture::new().await;
    let mut crowd = Vec::new();
    for _ in 0..api_proxy::ASKED_AT_ONCE_MAX {
        let mut engine = fixture.send_request(ASK).await;
        let (_, mut api) = fixture.next_api_request().await;
        api.send(STREAM_HEAD).await;
        engine.until("\r\n\r\n").await;
        crowd.push((engine, api));
    }
    let mut late = fixture.send_request(ASK).await;
    let nobody = timeout(PATIENCE, fixture.api.accept()).await;
    assert!(nobody.is_err(), "one more was asked for");
    // What is not for the model does not wait.
    let mut other = fixture.send_request(LOOK).await;
    answered(&fixture, &mut other, &json_answer("200 OK", "{}")).await;
    crowd.pop();
    let answer = answered(&fixture, &mut late, &json_answer("200 OK", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(fixture.egress.take_failure(), None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send(STREAM_HEAD).await;
    engine.until("\r\n\r\n").await;
    let began = tokio::time::Instant::now();
    let much = event(&"x".repeat(60_000));
    while api.0.write_all(much.as_bytes()).await.is_ok() {}
    assert!(began.elapsed() >= relay::UNREAD_TIMEOUT, "{:?}", began.elapsed());
    engine.0.read_to_end(&mut Vec::new()).await.ok();
    assert_eq!(fixture.egress.take_failure(), None);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(LOOK).await;
    let (_, mut api) = fixture.next_api_request().await;
    let elsewhere = format!("http://{}/elsewhere", fixture.api.local_addr().unwrap());
    api.send(&format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    let answer = engine.rest().await;
    assert!(answer.starts_with("HTTP/1.1 307 ") && answer.contains(&elsewhere), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_cut_ends_in_an_error_for_the_engine() {
    let fixture = EgressFixture::new().await;
    let half = event(r#"{"choices":[{"delta":{"content":"half"},"finish_reason":null}]}"#);
    // With chunks the connection breaks; without, only the missing end of the events shows it.
    let unchunked =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: half\n\n";
    for answer in [format!("{STREAM_HEAD}{half}"), unchunked.to_owned()] {
        let mut engine = fixture.send_request(ASK).await;
        let (_, mut api) = fixture.next_api_request().await;
        api.send(&answer).await;
        engine.until("\n\n\r\n").await;
        drop(api);
        let rest = engine.rest().await;
        assert!(rest.contains("Connection error.") && rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
        let failure = fixture.egress.take_failure().unwrap();
        assert_eq!(failure.trouble, Trouble::Unreachable);
        assert!(
            failure.detail.starts_with("The answer of the Kimi API was cut short: "),
            "{}",
            failure.detail
        );
    }
}

#[tokio::test]
async fn an_engine_that_hangs_up_hangs_up_at_the_api() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.until("{}").await;
    api.send(STREAM_HEAD).await;
    engine.until("\r\n\r\n").await;
    drop(engine);
    assert_eq!(api.rest().await, "");
    assert_eq!(fixture.egress.take_failure(), None);
}

#[tokio::test]
async fn a_request_that_is_too_long_is_refused() {
    let fixture = EgressFixture::new().await;
    let long = ASK.replace("content-length: 2\r\n\r\n{}", "content-length: 33554433\r\n\r\n");
    let mut engine = fixture.send_request(&long).await;
    engine.send(&"x".repeat(33_554_433)).await;
    let answer = engine.until("}}").await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("longer than 32 MiB"), "{answer}");

    let mut engine =
        fixture.send_request(&long.replace("content-length: 33554433", "transfer-encoding: chunked")).await;
    let mebibyte = format!("100000\r\n{}\r\n", "x".repeat(1024 * 1024));
    for _ in 0..32 {
        engine.send(&mebibyte).await;
    }
    engine.send("1\r\nx\r\n0\r\n\r\n").await;
    let answer = engine.until("}}").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(fixture.egress.take_failure().unwrap().trouble, Trouble::TooLarge);
    // Nothing of it has reached the API.
    let _engine = fixture.send_request(LOOK).await;
    assert!(fixture.next_api_request().await.0.starts_with("GET /coding/v1/models "));
}

#[tokio::test]
async fn nobody_keeps_the_room_by_saying_nothing() {
    let fixture = EgressFixture::new().await;
    let begun = ASK.replace("content-length: 2\r\n\r\n{}", "transfer-encoding: chunked\r\n\r\n");
    let mut silent = [fixture.send_request(&begun).await, fixture.send_request(&begun).await];
    later(Duration::from_secs(30)).await;
    let mut engine = fixture.send_request(ASK).await;
    later(Duration::from_secs(31)).await;
    let answer = answered(&fixture, &mut engine, &json_answer("200 OK", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for engine in &mut silent {
        assert!(engine.rest().await.starts_with("HTTP/1.1 400 "));
    }
}

/// Lets time pass, once all that was sent has come.
async fn later(length: Duration) {
    sleep(Duration::from_millis(300)).await;
    tokio::time::pause();
    tokio::time::advance(length).await;
    tokio::time::resume();
}

#[tokio::test]
async fn whatever_is_not_the_kimi_api_stays_inside() {
    let fixture = EgressFixture::new().await;
    for (line, status) in [
        ("GET /coding/v1/../../admin HTTP/1.1", 403),
        ("GET /coding/v1/%2e%2e/admin HTTP/1.1", 403),
        ("GET /mcpx HTTP/1.1", 404),
        ("POST /mcp/x HTTP/1.1", 404),
        ("TRACE /coding/v1/models HTTP/1.1", 403),
    ] {
        let answer = fixture
            .send_request(&format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .await
            .rest()
            .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        assert!(answer.contains(r#""type":"invalid_request_error""#), "{line}: {answer}");
    }
    // The next thing that the API hears is the next good request.
    let _engine = fixture.send_request(LOOK).await;
    assert!(fixture.next_api_request().await.0.starts_with("GET /coding/v1/models "));
}

/// What is logged, in memory.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_login_never_leaks() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut seen = String::new();

    let fixture = EgressFixture::new().await;
    fixture.login.send_replace(Authorization::ApiKey(Secret::new(CANARY)));
    let detail = |failure: Option<Failure>| failure.map(|failure| failure.detail);
    for (request, kept) in [(LOOK, None), (ASK, Some("HTTP 401 … is no key".to_owned()))] {
        let mut engine = fixture.send_request(request).await;
        let (head, mut api) = fixture.next_api_request().await;
        assert!(head.contains(CANARY));
        let reason = format!(r#"{{"error":{{"message":"{CANARY} is no key"}}}}"#);
        api.send(&json_answer("401 Unauthorized", &reason)).await;
        seen += &engine.rest().await;
        assert_eq!(detail(fixture.egress.take_failure()), kept);
    }
    // A login is longer than what is kept of a reason.
    let long = format!("{CANARY}{}", "x".repeat(700));
    fixture.login.send_replace(Authorization::ApiKey(Secret::new(&long)));
    let mut engine = fixture.send_request(ASK).await;
    let reason = json_answer("401 Unauthorized", &format!(r#"{{"error":{{"message":"no: {long}"}}}}"#));
    seen += &answered(&fixture, &mut engine, &reason).await;
    let mut engine = fixture.send_request(ASK).await;
    let cut = json_answer("401 Unauthorized", &format!("no: {}", &long[..400]));
    seen += &answered(&fixture, &mut engine, &cut).await;
    seen += &format!("{:?}", fixture.egress.take_failure());
    fixture.login.send_replace(Authorization::ApiKey(Secret::new(CANARY)));
    for request in ["GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "garbage\r\n\r\n"] {
        seen += &fixture.send_request(request).await.rest().await;
    }
    // A garbled answer, then nobody there.
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send("nonsense\r\n\r\n").await;
    drop(api);
    seen += &engine.rest().await;
    let EgressFixture { egress, folder, api, login, .. } = fixture;
    drop(api);
    let mut engine = connect_to(folder.path()).await;
    engine.send(ASK).await;
    seen += &engine.rest().await;
    assert!(
        seen.contains("HTTP/1.1 400 Bad Request\r\n") && seen.contains("The Kimi API cannot be reached: "),
        "{seen}"
    );
    assert_eq!(egress.take_failure().unwrap().trouble, Trouble::Unreachable);
    // A login that is no header value.
    login.send_replace(Authorization::Login(Secret::new(format!("{CANARY}\n"))));
    let mut engine = connect_to(folder.path()).await;
    engine.send(ASK).await;
    seen += &engine.rest().await;
    seen += &format!("{egress:?} {:?}", egress.take_failure());

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("cannot be reached"), "the log was listening: {logged}");
    assert!(!seen.contains("canary") && !logged.contains("canary"), "{seen}\n{logged}");
}

#[tokio::test]
async fn a_door_opens_beneath_a_very_long_path() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("a-long-name-".repeat(15)).join("and-another-".repeat(15));
    let (_login, authorization) = watch::channel(missing("nobody"));
    let upstream = KimiUpstream::new("http://127.0.0.1:9/coding/v1", authorization, watch::Sender::new(None));
    let _door = start_egress_proxy(&folder, upstream, &without_web(), no_tools()).await.unwrap();
    let mut engine = connect_to(&folder).await;
    engine.send(LOOK).await;
    assert!(engine.rest().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_dropped_door_is_shut() {
    let fixture = EgressFixture::new().await;
    let socket = fixture.folder.path().join(SOCKET_NAME);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(fixture.folder.path()).unwrap().mode() & 0o777, 0o700);
    // A hard link still leads to the socket when its name is gone, as the container's mount does.
    let link = fixture.folder.path().join("link.sock");
    fs::hard_link(&socket, &link).unwrap();

    let mut idle = fixture.send_request("").await;
    let mut busy = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    let EgressFixture { egress, folder: _folder, .. } = fixture;
    drop(egress);
    assert!(!socket.exists());
    assert_eq!((idle.rest().await, busy.rest().await), (String::new(), String::new()));
    assert_eq!(api.rest().await, "{}", "the request to the API ended too");
    let error = UnixStream::connect(&link).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_new_door_takes_the_place_of_an_old_one() {
    let fixture = EgressFixture::new().await;
    let (_login, authorization) = watch::channel(missing("the new one"));
    let upstream = KimiUpstream::new("http://127.0.0.1:9/coding/v1", authorization, watch::Sender::new(None));
    let second =
        start_egress_proxy(fixture.folder.path(), upstream, &without_web(), no_tools()).await.unwrap();
    let EgressFixture { egress, folder, .. } = fixture;
    drop(egress);
    let mut engine = connect_to(folder.path()).await;
    engine.send(ASK).await;
    engine.rest().await;
    assert_eq!(second.take_failure().unwrap().detail, "the new one");
    drop(second);
    assert!(!folder.path().join(SOCKET_NAME).exists());
}

#[tokio::test]
async fn a_crowd_waits_outside() {
    let fixture = EgressFixture::new().await;
    fixture.login.send_replace(missing("nobody"));
    let look = LOOK.replace("connection: close\r\n", "");
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut engine = fixture.send_request(&look).await;
        engine.until("}}").await;
        crowd.push(engine);
    }
    let mut late = fixture.send_request(&look).await;
    for _ in 0..50 {
        crowd[0].send(&look).await;
        crowd[0].until("}}").await;
    }
    let nothing_yet = late.0.try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing_yet.kind(), std::io::ErrorKind::WouldBlock);
    crowd.pop();
    late.until("}}").await;
}

#[tokio::test]
async fn the_login_is_sent_over_https_or_within_this_machine() {
    let folder = TempDir::new().unwrap();
    for (base, good) in [
        ("https://api.kimi.com/coding/v1", true),
        ("http://127.0.0.1:8000/coding/v1", true),
        ("http://[::1]:8000/v1", true),
        ("http://api.kimi.com/coding/v1", false),
        ("http://127.0.0.1.evil.example/v1", false),
        ("http://127.0.0.1@evil.example/v1", false),
        ("https://api.kimi.com/coding/v1/", false),
        ("https://api.kimi.com/v1?key=1", false),
        ("ftp://api.kimi.com/v1", false),
        ("api.kimi.com", false),
    ] {
        let (_login, authorization) = watch::channel(missing("nobody"));
        let opened = start_egress_proxy(
            folder.path(),
            KimiUpstream::new(base, authorization, watch::Sender::new(None)),
            &without_web(),
            no_tools(),
        )
        .await;
        assert_eq!(opened.is_ok(), good, "{base}");
    }
}
