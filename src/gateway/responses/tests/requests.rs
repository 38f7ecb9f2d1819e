//! Requests: what a client sends, and what Kimi is asked then.

use serde_json::{Value, json};

use super::{kimi_is_asked, translate};

/// The messages that Kimi gets for an input.
fn messages_of(input: Value) -> Value {
    kimi_is_asked(&json!({ "model": "kimi-for-coding", "input": input }))["messages"].take()
}

/// The field that a request is refused for.
fn refused_for(request: Value) -> String {
    let error = translate(&request).map(|_| request).unwrap_err();
    assert_eq!((error.status, error.kind.as_str()), (400, "invalid_request_error"));
    error.param.unwrap()
}

#[test]
fn a_word_to_the_model() {
    let request = json!({ "model": "kimi-for-coding", "instructions": "Be kind.", "input": "hello" });
    assert_eq!(
        kimi_is_asked(&request),
        json!({
            "model": "kimi-for-coding",
            "messages": [
                { "role": "system", "content": "Be kind." },
                { "role": "user", "content": "hello" },
            ],
            "stream": true,
            "stream_options": { "include_usage": true },
        })
    );
    assert!(!translate(&request).unwrap().wants_stream);
}

#[test]
fn roles_texts_and_pictures() {
    let input = json!([
        { "type": "message", "role": "developer", "content": [
            { "type": "input_text", "text": "Rules." }, { "type": "input_text", "text": "More rules." },
        ] },
        { "role": "system", "content": "A system's word." },
        { "role": "user", "content": [{ "type": "input_text", "text": "One." }] },
        { "role": "assistant", "content": [{ "type": "output_text", "text": "Two.", "annotations": [] }] },
        { "role": "user", "content": [
            { "type": "input_text", "text": "What is this?" },
            { "type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto" },
            { "type": "input_image", "image_url": "https://example.org/cat.png" },
        ] },
        { "role": "assistant", "content": [{ "type": "refusal", "refusal": "No." }] },
        { "role": "user", "content": [] },
    ]);
    assert_eq!(
        messages_of(input),
        json!([
            { "role": "system", "content": "Rules.\n\nMore rules." },
            { "role": "system", "content": "A system's word." },
            { "role": "user", "content": "One." },
            { "role": "assistant", "content": "Two." },
            { "role": "user", "content": [
                { "type": "text", "text": "What is this?" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } },
                { "type": "image_url", "image_url": { "url": "https://example.org/cat.png" } },
            ] },
            { "role": "assistant", "content": "No." },
            { "role": "user", "content": "" },
        ])
    );
}

#[test]
fn thoughts_words_and_calls_of_one_answer_are_one_message() {
    let input = json!([
        { "role": "user", "content": "ls, please" },
        { "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "I list." }],
          "encrypted_content": null },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Here:" }] },
        { "type": "function_call", "name": "shell", "arguments": "{ \"cmd\" : \"ls\"}", "call_id": "functions.shell:0" },
        { "type": "function_call", "name": "shell", "arguments": "{\"cmd\":\"pwd\"}", "call_id": "functions.shell:1" },
        { "type": "function_call_output", "call_id": "functions.shell:0", "output": "a\nb" },
        { "type": "function_call_output", "call_id": "functions.shell:1", "output": [
            { "type": "input_text", "text": "/" }, { "type": "input_text", "text": "home" } ] },
        { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "Done." }],
          "content": [{ "type": "reasoning_text", "text": "The whole thought." }] },
        { "type": "message", "role": "assistant", "content": "That is all." },
    ]);
    assert_eq!(
        messages_of(input),
        json!([
            { "role": "user", "content": "ls, please" },
            { "role": "assistant", "content": "Here:", "reasoning_content": "I list.", "tool_calls": [
                { "id": "functions.shell:0", "type": "function",
                  "function": { "name": "shell", "arguments": "{ \"cmd\" : \"ls\"}" } },
                { "id": "functions.shell:1", "type": "function",
                  "function": { "name": "shell", "arguments": "{\"cmd\":\"pwd\"}" } },
            ] },
            { "role": "tool", "content": "a\nb", "tool_call_id": "functions.shell:0" },
            { "role": "tool", "content": "/\nhome", "tool_call_id": "functions.shell:1" },
            { "role": "assistant", "content": "That is all.", "reasoning_content": "The whole thought." },
        ])
    );
}

#[test]
fn an_answer_stands_behind_its_call_whatever_came_between() {
    let call = |id: &str| json!({ "type": "function_call", "name": "f", "arguments": "{}", "call_id": id });
    let answer =
        |id: &str, output: &str| json!({ "type": "function_call_output", "call_id": id, "output": output });
    let said = |text: &str| json!({ "role": "user", "content": text });
    let messages = messages_of(json!([
        said("go"),
        call("f:0"),
        said("wait"),
        answer("f:0", "first"),
        // Kimi has begun to count anew.
        call("f:0"),
        answer("f:0", "second"),
    ]));
    let shown: Vec<String> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            format!("{} {}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown, ["user go", "assistant ", "tool first", "user wait", "assistant ", "tool second"]);
    // Clients that keep no thoughts can go on all the same.
    assert_eq!(messages[1]["reasoning_content"], ".");
    assert_eq!(refused_for(json!({ "model": "k", "input": [answer("f:1", "?")] })), "input[0].call_id");
}

#[test]
fn what_comes_from_outside_is_said_to_the_model() {
    let outside = json!({ "type": "function_call_output", "id": "fco_1", "name": "agents", "output": [
        { "type": "input_text", "text": "A helper says: done." } ] });
    let search = json!({ "type": "web_search_call", "status": "completed", "action": { "type": "search" } });
    assert_eq!(
        messages_of(json!([outside, search])),
        json!([{ "role": "user", "content": "A helper says: done." }])
    );
}

#[test]
fn thoughts_alone_are_no_message() {
    let thought = json!({ "type": "reasoning", "summary": [{ "type": "summary_text", "text": "Hm." }] });
    let said = json!({ "role": "user", "content": "go" });
    assert_eq!(
        messages_of(json!([said.clone(), thought, said.clone(), { "type": "reasoning", "summary": [] }])),
        json!([said.clone(), said])
    );
}

#[test]
fn other_calls_become_calls_of_functions() {
    let input = json!([
        { "type": "custom_tool_call", "status": "completed", "call_id": "a", "name": "apply_patch",
          "input": "*** Begin Patch\n" },
        { "type": "custom_tool_call_output", "call_id": "a", "output": "Done!" },
        { "type": "local_shell_call", "call_id": "b", "status": "completed",
          "action": { "type": "exec", "command": ["ls"], "env": {} } },
        { "type": "function_call_output", "call_id": "b", "output": "x" },
        { "type": "function_call", "namespace": "mcp__files__", "name": "read", "call_id": "c", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c", "output": [
            { "type": "input_image", "image_url": "data:image/png;base64,AA" } ] },
        { "type": "tool_search_call", "call_id": "d", "execution": "client", "arguments": { "query": "mail" } },
        { "type": "tool_search_output", "call_id": "d", "status": "completed", "execution": "client", "tools": [
            { "type": "namespace", "name": "mcp__mail__", "description": "Mail.", "tools": [
                { "type": "function", "name": "send", "description": "Sends.", "strict": false,
                  "defer_loading": true, "parameters": { "type": "object", "properties": {} } } ] } ] },
    ]);
    let asked = kimi_is_asked(&json!({ "model": "k", "input": input }));
    let call = |id: &str, name: &str, arguments: &str| {
        json!({ "role": "assistant", "content": "", "reasoning_content": ".", "tool_calls": [
            { "id": id, "type": "function", "function": { "name": name, "arguments": arguments } } ] })
    };
    assert_eq!(
        asked["messages"],
        json!([
            call("a", "apply_patch", r#"{"input":"*** Begin Patch\n"}"#),
            { "role": "tool", "content": "Done!", "tool_call_id": "a" },
            call("b", "local_shell", r#"{"type":"exec","command":["ls"],"env":{}}"#),
            { "role": "tool", "content": "x", "tool_call_id": "b" },
            call("c", "mcp__files__read", "{}"),
            { "role": "tool", "tool_call_id": "c", "content": [
                { "type": "text", "text": "(The tool has answered with pictures.)" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA" } } ] },
            call("d", "tool_search", r#"{"query":"mail"}"#),
            { "role": "tool", "content": "New tools: mcp__mail__send", "tool_call_id": "d" },
        ])
    );
    assert_eq!(
        asked["tools"],
        json!([{ "type": "function", "function": {
            "name": "mcp__mail__send", "description": "Sends.", "parameters": { "type": "object", "properties": {} },
        } }])
    );
}

#[test]
fn tools_may_be_told_of_in_the_input() {
    let asked = kimi_is_asked(&json!({ "model": "k", "input": [
        { "type": "additional_tools", "role": "developer", "tools": [
            { "type": "function", "name": "look", "parameters": {} }, { "type": "web_search" } ] },
        { "type": "agent_message", "author": "/root/helper", "recipient": "/root",
          "content": [{ "type": "input_text", "text": "It is done." }] },
    ] }));
    assert_eq!(asked["tools"].as_array().unwrap().len(), 1);
    assert_eq!(asked["messages"][0]["content"], "Message from /root/helper:\n\nIt is done.");
}

#[test]
fn how_long_and_how_hard_the_model_thinks() {
    let asked = |model: &str, effort: Value| {
        let asked = kimi_is_asked(&json!({
            "model": model, "input": "x", "max_output_tokens": 9, "temperature": 0.2, "prompt_cache_key": "abc",
            "reasoning": { "effort": effort, "summary": "auto" }, "store": true, "include": ["reasoning.encrypted_content"],
        }));
        assert_eq!(asked["max_completion_tokens"], 9);
        assert_eq!(asked["prompt_cache_key"], "abc");
        assert_eq!(asked.get("temperature"), None);
        (asked["thinking"]["type"].clone(), asked["reasoning_effort"].clone())
    };
    let (off, on) = (json!("disabled"), json!("enabled"));
    assert_eq!(asked("kimi-for-coding", json!("none")), (off, Value::Null));
    assert_eq!(asked("kimi-for-coding", json!(null)), (Value::Null, Value::Null));
    for (model, effort, of_kimi) in [
        ("kimi-for-coding", "minimal", "low"),
        ("kimi-for-coding", "low", "low"),
        ("kimi-for-coding", "medium", "medium"),
        ("kimi-for-coding", "high", "high"),
        ("kimi-for-coding", "xhigh", "high"),
        ("k3", "low", "low"),
        ("k3-256k", "medium", "high"),
        ("k3", "high", "high"),
        ("k3", "xhigh", "max"),
    ] {
        assert_eq!(asked(model, json!(effort)), (on.clone(), json!(of_kimi)), "{model} {effort}");
    }
}

#[test]
fn which_tool_is_called() {
    let asked = |choice: Value| {
        let tools = json!([{ "type": "function", "name": "a" }, { "type": "custom", "name": "b" }]);
        translate(&json!({ "model": "k", "input": "x", "tools": tools, "tool_choice": choice }))
            .map(|chat| serde_json::from_slice::<Value>(&chat.body).unwrap()["tool_choice"].take())
    };
    let function = |name: &str| json!({ "type": "function", "function": { "name": name } });
    for (choice, of_kimi) in [
        (json!("auto"), json!("auto")),
        (json!("none"), json!("none")),
        (json!("required"), json!("required")),
        (json!({ "type": "function", "name": "a" }), function("a")),
        (json!({ "type": "custom", "name": "b" }), function("b")),
        (Value::Null, Value::Null),
    ] {
        assert_eq!(asked(choice.clone()).unwrap(), of_kimi, "{choice}");
    }
    for choice in
        [json!("any"), json!({ "type": "web_search" }), json!({ "type": "function", "name": "c" }), json!(1)]
    {
        assert_eq!(asked(choice.clone()).unwrap_err().param.as_deref(), Some("tool_choice"), "{choice}");
    }
    // Codex says "auto" with whatever tools it has; OpenAI's own are not among Kimi's.
    let without =
        json!({ "model": "k", "input": "x", "tools": [{ "type": "web_search" }], "tool_choice": "auto" });
    assert_eq!(kimi_is_asked(&without).get("tool_choice"), None);
}

#[test]
fn an_answer_in_json() {
    let asked = |format: Value| {
        kimi_is_asked(
            &json!({ "model": "k", "input": "x", "text": { "format": format, "verbosity": "low" } }),
        )
        .get("response_format")
        .cloned()
    };
    assert_eq!(asked(json!({ "type": "text" })), None);
    assert_eq!(asked(json!({ "type": "json_object" })), Some(json!({ "type": "json_object" })));
    assert_eq!(
        asked(json!({ "type": "json_schema", "name": "s", "strict": true, "schema": { "type": "object" } })),
        Some(json!({ "type": "json_schema",
                     "json_schema": { "name": "s", "schema": { "type": "object" }, "strict": true } }))
    );
}

#[test]
fn what_cannot_be_translated_is_refused_by_name() {
    let with_item =
        |item: Value| json!({ "model": "k", "input": [{ "role": "user", "content": "x" }, item] });
    for (request, param) in [
        (json!({ "input": "x" }), "model"),
        (json!({ "model": "", "input": "x" }), "model"),
        (json!({ "model": "k" }), "input"),
        (json!({ "model": "k", "input": [] }), "input"),
        (json!({ "model": "k", "input": 1 }), "input"),
        (json!([1]), "body"),
        (json!({ "model": "k", "input": "x", "previous_response_id": "resp_0" }), "previous_response_id"),
        (json!({ "model": "k", "input": "x", "conversation": { "id": "c" } }), "conversation"),
        (json!({ "model": "k", "input": "x", "background": true }), "background"),
        (json!({ "model": "k", "input": "x", "reasoning": { "effort": "much" } }), "reasoning.effort"),
        (json!({ "model": "k", "input": "x", "text": { "format": { "type": "xml" } } }), "text.format.type"),
        (with_item(json!({ "type": "item_reference", "id": "msg_1" })), "input[1].type"),
        (with_item(json!({ "type": "compaction", "encrypted_content": "…" })), "input[1].type"),
        (with_item(json!({ "type": "computer_call" })), "input[1].type"),
        (with_item(json!({ "role": "robot", "content": "x" })), "input[1].role"),
        (with_item(json!({ "content": "x" })), "input[1].role"),
        (with_item(json!({ "type": "function_call", "name": "f", "arguments": "{}" })), "input[1].call_id"),
        (
            with_item(
                json!({ "role": "user", "content": [{ "type": "input_text", "text": "x" }, { "type": "input_file" }] }),
            ),
            "input[1].content[1].type",
        ),
        (
            with_item(json!({ "role": "user", "content": [{ "type": "input_image", "file_id": "f" }] })),
            "input[1].content[0].image_url",
        ),
    ] {
        assert_eq!(refused_for(request.clone()), param, "{request}");
    }
}

/// The answers that Kimi gets to one call of `shell`.
fn answer_of_tool(output: Value) -> Value {
    let input = json!([
        { "type": "function_call", "name": "shell", "arguments": "{}", "call_id": "a" },
        { "type": "function_call_output", "call_id": "a", "output": output },
    ]);
    messages_of(input)[1]["content"].take()
}

#[test]
fn a_tools_answer_always_has_a_word() {
    let picture = json!({ "type": "input_image", "image_url": "data:image/png;base64,AAAA" });
    let of_kimi = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    let text = |text: &str| json!({ "type": "input_text", "text": text });
    let word = json!({ "type": "text", "text": "(The tool has answered with pictures.)" });
    for (output, answer) in [
        (json!([picture]), json!([word, of_kimi])),
        (json!([text(""), picture]), json!([word, of_kimi])),
        (json!([text("Seen."), text(" "), picture]), json!([{ "type": "text", "text": "Seen." }, of_kimi])),
        (json!(""), json!("(The tool has answered nothing.)")),
        (json!([]), json!("(The tool has answered nothing.)")),
        (json!([text("one"), text(""), text("two")]), json!("one\ntwo")),
        (json!("plain"), json!("plain")),
    ] {
        assert_eq!(answer_of_tool(output.clone()), answer, "{output}");
    }
    let user = messages_of(json!([{ "role": "user", "content": [text(""), picture] }]));
    assert_eq!(user[0]["content"], json!([of_kimi]));
}

#[test]
fn a_call_that_was_broken_off_has_an_answer() {
    let call = json!({ "type": "function_call", "name": "shell", "arguments": "{}", "call_id": "f:0" });
    let output = json!({ "type": "function_call_output", "call_id": "f:0", "output": "done" });
    let told = |input: Value| -> Vec<String> {
        let messages = messages_of(input);
        let line = |message: &Value| {
            format!("{}: {}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
        };
        messages.as_array().unwrap().iter().map(line).collect()
    };
    let next = json!({ "role": "user", "content": "next" });
    assert_eq!(
        told(json!([call, output, call, next])),
        ["assistant: ", "tool: done", "assistant: ", "tool: (The call was broken off.)", "user: next"]
    );
    assert_eq!(
        told(json!([call, call, output])),
        ["assistant: ", "tool: done", "tool: (The call was broken off.)"]
    );
}

#[test]
fn arguments_that_are_no_json_go_back_as_json() {
    for (arguments, sent) in [
        ("", "{}"),
        (" ", "{}"),
        ("{ \"a\" :1}", "{ \"a\" :1}"),
        ("{\"a\":\"line\nline\"}", "{\"arguments\":\"{\\\"a\\\":\\\"line\\nline\\\"}\"}"),
    ] {
        let input =
            json!([{ "type": "function_call", "name": "shell", "arguments": arguments, "call_id": "a" }]);
        let messages = messages_of(input);
        assert_eq!(messages[0]["tool_calls"][0]["function"]["arguments"], sent, "{arguments:?}");
    }
}

#[test]
fn words_of_one_answer_stand_apart_and_lists_of_servers_mean_nothing() {
    let messages = messages_of(json!([
        { "role": "assistant", "content": "First." },
        { "type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{ "name": "a", "input_schema": {} }] },
        { "role": "assistant", "content": [
            { "type": "output_text", "text": "Sec" }, { "type": "output_text", "text": "ond." },
        ] },
    ]));
    assert_eq!(messages, json!([{ "role": "assistant", "content": "First.\n\nSecond." }]));
}
