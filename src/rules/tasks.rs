//! What may become a task, what is due of it, and what follows from the end of a run.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Rules;
use crate::notices;
use crate::schedule::{
    DueRun, LateDecision, LateRule, Schedule, ScheduleBase, decide_late_run, parse_zone, zone_name,
};
use crate::types::{PauseReason, RunReason, TaskContext, TaskRunState};

/// The most characters of a task's text. The whole of it is in the prompt of each run.
pub const TASK_TEXT_MAX_CHARS: usize = 4_000;
/// The most tasks of one group: more than anybody keeps in mind, and few enough for one list.
pub const TASKS_PER_GROUP_MAX: u32 = 500;
/// The most characters of a task's command.
const ONLY_IF_MAX_CHARS: usize = 2_000;
/// How long a task's command may take.
pub const ONLY_IF_LIMIT: Duration = Duration::from_secs(60);
/// A task that has failed this often in a row is paused: what has failed on so many days needs a person.
pub const TASK_FAILURES_MAX: u32 = 5;

/// A task as somebody asks for it, in their words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskDraft {
    /// What Kai is to do.
    pub text: String,
    /// In the words of [`Schedule`].
    pub schedule: String,
    /// An IANA name. Empty: the install's zone.
    pub zone: String,
    /// In the words of [`LateRule`]. Empty: its default.
    pub late: String,
    /// The name of a [`TaskContext`]. Empty: its default.
    pub context: String,
    /// A command of the container's shell that says whether a run begins. Empty: every run does.
    pub only_if: String,
    /// The most tokens that a run may use. At one more it is ended, and the task paused.
    pub max_tokens: Option<u64>,
}

/// What somebody changes of a task; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEdit {
    pub text: Option<String>,
    pub schedule: Option<String>,
    pub zone: Option<String>,
    pub late: Option<String>,
    pub context: Option<String>,
    pub only_if: Option<String>,
    /// `Some(None)` takes the limit away.
    pub max_tokens: Option<Option<u64>>,
}

/// A task that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedTask {
    pub text: String,
    pub schedule: Schedule,
    pub zone: TimeZone,
    pub late: LateRule,
    pub context: TaskContext,
    pub only_if: Option<String>,
    pub max_tokens: Option<u64>,
    pub next_at: Timestamp,
}

/// Why something about a task cannot be done. Its words are for whoever asked, a model or a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRefusal {
    /// What was written is not understood; the words say what is.
    Unreadable(String),
    /// The schedule has no instant any more.
    Past,
    TooMany,
    NoSuchTask(i64),
    NoSuchGroup,
    /// A run of it waits or goes on.
    RunIsOpen,
}

impl fmt::Display for TaskRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(words) => f.write_str(words),
            Self::Past => f.write_str("That time has passed; choose one that is still to come"),
            Self::TooMany => write!(
                f,
                "There are {TASKS_PER_GROUP_MAX} tasks in this group already; cancel one that is not needed any more"
            ),
            Self::NoSuchTask(id) => write!(f, "There is no task {id}"),
            Self::NoSuchGroup => f.write_str("There is no such group"),
            Self::RunIsOpen => f.write_str("A run of this task waits or goes on; wait until it has ended"),
        }
    }
}

impl std::error::Error for TaskRefusal {}

/// Reads what somebody asked for.
///
/// # Errors
/// It cannot be a task; says why and what can.
pub fn check_task(draft: &TaskDraft, home: &TimeZone, now: Timestamp) -> Result<CheckedTask, TaskRefusal> {
    let unreadable = |error: anyhow::Error| TaskRefusal::Unreadable(format!("{error:#}"));
    let text = draft.text.trim();
    if text.is_empty() || text.chars().count() > TASK_TEXT_MAX_CHARS {
        return Err(TaskRefusal::Unreadable(format!(
            "A task says what is to be done, in 1 to {TASK_TEXT_MAX_CHARS} characters"
        )));
    }
    let zone = match draft.zone.trim() {
        // A zone without a name counts as UTC, so that what is stored means the same.
        "" if home.iana_name().is_none() => TimeZone::UTC,
        "" => home.clone(),
        name => parse_zone(name).map_err(unreadable)?,
    };
    let late = match draft.late.trim() {
        "" => LateRule::default(),
        rule => LateRule::parse(rule).map_err(unreadable)?,
    };
    let context = match draft.context.trim() {
        "" => TaskContext::default(),
        name => TaskContext::find_by_name(name).ok_or_else(|| {
            TaskRefusal::Unreadable(format!(
                "{name:?} is no context of a task; there is \"group\", the chat's own conversation, and \"isolated\", \
                 a fresh one each time"
            ))
        })?,
    };
    let only_if = draft.only_if.trim();
    if only_if.chars().count() > ONLY_IF_MAX_CHARS || only_if.contains('\0') {
        return Err(TaskRefusal::Unreadable(format!(
            "The command that says whether a task runs has at most {ONLY_IF_MAX_CHARS} characters; put a longer one into \
             a file of the group's folder"
        )));
    }
    let only_if = Some(only_if.to_owned()).filter(|command| !command.is_empty());
    if draft.max_tokens == Some(0) {
        return Err(TaskRefusal::Unreadable("A run needs tokens: choose a limit above 0".to_owned()));
    }
    let base = ScheduleBase { now, zone: &zone };
    let schedule = Schedule::parse(&draft.schedule, base).map_err(unreadable)?;
    let next_at = schedule.next_after(now, &zone).ok_or(TaskRefusal::Past)?;
    // More than the database can hold is no limit that is ever reached.
    let max_tokens = draft.max_tokens.map(|tokens| tokens.min(i64::MAX.cast_unsigned()));
    let text = text.to_owned();
    Ok(CheckedTask { text, schedule, zone, late, context, only_if, max_tokens, next_at })
}

/// Reads what somebody changes of a task that is due next at `next_at`. That stays, even if it is due by now and
/// nobody has begun, unless the change is about when the task runs.
///
/// # Errors
/// As [`check_task`].
pub fn check_task_edit(
    known: &TaskDraft,
    next_at: Option<Timestamp>,
    edit: &TaskEdit,
    now: Timestamp,
) -> Result<CheckedTask, TaskRefusal> {
    let draft = apply_task_edit(known, edit);
    let is_same_plan = draft.schedule == known.schedule && draft.zone == known.zone;
    match next_at.filter(|_| is_same_plan) {
        None => check_task(&draft, &TimeZone::UTC, now),
        Some(next_at) => {
            let before = next_at.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(next_at);
            let checked = check_task(&draft, &TimeZone::UTC, now.min(before))?;
            Ok(CheckedTask { next_at, ..checked })
        }
    }
}

/// What a task would be like after a change.
fn apply_task_edit(known: &TaskDraft, edit: &TaskEdit) -> TaskDraft {
    let TaskEdit { text, schedule, zone, late, context, only_if, max_tokens } = edit.clone();
    // An empty word is no choice: of a new task it would mean what is usual, not what this one has.
    let chosen = |word: Option<String>, known: &String| {
        word.filter(|word| !word.trim().is_empty()).unwrap_or_else(|| known.clone())
    };
    TaskDraft {
        text: text.unwrap_or_else(|| known.text.clone()),
        schedule: schedule.unwrap_or_else(|| known.schedule.clone()),
        zone: chosen(zone, &known.zone),
        late: chosen(late, &known.late),
        context: chosen(context, &known.context),
        only_if: only_if.unwrap_or_else(|| known.only_if.clone()),
        max_tokens: max_tokens.unwrap_or(known.max_tokens),
    }
}

impl CheckedTask {
    /// The name under which its zone is kept.
    pub fn zone_name(&self) -> &str {
        zone_name(&self.zone)
    }
}

/// What follows from the instants that have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueTaskChange {
    pub run: DueRun,
    /// Why the run is skipped; without a reason it is due.
    pub skipped: Option<RunReason>,
    pub next_at: Option<Timestamp>,
}

/// Decides what is due of a task. A task has one open run at most: what comes due meanwhile is skipped.
pub fn decide_due_task(
    (schedule, zone): (&Schedule, &TimeZone),
    next_at: Timestamp,
    late: LateRule,
    has_open_run: bool,
    now: Timestamp,
) -> Option<DueTaskChange> {
    match decide_late_run(schedule, zone, next_at, late, now) {
        LateDecision::NotDue => None,
        LateDecision::Runs { run, next_at } => {
            Some(DueTaskChange { run, skipped: has_open_run.then_some(RunReason::OpenRun), next_at })
        }
        LateDecision::Skipped { missed, next_at } => {
            Some(DueTaskChange { run: missed, skipped: Some(RunReason::Late), next_at })
        }
    }
}

/// Exit codes of a shell that has not found a program, or may not run it.
const NOT_RUN: std::ops::RangeInclusive<i64> = 126..=127;

/// How the command of a task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    Exit(i64),
    /// After [`ONLY_IF_LIMIT`] it was killed.
    TooLong,
    /// It was not run, or nobody knows how it ended.
    Unknown,
}

/// What follows for a run from the end of its task's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunVerdict {
    Begins,
    /// There is nothing to do.
    Skipped,
    Fails(RunReason),
}

/// Decides whether a run begins.
pub fn judge_command(end: CommandEnd) -> RunVerdict {
    match end {
        CommandEnd::Exit(0) => RunVerdict::Begins,
        CommandEnd::Exit(code) if NOT_RUN.contains(&code) => RunVerdict::Fails(RunReason::ConditionFailed),
        CommandEnd::Exit(_) => RunVerdict::Skipped,
        CommandEnd::TooLong => RunVerdict::Fails(RunReason::ConditionTooLong),
        CommandEnd::Unknown => RunVerdict::Fails(RunReason::ConditionFailed),
    }
}

/// What follows for a task from the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskAfterRun {
    pub failures: u32,
    pub pause: Option<PauseReason>,
}

/// Decides what follows for a task with so many failures in a row before. A run whose outcome is unknown counts
/// as failed: perhaps it is what killed nanokimi.
pub fn after_task_run(
    end: TaskRunState,
    failures: u32,
    tokens: u64,
    max_tokens: Option<u64>,
) -> TaskAfterRun {
    let failures = match end {
        TaskRunState::Answered => 0,
        TaskRunState::Failed | TaskRunState::Unknown => failures.saturating_add(1),
        TaskRunState::Due | TaskRunState::Running | TaskRunState::Skipped => failures,
    };
    let pause = if failures >= TASK_FAILURES_MAX {
        Some(PauseReason::Failures)
    } else if max_tokens.is_some_and(|most| tokens > most) {
        Some(PauseReason::Tokens)
    } else {
        None
    };
    TaskAfterRun { failures, pause }
}

/// The sentence for the chat of a task that was paused; none if somebody there wanted that.
pub fn paused_task_notice(rules: &Rules, task: i64, text: &str, why: PauseReason) -> Option<String> {
    let sentence = match why {
        PauseReason::Asked => return None,
        PauseReason::Failures => notices::task_failed_often_notice(rules.lang, task, text, TASK_FAILURES_MAX),
        PauseReason::Tokens => notices::task_over_tokens_notice(rules.lang, task, text),
        PauseReason::Unreadable => notices::task_unreadable_notice(rules.lang, task, text),
    };
    Some(rules.prefix_notice(&sentence))
}

/// The sentence for the chat of a run whose outcome is unknown.
pub fn unknown_run_notice(
    rules: &Rules,
    (task, text): (i64, &str),
    due_at: Timestamp,
    zone: &TimeZone,
) -> String {
    rules.prefix_notice(&notices::task_outcome_unknown_notice(rules.lang, task, text, due_at, zone))
}

/// The sentence for the chat of a run that was not begun, since its group's tokens of the day are used up.
pub fn limited_run_notice(
    rules: &Rules,
    (task, text): (i64, &str),
    due_at: Timestamp,
    zone: &TimeZone,
) -> String {
    rules.prefix_notice(&notices::task_over_daily_limit_notice(rules.lang, task, text, due_at, zone))
}

/// How late a run is by now, if it is late.
pub fn late_by(due_at: Timestamp, now: Timestamp) -> SignedDuration {
    let behind = now.duration_since(due_at);
    if behind <= crate::schedule::ON_TIME_WITHIN { SignedDuration::ZERO } else { behind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn draft(schedule: &str) -> TaskDraft {
        TaskDraft {
            text: "water the plants".to_owned(),
            schedule: schedule.to_owned(),
            ..TaskDraft::default()
        }
    }

    fn check(draft: &TaskDraft) -> Result<CheckedTask, TaskRefusal> {
        check_task(draft, &TimeZone::get("Europe/Madrid").unwrap(), at("2026-11-30T15:00:00Z"))
    }

    #[test]
    fn an_edit_changes_what_it_says_and_keeps_the_rest() {
        let known = TaskDraft {
            zone: "Asia/Tokyo".to_owned(),
            late: "skip".to_owned(),
            context: "isolated".to_owned(),
            only_if: "true".to_owned(),
            max_tokens: Some(7),
            ..draft("cron 0 9 * * *")
        };
        let nothing = || Some(String::new());
        let empty = TaskEdit { zone: nothing(), late: nothing(), context: nothing(), ..TaskEdit::default() };
        assert_eq!(apply_task_edit(&known, &empty), known);
        let (now, due) = (at("2026-11-30T15:00:00Z"), at("2026-11-30T00:00:00Z"));
        let next_at = |edit: &TaskEdit| check_task_edit(&known, Some(due), edit, now).unwrap().next_at;
        let text = TaskEdit { text: Some("feed the cat".to_owned()), ..TaskEdit::default() };
        assert_eq!((next_at(&text), next_at(&empty)), (due, due), "it is due and nobody has begun");
        let zone = TaskEdit { zone: Some("UTC".to_owned()), ..TaskEdit::default() };
        assert_eq!(next_at(&zone), at("2026-12-01T09:00:00Z"));
        let most = TaskEdit { max_tokens: Some(Some(u64::MAX)), ..TaskEdit::default() };
        let checked = check_task_edit(&known, Some(due), &most, now).unwrap();
        assert_eq!(checked.max_tokens, Some(i64::MAX.cast_unsigned()));
    }

    #[test]
    fn a_task_has_a_text_a_time_to_come_and_a_zone() {
        let task = check(&draft("cron 0 9 * * *")).unwrap();
        assert_eq!((task.next_at, task.zone_name()), (at("2026-12-01T08:00:00Z"), "Europe/Madrid"));
        let tokyo = TaskDraft { zone: "Asia/Tokyo".to_owned(), ..draft("cron 0 9 * * *") };
        assert_eq!(check(&tokyo).unwrap().next_at, at("2026-12-01T00:00:00Z"));
        assert_eq!(check(&draft("in 1h")).unwrap().next_at, at("2026-11-30T16:00:00Z"));
        assert_eq!(check(&draft("at 2026-11-30 15:59")), Err(TaskRefusal::Past));
        for (wrong, said) in [
            (TaskDraft { text: " ".to_owned(), ..draft("in 1h") }, "1 to 4000 characters"),
            (TaskDraft { text: "x".repeat(4_001), ..draft("in 1h") }, "1 to 4000 characters"),
            (TaskDraft { zone: "Mars/Olympus".to_owned(), ..draft("in 1h") }, "There is no time zone"),
            (TaskDraft { late: "sometimes".to_owned(), ..draft("in 1h") }, "\"within 2h\""),
            (TaskDraft { context: "alone".to_owned(), ..draft("in 1h") }, "\"isolated\", a fresh one"),
            (TaskDraft { max_tokens: Some(0), ..draft("in 1h") }, "above 0"),
            (TaskDraft { only_if: "x".repeat(2_001), ..draft("in 1h") }, "at most 2000 characters"),
            (draft("tomorrow"), "\"cron 0 9 * * MON-FRI\""),
        ] {
            let refusal = check(&wrong).unwrap_err().to_string();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn what_comes_due_while_a_run_is_open_is_skipped() {
        let task = check(&draft("every 1h")).unwrap();
        let decide = |has_open_run, now: &str| {
            decide_due_task((&task.schedule, &task.zone), task.next_at, task.late, has_open_run, at(now))
                .map(|change| (change.skipped, change.next_at))
        };
        assert_eq!(decide(false, "2026-11-30T15:59:59Z"), None);
        let next = Some(at("2026-11-30T17:00:00Z"));
        assert_eq!(decide(false, "2026-11-30T16:00:00Z"), Some((None, next)));
        assert_eq!(decide(true, "2026-11-30T16:00:00Z"), Some((Some(RunReason::OpenRun), next)));
    }

    #[test]
    fn five_failures_in_a_row_pause_a_task() {
        use TaskRunState::{Answered, Due, Failed, Running, Skipped, Unknown};
        for (end, failures, expected, pause) in [
            (Answered, 4, 0, None),
            (Failed, 0, 1, None),
            (Failed, 3, 4, None),
            (Failed, 4, 5, Some(PauseReason::Failures)),
            (Unknown, 4, 5, Some(PauseReason::Failures)),
            (Failed, u32::MAX, u32::MAX, Some(PauseReason::Failures)),
            (Due, 4, 4, None),
            (Running, 4, 4, None),
            (Skipped, 4, 4, None),
        ] {
            assert_eq!(after_task_run(end, failures, 0, None), TaskAfterRun { failures: expected, pause });
        }
        let pause = |tokens| after_task_run(Answered, 0, tokens, Some(1_000)).pause;
        assert_eq!((pause(1_000), pause(1_001)), (None, Some(PauseReason::Tokens)));
    }

    #[test]
    fn a_command_says_whether_a_run_begins_and_one_that_does_not_run_is_a_failure() {
        use CommandEnd::{Exit, TooLong, Unknown};
        for (end, expected) in [
            (Exit(0), RunVerdict::Begins),
            (Exit(1), RunVerdict::Skipped),
            (Exit(125), RunVerdict::Skipped),
            (Exit(126), RunVerdict::Fails(RunReason::ConditionFailed)),
            (Exit(127), RunVerdict::Fails(RunReason::ConditionFailed)),
            (Exit(128), RunVerdict::Skipped),
            (Exit(-1), RunVerdict::Skipped),
            (TooLong, RunVerdict::Fails(RunReason::ConditionTooLong)),
            (Unknown, RunVerdict::Fails(RunReason::ConditionFailed)),
        ] {
            assert_eq!(judge_command(end), expected, "{end:?}");
        }
        assert_eq!(check(&TaskDraft { only_if: "  ".to_owned(), ..draft("in 1h") }).unwrap().only_if, None);
    }

    #[test]
    fn an_edit_changes_what_it_names() {
        let known = TaskDraft { max_tokens: Some(5), late: "skip".to_owned(), ..draft("in 1h") };
        assert_eq!(apply_task_edit(&known, &TaskEdit::default()), known);
        let edit =
            TaskEdit { text: Some("feed the cat".to_owned()), max_tokens: Some(None), ..TaskEdit::default() };
        let edited = apply_task_edit(&known, &edit);
        assert_eq!(
            (edited.text.as_str(), edited.max_tokens, edited.late.as_str()),
            ("feed the cat", None, "skip")
        );
    }
}
