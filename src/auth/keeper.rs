//! The keeper of the login: the one task that refreshes it, ahead of time and alone.
//!
//! ```text
//!             half of the life is over, or the Kimi API has refused the token
//!   waits ─────────────────────────────▶ takes the lock, reads again ──── somebody else has refreshed ──▶ waits
//!     ▲                                       │ makes room on disk, asks
//!     ├── published ◀── on disk ◀── granted ──┤
//!     ├── another file? ◀────────── refused ──┤   this token is never asked with again
//!     └── 1 s, doubling to 5 min ◀── failed ──┘   what there was stays published, when rejected until it has expired
//! ```
//! A refresh token is good for one refresh. So the answer is on disk before anybody uses it, and a refresh that has
//! begun is finished before the keeper ends. What can be lost is the moment between the server's change of mind
//! and the first byte written here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Login;
use super::login_file::{self, Lock, Room, Tokens, mark};
use super::oauth::{Grant, Refresh};
use crate::clock::Clock;
use crate::panics::blocking;
use crate::types::{Authorization, Secret};

/// How often a login is looked for while there is none that can be used: `nanokimi login` needs no restart.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest sleep: the wall clock may have been set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(10 * 60);
/// How long the lock is waited for. kimi-cli holds it for one request.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// The first pause after a failure; each one after is twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest pause while somebody waits for the token.
const PAUSE_MAX_WANTED: Duration = Duration::from_secs(15);
/// A pause is longer by up to this part of it, so that not all installs ask at the same moment.
const JITTER: f64 = 0.25;
/// How long a program that has refreshed without the lock may take to write it down, as kimi-cli gives it.
const OTHERS_WRITE: Duration = Duration::from_secs(1);
/// A token that is refused so soon was not refused for its age: another refresh would not help.
const FRESH: Duration = Duration::from_secs(10);
/// The shortest time between two renewals that nobody has asked for.
const REST: Duration = Duration::from_secs(1);
/// How long such a token is not used.
const DOUBT: Duration = Duration::from_secs(30);

/// Keeps the login fresh until `stop` resolves or is dropped; a refresh that has begun is finished first. Where an API
/// key is used there is nothing to do.
pub async fn keep(login: Arc<Login>, clock: Clock, mut stop: oneshot::Receiver<()>) {
    if login.api_key.is_some() {
        stop.await.ok();
        return;
    }
    let mut refusals = login.refusals.subscribe();
    let mut keeper = Keeper {
        login: &login,
        clock,
        failures: Failures::default(),
        given: None,
        doubt_ends: None,
        rejection: Rejection::No,
    };
    loop {
        let refused = refusals.borrow_and_update().clone();
        let pause = match keeper.look(refused.as_ref()) {
            Next::Refresh(tokens) => {
                keeper.refresh(&tokens, refused.as_ref()).await;
                continue;
            }
            Next::Sleep(pause) => pause,
        };
        tokio::select! {
            _ = &mut stop => return,
            () = sleep(pause) => {}
            // The sender is the login's own, which is here.
            _ = refusals.changed() => {}
            () = login.changed.notified() => {}
        }
    }
}

struct Keeper<'l> {
    login: &'l Login,
    clock: Clock,
    failures: Failures,
    /// The access token that the latest refresh gave, and when.
    given: Option<(Secret, Instant)>,
    doubt_ends: Option<Instant>,
    rejection: Rejection,
}

/// Whether the login is out of use because it has expired and the login server does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejection {
    No,
    UntilTriedAgain,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
enum Next {
    Refresh(Tokens),
    Sleep(Duration),
}

/// How often a refresh has failed, and when the next may be tried.
#[derive(Debug, Default)]
struct Failures {
    /// The refresh token that it was tried with; another login has not failed yet.
    of: Option<Secret>,
    count: u32,
    last: Option<Instant>,
    /// The part of [`JITTER`] that is added to the pause now.
    luck: f64,
}

impl Failures {
    fn note(&mut self, of: Option<Secret>) {
        self.of = of;
        self.count = self.count.saturating_add(1);
        self.last = Some(Instant::now());
        self.luck = rand::random();
    }

    /// What is left of the pause; nothing where there is none.
    fn left(&self, wanted: Wanted) -> Duration {
        let Some(last) = self.last else { return Duration::ZERO };
        pause(self.count, wanted).mul_f64(1.0 + JITTER * self.luck).saturating_sub(last.elapsed())
    }
}

/// Whether somebody waits for another token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Now,
    InTime,
}

fn pause(failures: u32, wanted: Wanted) -> Duration {
    let most = match wanted {
        Wanted::Now => PAUSE_MAX_WANTED,
        Wanted::InTime => PAUSE_MAX,
    };
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    PAUSE_FIRST.saturating_mul(doubled).min(most)
}

/// Whether a login has to be refreshed, and in how long, as far as its file says.
fn due_in(tokens: &Tokens, now: Timestamp) -> Duration {
    let until = tokens.half_life().duration_since(now);
    Duration::try_from(until).unwrap_or_default()
}

impl Keeper<'_> {
    /// Looks at the file, and says what follows. `refused` is the token that the Kimi API has refused last.
    fn look(&mut self, refused: Option<&Secret>) -> Next {
        let now = self.clock.now();
        self.end_doubt();
        self.end_rejection();
        self.login.reread(now);
        let usable = matches!(&*self.login.authorization.borrow(), Authorization::Login(_));
        let Some(tokens) = self.login.tokens().filter(|_| usable) else {
            let left = self.doubt_left().or(self.rejection_left());
            return Next::Sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY));
        };
        if tokens.refresh.is_none() {
            if refused == Some(&tokens.access) {
                tracing::warn!("The Kimi API refuses a login that cannot be renewed");
                self.login.known().doubted = Some(tokens.access);
                self.login.reread(now);
                return Next::Sleep(LOOK_EVERY);
            }
            let until_it_expires = tokens.expires_at.duration_since(now);
            return Next::Sleep(
                Duration::try_from(until_it_expires).unwrap_or_default().clamp(PAUSE_FIRST, SLEEP_MAX),
            );
        }
        if self.failures.of.is_some() && self.failures.of != tokens.refresh {
            self.failures = Failures::default();
        }
        let wanted = if refused == Some(&tokens.access) { Wanted::Now } else { Wanted::InTime };
        if wanted == Wanted::Now && self.is_fresh(&tokens) {
            tracing::warn!("The Kimi API refuses a login that was renewed just now");
            self.doubt_ends = Some(Instant::now() + DOUBT);
            self.login.known().doubted = Some(tokens.access);
            self.login.reread(now);
            return Next::Sleep(DOUBT);
        }
        let due = match wanted {
            Wanted::Now => Duration::ZERO,
            Wanted::InTime => due_in(&tokens, now).max(self.rest()),
        };
        match due.max(self.failures.left(wanted)) {
            Duration::ZERO => Next::Refresh(tokens),
            pause => Next::Sleep(pause.min(SLEEP_MAX)),
        }
    }

    /// What is left of the shortest time between two renewals, whatever life a server gives.
    fn rest(&self) -> Duration {
        let Some((_, at)) = &self.given else { return Duration::ZERO };
        REST.saturating_sub(at.elapsed())
    }

    fn is_fresh(&self, tokens: &Tokens) -> bool {
        let half = tokens.lifetime.map_or(FRESH, |lifetime| lifetime / 2);
        self.given
            .as_ref()
            .is_some_and(|(given, at)| *given == tokens.access && at.elapsed() < FRESH.min(half))
    }

    fn doubt_left(&self) -> Option<Duration> {
        self.doubt_ends.map(|ends| ends.saturating_duration_since(Instant::now()))
    }

    /// After a while a doubted token is used again; whoever is refused with it once more gets another.
    fn end_doubt(&mut self) {
        if self.doubt_left().is_some_and(|left| left.is_zero()) {
            self.doubt_ends = None;
            let doubted = self.login.known().doubted.take();
            // Unless another token has been refused meanwhile.
            self.login.refusals.send_if_modified(|refused| {
                let is_this = refused.is_some() && *refused == doubted;
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
            Rejection::No => None,
            Rejection::UntilTriedAgain => Some(self.failures.left(Wanted::InTime)),
        }
    }

    fn end_rejection(&mut self) {
        if self.rejection_left().is_some_and(|left| left.is_zero()) {
            self.rejection = Rejection::No;
            self.login.known().refused = None;
        }
    }

    /// Refreshes these tokens, unless somebody else has done so by the time that we have the lock.
    async fn refresh(&mut self, wanted: &Tokens, refused: Option<&Secret>) {
        let lock = match Lock::take(&self.login.file, LOCK_PATIENCE).await {
            Ok(lock) => lock,
            Err(error) => return self.failed(&format!("{error:#}")),
        };
        let tokens = match self.look(refused) {
            Next::Refresh(tokens) => tokens,
            Next::Sleep(_) => {
                if self.login.tokens().is_some_and(|tokens| tokens.access != wanted.access) {
                    tracing::debug!("The Kimi login was renewed by another program");
                    self.failures = Failures::default();
                }
                return;
            }
        };
        let Some(token) = &tokens.refresh else { return };
        let spent = mark(token);
        let room = {
            let spent = spent.clone();
            blocking(move || lock.make_room(&spent)).await
        };
        let room = match room {
            Ok(Ok(room)) => room,
            // Without room for the answer the login would be lost: it is not asked for.
            Ok(Err(error)) => return self.failed(&format!("{error:#}")),
            Err(error) => return self.failed(&format!("Failed to make room for a new login: {error}")),
        };
        match self.login.server.refresh(token).await {
            Refresh::Granted(grant) => self.granted(room, grant, &tokens).await,
            Refresh::Refused => {
                drop(room);
                if self.are_still_there(&tokens).await {
                    self.refused(spent);
                }
            }
            Refresh::Rejected => {
                drop(room);
                if self.are_still_there(&tokens).await {
                    self.rejected(&tokens, spent);
                }
            }
            Refresh::Failed(why) => self.failed(&format!("{}: {why}", self.login.server.host())),
        }
    }

    async fn granted(&mut self, mut room: Room, grant: Grant, before: &Tokens) {
        let tokens = grant.into_tokens(Some(before), self.clock.now());
        let access = tokens.access.clone();
        // The server has forgotten the old one: this is the only copy, so it is not let go.
        for tries in 1_u32.. {
            let (content, tried) = {
                let tokens = tokens.clone();
                match blocking(move || {
                    let filled = room.fill(&tokens);
                    (room, filled)
                })
                .await
                {
                    Ok(done) => done,
                    Err(error) => return self.failed(&format!("Failed to write the new login: {error}")),
                }
            };
            room = content;
            match tried {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!("{error:#}; trying again");
                    sleep(pause(tries, Wanted::Now)).await;
                }
            }
        }
        drop(room);
        self.failures = Failures::default();
        self.given = Some((access, Instant::now()));
        self.login.reread(self.clock.now());
        tracing::debug!("The Kimi login was renewed");
    }

    /// Whether what was not taken is the login still: a program that did not wait for the lock may have been first, and be
    /// about to write its tokens down.
    async fn are_still_there(&mut self, tokens: &Tokens) -> bool {
        sleep(OTHERS_WRITE).await;
        self.login.reread(self.clock.now());
        let are_there = self.login.tokens().as_ref() == Some(tokens);
        if !are_there {
            self.failures = Failures::default();
        }
        are_there
    }

    fn refused(&mut self, spent: String) {
        tracing::warn!("Kimi does not renew the login any more; `nanokimi login` makes a new one");
        if let Err(error) = login_file::note_refused(&self.login.file, &spent) {
            tracing::warn!("Failed to note that the login is of no use: {error:#}");
        }
        self.login.known().refused = Some(spent);
        self.login.reread(self.clock.now());
    }

    fn rejected(&mut self, tokens: &Tokens, spent: String) {
        self.failed(&format!("{} does not take it", self.login.server.host()));
        let now = self.clock.now();
        if tokens.expires_at <= now {
            self.rejection = Rejection::UntilTriedAgain;
            self.login.known().refused = Some(spent);
            self.login.reread(now);
        }
    }

    fn failed(&mut self, why: &str) {
        self.failures.note(self.login.tokens().and_then(|tokens| tokens.refresh));
        let again = self.failures.left(Wanted::InTime).as_secs();
        tracing::warn!("Failed to renew the Kimi login, trying again in {again} s: {why}");
    }
}
