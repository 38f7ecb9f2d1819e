//! Tasks that run by themselves: each in a fresh session, beside the chat's own.

use std::time::Duration;

use jiff::tz::TimeZone;
use nanokimi::agent::Engine;
use nanokimi::store::TaskDraft;
use nanokimi::types::TaskRunState;
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

impl World {
    /// Somebody plans a task that runs by itself.
    async fn plans_isolated(&self, schedule: &str, text: &str) -> i64 {
        let draft = TaskDraft {
            text: text.to_owned(),
            schedule: schedule.to_owned(),
            context: "isolated".to_owned(),
            ..TaskDraft::default()
        };
        let task = self.store.add_task(&name("family"), draft, TimeZone::UTC, self.now()).await.unwrap();
        nanokimi::service::signal_changed_tasks(&self.paths().task_signal_socket()).unwrap();
        task.id
    }

    /// Ana asks something, and is answered; returns the prompt.
    async fn ana_asks(&mut self, question: &str, answer: &str) -> String {
        self.says("family", "Ana", &format!("@Kai {question}")).await;
        let prompt = self.prompt().await;
        assert!(prompt.text.contains(question), "{}", prompt.text);
        prompt.answer(answer);
        assert_eq!(self.hears_in("family").await, format!("Kai: {answer}"));
        prompt.text.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_begins_afresh_knows_its_last_answer_and_the_chat_knows_what_was_said() {
    for engine in Engine::ALL {
        runs_by_itself(engine).await;
    }
}

async fn runs_by_itself(engine: Engine) {
    let mut world = World::with(engine, Behaviour::Held).await;
    let task = world.plans_isolated("every 1h", "count the sheep").await;
    world.ana_asks("the code is 1234", "Noted.").await;

    let run = world.prompt().await;
    assert!(run.text.contains(">count the sheep</task>"), "{}", run.text);
    assert!(!run.text.contains("1234") && !run.text.contains("<last-answer"), "{}", run.text);
    run.answer("Seven sheep.");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to), ("Kai: Seven sheep.", None));
    assert_eq!(world.store.task_history(task).await.unwrap()[0].state, TaskRunState::Answered);
    world.silence(MINUTE).await;
    assert_eq!(world.docker.running(), 0, "nobody is answered in the session of a run");

    let run = world.prompt().await;
    let told = r#"<last-answer time="Nov 21, 2026, 1:00 PM">Kai: Seven sheep.</last-answer>"#;
    assert!(run.text.contains(told) && !run.text.contains("<earlier>"), "{}", run.text);
    run.answer("Eight sheep.");
    world.hears_in("family").await;

    // A run with nothing to say leaves the answer before it.
    world.prompt().await.answer("<internal>Still eight.</internal>");
    world.silence(MINUTE).await;
    let asked = world.ana_asks("how many sheep?", "Eight.").await;
    let earlier = asked.split("</earlier>").next().unwrap();
    assert!(earlier.contains(">Kai: Seven sheep.</yours>"), "{asked}");
    assert!(earlier.contains(">Kai: Eight sheep.</yours>"), "{asked}");
    assert_eq!(earlier.matches("<task id=").count(), 2, "{asked}");
    assert!(!earlier.contains("1234"), "its own session knows it: {asked}");
    let asked = world.ana_asks("are you sure?", "Yes.").await;
    assert!(!asked.contains("<earlier>"), "told once: {asked}");
    let run = world.prompt().await;
    assert!(run.text.contains("Kai: Eight sheep.</last-answer>"), "{}", run.text);
    run.answer("Nine sheep.");
    world.hears_in("family").await;

    let mut sessions = world.docker.sessions();
    assert_eq!(sessions.len(), 6);
    sessions.dedup();
    assert_eq!(sessions, ["main", "task-run-1", "task-run-2", "task-run-3", "main", "task-run-4"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_writes_meanwhile_is_answered_in_the_chats_own_session() {
    let mut world = World::new(Behaviour::Held).await;
    world.plans_isolated("in 1h", "count the sheep").await;
    let run = world.prompt().await;
    run.step();
    world.says("family", "Ana", "@Kai what do you do?").await;
    world.silence(MINUTE / 4).await;
    run.says("Seven sheep.");
    run.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Seven sheep.");
    drop(run);
    let turn = world.prompt().await;
    assert!(turn.text.contains("what do you do?"), "{}", turn.text);
    assert!(turn.text.contains(">Kai: Seven sheep.</yours>"), "{}", turn.text);
    turn.answer("I counted sheep.");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to.as_deref()), ("Kai: I counted sheep.", Some("m1")));
    assert_eq!(world.docker.sessions(), ["task-run-1", "main"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_comes_due_in_a_turn_waits_for_its_end_and_is_no_steer() {
    let mut world = World::new(Behaviour::Held).await;
    world.plans_isolated("in 1h", "count the sheep").await;
    world.until("2026-11-21T12:59:50Z").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.silence(MINUTE / 4).await;
    // It came after the run, but her turn goes on.
    world.says("family", "Ana", "@Kai with a pool").await;
    assert!(turn.request("steer").await.contains("with a pool"));
    turn.takes_steer("with a pool");
    turn.says("Found one.");
    turn.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    drop(turn);
    let run = world.prompt().await;
    assert!(run.text.contains("count the sheep") && !run.text.contains("hotel"), "{}", run.text);
    run.answer("Seven sheep.");
    assert_eq!(world.hears_in("family").await, "Kai: Seven sheep.");
    assert_eq!(world.docker.sessions(), ["main", "task-run-1"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn each_of_two_runs_that_are_due_at_once_has_a_session_of_its_own_and_no_history_is_left() {
    let mut world = World::new(Behaviour::Held).await;
    world.plans_isolated("in 1h", "count the sheep").await;
    world.plans_isolated("in 1h", "count the goats").await;
    let isolated = world.paths().isolated_sessions_folder(&name("family"));
    for animals in ["sheep", "goats"] {
        let run = world.prompt().await;
        assert!(run.text.contains(animals), "{}", run.text);
        assert_eq!(std::fs::read_dir(&isolated).unwrap().count(), 0, "the history of the last run is gone");
        std::fs::write(isolated.join("history"), animals).unwrap();
        run.answer("Seven.");
        world.hears_in("family").await;
    }
    world.ana_asks("hello", "Hello.").await;
    assert!(!isolated.exists());
    assert_eq!(world.docker.sessions(), ["task-run-1", "task-run-2", "main"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_is_tried_again_in_a_fresh_session_and_the_chats_memory_is_not_doubted() {
    let mut world = World::new(Behaviour::Held).await;
    world.docker.next(Behaviour::DiesInTurn);
    world.docker.next(Behaviour::DiesInTurn);
    world.docker.next(Behaviour::DiesInTurn);
    let task = world.plans_isolated("in 1h", "count the sheep").await;
    assert!(world.hears_in("family").await.contains("I tried 3 times"));
    assert_eq!(world.store.task_history(task).await.unwrap()[0].state, TaskRunState::Failed);
    assert_eq!(world.docker.sessions(), ["task-run-1"; 3]);
    let sessions = world.paths().sessions_folder(&name("family"));
    std::fs::write(sessions.join("history"), "of the chat").unwrap();
    world.passes(HOUR).await;
    world.ana_asks("hello", "Hello.").await;
    assert!(sessions.join("history").exists());
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_the_owner_began_anew_is_not_told() {
    let mut world = crate::commands::world_of("Olga").await;
    world.plans_isolated("in 1h", "count the sheep").await;
    world.prompt().await.answer("Seven sheep.");
    world.hears_in("family").await;
    world.says("family", "Olga", "/new").await;
    world.hears_in("family").await;
    let asked = world.ana_asks("hello", "Hello.").await;
    assert!(!asked.contains("sheep"), "{asked}");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_stops_a_run_within_a_second() {
    let mut world = crate::commands::world_of("Olga").await;
    let task = world.plans_isolated("every 1h", "count the sheep").await;
    let run = world.prompt().await;
    run.step();
    world.says("family", "Olga", "/stop").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I have stopped"));
    world.passes(Duration::from_secs(2)).await;
    assert_eq!(world.docker.running(), 0);
    assert_eq!(world.store.task_history(task).await.unwrap()[0].state, TaskRunState::Skipped);
    world.ends().await;
}
