//! Messages between two real clients, through the durability hook: decrypted, once, in order.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::NodeBuilder;
use whatsapp_rust::prelude::MessageExt;
use whatsapp_server::Server;

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";
const FAMILY: &str = "120363000000000001@g.us";

async fn server_with_both() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    server.add_group(FAMILY, "Family", &[ANNA, KAI]);
    server
}

#[tokio::test]
async fn a_message_arrives_decrypted_and_its_reply_comes_back() {
    let server = server_with_both().await;
    let (annas, kais) = (Files::new(), Files::new());
    let mut anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;

    let asked = anna.write(KAI, "Are you there?").await;
    let question = kai.next_message().await;
    assert_eq!(question.message.text_content(), Some("Are you there?"));
    assert_eq!((question.info.id.as_str(), question.info.push_name.as_str()), (asked.as_str(), "Anna"));
    assert!(!question.info.source.is_from_me && !question.info.source.is_group);
    server.wait_for_receipt(KAI, &asked).await;

    kai.client.chatstate().send_composing(&address(ANNA)).await.unwrap();
    server.wait_for_chatstate(KAI, "15550001111@s.whatsapp.net", "composing").await;
    kai.write(ANNA, "Always.").await;
    let reply = anna.next_message().await;
    assert_eq!(reply.message.text_content(), Some("Always."));
    assert_eq!(reply.info.push_name, "Kai");

    kai.client.presence().set_unavailable().await.unwrap();
    server.wait_for_presence(KAI, "unavailable").await;
    server.wait_until_settled(ANNA).await;
    server.wait_until_settled(KAI).await;
    assert_eq!(server.count_sent(ANNA, "message"), 1);
}

#[tokio::test]
async fn a_group_hears_its_members() {
    let server = server_with_both().await;
    let (annas, kais) = (Files::new(), Files::new());
    let mut anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;

    let groups = kai.client.groups().get_participating().await.unwrap();
    let subjects: Vec<&str> = groups.values().map(|group| group.subject.as_ref()).collect();
    assert_eq!(subjects, ["Family"]);
    for (number, text) in ["@Kai hello", "@Kai again"].into_iter().enumerate() {
        anna.write(FAMILY, text).await;
        let heard = kai.next_message().await;
        assert_eq!(heard.message.text_content(), Some(text), "message {number}");
        assert!(heard.info.source.is_group);
        assert_eq!(heard.info.source.sender.user.as_str(), "100000000000001");
    }
    kai.write(FAMILY, "Hello Anna").await;
    assert_eq!(anna.next_message().await.message.text_content(), Some("Hello Anna"));
}

#[tokio::test]
async fn what_was_written_while_a_device_was_away_comes_once_when_it_is_back() {
    let server = server_with_both().await;
    let (annas, kais) = (Files::new(), Files::new());
    let anna = Device::linked(&server, &annas, ANNA).await;
    let kai = Device::linked(&server, &kais, KAI).await;
    server.wait_until_settled(KAI).await;
    kai.stop().await;
    server.wait_until_offline(KAI).await;

    for text in ["One", "Two", "Three"] {
        anna.write(KAI, text).await;
    }
    server.wait_for_held(KAI, 3).await;

    let mut kai = Device::start(&server, &kais).await;
    for text in ["One", "Two", "Three"] {
        let message = kai.next_message().await;
        assert_eq!(message.message.text_content(), Some(text));
        assert!(message.info.is_offline);
    }
    server.wait_until_settled(KAI).await;

    // Once more with everything acknowledged: what comes next is new.
    server.drop_connection(KAI);
    kai.wait_until_connected().await;
    anna.write(KAI, "Four").await;
    assert_eq!(kai.next_message().await.message.text_content(), Some("Four"));
}

#[tokio::test]
async fn what_the_hook_could_not_keep_comes_again() {
    let server = server_with_both().await;
    let (annas, kais) = (Files::new(), Files::new());
    let anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;
    server.wait_until_settled(KAI).await;

    kai.refuse_messages();
    let written = anna.write(KAI, "Do not lose this").await;
    kai.wait_until_refused().await;
    kai.stop().await;
    server.wait_for_held(KAI, 1).await;

    let mut kai = Device::start(&server, &kais).await;
    let message = kai.next_message().await;
    assert_eq!(message.message.text_content(), Some("Do not lose this"));
    assert_eq!(message.info.id.as_str(), written);
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn a_stanza_that_the_server_does_not_know_is_a_fault() {
    let server = server_with_both().await;
    let files = Files::new();
    let kai = Device::linked(&server, &files, KAI).await;
    let stranger = NodeBuilder::new("iq").attr("type", "get").attr("xmlns", "w:mystery").attr("id", "7");
    kai.client.send_node(stranger.build()).await.unwrap();
    let fault = server.wait_for_fault().await;
    assert!(fault.starts_with("The server does not know <iq ") && fault.contains("w:mystery"), "{fault}");
}
