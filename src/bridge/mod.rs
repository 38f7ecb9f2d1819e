//! The bridge: what connects the service with the chats, WhatsApp's (`whatsapp`) or the terminal's
//! (`console`). Both run one end of `channels`.

mod channels;
pub mod console;
pub mod whatsapp;

pub use channels::{
    Batch, BridgeEnd, Content, FILE_MAX_BYTES, FetchError, FetchOrder, HandedOver, Order, OutgoingFile,
    QuoteTo, Recipients, RepairOrder, SendError, SendOrder, ServiceEnd, Typing, create_bridge_ends,
};

pub use crate::types::{Answer, Event, LinkState, Pairing};
