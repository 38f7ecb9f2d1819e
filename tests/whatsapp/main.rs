//! Ring 3: our bridge, and the program itself, with the real WhatsApp client library against the WhatsApp
//! server of `tests/whatsapp-server` on 127.0.0.1. `tests/contract` tests the library alone.
//!
//! Real encryption, real files and real time; no packet leaves the machine. The tests wait for events, never
//! for a fixed time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bridge;
mod program;
