//! Whatever comes, in whatever pieces: no panic, and a client always hears how it ended.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{answer_to, events_of};
use crate::gateway::responses::to_chat_completions;

/// JSON of the words that requests and chunks consist of.
fn nested_json() -> impl Strategy<Value = Value> {
    let words = [
        "model",
        "input",
        "type",
        "role",
        "content",
        "tools",
        "name",
        "arguments",
        "call_id",
        "output",
        "summary",
        "text",
        "message",
        "user",
        "assistant",
        "function_call",
        "function_call_output",
        "reasoning",
        "custom",
        "namespace",
        "function",
        "tool_choice",
        "format",
        "json_schema",
        "choices",
        "delta",
        "reasoning_content",
        "tool_calls",
        "index",
        "id",
        "finish_reason",
        "usage",
        "error",
        "stop",
        "length",
    ];
    let word = prop::sample::select(words.to_vec());
    let leaf = prop_oneof![
        word.clone().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

/// One item of an input: more often than not of a type that there is.
fn input_item() -> impl Strategy<Value = Value> {
    let call_id = prop::sample::select(vec!["a", "b"]);
    prop_oneof![
        Just(json!({ "role": "user", "content": "hello" })),
        Just(json!({ "role": "assistant", "content": "hello" })),
        Just(json!({ "role": "developer", "content": [{ "type": "input_text", "text": "x" }] })),
        Just(json!({ "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hm" }] })),
        call_id
            .clone()
            .prop_map(|id| json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": "{}" })),
        call_id
            .clone()
            .prop_map(|id| json!({ "type": "custom_tool_call", "call_id": id, "name": "f", "input": "{}" })),
        call_id.prop_map(|id| json!({ "type": "function_call_output", "call_id": id, "output": "x" })),
        nested_json(),
    ]
}

/// One delta of Kimi's: more often than not a good one.
fn delta() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec!["", "a", "{\"input\":\"é\"}", "\r\n", "¿qué?"]);
    let name = prop::option::of(prop::sample::select(vec!["shell", "apply_patch", "other"]));
    prop_oneof![
        4 => text.clone().prop_map(|text| json!({ "content": text })),
        4 => text.clone().prop_map(|text| json!({ "reasoning_content": text })),
        4 => (0u64..3, name, text).prop_map(|(index, name, text)| {
            json!({ "tool_calls": [{ "index": index, "id": "x", "function": { "name": name, "arguments": text } }] })
        }),
        1 => nested_json(),
    ]
}

/// A stream of Kimi's, which may be cut anywhere.
fn kimi_stream() -> impl Strategy<Value = Vec<u8>> {
    let finish_reason = prop::option::of(prop::sample::select(vec!["stop", "length", "tool_calls"]));
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (prop::collection::vec(delta(), 0..8), finish_reason, any::<bool>(), line_end, 0usize..2000).prop_map(
        |(deltas, finish_reason, done, end, cut)| {
            let mut stream = String::from(": hello\n\n");
            for delta in deltas {
                let chunk = json!({ "choices": [{ "index": 0, "delta": delta }] });
                stream.push_str(&format!("data: {chunk}{end}{end}"));
            }
            if let Some(reason) = finish_reason {
                let chunk = json!({ "choices": [{ "delta": {}, "finish_reason": reason }] });
                stream.push_str(&format!("data: {chunk}{end}{end}"));
            }
            if done {
                stream.push_str(&format!("data: [DONE]{end}{end}"));
            }
            let mut stream = stream.into_bytes();
            stream.truncate(cut.max(9));
            stream
        },
    )
}

fn client_hears(stream: &[u8], cuts: &[usize]) -> Vec<u8> {
    let tools = json!([{ "type": "function", "name": "shell" }, { "type": "custom", "name": "apply_patch" }]);
    let mut answer = answer_to(&json!({ "model": "k", "input": "x", "tools": tools }));
    let mut heard = Vec::new();
    let mut rest = stream;
    for cut in cuts {
        let (piece, more) = rest.split_at((*cut).min(rest.len()));
        heard.extend(answer.read_piece(piece));
        rest = more;
    }
    heard.extend(answer.read_piece(rest));
    heard.extend(answer.finish());
    heard
}

fn kinds_of(events: &[Value], of_item: &Value) -> Vec<String> {
    let about = |event: &&Value| {
        event["item_id"] == *of_item || (event["item"]["id"] == *of_item && !of_item.is_null())
    };
    events.iter().filter(about).map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

proptest! {
    #[test]
    fn any_json_is_translated_or_refused(body in nested_json()) {
        to_chat_completions(body.to_string().as_bytes()).ok();
    }

    #[test]
    fn any_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..60)) {
        to_chat_completions(&body).ok();
    }

    #[test]
    fn every_call_of_a_translated_history_is_followed_by_its_answers(
        items in prop::collection::vec(input_item(), 0..12)
    ) {
        let request = json!({ "model": "k", "input": items });
        let Ok(chat) = to_chat_completions(request.to_string().as_bytes()) else { return Ok(()) };
        let body: Value = serde_json::from_slice(&chat.body).unwrap();
        let mut open_calls: Vec<&str> = Vec::new();
        for message in body["messages"].as_array().unwrap() {
            match message["role"].as_str().unwrap() {
                "tool" => prop_assert!(open_calls.contains(&message["tool_call_id"].as_str().unwrap())),
                "assistant" => {
                    let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
                    open_calls = calls.iter().filter_map(|call| call["id"].as_str()).collect();
                    prop_assert!(calls.is_empty() || message["reasoning_content"].is_string());
                    prop_assert!(!calls.is_empty() || message["content"] != "");
                }
                _ => open_calls.clear(),
            }
        }
    }

    #[test]
    fn any_cut_gives_the_same_events(
        stream in kimi_stream(),
        cuts in prop::collection::vec(0usize..50, 0..60),
    ) {
        prop_assert_eq!(client_hears(&stream, &cuts), client_hears(&stream, &[]));
    }

    #[test]
    fn every_stream_ends_with_one_last_word(stream in kimi_stream()) {
        let events = events_of(&client_hears(&stream, &[]));
        let is_last = |event: &Value| {
            let kind = event["type"].as_str().unwrap_or_default();
            ["response.completed", "response.incomplete", "response.failed"].contains(&kind)
        };
        let last_words: Vec<usize> =
            events.iter().enumerate().filter(|(_, event)| is_last(event)).map(|(at, _)| at).collect();
        prop_assert_eq!(last_words, [events.len() - 1]);

        // What is announced, done and in the response is the same, if all went well.
        let last = &events[events.len() - 1];
        for item in last["response"]["output"].as_array().unwrap() {
            let kinds = kinds_of(&events, &item["id"]);
            prop_assert_eq!(kinds[0].as_str(), "response.output_item.added");
            if last["type"] == "response.completed" {
                prop_assert_eq!(kinds[kinds.len() - 1].as_str(), "response.output_item.done");
                let done = events.iter().find(|event| {
                    event["type"] == "response.output_item.done" && event["item"]["id"] == item["id"]
                });
                prop_assert_eq!(&done.unwrap()["item"], item);
            }
        }
    }

    #[test]
    fn any_bytes_in_a_stream_end_it(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        let events = events_of(&client_hears(&stream, &[]));
        prop_assert!(events.len() >= 3);
    }
}
