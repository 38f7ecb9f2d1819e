//! Messages through the bridge, in and out.

use nanokimi::bridge::Content;
use nanokimi::bridge::whatsapp::{BridgeTask, Presence};
use nanokimi::bridge::{HandedOver, Order, QuoteTo, Recipients, SendError, Typing};
use nanokimi::types::{Answer, ChatId, Event, Mention, MessageId};
use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::prelude::{MessageBuilderExt as _, MessageContext, MessageExt, wa};
use whatsapp_rust::send::RevokeType;
use whatsapp_rust::waproto::whatsapp::message as kind;
use whatsapp_server::{PATIENCE, Server};

use super::world::{
    ANNA, ANNA_LID, ANNAS_CHAT, Bridge, FAMILY, Folder, KAI, KAI_LID, KAIS_CHAT, message, sender, server,
    store,
};

struct World {
    server: Server,
    folder: Folder,
    bridge: Bridge,
    anna: Device,
    annas: Files,
}

impl World {
    async fn new() -> Self {
        let server = server().await;
        let (folder, annas) = (Folder::new(), Files::new());
        let bridge = Bridge::linked(&server, &folder).await;
        let anna = Device::linked(&server, &annas, ANNA).await;
        server.wait_until_settled(KAI).await;
        Self { server, folder, bridge, anna, annas }
    }
}

fn answered(event: &Event) -> Option<(String, Answer)> {
    if let Event::Answered { id, answer } = event { Some((id.as_str().to_owned(), *answer)) } else { None }
}

#[tokio::test]
async fn a_direct_message_comes_in_and_its_reply_goes_out() {
    let World { server, mut bridge, mut anna, folder: _folder, annas: _annas } = World::new().await;
    let asked = anna.write(KAI, "Are you there?").await;
    let batch = bridge.next_batch().await;
    let question = batch.iter().find_map(message).expect("a message");
    assert_eq!((question.text.as_str(), question.id.as_str()), ("Are you there?", asked.as_str()));
    assert_eq!(question.sender_name, "Anna");
    assert_eq!(question.mention, Mention::NotMe);
    let named = Event::Chat { id: question.chat.clone(), name: "Anna".to_owned(), members: None };
    assert!(batch.contains(&named), "{batch:?}");
    server.wait_for_receipt(KAI, &asked).await;

    let chat = question.chat.as_str();
    assert_eq!(bridge.say(chat, "3EB0AAAA", "Always.").await, Ok(HandedOver::Sent));
    let reply = anna.next_message().await;
    assert_eq!(reply.message.text_content(), Some("Always."));
    assert_eq!(reply.info.id, "3EB0AAAA");
    assert_eq!(bridge.next(answered).await, ("3EB0AAAA".to_owned(), Answer::Acked));

    anna.write(KAI, "Good.").await;
    // Before that, her device reports that it has the reply.
    let batch = loop {
        let batch = bridge.next_batch().await;
        if !batch.iter().all(|event| matches!(event, Event::Receipt(_))) {
            break batch;
        }
    };
    assert!(batch.iter().all(|event| message(event).is_some()), "who is who was told before: {batch:?}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_group_that_knows_its_members_by_lids_is_heard_quoted_mentioned_and_reacted_to() {
    let World { server, mut bridge, mut anna, folder: _folder, annas: _annas } = World::new().await;
    let written = anna.write(FAMILY, &format!("Who cooks, @{KAI_LID}?")).await;
    let batch = bridge.next_batch().await;
    let question = batch.iter().find_map(message).expect("a message");
    let (lid, phone) = (format!("{ANNA_LID}@lid"), ANNAS_CHAT);
    assert_eq!((question.chat.as_str(), question.sender.as_str()), (FAMILY, lid.as_str()));
    assert_eq!(question.mention, Mention::Me);
    assert!(batch.contains(&Event::SamePerson { one: sender(&lid), other: sender(phone) }), "{batch:?}");

    let quote = QuoteTo { id: MessageId::new(&written), sender: sender(&lid), text: question.text };
    let text = format!("You do, @{ANNA_LID}");
    let content = Content::Text { text, mentions: vec![sender(&lid)] };
    assert_eq!(bridge.send(FAMILY, "3EB0BBBB", content, Some(quote)).await, Ok(HandedOver::Sent));
    let reply = anna.next_message().await;
    let context = reply.message.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
    assert_eq!(context.stanza_id.as_deref(), Some(written.as_str()));
    assert_eq!(context.participant.as_deref(), Some(lid.as_str()));
    assert_eq!(context.mentioned_jid, std::slice::from_ref(&lid));

    let content =
        Content::Reaction {
            target: MessageId::new(&written), sender: sender(&lid), emoji: "👍".to_owned()
        };
    assert_eq!(bridge.send(FAMILY, "3EB0CCCC", content, None).await, Ok(HandedOver::Sent));
    let seen = anna.next_that("a reaction", |heard| heard.message.reaction_message.is_set()).await;
    let reaction = seen.message.reaction_message.as_option().unwrap();
    assert_eq!((seen.info.id.as_str(), reaction.text.as_deref()), ("3EB0CCCC", Some("👍")));
    assert_eq!(reaction.key.as_option().unwrap().id.as_deref(), Some(written.as_str()));

    // And back: Anna quotes the bridge's message and reacts to it.
    let context = MessageContext::from_inbound(&reply, anna.client.clone());
    context.reply_quoting("No, you").await.unwrap();
    let quoting = bridge.next_message().await;
    let quote = quoting.quote.unwrap();
    assert_eq!(
        (quote.id.as_str(), quote.text.as_str()),
        ("3EB0BBBB", format!("You do, @{ANNA_LID}").as_str())
    );
    context.react("❤️").await.unwrap();
    let reacted = |event: &Event| if let Event::Reacted(seen) = event { Some(seen.clone()) } else { None };
    let reaction = bridge.next(reacted).await;
    assert_eq!((reaction.target.as_str(), reaction.emoji.as_str()), ("3EB0BBBB", "❤️"));
    server.wait_until_settled(KAI).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_note_to_oneself_is_in_the_accounts_own_chat_and_answered_there() {
    let server = server().await;
    let (folder, files) = (Folder::new(), Files::new());
    // Another computer of the owner.
    let mut other = Device::linked(&server, &files, KAI).await;
    let mut bridge = Bridge::linked(&server, &folder).await;
    let written = other.write(KAI, "Buy milk").await;
    let note = bridge.next_message().await;
    assert_eq!((note.chat.as_str(), note.text.as_str()), (KAIS_CHAT, "Buy milk"));
    assert_eq!(note.id.as_str(), written);
    assert_eq!(bridge.say(KAIS_CHAT, "3EB0DDDD", "Noted").await, Ok(HandedOver::Sent));
    assert_eq!(other.next_message().await.message.text_content(), Some("Noted"));
    bridge.stop().await;
}

#[tokio::test]
async fn what_was_written_while_the_bridge_was_away_comes_once_and_in_order() {
    let World { server, bridge, folder, anna, annas: _annas } = World::new().await;
    bridge.stop().await;
    server.wait_until_offline(KAI).await;
    let texts: Vec<String> = (1..=30).map(|number| format!("Message {number}")).collect();
    for (place, text) in texts.iter().enumerate() {
        anna.write(if place % 2 == 0 { KAI } else { FAMILY }, text).await;
    }
    server.wait_for_held(KAI, texts.len()).await;
    let mut bridge = Bridge::serve(&server, &folder);
    let mut heard = Vec::new();
    while heard.len() < texts.len() {
        heard.extend(bridge.next_batch().await.iter().filter_map(message));
    }
    server.wait_until_settled(KAI).await;
    for chat in [true, false] {
        let of_chat = heard.iter().filter(|heard| heard.chat.is_whatsapp_group() == chat);
        let wanted = texts.iter().enumerate().filter(|(place, _)| (place % 2 == 1) == chat);
        let (of_chat, wanted): (Vec<_>, Vec<_>) =
            (of_chat.map(|heard| &heard.text).collect(), wanted.map(|(_, text)| text).collect());
        assert_eq!(of_chat, wanted);
    }
    anna.write(KAI, "Last").await;
    assert_eq!(bridge.next_message().await.text, "Last", "nothing comes twice");
    bridge.stop().await;
}

#[tokio::test]
async fn what_was_not_stored_comes_again_without_a_restart() {
    let World { server, mut bridge, anna, folder: _folder, annas: _annas } = World::new().await;
    let written = anna.write(KAI, "Do not lose this").await;
    let refused = loop {
        let batch = bridge.end.batches.recv().await.unwrap();
        if batch.events.iter().any(|event| message(event).is_some()) {
            break batch;
        }
        store(batch);
    };
    let was_told = refused.events.clone();
    drop(refused);
    let again = bridge.next_message().await;
    assert_eq!((again.id.as_str(), again.text.as_str()), (written.as_str(), "Do not lose this"));
    assert!(was_told.len() > 1, "who is who comes again too, for it was not stored: {was_told:?}");
    server.wait_until_settled(KAI).await;
    bridge.stop().await;
}

#[tokio::test]
async fn an_edit_and_a_delete_come_as_what_they_are() {
    let World { server, mut bridge, anna, folder: _folder, annas: _annas } = World::new().await;
    for chat in [KAI, FAMILY] {
        let written = anna.write(chat, "Tomorow").await;
        bridge.next_message().await;
        let corrected = wa::Message { conversation: Some("Tomorrow".to_owned()), ..Default::default() };
        anna.client.edit_message(address(chat), &written, corrected).await.unwrap();
        let edited = |event: &Event| if let Event::Edited(edit) = event { Some(edit.clone()) } else { None };
        let edit = bridge.next(edited).await;
        assert_eq!((edit.target.as_str(), edit.message.text.as_str()), (written.as_str(), "Tomorrow"));
        let author = edit.message.sender.clone();
        anna.client.revoke_message(address(chat), &written, RevokeType::Sender).await.unwrap();
        let deleted = bridge.next(|event| {
            if let Event::Deleted { sender, target, .. } = event {
                Some((sender.clone(), target.as_str().to_owned()))
            } else {
                None
            }
        });
        assert_eq!(deleted.await, (author, written));
    }
    server.wait_until_settled(KAI).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_refusal_comes_with_its_code_and_an_impossible_chat_is_said_at_once() {
    let World { server, mut bridge, anna: _anna, folder: _folder, annas: _annas } = World::new().await;
    // 463 means a stranger that we must not write to, 429 means too many messages.
    for (id, code) in [("3EB0E463", 463), ("3EB0E429", 429), ("3EB0E479", 479)] {
        server.refuse_next_message(KAI, code);
        assert_eq!(bridge.say(ANNAS_CHAT, id, "Hello").await, Ok(HandedOver::Sent));
        assert_eq!(bridge.next(answered).await, (id.to_owned(), Answer::Nacked { code: code.into() }));
    }
    for chat in ["", "console:main", "a b@nowhere"] {
        let refused = bridge.say(chat, "3EB0FFFF", "Hello").await;
        assert!(matches!(refused, Err(SendError::Never(_))), "{chat:?}: {refused:?}");
    }
    bridge.stop().await;
}

#[tokio::test]
async fn replies_of_one_chat_keep_their_order_while_typing_and_reading_go_beside_them() {
    let World { server, mut bridge, mut anna, folder: _folder, annas: _annas } = World::new().await;
    let written = anna.write(FAMILY, "Tell us everything").await;
    let heard = bridge.next_message().await;
    let mut waiting = Vec::new();
    for number in 0..10 {
        let (outcome, sent) = tokio::sync::oneshot::channel();
        let send = nanokimi::bridge::SendOrder {
            chat: ChatId::new(FAMILY),
            id: MessageId::new(format!("3EB0000{number}")),
            content: Content::Text { text: format!("Part {number}"), mentions: Vec::new() },
            quote: None,
            expires_secs: (number == 0).then_some(86_400),
            recipients: Recipients::Remembered,
            encoded: tokio::sync::oneshot::channel().0,
            outcome,
        };
        bridge.order(Order::Send(send)).await;
        waiting.push(sent);
    }
    bridge.order(Order::Typing { chat: ChatId::new(FAMILY), shown: Typing::On }).await;
    let messages = vec![heard.id.clone()];
    bridge.order(Order::Read { chat: heard.chat.clone(), sender: heard.sender.clone(), messages }).await;
    for sent in waiting {
        assert_eq!(tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap(), Ok(HandedOver::Sent));
    }
    for number in 0..10 {
        let part = anna.next_message().await;
        assert_eq!(part.message.text_content(), Some(format!("Part {number}").as_str()));
        assert_eq!(part.message.get_ephemeral_expiration(), (number == 0).then_some(86_400));
    }
    server.wait_for_receipt_of_kind(KAI, &written, "read").await;
    server.wait_for_chatstate(KAI, FAMILY, "composing").await;
    bridge.stop().await;
}

#[tokio::test]
async fn the_account_is_seen_online_only_while_it_types_where_it_shares_a_number() {
    let World { server, bridge, anna: _anna, folder, annas: _annas } = World::new().await;
    server.wait_for_presence(KAI, "unavailable").await;
    let chat = || ChatId::new(ANNAS_CHAT);
    let presences = |server: &Server| server.count_sent(KAI, "presence");
    let at_rest = presences(&server);
    bridge.order(Order::Typing { chat: chat(), shown: Typing::On }).await;
    server.wait_for_chatstate(KAI, ANNAS_CHAT, "composing").await;
    assert_eq!(presences(&server), at_rest + 1, "online for the time of typing");
    bridge.order(Order::Typing { chat: chat(), shown: Typing::On }).await;
    bridge.order(Order::Typing { chat: chat(), shown: Typing::Off }).await;
    server.wait_for_chatstate(KAI, ANNAS_CHAT, "paused").await;
    server.wait_for_presences(KAI, at_rest + 2).await;
    bridge.stop().await;

    let shown = folder.bridge(&server, Presence::Shown);
    let before = presences(&server);
    let mut bridge = Bridge::start(shown, |_| BridgeTask::Serve);
    bridge.wait_until_online().await;
    server.wait_for_presences(KAI, before + 1).await;
    bridge.stop().await;
}

#[tokio::test]
async fn that_somebody_types_or_records_is_told_and_that_they_stop_is_not() {
    let World { server: _server, mut bridge, anna, folder: _folder, annas: _annas } = World::new().await;
    let typing = |event: &Event| {
        if let Event::Typing { chat } = event { Some(chat.to_string()) } else { None }
    };
    anna.client.chatstate().send_composing(&address(KAI)).await.unwrap();
    assert_eq!(bridge.next(typing).await, ANNAS_CHAT);
    anna.client.chatstate().send_recording(&address(FAMILY)).await.unwrap();
    assert_eq!(bridge.next(typing).await, FAMILY);
    anna.client.chatstate().send_paused(&address(KAI)).await.unwrap();
    anna.write(KAI, "hello").await;
    loop {
        let batch = bridge.next_batch().await;
        assert_eq!(batch.iter().find_map(typing), None);
        if batch.iter().any(|event| message(event).is_some()) {
            break;
        }
    }
    bridge.stop().await;
}

/// The words of the next message.
async fn words(bridge: &mut Bridge) -> String {
    bridge.next_message().await.text
}

#[tokio::test]
async fn what_only_the_phone_can_open_is_told_as_that_and_what_is_tapped_as_its_words() {
    let World { server, mut bridge, anna: _anna, folder: _folder, annas: _annas } = World::new().await;
    let withheld = server.phone_withholds(ANNA, FAMILY, &[("type", "view_once")]);
    let placeholder = bridge.next_message().await;
    assert_eq!(
        (placeholder.id.as_str(), placeholder.sender.as_str(), placeholder.sender_name.as_str()),
        (withheld.as_str(), format!("{ANNA_LID}@lid").as_str(), "Anna")
    );
    assert_eq!(
        placeholder.text,
        "[A picture, video or voice note to be seen once, which only the phone can open]"
    );
    server.phone_withholds(ANNA, FAMILY, &[("hosted", "true")]);
    assert_eq!(words(&mut bridge).await, "[A message that only the phone can open]");

    let context =
        wa::ContextInfo { mentioned_jid: vec![format!("{KAI_LID}:99@hosted.lid")], ..Default::default() };
    let tapped = kind::ButtonsResponseMessage {
        response: Some(kind::buttons_response_message::Response::SelectedDisplayText("Book it".to_owned())),
        context_info: MessageField::some(context),
        ..Default::default()
    };
    let tapped = wa::Message { buttons_response_message: MessageField::some(tapped), ..Default::default() };
    server.phone_sends(ANNA, FAMILY, tapped).await;
    let heard = bridge.next_message().await;
    assert_eq!((heard.text.as_str(), heard.mention), ("Book it", Mention::Me));

    let status =
        kind::FutureProofMessage { message: MessageField::some(wa::Message::text("Look at the beach")) };
    let status = wa::Message { group_status_message_v2: MessageField::some(status), ..Default::default() };
    server.phone_sends(ANNA, FAMILY, status).await;
    assert_eq!(words(&mut bridge).await, "Look at the beach");
    bridge.stop().await;
}
