//! Linking a device: what the server offers it, and what the person's phone does with a QR code or a pairing
//! code.
//!
//! ```text
//! QR code      refs offered -> the phone scans one: signs -> pair-success -> the device signs -> 515
//! pairing code companion_hello -> the person types the code: primary_hello -> companion_finish -> signs -> as above
//! ```

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore::crypto::{calculate_curve_signature, generate_curve_key_pair, hkdf_sha256_into};
use whatsapp_rust::wacore::libsignal::crypto::{aes_256_gcm_decrypt, hmac_sha256};
use whatsapp_rust::wacore::libsignal::protocol::{KeyPair, PublicKey};
use whatsapp_rust::wacore::pair_code::PairCodeUtils;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::waproto::whatsapp as wa;

use super::accounts::{Device, DeviceKeys};
use super::passkey::Prologue;
use super::stanza::{
    DeviceAddress, SERVER, by_phone, child, child_bytes, error, jid, required, required_jid, result,
};
use super::state::State;
use super::{Interruption, now_secs};

/// What a phone's signature of a device begins with.
const DEVICE_IDENTITY_PREFIX: [u8; 2] = [6, 0];

/// A sealed key bundle: 32 bytes of salt, 12 of nonce, then the ciphertext.
const SALT: std::ops::Range<usize> = 0..32;
const NONCE: std::ops::Range<usize> = 32..44;

/// Of the opened bundle: two public keys, then the random part of the secret.
const BUNDLE_SECRET: std::ops::Range<usize> = 64..96;

type Registration = wa::client_payload::DevicePairingRegistrationData;

/// A client that wants to become somebody's device.
pub struct Linking {
    registration: Registration,
    noise_key: Vec<u8>,
    refs: Vec<String>,
    /// Names the request for a pairing code.
    pub code_reference: String,
    code: Option<CodeLinking>,
    pub prologue: Option<Prologue>,
    /// Set when a phone has signed: who the device is about to be.
    promised: Option<DeviceAddress>,
}

/// A client that has shown a pairing code.
struct CodeLinking {
    phone: String,
    /// The client's ephemeral key, encrypted with the code.
    sealed_key: Vec<u8>,
    /// Our ephemeral pair and the client's key, once the person has typed the code.
    keys: Option<(KeyPair, [u8; 32])>,
}

impl Linking {
    pub fn new(connection: u64, qr_codes: usize, registration: Registration, noise_key: Vec<u8>) -> Self {
        let refs = (0..qr_codes).map(|number| format!("2@loopback{connection}-{number}")).collect();
        let code_reference = format!("2@loopback{connection}-code");
        Self { registration, noise_key, refs, code_reference, code: None, prologue: None, promised: None }
    }
}

impl State {
    pub fn offer_linking(&mut self, connection: u64) -> Result<()> {
        let id = self.stanza_id("pair-device");
        let refs = &self.linking_mut(connection)?.refs;
        let refs: Vec<Node> =
            refs.iter().map(|text| NodeBuilder::new("ref").bytes(text.as_bytes().to_vec()).build()).collect();
        let offer = NodeBuilder::new("pair-device").children(refs).build();
        self.send(connection, set_request(id).children([offer]).build());
        Ok(())
    }

    /// The phone scans what a client shows: `ref,noise key,identity key,secret,…`.
    pub fn scan_qr(&mut self, phone: &str, qr: &str) -> Result<()> {
        let fields: Vec<&str> = qr.rsplit('#').next().unwrap_or(qr).split(',').collect();
        ensure!(fields.len() >= 4, "Failed to read the QR code {qr:?}");
        let key = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
        let (noise_key, identity, secret) = (key(fields[1])?, key(fields[2])?, key(fields[3])?);
        let connections: Vec<u64> = self.connections.keys().copied().collect();
        let shown = connections.into_iter().find(|connection| {
            self.linking_mut(*connection)
                .is_ok_and(|linking| linking.refs.iter().any(|text| text == fields[0]))
        });
        let connection = shown.context("Nobody connected shows this QR code")?;
        ensure!(self.linking_mut(connection)?.noise_key == noise_key, "The QR code names another Noise key");
        if self.link_options.passkeys.contains_key(phone) {
            return self.ask_for_passkey(connection, phone);
        }
        self.sign(connection, phone, &identity, &secret)
    }

    /// The connection of the client that shows a pairing code for this phone.
    pub fn showing_code(&mut self, phone: &str) -> Result<u64> {
        let connections: Vec<u64> = self.connections.keys().copied().collect();
        let shown = connections.into_iter().find(|connection| {
            let linking = self.linking_mut(*connection).ok();
            linking.and_then(|linking| linking.code.as_ref()).is_some_and(|code| code.phone == phone)
        });
        shown.context("Nobody connected has asked this phone for a code")
    }

    /// The person types the code that a client shows.
    pub fn enter_code(&mut self, phone: &str, code: &str) -> Result<()> {
        let identity = self.account(phone)?.key.public_key.public_key_bytes().to_vec();
        let id = self.stanza_id("link-code");
        let connection = self.showing_code(phone)?;
        let linking = self.linking_mut(connection)?;
        let asked = linking.code.as_mut().context("Nobody has asked for a code")?;
        let theirs = PairCodeUtils::decrypt_primary_ephemeral_pub(&asked.sealed_key, code);
        let theirs = theirs.map_err(|error| anyhow!("Failed to read the client's key: {error}"))?;
        let ours = generate_curve_key_pair();
        let sealed =
            PairCodeUtils::encrypt_ephemeral_pub(ours.public_key.public_key_bytes().try_into()?, code);
        asked.keys = Some((ours, theirs));
        let reference = linking.code_reference.as_bytes().to_vec();
        let hello = NodeBuilder::new("link_code_companion_reg").attr("stage", "primary_hello").children([
            NodeBuilder::new("link_code_pairing_wrapped_primary_ephemeral_pub")
                .bytes(sealed.to_vec())
                .build(),
            NodeBuilder::new("primary_identity_pub").bytes(identity).build(),
            NodeBuilder::new("link_code_pairing_ref").bytes(reference).build(),
        ]);
        let notification = NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", "link_code_companion_reg")
            .attr("id", id)
            .attr("t", now_secs())
            .children([hello.build()]);
        self.send(connection, notification.build());
        Ok(())
    }

    /// A client's part of linking by code.
    pub fn on_link_code(&mut self, connection: u64, request: &Node) -> Result<()> {
        let stage = child(request, "link_code_companion_reg").context("There is no stage")?;
        if required(stage, "stage")? == "companion_hello" {
            let phone = required_jid(stage, "jid")?.user.to_string();
            if let Some(code) = self.link_options.code_refusal(&phone) {
                self.send(connection, error(request, code, reason(code)));
                return Ok(());
            }
            let linking = self.linking_mut(connection)?;
            linking.code = Some(CodeLinking {
                phone,
                sealed_key: child_bytes(stage, "link_code_pairing_wrapped_companion_ephemeral_pub")?,
                keys: None,
            });
            let reference = linking.code_reference.as_bytes().to_vec();
            let reference = NodeBuilder::new("link_code_pairing_ref").bytes(reference).build();
            let answer = NodeBuilder::new("link_code_companion_reg").children([reference]).build();
            self.send(connection, result(request, vec![answer]));
            return Ok(());
        }
        let code = self.linking_mut(connection)?.code.take().context("The client has shown no code")?;
        let (ours, theirs) = code.keys.context("Nobody has typed the code")?;
        self.send(connection, result(request, Vec::new()));
        let identity = child_bytes(stage, "companion_identity_public")?;
        let sealed = child_bytes(stage, "link_code_pairing_wrapped_key_bundle")?;
        let account = &self.account(&code.phone)?.key;
        let secret = agree_on_secret(account, &ours, &theirs, &identity, &sealed)?;
        self.sign(connection, &code.phone, &identity, &secret)
    }

    /// The phone signs the client's identity key, and the server brings it the proof.
    pub fn sign(&mut self, connection: u64, phone: &str, identity: &[u8], secret: &[u8]) -> Result<()> {
        let id = self.stanza_id("pair-success");
        let secret = if self.link_options.forging.remove(phone) { &[][..] } else { secret };
        let account = self.account(phone)?;
        let device = account.devices.keys().next_back().map_or(1, |last| last + 1);
        let details = wa::ADVDeviceIdentity {
            raw_id: Some(1),
            timestamp: Some(now_secs()),
            key_index: Some(u32::from(device)),
            ..Default::default()
        }
        .encode_to_vec();
        let signed = [&DEVICE_IDENTITY_PREFIX[..], &details, identity].concat();
        let signature = calculate_curve_signature(&account.key.private_key, &signed)?;
        let proof = wa::ADVSignedDeviceIdentity {
            details: Some(details),
            account_signature_key: Some(account.key.public_key.public_key_bytes().to_vec()),
            account_signature: Some(signature.to_vec()),
            device_signature: None,
        }
        .encode_to_vec();
        let sealed = wa::ADVSignedDeviceIdentityHMAC {
            hmac: Some(hmac_sha256(secret, &proof).to_vec()),
            details: Some(proof),
            ..Default::default()
        }
        .encode_to_vec();
        let promised = DeviceAddress { phone: phone.to_owned(), device };
        let success = NodeBuilder::new("pair-success").children([
            NodeBuilder::new("device-identity").bytes(sealed).build(),
            NodeBuilder::new("device")
                .attr("jid", by_phone(&promised))
                .attr("lid", jid(&account.lid, device, "lid"))
                .build(),
            NodeBuilder::new("platform").attr("name", "android").build(),
            NodeBuilder::new("biz").attr("name", account.name.clone()).build(),
        ]);
        let request = set_request(id).attr("t", now_secs()).children([success.build()]).build();
        self.linking_mut(connection)?.promised = Some(promised);
        self.send(connection, request);
        Ok(())
    }

    /// The client has signed too: it is a device from now on, and shall come back as one.
    pub fn on_signed(&mut self, connection: u64, signed: &Node) -> Result<()> {
        let proof = child_bytes(signed, "device-identity")?;
        let linking = self.linking_mut(connection)?;
        let address = linking.promised.take().context("No phone has signed for this client")?;
        let keys = DeviceKeys::of(&linking.registration);
        let devices = &mut self.account_mut(&address.phone)?.devices;
        devices.insert(address.device, Device::new(keys, proof));
        self.announce_device(&address)?;
        self.send(connection, Interruption::Restart.stanza());
        self.close(connection);
        Ok(())
    }
}

impl State {
    /// Everybody's devices learn that there is one more to write to.
    fn announce_device(&mut self, new: &DeviceAddress) -> Result<()> {
        let account = self.account(&new.phone)?;
        let (lid, list) = (account.lid.clone(), account.signed_device_list()?);
        let device = NodeBuilder::new("device").attr("jid", by_phone(new)).attr("key-index", new.device);
        let add = NodeBuilder::new("add").children([device.build(), list]).build();
        for other in self.linked_devices().into_iter().filter(|other| other != new) {
            let notification = NodeBuilder::new("notification")
                .attr("from", jid(&new.phone, 0, SERVER))
                .attr("lid", jid(&lid, 0, "lid"))
                .attr("type", "devices")
                .attr("id", self.stanza_id("devices"))
                .attr("t", now_secs());
            self.deliver(&other, notification.children([add.clone()]).build())?;
        }
        Ok(())
    }
}

/// The secret that both sides of a pairing code arrive at.
fn agree_on_secret(
    account: &KeyPair,
    ours: &KeyPair,
    theirs: &[u8; 32],
    identity: &[u8],
    sealed: &[u8],
) -> Result<[u8; 32]> {
    let failed = |what: &str| anyhow!("Failed to {what} while linking by code");
    let agree = |with: &KeyPair, key: &[u8]| {
        let key = PublicKey::from_djb_public_key_bytes(key).map_err(|_| failed("read a key"))?;
        with.private_key.calculate_agreement(&key).map_err(|_| failed("agree on a key"))
    };
    ensure!(sealed.len() > NONCE.end, "The sealed bundle has {} bytes", sealed.len());
    let shared = agree(ours, theirs)?;
    let label = b"link_code_pairing_key_bundle_encryption_key";
    let mut key = [0; 32];
    hkdf_sha256_into(&shared, Some(&sealed[SALT]), label, &mut key).map_err(|_| failed("derive a key"))?;
    let nonce: [u8; 12] = sealed[NONCE].try_into()?;
    let mut bundle = Vec::new();
    aes_256_gcm_decrypt(&key, &nonce, b"", &sealed[NONCE.end..], &mut bundle)
        .map_err(|_| failed("open the bundle"))?;
    ensure!(bundle.len() >= BUNDLE_SECRET.end, "The bundle has {} bytes", bundle.len());
    let parts = [&shared[..], &agree(account, identity)?[..], &bundle[BUNDLE_SECRET]].concat();
    let mut secret = [0; 32];
    hkdf_sha256_into(&parts, None, b"adv_secret", &mut secret).map_err(|_| failed("derive the secret"))?;
    Ok(secret)
}

fn set_request(id: String) -> NodeBuilder {
    NodeBuilder::new("iq").attr("from", SERVER).attr("type", "set").attr("id", id).attr("xmlns", "md")
}

/// What the server says beside the code of a refused pairing code; the client believes only both.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "bad-request",
        403 => "forbidden",
        429 => "rate-overlimit",
        452 => "feature-not-available",
        _ => "internal-server-error",
    }
}
