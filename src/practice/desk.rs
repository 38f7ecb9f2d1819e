//! Kimi's login server in small (RFC 8628, RFC 6749): gives out codes, tokens and refreshes, each refresh token good for
//! one use, and counts what was asked. Does what a test tells it, faults included. No I/O: an answer is a value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How the server gives out what it gives out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// How long an access token is good.
    pub lifetime: Duration,
    /// How often it may be asked whether somebody has agreed.
    pub interval: Duration,
    /// How long a device's code is good.
    pub codes_last: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(900),
            interval: Duration::from_secs(1),
            codes_last: Duration::from_secs(1800),
        }
    }
}

/// What the person at Kimi's page does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Agrees,
    Waits,
    Denies,
}

/// What happens to a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and nothing is given.
    Status(u16),
    /// `slow_down`.
    SlowDown,
    /// The code is too old.
    Expired,
    /// It is answered as it should be, this much later.
    Slow(Duration),
    /// The connection ends without an answer, and nothing is given.
    HangUp,
    /// The tokens are given: the old ones are worth nothing. Then the connection ends without an answer.
    HangUpAfter,
    /// It is answered with something else than tokens, and nothing is given.
    Nonsense,
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub device_codes: u64,
    pub polls: u64,
    /// Requests to refresh, granted or not.
    pub refreshes: u64,
    pub refreshes_granted: u64,
    /// Those of `refreshes` with a token that is worth nothing.
    pub refreshes_refused: u64,
    /// Requests to the model with a token that is not good.
    pub refused: u64,
}

/// An answer; none where the connection ends without one.
pub struct Said {
    pub status: StatusCode,
    pub body: Option<Value>,
    pub after: Duration,
}

/// The login server of a practice model, for whoever says what happens there. Clones are the same one.
#[derive(Clone, Debug)]
pub struct LoginDesk(Arc<Mutex<Desk>>);

impl LoginDesk {
    pub(super) fn new(name: u16, terms: Terms) -> Self {
        Self(Arc::new(Mutex::new(Desk::new(name, terms))))
    }

    /// A login as the server would give it to somebody who has agreed: kimi-cli's `kimi-code.json`, given out `age` ago.
    pub fn login_file(&self, now: Timestamp, age: Duration) -> String {
        self.desk().login_file(now, age)
    }

    /// What is to happen to the next requests for tokens, one after the other.
    pub fn at_next_requests(&self, faults: impl IntoIterator<Item = Fault>) {
        self.desk().faults.extend(faults);
    }

    /// What the person at Kimi's page does, from now on.
    pub fn person(&self, approval: Approval) {
        self.desk().approval = approval;
    }

    /// The login was ended at Kimi: no token that was given out so far is good any more.
    pub fn revoke_all(&self) {
        let mut desk = self.desk();
        desk.access.clear();
        desk.refresh.clear();
    }

    /// The access tokens that were given out so far are not good any more; refresh tokens are.
    pub fn expire_access(&self) {
        self.desk().access.clear();
    }

    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        self.desk().counts
    }

    /// Whether a login file's refresh token would be taken.
    pub fn would_refresh(&self, login_file: &str) -> bool {
        let login: Value = serde_json::from_str(login_file).unwrap_or_default();
        login["refresh_token"].as_str().is_some_and(|token| self.desk().refresh.contains(token))
    }

    /// `path` is what follows `/api/oauth/`.
    pub(super) fn answer(&self, path: &str, form: &Value) -> Said {
        self.desk().answer(path, form)
    }

    /// Whether an `Authorization` header is one to be answered; those that are not are counted.
    pub(super) fn knows(&self, authorization: Option<&str>) -> bool {
        self.desk().knows(authorization)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Desk {
    faults: VecDeque<Fault>,
    approval: Approval,
    counts: Counts,
    terms: Terms,
    /// Makes the tokens of one server different from those of another.
    name: u16,
    given: u64,
    access: BTreeMap<String, Instant>,
    refresh: BTreeSet<String>,
    /// Codes of devices, and until when they are good.
    codes: BTreeMap<String, Instant>,
}

impl Desk {
    fn new(name: u16, terms: Terms) -> Self {
        Self {
            faults: VecDeque::new(),
            approval: Approval::Agrees,
            counts: Counts::default(),
            terms,
            name,
            given: 0,
            access: BTreeMap::new(),
            refresh: BTreeSet::new(),
            codes: BTreeMap::new(),
        }
    }

    fn answer(&mut self, path: &str, form: &Value) -> Said {
        match path {
            "device_authorization" => self.device_code(),
            "token" => match form["grant_type"].as_str() {
                Some(DEVICE_GRANT) => self.poll(form),
                Some("refresh_token") => self.refresh(form),
                Some(_) | None => error("unsupported_grant_type"),
            },
            _ => said(StatusCode::NOT_FOUND, json!({})),
        }
    }

    fn knows(&mut self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|header| header.strip_prefix("Bearer "));
        let is_good =
            token.and_then(|token| self.access.get(token)).is_some_and(|until| *until > Instant::now());
        if !is_good {
            self.counts.refused += 1;
        }
        is_good
    }

    fn login_file(&mut self, now: Timestamp, age: Duration) -> String {
        let mut tokens = self.give(age);
        let left = self.terms.lifetime.as_secs_f64() - age.as_secs_f64();
        let expires_at = now.as_duration().as_secs_f64() + left;
        tokens["expires_at"] = json!(expires_at);
        tokens.to_string()
    }

    fn device_code(&mut self) -> Said {
        self.counts.device_codes += 1;
        if let Some(Fault::Status(_) | Fault::HangUp) = self.faults.front() {
            return self.fault().unwrap_or_else(|| error("server_error"));
        }
        self.given += 1;
        let device_code = format!("device-{}-{}", self.name, self.given);
        self.codes.insert(device_code.clone(), Instant::now() + self.terms.codes_last);
        let page = "https://www.kimi.com/code/authorize_device";
        said(
            StatusCode::OK,
            json!({
                "user_code": "ABCD-1234", "device_code": device_code, "verification_uri": page,
                "verification_uri_complete": format!("{page}?user_code=ABCD-1234"),
                "expires_in": self.terms.codes_last.as_secs_f64(),
                "interval": self.terms.interval.as_secs_f64(),
            }),
        )
    }

    fn poll(&mut self, form: &Value) -> Said {
        self.counts.polls += 1;
        if let Some(said) = self.fault() {
            return said;
        }
        let code = form["device_code"].as_str().unwrap_or_default();
        if self.codes.get(code).is_none_or(|until| *until <= Instant::now()) {
            return error("expired_token");
        }
        match self.approval {
            Approval::Waits => error("authorization_pending"),
            Approval::Denies => error("access_denied"),
            Approval::Agrees => {
                self.codes.remove(code);
                self.granted(Duration::ZERO)
            }
        }
    }

    fn refresh(&mut self, form: &Value) -> Said {
        self.counts.refreshes += 1;
        let token = form["refresh_token"].as_str().unwrap_or_default();
        let known = self.refresh.contains(token);
        let after = match self.faults.front() {
            Some(Fault::Slow(after)) => {
                let after = *after;
                self.faults.pop_front();
                after
            }
            Some(Fault::HangUpAfter) if known => {
                self.faults.pop_front();
                self.refresh.remove(token);
                self.counts.refreshes_granted += 1;
                self.give(Duration::ZERO);
                return Said { status: StatusCode::OK, body: None, after: Duration::ZERO };
            }
            Some(_) => return self.fault().unwrap_or_else(|| error("server_error")),
            None => Duration::ZERO,
        };
        if !self.refresh.remove(token) {
            self.counts.refreshes_refused += 1;
            let body = json!({
                "error": "invalid_grant",
                "error_description": format!("The provided authorization grant {token} is invalid, expired or revoked"),
            });
            return said(StatusCode::UNAUTHORIZED, body);
        }
        self.counts.refreshes_granted += 1;
        self.granted(after)
    }

    fn fault(&mut self) -> Option<Said> {
        Some(match self.faults.pop_front()? {
            Fault::Status(status) => said(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                json!({ "error": "server_error", "error_description": "forced" }),
            ),
            Fault::SlowDown => error("slow_down"),
            Fault::Expired => error("expired_token"),
            Fault::Nonsense => said(StatusCode::OK, json!({ "access_token": ["?"] })),
            Fault::HangUp | Fault::HangUpAfter => {
                Said { status: StatusCode::OK, body: None, after: Duration::ZERO }
            }
            Fault::Slow(_) => return None,
        })
    }

    fn granted(&mut self, after: Duration) -> Said {
        let tokens = self.give(Duration::ZERO);
        Said { status: StatusCode::OK, body: Some(tokens), after }
    }

    /// New tokens, of which the access token was given out `age` ago.
    fn give(&mut self, age: Duration) -> Value {
        self.given += 1;
        let (access, refresh) =
            (format!("access-{}-{}", self.name, self.given), format!("refresh-{}-{}", self.name, self.given));
        self.access.insert(access.clone(), Instant::now() + self.terms.lifetime.saturating_sub(age));
        self.refresh.insert(refresh.clone());
        json!({
            "access_token": access, "refresh_token": refresh, "expires_in": self.terms.lifetime.as_secs_f64(),
            "scope": "kimi-code", "token_type": "Bearer",
        })
    }
}

fn said(status: StatusCode, body: Value) -> Said {
    Said { status, body: Some(body), after: Duration::ZERO }
}

fn error(code: &str) -> Said {
    said(StatusCode::BAD_REQUEST, json!({ "error": code, "error_description": code }))
}

/// The fields of a form (`application/x-www-form-urlencoded`); nothing where it has none.
pub fn form(body: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(body) else { return Value::Null };
    let fields: Map<String, Value> = text
        .split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (decoded(name), Value::String(decoded(value))))
        .collect();
    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let escaped = others
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
