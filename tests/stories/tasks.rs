//! Tasks: what Kai does on time, over restarts, changes of clocks, downtime and failures.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use nanokimi::service::signal_changed_tasks;
use nanokimi::store::{TaskDraft, TaskEdit};
use nanokimi::types::{PauseReason, Role, RunReason, TaskRunState, TaskState};
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

impl World {
    /// Somebody plans a task in another process.
    async fn plans(&self, group: &str, schedule: &str, text: &str) -> i64 {
        self.plans_with(group, schedule, text, "").await
    }

    async fn plans_with(&self, group: &str, schedule: &str, text: &str, late: &str) -> i64 {
        let madrid = TimeZone::get("Europe/Madrid").unwrap();
        let draft = TaskDraft {
            text: text.to_owned(),
            schedule: schedule.to_owned(),
            late: late.to_owned(),
            ..TaskDraft::default()
        };
        let task = self.store.add_task(&name(group), draft, madrid, self.now()).await.unwrap();
        self.changed_tasks();
        task.id
    }

    fn changed_tasks(&self) {
        // If no service runs, the next one looks at its start.
        signal_changed_tasks(&self.paths().task_signal_socket()).ok();
    }

    /// The states of a task's runs, the newest first.
    async fn runs(&self, task: i64) -> Vec<TaskRunState> {
        self.store.task_history(task).await.unwrap().into_iter().map(|run| run.state).collect()
    }

    async fn state(&self, task: i64) -> TaskState {
        self.store.task(task).await.unwrap().unwrap().state
    }

    /// The next task that an engine is told, and when.
    async fn task_done(&mut self, answer: &str) -> String {
        let prompt = self.prompt().await;
        let at = self.now().strftime("%Y-%m-%d %H:%M").to_string();
        prompt.answer(answer);
        assert_eq!(self.hears_in("family").await, format!("Kai: {answer}"));
        at
    }
}

#[tokio::test(start_paused = true)]
async fn a_reminder_comes_on_time_over_a_restart_and_quotes_nobody() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "in 1h", "remind Ana of the <milk>").await;
    world.passes(HOUR / 2).await;
    world.stop().await;
    world.start().await;
    world.until("2026-11-21T12:59:55Z").await;
    assert_eq!(world.docker.running(), 1, "its agent was started ahead");
    assert_eq!(world.runs(task).await, []);
    let prompt = world.prompt().await;
    assert_eq!(world.now().to_string()[..19], *"2026-11-21T13:00:00");
    let told = r#"<task id="1" time="Nov 21, 2026, 1:00 PM">remind Ana of the &lt;milk&gt;</task>"#;
    assert!(prompt.text.contains(told), "{}", prompt.text);
    assert_eq!(world.runs(task).await, [TaskRunState::Running]);
    prompt.answer("Ana, the milk!");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to), ("Kai: Ana, the milk!", None));
    world.silence(HOUR).await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    assert_eq!(world.state(task).await, TaskState::Done);
    assert_eq!(world.chats.read(), [], "nobody wrote it");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_that_clocks_skip_comes_once_after_the_gap() {
    let mut world = World::without_service_at(Behaviour::Held, "2026-03-28T20:00:00Z").await;
    world.start().await;
    let task = world.plans("family", "cron 30 2 * * *", "water the plants").await;
    assert_eq!(world.task_done("done").await, "2026-03-29 01:00");
    assert_eq!(world.task_done("done").await, "2026-03-30 00:30");
    assert_eq!(world.runs(task).await.len(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_that_comes_twice_is_the_first_of_the_two() {
    let mut world = World::without_service_at(Behaviour::Held, "2026-10-24T20:00:00Z").await;
    world.start().await;
    let task = world.plans("family", "cron 30 2 * * *", "water the plants").await;
    assert_eq!(world.task_done("done").await, "2026-10-25 00:30");
    // The second 02:30 passes.
    world.silence(HOUR * 2).await;
    assert_eq!(world.task_done("done").await, "2026-10-26 01:30");
    assert_eq!(world.runs(task).await.len(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_engine_dies_late_is_tried_again_whatever_its_rule_for_being_late() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans_with("family", "in 1m", "water the plants", "skip").await;
    let prompt = world.prompt().await;
    world.passes(MINUTE * 10).await;
    prompt.breaks_down();
    world.prompt().await.answer("Watered.");
    world.hears_until(|text| text == "Kai: Watered.").await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn after_three_days_of_downtime_each_task_follows_its_own_rule() {
    let mut world = World::new(Behaviour::Held).await;
    let mut tasks = Vec::new();
    for late in ["skip", "once", "within 1h", "within 2h"] {
        tasks.push(world.plans_with("family", "cron 0 9 * * *", &format!("task {late}"), late).await);
    }
    world.stop().await;
    world.until("2026-11-24T10:00:00Z").await;
    world.start().await;
    let prompt = world.prompt().await;
    let told = |text: &str| {
        prompt.text.contains(&format!("late=\"2 h\" time=\"Nov 24, 2026, 8:00 AM\">task {text}</task>"))
    };
    let all = ["skip", "once", "within 1h", "within 2h"].map(told);
    assert_eq!(all, [false, true, false, true], "{}", prompt.text);
    prompt.answer("both done");
    assert_eq!(world.hears_in("family").await, "Kai: both done");
    for (task, state) in tasks.iter().zip([
        TaskRunState::Skipped,
        TaskRunState::Answered,
        TaskRunState::Skipped,
        TaskRunState::Answered,
    ]) {
        assert_eq!(world.runs(*task).await, [state], "one run for three days");
    }
    let late = world.store.task_history(tasks[1]).await.unwrap().remove(0).late_by;
    assert_eq!(late.as_hours(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_task_is_silent_and_makes_up_for_nothing() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 1h", "look at the oven").await;
    world.store.pause_task(task, world.now()).await.unwrap();
    world.changed_tasks();
    world.silence(HOUR * 5 + MINUTE).await;
    world.store.resume_task(task, world.now()).await.unwrap();
    world.changed_tasks();
    assert_eq!(world.task_done("It is off.").await, "2026-11-21 18:00");
    assert_eq!(world.runs(task).await.len(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_in_a_row_a_task_is_paused_and_its_chat_told_once() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 1h", "look at the oven").await;
    for failures in 1..=5 {
        for _ in 0..3 {
            world.prompt().await.fails(-32603, "no");
        }
        assert!(world.hears_in("family").await.contains("could not answer"));
        let paused = failures == 5;
        assert_eq!(world.state(task).await == TaskState::Paused(PauseReason::Failures), paused, "{failures}");
    }
    let notice = world.hears_in("family").await;
    insta::assert_snapshot!(notice, @"Kai: Task 1 (“look at the oven”) has failed 5 times in a row, so I have paused it. When the cause is mended, `nanokimi tasks resume 1` on the server goes on with it.");
    world.silence(HOUR * 3).await;
    world.store.resume_task(task, world.now()).await.unwrap();
    world.changed_tasks();
    world.task_done("It is off.").await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_is_unknown_told_and_never_repeated() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 12h", "pay the rent").await;
    world.prompt().await.step();
    world.kill().await;
    world.start().await;
    let notice = world.hears_in("family").await;
    insta::assert_snapshot!(notice, @"Kai: I was interrupted during task 1 (“pay the rent”) of Sun 22 Nov 01:00 Europe/Madrid, and cannot say how far it came. I do not repeat it by myself.");
    world.silence(HOUR * 10).await;
    assert_eq!(world.runs(task).await, [TaskRunState::Unknown]);
    assert_eq!(world.task_done("paid").await, "2026-11-22 12:00");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_due_before_a_kill_and_not_begun_runs_once() {
    let mut world = World::without_service(Behaviour::Held).await;
    let task = world.plans("family", "in 1m", "pay the rent").await;
    world.passes(MINUTE).await;
    assert_eq!(world.store.claim_due_tasks(world.now()).await.unwrap().woken, [name("family")]);
    assert_eq!(world.store.claim_due_tasks(world.now()).await.unwrap().woken, []);
    world.start().await;
    world.task_done("paid").await;
    world.silence(HOUR).await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_stays_due() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "in 1h", "pay the rent").await;
    world.prompt().await.step();
    world.stop().await;
    assert_eq!(world.runs(task).await, [TaskRunState::Due]);
    world.start().await;
    world.task_done("paid").await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_removed_group_go_with_it() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 1h", "look at the oven").await;
    world.store.remove_group(&name("family")).await.unwrap();
    world.silence(HOUR * 3).await;
    assert_eq!(world.store.task(task).await.unwrap(), None);
    world.add_group("family", Role::Member).await;
    world.silence(HOUR * 3).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_with_nothing_to_say_is_silent() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "in 1h", "say something if it rains").await;
    world.prompt().await.answer("<internal>It does not rain.</internal>");
    world.silence(HOUR).await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_makes_no_task_run_twice_or_never() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "cron 0 * * * *", "look at the oven").await;
    assert_eq!(world.task_done("off").await, "2026-11-21 13:00");
    world.sets_the_clock(SignedDuration::from_hours(24 * 400));
    // It is late: the hour had begun when the clock was set.
    world.task_done("off").await;
    world.sets_the_clock(SignedDuration::from_hours(-24 * 400));
    assert_eq!(world.task_done("off").await, "2026-11-21 14:00");
    assert_eq!(world.runs(task).await.len(), 3);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_days_tokens_are_used_up_a_run_fails_and_its_task_goes_on() {
    let mut world = World::new(Behaviour::Held).await;
    world.limit("family", Some(1_000)).await;
    world.has_used("family", 900, 200).await;
    let task = world.plans("family", "every 6h", "look at the oven").await;
    assert!(world.hears_in("family").await.contains("tokens"));
    assert_eq!(world.runs(task).await, [TaskRunState::Failed]);
    assert_eq!(world.store.task(task).await.unwrap().unwrap().failures, 0);
    assert_eq!(world.task_done("off").await, "2026-11-22 00:00");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_the_owner_stops_is_no_failure_and_the_next_one_comes() {
    let mut world = crate::commands::world_of("Olga").await;
    let task = world.plans("family", "every 1h", "Count the sheep").await;
    for _ in 0..6 {
        let turn = world.prompt().await;
        turn.step();
        world.says("family", "Olga", "/stop").await;
        assert!(world.hears_in("family").await.starts_with("Kai: I have stopped"));
        world.passes(MINUTE).await;
        assert_eq!(world.runs(task).await[0], TaskRunState::Skipped);
    }
    assert_eq!(world.state(task).await, TaskState::Active);
    world.task_done("Seven sheep").await;
    assert_eq!(world.runs(task).await[0], TaskRunState::Answered);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_reads_what_is_planned_and_nobody_else_does() {
    let mut world = crate::commands::world_of("Olga").await;
    world.plans("family", "cron 0 9 * * *", "water the plants").await;
    world.plans("main", "in 30m", "wake me").await;
    let oven = world.plans("family", "every 1h", "look at the oven").await;
    world.store.pause_task(oven, world.now()).await.unwrap();
    world.says("family", "Olga", "/tasks").await;
    let said = world.hears_in("family").await;
    let begins = "Kai: Planned in this chat:\n- 1: “water the plants”, Sun 22 Nov 09:00 Europe/Madrid, in ";
    assert!(said.starts_with(begins) && said.contains("\n- 3: “look at the oven”, paused\n"), "{said}");
    assert!(!said.contains("wake me"), "{said}");
    world.says("main", "Olga", "/tareas").await;
    let said = world.hears_in("main").await;
    assert!(
        said.starts_with("Kai: Planned in all chats:\n- 2 (main): “wake me”, Sat 21 Nov 13:30"),
        "{said}"
    );
    assert!(said.contains("\n- 1 (family): “water the plants”, "), "{said}");
    world.says("family", "Ana", "/tasks").await;
    world.silence(MINUTE).await;
    assert_eq!(world.docker.tries(), 0, "no agent was asked");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_run_from_the_terminal_runs_at_once() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 1d", "Count the sheep").await;
    world.passes(HOUR).await;
    world.store.run_task_now(task, world.now()).await.unwrap();
    world.changed_tasks();
    world.task_done("Seven sheep").await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reminder_that_the_days_tokens_do_not_allow_is_told_as_missed() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "in 10m", "Say that the cake is done").await;
    world.has_used("family", 900, 100).await;
    world.limit("family", Some(1_000)).await;
    let said = world.hears_in("family").await;
    assert!(
        said.starts_with("Kai: I did not do task 1 (“Say that the cake is done”) of Sat 21 Nov 13:10"),
        "{said}"
    );
    assert_eq!(world.runs(task).await, [TaskRunState::Failed]);
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_task_that_the_days_tokens_do_not_allow_the_chat_is_told_once_a_day() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "every 10m", "look at the oven").await;
    world.has_used("family", 900, 100).await;
    world.limit("family", Some(1_000)).await;
    let said = world.hears_in("family").await;
    assert!(said.starts_with("Kai: I did not do task 1 (“look at the oven”)"), "{said}");
    world.silence(HOUR * 11 + MINUTE).await;
    assert!(world.runs(task).await.iter().all(|state| *state == TaskRunState::Failed));
    world.until("2026-11-22T00:00:00Z").await;
    world.has_used("family", 900, 100).await;
    assert!(world.hears_in("family").await.starts_with("Kai: I did not do task 1"));
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_trouble_has_kept_for_too_long_is_skipped_and_the_next_comes_on_time() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.forgets_the_key();
    world.start().await;
    world.hears_in("main").await;
    let skips = world.plans_with("family", "every 2h", "say good morning", "skip").await;
    let waits = world.plans_with("family", "at 2026-11-21 15:00", "pay the rent", "").await;
    // Both are due, and nobody is logged in; the chat is told once.
    assert!(world.hears_in("family").await.contains("logged in"));
    world.silence(HOUR * 6).await;
    let whys: Vec<_> = world.store.task_history(skips).await.unwrap().iter().map(|run| run.why).collect();
    assert!(whys.iter().skip(1).all(|why| *why == Some(RunReason::Late)), "{whys:?}");
    world.logs_in("a-login");
    // The last one has just come due.
    let turn = world.prompt().await;
    assert_eq!(turn.text.matches("good morning").count(), 1, "{}", turn.text);
    assert!(turn.text.contains(r#"<task id="1" time="Nov 21, 2026, 8:00 PM">"#), "{}", turn.text);
    assert!(turn.text.contains(r#"<task id="2" late="6 h" "#), "{}", turn.text);
    turn.answer("Good morning; paid.");
    world.hears_until(|said| said == "Kai: Good morning; paid.").await;
    assert_eq!(world.runs(waits).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_comes_due_in_a_persons_turn_begins_after_it() {
    let mut world = World::new(Behaviour::Held).await;
    let task = world.plans("family", "in 1h", "look at the oven").await;
    world.until("2026-11-21T12:59:58Z").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.passes(Duration::from_secs(10)).await;
    assert_eq!(world.runs(task).await, [TaskRunState::Due]);
    world.says("family", "Ana", "@Kai near the sea").await;
    let steer = turn.request("steer").await;
    assert!(steer.contains("near the sea") && !steer.contains("oven"), "{steer}");
    turn.takes_steer(&steer);
    turn.says("Found one.");
    turn.finish();
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    world.task_done("It is off.").await;
    assert_eq!(world.runs(task).await, [TaskRunState::Answered]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_in_the_moment_that_a_task_is_due_does_not_drop_the_run() {
    let mut world = World::without_service(Behaviour::Held).await;
    let task = world.plans("family", "in 1m", "pay the rent").await;
    world.passes(MINUTE).await;
    let edit = TaskEdit { text: Some("pay the rent to Bob".to_owned()), ..TaskEdit::default() };
    world.store.update_task(task, edit, world.now()).await.unwrap();
    world.start().await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("pay the rent to Bob"), "{}", turn.text);
    turn.answer("Paid.");
    assert_eq!(world.hears_in("family").await, "Kai: Paid.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_times_cannot_be_read_is_paused_and_its_chat_told() {
    let mut world = World::without_service(Behaviour::Held).await;
    let task = world.plans("family", "every 1h", "look at the oven").await;
    let database = rusqlite::Connection::open(world.paths().database_file()).unwrap();
    database.execute("UPDATE tasks SET zone = 'Europe/Atlantis'", []).unwrap();
    drop(database);
    world.start().await;
    let said = world.hears_in("family").await;
    assert!(
        said.starts_with("Kai: I have paused task 1 (“look at the oven”), since I cannot read"),
        "{said}"
    );
    assert_eq!(world.state(task).await, TaskState::Paused(PauseReason::Unreadable));
    world.silence(HOUR * 3).await;
    let edit = TaskEdit { zone: Some("Europe/Madrid".to_owned()), ..TaskEdit::default() };
    world.store.update_task(task, edit, world.now()).await.unwrap();
    world.store.resume_task(task, world.now()).await.unwrap();
    world.changed_tasks();
    world.task_done("It is off.").await;
    world.ends().await;
}
