//! What a message is, one layer deep: each kind that the library can decode, with its words. Pure, over
//! protobufs that strangers made: everything is bounded before it is kept.

use jiff::Timestamp;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use super::files;
use super::offers::{
    CARDS_DEEP, ComposedOffer, compose_buttons, compose_interactive, compose_product,
    compose_structured_text, compose_template, render_interactive_response, render_list_message,
    render_pressed_button,
};
use super::wording::{
    LIST_MAX, clean_name, first_non_blank, join_lines, join_non_empty, optional_line, optional_text,
    render_coordinates, render_labelled, render_location, render_money, render_thousandths, shorten_middle,
};
use crate::types::Media;

/// Stands for what nanokimi has no words for.
pub const UNREADABLE: &str = "[A message of a kind that I cannot read]";
/// Stands for a picture, video or voice note that is to be seen once: WhatsApp sends it to no linked device.
pub const SEEN_ONCE: &str = "[A picture, video or voice note to be seen once, which only the phone can open]";
/// Stands for anything else that linked devices never get.
pub const ONLY_THE_PHONE: &str = "[A message that only the phone can open]";

/// What a message is, one layer deep.
#[derive(Debug)]
pub enum Layer<'m> {
    /// Another message is in it: a disappearing one, one to be seen once, one that another device has sent …
    Wraps(&'m wa::Message),
    /// Somebody speaks. Nothing is said if the text is empty and there is no file.
    Said { text: String, media: Option<Media> },
    /// Somebody has done something that people see in the chat, to this message if it is to one: a pin, a
    /// call.
    Done { text: String, to: Option<&'m wa::MessageKey> },
    /// It only keeps the clients in step, or is read elsewhere: changes and reactions.
    InStep,
}

/// The first of these kinds that a message has, as `Layer`s.
macro_rules! first_of {
    ($($kind:ident => $layer:expr,)+) => {
        $(if let Some(found) = $kind.as_option() {
            return apply_layer(found, $layer);
        })+
    };
}

fn apply_layer<'m, T>(found: &'m T, layer: impl FnOnce(&'m T) -> Layer<'m>) -> Layer<'m> {
    layer(found)
}

/// What a message is. One of a kind that is newer than the library arrives empty.
pub fn parse_layer(message: &wa::Message) -> Layer<'_> {
    // Without `..`: when the library learns a kind, this does not compile before somebody has given it its
    // words. What goes along with a new kind (its quote, its mentions) is read in `find_context_info` below.
    let wa::Message {
        conversation,
        sender_key_distribution_message,
        image_message,
        contact_message,
        location_message,
        extended_text_message,
        document_message,
        audio_message,
        video_message,
        call,
        chat,
        protocol_message,
        contacts_array_message,
        highly_structured_message,
        fast_ratchet_key_sender_key_distribution_message,
        send_payment_message,
        live_location_message,
        request_payment_message,
        decline_payment_request_message,
        cancel_payment_request_message,
        template_message,
        sticker_message,
        group_invite_message,
        template_button_reply_message,
        product_message,
        device_sent_message,
        // Says nothing by itself, and goes along with any kind.
        message_context_info: _,
        list_message,
        view_once_message,
        order_message,
        list_response_message,
        ephemeral_message,
        invoice_message,
        buttons_message,
        buttons_response_message,
        payment_invite_message,
        interactive_message,
        reaction_message,
        sticker_sync_rmr_message,
        interactive_response_message,
        poll_creation_message,
        poll_update_message,
        keep_in_chat_message,
        document_with_caption_message,
        request_phone_number_message,
        view_once_message_v2,
        enc_reaction_message,
        edited_message,
        view_once_message_v2_extension,
        poll_creation_message_v2,
        scheduled_call_creation_message,
        group_mentioned_message,
        pin_in_chat_message,
        poll_creation_message_v3,
        scheduled_call_edit_message,
        ptv_message,
        bot_invoke_message,
        call_log_messsage,
        message_history_bundle,
        enc_comment_message,
        bcall_message,
        lottie_sticker_message,
        event_message,
        enc_event_response_message,
        comment_message,
        newsletter_admin_invite_message,
        placeholder_message,
        secret_encrypted_message,
        album_message,
        event_cover_image,
        sticker_pack_message,
        status_mention_message,
        poll_result_snapshot_message,
        poll_creation_option_image_message,
        associated_child_message,
        group_status_mention_message,
        poll_creation_message_v4,
        status_add_yours,
        group_status_message,
        rich_response_message,
        status_notification_message,
        limit_sharing_message,
        bot_task_message,
        question_message,
        message_history_notice,
        group_status_message_v2,
        bot_forwarded_message,
        status_question_answer_message,
        question_reply_message,
        question_response_message,
        status_quoted_message,
        status_sticker_interaction_message,
        poll_creation_message_v5,
        newsletter_follower_invite_message_v2,
        poll_result_snapshot_message_v3,
        newsletter_admin_profile_message,
        newsletter_admin_profile_message_v2,
        spoiler_message,
        poll_creation_message_v6,
        conditional_reveal_message,
        poll_add_option_message,
        event_invite_message,
        group_root_key_share,
        payment_reminder_message,
        split_payment_message,
        newsletter_admin_profile_status_message,
        root_secret_distribute_message,
    } = message;

    // A status that is posted to a group, or names it, is for the people of that group, as their messages
    // there are.
    let wrappers = [
        view_once_message,
        ephemeral_message,
        document_with_caption_message,
        view_once_message_v2,
        edited_message,
        view_once_message_v2_extension,
        group_mentioned_message,
        bot_invoke_message,
        lottie_sticker_message,
        event_cover_image,
        status_mention_message,
        poll_creation_option_image_message,
        associated_child_message,
        group_status_mention_message,
        poll_creation_message_v4,
        status_add_yours,
        group_status_message,
        limit_sharing_message,
        bot_task_message,
        question_message,
        group_status_message_v2,
        bot_forwarded_message,
        question_reply_message,
        newsletter_admin_profile_message,
        newsletter_admin_profile_message_v2,
        spoiler_message,
        newsletter_admin_profile_status_message,
    ];
    let wrapped = wrappers.iter().find_map(|wrapper| wrapper.as_option()?.message.as_option());
    let sent = device_sent_message.as_option().and_then(|sent| sent.message.as_option());
    let comment = comment_message.as_option().and_then(|comment| comment.message.as_option());
    if let Some(inner) = sent.or(wrapped).or(comment) {
        return Layer::Wraps(inner);
    }

    first_of! {
        protocol_message => silent_layer,
        reaction_message => silent_layer,
        image_message => |image| media_layer(&image.caption, files::image_media(image)),
        video_message => |video| media_layer(&video.caption, files::video_media(video)),
        ptv_message => |video| media_layer(&video.caption, files::video_media(video)),
        audio_message => |audio| media_layer(&None, files::audio_media(audio)),
        document_message => |document| media_layer(&document.caption, files::document_media(document)),
        sticker_message => |sticker| media_layer(&None, files::sticker_media(sticker)),
    }
    if let Some(text) = conversation {
        return text_layer(shorten_middle(text));
    }
    first_of! {
        extended_text_message => |extended| text_layer(optional_text(&extended.text)),
        location_message => |location| text_layer(render_location(location)),
        live_location_message => |location| text_layer(render_live_location(location)),
        contact_message => |contact| text_layer(render_contact(contact)),
        contacts_array_message => |contacts| text_layer(join_lines(contacts.contacts.iter().take(LIST_MAX).map(render_contact))),
        chat => |chat| text_layer(render_labelled("Chat", [optional_line(&chat.display_name)])),
        poll_creation_message => |asked| text_layer(render_poll(asked)),
        poll_creation_message_v2 => |asked| text_layer(render_poll(asked)),
        poll_creation_message_v3 => |asked| text_layer(render_poll(asked)),
        poll_creation_message_v5 => |asked| text_layer(render_poll(asked)),
        poll_creation_message_v6 => |asked| text_layer(render_poll(asked)),
        poll_result_snapshot_message => |result| text_layer(render_poll_result(result)),
        poll_result_snapshot_message_v3 => |result| text_layer(render_poll_result(result)),
        buttons_response_message => |chosen| text_layer(render_pressed_button(chosen)),
        template_button_reply_message => |chosen| {
            text_layer(first_non_blank([optional_text(&chosen.selected_display_text), optional_text(&chosen.selected_id)]))
        },
        list_response_message => |chosen| {
            let row = chosen.single_select_reply.as_option().map(|reply| optional_text(&reply.selected_row_id));
            text_layer(first_non_blank([optional_text(&chosen.title), optional_text(&chosen.description), row.unwrap_or_default()]))
        },
        interactive_response_message => |chosen| text_layer(render_interactive_response(chosen)),
        buttons_message => |offered| offer_layer(compose_buttons(offered)),
        list_message => |offered| text_layer(render_list_message(offered)),
        template_message => |offered| offer_layer(compose_template(offered)),
        highly_structured_message => |offered| offer_layer(compose_structured_text(offered)),
        interactive_message => |offered| offer_layer(compose_interactive(offered, CARDS_DEEP)),
        rich_response_message => |rich| {
            text_layer(join_lines(rich.submessages.iter().take(LIST_MAX).map(|part| optional_text(&part.message_text))))
        },
        group_invite_message => |invite| text_layer(render_invitation("to the group", &invite.group_name, &invite.caption)),
        newsletter_admin_invite_message => |invite| {
            text_layer(render_invitation("to run the channel", &invite.newsletter_name, &invite.caption))
        },
        newsletter_follower_invite_message_v2 => |invite| {
            text_layer(render_invitation("to the channel", &invite.newsletter_name, &invite.caption))
        },
        event_message => |planned| text_layer(render_calendar_event(planned)),
        event_invite_message => |invite| text_layer(render_event_invitation(invite)),
        product_message => |offered| offer_layer(compose_product(offered)),
        order_message => |placed| text_layer(render_shop_order(placed)),
        invoice_message => |invoice| text_layer(join_lines(["[Invoice]".to_owned(), optional_text(&invoice.note)])),
        send_payment_message => |payment| payment_layer("[Payment]".to_owned(), &payment.note_message),
        request_payment_message => |request| payment_layer(render_payment_request(request), &request.note_message),
        payment_invite_message => |_| text_layer("[Invitation to pay each other on WhatsApp]".to_owned()),
        payment_reminder_message => |reminder| {
            let amount = reminder.amount.as_option().map(render_money).unwrap_or_default();
            text_layer(render_labelled("Reminder of a payment", [amount, optional_line(&reminder.description)]))
        },
        split_payment_message => |split| {
            let amount = split.total_amount.as_option().map(render_money).unwrap_or_default();
            text_layer(render_labelled("Payment to be shared", [amount, optional_line(&split.description)]))
        },
        request_phone_number_message => |_| text_layer("[Request for your phone number]".to_owned()),
        scheduled_call_creation_message => |planned| {
            text_layer(render_labelled("Call planned", [optional_line(&planned.title), render_unix_millis(planned.scheduled_timestamp_ms)]))
        },
        sticker_pack_message => |pack| {
            text_layer(join_lines([render_labelled("Stickers", [optional_line(&pack.name), optional_line(&pack.publisher)]), optional_text(&pack.caption)]))
        },
        question_response_message => |answer| text_layer(optional_text(&answer.text)),
        status_question_answer_message => |answer| text_layer(optional_text(&answer.text)),
        status_quoted_message => |quoted| text_layer(optional_text(&quoted.text)),
        placeholder_message => |_| text_layer(ONLY_THE_PHONE.to_owned()),
        conditional_reveal_message => |_| text_layer(ONLY_THE_PHONE.to_owned()),
        secret_encrypted_message => secret_change_layer,
        pin_in_chat_message => |pin| {
            let unpins = pin.r#type == Some(kind::pin_in_chat_message::Type::UNPIN_FOR_ALL);
            action_layer(if unpins { "[Unpinned]" } else { "[Pinned]" }, pin.key.as_option())
        },
        poll_add_option_message => |added| {
            let option = added.add_option.as_option().map(|option| optional_line(&option.option_name));
            action_layer(render_labelled("Choice added to the poll", option), added.poll_creation_message_key.as_option())
        },
        enc_comment_message => |comment| {
            action_layer("[A comment that only the phone can open]", comment.target_message_key.as_option())
        },
        decline_payment_request_message => |declined| {
            action_layer("[Request for a payment declined]", declined.key.as_option())
        },
        cancel_payment_request_message => |cancelled| {
            action_layer("[Request for a payment taken back]", cancelled.key.as_option())
        },
        scheduled_call_edit_message => |edit| action_layer("[Planned call cancelled]", edit.key.as_option()),
        call_log_messsage => |call| action_layer(render_call_log(call), None),
        bcall_message => |call| action_layer(join_lines(["[Call]".to_owned(), optional_text(&call.caption)]), None),
        call => |_| action_layer("[Call]", None),
        // Keys and votes; what only belongs to messages that come beside it; what phones do among themselves.
        sender_key_distribution_message => silent_layer,
        fast_ratchet_key_sender_key_distribution_message => silent_layer,
        device_sent_message => silent_layer,
        comment_message => silent_layer,
        sticker_sync_rmr_message => silent_layer,
        poll_update_message => silent_layer,
        keep_in_chat_message => silent_layer,
        enc_reaction_message => silent_layer,
        enc_event_response_message => silent_layer,
        message_history_bundle => silent_layer,
        message_history_notice => silent_layer,
        album_message => silent_layer,
        status_notification_message => silent_layer,
        status_sticker_interaction_message => silent_layer,
        group_root_key_share => silent_layer,
        root_secret_distribute_message => silent_layer,
    }
    text_layer(UNREADABLE.to_owned())
}

/// What goes along with a message: its quote, its mentions, how long it stays.
pub fn find_context_info(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! first {
        ($($kind:ident),+ $(,)?) => {
            [$(message.$kind.as_option().and_then(|found| found.context_info.as_option())),+].into_iter().flatten().next()
        };
    }
    let note = || {
        let sent = message.send_payment_message.as_option().map(|payment| &payment.note_message);
        let asked = || message.request_payment_message.as_option().map(|request| &request.note_message);
        let note = sent.or_else(asked)?.as_option()?;
        note.extended_text_message.as_option()?.context_info.as_option()
    };
    first!(
        extended_text_message,
        image_message,
        video_message,
        ptv_message,
        audio_message,
        document_message,
        sticker_message,
        location_message,
        live_location_message,
        contact_message,
        contacts_array_message,
        poll_creation_message,
        poll_creation_message_v2,
        poll_creation_message_v3,
        poll_creation_message_v5,
        poll_creation_message_v6,
        poll_result_snapshot_message,
        poll_result_snapshot_message_v3,
        buttons_message,
        buttons_response_message,
        list_message,
        list_response_message,
        template_message,
        template_button_reply_message,
        interactive_message,
        interactive_response_message,
        rich_response_message,
        group_invite_message,
        newsletter_admin_invite_message,
        newsletter_follower_invite_message_v2,
        event_message,
        event_invite_message,
        product_message,
        order_message,
        split_payment_message,
        request_phone_number_message,
        sticker_pack_message,
        album_message,
        message_history_bundle,
        message_history_notice,
        call,
    )
    .or_else(note)
}

fn text_layer<'m>(text: String) -> Layer<'m> {
    Layer::Said { text, media: None }
}

fn media_layer<'m>(caption: &Option<String>, media: Media) -> Layer<'m> {
    Layer::Said { text: optional_text(caption), media: Some(media) }
}

fn offer_layer<'m>(offer: ComposedOffer) -> Layer<'m> {
    Layer::Said { text: offer.text, media: offer.media }
}

fn action_layer<'m>(text: impl Into<String>, to: Option<&'m wa::MessageKey>) -> Layer<'m> {
    Layer::Done { text: text.into(), to }
}

fn silent_layer<'m, T>(_: &'m T) -> Layer<'m> {
    Layer::InStep
}

/// What the library could not open, since it has not seen what this changes.
fn secret_change_layer(secret: &kind::SecretEncryptedMessage) -> Layer<'_> {
    use kind::secret_encrypted_message::SecretEncType;
    let text = match secret.secret_enc_type {
        Some(SecretEncType::MESSAGE_EDIT) => "[A change of this message that only the phone can open]",
        Some(SecretEncType::EVENT_EDIT) => "[A change of this event that only the phone can open]",
        Some(SecretEncType::POLL_EDIT | SecretEncType::POLL_ADD_OPTION) => {
            "[A change of this poll that only the phone can open]"
        }
        Some(SecretEncType::UNKNOWN | SecretEncType::MESSAGE_SCHEDULE) | None => {
            return text_layer(ONLY_THE_PHONE.to_owned());
        }
    };
    action_layer(text, secret.target_message_key.as_option())
}

/// The place from which it moves: linked devices do not get the later ones.
fn render_live_location(location: &kind::LiveLocationMessage) -> String {
    match render_coordinates(location.degrees_latitude, location.degrees_longitude) {
        Some(degrees) => {
            join_lines([render_labelled("Live location", [degrees]), optional_text(&location.caption)])
        }
        None => optional_text(&location.caption),
    }
}

/// `[Contact: Anna, +1 555 000 1111]`.
fn render_contact(contact: &kind::ContactMessage) -> String {
    let card = optional_text(&contact.vcard);
    let numbers = card.lines().filter_map(|line| {
        let (what, number) = line.split_once(':')?;
        // A property may stand in a group: item1.TEL;waid=15550001111:+1 555 000 1111.
        let property = what.split(';').next()?.rsplit('.').next()?;
        property.eq_ignore_ascii_case("TEL").then(|| clean_name(number))
    });
    let called = clean_name(contact.display_name.as_deref().unwrap_or_default());
    let parts = join_non_empty(std::iter::once(called).chain(numbers.take(LIST_MAX)), ", ");
    if parts.is_empty() { parts } else { format!("[Contact: {parts}]") }
}

/// `[Poll: Pizza or pasta? — Pizza · Pasta]`.
fn render_poll(poll: &kind::PollCreationMessage) -> String {
    let options = join_non_empty(
        poll.options.iter().take(LIST_MAX).map(|option| optional_line(&option.option_name)),
        " · ",
    );
    render_labelled("Poll", [optional_line(&poll.name), options])
}

/// `[Result of the poll: Pizza or pasta? — Pizza 3 · Pasta 1]`.
fn render_poll_result(result: &kind::PollResultSnapshotMessage) -> String {
    let votes = result.poll_votes.iter().take(LIST_MAX);
    let votes = votes.map(|vote| {
        format!("{} {}", optional_line(&vote.option_name), vote.option_vote_count.unwrap_or_default())
    });
    render_labelled("Result of the poll", [optional_line(&result.name), join_non_empty(votes, " · ")])
}

/// `[Invitation to the group Chess]`, and what was written beside it.
fn render_invitation(to: &str, called: &Option<String>, caption: &Option<String>) -> String {
    let called = clean_name(called.as_deref().unwrap_or_default());
    join_lines([format!("[Invitation {}]", format!("{to} {called}").trim_end()), optional_text(caption)])
}

/// `[Event: Dinner — from 2026-11-29 19:00 UTC — Plaza Mayor]`, and what it is about.
fn render_calendar_event(event: &kind::EventMessage) -> String {
    let what = if event.is_canceled == Some(true) { "Event, cancelled" } else { "Event" };
    let until =
        event.end_time.map(|end| format!("until {}", render_unix_seconds(Some(end)))).unwrap_or_default();
    let begins = event
        .start_time
        .map(|start| format!("from {}", render_unix_seconds(Some(start))))
        .unwrap_or_default();
    let whereabouts = event.location.as_option().map(|location| {
        first_non_blank([
            [&location.name, &location.address].map(optional_line).join(" ").trim().to_owned(),
            render_location(location),
        ])
    });
    let parts = [
        optional_line(&event.name),
        begins,
        until,
        whereabouts.unwrap_or_default(),
        optional_line(&event.join_link),
    ];
    join_lines([render_labelled(what, parts), optional_text(&event.description)])
}

fn render_event_invitation(invite: &kind::EventInviteMessage) -> String {
    let what = if invite.is_canceled == Some(true) { "Event, cancelled" } else { "Invitation to the event" };
    let begins = invite
        .start_time
        .map(|start| format!("from {}", render_unix_seconds(Some(start))))
        .unwrap_or_default();
    let parts = [optional_line(&invite.event_title), begins, optional_line(&invite.call_link)];
    join_lines([render_labelled(what, parts), optional_text(&invite.caption)])
}

fn render_shop_order(order: &kind::OrderMessage) -> String {
    let items = order.item_count.map(|count| format!("items: {count}")).unwrap_or_default();
    let price = render_thousandths(order.total_amount1000, &order.total_currency_code);
    join_lines([
        render_labelled("Order", [optional_line(&order.order_title), items, price]),
        optional_text(&order.message),
    ])
}

fn render_payment_request(request: &kind::RequestPaymentMessage) -> String {
    let declared = || {
        let amount = request.amount1000.and_then(|amount| i64::try_from(amount).ok());
        render_thousandths(amount, &request.currency_code_iso4217)
    };
    render_labelled(
        "Request for a payment",
        [request.amount.as_option().map(render_money).unwrap_or_else(declared)],
    )
}

/// What was written beside a payment. It is a message of its own, of which only the text is kept.
fn payment_layer<'m>(what: String, note: &MessageField<wa::Message>) -> Layer<'m> {
    let note = note.as_option().map(|note| {
        let extended = note.extended_text_message.as_option().map(|extended| optional_text(&extended.text));
        first_non_blank([optional_text(&note.conversation), extended.unwrap_or_default()])
    });
    text_layer(join_lines([what, note.unwrap_or_default()]))
}

/// `[Voice call: 3 min]`, `[Video call: missed]`.
fn render_call_log(call: &kind::CallLogMessage) -> String {
    use kind::call_log_message::CallOutcome;
    let what = if call.is_video == Some(true) { "Video call" } else { "Voice call" };
    let how = match call.call_outcome {
        Some(CallOutcome::MISSED | CallOutcome::SILENCED_BY_DND | CallOutcome::SILENCED_UNKNOWN_CALLER) => {
            "missed".to_owned()
        }
        Some(CallOutcome::REJECTED) => "declined".to_owned(),
        Some(CallOutcome::FAILED) => "failed".to_owned(),
        Some(CallOutcome::ONGOING) => "going on".to_owned(),
        Some(CallOutcome::CONNECTED | CallOutcome::ACCEPTED_ELSEWHERE) | None => {
            call.duration_secs.map(|secs| format!("{} min", secs / 60)).unwrap_or_default()
        }
    };
    render_labelled(what, [how])
}

fn render_unix_seconds(second: Option<i64>) -> String {
    second.and_then(|second| Timestamp::from_second(second).ok()).map(render_utc_minute).unwrap_or_default()
}

fn render_unix_millis(millis: Option<i64>) -> String {
    millis
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map(render_utc_minute)
        .unwrap_or_default()
}

fn render_utc_minute(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
