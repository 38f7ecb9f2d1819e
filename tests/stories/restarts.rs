//! The service is killed or stopped, and started again.

use std::time::Duration;

use support::scripted_engine::Behaviour;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn killed_in_mid_turn_the_message_is_answered_once_and_the_old_container_is_gone() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "remember the milk").await;
    let lost = world.prompt().await;
    lost.step();
    lost.says("half an ans");
    world.kill().await;
    assert_eq!(world.docker.running(), 1);

    world.start().await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("remember the milk"), "{}", turn.text);
    assert_eq!(world.docker.running(), 1);
    turn.answer("noted");
    assert_eq!(world.hears_in("main").await, "Kai: noted");
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_the_host_is_given_up_after_three_tries() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "poison").await;
    for _ in 0..3 {
        world.prompt().await.step();
        world.kill().await;
        world.start().await;
    }
    let notice = world.hears_in("main").await;
    assert!(notice.starts_with("Kai: "), "{notice}");
    world.silence(Duration::from_secs(600)).await;
    world.says("main", "Owner", "are you well?").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("poison"), "{}", turn.text);
    turn.answer("yes");
    assert_eq!(world.hears_in("main").await, "Kai: yes");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn stopped_in_mid_turn_the_message_waits_for_the_next_start() {
    let mut world = World::new(Behaviour::Held).await;
    for _ in 0..5 {
        // More often than a failing message is tried: a stop does not count as a try.
        if world.seconds() == 0 {
            world.says("main", "Owner", "patience").await;
        }
        world.prompt().await.step();
        world.stop().await;
        assert_eq!(world.docker.running(), 0);
        world.start().await;
    }
    world.prompt().await.answer("rewarded");
    assert_eq!(world.hears_in("main").await, "Kai: rewarded");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_before_a_kill_is_answered_after_it() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("main", "Owner", "in time").await;
    world.kill().await;
    world.start().await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: in time");
    world.ends().await;
}
