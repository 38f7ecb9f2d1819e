//! A client's first words: it wants to be linked, or it is a device that logs in.

use anyhow::{Result, ensure};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::Node;

use super::noise::Greeting;
use super::now_secs;
use super::pairing::Linking;
use super::stanza::{DeviceAddress, jid};
use super::state::{Connection, Outgoing, Standing, State};
use super::{Interruption, Refusal};
use tokio::sync::mpsc;

/// Ten times what the largest test connects at once.
const CONNECTIONS_MAX: usize = 64;

impl State {
    /// Takes a client in, whatever it is then told.
    pub fn welcome(
        &mut self,
        connection: u64,
        greeting: Greeting,
        outgoing: mpsc::Sender<Outgoing>,
    ) -> Result<()> {
        ensure!(self.connections.len() < CONNECTIONS_MAX, "{CONNECTIONS_MAX} clients are connected");
        let mut payload = greeting.payload;
        let standing = match payload.device_pairing_data.take() {
            Some(registration) => {
                let codes = self.link_options.qr_codes;
                let linking = Linking::new(connection, codes, registration, greeting.noise_key);
                Standing::Linking(Box::new(linking))
            }
            None => Standing::Refused,
        };
        let links = matches!(standing, Standing::Linking(_));
        self.connections.insert(connection, Connection { outgoing, standing });
        if links {
            return self.offer_linking(connection);
        }
        let address = DeviceAddress {
            phone: payload.username.unwrap_or_default().to_string(),
            device: u16::try_from(payload.device.unwrap_or_default())?,
        };
        let version = payload.user_agent.as_option().and_then(|agent| agent.app_version.as_option());
        let version = version.map(|version| {
            let part = |part: Option<u32>| part.unwrap_or_default();
            (part(version.primary), part(version.secondary), part(version.tertiary))
        });
        if let Ok(device) = self.device_mut(&address) {
            (device.version, device.handshake) = (version, Some(greeting.handshake));
        }
        self.log_in(connection, address);
        Ok(())
    }

    fn log_in(&mut self, connection: u64, address: DeviceAddress) {
        let refusal = self.refusals.get_mut(&address.phone).and_then(|refusals| refusals.pop_front());
        let known = self.device_mut(&address).is_ok_and(|device| !device.unlinked);
        if let Some(refusal) = refusal.or((!known).then_some(Refusal::Unlinked)) {
            self.send(connection, refusal.stanza());
            self.close(connection);
            return;
        }
        let Ok(device) = self.device_mut(&address) else { return };
        device.mailbox.close();
        if let Some(replaced) = device.connection.replace(connection) {
            self.send(replaced, Interruption::Replaced.stanza());
            self.close(replaced);
        }
        let lid = self.accounts[&address.phone].lid.clone();
        let success = NodeBuilder::new("success")
            .attr("t", now_secs())
            .attr("lid", jid(&lid, address.device, "lid"))
            .attr("location", "loopback")
            .attr("props", "27");
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.standing = Standing::LoggedIn(address);
        }
        self.send(connection, success.build());
    }
}

impl Refusal {
    pub fn stanza(&self) -> Node {
        let failure = NodeBuilder::new("failure").attr("location", "loopback");
        match self {
            Self::Unlinked => failure.attr("reason", "401").build(),
            Self::Banned { reason, secs } => {
                failure.attr("reason", "402").attr("code", *reason).attr("expire", *secs).build()
            }
            Self::Locked => failure.attr("reason", "403").build(),
            Self::Outdated => failure.attr("reason", "405").build(),
            Self::Unavailable => failure.attr("reason", "503").build(),
            Self::Other(reason) => failure.attr("reason", *reason).build(),
        }
    }
}

impl Interruption {
    pub fn stanza(&self) -> Node {
        let error = NodeBuilder::new("stream:error");
        let conflict = |kind: &'static str| [NodeBuilder::new("conflict").attr("type", kind).build()];
        match self {
            Self::Replaced => error.children(conflict("replaced")).build(),
            Self::Unlinked => error.attr("code", "401").children(conflict("device_removed")).build(),
            Self::Restart => error.attr("code", "515").build(),
            Self::Unavailable => error.attr("code", "503").build(),
            Self::TooMany => error.attr("code", "429").build(),
        }
    }
}
