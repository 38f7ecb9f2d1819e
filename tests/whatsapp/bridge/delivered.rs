//! From the outbox to the phones, if keys and devices are not as the bridge believes: a table of what may go
//! wrong, and what all people read in the end. The store plays the service, and the test moves the store's
//! clock. The library, the bridge and the encryption are real.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use nanokimi::bridge::{self, Content, Order, Recipients, RepairOrder, SendError};
use nanokimi::store::{RepairBatch, ReplyContent, SendAttempt, SendResult, Store};
use nanokimi::types::{ChatId, Group, GroupName, LinkState, Role};
use support::test_service::rules;
use support::whatsapp_client::{Device, Files};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use whatsapp_rust::futures::{FutureExt as _, StreamExt as _, stream};
use whatsapp_rust::prelude::MessageExt;
use whatsapp_server::{PATIENCE, Server, Withheld};

use super::world::{ANNA, ANNA_LID, ANNAS_CHAT, Bridge, FAMILY, Folder, KAI, KAI_LID, KAIS_CHAT, store};

const BEN: &str = "15550003333";
const BEN_LID: &str = "100000000000003";
/// How many worlds run at a time: each links a device, which takes seconds of work.
const SIDE_BY_SIDE: usize = 3;

/// Anna's own chat, and a family of Anna and Ben, who both have only a phone.
struct World {
    server: Server,
    folder: Folder,
    bridge: Bridge,
    store: Store,
    now: Arc<Mutex<Timestamp>>,
    /// Counts what intake has stored.
    stored: watch::Receiver<u64>,
    intake: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await.unwrap();
        for (phone, lid, name) in
            [(ANNA, ANNA_LID, "Anna"), (BEN, BEN_LID, "Ben"), (KAI, KAI_LID, "Kai's owner")]
        {
            server.add_account(phone, lid, name);
            server.phone_sends_receipts(phone);
        }
        server.add_group(FAMILY, "Family", &[ANNA, BEN, KAI]);
        let folder = Folder::new();
        Bridge::linked(&server, &folder).await.stop().await;
        let store = Store::open(&folder.root.path().join("nanokimi.db")).unwrap();
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (name, chat, role) in [
            ("main", KAIS_CHAT, Role::Main),
            ("anna", ANNAS_CHAT, Role::Member),
            ("family", FAMILY, Role::Member),
        ] {
            let group = Group::new(GroupName::parse(name).unwrap(), ChatId::new(chat), role);
            store.add_group(&group, now).await.unwrap();
        }
        let now = Arc::new(Mutex::new(now));
        let (bridge, stored, intake) = serve(&server, &folder, &store, &now).await;
        server.wait_until_settled(KAI).await;
        Self { server, folder, bridge, store, now, stored, intake }
    }

    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn passes(&self, time: SignedDuration) {
        *self.now.lock().unwrap() += time;
    }

    /// Waits until the store shows it, whatever intake stores meanwhile.
    async fn until<T>(&mut self, what: &str, shown: impl AsyncFn(&Store) -> Option<T>) -> T {
        let Self { store, stored, .. } = self;
        let waiting = async {
            loop {
                stored.mark_unchanged();
                if let Some(found) = shown(store).await {
                    return found;
                }
                stored.changed().await.expect("intake runs");
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited too long until {what}"))
    }

    /// Kai says something. If WhatsApp accepts it, it has done so when this returns.
    async fn says(&mut self, chat: &str, text: &str) -> SendResult {
        self.store.notify_chat(&ChatId::new(chat), text, self.now()).await.unwrap();
        self.tries(chat).await
    }

    /// The next attempt to send what waits in a chat, when the attempt is due.
    async fn tries(&mut self, chat: &str) -> SendResult {
        let chat = ChatId::new(chat);
        let reply =
            self.store.next_queued_replies(Some(&chat)).await.unwrap().pop().expect("something waits");
        let pause = reply.put_off.map(|put_off| put_off.remaining_at(self.now())).unwrap_or_default();
        self.passes(SignedDuration::try_from(pause).unwrap());
        assert_eq!(self.store.begin_attempt(&reply).await.unwrap(), SendAttempt::Begins);
        let ReplyContent::Text { text, mentions } = reply.content.clone() else { panic!("a text") };
        let ((outcome, answer), (encoded, message)) = (oneshot::channel(), oneshot::channel());
        let order = Order::Send(bridge::SendOrder {
            chat,
            id: reply.id.clone(),
            content: Content::Text { text, mentions },
            quote: None,
            expires_secs: None,
            recipients: if reply.attempts == 0 { Recipients::Remembered } else { Recipients::LookedUp },
            encoded,
            outcome,
        });
        self.bridge.order(order).await;
        let result = match timeout(PATIENCE, answer).await.expect("an outcome").expect("an outcome") {
            Ok(_) => SendResult::Sent { message: message.await.expect("the message as it was sent") },
            Err(SendError::NoKeys) => SendResult::NoKeys,
            Err(SendError::Later(error) | SendError::Never(error)) => panic!("{error}"),
        };
        self.store.record_attempt(&reply, result.clone(), rules(), self.now()).await.unwrap();
        if let SendResult::Sent { .. } = result {
            let acked =
                async |store: &Store| (store.queue_counts().await.unwrap().unanswered == 0).then_some(());
            self.until("WhatsApp has it", acked).await;
        }
        result
    }

    async fn is_sent(&mut self, chat: &str, text: &str) {
        let result = self.says(chat, text).await;
        assert!(matches!(result, SendResult::Sent { .. }), "{text:?}: {result:?}");
    }

    /// Waits until there is a reason to doubt that somebody can read something.
    async fn until_suspect(&mut self) {
        let doubt = async |store: &Store| {
            store.claim_due_repairs(rules(), Timestamp::UNIX_EPOCH).await.unwrap().next.map(drop)
        };
        self.until("something is suspect", doubt).await;
    }

    /// After this time, makes the repairs that are due. Returns how they ended.
    async fn later(&mut self, mins: i64) -> Vec<Result<(), SendError>> {
        self.passes(SignedDuration::from_mins(mins));
        let RepairBatch { due, .. } = self.store.claim_due_repairs(rules(), self.now()).await.unwrap();
        let mut made = Vec::new();
        for due in due {
            let (outcome, answer) = oneshot::channel();
            let order = Order::Repair(RepairOrder {
                chat: due.chat.clone(),
                id: due.id.clone(),
                person: due.person.clone(),
                device: due.device,
                message: due.message.clone(),
                outcome,
            });
            self.bridge.order(order).await;
            made.push(timeout(PATIENCE, answer).await.expect("an outcome").expect("an outcome"));
        }
        made
    }

    /// WhatsApp tells the bridge that somebody has set their phone up anew.
    async fn is_told_of_new_phone(&mut self, phone: &str) {
        self.stored.mark_unchanged();
        self.server.tell_set_up_anew(phone, KAI);
        timeout(PATIENCE, self.stored.changed()).await.expect("it is told").unwrap();
    }

    /// How often the owner was told this.
    async fn told(&self) -> u64 {
        self.store.count_unfinished_work(&ChatId::new(KAIS_CHAT)).await.unwrap()
    }

    /// Waits until every message has reached a phone.
    async fn until_delivered(&mut self) {
        let now = self.now();
        let delivered =
            async |store: &Store| store.undelivered_replies(now).await.unwrap().is_none().then_some(());
        self.until("everything is on a phone", delivered).await;
    }

    /// The bridge stops, and the library forgets what it has sent, as after 30 days; then the bridge works
    /// again.
    async fn forgets(self) -> Self {
        let stopped = self.stops().await;
        let path = stopped.folder.path().join("wa.db");
        let forgotten =
            rusqlite::Connection::open(path).unwrap().execute("DELETE FROM sent_messages", []).unwrap();
        assert!(forgotten > 0, "there was something to forget");
        stopped.starts().await
    }

    async fn restarts(self) -> Self {
        self.stops().await.starts().await
    }

    async fn stops(self) -> Stopped {
        let Self { server, folder, bridge, store, now, intake, .. } = self;
        bridge.stop().await;
        intake.await.unwrap();
        server.wait_until_offline(KAI).await;
        Stopped { server, folder, store, now }
    }
}

struct Stopped {
    server: Server,
    folder: Folder,
    store: Store,
    now: Arc<Mutex<Timestamp>>,
}

impl Stopped {
    async fn starts(self) -> World {
        let Self { server, folder, store, now } = self;
        let (bridge, stored, intake) = serve(&server, &folder, &store, &now).await;
        World { server, folder, bridge, store, now, stored, intake }
    }
}

/// A bridge whose events are stored in the same way as intake stores them.
async fn serve(
    server: &Server,
    folder: &Folder,
    into: &Store,
    now: &Arc<Mutex<Timestamp>>,
) -> (Bridge, watch::Receiver<u64>, JoinHandle<()>) {
    let mut bridge = Bridge::serve(server, folder);
    let mut batches = std::mem::replace(&mut bridge.end.batches, mpsc::channel(1).1);
    let (counter, stored) = watch::channel(0);
    let (into, now) = (into.clone(), now.clone());
    let intake = tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            let now = *now.lock().unwrap();
            into.record_events(batch.events.clone(), rules(), now).await.unwrap();
            store(batch);
            counter.send_modify(|counter| *counter += 1);
        }
    });
    let online = timeout(PATIENCE, bridge.end.link.wait_for(|link| *link == LinkState::Online)).await;
    online.expect("it is online").unwrap();
    (bridge, stored, intake)
}

/// What people read in the end.
type Reads = String;

/// What these phones show, in one line.
async fn on_phones(world: &World, phones: &[&str]) -> Reads {
    let mut lines = Vec::new();
    for phone in phones {
        let (texts, unreadable) = world.server.screen(phone).await;
        let name = if *phone == ANNA { "Anna" } else { "Ben" };
        let texts = if texts.is_empty() { "nothing".to_owned() } else { texts.join(" ") };
        let waiting = if unreadable == 0 { String::new() } else { format!(", {unreadable} not readable") };
        lines.push(format!("{name}: {texts}{waiting}"));
    }
    lines.join("; ")
}

async fn no_keys_at_first(how: Withheld) -> Reads {
    let mut world = World::new().await;
    world.server.withhold_keys(ANNA, 0, how);
    assert_eq!(world.says(ANNAS_CHAT, "One").await, SendResult::NoKeys);
    assert_eq!(world.tries(ANNAS_CHAT).await, SendResult::NoKeys);
    assert_eq!(world.server.messages_from(KAI), [], "what nobody can read is not sent");
    world.server.give_keys(ANNA);
    assert!(matches!(world.tries(ANNAS_CHAT).await, SendResult::Sent { .. }));
    world.server.wait_for_text(ANNA, "One").await;
    world.until_delivered().await;
    assert_eq!(world.told().await, 0);
    on_phones(&world, &[ANNA]).await
}

async fn never_any_keys() -> Reads {
    let mut world = World::new().await;
    world.server.withhold_keys(ANNA, 0, Withheld::LeftOut);
    assert_eq!(world.says(ANNAS_CHAT, "One").await, SendResult::NoKeys);
    for _ in 1..40 {
        assert_eq!(world.tries(ANNAS_CHAT).await, SendResult::NoKeys);
    }
    assert_eq!(
        world.store.given_up_replies().await.unwrap()[0].why,
        "WhatsApp has no keys of this person's devices"
    );
    format!("{}; owner told {} time", on_phones(&world, &[ANNA]).await, world.told().await)
}

async fn phone_without_keys(then: Then) -> Reads {
    let mut world = World::new().await;
    let files = Files::new();
    let mut laptop = Device::linked(&world.server, &files, ANNA).await;
    world.server.withhold_keys(ANNA, 0, Withheld::NotFound);
    world.is_sent(ANNAS_CHAT, "One").await;
    assert_eq!(laptop.next_message().await.message.text_content(), Some("One"));
    world.until_suspect().await;
    assert_eq!(world.later(0).await, [Err(SendError::NoKeys)]);
    if then == Then::KeysComeBack {
        world.server.give_keys(ANNA);
        assert_eq!(world.later(10).await, [Ok(())]);
        world.server.wait_for_text(ANNA, "One").await;
        world.until_delivered().await;
        return format!("{}; her laptop: One", on_phones(&world, &[ANNA]).await);
    }
    assert_eq!(world.later(10).await, [Err(SendError::NoKeys)]);
    assert_eq!(world.later(50).await, [Err(SendError::NoKeys)]);
    assert_eq!((world.later(10).await, world.told().await), (vec![], 1));
    assert_eq!((world.later(24 * 60).await, world.told().await), (vec![], 1));
    format!("{}; her laptop: One; owner told {} time", on_phones(&world, &[ANNA]).await, world.told().await)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    KeysComeBack,
    KeysNeverCome,
}

async fn companion_comes_untold() -> Reads {
    let mut world = World::new().await;
    world.is_sent(ANNAS_CHAT, "One").await;
    world.server.wait_for_text(ANNA, "One").await;
    let files = Files::new();
    let mut laptop = Device::linked(&world.server, &files, ANNA).await;
    world.is_sent(ANNAS_CHAT, "Two").await;
    // It may have come in the same second in which the list of the first one was compared.
    while laptop.next_message().await.message.text_content() != Some("Two") {}
    format!("{}; her laptop: Two", on_phones(&world, &[ANNA]).await)
}

/// A phone is set up anew between two replies in a chat. A phone that asks, asks for what it cannot read.
async fn set_up_anew(chat: &'static str, phone: &'static str, told: bool, then: Anew) -> Reads {
    let mut world = World::new().await;
    world.is_sent(chat, "One").await;
    world.server.wait_for_text(phone, "One").await;
    world.until_delivered().await;
    world.server.set_up_anew(phone);
    if told {
        world.is_told_of_new_phone(phone).await;
    }
    world.is_sent(chat, "Two").await;
    match then {
        Anew::ReadsOrAsks => world.server.wait_for_text_or_ask(phone, "Two").await,
        Anew::Asks => {
            let id = world.server.wait_for_unreadable(phone).await;
            world.server.phone_asks_again(phone, &id, 1);
        }
        Anew::AsksAfterARestart => {
            let id = world.server.wait_for_unreadable(phone).await;
            world = world.restarts().await;
            world.server.phone_asks_again(phone, &id, 1);
        }
        Anew::AsksWhatIsForgotten => {
            let id = world.server.wait_for_unreadable(phone).await;
            world = world.forgets().await;
            world.server.phone_asks_again(phone, &id, 1);
            world.until_suspect().await;
            assert_eq!(world.later(3).await, [Ok(())]);
        }
        Anew::AsksWhileThereAreNoKeys => {
            let id = world.server.wait_for_unreadable(phone).await;
            world.server.withhold_keys(phone, 0, Withheld::Unknown);
            world.server.phone_asks_again(phone, &id, 1);
            world.until_suspect().await;
            assert_eq!(world.later(3).await, [Err(SendError::NoKeys)]);
            world.server.give_keys(phone);
            assert_eq!(world.later(10).await, [Ok(())]);
        }
        Anew::Writes => {
            world.server.wait_for_unreadable(phone).await;
            world.server.phone_writes(phone, KAI, "Are you there?").await;
            world.until_suspect().await;
            assert_eq!(world.later(3).await, [Ok(())]);
        }
    }
    world.server.wait_for_text(phone, "Two").await;
    world.is_sent(chat, "Three").await;
    world.server.wait_for_text(phone, "Three").await;
    world.until_delivered().await;
    assert_eq!(world.told().await, 0);
    on_phones(&world, &[phone]).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// It can read at once, or after it has asked: the library may or may not have met it anew in between.
    ReadsOrAsks,
    Asks,
    AsksAfterARestart,
    AsksWhatIsForgotten,
    AsksWhileThereAreNoKeys,
    /// It never asks; the person writes.
    Writes,
}

async fn set_up_anew_without_keys() -> Reads {
    let mut world = World::new().await;
    world.is_sent(ANNAS_CHAT, "One").await;
    world.server.wait_for_text(ANNA, "One").await;
    world.until_delivered().await;
    world.server.set_up_anew(ANNA);
    world.server.withhold_keys(ANNA, 0, Withheld::Unknown);
    world.is_told_of_new_phone(ANNA).await;
    let first = world.says(ANNAS_CHAT, "Two").await;
    world.server.give_keys(ANNA);
    assert_eq!(first, SendResult::NoKeys);
    assert!(matches!(world.tries(ANNAS_CHAT).await, SendResult::Sent { .. }));
    world.server.wait_for_text(ANNA, "Two").await;
    on_phones(&world, &[ANNA]).await
}

async fn member_joins(told: bool) -> Reads {
    let mut world = World::new().await;
    world.server.remove_member(FAMILY, BEN);
    world.server.wait_until_settled(KAI).await;
    world.is_sent(FAMILY, "One").await;
    world.server.wait_for_text(ANNA, "One").await;
    if told {
        world.server.add_member(FAMILY, BEN);
        world.server.wait_until_settled(KAI).await;
    } else {
        world.server.add_member_untold(FAMILY, BEN);
    }
    world.is_sent(FAMILY, "Two").await;
    world.server.wait_for_text(BEN, "Two").await;
    world.is_sent(FAMILY, "Three").await;
    world.server.wait_for_text(BEN, "Three").await;
    world.server.wait_for_text(ANNA, "Three").await;
    on_phones(&world, &[ANNA, BEN]).await
}

async fn member_without_keys(then: Then) -> Reads {
    let mut world = World::new().await;
    world.server.withhold_keys(BEN, 0, Withheld::NotFound);
    world.is_sent(FAMILY, "One").await;
    world.server.wait_for_text(ANNA, "One").await;
    world.until_suspect().await;
    if then == Then::KeysNeverCome {
        assert_eq!(world.later(0).await, [Err(SendError::NoKeys)]);
        assert_eq!(world.later(10).await, [Err(SendError::NoKeys)]);
        assert_eq!(world.later(50).await, [Err(SendError::NoKeys)]);
        assert_eq!((world.later(10).await, world.told().await), (vec![], 1));
        return format!("{}; owner told {} time", on_phones(&world, &[ANNA, BEN]).await, world.told().await);
    }
    world.server.give_keys(BEN);
    world.is_sent(FAMILY, "Two").await;
    world.server.wait_for_text(BEN, "Two").await;
    assert_eq!(world.later(10).await, [Ok(())]);
    world.server.wait_for_text(BEN, "One").await;
    world.is_sent(FAMILY, "Three").await;
    world.server.wait_for_text(BEN, "Three").await;
    on_phones(&world, &[ANNA, BEN]).await
}

/// A case with its story.
struct Case(&'static str, &'static str, Pin<Box<dyn Future<Output = Reads>>>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_reads_everything_in_the_end() {
    use Then::{KeysComeBack, KeysNeverCome};
    let cases = vec![
        Case("a1", "WhatsApp's answer leaves her phone out", Box::pin(no_keys_at_first(Withheld::LeftOut))),
        Case("a1", "WhatsApp knows no such phone (404)", Box::pin(no_keys_at_first(Withheld::NotFound))),
        Case("a1", "WhatsApp has no keys of it (406)", Box::pin(no_keys_at_first(Withheld::Unknown))),
        Case("a1", "and never has", Box::pin(never_any_keys())),
        Case(
            "a2",
            "WhatsApp refuses the whole question (406)",
            Box::pin(no_keys_at_first(Withheld::WholeQuestion)),
        ),
        Case("b", "her phone has no keys, her laptop has", Box::pin(phone_without_keys(KeysComeBack))),
        Case("b", "and never has", Box::pin(phone_without_keys(KeysNeverCome))),
        Case("c1", "a laptop is linked, nobody is told", Box::pin(companion_comes_untold())),
        Case(
            "c2",
            "phone set up anew, untold; it asks",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, false, Anew::Asks)),
        ),
        Case(
            "c2",
            "it never asks, and she writes",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, false, Anew::Writes)),
        ),
        Case(
            "c3",
            "it asks after the bridge's restart",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, false, Anew::AsksAfterARestart)),
        ),
        Case(
            "c4",
            "it asks for what the library forgot",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, false, Anew::AsksWhatIsForgotten)),
        ),
        Case(
            "c5",
            "phone set up anew, told",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, true, Anew::ReadsOrAsks)),
        ),
        Case("c5", "and there are no keys yet", Box::pin(set_up_anew_without_keys())),
        Case("d1", "Ben joins, told", Box::pin(member_joins(true))),
        Case("d1b", "Ben joins, nobody is told", Box::pin(member_joins(false))),
        Case("d2", "Ben has no keys at first", Box::pin(member_without_keys(KeysComeBack))),
        Case("d2", "and never has", Box::pin(member_without_keys(KeysNeverCome))),
        Case(
            "d3",
            "Ben's phone anew, untold; it asks",
            Box::pin(set_up_anew(FAMILY, BEN, false, Anew::Asks)),
        ),
        Case("d3", "Ben's phone anew, told", Box::pin(set_up_anew(FAMILY, BEN, true, Anew::ReadsOrAsks))),
        Case(
            "d4",
            "it asks after the bridge's restart",
            Box::pin(set_up_anew(FAMILY, BEN, false, Anew::AsksAfterARestart)),
        ),
        Case(
            "d4",
            "it asks for what the library forgot",
            Box::pin(set_up_anew(FAMILY, BEN, false, Anew::AsksWhatIsForgotten)),
        ),
        Case(
            "e",
            "it asks while there are no keys",
            Box::pin(set_up_anew(ANNAS_CHAT, ANNA, false, Anew::AsksWhileThereAreNoKeys)),
        ),
    ];
    let lines = stream::iter(cases).map(async |Case(case, story, reads)| {
        let reads = AssertUnwindSafe(reads).catch_unwind().await.unwrap_or_else(|_| "FAILED".to_owned());
        format!("{case:<4} {story:<43} {reads}").trim_end().to_owned()
    });
    let table: Vec<String> = lines.buffered(SIDE_BY_SIDE).collect().await;
    insta::assert_snapshot!(table.join("\n"), @"
    a1   WhatsApp's answer leaves her phone out      Anna: One
    a1   WhatsApp knows no such phone (404)          Anna: One
    a1   WhatsApp has no keys of it (406)            Anna: One
    a1   and never has                               Anna: nothing; owner told 1 time
    a2   WhatsApp refuses the whole question (406)   Anna: One
    b    her phone has no keys, her laptop has       Anna: One; her laptop: One
    b    and never has                               Anna: nothing; her laptop: One; owner told 1 time
    c1   a laptop is linked, nobody is told          Anna: One Two; her laptop: Two
    c2   phone set up anew, untold; it asks          Anna: One Two Three
    c2   it never asks, and she writes               Anna: One Two Three
    c3   it asks after the bridge's restart          Anna: One Two Three
    c4   it asks for what the library forgot         Anna: One Two Three
    c5   phone set up anew, told                     Anna: One Two Three
    c5   and there are no keys yet                   Anna: One Two
    d1   Ben joins, told                             Anna: One Two Three; Ben: Two Three
    d1b  Ben joins, nobody is told                   Anna: One Two Three; Ben: Two Three
    d2   Ben has no keys at first                    Anna: One Two Three; Ben: Two One Three
    d2   and never has                               Anna: One; Ben: nothing, 1 not readable; owner told 1 time
    d3   Ben's phone anew, untold; it asks           Ben: One Two Three
    d3   Ben's phone anew, told                      Ben: One Two Three
    d4   it asks after the bridge's restart          Ben: One Two Three
    d4   it asks for what the library forgot         Ben: One Two Three
    e    it asks while there are no keys             Anna: One Two Three
    ");
}

#[tokio::test]
async fn a_warm_direct_message_asks_nothing_over_the_network() {
    let mut world = World::new().await;
    for text in ["One", "Two"] {
        world.is_sent(ANNAS_CHAT, text).await;
        world.server.wait_for_text(ANNA, text).await;
    }
    let before = world.server.count_sent(KAI, "iq");
    world.is_sent(ANNAS_CHAT, "Three").await;
    world.server.wait_for_text(ANNA, "Three").await;
    world.until_delivered().await;
    assert_eq!(world.server.count_sent(KAI, "iq"), before);
    let group = |text| (FAMILY, text);
    for (chat, text) in [group("One"), group("Two")] {
        world.is_sent(chat, text).await;
        world.server.wait_for_text(BEN, text).await;
    }
    let before = world.server.count_sent(KAI, "iq");
    world.is_sent(FAMILY, "Three").await;
    world.server.wait_for_text(BEN, "Three").await;
    world.until_delivered().await;
    assert_eq!(world.server.count_sent(KAI, "iq"), before);
}
