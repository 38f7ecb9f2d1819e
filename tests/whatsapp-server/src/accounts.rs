//! Accounts, their linked devices, and what waits for each: keys for others to write to it, and stanzas that
//! it has not acknowledged.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Result, ensure};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore::crypto::{calculate_curve_signature, generate_curve_key_pair};
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::prekeys::compute_key_bundle_digest;
use whatsapp_rust::wacore_binary::{Jid, Node};
use whatsapp_rust::waproto::whatsapp as wa;

use super::noise::Handshake;
use super::now_secs;
use super::phone::Phone;
use super::stanza::{attr, big_endian, bytes, child, child_bytes, three_bytes};

/// Ten times what any test leaves for a device.
const HELD_MAX: usize = 10_000;

/// What an account's signature of a list of its devices begins with.
const KEY_INDEX_LIST_PREFIX: [u8; 2] = [6, 2];

/// The "X25519" that stands before a bundle's keys.
const DJB_TYPE: u8 = 5;

pub struct Account {
    pub lid: String,
    pub name: String,
    /// The identity key of the phone, which signs for every device linked to it.
    pub key: KeyPair,
    pub phone: Phone,
    pub devices: BTreeMap<u16, Device>,
}

pub struct Device {
    pub keys: DeviceKeys,
    /// Signed by the phone and the device: others want to see it before they write.
    pub identity_proof: Vec<u8>,
    pub connection: Option<u64>,
    /// As which version of the web client it last logged in.
    pub version: Option<(u32, u32, u32)>,
    pub handshake: Option<Handshake>,
    pub unlinked: bool,
    /// Whether the phone has sent the key that a new device waits for.
    pub greeted_by_phone: bool,
    pub mailbox: Mailbox,
}

/// The public keys that a device has uploaded.
pub struct DeviceKeys {
    pub registration: u32,
    pub identity: Vec<u8>,
    pub signed: SignedKey,
    /// Each is given away once: its number and the key.
    pub one_time: VecDeque<(u32, Vec<u8>)>,
}

#[derive(Clone)]
pub struct SignedKey {
    pub id: u32,
    pub key: Vec<u8>,
    pub signature: Vec<u8>,
}

/// What a device has yet to acknowledge, in order.
#[derive(Default)]
pub struct Mailbox {
    waiting: VecDeque<Node>,
    sent: Vec<Node>,
    /// How far the device has fetched what came while it was away.
    fetch: Fetch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Behind { fetched: usize },
    UpToDate,
}

impl Default for Fetch {
    fn default() -> Self {
        Self::Behind { fetched: 0 }
    }
}

impl Account {
    pub fn new(lid: &str, name: &str) -> Result<Self> {
        let key = generate_curve_key_pair();
        let phone = Phone::new(&key)?;
        Ok(Self { lid: lid.to_owned(), name: name.to_owned(), key, phone, devices: BTreeMap::new() })
    }

    /// The phone, and the devices that were not unlinked.
    pub fn device_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        let linked = self.devices.iter().filter(|(_, device)| !device.unlinked);
        std::iter::once(0).chain(linked.map(|(number, _)| *number))
    }

    /// Which devices the account has.
    pub fn device_list(&self) -> Result<Node> {
        let devices: Vec<Node> = self
            .device_numbers()
            .map(|number| NodeBuilder::new("device").attr("id", number).attr("key-index", number).build())
            .collect();
        let children = [
            NodeBuilder::new("device-list").attr("hash", "2:loopback").children(devices).build(),
            self.signed_device_list()?,
        ];
        Ok(NodeBuilder::new("devices").children(children).build())
    }

    /// The same, as the phone has signed it.
    pub fn signed_device_list(&self) -> Result<Node> {
        let indexes: Vec<u32> = self.device_numbers().map(u32::from).collect();
        let details = wa::ADVKeyIndexList {
            raw_id: Some(1),
            timestamp: Some(now_secs()),
            current_index: indexes.iter().max().copied(),
            valid_indexes: indexes,
            ..Default::default()
        }
        .encode_to_vec();
        let signed = [&KEY_INDEX_LIST_PREFIX[..], &details].concat();
        let list = wa::ADVSignedKeyIndexList {
            account_signature: Some(calculate_curve_signature(&self.key.private_key, &signed)?.to_vec()),
            account_signature_key: Some(self.key.public_key.public_key_bytes().to_vec()),
            details: Some(details),
        };
        Ok(NodeBuilder::new("key-index-list").attr("ts", now_secs()).bytes(list.encode_to_vec()).build())
    }
}

impl Device {
    pub fn new(keys: DeviceKeys, identity_proof: Vec<u8>) -> Self {
        Self {
            keys,
            identity_proof,
            connection: None,
            version: None,
            handshake: None,
            unlinked: false,
            greeted_by_phone: false,
            mailbox: Mailbox::default(),
        }
    }
}

impl DeviceKeys {
    pub fn of(registration: &wa::client_payload::DevicePairingRegistrationData) -> Self {
        let given = |field: &Option<Vec<u8>>| field.clone().unwrap_or_default();
        Self {
            registration: big_endian(&given(&registration.e_regid)),
            identity: given(&registration.e_ident),
            signed: SignedKey {
                id: big_endian(&given(&registration.e_skey_id)),
                key: given(&registration.e_skey_val),
                signature: given(&registration.e_skey_sig),
            },
            one_time: VecDeque::new(),
        }
    }

    /// Takes an upload of keys.
    pub fn take(&mut self, upload: &Node) -> Result<()> {
        let rotated = child(upload, "rotate").unwrap_or(upload);
        if let Some(signed) = child(rotated, "skey") {
            self.signed = SignedKey {
                id: big_endian(&child_bytes(signed, "id")?),
                key: child_bytes(signed, "value")?,
                signature: child_bytes(signed, "signature")?,
            };
        }
        if let Some(list) = child(upload, "list") {
            for key in list.get_children_by_tag("key") {
                self.one_time.push_back((big_endian(&child_bytes(key, "id")?), child_bytes(key, "value")?));
            }
        }
        Ok(())
    }

    /// What others need to write to this device for the first time: with one one-time key, which is then
    /// gone.
    pub fn give(&mut self) -> Self {
        let one_time = self.one_time.pop_front();
        Self {
            registration: self.registration,
            identity: self.identity.clone(),
            signed: self.signed.clone(),
            one_time: one_time.into_iter().collect(),
        }
    }

    /// The same, for a client that has asked.
    pub fn bundle(&mut self, jid: &Jid, identity_proof: Option<&[u8]>) -> Node {
        let mut children = self.public();
        children.push(self.signed.node());
        if let Some((id, key)) = self.give().one_time.pop_front() {
            let id = NodeBuilder::new("id").bytes(three_bytes(id)).build();
            let value = NodeBuilder::new("value").bytes(key).build();
            children.push(NodeBuilder::new("key").children([id, value]).build());
        }
        if let Some(proof) = identity_proof {
            children.push(NodeBuilder::new("device-identity").bytes(proof.to_vec()).build());
        }
        NodeBuilder::new("user").attr("jid", jid).attr("type", "result").children(children).build()
    }

    /// What the server holds, for the device to compare with what it has.
    pub fn digest(&self) -> Node {
        let ids = self.one_time.iter().map(|(id, _)| NodeBuilder::new("id").bytes(three_bytes(*id)).build());
        let one_time: Vec<&[u8]> = self.one_time.iter().map(|(_, key)| key.as_slice()).collect();
        let hash =
            compute_key_bundle_digest(&self.identity, &self.signed.key, &self.signed.signature, &one_time);
        let mut children = self.public();
        children.push(self.signed.node());
        children.push(NodeBuilder::new("list").children(ids.collect::<Vec<_>>()).build());
        children.push(NodeBuilder::new("hash").bytes(hash).build());
        NodeBuilder::new("digest").children(children).build()
    }

    fn public(&self) -> Vec<Node> {
        vec![
            NodeBuilder::new("registration").bytes(self.registration.to_be_bytes().to_vec()).build(),
            NodeBuilder::new("type").bytes(vec![DJB_TYPE]).build(),
            NodeBuilder::new("identity").bytes(self.identity.clone()).build(),
        ]
    }
}

impl SignedKey {
    fn node(&self) -> Node {
        let children = [
            NodeBuilder::new("id").bytes(three_bytes(self.id)).build(),
            NodeBuilder::new("value").bytes(self.key.clone()).build(),
            NodeBuilder::new("signature").bytes(self.signature.clone()).build(),
        ];
        NodeBuilder::new("skey").children(children).build()
    }
}

impl Mailbox {
    /// How many stanzas the device has not acknowledged.
    pub fn held(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// How many of them are messages.
    pub fn held_messages(&self) -> usize {
        self.waiting.iter().chain(&self.sent).filter(|stanza| stanza.tag == "message").count()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps a stanza until it is acknowledged. Gives it back if it can be sent at once.
    pub fn put(&mut self, stanza: Node) -> Result<Option<Node>> {
        ensure!(self.held() < HELD_MAX, "A device has {HELD_MAX} stanzas that it did not acknowledge");
        if self.fetch == Fetch::UpToDate {
            self.sent.push(stanza.clone());
            return Ok(Some(stanza));
        }
        self.waiting.push_back(stanza);
        Ok(None)
    }

    /// The next stanzas of those that came while the device was away, at most `count`; behind the last one,
    /// how many they were.
    pub fn fetch(&mut self, count: usize) -> Vec<Node> {
        let Fetch::Behind { fetched: before } = self.fetch else { return Vec::new() };
        let count = count.min(self.waiting.len());
        let fetched = before + count;
        self.fetch = Fetch::Behind { fetched };
        let mut stanzas: Vec<Node> = self.waiting.drain(..count).collect();
        self.sent.extend(stanzas.iter().cloned());
        for stanza in &mut stanzas {
            stanza.attrs.insert("offline", "0");
        }
        if self.waiting.is_empty() {
            self.fetch = Fetch::UpToDate;
            let end = NodeBuilder::new("offline").attr("count", fetched).build();
            stanzas.push(NodeBuilder::new("ib").children([end]).build());
        }
        stanzas
    }

    /// The device has this stanza: every copy of a message, and one of the receipts for it.
    pub fn settle(&mut self, tag: &str, id: &str) {
        let is_it = |stanza: &Node| stanza.tag == tag && attr(stanza, "id").as_deref() == Some(id);
        if tag == "message" {
            self.sent.retain(|stanza| !is_it(stanza));
        } else if let Some(place) = self.sent.iter().position(is_it) {
            self.sent.remove(place);
        }
    }

    /// The device is gone: what it did not acknowledge waits again, in order.
    pub fn close(&mut self) {
        for stanza in self.sent.drain(..).rev() {
            self.waiting.push_front(stanza);
        }
        self.fetch = Fetch::default();
    }
}

/// The address in a request for a user: as an attribute, or as a telephone number.
pub fn asked_for(user: &Node) -> Option<Jid> {
    if let Some(address) = attr(user, "jid") {
        return address.parse().ok();
    }
    let number = bytes(child(user, "contact")?);
    let digits: String =
        number.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| *byte as char).collect();
    format!("{digits}@s.whatsapp.net").parse().ok()
}
