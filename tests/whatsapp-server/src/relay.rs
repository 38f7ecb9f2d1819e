//! Carries messages, receipts and typing from device to device. The server holds no key of a message: it
//! passes on ciphertexts.
//!
//! A message stays in a device's mailbox until the device acknowledges it or sends a receipt, a receipt until
//! it is acknowledged.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, JidExt as _, Node, Server};

use super::groups::Addressing;
use super::now_secs;
use super::stanza::{DeviceAddress, SERVER, attr, child, children, jid, receipt_ids, required, required_jid};
use super::state::State;

/// What a client asks for if it does not say how much.
const FETCH: usize = 200;

/// The answer to a message into a group that there is not, or that the author is not in.
const NO_SUCH_GROUP: u16 = 403;

/// A message as it came, taken apart.
struct Letter<'a> {
    stanza: &'a Node,
    id: String,
    kind: String,
    author: &'a DeviceAddress,
    author_name: String,
    author_lid: String,
    written_at: u64,
    /// Between an account's own devices, which people never see.
    is_for_peers: bool,
    /// One ciphertext for each device, by the device's address.
    sealed_for: BTreeMap<String, Vec<Node>>,
    /// The ciphertext for everybody who has the group's key; in a chat of two, for the one device.
    sealed_for_all: Vec<Node>,
    /// What goes along unread.
    enclosed: Vec<Node>,
}

impl State {
    pub fn on_message(&mut self, connection: u64, author: &DeviceAddress, stanza: &Node) -> Result<()> {
        let mut ack = NodeBuilder::new("ack")
            .attr("class", "message")
            .attr("id", required(stanza, "id")?)
            .attr("from", required_jid(stanza, "to")?)
            .attr("t", now_secs());
        if !is_for_peers(stanza) {
            ack = ack.attr("phash", self.hash_of(author, stanza)?);
        }
        if let Some(code) = self.pass_message(author, stanza)? {
            ack = ack.attr("error", code);
        }
        self.answer_message(connection, &author.phone, ack.build());
        Ok(())
    }

    /// The hash of the devices that this message should be for, in the addresses that its author knows.
    fn hash_of(&self, author: &DeviceAddress, stanza: &Node) -> Result<String> {
        let devices = child(stanza, "participants").map(children).unwrap_or_default();
        let named: Vec<Jid> = devices.iter().filter_map(|device| required_jid(device, "jid").ok()).collect();
        self.device_hash(author, &required_jid(stanza, "to")?, |account| {
            let has = |server: Server, user: &str| {
                named.iter().any(|name| name.server == server && name.user == user)
            };
            let by_number =
                self.accounts.iter().any(|(phone, own)| own.lid == account.lid && has(Server::Pn, phone));
            if has(Server::Lid, &account.lid) { Some(Server::Lid) } else { by_number.then_some(Server::Pn) }
        })
    }

    /// Brings a message to every device that it is for. Gives the code of a refusal.
    pub fn pass_message(&mut self, author: &DeviceAddress, stanza: &Node) -> Result<Option<u16>> {
        let to = required_jid(stanza, "to")?;
        let account = self.account(&author.phone)?;
        let mut letter = Letter::new(stanza, author, account.name.clone(), account.lid.clone())?;
        letter.written_at -= self.dated_back_secs;
        let refusal = if letter.is_for_peers { None } else { self.answers.refusal(&author.phone) };
        if refusal.is_some() {
            return Ok(refusal);
        }
        let copies =
            if to.is_group() { self.for_group(&to, &letter)? } else { Some(self.for_person(&to, &letter)?) };
        let Some(mut copies) = copies else { return Ok(Some(NO_SUCH_GROUP)) };
        self.answers.pass(author, &letter.id, &mut copies);
        for (device, copy) in copies {
            self.deliver(&device, copy)?;
        }
        Ok(None)
    }

    /// A copy for each device of each member; none for a group that there is not.
    fn for_group(&self, to: &Jid, letter: &Letter) -> Result<Option<Vec<(DeviceAddress, Node)>>> {
        let group = self.groups.get(&to.to_string());
        let Some(group) = group.filter(|group| group.members.contains(&letter.author.phone)) else {
            return Ok(None);
        };
        let mut copies = Vec::new();
        for phone in &group.members {
            let account = self.account(phone)?;
            for device in account.device_numbers() {
                let address = DeviceAddress { phone: phone.clone(), device };
                if address == *letter.author {
                    continue;
                }
                let names = [jid(phone, device, SERVER), jid(&account.lid, device, "lid")];
                let own = names.iter().filter_map(|name| letter.sealed_for.get(&name.to_string()));
                let mut sealed: Vec<Node> = own.flatten().cloned().collect();
                sealed.extend(letter.sealed_for_all.clone());
                let copy = letter
                    .copy(to.clone())
                    .attr("participant", self.name_in(group, letter.author)?)
                    .attr("addressing_mode", group.addressing.name());
                let copy = match group.addressing {
                    Addressing::Lid => copy.attr("participant_pn", jid(&letter.author.phone, 0, SERVER)),
                    Addressing::Phone => copy.attr("participant_lid", jid(&letter.author_lid, 0, "lid")),
                };
                copies.push((address, letter.sealed(copy, sealed)));
            }
        }
        Ok(Some(copies))
    }

    fn for_person(&self, to: &Jid, letter: &Letter) -> Result<Vec<(DeviceAddress, Node)>> {
        let mut copies = Vec::new();
        for (name, sealed) in &letter.sealed_for {
            let name: Jid = name.parse().context("Failed to read a device's address")?;
            let Some(phone) = self.phone_of(&name) else { continue };
            let mut copy = letter.copy_between_two(name.server);
            if phone == letter.author.phone {
                copy = copy.attr("recipient", to.to_non_ad());
            }
            let address = DeviceAddress { phone, device: name.device };
            copies.push((address, letter.sealed(copy, sealed.clone())));
        }
        if let Some(phone) = self.phone_of(to).filter(|_| !letter.sealed_for_all.is_empty()) {
            let mut copy = letter.copy_between_two(to.server);
            if let Some(category) = attr(letter.stanza, "category") {
                copy = copy.attr("category", category);
            }
            let address = DeviceAddress { phone, device: to.device };
            copies.push((address, letter.sealed(copy, letter.sealed_for_all.clone())));
        }
        Ok(copies)
    }

    pub fn on_receipt(&mut self, connection: u64, reader: &DeviceAddress, stanza: &Node) -> Result<()> {
        let id = required(stanza, "id")?;
        let kind = attr(stanza, "type");
        // A device that asks for a message once more has not got it.
        let settles = kind.as_deref() != Some("retry");
        for id in receipt_ids(stanza) {
            let kind = kind.as_deref().unwrap_or("delivered");
            self.traces.note_answer(reader, &id, &format!("receipt: {kind}"));
            if settles {
                self.device_mut(reader)?.mailbox.settle("message", &id);
            }
        }
        let chat = required_jid(stanza, "to")?;
        let author = attr(stanza, "participant").and_then(|text| text.parse().ok()).unwrap_or(chat.clone());
        if let Some(phone) = self.phone_of(&author) {
            let from = self.name_on(author.server, reader)?;
            let mut receipt = NodeBuilder::new("receipt").attr("id", id.clone()).attr("t", now_secs());
            receipt = match chat.is_group() {
                true => receipt.attr("from", &chat).attr("participant", from),
                false => receipt.attr("from", from),
            };
            if let Some(kind) = &kind {
                receipt = receipt.attr("type", kind.clone());
            }
            let receipt = receipt.children(children(stanza).to_vec()).build();
            let devices = self.account(&phone)?.devices.iter();
            let wanted = devices.filter(|(device, _)| {
                let asked = author.device == 0 || **device == author.device;
                asked && (phone.as_str(), **device) != (reader.phone.as_str(), reader.device)
            });
            let wanted: Vec<u16> = wanted.map(|(device, _)| *device).collect();
            for device in wanted {
                self.deliver(&DeviceAddress { phone: phone.clone(), device }, receipt.clone())?;
            }
        }
        let mut ack = NodeBuilder::new("ack").attr("class", "receipt").attr("id", id).attr("from", &chat);
        if let Some(kind) = kind {
            ack = ack.attr("type", kind);
        }
        self.send(connection, ack.build());
        Ok(())
    }

    pub fn on_ack(&mut self, who: &DeviceAddress, stanza: &Node) -> Result<()> {
        let (class, id) = (required(stanza, "class")?, required(stanza, "id")?);
        if class == "message" {
            self.traces.note_answer(who, &id, "acknowledged");
        }
        self.device_mut(who)?.mailbox.settle(&class, &id);
        Ok(())
    }

    /// Typing, for everybody else in the chat who is online.
    pub fn on_chatstate(&mut self, who: &DeviceAddress, stanza: &Node) -> Result<()> {
        let chat = required_jid(stanza, "to")?;
        let readers: Vec<String> = match self.groups.get(&chat.to_string()) {
            Some(group) => group.members.clone(),
            None => self.phone_of(&chat).into_iter().collect(),
        };
        let mut state = NodeBuilder::new("chatstate");
        state = match chat.is_group() {
            true => state.attr("from", &chat).attr("participant", self.name_on(Server::Lid, who)?),
            false => state.attr("from", self.name_on(chat.server, who)?.to_non_ad()),
        };
        let state = state.children(children(stanza).to_vec()).build();
        for reader in readers.iter().filter(|reader| **reader != who.phone) {
            for connection in self.connections_of(reader) {
                self.send(connection, state.clone());
            }
        }
        Ok(())
    }

    /// A client's wish for something of its own: the rest of what came while it was away.
    pub fn on_wish(&mut self, connection: u64, who: &DeviceAddress, stanza: &Node) -> Result<()> {
        let Some(batch) = child(stanza, "offline_batch") else { return Ok(()) };
        let count = attr(batch, "count").and_then(|count| count.parse().ok()).unwrap_or(FETCH);
        self.fetch(connection, who, count)
    }

    /// A device's address on one of the two servers that name people.
    pub fn name_on(&self, server: Server, who: &DeviceAddress) -> Result<Jid> {
        Ok(match server == Server::Lid {
            true => jid(&self.account(&who.phone)?.lid, who.device, "lid"),
            false => jid(&who.phone, who.device, SERVER),
        })
    }
}

impl<'a> Letter<'a> {
    fn new(
        stanza: &'a Node,
        author: &'a DeviceAddress,
        author_name: String,
        author_lid: String,
    ) -> Result<Self> {
        let mut sealed_for: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        if let Some(devices) = child(stanza, "participants") {
            for device in devices.get_children_by_tag("to") {
                let sealed = device.get_children_by_tag("enc").cloned();
                sealed_for.entry(required(device, "jid")?).or_default().extend(sealed);
            }
        }
        let enclosed = children(stanza).iter().filter(|node| !matches!(&*node.tag, "participants" | "enc"));
        Ok(Self {
            stanza,
            id: required(stanza, "id")?,
            kind: attr(stanza, "type").unwrap_or_else(|| "text".to_owned()),
            author,
            author_name,
            author_lid,
            written_at: now_secs(),
            is_for_peers: is_for_peers(stanza),
            sealed_for,
            sealed_for_all: stanza.get_children_by_tag("enc").cloned().collect(),
            enclosed: enclosed.cloned().collect(),
        })
    }

    fn copy(&self, from: Jid) -> NodeBuilder {
        let mut copy = NodeBuilder::new("message")
            .attr("from", from)
            .attr("id", self.id.clone())
            .attr("type", self.kind.clone())
            .attr("t", self.written_at)
            .attr("notify", self.author_name.clone());
        if let Some(edit) = attr(self.stanza, "edit") {
            copy = copy.attr("edit", edit);
        }
        copy
    }

    /// In a chat of two the author has the same kind of address as the reader, and the other beside it.
    fn copy_between_two(&self, server: Server) -> NodeBuilder {
        let (phone, lid) = (&self.author.phone, &self.author_lid);
        match server == Server::Lid {
            true => self
                .copy(jid(lid, self.author.device, "lid"))
                .attr("sender_pn", jid(phone, 0, SERVER))
                .attr("addressing_mode", "lid"),
            false => self.copy(jid(phone, self.author.device, SERVER)).attr("sender_lid", jid(lid, 0, "lid")),
        }
    }

    fn sealed(&self, copy: NodeBuilder, mut sealed: Vec<Node>) -> Node {
        sealed.extend(self.enclosed.clone());
        copy.children(sealed).build()
    }
}

/// Whether only the author's own devices are to know of a message.
pub fn is_for_peers(stanza: &Node) -> bool {
    attr(stanza, "category").as_deref() == Some("peer")
}
