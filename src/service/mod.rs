//! The service: what runs between the bridge and the sessions, from the start's cleaning to the last
//! delivery.
//!
//! ```text
//! bridge ─▶ intake ─▶ [inbox] ─hint─▶ media ─hint─▶ dispatch ─▶ sessions ─▶ [outbox]
//!                                                                              │ hint
//! bridge ◀─ delivery ◀─────────────────────────────────────────────────────────┘
//! ```
//! Each arrow is a task with one mailbox. `supervisor` starts and stops them. Beside them:
//!
//! - `slots` (pure) shares the slots among the sessions, `ahead` (pure) says for whom an agent is started
//!   early.
//! - `pacing` and `deadlines` (pure) say when a reply leaves. `outgoing` makes its content, `repairs` sends
//!   it anew to devices that cannot read it. `file_types` (pure) knows endings and MIME types.
//! - `link_watch`, `login_watch` and `docker` note what keeps Kai from answering, and tell the owner;
//!   `account_watch` tells of one Kimi account among several.
//! - `scheduler` puts into the inbox what tasks are due, and `task_signal` hears of tasks that another process
//!   changed.
//! - `unread` has the phone asked for messages that could not be read.

mod account_watch;
mod ahead;
mod bridge_reach;
mod deadlines;
mod delivery;
mod dispatch;
mod docker;
mod file_types;
mod intake;
mod link_watch;
mod login_watch;
mod media;
mod outgoing;
mod pacing;
mod repairs;
mod scheduler;
mod slots;
mod supervisor;
mod task_signal;
mod unread;
mod voice_notes;

pub use bridge_reach::BridgeReach;
pub use supervisor::{STOP_LIMIT, StopReason, run_service};
pub use task_signal::signal_changed_tasks;
