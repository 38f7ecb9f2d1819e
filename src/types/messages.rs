//! The values that pass between nanokimi and WhatsApp: what happened there, what to send, how the link is.
//!
//! JIDs are opaque strings here; only the bridge takes them apart.

use jiff::Timestamp;

use super::{ChatId, MessageId, Secret, SenderId};

/// What happened on WhatsApp, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(IncomingMessage),
    /// The author has changed a message.
    Edited(Edit),
    /// The author has deleted a message for everybody.
    Deleted {
        chat: ChatId,
        sender: SenderId,
        target: MessageId,
    },
    Reacted(Reaction),
    /// Somebody has done something that people see in the chat and that asks for nothing, such as a pin.
    Noted(ChatNote),
    /// A chat exists and has this name. `members` is set if it is a group and its size is known.
    Chat {
        id: ChatId,
        name: String,
        members: Option<u32>,
    },
    /// Two names of one person (a phone number's and a LID), or of the direct chat with that person.
    SamePerson {
        one: SenderId,
        other: SenderId,
    },
    /// The account of this link; told at every connection.
    Account(LinkedAccount),
    /// What WhatsApp's server says of a message that we sent.
    Answered {
        id: MessageId,
        answer: Answer,
    },
    /// What a device of another person says of a message that we sent. It is told only once.
    Receipt(Receipt),
    /// A message that we sent had no copy for this person's phone: WhatsApp had no keys of that phone.
    PhoneMissed {
        id: MessageId,
        person: SenderId,
    },
    /// Somebody has set WhatsApp up anew. They cannot read what was encrypted for their earlier keys.
    IdentityChanged {
        person: SenderId,
    },
    /// A message was sent, but could not be read.
    Unread(UnreadableMessage),
    /// A message that could not be read has now come, whatever is in it.
    ReadAfterAll {
        chat: ChatId,
        id: MessageId,
    },
    /// Somebody else is writing or recording. This is not stored.
    Typing {
        chat: ChatId,
    },
}

/// What a person's device says about a message of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub id: MessageId,
    pub person: SenderId,
    pub device: DeviceKind,
    pub kind: ReceiptKind,
}

/// One of a person's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Phone,
    /// Linked to the phone, such as a computer.
    Companion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptKind {
    /// The device has it and can read it.
    Delivered,
    /// The person has read it.
    Read,
    /// The device cannot read it, and asks for it once more.
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

/// The author of a message that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The phone of the linked account: only we ask it.
    OwnPhone,
    /// Any other person, whose device is asked by WhatsApp's own means.
    Somebody,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedAccount {
    /// The phone number's JID. The chat with this name is the chat with oneself.
    pub id: SenderId,
    pub lid: Option<SenderId>,
    /// The name that the owner uses on WhatsApp; empty if it is not known.
    pub name: String,
}

/// A message as the bridge delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingMessage {
    pub chat: ChatId,
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    /// The text, or a file's caption; empty if there is no text.
    pub text: String,
    pub sent_at: Timestamp,
    /// A native mention of the linked account, as the bridge understood it.
    pub mention: Mention,
    pub forwarded: Forwarded,
    pub quote: Option<Quote>,
    pub media: Option<Media>,
    /// After how many seconds messages of this chat disappear, if they do.
    pub expires_secs: Option<u32>,
}

/// Whether a message mentions the linked account natively (not by text).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention {
    Me,
    NotMe,
}

/// Whether the words are another person's, passed on from another chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    No,
    Once,
    /// Through a chain of five chats or more, as WhatsApp counts it.
    Many,
}

/// The message that another message answers. The client that quotes it says so, and may say anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub id: MessageId,
    /// `None` if the client does not say who wrote it.
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
    /// As the sender named it. Never used as a path of ours.
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
    /// The word for it in the database and in prompts.
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

/// An emoji on a message. An empty one removes the earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    pub chat: ChatId,
    /// The id of the reaction itself.
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
    /// The id of the note itself.
    pub id: MessageId,
    pub sender: SenderId,
    pub sender_name: String,
    /// The message that it was done to, if there is one.
    pub target: Option<MessageId>,
    pub text: String,
    pub sent_at: Timestamp,
}

/// What WhatsApp's server says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acked,
    /// Refused, with WhatsApp's code: 463 is "a stranger, and we write first", 429 is "too many messages".
    Nacked {
        code: u32,
    },
}

/// How the link to WhatsApp is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    Unlinked,
    Pairing(Pairing),
    /// Linked, and connecting to WhatsApp.
    Connecting,
    Online,
    /// Another program took over this link.
    Replaced,
    /// The link was removed on the phone, or the account is locked.
    LoggedOut,
    Banned {
        until: Timestamp,
    },
    /// WhatsApp no longer accepts this version.
    Outdated,
    /// Offline until the disk has room again. What could not be stored stays with WhatsApp.
    DiskFull,
}

/// What a person has to do to link an account. A person that sees these codes can get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Nothing yet: we are asking WhatsApp for a code.
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
    /// A passkey has to confirm the link. This is the request of the browser's WebAuthn interface, as JSON.
    Passkey {
        request: String,
    },
    /// The phone shows this code too.
    PasskeyCode {
        code: String,
    },
    /// The phone has agreed; the first synchronization runs.
    Agreed,
    /// Linking has failed.
    Failed(PairingFailure),
}

/// Why linking has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairingFailure {
    /// The code was not scanned or typed in time.
    TimedOut,
    /// WhatsApp gives out no codes at the moment.
    Throttled,
    /// WhatsApp does not know this phone number, or does not let it link.
    RefusedNumber,
    /// The phone has no room for another device, or the app that scanned the code cannot link.
    RefusedByPhone,
    /// WhatsApp cannot be reached.
    Unreachable,
    /// Anything else, in the library's words.
    Other(String),
}
