//! Sends what is in the outbox, in order within each chat, until the bridge has taken it or it is given up.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::Reach;
use crate::bridge::{self, Order, SendError};
use crate::container::Containers;
use crate::session::Host;
use crate::store::{DueReply, SendResult};
use crate::types::ChatId;

/// How long the bridge may take over one message. Other chats wait meanwhile.
const SEND_LIMIT: Duration = Duration::from_secs(20);
/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// Runs until told to stop; then sends what is due and ends.
pub async fn run<C: Containers>(
    host: Host<C>,
    orders: mpsc::Sender<Order>,
    reach: Reach,
    mut stopped: oneshot::Receiver<()>,
) {
    let only = match reach {
        Reach::All => None,
        Reach::Only(chat) => Some(chat),
        Reach::Nothing => {
            stopped.await.ok();
            return;
        }
    };
    loop {
        let pause = match send_due(&host, &orders, only.as_ref()).await {
            Ok(next) => next.map(|at| time_until(at, host.clock.now())),
            Err(error) => {
                tracing::error!("Failed to work on the outbox: {error:#}");
                Some(ERROR_PAUSE)
            }
        };
        tokio::select! {
            () = host.outbox_hint.notified() => {}
            () = sleep_or_never(pause) => {}
            _ = &mut stopped => break,
        }
    }
    if let Err(error) = send_due(&host, &orders, only.as_ref()).await {
        tracing::error!("Failed to work on the outbox: {error:#}");
    }
}

/// Sends everything that is due; returns when the next reply will be.
async fn send_due<C: Containers>(
    host: &Host<C>,
    orders: &mpsc::Sender<Order>,
    only: Option<&ChatId>,
) -> Result<Option<Timestamp>> {
    while let Some(reply) = host.store.next_due(only, host.clock.now()).await? {
        let result = send(orders, &reply).await;
        match &result {
            SendResult::Sent => tracing::debug!(reply = reply.row, "Sent"),
            SendResult::Later(error) => tracing::info!(reply = reply.row, "Could not send now: {error}"),
            SendResult::Never(error) => tracing::warn!(reply = reply.row, "Gave a reply up: {error}"),
        }
        host.store.attempted(&reply, result, host.clock.now()).await?;
    }
    host.store.next_due_at(only).await
}

async fn send(orders: &mpsc::Sender<Order>, reply: &DueReply) -> SendResult {
    let (outcome, answer) = oneshot::channel();
    let order =
        bridge::Send { chat: reply.chat.clone(), id: reply.id.clone(), text: reply.text.clone(), outcome };
    let handed_over = async {
        orders.send(Order::Send(order)).await.map_err(|_| "the bridge is gone")?;
        answer.await.map_err(|_| "the bridge dropped the message")
    };
    match timeout(SEND_LIMIT, handed_over).await {
        Ok(Ok(Ok(()))) => SendResult::Sent,
        Ok(Ok(Err(SendError::Later(error)))) => SendResult::Later(error),
        Ok(Ok(Err(SendError::Never(error)))) => SendResult::Never(error),
        Ok(Err(error)) => SendResult::Later(error.to_owned()),
        Err(_) => SendResult::Later(format!("the bridge did not answer within {} s", SEND_LIMIT.as_secs())),
    }
}

fn time_until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

async fn sleep_or_never(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}
