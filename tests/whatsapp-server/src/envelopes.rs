//! Signal's envelopes, as the phones that the server plays seal and open them. Knows no account and no stanza
//! but `<enc>`.

use anyhow::{Context, Result, anyhow, bail, ensure};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::store::signal_adapter::SignalProtocolStoreAdapter;
use whatsapp_rust::wacore::libsignal::protocol::{
    CiphertextMessage, IdentityKey, PreKeyBundle, PreKeySignalMessage, PublicKey,
    SenderKeyDistributionMessage, SessionStore as _, SignalMessage, UsePQRatchet, group_decrypt,
    message_decrypt, message_encrypt, process_prekey_bundle, process_sender_key_distribution_message,
};
use whatsapp_rust::wacore::libsignal::store::sender_key_name::SenderKeyName;
use whatsapp_rust::wacore::messages::MessageUtils;
use whatsapp_rust::wacore::types::jid::JidExt as _;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::waproto::whatsapp as wa;

use super::accounts::DeviceKeys;
use super::stanza::{DeviceAddress, attr, by_phone, bytes, required};

/// The padding of these days.
const PADDING_VERSION: u8 = 2;

/// Whether this device was ever written to, or has written.
pub async fn knows(signal: &SignalProtocolStoreAdapter, other: &DeviceAddress) -> Result<bool> {
    Ok(signal.session_store.has_session(&by_phone(other).to_protocol_address()).await?)
}

/// Begins a session with a device, with the keys that it has uploaded for that; one of its one-time keys at
/// most.
pub async fn meet(
    signal: &SignalProtocolStoreAdapter,
    other: &DeviceAddress,
    keys: &DeviceKeys,
) -> Result<()> {
    let address = by_phone(other).to_protocol_address();
    let (mut sessions, mut identities) = (signal.session_store.clone(), signal.identity_store.clone());
    let mut random = rand::make_rng::<rand::rngs::StdRng>();
    let (bundle, none) = (bundle(other, keys)?, UsePQRatchet::No);
    process_prekey_bundle(&address, &mut sessions, &mut identities, &bundle, &mut random, none).await?;
    Ok(())
}

/// Seals what `reader` alone can open.
pub async fn seal(signal: &SignalProtocolStoreAdapter, reader: &DeviceAddress, plain: &[u8]) -> Result<Node> {
    let address = by_phone(reader).to_protocol_address();
    let (mut sessions, mut identities) = (signal.session_store.clone(), signal.identity_store.clone());
    let sealed = message_encrypt(plain, &address, &mut sessions, &mut identities).await?;
    let (kind, sealed) = match &sealed {
        CiphertextMessage::PreKeySignalMessage(sealed) => ("pkmsg", sealed.serialized().to_vec()),
        CiphertextMessage::SignalMessage(sealed) => ("msg", sealed.serialized().to_vec()),
        CiphertextMessage::SenderKeyMessage(_) | CiphertextMessage::PlaintextContent(_) => {
            bail!("A message to one device is sealed for many")
        }
    };
    Ok(NodeBuilder::new("enc").attr("v", "2").attr("type", kind).bytes(sealed).build())
}

pub fn pad(message: &wa::Message) -> Vec<u8> {
    MessageUtils::encode_and_pad(message)
}

/// Opens one envelope. What is for a whole group can be opened once its key has come in another.
pub async fn open(
    signal: &SignalProtocolStoreAdapter,
    author: &DeviceAddress,
    chat: &str,
    sealed: &Node,
) -> Result<wa::Message> {
    let address = by_phone(author).to_protocol_address();
    let mut signal = signal.clone();
    let group_key = SenderKeyName::from_parts(chat, address.as_str());
    let kind = required(sealed, "type")?;
    let envelope = bytes(sealed);
    let padded = if kind == "skmsg" {
        group_decrypt(&envelope, &mut signal.sender_key_store, &group_key).await?
    } else {
        let envelope = match kind.as_str() {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(&envelope[..])?),
            "msg" => CiphertextMessage::SignalMessage(SignalMessage::try_from(&envelope[..])?),
            _ => bail!("The phone knows no envelope {kind:?}"),
        };
        let mut random = rand::make_rng::<rand::rngs::StdRng>();
        let opened = message_decrypt(
            &envelope,
            &address,
            &mut signal.session_store,
            &mut signal.identity_store,
            &mut signal.pre_key_store,
            &signal.signed_pre_key_store,
            &mut random,
            UsePQRatchet::No,
        );
        opened.await?.plaintext
    };
    ensure!(attr(sealed, "v").as_deref() == Some("2"), "The phone knows no other padding");
    let message = wa::Message::decode_from_slice(MessageUtils::unpad_message_ref(&padded, PADDING_VERSION)?)?;
    if let Some(shared) = message.sender_key_distribution_message.as_option() {
        let key = shared.axolotl_sender_key_distribution_message.as_deref().unwrap_or_default();
        let key = SenderKeyDistributionMessage::try_from(key)?;
        process_sender_key_distribution_message(&group_key, &key, &mut signal.sender_key_store).await?;
    }
    Ok(message)
}

fn bundle(reader: &DeviceAddress, keys: &DeviceKeys) -> Result<PreKeyBundle> {
    let public = |key: &[u8]| {
        PublicKey::from_djb_public_key_bytes(key).map_err(|error| anyhow!("Failed to read a key: {error}"))
    };
    let one_time = match keys.one_time.front() {
        Some((id, key)) => Some(((*id).into(), public(key)?)),
        None => None,
    };
    PreKeyBundle::new(
        keys.registration,
        u32::from(reader.device).into(),
        one_time,
        keys.signed.id.into(),
        public(&keys.signed.key)?,
        keys.signed.signature.clone(),
        IdentityKey::new(public(&keys.identity)?),
    )
    .context("Failed to put a device's keys together")
}
