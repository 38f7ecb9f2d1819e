//! From WhatsApp's answer to the phones: receipts, reasons for doubt, repairs, and what the owner is told of
//! it.

use std::time::Duration;

use nanokimi::bridge::{Answer, Event, LinkState, SendError};
use nanokimi::store::UndeliveredReplies;
use nanokimi::types::{
    ChatId, DeviceKind, Group, IncomingMessage, LinkedAccount, MessageId, Receipt, ReceiptKind, Role,
    SenderId,
};
use support::scripted_engine::Behaviour;
use support::test_service::{self, Heard, Repaired, lid, message, phone, same_person};

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The direct chat with Ana.
const ANAS_CHAT: &str = "Ana@s.whatsapp.net";

/// A world in which messages are only handed over. It has the group `ana`, Ana's own chat, beside `main` and
/// `family`.
async fn world() -> World {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    world.add(Group::new(test_service::name("ana"), ChatId::new(ANAS_CHAT), Role::Member)).await;
    world.start().await;
    world
}

/// Somebody writes in Ana's own chat.
async fn in_anas_chat(world: &World, id: &str, text: &str) {
    let written = message("family", id, "Ana", text, world.now());
    world.writes(IncomingMessage { chat: ChatId::new(ANAS_CHAT), ..written }).await;
}

/// Ana asks in her own chat, and WhatsApp accepts Kai's answer.
async fn answers_ana(world: &mut World, question: &str) -> Heard {
    in_anas_chat(world, question, &format!("@Kai {question}")).await;
    let heard = world.hears().await;
    world.answers(&heard.id, Answer::Acked).await;
    heard
}

/// Somebody asks in the family, and WhatsApp accepts Kai's answer.
async fn answers_family(world: &mut World, who: &str) -> Heard {
    world.says("family", who, "@Kai hello").await;
    let heard = world.hears().await;
    world.answers(&heard.id, Answer::Acked).await;
    heard
}

async fn receipt(world: &World, heard: &Heard, person: SenderId, device: DeviceKind, kind: ReceiptKind) {
    let receipt = Receipt { id: MessageId::new(&heard.id), person, device, kind };
    world.tells(vec![Event::Receipt(receipt)]).await;
}

/// The person's phone receives it.
async fn arrives(world: &World, heard: &Heard, person: SenderId) {
    receipt(world, heard, person, DeviceKind::Phone, ReceiptKind::Delivered).await;
}

async fn is_missed(world: &World, heard: &Heard, person: SenderId) {
    world.tells(vec![Event::PhoneMissed { id: MessageId::new(&heard.id), person }]).await;
}

/// The devices that messages were encrypted for again, and the messages, in order.
fn repaired(world: &World) -> Vec<(String, String)> {
    world.chats.repaired().into_iter().map(|Repaired { person, id, .. }| (person, id)).collect()
}

fn of(person: &str, heard: &Heard) -> (String, String) {
    (phone(person).to_string(), heard.id.clone())
}

async fn undelivered(world: &World) -> Option<u64> {
    let undelivered = world.store.undelivered_replies(world.now()).await.unwrap();
    undelivered.map(|UndeliveredReplies { replies, .. }| replies)
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_off_for_weeks_is_no_trouble_and_nothing_waits_for_it() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    assert_eq!(undelivered(&world).await, Some(1));
    world.silence(MINUTE).await;
    // Her computer has it, but her phone is off.
    receipt(&world, &first, phone("Ana"), DeviceKind::Companion, ReceiptKind::Delivered).await;
    world.silence(DAY).await;
    let second = answers_ana(&mut world, "two").await;
    assert_eq!(second.text, "Kai: echo: @Kai two");
    receipt(&world, &second, phone("Ana"), DeviceKind::Companion, ReceiptKind::Read).await;
    assert_eq!(undelivered(&world).await, Some(2));
    world.silence(DAY * 6).await;
    assert_eq!(repaired(&world), []);

    arrives(&world, &second, phone("Ana")).await;
    arrives(&world, &first, phone("Ana")).await;
    world.silence(DAY).await;
    assert_eq!((undelivered(&world).await, repaired(&world)), (None, vec![]));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_phone_has_missed_is_sealed_anew_three_times_and_then_the_owner_is_told_once() {
    let mut world = world().await;
    let ana = phone("Ana");
    world.chats.loses_keys(&ana);
    let first = answers_ana(&mut world, "one").await;
    is_missed(&world, &first, ana.clone()).await;
    world.silence(MINUTE * 9).await;
    assert_eq!(repaired(&world), [of("Ana", &first)]);
    world.silence(MINUTE * 2).await;
    assert_eq!(repaired(&world).len(), 2);
    world.silence(MINUTE * 48).await;
    assert_eq!(repaired(&world).len(), 2);
    world.silence(MINUTE * 2).await;
    assert_eq!(repaired(&world).len(), 3);
    let told = world.hears().await;
    assert_eq!(world.seconds(), 70 * 60);
    insta::assert_snapshot!(told.text, @"Kai: What I said in the group ana may not be readable on somebody's phone there: WhatsApp gives me no keys that work for it. Please have them open WhatsApp on that phone and write something there, then ask me again there.");
    assert_eq!(told.group, "main");
    world.answers(&told.id, Answer::Acked).await;

    // She writes, so her phone is on: the first message is tried once more. The same trouble of the same chat
    // is not told again on the same day.
    let second = answers_ana(&mut world, "two").await;
    is_missed(&world, &second, ana).await;
    world.silence(HOUR * 20).await;
    let tried =
        |heard: &Heard| repaired(&world)[3..].iter().filter(|tried| **tried == of("Ana", heard)).count();
    assert_eq!((tried(&first), tried(&second)), (3, 3));
    in_anas_chat(&world, "more", "And now?").await;
    world.silence(HOUR * 2).await;
    let tried =
        |heard: &Heard| repaired(&world)[3..].iter().filter(|tried| **tried == of("Ana", heard)).count();
    assert_eq!((tried(&first), tried(&second)), (3, 6), "there is an end");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_ends_the_repairs_and_one_before_whatsapps_answer_counts_too() {
    let mut world = world().await;
    in_anas_chat(&world, "q1", "@Kai one").await;
    let first = world.hears().await;
    is_missed(&world, &first, phone("Ana")).await;
    world.silence(Duration::from_secs(30)).await;
    assert_eq!(repaired(&world), [], "WhatsApp itself has not taken it yet");
    world.answers(&first.id, Answer::Acked).await;
    world.silence(MINUTE).await;
    assert_eq!(repaired(&world), [of("Ana", &first)]);
    arrives(&world, &first, phone("Ana")).await;
    world.silence(DAY).await;
    assert_eq!(repaired(&world).len(), 1);

    in_anas_chat(&world, "q2", "@Kai two").await;
    let second = world.hears().await;
    arrives(&world, &second, phone("Ana")).await;
    world.answers(&second.id, Answer::Acked).await;
    assert_eq!(undelivered(&world).await, None);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_whatsapp_has_answered_before_the_bridge_said_so_can_be_repaired_too() {
    let mut world = world().await;
    world.chats.hang(ANAS_CHAT);
    in_anas_chat(&world, "q1", "@Kai one").await;
    let stuck = world.stuck().await;
    let id = stuck.id.clone();
    world.answers(id.as_str(), Answer::Acked).await;
    stuck.encoded.send(format!("as it was: {id}").into_bytes()).unwrap();
    stuck.outcome.send(Ok(nanokimi::bridge::HandedOver::Sent)).unwrap();
    world.silence(MINUTE).await;
    world.tells(vec![Event::PhoneMissed { id: id.clone(), person: phone("Ana") }]).await;
    world.silence(MINUTE).await;
    assert_eq!(repaired(&world), [(phone("Ana").to_string(), id.to_string())]);
    let receipt =
        Receipt { id, person: phone("Ana"), device: DeviceKind::Phone, kind: ReceiptKind::Delivered };
    world.tells(vec![Event::Receipt(receipt)]).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_has_a_later_reply_and_not_this_one_gets_this_one_anew() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    let second = answers_ana(&mut world, "two").await;
    let third = answers_ana(&mut world, "three").await;
    arrives(&world, &third, phone("Ana")).await;
    // Receipts may come in any order.
    world.silence(MINUTE).await;
    arrives(&world, &second, phone("Ana")).await;
    world.silence(MINUTE * 5).await;
    assert_eq!(repaired(&world), [of("Ana", &first)]);
    arrives(&world, &first, phone("Ana")).await;
    world.silence(DAY).await;
    assert_eq!(repaired(&world).len(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_who_writes_minutes_later_without_a_receipt_gets_it_anew() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    world.silence(MINUTE).await;
    // She wrote before the answer could reach her.
    in_anas_chat(&world, "early", "Hello?").await;
    world.silence(MINUTE * 5).await;
    assert_eq!(repaired(&world), []);
    in_anas_chat(&world, "later", "Are you there?").await;
    world.silence(MINUTE * 5).await;
    assert_eq!(repaired(&world), [of("Ana", &first)]);
    arrives(&world, &first, phone("Ana")).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_again_and_is_not_answered_by_the_library_is_answered_from_the_outbox() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    arrives(&world, &first, phone("Ana")).await;
    world.silence(DAY * 40).await;
    // Her computer was off, and by now the library has forgotten the message.
    receipt(&world, &first, phone("Ana"), DeviceKind::Companion, ReceiptKind::Retry).await;
    world.silence(MINUTE).await;
    assert_eq!(repaired(&world), [], "the library may still answer");
    world.silence(MINUTE * 2).await;
    let Some(Repaired { device, id, .. }) = world.chats.repaired().pop() else { panic!("it is answered") };
    assert_eq!((device, id), (DeviceKind::Companion, first.id.clone()));
    receipt(&world, &first, phone("Ana"), DeviceKind::Companion, ReceiptKind::Delivered).await;
    world.silence(DAY).await;
    assert_eq!(repaired(&world).len(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_sets_their_phone_up_anew_gets_what_had_not_arrived() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    let second = answers_ana(&mut world, "two").await;
    arrives(&world, &first, phone("Ana")).await;
    world.tells(vec![same_person("Ana"), Event::IdentityChanged { person: lid("Ana") }]).await;
    world.silence(MINUTE * 5).await;
    let ids: Vec<String> = repaired(&world).into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, std::slice::from_ref(&second.id));
    arrives(&world, &second, lid("Ana")).await;
    world.silence(DAY).await;
    assert_eq!(repaired(&world).len(), 1, "a number and a LID are one person");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_in_a_group_before_somebody_came_is_not_brought_to_them() {
    let mut world = world().await;
    let first = answers_family(&mut world, "Ana").await;
    arrives(&world, &first, phone("Ana")).await;
    world.silence(MINUTE * 10).await;
    // Bob joins.
    let second = answers_family(&mut world, "Bob").await;
    arrives(&world, &second, phone("Bob")).await;
    let third = answers_family(&mut world, "Bob").await;
    arrives(&world, &third, phone("Ana")).await;
    world.silence(MINUTE * 10).await;
    // Ana was in the group all the time. It is not known that Cleo was.
    assert_eq!(repaired(&world), [of("Ana", &second)]);
    arrives(&world, &second, phone("Ana")).await;
    let fourth = answers_family(&mut world, "Bob").await;
    arrives(&world, &fourth, phone("Cleo")).await;
    arrives(&world, &fourth, phone("Bob")).await;
    world.silence(MINUTE * 10).await;
    assert_eq!(repaired(&world)[1..], [of("Bob", &third)]);
    arrives(&world, &third, phone("Bob")).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_our_own_devices_say_and_what_is_said_of_others_messages_says_nothing() {
    let mut world = world().await;
    let account = LinkedAccount { id: phone("Owner"), lid: Some(lid("Owner")), name: "Owner".to_owned() };
    world.tells(vec![Event::Account(account)]).await;
    let first = answers_ana(&mut world, "one").await;
    for ours in [phone("Owner"), lid("Owner")] {
        for kind in [ReceiptKind::Delivered, ReceiptKind::Read, ReceiptKind::Retry] {
            receipt(&world, &first, ours.clone(), DeviceKind::Phone, kind).await;
        }
        is_missed(&world, &first, ours.clone()).await;
        world.tells(vec![Event::IdentityChanged { person: ours }]).await;
    }
    let unknown = Heard { id: "3EB0NOBODYS".to_owned(), ..first.clone() };
    for kind in [ReceiptKind::Delivered, ReceiptKind::Read, ReceiptKind::Retry] {
        receipt(&world, &unknown, phone("Ana"), DeviceKind::Phone, kind).await;
    }
    // The owner writes in the family, but no phone there has what Kai said.
    answers_family(&mut world, "Owner").await;
    world.silence(MINUTE * 10).await;
    world.says("family", "Owner", "Well").await;
    world.silence(DAY).await;
    assert_eq!((repaired(&world), undelivered(&world).await), (vec![], Some(2)));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_repair_on_which_the_link_is_lost_does_not_count() {
    let mut world = world().await;
    let first = answers_ana(&mut world, "one").await;
    world.link(LinkState::Connecting);
    // Delivery has read it.
    world.silence(MINUTE).await;
    is_missed(&world, &first, phone("Ana")).await;
    world.silence(HOUR * 5).await;
    assert_eq!(repaired(&world), []);
    world.link(LinkState::Online);
    world.silence(MINUTE).await;
    assert_eq!(repaired(&world).len(), 1);
    arrives(&world, &first, phone("Ana")).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_no_keys_at_all_is_waited_for_and_the_owner_hears_of_it_once() {
    let mut world = world().await;
    for _ in 0..15 {
        world.chats.refuse_next(SendError::NoKeys);
    }
    in_anas_chat(&world, "q1", "@Kai one").await;
    let told = world.hears().await;
    assert_eq!(told.group, "main");
    assert!(told.text.contains("may not be readable on somebody's phone"), "{}", told.text);
    assert!((HOUR.as_secs() / 2..HOUR.as_secs() * 2).contains(&world.seconds()), "{}", world.seconds());
    world.answers(&told.id, Answer::Acked).await;
    let heard = world.hears().await;
    assert_eq!(heard.text, "Kai: echo: @Kai one");
    world.answers(&heard.id, Answer::Acked).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_handed_over_before_is_not_uploaded_again() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.leave_unacknowledged();
    std::fs::write(world.in_folder("main", "chart.png"), b"bytes").unwrap();
    world.says("main", "Owner", "Show me").await;
    world.prompt().await.answer("<file path=\"chart.png\">The year</file>");
    let sent = world.hears().await;
    std::fs::remove_file(world.in_folder("main", "chart.png")).unwrap();
    let again = world.hears().await;
    assert_eq!((again.id, again.what), (sent.id.clone(), test_service::What::SentBefore));
    world.answers(&sent.id, Answer::Acked).await;
    world.ends().await;
}
