//! The seam to WhatsApp: a pair of channels. One end is run by a bridge (`console`, later `whatsapp`), the
//! other by the service; a story test holds the bridge's end in its hands.
//!
//! A batch counts as received only when its `committed` channel answers: the bridge then tells WhatsApp that
//! we have it. A batch whose channel is dropped was not stored and must be delivered again.

pub mod console;

use tokio::sync::{mpsc, oneshot};

use crate::types::{ChatId, Inbound, MessageId};

/// Batches on their way to intake; a bridge that is ahead waits here instead of filling the memory.
const BATCHES_IN_FLIGHT: usize = 64;
/// Orders on their way to the bridge.
const ORDERS_IN_FLIGHT: usize = 64;

/// What the bridge holds.
#[derive(Debug)]
pub struct BridgeEnd {
    pub batches: mpsc::Sender<Batch>,
    pub orders: mpsc::Receiver<Order>,
}

/// What the service holds.
#[derive(Debug)]
pub struct ServiceEnd {
    pub batches: mpsc::Receiver<Batch>,
    pub orders: mpsc::Sender<Order>,
}

/// Makes the two ends.
pub fn pair() -> (BridgeEnd, ServiceEnd) {
    let (batch_sender, batches) = mpsc::channel(BATCHES_IN_FLIGHT);
    let (order_sender, orders) = mpsc::channel(ORDERS_IN_FLIGHT);
    (BridgeEnd { batches: batch_sender, orders }, ServiceEnd { batches, orders: order_sender })
}

/// Events that are stored together or not at all.
#[derive(Debug)]
pub struct Batch {
    pub events: Vec<Event>,
    /// Answers once the events are on disk.
    pub committed: oneshot::Sender<()>,
}

/// What happened on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(Inbound),
    /// A chat exists and is called this.
    Chat {
        id: ChatId,
        name: String,
    },
}

/// What the service asks of the bridge.
#[derive(Debug)]
pub enum Order {
    Send(Send),
    /// Shows or hides "typing…"; a failure does not matter.
    Typing {
        chat: ChatId,
        shown: Typing,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    On,
    Off,
}

/// One message to send. A second attempt carries the same id, so that it is the same message.
#[derive(Debug)]
pub struct Send {
    pub chat: ChatId,
    pub id: MessageId,
    pub text: String,
    /// Dropping it counts as [`SendError::Later`].
    pub outcome: oneshot::Sender<Result<(), SendError>>,
}

/// Why a message could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Worth another try: not connected, timed out.
    Later(String),
    /// Will never work: no such chat.
    Never(String),
}
