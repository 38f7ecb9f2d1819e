//! What a call of a tool asks for, once its arguments are read; and what the model gets back.

use crate::types::GroupName;

/// What an agent asks the host to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolAction {
    /// `to` is a group's name or a chat's id as the agent wrote it; `None` is the agent's own chat.
    SendMessage {
        to: Option<String>,
        text: String,
    },
    /// `path` is as the agent wrote it: the code that opens it must not trust it.
    SendFile {
        path: String,
        caption: String,
    },
    /// On the message that called for the running turn.
    React {
        emoji: String,
    },
    ListChats,
    ListGroups,
    AddGroup {
        chat: String,
        name: GroupName,
        trigger: Option<String>,
    },
    SetGroup {
        name: GroupName,
        trigger: Option<String>,
        daily_tokens: Option<u64>,
    },
    RemoveGroup {
        name: GroupName,
    },
}

/// What the model reads after its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolAnswer {
    pub text: String,
    pub is_error: bool,
}

impl ToolAnswer {
    pub fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true }
    }
}
