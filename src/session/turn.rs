//! One turn as it runs: the rows that it holds, what was steered into it, and the answer so far.

use std::collections::VecDeque;

use super::token_limit::TurnTokenLimit;
use crate::agent::EngineInput;
use crate::render::{self, OpenHiddenTags};
use crate::store::{Claim, RowId};
use crate::types::{ChatId, Group, Role, TurnId};

/// The most bytes of one turn's answers: sixteen full messages, more than anybody reads in a chat. What an
/// engine says beyond that is dropped as it comes, or it would fill this machine's memory.
const ANSWERS_MAX_BYTES: usize = 64 * 1024;

/// The running turn of a session.
#[derive(Debug)]
pub struct Turn {
    pub id: TurnId,
    pub chat: ChatId,
    pub role: Role,
    pub work: TurnWork,
    /// The text that the engine was prompted with.
    prompted: String,
    /// How many images the engine was shown, with the prompt or a steer.
    pictures: usize,
    /// What was steered in and has no receipt yet, oldest first.
    steers: VecDeque<PendingSteer>,
    /// Rows of steers for which no receipt will come.
    lost: Vec<RowId>,
    /// One answer for the prompt and one for each steer that reached the model.
    answers: Vec<AnswerDraft>,
    length: AnswerLength,
    has_begun: bool,
    is_stopped: bool,
    /// It has used all the tokens that it may, and is ended.
    tokens_used_up: Option<TurnTokenLimit>,
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnWork {
    /// What waits in the chat is answered.
    Answers,
    /// A task is done in a session of its own.
    IsolatedRun,
    /// The session is put into a summary. Nobody is answered.
    Compaction,
}

/// Whether all that the engine said is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    Whole {
        bytes: usize,
    },
    /// The rest went beyond [`ANSWERS_MAX_BYTES`].
    Cut,
}

/// A steer that the engine was sent.
#[derive(Debug)]
struct PendingSteer {
    rows: Vec<RowId>,
    called_by: Option<RowId>,
}

/// What the engine said, one paragraph for each step.
#[derive(Debug)]
struct AnswerDraft {
    to: Option<RowId>,
    steps: Vec<String>,
}

/// What was said to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnAnswer {
    pub text: String,
    /// The message that called for it.
    pub to: Option<RowId>,
}

impl Turn {
    /// `claim` was sent to the engine as `prompted`.
    pub fn from_claim(claim: &Claim, group: &Group, prompted: &EngineInput) -> Self {
        Self {
            id: claim.turn,
            chat: group.chat.clone(),
            role: group.role,
            work: if claim.session.is_of_run() { TurnWork::IsolatedRun } else { TurnWork::Answers },
            prompted: prompted.text.clone(),
            pictures: prompted.images.len(),
            steers: VecDeque::new(),
            lost: Vec::new(),
            answers: vec![AnswerDraft { to: claim.called_by, steps: Vec::new() }],
            length: AnswerLength::Whole { bytes: 0 },
            has_begun: false,
            is_stopped: false,
            tokens_used_up: None,
        }
    }

    /// Puts the session of a group into a summary.
    pub fn for_compaction(id: TurnId, group: &Group) -> Self {
        Self {
            id,
            chat: group.chat.clone(),
            role: group.role,
            work: TurnWork::Compaction,
            prompted: String::new(),
            pictures: 0,
            steers: VecDeque::new(),
            lost: Vec::new(),
            answers: Vec::new(),
            length: AnswerLength::Whole { bytes: 0 },
            has_begun: false,
            is_stopped: false,
            tokens_used_up: None,
        }
    }

    /// Whether its end says something of what the chat's agent remembers.
    pub fn is_of_chat_memory(&self) -> bool {
        match self.work {
            TurnWork::Answers | TurnWork::Compaction => true,
            TurnWork::IsolatedRun => false,
        }
    }

    /// The owner has stopped it: its rows are over, and nothing that it says is sent.
    pub fn mark_stopped(&mut self) {
        self.is_stopped = true;
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub fn record_tokens_used_up(&mut self, limit: TurnTokenLimit) {
        self.tokens_used_up = Some(limit);
    }

    /// The limit at which the turn is ended, if it was reached.
    pub fn exceeded_token_limit(&self) -> Option<TurnTokenLimit> {
        self.tokens_used_up
    }

    /// More was claimed and sent to the engine as one steer.
    pub fn record_steer(&mut self, claim: Claim, input: &EngineInput) {
        self.pictures += input.images.len();
        self.steers.push_back(PendingSteer { rows: claim.rows, called_by: claim.called_by });
    }

    /// Whether the engine was shown images in this turn.
    pub fn has_shown_images(&self) -> bool {
        self.pictures > 0
    }

    /// The same prompt without its images, for a model that has turned out not to see; `None` if there were
    /// no images. What was steered in before is left to the next turn.
    pub fn restart_without_images(&mut self) -> Option<EngineInput> {
        if !self.has_shown_images() {
            return None;
        }
        self.pictures = 0;
        self.lost.extend(self.steers.drain(..).flat_map(|steer| steer.rows));
        Some(EngineInput::from_text(&self.prompted))
    }

    /// Whether the engine has said that it asks the model.
    pub fn has_reached_model(&self) -> bool {
        self.has_begun
    }

    pub fn start_step(&mut self) {
        self.has_begun = true;
        if let Some(answer) = self.answers.last_mut()
            && answer.steps.last().is_some_and(|step| !step.is_empty())
        {
            answer.steps.push(String::new());
        }
    }

    pub fn append_text(&mut self, piece: &str) {
        let AnswerLength::Whole { bytes } = self.length else { return };
        if bytes + piece.len() > ANSWERS_MAX_BYTES {
            self.length = AnswerLength::Cut;
            return;
        }
        self.length = AnswerLength::Whole { bytes: bytes + piece.len() };
        let Some(answer) = self.answers.last_mut() else { return };
        match answer.steps.last_mut() {
            Some(step) => step.push_str(piece),
            None => answer.steps.push(piece.to_owned()),
        }
    }

    /// The oldest steer has reached the model. What follows answers it.
    pub fn acknowledge_steer(&mut self) {
        if let Some(steer) = self.steers.pop_front() {
            self.answers.push(AnswerDraft { to: steer.called_by, steps: Vec::new() });
        }
    }

    /// The rows that the model has never seen.
    pub fn unread_rows(&self) -> Vec<RowId> {
        self.steers.iter().flat_map(|steer| &steer.rows).chain(&self.lost).copied().collect()
    }

    pub fn answer_length(&self) -> AnswerLength {
        self.length
    }

    /// What was said to each call, without notes. Empty answers are left out.
    pub fn collect_answers(&self) -> Vec<TurnAnswer> {
        // A steer may come in the middle of a note. The note then goes on in the next answer.
        let mut open_notes = OpenHiddenTags::default();
        let answers = self.answers.iter().map(|AnswerDraft { to, steps }| {
            let steps: Vec<&str> =
                steps.iter().map(|step| step.trim()).filter(|step| !step.is_empty()).collect();
            let (text, open) = render::strip_hidden_text_after(&steps.join("\n\n"), open_notes);
            open_notes = open;
            TurnAnswer { text, to: *to }
        });
        answers.filter(|answer| !answer.text.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Image;
    use crate::store::EngineSession;
    use crate::types::GroupName;

    fn claim(rows: &[i64]) -> Claim {
        let rows: Vec<RowId> = rows.iter().map(|row| RowId::from_number(*row)).collect();
        Claim {
            turn: TurnId(1),
            session: EngineSession::OfChat("main".to_owned()),
            only_if: None,
            tokens_left: None,
            called_by: rows.last().copied(),
            has_owner_answer: false,
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
        Turn::from_claim(&claim(&[1, 2]), &group(), &EngineInput::from_text("prompt"))
    }

    fn answered(text: &str, to: i64) -> TurnAnswer {
        TurnAnswer { text: text.to_owned(), to: Some(RowId::from_number(to)) }
    }

    #[test]
    fn steps_are_paragraphs_and_steers_are_answered_apart() {
        let mut turn = begun();
        turn.start_step();
        turn.append_text("Let me ");
        turn.append_text("look.");
        turn.start_step();
        turn.append_text("It is 42.\n");
        turn.record_steer(claim(&[3, 4]), &EngineInput::from_text("more"));
        turn.acknowledge_steer();
        turn.start_step();
        turn.append_text("And 43.");
        assert_eq!(
            turn.collect_answers(),
            [answered("Let me look.\n\nIt is 42.", 2), answered("And 43.", 4)]
        );
        assert!(matches!(turn.answer_length(), AnswerLength::Whole { .. }));
    }

    #[test]
    fn a_note_that_a_steer_has_cut_stays_a_note() {
        let mut turn = begun();
        turn.append_text("It is 42. <internal>they will");
        turn.record_steer(claim(&[3]), &EngineInput::from_text("more"));
        turn.acknowledge_steer();
        turn.append_text("ask for more</internal>And 43.");
        assert_eq!(turn.collect_answers(), [answered("It is 42.", 2), answered("And 43.", 3)]);
    }

    #[test]
    fn a_prompt_is_repeated_once_without_its_pictures() {
        assert_eq!(begun().restart_without_images(), None);
        let pictures = vec![Image { mime: "image/png", bytes: vec![1] }];
        let with_picture = EngineInput { text: "look".to_owned(), images: pictures };
        let mut turn = Turn::from_claim(&claim(&[1]), &group(), &with_picture);
        turn.record_steer(claim(&[2]), &EngineInput::from_text("too early"));
        assert_eq!(turn.restart_without_images(), Some(EngineInput::from_text("look")));
        assert_eq!(turn.restart_without_images(), None);
        // No receipt comes for what was steered into the failed attempt.
        turn.record_steer(claim(&[3]), &EngineInput::from_text("later"));
        turn.acknowledge_steer();
        turn.append_text("I cannot see it.");
        assert_eq!(turn.unread_rows(), [RowId::from_number(2)]);
        assert_eq!(turn.collect_answers(), [answered("I cannot see it.", 3)]);

        let mut turn = begun();
        turn.record_steer(claim(&[3]), &with_picture);
        assert_eq!(turn.restart_without_images(), Some(EngineInput::from_text("prompt")));
    }

    #[test]
    fn a_flood_is_cut() {
        let mut turn = begun();
        for _ in 0..1_000_000 {
            turn.start_step();
            turn.append_text("word ");
            turn.acknowledge_steer();
        }
        assert_eq!(turn.answer_length(), AnswerLength::Cut);
        let bytes: usize = turn.collect_answers().iter().map(|answer| answer.text.len()).sum();
        assert!(bytes <= 2 * ANSWERS_MAX_BYTES);
    }
}
