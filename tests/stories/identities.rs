//! One person, two names: WhatsApp uses a phone number or a LID, and Kai knows which person it is.

use std::time::Duration;

use nanokimi::bridge::Event;
use nanokimi::types::{ChatId, Group, IncomingMessage, LinkedAccount, Role};
use support::scripted_engine::Behaviour;
use support::test_service::{lid, message, name, phone, same_person};

use crate::world::World;

fn in_chat(chat: &str, message: IncomingMessage) -> IncomingMessage {
    IncomingMessage { chat: ChatId::new(chat), ..message }
}

fn by_lid(message: IncomingMessage) -> IncomingMessage {
    IncomingMessage { sender: lid(&message.sender_name), ..message }
}

fn direct(to: &str) -> Group {
    let chat = ChatId::new(format!("{to}@s.whatsapp.net"));
    Group::new(name(to), chat, Role::Member)
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_under_both_names_of_its_sender_is_answered_once() {
    let mut world = World::new(Behaviour::Echo).await;
    let once = message("family", "3EB0", "Ana", "@Kai once", world.now());
    world.writes(once.clone()).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai once");
    world.tells(vec![same_person("Ana"), Event::Message(by_lid(once.clone()))]).await;
    world.writes(once).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn two_people_may_use_the_same_id() {
    let mut world = World::new(Behaviour::Echo).await;
    world.writes(message("family", "1", "Ana", "@Kai from Ana", world.now())).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai from Ana");
    world.writes(message("family", "1", "Bob", "@Kai from Bob", world.now())).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai from Bob");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_direct_chat_is_answered_where_it_was_registered_whatever_it_is_called_today() {
    let mut world = World::new(Behaviour::Echo).await;
    world.add(direct("Ana")).await;
    let hello = by_lid(in_chat("Ana@lid", message("", "1", "Ana", "@Kai hello", world.now())));
    world.tells(vec![same_person("Ana"), Event::Message(hello)]).await;
    assert_eq!(world.hears_in("Ana@s.whatsapp.net").await, "Kai: echo: @Kai hello");

    let stranger = by_lid(in_chat("Bob@lid", message("", "2", "Bob", "@Kai hello", world.now())));
    world.writes(stranger).await;
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_of_two_names_is_one_chat_to_choose_from_and_one_group() {
    let world = World::new(Behaviour::Echo).await;
    let named = |chat: &str, name: &str, members| Event::Chat {
        id: ChatId::new(chat),
        name: name.to_owned(),
        members,
    };
    world
        .tells(vec![
            named("Zoe@s.whatsapp.net", "Zoe", None),
            Event::Message(in_chat("Ana@lid", message("", "1", "Ana", "hi", world.now()))),
            Event::Message(in_chat("Ana@s.whatsapp.net", message("", "2", "Ana", "hi", world.now()))),
            named("club@g.us", "Chess club", Some(12)),
            named("family@g.us", "Family", Some(4)),
            named("status@broadcast", "Status", None),
            named("news@newsletter", "News", None),
            named("console:main", "Terminal", None),
            Event::Account(LinkedAccount {
                id: phone("Owner"),
                lid: Some(lid("Owner")),
                name: "Olga".to_owned(),
            }),
            same_person("Ana"),
            named("Ana@s.whatsapp.net", "Ana", None),
        ])
        .await;
    let chats = world.store.known_chats().await.unwrap();
    let told: Vec<String> = chats
        .iter()
        .map(|chat| format!("{} | {} | {:?} | {:?}", chat.id, chat.name, chat.members, chat.registered))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    Owner@s.whatsapp.net | Olga | None | None
    club@g.us | Chess club | Some(12) | None
    family@g.us | Family | Some(4) | Some(GroupName("family"))
    Ana@lid | Ana | None | None
    Zoe@s.whatsapp.net | Zoe | None | None
    "#);

    world.store.add_group(&direct("Ana"), world.now()).await.unwrap();
    let again = Group { name: name("Anita"), chat: ChatId::new("Ana@lid"), ..direct("Ana") };
    let refused = world.store.add_group(&again, world.now()).await.unwrap_err().to_string();
    assert!(refused.starts_with("The group Ana serves that chat already"), "{refused}");
    let found = world.store.group_by_chat(&ChatId::new("Ana@lid")).await.unwrap();
    assert_eq!(found.unwrap().name, name("Ana"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_chat_with_oneself_is_answered_under_both_names_of_the_account() {
    let mut world = World::new(Behaviour::Echo).await;
    world.add(direct("Owner")).await;
    let account = LinkedAccount { id: phone("Owner"), lid: Some(lid("Owner")), name: "Olga".to_owned() };
    world.tells(vec![Event::Account(account.clone())]).await;
    assert_eq!(world.store.linked_account().await.unwrap(), Some(account));
    world.writes(by_lid(in_chat("Owner@lid", message("", "1", "Owner", "@Kai note", world.now())))).await;
    assert_eq!(world.hears_in("Owner@s.whatsapp.net").await, "Kai: echo: @Kai note");
    world.ends().await;
}
