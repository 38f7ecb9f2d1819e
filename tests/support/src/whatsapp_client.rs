//! The real client library in a test: its files on disk, its events in order, its messages through the
//! durability hook. It can reach only the loopback server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};
use whatsapp_rust::pair_code::PairCodeOptions;
use whatsapp_rust::prelude::{
    Bot, BotHandle, ChannelEventHandler, Client, Event, InboundMessage, Jid, MessageExt, SqliteStore,
};
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::{InboundDurabilityHook, async_trait};
use whatsapp_server::{PATIENCE, Server};

/// Set so that the library does not look up a version.
const VERSION: (u32, u32, u32) = (2, 3000, 0);

/// More than any test sends to one device.
const INBOX_MAX: usize = 2048;

/// The files of a linked device, which outlive its client.
pub struct Files {
    folder: PathBuf,
    /// Set if only this device uses the files.
    _temporary: Option<TempDir>,
}

impl Default for Files {
    fn default() -> Self {
        let temporary = TempDir::new().unwrap();
        Self { folder: temporary.path().to_owned(), _temporary: Some(temporary) }
    }
}

impl Files {
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the files of a stopped device to the place where a program looks for its own files.
    pub fn moved_to(self, folder: &Path) -> Self {
        // Its database may still be closing, which removes files: then the copy is not complete.
        let copied = (0..10).any(|_| {
            let is_whole = copy_all(&self.folder, folder).is_ok();
            if !is_whole {
                let halves = std::fs::read_dir(folder).unwrap();
                halves.for_each(|half| std::fs::remove_file(half.unwrap().path()).unwrap());
            }
            is_whole
        });
        assert!(copied, "the files of a stopped device can be copied");
        Self { folder: folder.to_owned(), _temporary: None }
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::new(self.folder.join("wa.db").to_str().unwrap()).await.unwrap()
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// A running client of the library.
pub struct Device {
    pub client: Arc<Client>,
    run: BotHandle,
    events: Receiver<Arc<Event>>,
    inbox: mpsc::Receiver<InboundMessage>,
    refused: Arc<Notify>,
}

impl Device {
    /// Starts on these files: it logs in if they are linked, and shows QR codes if not.
    pub async fn start(server: &Server, files: &Files) -> Self {
        Self::run(server, files, None, Some(VERSION)).await
    }

    /// Like `start`, and asks for a pairing code for this phone.
    pub async fn start_with_code(server: &Server, files: &Files, phone: &str) -> Self {
        let code = PairCodeOptions { phone_number: phone.to_owned(), ..Default::default() };
        Self::run(server, files, Some(code), Some(VERSION)).await
    }

    /// Like `start`, and looks up the version of WhatsApp's web client.
    pub async fn start_unversioned(server: &Server, files: &Files) -> Self {
        Self::run(server, files, None, None).await
    }

    async fn run(
        server: &Server,
        files: &Files,
        code: Option<PairCodeOptions>,
        version: Option<(u32, u32, u32)>,
    ) -> Self {
        let (inbox, received) = mpsc::channel(INBOX_MAX);
        let refused = Arc::new(Notify::new());
        let mut bot = Bot::builder()
            .with_backend(files.open().await)
            .with_transport_factory(TokioWebSocketTransportFactory::new().with_url(server.url()))
            .with_http_client(NoInternet::new(server))
            .with_inbound_durability_hook(Inbox { taken: inbox, refused: refused.clone() })
            .skip_history_sync();
        if let Some(code) = code {
            bot = bot.with_pair_code(code);
        }
        if let Some(version) = version {
            bot = bot.with_version(version);
        }
        let bot = bot.build().await.unwrap();
        let client = bot.client();
        let (handler, events) = ChannelEventHandler::new();
        client.subscribe_handler(handler).detach();
        Self { client, run: bot.spawn(), events, inbox: received, refused }
    }

    /// A device that was linked by QR code and is online.
    pub async fn linked(server: &Server, files: &Files, phone: &str) -> Self {
        let device = Self::start(server, files).await;
        let qr = device.wait_for("a QR code", qr_code).await;
        server.scan_qr(phone, &qr).unwrap();
        device.wait_until_connected().await;
        device
    }

    /// The next event in which `wanted` finds something; the events before it are skipped.
    pub async fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
    }

    pub async fn wait_until_connected(&self) {
        self.wait_for("a connection", |event| matches!(event, Event::Connected(_)).then_some(())).await;
    }

    /// The next message with text that the hook received.
    pub async fn next_message(&mut self) -> InboundMessage {
        self.next_that("text", |message| message.message.text_content().is_some()).await
    }

    /// The next message of this kind that the hook received; the messages before it are skipped.
    pub async fn next_that(
        &mut self,
        what: &str,
        wanted: impl Fn(&InboundMessage) -> bool,
    ) -> InboundMessage {
        let search = async {
            loop {
                let message = self.inbox.recv().await.unwrap();
                if wanted(&message) {
                    return message;
                }
            }
        };
        timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
    }

    /// All messages from now on, for tests that count them while others write.
    pub fn take_inbox(&mut self) -> mpsc::Receiver<InboundMessage> {
        std::mem::replace(&mut self.inbox, mpsc::channel(1).1)
    }

    /// From now on the hook fails for every message, as if the disk were full.
    pub fn refuse_messages(&mut self) {
        self.inbox.close();
    }

    pub async fn wait_until_refused(&self) {
        timeout(PATIENCE, self.refused.notified()).await.expect("the hook refuses a message");
    }

    /// Writes to a phone number, or to a whole address. Returns the message's id.
    pub async fn write(&self, to: &str, text: &str) -> String {
        self.client.send_text(address(to), text).await.unwrap().message_id
    }

    /// Stops the client and flushes its files.
    pub async fn stop(self) {
        timeout(PATIENCE, self.run.shutdown()).await.expect("the client stops");
    }

    /// Waits until the client gives up by itself. Returns the events that were left.
    pub async fn end(self) -> Vec<Arc<Event>> {
        timeout(PATIENCE, self.run).await.expect("the client ends by itself");
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

pub fn address(of: &str) -> Jid {
    let text = if of.contains('@') { of.to_owned() } else { format!("{of}@s.whatsapp.net") };
    text.parse().unwrap()
}

pub fn qr_code(event: &Event) -> Option<String> {
    if let Event::PairingQrCode(shown) = event { Some(shown.code.clone()) } else { None }
}

pub fn pairing_code(event: &Event) -> Option<String> {
    if let Event::PairingCode(shown) = event { Some(shown.code.clone()) } else { None }
}

/// Passes each message to the test. If the test does not accept a message, it is not acknowledged.
struct Inbox {
    taken: mpsc::Sender<InboundMessage>,
    refused: Arc<Notify>,
}

#[async_trait]
impl InboundDurabilityHook for Inbox {
    async fn on_messages(&self, _client: Arc<Client>, batch: &[InboundMessage]) -> Result<()> {
        for message in batch {
            if let Err(error) = self.taken.try_send(message.clone()) {
                self.refused.notify_one();
                bail!("Failed to keep a message: {error}");
            }
        }
        Ok(())
    }
}

/// Asks the loopback server instead of the internet, whatever host the library names.
struct NoInternet {
    server: SocketAddr,
    client: reqwest::Client,
}

impl NoInternet {
    fn new(server: &Server) -> Self {
        // An error means that another test has already installed one, which is just as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { server: server.address(), client }
    }
}

#[async_trait]
impl HttpClient for NoInternet {
    async fn execute(&self, asked: HttpRequest) -> Result<HttpResponse> {
        let (_host, path) = asked
            .url
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once('/'))
            .with_context(|| format!("Failed to lead {} to the server", asked.url))?;
        let url = format!("http://{}/{path}", self.server);
        let request = self.client.request(asked.method.parse()?, url);
        let response = request.body(asked.body.unwrap_or_default()).send().await?;
        let status_code = response.status().as_u16();
        Ok(HttpResponse { status_code, body: response.bytes().await?.to_vec() })
    }
}
