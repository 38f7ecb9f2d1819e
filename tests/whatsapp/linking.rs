//! A device is linked by QR code or by pairing code, and comes back with the same files.

use crate::client::{Device, Files, pairing_code, qr_code};
use crate::server::Server;

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
    let files = Files::new();
    Device::linked(&server, &files, KAI).await.stop().await;
    server.wait_until_offline(KAI).await;

    let device = Device::start(&server, &files).await;
    let shown = device.wait_for("a code or a connection", |event| {
        let connected = matches!(event, whatsapp_rust::prelude::Event::Connected(_));
        qr_code(event).map(Some).or(connected.then_some(None))
    });
    assert_eq!(shown.await, None);
    assert_is_kai(&device);
    assert_eq!(server.devices(KAI), 1);

    server.drop_connection(KAI);
    device.wait_until_connected().await;
    server.wait_until_online(KAI).await;
}
