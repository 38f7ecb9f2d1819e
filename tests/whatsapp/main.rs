//! Ring 3: our bridge, and the program itself, with the real WhatsApp client library against the WhatsApp
//! server of `tests/whatsapp-server` on 127.0.0.1. What the library alone does is tried in `tests/contract`.
//!
//! Real encryption, real files and real time; nothing leaves the machine. The tests wait for what happens,
//! never for a while.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bridge;
mod program;
