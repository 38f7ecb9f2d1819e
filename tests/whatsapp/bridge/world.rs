//! Our bridge as a test has it: it runs on files of its own, and the test plays the service.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use nanokimi::bridge::Content;
use nanokimi::bridge::whatsapp::{BridgeTask, Presence, WhatsAppBridge};
use nanokimi::bridge::{self, Batch, HandedOver, Order, QuoteTo, Recipients, SendError, ServiceEnd};
use nanokimi::clock::Clock;
use nanokimi::types::{ChatId, Event, IncomingMessage, LinkState, MessageId, Pairing, SenderId};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use whatsapp_server::{PATIENCE, Server};

pub const ANNA: &str = "15550001111";
pub const ANNA_LID: &str = "100000000000001";
pub const KAI: &str = "15550002222";
pub const KAI_LID: &str = "100000000000002";
pub const KAIS_CHAT: &str = "15550002222@s.whatsapp.net";
pub const ANNAS_CHAT: &str = "15550001111@s.whatsapp.net";
pub const FAMILY: &str = "120363000000000001@g.us";

/// A server that knows Anna and the account that Kai is linked to, and a group of both.
pub async fn server() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, ANNA_LID, "Anna");
    server.add_account(KAI, KAI_LID, "Kai's owner");
    server.add_group(FAMILY, "Family", &[ANNA, KAI]);
    server
}

/// The link's folder, which outlives the bridge.
pub struct Folder {
    pub root: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self { root: TempDir::new().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.root.path().join("auth")
    }

    /// The names beside and in the folder.
    pub fn beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn bridge(&self, server: &Server, presence: Presence) -> WhatsAppBridge {
        WhatsAppBridge { folder: self.path(), url: Some(server.url()), presence, clock: Clock::System }
    }
}

/// A running bridge.
pub struct Bridge {
    pub end: ServiceEnd,
    running: JoinHandle<Result<LinkState>>,
    stop: oneshot::Sender<()>,
    pub passkey: mpsc::Sender<String>,
}

impl Bridge {
    pub fn serve(server: &Server, folder: &Folder) -> Self {
        Self::start(folder.bridge(server, Presence::Hidden), |_| BridgeTask::Serve)
    }

    pub fn link(server: &Server, folder: &Folder, phone: Option<&str>) -> Self {
        let phone = phone.map(str::to_owned);
        Self::start(folder.bridge(server, Presence::Hidden), |passkey| BridgeTask::LinkAccount {
            phone,
            passkey,
        })
    }

    pub fn start(bridge: WhatsAppBridge, task: impl FnOnce(mpsc::Receiver<String>) -> BridgeTask) -> Self {
        let (bridge_end, end) = bridge::create_bridge_ends();
        let (stop, stopped) = oneshot::channel::<()>();
        let (passkey, answers) = mpsc::channel(1);
        let task = task(answers);
        let running = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            bridge.run_bridge(bridge_end, task, stopped).await
        });
        Self { end, running, stop, passkey }
    }

    /// A bridge that works, linked by QR code and online.
    pub async fn linked(server: &Server, folder: &Folder) -> Self {
        let mut linking = Self::link(server, folder, None);
        let qr = linking.wait_for_qr().await;
        server.scan_qr(KAI, &qr).unwrap();
        assert_eq!(linking.ended().await, LinkState::Online);
        let mut bridge = Self::serve(server, folder);
        bridge.wait_until_online().await;
        bridge
    }

    pub async fn wait_for_qr(&mut self) -> String {
        self.wait_for("a QR code", |link| {
            if let LinkState::Pairing(Pairing::Qr { code, .. }) = link {
                Some(code.expose_secret().to_owned())
            } else {
                None
            }
        })
        .await
    }

    /// Waits until the link is as wanted. Meanwhile every event is stored.
    pub async fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&LinkState) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = wanted(&self.end.link.borrow_and_update()) {
                    return found;
                }
                tokio::select! {
                    changed = self.end.link.changed() => changed.expect("the bridge runs"),
                    Some(batch) = self.end.batches.recv() => drop(store(batch)),
                }
            }
        };
        // To make a pairing code takes seconds of work, and other tests run too.
        timeout(PATIENCE * 2, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
    }

    pub async fn wait_until_online(&mut self) {
        self.wait_for("a connection", |link| (*link == LinkState::Online).then_some(())).await;
    }

    /// Stores the next batch and returns its events.
    pub async fn next_batch(&mut self) -> Vec<Event> {
        store(
            timeout(PATIENCE, self.end.batches.recv())
                .await
                .expect("a batch comes")
                .expect("the bridge runs"),
        )
    }

    /// The next event in which `wanted` finds something; the events before it are stored and skipped.
    pub async fn next<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.next_batch().await.iter().find_map(&wanted) {
                return found;
            }
        }
    }

    pub async fn next_message(&mut self) -> IncomingMessage {
        self.next(message).await
    }

    pub async fn order(&self, order: Order) {
        self.end.orders.send(order).await.unwrap();
    }

    pub async fn say(&self, chat: &str, id: &str, text: &str) -> Result<HandedOver, SendError> {
        let content = Content::Text { text: text.to_owned(), mentions: Vec::new() };
        self.send(chat, id, content, None).await
    }

    pub async fn send(
        &self,
        chat: &str,
        id: &str,
        content: Content,
        quote: Option<QuoteTo>,
    ) -> Result<HandedOver, SendError> {
        let (outcome, answer) = oneshot::channel();
        let order = Order::Send(bridge::SendOrder {
            chat: ChatId::new(chat),
            id: MessageId::new(id),
            content,
            quote,
            expires_secs: None,
            recipients: Recipients::Remembered,
            encoded: oneshot::channel().0,
            outcome,
        });
        self.order(order).await;
        timeout(PATIENCE, answer).await.expect("the order is answered").expect("the order is answered")
    }

    /// How the link is when the bridge has ended by itself. Meanwhile every event is stored.
    pub async fn ended(mut self) -> LinkState {
        let ended = async {
            loop {
                tokio::select! {
                    ended = &mut self.running => return ended.unwrap().unwrap(),
                    Some(batch) = self.end.batches.recv() => drop(store(batch)),
                }
            }
        };
        timeout(PATIENCE * 2, ended).await.expect("the bridge ends by itself")
    }

    pub async fn stop(self) -> LinkState {
        self.stop.send(()).ok();
        timeout(Duration::from_secs(30), self.running).await.expect("the bridge stops").unwrap().unwrap()
    }
}

pub fn store(batch: Batch) -> Vec<Event> {
    batch.committed.send(()).ok();
    batch.events
}

pub fn message(event: &Event) -> Option<IncomingMessage> {
    if let Event::Message(message) = event { Some(message.clone()) } else { None }
}

pub fn sender(of: &str) -> SenderId {
    SenderId::new(of)
}
