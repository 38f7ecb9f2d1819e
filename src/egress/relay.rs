//! The relay to the Kimi API: carries one request from a container with the real login, and the answer back
//! as it comes. When there is no good answer, it does what `retry_policy` says: has the login renewed, waits,
//! or gives up. It keeps in the ledger what the session should know.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use reqwest::{ClientBuilder, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::api_routes::{self, ApiRoute, RouteDenied};
use super::error_response::ErrorResponse;
use super::ledger::Ledger;
use super::meter::Meter;
use super::request_body::{self, BODY_MAX, BodyBudget, BodyRejection};
use super::request_check::{self, NamedModel, RequestCheck};
use super::response_stream::{ResponseStream, render_error_chain};
use super::retry_policy::{self, RetryDecision, RetryState};
use super::upstream::KimiUpstream;
use crate::kimi_http::{bearer_header, build_kimi_http_client};
use crate::panics::run_blocking;
use crate::types::{Authorization, Failure, Secret, Trouble};

/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent: before it answers (the upload counts too), and between two pieces of an
/// answer. A model that thinks streams its thoughts, so minutes of silence mean a dead line.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a request may take in all until its answer begins, so that the egress proxy gives up first, and
/// knows why: Node's fetch gives up after 5 minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(270);
/// An API that does not answer within less than this may still be well: the request had to wait for others
/// first.
const LEAST_PATIENCE: Duration = Duration::from_secs(4 * 60);
/// Requests of one group to the model at a time, until their answers have ended; further ones wait. An engine
/// with a handful of subagents stays below, and a program of the agent cannot use up what the account may ask
/// for at once.
pub const ASKED_AT_ONCE_MAX: usize = 8;
/// How long a login may take to be renewed. The refresher itself tries for longer, for the requests that
/// follow.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(45);

/// The way from one container to the Kimi API. An answer as a whole has no timeout: turns have one.
#[derive(Debug)]
pub struct Relay {
    client: reqwest::Client,
    base: String,
    authorization: watch::Receiver<Authorization>,
    refused_tokens: watch::Sender<Option<Secret>>,
    models: Arc<[String]>,
    ledger: Arc<Ledger>,
    body_budget: BodyBudget,
    slots: Arc<Semaphore>,
}

/// A place among the [`ASKED_AT_ONCE_MAX`]; a request that is not for the model needs no permit.
struct ModelSlot {
    waited: Duration,
    permit: Option<OwnedSemaphorePermit>,
}

/// A request as it goes to the API, but for its login and its body.
struct ApiRequest {
    method: Method,
    url: Url,
    headers: HeaderMap,
    route: ApiRoute,
}

/// A login, and the header that carries it.
struct BearerToken {
    authorization: Authorization,
    token: Secret,
    header: HeaderValue,
}

impl Relay {
    pub async fn new(upstream: KimiUpstream, ledger: Arc<Ledger>) -> Result<Self> {
        let KimiUpstream { base, authorization, refused_tokens, models, client } = upstream;
        let limited =
            |client: ClientBuilder| client.connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_TIMEOUT);
        let client =
            client.get_or_try_init(async || build_kimi_http_client(&base, limited).await).await?.clone();
        let slots = Arc::new(Semaphore::new(ASKED_AT_ONCE_MAX));
        let models = models.into();
        Ok(Self {
            client,
            base,
            authorization,
            refused_tokens,
            models,
            ledger,
            body_budget: BodyBudget::new(),
            slots,
        })
    }

    /// Answers a request of the container, whatever it is. `web_denied` is the answer to a request that has
    /// Kimi go to the web, if the group may not.
    pub async fn relay_request(
        &self,
        request: Request<Incoming>,
        web_denied: Option<Response<Body>>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let outgoing = match self.build_api_request(&head) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                request_body::discard_body(body).await;
                return error.into_response();
            }
        };
        let route = outgoing.route;
        if api_routes::is_kimi_web_request(&head.uri)
            && let Some(denied) = web_denied
        {
            request_body::discard_body(body).await;
            return denied;
        }
        if let Err(RouteDenied { status, why }) = api_routes::require_engine_user_agent(&head.headers) {
            request_body::discard_body(body).await;
            return ErrorResponse::new(status, "invalid_request_error", why).into_response();
        }
        if route == ApiRoute::ChatCompletions && self.ledger.refuse_over_turn_tokens() {
            request_body::discard_body(body).await;
            let why = "This turn has used all the tokens that the owner allows one turn.";
            return ErrorResponse::new(StatusCode::FORBIDDEN, "invalid_request_error", why)
                .into_final_response();
        }
        if let Err(error) = self.current_bearer_token(route) {
            request_body::discard_body(body).await;
            return error.into_final_response();
        }
        let Some(slot) = self.wait_for_model_slot(route).await else {
            request_body::discard_body(body).await;
            // The agent itself is the cause: no trouble that the session should know of.
            let why = "The agent asks the model for more at once than the egress proxy carries.";
            return ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why)
                .into_final_response();
        };
        match self.body_budget.buffer_body(body).await {
            Ok(buffered) => {
                let check = self.check_before_relaying(route, &buffered.bytes).await;
                match web_denied {
                    Some(denied) if check.leads_kimi_to_the_web => denied,
                    Some(_) | None if check.model == NamedModel::NamedTwice => {
                        let why = "The request names its model more than once.";
                        ErrorResponse::new(StatusCode::BAD_REQUEST, "invalid_request_error", why)
                            .into_response()
                    }
                    Some(_) | None => {
                        self.ledger.record_model_asked(route);
                        self.send_with_retries(&outgoing, &buffered.bytes, check.model, slot).await
                    }
                }
            }
            Err(BodyRejection::NoRoom) => {
                let why = "The agent sends more to Kimi at once than the egress proxy holds.";
                self.ledger.record_failure(route, Failure::new(Trouble::Internal, why));
                ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why).into_final_response()
            }
            Err(BodyRejection::TooLong) => {
                let why = format!("The request is longer than {} MiB.", BODY_MAX / (1024 * 1024));
                self.ledger.record_failure(route, Failure::new(Trouble::TooLarge, &why));
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
        let route = api_routes::route_of(&path);
        Ok(ApiRequest {
            method: head.method.clone(),
            url,
            headers: api_routes::filter_request_headers(&head.headers),
            route,
        })
    }

    /// Waits for a slot, if one is needed; `None` if no slot came free in time.
    async fn wait_for_model_slot(&self, route: ApiRoute) -> Option<ModelSlot> {
        if route == ApiRoute::OtherEndpoint {
            return Some(ModelSlot { waited: Duration::ZERO, permit: None });
        }
        let began = Instant::now();
        let permit = timeout(ANSWER_TIMEOUT, Arc::clone(&self.slots).acquire_owned()).await.ok()?.ok()?;
        Some(ModelSlot { waited: began.elapsed(), permit: Some(permit) })
    }

    /// What a request for the model asks for; of other requests nothing matters here. The largest bodies take
    /// a tenth of a second.
    async fn check_before_relaying(&self, route: ApiRoute, body: &Bytes) -> RequestCheck {
        if route == ApiRoute::OtherEndpoint {
            return RequestCheck { model: NamedModel::Configured, leads_kimi_to_the_web: false };
        }
        let (body, models) = (body.clone(), Arc::clone(&self.models));
        let read = run_blocking(move || request_check::check_model_request(&body, &models)).await;
        read.unwrap_or(RequestCheck { model: NamedModel::Another, leads_kimi_to_the_web: true })
    }

    fn current_bearer_token(&self, route: ApiRoute) -> Result<BearerToken, Box<ErrorResponse>> {
        let authorization = self.authorization.borrow().clone();
        let token = match &authorization {
            Authorization::ApiKey(token) | Authorization::Login(token) => token.clone(),
            Authorization::Missing(why) => return Err(self.record_not_logged_in(route, why)),
        };
        let header = bearer_header(&token).ok_or_else(|| {
            self.record_not_logged_in(
                route,
                "The Kimi login cannot be sent: it contains characters that no login has.",
            )
        })?;
        Ok(BearerToken { authorization, token, header })
    }

    /// `why` is for the session; it may name files of this machine.
    fn record_not_logged_in(&self, route: ApiRoute, why: &str) -> Box<ErrorResponse> {
        self.ledger.record_failure(route, Failure::new(Trouble::NotLoggedIn, why));
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
            let login = match self.current_bearer_token(outgoing.route) {
                Ok(login) => login,
                Err(error) => return error.into_final_response(),
            };
            let answer = timeout_at(began + patience, self.send_once(outgoing, body, &login)).await;
            tried.waited = slot.waited + began.elapsed();
            let Ok(answer) = answer else {
                let error = kimi_unreachable_error("it does not answer in time");
                if patience < LEAST_PATIENCE {
                    // Other requests of the same agent have taken its time, not the API.
                    return error.into_final_response();
                }
                return self.record_api_failure(outgoing, error, Trouble::Unreachable).into_final_response();
            };
            let (response, decision) = match answer {
                Ok(answer) if answer.status().is_success() => {
                    match unreadable_answer_error(outgoing, &answer) {
                        None => return self.stream_response(outgoing, answer, login.token, model, slot),
                        Some(unreadable) => (unreadable, RetryDecision::GiveUp(Trouble::Unreachable)),
                    }
                }
                Ok(answer) => {
                    let response = ErrorResponse::read_api_response(answer, &login.token).await;
                    let decision = retry_policy::decide_after_error(
                        outgoing.route,
                        response.status,
                        &response.api_error,
                        response.retry_after,
                        &login.authorization,
                        &tried,
                    );
                    // What a program of the agent has made up is no trouble of the account, of which all
                    // chats would be told.
                    let decision = match model {
                        NamedModel::Configured => decision,
                        NamedModel::Another | NamedModel::NamedTwice => {
                            retry_policy::decide_for_another_model(decision)
                        }
                    };
                    (response, decision)
                }
                Err(error) => {
                    let decision = if error.is_connect() {
                        retry_policy::decide_after_connect_failure(&tried)
                    } else {
                        RetryDecision::GiveUp(Trouble::Unreachable)
                    };
                    (kimi_unreachable_error(&render_error_chain(&error.without_url())), decision)
                }
            };
            match decision {
                RetryDecision::Renew => {
                    tried.renewals += 1;
                    self.wait_for_token_refresh(&login).await;
                }
                RetryDecision::Wait(pause, trouble) => {
                    let why = response.error_detail();
                    tracing::info!(pause_secs = pause.as_secs(), ?trouble, "The Kimi API cannot answer now");
                    tracing::debug!("What it said: {why}");
                    // Recorded now, in case the engine does not wait for the end.
                    self.ledger.record_failure(outgoing.route, Failure::new(trouble, why));
                    tried.pauses += 1;
                    sleep(pause).await;
                }
                RetryDecision::Pass(trouble) => {
                    return self.record_api_failure(outgoing, response, trouble).into_response();
                }
                RetryDecision::GiveUp(trouble) => {
                    return self.record_api_failure(outgoing, response, trouble).into_final_response();
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

    /// Lets the refresher know that the API has refused this login, and waits for another one.
    async fn wait_for_token_refresh(&self, login: &BearerToken) {
        let mut authorization = self.authorization.clone();
        if *authorization.borrow() == login.authorization {
            self.refused_tokens.send_replace(Some(login.token.clone()));
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
        response: ErrorResponse,
        trouble: Trouble,
    ) -> ErrorResponse {
        let detail = response.error_detail();
        tracing::warn!(?trouble, "The Kimi API does not answer");
        tracing::debug!("What it said: {detail}");
        self.ledger.record_failure(outgoing.route, Failure::new(trouble, detail));
        response
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
        self.ledger.record_success(outgoing.route);
        let response_stream = ResponseStream {
            answer,
            meter,
            route: outgoing.route,
            model,
            error_reported: false,
            login,
            ledger: Arc::clone(&self.ledger),
            _permit: slot.permit,
        };
        let mut response = Response::new(response_stream.into_body());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// A success that no engine can read: somebody on the way answers in the API's place, such as a hotel's
/// sign-in page.
fn unreadable_answer_error(outgoing: &ApiRequest, answer: &reqwest::Response) -> Option<ErrorResponse> {
    let readable = matches!(Meter::new(content_type(answer)), Meter::Events(_) | Meter::Whole(_));
    if outgoing.route == ApiRoute::OtherEndpoint || readable {
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
