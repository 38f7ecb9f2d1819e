//! An owner has said who may ask Kai in a group.

use std::time::Duration;

use nanokimi::bridge::Event;
use nanokimi::types::{
    ChatId, ForwardPolicy, Forwarded, Group, IncomingMessage, LinkedAccount, MediaKind, Mention,
    OthersPolicy, RefusalPolicy, Role, SenderPolicy, SenderRule,
};
use support::scripted_engine::Behaviour;
use support::test_service::{edited, lid, media, message, name, phone, reacted, same_person};

use crate::world::World;

/// A family in which Ana and the owner may ask, nobody else.
async fn family(rule: SenderRule) -> World {
    let world = World::new(Behaviour::EchoAll).await;
    let account = LinkedAccount { id: phone("Owner"), lid: Some(lid("Owner")), name: "Olga".to_owned() };
    world.tells(vec![Event::Account(account)]).await;
    let rule = SenderRule { may_ask: SenderPolicy::Listed, ..rule };
    world.choose("family", |group| group.senders = rule).await;
    world.store.change_allowed_senders(&name("family"), vec![phone("Ana")], Vec::new()).await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn who_is_not_on_the_list_is_context_and_the_owner_needs_no_list() {
    let mut world = family(SenderRule::default()).await;
    world.says("family", "Bob", "@Kai which hotel?").await;
    world.silence(Duration::from_secs(60)).await;
    assert_eq!(world.docker.tries(), 0, "no agent is started for it");
    world.says("family", "Ana", "@Kai answer Bob").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai which hotel? @Kai answer Bob");
    world.says("family", "Owner", "@Kai thank you").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai thank you");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn no_way_of_calling_goes_around_the_rule() {
    let mut world = family(SenderRule::default()).await;
    world.choose("family", |group| group.forwards = ForwardPolicy::Call).await;
    world.says("family", "Ana", "@Kai hello").await;
    let answer = world.hears().await;
    let by_bob = |id: &str, text: &str| message("family", id, "Bob", text, world.now());
    let ways = vec![
        Event::Message(IncomingMessage { mention: Mention::Me, ..by_bob("1", "hello") }),
        Event::Message(IncomingMessage { forwarded: Forwarded::Many, ..by_bob("2", "@Kai hello") }),
        Event::Message(by_bob("3", "hello")),
        edited("3", "4", by_bob("4", "@Kai hello")),
        // The edit comes before its message.
        edited("5", "6", by_bob("6", "@Kai newer")),
        Event::Message(by_bob("5", "@Kai older")),
        Event::Message(by_bob("7", "/help")),
    ];
    world.tells(ways).await;
    world.quotes("family", "Bob", "really?", &answer).await;
    world.tells(vec![reacted("family", "8", "Bob", "7", "👍", world.now())]).await;
    world.silence(Duration::from_secs(60 * 60)).await;
    // After his message was read, an edit of it tells nothing by itself neither.
    world.says("family", "Ana", "@Kai go on").await;
    world.hears_in("family").await;
    world.tells(vec![edited("3", "9", message("family", "9", "Bob", "@Kai please", world.now()))]).await;
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_on_the_list_may_ask_under_every_name_and_a_lookalike_may_not() {
    let mut world = family(SenderRule::default()).await;
    let by_lid = |id: &str, sender: &str, text: &str, world: &World| IncomingMessage {
        sender: lid(sender),
        ..message("family", id, sender, text, world.now())
    };
    world.writes(by_lid("1", "Ana", "@Kai who am I?", &world)).await;
    world.silence(Duration::from_secs(60)).await;
    // WhatsApp tells whose name that is.
    world.tells(vec![same_person("Ana")]).await;
    world.writes(by_lid("2", "Ana", "@Kai and now?", &world)).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai who am I? @Kai and now?");
    // Anybody may call themselves Ana.
    let false_ana = IncomingMessage {
        sender: phone("Bob"),
        ..message("family", "3", "Ana", "@Kai it is me", world.now())
    };
    world.writes(false_ana).await;
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_write_may_be_dropped() {
    let mut world = family(SenderRule { others: OthersPolicy::Dropped, ..SenderRule::default() }).await;
    world.says("family", "Bob", "@Kai the code is 4711").await;
    let id = world.says("family", "Bob", "my secret").await;
    world
        .tells(vec![
            edited(&id, "e1", message("family", "e1", "Bob", "@Kai my other secret", world.now())),
            reacted("family", "r1", "Bob", &id, "👍", world.now()),
        ])
        .await;
    world.silence(Duration::from_secs(60)).await;
    world.says("family", "Ana", "@Kai what was said?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai what was said?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ask_is_told_once_a_day_where_the_owner_wants_that() {
    for others in [OthersPolicy::Context, OthersPolicy::Dropped] {
        let told = RefusalPolicy::Told;
        let mut world = family(SenderRule { others, refusals: told, ..SenderRule::default() }).await;
        world.says("family", "Bob", "a word among people").await;
        world.silence(Duration::from_secs(60)).await;
        for call in ["@Kai hello", "@Kai hello?"] {
            world.says("family", "Bob", call).await;
        }
        let said = world.hears_in("family").await;
        assert!(said.starts_with("Kai: Here I answer only the people whom my owner has chosen"), "{said}");
        world.silence(Duration::from_secs(60 * 60)).await;
        world.says("family", "Cem", "@Kai and me?").await;
        assert!(world.hears_in("family").await.starts_with("Kai: Here I answer only"));
        world.kill().await;
        world.start().await;
        world.says("family", "Bob", "@Kai after a restart?").await;
        world.silence(Duration::from_secs(24 * 60 * 60)).await;
        world.says("family", "Bob", "@Kai today?").await;
        assert!(world.hears_in("family").await.starts_with("Kai: Here I answer only"));
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_from_the_next_message_on() {
    let mut world = family(SenderRule::default()).await;
    world.says("family", "Bob", "@Kai one").await;
    world.silence(Duration::from_secs(60)).await;
    world.store.change_allowed_senders(&name("family"), vec![lid("Bob")], vec![phone("Ana")]).await.unwrap();
    world.says("family", "Ana", "@Kai two").await;
    world.silence(Duration::from_secs(60)).await;
    world.tells(vec![same_person("Bob")]).await;
    world.says("family", "Bob", "@Kai three").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai one @Kai two @Kai three");
    world.choose("family", |group| group.senders.may_ask = SenderPolicy::Owner).await;
    world.says("family", "Bob", "@Kai four").await;
    world.silence(Duration::from_secs(60)).await;
    // What was removed and added again has no list of before.
    world.store.remove_group(&name("family")).await.unwrap();
    let group = Group::new(name("family"), ChatId::new("family@g.us"), Role::Member);
    let senders = SenderRule { may_ask: SenderPolicy::Listed, ..SenderRule::default() };
    world.store.add_group(&Group { senders, ..group }, world.now()).await.unwrap();
    world.says("family", "Bob", "@Kai five").await;
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_may_ask_everywhere_also_where_kai_has_a_number_of_its_own() {
    let mut world = World::without_service(Behaviour::EchoAll).await;
    world.store.remove_group(&name("main")).await.unwrap();
    let chat = ChatId::new(phone("Olga").as_str());
    world.add(Group::new(name("main"), chat, Role::Main)).await;
    world.start().await;
    let account = LinkedAccount { id: phone("Kai"), lid: Some(lid("Kai")), name: "Kai".to_owned() };
    world.tells(vec![Event::Account(account), same_person("Olga")]).await;
    for group in ["family", "main"] {
        world.choose(group, |group| group.senders.may_ask = SenderPolicy::Owner).await;
    }
    let from = IncomingMessage {
        sender: lid("Olga"),
        ..message("family", "1", "Olga", "@Kai in the family", world.now())
    };
    world.writes(from).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai in the family");
    world.says("family", "Ana", "@Kai and me?").await;
    world.silence(Duration::from_secs(60)).await;
    let own = IncomingMessage {
        chat: ChatId::new(lid("Olga").as_str()),
        ..message("main", "2", "Olga", "in my own chat", world.now())
    };
    world.writes(own).await;
    assert_eq!(world.hears_in(phone("Olga").as_str()).await, "Kai: echo: in my own chat");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn typing_of_somebody_who_may_not_ask_starts_no_agent() {
    let mut world = World::new(Behaviour::EchoAll).await;
    let ana = ChatId::new(phone("Ana").as_str());
    world.add(Group::new(name("Ana"), ana.clone(), Role::Member)).await;
    world.choose("Ana", |group| group.senders.may_ask = SenderPolicy::Owner).await;
    world.tells(vec![Event::Typing { chat: ana.clone() }]).await;
    world.silence(Duration::from_secs(60)).await;
    assert_eq!(world.docker.tries(), 0);
    world.choose("Ana", |group| group.senders.may_ask = SenderPolicy::Listed).await;
    world.store.change_allowed_senders(&name("Ana"), vec![phone("Ana")], Vec::new()).await.unwrap();
    world.tells(vec![Event::Typing { chat: ana }]).await;
    world.silence(Duration::from_secs(60)).await;
    assert_eq!(world.docker.tries(), 1);
    world.ends().await;
}

/// A family in which one person may call three times in an hour.
async fn hurried_family() -> World {
    let world = World::new(Behaviour::EchoAll).await;
    let account = LinkedAccount { id: phone("Owner"), lid: Some(lid("Owner")), name: "Olga".to_owned() };
    world.tells(vec![Event::Account(account)]).await;
    world.choose("family", |group| group.turns_per_hour = Some(3)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn who_calls_too_often_in_an_hour_is_told_once_and_nothing_is_lost() {
    let mut world = hurried_family().await;
    for call in ["@Kai one", "@Kai two", "@Kai three"] {
        world.says("family", "Ana", call).await;
        assert_eq!(world.hears_in("family").await, format!("Kai: echo: {call}"));
        world.passes(Duration::from_secs(5 * 60)).await;
    }
    world.says("family", "Ana", "@Kai four").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: You have asked me 3 times within an hour, and more I may not answer one person here. Please ask me again in 45 minutes; what you write until then I keep, and read it with the next message that I answer.");
    // The same person under another name is the same person.
    world.tells(vec![same_person("Ana")]).await;
    let five =
        IncomingMessage { sender: lid("Ana"), ..message("family", "5", "Ana", "@Kai five", world.now()) };
    world.writes(five).await;
    world.silence(Duration::from_secs(10 * 60)).await;
    // Other people and the owner are answered, with what Ana wrote.
    world.says("family", "Bob", "@Kai and me?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai four @Kai five @Kai and me?");
    for call in 0..5 {
        world.says("family", "Owner", &format!("@Kai owner {call}")).await;
        assert_eq!(world.hears_in("family").await, format!("Kai: echo: @Kai owner {call}"));
    }
    world.kill().await;
    world.start().await;
    world.says("family", "Ana", "@Kai after a restart").await;
    world.silence(Duration::from_secs(36 * 60)).await;
    // An hour after her first call she may ask again, once.
    world.says("family", "Ana", "@Kai at last").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai after a restart @Kai at last");
    world.says("family", "Ana", "@Kai more").await;
    assert!(world.hears_in("family").await.starts_with("Kai: You have asked me 3 times"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_call_that_was_counted_is_no_other_call() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 1);
    world.choose("family", |group| group.turns_per_hour = Some(1)).await;
    world.start().await;
    world.says("main", "Owner", "something else first").await;
    let first = world.prompt().await;
    // The only slot is taken, so that the call waits while it is edited.
    let call = world.says("family", "Ana", "@Kai which hotle?").await;
    let corrected = |id: &str, text: &str| edited(&call, id, message("family", id, "Ana", text, world.now()));
    world.tells(vec![corrected("e1", "@Kai which hotel?"), corrected("e2", "@Kai which hotel then?")]).await;
    first.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");
    let turn = world.prompt().await;
    turn.answer("The one by the sea.");
    assert_eq!(world.hears_in("family").await, "Kai: The one by the sea.");
    world.says("family", "Ana", "@Kai thank you").await;
    assert!(world.hears_in("family").await.starts_with("Kai: You have asked me once"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_edit_came_first_and_was_counted_is_answered_at_the_limit() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 1);
    world.choose("family", |group| group.turns_per_hour = Some(1)).await;
    world.start().await;
    world.chats.hold_file(b"photo", b"\x89PNG\r\n\x1a\na picture");
    world.says("main", "Owner", "something else first").await;
    let first = world.prompt().await;
    let photo = media(MediaKind::Image, "image/png", b"photo");
    let sent = IncomingMessage {
        media: Some(photo),
        ..message("family", "f1", "Ana", "@Kai where is tihs?", world.now())
    };
    let corrected = message("family", "e1", "Ana", "@Kai where is this?", world.now());
    world.tells(vec![edited("f1", "e1", corrected)]).await;
    first.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");
    world.writes(sent).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("where is this?"), "{}", turn.text);
    turn.answer("By the sea.");
    assert_eq!(world.hears_in("family").await, "Kai: By the sea.");
    world.ends().await;
}
