//! The HTTP client for one of Kimi's servers: bounded requests in nanokimi's own name.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{ClientBuilder, Url};
use tokio::sync::OnceCell;

use crate::kimi_http::{bearer_header, build_kimi_http_client};
use crate::types::Secret;

/// This program's name. It does not pose as one of Kimi's: only an engine's own requests carry an engine's
/// name.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A server that can be reached accepts within seconds, even over a poor line.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take in all. A renewal that is given up may have been granted, so it is not short.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer in bytes: tokens and quotas are a few thousand.
const ANSWER_MAX: usize = 64 * 1024;
/// Longest value of a header that describes this machine.
const HEADER_MAX: usize = 120;

/// A server, by the beginning of its addresses. The client is made at the first request: it reads the trust
/// store.
#[derive(Debug)]
pub struct KimiClient {
    base: String,
    client: OnceCell<reqwest::Client>,
}

/// What a server has answered.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl KimiClient {
    /// `base` has no slash at its end.
    pub fn new(base: impl Into<String>) -> Self {
        Self { base: base.into(), client: OnceCell::new() }
    }

    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// Sends a form.
    ///
    /// # Errors
    /// No answer came, or it was too long. The reason names nothing of the form.
    pub async fn post_form(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        headers: HeaderMap,
    ) -> Result<HttpAnswer> {
        // A URL's query is written as a form is.
        let mut form = Url::parse("form:").context("Failed to write a form")?;
        form.query_pairs_mut().extend_pairs(fields);
        let body = form.query().unwrap_or_default().to_owned();
        let request = self.get_or_build_client().await?.post(self.build_request_url(path)?).headers(headers);
        send_bounded_request(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body))
            .await
    }

    /// Asks, as the holder of this token.
    ///
    /// # Errors
    /// As [`KimiClient::post_form`].
    pub async fn get_with_token(&self, path: &str, token: &Secret, headers: HeaderMap) -> Result<HttpAnswer> {
        let bearer = bearer_header(token).context("The token cannot be sent")?;
        send_bounded_request(
            self.get_or_build_client()
                .await?
                .get(self.build_request_url(path)?)
                .headers(headers)
                .header(AUTHORIZATION, bearer),
        )
        .await
    }

    fn build_request_url(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}{path}", self.base)).with_context(|| format!("{:?} is not a URL", self.base))
    }

    async fn get_or_build_client(&self) -> Result<&reqwest::Client> {
        let limited = |client: ClientBuilder| client.connect_timeout(CONNECT_LIMIT).timeout(ANSWER_LIMIT);
        self.client.get_or_try_init(async || build_kimi_http_client(&self.base, limited).await).await
    }
}

async fn send_bounded_request(request: reqwest::RequestBuilder) -> Result<HttpAnswer> {
    let mut answer = request.send().await.map_err(|error| anyhow!(deepest_cause(&error.without_url())))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(piece) =
        answer.chunk().await.map_err(|error| anyhow!(deepest_cause(&error.without_url())))?
    {
        if body.len() + piece.len() > ANSWER_MAX {
            bail!("the answer is longer than {} KB", ANSWER_MAX / 1024);
        }
        body.extend_from_slice(&piece);
    }
    Ok(HttpAnswer { status, body })
}

/// What a request about a login says of this program, this machine and its device: the headers that Kimi's
/// own programs send, too.
pub fn device_headers(device_id: &str) -> HeaderMap {
    let machine = rustix::system::uname();
    let lossy = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let model = format!("Linux {} {}", lossy(machine.release()), lossy(machine.machine()));
    let mut headers = client_headers();
    for (name, value) in [
        ("x-msh-platform", "nanokimi".to_owned()),
        ("x-msh-version", VERSION.to_owned()),
        ("x-msh-device-name", lossy(machine.nodename())),
        ("x-msh-device-model", model),
        ("x-msh-os-version", lossy(machine.version())),
        ("x-msh-device-id", device_id.to_owned()),
    ] {
        headers.insert(HeaderName::from_static(name), ascii_header_value(&value));
    }
    headers
}

/// The headers for a request for which the device does not matter.
pub fn client_headers() -> HeaderMap {
    HeaderMap::from_iter([(USER_AGENT, ascii_header_value(&format!("nanokimi/{VERSION}")))])
}

/// Characters that are not ASCII are left out.
fn ascii_header_value(text: &str) -> HeaderValue {
    let plain: String = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(HEADER_MAX).collect();
    let plain = plain.trim();
    HeaderValue::from_str(plain)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// The last cause of an error, without the system's number for it.
fn deepest_cause(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(beneath) = deepest.source() {
        deepest = beneath;
    }
    let words = deepest.to_string();
    words.split(" (os error ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_in_plain_ascii() {
        assert_eq!(ascii_header_value(" Zoë's\nserver "), "Zo'sserver");
        assert_eq!(ascii_header_value("日本"), "unknown");
        assert_eq!(ascii_header_value(&"x".repeat(1000)).len(), HEADER_MAX);
        let headers = device_headers("0123456789abcdef0123456789abcdef");
        assert_eq!(headers.len(), 7);
        assert_eq!(headers["x-msh-device-id"], "0123456789abcdef0123456789abcdef");
        assert_eq!(headers["user-agent"], format!("nanokimi/{VERSION}"));
        assert_eq!(headers["x-msh-platform"], "nanokimi");
    }
}
