//! What an agent is told, and the people that it can mention, as values. `render` decides how a prompt looks.

use jiff::{SignedDuration, Timestamp};

use super::{Forwarded, MediaKind, MessageId, SenderId, VoiceWords};

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
    /// The place of the whole text, relative to the group's folder, if the prompt does not hold all of it.
    pub whole: Option<String>,
}

/// The author of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptAuthor {
    Kai,
    /// `id` never changes and belongs to one person only, since two people may have one name. Empty if
    /// unknown.
    Person {
        id: String,
        name: String,
    },
    /// nanokimi itself: what the owner has answered, say.
    Host,
    /// Nobody wrote it now: it was planned for the time at which it was sent.
    Task {
        id: i64,
        /// Zero if it is on time.
        late_by: SignedDuration,
        /// What it was answered with before, if the session does not know.
        last_answer: Option<LastAnswer>,
        /// What its command printed, which ran before.
        output: Option<String>,
    },
}

/// What an earlier run of a task has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    pub text: String,
    pub said_at: Timestamp,
}

/// The message that another message answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptQuote {
    pub id: MessageId,
    pub author: PromptAuthor,
    /// Only the person that quotes it says that it was so.
    pub is_claimed: bool,
    pub text: String,
    pub file: Option<PromptFile>,
    pub whole: Option<String>,
}

/// Something attached to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptFile {
    pub kind: MediaKind,
    /// As the sender named it.
    pub name: Option<String>,
    pub whereabouts: FileLocation,
    /// Of a voice note that was saved.
    pub words: Option<VoiceWords>,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileLocation {
    /// `path` is relative to the group's folder.
    Saved { path: String },
    /// It will not come. `reason` is a phrase such as `larger than 32 MB`.
    Missing { reason: String },
}

/// A person that can be mentioned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MentionablePerson {
    /// The name that they use for themselves; it is unique in this chat.
    pub name: String,
    pub id: SenderId,
}
