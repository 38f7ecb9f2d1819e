//! The egress proxy's server: one unix socket in the group's own folder, and the connections of its
//! container.
//!
//! The group is known by the socket, never by what a request says.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::api_proxy::ApiProxy;
use super::forward_proxy::{ForwardProxy, Network, SystemNetwork, TrafficCounter, Tunnel};
use super::ledger::Ledger;
use super::tool_server::{ToolCall, ToolServer};
use crate::panics::{WorkPanicked, catch_panic, lock_unpoisoned};
use crate::relay::{KimiUpstream, UnreadTimeoutStream};
use crate::types::{Failure, Group, GroupName, TokenUsage, WebTraffic};

/// The socket's name in the group's folder; agent-runner knows it too.
pub const SOCKET_NAME: &str = "door.sock";

/// Connections of one container at a time, and with that its requests at a time: an engine with a handful of
/// subagents stays far below. Further connections wait in the socket's backlog.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to send its request's head, or stay idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed accept, which means that the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The egress proxy of one group while it runs. Dropping it cuts its connections and removes the socket.
#[derive(Debug)]
pub struct EgressProxy {
    socket: SocketFile,
    ledger: Arc<Ledger>,
    traffic: Arc<TrafficCounter>,
    server: JoinHandle<()>,
}

/// Starts the egress proxy of a group, with the group's policy of now: makes `folder` (only for this user)
/// and listens on `door.sock` in it, in place of a socket that an earlier run has left. The calls of the host's
/// tools go to `tool_calls`.
///
/// # Errors
/// The folder or socket cannot be made, or `upstream` leads to a URL to which the login may not be sent:
/// neither `https` nor on this machine.
pub async fn start_egress_proxy(
    folder: &Path,
    upstream: KimiUpstream,
    group: &Group,
    tool_calls: mpsc::Sender<ToolCall>,
) -> Result<EgressProxy> {
    start_with_network(folder, upstream, group, tool_calls, SystemNetwork::new()).await
}

/// The same with a network of the caller's, such as a test's.
pub async fn start_with_network<N: Network>(
    folder: &Path,
    upstream: KimiUpstream,
    group: &Group,
    tool_calls: mpsc::Sender<ToolCall>,
    network: N,
) -> Result<EgressProxy> {
    let ledger = Arc::new(Ledger::default());
    let traffic = Arc::new(TrafficCounter::new(group.name.clone()));
    let api = ApiProxy::new(upstream, group.name.clone(), Arc::clone(&ledger)).await?;
    let web = ForwardProxy::new(group.name.clone(), group.web.clone(), network, Arc::clone(&traffic));
    let (listener, socket) = SocketFile::bind_in_folder(folder)
        .with_context(|| format!("Failed to start the egress proxy in {}", folder.display()))?;
    let upstreams = Arc::new(Upstreams { api, web, tools: ToolServer::new(group.role, tool_calls) });
    let server = tokio::spawn(accept_connections(listener, upstreams, group.name.clone()));
    Ok(EgressProxy { socket, ledger, traffic, server })
}

/// The ways out.
struct Upstreams<N> {
    api: ApiProxy,
    web: ForwardProxy<N>,
    tools: ToolServer,
}

impl EgressProxy {
    /// The tokens that answers have reported since the last call.
    pub fn take_usage(&self) -> TokenUsage {
        self.ledger.take_usage()
    }

    /// A turn begins, and may use this many tokens; after that the model is not asked again.
    pub fn begin_turn(&self, limit: Option<u64>) {
        self.ledger.begin_turn(limit);
    }

    /// From now on the running turn may use this many tokens in all.
    pub fn set_turn_limit(&self, limit: Option<u64>) {
        self.ledger.set_turn_limit(limit);
    }

    /// Resolves when an answer has used up what the running turn may use.
    pub async fn wait_for_turn_tokens(&self) {
        self.ledger.wait_for_turn_tokens().await;
    }

    /// Whether a request of the running turn was refused since that is used up.
    pub fn was_refused_over_turn_tokens(&self) -> bool {
        self.ledger.was_refused_over_turn_tokens()
    }

    /// Why the latest model request went wrong, if it did since the last call; a later success clears it.
    /// The engine itself says little about it.
    pub fn take_failure(&self) -> Option<Failure> {
        self.ledger.take_failure()
    }

    /// Whether any request for the model has ever come.
    pub fn was_model_asked(&self) -> bool {
        self.ledger.was_model_asked()
    }

    /// The bytes sent to the web and received from it since the last call.
    pub fn take_web_traffic(&self) -> WebTraffic {
        self.traffic.take_traffic()
    }
}

impl Drop for EgressProxy {
    fn drop(&mut self) {
        self.server.abort();
        self.socket.remove_if_own();
    }
}

/// The socket on disk. The inode tells it apart from one that a later egress proxy has put in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn bind_in_folder(folder: &Path) -> Result<(UnixListener, Self)> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .context("Failed to create the folder")?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).context("Failed to close the folder")?;
        let path = folder.join(SOCKET_NAME);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("Failed to remove the old socket"),
        }
        // A socket address holds 108 bytes; through the folder's descriptor every path is short.
        let descriptor = File::open(folder).context("Failed to open the folder")?;
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", descriptor.as_raw_fd());
        let listener = UnixListener::bind(short).context("Failed to listen")?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context("Failed to close the socket")?;
        let inode = fs::metadata(&path).context("Failed to look at the socket")?.ino();
        Ok((listener, Self { path, inode }))
    }

    fn remove_if_own(&self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("Failed to remove {}: {error}", self.path.display());
        }
    }
}

/// Accepts until it is aborted; its connections live in the set and end with it.
async fn accept_connections<N: Network>(
    listener: UnixListener,
    upstreams: Arc<Upstreams<N>>,
    group: GroupName,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(catch_panic(handle_connection(stream, Arc::clone(&upstreams))));
                }
                Err(error) => {
                    tracing::warn!("Failed to accept a connection at the egress proxy: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(WorkPanicked)) = ended {
                    tracing::error!(%group, "A connection at the egress proxy broke off");
                }
            }
        }
    }
}

async fn handle_connection<N: Network>(stream: UnixStream, upstreams: Arc<Upstreams<N>>) {
    // Set when the connection's last request has made a tunnel of it.
    let tunnel: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let tunnel_slot = Arc::clone(&tunnel);
    let service = service_fn(move |request| {
        let (upstreams, tunnel_slot) = (Arc::clone(&upstreams), Arc::clone(&tunnel_slot));
        async move {
            if ForwardProxy::<N>::is_proxy_request(&request) {
                let outcome = upstreams.web.proxy_request(request).await;
                *lock_unpoisoned(&tunnel_slot) = outcome.tunnel;
                return Ok::<_, Infallible>(outcome.response);
            }
            if ToolServer::is_tool_request(&request) {
                return Ok(upstreams.tools.handle_tool_request(request).await);
            }
            Ok(upstreams.api.proxy_request(request, upstreams.web.deny_kimi_web_request()).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(UnreadTimeoutStream::new(stream)), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        // A container hangs up in the middle when a turn is cancelled.
        tracing::debug!("A connection at the egress proxy broke: {error}");
    }
    let tunnel = lock_unpoisoned(&tunnel).take();
    if let Some(tunnel) = tunnel {
        tunnel.copy_both_ways().await;
    }
}
