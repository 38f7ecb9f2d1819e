//! Messages that cannot be read, or whose keys have advanced elsewhere: they are noted, and the phone still
//! has them.

use nanokimi::bridge::{Event, Order};
use nanokimi::types::{Author, UnreadableMessage};
use rusqlite::Connection;
use support::whatsapp_client::{Device, Files};
use tokio::time::timeout;
use whatsapp_rust::buffa::{Message as _, MessageField};
use whatsapp_rust::prelude::wa;
use whatsapp_server::{PATIENCE, Server};

use super::world::{ANNA, Bridge, FAMILY, Folder, KAI, KAIS_CHAT, message, server};

fn unread(event: &Event) -> Option<UnreadableMessage> {
    if let Event::Unread(unread) = event { Some(unread.clone()) } else { None }
}

/// The id of the next message that the phone is asked for.
async fn asked_of_phone(server: &Server) -> wa::MessageKey {
    loop {
        let seen = server.next_on_phone(KAI).await;
        let protocol = seen.message.protocol_message.as_option();
        let asked = protocol.and_then(|protocol| protocol.peer_data_operation_request_message.as_option());
        let wanted = asked.and_then(|asked| asked.placeholder_message_resend_request.first());
        if let Some(key) = wanted.and_then(|wanted| wanted.message_key.as_option()) {
            return key.clone();
        }
    }
}

/// The phone answers with the messages that it has.
async fn phone_answers(server: &Server, key: wa::MessageKey, text: &str) {
    use wa::message::peer_data_operation_request_response_message::PeerDataOperationResult;
    use wa::message::peer_data_operation_request_response_message::peer_data_operation_result::PlaceholderMessageResendResponse;
    use wa::message::{PeerDataOperationRequestResponseMessage, ProtocolMessage, protocol_message::Type};
    let kept = wa::WebMessageInfo {
        key: MessageField::some(key),
        message: MessageField::some(wa::Message {
            conversation: Some(text.to_owned()),
            ..Default::default()
        }),
        message_timestamp: Some(1_800_000_000),
        ..Default::default()
    };
    let result = PeerDataOperationResult {
        placeholder_message_resend_response: MessageField::some(PlaceholderMessageResendResponse {
            web_message_info_bytes: Some(kept.encode_to_vec()),
        }),
        ..Default::default()
    };
    let response = PeerDataOperationRequestResponseMessage {
        stanza_id: Some("3EB0ASKED".to_owned()),
        peer_data_operation_result: vec![result],
        ..Default::default()
    };
    let protocol = ProtocolMessage {
        r#type: Some(Type::PEER_DATA_OPERATION_REQUEST_RESPONSE_MESSAGE),
        peer_data_operation_request_response_message: MessageField::some(response),
        ..Default::default()
    };
    let answer = wa::Message { protocol_message: MessageField::some(protocol), ..Default::default() };
    server.phone_sends(KAI, KAI, answer).await;
}

#[tokio::test]
async fn what_the_own_phone_wrote_and_nobody_can_read_the_phone_is_asked_for() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::linked(&server, &folder).await;
    server.wait_until_settled(KAI).await;
    for chat in [KAI, FAMILY] {
        server.damage_next_message(KAI);
        let id = server.phone_writes(KAI, chat, "Remember the milk.").await;
        let noted = bridge.next(unread).await;
        assert_eq!((noted.id.as_str(), noted.author), (id.as_str(), Author::OwnPhone));
        assert_eq!(noted.chat.as_str(), if chat == KAI { KAIS_CHAT } else { FAMILY });
        bridge.order(Order::AskAgain { handle: noted.handle }).await;
        let wanted = asked_of_phone(&server).await;
        assert_eq!((wanted.id.as_deref(), wanted.from_me), (Some(id.as_str()), Some(true)));
        phone_answers(&server, wanted, "Remember the milk.").await;
        let batch = loop {
            let batch = bridge.next_batch().await;
            if batch.iter().any(|event| message(event).is_some()) {
                break batch;
            }
        };
        let came = batch.iter().find_map(message).unwrap();
        assert_eq!((came.id.as_str(), came.text.as_str()), (id.as_str(), "Remember the milk."));
        assert!(batch.contains(&Event::ReadAfterAll { chat: came.chat, id: came.id }), "{batch:?}");
    }
    bridge.stop().await;
}

#[tokio::test]
async fn what_its_author_sends_again_is_read_after_all() {
    let server = server().await;
    let (folder, annas) = (Folder::new(), Files::new());
    let mut bridge = Bridge::linked(&server, &folder).await;
    let anna = Device::linked(&server, &annas, ANNA).await;
    server.wait_until_settled(KAI).await;
    for chat in [KAI, FAMILY] {
        server.damage_next_message(ANNA);
        let id = anna.write(chat, "Are you there?").await;
        let (mut noted, mut came) = (None, Vec::new());
        while noted.is_none() || came.is_empty() {
            let batch = bridge.next_batch().await;
            noted = noted.or(batch.iter().find_map(unread));
            came.extend(batch.iter().filter_map(message));
            let read =
                |event: &Event| matches!(event, Event::ReadAfterAll { id: read, .. } if read.as_str() == id);
            assert_eq!(batch.iter().any(|event| message(event).is_some()), batch.iter().any(read));
        }
        let noted = noted.unwrap();
        assert_eq!((noted.id.as_str(), noted.author), (id.as_str(), Author::Somebody));
        assert_eq!(
            (came.len(), came[0].id.as_str(), came[0].text.as_str()),
            (1, id.as_str(), "Are you there?")
        );
    }
    bridge.stop().await;
}

#[tokio::test]
async fn a_session_with_the_own_phone_that_reads_nothing_is_begun_anew() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::linked(&server, &folder).await;
    server.wait_until_settled(KAI).await;
    for number in 0..3 {
        server.damage_next_message(KAI);
        server.phone_writes(KAI, KAI, &format!("Note {number}.")).await;
        let noted = bridge.next(unread).await;
        bridge.order(Order::AskAgain { handle: noted.handle }).await;
        asked_of_phone(&server).await;
    }
    // It may be necessary to ask the phone once more before it knows of the new session.
    for number in 3..6 {
        server.phone_writes(KAI, KAI, &format!("Note {number}.")).await;
        let heard = |event: &Event| message(event).map(Ok).or_else(|| unread(event).map(Err));
        match bridge.next(heard).await {
            Ok(came) => {
                assert_eq!(came.text, format!("Note {number}."));
                bridge.stop().await;
                return;
            }
            Err(noted) => {
                bridge.order(Order::AskAgain { handle: noted.handle }).await;
                asked_of_phone(&server).await;
            }
        }
    }
    panic!("nothing of the phone's can be read any more");
}

#[tokio::test]
async fn what_keys_have_moved_past_without_a_row_is_noted_before_whatsapp_is_told() {
    let server = server().await;
    let (folder, annas) = (Folder::new(), Files::new());
    let mut bridge = Bridge::linked(&server, &folder).await;
    let anna = Device::linked(&server, &annas, ANNA).await;
    server.wait_until_settled(KAI).await;
    for chat in [KAI, FAMILY] {
        let id = anna.write(chat, "Are you there?").await;
        // It comes, and is not stored. Then its row is lost, as with a store that is older than the keys.
        loop {
            let batch = bridge.end.batches.recv().await.unwrap();
            if batch.events.iter().any(|event| message(event).is_some()) {
                break;
            }
            batch.committed.send(()).ok();
        }
        bridge.stop().await;
        let database = Connection::open(folder.path().join("wa.db")).unwrap();
        assert_eq!(database.execute("DELETE FROM pending_inbound_messages WHERE id = ?1", [&id]).unwrap(), 1);
        drop(database);

        bridge = Bridge::serve(&server, &folder);
        let noted = bridge.next(unread).await;
        assert_eq!((noted.id.as_str(), noted.author), (id.as_str(), Author::Somebody));
        bridge.wait_until_online().await;
        server.wait_until_settled(KAI).await;
        bridge.order(Order::AskAgain { handle: noted.handle }).await;
        let wanted = asked_of_phone(&server).await;
        assert_eq!((wanted.id.as_deref(), wanted.from_me), (Some(id.as_str()), Some(false)));
        phone_answers(&server, wanted, "Are you there?").await;
        assert_eq!(bridge.next_message().await.id.as_str(), id);
    }
    bridge.stop().await;
}

#[tokio::test]
async fn what_nobody_can_read_is_noted_before_whatsapp_is_told() {
    let server = server().await;
    let (folder, annas) = (Folder::new(), Files::new());
    let mut bridge = Bridge::linked(&server, &folder).await;
    let anna = Device::linked(&server, &annas, ANNA).await;
    server.wait_until_settled(KAI).await;
    for by_own_phone in [true, false] {
        for chat in [KAI, FAMILY] {
            let id = if by_own_phone {
                server.damage_next_message(KAI);
                server.phone_writes(KAI, chat, "Remember the milk.").await
            } else {
                server.damage_next_message(ANNA);
                anna.write(chat, "Remember the milk.").await
            };
            // It is reported, and intake ends before it has stored that.
            loop {
                let batch = timeout(PATIENCE, bridge.end.batches.recv()).await.expect("it is told").unwrap();
                if batch.events.iter().any(|event| unread(event).is_some()) {
                    break;
                }
                batch.committed.send(()).ok();
            }
            bridge.end.batches.close();
            bridge.stop().await;
            server.wait_until_offline(KAI).await;
            server.wait_for_held(KAI, 1).await;

            bridge = Bridge::serve(&server, &folder);
            let noted = bridge.next(unread).await;
            assert_eq!(noted.id.as_str(), id, "{chat}, by the own phone: {by_own_phone}");
            bridge.wait_until_online().await;
            if !by_own_phone {
                // Anna sends it again.
                bridge.next(|event| message(event).filter(|message| message.id.as_str() == id)).await;
            }
            server.wait_until_settled(KAI).await;
        }
    }
    bridge.stop().await;
}
