//! What a call of a tool asks for, once its arguments are read; and what the model gets back.

use crate::rules::tasks::{TaskDraft, TaskEdit};
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
        /// As in [`ToolAction::SendMessage`].
        to: Option<String>,
        path: String,
        caption: String,
    },
    AskOwner {
        question: String,
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
    /// `group` is as in [`ToolAction::SendMessage`].
    ScheduleTask {
        group: Option<String>,
        draft: TaskDraft,
    },
    ListTasks,
    UpdateTask {
        task: i64,
        edit: TaskEdit,
    },
    PauseTask {
        task: i64,
    },
    ResumeTask {
        task: i64,
    },
    CancelTask {
        task: i64,
    },
}

impl ToolAction {
    /// The other chat or group that it names.
    pub fn named_destination(&self) -> Option<&str> {
        match self {
            Self::SendMessage { to: named, .. }
            | Self::SendFile { to: named, .. }
            | Self::ScheduleTask { group: named, .. } => named.as_deref(),
            Self::AskOwner { .. }
            | Self::React { .. }
            | Self::ListChats
            | Self::ListGroups
            | Self::AddGroup { .. }
            | Self::SetGroup { .. }
            | Self::RemoveGroup { .. }
            | Self::ListTasks
            | Self::UpdateTask { .. }
            | Self::PauseTask { .. }
            | Self::ResumeTask { .. }
            | Self::CancelTask { .. } => None,
        }
    }

    /// The number of the task that it is about.
    pub fn named_task(&self) -> Option<i64> {
        match self {
            Self::UpdateTask { task, .. }
            | Self::PauseTask { task }
            | Self::ResumeTask { task }
            | Self::CancelTask { task } => Some(*task),
            Self::SendMessage { .. }
            | Self::SendFile { .. }
            | Self::AskOwner { .. }
            | Self::React { .. }
            | Self::ListChats
            | Self::ListGroups
            | Self::AddGroup { .. }
            | Self::SetGroup { .. }
            | Self::RemoveGroup { .. }
            | Self::ScheduleTask { .. }
            | Self::ListTasks => None,
        }
    }
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
