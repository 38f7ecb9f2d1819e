//! A socket in the folder of the database, by which another process says that it has changed tasks.
//!
//! The rows are the truth: a signal that does not arrive only makes the service look later.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::Path;

use tokio::net::UnixDatagram;

/// The end of the service.
pub struct TaskSignal {
    /// `None` if it could not be made, such as for a path that is too long for a socket.
    socket: Option<UnixDatagram>,
}

impl TaskSignal {
    /// Listens at this path. What an earlier run left there goes: one process at a time works on an install.
    pub fn bind(path: &Path) -> Self {
        fs::remove_file(path).ok();
        let socket = UnixDatagram::bind(path);
        if let Err(error) = &socket {
            tracing::warn!("Failed to listen for changes of tasks; they are seen later: {error}");
        }
        Self { socket: socket.ok() }
    }

    /// Resolves when another process has changed tasks.
    pub async fn wait_for_signal(&self) {
        let mut signal = [0; 1];
        let heard = match &self.socket {
            Some(socket) => socket.recv(&mut signal).await.is_ok(),
            None => false,
        };
        if !heard {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells the service that tasks have changed.
///
/// # Errors
/// No service listens.
pub fn signal_changed_tasks(path: &Path) -> io::Result<()> {
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match socket.send_to(&[1], path) {
        // Signals enough wait there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent.map(drop),
    }
}
