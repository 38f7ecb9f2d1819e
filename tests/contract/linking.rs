//! A device is linked by QR code or by pairing code, and comes back with the same files.

use support::whatsapp_client::{Device, Files, pairing_code, qr_code};
use tempfile::TempDir;
use whatsapp_server::{Handshake, Server};

const KAI: &str = "15550002222";
const KAI_LID: &str = "100000000000002";

async fn server_with_kai() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(KAI, KAI_LID, "Kai");
    server
}

fn assert_is_kai(device: &Device) {
    let (phone, lid) = (device.client.pn().unwrap(), device.client.lid().unwrap());
    assert_eq!((phone.user.as_str(), lid.user.as_str()), (KAI, KAI_LID));
    assert_eq!((phone.device, lid.device), (1, 1));
}

#[tokio::test]
async fn a_phone_scans_the_qr_code_and_the_device_is_linked() {
    let server = server_with_kai().await;
    let files = Files::new();
    let device = Device::start(&server, &files).await;
    let qr = device.wait_for("a QR code", qr_code).await;
    assert_eq!(server.devices(KAI), 0);
    server.scan_qr(KAI, &qr).unwrap();
    device.wait_until_connected().await;
    assert_is_kai(&device);
    assert_eq!(server.devices(KAI), 1);
    server.wait_until_settled(KAI).await;
}

#[tokio::test]
async fn a_person_types_the_pairing_code_and_the_device_is_linked() {
    let server = server_with_kai().await;
    let files = Files::new();
    let device = Device::start_with_code(&server, &files, KAI).await;
    let code = device.wait_for("a pairing code", pairing_code).await;
    assert_eq!(code.chars().filter(char::is_ascii_alphanumeric).count(), 8, "{code}");
    server.enter_code(KAI, &code).unwrap();
    device.wait_until_connected().await;
    assert_is_kai(&device);
    assert_eq!(server.devices(KAI), 1);
}

#[tokio::test]
async fn a_linked_device_logs_in_again_with_its_files_and_shows_no_code() {
    let server = server_with_kai().await;
    let (files, home) = (Files::new(), TempDir::new().unwrap());
    Device::linked(&server, &files, KAI).await.stop().await;
    server.wait_until_offline(KAI).await;
    let files = files.moved_to(&home.path().join("store/auth"));

    assert_eq!(server.handshake_of(KAI), Some(Handshake::First));

    let device = Device::start(&server, &files).await;
    let shown = device.wait_for("a code or a connection", |event| {
        let connected = matches!(event, whatsapp_rust::prelude::Event::Connected(_));
        qr_code(event).map(Some).or(connected.then_some(None))
    });
    assert_eq!(shown.await, None);
    assert_eq!(server.handshake_of(KAI), Some(Handshake::Again), "no certificate is looked at");
    assert_is_kai(&device);
    assert_eq!(server.devices(KAI), 1);

    server.drop_connection(KAI);
    device.wait_until_connected().await;
    server.wait_until_online(KAI).await;
}

#[tokio::test]
async fn a_client_looks_its_version_up_and_comes_once_it_is_told() {
    let server = server_with_kai().await;
    let files = Files::new();
    server.fail_version_lookup();
    let device = Device::start_unversioned(&server, &files).await;
    server.wait_for_version_lookups(1).await;
    server.offer_version(1_234_567);
    let qr = device.wait_for("a QR code", qr_code).await;
    server.scan_qr(KAI, &qr).unwrap();
    device.wait_until_connected().await;
    assert_eq!(server.version_of(KAI), Some((2, 3000, 1_234_567)));
}

#[tokio::test]
async fn a_device_that_logs_out_is_not_linked_any_more() {
    let server = server_with_kai().await;
    let files = Files::new();
    let device = Device::linked(&server, &files, KAI).await;
    device.client.logout().await;
    device.end().await;
    assert_eq!(server.devices(KAI), 0);
}
