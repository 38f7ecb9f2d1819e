//! What the server answers over plain HTTP, on the port of its WebSocket: the version of the web client, and
//! the encrypted files of messages.
//!
//! A client asks `https://…` of the hosts that it was told; tests lead that here. What is no such question is
//! a fault.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use futures_util::stream;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore_binary::Node;

use super::{Server, Shared};

/// Twice what WhatsApp lets a person send as a picture or voice message.
const UPLOAD_MAX: usize = 32 * 1024 * 1024;

/// Ten times what any test uploads.
const FILES_MAX: usize = 200;

/// What the web client of these days calls itself, if no test says otherwise.
const REVISION: u32 = 1_042_742_319;

/// How the server keeps the files of messages: what happens to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    Sound,
    /// It does not have them any more: 410.
    Forgetful,
    /// It cannot be asked now: 503.
    Unavailable,
    /// In each file one byte is another.
    Corrupt,
    /// Behind each file come this many bytes more.
    Overlong(usize),
    /// It gives half of a file, and the rest once it is sound again.
    Stuck,
}

/// What is on the web, and what was asked for there.
pub struct Web {
    /// `None` if the lookup fails.
    revision: Option<u32>,
    version_lookups: usize,
    storage: Storage,
    /// Ciphertexts by path.
    files: BTreeMap<String, Bytes>,
    downloads: usize,
    /// Counts the passwords for the files that clients were given; only the last one opens.
    password: u32,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            revision: Some(REVISION),
            version_lookups: 0,
            storage: Storage::Sound,
            files: BTreeMap::new(),
            downloads: 0,
            password: 1,
        }
    }
}

impl Server {
    /// The client's own version, `2.3000.<revision>`, for those who look it up.
    pub fn offer_version(&self, revision: u32) {
        self.shared.change(|state| state.web.revision = Some(revision));
    }

    /// From now on a lookup of the version is answered with an error.
    pub fn fail_version_lookup(&self) {
        self.shared.change(|state| state.web.revision = None);
    }

    pub async fn wait_for_version_lookups(&self, count: usize) {
        self.wait_until("the version is looked up", |state| state.web.version_lookups >= count).await;
    }

    /// What happens to downloads from now on.
    pub fn keep_media(&self, storage: Storage) {
        self.shared.change(|state| state.web.storage = storage);
    }

    /// What clients were told to ask for files with is refused from now on, until they ask anew: 401.
    pub fn expire_media_password(&self) {
        self.shared.change(|state| state.web.password += 1);
    }

    /// How many files were uploaded.
    pub fn media_files(&self) -> usize {
        self.shared.lock().web.files.len()
    }

    /// How often a file was asked for, whatever came of it.
    pub fn media_downloads(&self) -> usize {
        self.shared.lock().web.downloads
    }

    pub async fn wait_for_media_downloads(&self, count: usize) {
        self.wait_until("media is asked for", |state| state.web.downloads >= count).await;
    }
}

/// Answers one connection's requests until it ends.
pub async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    // A client that hangs up in the middle has seen enough.
    http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if method == Method::GET && path == "/sw.js" {
        return version(shared);
    }
    if path.starts_with("/mms/") || path.starts_with("/v/") {
        let password = format!("auth=loopback{}", shared.lock().web.password);
        if !request.uri().query().unwrap_or_default().contains(&password) {
            return status(StatusCode::UNAUTHORIZED);
        }
        return match method == Method::POST {
            true => upload(request, &path, shared).await.unwrap_or_else(|error| fault(shared, &error)),
            false => download(&path, shared),
        };
    }
    shared.change(|state| state.faults.push(format!("The server has nothing at {method} {path}")));
    status(StatusCode::NOT_FOUND)
}

fn version(shared: &Shared) -> Response<Body> {
    let revision = shared.change(|state| {
        state.web.version_lookups += 1;
        state.web.revision
    });
    match revision {
        Some(revision) => Response::new(Body::from(format!("self.x=1;({{\"client_revision\":{revision}}})"))),
        None => status(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// Takes a file, or says of one whether it is here already.
async fn upload(request: Request<Incoming>, path: &str, shared: &Shared) -> Result<Response<Body>> {
    let token = path.rsplit('/').next().context("There is no name")?;
    let direct_path = format!("/v/t62.loopback/{token}");
    let asks = request.uri().query().unwrap_or_default().contains("resume=1");
    if asks && !shared.lock().web.files.contains_key(&direct_path) {
        return Ok(Response::new(Body::from(json!({}).to_string())));
    }
    if !asks {
        let file = to_bytes(Body::new(request.into_body()), UPLOAD_MAX).await?;
        shared.change(|state| match state.keeps_no_record {
            true => Ok(()),
            false => state.web.keep(direct_path.clone(), file),
        })?;
    }
    let url = format!("https://mmg.whatsapp.net{direct_path}");
    let answer = json!({ "url": url, "direct_path": direct_path, "resume": "complete" });
    Ok(Response::new(Body::from(answer.to_string())))
}

fn download(path: &str, shared: &Arc<Shared>) -> Response<Body> {
    let (storage, file) = shared.change(|state| {
        state.web.downloads += 1;
        (state.web.storage, state.web.files.get(path).cloned())
    });
    let Some(file) = file else { return status(StatusCode::NOT_FOUND) };
    match storage {
        Storage::Sound => Response::new(Body::from(file)),
        Storage::Forgetful => status(StatusCode::GONE),
        Storage::Unavailable => status(StatusCode::SERVICE_UNAVAILABLE),
        Storage::Corrupt => {
            let mut other = file.to_vec();
            if let Some(byte) = other.first_mut() {
                *byte = !*byte;
            }
            Response::new(Body::from(other))
        }
        Storage::Overlong(more) => Response::new(Body::from([&file[..], &vec![0; more]].concat())),
        Storage::Stuck => Response::new(Body::from_stream(halting(file, shared.clone()))),
    }
}

/// Half of a file, and the other half when the storage is sound.
fn halting(file: Bytes, shared: Arc<Shared>) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    let halves = [file.slice(..file.len() / 2), file.slice(file.len() / 2..)];
    stream::unfold(0, move |given| {
        let (half, shared) = (halves.get(given).cloned(), shared.clone());
        async move {
            if given == 1 {
                let mut changes = shared.changes.subscribe();
                let sound = |_: &u64| shared.lock().web.storage == Storage::Sound;
                changes.wait_for(sound).await.ok()?;
            }
            Some((Ok(half?), given + 1))
        }
    })
}

impl Web {
    fn keep(&mut self, path: String, file: Bytes) -> Result<()> {
        anyhow::ensure!(self.files.len() < FILES_MAX, "The clients have uploaded {FILES_MAX} files");
        self.files.insert(path, file);
        Ok(())
    }

    /// Where files are to be had, and with which password.
    pub fn media_connection(&self) -> Node {
        let host = NodeBuilder::new("host").attr("hostname", "mmg.whatsapp.net").attr("type", "primary");
        NodeBuilder::new("media_conn")
            .attr("auth", format!("loopback{}", self.password))
            .attr("ttl", "3600")
            .attr("auth_ttl", "3600")
            .attr("max_buckets", "12")
            .children([host.build()])
            .build()
    }
}

fn fault(shared: &Shared, error: &anyhow::Error) -> Response<Body> {
    shared.change(|state| state.faults.push(format!("{error:#}")));
    status(StatusCode::INTERNAL_SERVER_ERROR)
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
