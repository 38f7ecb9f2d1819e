//! What goes to the web and comes from it, counted in bytes: in all, for the session to take, and by host, for the log.
//!
//! Bytes of names that are looked up are not counted, nor those of headers below TCP.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::types::{GroupName, WebTraffic};

/// Hosts of one door that are told apart. A page has some dozens; the rest is counted together.
const HOSTS_MAX: usize = 200;
/// What those beyond are called together.
const OTHERS: &str = "others";

/// What one door has seen. When nobody holds it any more, it goes to the log, a line for each host.
#[derive(Debug)]
pub struct Traffic {
    group: GroupName,
    untaken: Bytes,
    hosts: Mutex<BTreeMap<String, Tally>>,
}

#[derive(Debug, Default)]
struct Bytes {
    sent: AtomicU64,
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct Tally {
    visits: u64,
    refused: u64,
    sent: u64,
    received: u64,
}

impl Traffic {
    pub fn new(group: GroupName) -> Self {
        Self { group, untaken: Bytes::default(), hosts: Mutex::default() }
    }

    /// What was counted since the last call.
    pub fn take(&self) -> WebTraffic {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        WebTraffic { sent: take(&self.untaken.sent), received: take(&self.untaken.received) }
    }

    pub fn refused(&self, host: &str) {
        self.with_tally(host, |tally| tally.refused += 1);
    }

    fn with_tally(&self, host: &str, change: impl FnOnce(&mut Tally)) {
        let mut hosts = lock(&self.hosts);
        let known = hosts.contains_key(host) || hosts.len() < HOSTS_MAX;
        change(hosts.entry(if known { host } else { OTHERS }.to_owned()).or_default());
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for (host, Tally { visits, refused, sent, received }) in lock(&self.hosts).iter() {
            tracing::info!(
                group = %self.group, host, visits, refused, sent_bytes = sent, received_bytes = received,
                "The agent was on the web"
            );
        }
    }
}

/// One connection to a host, for as long as anybody holds it.
#[derive(Debug)]
pub struct Visit {
    host: String,
    bytes: Bytes,
    traffic: Arc<Traffic>,
}

impl Visit {
    pub fn begin(host: String, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self { host, bytes: Bytes::default(), traffic })
    }

    /// Resolves when nothing has moved either way for `limit`, at most twice as long.
    pub async fn quiet(&self, limit: Duration) {
        loop {
            let before = self.moved();
            sleep(limit).await;
            if self.moved() == before {
                return;
            }
        }
    }

    fn moved(&self) -> u64 {
        self.bytes.sent.load(Ordering::Relaxed) + self.bytes.received.load(Ordering::Relaxed)
    }

    fn sent(&self, bytes: usize) {
        self.bytes.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.untaken.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.bytes.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.untaken.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (sent, received) =
            (self.bytes.sent.load(Ordering::Relaxed), self.bytes.received.load(Ordering::Relaxed));
        self.traffic.with_tally(&self.host, |tally| {
            tally.visits += 1;
            tally.sent += sent;
            tally.received += received;
        });
    }
}

/// A connection to a host whose bytes are counted.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    pub visit: Arc<Visit>,
}

impl Counted {
    pub fn new(stream: TcpStream, visit: Arc<Visit>) -> Self {
        Self { stream, visit }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.visit.received(buffer.filled().len() - before);
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.visit.sent(written);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Numbers stay whole whatever happens to the thread that held them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
