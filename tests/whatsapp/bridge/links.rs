//! How the link is when the server ends it, and what the bridge does then.

use std::time::Duration;

use nanokimi::bridge::whatsapp::{BridgeTask, Presence};
use nanokimi::bridge::{FetchError, FetchOrder, Order, SendError};
use nanokimi::types::{LinkState, Media, MediaKind};
use support::whatsapp_client::{Device, Files};
use tokio::sync::oneshot;
use tokio::time::{advance, pause, resume};
use whatsapp_server::{Interruption, PATIENCE, Refusal, Server};

use super::world::{ANNA, Bridge, FAMILY, Folder, KAI, server};

async fn linked() -> (Server, Folder, Bridge) {
    let server = server().await;
    let folder = Folder::new();
    let bridge = Bridge::linked(&server, &folder).await;
    server.wait_until_settled(KAI).await;
    (server, folder, bridge)
}

/// Lets a pause of the bridge pass. The network does nothing meanwhile.
async fn let_pass(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

fn is(wanted: LinkState) -> impl Fn(&LinkState) -> Option<()> {
    move |link| (*link == wanted).then_some(())
}

#[tokio::test]
async fn the_bridge_comes_back_and_says_that_it_was_away() {
    let (server, _folder, mut bridge) = linked().await;
    for interruption in [None, Some(Interruption::Restart), Some(Interruption::Unavailable)] {
        match interruption {
            Some(interruption) => server.interrupt(KAI, interruption),
            None => server.drop_connection(KAI),
        }
        bridge.wait_for("a loss", is(LinkState::Connecting)).await;
        bridge.wait_until_online().await;
    }
    assert_eq!(bridge.stop().await, LinkState::Online);
    server.wait_until_offline(KAI).await;
}

#[tokio::test]
async fn while_away_nothing_is_sent_and_nothing_is_left_unanswered() {
    let (server, _folder, mut bridge) = linked().await;
    server.refuse_next_login(KAI, Refusal::Other(418));
    server.drop_connection(KAI);
    bridge.wait_for("a loss", is(LinkState::Connecting)).await;
    let later = SendError::Later("WhatsApp is not connected".to_owned());
    assert_eq!(bridge.say(FAMILY, "3EB0AAAA", "Hello").await, Err(later));
    let (outcome, fetched) = oneshot::channel();
    let media = Media {
        kind: MediaKind::Image,
        mime: "image/jpeg".to_owned(),
        name: None,
        bytes: 1,
        handle: Vec::new(),
    };
    let into = tempfile::tempfile().unwrap();
    bridge.order(Order::Fetch(FetchOrder { media, into, limit_bytes: 10, outcome })).await;
    assert_eq!(fetched.await.unwrap(), Err(FetchError::Later));
    bridge.wait_until_online().await;
}

#[tokio::test]
async fn a_link_that_another_took_over_is_taken_back_once_and_then_given_up() {
    let (server, _folder, mut bridge) = linked().await;
    server.interrupt(KAI, Interruption::Replaced);
    bridge.wait_for("a loss", is(LinkState::Connecting)).await;
    server.wait_until_offline(KAI).await;
    // An order that gets an answer: the bridge is waiting.
    assert!(bridge.say(FAMILY, "3EB0AAAA", "Hello").await.is_err());
    let logins = server.count_sent(KAI, "ib");
    let_pass(Duration::from_secs(4 * 60)).await;
    assert!(bridge.say(FAMILY, "3EB0AAAA", "Hello").await.is_err());
    assert_eq!(server.count_sent(KAI, "ib"), logins, "nobody fights for the link");
    let_pass(Duration::from_secs(61)).await;
    bridge.wait_until_online().await;
    server.interrupt(KAI, Interruption::Replaced);
    assert_eq!(bridge.ended().await, LinkState::Replaced);
}

#[tokio::test]
async fn a_removed_link_is_over_and_its_keys_are_kept_aside() {
    for when in ["while online", "at the login"] {
        let (server, folder, mut bridge) = linked().await;
        if when == "at the login" {
            bridge.stop().await;
            server.refuse_next_login(KAI, Refusal::Locked);
            bridge = Bridge::serve(&server, &folder);
        } else {
            server.unlink(KAI);
        }
        assert_eq!(bridge.ended().await, LinkState::LoggedOut, "{when}");
        let beside = folder.beside();
        assert!(beside.len() == 1 && beside[0].starts_with("auth-logged-out-2"), "{beside:?}");
        assert!(folder.root.path().join(&beside[0]).join("wa.db").exists());
        assert!(!folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
    }
}

#[tokio::test]
async fn a_ban_is_waited_for() {
    let (server, _folder, mut bridge) = linked().await;
    server.refuse_next_login(KAI, Refusal::Banned { reason: 101, secs: 3600 });
    server.drop_connection(KAI);
    let banned = |link: &LinkState| if let LinkState::Banned { until } = link { Some(*until) } else { None };
    let until = bridge.wait_for("a ban", banned).await;
    let left = until.duration_since(nanokimi::clock::Clock::System.now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left} s");
    assert!(bridge.say(FAMILY, "3EB0AAAA", "Hello").await.is_err());
    let_pass(Duration::from_secs(3601)).await;
    bridge.wait_until_online().await;
}

#[tokio::test]
async fn a_refused_version_is_looked_up_once_and_then_given_up() {
    let (server, _folder, mut bridge) = linked().await;
    server.offer_version(2_000_000_001);
    server.refuse_next_login(KAI, Refusal::Outdated);
    server.drop_connection(KAI);
    bridge.wait_for("a loss", is(LinkState::Connecting)).await;
    bridge.wait_until_online().await;
    assert_eq!(server.version_of(KAI), Some((2, 3000, 2_000_000_001)));

    server.refuse_next_login(KAI, Refusal::Outdated);
    server.refuse_next_login(KAI, Refusal::Outdated);
    server.drop_connection(KAI);
    assert_eq!(bridge.ended().await, LinkState::Outdated);
}

#[tokio::test]
async fn without_the_version_lookup_the_bridge_connects_all_the_same() {
    let server = server().await;
    server.fail_version_lookup();
    let folder = Folder::new();
    let bridge = Bridge::linked(&server, &folder).await;
    bridge.stop().await;

    let another = Folder::new();
    server.offer_version(2_000_000_002);
    let bridge = Bridge::linked(&server, &another).await;
    assert_eq!(server.version_of(KAI), Some((2, 3000, 2_000_000_002)));
    assert!(another.path().join("sw.js").exists());
    bridge.stop().await;
}

#[tokio::test]
async fn a_device_that_leaves_is_forgotten_by_the_server_and_here() {
    let (server, folder, bridge) = linked().await;
    bridge.stop().await;
    let kept = Folder::new();
    std::fs::create_dir(kept.path()).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), kept.path().join(file.file_name())).unwrap();
    }
    let leaving = Bridge::start(folder.bridge(&server, Presence::Hidden), |_| BridgeTask::Unlink);
    assert_eq!(leaving.ended().await, LinkState::Unlinked);
    assert_eq!(folder.beside(), Vec::<String>::new());
    assert_eq!(Bridge::serve(&server, &kept).ended().await, LinkState::LoggedOut, "old keys open nothing");
}

#[tokio::test]
async fn a_device_that_leaves_while_the_server_is_away_keeps_its_keys_aside() {
    let (server, folder, bridge) = linked().await;
    bridge.stop().await;
    let mut away = folder.bridge(&server, Presence::Hidden);
    // Port 9 of this machine does not answer.
    away.url = Some("ws://127.0.0.1:9/ws/chat".to_owned());
    let leaving = Bridge::start(away, |_| BridgeTask::Unlink);
    // There is a limit to how long it tries; this person does not wait for it.
    assert_eq!(leaving.stop().await, LinkState::Connecting);
    let beside = folder.beside();
    assert!(beside.len() == 1 && beside[0].starts_with("auth-unlinked-2"), "{beside:?}");
}

#[tokio::test]
async fn keys_that_are_damaged_are_moved_aside_by_whoever_unlinks() {
    let server = server().await;
    let folder = Folder::new();
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(folder.path().join("wa.db"), "no database, but many bytes ".repeat(100)).unwrap();
    assert!(folder.bridge(&server, Presence::Hidden).is_linked().await.is_err());
    let leaving = Bridge::start(folder.bridge(&server, Presence::Hidden), |_| BridgeTask::Unlink);
    assert_eq!(leaving.ended().await, LinkState::Connecting);
    let beside = folder.beside();
    assert!(beside.len() == 1 && beside[0].starts_with("auth-damaged-2"), "{beside:?}");
    assert!(!folder.bridge(&server, Presence::Hidden).is_linked().await.unwrap());
}

#[tokio::test]
async fn while_the_service_stops_its_last_replies_still_leave() {
    let (server, _folder, mut bridge) = linked().await;
    bridge.end.batches.close();
    server.drop_connection(KAI);
    bridge.wait_for("a loss", is(LinkState::Connecting)).await;
    bridge.wait_until_online().await;
    assert!(bridge.say(FAMILY, "3EB0AAAA", "Goodbye").await.is_ok());
    // A message that is no longer accepted does not end the connection.
    server.phone_writes(ANNA, KAI, "One more thing").await;
    assert!(bridge.say(FAMILY, "3EB0AAAB", "Goodbye").await.is_ok());
    let_pass(Duration::from_secs(6)).await;
    assert!(bridge.say(FAMILY, "3EB0AAAC", "Goodbye").await.is_ok());
    assert_eq!(bridge.stop().await, LinkState::Online);
}

#[tokio::test]
async fn when_the_service_is_gone_the_bridge_ends() {
    let (server, folder, bridge) = linked().await;
    bridge.stop().await;
    let (bridge_end, end) = nanokimi::bridge::create_bridge_ends();
    let whatsapp = folder.bridge(&server, Presence::Hidden);
    drop(end);
    let running = whatsapp.run_bridge(bridge_end, BridgeTask::Serve, std::future::pending());
    tokio::time::timeout(PATIENCE, running).await.expect("the bridge ends").unwrap();
    server.wait_until_offline(KAI).await;
}

#[tokio::test]
async fn two_bridges_on_one_link_do_not_fight() {
    let (server, folder, mut first) = linked().await;
    let mut second = Bridge::serve(&server, &folder);
    second.wait_until_online().await;
    first.wait_for("a loss", is(LinkState::Connecting)).await;
    let annas = Files::new();
    let anna = Device::linked(&server, &annas, ANNA).await;
    anna.write(KAI, "Which of you?").await;
    assert_eq!(second.next_message().await.text, "Which of you?");
    assert_eq!(*first.end.link.borrow(), LinkState::Connecting);
    first.stop().await;
    second.stop().await;
}
