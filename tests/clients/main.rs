//! Real coding tools and the official SDKs at the gateway: each holds a conversation with a tool call, streamed, through
//! `nanokimi gateway run` as a process of its own. Only the model is the practice model.
//!
//! `TEST_CLIENTS` names the folder in which they are installed and `TEST_NODE` a Node for those in JavaScript;
//! `tests/run clients` provides both. A missing one is a failure. Their versions are pinned in `packages/`.

#![expect(clippy::unwrap_used, reason = "in a test a panic says what went wrong")]

mod aider;
mod claude;
mod codex;
mod exchange;
mod javascript_sdks;
mod opencode;
mod python_sdks;
mod world;
