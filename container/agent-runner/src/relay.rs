//! The engine's only way out: a port on 127.0.0.1 in the container, carried byte for byte to the host's
//! egress proxy.
//!
//! Never reads what it carries: the egress proxy decides what may go where.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::{RunnerError, RunnerExitCode};

/// Connections carried at a time; a further one is closed at once. Each takes two threads, and a container
/// has 256 processes and threads in all.
const CONNECTIONS_MAX: usize = 32;

/// Enough for a copy loop, whose buffer is 8 KiB.
const STACK_BYTES: usize = 64 * 1024;

/// Opens the way, carries connections from now on, and says at which port.
///
/// # Errors
/// [`RunnerExitCode::Relay`]: the port is taken.
pub fn open_relay(port: u16, egress: PathBuf) -> Result<u16, RunnerError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let cannot = |error: io::Error| {
        RunnerError::new(RunnerExitCode::Relay, format!("Failed to listen on {address}: {error}"))
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    let port = listener.local_addr().map_err(cannot)?.port();
    small_stack_thread().spawn(move || accept_relay_clients(&listener, &Arc::new(egress))).map_err(cannot)?;
    Ok(port)
}

fn small_stack_thread() -> thread::Builder {
    thread::Builder::new().stack_size(STACK_BYTES)
}

fn accept_relay_clients(listener: &TcpListener, egress: &Arc<PathBuf>) {
    loop {
        let Ok((client, _)) = listener.accept() else {
            // The client has gone already, or there are no descriptors left until a connection ends.
            thread::yield_now();
            continue;
        };
        // One reference is ours, and each connection has one.
        if Arc::strong_count(egress) > CONNECTIONS_MAX {
            continue;
        }
        let egress = Arc::clone(egress);
        // If there is no thread to be had, the client is dropped, which closes the connection.
        small_stack_thread().spawn(move || relay_connection(&client, &egress)).ok();
    }
}

fn relay_connection(client: &TcpStream, egress: &PathBuf) {
    let Ok(egress) = UnixStream::connect(egress) else {
        return;
    };
    client.set_nodelay(true).ok();
    thread::scope(|scope| {
        let up = small_stack_thread().spawn_scoped(scope, || {
            io::copy(&mut &*client, &mut &egress).ok();
            egress.shutdown(Shutdown::Write).ok();
        });
        if up.is_ok() {
            io::copy(&mut &egress, &mut &*client).ok();
        }
        // The answer is over, or nobody hears it any more: nothing that still comes is of use.
        client.shutdown(Shutdown::Both).ok();
        egress.shutdown(Shutdown::Both).ok();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    /// A relay on any port, with the egress proxy's socket at its other end.
    fn relay() -> (SocketAddr, UnixListener, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door.sock");
        let egress = UnixListener::bind(&path).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || accept_relay_clients(&listener, &Arc::new(path)));
        (address, egress, folder)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    #[test]
    fn a_request_that_ends_still_gets_its_answer() {
        let (address, egress, _folder) = relay();
        let mut client = connect(address);
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut behind, _) = egress.accept().unwrap();
        let mut said = String::new();
        behind.read_to_string(&mut said).unwrap();
        assert_eq!(said, "question");
        behind.write_all(b"ans").unwrap();
        let mut first = [0; 3];
        client.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"ans", "the beginning of an answer does not wait for its end");
        behind.write_all(b"wer").unwrap();
        drop(behind);
        said.clear();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "wer");
    }

    #[test]
    fn much_goes_both_ways_at_once() {
        let (address, egress, _folder) = relay();
        let client = connect(address);
        let (behind, _) = egress.accept().unwrap();
        let echo = thread::spawn(move || io::copy(&mut &behind, &mut &behind).unwrap());
        let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
        let writer = client.try_clone().unwrap();
        let to_send = sent.clone();
        let writing = thread::spawn(move || {
            (&writer).write_all(&to_send).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        (&client).read_to_end(&mut back).unwrap();
        assert!(back == sent);
        writing.join().unwrap();
        echo.join().unwrap();
    }

    #[test]
    fn an_engine_that_hangs_up_is_seen_at_the_door() {
        let (address, egress, _folder) = relay();
        let mut client = connect(address);
        client.write_all(b"question").unwrap();
        let (mut behind, _) = egress.accept().unwrap();
        drop(client);
        let mut said = String::new();
        behind.read_to_string(&mut said).unwrap();
        assert_eq!(said, "question");
    }

    #[test]
    fn a_closed_door_closes_the_connection() {
        let (address, egress, folder) = relay();
        drop(egress);
        std::fs::remove_file(folder.path().join("door.sock")).unwrap();
        assert_eq!(connect(address).read(&mut [0; 1]).unwrap_or(0), 0);
    }

    #[test]
    fn too_many_connections_are_closed_and_room_comes_back() {
        let (address, egress, _folder) = relay();
        let held: Vec<_> =
            (0..CONNECTIONS_MAX).map(|_| (connect(address), egress.accept().unwrap())).collect();
        assert_eq!(connect(address).read(&mut [0; 1]).unwrap_or(0), 0);
        drop(held);
        // Threads end in their own time: try until one is carried.
        let carried = (0..1000).any(|_| {
            let mut client = connect(address);
            client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            matches!(client.read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        });
        assert!(carried);
    }
}
