//! Answers that are more than text: files, reactions, mentions, quotes.

use std::fs;
use std::os::unix::fs::symlink;

use nanokimi::types::{ChatId, Group, IncomingMessage, MediaKind, Role, SenderId};
use support::scripted_engine::Behaviour;
use support::test_service::{Heard, Read, What, message, name};

use crate::world::World;

/// Kai gives this answer to a person in the group.
async fn answered(world: &mut World, group: &str, answer: &str) -> String {
    let id = world.says(group, "Ana", "@Kai please").await;
    world.prompt().await.answer(answer);
    id
}

#[tokio::test(start_paused = true)]
async fn kai_sends_a_file_of_the_chats_folder_between_his_words() {
    let mut world = World::new(Behaviour::Held).await;
    fs::create_dir(world.in_folder("family", "charts")).unwrap();
    fs::write(world.in_folder("family", "charts/2026.png"), "a chart").unwrap();
    let answer = "Here you are.\n<file path=\"/workspace/group/charts/2026.png\">The *year*</file>\nMore?";
    let asked = answered(&mut world, "family", answer).await;

    let first = world.hears().await;
    assert_eq!((first.text.as_str(), first.to.as_ref()), ("Kai: Here you are.", Some(&asked)));
    let file = world.hears().await;
    assert_eq!((file.text.as_str(), file.to), ("The _year_", None));
    assert_eq!(
        file.what,
        What::File {
            kind: MediaKind::Image,
            mime: "image/png".to_owned(),
            name: "2026.png".to_owned(),
            bytes: b"a chart".to_vec()
        }
    );
    assert_eq!(world.hears_in("family").await, "Kai: More?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_caption_of_a_voice_note_or_a_song_goes_ahead_of_it_as_a_text() {
    let mut world = World::new(Behaviour::Held).await;
    for ending in ["ogg", "opus", "mp3", "m4a", "aac", "amr"] {
        let name = format!("hello.{ending}");
        fs::write(world.in_folder("main", &name), "OggS").unwrap();
        answered(&mut world, "main", &format!("<file path=\"{name}\">Listen</file>")).await;
        assert_eq!(world.hears_in("main").await, "Kai: Listen");
        let heard = world.hears().await;
        assert_eq!(heard.text, "");
        let played = matches!(heard.what, What::File { kind: MediaKind::Voice | MediaKind::Audio, .. });
        assert!(played, "{heard:?}");
    }
    answered(&mut world, "main", "<file path=\"hello.ogg\"></file>").await;
    assert_eq!(world.hears().await.text, "");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_sent_is_said_so_and_shows_no_secret() {
    let mut world = World::new(Behaviour::Held).await;
    world.settings(|settings| settings.media_limit_bytes = 1024 * 1024);
    world.stop().await;
    world.start().await;
    fs::write(world.paths().root().join(".env"), "MOONSHOT_API_KEY=sk-canary").unwrap();
    symlink("../../.env", world.in_folder("main", "plan.pdf")).unwrap();
    symlink(world.paths().root(), world.in_folder("main", "everything")).unwrap();
    fs::write(world.in_folder("main", "huge.zip"), vec![0; 1024 * 1024 + 1]).unwrap();
    for (path, expected) in [
        ("missing.png", "⚠️ I could not send a file: it is not there."),
        ("huge.zip", "⚠️ I could not send a file: it is larger than 1 MB."),
        ("plan.pdf", "⚠️ I could not send a file: it is not a file in this chat's folder."),
        ("everything/.env", "⚠️ I could not send a file: it is not a file in this chat's folder."),
        ("../../.env", "⚠️ I could not send a file: it is not a file in this chat's folder."),
        ("/etc/passwd", "⚠️ I could not send a file: it is not a file in this chat's folder."),
        ("/workspace/group", "⚠️ I could not send a file: it is not a file in this chat's folder."),
    ] {
        answered(&mut world, "main", &format!("<file path=\"{path}\"></file>")).await;
        let Heard { text, what, .. } = world.hears().await;
        assert_eq!((text, what), (format!("Kai: {expected}"), What::Text), "{path}");
    }
    answered(&mut world, "main", "<file path=\"missing.png\">Our trip</file>").await;
    assert_eq!(world.hears_in("main").await, "Kai: Our trip\n\n⚠️ I could not send a file: it is not there.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reaction_goes_to_the_message_that_called() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Bo", "nothing for Kai").await;
    let asked = answered(&mut world, "family", "<reaction>👍</reaction>").await;
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), &heard.what, heard.to), ("👍", &What::Reaction, Some(asked)));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_quotes_in_a_group_and_not_in_a_direct_chat() {
    let mut world = World::new(Behaviour::Held).await;
    let direct = Group::new(name("owner"), ChatId::new("34600000001@s.whatsapp.net"), Role::Member);
    world.add(direct.clone()).await;
    let long = format!("One.\n\n{}", "a".repeat(3_995));
    let asked = answered(&mut world, "family", &long).await;
    assert_eq!(world.hears().await.to, Some(asked));
    assert_eq!(world.hears().await.to, None, "the first part is enough");

    let call =
        IncomingMessage { chat: direct.chat, ..message("x", "d1", "34600000001", "@Kai hello", world.now()) };
    world.writes(call).await;
    world.prompt().await.answer("Hello.");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to), ("Kai: Hello.", None));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn each_answer_of_a_turn_quotes_its_own_call() {
    let mut world = World::new(Behaviour::Held).await;
    let first = world.says("family", "Ana", "@Kai first").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("One.");
    let second = world.says("family", "Bo", "@Kai second").await;
    let steer = turn.request("steer").await;
    turn.takes_steer(&steer);
    turn.step();
    turn.says("Two.");
    turn.finish();
    assert_eq!(world.hears().await.to, Some(first));
    assert_eq!(world.hears().await.to, Some(second));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_named_is_mentioned_where_the_name_is_one_persons() {
    let mut world = World::new(Behaviour::Held).await;
    for (nth, (number, name)) in
        [("34600000001", "Ana"), ("34600000002", "Bo"), ("34600000003", "Bo")].into_iter().enumerate()
    {
        let id = SenderId::new(format!("{number}@s.whatsapp.net"));
        let hello = message("family", &format!("n{nth}"), name, "hello", world.now());
        world.writes(IncomingMessage { sender: id, ..hello }).await;
    }
    world.says("family", "Cy", "@Kai who is next?").await;
    world.prompt().await.answer("@Ana, then @Bo; `@Ana` is code.");
    let heard = world.hears().await;
    assert_eq!(heard.text, "Kai: @34600000001, then @Bo; `@Ana` is code.");
    assert_eq!(heard.mentions, ["34600000001@s.whatsapp.net"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_wrote_sees_that_kai_has_read_it() {
    let mut world = World::new(Behaviour::Held).await;
    let one = world.says("family", "Ana", "one").await;
    let two = world.says("family", "Bo", "two").await;
    assert!(world.chats.read().is_empty());
    let three = world.says("family", "Ana", "@Kai three").await;
    let turn = world.prompt().await;
    let read = |sender: &str, messages: &[&String]| Read {
        group: "family".to_owned(),
        sender: format!("{sender}@s.whatsapp.net"),
        messages: messages.iter().map(|id| (*id).clone()).collect(),
    };
    assert_eq!(world.chats.read(), [read("Ana", &[&one, &three]), read("Bo", &[&two])]);
    turn.answer("ok");
    assert_eq!(world.hears_in("family").await, "Kai: ok");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn no_answer_of_one_chat_ends_the_service_of_all() {
    let mut world = World::new(Behaviour::Held).await;
    answered(&mut world, "main", "*a*\r===").await;
    assert_eq!(world.hears_in("main").await, "Kai: _a_\n===");
    answered(&mut world, "family", "**a**\r---\u{2028}b").await;
    assert_eq!(world.hears_in("family").await, "Kai: *a*\n---\nb");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn one_answer_never_buries_a_chat_in_messages() {
    let mut world = World::new(Behaviour::Held).await;
    answered(&mut world, "main", &"a<reaction>👍</reaction>".repeat(2_000)).await;
    assert_eq!(world.hears().await.what, What::Reaction);
    assert_eq!(world.hears_in("main").await, format!("Kai: {}", "a".repeat(2_000)));

    fs::write(world.in_folder("main", "a.txt"), "text").unwrap();
    answered(&mut world, "main", &"<file path=\"a.txt\">b</file>".repeat(2_000)).await;
    for _ in 0..10 {
        assert!(matches!(world.hears().await.what, What::File { .. }));
    }
    let mut captions = 0;
    while captions < 1_990 {
        captions += world.hears_in("main").await.matches('b').count();
    }
    let told = "Kai: I left out 1990 files: at most 10 go with one answer. Ask me for the rest.";
    assert_eq!(world.hears_in("main").await, told);
    world.ends().await;
}
