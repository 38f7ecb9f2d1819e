//! `schedule_task`: has Kai do something later, once or again and again.

use serde::Deserialize;
use serde_json::{Value, json};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition, read_arguments, read_optional_text};
use super::guard::{CallFacts, Denial, Destination, GuardDecision};
use crate::rules::tasks::TaskDraft;
use crate::types::Role;

pub(super) const DEFINITION: ToolDefinition = ToolDefinition {
    name: "schedule_task",
    description: "Has you do something later: when it is due, you get `text` as a <task> and answer in the chat. \
                  `schedule` is one of: \"at 2026-12-01 09:00\" (local time), \"in 30m\", \"every 2h\", \
                  \"every 1d from 2026-12-01 09:00\", \"cron 0 9 * * MON-FRI\" (local time). Tell the person the time that \
                  comes back.",
    audience: ToolAudience::Everyone,
    parameters,
    parse,
    rule,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleTaskArguments {
    text: String,
    schedule: String,
    #[serde(default, deserialize_with = "read_optional_text")]
    zone: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    late: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    context: Option<String>,
    #[serde(default, deserialize_with = "read_optional_text")]
    only_if: Option<String>,
    max_tokens: Option<u64>,
    #[serde(default, deserialize_with = "read_optional_text")]
    group: Option<String>,
}

fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "What is to be done, complete in itself"},
            "schedule": {"type": "string"},
            "zone": {"type": "string", "description": "IANA name, such as Europe/Madrid; the install's if left out"},
            "late": {"type": "string", "description": "If it cannot run on time: once (default), skip, or within 2h"},
            "context": {"type": "string", "description": "group (default): this conversation; isolated: begins afresh \
                        each time and knows only its last answer, good for chores that come often"},
            "only_if": {"type": "string", "description": "A shell command that is run first, in your work folder, and \
                        costs no tokens: with exit code 0 the task runs and shows you its output, with another one this \
                        time is skipped in silence"},
            "max_tokens": {"type": "integer", "minimum": 1, "description": "Of one run"},
            "group": {"type": "string", "description": "Another group; main channel only"},
        },
        "required": ["text", "schedule"],
        "additionalProperties": false,
    })
}

fn parse(arguments: Value) -> Result<ToolAction, String> {
    let ScheduleTaskArguments { text, schedule, zone, late, context, only_if, max_tokens, group } =
        read_arguments(arguments)?;
    let (zone, late) = (zone.unwrap_or_default(), late.unwrap_or_default());
    let (context, only_if) = (context.unwrap_or_default(), only_if.unwrap_or_default());
    let draft = TaskDraft { text, schedule, zone, late, context, only_if, max_tokens };
    Ok(ToolAction::ScheduleTask { group, draft })
}

fn rule(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    match (facts.role, &facts.destination) {
        _ if !facts.is_in_turn => GuardDecision::Deny(Denial::NoTurn),
        _ if facts.is_task_turn => GuardDecision::Deny(Denial::TaskMakesTask),
        (_, Destination::OwnChat) => GuardDecision::Allow,
        (Role::Member, _) => GuardDecision::Deny(Denial::OtherGroup),
        (Role::Main, Destination::Registered(..)) => GuardDecision::Allow,
        (Role::Main, Destination::Unregistered(_) | Destination::Unknown) => {
            GuardDecision::Deny(Denial::UnknownGroup)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChatId, GroupName};

    #[test]
    fn what_and_when_are_needed() {
        let read = parse(json!({"text": "Water the plants", "schedule": "in 30m", "zone": "Asia/Tokyo"}));
        let draft = TaskDraft {
            text: "Water the plants".to_owned(),
            schedule: "in 30m".to_owned(),
            zone: "Asia/Tokyo".to_owned(),
            ..TaskDraft::default()
        };
        assert_eq!(read, Ok(ToolAction::ScheduleTask { group: None, draft }));
        for wrong in [
            json!({"text": "x"}),
            json!({"schedule": "in 30m"}),
            json!({"text": "x", "schedule": 3_600_000}),
            json!({"text": "x", "schedule": "in 30m", "max_tokens": -1}),
            json!({"text": "x", "schedule": "in 30m", "groupFolder": "main"}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_task_is_of_the_own_group_or_the_main_channel_plans_it_and_no_task_makes_tasks() {
        use GuardDecision::{Allow, Deny};
        let other = || Destination::Registered(GroupName::parse("other").unwrap(), ChatId::new("other@g.us"));
        for (role, destination, is_task_turn, expected) in [
            (Role::Main, other(), false, Allow),
            (Role::Main, Destination::OwnChat, false, Allow),
            (Role::Main, Destination::Unknown, false, Deny(Denial::UnknownGroup)),
            (Role::Member, Destination::OwnChat, false, Allow),
            (Role::Member, other(), false, Deny(Denial::OtherGroup)),
            (Role::Member, Destination::Unknown, false, Deny(Denial::OtherGroup)),
            (Role::Member, Destination::OwnChat, true, Deny(Denial::TaskMakesTask)),
            (Role::Main, other(), true, Deny(Denial::TaskMakesTask)),
        ] {
            let facts = CallFacts { is_task_turn, ..CallFacts::in_turn_of(role, destination) };
            let action = ToolAction::ScheduleTask { group: None, draft: TaskDraft::default() };
            assert_eq!(rule(&action, &facts), expected, "{facts:?}");
        }
    }
}
