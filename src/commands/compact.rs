//! `/compact`: what the agent remembers of the conversation is put into a summary, so that it costs fewer
//! tokens and leaves room.
//!
//! Both engines can do it by themselves, when nothing else runs. So it is noted for the chat's session, and
//! done as soon as its agent is free, before what waits there; if the agent rests, it is started for it. It
//! is asked for until it is done, over a restart, too. The chat is told when it is.

use super::{CommandContext, CommandDefinition, CommandEffect, CommandOutcome};
use crate::notices;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/compact",
    spanish: "/compactar",
    summary: notices::compact_command_summary,
    argument: None,
    decide: confirm_compaction,
    days_told: 0,
};

fn confirm_compaction(context: &CommandContext<'_>) -> CommandOutcome {
    let is_working = context.standing.turn_since.is_some();
    CommandOutcome {
        answer: notices::compact_notice(context.lang, is_working).to_owned(),
        effect: CommandEffect::CompactsSession,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{given, outcome_in};
    use super::super::{ChatStanding, Command, CommandEffect};
    use crate::types::{ChatId, Group, GroupName, Lang, Role};

    #[test]
    fn it_says_when_it_is_done_and_has_it_done() {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let busy = ChatStanding {
            turn_since: Some("2026-11-22T20:00:00Z".parse().unwrap()),
            ..ChatStanding::default()
        };
        let said = [Lang::En, Lang::Es].map(|lang| {
            [&ChatStanding::default(), &busy].map(|standing| {
                let outcome = outcome_in(&group, (Command::Compact, None), standing, lang);
                assert_eq!(outcome.effect, CommandEffect::CompactsSession);
                outcome.answer
            })
        });
        insta::assert_snapshot!(said.concat().join("\n"), @"
        I put what I remember of this conversation into a summary now, and say when it is done.
        As soon as I have finished what I am doing, I put what I remember of this conversation into a summary. I say when it is done.
        Ahora resumo lo que recuerdo de esta conversación, y aviso cuando esté hecho.
        En cuanto termine lo que estoy haciendo, resumo lo que recuerdo de esta conversación. Aviso cuando esté hecho.
        ");
    }

    #[test]
    fn its_word_is_known_in_both_languages_and_only_alone() {
        for text in ["/compact", "  /compact  ", "/Compactar\n", "/Compact"] {
            assert_eq!(given(text), Some(Command::Compact), "{text:?}");
        }
        for text in ["/compact now please", "/compaction", "please compact the conversation"] {
            assert_eq!(given(text), None, "{text:?}");
        }
    }
}
