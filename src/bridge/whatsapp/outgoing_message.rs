//! From what is to be sent to WhatsApp's messages. Pure.

use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::media::{
    AudioOptions, DocumentOptions, ImageOptions, VideoOptions, audio_message, document_message,
    image_message, video_message,
};
use whatsapp_rust::prelude::{Jid, MessageBuilderExt as _, MessageExt as _, wa};
use whatsapp_rust::upload::UploadResponse;

use crate::bridge::channels::{OutgoingFile, QuoteTo};
use crate::types::{MediaKind, MessageId, SenderId};

/// What WhatsApp's clients play as a voice note.
const VOICE_TYPE: &str = "audio/ogg";

/// A text that may answer a message and mention people.
pub fn build_outgoing_text(text: &str, mentions: &[SenderId], quote: Option<&QuoteTo>) -> wa::Message {
    match build_context_info(mentions, quote) {
        Some(context) => wa::Message::text_with_context(text, context),
        None => wa::Message::text(text),
    }
}

/// An emoji on a message of `author`; `target_author` says whether that is us.
pub fn build_outgoing_reaction(
    chat: &Jid,
    target: &MessageId,
    author: &Jid,
    target_author: TargetAuthor,
    emoji: &str,
    now_millis: i64,
) -> wa::Message {
    let in_group = chat.server == whatsapp_rust::Server::Group;
    let key = wa::MessageKey {
        remote_jid: Some(chat.to_non_ad_string()),
        from_me: Some(target_author == TargetAuthor::Us),
        id: Some(target.as_str().to_owned()),
        participant: in_group.then(|| author.to_non_ad_string()),
    };
    whatsapp_rust::proto_helpers::build_reaction_message(key, emoji, now_millis)
}

/// The author of the message that a reaction is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetAuthor {
    Us,
    Somebody,
}

/// A file that was uploaded.
pub fn build_outgoing_file(
    file: &OutgoingFile,
    uploaded: UploadResponse,
    quote: Option<&QuoteTo>,
) -> wa::Message {
    let caption = (!file.caption.is_empty()).then(|| file.caption.clone());
    let mimetype = Some(file.mime.clone());
    let mut message = match file.kind {
        MediaKind::Image => image_message(uploaded, ImageOptions { caption, mimetype, ..Default::default() }),
        MediaKind::Video => video_message(uploaded, VideoOptions { caption, mimetype, ..Default::default() }),
        MediaKind::Voice | MediaKind::Audio => {
            // Anything else that claims to be a voice note plays nowhere.
            let voice = file.kind == MediaKind::Voice && file.mime.starts_with(VOICE_TYPE);
            let mimetype = if voice { Some("audio/ogg; codecs=opus".to_owned()) } else { mimetype };
            audio_message(uploaded, AudioOptions { mimetype, ptt: Some(voice), ..Default::default() })
        }
        MediaKind::Document | MediaKind::Sticker => {
            let file_name = Some(file.name.clone());
            document_message(uploaded, DocumentOptions { caption, mimetype, file_name, ..Default::default() })
        }
    };
    if let Some(context) = build_context_info(&[], quote) {
        message.set_context_info(context);
    }
    message
}

/// How WhatsApp keeps files of this kind apart; it is part of their encryption.
pub fn media_type(kind: MediaKind) -> MediaType {
    match kind {
        MediaKind::Image => MediaType::Image,
        MediaKind::Video => MediaType::Video,
        MediaKind::Voice | MediaKind::Audio => MediaType::Audio,
        MediaKind::Document => MediaType::Document,
        MediaKind::Sticker => MediaType::Sticker,
    }
}

/// As [`media_type`], for what we send: a sticker of ours is sent as a document.
pub fn outgoing_media_type(kind: MediaKind) -> MediaType {
    match kind {
        MediaKind::Sticker => MediaType::Document,
        MediaKind::Image | MediaKind::Video | MediaKind::Voice | MediaKind::Audio | MediaKind::Document => {
            media_type(kind)
        }
    }
}

fn build_context_info(mentions: &[SenderId], quote: Option<&QuoteTo>) -> Option<wa::ContextInfo> {
    if mentions.is_empty() && quote.is_none() {
        return None;
    }
    let mut context = wa::ContextInfo {
        mentioned_jid: mentions.iter().map(|mention| mention.as_str().to_owned()).collect(),
        ..Default::default()
    };
    if let Some(quote) = quote {
        context.stanza_id = Some(quote.id.as_str().to_owned());
        context.participant = Some(quote.sender.as_str().to_owned());
        context.quoted_message = MessageField::some(wa::Message::text(&quote.text));
    }
    Some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote() -> QuoteTo {
        let sender = SenderId::new("100000000000001@lid");
        QuoteTo { id: MessageId::new("3EB1"), sender, text: "Lunch?".to_owned() }
    }

    #[test]
    fn a_text_carries_its_quote_and_its_mentions() {
        assert_eq!(build_outgoing_text("Hello", &[], None).conversation.as_deref(), Some("Hello"));
        let anna = SenderId::new("100000000000001@lid");
        let message = build_outgoing_text("@100000000000001 yes", &[anna], Some(&quote()));
        let context = message.extended_text_message.as_option().unwrap().context_info.as_option().unwrap();
        assert_eq!(context.mentioned_jid, ["100000000000001@lid"]);
        assert_eq!(context.stanza_id.as_deref(), Some("3EB1"));
        assert_eq!(context.participant.as_deref(), Some("100000000000001@lid"));
        assert_eq!(context.quoted_message.as_option().unwrap().text_content(), Some("Lunch?"));
    }

    #[test]
    fn a_reaction_names_the_author_in_groups_only() {
        let (group, anna): (Jid, Jid) =
            ("120363000000000001@g.us".parse().unwrap(), "100000000000001:3@lid".parse().unwrap());
        for (chat, author, participant) in
            [(&group, TargetAuthor::Somebody, Some("100000000000001@lid")), (&anna, TargetAuthor::Us, None)]
        {
            let message = build_outgoing_reaction(chat, &MessageId::new("3EB1"), &anna, author, "👍", 5);
            let key = message.reaction_message.as_option().unwrap().key.as_option().unwrap();
            assert_eq!(
                (key.participant.as_deref(), key.from_me),
                (participant, Some(author == TargetAuthor::Us))
            );
            assert_eq!(key.remote_jid.as_deref(), Some(chat.to_non_ad_string().as_str()));
        }
    }
}
