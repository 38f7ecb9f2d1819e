//! Pictures, voice notes and other files that people send.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nanokimi::bridge::{FetchError, LinkState, Typing};
use nanokimi::types::{Media, MediaKind, TranscriptionServer};
use support::scripted_engine::Behaviour;
use support::test_service::{deleted, media};

use crate::world::World;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\na picture";

fn photo(handle: &[u8]) -> Media {
    media(MediaKind::Image, "image/png", handle)
}

#[tokio::test(start_paused = true)]
async fn a_picture_with_a_caption_is_a_file_in_the_folder_and_seen_by_the_model() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    let media = Media { name: Some("../\"beach\".png".to_owned()), ..photo(b"photo") };
    world.sends("family", "Ana", "@Kai where is this?", media).await;

    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m1" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM"><file kind="image" path="/workspace/group/inbox/2026-11-21/120000-000001.png" name="../&quot;beach&quot;.png" />
    @Kai where is this?</message>
    </messages>
    "#);
    assert_eq!(turn.images, ["data:image/png;base64,iVBORw0KGgphIHBpY3R1cmU="]);
    let saved = fs::read(world.in_folder("family", "inbox/2026-11-21/120000-000001.png")).unwrap();
    assert_eq!(saved, PNG);
    turn.answer("At the beach.");
    assert_eq!(world.hears_in("family").await, "Kai: At the beach.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_voice_note_without_a_word_wakes_the_main_channel() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"voice", b"OggS");
    world.sends("main", "Owner", "", media(MediaKind::Voice, "audio/ogg; codecs=opus", b"voice")).await;
    let turn = world.prompt().await;
    let file = r#"<file kind="voice" path="/workspace/group/inbox/2026-11-21/120000-000001.ogg" words-missing="nothing here turns voice notes into words" />"#;
    assert!(turn.text.contains(file), "{}", turn.text);
    // The owner hears once that there could be words.
    assert!(world.hears_in("main").await.contains("set TRANSCRIBE_URL in .env"));
    assert!(turn.images.is_empty());
    turn.answer("I hear you.");
    assert_eq!(world.hears_in("main").await, "Kai: I hear you.");
    world.chats.hold_file(b"another", b"OggS");
    world.sends("main", "Owner", "", media(MediaKind::Voice, "audio/ogg; codecs=opus", b"another")).await;
    world.prompt().await.answer("I hear you again.");
    assert_eq!(world.hears_in("main").await, "Kai: I hear you again.");
    world.ends().await;
}

/// The server that turns voice notes into words answers once. Time stands still until it has.
fn answer_once(server: &TcpListener, status: &str, body: &str) -> tokio::task::JoinHandle<()> {
    let server = server.try_clone().unwrap();
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    tokio::task::spawn_blocking(move || {
        let (mut socket, _) = server.accept().unwrap();
        let mut asked = Vec::new();
        let mut piece = [0; 4096];
        while !asked.ends_with(b"--\r\n") {
            let length = socket.read(&mut piece).unwrap();
            assert!(length > 0, "the form comes whole");
            asked.extend_from_slice(&piece[..length]);
        }
        socket.write_all(answer.as_bytes()).unwrap();
    })
}

#[tokio::test(start_paused = true)]
async fn a_voice_note_becomes_words_beside_its_file_and_a_server_that_fails_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = TranscriptionServer { base, key: None, model: "whisper-1".to_owned() };
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.transcription = Some(server));
    world.start().await;
    world.chats.hold_file(b"voice", b"OggS");
    let note = || media(MediaKind::Voice, "audio/ogg; codecs=opus", b"voice");
    let serving = answer_once(&listener, "200 OK", r#"{"text": "Where is <b>the</b> key?"}"#);
    world.sends("main", "Owner", "", note()).await;
    let turn = world.prompt().await;
    serving.await.unwrap();
    let file = r#"<file kind="voice" path="/workspace/group/inbox/2026-11-21/120000-000001.ogg"><words>Where is &lt;b&gt;the&lt;/b&gt; key?</words></file>"#;
    assert!(turn.text.contains(file), "{}", turn.text);
    assert_eq!(fs::read(world.in_folder("main", "inbox/2026-11-21/120000-000001.ogg")).unwrap(), b"OggS");
    turn.answer("In the drawer.");
    assert_eq!(world.hears_in("main").await, "Kai: In the drawer.");

    let serving = answer_once(&listener, "500 No", "");
    world.sends("main", "Owner", "", note()).await;
    let turn = world.prompt().await;
    let failed = r#"words-missing="the server that turns voice notes into words has failed" />"#;
    assert!(turn.text.contains(failed), "{}", turn.text);
    turn.answer("I could not listen.");
    assert_eq!(world.hears_in("main").await, "Kai: I could not listen.");
    serving.await.unwrap();
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_about_stays_on_whatsapps_servers_until_somebody_does() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    world.sends("family", "Ana", "look", photo(b"photo")).await;
    world.silence(Duration::from_secs(600)).await;
    assert!(world.chats.fetched().is_empty());

    world.says("family", "Bo", "@Kai what is it?").await;
    let turn = world.prompt().await;
    assert_eq!(world.chats.fetched(), [b"photo"]);
    assert!(turn.text.contains("000001.png\" />\nlook</message>"), "{}", turn.text);
    assert_eq!(turn.images.len(), 1);
    turn.answer("A picture.");
    assert_eq!(world.hears_in("family").await, "Kai: A picture.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_had_is_told_with_the_reason() {
    let mut world = World::new(Behaviour::Held).await;
    world.settings(|settings| settings.media_limit_bytes = 1024 * 1024);
    world.stop().await;
    world.start().await;
    let declared_large = Media { bytes: 2 * 1024 * 1024, ..photo(b"declared") };
    world.chats.hold_file(b"lied", &vec![0; 1024 * 1024 + 1]);
    world.chats.refuse_file(b"damaged", FetchError::Damaged);
    world.chats.refuse_file(b"offline", FetchError::Later);
    world.chats.hang_file(b"stuck");
    for (media, reason, tries) in [
        (declared_large, "larger than 1 MB", 0),
        (photo(b"lied"), "larger than 1 MB", 1),
        (photo(b"gone"), "WhatsApp does not have it any more", 1),
        (photo(b"damaged"), "could not be decrypted", 1),
        (photo(b"offline"), "could not be fetched in time", 3),
        (photo(b"stuck"), "could not be fetched in time", 1),
    ] {
        let handle = media.handle.clone();
        world.sends("main", "Owner", "look", media).await;
        let turn = world.prompt().await;
        let file = format!("<file kind=\"image\" missing=\"{reason}\" />\nlook");
        assert!(turn.text.contains(&file), "{}", turn.text);
        assert!(turn.images.is_empty());
        let tried = world.chats.fetched().iter().filter(|fetched| **fetched == handle).count();
        assert_eq!(tried, tries, "{reason}");
        turn.answer("ok");
        assert_eq!(world.hears_in("main").await, "Kai: ok");
    }
    // No unfinished file is left behind.
    let day = world.in_folder("main", "inbox/2026-11-21");
    assert_eq!(fs::read_dir(day).unwrap().count(), 0);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn while_whatsapp_is_away_a_file_is_waited_for() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    world.link(LinkState::Connecting);
    world.sends("main", "Owner", "look", photo(b"photo")).await;
    world.silence(Duration::from_secs(600)).await;
    assert!(world.chats.fetched().is_empty());
    assert_eq!(world.docker.tries(), 0, "nobody is woken for what cannot be told");
    world.link(LinkState::Online);
    let turn = world.prompt().await;
    assert_eq!(turn.images.len(), 1);
    turn.answer("ok");
    assert_eq!(world.hears_in("main").await, "Kai: ok");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn killed_in_mid_fetch_it_is_fetched_after_the_start() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hang_file(b"photo");
    world.sends("main", "Owner", "look", photo(b"photo")).await;
    world.silence(Duration::from_secs(5)).await;
    world.kill().await;
    // Files that a harder kill would have left.
    fs::write(world.in_folder("main", "inbox/2026-11-21/.000001.part"), "half").unwrap();
    world.chats.let_files_come();
    world.chats.hold_file(b"photo", PNG);
    world.start().await;
    let turn = world.prompt().await;
    assert_eq!(turn.images.len(), 1, "{}", turn.text);
    turn.answer("ok");
    assert_eq!(world.hears_in("main").await, "Kai: ok");
    assert_eq!(fs::read_dir(world.in_folder("main", "inbox/2026-11-21")).unwrap().count(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_file_holds_its_own_chat_and_no_other() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hang_file(b"slow");
    world.chats.hold_file(b"quick", PNG);
    world.sends("family", "Ana", "@Kai look", photo(b"slow")).await;
    world.says("family", "Ana", "@Kai do you see it?").await;
    world.sends("main", "Owner", "and this", photo(b"quick")).await;

    let main = world.prompt().await;
    assert_eq!((main.group.as_str(), main.images.len()), ("main", 1));
    main.answer("ok");
    assert_eq!(world.hears_in("main").await, "Kai: ok");
    assert!(world.seconds() < 10);

    let family = world.prompt().await;
    assert!(world.seconds() >= 360, "a slow line has time for it");
    assert!(family.text.contains("missing=\"could not be fetched in time\""), "{}", family.text);
    assert!(family.text.contains("do you see it?"), "told with its file, in one turn: {}", family.text);
    family.answer("No.");
    assert_eq!(world.hears_in("family").await, "Kai: No.");
    let typing = world.chats.typing();
    let on = typing.iter().filter(|(group, shown)| group == "family" && *shown == Typing::On).count();
    assert!(on >= 40, "typing is shown meanwhile: {typing:?}");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_sends_and_sends_is_answered_meanwhile() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hang_file(b"slow");
    for _ in 0..3 {
        world.sends("main", "Owner", "look", photo(b"slow")).await;
        world.silence(Duration::from_secs(110)).await;
    }
    let first = world.prompt().await;
    assert_eq!(first.text.matches("<message ").count(), 1, "{}", first.text);
    first.answer("1");
    assert_eq!(world.hears_in("main").await, "Kai: 1");
    let rest = world.prompt().await;
    assert_eq!(rest.text.matches("<message ").count(), 2, "{}", rest.text);
    rest.answer("2");
    assert_eq!(world.hears_in("main").await, "Kai: 2");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_comes_during_a_turn_is_told_to_it_once_it_is_there() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    world.says("main", "Owner", "I will send you a picture").await;
    let turn = world.prompt().await;
    turn.step();
    world.sends("main", "Owner", "here", photo(b"photo")).await;
    let steer = turn.request("steer").await;
    assert!(steer.contains("000002.png\" />\nhere"), "{steer}");
    turn.takes_steer(&steer);
    turn.says("I see.");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: I see.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_see_is_asked_without_the_picture() {
    let mut world = World::new(Behaviour::Blind).await;
    world.chats.hold_file(b"photo", PNG);
    for answer in ["I cannot see it.", "Still not."] {
        world.sends("main", "Owner", "look", photo(b"photo")).await;
        let turn = world.prompt().await;
        assert!(turn.images.is_empty());
        assert!(turn.text.contains("<file kind=\"image\" path="), "{}", turn.text);
        turn.answer(answer);
        assert_eq!(world.hears_in("main").await, format!("Kai: {answer}"));
    }
    assert_eq!(world.docker.tries(), 1, "nothing has failed");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_kimi_refuses_does_not_silence_the_chat() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    world.docker.next(Behaviour::Fails(-32003, "Error code: 400 - invalid image"));
    world.sends("main", "Owner", "look", photo(b"photo")).await;
    let turn = world.prompt().await;
    assert_eq!(world.docker.tries(), 2, "the first engine has the picture in its memory for ever");
    assert!(turn.images.is_empty() && turn.text.contains("look"), "{}", turn.text);
    turn.answer("I cannot see it.");
    assert_eq!(world.hears_in("main").await, "Kai: I cannot see it.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_many_files_the_newest_are_fetched() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    for _ in 0..22 {
        world.sends("family", "Ana", "", photo(b"photo")).await;
    }
    world.says("family", "Ana", "@Kai which is best?").await;
    let turn = world.prompt().await;
    assert_eq!(world.chats.fetched().len(), 20);
    assert_eq!(turn.text.matches("missing=\"too many files at once\"").count(), 2, "{}", turn.text);
    assert!(turn.text.contains(
        "<message id=\"m2\" sender=\"Ana\" person=\"p1\" time=\"Nov 21, 2026, 12:00 PM\"><file kind=\"image\" missing="
    ));
    assert_eq!(turn.images.len(), 4);
    turn.answer("The last.");
    assert_eq!(world.hears_in("family").await, "Kai: The last.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_in_the_inbox_folders_place_lets_nothing_out() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    let outside = world.paths().root().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, world.in_folder("main", "inbox")).unwrap();
    world.sends("main", "Owner", "look", photo(b"photo")).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("missing=\"could not be saved in the inbox folder\""), "{}", turn.text);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    turn.answer("ok");
    assert_eq!(world.hears_in("main").await, "Kai: ok");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_while_it_waits_leaves_no_file() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hang_file(b"slow");
    world.chats.hold_file(b"photo", PNG);
    world.says("family", "Ana", "these two").await;
    world.sends("family", "Ana", "", photo(b"slow")).await;
    let id = world.sends("family", "Ana", "@Kai look", photo(b"photo")).await;
    world.silence(Duration::from_secs(5)).await;
    let day = world.in_folder("family", "inbox/2026-11-21");
    let saved = || fs::read_dir(&day).unwrap().filter(|file| is_whole(file.as_ref().unwrap())).count();
    assert_eq!(saved(), 1);
    world.tells(vec![deleted("family", "Ana", &id)]).await;
    world.silence(Duration::from_secs(5)).await;
    assert_eq!(saved(), 0);
    world.ends().await;
}

fn is_whole(file: &fs::DirEntry) -> bool {
    !file.file_name().to_string_lossy().ends_with(".part")
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_while_it_is_fetched_leaves_no_file() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    world.link(LinkState::Connecting);
    let id = world.sends("family", "Ana", "@Kai look", photo(b"photo")).await;
    world.silence(Duration::from_secs(5)).await;
    world.tells(vec![deleted("family", "Ana", &id)]).await;
    world.link(LinkState::Online);
    world.silence(Duration::from_secs(5)).await;
    assert_eq!(world.chats.fetched(), [b"photo"]);
    assert_eq!(fs::read_dir(world.in_folder("family", "inbox/2026-11-21")).unwrap().count(), 0);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_fetched_once_the_database_works_again() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.hold_file(b"photo", PNG);
    let database = rusqlite::Connection::open(world.paths().database_file()).unwrap();
    let index: String = database
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'inbox_wanted'", [], |row| row.get(0))
        .unwrap();
    database.execute_batch("DROP INDEX inbox_wanted").unwrap();
    world.sends("main", "Owner", "look", photo(b"photo")).await;
    world.silence(Duration::from_secs(12)).await;
    assert!(world.chats.fetched().is_empty());
    database.execute_batch(&index).unwrap();
    let turn = world.prompt().await;
    assert_eq!(turn.images.len(), 1);
    turn.answer("ok");
    assert_eq!(world.hears_in("main").await, "Kai: ok");
    world.ends().await;
}
