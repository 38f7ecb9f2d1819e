//! Whether the agent's own memory keeps its engine from working: decided by how the last engines fared.
//!
//! ```text
//!            2 engines fail            works
//!   Trusted ───────────────▶ OnTrial ────────▶ Trusted, the old memory is kept aside, the chat is told
//!      ▲                        │ fails
//!      └── works ── Cleared ◀───┘ the old memory is back: it was something else
//! ```
//! An engine fails here if it never gets ready, ends, or is refused by the model's API before the model was
//! asked anything that it could answer. Later failures are another matter: by then the memory was read.

use anyhow::Result;

use super::context::SessionContext;
use super::launch::history_folder_for_group;
use crate::container::Containers;
use crate::folders::SetAsideTrial;
use crate::notices;
use crate::panics::run_blocking;
use crate::store::EngineSession;
use crate::types::{ChatId, Group};

/// After so many failed engines in a row the memory is doubted. The third and last attempt at a message is
/// made with a new memory.
const FAILURES_UNTIL_DOUBT: u32 = 2;

#[derive(Debug)]
pub enum MemoryTrust {
    Trusted { failures: u32 },
    OnTrial(SetAsideTrial),
    Cleared,
}

impl MemoryTrust {
    pub fn trusted() -> Self {
        Self::Trusted { failures: 0 }
    }

    /// If the memory has kept two engines from working, moves it aside, so that the next engine gets a new
    /// one. The run of a task in a session of its own has no memory, and says nothing of the chat's.
    ///
    /// # Errors
    /// The old memory cannot be moved away.
    pub async fn set_aside_doubted_memory<C: Containers>(
        &mut self,
        context: &SessionContext<C>,
        group: &Group,
        session: &EngineSession,
    ) -> Result<()> {
        if session.is_of_run() {
            return Ok(());
        }
        let sessions = history_folder_for_group(context, group, session);
        let (paths, name, doubted) = (context.paths.clone(), group.name.clone(), self.is_doubted());
        let aside = run_blocking(move || match SetAsideTrial::resume_trial(&paths, &name, &sessions)? {
            // nanokimi was killed in between, or the memory could not be put back.
            Some(aside) => Ok(Some(aside)),
            None if doubted => SetAsideTrial::begin_trial(&paths, &name, &sessions).map(Some),
            None => Ok(None),
        });
        if let Some(aside) = aside.await?? {
            tracing::warn!("The engine has failed twice; this one begins without the agent's memory");
            *self = Self::OnTrial(aside);
        }
        Ok(())
    }

    /// An engine has failed, and its memory may be the reason.
    pub async fn record_engine_failure(&mut self) {
        let Some(aside) = self.advance_on_failure() else { return };
        match run_blocking(move || aside.undo_trial()).await.map_err(anyhow::Error::from).flatten() {
            Ok(()) => tracing::warn!("Without the agent's memory the engine fails too; it is put back"),
            Err(error) => tracing::error!("{error:#}"),
        }
    }

    /// An engine works with the memory that it began with. If that is a new one, the chat is told.
    pub async fn record_engine_success<C>(&mut self, context: &SessionContext<C>, chat: &ChatId) {
        let Some(aside) = self.advance_on_success() else { return };
        match run_blocking(move || aside.keep_aside()).await.map_err(anyhow::Error::from).flatten() {
            Ok((place, names)) => {
                tracing::warn!(place, "The agent has begun anew; its memory is kept there");
                let settings = &context.settings;
                context
                    .try_notify_chat(
                        chat,
                        &settings.with_reply_prefix(notices::fresh_start_notice(
                            settings.lang,
                            &place,
                            &names,
                        )),
                    )
                    .await;
            }
            Err(error) => tracing::error!("{error:#}"),
        }
    }

    /// Whether the next engine is to begin without the memory.
    fn is_doubted(&self) -> bool {
        matches!(self, Self::Trusted { failures } if *failures >= FAILURES_UNTIL_DOUBT)
    }

    /// An engine has failed. Returns the memory that is to be put back.
    fn advance_on_failure(&mut self) -> Option<SetAsideTrial> {
        match std::mem::replace(self, Self::Cleared) {
            Self::Trusted { failures } => {
                *self = Self::Trusted { failures: failures + 1 };
                None
            }
            Self::OnTrial(aside) => Some(aside),
            Self::Cleared => None,
        }
    }

    /// An engine works. Returns the memory that is to stay aside.
    fn advance_on_success(&mut self) -> Option<SetAsideTrial> {
        match std::mem::replace(self, Self::trusted()) {
            Self::Trusted { .. } | Self::Cleared => None,
            Self::OnTrial(aside) => Some(aside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_in_a_row_and_no_fewer_raise_a_doubt() {
        let mut memory = MemoryTrust::trusted();
        assert!(memory.advance_on_failure().is_none() && !memory.is_doubted());
        assert!(memory.advance_on_success().is_none());
        assert!(memory.advance_on_failure().is_none() && !memory.is_doubted(), "one worked in between");
        assert!(memory.advance_on_failure().is_none() && memory.is_doubted());
        let mut memory = MemoryTrust::Cleared;
        for _ in 0..5 {
            assert!(
                memory.advance_on_failure().is_none() && !memory.is_doubted(),
                "it is not tried again and again"
            );
        }
        memory.advance_on_success();
        memory.advance_on_failure();
        memory.advance_on_failure();
        assert!(memory.is_doubted());
    }
}
