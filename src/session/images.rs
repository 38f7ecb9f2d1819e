//! The images of a prompt: which of them the model is shown, and whether it can see at all.
//!
//! The files lie in the agent's own folder. Each is opened as what it is now, and its type is read from its
//! first bytes, never from what a sender or the agent calls it.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::agent::Image;
use crate::folders;
use crate::login::config_toml;
use crate::panics::run_blocking;
use crate::render::prompt::{FileLocation, PromptFile, PromptMessage};
use crate::types::MediaKind;

/// The most images of one prompt. The newest are taken.
const PICTURES_MAX: usize = 4;
/// Of a larger image the model is told only the path.
const PICTURE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most bytes of images that one run of an engine is shown. They stay in its history, which goes with
/// every request. As 16 MB of Base64, beside the 8 MB that the agent-runner leaves there at a start, they fit
/// through the egress proxy.
const SHOWN_MAX_BYTES: u64 = 12 * 1024 * 1024;

/// Whether the model can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vision {
    Sees {
        /// How many bytes of images may still be shown.
        left_bytes: u64,
    },
    Blind,
}

impl Vision {
    /// As the engine's settings say. `model` is the owner's choice of another model.
    pub fn from_engine_config(config: &Path, model: Option<&str>) -> Self {
        if config_toml::can_take_images(config, model) {
            Self::Sees { left_bytes: SHOWN_MAX_BYTES }
        } else {
            Self::Blind
        }
    }
}

/// The images of these messages that can be shown, in the messages' order. Counts them as shown.
pub async fn images_for(folder: PathBuf, messages: &[PromptMessage], vision: &mut Vision) -> Vec<Image> {
    let Vision::Sees { left_bytes } = vision else { return Vec::new() };
    // A quoted message is older than the one that quotes it.
    let files = messages.iter().flat_map(|message| {
        [message.quote.as_ref().and_then(|quote| quote.file.as_ref()), message.file.as_ref()]
    });
    let paths: Vec<String> = files.flatten().filter_map(image_path).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let budget_bytes = *left_bytes;
    // If reading breaks off, nothing is shown. The prompt names the paths in any case.
    let images =
        run_blocking(move || read_newest_images(&folder, &paths, budget_bytes)).await.unwrap_or_default();
    *left_bytes -= images.iter().map(|image| image.bytes.len() as u64).sum::<u64>();
    images
}

/// The newest images within the limits, the oldest of them first.
fn read_newest_images(folder: &Path, paths: &[String], mut budget_bytes: u64) -> Vec<Image> {
    let mut images = Vec::new();
    for path in paths.iter().rev().take(PICTURES_MAX) {
        let Some(image) = read_image(folder, path) else { continue };
        let bytes = image.bytes.len() as u64;
        if bytes > budget_bytes {
            break;
        }
        budget_bytes -= bytes;
        images.push(image);
    }
    images.reverse();
    images
}

fn image_path(file: &PromptFile) -> Option<String> {
    match (file.kind, &file.whereabouts) {
        (MediaKind::Image, FileLocation::Saved { path }) => Some(path.clone()),
        (
            MediaKind::Image
            | MediaKind::Video
            | MediaKind::Voice
            | MediaKind::Audio
            | MediaKind::Document
            | MediaKind::Sticker,
            FileLocation::Saved { .. } | FileLocation::Missing { .. },
        ) => None,
    }
}

fn read_image(folder: &Path, path: &str) -> Option<Image> {
    let (file, _) = folders::open_beneath(folder, path).ok()?;
    let mut bytes = Vec::new();
    file.take(PICTURE_MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let fits = bytes.len() as u64 <= PICTURE_MAX_BYTES;
    let mime = detect_image_type(&bytes).filter(|_| fits)?;
    Some(Image { mime, bytes })
}

/// The type that an image's first bytes show, if models take it.
fn detect_image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use jiff::Timestamp;

    use super::*;
    use crate::render::prompt::PromptAuthor;
    use crate::types::{Forwarded, MessageId};

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n....";

    fn seeing() -> Vision {
        Vision::Sees { left_bytes: SHOWN_MAX_BYTES }
    }

    fn message(kind: MediaKind, path: &str) -> PromptMessage {
        let whereabouts = FileLocation::Saved { path: path.to_owned() };
        PromptMessage {
            id: MessageId::new("3EB0"),
            author: PromptAuthor::Person { id: "p1".to_owned(), name: "Ana".to_owned() },
            text: String::new(),
            sent_at: Timestamp::UNIX_EPOCH,
            forwarded: Forwarded::No,
            quote: None,
            whole: None,
            file: Some(PromptFile { kind, name: None, whereabouts, words: None }),
        }
    }

    #[tokio::test]
    async fn only_pictures_that_are_there_and_small_enough_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.jpg"), PNG).unwrap();
        fs::write(at("b.png"), "#!/bin/sh").unwrap();
        fs::write(at("c.jpg"), [0xff, 0xd8, 0xff, 0xe0]).unwrap();
        fs::write(at("huge.jpg"), [PNG, &vec![0; 4 * 1024 * 1024]].concat()).unwrap();
        symlink("a.jpg", at("link.jpg")).unwrap();
        let messages = ["a.jpg", "b.png", "missing.png", "c.jpg"].map(|path| message(MediaKind::Image, path));
        let shown = images_for(folder.path().to_owned(), &messages, &mut seeing()).await;
        assert_eq!(shown.iter().map(|image| image.mime).collect::<Vec<_>>(), ["image/png", "image/jpeg"]);
        assert_eq!(shown[0].bytes, PNG);
        for (kind, path) in [
            (MediaKind::Image, "huge.jpg"),
            (MediaKind::Image, "link.jpg"),
            (MediaKind::Image, "../a.jpg"),
            (MediaKind::Document, "a.jpg"),
            (MediaKind::Sticker, "a.jpg"),
        ] {
            assert_eq!(
                images_for(folder.path().to_owned(), &[message(kind, path)], &mut seeing()).await,
                [],
                "{kind:?} {path}"
            );
        }
    }

    #[tokio::test]
    async fn of_many_pictures_the_newest_four_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let messages: Vec<PromptMessage> = (0..6_u8)
            .map(|nth| {
                let name = format!("{nth}.png");
                fs::write(folder.path().join(&name), [PNG, &[nth]].concat()).unwrap();
                message(MediaKind::Image, &name)
            })
            .collect();
        let shown = images_for(folder.path().to_owned(), &messages, &mut seeing()).await;
        let last = |image: &Image| image.bytes.last().copied();
        assert_eq!(shown.iter().filter_map(last).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn what_was_shown_before_counts() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            fs::write(folder.path().join(name), PNG).unwrap();
        }
        let messages = ["a.png", "b.png"].map(|path| message(MediaKind::Image, path));
        let picture = PNG.len() as u64;
        let mut vision = Vision::Sees { left_bytes: 2 * picture + 1 };
        let mut shown = Vec::new();
        for _ in 0..3 {
            shown.push(images_for(folder.path().to_owned(), &messages[1..], &mut vision).await.len());
        }
        assert_eq!((shown, vision), (vec![1, 1, 0], Vision::Sees { left_bytes: 1 }));
        let mut vision = Vision::Sees { left_bytes: picture };
        assert_eq!(images_for(folder.path().to_owned(), &messages, &mut vision).await.len(), 1, "the newest");
        assert_eq!(images_for(folder.path().to_owned(), &messages, &mut Vision::Blind).await.len(), 0);
    }

    #[test]
    fn what_models_take_is_known_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\xff\xd8\xff\xe0"[..], Some("image/jpeg")),
            (PNG, Some("image/png")),
            (b"GIF89a", Some("image/gif")),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"RIFF\0\0\0\0WAVE", None),
            (b"<svg>", None),
            (b"", None),
        ] {
            assert_eq!(detect_image_type(bytes), expected, "{bytes:?}");
        }
    }
}
