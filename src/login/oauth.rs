//! Kimi's login server: the device flow (RFC 8628) and the refresh (RFC 6749, 6), as kimi-cli 1.51.0 speaks
//! them (`auth/oauth.py`). What an answer means is decided by pure functions of its status and body.
//!
//! An answer may hold tokens, and a server may say anything. So only the error codes that are known here are
//! passed on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::http::{HttpAnswer, KimiClient, device_headers};
use super::login_file::{Tokens, is_sendable_token};
use super::stand_in::load_or_create_device_id;
use crate::backoff::exponential_backoff;
use crate::types::Secret;

/// kimi-cli's client id: the login is for it.
const CLIENT_ID: &str = "17e5f671-d194-4dfb-9706-5516cb48c098";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How often the server is asked if it does not say (RFC 8628, 3.2).
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// How much longer the pauses become each time that the server asks for it (RFC 8628, 3.5).
const SLOWER_BY: Duration = Duration::from_secs(5);
/// Longest pause while the server is in trouble.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a code is valid if the server does not say, and at most.
const USUAL_PATIENCE: Duration = Duration::from_secs(15 * 60);
const PATIENCE_MAX: Duration = Duration::from_secs(60 * 60);
/// The life of a token if the server does not say: that of real ones.
const USUAL_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Longest code or address that is shown, in bytes.
const SHOWN_MAX: usize = 512;
/// The errors of RFC 6749 (5.2) and RFC 8628 (3.5): the words that may go into a log, since others could be
/// anything.
const KNOWN_ERRORS: [&str; 12] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "authorization_pending",
    "slow_down",
    "access_denied",
    "expired_token",
    "server_error",
    "temporarily_unavailable",
];

/// The login server, asked as one device.
#[derive(Debug)]
pub struct LoginServer {
    web: KimiClient,
    /// The file of the device's id, made at the first request if it is missing.
    device: PathBuf,
}

/// What a person takes to Kimi's page, and what this program asks with meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// To be compared with what the page shows, or typed in there.
    pub user_code: String,
    /// Kimi's page, with the code filled in if the server can do that.
    pub page_with_code: String,
    pub device_code: Secret,
    pub good_for: Duration,
    pub interval: Duration,
}

/// Tokens as the server has just given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenGrant {
    access: Secret,
    refresh: Option<Secret>,
    lifetime: Duration,
    scope: Option<String>,
    token_type: Option<String>,
}

/// How far a device's login has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PollResult {
    Granted(TokenGrant),
    /// Nobody has agreed yet.
    Pending,
    /// Nobody has agreed yet, and we ask too often.
    SlowDown,
    Expired,
    Denied,
    /// The server is in trouble, or cannot be reached. It may answer next time.
    Failed(String),
    /// The server refuses.
    Refused(String),
}

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    Granted(TokenGrant),
    /// This refresh token is not valid any more (RFC 6749, 5.2: `invalid_grant`).
    InvalidGrant,
    /// HTTP 401 or 403, by the login server or something on the way, without a word that this is final.
    Unauthorized,
    /// It may work another time.
    Failed(String),
}

impl LoginServer {
    /// `host` has no slash at its end; `device` is the file of the device's id.
    pub fn new(host: impl Into<String>, device: PathBuf) -> Self {
        Self { web: KimiClient::new(host), device }
    }

    pub fn host(&self) -> &str {
        self.web.base_url()
    }

    /// Asks for a code.
    ///
    /// # Errors
    /// The server cannot be reached, or gives no code.
    pub async fn request_device_code(&self) -> Result<DeviceCode> {
        let fields = [("client_id", CLIENT_ID)];
        let said = self
            .web
            .post_form("/api/oauth/device_authorization", &fields, self.device_request_headers()?)
            .await?;
        parse_device_code(&said).map_err(|why| anyhow::anyhow!(why))
    }

    /// Asks whether somebody has agreed.
    pub async fn poll_device_grant(&self, code: &DeviceCode) -> PollResult {
        let device_code = code.device_code.expose_secret();
        match self.post_token_request(&[("device_code", device_code), ("grant_type", DEVICE_GRANT)]).await {
            Ok(said) => parse_poll_answer(&said),
            Err(error) => PollResult::Failed(format!("{error:#}")),
        }
    }

    /// Gives a refresh token for new tokens. Whatever becomes of the answer, the server may have taken it.
    pub async fn refresh_access_token(&self, token: &Secret) -> RefreshResult {
        match self
            .post_token_request(&[("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())])
            .await
        {
            Ok(said) => parse_refresh_answer(&said),
            Err(error) => RefreshResult::Failed(format!("{error:#}")),
        }
    }

    async fn post_token_request(&self, fields: &[(&str, &str)]) -> Result<HttpAnswer> {
        let fields = [&[("client_id", CLIENT_ID)], fields].concat();
        self.web.post_form("/api/oauth/token", &fields, self.device_request_headers()?).await
    }

    fn device_request_headers(&self) -> Result<HeaderMap> {
        Ok(device_headers(&load_or_create_device_id(&self.device)?))
    }
}

impl TokenGrant {
    pub fn access_token(&self) -> &Secret {
        &self.access
    }

    /// What goes into the login file. `before` is the login that was refreshed, if it was a refresh.
    pub fn into_tokens(self, before: Option<&Tokens>, now: Timestamp) -> Tokens {
        let lifetime = SignedDuration::try_from(self.lifetime).unwrap_or(SignedDuration::MAX);
        let kept = |text: Option<String>, old: fn(&Tokens) -> &String, usual: &str| {
            text.unwrap_or_else(|| before.map_or_else(|| usual.to_owned(), |before| old(before).clone()))
        };
        Tokens {
            access: self.access,
            // If the server gives no new refresh token, the old one stays valid (RFC 6749, 6).
            refresh: self.refresh.or_else(|| before.and_then(|before| before.refresh.clone())),
            expires_at: now.saturating_add(lifetime).unwrap_or(Timestamp::MAX),
            lifetime: Some(self.lifetime),
            scope: kept(self.scope, |tokens| &tokens.scope, "kimi-code"),
            token_type: kept(self.token_type, |tokens| &tokens.token_type, "Bearer"),
        }
    }
}

/// When the server is asked next: as often as it allows, and less often while it is in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollBackoff {
    interval: Duration,
    failures: u32,
}

impl PollBackoff {
    pub fn new(interval: Duration) -> Self {
        Self { interval, failures: 0 }
    }

    /// The pause after an answer (RFC 8628, 3.5: five seconds more each time that it says `slow_down`, and
    /// longer ones while it cannot be reached).
    pub fn delay_after_answer(&mut self, answer: &PollResult) -> Duration {
        match answer {
            PollResult::Failed(_) => self.failures = self.failures.saturating_add(1),
            PollResult::SlowDown => {
                self.interval += SLOWER_BY;
                self.failures = 0;
            }
            PollResult::Granted(_)
            | PollResult::Pending
            | PollResult::Expired
            | PollResult::Denied
            | PollResult::Refused(_) => self.failures = 0,
        }
        exponential_backoff(self.interval, self.failures, self.interval.max(PAUSE_MAX))
    }
}

fn parse_device_code(said: &HttpAnswer) -> Result<DeviceCode, String> {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    if said.status != 200 {
        return Err(describe_http_error(said.status, &body));
    }
    let text = |name: &str| body[name].as_str().filter(|text| is_showable_word(text)).map(str::to_owned);
    let (Some(user_code), Some(device_code)) = (text("user_code"), text("device_code")) else {
        return Err("it answers without a code".to_owned());
    };
    let page =
        |name: &str| text(name).filter(|page| page.starts_with("https://") || page.starts_with("http://"));
    let Some(page_with_code) = page("verification_uri_complete").or_else(|| page("verification_uri")) else {
        return Err("it answers without an address".to_owned());
    };
    Ok(DeviceCode {
        user_code,
        page_with_code,
        device_code: Secret::new(device_code),
        good_for: parse_json_seconds(&body["expires_in"]).unwrap_or(USUAL_PATIENCE).min(PATIENCE_MAX),
        interval: parse_json_seconds(&body["interval"]).unwrap_or(USUAL_INTERVAL).min(PATIENCE_MAX),
    })
}

fn parse_poll_answer(said: &HttpAnswer) -> PollResult {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    match (said.status, body["error"].as_str()) {
        (200, None) => match parse_token_grant(&body) {
            Some(grant) => PollResult::Granted(grant),
            None => PollResult::Failed("it answers without a token".to_owned()),
        },
        (_, Some("authorization_pending")) => PollResult::Pending,
        (_, Some("slow_down")) => PollResult::SlowDown,
        (_, Some("expired_token")) => PollResult::Expired,
        (_, Some("access_denied")) => PollResult::Denied,
        (429 | 500.., _) => PollResult::Failed(describe_http_error(said.status, &body)),
        (_, Some(_)) => PollResult::Refused(describe_http_error(said.status, &body)),
        // These are not a login server's words: something on the way has answered.
        (_, None) => PollResult::Failed(describe_http_error(said.status, &body)),
    }
}

fn parse_refresh_answer(said: &HttpAnswer) -> RefreshResult {
    let body: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    match (said.status, body["error"].as_str()) {
        (200, None) => match parse_token_grant(&body) {
            Some(grant) => RefreshResult::Granted(grant),
            None => RefreshResult::Failed("it answers without a token".to_owned()),
        },
        (400..=499, Some("invalid_grant")) => RefreshResult::InvalidGrant,
        // Without a login server's words, something on the way has answered, and the login is as good as
        // before.
        (401 | 403, _) if !body["error"].is_null() => RefreshResult::Unauthorized,
        (status, _) => RefreshResult::Failed(describe_http_error(status, &body)),
    }
}

fn parse_token_grant(body: &Value) -> Option<TokenGrant> {
    let token = |name: &str| body[name].as_str().map(Secret::new).filter(is_sendable_token);
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    Some(TokenGrant {
        access: token("access_token")?,
        refresh: token("refresh_token"),
        lifetime: parse_json_seconds(&body["expires_in"]).unwrap_or(USUAL_LIFETIME),
        scope: text("scope"),
        token_type: text("token_type"),
    })
}

/// A number of seconds above zero, also if it is written as text.
fn parse_json_seconds(value: &Value) -> Option<Duration> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    Duration::try_from_secs_f64(number).ok().filter(|duration| !duration.is_zero())
}

/// A code or an address is one plain word.
fn is_showable_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= SHOWN_MAX && text.chars().all(|c| c.is_ascii_graphic())
}

fn describe_http_error(status: u16, body: &Value) -> String {
    let known = body["error"].as_str().filter(|code| KNOWN_ERRORS.contains(code));
    match known {
        Some(code) => format!("it answers HTTP {status}, {code}"),
        None => format!("it answers HTTP {status}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKENS: &str = r#"{"access_token": "canary-a", "refresh_token": "canary-r", "expires_in": 900, "scope": "kimi-code", "token_type": "Bearer"}"#;

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer { status, body: body.as_bytes().to_vec() }
    }

    fn tokens(body: &str, before: Option<&Tokens>) -> Tokens {
        let PollResult::Granted(grant) = parse_poll_answer(&answer(200, body)) else {
            panic!("{body} is granted")
        };
        grant.into_tokens(before, "2026-11-21T20:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_code_is_read_with_what_it_is_good_for() {
        let body = r#"{"user_code": "ABCD-1234", "device_code": "canary", "verification_uri": "https://k/x",
            "verification_uri_complete": "https://k/x?user_code=ABCD-1234", "expires_in": 1800, "interval": "2"}"#;
        let code = parse_device_code(&answer(200, body)).unwrap();
        assert_eq!(
            (code.user_code.as_str(), code.page_with_code.as_str()),
            ("ABCD-1234", "https://k/x?user_code=ABCD-1234")
        );
        assert_eq!((code.good_for.as_secs(), code.interval.as_secs()), (1800, 2));
        assert!(!format!("{code:?}").contains("canary"));

        let plain = parse_device_code(&answer(
            200,
            r#"{"user_code": "A", "device_code": "c", "verification_uri": "https://k/x", "expires_in": 1e9, "interval": -1}"#,
        ))
        .unwrap();
        assert_eq!((plain.page_with_code.as_str(), plain.interval), ("https://k/x", USUAL_INTERVAL));
        assert_eq!(plain.good_for, PATIENCE_MAX);
    }

    #[test]
    fn a_code_that_is_none_is_not_shown() {
        for (status, body, why) in [
            (200, "", "it answers without a code"),
            (
                200,
                r#"{"user_code": "A\u001b[2J", "device_code": "c", "verification_uri": "https://k"}"#,
                "it answers without a code",
            ),
            (
                200,
                r#"{"user_code": "A", "device_code": "c", "verification_uri": "javascript:1"}"#,
                "it answers without an address",
            ),
            (
                400,
                r#"{"error": "invalid_client", "error_description": "canary"}"#,
                "it answers HTTP 400, invalid_client",
            ),
            (502, "<html>canary", "it answers HTTP 502"),
        ] {
            assert_eq!(parse_device_code(&answer(status, body)), Err(why.to_owned()), "{body}");
        }
    }

    #[test]
    fn each_answer_about_a_code_means_one_thing() {
        let failed = |why: &str| PollResult::Failed(why.to_owned());
        for (status, error, expected) in [
            (400, "authorization_pending", PollResult::Pending),
            (400, "slow_down", PollResult::SlowDown),
            (400, "expired_token", PollResult::Expired),
            (400, "access_denied", PollResult::Denied),
            (200, "authorization_pending", PollResult::Pending),
            (400, "invalid_client", PollResult::Refused("it answers HTTP 400, invalid_client".to_owned())),
            (400, "canary", PollResult::Refused("it answers HTTP 400".to_owned())),
            (503, "server_error", failed("it answers HTTP 503, server_error")),
            (429, "canary", failed("it answers HTTP 429")),
        ] {
            let body = format!(r#"{{"error": "{error}", "error_description": "canary"}}"#);
            assert_eq!(parse_poll_answer(&answer(status, &body)), expected, "{status} {error}");
        }
        assert_eq!(parse_poll_answer(&answer(200, "<html>")), failed("it answers without a token"));
        assert_eq!(parse_poll_answer(&answer(302, "")), failed("it answers HTTP 302"));
        assert!(matches!(parse_poll_answer(&answer(200, TOKENS)), PollResult::Granted(_)));
    }

    #[test]
    fn each_answer_to_a_refresh_means_one_thing() {
        for (status, body, expected) in [
            (401, r#"{"error": "unauthorized"}"#, RefreshResult::Unauthorized),
            (403, r#"{"error": {"message": "no"}}"#, RefreshResult::Unauthorized),
            (401, "", RefreshResult::Failed("it answers HTTP 401".to_owned())),
            (403, "<h1>Blocked</h1>", RefreshResult::Failed("it answers HTTP 403".to_owned())),
            (400, r#"{"error": "invalid_grant"}"#, RefreshResult::InvalidGrant),
            (
                400,
                r#"{"error": "invalid_request"}"#,
                RefreshResult::Failed("it answers HTTP 400, invalid_request".to_owned()),
            ),
            (404, "", RefreshResult::Failed("it answers HTTP 404".to_owned())),
            (429, "", RefreshResult::Failed("it answers HTTP 429".to_owned())),
            (
                503,
                r#"{"error": "invalid_grant"}"#,
                RefreshResult::Failed("it answers HTTP 503, invalid_grant".to_owned()),
            ),
            (200, "{}", RefreshResult::Failed("it answers without a token".to_owned())),
            (
                200,
                r#"{"access_token": "a b"}"#,
                RefreshResult::Failed("it answers without a token".to_owned()),
            ),
        ] {
            assert_eq!(parse_refresh_answer(&answer(status, body)), expected, "{status} {body}");
        }
        let granted = parse_refresh_answer(&answer(200, TOKENS));
        assert!(matches!(granted, RefreshResult::Granted(_)));
        assert!(!format!("{granted:?}").contains("canary"), "{granted:?}");
    }

    #[test]
    fn what_an_answer_leaves_out_stays_as_it_was() {
        let first = tokens(TOKENS, None);
        assert_eq!(first.refresh, Some(Secret::new("canary-r")));
        assert_eq!(first.expires_at, "2026-11-21T20:15:00Z".parse().unwrap());
        let next = tokens(r#"{"access_token": "b"}"#, Some(&first));
        assert_eq!(
            (next.access.expose_secret(), &next.refresh, &next.scope),
            ("b", &first.refresh, &first.scope)
        );
        assert_eq!(next.lifetime, Some(USUAL_LIFETIME));
        let bare = tokens(r#"{"access_token": "b", "expires_in": "60"}"#, None);
        assert_eq!(
            (bare.refresh, bare.scope.as_str(), bare.token_type.as_str()),
            (None, "kimi-code", "Bearer")
        );
        assert_eq!(bare.lifetime, Some(Duration::from_secs(60)));
    }

    #[test]
    fn the_pauses_become_longer_as_the_server_wants_and_while_it_is_in_trouble() {
        let mut pacing = PollBackoff::new(Duration::from_secs(5));
        let failed = || PollResult::Failed(String::new());
        let answers = [
            (PollResult::Pending, 5),
            (PollResult::SlowDown, 10),
            (PollResult::Pending, 10),
            (failed(), 20),
            (failed(), 40),
            (failed(), 60),
            (failed(), 60),
            (PollResult::SlowDown, 15),
            (PollResult::Pending, 15),
        ];
        for (answer, seconds) in answers {
            assert_eq!(pacing.delay_after_answer(&answer).as_secs(), seconds, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange_and_no_token_is_shown(
            status in 100u16..600, noise in "\\PC{0,60}", field in "(error|access_token|refresh_token|expires_in|user_code)",
            value in "[\\[\\]{}\":,0-9a-z.eE-]{0,30}",
        ) {
            for body in [noise.clone(), format!("{{\"{field}\": {value}}}"), TOKENS.replace("900", &value), TOKENS.replace("Bearer", &noise)] {
                let said = answer(status, &body);
                let shown = format!("{:?} {:?} {:?}", parse_device_code(&said), parse_poll_answer(&said), parse_refresh_answer(&said));
                prop_assert!(!shown.contains("canary"), "{shown}");
            }
        }
    }
}
