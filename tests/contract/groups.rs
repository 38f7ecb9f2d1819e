//! Groups between real clients: who comes and goes, what they are called, and groups of both kinds of
//! address.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::prelude::{Event, MessageExt};
use whatsapp_rust::types::events::GroupUpdate;
use whatsapp_server::{Addressing, Server};

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";
const BEN: &str = "15550003333";
const FAMILY: &str = "120363000000000001@g.us";
const OLD_FRIENDS: &str = "15550001111-1400000000@g.us";

async fn server_with_kai(files: &Files) -> (Server, Device) {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    server.add_account(BEN, "100000000000003", "Ben");
    let kai = Device::linked(&server, files, KAI).await;
    (server, kai)
}

/// What the client says that happened to a group.
fn change(event: &Event) -> Option<String> {
    let Event::GroupUpdate(GroupUpdate { group_jid, action, .. }) = event else { return None };
    Some(format!("{} in {}", action.tag_name(), group_jid))
}

#[tokio::test]
async fn members_come_and_go_and_hear_what_is_said_meanwhile() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.add_group(FAMILY, "Family", &[ANNA, KAI]);
    kai.write(FAMILY, "Just us").await;
    assert_eq!(server.phone_reads(ANNA).await.text(), "Just us");

    server.add_member(FAMILY, BEN);
    assert_eq!(kai.wait_for("a change", change).await, format!("add in {FAMILY}"));
    kai.write(FAMILY, "Welcome").await;
    assert_eq!(server.phone_reads(BEN).await.text(), "Welcome");
    server.phone_writes(BEN, FAMILY, "Thanks").await;
    assert_eq!(kai.next_message().await.message.text_content(), Some("Thanks"));

    server.rename_group(FAMILY, "The family");
    assert_eq!(kai.wait_for("a change", change).await, format!("subject in {FAMILY}"));
    let groups = kai.client.groups().get_participating().await.unwrap();
    assert_eq!(&*groups[&address(FAMILY)].subject, "The family");

    server.remove_member(FAMILY, KAI);
    assert_eq!(kai.wait_for("a change", change).await, format!("remove in {FAMILY}"));
    assert!(kai.client.groups().get_participating().await.unwrap().is_empty());
    assert!(kai.client.groups().get_metadata(&address(FAMILY)).await.is_err(), "not a member");
    assert!(kai.client.groups().get_metadata(&address(OLD_FRIENDS)).await.is_err(), "no such group");
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn in_an_old_group_people_go_by_their_numbers() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.add_group_of(Addressing::Phone, OLD_FRIENDS, "Old friends", &[ANNA, KAI]);
    server.phone_writes(ANNA, OLD_FRIENDS, "Long time").await;
    let heard = kai.next_message().await;
    assert_eq!(heard.message.text_content(), Some("Long time"));
    assert_eq!(heard.info.source.sender, address(ANNA));
    assert_eq!(heard.info.source.sender_alt, Some(address("100000000000001@lid")));
    kai.write(OLD_FRIENDS, "Indeed").await;
    assert_eq!(server.phone_reads(ANNA).await.text(), "Indeed");
    server.wait_until_settled(KAI).await;
}
