//! What an agent is told, and whom it can mention, as values. How a prompt looks is `render`'s.

use jiff::Timestamp;

use super::{Forwarded, MediaKind, MessageId, SenderId};

/// One message as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptMessage {
    pub id: MessageId,
    pub author: PromptAuthor,
    pub text: String,
    pub sent_at: Timestamp,
    pub forwarded: Forwarded,
    pub quote: Option<PromptQuote>,
    pub file: Option<PromptFile>,
    /// Where the whole text is, if the prompt does not tell all of it; relative to the group's folder.
    pub whole: Option<String>,
}

/// Who wrote something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptAuthor {
    Kai,
    /// `id` is the same for ever, and nobody else's: two people may have one name. Empty where it is not known.
    Person {
        id: String,
        name: String,
    },
}

/// The message that another one answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptQuote {
    pub id: MessageId,
    pub author: PromptAuthor,
    /// Only the one who quotes it says that it was so.
    pub is_claimed: bool,
    pub text: String,
    pub file: Option<PromptFile>,
    pub whole: Option<String>,
}

/// Something attached to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptFile {
    pub kind: MediaKind,
    /// As the sender called it.
    pub name: Option<String>,
    pub whereabouts: FileLocation,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileLocation {
    /// `path` is relative to the group's folder.
    Saved { path: String },
    /// It will not come; `reason` is a phrase such as `larger than 32 MB`.
    Missing { reason: String },
}

/// Somebody who can be mentioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MentionablePerson {
    /// As they call themselves; nobody else of this chat does.
    pub name: String,
    pub id: SenderId,
}
