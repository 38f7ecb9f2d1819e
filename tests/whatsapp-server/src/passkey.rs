//! Linking an account that wants a passkey: what WhatsApp calls a prologue.
//!
//! ```text
//! the phone scans ─► the server asks for a passkey's answer ─► the client sends it, bound to a key of its own
//!   ─► the phone sends its key ─► the client its nonce ─► both show a code ─► the client sends its new secret
//!   ─► the person says on the phone that the codes are the same ─► the phone signs, as without a passkey
//! ```
//!
//! The server takes any answer that carries its challenge: it holds no passkey's public key.

use anyhow::{Context, Result, anyhow, bail, ensure};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::wacore::crypto::generate_curve_key_pair;
use whatsapp_rust::wacore::libsignal::crypto::aes_256_gcm_decrypt;
use whatsapp_rust::wacore::libsignal::protocol::{KeyPair, PublicKey};
use whatsapp_rust::wacore::shortcake::ShortcakeUtils;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::waproto::whatsapp as wa;

use super::link_options::Passkeys;
use super::stanza::{SERVER, attr, bytes, child_bytes, children, error, result};
use super::state::State;
use super::{Server, now_secs};

/// In base64, as the answer repeats it within its client data.
const CHALLENGE: &str = "bG9vcGJhY2sgY2hhbGxlbmdl";

/// What the phone adds to the code: any 32 bytes.
const PHONE_NONCE: [u8; 32] = [3; 32];

/// Another companion's answer would be refused with this.
const NOT_AUTHORIZED: u16 = 401;

/// A linking that a passkey has part in.
pub struct Prologue {
    phone: String,
    reference: String,
    keys: KeyPair,
    companion: Option<wa::CompanionEphemeralIdentity>,
    /// Of the companion's identity and nonce.
    commitment: Vec<u8>,
    identity: Vec<u8>,
    code: Option<String>,
    secret: Option<CompanionSecret>,
    /// The person has compared the codes.
    confirmed: bool,
    /// The ping whose answer shows that the client has taken its new secret.
    ping: Option<String>,
}

/// What the client sends at the end.
struct CompanionSecret {
    identity: Vec<u8>,
    secret: Vec<u8>,
}

impl Server {
    /// What a browser would be asked for, as JSON.
    pub fn passkey_challenge(&self) -> &'static str {
        CHALLENGE
    }

    /// The person says on their phone that it shows the same code as the client.
    pub fn confirm_passkey_code(&self, phone: &str, code: &str) -> Result<()> {
        self.shared.change(|state| state.confirm_passkey_code(phone, code))
    }

    /// The person says on their phone that they link nothing. Works once the client has sent its passkey's
    /// answer.
    pub fn decline_passkey(&self, phone: &str) -> Result<()> {
        self.shared.change(|state| {
            let connection = state.in_prologue(phone)?;
            let notification = state.passkey_notification("crsc_continuation").build();
            state.send(connection, notification);
            Ok(())
        })
    }

    pub async fn wait_for_passkey_answer(&self, phone: &str) {
        self.wait_until("a passkey's answer", |state| {
            let prologues = state.connections.values().filter_map(|connection| connection.prologue());
            prologues.into_iter().any(|prologue| prologue.phone == phone && prologue.companion.is_some())
        })
        .await;
    }
}

impl State {
    /// The phone has scanned, and the account wants more than that.
    pub fn ask_for_passkey(&mut self, connection: u64, phone: &str) -> Result<()> {
        let prologue = Prologue {
            phone: phone.to_owned(),
            reference: format!("2@loopback{connection}-passkey"),
            keys: generate_curve_key_pair(),
            companion: None,
            commitment: Vec::new(),
            identity: Vec::new(),
            code: None,
            secret: None,
            confirmed: false,
            ping: None,
        };
        self.linking_mut(connection)?.prologue = Some(prologue);
        let options = serde_json::json!({
            "challenge": CHALLENGE,
            "rpId": "web.whatsapp.com",
            "allowCredentials": [{ "type": "public-key", "id": "a2V5" }],
            "userVerification": "required",
            "timeout": 60_000,
        });
        let options = NodeBuilder::new("passkey_request_options").bytes(options.to_string().into_bytes());
        let notification = self.passkey_notification("passkey_prologue_request");
        self.send(connection, notification.children([options.build()]).build());
        Ok(())
    }

    /// A request of a client that is not linked yet.
    pub fn on_prologue(&mut self, connection: u64, request: &Node) -> Result<()> {
        let Some(step) = children(request).first() else { bail!("The request is empty") };
        let Some(prologue) = &mut self.linking_mut(connection)?.prologue else {
            self.not_understood(request);
            return Ok(());
        };
        let mut answer = Vec::new();
        let mut phone_speaks = false;
        match &*step.tag {
            "ref" => {
                answer.push(NodeBuilder::new("ref").bytes(prologue.reference.clone().into_bytes()).build())
            }
            "passkey_prologue" => {
                let phone = prologue.phone.clone();
                prologue.take_answer(step)?;
                if self.link_options.passkeys.get(&phone) == Some(&Passkeys::Refused) {
                    self.send(connection, error(request, NOT_AUTHORIZED, "not-authorized"));
                    return Ok(());
                }
                phone_speaks = true;
            }
            "companion_nonce" => prologue.take_nonce(&bytes(step))?,
            "encrypted_pairing_request" => prologue.take_secret(&bytes(step))?,
            _ => {
                self.not_understood(request);
                return Ok(());
            }
        }
        self.send(connection, result(request, answer));
        if phone_speaks {
            self.introduce_phone(connection)?;
        }
        self.finish_prologue(connection)
    }

    /// The client answered a ping: it has worked off what came before.
    pub fn on_pong(&mut self, connection: u64, pong: &Node) -> Result<()> {
        let id = attr(pong, "id");
        let Some(prologue) = self.linking_mut(connection).ok().and_then(|linking| linking.prologue.as_mut())
        else {
            return Ok(());
        };
        if prologue.ping.is_none() || prologue.ping != id {
            return Ok(());
        }
        let phone = prologue.phone.clone();
        let CompanionSecret { identity, secret } = prologue.secret.take().context("There is no secret")?;
        self.sign(connection, &phone, &identity, &secret)
    }

    fn introduce_phone(&mut self, connection: u64) -> Result<()> {
        let Some(prologue) = &self.linking_mut(connection)?.prologue else { bail!("Nobody links") };
        let identity = wa::PrimaryEphemeralIdentity {
            public_key: Some(prologue.keys.public_key.public_key_bytes().to_vec()),
            nonce: Some(PHONE_NONCE.to_vec()),
        };
        let identity = NodeBuilder::new("primary_ephemeral_identity").bytes(identity.encode_to_vec());
        let notification = self.passkey_notification("crsc_continuation").children([identity.build()]);
        self.send(connection, notification.build());
        Ok(())
    }

    fn confirm_passkey_code(&mut self, phone: &str, code: &str) -> Result<()> {
        let connection = self.in_prologue(phone)?;
        let Some(prologue) = &mut self.linking_mut(connection)?.prologue else { bail!("Nobody links") };
        let shown = prologue.code.clone().context("The phone shows no code yet")?;
        let typed: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
        ensure!(shown == typed, "The phone shows {shown}, not {typed}");
        prologue.confirmed = true;
        self.finish_prologue(connection)
    }

    /// The client keeps its new secret only when it sees our answer: it is pinged behind that, before it is
    /// proven.
    fn finish_prologue(&mut self, connection: u64) -> Result<()> {
        let id = self.stanza_id("ping");
        let Some(prologue) = &mut self.linking_mut(connection)?.prologue else { return Ok(()) };
        if prologue.confirmed && prologue.secret.is_some() && prologue.ping.is_none() {
            prologue.ping = Some(id.clone());
            let ping = NodeBuilder::new("iq").attr("from", SERVER).attr("type", "get");
            self.send(connection, ping.attr("xmlns", "urn:xmpp:ping").attr("id", id).build());
        }
        Ok(())
    }

    fn in_prologue(&self, phone: &str) -> Result<u64> {
        let found = self
            .connections
            .iter()
            .find(|(_, connection)| connection.prologue().is_some_and(|prologue| prologue.phone == phone));
        Ok(*found.context("Nobody links this phone with a passkey")?.0)
    }

    fn passkey_notification(&mut self, kind: &'static str) -> NodeBuilder {
        NodeBuilder::new("notification")
            .attr("from", SERVER)
            .attr("type", kind)
            .attr("id", self.stanza_id("passkey"))
            .attr("t", now_secs())
    }
}

impl Prologue {
    /// The passkey's answer, and what the client binds itself to.
    fn take_answer(&mut self, answer: &Node) -> Result<()> {
        let assertion: serde_json::Value =
            serde_json::from_slice(&child_bytes(answer, "webauthn_assertion")?)
                .context("Failed to read the passkey's answer")?;
        ensure!(assertion["response"]["signature"].is_string(), "The passkey has signed nothing");
        ensure!(!child_bytes(answer, "credential_id")?.is_empty(), "The passkey has no name");
        let payload = wa::ProloguePayload::decode_from_slice(&child_bytes(answer, "prologue_payload")?)?;
        self.identity = payload.companion_ephemeral_identity.context("There is no companion")?;
        let commitment = payload.commitment.into_option().and_then(|commitment| commitment.hash);
        self.commitment = commitment.context("The companion is bound to nothing")?;
        self.companion = Some(wa::CompanionEphemeralIdentity::decode_from_slice(&self.identity)?);
        Ok(())
    }

    fn take_nonce(&mut self, nonce: &[u8]) -> Result<()> {
        let nonce: [u8; 32] = nonce.try_into()?;
        let kept = ShortcakeUtils::commitment_hash(&self.identity, &nonce)[..] == self.commitment[..];
        ensure!(kept, "The nonce is not the one that the client was bound to");
        let ours: [u8; 32] = self.keys.public_key.public_key_bytes().try_into()?;
        self.code = Some(ShortcakeUtils::derive_verification_code(&nonce, &ours, &PHONE_NONCE));
        Ok(())
    }

    fn take_secret(&mut self, sealed: &[u8]) -> Result<()> {
        let failed = |what: &str| anyhow!("Failed to {what} while linking with a passkey");
        let companion = self.companion.as_ref().context("There is no companion")?;
        let theirs: [u8; 32] = companion
            .public_key
            .as_deref()
            .unwrap_or_default()
            .try_into()
            .map_err(|_| failed("read a key"))?;
        let theirs = PublicKey::from_djb_public_key_bytes(&theirs).map_err(|_| failed("read a key"))?;
        let shared = self.keys.private_key.calculate_agreement(&theirs).map_err(|_| failed("agree"))?;
        let kind = companion.device_type.context("The companion does not say what it is")?;
        let key = ShortcakeUtils::derive_encryption_key_from_shared_secret(&shared, kind, &self.reference)?;
        let sealed = wa::EncryptedPairingRequest::decode_from_slice(sealed)?;
        let iv: [u8; 12] =
            sealed.iv.as_deref().unwrap_or_default().try_into().map_err(|_| failed("read the nonce"))?;
        let mut plain = Vec::new();
        aes_256_gcm_decrypt(
            &key,
            &iv,
            b"",
            sealed.encrypted_payload.as_deref().unwrap_or_default(),
            &mut plain,
        )
        .map_err(|_| failed("open the secret"))?;
        let request = wa::PairingRequest::decode_from_slice(&plain[..])?;
        self.secret = Some(CompanionSecret {
            identity: request.companion_identity_key.context("The companion has no identity")?,
            secret: request.adv_secret.context("The companion has no secret")?,
        });
        Ok(())
    }
}
