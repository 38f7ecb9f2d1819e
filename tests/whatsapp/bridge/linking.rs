//! An account is linked by QR code or pairing code, and unlinked again.

use nanokimi::bridge::whatsapp::{BridgeTask, Presence};
use nanokimi::types::{Event, LinkState, LinkedAccount, Pairing, PairingFailure};
use whatsapp_server::{Passkeys, Refusal};

use super::world::{Bridge, FAMILY, Folder, KAI, KAI_LID, KAIS_CHAT, sender, server};

#[tokio::test]
async fn whoever_scans_the_qr_code_has_the_account_linked_and_its_chats_told() {
    let server = server().await;
    let folder = Folder::new();
    assert!(!folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
    assert_eq!(folder.beside(), Vec::<String>::new(), "looking makes nothing");

    let mut bridge = Bridge::link(&server, &folder, None);
    let qr = bridge.wait_for_qr().await;
    server.scan_qr(KAI, &qr).unwrap();
    let told = bridge.next_batch().await;
    let account = LinkedAccount {
        id: sender(KAIS_CHAT),
        lid: Some(sender(&format!("{KAI_LID}@lid"))),
        name: "Kai's owner".to_owned(),
    };
    assert!(told.contains(&Event::Account(account)), "{told:?}");
    assert_eq!(*bridge.end.link.borrow(), LinkState::Pairing(Pairing::Agreed));
    let groups = bridge.next_batch().await;
    let [Event::Chat { id, name, members }] = &groups[..] else { panic!("{groups:?}") };
    assert_eq!((id.as_str(), name.as_str(), *members), (FAMILY, "Family", Some(2)));
    assert_eq!(bridge.ended().await, LinkState::Online);
    assert!(folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
    assert_eq!(server.devices(KAI), 1);
    server.wait_until_offline(KAI).await;

    // The chats come with the service, too.
    let mut again = Bridge::serve(&server, &folder);
    again.wait_until_online().await;
    again.stop().await;
    assert_eq!(server.devices(KAI), 1);
}

fn shown_code(link: &LinkState) -> Option<String> {
    if let LinkState::Pairing(Pairing::Code { code, .. }) = link {
        Some(code.expose_secret().to_owned())
    } else {
        None
    }
}

#[tokio::test]
async fn whoever_types_the_pairing_code_has_the_account_linked() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::link(&server, &folder, Some(KAI));
    let code = bridge
        .wait_for("a pairing code", |link| {
            assert!(!matches!(link, LinkState::Pairing(Pairing::Qr { .. })), "a QR code was shown instead");
            shown_code(link)
        })
        .await;
    server.enter_code(KAI, &code).unwrap();
    assert_eq!(bridge.ended().await, LinkState::Online);
    assert_eq!(server.devices(KAI), 1);
}

#[tokio::test]
async fn a_number_that_cannot_be_one_is_refused_without_asking_whatsapp() {
    let server = server().await;
    for number in ["123", "0155500022", "+15550002222", "1555000222212345"] {
        let folder = Folder::new();
        let bridge = Bridge::link(&server, &folder, Some(number));
        let refused = LinkState::Pairing(Pairing::Failed(PairingFailure::RefusedNumber));
        assert_eq!(bridge.ended().await, refused, "{number}");
        assert_eq!(folder.beside(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn without_a_link_nobody_is_contacted() {
    let server = server().await;
    let folder = Folder::new();
    assert_eq!(Bridge::serve(&server, &folder).ended().await, LinkState::Unlinked);
    let unlink = Bridge::start(folder.bridge(&server, Presence::Hidden), |_| BridgeTask::Unlink);
    assert_eq!(unlink.ended().await, LinkState::Unlinked);
    assert_eq!(folder.beside(), Vec::<String>::new());
}

#[tokio::test]
async fn an_account_with_a_passkey_is_linked_by_its_answer() {
    let server = server().await;
    server.demand_passkey(KAI, Passkeys::Accepted);
    let folder = Folder::new();
    let mut bridge = Bridge::link(&server, &folder, None);
    let qr = bridge.wait_for_qr().await;
    server.scan_qr(KAI, &qr).unwrap();
    let request = bridge
        .wait_for("a passkey's turn", |link| {
            if let LinkState::Pairing(Pairing::Passkey { request }) = link {
                Some(request.clone())
            } else {
                None
            }
        })
        .await;
    let challenge = server.passkey_challenge();
    assert!(request.contains(challenge), "{request}");
    bridge.passkey.send("nonsense".to_owned()).await.unwrap();
    let answer = format!(
        r#"{{"id":"a2V5","rawId":"a2V5","type":"public-key","response":{{"clientDataJSON":"{challenge}",
        "authenticatorData":"AA","signature":"AA","userHandle":null}}}}"#
    );
    bridge.passkey.send(answer).await.unwrap();
    let code = bridge
        .wait_for("a code to compare", |link| {
            if let LinkState::Pairing(Pairing::PasskeyCode { code }) = link {
                Some(code.clone())
            } else {
                None
            }
        })
        .await;
    server.confirm_passkey_code(KAI, &code).unwrap();
    bridge.passkey.send("yes".to_owned()).await.unwrap();
    assert_eq!(bridge.ended().await, LinkState::Online);
    assert_eq!(server.devices(KAI), 1);
}

#[tokio::test]
async fn a_linking_that_comes_to_nothing_says_why() {
    let failed = |failure| LinkState::Pairing(Pairing::Failed(failure));
    let server = server().await;
    server.offer_qr_codes(0);
    let folder = Folder::new();
    assert_eq!(Bridge::link(&server, &folder, None).ended().await, failed(PairingFailure::TimedOut));
    for (code, failure) in [
        (429, PairingFailure::Throttled),
        (403, PairingFailure::RefusedNumber),
        (452, PairingFailure::RefusedNumber),
    ] {
        server.offer_qr_codes(6);
        server.refuse_next_code(KAI, code);
        assert_eq!(Bridge::link(&server, &folder, Some(KAI)).ended().await, failed(failure), "{code}");
    }
    server.forge_next_linking(KAI);
    let mut bridge = Bridge::link(&server, &folder, None);
    let qr = bridge.wait_for_qr().await;
    server.scan_qr(KAI, &qr).unwrap();
    let ended = bridge.ended().await;
    assert!(matches!(&ended, LinkState::Pairing(Pairing::Failed(PairingFailure::Other(_)))), "{ended:?}");
    assert!(!folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
    assert_eq!(server.devices(KAI), 0);
}

#[tokio::test]
async fn a_code_that_whatsapp_retires_is_replaced() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::link(&server, &folder, Some(KAI));
    let first = bridge.wait_for("a pairing code", shown_code).await;
    server.retire_code(KAI).unwrap();
    let second =
        bridge.wait_for("another pairing code", |link| shown_code(link).filter(|code| *code != first)).await;
    server.enter_code(KAI, &second).unwrap();
    assert_eq!(bridge.ended().await, LinkState::Online);
}

#[tokio::test]
async fn a_code_that_lost_its_connection_is_replaced() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::link(&server, &folder, Some(KAI));
    let first = bridge.wait_for("a pairing code", shown_code).await;
    server.drop_code(KAI).unwrap();
    let asking = |link: &LinkState| (*link == LinkState::Pairing(Pairing::Asking)).then_some(());
    bridge.wait_for("a code's end", asking).await;
    let second =
        bridge.wait_for("another pairing code", |link| shown_code(link).filter(|code| *code != first)).await;
    server.enter_code(KAI, &second).unwrap();
    assert_eq!(bridge.ended().await, LinkState::Online);
}

#[tokio::test]
async fn an_account_that_is_banned_when_the_phone_has_agreed_is_not_waited_for() {
    let server = server().await;
    let folder = Folder::new();
    let mut bridge = Bridge::link(&server, &folder, None);
    let qr = bridge.wait_for_qr().await;
    server.refuse_next_login(KAI, Refusal::Banned { reason: 101, secs: 24 * 3600 });
    server.scan_qr(KAI, &qr).unwrap();
    let ended = bridge.ended().await;
    assert!(matches!(ended, LinkState::Banned { .. }), "{ended:?}");
    assert!(folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
}
