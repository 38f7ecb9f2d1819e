//! What Kai does on time, as values: a task, and each time that it was due. `schedule` reads its times,
//! `rules` decides what follows from them.

use jiff::{SignedDuration, Timestamp};

use super::GroupName;

/// A task as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: i64,
    pub group: GroupName,
    pub text: String,
    /// In the words of the schedules' grammar.
    pub schedule: String,
    /// An IANA name.
    pub zone: String,
    /// In the words of the rules about what is late.
    pub late: String,
    pub context: TaskContext,
    /// A command of its container that runs first and says whether the task does.
    pub only_if: Option<String>,
    pub max_tokens: Option<u64>,
    pub state: TaskState,
    /// When it is due next, if it is active.
    pub next_at: Option<Timestamp>,
    /// How often it has failed in a row.
    pub failures: u32,
    pub created_at: Timestamp,
    pub last_run: Option<TaskRun>,
}

/// What the agent knows when a run of a task begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskContext {
    /// The chat's own session: all that was said there.
    #[default]
    Group,
    /// A fresh session, with the task's last answer and nothing else.
    Isolated,
}

impl TaskContext {
    pub const ALL: [Self; 2] = [Self::Group, Self::Isolated];

    /// The word for it in the database, in lists, and for those who plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Isolated => "isolated",
        }
    }

    pub fn find_by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|context| context.name() == name)
    }
}

/// Whether a task comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Active,
    Paused(PauseReason),
    /// It has no instant any more.
    Done,
}

/// Why a task is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// Somebody wanted it.
    Asked,
    /// It has failed too often in a row.
    Failures,
    /// A run used more than its limit of tokens.
    Tokens,
    /// When it runs cannot be read any more, such as its zone by this version.
    Unreadable,
}

impl PauseReason {
    pub const ALL: [Self; 4] = [Self::Asked, Self::Failures, Self::Tokens, Self::Unreadable];

    /// The word for it in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Failures => "failures",
            Self::Tokens => "tokens",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One time that a task was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRun {
    pub due_at: Timestamp,
    /// Zero if it was on time.
    pub late_by: SignedDuration,
    pub state: TaskRunState,
    /// Why it did not do its work, if that is known.
    pub why: Option<RunReason>,
    /// Those of the turns that it was told in.
    pub tokens: u64,
    pub ended_at: Option<Timestamp>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRunState {
    /// It waits for the agent.
    Due,
    Running,
    Answered,
    Failed,
    /// nanokimi was killed while it ran: nobody knows how far it came, and it is not repeated.
    Unknown,
    /// Its instant passed, and something kept it from running: a [`RunReason`].
    Skipped,
}

impl TaskRunState {
    pub const ALL: [Self; 6] =
        [Self::Due, Self::Running, Self::Answered, Self::Failed, Self::Unknown, Self::Skipped];

    /// The word for it in the database and in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Running => "running",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a run did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunReason {
    /// It was too late for the task's rule.
    Late,
    /// Another run of the task waited or went on.
    OpenRun,
    /// The owner has stopped all work in the chat.
    Stopped,
    /// The tokens of its group's day were used up.
    DailyTokens,
    /// The task's command said that there is nothing to do.
    Condition,
    /// That command could not be run.
    ConditionFailed,
    /// That command took too long.
    ConditionTooLong,
}

impl RunReason {
    pub const ALL: [Self; 7] = [
        Self::Late,
        Self::OpenRun,
        Self::Stopped,
        Self::DailyTokens,
        Self::Condition,
        Self::ConditionFailed,
        Self::ConditionTooLong,
    ];

    /// The words for it in the database and in lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Late => "too late",
            Self::OpenRun => "the run before went on",
            Self::Stopped => "stopped",
            Self::DailyTokens => "daily tokens used up",
            Self::Condition => "only-if said no",
            Self::ConditionFailed => "only-if did not run",
            Self::ConditionTooLong => "only-if took too long",
        }
    }

    pub fn find_by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
