//! The owner begins a fresh conversation in a chat, and returns to earlier ones.

use std::time::Duration;

use nanokimi::agent::Engine;
use nanokimi::types::Group;
use support::test_service::name;

use crate::commands::{linked, world_of};
use crate::world::World;
use support::scripted_engine::Behaviour;

/// Ana asks something, and is answered.
async fn is_asked(world: &mut World) {
    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
}

#[tokio::test(start_paused = true)]
async fn the_next_prompt_is_in_a_fresh_session_and_the_old_one_is_kept() {
    for engine in Engine::ALL {
        begins_anew_and_returns(engine).await;
    }
}

async fn begins_anew_and_returns(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
    world.tells(vec![linked("Olga")]).await;
    is_asked(&mut world).await;
    world.says("family", "Olga", "/new").await;
    assert!(world.hears_in("family").await.contains("kept as “main”"));
    is_asked(&mut world).await;
    is_asked(&mut world).await;
    world.says("family", "Olga", "/back").await;
    assert!(world.hears_in("family").await.contains("“main”. The one that you leave is kept as “chat-2”"));
    is_asked(&mut world).await;
    world.says("family", "Olga", "/nuevo Trip to Rome").await;
    assert!(world.hears_in("family").await.contains("called “Trip to Rome”"));
    is_asked(&mut world).await;
    world.says("family", "Olga", "/new CHAT-2").await;
    assert!(world.hears_in("family").await.contains("back in the conversation “chat-2”"));
    is_asked(&mut world).await;
    world.says("family", "Olga", "/back").await;
    assert!(world.hears_in("family").await.contains("back in the conversation “Trip to Rome”"));
    // It outlives the service.
    world.stop().await;
    world.start().await;
    is_asked(&mut world).await;
    assert_eq!(world.docker.sessions(), ["main", "chat-2", "main", "chat-3", "chat-2", "chat-3"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_goes_on_in_the_old_session_and_is_told_nothing_more() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("family", "Olga", "/new").await;
    let said = world.hears_in("family").await;
    assert!(said.ends_with("What I am working on I finish in the old one."), "{said}");
    world.says("family", "Ana", "@Kai and something else").await;
    world.silence(Duration::from_secs(2)).await;
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    drop(turn);
    let turn = world.prompt().await;
    assert!(turn.text.contains("something else") && !turn.text.contains("hotel"), "{}", turn.text);
    turn.answer("Yes?");
    assert_eq!(world.hears_in("family").await, "Kai: Yes?");
    assert_eq!(world.docker.sessions(), ["main", "chat-2"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_in_the_old_session_is_not_told_to_another_engine_in_the_new_one() {
    let mut world = World::with(Engine::KimiCli, Behaviour::Held).await;
    world.tells(vec![linked("Olga")]).await;
    world.says("family", "Ana", "@Kai the code is 1234").await;
    world.prompt().await.answer("Noted.");
    world.hears_in("family").await;
    world.says("family", "Olga", "/new").await;
    world.hears_in("family").await;
    let family = world.store.group_by_name(&name("family")).await.unwrap().unwrap();
    world.store.update_group(&Group { engine: Some(Engine::KimiCode.into()), ..family }).await.unwrap();
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("1234"), "{}", turn.text);
    turn.answer("Hello.");
    world.hears_in("family").await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_begins_anew() {
    let mut world = world_of("Olga").await;
    is_asked(&mut world).await;
    world.says("family", "Ana", "/new").await;
    is_asked(&mut world).await;
    assert_eq!(world.docker.sessions(), ["main"]);
    world.ends().await;
}
