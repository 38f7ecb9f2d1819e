//! Looks after messages that could not be read: has the phone asked for them, and tells the chat if one does
//! not come.
//!
//! The rows say what is to be done, and when. This sleeps until then, or until intake has noted another one
//! or the link has changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use crate::bridge::{LinkState, Order};
use crate::container::Containers;
use crate::session::SessionContext;
use crate::store::{OutboxChange, UnreadWork};

/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(30);
/// The longest sleep. If the clock is set, what is due is late by no more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// Runs until the service stops.
pub async fn run_unread_recovery<C: Containers>(
    context: &SessionContext<C>,
    orders: mpsc::Sender<Order>,
    mut link: watch::Receiver<LinkState>,
    noted: Arc<Notify>,
) -> Infallible {
    loop {
        let can_ask = *link.borrow_and_update() == LinkState::Online;
        let pause = match context
            .store
            .process_unread_messages(can_ask, context.settings.store_rules(), context.clock.now())
            .await
        {
            Ok(work) => perform_unread_work(context, &orders, work).await,
            Err(error) => {
                tracing::error!("Failed to look after messages that could not be read: {error:#}");
                Some(ERROR_PAUSE)
            }
        };
        tokio::select! {
            () = noted.notified() => {}
            () = sleep(pause.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)) => {}
            changed = link.changed() => if changed.is_err() {
                // The bridge is gone, which intake reports.
                std::future::pending::<()>().await;
            },
        }
    }
}

/// Returns for how long nothing is to be done after that.
async fn perform_unread_work<C: Containers>(
    context: &SessionContext<C>,
    orders: &mpsc::Sender<Order>,
    work: UnreadWork,
) -> Option<Duration> {
    for handle in work.ask {
        orders.send(Order::AskAgain { handle }).await.ok();
    }
    if work.outbox == OutboxChange::Changed {
        tracing::warn!("A message could not be read, and did not come again; its chat is told");
        context.outbox_hint.notify_one();
    }
    work.next.map(|next| Duration::try_from(next.duration_since(context.clock.now())).unwrap_or_default())
}
