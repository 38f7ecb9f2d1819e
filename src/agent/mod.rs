//! The engine in a container, spoken to over its stdio.
//!
//! ```text
//!   session ──▶ Agent (handle) ──▶ lines ──▶ a protocol (acp, kimi_cli_wire) ──▶ the engine's stdin
//!           ◀── AgentEvent ◀────── lines ◀── a protocol ◀─────────────────────── its stdout
//! ```
//! One task owns both pipes (`lines`). Requests go in by [`Agent`], what happens comes out as [`AgentEvent`]s.
//! The last one is always [`AgentEvent::Gone`]. `acp` is kimi-code's protocol, `kimi_cli_wire` kimi-cli's, and
//! both speak `jsonrpc`. `engine` says which engine speaks what, and what others need to know of each.

mod acp;
mod engine;
mod excerpt;
mod handle;
mod jsonrpc;
mod kimi_cli_wire;
mod lines;
mod messages;

pub use handle::Agent;
pub use messages::{
    AgentEvent, CompactionEnd, EngineInput, EngineLoss, EngineToolCall, Image, Request, TurnEnd,
};

pub use crate::types::Engine;
