//! What Codex CLI 0.171 really sends, shortened: long texts, schemas and most tools are left out.

use serde_json::{Value, json};

use super::{answer_to, events_of, kimi_is_asked};

/// The second request of a turn, with a model that Codex does not know: it then offers no `apply_patch`.
fn with_an_unknown_model() -> Value {
    json!({
        "model": "kimi-for-coding",
        "stream": true,
        "input": [
            { "type": "message", "id": "msg_e43b331c", "role": "developer", "content": [
                { "type": "input_text", "text": "You are a coding agent running in the Codex CLI." } ] },
            { "type": "message", "id": "msg_01a22eba-b01b", "role": "developer", "content": [
                { "type": "input_text", "text": "<skills_instructions>…" } ] },
            { "type": "message", "id": "msg_01a22eba-b01c", "role": "user", "content": [
                { "type": "input_text", "text": "<environment_context>…" } ] },
            { "type": "message", "id": "msg_01a22eba-b04a", "role": "user", "content": [
                { "type": "input_text", "text": "Make a file." } ] },
            { "type": "reasoning", "id": "rs_1_0", "summary": [
                { "type": "summary_text", "text": "I think." } ], "content": null, "encrypted_content": null },
            { "type": "message", "status": "completed", "id": "msg_1_1", "role": "assistant", "content": [
                { "type": "output_text", "text": "I make a file.", "annotations": [], "logprobs": [] } ] },
            { "type": "function_call", "status": "completed", "id": "fc_1_2", "name": "exec_command",
              "arguments": "{\"cmd\": \"echo hello > made.txt; ls\"}", "call_id": "functions.exec_command:0" },
            { "type": "function_call", "status": "completed", "id": "fc_1_3", "name": "exec_command",
              "arguments": "{\"cmd\": \"pwd\"}", "call_id": "functions.exec_command:1" },
            { "type": "function_call_output", "id": "fco_01a22eba-b35c", "call_id": "functions.exec_command:0",
              "output": "Process exited with code 0\nOutput:\nmade.txt\n" },
            { "type": "function_call_output", "id": "fco_01a22eba-b421", "call_id": "functions.exec_command:1",
              "output": "Process exited with code 0\nOutput:\n/home\n" },
        ],
        "tools": [
            { "type": "function", "name": "exec_command", "description": "Runs a command in a PTY.", "strict": false,
              "parameters": { "type": "object", "properties": { "cmd": { "type": "string" } }, "required": ["cmd"] } },
            { "type": "namespace", "name": "multi_agent_v1", "description": "Sub-agents.", "tools": [
                { "type": "function", "name": "close_agent", "description": "Closes one.", "strict": false,
                  "parameters": { "type": "object", "properties": {} } } ] },
            { "type": "web_search", "external_web_access": true },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": { "summary": "auto" },
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a22eba-afb0-7631-b8dd-4ad3d8535529",
        "client_metadata": { "session_id": "01a22eba-afb0-7631-b8dd-4ad3d8535529" },
    })
}

/// A request in code mode ("responses lite"): the tools are told of in the input, and the first of them runs
/// JavaScript.
fn in_code_mode() -> Value {
    json!({
        "model": "kimi-for-coding",
        "stream": true,
        "input": [
            { "type": "additional_tools", "id": "at_01a22ebd-66bc", "role": "developer", "tools": [
                { "type": "namespace", "name": "functions", "description": "", "tools": [
                    { "type": "custom", "name": "exec", "description": "Run JavaScript code.",
                      "format": { "type": "grammar", "syntax": "lark", "definition": "start: source" } },
                    { "type": "function", "name": "wait", "description": "Waits.", "strict": false,
                      "parameters": { "type": "object", "properties": {} } } ] },
                { "type": "namespace", "name": "clock", "description": "Time.", "tools": [
                    { "type": "function", "name": "sleep", "description": "Sleeps.", "strict": false,
                      "parameters": { "type": "object", "properties": {} } } ] } ] },
            { "type": "message", "id": "msg_1", "role": "user", "content": [
                { "type": "input_text", "text": "Make a file." } ] },
            { "type": "custom_tool_call", "id": "ctc_1_1", "status": "completed", "call_id": "functions.exec:0",
              "name": "exec", "namespace": "functions", "input": "text(1);\n" },
            { "type": "custom_tool_call_output", "id": "ctco_01a22ebd-c2d2", "call_id": "functions.exec:0", "output": [
                { "type": "input_text", "text": "Script completed" }, { "type": "input_text", "text": "1" } ] },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "reasoning": { "effort": "low", "context": "all_turns" },
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a22ebd-bc93-7562-9acb-66280a16c812",
        "text": { "verbosity": "low" },
    })
}

fn names_of_tools(asked: &Value) -> Vec<&str> {
    asked["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect()
}

#[test]
fn a_turn_goes_on_after_two_commands() {
    let asked = kimi_is_asked(&with_an_unknown_model());
    assert_eq!(
        asked["messages"].as_array().unwrap()[4..],
        [
            json!({ "role": "assistant", "content": "I make a file.", "reasoning_content": "I think.", "tool_calls": [
                { "id": "functions.exec_command:0", "type": "function", "function": {
                    "name": "exec_command", "arguments": "{\"cmd\": \"echo hello > made.txt; ls\"}" } },
                { "id": "functions.exec_command:1", "type": "function", "function": {
                    "name": "exec_command", "arguments": "{\"cmd\": \"pwd\"}" } } ] }),
            json!({ "role": "tool", "tool_call_id": "functions.exec_command:0",
                    "content": "Process exited with code 0\nOutput:\nmade.txt\n" }),
            json!({ "role": "tool", "tool_call_id": "functions.exec_command:1",
                    "content": "Process exited with code 0\nOutput:\n/home\n" }),
        ]
    );
    assert_eq!(names_of_tools(&asked), ["exec_command", "multi_agent_v1__close_agent"]);
    let others: Vec<&str> = asked.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        others,
        ["model", "messages", "stream", "stream_options", "tools", "tool_choice", "prompt_cache_key"]
    );
}

#[test]
fn code_mode_runs_its_code_as_a_freeform_tool() {
    let asked = kimi_is_asked(&in_code_mode());
    assert_eq!(names_of_tools(&asked), ["exec", "wait", "clock__sleep"]);
    assert_eq!(asked["messages"][1]["tool_calls"][0]["function"]["arguments"], r#"{"input":"text(1);\n"}"#);
    assert_eq!(asked["messages"][2]["content"], "Script completed\n1");

    let call = json!({ "choices": [{ "delta": { "tool_calls": [{
        "index": 0, "id": "functions.exec:1", "function": { "name": "exec", "arguments": "{\"input\":\"text(2);\"}" },
    }] }, "finish_reason": "tool_calls" }] });
    let mut answer = answer_to(&in_code_mode());
    let events = events_of(&answer.read_piece(format!("data: {call}\n\ndata: [DONE]\n\n").as_bytes()));
    assert_eq!(
        events.last().unwrap()["response"]["output"],
        json!([{ "id": "ctc_1_0", "type": "custom_tool_call", "status": "completed", "call_id": "functions.exec:1",
                 "name": "exec", "input": "text(2);", "namespace": "functions" }])
    );
}
