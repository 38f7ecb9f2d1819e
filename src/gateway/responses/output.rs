//! What a response consists of: thoughts, words and calls, as items of the Responses API, with the events that
//! tell how each of them grows.

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::freeform::FreeformInput;
use super::tools::{NamedTool, ToolForm};

/// The kind of an event about one item, and its fields but for the item's id and place.
pub type ItemEvent = (&'static str, Value);

/// One item of the output, while it grows and when it is whole.
#[derive(Debug)]
pub struct OutputItem {
    pub id: String,
    pub content: ItemContent,
    pub state: ItemState,
}

#[derive(Debug)]
pub enum ItemContent {
    /// The text of the thoughts.
    Reasoning(String),
    /// The text of the words.
    Message(String),
    Call(CallItem),
}

#[derive(Debug)]
pub struct CallItem {
    pub tool: NamedTool,
    pub call_id: String,
    pub arguments: String,
    /// What the arguments mean if the tool is a freeform one.
    freeform: FreeformInput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    InProgress,
    Completed,
    /// Cut off by the limit of tokens.
    Incomplete,
}

impl ItemState {
    fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl ItemContent {
    /// What the ids of such items begin with, as OpenAI's do.
    pub fn id_prefix(&self) -> &'static str {
        match self {
            Self::Reasoning(_) => "rs",
            Self::Message(_) => "msg",
            Self::Call(call) => match call.tool.form {
                ToolForm::Function => "fc",
                ToolForm::Freeform => "ctc",
                ToolForm::Search => "tsc",
            },
        }
    }
}

impl OutputItem {
    /// What is told when the item has been announced.
    pub fn opening_event(&self) -> Option<ItemEvent> {
        match &self.content {
            ItemContent::Reasoning(_) => Some((
                "response.reasoning_summary_part.added",
                json!({ "summary_index": 0, "part": summary_part("") }),
            )),
            ItemContent::Message(_) => {
                Some(("response.content_part.added", json!({ "content_index": 0, "part": text_part("") })))
            }
            ItemContent::Call(_) => None,
        }
    }

    /// Adds what has come, and says what is told of it.
    pub fn grow(&mut self, delta: &str) -> Option<ItemEvent> {
        match &mut self.content {
            ItemContent::Reasoning(text) => {
                text.push_str(delta);
                let fields = json!({ "summary_index": 0, "delta": delta });
                Some(("response.reasoning_summary_text.delta", fields))
            }
            ItemContent::Message(text) => {
                text.push_str(delta);
                let fields = json!({ "content_index": 0, "delta": delta, "logprobs": [] });
                Some(("response.output_text.delta", fields))
            }
            ItemContent::Call(call) => {
                call.arguments.push_str(delta);
                match call.tool.form {
                    ToolForm::Function => {
                        Some(("response.function_call_arguments.delta", json!({ "delta": delta })))
                    }
                    ToolForm::Freeform => {
                        let text = call.freeform.read_arguments(delta);
                        let has_grown = !text.is_empty();
                        has_grown.then(|| ("response.custom_tool_call_input.delta", json!({ "delta": text })))
                    }
                    ToolForm::Search => None,
                }
            }
        }
    }

    /// What is told when nothing more comes, before the item is done.
    pub fn closing_events(&self) -> Vec<ItemEvent> {
        match &self.content {
            ItemContent::Reasoning(text) => vec![
                ("response.reasoning_summary_text.done", json!({ "summary_index": 0, "text": text })),
                (
                    "response.reasoning_summary_part.done",
                    json!({ "summary_index": 0, "part": summary_part(text) }),
                ),
            ],
            ItemContent::Message(text) => vec![
                ("response.output_text.done", json!({ "content_index": 0, "text": text, "logprobs": [] })),
                ("response.content_part.done", json!({ "content_index": 0, "part": text_part(text) })),
            ],
            ItemContent::Call(call) => call.closing_events(),
        }
    }

    /// The item with nothing in it yet, to announce it.
    pub fn to_announced_json(&self) -> Value {
        match &self.content {
            ItemContent::Reasoning(_) => self.reasoning_json(Vec::new()),
            ItemContent::Message(_) => self.message_json(Vec::new()),
            ItemContent::Call(call) => {
                self.call_json(&CallItem::new(call.tool.clone(), call.call_id.clone()))
            }
        }
    }

    /// The item with all that it has so far.
    pub fn to_json(&self) -> Value {
        match &self.content {
            ItemContent::Reasoning(text) => self.reasoning_json(vec![summary_part(text)]),
            ItemContent::Message(text) => self.message_json(vec![text_part(text)]),
            ItemContent::Call(call) => self.call_json(call),
        }
    }

    /// Codex hands back only the summary of thoughts, so they stand there, whole.
    fn reasoning_json(&self, summary: Vec<Value>) -> Value {
        json!({ "id": self.id, "type": "reasoning", "summary": summary })
    }

    fn message_json(&self, content: Vec<Value>) -> Value {
        json!({
            "id": self.id, "type": "message", "status": self.state.as_str(), "role": "assistant",
            "content": content,
        })
    }

    fn call_json(&self, call: &CallItem) -> Value {
        let kind = match call.tool.form {
            ToolForm::Function => "function_call",
            ToolForm::Freeform => "custom_tool_call",
            ToolForm::Search => "tool_search_call",
        };
        let mut item = json!({
            "id": self.id, "type": kind, "status": self.state.as_str(), "call_id": call.call_id,
        });
        match call.tool.form {
            ToolForm::Function => {
                item["name"] = json!(call.tool.name);
                item["arguments"] = json!(call.arguments);
            }
            ToolForm::Freeform => {
                item["name"] = json!(call.tool.name);
                item["input"] = json!(call.freeform.text(&call.arguments));
            }
            ToolForm::Search => {
                item["execution"] = json!("client");
                item["arguments"] = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            }
        }
        if let Some(namespace) = &call.tool.namespace {
            item["namespace"] = json!(namespace);
        }
        item
    }
}

impl CallItem {
    pub fn new(tool: NamedTool, call_id: String) -> Self {
        Self { tool, call_id, arguments: String::new(), freeform: FreeformInput::default() }
    }

    /// Whether the arguments are no JSON, as those of a call are that stops in the middle.
    pub fn is_cut(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_err()
    }

    fn closing_events(&self) -> Vec<ItemEvent> {
        match self.tool.form {
            ToolForm::Function => vec![(
                "response.function_call_arguments.done",
                json!({ "name": self.tool.name, "arguments": self.arguments }),
            )],
            ToolForm::Freeform => {
                let input = self.freeform.text(&self.arguments);
                let done = ("response.custom_tool_call_input.done", json!({ "input": input }));
                if self.freeform.was_read_in_pieces() {
                    vec![done]
                } else {
                    vec![("response.custom_tool_call_input.delta", json!({ "delta": input })), done]
                }
            }
            ToolForm::Search => Vec::new(),
        }
    }
}

fn summary_part(text: &str) -> Value {
    json!({ "type": "summary_text", "text": text })
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}
