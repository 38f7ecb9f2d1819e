//! Groups: who is in them, how they are asked about, and how their members learn what changes.

use anyhow::Result;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::{Jid, Node};

use super::stanza::{DeviceAddress, SERVER, child, error, jid, required, result};
use super::state::State;
use super::{Server, now_secs};

#[derive(Clone)]
pub struct Group {
    pub subject: String,
    /// Phone numbers; the first is the group's owner.
    pub members: Vec<String>,
    pub addressing: Addressing,
}

/// By which of their two addresses members know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// As in every group that is made today.
    Lid,
    /// As in groups from before 2025.
    Phone,
}

impl Server {
    /// `id` ends with `@g.us`; the first member is the owner. Members know each other by their LIDs.
    pub fn add_group(&self, id: &str, subject: &str, members: &[&str]) {
        self.add_group_of(Addressing::Lid, id, subject, members);
    }

    pub fn add_group_of(&self, addressing: Addressing, id: &str, subject: &str, members: &[&str]) {
        let members = members.iter().map(|phone| (*phone).to_owned()).collect();
        let group = Group { subject: subject.to_owned(), members, addressing };
        self.shared.change(|state| state.groups.insert(id.to_owned(), group));
    }

    /// The group's owner adds somebody; everybody in it is told, them too.
    pub fn add_member(&self, group: &str, phone: &str) {
        self.shared.change(|state| {
            if let Some(group) = state.groups.get_mut(group) {
                group.members.push(phone.to_owned());
            }
            let change = state
                .member_node(group, phone)
                .map(|member| NodeBuilder::new("add").attr("reason", "invite").children([member]).build());
            state.tell_group(group, &[], change)
        });
    }

    /// The group's owner removes somebody; everybody who was in it is told.
    pub fn remove_member(&self, group: &str, phone: &str) {
        self.shared.change(|state| {
            let change = state.member_node(group, phone);
            let change = change.map(|member| NodeBuilder::new("remove").children([member]).build());
            if let Some(group) = state.groups.get_mut(group) {
                group.members.retain(|member| member != phone);
            }
            state.tell_group(group, &[phone], change)
        });
    }

    pub fn rename_group(&self, group: &str, subject: &str) {
        self.shared.change(|state| {
            if let Some(group) = state.groups.get_mut(group) {
                group.subject = subject.to_owned();
            }
            let change = NodeBuilder::new("subject").attr("subject", subject.to_owned());
            let change = change.attr("s_t", now_secs()).build();
            state.tell_group(group, &[], Ok(change))
        });
    }
}

impl State {
    /// The answer to a client's question about groups.
    pub fn groups_asked(&mut self, who: &DeviceAddress, request: &Node) -> Result<Node> {
        if child(request, "participating").is_some() {
            let mine = self.groups.iter().filter(|(_, group)| group.members.contains(&who.phone));
            let mine: Result<Vec<Node>> = mine.map(|(id, group)| self.group_node(id, group)).collect();
            return Ok(result(request, vec![NodeBuilder::new("groups").children(mine?).build()]));
        }
        if child(request, "query").is_none() {
            self.not_understood(request);
            return Ok(result(request, Vec::new()));
        }
        let id = required(request, "to")?;
        Ok(match self.groups.get(&id) {
            Some(group) if group.members.contains(&who.phone) => {
                result(request, vec![self.group_node(&id, group)?])
            }
            Some(_) => error(request, 403, "forbidden"),
            None => error(request, 404, "item-not-found"),
        })
    }

    fn group_node(&self, id: &str, group: &Group) -> Result<Node> {
        let members: Result<Vec<Node>> =
            group.members.iter().map(|phone| self.member_node(id, phone)).collect();
        let node = NodeBuilder::new("group")
            .attr("id", id.trim_end_matches("@g.us").to_owned())
            .attr("subject", group.subject.clone())
            .attr("s_t", now_secs())
            .attr("creation", now_secs())
            .attr("addressing_mode", group.addressing.name())
            .attr("size", group.members.len());
        Ok(node.children(members?).build())
    }

    fn member_node(&self, id: &str, phone: &str) -> Result<Node> {
        let (by_lid, by_phone) = (jid(&self.account(phone)?.lid, 0, "lid"), jid(phone, 0, SERVER));
        let group = self.groups.get(id);
        let mut member = match group.map(|group| group.addressing) {
            Some(Addressing::Phone) => {
                NodeBuilder::new("participant").attr("jid", by_phone).attr("lid", by_lid)
            }
            Some(Addressing::Lid) | None => {
                NodeBuilder::new("participant").attr("jid", by_lid).attr("phone_number", by_phone)
            }
        };
        if group.and_then(|group| group.members.first()).is_some_and(|owner| owner == phone) {
            member = member.attr("type", "superadmin");
        }
        Ok(member.build())
    }

    /// A change by the group's owner, for every device of everybody in it and of `others`.
    fn tell_group(&mut self, id: &str, others: &[&str], change: Result<Node>) {
        let told = change.and_then(|change| self.try_tell_group(id, others, &change));
        if let Err(error) = told {
            self.faults.push(format!("{error:#}"));
        }
    }

    fn try_tell_group(&mut self, id: &str, others: &[&str], change: &Node) -> Result<()> {
        let Some(group) = self.groups.get(id).cloned() else { anyhow::bail!("There is no group {id}") };
        let owner = DeviceAddress { phone: group.members.first().cloned().unwrap_or_default(), device: 0 };
        let group_jid: Jid = id.parse()?;
        let others = others.iter().map(|phone| (*phone).to_owned());
        for phone in group.members.iter().cloned().chain(others) {
            for device in self.account(&phone)?.devices.keys().copied().collect::<Vec<_>>() {
                let notification = NodeBuilder::new("notification")
                    .attr("from", &group_jid)
                    .attr("type", "w:gp2")
                    .attr("id", self.stanza_id("group"))
                    .attr("participant", self.name_in(&group, &owner)?)
                    .attr("addressing_mode", group.addressing.name())
                    .attr("t", now_secs())
                    .children([change.clone()]);
                self.deliver(&DeviceAddress { phone: phone.clone(), device }, notification.build())?;
            }
        }
        Ok(())
    }

    /// The address by which a group knows a device.
    pub fn name_in(&self, group: &Group, who: &DeviceAddress) -> Result<Jid> {
        Ok(match group.addressing {
            Addressing::Lid => jid(&self.account(&who.phone)?.lid, who.device, "lid"),
            Addressing::Phone => jid(&who.phone, who.device, SERVER),
        })
    }
}

impl Addressing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lid => "lid",
            Self::Phone => "pn",
        }
    }
}
