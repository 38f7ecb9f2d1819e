//! The gateway's HTTP server: where it listens, and its connections, each within bounds.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client_check::LocalEnd;
use super::handler::Gateway;
use crate::panics::{WorkPanicked, catch_panic};
use crate::relay::UnreadTimeoutStream;
use crate::types::GatewayAddress;

/// Connections of all clients at a time: each client keeps a handful open. Further ones wait in the socket's backlog.
pub const CONNECTIONS_MAX: usize = 128;
/// How long a connection may take to send a request's head, or stay idle between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request in bytes: that of Claude Code, the longest that is known, has 2 KB.
pub const HEAD_MAX: usize = 32 * 1024;
/// Most bytes that are read from a connection before they are looked at.
const READ_BUFFER: usize = 64 * 1024;
/// The pause after a failed accept, which means that the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often an address that is taken is tried again.
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// A gateway that listens. Dropping it removes its socket.
#[derive(Debug)]
pub struct GatewayServer {
    listener: GatewayListener,
    address: GatewayAddress,
}

#[derive(Debug)]
enum GatewayListener {
    Loopback { listener: TcpListener, port: u16 },
    Unix { listener: UnixListener, _file: GatewaySocketFile },
}

impl GatewayServer {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    /// Somebody else listens there, or this user may not.
    pub async fn bind(address: &GatewayAddress) -> Result<Self> {
        let explain = || format!("Failed to listen on {address}");
        match address {
            GatewayAddress::Loopback(wanted) => {
                let listener = TcpListener::bind(wanted).await.with_context(explain)?;
                let bound = listener.local_addr().with_context(explain)?;
                let listener = GatewayListener::Loopback { listener, port: bound.port() };
                Ok(Self { listener, address: GatewayAddress::Loopback(bound) })
            }
            GatewayAddress::Unix(path) => {
                let (listener, file) = GatewaySocketFile::bind_socket(path).with_context(explain)?;
                let listener = GatewayListener::Unix { listener, _file: file };
                Ok(Self { listener, address: address.clone() })
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &GatewayAddress {
        &self.address
    }

    async fn accept_client(&self) -> io::Result<AcceptedClient> {
        match &self.listener {
            GatewayListener::Loopback { listener, port } => {
                let (stream, _) = listener.accept().await?;
                // A streamed answer is many small pieces, none of which waits for the next.
                stream.set_nodelay(true)?;
                Ok(AcceptedClient::Loopback(stream, *port))
            }
            GatewayListener::Unix { listener, .. } => Ok(AcceptedClient::Unix(listener.accept().await?.0)),
        }
    }

    /// Serves until it is dropped.
    pub async fn serve(self, gateway: Arc<Gateway>) -> Infallible {
        tracing::info!(address = %self.address, "The gateway listens");
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.accept_client(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok(AcceptedClient::Loopback(stream, port)) => {
                        let serving = serve_connection(stream, LocalEnd::Loopback { port }, Arc::clone(&gateway));
                        connections.spawn(catch_panic(serving));
                    }
                    Ok(AcceptedClient::Unix(stream)) => {
                        let serving = serve_connection(stream, LocalEnd::Unix, Arc::clone(&gateway));
                        connections.spawn(catch_panic(serving));
                    }
                    Err(error) => {
                        tracing::warn!("Failed to accept a connection at the gateway: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Ok(Err(WorkPanicked)) = ended {
                        tracing::error!("A connection at the gateway broke off");
                    }
                }
            }
        }
    }
}

/// Serves for as long as the service runs. An address that is taken is tried again: the chats go on meanwhile.
pub async fn serve_while_enabled(address: &GatewayAddress, gateway: Arc<Gateway>) -> Infallible {
    loop {
        match GatewayServer::bind(address).await {
            Ok(server) => match server.serve(gateway).await {},
            Err(error) => {
                tracing::warn!("The gateway for coding tools cannot start, and tries again: {error:#}");
                sleep(BIND_AGAIN_AFTER).await;
            }
        }
    }
}

/// A client that has come, with the port that it came to.
enum AcceptedClient {
    Loopback(TcpStream, u16),
    Unix(UnixStream),
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    local: LocalEnd,
    gateway: Arc<Gateway>,
) {
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(gateway.answer_request(request, local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_MAX)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(UnreadTimeoutStream::new(stream)), service);
    if let Err(error) = connection.await {
        // A client hangs up in the middle when its person cancels.
        tracing::debug!("A connection at the gateway broke: {error}");
    }
}

/// The socket on disk. The inode tells it apart from one that a later gateway has put in its place.
#[derive(Debug)]
struct GatewaySocketFile {
    path: PathBuf,
    inode: u64,
}

impl GatewaySocketFile {
    /// Only this user may connect. A socket on which nobody listens is left over, and replaced.
    fn bind_socket(path: &Path) -> Result<(UnixListener, Self)> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{} is there already, and is no socket; move it away", path.display());
            }
            Ok(_) if BlockingUnixStream::connect(path).is_ok() => {
                bail!("Another program listens on {}", path.display());
            }
            Ok(_) => fs::remove_file(path).context("Failed to remove the old socket")?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("Failed to look for an old socket"),
        }
        let listener = UnixListener::bind(path).context("Failed to make the socket")?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).context("Failed to close the socket")?;
        let inode = fs::metadata(path).context("Failed to look at the socket")?.ino();
        Ok((listener, Self { path: path.to_owned(), inode }))
    }
}

impl Drop for GatewaySocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("Failed to remove {}: {error}", self.path.display());
        }
    }
}
