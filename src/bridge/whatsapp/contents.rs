//! What a message says, whatever its kind: its text, its file, what it answers. Pure, over protobufs that
//! strangers made: everything is bounded before it is kept.

use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use crate::types::{Media, MediaKind};
use crate::writing::turns_direction;

/// Most bytes of a message's text: WhatsApp's own limit is 65,536 characters.
const TEXT_MAX: usize = 64 * 1024;
/// Most bytes of a quoted text: it reminds, it does not tell.
const QUOTE_MAX: usize = 8 * 1024;
/// Most characters of a name.
const NAME_MAX: usize = 64;
/// Most characters of a file's name.
const FILE_NAME_MAX: usize = 255;
/// Most bytes of a declared type, such as `image/jpeg`.
const MIME_MAX: usize = 127;
/// Most bytes of any one part of what finds and opens a file on WhatsApp's servers.
const HANDLE_PART_MAX: usize = 2048;
/// Most contacts, or choices of a poll, that are told.
const LIST_MAX: usize = 20;
/// How deep wrappers are looked into; WhatsApp's clients make three at most.
const WRAPPERS_MAX: usize = 8;

/// Stands for what nanokimi has no words for.
const UNREADABLE: &str = "[A message of a kind that I cannot read]";

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Said {
        text: String,
        media: Option<Media>,
    },
    /// It only keeps the clients in step, or says nothing.
    Nothing,
}

/// The message inside of its wrappers: disappearing, to be seen once, sent by another device.
pub fn unwrapped(message: &wa::Message) -> &wa::Message {
    let mut inner = message;
    for _ in 0..WRAPPERS_MAX {
        let Some(next) = within(inner) else { break };
        inner = next;
    }
    inner
}

fn within(message: &wa::Message) -> Option<&wa::Message> {
    let wrapper = [
        &message.ephemeral_message,
        &message.view_once_message,
        &message.view_once_message_v2,
        &message.view_once_message_v2_extension,
        &message.document_with_caption_message,
        &message.edited_message,
        &message.group_mentioned_message,
        &message.lottie_sticker_message,
        &message.associated_child_message,
        &message.poll_creation_message_v4,
        &message.spoiler_message,
        &message.bot_forwarded_message,
        &message.question_message,
        &message.question_reply_message,
    ];
    let device_sent = message.device_sent_message.as_option();
    device_sent
        .and_then(|sent| sent.message.as_option())
        .or_else(|| wrapper.iter().find_map(|wrapper| wrapper.as_option()?.message.as_option()))
}

/// What goes along with a message: its quote, its mentions, how long it stays.
pub fn context(message: &wa::Message) -> Option<&wa::ContextInfo> {
    macro_rules! first {
        ($($field:ident),+ $(,)?) => {
            [$(message.$field.as_option().and_then(|part| part.context_info.as_option())),+].into_iter().flatten().next()
        };
    }
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
        buttons_message,
        buttons_response_message,
        list_message,
        list_response_message,
        template_message,
        template_button_reply_message,
        interactive_message,
        interactive_response_message,
        group_invite_message,
        event_message,
        product_message,
        order_message,
    )
}

/// What the unwrapped message says.
pub fn read(message: &wa::Message) -> Content {
    if let Some((text, media)) = file(message) {
        return Content::Said { text: bounded(text.unwrap_or_default(), TEXT_MAX), media: Some(media) };
    }
    match text(message) {
        Some(text) if text.is_empty() => Content::Nothing,
        Some(text) => Content::Said { text: bounded(&text, TEXT_MAX), media: None },
        None if keeps_in_step(message) => Content::Nothing,
        None => Content::Said { text: UNREADABLE.to_owned(), media: None },
    }
}

/// A quoted message in a few words.
pub fn quoted(message: &wa::Message) -> String {
    let said = match read(unwrapped(message)) {
        Content::Said { text, media: None } => text,
        Content::Said { text, media: Some(media) } if text.is_empty() => placeholder(&media),
        Content::Said { text, media: Some(media) } => format!("{} {text}", placeholder(&media)),
        Content::Nothing => String::new(),
    };
    bounded(&said, QUOTE_MAX)
}

fn placeholder(media: &Media) -> String {
    match (media.kind, &media.name) {
        (MediaKind::Image, _) => "[Image]".to_owned(),
        (MediaKind::Video, _) => "[Video]".to_owned(),
        (MediaKind::Voice, _) => "[Voice]".to_owned(),
        (MediaKind::Audio, _) => "[Audio]".to_owned(),
        (MediaKind::Document, Some(name)) => format!("[Document: {name}]"),
        (MediaKind::Document, None) => "[Document]".to_owned(),
        (MediaKind::Sticker, _) => "[Sticker]".to_owned(),
    }
}

/// The words of a message without a file; empty where it has its kind's shape and says nothing; None where its kind
/// is not known here.
fn text(message: &wa::Message) -> Option<String> {
    if let Some(text) = &message.conversation {
        return Some(bounded(text, TEXT_MAX));
    }
    if let Some(extended) = message.extended_text_message.as_option() {
        return Some(bounded(extended.text.as_deref().unwrap_or_default(), TEXT_MAX));
    }
    if let Some(location) = message.location_message.as_option() {
        return Some(place(location));
    }
    if message.live_location_message.is_set() {
        return Some(String::new());
    }
    if let Some(contact) = message.contact_message.as_option() {
        return Some(card(contact));
    }
    if let Some(contacts) = message.contacts_array_message.as_option() {
        let cards: Vec<String> = contacts.contacts.iter().take(LIST_MAX).map(card).collect();
        return Some(cards.join("\n"));
    }
    poll(message).or_else(|| pressed(message)).or_else(|| invitation(message))
}

/// `[Location: 40.712800, -74.006000 — NYC]`; nothing for a place that is not on earth, or that moves.
fn place(location: &kind::LocationMessage) -> String {
    let (Some(latitude), Some(longitude)) = (location.degrees_latitude, location.degrees_longitude) else {
        return String::new();
    };
    let on_earth = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    if !on_earth || location.is_live == Some(true) {
        return String::new();
    }
    let called = [&location.name, &location.address].into_iter().flatten().map(|name| self::name(name));
    let called: Vec<String> = called.filter(|name| !name.is_empty()).collect();
    if called.is_empty() {
        return format!("[Location: {latitude:.6}, {longitude:.6}]");
    }
    format!("[Location: {latitude:.6}, {longitude:.6} — {}]", called.join(", "))
}

/// `[Contact: Anna, +1 555 000 1111]`.
fn card(contact: &kind::ContactMessage) -> String {
    let card = contact.vcard.as_deref().unwrap_or_default();
    let numbers = bounded(card, TEXT_MAX);
    let numbers = numbers.lines().filter_map(|line| {
        let (what, number) = line.split_once(':')?;
        // A property may stand in a group: item1.TEL;waid=15550001111:+1 555 000 1111.
        let property = what.split(';').next()?.rsplit('.').next()?;
        property.eq_ignore_ascii_case("TEL").then(|| name(number))
    });
    let parts: Vec<String> = std::iter::once(name(contact.display_name.as_deref().unwrap_or_default()))
        .chain(numbers.take(LIST_MAX))
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() { String::new() } else { format!("[Contact: {}]", parts.join(", ")) }
}

/// `[Poll: Pizza or pasta? — Pizza · Pasta]`.
fn poll(message: &wa::Message) -> Option<String> {
    let polls = [
        &message.poll_creation_message,
        &message.poll_creation_message_v2,
        &message.poll_creation_message_v3,
        &message.poll_creation_message_v5,
        &message.poll_creation_message_v6,
    ];
    let poll = polls.into_iter().find_map(|poll| poll.as_option())?;
    let options = poll.options.iter().take(LIST_MAX).filter_map(|option| option.option_name.as_deref());
    let options: Vec<String> = options.map(line).collect();
    let question = line(poll.name.as_deref().unwrap_or_default());
    Some(format!("[Poll: {question} — {}]", options.join(" · ")))
}

/// What was chosen from buttons or a list, or what these say.
fn pressed(message: &wa::Message) -> Option<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some(chosen) = message.template_button_reply_message.as_option() {
        return Some(text(&chosen.selected_display_text));
    }
    if let Some(chosen) = message.list_response_message.as_option() {
        return Some(text(&chosen.title));
    }
    if let Some(buttons) = message.buttons_message.as_option() {
        return Some(text(&buttons.content_text));
    }
    if let Some(list) = message.list_message.as_option() {
        return Some([text(&list.title), text(&list.description)].join("\n").trim().to_owned());
    }
    None
}

/// `[Invitation to the group Chess]`, `[Event: Dinner]`.
fn invitation(message: &wa::Message) -> Option<String> {
    if let Some(invite) = message.group_invite_message.as_option() {
        return Some(format!(
            "[Invitation to the group {}]",
            name(invite.group_name.as_deref().unwrap_or_default())
        ));
    }
    let event = message.event_message.as_option()?;
    Some(format!("[Event: {}]", line(event.name.as_deref().unwrap_or_default())))
}

/// Whether a message that says nothing is one of those that are not meant for people. A kind that is newer than
/// the library arrives as an empty message, which is none of them.
fn keeps_in_step(message: &wa::Message) -> bool {
    message.sender_key_distribution_message.is_set()
        || message.fast_ratchet_key_sender_key_distribution_message.is_set()
        || message.protocol_message.is_set()
        || message.keep_in_chat_message.is_set()
        || message.pin_in_chat_message.is_set()
        || message.poll_update_message.is_set()
        || message.poll_result_snapshot_message.is_set()
        || message.poll_add_option_message.is_set()
        || message.enc_reaction_message.is_set()
        || message.enc_comment_message.is_set()
        || message.enc_event_response_message.is_set()
        || message.secret_encrypted_message.is_set()
        || message.sticker_sync_rmr_message.is_set()
        || message.call.is_set()
        || message.call_log_messsage.is_set()
        || message.album_message.is_set()
        || message.message_history_bundle.is_set()
        || message.message_history_notice.is_set()
        || message.group_root_key_share.is_set()
        || message.root_secret_distribute_message.is_set()
        || message.device_sent_message.is_set()
}

/// A file's caption and how to get it.
fn file(message: &wa::Message) -> Option<(Option<&str>, Media)> {
    if let Some(image) = message.image_message.as_option() {
        let media = media!(MediaKind::Image, image, None);
        return Some((image.caption.as_deref(), media));
    }
    let videos = [&message.video_message, &message.ptv_message];
    if let Some(video) = videos.into_iter().find_map(|video| video.as_option()) {
        let media = media!(MediaKind::Video, video, None);
        return Some((video.caption.as_deref(), media));
    }
    if let Some(audio) = message.audio_message.as_option() {
        let kind = if audio.ptt == Some(true) { MediaKind::Voice } else { MediaKind::Audio };
        return Some((None, media!(kind, audio, None)));
    }
    if let Some(document) = message.document_message.as_option() {
        let name = document.file_name.as_deref().or(document.title.as_deref());
        let media = media!(MediaKind::Document, document, name.and_then(file_name));
        return Some((document.caption.as_deref(), media));
    }
    let sticker = message.sticker_message.as_option()?;
    Some((None, media!(MediaKind::Sticker, sticker, None)))
}

/// The fields that all kinds of files have, under the same names in different types.
macro_rules! media {
    ($kind:expr, $file:expr, $name:expr) => {
        Media {
            kind: $kind,
            mime: mime($file.mimetype.as_deref()),
            name: $name,
            bytes: $file.file_length.unwrap_or_default(),
            handle: handle(&kind::DocumentMessage {
                direct_path: $file.direct_path.clone(),
                media_key: $file.media_key.clone(),
                file_sha256: $file.file_sha256.clone(),
                file_enc_sha256: $file.file_enc_sha256.clone(),
                file_length: $file.file_length,
                ..Default::default()
            }),
        }
    };
}
use media;

/// What finds and opens a file later: for every kind of file the same message, with nothing in it that is not needed.
/// Empty where a part is larger than any that WhatsApp makes: such a file cannot be had.
fn handle(found: &kind::DocumentMessage) -> Vec<u8> {
    let path = found.direct_path.as_ref().map_or(0, String::len);
    let keys = [&found.media_key, &found.file_sha256, &found.file_enc_sha256];
    let largest = keys.into_iter().flatten().map(Vec::len).chain([path]).max().unwrap_or_default();
    if largest > HANDLE_PART_MAX { Vec::new() } else { found.encode_to_vec() }
}

/// A declared type, where it looks like one.
fn mime(declared: Option<&str>) -> String {
    let declared = declared.unwrap_or_default().trim();
    let plain = declared.len() <= MIME_MAX && declared.contains('/');
    if plain && declared.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        declared.to_owned()
    } else {
        "application/octet-stream".to_owned()
    }
}

/// A name as one line of bounded length that cannot reorder what stands beside it.
pub fn name(name: &str) -> String {
    one_line(name, NAME_MAX)
}

fn file_name(name: &str) -> Option<String> {
    let name = one_line(name, FILE_NAME_MAX);
    (!name.is_empty()).then_some(name)
}

/// A question or a choice.
fn line(text: &str) -> String {
    one_line(text, FILE_NAME_MAX)
}

fn one_line(text: &str, limit: usize) -> String {
    let spaced = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let visible = spaced.filter(|c| !c.is_control() && !turns_direction(*c));
    let kept: String = visible.take(limit).collect();
    kept.trim().to_owned()
}

/// At most `limit` bytes, cut between characters.
pub fn bounded(text: &str, limit: usize) -> String {
    const CUT: char = '…';
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(CUT.len_utf8()));
    let mut cut = text[..end].to_owned();
    cut.push(CUT);
    cut
}
