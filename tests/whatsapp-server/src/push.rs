//! What reaches a device beside the messages of its chats: statuses, channels, history, and noise on the
//! wire.

use anyhow::Result;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::waproto::whatsapp as wa;

use super::envelopes::pad;
use super::phone::seal_for;
use super::stanza::{DeviceAddress, SERVER, jid};
use super::state::{Outgoing, State};
use super::{Server, now_secs};

impl Server {
    /// A status of one account, for the devices of another.
    pub async fn phone_posts_status(&self, phone: &str, reader: &str, text: &str) {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        for device in self.devices_of(reader) {
            let sealed =
                seal_for(&self.shared, phone, &device, &pad(&message)).await.expect("a status is sealed");
            self.deliver(&device, |state| {
                NodeBuilder::new("message")
                    .attr("from", "status@broadcast")
                    .attr("participant", jid(phone, 0, SERVER))
                    .attr("id", state.stanza_id("STATUS"))
                    .attr("type", "text")
                    .attr("t", now_secs())
                    .children([sealed])
            });
        }
    }

    /// A post in a channel (`…@newsletter`) that the account follows. It is not encrypted.
    pub fn channel_posts(&self, channel: &str, reader: &str, text: &str) {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        for device in self.devices_of(reader) {
            self.deliver(&device, |state| {
                NodeBuilder::new("message")
                    .attr("from", channel.to_owned())
                    .attr("id", state.stanza_id("POST"))
                    .attr("server_id", "101")
                    .attr("type", "text")
                    .attr("t", now_secs())
                    .children([NodeBuilder::new("plaintext").bytes(message.encode_to_vec()).build()])
            });
        }
    }

    /// The phone offers its devices the messages of the last months.
    pub async fn phone_offers_history(&self, phone: &str) {
        use wa::message::{HistorySyncNotification, ProtocolMessage, protocol_message::Type};
        let offer = HistorySyncNotification {
            sync_type: Some(wa::message::HistorySyncType::RECENT),
            file_length: Some(1_000_000),
            direct_path: Some("/v/history".to_owned()),
            media_key: Some(vec![1; 32]),
            file_sha256: Some(vec![2; 32]),
            file_enc_sha256: Some(vec![3; 32]),
            chunk_order: Some(1),
            ..Default::default()
        };
        let offer = ProtocolMessage {
            r#type: Some(Type::HISTORY_SYNC_NOTIFICATION),
            history_sync_notification: MessageField::some(offer),
            ..Default::default()
        };
        let offer = wa::Message { protocol_message: MessageField::some(offer), ..Default::default() };
        for device in self.devices_of(phone) {
            let sealed =
                seal_for(&self.shared, phone, &device, &pad(&offer)).await.expect("an offer is sealed");
            self.deliver(&device, |state| {
                NodeBuilder::new("message")
                    .attr("from", jid(phone, 0, SERVER))
                    .attr("id", state.stanza_id("PEER"))
                    .attr("type", "text")
                    .attr("category", "peer")
                    .attr("t", now_secs())
                    .children([sealed])
            });
        }
    }

    /// Sends the phone's devices frames that are no stanzas.
    pub fn send_garbage(&self, phone: &str) {
        self.shared.change(|state| {
            for connection in state.connections_of(phone) {
                state.pass_on(connection, Outgoing::Garbage);
            }
        });
    }

    fn devices_of(&self, phone: &str) -> Vec<DeviceAddress> {
        let all = self.shared.lock().linked_devices();
        all.into_iter().filter(|device| device.phone == phone).collect()
    }

    fn deliver(&self, device: &DeviceAddress, stanza: impl FnOnce(&mut State) -> NodeBuilder) {
        let delivered: Result<()> = self.shared.change(|state| {
            let stanza = stanza(state).build();
            state.deliver(device, stanza)
        });
        delivered.expect("a stanza is delivered");
    }
}
