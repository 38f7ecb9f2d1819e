//! What happens with the messages of a turn when it ends, and when its chat is answered next.

use super::Rules;
use crate::notices::{self, CompactionResult};
use crate::types::Outage;

/// How often a message is tried before it is parked and the chat is told.
pub const MAX_ATTEMPTS: u32 = 3;

/// What happens with a turn's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnOutcome {
    Answered,
    /// They are tried again, until [`MAX_ATTEMPTS`]; then they are parked, and `notice` is said.
    Failed {
        notice: String,
    },
    /// They are parked at once, since another try cannot help; `notice` is said.
    Hopeless {
        notice: String,
    },
    /// They go back into the queue, and the attempt does not count: it was no attempt to answer.
    Returned,
    /// They are over without an answer, since the command of their task said that there is nothing to do.
    Skipped,
    /// They go back into the queue, uncounted, until the outage is over. A chat that was not told of it yet
    /// reads `to_chat`; the owner reads `to_owner`. If other chats are answered meanwhile and these rows
    /// never are, they are parked and `gave_up` is said.
    Kept {
        outage: Outage,
        to_chat: String,
        to_owner: String,
        gave_up: String,
    },
}

/// What a finished turn leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingAfterTurn {
    NothingPending,
    /// There is more to answer now.
    MorePending,
    /// The rows are tried again after a pause. This is the number of the attempt, counted from 1.
    RetryPending {
        attempt: u32,
    },
    /// The rows are tried again when the outage is over.
    KeptPending(Outage),
}

impl PendingAfterTurn {
    /// The result if nothing prevents going on at once.
    pub fn from_next(has_next: bool) -> Self {
        if has_next { Self::MorePending } else { Self::NothingPending }
    }
}

/// The sentence for a chat whose session is not put into a summary, since its tokens of the day are used up.
pub fn limited_compaction_notice(rules: &Rules) -> String {
    rules.prefix_notice(notices::compaction_over_notice(rules.lang, CompactionResult::OverDailyLimit))
}

/// What is known of a turn when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnFacts {
    /// How often its most tried call was tried, this time included.
    pub most_attempts: u32,
    /// How often its chat has failed, this time included, while other chats whose turn came later were
    /// answered. It is looked up only for an outage that may depend on the messages.
    pub tried_since_others_were_answered: u32,
}

/// What happens with the rows of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsFate<'a> {
    Done,
    /// They go back into the queue; the attempt counts.
    TriedAgain,
    /// The rows that were tried too often are given up, and their chat is told. The others are tried again.
    Parked {
        from_attempts: u32,
        notice: &'a str,
    },
    /// They are over as if there had been no turn.
    Skipped,
    /// They go back into the queue as if there had been no turn.
    Returned,
    /// The same, until the outage is over.
    Kept {
        outage: Outage,
        to_chat: &'a str,
        to_owner: &'a str,
    },
}

/// Decides what happens with the rows of a turn that has ended.
pub fn after_turn(outcome: &TurnOutcome, facts: TurnFacts) -> RowsFate<'_> {
    match outcome {
        TurnOutcome::Answered => RowsFate::Done,
        TurnOutcome::Failed { notice } if facts.most_attempts >= MAX_ATTEMPTS => {
            RowsFate::Parked { from_attempts: MAX_ATTEMPTS, notice }
        }
        TurnOutcome::Failed { .. } => RowsFate::TriedAgain,
        TurnOutcome::Hopeless { notice } => RowsFate::Parked { from_attempts: 1, notice },
        TurnOutcome::Skipped => RowsFate::Skipped,
        TurnOutcome::Returned => RowsFate::Returned,
        TurnOutcome::Kept { outage, gave_up, .. }
            if is_caused_by_messages(*outage, facts.tried_since_others_were_answered) =>
        {
            RowsFate::Parked { from_attempts: 1, notice: gave_up }
        }
        TurnOutcome::Kept { outage, to_chat, to_owner, .. } => {
            RowsFate::Kept { outage: *outage, to_chat, to_owner }
        }
    }
}

/// When a chat is answered next. `has_next`: whether something waits there.
pub fn pending_after_turn(outcome: &TurnOutcome, facts: TurnFacts, has_next: bool) -> PendingAfterTurn {
    match outcome {
        TurnOutcome::Failed { .. } if has_next && facts.most_attempts < MAX_ATTEMPTS => {
            PendingAfterTurn::RetryPending { attempt: facts.most_attempts }
        }
        TurnOutcome::Kept { outage, .. } if has_next => PendingAfterTurn::KeptPending(*outage),
        TurnOutcome::Answered
        | TurnOutcome::Failed { .. }
        | TurnOutcome::Hopeless { .. }
        | TurnOutcome::Skipped
        | TurnOutcome::Returned
        | TurnOutcome::Kept { .. } => PendingAfterTurn::from_next(has_next),
    }
}

/// Whether Kimi refuses the messages of this turn rather than the account: they have failed this often while
/// other chats whose turn came later were answered.
pub fn is_caused_by_messages(outage: Outage, tried_since_others_were_answered: u32) -> bool {
    outage.may_depend_on_messages() && tried_since_others_were_answered >= MAX_ATTEMPTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(most_attempts: u32, tried_since_others_were_answered: u32) -> TurnFacts {
        TurnFacts { most_attempts, tried_since_others_were_answered }
    }

    fn failed() -> TurnOutcome {
        TurnOutcome::Failed { notice: "sorry".to_owned() }
    }

    fn kept(outage: Outage) -> TurnOutcome {
        TurnOutcome::Kept {
            outage,
            to_chat: "later".to_owned(),
            to_owner: "look".to_owned(),
            gave_up: "sorry".to_owned(),
        }
    }

    #[test]
    fn only_what_may_come_from_messages_is_ever_theirs() {
        for outage in Outage::ALL {
            let tries = [0, 2, 3, 100].map(|tries| is_caused_by_messages(outage, tries));
            let theirs = outage.may_depend_on_messages();
            assert_eq!(tries, [false, false, theirs, theirs], "{outage:?}");
        }
    }

    #[test]
    fn what_fails_is_tried_three_times() {
        for (attempts, fate, pending) in [
            (1, RowsFate::TriedAgain, PendingAfterTurn::RetryPending { attempt: 1 }),
            (2, RowsFate::TriedAgain, PendingAfterTurn::RetryPending { attempt: 2 }),
            (3, RowsFate::Parked { from_attempts: 3, notice: "sorry" }, PendingAfterTurn::MorePending),
        ] {
            assert_eq!(after_turn(&failed(), facts(attempts, 0)), fate);
            assert_eq!(pending_after_turn(&failed(), facts(attempts, 0), true), pending);
        }
        let hopeless = TurnOutcome::Hopeless { notice: "sorry".to_owned() };
        let parked = RowsFate::Parked { from_attempts: 1, notice: "sorry" };
        assert_eq!(after_turn(&hopeless, facts(1, 0)), parked, "another try cannot help");
    }

    #[test]
    fn an_outage_keeps_what_was_asked_unless_others_are_answered_meanwhile() {
        let of_all = RowsFate::Kept { outage: Outage::QuotaUsedUp, to_chat: "later", to_owner: "look" };
        assert_eq!(after_turn(&kept(Outage::QuotaUsedUp), facts(1, 100)), of_all);
        let maybe = RowsFate::Kept { outage: Outage::Refused, to_chat: "later", to_owner: "look" };
        assert_eq!(after_turn(&kept(Outage::Refused), facts(1, 2)), maybe);
        let theirs = RowsFate::Parked { from_attempts: 1, notice: "sorry" };
        assert_eq!(after_turn(&kept(Outage::Refused), facts(1, 3)), theirs);
        let pending = pending_after_turn(&kept(Outage::Refused), facts(1, 0), true);
        assert_eq!(pending, PendingAfterTurn::KeptPending(Outage::Refused));
    }

    fn outcome() -> impl Strategy<Value = TurnOutcome> {
        prop_oneof![
            Just(TurnOutcome::Answered),
            Just(failed()),
            Just(TurnOutcome::Hopeless { notice: "sorry".to_owned() }),
            Just(TurnOutcome::Skipped),
            Just(TurnOutcome::Returned),
            prop::sample::select(Outage::ALL.to_vec()).prop_map(kept),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_tried_for_ever_given_up_in_silence_or_waited_for_in_vain(
            outcome in outcome(), attempts: u32, tries: u32, has_next: bool,
        ) {
            let facts = facts(attempts, tries);
            match after_turn(&outcome, facts) {
                RowsFate::TriedAgain => prop_assert!(attempts < MAX_ATTEMPTS),
                RowsFate::Parked { notice, .. } => prop_assert_eq!(notice, "sorry"),
                RowsFate::Done => prop_assert_eq!(&outcome, &TurnOutcome::Answered),
                RowsFate::Skipped => prop_assert_eq!(&outcome, &TurnOutcome::Skipped),
                RowsFate::Returned => prop_assert_eq!(&outcome, &TurnOutcome::Returned),
                RowsFate::Kept { to_chat, to_owner, .. } => prop_assert_eq!((to_chat, to_owner), ("later", "look")),
            }
            let waits = pending_after_turn(&outcome, facts, has_next) != PendingAfterTurn::NothingPending;
            prop_assert_eq!(waits, has_next);
        }
    }
}
