//! The guard against SSRF (server-side request forgery): which addresses are a public host's. A pure
//! decision; all other addresses are refused, and named for what they are.
//!
//! The blocks are those of IANA's registries of special-purpose addresses (RFC 6890 and what came after it).
//! Of IPv6 only global unicast passes, and nothing that carries an IPv4 address inside: which machine
//! translates it, and to what, cannot be seen from here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block's first address, how many leading bits its addresses share, and what they are called.
type AddressBlock<A> = (A, u32, &'static str);

const PRIVATE: &str = "a private address";
const LOOPBACK: &str = "a loopback address";
const LINK_LOCAL: &str = "a link-local address";
const MULTICAST: &str = "a multicast address";
const DOCUMENTATION: &str = "an address for documentation only";
const BENCHMARK: &str = "an address for benchmarks only";
const UNSPECIFIED: &str = "no address of a host";
const RESERVED: &str = "a reserved address";
const IPV4_INSIDE: &str = "an IPv6 address with an IPv4 address inside";

const SPECIAL_IPV4: [AddressBlock<Ipv4Addr>; 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, UNSPECIFIED),
    (Ipv4Addr::new(10, 0, 0, 0), 8, PRIVATE),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "an address of a carrier's own network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, LOOPBACK),
    // Most clouds serve here what their machines may know of themselves, keys included.
    (Ipv4Addr::new(169, 254, 0, 0), 16, LINK_LOCAL),
    // Azure does so here: a public address that leads from its machines to its own servers.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "an address of a cloud's own servers"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, PRIVATE),
    (Ipv4Addr::new(192, 0, 0, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 0, 2, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(192, 88, 99, 0), 24, RESERVED),
    (Ipv4Addr::new(192, 168, 0, 0), 16, PRIVATE),
    (Ipv4Addr::new(198, 18, 0, 0), 15, BENCHMARK),
    (Ipv4Addr::new(198, 51, 100, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(203, 0, 113, 0), 24, DOCUMENTATION),
    (Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST),
    (Ipv4Addr::BROADCAST, 32, "a broadcast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, RESERVED),
];

/// The one block out of which addresses are given to public hosts (RFC 4291, 2.4).
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks within [`GLOBAL_UNICAST`] that are for something else, then names for what lies outside of it.
const SPECIAL_IPV6: [AddressBlock<Ipv6Addr>; 16] = [
    // Teredo, which tunnels to an IPv4 address; the rest of 2001::/23 is for protocols, not for hosts.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, IPV4_INSIDE),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, RESERVED),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, DOCUMENTATION),
    // 6to4.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, IPV4_INSIDE),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, DOCUMENTATION),
    (Ipv6Addr::UNSPECIFIED, 128, UNSPECIFIED),
    (Ipv6Addr::LOCALHOST, 128, LOOPBACK),
    // IPv4-compatible, IPv4-mapped, IPv4-translated, and the two blocks of NAT64.
    (Ipv6Addr::UNSPECIFIED, 96, IPV4_INSIDE),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, IPV4_INSIDE),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, IPV4_INSIDE),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, IPV4_INSIDE),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, IPV4_INSIDE),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, PRIVATE),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, LINK_LOCAL),
    // What private addresses were once.
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, PRIVATE),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, MULTICAST),
];

/// What an address is that is not certainly a public host's, such as "a private address"; `None` for a public
/// host's.
pub fn special_address_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            find_block_name(&SPECIAL_IPV4, |(first, bits, _)| is_in_ipv4_block(address, first, bits))
        }
        IpAddr::V6(address) => {
            find_block_name(&SPECIAL_IPV6, |(first, bits, _)| is_in_ipv6_block(address, first, bits)).or_else(
                || {
                    let (first, bits) = GLOBAL_UNICAST;
                    (!is_in_ipv6_block(address, first, bits)).then_some(RESERVED)
                },
            )
        }
    }
}

fn find_block_name<A: Copy>(
    blocks: &[AddressBlock<A>],
    holds: impl Fn(AddressBlock<A>) -> bool,
) -> Option<&'static str> {
    blocks.iter().find(|block| holds(**block)).map(|(_, _, name)| *name)
}

fn is_in_ipv4_block(address: Ipv4Addr, first: Ipv4Addr, bits: u32) -> bool {
    (address.to_bits() ^ first.to_bits()).leading_zeros() >= bits
}

fn is_in_ipv6_block(address: Ipv6Addr, first: Ipv6Addr, bits: u32) -> bool {
    (address.to_bits() ^ first.to_bits()).leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_public_hosts_pass() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:2800:220:1::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert_eq!(special_address_kind(address.parse().unwrap()), None, "{address}");
        }
        for (address, name) in [
            ("0.0.0.0", UNSPECIFIED),
            ("0.1.2.3", UNSPECIFIED),
            ("10.0.0.1", PRIVATE),
            ("100.64.0.1", "an address of a carrier's own network"),
            ("100.100.100.200", "an address of a carrier's own network"),
            ("127.0.0.1", LOOPBACK),
            ("127.255.255.254", LOOPBACK),
            ("168.63.129.16", "an address of a cloud's own servers"),
            ("169.254.169.254", LINK_LOCAL),
            ("172.16.0.1", PRIVATE),
            ("172.31.255.255", PRIVATE),
            ("192.0.0.192", RESERVED),
            ("192.0.2.1", DOCUMENTATION),
            ("192.88.99.1", RESERVED),
            ("192.168.1.1", PRIVATE),
            ("198.18.0.1", BENCHMARK),
            ("198.19.255.255", BENCHMARK),
            ("198.51.100.1", DOCUMENTATION),
            ("203.0.113.1", DOCUMENTATION),
            ("224.0.0.1", MULTICAST),
            ("239.255.255.250", MULTICAST),
            ("240.0.0.1", RESERVED),
            ("255.255.255.255", "a broadcast address"),
            ("::", UNSPECIFIED),
            ("::1", LOOPBACK),
            ("::7f00:1", IPV4_INSIDE),
            ("::ffff:127.0.0.1", IPV4_INSIDE),
            ("::ffff:93.184.216.34", IPV4_INSIDE),
            ("::ffff:0:10.0.0.1", IPV4_INSIDE),
            ("64:ff9b::169.254.169.254", IPV4_INSIDE),
            ("64:ff9b:1::a00:1", IPV4_INSIDE),
            ("100::1", RESERVED),
            ("2001::1", IPV4_INSIDE),
            ("2001:2::1", RESERVED),
            ("2001:db8::1", DOCUMENTATION),
            ("2002:7f00:1::1", IPV4_INSIDE),
            ("3fff::1", DOCUMENTATION),
            ("4000::1", RESERVED),
            ("5f00::1", RESERVED),
            ("fc00::1", PRIVATE),
            ("fd00:ec2::254", PRIVATE),
            ("fe80::1", LINK_LOCAL),
            ("fec0::1", PRIVATE),
            ("ff02::1", MULTICAST),
        ] {
            assert_eq!(special_address_kind(address.parse().unwrap()), Some(name), "{address}");
        }
    }

    /// The same for IPv4, said once more with what the standard library knows.
    fn plainly_special(address: Ipv4Addr) -> bool {
        let [a, b, c, d] = address.octets();
        address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_documentation()
            || a == 0
            || a >= 240
            || (a == 100 && b & 0xc0 == 64)
            || (a == 198 && b & 0xfe == 18)
            || (a == 192 && b == 0 && c == 0)
            || (a == 192 && b == 88 && c == 99)
            || [a, b, c, d] == [168, 63, 129, 16]
    }

    /// Whole numbers rarely hit a block; these begin in one more often than not.
    fn addresses() -> impl Strategy<Value = Ipv4Addr> {
        let near = prop::sample::select(SPECIAL_IPV4.to_vec()).prop_flat_map(|(first, bits, _)| {
            let spread = u32::MAX.checked_shr(bits.saturating_sub(2)).unwrap_or(0);
            any::<u32>().prop_map(move |noise| Ipv4Addr::from_bits(first.to_bits() ^ (noise & spread)))
        });
        prop_oneof![any::<u32>().prop_map(Ipv4Addr::from_bits), near]
    }

    proptest! {
        #[test]
        fn ipv4_is_as_the_standard_library_knows_it(address in addresses()) {
            prop_assert_eq!(special_address_kind(address.into()).is_some(), plainly_special(address), "{}", address);
        }

        #[test]
        fn no_ipv4_address_passes_inside_of_an_ipv6_address(address in any::<u32>()) {
            let [high, low] = [(address >> 16) as u16, address as u16];
            for around in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
            ] {
                prop_assert!(special_address_kind(around.into()).is_some(), "{}", around);
            }
        }

        #[test]
        fn ipv6_passes_only_as_global_unicast(address in any::<u128>()) {
            let address = Ipv6Addr::from_bits(address);
            if special_address_kind(address.into()).is_none() {
                prop_assert_eq!(address.segments()[0] & 0xe000, 0x2000);
                prop_assert!(!address.is_multicast() && !address.is_unique_local() && !address.is_loopback());
            }
        }
    }
}
