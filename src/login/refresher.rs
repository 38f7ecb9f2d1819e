//! The token refresher: the one task that refreshes the login, ahead of time and alone.
//!
//! ```text
//!             half of the life is over, or the Kimi API has refused the token
//!   waits ─────────────────────────────▶ takes the lock, reads again ──── somebody else has refreshed ──▶ waits
//!     ▲                                       │ makes room on disk, asks
//!     ├── published ◀── on disk ◀── granted ──┤
//!     ├── another file? ◀────────── refused ──┤   this token is never asked with again
//!     └── 1 s, doubling to 5 min ◀── failed ──┘   what there was stays published, when rejected until it has expired
//! ```
//! A refresh token is good for one refresh. So the answer is on disk before anybody uses it, and a refresh
//! that has begun is finished before the refresher ends. It can only be lost between the server's answer and
//! the first byte written here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::login_file::{self, LoginLock, PendingLogin, Tokens, token_fingerprint};
use super::oauth::{RefreshResult, TokenGrant};
use super::shared_login::Login;
use crate::backoff::exponential_backoff;
use crate::clock::Clock;
use crate::panics::run_blocking;
use crate::types::{Authorization, Secret};

/// How often a login is looked for while there is no usable one: `nanokimi login` needs no restart.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest sleep: the wall clock may have been set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(10 * 60);
/// How long the lock is waited for. kimi-cli holds it for one request.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// The first pause after a failure. Each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest pause while somebody waits for the token.
const PAUSE_MAX_WANTED: Duration = Duration::from_secs(15);
/// A pause is longer by up to this part of it, so that not all installs ask at the same moment.
const JITTER: f64 = 0.25;
/// How long a program that has refreshed without the lock may take to write it down, as kimi-cli gives it.
const OTHERS_WRITE: Duration = Duration::from_secs(1);
/// A token that is refused so soon was not refused for its age, and another refresh would not help.
const FRESH: Duration = Duration::from_secs(10);
/// The shortest time between two renewals that nobody has asked for.
const REST: Duration = Duration::from_secs(1);
/// How long such a token is not used.
const DOUBT: Duration = Duration::from_secs(30);

/// Keeps the login fresh until `stop` resolves or is dropped; a refresh that has begun is finished first.
/// With an API key there is nothing to do.
pub async fn run_refresher(login: Arc<Login>, clock: Clock, mut stop: oneshot::Receiver<()>) {
    if login.api_key.is_some() {
        stop.await.ok();
        return;
    }
    let mut refused_tokens = login.refused_tokens.subscribe();
    let mut refresher = Refresher {
        login: &login,
        clock,
        failures: RefreshFailures::default(),
        given: None,
        doubt_ends: None,
        rejection: RejectionState::No,
    };
    loop {
        let refused = refused_tokens.borrow_and_update().clone();
        let pause = match refresher.decide_refresh_step(refused.as_ref()) {
            RefresherStep::Refresh(tokens) => {
                refresher.refresh_tokens(&tokens, refused.as_ref()).await;
                continue;
            }
            RefresherStep::Sleep(pause) => pause,
        };
        tokio::select! {
            _ = &mut stop => return,
            () = sleep(pause) => {}
            // The sender is the login's own, which is here.
            _ = refused_tokens.changed() => {}
            () = login.changed.notified() => {}
        }
    }
}

struct Refresher<'l> {
    login: &'l Login,
    clock: Clock,
    failures: RefreshFailures,
    /// The access token that the latest refresh gave, and when.
    given: Option<(Secret, Instant)>,
    doubt_ends: Option<Instant>,
    rejection: RejectionState,
}

/// Whether the login is out of use because it has expired and the login server does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RejectionState {
    No,
    UntilTriedAgain,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
enum RefresherStep {
    Refresh(Tokens),
    Sleep(Duration),
}

/// How often a refresh has failed, and when the next may be tried.
#[derive(Debug, Default)]
struct RefreshFailures {
    /// The refresh token that was tried. Another login has not failed yet.
    of: Option<Secret>,
    count: u32,
    last: Option<Instant>,
    /// The part of [`JITTER`] that is added to the pause now.
    luck: f64,
}

impl RefreshFailures {
    fn count_failed_refresh(&mut self, of: Option<Secret>) {
        self.of = of;
        self.count = self.count.saturating_add(1);
        self.last = Some(Instant::now());
        self.luck = rand::random();
    }

    /// What is left of the pause, if there is a pause.
    fn backoff_left(&self, wanted: RefreshUrgency) -> Duration {
        let Some(last) = self.last else { return Duration::ZERO };
        backoff_after(self.count, wanted).mul_f64(1.0 + JITTER * self.luck).saturating_sub(last.elapsed())
    }
}

/// Whether somebody waits for another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefreshUrgency {
    Now,
    InTime,
}

fn backoff_after(failures: u32, wanted: RefreshUrgency) -> Duration {
    let most = match wanted {
        RefreshUrgency::Now => PAUSE_MAX_WANTED,
        RefreshUrgency::InTime => PAUSE_MAX,
    };
    exponential_backoff(PAUSE_FIRST, failures.saturating_sub(1), most)
}

/// In how long a login has to be refreshed, as far as its file says.
fn refresh_due_in(tokens: &Tokens, now: Timestamp) -> Duration {
    let until = tokens.half_life().duration_since(now);
    Duration::try_from(until).unwrap_or_default()
}

impl Refresher<'_> {
    /// Looks at the file, and says what follows. `refused` is the token that the Kimi API has refused last.
    fn decide_refresh_step(&mut self, refused: Option<&Secret>) -> RefresherStep {
        let now = self.clock.now();
        self.expire_doubt();
        self.expire_rejection();
        self.login.reload_if_changed(now);
        let usable = matches!(&*self.login.authorization.borrow(), Authorization::Login(_));
        let Some(tokens) = self.login.last_read_tokens().filter(|_| usable) else {
            let left = self.doubt_left().or(self.rejection_left());
            return RefresherStep::Sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
        };
        if tokens.refresh.is_none() {
            if refused == Some(&tokens.access) {
                tracing::warn!("The Kimi API refuses a login that cannot be renewed");
                self.login.lock_login_state().suspect = Some(tokens.access);
                self.login.reload_if_changed(now);
                return RefresherStep::Sleep(LOOK_EVERY);
            }
            let until_it_expires = tokens.expires_at.duration_since(now);
            return RefresherStep::Sleep(
                Duration::try_from(until_it_expires).unwrap_or_default().clamp(PAUSE_FIRST, SLEEP_MAX),
            );
        }
        if self.failures.of.is_some() && self.failures.of != tokens.refresh {
            self.failures = RefreshFailures::default();
        }
        let wanted =
            if refused == Some(&tokens.access) { RefreshUrgency::Now } else { RefreshUrgency::InTime };
        if wanted == RefreshUrgency::Now && self.is_just_refreshed(&tokens) {
            tracing::warn!("The Kimi API refuses a login that was renewed just now");
            self.doubt_ends = Some(Instant::now() + DOUBT);
            self.login.lock_login_state().suspect = Some(tokens.access);
            self.login.reload_if_changed(now);
            return RefresherStep::Sleep(DOUBT);
        }
        let due = match wanted {
            RefreshUrgency::Now => Duration::ZERO,
            RefreshUrgency::InTime => refresh_due_in(&tokens, now).max(self.min_interval_left()),
        };
        match due.max(self.failures.backoff_left(wanted)) {
            Duration::ZERO => RefresherStep::Refresh(tokens),
            pause => RefresherStep::Sleep(pause.min(SLEEP_MAX)),
        }
    }

    /// What is left of the shortest time between two renewals, whatever life a server gives.
    fn min_interval_left(&self) -> Duration {
        let Some((_, at)) = &self.given else { return Duration::ZERO };
        REST.saturating_sub(at.elapsed())
    }

    fn is_just_refreshed(&self, tokens: &Tokens) -> bool {
        let half = tokens.lifetime.map_or(FRESH, |lifetime| lifetime / 2);
        self.given
            .as_ref()
            .is_some_and(|(given, at)| *given == tokens.access && at.elapsed() < FRESH.min(half))
    }

    fn doubt_left(&self) -> Option<Duration> {
        self.doubt_ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    /// After a while a suspect token is used again. A caller that is refused with it once more gets another
    /// one.
    fn expire_doubt(&mut self) {
        if self.doubt_left().is_some_and(|left| left.is_zero()) {
            self.doubt_ends = None;
            let suspect = self.login.lock_login_state().suspect.take();
            // Unless another token has been refused meanwhile.
            self.login.refused_tokens.send_if_modified(|refused| {
                let is_this = refused.is_some() && *refused == suspect;
                if is_this {
                    *refused = None;
                }
                is_this
            });
        }
    }

    /// What was rejected is tried again after the pause of a failure.
    fn rejection_left(&self) -> Option<Duration> {
        match self.rejection {
            RejectionState::No => None,
            RejectionState::UntilTriedAgain => Some(self.failures.backoff_left(RefreshUrgency::InTime)),
        }
    }

    fn expire_rejection(&mut self) {
        if self.rejection_left().is_some_and(|left| left.is_zero()) {
            self.rejection = RejectionState::No;
            self.login.lock_login_state().refused = None;
        }
    }

    /// Refreshes these tokens, unless somebody else has done so by the time that we have the lock.
    async fn refresh_tokens(&mut self, wanted: &Tokens, refused: Option<&Secret>) {
        // One account after the other, so that several never look like a storm. Before the lock, for which a person
        // may be waiting.
        let renewals = Arc::clone(&self.login.renewals);
        let turn = renewals.acquire().await;
        let lock = match LoginLock::acquire_within(&self.login.file, LOCK_PATIENCE).await {
            Ok(lock) => lock,
            Err(error) => return self.record_refresh_failure(&format!("{error:#}")),
        };
        let tokens = match self.decide_refresh_step(refused) {
            RefresherStep::Refresh(tokens) => tokens,
            RefresherStep::Sleep(_) => {
                if self.login.last_read_tokens().is_some_and(|tokens| tokens.access != wanted.access) {
                    tracing::debug!("The Kimi login was renewed by another program");
                    self.failures = RefreshFailures::default();
                }
                return;
            }
        };
        let Some(token) = &tokens.refresh else { return };
        let spent = token_fingerprint(token);
        let room = {
            let spent = spent.clone();
            run_blocking(move || lock.reserve_login_space(&spent)).await
        };
        let room = match room {
            Ok(Ok(room)) => room,
            // Without room for the answer the login would be lost: it is not asked for.
            Ok(Err(error)) => return self.record_refresh_failure(&format!("{error:#}")),
            Err(error) => {
                return self.record_refresh_failure(&format!("Failed to make room for a new login: {error}"));
            }
        };
        let answer = self.login.server.refresh_access_token(token).await;
        drop(turn);
        match answer {
            RefreshResult::Granted(grant) => self.save_granted_tokens(room, grant, &tokens).await,
            RefreshResult::InvalidGrant => {
                drop(room);
                if self.are_tokens_unchanged(&tokens).await {
                    self.record_refused_token(spent);
                }
            }
            RefreshResult::Unauthorized => {
                drop(room);
                if self.are_tokens_unchanged(&tokens).await {
                    self.record_rejected_token(&tokens, spent);
                }
            }
            RefreshResult::Failed(why) => {
                self.record_refresh_failure(&format!("{}: {why}", self.login.server.host()))
            }
        }
    }

    async fn save_granted_tokens(&mut self, mut room: PendingLogin, grant: TokenGrant, before: &Tokens) {
        let tokens = grant.into_tokens(Some(before), self.clock.now());
        let access = tokens.access.clone();
        // The server has forgotten the old one. This is the only copy, so writing it is tried until it works.
        for tries in 1_u32.. {
            let (content, tried) = {
                let tokens = tokens.clone();
                match run_blocking(move || {
                    let filled = room.write_tokens(&tokens);
                    (room, filled)
                })
                .await
                {
                    Ok(done) => done,
                    Err(error) => {
                        return self
                            .record_refresh_failure(&format!("Failed to write the new login: {error}"));
                    }
                }
            };
            room = content;
            match tried {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!("{error:#}; trying again");
                    sleep(backoff_after(tries, RefreshUrgency::Now)).await;
                }
            }
        }
        drop(room);
        self.failures = RefreshFailures::default();
        self.given = Some((access, Instant::now()));
        self.login.reload_if_changed(self.clock.now());
        tracing::debug!("The Kimi login was renewed");
    }

    /// Whether the login is still the one that was not taken: a program that did not wait for the lock may
    /// have refreshed it first, and be about to write its tokens down.
    async fn are_tokens_unchanged(&mut self, tokens: &Tokens) -> bool {
        sleep(OTHERS_WRITE).await;
        self.login.reload_if_changed(self.clock.now());
        let are_there = self.login.last_read_tokens().as_ref() == Some(tokens);
        if !are_there {
            self.failures = RefreshFailures::default();
        }
        are_there
    }

    fn record_refused_token(&mut self, spent: String) {
        tracing::warn!("Kimi does not renew the login any more; `nanokimi login` makes a new one");
        if let Err(error) = login_file::save_refused_fingerprint(&self.login.file, &spent) {
            tracing::warn!("Failed to note that the login is of no use: {error:#}");
        }
        self.login.lock_login_state().refused = Some(spent);
        self.login.reload_if_changed(self.clock.now());
    }

    fn record_rejected_token(&mut self, tokens: &Tokens, spent: String) {
        self.record_refresh_failure(&format!("{} does not take it", self.login.server.host()));
        let now = self.clock.now();
        if tokens.expires_at <= now {
            self.rejection = RejectionState::UntilTriedAgain;
            self.login.lock_login_state().refused = Some(spent);
            self.login.reload_if_changed(now);
        }
    }

    fn record_refresh_failure(&mut self, why: &str) {
        self.failures.count_failed_refresh(self.login.last_read_tokens().and_then(|tokens| tokens.refresh));
        let again = self.failures.backoff_left(RefreshUrgency::InTime).as_secs();
        tracing::warn!("Failed to renew the Kimi login, trying again in {again} s: {why}");
    }
}
