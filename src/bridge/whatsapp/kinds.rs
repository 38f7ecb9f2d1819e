//! What a message is, one layer deep: each kind that the library can decode, with its words. Pure, over protobufs that
//! strangers made: everything is bounded before it is kept.

use jiff::Timestamp;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use super::contents::{name, one_line, whole};
use super::files;
use super::offers::{
    CARDS_DEEP, answered, buttons, interactive, list, pressed, product, structured, template,
};
use crate::types::Media;

/// Most contacts, choices of a poll, buttons or cards that are told.
pub const LIST_MAX: usize = 20;
/// Most characters of a question or a choice.
pub const LINE_MAX: usize = 255;

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
    /// Somebody has done something that people see in the chat, to this message if it is to one: a pin, a call.
    Done { text: String, to: Option<&'m wa::MessageKey> },
    /// It only keeps the clients in step, or is read elsewhere: changes and reactions.
    InStep,
}

/// The first of these kinds that a message has, as `Layer`s.
macro_rules! first_of {
    ($($kind:ident => $layer:expr,)+) => {
        $(if let Some(found) = $kind.as_option() {
            return read_as(found, $layer);
        })+
    };
}

fn read_as<'m, T>(found: &'m T, layer: impl FnOnce(&'m T) -> Layer<'m>) -> Layer<'m> {
    layer(found)
}

/// What a message is. One of a kind that is newer than the library arrives empty.
pub fn layer(message: &wa::Message) -> Layer<'_> {
    // Without `..`: when the library learns a kind, this does not compile before somebody has given it its words. What
    // goes along with a new kind (its quote, its mentions) is read in `context` below.
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

    // A status that is posted to a group, or names it, is for the people of that group, as what they write there is.
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
        protocol_message => in_step,
        reaction_message => in_step,
        image_message => |image| captioned(&image.caption, files::image(image)),
        video_message => |video| captioned(&video.caption, files::video(video)),
        ptv_message => |video| captioned(&video.caption, files::video(video)),
        audio_message => |audio| captioned(&None, files::audio(audio)),
        document_message => |document| captioned(&document.caption, files::document(document)),
        sticker_message => |sticker| captioned(&None, files::sticker(sticker)),
    }
    if let Some(text) = conversation {
        return said(whole(text));
    }
    first_of! {
        extended_text_message => |extended| said(words(&extended.text)),
        location_message => |location| said(place(location)),
        live_location_message => |location| said(live_place(location)),
        contact_message => |contact| said(card(contact)),
        contacts_array_message => |contacts| said(lines(contacts.contacts.iter().take(LIST_MAX).map(card))),
        chat => |chat| said(told("Chat", [line(&chat.display_name)])),
        poll_creation_message => |asked| said(poll(asked)),
        poll_creation_message_v2 => |asked| said(poll(asked)),
        poll_creation_message_v3 => |asked| said(poll(asked)),
        poll_creation_message_v5 => |asked| said(poll(asked)),
        poll_creation_message_v6 => |asked| said(poll(asked)),
        poll_result_snapshot_message => |result| said(poll_result(result)),
        poll_result_snapshot_message_v3 => |result| said(poll_result(result)),
        buttons_response_message => |chosen| said(pressed(chosen)),
        template_button_reply_message => |chosen| {
            said(first([words(&chosen.selected_display_text), words(&chosen.selected_id)]))
        },
        list_response_message => |chosen| {
            let row = chosen.single_select_reply.as_option().map(|reply| words(&reply.selected_row_id));
            said(first([words(&chosen.title), words(&chosen.description), row.unwrap_or_default()]))
        },
        interactive_response_message => |chosen| said(answered(chosen)),
        buttons_message => |offered| buttons(offered).layer(),
        list_message => |offered| said(list(offered)),
        template_message => |offered| template(offered).layer(),
        highly_structured_message => |offered| structured(offered).layer(),
        interactive_message => |offered| interactive(offered, CARDS_DEEP).layer(),
        rich_response_message => |rich| {
            said(lines(rich.submessages.iter().take(LIST_MAX).map(|part| words(&part.message_text))))
        },
        group_invite_message => |invite| said(invitation("to the group", &invite.group_name, &invite.caption)),
        newsletter_admin_invite_message => |invite| {
            said(invitation("to run the channel", &invite.newsletter_name, &invite.caption))
        },
        newsletter_follower_invite_message_v2 => |invite| {
            said(invitation("to the channel", &invite.newsletter_name, &invite.caption))
        },
        event_message => |planned| said(event(planned)),
        event_invite_message => |invite| said(event_invitation(invite)),
        product_message => |offered| product(offered).layer(),
        order_message => |placed| said(order(placed)),
        invoice_message => |invoice| said(lines(["[Invoice]".to_owned(), words(&invoice.note)])),
        send_payment_message => |payment| noted("[Payment]".to_owned(), &payment.note_message),
        request_payment_message => |request| noted(payment_request(request), &request.note_message),
        payment_invite_message => |_| said("[Invitation to pay each other on WhatsApp]".to_owned()),
        payment_reminder_message => |reminder| {
            let amount = reminder.amount.as_option().map(money).unwrap_or_default();
            said(told("Reminder of a payment", [amount, line(&reminder.description)]))
        },
        split_payment_message => |split| {
            let amount = split.total_amount.as_option().map(money).unwrap_or_default();
            said(told("Payment to be shared", [amount, line(&split.description)]))
        },
        request_phone_number_message => |_| said("[Request for your phone number]".to_owned()),
        scheduled_call_creation_message => |planned| {
            said(told("Call planned", [line(&planned.title), from_millis(planned.scheduled_timestamp_ms)]))
        },
        sticker_pack_message => |pack| {
            said(lines([told("Stickers", [line(&pack.name), line(&pack.publisher)]), words(&pack.caption)]))
        },
        question_response_message => |answer| said(words(&answer.text)),
        status_question_answer_message => |answer| said(words(&answer.text)),
        status_quoted_message => |quoted| said(words(&quoted.text)),
        placeholder_message => |_| said(ONLY_THE_PHONE.to_owned()),
        conditional_reveal_message => |_| said(ONLY_THE_PHONE.to_owned()),
        secret_encrypted_message => secret,
        pin_in_chat_message => |pin| {
            let unpins = pin.r#type == Some(kind::pin_in_chat_message::Type::UNPIN_FOR_ALL);
            done(if unpins { "[Unpinned]" } else { "[Pinned]" }, pin.key.as_option())
        },
        poll_add_option_message => |added| {
            let option = added.add_option.as_option().map(|option| line(&option.option_name));
            done(told("Choice added to the poll", option), added.poll_creation_message_key.as_option())
        },
        enc_comment_message => |comment| {
            done("[A comment that only the phone can open]", comment.target_message_key.as_option())
        },
        decline_payment_request_message => |declined| {
            done("[Request for a payment declined]", declined.key.as_option())
        },
        cancel_payment_request_message => |cancelled| {
            done("[Request for a payment taken back]", cancelled.key.as_option())
        },
        scheduled_call_edit_message => |edit| done("[Planned call cancelled]", edit.key.as_option()),
        call_log_messsage => |call| done(call_made(call), None),
        bcall_message => |call| done(lines(["[Call]".to_owned(), words(&call.caption)]), None),
        call => |_| done("[Call]", None),
        // Keys and votes; what only belongs to messages that come beside it; what phones do among themselves.
        sender_key_distribution_message => in_step,
        fast_ratchet_key_sender_key_distribution_message => in_step,
        device_sent_message => in_step,
        comment_message => in_step,
        sticker_sync_rmr_message => in_step,
        poll_update_message => in_step,
        keep_in_chat_message => in_step,
        enc_reaction_message => in_step,
        enc_event_response_message => in_step,
        message_history_bundle => in_step,
        message_history_notice => in_step,
        album_message => in_step,
        status_notification_message => in_step,
        status_sticker_interaction_message => in_step,
        group_root_key_share => in_step,
        root_secret_distribute_message => in_step,
    }
    said(UNREADABLE.to_owned())
}

/// What goes along with a message: its quote, its mentions, how long it stays.
pub fn context(message: &wa::Message) -> Option<&wa::ContextInfo> {
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

fn said<'m>(text: String) -> Layer<'m> {
    Layer::Said { text, media: None }
}

fn captioned<'m>(caption: &Option<String>, media: Media) -> Layer<'m> {
    Layer::Said { text: words(caption), media: Some(media) }
}

fn done<'m>(text: impl Into<String>, to: Option<&'m wa::MessageKey>) -> Layer<'m> {
    Layer::Done { text: text.into(), to }
}

fn in_step<'m, T>(_: &'m T) -> Layer<'m> {
    Layer::InStep
}

/// What the library could not open, since it has not seen what this changes.
fn secret(secret: &kind::SecretEncryptedMessage) -> Layer<'_> {
    use kind::secret_encrypted_message::SecretEncType;
    let text = match secret.secret_enc_type {
        Some(SecretEncType::MESSAGE_EDIT) => "[A change of this message that only the phone can open]",
        Some(SecretEncType::EVENT_EDIT) => "[A change of this event that only the phone can open]",
        Some(SecretEncType::POLL_EDIT | SecretEncType::POLL_ADD_OPTION) => {
            "[A change of this poll that only the phone can open]"
        }
        Some(SecretEncType::UNKNOWN | SecretEncType::MESSAGE_SCHEDULE) | None => {
            return said(ONLY_THE_PHONE.to_owned());
        }
    };
    done(text, secret.target_message_key.as_option())
}

/// What somebody wrote, whole.
pub fn words(text: &Option<String>) -> String {
    text.as_deref().map(whole).unwrap_or_default()
}

/// A question, a title, a choice: one line.
pub fn line(text: &Option<String>) -> String {
    one_line(text.as_deref().unwrap_or_default(), LINE_MAX)
}

/// The first that says something.
pub fn first<const N: usize>(texts: [String; N]) -> String {
    texts.into_iter().find(|text| !text.trim().is_empty()).unwrap_or_default()
}

/// Those that say something, one below the other.
pub fn lines(texts: impl IntoIterator<Item = String>) -> String {
    joined(texts, "\n")
}

pub fn joined(texts: impl IntoIterator<Item = String>, between: &str) -> String {
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(between)
}

/// `[Order: Cake — 2 items]`, or `[Order]`.
pub fn told(what: &str, parts: impl IntoIterator<Item = String>) -> String {
    match joined(parts, " — ") {
        parts if parts.is_empty() => format!("[{what}]"),
        parts => format!("[{what}: {parts}]"),
    }
}

/// `[Choices: Pizza · Pasta]`; nothing without any.
pub fn choices(what: &str, names: impl IntoIterator<Item = String>) -> String {
    match joined(names.into_iter().take(LIST_MAX), " · ") {
        names if names.is_empty() => names,
        names => format!("[{what}: {names}]"),
    }
}

/// `[Location: 40.712800, -74.006000 — NYC]`; nothing for a place that is not on earth.
pub fn place(location: &kind::LocationMessage) -> String {
    let what = if location.is_live == Some(true) { "Live location" } else { "Location" };
    let called = joined(
        [&location.name, &location.address].map(|called| name(called.as_deref().unwrap_or_default())),
        ", ",
    );
    match on_earth(location.degrees_latitude, location.degrees_longitude) {
        Some(degrees) => lines([told(what, [degrees, called]), words(&location.comment)]),
        None => String::new(),
    }
}

/// The place where it moved from: linked devices do not hear how it goes on.
fn live_place(location: &kind::LiveLocationMessage) -> String {
    match on_earth(location.degrees_latitude, location.degrees_longitude) {
        Some(degrees) => lines([told("Live location", [degrees]), words(&location.caption)]),
        None => words(&location.caption),
    }
}

fn on_earth(latitude: Option<f64>, longitude: Option<f64>) -> Option<String> {
    let (latitude, longitude) = (latitude?, longitude?);
    let is_there = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    is_there.then(|| format!("{latitude:.6}, {longitude:.6}"))
}

/// `[Contact: Anna, +1 555 000 1111]`.
fn card(contact: &kind::ContactMessage) -> String {
    let card = words(&contact.vcard);
    let numbers = card.lines().filter_map(|line| {
        let (what, number) = line.split_once(':')?;
        // A property may stand in a group: item1.TEL;waid=15550001111:+1 555 000 1111.
        let property = what.split(';').next()?.rsplit('.').next()?;
        property.eq_ignore_ascii_case("TEL").then(|| name(number))
    });
    let called = name(contact.display_name.as_deref().unwrap_or_default());
    let parts = joined(std::iter::once(called).chain(numbers.take(LIST_MAX)), ", ");
    if parts.is_empty() { parts } else { format!("[Contact: {parts}]") }
}

/// `[Poll: Pizza or pasta? — Pizza · Pasta]`.
fn poll(poll: &kind::PollCreationMessage) -> String {
    let options = joined(poll.options.iter().take(LIST_MAX).map(|option| line(&option.option_name)), " · ");
    told("Poll", [line(&poll.name), options])
}

/// `[Result of the poll: Pizza or pasta? — Pizza 3 · Pasta 1]`.
fn poll_result(result: &kind::PollResultSnapshotMessage) -> String {
    let votes = result.poll_votes.iter().take(LIST_MAX);
    let votes = votes
        .map(|vote| format!("{} {}", line(&vote.option_name), vote.option_vote_count.unwrap_or_default()));
    told("Result of the poll", [line(&result.name), joined(votes, " · ")])
}

/// `[Invitation to the group Chess]`, and what was written beside it.
fn invitation(to: &str, called: &Option<String>, caption: &Option<String>) -> String {
    let called = name(called.as_deref().unwrap_or_default());
    lines([format!("[Invitation {}]", format!("{to} {called}").trim_end()), words(caption)])
}

/// `[Event: Dinner — from 2026-11-29 19:00 UTC — Plaza Mayor]`, and what it is about.
fn event(event: &kind::EventMessage) -> String {
    let what = if event.is_canceled == Some(true) { "Event, cancelled" } else { "Event" };
    let until = event.end_time.map(|end| format!("until {}", from_second(Some(end)))).unwrap_or_default();
    let begins =
        event.start_time.map(|start| format!("from {}", from_second(Some(start)))).unwrap_or_default();
    let whereabouts = event.location.as_option().map(|location| {
        first([[&location.name, &location.address].map(line).join(" ").trim().to_owned(), place(location)])
    });
    let parts = [line(&event.name), begins, until, whereabouts.unwrap_or_default(), line(&event.join_link)];
    lines([told(what, parts), words(&event.description)])
}

fn event_invitation(invite: &kind::EventInviteMessage) -> String {
    let what = if invite.is_canceled == Some(true) { "Event, cancelled" } else { "Invitation to the event" };
    let begins =
        invite.start_time.map(|start| format!("from {}", from_second(Some(start)))).unwrap_or_default();
    let parts = [line(&invite.event_title), begins, line(&invite.call_link)];
    lines([told(what, parts), words(&invite.caption)])
}

fn order(order: &kind::OrderMessage) -> String {
    let items = order.item_count.map(|count| format!("items: {count}")).unwrap_or_default();
    let price = thousandths(order.total_amount1000, &order.total_currency_code);
    lines([told("Order", [line(&order.order_title), items, price]), words(&order.message)])
}

fn payment_request(request: &kind::RequestPaymentMessage) -> String {
    let declared = || {
        let amount = request.amount1000.and_then(|amount| i64::try_from(amount).ok());
        thousandths(amount, &request.currency_code_iso4217)
    };
    told("Request for a payment", [request.amount.as_option().map(money).unwrap_or_else(declared)])
}

/// What was written beside a payment. It is a message of its own, and only its text is told.
fn noted<'m>(what: String, note: &MessageField<wa::Message>) -> Layer<'m> {
    let note = note.as_option().map(|note| {
        let extended = note.extended_text_message.as_option().map(|extended| words(&extended.text));
        first([words(&note.conversation), extended.unwrap_or_default()])
    });
    said(lines([what, note.unwrap_or_default()]))
}

/// `[Voice call: 3 min]`, `[Video call: missed]`.
fn call_made(call: &kind::CallLogMessage) -> String {
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
    told(what, [how])
}

/// `12.50 EUR`.
fn money(amount: &wa::Money) -> String {
    let units = amount.value.unwrap_or_default() as f64 / f64::from(amount.offset.unwrap_or(1).max(1));
    format!("{units:.2} {}", line(&amount.currency_code)).trim_end().to_owned()
}

/// The same for an amount in thousandths; nothing without one.
pub fn thousandths(amount: Option<i64>, currency: &Option<String>) -> String {
    amount
        .map(|amount| {
            money(&wa::Money { value: Some(amount), offset: Some(1000), currency_code: currency.clone() })
        })
        .unwrap_or_default()
}

fn from_second(second: Option<i64>) -> String {
    second.and_then(|second| Timestamp::from_second(second).ok()).map(moment).unwrap_or_default()
}

fn from_millis(millis: Option<i64>) -> String {
    millis.and_then(|millis| Timestamp::from_millisecond(millis).ok()).map(moment).unwrap_or_default()
}

fn moment(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
