//! Messages that WhatsApp has delivered and that cannot be decrypted; and a disk that was full.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::{Event, LinkState};
use nanokimi::types::{Author, MessageId, UnreadableMessage};
use support::scripted_engine::Behaviour;
use support::test_service::{chat, message, phone};

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

fn unread(world: &World, group: &str, id: &str, sender: &str, author: Author) -> Event {
    Event::Unread(UnreadableMessage {
        chat: chat(group),
        id: MessageId::new(id),
        sender: phone(sender),
        sender_name: sender.to_owned(),
        sent_at: world.now(),
        author,
        handle: id.as_bytes().to_vec(),
    })
}

fn asked(world: &World) -> Vec<String> {
    world.chats.asked_again().into_iter().map(|handle| String::from_utf8(handle).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_asked_for_and_missed_in_the_chat_once() {
    let mut world = World::new(Behaviour::EchoAll).await;
    world
        .tells(vec![
            unread(&world, "family", "1", "Ana", Author::Somebody),
            unread(&world, "family", "2", "Bob", Author::Somebody),
            unread(&world, "strangers", "3", "Eve", Author::Somebody),
        ])
        .await;
    world.silence(MINUTE).await;
    assert_eq!(asked(&world), ["1", "2"], "what Kai does not serve is nobody's business");
    world.silence(MINUTE * 8).await;
    assert_eq!(asked(&world), ["1", "2", "1", "2"]);
    let told = "Kai: I could not read 2 messages of Ana, Bob. Please send them again.";
    assert_eq!(world.hears_in("family").await, told);
    world.silence(MINUTE * 60 * 24 * 15).await;
    assert_eq!(asked(&world).len(), 8, "the phone is asked four times");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_all_is_answered_and_not_missed() {
    let mut world = World::new(Behaviour::EchoAll).await;
    for (id, author) in [("1", Author::OwnPhone), ("2", Author::Somebody), ("3", Author::Somebody)] {
        world.tells(vec![unread(&world, "family", id, "Ana", author)]).await;
    }
    world.silence(Duration::from_secs(1)).await;
    assert_eq!(asked(&world), ["1"], "nobody else asks the own phone");
    world.writes(message("family", "1", "Ana", "@Kai hello", world.now())).await;
    assert!(world.hears_in("family").await.contains("hello"));
    world.writes(message("family", "2", "Ana", "never mind", world.now())).await;
    // Such as a reaction, or any other message that leaves no row.
    world.tells(vec![Event::ReadAfterAll { chat: chat("family"), id: MessageId::new("3") }]).await;
    world.silence(MINUTE * 60).await;
    assert_eq!(asked(&world), ["1"]);
    // A message that was read before is never asked for.
    world.tells(vec![unread(&world, "family", "1", "Ana", Author::OwnPhone)]).await;
    world.silence(MINUTE * 60).await;
    assert_eq!(asked(&world), ["1"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_link_is_away_nobody_is_asked_and_afterwards_twenty_at_a_time() {
    let mut world = World::new(Behaviour::EchoAll).await;
    // A search that began while the link was up goes on without it.
    world.silence(Duration::from_secs(1)).await;
    world.link(LinkState::Connecting);
    let many =
        (0..50).map(|number| unread(&world, "family", &format!("{number:02}"), "Ana", Author::OwnPhone));
    world.tells(many.collect()).await;
    world.silence(MINUTE).await;
    assert_eq!(asked(&world).len(), 0);
    world.link(LinkState::Online);
    world.silence(Duration::from_secs(1)).await;
    assert_eq!(asked(&world).len(), 20);
    world.silence(MINUTE * 2).await;
    assert_eq!(asked(&world).len(), 50);
    let told = "Kai: I could not read 50 messages of Ana. Please send them again.";
    assert_eq!(world.hears_in("family").await, told);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn hundreds_that_cannot_be_read_are_told_in_a_few_sentences_and_hold_up_no_answer() {
    let mut world = World::new(Behaviour::EchoAll).await;
    let mut told = Vec::new();
    for number in 0..300 {
        world.tells(vec![unread(&world, "family", &format!("{number}"), "Eve", Author::Somebody)]).await;
        if number == 150 {
            let asked = world.seconds();
            world.says("family", "Ana", "@Kai hello").await;
            loop {
                let text = world.hears_in("family").await;
                if text.contains("hello") {
                    break;
                }
                told.push(text);
            }
            assert_eq!(world.seconds(), asked);
        }
        world.passes(Duration::from_secs(30)).await;
    }
    world.passes(MINUTE * 180).await;
    told.extend(world.stop_hearing().await.into_iter().map(|heard| heard.text));
    insta::assert_snapshot!(told.join("\n"), @"
    Kai: I could not read a message of Eve. Please send it again.
    Kai: I could not read 120 messages of Eve. Please send them again.
    Kai: I could not read 120 messages of Eve. Please send them again.
    Kai: I could not read 59 messages of Eve. Please send them again.
    ");
    world.start().await;
    world.silence(MINUTE * 60 * 24).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_more_than_are_looked_after_at_once_the_chat_hears_the_number() {
    let mut world = World::new(Behaviour::EchoAll).await;
    let many = |world: &World, prefix: char, count: usize| {
        (0..count)
            .map(|number| unread(world, "family", &format!("{prefix}{number:03}"), "Eve", Author::OwnPhone))
            .collect::<Vec<Event>>()
    };
    world.tells(many(&world, 'a', 500)).await;
    let told = world.hears_in("family").await;
    assert_eq!(told, "Kai: I could not read 500 messages of Eve. Please send them again.");
    // Later messages are asked for, in place of those that the chat was told of.
    let before = asked(&world).len();
    assert!((200..=400).contains(&before), "{before}");
    world.tells(many(&world, 'b', 1)).await;
    world.silence(MINUTE).await;
    assert!(asked(&world)[before..].contains(&"b000".to_owned()));
    let told = world.hears_in("family").await;
    assert_eq!(told, "Kai: I could not read a message of Eve. Please send it again.");
    world.silence(MINUTE * 60 * 24 * 15).await;
    assert_eq!(world.store.count_unread().await.unwrap(), None);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_waited_at_whatsapp_for_longer_than_phones_keep_it_is_told_too() {
    let mut world = World::new(Behaviour::EchoAll).await;
    let Event::Unread(message) = unread(&world, "family", "1", "Ana", Author::Somebody) else { panic!() };
    let sent_at = world.now() - SignedDuration::from_hours(24 * 20);
    world.tells(vec![Event::Unread(UnreadableMessage { sent_at, ..message })]).await;
    let told = world.hears_in("family").await;
    assert_eq!(told, "Kai: I could not read a message of Ana. Please send it again.");
    assert_eq!(asked(&world), ["1"], "our clock may be wrong");
    assert_eq!(world.store.count_unread().await.unwrap(), None);
    world.silence(MINUTE * 60 * 24).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_full_disk_the_owner_hears_why_kai_was_away() {
    let mut world = World::new(Behaviour::EchoAll).await;
    for link in [LinkState::DiskFull, LinkState::Connecting, LinkState::DiskFull, LinkState::Connecting] {
        world.link(link);
        world.silence(MINUTE).await;
    }
    world.link(LinkState::Online);
    let told = "Kai: I was offline, because the disk of your server was full. Nothing is lost: what was written \
                meanwhile comes now. Please make more room there.";
    assert_eq!(world.hears_in("main").await, told);
    world.link(LinkState::Connecting);
    world.silence(MINUTE).await;
    world.link(LinkState::Online);
    world.silence(MINUTE * 60).await;
    world.ends().await;
}
