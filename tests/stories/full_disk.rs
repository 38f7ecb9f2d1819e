//! The server's disk is full: no chat can be answered, and every question is answered when there is room
//! again.

use std::time::Duration;

use nanokimi::types::{Outage, Trouble};
use support::scripted_engine::Behaviour;
use support::test_service::deleted;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_for_a_moment_is_nobodys_news() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.next(Behaviour::NoLaunch(Trouble::NoSpace));
    world.start().await;
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    assert!(world.seconds() <= 5, "{}", world.seconds());
    world.silence(MINUTE * 60).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_once_to_each_and_what_was_asked_is_answered_when_there_is_room() {
    let mut world = World::new(Behaviour::NoLaunch(Trouble::NoSpace)).await;
    world.says("family", "Ana", "@Kai when does the train leave?").await;
    let told =
        [world.hears().await, world.hears().await].map(|heard| format!("{}: {}", heard.group, heard.text));
    insta::assert_snapshot!(told.join("\n"), @"
    family: Kai: I cannot answer now. The server's disk is full. Please ask the owner to free some space and to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
    main: Kai: I cannot answer in any chat now. The server's disk is full. Please free some space there; `nanokimi doctor` says how much there is. What is asked meanwhile is kept and answered then.
    ");
    world.says("family", "Bo", "@Kai and when does it arrive?").await;
    world.says("main", "Owner", "what is wrong?").await;
    world.silence(MINUTE * 60).await;
    let [(outage, _)] = world.store.open_outages().await.unwrap()[..] else { panic!("there is one outage") };
    assert_eq!(outage, Outage::NoSpace);

    world.docker.usually(Behaviour::Echo);
    let room = world.seconds();
    let mut answers = [world.hears_in_any().await, world.hears_in_any().await];
    answers.sort();
    assert_eq!(answers, ["Kai: echo: @Kai and when does it arrive?", "Kai: echo: what is wrong?"]);
    assert!(world.seconds() - room < 40, "{}", world.seconds() - room);
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 0);
    world.silence(MINUTE * 60).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_keeps_outlives_a_restart() {
    let mut world = World::new(Behaviour::NoLaunch(Trouble::NoSpace)).await;
    world.says("family", "Ana", "@Kai hello").await;
    for _ in 0..2 {
        world.hears().await;
    }
    world.passes(Duration::from_secs(1)).await;
    world.kill().await;
    world.start().await;
    // The owner was told already.
    world.silence(MINUTE * 5).await;
    world.kill().await;
    world.docker.usually(Behaviour::Echo);
    world.start().await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_over_for_nobody_to_see_ends_with_the_next_start() {
    let mut world = World::new(Behaviour::NoLaunch(Trouble::NoSpace)).await;
    let asked = world.says("family", "Ana", "@Kai hello").await;
    for _ in 0..2 {
        world.hears().await;
    }
    world.tells(vec![deleted("family", "Ana", &asked)]).await;
    world.passes(Duration::from_secs(1)).await;
    world.kill().await;
    world.docker.usually(Behaviour::Echo);
    world.start().await;
    world.silence(MINUTE).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}
