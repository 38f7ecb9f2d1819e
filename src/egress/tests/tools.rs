//! The host's tools over the group's socket, as an engine asks for them and as an agent might.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::tools::{HostTool, ToolAction, ToolAnswer};

struct ToolFixture {
    folder: TempDir,
    _egress: EgressProxy,
    calls: mpsc::Receiver<ToolCall>,
}

impl ToolFixture {
    async fn new(role: Role) -> Self {
        let folder = TempDir::new().unwrap();
        let (_, authorization) = watch::channel(Authorization::Missing("nobody".to_owned()));
        let upstream = KimiUpstream::new("http://127.0.0.1:9/v1", authorization, watch::Sender::new(None));
        let (sender, calls) = mpsc::channel(8);
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), role);
        let egress = start_egress_proxy(folder.path(), upstream, &group, sender).await.unwrap();
        Self { folder, _egress: egress, calls }
    }

    /// Sends this request as it is, and returns all that comes back.
    async fn sends(&self, request: &str) -> String {
        let mut engine = connect_to(self.folder.path()).await;
        engine.send(request).await;
        engine.rest().await
    }

    /// Posts this body, and returns the status and the JSON of the answer.
    async fn posts(&self, body: &str) -> (String, Value) {
        let answer = self.sends(&post("127.0.0.1:8787", body)).await;
        let (head, said) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, serde_json::from_str(said).unwrap_or_default())
    }
}

fn post(host: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn call(name: &str, arguments: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
        .to_string()
}

#[tokio::test]
async fn an_engine_is_told_of_the_tools_of_its_group() {
    for (role, expected) in [(Role::Member, 10), (Role::Main, HostTool::ALL.len())] {
        let fixture = ToolFixture::new(role).await;
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "kimi-code", "version": "2"}}});
        let (status, said) = fixture.posts(&hello.to_string()).await;
        assert_eq!((status.as_str(), &said["result"]["serverInfo"]["name"]), ("200", &json!("nanokimi")));
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(fixture.posts(&ready.to_string()).await.0, "202");
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let (_, said) = fixture.posts(&list.to_string()).await;
        let tools = said["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), expected, "{said}");
        assert_eq!(tools[0]["name"], "send_message");
        assert_eq!(tools[0]["inputSchema"]["required"], json!(["text"]));
        // An engine that listens for more is told at once that there is nothing.
        let listens = "GET /mcp HTTP/1.1\r\nhost: 127.0.0.1:8787\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n";
        assert!(fixture.sends(listens).await.starts_with("HTTP/1.1 405 "));
    }
}

#[tokio::test]
async fn a_call_reaches_the_session_and_its_answer_the_model() {
    let mut fixture = ToolFixture::new(Role::Member).await;
    let request = call("send_message", json!({"text": "Working on it"}));
    let mut calls = std::mem::replace(&mut fixture.calls, mpsc::channel(1).1);
    let (said, called) = tokio::join!(fixture.posts(&request), async {
        let ToolCall { tool, action, answer } = calls.recv().await.unwrap();
        answer.send(ToolAnswer::done("Sent.")).unwrap();
        (tool, action)
    });
    let expected = ToolAction::SendMessage { to: None, text: "Working on it".to_owned() };
    assert_eq!(called, (HostTool::SendMessage, expected));
    assert_eq!(said.1["result"]["content"][0]["text"], "Sent.");
    assert_eq!(said.1["result"]["isError"], false);
}

#[tokio::test]
async fn what_is_no_call_of_a_tool_is_refused_and_reaches_nobody() {
    let mut fixture = ToolFixture::new(Role::Member).await;
    for arguments in [json!({}), json!({"text": ""}), json!({"text": "x", "groupFolder": "main"})] {
        let (status, said) = fixture.posts(&call("send_message", arguments)).await;
        assert_eq!((status.as_str(), &said["result"]["isError"]), ("200", &json!(true)), "{said}");
    }
    let (_, said) = fixture.posts(&call("register_group", json!({}))).await;
    assert!(said["error"]["message"].is_string(), "{said}");
    for body in
        ["", "{", "[]", "null", "\u{0}", r#"{"jsonrpc":"1.0"}"#, &"[".repeat(5_000), &"x".repeat(600_000)]
    {
        let answer = fixture.sends(&post("127.0.0.1:8787", body)).await;
        let status = answer.get(..12).unwrap_or_default();
        assert!(status.starts_with("HTTP/1.1 4"), "{status}: {:?}", body.get(..20));
    }
    let elsewhere = fixture.sends(&post("example.org", &call("send_message", json!({"text": "x"})))).await;
    assert!(elsewhere.starts_with("HTTP/1.1 403 "), "{elsewhere}");
    assert!(fixture.calls.try_recv().is_err());
}

#[tokio::test]
async fn a_session_that_is_gone_fails_the_call_and_not_the_engine() {
    let mut fixture = ToolFixture::new(Role::Member).await;
    fixture.calls.close();
    let (status, said) = fixture.posts(&call("react", json!({"emoji": "👍"}))).await;
    assert_eq!((status.as_str(), &said["result"]["isError"]), ("200", &json!(true)), "{said}");
}
