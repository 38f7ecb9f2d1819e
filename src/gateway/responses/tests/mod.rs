//! Tests of the translation: what Codex and OpenAI's SDK say, and what Kimi answers.

mod codex;
mod properties;
mod requests;
mod streams;

use serde_json::Value;

use super::request::ChatRequest;
use super::{ResponseEvents, ResponsesError, to_chat_completions};

fn translate(request: &Value) -> Result<ChatRequest, ResponsesError> {
    to_chat_completions(request.to_string().as_bytes())
}

/// What Kimi is asked.
fn kimi_is_asked(request: &Value) -> Value {
    let chat = translate(request).unwrap_or_else(|error| panic!("{error:?}"));
    serde_json::from_slice(&chat.body).unwrap()
}

/// The answer to a request, before anything has come of it.
fn answer_to(request: &Value) -> ResponseEvents {
    let chat = translate(request).unwrap_or_else(|error| panic!("{error:?}"));
    ResponseEvents::new(chat.form, "resp_1", jiff::Timestamp::UNIX_EPOCH)
}

/// The events in a stream that a client gets.
fn events_of(stream: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stream).unwrap();
    let events = text.split_terminator("\n\n").map(|event| {
        let (kind, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(kind.strip_prefix("event: "), data["type"].as_str());
        data
    });
    events.collect()
}
