//! What the Kimi API says of the account: whose it is and what is left of its plan (`GET /usages`); and what
//! an access token says of itself. Nothing that must be right may rest on either: the shape is not promised,
//! and nobody checks a token's claims.
//!
//! The answer has two shapes, at times both at once: `usage` and `limits` with amounts, which kimi-cli 1.51.0
//! reads (`ui/shell/usage.py`), and `usages` with shares, which is all that kimi-code 2.1.0 reads
//! (`managed-usage.ts`). If they contradict each other, both are shown.

use anyhow::{Result, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use super::http::{HttpAnswer, KimiClient, client_headers};
use crate::types::Secret;

/// Most limits that are shown, and characters of a name that a server chose.
const LIMITS_MAX: usize = 10;
const NAME_MAX: usize = 60;
/// The windows of `usages`: their fields, and what they are called here.
const WINDOWS: [(&str, &str); 4] = [
    ("limit_5h", "5 h"),
    ("limit_7d", "7 d"),
    ("limit_month_code", "month, for code"),
    ("limit_month_total", "month"),
];
/// The window that `usage` is about.
const PLAN_WINDOW: &str = "7 d";
/// Figures that are further apart than this, in hundredths of the whole, contradict each other: less is
/// rounding.
const ROUNDING: u64 = 1;
/// Claims that name an account, the most telling first: OpenID's, then those that are not promised at all.
const NAMING_CLAIMS: [&str; 6] = ["email", "name", "preferred_username", "user_id", "userId", "sub"];

/// What is left of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The account's id, if the API says it.
    pub account: Option<String>,
    /// The plan's name, if the API says it.
    pub plan: Option<String>,
    pub limits: Vec<QuotaLimit>,
}

/// One of a plan's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaLimit {
    /// What it is for, such as `5 h`; the plan's own may have none.
    pub name: Option<String>,
    /// What is left, in hundredths of the whole.
    pub left_percent: u64,
    /// In the plan's own units, if the API says them.
    pub amount: Option<QuotaAmount>,
    /// What is left according to another figure of the same answer, if that contradicts this one.
    pub contradicted_by: Option<u64>,
    pub resets_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaAmount {
    pub used: u64,
    pub limit: u64,
}

impl QuotaLimit {
    fn name_or_empty(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl QuotaAmount {
    fn left_percent(self) -> u64 {
        let left = u128::from(self.limit.saturating_sub(self.used)) * 100;
        left.checked_div(self.limit.into()).and_then(|left| left.try_into().ok()).unwrap_or(0)
    }
}

/// Asks the Kimi API; `base` is `KIMI_CODE_BASE_URL`.
///
/// # Errors
/// It cannot be reached, or says nothing about it.
pub async fn fetch_quota(base: &str, token: &Secret) -> Result<Quota> {
    let said = KimiClient::new(base).get_with_token("/usages", token, client_headers()).await?;
    match said.status {
        200 => Ok(parse_quota(&said)),
        401 => bail!("it does not accept the login (HTTP 401)"),
        status => bail!("it answers HTTP {status}"),
    }
}

fn parse_quota(said: &HttpAnswer) -> Quota {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    let user = &body["user"];
    let all = parse_amount_limit(&body["usage"], None);
    let others = body["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let windows = others.iter().filter_map(|item| {
        let detail = if item["detail"].is_object() { &item["detail"] } else { item };
        parse_amount_limit(detail, render_window_name(&item["window"]))
    });
    let mut limits: Vec<QuotaLimit> = all.into_iter().chain(windows).collect();
    for (field, window) in WINDOWS {
        if let Some(limit) = parse_ratio_limit(&body["usages"][field], window) {
            merge_quota_limit(&mut limits, limit);
        }
    }
    limits.truncate(LIMITS_MAX);
    Quota {
        account: parse_display_name(&user["userId"]),
        plan: parse_display_name(&user["membership"]["level"]),
        limits,
    }
}

/// Adds a limit to those that are known. One of them may be the same window in other words.
fn merge_quota_limit(limits: &mut Vec<QuotaLimit>, limit: QuotaLimit) {
    let same =
        limits.iter_mut().find(|known| known.name.as_deref().unwrap_or(PLAN_WINDOW) == limit.name_or_empty());
    match same {
        None => limits.push(limit),
        Some(known) if known.left_percent.abs_diff(limit.left_percent) > ROUNDING => {
            *known = QuotaLimit { contradicted_by: Some(known.left_percent), ..limit };
        }
        Some(known) => known.name = limit.name,
    }
}

/// A limit with a share: `{"used_ratio": 0.12, "reset_time": …}`.
fn parse_ratio_limit(value: &Value, window: &str) -> Option<QuotaLimit> {
    let ratio = &value["used_ratio"];
    let used =
        ratio.as_f64().or_else(|| ratio.as_str()?.trim().parse().ok()).filter(|used| used.is_finite())?;
    let left = ((1.0 - used).clamp(0.0, 1.0) * 100.0).round();
    Some(QuotaLimit {
        name: Some(window.to_owned()),
        left_percent: left as u64,
        amount: None,
        contradicted_by: None,
        resets_at: parse_reset_time(value),
    })
}

fn parse_amount_limit(value: &Value, window: Option<String>) -> Option<QuotaLimit> {
    let limit = parse_json_number(&value["limit"]);
    let used = parse_json_number(&value["used"])
        .or_else(|| Some(limit?.saturating_sub(parse_json_number(&value["remaining"])?)))
        .or(limit.map(|_| 0))?;
    let named = ["name", "title"].iter().find_map(|field| parse_display_name(&value[*field]));
    let amount = QuotaAmount { used, limit: limit.unwrap_or(0) };
    Some(QuotaLimit {
        name: named.or(window),
        left_percent: amount.left_percent(),
        amount: Some(amount),
        contradicted_by: None,
        resets_at: parse_reset_time(value),
    })
}

fn parse_reset_time(value: &Value) -> Option<Timestamp> {
    let names = ["resetTime", "reset_time", "resetAt", "reset_at"];
    names.iter().find_map(|field| value[*field].as_str()?.parse().ok())
}

/// Such as `5 h`.
fn render_window_name(value: &Value) -> Option<String> {
    let duration = parse_json_number(&value["duration"]).filter(|duration| *duration > 0)?;
    let unit = value["timeUnit"].as_str().unwrap_or_default();
    Some(match unit {
        _ if unit.contains("MINUTE") && duration.is_multiple_of(60) => format!("{} h", duration / 60),
        _ if unit.contains("MINUTE") => format!("{duration} min"),
        _ if unit.contains("HOUR") => format!("{duration} h"),
        _ if unit.contains("DAY") => format!("{duration} d"),
        _ => format!("{duration} s"),
    })
}

/// A whole number, also if it is written as text.
fn parse_json_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn parse_display_name(value: &Value) -> Option<String> {
    let text =
        value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The account that a token names, if it is a JSON Web Token (RFC 7519) and names one. Nobody has checked it.
pub fn parse_claimed_account(token: &Secret) -> Option<String> {
    let mut parts = token.expose_secret().split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    NAMING_CLAIMS.iter().find_map(|claim| parse_display_name(&claims[*claim]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota_of(body: &str) -> Quota {
        parse_quota(&HttpAnswer { status: 200, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn what_is_left_is_read_as_kimi_cli_reads_it() {
        let quota = quota_of(
            r#"{"user": {"userId": "u1", "region": "REGION_OVERSEA", "membership": {"level": "LEVEL_BASIC"}},
                "usage": {"limit": "100", "used": "12", "remaining": "88", "resetTime": "2026-11-28T00:00:00Z"},
                "limits": [
                    {"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}, "detail": {"limit": 100, "remaining": 40}},
                    {"limit": "7", "name": "images\n", "reset_at": "2025-12-23T05:24:18.443553353Z"},
                    {"detail": {}}, "?"]}"#,
        );
        let limit = |name: Option<&str>, used, limit, left_percent, resets: Option<&str>| QuotaLimit {
            name: name.map(str::to_owned),
            left_percent,
            amount: Some(QuotaAmount { used, limit }),
            contradicted_by: None,
            resets_at: resets.map(|at| at.parse().unwrap()),
        };
        assert_eq!(
            quota,
            Quota {
                account: Some("u1".to_owned()),
                plan: Some("LEVEL_BASIC".to_owned()),
                limits: vec![
                    limit(None, 12, 100, 88, Some("2026-11-28T00:00:00Z")),
                    limit(Some("5 h"), 60, 100, 40, None),
                    limit(Some("images"), 0, 7, 100, Some("2025-12-23T05:24:18.443553353Z")),
                ],
            }
        );
        let left = |limit| QuotaAmount { used: 9, limit }.left_percent();
        assert_eq!((left(0), left(5), left(18), left(u64::MAX)), (0, 0, 50, 99));
    }

    /// The windows of an answer with what is left of them, and by which other figure.
    fn windows(body: &str) -> Vec<(String, u64, Option<u64>)> {
        let limits = quota_of(body).limits.into_iter();
        limits
            .map(|limit| (limit.name_or_empty().to_owned(), limit.left_percent, limit.contradicted_by))
            .collect()
    }

    #[test]
    fn shares_are_read_as_kimi_code_reads_them() {
        let body = r#"{"usages": {
            "limit_5h": {"used_ratio": 0.125, "reset_time": "2026-11-28T00:00:00Z"}, "limit_7d": {"used_ratio": "1.2"},
            "limit_month_code": {"used_ratio": -1}, "limit_month_total": {"used_ratio": 0.5},
            "limit_year": {"used_ratio": 0.5}}}"#;
        let expected = [("5 h", 88), ("7 d", 0), ("month, for code", 100), ("month", 50)];
        assert_eq!(windows(body), expected.map(|(name, left)| (name.to_owned(), left, None)));
        let first = &quota_of(body).limits[0];
        assert_eq!((first.amount, first.resets_at), (None, Some("2026-11-28T00:00:00Z".parse().unwrap())));
        for ratio in ["null", "\"a\"", "1e999", "{}", "\"NaN\"", "\"inf\""] {
            assert_eq!(windows(&format!(r#"{{"usages": {{"limit_5h": {{"used_ratio": {ratio}}}}}}}"#)), []);
        }
    }

    #[test]
    fn figures_that_contradict_each_other_are_both_told() {
        let both = |used_5h: &str, used_7d: &str| {
            windows(&format!(
                r#"{{"usage": {{"limit": "100", "used": "12"}},
                    "limits": [{{"window": {{"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}}, "detail": {{"limit": 100, "used": 60}}}}],
                    "usages": {{"limit_5h": {{"used_ratio": {used_5h}}}, "limit_7d": {{"used_ratio": {used_7d}}}}}}}"#
            ))
        };
        let window = |name: &str, left, other| (name.to_owned(), left, other);
        assert_eq!(both("0.6", "0.125"), [window("7 d", 88, None), window("5 h", 40, None)]);
        assert_eq!(both("0.604", "0.9"), [window("7 d", 10, Some(88)), window("5 h", 40, None)]);
        assert_eq!(both("1", "0.1"), [window("7 d", 90, Some(88)), window("5 h", 0, Some(40))]);
    }

    #[test]
    fn a_token_that_says_whose_it_is_is_read_and_any_other_is_not() {
        let token =
            |claims: &str| Secret::new(format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims)));
        assert_eq!(
            parse_claimed_account(&token(r#"{"sub": "u1", "email": "ana@example.com"}"#)),
            Some("ana@example.com".to_owned())
        );
        assert_eq!(parse_claimed_account(&token(r#"{"user_id": 17}"#)), Some("17".to_owned()));
        for other in ["at-123", "a.b.c", "a.b", "", "..", "e30.e30.e30.e30"] {
            assert_eq!(parse_claimed_account(&Secret::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(body in "\\PC{0,80}", field in "(usage|limits|usages|user)", value in "[\\[\\]{}\":,0-9a-z]{0,40}") {
            quota_of(&body);
            quota_of(&format!("{{\"{field}\": {value}}}"));
            parse_claimed_account(&Secret::new(body));
        }
    }
}
