//! What the session and its engine say to each other, whatever protocol carries it.

use std::fmt;

use crate::tools::{HostTool, ToolAnswer};
use crate::types::Failure;

/// Input for the engine: text, which must already be wrapped (`render::prompt`), and pictures to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInput {
    pub text: String,
    pub images: Vec<Image>,
}

impl EngineInput {
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), images: Vec::new() }
    }
}

/// A picture as the model gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Such as `image/png`.
    pub mime: &'static str,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {} bytes)", self.mime, self.bytes.len())
    }
}

/// What the session asks of its engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begins a turn; ends with one [`AgentEvent::TurnOver`].
    Prompt(EngineInput),
    /// Adds to the running turn. Counts only once [`AgentEvent::SteerTaken`] came back. An engine that cannot
    /// take it says nothing.
    Steer(EngineInput),
    /// Has the engine put its history into a summary; ends with one [`AgentEvent::CompactionOver`].
    Compact,
    /// Ends the running turn early.
    Cancel,
    /// What came of [`AgentEvent::ToolCalled`].
    ToolAnswer { id: String, answer: ToolAnswer },
    /// Closes the engine's stdin: it saves and ends by itself.
    Close,
}

/// What the engine reports, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// The handshake is done; prompts are welcome.
    Ready,
    /// The engine calls the model: from the first of these on, steers reach the turn.
    StepBegan,
    /// A piece of the answer. Pieces of one step follow each other without a gap.
    AnswerText(String),
    /// The engine uses a tool.
    Working {
        tool: String,
    },
    /// The engine calls a tool of the host over its own protocol, and waits for a [`Request::ToolAnswer`]. An
    /// engine that calls them over MCP says nothing of it here.
    ToolCalled(EngineToolCall),
    /// The oldest steer that was not yet taken has reached the model's input.
    SteerTaken,
    TurnOver(TurnEnd),
    CompactionOver(CompactionEnd),
    /// The engine's stdout ended or was beyond understanding. Nothing follows.
    Gone(EngineLoss),
}

/// A call of a tool of the host, as an engine's protocol carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineToolCall {
    pub id: String,
    pub tool: HostTool,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    Finished,
    /// The engine says that it is done. It also says so if the turn failed in the middle: the egress proxy
    /// knows.
    FinishedOrFailed,
    Cancelled,
    /// The engine's own bound on steps was reached.
    StepLimit(u64),
    /// The engine could not answer, as far as it says.
    Failed(Failure),
}

/// What came of [`Request::Compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionEnd {
    Done,
    /// There is no history yet.
    NothingThere,
    Failed,
}

/// How an engine was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineLoss {
    /// stdout closed after the handshake.
    Ended,
    /// stdout closed before the handshake; the lines that came instead, cut short.
    NeverReady { said: String },
    /// A line that is not the protocol, cut short, or one that was too long.
    Garbage { said: String },
}
