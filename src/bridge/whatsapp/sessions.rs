//! Whether the devices that a message is for can read it. WhatsApp's library encrypts for those that it has
//! keys of, and says nothing of the others: so their sessions are looked at before a direct message and after
//! a group's, and what a device has missed is sealed anew for it, under the same id: a device that has the
//! message already drops the second copy.
//!
//! What is looked at lies in the library's memory: nobody is asked over the network unless a device has no
//! session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{sleep, timeout};
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::features::MessageRetransmission;
use whatsapp_rust::futures::channel::oneshot;
use whatsapp_rust::futures::future::join_all;
use whatsapp_rust::prelude::{Client, Jid, wa};
use whatsapp_rust::wacore::iq::usync::DeviceListSpec;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::{ErrorChainExt as _, Freshness, NodeFilter, Server};

use super::inbound;
use super::intake_sink;
use crate::bridge::channels::{Recipients, RepairOrder, SendError};
use crate::panics::lock_unpoisoned;
use crate::types::{DeviceKind, Event, MessageId, SenderId};

/// WhatsApp's code for devices that it does not know any more.
const UNKNOWN_DEVICE: u16 = 406;
/// A message is sealed anew as if a device had asked for it once.
const FIRST_RETRY: u8 = 1;
/// How long the library may take to forget a list of devices after WhatsApp said that it is not theirs.
const LIST_FORGOTTEN: Duration = Duration::from_secs(1);
/// How long sealing a message anew may take, or looking up who is in a chat.
const LIMIT: Duration = Duration::from_secs(30);
/// Messages whose answer is awaited. Beyond that the lists are not compared.
const IN_FLIGHT_MAX: usize = 256;

/// Which of a person's devices can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceReach {
    Phone,
    /// The phone has no keys, and another device has.
    CompanionsOnly,
    Nobody,
}

/// Which of a person's devices a direct message reaches. Missing keys are asked for once.
///
/// # Errors
/// WhatsApp could not be asked.
pub async fn resolve_reach(
    client: &Client,
    person: &Jid,
    recipients: Recipients,
) -> Result<DeviceReach, SendError> {
    let remembered = known_devices(client, person).await;
    let mut valid = devices_with_session(client, &remembered).await;
    if valid.len() < remembered.len() {
        let missing = exclude_devices(&remembered, &valid);
        request_device_keys(client, &missing).await?;
        valid.extend(self::devices_with_session(client, &missing).await);
    }
    if valid.is_empty() && recipients == Recipients::LookedUp {
        // The person may have other devices by now.
        let now = fetch_current_devices(client, person).await?;
        request_device_keys(client, &exclude_devices(&now, &remembered)).await?;
        valid = self::devices_with_session(client, &now).await;
    }
    Ok(match valid.iter().any(|device| device.device == 0) {
        true => DeviceReach::Phone,
        false if valid.is_empty() => DeviceReach::Nobody,
        false => DeviceReach::CompanionsOnly,
    })
}

/// The devices of a person, as the library remembers them; if it does not, it asks.
async fn known_devices(client: &Client, person: &Jid) -> Vec<Jid> {
    let known = client.signal().get_user_devices(std::slice::from_ref(person)).await;
    let known = known.unwrap_or_else(|error| {
        tracing::debug!("Failed to look up a person's devices: {error:#}");
        Vec::new()
    });
    // The library writes to the phone if it knows no devices.
    if known.is_empty() { vec![person.to_non_ad()] } else { known }
}

/// The devices of a person as WhatsApp knows them now.
async fn fetch_current_devices(client: &Client, person: &Jid) -> Result<Vec<Jid>, SendError> {
    let request_id = format!("{:016x}", rand::random::<u64>());
    let asked = client.execute(DeviceListSpec::new(vec![person.to_non_ad()], request_id)).await;
    let lists = asked.map_err(|error| retryable_send_error(&error))?.device_lists;
    let devices = lists.into_iter().flat_map(|list| {
        let user = list.user;
        list.devices.into_iter().map(move |device| user.with_device(device.device))
    });
    Ok(devices.collect())
}

/// Those of the devices that there is a session with.
async fn devices_with_session(client: &Client, devices: &[Jid]) -> Vec<Jid> {
    let signal = client.signal();
    let looked = devices.iter().map(|device| async {
        signal.validate_session(device).await.unwrap_or(false).then(|| device.clone())
    });
    join_all(looked).await.into_iter().flatten().collect()
}

fn exclude_devices(devices: &[Jid], others: &[Jid]) -> Vec<Jid> {
    devices.iter().filter(|device| !others.contains(device)).cloned().collect()
}

/// Asks WhatsApp for the keys of devices without a session. If it has none, that is no error.
async fn request_device_keys(client: &Client, devices: &[Jid]) -> Result<(), SendError> {
    match client.signal().assert_sessions(devices).await {
        Err(error) if !is_missing_keys_error(&error) => Err(retryable_send_error(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether WhatsApp has refused because it has no keys of a device.
pub fn is_missing_keys_error(error: &(dyn std::error::Error + 'static)) -> bool {
    error.server_rejection().is_some_and(|rejection| rejection.code == UNKNOWN_DEVICE)
}

fn retryable_send_error(error: &dyn std::error::Error) -> SendError {
    tracing::debug!("Failed to look up sessions: {error}");
    SendError::Later("the connection broke off".to_owned())
}

/// What goes out to WhatsApp, and is not compared with its answer yet.
#[derive(Clone, Default)]
pub struct InFlightMessages(Arc<Mutex<HashMap<MessageId, InFlightMessage>>>);

/// A message on its way out.
pub struct InFlightMessage {
    chat: Jid,
    pub id: MessageId,
    message: wa::Message,
    /// The devices that it is for.
    devices: Vec<Jid>,
    /// Of a group: the stanza, which carries the hash of its devices.
    stanza: Option<oneshot::Receiver<Arc<Node>>>,
}

impl InFlightMessages {
    /// Before a message is sent: its answer may come before it is known to be handed over.
    pub async fn track_message(&self, client: &Client, chat: &Jid, id: &MessageId, message: &wa::Message) {
        let (devices, stanza) = if chat.server == Server::Group {
            let filter = NodeFilter::tag("message").attr("id", id.as_str());
            let stanza = client.wait_for_sent_node(filter);
            (group_devices(client, chat, Freshness::CachePreferred).await, Some(stanza))
        } else {
            (known_devices(client, chat).await, None)
        };
        let sent =
            InFlightMessage { chat: chat.clone(), id: id.clone(), message: message.clone(), devices, stanza };
        let mut in_flight = self.lock_messages();
        if in_flight.len() >= IN_FLIGHT_MAX {
            in_flight.clear();
        }
        in_flight.insert(id.clone(), sent);
    }

    /// WhatsApp has answered a message, with the hash of the devices that it knows. Gives the message if a
    /// device may have been left out: in a group, if the hashes differ. In a direct chat the library compares
    /// them, and forgets the list of devices.
    pub fn compare_ack_hash(&self, id: &MessageId, hash: Option<&str>) -> Option<InFlightMessage> {
        let mut sent = self.lock_messages().remove(id)?;
        let hash = hash?;
        let Some(stanza) = &mut sent.stanza else { return Some(sent) };
        let out = stanza.try_recv().ok().flatten()?;
        let ours = out.attrs.get("phash")?.as_str().into_owned();
        (ours != hash).then_some(sent)
    }

    fn lock_messages(&self) -> MutexGuard<'_, HashMap<MessageId, InFlightMessage>> {
        lock_unpoisoned(&self.0)
    }
}

/// After a group's message: seals it for the members' devices that lacked the group's key. Gives the people
/// whose phones stay without.
pub async fn resend_to_keyless_members(
    client: &Client,
    group: &Jid,
    id: &MessageId,
    message: &wa::Message,
) -> Vec<SenderId> {
    let devices = group_devices(client, group, Freshness::CachePreferred).await;
    let missing = exclude_devices(&devices, &devices_with_session(client, &devices).await);
    resend_to_devices(client, group, id, message, &missing).await
}

/// Brings a message to the devices that have come to its chat since its list was looked up: WhatsApp knows
/// others than the message was for. Gives the people whose phones it still went without.
pub async fn resend_to_new_devices(client: &Client, sent: &InFlightMessage) -> Vec<SenderId> {
    sleep(LIST_FORGOTTEN).await;
    let new = if sent.chat.server == Server::Group {
        exclude_devices(&group_devices(client, &sent.chat, Freshness::Refresh).await, &sent.devices)
    } else {
        // By their numbers: the library may have learned the person's other name meanwhile.
        let known = |device: &Jid| sent.devices.iter().any(|known| known.device == device.device);
        known_devices(client, &sent.chat).await.into_iter().filter(|device| !known(device)).collect()
    };
    resend_to_devices(client, &sent.chat, &sent.id, &sent.message, &new).await
}

/// The devices of everybody else in a group.
async fn group_devices(client: &Client, group: &Jid, freshness: Freshness) -> Vec<Jid> {
    let me = intake_sink::own_account(client);
    let looked_up = async {
        let group = client.groups().query_info_with_freshness(group, freshness).await?;
        let people: Vec<Jid> =
            group.participants.iter().filter(|member| !me.is_own_jid(member)).cloned().collect();
        anyhow::Ok(client.signal().get_user_devices(&people).await?)
    };
    let devices = timeout(LIMIT, looked_up).await.context("Failed to wait").and_then(|devices| devices);
    devices.unwrap_or_else(|error| {
        tracing::debug!("Failed to look up a group's devices: {error:#}");
        Vec::new()
    })
}

/// Seals a message for devices that have no copy, as far as there are keys. Gives the people whose phones
/// stay without.
async fn resend_to_devices(
    client: &Client,
    chat: &Jid,
    id: &MessageId,
    message: &wa::Message,
    missing: &[Jid],
) -> Vec<SenderId> {
    if missing.is_empty() {
        return Vec::new();
    }
    if let Err(error) = request_device_keys(client, missing).await {
        tracing::debug!("Failed to ask for keys: {error:?}");
    }
    let reachable = devices_with_session(client, missing).await;
    let mut left_out = exclude_devices(missing, &reachable);
    for device in reachable {
        if let Err(error) = retransmit_to_device(client, chat, &device, id, message.clone()).await {
            tracing::debug!("Failed to seal a message for one more device: {error:?}");
            left_out.push(device);
        }
    }
    let phones = left_out.iter().filter(|device| device.device == 0);
    phones.map(inbound::to_sender_id).collect()
}

/// Seals a message anew for one person's phone, or for their other devices: with keys asked for anew, since
/// the old ones may be from before the device was set up anew.
///
/// # Errors
/// There are no keys, or the connection broke off.
pub async fn repair_message(client: &Client, repair: &RepairOrder) -> Result<(), SendError> {
    let never = |what: &str| SendError::Never(what.to_owned());
    let chat: Jid = repair.chat.as_str().parse().map_err(|_| never("that is no address of WhatsApp's"))?;
    let person: Jid =
        repair.person.as_str().parse().map_err(|_| never("that is no address of WhatsApp's"))?;
    let message = wa::Message::decode_from_slice(&repair.message).map_err(|_| never("it cannot be read"))?;
    let devices = known_devices(client, &person).await;
    let (phone, companions): (Vec<Jid>, Vec<Jid>) =
        devices.into_iter().partition(|device| device.device == 0);
    let wanted = match repair.device {
        DeviceKind::Phone if phone.is_empty() => vec![person.to_non_ad()],
        DeviceKind::Phone => phone,
        DeviceKind::Companion => companions,
    };
    let signal = client.signal();
    signal.delete_sessions(&wanted).await.map_err(|error| retryable_send_error(&error))?;
    request_device_keys(client, &wanted).await?;
    let reachable = devices_with_session(client, &wanted).await;
    if reachable.is_empty() {
        return Err(SendError::NoKeys);
    }
    for device in reachable {
        retransmit_to_device(client, &chat, &device, &repair.id, message.clone()).await?;
    }
    Ok(())
}

async fn retransmit_to_device(
    client: &Client,
    chat: &Jid,
    device: &Jid,
    id: &MessageId,
    message: wa::Message,
) -> Result<(), SendError> {
    let anew = MessageRetransmission::new(
        chat.clone(),
        device.clone(),
        message,
        id.as_str().to_owned(),
        FIRST_RETRY,
    );
    match timeout(LIMIT, client.retransmit_message(anew)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if is_missing_keys_error(&error) => Err(SendError::NoKeys),
        Ok(Err(error)) => Err(retryable_send_error(&error)),
        Err(_) => Err(SendError::Later("WhatsApp did not take it in time".to_owned())),
    }
}

/// The events that say that these people's phones have no copy of a message.
pub fn phone_missed_events(id: &MessageId, people: Vec<SenderId>) -> Vec<Event> {
    people.into_iter().map(|person| Event::PhoneMissed { id: id.clone(), person }).collect()
}
