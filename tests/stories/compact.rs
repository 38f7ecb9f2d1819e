//! The owner has a conversation put into a summary.

use std::time::Duration;

use nanokimi::agent::Engine;
use serde_json::json;
use support::scripted_engine::{Behaviour, HeldPrompt};

use crate::commands::{linked, world_of};
use crate::world::World;

const DONE: &str = "Kai: Done: of this conversation I remember a summary from now on.";
const NOW: &str =
    "Kai: I put what I remember of this conversation into a summary now, and say when it is done.";

/// The engine makes its summary, as each of them tells it.
fn makes_summary(asked: &HeldPrompt, engine: Engine) {
    assert_eq!(asked.text, "/compact");
    match engine {
        Engine::KimiCli => {
            asked.says("The context has been compacted.");
            asked.finish();
        }
        Engine::KimiCode => {
            asked.says("Context compaction started — it runs in the background.");
            asked.finish();
            asked.updates(json!({
                "sessionUpdate": "agent_message_chunk",
                "content": {"type": "text", "text": "Compaction completed.\n- Messages compacted: 7"},
            }));
        }
    }
}

async fn ana_is_answered(world: &mut World) {
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("@Kai hello"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_rests_is_started_for_it_and_one_that_idles_does_it_at_once() {
    for engine in Engine::ALL {
        let mut world = World::with(engine, Behaviour::Held).await;
        world.tells(vec![linked("Olga")]).await;
        for (rests, launches) in [(0, 1), (60, 1), (3600, 2)] {
            world.passes(Duration::from_secs(rests)).await;
            world.says("family", "Olga", "/compact").await;
            assert_eq!(world.hears_in("family").await, NOW);
            makes_summary(&world.prompt().await, engine);
            assert_eq!(world.hears_in("family").await, DONE);
            assert_eq!(world.docker.launches().len(), launches);
            ana_is_answered(&mut world).await;
        }
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_running_turn_and_goes_before_what_waits() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    world.says("family", "Olga", "/compactar").await;
    let said = world.hears_in("family").await;
    assert!(said.starts_with("Kai: As soon as I have finished what I am doing"), "{said}");
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    let summary = world.prompt().await;
    world.says("family", "Ana", "@Kai book it").await;
    world.silence(Duration::from_secs(30)).await;
    makes_summary(&summary, Engine::KimiCli);
    assert_eq!(world.hears_in("family").await, DONE);
    world.prompt().await.answer("Booked.");
    assert_eq!(world.hears_in("family").await, "Kai: Booked.");
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_or_a_kill_leaves_it_to_the_next_engine() {
    let mut world = world_of("Olga").await;
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    drop(world.prompt().await);
    world.stop().await;
    world.start().await;
    ana_asks_while_summary_is_made(&mut world).await;
    world.kill().await;
    world.start().await;
    makes_summary(&world.prompt().await, Engine::KimiCli);
    assert_eq!(world.hears_in("family").await, DONE);
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

async fn ana_asks_while_summary_is_made(world: &mut World) {
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.prompt().await.text, "/compact");
}

#[tokio::test(start_paused = true)]
async fn if_it_cannot_be_done_the_chat_is_told_and_goes_on() {
    let mut world = world_of("Olga").await;
    world.says("family", "Olga", "/compact").await;
    world.hears_in("family").await;
    let asked = world.prompt().await;
    asked.says("The context is empty.");
    asked.finish();
    let said = world.hears_in("family").await;
    assert!(said.starts_with("Kai: There is nothing to put into a summary"), "{said}");

    world.says("family", "Olga", "/compact").await;
    world.hears_in("family").await;
    world.prompt().await.fails(-32003, "Error code: 500");
    let failed = world.hears_in("family").await;
    assert!(failed.starts_with("Kai: I could not put this conversation into a summary"), "{failed}");
    ana_is_answered(&mut world).await;

    world.passes(Duration::from_secs(3600)).await;
    world.docker.next(Behaviour::DiesInTurn);
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    assert_eq!(world.hears_in("family").await, failed);
    ana_is_answered(&mut world).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_conversation_needs_none_and_nobody_else_has_it_done() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    world.says("family", "Olga", "/compact").await;
    world.hears_in("family").await;
    world.says("family", "Olga", "/new").await;
    world.hears_in("family").await;
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    world.says("family", "Ana", "/compact").await;
    ana_is_answered(&mut world).await;
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_stops_it_within_a_second_and_status_tells_of_it() {
    for engine in Engine::ALL {
        let mut world = World::with(engine, Behaviour::Held).await;
        world.tells(vec![linked("Olga")]).await;
        world.says("family", "Olga", "/compact").await;
        assert_eq!(world.hears_in("family").await, NOW);
        let summary = world.prompt().await;
        world.says("family", "Olga", "/status").await;
        let status = world.hears_in("family").await;
        assert!(status.starts_with("Kai: I have been working on something here"), "{status}");
        world.says("family", "Ana", "@Kai hello").await;
        world.says("family", "Olga", "/stop").await;
        assert!(world.hears_in("family").await.starts_with("Kai: I have stopped."));
        world.passes(Duration::from_secs(1)).await;
        assert_eq!(world.docker.running(), 0);
        drop(summary);
        world.silence(Duration::from_secs(3600)).await;
        ana_is_answered(&mut world).await;
        world.ends().await;
    }
}

/// A summary of `family` that waits for the only agent's place, and the turn that has it.
async fn asked_for_behind_another_turn() -> (World, HeldPrompt) {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 1);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.says("main", "Olga", "look for a hotel").await;
    let turn = world.prompt().await;
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    (world, turn)
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_stopped_too() {
    let (mut world, turn) = asked_for_behind_another_turn().await;
    world.says("family", "Olga", "/stop").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I had not begun yet."));
    turn.answer("Found one.");
    assert_eq!(world.hears_in("main").await, "Kai: Found one.");
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_a_restart_is_done_after_it_by_itself() {
    let (mut world, turn) = asked_for_behind_another_turn().await;
    turn.answer("Found one.");
    assert_eq!(world.hears_in("main").await, "Kai: Found one.");
    drop(world.prompt().await);
    world.kill().await;
    world.start().await;
    makes_summary(&world.prompt().await, Engine::KimiCli);
    assert_eq!(world.hears_in("family").await, DONE);
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn if_there_is_no_engine_for_it_the_chat_is_told_and_it_is_not_tried_again() {
    const FAILED: &str = "Kai: I could not put this conversation into a summary";
    let mut world = World::without_service(Behaviour::Held).await;
    world.docker.next(Behaviour::PanicsAtLaunch);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    assert!(world.hears_in("family").await.starts_with(FAILED));
    world.silence(Duration::from_secs(3600)).await;

    world.limit("family", Some(1_000)).await;
    world.has_used("family", 1_000, 0).await;
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    let said = world.hears_in("family").await;
    assert!(said.starts_with("Kai: I do not put this conversation into a summary, as my tokens"), "{said}");
    world.silence(Duration::from_secs(3600)).await;
    world.limit("family", None).await;
    ana_is_answered(&mut world).await;
    world.stop().await;

    world.forgets_the_key();
    world.start().await;
    world.hears_in("main").await;
    world.says("family", "Olga", "/compact").await;
    assert_eq!(world.hears_in("family").await, NOW);
    assert!(world.hears_in("family").await.starts_with(FAILED));
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}
