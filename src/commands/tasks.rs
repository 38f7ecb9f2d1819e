//! `/tasks`: what is planned in this chat, in the main channel what is planned in all chats. What is over is
//! left out.

use jiff::tz::TimeZone;

use super::{CommandContext, CommandDefinition, CommandOutcome};
use crate::notices::{self, PlannedTask};
use crate::types::{Role, TaskState};

/// Most tasks that one answer tells: each takes a line or two on a phone.
const TASKS_TOLD: usize = 15;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/tasks",
    spanish: "/tareas",
    summary: notices::tasks_command_summary,
    argument: None,
    decide: list_planned_tasks,
    days_told: 0,
};

fn list_planned_tasks(context: &CommandContext<'_>) -> CommandOutcome {
    let CommandContext { group, standing, lang, now, .. } = *context;
    let planned: Vec<PlannedTask<'_>> = standing
        .tasks
        .iter()
        .filter(|task| task.state != TaskState::Done)
        // A zone that this machine does not know any more keeps nobody from seeing the list.
        .map(|task| PlannedTask { task, zone: TimeZone::get(&task.zone).unwrap_or(TimeZone::UTC) })
        .collect();
    let told = &planned[..planned.len().min(TASKS_TOLD)];
    let left_out = planned.len() - told.len();
    let is_of_all_chats = group.role == Role::Main;
    CommandOutcome::from_answer(notices::planned_tasks_notice(lang, told, left_out, is_of_all_chats, now))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::tests::{answer_in, given};
    use super::super::{ChatStanding, Command};
    use super::*;
    use crate::types::{ChatId, Group, GroupName, Lang, PauseReason, Task, TaskContext};

    fn task(id: i64, text: &str, next_at: &str) -> Task {
        Task {
            id,
            group: GroupName::parse("family").unwrap(),
            text: text.to_owned(),
            schedule: "every 1d".to_owned(),
            zone: "Europe/Madrid".to_owned(),
            late: "once".to_owned(),
            context: TaskContext::Group,
            only_if: None,
            max_tokens: None,
            state: TaskState::Active,
            next_at: Some(next_at.parse().unwrap()),
            failures: 0,
            created_at: Timestamp::UNIX_EPOCH,
            last_run: None,
        }
    }

    fn paused(id: i64, why: PauseReason) -> Task {
        let task = task(id, "look at the oven", "2026-11-23T08:00:00Z");
        Task { state: TaskState::Paused(why), next_at: None, failures: 5, ..task }
    }

    fn answer(role: Role, tasks: Vec<Task>, lang: Lang) -> String {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), role);
        answer_in(&group, Command::Tasks, &ChatStanding { tasks, ..ChatStanding::default() }, lang)
    }

    #[test]
    fn it_lists_what_is_planned_and_what_is_paused() {
        let tasks = || {
            let over =
                Task { state: TaskState::Done, next_at: None, ..task(4, "over", "2026-11-23T08:00:00Z") };
            vec![
                task(
                    7,
                    "water the plants\non the balcony, and look for greenflies beneath the leaves",
                    "2026-11-23T08:00:00Z",
                ),
                Task { context: TaskContext::Isolated, ..task(8, "count the sheep", "2026-11-23T08:00:00Z") },
                paused(1, PauseReason::Asked),
                paused(2, PauseReason::Failures),
                paused(3, PauseReason::Tokens),
                over,
            ]
        };
        let said = [Lang::En, Lang::Es].map(|lang| {
            let (member, main) = (answer(Role::Member, tasks(), lang), answer(Role::Main, tasks(), lang));
            [member, main, answer(Role::Member, Vec::new(), lang), answer(Role::Main, Vec::new(), lang)]
        });
        insta::assert_snapshot!(said.concat().join("\n\n"), @"
        Planned in this chat:
        - 7: “water the plants on the balcony, and look for greenflies ben…”, Mon 23 Nov 09:00 Europe/Madrid, in 11 h 56 min
        - 8: “count the sheep”, Mon 23 Nov 09:00 Europe/Madrid, in 11 h 56 min; begins afresh each time
        - 1: “look at the oven”, paused
        - 2: “look at the oven”, paused, since it has failed 5 times in a row
        - 3: “look at the oven”, paused, since it used more tokens than it may
        Tell me if I am to change, pause, resume or cancel one.

        Planned in all chats:
        - 7 (family): “water the plants on the balcony, and look for greenflies ben…”, Mon 23 Nov 09:00 Europe/Madrid, in 11 h 56 min
        - 8 (family): “count the sheep”, Mon 23 Nov 09:00 Europe/Madrid, in 11 h 56 min; begins afresh each time
        - 1 (family): “look at the oven”, paused
        - 2 (family): “look at the oven”, paused, since it has failed 5 times in a row
        - 3 (family): “look at the oven”, paused, since it used more tokens than it may
        Tell me if I am to change, pause, resume or cancel one.

        Nothing is planned in this chat. Tell me what I am to do and when, and I plan it.

        Nothing is planned in any chat. Tell me what I am to do and when, and I plan it.

        Planeado en este chat:
        - 7: «water the plants on the balcony, and look for greenflies ben…», lun 23 nov 09:00 Europe/Madrid, dentro de 11 h 56 min
        - 8: «count the sheep», lun 23 nov 09:00 Europe/Madrid, dentro de 11 h 56 min; empieza de cero cada vez
        - 1: «look at the oven», en pausa
        - 2: «look at the oven», en pausa, porque ha fallado 5 veces seguidas
        - 3: «look at the oven», en pausa, porque ha usado más tokens de los que puede
        Dime si tengo que cambiar, pausar, reanudar o cancelar alguna.

        Planeado en todos los chats:
        - 7 (family): «water the plants on the balcony, and look for greenflies ben…», lun 23 nov 09:00 Europe/Madrid, dentro de 11 h 56 min
        - 8 (family): «count the sheep», lun 23 nov 09:00 Europe/Madrid, dentro de 11 h 56 min; empieza de cero cada vez
        - 1 (family): «look at the oven», en pausa
        - 2 (family): «look at the oven», en pausa, porque ha fallado 5 veces seguidas
        - 3 (family): «look at the oven», en pausa, porque ha usado más tokens de los que puede
        Dime si tengo que cambiar, pausar, reanudar o cancelar alguna.

        No hay nada planeado en este chat. Dime qué quieres que haga y cuándo, y lo planeo.

        No hay nada planeado en ningún chat. Dime qué quieres que haga y cuándo, y lo planeo.
        ");
    }

    #[test]
    fn a_long_list_is_told_in_part() {
        let tasks = (0..40).map(|id| task(id, "count", "2026-11-23T08:00:00Z")).collect();
        let said = answer(Role::Member, tasks, Lang::En);
        assert_eq!(said.matches("“count”").count(), TASKS_TOLD);
        assert!(said.contains("And 25 more; `nanokimi tasks list` on the server shows all."), "{said}");
    }

    #[test]
    fn its_word_is_known_in_both_languages() {
        for text in ["/tasks", " /Tareas\n"] {
            assert_eq!(given(text), Some(Command::Tasks), "{text:?}");
        }
        assert_eq!(given("/tasks for tomorrow"), None);
    }
}
