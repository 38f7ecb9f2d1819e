//! Whether an agent may have what it asks for: allowed, held until the owner has answered, or denied with a
//! sentence for the model.

use super::action::ToolAction;
use super::definition::HostTool;
use crate::types::{ChatId, GroupName, Role};

/// What is known when a tool is called. None of it comes from the call but `destination`, which the database
/// has looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFacts {
    /// The role of the group whose socket the call came through.
    pub role: Role,
    /// Whether a turn of that group runs.
    pub is_in_turn: bool,
    pub destination: Destination,
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
    /// The owner is asked first.
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
        }
    }
}

/// Decides about a call.
pub fn guard_action(tool: HostTool, action: &ToolAction, facts: &CallFacts) -> GuardDecision {
    (tool.definition().rule)(action, facts)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(role: Role, destination: Destination) -> CallFacts {
        CallFacts { role, is_in_turn: true, destination }
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
            assert_eq!(guard_action(HostTool::SendMessage, &message(None), &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn groups_are_the_main_channels_business() {
        let add = ToolAction::AddGroup { chat: "1@g.us".to_owned(), name: group("x"), trigger: None };
        let set = ToolAction::SetGroup { name: group("x"), trigger: None, daily_tokens: None };
        let remove = ToolAction::RemoveGroup { name: group("x") };
        for (tool, action) in [
            (HostTool::AddGroup, add),
            (HostTool::SetGroup, set),
            (HostTool::RemoveGroup, remove),
            (HostTool::ListGroups, ToolAction::ListGroups),
            (HostTool::ListChats, ToolAction::ListChats),
        ] {
            let of_role = |role| guard_action(tool, &action, &facts(role, Destination::OwnChat));
            assert_eq!(of_role(Role::Main), GuardDecision::Allow, "{tool:?}");
            assert_eq!(of_role(Role::Member), GuardDecision::Deny(Denial::MainChannelOnly), "{tool:?}");
        }
    }

    #[test]
    fn an_agent_that_nobody_has_asked_does_nothing() {
        for role in [Role::Main, Role::Member] {
            for tool in HostTool::ALL {
                let facts = CallFacts { is_in_turn: false, ..facts(role, Destination::OwnChat) };
                let decision = guard_action(tool, &message(None), &facts);
                assert!(matches!(decision, GuardDecision::Deny(_)), "{tool:?}: {decision:?}");
            }
        }
    }
}
