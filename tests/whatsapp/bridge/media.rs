//! Files through the bridge: fetched into a file, and sent from one.

use std::fs::File;
use std::io::{Read, Seek, Write};

use nanokimi::bridge::{Content, OutgoingFile};
use nanokimi::bridge::{FetchError, FetchOrder, HandedOver, Order};
use nanokimi::types::{Media, MediaKind};
use support::whatsapp_client::{Device, Files, address};
use tokio::sync::oneshot;
use tokio::time::timeout;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::media::{AudioOptions, ImageOptions, audio_message, image_message};
use whatsapp_rust::upload::UploadOptions;
use whatsapp_server::{PATIENCE, Server, Storage};

use super::world::{ANNA, ANNAS_CHAT, Bridge, Folder, KAI, server};

/// Larger than one block of the cipher, and not a multiple of it.
fn photo() -> Vec<u8> {
    (0..100_001_u32).map(|byte| (byte % 251) as u8).collect()
}

async fn world() -> (Server, Folder, Bridge, Device, Files) {
    let server = server().await;
    let (folder, annas) = (Folder::new(), Files::new());
    let bridge = Bridge::linked(&server, &folder).await;
    let anna = Device::linked(&server, &annas, ANNA).await;
    (server, folder, bridge, anna, annas)
}

async fn photo_from(anna: &Device, bridge: &mut Bridge) -> Media {
    let upload = anna.client.upload(photo(), MediaType::Image, UploadOptions::new()).await.unwrap();
    let options = ImageOptions { caption: Some("The beach".to_owned()), ..Default::default() };
    anna.client.send_message(address(KAI), image_message(upload, options)).await.unwrap();
    let message = bridge.next_message().await;
    assert_eq!(message.text, "The beach");
    message.media.unwrap()
}

async fn fetch(bridge: &Bridge, media: &Media, limit_bytes: u64) -> (Result<u64, FetchError>, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let (outcome, fetched) = oneshot::channel();
    let into = file.try_clone().unwrap();
    bridge.order(Order::Fetch(FetchOrder { media: media.clone(), into, limit_bytes, outcome })).await;
    let fetched = timeout(PATIENCE, fetched).await.unwrap().unwrap();
    file.rewind().unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    (fetched, content)
}

#[tokio::test]
async fn a_photo_is_fetched_whole_or_not_at_all() {
    let (server, _folder, mut bridge, anna, _annas) = world().await;
    let media = photo_from(&anna, &mut bridge).await;
    assert_eq!((media.kind, media.bytes, media.mime.as_str()), (MediaKind::Image, 100_001, "image/jpeg"));
    assert_eq!(fetch(&bridge, &media, 100_001).await, (Ok(100_001), photo()));
    server.expire_media_password();
    assert_eq!(fetch(&bridge, &media, 100_001).await, (Ok(100_001), photo()));

    let asked = server.media_downloads();
    assert_eq!(fetch(&bridge, &media, 100_000).await, (Err(FetchError::TooLarge), Vec::new()));
    assert_eq!(server.media_downloads(), asked, "what says that it is too large is not asked for");
    for (storage, error) in [
        (Storage::Forgetful, FetchError::Gone),
        (Storage::Unavailable, FetchError::Later),
        (Storage::Corrupt, FetchError::Damaged),
        (Storage::Overlong(16), FetchError::Damaged),
    ] {
        server.keep_media(storage);
        assert_eq!(fetch(&bridge, &media, 1_000_000).await, (Err(error), Vec::new()), "{storage:?}");
    }
    server.keep_media(Storage::Overlong(1_000_000));
    assert_eq!(fetch(&bridge, &media, 100_001).await.0, Err(FetchError::TooLarge), "it lied about its size");
    let nothing = Media { handle: b"nonsense".to_vec(), ..media };
    assert_eq!(fetch(&bridge, &nothing, 1_000_000).await, (Err(FetchError::Damaged), Vec::new()));
    bridge.stop().await;
}

#[tokio::test]
async fn a_stuck_photo_holds_no_message_up() {
    let (server, _folder, mut bridge, anna, _annas) = world().await;
    let media = photo_from(&anna, &mut bridge).await;
    server.keep_media(Storage::Stuck);
    let (outcome, fetched) = oneshot::channel();
    let into = tempfile::tempfile().unwrap();
    bridge.order(Order::Fetch(FetchOrder { media, into, limit_bytes: 200_000, outcome })).await;
    server.wait_for_media_downloads(1).await;
    anna.write(KAI, "Did you get it?").await;
    assert_eq!(bridge.next_message().await.text, "Did you get it?");
    assert_eq!(bridge.say(ANNAS_CHAT, "3EB0AAAA", "Soon").await, Ok(HandedOver::Sent));
    server.keep_media(Storage::Sound);
    assert_eq!(timeout(PATIENCE, fetched).await.unwrap().unwrap(), Ok(100_001));
    bridge.stop().await;
}

#[tokio::test]
async fn a_photo_that_nobody_waits_for_holds_no_other_up() {
    let (server, _folder, mut bridge, anna, _annas) = world().await;
    let media = photo_from(&anna, &mut bridge).await;
    server.keep_media(Storage::Stuck);
    let mut waiting = Vec::new();
    for begun in 1..=2 {
        let (outcome, fetched) = oneshot::channel();
        let into = tempfile::tempfile().unwrap();
        bridge
            .order(Order::Fetch(FetchOrder { media: media.clone(), into, limit_bytes: 200_000, outcome }))
            .await;
        server.wait_for_media_downloads(begun).await;
        waiting.push(fetched);
    }
    waiting.clear();
    let (outcome, _fetched) = oneshot::channel();
    let into = tempfile::tempfile().unwrap();
    bridge.order(Order::Fetch(FetchOrder { media, into, limit_bytes: 200_000, outcome })).await;
    server.wait_for_media_downloads(3).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_stuck_photo_does_not_hold_the_end_up() {
    let (server, _folder, mut bridge, anna, _annas) = world().await;
    let media = photo_from(&anna, &mut bridge).await;
    server.keep_media(Storage::Stuck);
    let (outcome, fetched) = oneshot::channel();
    let into = tempfile::tempfile().unwrap();
    bridge.order(Order::Fetch(FetchOrder { media, into, limit_bytes: 200_000, outcome })).await;
    server.wait_for_media_downloads(1).await;
    bridge.stop().await;
    assert!(fetched.await.is_err(), "nobody will say how it went");
}

fn outgoing(kind: MediaKind, mime: &str, name: &str, caption: &str) -> (OutgoingFile, Vec<u8>) {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(&photo()).unwrap();
    let outgoing = OutgoingFile {
        kind,
        mime: mime.to_owned(),
        name: name.to_owned(),
        caption: caption.to_owned(),
        file,
        bytes: 100_001,
    };
    (outgoing, photo())
}

#[tokio::test]
async fn files_of_all_kinds_go_out_as_what_they_are() {
    let (server, _folder, bridge, mut anna, _annas) = world().await;
    let (image, content) = outgoing(MediaKind::Image, "image/png", "plot.png", "The plot");
    assert_eq!(bridge.send(ANNAS_CHAT, "3EB0A001", Content::File(image), None).await, Ok(HandedOver::Sent));
    let heard = anna.next_that("an image", |heard| heard.message.image_message.is_set()).await;
    let image = heard.message.image_message.as_option().unwrap();
    assert_eq!((image.caption.as_deref(), image.mimetype.as_deref()), (Some("The plot"), Some("image/png")));
    assert_eq!(anna.client.download(image).await.unwrap(), content);

    let (mut document, mut content) = outgoing(MediaKind::Document, "application/pdf", "report.pdf", "");
    // The file has grown since it was checked.
    (document.bytes, content) = (50_000, content[..50_000].to_vec());
    assert_eq!(
        bridge.send(ANNAS_CHAT, "3EB0A002", Content::File(document), None).await,
        Ok(HandedOver::Sent)
    );
    let heard = anna.next_that("a document", |heard| heard.message.document_message.is_set()).await;
    let document = heard.message.document_message.as_option().unwrap();
    assert_eq!((document.file_name.as_deref(), document.caption.as_deref()), (Some("report.pdf"), None));
    assert_eq!(anna.client.download(document).await.unwrap(), content);

    for (id, kind, mime, ptt) in [
        ("3EB0A003", MediaKind::Voice, "audio/ogg", true),
        ("3EB0A004", MediaKind::Voice, "audio/mpeg", false),
        ("3EB0A005", MediaKind::Audio, "audio/ogg", false),
    ] {
        let (audio, content) = outgoing(kind, mime, "note", "");
        assert_eq!(bridge.send(ANNAS_CHAT, id, Content::File(audio), None).await, Ok(HandedOver::Sent));
        let heard = anna.next_that("a sound", |heard| heard.message.audio_message.is_set()).await;
        let audio = heard.message.audio_message.as_option().unwrap();
        assert_eq!(audio.ptt, Some(ptt), "{id}");
        assert_eq!(anna.client.download(audio).await.unwrap(), content);
    }
    assert_eq!(server.media_files(), 5);
    bridge.stop().await;
}

#[tokio::test]
async fn a_voice_note_comes_in_as_one() {
    let (_server, _folder, mut bridge, anna, _annas) = world().await;
    let upload = anna.client.upload(photo(), MediaType::Audio, UploadOptions::new()).await.unwrap();
    let options = AudioOptions { ptt: Some(true), ..Default::default() };
    anna.client.send_message(address(KAI), audio_message(upload, options)).await.unwrap();
    let message = bridge.next_message().await;
    let media = message.media.unwrap();
    assert_eq!((message.text.as_str(), media.kind), ("", MediaKind::Voice));
    assert_eq!(fetch(&bridge, &media, 1_000_000).await, (Ok(100_001), photo()));
    bridge.stop().await;
}
