//! The accounts that requests are sent with, and what is known of their limits. Which of them answers is
//! decided by `rules::accounts`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::login::{AccountLogin, AccountLogins, AccountsWatch};
use crate::notices::describe_cooldown_cause;
use crate::panics::lock_unpoisoned;
use crate::rules::accounts::{self, AccountChoice, Candidate};
use crate::types::{AccountId, Authorization, Cooldown, CooldownCause, Lang, Trouble};

/// Conversations whose account is remembered; the oldest is forgotten first, and then begins anew with the
/// active account.
const CONVERSATIONS_MAX: usize = 1000;

/// The accounts, shared by all callers.
#[derive(Debug)]
pub struct AccountPool {
    accounts: watch::Receiver<AccountLogins>,
    cooldowns: watch::Sender<BTreeMap<AccountId, Cooldown>>,
    kept: Mutex<KeptAccounts>,
    last_used: Mutex<BTreeMap<AccountId, Timestamp>>,
}

/// Who answers a request.
#[derive(Debug)]
pub(super) enum ChosenAccount {
    Use(AccountLogin),
    /// All are left alone until then at the earliest.
    WaitUntil(Timestamp),
    /// No account can be used; the text says why and what to do.
    Missing(String),
}

impl AccountPool {
    /// `cooldowns` is what an earlier run has learnt.
    pub fn new(
        accounts: watch::Receiver<AccountLogins>,
        cooldowns: impl IntoIterator<Item = (AccountId, Cooldown)>,
    ) -> Self {
        let cooldowns = watch::Sender::new(cooldowns.into_iter().collect());
        Self { accounts, cooldowns, kept: Mutex::default(), last_used: Mutex::default() }
    }

    /// Whose limits are known, and since when.
    pub fn watch_cooldowns(&self) -> watch::Receiver<BTreeMap<AccountId, Cooldown>> {
        self.cooldowns.subscribe()
    }

    /// Chooses who answers a request for the model, and keeps its conversation with the account.
    pub(super) fn choose_account(&self, conversation: &str, now: Timestamp) -> ChosenAccount {
        let pooled = self.accounts.borrow().clone();
        let choice = {
            let cooldowns = self.cooldowns.borrow();
            let candidates: Vec<Candidate<'_>> =
                pooled.accounts.iter().map(|account| candidate(account, &cooldowns)).collect();
            let kept = lock_unpoisoned(&self.kept).account_of(conversation);
            accounts::choose_account(&candidates, kept.as_ref(), pooled.active, now)
        };
        match choice {
            AccountChoice::Use(at) => {
                let account = pooled.accounts[at].clone();
                lock_unpoisoned(&self.kept).keep(conversation, &account.id);
                ChosenAccount::Use(account)
            }
            AccountChoice::WaitUntil(until) => ChosenAccount::WaitUntil(until),
            // It may have come meanwhile.
            AccountChoice::NoneUsable => {
                missing_login(&pooled).map_or(ChosenAccount::WaitUntil(now), ChosenAccount::Missing)
            }
        }
    }

    /// Chooses who answers a request for something else, which limits have nothing to do with.
    pub(super) fn choose_unlimited_account(&self, conversation: &str) -> ChosenAccount {
        let pooled = self.accounts.borrow().clone();
        let kept = lock_unpoisoned(&self.kept).account_of(conversation);
        let kept = pooled.accounts.iter().find(|account| Some(&account.id) == kept.as_ref());
        let in_order = kept.into_iter().chain(pooled.accounts.get(pooled.active)).chain(&pooled.accounts);
        match in_order.into_iter().find(|account| account.is_usable()) {
            Some(account) => ChosenAccount::Use(account.clone()),
            None => ChosenAccount::Missing(missing_login(&pooled).unwrap_or_default()),
        }
    }

    /// Why nobody could answer now, if no account has a login.
    pub(super) fn missing_login(&self) -> Option<String> {
        missing_login(&self.accounts.borrow())
    }

    /// Waits for this long, or until an account can be asked sooner: Kimi may say that an allowance is whole again
    /// before anybody expected it, and a person may add an account.
    pub(super) async fn wait_for_account(&self, conversation: &str, until: Timestamp, pause: Duration) {
        let mut cooldowns = self.cooldowns.subscribe();
        let mut accounts = AccountsWatch::new(self.accounts.clone());
        let sooner = async {
            loop {
                match self.choose_account(conversation, Clock::System.now()) {
                    ChosenAccount::WaitUntil(then) if then >= until => {}
                    ChosenAccount::WaitUntil(_) | ChosenAccount::Use(_) | ChosenAccount::Missing(_) => return,
                }
                tokio::select! {
                    _ = cooldowns.changed() => {}
                    () = accounts.changed() => {}
                }
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = sooner => {}
        }
    }

    /// Whether there is another account to turn to.
    pub(super) fn has_several_usable(&self) -> bool {
        self.accounts.borrow().accounts.iter().filter(|account| account.is_usable()).count() > 1
    }

    /// Whether another account than these can be asked at once.
    pub(super) fn has_ready_account_beside(&self, asked: &HashSet<AccountId>, now: Timestamp) -> bool {
        let (pooled, cooldowns) = (self.accounts.borrow(), self.cooldowns.borrow());
        pooled.accounts.iter().any(|account| {
            let is_cooling = cooldowns.get(&account.id).is_some_and(|cooldown| cooldown.is_on(now));
            account.is_usable() && !is_cooling && !asked.contains(&account.id)
        })
    }

    /// Whether an account is left alone that comes back by itself. One that Kimi refuses needs a person.
    pub(super) fn has_account_to_wait_for(&self, now: Timestamp) -> bool {
        let (pooled, cooldowns) = (self.accounts.borrow(), self.cooldowns.borrow());
        pooled.accounts.iter().filter(|account| account.is_usable()).any(|account| {
            let cooldown = cooldowns.get(&account.id).filter(|cooldown| cooldown.is_on(now));
            cooldown.is_some_and(|cooldown| cooldown.cause != CooldownCause::Refused)
        })
    }

    /// Where the first account asks.
    pub(super) fn first_base(&self) -> String {
        self.accounts.borrow().accounts.first().map(|account| account.api_base.clone()).unwrap_or_default()
    }

    /// Leaves an account alone for a while.
    pub(super) fn cool_down(
        &self,
        id: &AccountId,
        cause: CooldownCause,
        retry_after: Option<Duration>,
        now: Timestamp,
    ) {
        self.cooldowns.send_modify(|cooldowns| {
            let before = cooldowns.get(id);
            // Requests that were on their way together have found out the same.
            let known = before.filter(|before| before.cause == cause && before.is_on(now)).copied();
            let cooldown = known
                .unwrap_or_else(|| accounts::cooldown_after(cause, retry_after, before, rand::random(), now));
            cooldowns.insert(id.clone(), cooldown);
        });
    }

    /// Kimi says when the allowance of an account is whole again.
    pub fn note_reset_time(&self, id: &AccountId, resets_at: Timestamp) {
        self.cooldowns.send_if_modified(|cooldowns| {
            let used_up = |cooldown: &&mut Cooldown| cooldown.cause == CooldownCause::QuotaUsedUp;
            let Some(cooldown) = cooldowns.get_mut(id).filter(used_up) else { return false };
            let told = accounts::with_reset_time(*cooldown, resets_at);
            let is_news = told != *cooldown;
            *cooldown = told;
            is_news
        });
    }

    /// Takes over what others have found out, but for what this process has found out since it knew `ours`.
    pub(super) fn take_over(
        &self,
        ours: &BTreeMap<AccountId, Cooldown>,
        known: &BTreeMap<AccountId, Cooldown>,
    ) {
        self.cooldowns.send_if_modified(|cooldowns| {
            let before = cooldowns.clone();
            cooldowns.retain(|id, cooldown| known.contains_key(id) || ours.get(id) != Some(cooldown));
            for (id, found) in known.iter().filter(|(id, _)| before.get(*id) == ours.get(*id)) {
                cooldowns.insert(id.clone(), *found);
            }
            *cooldowns != before
        });
    }

    /// When each account has answered last, since the start.
    pub fn last_used(&self) -> BTreeMap<AccountId, Timestamp> {
        lock_unpoisoned(&self.last_used).clone()
    }

    /// An account has answered a request of that time: what it failed for before is over.
    pub(super) fn note_answer(&self, id: &AccountId, asked_at: Timestamp, now: Timestamp) {
        lock_unpoisoned(&self.last_used).insert(id.clone(), now);
        self.cooldowns.send_if_modified(|cooldowns| {
            let ends = cooldowns.get(id).is_some_and(|known| accounts::is_ended_by_answer(known, asked_at));
            ends && cooldowns.remove(id).is_some()
        });
    }

    /// The accounts that are left alone now, by name, if there are several.
    pub fn limited_accounts(&self, now: Timestamp) -> Vec<(String, Cooldown)> {
        if self.has_several_usable() { self.cooling_accounts(now) } else { Vec::new() }
    }

    fn cooling_accounts(&self, now: Timestamp) -> Vec<(String, Cooldown)> {
        let (pooled, cooldowns) = (self.accounts.borrow(), self.cooldowns.borrow());
        let usable = pooled.accounts.iter().filter(|account| account.is_usable());
        let limited = usable.filter_map(|account| Some((account, cooldowns.get(&account.id)?)));
        let now_limited = limited.filter(|(_, cooldown)| cooldown.is_on(now));
        now_limited.map(|(account, cooldown)| (account.name.clone(), *cooldown)).collect()
    }

    /// The trouble of a request when all accounts are left alone: the one that lasts longest.
    pub(super) fn limiting_trouble(&self, now: Timestamp) -> Trouble {
        let cooldowns = self.cooling_accounts(now).into_iter().map(|(_, cooldown)| cooldown);
        match cooldowns.max_by_key(|cooldown| cooldown.until).map(|cooldown| cooldown.cause) {
            Some(CooldownCause::QuotaUsedUp) => Trouble::QuotaUsedUp,
            Some(CooldownCause::Overloaded | CooldownCause::ServerError) => Trouble::Overloaded,
            Some(CooldownCause::Unreachable) => Trouble::Unreachable,
            Some(CooldownCause::Refused) => Trouble::Refused,
            Some(CooldownCause::RateLimited) | None => Trouble::RateLimited,
        }
    }

    /// What a caller reads when all accounts are left alone: each with its name, its cause and the time until it
    /// comes back.
    pub(super) fn describe_limits(&self, now: Timestamp) -> String {
        let limited = self.cooling_accounts(now).into_iter();
        let limited = limited.map(|(name, cooldown)| format!("{name} {}", describe_cooldown(&cooldown, now)));
        format!("No Kimi account can answer now: {}.", limited.collect::<Vec<_>>().join("; "))
    }
}

fn missing_login(logins: &AccountLogins) -> Option<String> {
    match logins.usable_authorization() {
        Authorization::Missing(why) => Some(why),
        Authorization::ApiKey(_) | Authorization::Login(_) => None,
    }
}

fn candidate<'a>(account: &'a AccountLogin, cooldowns: &'a BTreeMap<AccountId, Cooldown>) -> Candidate<'a> {
    Candidate { id: &account.id, is_usable: account.is_usable(), cooldown: cooldowns.get(&account.id) }
}

/// Such as `has used up its allowance, and is whole again in 2 h 5 min`.
pub fn describe_cooldown(cooldown: &Cooldown, now: Timestamp) -> String {
    let why = describe_cooldown_cause(Lang::En, cooldown.cause);
    match cooldown.resets_at {
        Some(resets_at) => format!("{why}, and has it again in {}", describe_time_left(resets_at, now)),
        None => format!("{why}, and is tried again in {}", describe_time_left(cooldown.until, now)),
    }
}

fn describe_time_left(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.duration_since(now).as_secs().max(1);
    let minutes = (seconds + 59) / 60;
    match (seconds, minutes) {
        (..60, _) => format!("{seconds} s"),
        (_, ..60) => format!("{minutes} min"),
        _ if minutes < 48 * 60 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} days", minutes.div_euclid(24 * 60)),
    }
}

/// Which account has answered which conversation last, for the newest of them.
#[derive(Debug, Default)]
struct KeptAccounts {
    accounts: HashMap<String, AccountId>,
    /// The same conversations, the oldest first.
    order: VecDeque<String>,
}

impl KeptAccounts {
    fn account_of(&self, conversation: &str) -> Option<AccountId> {
        self.accounts.get(conversation).cloned()
    }

    fn keep(&mut self, conversation: &str, account: &AccountId) {
        if self.accounts.insert(conversation.to_owned(), account.clone()).is_none() {
            self.order.push_back(conversation.to_owned());
        }
        if self.order.len() > CONVERSATIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.accounts.remove(&oldest);
        }
    }
}
