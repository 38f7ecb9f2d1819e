//! Ring 3: the real WhatsApp client library against a WhatsApp server of our own on 127.0.0.1.
//!
//! Real encryption, real files and real time; nothing leaves the machine. The tests wait for what happens, never
//! for a while.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod answers;
mod bridge;
mod changes;
mod client;
mod crowd;
mod endings;
#[path = "../cli/fake_docker.rs"]
#[expect(dead_code, reason = "a Docker without the image is the business of the tests of the command line")]
mod fake_docker;
mod groups;
mod hostile;
mod linking;
mod media;
mod messages;
mod obstacles;
mod phones;
mod program;
mod server;
