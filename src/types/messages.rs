//! What crosses the seam to WhatsApp, as values: what happened there, what is to be sent, how the link stands.
//!
//! JIDs are opaque strings here; only the bridge takes them apart.

use jiff::Timestamp;

use super::{ChatId, MessageId, Secret, SenderId};

/// What happened on the other side, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(IncomingMessage),
    /// The author has changed a message.
    Edited(Edit),
    /// The author has taken a message back.
    Deleted {
        chat: ChatId,
        sender: SenderId,
        target: MessageId,
    },
    Reacted(Reaction),
    /// Somebody has done something that people see in the chat and that asks for nothing, such as a pin.
    Noted(ChatNote),
    /// A chat exists and is called this; `members` where it is a group and known.
    Chat {
        id: ChatId,
        name: String,
        members: Option<u32>,
    },
    /// Two names of one person (a phone number's and a LID), or of the chat with them.
    SamePerson {
        one: SenderId,
        other: SenderId,
    },
    /// Whose link this is; told at every connection.
    Account(LinkedAccount),
    /// What WhatsApp's server says of a message that we have sent.
    Answered {
        id: MessageId,
        answer: Answer,
    },
    /// What a device of somebody else says of a message that we have sent. Nobody tells it twice.
    Receipt(Receipt),
    /// A message that we have sent went without a copy for this person's phone: WhatsApp had no keys of it.
    PhoneMissed {
        id: MessageId,
        person: SenderId,
    },
    /// Somebody has set WhatsApp up anew: what was sealed for the keys from before, they cannot read.
    IdentityChanged {
        person: SenderId,
    },
    /// A message was sent, and could not be read.
    Unread(UnreadableMessage),
    /// A message that could not be read has come after all, whatever it holds.
    ReadAfterAll {
        chat: ChatId,
        id: MessageId,
    },
    /// Somebody else writes or records something. Nothing of it is kept.
    Typing {
        chat: ChatId,
    },
}

/// A word of somebody's device about a message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub id: MessageId,
    pub person: SenderId,
    pub device: DeviceKind,
    pub kind: ReceiptKind,
}

/// Which of a person's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Phone,
    /// Linked to the phone, such as a computer.
    Companion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptKind {
    /// It is there and can be read.
    Delivered,
    /// The person has read it.
    Read,
    /// It cannot be read, and is asked for once more.
    Retry,
}

/// A message of which only the envelope could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableMessage {
    pub chat: ChatId,
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    pub sent_at: Timestamp,
    pub author: Author,
    /// How the bridge asks for it; only the bridge reads this.
    pub handle: Vec<u8>,
}

/// Who wrote a message that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The phone of the linked account: nobody asks it but us.
    OwnPhone,
    /// Anybody else, who is asked by WhatsApp's own means.
    Somebody,
}

/// The linked account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedAccount {
    /// The phone number's JID; the chat of this name is the one with oneself.
    pub id: SenderId,
    pub lid: Option<SenderId>,
    /// As its owner calls themselves on WhatsApp; empty where that is not known.
    pub name: String,
}

/// A message as the bridge delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingMessage {
    pub chat: ChatId,
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    /// The text, or a file's caption; empty where there is none.
    pub text: String,
    pub sent_at: Timestamp,
    /// A native mention of the linked account, as the bridge understood it.
    pub mention: Mention,
    pub forwarded: Forwarded,
    pub quote: Option<Quote>,
    pub media: Option<Media>,
    /// After how many seconds messages of this chat disappear, where they do.
    pub expires_secs: Option<u32>,
}

/// Whether a message mentions the linked account natively (not by text).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention {
    Me,
    NotMe,
}

/// Whether the words are somebody else's, passed on from another chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    No,
    Once,
    /// Along a chain of five chats or more, as WhatsApp counts it.
    Many,
}

/// The message that another one answers, as the client says that quotes it: anything may stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub id: MessageId,
    /// None where the client does not say whose it is.
    pub sender: Option<SenderId>,
    pub sender_name: String,
    pub text: String,
    pub media: Option<Media>,
}

/// Something attached to a message, still on WhatsApp's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    pub kind: MediaKind,
    /// As the sender declared it, such as `image/jpeg`.
    pub mime: String,
    /// As the sender called it. Never a path of ours.
    pub name: Option<String>,
    /// As the sender declared it.
    pub bytes: u64,
    /// How the bridge finds and decrypts it; only the bridge reads this.
    pub handle: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    Image,
    Video,
    /// A voice note.
    Voice,
    Audio,
    Document,
    Sticker,
}

impl MediaKind {
    /// In the database and in prompts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Voice => "voice",
            Self::Audio => "audio",
            Self::Document => "document",
            Self::Sticker => "sticker",
        }
    }
}

/// A new text for a message that was sent before. `message.id` is the edit's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub target: MessageId,
    pub message: IncomingMessage,
}

/// An emoji on a message; an empty one takes an earlier one back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    pub chat: ChatId,
    /// The reaction's own.
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    pub target: MessageId,
    pub emoji: String,
    pub sent_at: Timestamp,
}

/// Something that was done in a chat, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatNote {
    pub chat: ChatId,
    /// The note's own.
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    /// The message that it was done to, if it was to one.
    pub target: Option<MessageId>,
    pub text: String,
    pub sent_at: Timestamp,
}

/// What WhatsApp's server says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acked,
    /// Refused, with WhatsApp's code: 463 is "not the first to write to a stranger", 429 "too many".
    Nacked {
        code: u32,
    },
}

/// How the link to WhatsApp stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No account is linked.
    Unlinked,
    Pairing(Pairing),
    /// Linked, and on the way to WhatsApp.
    Connecting,
    Online,
    /// Another program took this link over.
    Replaced,
    /// The link was removed on the phone, or the account is locked.
    LoggedOut,
    Banned {
        until: Timestamp,
    },
    /// WhatsApp does not let this version in any more.
    Outdated,
    /// Offline until the disk has room again: what could not be stored stays with WhatsApp.
    DiskFull,
}

/// What the person has to do to link an account. The codes let whoever sees them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Nothing yet: WhatsApp is being asked for a code.
    Asking,
    Qr {
        code: Secret,
        until: Timestamp,
    },
    /// To be typed into the phone.
    Code {
        code: Secret,
        until: Timestamp,
    },
    /// A passkey has to confirm it: the request of the browser's WebAuthn interface, as JSON.
    Passkey {
        request: String,
    },
    /// The phone shows this code too.
    PasskeyCode {
        code: String,
    },
    /// The phone has agreed; the first synchronization runs.
    Agreed,
    /// It came to nothing.
    Failed(PairingFailure),
}

/// Why linking came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairingFailure {
    /// Nobody scanned or typed a code in time.
    TimedOut,
    /// WhatsApp does not give out codes for now.
    Throttled,
    /// WhatsApp does not know this phone number, or does not let it link.
    RefusedNumber,
    /// The phone has no room for another device, or the code was scanned by an app that cannot link.
    RefusedByPhone,
    /// WhatsApp cannot be reached.
    Unreachable,
    /// Anything else, in the library's words.
    Other(String),
}
