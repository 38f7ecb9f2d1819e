//! Ring 2: the real service on real rootless Docker with the real image and the real engine, in real time.
//! Only the model is the practice model, and the test controls the bridge's end.
//!
//! Runs as an ordinary user. A missing requirement is a failure: rootless Docker (at `TEST_DOCKER`, such as
//! `unix:///run/user/1000/docker.sock`, else in `XDG_RUNTIME_DIR`) and the program (`TEST_NANOKIMI`). The
//! agent image is built if it is missing. `tests/run containers` provides all of it.

#![expect(clippy::unwrap_used, reason = "in a test a panic says what went wrong")]

mod answering;
mod attack;
mod concurrency;
mod crowd;
mod fake_internet;
mod files;
mod image;
mod isolation;
mod kimi_code;
mod lent_folders;
mod login;
mod pictures;
mod program;
mod prompts;
mod recovery;
mod secrets;
mod shared_login;
mod skills;
mod soak;
mod steering;
mod tools;
mod trouble;
mod web;
mod whatsapp;
