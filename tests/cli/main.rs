//! The real binary as a process, without Docker: what a person reads if something is missing, wrong or full.
//!
//! Every refusal is one sentence that says what to do. It ends with an exit code that is not 0, and changes
//! nothing.

#![expect(clippy::unwrap_used, reason = "a test's helper says by a panic that the test failed")]

mod account;
mod accounts;
mod database;
mod disk;
mod docker;
mod fake_kimi;
mod gateway;
mod groups;
mod help;
mod login;
mod looking;
mod service;
mod settings;
mod talking;
mod tasks;
mod terminal;
mod usage;
mod whatsapp;
mod world;
