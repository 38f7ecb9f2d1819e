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
    world.desk.revoke_all_tokens();
    let mut keeper = world.keeper();
    keeper.next().await;
    assert_snapshot!(keeper.missing(), @"Kimi does not renew this login any more: it was ended at Kimi, or another program has renewed a copy of it; run `nanokimi login`");
    for _ in 0..5 {
        keeper.login.reload_if_changed(nanokimi::clock::Clock::System.now());
        keeper.refuse("whichever");
    }
    keeper.silence(Duration::from_millis(500)).await;
    keeper.ends().await;
    assert_eq!(world.text(), before, "the file is as it was");

    // Nor after a restart, nor by whoever else looks.
    let mut keeper = world.keeper();
    keeper.missing();
    keeper.silence(Duration::from_millis(500)).await;
    assert_eq!(world.desk.counts().refreshes, 1);

    world.log_in(QUARTER_HOUR);
    keeper.login.reload_if_changed(nanokimi::clock::Clock::System.now());
    let taken_up = keeper.next_token().await;
    let renewed = keeper.next_token().await;
    assert_ne!(taken_up, renewed);
    assert!(world.desk.can_refresh_from(&world.text()));
    keeper.ends().await;
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_after_longer_and_longer_pauses() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let old = world.on_disk();
    world.desk.queue_faults([LoginFault::Status(503), LoginFault::HangUp]);
    let mut keeper = world.keeper();
    let began = Instant::now();
    assert_eq!(keeper.token(), old, "it stays while there is hope");
    let new = keeper.next_token().await;
    assert_ne!(new, old);
    // 1 s, then 2 s, each with up to a quarter more.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!((world.desk.counts().refreshes, world.desk.counts().refreshes_granted), (3, 1));
    keeper.ends().await;
}

#[tokio::test]
async fn what_is_not_taken_without_a_word_for_good_is_asked_again() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR / 2);
    world.desk.queue_faults([LoginFault::Status(403)]);
    let mut keeper = world.keeper();
    let old = keeper.token();
    assert_ne!(keeper.next_token().await, old, "it was good until there was another");
    keeper.ends().await;

    // One that has expired is of no use meanwhile, which is told.
    world.log_in(QUARTER_HOUR);
    world.desk.queue_faults([LoginFault::Status(401)]);
    let mut keeper = world.keeper();
    let old = keeper.token();
    keeper.next().await;
    keeper.missing();
    assert_eq!(keeper.next_token().await, old);
    assert_ne!(keeper.next_token().await, old);
    assert!(world.desk.can_refresh_from(&world.text()));
    keeper.ends().await;
}

#[tokio::test]
async fn an_answer_without_tokens_and_a_busy_server_are_trouble_too() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    world.desk.queue_faults([LoginFault::Nonsense, LoginFault::Status(429)]);
    let mut keeper = world.keeper();
    keeper.next_token().await;
    assert_eq!(world.desk.counts().refreshes, 3);
    keeper.ends().await;
}

#[tokio::test]
async fn tokens_that_were_given_and_never_came_end_the_login_with_a_sentence() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    world.desk.queue_faults([LoginFault::HangUpAfter]);
    let mut keeper = world.keeper();
    keeper.next().await;
    assert!(keeper.missing().ends_with("run `nanokimi login`"), "{}", keeper.missing());
    assert_eq!(world.desk.counts().refreshes, 2);
    keeper.ends().await;
}

#[tokio::test]
async fn without_the_lock_or_room_for_the_answer_nothing_is_asked_for() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    fs::create_dir(world.file().with_extension("lock")).unwrap();
    let mut keeper = world.keeper();
    let old = keeper.token();
    keeper.silence(Duration::from_millis(1500)).await;
    assert_eq!((keeper.token(), world.desk.counts().refreshes), (old, 0));
    fs::remove_dir(world.file().with_extension("lock")).unwrap();
    keeper.next_token().await;
    keeper.ends().await;
}

#[tokio::test]
async fn a_login_without_a_refresh_token_lasts_as_long_as_it_lasts() {
    let world = World::new(Duration::from_secs(2)).await;
    let text = world.desk.issue_login_file(nanokimi::clock::Clock::System.now(), Duration::ZERO);
    let mut login: serde_json::Value = serde_json::from_str(&text).unwrap();
    login["refresh_token"] = "".into();
    world.put(&login.to_string());
    let mut keeper = world.keeper();
    keeper.token();
    keeper.next().await;
    let why = keeper.missing();
    assert!(why.starts_with("The Kimi login expired at ") && why.ends_with("run `nanokimi login`"), "{why}");
    assert_eq!(world.desk.counts().refreshes, 0);
    keeper.ends().await;
}
