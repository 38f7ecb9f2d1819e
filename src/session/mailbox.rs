//! What dispatch and the sessions tell each other.

use crate::types::{GroupName, TurnId};

/// What dispatch tells a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    Work,
    SlotGranted,
    /// A slot that was not asked for: somebody may ask for something soon.
    SlotGrantedAhead,
    SlotWanted,
    /// The owner has stopped this turn; its rows are over.
    StopTurn(TurnId),
    /// The outage that keeps messages from being answered may be over.
    TryAgain,
}

/// What a session tells dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    pub group: GroupName,
    pub kind: ReportKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    SlotAsked,
    SlotReturned,
    /// Docker does not answer.
    NoDocker,
    /// The slot is held, but nobody works in it.
    Idle,
    Busy,
    /// An agent that was started ahead of need was needed.
    AheadUsed,
    /// An agent that was started ahead of need was not needed as long as it was kept.
    AheadInVain,
}
