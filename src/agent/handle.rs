//! The handle by which a session speaks with its running engine.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::engine;
use super::messages::{AgentEvent, Request};
use crate::types::{Engine, Role};

/// Requests on their way to the engine.
const REQUESTS_IN_FLIGHT: usize = 16;
/// Events on their way to the session. An engine that floods is read no faster than they are taken.
const EVENTS_IN_FLIGHT: usize = 64;

/// The handle to a running engine.
#[derive(Clone, Debug)]
pub struct Agent {
    requests: mpsc::Sender<Request>,
}

impl Agent {
    /// Starts to speak with the engine behind these pipes, which serves a group with this role.
    pub fn start_protocol<W, R>(
        engine: Engine,
        role: Role,
        stdin: W,
        stdout: R,
    ) -> (Self, mpsc::Receiver<AgentEvent>)
    where
        W: AsyncWrite + Send + Unpin + 'static,
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (requests, request_receiver) = mpsc::channel(REQUESTS_IN_FLIGHT);
        let (event_sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        engine::spawn_protocol(engine, role, stdin, stdout, request_receiver, event_sender);
        (Self { requests }, events)
    }

    /// Hands over a request, without waiting. It is dropped if the engine is gone, which
    /// [`AgentEvent::Gone`] says, and if the engine has stopped reading, which the session's deadlines end.
    pub fn queue_request(&self, request: Request) {
        self.requests.try_send(request).ok();
    }
}
