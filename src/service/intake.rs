//! Takes what the bridge delivers into the inbox, and tells the bridge only when it is on disk.
//!
//! Whatever has queued up is one commit: a burst costs one write to the disk, not one per message.

use tokio::sync::{mpsc, oneshot};

use super::{media, rules};
use crate::bridge::Batch;
use crate::container::Containers;
use crate::session::Host;
use crate::store::{OutboxChange, TakenIn};
use crate::types::GroupName;

/// Most batches that are stored by one commit.
const BATCHES_PER_COMMIT: usize = 64;

/// Runs until told to stop, or until the bridge is gone.
pub async fn run<C: Containers>(
    host: Host<C>,
    mut batches: mpsc::Receiver<Batch>,
    hints: mpsc::Sender<GroupName>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut taken = Vec::with_capacity(BATCHES_PER_COMMIT);
    loop {
        let count = tokio::select! {
            count = batches.recv_many(&mut taken, BATCHES_PER_COMMIT) => count,
            _ = &mut stopped => return,
        };
        if count == 0 {
            tracing::warn!("The bridge is gone: no message comes in any more");
            stopped.await.ok();
            return;
        }
        commit(&host, &mut taken, &hints).await;
    }
}

/// Stores the batches together; where that fails, their bridge is not answered and delivers them again.
async fn commit<C: Containers>(host: &Host<C>, batches: &mut Vec<Batch>, hints: &mpsc::Sender<GroupName>) {
    let (mut events, mut waiting) = (Vec::new(), Vec::new());
    for batch in batches.drain(..) {
        events.extend(batch.events);
        waiting.push(batch.committed);
    }
    let taken = host.store.take_in(events, rules(&host.settings), host.clock.now()).await;
    let TakenIn { woken, outbox, taken_back } = match taken {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!("Failed to store messages, the bridge will deliver them again: {error:#}");
            return;
        }
    };
    for committed in waiting {
        // A bridge that stopped waiting delivers again, which is a no-op.
        committed.send(()).ok();
    }
    if outbox == OutboxChange::Changed {
        host.outbox_hint.notify_one();
    }
    for (group, path) in taken_back {
        media::remove(host, &group, path).await;
    }
    for group in woken {
        hints.send(group).await.ok();
    }
}
