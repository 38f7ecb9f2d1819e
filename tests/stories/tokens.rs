//! An owner has limited the tokens of a day.

use std::time::Duration;

use jiff::tz::TimeZone;
use nanokimi::store::TaskDraft;
use nanokimi::types::{PauseReason, TaskState};
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

/// The beginning of the text for a chat that has used up its tokens.
const USED_UP: &str = "Kai: I have used up the 1000 tokens that I may use in this chat in a day.";

/// A family that may use a thousand tokens a day, with a running agent that answers everything it reads.
async fn family_with_a_limit() -> World {
    let mut world = World::new(Behaviour::EchoAll).await;
    world.limit("family", Some(1_000)).await;
    world.says("family", "Alice", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    world
}

#[tokio::test(start_paused = true)]
async fn who_calls_at_the_limit_is_told_and_is_answered_the_next_day() {
    let mut world = family_with_a_limit().await;
    world.has_used("family", 900, 99).await;
    world.says("family", "Alice", "@Kai one more?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai one more?");

    world.has_used("family", 0, 1).await;
    world.says("family", "Alice", "@Kai and now?").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: I have used up the 1000 tokens that I may use in this chat in a day. I answer again from 00:00 UTC on; what is written until then I keep, but I do not answer it by myself, so ask me again after that. The owner can allow me more with `nanokimi groups set family --daily-tokens NUMBER`.");

    // Nothing is said by itself when the next day begins: nobody may need an answer to yesterday's questions.
    world.until("2026-11-22T00:00:00Z").await;
    world.silence(Duration::from_secs(8 * 60 * 60)).await;
    world.says("family", "Bob", "@Kai good morning").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai and now? @Kai good morning");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_calls_again_and_again_is_told_every_ten_minutes() {
    let mut world = family_with_a_limit().await;
    world.has_used("family", 1_000, 0).await;
    for call in ["@Kai please", "@Kai pretty please", "@Kai hello?"] {
        world.says("family", "Alice", call).await;
        world.passes(Duration::from_secs(60)).await;
    }
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    world.silence(Duration::from_secs(7 * 60)).await;
    world.says("family", "Bob", "@Kai are you ill?").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    // A conversation among people gets no answer, whatever the limit is.
    world.says("family", "Alice", "it only rests").await;
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn on_a_new_day_the_chat_is_told_anew_at_once() {
    let mut world = World::without_service_at(Behaviour::EchoAll, "2026-11-21T23:55:00Z").await;
    world.limit("family", Some(1_000)).await;
    world.start().await;
    world.has_used("family", 1_000, 0).await;
    world.says("family", "Alice", "@Kai tonight?").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    world.until("2026-11-22T00:01:00Z").await;
    world.has_used("family", 5_000, 0).await;
    world.says("family", "Alice", "@Kai today?").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_day_ends_at_midnight_where_the_owner_is_also_when_it_has_25_hours() {
    // Half an hour into the day on which Madrid sets its clocks back.
    let mut world = World::without_service_at(Behaviour::Echo, "2026-10-24T22:30:00Z").await;
    world.settings(|settings| settings.zone = TimeZone::get("Europe/Madrid").unwrap());
    world.limit("family", Some(1_000)).await;
    world.start().await;
    world.has_used("family", 1_000, 0).await;
    world.says("family", "Alice", "@Kai hello").await;
    let notice = world.hears_in("family").await;
    assert!(notice.contains("I answer again from 00:00 CET on"), "{notice}");

    // A day of 24 hours would already be over.
    world.until("2026-10-25T22:55:00Z").await;
    world.says("family", "Alice", "@Kai is it tomorrow?").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    world.until("2026-10-25T23:00:00Z").await;
    world.says("family", "Alice", "@Kai and now?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai and now?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn another_limit_counts_at_once() {
    let mut world = family_with_a_limit().await;
    world.has_used("family", 1_000, 0).await;
    world.says("family", "Alice", "@Kai please").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));

    world.limit("family", Some(1_001)).await;
    world.says("family", "Alice", "@Kai now?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai please @Kai now?");
    // It is another limit: a chat that reaches it is told, even soon after the last time.
    world.has_used("family", 1, 0).await;
    world.says("family", "Alice", "@Kai more?").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I have used up the 1001 tokens"));

    world.limit("family", None).await;
    world.says("family", "Alice", "@Kai at last?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai more? @Kai at last?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn no_container_is_launched_to_say_no_to_the_owner_neither() {
    let mut world = World::new(Behaviour::EchoAll).await;
    world.limit("main", Some(0)).await;
    world.says("main", "Owner", "hello").await;
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: I do not answer here, as my limit for this chat is 0 tokens a day. The owner can change that with `nanokimi groups set main --daily-tokens NUMBER`.");
    assert_eq!(world.docker.tries(), 0);
    // It does not concern other groups.
    world.says("family", "Alice", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_runs_is_finished_with_all_that_is_told_to_it() {
    let mut world = World::new(Behaviour::Held).await;
    world.limit("family", Some(1_000)).await;
    world.says("family", "Alice", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.limit("family", Some(0)).await;
    world.says("family", "Alice", "@Kai near the sea").await;
    turn.takes_steer(&turn.request("steer").await);
    turn.says("Found one.");
    turn.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    world.says("family", "Alice", "@Kai thank you").await;
    assert!(world.hears_in("family").await.contains("0 tokens a day"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_neither_doubles_the_sentence_nor_loses_a_message() {
    let mut world = family_with_a_limit().await;
    world.has_used("family", 1_000, 0).await;
    world.says("family", "Alice", "@Kai one").await;
    assert!(world.hears_in("family").await.starts_with(USED_UP));
    world.kill().await;
    world.start().await;
    world.silence(Duration::from_secs(60)).await;
    world.says("family", "Alice", "@Kai two").await;
    world.kill().await;
    world.start().await;
    world.silence(Duration::from_secs(60 * 60)).await;
    world.until("2026-11-22T00:00:00Z").await;
    world.says("family", "Alice", "@Kai three").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai one @Kai two @Kai three");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_uses_more_tokens_than_it_may_ends_with_what_it_has_and_a_sentence() {
    let mut world = World::new(Behaviour::Held).await;
    world.choose("family", |group| group.turn_tokens = Some(1_000)).await;
    world.says("family", "Alice", "@Kai compare all hotels").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("The first one is cheap.");
    world.uses_tokens(&turn, 600, 300).await;
    world.uses_tokens(&turn, 50, 50).await;
    // The model is not asked again, whatever the engine does.
    turn.request("cancel").await;
    let refused = world.asks_in_vain(&turn).await;
    assert!(refused.contains("all the tokens that the owner allows one turn"), "{refused}");
    turn.status(serde_json::json!({"status": "cancelled"}));
    assert_eq!(world.hears_in("family").await, "Kai: The first one is cheap.");
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: I stopped here: this takes more than the 1000 tokens that I may use for one message in this chat. Please ask me for less at once. The owner can allow me more with `nanokimi groups set family --turn-tokens NUMBER`.");
    world.silence(Duration::from_secs(60 * 60)).await;

    // The next turn has tokens of its own.
    world.says("family", "Alice", "@Kai only the first").await;
    let turn = world.prompt().await;
    world.uses_tokens(&turn, 900, 99).await;
    turn.answer("Cheap, as I said.");
    assert_eq!(world.hears_in("family").await, "Kai: Cheap, as I said.");
    world.ends().await;
}

/// A task of the family whose runs may use a thousand tokens.
async fn world_with_a_limited_task() -> (World, i64) {
    let world = World::new(Behaviour::Held).await;
    let draft = TaskDraft {
        text: "compare all hotels".to_owned(),
        schedule: "every 1h".to_owned(),
        max_tokens: Some(1_000),
        ..TaskDraft::default()
    };
    let task = world.store.add_task(&name("family"), draft, TimeZone::UTC, world.now()).await.unwrap();
    nanokimi::service::signal_changed_tasks(&world.paths().task_signal_socket()).unwrap();
    (world, task.id)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_uses_more_tokens_than_it_may_is_ended_and_its_task_paused() {
    let (mut world, task) = world_with_a_limited_task().await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("The first one is cheap.");
    world.uses_tokens(&turn, 900, 100).await;
    turn.step();
    world.uses_tokens(&turn, 1, 0).await;
    turn.request("cancel").await;
    let refused = world.asks_in_vain(&turn).await;
    assert!(refused.contains("all the tokens that the owner allows one turn"), "{refused}");
    turn.status(serde_json::json!({"status": "cancelled"}));
    assert_eq!(world.hears_in("family").await, "Kai: The first one is cheap.");
    let notice = world.hears_in("family").await;
    assert!(notice.starts_with("Kai: Task 1 (“compare all hotels”) used more tokens than"), "{notice}");
    let known = world.store.task(task).await.unwrap().unwrap();
    assert_eq!(known.state, TaskState::Paused(PauseReason::Tokens));
    assert_eq!(known.last_run.unwrap().tokens, 1_001);
    world.silence(Duration::from_secs(3 * 60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_who_calls_in_the_turn_of_a_task_has_the_tokens_of_the_group() {
    let (mut world, task) = world_with_a_limited_task().await;
    let turn = world.prompt().await;
    turn.step();
    world.uses_tokens(&turn, 900, 99).await;
    world.says("family", "Alice", "@Kai and the second?").await;
    turn.takes_steer(&turn.request("steer").await);
    world.uses_tokens(&turn, 5_000, 300).await;
    turn.says("Dear.");
    turn.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Dear.");
    assert_eq!(world.store.task(task).await.unwrap().unwrap().state, TaskState::Active);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_stop_at_its_limit_is_ended_and_the_chat_is_told_the_same() {
    let mut world = World::new(Behaviour::Held).await;
    world.choose("family", |group| group.turn_tokens = Some(1_000)).await;
    world.says("family", "Alice", "@Kai compare all hotels").await;
    let turn = world.prompt().await;
    turn.step();
    world.uses_tokens(&turn, 5_000, 300).await;
    turn.request("cancel").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I stopped here: this takes more than the 1000"));
    // It is no failure that is tried again.
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_whole_when_the_limit_is_reached_needs_no_sentence() {
    let mut world = World::new(Behaviour::Held).await;
    world.choose("family", |group| group.turn_tokens = Some(1_000)).await;
    world.says("family", "Alice", "@Kai hello").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("Hello.");
    world.uses_tokens(&turn, 5_000, 300).await;
    turn.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_tokens_of_a_limited_run_are_its_own() {
    let (mut world, task) = world_with_a_limited_task().await;
    let other = TaskDraft {
        text: "count the sheep".to_owned(),
        schedule: "every 1h".to_owned(),
        ..TaskDraft::default()
    };
    let other = world.store.add_task(&name("family"), other, TimeZone::UTC, world.now()).await.unwrap().id;
    nanokimi::service::signal_changed_tasks(&world.paths().task_signal_socket()).unwrap();
    let first = world.prompt().await;
    assert!(first.text.contains("hotels") && !first.text.contains("sheep"), "{}", first.text);
    world.uses_tokens(&first, 500, 100).await;
    first.answer("All are dear.");
    assert_eq!(world.hears_in("family").await, "Kai: All are dear.");
    let second = world.prompt().await;
    assert!(second.text.contains("sheep") && !second.text.contains("hotels"), "{}", second.text);
    world.uses_tokens(&second, 5_000, 100).await;
    second.answer("Seven.");
    assert_eq!(world.hears_in("family").await, "Kai: Seven.");
    for (task, tokens) in [(task, 600), (other, 5_100)] {
        let known = world.store.task(task).await.unwrap().unwrap();
        assert_eq!((known.state, known.last_run.unwrap().tokens), (TaskState::Active, tokens));
    }
    world.ends().await;
}
