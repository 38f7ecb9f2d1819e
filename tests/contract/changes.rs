//! What people do to messages that are there: edit, delete, react, quote, mention, read.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::prelude::{Event, InboundMessage, MessageContext, MessageExt, MessageField, wa};
use whatsapp_rust::send::RevokeType;
use whatsapp_rust::types::message::EditAttribute;
use whatsapp_rust::types::presence::ReceiptType;
use whatsapp_server::Server;

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";
const ANNA_LID: &str = "100000000000001@lid";
const KAI_LID: &str = "100000000000002@lid";
const FAMILY: &str = "120363000000000001@g.us";

struct World {
    server: Server,
    anna: Device,
    kai: Device,
    _files: (Files, Files),
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await.unwrap();
        server.add_account(ANNA, ANNA_LID.trim_end_matches("@lid"), "Anna");
        server.add_account(KAI, KAI_LID.trim_end_matches("@lid"), "Kai");
        server.add_group(FAMILY, "Family", &[ANNA, KAI]);
        let files = (Files::new(), Files::new());
        let anna = Device::linked(&server, &files.0, ANNA).await;
        let kai = Device::linked(&server, &files.1, KAI).await;
        Self { server, anna, kai, _files: files }
    }
}

fn protocol_message(message: &InboundMessage) -> Option<&wa::message::ProtocolMessage> {
    message.message.protocol_message.as_option()
}

fn reaction(message: &InboundMessage) -> Option<&wa::message::ReactionMessage> {
    message.message.reaction_message.as_option()
}

#[tokio::test]
async fn an_edit_and_a_delete_name_the_message_that_they_change() {
    use wa::message::protocol_message::Type;
    let mut world = World::new().await;
    for chat in [KAI, FAMILY] {
        let chat = address(chat);
        let written = world.anna.write(&chat.to_string(), "Tomorow").await;
        world.kai.next_message().await;

        let corrected = wa::Message { conversation: Some("Tomorrow".to_owned()), ..Default::default() };
        world.anna.client.edit_message(&chat, &written, corrected).await.unwrap();
        let edit = world.kai.next_that("an edit", |message| protocol_message(message).is_some()).await;
        let change = protocol_message(&edit).unwrap();
        assert_eq!(edit.info.edit, EditAttribute::MessageEdit, "{chat}");
        assert_eq!(change.r#type, Some(Type::MESSAGE_EDIT));
        assert_eq!(change.key.as_option().unwrap().id.as_deref(), Some(written.as_str()));
        let edited = change.edited_message.as_option().unwrap();
        assert_eq!(edited.text_content(), Some("Tomorrow"));

        world.anna.client.revoke_message(&chat, &written, RevokeType::Sender).await.unwrap();
        let delete = world.kai.next_that("a delete", |message| protocol_message(message).is_some()).await;
        let change = protocol_message(&delete).unwrap();
        assert_eq!(delete.info.edit, EditAttribute::SenderRevoke, "{chat}");
        assert_eq!(change.r#type, Some(Type::REVOKE));
        assert_eq!(change.key.as_option().unwrap().id.as_deref(), Some(written.as_str()));
    }
}

#[tokio::test]
async fn a_reaction_comes_and_is_taken_away() {
    let mut world = World::new().await;
    for chat in [KAI, FAMILY] {
        let written = world.anna.write(chat, "Lunch?").await;
        let question = world.kai.next_message().await;
        let context = MessageContext::from_inbound(&question, world.kai.client.clone());
        for emoji in ["👍", ""] {
            context.react(emoji).await.unwrap();
            let seen = world.anna.next_that("a reaction", |message| reaction(message).is_some()).await;
            let seen = reaction(&seen).unwrap();
            assert_eq!(seen.text.as_deref(), Some(emoji));
            assert_eq!(seen.key.as_option().unwrap().id.as_deref(), Some(written.as_str()), "{chat}");
        }
    }
}

#[tokio::test]
async fn a_quote_and_a_mention_say_whom_and_what_they_mean() {
    let mut world = World::new().await;
    let written = world.anna.write(FAMILY, "Who cooks?").await;
    let question = world.kai.next_message().await;
    let context = MessageContext::from_inbound(&question, world.kai.client.clone());
    context.reply_quoting("You do").await.unwrap();
    let quoting = world.anna.next_message().await;
    let quote = quoting.message.extended_text_message.as_option().unwrap();
    let quote = quote.context_info.as_option().unwrap();
    assert_eq!(quote.stanza_id.as_deref(), Some(written.as_str()));
    // The library quotes a person's device; a reader of that compares people.
    let quoted = address(quote.participant.as_deref().unwrap());
    assert_eq!((quoted.device, quoted.to_non_ad().to_string().as_str()), (1, ANNA_LID));
    assert_eq!(quote.quoted_message.as_option().unwrap().text_content(), Some("Who cooks?"));

    let mentions = wa::ContextInfo { mentioned_jid: vec![KAI_LID.to_owned()], ..Default::default() };
    let text = wa::message::ExtendedTextMessage {
        text: Some("@100000000000002 please".to_owned()),
        context_info: MessageField::some(mentions),
        ..Default::default()
    };
    let text = wa::Message { extended_text_message: MessageField::some(text), ..Default::default() };
    world.anna.client.send_message(address(FAMILY), text).await.unwrap();
    let mention = world.kai.next_message().await;
    let mention = mention.message.extended_text_message.as_option().unwrap();
    assert_eq!(mention.context_info.as_option().unwrap().mentioned_jid, [KAI_LID]);
}

#[tokio::test]
async fn an_author_learns_that_a_message_was_read_even_when_they_were_away() {
    let mut world = World::new().await;
    let read = |event: &Event| {
        let Event::Receipt(receipt) = event else { return None };
        (receipt.r#type == ReceiptType::Read).then(|| receipt.message_ids.clone())
    };
    let written = world.anna.write(KAI, "Read me").await;
    world.kai.next_message().await;
    world.kai.client.mark_as_read(&address(ANNA), None, &[&written]).await.unwrap();
    assert_eq!(world.anna.wait_for("a receipt", read).await, [written]);

    assert_eq!(world.server.receipts_from(KAI, "read").len(), 1);

    let written = world.anna.write(FAMILY, "And me").await;
    let heard = world.kai.next_message().await;
    world.server.wait_until_settled(ANNA).await;
    world.anna.stop().await;
    world.server.wait_until_offline(ANNA).await;
    let sender = heard.info.source.sender.to_non_ad();
    world.kai.client.mark_as_read(&address(FAMILY), Some(&sender), &[&written]).await.unwrap();
    world.server.wait_for_receipt_of_kind(KAI, &written, "read").await;
    let anna = Device::start(&world.server, &world._files.0).await;
    assert_eq!(anna.wait_for("a receipt", read).await, [written]);
    world.server.wait_until_settled(ANNA).await;
}
