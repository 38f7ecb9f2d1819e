//! Starts the parts of the service, watches them, and stops them in order.
//!
//! Starting does all the cleaning, so that a kill at any point loses nothing. Stopping goes with the stream:
//! media, sessions, delivery. Intake stops last, as it hears WhatsApp's answers to the last replies. A
//! message that comes meanwhile waits for the next start. The service also stops if only a person can bring
//! the link to WhatsApp back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::bridge_reach::BridgeReach;
use super::task_signal::TaskSignal;
use super::{
    account_watch, delivery, dispatch, docker, intake, link_watch, login_watch, media, scheduler, unread,
};
use crate::bridge::ServiceEnd;
use crate::container::Containers;
use crate::notices;
use crate::panics::WorkPanicked;
use crate::relay;
use crate::session::SessionContext;
use crate::store::MAX_ATTEMPTS;
use crate::types::{LinkState, Outage, Trouble};

/// The most wake-ups on their way from intake to media, and from there to dispatch.
const HINTS_IN_FLIGHT: usize = 64;
/// How often rows that are too old to matter are removed.
const FORGET_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long all sessions together may take to end. Each has a grace of 10 s, then Docker is asked to kill its
/// container.
const SESSIONS_STOP_LIMIT: Duration = Duration::from_secs(45);
/// How long a renewal of the login that has begun may take when the service stops. Its answer is the only
/// copy of the new login.
const RENEWAL_LIMIT: Duration = Duration::from_secs(40);
/// How long the last replies may take after the sessions have stopped.
const LAST_DELIVERIES_LIMIT: Duration = Duration::from_secs(10);
/// How long stopping may take in all. After an earlier kill the next start cleans up.
pub const STOP_LIMIT: Duration =
    Duration::from_secs(SESSIONS_STOP_LIMIT.as_secs() + LAST_DELIVERIES_LIMIT.as_secs());

/// Why the service has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    Asked,
    /// The link to WhatsApp is in a state that only a person can change.
    Link(LinkState),
}

/// Runs the service until `shutdown` resolves or the link needs a person. Answers `ready` when messages are
/// taken in.
///
/// # Errors
/// The database cannot be used at the start, or a part of the service has broken off. If Docker does not
/// answer, the service waits for it.
pub async fn run_service<C: Containers>(
    context: SessionContext<C>,
    end: ServiceEnd,
    reach: BridgeReach,
    ready: oneshot::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<StopReason> {
    clean_up_at_start(&context).await?;
    let watched_login = login_watch::start_login_watch(&context).await;
    let (woken, woken_receiver) = mpsc::channel(HINTS_IN_FLIGHT);
    let (hints, hint_receiver) = mpsc::channel(HINTS_IN_FLIGHT);
    let (stop_intake, intake_stopped) = oneshot::channel();
    let (stop_media, media_stopped) = oneshot::channel();
    let (stop_dispatch, dispatch_stopped) = oneshot::channel();
    let (stop_delivery, delivery_stopped) = oneshot::channel();
    let (stop_refresher, refresher_stopped) = oneshot::channel();

    // Dropping the set ends them all, so dropping this future stops the service.
    let mut tasks = JoinSet::new();
    let unread_noted = Arc::new(Notify::new());
    let (expected, expected_receiver) = mpsc::channel(HINTS_IN_FLIGHT);
    let (turn_stops, turn_stop_receiver) = mpsc::channel(HINTS_IN_FLIGHT);
    let task_hints = scheduler::TaskHints { woken: woken.clone(), expected: expected.clone() };
    let task_signal = TaskSignal::bind(&context.paths.task_signal_socket());
    let scheduler = scheduler::run_scheduler(&context, task_hints, task_signal);
    let intake_hints = intake::IntakeHints { woken, expected, turn_stops, unread: Arc::clone(&unread_noted) };
    let intake = intake::run_intake(context.clone(), end.batches, intake_hints, intake_stopped);
    let intake = tasks.spawn(intake);
    let source =
        media::MediaSource { orders: end.orders.clone(), link: end.link.clone(), reach: reach.clone() };
    let media = tasks.spawn(media::run_media(context.clone(), source, woken_receiver, hints, media_stopped));
    let dispatch = tasks.spawn(dispatch::run_dispatch(
        context.clone(),
        hint_receiver,
        expected_receiver,
        turn_stop_receiver,
        dispatch_stopped,
    ));
    let unread = unread::run_unread_recovery(&context, end.orders.clone(), end.link.clone(), unread_noted);
    let delivery = delivery::run_delivery(
        context.clone(),
        end.orders,
        end.link.clone(),
        reach.clone(),
        delivery_stopped,
    );
    let delivery = tasks.spawn(delivery);
    // In a set of its own: a renewal that has begun is finished, whatever else breaks off.
    let mut refresher = JoinSet::new();
    let pool = context.upstream.account_pool();
    let upkeep =
        relay::run_account_upkeep(Arc::clone(&context.accounts), pool, context.clock, refresher_stopped);
    refresher.spawn(upkeep);
    tracing::info!("Ready");
    ready.send(()).ok();

    let why = tokio::select! {
        () = shutdown => Ok(StopReason::Asked),
        link = wait_for_unrecoverable_link(&context, end.link, &reach) => Ok(StopReason::Link(link)),
        never = docker::run_startup_sweep(&context) => match never {},
        never = run_daily_expiry(&context) => match never {},
        never = watched_login.watch_login_changes(&context) => match never {},
        never = account_watch::watch_accounts(&context) => match never {},
        never = unread => match never {},
        never = scheduler => match never {},
        _ = tasks.join_next() => Err(anyhow!("A part of the service broke off")),
        _ = refresher.join_next() => Err(anyhow!("The token refresher broke off")),
    };
    let began = Instant::now();
    // A renewal that has begun is finished meanwhile.
    stop_refresher.send(()).ok();
    let ended = async {
        let why = why.inspect_err(|_| tasks.abort_all())?;
        tracing::info!("Stopping");
        stop_media.send(()).ok();
        wait_for_task_end(&mut tasks, &media).await.context("Failed to stop fetching files")?;
        stop_dispatch.send(()).ok();
        match timeout(SESSIONS_STOP_LIMIT, wait_for_task_end(&mut tasks, &dispatch)).await {
            Ok(stopped) => stopped.context("Failed to stop the sessions")?,
            Err(_) => tracing::warn!("Docker does not end all containers; the next start removes them"),
        }
        let give_up = Instant::now() + LAST_DELIVERIES_LIMIT;
        stop_delivery.send(()).ok();
        match timeout_at(give_up, wait_for_task_end(&mut tasks, &delivery)).await {
            Ok(stopped) => stopped.context("Failed to stop delivery")?,
            Err(_) => tracing::info!("Some replies are still to be sent; the next start sends them"),
        }
        stop_intake.send(()).ok();
        wait_for_task_end(&mut tasks, &intake).await.context("Failed to stop intake")?;
        Ok(why)
    }
    .await;
    match timeout_at(began + RENEWAL_LIMIT, refresher.join_next()).await {
        Ok(None | Some(Ok(()))) => {}
        Ok(Some(Err(_))) => tracing::error!("The token refresher broke off"),
        Err(_) => tracing::warn!("The Kimi login was being renewed, and the server does not answer"),
    }
    ended
}

/// Waits until a part has ended. Meanwhile another part may end, later than it should.
async fn wait_for_task_end(tasks: &mut JoinSet<()>, part: &AbortHandle) -> Result<(), WorkPanicked> {
    while !part.is_finished() {
        tasks.join_next().await.transpose().map_err(|_| WorkPanicked)?;
    }
    Ok(())
}

/// Removes once a day what is too old, and keeps room for what is new. The start does it first.
async fn run_daily_expiry<C: Containers>(context: &SessionContext<C>) -> Infallible {
    loop {
        sleep(FORGET_EVERY).await;
        context.store.reserve_disk_space().await;
        if let Err(error) = context.store.expire_old_rows(context.clock.now()).await {
            tracing::error!("Failed to forget what is old: {error:#}");
        }
    }
}

/// Resolves when the link to WhatsApp needs a person. Never resolves if the bridge is not WhatsApp's.
async fn wait_for_unrecoverable_link<C: Containers>(
    context: &SessionContext<C>,
    link: watch::Receiver<LinkState>,
    reach: &BridgeReach,
) -> LinkState {
    match reach {
        BridgeReach::All => link_watch::watch_link(context, link).await,
        BridgeReach::Only(_) | BridgeReach::Nothing => std::future::pending().await,
    }
}

/// Removes what an earlier run left in the database: its claims, and rows that are too old to matter. Its
/// containers are removed as soon as Docker answers.
async fn clean_up_at_start<C: Containers>(context: &SessionContext<C>) -> Result<()> {
    let settings = &context.settings;
    let now = context.clock.now();
    let gave_up =
        settings.with_reply_prefix(notices::gave_up_notice(settings.lang, Trouble::Internal, MAX_ATTEMPTS));
    context.store.release_lost_claims(gave_up, now).await?;
    context.store.expire_old_calls(settings.store_rules(), now).await?;
    context.store.skip_runs_that_are_too_late(now).await?;
    // A disk that is still full shows itself again.
    context.store.end_outage(Outage::NoSpace, now).await?;
    context.store.expire_old_rows(now).await?;
    context.store.reserve_disk_space().await;
    Ok(())
}
