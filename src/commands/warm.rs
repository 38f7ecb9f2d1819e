//! `/warm`: starts the chat's agent before anything is asked, so that the next answer need not wait for it.
//!
//! The agent starts ahead of need, as when somebody types: it takes a free slot, and ends soon if no message
//! follows.

use super::{CommandContext, CommandDefinition, CommandEffect};
use crate::notices;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/warm",
    spanish: "/preparar",
    summary: notices::warm_command_summary,
    answer: confirm_warm_start,
    effect: CommandEffect::StartsAgent,
    days_told: 0,
};

fn confirm_warm_start(context: &CommandContext<'_>) -> String {
    notices::warm_notice(context.lang).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Command, CommandEffect};

    #[test]
    fn its_word_is_known_in_both_languages_and_it_starts_the_agent() {
        for text in ["/warm", "/Preparar\n"] {
            let command = Command::from_text(text);
            assert_eq!(command, Some(Command::Warm), "{text:?}");
            assert_eq!(command.map(Command::effect), Some(CommandEffect::StartsAgent));
        }
        assert_eq!(Command::Help.effect(), CommandEffect::Nothing);
        assert_eq!(Command::from_text("/warm up"), None);
    }
}
