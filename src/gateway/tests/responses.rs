//! The Responses API over a real connection: made of a chat completion, streamed and not.

use super::*;

const RESPONSES: &str = "POST /v1/responses";

fn ask_for(text: &str, stream: bool) -> Value {
    json!({ "model": "kimicode-kimi-k2.5", "input": text, "stream": stream })
}

#[tokio::test]
async fn a_response_is_made_of_a_chat_completion() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let answer = gateway.ask_as(&key, RESPONSES, &ask_for("hello", false)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let response = answer.json();
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    let message =
        response["output"].as_array().unwrap().iter().find(|item| item["type"] == "message").unwrap();
    assert_eq!(message["content"][0]["text"], "yes");
    let asked = last_request(&practice);
    assert_eq!(asked.line, "POST /coding/v1/chat/completions");
    assert_eq!(asked.body["model"], "kimi-for-coding");
    assert_eq!(asked.body["thinking"], json!({ "type": "disabled" }));
    assert_eq!(asked.body["stream"], true);
    assert!(asked.body["prompt_cache_key"].is_string());
    assert_eq!(gateway.usage_of(1).await.requests, 1);
}

#[tokio::test]
async fn a_streamed_response_ends_with_what_it_has_used() {
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    let answer = gateway.ask_as(&key, RESPONSES, &ask_for("hello", true)).await;
    assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
    let kinds: Vec<String> =
        answer.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("response.created"));
    assert_eq!(kinds.last().map(String::as_str), Some("response.completed"));
    let last = answer.events().pop().unwrap();
    assert!(last["response"]["usage"]["total_tokens"].as_u64().unwrap() > 0, "{last}");
}

#[tokio::test]
async fn what_cannot_be_translated_is_a_clear_error_and_asks_kimi_nothing() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let asked = practice.received_requests().len();
    let body = json!({ "model": "k3", "input": "hi", "previous_response_id": "resp_1" });
    let answer = gateway.ask_as(&key, RESPONSES, &body).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("previous_response_id")));
    let limited = gateway.key_limited_to("k3").await;
    let answer = gateway.ask_as(&limited, RESPONSES, &ask_for("hi", true)).await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(practice.received_requests().len(), asked);
}

/// What a client that asks for a stream gets when Kimi refuses its request in these words.
async fn refused_by_kimi(why: &str) -> Answer {
    let kimi = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = GatewayFixture::before(&format!("http://{}/coding/v1", kimi.local_addr().unwrap())).await;
    let key = gateway.key().await;
    let refuse = async {
        let (stream, _) = kimi.accept().await.unwrap();
        let mut kimi = Client(stream);
        kimi.until("\r\n\r\n").await;
        let body = json!({ "error": { "type": "invalid_request_error", "message": why } }).to_string();
        kimi.send(&format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        kimi
    };
    let question = ask_for("hello", true);
    let (answer, _kimi) = tokio::join!(gateway.ask_as(&key, RESPONSES, &question), refuse);
    answer
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_told_in_the_streams_last_event_and_all_else_by_the_status() {
    let answer = refused_by_kimi("exceeded model token limit: 262144").await;
    assert_eq!(answer.status, 200);
    let last = answer.events().pop().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["error"]["code"], "context_length_exceeded");
    let answer = refused_by_kimi("tools[0].function.parameters is no schema").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("no schema"), "{answer:?}");
}
