//! `/new`: the next prompt begins in a fresh session. `/new NAME` gives it a name, or returns to the one that has it.
//!
//! Nothing is deleted: a session is the name of a history, and the old history stays in its place. A turn that runs
//! goes on to its end in the old session, and is told nothing more; the engine is closed before the next prompt, as
//! it holds the history that it was started with.

use super::{ChatSession, CommandContext, CommandDefinition, CommandEffect, CommandOutcome};
use crate::notices::{self, SessionChange};

/// The longest name, in characters: it stands in a sentence.
const NAME_MAX: usize = 40;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/new",
    spanish: "/nuevo",
    summary: notices::new_command_summary,
    argument: Some(notices::name_placeholder),
    decide: begin_or_return,
    days_told: 0,
};

fn begin_or_return(context: &CommandContext<'_>) -> CommandOutcome {
    let CommandContext { standing, lang, .. } = *context;
    let words: Vec<&str> = context.argument.unwrap_or_default().split_whitespace().collect();
    let name = words.join(" ");
    if name.chars().count() > NAME_MAX {
        return CommandOutcome::from_answer(notices::session_name_too_long_notice(lang, NAME_MAX));
    }
    let is_it = |session: &&ChatSession| session.name.to_lowercase() == name.to_lowercase();
    match standing.sessions.iter().find(is_it) {
        Some(session) => change_to(context, session.clone(), SessionChange::Returns),
        None => {
            let id = unused_session_id(&standing.sessions);
            let name = if name.is_empty() { id.clone() } else { name };
            change_to(context, ChatSession { id, name, left_nth: None }, SessionChange::Begins)
        }
    }
}

/// Leaves the current session for this one.
pub(super) fn change_to(
    context: &CommandContext<'_>,
    to: ChatSession,
    change: SessionChange,
) -> CommandOutcome {
    let CommandContext { standing, lang, .. } = *context;
    // There is always one; it may be the one that is meant.
    let Some(left) = standing.sessions.first().filter(|current| current.id != to.id) else {
        return CommandOutcome::from_answer(notices::same_session_notice(lang, &to.name));
    };
    let is_working = standing.turn_since.is_some();
    CommandOutcome {
        answer: notices::session_notice(lang, change, &to.name, &left.name, is_working),
        effect: CommandEffect::ChangesSession(to),
    }
}

/// An id that no session of the chat has, as id or as name.
fn unused_session_id(sessions: &[ChatSession]) -> String {
    let mut number = sessions.len() + 1;
    loop {
        let id = format!("chat-{number}");
        let is_taken = |session: &ChatSession| session.id == id || session.name.to_lowercase() == id;
        if !sessions.iter().any(is_taken) {
            return id;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::outcome_in;
    use super::super::{ChatStanding, Command};
    use super::*;
    use crate::types::{ChatId, Group, GroupName, Lang, Role};

    fn session(id: &str, name: &str, left_nth: Option<i64>) -> ChatSession {
        ChatSession { id: id.to_owned(), name: name.to_owned(), left_nth }
    }

    fn outcome(
        command: Command,
        argument: Option<&str>,
        sessions: &[ChatSession],
        lang: Lang,
    ) -> CommandOutcome {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let standing = ChatStanding { sessions: sessions.to_vec(), ..ChatStanding::default() };
        outcome_in(&group, (command, argument), &standing, lang)
    }

    #[test]
    fn it_begins_a_session_or_returns_to_the_one_with_that_name() {
        let first = [session("main", "main", None)];
        let later = [
            session("chat-2", "Trip", None),
            session("main", "main", Some(1)),
            session("x", "chat-4", Some(2)),
        ];
        for (sessions, argument, expected) in [
            (&first[..], None, Some(("chat-2", "chat-2"))),
            (&first, Some("Trip"), Some(("chat-2", "Trip"))),
            (&first, Some("MAIN"), None),
            (&later, None, Some(("chat-5", "chat-5"))),
            (&later, Some("  trip "), None),
            (&later, Some("Main"), Some(("main", "main"))),
            (&later, Some("Chat-4"), Some(("x", "chat-4"))),
            (&later, Some("to  Rome"), Some(("chat-5", "to Rome"))),
            (
                &later,
                Some("a name of more characters than forty-one"),
                Some(("chat-5", "a name of more characters than forty-one")),
            ),
            (&later, Some("a name of more characters than forty-oneX"), None),
        ] {
            let effect = outcome(Command::New, argument, sessions, Lang::En).effect;
            let expected = match expected {
                Some((id, name)) => CommandEffect::ChangesSession(session(id, name, None)),
                None => CommandEffect::Nothing,
            };
            // When it was left last does not matter.
            let effect = match effect {
                CommandEffect::ChangesSession(to) => {
                    CommandEffect::ChangesSession(ChatSession { left_nth: None, ..to })
                }
                CommandEffect::Nothing
                | CommandEffect::StartsAgent
                | CommandEffect::CompactsSession
                | CommandEffect::StopsWork
                | CommandEffect::ShowsChart(_)
                | CommandEffect::ChoosesModel(_) => effect,
            };
            assert_eq!(effect, expected, "{argument:?}");
        }
    }

    #[test]
    fn the_one_before_is_the_one_that_was_left_last() {
        let effect = |sessions: &[ChatSession]| outcome(Command::Back, None, sessions, Lang::En).effect;
        let (main, trip, work) = (
            session("main", "main", Some(3)),
            session("chat-2", "Trip", Some(2)),
            session("chat-3", "work", Some(1)),
        );
        assert_eq!(effect(&[work.clone(), trip.clone(), main.clone()]), CommandEffect::ChangesSession(main));
        assert_eq!(effect(&[trip.clone(), work.clone()]), CommandEffect::ChangesSession(work));
        assert_eq!(effect(&[trip]), CommandEffect::Nothing);
    }

    #[test]
    fn it_says_where_it_is_and_what_was_kept() {
        let first = [session("main", "main", None)];
        let later = [session("chat-2", "Trip", None), session("main", "main", Some(1))];
        let said = [Lang::En, Lang::Es].map(|lang| {
            [
                outcome(Command::New, None, &first, lang),
                outcome(Command::New, Some("Trip"), &first, lang),
                outcome(Command::New, Some("trip"), &later, lang),
                outcome(Command::New, Some(&"x".repeat(41)), &later, lang),
                outcome(Command::Back, None, &later, lang),
                outcome(Command::Back, None, &first, lang),
            ]
            .map(|outcome| outcome.answer)
            .join("\n")
        });
        insta::assert_snapshot!(said.join("\n"), @r"
        From your next message on I begin anew and remember nothing of this conversation. The new one is called “chat-2”; the old one is kept as “main”, and /back returns to it.
        From your next message on I begin anew and remember nothing of this conversation. The new one is called “Trip”; the old one is kept as “main”, and /back returns to it.
        This is the conversation “Trip” already.
        That name is too long: at most 40 characters. I have changed nothing.
        From your next message on I am back in the conversation “main”. The one that you leave is kept as “Trip”; /back returns to it.
        There is no earlier conversation in this chat; /new begins another one.
        Desde tu próximo mensaje empiezo de nuevo y no recuerdo nada de esta conversación. La nueva se llama «chat-2»; la anterior queda guardada como «main», y con /volver se vuelve a ella.
        Desde tu próximo mensaje empiezo de nuevo y no recuerdo nada de esta conversación. La nueva se llama «Trip»; la anterior queda guardada como «main», y con /volver se vuelve a ella.
        Esta ya es la conversación «Trip».
        Ese nombre es demasiado largo: 40 caracteres como mucho. No he cambiado nada.
        Desde tu próximo mensaje vuelvo a la conversación «main». La que dejas queda guardada como «Trip»; con /volver se vuelve a ella.
        En este chat no hay ninguna conversación anterior; /nuevo empieza otra.
        ");
    }
}
