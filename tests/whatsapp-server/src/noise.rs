//! The server's half of the Noise handshakes, XX for a first meeting and IK for a second, and the encrypted
//! stanzas after it.
//!
//! The certificate is signed by nobody: the client under test is built with the feature that accepts that.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::bytes::{Bytes, BytesMut};
use whatsapp_rust::wacore::crypto::generate_curve_key_pair;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore::noise::{NoiseCipher, NoiseHandshake, framing};
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::wacore_binary::consts::{NOISE_PATTERN_IK, NOISE_PATTERN_XX, WA_CONN_HEADER};
use whatsapp_rust::wacore_binary::marshal::{marshal, unmarshal_ref};
use whatsapp_rust::wacore_binary::util::unpack;
use whatsapp_rust::waproto::{codec, whatsapp as wa};

/// The largest stanza of a login is its upload of 812 keys, some 40 KB.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// From 2023 to 2033, in seconds: the client looks at neither end, only that both are there.
const CERTIFICATE_VALID: (u64, u64) = (1_700_000_000, 1_990_000_000);

const GARBAGE: [u8; 64] = [0xA5; 64];

/// Which of the two handshakes a client has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// XX: it had to look at the server's certificate.
    First,
    /// IK: it knew the server's key, so that any certificate will do.
    Again,
}

/// What a client says of itself within the handshake.
pub struct Greeting {
    /// Its Noise key, which a QR code names.
    pub noise_key: Vec<u8>,
    pub handshake: Handshake,
    pub payload: wa::ClientPayload,
}

/// A connection of which both sides hold the keys.
pub struct Channel {
    frames: Frames,
    from_client: NoiseCipher,
    to_client: NoiseCipher,
    received: u32,
    sent: u32,
}

/// Length-prefixed frames, however the WebSocket's messages cut them.
struct Frames {
    socket: WebSocketStream<TcpStream>,
    decoder: framing::FrameDecoder,
}

/// Accepts the WebSocket and performs the handshake that the client has chosen.
pub async fn accept(stream: TcpStream, server_key: &KeyPair) -> Result<(Channel, Greeting)> {
    let limits = Limits::default().max_payload_len(Some(MESSAGE_MAX));
    let (_request, socket) = ServerBuilder::new().limits(limits).accept(stream).await?;
    let mut frames = Frames { socket, decoder: framing::FrameDecoder::new() };
    frames.read_header().await?;
    let hello = codec::handshake_message_decode(&frames.next().await?)?;
    let hello = hello.client_hello.into_option().context("The client did not say hello")?;
    let client_ephemeral = hello.ephemeral.context("The hello has no ephemeral key")?;

    let handshake = if hello.r#static.is_some() { Handshake::Again } else { Handshake::First };
    let (noise, noise_key, payload) = match (hello.r#static, hello.payload) {
        (Some(key), Some(payload)) => {
            answer_known(&mut frames, server_key, &client_ephemeral, &key, &payload).await?
        }
        _ => answer_stranger(&mut frames, server_key, &client_ephemeral).await?,
    };
    // The client's first key is the one that it writes with.
    let (from_client, to_client) = noise.finish()?;
    let payload = wa::ClientPayload::decode_from_slice(&payload[..])?;
    let channel = Channel { frames, from_client, to_client, received: 0, sent: 0 };
    Ok((channel, Greeting { noise_key, handshake, payload }))
}

/// IK: the client knows our key, and sends its own with the first message.
async fn answer_known(
    frames: &mut Frames,
    server_key: &KeyPair,
    client_ephemeral: &[u8],
    sealed_key: &[u8],
    sealed_payload: &[u8],
) -> Result<(NoiseHandshake, Vec<u8>, Vec<u8>)> {
    let secret = server_key.private_key.serialize();
    let ephemeral = generate_curve_key_pair();
    let mut noise = NoiseHandshake::new(NOISE_PATTERN_IK, &WA_CONN_HEADER)?;
    noise.authenticate(server_key.public_key.public_key_bytes());
    noise.authenticate(client_ephemeral);
    noise.mix_shared_secret(secret, client_ephemeral)?;
    let client_key = noise.decrypt(sealed_key)?;
    noise.mix_shared_secret(secret, &client_key)?;
    let payload = noise.decrypt(sealed_payload)?;
    noise.authenticate(ephemeral.public_key.public_key_bytes());
    noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
    noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
    let certificate = noise.encrypt(&certificate(server_key))?;
    frames.say_hello(&ephemeral, None, certificate).await?;
    Ok((noise, client_key, payload))
}

/// XX: neither side knows the other's key.
async fn answer_stranger(
    frames: &mut Frames,
    server_key: &KeyPair,
    client_ephemeral: &[u8],
) -> Result<(NoiseHandshake, Vec<u8>, Vec<u8>)> {
    let ephemeral = generate_curve_key_pair();
    let mut noise = NoiseHandshake::new(NOISE_PATTERN_XX, &WA_CONN_HEADER)?;
    noise.authenticate(client_ephemeral);
    noise.authenticate(ephemeral.public_key.public_key_bytes());
    noise.mix_shared_secret(ephemeral.private_key.serialize(), client_ephemeral)?;
    let sealed_key = noise.encrypt(server_key.public_key.public_key_bytes())?;
    noise.mix_shared_secret(server_key.private_key.serialize(), client_ephemeral)?;
    let certificate = noise.encrypt(&certificate(server_key))?;
    frames.say_hello(&ephemeral, Some(sealed_key), certificate).await?;

    let finish = codec::handshake_message_decode(&frames.next().await?)?;
    let finish = finish.client_finish.into_option().context("The client did not finish")?;
    let client_key = noise.decrypt(&finish.r#static.context("The client showed no key")?)?;
    noise.mix_shared_secret(ephemeral.private_key.serialize(), &client_key)?;
    let payload = noise.decrypt(&finish.payload.context("The client said nothing of itself")?)?;
    Ok((noise, client_key, payload))
}

fn certificate(server_key: &KeyPair) -> Vec<u8> {
    use wa::cert_chain::noise_certificate::Details;
    let certificate = |serial: u32, issuer: u32, key: Vec<u8>| {
        let details = Details {
            serial: Some(serial),
            issuer_serial: Some(issuer),
            key: Some(key),
            not_before: Some(CERTIFICATE_VALID.0),
            not_after: Some(CERTIFICATE_VALID.1),
        };
        wa::cert_chain::NoiseCertificate {
            details: Some(details.encode_to_vec()),
            signature: Some(vec![0; 64]),
        }
    };
    let leaf = certificate(2, 1, server_key.public_key.public_key_bytes().to_vec());
    let intermediate = certificate(1, 0, vec![0xCC; 32]);
    wa::CertChain { leaf: MessageField::some(leaf), intermediate: MessageField::some(intermediate) }
        .encode_to_vec()
}

impl Channel {
    /// The next stanza of the client; an error when it has gone. May be dropped while waiting.
    pub async fn receive(&mut self) -> Result<Node> {
        let mut sealed = self.frames.next().await?.to_vec();
        self.from_client.decrypt_in_place_with_counter(self.received, &mut sealed)?;
        self.received += 1;
        let packed = unpack(&sealed)?;
        Ok(unmarshal_ref(&packed)?.to_owned())
    }

    pub async fn send(&mut self, stanza: &Node) -> Result<()> {
        let mut plain = marshal(stanza)?;
        self.to_client.encrypt_in_place_with_counter(self.sent, &mut plain)?;
        self.sent += 1;
        self.frames.send(&plain).await
    }

    /// A frame that no key opens, and one that opens to no stanza.
    pub async fn send_garbage(&mut self) -> Result<()> {
        self.sent += 1;
        self.frames.send(&GARBAGE).await?;
        let mut sealed = GARBAGE.to_vec();
        self.to_client.encrypt_in_place_with_counter(self.sent, &mut sealed)?;
        self.sent += 1;
        self.frames.send(&sealed).await
    }

    /// Says goodbye to a client that may be gone already.
    pub async fn close(mut self) {
        self.frames.socket.close().await.ok();
    }
}

impl Frames {
    /// The first message carries the protocol's header before its first frame.
    async fn read_header(&mut self) -> Result<()> {
        let first = self.message().await?;
        let frames = first.strip_prefix(&WA_CONN_HEADER[..]).context("The client sent another header")?;
        self.decoder.feed(frames);
        Ok(())
    }

    async fn say_hello(
        &mut self,
        ephemeral: &KeyPair,
        sealed_key: Option<Vec<u8>>,
        certificate: Vec<u8>,
    ) -> Result<()> {
        let hello = wa::handshake_message::ServerHello {
            ephemeral: Some(ephemeral.public_key.public_key_bytes().to_vec()),
            r#static: sealed_key,
            payload: Some(certificate),
            ..Default::default()
        };
        let message = wa::HandshakeMessage { server_hello: MessageField::some(hello), ..Default::default() };
        self.send(&codec::handshake_message_to_vec(&message)).await
    }

    async fn next(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(frame) = self.decoder.decode_frame() {
                return Ok(frame);
            }
            let message = self.message().await?;
            self.decoder.feed(&message);
        }
    }

    async fn message(&mut self) -> Result<Bytes> {
        loop {
            let message = self.socket.next().await.context("The client is gone")??;
            if message.is_binary() {
                return Ok(Bytes::from(message.into_payload()));
            } else if message.is_close() {
                bail!("The client has closed the connection");
            }
        }
    }

    async fn send(&mut self, frame: &[u8]) -> Result<()> {
        let frame = framing::encode_frame(frame, None)?;
        self.socket.send(Message::binary(Bytes::from(frame))).await?;
        Ok(())
    }
}
