//! Kimi's stream of an answer as the events of a response: a state machine that is fed with bytes.
//!
//! ```text
//!            reasoning_content        content              tool_calls[n]
//! begun ──▶  ┌ reasoning item ┐ ──▶ ┌ message item ┐ ──▶ ┌ call n ┐         (in any order)
//!            └ part, deltas   ┘     └ part, deltas ┘     └ deltas ┘
//!                                  [DONE] or the end ──▶ completed | incomplete
//!             an error, or the stream stops too early ──▶ failed
//! ```
//! An item of text is done as soon as something else comes. Calls are done at the end: only then is it sure
//! that nothing is added to them, and a client carries out each call that is done. Usage comes last of all,
//! so the response is complete when Kimi's stream is.
//!
//! Whatever happens, the last event says how the response ended. What Kimi may make us hold is bounded.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::chunk::{CallDelta, CompletionDelta, CompletionEvent, CompletionUsage};
use super::errors::ResponsesError;
use super::event_data::EventDataReader;
use super::output::{CallItem, ItemContent, ItemEvent, ItemState, OutputItem};
use super::request::ResponseForm;

/// All text of one response, in bytes. Kimi's longest answers have some 256,000 tokens of about four bytes.
const TEXT_MAX: usize = 4 * 1024 * 1024;
/// Items of one response; more than some ten come from a model that repeats itself.
const ITEMS_MAX: usize = 256;

/// One response while it comes.
#[derive(Debug)]
pub struct ResponseEvents {
    form: ResponseForm,
    id: String,
    created_at: Timestamp,
    data: EventDataReader,
    /// Of the next event.
    sequence_number: u64,
    items: Vec<OutputItem>,
    /// The item of text that is being written, if the latest is one.
    open_text: Option<usize>,
    /// The items of Kimi's calls, by their number.
    calls: BTreeMap<u64, usize>,
    text_bytes: usize,
    finish_reason: Option<String>,
    usage: Option<CompletionUsage>,
    stage: ResponseStage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ResponseStage {
    /// The client has seen nothing yet.
    Announced,
    Running,
    Completed,
    Incomplete {
        reason: &'static str,
    },
    Failed(ResponsesError),
}

impl ResponseStage {
    fn has_ended(&self) -> bool {
        match self {
            Self::Announced | Self::Running => false,
            Self::Completed | Self::Incomplete { .. } | Self::Failed(_) => true,
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Announced | Self::Running => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete { .. } => "incomplete",
            Self::Failed(_) => "failed",
        }
    }
}

impl ResponseEvents {
    /// `id` is the response's, such as `resp_0a1b2c`; the ids of its items are made of it.
    pub fn new(form: ResponseForm, id: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            form,
            id: id.into(),
            created_at,
            data: EventDataReader::default(),
            sequence_number: 0,
            items: Vec::new(),
            open_text: None,
            calls: BTreeMap::new(),
            text_bytes: 0,
            finish_reason: None,
            usage: None,
            stage: ResponseStage::Announced,
        }
    }

    /// Takes the next bytes of Kimi's stream, and returns those of the client's, which may be none.
    pub fn read_piece(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = self.begin();
        match self.data.read_piece(piece) {
            Ok(events) => events.iter().for_each(|event| self.read_event(event, &mut out)),
            Err(_) => self.fail(broken_answer("it has an event without an end"), &mut out),
        }
        out
    }

    /// Kimi's stream has ended. Returns the last bytes of the client's.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = self.begin();
        if let Some(event) = self.data.finish_reading() {
            self.read_event(&event, &mut out);
        }
        if self.finish_reason.is_some() {
            self.complete(&mut out);
        } else {
            self.fail(broken_answer("it broke off"), &mut out);
        }
        out
    }

    /// Kimi's stream cannot be read any further. If it has said everything, that makes no difference.
    pub fn break_off(&mut self, error: ResponsesError) -> Vec<u8> {
        let mut out = self.begin();
        if self.finish_reason.is_some() {
            self.complete(&mut out);
        } else {
            self.fail(error, &mut out);
        }
        out
    }

    /// Whether the client was told that nothing more comes, whatever Kimi still sends.
    pub fn has_failed(&self) -> bool {
        matches!(self.stage, ResponseStage::Failed(_))
    }

    /// Whether the client has got its last event.
    pub fn has_ended(&self) -> bool {
        self.stage.has_ended()
    }

    /// The response in one piece, for a client that asked for no stream.
    ///
    /// # Errors
    /// If the response has failed.
    pub fn into_response_object(mut self) -> Result<Vec<u8>, ResponsesError> {
        if !self.has_ended() {
            self.finish();
        }
        match &self.stage {
            ResponseStage::Failed(error) => Err(error.clone()),
            ResponseStage::Announced
            | ResponseStage::Running
            | ResponseStage::Completed
            | ResponseStage::Incomplete { .. } => Ok(self.to_response_json().to_string().into_bytes()),
        }
    }

    fn begin(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.stage == ResponseStage::Announced {
            self.stage = ResponseStage::Running;
            let response = self.to_response_json();
            self.emit("response.created", json!({ "response": response.clone() }), &mut out);
            self.emit("response.in_progress", json!({ "response": response }), &mut out);
        }
        out
    }

    fn read_event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        match CompletionEvent::parse(data) {
            Ok(CompletionEvent::Chunk(chunk)) => {
                let (delta, finish_reason, usage) = chunk.into_parts();
                self.usage = usage.or(self.usage.take());
                self.read_delta(delta, out);
                self.finish_reason = finish_reason.or(self.finish_reason.take());
            }
            Ok(CompletionEvent::ApiError(api_error)) => {
                // The status was that of a good answer.
                self.fail(
                    ResponsesError { status: 502, ..ResponsesError::from_api_error(200, &api_error) },
                    out,
                );
            }
            Ok(CompletionEvent::Done) if self.finish_reason.is_none() && self.has_cut_call() => {
                self.fail(broken_answer("a call of a tool is cut"), out);
            }
            Ok(CompletionEvent::Done) => self.complete(out),
            Err(error) => self.fail(broken_answer(&format!("it cannot be read: {error}")), out),
        }
    }

    fn read_delta(&mut self, delta: CompletionDelta, out: &mut Vec<u8>) {
        let CompletionDelta { reasoning_content, content, tool_calls } = delta;
        if let Some(thoughts) = reasoning_content.filter(|text| !text.is_empty()) {
            self.add_text(ItemContent::Reasoning(String::new()), &thoughts, out);
        }
        if let Some(words) = content.filter(|text| !text.is_empty()) {
            self.add_text(ItemContent::Message(String::new()), &words, out);
        }
        for call in tool_calls.into_iter().flatten() {
            self.add_to_call(call, out);
        }
    }

    fn add_text(&mut self, new: ItemContent, delta: &str, out: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        let is_same =
            |at: &usize| std::mem::discriminant(&self.items[*at].content) == std::mem::discriminant(&new);
        let at = match self.open_text.filter(is_same) {
            Some(at) => at,
            None => {
                self.close_text(ItemState::Completed, out);
                let Some(at) = self.open_item(new, out) else { return };
                self.open_text = Some(at);
                at
            }
        };
        self.grow(at, delta, out);
    }

    fn add_to_call(&mut self, delta: CallDelta, out: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        self.close_text(ItemState::Completed, out);
        let number = delta.index.unwrap_or_else(|| self.number_of_call(delta.id.as_deref()));
        let function = delta.function.unwrap_or_default();
        let at = match self.calls.get(&number) {
            Some(at) => *at,
            None => {
                let Some(name) = function.name.filter(|name| !name.is_empty()) else {
                    return self.fail(broken_answer("it calls a tool without naming it"), out);
                };
                let call_id =
                    delta.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{name}:{number}"));
                self.text_bytes += name.len() + call_id.len();
                let call = CallItem::new(self.form.tool_names.resolve(&name), call_id);
                let Some(at) = self.open_item(ItemContent::Call(call), out) else { return };
                self.calls.insert(number, at);
                at
            }
        };
        if let Some(arguments) = function.arguments.filter(|arguments| !arguments.is_empty()) {
            self.grow(at, &arguments, out);
        }
    }

    /// The number of a call that comes without one: that of the call with this id, of a new one, or of the latest.
    fn number_of_call(&self, id: Option<&str>) -> u64 {
        let latest = self.calls.keys().last().copied();
        let has_id = |at: usize, id: &str| matches!(&self.items[at].content, ItemContent::Call(call) if call.call_id == id);
        match id.filter(|id| !id.is_empty()) {
            Some(id) => {
                let known = self.calls.iter().find(|(_, at)| has_id(**at, id)).map(|(number, _)| *number);
                known.unwrap_or_else(|| latest.map_or(0, |latest| latest.saturating_add(1)))
            }
            None => latest.unwrap_or(0),
        }
    }

    /// Whether a call has arguments that are not whole.
    fn has_cut_call(&self) -> bool {
        self.calls
            .values()
            .any(|at| matches!(&self.items[*at].content, ItemContent::Call(call) if call.is_cut()))
    }

    /// `None` if the response has failed.
    fn open_item(&mut self, content: ItemContent, out: &mut Vec<u8>) -> Option<usize> {
        let at = self.items.len();
        if at == ITEMS_MAX {
            self.fail(broken_answer("it has too many parts"), out);
            return None;
        }
        let id = format!("{}_{}_{at}", content.id_prefix(), self.id.trim_start_matches("resp_"));
        let item = OutputItem { id, content, state: ItemState::InProgress };
        let fields = json!({ "output_index": at, "item": item.to_announced_json() });
        let opening = item.opening_event();
        self.items.push(item);
        self.emit("response.output_item.added", fields, out);
        self.emit_of_item(at, opening, out);
        Some(at)
    }

    fn grow(&mut self, at: usize, delta: &str, out: &mut Vec<u8>) {
        self.text_bytes += delta.len();
        if self.text_bytes > TEXT_MAX {
            return self.fail(broken_answer("it is too long"), out);
        }
        let event = self.items[at].grow(delta);
        self.emit_of_item(at, event, out);
    }

    fn close_text(&mut self, state: ItemState, out: &mut Vec<u8>) {
        if let Some(at) = self.open_text.take() {
            self.close_item(at, state, out);
        }
    }

    fn close_calls(&mut self, was_cut_off: bool, out: &mut Vec<u8>) {
        for at in self.calls.clone().into_values() {
            let ItemContent::Call(call) = &self.items[at].content else { continue };
            if !was_cut_off && call.arguments.trim().is_empty() {
                // A tool without arguments: clients read them as JSON.
                self.grow(at, "{}", out);
            }
            let ItemContent::Call(call) = &self.items[at].content else { continue };
            if was_cut_off && call.is_cut() {
                // No event says that it is done, or it would be carried out.
                self.items[at].state = ItemState::Incomplete;
            } else {
                self.close_item(at, ItemState::Completed, out);
            }
        }
    }

    fn close_item(&mut self, at: usize, state: ItemState, out: &mut Vec<u8>) {
        self.items[at].state = state;
        self.emit_of_item(at, self.items[at].closing_events(), out);
        let fields = json!({ "output_index": at, "item": self.items[at].to_json() });
        self.emit("response.output_item.done", fields, out);
    }

    /// Kimi has said everything.
    fn complete(&mut self, out: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        let cut_off = match self.finish_reason.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            Some(_) | None => None,
        };
        if self.items.is_empty() && cut_off.is_none() {
            return self.fail(broken_answer("it is empty"), out);
        }
        let state = if cut_off.is_some() { ItemState::Incomplete } else { ItemState::Completed };
        self.close_text(state, out);
        self.close_calls(cut_off.is_some(), out);
        let (stage, kind) = match cut_off {
            Some(reason) => (ResponseStage::Incomplete { reason }, "response.incomplete"),
            None => (ResponseStage::Completed, "response.completed"),
        };
        self.stage = stage;
        let response = self.to_response_json();
        self.emit(kind, json!({ "response": response }), out);
    }

    fn fail(&mut self, error: ResponsesError, out: &mut Vec<u8>) {
        if self.has_ended() {
            return;
        }
        self.stage = ResponseStage::Failed(error);
        let response = self.to_response_json();
        self.emit("response.failed", json!({ "response": response }), out);
    }

    fn emit_of_item(&mut self, at: usize, events: impl IntoIterator<Item = ItemEvent>, out: &mut Vec<u8>) {
        for (kind, fields) in events {
            let mut of_item = json!({ "item_id": self.items[at].id, "output_index": at });
            extend_object(&mut of_item, fields);
            self.emit(kind, of_item, out);
        }
    }

    fn emit(&mut self, kind: &str, fields: Value, out: &mut Vec<u8>) {
        let mut event = json!({ "type": kind, "sequence_number": self.sequence_number });
        self.sequence_number += 1;
        extend_object(&mut event, fields);
        out.extend_from_slice(format!("event: {kind}\ndata: {event}\n\n").as_bytes());
    }

    /// The response as it is now. The instructions and tools of the request are not repeated: Codex's have
    /// some 60 KB, three times in each stream.
    fn to_response_json(&self) -> Value {
        let incomplete = match &self.stage {
            ResponseStage::Incomplete { reason } => json!({ "reason": reason }),
            ResponseStage::Announced
            | ResponseStage::Running
            | ResponseStage::Completed
            | ResponseStage::Failed(_) => Value::Null,
        };
        let error = match &self.stage {
            ResponseStage::Failed(error) => error.to_response_error(),
            ResponseStage::Announced
            | ResponseStage::Running
            | ResponseStage::Completed
            | ResponseStage::Incomplete { .. } => Value::Null,
        };
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created_at.as_second(),
            "status": self.stage.status(),
            "background": false,
            "error": error,
            "incomplete_details": incomplete,
            "instructions": null,
            "max_output_tokens": self.form.max_output_tokens,
            "metadata": self.form.metadata,
            "model": self.form.model,
            "output": self.items.iter().map(OutputItem::to_json).collect::<Vec<_>>(),
            "parallel_tool_calls": self.form.parallel_tool_calls,
            "previous_response_id": null,
            "store": false,
            "temperature": null,
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "usage": self.usage.as_ref().map(usage_json),
        })
    }
}

fn broken_answer(why: &str) -> ResponsesError {
    ResponsesError::broken_answer(format!("The answer of the Kimi API is not whole: {why}"))
}

fn extend_object(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

fn usage_json(usage: &CompletionUsage) -> Value {
    let CompletionUsage { prompt_tokens, completion_tokens, .. } = usage;
    json!({
        "input_tokens": prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens(), "cache_write_tokens": 0 },
        "output_tokens": completion_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens() },
        "total_tokens": prompt_tokens.saturating_add(*completion_tokens),
    })
}
