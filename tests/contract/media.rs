//! Files of messages, up and down over the server's HTTP: encrypted by one client, decrypted by the other.

use support::whatsapp_client::{Device, Files, address};
use whatsapp_rust::download::{Downloadable, MediaType};
use whatsapp_rust::media::{ImageOptions, image_message};
use whatsapp_rust::prelude::InboundMessage;
use whatsapp_rust::upload::UploadOptions;
use whatsapp_server::{Server, Storage};

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";

/// Larger than one block of the cipher, and no multiple of it.
fn photo() -> Vec<u8> {
    (0..100_001_u32).map(|byte| (byte % 251) as u8).collect()
}

/// Anna sends Kai a photo. Gives Kai, and what he got.
async fn photo_from_anna(server: &Server, files: (&Files, &Files)) -> (Device, InboundMessage) {
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai");
    let anna = Device::linked(server, files.0, ANNA).await;
    let mut kai = Device::linked(server, files.1, KAI).await;
    let upload = anna.client.upload(photo(), MediaType::Image, UploadOptions::new()).await.unwrap();
    let options = ImageOptions { caption: Some("The beach".to_owned()), ..Default::default() };
    anna.client.send_message(address(KAI), image_message(upload, options)).await.unwrap();
    let heard = kai.next_that("a photo", |message| message.message.image_message.is_set()).await;
    (kai, heard)
}

fn image(message: &InboundMessage) -> &dyn Downloadable {
    message.message.image_message.as_option().unwrap()
}

#[tokio::test]
async fn a_photo_goes_up_and_comes_down_whole() {
    let server = Server::start().await.unwrap();
    let files = (Files::new(), Files::new());
    let (kai, message) = photo_from_anna(&server, (&files.0, &files.1)).await;
    let shown = message.message.image_message.as_option().unwrap();
    assert_eq!((shown.caption.as_deref(), shown.file_length), (Some("The beach"), Some(100_001)));
    assert_eq!(kai.client.download(image(&message)).await.unwrap(), photo());
    assert_eq!((server.media_files(), server.media_downloads()), (1, 1));
}

#[tokio::test]
async fn a_photo_that_is_gone_damaged_or_too_long_is_an_error_and_comes_when_all_is_well() {
    let server = Server::start().await.unwrap();
    let files = (Files::new(), Files::new());
    let (kai, message) = photo_from_anna(&server, (&files.0, &files.1)).await;
    for storage in [Storage::Forgetful, Storage::Unavailable, Storage::Corrupt, Storage::Overlong(16)] {
        server.keep_media(storage);
        assert!(kai.client.download(image(&message)).await.is_err(), "{storage:?}");
    }
    server.keep_media(Storage::Sound);
    server.expire_media_password();
    assert_eq!(kai.client.download(image(&message)).await.unwrap(), photo(), "with a new password");
}

#[tokio::test]
async fn a_photo_that_is_stuck_half_way_comes_whole_in_the_end() {
    let server = Server::start().await.unwrap();
    let files = (Files::new(), Files::new());
    let (kai, message) = photo_from_anna(&server, (&files.0, &files.1)).await;
    server.keep_media(Storage::Stuck);
    let download = tokio::spawn(async move { kai.client.download(image(&message)).await.unwrap() });
    server.wait_for_media_downloads(1).await;
    assert!(!download.is_finished());
    server.keep_media(Storage::Sound);
    assert_eq!(download.await.unwrap(), photo());
}
