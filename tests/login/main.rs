//! The refresher of the Kimi login against the practice model's login server: what is on the wire, what is on
//! disk, and what the egress proxies are given. In real time, with logins that live for seconds; what a
//! person sees of it is told in `tests/cli/login.rs`.

#![expect(clippy::unwrap_used, reason = "a test's helper says by a panic that the test failed")]

mod accounts;
mod kills;
mod others;
mod renewing;
mod trouble;
mod world;
