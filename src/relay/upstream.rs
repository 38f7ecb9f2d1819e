//! The Kimi API that all callers of an install are led to, and the accounts that ask it.

use std::sync::Arc;

use tokio::sync::{OnceCell, watch};

use super::accounts::AccountPool;
use crate::login::{AccountLogin, AccountLogins, Accounts};
use crate::types::{AccountId, Authorization, Secret};

/// The accounts of an install, and what engines are configured with. Clones share one client.
#[derive(Clone, Debug)]
pub struct KimiUpstream {
    pub(super) accounts: Arc<AccountPool>,
    /// The models that the engines are configured with; empty if they are not known.
    pub models: Arc<[String]>,
    /// Made at the first use: it reads the system's trust store, some milliseconds and a megabyte.
    pub(super) client: Arc<OnceCell<reqwest::Client>>,
}

impl KimiUpstream {
    /// With one account. `base` is the Kimi API without a trailing slash, such as
    /// `https://api.kimi.com/coding/v1`. `authorization` is read at every request. A login that the API refuses
    /// is put into `refused_tokens`; then another one is awaited for a while.
    pub fn new(
        base: impl Into<String>,
        authorization: watch::Receiver<Authorization>,
        refused_tokens: watch::Sender<Option<Secret>>,
    ) -> Self {
        let account = AccountLogin {
            id: AccountId::first(),
            name: AccountId::first().to_string(),
            api_base: base.into(),
            is_enabled: true,
            authorization,
            refused_tokens,
        };
        let (_, accounts) = watch::channel(AccountLogins { accounts: vec![account], active: 0 });
        Self::with_accounts(Arc::new(AccountPool::new(accounts, [])))
    }

    /// With all accounts of an install, and what an earlier run has learnt of them.
    pub fn of_accounts(accounts: &Accounts) -> Self {
        let cooldowns = accounts.records().cooldowns();
        Self::with_accounts(Arc::new(AccountPool::new(accounts.watch_logins(), cooldowns)))
    }

    pub(super) fn with_accounts(accounts: Arc<AccountPool>) -> Self {
        Self { accounts, models: Arc::default(), client: Arc::default() }
    }

    /// The accounts that are asked with.
    pub fn account_pool(&self) -> Arc<AccountPool> {
        Arc::clone(&self.accounts)
    }

    /// The same for engines that are configured with these models: when Kimi refuses another model, that is
    /// no trouble of the account.
    pub fn with_models(self, models: Vec<String>) -> Self {
        Self { models: models.into(), ..self }
    }
}
