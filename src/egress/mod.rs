//! The containers' egress proxy: a group's only way out of its container, an HTTP server on one unix socket
//! in the group's own folder (`server`). The group is known by the socket, never by what a request says.
//!
//! ```text
//! /coding/v1/*   ──▶  api_proxy: what an engine may ask                                    ──▶  the relay
//! CONNECT, http: ──▶  forward_proxy: the group's web policy, and public addresses only    ──▶  the web
//! /mcp           ──▶  tool_server: what the host does for the agent, if it may                 ──▶  the session
//! anything else  ──▶  an error
//! ```
//!
//! The way to the API: `api_routes` has the allowlist of endpoints and headers, `request_check` reads which
//! model a request is for and whether it sends Kimi to the web; the relay (`crate::relay`) puts the login in. The
//! way to the web is a forward proxy with an allowlist, a guard against SSRF (server-side request forgery), and a
//! rate limit.
//!
//! No login is here. Nothing here decides about turns; `ledger` keeps what was seen until the session takes it.

mod api_proxy;
mod api_routes;
mod forward_proxy;
mod ledger;
mod request_check;
mod server;
mod tool_server;

pub use server::{EgressProxy, start_egress_proxy};
pub use tool_server::ToolCall;

#[cfg(test)]
mod tests;
