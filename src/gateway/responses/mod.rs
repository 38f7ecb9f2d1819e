//! OpenAI's Responses API (`POST /v1/responses`) on Kimi's chat completions. Pure: bytes in, bytes out.
//!
//! ```text
//! Codex, SDK ── request ──▶ request ─ history, tools ──▶ POST /chat/completions ──▶ Kimi
//!            ◀── events ─── events  ◀─ event_data ────── server-sent events     ◀──
//! ```
//! Kimi is always asked for a stream. [`ResponseEvents`] makes the events of the Responses API of it, or one
//! object for a client that asked for no stream. Nothing is stored: a client sends its whole conversation each
//! time, and what needs an earlier response is refused.
//!
//! Kimi knows functions only. A freeform tool, a tool in a namespace and `tool_search` become functions, and
//! what is called comes back in the form in which it was offered (`tools`). Kimi's `reasoning_content` goes
//! out as a reasoning item, and comes back from it: Kimi refuses a history of tool calls without it.
//! Ids of tool calls and their arguments pass as they are, both ways.

mod chunk;
mod errors;
mod event_data;
mod events;
mod freeform;
mod history;
mod output;
mod request;
mod tools;

pub use errors::ResponsesError;
pub use events::ResponseEvents;
pub use request::to_chat_completions;

#[cfg(test)]
mod tests;
