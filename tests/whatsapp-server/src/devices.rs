//! What goes wrong between a message and the devices that it is for: keys that are not there, devices of
//! which nobody told, phones that were set up anew, and what a phone says of what it can and cannot read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use tokio::time::timeout;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore::crypto::generate_curve_key_pair;
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::wacore_binary::{Jid, Node, Server as Space};

use super::accounts::Account;
use super::groups::Addressing;
use super::phone::{Phone, open_all};
use super::stanza::{DeviceAddress, SERVER, jid, required_jid};
use super::state::State;
use super::{PATIENCE, Server, now_secs};

/// How the server says that it has no keys of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The answer does not name the device.
    LeftOut,
    NotFound,
    /// 406, of the device alone.
    Unknown,
    /// 406 for the whole question.
    WholeQuestion,
}

#[derive(Default)]
pub struct Keys {
    withheld: BTreeMap<DeviceAddress, Withheld>,
}

impl Server {
    /// From now on nobody gets keys of this device; 0 is the phone.
    pub fn withhold_keys(&self, phone: &str, device: u16, how: Withheld) {
        let address = DeviceAddress { phone: phone.to_owned(), device };
        self.shared.change(|state| state.keys.withheld.insert(address, how));
    }

    /// The keys of all of the account's devices are there again.
    pub fn give_keys(&self, phone: &str) {
        self.shared.change(|state| state.keys.withheld.retain(|address, _| address.phone != phone));
    }

    /// The person sets WhatsApp up anew: the phone has other keys, and cannot read what is sealed for those
    /// from before. Nobody is told.
    pub fn set_up_anew(&self, phone: &str) {
        let anew: Result<()> = self.shared.change(|state| {
            let account = state.account_mut(phone)?;
            let key = generate_curve_key_pair();
            let new_phone = Phone::new(&key)?;
            let old_phone = std::mem::replace(&mut account.phone, new_phone);
            account.phone.takes_over(old_phone);
            account.key = key;
            Ok(())
        });
        anew.expect("a phone has keys");
    }

    /// The server tells the devices of `to` that this person has set WhatsApp up anew.
    pub fn tell_set_up_anew(&self, phone: &str, to: &str) {
        let told: Result<()> = self.shared.change(|state| {
            for device in state.linked_devices().into_iter().filter(|device| device.phone == to) {
                let notification = NodeBuilder::new("notification")
                    .attr("from", jid(phone, 0, SERVER))
                    .attr("type", "encrypt")
                    .attr("id", state.stanza_id("identity"))
                    .attr("t", now_secs())
                    .children([NodeBuilder::new("identity").build()]);
                state.deliver(&device, notification.build())?;
            }
            Ok(())
        });
        told.expect("it is told");
    }

    /// The group's owner adds somebody, and nobody is told.
    pub fn add_member_untold(&self, group: &str, phone: &str) {
        self.shared.change(|state| {
            if let Some(group) = state.groups.get_mut(group) {
                group.members.push(phone.to_owned());
            }
        });
    }

    /// From now on the phone says what it has; what it cannot read is no fault of the test.
    pub fn phone_sends_receipts(&self, phone: &str) {
        self.shared.change(|state| {
            if let Ok(account) = state.account_mut(phone) {
                account.phone.sends_receipts = true;
            }
        });
    }

    /// All texts on the phone's screen, each message once, and how many it cannot read.
    pub async fn screen(&self, phone: &str) -> (Vec<String>, usize) {
        open_all(&self.shared, phone).await.unwrap_or_else(|error| panic!("{phone}: {error:#}"));
        let state = self.shared.lock();
        let phone = &state.account(phone).expect("an account").phone;
        let mut ids = BTreeSet::new();
        let new = phone.seen().filter(|seen| !seen.text().is_empty() && ids.insert(&seen.id));
        (new.map(|seen| seen.text().to_owned()).collect(), phone.unreadable.len())
    }

    /// Waits until this text stands on the phone's screen.
    pub async fn wait_for_text(&self, phone: &str, text: &str) {
        let shown = async || self.screen(phone).await.0.iter().any(|shown| shown == text).then_some(());
        self.wait_for_screen(phone, text, shown).await;
    }

    /// Waits until the phone has something that it cannot read, and gives its id.
    pub async fn wait_for_unreadable(&self, phone: &str) -> String {
        let unreadable = async || {
            self.screen(phone).await;
            let state = self.shared.lock();
            state.account(phone).ok()?.phone.unreadable.keys().next().cloned()
        };
        self.wait_for_screen(phone, "something unreadable", unreadable).await
    }

    /// Waits until this text stands on the phone's screen. If the phone cannot read it at first, it asks for
    /// it.
    pub async fn wait_for_text_or_ask(&self, phone: &str, text: &str) {
        let came = async || {
            let is_shown = self.screen(phone).await.0.iter().any(|shown| shown == text);
            let state = self.shared.lock();
            let unreadable = state.account(phone).ok()?.phone.unreadable.keys().next().cloned();
            if is_shown { Some(None) } else { unreadable.map(Some) }
        };
        if let Some(id) = self.wait_for_screen(phone, text, came).await {
            self.phone_asks_again(phone, &id, 1);
            self.wait_for_text(phone, text).await;
        }
    }

    async fn wait_for_screen<T>(&self, phone: &str, what: &str, shown: impl AsyncFn() -> Option<T>) -> T {
        let mut changes = self.shared.changes.subscribe();
        let waiting = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = shown().await {
                    return found;
                }
                changes.changed().await.expect("the server runs");
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("waited too long for {what} on the phone of {phone}"))
    }

    /// The phone asks for a message that it cannot read, for the `count`th time.
    pub fn phone_asks_again(&self, phone: &str, id: &str, count: u8) {
        let asked: Result<()> = self.shared.change(|state| {
            let account = state.account(phone)?;
            let registration = account.phone.keys.registration.to_be_bytes().to_vec();
            let stanza = account.phone.unreadable.get(id).cloned();
            let stanza = stanza.ok_or_else(|| anyhow::anyhow!("{phone} can read {id}"))?;
            let retry =
                NodeBuilder::new("retry").attr("v", "1").attr("count", count).attr("id", id.to_owned());
            let children = [
                retry.attr("t", now_secs()).build(),
                NodeBuilder::new("registration").bytes(registration).build(),
            ];
            state.send_receipt(phone, &stanza, Some("retry"), children.to_vec())
        });
        asked.expect("it can be asked for");
    }
}

impl State {
    /// How the server answers for the keys of this device, if a test wants it otherwise.
    pub fn withheld(&self, jid: &Jid) -> Option<Withheld> {
        let address = DeviceAddress { phone: self.phone_of(jid)?, device: jid.device };
        self.keys.withheld.get(&address).copied()
    }

    /// A phone has tried to read a message, and says so if it could.
    pub fn phone_tried(&mut self, phone: &str, stanza: &Node, is_readable: bool) -> Result<()> {
        let id = super::stanza::required(stanza, "id")?;
        let own = &mut self.account_mut(phone)?.phone;
        if is_readable {
            own.unreadable.remove(&id);
            return self.send_receipt(phone, stanza, None, Vec::new());
        }
        // A second copy of what was readable before changes nothing.
        if !own.seen().any(|seen| seen.id == id) {
            own.unreadable.insert(id, stanza.clone());
        }
        Ok(())
    }

    /// What a phone says of a message that it was sent: to the device that sent it.
    pub fn send_receipt(
        &mut self,
        phone: &str,
        message: &Node,
        kind: Option<&'static str>,
        children: Vec<Node>,
    ) -> Result<()> {
        let from = required_jid(message, "from")?;
        let author = match super::stanza::attr(message, "participant") {
            Some(author) => author.parse()?,
            None => from.clone(),
        };
        let Some(author_phone) = self.phone_of(&author) else { return Ok(()) };
        let to = DeviceAddress { phone: author_phone, device: author.device };
        let reader = DeviceAddress { phone: phone.to_owned(), device: 0 };
        let id = super::stanza::required(message, "id")?;
        let mut receipt = NodeBuilder::new("receipt").attr("id", id).attr("t", now_secs());
        receipt = match self.groups.get(&from.to_string()).cloned() {
            Some(group) => receipt.attr("from", &from).attr("participant", self.name_in(&group, &reader)?),
            None => receipt.attr("from", self.name_on(from.server, &reader)?),
        };
        if let Some(kind) = kind {
            receipt = receipt.attr("type", kind);
        }
        if to.device == 0 {
            return Ok(());
        }
        let receipt = if children.is_empty() { receipt.build() } else { receipt.children(children).build() };
        self.deliver(&to, receipt)
    }

    /// The hash of the devices that a message is for, as WhatsApp knows them.
    pub fn device_hash(
        &self,
        author: &DeviceAddress,
        to: &Jid,
        namespace: impl Fn(&Account) -> Option<Space>,
    ) -> Result<String> {
        let mut devices = Vec::new();
        let group = self.groups.get(&to.to_string());
        let people = match group {
            Some(group) => group.members.clone(),
            None => self.phone_of(to).into_iter().chain([author.phone.clone()]).collect(),
        };
        for phone in people {
            let account = self.account(&phone)?;
            let space = match group.map(|group| group.addressing) {
                Some(Addressing::Lid) => Space::Lid,
                Some(Addressing::Phone) => Space::Pn,
                None => namespace(account).unwrap_or(to.server),
            };
            for device in account.device_numbers() {
                let address = DeviceAddress { phone: phone.clone(), device };
                if group.is_none() && address == *author {
                    continue;
                }
                devices.push(match space == Space::Lid {
                    true => jid(&account.lid, device, "lid"),
                    false => jid(&phone, device, SERVER),
                });
            }
        }
        MessageUtils::participant_list_hash(&devices)
    }
}
