//! One turn as it runs: which rows it holds, what was steered into it, and the answer so far.

use std::collections::VecDeque;

use crate::store::{Claim, RowId};
use crate::types::{ChatId, TurnId};

/// Most bytes of one turn's answers: sixteen full messages, more than anybody reads in a chat. What an engine
/// pours out beyond that is dropped as it comes, or it would fill the host's memory.
const ANSWERS_MAX_BYTES: usize = 64 * 1024;

/// The running turn of a session.
#[derive(Debug)]
pub struct Turn {
    pub id: TurnId,
    pub chat: ChatId,
    /// Rows steered in whose receipt has not come, oldest first.
    steers: VecDeque<Vec<RowId>>,
    /// One answer per thing asked: a steer that reached the model begins a new one.
    answers: Vec<Answer>,
    length: Length,
}

/// Whether all that the engine said is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Whole {
        bytes: usize,
    },
    /// The rest went beyond [`ANSWERS_MAX_BYTES`].
    Cut,
}

/// What the engine said, a paragraph per step.
#[derive(Debug, Default)]
struct Answer {
    steps: Vec<String>,
}

impl Turn {
    pub fn begin(id: TurnId, chat: ChatId) -> Self {
        Self {
            id,
            chat,
            steers: VecDeque::new(),
            answers: vec![Answer::default()],
            length: Length::Whole { bytes: 0 },
        }
    }

    /// More rows were claimed and sent to the engine as one steer.
    pub fn steered(&mut self, claim: Claim) {
        self.steers.push_back(claim.rows);
    }

    pub fn step_began(&mut self) {
        if let Some(answer) = self.answers.last_mut()
            && answer.steps.last().is_some_and(|step| !step.is_empty())
        {
            answer.steps.push(String::new());
        }
    }

    pub fn said(&mut self, piece: &str) {
        let Length::Whole { bytes } = self.length else { return };
        if bytes + piece.len() > ANSWERS_MAX_BYTES {
            self.length = Length::Cut;
            return;
        }
        self.length = Length::Whole { bytes: bytes + piece.len() };
        let Some(answer) = self.answers.last_mut() else { return };
        match answer.steps.last_mut() {
            Some(step) => step.push_str(piece),
            None => answer.steps.push(piece.to_owned()),
        }
    }

    /// The oldest steer has reached the model: what follows answers it.
    pub fn steer_taken(&mut self) {
        if self.steers.pop_front().is_some() {
            self.answers.push(Answer::default());
        }
    }

    /// The rows that the model has never seen.
    pub fn unread(&self) -> Vec<RowId> {
        self.steers.iter().flatten().copied().collect()
    }

    pub fn length(&self) -> Length {
        self.length
    }

    /// What was said, one text per answer, the empty ones left out.
    pub fn answers(&self) -> Vec<String> {
        let texts = self.answers.iter().map(|answer| {
            let steps: Vec<&str> =
                answer.steps.iter().map(|step| step.trim()).filter(|step| !step.is_empty()).collect();
            steps.join("\n\n")
        });
        texts.filter(|text| !text.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_paragraphs_and_steers_are_answered_apart() {
        let mut turn = Turn::begin(TurnId(1), ChatId::new("console:main"));
        turn.step_began();
        turn.said("Let me ");
        turn.said("look.");
        turn.step_began();
        turn.said("It is 42.\n");
        turn.steered(Claim { turn: TurnId(1), rows: Vec::new(), messages: Vec::new() });
        turn.steer_taken();
        turn.step_began();
        turn.said("And 43.");
        assert_eq!(turn.answers(), ["Let me look.\n\nIt is 42.", "And 43."]);
        assert!(matches!(turn.length(), Length::Whole { .. }));
    }

    #[test]
    fn a_flood_is_cut() {
        let mut turn = Turn::begin(TurnId(1), ChatId::new("console:main"));
        for _ in 0..1_000_000 {
            turn.step_began();
            turn.said("word ");
            turn.steer_taken();
        }
        assert_eq!(turn.length(), Length::Cut);
        assert!(turn.answers().concat().len() <= 2 * ANSWERS_MAX_BYTES);
    }
}
