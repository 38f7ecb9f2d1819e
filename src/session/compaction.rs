//! The chat's session is put into a summary, as its owner has asked: by the engine itself, in a turn without
//! messages.
//!
//! It is noted in the database until the chat is told how it has ended. So a stop, a kill or a lost container
//! leaves it to the next engine. If the engine tries and cannot, the chat is told, and it is not tried again
//! by itself. What is written meanwhile is answered after it. Its tokens count as those of any turn.

use tokio::time::Instant;

use super::driver::SessionDriver;
use super::machine::SessionEvent;
use super::progress::ProgressSchedule;
use super::turn::Turn;
use crate::agent::{CompactionEnd, Request};
use crate::container::Containers;
use crate::notices::{self, CompactionResult};
use crate::store::{Reply, TurnOutcome};
use crate::types::{Group, TurnId};

impl<C: Containers> SessionDriver<C> {
    /// Has the engine put its history into a summary.
    pub fn begin_compaction(&mut self, group: &Group, turn: TurnId) -> SessionEvent {
        let Some(engine) = &mut self.engine else { return SessionEvent::NothingToDo };
        tracing::info!(turn = turn.0, "The session is put into a summary");
        engine.has_worked = true;
        engine.egress.take_failure();
        engine.turn_tokens = None;
        engine.egress.begin_turn(None);
        self.turn = Some(Turn::for_compaction(turn, group));
        self.progress = Some(ProgressSchedule::new(Instant::now()));
        self.send_engine_request(Request::Compact);
        SessionEvent::Prompted
    }

    /// The summary is made, or cannot be made: the chat is told.
    pub async fn end_compaction(&mut self, end: CompactionEnd) -> SessionEvent {
        tracing::info!(?end, "The summary of the session is over");
        let result = match end {
            CompactionEnd::Done => CompactionResult::Done,
            CompactionEnd::NothingThere => CompactionResult::NothingThere,
            CompactionEnd::Failed => CompactionResult::Failed,
        };
        let settings = &self.context.settings;
        let notice = notices::compaction_over_notice(settings.lang, result).to_owned();
        let told = vec![Reply::from_text(settings.with_reply_prefix(notice))];
        SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Returned, told).await)
    }
}
