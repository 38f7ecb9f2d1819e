//! Keeps the accounts: renews each login ahead of time, also that of an account that nobody uses or whose
//! allowance is used up; takes up what another process has changed; asks Kimi when a used-up allowance is whole
//! again; and keeps what was learnt for the next start and for other processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::accounts::AccountPool;
use crate::clock::{Clock, sleep_until_or_never};
use crate::login::{self, Accounts, Login};
use crate::types::{AccountId, Authorization, Cooldown, CooldownCause};

/// How often the file of accounts is looked at while nobody asks anything.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The pauses before each time that Kimi is asked when an allowance is whole again, until it answers.
const ASK_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10)];
/// How long changes are gathered before they are written.
const SAVE_AFTER: Duration = Duration::from_secs(1);

/// Keeps the accounts until `stop` resolves or is dropped; a renewal that has begun is finished first.
pub async fn run_account_upkeep(
    accounts: Arc<Accounts>,
    pool: Arc<AccountPool>,
    clock: Clock,
    mut stop: oneshot::Receiver<()>,
) {
    let mut refreshers = Refreshers { clock, running: Vec::new(), tasks: JoinSet::new() };
    let mut logins = accounts.watch_logins();
    let mut cooldowns = pool.watch_cooldowns();
    let mut look = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    // The findings about which Kimi was asked: once each, however often something changes beside them.
    let mut asked: HashMap<AccountId, Timestamp> = HashMap::new();
    let mut saved = cooldowns.borrow_and_update().clone();
    // Another process may have written since the accounts were read.
    let mut save_at = Some(Instant::now() + SAVE_AFTER);
    loop {
        logins.borrow_and_update();
        refreshers.follow(accounts.all_logins());
        tokio::select! {
            _ = &mut stop => break,
            _ = logins.changed() => save_at = save_at.or(Some(Instant::now() + SAVE_AFTER)),
            _ = look.tick() => accounts.reload_if_changed(clock.now()),
            _ = cooldowns.changed() => {
                let changed = cooldowns.borrow_and_update().clone();
                for (id, cooldown) in &changed {
                    if is_news(cooldown, clock.now())
                        && asked.insert(id.clone(), cooldown.since) != Some(cooldown.since)
                    {
                        asking.spawn(ask_for_reset_time(Arc::clone(&accounts), Arc::clone(&pool), id.clone()));
                    }
                }
                save_at = save_at.or(Some(Instant::now() + SAVE_AFTER));
            }
            () = sleep_until_or_never(save_at) => {
                save_at = None;
                save_limits(&accounts, &pool, &mut saved).await;
            }
            Some(_) = asking.join_next() => {}
            Some(_) = refreshers.tasks.join_next() => {}
        }
    }
    if save_at.is_some() {
        save_limits(&accounts, &pool, &mut saved).await;
    }
    refreshers.stop_all().await;
}

/// The refreshers that run, each with what stops it.
struct Refreshers {
    clock: Clock,
    running: Vec<(Arc<Login>, oneshot::Sender<()>)>,
    tasks: JoinSet<()>,
}

impl Refreshers {
    /// Starts those of new logins and stops those of logins that are gone.
    fn follow(&mut self, logins: Vec<Arc<Login>>) {
        self.running.retain(|(login, _)| logins.iter().any(|kept| Arc::ptr_eq(login, kept)));
        for login in logins {
            if !self.running.iter().any(|(running, _)| Arc::ptr_eq(running, &login)) {
                let (stop, stopped) = oneshot::channel();
                self.tasks.spawn(login::run_refresher(Arc::clone(&login), self.clock, stopped));
                self.running.push((login, stop));
            }
        }
    }

    async fn stop_all(mut self) {
        self.running.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// An allowance that was just found used up, and of which nobody has said when it is whole again.
fn is_news(cooldown: &Cooldown, now: Timestamp) -> bool {
    cooldown.cause == CooldownCause::QuotaUsedUp && cooldown.is_on(now) && cooldown.resets_at.is_none()
}

/// Without an answer it is asked again a few times: the token may have been renewed a moment ago.
async fn ask_for_reset_time(accounts: Arc<Accounts>, pool: Arc<AccountPool>, id: AccountId) {
    for pause in ASK_PAUSES {
        sleep(pause).await;
        let logins = accounts.watch_logins().borrow().clone();
        let Some(account) = logins.accounts.iter().find(|account| account.id == id) else { return };
        let token = match &*account.authorization.borrow() {
            Authorization::Login(token) => token.clone(),
            Authorization::ApiKey(_) | Authorization::Missing(_) => return,
        };
        let Ok(quota) = login::fetch_quota(&account.api_base, &token).await else { continue };
        let used_up = quota.limits.iter().filter(|limit| limit.left_percent == 0);
        if let Some(resets_at) = used_up.filter_map(|limit| limit.resets_at).max() {
            pool.note_reset_time(&id, resets_at);
        }
        return;
    }
}

/// Writes down what is known, and takes over what others have written since `saved` was. With a single account there
/// is nothing to keep.
async fn save_limits(accounts: &Accounts, pool: &AccountPool, saved: &mut BTreeMap<AccountId, Cooldown>) {
    if accounts.records().accounts.len() < 2 {
        return;
    }
    let ours = pool.watch_cooldowns().borrow().clone();
    match accounts.save_limits(&ours, saved, &pool.last_used()).await {
        Ok(known) => {
            pool.take_over(&ours, &known);
            *saved = known;
        }
        Err(error) => tracing::warn!("Failed to keep what is known of the Kimi accounts: {error:#}"),
    }
}
