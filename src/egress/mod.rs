//! The containers' egress proxy: a group's only way out of its container, an HTTP server on one unix socket
//! in the group's own folder (`server`). The group is known by the socket, never by what a request says.
//!
//! ```text
//! /coding/v1/*   ──▶  relay: the stand-in login becomes the real one                      ──▶  the Kimi API
//! CONNECT, http: ──▶  forward_proxy: the group's web policy, and public addresses only    ──▶  the web
//! /mcp           ──▶  tool_server: what the host does for the agent, if it may                 ──▶  the session
//! anything else  ──▶  an error
//! ```
//!
//! The way to the API: `api_routes` has the allowlist of endpoints and headers, `request_check` reads which
//! model a request is for and whether it sends Kimi to the web, `retry_policy` decides about retries and
//! backoff, `meter` reads the token usage from the answers while they pass. The way to the web is a forward
//! proxy with an allowlist, a guard against SSRF (server-side request forgery), and a rate limit.
//!
//! The real login goes into one request header and nowhere else: never into a log, an error or an answer.
//! Nothing here decides about turns; `ledger` keeps what was seen until the session takes it.

mod api_routes;
mod error_response;
mod forward_proxy;
mod ledger;
mod meter;
mod relay;
mod request_body;
mod request_check;
mod response_stream;
mod retry_policy;
mod server;
mod tool_server;
mod unread;
mod upstream;

pub use server::{EgressProxy, start_egress_proxy};
pub use tool_server::ToolCall;
pub use upstream::KimiUpstream;

#[cfg(test)]
mod tests;
