//! What a chat is told of its tasks: which there are, and what went wrong with one.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::pick_language;
use crate::render::{describe_instant, describe_local_time};
use crate::types::{Lang, PauseReason, RunReason, Task, TaskContext, TaskState};

/// Characters of a task's text that a notice repeats: enough to know which task it is.
const TEXT_TOLD_CHARS: usize = 60;

/// What `/tasks` does, in the list of `/help`.
pub fn tasks_command_summary(lang: Lang) -> &'static str {
    pick_language(lang, "I say what I have planned.", "digo qué tengo planeado.")
}

/// A task with the zone that its times are told in.
#[derive(Clone, Debug)]
pub struct PlannedTask<'a> {
    pub task: &'a Task,
    pub zone: TimeZone,
}

/// To the chat in which `/tasks` was given. In the main channel the tasks are those of all chats, each with
/// its group's name. So many more are not told.
pub fn planned_tasks_notice(
    lang: Lang,
    planned: &[PlannedTask<'_>],
    left_out: usize,
    is_of_all_chats: bool,
    now: Timestamp,
) -> String {
    if planned.is_empty() {
        let (en, es) = match is_of_all_chats {
            true => ("Nothing is planned in any chat.", "No hay nada planeado en ningún chat."),
            false => ("Nothing is planned in this chat.", "No hay nada planeado en este chat."),
        };
        let (what_en, what_es) = (
            "Tell me what I am to do and when, and I plan it.",
            "Dime qué quieres que haga y cuándo, y lo planeo.",
        );
        return format!("{} {}", pick_language(lang, en, es), pick_language(lang, what_en, what_es));
    }
    let (en, es) = match is_of_all_chats {
        true => ("Planned in all chats:", "Planeado en todos los chats:"),
        false => ("Planned in this chat:", "Planeado en este chat:"),
    };
    let mut lines = vec![pick_language(lang, en, es).to_owned()];
    lines.extend(planned.iter().map(|planned| describe_planned_task(lang, planned, is_of_all_chats, now)));
    match (lang, left_out) {
        (Lang::En | Lang::Es, 0) => {}
        (Lang::En, _) => {
            lines.push(format!("And {left_out} more; `nanokimi tasks list` on the server shows all."));
        }
        (Lang::Es, _) => {
            lines.push(format!("Y {left_out} más; `nanokimi tasks list` en el servidor las muestra todas."));
        }
    }
    let (en, es) = (
        "Tell me if I am to change, pause, resume or cancel one.",
        "Dime si tengo que cambiar, pausar, reanudar o cancelar alguna.",
    );
    lines.push(pick_language(lang, en, es).to_owned());
    lines.join("\n")
}

/// Its number, its text and when it is due: one line.
fn describe_planned_task(
    lang: Lang,
    PlannedTask { task, zone }: &PlannedTask<'_>,
    is_of_all_chats: bool,
    now: Timestamp,
) -> String {
    let group = if is_of_all_chats { format!(" ({})", task.group) } else { String::new() };
    let text = match lang {
        Lang::En => format!("“{}”", shorten_text(&task.text)),
        Lang::Es => format!("«{}»", shorten_text(&task.text)),
    };
    let when = match (task.state, task.next_at) {
        (TaskState::Active, Some(next_at)) => describe_instant(lang, next_at, zone, now),
        (TaskState::Paused(why), _) => describe_pause(lang, why, task.failures),
        (TaskState::Active | TaskState::Done, _) => pick_language(lang, "over", "terminada").to_owned(),
    };
    let afresh = match task.context {
        TaskContext::Group => "",
        TaskContext::Isolated => {
            pick_language(lang, "; begins afresh each time", "; empieza de cero cada vez")
        }
    };
    format!("- {}{group}: {text}, {when}{afresh}", task.id)
}

fn describe_pause(lang: Lang, why: PauseReason, failures: u32) -> String {
    match (lang, why) {
        (Lang::En, PauseReason::Asked) => "paused".to_owned(),
        (Lang::En, PauseReason::Failures) => format!("paused, since it has failed {failures} times in a row"),
        (Lang::En, PauseReason::Tokens) => "paused, since it used more tokens than it may".to_owned(),
        (Lang::En, PauseReason::Unreadable) => "paused, since I cannot read when it runs".to_owned(),
        (Lang::Es, PauseReason::Unreadable) => "en pausa, porque no puedo leer cuándo toca".to_owned(),
        (Lang::Es, PauseReason::Asked) => "en pausa".to_owned(),
        (Lang::Es, PauseReason::Failures) => format!("en pausa, porque ha fallado {failures} veces seguidas"),
        (Lang::Es, PauseReason::Tokens) => "en pausa, porque ha usado más tokens de los que puede".to_owned(),
    }
}

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

/// The command of a task, which says whether a run begins, has failed or took more than so many seconds.
pub fn task_condition_failed_notice(
    lang: Lang,
    task: i64,
    text: &str,
    why: RunReason,
    seconds: u64,
) -> String {
    let text = shorten_text(text);
    let is_too_long = why == RunReason::ConditionTooLong;
    match lang {
        Lang::En => {
            let what = match is_too_long {
                true => format!("did not end within {seconds} seconds"),
                false => "could not be run".to_owned(),
            };
            format!(
                "I did not do task {task} (“{text}”): the command that says whether there is something to do {what}. \
                 `nanokimi tasks edit {task} --only-if 'COMMAND'` on the server changes it; you can ask me for that, too."
            )
        }
        Lang::Es => {
            let what = match is_too_long {
                true => format!("no ha terminado en {seconds} segundos"),
                false => "no se ha podido ejecutar".to_owned(),
            };
            format!(
                "No he hecho la tarea {task} («{text}»): el comando que dice si hay algo que hacer {what}. \
                 `nanokimi tasks edit {task} --only-if 'COMANDO'` en el servidor lo cambia; también me lo puedes pedir."
            )
        }
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

/// A task was paused since its schedule, its zone or its rule for late runs cannot be read.
pub fn task_unreadable_notice(lang: Lang, task: i64, text: &str) -> String {
    let text = shorten_text(text);
    match lang {
        Lang::En => format!(
            "I have paused task {task} (“{text}”), since I cannot read any more when it runs. `nanokimi tasks show {task}` \
             on the server shows what is kept; `nanokimi tasks edit {task}` with --schedule, --zone and --late says it anew, \
             and `nanokimi tasks resume {task}` goes on with it."
        ),
        Lang::Es => format!(
            "He puesto en pausa la tarea {task} («{text}»), porque ya no puedo leer cuándo toca. \
             `nanokimi tasks show {task}` en el servidor muestra lo guardado; `nanokimi tasks edit {task}` con --schedule, \
             --zone y --late lo dice de nuevo, y `nanokimi tasks resume {task}` la reanuda."
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
            task_unreadable_notice(lang, 7, text),
            task_outcome_unknown_notice(lang, 7, text, due, &madrid),
            task_over_daily_limit_notice(lang, 7, text, due, &madrid),
            task_condition_failed_notice(lang, 7, text, RunReason::ConditionFailed, 60),
            task_condition_failed_notice(lang, 7, text, RunReason::ConditionTooLong, 60),
        ]
        .join("\n")
    }

    #[test]
    fn a_chat_reads_what_happened_to_a_task_and_what_to_do() {
        insta::assert_snapshot!(all(Lang::En), @"
        Task 7 (“water the plants on the balcony”) has failed 5 times in a row, so I have paused it. When the cause is mended, `nanokimi tasks resume 7` on the server goes on with it.
        Task 7 (“long long long long long long long long long long long long…”) used more tokens than one run of it may, so I have paused it. `nanokimi tasks edit 7 --max-tokens NUMBER` on the server changes the limit, and `nanokimi tasks resume 7` goes on with it.
        I have paused task 7 (“water the plants on the balcony”), since I cannot read any more when it runs. `nanokimi tasks show 7` on the server shows what is kept; `nanokimi tasks edit 7` with --schedule, --zone and --late says it anew, and `nanokimi tasks resume 7` goes on with it.
        I was interrupted during task 7 (“water the plants on the balcony”) of Tue 1 Dec 09:00 Europe/Madrid, and cannot say how far it came. I do not repeat it by myself.
        I did not do task 7 (“water the plants on the balcony”) of Tue 1 Dec 09:00 Europe/Madrid: today's tokens of this chat are used up. It is not made up for.
        I did not do task 7 (“water the plants on the balcony”): the command that says whether there is something to do could not be run. `nanokimi tasks edit 7 --only-if 'COMMAND'` on the server changes it; you can ask me for that, too.
        I did not do task 7 (“water the plants on the balcony”): the command that says whether there is something to do did not end within 60 seconds. `nanokimi tasks edit 7 --only-if 'COMMAND'` on the server changes it; you can ask me for that, too.
        ");
        insta::assert_snapshot!(all(Lang::Es), @"
        La tarea 7 («water the plants on the balcony») ha fallado 5 veces seguidas, así que la he puesto en pausa. Cuando se haya arreglado la causa, `nanokimi tasks resume 7` en el servidor la reanuda.
        La tarea 7 («long long long long long long long long long long long long…») ha usado más tokens de los que puede usar cada vez, así que la he puesto en pausa. `nanokimi tasks edit 7 --max-tokens NÚMERO` en el servidor cambia el límite, y `nanokimi tasks resume 7` la reanuda.
        He puesto en pausa la tarea 7 («water the plants on the balcony»), porque ya no puedo leer cuándo toca. `nanokimi tasks show 7` en el servidor muestra lo guardado; `nanokimi tasks edit 7` con --schedule, --zone y --late lo dice de nuevo, y `nanokimi tasks resume 7` la reanuda.
        Se me ha interrumpido durante la tarea 7 («water the plants on the balcony») de mar 1 dic 09:00 Europe/Madrid, y no sé hasta dónde ha llegado. No la repito por mi cuenta.
        No he hecho la tarea 7 («water the plants on the balcony») de mar 1 dic 09:00 Europe/Madrid: los tokens de hoy de este chat se han agotado. No se recupera.
        No he hecho la tarea 7 («water the plants on the balcony»): el comando que dice si hay algo que hacer no se ha podido ejecutar. `nanokimi tasks edit 7 --only-if 'COMANDO'` en el servidor lo cambia; también me lo puedes pedir.
        No he hecho la tarea 7 («water the plants on the balcony»): el comando que dice si hay algo que hacer no ha terminado en 60 segundos. `nanokimi tasks edit 7 --only-if 'COMANDO'` en el servidor lo cambia; también me lo puedes pedir.
        ");
    }
}
