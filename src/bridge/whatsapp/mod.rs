//! The bridge to WhatsApp: the only module that speaks to whatsapp-rust.
//!
//! ```text
//!    supervisor ─► client_loop: one run of the library, again and again as `reconnect_policy` says
//!                      │
//! WhatsApp ─► client ──┼─► intake_sink ─► inbound, contents ─► intake   messages, before WhatsApp is told
//!    fault ◄─ storage ◄┤   arrivals ──► unread, notes ──────► intake   what is on disk before what
//!                      ├─► initial_sync, announced ─────────► intake   the account, chats, whose names
//!                      ├─► linking ─────────────────────────► the link codes, passkeys
//! WhatsApp ◄───────────┴── outbound ─► sessions, outgoing_message, media, presence ◄── the service's orders
//! ```
//! `liveness` says when a connection is dead. The words of messages: `kinds`, `offers`, `files` and
//! `wording`, beneath `contents`.
//!
//! Never logs what was written, or by whom. Keeps nothing but the library's own files, in `key_folder`.

mod announced;
mod arrivals;
mod client;
mod client_loop;
mod contents;
mod fault;
mod files;
mod http;
mod inbound;
mod initial_sync;
mod intake_sink;
mod key_folder;
mod kinds;
mod linking;
mod liveness;
mod media;
mod notes;
mod offers;
mod outbound;
mod outgoing_message;
mod presence;
mod reconnect_policy;
mod running_bridge;
mod sessions;
mod storage;
mod supervisor;
mod unread;
mod wording;

pub use presence::Presence;
pub use running_bridge::WhatsAppBridge;
pub use supervisor::BridgeTask;

#[cfg(test)]
mod tests;
