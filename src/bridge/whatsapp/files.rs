//! What is attached to a message: what it is called and declared to be, and what finds and opens it later.
//! Pure.

use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::prelude::wa::message as kind;

use super::wording::clean_line;
use crate::types::{Media, MediaKind};

/// Most characters of a file's name.
const FILE_NAME_MAX: usize = 255;
/// Most bytes of a declared type, such as `image/jpeg`.
const MIME_MAX: usize = 127;
/// Most bytes of any one part of what finds and opens a file on WhatsApp's servers.
const HANDLE_PART_MAX: usize = 2048;

/// The fields that all kinds of files have, under the same names in different types.
macro_rules! media {
    ($kind:expr, $file:expr, $name:expr) => {
        Media {
            kind: $kind,
            mime: clean_mime_type($file.mimetype.as_deref()),
            name: $name,
            bytes: $file.file_length.unwrap_or_default(),
            handle: encode_media_handle(&kind::DocumentMessage {
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

pub fn image_media(image: &kind::ImageMessage) -> Media {
    media!(MediaKind::Image, image, None)
}

pub fn video_media(video: &kind::VideoMessage) -> Media {
    media!(MediaKind::Video, video, None)
}

pub fn audio_media(audio: &kind::AudioMessage) -> Media {
    media!(if audio.ptt == Some(true) { MediaKind::Voice } else { MediaKind::Audio }, audio, None)
}

pub fn document_media(document: &kind::DocumentMessage) -> Media {
    let name = document.file_name.as_deref().or(document.title.as_deref());
    media!(MediaKind::Document, document, name.and_then(clean_file_name))
}

pub fn sticker_media(sticker: &kind::StickerMessage) -> Media {
    media!(MediaKind::Sticker, sticker, None)
}

/// What finds and opens a file later: for every kind of file the same message, with nothing in it that is not
/// needed. Empty if a part is larger than any that WhatsApp makes: such a file cannot be had.
fn encode_media_handle(found: &kind::DocumentMessage) -> Vec<u8> {
    let path = found.direct_path.as_ref().map_or(0, String::len);
    let keys = [&found.media_key, &found.file_sha256, &found.file_enc_sha256];
    let largest = keys.into_iter().flatten().map(Vec::len).chain([path]).max().unwrap_or_default();
    if largest > HANDLE_PART_MAX { Vec::new() } else { found.encode_to_vec() }
}

/// A declared type, if it looks like one.
fn clean_mime_type(declared: Option<&str>) -> String {
    let declared = declared.unwrap_or_default().trim();
    let plain = declared.len() <= MIME_MAX && declared.contains('/');
    if plain && declared.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        declared.to_owned()
    } else {
        "application/octet-stream".to_owned()
    }
}

fn clean_file_name(name: &str) -> Option<String> {
    let name = clean_line(name, FILE_NAME_MAX);
    (!name.is_empty()).then_some(name)
}
