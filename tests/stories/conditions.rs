//! Tasks with a command that says whether there is something to do.

use std::time::Duration;

use jiff::tz::TimeZone;
use nanokimi::rules::tasks::CommandEnd;
use nanokimi::store::TaskDraft;
use nanokimi::types::{PauseReason, RunReason, TaskRunState, TaskState};
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Somebody plans a task with a command.
    async fn plans_if(&self, schedule: &str, context: &str) -> i64 {
        let draft = TaskDraft {
            text: "read the news".to_owned(),
            schedule: schedule.to_owned(),
            context: context.to_owned(),
            only_if: "test -s news && cat news".to_owned(),
            ..TaskDraft::default()
        };
        let task = self.store.add_task(&name("family"), draft, TimeZone::UTC, self.now()).await.unwrap();
        nanokimi::service::signal_changed_tasks(&self.paths().task_signal_socket()).unwrap();
        task.id
    }

    /// The end of a task's latest run, and why.
    async fn last_end(&self, task: i64) -> (TaskRunState, Option<RunReason>) {
        let run = self.store.task_history(task).await.unwrap().remove(0);
        (run.state, run.why)
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_begins_if_its_command_says_so_and_reads_what_it_printed() {
    for context in ["group", "isolated"] {
        let mut world = World::new(Behaviour::Held).await;
        let task = world.plans_if("in 1h", context).await;
        world.docker.next_command(CommandEnd::Exit(0), "Rain in <Rome>", SECOND);
        let run = world.prompt().await;
        assert_eq!(world.docker.commands(), ["test -s news && cat news"]);
        let told = "<output>Rain in &lt;Rome&gt;</output>\nread the news</task>";
        assert!(run.text.contains(told), "{context}: {}", run.text);
        run.answer("It rains in Rome.");
        assert_eq!(world.hears_in("family").await, "Kai: It rains in Rome.");
        assert_eq!(world.last_end(task).await, (TaskRunState::Answered, None));
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_says_no_skips_the_run_in_silence_and_the_next_one_asks_again() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans_if("every 1h", "group").await;
    for _ in 0..6 {
        world.docker.next_command(CommandEnd::Exit(1), "nothing", SECOND);
        world.silence(HOUR).await;
        world.passes(SECOND * 2).await;
        assert_eq!(world.last_end(task).await, (TaskRunState::Skipped, Some(RunReason::Condition)));
    }
    let known = world.store.task(task).await.unwrap().unwrap();
    assert_eq!((known.state, known.failures), (TaskState::Active, 0));
    world.docker.next_command(CommandEnd::Exit(0), "", SECOND);
    let run = world.prompt().await;
    assert!(!run.text.contains("<output>"), "{}", run.text);
    run.answer("No news.");
    world.hears_in("family").await;
    assert_eq!(world.store.queue_counts().await.unwrap().claimed, 0);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_people_have_written_is_told_with_the_run_and_waits_for_the_command_a_minute_at_most() {
    let mut world = World::new(Behaviour::Held).await;
    world.plans_if("in 1h", "group").await;
    world.docker.next_command(CommandEnd::Exit(0), "Rain", SECOND * 30);
    world.says("family", "Bob", "I am at the station").await;
    world.until("2026-11-21T13:00:10Z").await;
    world.says("family", "Ana", "@Kai when does he come?").await;
    let turn = world.prompt().await;
    assert_eq!(world.now().to_string()[..19], *"2026-11-21T13:00:30");
    let places =
        ["at the station", "read the news</task>", "when does he come?"].map(|told| turn.text.find(told));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", turn.text);
    turn.answer("At nine.");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to.as_deref()), ("Kai: At nine.", Some("m2")));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_is_answered_after_a_command_that_says_no() {
    let mut world = World::new(Behaviour::Held).await;
    world.plans_if("in 1h", "group").await;
    world.docker.next_command(CommandEnd::Exit(1), "", SECOND * 30);
    world.until("2026-11-21T13:00:10Z").await;
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("<task"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_run_or_takes_too_long_is_a_failure_of_its_task() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans_if("every 1h", "isolated").await;
    for (end, why, says) in [
        (CommandEnd::TooLong, RunReason::ConditionTooLong, "did not end within 60 seconds"),
        (CommandEnd::Exit(127), RunReason::ConditionFailed, "could not be run"),
        (CommandEnd::Exit(126), RunReason::ConditionFailed, "could not be run"),
        (CommandEnd::Unknown, RunReason::ConditionFailed, "could not be run"),
        (CommandEnd::TooLong, RunReason::ConditionTooLong, "did not end within 60 seconds"),
    ] {
        world.docker.next_command(end, "", MINUTE);
        let said = world.hears_in("family").await;
        assert!(said.contains(says), "{said}");
        assert_eq!(world.last_end(task).await, (TaskRunState::Failed, Some(why)));
    }
    assert!(world.hears_in("family").await.contains("has failed 5 times in a row"));
    let known = world.store.task(task).await.unwrap().unwrap();
    assert_eq!(known.state, TaskState::Paused(PauseReason::Failures));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn if_docker_does_not_answer_the_run_waits_for_it_and_is_no_failure() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans_if("in 1h", "group").await;
    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    world.hears_in("family").await;
    world.until("2026-11-21T12:59:55Z").await;
    world.docker.stops_answering();
    assert!(world.hears_in("family").await.contains("Docker"));
    assert!(world.hears_in("main").await.contains("Docker"));
    assert_eq!(world.last_end(task).await.0, TaskRunState::Due);
    world.docker.next_command(CommandEnd::Exit(0), "Rain", SECOND);
    world.docker.comes_back();
    let run = world.prompt().await;
    assert!(run.text.contains("<output>Rain</output>"), "{}", run.text);
    run.answer("It rains.");
    world.hears_until(|said| said == "Kai: It rains.").await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_stops_a_command_with_its_container_and_a_stopped_service_begins_anew() {
    let mut world = crate::commands::world_of("Olga").await;
    let task = world.plans_if("every 1h", "group").await;
    world.docker.next_command(CommandEnd::Exit(0), "Rain", MINUTE);
    world.until("2026-11-21T13:00:10Z").await;
    assert_eq!(world.docker.commands().len(), 1);
    world.says("family", "Olga", "/stop").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I have stopped"));
    world.passes(SECOND).await;
    assert_eq!(world.docker.running(), 0);
    assert_eq!(world.last_end(task).await, (TaskRunState::Skipped, Some(RunReason::Stopped)));

    world.docker.next_command(CommandEnd::Exit(0), "Rain", MINUTE);
    world.until("2026-11-21T14:00:10Z").await;
    assert_eq!(world.docker.commands().len(), 2);
    world.stop().await;
    assert_eq!(world.last_end(task).await.0, TaskRunState::Due);
    world.docker.next_command(CommandEnd::Exit(0), "Sun", SECOND);
    world.start().await;
    let run = world.prompt().await;
    assert!(run.text.contains("<output>Sun</output>"), "{}", run.text);
    run.answer("The sun shines.");
    world.hears_in("family").await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_cancelled_while_its_command_runs_is_not_done() {
    for context in ["group", "isolated"] {
        let mut world = World::new(Behaviour::Held).await;
        let task = world.plans_if("in 1h", context).await;
        world.docker.next_command(CommandEnd::Exit(0), "Rain", SECOND * 30);
        world.until("2026-11-21T13:00:10Z").await;
        assert_eq!(world.docker.commands().len(), 1);
        world.store.cancel_task(task).await.unwrap();
        world.silence(HOUR).await;
        assert_eq!(world.store.queue_counts().await.unwrap().claimed, 0);
        world.says("family", "Ana", "@Kai hello").await;
        let turn = world.prompt().await;
        assert!(!turn.text.contains("read the news"), "{}", turn.text);
        turn.answer("Hello.");
        assert_eq!(world.hears_in("family").await, "Kai: Hello.");
        world.ends().await;
    }
}
