//! The guard: what is known of a call, what can be said to it, and the rules that several tools share. Each
//! tool's own `rule` is in its file.

use super::action::ToolAction;
use crate::types::{ChatId, GroupName, Role};

/// What is known when a tool is called. None of it comes from the call but `destination`, which the database
/// has looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFacts {
    /// The role of the group whose socket the call came through.
    pub role: Role,
    /// Whether a turn of that group runs.
    pub is_in_turn: bool,
    /// Whether nobody but a task has called for that turn.
    pub is_task_turn: bool,
    pub destination: Destination,
    pub task: TaskStanding,
}

/// Whose task a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStanding {
    /// The call is about no task, or about one that does not exist.
    Unknown,
    OwnGroup,
    OtherGroup,
}

/// The chat that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The agent's own.
    OwnChat,
    /// Another group's.
    Registered(GroupName, ChatId),
    /// A chat that Kai does not serve.
    Unregistered(ChatId),
    /// No chat that was ever heard of.
    Unknown,
}

/// What the guard says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardDecision {
    Allow,
    /// Only if the owner allows it, or because it is a question to them.
    Hold,
    Deny(Denial),
}

/// Why a call is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No turn runs, so that nobody has asked for anything.
    NoTurn,
    MainChannelOnly,
    OtherChat,
    UnknownChat,
    /// It exists, and Kai does not serve it: nobody there expects a file.
    UnservedChat,
    /// The owner reads this chat anyway.
    OwnersChannel,
    OtherGroup,
    UnknownGroup,
    /// There is no such task, or it is another group's: which of the two is not said.
    UnknownTask,
    TaskMakesTask,
    TaskChangesGroup,
}

impl Denial {
    /// What the model reads.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoTurn => "This works only while you answer somebody. Nothing was done.",
            Self::MainChannelOnly => {
                "Only the agent of the owner's main channel may do this. Nothing was done; do not work around it."
            }
            Self::OtherChat => {
                "You may write in your own chat only. Nothing was sent; do not work around it. Leave out \"to\"."
            }
            Self::UnknownChat => {
                "There is no such chat. Nothing was sent. list_chats shows the chats that exist, with their ids."
            }
            Self::UnservedChat => {
                "This chat is not served, and files go only to chats that are. Nothing was sent; do not work around it. \
                 Ask the owner whether it should be added with add_group."
            }
            Self::OwnersChannel => "This is the owner's own channel: ask in your answer. Nothing was sent.",
            Self::OtherGroup => {
                "You may plan tasks of your own group only. Nothing was planned; do not work around it. Leave out \"group\"."
            }
            Self::UnknownGroup => {
                "There is no such group. Nothing was planned. list_groups shows those that exist."
            }
            Self::UnknownTask => {
                "There is no such task. Nothing was done. list_tasks shows those that exist."
            }
            Self::TaskChangesGroup => {
                "A task changes no groups. Nothing was changed; do not work around it. Say in the chat what should change."
            }
            Self::TaskMakesTask => {
                "A task plans no tasks. Nothing was planned; do not work around it. Say in the chat what should be planned."
            }
        }
    }
}

/// The rule of what changes groups: the main channel's agent may, if a person has asked.
pub(super) fn allow_main_for_person(action: &ToolAction, facts: &CallFacts) -> GuardDecision {
    let decision = allow_main_in_turn(action, facts);
    let is_of_task = decision == GuardDecision::Allow && facts.is_task_turn;
    if is_of_task { GuardDecision::Deny(Denial::TaskChangesGroup) } else { decision }
}

/// The same for what cannot be taken back: the owner is asked first.
pub(super) fn hold_main_for_person(action: &ToolAction, facts: &CallFacts) -> GuardDecision {
    match allow_main_for_person(action, facts) {
        GuardDecision::Allow | GuardDecision::Hold => GuardDecision::Hold,
        GuardDecision::Deny(denial) => GuardDecision::Deny(denial),
    }
}

/// The rule of what is sent to a chat that a call may name: the own one, and from the main channel others. Of a
/// chat that Kai does not serve, `unserved` says.
pub(super) fn allow_destination(facts: &CallFacts, unserved: GuardDecision) -> GuardDecision {
    match (facts.role, &facts.destination) {
        _ if !facts.is_in_turn => GuardDecision::Deny(Denial::NoTurn),
        (_, Destination::OwnChat) => GuardDecision::Allow,
        (Role::Member, _) => GuardDecision::Deny(Denial::OtherChat),
        (Role::Main, Destination::Registered(..)) => GuardDecision::Allow,
        (Role::Main, Destination::Unregistered(_)) => unserved,
        (Role::Main, Destination::Unknown) => GuardDecision::Deny(Denial::UnknownChat),
    }
}

/// The rule of what only the main channel's agent may do, and only while it answers.
pub(super) fn allow_main_in_turn(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    match facts {
        CallFacts { role: Role::Member, .. } => GuardDecision::Deny(Denial::MainChannelOnly),
        CallFacts { is_in_turn: false, .. } => GuardDecision::Deny(Denial::NoTurn),
        CallFacts { role: Role::Main, is_in_turn: true, .. } => GuardDecision::Allow,
    }
}

/// The rule of what changes nothing beyond the agent's own chat.
pub(super) fn allow_in_turn(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    if facts.is_in_turn { GuardDecision::Allow } else { GuardDecision::Deny(Denial::NoTurn) }
}

/// The rule of what changes a task that exists: one of the own group, and from the main channel any.
pub(super) fn allow_own_task(_: &ToolAction, facts: &CallFacts) -> GuardDecision {
    match (facts.role, facts.task) {
        _ if !facts.is_in_turn => GuardDecision::Deny(Denial::NoTurn),
        (_, TaskStanding::OwnGroup) | (Role::Main, TaskStanding::OtherGroup) => GuardDecision::Allow,
        (Role::Member, TaskStanding::OtherGroup) | (_, TaskStanding::Unknown) => {
            GuardDecision::Deny(Denial::UnknownTask)
        }
    }
}

/// The same for what lets a task come due, now or again: a task does not do that.
pub(super) fn allow_planning_own_task(action: &ToolAction, facts: &CallFacts) -> GuardDecision {
    let decision = allow_own_task(action, facts);
    let is_of_task = decision == GuardDecision::Allow && facts.is_task_turn;
    if is_of_task { GuardDecision::Deny(Denial::TaskMakesTask) } else { decision }
}

#[cfg(test)]
impl CallFacts {
    /// A call in a turn that a person has called for.
    pub(super) fn in_turn_of(role: Role, destination: Destination) -> Self {
        Self { role, is_in_turn: true, is_task_turn: false, destination, task: TaskStanding::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HostTool;
    use super::*;

    fn facts(role: Role, destination: Destination) -> CallFacts {
        CallFacts::in_turn_of(role, destination)
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn registered(name: &str) -> Destination {
        Destination::Registered(group(name), ChatId::new(format!("{name}@g.us")))
    }

    fn message(to: Option<&str>) -> ToolAction {
        ToolAction::SendMessage { to: to.map(str::to_owned), text: "hello".to_owned() }
    }

    #[test]
    fn a_message_goes_to_the_own_chat_and_from_the_main_channel_to_any_that_kai_serves() {
        use GuardDecision::{Allow, Deny, Hold};
        let unregistered = || Destination::Unregistered(ChatId::new("unknown@g.us"));
        for (role, destination, expected) in [
            (Role::Main, Destination::OwnChat, Allow),
            (Role::Main, registered("other"), Allow),
            (Role::Main, registered("third"), Allow),
            (Role::Main, unregistered(), Hold),
            (Role::Main, Destination::Unknown, Deny(Denial::UnknownChat)),
            (Role::Member, Destination::OwnChat, Allow),
            (Role::Member, registered("main"), Deny(Denial::OtherChat)),
            (Role::Member, registered("third"), Deny(Denial::OtherChat)),
            (Role::Member, unregistered(), Deny(Denial::OtherChat)),
            (Role::Member, Destination::Unknown, Deny(Denial::OtherChat)),
        ] {
            let facts = facts(role, destination);
            assert_eq!(HostTool::SendMessage.decide_call(&message(None), &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn groups_are_the_main_channels_business() {
        let add = ToolAction::AddGroup { chat: "1@g.us".to_owned(), name: group("x"), trigger: None };
        let set = ToolAction::SetGroup { name: group("x"), trigger: None, daily_tokens: None };
        let remove = ToolAction::RemoveGroup { name: group("x") };
        for (tool, action, of_main) in [
            (HostTool::AddGroup, add, GuardDecision::Allow),
            (HostTool::SetGroup, set, GuardDecision::Allow),
            // It cannot be taken back.
            (HostTool::RemoveGroup, remove, GuardDecision::Hold),
            (HostTool::ListGroups, ToolAction::ListGroups, GuardDecision::Allow),
            (HostTool::ListChats, ToolAction::ListChats, GuardDecision::Allow),
        ] {
            let of_role = |role| tool.decide_call(&action, &facts(role, Destination::OwnChat));
            assert_eq!(of_role(Role::Main), of_main, "{tool:?}");
            assert_eq!(of_role(Role::Member), GuardDecision::Deny(Denial::MainChannelOnly), "{tool:?}");
        }
    }

    #[test]
    fn a_task_is_changed_by_its_own_group_or_from_the_main_channel() {
        use GuardDecision::{Allow, Deny};
        use TaskStanding::{OtherGroup, OwnGroup, Unknown};
        for tool in [HostTool::UpdateTask, HostTool::PauseTask, HostTool::ResumeTask, HostTool::CancelTask] {
            for (role, task, expected) in [
                (Role::Main, OwnGroup, Allow),
                (Role::Main, OtherGroup, Allow),
                (Role::Main, Unknown, Deny(Denial::UnknownTask)),
                (Role::Member, OwnGroup, Allow),
                (Role::Member, OtherGroup, Deny(Denial::UnknownTask)),
                (Role::Member, Unknown, Deny(Denial::UnknownTask)),
            ] {
                let facts = CallFacts { task, ..facts(role, Destination::OwnChat) };
                assert_eq!(
                    tool.decide_call(&ToolAction::PauseTask { task: 7 }, &facts),
                    expected,
                    "{tool:?} {facts:?}"
                );
            }
        }
    }

    #[test]
    fn a_task_plans_no_tasks_by_any_way_and_changes_no_groups() {
        let facts = CallFacts {
            is_task_turn: true,
            task: TaskStanding::OwnGroup,
            ..facts(Role::Main, Destination::OwnChat)
        };
        let decide = |tool: HostTool| tool.decide_call(&ToolAction::PauseTask { task: 7 }, &facts);
        for tool in [HostTool::ScheduleTask, HostTool::UpdateTask, HostTool::ResumeTask] {
            assert_eq!(decide(tool), GuardDecision::Deny(Denial::TaskMakesTask), "{tool:?}");
        }
        for tool in [HostTool::AddGroup, HostTool::SetGroup, HostTool::RemoveGroup] {
            assert_eq!(decide(tool), GuardDecision::Deny(Denial::TaskChangesGroup), "{tool:?}");
        }
        for tool in [HostTool::PauseTask, HostTool::CancelTask, HostTool::SendMessage, HostTool::ListTasks] {
            assert_eq!(decide(tool), GuardDecision::Allow, "{tool:?}");
        }
    }

    #[test]
    fn an_agent_that_nobody_has_asked_does_nothing() {
        for role in [Role::Main, Role::Member] {
            for tool in HostTool::ALL {
                let facts = CallFacts { is_in_turn: false, ..facts(role, Destination::OwnChat) };
                let decision = tool.decide_call(&message(None), &facts);
                assert!(matches!(decision, GuardDecision::Deny(_)), "{tool:?}: {decision:?}");
            }
        }
    }
}
