//! Tells the owner, once, when the login of one of several Kimi accounts has ended. The others go on, so that
//! nobody would notice until they are used up.
//!
//! If no account is left, that is `login_watch`'s.

use std::collections::HashSet;
use std::convert::Infallible;

use crate::container::Containers;
use crate::login::{AccountsWatch, EndedLogin};
use crate::notices;
use crate::session::SessionContext;
use crate::types::Authorization;

/// Looks whenever an account changes. Never ends by itself.
pub async fn watch_accounts<C: Containers>(context: &SessionContext<C>) -> Infallible {
    let mut accounts = AccountsWatch::new(context.accounts.watch_logins());
    // What is written down is read back a little later.
    let mut told = HashSet::new();
    loop {
        if !matches!(accounts.authorization(), Authorization::Missing(_)) {
            for ended in context.accounts.ended_logins(context.clock.now()) {
                if !told.contains(&ended.mark) {
                    told.extend(tell_owner(context, ended).await);
                }
            }
        }
        accounts.changed().await;
    }
}

/// The mark of the login, if the owner was told.
async fn tell_owner<C>(context: &SessionContext<C>, ended: EndedLogin) -> Option<String> {
    tracing::warn!(account = %ended.name, "The login of a Kimi account has ended");
    let settings = &context.settings;
    let notice =
        settings.with_reply_prefix(notices::account_ended_notice(settings.lang, ended.name.as_str()));
    if let Err(error) = context.store.notify_owner(&notice, context.clock.now()).await {
        tracing::warn!("Failed to tell the owner of an account: {error:#}");
        return None;
    }
    context.outbox_hint.notify_one();
    let mark = ended.mark.clone();
    if let Err(error) = context.accounts.note_told(ended).await {
        tracing::warn!("Failed to note that the owner was told of an account: {error:#}");
    }
    Some(mark)
}
