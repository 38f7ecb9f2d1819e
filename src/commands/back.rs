//! `/back`: the next prompt is in the session that was left last. Twice leads back again.

use super::new::change_to;
use super::{CommandContext, CommandDefinition, CommandOutcome};
use crate::notices::{self, SessionChange};

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/back",
    spanish: "/volver",
    summary: notices::back_command_summary,
    argument: None,
    decide: return_to_previous,
    days_told: 0,
};

fn return_to_previous(context: &CommandContext<'_>) -> CommandOutcome {
    let others = context.standing.sessions.iter().skip(1);
    match others.max_by_key(|session| session.left_nth) {
        Some(session) => change_to(context, session.clone(), SessionChange::Returns),
        None => CommandOutcome::from_answer(notices::no_earlier_session_notice(context.lang)),
    }
}
