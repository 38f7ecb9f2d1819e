//! The practice model over real connections, asked as an engine asks.

#![expect(clippy::unwrap_used, reason = "a test's helper says by a panic that the test failed")]

use std::time::Duration;

use jiff::Timestamp;
use nanokimi::practice::{Brain, Practice, REQUESTS_KEPT, start_practice_model, tutor_reply};
use serde_json::{Value, json};
use support::login_server::{Approval, LoginCounts, LoginFault, LoginTerms, MockLoginServer};
use support::scripted_model::scripted_reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

async fn practice(brain: Brain) -> Practice {
    start_practice_model(brain, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

async fn send(practice: &Practice, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", practice.port())).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the connection ends, however it ends.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection never ended").ok();
    String::from_utf8(text).unwrap()
}

fn completion(prompt: &str, stream: bool) -> String {
    let body = json!({
        "model": "kimi-for-coding", "stream": stream,
        "messages": [{ "role": "system", "content": "you are Kai" }, { "role": "user", "content": prompt }],
    })
    .to_string();
    format!(
        "POST /coding/v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn ask(practice: &Practice, prompt: &str, stream: bool) -> (String, String) {
    let answer = rest(send(practice, &completion(prompt, stream)).await).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn an_answer_is_streamed_as_kimi_streams_it() {
    let practice = practice(scripted_reply).await;
    let (status, body) =
        ask(&practice, "THINK hm\nSAY wait\nCALL send_message {\"text\": \"hi\"}", true).await;
    assert_eq!(status, "HTTP/1.0 200 OK");
    let chunks: Vec<Value> =
        body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["model"] == "kimi-for-coding")
    );
    let usage =
        json!({ "prompt_tokens": 32, "completion_tokens": 1, "total_tokens": 33, "cached_tokens": 16 });
    let delta = |delta: Value| json!([{ "index": 0, "delta": delta, "finish_reason": null }]);
    let choices: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"]).collect();
    assert_eq!(
        choices,
        [
            &delta(json!({ "role": "assistant", "content": "" })),
            &delta(json!({ "reasoning_content": "hm" })),
            &delta(json!({ "content": "wait" })),
            &delta(json!({ "tool_calls": [{
                "index": 0, "id": "functions.send_message:100", "type": "function", "function": { "name": "send_message", "arguments": "" },
            }] })),
            &delta(
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"text\": \"hi\"}" } }] })
            ),
            &json!([{ "index": 0, "delta": {}, "finish_reason": "tool_calls", "usage": usage }]),
            &json!([]),
        ]
    );
    assert_eq!(chunks.last().unwrap()["usage"], usage);
    assert!(body.ends_with("\n\ndata: [DONE]\n\n"), "{body}");
}

#[tokio::test]
async fn an_answer_can_come_in_one_piece() {
    let practice = practice(scripted_reply).await;
    let (_, body) = ask(&practice, "THINK hm\nSAY wait\nCALL x {}", false).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(
        body["choices"],
        json!([{ "index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "wait", "reasoning_content": "hm",
            "tool_calls": [{ "id": "functions.x:100", "type": "function", "function": { "name": "x", "arguments": "{}" } }],
        } }])
    );
    assert_eq!(body["usage"]["completion_tokens"], 1);
}

#[tokio::test]
async fn the_tutor_hears_people_through_the_prompt() {
    let practice = practice(tutor_reply).await;
    let prompt =
        "<messages><message id=\"1\" sender=\"Ana\" time=\"10:00\">@Kai say 1 &lt; 2</message></messages>";
    let (_, body) = ask(&practice, prompt, false).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body["choices"][0]["message"]["content"],
        "1 < 2\n\n(This is the practice model; no real model is answering.)"
    );
}

#[tokio::test]
async fn errors_are_given_as_often_as_asked() {
    let practice = practice(scripted_reply).await;
    let mut statuses = Vec::new();
    for prompt in ["ERR 429 2", "ERR 429 2", "ERR 429 2", "ERR 403", "ERR 403"] {
        statuses.push(ask(&practice, prompt, true).await.0);
    }
    let limited = "HTTP/1.0 429 Too Many Requests";
    assert_eq!(
        statuses,
        [limited, limited, "HTTP/1.0 200 OK", "HTTP/1.0 403 Forbidden", "HTTP/1.0 403 Forbidden"]
    );
    let (_, body) = ask(&practice, "ERR 403", true).await;
    assert_eq!(body, r#"{"error":{"message":"practice error 403","type":"access_terminated_error"}}"#);
}

#[tokio::test]
async fn a_cut_answer_ends_without_its_last_chunk() {
    let practice = practice(scripted_reply).await;
    for (prompt, ends_whole) in [("SAY all of it", true), ("DROP", false)] {
        let answer = rest(
            send(&practice, &completion(prompt, true).replace("HTTP/1.0", "HTTP/1.1\r\nconnection: close"))
                .await,
        )
        .await;
        assert!(answer.contains(if ends_whole { "all of it" } else { "partial " }), "{answer}");
        assert_eq!(answer.ends_with("\r\n0\r\n\r\n"), ends_whole, "{answer}");
    }
}

#[tokio::test]
async fn a_hanging_answer_has_a_head_until_the_model_is_dropped() {
    let practice = practice(scripted_reply).await;
    let mut stream = send(&practice, &completion("HANG", true)).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.0 200 OK"));
    let address = ("127.0.0.1", practice.port());
    drop(practice);
    assert_eq!(rest(stream).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn models_usages_and_nothing_else() {
    let practice = practice(tutor_reply).await;
    for (line, status, says) in [
        ("GET /coding/v1/models", 200, "kimi-for-coding"),
        ("GET /any/prefix/usages", 200, "resetTime"),
        ("GET /coding/v1/chat/completions", 404, "nothing here"),
        ("POST /coding/v1/chat/completions", 400, "needs a list of messages"),
        ("POST /coding/v1/files", 404, "nothing here"),
    ] {
        let answer = rest(send(&practice, &format!("{line} HTTP/1.0\r\n\r\n")).await).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.0 {status} ")) && answer.contains(says),
            "{line}: {answer}"
        );
    }
}

#[tokio::test]
async fn the_latest_requests_are_remembered() {
    let practice = practice(scripted_reply).await;
    for number in 0..REQUESTS_KEPT + 1 {
        ask(&practice, &format!("SAY {number}"), true).await;
    }
    let requests = practice.received_requests();
    assert_eq!(requests.len(), REQUESTS_KEPT);
    assert_eq!(requests[0].body["messages"][1]["content"], "SAY 1");
    assert_eq!(requests[0].line, "POST /coding/v1/chat/completions");
    assert_eq!(requests[0].headers["authorization"], "Bearer x");
}

/// Sends a form to the login server; returns the status and the answer.
async fn form(practice: &Practice, path: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST /api/oauth/{path} HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = rest(send(practice, &request).await).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Asks the model with this token; returns the status line.
async fn ask_as(practice: &Practice, token: &Value) -> String {
    let request =
        completion("SAY hi", false).replace("Bearer x", &format!("Bearer {}", token.as_str().unwrap()));
    rest(send(practice, &request).await).await.lines().next().unwrap_or_default().to_owned()
}

fn refresh(token: &Value) -> String {
    format!("client_id=c&grant_type=refresh_token&refresh_token={}", token.as_str().unwrap())
}

#[tokio::test]
async fn a_device_gets_a_code_and_tokens_once_somebody_agrees() {
    let practice = practice(scripted_reply).await;
    assert_eq!(
        form(&practice, "device_authorization", "client_id=c").await.0,
        404,
        "there is no login server yet"
    );
    let server = MockLoginServer::start(&practice, LoginTerms::default());
    server.set_approval(Approval::Waits);
    let (status, code) = form(&practice, "device_authorization", "client_id=c").await;
    assert_eq!((status, &code["user_code"]), (200, &json!("ABCD-1234")));
    let poll = format!(
        "client_id=c&device_code={}&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code",
        code["device_code"].as_str().unwrap()
    );
    let mut said = Vec::new();
    for approval in [Approval::Waits, Approval::Denies, Approval::Agrees, Approval::Agrees] {
        server.set_approval(approval);
        let (status, body) = form(&practice, "token", &poll).await;
        said.push((status, body["error"].as_str().map(str::to_owned)));
        if status == 200 {
            assert_eq!(ask_as(&practice, &body["access_token"]).await, "HTTP/1.0 200 OK");
        }
    }
    let error = |code: &str| (400, Some(code.to_owned()));
    // The code is gone once it was used.
    assert_eq!(
        said,
        [error("authorization_pending"), error("access_denied"), (200, None), error("expired_token")]
    );
    assert_eq!((server.counts().device_codes, server.counts().polls), (1, 4));
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_an_access_token_for_a_while() {
    let practice = practice(scripted_reply).await;
    let server = MockLoginServer::start(
        &practice,
        LoginTerms { lifetime: Duration::from_millis(300), ..LoginTerms::default() },
    );
    let login: Value =
        serde_json::from_str(&server.issue_login_file(Timestamp::UNIX_EPOCH, Duration::ZERO)).unwrap();
    assert_eq!(login["expires_at"], 0.3);
    let (status, tokens) = form(&practice, "token", &refresh(&login["refresh_token"])).await;
    assert_eq!(status, 200);
    assert_eq!(form(&practice, "token", &refresh(&login["refresh_token"])).await.0, 401);
    let LoginCounts { refreshes, refreshes_granted, refreshes_refused, .. } = server.counts();
    assert_eq!((refreshes, refreshes_granted, refreshes_refused), (2, 1, 1));

    let token = &tokens["access_token"];
    assert_eq!(ask_as(&practice, token).await, "HTTP/1.0 200 OK");
    let expired = async { while ask_as(&practice, token).await == "HTTP/1.0 200 OK" {} };
    timeout(PATIENCE, expired).await.unwrap();
    assert_eq!(ask_as(&practice, token).await, "HTTP/1.0 401 Unauthorized");
    assert!(server.counts().refused >= 2);
}

#[tokio::test]
async fn faults_come_one_after_the_other() {
    let practice = practice(scripted_reply).await;
    let server = MockLoginServer::start(&practice, LoginTerms::default());
    let login: Value =
        serde_json::from_str(&server.issue_login_file(Timestamp::UNIX_EPOCH, Duration::ZERO)).unwrap();
    let again = refresh(&login["refresh_token"]);
    let faults = [LoginFault::Status(503), LoginFault::HangUp, LoginFault::Nonsense, LoginFault::HangUpAfter];
    server.queue_faults(faults);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(form(&practice, "token", &again).await.0);
    }
    assert_eq!(statuses, [503, 0, 200, 0, 401], "the fourth has taken the token and said nothing");
    server.revoke_all_tokens();
    assert!(!server.can_refresh_from(&login.to_string()));
}
