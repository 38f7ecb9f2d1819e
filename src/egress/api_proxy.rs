//! A container's way to the Kimi API: checks that a request is one that the group's engine may make, and hands it
//! to the relay. It keeps in the ledger what the session should know.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::api_routes::{self, RouteDenied};
use super::ledger::{Ledger, RequestLedger};
use super::request_check::{self, NamedModel, RequestCheck};
use crate::panics::run_blocking;
use crate::relay::{
    ANSWER_TIMEOUT, ApiCall, ApiRoute, AskedModel, BODY_MAX, BodyBudget, BodyRejection, ErrorResponse,
    KimiSender, KimiUpstream, Refusal, ResponseStream, discard_body, filter_response_headers,
};
use crate::types::{Failure, GroupName, Trouble};

/// Requests of one group to the model at a time, until their answers have ended; further ones wait. An engine
/// with a handful of subagents stays below, and a program of the agent cannot use up what the account may ask
/// for at once.
pub const ASKED_AT_ONCE_MAX: usize = 8;
/// The way from one container to the Kimi API. An answer as a whole has no timeout: turns have one.
#[derive(Debug)]
pub struct ApiProxy {
    sender: KimiSender,
    /// One conversation, for the choice of an account.
    group: GroupName,
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

impl ApiProxy {
    pub async fn new(upstream: KimiUpstream, group: GroupName, ledger: Arc<Ledger>) -> Result<Self> {
        Ok(Self {
            sender: KimiSender::new(&upstream).await?,
            group,
            models: upstream.models,
            ledger,
            body_budget: BodyBudget::default(),
            slots: Arc::new(Semaphore::new(ASKED_AT_ONCE_MAX)),
        })
    }

    /// Answers a request of the container, whatever it is. `web_denied` is the answer to a request that has
    /// Kimi go to the web, if the group may not.
    pub async fn proxy_request(
        &self,
        request: Request<Incoming>,
        web_denied: Option<Response<Body>>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = match api_routes::allowed_api_path(&head.method, &head.uri) {
            Ok(path) => path,
            Err(denied) => {
                discard_body(body).await;
                return denial_response(denied);
            }
        };
        let route = api_routes::route_of(&path);
        if api_routes::is_kimi_web_request(&head.uri)
            && let Some(denied) = web_denied
        {
            discard_body(body).await;
            return denied;
        }
        if let Err(denied) = api_routes::require_engine_user_agent(&head.headers) {
            discard_body(body).await;
            return denial_response(denied);
        }
        if route == ApiRoute::Model && self.ledger.refuse_over_turn_tokens() {
            discard_body(body).await;
            let why = "This turn has used all the tokens that the owner allows one turn.";
            return ErrorResponse::new(StatusCode::FORBIDDEN, "invalid_request_error", why)
                .into_final_response();
        }
        if let Err(refusal) = self.sender.require_login(&self.observer(route)) {
            discard_body(body).await;
            return into_agent_response(*refusal);
        }
        let Some(slot) = self.wait_for_model_slot(route).await else {
            discard_body(body).await;
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
                        let call = ApiCall {
                            method: head.method,
                            path,
                            headers: api_routes::filter_request_headers(&head.headers),
                            body: buffered.bytes.clone(),
                            route,
                            model: asked_model(check.model),
                            conversation: self.group.as_str().to_owned(),
                            waited: slot.waited,
                            patience: ANSWER_TIMEOUT,
                            waits_for_account: true,
                        };
                        self.relay_call(&call, slot.permit).await
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

    /// Hands a request to the relay; the answer passes as it comes.
    async fn relay_call(&self, call: &ApiCall, permit: Option<OwnedSemaphorePermit>) -> Response<Body> {
        let observer = self.observer(call.route);
        match self.sender.send_with_retries(call, &observer).await {
            Ok(answer) => {
                let (status, headers) =
                    (answer.response.status(), filter_response_headers(answer.response.headers()));
                let passing = ResponseStream::new(answer, call.model, Arc::new(observer), permit);
                let mut response = Response::new(passing.into_body());
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            Err(refusal) => into_agent_response(*refusal),
        }
    }

    fn observer(&self, route: ApiRoute) -> RequestLedger {
        RequestLedger { ledger: Arc::clone(&self.ledger), route }
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
}

fn denial_response(RouteDenied { status, why }: RouteDenied) -> Response<Body> {
    ErrorResponse::new(status, "invalid_request_error", why).into_response()
}

/// What is final keeps the engine from asking again by itself.
fn into_agent_response(Refusal { response, is_final, .. }: Refusal) -> Response<Body> {
    if is_final { response.into_final_response() } else { response.into_response() }
}

/// What a program of the agent has made up says nothing of the account.
fn asked_model(named: NamedModel) -> AskedModel {
    match named {
        NamedModel::Configured => AskedModel::Configured,
        NamedModel::Another | NamedModel::NamedTwice => AskedModel::Another,
    }
}
