//! The forward proxy to the web, for one group: `CONNECT host:port` and `GET http://host/…` (`proxy`).
//!
//! ```text
//! target (pure): a host and a port, against the group's policy ─▶ network: all addresses of the name
//!   ─▶ public_address (pure) and local_networks: each is a public host's, none is this machine's or near it
//!   ─▶ network: a connection to one of these addresses, never to the name ─▶ bytes, counted by `traffic`
//! ```
//!
//! Kimi's own search and fetch go another way, to the API: `request_check` beside this folder looks at those.
//!
//! This is the guard against SSRF (server-side request forgery): an agent reaches public hosts only. No name
//! is looked up twice, so the address that was checked is the one that is connected to, even if the name's
//! answer changes. Redirects are not followed: they are the container's next request. What goes through a
//! tunnel is not read, not even the host that its TLS asks for. `proxy` also has the rate limit for new
//! connections. An error says why in one sentence, in the status line too, where `curl -v`, git and pip show
//! it.

mod local_networks;
mod network;
mod proxy;
mod proxy_error;
mod public_address;
mod target;
mod traffic;

pub use network::{Network, SystemNetwork};
pub use proxy::{ForwardProxy, Tunnel};
pub use traffic::TrafficCounter;

#[cfg(test)]
mod tests;
