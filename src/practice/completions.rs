//! Says a reply as the Kimi API does: server-sent events, or one piece of JSON if the request wants that.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::ReplyStep;

/// When every answer was created, in Unix seconds: nobody reads it, and tests like it the same.
pub const CREATED: u64 = 1_767_225_600;

/// Characters in one piece of a streamed answer, so that streaming is seen.
const PIECE: usize = 40;
/// More calls than an answer has, so that each has an id of its own.
const CALL_IDS_OF_AN_ANSWER: u64 = 100;
/// Between two words of an answer that takes its time.
const TICK: Duration = Duration::from_millis(500);

/// What happens on the connection, one after the other.
pub(super) enum ResponseFrame {
    Data(String),
    Pause(Duration),
    Cut,
    Hang,
}

/// The answer to a chat completion request; `number` makes its ids unique.
pub fn completion_response(request: &Value, steps: Vec<ReplyStep>, number: u64) -> Response<Body> {
    let model = request.get("model").and_then(Value::as_str).unwrap_or("practice");
    let prompt_tokens = request.get("messages").map_or(0, |messages| messages.to_string().len() / 4);
    let (frames, content_type) = match request.get("stream").and_then(Value::as_bool) {
        Some(true) => (event_stream_frames(steps, model, prompt_tokens, number), "text/event-stream"),
        Some(false) | None => (json_frames(steps, model, prompt_tokens, number), "application/json"),
    };
    frames_response(frames, content_type)
}

/// A good answer, of which these frames happen one after the other.
pub(super) fn frames_response(frames: Vec<ResponseFrame>, content_type: &'static str) -> Response<Body> {
    let body = stream::unfold(VecDeque::from(frames), |mut frames| async {
        loop {
            match frames.pop_front()? {
                ResponseFrame::Data(text) => return Some((Ok(Bytes::from(text)), frames)),
                ResponseFrame::Pause(time) => sleep(time).await,
                ResponseFrame::Cut => {
                    // hyper sends what it has only while it waits for more; a cut at once would swallow it.
                    yield_now().await;
                    return Some((Err("the script cuts the connection here"), frames));
                }
                ResponseFrame::Hang => std::future::pending().await,
            }
        }
    });
    response_with_type(StatusCode::OK, content_type, Body::from_stream(body))
}

/// An error in the API's words.
pub fn api_error_response(status: StatusCode, message: &str) -> Response<Body> {
    let kind = match status.as_u16() {
        401 => "invalid_authentication_error",
        403 => "access_terminated_error",
        429 => "rate_limit_reached_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json_response(status, &json!({ "error": { "message": message, "type": kind } }))
}

/// A page that was fetched, as Markdown.
pub fn markdown_response(text: &str) -> Response<Body> {
    response_with_type(StatusCode::OK, "text/markdown", Body::from(text.to_owned()))
}

pub fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    response_with_type(status, "application/json", Body::from(value.to_string()))
}

fn response_with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer as events: the role first, then deltas, then usage in both places where Kimi has it.
fn event_stream_frames(
    steps: Vec<ReplyStep>,
    model: &str,
    prompt_tokens: usize,
    number: u64,
) -> Vec<ResponseFrame> {
    let chunk = |choices: Value| {
        json!({
            "id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk", "created": CREATED,
            "model": model, "choices": choices,
        })
    };
    let event = |chunk: Value| ResponseFrame::Data(format!("data: {chunk}\n\n"));
    let delta = |delta: Value| event(chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }])));

    let mut frames = vec![delta(json!({ "role": "assistant", "content": "" }))];
    let mut calls = 0;
    let mut words = 0;
    for step in steps {
        match step {
            ReplyStep::Think(text) => {
                frames.extend(
                    split_into_pieces(&text).map(|piece| delta(json!({ "reasoning_content": piece }))),
                );
            }
            ReplyStep::Say(text) => {
                words += text.len();
                frames.extend(split_into_pieces(&text).map(|piece| delta(json!({ "content": piece }))));
            }
            ReplyStep::Call { tool, arguments } => {
                let call = json!({
                    "index": calls, "id": tool_call_id(&tool, number, calls), "type": "function",
                    "function": { "name": tool, "arguments": "" },
                });
                frames.push(delta(json!({ "tool_calls": [call] })));
                frames.extend(split_into_pieces(&arguments).map(|piece| {
                    delta(json!({ "tool_calls": [{ "index": calls, "function": { "arguments": piece } }] }))
                }));
                calls += 1;
            }
            ReplyStep::Dawdle(time) => {
                for (tick, pause) in tick_pauses(time).enumerate() {
                    frames.push(delta(json!({ "content": format!("tick{tick} ") })));
                    frames.push(ResponseFrame::Pause(pause));
                }
            }
            ReplyStep::Cut => {
                frames.push(delta(json!({ "content": "partial " })));
                frames.push(ResponseFrame::Cut);
                return frames;
            }
            ReplyStep::Hang => return vec![ResponseFrame::Hang],
        }
    }
    let usage = token_usage_json(prompt_tokens, words);
    let choice = json!([{ "index": 0, "delta": {}, "finish_reason": finish_reason(calls), "usage": usage }]);
    frames.push(event(chunk(choice)));
    let mut last = chunk(json!([]));
    last["usage"] = usage;
    frames.push(event(last));
    frames.push(ResponseFrame::Data("data: [DONE]\n\n".to_owned()));
    frames
}

/// The answer in one piece.
fn json_frames(steps: Vec<ReplyStep>, model: &str, prompt_tokens: usize, number: u64) -> Vec<ResponseFrame> {
    let mut frames = Vec::new();
    let (mut content, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for step in steps {
        match step {
            ReplyStep::Think(text) => thoughts.push_str(&text),
            ReplyStep::Say(text) => content.push_str(&text),
            ReplyStep::Call { tool, arguments } => calls.push(json!({
                "id": tool_call_id(&tool, number, calls.len()), "type": "function",
                "function": { "name": tool, "arguments": arguments },
            })),
            ReplyStep::Dawdle(time) => frames.push(ResponseFrame::Pause(time)),
            ReplyStep::Cut => {
                frames.push(ResponseFrame::Data("{".to_owned()));
                frames.push(ResponseFrame::Cut);
                return frames;
            }
            ReplyStep::Hang => return vec![ResponseFrame::Hang],
        }
    }
    let usage = token_usage_json(prompt_tokens, content.len());
    let finish_reason = finish_reason(calls.len());
    let mut message = json!({ "role": "assistant", "content": content });
    if !thoughts.is_empty() {
        message["reasoning_content"] = json!(thoughts);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let completion = json!({
        "id": format!("chatcmpl-{number}"), "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish_reason }], "usage": usage,
    });
    frames.push(ResponseFrame::Data(completion.to_string()));
    frames
}

/// In Kimi's form, such as `functions.Bash:0`. `number` is the answer's, `index` the call's in it.
pub(super) fn tool_call_id(tool: &str, number: u64, index: usize) -> String {
    format!("functions.{tool}:{}", number * CALL_IDS_OF_AN_ANSWER + index as u64)
}

/// About four bytes are a token, and half of a prompt was seen before.
fn token_usage_json(prompt_tokens: usize, answer_bytes: usize) -> Value {
    let completion_tokens = answer_bytes.div_ceil(4);
    json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens, "cached_tokens": prompt_tokens / 2,
    })
}

fn finish_reason(calls: usize) -> &'static str {
    if calls > 0 { "tool_calls" } else { "stop" }
}

pub(super) fn split_into_pieces(text: &str) -> impl Iterator<Item = String> {
    let letters: Vec<char> = text.chars().collect();
    let count = letters.len().div_ceil(PIECE);
    (0..count).map(move |piece| letters[piece * PIECE..].iter().take(PIECE).collect())
}

/// The pauses of a time, tick by tick.
pub(super) fn tick_pauses(time: Duration) -> impl Iterator<Item = Duration> {
    let mut left = time;
    std::iter::from_fn(move || {
        let pause = left.min(TICK);
        left -= pause;
        (!pause.is_zero()).then_some(pause)
    })
}
