//! What could not be read is on disk before WhatsApp hears anything more of us: the library acknowledges such
//! a message by itself, right after it has said so, and nobody delivers it again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long what leaves waits for a note. Then the connection is given up, and WhatsApp delivers the message
/// once more.
const STORED_WITHIN: Duration = Duration::from_secs(20);

/// The notes of a run that are not on disk yet. A handle: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct UnreadNotes(Arc<watch::Sender<UnstoredNotes>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnstoredNotes {
    count: usize,
    /// Nobody stores one of them any more.
    lost: bool,
}

impl UnreadNotes {
    /// There is one more. Until it is stored nothing leaves to WhatsApp.
    pub fn add_pending(&self) {
        self.0.send_modify(|unstored| unstored.count += 1);
    }

    pub fn mark_stored(&self) {
        self.0.send_modify(|unstored| unstored.count = unstored.count.saturating_sub(1));
    }

    /// One will not be stored: nothing more leaves in this run.
    pub fn mark_lost(&self) {
        self.0.send_modify(|unstored| unstored.lost = true);
    }

    /// Waits until all are on disk.
    ///
    /// # Errors
    /// It takes too long, or one will not be.
    pub async fn wait_until_stored(&self) -> Result<()> {
        let settled = |unstored: &UnstoredNotes| unstored.lost || unstored.count == 0;
        if !settled(&self.0.borrow()) {
            let mut changes = self.0.subscribe();
            let waiting = timeout(STORED_WITHIN, changes.wait_for(settled)).await;
            waiting.context("A message that could not be read is not noted in time")??;
        }
        if self.0.borrow().lost {
            bail!("A message that could not be read is not noted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_leaves_waits_for_all_notes_and_not_for_ever() {
        let notes = UnreadNotes::default();
        notes.wait_until_stored().await.unwrap();
        notes.add_pending();
        notes.add_pending();
        let sender = tokio::spawn({
            let notes = notes.clone();
            async move { notes.wait_until_stored().await }
        });
        notes.mark_stored();
        sleep(STORED_WITHIN / 2).await;
        assert!(!sender.is_finished());
        notes.mark_stored();
        sender.await.unwrap().unwrap();

        notes.add_pending();
        for _ in 0..2 {
            notes.wait_until_stored().await.unwrap_err();
        }
        notes.mark_stored();
        notes.wait_until_stored().await.unwrap();
        notes.add_pending();
        notes.mark_lost();
        notes.wait_until_stored().await.unwrap_err();
    }
}
