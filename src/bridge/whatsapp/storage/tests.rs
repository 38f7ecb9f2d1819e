//! Two people's real keys: what one writes the other decrypts in any order, and what is on disk never moves
//! past it.

use std::sync::Arc;
use std::time::Duration;

use async_lock::RwLock;
use proptest::prelude::*;
use tokio::time::timeout;
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::prelude::{Jid, SqliteStore};
use whatsapp_rust::store::Device as SignalDevice;
use whatsapp_rust::store::signal_adapter::SignalProtocolStoreAdapter;
use whatsapp_rust::store::signal_cache::SignalStoreCache;
use whatsapp_rust::wacore::crypto::calculate_curve_signature;
use whatsapp_rust::wacore::libsignal::protocol::{
    CiphertextMessage, IdentityKey, PreKeyBundle, PreKeySignalMessage, ProtocolAddress, SignalMessage,
    UsePQRatchet, create_sender_key_distribution_message, group_decrypt, group_encrypt, message_decrypt,
    message_encrypt, process_prekey_bundle, process_sender_key_distribution_message,
};
use whatsapp_rust::wacore::libsignal::store::sender_key_name::SenderKeyName;
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::store::traits::{ProtocolStore as _, SignalStore};
use whatsapp_rust::wacore_binary::Node;

use super::*;
use crate::bridge::channels::Batch;
use crate::types::{ChatId, Event, MessageId};

const ANNA: &str = "15550001111@s.whatsapp.net";
const KAI: &str = "15550002222@s.whatsapp.net";
const FAMILY: &str = "120363000000000001@g.us";
/// Longer than what is ready is ever held up.
const SOON: Duration = Duration::from_millis(100);

fn random() -> rand_for_keys::rngs::StdRng {
    rand_for_keys::make_rng()
}

/// Somebody's keys.
struct TestPerson {
    address: ProtocolAddress,
    device: SignalDevice,
    cache: Arc<SignalStoreCache>,
    signal: SignalProtocolStoreAdapter,
}

impl TestPerson {
    fn new(jid: &str) -> Self {
        let (user, server) = jid.split_once('@').unwrap();
        let device = SignalDevice::new(Arc::new(InMemoryBackend::new()));
        let cache = Arc::new(SignalStoreCache::new());
        let signal = SignalProtocolStoreAdapter::new(Arc::new(RwLock::new(device.clone())), cache.clone());
        Self { address: ProtocolAddress::new(&format!("{user}@{server}"), 0.into()), device, cache, signal }
    }

    async fn meet(&mut self, other: &TestPerson) {
        let core = &other.device.core;
        let signed = core.signed_pre_key.public_key;
        let signature =
            calculate_curve_signature(&core.identity_key.private_key, &signed.serialize()).unwrap().to_vec();
        let bundle = PreKeyBundle::new(
            core.registration_id,
            0.into(),
            None,
            core.signed_pre_key_id.into(),
            signed,
            signature,
            IdentityKey::new(core.identity_key.public_key),
        );
        process_prekey_bundle(
            &other.address,
            &mut self.signal.session_store,
            &mut self.signal.identity_store,
            &bundle.unwrap(),
            &mut random(),
            UsePQRatchet::No,
        )
        .await
        .unwrap();
    }

    async fn write(&mut self, to: &TestPerson, id: &str) -> SealedMessage {
        let sealed = message_encrypt(
            b"hello",
            &to.address,
            &mut self.signal.session_store,
            &mut self.signal.identity_store,
        );
        let (kind, bytes) = match sealed.await.unwrap() {
            CiphertextMessage::PreKeySignalMessage(sealed) => ("pkmsg", sealed.serialized().to_vec()),
            CiphertextMessage::SignalMessage(sealed) => ("msg", sealed.serialized().to_vec()),
            CiphertextMessage::SenderKeyMessage(_) | CiphertextMessage::PlaintextContent(_) => unreachable!(),
        };
        SealedMessage { id: id.to_owned(), kind, bytes }
    }

    async fn read(&mut self, from: &TestPerson, sealed_message: &SealedMessage) {
        let bytes = &sealed_message.bytes[..];
        let sealed = match sealed_message.kind {
            "pkmsg" => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(bytes).unwrap()),
            _ => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes).unwrap()),
        };
        message_decrypt(
            &sealed,
            &from.address,
            &mut self.signal.session_store,
            &mut self.signal.identity_store,
            &mut self.signal.pre_key_store,
            &self.signal.signed_pre_key_store,
            &mut random(),
            UsePQRatchet::No,
        )
        .await
        .unwrap();
    }

    async fn write_to_family(&mut self, id: &str) -> SealedMessage {
        let name = SenderKeyName::from_parts(FAMILY, self.address.as_str());
        let store = &mut self.signal.sender_key_store;
        let sealed = group_encrypt(store, &name, b"hello", &mut random()).await.unwrap();
        SealedMessage { id: id.to_owned(), kind: "skmsg", bytes: sealed.serialized().to_vec() }
    }

    async fn read_in_family(&mut self, from: &TestPerson, sealed_message: &SealedMessage) {
        let name = SenderKeyName::from_parts(FAMILY, from.address.as_str());
        group_decrypt(&sealed_message.bytes, &mut self.signal.sender_key_store, &name).await.unwrap();
    }

    async fn give_family_key(&mut self, to: &mut TestPerson) {
        let name = SenderKeyName::from_parts(FAMILY, self.address.as_str());
        let store = &mut self.signal.sender_key_store;
        let key = create_sender_key_distribution_message(&name, store, &mut random()).await.unwrap();
        process_sender_key_distribution_message(&name, &key, &mut to.signal.sender_key_store).await.unwrap();
    }
}

/// A message in its envelope.
struct SealedMessage {
    id: String,
    kind: &'static str,
    bytes: Vec<u8>,
}

impl SealedMessage {
    fn stanza(&self) -> Node {
        let sealed =
            NodeBuilder::new("enc").attr("v", "2").attr("type", self.kind).bytes(self.bytes.clone()).build();
        let stanza = NodeBuilder::new("message").attr("id", self.id.as_str()).attr("type", "text");
        let stanza = if self.kind == "skmsg" {
            stanza.attr("from", FAMILY).attr("participant", ANNA)
        } else {
            stanza.attr("from", ANNA)
        };
        stanza.attr("t", "1800000000").children([sealed]).build()
    }

    fn arrival(&self) -> Arrival {
        let chat = if self.kind == "skmsg" { FAMILY } else { ANNA };
        Arrival::new(chat, ANNA, &self.id)
    }

    fn announce(&self, arrivals: &Arrivals) {
        arrivals.register_stanza(&self.stanza().as_node_ref(), &KAI.parse::<Jid>().unwrap(), None, |_| None);
    }
}

/// What the reader would write down now of the author's keys: the session, and the key in the group.
async fn records(reader: &TestPerson, author: &TestPerson) -> (Option<Bytes>, Option<Vec<u8>>) {
    let disk = InMemoryBackend::new();
    reader.cache.flush(&disk).await.unwrap();
    let name = SenderKeyName::from_parts(FAMILY, author.address.as_str());
    let session = disk.get_session(author.address.as_str()).await.unwrap();
    (session, disk.get_sender_key(name.cache_key()).await.unwrap())
}

fn have_moved_past(
    (session, key): &(Option<Bytes>, Option<Vec<u8>>),
    sealed_message: &SealedMessage,
) -> bool {
    let arrivals = Arrivals::default();
    sealed_message.announce(&arrivals);
    arrivals.has_overtaken_any(session.as_deref(), key.as_deref())
}

struct Disk {
    storage: Storage,
    intake: tokio::sync::mpsc::Receiver<Batch>,
    _folder: tempfile::TempDir,
}

impl Disk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = SqliteStore::new(folder.path().join("wa.db").to_str().unwrap()).await.unwrap();
        let (batches, intake) = tokio::sync::mpsc::channel(1);
        let storage = Storage {
            database,
            arrivals: Arrivals::default(),
            fault: StorageFault::default(),
            intake: IntakeSink::new(batches),
        };
        Self { storage, intake, _folder: folder }
    }

    async fn store_row(&self, sealed_message: &SealedMessage) {
        let Arrival { chat, sender, id } = sealed_message.arrival();
        self.storage.store_pending_inbound(&chat, &sender, &id, b"hello").await.unwrap();
    }

    async fn has_session(&self, author: &TestPerson) -> bool {
        self.storage.database.get_session(author.address.as_str()).await.unwrap().is_some()
    }
}

/// Anna has written to Kai, and Kai's library has decrypted it.
async fn decrypted(disk: &Disk) -> (TestPerson, TestPerson, SealedMessage) {
    let (mut anna, mut kai) = (TestPerson::new(ANNA), TestPerson::new(KAI));
    anna.meet(&kai).await;
    let sealed_message = anna.write(&kai, "first").await;
    sealed_message.announce(&disk.storage.arrivals);
    kai.read(&anna, &sealed_message).await;
    (anna, kai, sealed_message)
}

#[tokio::test]
async fn a_session_that_has_moved_past_a_message_waits_for_its_row() {
    let disk = Disk::new().await;
    let (anna, kai, sealed_message) = decrypted(&disk).await;
    let mut flush = Box::pin(kai.cache.flush(&disk.storage));
    assert!(timeout(SOON, &mut flush).await.is_err(), "the row is not there yet");
    assert!(!disk.has_session(&anna).await);
    disk.store_row(&sealed_message).await;
    timeout(SOON, &mut flush).await.expect("the row is there").unwrap();
    assert!(disk.has_session(&anna).await);
}

#[tokio::test]
async fn a_member_s_key_that_has_moved_past_a_message_waits_for_its_row() {
    let disk = Disk::new().await;
    let (mut anna, mut kai) = (TestPerson::new(ANNA), TestPerson::new(KAI));
    anna.give_family_key(&mut kai).await;
    let sealed_message = anna.write_to_family("first").await;
    sealed_message.announce(&disk.storage.arrivals);
    let name = SenderKeyName::from_parts(FAMILY, anna.address.as_str());
    kai.cache.flush(&disk.storage).await.expect("the key as it was given has moved past nothing");
    let given = disk.storage.get_sender_key(name.cache_key()).await.unwrap();
    assert!(given.is_some());

    kai.read_in_family(&anna, &sealed_message).await;
    let mut flush = Box::pin(kai.cache.flush(&disk.storage));
    assert!(timeout(SOON, &mut flush).await.is_err(), "the row is not there yet");
    assert_eq!(disk.storage.get_sender_key(name.cache_key()).await.unwrap(), given);
    disk.store_row(&sealed_message).await;
    timeout(SOON, &mut flush).await.expect("the row is there").unwrap();
    assert_ne!(disk.storage.get_sender_key(name.cache_key()).await.unwrap(), given);
}

#[tokio::test]
async fn what_is_not_decrypted_yet_holds_nothing_up() {
    let disk = Disk::new().await;
    let (mut anna, kai, sealed_message) = decrypted(&disk).await;
    disk.store_row(&sealed_message).await;
    for number in 0..20 {
        anna.write(&kai, &format!("later {number}")).await.announce(&disk.storage.arrivals);
    }
    timeout(SOON, kai.cache.flush(&disk.storage)).await.expect("nothing to wait for").unwrap();
}

#[tokio::test]
async fn a_stanza_without_a_message_is_let_go() {
    let disk = Disk::new().await;
    let (anna, kai, _) = decrypted(&disk).await;
    assert!(kai.cache.flush(&disk.storage).await.is_err(), "the library is to go on in between");
    assert!(!disk.has_session(&anna).await);
    kai.cache.flush(&disk.storage).await.unwrap();
    assert!(disk.has_session(&anna).await);
    assert!(!disk.storage.fault.has_happened(), "waiting is no failure of the disk");
}

#[tokio::test]
async fn what_comes_a_second_time_is_let_go_when_the_library_asks_for_its_row() {
    let disk = Disk::new().await;
    let (_, kai, sealed_message) = decrypted(&disk).await;
    let Arrival { chat, sender, id } = sealed_message.arrival();
    disk.storage.get_pending_inbound(&chat, &sender, &id).await.unwrap();
    timeout(SOON, kai.cache.flush(&disk.storage)).await.expect("nothing to wait for").unwrap();
}

#[tokio::test]
async fn what_comes_again_and_has_left_no_row_is_noted_before_it_counts_as_known() {
    let mut disk = Disk::new().await;
    let (mut anna, kai) = (TestPerson::new(ANNA), TestPerson::new(KAI));
    anna.meet(&kai).await;
    let sealed_message = anna.write(&kai, "first").await;
    let unread = Event::ReadAfterAll { chat: ChatId::new(ANNA), id: MessageId::new("first") };
    let phone = KAI.parse::<Jid>().unwrap();
    disk.storage
        .arrivals
        .register_stanza(&sealed_message.stanza().as_node_ref(), &phone, None, |_| Some(unread.clone()));
    let Arrival { chat, sender, id } = sealed_message.arrival();
    for stored in [false, true] {
        let asked = disk.storage.get_pending_inbound(&chat, &sender, &id);
        let intake = async {
            let Batch { events, committed } = disk.intake.recv().await.unwrap();
            assert_eq!(events, std::slice::from_ref(&unread));
            if stored {
                committed.send(()).unwrap();
            }
        };
        let (known, ()) = tokio::join!(asked, intake);
        assert_eq!(known.is_ok(), stored, "what is not noted is not acknowledged");
        assert!(!disk.storage.fault.has_happened());
    }
}

#[tokio::test]
async fn what_intake_has_taken_is_known_by_its_mark() {
    let mut disk = Disk::new().await;
    let (mut anna, kai) = (TestPerson::new(ANNA), TestPerson::new(KAI));
    anna.meet(&kai).await;
    let sealed_message = anna.write(&kai, "first").await;
    let Arrival { chat, sender, id } = sealed_message.arrival();
    disk.store_row(&sealed_message).await;
    let row = disk.storage.get_pending_inbound(&chat, &sender, &id).await.unwrap();
    assert_eq!(row.as_deref(), Some(&b"hello"[..]));
    let key = PendingInboundKey { chat: &chat, sender: &sender, id: &id };
    disk.storage.delete_pending_inbound_batch(&[key]).await.unwrap();
    let unread = Event::ReadAfterAll { chat: ChatId::new(ANNA), id: MessageId::new("first") };
    let phone = KAI.parse::<Jid>().unwrap();
    disk.storage
        .arrivals
        .register_stanza(&sealed_message.stanza().as_node_ref(), &phone, None, |_| Some(unread));
    assert_eq!(disk.storage.get_pending_inbound(&chat, &sender, &id).await.unwrap(), None);
    assert!(disk.intake.try_recv().is_err(), "it was taken before");
}

#[tokio::test]
async fn after_a_failure_nothing_is_written_or_read() {
    let disk = Disk::new().await;
    let (anna, kai, sealed_message) = decrypted(&disk).await;
    disk.storage.fault.record_fault("the disk is full");
    let Arrival { chat, sender, id } = sealed_message.arrival();
    assert!(disk.storage.store_pending_inbound(&chat, &sender, &id, b"hello").await.is_err());
    assert!(disk.storage.get_pending_inbound(&chat, &sender, &id).await.is_err());
    disk.storage.arrivals.release_arrival(&sealed_message.arrival());
    assert!(kai.cache.flush(&disk.storage).await.is_err());
    assert!(!disk.has_session(&anna).await);
    assert_eq!(disk.storage.fault.wait_for_fault().await, "the disk is full");
}

/// What happens between two people: Anna writes so many messages, Kai reads one of those that wait, Kai
/// answers.
#[derive(Clone, Copy, Debug)]
enum TestStep {
    Write,
    Read(usize),
    Answer,
}

fn steps() -> impl Strategy<Value = Vec<TestStep>> {
    let step = prop_oneof![
        3 => Just(TestStep::Write),
        3 => (0..8_usize).prop_map(TestStep::Read),
        1 => Just(TestStep::Answer),
    ];
    proptest::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn keys_have_moved_past_exactly_what_was_decrypted(steps in steps(), in_group in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut anna, mut kai) = (TestPerson::new(ANNA), TestPerson::new(KAI));
            anna.meet(&kai).await;
            anna.give_family_key(&mut kai).await;
            let (mut waiting, mut read) = (Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                let id = format!("message {number}");
                match step {
                    TestStep::Write if in_group => waiting.push(anna.write_to_family(&id).await),
                    TestStep::Write => waiting.push(anna.write(&kai, &id).await),
                    TestStep::Read(_) if waiting.is_empty() => {}
                    TestStep::Read(which) => {
                        let sealed_message = waiting.remove(which % waiting.len());
                        if in_group {
                            kai.read_in_family(&anna, &sealed_message).await;
                        } else {
                            kai.read(&anna, &sealed_message).await;
                        }
                        read.push(sealed_message);
                    }
                    TestStep::Answer if read.is_empty() || in_group => {}
                    TestStep::Answer => {
                        let answer = kai.write(&anna, &id).await;
                        anna.read(&kai, &answer).await;
                    }
                }
            }
            let records = records(&kai, &anna).await;
            for sealed_message in &waiting {
                prop_assert!(!have_moved_past(&records, sealed_message), "{} was not decrypted", sealed_message.id);
            }
            for sealed_message in &read {
                prop_assert!(have_moved_past(&records, sealed_message), "{} was decrypted", sealed_message.id);
            }
            Ok(())
        })?;
    }
}
