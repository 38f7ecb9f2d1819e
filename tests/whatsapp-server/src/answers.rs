//! What the server answers to messages if a test wants it otherwise: refusals, answers that are late,
//! copies that cannot be read. And what it remembers of the messages that it was sent.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use whatsapp_rust::bytes::Bytes;
use whatsapp_rust::wacore_binary::{Node, NodeContent};

use super::Server;
use super::relay::is_for_peers;
use super::stanza::{DeviceAddress, attr};
use super::state::State;

/// Within the ciphertext, its authentication code or its signature, and before what only names keys.
const DAMAGED_FROM_END: usize = 20;

#[derive(Default)]
pub struct Answers {
    /// Codes for the next messages of a phone's devices.
    refusals: HashMap<String, VecDeque<u16>>,
    /// Answers that wait, for the connection that each is for; a phone that is not here gets its at once.
    held: HashMap<String, Vec<(u64, Node)>>,
    /// Phones whose next message is damaged on its way.
    damaging: HashSet<String>,
    /// Set if each device gets a message once, however often it was sent: what each got from whom.
    delivered: Option<BTreeSet<(DeviceAddress, String, DeviceAddress)>>,
}

impl Server {
    /// The next message that a device of this phone sends is answered with this code and reaches nobody: 463
    /// for a stranger who must not be written to, 429 for too many, 479 for one that the server cannot read.
    /// Several refusals are told one after the other.
    pub fn refuse_next_message(&self, phone: &str, code: u16) {
        self.shared
            .change(|state| state.answers.refusals.entry(phone.to_owned()).or_default().push_back(code));
    }

    /// From now on the phone's devices are not told that the server has their messages, which it delivers.
    /// What is held for a connection that ends is lost with it.
    pub fn hold_acks(&self, phone: &str) {
        self.shared.change(|state| {
            state.answers.held.entry(phone.to_owned()).or_default();
        });
    }

    pub fn release_acks(&self, phone: &str) {
        self.shared.change(|state| {
            for (connection, ack) in state.answers.held.remove(phone).unwrap_or_default() {
                state.send(connection, ack);
            }
        });
    }

    /// The next message of the phone's devices cannot be decrypted by anybody, until it is asked for again.
    pub fn damage_next_message(&self, phone: &str) {
        self.shared.change(|state| state.answers.damaging.insert(phone.to_owned()));
    }

    /// From now on a message that is sent again under the same id reaches nobody who was sent it before.
    pub fn deliver_once(&self) {
        self.shared.change(|state| state.answers.delivered = Some(BTreeSet::new()));
    }

    /// Every message that the phone's devices have sent, as often as they have: its id, and the chat as the
    /// client addressed it. What they tell only their own phone is none.
    pub fn messages_from(&self, phone: &str) -> Vec<(String, String)> {
        let state = self.shared.lock();
        state.messages_from(phone).collect()
    }

    pub async fn wait_for_messages_from(&self, phone: &str, count: usize) -> Vec<(String, String)> {
        self.wait_until("the messages are sent", |state| state.messages_from(phone).count() >= count).await;
        self.messages_from(phone)
    }
}

impl State {
    fn messages_from<'a>(&'a self, phone: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
        let messages = self.sent_by(phone, "message").filter(|stanza| !is_for_peers(stanza));
        messages.filter_map(|stanza| Some((attr(stanza, "id")?, attr(stanza, "to")?)))
    }

    /// Tells a client what became of its message, now or when the test lets it.
    pub fn answer_message(&mut self, connection: u64, phone: &str, ack: Node) {
        match self.answers.held.get_mut(phone) {
            Some(held) => held.push((connection, ack)),
            None => self.send(connection, ack),
        }
    }
}

impl Answers {
    /// The code that a test wants this phone's message to be refused with.
    pub fn refusal(&mut self, phone: &str) -> Option<u16> {
        self.refusals.get_mut(phone)?.pop_front()
    }

    /// What of the copies goes out, and how.
    pub fn pass(&mut self, author: &DeviceAddress, id: &str, copies: &mut Vec<(DeviceAddress, Node)>) {
        if let Some(delivered) = &mut self.delivered {
            copies.retain(|(reader, copy)| {
                let new = delivered.insert((author.clone(), id.to_owned(), reader.clone()));
                new || is_repair(copy)
            });
        }
        if !copies.is_empty() && self.damaging.remove(&author.phone) {
            for (_, copy) in copies {
                damage(copy);
            }
        }
    }
}

/// Whether a reader has asked for this copy, because it could not read the first.
fn is_repair(copy: &Node) -> bool {
    copy.get_children_by_tag("enc").any(|sealed| attr(sealed, "count").is_some())
}

/// Changes a byte of what is authenticated, or of the proof for that, in whichever of Signal's envelopes.
fn damage(copy: &mut Node) {
    let Some(NodeContent::Nodes(parts)) = &mut copy.content else { return };
    for part in parts.iter_mut().filter(|part| part.tag == "enc") {
        if let Some(NodeContent::Bytes(sealed)) = &mut part.content {
            let mut bytes = sealed.to_vec();
            let place = bytes.len().saturating_sub(DAMAGED_FROM_END);
            if let Some(byte) = bytes.get_mut(place) {
                *byte = !*byte;
            }
            *sealed = Bytes::from(bytes).into();
        }
    }
}
