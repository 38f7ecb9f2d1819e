//! What is tried with bytes that nobody meant well, a function each: what nanokimi reads of agents, engines, models,
//! containers and coding tools. `./tests/run fuzz` runs them with libFuzzer; `tests/replay.rs` gives each the inputs of `corpus` once more.
//!
//! The files that are tried are mounted as they lie in nanokimi's `src`, with what they need beneath them: so nothing that
//! is private there has to be opened, and no WhatsApp library has to be built.

#[path = "../../../src"]
#[allow(dead_code, unused_imports, reason = "of these files only a part is called")]
mod mounted {
    pub mod agent;
    pub mod api_error;
    pub mod backoff;
    pub mod commands;
    /// Of the egress proxy only what decides about bytes.
    pub mod egress {
        pub mod forward_proxy {
            mod proxy_error;
            pub mod public_address;
            pub mod target;
        }
        pub mod request_check;
    }
    /// Of the gateway only what translates the Responses API.
    pub mod gateway {
        pub mod responses;
    }
    pub mod notices;
    pub mod paths;
    /// Of the relay only what reads answers.
    pub mod relay {
        pub mod event_lines;
        pub mod meter;
    }
    pub mod render;
    pub mod router;
    pub mod rules;
    pub mod schedule;
    pub mod tools;
    pub mod types;
    pub mod writing;
}
mod targets;

// Under the names by which they know each other.
use mounted::{
    agent, api_error, backoff, commands, egress, gateway, notices, paths, relay, render, router, rules,
    schedule, tools, types, writing,
};
pub use targets::{answer, asked, engine, meter, prompt, proxy, response_events, responses};
