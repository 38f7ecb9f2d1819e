//! What is tried with bytes that nobody meant well, a function each: what nanokimi reads of agents, engines, models and
//! containers. `./tests/run fuzz` runs them with libFuzzer; the tests here give each the inputs of `corpus` once more.
//!
//! The files that are tried are mounted as they lie in `src`, with what they need beneath them, so that nothing private
//! there has to be opened, and no WhatsApp library has to be built.

#![allow(dead_code, unused_imports, reason = "of the mounted files only a part is called")]

#[path = "../../../src/agent/mod.rs"]
mod agent;
mod door;
#[path = "../../../src/paths.rs"]
mod paths;
#[path = "../../../src/render/mod.rs"]
mod render;
#[path = "../../../src/types.rs"]
mod types;
#[path = "../../../src/writing.rs"]
mod writing;

mod targets;

pub use targets::{answer, engine, meter, prompt, proxy};
