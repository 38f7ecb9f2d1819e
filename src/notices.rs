//! Every sentence that nanokimi itself says in a chat.
//!
//! The readers are the owner's family: they see WhatsApp and nothing else. Each notice says what happened,
//! then what to do; if only the owner can help, it names the command to run. Never shows an error's own
//! words.

mod accounts;
mod approvals;
mod commands;
mod tasks;
mod troubles;

use std::collections::BTreeMap;

use crate::types::{GroupName, Lang, OthersPolicy, Outage, Trouble};

pub use accounts::{account_ended_notice, describe_cooldown_cause, limited_accounts_sentence};
pub use approvals::{
    HeldWords, PersonWords, chat_greeting, chat_served_notice, expired_notice, granted_notice,
    new_chat_served_notice, owner_question, question_over_notice, question_void_notice, refused_notice,
};
pub use commands::{
    ChatStatus, CompactionResult, SessionChange, StoppedWork, UsageSums, back_command_summary,
    compact_command_summary, compact_notice, compaction_over_notice, model_chosen_notice,
    model_command_summary, model_list_notice, name_placeholder, new_command_summary,
    no_earlier_session_notice, same_session_notice, session_name_too_long_notice, session_notice,
    status_command_summary, status_notice, stop_command_summary, stop_notice, unknown_model_notice,
    usage_chart_words, usage_command_summary, usage_notice,
};
pub use tasks::{
    PlannedTask, planned_tasks_notice, task_condition_failed_notice, task_failed_often_notice,
    task_outcome_unknown_notice, task_over_daily_limit_notice, task_over_tokens_notice,
    task_unreadable_notice, tasks_command_summary,
};

/// Most groups that one sentence names.
const GROUPS_NAMED: usize = 10;
/// Most people that a notice names.
const SENDERS_NAMED: usize = 10;

/// The language of a locale such as `es_ES.UTF-8`, if we speak it, else English.
pub fn language_of_locale(locale: Option<&str>) -> Lang {
    locale.and_then(parse_language).unwrap_or(Lang::En)
}

/// The language of a name like `es`, `es_ES.UTF-8` or `es-MX`, if we have it.
pub fn parse_language(name: &str) -> Option<Lang> {
    match name.split(['_', '-', '.', '@']).next()?.to_ascii_lowercase().as_str() {
        "en" => Some(Lang::En),
        "es" => Some(Lang::Es),
        _ => None,
    }
}

/// After the last of `attempts` at a message: there will be no answer.
pub fn gave_up_notice(lang: Lang, trouble: Trouble, attempts: u32) -> String {
    let happened = describe_trouble(lang, trouble);
    let to_do = trouble_remedy(lang, trouble);
    match (lang, attempts) {
        (Lang::En, 0 | 1) => format!(
            "I could not answer. {happened} {to_do} Your message is kept; to try again, send it again."
        ),
        (Lang::En, _) => format!(
            "I tried {attempts} times and could not answer. {happened} {to_do} Your message is kept; to try again, \
             send it again."
        ),
        (Lang::Es, 0 | 1) => format!(
            "No he podido responder. {happened} {to_do} Tu mensaje queda guardado; para intentarlo de nuevo, \
             vuelve a enviarlo."
        ),
        (Lang::Es, _) => format!(
            "Lo he intentado {attempts} veces y no he podido responder. {happened} {to_do} Tu mensaje queda \
             guardado; para intentarlo de nuevo, vuelve a enviarlo."
        ),
    }
}

/// To a chat in which nobody waits for an answer: the work that its agent did by itself was stopped.
pub fn background_stopped_notice(lang: Lang, trouble: Trouble) -> String {
    let happened = describe_trouble(lang, trouble);
    let to_do = trouble_remedy(lang, trouble);
    match lang {
        Lang::En => format!("I had to stop what I was doing in the background. {happened} {to_do}"),
        Lang::Es => format!("He tenido que parar lo que hacía en segundo plano. {happened} {to_do}"),
    }
}

/// To a chat whose agent has begun anew, since it could not start with what the last one had left. `kept` is
/// the place of that now, `names` are the files among it that were in the chat's folder.
pub fn fresh_start_notice(lang: Lang, kept: &str, names: &[&str]) -> String {
    let names = names.join(", ");
    let files = match (lang, names.is_empty()) {
        (Lang::En | Lang::Es, true) => String::new(),
        (Lang::En, false) => format!(" From my folder {names} went there too."),
        (Lang::Es, false) => format!(" De mi carpeta también he llevado allí {names}."),
    };
    match lang {
        Lang::En => format!(
            "Twice I could not start with what I remembered of this chat, so I have begun anew: please tell me again what \
             I should know. What I had is kept on the server, in {kept}.{files}"
        ),
        Lang::Es => format!(
            "Dos veces no he podido arrancar con lo que recordaba de este chat, así que he empezado de nuevo: vuelve a \
             contarme lo que deba saber. Lo que tenía está guardado en el servidor, en {kept}.{files}"
        ),
    }
}

/// To a chat, once in an outage: what is asked waits for its end.
pub fn outage_notice_to_chat(lang: Lang, outage: Outage) -> String {
    let happened = describe_trouble(lang, outage.trouble());
    let to_do = trouble_remedy(lang, outage.trouble());
    match lang {
        Lang::En => format!(
            "I cannot answer now. {happened} {to_do} Your message is kept; I answer it as soon as that is over."
        ),
        Lang::Es => format!(
            "Ahora no puedo responder. {happened} {to_do} Tu mensaje queda guardado; lo responderé en cuanto se \
             resuelva."
        ),
    }
}

/// To the owner, once in an outage.
pub fn outage_notice_to_owner(lang: Lang, outage: Outage) -> String {
    let happened = describe_trouble(lang, outage.trouble());
    let (en, es) = match outage {
        Outage::NoDocker => (
            "Please run `nanokimi doctor` on the server, which says how to start it. After a restart or an upgrade it may \
             come back by itself.",
            "Ejecuta `nanokimi doctor` en el servidor, que dice cómo arrancarlo. Tras un reinicio o una actualización \
             puede volver solo.",
        ),
        Outage::NoSpace => (
            "Please free some space there; `nanokimi doctor` says how much there is.",
            "Libera espacio en él; `nanokimi doctor` dice cuánto queda.",
        ),
        Outage::NotLoggedIn => (
            "Please run `nanokimi doctor` on the server; mostly `nanokimi login` is all it takes.",
            "Ejecuta `nanokimi doctor` en el servidor; casi siempre basta con `nanokimi login`.",
        ),
        Outage::ClientRefused => (
            "Please install the newest nanokimi. Groups that still use kimi-cli, which has ended, change over with \
             `nanokimi groups set --all --engine kimi-code`.",
            "Instala la última versión de nanokimi. Los grupos que aún usan kimi-cli, que ya no existe, se cambian con \
             `nanokimi groups set --all --engine kimi-code`.",
        ),
        Outage::AccountEnded => (
            "Please read what Kimi has written to you, and ask its support; another account takes over with `nanokimi login`.",
            "Lee lo que te haya escrito Kimi y pregunta a su soporte; con `nanokimi login` se pone otra cuenta.",
        ),
        Outage::NoMembership => (
            "Please check on your account's page at Kimi that its membership is active and paid.",
            "Comprueba en la página de tu cuenta en Kimi que la suscripción está activa y pagada.",
        ),
        Outage::Refused => (
            "Please look at your account's page at Kimi, then run `nanokimi doctor` on the server.",
            "Mira la página de tu cuenta en Kimi y luego ejecuta `nanokimi doctor` en el servidor.",
        ),
        Outage::RateLimited => (
            "That ends by itself; if it happens often, look at your plan at Kimi.",
            "Se pasará solo; si ocurre a menudo, revisa tu plan en Kimi.",
        ),
        Outage::QuotaUsedUp => (
            "`nanokimi login --status` on the server says when it begins anew; on your account's page at Kimi you can buy more.",
            "`nanokimi login --status` en el servidor dice cuándo empieza de nuevo; en la página de tu cuenta en Kimi puedes \
             comprar más.",
        ),
        Outage::ModelRefused => (
            "Please check KIMI_MODEL in .env and the models in data/credentials/config.toml.",
            "Revisa KIMI_MODEL en .env y los modelos en data/credentials/config.toml.",
        ),
    };
    let to_do = pick_language(lang, en, es);
    match lang {
        Lang::En => format!(
            "I cannot answer in any chat now. {happened} {to_do} What is asked meanwhile is kept and answered then."
        ),
        Lang::Es => format!(
            "Ahora no puedo responder en ningún chat. {happened} {to_do} Lo que se pregunte mientras tanto queda \
             guardado y se responde después."
        ),
    }
}

fn describe_trouble(lang: Lang, trouble: Trouble) -> &'static str {
    let (en, es) = troubles::describe_in_each_language(trouble);
    pick_language(lang, en, es)
}

fn trouble_remedy(lang: Lang, trouble: Trouble) -> &'static str {
    let (en, es) = troubles::remedy_in_each_language(trouble);
    pick_language(lang, en, es)
}

/// The `nth` sign of life (1 to 3, the last) in a turn that has taken `minutes` so far.
pub fn still_working_notice(lang: Lang, nth: u32, minutes: u64) -> String {
    let so_far = render_elapsed_minutes(lang, minutes);
    match (lang, nth) {
        (Lang::En, 0 | 1) => "I am working on it; this takes a moment.".to_owned(),
        (Lang::En, 2) => format!("I am still working on it ({so_far} so far)."),
        (Lang::En, _) => {
            format!("I am still working on it ({so_far} so far). You will hear from me when it is done.")
        }
        (Lang::Es, 0 | 1) => "Estoy en ello; tardaré un momento.".to_owned(),
        (Lang::Es, 2) => format!("Sigo en ello ({so_far} hasta ahora)."),
        (Lang::Es, _) => format!("Sigo en ello ({so_far} hasta ahora). Te escribiré cuando termine."),
    }
}

fn render_elapsed_minutes(lang: Lang, minutes: u64) -> String {
    match (lang, minutes) {
        (Lang::En, 0) => "less than a minute".to_owned(),
        (Lang::En, 1) => "1 minute".to_owned(),
        (Lang::En, _) => format!("{minutes} minutes"),
        (Lang::Es, 0) => "menos de un minuto".to_owned(),
        (Lang::Es, 1) => "1 minuto".to_owned(),
        (Lang::Es, _) => format!("{minutes} minutos"),
    }
}

/// Follows an answer that ended because the engine had taken all the steps it may.
pub fn step_limit_notice(lang: Lang) -> String {
    let en =
        "I stopped here: this takes more steps than I may do for one message. To go on, ask me to continue.";
    let es = "Me paro aquí: esto lleva más pasos de los que puedo dar por mensaje. Para seguir, pídeme que continúe.";
    pick_language(lang, en, es).to_owned()
}

/// Follows an answer of which the rest was dropped.
pub fn answer_cut_notice(lang: Lang) -> String {
    let en = "My answer was too long for a chat, so I stopped here. Ask me for a shorter one, or for a file.";
    let es = "Mi respuesta era demasiado larga para un chat y la he cortado aquí. Pídeme una más corta o un archivo.";
    pick_language(lang, en, es).to_owned()
}

/// Follows an answer with so many more files than the `most` that one may have.
pub fn files_left_out_notice(lang: Lang, files: usize, most: usize) -> String {
    match (lang, files) {
        (Lang::En, 1) => {
            format!("I left out 1 file: at most {most} go with one answer. Ask me for the rest.")
        }
        (Lang::En, _) => {
            format!("I left out {files} files: at most {most} go with one answer. Ask me for the rest.")
        }
        (Lang::Es, 1) => {
            format!("No he enviado 1 archivo: con una respuesta van {most} como mucho. Pídeme el resto.")
        }
        (Lang::Es, _) => format!(
            "No he enviado {files} archivos: con una respuesta van {most} como mucho. Pídeme el resto."
        ),
    }
}

/// Why a file that the agent wants to send cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRefused {
    NotThere,
    /// Larger than this many MB.
    TooLarge {
        mb: u64,
    },
    /// It leads out of the chat's folder, or is no plain file.
    NotAFile,
    /// WhatsApp refuses it, or it does not go through.
    NotTaken,
}

/// In the place of a file that the agent wants to send.
fn file_not_sent_sentence(lang: Lang, why: FileRefused) -> String {
    let why = match (lang, why) {
        (Lang::En, FileRefused::NotThere) => "it is not there".to_owned(),
        (Lang::En, FileRefused::TooLarge { mb }) => format!("it is larger than {mb} MB"),
        (Lang::En, FileRefused::NotAFile) => "it is not a file in this chat's folder".to_owned(),
        (Lang::En, FileRefused::NotTaken) => "WhatsApp did not take it".to_owned(),
        (Lang::Es, FileRefused::NotThere) => "no está".to_owned(),
        (Lang::Es, FileRefused::TooLarge { mb }) => format!("ocupa más de {mb} MB"),
        (Lang::Es, FileRefused::NotAFile) => "no es un archivo de la carpeta de este chat".to_owned(),
        (Lang::Es, FileRefused::NotTaken) => "WhatsApp no lo ha aceptado".to_owned(),
    };
    match lang {
        Lang::En => format!("⚠️ I could not send a file: {why}."),
        Lang::Es => format!("⚠️ No he podido enviar un archivo: {why}."),
    }
}

/// The whole message in the place of such a file, with the caption that it had.
pub fn file_not_sent_notice(lang: Lang, reply_prefix: &str, caption: &str, why: FileRefused) -> String {
    let sentence = file_not_sent_sentence(lang, why);
    let text = if caption.is_empty() { sentence } else { format!("{caption}\n\n{sentence}") };
    if text.starts_with(reply_prefix) { text } else { format!("{reply_prefix}{text}") }
}

/// To a chat in which people called while nanokimi was away, too long ago to be answered now.
pub fn was_away_notice(lang: Lang) -> String {
    let en = "I was away for a while and saw only now that you had called me. I have read it, but I do not answer \
              anything this old; if it still matters, ask me again.";
    let es = "He estado fuera un tiempo y acabo de ver que me habíais llamado. Lo he leído, pero no respondo a \
              algo tan antiguo; si todavía importa, volved a preguntarme.";
    pick_language(lang, en, es).to_owned()
}

/// To the owner, when the link is back.
pub fn disk_was_full_notice(lang: Lang) -> String {
    let en = "I was offline, because the disk of your server was full. Nothing is lost: what was written meanwhile \
              comes now. Please make more room there.";
    let es = "He estado desconectado porque el disco de tu servidor estaba lleno. No se ha perdido nada: lo que se \
              escribió mientras tanto llega ahora. Haz más sitio en él.";
    pick_language(lang, en, es).to_owned()
}

/// To a chat in which messages of these people could not be read and did not come again.
pub fn unreadable_messages_notice(lang: Lang, messages: u64, senders: &[String]) -> String {
    let mut names: Vec<&str> = senders.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > SENDERS_NAMED {
        names.truncate(SENDERS_NAMED);
        names.push("…");
    }
    let (of, names) = if names.is_empty() { ("", String::new()) } else { (" of ", names.join(", ")) };
    match (lang, messages) {
        (Lang::En, 0 | 1) => format!("I could not read a message{of}{names}. Please send it again."),
        (Lang::En, messages) => {
            format!("I could not read {messages} messages{of}{names}. Please send them again.")
        }
        (Lang::Es, messages) => {
            let of = if of.is_empty() { "" } else { " de " };
            match messages {
                0 | 1 => format!("No he podido leer un mensaje{of}{names}. Por favor, vuelve a enviarlo."),
                _ => format!(
                    "No he podido leer {messages} mensajes{of}{names}. Por favor, volved a enviarlos."
                ),
            }
        }
    }
}

/// To the person who calls in a chat that has used up its tokens of the day; the next day begins at
/// `midnight`.
pub fn token_limit_notice(lang: Lang, group: &GroupName, limit: u64, midnight: &str) -> String {
    match (lang, limit) {
        (Lang::En, 0) => format!(
            "I do not answer here, as my limit for this chat is 0 tokens a day. The owner can change that with \
             `nanokimi groups set {group} --daily-tokens NUMBER`."
        ),
        (Lang::En, _) => format!(
            "I have used up the {limit} tokens that I may use in this chat in a day. I answer again from {midnight} \
             on; what is written until then I keep, but I do not answer it by myself, so ask me again after that. The \
             owner can allow me more with `nanokimi groups set {group} --daily-tokens NUMBER`."
        ),
        (Lang::Es, 0) => format!(
            "Aquí no respondo, porque mi límite para este chat es de 0 tokens al día. El propietario puede cambiarlo \
             con `nanokimi groups set {group} --daily-tokens NÚMERO`."
        ),
        (Lang::Es, _) => format!(
            "Ya he gastado los {limit} tokens que puedo usar al día en este chat. Vuelvo a responder a partir de las \
             {midnight}; lo que se escriba hasta entonces lo guardo, pero no lo respondo por mi cuenta: vuelve a \
             preguntarme después. El propietario puede permitirme más con \
             `nanokimi groups set {group} --daily-tokens NÚMERO`."
        ),
    }
}

/// To a person who calls in a chat in which only others may ask.
pub fn may_not_ask_notice(lang: Lang, others: OthersPolicy) -> String {
    let words = match (lang, others) {
        (Lang::En, OthersPolicy::Context) => {
            "Here I answer only the people whom my owner has chosen, and you are not among them. What you write stays part \
             of the conversation: I read it when one of them asks me. Please ask the owner if that should change."
        }
        (Lang::En, OthersPolicy::Dropped) => {
            "Here I answer only the people whom my owner has chosen, and you are not among them. I do not read what you \
             write. Please ask the owner if that should change."
        }
        (Lang::Es, OthersPolicy::Context) => {
            "Aquí solo respondo a las personas que ha elegido mi propietario, y no estás entre ellas. Lo que escribes sigue \
             siendo parte de la conversación: lo leo cuando una de ellas me pregunta. Si crees que eso debería cambiar, habla con el \
             propietario."
        }
        (Lang::Es, OthersPolicy::Dropped) => {
            "Aquí solo respondo a las personas que ha elegido mi propietario, y no estás entre ellas. No leo lo que \
             escribes. Si crees que eso debería cambiar, habla con el propietario."
        }
    };
    words.to_owned()
}

/// To a person who has called as often as one person may in an hour, and may again after these minutes.
pub fn too_many_calls_notice(lang: Lang, limit: u32, minutes: u64) -> String {
    match (lang, minutes) {
        (Lang::En, _) => {
            let after = if minutes == 1 { "1 minute".to_owned() } else { format!("{minutes} minutes") };
            let times = if limit == 1 { "once".to_owned() } else { format!("{limit} times") };
            format!(
                "You have asked me {times} within an hour, and more I may not answer one person here. Please ask me \
                 again in {after}; what you write until then I keep, and read it with the next message that I answer."
            )
        }
        (Lang::Es, _) => {
            let after = if minutes == 1 { "1 minuto".to_owned() } else { format!("{minutes} minutos") };
            let times = if limit == 1 { "una vez".to_owned() } else { format!("{limit} veces") };
            format!(
                "Me has preguntado {times} en una hora, y aquí no puedo responder más a una sola persona. Vuelve a \
                 preguntarme dentro de {after}; lo que escribas hasta entonces lo guardo, y lo leo con el próximo mensaje \
                 al que responda."
            )
        }
    }
}

/// Follows what was said in a turn that was ended since it used more tokens than it may.
pub fn turn_tokens_notice(lang: Lang, group: &GroupName, limit: u64) -> String {
    match lang {
        Lang::En => format!(
            "I stopped here: this takes more than the {limit} tokens that I may use for one message in this chat. Please ask \
             me for less at once. The owner can allow me more with `nanokimi groups set {group} --turn-tokens NUMBER`."
        ),
        Lang::Es => format!(
            "Me paro aquí: esto lleva más de los {limit} tokens que puedo usar por mensaje en este chat. Pídeme menos de \
             una vez. El propietario puede permitirme más con `nanokimi groups set {group} --turn-tokens NÚMERO`."
        ),
    }
}

/// To the owner, once: voice notes could be words.
pub fn voice_note_notice(lang: Lang) -> String {
    let en = "Somebody sent me a voice note. I have it as a file, but nothing here turns it into words. To have me read what is \
              said, set TRANSCRIBE_URL in .env to a server that does, such as a whisper server on this machine.";
    let es = "Alguien me ha enviado una nota de voz. La tengo como archivo, pero aquí nada la convierte en texto. Para que lea \
              lo que se dice, pon en TRANSCRIBE_URL, en .env, un servidor que lo haga, como un servidor whisper en esta \
              máquina.";
    pick_language(lang, en, es).to_owned()
}

/// To the owner: WhatsApp does not let Kai write in a chat (463).
pub fn write_forbidden_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "WhatsApp does not let me write in the chat of the group {group}, as nobody there wrote to me first. I \
             gave up what I had to say there. Please have them write to me, then ask me again there."
        ),
        Lang::Es => format!(
            "WhatsApp no me deja escribir en el chat del grupo {group}, porque allí nadie me ha escrito antes. He \
             renunciado a lo que tenía que decir. Pide que me escriban y vuelve a preguntarme allí."
        ),
    }
}

/// To the owner: WhatsApp wants fewer messages in a chat (429).
pub fn rate_limited_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "WhatsApp says that I write too much in the chat of the group {group}. What I have to say there waits \
             for an hour. Please ask me for less there for a while."
        ),
        Lang::Es => format!(
            "WhatsApp dice que escribo demasiado en el chat del grupo {group}. Lo que tengo que decir allí espera \
             una hora. Pídeme menos cosas allí durante un tiempo."
        ),
    }
}

/// To the owner: so much is said in a chat that the rest comes slowly.
pub fn slow_sending_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "I have said very much in the chat of the group {group} in a short time, so what is left comes slowly, two \
             messages a minute. If nobody wants that much, look what asks me there, or take the chat from me with \
             `nanokimi groups remove {group}`."
        ),
        Lang::Es => format!(
            "He dicho muchísimo en el chat del grupo {group} en poco tiempo, así que lo que falta llega despacio, dos \
             mensajes por minuto. Si nadie quiere tanto, mira qué me pregunta allí, o quítame el chat con \
             `nanokimi groups remove {group}`."
        ),
    }
}

/// To the owner: what was to be said in these groups, this many messages in each, is older than `hours`.
pub fn expired_replies_notice(lang: Lang, hours: u64, by_group: &BTreeMap<String, u64>) -> String {
    let mut groups: Vec<String> =
        by_group.iter().take(GROUPS_NAMED).map(|(group, count)| format!("{group} ({count})")).collect();
    if by_group.len() > GROUPS_NAMED {
        groups.push("…".to_owned());
    }
    let groups = groups.join(", ");
    match lang {
        Lang::En => format!(
            "I could not send some messages for more than {hours} hours and have given them up, as they may make no \
             sense any more: {groups}. If they still matter, ask me again there."
        ),
        Lang::Es => format!(
            "No he podido enviar algunos mensajes durante más de {hours} horas y he renunciado a ellos, porque puede \
             que ya no tengan sentido: {groups}. Si todavía importan, vuelve a preguntarme allí."
        ),
    }
}

/// To the owner: a reply will never be seen.
pub fn reply_lost_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "I could not send what I had to say in the group {group}, and gave it up. `nanokimi status` says why; \
             please ask me again there."
        ),
        Lang::Es => format!(
            "No he podido enviar lo que tenía que decir en el grupo {group} y he renunciado a ello. \
             `nanokimi status` dice por qué; vuelve a preguntarme allí."
        ),
    }
}

/// To the owner: WhatsApp took a reply, or would take it, but somebody's phone cannot read it.
pub fn unreadable_reply_notice(lang: Lang, group: &GroupName) -> String {
    match lang {
        Lang::En => format!(
            "What I said in the group {group} may not be readable on somebody's phone there: WhatsApp gives me no keys \
             that work for it. Please have them open WhatsApp on that phone and write something there, then ask me \
             again there."
        ),
        Lang::Es => format!(
            "Puede que lo que he dicho en el grupo {group} no se pueda leer en el teléfono de alguien: WhatsApp no me da \
             claves que le sirvan. Pide que abran WhatsApp en ese teléfono y escriban algo allí, y vuelve a \
             preguntarme allí."
        ),
    }
}

/// The first message in the main channel: who speaks here, and how to make use of it.
pub fn welcome_notice(lang: Lang, assistant: &str) -> String {
    match lang {
        Lang::En => format!(
            "Hello, I am {assistant}, your assistant. Every message in this chat is for me, so just write. In other \
             chats I listen only where my owner adds me, and answer when somebody writes @{assistant}. I answer \
             while nanokimi runs on your server."
        ),
        Lang::Es => format!(
            "Hola, soy {assistant}, tu asistente. Cada mensaje de este chat es para mí: escribe sin más. En otros \
             chats solo escucho donde mi propietario me añade, y respondo cuando alguien escribe @{assistant}. \
             Respondo mientras nanokimi funciona en tu servidor."
        ),
    }
}

/// What `/help` does, in the list that it sends.
pub fn help_command_summary(lang: Lang) -> &'static str {
    pick_language(lang, "I send this list.", "envío esta lista.")
}

/// What `/warm` does, in the list of `/help`.
pub fn warm_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I get ready, so that my next answer comes sooner.",
        "me preparo, para que mi próxima respuesta llegue antes.",
    )
}

/// To the chat in which `/warm` was given. Nothing is promised: a slot has to be free.
pub fn warm_notice(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I am getting ready, if there is room for me.",
        "Me estoy preparando, si hay sitio para mí.",
    )
}

/// What can be written in a chat: what calls Kai there, if not everything does, and each command with what it does.
pub fn help_notice(lang: Lang, trigger: Option<&str>, commands: &[(String, &str)]) -> String {
    let trigger = trigger.map(|trigger| trigger.trim().trim_start_matches('@'));
    let calling = match (lang, trigger) {
        (Lang::En, Some(trigger)) => {
            format!("@{trigger} anywhere in a message, or a reply to something that I said: I answer.")
        }
        (Lang::En, None) => "Anything: every message in this chat is for me.".to_owned(),
        (Lang::Es, Some(trigger)) => format!(
            "@{trigger} en cualquier parte de un mensaje, o una respuesta a algo que haya dicho yo: respondo."
        ),
        (Lang::Es, None) => "Lo que sea: cada mensaje de este chat es para mí.".to_owned(),
    };
    let (title, whose) = match lang {
        Lang::En => ("What you can write to me here:", "Only my owner can use what begins with a slash."),
        Lang::Es => (
            "Lo que puedes escribirme aquí:",
            "Lo que empieza por una barra solo lo puede usar mi propietario.",
        ),
    };
    let commands: String = commands.iter().map(|(word, summary)| format!("- {word}: {summary}\n")).collect();
    format!("{title}\n- {calling}\n{commands}{whose}")
}

fn pick_language(lang: Lang, en: &'static str, es: &'static str) -> &'static str {
    match lang {
        Lang::En => en,
        Lang::Es => es,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TROUBLES: [Trouble; 26] = [
        Trouble::NoDocker,
        Trouble::NoImage,
        Trouble::NoSpace,
        Trouble::DiskShare,
        Trouble::SystemLimit,
        Trouble::LaunchFailed,
        Trouble::NeverReady,
        Trouble::EngineDied,
        Trouble::EngineGarbage,
        Trouble::TurnTooLong,
        Trouble::NoModel,
        Trouble::Unsupported,
        Trouble::NotLoggedIn,
        Trouble::ClientRefused,
        Trouble::AccountEnded,
        Trouble::NoMembership,
        Trouble::Refused,
        Trouble::RateLimited,
        Trouble::QuotaUsedUp,
        Trouble::ModelRefused,
        Trouble::TooLarge,
        Trouble::Overloaded,
        Trouble::BadRequest,
        Trouble::Unreachable,
        Trouble::EmptyAnswer,
        Trouble::Internal,
    ];

    /// Every notice, one a line; those of giving up without the words that all of them share.
    fn all(lang: Lang, before: &str, after: &str) -> String {
        let once = [gave_up_notice(lang, Trouble::Overloaded, 1)];
        let troubles = TROUBLES.map(|trouble| {
            let notice = gave_up_notice(lang, trouble, 3);
            let own = notice.strip_prefix(before).and_then(|notice| notice.strip_suffix(after)).unwrap();
            format!("{trouble:?}: {own}")
        });
        let progress =
            [(1, 0), (2, 0), (2, 1), (3, 15)].map(|(nth, minutes)| still_working_notice(lang, nth, minutes));
        let left_out = [1, 2].map(|files| files_left_out_notice(lang, files, 10)).join("\n");
        let ends = [step_limit_notice(lang), answer_cut_notice(lang), left_out];
        let group = GroupName::parse("family").unwrap();
        let many: BTreeMap<String, u64> = (1..=12).map(|number| (format!("g{number:02}"), number)).collect();
        let whatsapp = [
            was_away_notice(lang),
            write_forbidden_notice(lang, &group),
            rate_limited_notice(lang, &group),
            reply_lost_notice(lang, &group),
            slow_sending_notice(lang, &group),
            expired_replies_notice(lang, 24, &BTreeMap::from([("family".to_owned(), 2)])),
            expired_replies_notice(lang, 24, &many),
            unreadable_reply_notice(lang, &group),
            unreadable_messages_notice(lang, 1, &["Ana".to_owned()]),
            unreadable_messages_notice(lang, 3, &["Bob".to_owned(), "Ana".to_owned(), "Bob".to_owned()]),
            unreadable_messages_notice(lang, 2, &[String::new()]),
            unreadable_messages_notice(
                lang,
                90,
                &(10..99).map(|number| format!("P{number}")).collect::<Vec<_>>(),
            ),
        ];
        [&once[..], &troubles, &progress, &ends, &whatsapp].concat().join("\n")
    }

    #[test]
    fn what_is_said_in_english() {
        let before = "I tried 3 times and could not answer. ";
        let after = " Your message is kept; to try again, send it again.";
        insta::assert_snapshot!(all(Lang::En, before, after), @"
        I could not answer. Kimi is overloaded or out of order at the moment. Please wait a few minutes. Your message is kept; to try again, send it again.
        NoDocker: Docker, the program that I run in on the server, does not respond. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        NoImage: I am not completely installed on the server. Please ask the owner to run `nanokimi build`.
        NoSpace: The server's disk is full. Please ask the owner to free some space and to run `nanokimi doctor`.
        DiskShare: My files in this chat take more of the server's disk than one chat may. Please ask me to delete what is not needed any more.
        SystemLimit: The server has run out of something that all its programs share. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        LaunchFailed: I could not be started on the server. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        NeverReady: I was started on the server, but never got ready. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        EngineDied: I broke down in the middle of the work. If it happens again, please ask the owner to run `nanokimi doctor`.
        EngineGarbage: The program that thinks for me said something that I do not understand. Please ask the owner to run `nanokimi build`, which installs the right one.
        TurnTooLong: It took longer than I may work on one message. Please ask me for less at once.
        NoModel: Nobody has told me which Kimi model to use. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        Unsupported: There is something in the message that I cannot read, such as a picture. Please tell me in words what it shows.
        NotLoggedIn: I am not logged in to Kimi, or the login has expired. Please ask the owner to run `nanokimi doctor`.
        ClientRefused: Kimi does not serve the program that I think with, or not in this version any more. Please ask the owner to install the newest nanokimi.
        AccountEnded: Kimi has ended the access of the account that I use. Please ask the owner to talk to Kimi.
        NoMembership: Kimi finds no active membership for the account that I use. Please ask the owner to check the Kimi membership.
        Refused: Kimi refuses to answer me, and does not say why. Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`.
        RateLimited: I have asked Kimi as much as it allows for now. Please wait a while; if it lasts, ask the owner to check the Kimi plan and to run `nanokimi status`.
        QuotaUsedUp: What the Kimi plan holds is used up for now. Please wait until the plan's next period; the owner sees at Kimi when that is.
        ModelRefused: Kimi does not give me the model that I am set to use. Please ask the owner to run `nanokimi doctor`, and to check the model in .env and in config.toml.
        TooLarge: What I would have to show Kimi at once is too large for it. Please send fewer or smaller pictures at once.
        Overloaded: Kimi is overloaded or out of order at the moment. Please wait a few minutes.
        BadRequest: Kimi did not accept what I asked it. Please put it in other words; if it happens again, ask the owner to run `nanokimi doctor`.
        Unreachable: I cannot reach Kimi over the internet. Please ask the owner to check the server's connection with `nanokimi doctor`.
        EmptyAnswer: Kimi gave me an empty answer. Please put it in other words; if it happens again, ask the owner to run `nanokimi doctor`.
        Internal: Something went wrong inside me. Please ask the owner to run `nanokimi doctor`, which says what to repair.
        I am working on it; this takes a moment.
        I am still working on it (less than a minute so far).
        I am still working on it (1 minute so far).
        I am still working on it (15 minutes so far). You will hear from me when it is done.
        I stopped here: this takes more steps than I may do for one message. To go on, ask me to continue.
        My answer was too long for a chat, so I stopped here. Ask me for a shorter one, or for a file.
        I left out 1 file: at most 10 go with one answer. Ask me for the rest.
        I left out 2 files: at most 10 go with one answer. Ask me for the rest.
        I was away for a while and saw only now that you had called me. I have read it, but I do not answer anything this old; if it still matters, ask me again.
        WhatsApp does not let me write in the chat of the group family, as nobody there wrote to me first. I gave up what I had to say there. Please have them write to me, then ask me again there.
        WhatsApp says that I write too much in the chat of the group family. What I have to say there waits for an hour. Please ask me for less there for a while.
        I could not send what I had to say in the group family, and gave it up. `nanokimi status` says why; please ask me again there.
        I have said very much in the chat of the group family in a short time, so what is left comes slowly, two messages a minute. If nobody wants that much, look what asks me there, or take the chat from me with `nanokimi groups remove family`.
        I could not send some messages for more than 24 hours and have given them up, as they may make no sense any more: family (2). If they still matter, ask me again there.
        I could not send some messages for more than 24 hours and have given them up, as they may make no sense any more: g01 (1), g02 (2), g03 (3), g04 (4), g05 (5), g06 (6), g07 (7), g08 (8), g09 (9), g10 (10), …. If they still matter, ask me again there.
        What I said in the group family may not be readable on somebody's phone there: WhatsApp gives me no keys that work for it. Please have them open WhatsApp on that phone and write something there, then ask me again there.
        I could not read a message of Ana. Please send it again.
        I could not read 3 messages of Ana, Bob. Please send them again.
        I could not read 2 messages. Please send them again.
        I could not read 90 messages of P10, P11, P12, P13, P14, P15, P16, P17, P18, P19, …. Please send them again.
        ");
    }

    #[test]
    fn what_is_said_in_spanish() {
        let before = "Lo he intentado 3 veces y no he podido responder. ";
        let after = " Tu mensaje queda guardado; para intentarlo de nuevo, vuelve a enviarlo.";
        insta::assert_snapshot!(all(Lang::Es, before, after), @"
        No he podido responder. Kimi está saturado o averiado en este momento. Espera unos minutos. Tu mensaje queda guardado; para intentarlo de nuevo, vuelve a enviarlo.
        NoDocker: Docker, el programa en el que funciono en el servidor, no responde. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        NoImage: No estoy instalado del todo en el servidor. Pide al propietario que ejecute `nanokimi build`.
        NoSpace: El disco del servidor está lleno. Pide al propietario que libere espacio y ejecute `nanokimi doctor`.
        DiskShare: Mis archivos de este chat ocupan más disco del servidor del que puede ocupar un chat. Pídeme que borre lo que ya no haga falta.
        SystemLimit: Al servidor se le ha agotado algo que comparten todos sus programas. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        LaunchFailed: No se me ha podido arrancar en el servidor. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        NeverReady: Se me ha arrancado en el servidor, pero no he llegado a estar listo. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        EngineDied: Me he averiado a mitad del trabajo. Si vuelve a pasar, pide al propietario que ejecute `nanokimi doctor`.
        EngineGarbage: El programa que piensa por mí ha dicho algo que no entiendo. Pide al propietario que ejecute `nanokimi build`, que instala el correcto.
        TurnTooLong: Ha llevado más tiempo del que puedo dedicar a un mensaje. Pídeme menos cosas a la vez.
        NoModel: Nadie me ha dicho qué modelo de Kimi debo usar. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        Unsupported: En el mensaje hay algo que no puedo leer, como una imagen. Cuéntame con palabras qué contiene.
        NotLoggedIn: No tengo iniciada la sesión en Kimi, o ha caducado. Pide al propietario que ejecute `nanokimi doctor`.
        ClientRefused: Kimi no atiende al programa con el que pienso, o ya no en esta versión. Pide al propietario que instale la última versión de nanokimi.
        AccountEnded: Kimi ha cancelado el acceso de la cuenta que uso. Pide al propietario que hable con Kimi.
        NoMembership: Kimi no encuentra ninguna suscripción activa de la cuenta que uso. Pide al propietario que compruebe la suscripción de Kimi.
        Refused: Kimi se niega a responderme y no dice por qué. Pide al propietario que revise la cuenta de Kimi y luego ejecute `nanokimi doctor`.
        RateLimited: Le he preguntado a Kimi todo lo que permite por ahora. Espera un rato; si dura, pide al propietario que revise el plan de Kimi y ejecute `nanokimi status`.
        QuotaUsedUp: Lo que incluye el plan de Kimi se ha agotado por ahora. Espera al siguiente periodo del plan; el propietario ve en Kimi cuándo empieza.
        ModelRefused: Kimi no me da el modelo que tengo configurado. Pide al propietario que ejecute `nanokimi doctor` y revise el modelo en .env y en config.toml.
        TooLarge: Lo que tendría que enseñarle a Kimi de una vez es demasiado grande. Envía menos imágenes a la vez, o más pequeñas.
        Overloaded: Kimi está saturado o averiado en este momento. Espera unos minutos.
        BadRequest: Kimi no ha aceptado lo que le he pedido. Dilo con otras palabras; si vuelve a pasar, pide al propietario que ejecute `nanokimi doctor`.
        Unreachable: No consigo llegar a Kimi por internet. Pide al propietario que compruebe la conexión del servidor con `nanokimi doctor`.
        EmptyAnswer: Kimi me ha dado una respuesta vacía. Dilo con otras palabras; si vuelve a pasar, pide al propietario que ejecute `nanokimi doctor`.
        Internal: Algo ha fallado dentro de mí. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar.
        Estoy en ello; tardaré un momento.
        Sigo en ello (menos de un minuto hasta ahora).
        Sigo en ello (1 minuto hasta ahora).
        Sigo en ello (15 minutos hasta ahora). Te escribiré cuando termine.
        Me paro aquí: esto lleva más pasos de los que puedo dar por mensaje. Para seguir, pídeme que continúe.
        Mi respuesta era demasiado larga para un chat y la he cortado aquí. Pídeme una más corta o un archivo.
        No he enviado 1 archivo: con una respuesta van 10 como mucho. Pídeme el resto.
        No he enviado 2 archivos: con una respuesta van 10 como mucho. Pídeme el resto.
        He estado fuera un tiempo y acabo de ver que me habíais llamado. Lo he leído, pero no respondo a algo tan antiguo; si todavía importa, volved a preguntarme.
        WhatsApp no me deja escribir en el chat del grupo family, porque allí nadie me ha escrito antes. He renunciado a lo que tenía que decir. Pide que me escriban y vuelve a preguntarme allí.
        WhatsApp dice que escribo demasiado en el chat del grupo family. Lo que tengo que decir allí espera una hora. Pídeme menos cosas allí durante un tiempo.
        No he podido enviar lo que tenía que decir en el grupo family y he renunciado a ello. `nanokimi status` dice por qué; vuelve a preguntarme allí.
        He dicho muchísimo en el chat del grupo family en poco tiempo, así que lo que falta llega despacio, dos mensajes por minuto. Si nadie quiere tanto, mira qué me pregunta allí, o quítame el chat con `nanokimi groups remove family`.
        No he podido enviar algunos mensajes durante más de 24 horas y he renunciado a ellos, porque puede que ya no tengan sentido: family (2). Si todavía importan, vuelve a preguntarme allí.
        No he podido enviar algunos mensajes durante más de 24 horas y he renunciado a ellos, porque puede que ya no tengan sentido: g01 (1), g02 (2), g03 (3), g04 (4), g05 (5), g06 (6), g07 (7), g08 (8), g09 (9), g10 (10), …. Si todavía importan, vuelve a preguntarme allí.
        Puede que lo que he dicho en el grupo family no se pueda leer en el teléfono de alguien: WhatsApp no me da claves que le sirvan. Pide que abran WhatsApp en ese teléfono y escriban algo allí, y vuelve a preguntarme allí.
        No he podido leer un mensaje de Ana. Por favor, vuelve a enviarlo.
        No he podido leer 3 mensajes de Ana, Bob. Por favor, volved a enviarlos.
        No he podido leer 2 mensajes. Por favor, volved a enviarlos.
        No he podido leer 90 mensajes de P10, P11, P12, P13, P14, P15, P16, P17, P18, P19, …. Por favor, volved a enviarlos.
        ");
    }

    #[test]
    fn an_outage_is_told_to_each_as_it_concerns_them() {
        let all = [Lang::En, Lang::Es].map(|lang| {
            let told = Outage::ALL.map(|outage| {
                [outage_notice_to_chat(lang, outage), self::outage_notice_to_owner(lang, outage)].join("\n")
            });
            told.join("\n")
        });
        insta::assert_snapshot!(all.join("\n"), @"
        I cannot answer now. Docker, the program that I run in on the server, does not respond. Please ask the owner to run `nanokimi doctor`, which says what to repair. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Docker, the program that I run in on the server, does not respond. Please run `nanokimi doctor` on the server, which says how to start it. After a restart or an upgrade it may come back by itself. What is asked meanwhile is kept and answered then.
        I cannot answer now. The server's disk is full. Please ask the owner to free some space and to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. The server's disk is full. Please free some space there; `nanokimi doctor` says how much there is. What is asked meanwhile is kept and answered then.
        I cannot answer now. I am not logged in to Kimi, or the login has expired. Please ask the owner to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. I am not logged in to Kimi, or the login has expired. Please run `nanokimi doctor` on the server; mostly `nanokimi login` is all it takes. What is asked meanwhile is kept and answered then.
        I cannot answer now. Kimi does not serve the program that I think with, or not in this version any more. Please ask the owner to install the newest nanokimi. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Kimi does not serve the program that I think with, or not in this version any more. Please install the newest nanokimi. Groups that still use kimi-cli, which has ended, change over with `nanokimi groups set --all --engine kimi-code`. What is asked meanwhile is kept and answered then.
        I cannot answer now. Kimi has ended the access of the account that I use. Please ask the owner to talk to Kimi. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Kimi has ended the access of the account that I use. Please read what Kimi has written to you, and ask its support; another account takes over with `nanokimi login`. What is asked meanwhile is kept and answered then.
        I cannot answer now. Kimi finds no active membership for the account that I use. Please ask the owner to check the Kimi membership. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Kimi finds no active membership for the account that I use. Please check on your account's page at Kimi that its membership is active and paid. What is asked meanwhile is kept and answered then.
        I cannot answer now. Kimi refuses to answer me, and does not say why. Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Kimi refuses to answer me, and does not say why. Please look at your account's page at Kimi, then run `nanokimi doctor` on the server. What is asked meanwhile is kept and answered then.
        I cannot answer now. I have asked Kimi as much as it allows for now. Please wait a while; if it lasts, ask the owner to check the Kimi plan and to run `nanokimi status`. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. I have asked Kimi as much as it allows for now. That ends by itself; if it happens often, look at your plan at Kimi. What is asked meanwhile is kept and answered then.
        I cannot answer now. What the Kimi plan holds is used up for now. Please wait until the plan's next period; the owner sees at Kimi when that is. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. What the Kimi plan holds is used up for now. `nanokimi login --status` on the server says when it begins anew; on your account's page at Kimi you can buy more. What is asked meanwhile is kept and answered then.
        I cannot answer now. Kimi does not give me the model that I am set to use. Please ask the owner to run `nanokimi doctor`, and to check the model in .env and in config.toml. Your message is kept; I answer it as soon as that is over.
        I cannot answer in any chat now. Kimi does not give me the model that I am set to use. Please check KIMI_MODEL in .env and the models in data/credentials/config.toml. What is asked meanwhile is kept and answered then.
        Ahora no puedo responder. Docker, el programa en el que funciono en el servidor, no responde. Pide al propietario que ejecute `nanokimi doctor`, que dice qué hay que arreglar. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Docker, el programa en el que funciono en el servidor, no responde. Ejecuta `nanokimi doctor` en el servidor, que dice cómo arrancarlo. Tras un reinicio o una actualización puede volver solo. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. El disco del servidor está lleno. Pide al propietario que libere espacio y ejecute `nanokimi doctor`. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. El disco del servidor está lleno. Libera espacio en él; `nanokimi doctor` dice cuánto queda. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. No tengo iniciada la sesión en Kimi, o ha caducado. Pide al propietario que ejecute `nanokimi doctor`. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. No tengo iniciada la sesión en Kimi, o ha caducado. Ejecuta `nanokimi doctor` en el servidor; casi siempre basta con `nanokimi login`. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Kimi no atiende al programa con el que pienso, o ya no en esta versión. Pide al propietario que instale la última versión de nanokimi. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Kimi no atiende al programa con el que pienso, o ya no en esta versión. Instala la última versión de nanokimi. Los grupos que aún usan kimi-cli, que ya no existe, se cambian con `nanokimi groups set --all --engine kimi-code`. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Kimi ha cancelado el acceso de la cuenta que uso. Pide al propietario que hable con Kimi. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Kimi ha cancelado el acceso de la cuenta que uso. Lee lo que te haya escrito Kimi y pregunta a su soporte; con `nanokimi login` se pone otra cuenta. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Kimi no encuentra ninguna suscripción activa de la cuenta que uso. Pide al propietario que compruebe la suscripción de Kimi. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Kimi no encuentra ninguna suscripción activa de la cuenta que uso. Comprueba en la página de tu cuenta en Kimi que la suscripción está activa y pagada. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Kimi se niega a responderme y no dice por qué. Pide al propietario que revise la cuenta de Kimi y luego ejecute `nanokimi doctor`. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Kimi se niega a responderme y no dice por qué. Mira la página de tu cuenta en Kimi y luego ejecuta `nanokimi doctor` en el servidor. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Le he preguntado a Kimi todo lo que permite por ahora. Espera un rato; si dura, pide al propietario que revise el plan de Kimi y ejecute `nanokimi status`. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Le he preguntado a Kimi todo lo que permite por ahora. Se pasará solo; si ocurre a menudo, revisa tu plan en Kimi. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Lo que incluye el plan de Kimi se ha agotado por ahora. Espera al siguiente periodo del plan; el propietario ve en Kimi cuándo empieza. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Lo que incluye el plan de Kimi se ha agotado por ahora. `nanokimi login --status` en el servidor dice cuándo empieza de nuevo; en la página de tu cuenta en Kimi puedes comprar más. Lo que se pregunte mientras tanto queda guardado y se responde después.
        Ahora no puedo responder. Kimi no me da el modelo que tengo configurado. Pide al propietario que ejecute `nanokimi doctor` y revise el modelo en .env y en config.toml. Tu mensaje queda guardado; lo responderé en cuanto se resuelva.
        Ahora no puedo responder en ningún chat. Kimi no me da el modelo que tengo configurado. Revisa KIMI_MODEL en .env y los modelos en data/credentials/config.toml. Lo que se pregunte mientras tanto queda guardado y se responde después.
        ");
    }

    #[test]
    fn a_chat_that_has_used_up_its_tokens_is_told_when_it_goes_on() {
        let family = GroupName::parse("family").unwrap();
        let said = [(Lang::En, 200_000), (Lang::Es, 200_000), (Lang::En, 0), (Lang::Es, 0)]
            .map(|(lang, limit)| token_limit_notice(lang, &family, limit, "00:00 CET"));
        insta::assert_snapshot!(said.join("\n"), @"
        I have used up the 200000 tokens that I may use in this chat in a day. I answer again from 00:00 CET on; what is written until then I keep, but I do not answer it by myself, so ask me again after that. The owner can allow me more with `nanokimi groups set family --daily-tokens NUMBER`.
        Ya he gastado los 200000 tokens que puedo usar al día en este chat. Vuelvo a responder a partir de las 00:00 CET; lo que se escriba hasta entonces lo guardo, pero no lo respondo por mi cuenta: vuelve a preguntarme después. El propietario puede permitirme más con `nanokimi groups set family --daily-tokens NÚMERO`.
        I do not answer here, as my limit for this chat is 0 tokens a day. The owner can change that with `nanokimi groups set family --daily-tokens NUMBER`.
        Aquí no respondo, porque mi límite para este chat es de 0 tokens al día. El propietario puede cambiarlo con `nanokimi groups set family --daily-tokens NÚMERO`.
        ");
    }

    #[test]
    fn who_may_not_ask_is_told_what_becomes_of_their_words() {
        let said = [OthersPolicy::Context, OthersPolicy::Dropped]
            .map(|others| [Lang::En, Lang::Es].map(|lang| may_not_ask_notice(lang, others)).join("\n"));
        insta::assert_snapshot!(said.join("\n"), @"
        Here I answer only the people whom my owner has chosen, and you are not among them. What you write stays part of the conversation: I read it when one of them asks me. Please ask the owner if that should change.
        Aquí solo respondo a las personas que ha elegido mi propietario, y no estás entre ellas. Lo que escribes sigue siendo parte de la conversación: lo leo cuando una de ellas me pregunta. Si crees que eso debería cambiar, habla con el propietario.
        Here I answer only the people whom my owner has chosen, and you are not among them. I do not read what you write. Please ask the owner if that should change.
        Aquí solo respondo a las personas que ha elegido mi propietario, y no estás entre ellas. No leo lo que escribes. Si crees que eso debería cambiar, habla con el propietario.
        ");
    }

    #[test]
    fn who_reaches_a_limit_is_told_what_to_do() {
        let family = GroupName::parse("family").unwrap();
        let said = [Lang::En, Lang::Es].map(|lang| {
            [
                too_many_calls_notice(lang, 1, 1),
                too_many_calls_notice(lang, 20, 40),
                turn_tokens_notice(lang, &family, 50_000),
            ]
            .join("\n")
        });
        insta::assert_snapshot!(said.join("\n"), @"
        You have asked me once within an hour, and more I may not answer one person here. Please ask me again in 1 minute; what you write until then I keep, and read it with the next message that I answer.
        You have asked me 20 times within an hour, and more I may not answer one person here. Please ask me again in 40 minutes; what you write until then I keep, and read it with the next message that I answer.
        I stopped here: this takes more than the 50000 tokens that I may use for one message in this chat. Please ask me for less at once. The owner can allow me more with `nanokimi groups set family --turn-tokens NUMBER`.
        Me has preguntado una vez en una hora, y aquí no puedo responder más a una sola persona. Vuelve a preguntarme dentro de 1 minuto; lo que escribas hasta entonces lo guardo, y lo leo con el próximo mensaje al que responda.
        Me has preguntado 20 veces en una hora, y aquí no puedo responder más a una sola persona. Vuelve a preguntarme dentro de 40 minutos; lo que escribas hasta entonces lo guardo, y lo leo con el próximo mensaje al que responda.
        Me paro aquí: esto lleva más de los 50000 tokens que puedo usar por mensaje en este chat. Pídeme menos de una vez. El propietario puede permitirme más con `nanokimi groups set family --turn-tokens NÚMERO`.
        ");
    }

    #[test]
    fn the_owner_hears_once_how_voice_notes_become_words() {
        insta::assert_snapshot!([Lang::En, Lang::Es].map(voice_note_notice).join("\n"), @"
        Somebody sent me a voice note. I have it as a file, but nothing here turns it into words. To have me read what is said, set TRANSCRIBE_URL in .env to a server that does, such as a whisper server on this machine.
        Alguien me ha enviado una nota de voz. La tengo como archivo, pero aquí nada la convierte en texto. Para que lea lo que se dice, pon en TRANSCRIBE_URL, en .env, un servidor que lo haga, como un servidor whisper en esta máquina.
        ");
    }

    #[test]
    fn the_first_message_says_how_to_be_called() {
        insta::assert_snapshot!([Lang::En, Lang::Es].map(|lang| welcome_notice(lang, "Kai")).join("\n"), @r"
        Hello, I am Kai, your assistant. Every message in this chat is for me, so just write. In other chats I listen only where my owner adds me, and answer when somebody writes @Kai. I answer while nanokimi runs on your server.
        Hola, soy Kai, tu asistente. Cada mensaje de este chat es para mí: escribe sin más. En otros chats solo escucho donde mi propietario me añade, y respondo cuando alguien escribe @Kai. Respondo mientras nanokimi funciona en tu servidor.
        ");
    }

    #[test]
    fn an_agent_that_was_stopped_or_began_anew_says_so() {
        let said = [Lang::En, Lang::Es].map(|lang| {
            let kept = "data/agents/family/set-aside/1";
            let anew = [
                fresh_start_notice(lang, kept, &[]),
                fresh_start_notice(lang, kept, &["AGENTS.md", ".kimi"]),
            ];
            [&[background_stopped_notice(lang, Trouble::DiskShare)][..], &anew].concat().join("\n")
        });
        insta::assert_snapshot!(said.join("\n"), @"
        I had to stop what I was doing in the background. My files in this chat take more of the server's disk than one chat may. Please ask me to delete what is not needed any more.
        Twice I could not start with what I remembered of this chat, so I have begun anew: please tell me again what I should know. What I had is kept on the server, in data/agents/family/set-aside/1.
        Twice I could not start with what I remembered of this chat, so I have begun anew: please tell me again what I should know. What I had is kept on the server, in data/agents/family/set-aside/1. From my folder AGENTS.md, .kimi went there too.
        He tenido que parar lo que hacía en segundo plano. Mis archivos de este chat ocupan más disco del servidor del que puede ocupar un chat. Pídeme que borre lo que ya no haga falta.
        Dos veces no he podido arrancar con lo que recordaba de este chat, así que he empezado de nuevo: vuelve a contarme lo que deba saber. Lo que tenía está guardado en el servidor, en data/agents/family/set-aside/1.
        Dos veces no he podido arrancar con lo que recordaba de este chat, así que he empezado de nuevo: vuelve a contarme lo que deba saber. Lo que tenía está guardado en el servidor, en data/agents/family/set-aside/1. De mi carpeta también he llevado allí AGENTS.md, .kimi.
        ");
    }

    #[test]
    fn a_file_that_cannot_be_sent_is_said_so() {
        let all = [
            FileRefused::NotThere,
            FileRefused::TooLarge { mb: 32 },
            FileRefused::NotAFile,
            FileRefused::NotTaken,
        ]
        .map(|why| [Lang::En, Lang::Es].map(|lang| file_not_sent_sentence(lang, why)).join("\n"));
        insta::assert_snapshot!(all.join("\n"), @r"
        ⚠️ I could not send a file: it is not there.
        ⚠️ No he podido enviar un archivo: no está.
        ⚠️ I could not send a file: it is larger than 32 MB.
        ⚠️ No he podido enviar un archivo: ocupa más de 32 MB.
        ⚠️ I could not send a file: it is not a file in this chat's folder.
        ⚠️ No he podido enviar un archivo: no es un archivo de la carpeta de este chat.
        ⚠️ I could not send a file: WhatsApp did not take it.
        ⚠️ No he podido enviar un archivo: WhatsApp no lo ha aceptado.
        ");
    }

    #[test]
    fn every_trouble_has_its_own_words() {
        for lang in [Lang::En, Lang::Es] {
            let mut said: Vec<String> = TROUBLES.map(|trouble| gave_up_notice(lang, trouble, 3)).into();
            said.sort();
            said.dedup();
            assert_eq!(said.len(), TROUBLES.len(), "{lang:?}");
        }
    }

    #[test]
    fn the_language_is_that_of_the_locale_else_english() {
        for (locale, expected) in [
            (Some("es_ES.UTF-8"), Lang::Es),
            (Some("es-MX"), Lang::Es),
            (Some("es_419"), Lang::Es),
            (Some("es_ES@euro"), Lang::Es),
            (Some("es.UTF-8"), Lang::Es),
            (Some("ES"), Lang::Es),
            (Some("en_US.UTF-8"), Lang::En),
            (Some("est"), Lang::En),
            (Some("fr_FR.UTF-8"), Lang::En),
            (Some("C.UTF-8"), Lang::En),
            (Some("POSIX"), Lang::En),
            (Some(""), Lang::En),
            (None, Lang::En),
        ] {
            assert_eq!(language_of_locale(locale), expected, "{locale:?}");
        }
    }
}
