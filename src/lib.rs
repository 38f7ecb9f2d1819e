//! nanokimi: a WhatsApp assistant for your own server.
//!
//! The way of a message: `bridge` → `service::intake` → inbox → `service::dispatch` → `session` ⇄ `agent` ⇄
//! `container` → outbox → `service::delivery` → `bridge`. Modules import downwards only
//! (`tests/architecture.rs`):
//!
//! | level | modules | |
//! |---|---|---|
//! | 0 values | `types` `clock` `rate` `backoff` `paths` `panics` `writing` `kimi_http` | what everything speaks |
//! | 1 pure | `config` `router` `commands` `rules` `render` `notices` `repair` `tools` `api_error` `schedule` | decisions and words, no effects |
//! | 2 edges | `folders` `store` `bridge` `container` `agent` `login` `egress` `practice` `transcribe` | one foreign world each, never each other |
//! | 3 work | `session` `service` `checks` `gateway` | turns, queues, what `doctor` finds, coding tools |
//! | 4 face | `cli` | the only printing |

pub mod agent;
pub mod api_error;
pub mod backoff;
pub mod bridge;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod container;
pub mod egress;
pub mod folders;
pub mod gateway;
pub mod kimi_http;
pub mod login;
pub mod notices;
pub mod panics;
pub mod paths;
pub mod practice;
pub mod rate;
pub mod render;
pub mod repair;
pub mod router;
pub mod rules;
pub mod schedule;
pub mod service;
pub mod session;
pub mod store;
pub mod tools;
pub mod transcribe;
pub mod types;
pub mod writing;
