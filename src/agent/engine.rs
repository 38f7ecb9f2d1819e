//! What each engine speaks, and where it keeps its things: as values, so that nothing else needs an engine's
//! name.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::acp::AcpProtocol;
use super::kimi_cli_wire::WireProtocol;
use super::lines::run_protocol;
use super::messages::{AgentEvent, Request};
use crate::paths;
use crate::types::{Engine, Role};

/// Where every engine works, in its container.
const WORK_FOLDER: &str = paths::GROUP_IN_CONTAINER;

/// Speaks with an engine, in its own protocol, in a task of its own.
pub fn spawn_protocol<W, R>(
    engine: Engine,
    role: Role,
    stdin: W,
    stdout: R,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<AgentEvent>,
) where
    W: AsyncWrite + Send + Unpin + 'static,
    R: AsyncRead + Send + Unpin + 'static,
{
    match engine {
        Engine::KimiCli => {
            let protocol = WireProtocol::start_handshake(role);
            tokio::spawn(run_protocol(protocol, stdin, stdout, requests, events));
        }
        Engine::KimiCode => {
            let protocol = AcpProtocol::start_handshake(WORK_FOLDER);
            tokio::spawn(run_protocol(protocol, stdin, stdout, requests, events));
        }
    }
}

impl Engine {
    /// The folder in the container that the engine calls its own.
    pub fn home_in_container(self) -> &'static str {
        match self {
            Self::KimiCli => "/home/node/.kimi",
            Self::KimiCode => "/home/node/.kimi-code",
        }
    }

    /// Where the agent-runner finds the owner's `config.toml`. kimi-code reads its settings in its home and
    /// nowhere else, so that the owner's file lies beside them.
    pub fn config_path_in_container(self) -> &'static str {
        match self {
            Self::KimiCli => "/home/node/.kimi/config.toml",
            Self::KimiCode => "/home/node/.kimi-code/owner.toml",
        }
    }

    /// The folder of the engine's histories on the host, for an engine that came later: the first one has its
    /// histories in the folder above.
    pub fn sessions_apart(self) -> Option<&'static str> {
        match self {
            Self::KimiCli => None,
            Self::KimiCode => Some("kimi-code"),
        }
    }
}
