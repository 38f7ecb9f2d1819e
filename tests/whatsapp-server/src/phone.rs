//! The phone of an account, device 0: a peer of its linked devices with keys of its own, whom a test lets
//! write and read. An account needs no linked device for that.
//!
//! A real phone also shares its application state; a device that gets no key to it waits ten seconds before
//! it works. A phone reads when it is asked to, sends no receipts, and asks for nothing twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, ensure};
use async_lock::{Mutex, RwLock};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::prelude::MessageExt;
use whatsapp_rust::store::Device as SignalDevice;
use whatsapp_rust::store::signal_adapter::SignalProtocolStoreAdapter;
use whatsapp_rust::store::signal_cache::SignalStoreCache;
use whatsapp_rust::wacore::crypto::calculate_curve_signature;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore_binary::{Jid, JidExt as _, Node, Server as Space};
use whatsapp_rust::waproto::whatsapp as wa;

use super::accounts::{DeviceKeys, SignedKey};
use super::envelopes::{knows, meet, open, pad, seal};
use super::stanza::{DeviceAddress, SERVER, attr, by_phone, jid, required, required_jid};
use super::state::State;
use super::{Server, Shared, now_secs};

/// The application state's key: its name and content. There is no state that it opens.
const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];
const KEY: [u8; 32] = [7; 32];

/// Ten times what any test sends to a phone.
const HEARD_MAX: usize = 20_000;

pub struct Phone {
    pub keys: DeviceKeys,
    signal: SignalProtocolStoreAdapter,
    /// As they came.
    heard: VecDeque<Node>,
    read: VecDeque<Seen>,
    /// Whether it says what it has, and keeps what it cannot read instead of failing the test.
    pub sends_receipts: bool,
    /// By their ids: what waits to be readable.
    pub unreadable: BTreeMap<String, Node>,
    /// Envelopes are opened and sealed one after the other.
    turn: Arc<Mutex<()>>,
}

/// A message as it stands on a phone's screen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The group, or the other person's address, or the account's own.
    pub chat: String,
    /// The phone number of who wrote it.
    pub author: String,
    pub id: String,
    pub message: wa::Message,
}

impl Seen {
    pub fn text(&self) -> &str {
        self.message.text_content().unwrap_or_default()
    }
}

impl Phone {
    pub fn new(identity: &KeyPair) -> Result<Self> {
        let mut device = SignalDevice::new(Arc::new(InMemoryBackend::new()));
        device.core.identity_key = identity.clone();
        let signed = &device.core.signed_pre_key.public_key;
        let keys = DeviceKeys {
            registration: device.core.registration_id,
            identity: identity.public_key.public_key_bytes().to_vec(),
            signed: SignedKey {
                id: device.core.signed_pre_key_id,
                key: signed.public_key_bytes().to_vec(),
                signature: calculate_curve_signature(&identity.private_key, &signed.serialize())?.to_vec(),
            },
            one_time: VecDeque::new(),
        };
        let cache = Arc::new(SignalStoreCache::new());
        Ok(Self {
            keys,
            signal: SignalProtocolStoreAdapter::new(Arc::new(RwLock::new(device)), cache),
            heard: VecDeque::new(),
            read: VecDeque::new(),
            sends_receipts: false,
            unreadable: BTreeMap::new(),
            turn: Arc::default(),
        })
    }

    /// What was on the screen of the phone that this one replaces stays; what came for its keys comes here
    /// too.
    pub fn takes_over(&mut self, old: Self) {
        self.heard = old.heard;
        self.read = old.read;
        self.unreadable = old.unreadable;
        self.sends_receipts = old.sends_receipts;
    }

    /// What has become readable, in that order.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.read.iter()
    }

    pub fn hear(&mut self, message: Node) -> Result<()> {
        ensure!(self.heard.len() < HEARD_MAX, "A phone was sent {HEARD_MAX} messages that it did not read");
        self.heard.push_back(message);
        Ok(())
    }
}

impl Server {
    /// The person writes on their phone: to a phone number, a LID's address, a group, or themselves. Gives
    /// the message's id.
    pub async fn phone_writes(&self, phone: &str, chat: &str, text: &str) -> String {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        self.phone_sends(phone, chat, message).await
    }

    /// As `phone_writes`, with whatever a message can hold.
    pub async fn phone_sends(&self, phone: &str, chat: &str, message: wa::Message) -> String {
        let id = self.shared.change(|state| state.stanza_id("3EB0PHONE"));
        self.phone_sends_as(phone, chat, &id, message).await;
        id
    }

    /// As `phone_sends`, under an id of the test's own.
    pub async fn phone_sends_as(&self, phone: &str, chat: &str, id: &str, message: wa::Message) {
        self.phone_sends_draft(phone, chat, id, Draft::of(chat, &message)).await;
    }

    /// What no honest phone sends: something in good envelopes that is no message.
    pub async fn phone_sends_nonsense(&self, phone: &str, chat: &str, nonsense: &[u8]) -> String {
        let id = self.shared.change(|state| state.stanza_id("3EB0PHONE"));
        let plain = MessageUtils::pad_message_v2(nonsense.to_vec());
        let draft = Draft { kind: "text", edit: None, own: plain.clone(), plain };
        self.phone_sends_draft(phone, chat, &id, draft).await;
        id
    }

    /// The person sends something that linked devices do not get: they only hear, by the attributes of
    /// `<unavailable>`, that it is there. Gives the message's id.
    pub fn phone_withholds(&self, phone: &str, group: &str, attributes: &[(&'static str, &str)]) -> String {
        self.shared.change(|state| {
            let id = state.stanza_id("3EB0PHONE");
            let unavailable =
                attributes.iter().fold(NodeBuilder::new("unavailable"), |node, (name, value)| {
                    node.attr(name, (*value).to_owned())
                });
            let members = state.groups[group].members.clone();
            let author = state.account(phone).expect("an account");
            let (name, lid) = (author.name.clone(), jid(&author.lid, 0, "lid"));
            let stanza = NodeBuilder::new("message")
                .attr("from", address(group))
                .attr("participant", lid)
                .attr("participant_pn", jid(phone, 0, SERVER))
                .attr("addressing_mode", "lid")
                .attr("id", id.clone())
                .attr("type", "media")
                .attr("notify", name)
                .attr("t", now_secs())
                .children([unavailable.build()])
                .build();
            for member in members.iter().filter(|member| *member != phone) {
                let devices = state.account(member).expect("an account").device_numbers();
                let linked: Vec<u16> = devices.filter(|device| *device != 0).collect();
                for device in linked {
                    let address = DeviceAddress { phone: member.clone(), device };
                    state.deliver(&address, stanza.clone()).expect("a device");
                }
            }
            id
        })
    }

    async fn phone_sends_draft(&self, phone: &str, chat: &str, id: &str, draft: Draft) {
        let sent = send(&self.shared, phone, &address(chat), id, &draft).await;
        sent.unwrap_or_else(|error| panic!("{phone} failed to write: {error:#}"));
    }

    /// The next message with text on the phone's screen, in the order in which they came.
    pub async fn phone_reads(&self, phone: &str) -> Seen {
        loop {
            let seen = self.next_on_phone(phone).await;
            if !seen.text().is_empty() {
                return seen;
            }
        }
    }

    /// The next message of whatever kind on the phone's screen.
    pub async fn next_on_phone(&self, phone: &str) -> Seen {
        loop {
            let opened = open_all(&self.shared, phone).await;
            opened.unwrap_or_else(|error| panic!("{phone} failed to read: {error:#}"));
            let seen = self.shared.lock().account_mut(phone).ok().and_then(|own| own.phone.read.pop_front());
            if let Some(seen) = seen {
                return seen;
            }
            let heard = |state: &State| state.account(phone).is_ok_and(|own| !own.phone.heard.is_empty());
            self.wait_until("the phone hears something", heard).await;
        }
    }
}

pub async fn share_state_key(shared: &Shared, device: &DeviceAddress) -> Result<()> {
    use wa::message::{
        AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
        AppStateSyncKeyShare, ProtocolMessage, protocol_message::Type,
    };
    let index = u32::from(device.device);
    let fingerprint = AppStateSyncKeyFingerprint {
        raw_id: Some(1),
        current_index: Some(index),
        device_indexes: vec![0, index],
    };
    let key = AppStateSyncKey {
        key_id: MessageField::some(AppStateSyncKeyId { key_id: Some(KEY_ID.to_vec()) }),
        key_data: MessageField::some(AppStateSyncKeyData {
            key_data: Some(KEY.to_vec()),
            fingerprint: MessageField::some(fingerprint),
            timestamp: Some(i64::try_from(now_secs())?),
        }),
    };
    let protocol_message = ProtocolMessage {
        r#type: Some(Type::APP_STATE_SYNC_KEY_SHARE),
        app_state_sync_key_share: MessageField::some(AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    };
    let message =
        wa::Message { protocol_message: MessageField::some(protocol_message), ..Default::default() };
    let sealed = seal_for(shared, &device.phone, device, &pad(&message)).await?;
    shared.change(|state| {
        let stanza = NodeBuilder::new("message")
            .attr("from", jid(&device.phone, 0, SERVER))
            .attr("id", state.stanza_id("PEER"))
            .attr("type", "text")
            .attr("category", "peer")
            .attr("t", now_secs())
            .children([sealed]);
        state.deliver(device, stanza.build())
    })
}

/// What goes into the envelopes, and what stands on the stanza around them.
struct Draft {
    kind: &'static str,
    edit: Option<&'static str>,
    plain: Vec<u8>,
    /// The same for the author's own devices, which are told the chat too.
    own: Vec<u8>,
}

impl Draft {
    fn of(chat: &str, message: &wa::Message) -> Self {
        let sent = wa::message::DeviceSentMessage {
            destination_jid: Some(address(chat).to_string()),
            message: MessageField::some(message.clone()),
            ..Default::default()
        };
        let own = wa::Message { device_sent_message: MessageField::some(sent), ..Default::default() };
        Self { kind: kind(message), edit: edit(message), plain: pad(message), own: pad(&own) }
    }
}

/// A message sealed for each device that is to read it, on the way that every client's message goes.
async fn send(shared: &Shared, phone: &str, chat: &Jid, id: &str, draft: &Draft) -> Result<()> {
    open_all(shared, phone).await?;
    let readers = shared.lock().readers(phone, chat)?;
    let mut envelopes = Vec::new();
    for (reader, name) in readers {
        let to_own_device = reader.phone == phone && !chat.is_group();
        let plain = if to_own_device { &draft.own } else { &draft.plain };
        let sealed = seal_for(shared, phone, &reader, plain).await?;
        envelopes.push(NodeBuilder::new("to").attr("jid", &name).children([sealed]).build());
    }
    let mut stanza = NodeBuilder::new("message")
        .attr("to", chat)
        .attr("id", id.to_owned())
        .attr("type", draft.kind)
        .children([NodeBuilder::new("participants").children(envelopes).build()]);
    if let Some(edit) = draft.edit {
        stanza = stanza.attr("edit", edit);
    }
    let author = DeviceAddress { phone: phone.to_owned(), device: 0 };
    shared.change(|state| state.pass_message(&author, &stanza.build()))?;
    Ok(())
}

/// Whether a stanza says that it carries media.
fn kind(message: &wa::Message) -> &'static str {
    let media = message.image_message.is_set()
        || message.video_message.is_set()
        || message.audio_message.is_set()
        || message.document_message.is_set()
        || message.sticker_message.is_set();
    if media { "media" } else { "text" }
}

/// What a stanza says of a message that changes another.
fn edit(message: &wa::Message) -> Option<&'static str> {
    use wa::message::protocol_message::Type;
    let change = message.protocol_message.as_option()?.r#type?;
    if change == Type::MESSAGE_EDIT {
        Some("1")
    } else if change == Type::REVOKE {
        Some("7")
    } else {
        None
    }
}

pub async fn seal_for(shared: &Shared, phone: &str, reader: &DeviceAddress, plain: &[u8]) -> Result<Node> {
    let (signal, turn) = desk(shared, phone)?;
    let _turn = turn.lock().await;
    if !knows(&signal, reader).await? {
        let keys = shared.lock().keys_of(reader)?.give();
        meet(&signal, reader, &keys).await?;
    }
    seal(&signal, reader, plain).await
}

/// Opens everything that the phone has heard.
pub async fn open_all(shared: &Shared, phone: &str) -> Result<()> {
    let (signal, turn) = desk(shared, phone)?;
    let _turn = turn.lock().await;
    loop {
        let heard = shared.lock().account_mut(phone)?.phone.heard.pop_front();
        let Some(stanza) = heard else { return Ok(()) };
        let from = required_jid(&stanza, "from")?;
        let name = attr(&stanza, "participant").map_or(Ok(from.clone()), |text| text.parse())?;
        let author = shared.lock().phone_of(&name).unwrap_or_default();
        let author = DeviceAddress { phone: author, device: name.device };
        let own_chat = attr(&stanza, "recipient").filter(|_| author.phone == phone);
        let chat = own_chat.unwrap_or_else(|| from.to_non_ad().to_string());
        let is_message = stanza.tag == "message";
        let sends_receipts = shared.lock().account(phone)?.phone.sends_receipts;
        let mut is_readable = is_message;
        for envelope in stanza.get_children_by_tag("enc") {
            let message = match open(&signal, &author, &chat, envelope).await {
                Ok(message) => message,
                Err(_) if sends_receipts => {
                    is_readable = false;
                    break;
                }
                Err(error) => return Err(error),
            };
            let sent = message.device_sent_message.as_option();
            let message = sent.and_then(|sent| sent.message.as_option()).unwrap_or(&message).clone();
            let (chat, author) = (chat.clone(), author.phone.clone());
            let seen = Seen { chat, author, id: required(&stanza, "id")?, message };
            shared.change(|state| -> Result<()> {
                state.account_mut(phone)?.phone.read.push_back(seen);
                Ok(())
            })?;
        }
        if is_message && sends_receipts {
            shared.change(|state| state.phone_tried(phone, &stanza, is_readable))?;
        }
    }
}

fn desk(shared: &Shared, phone: &str) -> Result<(SignalProtocolStoreAdapter, Arc<Mutex<()>>)> {
    let state = shared.lock();
    let phone = &state.account(phone)?.phone;
    Ok((phone.signal.clone(), phone.turn.clone()))
}

impl State {
    /// Every device that a phone's message into this chat is for, with the name that the chat knows it by.
    fn readers(&self, phone: &str, chat: &Jid) -> Result<Vec<(DeviceAddress, Jid)>> {
        let people = match self.groups.get(&chat.to_string()) {
            Some(group) => group.members.clone(),
            None => {
                let other = self.phone_of(chat);
                ensure!(other.is_some(), "There is no chat {chat}");
                other.into_iter().filter(|other| other != phone).chain([phone.to_owned()]).collect()
            }
        };
        let mut readers = Vec::new();
        for person in people {
            let account = self.account(&person)?;
            for device in account.device_numbers() {
                let address = DeviceAddress { phone: person.clone(), device };
                let name = match chat.server == Space::Lid {
                    true => jid(&account.lid, device, "lid"),
                    false => by_phone(&address),
                };
                if address != (DeviceAddress { phone: phone.to_owned(), device: 0 }) {
                    readers.push((address, name));
                }
            }
        }
        Ok(readers)
    }

    fn keys_of(&mut self, device: &DeviceAddress) -> Result<&mut DeviceKeys> {
        match device.device {
            0 => Ok(&mut self.account_mut(&device.phone)?.phone.keys),
            _ => Ok(&mut self.device_mut(device)?.keys),
        }
    }
}

fn address(chat: &str) -> Jid {
    let text = if chat.contains('@') { chat.to_owned() } else { format!("{chat}@{SERVER}") };
    text.parse().expect("a chat's address")
}
