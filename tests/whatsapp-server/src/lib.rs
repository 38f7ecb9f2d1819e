//! A WhatsApp server for tests, on the loopback interface: enough of the multi-device protocol for the real
//! client library to link, log in, write and be written to. `README.md` says what it speaks and what it does
//! not.
//!
//! The wire format is what the client accepts. So it shows that a program and the library fit together, not
//! what WhatsApp's servers do today. It passes ciphertexts on; only the phones that it plays open what is for
//! them. It reaches nothing beyond 127.0.0.1.
//!
//! ```text
//! connection ─┬─► web                                a client that asks for the version or a file
//!             └─► noise ─► login ─┬─► pairing        a client that wants to be linked, …
//!                                 │   passkey        … to an account that wants a passkey
//!                                 │   link_options   … as a test wants it
//!                                 └─► requests       a device: keys, devices, …
//!                                     relay          … its messages, receipts, typing
//!                                     answers        … as a test wants them answered
//!                                     groups         … and what is asked and told of groups
//! phone, envelopes                                   the accounts' phones, peers with keys of their own
//! devices                                            what keeps a device from reading what it is sent
//! push                                               what reaches a device beside the messages of its chats
//! traces                                             the way of each message to one phone's devices
//! all of them on one `State`; a test reads and moves it through `Server`
//! ```

#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod accounts;
mod answers;
mod connection;
mod devices;
mod envelopes;
mod groups;
mod link_options;
mod login;
mod noise;
mod pairing;
mod passkey;
mod phone;
mod push;
mod relay;
mod requests;
mod stanza;
mod state;
mod traces;
mod web;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use whatsapp_rust::wacore::crypto::generate_curve_key_pair;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore_binary::Node;

use accounts::{Account, Mailbox};
pub use devices::Withheld;
pub use groups::Addressing;
pub use link_options::Passkeys;
pub use noise::Handshake;
pub use phone::Seen;
use stanza::{DeviceAddress, attr, child, receipt_ids};
use state::State;
pub use web::Storage;

/// Longer than anything takes on a busy machine; a wait that ends here has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it ends it; the test fails there if a client sent what the server does not
/// know.
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
    /// A code that WhatsApp's documents do not explain: 400, 409, 413 to 418.
    Other(u16),
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
    /// 429: the client comes back, and takes its time for that.
    TooMany,
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

    /// Where this server answers over HTTP, for those who lead `https://…` there.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws/chat", self.address)
    }

    /// Digits without a plus sign, and a LID without its server; `name` is what others see.
    pub fn add_account(&self, phone: &str, lid: &str, name: &str) {
        let account = Account::new(lid, name).expect("a phone has keys");
        self.shared.change(|state| state.accounts.insert(phone.to_owned(), account));
    }

    /// What others see the account called from now on.
    pub fn rename_account(&self, phone: &str, name: &str) {
        self.shared.change(|state| {
            if let Some(account) = state.accounts.get_mut(phone) {
                account.name = name.to_owned();
            }
        });
    }

    /// From now on the server keeps nothing that only a test looks at: what clients have sent, what phones
    /// have not read, and the files that are uploaded. A run of hours would fill the memory with that.
    pub fn keep_no_record(&self) {
        self.shared.change(|state| state.keeps_no_record = true);
    }

    /// From now on messages say that they were written so many seconds ago.
    pub fn date_messages_back(&self, secs: u64) {
        self.shared.change(|state| state.dated_back_secs = secs);
    }

    /// The person scans with their phone what a client shows.
    pub fn scan_qr(&self, phone: &str, qr: &str) -> Result<()> {
        self.shared.change(|state| state.scan_qr(phone, qr))
    }

    /// The person types into their phone what a client shows.
    pub fn enter_code(&self, phone: &str, code: &str) -> Result<()> {
        self.shared.change(|state| state.enter_code(phone, code))
    }

    /// The next login of one of this phone's devices is refused. Several refusals are told one after the
    /// other.
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

    /// How many devices are linked to the phone.
    pub fn devices(&self, phone: &str) -> usize {
        let all = self.shared.lock().linked_devices();
        all.into_iter().filter(|device| device.phone == phone).count()
    }

    /// How the phone's last device met the server when it last logged in.
    pub fn handshake_of(&self, phone: &str) -> Option<Handshake> {
        self.shared.lock().accounts.get(phone)?.devices.values().next_back()?.handshake
    }

    /// As which version of the web client the phone's last device logged in.
    pub fn version_of(&self, phone: &str) -> Option<(u32, u32, u32)> {
        self.shared.lock().accounts.get(phone)?.devices.values().next_back()?.version
    }

    /// How often the phone's devices have sent a stanza of this tag: "message", "receipt", "ack", "presence",
    /// …
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
        let held = |state: &State| mailboxes(state, phone).map(Mailbox::held).sum::<usize>();
        self.wait_until("everything is acknowledged", |state| held(state) == 0).await;
    }

    /// Waits until the server keeps this many messages for the phone's devices.
    pub async fn wait_for_held(&self, phone: &str, count: usize) {
        let held = |state: &State| mailboxes(state, phone).map(Mailbox::held_messages).sum::<usize>();
        self.wait_until("messages are held", |state| held(state) == count).await;
    }

    /// Waits until a device of the phone has said that it got this message, or the message was read.
    pub async fn wait_for_receipt(&self, phone: &str, message: &str) {
        let is_it = |stanza: &Node| receipt_ids(stanza).iter().any(|id| id == message);
        self.wait_until("a receipt", |state| state.sent_by(phone, "receipt").any(is_it)).await;
    }

    /// `kind` is "read", "retry", …
    pub async fn wait_for_receipt_of_kind(&self, phone: &str, message: &str, kind: &str) {
        let is_it = |state: &State| state.receipts_of(phone, kind).iter().any(|id| id == message);
        self.wait_until("a receipt of its kind", is_it).await;
    }

    /// The messages for which the phone's devices have sent receipts of this kind, in order.
    pub fn receipts_from(&self, phone: &str, kind: &str) -> Vec<String> {
        self.shared.lock().receipts_of(phone, kind)
    }

    /// `kind` is "available" or "unavailable".
    pub async fn wait_for_presence(&self, phone: &str, kind: &str) {
        self.wait_until("a presence", |state| state.has_sent(phone, "presence", "type", kind)).await;
    }

    /// Waits until the phone's devices have said this often whether they are online.
    pub async fn wait_for_presences(&self, phone: &str, count: usize) {
        self.wait_until("presences", |state| state.sent_by(phone, "presence").count() >= count).await;
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

    /// Changes the state, and wakes those that wait for that.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|changes| *changes += 1);
        changed
    }
}

fn mailboxes<'a>(state: &'a State, phone: &str) -> impl Iterator<Item = &'a Mailbox> {
    let devices = state.accounts.get(phone).into_iter().flat_map(|account| account.devices.values());
    devices.map(|device| &device.mailbox)
}

#[expect(clippy::disallowed_methods, reason = "clients go by the machine's clock, too")]
fn now_secs() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |passed| passed.as_secs())
}
