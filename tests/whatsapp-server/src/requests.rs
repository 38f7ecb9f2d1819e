//! Answers to a client's requests (`<iq>`): keys, who has which devices, groups, and the small ones of a
//! login.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node, Server};

use super::Errand;
use super::accounts::asked_for;
use super::devices::Withheld;
use super::stanza::{DeviceAddress, SERVER, attr, child, children, error, required, required_jid, result};
use super::state::State;

/// What a device gets unasked of the stanzas that came while it was away; it asks for the others.
const FIRST_FETCH: usize = 5;

/// A device's upload of one-time keys is 812 of them; a second one adds to it.
const ONE_TIME_KEYS_MAX: usize = 2000;

impl State {
    pub fn on_request(
        &mut self,
        connection: u64,
        who: Option<DeviceAddress>,
        request: &Node,
    ) -> Result<Option<Errand>> {
        let kind = required(request, "type")?;
        if kind == "result" || kind == "error" {
            if let Some(signed) = child(request, "pair-device-sign") {
                self.on_signed(connection, signed)?;
            }
            self.on_pong(connection, request)?;
            return Ok(None);
        }
        if child(request, "link_code_companion_reg").is_some() {
            self.on_link_code(connection, request)?;
            return Ok(None);
        }
        let namespace = attr(request, "xmlns").unwrap_or_default();
        let answer = match (namespace.as_str(), who) {
            ("md", None) => {
                self.on_prologue(connection, request)?;
                return Ok(None);
            }
            ("encrypt", Some(who)) if kind == "set" => {
                let errand = self.take_keys(&who, request)?;
                self.send(connection, result(request, Vec::new()));
                return Ok(errand);
            }
            ("encrypt", Some(_)) if self.is_refused(request) => {
                self.send(connection, error(request, 406, "not-acceptable"));
                return Ok(None);
            }
            ("encrypt", Some(who)) => self.keys_asked(&who, request)?,
            ("usync", Some(_)) => vec![self.users_asked(request)?],
            ("w:g2", Some(who)) => {
                let answer = self.groups_asked(&who, request)?;
                self.send(connection, answer);
                return Ok(None);
            }
            ("passive", Some(who)) => {
                self.send(connection, result(request, Vec::new()));
                if child(request, "active").is_some() {
                    self.announce_waiting(connection, &who)?;
                }
                return Ok(None);
            }
            ("w:sync:app:state", _) => vec![empty_collections(request)],
            ("w:m", Some(_)) => vec![self.web.media_connection()],
            ("abt" | "w", _) => vec![
                NodeBuilder::new("props")
                    .attr("protocol", "1")
                    .attr("hash", "loopback")
                    .attr("refresh", "86400")
                    .build(),
            ],
            ("privacy", _) if child(request, "tokens").is_some() => Vec::new(),
            ("privacy", _) => vec![NodeBuilder::new("privacy").build()],
            ("blocklist", _) => vec![NodeBuilder::new("list").build()],
            // A device that leaves by itself.
            ("md", Some(who)) if child(request, "remove-companion-device").is_some() => {
                self.device_mut(&who)?.unlinked = true;
                Vec::new()
            }
            (
                "w:p"
                | "urn:xmpp:ping"
                | "urn:xmpp:whatsapp:dirty"
                | "w:stats"
                | "md"
                | "w:profile:picture"
                | "status",
                _,
            ) => Vec::new(),
            _ => {
                self.not_understood(request);
                Vec::new()
            }
        };
        self.send(connection, result(request, answer));
        Ok(None)
    }

    fn take_keys(&mut self, who: &DeviceAddress, upload: &Node) -> Result<Option<Errand>> {
        let device = self.device_mut(who)?;
        device.keys.take(upload)?;
        anyhow::ensure!(
            device.keys.one_time.len() <= ONE_TIME_KEYS_MAX,
            "A device has uploaded more than {ONE_TIME_KEYS_MAX} keys"
        );
        let first = !std::mem::replace(&mut device.greeted_by_phone, true);
        Ok(first.then(|| Errand::ShareStateKey(who.clone())))
    }

    fn keys_asked(&mut self, who: &DeviceAddress, request: &Node) -> Result<Vec<Node>> {
        let own = &self.device_mut(who)?.keys;
        if child(request, "count").is_some() {
            return Ok(vec![NodeBuilder::new("count").attr("value", own.one_time.len()).build()]);
        }
        if child(request, "digest").is_some() {
            return Ok(vec![own.digest()]);
        }
        let Some(asked) = child(request, "key") else {
            self.not_understood(request);
            return Ok(Vec::new());
        };
        let mut bundles = Vec::new();
        for user in asked.get_children_by_tag("user") {
            bundles.extend(self.bundle(&required_jid(user, "jid")?));
        }
        Ok(vec![NodeBuilder::new("list").children(bundles).build()])
    }

    /// Whether a whole question for keys is refused.
    fn is_refused(&self, request: &Node) -> bool {
        let asked = child(request, "key").into_iter().flat_map(|asked| asked.get_children_by_tag("user"));
        let mut devices = asked.filter_map(|user| required_jid(user, "jid").ok());
        devices.any(|device| self.withheld(&device) == Some(Withheld::WholeQuestion))
    }

    /// Nothing if a test wants the device left out.
    fn bundle(&mut self, jid: &Jid) -> Option<Node> {
        let refusal = |code: &'static str, text: &'static str| {
            let error = NodeBuilder::new("error").attr("code", code).attr("text", text).build();
            Some(NodeBuilder::new("user").attr("jid", jid).children([error]).build())
        };
        match self.withheld(jid) {
            Some(Withheld::LeftOut) => return None,
            Some(Withheld::NotFound) => return refusal("404", "not-found"),
            Some(Withheld::Unknown | Withheld::WholeQuestion) => return refusal("406", "not-acceptable"),
            None => {}
        }
        if let Some(account) = self.phone_of(jid).and_then(|phone| self.accounts.get_mut(&phone)) {
            if jid.device == 0 {
                return Some(account.phone.keys.bundle(jid, None));
            } else if let Some(device) = account.devices.get_mut(&jid.device) {
                return Some(device.keys.bundle(jid, Some(&device.identity_proof)));
            }
        }
        refusal("404", "not-found")
    }

    /// For each user in question what the client wants to know: whether there is such an account, its
    /// devices, its other address.
    fn users_asked(&self, request: &Node) -> Result<Node> {
        let question = child(request, "usync").context("There is no question")?;
        let query = child(question, "query").context("There is no query")?;
        let wanted: BTreeSet<&str> = children(query).iter().map(|node| &*node.tag).collect();
        let users = child(question, "list").map(children).unwrap_or_default();
        let mut answers = Vec::new();
        for jid in users.iter().filter_map(asked_for) {
            let phone = self.phone_of(&jid);
            let mut facts = Vec::new();
            if wanted.contains("contact") {
                let known = if phone.is_some() { "in" } else { "out" };
                facts.push(NodeBuilder::new("contact").attr("type", known).build());
            }
            let mut user = NodeBuilder::new("user").attr("jid", jid.to_non_ad());
            if let Some(phone) = phone {
                let account = self.account(&phone)?;
                if wanted.contains("devices") {
                    facts.push(account.device_list()?);
                }
                if wanted.contains("lid") {
                    let lid = format!("{}@lid", account.lid);
                    facts.push(NodeBuilder::new("lid").attr("val", lid).build());
                }
                if wanted.contains("status") {
                    facts.push(NodeBuilder::new("status").build());
                }
                if jid.server == Server::Lid {
                    user = user.attr("pn_jid", format!("{phone}@{SERVER}"));
                }
            }
            answers.push(user.children(facts).build());
        }
        let understood = wanted.iter().map(|tag| NodeBuilder::new_dynamic((*tag).to_owned()).build());
        let mut answer = NodeBuilder::new("usync");
        for key in ["sid", "index", "last", "mode", "context"] {
            if let Some(value) = attr(question, key) {
                answer = answer.attr(key, value);
            }
        }
        let children = [
            NodeBuilder::new("result").children(understood.collect::<Vec<_>>()).build(),
            NodeBuilder::new("list").children(answers).build(),
        ];
        Ok(answer.children(children).build())
    }

    fn announce_waiting(&mut self, connection: u64, who: &DeviceAddress) -> Result<()> {
        let waiting = self.device_mut(who)?.mailbox.waiting();
        if waiting > 0 {
            let mut preview =
                NodeBuilder::new("offline_preview").attr("count", waiting).attr("message", waiting);
            for key in ["notification", "receipt", "appdata", "call"] {
                preview = preview.attr(key, "0");
            }
            self.send(connection, NodeBuilder::new("ib").children([preview.build()]).build());
        }
        self.fetch(connection, who, FIRST_FETCH)
    }

    /// Sends a device some of what came while it was away.
    pub fn fetch(&mut self, connection: u64, who: &DeviceAddress, count: usize) -> Result<()> {
        for stanza in self.device_mut(who)?.mailbox.fetch(count) {
            self.traces.note(who, &stanza, "delivered offline");
            self.send(connection, stanza);
        }
        Ok(())
    }
}

/// No account has application state.
fn empty_collections(request: &Node) -> Node {
    let asked = child(request, "sync").into_iter().flat_map(|sync| sync.get_children_by_tag("collection"));
    let collections: Vec<Node> = asked
        .map(|collection| {
            NodeBuilder::new("collection")
                .attr("name", attr(collection, "name").unwrap_or_default())
                .attr("version", attr(collection, "version").unwrap_or_else(|| "0".to_owned()))
                .attr("type", "result")
                .build()
        })
        .collect();
    NodeBuilder::new("sync").children(collections).build()
}
