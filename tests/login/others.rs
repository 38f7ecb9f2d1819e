//! Other programs with the same login, such as a kimi-cli on the host: nobody is logged out.

use std::fs::OpenOptions;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::world::World;

const QUARTER_HOUR: Duration = Duration::from_secs(900);

#[tokio::test]
async fn two_programs_share_one_login_with_one_renewal_for_both() {
    let world = World::new(Duration::from_secs(2)).await;
    world.log_in(Duration::ZERO);
    let (mut one, mut other) = (world.refresher(), world.refresher());
    for _ in 0..4 {
        let (first, second) = tokio::join!(one.next_token(), other.next_token());
        assert_eq!(first, second);
    }
    let counts = world.login_server.counts();
    assert_eq!((counts.refreshes, counts.refreshes_refused), (4, 0), "{counts:?}");
    one.ends().await;
    other.ends().await;
}

#[tokio::test]
async fn a_renewal_waits_for_the_lock_and_takes_what_its_holder_has_written() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    // As kimi-cli does (1.51.0, `_CrossProcessLock`).
    let lock = world.file().with_extension("lock");
    let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(lock).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut refresher = world.refresher();
    refresher.silence(Duration::from_millis(500)).await;
    world.log_in(Duration::ZERO);
    flock(&lock, FlockOperation::Unlock).unwrap();
    assert_eq!(refresher.next_token().await, world.on_disk());
    refresher.silence(Duration::from_millis(300)).await;
    assert_eq!(world.login_server.counts().refreshes, 0);
    refresher.ends().await;
}

#[tokio::test]
async fn whoever_was_first_without_the_lock_may_still_be_writing() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    // Its token is spent, and the new one is not on disk yet.
    world.login_server.revoke_all_tokens();
    let mut refresher = world.refresher();
    world.refreshes(1).await;
    world.log_in(Duration::ZERO);
    assert_eq!(refresher.next_token().await, world.on_disk());
    refresher.silence(Duration::from_millis(1500)).await;
    assert_eq!(world.login_server.counts().refreshes, 1);
    refresher.ends().await;
}
