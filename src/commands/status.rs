//! `/status`: what Kai does in this chat, what keeps it from answering, and on what it runs.
//!
//! All that it tells is in the database or in the settings, and costs a few looks into indexes. So it is answered
//! like the other commands, in the transaction of intake: once, at once, and whatever the agents and Docker do.

use super::{CommandContext, CommandDefinition, CommandOutcome};
use crate::notices::{self, ChatStatus};

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/status",
    spanish: "/estado",
    summary: notices::status_command_summary,
    argument: None,
    decide: describe_chat,
    days_told: 1,
};

fn describe_chat(context: &CommandContext<'_>) -> CommandOutcome {
    let CommandContext { group, standing, engine, models, lang, now, .. } = *context;
    let minutes = standing.turn_since.map(|since| {
        // The clock may have been set back.
        u64::try_from(now.duration_since(since).as_mins()).unwrap_or(0)
    });
    CommandOutcome::from_answer(notices::status_notice(
        lang,
        &ChatStatus {
            minutes_in_turn: minutes,
            waiting: standing.waiting,
            outages: &standing.outages,
            tokens_today: standing.today().in_chat.counted_tokens(),
            daily_tokens: group.daily_tokens,
            engine: group.engine_or(engine).name(),
            model: group.model.as_deref().or(models.usual.as_deref()),
            version: env!("CARGO_PKG_VERSION"),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::answer_in_family;
    use super::super::{ChatStanding, Command, DayTokens};
    use crate::types::{Lang, Outage, TokenUsage};

    #[test]
    fn it_tells_of_work_of_outages_of_tokens_and_of_the_program() {
        let quiet = ChatStanding::default();
        let in_chat = TokenUsage { input: 12_000, cached: 9_000, output: 345 };
        let busy = ChatStanding {
            turn_since: Some("2026-11-22T20:00:00Z".parse().unwrap()),
            waiting: 2,
            outages: vec![Outage::NotLoggedIn, Outage::NoDocker],
            days: vec![DayTokens { in_chat, in_all: in_chat }],
            ..ChatStanding::default()
        };
        let ahead = ChatStanding {
            turn_since: Some("2026-11-22T21:00:00Z".parse().unwrap()),
            waiting: 1,
            ..ChatStanding::default()
        };
        let said = [Lang::En, Lang::Es].map(|lang| {
            [&quiet, &busy, &ahead].map(|standing| answer_in_family(Command::Status, standing, lang))
        });
        let said = said.concat().join("\n\n").replace(env!("CARGO_PKG_VERSION"), "1.2.3");
        insta::assert_snapshot!(said, @r"
        I am not working on anything in this chat.
        Nothing keeps me from answering.
        Tokens here today: 0 of 200000.
        I run on kimi-code with the model kimi-for-coding, in nanokimi 1.2.3.

        I have been working on something here for 3 minutes. 2 messages wait.
        I cannot answer in any chat now. I am not logged in to Kimi, or the login has expired. Docker, the program that I run in on the server, does not respond.
        Tokens here today: 12345 of 200000.
        I run on kimi-code with the model kimi-for-coding, in nanokimi 1.2.3.

        I have been working on something here for less than a minute. One message waits.
        Nothing keeps me from answering.
        Tokens here today: 0 of 200000.
        I run on kimi-code with the model kimi-for-coding, in nanokimi 1.2.3.

        No estoy haciendo nada en este chat.
        Nada me impide responder.
        Tokens aquí hoy: 0 de 200000.
        Funciono con kimi-code y el modelo kimi-for-coding, en nanokimi 1.2.3.

        Llevo 3 minutos trabajando en algo aquí. Hay 2 mensajes en espera.
        Ahora no puedo responder en ningún chat. No tengo iniciada la sesión en Kimi, o ha caducado. Docker, el programa en el que funciono en el servidor, no responde.
        Tokens aquí hoy: 12345 de 200000.
        Funciono con kimi-code y el modelo kimi-for-coding, en nanokimi 1.2.3.

        Llevo menos de un minuto trabajando en algo aquí. Hay un mensaje en espera.
        Nada me impide responder.
        Tokens aquí hoy: 0 de 200000.
        Funciono con kimi-code y el modelo kimi-for-coding, en nanokimi 1.2.3.
        ");
    }
}
