//! How a client is linked, if a test wants other terms than WhatsApp's everyday ones.

use std::collections::{HashMap, HashSet, VecDeque};

use anyhow::Result;
use whatsapp_rust::NodeBuilder;

use super::stanza::SERVER;
use super::state::State;
use super::{Server, now_secs};

/// WhatsApp offers six: the first is shown for a minute, the others for 20 seconds each.
const QR_CODES: usize = 6;

pub struct LinkOptions {
    pub qr_codes: usize,
    /// What the next requests for a pairing code are told, by phone.
    code_refusals: HashMap<String, VecDeque<u16>>,
    /// Phones whose next proof of a linking is no proof.
    pub forging: HashSet<String>,
    /// Phones whose accounts want a passkey before a device is linked.
    pub passkeys: HashMap<String, Passkeys>,
}

/// What the server does about the answer of a passkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passkeys {
    Accepted,
    /// It is not one of the account's.
    Refused,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            qr_codes: QR_CODES,
            code_refusals: HashMap::new(),
            forging: HashSet::new(),
            passkeys: HashMap::new(),
        }
    }
}

impl Server {
    /// How many QR codes a client may show from now on. With none it gives up at once, and with one after a
    /// minute; the library measures that time itself.
    pub fn offer_qr_codes(&self, count: usize) {
        self.shared.change(|state| state.link_options.qr_codes = count);
    }

    /// The next request for a pairing code for this phone is answered with this error: 400, 403, 429, 452 or
    /// 500.
    pub fn refuse_next_code(&self, phone: &str, code: u16) {
        self.shared.change(|state| {
            state.link_options.code_refusals.entry(phone.to_owned()).or_default().push_back(code)
        });
    }

    /// The server wants the pairing code that is shown for this phone to be replaced.
    pub fn retire_code(&self, phone: &str) -> Result<()> {
        self.shared.change(|state| state.retire_code(phone))
    }

    /// Ends the connection that carries the pairing code for this phone, without a word.
    pub fn drop_code(&self, phone: &str) -> Result<()> {
        self.shared.change(|state| {
            let connection = state.showing_code(phone)?;
            state.close(connection);
            Ok(())
        })
    }

    /// The next proof that this phone signs for a client is not one.
    pub fn forge_next_linking(&self, phone: &str) {
        self.shared.change(|state| state.link_options.forging.insert(phone.to_owned()));
    }

    /// From now on a scanned QR code is not enough for this account: it wants a passkey's answer too.
    pub fn demand_passkey(&self, phone: &str, passkeys: Passkeys) {
        self.shared.change(|state| state.link_options.passkeys.insert(phone.to_owned(), passkeys));
    }
}

impl State {
    fn retire_code(&mut self, phone: &str) -> Result<()> {
        let connection = self.showing_code(phone)?;
        let reference = self.linking_mut(connection)?.code_reference.clone();
        let retired = NodeBuilder::new("link_code_companion_reg")
            .attr("stage", "refresh_code")
            .attr("force_manual_refresh", "true")
            .children([NodeBuilder::new("link_code_pairing_ref").bytes(reference.into_bytes()).build()]);
        let notification = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", "link_code_companion_reg")
            .attr("id", self.stanza_id("retire-code"))
            .attr("t", now_secs());
        self.send(connection, notification.children([retired.build()]).build());
        Ok(())
    }
}

impl LinkOptions {
    pub fn code_refusal(&mut self, phone: &str) -> Option<u16> {
        self.code_refusals.get_mut(phone)?.pop_front()
    }
}
