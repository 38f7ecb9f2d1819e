//! What no honest peer sends: the client neither falls nor falls silent over it.

use support::whatsapp_client::{Device, Files};
use whatsapp_rust::prelude::{Event, MessageExt, wa};
use whatsapp_server::Server;

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";
const NEWS: &str = "120363000000000009@newsletter";

/// Anna has only a phone.
async fn server_with_kai(files: &Files) -> (Server, Device) {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    let kai = Device::linked(&server, files, KAI).await;
    (server, kai)
}

async fn assert_still_hears(server: &Server, kai: &mut Device) {
    server.phone_writes(ANNA, KAI, "Still there?").await;
    assert_eq!(kai.next_message().await.message.text_content(), Some("Still there?"));
}

#[tokio::test]
async fn a_good_envelope_with_no_message_in_it_is_passed_over() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    for nonsense in [&b"\xff\xff\xff\xff\xff\xff\xff"[..], b"\x0a\xff\xff\xff\xff\x0f", b""] {
        server.phone_sends_nonsense(ANNA, KAI, nonsense).await;
    }
    assert_still_hears(&server, &mut kai).await;
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn a_message_that_nobody_can_read_is_told_and_asked_for() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.damage_next_message(ANNA);
    let written = server.phone_writes(ANNA, KAI, "Unreadable").await;
    let unreadable = |event: &Event| {
        let Event::UndecryptableMessage(message) = event else { return None };
        Some(message.info.id.clone())
    };
    assert_eq!(kai.wait_for("an unreadable message", unreadable).await, written);
    server.wait_for_receipt_of_kind(KAI, &written, "retry").await;
    assert_still_hears(&server, &mut kai).await;
}

#[tokio::test]
async fn frames_of_garbage_are_passed_over() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.wait_until_settled(KAI).await;
    server.send_garbage(KAI);
    assert_still_hears(&server, &mut kai).await;
}

#[tokio::test]
async fn a_megabyte_of_text_and_a_strange_name_arrive_as_they_are() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    let name = "An\u{0}na\u{202e}\u{2066}\n\u{1b}[31m";
    server.rename_account(ANNA, name);
    let text = "long ".repeat(200_000);
    server.phone_writes(ANNA, KAI, &text).await;
    let heard = kai.next_message().await;
    assert!(heard.message.text_content() == Some(&text));
    assert_eq!(heard.info.push_name, name);
}

#[tokio::test]
async fn one_id_on_two_messages_is_not_the_librarys_concern() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    for text in ["The first", "The second"] {
        let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
        server.phone_sends_as(ANNA, KAI, "3EB0TWICE", message).await;
        let heard = kai.next_message().await;
        assert_eq!((heard.message.text_content(), heard.info.id.as_str()), (Some(text), "3EB0TWICE"));
    }
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn statuses_channels_and_history_come_marked_as_what_they_are() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.phone_posts_status(ANNA, KAI, "My holiday").await;
    let status = kai.next_message().await;
    assert_eq!(status.info.source.chat.to_string(), "status@broadcast");

    server.channel_posts(NEWS, KAI, "Breaking");
    let posted = |event: &Event| {
        let Event::Messages(batch) = event else { return None };
        let post = batch.iter().find(|message| message.info.source.chat.to_string() == NEWS);
        post.map(|post| post.message.text_content().unwrap_or_default().to_owned())
    };
    assert_eq!(kai.wait_for("a post", posted).await, "Breaking");

    server.phone_offers_history(KAI).await;
    assert_still_hears(&server, &mut kai).await;
    server.wait_until_settled(KAI).await;
    assert_eq!(server.media_downloads(), 0);
}

#[tokio::test]
async fn a_message_may_be_hours_old() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.phone_writes(ANNA, KAI, "New").await;
    let new = kai.next_message().await;
    server.date_messages_back(7200);
    server.phone_writes(ANNA, KAI, "Old").await;
    let old = kai.next_message().await;
    let age = (new.info.timestamp - old.info.timestamp).num_seconds();
    assert!((7100..=7200).contains(&age), "{age} s");
}
