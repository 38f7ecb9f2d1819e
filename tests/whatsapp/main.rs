//! Ring 3: the real WhatsApp client library against a WhatsApp server of our own on 127.0.0.1.
//!
//! Real encryption, real files and real time; nothing leaves the machine. The tests wait for what happens, never
//! for a while.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod client;
mod endings;
mod linking;
mod messages;
mod server;
