//! The runs of tasks after a run of kills: what the database has, beside the instants that there were and what
//! the people have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nanokimi::notices;
use nanokimi::paths::Paths;
use nanokimi::rules::tasks::TASK_FAILURES_MAX;
use nanokimi::types::{Lang, PauseReason, TaskRunState};
use rusqlite::{Connection, OpenFlags};

use crate::chats::{Chats, ECHO, PREFIX};
use crate::tasks::{LAST_WORK, MINUTE, PlannedTask};

/// How long before an absence, and after it, an instant may pass without a service that claims it: the service
/// has to start, and some processes are killed on their way.
const SLACK_SECS: i64 = 10;
/// At most this many findings are printed.
const FINDINGS_SHOWN: usize = 20;

/// A time in which nobody started the service.
pub struct Absence {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// What came of all instants.
#[derive(Default)]
pub struct TaskAudit {
    due: usize,
    ends: BTreeMap<&'static str, usize>,
    /// Instants without a run, since a later one of the same task had passed too when the service was back.
    left_out: usize,
    /// Instants after the one at which a task was paused, since it had failed so often.
    paused: usize,
    replies: usize,
    told: usize,
    /// Runs that were told to an agent twice or have two replies, and what was told twice.
    doubled: usize,
    /// Instants that should have a run, and runs without their end, reply or notice.
    missing: usize,
    findings: Vec<String>,
}

/// A row of `task_runs`.
struct RunRow {
    task: i64,
    due: i64,
    state: TaskRunState,
    ended_millis: Option<i64>,
    is_told: bool,
    /// How many rows of `inbox` tell it, and how often the most tried of them was told to an agent.
    rows: i64,
    attempts: i64,
}

/// For each line that Kai has said, the messages that have it: their chats and ids.
type SaidLines = BTreeMap<String, BTreeSet<(String, String)>>;

impl TaskAudit {
    /// `pauses` is the time in which all tasks were paused, one after the other, since the run was over.
    pub fn new(
        chats: &Chats,
        tasks: &[PlannedTask],
        absences: &[Absence],
        pauses: &RangeInclusive<Timestamp>,
    ) -> Self {
        let database = Paths::new(&chats.place.home).database_file();
        let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let said = read_said_lines(chats);
        let mut runs: BTreeMap<i64, Vec<RunRow>> = BTreeMap::new();
        for run in read_runs(&database) {
            runs.entry(run.task).or_default().push(run);
        }
        let mut audit = Self::default();
        for task in tasks {
            let runs = runs.remove(&task.id).unwrap_or_default();
            let is_paused = is_paused_for_failures(&database, task.id);
            audit.compare_instants(task, &runs, is_paused, absences, pauses);
            for run in &runs {
                audit.check_run(task, run, &runs, &said);
            }
            audit.check_pause(task, &runs, is_paused, &said);
        }
        for (task, runs) in runs {
            audit.missing(format!("task {task} was never planned, and has {} runs", runs.len()));
        }
        audit
    }

    pub fn is_right(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn print(&self, what: &str) {
        let ends: Vec<String> = self.ends.iter().map(|(state, count)| format!("{state}: {count}")).collect();
        println!(
            "{what} · instants: {} · {} · left out while nobody started it: {} · replies: {} · told as unknown: {} · \
             paused before: {} · doubled: {} · missing: {}",
            self.due,
            ends.join(" · "),
            self.left_out,
            self.replies,
            self.told,
            self.paused,
            self.doubled,
            self.missing
        );
        self.findings.iter().take(FINDINGS_SHOWN).for_each(|finding| println!("  {finding}"));
    }

    pub fn check(&self) {
        assert_eq!(self.findings.len(), 0, "runs of tasks are not as they should be");
    }

    /// Every instant has one run, or may have none.
    fn compare_instants(
        &mut self,
        task: &PlannedTask,
        runs: &[RunRow],
        is_paused: bool,
        absences: &[Absence],
        pauses: &RangeInclusive<Timestamp>,
    ) {
        let minute = MINUTE.as_secs() as i64;
        let (must_be_claimed, ended) =
            (pauses.start().as_second() - LAST_WORK.as_secs() as i64, pauses.end().as_second());
        let mut dues: BTreeSet<i64> = BTreeSet::new();
        for run in runs {
            if !dues.insert(run.due) {
                self.doubled(format!("task {} has two runs for {}", task.id, run.due));
            }
            if run.due < task.first || (run.due - task.first) % minute != 0 || run.due > ended {
                self.doubled(format!("task {} has a run for {}, when it was not due", task.id, run.due));
            }
        }
        let last = dues.last().copied();
        for instant in (task.first..=ended).step_by(MINUTE.as_secs() as usize) {
            let has_run = dues.contains(&instant);
            if !has_run && instant > must_be_claimed {
                continue;
            }
            self.due += 1;
            if has_run {
                continue;
            }
            if is_paused && last.is_some_and(|last| instant > last) {
                self.paused += 1;
            } else if absences.iter().any(|absence| absence.leaves_out(instant, instant + minute)) {
                self.left_out += 1;
            } else {
                self.missing(format!("task {} has no run for {instant}", task.id));
            }
        }
    }

    /// A run has the end that it may have, was told to an agent once at most, and was answered as it says.
    fn check_run(&mut self, task: &PlannedTask, run: &RunRow, all: &[RunRow], said: &SaidLines) {
        *self.ends.entry(run.state.name()).or_default() += 1;
        let due = Timestamp::from_second(run.due).unwrap();
        let time = due.to_zoned(TimeZone::UTC).strftime("%b %-d, %Y, %-I:%M %p");
        let replies = count_messages(said, &format!("{} ({time})", task.text), task);
        let notice = notices::task_outcome_unknown_notice(Lang::En, task.id, &task.text, due, &TimeZone::UTC);
        let notices = count_messages(said, &notice, task);
        self.replies += replies;
        self.told += notices;
        let (has_reply, has_notice) = match run.state {
            TaskRunState::Answered => (Some(true), false),
            TaskRunState::Failed => (None, false),
            TaskRunState::Unknown => (Some(false), true),
            TaskRunState::Skipped => {
                let is_during =
                    |other: &RunRow| other.due < run.due && other.ended_millis >= run.ended_millis;
                if !all.iter().any(is_during) {
                    self.missing(format!("{run}: no run was open then"));
                }
                (Some(false), false)
            }
            TaskRunState::Due | TaskRunState::Running => {
                self.missing(format!("{run}: it has no end"));
                (None, false)
            }
        };
        if replies > 1 || has_reply == Some(false) && replies > 0 {
            self.doubled(format!("{run}: {replies} replies"));
        }
        if has_reply == Some(true) && replies == 0 {
            self.missing(format!("{run}: nobody has heard the reply"));
        }
        if notices > usize::from(has_notice) {
            self.doubled(format!("{run}: told {notices} times that its outcome is unknown"));
        }
        if has_notice && (notices == 0 || !run.is_told) {
            self.missing(format!("{run}: not told that its outcome is unknown"));
        }
        if run.attempts > 1 || run.rows > 1 {
            self.doubled(format!("{run}: told to an agent {} times, by {} rows", run.attempts, run.rows));
        }
        if run.rows == 0 && run.state != TaskRunState::Skipped {
            self.missing(format!("{run}: no row tells it"));
        }
    }

    /// A task is paused for its failures when the last of its runs have failed, and its chat is told once.
    fn check_pause(&mut self, task: &PlannedTask, runs: &[RunRow], is_paused: bool, said: &SaidLines) {
        let has_failed = |run: &RunRow| matches!(run.state, TaskRunState::Failed | TaskRunState::Unknown);
        let ended = runs.iter().filter(|run| run.state != TaskRunState::Skipped);
        let failures = ended.rev().take_while(|run| has_failed(run)).count();
        if is_paused != (failures >= TASK_FAILURES_MAX as usize) {
            self.missing(format!("task {}: {failures} failures, paused: {is_paused}", task.id));
        }
        let notice = notices::task_failed_often_notice(Lang::En, task.id, &task.text, TASK_FAILURES_MAX);
        let told = count_messages(said, &notice, task);
        if told != usize::from(is_paused) {
            self.doubled(format!("task {}: paused: {is_paused}, told {told} times", task.id));
        }
    }

    fn doubled(&mut self, finding: String) {
        self.doubled += 1;
        self.findings.push(format!("doubled: {finding}"));
    }

    fn missing(&mut self, finding: String) {
        self.missing += 1;
        self.findings.push(format!("missing: {finding}"));
    }
}

impl Absence {
    /// Whether both instants of a task passed while the service was not there. Then only the later one has a
    /// run.
    fn leaves_out(&self, instant: i64, next: i64) -> bool {
        instant >= self.from.as_second() - SLACK_SECS && next <= self.to.as_second() + SLACK_SECS
    }
}

impl std::fmt::Display for RunRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the run of task {} for {} ({})", self.task, self.due, self.state.name())
    }
}

/// How many messages have this line. One in another chat counts twice: it should be in none.
fn count_messages(said: &SaidLines, line: &str, task: &PlannedTask) -> usize {
    let messages = said.get(line).into_iter().flatten();
    messages.map(|(chat, _)| if *chat == task.chat { 1 } else { 2 }).sum()
}

/// The lines of all that Kai has said, without what stands before each.
fn read_said_lines(chats: &Chats) -> SaidLines {
    let mut lines = SaidLines::new();
    for (id, chat, text) in chats.said() {
        for line in text.lines() {
            let line = line.strip_prefix(PREFIX).unwrap_or(line);
            let line = line.strip_prefix(ECHO).unwrap_or(line);
            lines.entry(line.to_owned()).or_default().insert((chat.clone(), id.clone()));
        }
    }
    lines
}

/// All runs, by task and instant.
fn read_runs(database: &Connection) -> Vec<RunRow> {
    let mut statement = database
        .prepare(
            "SELECT task, due_at, state, ended_at, told_at IS NOT NULL,
                    (SELECT count(*) FROM inbox WHERE task_run = task_runs.id),
                    (SELECT coalesce(max(attempts), 0) FROM inbox WHERE task_run = task_runs.id)
             FROM task_runs ORDER BY task, due_at",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let (due, state): (i64, String) = (row.get(1)?, row.get(2)?);
        let state = TaskRunState::ALL.into_iter().find(|known| known.name() == state);
        Ok(RunRow {
            task: row.get(0)?,
            due: due / 1_000,
            state: state.expect("a run has a state that is known"),
            ended_millis: row.get(3)?,
            is_told: row.get(4)?,
            rows: row.get(5)?,
            attempts: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn is_paused_for_failures(database: &Connection, task: i64) -> bool {
    let why = "SELECT paused_why FROM tasks WHERE id = ?1";
    let why: Option<String> = database.query_row(why, [task], |row| row.get(0)).unwrap();
    why.as_deref() == Some(PauseReason::Failures.name())
}
