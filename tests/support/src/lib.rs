//! What the test programs and the benchmarks share: the real service, with its ends controlled by a test.
//!
//! | module | |
//! |---|---|
//! | `test_service` | the service, with the bridge's end controlled by a test |
//! | `scripted_engine` | engines in place of containers, which do what a test says |
//! | `fake_docker` | a Docker daemon that only describes itself |
//! | `whatsapp_client` | the WhatsApp library itself, for people who write to nanokimi |
//! | `fixture` | the user's rootless Docker with the agent images |
//! | `container_world` | the service on that Docker, with the practice model |
//! | `scripted_model` | a practice model that does what the message says |
//! | `login_server` | a small copy of Kimi's login server, with the faults that a test wants |
//! | `raw_http` | a client that speaks HTTP by hand |
//! | `figures` | the tables of the benchmarks |

#![expect(clippy::unwrap_used, reason = "a test's helper says by a panic that the test failed")]

pub mod container_world;
pub mod fake_docker;
pub mod figures;
pub mod fixture;
pub mod login_server;
pub mod raw_http;
pub mod scripted_engine;
pub mod scripted_model;
pub mod test_service;
pub mod whatsapp_client;
