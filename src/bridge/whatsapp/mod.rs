//! The bridge to WhatsApp: the only module that speaks to whatsapp-rust.
//!
//! ```text
//!            run ─► running: one run of the library, again and again as `policy` says
//!                      │
//! WhatsApp ─► library ─┼─► hook ─► inbound, contents ─► intake       messages, before WhatsApp is told
//!    fault ◄─ storage ◄─┤   arrivals ──► unread ───► intake           what is on disk before what
//!                      ├─► greeting, told ────────────► intake       the account, chats, who is who
//!                      ├─► linking ───────────────────► the link     codes, passkeys
//! WhatsApp ◄───────────┴── outbound ─► sessions, letter, media, courtesies ◄── the service's orders
//! ```
//! Never logs what was written, or by whom. Keeps nothing but the library's own files, in `folder`.

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
