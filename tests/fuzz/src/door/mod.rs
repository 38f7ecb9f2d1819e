//! Of the door only what decides about bytes.

#[path = "../../../../src/door/complaint.rs"]
mod complaint;
#[path = "../../../../src/door/meter.rs"]
pub mod meter;
pub mod web;
