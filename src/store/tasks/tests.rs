//! Tasks in a database of their own: instants, turns and refusals.

use super::*;
use crate::rules::turns::{PendingAfterTurn, TurnOutcome};
use crate::store::tests::{add_group, rules};
use crate::store::{RowId, TaskEdit, TaskRefusal, TurnEnding};
use crate::types::{
    Engine, Event, Forwarded, Group, IncomingMessage, Mention, MessageId, PromptAuthor, Role, SenderId,
    TokenUsage, TurnId,
};

struct World {
    store: Store,
    family: Group,
    _folder: tempfile::TempDir,
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-12-01T12:00:00Z";

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
    add_group(&store, "family", Role::Member, at(NOON)).await;
    let family = store.all_groups().await.unwrap().remove(0);
    World { store, family, _folder: folder }
}

impl World {
    async fn add(&self, schedule: &str, max_tokens: Option<u64>) -> Task {
        let draft = TaskDraft {
            text: "water the plants".to_owned(),
            schedule: schedule.to_owned(),
            max_tokens,
            ..TaskDraft::default()
        };
        self.store.add_task(&self.family.name, draft, TimeZone::UTC, at(NOON)).await.unwrap()
    }

    async fn writes(&self, text: &str, sent_at: &str) {
        self.write_often(1, text, sent_at).await;
    }

    async fn write_often(&self, count: usize, text: &str, sent_at: &str) {
        let events = (0..count).map(|number| Event::Message(self.message(number, text, sent_at)));
        self.store.record_events(events.collect(), rules(), at(sent_at)).await.unwrap();
    }

    fn message(&self, number: usize, text: &str, sent_at: &str) -> IncomingMessage {
        IncomingMessage {
            chat: self.family.chat.clone(),
            id: MessageId::new(format!("{text} {number}")),
            sender: SenderId::new("ana@s.whatsapp.net"),
            sender_name: "Ana".to_owned(),
            text: text.to_owned(),
            sent_at: at(sent_at),
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    /// A turn that ends like this; returns what is pending then.
    async fn turn(&self, finish: TurnOutcome, tokens: u64, now: &str) -> PendingAfterTurn {
        let claim =
            self.store.claim_pending_rows(&self.family, Engine::KimiCode, at(now)).await.unwrap().unwrap();
        self.end(claim.turn, finish, tokens, Vec::new(), now).await
    }

    async fn end(
        &self,
        turn: TurnId,
        finish: TurnOutcome,
        tokens: u64,
        never_read: Vec<RowId>,
        now: &str,
    ) -> PendingAfterTurn {
        let ending = TurnEnding {
            turn,
            chat: self.family.chat.clone(),
            finish,
            never_read,
            replies: Vec::new(),
            usage: TokenUsage { input: tokens, cached: 0, output: 0 },
        };
        self.store.finish_turn(ending, at(now)).await.unwrap()
    }

    async fn states(&self, task: i64) -> Vec<TaskRunState> {
        self.store.task_history(task).await.unwrap().into_iter().map(|run| run.state).collect()
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> TaskRefusal {
    result.unwrap_err().downcast::<TaskRefusal>().unwrap()
}

#[tokio::test]
async fn an_instant_has_one_run_and_one_row_however_often_it_is_claimed() {
    let world = world().await;
    let (one, other) = (world.add("every 1h", None).await, world.add("every 1h", None).await);
    let now = at("2026-12-01T13:00:00Z");
    assert_eq!(world.store.next_task_due_at().await.unwrap(), Some(now));
    let claimed = world.store.claim_due_tasks(now).await.unwrap();
    assert_eq!(claimed, ClaimedTasks { woken: vec![world.family.name.clone()], has_more: false });
    assert_eq!(world.store.claim_due_tasks(now).await.unwrap(), ClaimedTasks::default());
    // The clock is set back, and the tasks with it: the instant has a run.
    world.store.bring_tasks_forward(at("2026-12-01T12:30:00Z")).await.unwrap();
    assert_eq!(world.store.claim_due_tasks(now).await.unwrap(), ClaimedTasks::default());
    for task in [one, other] {
        assert_eq!(world.states(task.id).await, [TaskRunState::Due]);
    }
    assert_eq!(world.store.queue_counts().await.unwrap().waiting, 2);
}

#[tokio::test]
async fn a_run_is_told_beside_messages_and_only_people_are_answered() {
    let world = world().await;
    let task = world.add("in 1h", None).await;
    world.writes("@Kai hello", "2026-12-01T12:59:00Z").await;
    world.store.claim_due_tasks(at("2026-12-01T13:00:00Z")).await.unwrap();
    let now = at("2026-12-01T13:30:00Z");
    let claim = world.store.claim_pending_rows(&world.family, Engine::KimiCode, now).await.unwrap().unwrap();
    let late_by = SignedDuration::from_mins(30);
    let author = PromptAuthor::Task { id: task.id, late_by, last_answer: None, output: None };
    assert_eq!(claim.messages[1].author, author);
    assert_eq!(claim.messages[1].sent_at, at("2026-12-01T13:00:00Z"));
    assert_eq!(claim.called_by, Some(claim.rows[0]));
    assert_eq!(claim.senders, [(SenderId::new("ana@s.whatsapp.net"), vec![MessageId::new("@Kai hello 0")])]);
    assert_eq!(world.store.task_history(task.id).await.unwrap()[0].late_by, late_by);
    assert_eq!(world.store.recent_senders(&world.family.chat).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_has_the_end_of_its_turn() {
    let world = world().await;
    let task = world.add("every 1h", Some(1_000)).await;
    let failed = || TurnOutcome::Failed { notice: "sorry".to_owned() };
    world.store.claim_due_tasks(at("2026-12-01T13:00:00Z")).await.unwrap();
    for (outcome, state) in [
        (TurnOutcome::Returned, TaskRunState::Due),
        (failed(), TaskRunState::Due),
        (failed(), TaskRunState::Due),
        (failed(), TaskRunState::Failed),
    ] {
        world.turn(outcome, 10, "2026-12-01T13:01:00Z").await;
        assert_eq!(world.states(task.id).await, [state]);
    }
    let known = world.store.task(task.id).await.unwrap().unwrap();
    assert_eq!((known.failures, known.last_run.unwrap().tokens), (1, 40));

    // While a run waits, what comes due is skipped.
    world.store.claim_due_tasks(at("2026-12-01T14:00:00Z")).await.unwrap();
    assert_eq!(
        world.store.claim_due_tasks(at("2026-12-01T15:00:00Z")).await.unwrap(),
        ClaimedTasks::default()
    );
    world.turn(TurnOutcome::Answered, 1_001, "2026-12-01T15:00:00Z").await;
    use TaskRunState::{Answered, Failed, Skipped};
    assert_eq!(world.states(task.id).await, [Skipped, Answered, Failed]);
    let known = world.store.task(task.id).await.unwrap().unwrap();
    assert_eq!((known.state, known.failures), (TaskState::Paused(PauseReason::Tokens), 0));
    let told = world.store.tell_task_news(rules(), at(NOON)).await.unwrap();
    assert_eq!(told, OutboxChange::Changed);
    assert_eq!(world.store.tell_task_news(rules(), at(NOON)).await.unwrap(), OutboxChange::Same);
}

#[tokio::test]
async fn a_turn_that_a_person_has_called_for_uses_no_tokens_of_a_task_however_much_is_written_meanwhile() {
    let world = world().await;
    let task = world.add("in 1h", None).await;
    let now = "2026-12-01T13:00:00Z";
    world.writes("@Kai hello", now).await;
    world.store.claim_due_tasks(at(now)).await.unwrap();
    let claim =
        world.store.claim_pending_rows(&world.family, Engine::KimiCode, at(now)).await.unwrap().unwrap();
    world.write_often(2_100, "The trip is on Friday", now).await;
    world.end(claim.turn, TurnOutcome::Answered, 1_000, Vec::new(), now).await;
    assert_eq!(world.store.task_history(task.id).await.unwrap()[0].tokens, 0);
}

#[tokio::test]
async fn a_call_that_the_agent_has_not_read_uses_no_tokens() {
    let world = world().await;
    let task = world.add("in 1h", None).await;
    let now = "2026-12-01T13:00:00Z";
    world.store.claim_due_tasks(at(now)).await.unwrap();
    let claim =
        world.store.claim_pending_rows(&world.family, Engine::KimiCode, at(now)).await.unwrap().unwrap();
    world.writes("@Kai hello", now).await;
    let steered =
        world.store.claim_more_rows(claim.turn, &claim.session, &world.family.chat).await.unwrap().unwrap();
    world.end(claim.turn, TurnOutcome::Answered, 1_000, steered.rows, now).await;
    assert_eq!(world.store.task_history(task.id).await.unwrap()[0].tokens, 1_000);
}

#[tokio::test]
async fn what_was_cancelled_does_not_begin_nor_begin_again() {
    let world = world().await;
    let (waits, runs) = (world.add("in 1h", None).await, world.add("in 2h", None).await);
    world.store.claim_due_tasks(at("2026-12-01T13:00:00Z")).await.unwrap();
    world.store.cancel_task(waits.id).await.unwrap();
    assert!(!world.store.has_pending_calls(&world.family).await.unwrap());
    world.store.claim_due_tasks(at("2026-12-01T14:00:00Z")).await.unwrap();
    let now = at("2026-12-01T14:00:00Z");
    let claim = world.store.claim_pending_rows(&world.family, Engine::KimiCode, now).await.unwrap().unwrap();
    world.store.cancel_task(runs.id).await.unwrap();
    let pending = world.end(claim.turn, TurnOutcome::Returned, 0, Vec::new(), "2026-12-01T14:00:00Z").await;
    assert_eq!(pending, PendingAfterTurn::NothingPending);
    assert_eq!(world.store.tasks(None).await.unwrap(), []);
}

#[tokio::test]
async fn mistakes_of_who_asks_are_refusals() {
    let world = world().await;
    let task = world.add("in 1h", None).await;
    let (store, now) = (&world.store, at("2026-12-01T14:00:00Z"));
    let nobody = GroupName::parse("nobody").unwrap();
    let draft = TaskDraft { text: "x".to_owned(), schedule: "in 1h".to_owned(), ..TaskDraft::default() };
    let added = store.add_task(&nobody, draft, TimeZone::UTC, now).await;
    assert_eq!(refusal(added), TaskRefusal::NoSuchGroup);
    let edit = TaskEdit { schedule: Some("soon".to_owned()), ..TaskEdit::default() };
    let refused = refusal(store.update_task(task.id, edit, now).await);
    assert!(matches!(refused, TaskRefusal::Unreadable(_)), "{refused:?}");
    assert_eq!(refusal(store.pause_task(9, now).await), TaskRefusal::NoSuchTask(9));
    store.pause_task(task.id, now).await.unwrap();
    assert_eq!(refusal(store.resume_task(task.id, now).await), TaskRefusal::Past);
    let edit = TaskEdit { schedule: Some("in 1d".to_owned()), ..TaskEdit::default() };
    assert_eq!(store.update_task(task.id, edit, now).await.unwrap().next_at, None, "it stays paused");
    let resumed = store.resume_task(task.id, now).await.unwrap();
    assert_eq!(resumed.next_at, Some(at("2026-12-02T14:00:00Z")));
}
