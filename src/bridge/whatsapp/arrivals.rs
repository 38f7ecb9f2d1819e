//! What WhatsApp has delivered and is not on disk yet, and the rule that no key moves past it there.
//!
//! A message is encrypted with a key of its own, the next one of a chain. Decrypting it moves the chain on,
//! and there is no way back: once the moved chain is on disk, the message can only be had from there, too.
//!
//! ```text
//!                 register                decrypted         row on disk
//! WhatsApp ─ stanza ──▶ waiting: its places ─────▶ its chain ───────────▶ released: not waiting any more
//!                       in its chains              has moved,
//!                                                  in memory
//!                                                      │ the library writes its chains down at any time
//!                                                      ▼
//!                         a written chain that has moved past a waiting message waits for it
//! ```
//! So the chains on disk have never moved past a message that is not on disk. What waits here never depends
//! on what it holds up: a message that a chain has moved past needs that chain no more.
//!
//! A stanza that carries keys only has no row. It is released after [`LOOKS_MAX`] looks in vain at two
//! separate writes, between which the library was free to go on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use whatsapp_rust::prelude::{Jid, MessageInfo};
use whatsapp_rust::wacore::libsignal::protocol::{
    PreKeySignalMessage, SenderKeyMessage, SenderKeyRecord, SessionRecord, SignalMessage,
};
use whatsapp_rust::wacore::messages::parse_message_info;
use whatsapp_rust::wacore_binary::NodeRef;

use crate::panics::lock_unpoisoned;
use crate::types::Event;

/// How long one look at what is still waiting takes.
const LOOK: Duration = Duration::from_millis(50);
/// Looks in vain. After each the database was asked something: after all of them only a row that nobody is
/// about to write is still missing.
const LOOKS_MAX: u32 = 10;
/// Writes that a message without a row holds up.
const WRITES_HELD_MAX: u32 = 2;
/// Most messages that are known here; WhatsApp sends at most some hundreds before it is told that we have
/// them.
const WAITING_MAX: usize = 10_000;

/// What is unique about a message for the library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    pub chat: String,
    pub sender: String,
    pub id: String,
}

impl Arrival {
    pub fn new(chat: &str, sender: &str, id: &str) -> Self {
        Self { chat: chat.to_owned(), sender: sender.to_owned(), id: id.to_owned() }
    }

    pub fn from_info(info: &MessageInfo) -> Self {
        Self::new(&info.source.chat.to_string(), &info.source.sender.to_string(), &info.id)
    }
}

/// The name of a chain of message keys. It was drawn at random when the chain began.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ChainName {
    /// The public ratchet key of a session's chain.
    Session(Vec<u8>),
    /// The number of a member's chain in a group.
    Group(u32),
}

/// Which key of which chain decrypts a part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPosition {
    chain: ChainName,
    number: u32,
}

/// How far a chain has moved.
#[derive(Debug)]
struct KeyChain {
    name: ChainName,
    /// The number of the next key.
    next: u32,
    /// Numbers before it whose keys are kept, as their messages have not come yet.
    kept: Vec<u32>,
}

impl KeyChain {
    fn has_moved_past(&self, place: &KeyPosition) -> bool {
        self.name == place.chain && place.number < self.next && !self.kept.contains(&place.number)
    }
}

#[derive(Debug)]
struct WaitingArrival {
    places: Vec<KeyPosition>,
    /// What intake is to know if nobody can read it any more; `None` if it carries keys only.
    unread: Option<Event>,
    /// Writes that it has held up in vain.
    writes_held: u32,
}

#[derive(Debug, Default)]
struct ArrivalTable {
    waiting: HashMap<Arrival, WaitingArrival>,
    /// In the order of their coming; some are settled already.
    order: VecDeque<Arrival>,
}

/// The messages that are announced and not on disk. A handle: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<SharedArrivals>);

#[derive(Debug, Default)]
struct SharedArrivals {
    state: Mutex<ArrivalTable>,
    settled: Notify,
}

/// A chain may not be written down yet.
#[derive(Debug, PartialEq, Eq)]
pub struct RowsNotStored;

impl Arrivals {
    /// Registers a stanza before the library decrypts it. `phone` and `lid` are the linked account's;
    /// `unread` is what intake is to know if nobody can read it.
    pub fn register_stanza(
        &self,
        stanza: &NodeRef<'_>,
        phone: &Jid,
        lid: Option<&Jid>,
        unread: impl FnOnce(&MessageInfo) -> Option<Event>,
    ) {
        if !matches!(stanza.tag.as_ref(), "message" | "status") {
            return;
        }
        let places = key_positions(stanza);
        // What cannot be read here, the library cannot decrypt, either.
        let (false, Ok(info)) = (places.is_empty(), parse_message_info(stanza, phone, lid)) else { return };
        // In a group, a part for this device alone gives it keys; what is said there is for all.
        let is_said =
            !info.source.is_group || places.iter().any(|place| matches!(place.chain, ChainName::Group(_)));
        let unread = if is_said { unread(&info) } else { None };
        self.add_waiting(Arrival::from_info(&info), WaitingArrival { places, unread, writes_held: 0 });
    }

    fn add_waiting(&self, arrival: Arrival, waiting: WaitingArrival) {
        let mut state = self.lock_table();
        if state.waiting.insert(arrival.clone(), waiting).is_none() {
            state.order.push_back(arrival);
        }
        while state.order.len() > WAITING_MAX {
            let oldest = state.order.pop_front();
            oldest.and_then(|oldest| state.waiting.remove(&oldest));
        }
    }

    /// What intake is to know of a waiting message that nobody can read any more.
    pub fn unread_event_of(&self, arrival: &Arrival) -> Option<Event> {
        self.lock_table().waiting.get(arrival)?.unread.clone()
    }

    /// The message is on disk, or will never be: whatever moves past it loses nothing.
    pub fn release_arrival(&self, arrival: &Arrival) {
        let mut state = self.lock_table();
        if state.waiting.remove(arrival).is_some() {
            let ArrivalTable { waiting, order } = &mut *state;
            while order.front().is_some_and(|oldest| !waiting.contains_key(oldest)) {
                order.pop_front();
            }
            drop(state);
            self.0.settled.notify_waiters();
        }
    }

    /// Returns when these sessions have moved past nothing that is not on disk. `look` asks the database
    /// something.
    pub async fn wait_for_session_rows<Asking: Future>(
        &self,
        records: impl Iterator<Item = &[u8]>,
        look: impl Fn() -> Asking,
    ) -> Result<(), RowsNotStored> {
        if self.is_empty() {
            return Ok(());
        }
        self.wait_for_rows(&records.flat_map(session_chains).collect::<Vec<_>>(), look).await
    }

    /// As [`Self::wait_for_session_rows`], of members' keys in groups.
    pub async fn wait_for_sender_key_rows<Asking: Future>(
        &self,
        records: impl Iterator<Item = &[u8]>,
        look: impl Fn() -> Asking,
    ) -> Result<(), RowsNotStored> {
        if self.is_empty() {
            return Ok(());
        }
        self.wait_for_rows(&records.flat_map(sender_key_chains).collect::<Vec<_>>(), look).await
    }

    async fn wait_for_rows<Asking: Future>(
        &self,
        chains: &[KeyChain],
        look: impl Fn() -> Asking,
    ) -> Result<(), RowsNotStored> {
        for _ in 0..LOOKS_MAX {
            let mut settled = std::pin::pin!(self.0.settled.notified());
            settled.as_mut().enable();
            if self.overtaken_arrivals(chains).is_empty() {
                return Ok(());
            }
            if timeout(LOOK, settled).await.is_err() {
                look().await;
            }
        }
        self.refuse_or_release(chains)
    }

    /// Which waiting messages the chains have moved past.
    fn overtaken_arrivals(&self, chains: &[KeyChain]) -> Vec<Arrival> {
        let state = self.lock_table();
        let passed = |waiting: &WaitingArrival| {
            let places = &waiting.places;
            places.iter().any(|place| chains.iter().any(|chain| chain.has_moved_past(place)))
        };
        let waiting = state.waiting.iter().filter(|(_, waiting)| passed(waiting));
        waiting.map(|(arrival, _)| arrival.clone()).collect()
    }

    /// Refuses the write, and releases what has held up enough writes.
    fn refuse_or_release(&self, chains: &[KeyChain]) -> Result<(), RowsNotStored> {
        let mut result = Ok(());
        for arrival in self.overtaken_arrivals(chains) {
            let held = self.lock_table().waiting.get_mut(&arrival).map(|waiting| {
                waiting.writes_held += 1;
                waiting.writes_held
            });
            if held.is_some_and(|held| held >= WRITES_HELD_MAX) {
                tracing::debug!("A stanza has left no message");
                self.release_arrival(&arrival);
            } else {
                result = Err(RowsNotStored);
            }
        }
        result
    }

    /// Whether either has moved past anything that waits.
    #[cfg(test)]
    pub fn has_overtaken_any(&self, session: Option<&[u8]>, sender_key: Option<&[u8]>) -> bool {
        let sessions = session.into_iter().flat_map(session_chains);
        let chains: Vec<KeyChain> =
            sessions.chain(sender_key.into_iter().flat_map(sender_key_chains)).collect();
        !self.overtaken_arrivals(&chains).is_empty()
    }

    fn is_empty(&self) -> bool {
        self.lock_table().waiting.is_empty()
    }

    fn lock_table(&self) -> MutexGuard<'_, ArrivalTable> {
        lock_unpoisoned(&self.0.state)
    }
}

/// The positions of the keys of a stanza's encrypted parts.
fn key_positions(stanza: &NodeRef<'_>) -> Vec<KeyPosition> {
    let addressed = stanza.get_optional_child("participants");
    let addressed = addressed.into_iter().flat_map(|all| all.get_children_by_tag("to"));
    let parts =
        stanza.get_children_by_tag("enc").chain(addressed.flat_map(|to| to.get_children_by_tag("enc")));
    parts.filter_map(key_position).collect()
}

fn key_position(part: &NodeRef<'_>) -> Option<KeyPosition> {
    let session = |message: &SignalMessage| KeyPosition {
        chain: ChainName::Session(message.sender_ratchet_key().serialize().to_vec()),
        number: message.counter(),
    };
    let bytes = part.content_bytes()?;
    match part.attrs().optional_string("type")?.as_ref() {
        "msg" => SignalMessage::try_from(bytes).ok().map(|message| session(&message)),
        "pkmsg" => PreKeySignalMessage::try_from(bytes).ok().map(|message| session(message.message())),
        "skmsg" => SenderKeyMessage::try_from(bytes).ok().map(|message| KeyPosition {
            chain: ChainName::Group(message.chain_id()),
            number: message.iteration(),
        }),
        _ => None,
    }
}

/// The receiving chains of a session as the library stores it. A record that is no session has no chains, and
/// decrypts nothing.
fn session_chains(record: &[u8]) -> Vec<KeyChain> {
    let record = SessionRecord::deserialize(record).and_then(SessionRecord::into_components);
    let Ok(record) = record else { return Vec::new() };
    let sessions = record.current_session.into_iter().chain(record.previous_sessions);
    let chains = sessions.flat_map(|session| session.receiver_chains).filter_map(|chain| {
        Some(KeyChain {
            name: ChainName::Session(chain.sender_ratchet_key?),
            next: chain.chain_key?.index?,
            kept: chain.message_keys.into_iter().map(|key| key.index).collect(),
        })
    });
    chains.collect()
}

/// The chains of a group's member as the library stores them.
fn sender_key_chains(record: &[u8]) -> Vec<KeyChain> {
    let record = SenderKeyRecord::deserialize(record).and_then(SenderKeyRecord::into_components);
    let Ok(record) = record else { return Vec::new() };
    let chains = record.states.into_iter().map(|state| KeyChain {
        name: ChainName::Group(state.key_id),
        next: state.chain_key.iteration,
        kept: state.message_keys.into_iter().map(|key| key.iteration).collect(),
    });
    chains.collect()
}
