//! Tells the owner, once, when the Kimi login cannot be used any more; and when it can again for good, forgets that.
//!
//! What turns meet is told by them. This is for a login that ends while nobody asks anything.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::sleep_until_or_never;
use crate::container::Containers;
use crate::notices;
use crate::session::Host;
use crate::session::machine::OUTAGE_PAUSE;
use crate::types::{Authorization, Outage};

/// How long a login must have been usable until the owner is told anew of its end: longer than the pause after which a
/// kept message shows whether it really is.
const SETTLED_AFTER: Duration = OUTAGE_PAUSE.saturating_mul(2);

/// Never ends by itself.
pub async fn watch<C: Containers>(host: &Host<C>) -> Infallible {
    let mut account = host.login.authorization();
    let mut usable = Usable::No;
    loop {
        let missing = match &*account.borrow_and_update() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(why.clone()),
        };
        usable = match (missing, usable) {
            (Some(why), _) => {
                tracing::warn!("Nobody can be answered: {why}");
                tell(host).await;
                Usable::No
            }
            (None, Usable::No) => Usable::Since(Instant::now()),
            (None, usable) => usable,
        };
        tokio::select! {
            changed = account.changed() => if changed.is_err() {
                // Without a login's owner there is no service either.
                std::future::pending::<()>().await;
            },
            () = sleep_until_or_never(usable.settles_at()) => {
                forget(host).await;
                usable = Usable::Settled;
            }
        }
    }
}

/// For how long the login has been usable.
#[derive(Clone, Copy)]
enum Usable {
    No,
    Since(Instant),
    /// So long that its next end is news.
    Settled,
}

impl Usable {
    fn settles_at(self) -> Option<Instant> {
        match self {
            Self::Since(since) => Some(since + SETTLED_AFTER),
            Self::No | Self::Settled => None,
        }
    }
}

async fn tell<C: Containers>(host: &Host<C>) {
    let settings = &host.settings;
    let notice = settings.notice(notices::outage(settings.lang, Outage::NotLoggedIn));
    match host.store.begin_outage(Outage::NotLoggedIn, &notice, host.clock.now()).await {
        Ok(()) => host.outbox_hint.notify_one(),
        Err(error) => tracing::error!("Failed to tell the owner of a missing login: {error:#}"),
    }
}

async fn forget<C: Containers>(host: &Host<C>) {
    if let Err(error) = host.store.end_outage(Outage::NotLoggedIn).await {
        tracing::error!("Failed to note that there is a login: {error:#}");
    }
}
