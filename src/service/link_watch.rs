//! Notes the state of the link to WhatsApp in the store and in the log, and says when only a person can
//! change it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::container::Containers;
use crate::notices;
use crate::session::SessionContext;
use crate::types::LinkState;

/// How often the owner is told that the disk was full, if that comes and goes.
const TELL_OF_FULL_DISK_EVERY: Duration = Duration::from_secs(60 * 60);

/// Whether time alone brings the link back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkOutlook {
    GoesOn,
    NeedsAPerson,
}

/// Runs until the link is in a state that only a person can change. Notes that state and returns it.
pub async fn watch_link<C: Containers>(
    context: &SessionContext<C>,
    mut link: watch::Receiver<LinkState>,
) -> LinkState {
    let mut was_full = false;
    let mut told_at: Option<Instant> = None;
    loop {
        let now = record_current_link(context, &mut link).await;
        let is_news = told_at.is_none_or(|at| at.elapsed() >= TELL_OF_FULL_DISK_EVERY);
        if was_full && now == LinkState::Online && is_news {
            notify_owner_disk_was_full(context).await;
            told_at = Some(Instant::now());
        }
        was_full = now == LinkState::DiskFull || (was_full && now != LinkState::Online);
        if link_outlook(&now) == LinkOutlook::NeedsAPerson {
            return now;
        }
        if link.changed().await.is_err() {
            // The bridge is gone, which intake reports. The link's last state is noted.
            return std::future::pending().await;
        }
    }
}

/// Notes the link's state now, and returns it: it may change again while it is noted.
async fn record_current_link<C: Containers>(
    context: &SessionContext<C>,
    link: &mut watch::Receiver<LinkState>,
) -> LinkState {
    let now = link.borrow_and_update().clone();
    if let Err(error) = context.store.record_link_state(&now, context.clock.now()).await {
        tracing::error!("Failed to note how the link to WhatsApp stands: {error:#}");
    }
    // Logged after it is noted, so that `status` shows what the log says.
    log_link_state(&now);
    now
}

async fn notify_owner_disk_was_full<C: Containers>(context: &SessionContext<C>) {
    let settings = &context.settings;
    let notice = settings.with_reply_prefix(notices::disk_was_full_notice(settings.lang));
    match context.store.notify_owner(&notice, context.clock.now()).await {
        Ok(()) => context.outbox_hint.notify_one(),
        Err(error) => tracing::error!("Failed to tell the owner of a full disk: {error:#}"),
    }
}

fn link_outlook(link: &LinkState) -> LinkOutlook {
    match link {
        LinkState::Unlinked | LinkState::Replaced | LinkState::LoggedOut | LinkState::Outdated => {
            LinkOutlook::NeedsAPerson
        }
        LinkState::Pairing(_)
        | LinkState::Connecting
        | LinkState::Online
        | LinkState::Banned { .. }
        | LinkState::DiskFull => LinkOutlook::GoesOn,
    }
}

fn log_link_state(link: &LinkState) {
    match link {
        LinkState::Connecting => tracing::info!("Connecting to WhatsApp"),
        LinkState::Online => tracing::info!("Connected to WhatsApp"),
        LinkState::Pairing(_) => tracing::info!("An account is being linked"),
        LinkState::Unlinked => tracing::warn!("No WhatsApp account is linked; `nanokimi auth` links one"),
        LinkState::Replaced => {
            tracing::warn!("Another program has taken the link to WhatsApp over; end it first")
        }
        LinkState::LoggedOut => {
            tracing::warn!("The link to WhatsApp was removed on the phone; `nanokimi auth` makes a new one");
        }
        LinkState::Banned { until } => tracing::warn!(%until, "WhatsApp has locked the account for a time"),
        LinkState::Outdated => {
            tracing::warn!("WhatsApp does not let this version in any more; install a newer nanokimi");
        }
        LinkState::DiskFull => tracing::warn!(
            "The disk is full: offline until there is room, so that nothing is lost. WhatsApp keeps what is sent"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Pairing;

    #[test]
    fn only_what_a_person_must_change_ends_the_service() {
        let until = jiff::Timestamp::UNIX_EPOCH;
        for (link, expected) in [
            (LinkState::Unlinked, LinkOutlook::NeedsAPerson),
            (LinkState::Replaced, LinkOutlook::NeedsAPerson),
            (LinkState::LoggedOut, LinkOutlook::NeedsAPerson),
            (LinkState::Outdated, LinkOutlook::NeedsAPerson),
            (LinkState::Banned { until }, LinkOutlook::GoesOn),
            (LinkState::Connecting, LinkOutlook::GoesOn),
            (LinkState::Online, LinkOutlook::GoesOn),
            (LinkState::DiskFull, LinkOutlook::GoesOn),
            (LinkState::Pairing(Pairing::Asking), LinkOutlook::GoesOn),
        ] {
            assert_eq!(link_outlook(&link), expected, "{link:?}");
        }
    }
}
