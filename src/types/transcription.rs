//! Voice notes as words, and the server that makes them.

use super::Secret;

/// A server that speaks the audio transcription API of OpenAI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptionServer {
    /// The beginning of its addresses, without a slash at the end.
    pub base: String,
    pub key: Option<Secret>,
    pub model: String,
}

/// What is known of the words of a voice note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoiceWords {
    Heard(String),
    /// `reason` is a phrase for the agent, such as `the server took too long`.
    Unheard {
        reason: String,
    },
}
