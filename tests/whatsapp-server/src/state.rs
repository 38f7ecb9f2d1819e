//! Everything that the server knows, behind one lock: accounts, groups, connections, and what clients have
//! sent.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc;
use whatsapp_rust::wacore_binary::{Jid, Node, Server};

use super::Refusal;
use super::accounts::{Account, Device};
use super::answers::Answers;
use super::devices::Keys;
use super::groups::Group;
use super::link_options::LinkOptions;
use super::pairing::Linking;
use super::passkey::Prologue;
use super::stanza::{DeviceAddress, attr, receipt_ids, show};
use super::traces::Traces;
use super::web::Web;

/// Ten times what the longest test sends that looks at it; a longer run has the server keep no record.
const SENT_MAX: usize = 20_000;

/// Stanzas on their way to one client; a client that reads no more than that is lost.
pub const OUTGOING_MAX: usize = 2048;

#[derive(Default)]
pub struct State {
    pub accounts: BTreeMap<String, Account>,
    pub groups: BTreeMap<String, Group>,
    pub connections: HashMap<u64, Connection>,
    /// What the next logins of a phone's devices are told.
    pub refusals: HashMap<String, VecDeque<Refusal>>,
    pub sent: Vec<Sent>,
    /// Nobody looks at what is sent, and the run is long.
    pub keeps_no_record: bool,
    pub answers: Answers,
    pub keys: Keys,
    pub link_options: LinkOptions,
    pub traces: Traces,
    /// How long ago messages say that they were written.
    pub dated_back_secs: u64,
    pub web: Web,
    /// What the server did not understand. A test whose server has any has failed.
    pub faults: Vec<String>,
    connections_ever: u64,
    stanzas_ever: u64,
}

pub struct Connection {
    pub outgoing: mpsc::Sender<Outgoing>,
    pub standing: Standing,
}

/// Who is at the other end.
pub enum Standing {
    Refused,
    Linking(Box<Linking>),
    LoggedIn(DeviceAddress),
}

pub enum Outgoing {
    Stanza(Node),
    /// Frames that are no stanzas.
    Garbage,
    Close,
}

/// One stanza of a client.
#[derive(Clone)]
pub struct Sent {
    /// None before the login.
    pub from: Option<DeviceAddress>,
    pub stanza: Node,
}

impl Connection {
    pub fn prologue(&self) -> Option<&Prologue> {
        match &self.standing {
            Standing::Linking(linking) => linking.prologue.as_ref(),
            Standing::LoggedIn(_) | Standing::Refused => None,
        }
    }
}

impl State {
    pub fn connection_id(&mut self) -> u64 {
        self.connections_ever += 1;
        self.connections_ever
    }

    /// An id that no other stanza of the server has.
    pub fn stanza_id(&mut self, kind: &str) -> String {
        self.stanzas_ever += 1;
        format!("{kind}-{}", self.stanzas_ever)
    }

    pub fn account(&self, phone: &str) -> Result<&Account> {
        self.accounts.get(phone).with_context(|| format!("There is no account {phone}"))
    }

    pub fn account_mut(&mut self, phone: &str) -> Result<&mut Account> {
        self.accounts.get_mut(phone).with_context(|| format!("There is no account {phone}"))
    }

    pub fn device_mut(&mut self, address: &DeviceAddress) -> Result<&mut Device> {
        let device = self.account_mut(&address.phone)?.devices.get_mut(&address.device);
        device.with_context(|| format!("There is no device {address:?}"))
    }

    pub fn who(&self, connection: u64) -> Option<DeviceAddress> {
        match &self.connections.get(&connection)?.standing {
            Standing::LoggedIn(address) => Some(address.clone()),
            Standing::Linking(_) | Standing::Refused => None,
        }
    }

    pub fn linking_mut(&mut self, connection: u64) -> Result<&mut Linking> {
        match self.connections.get_mut(&connection).map(|connection| &mut connection.standing) {
            Some(Standing::Linking(linking)) => Ok(linking),
            Some(Standing::LoggedIn(_) | Standing::Refused) | None => bail!("The client does not link"),
        }
    }

    /// The phone number behind either of an account's two addresses.
    pub fn phone_of(&self, jid: &Jid) -> Option<String> {
        if jid.server == Server::Lid {
            let found = self.accounts.iter().find(|(_, account)| account.lid == jid.user.as_str());
            return found.map(|(phone, _)| phone.clone());
        }
        self.accounts.contains_key(jid.user.as_str()).then(|| jid.user.to_string())
    }

    /// The devices of all accounts, without their phones.
    pub fn linked_devices(&self) -> Vec<DeviceAddress> {
        let accounts = self.accounts.iter();
        let devices = accounts.flat_map(|(phone, account)| {
            let linked = account.device_numbers().filter(|device| *device != 0);
            linked.map(|device| DeviceAddress { phone: phone.clone(), device })
        });
        devices.collect()
    }

    /// The connections of a phone's devices.
    pub fn connections_of(&self, phone: &str) -> Vec<u64> {
        let devices = self.accounts.get(phone).into_iter().flat_map(|account| account.devices.values());
        devices.filter_map(|device| device.connection).collect()
    }

    pub fn note(&mut self, connection: u64, stanza: &Node) -> Result<()> {
        if self.keeps_no_record {
            return Ok(());
        }
        ensure!(self.sent.len() < SENT_MAX, "The clients have sent {SENT_MAX} stanzas");
        let from = self.who(connection);
        self.sent.push(Sent { from, stanza: stanza.clone() });
        Ok(())
    }

    pub fn not_understood(&mut self, stanza: &Node) {
        self.faults.push(format!("The server does not know {}", show(stanza)));
    }

    pub fn send(&mut self, connection: u64, stanza: Node) {
        self.pass_on(connection, Outgoing::Stanza(stanza));
    }

    /// Closes a connection behind what is on its way.
    pub fn close(&mut self, connection: u64) {
        self.pass_on(connection, Outgoing::Close);
    }

    pub fn pass_on(&mut self, connection: u64, outgoing: Outgoing) {
        let Some(end) = self.connections.get(&connection) else { return };
        // A closed channel is a client that has just left.
        if let Err(mpsc::error::TrySendError::Full(_)) = end.outgoing.try_send(outgoing) {
            self.faults.push(format!("A client did not read {OUTGOING_MAX} stanzas"));
        }
    }

    /// Sends a stanza to a device, or keeps it for when it comes; either way until it is acknowledged. A
    /// phone is always there.
    pub fn deliver(&mut self, to: &DeviceAddress, stanza: Node) -> Result<()> {
        if to.device == 0 {
            return match self.keeps_no_record {
                true => Ok(()),
                false => self.account_mut(&to.phone)?.phone.hear(stanza),
            };
        }
        let device = self.device_mut(to)?;
        let connection = device.connection;
        if let (Some(stanza), Some(connection)) = (device.mailbox.put(stanza)?, connection) {
            self.traces.note_delivery(to, &stanza);
            self.send(connection, stanza);
        }
        Ok(())
    }

    /// A connection has ended.
    pub fn forget(&mut self, connection: u64) {
        let who = self.who(connection);
        self.connections.remove(&connection);
        let device =
            who.and_then(|address| self.accounts.get_mut(&address.phone)?.devices.get_mut(&address.device));
        if let Some(device) = device.filter(|device| device.connection == Some(connection)) {
            device.connection = None;
            device.mailbox.close();
        }
    }

    /// What a phone's devices have sent with this tag.
    pub fn sent_by<'a>(&'a self, phone: &'a str, tag: &'a str) -> impl Iterator<Item = &'a Node> {
        let by_phone = self.sent.iter().filter(move |sent| {
            sent.from.as_ref().is_some_and(|from| from.phone == phone) && sent.stanza.tag == tag
        });
        by_phone.map(|sent| &sent.stanza)
    }

    pub fn receipts_of(&self, phone: &str, kind: &str) -> Vec<String> {
        let receipts = self.sent_by(phone, "receipt");
        let of_kind = receipts.filter(|receipt| attr(receipt, "type").as_deref() == Some(kind));
        of_kind.flat_map(receipt_ids).collect()
    }

    pub fn has_sent(&self, phone: &str, tag: &str, key: &str, value: &str) -> bool {
        self.sent_by(phone, tag).any(|stanza| attr(stanza, key).as_deref() == Some(value))
    }
}
