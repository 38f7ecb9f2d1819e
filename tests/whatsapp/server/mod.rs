//! A WhatsApp server of our own, on the loopback interface: enough of the multi-device protocol for the real
//! client library to link, log in, write and be written to.
//!
//! The wire format is what the client accepts. So it shows that we and the library fit together, not what
//! WhatsApp's servers do today. It never sees a message's text, and reaches nothing beyond 127.0.0.1.
//!
//! ```text
//! connection ─► noise ─► login ─┬─► pairing        a client that wants to be linked
//!                               └─► requests       a device: keys, groups, …
//!                                   relay          … and its messages, receipts, typing
//!                                   phone          the account's phone, a peer with keys of its own
//! all of them on one `State`; a test reads and moves it through `Server`
//! ```

mod accounts;
mod connection;
mod login;
mod noise;
mod pairing;
mod phone;
mod relay;
mod requests;
mod stanza;
mod state;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nanokimi::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use whatsapp_rust::wacore::crypto::generate_curve_key_pair;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;

use accounts::Account;
use stanza::{DeviceAddress, attr, child};
use state::{Group, State};

/// Longer than anything takes on a busy machine; a wait that ends here has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it ends it; the test fails there if a client sent what the server does not know.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the server and its connections have in common.
struct Shared {
    state: Mutex<State>,
    /// Counts the changes of the state, for those who wait for one.
    changes: watch::Sender<u64>,
    key: KeyPair,
}

/// What a login is told instead of "welcome".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device was unlinked from the phone.
    Unlinked,
    Banned {
        reason: u32,
        secs: u32,
    },
    Locked,
    Outdated,
    Unavailable,
}

/// What a device that is logged in is told before the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Another client has logged in as this device.
    Replaced,
    Unlinked,
    /// "Come again": 515.
    Restart,
    Unavailable,
}

/// What is left to do without the lock.
enum Errand {
    ShareStateKey(DeviceAddress),
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("Failed to listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            key: generate_curve_key_pair(),
        });
        let accepting = tokio::spawn(connection::accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws/chat", self.address)
    }

    /// Digits without a plus sign, and a LID without its server; `name` is what others see.
    pub fn add_account(&self, phone: &str, lid: &str, name: &str) {
        self.shared.change(|state| state.accounts.insert(phone.to_owned(), Account::new(lid, name)));
    }

    /// `id` ends with `@g.us`; the first member is the owner.
    pub fn add_group(&self, id: &str, subject: &str, members: &[&str]) {
        let members = members.iter().map(|phone| (*phone).to_owned()).collect();
        let group = Group { subject: subject.to_owned(), members };
        self.shared.change(|state| state.groups.insert(id.to_owned(), group));
    }

    /// The person scans with their phone what a client shows.
    pub fn scan_qr(&self, phone: &str, qr: &str) -> Result<()> {
        self.shared.change(|state| state.scan_qr(phone, qr))
    }

    /// The person types into their phone what a client shows.
    pub fn enter_code(&self, phone: &str, code: &str) -> Result<()> {
        self.shared.change(|state| state.enter_code(phone, code))
    }

    /// The next login of one of this phone's devices is refused. Several refusals are told one after the other.
    pub fn refuse_next_login(&self, phone: &str, refusal: Refusal) {
        self.shared.change(|state| state.refusals.entry(phone.to_owned()).or_default().push_back(refusal));
    }

    /// Tells every device of the phone that is online, and ends its connection.
    pub fn interrupt(&self, phone: &str, interruption: Interruption) {
        self.shared.change(|state| {
            for connection in state.connections_of(phone) {
                state.send(connection, interruption.stanza());
                state.close(connection);
            }
        });
    }

    /// Ends the connections of the phone's devices without a word.
    pub fn drop_connection(&self, phone: &str) {
        self.shared.change(|state| {
            for connection in state.connections_of(phone) {
                state.close(connection);
            }
        });
    }

    /// The person removes the phone's devices: they are told, and never let in again.
    pub fn unlink(&self, phone: &str) {
        self.shared.change(|state| {
            let account = state.accounts.get_mut(phone);
            for device in account.into_iter().flat_map(|account| account.devices.values_mut()) {
                device.unlinked = true;
            }
        });
        self.interrupt(phone, Interruption::Unlinked);
    }

    pub fn devices(&self, phone: &str) -> usize {
        self.shared.lock().accounts.get(phone).map_or(0, |account| account.devices.len())
    }

    /// How often the phone's devices have sent a stanza of this tag: "message", "receipt", "ack", "presence", …
    pub fn count_sent(&self, phone: &str, tag: &str) -> usize {
        self.shared.lock().sent_by(phone, tag).count()
    }

    /// Waits until the server has met something that it does not know, and takes that out of its faults.
    pub async fn wait_for_fault(&self) -> String {
        self.wait_until("there is a fault", |state| !state.faults.is_empty()).await;
        self.shared.lock().faults.remove(0)
    }

    pub async fn wait_until_online(&self, phone: &str) {
        self.wait_until("it is online", |state| !state.connections_of(phone).is_empty()).await;
    }

    pub async fn wait_until_offline(&self, phone: &str) {
        self.wait_until("it is offline", |state| state.connections_of(phone).is_empty()).await;
    }

    /// Waits until the phone's devices have acknowledged everything.
    pub async fn wait_until_settled(&self, phone: &str) {
        self.wait_until("everything is acknowledged", |state| held(state, phone) == 0).await;
    }

    /// Waits until the server keeps this many stanzas for the phone's devices.
    pub async fn wait_for_held(&self, phone: &str, count: usize) {
        self.wait_until("stanzas are held", |state| held(state, phone) == count).await;
    }

    /// Waits until a device of the phone has said that it got this message, or the message was read.
    pub async fn wait_for_receipt(&self, phone: &str, message: &str) {
        self.wait_until("a receipt", |state| state.has_sent(phone, "receipt", "id", message)).await;
    }

    /// `kind` is "available" or "unavailable".
    pub async fn wait_for_presence(&self, phone: &str, kind: &str) {
        self.wait_until("a presence", |state| state.has_sent(phone, "presence", "type", kind)).await;
    }

    /// `kind` is "composing" or "paused"; `chat` as the client addressed it.
    pub async fn wait_for_chatstate(&self, phone: &str, chat: &str, kind: &str) {
        self.wait_until("a chatstate", |state| {
            let to_chat = |stanza: &&_| attr(stanza, "to").as_deref() == Some(chat);
            state.sent_by(phone, "chatstate").filter(to_chat).any(|stanza| child(stanza, kind).is_some())
        })
        .await;
    }

    async fn wait_until(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let waiting = changes.wait_for(|_| reached(&self.shared.lock()));
        let waited = timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "waited {} s until {what}", PATIENCE.as_secs());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        let faults = std::mem::take(&mut self.shared.lock().faults);
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "\n{}", faults.join("\n"));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes who waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|changes| *changes += 1);
        changed
    }
}

fn held(state: &State, phone: &str) -> usize {
    let devices = state.accounts.get(phone).into_iter().flat_map(|account| account.devices.values());
    devices.map(|device| device.mailbox.held()).sum()
}

fn now_secs() -> u64 {
    u64::try_from(Clock::System.now().as_second()).unwrap_or_default()
}
