//! The seam to the web: what names lead to, and connections to addresses. The only place that resolves and
//! connects.
//!
//! It decides only which addresses are too near (`local_address_kind`). What is connected to was checked before, and
//! is always an address, never a name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;

use super::local_networks::{self, KernelRoute};
use crate::types::HostName;

/// Lookups of one container at a time. The system's resolver holds a thread until it answers or gives up,
/// however long that takes, even if the request is gone by then.
const LOOKUPS_MAX: usize = 8;

/// The number of the one question that is asked on a socket.
const SEQUENCE: u32 = 1;
/// Longest answer of the kernel in bytes: a route by way of hundreds of routers.
const ANSWER_MAX: usize = 16 * 1024;

pub trait Network: Send + Sync + 'static {
    /// All addresses of a name, in the order in which they are best tried.
    fn lookup_addresses(&self, name: &HostName) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;

    fn connect_to_address(&self, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// What an address is, if it is this machine's own or in a network that the machine is on.
    fn local_address_kind(&self, address: IpAddr) -> Option<&'static str>;
}

/// The real one: this machine's resolver and routes.
#[derive(Debug)]
pub struct SystemNetwork {
    lookups: Arc<Semaphore>,
}

impl SystemNetwork {
    pub fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Network for SystemNetwork {
    async fn lookup_addresses(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
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

    async fn connect_to_address(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Asks the kernel.
    fn local_address_kind(&self, address: IpAddr) -> Option<&'static str> {
        match query_kernel_route(address) {
            Ok(Some(KernelRoute::Own)) => Some("an address of this machine"),
            Ok(Some(KernelRoute::OnLink)) => Some("an address of this machine's own network"),
            Ok(Some(KernelRoute::Away | KernelRoute::Nowhere)) => None,
            Ok(None) | Err(_) => Some(UNKNOWN),
        }
    }
}

/// Asks the kernel, which answers at once.
fn query_kernel_route(address: IpAddr) -> io::Result<Option<KernelRoute>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol this is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &local_networks::build_route_query(address, SEQUENCE), SendFlags::empty(), &kernel)?;
    let mut answer = [0; ANSWER_MAX];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    Ok(local_networks::parse_route_reply(answer.get(..length).unwrap_or_default(), address, SEQUENCE))
}

/// Said if the kernel cannot be asked, or its answer is not understood.
const UNKNOWN: &str = "an address that may be this machine's own";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let near = |address: &str| SystemNetwork::new().local_address_kind(address.parse().unwrap());
        assert_eq!(near("127.0.0.1"), Some("an address of this machine"));
        assert_eq!((near("203.0.113.1"), near("2001:db8::1")), (None, None));
    }

    /// Set inside of the namespace of [`the_kernel_is_asked_about_each_address`].
    const INSIDE: &str = "TEST_INSIDE_OF_A_NETWORK";
    /// A cable with a router, and routes of every kind beside the main table.
    const NETWORK: &str = "
        ip link set lo up
        ip link add cable type dummy || ip link add cable type veth peer name end
        ip link set cable up
        ip addr add 93.184.216.1/24 dev cable
        ip addr add 2606:2800:220:1::1/64 dev cable nodad
        ip route add default via 93.184.216.254
        ip -6 route add default via 2606:2800:220:1::fe
        ip route add 198.20.0.0/24 dev cable table 100
        ip route add 198.20.1.0/24 via 93.184.216.253 table 100
        ip rule add to 198.20.0.0/16 table 100
        ip -6 route add 2a00:1450:1::/64 dev cable table 100
        ip -6 rule add to 2a00:1450:1::/48 table 100
        ip route add 5.5.5.0/24 nexthop via 93.184.216.253 nexthop via 93.184.216.252
        ip route add 5.5.6.0/24 nexthop via 93.184.216.253 nexthop dev cable
        ip route add unreachable 6.6.6.0/24
        ip route add local 7.7.7.0/24 dev lo
        ip route add 9.9.9.0/24 via inet6 fe80::1 dev cable
        ip route add 128.0.0.0/1 dev cable";

    #[test]
    fn the_kernel_is_asked_about_each_address() {
        if std::env::var_os(INSIDE).is_some() {
            return each_address_is_as_near_as_its_route();
        }
        let this_test = "egress::forward_proxy::network::tests::the_kernel_is_asked_about_each_address";
        let script = format!("set -e; {NETWORK}\nexec \"$0\" --exact {this_test} --nocapture");
        let inside = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[inside.stdout, inside.stderr].concat()).into_owned();
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
    }

    fn each_address_is_as_near_as_its_route() {
        let (own, near) = ("an address of this machine", "an address of this machine's own network");
        for (address, expected) in [
            ("127.0.0.1", Some(own)),
            ("93.184.216.1", Some(own)),
            ("7.7.7.7", Some(own)),
            ("2606:2800:220:1::1", Some(own)),
            ("93.184.216.7", Some(near)),
            ("93.184.216.255", Some(near)),
            ("198.20.0.7", Some(near)),
            ("5.5.6.5", Some(near)),
            ("2606:2800:220:1::7", Some(near)),
            ("2a00:1450:1::7", Some(near)),
            ("8.8.8.8", None),
            ("198.20.1.7", None),
            ("5.5.5.5", None),
            ("6.6.6.6", None),
            ("9.9.9.9", None),
            ("200.1.1.1", None),
            ("2a00:1450:2::7", None),
        ] {
            assert_eq!(
                SystemNetwork::new().local_address_kind(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_on_this_machine() {
        let network = SystemNetwork::new();
        let local = HostName::parse("localhost").unwrap();
        let found = network.lookup_addresses(&local).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert_eq!(network.lookups.available_permits(), LOOKUPS_MAX);
    }
}
