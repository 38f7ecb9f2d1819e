//! The phone of an account as its devices' peer: after linking it sends each a key, end-to-end encrypted.
//!
//! A real phone shares its application state; a device that gets no key waits ten seconds before it works.

use anyhow::{Context, Result, anyhow, bail};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::wacore::libsignal::protocol::{
    CiphertextMessage, IdentityKey, PreKeyBundle, PublicKey, UsePQRatchet, message_encrypt,
    process_prekey_bundle,
};
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::wacore::types::jid::JidExt as _;
use whatsapp_rust::waproto::whatsapp as wa;

use super::stanza::{DeviceAddress, by_phone};
use super::{Shared, now_secs};

/// The key's name and content: there is no state that it opens.
const KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];
const KEY: [u8; 32] = [7; 32];

pub async fn share_state_key(shared: &Shared, device: &DeviceAddress) -> Result<()> {
    use wa::message::{
        AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
        AppStateSyncKeyShare, ProtocolMessage, protocol_message::Type,
    };
    let index = u32::from(device.device);
    let fingerprint = AppStateSyncKeyFingerprint {
        raw_id: Some(1),
        current_index: Some(index),
        device_indexes: vec![0, index],
    };
    let key = AppStateSyncKey {
        key_id: MessageField::some(AppStateSyncKeyId { key_id: Some(KEY_ID.to_vec()) }),
        key_data: MessageField::some(AppStateSyncKeyData {
            key_data: Some(KEY.to_vec()),
            fingerprint: MessageField::some(fingerprint),
            timestamp: Some(i64::try_from(now_secs())?),
        }),
    };
    let protocol_message = ProtocolMessage {
        r#type: Some(Type::APP_STATE_SYNC_KEY_SHARE),
        app_state_sync_key_share: MessageField::some(AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    };
    let message =
        wa::Message { protocol_message: MessageField::some(protocol_message), ..Default::default() };
    write(shared, device, &message).await
}

/// Encrypts a message as the phone and delivers it as a peer's.
async fn write(shared: &Shared, device: &DeviceAddress, message: &wa::Message) -> Result<()> {
    let (phone, keys, one_time) = {
        let mut state = shared.lock();
        let phone = state.account(&device.phone)?.phone.clone();
        let keys = &mut state.device_mut(device)?.keys;
        let one_time = keys.one_time.pop_front();
        (phone, keys.clone(), one_time)
    };
    let public = |key: &[u8]| {
        PublicKey::from_djb_public_key_bytes(key).map_err(|error| anyhow!("Failed to read a key: {error}"))
    };
    let one_time = one_time.context("The device has uploaded no keys")?;
    let bundle = PreKeyBundle::new(
        keys.registration,
        u32::from(device.device).into(),
        Some((one_time.0.into(), public(&one_time.1)?)),
        keys.signed.id.into(),
        public(&keys.signed.key)?,
        keys.signed.signature.clone(),
        IdentityKey::new(public(&keys.identity)?),
    )?;
    let address = by_phone(device).to_protocol_address();
    let (mut sessions, mut identities) = (phone.session_store.clone(), phone.identity_store.clone());
    let mut random = rand_for_keys::make_rng::<rand_for_keys::rngs::StdRng>();
    process_prekey_bundle(&address, &mut sessions, &mut identities, &bundle, &mut random, UsePQRatchet::No)
        .await?;
    let plain = MessageUtils::encode_and_pad(message);
    let sealed = message_encrypt(&plain, &address, &mut sessions, &mut identities).await?;
    let CiphertextMessage::PreKeySignalMessage(sealed) = sealed else {
        bail!("The phone's first message opens no session");
    };
    let sealed =
        NodeBuilder::new("enc").attr("v", "2").attr("type", "pkmsg").bytes(sealed.serialized().to_vec());
    let mut state = shared.lock();
    let stanza = NodeBuilder::new("message")
        .attr("from", by_phone(&DeviceAddress { phone: device.phone.clone(), device: 0 }))
        .attr("id", state.stanza_id("PEER"))
        .attr("type", "text")
        .attr("category", "peer")
        .attr("t", now_secs())
        .children([sealed.build()]);
    state.deliver(device, stanza.build())
}
