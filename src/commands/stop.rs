//! `/stop`: ends what Kai does in this chat, at once.
//!
//! Whoever writes it wants quiet. So it is not only the running turn that ends: all that was asked here before is
//! over, also what waits for a slot, for another try, or for the end of an outage. What comes after it is answered.
//! The rows are settled and the answer is written in the transaction that stores the message; only then is the
//! session told, which cancels the turn and kills an engine that does not obey. A turn that has ended before is
//! answered, one that ends later finds itself over and says nothing, so that the chat hears one of the two.

use super::{CommandContext, CommandDefinition, CommandEffect, CommandOutcome};
use crate::notices;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/stop",
    spanish: "/parar",
    summary: notices::stop_command_summary,
    argument: None,
    decide: say_what_is_stopped,
    days_told: 0,
};

fn say_what_is_stopped(context: &CommandContext<'_>) -> CommandOutcome {
    let stopped = match (context.standing.turn_since, context.standing.waiting) {
        (Some(_), _) => notices::StoppedWork::Turn,
        (None, 0) => notices::StoppedWork::Nothing,
        (None, _) => notices::StoppedWork::Waiting,
    };
    let answer = notices::stop_notice(context.lang, stopped).to_owned();
    CommandOutcome { answer, effect: CommandEffect::StopsWork }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::tests::{answer_in_family, given};
    use super::super::{ChatStanding, Command};
    use crate::types::Lang;

    fn answer(turn_since: Option<Timestamp>, waiting: u64, lang: Lang) -> String {
        let standing = ChatStanding { turn_since, waiting, ..ChatStanding::default() };
        answer_in_family(Command::Stop, &standing, lang)
    }

    #[test]
    fn it_says_what_it_has_stopped() {
        let now = Some(Timestamp::UNIX_EPOCH);
        let said = [Lang::En, Lang::Es].map(|lang| {
            [(now, 0), (now, 2), (None, 2), (None, 0)].map(|(turn, waiting)| answer(turn, waiting, lang))
        });
        insta::assert_snapshot!(said.concat().join("\n"), @r"
        I have stopped. What was asked before is dropped; if you still want it, ask me again.
        I have stopped. What was asked before is dropped; if you still want it, ask me again.
        I had not begun yet. What was asked before is dropped; if you still want it, ask me again.
        I am not working on anything in this chat.
        He parado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.
        He parado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.
        Aún no había empezado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.
        No estoy haciendo nada en este chat.
        ");
    }

    #[test]
    fn its_word_is_known_in_both_languages() {
        for text in ["/stop", " /Parar\n"] {
            assert_eq!(given(text), Some(Command::Stop), "{text:?}");
        }
        for text in ["stop", "/stop it", "/stopp"] {
            assert_eq!(given(text), None, "{text:?}");
        }
    }
}
