//! Which programs may speak to the gateway at all: no page in a browser. Pure decisions over a request's head.
//!
//! A page may send requests to this machine, and with DNS rebinding under its own host's name. Both show: a browser adds
//! `Origin` or `Sec-Fetch-Site`, and `Host` is the name that the page used. No answer ever has a CORS header.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::{Method, Uri};

/// On what a request has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalEnd {
    /// TCP, on this port of a loopback address.
    Loopback { port: u16 },
    /// A unix socket, which no page can reach: any `Host` is good.
    Unix,
}

/// Why a request is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDenied {
    Browser,
    ForeignHost,
    /// It asks for a proxy: an absolute form, or CONNECT.
    Proxy,
}

impl ClientDenied {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Browser => "The gateway is not for pages in a browser.",
            Self::ForeignHost => "The gateway is reached as localhost or 127.0.0.1, with its port.",
            Self::Proxy => "The gateway is no proxy; it is asked by its paths.",
        }
    }
}

/// Lets a request pass that a program of this machine may have sent.
pub fn check_client(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    local: LocalEnd,
) -> Result<(), ClientDenied> {
    // `none` is what a person has typed into the address bar.
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if headers.contains_key(header::ORIGIN) || sites.any(|site| site != "none") {
        return Err(ClientDenied::Browser);
    }
    if method == Method::CONNECT || uri.authority().is_some() {
        return Err(ClientDenied::Proxy);
    }
    let LocalEnd::Loopback { port } = local else { return Ok(()) };
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let is_ours = host.is_some_and(|host| is_loopback_host(host, port)) && hosts.next().is_none();
    if is_ours { Ok(()) } else { Err(ClientDenied::ForeignHost) }
}

/// Whether `Host` names this machine itself, with this port; 80 may be left out.
fn is_loopback_host(host: &str, port: u16) -> bool {
    let (name, written) = match host.rsplit_once(':') {
        // The last colon of a bare IPv6 address is no port's.
        Some((name, written)) if !host.ends_with(']') => (name, written),
        Some(_) | None => (host, "80"),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address: Option<IpAddr> = match bracketed {
        Some(name) => name.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    let is_loopback = name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback());
    let is_digits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    is_loopback && is_digits && written.parse() == Ok(port)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const TCP: LocalEnd = LocalEnd::Loopback { port: 8788 };

    fn checked(request: &str, headers: &[(&'static str, &str)], local: LocalEnd) -> Result<(), ClientDenied> {
        let (method, uri) = request.split_once(' ').unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check_client(&method.parse().unwrap(), &uri.parse().unwrap(), &map, local)
    }

    #[test]
    fn only_this_machines_names_with_the_port_are_hosts() {
        for (host, passes) in [
            ("127.0.0.1:8788", true),
            ("localhost:8788", true),
            ("LOCALHOST:8788", true),
            ("[::1]:8788", true),
            ("127.1.2.3:8788", true),
            ("127.0.0.1", false),
            ("127.0.0.1:80", false),
            ("127.0.0.1:", false),
            ("127.0.0.1:+8788", false),
            ("127.0.0.1:8788:8788", false),
            ("localhost.evil.example:8788", false),
            ("127.0.0.1.evil.example:8788", false),
            ("evil.example:8788", false),
            ("evil.example", false),
            ("192.168.1.2:8788", false),
            ("0.0.0.0:8788", false),
            ("::1:8788", false),
            ("[127.0.0.1]:8788", false),
            ("user@localhost:8788", false),
            ("localhost:8788\u{e9}", false),
            ("", false),
        ] {
            let expected = if passes { Ok(()) } else { Err(ClientDenied::ForeignHost) };
            assert_eq!(checked("GET /v1/models", &[("host", host)], TCP), expected, "{host}");
            assert_eq!(checked("GET /v1/models", &[("host", host)], LocalEnd::Unix), Ok(()), "{host}");
        }
        assert_eq!(checked("GET /", &[("host", "localhost")], LocalEnd::Loopback { port: 80 }), Ok(()));
        assert_eq!(checked("GET /", &[("host", "[::1]")], LocalEnd::Loopback { port: 80 }), Ok(()));
        assert_eq!(checked("GET /", &[], TCP), Err(ClientDenied::ForeignHost));
        let twice = [("host", "localhost:8788"), ("host", "localhost:8788")];
        assert_eq!(checked("GET /", &twice, TCP), Err(ClientDenied::ForeignHost));
    }

    #[test]
    fn no_page_in_a_browser_passes() {
        for (name, value, passes) in [
            ("origin", "https://evil.example", false),
            ("origin", "http://localhost:8788", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "none", true),
            // Node's fetch says so.
            ("sec-fetch-mode", "cors", true),
            ("referer", "https://evil.example", true),
        ] {
            let headers = [("host", "localhost:8788"), (name, value)];
            let expected = if passes { Ok(()) } else { Err(ClientDenied::Browser) };
            assert_eq!(checked("POST /v1/messages", &headers, TCP), expected, "{name}: {value}");
            assert_eq!(checked("POST /v1/messages", &headers, LocalEnd::Unix), expected, "{name}: {value}");
        }
    }

    #[test]
    fn it_is_no_proxy() {
        let host = [("host", "localhost:8788")];
        for request in
            ["GET http://localhost:8788/v1/models", "GET http://evil.example/", "CONNECT evil.example:443"]
        {
            assert_eq!(checked(request, &host, TCP), Err(ClientDenied::Proxy), "{request}");
        }
    }
}
