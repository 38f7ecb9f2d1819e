//! Which headers pass between a caller and the Kimi API: pure.

use hyper::header::{self, HeaderMap, HeaderName};

/// Headers about one connection only (RFC 9110, 7.6.1), and two old ones of the same kind.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The headers of an answer that go to the caller.
pub fn filter_response_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = end_to_end_headers(headers);
    // Cookies belong to the login, which is not the caller's.
    kept.remove(header::SET_COOKIE);
    kept
}

/// The headers that are not about one connection only.
pub fn end_to_end_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers.get_all(header::CONNECTION) {
        for name in named.to_str().unwrap_or_default().split(',') {
            kept.remove(name.trim());
        }
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}
