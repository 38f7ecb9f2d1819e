//! Carries one request from a container to the Kimi API with the real login, and the answer back as it comes. Where
//! there is no good answer, does what `verdict` says: has the login renewed, waits, or gives up. Keeps in the ledger
//! what the session should know of it.
//!
//! TLS trusts what this system trusts (its CA store, or `SSL_CERT_FILE`). `HTTPS_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` are honoured for the Kimi API, as reqwest does by default; a server on this machine is always
//! reached directly. Redirects are not followed: the login goes to one host only.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::api_routes::{self, ApiRoute, RouteDenied};
use super::error_response::ErrorResponse;
use super::ledger::Ledger;
use super::meter::{Meter, MeterReading, StreamEnding};
use super::request_body::{self, BODY_MAX, BodyBudget, BodyRejection};
use super::request_check::{self, NamedModel, RequestCheck};
use super::retry_policy::{self, RetryDecision, RetryState};
use super::upstream::KimiUpstream;
use crate::panics::run_blocking;
use crate::types::{Authorization, Failure, Secret, Trouble};

/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent: before it answers (the upload counts too), and between two pieces of an
/// answer. A model that thinks streams its thoughts, so minutes of silence mean a dead line.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a request may take in all until its answer begins, so that it is the door that gives up and knows why: Node's
/// fetch does after 5 minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(270);
/// An API that does not answer within less than this may still be well: the request had to wait for others first.
const LEAST_PATIENCE: Duration = Duration::from_secs(4 * 60);
/// Requests to the model of one door at a time, until their answers have ended; who comes after waits. An engine with a
/// handful of subagents stays below, and an agent's program does not use up what the account may ask for at once.
pub const ASKED_AT_ONCE_MAX: usize = 8;
/// How long a login may take to be renewed. The keeper itself tries for longer, for the requests that follow.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(45);

/// The way from one door to the Kimi API. An answer as a whole has no timeout: turns have one.
#[derive(Debug)]
pub struct Relay {
    client: reqwest::Client,
    base: String,
    authorization: watch::Receiver<Authorization>,
    refusals: watch::Sender<Option<Secret>>,
    models: Arc<[String]>,
    ledger: Arc<Ledger>,
    body_budget: BodyBudget,
    slots: Arc<Semaphore>,
}

/// A place among the [`ASKED_AT_ONCE_MAX`]; what goes beside the model needs none.
struct ModelSlot {
    waited: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request as it goes to the API, but for its login and its body.
struct ApiRequest {
    method: Method,
    url: Url,
    headers: HeaderMap,
    road: ApiRoute,
}

/// A login, and the header that carries it.
struct BearerToken {
    authorization: Authorization,
    token: Secret,
    header: HeaderValue,
}

impl Relay {
    pub async fn new(upstream: KimiUpstream, ledger: Arc<Ledger>) -> Result<Self> {
        let KimiUpstream { base, authorization, refusals, models, client } = upstream;
        let place = ApiLocation::from_base_url(&base)?;
        let make = async || run_blocking(move || build_api_client(place)).await?;
        let client = client.get_or_try_init(make).await?.clone();
        let slots = Arc::new(Semaphore::new(ASKED_AT_ONCE_MAX));
        let models = models.into();
        Ok(Self {
            client,
            base,
            authorization,
            refusals,
            models,
            ledger,
            body_budget: BodyBudget::new(),
            slots,
        })
    }

    /// Answers a request from inside, whatever it is. `web_is_closed` answers who asks Kimi to go to the web, where that is
    /// closed.
    pub async fn relay_request(
        &self,
        request: Request<Incoming>,
        web_is_closed: Option<Response<Body>>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let outgoing = match self.build_api_request(&head) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                request_body::discard_body(body).await;
                return refusal.into_response();
            }
        };
        let road = outgoing.road;
        if api_routes::is_kimi_web_request(&head.uri)
            && let Some(refused) = web_is_closed
        {
            request_body::discard_body(body).await;
            return refused;
        }
        if let Err(RouteDenied { status, why }) = api_routes::require_engine_user_agent(&head.headers) {
            request_body::discard_body(body).await;
            return ErrorResponse::new(status, "invalid_request_error", why).into_response();
        }
        if let Err(refusal) = self.current_bearer_token(road) {
            request_body::discard_body(body).await;
            return refusal.into_final_response();
        }
        let Some(slot) = self.wait_for_model_slot(road).await else {
            request_body::discard_body(body).await;
            // The agent's own doing, and so no trouble that the session should know of.
            let why = "The agent asks the model for more at once than the door carries.";
            return ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why)
                .into_final_response();
        };
        match self.body_budget.buffer_body(body).await {
            Ok(held) => {
                let asked = self.check_before_relaying(road, &held.bytes).await;
                match web_is_closed {
                    Some(refused) if asked.leads_kimi_to_the_web => refused,
                    Some(_) | None if asked.model == NamedModel::NamedTwice => {
                        let why = "The request names its model more than once.";
                        ErrorResponse::new(StatusCode::BAD_REQUEST, "invalid_request_error", why)
                            .into_response()
                    }
                    Some(_) | None => {
                        self.ledger.record_model_asked(road);
                        self.send_with_retries(&outgoing, &held.bytes, asked.model, slot).await
                    }
                }
            }
            Err(BodyRejection::NoRoom) => {
                let why = "The agent sends more to Kimi at once than the door holds.";
                self.ledger.record_failure(road, Failure::new(Trouble::Internal, why));
                ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why).into_final_response()
            }
            Err(BodyRejection::TooLong) => {
                let why = format!("The request is longer than {} MiB.", BODY_MAX / (1024 * 1024));
                self.ledger.record_failure(road, Failure::new(Trouble::TooLarge, &why));
                ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", why)
                    .into_response()
            }
            Err(BodyRejection::Broken) => {
                let why = "The request broke off.";
                ErrorResponse::new(StatusCode::BAD_REQUEST, "invalid_request_error", why).into_response()
            }
        }
    }

    /// What goes to the API in place of the request.
    fn build_api_request(&self, head: &Parts) -> Result<ApiRequest, Box<ErrorResponse>> {
        let path = api_routes::allowed_api_path(&head.method, &head.uri).map_err(
            |RouteDenied { status, why }| Box::new(ErrorResponse::new(status, "invalid_request_error", why)),
        )?;
        let url = Url::parse(&format!("{}/{path}", self.base)).map_err(|_| {
            let why = "There is no such path in the Kimi API.";
            Box::new(ErrorResponse::new(StatusCode::NOT_FOUND, "invalid_request_error", why))
        })?;
        let road = api_routes::route_of(&path);
        Ok(ApiRequest {
            method: head.method.clone(),
            url,
            headers: api_routes::filter_request_headers(&head.headers),
            road,
        })
    }

    /// Waits for a slot, if one is needed; none where none came free in time.
    async fn wait_for_model_slot(&self, road: ApiRoute) -> Option<ModelSlot> {
        if road == ApiRoute::OtherEndpoint {
            return Some(ModelSlot { waited: Duration::ZERO, _permit: None });
        }
        let began = Instant::now();
        let permit = timeout(ANSWER_TIMEOUT, Arc::clone(&self.slots).acquire_owned()).await.ok()?.ok()?;
        Some(ModelSlot { waited: began.elapsed(), _permit: Some(permit) })
    }

    /// What a request asks for; beside the model nothing that matters here. The greatest bodies take a tenth of a second.
    async fn check_before_relaying(&self, road: ApiRoute, body: &Bytes) -> RequestCheck {
        if road == ApiRoute::OtherEndpoint {
            return RequestCheck { model: NamedModel::Configured, leads_kimi_to_the_web: false };
        }
        let (body, models) = (body.clone(), Arc::clone(&self.models));
        let read = run_blocking(move || request_check::check_model_request(&body, &models)).await;
        read.unwrap_or(RequestCheck { model: NamedModel::Another, leads_kimi_to_the_web: true })
    }

    fn current_bearer_token(&self, road: ApiRoute) -> Result<BearerToken, Box<ErrorResponse>> {
        let authorization = self.authorization.borrow().clone();
        let token = match &authorization {
            Authorization::ApiKey(token) | Authorization::Login(token) => token.clone(),
            Authorization::Missing(why) => return Err(self.record_not_logged_in(road, why)),
        };
        let header = bearer_header(&token).ok_or_else(|| {
            self.record_not_logged_in(
                road,
                "The Kimi login cannot be sent: it contains characters that no login has.",
            )
        })?;
        Ok(BearerToken { authorization, token, header })
    }

    /// `why` is for the session; it may name files of this machine.
    fn record_not_logged_in(&self, road: ApiRoute, why: &str) -> Box<ErrorResponse> {
        self.ledger.record_failure(road, Failure::new(Trouble::NotLoggedIn, why));
        let why = "Nobody is logged in to Kimi on the server.";
        Box::new(ErrorResponse::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", why))
    }

    /// Asks the API until there is an answer to pass back.
    async fn send_with_retries(
        &self,
        outgoing: &ApiRequest,
        body: &Bytes,
        model: NamedModel,
        slot: ModelSlot,
    ) -> Response<Body> {
        let mut tried = RetryState::default();
        let began = Instant::now();
        let patience = ANSWER_TIMEOUT.saturating_sub(slot.waited);
        loop {
            let login = match self.current_bearer_token(outgoing.road) {
                Ok(login) => login,
                Err(refusal) => return refusal.into_final_response(),
            };
            let answer = timeout_at(began + patience, self.send_once(outgoing, body, &login)).await;
            tried.waited = slot.waited + began.elapsed();
            let Ok(answer) = answer else {
                let refusal = kimi_unreachable_error("it does not answer in time");
                if patience < LEAST_PATIENCE {
                    // Others of the same agent have taken its time, not the API.
                    return refusal.into_final_response();
                }
                return self
                    .record_api_failure(outgoing, refusal, Trouble::Unreachable)
                    .into_final_response();
            };
            let (refusal, verdict) = match answer {
                Ok(answer) if answer.status().is_success() => {
                    match unreadable_answer_error(outgoing, &answer) {
                        None => return self.stream_response(outgoing, answer, login.token, model, slot),
                        Some(refusal) => (refusal, RetryDecision::GiveUp(Trouble::Unreachable)),
                    }
                }
                Ok(answer) => {
                    let refusal = ErrorResponse::read_api_response(answer, &login.token).await;
                    let verdict = retry_policy::decide_after_error(
                        outgoing.road,
                        refusal.status,
                        &refusal.api_error,
                        refusal.retry_after,
                        &login.authorization,
                        &tried,
                    );
                    // What an agent's program has made up is no trouble of the account, which would be told to all.
                    let verdict = match model {
                        NamedModel::Configured => verdict,
                        NamedModel::Another | NamedModel::NamedTwice => {
                            retry_policy::decide_for_another_model(verdict)
                        }
                    };
                    (refusal, verdict)
                }
                Err(error) => {
                    let verdict = if error.is_connect() {
                        retry_policy::decide_after_connect_failure(&tried)
                    } else {
                        RetryDecision::GiveUp(Trouble::Unreachable)
                    };
                    (kimi_unreachable_error(&render_error_chain(&error.without_url())), verdict)
                }
            };
            match verdict {
                RetryDecision::Renew => {
                    tried.renewals += 1;
                    self.wait_for_token_refresh(&login).await;
                }
                RetryDecision::Wait(pause, trouble) => {
                    let why = refusal.error_detail();
                    tracing::info!(pause_secs = pause.as_secs(), ?trouble, "The Kimi API cannot answer now");
                    tracing::debug!("What it said: {why}");
                    // Known already, should the engine not wait for what comes of it.
                    self.ledger.record_failure(outgoing.road, Failure::new(trouble, why));
                    tried.pauses += 1;
                    sleep(pause).await;
                }
                RetryDecision::Pass(trouble) => {
                    return self.record_api_failure(outgoing, refusal, trouble).into_response();
                }
                RetryDecision::GiveUp(trouble) => {
                    return self.record_api_failure(outgoing, refusal, trouble).into_final_response();
                }
            }
        }
    }

    async fn send_once(
        &self,
        outgoing: &ApiRequest,
        body: &Bytes,
        login: &BearerToken,
    ) -> reqwest::Result<reqwest::Response> {
        let mut headers = outgoing.headers.clone();
        headers.insert(header::AUTHORIZATION, login.header.clone());
        let request = self.client.request(outgoing.method.clone(), outgoing.url.clone()).headers(headers);
        let request = if body.is_empty() { request } else { request.body(body.clone()) };
        request.send().await
    }

    /// Lets the keeper know that the API has refused this login, and waits for what comes of it.
    async fn wait_for_token_refresh(&self, login: &BearerToken) {
        let mut authorization = self.authorization.clone();
        if *authorization.borrow() == login.authorization {
            self.refusals.send_replace(Some(login.token.clone()));
        }
        let another = authorization.wait_for(|now| *now != login.authorization);
        if timeout(RENEWAL_TIMEOUT, another).await.is_err() {
            tracing::warn!("The Kimi login was refused and could not be renewed in time");
        }
    }

    /// Keeps for the session why the API did not answer.
    fn record_api_failure(
        &self,
        outgoing: &ApiRequest,
        refusal: ErrorResponse,
        trouble: Trouble,
    ) -> ErrorResponse {
        let detail = refusal.error_detail();
        tracing::warn!(?trouble, "The Kimi API does not answer");
        tracing::debug!("What it said: {detail}");
        self.ledger.record_failure(outgoing.road, Failure::new(trouble, detail));
        refusal
    }

    /// The answer as it comes: each piece is metered, then passed on at once.
    fn stream_response(
        &self,
        outgoing: &ApiRequest,
        answer: reqwest::Response,
        login: Secret,
        model: NamedModel,
        slot: ModelSlot,
    ) -> Response<Body> {
        let status = answer.status();
        tracing::debug!(status = status.as_u16(), "the Kimi API answers");
        let headers = api_routes::filter_response_headers(answer.headers());
        let meter = Meter::new(content_type(&answer));
        self.ledger.record_success(outgoing.road);
        let passage = ResponseStream {
            answer,
            meter,
            road: outgoing.road,
            model,
            error_reported: ErrorReported::No,
            login,
            ledger: Arc::clone(&self.ledger),
            _slot: slot,
        };
        let body = stream::unfold(Some(passage), |passage| async {
            let mut passage = passage?;
            match passage.next_piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(passage))),
                Ok(None) => None,
                // A broken connection would make kimi-cli ask again by itself, unseen, and say the first part
                // twice; this ends its turn at once, with an error that the session understands.
                Err(ResponseCutShort) if passage.is_event_stream() => {
                    Some((Ok(Bytes::from_static(BROKEN_OFF.as_bytes())), None))
                }
                // An error cuts the connection to the engine, which is how HTTP says that something is
                // missing.
                Err(cut) => {
                    // hyper sends what it has only while it waits for more; an error at once would swallow
                    // it.
                    yield_now().await;
                    Some((Err(cut), None))
                }
            }
        });
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// A success that no engine can read: somebody on the way answers in the API's place, such as a hotel's sign-in page.
fn unreadable_answer_error(outgoing: &ApiRequest, answer: &reqwest::Response) -> Option<ErrorResponse> {
    let readable = matches!(Meter::new(content_type(answer)), Meter::Events(_) | Meter::Whole(_));
    if outgoing.road == ApiRoute::OtherEndpoint || readable {
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

/// What ends an event stream of which a part is missing: whatever line was cut, then an error in OpenAI's shape.
const BROKEN_OFF: &str = "\n\ndata: {\"error\":{\"message\":\"Connection error. The model's answer broke off.\",\
    \"type\":\"stream_broken\"}}\n\n";

/// One answer on its way.
struct ResponseStream {
    answer: reqwest::Response,
    meter: Meter,
    road: ApiRoute,
    model: NamedModel,
    error_reported: ErrorReported,
    /// Cut out of whatever the API complains of.
    login: Secret,
    ledger: Arc<Ledger>,
    /// Free again when the answer has ended.
    _slot: ModelSlot,
}

/// Whether an answer that began well says that it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorReported {
    No,
    Yes,
}

impl ResponseStream {
    fn is_event_stream(&self) -> bool {
        matches!(self.meter, Meter::Events(_))
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, ResponseCutShort> {
        match self.answer.chunk().await {
            Ok(Some(piece)) => {
                for seen in self.meter.read_piece(&piece) {
                    self.record_meter_reading(seen);
                }
                Ok(Some(piece))
            }
            Ok(None) => {
                let (seen, ending) = self.meter.finish_reading();
                seen.into_iter().for_each(|seen| self.record_meter_reading(seen));
                if ending == StreamEnding::CutShort {
                    return Err(self.record_cut_short("it ended too early"));
                }
                if self.error_reported == ErrorReported::No {
                    // Whatever failed meanwhile was another request's.
                    self.ledger.record_success(self.road);
                }
                Ok(None)
            }
            Err(error) => Err(self.record_cut_short(&render_error_chain(&error.without_url()))),
        }
    }

    fn record_meter_reading(&mut self, seen: MeterReading) {
        match seen {
            MeterReading::Usage(usage) => self.ledger.add_usage(usage),
            MeterReading::ApiError(complaint) => {
                self.error_reported = ErrorReported::Yes;
                let detail = self.login.redact_from(&complaint.to_string());
                let trouble = match self.model {
                    NamedModel::Configured => retry_policy::classify_stream_error(&complaint),
                    NamedModel::Another | NamedModel::NamedTwice => Trouble::BadRequest,
                };
                self.ledger.record_failure(self.road, Failure::new(trouble, detail));
            }
        }
    }

    fn record_cut_short(&self, why: &str) -> ResponseCutShort {
        let why = format!("The answer of the Kimi API was cut short: {why}");
        tracing::warn!("{why}");
        self.ledger.record_failure(self.road, Failure::new(Trouble::Unreachable, why));
        ResponseCutShort
    }
}

/// The error that ends an answer of which a part is missing.
#[derive(Debug)]
struct ResponseCutShort;

impl fmt::Display for ResponseCutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of the Kimi API was cut short")
    }
}

impl Error for ResponseCutShort {}

/// The client for all doors. Reads the system's trust store, where it is needed.
fn build_api_client(place: ApiLocation) -> Result<reqwest::Client> {
    // An error means that somebody has installed one already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT);
    let client = match place {
        ApiLocation::Internet => client,
        // Neither proxies nor certificates have a part in it, so that it works where there are none.
        ApiLocation::ThisMachine => client.no_proxy().tls_certs_only([]),
    };
    client.build().context("Failed to set up TLS; is the package ca-certificates installed?")
}

/// Where a base leads.
enum ApiLocation {
    Internet,
    ThisMachine,
}

impl ApiLocation {
    /// # Errors
    /// The login may not be sent there: it never travels unencrypted, except within this machine.
    fn from_base_url(base: &str) -> Result<Self> {
        let url = Url::parse(base).with_context(|| format!("{base:?} is not a URL"))?;
        ensure!(
            !base.ends_with('/') && url.query().is_none() && url.fragment().is_none(),
            "{base:?} must be a URL without a slash, query or fragment at its end"
        );
        let this_machine = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            "https" => Ok(Self::Internet),
            "http" if this_machine => Ok(Self::ThisMachine),
            other => anyhow::bail!("The Kimi login is sent over https only, not {other}, to {base:?}"),
        }
    }
}

fn bearer_header(login: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", login.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An error with what lies behind it, on one line.
fn render_error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
