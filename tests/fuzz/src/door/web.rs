//! Of the way to the web only what decides about a request's head.

#[path = "../../../../src/door/web/address.rs"]
pub mod address;
#[path = "../../../../src/door/web/refusal.rs"]
mod refusal;
#[path = "../../../../src/door/web/target.rs"]
pub mod target;
