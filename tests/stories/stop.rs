//! The owner writes `/stop`: what runs or waits in the chat is over within a second, and what comes afterwards is
//! answered.

use std::time::Duration;

use nanokimi::agent::Engine;
use serde_json::json;
use support::scripted_engine::Behaviour;
use support::test_service::message;

use crate::commands::{linked, world_of};
use crate::world::World;

const STOPPED: &str =
    "Kai: I have stopped. What was asked before is dropped; if you still want it, ask me again.";
const NOT_BEGUN: &str =
    "Kai: I had not begun yet. What was asked before is dropped; if you still want it, ask me again.";
const NOTHING: &str = "Kai: I am not working on anything in this chat.";

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test(start_paused = true)]
async fn a_turn_is_cancelled_and_what_it_has_said_is_dropped() {
    for engine in Engine::ALL {
        is_cancelled_and_dropped(engine).await;
    }
}

async fn is_cancelled_and_dropped(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
    world.tells(vec![linked("Olga")]).await;
    world.says("family", "Ana", "@Kai write to everybody").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("I have written to five of them.");
    let asked_at = world.seconds();
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, STOPPED);
    assert_eq!(world.seconds(), asked_at);
    let (cancel, cancelled) = match engine {
        Engine::KimiCli => ("cancel", json!({"status": "cancelled"})),
        Engine::KimiCode => ("session/cancel", json!({"stopReason": "cancelled"})),
    };
    turn.request(cancel).await;
    turn.status(cancelled);
    drop(turn);
    world.passes(SECOND).await;
    assert_eq!(world.docker.running(), 0, "what the turn has begun in the container ends with it");

    world.says("family", "Ana", "@Kai and now?").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("and now?"), "{}", turn.text);
    assert!(!turn.text.contains("everybody") && !turn.text.contains("/stop"), "{}", turn.text);
    turn.answer("Now I am here.");
    assert_eq!(world.hears_in("family").await, "Kai: Now I am here.");
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_stop_is_killed_and_its_turn_is_not_tried_again() {
    let mut world = world_of("Olga").await;
    world.docker.next(Behaviour::Hangs);
    world.says("family", "Ana", "@Kai look for a hotel").await;
    world.silence(5 * SECOND).await;
    world.says("family", "Olga", "/parar").await;
    assert_eq!(world.hears_in("family").await, STOPPED);
    // This comes while the engine still runs.
    world.says("family", "Ana", "@Kai hello").await;
    let asked_at = world.seconds();
    let turn = world.prompt().await;
    assert!(world.seconds() <= asked_at + 1, "the engine was killed within a second");
    assert!(turn.text.contains("hello") && !turn.text.contains("hotel"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn if_nothing_runs_it_says_so_and_nothing_is_started() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "we leave at nine").await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOTHING);
    world.silence(HOUR).await;
    assert_eq!(world.docker.tries(), 0);
    // What is only context is told as ever.
    world.says("family", "Ana", "@Kai when?").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("we leave at nine") && turn.text.contains("when?"), "{}", turn.text);
    turn.answer("At nine.");
    assert_eq!(world.hears_in("family").await, "Kai: At nine.");
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOTHING);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn twice_stops_once() {
    let mut world = world_of("Olga").await;
    world.docker.next(Behaviour::Hangs);
    world.says("family", "Ana", "@Kai look for a hotel").await;
    world.silence(SECOND).await;
    world.says("family", "Olga", "/stop").await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, STOPPED);
    assert_eq!(world.hears_in("family").await, NOTHING);
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_moment_of_the_answer_the_chat_hears_one_of_the_two() {
    let mut world = world_of("Olga").await;
    for (question, answer, stop_is_first) in [("one", "1", true), ("two", "2", false)] {
        world.says("family", "Ana", &format!("@Kai {question}")).await;
        let turn = world.prompt().await;
        if stop_is_first {
            world.says("family", "Olga", "/stop").await;
            turn.answer(answer);
            assert_eq!(world.hears_in("family").await, STOPPED);
        } else {
            turn.answer(answer);
            assert_eq!(world.hears_in("family").await, format!("Kai: {answer}"));
            world.says("family", "Olga", "/stop").await;
            assert_eq!(world.hears_in("family").await, NOTHING);
        }
        world.silence(10 * SECOND).await;
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_told_to_the_turn_meanwhile_is_over_too() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("family", "Ana", "@Kai near the sea").await;
    turn.request("steer").await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, STOPPED);
    turn.request("cancel").await;
    turn.status(json!({"status": "cancelled"}));
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_waits_for_its_turn_is_stopped_and_the_others_are_not() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 1);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.says("main", "Olga", "how are you?").await;
    let turn = world.prompt().await;
    world.says("family", "Ana", "@Kai and me?").await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOT_BEGUN);
    turn.answer("Well.");
    assert_eq!(world.hears_in("main").await, "Kai: Well.");
    world.silence(HOUR).await;
    assert_eq!(world.docker.launches(), ["main"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_starts_is_not_prompted_any_more() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    world.passes(Duration::from_millis(100)).await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOT_BEGUN);
    world.silence(10 * SECOND).await;
    assert_eq!(world.docker.running(), 1, "it is ready for what comes next");
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("hotel"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_another_try_or_for_the_end_of_an_outage_is_over() {
    let mut world = world_of("Olga").await;
    world.docker.next(Behaviour::DiesInTurn);
    world.says("family", "Ana", "@Kai look for a hotel").await;
    world.silence(2 * SECOND).await;
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOT_BEGUN);
    world.silence(HOUR).await;

    world.says("family", "Ana", "@Kai look for a train").await;
    let turn = world.prompt().await;
    world.refuse(&turn, 403, "access_terminated_error").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I cannot answer now."));
    assert!(world.hears_in("main").await.starts_with("Kai: I cannot answer in any chat now."));
    world.says("family", "Olga", "/stop").await;
    assert_eq!(world.hears_in("family").await, NOT_BEGUN);
    world.silence(HOUR).await;
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("hello") && !turn.text.contains("train"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_right_after_it_changes_nothing() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    world.prompt().await.step();
    world.chats.hang("family");
    let stop = message("family", "3EB0", "Olga", "/stop", world.now());
    world.writes(stop.clone()).await;
    world.kill().await;
    world.chats.hang_no_more("family");
    world.start().await;
    assert_eq!(world.hears_in("family").await, STOPPED);
    // WhatsApp delivers it again while the next turn runs.
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("hotel"), "{}", turn.text);
    world.writes(stop).await;
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_stop_a_turn() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("family", "Ben", "/stop").await;
    world.silence(10 * SECOND).await;
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    world.ends().await;
}
