//! Every kind of message that the library decodes, with the event that it becomes.

use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::prelude::{MessageBuilderExt as _, wa};
use whatsapp_rust::types::events::UnavailableType;

use wa::message as kind;

use super::{events, image, info, me, said, some};
use crate::bridge::whatsapp::inbound;
use crate::types::{Event, IncomingMessage, MediaKind, MessageId};

/// What is to come of a message.
#[derive(Debug, PartialEq, Eq)]
enum EventSummary<'a> {
    Said(&'a str),
    /// A file of this kind, with these words.
    File(MediaKind, &'a str),
    /// Something that was done, to the message 3EB9 if the event names it.
    Done(&'a str, Option<&'a str>),
    Nothing,
}

fn summarize_events(events: &[Event]) -> EventSummary<'_> {
    match events {
        [Event::Message(IncomingMessage { text, media: None, .. })] => EventSummary::Said(text),
        [Event::Message(IncomingMessage { text, media: Some(media), .. })] => {
            EventSummary::File(media.kind, text)
        }
        [Event::Noted(note)] => EventSummary::Done(&note.text, note.target.as_ref().map(MessageId::as_str)),
        [Event::Edited(_) | Event::Deleted { .. } | Event::Reacted(_)] => EventSummary::Nothing,
        [] => EventSummary::Nothing,
        other => panic!("{other:?}"),
    }
}

/// Every kind that the library decodes, by the name of its field. A kind that it learns is missing here until
/// somebody has given it its words.
#[test]
fn every_kind_has_its_words() {
    use EventSummary::{Done, File, Nothing, Said};
    use MediaKind::{Document, Image, Sticker, Video, Voice};

    macro_rules! table {
        ($($field:ident: $value:expr => $summary:expr,)+) => {
            [$((stringify!($field), wa::Message { $field: $value.into_field(), ..Default::default() }, $summary)),+]
        };
    }
    trait IntoField<F> {
        fn into_field(self) -> F;
    }
    impl<T: Default> IntoField<MessageField<T>> for T {
        fn into_field(self) -> MessageField<T> {
            MessageField::some(self)
        }
    }
    impl IntoField<Option<String>> for &str {
        fn into_field(self) -> Option<String> {
            Some(self.to_owned())
        }
    }
    let s = |text: &str| Some(text.to_owned());
    let wraps = |message: wa::Message| kind::FutureProofMessage { message: some(message) };
    let hello = || wraps(wa::Message::text("Hello"));
    let key = || some(wa::MessageKey { id: s("3EB9"), ..Default::default() });
    let option =
        |name: &str| kind::poll_creation_message::Option { option_name: s(name), ..Default::default() };
    let poll = || kind::PollCreationMessage {
        name: s("Pizza\nor pasta?"),
        options: vec![option("Pizza"), option("Pasta")],
        ..Default::default()
    };
    let votes = || kind::PollResultSnapshotMessage {
        name: s("Pizza or pasta?"),
        poll_votes: vec![kind::poll_result_snapshot_message::PollVote {
            option_name: s("Pizza"),
            option_vote_count: Some(3),
        }],
        ..Default::default()
    };
    let place = || kind::LocationMessage {
        degrees_latitude: Some(40.7128),
        degrees_longitude: Some(-74.006),
        name: s("NYC"),
        ..Default::default()
    };
    let euros = |cents| some(wa::Money { value: Some(cents), offset: Some(100), currency_code: s("EUR") });
    let hydrated = || kind::template_message::HydratedFourRowTemplate {
        hydrated_content_text: s("Your parcel is here, @Kai"),
        hydrated_footer_text: s("The post"),
        title: Some(kind::template_message::hydrated_four_row_template::Title::HydratedTitleText(
            "Hello".to_owned(),
        )),
        hydrated_buttons: vec![wa::HydratedTemplateButton {
            hydrated_button: Some(
                wa::hydrated_template_button::HydratedQuickReplyButton {
                    display_text: s("Thanks"),
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        }],
        ..Default::default()
    };
    let interactive = |body: &str| kind::InteractiveMessage {
        body: some(kind::interactive_message::Body { text: s(body) }),
        ..Default::default()
    };
    let table = table! {
        conversation: "Hello" => Said("Hello"),
        sender_key_distribution_message: kind::SenderKeyDistributionMessage::default() => Nothing,
        image_message: kind::ImageMessage { caption: s("The beach"), ..Default::default() } => File(Image, "The beach"),
        contact_message: kind::ContactMessage {
            display_name: s("Anna"),
            vcard: s("BEGIN:VCARD\r\nitem1.TEL;waid=1:+1 555 000 1111\r\nEND:VCARD"),
            ..Default::default()
        } => Said("[Contact: Anna, +1 555 000 1111]"),
        location_message: place() => Said("[Location: 40.712800, -74.006000 — NYC]"),
        extended_text_message: kind::ExtendedTextMessage { text: s("Hello"), ..Default::default() } => Said("Hello"),
        document_message: kind::DocumentMessage { caption: s("The plan"), ..Default::default() } => File(Document, "The plan"),
        audio_message: kind::AudioMessage { ptt: Some(true), ..Default::default() } => File(Voice, ""),
        video_message: kind::VideoMessage { caption: s("Waves"), ..Default::default() } => File(Video, "Waves"),
        call: kind::Call::default() => Done("[Call]", None),
        chat: kind::Chat { display_name: s("Chess"), ..Default::default() } => Said("[Chat: Chess]"),
        protocol_message: kind::ProtocolMessage::default() => Nothing,
        contacts_array_message: kind::ContactsArrayMessage {
            contacts: vec![kind::ContactMessage { display_name: s("Anna"), ..Default::default() }; 2],
            ..Default::default()
        } => Said("[Contact: Anna]\n[Contact: Anna]"),
        highly_structured_message: kind::HighlyStructuredMessage {
            element_name: s("parcel"),
            params: vec!["Anna".to_owned(), "today".to_owned()],
            ..Default::default()
        } => Said("[Template: parcel — Anna · today]"),
        fast_ratchet_key_sender_key_distribution_message: kind::SenderKeyDistributionMessage::default() => Nothing,
        send_payment_message: kind::SendPaymentMessage {
            note_message: some(wa::Message::text("for lunch")),
            ..Default::default()
        } => Said("[Payment]\nfor lunch"),
        live_location_message: kind::LiveLocationMessage {
            degrees_latitude: Some(1.0),
            degrees_longitude: Some(2.0),
            caption: s("on my way"),
            ..Default::default()
        } => Said("[Live location: 1.000000, 2.000000]\non my way"),
        request_payment_message: kind::RequestPaymentMessage {
            currency_code_iso4217: s("EUR"),
            amount1000: Some(12_500),
            note_message: some(wa::Message::text("@Kai, the tickets")),
            ..Default::default()
        } => Said("[Request for a payment: 12.50 EUR]\n@Kai, the tickets"),
        decline_payment_request_message: kind::DeclinePaymentRequestMessage { key: key() }
            => Done("[Request for a payment declined]", Some("3EB9")),
        cancel_payment_request_message: kind::CancelPaymentRequestMessage { key: key() }
            => Done("[Request for a payment taken back]", Some("3EB9")),
        template_message: kind::TemplateMessage { hydrated_template: some(hydrated()), ..Default::default() }
            => Said("Hello\nYour parcel is here, @Kai\nThe post\n[Buttons: Thanks]"),
        sticker_message: kind::StickerMessage::default() => File(Sticker, ""),
        group_invite_message: kind::GroupInviteMessage { group_name: s("Chess"), caption: s("Join!"), ..Default::default() }
            => Said("[Invitation to the group Chess]\nJoin!"),
        template_button_reply_message: kind::TemplateButtonReplyMessage {
            selected_id: s("yes"),
            selected_display_text: s("Yes, @Kai"),
            ..Default::default()
        } => Said("Yes, @Kai"),
        product_message: kind::ProductMessage {
            product: some(kind::product_message::ProductSnapshot {
                title: s("Cake"),
                currency_code: s("EUR"),
                price_amount1000: Some(20_000),
                description: s("With cherries"),
                ..Default::default()
            }),
            body: s("Shall we?"),
            ..Default::default()
        } => Said("[Product: Cake — 20.00 EUR]\nWith cherries\nShall we?"),
        device_sent_message: kind::DeviceSentMessage { message: some(wa::Message::text("Hello")), ..Default::default() }
            => Said("Hello"),
        message_context_info: wa::MessageContextInfo::default() => Said("[A message of a kind that I cannot read]"),
        list_message: kind::ListMessage {
            title: s("Menu"),
            description: s("Choose"),
            sections: vec![kind::list_message::Section {
                rows: vec![kind::list_message::Row { title: s("Soup"), ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        } => Said("Menu\nChoose\n[Choices: Soup]"),
        view_once_message: hello() => Said("Hello"),
        order_message: kind::OrderMessage {
            order_title: s("Cakes"),
            item_count: Some(2),
            total_amount1000: Some(40_000),
            total_currency_code: s("EUR"),
            message: s("By noon, please"),
            ..Default::default()
        } => Said("[Order: Cakes — items: 2 — 40.00 EUR]\nBy noon, please"),
        list_response_message: kind::ListResponseMessage {
            single_select_reply: some(kind::list_response_message::SingleSelectReply { selected_row_id: s("soup") }),
            ..Default::default()
        } => Said("soup"),
        ephemeral_message: hello() => Said("Hello"),
        invoice_message: kind::InvoiceMessage { note: s("March"), ..Default::default() } => Said("[Invoice]\nMarch"),
        buttons_message: kind::ButtonsMessage {
            header: Some(kind::buttons_message::Header::Text("Dinner".to_owned())),
            content_text: s("Who comes?"),
            buttons: vec![kind::buttons_message::Button {
                button_text: some(kind::buttons_message::button::ButtonText { display_text: s("Me") }),
                ..Default::default()
            }],
            ..Default::default()
        } => Said("Dinner\nWho comes?\n[Buttons: Me]"),
        buttons_response_message: kind::ButtonsResponseMessage { selected_button_id: s("me"), ..Default::default() }
            => Said("me"),
        payment_invite_message: kind::PaymentInviteMessage::default()
            => Said("[Invitation to pay each other on WhatsApp]"),
        interactive_message: kind::InteractiveMessage {
            interactive_message: Some(
                kind::interactive_message::CarouselMessage {
                    cards: vec![interactive("One"), interactive("Two")],
                    ..Default::default()
                }
                .into(),
            ),
            ..interactive("Choose")
        } => Said("Choose\nOne\nTwo"),
        reaction_message: kind::ReactionMessage { key: key(), ..Default::default() } => Nothing,
        sticker_sync_rmr_message: kind::StickerSyncRMRMessage::default() => Nothing,
        interactive_response_message: kind::InteractiveResponseMessage {
            interactive_response_message: Some(
                kind::interactive_response_message::NativeFlowResponseMessage {
                    name: s("menu_options"),
                    params_json: s(r#"{"id": "soup", "title": "Soup for @Kai"}"#),
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        } => Said("Soup for @Kai"),
        poll_creation_message: poll() => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        poll_update_message: kind::PollUpdateMessage::default() => Nothing,
        keep_in_chat_message: kind::KeepInChatMessage::default() => Nothing,
        document_with_caption_message: hello() => Said("Hello"),
        request_phone_number_message: kind::RequestPhoneNumberMessage::default() => Said("[Request for your phone number]"),
        view_once_message_v2: hello() => Said("Hello"),
        enc_reaction_message: kind::EncReactionMessage::default() => Nothing,
        edited_message: hello() => Said("Hello"),
        view_once_message_v2_extension: hello() => Said("Hello"),
        poll_creation_message_v2: poll() => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        scheduled_call_creation_message: kind::ScheduledCallCreationMessage {
            title: s("Birthday"),
            scheduled_timestamp_ms: Some(1_800_000_000_000),
            ..Default::default()
        } => Said("[Call planned: Birthday — 2027-01-15 08:00 UTC]"),
        group_mentioned_message: hello() => Said("Hello"),
        pin_in_chat_message: kind::PinInChatMessage { key: key(), ..Default::default() } => Done("[Pinned]", Some("3EB9")),
        poll_creation_message_v3: poll() => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        scheduled_call_edit_message: kind::ScheduledCallEditMessage { key: key(), ..Default::default() }
            => Done("[Planned call cancelled]", Some("3EB9")),
        ptv_message: kind::VideoMessage::default() => File(Video, ""),
        bot_invoke_message: hello() => Said("Hello"),
        call_log_messsage: kind::CallLogMessage {
            is_video: Some(true),
            call_outcome: Some(kind::call_log_message::CallOutcome::MISSED),
            ..Default::default()
        } => Done("[Video call: missed]", None),
        message_history_bundle: kind::MessageHistoryBundle::default() => Nothing,
        enc_comment_message: kind::EncCommentMessage { target_message_key: key(), ..Default::default() }
            => Done("[A comment that only the phone can open]", Some("3EB9")),
        bcall_message: kind::BCallMessage { caption: s("News"), ..Default::default() } => Done("[Call]\nNews", None),
        lottie_sticker_message: wraps(wa::Message { sticker_message: some(kind::StickerMessage::default()), ..Default::default() })
            => File(Sticker, ""),
        event_message: kind::EventMessage {
            name: s("Dinner"),
            start_time: Some(1_800_000_000),
            location: some(place()),
            description: s("@Kai too"),
            ..Default::default()
        } => Said("[Event: Dinner — from 2027-01-15 08:00 UTC — NYC]\n@Kai too"),
        enc_event_response_message: kind::EncEventResponseMessage::default() => Nothing,
        comment_message: kind::CommentMessage { message: some(wa::Message::text("Hello")), target_message_key: key() }
            => Said("Hello"),
        newsletter_admin_invite_message: kind::NewsletterAdminInviteMessage { newsletter_name: s("News"), ..Default::default() }
            => Said("[Invitation to run the channel News]"),
        placeholder_message: kind::PlaceholderMessage::default() => Said("[A message that only the phone can open]"),
        secret_encrypted_message: kind::SecretEncryptedMessage {
            target_message_key: key(),
            secret_enc_type: Some(kind::secret_encrypted_message::SecretEncType::MESSAGE_EDIT),
            ..Default::default()
        } => Done("[A change of this message that only the phone can open]", Some("3EB9")),
        album_message: kind::AlbumMessage::default() => Nothing,
        event_cover_image: wraps(image("Dinner")) => File(Image, "Dinner"),
        sticker_pack_message: kind::StickerPackMessage { name: s("Cats"), publisher: s("Ana"), ..Default::default() }
            => Said("[Stickers: Cats — Ana]"),
        status_mention_message: hello() => Said("Hello"),
        poll_result_snapshot_message: votes() => Said("[Result of the poll: Pizza or pasta? — Pizza 3]"),
        poll_creation_option_image_message: wraps(image("")) => File(Image, ""),
        associated_child_message: wraps(image("")) => File(Image, ""),
        group_status_mention_message: hello() => Said("Hello"),
        poll_creation_message_v4: wraps(wa::Message { poll_creation_message: some(poll()), ..Default::default() })
            => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        status_add_yours: hello() => Said("Hello"),
        group_status_message: wraps(image("The beach")) => File(Image, "The beach"),
        rich_response_message: wa::AIRichResponseMessage {
            submessages: vec![wa::AIRichResponseSubMessage { message_text: s("Hello"), ..Default::default() }],
            ..Default::default()
        } => Said("Hello"),
        status_notification_message: kind::StatusNotificationMessage::default() => Nothing,
        limit_sharing_message: wraps(wa::Message { protocol_message: some(kind::ProtocolMessage::default()), ..Default::default() })
            => Nothing,
        bot_task_message: hello() => Said("Hello"),
        question_message: hello() => Said("Hello"),
        message_history_notice: kind::MessageHistoryNotice::default() => Nothing,
        group_status_message_v2: hello() => Said("Hello"),
        bot_forwarded_message: hello() => Said("Hello"),
        status_question_answer_message: kind::StatusQuestionAnswerMessage { text: s("Blue"), ..Default::default() }
            => Said("Blue"),
        question_reply_message: hello() => Said("Hello"),
        question_response_message: kind::QuestionResponseMessage { text: s("Blue"), ..Default::default() } => Said("Blue"),
        status_quoted_message: kind::StatusQuotedMessage { text: s("Blue"), ..Default::default() } => Said("Blue"),
        status_sticker_interaction_message: kind::StatusStickerInteractionMessage::default() => Nothing,
        poll_creation_message_v5: poll() => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        newsletter_follower_invite_message_v2: kind::NewsletterFollowerInviteMessage {
            newsletter_name: s("News"),
            ..Default::default()
        } => Said("[Invitation to the channel News]"),
        poll_result_snapshot_message_v3: votes() => Said("[Result of the poll: Pizza or pasta? — Pizza 3]"),
        newsletter_admin_profile_message: hello() => Said("Hello"),
        newsletter_admin_profile_message_v2: hello() => Said("Hello"),
        spoiler_message: hello() => Said("Hello"),
        poll_creation_message_v6: poll() => Said("[Poll: Pizza or pasta? — Pizza · Pasta]"),
        conditional_reveal_message: kind::ConditionalRevealMessage::default()
            => Said("[A message that only the phone can open]"),
        poll_add_option_message: kind::PollAddOptionMessage {
            poll_creation_message_key: key(),
            add_option: some(option("Salad")),
            ..Default::default()
        } => Done("[Choice added to the poll: Salad]", Some("3EB9")),
        event_invite_message: kind::EventInviteMessage { event_title: s("Dinner"), caption: s("Come!"), ..Default::default() }
            => Said("[Invitation to the event: Dinner]\nCome!"),
        group_root_key_share: wa::GroupRootKeyShare::default() => Nothing,
        payment_reminder_message: kind::PaymentReminderMessage {
            amount: euros(1250),
            description: s("Rent"),
            ..Default::default()
        } => Said("[Reminder of a payment: 12.50 EUR — Rent]"),
        split_payment_message: kind::SplitPaymentMessage {
            total_amount: euros(3000),
            description: s("Dinner"),
            ..Default::default()
        } => Said("[Payment to be shared: 30.00 EUR — Dinner]"),
        newsletter_admin_profile_status_message: hello() => Said("Hello"),
        root_secret_distribute_message: kind::RootSecretDistributeMessage::default() => Nothing,
    };
    for (name, message, expected) in &table {
        assert_eq!(summarize_events(&events(&info(), message)), *expected, "{name}");
    }
    // The library's own list of its kinds.
    let shown = format!("{:#?}", wa::Message::default());
    let field = |line: &str| {
        let name = line.strip_prefix("    ")?.split_once(':')?.0;
        (!name.starts_with(' ')).then(|| name.to_owned())
    };
    let kinds: Vec<String> = shown.lines().filter_map(field).collect();
    assert_eq!(table.map(|(name, ..)| name.to_owned()).to_vec(), kinds);
}

#[test]
fn what_was_tapped_is_told_as_the_person_saw_it() {
    let flow = |body: Option<&str>, params: &str| {
        let response = kind::interactive_response_message::NativeFlowResponseMessage {
            name: Some("quick_reply".to_owned()),
            params_json: Some(params.to_owned()),
            ..Default::default()
        };
        let chosen = kind::InteractiveResponseMessage {
            body: body
                .map(|text| {
                    some(kind::interactive_response_message::Body {
                        text: Some(text.to_owned()),
                        ..Default::default()
                    })
                })
                .unwrap_or_default(),
            interactive_response_message: Some(response.into()),
            ..Default::default()
        };
        said(&wa::Message { interactive_response_message: some(chosen), ..Default::default() }).text
    };
    for (body, params, text) in [
        (Some("Yes, @Kai"), r#"{"id": "yes"}"#, "Yes, @Kai"),
        (None, r#"{"id": "yes", "display_text": "Yes, @Kai"}"#, "Yes, @Kai"),
        (Some(" "), r#"{"id": "yes"}"#, "yes"),
        (None, "{}", "quick_reply"),
        (None, "no JSON", "quick_reply"),
        (None, r#"[1, {"id": 2}]"#, "quick_reply"),
    ] {
        assert_eq!(flow(body, params), text, "{body:?} {params}");
    }
}

#[test]
fn a_comment_answers_what_it_is_on() {
    let comment = kind::CommentMessage {
        message: some(wa::Message::text("Me too")),
        target_message_key: some(wa::MessageKey { id: Some("3EB9".to_owned()), ..Default::default() }),
    };
    let comment = said(&wa::Message { comment_message: some(comment), ..Default::default() });
    assert_eq!((comment.text.as_str(), comment.quote.unwrap().id.as_str()), ("Me too", "3EB9"));
}

#[test]
fn what_linked_devices_do_not_get_is_told_in_its_place() {
    let placeholder = |kind| {
        let events = inbound::build_unavailable_events(&me(), &|_| None, &info(), kind);
        let placeholder = |event| {
            let Event::Message(message) = event else { return None };
            Some((message.id.to_string(), message.sender_name, message.text))
        };
        events.into_iter().find_map(placeholder)
    };
    for (kind, text) in [
        (
            UnavailableType::ViewOnce,
            "[A picture, video or voice note to be seen once, which only the phone can open]",
        ),
        (UnavailableType::Hosted, "[A message that only the phone can open]"),
        (UnavailableType::Bot, "[A message that only the phone can open]"),
    ] {
        let expected = ("3EB0".to_owned(), "Anna".to_owned(), text.to_owned());
        assert_eq!(placeholder(kind), Some(expected));
    }
    assert_eq!(placeholder(UnavailableType::Unknown), None, "the phone is asked for it");
}
