//! What we rely on of the WhatsApp client library, tried against the WhatsApp server of
//! `tests/whatsapp-server`. No code of nanokimi's own takes part: if one of these fails, a new version of
//! the library does something else.
//!
//! Real encryption, real files and real time; nothing leaves the machine. The tests wait for what happens,
//! never for a while.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod changes;
mod crowd;
mod endings;
mod groups;
mod hostile;
mod linking;
mod media;
mod messages;
mod obstacles;
mod phones;
