//! Sends one request to the Kimi API until there is an answer to pass back: has the login renewed, waits, turns
//! to another account, or gives up, as `retry_policy` and `rules::accounts` say.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use jiff::Timestamp;
use reqwest::ClientBuilder;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::accounts::{AccountPool, ChosenAccount};
use super::api_call::{AnswerObserver, ApiCall, ApiRoute, AskedModel};
use super::error_response::{ErrorResponse, render_error_chain};
use super::meter::Meter;
use super::retry_policy::{self, RetryDecision, RetryState};
use super::upstream::KimiUpstream;
use crate::clock::Clock;
use crate::kimi_http::{bearer_header, build_kimi_http_client};
use crate::login::AccountLogin;
use crate::types::{AccountId, Authorization, Failure, Secret, Trouble};

/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent: before it answers (the upload counts too), and between two pieces of an
/// answer. A model that thinks streams its thoughts, so minutes of silence mean a dead line.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a request may take in all until its answer begins, so that the relay gives up first, and knows why:
/// Node's fetch gives up after 5 minutes.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(270);
/// An API that does not answer within less than this may still be well: the request had to wait for others
/// first.
const LEAST_PATIENCE: Duration = Duration::from_secs(4 * 60);
/// How long a login may take to be renewed. The refresher itself tries for longer, for the requests that
/// follow.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(45);

/// The way to the Kimi API. An answer as a whole has no timeout: its caller has one.
#[derive(Clone, Debug)]
pub struct KimiSender {
    client: reqwest::Client,
    accounts: Arc<AccountPool>,
}

/// An answer that has begun.
#[derive(Debug)]
pub struct ApiAnswer {
    pub response: reqwest::Response,
    pub meter: Meter,
    /// The login that it was asked with. It is cut out of whatever the answer says.
    pub login: Secret,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Refusal {
    pub response: ErrorResponse,
    /// `None` if the caller's other requests are the cause.
    pub trouble: Option<Trouble>,
    /// Whether it makes no sense to ask the same again.
    pub is_final: bool,
    /// When an account comes back, if a caller has to wait for one that does not wait here.
    pub free_at: Option<Timestamp>,
}

/// A login, and the header that carries it.
struct BearerToken {
    account: AccountLogin,
    authorization: Authorization,
    token: Secret,
    header: HeaderValue,
}

impl KimiSender {
    /// # Errors
    /// A login may not be sent to the API of `upstream`: it is neither `https` nor on this machine.
    pub async fn new(upstream: &KimiUpstream) -> Result<Self> {
        let limited =
            |client: ClientBuilder| client.connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_TIMEOUT);
        let accounts = Arc::clone(&upstream.accounts);
        let base = accounts.first_base();
        let client = upstream.client.get_or_try_init(async || build_kimi_http_client(&base, limited).await);
        Ok(Self { client: client.await?.clone(), accounts })
    }

    /// Whether anybody could answer a request, before its body is read.
    ///
    /// # Errors
    /// No account has a login; the observer knows why.
    pub fn require_login(&self, observer: &dyn AnswerObserver) -> Result<(), Box<Refusal>> {
        match self.accounts.missing_login() {
            Some(why) => Err(refuse_without_login(&why, observer)),
            None => Ok(()),
        }
    }

    /// Asks the API until there is an answer to pass back.
    ///
    /// # Errors
    /// There is no answer; the observer knows why, too.
    pub async fn send_with_retries(
        &self,
        call: &ApiCall,
        observer: &dyn AnswerObserver,
    ) -> Result<ApiAnswer, Box<Refusal>> {
        let mut tried = RetryState::default();
        // The accounts that have given no answer since this request has waited last.
        let mut asked: HashSet<AccountId> = HashSet::new();
        // The accounts whose login was renewed for it since then.
        let mut renewed: HashSet<AccountId> = HashSet::new();
        let began = Instant::now();
        let patience = call.patience.saturating_sub(call.waited);
        loop {
            tried.waited = call.waited + began.elapsed();
            let login = match self.next_login(call, &tried, observer).await {
                Ok(login) => login,
                Err(NextLogin::AskAgain) => {
                    asked.clear();
                    renewed.clear();
                    continue;
                }
                Err(NextLogin::GiveUp(refusal)) => return Err(refusal),
            };
            tried.has_renewed = renewed.contains(&login.account.id);
            let asked_at = Clock::System.now();
            let answer = timeout_at(began + patience, self.send_once(call, &login)).await;
            tried.waited = call.waited + began.elapsed();
            let Ok(answer) = answer else {
                let error = kimi_unreachable_error("it does not answer in time");
                if patience < LEAST_PATIENCE {
                    // Other requests of the same caller have taken its time, not the API.
                    return Err(Box::new(Refusal {
                        response: error,
                        trouble: None,
                        is_final: true,
                        free_at: None,
                    }));
                }
                return Err(refuse_call(error, Trouble::Unreachable, true, observer));
            };
            let (response, decision) = match answer {
                Ok(answer) if answer.status().is_success() => match unreadable_answer_error(call, &answer) {
                    None => return Ok(self.accept_answer(answer, login, call, asked_at, observer)),
                    Some(unreadable) => (unreadable, RetryDecision::GiveUp(Trouble::Unreachable)),
                },
                Ok(answer) => judge_error_answer(call, answer, &login, &tried).await,
                Err(error) => {
                    let decision = if error.is_connect() {
                        retry_policy::decide_after_connect_failure(&tried)
                    } else {
                        RetryDecision::GiveUp(Trouble::Unreachable)
                    };
                    (kimi_unreachable_error(&render_error_chain(&error.without_url())), decision)
                }
            };
            match self.leave_account_alone(call.route, &login, decision, &response, &mut asked) {
                NextAccount::AskAnother => {
                    tried.pauses += 1;
                    continue;
                }
                NextAccount::WaitForOne(trouble) => {
                    observer.record_failure(Failure::new(trouble, response.error_detail()));
                    tried.pauses += 1;
                    continue;
                }
                NextAccount::None => {}
            }
            match decision {
                RetryDecision::Renew => {
                    renewed.insert(login.account.id.clone());
                    wait_for_token_refresh(&login).await;
                }
                RetryDecision::Wait(pause, trouble) => {
                    let why = response.error_detail();
                    tracing::info!(pause_secs = pause.as_secs(), ?trouble, "The Kimi API cannot answer now");
                    tracing::debug!("What it said: {why}");
                    // Recorded now, in case the engine does not wait for the end.
                    observer.record_failure(Failure::new(trouble, why));
                    tried.pauses += 1;
                    // With several accounts the choice waits, for whichever is free first.
                    if call.route == ApiRoute::OtherEndpoint || !self.accounts.has_several_usable() {
                        sleep(pause).await;
                    }
                }
                RetryDecision::Pass(trouble) => return Err(refuse_call(response, trouble, false, observer)),
                RetryDecision::GiveUp(trouble) => return Err(refuse_call(response, trouble, true, observer)),
            }
        }
    }

    /// Waits until then, or until an account can be asked sooner.
    pub async fn wait_for_account(&self, conversation: &str, until: Timestamp) {
        let pause = time_until(until, Clock::System.now());
        self.accounts.wait_for_account(conversation, until, pause).await;
    }

    /// The login for the next try; waits if all accounts are left alone.
    async fn next_login(
        &self,
        call: &ApiCall,
        tried: &RetryState,
        observer: &dyn AnswerObserver,
    ) -> Result<BearerToken, NextLogin> {
        let now = Clock::System.now();
        let chosen = match call.route {
            ApiRoute::Model => self.accounts.choose_account(&call.conversation, now),
            ApiRoute::OtherEndpoint => self.accounts.choose_unlimited_account(&call.conversation),
        };
        match chosen {
            ChosenAccount::Use(account) => bearer_token_of(account)
                .map_err(|why| NextLogin::GiveUp(refuse_without_login(&why, observer))),
            ChosenAccount::Missing(why) => Err(NextLogin::GiveUp(refuse_without_login(&why, observer))),
            ChosenAccount::WaitUntil(until) => {
                let pause = time_until(until, now);
                if tried.waited.saturating_add(pause) > call.patience {
                    return Err(NextLogin::GiveUp(self.refuse_for_limits(pause, now, observer)));
                }
                if !call.waits_for_account {
                    let refusal = self.refuse_for_limits(pause, now, observer);
                    return Err(NextLogin::GiveUp(Box::new(Refusal { free_at: Some(until), ..*refusal })));
                }
                let limits = self.accounts.describe_limits(now);
                tracing::info!(pause_secs = pause.as_secs(), "A request waits: {limits}");
                self.accounts.wait_for_account(&call.conversation, until, pause).await;
                Err(NextLogin::AskAgain)
            }
        }
    }

    /// The error that names each account and when it comes back.
    fn refuse_for_limits(
        &self,
        pause: Duration,
        now: Timestamp,
        observer: &dyn AnswerObserver,
    ) -> Box<Refusal> {
        let why = self.accounts.describe_limits(now);
        let response = ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_reached_error", why)
            .with_retry_after(pause);
        refuse_call(response, self.accounts.limiting_trouble(now), true, observer)
    }

    async fn send_once(&self, call: &ApiCall, login: &BearerToken) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}/{}", login.account.api_base, call.path);
        let mut headers = call.headers.clone();
        headers.insert(header::AUTHORIZATION, login.header.clone());
        let request = self.client.request(call.method.clone(), url).headers(headers);
        let request = if call.body.is_empty() { request } else { request.body(call.body.clone()) };
        request.send().await
    }

    /// Leaves an account alone that gives no answer, and says what follows with the others. Each account is asked
    /// once before the request waits.
    fn leave_account_alone(
        &self,
        route: ApiRoute,
        login: &BearerToken,
        decision: RetryDecision,
        response: &ErrorResponse,
        asked: &mut HashSet<AccountId>,
    ) -> NextAccount {
        if route == ApiRoute::OtherEndpoint {
            return NextAccount::None;
        }
        let Some(cause) = retry_policy::cooldown_cause(decision, response.status) else {
            return NextAccount::None;
        };
        if !self.accounts.has_several_usable() {
            return NextAccount::None;
        }
        let (id, now) = (&login.account.id, Clock::System.now());
        self.accounts.cool_down(id, cause, response.retry_after, now);
        tracing::info!(account = %login.account.name, ?cause, "A Kimi account is left alone for a while");
        asked.insert(id.clone());
        if self.accounts.has_ready_account_beside(asked, now) {
            return NextAccount::AskAnother;
        }
        match decision {
            RetryDecision::Pass(trouble) | RetryDecision::GiveUp(trouble)
                if self.accounts.has_account_to_wait_for(now) =>
            {
                NextAccount::WaitForOne(trouble)
            }
            RetryDecision::Renew
            | RetryDecision::Wait(..)
            | RetryDecision::Pass(_)
            | RetryDecision::GiveUp(_) => NextAccount::None,
        }
    }

    fn accept_answer(
        &self,
        response: reqwest::Response,
        login: BearerToken,
        call: &ApiCall,
        asked_at: Timestamp,
        observer: &dyn AnswerObserver,
    ) -> ApiAnswer {
        tracing::debug!(status = response.status().as_u16(), "the Kimi API answers");
        if call.route == ApiRoute::Model {
            self.accounts.note_answer(&login.account.id, asked_at, Clock::System.now());
        }
        observer.record_success();
        let meter = Meter::new(content_type(&response));
        ApiAnswer { response, meter, login: login.token }
    }
}

/// What follows with the other accounts when one gives no answer.
enum NextAccount {
    AskAnother,
    /// All are left alone for a while; until then this is the trouble.
    WaitForOne(Trouble),
    /// Nothing: the answer of this one decides.
    None,
}

/// What there is in place of a login.
enum NextLogin {
    /// The request has waited.
    AskAgain,
    GiveUp(Box<Refusal>),
}

/// What the API says in place of an answer, and what follows.
async fn judge_error_answer(
    call: &ApiCall,
    answer: reqwest::Response,
    login: &BearerToken,
    tried: &RetryState,
) -> (ErrorResponse, RetryDecision) {
    let response = ErrorResponse::read_api_response(answer, &login.token).await;
    let decision = retry_policy::decide_after_error(
        call.route,
        response.status,
        &response.api_error,
        response.retry_after,
        &login.authorization,
        tried,
    );
    // What a program of the agent has made up is no trouble of the account, of which all chats would be told.
    let decision = match call.model {
        AskedModel::Configured => decision,
        AskedModel::Another => retry_policy::decide_for_another_model(decision),
    };
    (response, decision)
}

fn bearer_token_of(account: AccountLogin) -> Result<BearerToken, String> {
    let authorization = account.authorization.borrow().clone();
    let token = match &authorization {
        Authorization::ApiKey(token) | Authorization::Login(token) => token.clone(),
        Authorization::Missing(why) => return Err(why.clone()),
    };
    let Some(header) = bearer_header(&token) else {
        return Err("The Kimi login cannot be sent: it contains characters that no login has.".to_owned());
    };
    Ok(BearerToken { account, authorization, token, header })
}

/// Lets the refresher know that the API has refused this login, and waits for another one.
async fn wait_for_token_refresh(login: &BearerToken) {
    let mut authorization = login.account.authorization.clone();
    if *authorization.borrow() == login.authorization {
        login.account.refused_tokens.send_replace(Some(login.token.clone()));
    }
    let another = authorization.wait_for(|now| *now != login.authorization);
    if timeout(RENEWAL_TIMEOUT, another).await.is_err() {
        tracing::warn!("The Kimi login was refused and could not be renewed in time");
    }
}

/// `why` is for the observer; it may name files of this machine.
fn refuse_without_login(why: &str, observer: &dyn AnswerObserver) -> Box<Refusal> {
    observer.record_failure(Failure::new(Trouble::NotLoggedIn, why));
    let why = "Nobody is logged in to Kimi on the server.";
    let response = ErrorResponse::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", why);
    Box::new(Refusal { response, trouble: Some(Trouble::NotLoggedIn), is_final: true, free_at: None })
}

/// Keeps for the caller why the API did not answer.
fn refuse_call(
    response: ErrorResponse,
    trouble: Trouble,
    is_final: bool,
    observer: &dyn AnswerObserver,
) -> Box<Refusal> {
    let detail = response.error_detail();
    tracing::warn!(?trouble, "The Kimi API does not answer");
    tracing::debug!("What it said: {detail}");
    observer.record_failure(Failure::new(trouble, detail));
    Box::new(Refusal { response, trouble: Some(trouble), is_final, free_at: None })
}

/// A success that no engine can read: somebody on the way answers in the API's place, such as a hotel's
/// sign-in page.
fn unreadable_answer_error(call: &ApiCall, answer: &reqwest::Response) -> Option<ErrorResponse> {
    let readable = matches!(Meter::new(content_type(answer)), Meter::Events(_) | Meter::Whole(_));
    if call.route == ApiRoute::OtherEndpoint || readable {
        return None;
    }
    let what = if content_type(answer).is_empty() { "something unknown" } else { content_type(answer) };
    Some(kimi_unreachable_error(&format!("it answers with {what}, which is no answer of a model")))
}

fn kimi_unreachable_error(why: &str) -> ErrorResponse {
    let why = format!("The Kimi API cannot be reached: {why}");
    ErrorResponse::new(StatusCode::BAD_GATEWAY, "connection_error", why)
}

fn content_type(answer: &reqwest::Response) -> &str {
    answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn time_until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
