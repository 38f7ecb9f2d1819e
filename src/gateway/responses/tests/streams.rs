//! Streams: what Kimi says, and what a client hears of it.

use serde_json::{Value, json};

use super::{answer_to, events_of, translate};
use crate::gateway::responses::{ResponseEvents, ResponsesError};

/// The events of Kimi for some deltas, without an end.
fn kimi_says(deltas: &[Value]) -> String {
    let chunk = |delta: &Value| json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] });
    deltas.iter().map(|delta| format!("data: {}\n\n", chunk(delta))).collect()
}

/// The end of a stream, as Kimi sends it: the reason, then the usage, then the mark.
fn kimi_ends(finish_reason: &str) -> String {
    let usage =
        json!({ "prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107, "cached_tokens": 60 });
    let last =
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": finish_reason, "usage": usage }] });
    format!("data: {last}\n\ndata: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage }))
}

fn codex_asks() -> Value {
    json!({
        "model": "kimi-for-coding", "input": "x", "stream": true,
        "tools": [
            { "type": "function", "name": "shell", "parameters": {} },
            { "type": "custom", "name": "apply_patch", "format": { "type": "grammar", "syntax": "lark", "definition": "x" } },
            { "type": "namespace", "name": "mcp__files__", "tools": [{ "type": "function", "name": "read" }] },
            { "type": "tool_search", "execution": "client", "parameters": {} },
        ],
    })
}

/// All that a client gets of a stream.
fn client_hears(kimi: &str) -> Vec<Value> {
    let mut answer = answer_to(&codex_asks());
    let mut heard = answer.read_piece(kimi.as_bytes());
    heard.extend(answer.finish());
    assert!(answer.has_ended());
    let events = events_of(&heard);
    let numbers: Vec<Option<u64>> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).map(Some).collect::<Vec<_>>());
    events
}

/// An event on one line: its kind, its item and what it carries.
fn line_of(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap().trim_start_matches("response.");
    let item = event["item"]["type"].as_str().or_else(|| event["item_id"].as_str()).unwrap_or_default();
    let carried = ["delta", "text", "arguments", "input"].iter().find_map(|name| event[name].as_str());
    let status = event["response"]["status"].as_str();
    [Some(kind), Some(item), carried.or(status)]
        .into_iter()
        .flatten()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn lines_of(events: &[Value]) -> Vec<String> {
    events.iter().map(line_of).collect()
}

#[test]
fn thoughts_and_words() {
    let events = client_hears(
        &(kimi_says(&[
            json!({ "role": "assistant", "content": "" }),
            json!({ "reasoning_content": "It is " }),
            json!({ "reasoning_content": "a greeting." }),
            json!({ "content": "Hello" }),
            json!({ "content": " you." }),
        ]) + &kimi_ends("stop")),
    );
    assert_eq!(
        lines_of(&events),
        [
            "created in_progress",
            "in_progress in_progress",
            "output_item.added reasoning",
            "reasoning_summary_part.added rs_1_0",
            "reasoning_summary_text.delta rs_1_0 It is ",
            "reasoning_summary_text.delta rs_1_0 a greeting.",
            "reasoning_summary_text.done rs_1_0 It is a greeting.",
            "reasoning_summary_part.done rs_1_0",
            "output_item.done reasoning",
            "output_item.added message",
            "content_part.added msg_1_1",
            "output_text.delta msg_1_1 Hello",
            "output_text.delta msg_1_1  you.",
            "output_text.done msg_1_1 Hello you.",
            "content_part.done msg_1_1",
            "output_item.done message",
            "completed completed",
        ]
    );
    let response = &events.last().unwrap()["response"];
    assert_eq!(
        response["output"],
        json!([
            { "id": "rs_1_0", "type": "reasoning",
              "summary": [{ "type": "summary_text", "text": "It is a greeting." }] },
            { "id": "msg_1_1", "type": "message", "status": "completed", "role": "assistant", "content": [
                { "type": "output_text", "text": "Hello you.", "annotations": [], "logprobs": [] } ] },
        ])
    );
    assert_eq!(
        response["usage"],
        json!({
            "input_tokens": 100, "input_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 0 },
            "output_tokens": 7, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 107,
        })
    );
    assert_eq!(response["model"], "kimi-for-coding");
}

#[test]
fn calls_come_back_as_they_were_offered() {
    let call = |index: u64, id: &str, name: &str, arguments: &str| {
        json!({ "tool_calls": [{ "index": index, "id": id, "type": "function",
                                 "function": { "name": name, "arguments": arguments } }] })
    };
    let more = |index: u64, arguments: &str| json!({ "tool_calls": [{ "index": index, "function": { "arguments": arguments } }] });
    let events = client_hears(
        &(kimi_says(&[
            json!({ "content": "I do it." }),
            call(0, "functions.shell:0", "shell", ""),
            more(0, "{\"cmd\" : "),
            call(1, "functions.apply_patch:1", "apply_patch", "{\"input\":\"*** Be"),
            more(0, "\"ls\"}"),
            more(1, "gin Patch\\n\"}"),
            call(2, "functions.mcp__files__read:2", "mcp__files__read", "{}"),
            call(3, "", "tool_search", "{\"query\":\"mail\"}"),
        ]) + &kimi_ends("tool_calls")),
    );
    assert_eq!(
        lines_of(&events)[7..],
        [
            "output_item.done message",
            "output_item.added function_call",
            "function_call_arguments.delta fc_1_1 {\"cmd\" : ",
            "output_item.added custom_tool_call",
            "custom_tool_call_input.delta ctc_1_2 *** Be",
            "function_call_arguments.delta fc_1_1 \"ls\"}",
            "custom_tool_call_input.delta ctc_1_2 gin Patch\n",
            "output_item.added function_call",
            "function_call_arguments.delta fc_1_3 {}",
            "output_item.added tool_search_call",
            "function_call_arguments.done fc_1_1 {\"cmd\" : \"ls\"}",
            "output_item.done function_call",
            "custom_tool_call_input.done ctc_1_2 *** Begin Patch\n",
            "output_item.done custom_tool_call",
            "function_call_arguments.done fc_1_3 {}",
            "output_item.done function_call",
            "output_item.done tool_search_call",
            "completed completed",
        ]
    );
    let output = events.last().unwrap()["response"]["output"].as_array().unwrap().clone();
    assert_eq!(
        output[1..],
        [
            json!({ "id": "fc_1_1", "type": "function_call", "status": "completed", "call_id": "functions.shell:0",
                    "name": "shell", "arguments": "{\"cmd\" : \"ls\"}" }),
            json!({ "id": "ctc_1_2", "type": "custom_tool_call", "status": "completed",
                    "call_id": "functions.apply_patch:1", "name": "apply_patch", "input": "*** Begin Patch\n" }),
            json!({ "id": "fc_1_3", "type": "function_call", "status": "completed",
                    "call_id": "functions.mcp__files__read:2", "name": "read", "arguments": "{}",
                    "namespace": "mcp__files__" }),
            json!({ "id": "tsc_1_4", "type": "tool_search_call", "status": "completed", "call_id": "tool_search:3",
                    "execution": "client", "arguments": { "query": "mail" } }),
        ]
    );
}

#[test]
fn an_answer_at_the_limit_of_tokens_is_incomplete() {
    let events = client_hears(
        &(kimi_says(&[
            json!({ "content": "Once upon" }),
            json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "shell", "arguments": "{}" } }] }),
            json!({ "tool_calls": [{ "index": 1, "id": "b", "function": { "name": "shell", "arguments": "{\"cmd\":\"rm" } }] }),
        ]) + &kimi_ends("length")),
    );
    let last = events.last().unwrap();
    assert_eq!(line_of(last), "incomplete incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    let output = &last["response"]["output"];
    assert_eq!((&output[1]["status"], &output[2]["status"]), (&json!("completed"), &json!("incomplete")));
    // A client carries out what is done: half a call is not.
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    assert_eq!(
        done.map(|event| event["item"]["id"].as_str().unwrap()).collect::<Vec<_>>(),
        ["msg_1_0", "fc_1_1"]
    );
}

#[test]
fn a_stream_that_breaks_off_has_failed() {
    let hello = kimi_says(&[json!({ "content": "Hello" })]);
    for (kimi, why) in [
        (hello.clone(), "it broke off"),
        (String::new(), "it broke off"),
        (
            format!("{hello}data: {{\"choices\""),
            "it cannot be read: EOF while parsing an object at line 1 column 10",
        ),
        (format!("{hello}data: <html>\n\n"), "it cannot be read: expected value at line 1 column 1"),
        (kimi_says(&[json!({ "tool_calls": [{ "index": 0 }] })]), "it calls a tool without naming it"),
        (kimi_ends("stop"), "it is empty"),
    ] {
        let events = client_hears(&kimi);
        let last = events.last().unwrap();
        assert_eq!(line_of(last), "failed failed", "{kimi}");
        let message = format!("The answer of the Kimi API is not whole: {why}");
        assert_eq!(last["response"]["error"], json!({ "code": "server_error", "message": message }));
    }
}

#[test]
fn an_error_in_the_stream_is_told_in_kimis_words() {
    let error =
        json!({ "error": { "message": "You've reached your usage limit for this period", "type": "x" } });
    let events = client_hears(&format!(
        "{}data: {error}\n\ndata: [DONE]\n\n",
        kimi_says(&[json!({ "content": "He" })])
    ));
    assert_eq!(
        events.last().unwrap()["response"]["error"],
        json!({ "code": "insufficient_quota",
                "message": "The Kimi API: You've reached your usage limit for this period" })
    );
}

#[test]
fn calls_without_numbers_are_told_apart_by_their_ids() {
    let call = |id: &str, name: Value, arguments: &str| json!({ "tool_calls": [{ "id": id, "function": { "name": name, "arguments": arguments } }] });
    let events = client_hears(
        &(kimi_says(&[
            call("a", json!("shell"), "{\"x\":"),
            call("a", json!(null), "1}"),
            call("b", json!("shell"), "{\"x\":"),
            call("", json!(null), "2}"),
        ]) + &kimi_ends("tool_calls")),
    );
    let calls = events.last().unwrap()["response"]["output"].as_array().unwrap();
    let calls: Vec<_> = calls.iter().map(|call| (&call["call_id"], &call["arguments"])).collect();
    assert_eq!(calls, [(&json!("a"), &json!("{\"x\":1}")), (&json!("b"), &json!("{\"x\":2}"))]);
}

#[test]
fn a_call_without_arguments_has_an_empty_object() {
    let call = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "shell", "arguments": "" } }] });
    let events = client_hears(&(kimi_says(&[call]) + &kimi_ends("tool_calls")));
    let done = events.iter().find(|event| event["type"] == "response.function_call_arguments.done").unwrap();
    assert_eq!(done["arguments"], "{}");
    assert_eq!(events.last().unwrap()["response"]["output"][0]["arguments"], "{}");
}

#[test]
fn a_call_that_is_cut_is_never_done_whatever_kimi_says_at_the_end() {
    for arguments in ["{\"cmd\":\"rm ", "", "{}}"] {
        let call = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "shell", "arguments": arguments } }] });
        let events = client_hears(&format!("{}data: [DONE]\n\n", kimi_says(&[call])));
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert!(!kinds.contains(&"response.output_item.done"), "{arguments}: {kinds:?}");
        assert_eq!(kinds.last(), Some(&"response.failed"), "{arguments}");
    }
}

#[test]
fn a_connection_that_breaks_after_the_last_word_does_no_harm() {
    let broken = ResponsesError::broken_answer("The connection to the Kimi API broke");
    let said = kimi_says(&[json!({ "content": "Hello" })]);
    let last = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
    for (kimi, ending) in
        [(format!("{said}data: {last}\n\n"), "completed completed"), (said, "failed failed")]
    {
        let mut answer = answer_to(&codex_asks());
        answer.read_piece(kimi.as_bytes());
        assert!(!answer.has_ended());
        let heard = answer.break_off(broken.clone());
        assert_eq!(line_of(events_of(&heard).last().unwrap()), ending);
        assert!(answer.finish().is_empty() && answer.read_piece(b"data: [DONE]\n\n").is_empty());
    }
}

#[test]
fn the_last_event_comes_with_kimis_mark_not_with_the_end_of_the_connection() {
    let mut answer = answer_to(&codex_asks());
    let heard = answer.read_piece((kimi_says(&[json!({ "content": "Hi" })]) + &kimi_ends("stop")).as_bytes());
    assert_eq!(line_of(events_of(&heard).last().unwrap()), "completed completed");
    assert!(answer.has_ended());
}

fn whole_answer(kimi: &str) -> Result<Value, ResponsesError> {
    let chat = translate(&json!({ "model": "k", "input": "x", "metadata": { "a": "b" } })).unwrap();
    let mut answer = ResponseEvents::new(chat.form, "resp_1", jiff::Timestamp::from_second(5).unwrap());
    answer.read_piece(kimi.as_bytes());
    Ok(serde_json::from_slice(&answer.into_response_object()?).unwrap())
}

#[test]
fn a_client_without_a_stream_gets_one_object() {
    let response = whole_answer(&(kimi_says(&[json!({ "content": "Hi" })]) + &kimi_ends("stop"))).unwrap();
    assert_eq!(
        response,
        json!({
            "id": "resp_1", "object": "response", "created_at": 5, "status": "completed", "background": false,
            "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null,
            "metadata": { "a": "b" }, "model": "k",
            "output": [{ "id": "msg_1_0", "type": "message", "status": "completed", "role": "assistant", "content": [
                { "type": "output_text", "text": "Hi", "annotations": [], "logprobs": [] } ] }],
            "parallel_tool_calls": true, "previous_response_id": null, "store": false, "temperature": null,
            "tool_choice": "auto", "tools": [], "top_p": null,
            "usage": {
                "input_tokens": 100, "input_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 0 },
                "output_tokens": 7, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 107,
            },
        })
    );
    let broken = whole_answer(&kimi_says(&[json!({ "content": "Hi" })])).unwrap_err();
    assert_eq!((broken.status, broken.kind.as_str()), (502, "server_error"));
    let error = whole_answer(
        "data: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_reached_error\"}}\n\n",
    );
    assert_eq!(error.unwrap_err().code.as_str(), "rate_limit_exceeded");
}

#[test]
fn an_answer_without_bounds_is_ended() {
    let long = kimi_says(&[json!({ "content": "x".repeat(500_000) })]);
    let parts: Vec<Value> = (0..400)
        .map(|_| [json!({ "content": "a" }), json!({ "reasoning_content": "b" })])
        .collect::<Vec<_>>()
        .concat();
    for (kimi, why) in [
        (long.repeat(20), "it is too long"),
        (kimi_says(&parts), "it has too many parts"),
        (format!("data: {}", "x".repeat(2_000_000)), "it has an event without an end"),
    ] {
        let events = client_hears(&kimi);
        let message = events.last().unwrap()["response"]["error"]["message"].as_str().unwrap();
        assert!(message.ends_with(why), "{message}");
    }
}
