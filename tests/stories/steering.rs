//! Messages that come while Kai works.

use std::time::Duration;

use nanokimi::agent::Engine;
use support::scripted_engine::Behaviour;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_turn_is_told_to_it_and_answered_apart() {
    for engine in Engine::ALL {
        is_told_and_answered_apart(engine).await;
    }
}

async fn is_told_and_answered_apart(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
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
    for engine in Engine::ALL {
        becomes_the_next_turn(engine).await;
    }
}

async fn becomes_the_next_turn(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
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
    for engine in Engine::ALL {
        waits_for_the_first_step(engine).await;
    }
}

async fn waits_for_the_first_step(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
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
async fn of_two_messages_in_a_turn_the_one_that_it_took_is_answered_there_and_the_other_next() {
    let mut world = World::with(Engine::KimiCode, Behaviour::Held).await;
    world.says("main", "Owner", "first").await;
    let turn = world.prompt().await;
    turn.step();
    for text in ["second", "third"] {
        world.says("main", "Owner", text).await;
        assert!(turn.request("steer").await.contains(text));
    }
    turn.says("one");
    turn.takes_steer("");
    turn.says("two");
    turn.takes_no_steer();
    turn.finish();
    assert_eq!([world.hears_in("main").await, world.hears_in("main").await], ["Kai: one", "Kai: two"]);
    let next = world.prompt().await;
    assert!(next.text.contains("third") && !next.text.contains("second"), "{}", next.text);
    next.answer("three");
    assert_eq!(world.hears_in("main").await, "Kai: three");
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
