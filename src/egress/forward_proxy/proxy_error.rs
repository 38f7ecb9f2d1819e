//! Why a request does not reach the web, in one sentence.

use axum::body::Body;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// Why a request does not reach the web, in words for the program in the container.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyError {
    pub status: StatusCode,
    pub why: String,
}

impl ProxyError {
    pub fn new(status: StatusCode, why: String) -> Self {
        Self { status, why }
    }

    pub fn bad_gateway(why: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, why)
    }

    pub fn gateway_timeout(why: String) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, why)
    }

    pub fn into_response(self) -> Response<Body> {
        let reason = ReasonPhrase::try_from(self.why.clone().into_bytes());
        let mut response = Response::new(Body::from(format!("nanokimi: {}\n", self.why)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        // What comes next on the connection may be meant for a tunnel that does not exist.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Ok(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        response
    }
}
