//! A request of the Responses API as one for chat completions.
//!
//! | Responses API | chat completions |
//! |---|---|
//! | `instructions`, `input` | `messages` (`history`) |
//! | `tools`, `tool_choice`, `parallel_tool_calls` | the same, of functions (`tools`) |
//! | `max_output_tokens` | `max_completion_tokens`: Kimi does not honour `max_tokens` any more |
//! | `reasoning.effort` | `thinking` and `reasoning_effort`, as kimi-cli sends both |
//! | `text.format` | `response_format` |
//! | `prompt_cache_key` | the same |
//! | `temperature`, `top_p` | left out: Kimi's models have their own, and another value is refused |
//! | `store`, `include`, `metadata`, `truncation`, `user`, … | left out: nothing of the answer depends on them |
//! | `previous_response_id`, `conversation`, `prompt`, `background` | refused: nothing is stored |

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::errors::ResponsesError;
use super::history::{ChatMessage, History};
use super::tools::{ChatFunction, OfferedTools, ToolDeclaration, ToolNames, function_name};

/// What Kimi is to be asked, and how its answer is to be told.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The body of `POST /chat/completions`.
    pub body: Vec<u8>,
    /// Whether the client wants a stream. Kimi is always asked for one.
    pub wants_stream: bool,
    pub form: ResponseForm,
}

/// What of a request is needed to tell its answer.
#[derive(Clone, Debug)]
pub struct ResponseForm {
    /// As the client named it.
    pub(super) model: String,
    pub(super) tool_names: ToolNames,
    pub(super) parallel_tool_calls: bool,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) metadata: Value,
}

#[derive(Debug, Deserialize)]
struct ResponsesRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    instructions: Option<String>,
    tools: Option<Vec<ToolDeclaration<'a>>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    max_output_tokens: Option<u64>,
    reasoning: Option<ReasoningSettings>,
    text: Option<TextSettings<'a>>,
    prompt_cache_key: Option<String>,
    stream: Option<bool>,
    metadata: Option<Value>,
    background: Option<bool>,
    previous_response_id: Option<IgnoredAny>,
    conversation: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct ReasoningSettings {
    effort: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TextSettings<'a> {
    #[serde(borrow)]
    format: Option<TextFormat<'a>>,
}

#[derive(Debug, Deserialize)]
struct TextFormat<'a> {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    strict: Option<bool>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct ChatCompletionsBody<'a> {
    model: &'a str,
    messages: Vec<ChatMessage>,
    stream: bool,
    stream_options: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ChatTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<String>,
}

#[derive(Debug, Serialize)]
struct ChatTool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: ChatFunction<'a>,
}

#[derive(Debug, Serialize)]
struct ResponseFormat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<SchemaFormat<'a>>,
}

#[derive(Debug, Serialize)]
struct SchemaFormat<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Translates the body of `POST /v1/responses`.
///
/// # Errors
/// Names the field that cannot be translated, with the reason.
pub fn to_chat_completions(body: &[u8]) -> Result<ChatRequest, ResponsesError> {
    let request: ResponsesRequest = serde_json::from_slice(body)
        .map_err(|error| ResponsesError::invalid_request("body", format!("this cannot be read: {error}")))?;
    refuse_what_needs_a_store(&request)?;
    let model = request.model.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| ResponsesError::invalid_request("model", "this field is missing"))?;

    let mut tools = OfferedTools::default();
    for (at, tool) in request.tools.into_iter().flatten().enumerate() {
        tools.offer(tool, &format!("tools[{at}]"))?;
    }
    let mut history = History::default();
    history.instruct(request.instructions.unwrap_or_default());
    if let Some(input) = request.input {
        history.read_input(input, &mut tools)?;
    }
    let messages = history.into_messages();
    if messages.is_empty() {
        return Err(ResponsesError::invalid_request("input", "there is nothing to answer"));
    }

    let OfferedTools { functions, names: tool_names } = tools;
    let parallel_tool_calls = request.parallel_tool_calls.unwrap_or(true);
    let (reasoning_effort, thinking) =
        kimi_thinking(request.reasoning.and_then(|reasoning| reasoning.effort).as_deref(), &model)?;
    let chat = ChatCompletionsBody {
        model: &model,
        messages,
        stream: true,
        stream_options: json!({ "include_usage": true }),
        tool_choice: chat_tool_choice(request.tool_choice, &tool_names)?,
        parallel_tool_calls: (!parallel_tool_calls && !functions.is_empty()).then_some(false),
        tools: functions.into_iter().map(|function| ChatTool { kind: "function", function }).collect(),
        max_completion_tokens: request.max_output_tokens,
        reasoning_effort,
        thinking,
        response_format: request.text.and_then(|text| text.format).map_or(Ok(None), response_format)?,
        prompt_cache_key: request.prompt_cache_key,
    };
    let body = serde_json::to_vec(&chat).map_err(|error| {
        ResponsesError::invalid_request("body", format!("this cannot be sent on: {error}"))
    })?;
    Ok(ChatRequest {
        body,
        wants_stream: request.stream.unwrap_or(false),
        form: ResponseForm {
            model,
            tool_names,
            parallel_tool_calls,
            max_output_tokens: request.max_output_tokens,
            metadata: request.metadata.unwrap_or_else(|| json!({})),
        },
    })
}

/// `store` itself may be true, which it is unless a client says otherwise: nothing is stored all the same.
fn refuse_what_needs_a_store(request: &ResponsesRequest) -> Result<(), ResponsesError> {
    for (field, is_used) in [
        ("previous_response_id", request.previous_response_id.is_some()),
        ("conversation", request.conversation.is_some()),
        ("prompt", request.prompt.is_some()),
        ("background", request.background == Some(true)),
    ] {
        if is_used {
            let why =
                format!("{field} needs stored responses, and nothing is stored here; send the whole input");
            return Err(ResponsesError::invalid_request(field, why));
        }
    }
    Ok(())
}

/// `reasoning_effort` and `thinking`. Kimi K3 knows low, high and max, and refuses what it does not know, medium too,
/// which is what most clients ask for; the others know low, medium and high, and are turned off by `thinking` alone.
fn kimi_thinking(
    effort: Option<&str>,
    model: &str,
) -> Result<(Option<&'static str>, Option<Value>), ResponsesError> {
    let effort = match effort {
        None => return Ok((None, None)),
        Some("none") => return Ok((None, Some(json!({ "type": "disabled" })))),
        Some("minimal" | "low") => "low",
        Some("medium") if model.contains("k3") => "high",
        Some("medium") => "medium",
        Some("high") => "high",
        Some("xhigh" | "max") if model.contains("k3") => "max",
        Some("xhigh" | "max") => "high",
        Some(other) => {
            let why = format!("{other} is none of none, minimal, low, medium, high, xhigh");
            return Err(ResponsesError::invalid_request("reasoning.effort", why));
        }
    };
    Ok((Some(effort), Some(json!({ "type": "enabled" }))))
}

fn chat_tool_choice(choice: Option<Value>, names: &ToolNames) -> Result<Option<Value>, ResponsesError> {
    let refuse = |why: String| Err(ResponsesError::invalid_request("tool_choice", why));
    let text = |choice: &Value, field: &str| choice.get(field).and_then(Value::as_str).map(str::to_owned);
    match choice {
        None => Ok(None),
        // Kimi refuses a choice without tools.
        Some(Value::String(_)) if names.is_empty() => Ok(None),
        Some(Value::String(choice)) if ["auto", "none", "required"].contains(&choice.as_str()) => {
            Ok(Some(Value::String(choice)))
        }
        Some(choice) => match (text(&choice, "type").as_deref(), text(&choice, "name")) {
            (Some("function" | "custom"), Some(name)) => {
                let function = function_name(text(&choice, "namespace").as_deref(), &name);
                if !names.contains(&function) {
                    return refuse(format!("{name} is none of the tools"));
                }
                Ok(Some(json!({ "type": "function", "function": { "name": function } })))
            }
            _ => refuse(format!("{choice} cannot be asked of Kimi; auto, none, required or a function can")),
        },
    }
}

fn response_format(format: TextFormat<'_>) -> Result<Option<ResponseFormat<'_>>, ResponsesError> {
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(ResponseFormat { kind: "json_object", json_schema: None })),
        "json_schema" => {
            let schema = format.schema.ok_or_else(|| {
                ResponsesError::invalid_request("text.format.schema", "this field is missing")
            })?;
            let TextFormat { name, description, strict, .. } = format;
            let name = name.unwrap_or_else(|| "answer".to_owned());
            let json_schema = Some(SchemaFormat { name, description, schema, strict });
            Ok(Some(ResponseFormat { kind: "json_schema", json_schema }))
        }
        other => {
            let why = format!("{other} is none of text, json_object, json_schema");
            Err(ResponsesError::invalid_request("text.format.type", why))
        }
    }
}
