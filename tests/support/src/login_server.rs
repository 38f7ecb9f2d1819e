//! A small copy of Kimi's login server (RFC 8628, RFC 6749). It gives out codes, tokens and refreshes, and
//! counts the requests. Each refresh token can be used once. It does what a test says, faults included. No
//! I/O: an answer is a value.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use nanokimi::practice::{OAuthAnswer, OAuthServer, Practice};
use serde_json::{Value, json};
use tokio::time::Instant;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The times that the server uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoginTerms {
    /// How long an access token is valid.
    pub lifetime: Duration,
    /// How often a client may ask whether the person has agreed.
    pub interval: Duration,
    /// How long a device's code is valid.
    pub codes_last: Duration,
}

impl Default for LoginTerms {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(900),
            interval: Duration::from_secs(1),
            codes_last: Duration::from_secs(1800),
        }
    }
}

/// What the person does on Kimi's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Agrees,
    Waits,
    Denies,
}

/// What happens to a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// It is answered with this status, and no token is given out.
    Status(u16),
    /// `slow_down`.
    SlowDown,
    /// The code is too old.
    Expired,
    /// It is answered correctly, but this much later.
    Slow(Duration),
    /// The connection ends without an answer, and no token is given out.
    HangUp,
    /// The tokens are given out, so the old ones are no longer valid. Then the connection ends without an
    /// answer.
    HangUpAfter,
    /// The answer holds something other than tokens, and no token is given out.
    Nonsense,
}

/// What the server has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginCounts {
    pub device_codes: u64,
    pub polls: u64,
    /// Requests to refresh, granted or not.
    pub refreshes: u64,
    pub refreshes_granted: u64,
    /// The part of `refreshes` whose token was not valid.
    pub refreshes_refused: u64,
    /// Requests to the model whose token was not valid.
    pub refused: u64,
}

/// The login server of a practice model, controlled by a test. All clones are the same server.
#[derive(Clone, Debug)]
pub struct MockLoginServer(Arc<Mutex<LoginServerState>>);

impl MockLoginServer {
    /// From now on there is a login server, and a request to the model without one of its tokens gets 401. A
    /// second login server replaces the first.
    pub fn start(practice: &Practice, terms: LoginTerms) -> Self {
        let server = Self(Arc::new(Mutex::new(LoginServerState::new(practice.port(), terms))));
        practice.set_login_server(Arc::new(server.clone()));
        server
    }

    /// A login as the server would give it to a person who has agreed: kimi-cli's `kimi-code.json`, given out
    /// `age` ago.
    pub fn issue_login_file(&self, now: Timestamp, age: Duration) -> String {
        self.lock_state().issue_login_file(now, age)
    }

    /// What happens to the next requests for tokens, one after the other.
    pub fn queue_faults(&self, faults: impl IntoIterator<Item = LoginFault>) {
        self.lock_state().faults.extend(faults);
    }

    /// What the person does on Kimi's page from now on.
    pub fn set_approval(&self, approval: Approval) {
        self.lock_state().approval = approval;
    }

    /// The login was ended at Kimi: no token given out so far is valid any more.
    pub fn revoke_all_tokens(&self) {
        let mut state = self.lock_state();
        state.access.clear();
        state.refresh.clear();
    }

    /// The access tokens given out so far are no longer valid; the refresh tokens still are.
    pub fn expire_access_tokens(&self) {
        self.lock_state().access.clear();
    }

    /// What the server has seen so far.
    pub fn counts(&self) -> LoginCounts {
        self.lock_state().counts
    }

    /// Whether the server would accept a login file's refresh token.
    pub fn can_refresh_from(&self, login_file: &str) -> bool {
        let login: Value = serde_json::from_str(login_file).unwrap_or_default();
        login["refresh_token"].as_str().is_some_and(|token| self.lock_state().refresh.contains_key(token))
    }

    /// The number of the login whose newest access token a header carries, from 0 in the order in which logins were
    /// given out. `None` if it carries an older token, or none of this server's.
    pub fn login_of_newest_token(&self, authorization: Option<&str>) -> Option<usize> {
        let token = authorization?.strip_prefix("Bearer ")?;
        self.lock_state().logins.iter().position(|login| login.newest_access == token)
    }

    /// When each login was given out, and then renewed, by its number.
    pub fn renewals(&self) -> Vec<Vec<Instant>> {
        self.lock_state().logins.iter().map(|login| login.given_at.clone()).collect()
    }

    /// What all access and refresh tokens of this server begin with.
    pub fn token_prefixes(&self) -> [String; 2] {
        let name = self.lock_state().name;
        [format!("access-{name}-"), format!("refresh-{name}-")]
    }

    fn lock_state(&self) -> MutexGuard<'_, LoginServerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OAuthServer for MockLoginServer {
    fn handle_oauth_request(&self, path: &str, form: &Value) -> OAuthAnswer {
        self.lock_state().handle_oauth_request(path, form)
    }

    /// Headers that are not valid are counted.
    fn is_bearer_token_valid(&self, authorization: Option<&str>) -> bool {
        self.lock_state().is_bearer_token_valid(authorization)
    }
}

/// A login, whose tokens change with each renewal.
#[derive(Debug, Default)]
struct IssuedLogin {
    newest_access: String,
    given_at: Vec<Instant>,
}

#[derive(Debug)]
struct LoginServerState {
    faults: VecDeque<LoginFault>,
    approval: Approval,
    counts: LoginCounts,
    terms: LoginTerms,
    /// Makes the tokens of one server different from those of another server.
    name: u16,
    given: u64,
    logins: Vec<IssuedLogin>,
    access: BTreeMap<String, Instant>,
    /// Each with the number of its login.
    refresh: BTreeMap<String, usize>,
    /// Codes of devices, and until when they are valid.
    codes: BTreeMap<String, Instant>,
}

impl LoginServerState {
    fn new(name: u16, terms: LoginTerms) -> Self {
        Self {
            faults: VecDeque::new(),
            approval: Approval::Agrees,
            counts: LoginCounts::default(),
            terms,
            name,
            given: 0,
            logins: Vec::new(),
            access: BTreeMap::new(),
            refresh: BTreeMap::new(),
            codes: BTreeMap::new(),
        }
    }

    fn handle_oauth_request(&mut self, path: &str, form: &Value) -> OAuthAnswer {
        match path {
            "device_authorization" => self.issue_device_code(),
            "token" => match form["grant_type"].as_str() {
                Some(DEVICE_GRANT) => self.handle_device_poll(form),
                Some("refresh_token") => self.handle_refresh(form),
                Some(_) | None => oauth_error("unsupported_grant_type"),
            },
            _ => oauth_answer(StatusCode::NOT_FOUND, json!({})),
        }
    }

    fn is_bearer_token_valid(&mut self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|header| header.strip_prefix("Bearer "));
        let is_good =
            token.and_then(|token| self.access.get(token)).is_some_and(|until| *until > Instant::now());
        if !is_good {
            self.counts.refused += 1;
        }
        is_good
    }

    fn issue_login_file(&mut self, now: Timestamp, age: Duration) -> String {
        let login = self.begin_login();
        let mut tokens = self.issue_tokens(login, age);
        let left = self.terms.lifetime.as_secs_f64() - age.as_secs_f64();
        let expires_at = now.as_duration().as_secs_f64() + left;
        tokens["expires_at"] = json!(expires_at);
        tokens.to_string()
    }

    fn issue_device_code(&mut self) -> OAuthAnswer {
        self.counts.device_codes += 1;
        if let Some(LoginFault::Status(_) | LoginFault::HangUp) = self.faults.front() {
            return self.take_fault_answer().unwrap_or_else(|| oauth_error("server_error"));
        }
        self.given += 1;
        let device_code = format!("device-{}-{}", self.name, self.given);
        self.codes.insert(device_code.clone(), Instant::now() + self.terms.codes_last);
        let page = "https://www.kimi.com/code/authorize_device";
        oauth_answer(
            StatusCode::OK,
            json!({
                "user_code": "ABCD-1234", "device_code": device_code, "verification_uri": page,
                "verification_uri_complete": format!("{page}?user_code=ABCD-1234"),
                "expires_in": self.terms.codes_last.as_secs_f64(),
                "interval": self.terms.interval.as_secs_f64(),
            }),
        )
    }

    fn handle_device_poll(&mut self, form: &Value) -> OAuthAnswer {
        self.counts.polls += 1;
        if let Some(said) = self.take_fault_answer() {
            return said;
        }
        let code = form["device_code"].as_str().unwrap_or_default();
        if self.codes.get(code).is_none_or(|until| *until <= Instant::now()) {
            return oauth_error("expired_token");
        }
        match self.approval {
            Approval::Waits => oauth_error("authorization_pending"),
            Approval::Denies => oauth_error("access_denied"),
            Approval::Agrees => {
                self.codes.remove(code);
                let login = self.begin_login();
                self.grant_tokens(login, Duration::ZERO)
            }
        }
    }

    fn handle_refresh(&mut self, form: &Value) -> OAuthAnswer {
        self.counts.refreshes += 1;
        let token = form["refresh_token"].as_str().unwrap_or_default();
        let known = self.refresh.get(token).copied();
        let after = match (self.faults.front(), known) {
            (Some(LoginFault::Slow(after)), _) => {
                let after = *after;
                self.faults.pop_front();
                after
            }
            (Some(LoginFault::HangUpAfter), Some(login)) => {
                self.faults.pop_front();
                self.refresh.remove(token);
                self.counts.refreshes_granted += 1;
                self.issue_tokens(login, Duration::ZERO);
                return OAuthAnswer { status: StatusCode::OK, body: None, after: Duration::ZERO };
            }
            (Some(_), _) => return self.take_fault_answer().unwrap_or_else(|| oauth_error("server_error")),
            (None, _) => Duration::ZERO,
        };
        let Some(login) = self.refresh.remove(token) else {
            self.counts.refreshes_refused += 1;
            let body = json!({
                "error": "invalid_grant",
                "error_description": format!("The provided authorization grant {token} is invalid, expired or revoked"),
            });
            return oauth_answer(StatusCode::UNAUTHORIZED, body);
        };
        self.counts.refreshes_granted += 1;
        self.grant_tokens(login, after)
    }

    fn take_fault_answer(&mut self) -> Option<OAuthAnswer> {
        Some(match self.faults.pop_front()? {
            LoginFault::Status(status) => oauth_answer(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                json!({ "error": "server_error", "error_description": "forced" }),
            ),
            LoginFault::SlowDown => oauth_error("slow_down"),
            LoginFault::Expired => oauth_error("expired_token"),
            LoginFault::Nonsense => oauth_answer(StatusCode::OK, json!({ "access_token": ["?"] })),
            LoginFault::HangUp | LoginFault::HangUpAfter => {
                OAuthAnswer { status: StatusCode::OK, body: None, after: Duration::ZERO }
            }
            LoginFault::Slow(_) => return None,
        })
    }

    fn begin_login(&mut self) -> usize {
        self.logins.push(IssuedLogin::default());
        self.logins.len() - 1
    }

    fn grant_tokens(&mut self, login: usize, after: Duration) -> OAuthAnswer {
        let tokens = self.issue_tokens(login, Duration::ZERO);
        OAuthAnswer { status: StatusCode::OK, body: Some(tokens), after }
    }

    /// New tokens, of which the access token was given out `age` ago.
    fn issue_tokens(&mut self, login: usize, age: Duration) -> Value {
        self.given += 1;
        let (access, refresh) =
            (format!("access-{}-{}", self.name, self.given), format!("refresh-{}-{}", self.name, self.given));
        self.access.insert(access.clone(), Instant::now() + self.terms.lifetime.saturating_sub(age));
        self.refresh.insert(refresh.clone(), login);
        let issued = &mut self.logins[login];
        issued.newest_access.clone_from(&access);
        issued.given_at.push(Instant::now());
        json!({
            "access_token": access, "refresh_token": refresh, "expires_in": self.terms.lifetime.as_secs_f64(),
            "scope": "kimi-code", "token_type": "Bearer",
        })
    }
}

fn oauth_answer(status: StatusCode, body: Value) -> OAuthAnswer {
    OAuthAnswer { status, body: Some(body), after: Duration::ZERO }
}

fn oauth_error(code: &str) -> OAuthAnswer {
    oauth_answer(StatusCode::BAD_REQUEST, json!({ "error": code, "error_description": code }))
}
