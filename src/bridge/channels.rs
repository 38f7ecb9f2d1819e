//! The seam to WhatsApp: a pair of channels and a watch. One end is run by a bridge (`whatsapp`, `console`),
//! the other by the service; a story test holds the bridge's end in its hands.
//!
//! A batch counts as received only when its `committed` channel answers: the bridge then tells WhatsApp that
//! we have it. A batch whose channel is dropped was not stored and must be delivered again. Redelivery is
//! idempotent: intake knows a message by its chat and id.

use std::fs::File;

use tokio::sync::{mpsc, oneshot, watch};

use crate::types::{ChatId, DeviceKind, Event, LinkState, Media, MediaKind, MessageId, SenderId};

/// Batches on their way to intake; a bridge that is ahead waits here instead of filling the memory.
const BATCHES_IN_FLIGHT: usize = 64;
/// Orders on their way to the bridge.
const ORDERS_IN_FLIGHT: usize = 64;

/// The largest file that a bridge takes: it is in memory twice while it is sent.
pub const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What the bridge holds.
#[derive(Debug)]
pub struct BridgeEnd {
    pub batches: mpsc::Sender<Batch>,
    pub orders: mpsc::Receiver<Order>,
    pub link: watch::Sender<LinkState>,
}

/// What the service holds.
#[derive(Debug)]
pub struct ServiceEnd {
    pub batches: mpsc::Receiver<Batch>,
    pub orders: mpsc::Sender<Order>,
    /// How the link stands now. It goes through `Connecting` whenever it was lost.
    pub link: watch::Receiver<LinkState>,
}

/// Makes the two ends.
pub fn create_bridge_ends() -> (BridgeEnd, ServiceEnd) {
    let (batch_sender, batches) = mpsc::channel(BATCHES_IN_FLIGHT);
    let (order_sender, orders) = mpsc::channel(ORDERS_IN_FLIGHT);
    let (link_sender, link) = watch::channel(LinkState::Connecting);
    (
        BridgeEnd { batches: batch_sender, orders, link: link_sender },
        ServiceEnd { batches, orders: order_sender, link },
    )
}

/// Events that are stored together or not at all.
#[derive(Debug)]
pub struct Batch {
    pub events: Vec<Event>,
    /// Answers once the events are on disk.
    pub committed: oneshot::Sender<()>,
}

/// What the service asks of the bridge.
#[derive(Debug)]
pub enum Order {
    Send(SendOrder),
    Repair(RepairOrder),
    /// Shows or hides "typing…"; a failure does not matter.
    Typing {
        chat: ChatId,
        shown: Typing,
    },
    /// Shows the sender that their messages were read; a failure does not matter.
    Read {
        chat: ChatId,
        sender: SenderId,
        messages: Vec<MessageId>,
    },
    Fetch(FetchOrder),
    /// Has the phone asked for a message that could not be read; it then comes as any other. A failure does
    /// not matter.
    AskAgain {
        /// As [`crate::types::UnreadableMessage::handle`].
        handle: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    On,
    Off,
}

/// One message to send. A second attempt carries the same id, so that it is the same message.
#[derive(Debug)]
pub struct SendOrder {
    pub chat: ChatId,
    pub id: MessageId,
    pub content: Content,
    pub quote: Option<QuoteTo>,
    /// As [`crate::types::IncomingMessage::expires_secs`].
    pub expires_secs: Option<u32>,
    pub recipients: Recipients,
    /// Gets the message as the bridge has encoded it, before the outcome, if it is handed over: a repair
    /// needs it.
    pub encoded: oneshot::Sender<Vec<u8>>,
    /// Dropping it counts as [`SendError::Later`].
    pub outcome: oneshot::Sender<Result<HandedOver, SendError>>,
}

/// The people in a chat, and their devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// As the bridge remembers them.
    Remembered,
    /// As WhatsApp knows them now: the message was sent before, and something was wrong then.
    LookedUp,
}

/// A message that somebody's device may not be able to read: it is sealed anew for that device, under its id.
#[derive(Debug)]
pub struct RepairOrder {
    pub chat: ChatId,
    pub id: MessageId,
    pub person: SenderId,
    pub device: DeviceKind,
    /// As [`SendOrder::encoded`] gave it.
    pub message: Vec<u8>,
    /// Dropping it counts as [`SendError::Later`].
    pub outcome: oneshot::Sender<Result<(), SendError>>,
}

/// What a message to send consists of.
#[derive(Debug)]
pub enum Content {
    /// `mentions` are the people whose numbers stand in the text as `@<digits>`.
    Text {
        text: String,
        mentions: Vec<SenderId>,
    },
    File(OutgoingFile),
    Reaction {
        target: MessageId,
        /// The author of the target.
        sender: SenderId,
        emoji: String,
    },
    /// As [`SendOrder::encoded`] gave it before.
    Encoded(Vec<u8>),
}

/// A file of a group's folder, opened already, so that nobody can exchange it on its way.
#[derive(Debug)]
pub struct OutgoingFile {
    pub kind: MediaKind,
    pub mime: String,
    pub name: String,
    pub caption: String,
    pub file: File,
    pub bytes: u64,
}

/// The message that ours answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteTo {
    pub id: MessageId,
    pub sender: SenderId,
    pub text: String,
}

/// How far a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// On its way; [`Event::Answered`] says how it went.
    Sent,
    /// It was seen; nothing more comes.
    Seen,
}

/// Why a message could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Worth another try: not connected, timed out.
    Later(String),
    /// Worth another try: WhatsApp has no keys of the person's devices, so that nobody could read it.
    NoKeys,
    /// Will never work: no such chat.
    Never(String),
}

/// Something attached to a message, to be decrypted into a file.
#[derive(Debug)]
pub struct FetchOrder {
    pub media: Media,
    /// Empty, and open for writing. What it holds counts only with the outcome `Ok`.
    pub into: File,
    /// More bytes than this are refused, whatever was declared.
    pub limit_bytes: u64,
    /// The number of bytes.
    pub outcome: oneshot::Sender<Result<u64, FetchError>>,
}

/// Why something attached cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// Worth another try: not connected, timed out.
    Later,
    /// WhatsApp does not have it any more.
    Gone,
    TooLarge,
    /// It does not decrypt to what the sender declared.
    Damaged,
}
