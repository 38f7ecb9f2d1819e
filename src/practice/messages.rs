//! Says a reply as Kimi's Anthropic surface does: `POST /coding/v1/messages`, streamed or in one piece, and
//! `/messages/count_tokens`.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::completions::{
    ResponseFrame, frames_response, json_response, split_into_pieces, tick_pauses, tool_call_id,
};
use super::{Conversation, ReplyStep};

/// Reads a request's messages; `None` if it has no list of them.
pub fn read_conversation(request: &Value) -> Option<Conversation> {
    let mut messages = Vec::new();
    for message in request.get("messages")?.as_array()? {
        let content = message.get("content").cloned().unwrap_or_default();
        let blocks = match content.as_array() {
            Some(blocks) => blocks.clone(),
            None => vec![json!({ "type": "text", "text": content })],
        };
        let (results, said): (Vec<Value>, Vec<Value>) =
            blocks.into_iter().partition(|block| block["type"] == "tool_result");
        for result in results {
            messages.push(json!({ "role": "tool", "content": result.get("content") }));
        }
        if !said.is_empty() {
            messages.push(json!({ "role": message.get("role"), "content": said }));
        }
    }
    Conversation::from_request(&json!({ "messages": messages }))
}

/// The answer to a message request; `number` makes its ids unique.
pub fn message_response(request: &Value, steps: Vec<ReplyStep>, number: u64) -> Response<Body> {
    let message = PracticeMessage {
        model: request.get("model").and_then(Value::as_str).unwrap_or("practice"),
        input_tokens: input_tokens(request),
        number,
    };
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        frames_response(message.event_frames(steps), "text/event-stream")
    } else {
        frames_response(message.json_frames(steps), "application/json")
    }
}

pub fn token_count_response(request: &Value) -> Response<Body> {
    json_response(StatusCode::OK, &json!({ "input_tokens": input_tokens(request) }))
}

/// An error in the words of Anthropic's API.
pub fn message_error_response(status: StatusCode, message: &str) -> Response<Body> {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json_response(status, &json!({ "type": "error", "error": { "type": kind, "message": message } }))
}

/// About four bytes are a token.
fn input_tokens(request: &Value) -> usize {
    request.get("messages").map_or(0, |messages| messages.to_string().len() / 4)
}

/// What is the same in all forms of one answer.
struct PracticeMessage<'r> {
    model: &'r str,
    input_tokens: usize,
    number: u64,
}

impl PracticeMessage<'_> {
    /// Half of a prompt was seen before; `input_tokens` is without that.
    fn usage(&self, output_tokens: usize) -> Value {
        let cached = self.input_tokens / 2;
        json!({
            "input_tokens": self.input_tokens - cached, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached, "output_tokens": output_tokens,
        })
    }

    fn message(&self, content: Vec<Value>, stop_reason: Option<&str>, output_tokens: usize) -> Value {
        json!({
            "id": format!("msg-{}", self.number), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null, "usage": self.usage(output_tokens),
        })
    }

    fn event_frames(&self, steps: Vec<ReplyStep>) -> Vec<ResponseFrame> {
        let event = |data: Value| {
            let name = data["type"].as_str().unwrap_or_default();
            ResponseFrame::Data(format!("event: {name}\ndata: {data}\n\n"))
        };
        let start = |index: usize, block: Value| {
            event(json!({ "type": "content_block_start", "index": index, "content_block": block }))
        };
        let delta = |index: usize, delta: Value| {
            event(json!({ "type": "content_block_delta", "index": index, "delta": delta }))
        };
        let stop = |index: usize| event(json!({ "type": "content_block_stop", "index": index }));
        let text = |index: usize, text: &str| delta(index, json!({ "type": "text_delta", "text": text }));
        let empty_text = json!({ "type": "text", "text": "" });

        let mut frames = vec![
            event(json!({ "type": "message_start", "message": self.message(Vec::new(), None, 0) })),
            event(json!({ "type": "ping" })),
        ];
        let mut words = 0;
        let mut stop_reason = "end_turn";
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                ReplyStep::Think(thought) => {
                    frames.push(start(index, json!({ "type": "thinking", "thinking": "", "signature": "" })));
                    frames.extend(
                        split_into_pieces(&thought).map(|piece| {
                            delta(index, json!({ "type": "thinking_delta", "thinking": piece }))
                        }),
                    );
                    frames.push(delta(index, json!({ "type": "signature_delta", "signature": "practice" })));
                }
                ReplyStep::Say(said) => {
                    words += said.len();
                    frames.push(start(index, empty_text.clone()));
                    frames.extend(split_into_pieces(&said).map(|piece| text(index, &piece)));
                }
                ReplyStep::Call { tool, arguments } => {
                    stop_reason = "tool_use";
                    let id = tool_call_id(&tool, self.number, index);
                    frames.push(start(
                        index,
                        json!({ "type": "tool_use", "id": id, "name": tool, "input": {} }),
                    ));
                    frames.extend(split_into_pieces(&arguments).map(|piece| {
                        delta(index, json!({ "type": "input_json_delta", "partial_json": piece }))
                    }));
                }
                ReplyStep::Dawdle(time) => {
                    frames.push(start(index, empty_text.clone()));
                    for (tick, pause) in tick_pauses(time).enumerate() {
                        frames.push(text(index, &format!("tick{tick} ")));
                        frames.push(ResponseFrame::Pause(pause));
                    }
                }
                ReplyStep::Cut => {
                    frames.push(start(index, empty_text));
                    frames.push(text(index, "partial "));
                    frames.push(ResponseFrame::Cut);
                    return frames;
                }
                ReplyStep::Hang => return vec![ResponseFrame::Hang],
            }
            frames.push(stop(index));
        }
        let ending = json!({ "stop_reason": stop_reason, "stop_sequence": null });
        let usage = self.usage(words.div_ceil(4));
        frames.push(event(json!({ "type": "message_delta", "delta": ending, "usage": usage })));
        frames.push(event(json!({ "type": "message_stop" })));
        frames
    }

    fn json_frames(&self, steps: Vec<ReplyStep>) -> Vec<ResponseFrame> {
        let mut frames = Vec::new();
        let mut content = Vec::new();
        let mut words = 0;
        let mut stop_reason = "end_turn";
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                ReplyStep::Think(thought) => {
                    content.push(json!({ "type": "thinking", "thinking": thought, "signature": "practice" }));
                }
                ReplyStep::Say(said) => {
                    words += said.len();
                    content.push(json!({ "type": "text", "text": said }));
                }
                ReplyStep::Call { tool, arguments } => {
                    stop_reason = "tool_use";
                    let input: Value = serde_json::from_str(&arguments).unwrap_or_default();
                    let id = tool_call_id(&tool, self.number, index);
                    content.push(json!({ "type": "tool_use", "id": id, "name": tool, "input": input }));
                }
                ReplyStep::Dawdle(time) => frames.push(ResponseFrame::Pause(time)),
                ReplyStep::Cut => {
                    frames.push(ResponseFrame::Data("{".to_owned()));
                    frames.push(ResponseFrame::Cut);
                    return frames;
                }
                ReplyStep::Hang => return vec![ResponseFrame::Hang],
            }
        }
        let message = self.message(content, Some(stop_reason), words.div_ceil(4));
        frames.push(ResponseFrame::Data(message.to_string()));
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_read_in_anthropics_form() {
        let request = json!({ "system": "you are Kai", "messages": [
            { "role": "user", "content": "look it up" },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "t:0", "name": "t", "input": {} }] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t:0", "content": [{ "type": "text", "text": "found" }] },
                { "type": "tool_result", "tool_use_id": "t:1", "content": "more" },
            ] },
        ] });
        let conversation = read_conversation(&request).unwrap();
        assert_eq!(
            (conversation.said, conversation.tool_answers),
            (vec!["look it up".to_owned()], vec!["found".to_owned(), "more".to_owned()])
        );
        assert_eq!(read_conversation(&json!({ "model": "k3" })), None);
    }
}
