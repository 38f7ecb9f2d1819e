//! What nanokimi answers to the owner's commands, and what `/help` says of each.

use super::{describe_trouble, pick_language, render_elapsed_minutes};
use crate::render::ChartWords;
use crate::types::{Lang, Outage, TokenUsage};

/// What `/stop` does, in the list of `/help`.
pub fn stop_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I stop at once, and drop what was asked before.",
        "paro al momento y dejo lo que se haya pedido antes.",
    )
}

/// What `/stop` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedWork {
    Turn,
    /// Messages that nobody had begun with.
    Waiting,
    Nothing,
}

/// To the chat in which `/stop` was given.
pub fn stop_notice(lang: Lang, stopped: StoppedWork) -> &'static str {
    let (en, es) = match stopped {
        StoppedWork::Turn => (
            "I have stopped. What was asked before is dropped; if you still want it, ask me again.",
            "He parado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.",
        ),
        StoppedWork::Waiting => (
            "I had not begun yet. What was asked before is dropped; if you still want it, ask me again.",
            "Aún no había empezado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.",
        ),
        StoppedWork::Nothing => {
            ("I am not working on anything in this chat.", "No estoy haciendo nada en este chat.")
        }
    };
    pick_language(lang, en, es)
}

/// What `/status` does, in the list of `/help`.
pub fn status_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I say what I am doing here and how I am.",
        "digo qué estoy haciendo aquí y cómo estoy.",
    )
}

/// How Kai stands in a chat.
#[derive(Clone, Copy, Debug)]
pub struct ChatStatus<'a> {
    /// For how long a turn has run.
    pub minutes_in_turn: Option<u64>,
    pub waiting: u64,
    pub outages: &'a [Outage],
    pub tokens_today: u64,
    pub daily_tokens: Option<u64>,
    pub engine: &'a str,
    pub model: Option<&'a str>,
    pub version: &'a str,
}

/// To the chat in which `/status` was given.
pub fn status_notice(lang: Lang, status: &ChatStatus<'_>) -> String {
    let ChatStatus { tokens_today, daily_tokens, engine, version, .. } = *status;
    let work = describe_work(lang, status.minutes_in_turn, status.waiting);
    let troubles = status.outages.iter().map(|outage| describe_trouble(lang, outage.trouble()));
    let troubles: Vec<&str> = troubles.collect();
    let health = match (lang, troubles.is_empty()) {
        (Lang::En, true) => "Nothing keeps me from answering.".to_owned(),
        (Lang::En, false) => format!("I cannot answer in any chat now. {}", troubles.join(" ")),
        (Lang::Es, true) => "Nada me impide responder.".to_owned(),
        (Lang::Es, false) => format!("Ahora no puedo responder en ningún chat. {}", troubles.join(" ")),
    };
    let tokens = match (lang, daily_tokens) {
        (Lang::En, Some(limit)) => format!("Tokens here today: {tokens_today} of {limit}."),
        (Lang::En, None) => format!("Tokens here today: {tokens_today}, without a limit."),
        (Lang::Es, Some(limit)) => format!("Tokens aquí hoy: {tokens_today} de {limit}."),
        (Lang::Es, None) => format!("Tokens aquí hoy: {tokens_today}, sin límite."),
    };
    let model = match (lang, status.model) {
        (Lang::En | Lang::Es, None) => String::new(),
        (Lang::En, Some(model)) => format!(" with the model {model}"),
        (Lang::Es, Some(model)) => format!(" y el modelo {model}"),
    };
    let program = match lang {
        Lang::En => format!("I run on {engine}{model}, in nanokimi {version}."),
        Lang::Es => format!("Funciono con {engine}{model}, en nanokimi {version}."),
    };
    format!("{work}\n{health}\n{tokens}\n{program}")
}

fn describe_work(lang: Lang, minutes_in_turn: Option<u64>, waiting: u64) -> String {
    let turn = match (lang, minutes_in_turn) {
        (Lang::En, Some(minutes)) => {
            format!("I have been working on something here for {}.", render_elapsed_minutes(lang, minutes))
        }
        (Lang::En, None) => "I am not working on anything in this chat.".to_owned(),
        (Lang::Es, Some(minutes)) => {
            format!("Llevo {} trabajando en algo aquí.", render_elapsed_minutes(lang, minutes))
        }
        (Lang::Es, None) => "No estoy haciendo nada en este chat.".to_owned(),
    };
    match (lang, waiting) {
        (Lang::En | Lang::Es, 0) => turn,
        (Lang::En, 1) => format!("{turn} One message waits."),
        (Lang::En, _) => format!("{turn} {waiting} messages wait."),
        (Lang::Es, 1) => format!("{turn} Hay un mensaje en espera."),
        (Lang::Es, _) => format!("{turn} Hay {waiting} mensajes en espera."),
    }
}

/// What `/usage` does, in the list of `/help`.
pub fn usage_command_summary(lang: Lang) -> &'static str {
    pick_language(lang, "I say how many tokens I have used.", "digo cuántos tokens he gastado.")
}

/// The tokens of some time.
#[derive(Clone, Copy, Debug)]
pub struct UsageSums {
    pub in_chat: TokenUsage,
    pub in_all: TokenUsage,
}

/// To the chat in which `/usage` was given; `total` is of the last `days`.
pub fn usage_notice(lang: Lang, today: UsageSums, days: u32, total: UsageSums) -> String {
    let (today, total) = (describe_sums(lang, today), describe_sums(lang, total));
    match lang {
        Lang::En => format!("Tokens today: {today}\nIn the last {days} days: {total}"),
        Lang::Es => format!("Tokens de hoy: {today}\nDe los últimos {days} días: {total}"),
    }
}

/// The words in the picture of `/usage`.
pub fn usage_chart_words(lang: Lang) -> ChartWords<'static> {
    match lang {
        Lang::En => {
            ChartWords { title: "Tokens by day", all_chats: "in all chats", this_chat: "in this chat" }
        }
        Lang::Es => {
            ChartWords {
                title: "Tokens por día", all_chats: "en todos los chats", this_chat: "en este chat"
            }
        }
    }
}

fn describe_sums(lang: Lang, UsageSums { in_chat, in_all }: UsageSums) -> String {
    let (chat, all) = (describe_tokens(lang, in_chat), describe_tokens(lang, in_all));
    match lang {
        Lang::En => format!("{all}; in this chat {chat}."),
        Lang::Es => format!("{all}; en este chat {chat}."),
    }
}

fn describe_tokens(lang: Lang, TokenUsage { input, cached, output }: TokenUsage) -> String {
    match lang {
        Lang::En => format!("{input} in ({cached} cached), {output} out"),
        Lang::Es => format!("{input} de entrada ({cached} en caché), {output} de salida"),
    }
}

/// What `/new` does, in the list of `/help`.
pub fn new_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I begin anew, or return to the conversation with that name; a name need not be given.",
        "empiezo de nuevo, o vuelvo a la conversación de ese nombre; no hace falta dar un nombre.",
    )
}

/// What stands behind a command in the list of `/help`, if that is a name.
pub fn name_placeholder(lang: Lang) -> &'static str {
    pick_language(lang, "NAME", "NOMBRE")
}

/// What `/back` does, in the list of `/help`.
pub fn back_command_summary(lang: Lang) -> &'static str {
    pick_language(lang, "I return to the conversation before this one.", "vuelvo a la conversación anterior.")
}

/// Whether the conversation that a chat goes on with is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    Begins,
    Returns,
}

/// To a chat that has left a conversation for another one.
pub fn session_notice(lang: Lang, change: SessionChange, to: &str, left: &str, is_working: bool) -> String {
    let changed = match (lang, change) {
        (Lang::En, SessionChange::Begins) => format!(
            "From your next message on I begin anew and remember nothing of this conversation. The new one is called \
             “{to}”; the old one is kept as “{left}”, and /back returns to it."
        ),
        (Lang::En, SessionChange::Returns) => format!(
            "From your next message on I am back in the conversation “{to}”. The one that you leave is kept as \
             “{left}”; /back returns to it."
        ),
        (Lang::Es, SessionChange::Begins) => format!(
            "Desde tu próximo mensaje empiezo de nuevo y no recuerdo nada de esta conversación. La nueva se llama \
             «{to}»; la anterior queda guardada como «{left}», y con /volver se vuelve a ella."
        ),
        (Lang::Es, SessionChange::Returns) => format!(
            "Desde tu próximo mensaje vuelvo a la conversación «{to}». La que dejas queda guardada como «{left}»; con \
             /volver se vuelve a ella."
        ),
    };
    match (lang, is_working) {
        (Lang::En | Lang::Es, false) => changed,
        (Lang::En, true) => format!("{changed} What I am working on I finish in the old one."),
        (Lang::Es, true) => format!("{changed} Lo que estoy haciendo lo termino en la anterior."),
    }
}

/// To a chat that is in this conversation already.
pub fn same_session_notice(lang: Lang, name: &str) -> String {
    match lang {
        Lang::En => format!("This is the conversation “{name}” already."),
        Lang::Es => format!("Esta ya es la conversación «{name}»."),
    }
}

/// To a chat that has never left a conversation.
pub fn no_earlier_session_notice(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "There is no earlier conversation in this chat; /new begins another one.",
        "En este chat no hay ninguna conversación anterior; /nuevo empieza otra.",
    )
}

/// To the owner, who has given a name that is longer than `most` characters.
pub fn session_name_too_long_notice(lang: Lang, most: usize) -> String {
    match lang {
        Lang::En => format!("That name is too long: at most {most} characters. I have changed nothing."),
        Lang::Es => {
            format!("Ese nombre es demasiado largo: {most} caracteres como mucho. No he cambiado nada.")
        }
    }
}

/// What `/compact` does, in the list of `/help`.
pub fn compact_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I put what I remember of this conversation into a summary, which costs fewer tokens.",
        "resumo lo que recuerdo de esta conversación, que así gasta menos tokens.",
    )
}

/// To the chat in which `/compact` was given.
pub fn compact_notice(lang: Lang, is_working: bool) -> &'static str {
    let (en, es) = match is_working {
        false => (
            "I put what I remember of this conversation into a summary now, and say when it is done.",
            "Ahora resumo lo que recuerdo de esta conversación, y aviso cuando esté hecho.",
        ),
        true => (
            "As soon as I have finished what I am doing, I put what I remember of this conversation into a summary. I say \
             when it is done.",
            "En cuanto termine lo que estoy haciendo, resumo lo que recuerdo de esta conversación. Aviso cuando esté hecho.",
        ),
    };
    pick_language(lang, en, es)
}

/// What has come of `/compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionResult {
    Done,
    NothingThere,
    Failed,
    /// The chat's tokens of the day are used up.
    OverDailyLimit,
}

/// To the chat in which `/compact` was given, once it is done.
pub fn compaction_over_notice(lang: Lang, result: CompactionResult) -> &'static str {
    let (en, es) = match result {
        CompactionResult::Done => (
            "Done: of this conversation I remember a summary from now on.",
            "Hecho: de esta conversación recuerdo desde ahora un resumen.",
        ),
        CompactionResult::NothingThere => (
            "There is nothing to put into a summary: this conversation has just begun.",
            "No hay nada que resumir: esta conversación acaba de empezar.",
        ),
        CompactionResult::Failed => (
            "I could not put this conversation into a summary, and remember all of it as before. Try /compact again later; \
             /new begins another conversation.",
            "No he podido resumir esta conversación, y la recuerdo entera como antes. Vuelve a probar /compactar más tarde; \
             /nuevo empieza otra conversación.",
        ),
        CompactionResult::OverDailyLimit => (
            "I do not put this conversation into a summary, as my tokens of today for this chat are used up. Try /compact \
             again tomorrow.",
            "No resumo esta conversación, porque mis tokens de hoy para este chat se han agotado. Vuelve a probar \
             /compactar mañana.",
        ),
    };
    pick_language(lang, en, es)
}

/// What `/model` does, in the list of `/help`.
pub fn model_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I say which models there are, or think with this one from then on.",
        "digo qué modelos hay, o pienso con este desde entonces.",
    )
}

/// To the chat in which `/model` was given.
pub fn model_list_notice(lang: Lang, current: Option<&str>, names: &[String]) -> String {
    let thinks = match (lang, current) {
        (Lang::En | Lang::Es, None) => String::new(),
        (Lang::En, Some(model)) => format!("In this chat I think with {model}. "),
        (Lang::Es, Some(model)) => format!("En este chat pienso con {model}. "),
    };
    format!("{thinks}{}", describe_models(lang, names))
}

/// To the owner, who has named a model that there is not.
pub fn unknown_model_notice(lang: Lang, names: &[String]) -> String {
    let (en, es) =
        ("There is no such model. I have changed nothing.", "No hay tal modelo. No he cambiado nada.");
    format!("{} {}", pick_language(lang, en, es), describe_models(lang, names))
}

fn describe_models(lang: Lang, names: &[String]) -> String {
    let all = names.join(", ");
    match (lang, names.is_empty()) {
        (Lang::En, true) => "I cannot read which models there are; `nanokimi doctor` says why.".to_owned(),
        (Lang::En, false) => format!("There is: {all}. /model and a name chooses one."),
        (Lang::Es, true) => "No puedo leer qué modelos hay; `nanokimi doctor` dice por qué.".to_owned(),
        (Lang::Es, false) => format!("Hay: {all}. Con /modelo y un nombre se elige."),
    }
}

/// To the chat for which the owner has chosen a model.
pub fn model_chosen_notice(lang: Lang, model: &str) -> String {
    match lang {
        Lang::En => format!("From your next message on I think with {model} in this chat."),
        Lang::Es => format!("Desde tu próximo mensaje pienso con {model} en este chat."),
    }
}
