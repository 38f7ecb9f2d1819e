//! What goes to the web and comes from it, counted in bytes: in all, for the session to take, and by host,
//! for the log.
//!
//! Bytes of names that are looked up are not counted, nor those of headers below TCP.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::panics::lock_unpoisoned;
use crate::types::{GroupName, WebTraffic};

/// Hosts of one group that are counted apart. A page has some dozens; the rest is counted together.
const HOSTS_MAX: usize = 200;
/// The name of that rest.
const OTHERS: &str = "others";

/// What one group's forward proxy has carried. When nothing holds it any more, it goes to the log, a line for
/// each host.
#[derive(Debug)]
pub struct TrafficCounter {
    group: GroupName,
    untaken: ByteCounters,
    hosts: Mutex<BTreeMap<String, HostTally>>,
}

#[derive(Debug, Default)]
struct ByteCounters {
    sent: AtomicU64,
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct HostTally {
    visits: u64,
    refused: u64,
    sent: u64,
    received: u64,
}

impl TrafficCounter {
    pub fn new(group: GroupName) -> Self {
        Self { group, untaken: ByteCounters::default(), hosts: Mutex::default() }
    }

    /// What was counted since the last call.
    pub fn take_traffic(&self) -> WebTraffic {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        WebTraffic { sent: take(&self.untaken.sent), received: take(&self.untaken.received) }
    }

    pub fn record_refused_request(&self, host: &str) {
        self.update_host_tally(host, |tally| tally.refused += 1);
    }

    fn update_host_tally(&self, host: &str, change: impl FnOnce(&mut HostTally)) {
        let mut hosts = lock_unpoisoned(&self.hosts);
        let known = hosts.contains_key(host) || hosts.len() < HOSTS_MAX;
        change(hosts.entry(if known { host } else { OTHERS }.to_owned()).or_default());
    }
}

impl Drop for TrafficCounter {
    fn drop(&mut self) {
        for (host, HostTally { visits, refused, sent, received }) in lock_unpoisoned(&self.hosts).iter() {
            tracing::info!(
                group = %self.group, host, visits, refused, sent_bytes = sent, received_bytes = received,
                "The agent was on the web"
            );
        }
    }
}

/// One connection to a host, for as long as anything holds it.
#[derive(Debug)]
pub struct ProxiedConnection {
    host: String,
    bytes: ByteCounters,
    traffic: Arc<TrafficCounter>,
}

impl ProxiedConnection {
    pub fn new_shared(host: String, traffic: Arc<TrafficCounter>) -> Arc<Self> {
        Arc::new(Self { host, bytes: ByteCounters::default(), traffic })
    }

    /// Resolves when nothing has moved either way for `limit`, at most twice as long.
    pub async fn wait_for_idle(&self, limit: Duration) {
        loop {
            let before = self.bytes_moved();
            sleep(limit).await;
            if self.bytes_moved() == before {
                return;
            }
        }
    }

    fn bytes_moved(&self) -> u64 {
        self.bytes.sent.load(Ordering::Relaxed) + self.bytes.received.load(Ordering::Relaxed)
    }

    fn record_bytes_sent(&self, bytes: usize) {
        self.bytes.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.untaken.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn record_bytes_received(&self, bytes: usize) {
        self.bytes.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.untaken.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for ProxiedConnection {
    fn drop(&mut self) {
        let (sent, received) =
            (self.bytes.sent.load(Ordering::Relaxed), self.bytes.received.load(Ordering::Relaxed));
        self.traffic.update_host_tally(&self.host, |tally| {
            tally.visits += 1;
            tally.sent += sent;
            tally.received += received;
        });
    }
}

/// A connection to a host whose bytes are counted.
#[derive(Debug)]
pub struct CountedStream {
    stream: TcpStream,
    pub connection: Arc<ProxiedConnection>,
}

impl CountedStream {
    pub fn new(stream: TcpStream, connection: Arc<ProxiedConnection>) -> Self {
        Self { stream, connection }
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.connection.record_bytes_received(buffer.filled().len() - before);
        result
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.connection.record_bytes_sent(written);
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
