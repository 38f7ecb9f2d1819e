//! One group's session with its agent: from rows that wait to rows that are done.
//!
//! - `machine` decides (pure). `driver` performs: it alone owns the group's container, its engine and its
//!   turn. Two parts of its work are in files of their own: `engine_life`, from launch to the container's
//!   end, and `turn_end`.
//! - `compaction` has the engine put its history into a summary.
//! - `condition` runs the command of a task that says whether a run begins, in `task_command`.
//! - `launch` makes a container ready. `token_limit` says whether a group may begin a turn. `share` watches
//!   what an agent takes of the machine.
//! - `whole_texts` keeps what is too long for a prompt, `images` shows the model what was sent.
//! - `turn` gathers an answer, `replies` makes it ready to be sent, `ending` writes it down. `progress` is
//!   what the chat sees meanwhile.
//! - `tool_calls` does what the agent asks of the host in its `running_turn`, if the guard in `tools` allows it;
//!   `task_tools` is its part about tasks, `held_calls` the one about what only the owner can allow.
//! - `troubles` knows which trouble is worth another try. `memory` doubts what an agent has left if engines
//!   fail on it. `recovery` comes after a session that broke off.
//! - `context` is what all sessions share, `settings` among it; `mailbox` is what they and dispatch tell each
//!   other.

mod compaction;
mod condition;
mod context;
mod driver;
mod ending;
mod engine_life;
mod held_calls;
mod images;
mod launch;
pub mod machine;
mod mailbox;
mod memory;
mod progress;
mod recovery;
mod replies;
mod running_turn;
mod settings;
mod share;
mod task_command;
mod task_tools;
mod token_limit;
mod tool_calls;
mod troubles;
mod turn;
mod turn_end;
mod whole_texts;

pub use context::SessionContext;
pub use driver::run_session;
pub use launch::{LOOK_FOR_DOCKER_EVERY, wait_for_docker};
pub use mailbox::{ReportKind, SessionCommand, SessionReport};
pub use recovery::clean_up_broken_session;
pub use settings::Settings;
