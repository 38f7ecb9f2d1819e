//! What a chat is told of its tasks when something about them went wrong.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::render::describe_local_time;
use crate::types::Lang;

/// Characters of a task's text that a notice repeats: enough to know which task it is.
const TEXT_TOLD_CHARS: usize = 60;

/// A task was paused since it has failed too often.
pub fn task_failed_often_notice(lang: Lang, task: i64, text: &str, failures: u32) -> String {
    let text = shorten_text(text);
    match lang {
        Lang::En => format!(
            "Task {task} (“{text}”) has failed {failures} times in a row, so I have paused it. When the cause is mended, \
             `nanokimi tasks resume {task}` on the server goes on with it."
        ),
        Lang::Es => format!(
            "La tarea {task} («{text}») ha fallado {failures} veces seguidas, así que la he puesto en pausa. Cuando se \
             haya arreglado la causa, `nanokimi tasks resume {task}` en el servidor la reanuda."
        ),
    }
}

/// A task was paused since a run used more tokens than it may.
pub fn task_over_tokens_notice(lang: Lang, task: i64, text: &str) -> String {
    let text = shorten_text(text);
    match lang {
        Lang::En => format!(
            "Task {task} (“{text}”) used more tokens than one run of it may, so I have paused it. \
             `nanokimi tasks edit {task} --max-tokens NUMBER` on the server changes the limit, and \
             `nanokimi tasks resume {task}` goes on with it."
        ),
        Lang::Es => format!(
            "La tarea {task} («{text}») ha usado más tokens de los que puede usar cada vez, así que la he puesto en \
             pausa. `nanokimi tasks edit {task} --max-tokens NÚMERO` en el servidor cambia el límite, y \
             `nanokimi tasks resume {task}` la reanuda."
        ),
    }
}

/// A run was not begun, as the tokens of the day are used up.
pub fn task_over_daily_limit_notice(
    lang: Lang,
    task: i64,
    text: &str,
    due_at: Timestamp,
    zone: &TimeZone,
) -> String {
    let (text, due) = (shorten_text(text), describe_local_time(lang, due_at, zone, due_at));
    match lang {
        Lang::En => format!(
            "I did not do task {task} (“{text}”) of {due}: today's tokens of this chat are used up. It is not made up for."
        ),
        Lang::Es => format!(
            "No he hecho la tarea {task} («{text}») de {due}: los tokens de hoy de este chat se han agotado. No se recupera."
        ),
    }
}

/// nanokimi was killed while a task ran.
pub fn task_outcome_unknown_notice(
    lang: Lang,
    task: i64,
    text: &str,
    due_at: Timestamp,
    zone: &TimeZone,
) -> String {
    let (text, due) = (shorten_text(text), describe_local_time(lang, due_at, zone, due_at));
    match lang {
        Lang::En => format!(
            "I was interrupted during task {task} (“{text}”) of {due}, and cannot say how far it came. I do not repeat it \
             by myself."
        ),
        Lang::Es => format!(
            "Se me ha interrumpido durante la tarea {task} («{text}») de {due}, y no sé hasta dónde ha llegado. No la \
             repito por mi cuenta."
        ),
    }
}

/// The beginning of a text, on one line.
fn shorten_text(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(TEXT_TOLD_CHARS) {
        None => words,
        Some((end, _)) => format!("{}…", words[..end].trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lang: Lang) -> String {
        let (text, due) = ("water the plants\non the balcony", "2026-12-01T08:00:00Z".parse().unwrap());
        let madrid = TimeZone::get("Europe/Madrid").unwrap();
        [
            task_failed_often_notice(lang, 7, text, 5),
            task_over_tokens_notice(lang, 7, &"long ".repeat(40)),
            task_outcome_unknown_notice(lang, 7, text, due, &madrid),
        ]
        .join("\n")
    }

    #[test]
    fn a_chat_reads_what_happened_to_a_task_and_what_to_do() {
        insta::assert_snapshot!(all(Lang::En), @"
        Task 7 (“water the plants on the balcony”) has failed 5 times in a row, so I have paused it. When the cause is mended, `nanokimi tasks resume 7` on the server goes on with it.
        Task 7 (“long long long long long long long long long long long long…”) used more tokens than one run of it may, so I have paused it. `nanokimi tasks edit 7 --max-tokens NUMBER` on the server changes the limit, and `nanokimi tasks resume 7` goes on with it.
        I was interrupted during task 7 (“water the plants on the balcony”) of Tue 1 Dec 09:00 Europe/Madrid, and cannot say how far it came. I do not repeat it by myself.
        ");
        insta::assert_snapshot!(all(Lang::Es), @"
        La tarea 7 («water the plants on the balcony») ha fallado 5 veces seguidas, así que la he puesto en pausa. Cuando se haya arreglado la causa, `nanokimi tasks resume 7` en el servidor la reanuda.
        La tarea 7 («long long long long long long long long long long long long…») ha usado más tokens de los que puede usar cada vez, así que la he puesto en pausa. `nanokimi tasks edit 7 --max-tokens NÚMERO` en el servidor cambia el límite, y `nanokimi tasks resume 7` la reanuda.
        Se me ha interrumpido durante la tarea 7 («water the plants on the balcony») de mar 1 dic 09:00 Europe/Madrid, y no sé hasta dónde ha llegado. No la repito por mi cuenta.
        ");
    }
}
