//! The service: what runs between the bridge and the sessions, from the start's cleaning to the last delivery.
//!
//! ```text
//! bridge ─▶ intake ─▶ [inbox] ─hint─▶ dispatch ─▶ sessions ─▶ [outbox] ─hint─▶ delivery ─▶ bridge
//! ```
//! Each arrow is a task with one mailbox. Starting does all the cleaning; being killed at any point loses
//! nothing. Stopping goes with the stream: intake, sessions, delivery.

mod delivery;
mod dispatch;
mod intake;
mod slots;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bridge::ServiceEnd;
use crate::container::Containers;
use crate::notices;
use crate::session::Host;
use crate::store::MAX_ATTEMPTS;
use crate::types::{ChatId, Trouble};

/// Wake-ups on their way from intake to dispatch.
const HINTS_IN_FLIGHT: usize = 64;
/// How long all sessions together may take to end: each has a grace of 10 s, then Docker is asked to kill.
const SESSIONS_STOP_LIMIT: Duration = Duration::from_secs(45);
/// How long the last replies may take after everything else has stopped.
const LAST_DELIVERIES_LIMIT: Duration = Duration::from_secs(10);
/// How long stopping may take in all; whoever kills earlier makes the next start clean up.
pub const STOP_LIMIT: Duration =
    Duration::from_secs(SESSIONS_STOP_LIMIT.as_secs() + LAST_DELIVERIES_LIMIT.as_secs());

/// Which chats the bridge of this run can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    All,
    /// Only this one; replies to others stay in the outbox, untried.
    Only(ChatId),
    /// None: there is no bridge yet.
    Nothing,
}

/// Runs the service until `shutdown` resolves. `ready` is answered once messages are taken in.
///
/// # Errors
/// Docker or the database cannot be used at the start, or a part of the service has broken off.
pub async fn run<C: Containers>(
    host: Host<C>,
    end: ServiceEnd,
    reach: Reach,
    ready: oneshot::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    clean_up(&host).await?;
    let (hints, hint_receiver) = mpsc::channel(HINTS_IN_FLIGHT);
    let (stop_intake, intake_stopped) = oneshot::channel();
    let (stop_dispatch, dispatch_stopped) = oneshot::channel();
    let (stop_delivery, delivery_stopped) = oneshot::channel();

    // Dropping the set ends them all: whoever drops this future has stopped the service.
    let mut tasks = JoinSet::new();
    tasks.spawn(intake::run(host.clone(), end.batches, hints, intake_stopped));
    tasks.spawn(dispatch::run(host.clone(), hint_receiver, dispatch_stopped));
    tasks.spawn(delivery::run(host, end.orders, reach, delivery_stopped));
    tracing::info!("Ready");
    ready.send(()).ok();

    tokio::select! {
        () = shutdown => {}
        broken = tasks.join_next() => bail!("A part of the service broke off: {broken:?}"),
    }
    tracing::info!("Stopping");
    // Each ends only when it is told to, so that the next to end is the one that was told.
    stop_intake.send(()).ok();
    tasks.join_next().await.transpose().context("Failed to stop intake")?;
    stop_dispatch.send(()).ok();
    match timeout(SESSIONS_STOP_LIMIT, tasks.join_next()).await {
        Ok(ended) => drop(ended.transpose().context("Failed to stop the sessions")?),
        Err(_) => tracing::warn!("Docker does not end all containers; the next start removes them"),
    }
    stop_delivery.send(()).ok();
    match timeout(LAST_DELIVERIES_LIMIT, tasks.join_next()).await {
        Ok(ended) => ended.transpose().context("Failed to stop delivery").map(drop),
        Err(_) => {
            tracing::info!("Some replies are still to be sent; the next start sends them");
            Ok(())
        }
    }
}

/// Removes what an earlier run left: its containers, its claims, what is too old to matter.
async fn clean_up<C: Containers>(host: &Host<C>) -> Result<()> {
    let settings = &host.settings;
    let swept = host.containers.sweep(&settings.install).await.context("Failed to remove old containers")?;
    if swept > 0 {
        tracing::info!(containers = swept, "Removed what an earlier run left");
    }
    let now = host.clock.now();
    let gave_up = settings.notice(notices::gave_up(settings.lang, Trouble::Internal, MAX_ATTEMPTS));
    host.store.unclaim_lost(gave_up, now).await?;
    host.store.forget_old(now).await
}
