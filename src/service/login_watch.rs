//! Tells the owner, once, when the Kimi login cannot be used any more. Forgets that when it can be used again
//! for good.
//!
//! A turn that has no login says so itself. This is for a login that ends while nobody asks anything.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::sleep_until_or_never;
use crate::container::Containers;
use crate::login::AccountsWatch;
use crate::notices;
use crate::session::SessionContext;
use crate::session::machine::OUTAGE_PAUSE;
use crate::types::{Authorization, Outage};

/// How long a login must have been usable before the owner is told anew of its end. Longer than the pause
/// after which a kept message shows whether the login really works.
const SETTLED_AFTER: Duration = OUTAGE_PAUSE.saturating_mul(2);

/// The login as it was when it was last looked at.
pub struct LoginWatch {
    accounts: AccountsWatch,
    usable: LoginUsability,
}

/// Takes the first look, and tells the owner if there is no login.
pub async fn start_login_watch<C: Containers>(context: &SessionContext<C>) -> LoginWatch {
    let mut login_watch = LoginWatch {
        accounts: AccountsWatch::new(context.accounts.watch_logins()),
        usable: LoginUsability::No,
    };
    login_watch.check_login(context).await;
    login_watch
}

impl LoginWatch {
    async fn check_login<C: Containers>(&mut self, context: &SessionContext<C>) {
        let missing = match self.accounts.authorization() {
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
            Authorization::Missing(why) => Some(why),
        };
        self.usable = match (missing, self.usable) {
            (Some(why), _) => {
                tracing::warn!("Nobody can be answered: {why}");
                record_login_outage(context).await;
                LoginUsability::No
            }
            (None, LoginUsability::No) => LoginUsability::Since(Instant::now()),
            (None, usable) => usable,
        };
    }

    /// Looks again whenever the login changes. Never ends by itself.
    pub async fn watch_login_changes<C: Containers>(mut self, context: &SessionContext<C>) -> Infallible {
        loop {
            tokio::select! {
                () = self.accounts.changed() => self.check_login(context).await,
                () = sleep_until_or_never(self.usable.stable_at()) => {
                    resolve_login_outage(context).await;
                    self.usable = LoginUsability::Settled;
                }
            }
        }
    }
}

/// For how long the login has been usable.
#[derive(Clone, Copy)]
enum LoginUsability {
    No,
    Since(Instant),
    /// For so long that its next end is news.
    Settled,
}

impl LoginUsability {
    fn stable_at(self) -> Option<Instant> {
        match self {
            Self::Since(since) => Some(since + SETTLED_AFTER),
            Self::No | Self::Settled => None,
        }
    }
}

async fn record_login_outage<C: Containers>(context: &SessionContext<C>) {
    let settings = &context.settings;
    let notice =
        settings.with_reply_prefix(notices::outage_notice_to_owner(settings.lang, Outage::NotLoggedIn));
    match context.store.begin_outage(Outage::NotLoggedIn, &notice, context.clock.now()).await {
        Ok(()) => context.outbox_hint.notify_one(),
        Err(error) => tracing::error!("Failed to tell the owner of a missing login: {error:#}"),
    }
}

async fn resolve_login_outage<C: Containers>(context: &SessionContext<C>) {
    if let Err(error) = context.store.end_outage(Outage::NotLoggedIn, context.clock.now()).await {
        tracing::error!("Failed to note that there is a login: {error:#}");
    }
}
