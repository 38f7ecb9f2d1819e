//! The web, for one group: its requests through a proxy, `CONNECT host:port` and `GET http://host/…`.
//!
//! ```text
//! target (pure): a host, a port; the group's policy ─▶ outside: all addresses of the name
//!   ─▶ address (pure): each one a public host's, or the whole is refused; none is this machine's or near
//!   ─▶ outside: a connection to one of these addresses, never to the name ─▶ bytes, counted by `traffic`
//! ```
//!
//! Nothing is looked up twice, so a name whose answer changes is connected to where it was checked, and redirects are
//! not followed: they are the container's next request. What goes through a tunnel is not read, not even which host
//! its TLS asks for. A refusal says why in one sentence, in the status line too, where `curl -v`, git and pip show it.

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
