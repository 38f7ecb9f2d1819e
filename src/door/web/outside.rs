//! The seam to the web: what names lead to, and connections to addresses. The only place that resolves and connects.
//!
//! It decides nothing: an address that is asked for here has been checked, and names are never connected to.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

use super::routes;
use crate::types::HostName;

/// Names of one container that are looked up at a time. The system's resolver holds a thread until it answers or gives
/// up, however long that takes; who waits for it may have gone by then.
const LOOKUPS_MAX: usize = 8;

pub trait Outside: Send + Sync + 'static {
    /// All addresses of a name, in the order in which they are best tried.
    fn addresses_of(&self, name: &HostName) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// What an address is, where it is one of this machine's own or of a network that it is on.
    fn nearness(&self, address: IpAddr) -> Option<&'static str>;
}

/// The real one: this machine's resolver and routes.
#[derive(Debug)]
pub struct Internet {
    lookups: Arc<Semaphore>,
}

impl Internet {
    pub fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Outside for Internet {
    async fn addresses_of(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.as_str().to_owned();
        // In a task of its own, so that the permit lasts as long as the resolver's work.
        let found = tokio::spawn(async move {
            let found = lookup_host((name, 0)).await.map(|found| found.map(|one| one.ip()).collect());
            drop(permit);
            found
        });
        found.await.map_err(io::Error::other)?
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The kernel knows both. Nobody can bind another machine's address. (With `net.ipv4.ip_nonlocal_bind` they can, and
    /// everything would be this machine; few servers set that.)
    fn nearness(&self, address: IpAddr) -> Option<&'static str> {
        let table = match address {
            IpAddr::V4(_) => routes::IPV4_TABLE,
            IpAddr::V6(_) => routes::IPV6_TABLE,
        };
        let table = match fs::read_to_string(table) {
            Ok(table) => table,
            // Where there is no such table, there is no such protocol.
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(_) => return Some(UNKNOWN),
        };
        match UdpSocket::bind((address, 0)) {
            Ok(_) => return Some("an address of this machine"),
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {}
            Err(_) => return Some(UNKNOWN),
        }
        routes::is_on_link(&table, address).then_some("an address of this machine's own network")
    }
}

/// Said where this machine has no room left to look.
const UNKNOWN: &str = "an address that may be this machine's own";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let near = |address: &str| Internet::new().nearness(address.parse().unwrap());
        assert_eq!(near("127.0.0.1"), Some("an address of this machine"));
        assert_eq!((near("203.0.113.1"), near("2001:db8::1")), (None, None));
    }

    #[tokio::test]
    async fn names_are_looked_up_on_this_machine() {
        let internet = Internet::new();
        let local = HostName::parse("localhost").unwrap();
        let found = internet.addresses_of(&local).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(internet.lookups.available_permits(), LOOKUPS_MAX);
    }
}
