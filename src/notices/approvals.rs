//! What the owner is asked in the main channel, and what they hear of the end of each question.

use super::pick_language;
use crate::types::{GroupName, Lang};
use crate::writing::is_bidi_control;

/// The longest name that a question shows, in characters.
const NAME_MAX_CHARS: usize = 60;

/// A stranger: the name that they gave themselves, and the phone number that WhatsApp has told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonWords<'a> {
    pub name: &'a str,
    pub number: Option<&'a str>,
}

/// What a question is about.
#[derive(Clone, Copy, Debug)]
pub enum HeldWords<'a> {
    SendMessage { chat: &'a str, text: &'a str },
    RemoveGroup { group: &'a GroupName },
    ServeChat { person: PersonWords<'a> },
    AskOwner { group: &'a str, question: &'a str },
}

/// The question. It says what exactly would happen, and how to answer.
pub fn owner_question(lang: Lang, held: HeldWords<'_>) -> String {
    let what = match (lang, held) {
        (Lang::En, HeldWords::SendMessage { chat, text }) => {
            format!("May I send this to {}, a chat that I do not serve?\n{}", shown(lang, chat), quote(text))
        }
        (Lang::Es, HeldWords::SendMessage { chat, text }) => {
            format!("¿Puedo enviar esto a {}, un chat que no atiendo?\n{}", shown(lang, chat), quote(text))
        }
        (Lang::En, HeldWords::RemoveGroup { group }) => format!(
            "May I stop serving the group {group}? Its tasks and its settings go; its folder and its history stay on the \
             server."
        ),
        (Lang::Es, HeldWords::RemoveGroup { group }) => format!(
            "¿Puedo dejar de atender el grupo {group}? Se pierden sus tareas y sus ajustes; su carpeta y su historial se \
             quedan en el servidor."
        ),
        (Lang::En, HeldWords::ServeChat { person }) => format!(
            "{} has written to me in a direct chat, which I do not serve. Shall I answer there from now on? That uses your \
             tokens.",
            shown_person(lang, person)
        ),
        (Lang::Es, HeldWords::ServeChat { person }) => format!(
            "{} me ha escrito en un chat directo, que no atiendo. ¿Respondo ahí de ahora en adelante? Eso gasta tus \
             tokens.",
            shown_person(lang, person)
        ),
        (Lang::En, HeldWords::AskOwner { group, question }) => {
            format!("The agent of the group {group} asks you:\n{}", quote(question))
        }
        (Lang::Es, HeldWords::AskOwner { group, question }) => {
            format!("El agente del grupo {group} te pregunta:\n{}", quote(question))
        }
    };
    let how = match held {
        HeldWords::SendMessage { .. } | HeldWords::RemoveGroup { .. } => pick_language(
            lang,
            "Reply to this message with yes or no, or put 👍 or 👎 on it, within 10 minutes.",
            "Responde a este mensaje con sí o no, o ponle 👍 o 👎, en los próximos 10 minutos.",
        ),
        HeldWords::ServeChat { .. } => pick_language(
            lang,
            "Reply to this message with yes or no, or put 👍 or 👎 on it, within a day. I ask only once.",
            "Responde a este mensaje con sí o no, o ponle 👍 o 👎, en el plazo de un día. Solo lo pregunto una vez.",
        ),
        HeldWords::AskOwner { .. } => pick_language(
            lang,
            "Reply to this message within a day, and I pass your words on.",
            "Responde a este mensaje en el plazo de un día y le paso tus palabras.",
        ),
    };
    format!("{what}\n{how}")
}

/// The owner has allowed it, and it was done.
pub fn granted_notice(lang: Lang, held: HeldWords<'_>) -> String {
    match (lang, held) {
        (Lang::En, HeldWords::SendMessage { chat, .. }) => {
            format!("I am sending the message to {}.", shown(lang, chat))
        }
        (Lang::Es, HeldWords::SendMessage { chat, .. }) => {
            format!("Envío el mensaje a {}.", shown(lang, chat))
        }
        (Lang::En, HeldWords::RemoveGroup { group }) => {
            format!("I do not serve the group {group} any more.")
        }
        (Lang::Es, HeldWords::RemoveGroup { group }) => format!("Ya no atiendo el grupo {group}."),
        (Lang::En, HeldWords::ServeChat { person }) => {
            format!("I answer {} from now on.", shown_person(lang, person))
        }
        (Lang::Es, HeldWords::ServeChat { person }) => {
            format!("Respondo a {} de ahora en adelante.", shown_person(lang, person))
        }
        (Lang::En, HeldWords::AskOwner { group, .. }) => {
            format!("I have passed your answer on to the group {group}.")
        }
        (Lang::Es, HeldWords::AskOwner { group, .. }) => {
            format!("He pasado tu respuesta al grupo {group}.")
        }
    }
}

/// A direct chat is served, as the owner has allowed, or as is the rule for all.
pub fn chat_served_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "I answer there from now on, as the group {group}. `nanokimi groups set {group} --daily-tokens NUMBER` on the \
             server limits what it may use, and `nanokimi groups remove {group}` ends it."
        ),
        Lang::Es => format!(
            "Respondo ahí de ahora en adelante, como el grupo {group}. `nanokimi groups set {group} --daily-tokens NÚMERO` \
             en el servidor limita lo que puede gastar, y `nanokimi groups remove {group}` lo termina."
        ),
    }
}

/// To the owner who wants all direct chats served: one more is.
pub fn new_chat_served_notice(lang: Lang, person: PersonWords<'_>, group: &GroupName) -> String {
    let served = chat_served_notice(lang, group);
    match lang {
        Lang::En => format!("{} has written to me in a direct chat. {served}", shown_person(lang, person)),
        Lang::Es => format!("{} me ha escrito en un chat directo. {served}", shown_person(lang, person)),
    }
}

/// To a direct chat that is served from now on.
pub fn chat_greeting(lang: Lang, assistant: &str) -> String {
    match lang {
        Lang::En => format!(
            "Hello, I am {assistant}, an assistant. I answer here from now on if you begin with @{assistant}. I have not \
             read what you wrote before: please write it again."
        ),
        Lang::Es => format!(
            "Hola, soy {assistant}, un asistente. Desde ahora respondo aquí si empiezas con @{assistant}. No he leído lo que \
             escribiste antes: vuelve a escribirlo, por favor."
        ),
    }
}

/// The owner has said no.
pub fn refused_notice(lang: Lang, held: HeldWords<'_>) -> String {
    match (lang, held) {
        (Lang::En, HeldWords::SendMessage { chat, .. }) => {
            format!("I do not send it to {}.", shown(lang, chat))
        }
        (Lang::Es, HeldWords::SendMessage { chat, .. }) => format!("No lo envío a {}.", shown(lang, chat)),
        (Lang::En, HeldWords::RemoveGroup { group }) => format!("I go on serving the group {group}."),
        (Lang::Es, HeldWords::RemoveGroup { group }) => format!("Sigo atendiendo el grupo {group}."),
        (Lang::En, HeldWords::ServeChat { person }) => {
            format!("I do not answer {}, and do not ask again.", shown_person(lang, person))
        }
        (Lang::Es, HeldWords::ServeChat { person }) => {
            format!("No respondo a {} y no vuelvo a preguntarlo.", shown_person(lang, person))
        }
        (Lang::En, HeldWords::AskOwner { group, .. }) => format!("The group {group} gets no answer."),
        (Lang::Es, HeldWords::AskOwner { group, .. }) => format!("El grupo {group} no recibe respuesta."),
    }
}

/// Nobody has answered in time.
pub fn expired_notice(lang: Lang, held: HeldWords<'_>) -> String {
    match (lang, held) {
        (Lang::En, HeldWords::SendMessage { chat, .. }) => format!(
            "Nobody answered within 10 minutes, so I have not sent the message to {}. If you still want it, ask me again.",
            shown(lang, chat)
        ),
        (Lang::Es, HeldWords::SendMessage { chat, .. }) => format!(
            "Nadie ha respondido en 10 minutos, así que no he enviado el mensaje a {}. Si aún lo quieres, vuelve a \
             pedírmelo.",
            shown(lang, chat)
        ),
        (Lang::En, HeldWords::RemoveGroup { group }) => format!(
            "Nobody answered within 10 minutes, so I go on serving the group {group}. If you still want it, ask me again."
        ),
        (Lang::Es, HeldWords::RemoveGroup { group }) => format!(
            "Nadie ha respondido en 10 minutos, así que sigo atendiendo el grupo {group}. Si aún lo quieres, vuelve a \
             pedírmelo."
        ),
        (Lang::En, HeldWords::ServeChat { person }) => format!(
            "Nobody answered within a day, so I do not serve the chat of {}. `nanokimi groups add` on the server does it.",
            shown_person(lang, person)
        ),
        (Lang::Es, HeldWords::ServeChat { person }) => format!(
            "Nadie ha respondido en un día, así que no atiendo el chat de {}. `nanokimi groups add` en el servidor lo hace.",
            shown_person(lang, person)
        ),
        (Lang::En, HeldWords::AskOwner { group, .. }) => {
            format!("Nobody answered the question of the group {group} within a day. Its agent knows that.")
        }
        (Lang::Es, HeldWords::AskOwner { group, .. }) => {
            format!("Nadie ha respondido en un día a la pregunta del grupo {group}. Su agente lo sabe.")
        }
    }
}

/// An answer to a question that was answered before, or that nobody answered in time.
pub fn question_over_notice(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "That question is over, and your answer does nothing any more. If you still want it, ask me again.",
        "Esa pregunta ya está cerrada y tu respuesta no hace nada más. Si aún lo quieres, vuelve a pedírmelo.",
    )
}

/// The owner has allowed what is not so any more.
pub fn question_void_notice(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I have not done it, since things have changed since I asked. If you still want it, ask me again.",
        "No lo he hecho, porque las cosas han cambiado desde que pregunté. Si aún lo quieres, vuelve a pedírmelo.",
    )
}

/// A name that somebody chose, and beside it what it cannot change: the number.
fn shown_person(lang: Lang, PersonWords { name, number }: PersonWords<'_>) -> String {
    let number = match number {
        Some(number) => number,
        None => pick_language(lang, "number unknown", "número desconocido"),
    };
    format!("{} ({number})", shown(lang, name))
}

/// A name that somebody chose, on one line: nothing in it can pass for our words.
fn shown(lang: Lang, name: &str) -> String {
    let is_plain = |c: char| !is_bidi_control(c) && !matches!(c, '“' | '”' | '«' | '»');
    let plain: String = name.chars().filter(|c| is_plain(*c)).collect();
    let words = plain.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let line = match line.char_indices().nth(NAME_MAX_CHARS) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    };
    match lang {
        Lang::En => format!("“{line}”"),
        Lang::Es => format!("«{line}»"),
    }
}

/// A text as WhatsApp shows a quotation, each line of it: nothing in it can pass for our words.
fn quote(text: &str) -> String {
    let is_break =
        |c: char| matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let lines = text.split(is_break).filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("> {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lang: Lang) -> String {
        let group = GroupName::parse("friends").unwrap();
        let ana = PersonWords { name: "Ana” (+34600000002)", number: Some("+34600000001") };
        let held = [
            HeldWords::SendMessage { chat: "Friends\n\u{202e}of Ana", text: "Kai: On *Friday*\r\nat nine" },
            HeldWords::RemoveGroup { group: &group },
            HeldWords::ServeChat { person: ana },
            HeldWords::AskOwner { group: "family", question: "May we order pizza?" },
        ];
        let words = [owner_question, granted_notice, refused_notice, expired_notice];
        let told = held.iter().flat_map(|held| words.map(|words| words(lang, *held)));
        let rest = [
            new_chat_served_notice(lang, PersonWords { name: &"Ana ".repeat(40), number: None }, &group),
            chat_greeting(lang, "Kai"),
            question_over_notice(lang).to_owned(),
            question_void_notice(lang).to_owned(),
        ];
        told.chain(rest).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_owner_reads_what_would_happen_and_how_each_question_ends() {
        insta::assert_snapshot!(all(Lang::En), @r"
        May I send this to “Friends of Ana”, a chat that I do not serve?
        > Kai: On *Friday*
        > at nine
        Reply to this message with yes or no, or put 👍 or 👎 on it, within 10 minutes.
        I am sending the message to “Friends of Ana”.
        I do not send it to “Friends of Ana”.
        Nobody answered within 10 minutes, so I have not sent the message to “Friends of Ana”. If you still want it, ask me again.
        May I stop serving the group friends? Its tasks and its settings go; its folder and its history stay on the server.
        Reply to this message with yes or no, or put 👍 or 👎 on it, within 10 minutes.
        I do not serve the group friends any more.
        I go on serving the group friends.
        Nobody answered within 10 minutes, so I go on serving the group friends. If you still want it, ask me again.
        “Ana (+34600000002)” (+34600000001) has written to me in a direct chat, which I do not serve. Shall I answer there from now on? That uses your tokens.
        Reply to this message with yes or no, or put 👍 or 👎 on it, within a day. I ask only once.
        I answer “Ana (+34600000002)” (+34600000001) from now on.
        I do not answer “Ana (+34600000002)” (+34600000001), and do not ask again.
        Nobody answered within a day, so I do not serve the chat of “Ana (+34600000002)” (+34600000001). `nanokimi groups add` on the server does it.
        The agent of the group family asks you:
        > May we order pizza?
        Reply to this message within a day, and I pass your words on.
        I have passed your answer on to the group family.
        The group family gets no answer.
        Nobody answered the question of the group family within a day. Its agent knows that.
        “Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana …” (number unknown) has written to me in a direct chat. I answer there from now on, as the group friends. `nanokimi groups set friends --daily-tokens NUMBER` on the server limits what it may use, and `nanokimi groups remove friends` ends it.
        Hello, I am Kai, an assistant. I answer here from now on if you begin with @Kai. I have not read what you wrote before: please write it again.
        That question is over, and your answer does nothing any more. If you still want it, ask me again.
        I have not done it, since things have changed since I asked. If you still want it, ask me again.
        ");
        insta::assert_snapshot!(all(Lang::Es), @r"
        ¿Puedo enviar esto a «Friends of Ana», un chat que no atiendo?
        > Kai: On *Friday*
        > at nine
        Responde a este mensaje con sí o no, o ponle 👍 o 👎, en los próximos 10 minutos.
        Envío el mensaje a «Friends of Ana».
        No lo envío a «Friends of Ana».
        Nadie ha respondido en 10 minutos, así que no he enviado el mensaje a «Friends of Ana». Si aún lo quieres, vuelve a pedírmelo.
        ¿Puedo dejar de atender el grupo friends? Se pierden sus tareas y sus ajustes; su carpeta y su historial se quedan en el servidor.
        Responde a este mensaje con sí o no, o ponle 👍 o 👎, en los próximos 10 minutos.
        Ya no atiendo el grupo friends.
        Sigo atendiendo el grupo friends.
        Nadie ha respondido en 10 minutos, así que sigo atendiendo el grupo friends. Si aún lo quieres, vuelve a pedírmelo.
        «Ana (+34600000002)» (+34600000001) me ha escrito en un chat directo, que no atiendo. ¿Respondo ahí de ahora en adelante? Eso gasta tus tokens.
        Responde a este mensaje con sí o no, o ponle 👍 o 👎, en el plazo de un día. Solo lo pregunto una vez.
        Respondo a «Ana (+34600000002)» (+34600000001) de ahora en adelante.
        No respondo a «Ana (+34600000002)» (+34600000001) y no vuelvo a preguntarlo.
        Nadie ha respondido en un día, así que no atiendo el chat de «Ana (+34600000002)» (+34600000001). `nanokimi groups add` en el servidor lo hace.
        El agente del grupo family te pregunta:
        > May we order pizza?
        Responde a este mensaje en el plazo de un día y le paso tus palabras.
        He pasado tu respuesta al grupo family.
        El grupo family no recibe respuesta.
        Nadie ha respondido en un día a la pregunta del grupo family. Su agente lo sabe.
        «Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana Ana …» (número desconocido) me ha escrito en un chat directo. Respondo ahí de ahora en adelante, como el grupo friends. `nanokimi groups set friends --daily-tokens NÚMERO` en el servidor limita lo que puede gastar, y `nanokimi groups remove friends` lo termina.
        Hola, soy Kai, un asistente. Desde ahora respondo aquí si empiezas con @Kai. No he leído lo que escribiste antes: vuelve a escribirlo, por favor.
        Esa pregunta ya está cerrada y tu respuesta no hace nada más. Si aún lo quieres, vuelve a pedírmelo.
        No lo he hecho, porque las cosas han cambiado desde que pregunté. Si aún lo quieres, vuelve a pedírmelo.
        ");
    }
}
