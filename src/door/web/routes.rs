//! Which addresses are of a network that this machine is on itself, as the kernel's routing tables tell: reached without
//! a router in between, such as the printer at home, which has a public IPv6 address like everybody. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where Linux shows its main tables (proc(5)).
pub const IPV4_TABLE: &str = "/proc/net/route";
pub const IPV6_TABLE: &str = "/proc/net/ipv6_route";

/// A network of more addresses than this is nobody's own: a tunnel may carry half of the internet as one.
const IPV4_BITS_MIN: u32 = 8;
const IPV6_BITS_MIN: u32 = 32;

/// Whether a table has a route to this address that leads through no router.
pub fn is_on_link(table: &str, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => table.lines().filter_map(ipv4).any(|(network, mask)| {
            mask.leading_ones() >= IPV4_BITS_MIN && address.to_bits() & mask == network.to_bits()
        }),
        IpAddr::V6(address) => table.lines().filter_map(ipv6).any(|(network, bits)| {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            bits >= IPV6_BITS_MIN && address.to_bits() & mask == network.to_bits()
        }),
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`: the network and its mask, where there is no gateway.
fn ipv4(line: &str) -> Option<(Ipv4Addr, u32)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    // Written as the machine holds them, which is in the network's order.
    let address = |field: usize| {
        let bits = u32::from_str_radix(fields.get(field)?, 16).ok()?;
        Some(Ipv4Addr::from(bits.to_ne_bytes()))
    };
    let (network, gateway, mask) = (address(1)?, address(2)?, address(7)?);
    gateway.is_unspecified().then_some((network, mask.to_bits()))
}

/// `destination bits source bits next-hop …`: the network and its bits, where there is no next hop.
fn ipv6(line: &str) -> Option<(Ipv6Addr, u32)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let address = |field: usize| u128::from_str_radix(fields.get(field)?, 16).ok().map(Ipv6Addr::from_bits);
    let bits = u32::from_str_radix(fields.get(1)?, 16).ok().filter(|bits| *bits <= 128)?;
    address(4)?.is_unspecified().then_some((address(0)?, bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a little-endian machine shows them.
    #[cfg(target_endian = "little")]
    const IPV4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t01D8B85D\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00D8B85D\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
";
    const IPV6: &str = "\
20010db8000a000b0000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
20010db8000c00000000000000000000 30 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000100 00000001 00000000 00000003     eth0
20000000000000000000000000000000 03 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001      wg0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn what_no_router_leads_to_is_near() {
        for (table, address, near) in [
            (IPV4, "93.184.216.7", true),
            (IPV4, "93.184.217.7", false),
            (IPV4, "1.1.1.1", false),
            (IPV6, "2001:db8:a:b::7", true),
            (IPV6, "2001:db8:a:c::7", false),
            (IPV6, "2001:db8:c::7", false),
            (IPV6, "2606:4700::1111", false),
        ] {
            assert_eq!(is_on_link(table, address.parse().unwrap()), near, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_table_is_too_strange(table in "([0-9a-fA-F]{0,40}[ \t\n]){0,40}", address: u128) {
            is_on_link(&table, Ipv6Addr::from_bits(address).into());
            is_on_link(&table, Ipv4Addr::from_bits(address as u32).into());
        }
    }
}
