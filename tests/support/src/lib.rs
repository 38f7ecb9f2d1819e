//! What the test programs and the benchmarks have in common: the real service with its ends in a test's
//! hands.
//!
//! | module | |
//! |---|---|
//! | `test_service` | the service, with the bridge's end in a test's hands |
//! | `scripted_engine` | engines in containers' place, which do as a test says |
//! | `fake_docker` | a Docker daemon that only says what it is |
//! | `whatsapp_client` | the WhatsApp library itself, for those who write to nanokimi |
//! | `fixture` | the person's rootless Docker with the agent images |
//! | `container_world` | the service on that Docker, with the practice model |
//! | `scripted_model` | a practice model that does what the message says |
//! | `login_server` | Kimi's login server in small, with the faults that a test wants |
//! | `figures` | the tables of the benchmarks |

#![expect(clippy::unwrap_used, reason = "a test's helper says by a panic that the test failed")]

pub mod container_world;
pub mod fake_docker;
pub mod figures;
pub mod fixture;
pub mod login_server;
pub mod scripted_engine;
pub mod scripted_model;
pub mod test_service;
pub mod whatsapp_client;
