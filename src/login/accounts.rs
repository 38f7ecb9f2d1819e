//! The Kimi accounts of an install as all who need them share them: each with its login, which is renewed by
//! itself, and in the order of their file.
//!
//! With `MOONSHOT_API_KEY` there is one account, the key's. Without further accounts there is one, too: the login
//! that kimi-cli knows.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use futures_util::future::{BoxFuture, select_all};
use jiff::Timestamp;
use tokio::sync::watch;

use super::accounts_file::{AccountRecord, AccountRecords, update_accounts};
use super::login_file::{LoginFileStamp, login_file_stamp};
use super::shared_login::Login;
use crate::panics::lock_unpoisoned;
use crate::paths::Paths;
use crate::rules::accounts::merge_cooldowns;
use crate::types::{AccountId, AccountName, Authorization, Cooldown, KimiHosts, Secret};

/// An account that can be asked with.
#[derive(Clone, Debug)]
pub struct AccountLogin {
    pub id: AccountId,
    /// As its owner calls it.
    pub name: String,
    /// The Kimi API of its region, without a slash at its end.
    pub api_base: String,
    pub is_enabled: bool,
    /// What is sent for it, as it is now.
    pub authorization: watch::Receiver<Authorization>,
    /// Hears which token the API has refused.
    pub refused_tokens: watch::Sender<Option<Secret>>,
}

/// A login that has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLogin {
    id: AccountId,
    pub name: AccountName,
    /// It ends only once: a new login has another mark.
    pub mark: String,
}

/// All accounts of an install, in their order.
#[derive(Clone, Debug, Default)]
pub struct AccountLogins {
    pub accounts: Vec<AccountLogin>,
    /// The place of the one that answers first.
    pub active: usize,
}

/// The accounts of an install, kept as their file says.
#[derive(Debug)]
pub struct Accounts {
    paths: Paths,
    hosts: KimiHosts,
    first: Arc<Login>,
    known: Mutex<KnownAccounts>,
    published: watch::Sender<AccountLogins>,
}

#[derive(Debug, Default)]
struct KnownAccounts {
    /// Which file was read last; `None` if there was none.
    stamp: Option<LoginFileStamp>,
    records: Option<AccountRecords>,
    /// By id and name: the name is part of what they say.
    further: BTreeMap<(AccountId, AccountName), Arc<Login>>,
}

impl Accounts {
    /// `api_key` is `MOONSHOT_API_KEY`. If it is set, no login is looked at.
    pub fn load_from_disk(paths: &Paths, api_key: Option<&Secret>, hosts: KimiHosts, now: Timestamp) -> Self {
        let first = Arc::new(Login::load_from_disk(paths, api_key, &hosts.oauth_host, now));
        let accounts = Self {
            paths: paths.clone(),
            hosts,
            first,
            known: Mutex::default(),
            published: watch::Sender::default(),
        };
        accounts.reload_if_changed(now);
        accounts
    }

    /// For the relay: always what the latest [`Accounts::reload_if_changed`] found.
    pub fn watch_logins(&self) -> watch::Receiver<AccountLogins> {
        self.published.subscribe()
    }

    /// What can be sent now: as [`AccountLogins::usable_authorization`].
    pub fn usable_authorization(&self) -> Authorization {
        self.published.borrow().usable_authorization()
    }

    /// Whether the Kimi API has refused this token last, of any account.
    pub fn was_refused(&self, token: &Secret) -> bool {
        let logins = self.published.borrow();
        logins.accounts.iter().any(|account| account.refused_tokens.borrow().as_ref() == Some(token))
    }

    /// Looks again, before a launch or turn, and reads what has changed: the file of accounts and each login.
    /// Costs one `stat` for each. A file of accounts that cannot be read changes nothing.
    pub fn reload_if_changed(&self, now: Timestamp) {
        self.reload_records(now);
        for login in self.all_logins() {
            login.reload_if_changed(now);
        }
    }

    fn reload_records(&self, now: Timestamp) {
        let file = self.paths.accounts_file();
        let mut known = lock_unpoisoned(&self.known);
        let stamp = fs::metadata(&file).ok().map(|metadata| login_file_stamp(&metadata));
        if known.records.is_some() && known.stamp == stamp {
            return;
        }
        known.stamp = stamp;
        match AccountRecords::read(&file) {
            Ok(records) => known.records = Some(records),
            Err(error) => {
                tracing::warn!("{error:#}");
                if known.records.is_some() {
                    return;
                }
                known.records = Some(AccountRecords::first_only());
            }
        }
        self.publish(&mut known, now);
    }

    fn publish(&self, known: &mut KnownAccounts, now: Timestamp) {
        let records = known.records.clone().unwrap_or_else(AccountRecords::first_only);
        if self.first.api_key.is_some() {
            let name = "MOONSHOT_API_KEY".to_owned();
            let api_base = self.hosts.api_base.clone();
            let key = AccountLogin { name, ..account_login(&records.accounts[0], &self.first, api_base) };
            self.published.send_replace(AccountLogins { accounts: vec![key], active: 0 });
            return;
        }
        known.further.retain(|(id, name), _| records.find(id).is_some_and(|record| record.name == *name));
        let mut accounts = Vec::new();
        for record in &records.accounts {
            let hosts = self.hosts.for_region(record.region.as_deref());
            let login = if record.id == AccountId::first() {
                Arc::clone(&self.first)
            } else {
                let folder = self.paths.account_folder(&record.id);
                let load = || {
                    let renewals = Arc::clone(&self.first.renewals);
                    Arc::new(Login::load_account(&folder, &record.name, &hosts.oauth_host, renewals, now))
                };
                let key = (record.id.clone(), record.name.clone());
                Arc::clone(known.further.entry(key).or_insert_with(load))
            };
            accounts.push(account_login(record, &login, hosts.api_base));
        }
        self.published.send_replace(AccountLogins { accounts, active: records.active_index() });
    }

    /// The logins of all accounts: each is renewed by itself.
    pub fn all_logins(&self) -> Vec<Arc<Login>> {
        let further = lock_unpoisoned(&self.known).further.values().cloned().collect();
        [vec![Arc::clone(&self.first)], further].concat()
    }

    /// What is known of each account, as the file was last read.
    pub fn records(&self) -> AccountRecords {
        lock_unpoisoned(&self.known).records.clone().unwrap_or_else(AccountRecords::first_only)
    }

    /// The login of an account.
    fn login_of(&self, id: &AccountId) -> Option<Arc<Login>> {
        if *id == AccountId::first() {
            return Some(Arc::clone(&self.first));
        }
        let known = lock_unpoisoned(&self.known);
        known.further.iter().find(|((known, _), _)| known == id).map(|(_, login)| Arc::clone(login))
    }

    /// The enabled accounts whose login has ended for good, of which the owner was not told yet.
    pub fn ended_logins(&self, now: Timestamp) -> Vec<EndedLogin> {
        if self.first.api_key.is_some() {
            return Vec::new();
        }
        let enabled = self.records().accounts.into_iter().filter(|record| record.is_enabled);
        enabled
            .filter_map(|record| {
                let mark = self.login_of(&record.id)?.ended_mark(now)?;
                let is_told = record.told_ended.as_ref() == Some(&mark);
                (!is_told).then_some(EndedLogin { id: record.id, name: record.name, mark })
            })
            .collect()
    }

    /// Keeps that the owner was told.
    ///
    /// # Errors
    /// It is not on disk.
    pub async fn note_told(&self, ended: EndedLogin) -> Result<()> {
        update_accounts(&self.paths.accounts_file(), |records| {
            if let Some(record) = records.accounts.iter_mut().find(|record| record.id == ended.id) {
                record.told_ended = Some(ended.mark);
            }
            Ok(())
        })
        .await
    }

    /// The account whose login claims to be this one's, beside the account `except`.
    pub fn named_like(&self, claimed: Option<&str>, except: &AccountId) -> Option<AccountName> {
        let claimed = claimed?;
        let records = self.records();
        let others = records.accounts.into_iter().filter(|record| record.id != *except);
        let mut same = others.filter(|record| {
            let facts = self.login_of(&record.id).and_then(|login| login.login_facts());
            let of_login = facts.and_then(|facts| facts.claimed_account);
            of_login.or(record.claimed.clone()).as_deref() == Some(claimed)
        });
        same.next().map(|record| record.name)
    }

    /// Keeps what was learnt of the limits and the use of accounts, for the next start and for other processes, and
    /// gives what is known of the limits now: as [`merge_cooldowns`] has it of `ours` and `saved`.
    ///
    /// # Errors
    /// It is not on disk.
    pub async fn save_limits(
        &self,
        ours: &BTreeMap<AccountId, Cooldown>,
        saved: &BTreeMap<AccountId, Cooldown>,
        last_used: &BTreeMap<AccountId, Timestamp>,
    ) -> Result<BTreeMap<AccountId, Cooldown>> {
        update_accounts(&self.paths.accounts_file(), |records| {
            for record in &mut records.accounts {
                let of = |known: &BTreeMap<AccountId, Cooldown>| known.get(&record.id).copied();
                record.cooldown = merge_cooldowns(of(ours), of(saved), record.cooldown);
                record.last_used = record.last_used.max(last_used.get(&record.id).copied());
            }
            Ok(records.cooldowns())
        })
        .await
    }
}

/// Hears of every change of the accounts and their logins.
#[derive(Debug)]
pub struct AccountsWatch {
    logins: watch::Receiver<AccountLogins>,
    authorizations: Vec<watch::Receiver<Authorization>>,
}

impl AccountsWatch {
    pub fn new(logins: watch::Receiver<AccountLogins>) -> Self {
        let mut accounts_watch = Self { logins, authorizations: Vec::new() };
        accounts_watch.look_again();
        accounts_watch
    }

    fn look_again(&mut self) {
        let logins = self.logins.borrow_and_update();
        self.authorizations = logins.accounts.iter().map(|account| account.authorization.clone()).collect();
        // A clone has seen what its original has, which nobody looks at.
        for authorization in &mut self.authorizations {
            authorization.mark_unchanged();
        }
    }

    /// What can be sent now: as [`AccountLogins::usable_authorization`].
    pub fn authorization(&self) -> Authorization {
        self.logins.borrow().usable_authorization()
    }

    /// Resolves when there may be something new. Never resolves if all senders are gone.
    pub async fn changed(&mut self) {
        let mut changes: Vec<BoxFuture<'_, ()>> = vec![Box::pin(wait_for_change(&mut self.logins))];
        for authorization in &mut self.authorizations {
            changes.push(Box::pin(wait_for_change(authorization)));
        }
        select_all(changes).await;
        self.look_again();
    }
}

/// A sender that is gone changes nothing any more.
async fn wait_for_change<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl AccountLogins {
    /// The login of the first account that has one and is enabled, or why there is none.
    pub fn usable_authorization(&self) -> Authorization {
        let enabled: Vec<&AccountLogin> = self.accounts.iter().filter(|account| account.is_enabled).collect();
        let mut reasons = Vec::new();
        for account in &enabled {
            match &*account.authorization.borrow() {
                Authorization::Missing(why) if self.accounts.len() == 1 => reasons.push(why.clone()),
                Authorization::Missing(why) => reasons.push(format!("{}: {why}", account.name)),
                usable @ (Authorization::ApiKey(_) | Authorization::Login(_)) => return usable.clone(),
            }
        }
        if reasons.is_empty() {
            reasons.push("All Kimi accounts are disabled; run `nanokimi accounts enable NAME`".to_owned());
        }
        Authorization::Missing(reasons.join("; "))
    }
}

impl AccountLogin {
    /// Whether it is enabled and has a login.
    pub fn is_usable(&self) -> bool {
        self.is_enabled && !matches!(*self.authorization.borrow(), Authorization::Missing(_))
    }
}

fn account_login(record: &AccountRecord, login: &Login, api_base: String) -> AccountLogin {
    AccountLogin {
        id: record.id.clone(),
        name: record.name.to_string(),
        api_base,
        is_enabled: record.is_enabled,
        authorization: login.watch_authorization(),
        refused_tokens: login.refused_token_sender(),
    }
}
