//! The gateway: coding tools on this machine use the Kimi login, each with a key of its own. An HTTP server on loopback
//! or a unix socket, off until the owner enables it.
//!
//! ```text
//! OpenCode, Codex, … ──▶ server ──▶ handler: client_check, key, routes, limits ──▶ rewrite ──▶ upstream ──▶ Kimi API
//!                    ◀── event_stream, error_format ◀──────────────────────────────────────────┘
//! ```
//! - Pure: `routes` has the table of what is answered, `client_check` refuses pages in a browser, `headers` says which
//!   headers pass, `rewrite` what changes in a body, `models` what the list shows, `error_format` how an error looks in
//!   OpenAI's and in Anthropic's API, `event_stream` where something of our own can stand in a stream.
//! - `client_key` makes and recognises keys; the store has their hashes, and what each used.
//! - `share` keeps the gateway from taking what the chats need. `answer_stream` carries one answer.
//! - `upstream` is the way to Kimi, `anthropic_meter` counts the tokens of its Anthropic surface.
//! - `client_config` is what the owner pastes into a client's settings, `opencode_config` (pure) changes OpenCode's file.
//!
//! A client's key and the login go into no log, error or answer.

mod answer_stream;
mod anthropic_meter;
mod client_check;
mod client_config;
mod client_key;
mod error_format;
mod event_stream;
mod handler;
mod headers;
mod models;
mod opencode_config;
mod responses;
mod rewrite;
mod routes;
mod server;
mod share;
mod upstream;

pub use client_config::{CodingClient, render_client_config};
pub use client_key::generate_client_key;
pub use handler::{Gateway, GatewaySetup};
pub use headers::KimiCliHeaders;
pub use opencode_config::{add_nanokimi_provider, remove_nanokimi_provider};
pub use server::{GatewayServer, serve_while_enabled};
pub use share::SHARE;
pub use upstream::KimiApi;

#[cfg(test)]
mod tests;
