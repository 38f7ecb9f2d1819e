//! One run of the library, whatsapp-rust: how it is set up, and what it says of itself, in our words.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use whatsapp_rust::prelude::{Bot, BotHandle, Client, Event as LibraryEvent, Jid, SqliteStore};
use whatsapp_rust::store::{SqliteStoreConfig, Synchronous};
use whatsapp_rust::transport::TokioWebSocketTransportFactory;
use whatsapp_rust::types::events::{
    DecryptFailMode, EventHandler, EventInterest, EventKind, MessageBatch, Receipt as DeviceReceipts,
    UndecryptableMessage,
};
use whatsapp_rust::types::presence::{ChatPresence, ReceiptType};
use whatsapp_rust::wacore::pair_code::PairCodeRejection;
use whatsapp_rust::wacore::store::DevicePropsOverride;
use whatsapp_rust::wacore::store::traits::DeviceStore as _;
use whatsapp_rust::wacore_binary::{JidExt as _, NodeRef};
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::{CacheConfig, CacheEntryConfig, RawNodeLease};

use super::arrivals::{Arrival, Arrivals};
use super::fault::{GuardedTransport, StorageFault};
use super::http::WhatsAppHttpClient;
use super::inbound;
use super::intake_sink::{IntakeSink, own_account};
use super::key_folder::KeyFolder;
use super::notes::UnreadNotes;
use super::reconnect_policy::DisconnectReason;
use super::storage::Storage;
use super::unread;
use crate::types::{Answer, DeviceKind, Event, MessageId, Receipt, ReceiptKind};

/// How the phone lists us under its linked devices. A name of our own instead of a browser's is accepted when
/// a QR code is scanned; for a pairing code the library says "Linux" by itself, because WhatsApp refuses
/// other names there.
const DEVICE_NAME: &str = "nanokimi (Linux)";
/// WhatsApp's kind of device that is shown by its name alone. `UNKNOWN`, the library's own choice, makes the
/// phone warn of an unknown device; a browser's would be shown as that browser.
const DEVICE_KIND: PlatformType = PlatformType::DESKTOP;
/// How long a group's and a person's devices are remembered.
const CACHE_TIME: Duration = Duration::from_secs(60 * 60);
/// Groups that are kept in memory, of one person's account.
const GROUPS_CACHED: u64 = 64;
/// People whose devices are kept in memory: a large group's.
const PEOPLE_CACHED: u64 = 1024;
/// Chats whose locks are kept in memory.
const CHATS_CACHED: u64 = 512;
/// How long the library keeps what it has sent, on disk, to answer a device that could not read it and asks
/// once more: a phone may be off for weeks. The library's own two hours lose such a message for good.
const SENT_KEPT_SECS: u64 = 30 * 24 * 60 * 60;

/// What the library says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSignal {
    Connected,
    Disconnected,
    Pairing(PairingSignal),
    /// Why the run is about to end.
    Ends(DisconnectReason),
    /// What intake is to know. WhatsApp does not deliver it again.
    Events(Vec<Event>),
    /// WhatsApp has a message, and knows devices of this hash for its chat.
    Hash {
        id: MessageId,
        hash: Option<String>,
    },
    /// Groups that are new, or have changed.
    GroupsChanged(Vec<Jid>),
    /// The account has got a name, or another one.
    Named,
    /// A message could not be read: what intake is to know of it, and whether the own phone has written it.
    /// It counts in [`ClientRun::notes`].
    Unread {
        noted: Box<Event>,
        by_own_phone: bool,
    },
    /// A message that linked devices do not get: what stands for it, counted as well.
    Unavailable(Vec<Event>),
    /// A message of the own phone's could be read.
    OwnPhoneRead,
}

/// What the library says while a device is being linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairingSignal {
    Qr { code: String, valid: Duration },
    Code { code: String, valid: Duration },
    CodeExpired,
    CodeRefused { rejection: Option<PairCodeRejection>, error: String },
    QrCodesUsedUp { disconnected: bool },
    PhoneTooOld,
    PasskeyWanted { request: String },
    PasskeyCode { code: String, shown: bool },
    PasskeyFailed { error: String },
    Agreed,
    Failed { error: String },
}

/// One run of the library.
pub struct ClientRun {
    pub client: Arc<Client>,
    pub bot_handle: BotHandle,
    pub signals: mpsc::UnboundedReceiver<ClientSignal>,
    /// Whether its database has failed.
    pub fault: StorageFault,
    /// What must be on disk before anything more leaves.
    pub notes: UnreadNotes,
    /// As long as it is held, the listener sees each stanza before the library works on it.
    _stanzas: RawNodeLease,
}

impl ClientRun {
    /// Starts the library on the keys of the folder, which it makes if there are none.
    pub async fn start_client(
        folder: &KeyFolder,
        url: Option<&str>,
        http: WhatsAppHttpClient,
        intake: IntakeSink,
        version: Option<(u32, u32, u32)>,
    ) -> Result<Self> {
        let mut transport = TokioWebSocketTransportFactory::new();
        if let Some(url) = url {
            transport = transport.with_url(url);
        }
        let (arrivals, fault, notes) = (Arrivals::default(), StorageFault::default(), UnreadNotes::default());
        let storage = Storage {
            database: open_key_database(folder).await?,
            arrivals: arrivals.clone(),
            fault: fault.clone(),
            intake: intake.clone(),
        };
        let mut bot = Bot::builder()
            .with_backend(storage)
            .with_transport_factory(GuardedTransport {
                inner: transport,
                fault: fault.clone(),
                notes: notes.clone(),
            })
            .with_http_client(http)
            .with_device_props(
                DevicePropsOverride::new().with_os(DEVICE_NAME).with_platform_type(DEVICE_KIND),
            )
            .with_cache_config(small_cache_config())
            .with_inbound_durability_hook(intake.clone())
            .skip_history_sync();
        if let Some(version) = version {
            bot = bot.with_version(version);
        }
        let bot = bot.build().await.context("Failed to set up the WhatsApp library")?;
        let client = bot.client();
        let (sender, signals) = mpsc::unbounded_channel();
        let listener = ClientListener {
            signals: sender,
            intake,
            arrivals,
            notes: notes.clone(),
            client: Arc::downgrade(&client),
        };
        client.subscribe_handler(Arc::new(listener)).detach();
        let stanzas = client.acquire_raw_node_forwarding();
        Ok(Self { client, bot_handle: bot.spawn(), signals, fault, notes, _stanzas: stanzas })
    }
}

/// Whether the keys in the folder belong to a linked device.
pub async fn has_linked_device(folder: &KeyFolder) -> Result<bool> {
    if !folder.has_keys()? {
        return Ok(false);
    }
    let device = open_key_database(folder).await?.load().await.context("Failed to read the link's keys")?;
    Ok(device.is_some_and(|device| device.pn.is_some()))
}

async fn open_key_database(folder: &KeyFolder) -> Result<SqliteStore> {
    // FULL: a message key that was used is on disk before the message leaves.
    let config = SqliteStoreConfig { synchronous: Synchronous::Full, ..Default::default() };
    let path = folder.database_path();
    let url = path.to_str().context("Failed to name the link's database")?;
    SqliteStore::with_config(url, config).await.with_context(|| format!("Failed to open {url}"))
}

/// What is kept in memory is enough for one person's account on a small server: the library's own sizes are
/// for thousands of chats.
fn small_cache_config() -> CacheConfig {
    CacheConfig {
        group_cache: CacheEntryConfig::new(Some(CACHE_TIME), GROUPS_CACHED),
        device_registry_cache: CacheEntryConfig::new(Some(CACHE_TIME), PEOPLE_CACHED),
        sender_key_devices_cache: CacheEntryConfig::new(Some(CACHE_TIME), GROUPS_CACHED),
        session_locks_capacity: PEOPLE_CACHED,
        chat_lanes_capacity: CHATS_CACHED,
        resend_rate_limiter_capacity: CHATS_CACHED,
        sent_message_ttl_secs: SENT_KEPT_SECS,
        ..Default::default()
    }
}

/// Puts the library's events into our words, in order and at once.
struct ClientListener {
    signals: mpsc::UnboundedSender<ClientSignal>,
    intake: IntakeSink,
    arrivals: Arrivals,
    notes: UnreadNotes,
    client: std::sync::Weak<Client>,
}

impl EventHandler for ClientListener {
    fn handle_event(&self, event: Arc<LibraryEvent>) {
        if let Some(signal) = self.handle_client_event(&event) {
            // Closed while the run is being ended.
            self.signals.send(signal).ok();
        }
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[
            EventKind::Connected,
            EventKind::Disconnected,
            EventKind::PairSuccess,
            EventKind::PairError,
            EventKind::LoggedOut,
            EventKind::PairingQrCode,
            EventKind::PairingCode,
            EventKind::PairingCodeRefresh,
            EventKind::PairingCodeError,
            EventKind::PairingQrCodesExhausted,
            EventKind::QrScannedWithoutMultidevice,
            EventKind::ClientOutdated,
            EventKind::Messages,
            EventKind::ServerAck,
            EventKind::Receipt,
            EventKind::ChatPresence,
            EventKind::IdentityChange,
            EventKind::UndecryptableMessage,
            EventKind::GroupUpdate,
            EventKind::SelfPushNameUpdated,
            EventKind::StreamReplaced,
            EventKind::TemporaryBan,
            EventKind::ConnectFailure,
            EventKind::PairPasskeyRequest,
            EventKind::PairPasskeyConfirmation,
            EventKind::PairPasskeyError,
            EventKind::RawNode,
        ])
    }
}

impl ClientListener {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's enum is open, and most of it is not ours"
    )]
    fn handle_client_event(&self, event: &LibraryEvent) -> Option<ClientSignal> {
        match event {
            LibraryEvent::RawNode(stanza) => {
                self.register_arrival(stanza.get());
                self.stanza_signal(stanza.get())
            }
            LibraryEvent::Receipt(receipts) => self.receipts_signal(receipts),
            LibraryEvent::Messages(batch) if batch.hook_committed => {
                if batch.iter().any(|message| unread::is_by_own_phone(&message.info)) {
                    self.signals.send(ClientSignal::OwnPhoneRead).ok();
                }
                self.unknown_groups_signal(batch)
            }
            LibraryEvent::Messages(batch) => self.recovered_messages_signal(batch),
            LibraryEvent::UndecryptableMessage(message) => {
                self.arrivals.release_arrival(&Arrival::from_info(&message.info));
                self.unavailable_signal(message).or_else(|| self.unread_signal(message))
            }
            _ => signal_from_event(event),
        }
    }

    /// A message that only the phone can open becomes one that says so.
    fn unavailable_signal(&self, message: &UndecryptableMessage) -> Option<ClientSignal> {
        if !message.is_unavailable {
            return None;
        }
        let client = self.client.upgrade()?;
        let events = self.intake.unavailable_message_events(&client, &message.info, message.unavailable_type);
        if events.is_empty() {
            return None;
        }
        self.notes.add_pending();
        Some(ClientSignal::Unavailable(events))
    }

    fn register_arrival(&self, stanza: &NodeRef<'_>) {
        let Some(client) = self.client.upgrade() else { return };
        // As the library does, before it knows its own number.
        let phone = client.pn().unwrap_or_default();
        self.arrivals.register_stanza(stanza, &phone, client.lid().as_ref(), |info| {
            self.intake.unread_message_event(&client, info)
        });
    }

    /// A message that nobody would see on a phone either is left out.
    fn unread_signal(&self, message: &UndecryptableMessage) -> Option<ClientSignal> {
        let unseen = message.decrypt_fail_mode == DecryptFailMode::Hide
            || message.unavailable_type.is_unrecoverable_fanout();
        if unseen {
            return None;
        }
        let noted = self.intake.unread_message_event(&*self.client.upgrade()?, &message.info)?;
        // At once: its author may send it again before intake has noted it.
        self.intake.announced.record_announced(std::slice::from_ref(&noted));
        self.notes.add_pending();
        Some(ClientSignal::Unread {
            noted: Box::new(noted),
            by_own_phone: unread::is_by_own_phone(&message.info),
        })
    }

    /// The intake sink has handed these messages over; it could not ask how their groups are called.
    fn unknown_groups_signal(&self, batch: &MessageBatch) -> Option<ClientSignal> {
        let chats = batch.iter().map(|message| &message.info.source.chat);
        let unknown = chats.filter(|chat| {
            chat.is_group() && !self.intake.announced.knows_chat_name(&inbound::to_chat_id(chat))
        });
        let mut unknown: Vec<Jid> = unknown.cloned().collect();
        unknown.dedup();
        (!unknown.is_empty()).then_some(ClientSignal::GroupsChanged(unknown))
    }

    /// What devices of other people say of messages. Receipts of our own devices say nothing of theirs.
    fn receipts_signal(&self, receipts: &DeviceReceipts) -> Option<ClientSignal> {
        let kind = receipt_kind(&receipts.r#type)?;
        self.device_receipts_signal(&receipts.source.sender, &receipts.message_ids, kind)
    }

    fn device_receipts_signal(
        &self,
        device: &Jid,
        ids: &[String],
        kind: ReceiptKind,
    ) -> Option<ClientSignal> {
        if own_account(&*self.client.upgrade()?).is_own_jid(device) {
            return None;
        }
        let device_kind = if device.device == 0 { DeviceKind::Phone } else { DeviceKind::Companion };
        let receipt = |id: &String| Receipt {
            id: MessageId::new(id),
            person: inbound::to_sender_id(device),
            device: device_kind,
            kind,
        };
        Some(ClientSignal::Events(ids.iter().map(|id| Event::Receipt(receipt(id))).collect()))
    }

    /// What the library makes no event of: a device asks for a message once more, and the hash in an answer.
    fn stanza_signal(&self, stanza: &NodeRef<'_>) -> Option<ClientSignal> {
        let attribute = |name: &str| stanza.get_attr(name).map(|value| value.as_str().into_owned());
        match (stanza.tag.as_ref(), attribute("type").as_deref(), attribute("class").as_deref()) {
            ("receipt", Some("retry"), _) => {
                let device: Jid = attribute("participant").or_else(|| attribute("from"))?.parse().ok()?;
                self.device_receipts_signal(&device, &[attribute("id")?], ReceiptKind::Retry)
            }
            ("ack", _, Some("message")) if attribute("error").is_none() => {
                Some(ClientSignal::Hash { id: MessageId::new(attribute("id")?), hash: attribute("phash") })
            }
            _ => None,
        }
    }

    /// What the phone sends for a message that could not be decrypted comes without the durability hook.
    fn recovered_messages_signal(&self, batch: &MessageBatch) -> Option<ClientSignal> {
        let recovered = batch.iter().filter(|message| message.info.unavailable_request_id.is_some());
        let recovered: Vec<_> = recovered.cloned().collect();
        let events = self.intake.events_from_batch(&*self.client.upgrade()?, &recovered);
        (!events.is_empty()).then_some(ClientSignal::Events(events))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is open, and most of it is not ours")]
fn signal_from_event(event: &LibraryEvent) -> Option<ClientSignal> {
    Some(match event {
        LibraryEvent::Connected(_) => ClientSignal::Connected,
        LibraryEvent::Disconnected(_) => ClientSignal::Disconnected,
        LibraryEvent::StreamReplaced(_) => ClientSignal::Ends(DisconnectReason::Replaced),
        LibraryEvent::LoggedOut(_) => ClientSignal::Ends(DisconnectReason::LoggedOut),
        LibraryEvent::ClientOutdated(_) => ClientSignal::Ends(DisconnectReason::Outdated),
        LibraryEvent::TemporaryBan(ban) => ClientSignal::Ends(DisconnectReason::Banned {
            secs: ban.expire.to_std().unwrap_or_default().as_secs(),
        }),
        // The library tries again by itself after these.
        LibraryEvent::ConnectFailure(failure) if failure.reason.should_reconnect() => {
            ClientSignal::Disconnected
        }
        LibraryEvent::ConnectFailure(failure) => {
            ClientSignal::Ends(DisconnectReason::Refused { reason: failure.reason.code() })
        }
        LibraryEvent::ServerAck(ack) if ack.class.as_deref() == Some("message") => {
            ClientSignal::Events(vec![Event::Answered {
                id: MessageId::new(&ack.id),
                answer: parse_ack_answer(ack.error.as_deref()),
            }])
        }
        LibraryEvent::IdentityChange(change) => {
            let names = std::iter::once(&change.user).chain(&change.lid_user);
            let changed = names.map(|name| Event::IdentityChanged { person: inbound::to_sender_id(name) });
            ClientSignal::Events(changed.collect())
        }
        LibraryEvent::ChatPresence(update) if update.state == ChatPresence::Composing => {
            ClientSignal::Events(vec![Event::Typing { chat: inbound::to_chat_id(&update.source.chat) }])
        }
        LibraryEvent::GroupUpdate(update) => ClientSignal::GroupsChanged(vec![update.group_jid.clone()]),
        LibraryEvent::SelfPushNameUpdated(_) => ClientSignal::Named,
        _ => return pairing_signal_from_event(event).map(ClientSignal::Pairing),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is open, and most of it is not ours")]
fn pairing_signal_from_event(event: &LibraryEvent) -> Option<PairingSignal> {
    Some(match event {
        LibraryEvent::PairingQrCode(qr) => PairingSignal::Qr { code: qr.code.clone(), valid: qr.timeout },
        LibraryEvent::PairingCode(code) => {
            PairingSignal::Code { code: code.code.clone(), valid: code.timeout }
        }
        LibraryEvent::PairingCodeRefresh(_) => PairingSignal::CodeExpired,
        LibraryEvent::PairingCodeError(refused) => {
            PairingSignal::CodeRefused { rejection: refused.rejection, error: refused.error.clone() }
        }
        LibraryEvent::PairingQrCodesExhausted(used_up) => {
            PairingSignal::QrCodesUsedUp { disconnected: used_up.disconnected }
        }
        LibraryEvent::QrScannedWithoutMultidevice(_) => PairingSignal::PhoneTooOld,
        LibraryEvent::PairPasskeyRequest(wanted) => {
            PairingSignal::PasskeyWanted { request: wanted.request_options_json.clone() }
        }
        LibraryEvent::PairPasskeyConfirmation(code) => {
            PairingSignal::PasskeyCode { code: code.code.clone(), shown: !code.skip_handoff_ux }
        }
        LibraryEvent::PairPasskeyError(failed) => {
            PairingSignal::PasskeyFailed { error: failed.error.clone() }
        }
        LibraryEvent::PairSuccess(_) => PairingSignal::Agreed,
        LibraryEvent::PairError(failed) => PairingSignal::Failed { error: failed.error.clone() },
        _ => return None,
    })
}

/// `None` for a receipt that does not say that a device can read the message.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is open, and most of it is not ours")]
fn receipt_kind(kind: &ReceiptType) -> Option<ReceiptKind> {
    match kind {
        ReceiptType::Delivered | ReceiptType::Inactive => Some(ReceiptKind::Delivered),
        ReceiptType::Read | ReceiptType::Played => Some(ReceiptKind::Read),
        _ => None,
    }
}

/// A refusal without a readable number counts as the server's own.
fn parse_ack_answer(error: Option<&str>) -> Answer {
    match error {
        None => Answer::Acked,
        Some(code) => Answer::Nacked { code: code.parse().unwrap_or(500) },
    }
}
