//! Ring 2: the real service on real rootless Docker with the real image and the real engine, in real time. Only
//! the model is the practice one, and the bridge's end is in the test's hands.
//!
//! Runs as an ordinary person. What it needs and does not find fails: rootless Docker (at `TEST_DOCKER`, such as
//! `unix:///run/user/1000/docker.sock`, else in `XDG_RUNTIME_DIR`) and the program (`TEST_NANOKIMI`). The agent
//! image is built where it is missing. `tests/run containers` brings all of it.

#![expect(clippy::unwrap_used, reason = "in a test a panic says what went wrong")]

mod answering;
mod attack;
#[path = "../whatsapp/client.rs"]
mod client;
mod crowd;
mod fence;
mod files;
mod ground;
#[path = "../held/mod.rs"]
mod held;
mod hosts_kimi;
mod image;
mod kimi_code;
mod login;
mod neighbours;
mod pictures;
mod program;
mod prompts;
mod secrets;
#[path = "../whatsapp/server/mod.rs"]
mod server;
mod soak;
mod steering;
mod survival;
mod town;
mod trouble;
mod web;
mod whatsapp;
mod world;
