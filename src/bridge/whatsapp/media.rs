//! Files from and to WhatsApp's servers: decrypted straight into the file they are for, and encrypted on the
//! way out.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use whatsapp_rust::ErrorChainExt as _;
use whatsapp_rust::UploadOptions;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::download::{DownloadParams, DownloadWriter};
use whatsapp_rust::prelude::{Client, wa};
use whatsapp_rust::upload::UploadResponse;

use super::outgoing_message;
use crate::bridge::channels::{FetchError, FetchOrder, OutgoingFile};
use crate::panics::{catch_panic, run_blocking};
use crate::types::Media;

/// Files that come in at a time: they share the line with messages.
const AT_A_TIME: usize = 2;
/// Files that wait for their turn; intake asks for them again.
const WAITING_MAX: usize = 32;
/// How long one may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Bytes of a SHA-256, and of a media key.
const KEY_BYTES: usize = 32;
const STATUS_NOT_FOUND: u16 = 404;
const STATUS_GONE: u16 = 410;

/// The files that are on their way in.
pub struct MediaDownloads {
    client: Arc<Client>,
    turns: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl MediaDownloads {
    pub fn new(client: Arc<Client>) -> Self {
        Self { client, turns: Arc::new(Semaphore::new(AT_A_TIME)), tasks: JoinSet::new() }
    }

    pub fn start_download(&mut self, fetch: FetchOrder) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= WAITING_MAX {
            fetch.outcome.send(Err(FetchError::Later)).ok();
            return;
        }
        let (client, turns) = (self.client.clone(), self.turns.clone());
        self.tasks.spawn(async move {
            let FetchOrder { media, into, limit_bytes, mut outcome } = fetch;
            let fetching = async {
                let Ok(_turn) = turns.acquire().await else { return Err(FetchError::Later) };
                let download = catch_panic(download_media(&client, &media, into, limit_bytes));
                let fetched = timeout(FETCH_LIMIT, download).await.unwrap_or(Ok(Err(FetchError::Later)));
                // It would panic every time.
                fetched.unwrap_or(Err(FetchError::Damaged))
            };
            let fetched = tokio::select! {
                fetched = fetching => fetched,
                // Nobody waits for it any more: the next file has its turn.
                () = outcome.closed() => return,
            };
            outcome.send(fetched).ok();
        });
    }
}

/// Downloads, verifies and decrypts into a file; returns its size.
async fn download_media(client: &Client, media: &Media, into: File, limit: u64) -> Result<u64, FetchError> {
    let (found, hash) = parse_download_params(media).ok_or(FetchError::Damaged)?;
    if found.file_length > limit {
        return Err(FetchError::TooLarge);
    }
    let overflow = Arc::new(AtomicBool::new(false));
    let wanted = Arc::new(());
    let (still, overflowed) = (Arc::downgrade(&wanted), overflow.clone());
    let sink = DownloadFile {
        file: into,
        written: 0,
        limit,
        overflow: overflowed,
        wanted: still,
        hash: Sha256::new(),
    };
    match client.download_to_writer(&found, sink).await {
        Ok(sink) if sink.hash.clone().finalize().as_slice() == hash => Ok(sink.written),
        Ok(_) => Err(FetchError::Damaged),
        Err(_) if overflow.load(Ordering::Relaxed) => Err(FetchError::TooLarge),
        Err(error) => {
            tracing::debug!("Failed to fetch a file: {error:#}");
            Err(classify_fetch_error(&error))
        }
    }
}

/// What finds and opens the file, and the hash of what it holds; `None` if the sender did not say.
fn parse_download_params(media: &Media) -> Option<(DownloadParams, Vec<u8>)> {
    let handle = wa::message::DocumentMessage::decode_from_slice(&media.handle).ok()?;
    let key = |key: Option<Vec<u8>>| key.filter(|key| key.len() == KEY_BYTES);
    let hash = key(handle.file_sha256)?;
    let found = DownloadParams::encrypted(
        handle.direct_path.filter(|path| path.starts_with('/'))?,
        &key(handle.media_key)?,
        &hash,
        &key(handle.file_enc_sha256)?,
        handle.file_length.unwrap_or_default(),
        outgoing_message::media_type(media.kind),
    );
    Some((found, hash))
}

/// The library says only in words what is wrong with the bytes themselves.
fn classify_fetch_error(error: &anyhow::Error) -> FetchError {
    match error.http_status() {
        Some(STATUS_NOT_FOUND | STATUS_GONE) => return FetchError::Gone,
        Some(_) => return FetchError::Later,
        None => {}
    }
    let words = format!("{error:#}");
    let damaged = ["MAC mismatch", "MAC signature", "media size", "PKCS7", "too short", "Empty plaintext"];
    if damaged.iter().any(|word| words.contains(word)) { FetchError::Damaged } else { FetchError::Later }
}

/// A file that takes no more than it may, and knows the hash of what it took.
struct DownloadFile {
    file: File,
    written: u64,
    limit: u64,
    overflow: Arc<AtomicBool>,
    /// Gone once nobody waits any more: the thread that writes cannot be ended from outside.
    wanted: Weak<()>,
    hash: Sha256,
}

impl Write for DownloadFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.wanted.strong_count() == 0 {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        if self.written.saturating_add(bytes.len() as u64) > self.limit {
            self.overflow.store(true, Ordering::Relaxed);
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for DownloadFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl DownloadWriter for DownloadFile {
    /// Only ever to nothing, before another attempt or after the last.
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.hash = Sha256::new();
        self.written = 0;
        self.file.set_len(length)
    }
}

/// Encrypts and uploads a file.
pub async fn upload_file(client: &Client, file: &OutgoingFile) -> Result<UploadResponse> {
    let mut source = file.file.try_clone().context("Failed to open a file once more")?;
    let checked = file.bytes;
    let bytes = run_blocking(move || -> Result<Vec<u8>> {
        source.rewind().context("Failed to go to a file's beginning")?;
        let mut bytes = Vec::new();
        // A write meanwhile makes it no larger than it was when it was checked.
        (&mut source).take(checked).read_to_end(&mut bytes).context("Failed to read a file")?;
        Ok(bytes)
    })
    .await
    .context("Failed to wait for a file")??;
    client.upload(bytes, outgoing_message::outgoing_media_type(file.kind), UploadOptions::new()).await
}
