//! What can come between a client and its linking: codes that run out, refusals, forged proofs, passkeys.

use support::whatsapp_client::{Device, Files, pairing_code, qr_code};
use whatsapp_rust::passkey::Assertion;
use whatsapp_rust::prelude::Event;
use whatsapp_server::{Passkeys, Server};

const KAI: &str = "15550002222";

async fn server_with_kai() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(KAI, "100000000000002", "Kai");
    server
}

/// As a browser gives it to WhatsApp's page.
fn answer_of_a_passkey(challenge: &str) -> Assertion {
    let json = format!(
        r#"{{"id":"a2V5","rawId":"a2V5","type":"public-key","response":{{"clientDataJSON":"{challenge}",
        "authenticatorData":"AA","signature":"AA","userHandle":null}}}}"#
    );
    Assertion { assertion_json: json.into_bytes(), credential_id: b"key".to_vec() }
}

fn passkey_request(event: &Event) -> Option<String> {
    if let Event::PairPasskeyRequest(request) = event {
        Some(request.request_options_json.clone())
    } else {
        None
    }
}

fn passkey_code(event: &Event) -> Option<String> {
    if let Event::PairPasskeyConfirmation(shown) = event { Some(shown.code.clone()) } else { None }
}

#[tokio::test]
async fn without_any_qr_code_left_the_client_ends() {
    let server = server_with_kai().await;
    server.offer_qr_codes(0);
    let files = Files::new();
    let device = Device::start(&server, &files).await;
    let ended = device.end().await;
    assert!(ended.iter().any(|event| matches!(**event, Event::PairingQrCodesExhausted(_))));
}

#[tokio::test]
async fn a_refused_pairing_code_names_its_reason() {
    for code in [429, 452] {
        let server = server_with_kai().await;
        server.refuse_next_code(KAI, code);
        let files = Files::new();
        let device = Device::start_with_code(&server, &files, KAI).await;
        let told = |event: &Event| {
            let Event::PairingCodeError(error) = event else { return None };
            Some(error.rejection.map(|rejection| rejection.code()))
        };
        assert_eq!(device.wait_for("a refusal", told).await, Some(i32::from(code)));
    }
}

#[tokio::test]
async fn a_code_that_the_server_retires_is_asked_for_again() {
    let server = server_with_kai().await;
    let files = Files::new();
    let device = Device::start_with_code(&server, &files, KAI).await;
    device.wait_for("a pairing code", pairing_code).await;
    server.retire_code(KAI).unwrap();
    let refresh = |event: &Event| matches!(event, Event::PairingCodeRefresh(_)).then_some(());
    device.wait_for("a refresh", refresh).await;
}

#[tokio::test]
async fn a_forged_proof_links_nothing() {
    let server = server_with_kai().await;
    server.forge_next_linking(KAI);
    let files = Files::new();
    let device = Device::start(&server, &files).await;
    let qr = device.wait_for("a QR code", qr_code).await;
    server.scan_qr(KAI, &qr).unwrap();
    let failed = |event: &Event| matches!(event, Event::PairError(_)).then_some(());
    device.wait_for("an error", failed).await;
    assert_eq!(server.devices(KAI), 0);
}

#[tokio::test]
async fn an_account_with_a_passkey_is_linked_by_its_answer_and_a_compared_code() {
    let server = server_with_kai().await;
    server.demand_passkey(KAI, Passkeys::Accepted);
    let files = Files::new();
    let device = Device::start(&server, &files).await;
    let qr = device.wait_for("a QR code", qr_code).await;
    server.scan_qr(KAI, &qr).unwrap();
    let options = device.wait_for("a question", passkey_request).await;
    assert!(options.contains(server.passkey_challenge()), "{options}");
    device.client.send_passkey_response(answer_of_a_passkey(server.passkey_challenge())).await.unwrap();
    let code = device.wait_for("a code", passkey_code).await;
    assert_eq!(server.devices(KAI), 0);
    assert!(server.confirm_passkey_code(KAI, "ABCD-EFGH").is_err(), "codes are compared");
    server.confirm_passkey_code(KAI, &code).unwrap();
    device.client.send_passkey_confirmation().await.unwrap();
    device.wait_until_connected().await;
    assert_eq!(server.devices(KAI), 1);
}

#[tokio::test]
async fn a_wrong_passkey_or_a_declining_phone_links_nothing() {
    let server = server_with_kai().await;
    server.demand_passkey(KAI, Passkeys::Refused);
    let files = Files::new();
    let device = Device::start(&server, &files).await;
    let qr = device.wait_for("a QR code", qr_code).await;
    server.scan_qr(KAI, &qr).unwrap();
    device.wait_for("a question", passkey_request).await;
    let answer = answer_of_a_passkey(server.passkey_challenge());
    assert!(device.client.send_passkey_response(answer.clone()).await.is_err());

    server.wait_for_passkey_answer(KAI).await;
    server.decline_passkey(KAI).unwrap();
    let failed = |event: &Event| matches!(event, Event::PairPasskeyError(_)).then_some(());
    device.wait_for("an error", failed).await;
    assert_eq!(server.devices(KAI), 0);
}
