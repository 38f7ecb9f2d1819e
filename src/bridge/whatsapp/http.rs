//! The library's way to the web: WhatsApp's version, media up and down. With a server of a test's own, every
//! request goes to that one and to no other.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Response, Url};
use tokio::runtime::Handle;
use whatsapp_rust::async_trait;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::wacore::net::StreamingHttpResponse;
use whatsapp_rust::wacore::store::Device;

use super::key_folder::{KeyFolder, replace_private_file};
use crate::panics::run_blocking;

/// Where WhatsApp's web client names its version.
const VERSION_PATH: &str = "/sw.js";
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the version may take: the login waits for it.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// How long a whole request may take: a large file on a slow line.
const REQUEST_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long nothing may come.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// More than any answer that is kept in memory: WhatsApp's sw.js has a few hundred kilobytes.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// A client that speaks TLS, and knows where requests go.
#[derive(Clone)]
pub struct WhatsAppHttpClient {
    client: Client,
    /// `http://127.0.0.1:…` of a test's own server.
    loopback: Option<Url>,
    kept_version: PathBuf,
}

impl WhatsAppHttpClient {
    pub fn new(folder: &KeyFolder, url: Option<&str>) -> Result<Self> {
        // The process may have one already; the first one serves both.
        rustls::crypto::ring::default_provider().install_default().ok();
        let loopback = url.map(parse_loopback_url).transpose()?;
        let mut client = Client::builder().connect_timeout(CONNECT_LIMIT).read_timeout(READ_LIMIT);
        if loopback.is_some() {
            client = client.no_proxy().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
        }
        let client = client.build().context("Failed to set up HTTPS")?;
        Ok(Self { client, loopback, kept_version: folder.version_path() })
    }

    /// WhatsApp's version as it is now, not as it was kept.
    pub async fn fetch_version(&self) -> Result<(u32, u32, u32)> {
        let request = HttpRequest::get(format!("https://web.whatsapp.com{VERSION_PATH}"))
            .with_header("sec-fetch-site", "none")
            .with_header("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");
        let body = self.fetch_version_page(request).await?;
        let text = String::from_utf8_lossy(&body);
        whatsapp_rust::version::parse_sw_js(&text).context("Failed to find a version in what WhatsApp sent")
    }

    /// The body that names the version, which is kept for when it cannot be looked up.
    async fn fetch_version_page(&self, request: HttpRequest) -> Result<Vec<u8>> {
        let response = self.send_http_request(request, VERSION_LIMIT).await?;
        if !response.status().is_success() {
            bail!("WhatsApp answers with {}", response.status());
        }
        let body = read_limited_body(response, BODY_MAX).await?;
        if whatsapp_rust::version::parse_sw_js(&String::from_utf8_lossy(&body)).is_none() {
            bail!("WhatsApp's answer names no version");
        }
        let (path, content) = (self.kept_version.clone(), body.clone());
        let kept = run_blocking(move || replace_private_file(&path, &content)).await;
        if let Err(error) = kept.context("Failed to wait for a file").flatten() {
            tracing::warn!("Failed to keep WhatsApp's version: {error:#}");
        }
        Ok(body)
    }

    /// The library does not connect without an answer, so there always is one: the last that WhatsApp gave,
    /// or the version that the library was built with.
    async fn fetch_or_cached_version(&self, request: HttpRequest) -> Vec<u8> {
        match self.fetch_version_page(request).await {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!("Failed to look WhatsApp's version up, using an earlier one: {error:#}");
                tokio::fs::read(&self.kept_version).await.unwrap_or_else(|_| built_in_version_page())
            }
        }
    }

    async fn send_http_request(&self, request: HttpRequest, limit: Duration) -> Result<Response> {
        let url = self.resolve_url(&request.url)?;
        let method = request.method.parse().context("Failed to read a request's method")?;
        let mut builder = self.client.request(method, url).timeout(limit);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(body) = request.body {
            builder = builder.body(body);
        }
        builder.send().await.map_err(|error| error.without_url()).context("Failed to send a request")
    }

    fn resolve_url(&self, url: &str) -> Result<Url> {
        let url = Url::parse(url).context("Failed to read an address of the web")?;
        let Some(loopback) = &self.loopback else { return Ok(url) };
        let mut here = loopback.clone();
        here.set_path(url.path());
        here.set_query(url.query());
        Ok(here)
    }
}

#[async_trait]
impl HttpClient for WhatsAppHttpClient {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse> {
        if Url::parse(&request.url).is_ok_and(|url| url.path() == VERSION_PATH) {
            return Ok(HttpResponse { status_code: 200, body: self.fetch_or_cached_version(request).await });
        }
        let response = self.send_http_request(request, REQUEST_LIMIT).await?;
        let status_code = response.status().as_u16();
        Ok(HttpResponse { status_code, body: read_limited_body(response, BODY_MAX).await? })
    }

    /// So that media go from the web into a file without being in memory as a whole.
    fn supports_streaming(&self) -> bool {
        true
    }

    fn execute_streaming(&self, request: HttpRequest) -> Result<StreamingHttpResponse> {
        let runtime = Handle::try_current().context("Failed to find the runtime")?;
        let response = runtime.block_on(self.send_http_request(request, REQUEST_LIMIT))?;
        let status_code = response.status().as_u16();
        let body = Box::new(StreamedBody { runtime, response, chunk: bytes::Bytes::new() });
        Ok(StreamingHttpResponse { status_code, body })
    }
}

/// A body as it comes in, for a thread that may block.
struct StreamedBody {
    runtime: Handle,
    response: Response,
    chunk: bytes::Bytes,
}

impl Read for StreamedBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.response.chunk()) {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error.without_url())),
            }
        }
        let count = into.len().min(self.chunk.len());
        into[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

async fn read_limited_body(mut response: Response, limit: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| error.without_url()).context("Failed to read an answer")?
    {
        if body.len() + chunk.len() > limit {
            bail!("An answer has more than {limit} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What WhatsApp's sw.js would say if it named the version that the library was built with.
fn built_in_version_page() -> Vec<u8> {
    let (_, _, revision) = library_version();
    format!("\"client_revision\":{revision}").into_bytes()
}

fn library_version() -> (u32, u32, u32) {
    let device = Device::new();
    (device.app_version_primary, device.app_version_secondary, device.app_version_tertiary)
}

/// `ws://127.0.0.1:1234/…` as `http://127.0.0.1:1234`. A test's server is on this machine only.
fn parse_loopback_url(url: &str) -> Result<Url> {
    let rest = url.strip_prefix("ws://").with_context(|| format!("{url:?} is not a ws:// address"))?;
    let mut here = Url::parse(&format!("http://{rest}")).context("Failed to read the server's address")?;
    let local = matches!(here.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    if !local {
        bail!("{url:?} is not on this machine");
    }
    here.set_path("");
    here.set_query(None);
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_server_of_its_own_nothing_goes_anywhere_else() {
        let folder = KeyFolder::new("/nowhere".into());
        let web = WhatsAppHttpClient::new(&folder, Some("ws://127.0.0.1:4711/ws/chat")).unwrap();
        for (asked, goes_to) in [
            ("https://web.whatsapp.com/sw.js", "http://127.0.0.1:4711/sw.js"),
            ("https://mmg.whatsapp.net/v/t62/x?auth=1&b=2", "http://127.0.0.1:4711/v/t62/x?auth=1&b=2"),
            ("http://user:pw@example.com:99/a#b", "http://127.0.0.1:4711/a"),
        ] {
            assert_eq!(web.resolve_url(asked).unwrap().as_str(), goes_to);
        }
        for elsewhere in
            ["ws://example.com/", "wss://127.0.0.1/", "http://127.0.0.1/", "ws://127.0.0.1.evil.com/"]
        {
            assert!(WhatsAppHttpClient::new(&folder, Some(elsewhere)).is_err(), "{elsewhere}");
        }
        let web = WhatsAppHttpClient::new(&folder, None).unwrap();
        assert_eq!(
            web.resolve_url("https://mmg.whatsapp.net/v?a=1").unwrap().as_str(),
            "https://mmg.whatsapp.net/v?a=1"
        );
    }

    #[test]
    fn the_library_reads_its_own_version_from_what_stands_in_for_whatsapp() {
        let body = String::from_utf8(built_in_version_page()).unwrap();
        assert_eq!(whatsapp_rust::version::parse_sw_js(&body), Some(library_version()));
        assert!(library_version().2 > 1_000_000_000, "{:?}", library_version());
    }

    #[tokio::test]
    async fn where_no_version_can_be_looked_up_the_kept_one_serves() {
        let root = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(root.path().join("auth"));
        folder.prepare_folder().unwrap();
        // Port 9 of this machine answers nobody.
        let web = WhatsAppHttpClient::new(&folder, Some("ws://127.0.0.1:9/ws/chat")).unwrap();
        let ask = || HttpRequest::get("https://web.whatsapp.com/sw.js");
        let without = web.execute(ask()).await.unwrap();
        assert_eq!((without.status_code, without.body), (200, built_in_version_page()));
        replace_private_file(&folder.version_path(), b"\"client_revision\":77").unwrap();
        assert_eq!(web.execute(ask()).await.unwrap().body, b"\"client_revision\":77");
        assert!(web.fetch_version().await.is_err(), "a kept version is not a fresh one");
    }
}
