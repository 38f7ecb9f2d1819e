//! One turn as it runs: which rows it holds, what was steered into it, and the answer so far.

use std::collections::VecDeque;

use crate::agent::Input;
use crate::render::{self, OpenNotes};
use crate::store::{Claim, RowId};
use crate::types::{ChatId, Group, Role, TurnId};

/// Most bytes of one turn's answers: sixteen full messages, more than anybody reads in a chat. What an engine
/// pours out beyond that is dropped as it comes, or it would fill the host's memory.
const ANSWERS_MAX_BYTES: usize = 64 * 1024;

/// The running turn of a session.
#[derive(Debug)]
pub struct Turn {
    pub id: TurnId,
    pub chat: ChatId,
    pub role: Role,
    /// The text that the engine was prompted with.
    prompted: String,
    /// How many pictures it was shown, with the prompt or a steer.
    pictures: usize,
    /// What was steered in and has no receipt yet, oldest first.
    steers: VecDeque<Steer>,
    /// Rows of steers that no receipt will come for.
    lost: Vec<RowId>,
    /// One answer per thing asked: a steer that reached the model begins a new one.
    answers: Vec<Answer>,
    length: Length,
    has_begun: bool,
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

/// More that the engine was told.
#[derive(Debug)]
struct Steer {
    rows: Vec<RowId>,
    called_by: Option<RowId>,
}

/// What the engine said, a paragraph per step.
#[derive(Debug)]
struct Answer {
    to: Option<RowId>,
    steps: Vec<String>,
}

/// What was said to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub text: String,
    /// The message that called for it.
    pub to: Option<RowId>,
}

impl Turn {
    /// `claim` was sent to the engine as `prompted`.
    pub fn begin(claim: &Claim, group: &Group, prompted: &Input) -> Self {
        Self {
            id: claim.turn,
            chat: group.chat.clone(),
            role: group.role,
            prompted: prompted.text.clone(),
            pictures: prompted.images.len(),
            steers: VecDeque::new(),
            lost: Vec::new(),
            answers: vec![Answer { to: claim.called_by, steps: Vec::new() }],
            length: Length::Whole { bytes: 0 },
            has_begun: false,
        }
    }

    /// More was claimed and sent to the engine as one steer.
    pub fn steered(&mut self, claim: Claim, input: &Input) {
        self.pictures += input.images.len();
        self.steers.push_back(Steer { rows: claim.rows, called_by: claim.called_by });
    }

    /// Whether the engine was shown pictures in this turn.
    pub fn showed_pictures(&self) -> bool {
        self.pictures > 0
    }

    /// The same prompt without its pictures, for a model that has turned out not to see; none where it had none.
    /// What was steered in before is the next turn's.
    pub fn begin_again_blind(&mut self) -> Option<Input> {
        if !self.showed_pictures() {
            return None;
        }
        self.pictures = 0;
        self.lost.extend(self.steers.drain(..).flat_map(|steer| steer.rows));
        Some(Input::text(&self.prompted))
    }

    /// Whether the engine has got as far as to ask the model, as far as it tells.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub fn step_began(&mut self) {
        self.has_begun = true;
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
        if let Some(steer) = self.steers.pop_front() {
            self.answers.push(Answer { to: steer.called_by, steps: Vec::new() });
        }
    }

    /// The rows that the model has never seen.
    pub fn unread(&self) -> Vec<RowId> {
        self.steers.iter().flat_map(|steer| &steer.rows).chain(&self.lost).copied().collect()
    }

    pub fn length(&self) -> Length {
        self.length
    }

    /// What was said to each call, without notes, the empty ones left out.
    pub fn answers(&self) -> Vec<Answered> {
        // A steer may come in the middle of a note, which then goes on in the next answer.
        let mut open_notes = OpenNotes::default();
        let answers = self.answers.iter().map(|Answer { to, steps }| {
            let steps: Vec<&str> =
                steps.iter().map(|step| step.trim()).filter(|step| !step.is_empty()).collect();
            let (text, open) = render::without_notes(&steps.join("\n\n"), open_notes);
            open_notes = open;
            Answered { text, to: *to }
        });
        answers.filter(|answer| !answer.text.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Image;
    use crate::types::GroupName;

    fn claim(rows: &[i64]) -> Claim {
        let rows: Vec<RowId> = rows.iter().map(|row| RowId::from_number(*row)).collect();
        Claim {
            turn: TurnId(1),
            called_by: rows.last().copied(),
            rows,
            messages: Vec::new(),
            earlier: Vec::new(),
            senders: Vec::new(),
        }
    }

    fn group() -> Group {
        Group::new(GroupName::parse("main").unwrap(), ChatId::new("console:main"), Role::Main)
    }

    fn begun() -> Turn {
        Turn::begin(&claim(&[1, 2]), &group(), &Input::text("prompt"))
    }

    fn answered(text: &str, to: i64) -> Answered {
        Answered { text: text.to_owned(), to: Some(RowId::from_number(to)) }
    }

    #[test]
    fn steps_are_paragraphs_and_steers_are_answered_apart() {
        let mut turn = begun();
        turn.step_began();
        turn.said("Let me ");
        turn.said("look.");
        turn.step_began();
        turn.said("It is 42.\n");
        turn.steered(claim(&[3, 4]), &Input::text("more"));
        turn.steer_taken();
        turn.step_began();
        turn.said("And 43.");
        assert_eq!(turn.answers(), [answered("Let me look.\n\nIt is 42.", 2), answered("And 43.", 4)]);
        assert!(matches!(turn.length(), Length::Whole { .. }));
    }

    #[test]
    fn a_note_that_a_steer_has_cut_stays_a_note() {
        let mut turn = begun();
        turn.said("It is 42. <internal>they will");
        turn.steered(claim(&[3]), &Input::text("more"));
        turn.steer_taken();
        turn.said("ask for more</internal>And 43.");
        assert_eq!(turn.answers(), [answered("It is 42.", 2), answered("And 43.", 3)]);
    }

    #[test]
    fn a_prompt_is_repeated_once_without_its_pictures() {
        assert_eq!(begun().begin_again_blind(), None);
        let pictures = vec![Image { mime: "image/png", bytes: vec![1] }];
        let with_picture = Input { text: "look".to_owned(), images: pictures };
        let mut turn = Turn::begin(&claim(&[1]), &group(), &with_picture);
        turn.steered(claim(&[2]), &Input::text("too early"));
        assert_eq!(turn.begin_again_blind(), Some(Input::text("look")));
        assert_eq!(turn.begin_again_blind(), None);
        // No receipt comes for what the failed attempt was told.
        turn.steered(claim(&[3]), &Input::text("later"));
        turn.steer_taken();
        turn.said("I cannot see it.");
        assert_eq!(turn.unread(), [RowId::from_number(2)]);
        assert_eq!(turn.answers(), [answered("I cannot see it.", 3)]);

        let mut turn = begun();
        turn.steered(claim(&[3]), &with_picture);
        assert_eq!(turn.begin_again_blind(), Some(Input::text("prompt")));
    }

    #[test]
    fn a_flood_is_cut() {
        let mut turn = begun();
        for _ in 0..1_000_000 {
            turn.step_began();
            turn.said("word ");
            turn.steer_taken();
        }
        assert_eq!(turn.length(), Length::Cut);
        let bytes: usize = turn.answers().iter().map(|answer| answer.text.len()).sum();
        assert!(bytes <= 2 * ANSWERS_MAX_BYTES);
    }
}
