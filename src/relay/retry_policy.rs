//! The retry policy for the Kimi API, with its backoff: what follows when the API gives no good answer. Pure
//! decisions over what it said and what was tried.
//!
//! Engines ask again by themselves on statuses such as 429 and 503, many times and unseen, and say little of
//! why they gave up (measured: kimi-cli 1.51.0 makes nine requests of one). So the relay waits in
//! their place, and what cannot be mended reaches them with a status that they take as final; the session
//! learns the cause from the egress proxy.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::api_call::ApiRoute;
use crate::api_error::ApiError;
use crate::backoff::exponential_backoff;
use crate::types::{Authorization, CooldownCause, Trouble};

/// Longest time that one request waits in all. Node's fetch gives a request up that has no answer after 5
/// minutes, the Python client after 10.
const WAITS_MAX: Duration = Duration::from_secs(4 * 60);
/// The first pause if the API does not say how long; it doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// Shortest pause, whatever the API says: "0" must not become a storm.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// How often a request is asked again that the API could not answer without saying why (HTTP 500 and the
/// like).
const ERROR_TRIES: u32 = 2;
/// How often a connection that was never made is tried again, and the pause before the first time; it doubles
/// each time, which makes seven seconds in all. Longer gaps are for the session to bridge.
const CONNECT_TRIES: u32 = 4;
const FIRST_CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What the relay does next about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Have the login renewed, then ask again.
    Renew,
    /// Ask again after this pause; until then this is the trouble.
    Wait(Duration, Trouble),
    /// The engine gets the answer as it came.
    Pass(Trouble),
    /// The engine gets an answer after which it does not ask again by itself.
    GiveUp(Trouble),
}

/// What was tried already for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryState {
    /// Whether the login that it is asked with was renewed for it.
    pub has_renewed: bool,
    pub pauses: u32,
    /// Since it was asked first.
    pub waited: Duration,
}

/// What follows an answer that is no success. `retry_after` is how long the API wants to be left alone.
pub fn decide_after_error(
    route: ApiRoute,
    status: StatusCode,
    api_error: &ApiError,
    retry_after: Option<Duration>,
    login: &Authorization,
    tried: &RetryState,
) -> RetryDecision {
    if let Some(trouble) = api_error.account_refusal(status.as_u16()) {
        // Engines take 403 as final, and would ask again after the others.
        return if status == StatusCode::FORBIDDEN && trouble != Trouble::QuotaUsedUp {
            RetryDecision::Pass(trouble)
        } else {
            RetryDecision::GiveUp(trouble)
        };
    }
    match status.as_u16() {
        // All chats share the login: only what each turn needs can say that it is bad.
        401 if route == ApiRoute::OtherEndpoint => RetryDecision::Pass(Trouble::NotLoggedIn),
        401 if !tried.has_renewed && matches!(login, Authorization::Login(_)) => RetryDecision::Renew,
        401 => RetryDecision::GiveUp(Trouble::NotLoggedIn),
        404 => RetryDecision::Pass(Trouble::ModelRefused),
        413 => RetryDecision::Pass(Trouble::TooLarge),
        429 => backoff_or_give_up(retry_after, tried, Trouble::RateLimited),
        503 | 529 => backoff_or_give_up(retry_after, tried, Trouble::Overloaded),
        400..=499 => RetryDecision::Pass(Trouble::BadRequest),
        500.. if tried.pauses < ERROR_TRIES => backoff_or_give_up(retry_after, tried, Trouble::Overloaded),
        500.. => RetryDecision::GiveUp(Trouble::Overloaded),
        // A redirect, which is not followed.
        _ => RetryDecision::Pass(Trouble::Internal),
    }
}

/// What follows in place of a decision if the request was for a model that its engine is not configured with:
/// whatever Kimi says then is about this one request, and nothing waits for it.
pub fn decide_for_another_model(decision: RetryDecision) -> RetryDecision {
    match decision {
        RetryDecision::Renew => RetryDecision::Renew,
        RetryDecision::Pass(_) => RetryDecision::Pass(Trouble::BadRequest),
        RetryDecision::Wait(..) | RetryDecision::GiveUp(_) => RetryDecision::GiveUp(Trouble::BadRequest),
    }
}

/// Why the account that gave this answer is left alone for a while, if that is about the account rather than the
/// request.
pub fn cooldown_cause(decision: RetryDecision, status: StatusCode) -> Option<CooldownCause> {
    let trouble = match decision {
        RetryDecision::Renew => return None,
        RetryDecision::Wait(_, trouble) | RetryDecision::Pass(trouble) | RetryDecision::GiveUp(trouble) => {
            trouble
        }
    };
    match trouble {
        Trouble::RateLimited => Some(CooldownCause::RateLimited),
        Trouble::QuotaUsedUp => Some(CooldownCause::QuotaUsedUp),
        Trouble::Overloaded if matches!(status.as_u16(), 503 | 529) => Some(CooldownCause::Overloaded),
        Trouble::Overloaded => Some(CooldownCause::ServerError),
        Trouble::Unreachable if matches!(decision, RetryDecision::Wait(..)) => {
            Some(CooldownCause::Unreachable)
        }
        Trouble::NotLoggedIn | Trouble::AccountEnded | Trouble::NoMembership => Some(CooldownCause::Refused),
        // About this request, about this machine, or about the program that asks; of `Refused` nobody knows, and
        // a program that Kimi does not serve must not cost the chats their account.
        Trouble::Unreachable
        | Trouble::Refused
        | Trouble::ClientRefused
        | Trouble::ModelRefused
        | Trouble::TooLarge
        | Trouble::BadRequest
        | Trouble::EmptyAnswer
        | Trouble::Internal
        | Trouble::NoDocker
        | Trouble::NoImage
        | Trouble::NoSpace
        | Trouble::DiskShare
        | Trouble::SystemLimit
        | Trouble::LaunchFailed
        | Trouble::NeverReady
        | Trouble::EngineDied
        | Trouble::EngineGarbage
        | Trouble::TurnTooLong
        | Trouble::NoModel
        | Trouble::Unsupported => None,
    }
}

/// What follows when there was no connection at all, so that nothing was asked yet.
pub fn decide_after_connect_failure(tried: &RetryState) -> RetryDecision {
    if tried.pauses >= CONNECT_TRIES {
        return RetryDecision::GiveUp(Trouble::Unreachable);
    }
    let pause = exponential_backoff(FIRST_CONNECT_PAUSE, tried.pauses, LONGEST_PAUSE);
    backoff_or_give_up(Some(pause), tried, Trouble::Unreachable)
}

/// The trouble behind an error in the middle of an answer.
pub fn classify_stream_error(api_error: &ApiError) -> Trouble {
    if api_error.is_quota_used_up() {
        return Trouble::QuotaUsedUp;
    }
    match api_error.kind.as_str() {
        "rate_limit_reached_error" => Trouble::RateLimited,
        "engine_overloaded_error" | "server_error" => Trouble::Overloaded,
        _ => Trouble::Internal,
    }
}

/// How long the API wants to be left alone: seconds, a date (RFC 9110, 10.2.3), or the milliseconds of
/// `retry-after-ms`, which some servers send instead.
pub fn parse_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let text = text("retry-after")?;
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// A pause, unless it would take the request over its time.
fn backoff_or_give_up(asked_for: Option<Duration>, tried: &RetryState, trouble: Trouble) -> RetryDecision {
    let pause = match asked_for {
        Some(pause) => pause.max(SHORTEST_PAUSE),
        None => exponential_backoff(FIRST_PAUSE, tried.pauses, LONGEST_PAUSE),
    };
    if tried.waited.saturating_add(pause) <= WAITS_MAX {
        RetryDecision::Wait(pause, trouble)
    } else {
        RetryDecision::GiveUp(trouble)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Secret;

    fn login() -> Authorization {
        Authorization::Login(Secret::new("t"))
    }

    fn api_error(kind: &str, reason: &str) -> ApiError {
        ApiError { kind: kind.to_owned(), reason: reason.to_owned() }
    }

    fn judged(
        status: u16,
        kind: &str,
        reason: &str,
        retry_after: Option<u64>,
        tried: &RetryState,
    ) -> RetryDecision {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = retry_after.map(Duration::from_secs);
        decide_after_error(ApiRoute::Model, status, &api_error(kind, reason), retry_after, &login(), tried)
    }

    #[test]
    fn each_refusal_has_its_consequence() {
        let first = RetryState::default();
        for (status, kind, reason, retry_after, expected) in [
            (401, "", "", None, RetryDecision::Renew),
            (403, "access_terminated_error", "no", None, RetryDecision::Pass(Trouble::Refused)),
            (403, "", "only available for Coding Agents", None, RetryDecision::Pass(Trouble::ClientRefused)),
            (403, "", "Access terminated.", None, RetryDecision::Pass(Trouble::AccountEnded)),
            (402, "", "", None, RetryDecision::GiveUp(Trouble::NoMembership)),
            (
                403,
                "",
                "You have exceeded your current quota",
                None,
                RetryDecision::GiveUp(Trouble::QuotaUsedUp),
            ),
            (429, "exceeded_current_quota_error", "", Some(1), RetryDecision::GiveUp(Trouble::QuotaUsedUp)),
            (429, "", "You have reached your usage limit", None, RetryDecision::GiveUp(Trouble::QuotaUsedUp)),
            (
                429,
                "rate_limit_reached_error",
                "slow down",
                Some(7),
                RetryDecision::Wait(Duration::from_secs(7), Trouble::RateLimited),
            ),
            (429, "", "", None, RetryDecision::Wait(FIRST_PAUSE, Trouble::RateLimited)),
            (429, "", "", Some(0), RetryDecision::Wait(SHORTEST_PAUSE, Trouble::RateLimited)),
            (429, "", "", Some(241), RetryDecision::GiveUp(Trouble::RateLimited)),
            (503, "", "", Some(240), RetryDecision::Wait(WAITS_MAX, Trouble::Overloaded)),
            (529, "", "", Some(u64::MAX), RetryDecision::GiveUp(Trouble::Overloaded)),
            (404, "resource_not_found_error", "", None, RetryDecision::Pass(Trouble::ModelRefused)),
            (413, "", "", None, RetryDecision::Pass(Trouble::TooLarge)),
            (400, "", "quota", None, RetryDecision::Pass(Trouble::BadRequest)),
            (500, "", "", None, RetryDecision::Wait(FIRST_PAUSE, Trouble::Overloaded)),
            (502, "", "", Some(241), RetryDecision::GiveUp(Trouble::Overloaded)),
            (307, "", "", None, RetryDecision::Pass(Trouble::Internal)),
        ] {
            assert_eq!(
                judged(status, kind, reason, retry_after, &first),
                expected,
                "{status} {kind} {reason}"
            );
        }
    }

    #[test]
    fn what_is_said_of_another_model_is_about_its_request() {
        let first = RetryState::default();
        let (pass, give_up) =
            (RetryDecision::Pass(Trouble::BadRequest), RetryDecision::GiveUp(Trouble::BadRequest));
        for (status, kind, expected) in [
            (400, "", pass),
            (401, "", RetryDecision::Renew),
            (402, "", give_up),
            (403, "access_terminated_error", pass),
            (403, "exceeded_current_quota_error", give_up),
            (404, "", pass),
            (413, "", pass),
            (429, "rate_limit_reached_error", give_up),
            (429, "exceeded_current_quota_error", give_up),
            (500, "", give_up),
            (503, "", give_up),
            (529, "", give_up),
        ] {
            let decision = decide_for_another_model(judged(status, kind, "", Some(1), &first));
            assert_eq!(decision, expected, "{status} {kind}");
        }
        let renewed = RetryState { has_renewed: true, ..first };
        assert_eq!(decide_for_another_model(judged(401, "", "", None, &renewed)), give_up);
    }

    #[test]
    fn a_login_is_renewed_once_and_a_key_never() {
        let renewed = RetryState { has_renewed: true, ..RetryState::default() };
        assert_eq!(judged(401, "", "", None, &renewed), RetryDecision::GiveUp(Trouble::NotLoggedIn));
        let key = Authorization::ApiKey(Secret::new("k"));
        let decision = |route, login| {
            decide_after_error(
                route,
                StatusCode::UNAUTHORIZED,
                &api_error("", ""),
                None,
                login,
                &RetryState::default(),
            )
        };
        assert_eq!(decision(ApiRoute::Model, &key), RetryDecision::GiveUp(Trouble::NotLoggedIn));
        assert_eq!(decision(ApiRoute::OtherEndpoint, &login()), RetryDecision::Pass(Trouble::NotLoggedIn));
    }

    #[test]
    fn an_error_without_a_reason_is_tried_a_few_times() {
        let tried = |pauses| RetryState { pauses, ..RetryState::default() };
        assert!(matches!(judged(500, "", "", None, &tried(1)), RetryDecision::Wait(..)));
        assert_eq!(judged(500, "", "", None, &tried(2)), RetryDecision::GiveUp(Trouble::Overloaded));
        assert!(matches!(judged(503, "", "", None, &tried(2)), RetryDecision::Wait(..)));
    }

    #[test]
    fn a_pause_is_read_in_every_form() {
        let now: Timestamp = "2026-11-28T00:00:00Z".parse().unwrap();
        for (name, value, expected) in [
            ("retry-after", "7", Some(7_000)),
            ("retry-after", " 1.5 ", Some(1_500)),
            ("retry-after-ms", "1500", Some(1_500)),
            ("retry-after", "Sat, 28 Nov 2026 00:01:00 GMT", Some(60_000)),
            ("retry-after", "Fri, 27 Nov 2026 00:01:00 GMT", Some(0)),
            ("retry-after", "-1", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1e300", None),
            ("retry-after", "soon", None),
            ("x-other", "7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let pause = parse_retry_after(&headers, now);
            assert_eq!(pause, expected.map(Duration::from_millis), "{name}: {value}");
        }
    }

    proptest! {
        /// However an API behaves, a request comes to an end within its time.
        #[test]
        fn no_request_waits_for_ever(answers in prop::collection::vec((any::<u16>(), prop::option::of(0u64..1000)), 1..50)) {
            let mut tried = RetryState::default();
            for (status, retry_after) in answers.iter().cycle().take(2_000) {
                let status = 400 + status % 200;
                match judged(status, "", "", *retry_after, &tried) {
                    RetryDecision::Renew => {
                        prop_assert!(!tried.has_renewed);
                        tried.has_renewed = true;
                    }
                    RetryDecision::Wait(pause, _) => {
                        tried.pauses += 1;
                        tried.waited += pause;
                    }
                    RetryDecision::Pass(_) | RetryDecision::GiveUp(_) => return Ok(()),
                }
                prop_assert!(tried.waited <= WAITS_MAX && tried.pauses <= 480);
            }
            prop_assert!(false, "it never ended");
        }
    }
}
