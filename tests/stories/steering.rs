//! Messages that come while Kai works.

use std::time::Duration;

use crate::engine::Behaviour;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_turn_is_told_to_it_and_answered_apart() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("Looking.");
    world.says("main", "Owner", "near the sea").await;
    let steer = turn.request("steer").await;
    assert!(steer.contains("near the sea") && !steer.contains("look for a hotel"), "{steer}");
    turn.takes_steer(&steer);
    turn.step();
    turn.says("Found one by the sea.");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: Looking.");
    assert_eq!(world.hears_in("main").await, "Kai: Found one by the sea.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_steer_without_a_receipt_becomes_the_next_turn() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "first").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("main", "Owner", "second").await;
    turn.request("steer").await;
    turn.says("one");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: one");
    let next = world.prompt().await;
    assert!(next.text.contains("second") && !next.text.contains("first"), "{}", next.text);
    next.answer("two");
    assert_eq!(world.hears_in("main").await, "Kai: two");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_steer_waits_for_the_first_step() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "first").await;
    let turn = world.prompt().await;
    world.says("main", "Owner", "too early").await;
    let early = tokio::time::timeout(Duration::from_secs(20), turn.request("steer")).await;
    assert!(early.is_err(), "the engine would lose it");
    turn.step();
    let steer = turn.request("steer").await;
    turn.takes_steer(&steer);
    turn.says("both");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: both");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn talk_that_is_not_for_kai_does_not_disturb_his_work() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Alice", "@Kai first").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("family", "Bob", "by the way").await;
    world.says("family", "Bob", "what a day").await;
    turn.finish();
    world.silence(Duration::from_secs(60)).await;
    world.says("family", "Alice", "@Kai second").await;
    let next = world.prompt().await;
    assert!(next.text.contains("by the way") && next.text.contains("what a day"), "{}", next.text);
    next.answer("done");
    assert_eq!(world.hears_in("family").await, "Kai: done");
    world.ends().await;
}
