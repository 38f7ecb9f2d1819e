//! Several groups, and several installs, on one Docker.

use std::collections::BTreeSet;

use nanokimi::types::Role;
use support::container_world::World;
use support::fixture::{LOOK, running, until};
use support::test_service::Heard;
use tokio::time::sleep;

#[tokio::test]
async fn three_groups_share_two_places_and_all_are_answered() {
    let mut world = World::without_service().await;
    world.settings(|settings| settings.max_agents = 2);
    let groups = ["family", "team", "club"];
    world.add_group("team", Role::Member).await;
    world.add_group("club", Role::Member).await;
    world.start().await;
    for group in groups {
        world.says(group, &format!("@Kai SAY hello {group}")).await;
    }
    let install = world.install().clone();
    let count = tokio::spawn(async move {
        loop {
            let running = running(&install).await;
            assert!(running.len() <= 2, "{running:?}");
            sleep(LOOK).await;
        }
    });
    let mut heard = BTreeSet::new();
    for _ in groups {
        let Heard { group, text, .. } = world.hears().await;
        assert_eq!(text, format!("Kai: hello {group}"));
        heard.insert(group);
    }
    assert_eq!(heard, BTreeSet::from(groups.map(str::to_owned)));
    assert!(!count.is_finished(), "{:?}", count.await);
    count.abort();
    world.ends().await;
}

#[tokio::test]
async fn an_install_that_starts_again_leaves_the_containers_of_another_alone() {
    let mut ours = World::new().await;
    let mut theirs = World::new().await;
    assert_ne!(ours.install(), theirs.install());
    assert_eq!(ours.asks("family", "@Kai SAY one").await, "Kai: one");
    let before = running(ours.install()).await;

    theirs.says("family", "@Kai SLEEP 60").await;
    theirs.model_reads("SLEEP 60").await;
    let lost = running(theirs.install()).await;
    theirs.kill().await;
    theirs.start().await;
    until("their old container is gone", async || {
        running(theirs.install()).await.iter().all(|name| !lost.contains(name))
    })
    .await;
    theirs.ends().await;

    assert_eq!(running(ours.install()).await, before);
    assert_eq!(ours.asks("family", "@Kai RECALL").await, "Kai: SAY one");
    assert_eq!(running(ours.install()).await, before, "the same one answers");
    ours.ends().await;
}
