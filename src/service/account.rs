//! Tells the owner, once, when the Kimi login cannot be used any more; and when it can again for good, forgets that.
//!
//! What turns meet is told by them. This is for a login that ends while nobody asks anything.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
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

/// The login as it was last looked at.
pub struct Account {
    authorization: watch::Receiver<Authorization>,
    usable: Usable,
}

/// Takes the first look, and tells the owner where there is no login.
pub async fn look<C: Containers>(host: &Host<C>) -> Account {
    let mut account = Account { authorization: host.login.authorization(), usable: Usable::No };
    account.look(host).await;
    account
}

impl Account {
    async fn look<C: Containers>(&mut self, host: &Host<C>) {
        let missing = match &*self.authorization.borrow_and_update() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(why.clone()),
        };
        self.usable = match (missing, self.usable) {
            (Some(why), _) => {
                tracing::warn!("Nobody can be answered: {why}");
                tell(host).await;
                Usable::No
            }
            (None, Usable::No) => Usable::Since(Instant::now()),
            (None, usable) => usable,
        };
    }

    /// Looks whenever the login changes. Never ends by itself.
    pub async fn watch<C: Containers>(mut self, host: &Host<C>) -> Infallible {
        loop {
            tokio::select! {
                // Its sender is the login's own, which the host holds.
                _ = self.authorization.changed() => self.look(host).await,
                () = sleep_until_or_never(self.usable.settles_at()) => {
                    forget(host).await;
                    self.usable = Usable::Settled;
                }
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
    if let Err(error) = host.store.end_outage(Outage::NotLoggedIn, host.clock.now()).await {
        tracing::error!("Failed to note that there is a login: {error:#}");
    }
}
