//! kimi-cli's wire protocol 1.10, as a pure machine.
//!
//! The engine's own requests are always answered, whatever they are: an unanswered one holds its turn for
//! ever. Source: kimi-cli 1.51 `wire/jsonrpc.py`, `wire/types.py` and `wire/server.py`, and runs against it.
//! Never does I/O. Message text is logged at DEBUG at most.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use tracing::{debug, trace};

use super::excerpt::{append_excerpt, take_excerpt};
use super::jsonrpc::{
    RpcError, RpcMessage, encode_method_not_found, encode_rpc_request, encode_rpc_result, is_rpc_id,
    parse_rpc_line,
};
use super::lines::{Incoming, Outgoing, Protocol};
use super::messages::{AgentEvent, CompactionEnd, EngineInput, EngineLoss, EngineToolCall, Request, TurnEnd};
use crate::tools::{HostTool, ToolAnswer};
use crate::types::{Failure, Role, Trouble};

/// The version that this file was written against. The engine does not compare it.
const PROTOCOL_VERSION: &str = "1.10";

/// How every event begins: kimi-cli writes the fields in this order. A line that is too long to be read may
/// be missed if it begins so.
const EVENT_BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"event","#;

/// How the receipt of a steer begins: it holds the whole steer, pictures included, and must not be missed.
const RECEIPT_BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","#;

const GREETING_ID: &str = "initialize";

/// The engine's own command, and what it says if there is nothing to put into a summary.
const COMPACT: &str = "/compact";
const NOTHING_TO_COMPACT: &str = "The context is empty";

/// The state of the conversation with a running engine.
#[derive(Debug)]
pub struct WireProtocol {
    stage: WireStage,
    /// Ids of the prompts that have no answer yet: one, or more if the session asks too early and the engine
    /// refuses.
    prompts: Vec<String>,
    compaction: Option<WireCompaction>,
    requests: u64,
}

/// A compaction that was asked for.
#[derive(Debug)]
struct WireCompaction {
    /// Of its prompt.
    id: String,
    /// What it is, if the engine finishes it.
    end: CompactionEnd,
}

#[derive(Debug)]
enum WireStage {
    /// The engine has not yet answered the greeting. `said` is what it has said instead, cut short.
    Greeted {
        said: String,
    },
    Ready,
}

impl WireProtocol {
    /// Begins with this line.
    ///
    /// It says in full what this client can do: the engine hides the tools that need more from the model.
    pub fn start_handshake(role: Role) -> (Self, String) {
        let greeting = encode_rpc_request(
            GREETING_ID,
            "initialize",
            json!({
                "protocol_version": PROTOCOL_VERSION,
                "client": {"name": "nanokimi", "version": env!("CARGO_PKG_VERSION")},
                "external_tools": HostTool::offered_to(role).map(encode_tool).collect::<Vec<_>>(),
                "capabilities": {"supports_question": false, "supports_plan_mode": false},
            }),
        );
        (
            Self {
                stage: WireStage::Greeted { said: String::new() },
                prompts: Vec::new(),
                compaction: None,
                requests: 0,
            },
            greeting,
        )
    }

    fn loss_from_invalid_line(&mut self, line: &[u8]) -> EngineLoss {
        let mut garbage = String::new();
        append_excerpt(&mut garbage, line);
        match &mut self.stage {
            WireStage::Ready => EngineLoss::Garbage { said: garbage },
            WireStage::Greeted { said } if said.is_empty() => EngineLoss::NeverReady { said: garbage },
            WireStage::Greeted { said } => EngineLoss::NeverReady { said: std::mem::take(said) },
        }
    }

    fn handle_rpc_response(&mut self, id: &str, outcome: Result<Value, RpcError>) -> Incoming {
        if id == GREETING_ID {
            return match outcome {
                Ok(_) => {
                    self.stage = WireStage::Ready;
                    Incoming::Event(AgentEvent::Ready)
                }
                Err(error) => Incoming::Lost(EngineLoss::NeverReady { said: error.excerpt() }),
            };
        }
        if let Some(compaction) = self.compaction.take_if(|compaction| compaction.id == id) {
            let end = match outcome.map(|result| parse_turn_end(&result)) {
                Ok(TurnEnd::Finished) => compaction.end,
                Ok(_) => CompactionEnd::Failed,
                Err(error) => {
                    error.log_as("The engine does not put its history into a summary");
                    CompactionEnd::Failed
                }
            };
            return Incoming::Event(AgentEvent::CompactionOver(end));
        }
        if let Some(position) = self.prompts.iter().position(|prompt| prompt == id) {
            self.prompts.remove(position);
            return Incoming::Event(AgentEvent::TurnOver(match outcome {
                Ok(result) => parse_turn_end(&result),
                Err(error) => TurnEnd::Failed(prompt_failure(&error)),
            }));
        }
        // An accepted steer may still be lost (only `AgentEvent::SteerTaken` counts), and a refused steer or
        // cancel came after its turn.
        if let Err(error) = outcome {
            error.log_as(&format!("The engine refuses the request {id}"));
        }
        Incoming::Nothing
    }
}

impl Protocol for WireProtocol {
    fn encode_request(&mut self, asked: Request) -> Outgoing {
        self.requests += 1;
        let id = |method: &str| format!("{method}-{}", self.requests);
        match asked {
            Request::Prompt(input) => {
                let id = id("prompt");
                let line = encode_rpc_request(&id, "prompt", json!({"user_input": render_user_input(input)}));
                self.prompts.push(id);
                Outgoing::Line(line)
            }
            Request::Steer(input) => Outgoing::Line(encode_rpc_request(
                &id("steer"),
                "steer",
                json!({"user_input": render_user_input(input)}),
            )),
            Request::Compact => {
                let id = id("compact");
                let line = encode_rpc_request(&id, "prompt", json!({"user_input": COMPACT}));
                self.compaction = Some(WireCompaction { id, end: CompactionEnd::Done });
                Outgoing::Line(line)
            }
            Request::Cancel => Outgoing::Line(encode_rpc_request(&id("cancel"), "cancel", json!({}))),
            Request::ToolAnswer { id, answer } => Outgoing::Line(encode_tool_answer(&id, &answer)),
            Request::Close => Outgoing::Close,
        }
    }

    fn handle_line(&mut self, line: &[u8]) -> Incoming {
        if line.trim_ascii().is_empty() {
            return Incoming::Nothing;
        }
        if let WireStage::Greeted { said } = &mut self.stage {
            append_excerpt(said, line);
        }
        let Some(message) = parse_rpc_line(line) else {
            return Incoming::Lost(self.loss_from_invalid_line(line));
        };
        match message {
            RpcMessage::Notification { method, params } if method == "event" => {
                let event = parse_wire_event(&params);
                match &mut self.compaction {
                    Some(compaction) => {
                        compaction.hear(&event);
                        Incoming::Nothing
                    }
                    None => handle_wire_event(event),
                }
            }
            RpcMessage::Request { id, method, params } => {
                let question = match method.as_str() {
                    "request" => parse_engine_request(&params),
                    _ => WireQuestion::Unknown(method),
                };
                if let WireQuestion::Tool(call) = &question
                    && id == call.id
                {
                    return Incoming::Event(AgentEvent::ToolCalled(call.clone()));
                }
                Incoming::Answer(answer_engine_request(&id, question))
            }
            RpcMessage::Response { id, outcome } => self.handle_rpc_response(&id, outcome),
            RpcMessage::Notification { method, .. } => {
                debug!(method = take_excerpt(&method), "The engine tells something unknown");
                Incoming::Nothing
            }
            RpcMessage::Other => Incoming::Nothing,
        }
    }

    /// What we need of events comes in small pieces, but a tool's result holds the picture that the agent has
    /// looked at (`ReadMediaFile`: up to 100 MB, in Base64): such an event is skipped.
    fn handle_long_line_start(&mut self, beginning: &[u8]) -> Incoming {
        if matches!(self.stage, WireStage::Ready) && beginning.starts_with(RECEIPT_BEGINNING) {
            return Incoming::Event(AgentEvent::SteerTaken);
        }
        if matches!(self.stage, WireStage::Ready) && beginning.starts_with(EVENT_BEGINNING) {
            debug!("An event of the engine is too long and was skipped");
            return Incoming::Nothing;
        }
        Incoming::Lost(self.loss_from_invalid_line(beginning))
    }

    fn handle_stdout_end(mut self, rest: &[u8]) -> EngineLoss {
        match &mut self.stage {
            WireStage::Ready => EngineLoss::Ended,
            WireStage::Greeted { said } => {
                append_excerpt(said, rest);
                EngineLoss::NeverReady { said: std::mem::take(said) }
            }
        }
    }
}

impl WireCompaction {
    /// What the engine says of it is for nobody else.
    fn hear(&mut self, event: &WireEvent) {
        if let WireEvent::Text(text) = event
            && text.starts_with(NOTHING_TO_COMPACT)
        {
            self.end = CompactionEnd::NothingThere;
        }
    }
}

fn handle_wire_event(event: WireEvent) -> Incoming {
    Incoming::Event(match event {
        WireEvent::Text(text) if text.is_empty() => return Incoming::Nothing,
        WireEvent::Text(text) => AgentEvent::AnswerText(text),
        WireEvent::StepBegin => AgentEvent::StepBegan,
        WireEvent::ToolCall(tool) => AgentEvent::Working { tool },
        WireEvent::SteerInput => AgentEvent::SteerTaken,
        WireEvent::Other(kind) => {
            trace!(kind, "The engine reports what nobody needs");
            return Incoming::Nothing;
        }
    })
}

/// What happens in a turn, as far as it matters here.
#[derive(Debug, PartialEq)]
enum WireEvent {
    Text(String),
    StepBegin,
    /// The tool's name; its arguments are not looked at.
    ToolCall(String),
    SteerInput,
    /// Its kind. The end of a turn is among them: the answer to the prompt comes after it and says more.
    Other(String),
}

/// What the engine wants to know.
#[derive(Debug, PartialEq)]
enum WireQuestion {
    Approval {
        request_id: Value,
    },
    /// With the first option of each question.
    Choice {
        request_id: Value,
        answers: Map<String, Value>,
    },
    Hook {
        request_id: Value,
    },
    /// A tool of the host.
    Tool(EngineToolCall),
    UnknownTool(String),
    Unknown(String),
}

/// Reads `{type, payload}` of an event.
fn parse_wire_event(params: &Value) -> WireEvent {
    let payload = &params["payload"];
    match str_or_empty(&params["type"]) {
        "ContentPart" => match str_or_empty(&payload["type"]) {
            "text" => WireEvent::Text(str_or_empty(&payload["text"]).to_owned()),
            kind => WireEvent::Other(format!("ContentPart {kind}")),
        },
        "StepBegin" => WireEvent::StepBegin,
        "ToolCall" => WireEvent::ToolCall(take_excerpt(str_or_empty(&payload["function"]["name"]))),
        "SteerInput" => WireEvent::SteerInput,
        // A subagent's words and steps are not the turn's, but its tools are.
        "SubagentEvent" => match parse_wire_event(&payload["event"]) {
            WireEvent::ToolCall(tool) => WireEvent::ToolCall(tool),
            WireEvent::Text(_) | WireEvent::StepBegin | WireEvent::SteerInput | WireEvent::Other(_) => {
                WireEvent::Other("SubagentEvent".to_owned())
            }
        },
        kind => WireEvent::Other(kind.to_owned()),
    }
}

/// Reads `{type, payload}` of a request.
fn parse_engine_request(params: &Value) -> WireQuestion {
    let payload = &params["payload"];
    let request_id = Some(&payload["id"]).filter(|id| is_rpc_id(id)).cloned().unwrap_or_default();
    match str_or_empty(&params["type"]) {
        "ApprovalRequest" => WireQuestion::Approval { request_id },
        "QuestionRequest" => WireQuestion::Choice { request_id, answers: first_option_answers(payload) },
        "HookRequest" => WireQuestion::Hook { request_id },
        "ToolCallRequest" => parse_tool_call(payload),
        kind => WireQuestion::Unknown(kind.to_owned()),
    }
}

/// The call's own id is the request's too, and comes back with the answer.
fn parse_tool_call(payload: &Value) -> WireQuestion {
    let name = str_or_empty(&payload["name"]);
    match (HostTool::find_by_name(name), payload["id"].as_str()) {
        (Some(tool), Some(id)) => WireQuestion::Tool(EngineToolCall {
            id: id.to_owned(),
            tool,
            arguments: str_or_empty(&payload["arguments"]).to_owned(),
        }),
        (Some(_) | None, _) => WireQuestion::UnknownTool(take_excerpt(name)),
    }
}

/// A tool as the engine is told of it.
fn encode_tool(tool: HostTool) -> Value {
    json!({"name": tool.tool_name(), "description": tool.description(), "parameters": tool.parameters()})
}

fn encode_tool_answer(id: &str, answer: &ToolAnswer) -> String {
    // The engine breaks off its turn at an error without a message.
    let message = if answer.is_error { answer.text.as_str() } else { "" };
    let value =
        json!({"is_error": answer.is_error, "output": answer.text, "message": message, "display": []});
    encode_rpc_result(&id.into(), json!({"tool_call_id": id, "return_value": value}))
}

fn first_option_answers(payload: &Value) -> Map<String, Value> {
    let questions = payload["questions"].as_array().map_or(&[][..], Vec::as_slice);
    questions
        .iter()
        .filter_map(|question| {
            let first = question["options"][0]["label"].as_str()?;
            Some((question["question"].as_str()?.to_owned(), first.into()))
        })
        .collect()
}

/// Answers so that the turn goes on. The container is the limit of what the agent may do, so every permission
/// is given. Nobody is there to answer any other question.
fn answer_engine_request(id: &Value, question: WireQuestion) -> String {
    let outcome = match question {
        WireQuestion::Approval { request_id } => {
            Ok(json!({"request_id": request_id, "response": "approve", "feedback": ""}))
        }
        WireQuestion::Choice { request_id, answers } => {
            Ok(json!({"request_id": request_id, "answers": answers}))
        }
        WireQuestion::Hook { request_id } => {
            Ok(json!({"request_id": request_id, "action": "allow", "reason": ""}))
        }
        WireQuestion::Tool(call) => Err(format!("A call of {} has two ids", call.tool.tool_name())),
        WireQuestion::UnknownTool(name) => Err(format!("There is no tool {name}")),
        WireQuestion::Unknown(kind) => {
            debug!(kind, "The engine asks something unknown");
            Err(format!("Unknown request: {kind}"))
        }
    };
    match outcome {
        Ok(result) => encode_rpc_result(id, result),
        Err(message) => encode_method_not_found(id, &message),
    }
}

/// Plain text, or a list of content parts if there are pictures. The text comes first, since it says whose
/// they are.
fn render_user_input(input: EngineInput) -> Value {
    if input.images.is_empty() {
        return input.text.into();
    }
    let mut parts = vec![json!({"type": "text", "text": input.text})];
    parts.extend(input.images.into_iter().map(|image| {
        let url = format!("data:{};base64,{}", image.mime, BASE64_STANDARD.encode(&image.bytes));
        json!({"type": "image_url", "image_url": {"url": url}})
    }));
    parts.into()
}

fn parse_turn_end(result: &Value) -> TurnEnd {
    match str_or_empty(&result["status"]) {
        "finished" => TurnEnd::Finished,
        "cancelled" => TurnEnd::Cancelled,
        "max_steps_reached" => TurnEnd::StepLimit(result["steps"].as_u64().unwrap_or_default()),
        status => TurnEnd::Failed(Failure::new(
            Trouble::Internal,
            format!("Unknown end of a turn: {}", take_excerpt(status)),
        )),
    }
}

/// The cause of a refused prompt, by its code. Behind "chat provider error" stands an HTTP status in words.
/// It is never a trouble of the account, which would concern every chat: the egress proxy has heard for
/// itself what Kimi says about that.
fn prompt_failure(error: &RpcError) -> Failure {
    let trouble = match error.code {
        -32001 => Trouble::NoModel,
        -32002 => Trouble::Unsupported,
        -32003 => trouble_from_provider_message(&error.message),
        // -32004 is a login that is missing or refused.
        _ => Trouble::Internal,
    };
    Failure::new(trouble, format!("{} (wire {})", error.excerpt(), error.code))
}

fn trouble_from_provider_message(message: &str) -> Trouble {
    match parse_http_status(message) {
        Some(401..=403 | 429) => Trouble::Internal,
        Some(500..=599) => Trouble::Overloaded,
        Some(400..=499) => Trouble::BadRequest,
        Some(_) => Trouble::Internal,
        None => {
            // Words of the openai and httpx packages, and of kosong for the last.
            let message = message.to_ascii_lowercase();
            let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
            if says(&["connection", "timed out", "timeout", "disconnected"]) {
                Trouble::Unreachable
            } else if says(&["empty response", "only thinking content"]) {
                Trouble::EmptyAnswer
            } else {
                Trouble::Internal
            }
        }
    }
}

/// `Error code: 429 - {…}` is how the openai package words a status.
fn parse_http_status(message: &str) -> Option<u16> {
    let (_, after) = message.split_once("Error code: ")?;
    after.get(..3)?.parse().ok()
}

/// The string in a value, or nothing.
fn str_or_empty(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::excerpt::SAID_MAX;
    use super::*;
    use crate::agent::Image;
    use crate::types::Outage;
    use proptest::prelude::*;

    fn ready() -> WireProtocol {
        let (mut wire, _) = WireProtocol::start_handshake(Role::Member);
        let heard = wire.handle_line(br#"{"jsonrpc":"2.0","id":"initialize","result":{}}"#);
        assert_eq!(heard, Incoming::Event(AgentEvent::Ready));
        wire
    }

    fn line(asked: Outgoing) -> String {
        let Outgoing::Line(line) = asked else { panic!("{asked:?} is no line") };
        line
    }

    fn said(text: &str) -> Incoming {
        Incoming::Event(AgentEvent::AnswerText(text.to_owned()))
    }

    fn over(end: TurnEnd) -> Incoming {
        Incoming::Event(AgentEvent::TurnOver(end))
    }

    fn working(tool: &str) -> Incoming {
        Incoming::Event(AgentEvent::Working { tool: tool.to_owned() })
    }

    #[test]
    fn a_compaction_ends_with_its_prompt_and_what_is_said_of_it_is_no_answer() {
        let event = |kind: &str, payload: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"event","params":{{"type":"{kind}","payload":{payload}}}}}"#
            )
        };
        let finished = r#"{"jsonrpc":"2.0","id":"compact-1","result":{"status":"finished"}}"#;
        let cancelled = r#"{"jsonrpc":"2.0","id":"compact-1","result":{"status":"cancelled"}}"#;
        let refused =
            r#"{"jsonrpc":"2.0","id":"compact-1","error":{"code":-32003,"message":"Error code: 500"}}"#;
        for (says, answer, end) in [
            ("The context has been compacted.", finished, CompactionEnd::Done),
            ("The context is empty.", finished, CompactionEnd::NothingThere),
            ("", cancelled, CompactionEnd::Failed),
            ("", refused, CompactionEnd::Failed),
        ] {
            let mut wire = ready();
            let asked = wire.encode_request(Request::Compact);
            assert!(
                matches!(&asked, Outgoing::Line(line) if line.contains(r#""user_input":"/compact""#)),
                "{asked:?}"
            );
            let said = json!({"type": "text", "text": says}).to_string();
            for line in
                [event("TurnBegin", "{}"), event("CompactionBegin", "{}"), event("ContentPart", &said)]
            {
                assert_eq!(wire.handle_line(line.as_bytes()), Incoming::Nothing, "{line}");
            }
            let over = Incoming::Event(AgentEvent::CompactionOver(end));
            assert_eq!(wire.handle_line(answer.as_bytes()), over);
            let hello = event("ContentPart", r#"{"type":"text","text":"Hello."}"#);
            let said = Incoming::Event(AgentEvent::AnswerText("Hello.".to_owned()));
            assert_eq!(wire.handle_line(hello.as_bytes()), said);
        }
    }

    #[test]
    fn the_greeting_says_who_we_are_and_what_we_cannot() {
        let (_, greeting) = WireProtocol::start_handshake(Role::Member);
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        assert_eq!(
            greeting,
            json!({"jsonrpc": "2.0", "method": "initialize", "id": "initialize", "params": {
                "protocol_version": "1.10",
                "client": {"name": "nanokimi", "version": env!("CARGO_PKG_VERSION")},
                "external_tools": greeting["params"]["external_tools"],
                "capabilities": {"supports_question": false, "supports_plan_mode": false},
            }})
        );
        let offered = |role| {
            let (_, greeting) = WireProtocol::start_handshake(role);
            let greeting: Value = serde_json::from_str(&greeting).unwrap();
            greeting["params"]["external_tools"].as_array().unwrap().clone()
        };
        assert_eq!(offered(Role::Main).len(), HostTool::ALL.len());
        let [first, ..] = &offered(Role::Member)[..] else { panic!("no tool") };
        assert_eq!(
            (&first["name"], &first["parameters"]["type"]),
            (&json!("send_message"), &json!("object"))
        );
    }

    #[test]
    fn every_request_is_one_line_with_an_id_of_its_own() {
        let (mut wire, _) = WireProtocol::start_handshake(Role::Member);
        let mut ask = |asked| line(wire.encode_request(asked));
        insta::assert_snapshot!(
            [
                ask(Request::Prompt(EngineInput::from_text("<messages>\n\"hi\" 👋</messages>"))),
                ask(Request::Steer(EngineInput::from_text("more"))),
                ask(Request::Cancel),
                ask(Request::Prompt(EngineInput::from_text("again"))),
            ]
            .join("\n"),
            @r#"
        {"jsonrpc":"2.0","method":"prompt","id":"prompt-1","params":{"user_input":"<messages>\n\"hi\" 👋</messages>"}}
        {"jsonrpc":"2.0","method":"steer","id":"steer-2","params":{"user_input":"more"}}
        {"jsonrpc":"2.0","method":"cancel","id":"cancel-3","params":{}}
        {"jsonrpc":"2.0","method":"prompt","id":"prompt-4","params":{"user_input":"again"}}
        "#
        );
        assert_eq!(wire.encode_request(Request::Close), Outgoing::Close);
    }

    #[test]
    fn pictures_follow_the_text_as_parts() {
        let input = || EngineInput {
            text: "look".to_owned(),
            images: vec![
                Image { mime: "image/png", bytes: b"\x89PNG".to_vec() },
                Image { mime: "image/jpeg", bytes: vec![0xff, 0xd8, 0xff] },
            ],
        };
        for request in [Request::Prompt(input()), Request::Steer(input())] {
            let line: Value = serde_json::from_str(&line(ready().encode_request(request))).unwrap();
            assert_eq!(
                line["params"]["user_input"],
                json!([
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}},
                ])
            );
        }
    }

    /// Lines as kimi-cli 1.51.0 wrote them, shortened.
    #[test]
    fn a_turn_with_a_tool_and_a_steer() {
        let mut wire = ready();
        wire.encode_request(Request::Prompt(EngineInput::from_text("look")));
        wire.encode_request(Request::Steer(EngineInput::from_text("hurry")));
        for (line, heard) in [
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"TurnBegin","payload":{"user_input":"look"}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepBegin","payload":{"n":1}}}"#,
                Incoming::Event(AgentEvent::StepBegan),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"think","think":"hmm","encrypted":null}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":"I will "}}}"#,
                said("I will "),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":"look.\n"}}}"#,
                said("look.\n"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":""}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"image_url","image_url":{"url":"data:…","id":null}}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolCall","payload":{"type":"function","id":"Shell:1","function":{"name":"Shell","arguments":""},"extras":null}}}"#,
                working("Shell"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolCallPart","payload":{"arguments_part":"{\"command\":\"ls\"}"}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StatusUpdate","payload":{"context_usage":0.0144,"message_id":"chatcmpl-59cd800521e1"}}}"#,
                Incoming::Nothing,
            ),
            (r#"{"jsonrpc":"2.0","id":"steer-2","result":{"status":"steered"}}"#, Incoming::Nothing),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolResult","payload":{"tool_call_id":"Shell:1","return_value":{"is_error":false,"output":"a"}}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","payload":{"user_input":"hurry"}}}"#,
                Incoming::Event(AgentEvent::SteerTaken),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepBegin","payload":{"n":2}}}"#,
                Incoming::Event(AgentEvent::StepBegan),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepRetry","payload":{"n":2,"next_attempt":2,"max_attempts":3,"wait_s":0.6,"error_type":"APIStatusError","status_code":503}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"ContentPart","payload":{"type":"text","text":"for the parent"}}}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"StepBegin","payload":{"n":1}}}}}"#,
                Incoming::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"ToolCall","payload":{"function":{"name":"Grep","arguments":""}}}}}}"#,
                working("Grep"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"TurnEnd","payload":{}}}"#,
                Incoming::Nothing,
            ),
            (r#"{"jsonrpc":"2.0","id":"prompt-1","result":{"status":"finished"}}"#, over(TurnEnd::Finished)),
            (r#"{"jsonrpc":"2.0","id":"prompt-1","result":{"status":"finished"}}"#, Incoming::Nothing),
        ] {
            assert_eq!(wire.handle_line(line.as_bytes()), heard, "{line}");
        }
    }

    #[test]
    fn how_a_turn_ends() {
        use Trouble::*;
        let failed = |trouble, detail: &str| over(TurnEnd::Failed(Failure::new(trouble, detail)));
        let error = |code: i64, message: &str| {
            format!(r#""error":{{"code":{code},"message":{message:?},"data":null}}"#)
        };
        for (outcome, end) in [
            (r#""result":{"status":"finished"}"#.to_owned(), over(TurnEnd::Finished)),
            (r#""result":{"status":"cancelled"}"#.to_owned(), over(TurnEnd::Cancelled)),
            (
                r#""result":{"status":"max_steps_reached","steps":1000}"#.to_owned(),
                over(TurnEnd::StepLimit(1000)),
            ),
            (r#""result":{"status":"odd"}"#.to_owned(), failed(Internal, "Unknown end of a turn: odd")),
            (r#""result":null"#.to_owned(), failed(Internal, "Unknown end of a turn: ")),
            (error(-32001, "LLM is not set"), failed(NoModel, "LLM is not set (wire -32001)")),
            (error(-32002, "no image_in"), failed(Unsupported, "no image_in (wire -32002)")),
            (
                error(-32004, "Authentication failed."),
                failed(Internal, "Authentication failed. (wire -32004)"),
            ),
            (error(-32603, "MCPRuntimeError: x"), failed(Internal, "MCPRuntimeError: x (wire -32603)")),
            (
                error(-32000, "An agent turn is already in progress"),
                failed(Internal, "An agent turn is already in progress (wire -32000)"),
            ),
            (error(-32602, "Invalid parameters"), failed(Internal, "Invalid parameters (wire -32602)")),
        ] {
            let mut wire = ready();
            wire.encode_request(Request::Prompt(EngineInput::from_text("hi")));
            let line = format!(r#"{{"jsonrpc":"2.0","id":"prompt-1",{outcome}}}"#);
            assert_eq!(wire.handle_line(line.as_bytes()), end, "{line}");
        }
    }

    #[test]
    fn a_provider_error_is_told_by_its_words() {
        use Trouble::*;
        for (message, trouble) in [
            ("Error code: 401 - {'error': {'message': 'x'}}", Internal),
            ("Error code: 402 - {}", Internal),
            ("Error code: 403 - {'error': {'type': 'access_terminated_error'}}", Internal),
            ("Error code: 404", BadRequest),
            ("Error code: 413", BadRequest),
            ("Error code: 429 - {'error': {'message': 'mock error 429'}}", Internal),
            ("Error code: 400 - {'error': {'message': 'Connection'}}", BadRequest),
            ("Error code: 500 - {}", Overloaded),
            ("Error code: 503 - {}", Overloaded),
            ("Error code: 529 - {}", Overloaded),
            ("Error code: 302 - {}", Internal),
            ("Error code: x", Internal),
            ("Error code: 4", Internal),
            ("Connection error.", Unreachable),
            ("Error: Connection error. The model's answer broke off.", Unreachable),
            ("Request timed out.", Unreachable),
            ("Server disconnected without sending a response.", Unreachable),
            (
                "peer closed connection without sending complete message body (incomplete chunked read)",
                Unreachable,
            ),
            ("The API returned an empty response.", EmptyAnswer),
            ("The API returned a response containing only thinking content without any text", EmptyAnswer),
            ("Error: something else", Internal),
            ("", Internal),
        ] {
            let failure = prompt_failure(&RpcError { code: -32003, message: message.to_owned() });
            assert_eq!(failure.trouble, trouble, "{message}");
        }
    }

    #[test]
    fn every_question_of_the_engine_is_answered() {
        let mut wire = ready();
        for (line, answer) in [
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"a1","params":{"type":"ApprovalRequest","payload":{"id":"r1","tool_call_id":"Shell:1","sender":"Shell","action":"run command","description":"rm -rf /"}}}"#,
                json!({"jsonrpc":"2.0","id":"a1","result":{"request_id":"r1","response":"approve","feedback":""}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"q1","params":{"type":"QuestionRequest","payload":{"id":"q1","tool_call_id":"t","questions":[{"question":"Which?","options":[{"label":"A"},{"label":"B"}]},{"question":"Really?","options":[]}]}}}"#,
                json!({"jsonrpc":"2.0","id":"q1","result":{"request_id":"q1","answers":{"Which?":"A"}}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"h1","params":{"type":"HookRequest","payload":{"id":"h1","subscription_id":"s","event":"Stop"}}}"#,
                json!({"jsonrpc":"2.0","id":"h1","result":{"request_id":"h1","action":"allow","reason":""}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"t1","params":{"type":"ToolCallRequest","payload":{"id":"t1","name":"fly","arguments":"{}"}}}"#,
                json!({"jsonrpc":"2.0","id":"t1","error":{"code":-32601,"message":"There is no tool fly"}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"n1","params":{"type":"NewRequest","payload":{}}}"#,
                json!({"jsonrpc":"2.0","id":"n1","error":{"code":-32601,"message":"Unknown request: NewRequest"}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"a2","params":{"type":"ApprovalRequest","payload":{"id":[[],[]]}}}"#,
                json!({"jsonrpc":"2.0","id":"a2","result":{"request_id":null,"response":"approve","feedback":""}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"ping","id":7}"#,
                json!({"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Unknown request: ping"}}),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"request","id":"m1"}"#,
                json!({"jsonrpc":"2.0","id":"m1","error":{"code":-32601,"message":"Unknown request: "}}),
            ),
        ] {
            let Incoming::Answer(heard) = wire.handle_line(line.as_bytes()) else {
                panic!("unanswered: {line}");
            };
            assert_eq!(serde_json::from_str::<Value>(&heard).unwrap(), answer);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_let_go() {
        let mut wire = ready();
        for line in [
            "",
            "  \r",
            "{}",
            r#"{"jsonrpc":"2.0","method":"event"}"#,
            r#"{"jsonrpc":"2.0","method":"event","params":{"type":"NewEvent"}}"#,
            r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":7}}}"#,
            r#"{"jsonrpc":"2.0","method":"later"}"#,
            r#"{"jsonrpc":"2.0","method":"ping","id":[[],[]]}"#,
            r#"{"jsonrpc":"2.0","method":"request","id":{"a":1},"params":{"type":"ApprovalRequest","payload":{"id":"r"}}}"#,
            r#"{"jsonrpc":"2.0","id":"steer-9","error":{"code":-32000,"message":"No agent turn is in progress"}}"#,
            r#"{"jsonrpc":"2.0","id":"cancel-9","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Invalid JSON format"}}"#,
            r#"{"jsonrpc":"2.0","id":"prompt-77","result":{"status":"finished"}}"#,
        ] {
            assert_eq!(wire.handle_line(line.as_bytes()), Incoming::Nothing, "{line}");
        }
    }

    #[test]
    fn a_tool_of_the_host_is_called_and_its_answer_goes_back_under_the_same_id() {
        let mut wire = ready();
        let called = r#"{"jsonrpc":"2.0","method":"request","id":"t1","params":{"type":"ToolCallRequest","payload":{"id":"t1","name":"send_message","arguments":"{\"text\":\"hi\"}"}}}"#;
        let call = EngineToolCall {
            id: "t1".to_owned(),
            tool: HostTool::SendMessage,
            arguments: r#"{"text":"hi"}"#.to_owned(),
        };
        assert_eq!(wire.handle_line(called.as_bytes()), Incoming::Event(AgentEvent::ToolCalled(call)));
        let answer = ToolAnswer::done("Sent.");
        let said = line(wire.encode_request(Request::ToolAnswer { id: "t1".to_owned(), answer }));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            said,
            json!({"jsonrpc": "2.0", "id": "t1", "result": {"tool_call_id": "t1", "return_value":
                {"is_error": false, "output": "Sent.", "message": "", "display": []}}})
        );
        let refused = ToolAnswer::failed("Not allowed.");
        let said = line(wire.encode_request(Request::ToolAnswer { id: "t1".to_owned(), answer: refused }));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["result"]["return_value"]["message"], "Not allowed.", "an error needs a message");
        for lie in [r#""id":"t2""#, r#""id":7"#, r#""id":null"#] {
            let lied = called.replacen(r#""id":"t1""#, lie, 1);
            assert!(!matches!(wire.handle_line(lied.as_bytes()), Incoming::Event(_)), "{lied}");
        }
    }

    #[test]
    fn two_prompts_have_two_ends() {
        let mut wire = ready();
        wire.encode_request(Request::Prompt(EngineInput::from_text("one")));
        wire.encode_request(Request::Prompt(EngineInput::from_text("two")));
        let refused = wire.handle_line(br#"{"id":"prompt-2","error":{"code":-32000,"message":"busy"}}"#);
        assert_eq!(refused, over(TurnEnd::Failed(Failure::new(Trouble::Internal, "busy (wire -32000)"))));
        let finished = wire.handle_line(br#"{"id":"prompt-1","result":{"status":"finished"}}"#);
        assert_eq!(finished, over(TurnEnd::Finished));
    }

    #[test]
    fn an_engine_that_is_none_is_quoted() {
        const STUB: &str = "kimi-cli is no longer maintained. Please use the new Kimi Code CLI.";
        let never = |said: &str| EngineLoss::NeverReady { said: said.to_owned() };
        let hear = |line: &str| WireProtocol::start_handshake(Role::Member).0.handle_line(line.as_bytes());
        assert_eq!(hear(STUB), Incoming::Lost(never(STUB)));
        assert_eq!(hear("42"), Incoming::Lost(never("42")), "JSON, but no object");
        assert_eq!(hear(&"é".repeat(1000)), Incoming::Lost(never(&"é".repeat(SAID_MAX))));
        assert_eq!(
            hear(r#"{"id":"initialize","error":{"code":-32602,"message":"Invalid parameters"}}"#),
            Incoming::Lost(never("Invalid parameters"))
        );
        assert_eq!(
            WireProtocol::start_handshake(Role::Member).0.handle_stdout_end(b"half a li"),
            never("half a li")
        );
        assert_eq!(WireProtocol::start_handshake(Role::Member).0.handle_stdout_end(b""), never(""));

        let (mut wire, _) = WireProtocol::start_handshake(Role::Member);
        assert_eq!(wire.handle_line(b"{\"hello\":1}"), Incoming::Nothing);
        assert_eq!(wire.handle_line(b"Traceback"), Incoming::Lost(never("{\"hello\":1}\nTraceback")));
    }

    #[test]
    fn once_it_is_ready_an_engine_may_end_but_not_babble() {
        assert_eq!(ready().handle_stdout_end(b"{\"torn"), EngineLoss::Ended);
        let garbage = |said: &str| Incoming::Lost(EngineLoss::Garbage { said: said.to_owned() });
        assert_eq!(ready().handle_line(b"Segmentation fault\xff"), garbage("Segmentation fault\u{fffd}"));
        assert_eq!(ready().handle_line(b"[1,2]"), garbage("[1,2]"));
    }

    #[test]
    fn a_line_that_is_too_long_may_be_missed_where_it_is_an_event() {
        let event = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolResult","payload":{"#;
        assert_eq!(ready().handle_long_line_start(event), Incoming::Nothing);
        let receipt = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","payload":{"#;
        assert_eq!(ready().handle_long_line_start(receipt), Incoming::Event(AgentEvent::SteerTaken));
        let request = br#"{"jsonrpc":"2.0","method":"request","id":"x"#;
        assert!(matches!(
            ready().handle_long_line_start(request),
            Incoming::Lost(EngineLoss::Garbage { .. })
        ));
        let early = WireProtocol::start_handshake(Role::Member).0.handle_long_line_start(event);
        assert!(
            matches!(early, Incoming::Lost(EngineLoss::NeverReady { said }) if said.starts_with("{\"jsonrpc"))
        );
    }

    /// JSON that looks like the protocol, more or less.
    fn almost_protocol() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "event",
            "request",
            "ContentPart",
            "text",
            "StepBegin",
            "ToolCall",
            "SubagentEvent",
            "QuestionRequest",
            "ApprovalRequest",
            "initialize",
            "prompt-1",
            "finished",
            "Error code: 5",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            word.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let key = prop::sample::select(vec![
            "jsonrpc",
            "method",
            "id",
            "params",
            "type",
            "payload",
            "result",
            "error",
            "code",
            "message",
            "status",
            "event",
            "questions",
            "options",
            "question",
            "label",
            "function",
            "name",
            "text",
        ]);
        let value = leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        });
        value.prop_map(|value| value.to_string())
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(lines in prop::collection::vec(
            prop_oneof![almost_protocol().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..80)], 0..20,
        )) {
            let (mut wire, _) = WireProtocol::start_handshake(Role::Member);
            for line in &lines {
                match wire.handle_line(line) {
                    Incoming::Lost(EngineLoss::NeverReady { said } | EngineLoss::Garbage { said }) => {
                        prop_assert!(said.chars().count() <= SAID_MAX);
                    }
                    Incoming::Answer(answer) => prop_assert!(!answer.contains('\n')),
                    Incoming::Nothing | Incoming::Event(_) | Incoming::Events(..) | Incoming::Lost(EngineLoss::Ended) => {}
                }
                wire.handle_long_line_start(line);
            }
        }

        #[test]
        fn nothing_that_an_engine_says_is_a_trouble_of_the_account(
            code in prop_oneof![-32010_i64..-31990, any::<i64>()],
            words in prop_oneof!["Error code: [0-9]{3}.{0,20}", any::<String>()],
        ) {
            let mut wire = ready();
            wire.encode_request(Request::Prompt(EngineInput::from_text("hi")));
            let error = json!({"id": "prompt-1", "error": {"code": code, "message": words}}).to_string();
            let Incoming::Event(AgentEvent::TurnOver(TurnEnd::Failed(failure))) = wire.handle_line(error.as_bytes()) else {
                panic!("{error} ends the turn");
            };
            prop_assert_eq!(Outage::from_trouble(failure.trouble), None);
        }

        #[test]
        fn whatever_is_prompted_goes_as_one_line(text in any::<String>()) {
            let line = line(ready().encode_request(Request::Prompt(EngineInput::from_text(&text))));
            prop_assert!(!line.contains('\n'));
            let back: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back["params"]["user_input"].as_str(), Some(text.as_str()));
        }
    }
}
