//! Ring 1: the real service and real SQLite between a bridge that the test controls and a scripted engine, in
//! paused time.
//!
//! Each story reads like the chat that it is about. A message that the story does not expect makes it fail.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod absence;
mod accounts;
mod ahead;
mod answering;
mod api;
mod approvals;
mod changes;
mod clocks;
mod closed_folders;
mod commands;
mod compact;
mod conditions;
mod delivered;
mod delivery;
mod docker;
mod engines;
mod full_disk;
mod identities;
mod isolated;
mod lent_folders;
mod limits;
mod media;
mod memory;
mod model;
mod new;
mod outages;
mod panics;
mod prompts;
mod removals;
mod replying;
mod restarts;
mod rights;
mod senders;
mod status;
mod steering;
mod stop;
mod tasks;
mod tokens;
mod tools;
mod trouble;
mod unread;
mod world;
