//! Notes how the link to WhatsApp stands, in the store and in the log, and says when only a person can change it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::container::Containers;
use crate::notices;
use crate::session::Host;
use crate::types::Link;

/// How often the owner is told that the disk was full, should that come and go.
const TELL_OF_FULL_DISK_EVERY: Duration = Duration::from_secs(60 * 60);

/// Whether time alone brings the link back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    GoesOn,
    NeedsAPerson,
}

/// Runs until the link is in a state that only a person can change; returns that state, which is noted then.
pub async fn watch<C: Containers>(host: &Host<C>, mut link: watch::Receiver<Link>) -> Link {
    let mut was_full = false;
    let mut told_at: Option<Instant> = None;
    loop {
        let now = note(host, &mut link).await;
        let is_news = told_at.is_none_or(|at| at.elapsed() >= TELL_OF_FULL_DISK_EVERY);
        if was_full && now == Link::Online && is_news {
            tell_owner_of_full_disk(host).await;
            told_at = Some(Instant::now());
        }
        was_full = now == Link::DiskFull || (was_full && now != Link::Online);
        if outlook(&now) == Outlook::NeedsAPerson {
            return now;
        }
        if link.changed().await.is_err() {
            // The bridge is gone, which intake says; how the link stood last is noted.
            return std::future::pending().await;
        }
    }
}

/// Notes how the link stands now, and returns it: while it is noted it may change again.
async fn note<C: Containers>(host: &Host<C>, link: &mut watch::Receiver<Link>) -> Link {
    let now = link.borrow_and_update().clone();
    if let Err(error) = host.store.set_link(&now, host.clock.now()).await {
        tracing::error!("Failed to note how the link to WhatsApp stands: {error:#}");
    }
    // Who reads it in the log finds it in `status`.
    tell(&now);
    now
}

async fn tell_owner_of_full_disk<C: Containers>(host: &Host<C>) {
    let settings = &host.settings;
    let notice = settings.notice(notices::disk_was_full(settings.lang));
    match host.store.tell_owner(&notice, host.clock.now()).await {
        Ok(()) => host.outbox_hint.notify_one(),
        Err(error) => tracing::error!("Failed to tell the owner of a full disk: {error:#}"),
    }
}

fn outlook(link: &Link) -> Outlook {
    match link {
        Link::Unlinked | Link::Replaced | Link::LoggedOut | Link::Outdated => Outlook::NeedsAPerson,
        Link::Pairing(_) | Link::Connecting | Link::Online | Link::Banned { .. } | Link::DiskFull => {
            Outlook::GoesOn
        }
    }
}

fn tell(link: &Link) {
    match link {
        Link::Connecting => tracing::info!("Connecting to WhatsApp"),
        Link::Online => tracing::info!("Connected to WhatsApp"),
        Link::Pairing(_) => tracing::info!("An account is being linked"),
        Link::Unlinked => tracing::warn!("No WhatsApp account is linked; `nanokimi auth` links one"),
        Link::Replaced => tracing::warn!("Another program has taken the link to WhatsApp over; end it first"),
        Link::LoggedOut => {
            tracing::warn!("The link to WhatsApp was removed on the phone; `nanokimi auth` makes a new one");
        }
        Link::Banned { until } => tracing::warn!(%until, "WhatsApp has locked the account for a time"),
        Link::Outdated => {
            tracing::warn!("WhatsApp does not let this version in any more; install a newer nanokimi");
        }
        Link::DiskFull => tracing::warn!(
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
            (Link::Unlinked, Outlook::NeedsAPerson),
            (Link::Replaced, Outlook::NeedsAPerson),
            (Link::LoggedOut, Outlook::NeedsAPerson),
            (Link::Outdated, Outlook::NeedsAPerson),
            (Link::Banned { until }, Outlook::GoesOn),
            (Link::Connecting, Outlook::GoesOn),
            (Link::Online, Outlook::GoesOn),
            (Link::DiskFull, Outlook::GoesOn),
            (Link::Pairing(Pairing::Asking), Outlook::GoesOn),
        ] {
            assert_eq!(outlook(&link), expected, "{link:?}");
        }
    }
}
