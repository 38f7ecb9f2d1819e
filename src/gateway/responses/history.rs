//! The conversation: the items of a request as the messages of a chat.
//!
//! Items of the assistant that follow each other are one message: its thoughts, its words and its calls. The
//! answer to a call stands behind the message that has the call, whatever came between them.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::errors::ResponsesError;
use super::freeform::wrap_input;
use super::tools::{OfferedTools, TOOL_SEARCH, ToolDeclaration, function_name};

/// In place of thoughts that the client did not keep. Kimi refuses a call in the history without any
/// ("reasoning_content is missing in assistant tool call message").
const FORGOTTEN_THOUGHTS: &str = ".";

/// In place of the answer to a call that has none.
const NO_ANSWER: &str = "(The call was broken off.)";
/// Before the pictures of a tool that says no word: Kimi refuses an answer without a text.
const PICTURES_ONLY: &str = "(The tool has answered with pictures.)";
/// In place of a tool's answer that has nothing in it.
const EMPTY_ANSWER: &str = "(The tool has answered nothing.)";

/// What OpenAI's servers did by themselves, or were told about themselves: it means nothing to Kimi.
const FOR_OPENAI_ALONE: [&str; 6] = [
    "web_search_call",
    "image_generation_call",
    "file_search_call",
    "code_interpreter_call",
    "mcp_list_tools",
    "configuration_update",
];
/// What only the one who made it can read.
const SEALED: [&str; 3] = ["compaction", "compaction_summary", "context_compaction"];

/// An item of the input, of any type.
#[derive(Debug, Deserialize)]
struct InputItem<'a> {
    /// A message may leave it out.
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    role: Option<String>,
    /// The sender of a message between agents.
    author: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    summary: Option<Vec<ContentPart>>,
    call_id: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    /// A text in a function call, an object in a search for tools.
    arguments: Option<&'a RawValue>,
    input: Option<String>,
    action: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    /// Of what OpenAI's servers did by themselves they have another form.
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct ContentPart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageUrl>,
}

/// A web address or a `data:` URL.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Plain(String),
    Wrapped { url: String },
}

/// One message to Kimi.
#[derive(Debug, Serialize)]
pub struct ChatMessage {
    role: ChatRole,
    content: ChatContent,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ChatToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum ChatContent {
    Text(String),
    Parts(Vec<ChatPart>),
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ChatPart {
    Text { text: String },
    ImageUrl { image_url: ChatImage },
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ChatImage {
    url: String,
}

#[derive(Debug, Serialize)]
struct ChatToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: CalledFunction,
}

#[derive(Debug, Serialize)]
struct CalledFunction {
    name: String,
    arguments: String,
}

/// A message, and what the tools answered to its calls.
#[derive(Debug)]
struct HistoryEntry {
    message: ChatMessage,
    answers: Vec<ChatMessage>,
}

/// The messages so far.
#[derive(Debug, Default)]
pub struct History {
    entries: Vec<HistoryEntry>,
    /// Where each call was made last. Kimi counts calls anew at times, so ids may repeat.
    calls: HashMap<String, usize>,
    /// Whether the last message is the assistant's and may get more.
    is_open: bool,
}

impl History {
    /// What the client wants of the model in general.
    pub fn instruct(&mut self, instructions: String) {
        if !instructions.is_empty() {
            self.push(ChatRole::System, ChatContent::Text(instructions));
        }
    }

    /// Reads `input`: a text, or a list of items, some of which tell of more tools.
    pub fn read_input<'a>(
        &mut self,
        input: &'a RawValue,
        tools: &mut OfferedTools<'a>,
    ) -> Result<(), ResponsesError> {
        if input.get().starts_with('"') {
            let text = parse(input, "input")?;
            self.push(ChatRole::User, ChatContent::Text(text));
            return Ok(());
        }
        let items: Vec<&RawValue> = parse(input, "input")?;
        for (at, item) in items.into_iter().enumerate() {
            let param = format!("input[{at}]");
            self.read_item(parse(item, &param)?, &param, tools)?;
        }
        Ok(())
    }

    /// Ready to be sent.
    pub fn into_messages(mut self) -> Vec<ChatMessage> {
        self.close_assistant_message();
        self.entries
            .into_iter()
            .flat_map(|mut entry| {
                entry.answer_all_calls();
                std::iter::once(entry.message).chain(entry.answers)
            })
            .collect()
    }

    fn read_item<'a>(
        &mut self,
        item: InputItem<'a>,
        param: &str,
        tools: &mut OfferedTools<'a>,
    ) -> Result<(), ResponsesError> {
        let refuse = |why: &str| Err(ResponsesError::invalid_request(format!("{param}.type"), why));
        let kind = item.kind.as_deref().unwrap_or("message");
        match kind {
            "message" => self.read_message(&item, param)?,
            "agent_message" => {
                let author = item.author.as_deref().unwrap_or("another agent");
                let text = join_texts(read_parts(item.content, &format!("{param}.content"))?, "\n\n");
                self.push(ChatRole::User, ChatContent::Text(format!("Message from {author}:\n\n{text}")));
            }
            "reasoning" => self.add_thoughts(read_thoughts(&item, param)?),
            "function_call" => {
                let arguments =
                    readable_arguments(parse(required(item.arguments, param, "arguments")?, param)?);
                let name = required(item.name.as_deref(), param, "name")?;
                let function = function_name(item.namespace.as_deref(), name);
                self.add_call(required(item.call_id, param, "call_id")?, function, arguments);
            }
            "custom_tool_call" => {
                let arguments = wrap_input(&required(item.input, param, "input")?);
                let name = required(item.name.as_deref(), param, "name")?;
                let function = function_name(item.namespace.as_deref(), name);
                self.add_call(required(item.call_id, param, "call_id")?, function, arguments);
            }
            "tool_search_call" => {
                let arguments = required(item.arguments, param, "arguments")?.get().to_owned();
                let id = required(item.call_id, param, "call_id")?;
                self.add_call(id, TOOL_SEARCH.to_owned(), arguments);
            }
            "local_shell_call" => {
                let action = required(item.action, param, "action")?.get().to_owned();
                let id = required(item.call_id.or(item.id), param, "call_id")?;
                self.add_call(id, "local_shell".to_owned(), action);
            }
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                let output = required(item.output, param, "output")?;
                let parts = read_parts(Some(output), &format!("{param}.output"))?;
                match item.call_id.or(item.id.filter(|_| kind == "local_shell_call_output")) {
                    Some(id) => self.add_answer(id, tool_content(parts), param)?,
                    // Codex tells by such an item what has come from outside, such as another agent's words.
                    None => self.push(ChatRole::User, user_content(parts)),
                }
            }
            "tool_search_output" => {
                let known = tools.functions.len();
                offer_all(item.tools, param, tools)?;
                let found = tools.functions.iter().skip(known).map(|function| function.name());
                let found = found.collect::<Vec<_>>().join(", ");
                let text =
                    if found.is_empty() { "No new tools.".to_owned() } else { format!("New tools: {found}") };
                self.add_answer(required(item.call_id, param, "call_id")?, ChatContent::Text(text), param)?;
            }
            "additional_tools" => offer_all(item.tools, param, tools)?,
            "item_reference" => return refuse("nothing is stored here; send the item itself"),
            sealed if SEALED.contains(&sealed) => {
                return refuse(
                    "only the service that made this summary can read it; begin a new conversation",
                );
            }
            other if FOR_OPENAI_ALONE.contains(&other) => {}
            other => return refuse(&format!("an item of the type {other} means nothing to Kimi")),
        }
        Ok(())
    }

    fn read_message(&mut self, item: &InputItem, param: &str) -> Result<(), ResponsesError> {
        let parts = read_parts(item.content, &format!("{param}.content"))?;
        match required(item.role.as_deref(), param, "role")? {
            "user" => self.push(ChatRole::User, user_content(parts)),
            "system" | "developer" => self.instruct(join_texts(parts, "\n\n")),
            "assistant" => {
                let ChatContent::Text(words) = &mut self.assistant_message().content else { return Ok(()) };
                let more = join_texts(parts, "");
                if !words.is_empty() && !more.is_empty() {
                    words.push_str("\n\n");
                }
                words.push_str(&more);
            }
            other => {
                let why = format!("the role {other} is none of user, assistant, system, developer");
                return Err(ResponsesError::invalid_request(format!("{param}.role"), why));
            }
        }
        Ok(())
    }

    /// The message to which the assistant's next item belongs.
    fn assistant_message(&mut self) -> &mut ChatMessage {
        if !self.is_open || self.entries.is_empty() {
            self.push(ChatRole::Assistant, ChatContent::Text(String::new()));
            self.is_open = true;
        }
        let last = self.entries.len() - 1;
        &mut self.entries[last].message
    }

    fn add_thoughts(&mut self, thoughts: String) {
        let message = self.assistant_message();
        // Thoughts after words are those of another answer.
        if message.tool_calls.is_empty() && !message.content.is_empty() {
            self.close_assistant_message();
        }
        match &mut self.assistant_message().reasoning_content {
            Some(earlier) => {
                earlier.push_str("\n\n");
                earlier.push_str(&thoughts);
            }
            none => *none = Some(thoughts).filter(|thoughts| !thoughts.is_empty()),
        }
    }

    fn add_call(&mut self, id: String, name: String, arguments: String) {
        let function = CalledFunction { name, arguments };
        let call = ChatToolCall { id: id.clone(), kind: "function", function };
        self.assistant_message().tool_calls.push(call);
        self.calls.insert(id, self.entries.len() - 1);
    }

    fn add_answer(&mut self, id: String, content: ChatContent, param: &str) -> Result<(), ResponsesError> {
        let Some(entry) = self.calls.get(&id).and_then(|at| self.entries.get_mut(*at)) else {
            let why = format!("there is no call {id} before this answer to it");
            return Err(ResponsesError::invalid_request(format!("{param}.call_id"), why));
        };
        let answer = ChatMessage { tool_call_id: Some(id), ..ChatMessage::new(ChatRole::Tool, content) };
        entry.answers.push(answer);
        self.close_assistant_message();
        Ok(())
    }

    fn push(&mut self, role: ChatRole, content: ChatContent) {
        self.close_assistant_message();
        self.entries.push(HistoryEntry { message: ChatMessage::new(role, content), answers: Vec::new() });
    }

    fn close_assistant_message(&mut self) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let Some(HistoryEntry { message, .. }) = self.entries.last_mut() else { return };
        if !message.tool_calls.is_empty() {
            message.reasoning_content.get_or_insert_with(|| FORGOTTEN_THOUGHTS.to_owned());
        } else if message.content.is_empty() {
            // Kimi refuses a message that says nothing.
            self.entries.pop();
        }
    }
}

impl HistoryEntry {
    /// Kimi refuses a history with a call that nobody has answered, such as one that a person has interrupted.
    fn answer_all_calls(&mut self) {
        let is_of = |answer: &ChatMessage, id: &str| answer.tool_call_id.as_deref() == Some(id);
        for (at, call) in self.message.tool_calls.iter().enumerate() {
            // An id may come more than once.
            let calls = self.message.tool_calls[..=at].iter().filter(|other| other.id == call.id).count();
            let answers = self.answers.iter().filter(|answer| is_of(answer, &call.id)).count();
            if answers < calls {
                let content = ChatContent::Text(NO_ANSWER.to_owned());
                self.answers.push(ChatMessage {
                    tool_call_id: Some(call.id.clone()),
                    ..ChatMessage::new(ChatRole::Tool, content)
                });
            }
        }
    }
}

impl ChatMessage {
    fn new(role: ChatRole, content: ChatContent) -> Self {
        Self { role, content, reasoning_content: None, tool_calls: Vec::new(), tool_call_id: None }
    }
}

impl ChatContent {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => parts.is_empty(),
        }
    }
}

fn offer_all<'a>(
    declared: Option<&'a RawValue>,
    param: &str,
    tools: &mut OfferedTools<'a>,
) -> Result<(), ResponsesError> {
    let declared: Option<Vec<ToolDeclaration<'a>>> =
        declared.map(|declared| parse(declared, &format!("{param}.tools"))).transpose()?;
    for (at, tool) in declared.into_iter().flatten().enumerate() {
        tools.offer(tool, &format!("{param}.tools[{at}]"))?;
    }
    Ok(())
}

/// A client gives back what it got: our thoughts are in the summary, those of open models in the content.
fn read_thoughts(item: &InputItem, param: &str) -> Result<String, ResponsesError> {
    let texts = |parts: &[ContentPart]| {
        parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n\n")
    };
    let content: Option<Vec<ContentPart>> =
        item.content.map(|content| parse(content, &format!("{param}.content"))).transpose()?;
    let whole = content.as_deref().map(texts).unwrap_or_default();
    Ok(if whole.is_empty() { item.summary.as_deref().map(texts).unwrap_or_default() } else { whole })
}

/// A text or a list of parts.
fn read_parts(content: Option<&RawValue>, param: &str) -> Result<Vec<ChatPart>, ResponsesError> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if content.get().starts_with('"') {
        return Ok(vec![ChatPart::Text { text: parse(content, param)? }]);
    }
    let parts: Vec<ContentPart> = parse(content, param)?;
    parts.into_iter().enumerate().map(|(at, part)| read_part(part, &format!("{param}[{at}]"))).collect()
}

fn read_part(part: ContentPart, param: &str) -> Result<ChatPart, ResponsesError> {
    match part.kind.as_str() {
        "input_text" | "output_text" | "text" => {
            Ok(ChatPart::Text { text: required(part.text, param, "text")? })
        }
        "refusal" => Ok(ChatPart::Text { text: required(part.refusal, param, "refusal")? }),
        "input_image" => match part.image_url {
            Some(ImageUrl::Plain(url) | ImageUrl::Wrapped { url }) => {
                Ok(ChatPart::ImageUrl { image_url: ChatImage { url } })
            }
            None => {
                let why = "an image needs an image_url; no files are stored here";
                Err(ResponsesError::invalid_request(format!("{param}.image_url"), why))
            }
        },
        other => {
            let why = format!("a part of the type {other} cannot be sent to Kimi, only text and images can");
            Err(ResponsesError::invalid_request(format!("{param}.type"), why))
        }
    }
}

/// The arguments of a call as the client gives them back, if they are JSON: Kimi refuses a history with others.
fn readable_arguments(arguments: String) -> String {
    if arguments.trim().is_empty() {
        "{}".to_owned()
    } else if serde_json::from_str::<IgnoredAny>(&arguments).is_ok() {
        arguments
    } else {
        json!({ "arguments": arguments }).to_string()
    }
}

/// One text as it is, anything else in parts, of which none is an empty text: Kimi refuses those.
fn user_content(mut parts: Vec<ChatPart>) -> ChatContent {
    if parts.len() > 1 {
        parts.retain(|part| !matches!(part, ChatPart::Text { text } if text.trim().is_empty()));
    }
    match parts.as_mut_slice() {
        [] => ChatContent::Text(String::new()),
        [ChatPart::Text { text }] => ChatContent::Text(std::mem::take(text)),
        _ => ChatContent::Parts(parts),
    }
}

fn tool_content(mut parts: Vec<ChatPart>) -> ChatContent {
    parts.retain(|part| !matches!(part, ChatPart::Text { text } if text.trim().is_empty()));
    let texts = parts.iter().filter(|part| matches!(part, ChatPart::Text { .. })).count();
    match (parts.len() - texts, texts) {
        (0, 0) => ChatContent::Text(EMPTY_ANSWER.to_owned()),
        (0, _) => ChatContent::Text(join_texts(parts, "\n")),
        (_, 0) => {
            parts.insert(0, ChatPart::Text { text: PICTURES_ONLY.to_owned() });
            ChatContent::Parts(parts)
        }
        (_, _) => ChatContent::Parts(parts),
    }
}

fn join_texts(parts: Vec<ChatPart>, joint: &str) -> String {
    let texts = parts.into_iter().filter_map(|part| match part {
        ChatPart::Text { text } => Some(text),
        ChatPart::ImageUrl { .. } => None,
    });
    texts.collect::<Vec<_>>().join(joint)
}

fn required<T>(value: Option<T>, param: &str, field: &str) -> Result<T, ResponsesError> {
    value.ok_or_else(|| ResponsesError::invalid_request(format!("{param}.{field}"), "this field is missing"))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a RawValue, param: &str) -> Result<T, ResponsesError> {
    serde_json::from_str(json.get())
        .map_err(|error| ResponsesError::invalid_request(param, format!("this cannot be read: {error}")))
}
