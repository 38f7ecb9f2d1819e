//! The second engine, which has another protocol, and the change from one engine to the other.

use std::time::Duration;

use nanokimi::agent::Engine;
use nanokimi::types::Role;
use serde_json::json;
use support::scripted_engine::Behaviour;
use support::test_service;

use crate::world::World;

async fn with_kimi_code(usual: Behaviour) -> World {
    World::with(Engine::KimiCode, usual).await
}

#[tokio::test(start_paused = true)]
async fn it_answers_and_its_steps_are_paragraphs() {
    let mut world = with_kimi_code(Behaviour::Held).await;
    world.says("main", "Owner", "what is the answer?").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("what is the answer?"), "{}", turn.text);
    turn.says("Let me ");
    turn.says("look.");
    turn.updates(json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "Bash"}));
    turn.says("It is 42.");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: Let me look.\n\nIt is 42.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_a_turn_is_the_next_one_if_the_engine_cannot_take_it() {
    let mut world = with_kimi_code(Behaviour::Held).await;
    world.says("main", "Owner", "first").await;
    let turn = world.prompt().await;
    turn.says("one");
    world.says("main", "Owner", "second").await;
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: one");
    let next = world.prompt().await;
    assert!(next.text.contains("second") && !next.text.contains("first"), "{}", next.text);
    next.answer("two");
    assert_eq!(world.hears_in("main").await, "Kai: two");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_ends_without_a_word_has_failed() {
    let mut world = with_kimi_code(Behaviour::Held).await;
    world.says("main", "Owner", "hello?").await;
    for _ in 0..3 {
        world.prompt().await.finish();
    }
    let notice = world.hears_in("main").await;
    assert!(
        notice.starts_with("Kai: I tried 3 times and could not answer. Kimi gave me an empty answer."),
        "{notice}"
    );
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_takes_too_long_is_cancelled() {
    let mut world = with_kimi_code(Behaviour::Held).await;
    world.says("main", "Owner", "count to infinity").await;
    let turn = world.prompt().await;
    for _ in 0..3 {
        assert!(world.hears_in("main").await.starts_with("Kai: "), "a line of progress");
    }
    turn.request("session/cancel").await;
    turn.status(json!({"stopReason": "cancelled"}));
    let notice = world.hears_in("main").await;
    assert!(notice.starts_with("Kai: I could not answer. It took longer than I may work on"), "{notice}");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_down_is_told_and_replaced() {
    for (behaviour, notice) in [
        (Behaviour::DiesInTurn, "I broke down in the middle"),
        (Behaviour::Garbage, "The program that thinks for me said something"),
        (Behaviour::Says("npm ERR! code ENOENT"), "I was started on the server, but never got ready."),
        (Behaviour::Mute, "I was started on the server, but never got ready."),
    ] {
        let mut world = with_kimi_code(Behaviour::Echo).await;
        (0..3).for_each(|_| world.docker.next(behaviour.clone()));
        world.says("main", "Owner", "hello").await;
        let told = world.hears_in("main").await;
        let told = told.strip_prefix("Kai: I tried 3 times and could not answer. ").unwrap_or(&told);
        assert!(told.starts_with(notice), "{behaviour:?}: {told}");
        world.says("main", "Owner", "and now?").await;
        assert_eq!(world.hears_in("main").await, "Kai: echo: and now?", "{behaviour:?}");
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_changes_its_engine_takes_the_conversation_along_and_back() {
    let mut world = World::new(Behaviour::Held).await;
    let choose = async |world: &World, engine: Option<Engine>| {
        let mut group = test_service::group("family", Role::Member);
        group.engine = engine.map(Into::into);
        world.store.update_group(&group).await.unwrap();
    };
    world.says("family", "Alice", "@Kai the boat is called <Nube>").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("<earlier>"), "{}", turn.text);
    turn.answer("A fine name.");
    assert_eq!(world.hears_in("family").await, "Kai: A fine name.");

    choose(&world, Some(Engine::KimiCode)).await;
    world.says("family", "Bob", "@Kai what is it called?").await;
    let turn = world.prompt().await;
    let earlier = turn.text.split("</earlier>").next().unwrap();
    assert!(earlier.contains("sender=\"Alice\"") && earlier.contains("&lt;Nube&gt;"), "{}", turn.text);
    assert!(
        earlier.contains("<yours id=") && earlier.contains(">Kai: A fine name.</yours>"),
        "{}",
        turn.text
    );
    assert!(!earlier.contains("what is it called?"), "{}", turn.text);
    turn.answer("Nube.");
    assert_eq!(world.hears_in("family").await, "Kai: Nube.");

    world.says("family", "Bob", "@Kai thanks").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("<earlier>"), "told once: {}", turn.text);
    turn.answer("Always.");
    assert_eq!(world.hears_in("family").await, "Kai: Always.");

    choose(&world, None).await;
    world.says("family", "Alice", "@Kai and the dog?").await;
    let turn = world.prompt().await;
    let earlier = turn.text.split("</earlier>").next().unwrap();
    assert!(earlier.contains("what is it called?") && earlier.contains("Always."), "{}", turn.text);
    assert!(!earlier.contains("A fine name."), "it was there then: {}", turn.text);
    turn.answer("Who?");
    assert_eq!(world.hears_in("family").await, "Kai: Who?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_of_a_long_conversation_are_taken_along() {
    let mut world = World::new(Behaviour::EchoAll).await;
    for number in 0..40 {
        world.says("family", "Alice", &format!("@Kai number {number}")).await;
        world.hears_in("family").await;
        world.passes(Duration::from_secs(60)).await;
    }
    let mut group = test_service::group("family", Role::Member);
    group.engine = Some(Engine::KimiCode.into());
    world.store.update_group(&group).await.unwrap();
    world.says("family", "Alice", "@Kai the last").await;
    let echo = world.hears_in("family").await;
    assert!(!echo.contains("number 14") && echo.contains("number 16"), "{echo}");
    assert!(echo.ends_with("the last"), "{echo}");
    world.ends().await;
}
