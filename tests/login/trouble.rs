//! What becomes of a login that the server does not renew: for now, or for ever.

use std::fs;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use support::login_server::LoginFault;

use crate::world::World;

const QUARTER_HOUR: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_refused_renewal_is_told_and_never_asked_for_again() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let before = world.text();
    world.login_server.revoke_all_tokens();
    let mut refresher = world.refresher();
    refresher.next().await;
    assert_snapshot!(refresher.missing(), @"Kimi does not renew this login any more: it was ended at Kimi, or another program has renewed a copy of it; run `nanokimi login`");
    for _ in 0..5 {
        refresher.login.reload_if_changed(nanokimi::clock::Clock::System.now());
        refresher.refuse("whichever");
    }
    refresher.silence(Duration::from_millis(500)).await;
    refresher.ends().await;
    assert_eq!(world.text(), before, "the file is as it was");

    // Nor after a restart, nor by whoever else looks.
    let mut refresher = world.refresher();
    refresher.missing();
    refresher.silence(Duration::from_millis(500)).await;
    assert_eq!(world.login_server.counts().refreshes, 1);

    world.log_in(QUARTER_HOUR);
    refresher.login.reload_if_changed(nanokimi::clock::Clock::System.now());
    let taken_up = refresher.next_token().await;
    let renewed = refresher.next_token().await;
    assert_ne!(taken_up, renewed);
    assert!(world.login_server.can_refresh_from(&world.text()));
    refresher.ends().await;
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_after_longer_and_longer_pauses() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let old = world.on_disk();
    world.login_server.queue_faults([LoginFault::Status(503), LoginFault::HangUp]);
    let mut refresher = world.refresher();
    let began = Instant::now();
    assert_eq!(refresher.token(), old, "it stays while there is hope");
    let new = refresher.next_token().await;
    assert_ne!(new, old);
    // 1 s, then 2 s, each with up to a quarter more.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(
        (world.login_server.counts().refreshes, world.login_server.counts().refreshes_granted),
        (3, 1)
    );
    refresher.ends().await;
}

#[tokio::test]
async fn what_is_not_taken_without_a_word_for_good_is_asked_again() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR / 2);
    world.login_server.queue_faults([LoginFault::Status(403)]);
    let mut refresher = world.refresher();
    let old = refresher.token();
    assert_ne!(refresher.next_token().await, old, "it was good until there was another");
    refresher.ends().await;

    // One that has expired is of no use meanwhile, which is told.
    world.log_in(QUARTER_HOUR);
    world.login_server.queue_faults([LoginFault::Status(401)]);
    let mut refresher = world.refresher();
    let old = refresher.token();
    refresher.next().await;
    refresher.missing();
    assert_eq!(refresher.next_token().await, old);
    assert_ne!(refresher.next_token().await, old);
    assert!(world.login_server.can_refresh_from(&world.text()));
    refresher.ends().await;
}

#[tokio::test]
async fn an_answer_without_tokens_and_a_busy_server_are_trouble_too() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    world.login_server.queue_faults([LoginFault::Nonsense, LoginFault::Status(429)]);
    let mut refresher = world.refresher();
    refresher.next_token().await;
    assert_eq!(world.login_server.counts().refreshes, 3);
    refresher.ends().await;
}

#[tokio::test]
async fn tokens_that_were_given_and_never_came_end_the_login_with_a_sentence() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    world.login_server.queue_faults([LoginFault::HangUpAfter]);
    let mut refresher = world.refresher();
    refresher.next().await;
    assert!(refresher.missing().ends_with("run `nanokimi login`"), "{}", refresher.missing());
    assert_eq!(world.login_server.counts().refreshes, 2);
    refresher.ends().await;
}

#[tokio::test]
async fn without_the_lock_or_room_for_the_answer_nothing_is_asked_for() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    fs::create_dir(world.file().with_extension("lock")).unwrap();
    let mut refresher = world.refresher();
    let old = refresher.token();
    refresher.silence(Duration::from_millis(1500)).await;
    assert_eq!((refresher.token(), world.login_server.counts().refreshes), (old, 0));
    fs::remove_dir(world.file().with_extension("lock")).unwrap();
    refresher.next_token().await;
    refresher.ends().await;
}

#[tokio::test]
async fn a_login_without_a_refresh_token_lasts_as_long_as_it_lasts() {
    let world = World::new(Duration::from_secs(2)).await;
    let text = world.login_server.issue_login_file(nanokimi::clock::Clock::System.now(), Duration::ZERO);
    let mut login: serde_json::Value = serde_json::from_str(&text).unwrap();
    login["refresh_token"] = "".into();
    world.put(&login.to_string());
    let mut refresher = world.refresher();
    refresher.token();
    refresher.next().await;
    let why = refresher.missing();
    assert!(why.starts_with("The Kimi login expired at ") && why.ends_with("run `nanokimi login`"), "{why}");
    assert_eq!(world.login_server.counts().refreshes, 0);
    refresher.ends().await;
}
