//! Messages of which only the envelope could be read: as intake is told of them, and as the phone is asked
//! for them. Pure.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use whatsapp_rust::prelude::{Jid, MessageInfo};
use whatsapp_rust::types::message::MessageSource;
use whatsapp_rust::wacore::chrono::DateTime;

use super::inbound::{self, OwnAccount};
use crate::types::{Author, Event, SenderId, UnreadableMessage};

/// The number of a phone among the devices of its account.
const PHONE: u16 = 0;

/// The event for such a message; `None` if it belongs to no conversation.
pub fn build_unread_event(
    me: &OwnAccount,
    name_of: &dyn Fn(&SenderId) -> Option<String>,
    info: &MessageInfo,
) -> Option<Event> {
    let envelope = inbound::InboundEnvelope { me, name_of, info, commented: None };
    if inbound::is_non_chat_message(info) {
        return None;
    }
    let author = if is_by_own_phone(info) { Author::OwnPhone } else { Author::Somebody };
    Some(Event::Unread(UnreadableMessage {
        chat: envelope.chat_id(),
        id: crate::types::MessageId::new(&info.id),
        sender: envelope.sender_id(),
        sender_name: envelope.sender_name(),
        sent_at: envelope.sent_at(),
        author,
        handle: encode_resend_handle(info),
    }))
}

pub fn is_by_own_phone(info: &MessageInfo) -> bool {
    info.source.is_from_me && info.source.sender.device == PHONE
}

/// What asking for a message needs of its envelope.
fn encode_resend_handle(info: &MessageInfo) -> Vec<u8> {
    let MessageSource { chat, sender, sender_alt, is_from_me, is_group, .. } = &info.source;
    let handle = json!({
        "id": info.id,
        "chat": chat.to_string(),
        "sender": sender.to_string(),
        "other_name": sender_alt.as_ref().map(Jid::to_string),
        "from_me": is_from_me,
        "group": is_group,
        "sent_at": info.timestamp.timestamp(),
        "push_name": info.push_name,
    });
    handle.to_string().into_bytes()
}

/// The envelope of such a handle.
pub fn decode_resend_handle(handle: &[u8]) -> Result<MessageInfo> {
    let handle: Value = serde_json::from_slice(handle).context("Failed to read which message is wanted")?;
    let text = |name: &str| handle.get(name).and_then(Value::as_str);
    let jid = |name: &str| text(name).and_then(|jid| jid.parse::<Jid>().ok());
    let is = |name: &str| handle.get(name).and_then(Value::as_bool).unwrap_or_default();
    let sent_at = handle.get("sent_at").and_then(Value::as_i64).unwrap_or_default();
    Ok(MessageInfo {
        id: text("id").context("Failed to read which message is wanted")?.to_owned(),
        source: MessageSource {
            chat: jid("chat").context("Failed to read whose message is wanted")?,
            sender: jid("sender").context("Failed to read whose message is wanted")?,
            sender_alt: jid("other_name"),
            is_from_me: is("from_me"),
            is_group: is("group"),
            ..MessageSource::default()
        },
        timestamp: DateTime::from_timestamp(sent_at, 0).unwrap_or_default(),
        push_name: text("push_name").unwrap_or_default().to_owned(),
        ..MessageInfo::default()
    })
}
