//! `/warm`: starts the chat's agent before anything is asked, so that the next answer need not wait for it.
//!
//! The agent starts ahead of need, as when somebody types: it takes a free slot, and ends soon if no message
//! follows.

use super::{CommandContext, CommandDefinition, CommandEffect, CommandOutcome};
use crate::notices;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/warm",
    spanish: "/preparar",
    summary: notices::warm_command_summary,
    argument: None,
    decide: confirm_warm_start,
    days_told: 0,
};

fn confirm_warm_start(context: &CommandContext<'_>) -> CommandOutcome {
    CommandOutcome {
        answer: notices::warm_notice(context.lang).to_owned(),
        effect: CommandEffect::StartsAgent,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{given, outcome_in};
    use super::super::{ChatStanding, Command, CommandEffect};
    use crate::types::{ChatId, Group, GroupName, Lang, Role};

    #[test]
    fn its_word_is_known_in_both_languages_and_it_starts_the_agent() {
        for text in ["/warm", "/Preparar\n"] {
            assert_eq!(given(text), Some(Command::Warm), "{text:?}");
        }
        assert_eq!(given("/warm up"), None);
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let outcome = outcome_in(&group, (Command::Warm, None), &ChatStanding::default(), Lang::En);
        assert_eq!(outcome.effect, CommandEffect::StartsAgent);
    }
}
