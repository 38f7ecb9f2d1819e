//! The turn that an agent works on while it calls the host's tools.

use crate::store::{Claim, RowId};
use crate::types::{ChatId, TurnId};

/// The turn that a group's tools belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningTurn {
    pub id: TurnId,
    /// The chat that it answers.
    pub chat: ChatId,
    /// The message that called for it.
    pub called_by: Option<RowId>,
    has_owner_answer: bool,
}

impl RunningTurn {
    /// The turn that these messages are of.
    pub fn from_claim(claim: &Claim, chat: &ChatId) -> Self {
        let Claim { turn, called_by, has_owner_answer, .. } = *claim;
        Self { id: turn, chat: chat.clone(), called_by, has_owner_answer }
    }

    /// Whether nobody but a task has called for it.
    pub fn is_of_task(&self) -> bool {
        self.called_by.is_none() && !self.has_owner_answer
    }
}
