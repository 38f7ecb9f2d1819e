//! kimi-cli's wire protocol 1.10, as a pure machine.
//!
//! Newline-delimited JSON-RPC 2.0. The engine's own requests are always answered, whatever they are: an
//! unanswered one holds its turn for ever. Source: kimi-cli 1.51 `wire/jsonrpc.py`, `wire/types.py` and
//! `wire/server.py`, and runs against it. Never does I/O; message text is logged at DEBUG at most.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use tracing::{debug, trace};

use super::lines::{Asked, Conversation, Heard};
use super::said::{append_cut, cut, is_id};
use crate::agent::{AgentEvent, Gone, Input, Request, TurnEnd};
use crate::types::{Failure, Trouble};

/// The version that we were written against; the engine does not compare it.
const PROTOCOL_VERSION: &str = "1.10";

/// How every event begins: kimi-cli writes the fields in this order. Tells a line that is too long to be read,
/// but may be missed, from one that may not.
const EVENT_BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"event","#;

/// How the receipt of a steer begins: it holds the whole steer, pictures included, and must not be missed.
const RECEIPT_BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","#;

const GREETING_ID: &str = "initialize";

/// Code of JSON-RPC for "no such method".
const METHOD_NOT_FOUND: i64 = -32601;

/// What we know about a running engine.
#[derive(Debug)]
pub struct Wire {
    stage: Stage,
    /// Ids of the prompts that have no answer yet: one, or more where the session asks too early and the engine
    /// refuses.
    prompts: Vec<String>,
    requests: u64,
}

#[derive(Debug)]
enum Stage {
    /// The engine has not yet answered the greeting; what it has said instead, cut short.
    Greeted {
        said: String,
    },
    Ready,
}

impl Wire {
    /// Begins with this line.
    ///
    /// What this client can do is said in full: the engine hides from the model the tools that need more.
    pub fn begin() -> (Self, String) {
        let greeting = request(
            GREETING_ID,
            "initialize",
            json!({
                "protocol_version": PROTOCOL_VERSION,
                "client": {"name": "nanokimi", "version": env!("CARGO_PKG_VERSION")},
                "capabilities": {"supports_question": false, "supports_plan_mode": false},
            }),
        );
        (Self { stage: Stage::Greeted { said: String::new() }, prompts: Vec::new(), requests: 0 }, greeting)
    }

    fn garbage(&mut self, line: &[u8]) -> Gone {
        let mut garbage = String::new();
        append_cut(&mut garbage, line);
        match &mut self.stage {
            Stage::Ready => Gone::Garbage { said: garbage },
            Stage::Greeted { said } if said.is_empty() => Gone::NeverReady { said: garbage },
            Stage::Greeted { said } => Gone::NeverReady { said: std::mem::take(said) },
        }
    }

    fn hear_answer(&mut self, id: &str, outcome: Result<Value, RpcError>) -> Heard {
        if id == GREETING_ID {
            return match outcome {
                Ok(_) => {
                    self.stage = Stage::Ready;
                    Heard::Event(AgentEvent::Ready)
                }
                Err(error) => Heard::Lost(Gone::NeverReady { said: cut(&error.message) }),
            };
        }
        if let Some(position) = self.prompts.iter().position(|prompt| prompt == id) {
            self.prompts.remove(position);
            return Heard::Event(AgentEvent::TurnOver(match outcome {
                Ok(result) => turn_end(&result),
                Err(error) => TurnEnd::Failed(failure(&error)),
            }));
        }
        // An accepted steer may still be lost (`AgentEvent::SteerTaken` tells), and a refused steer or cancel
        // came after its turn.
        if let Err(error) = outcome {
            debug!(id, code = error.code, said = cut(&error.message), "The engine refuses a request");
        }
        Heard::Nothing
    }
}

impl Conversation for Wire {
    fn ask(&mut self, asked: Request) -> Asked {
        self.requests += 1;
        let id = |method: &str| format!("{method}-{}", self.requests);
        match asked {
            Request::Prompt(input) => {
                let id = id("prompt");
                let line = request(&id, "prompt", json!({"user_input": user_input(input)}));
                self.prompts.push(id);
                Asked::Line(line)
            }
            Request::Steer(input) => {
                Asked::Line(request(&id("steer"), "steer", json!({"user_input": user_input(input)})))
            }
            Request::Cancel => Asked::Line(request(&id("cancel"), "cancel", json!({}))),
            Request::Close => Asked::Close,
        }
    }

    fn hear(&mut self, line: &[u8]) -> Heard {
        if line.trim_ascii().is_empty() {
            return Heard::Nothing;
        }
        if let Stage::Greeted { said } = &mut self.stage {
            append_cut(said, line);
        }
        match parse(line) {
            Ok(Incoming::Event(event)) => hear_event(event),
            Ok(Incoming::Question { id, question }) => Heard::Answer(answer(&id, question)),
            Ok(Incoming::Answer { id, outcome }) => self.hear_answer(&id, outcome),
            Ok(Incoming::Other) => Heard::Nothing,
            Err(NotTheProtocol) => Heard::Lost(self.garbage(line)),
        }
    }

    /// What we need of events comes in small pieces, but a tool's result holds the picture that the agent has
    /// looked at (`ReadMediaFile`: up to 100 MB, in Base64): such an event is let go.
    fn hear_beginning(&mut self, beginning: &[u8]) -> Heard {
        if matches!(self.stage, Stage::Ready) && beginning.starts_with(RECEIPT_BEGINNING) {
            return Heard::Event(AgentEvent::SteerTaken);
        }
        if matches!(self.stage, Stage::Ready) && beginning.starts_with(EVENT_BEGINNING) {
            debug!("An event of the engine is too long and was skipped");
            return Heard::Nothing;
        }
        Heard::Lost(self.garbage(beginning))
    }

    fn end(mut self, rest: &[u8]) -> Gone {
        match &mut self.stage {
            Stage::Ready => Gone::Ended,
            Stage::Greeted { said } => {
                append_cut(said, rest);
                Gone::NeverReady { said: std::mem::take(said) }
            }
        }
    }
}

fn hear_event(event: Event) -> Heard {
    Heard::Event(match event {
        Event::Text(text) if text.is_empty() => return Heard::Nothing,
        Event::Text(text) => AgentEvent::Said(text),
        Event::StepBegin => AgentEvent::StepBegan,
        Event::ToolCall(tool) => AgentEvent::Working { tool },
        Event::SteerInput => AgentEvent::SteerTaken,
        Event::Other(kind) => {
            trace!(kind, "The engine reports what nobody needs");
            return Heard::Nothing;
        }
    })
}

/// One line of the engine.
#[derive(Debug, PartialEq)]
enum Incoming {
    Event(Event),
    /// The engine asks us; `id` goes back as it came.
    Question {
        id: Value,
        question: Question,
    },
    /// The engine answers us.
    Answer {
        id: String,
        outcome: Result<Value, RpcError>,
    },
    /// JSON that is none of these.
    Other,
}

/// What happens in a turn, as far as it matters here.
#[derive(Debug, PartialEq)]
enum Event {
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
enum Question {
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
    /// A tool of ours, of which there is none yet.
    Tool(String),
    Unknown(String),
}

#[derive(Debug, PartialEq)]
struct RpcError {
    code: i64,
    message: String,
}

#[derive(Debug)]
struct NotTheProtocol;

/// Tells what a line is. JSON objects that we do not know are [`Incoming::Other`]: a later engine may say more.
fn parse(line: &[u8]) -> Result<Incoming, NotTheProtocol> {
    let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
        return Err(NotTheProtocol);
    };
    let method = message.remove("method");
    let id = message.remove("id").filter(is_id);
    let params = message.remove("params").unwrap_or_default();
    Ok(match (method.as_ref().map(text), id) {
        (Some("event"), None) => Incoming::Event(event(&params)),
        (Some("request"), Some(id)) => Incoming::Question { id, question: question(&params) },
        (Some(method), Some(id)) => Incoming::Question { id, question: Question::Unknown(method.to_owned()) },
        (None, Some(Value::String(id))) => match (message.remove("error"), message.remove("result")) {
            (Some(error), _) if !error.is_null() => Incoming::Answer { id, outcome: Err(rpc_error(&error)) },
            (_, result) => Incoming::Answer { id, outcome: Ok(result.unwrap_or_default()) },
        },
        (None, None) if message.contains_key("error") => {
            let error = rpc_error(&message["error"]);
            debug!(
                code = error.code,
                said = cut(&error.message),
                "The engine does not understand a line of ours"
            );
            Incoming::Other
        }
        _ => {
            debug!("The engine says something that is not of its protocol");
            Incoming::Other
        }
    })
}

/// Reads `{type, payload}` of an event.
fn event(params: &Value) -> Event {
    let payload = &params["payload"];
    match text(&params["type"]) {
        "ContentPart" => match text(&payload["type"]) {
            "text" => Event::Text(text(&payload["text"]).to_owned()),
            kind => Event::Other(format!("ContentPart {kind}")),
        },
        "StepBegin" => Event::StepBegin,
        "ToolCall" => Event::ToolCall(cut(text(&payload["function"]["name"]))),
        "SteerInput" => Event::SteerInput,
        // What a subagent says and steps through is not the turn's; what it works with is.
        "SubagentEvent" => match event(&payload["event"]) {
            Event::ToolCall(tool) => Event::ToolCall(tool),
            Event::Text(_) | Event::StepBegin | Event::SteerInput | Event::Other(_) => {
                Event::Other("SubagentEvent".to_owned())
            }
        },
        kind => Event::Other(kind.to_owned()),
    }
}

/// Reads `{type, payload}` of a request.
fn question(params: &Value) -> Question {
    let payload = &params["payload"];
    let request_id = Some(&payload["id"]).filter(|id| is_id(id)).cloned().unwrap_or_default();
    match text(&params["type"]) {
        "ApprovalRequest" => Question::Approval { request_id },
        "QuestionRequest" => Question::Choice { request_id, answers: first_options(payload) },
        "HookRequest" => Question::Hook { request_id },
        "ToolCallRequest" => Question::Tool(text(&payload["name"]).to_owned()),
        kind => Question::Unknown(kind.to_owned()),
    }
}

fn first_options(payload: &Value) -> Map<String, Value> {
    let questions = payload["questions"].as_array().map_or(&[][..], Vec::as_slice);
    questions
        .iter()
        .filter_map(|question| {
            let first = question["options"][0]["label"].as_str()?;
            Some((question["question"].as_str()?.to_owned(), first.into()))
        })
        .collect()
}

fn rpc_error(error: &Value) -> RpcError {
    RpcError { code: error["code"].as_i64().unwrap_or_default(), message: text(&error["message"]).to_owned() }
}

/// Answers so that the turn goes on. The container is the limit of what the agent may do, so it is never asked
/// for leave; nobody is there to be asked anything else.
fn answer(id: &Value, question: Question) -> String {
    let outcome = match question {
        Question::Approval { request_id } => {
            Ok(json!({"request_id": request_id, "response": "approve", "feedback": ""}))
        }
        Question::Choice { request_id, answers } => Ok(json!({"request_id": request_id, "answers": answers})),
        Question::Hook { request_id } => {
            Ok(json!({"request_id": request_id, "action": "allow", "reason": ""}))
        }
        Question::Tool(name) => Err(format!("There is no tool {name}")),
        Question::Unknown(kind) => {
            debug!(kind, "The engine asks something unknown");
            Err(format!("Unknown request: {kind}"))
        }
    };
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(message) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": METHOD_NOT_FOUND, "message": message}})
        }
    }
    .to_string()
}

/// Plain text, or a list of content parts where there are pictures: the text first, which says whose they are.
fn user_input(input: Input) -> Value {
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

/// Ids must be strings: kimi-cli answers a number with "Invalid request" and no id.
fn request(id: &str, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "id": id, "params": params}).to_string()
}

fn turn_end(result: &Value) -> TurnEnd {
    match text(&result["status"]) {
        "finished" => TurnEnd::Finished,
        "cancelled" => TurnEnd::Cancelled,
        "max_steps_reached" => TurnEnd::StepLimit(result["steps"].as_u64().unwrap_or_default()),
        status => TurnEnd::Failed(Failure::new(
            Trouble::Internal,
            format!("Unknown end of a turn: {}", cut(status)),
        )),
    }
}

/// Tells the cause of a refused prompt by its code; behind "chat provider error" stands an HTTP status in words. It is
/// never one of the account, which is every chat's: what Kimi says of that the door has heard itself.
fn failure(error: &RpcError) -> Failure {
    let trouble = match error.code {
        -32001 => Trouble::NoModel,
        -32002 => Trouble::Unsupported,
        -32003 => provider_trouble(&error.message),
        // -32004 is a login that is missing or refused.
        _ => Trouble::Internal,
    };
    Failure::new(trouble, format!("{} (wire {})", cut(&error.message), error.code))
}

fn provider_trouble(message: &str) -> Trouble {
    match http_status(message) {
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
fn http_status(message: &str) -> Option<u16> {
    let (_, after) = message.split_once("Error code: ")?;
    after.get(..3)?.parse().ok()
}

/// The string in a value, or nothing.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::said::SAID_MAX;
    use super::*;
    use crate::agent::Image;
    use crate::types::Outage;
    use proptest::prelude::*;

    fn ready() -> Wire {
        let (mut conversation, _) = Wire::begin();
        let heard = conversation.hear(br#"{"jsonrpc":"2.0","id":"initialize","result":{}}"#);
        assert_eq!(heard, Heard::Event(AgentEvent::Ready));
        conversation
    }

    fn line(asked: Asked) -> String {
        let Asked::Line(line) = asked else { panic!("{asked:?} is no line") };
        line
    }

    fn said(text: &str) -> Heard {
        Heard::Event(AgentEvent::Said(text.to_owned()))
    }

    fn over(end: TurnEnd) -> Heard {
        Heard::Event(AgentEvent::TurnOver(end))
    }

    fn working(tool: &str) -> Heard {
        Heard::Event(AgentEvent::Working { tool: tool.to_owned() })
    }

    #[test]
    fn the_greeting_says_who_we_are_and_what_we_cannot() {
        let (_, greeting) = Wire::begin();
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        assert_eq!(
            greeting,
            json!({"jsonrpc": "2.0", "method": "initialize", "id": "initialize", "params": {
                "protocol_version": "1.10",
                "client": {"name": "nanokimi", "version": env!("CARGO_PKG_VERSION")},
                "capabilities": {"supports_question": false, "supports_plan_mode": false},
            }})
        );
    }

    #[test]
    fn every_request_is_one_line_with_an_id_of_its_own() {
        let (mut conversation, _) = Wire::begin();
        let mut ask = |asked| line(conversation.ask(asked));
        insta::assert_snapshot!(
            [
                ask(Request::Prompt(Input::text("<messages>\n\"hi\" 👋</messages>"))),
                ask(Request::Steer(Input::text("more"))),
                ask(Request::Cancel),
                ask(Request::Prompt(Input::text("again"))),
            ]
            .join("\n"),
            @r#"
        {"jsonrpc":"2.0","method":"prompt","id":"prompt-1","params":{"user_input":"<messages>\n\"hi\" 👋</messages>"}}
        {"jsonrpc":"2.0","method":"steer","id":"steer-2","params":{"user_input":"more"}}
        {"jsonrpc":"2.0","method":"cancel","id":"cancel-3","params":{}}
        {"jsonrpc":"2.0","method":"prompt","id":"prompt-4","params":{"user_input":"again"}}
        "#
        );
        assert_eq!(conversation.ask(Request::Close), Asked::Close);
    }

    #[test]
    fn pictures_follow_the_text_as_parts() {
        let input = || Input {
            text: "look".to_owned(),
            images: vec![
                Image { mime: "image/png", bytes: b"\x89PNG".to_vec() },
                Image { mime: "image/jpeg", bytes: vec![0xff, 0xd8, 0xff] },
            ],
        };
        for request in [Request::Prompt(input()), Request::Steer(input())] {
            let line: Value = serde_json::from_str(&line(ready().ask(request))).unwrap();
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
        let mut conversation = ready();
        conversation.ask(Request::Prompt(Input::text("look")));
        conversation.ask(Request::Steer(Input::text("hurry")));
        for (line, heard) in [
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"TurnBegin","payload":{"user_input":"look"}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepBegin","payload":{"n":1}}}"#,
                Heard::Event(AgentEvent::StepBegan),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"think","think":"hmm","encrypted":null}}}"#,
                Heard::Nothing,
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
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"image_url","image_url":{"url":"data:…","id":null}}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolCall","payload":{"type":"function","id":"Shell:1","function":{"name":"Shell","arguments":""},"extras":null}}}"#,
                working("Shell"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolCallPart","payload":{"arguments_part":"{\"command\":\"ls\"}"}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StatusUpdate","payload":{"context_usage":0.0144,"message_id":"chatcmpl-59cd800521e1"}}}"#,
                Heard::Nothing,
            ),
            (r#"{"jsonrpc":"2.0","id":"steer-2","result":{"status":"steered"}}"#, Heard::Nothing),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolResult","payload":{"tool_call_id":"Shell:1","return_value":{"is_error":false,"output":"a"}}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","payload":{"user_input":"hurry"}}}"#,
                Heard::Event(AgentEvent::SteerTaken),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepBegin","payload":{"n":2}}}"#,
                Heard::Event(AgentEvent::StepBegan),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepRetry","payload":{"n":2,"next_attempt":2,"max_attempts":3,"wait_s":0.6,"error_type":"APIStatusError","status_code":503}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"ContentPart","payload":{"type":"text","text":"for the parent"}}}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"StepBegin","payload":{"n":1}}}}}"#,
                Heard::Nothing,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"SubagentEvent","payload":{"agent_id":"a1","event":{"type":"ToolCall","payload":{"function":{"name":"Grep","arguments":""}}}}}}"#,
                working("Grep"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"TurnEnd","payload":{}}}"#,
                Heard::Nothing,
            ),
            (r#"{"jsonrpc":"2.0","id":"prompt-1","result":{"status":"finished"}}"#, over(TurnEnd::Finished)),
            (r#"{"jsonrpc":"2.0","id":"prompt-1","result":{"status":"finished"}}"#, Heard::Nothing),
        ] {
            assert_eq!(conversation.hear(line.as_bytes()), heard, "{line}");
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
            let mut conversation = ready();
            conversation.ask(Request::Prompt(Input::text("hi")));
            let line = format!(r#"{{"jsonrpc":"2.0","id":"prompt-1",{outcome}}}"#);
            assert_eq!(conversation.hear(line.as_bytes()), end, "{line}");
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
            let failure = failure(&RpcError { code: -32003, message: message.to_owned() });
            assert_eq!(failure.trouble, trouble, "{message}");
        }
    }

    #[test]
    fn every_question_of_the_engine_is_answered() {
        let mut conversation = ready();
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
                r#"{"jsonrpc":"2.0","method":"request","id":"t1","params":{"type":"ToolCallRequest","payload":{"id":"t1","name":"send_message","arguments":"{}"}}}"#,
                json!({"jsonrpc":"2.0","id":"t1","error":{"code":-32601,"message":"There is no tool send_message"}}),
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
            let Heard::Answer(heard) = conversation.hear(line.as_bytes()) else {
                panic!("unanswered: {line}");
            };
            assert_eq!(serde_json::from_str::<Value>(&heard).unwrap(), answer);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_let_go() {
        let mut conversation = ready();
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
            assert_eq!(conversation.hear(line.as_bytes()), Heard::Nothing, "{line}");
        }
    }

    #[test]
    fn two_prompts_have_two_ends() {
        let mut conversation = ready();
        conversation.ask(Request::Prompt(Input::text("one")));
        conversation.ask(Request::Prompt(Input::text("two")));
        let refused = conversation.hear(br#"{"id":"prompt-2","error":{"code":-32000,"message":"busy"}}"#);
        assert_eq!(refused, over(TurnEnd::Failed(Failure::new(Trouble::Internal, "busy (wire -32000)"))));
        let finished = conversation.hear(br#"{"id":"prompt-1","result":{"status":"finished"}}"#);
        assert_eq!(finished, over(TurnEnd::Finished));
    }

    #[test]
    fn an_engine_that_is_none_is_quoted() {
        const STUB: &str = "kimi-cli is no longer maintained. Please use the new Kimi Code CLI.";
        let never = |said: &str| Gone::NeverReady { said: said.to_owned() };
        let hear = |line: &str| Wire::begin().0.hear(line.as_bytes());
        assert_eq!(hear(STUB), Heard::Lost(never(STUB)));
        assert_eq!(hear("42"), Heard::Lost(never("42")), "JSON, but no object");
        assert_eq!(hear(&"é".repeat(1000)), Heard::Lost(never(&"é".repeat(SAID_MAX))));
        assert_eq!(
            hear(r#"{"id":"initialize","error":{"code":-32602,"message":"Invalid parameters"}}"#),
            Heard::Lost(never("Invalid parameters"))
        );
        assert_eq!(Wire::begin().0.end(b"half a li"), never("half a li"));
        assert_eq!(Wire::begin().0.end(b""), never(""));

        let (mut conversation, _) = Wire::begin();
        assert_eq!(conversation.hear(b"{\"hello\":1}"), Heard::Nothing);
        assert_eq!(conversation.hear(b"Traceback"), Heard::Lost(never("{\"hello\":1}\nTraceback")));
    }

    #[test]
    fn once_it_is_ready_an_engine_may_end_but_not_babble() {
        assert_eq!(ready().end(b"{\"torn"), Gone::Ended);
        let garbage = |said: &str| Heard::Lost(Gone::Garbage { said: said.to_owned() });
        assert_eq!(ready().hear(b"Segmentation fault\xff"), garbage("Segmentation fault\u{fffd}"));
        assert_eq!(ready().hear(b"[1,2]"), garbage("[1,2]"));
    }

    #[test]
    fn a_line_that_is_too_long_may_be_missed_where_it_is_an_event() {
        let event = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolResult","payload":{"#;
        assert_eq!(ready().hear_beginning(event), Heard::Nothing);
        let receipt = br#"{"jsonrpc":"2.0","method":"event","params":{"type":"SteerInput","payload":{"#;
        assert_eq!(ready().hear_beginning(receipt), Heard::Event(AgentEvent::SteerTaken));
        let request = br#"{"jsonrpc":"2.0","method":"request","id":"x"#;
        assert!(matches!(ready().hear_beginning(request), Heard::Lost(Gone::Garbage { .. })));
        let early = Wire::begin().0.hear_beginning(event);
        assert!(matches!(early, Heard::Lost(Gone::NeverReady { said }) if said.starts_with("{\"jsonrpc")));
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
            let (mut conversation, _) = Wire::begin();
            for line in &lines {
                match conversation.hear(line) {
                    Heard::Lost(Gone::NeverReady { said } | Gone::Garbage { said }) => {
                        prop_assert!(said.chars().count() <= SAID_MAX);
                    }
                    Heard::Answer(answer) => prop_assert!(!answer.contains('\n')),
                    Heard::Nothing | Heard::Event(_) | Heard::Events(..) | Heard::Lost(Gone::Ended) => {}
                }
                conversation.hear_beginning(line);
            }
        }

        #[test]
        fn nothing_that_an_engine_says_is_a_trouble_of_the_account(
            code in prop_oneof![-32010_i64..-31990, any::<i64>()],
            words in prop_oneof!["Error code: [0-9]{3}.{0,20}", any::<String>()],
        ) {
            let mut conversation = ready();
            conversation.ask(Request::Prompt(Input::text("hi")));
            let error = json!({"id": "prompt-1", "error": {"code": code, "message": words}}).to_string();
            let Heard::Event(AgentEvent::TurnOver(TurnEnd::Failed(failure))) = conversation.hear(error.as_bytes()) else {
                panic!("{error} ends the turn");
            };
            prop_assert_eq!(Outage::of(failure.trouble), None);
        }

        #[test]
        fn whatever_is_prompted_goes_as_one_line(text in any::<String>()) {
            let line = line(ready().ask(Request::Prompt(Input::text(&text))));
            prop_assert!(!line.contains('\n'));
            let back: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back["params"]["user_input"].as_str(), Some(text.as_str()));
        }
    }
}
