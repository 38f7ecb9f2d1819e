//! Waits for Docker after a start. It may come up later than nanokimi; messages are taken in meanwhile.
//!
//! When Docker answers, what earlier runs left is removed. If Docker goes away later, sessions notice it, and
//! `dispatch` waits for it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::container::Containers;
use crate::notices;
use crate::session::{LOOK_FOR_DOCKER_EVERY, SessionContext};
use crate::types::Outage;

/// How late Docker may be before the owner is told: a small server takes a while to boot.
const TOLD_AFTER: Duration = Duration::from_secs(2 * 60);

/// Removes what an earlier run left as soon as Docker answers. Never ends by itself.
pub async fn run_startup_sweep<C: Containers>(context: &SessionContext<C>) -> Infallible {
    let began = Instant::now();
    let mut lateness = DockerLateness::None;
    while let Err(error) = context.sweep_old_containers().await {
        lateness = match lateness {
            DockerLateness::None => {
                tracing::warn!("{error:#}. Messages are taken in, and wait until Docker answers");
                DockerLateness::Logged
            }
            DockerLateness::Logged if began.elapsed() >= TOLD_AFTER => {
                record_docker_outage(context).await;
                DockerLateness::Told
            }
            known @ (DockerLateness::Logged | DockerLateness::Told) => known,
        };
        sleep(LOOK_FOR_DOCKER_EVERY).await;
    }
    if lateness != DockerLateness::None {
        tracing::info!("Docker answers");
    }
    // Also an outage that an earlier run has recorded.
    if let Err(error) = context.store.end_outage(Outage::NoDocker, context.clock.now()).await {
        tracing::error!("Failed to note that Docker answers: {error:#}");
    }
    std::future::pending().await
}

/// What was said of Docker's lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DockerLateness {
    None,
    Logged,
    Told,
}

async fn record_docker_outage<C: Containers>(context: &SessionContext<C>) {
    let settings = &context.settings;
    let notice = settings.with_reply_prefix(notices::outage_notice_to_owner(settings.lang, Outage::NoDocker));
    match context.store.begin_outage(Outage::NoDocker, &notice, context.clock.now()).await {
        Ok(()) => context.outbox_hint.notify_one(),
        Err(error) => tracing::error!("Failed to tell the owner that Docker does not answer: {error:#}"),
    }
}
