//! What the Kimi API says of the account: whose it is and what is left of its plan (`GET /usages`, read as kimi-cli
//! 1.51.0 reads it, `ui/shell/usage.py`); and what an access token says of itself. Nothing that must be right may rest on
//! either: the shape is not promised, and a token's claims are not checked.

use anyhow::{Result, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use super::web::{Said, Web, client_headers};
use crate::types::Secret;

/// Most limits that are shown, and characters of a name that a server chose.
const LIMITS_MAX: usize = 10;
const NAME_MAX: usize = 60;
/// Claims that name an account, the most telling first: OpenID's, then those that are not promised at all.
const NAMING_CLAIMS: [&str; 6] = ["email", "name", "preferred_username", "user_id", "userId", "sub"];

/// What is left of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The account's id, where it is told.
    pub account: Option<String>,
    /// The plan's name, where it is told.
    pub plan: Option<String>,
    pub limits: Vec<Limit>,
}

/// One of a plan's limits, in the plan's own units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is for, such as `5 h`; the plan's own has none.
    pub name: Option<String>,
    pub used: u64,
    pub limit: u64,
    pub resets_at: Option<Timestamp>,
}

impl Limit {
    pub fn left_percent(&self) -> u64 {
        let left = self.limit.saturating_sub(self.used);
        left.saturating_mul(100).checked_div(self.limit).unwrap_or(0)
    }
}

/// Asks the Kimi API; `base` is `KIMI_CODE_BASE_URL`.
///
/// # Errors
/// It cannot be reached, or says nothing of it.
pub async fn quota(base: &str, token: &Secret) -> Result<Quota> {
    let said = Web::new(base).get("/usages", token, client_headers()).await?;
    match said.status {
        200 => Ok(read(&said)),
        401 => bail!("it does not accept the login (HTTP 401)"),
        status => bail!("it answers HTTP {status}"),
    }
}

fn read(said: &Said) -> Quota {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    let user = &body["user"];
    let all = limit(&body["usage"], None);
    let others = body["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let windows = others.iter().filter_map(|item| {
        let detail = if item["detail"].is_object() { &item["detail"] } else { item };
        limit(detail, window(&item["window"]))
    });
    Quota {
        account: name(&user["userId"]),
        plan: name(&user["membership"]["level"]),
        limits: all.into_iter().chain(windows).take(LIMITS_MAX).collect(),
    }
}

fn limit(value: &Value, window: Option<String>) -> Option<Limit> {
    let limit = number(&value["limit"]);
    let used = number(&value["used"])
        .or_else(|| Some(limit?.saturating_sub(number(&value["remaining"])?)))
        .or(limit.map(|_| 0))?;
    let named = ["name", "title"].iter().find_map(|field| name(&value[*field]));
    let resets = ["resetTime", "reset_time", "resetAt", "reset_at"];
    Some(Limit {
        name: named.or(window),
        used,
        limit: limit.unwrap_or(0),
        resets_at: resets.iter().find_map(|field| value[*field].as_str()?.parse().ok()),
    })
}

/// Such as `5 h`.
fn window(value: &Value) -> Option<String> {
    let duration = number(&value["duration"]).filter(|duration| *duration > 0)?;
    let unit = value["timeUnit"].as_str().unwrap_or_default();
    Some(match unit {
        _ if unit.contains("MINUTE") && duration.is_multiple_of(60) => format!("{} h", duration / 60),
        _ if unit.contains("MINUTE") => format!("{duration} min"),
        _ if unit.contains("HOUR") => format!("{duration} h"),
        _ if unit.contains("DAY") => format!("{duration} d"),
        _ => format!("{duration} s"),
    })
}

/// A whole number, also where it is written as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn name(value: &Value) -> Option<String> {
    let text =
        value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Whose login a token says that it is, where it is a JSON Web Token (RFC 7519) and says so. Nobody has checked it.
pub fn claimed_account(token: &Secret) -> Option<String> {
    let mut parts = token.reveal().split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    NAMING_CLAIMS.iter().find_map(|claim| name(&claims[*claim]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota_of(body: &str) -> Quota {
        read(&Said { status: 200, body: body.as_bytes().to_vec() })
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
        let limit = |name: Option<&str>, used, limit, resets: Option<&str>| Limit {
            name: name.map(str::to_owned),
            used,
            limit,
            resets_at: resets.map(|at| at.parse().unwrap()),
        };
        assert_eq!(
            quota,
            Quota {
                account: Some("u1".to_owned()),
                plan: Some("LEVEL_BASIC".to_owned()),
                limits: vec![
                    limit(None, 12, 100, Some("2026-11-28T00:00:00Z")),
                    limit(Some("5 h"), 60, 100, None),
                    limit(Some("images"), 0, 7, Some("2025-12-23T05:24:18.443553353Z")),
                ],
            }
        );
        assert_eq!(quota.limits.iter().map(Limit::left_percent).collect::<Vec<_>>(), [88, 40, 100]);
        let odd = Limit { name: None, used: 9, limit: 0, resets_at: None };
        assert_eq!((odd.left_percent(), Limit { limit: 5, ..odd }.left_percent()), (0, 0));
    }

    #[test]
    fn a_token_that_says_whose_it_is_is_read_and_any_other_is_not() {
        let token =
            |claims: &str| Secret::new(format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims)));
        assert_eq!(
            claimed_account(&token(r#"{"sub": "u1", "email": "ana@example.com"}"#)),
            Some("ana@example.com".to_owned())
        );
        assert_eq!(claimed_account(&token(r#"{"user_id": 17}"#)), Some("17".to_owned()));
        for other in ["at-123", "a.b.c", "a.b", "", "..", "e30.e30.e30.e30"] {
            assert_eq!(claimed_account(&Secret::new(other)), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(body in "\\PC{0,80}", field in "(usage|limits|user)", value in "[\\[\\]{}\":,0-9a-z]{0,40}") {
            quota_of(&body);
            quota_of(&format!("{{\"{field}\": {value}}}"));
            claimed_account(&Secret::new(body));
        }
    }
}
