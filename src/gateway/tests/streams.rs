//! Streams through the gateway: passed on as they come, kept alive, and never ended in silence. The test itself is Kimi,
//! byte by byte.

use super::*;
use crate::relay::UNREAD_TIMEOUT;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n";

const RESPONSES: &str = "POST /v1/responses";

/// Kimi's side, and a client that has asked for a stream.
struct StreamFixture {
    kimi: TcpListener,
    gateway: GatewayFixture,
    key: String,
}

impl StreamFixture {
    async fn new() -> Self {
        let kimi = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway =
            GatewayFixture::before(&format!("http://{}/coding/v1", kimi.local_addr().unwrap())).await;
        let key = gateway.key().await;
        Self { kimi, gateway, key }
    }

    /// A client's request, and the connection on which it has reached Kimi.
    async fn reach_kimi(&self, line: &str, is_stream: bool) -> (Client<TcpStream>, Client<TcpStream>) {
        let mut client = self.gateway.connect().await;
        let key = format!("x-api-key: {}", self.key);
        let body = match line {
            RESPONSES => json!({ "model": "k3", "stream": is_stream, "input": "hello" }),
            _ => chat("k3", "hello", is_stream),
        };
        client.send(&request(line, &self.gateway.host(), &[&key], &body.to_string())).await;
        let mut kimi = Client(self.kimi.accept().await.unwrap().0);
        kimi.until("\r\n\r\n").await;
        (client, kimi)
    }

    /// The same with a stream that Kimi has begun.
    async fn open(&self, line: &str) -> (Client<TcpStream>, Client<TcpStream>) {
        let (client, mut kimi) = self.reach_kimi(line, true).await;
        kimi.send(HEAD).await;
        (client, kimi)
    }
}

/// One HTTP chunk.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn delta(text: &str) -> String {
    format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

const LAST: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
    \"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,\"cached_tokens\":60}}\n\n";

#[tokio::test]
async fn each_event_is_passed_on_before_the_next_comes() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(CHAT).await;
    for text in ["one", "two", "three"] {
        kimi.send(&chunk(&delta(text))).await;
        let seen = client.until(&format!("{}\r\n", delta(text))).await;
        assert!(!seen.contains("set-cookie"), "{seen}");
    }
    // What the network has cut passes when it is whole.
    let (first, second) = LAST.split_at(40);
    kimi.send(&chunk(first)).await;
    kimi.send(&chunk(second)).await;
    kimi.send(&chunk("data: [DONE]\n\n")).await;
    kimi.send("0\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.contains(LAST) && rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
    let used = world.gateway.usage_of(1).await.tokens;
    assert_eq!((used.input, used.cached, used.output), (100, 60, 7));
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_in_the_protocols_own_error() {
    for (line, event, last) in [
        (CHAT, "data: {\"error\":{", "\"message\":\"Kimi's answer broke off; ask again.\""),
        (MESSAGES, "event: error\ndata: {\"type\":\"error\",\"error\":{", "\"type\":\"api_error\""),
    ] {
        for cut in ["", "data: {\"choices\":[{\"del"] {
            let world = StreamFixture::new().await;
            let (mut client, mut kimi) = world.open(line).await;
            kimi.send(&chunk(&delta("half"))).await;
            client.until(&delta("half")).await;
            if !cut.is_empty() {
                kimi.send(&chunk(cut)).await;
            }
            drop(kimi);
            let rest = client.rest().await;
            // A whole HTTP answer, with a whole last event.
            assert!(
                rest.contains(event) && rest.contains(last) && rest.ends_with("\n\n\r\n0\r\n\r\n"),
                "{rest}"
            );
            assert!(!rest.contains("\"del"), "what was cut is left out: {rest}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_last_word_is_whole() {
    for line in [CHAT, RESPONSES] {
        let world = StreamFixture::new().await;
        let (mut client, mut kimi) = world.open(line).await;
        kimi.send(&chunk(&delta("all"))).await;
        kimi.send(&chunk(LAST)).await;
        drop(kimi);
        let rest = client.rest().await;
        assert!(rest.ends_with("\n\n\r\n0\r\n\r\n") && !rest.contains("broke off"), "{rest}");
        assert_eq!(rest.contains("response.completed"), line == RESPONSES, "{rest}");
        assert_eq!(world.gateway.usage_of(1).await.tokens.output, 7);
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_in_good_order_is_an_error_too() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(CHAT).await;
    kimi.send(&chunk(&delta("half"))).await;
    kimi.send("0\r\n\r\n").await;
    assert!(client.rest().await.contains("\"message\":\"Kimi's answer broke off; ask again.\""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_given_up() {
    let world = StreamFixture::new().await;
    let (_client, mut kimi) = world.open(CHAT).await;
    let began = tokio::time::Instant::now();
    let piece = chunk(&delta(&"x".repeat(60 * 1024)));
    let mut pieces = 0;
    // What the sockets hold is taken; the rest waits for the client, and then nobody wants it any more.
    while kimi.0.write_all(piece.as_bytes()).await.is_ok() {
        pieces += 1;
        assert!(pieces < 1_000, "the gateway holds 60 MB for a client that does not read");
    }
    let waited = began.elapsed();
    assert!(waited >= UNREAD_TIMEOUT && waited < UNREAD_TIMEOUT * 2, "{waited:?}");
    assert_eq!(world.gateway.usage_of(1).await.requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_comment_is_sent_while_kimi_is_silent() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(CHAT).await;
    kimi.send(&chunk(&delta("one"))).await;
    let mut seen = String::new();
    // Without the patience of `until`: time is paused.
    while seen.matches(": keep-alive\n\n").count() < 3 {
        seen.push(char::from(client.0.read_u8().await.unwrap()));
    }
    let (_, after) = seen.split_once(&delta("one")).expect("the event came first");
    assert_eq!(after.matches(": keep-alive").count(), 3);
    kimi.send(&chunk(LAST)).await;
    kimi.send("0\r\n\r\n").await;
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains(LAST), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_comment_is_sent_while_kimi_sends_nothing_that_the_client_hears() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(RESPONSES).await;
    let mut seen = String::new();
    // Without the patience of `until`: time is paused.
    while seen.matches(": keep-alive\n\n").count() < 3 {
        tokio::select! {
            byte = client.0.read_u8() => seen.push(char::from(byte.unwrap())),
            () = tokio::time::sleep(Duration::from_secs(4)) => kimi.send(&chunk(": Kimi thinks\n\n")).await,
        }
    }
}

#[tokio::test]
async fn a_response_that_has_failed_ends_though_kimi_goes_on() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(RESPONSES).await;
    kimi.send(&chunk("data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n")).await;
    let rest = client.rest().await;
    assert!(rest.contains("response.failed") && rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    // Kimi's side ends as well.
    let mut byte = [0];
    timeout(PATIENCE, kimi.0.read(&mut byte)).await.expect("the request goes on").ok();
}

#[tokio::test]
async fn a_stream_of_completions_is_one_whatever_headers_its_client_sends() {
    let world = StreamFixture::new().await;
    let mut client = world.gateway.connect().await;
    let headers = [&*format!("x-api-key: {}", world.key), "anthropic-version: 2023-06-01"];
    let body = chat("kimicode-kimi-k2.5-thinking", "hello", true).to_string();
    client.send(&request(CHAT, &world.gateway.host(), &headers, &body)).await;
    let mut kimi = Client(world.kimi.accept().await.unwrap().0);
    let asked = kimi.until("}").await;
    assert!(asked.contains("\"reasoning_effort\":\"high\""), "{asked}");
    kimi.send(HEAD).await;
    kimi.send(&chunk(LAST)).await;
    kimi.send(&chunk("data: [DONE]\n\n")).await;
    kimi.send("0\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
    assert_eq!(world.gateway.usage_of(1).await.tokens.output, 7);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_request_and_what_it_used_counts() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.open(CHAT).await;
    kimi.send(&chunk(&delta("one"))).await;
    kimi.send(&chunk(LAST)).await;
    client.until(LAST).await;
    drop(client);
    // Kimi's side ends as well.
    let mut byte = [0];
    timeout(PATIENCE, kimi.0.read(&mut byte)).await.expect("the request goes on without its client").ok();
    assert_eq!(world.gateway.usage_of(1).await.tokens.output, 7);
}

#[tokio::test]
async fn a_cut_answer_in_one_piece_cuts_the_connection() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.reach_kimi(CHAT, false).await;
    kimi.send(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"choices\":",
    )
    .await;
    client.until("{\"choices\":").await;
    drop(kimi);
    let rest = client.rest().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "HTTP says that the answer is whole: {rest}");
}

#[tokio::test]
async fn what_is_not_kimi_is_not_passed_on() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.reach_kimi(CHAT, true).await;
    kimi.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (
            502,
            &json!(
                "The Kimi API cannot be reached: it answers with text/html, which is no answer of a model"
            )
        )
    );
}

#[tokio::test]
async fn what_kimi_says_of_an_error_shows_no_login() {
    let world = StreamFixture::new().await;
    let (mut client, mut kimi) = world.reach_kimi(CHAT, true).await;
    let said = json!({ "error": { "type": "bad", "message": format!("token {CANARY} is odd") } }).to_string();
    kimi.send(&format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{said}", said.len())).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (400, &json!("token … is odd")));
}
