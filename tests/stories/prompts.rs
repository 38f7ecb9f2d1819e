//! What the agent is told about the authors of texts: people, quotes, long texts, texts passed on.

use std::fs;
use std::time::Duration;

use nanokimi::bridge::Event;
use nanokimi::types::{ForwardPolicy, Forwarded, Group, IncomingMessage, MediaKind, MessageId, Quote};
use support::scripted_engine::Behaviour;
use support::test_service::{self, media, message, phone};

use crate::world::World;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\na picture";

/// The same message as an answer to another message. Its client may say anything of that one.
fn answering(message: IncomingMessage, id: &str, claimed: &str) -> IncomingMessage {
    let quote = Quote {
        id: MessageId::new(id),
        sender: Some(phone("Mallory")),
        sender_name: "Mallory".to_owned(),
        text: claimed.to_owned(),
        media: None,
    };
    IncomingMessage { quote: Some(quote), ..message }
}

#[tokio::test(start_paused = true)]
async fn people_of_one_name_are_told_apart_and_kai_is_no_name() {
    let mut world = World::new(Behaviour::Held).await;
    let writes = |id: &str, sender: &str, name: &str, text: &str, world: &World| IncomingMessage {
        sender_name: name.to_owned(),
        ..message("family", id, sender, text, world.now())
    };
    world.writes(writes("m1", "111", "Mamá", "we eat at two", &world)).await;
    world.writes(writes("m2", "222", "Mamá", "we eat at three", &world)).await;
    world.writes(writes("m3", "333", "Kai", "I say four", &world)).await;
    world.writes(writes("m4", "444", "you", "@Kai when do we eat?", &world)).await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m1" sender="Mamá" person="p1" time="Nov 21, 2026, 12:00 PM">we eat at two</message>
    <message id="m2" sender="Mamá" person="p2" time="Nov 21, 2026, 12:00 PM">we eat at three</message>
    <message id="m3" sender="Kai" person="p3" time="Nov 21, 2026, 12:00 PM">I say four</message>
    <message id="m4" sender="you" person="p4" time="Nov 21, 2026, 12:00 PM">@Kai when do we eat?</message>
    </messages>
    "#);
    turn.answer("Your mothers differ.");
    assert_eq!(world.hears_in("family").await, "Kai: Your mothers differ.");
    // The id stays the same under another name and after a restart, and for both of WhatsApp's names of the
    // person.
    world.stop().await;
    world.start().await;
    world.tells(vec![Event::SamePerson { one: phone("222"), other: test_service::lid("222") }]).await;
    let renamed = IncomingMessage {
        sender: test_service::lid("222"),
        ..writes("m5", "222", "Lola", "@Kai at three", &world)
    };
    world.writes(renamed).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(r#"sender="Lola" person="p2""#), "{}", turn.text);
    turn.answer("Three.");
    assert_eq!(world.hears_in("family").await, "Kai: Three.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_quote_names_is_told_whole_however_long_ago_it_was() {
    let mut world = World::new(Behaviour::Held).await;
    let recipe = format!("Grandmother's recipe: {}and then the cherries", "an egg, ".repeat(400));
    let recipe_id = world.says("family", "Ana", &recipe).await;
    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    for _ in 0..120 {
        world.says("family", "Bo", "and so on").await;
    }
    world
        .writes(answering(
            message("family", "q1", "Bo", "@Kai how many eggs?", world.now()),
            &recipe_id,
            "none",
        ))
        .await;
    let turn = world.prompt().await;
    let quoted = format!(r#"<quoted id="{recipe_id}" sender="Ana" person="p1">{recipe}</quoted>"#);
    assert!(turn.text.contains(&quoted), "{}", turn.text);
    turn.answer("Four hundred.");
    assert_eq!(world.hears_in("family").await, "Kai: Four hundred.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_picture_that_a_quote_names_is_fetched_and_seen_as_if_it_was_sent_now() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"beach", PNG);
    let photo = world.sends("family", "Ana", "", media(MediaKind::Image, "image/png", b"beach")).await;
    // So much is said that the picture is dropped without a fetch.
    for _ in 0..120 {
        world.says("family", "Bo", "and so on").await;
    }
    world.says("family", "Bo", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    assert_eq!(world.chats.fetched(), Vec::<Vec<u8>>::new());

    world
        .writes(answering(message("family", "q1", "Bo", "@Kai where is this?", world.now()), &photo, ""))
        .await;
    let turn = world.prompt().await;
    let quoted = r#"sender="Ana" person="p1"><file kind="image" path="/workspace/group/inbox/2026-11-21/120000-00007b-quoted.png" />"#;
    assert!(turn.text.contains(quoted), "{}", turn.text);
    assert_eq!(turn.images, ["data:image/png;base64,iVBORw0KGgphIHBpY3R1cmU="]);
    turn.answer("At the beach.");
    assert_eq!(world.hears_in("family").await, "Kai: At the beach.");

    // A file that was saved already is not fetched again while it is there.
    let second =
        world.sends("family", "Ana", "@Kai look", media(MediaKind::Image, "image/png", b"beach")).await;
    world.prompt().await.answer("Nice.");
    assert_eq!(world.hears_in("family").await, "Kai: Nice.");
    let fetched = world.chats.fetched().len();
    for (id, again) in [("q2", 0), ("q3", 1)] {
        world
            .writes(answering(message("family", id, "Bo", "@Kai and this?", world.now()), &second, ""))
            .await;
        let turn = world.prompt().await;
        assert_eq!(turn.images.len(), 1, "{}", turn.text);
        assert_eq!(world.chats.fetched().len(), fetched + again);
        turn.answer("The same.");
        assert_eq!(world.hears_in("family").await, "Kai: The same.");
        fs::remove_dir_all(world.in_folder("family", "inbox")).unwrap();
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_long_message_nothing_that_calls_kai_is_lost_and_the_whole_is_a_file() {
    for letter in ["x", "中"] {
        let mut world = World::new(Behaviour::Held).await;
        let long = letter.repeat(24_000);
        let text = format!("{long} @Kai summarize this {letter}");
        world.says("family", "Ana", &text).await;
        let turn = world.prompt().await;
        let path = "inbox/2026-11-21/120000-000001.txt";
        let whole = format!(r#"<file kind="text" path="/workspace/group/{path}" />"#);
        assert!(turn.text.contains(&whole), "{}", turn.text);
        assert!(turn.text.contains(&format!(" @Kai summarize this {letter}</message>")), "{}", turn.text);
        assert!(turn.text.contains(r#"<left-out characters="16022" />"#), "{}", turn.text);
        assert_eq!(fs::read_to_string(world.in_folder("family", path)).unwrap(), text);
        turn.answer("Much of one letter.");
        assert_eq!(world.hears_in("family").await, "Kai: Much of one letter.");

        // If the call is in the middle, by name or by a mention of the account, the text around it is told
        // too.
        let text = format!("{long} @Kai what is this? {long}");
        world.says("family", "Ana", &text).await;
        let turn = world.prompt().await;
        assert!(turn.text.contains(" @Kai what is this? "), "{}", turn.text);
        assert_eq!(turn.text.matches("<left-out").count(), 2);
        turn.answer("The same.");
        assert_eq!(world.hears_in("family").await, "Kai: The same.");
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_message_that_is_taken_back_takes_its_file_along() {
    let mut world = World::new(Behaviour::Held).await;
    let text = format!("@Kai {}", "x".repeat(20_000));
    let id = world.says("family", "Ana", &text).await;
    let turn = world.prompt().await;
    let file = world.in_folder("family", "inbox/2026-11-21/120000-000001.txt");
    assert!(file.is_file());
    // The engine fails: the message waits for another try.
    turn.fails(-32603, "broken");
    world.passes(Duration::from_secs(1)).await;
    world.tells(vec![test_service::deleted("family", "Ana", &id)]).await;
    world.silence(Duration::from_secs(600)).await;
    assert!(!file.exists());
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_passed_on_is_told_as_that_and_calls_only_if_the_owner_wants_it() {
    let mut world = World::new(Behaviour::Held).await;
    let passed_on = |id: &str, forwarded, world: &World| IncomingMessage {
        forwarded,
        ..message("family", id, "Ana", "@Kai send this to everybody", world.now())
    };
    world.writes(passed_on("f1", Forwarded::Once, &world)).await;
    world.writes(passed_on("f2", Forwarded::Many, &world)).await;
    world.silence(Duration::from_secs(600)).await;
    world.says("family", "Bo", "@Kai is that true?").await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="f1" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM" forwarded="true">@Kai send this to everybody</message>
    <message id="f2" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM" forwarded="many times">@Kai send this to everybody</message>
    <message id="m1" sender="Bo" person="p2" time="Nov 21, 2026, 12:10 PM">@Kai is that true?</message>
    </messages>
    "#);
    turn.answer("No.");
    assert_eq!(world.hears_in("family").await, "Kai: No.");

    let family = world.store.group_by_name(&test_service::name("family")).await.unwrap().unwrap();
    world.store.update_group(&Group { forwards: ForwardPolicy::Call, ..family }).await.unwrap();
    world.writes(passed_on("f3", Forwarded::Once, &world)).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(r#"forwarded="true">@Kai send"#), "{}", turn.text);
    turn.answer("I do not.");
    assert_eq!(world.hears_in("family").await, "Kai: I do not.");

    // In the main channel every message is for Kai.
    let note = IncomingMessage {
        forwarded: Forwarded::Once,
        ..message("main", "n1", "Owner", "look at that", world.now())
    };
    world.writes(note).await;
    world.prompt().await.answer("Seen.");
    assert_eq!(world.hears_in("main").await, "Kai: Seen.");
    world.ends().await;
}
