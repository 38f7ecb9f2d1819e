//! Tells the owner, once, when the login of one of several Kimi accounts has ended. The others go on, so that
//! nobody would notice until they are used up.
//!
//! If no account is left, that is `login_watch`'s.

use std::convert::Infallible;

use crate::container::Containers;
use crate::login::{AccountLogins, AccountsWatch};
use crate::notices;
use crate::session::SessionContext;
use crate::store::OutboxChange;
use crate::types::Authorization;

/// Looks whenever an account changes. Never ends by itself.
pub async fn watch_accounts<C: Containers>(context: &SessionContext<C>) -> Infallible {
    let mut accounts = AccountsWatch::new(context.accounts.watch_logins());
    loop {
        let logins = context.accounts.watch_logins().borrow().clone();
        for name in ended_accounts(&logins) {
            tell_owner(context, &name).await;
        }
        accounts.changed().await;
    }
}

/// The enabled accounts that have no login any more, while another one answers.
fn ended_accounts(logins: &AccountLogins) -> Vec<String> {
    if !logins.accounts.iter().any(|account| account.is_usable()) {
        return Vec::new();
    }
    let is_ended = |authorization: &Authorization| matches!(authorization, Authorization::Missing(_));
    let ended = logins.accounts.iter().filter(|account| account.is_enabled);
    ended
        .filter(|account| is_ended(&account.authorization.borrow()))
        .map(|account| account.name.clone())
        .collect()
}

async fn tell_owner<C>(context: &SessionContext<C>, name: &str) {
    tracing::warn!(account = name, "The login of a Kimi account has ended");
    let settings = &context.settings;
    let notice = settings.with_reply_prefix(notices::account_ended_notice(settings.lang, name));
    match context.store.notify_owner_once(notice, context.clock.now()).await {
        Ok(OutboxChange::Changed) => context.outbox_hint.notify_one(),
        Ok(OutboxChange::Same) => {}
        Err(error) => tracing::warn!("Failed to tell the owner of an account: {error:#}"),
    }
}
