//! The gateway: coding tools on the same host use the Kimi login.

pub mod responses;
