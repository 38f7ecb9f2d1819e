//! The targets, and what has to hold whatever they are given.

use std::io::Cursor;
use std::sync::LazyLock;

use hyper::{Method, Uri};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use tokio::io::sink;
use tokio::runtime::{Builder, Runtime};

use crate::agent::{Agent, AgentEvent, Engine, EngineInput, Request};
use crate::egress::forward_proxy::public_address::special_address_kind;
use crate::egress::forward_proxy::target::{Host, ProxyMethod, ProxyTarget};
use crate::egress::request_check::{NamedModel, check_model_request};
use crate::gateway::responses::{ResponseEvents, to_chat_completions};
use crate::relay::meter::{Meter, MeterReading, StreamEnding};
use crate::render::prompt::{FileLocation, Prompt, PromptAuthor, PromptFile, PromptMessage, PromptQuote};
use crate::render::{AnswerPart, FILES_MAX, MESSAGE_LIMIT_CHARS, MentionablePerson, render_answer};
use crate::types::{Forwarded, GroupName, HostName, MediaKind, MessageId, Role, SenderId, WebPolicy};

/// More than the messages of any answer: ten files, texts around them, a reaction.
const PARTS_BOUND: usize = 2 * FILES_MAX + 1;
/// More than what people wrote in any prompt, in characters, and more than the host's words around each message.
const PROMPT_BOUND_CHARS: usize = 50_000;
const PROMPT_BOUND_CHARS_EACH: usize = 3_000;

/// What an agent says, as its chat reads it.
pub fn answer(data: &[u8]) {
    const PREFIX: &str = "Kai: ";
    let said = String::from_utf8_lossy(data);
    let people =
        [("Ana", "34600000001@s.whatsapp.net"), ("Ana María", "100000000000003@lid"), ("J_.", "1@lid")]
            .map(|(name, id)| MentionablePerson { name: name.to_owned(), id: SenderId::new(id) });
    let parts = render_answer(&said, PREFIX, &people).parts;
    assert!(parts.len() <= PARTS_BOUND, "{} messages", parts.len());
    let mut words = String::new();
    for part in &parts {
        let (text, is_text) = match part {
            AnswerPart::Text { text, .. } => (text, true),
            AnswerPart::File { caption, .. } => (caption, false),
            AnswerPart::Reaction(emoji) => (emoji, false),
        };
        let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!text.contains(acts), "a control character: {text:?}");
        assert!(text.chars().count() <= MESSAGE_LIMIT_CHARS, "too long: {text:?}");
        assert!(!is_text || text.starts_with(PREFIX), "who says that? {text:?}");
        words.push_str(text.strip_prefix(PREFIX).unwrap_or(text));
    }
    // What holds no tag, link, table, mention or entity keeps its words.
    if said.len() < MESSAGE_LIMIT_CHARS / 2 && !said.contains(['<', '◁', '[', '|', '@', '&', '\u{fffd}']) {
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let has_words = said.chars().any(char::is_alphanumeric);
        assert!(!has_words || letters(&words) == letters(&said), "{said:?} became {words:?}");
    }
}

/// What people write, as the agent reads it.
pub fn prompt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let zone = TimeZone::get(lines.next().unwrap_or_default()).unwrap_or(TimeZone::UTC);
    let names = [lines.next().unwrap_or_default().to_owned(), "Kai".to_owned()];
    let messages: Vec<PromptMessage> = lines.take(200).map(message_of_line).collect();
    let (earlier, now) = messages.split_at(messages.len() / 2);
    let prompt = Prompt { zone: &zone, names: &names, earlier, messages: now };
    let told = prompt.render_prompt();
    assert!(told.starts_with("<context") && told.ends_with("</messages>"), "{told:?}");
    // Nobody's words make an element: there are as many as there are messages.
    let opened = told.matches("<message ").count() + told.matches("<yours ").count();
    let closed = told.matches("</message>").count() + told.matches("</yours>").count();
    assert_eq!((opened, closed), (messages.len(), messages.len()), "{told:?}");
    assert!(!told.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{told:?}");
    let bound = PROMPT_BOUND_CHARS + messages.len() * PROMPT_BOUND_CHARS_EACH;
    assert!(told.chars().count() <= bound, "{} characters", told.chars().count());
    assert!(prompt.truncated_texts().iter().all(|(place, _)| *place < now.len()));
}

/// A message of its sender, id, text, quoted text and file's name, parted by bars; Kai's own has no sender.
fn message_of_line(line: &str) -> PromptMessage {
    let mut fields = line.split('|').map(str::to_owned);
    let mut field = || fields.next();
    let name = field().unwrap_or_default();
    let id = MessageId::new(field().unwrap_or_default());
    let text = field().unwrap_or_default();
    let (quoted, file_name) = (field(), field());
    let author = if name.is_empty() {
        PromptAuthor::Kai
    } else {
        PromptAuthor::Person { id: name.clone(), name: name.clone() }
    };
    let quote = quoted.map(|text| PromptQuote {
        id: id.clone(),
        author: author.clone(),
        is_claimed: text.len() % 2 == 0,
        whole: Some(name.clone()),
        file: None,
        text,
    });
    let file = file_name.map(|name| PromptFile {
        kind: MediaKind::Image,
        whereabouts: FileLocation::Missing { reason: name.clone() },
        words: None,
        name: Some(name),
    });
    let forwarded = [Forwarded::No, Forwarded::Once, Forwarded::Many][text.len() % 3];
    PromptMessage { id, author, text, sent_at: Timestamp::UNIX_EPOCH, forwarded, quote, file, whole: None }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// What an engine writes on its stdout, both kinds of it.
pub fn engine(data: &[u8]) {
    let Some((first, said)) = data.split_first() else { return };
    let engine = if first % 2 == 0 { Engine::KimiCli } else { Engine::KimiCode };
    let events = RUNTIME.block_on(async {
        let (agent, mut events) =
            Agent::start_protocol(engine, Role::Main, sink(), Cursor::new(said.to_vec()));
        for request in [
            Request::Prompt(EngineInput::from_text("<context")),
            Request::Steer(EngineInput::from_text("<context")),
            Request::Compact,
            Request::Cancel,
        ] {
            agent.queue_request(request);
        }
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(event);
        }
        heard
    });
    let gone = events.iter().filter(|event| matches!(event, AgentEvent::Gone(_))).count();
    assert_eq!(gone, 1, "{events:?}");
    assert!(matches!(events.last(), Some(AgentEvent::Gone(_))), "{events:?}");
    let words: usize = events
        .iter()
        .map(|event| if let AgentEvent::AnswerText(text) = event { text.len() } else { 0 })
        .sum();
    // A byte that is no UTF-8 becomes three.
    assert!(words <= 3 * said.len(), "{words} bytes of {}", said.len());
}

/// What an agent asks of the model. Nothing that a plain reader of JSON finds in it escapes the judge.
pub fn asked(data: &[u8]) {
    const MODEL: &str = "kimi-for-coding";
    let asked = check_model_request(data, &[MODEL.to_owned()]);
    let Ok(Value::Object(body)) = serde_json::from_slice(data) else { return };
    if asked.model == NamedModel::Configured {
        assert_eq!(body.get("model").and_then(Value::as_str), Some(MODEL));
    }
    if !asked.leads_kimi_to_the_web {
        assert!(body.get("tools").is_none_or(are_functions), "{body:?}");
        assert!(body.get("messages").is_none_or(|messages| stay_here(messages, "")), "{body:?}");
        assert!(!body.keys().any(|name| name.contains(['$', '_']) && name.contains("search")), "{body:?}");
    }
}

fn are_functions(tools: &Value) -> bool {
    let is_function = |tool: &Value| {
        let name = tool.pointer("/function/name").and_then(Value::as_str);
        tool["type"] == "function" && !name.is_some_and(|name| name.starts_with('$'))
    };
    tools.is_null() || tools.as_array().is_some_and(|tools| tools.iter().all(is_function))
}

/// Whether what stands in messages, under a field of that name, leads nowhere.
fn stay_here(value: &Value, field: &str) -> bool {
    match value {
        Value::String(text) if field.ends_with("url") => !text.starts_with("http"),
        Value::String(text) => {
            ["content", "text", "reasoning_content", "arguments"].contains(&field)
                || !text.starts_with("http:")
        }
        Value::Array(values) => values.iter().all(|value| stay_here(value, field)),
        Value::Object(fields) => fields.iter().all(|(name, value)| match name.as_str() {
            "tools" => are_functions(value),
            name => stay_here(value, name),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// What the Kimi API answers, however it is cut.
pub fn meter(data: &[u8]) {
    let [kind, cut, body @ ..] = data else { return };
    let content_type =
        ["text/event-stream", "application/json", "text/event-stream; charset=utf-8", "text/plain"]
            [usize::from(kind % 4)];
    let read = |piece_bytes: usize| -> (Vec<MeterReading>, StreamEnding) {
        let mut meter = Meter::new(content_type);
        let mut seen: Vec<MeterReading> =
            body.chunks(piece_bytes.max(1)).flat_map(|piece| meter.read_piece(piece)).collect();
        let (last, ending) = meter.finish_reading();
        seen.extend(last);
        (seen, ending)
    };
    let (whole, parted) = (read(body.len()), read(usize::from(*cut)));
    assert_eq!(whole, parted, "what an answer tells depends on how it was cut");
}

/// What a program in a container asks of the proxy: `METHOD target`.
pub fn proxy(data: &[u8]) {
    let mut words = data.splitn(2, |byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return };
    if !ProxyTarget::is_proxy_form(&method, &uri) {
        return;
    }
    let group = GroupName::parse("family").expect("a name");
    let target = match ProxyTarget::parse(&method, &uri) {
        Ok(target) => target,
        Err(refusal) => {
            // Whatever was asked for, the refusal can be written down.
            assert!(refusal.into_response().status().is_client_error());
            return;
        }
    };
    assert_eq!(target.proxy_method == ProxyMethod::Tunnel, method == Method::CONNECT);
    assert!(target.check_web_policy(&WebPolicy::None, &group).is_err(), "{target:?}");
    let allowed = HostName::parse("example.org").expect("a host");
    if target.check_web_policy(&WebPolicy::Allowlist(vec![allowed]), &group).is_ok() {
        let Host::Name(name) = &target.host else { panic!("an address is on no list: {target:?}") };
        let name = name.to_string();
        assert!(name == "example.org" || name.ends_with(".example.org"), "{name}");
    }
    if let Host::Address(address) = target.host
        && (address.is_loopback() || address.is_unspecified() || address.is_multicast())
    {
        assert!(special_address_kind(address).is_some(), "{address}");
    }
}

/// What a coding tool asks of the Responses API, as Kimi is asked for it.
pub fn responses(data: &[u8]) {
    let chat = match to_chat_completions(data) {
        Ok(chat) => chat,
        Err(refusal) => {
            assert!((400..500).contains(&refusal.status), "{refusal:?}");
            let told: Value = serde_json::from_str(&refusal.to_body()).expect("an error in JSON");
            assert!(told["error"]["message"].is_string(), "{told}");
            return;
        }
    };
    let body: Value = serde_json::from_slice(&chat.body).expect("a body in JSON");
    assert_eq!(body["stream"], true);
    assert!(body.get("tools").is_none_or(|tools| {
        tools.as_array().is_some_and(|tools| tools.iter().all(|tool| tool["type"] == "function"))
    }));
    // Kimi refuses an answer to a call that is not the one before it.
    let mut open_calls: Vec<&str> = Vec::new();
    for message in body["messages"].as_array().expect("a list of messages") {
        match message["role"].as_str().expect("a role") {
            "tool" => {
                assert!(open_calls.contains(&message["tool_call_id"].as_str().expect("an id")), "{body}")
            }
            "assistant" => {
                let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
                open_calls = calls.iter().filter_map(|call| call["id"].as_str()).collect();
            }
            _ => open_calls.clear(),
        }
    }
}

/// Kimi's stream as the events of the Responses API, however it is cut.
pub fn response_events(data: &[u8]) {
    const ASKED: &str = r#"{"model":"k","input":"x","tools":[{"type":"function","name":"shell"},{"type":"custom","name":"apply_patch"}]}"#;
    let [cut, body @ ..] = data else { return };
    let form = to_chat_completions(ASKED.as_bytes()).expect("a good request").form;
    let read = |piece_bytes: usize| {
        let mut events = ResponseEvents::new(form.clone(), "resp_1", Timestamp::UNIX_EPOCH);
        let mut heard: Vec<u8> =
            body.chunks(piece_bytes.max(1)).flat_map(|piece| events.read_piece(piece)).collect();
        heard.extend(events.finish());
        assert!(events.has_ended());
        String::from_utf8(heard).expect("UTF-8")
    };
    let (whole, parted) = (read(body.len()), read(usize::from(*cut)));
    assert_eq!(whole, parted, "what a client hears depends on how it was cut");
    let events = whole.split_terminator("\n\n").map(|event| {
        let (_, data) = event.split_once("\ndata: ").expect("an event with data");
        serde_json::from_str::<Value>(data).expect("an event in JSON")
    });
    let events: Vec<Value> = events.collect();
    let ends = ["response.completed", "response.incomplete", "response.failed"];
    let is_last = |event: &Value| event["type"].as_str().is_some_and(|kind| ends.contains(&kind));
    assert_eq!(events.iter().position(is_last), Some(events.len() - 1), "{whole}");
    assert!((0..).zip(&events).all(|(number, event)| event["sequence_number"] == number), "{whole}");
}
