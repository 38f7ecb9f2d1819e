//! The door: a group's only way out of its container, an HTTP server on one unix socket in the group's own
//! folder.
//!
//! Who knocks is known by the socket, never by what the request says. What passes is one of two roads, `road` and `web`:
//!
//! ```text
//! /coding/v1/*   ──▶  relay: the stand-in login becomes the real one          ──▶  the Kimi API
//! CONNECT, http: ──▶  web: the group's policy, and public addresses only      ──▶  the web
//! anything else  ──▶  a plain refusal
//! ```
//!
//! `asked` reads which model a request is for, and whether Kimi would go to the web for it where that is closed. `meter` reads the token usage from the
//! answers while they pass. The real login goes into one request
//! header and nowhere else: never into a log, an error or an answer. The door decides nothing about turns; it
//! keeps what it saw for the session to take.

mod api_routes;
mod error_response;
mod forward_proxy;
mod ledger;
mod meter;
mod relay;
mod request_body;
mod request_check;
mod retry_policy;
mod unread;

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::panics::{WorkPanicked, catch_panic};
use crate::types::{Authorization, Failure, Group, GroupName, Secret, TokenUsage, WebTraffic};
use forward_proxy::{ForwardProxy, Network, SystemNetwork, TrafficCounter, Tunnel};
use ledger::Ledger;
use relay::Relay;
use unread::UnreadTimeoutStream;

/// The socket's name in the group's folder; the container's side knows it too.
pub const SOCKET_NAME: &str = "door.sock";

/// Connections of one container at a time, and with that its requests at a time: an engine with a handful of
/// subagents stays far below. Whoever comes after waits in the socket's backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to send its request's head, or stay idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a failed accept, which means that the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where all doors of an install lead, and as whom. Clones share one client.
#[derive(Clone, Debug)]
pub struct KimiUpstream {
    base: String,
    authorization: watch::Receiver<Authorization>,
    refusals: watch::Sender<Option<Secret>>,
    /// The models that engines are told of; none where that is not known.
    models: Vec<String>,
    /// Made at the first door: it reads the system's trust store, some milliseconds and a megabyte.
    client: Arc<OnceCell<reqwest::Client>>,
}

impl KimiUpstream {
    /// `base` is the Kimi API without a trailing slash, such as `https://api.kimi.com/coding/v1`;
    /// `authorization` is read at every request; a login that the API refuses is put into `refusals`, and another one
    /// awaited for a while.
    pub fn new(
        base: impl Into<String>,
        authorization: watch::Receiver<Authorization>,
        refusals: watch::Sender<Option<Secret>>,
    ) -> Self {
        Self { base: base.into(), authorization, refusals, models: Vec::new(), client: Arc::default() }
    }

    /// The same for engines that are told of these models: that Kimi does not give another one is no trouble of the
    /// account.
    pub fn with_models(self, models: Vec<String>) -> Self {
        Self { models, ..self }
    }
}

/// An open door. Dropping it cuts its connections and removes the socket.
#[derive(Debug)]
pub struct EgressProxy {
    socket: SocketFile,
    ledger: Arc<Ledger>,
    traffic: Arc<TrafficCounter>,
    server: JoinHandle<()>,
}

/// Opens the door of a group, as it is now: makes `folder` (only for this user) and listens on `door.sock` in it,
/// in place of a socket that an earlier run has left.
///
/// # Errors
/// The folder or socket cannot be made, or `upstream` leads to a URL to which the login may not be sent:
/// neither `https` nor on this machine.
pub async fn start_egress_proxy(folder: &Path, upstream: KimiUpstream, group: &Group) -> Result<EgressProxy> {
    start_with_network(folder, upstream, group, SystemNetwork::new()).await
}

async fn start_with_network<O: Network>(
    folder: &Path,
    upstream: KimiUpstream,
    group: &Group,
    outside: O,
) -> Result<EgressProxy> {
    let ledger = Arc::new(Ledger::default());
    let traffic = Arc::new(TrafficCounter::new(group.name.clone()));
    let relay = Relay::new(upstream, Arc::clone(&ledger)).await?;
    let web = ForwardProxy::new(group.name.clone(), group.web.clone(), outside, Arc::clone(&traffic));
    let (listener, socket) = SocketFile::bind_in_folder(folder)
        .with_context(|| format!("Failed to open the door in {}", folder.display()))?;
    let server =
        tokio::spawn(accept_connections(listener, Arc::new(Upstreams { relay, web }), group.name.clone()));
    Ok(EgressProxy { socket, ledger, traffic, server })
}

/// Where a door leads.
struct Upstreams<O> {
    relay: Relay,
    web: ForwardProxy<O>,
}

impl EgressProxy {
    /// The tokens that answers have reported since the last call.
    pub fn take_usage(&self) -> TokenUsage {
        self.ledger.take_usage()
    }

    /// Why the latest model request went wrong, if it did since the last call; a later success clears it.
    /// The engine tells its users little of this.
    pub fn take_failure(&self) -> Option<Failure> {
        self.ledger.take_failure()
    }

    /// Whether the model was ever asked anything here.
    pub fn was_model_asked(&self) -> bool {
        self.ledger.was_model_asked()
    }

    /// The bytes that went to the web and came from it since the last call.
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

/// The socket on disk, told apart from one that a later door has put in its place.
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
async fn accept_connections<O: Network>(listener: UnixListener, roads: Arc<Upstreams<O>>, group: GroupName) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(catch_panic(handle_connection(stream, Arc::clone(&roads))));
                }
                Err(error) => {
                    tracing::warn!("Failed to accept a connection at the door: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(WorkPanicked)) = ended {
                    tracing::error!(%group, "A connection at the door broke off");
                }
            }
        }
    }
}

async fn handle_connection<O: Network>(stream: UnixStream, roads: Arc<Upstreams<O>>) {
    // Where the connection leads when its last request has made a tunnel of it.
    let tunnel: Arc<Mutex<Option<Tunnel>>> = Arc::default();
    let place = Arc::clone(&tunnel);
    let answer = service_fn(move |request| {
        let (roads, place) = (Arc::clone(&roads), Arc::clone(&place));
        async move {
            if ForwardProxy::<O>::is_proxy_request(&request) {
                let answer = roads.web.proxy_request(request).await;
                *place.lock().unwrap_or_else(PoisonError::into_inner) = answer.tunnel;
                return Ok::<_, Infallible>(answer.response);
            }
            Ok(roads.relay.relay_request(request, roads.web.deny_kimi_web_request()).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(UnreadTimeoutStream::new(stream)), answer)
        .with_upgrades();
    if let Err(error) = connection.await {
        // A container that hangs up in the middle is no news: that is how a turn is cancelled.
        tracing::debug!("A connection at the door broke: {error}");
    }
    let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.copy_both_ways().await;
    }
}

#[cfg(test)]
mod tests;
