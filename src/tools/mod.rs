//! What an agent can have the host do: one tool per file, with its name, its parameters, what the model reads of
//! it, and its rule. Pure: `session::tool_calls` carries out what the rule allows.
//!
//! ```text
//! engine ──MCP──▶ egress ──ToolCall──▶ session::tool_calls ──▶ guard (here) ──▶ store
//! ```
//! Rights come from the socket, which belongs to one group, and from the database; never from an argument. To
//! add a tool, write its file and name it in [`HostTool`], in [`HostTool::ALL`] and in
//! [`HostTool::definition`].

mod action;
mod add_group;
mod ask_owner;
mod cancel_task;
mod definition;
mod guard;
mod host_tool;
mod list_chats;
mod list_groups;
mod list_tasks;
mod pause_task;
mod react;
mod remove_group;
mod resume_task;
mod schedule_task;
mod send_file;
mod send_message;
mod set_group;
mod task_number;
mod update_task;

pub use action::{ToolAction, ToolAnswer};
pub use guard::{CallFacts, Denial, Destination, GuardDecision, TaskStanding};
pub use host_tool::HostTool;
