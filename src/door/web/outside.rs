//! The seam to the web: what names lead to, and connections to addresses. The only place that resolves and connects.
//!
//! It decides nothing: an address that is asked for here has been checked, and names are never connected to.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

use crate::types::HostName;

/// Names of one container that are looked up at a time. The system's resolver holds a thread until it answers or gives
/// up, however long that takes; who waits for it may have gone by then.
const LOOKUPS_MAX: usize = 8;

pub trait Outside: Send + Sync + 'static {
    /// All addresses of a name, in the order in which they are best tried.
    fn addresses_of(&self, name: &HostName) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Whether an address is one of this machine's own.
    fn is_this_machine(&self, address: IpAddr) -> bool;
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

    /// The kernel knows: nobody can bind another machine's address. (With `net.ipv4.ip_nonlocal_bind` they can, and
    /// everything would be this machine; few servers set that.)
    fn is_this_machine(&self, address: IpAddr) -> bool {
        UdpSocket::bind((address, 0)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let here = |address: &str| Internet::new().is_this_machine(address.parse().unwrap());
        assert!(here("127.0.0.1"));
        assert!(!here("192.0.2.1") && !here("2001:db8::1"));
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
