//! The tools that exist.

use serde_json::{Map, Value};

use super::action::ToolAction;
use super::definition::{ToolAudience, ToolDefinition};
use super::guard::{CallFacts, GuardDecision};
use super::{
    add_group, ask_owner, cancel_task, list_chats, list_groups, list_tasks, pause_task, react, remove_group,
    resume_task, schedule_task, send_file, send_message, set_group, update_task,
};
use crate::types::Role;

/// A tool that an agent can call on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTool {
    SendMessage,
    SendFile,
    React,
    AskOwner,
    ListChats,
    ListGroups,
    AddGroup,
    SetGroup,
    RemoveGroup,
    ScheduleTask,
    ListTasks,
    UpdateTask,
    PauseTask,
    ResumeTask,
    CancelTask,
}

impl HostTool {
    pub const ALL: [Self; 15] = [
        Self::SendMessage,
        Self::SendFile,
        Self::React,
        Self::AskOwner,
        Self::ScheduleTask,
        Self::ListTasks,
        Self::UpdateTask,
        Self::PauseTask,
        Self::ResumeTask,
        Self::CancelTask,
        Self::ListChats,
        Self::ListGroups,
        Self::AddGroup,
        Self::SetGroup,
        Self::RemoveGroup,
    ];

    fn definition(self) -> ToolDefinition {
        match self {
            Self::SendMessage => send_message::DEFINITION,
            Self::SendFile => send_file::DEFINITION,
            Self::React => react::DEFINITION,
            Self::AskOwner => ask_owner::DEFINITION,
            Self::ListChats => list_chats::DEFINITION,
            Self::ListGroups => list_groups::DEFINITION,
            Self::AddGroup => add_group::DEFINITION,
            Self::SetGroup => set_group::DEFINITION,
            Self::RemoveGroup => remove_group::DEFINITION,
            Self::ScheduleTask => schedule_task::DEFINITION,
            Self::ListTasks => list_tasks::DEFINITION,
            Self::UpdateTask => update_task::DEFINITION,
            Self::PauseTask => pause_task::DEFINITION,
            Self::ResumeTask => resume_task::DEFINITION,
            Self::CancelTask => cancel_task::DEFINITION,
        }
    }

    /// The tools that the agent of a group with this role is told of.
    pub fn offered_to(role: Role) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |tool| match tool.definition().audience {
            ToolAudience::Everyone => true,
            ToolAudience::Main => role == Role::Main,
        })
    }

    /// Whether a call may be done.
    pub fn decide_call(self, action: &ToolAction, facts: &CallFacts) -> GuardDecision {
        (self.definition().rule)(action, facts)
    }

    pub fn find_by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.tool_name() == name)
    }

    pub fn tool_name(self) -> &'static str {
        self.definition().name
    }

    pub fn description(self) -> &'static str {
        self.definition().description
    }

    /// The JSON schema of its arguments: an object.
    pub fn parameters(self) -> Map<String, Value> {
        match (self.definition().parameters)() {
            Value::Object(schema) => schema,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        }
    }

    /// What a call with these arguments asks for.
    ///
    /// # Errors
    /// A sentence for the model that says what is wrong with them.
    pub fn parse_arguments(self, arguments: Map<String, Value>) -> Result<ToolAction, String> {
        (self.definition().parse)(Value::Object(arguments))
            .map_err(|why| format!("The arguments of {} are wrong: {why}.", self.tool_name()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Most bytes of all tools together, as a model is told of them: the Kimi API refuses lists of tools above about
    /// 15 KB, and the engine has tools of its own.
    const OFFERED_BYTES_MAX: usize = 12 * 1024;

    #[test]
    fn all_tools_together_are_small_enough_for_the_api() {
        let offered: usize = HostTool::offered_to(Role::Main)
            .map(|tool| {
                let parameters = Value::Object(tool.parameters()).to_string();
                tool.tool_name().len() + tool.description().len() + parameters.len()
            })
            .sum();
        assert!(offered > 500 && offered < OFFERED_BYTES_MAX, "{offered} bytes");
    }

    #[test]
    fn every_tool_is_found_by_its_name_and_has_a_schema_that_refuses_what_it_does_not_know() {
        for tool in HostTool::ALL {
            assert_eq!(HostTool::find_by_name(tool.tool_name()), Some(tool));
            let schema = tool.parameters();
            assert_eq!(schema["type"], "object", "{tool:?}");
            assert_eq!(schema["additionalProperties"], false, "{tool:?}");
            let unknown = Map::from_iter([("group_folder".to_owned(), Value::from("main"))]);
            let error = tool.parse_arguments(unknown).unwrap_err();
            assert!(error.contains(tool.tool_name()) && error.contains("group_folder"), "{error}");
        }
        assert_eq!(HostTool::find_by_name("register_group"), None);
    }

    /// Arguments that a tool understands: all that it needs, and every number.
    fn sample_arguments(tool: HostTool) -> Map<String, Value> {
        let schema = tool.parameters();
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let properties = schema["properties"].as_object().unwrap().clone();
        let needed = properties.into_iter().filter_map(|(name, property)| {
            let value = match (property["type"].as_str(), name.as_str()) {
                (Some("integer"), _) => json!(7),
                (_, "emoji") => json!("👍"),
                (_, _) => json!("x"),
            };
            (value.is_number() || required.contains(&json!(name))).then_some((name, value))
        });
        needed.collect()
    }

    #[test]
    fn an_optional_text_that_is_empty_is_left_out() {
        for tool in HostTool::ALL {
            let base = sample_arguments(tool);
            let expected = tool.parse_arguments(base.clone());
            assert!(expected.is_ok(), "{tool:?}: {expected:?}");
            let schema = tool.parameters();
            let properties = schema["properties"].as_object().unwrap();
            for name in properties.keys().filter(|name| !base.contains_key(*name)) {
                // Of a task's command, an empty one takes it away.
                if (tool, name.as_str()) == (HostTool::UpdateTask, "only_if") {
                    continue;
                }
                for nothing in [json!(""), json!(" \n"), Value::Null] {
                    let mut arguments = base.clone();
                    arguments.insert(name.clone(), nothing);
                    assert_eq!(tool.parse_arguments(arguments), expected, "{tool:?} {name}");
                }
            }
        }
    }

    /// The table of `docs/tools.md`.
    fn render_tools_table() -> String {
        let mut table =
            "| tool | agents | arguments | what the model reads of it |\n|---|---|---|---|\n".to_owned();
        for tool in HostTool::ALL {
            let agents = match tool.definition().audience {
                ToolAudience::Everyone => "all",
                ToolAudience::Main => "main channel",
            };
            let schema = tool.parameters();
            let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let arguments = schema["properties"].as_object().unwrap().keys().map(|name| {
                let is_required = required.contains(&Value::from(name.as_str()));
                if is_required { format!("`{name}`") } else { format!("[`{name}`]") }
            });
            let arguments = arguments.collect::<Vec<_>>().join(" ");
            table.push_str(&format!(
                "| `{}` | {agents} | {arguments} | {} |\n",
                tool.tool_name(),
                tool.description()
            ));
        }
        table
    }

    #[test]
    fn the_page_of_tools_shows_those_that_exist() {
        let page = include_str!("../../docs/tools.md");
        let table = render_tools_table();
        assert!(page.contains(&table), "docs/tools.md has to have this table:\n{table}");
    }

    #[test]
    fn only_the_main_channel_is_told_of_what_only_it_may_do() {
        let offered = |role| HostTool::offered_to(role).map(HostTool::tool_name).collect::<Vec<_>>();
        let of_everyone = [
            "send_message",
            "send_file",
            "react",
            "ask_owner",
            "schedule_task",
            "list_tasks",
            "update_task",
            "pause_task",
            "resume_task",
            "cancel_task",
        ];
        assert_eq!(offered(Role::Member), of_everyone);
        assert_eq!(offered(Role::Main).len(), HostTool::ALL.len());
    }
}
