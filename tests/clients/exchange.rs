//! What Kimi got of a conversation: the request that made the model ask for the tool, and the one with the tool's result.

use nanokimi::practice::ReceivedRequest;
use serde_json::{Value, json};

use crate::world::{KIMI_MODEL, PROMPT, THOUGHT, WORD, World};

/// The requests of a conversation, as the practice model received them.
pub struct Exchange {
    requests: Vec<ReceivedRequest>,
}

impl Exchange {
    /// The requests of this path about the note. Each is a stream that asks for Kimi's own model, without a temperature
    /// that Kimi refuses. It comes from the client itself, with the login in place of the client's key.
    pub fn of(world: &World, path: &str, user_agent: &str) -> Self {
        let line = format!("POST /coding/v1/{path}");
        let is_about_the_note = |request: &ReceivedRequest| {
            let text = request.body["messages"].to_string();
            request.line == line && text.contains(PROMPT) && !text.contains("Generate a title")
        };
        let requests: Vec<ReceivedRequest> =
            world.practice.received_requests().into_iter().filter(is_about_the_note).collect();
        assert!(!requests.is_empty(), "no {line} about the note came");
        let bearer = format!("Bearer {}", world.login_token_marks()[0]);
        for request in &requests {
            let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
            assert_eq!((&request.body["stream"], &request.body["model"]), (&json!(true), &json!(KIMI_MODEL)));
            // "invalid temperature: only 1 is allowed for this model"
            assert!(matches!(request.body["temperature"].as_f64(), None | Some(1.0)), "{}", request.body);
            assert!(header("user-agent").starts_with(user_agent), "{}", header("user-agent"));
            assert!(header("authorization").starts_with(&bearer), "the login is sent in the key's place");
            assert!(!request.headers.contains_key("x-api-key"), "the key stays here");
        }
        Self { requests }
    }

    /// In OpenAI's form: the conversation has one cache key, and thinking as the alias says.
    pub fn has_one_cache_key(self) -> Self {
        let mut keys: Vec<&str> = self
            .requests
            .iter()
            .map(|request| request.body["prompt_cache_key"].as_str().expect("a prompt_cache_key"))
            .collect();
        keys.dedup();
        assert!(matches!(keys[..], [key] if !key.is_empty()), "{keys:?}");
        for request in &self.requests {
            assert_eq!(request.body["thinking"], json!({ "type": "enabled" }));
        }
        self
    }

    /// In OpenAI's form: the tool's result stands under the id that Kimi gave to the call, and what was thought before it
    /// is still there.
    pub fn answers_chat_call(self, tool: &str) {
        let messages = self.last_messages();
        let asked = messages.iter().find(|message| !message["tool_calls"].is_null()).expect("the call");
        let call = &asked["tool_calls"][0];
        assert_eq!(call["function"]["name"], json!(tool), "{asked}");
        assert_is_kimis_id(&call["id"], tool);
        let result = messages.iter().find(|message| message["role"] == "tool").expect("the result");
        assert_eq!(result["tool_call_id"], call["id"]);
        assert!(result["content"].to_string().contains(WORD), "{result}");
        assert_eq!(asked["reasoning_content"], json!(THOUGHT));
    }

    /// In Anthropic's form.
    pub fn answers_messages_call(self, tool: &str) {
        let messages = self.last_messages();
        let blocks: Vec<&Value> =
            messages.iter().filter_map(|message| message["content"].as_array()).flatten().collect();
        let find = |kind: &str| *blocks.iter().find(|block| block["type"] == kind).expect("a block");
        let (asked, result) = (find("tool_use"), find("tool_result"));
        assert_eq!(asked["name"], json!(tool));
        assert_is_kimis_id(&asked["id"], tool);
        assert_eq!(result["tool_use_id"], asked["id"]);
        assert!(result["content"].to_string().contains(WORD), "{result}");
        assert_eq!(find("thinking")["thinking"], json!(THOUGHT));
    }

    fn last_messages(&self) -> &[Value] {
        let last = self.requests.last().unwrap();
        last.body["messages"].as_array().unwrap()
    }
}

/// `functions.NAME:NUMBER`, unchanged on its way to the client and back.
fn assert_is_kimis_id(id: &Value, tool: &str) {
    let id = id.as_str().unwrap_or_default();
    let number = id.strip_prefix(&format!("functions.{tool}:")).unwrap_or_default();
    assert!(
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        "{id:?} is not Kimi's id"
    );
}
