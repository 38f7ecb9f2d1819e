//! `/help`: what a person can write to Kai in this chat.

use super::{Command, CommandContext, CommandDefinition, CommandOutcome};
use crate::notices;
use crate::types::Role;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/help",
    spanish: "/ayuda",
    summary: notices::help_command_summary,
    argument: None,
    decide: list_what_can_be_written,
    days_told: 0,
};

fn list_what_can_be_written(context: &CommandContext<'_>) -> CommandOutcome {
    let CommandContext { group, assistant, lang, .. } = *context;
    let trigger = match group.role {
        Role::Main => None,
        Role::Member => Some(group.trigger_or(assistant)),
    };
    let commands = Command::ALL.map(|command| {
        let typed = match command.argument(lang) {
            Some(argument) => format!("{} {argument}", command.word(lang)),
            None => command.word(lang).to_owned(),
        };
        (typed, command.summary(lang))
    });
    CommandOutcome::from_answer(notices::help_notice(lang, trigger, &commands))
}

#[cfg(test)]
mod tests {
    use super::super::ChatStanding;
    use super::super::tests::{answer_in, given};
    use super::*;
    use crate::types::{ChatId, Group, GroupName, Lang};

    fn answer(role: Role, trigger: Option<&str>, lang: Lang) -> String {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), role);
        let group = Group { trigger: trigger.map(str::to_owned), ..group };
        answer_in(&group, Command::Help, &ChatStanding::default(), lang)
    }

    #[test]
    fn it_says_how_kai_is_called_here_and_which_commands_there_are() {
        insta::assert_snapshot!(answer(Role::Member, None, Lang::En), @r"
        What you can write to me here:
        - @Kai anywhere in a message, or a reply to something that I said: I answer.
        - /help: I send this list.
        - /status: I say what I am doing here and how I am.
        - /usage: I say how many tokens I have used.
        - /tasks: I say what I have planned.
        - /stop: I stop at once, and drop what was asked before.
        - /new NAME: I begin anew, or return to the conversation with that name; a name need not be given.
        - /back: I return to the conversation before this one.
        - /compact: I put what I remember of this conversation into a summary, which costs fewer tokens.
        - /model NAME: I say which models there are, or think with this one from then on.
        - /warm: I get ready, so that my next answer comes sooner.
        Only my owner can use what begins with a slash.
        ");
        insta::assert_snapshot!(answer(Role::Main, None, Lang::En), @r"
        What you can write to me here:
        - Anything: every message in this chat is for me.
        - /help: I send this list.
        - /status: I say what I am doing here and how I am.
        - /usage: I say how many tokens I have used.
        - /tasks: I say what I have planned.
        - /stop: I stop at once, and drop what was asked before.
        - /new NAME: I begin anew, or return to the conversation with that name; a name need not be given.
        - /back: I return to the conversation before this one.
        - /compact: I put what I remember of this conversation into a summary, which costs fewer tokens.
        - /model NAME: I say which models there are, or think with this one from then on.
        - /warm: I get ready, so that my next answer comes sooner.
        Only my owner can use what begins with a slash.
        ");
        insta::assert_snapshot!(answer(Role::Member, Some("@Claw"), Lang::Es), @r"
        Lo que puedes escribirme aquí:
        - @Claw en cualquier parte de un mensaje, o una respuesta a algo que haya dicho yo: respondo.
        - /ayuda: envío esta lista.
        - /estado: digo qué estoy haciendo aquí y cómo estoy.
        - /uso: digo cuántos tokens he gastado.
        - /tareas: digo qué tengo planeado.
        - /parar: paro al momento y dejo lo que se haya pedido antes.
        - /nuevo NOMBRE: empiezo de nuevo, o vuelvo a la conversación de ese nombre; no hace falta dar un nombre.
        - /volver: vuelvo a la conversación anterior.
        - /compactar: resumo lo que recuerdo de esta conversación, que así gasta menos tokens.
        - /modelo NOMBRE: digo qué modelos hay, o pienso con este desde entonces.
        - /preparar: me preparo, para que mi próxima respuesta llegue antes.
        Lo que empieza por una barra solo lo puede usar mi propietario.
        ");
        insta::assert_snapshot!(answer(Role::Main, None, Lang::Es), @r"
        Lo que puedes escribirme aquí:
        - Lo que sea: cada mensaje de este chat es para mí.
        - /ayuda: envío esta lista.
        - /estado: digo qué estoy haciendo aquí y cómo estoy.
        - /uso: digo cuántos tokens he gastado.
        - /tareas: digo qué tengo planeado.
        - /parar: paro al momento y dejo lo que se haya pedido antes.
        - /nuevo NOMBRE: empiezo de nuevo, o vuelvo a la conversación de ese nombre; no hace falta dar un nombre.
        - /volver: vuelvo a la conversación anterior.
        - /compactar: resumo lo que recuerdo de esta conversación, que así gasta menos tokens.
        - /modelo NOMBRE: digo qué modelos hay, o pienso con este desde entonces.
        - /preparar: me preparo, para que mi próxima respuesta llegue antes.
        Lo que empieza por una barra solo lo puede usar mi propietario.
        ");
    }

    #[test]
    fn its_word_is_known_in_both_languages_and_only_alone() {
        for text in ["/help", "/ayuda", " /HELP\n", "/Ayuda ", "\u{a0}/help"] {
            assert_eq!(given(text), Some(Command::Help), "{text:?}");
        }
        for text in ["", "/", "help", "/help me", "/helpme", "@Kai /help", "//help", "/ayúda", "/help /help"]
        {
            assert_eq!(given(text), None, "{text:?}");
        }
    }
}
