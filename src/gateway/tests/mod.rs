//! The gateway over real sockets, with the practice model in Kimi's place, or the test itself byte by byte.

mod hostile;
mod responses;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client_key::generate_client_key;
use super::handler::{Gateway, GatewaySetup};
use super::headers::KimiCliHeaders;
use super::server::GatewayServer;
use super::upstream::KimiApi;
use crate::clock::Clock;
use crate::practice::{
    Conversation, ModelFailure, ModelReply, Practice, ReceivedRequest, ReplyStep, start_practice_model,
};
use crate::relay::KimiUpstream;
use crate::store::{KeyUsage, Store};
use crate::types::{Authorization, ClientIdentity, GatewayAddress, GatewayKey, KeyName, Secret};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);
const CANARY: &str = "sk-canary-real-login";

/// A gateway with its keys, between a test and an API.
struct GatewayFixture {
    folder: TempDir,
    store: Store,
    address: GatewayAddress,
    login: watch::Sender<Authorization>,
    server: JoinHandle<()>,
}

impl GatewayFixture {
    /// Before the API at `base`, on a free port.
    async fn before(base: &str) -> Self {
        Self::listening(base, GatewayAddress::Loopback("127.0.0.1:0".parse().unwrap())).await
    }

    async fn listening(base: &str, address: GatewayAddress) -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let (login, authorization) = watch::channel(Authorization::Login(Secret::new(CANARY)));
        let upstream = KimiUpstream::new(base, authorization, watch::Sender::default());
        let setup = GatewaySetup {
            store: store.clone(),
            clock: Clock::System,
            zone: TimeZone::UTC,
            kimi: KimiApi::new(&upstream).await.unwrap(),
            kimi_cli: KimiCliHeaders {
                version: "1.12.0".to_owned(),
                device_name: "host".to_owned(),
                device_model: "Linux 6 x86_64".to_owned(),
                os_version: "#1".to_owned(),
                device_id: "d0".to_owned(),
            },
        };
        let server = GatewayServer::bind(&address).await.unwrap();
        let address = server.address().clone();
        let gateway = Arc::new(Gateway::new(setup));
        let server = tokio::spawn(async move { match server.serve(gateway).await {} });
        Self { folder, store, address, login, server }
    }

    /// A key that may do all.
    async fn key(&self) -> String {
        self.key_that(|key| key).await
    }

    async fn key_that(&self, limited: impl FnOnce(GatewayKey) -> GatewayKey) -> String {
        let (secret, hash) = generate_client_key();
        let key = GatewayKey {
            name: KeyName::parse("laptop").unwrap(),
            daily_tokens: None,
            models: Vec::new(),
            identity: ClientIdentity::Own,
        };
        assert!(self.store.add_gateway_key(&limited(key), hash, Timestamp::UNIX_EPOCH).await.unwrap());
        secret.expose_secret().to_owned()
    }

    /// A second client's key, for one model.
    async fn key_limited_to(&self, model: &str) -> String {
        self.key_that(|key| GatewayKey {
            name: KeyName::parse("tablet").unwrap(),
            models: vec![model.to_owned()],
            ..key
        })
        .await
    }

    fn host(&self) -> String {
        self.address.base_url().map_or_else(|| "any".to_owned(), |url| url.replace("http://", ""))
    }

    async fn connect(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.host()).await.unwrap())
    }

    /// Sends a request with these headers besides what HTTP needs, and reads the answer to its end.
    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&request(line, &self.host(), headers, body)).await;
        client.answer().await
    }

    /// Asks with a key.
    async fn ask_as(&self, key: &str, line: &str, body: &Value) -> Answer {
        self.ask(line, &[&format!("Authorization: Bearer {key}")], &body.to_string()).await
    }

    /// What the key `laptop` has used; waits until it is `requests`.
    async fn usage_of(&self, requests: u64) -> KeyUsage {
        let name = KeyName::parse("laptop").unwrap();
        let (first, last) = ("2000-01-01".parse().unwrap(), "2999-01-01".parse().unwrap());
        let counted = async {
            loop {
                let used = self.store.gateway_usage(&name, first, last).await.unwrap();
                if used.requests >= requests {
                    return used;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect("the usage was never written down")
    }
}

impl Drop for GatewayFixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A request whose connection ends with it.
fn request(line: &str, host: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}{length}\r\n{body}")
}

struct Client<S>(S);

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Client<S> {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and including `mark`.
    async fn until(&mut self, mark: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !text.ends_with(mark.as_bytes()) {
                match self.0.read_u8().await {
                    Ok(byte) => text.push(byte),
                    Err(_) => break,
                }
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("{mark:?} never came"));
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with(mark), "the connection ended before {mark:?} came: {text:?}");
        text
    }

    /// Reads until the connection ends, however it ends.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut text)).await.expect("the connection never ended").ok();
        String::from_utf8(text).unwrap()
    }

    async fn answer(&mut self) -> Answer {
        let text = self.rest().await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { join_chunks(body) } else { body.to_owned() };
        Answer { status, head: head.to_owned(), body }
    }
}

fn join_chunks(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = text.split_once("\r\n") {
        let Ok(length @ 1..) = usize::from_str_radix(length, 16) else { break };
        body.push_str(&rest[..length]);
        text = &rest[length + 2..];
    }
    body
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data of a stream's events.
    fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// Does what the message says, and answers `yes` to all else.
fn brain(conversation: &Conversation) -> ModelReply {
    let say = |text: &str| ReplyStep::Say(text.to_owned());
    if let Some(found) = conversation.tool_answers.last() {
        return ModelReply::Answer(vec![say(&format!("the tool said {found}"))]);
    }
    match conversation.message_to_answer() {
        "CALL" => ModelReply::Answer(vec![
            ReplyStep::Think("hm".to_owned()),
            ReplyStep::Call { tool: "read".to_owned(), arguments: r#"{"path":"a"}"#.to_owned() },
        ]),
        "CUT" => ModelReply::Answer(vec![say("half an answer"), ReplyStep::Cut]),
        "HANG" => ModelReply::Answer(vec![ReplyStep::Hang]),
        "BUSY" => ModelReply::Fail {
            how: ModelFailure::Refuses { status: 429, retry_after_secs: Some(600) },
            times: 1,
            then: vec![say("yes")],
        },
        _ => ModelReply::Answer(vec![say("yes")]),
    }
}

async fn practice() -> Practice {
    start_practice_model(brain, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

async fn world() -> (Practice, GatewayFixture) {
    let practice = practice().await;
    let gateway = GatewayFixture::before(&practice.base_url()).await;
    (practice, gateway)
}

fn last_request(practice: &Practice) -> ReceivedRequest {
    practice.received_requests().pop().expect("nothing reached Kimi")
}

fn chat(model: &str, text: &str, stream: bool) -> Value {
    json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

const CHAT: &str = "POST /v1/chat/completions";
const MESSAGES: &str = "POST /v1/messages";

#[tokio::test]
async fn a_chat_completion_goes_to_kimi_with_the_login_and_its_answer_comes_back() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let body = chat("kimicode-kimi-k2.5-thinking", "hello", false).to_string();
    let headers = [
        &*format!("authorization: Bearer {key}"),
        "user-agent: opencode/1.18.0",
        "x-session-affinity: ses_7",
        "cookie: a=b",
    ];
    let answer = gateway.ask(CHAT, &headers, &body).await;
    assert_eq!(
        (answer.status, &answer.json()["choices"][0]["message"]["content"]),
        (200, &json!("yes")),
        "{answer:?}"
    );
    let ReceivedRequest { line, headers, body } = last_request(&practice);
    assert_eq!(line, "POST /coding/v1/chat/completions");
    assert_eq!(headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(
        (&*headers["user-agent"], headers.get("cookie"), headers.get("x-session-affinity")),
        ("opencode/1.18.0", None, None)
    );
    assert_eq!(
        (&body["model"], &body["reasoning_effort"], &body["thinking"], &body["prompt_cache_key"]),
        (&json!("kimi-for-coding"), &json!("high"), &json!({ "type": "enabled" }), &json!("ses_7"))
    );
    let used = gateway.usage_of(1).await;
    assert!(used.tokens.input > 0 && used.tokens.cached > 0 && used.tokens.output == 1, "{used:?}");
}

#[tokio::test]
async fn specification_prompt_cache_key_is_one_per_key_and_process() {
    let (practice, gateway) = world().await;
    let laptop = gateway.key().await;
    let desk = gateway.key_that(|key| GatewayKey { name: KeyName::parse("desk").unwrap(), ..key }).await;
    let mut cache_keys = Vec::new();
    for key in [&laptop, &laptop, &desk] {
        gateway.ask_as(key, CHAT, &chat("k3", "hello", false)).await;
        cache_keys.push(last_request(&practice).body["prompt_cache_key"].as_str().unwrap().to_owned());
    }
    assert_eq!(cache_keys[0], cache_keys[1]);
    assert_ne!(cache_keys[0], cache_keys[2]);
    assert!(cache_keys.iter().all(|key| key.len() == 32 && !key.contains("laptop")));
}

#[tokio::test]
async fn a_message_goes_to_kimis_anthropic_surface_and_a_tool_is_called() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let mut request = json!({ "model": "kimi-for-coding", "max_tokens": 100, "stream": true, "system": "s",
        "messages": [{ "role": "user", "content": "CALL" }] });
    let headers = [&*format!("x-api-key: {key}"), "anthropic-version: 2023-06-01", "anthropic-beta: b1"];
    let answer = gateway.ask("POST /v1/messages?beta=true", &headers, &request.to_string()).await;
    let events = answer.events();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("message_start", "message_stop"), "{answer:?}");
    let tool = events.iter().find(|event| event["content_block"]["type"] == "tool_use").unwrap();
    assert_eq!(
        (&tool["content_block"]["name"], &tool["content_block"]["id"]),
        (&json!("read"), &json!("functions.read:101"))
    );
    let ReceivedRequest { line, headers: received, body } = last_request(&practice);
    assert_eq!(line, "POST /coding/v1/messages");
    assert_eq!((&*received["anthropic-beta"], received.get("x-api-key")), ("b1", None));
    assert_eq!((body.get("prompt_cache_key"), &body), (None, &request));

    request["messages"].as_array_mut().unwrap().extend([
        json!({ "role": "assistant", "content": [{ "type": "tool_use", "id": "functions.read:101", "name": "read", "input": {} }] }),
        json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "functions.read:101", "content": "A" }] }),
    ]);
    request["stream"] = json!(false);
    let answer = gateway.ask(MESSAGES, &headers, &request.to_string()).await;
    assert_eq!(answer.json()["content"][0]["text"], "the tool said A");
    let used = gateway.usage_of(2).await;
    assert!(used.tokens.input > 40 && used.tokens.cached > 0 && used.tokens.output > 0, "{used:?}");

    let answer = gateway.ask("POST /v1/messages/count_tokens", &headers, &request.to_string()).await;
    assert!(answer.json()["input_tokens"].as_u64().unwrap() > 10, "{answer:?}");
    assert_eq!(last_request(&practice).line, "POST /coding/v1/messages/count_tokens");
}

#[tokio::test]
async fn the_models_are_kimis_with_our_aliases() {
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    let list = gateway.ask("GET /v1/models", &[&format!("authorization: Bearer {key}")], "").await.json();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["kimi-for-coding", "kimicode-kimi-k2.5", "kimicode-kimi-k2.5-thinking"]);
    assert_eq!(list["data"][1]["context_length"], 262_144);
    let headers = [&*format!("x-api-key: {key}"), "anthropic-version: 2023-06-01"];
    let list = gateway.ask("GET /v1/models?limit=1000", &headers, "").await.json();
    assert_eq!(list["data"][2]["display_name"], "Kimi Code (K2.5) Thinking");
}

#[tokio::test]
async fn a_key_with_the_identity_of_kimi_cli_has_its_headers() {
    let (practice, gateway) = world().await;
    let key = gateway.key_that(|key| GatewayKey { identity: ClientIdentity::KimiCli, ..key }).await;
    gateway.ask_as(&key, CHAT, &chat("k3", "hello", false)).await;
    let headers = last_request(&practice).headers;
    assert_eq!(
        (&*headers["user-agent"], &*headers["x-msh-platform"], &*headers["x-msh-device-id"]),
        ("KimiCLI/1.12.0", "kimi_cli", "d0")
    );
}

#[tokio::test]
async fn a_key_has_its_models_and_its_day() {
    let (practice, gateway) = world().await;
    let key = gateway
        .key_that(|key| GatewayKey { models: vec!["k3".to_owned()], daily_tokens: Some(9), ..key })
        .await;
    let refused = gateway.ask_as(&key, CHAT, &chat("kimi-for-coding", "hello", false)).await;
    assert_eq!(refused.status, 403);
    insta::assert_snapshot!(refused.json()["error"]["message"].as_str().unwrap(), @r#"The key laptop may not use the model "kimi-for-coding"; it may use k3."#);
    assert_eq!(practice.received_requests(), []);
    assert_eq!(gateway.ask_as(&key, CHAT, &chat("kimicode-k3", "hello", true)).await.status, 200);
    let used = gateway.usage_of(1).await;
    assert!(used.tokens.counted_tokens() >= 9, "{used:?}");
    for (line, kind) in [(CHAT, "rate_limit_error"), (MESSAGES, "rate_limit_error")] {
        let refused = gateway.ask_as(&key, line, &chat("k3", "hello", false)).await;
        assert_eq!((refused.status, &refused.json()["error"]["type"]), (429, &json!(kind)));
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with("The key laptop has used up its 9 tokens of today; it goes on at "),
            "{message}"
        );
        let after = refused.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
        assert!((1..=24 * 60 * 60).contains(&after.parse::<u64>().unwrap()), "{after}");
    }
    // What costs nothing goes on.
    let usage = gateway.ask("GET /v1/usage", &[&format!("x-api-key: {key}")], "").await.json();
    assert_eq!(
        (&usage["requests"], &usage["daily_tokens"], &usage["daily_tokens_left"]),
        (&json!(1), &json!(9), &json!(0))
    );
}

#[tokio::test]
async fn what_kimi_refuses_is_said_in_the_clients_form() {
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    let refused = gateway.ask_as(&key, CHAT, &chat("k3", "BUSY", true)).await;
    assert_eq!((refused.status, refused.head.contains("retry-after: 600")), (429, true));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_reached_error");
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    let refused = gateway.ask_as(&key, MESSAGES, &chat("k3", "BUSY", true)).await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (429, &json!("rate_limit_error")));

    gateway.login.send_replace(Authorization::Missing("/home/x/kimi-code.json is not there".to_owned()));
    let refused = gateway.ask_as(&key, CHAT, &chat("k3", "hello", true)).await;
    assert_eq!(refused.status, 503);
    assert_eq!(
        refused.json()["error"]["message"],
        "nanokimi has no login that Kimi takes; run `nanokimi login`."
    );
}

#[tokio::test]
async fn a_unix_socket_serves_this_user_only_and_goes_with_the_gateway() {
    use std::os::unix::fs::PermissionsExt;
    let practice = practice().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("gateway.sock");
    let address = GatewayAddress::Unix(path.clone());
    let gateway = GatewayFixture::listening(&practice.base_url(), address.clone()).await;
    let key = gateway.key().await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = Client(UnixStream::connect(&path).await.unwrap());
    let authorization = format!("authorization: Bearer {key}");
    client.send(&request("GET /v1/models", "whatever.example", &[&authorization], "")).await;
    assert_eq!(client.answer().await.status, 200);
    let taken = GatewayServer::bind(&address).await.unwrap_err();
    assert!(format!("{taken:#}").contains("Another program listens on"), "{taken:#}");
    drop(gateway);
    timeout(PATIENCE, async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the socket stays");
    // One that a killed gateway has left is replaced; a file is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(GatewayServer::bind(&address).await.unwrap());
    std::fs::write(&path, "mine").unwrap();
    let error = GatewayServer::bind(&address).await.unwrap_err();
    assert!(format!("{error:#}").contains("is no socket"), "{error:#}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn no_key_of_a_client_is_on_the_disk() {
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    gateway.ask_as(&key, CHAT, &chat("k3", "hello", true)).await;
    gateway.usage_of(1).await;
    for file in std::fs::read_dir(gateway.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let digits = key.strip_prefix("nk-").unwrap().as_bytes();
        assert!(!bytes.windows(digits.len()).any(|window| window == digits));
    }
}
