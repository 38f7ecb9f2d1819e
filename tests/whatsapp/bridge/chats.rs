//! Which chats exist and who is in them, with their changes; and what does not count as a chat.

use nanokimi::types::Event;
use support::whatsapp_client::{Device, Files};
use whatsapp_server::Server;

use super::world::{ANNA, ANNA_LID, ANNAS_CHAT, Bridge, FAMILY, Folder, KAI, server};

const CHESS: &str = "120363000000000002@g.us";
const NEWS: &str = "120363000000000009@newsletter";

async fn linked() -> (Server, Folder, Bridge) {
    let server = server().await;
    let folder = Folder::new();
    let bridge = Bridge::linked(&server, &folder).await;
    server.wait_until_settled(KAI).await;
    (server, folder, bridge)
}

fn group(event: &Event) -> Option<(String, String, Option<u32>)> {
    match event {
        Event::Chat { id, name, members } if id.is_whatsapp_group() => {
            Some((id.as_str().to_owned(), name.clone(), *members))
        }
        Event::Chat { .. }
        | Event::Message(_)
        | Event::Edited(_)
        | Event::Deleted { .. }
        | Event::Reacted(_)
        | Event::Noted(_)
        | Event::SamePerson { .. }
        | Event::Account(_)
        | Event::Answered { .. }
        | Event::Unread(_)
        | Event::ReadAfterAll { .. }
        | Event::Receipt(_)
        | Event::PhoneMissed { .. }
        | Event::IdentityChanged { .. }
        | Event::Typing { .. } => None,
    }
}

#[tokio::test]
async fn a_group_that_is_new_or_renamed_is_told() {
    let (server, _folder, mut bridge) = linked().await;
    server.rename_group(FAMILY, "The family\u{202e}");
    assert_eq!(bridge.next(group).await, (FAMILY.to_owned(), "The family".to_owned(), Some(2)));
    server.add_group(CHESS, "Chess", &[ANNA, KAI]);
    server.phone_writes(ANNA, CHESS, "Your move").await;
    assert_eq!(bridge.next_message().await.chat.as_str(), CHESS);
    assert_eq!(bridge.next(group).await, (CHESS.to_owned(), "Chess".to_owned(), Some(2)));
    bridge.stop().await;
}

#[tokio::test]
async fn who_is_who_and_how_chats_are_called_is_told_once() {
    let (server, _folder, mut bridge) = linked().await;
    server.phone_writes(ANNA, KAI, "One").await;
    let first = bridge.next_batch().await;
    assert_eq!(first.len(), 3, "{first:?}");
    server.drop_connection(KAI);
    bridge.wait_for("a loss", |link| (*link == nanokimi::types::LinkState::Connecting).then_some(())).await;
    bridge.wait_until_online().await;
    server.phone_writes(ANNA, KAI, "Two").await;
    let second = bridge.next_batch().await;
    assert!(matches!(&second[..], [Event::Message(two)] if two.text == "Two"), "{second:?}");
    server.rename_account(ANNA, "Anna Maria");
    server.phone_writes(ANNA, KAI, "Three").await;
    let third = bridge.next_batch().await;
    assert!(
        matches!(&third[..], [Event::Chat { name, .. }, Event::Message(_)] if name == "Anna Maria"),
        "{third:?}"
    );
    let known = [format!("{ANNA_LID}@lid"), ANNAS_CHAT.to_owned()];
    assert!(matches!(&first[0], Event::SamePerson { one, other }
        if known.contains(&one.as_str().to_owned()) && known.contains(&other.as_str().to_owned())));
    bridge.stop().await;
}

#[tokio::test]
async fn statuses_channels_and_nonsense_are_no_messages_and_hold_none_up() {
    let (server, _folder, mut bridge) = linked().await;
    server.phone_posts_status(ANNA, KAI, "My holiday").await;
    server.channel_posts(NEWS, KAI, "Breaking");
    server.phone_offers_history(KAI).await;
    server.phone_sends_nonsense(ANNA, KAI, b"\xff\xff\xff\xff\xff\xff\xff").await;
    server.send_garbage(KAI);
    server.phone_writes(ANNA, KAI, &"long ".repeat(200_000)).await;
    let message = bridge.next_message().await;
    assert!(message.text.starts_with("long long ") && message.text.ends_with(" long "));
    assert!(message.text.contains(" … ") && message.text.chars().count() <= 65_536);
    server.wait_until_settled(KAI).await;
    assert_eq!(server.media_downloads(), 0, "history is not fetched");
    bridge.stop().await;
}

#[tokio::test]
async fn a_message_that_could_not_be_read_comes_when_it_was_sent_again() {
    let (server, _folder, mut bridge) = linked().await;
    let annas = Files::new();
    let anna = Device::linked(&server, &annas, ANNA).await;
    server.damage_next_message(ANNA);
    let written = anna.write(KAI, "Can you read this?").await;
    let message = bridge.next_message().await;
    assert_eq!((message.text.as_str(), message.id.as_str()), ("Can you read this?", written.as_str()));
    bridge.stop().await;
}
