//! The accounts' phones, which the server plays: they write to real clients and read what those write.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::prelude::{MessageExt, MessageField, wa};
use whatsapp_rust::types::message::EditAttribute;
use whatsapp_server::Server;

const ANNA: &str = "15550001111";
const ANNA_LID: &str = "100000000000001@lid";
const KAI: &str = "15550002222";
const KAI_LID: &str = "100000000000002@lid";
const FAMILY: &str = "120363000000000001@g.us";

/// Anna has only a phone; Kai has a phone and a linked device.
async fn server_with_kai(files: &Files) -> (Server, Device) {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    server.add_group(FAMILY, "Family", &[ANNA, KAI]);
    let kai = Device::linked(&server, files, KAI).await;
    (server, kai)
}

#[tokio::test]
async fn a_phone_and_a_linked_device_talk_in_a_chat_of_two() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    for round in 1..=3 {
        let written = server.phone_writes(ANNA, KAI, &format!("Question {round}")).await;
        let heard = kai.next_message().await;
        assert_eq!(heard.message.text_content(), Some(format!("Question {round}").as_str()));
        assert_eq!((heard.info.id.as_str(), heard.info.push_name.as_str()), (written.as_str(), "Anna"));
        assert_eq!(heard.info.source.chat, address(ANNA));
        assert!(!heard.info.source.is_from_me);

        assert_eq!(server.phone_reads(KAI).await.text(), format!("Question {round}").as_str());
        let written = kai.write(ANNA, &format!("Answer {round}")).await;
        for phone in [ANNA, KAI] {
            let seen = server.phone_reads(phone).await;
            assert_eq!(
                (seen.text(), seen.id.as_str()),
                (format!("Answer {round}").as_str(), written.as_str())
            );
            assert_eq!(seen.author, KAI);
        }
    }
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn a_chat_of_two_may_go_by_lids() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    server.phone_writes(ANNA, KAI_LID, "By LID").await;
    let heard = kai.next_message().await;
    assert_eq!(heard.message.text_content(), Some("By LID"));
    assert_eq!(heard.info.source.chat, address(ANNA_LID));
    assert_eq!(heard.info.source.sender_alt, Some(address(ANNA)));
    kai.write(ANNA_LID, "Indeed").await;
    assert_eq!(server.phone_reads(ANNA).await.text(), "Indeed");
}

#[tokio::test]
async fn a_phone_hears_and_is_heard_in_a_group() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    for text in ["Dinner at eight?", "Or at nine?"] {
        server.phone_writes(ANNA, FAMILY, text).await;
        let heard = kai.next_message().await;
        assert_eq!(heard.message.text_content(), Some(text));
        assert_eq!(heard.info.source.sender, address(ANNA_LID));
        assert_eq!(heard.info.source.sender_alt, Some(address(ANNA)));
    }
    for text in ["Eight", "is fine"] {
        kai.write(FAMILY, text).await;
        let seen = server.phone_reads(ANNA).await;
        assert_eq!((seen.text(), seen.chat.as_str(), seen.author.as_str()), (text, FAMILY, KAI));
    }
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn an_owner_writes_to_themselves_and_reads_the_answer_on_the_phone() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    for own_chat in [KAI, KAI_LID] {
        server.phone_writes(KAI, own_chat, "A note to myself").await;
        let heard = kai.next_message().await;
        assert_eq!(heard.message.text_content(), Some("A note to myself"));
        assert_eq!(heard.info.source.chat, address(own_chat));
        assert!(heard.info.source.is_from_me);
        kai.write(own_chat, "Noted").await;
        let seen = server.phone_reads(KAI).await;
        assert_eq!((seen.text(), seen.author.as_str()), ("Noted", KAI));
        // The library has only one chat with oneself, by the number.
        assert_eq!(address(&seen.chat), address(KAI));
    }
}

#[tokio::test]
async fn two_linked_devices_of_one_account_hear_each_other() {
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    let laptops = Files::new();
    let mut laptop = Device::linked(&server, &laptops, KAI).await;
    kai.write(KAI, "From the server").await;
    let heard = laptop.next_message().await;
    assert_eq!(heard.message.text_content(), Some("From the server"));
    assert!(heard.info.source.is_from_me);
    laptop.write(ANNA, "From the laptop").await;
    let heard = kai.next_message().await;
    assert_eq!(heard.message.text_content(), Some("From the laptop"));
    assert_eq!(heard.info.source.chat, address(ANNA));
    assert!(heard.info.source.is_from_me);
    assert_eq!(server.phone_reads(ANNA).await.text(), "From the laptop");
}

#[tokio::test]
async fn a_phone_edits_and_deletes() {
    use wa::message::protocol_message::Type;
    let files = Files::new();
    let (server, mut kai) = server_with_kai(&files).await;
    let written = server.phone_writes(ANNA, KAI, "Tomorow").await;
    kai.next_message().await;
    let edited = wa::Message { conversation: Some("Tomorrow".to_owned()), ..Default::default() };
    for (kind, attribute, edited) in [
        (Type::MESSAGE_EDIT, EditAttribute::MessageEdit, MessageField::some(edited)),
        (Type::REVOKE, EditAttribute::SenderRevoke, MessageField::default()),
    ] {
        let change = wa::message::ProtocolMessage {
            r#type: Some(kind),
            key: MessageField::some(wa::MessageKey { id: Some(written.clone()), ..Default::default() }),
            edited_message: edited,
            ..Default::default()
        };
        let change = wa::Message { protocol_message: MessageField::some(change), ..Default::default() };
        server.phone_sends(ANNA, KAI, change).await;
        let heard = kai.next_that("a change", |message| message.message.protocol_message.is_set()).await;
        assert_eq!(heard.info.edit, attribute);
    }
}
