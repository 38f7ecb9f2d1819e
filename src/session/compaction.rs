//! The chat's session is put into a summary, as its owner has asked: by the engine itself, in a turn without
//! messages.
//!
//! It is noted in the database until the chat is told how it has ended. So a stop, a kill or a lost container
//! leaves it to the next engine. If the engine tries and cannot, or if there is none, the chat is told, and it is not
//! tried again by itself. What is written meanwhile is answered after it. Its tokens count as those of any turn.

use anyhow::Result;
use tokio::time::Instant;

use super::context::SessionContext;
use super::driver::SessionDriver;
use super::machine::SessionEvent;
use super::progress::ProgressSchedule;
use super::settings::Settings;
use super::turn::Turn;
use crate::agent::{CompactionEnd, Request};
use crate::container::Containers;
use crate::notices::{self, CompactionResult};
use crate::store::{OutboxChange, Reply, TurnOutcome};
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
        let told = vec![Reply::from_text(compaction_over_notice(&self.context.settings, result))];
        SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Returned, told).await)
    }

    /// There is no engine for it: the chat is told, and it is not tried again by itself.
    pub async fn give_up_asked_compaction(&self) -> Result<()> {
        let Some(group) = self.current_group().await? else { return Ok(()) };
        give_up_asked_compaction(&self.context, &group).await
    }
}

/// The same without a session.
pub async fn give_up_asked_compaction<C>(context: &SessionContext<C>, group: &Group) -> Result<()> {
    let notice = compaction_over_notice(&context.settings, CompactionResult::Failed);
    let now = context.clock.now();
    if context.store.give_up_asked_compaction(group, notice, now).await? == OutboxChange::Changed {
        context.outbox_hint.notify_one();
    }
    Ok(())
}

/// What the chat reads when it is over.
pub fn compaction_over_notice(settings: &Settings, result: CompactionResult) -> String {
    settings.with_reply_prefix(notices::compaction_over_notice(settings.lang, result).to_owned())
}
