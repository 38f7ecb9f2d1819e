//! Which host a request asks the forward proxy for, and whether the group's policy or allowlist opens it:
//! pure decisions over a request's head, and the first half of the guard against SSRF (server-side request
//! forgery).
//!
//! A host is an address as the standards write it, or a name of DNS; what only old programs read as an
//! address, such as `0x7f.1` or `2130706433`, is neither. What a name leads to is checked once it is known,
//! by `public_address`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, StatusCode, Uri};

use super::proxy_error::ProxyError;
use crate::types::{GroupName, HostName, WebPolicy};

/// The ports of the web. Other ports belong to mail, databases and remote logins.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTarget {
    pub host: Host,
    pub port: u16,
    pub proxy_method: ProxyMethod,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(HostName),
    Address(IpAddr),
}

/// How it is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMethod {
    /// `CONNECT host:port`: bytes both ways, which nobody here reads.
    Tunnel,
    /// `GET http://host/…`: one request and its answer.
    Plain,
}

impl ProxyTarget {
    /// Whether a request is for the web: `CONNECT`, or with a whole URL (RFC 9112, 3.2).
    pub fn is_proxy_form(method: &Method, uri: &Uri) -> bool {
        method == Method::CONNECT || uri.authority().is_some()
    }

    /// # Errors
    /// Says what such a request looks like.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, ProxyError> {
        let bad = |why: String| ProxyError::new(StatusCode::BAD_REQUEST, why);
        let authority = uri.authority().ok_or_else(|| bad("CONNECT needs a host and a port.".into()))?;
        let (host, port) = split_host_port(authority)
            .ok_or_else(|| bad(format!("{:?} is not a host with a port.", authority.as_str())))?;
        let host = Host::parse(host)
            .ok_or_else(|| bad(format!("{host:?} is neither the name of a host nor an address.")))?;
        let (port, proxy_method) = if method == Method::CONNECT {
            let port = port.ok_or_else(|| bad("CONNECT needs a port, such as example.org:443.".into()))?;
            (port, ProxyMethod::Tunnel)
        } else if uri.scheme() == Some(&Scheme::HTTP) {
            (port.unwrap_or(HTTP), ProxyMethod::Plain)
        } else {
            return Err(bad("Only http:// is carried like this; https:// goes through CONNECT.".into()));
        };
        Ok(Self { host, port, proxy_method })
    }

    /// Whether a group's policy lets it pass.
    ///
    /// # Errors
    /// Says what is open, and who can change it.
    pub fn check_web_policy(&self, policy: &WebPolicy, group: &GroupName) -> Result<(), ProxyError> {
        let closed = |why: String| Err(ProxyError::new(StatusCode::FORBIDDEN, why));
        let open = match self.proxy_method {
            ProxyMethod::Tunnel => self.port == HTTP || self.port == HTTPS,
            ProxyMethod::Plain => self.port == HTTP,
        };
        match policy {
            WebPolicy::None => closed(format!(
                "The web is closed to this chat's agent. The owner can open it: nanokimi groups set {group} --web web"
            )),
            WebPolicy::Allowlist(hosts) if !self.host.is_on_allowlist(hosts) => closed(format!(
                "{} is not among the hosts that are open to this chat's agent. The owner can change them: \
                 nanokimi groups set {group} --web allowlist --hosts ...",
                self.host
            )),
            WebPolicy::Allowlist(_) | WebPolicy::Web if !open => closed(format!(
                "Port {} is closed: agents reach ports {HTTP} and {HTTPS} of the web only, the second through CONNECT.",
                self.port
            )),
            WebPolicy::Allowlist(_) | WebPolicy::Web => Ok(()),
        }
    }
}

impl Host {
    fn parse(host: &str) -> Option<Self> {
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().ok().map(|address| Self::Address(address.into()));
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = HostName::parse(host).ok()?;
        (!ends_in_a_number(name.as_str())).then_some(Self::Name(name))
    }

    fn is_on_allowlist(&self, hosts: &[HostName]) -> bool {
        match self {
            Self::Name(name) => hosts.iter().any(|host| host.covers_host(name)),
            Self::Address(_) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What browsers take for an attempt at an IPv4 address (WHATWG URL, "ends in a number"): no name of DNS
/// does.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The host and port of an authority, which has no user in it.
fn split_host_port(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let whole = authority.as_str();
    if whole.contains('@') {
        return None;
    }
    let host = authority.host();
    match whole.strip_prefix(host)? {
        "" | ":" => Some((host, None)),
        rest => {
            let digits = rest.strip_prefix(':')?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            Some((host, Some(digits.parse().ok().filter(|_| plain)?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `host port`, or the status of the error.
    fn parsed(request: &str) -> Result<String, u16> {
        let (method, uri) = request.split_once(' ').unwrap();
        let Ok(uri) = uri.parse() else { return Err(0) };
        ProxyTarget::parse(&method.parse().unwrap(), &uri)
            .map(|target| format!("{} {} {:?}", target.host, target.port, target.proxy_method))
            .map_err(|error| error.status.as_u16())
    }

    #[test]
    fn hosts_are_names_of_dns_or_addresses_as_the_standards_write_them() {
        for (request, leads_to) in [
            ("CONNECT Example.ORG:443", "example.org 443 Tunnel"),
            ("CONNECT example.org.:22", "example.org 22 Tunnel"),
            ("CONNECT 93.184.216.34:443", "93.184.216.34 443 Tunnel"),
            ("CONNECT [2606:2800::1]:443", "2606:2800::1 443 Tunnel"),
            ("CONNECT [::ffff:127.0.0.1]:443", "::ffff:127.0.0.1 443 Tunnel"),
            ("GET http://example.org/a?b", "example.org 80 Plain"),
            ("GET http://example.org:/", "example.org 80 Plain"),
            ("GET http://example.org:8080/", "example.org 8080 Plain"),
            ("GET http://xn--bcher-kva.example/", "xn--bcher-kva.example 80 Plain"),
            ("GET http://3com.example/", "3com.example 80 Plain"),
            ("GET http://0x7f.example/", "0x7f.example 80 Plain"),
        ] {
            assert_eq!(parsed(request).as_deref(), Ok(leads_to), "{request}");
        }
        for request in [
            "CONNECT example.org",
            "CONNECT example.org:",
            "CONNECT example.org:0443x",
            "CONNECT example.org:70000",
            "CONNECT user@example.org:443",
            "CONNECT [::1%25eth0]:443",
            "CONNECT [fe80::1%eth0]:443",
            "CONNECT ::1:443",
            "CONNECT [127.0.0.1]:443",
            "GET https://example.org/",
            "GET ftp://example.org/",
            "GET http://user:secret@example.org/",
            "GET http://example.org@127.0.0.1/",
            "GET http://127.0.0.1./",
            "GET http://127.1/",
            "GET http://2130706433/",
            "GET http://0x7f000001/",
            "GET http://0x7f.1/",
            "GET http://0X7F.0.0.1/",
            "GET http://0177.0.0.1/",
            "GET http://127.0.0.0x1/",
            "GET http://1.2.3.4.5/",
            "GET http://example.0x/",
            "GET http://256.256.256.256/",
            "GET http://%31%32%37.0.0.1/",
            "GET http://a_b.example/",
            "GET http://-a.example/",
        ] {
            assert!(matches!(parsed(request), Err(0 | 400)), "{request}: {:?}", parsed(request));
        }
        assert!(!ProxyTarget::is_proxy_form(&Method::GET, &"/coding/v1/models".parse().unwrap()));
    }

    #[test]
    fn a_groups_policy_says_which_hosts_and_ports_are_open() {
        let group = GroupName::parse("family").unwrap();
        let list = WebPolicy::Allowlist(vec![HostName::parse("example.org").unwrap()]);
        let refused = |policy: &WebPolicy, request: &str| {
            let (method, uri) = request.split_once(' ').unwrap();
            let target = ProxyTarget::parse(&method.parse().unwrap(), &uri.parse().unwrap()).unwrap();
            target.check_web_policy(policy, &group).map_err(|error| (error.status.as_u16(), error.why))
        };
        for (policy, request) in [
            (&WebPolicy::Web, "CONNECT other.example:443"),
            (&WebPolicy::Web, "CONNECT other.example:80"),
            (&WebPolicy::Web, "GET http://93.184.216.34/"),
            (&list, "CONNECT example.org:443"),
            (&list, "GET http://www.example.org/"),
        ] {
            assert_eq!(refused(policy, request), Ok(()), "{request}");
        }
        for (policy, request, word) in [
            (&WebPolicy::None, "CONNECT example.org:443", "groups set family --web web"),
            (&list, "CONNECT badexample.org:443", "badexample.org is not among"),
            (&list, "CONNECT 93.184.216.34:443", "93.184.216.34 is not among"),
            (&list, "CONNECT example.org:22", "Port 22 is closed"),
            (&WebPolicy::Web, "CONNECT example.org:25", "Port 25 is closed"),
            (&WebPolicy::Web, "GET http://example.org:443/", "Port 443 is closed"),
            (&WebPolicy::Web, "GET http://example.org:8080/", "Port 8080 is closed"),
        ] {
            let (status, why) = refused(policy, request).unwrap_err();
            assert!(status == 403 && why.contains(word), "{request}: {status} {why}");
        }
    }

    proptest! {
        /// Whatever the C library would read as an address without a name server is none here.
        #[test]
        fn no_name_is_an_address_in_disguise(host in "(0x[0-9a-f]{0,9}|[0-9]{1,11})(\\.(0x[0-9a-f]{0,4}|[0-9]{1,5})){0,4}\\.?") {
            match Host::parse(&host) {
                None => {}
                Some(Host::Address(address)) => prop_assert_eq!(address.to_string(), host),
                Some(Host::Name(name)) => prop_assert!(false, "{} is a name", name),
            }
        }
    }
}
