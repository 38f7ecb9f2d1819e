//! Which file name endings and MIME types belong together, and how WhatsApp shows such files. Pure.
//!
//! Neither is trusted: the ending that we give a file comes from this table, never from what a sender wrote.

use crate::types::MediaKind;

/// Ending, MIME type, and how WhatsApp shows such a file. If a type has several endings, we give the first.
const TYPES: [(&str, &str, MediaKind); 32] = [
    ("jpg", "image/jpeg", MediaKind::Image),
    ("jpeg", "image/jpeg", MediaKind::Image),
    ("png", "image/png", MediaKind::Image),
    ("webp", "image/webp", MediaKind::Image),
    // As an image it would be shown without its movement.
    ("gif", "image/gif", MediaKind::Document),
    ("svg", "image/svg+xml", MediaKind::Document),
    ("heic", "image/heic", MediaKind::Document),
    ("ogg", "audio/ogg", MediaKind::Voice),
    ("opus", "audio/ogg", MediaKind::Voice),
    ("mp3", "audio/mpeg", MediaKind::Audio),
    ("m4a", "audio/mp4", MediaKind::Audio),
    ("aac", "audio/aac", MediaKind::Audio),
    ("amr", "audio/amr", MediaKind::Audio),
    ("wav", "audio/wav", MediaKind::Document),
    ("mp4", "video/mp4", MediaKind::Video),
    ("3gp", "video/3gpp", MediaKind::Video),
    ("mov", "video/quicktime", MediaKind::Document),
    ("webm", "video/webm", MediaKind::Document),
    ("pdf", "application/pdf", MediaKind::Document),
    ("txt", "text/plain", MediaKind::Document),
    ("md", "text/markdown", MediaKind::Document),
    ("csv", "text/csv", MediaKind::Document),
    ("html", "text/html", MediaKind::Document),
    ("ics", "text/calendar", MediaKind::Document),
    ("vcf", "text/vcard", MediaKind::Document),
    ("json", "application/json", MediaKind::Document),
    ("zip", "application/zip", MediaKind::Document),
    ("doc", "application/msword", MediaKind::Document),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", MediaKind::Document),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", MediaKind::Document),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        MediaKind::Document,
    ),
    ("epub", "application/epub+zip", MediaKind::Document),
];

/// What WhatsApp's own clients declare for a voice note.
const VOICE_MIME: &str = "audio/ogg; codecs=opus";
/// A type that promises nothing.
const ANY_MIME: &str = "application/octet-stream";

/// The ending of a MIME type, if we know it.
pub fn extension_for_mime(mime: &str) -> Option<&'static str> {
    let bare = mime.split(';').next().unwrap_or_default().trim();
    TYPES.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(bare)).map(|(extension, ..)| *extension)
}

/// The ending of a file that came: by its MIME type, else by its kind.
pub fn incoming_extension(kind: MediaKind, mime: &str) -> &'static str {
    extension_for_mime(mime).unwrap_or(match kind {
        MediaKind::Image => "jpg",
        MediaKind::Video => "mp4",
        MediaKind::Voice | MediaKind::Audio => "ogg",
        MediaKind::Sticker => "webp",
        MediaKind::Document => "bin",
    })
}

/// How a file of this name is sent: its kind and its MIME type.
pub fn media_type_for_name(name: &str) -> (MediaKind, &'static str) {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match TYPES.iter().find(|(extension, ..)| extension.eq_ignore_ascii_case(ending)) {
        Some((_, _, MediaKind::Voice)) => (MediaKind::Voice, VOICE_MIME),
        Some((_, mime, kind)) => (*kind, mime),
        None => (MediaKind::Document, ANY_MIME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_come_from_the_type() {
        for (mime, expected) in [
            ("image/jpeg", Some("jpg")),
            ("application/pdf", Some("pdf")),
            ("audio/ogg", Some("ogg")),
            ("audio/ogg; codecs=opus", Some("ogg")),
            ("image/JPEG; foo=bar", Some("jpg")),
            ("  Application/PDF  ", Some("pdf")),
            ("text/plain; charset=utf-8", Some("txt")),
            ("application/octet-stream", None),
            ("made/up", None),
            ("image/../../png", None),
            ("png", None),
            ("", None),
        ] {
            assert_eq!(extension_for_mime(mime), expected, "{mime:?}");
        }
    }

    #[test]
    fn what_has_no_known_type_is_named_by_its_kind() {
        for (kind, mime, expected) in [
            (MediaKind::Image, "", "jpg"),
            (MediaKind::Sticker, "", "webp"),
            (MediaKind::Voice, "", "ogg"),
            (MediaKind::Video, "", "mp4"),
            (MediaKind::Image, "image/png", "png"),
            (MediaKind::Document, "image/../../png", "bin"),
            (MediaKind::Document, "application/octet-stream", "bin"),
        ] {
            assert_eq!(incoming_extension(kind, mime), expected, "{kind:?} {mime:?}");
        }
    }

    #[test]
    fn files_are_sent_as_what_their_name_says() {
        for (name, kind, mime) in [
            ("chart.png", MediaKind::Image, "image/png"),
            ("photo.JPEG", MediaKind::Image, "image/jpeg"),
            ("answer.ogg", MediaKind::Voice, "audio/ogg; codecs=opus"),
            ("song.mp3", MediaKind::Audio, "audio/mpeg"),
            ("trip.mp4", MediaKind::Video, "video/mp4"),
            ("plan.pdf", MediaKind::Document, "application/pdf"),
            ("archive.tar.gz", MediaKind::Document, "application/octet-stream"),
            ("README", MediaKind::Document, "application/octet-stream"),
            (".png", MediaKind::Image, "image/png"),
        ] {
            assert_eq!(media_type_for_name(name), (kind, mime), "{name}");
        }
    }
}
