//! What a client makes of the server's answers to its messages: refusals, none at all, and the same message
//! twice.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::prelude::{Event, MessageExt, SendOptions, wa};
use whatsapp_server::Server;

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";

async fn server_with_both() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    server
}

/// The server's answer to this message: an error code, or none.
async fn answer(device: &Device, message: &str) -> Option<String> {
    let answer = |event: &Event| {
        let Event::ServerAck(ack) = event else { return None };
        let is_it = ack.class.as_deref() == Some("message") && ack.id == message;
        is_it.then(|| ack.error.clone())
    };
    device.wait_for("an answer", answer).await
}

/// Writes to Kai under an id of the test's own.
async fn write_as(device: &Device, id: &str, text: &str) {
    let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
    let options = SendOptions::default().with_message_id(id);
    device.client.send_message_with_options(address(KAI), message, options).await.unwrap();
}

#[tokio::test]
async fn a_refused_message_reaches_nobody_and_its_code_comes_back() {
    let server = server_with_both().await;
    let (annas, kais) = (Files::new(), Files::new());
    let anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;
    for code in [463, 429, 479] {
        server.refuse_next_message(ANNA, code);
        let refused = anna.write(KAI, "Are you there?").await;
        assert_eq!(answer(&anna, &refused).await, Some(code.to_string()));
    }
    let passed = anna.write(KAI, "And now?").await;
    assert_eq!(answer(&anna, &passed).await, None);
    let heard = kai.next_message().await;
    assert_eq!((heard.message.text_content(), heard.info.id.as_str()), (Some("And now?"), passed.as_str()));
}

#[tokio::test]
async fn a_message_without_an_answer_is_sent_again_and_comes_once() {
    let server = server_with_both().await;
    server.deliver_once();
    let (annas, kais) = (Files::new(), Files::new());
    let anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;

    server.hold_acks(ANNA);
    write_as(&anna, "3EB0000000000000000001", "Only once").await;
    assert_eq!(kai.next_message().await.message.text_content(), Some("Only once"));
    server.drop_connection(ANNA);
    anna.wait_until_connected().await;
    write_as(&anna, "3EB0000000000000000001", "Only once").await;
    let sent = server.wait_for_messages_from(ANNA, 2).await;
    assert_eq!(sent[0], sent[1]);
    assert_eq!(sent[0], ("3EB0000000000000000001".to_owned(), format!("{KAI}@s.whatsapp.net")));
    server.release_acks(ANNA);
    assert_eq!(answer(&anna, "3EB0000000000000000001").await, None);
    anna.write(KAI, "Next").await;
    assert_eq!(kai.next_message().await.message.text_content(), Some("Next"));
}

#[tokio::test]
async fn a_damaged_message_is_asked_for_again() {
    let server = server_with_both().await;
    server.deliver_once();
    let (annas, kais) = (Files::new(), Files::new());
    let anna = Device::linked(&server, &annas, ANNA).await;
    let mut kai = Device::linked(&server, &kais, KAI).await;
    anna.write(KAI, "Hello").await;
    kai.next_message().await;

    server.damage_next_message(ANNA);
    let written = anna.write(KAI, "Can you read this?").await;
    server.wait_for_receipt_of_kind(KAI, &written, "retry").await;
    let heard = kai.next_message().await;
    assert_eq!(heard.message.text_content(), Some("Can you read this?"));
    assert_eq!(heard.info.id.as_str(), written);
    server.wait_until_settled(KAI).await;
}
