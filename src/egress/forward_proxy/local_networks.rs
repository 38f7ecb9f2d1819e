//! How the kernel would reach an address, by its own answer (rtnetlink(7)): through a router, or without one,
//! such as a printer at home, which may have a public IPv6 address. The kernel knows every table and rule,
//! also those that route single addresses another way (ip-rule(8)). Pure: makes the question and reads the
//! answer.
//!
//! ```text
//! nlmsghdr  length:4 type:2 flags:2 sequence:4 port:4
//! rtmsg     family:1 bits:1 0:1 0:1 table:1 protocol:1 scope:1 kind:1 flags:4
//! rtattr …  length:2 type:2 value, padded to 4
//! ```

use std::net::IpAddr;

/// A larger network than this is no local one: a tunnel may carry half of the internet as one network.
const IPV4_BITS_MIN: u8 = 8;
const IPV6_BITS_MIN: u8 = 32;

// linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
/// The route as it stands in its table, not only what is made of it for one address.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
/// The type of an attribute is in the lower bits.
const NLA_TYPE_MASK: u16 = 0x3fff;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTN_ANYCAST: u8 = 4;
const RTN_MULTICAST: u8 = 5;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTN_PROHIBIT: u8 = 8;
// errno(3), if there is no route, or no such protocol.
const EACCES: i32 = 13;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;

const MESSAGE_HEAD: usize = 16;
const ROUTE_HEAD: usize = 12;
const NEXT_HOP_HEAD: usize = 8;

/// How the kernel reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelRoute {
    /// It is this machine's own.
    Own,
    /// It is in a network that this machine is on.
    OnLink,
    /// A router leads there, or a tunnel to all the world.
    Away,
    /// Nothing leads there.
    Nowhere,
}

/// The question to the kernel for its route to an address.
pub fn build_route_query(address: IpAddr, sequence: u32) -> Vec<u8> {
    let octets = address_octets(address);
    let attribute = (4 + octets.len()) as u16;
    let length = MESSAGE_HEAD + ROUTE_HEAD + usize::from(attribute);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([address_family(address), (octets.len() * 8) as u8, 0, 0, 0, 0, 0, 0]);
    message.extend(RTM_F_FIB_MATCH.to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(octets);
    message
}

/// What the kernel has answered to the question with this number; `None` if that is not understood.
pub fn parse_route_reply(message: &[u8], address: IpAddr, sequence: u32) -> Option<KernelRoute> {
    let length = usize::try_from(u32_at(message, 0)?).ok()?;
    let message = message.get(..length)?;
    if u32_at(message, 8)? != sequence {
        return None;
    }
    match u16_at(message, 4)? {
        NLMSG_ERROR => {
            let error = u32_at(message, MESSAGE_HEAD)?.cast_signed().checked_neg()?;
            [EACCES, EOPNOTSUPP, EAFNOSUPPORT, ENETUNREACH, EHOSTUNREACH]
                .contains(&error)
                .then_some(KernelRoute::Nowhere)
        }
        RTM_NEWROUTE => {
            let route = message.get(MESSAGE_HEAD..)?;
            let &[its_family, bits, _, _, _, _, _, kind] = route.first_chunk()?;
            if its_family != address_family(address) {
                return None;
            }
            match kind {
                RTN_UNICAST => classify_unicast_route(bits, address, route.get(ROUTE_HEAD..)?),
                RTN_LOCAL | RTN_ANYCAST => Some(KernelRoute::Own),
                RTN_BROADCAST | RTN_MULTICAST => Some(KernelRoute::OnLink),
                RTN_BLACKHOLE | RTN_UNREACHABLE | RTN_PROHIBIT => Some(KernelRoute::Nowhere),
                _ => None,
            }
        }
        _ => None,
    }
}

fn classify_unicast_route(bits: u8, address: IpAddr, attributes: &[u8]) -> Option<KernelRoute> {
    let whole_world = match address {
        IpAddr::V4(_) => bits < IPV4_BITS_MIN,
        IpAddr::V6(_) => bits < IPV6_BITS_MIN,
    };
    let hop = |attributes: &[u8]| {
        let attributes = parse_route_attributes(attributes)?;
        let has = |wanted: &[u16]| attributes.iter().any(|(kind, _)| wanted.contains(kind));
        Some((has(&[RTA_GATEWAY, RTA_VIA]), has(&[RTA_OIF])))
    };
    let several = parse_route_attributes(attributes)?.into_iter().find(|(kind, _)| *kind == RTA_MULTIPATH);
    let all_have_routers = match several {
        Some((_, mut hops)) => {
            let mut all = !hops.is_empty();
            while !hops.is_empty() {
                let length = usize::from(u16_at(hops, 0)?).max(NEXT_HOP_HEAD);
                let (has_router, _) = hop(hops.get(NEXT_HOP_HEAD..length)?)?;
                all &= has_router;
                hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            all
        }
        None => {
            let (has_router, has_device) = hop(attributes)?;
            if !has_router && !has_device {
                // A route of a kind that is not known here.
                return None;
            }
            has_router
        }
    };
    Some(if all_have_routers || whole_world { KernelRoute::Away } else { KernelRoute::OnLink })
}

/// Each attribute with its value.
fn parse_route_attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut attributes = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16_at(bytes, 0)?);
        attributes.push((u16_at(bytes, 2)? & NLA_TYPE_MASK, bytes.get(4..length)?));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(attributes)
}

fn address_family(address: IpAddr) -> u8 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn address_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: &str = "93.184.216.7";

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend(((MESSAGE_HEAD + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend([0; 2]);
        message.extend(7_u32.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = Vec::new();
        attribute.extend(((4 + value.len()) as u16).to_ne_bytes());
        attribute.extend(kind.to_ne_bytes());
        attribute.extend(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    fn route(kind: u8, bits: u8, attributes: &[Vec<u8>]) -> Option<KernelRoute> {
        let mut body = vec![2, bits, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0];
        body.extend(attributes.concat());
        parse_route_reply(&message(RTM_NEWROUTE, &body), ADDRESS.parse().unwrap(), 7)
    }

    fn hop(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut hop = ((NEXT_HOP_HEAD + attributes.concat().len()) as u16).to_ne_bytes().to_vec();
        hop.extend([0; 6]);
        hop.extend(attributes.concat());
        hop
    }

    #[test]
    fn what_no_router_leads_to_is_on_the_link() {
        let (device, router) = (attribute(RTA_OIF, &[2, 0, 0, 0]), attribute(RTA_GATEWAY, &[10, 0, 0, 1]));
        let via = attribute(RTA_VIA | 0x8000, &[10; 18]);
        let several = |hops: &[Vec<u8>]| attribute(RTA_MULTIPATH, &hops.concat());
        let (by_router, without) = (hop(std::slice::from_ref(&router)), hop(&[]));
        for (kind, bits, attributes, expected) in [
            (RTN_UNICAST, 24, vec![device.clone()], Some(KernelRoute::OnLink)),
            (RTN_UNICAST, 24, vec![router.clone(), device.clone()], Some(KernelRoute::Away)),
            (RTN_UNICAST, 24, vec![device.clone(), via], Some(KernelRoute::Away)),
            (RTN_UNICAST, 0, vec![device.clone()], Some(KernelRoute::Away)),
            (RTN_UNICAST, 1, vec![device.clone()], Some(KernelRoute::Away)),
            (RTN_UNICAST, 8, vec![device.clone()], Some(KernelRoute::OnLink)),
            (
                RTN_UNICAST,
                24,
                vec![several(&[by_router.clone(), by_router.clone()])],
                Some(KernelRoute::Away),
            ),
            (RTN_UNICAST, 24, vec![several(&[by_router, without])], Some(KernelRoute::OnLink)),
            (RTN_UNICAST, 24, vec![several(&[])], Some(KernelRoute::OnLink)),
            (RTN_UNICAST, 24, vec![], None),
            (RTN_LOCAL, 32, vec![device.clone()], Some(KernelRoute::Own)),
            (RTN_ANYCAST, 128, vec![], Some(KernelRoute::Own)),
            (RTN_BROADCAST, 32, vec![device.clone()], Some(KernelRoute::OnLink)),
            (RTN_UNREACHABLE, 24, vec![], Some(KernelRoute::Nowhere)),
            (9, 24, vec![device], None),
        ] {
            assert_eq!(route(kind, bits, &attributes), expected, "{kind} {bits} {attributes:?}");
        }
    }

    #[test]
    fn an_error_says_that_nothing_leads_there_or_is_not_understood() {
        let error = |errno: i32| {
            parse_route_reply(&message(NLMSG_ERROR, &(-errno).to_ne_bytes()), ADDRESS.parse().unwrap(), 7)
        };
        for errno in [EACCES, EOPNOTSUPP, EAFNOSUPPORT, ENETUNREACH, EHOSTUNREACH] {
            assert_eq!(error(errno), Some(KernelRoute::Nowhere), "{errno}");
        }
        assert_eq!((error(22), error(0), error(1)), (None, None, None));
        let other = message(NLMSG_ERROR, &(-ENETUNREACH).to_ne_bytes());
        assert_eq!(parse_route_reply(&other, ADDRESS.parse().unwrap(), 8), None, "it is of another question");
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..120), length in 0..160_u32) {
            parse_route_reply(&bytes, ADDRESS.parse().unwrap(), 7);
            let mut framed = bytes;
            if framed.len() >= MESSAGE_HEAD + ROUTE_HEAD {
                framed[..4].copy_from_slice(&length.to_ne_bytes());
                framed[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
                framed[8..12].copy_from_slice(&7_u32.to_ne_bytes());
                framed[16] = 2;
                framed[23] = RTN_UNICAST;
                parse_route_reply(&framed, ADDRESS.parse().unwrap(), 7);
            }
        }
    }
}
