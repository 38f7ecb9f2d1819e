//! What the server tells a client to end it, and what only sends it back: the client's documented ends.

use std::time::Duration;

use support::whatsapp_client::{Device, Files};
use whatsapp_rust::prelude::Event;
use whatsapp_server::{Interruption, Refusal, Server};

const KAI: &str = "15550002222";

async fn linked(files: &Files) -> (Server, Device) {
    let server = Server::start().await.unwrap();
    server.add_account(KAI, "100000000000002", "Kai");
    let device = Device::linked(&server, files, KAI).await;
    server.wait_until_settled(KAI).await;
    (server, device)
}

/// The events of a client that ended by itself, as the ends that they name.
async fn ends(device: Device) -> Vec<String> {
    let name = |event: &Event| -> Option<String> {
        if let Event::StreamReplaced(_) = event {
            Some("replaced".to_owned())
        } else if let Event::LoggedOut(end) = event {
            Some(format!("logged out: {:?}, at login: {}", end.reason, end.on_connect))
        } else if let Event::TemporaryBan(ban) = event {
            Some(format!("banned: {:?} for {:?}", ban.code, ban.expire.to_std().unwrap_or(Duration::ZERO)))
        } else if let Event::ClientOutdated(_) = event {
            Some("outdated".to_owned())
        } else if let Event::ConnectFailure(failure) = event {
            Some(format!("failed: {:?}", failure.reason))
        } else {
            None
        }
    };
    device.end().await.iter().filter_map(|event| name(event)).collect()
}

#[tokio::test]
async fn an_interruption_ends_a_client_that_is_not_wanted_any_more() {
    for (interruption, end) in [
        (Interruption::Replaced, "replaced"),
        (Interruption::Unlinked, "logged out: LoggedOut, at login: false"),
    ] {
        let files = Files::new();
        let (server, device) = linked(&files).await;
        server.interrupt(KAI, interruption);
        assert_eq!(ends(device).await, [end], "{interruption:?}");
    }
}

#[tokio::test]
async fn a_refused_login_ends_a_client() {
    for (refusal, end) in [
        (Refusal::Unlinked, "logged out: LoggedOut, at login: true"),
        (Refusal::Locked, "logged out: AccountLocked, at login: true"),
        (Refusal::Banned { reason: 101, secs: 3600 }, "banned: SentToTooManyPeople for 3600s"),
        (Refusal::Outdated, "outdated"),
        (Refusal::Other(400), "failed: Generic"),
        (Refusal::Other(409), "failed: BadUserAgent"),
        (Refusal::Other(413), "failed: CatExpired"),
        (Refusal::Other(417), "failed: Unknown(417)"),
        (Refusal::Other(418), "failed: ClientUnknown"),
    ] {
        let files = Files::new();
        let (server, device) = linked(&files).await;
        device.stop().await;
        server.refuse_next_login(KAI, refusal);
        let device = Device::start(&server, &files).await;
        assert_eq!(ends(device).await, [end], "{refusal:?}");
    }
}

#[tokio::test]
async fn a_second_client_on_the_same_files_replaces_the_first() {
    let files = Files::new();
    let (server, first) = linked(&files).await;
    let second = Device::start(&server, &files).await;
    second.wait_until_connected().await;
    assert_eq!(ends(first).await, ["replaced"]);
}

#[tokio::test]
async fn an_unlinked_device_is_never_let_in_again() {
    let files = Files::new();
    let (server, device) = linked(&files).await;
    server.unlink(KAI);
    assert_eq!(ends(device).await, ["logged out: LoggedOut, at login: false"]);
    let again = Device::start(&server, &files).await;
    assert_eq!(ends(again).await, ["logged out: LoggedOut, at login: true"]);
}

#[tokio::test]
async fn a_client_comes_back_after_a_restart_a_pause_or_a_dropped_connection() {
    let files = Files::new();
    let (server, device) = linked(&files).await;
    server.interrupt(KAI, Interruption::Restart);
    device.wait_until_connected().await;
    server.interrupt(KAI, Interruption::Unavailable);
    device.wait_until_connected().await;
    server.drop_connection(KAI);
    device.wait_until_connected().await;
    server.refuse_next_login(KAI, Refusal::Unavailable);
    server.drop_connection(KAI);
    device.wait_until_connected().await;
    server.wait_until_online(KAI).await;
}

#[tokio::test]
async fn a_client_that_asks_too_much_is_offline_and_does_not_end() {
    let files = Files::new();
    let (server, device) = linked(&files).await;
    server.interrupt(KAI, Interruption::TooMany);
    let lost = |event: &Event| matches!(event, Event::Disconnected(_)).then_some(());
    device.wait_for("the end of a connection", lost).await;
    server.wait_until_offline(KAI).await;
    device.stop().await;
}
