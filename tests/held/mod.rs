//! The real service with its bridge's end in a test's hands: what the stories and the container tests have in
//! common. Knows neither Docker nor engines: those are the `Containers` that it is given.

#![allow(dead_code, reason = "each test target uses a part of it")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nanokimi::bridge::{self, Batch, BridgeEnd, Event, Order, SendError, Typing};
use nanokimi::container::Containers;
use nanokimi::container::spec::{Daemon, Limits};
use nanokimi::service::{self, Reach};
use nanokimi::session::{Host, Settings, machine};
use nanokimi::types::{
    ChatId, Group, GroupName, Inbound, InstallId, Lang, Mention, MessageId, Role, SenderId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What a chat has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub group: String,
    pub id: String,
    pub text: String,
}

/// A running service.
pub struct Held {
    batches: mpsc::Sender<Batch>,
    heard: mpsc::UnboundedReceiver<Heard>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
    bridge: JoinHandle<()>,
}

/// What the bridge is to do and has seen; outlives the service.
#[derive(Clone, Default)]
pub struct Chats {
    refusals: Arc<Mutex<VecDeque<SendError>>>,
    typing: Arc<Mutex<Vec<(String, Typing)>>>,
}

impl Chats {
    /// The bridge refuses the next message like this.
    pub fn refuse_next(&self, error: SendError) {
        self.refusals.lock().unwrap().push_back(error);
    }

    pub fn typing(&self) -> Vec<(String, Typing)> {
        self.typing.lock().unwrap().clone()
    }
}

impl Held {
    /// Starts the service; `host` is made around its way to the bridge.
    pub async fn start<C: Containers>(
        chats: &Chats,
        host: impl FnOnce(mpsc::Sender<Order>) -> Host<C>,
    ) -> Self {
        let (BridgeEnd { batches, orders }, end) = bridge::pair();
        let (heard_sender, heard) = mpsc::unbounded_channel();
        let bridge = tokio::spawn(hold_bridge(orders, heard_sender, chats.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async {
            stopped.await.ok();
        };
        let host = host(end.orders.clone());
        let task = tokio::spawn(service::run(host, end, Reach::All, ready, stopped));
        is_ready.await.expect("the service starts");
        Self { batches, heard, stop, task, bridge }
    }

    /// Stops the service as SIGTERM does; returns what was said and not heard.
    pub async fn stop(self) -> Option<Heard> {
        let Self { mut heard, stop, task, .. } = self;
        stop.send(()).ok();
        task.await.unwrap().unwrap();
        heard.try_recv().ok()
    }

    /// Breaks the service off as SIGKILL does: nothing is cleaned up, and what Docker runs goes on.
    pub async fn kill(self) {
        self.task.abort();
        self.bridge.abort();
        self.task.await.ok();
    }

    /// The bridge delivers this message; returns once it is stored.
    pub async fn writes(&self, message: Inbound) {
        let (committed, stored) = oneshot::channel();
        let batch = Batch { events: vec![Event::Message(message)], committed };
        self.batches.send(batch).await.expect("the service takes messages in");
        stored.await.expect("the message is stored");
    }

    /// The next message that a chat sees.
    pub async fn hears(&mut self, patience: Duration) -> Heard {
        timeout(patience, self.heard.recv()).await.expect("a message comes").expect("the bridge runs")
    }

    /// Nothing is said for this long.
    pub async fn silence(&mut self, length: Duration) {
        if let Ok(heard) = timeout(length, self.heard.recv()).await {
            panic!("{heard:?} breaks the silence");
        }
    }
}

/// The settings that are nobody's point: those of a new install.
pub fn settings(install: InstallId, image: String) -> Settings {
    Settings {
        install,
        assistant: "Kai".to_owned(),
        reply_prefix: "Kai: ".to_owned(),
        lang: Lang::En,
        zone: TimeZone::UTC,
        image,
        daemon: Daemon::Rootless,
        container_limits: Limits::STANDARD,
        model: None,
        device_id: "0".repeat(32),
        time_limits: machine::Limits {
            idle: Duration::from_secs(15 * 60),
            turn: Duration::from_secs(30 * 60),
        },
        max_agents: 5,
    }
}

pub fn chat(group: &str) -> ChatId {
    ChatId::new(format!("{group}@g.us"))
}

pub fn name(group: &str) -> GroupName {
    GroupName::parse(group).unwrap()
}

pub fn group(of: &str, role: Role) -> Group {
    Group { name: name(of), chat: chat(of), role, trigger: None }
}

pub fn message(group: &str, id: &str, sender: &str, text: &str, sent_at: Timestamp) -> Inbound {
    Inbound {
        chat: chat(group),
        id: MessageId::new(id),
        sender: SenderId::new(format!("{sender}@s.whatsapp.net")),
        sender_name: sender.to_owned(),
        text: text.to_owned(),
        sent_at,
        mention: Mention::NotMe,
        quote: None,
    }
}

async fn hold_bridge(
    mut orders: mpsc::Receiver<Order>,
    heard: mpsc::UnboundedSender<Heard>,
    Chats { refusals, typing }: Chats,
) {
    let group = |chat: &ChatId| chat.as_str().trim_end_matches("@g.us").to_owned();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Typing { chat, shown } => typing.lock().unwrap().push((group(&chat), shown)),
            Order::Send(send) => {
                let refusal = refusals.lock().unwrap().pop_front();
                if refusal.is_none() {
                    let text = send.text.clone();
                    heard.send(Heard { group: group(&send.chat), id: send.id.to_string(), text }).ok();
                }
                send.outcome.send(refusal.map_or(Ok(()), Err)).ok();
            }
        }
    }
}
