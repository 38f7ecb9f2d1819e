//! Which of several Kimi accounts answers, and how long one that gives no answer is left alone: pure.
//!
//! A conversation stays with its account, since Kimi's prompt cache is the account's. Another one answers only
//! when this one is used up, limited, refused or out of use. With a single account nothing of this applies: it
//! is asked whatever it said before.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::types::{AccountId, Cooldown, CooldownCause};

/// The pauses after an allowance was found used up, one after the other. It may be whole again any time.
const QUOTA_PAUSES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
];
/// The shortest pause, whatever Kimi says of when an allowance is whole again.
const RESET_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The pause after "too many requests" if Kimi does not say how long, and the shortest if it does.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(30);
const RATE_LIMIT_PAUSE_MIN: Duration = Duration::from_secs(2);
/// The pause while Kimi is overloaded, and how much longer or shorter it is made by chance, so that many do not
/// come back at once.
const OVERLOAD_PAUSE: Duration = Duration::from_secs(45);
const OVERLOAD_SPREAD: Duration = Duration::from_secs(15);
const SERVER_ERROR_PAUSE: Duration = Duration::from_secs(20);
const NETWORK_PAUSE: Duration = Duration::from_secs(15);
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause, whatever Kimi says. Trying costs one request.
const PAUSE_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// No request is under way for longer than this: a cooldown that began later is of a clock that was set back.
const ANSWER_MAX: SignedDuration = SignedDuration::from_mins(10);
/// An account that has done well for this long after its pause has not failed before.
const FAILURE_MEMORY: SignedDuration = SignedDuration::from_hours(1);

/// An account as one request sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub id: &'a AccountId,
    /// It is enabled and has a login.
    pub is_usable: bool,
    pub cooldown: Option<&'a Cooldown>,
}

/// Which account a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChoice {
    /// By its place in the list.
    Use(usize),
    /// All are left alone until then at the earliest.
    WaitUntil(Timestamp),
    /// No account has a login and is enabled.
    NoneUsable,
}

/// `kept` is the account that has answered this conversation before, `active` the place of the one that a
/// person prefers.
pub fn choose_account(
    accounts: &[Candidate<'_>],
    kept: Option<&AccountId>,
    active: usize,
    now: Timestamp,
) -> AccountChoice {
    let usable = |at: usize| accounts[at].is_usable;
    let mut order = (0..accounts.len()).map(|step| (active + step) % accounts.len().max(1));
    let first_usable = order.clone().find(|at| usable(*at));
    let Some(first_usable) = first_usable else { return AccountChoice::NoneUsable };
    if accounts.iter().filter(|account| account.is_usable).count() == 1 {
        return AccountChoice::Use(first_usable);
    }
    let is_cooling = |at: usize| accounts[at].cooldown.is_some_and(|cooldown| cooldown.is_on(now));
    let is_ready = |at: &usize| usable(*at) && !is_cooling(*at);
    let kept = accounts.iter().position(|account| Some(account.id) == kept).filter(is_ready);
    match kept.or_else(|| order.find(is_ready)) {
        Some(at) => AccountChoice::Use(at),
        None => {
            let ends = accounts.iter().filter(|account| account.is_usable);
            let soonest = ends.filter_map(|account| account.cooldown).map(|cooldown| cooldown.until).min();
            AccountChoice::WaitUntil(soonest.unwrap_or(now))
        }
    }
}

/// How long an account is left alone after it gave no answer. `retry_after` is how long Kimi wants to be left
/// alone, `before` the account's last cooldown, `luck` between 0 and 1 spreads the pauses of an overload.
pub fn cooldown_after(
    cause: CooldownCause,
    retry_after: Option<Duration>,
    before: Option<&Cooldown>,
    luck: f64,
    now: Timestamp,
) -> Cooldown {
    let same = before.filter(|before| before.cause == cause && is_remembered(before, now));
    let failures = same.map_or(0, |before| before.failures).saturating_add(1);
    let pause = match cause {
        CooldownCause::RateLimited => retry_after.unwrap_or(RATE_LIMIT_PAUSE).max(RATE_LIMIT_PAUSE_MIN),
        CooldownCause::QuotaUsedUp => {
            let asked = retry_after.map(|asked| asked.max(RATE_LIMIT_PAUSE_MIN));
            asked.unwrap_or(Duration::MAX).min(quota_pause(failures))
        }
        CooldownCause::Overloaded => {
            let spread = OVERLOAD_SPREAD.mul_f64(2.0 * luck.clamp(0.0, 1.0));
            let usual = (OVERLOAD_PAUSE - OVERLOAD_SPREAD).saturating_add(spread);
            retry_after.map_or(usual, |asked| asked.max(RATE_LIMIT_PAUSE_MIN))
        }
        CooldownCause::ServerError => SERVER_ERROR_PAUSE,
        CooldownCause::Unreachable => NETWORK_PAUSE,
        CooldownCause::Refused => UNKNOWN_PAUSE,
    };
    let until = later(now, pause.min(PAUSE_MAX));
    let cooldown = Cooldown { cause, since: now, until, resets_at: None, failures };
    let known = same.and_then(|before| before.resets_at);
    let cooldown = known.map_or(cooldown, |resets_at| with_reset_time(cooldown, resets_at));
    // Of several findings the one that holds for longest counts, such as a plan that is used up beside a server that fails.
    match before.filter(|before| before.cause != cause && before.is_on(now)) {
        Some(longer) if longer.until > cooldown.until => *longer,
        Some(_) | None => cooldown,
    }
}

/// The same cooldown with what Kimi says of when the allowance is whole again: the account is tried then, if
/// that is sooner. A time that was over when the allowance was found used up is none: it stands so while this
/// machine's clock is ahead, or Kimi's figures are old.
pub fn with_reset_time(cooldown: Cooldown, resets_at: Timestamp) -> Cooldown {
    if resets_at <= cooldown.since {
        return cooldown;
    }
    let soonest = later(cooldown.since, RESET_PAUSE_MIN);
    Cooldown { until: cooldown.until.min(resets_at.max(soonest)), resets_at: Some(resets_at), ..cooldown }
}

/// Whether an answer ends a cooldown: that of a request that was sent before says nothing of what was found since.
pub fn is_ended_by_answer(cooldown: &Cooldown, asked_at: Timestamp) -> bool {
    cooldown.since <= asked_at
        || cooldown.since > asked_at.saturating_add(ANSWER_MAX).unwrap_or(Timestamp::MAX)
}

/// What is known of an account's limits when a process meets what others have written down. `ours` is what this process
/// knows, `saved` what it has read or written last. Whoever has found out something since then is right; a person who
/// enables an account has found out that nothing is known.
pub fn merge_cooldowns(
    ours: Option<Cooldown>,
    saved: Option<Cooldown>,
    in_file: Option<Cooldown>,
) -> Option<Cooldown> {
    if ours == saved { in_file } else { ours }
}

fn quota_pause(failures: u32) -> Duration {
    let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    QUOTA_PAUSES[step.min(QUOTA_PAUSES.len() - 1)]
}

fn is_remembered(cooldown: &Cooldown, now: Timestamp) -> bool {
    let forgotten = cooldown.until.saturating_add(FAILURE_MEMORY).unwrap_or(Timestamp::MAX);
    cooldown.since <= now && now < forgotten
}

fn later(now: Timestamp, pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    now.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn whoever_has_found_out_something_is_right() {
        let (old, ours, theirs) = (Some(cooling(10)), Some(cooling(20)), Some(cooling(30)));
        for (what, now, saved, in_file, known) in [
            ("nobody has found out anything", old, old, old, old),
            ("we have", ours, old, old, ours),
            ("the account has answered us", None, old, old, None),
            ("a person has enabled it", old, old, None, None),
            ("another process has", old, old, theirs, theirs),
            ("another process has, of one that we know nothing of", None, None, theirs, theirs),
            ("a person has enabled it, and then we have", ours, old, None, ours),
            ("both have: each will find out again", ours, old, theirs, ours),
        ] {
            assert_eq!(merge_cooldowns(now, saved, in_file), known, "{what}");
        }
    }

    fn cooling(until: i64) -> Cooldown {
        Cooldown {
            cause: CooldownCause::RateLimited,
            since: at(-10),
            until: at(until),
            resets_at: None,
            failures: 1,
        }
    }

    /// An account in these tests: `-` cannot be used, `+` can, a number can in so many seconds.
    fn choose(accounts: &[&str], kept: Option<usize>, active: usize) -> AccountChoice {
        let ids: Vec<AccountId> =
            (0..accounts.len()).map(|at| AccountId::parse(&format!("a{at}")).unwrap()).collect();
        let cooldowns: Vec<Option<Cooldown>> =
            accounts.iter().map(|account| account.parse().ok().map(cooling)).collect();
        let candidates: Vec<Candidate<'_>> = accounts
            .iter()
            .zip(&ids)
            .zip(&cooldowns)
            .map(|((account, id), cooldown)| Candidate {
                id,
                is_usable: *account != "-",
                cooldown: cooldown.as_ref(),
            })
            .collect();
        choose_account(&candidates, kept.map(|at| &ids[at]), active, at(0))
    }

    #[test]
    fn a_conversation_stays_with_its_account_and_another_answers_only_when_it_must() {
        use AccountChoice::{NoneUsable, Use, WaitUntil};
        for (accounts, kept, active, expected) in [
            (&["+", "+", "+"][..], None, 0, Use(0)),
            (&["+", "+", "+"], None, 2, Use(2)),
            (&["+", "+", "+"], Some(1), 0, Use(1)),
            // Kept, but limited, or without a login.
            (&["+", "60", "+"], Some(1), 0, Use(0)),
            (&["+", "-", "+"], Some(1), 2, Use(2)),
            // The one after the active one, around the end.
            (&["+", "+", "60"], None, 2, Use(0)),
            (&["60", "60", "+"], None, 0, Use(2)),
            // Over.
            (&["0", "+"], Some(0), 1, Use(0)),
            (&["-5", "+"], Some(0), 1, Use(0)),
            // All limited: the first that comes back.
            (&["60", "20", "300"], Some(2), 0, WaitUntil(at(20))),
            (&["60", "-", "300"], None, 1, WaitUntil(at(60))),
            // One that can be used is asked whatever it said.
            (&["60"], None, 0, Use(0)),
            (&["60", "-"], None, 0, Use(0)),
            (&["-", "60"], Some(0), 0, Use(1)),
            (&["-", "-"], None, 0, NoneUsable),
            (&[], None, 0, NoneUsable),
            (&["+"], None, 7, Use(0)),
        ] {
            assert_eq!(choose(accounts, kept, active), expected, "{accounts:?} {kept:?} {active}");
        }
    }

    /// The pause in seconds after this cause, for the nth time in a row.
    fn pause(cause: CooldownCause, retry_after: Option<u64>, nth: u32) -> i64 {
        let before = (nth > 1).then(|| Cooldown { cause, failures: nth - 1, ..cooling(-1) });
        let retry_after = retry_after.map(Duration::from_secs);
        let cooldown = cooldown_after(cause, retry_after, before.as_ref(), 0.5, at(0));
        assert_eq!((cooldown.since, cooldown.failures), (at(0), nth));
        cooldown.until.duration_since(at(0)).as_secs()
    }

    #[test]
    fn each_cause_has_its_pause() {
        use CooldownCause::{Overloaded, QuotaUsedUp, RateLimited, Refused, ServerError, Unreachable};
        for (cause, retry_after, nth, seconds) in [
            (RateLimited, None, 1, 30),
            (RateLimited, Some(7), 1, 7),
            (RateLimited, Some(0), 1, 2),
            (RateLimited, Some(10_000_000), 1, 7200),
            (QuotaUsedUp, None, 1, 60),
            (QuotaUsedUp, None, 2, 300),
            (QuotaUsedUp, None, 3, 1800),
            (QuotaUsedUp, None, 4, 7200),
            (QuotaUsedUp, None, 5, 7200),
            (QuotaUsedUp, None, u32::MAX, 7200),
            (QuotaUsedUp, Some(10), 1, 10),
            (QuotaUsedUp, Some(0), 1, 2),
            (QuotaUsedUp, Some(4000), 2, 300),
            (Overloaded, None, 1, 45),
            (Overloaded, Some(90), 1, 90),
            (ServerError, None, 1, 20),
            (ServerError, None, 9, 20),
            (Unreachable, None, 1, 15),
            (Refused, None, 1, 60),
        ] {
            assert_eq!(pause(cause, retry_after, nth), seconds, "{cause:?} {retry_after:?} {nth}");
        }
        let overloaded = |luck| {
            let cooldown = cooldown_after(Overloaded, None, None, luck, at(0));
            cooldown.until.duration_since(at(0)).as_secs()
        };
        assert_eq!((overloaded(0.0), overloaded(1.0)), (30, 60));
    }

    #[test]
    fn what_failed_long_ago_or_for_another_cause_does_not_count() {
        let before = Cooldown { cause: CooldownCause::QuotaUsedUp, failures: 3, ..cooling(-1) };
        let again = |cause, now| cooldown_after(cause, None, Some(&before), 0.5, now).failures;
        assert_eq!(again(CooldownCause::QuotaUsedUp, at(0)), 4);
        assert_eq!(again(CooldownCause::QuotaUsedUp, at(3598)), 4);
        assert_eq!(again(CooldownCause::QuotaUsedUp, at(3599)), 1);
        assert_eq!(again(CooldownCause::RateLimited, at(0)), 1);
        // The clock was set back.
        assert_eq!(again(CooldownCause::QuotaUsedUp, at(-11)), 1);
    }

    #[test]
    fn an_account_is_tried_again_when_its_allowance_should_be_whole() {
        let cooldown = cooldown_after(CooldownCause::QuotaUsedUp, None, None, 0.5, at(0));
        let told = |resets_at| with_reset_time(cooldown, at(resets_at));
        assert_eq!((told(20).until, told(20).resets_at), (at(20), Some(at(20))));
        assert_eq!(told(9000).until, at(60));
        // A time that was over already is none.
        assert_eq!((told(-5), told(0)), (cooldown, cooldown));
        assert_eq!(told(1).until, at(1));
        // It was tried before that time, and Kimi has not changed its mind.
        let again = cooldown_after(CooldownCause::QuotaUsedUp, None, Some(&told(90)), 0.5, at(60));
        assert_eq!((again.until, again.resets_at, again.failures), (at(90), Some(at(90)), 2));
    }

    #[test]
    fn another_trouble_never_shortens_a_cooldown_that_is_on() {
        let used_up = Cooldown { cause: CooldownCause::QuotaUsedUp, failures: 4, ..cooling(7000) };
        let after = |cause, before: &Cooldown, now| cooldown_after(cause, None, Some(before), 0.5, now);
        assert_eq!(after(CooldownCause::ServerError, &used_up, at(0)), used_up);
        assert_eq!(after(CooldownCause::ServerError, &used_up, at(6990)).until, at(7010));
        assert_eq!(after(CooldownCause::ServerError, &used_up, at(7000)).cause, CooldownCause::ServerError);
        let failed = Cooldown { cause: CooldownCause::ServerError, ..cooling(20) };
        assert_eq!(after(CooldownCause::QuotaUsedUp, &failed, at(0)).until, at(60));
    }

    #[test]
    fn only_an_answer_to_a_later_request_ends_a_cooldown() {
        let cooldown = Cooldown { since: at(0), ..cooling(60) };
        for (asked_at, ends) in [(-1, false), (-599, false), (0, true), (61, true), (-601, true)] {
            assert_eq!(is_ended_by_answer(&cooldown, at(asked_at)), ends, "{asked_at}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_two_hours(
            cause in proptest::sample::select(&CooldownCause::ALL[..]),
            retry_after in proptest::option::of(any::<u64>()),
            failures in any::<u32>(),
            luck in any::<f64>(),
        ) {
            let before = Cooldown { cause, failures, ..cooling(-1) };
            let retry_after = retry_after.map(Duration::from_secs);
            let cooldown = cooldown_after(cause, retry_after, Some(&before), luck, at(0));
            let pause = cooldown.until.duration_since(at(0)).as_secs();
            prop_assert!((2..=7200).contains(&pause), "{pause}");
        }

        #[test]
        fn whoever_is_chosen_can_be_used(
            accounts in proptest::collection::vec(proptest::sample::select(&["+", "-", "60", "0", "-3"][..]), 0..10),
            kept in 0_usize..10,
            active in 0_usize..10,
        ) {
            let kept = Some(kept).filter(|kept| *kept < accounts.len());
            match choose(&accounts, kept, active) {
                AccountChoice::Use(at) => {
                    let usable = accounts.iter().filter(|account| **account != "-").count();
                    prop_assert!(accounts[at] != "-" && (usable == 1 || accounts[at] != "60"));
                }
                AccountChoice::WaitUntil(until) => prop_assert_eq!(until, at(60)),
                AccountChoice::NoneUsable => prop_assert!(accounts.iter().all(|account| *account == "-")),
            }
        }
    }
}
