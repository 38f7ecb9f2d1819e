//! The engine in a container, spoken to over its stdio. `wire` is kimi-cli's protocol, `acp` kimi-code's, and `lines`
//! carries both; nothing outside this module knows an engine's name or words, and `engine` says what others need.
//!
//! [`Agent::start_protocol`] spawns one task that owns both pipes. Requests go in by [`Agent`], what happens comes out
//! as [`AgentEvent`]s; the last one is always [`AgentEvent::Gone`].

mod acp;
mod engine;
mod excerpt;
mod jsonrpc;
mod kimi_cli_wire;
mod lines;

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use engine::Engine;

use crate::types::Failure;

/// Requests on their way to the engine.
const REQUESTS_IN_FLIGHT: usize = 16;
/// Events on their way to the session; an engine that floods is read no faster than they are taken.
const EVENTS_IN_FLIGHT: usize = 64;

/// What is said to the engine: text that must already be wrapped (`render::prompt`), and pictures to look at.
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
    /// Adds to the running turn. Counts only once [`AgentEvent::SteerTaken`] came back; an engine that cannot take it says
    /// nothing.
    Steer(EngineInput),
    /// Ends the running turn early.
    Cancel,
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
    /// The oldest steer that was not yet taken has reached the model's input.
    SteerTaken,
    TurnOver(TurnEnd),
    /// The engine's stdout ended or was beyond understanding. Nothing follows.
    Gone(EngineLoss),
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    Finished,
    /// The engine says that it is done. It says so too of a turn that failed in the middle: the door knows.
    FinishedOrFailed,
    Cancelled,
    /// The engine's own bound on steps was reached.
    StepLimit(u64),
    /// The engine could not answer, as far as it tells.
    Failed(Failure),
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

/// The handle to a running engine.
#[derive(Clone, Debug)]
pub struct Agent {
    requests: mpsc::Sender<Request>,
}

impl Agent {
    /// Starts to speak with the engine behind these pipes.
    pub fn start_protocol<W, R>(engine: Engine, stdin: W, stdout: R) -> (Self, mpsc::Receiver<AgentEvent>)
    where
        W: AsyncWrite + Send + Unpin + 'static,
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (requests, request_receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        match engine {
            Engine::KimiCli => {
                tokio::spawn(lines::run_protocol(
                    kimi_cli_wire::WireProtocol::start_handshake(),
                    stdin,
                    stdout,
                    request_receiver,
                    event_sender,
                ));
            }
            Engine::KimiCode => {
                let conversation = acp::AcpProtocol::start_handshake(engine::WORK_FOLDER);
                tokio::spawn(lines::run_protocol(
                    conversation,
                    stdin,
                    stdout,
                    request_receiver,
                    event_sender,
                ));
            }
        }
        (Self { requests }, events)
    }

    /// Hands over a request, without waiting. It is dropped when the engine is gone, which `Gone` says, and when
    /// the engine reads nothing any more, which the session's deadlines end.
    pub fn queue_request(&self, request: Request) {
        self.requests.try_send(request).ok();
    }
}
