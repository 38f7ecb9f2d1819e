//! Answers one request of a client: who it is, whether it may ask, what goes to Kimi in its place, and what comes back.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::answer_stream::{
    UsageRecord, event_stream_response, gather_response_object, pass_answer, pass_as_response_events,
};
use super::client_check::{LocalEnd, check_client};
use super::client_key::presented_key;
use super::error_format::{GatewayError, json_response};
use super::headers::{KimiCliHeaders, client_session, headers_for_kimi};
use super::models::{is_model_allowed, list_models};
use super::responses::{ResponseEvents, ResponsesError, to_chat_completions};
use super::rewrite::rewrite_body;
use super::routes::{ApiForm, GatewayRoute, api_form_of, find_route, is_health_check, upstream_path};
use super::share::{GatewayShare, ShareSlot};
use super::upstream::{KimiAnswer, KimiApi, KimiCall, KimiRefusal};
use crate::api_error::ApiError;
use crate::clock::{Clock, Day};
use crate::relay::{BODY_MAX, BodyBudget, BodyRejection, BufferedBody};
use crate::store::{KeyUsage, Store};
use crate::types::GatewayKey;

/// How long a body may take in all, whatever comes of it in between: the largest over a local socket takes a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// How much is read of the body of a refused request, and for how long: a client that is still writing would not see
/// the answer before its connection breaks. From programs without a key little is read.
const STRANGERS_BODY_MAX: usize = 1024 * 1024;
const REFUSED_BODY_MAX: usize = 2 * BODY_MAX;
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest list of models in bytes, and how long it may take.
const MODELS_MAX: usize = 1024 * 1024;
const MODELS_TIMEOUT: Duration = Duration::from_secs(30);

/// What a gateway is made of.
#[derive(Clone)]
pub struct GatewaySetup {
    pub store: Store,
    pub clock: Clock,
    /// Whose days limits are for.
    pub zone: TimeZone,
    pub kimi: KimiApi,
    /// For keys with the identity of kimi-cli.
    pub kimi_cli: KimiCliHeaders,
}

/// The gateway of an install.
pub struct Gateway {
    setup: GatewaySetup,
    share: GatewayShare,
    bodies: BodyBudget,
    /// Makes the cache keys of clients that name no session: new with each process.
    process: [u8; 16],
}

/// A request that may be answered.
struct Admitted {
    route: GatewayRoute,
    form: ApiForm,
    key: GatewayKey,
    today: Day,
    used_today: KeyUsage,
}

/// Why a request is refused, and how much is read of its body first.
struct RequestDenied {
    error: GatewayError,
    body_max: usize,
}

/// The head of a request for the model.
#[derive(Clone, Copy)]
struct ModelRequestHead<'a> {
    route: GatewayRoute,
    /// Of its body and its answer.
    form: ApiForm,
    head: &'a Parts,
}

/// What Kimi has begun to say, and the place that it takes until its end.
struct BegunCall {
    answer: Result<KimiAnswer, KimiRefusal>,
    slot: ShareSlot,
}

impl Gateway {
    pub fn new(setup: GatewaySetup) -> Self {
        Self { setup, share: GatewayShare::new(), bodies: BodyBudget::default(), process: rand::random() }
    }

    /// Answers a request, whatever it is.
    pub async fn answer_request(&self, request: Request<Incoming>, local: LocalEnd) -> Response<Body> {
        let (head, body) = request.into_parts();
        let form = api_form_of(head.uri.path(), &head.headers);
        let is_health_check = is_health_check(&head.method, head.uri.path());
        if is_health_check && check_client(&head.method, &head.uri, &head.headers, local).is_ok() {
            return success_response(&json!({ "status": "ok" }));
        }
        let answered = match self.admit_request(&head, form, local).await {
            Ok(admitted) => self.answer_admitted(admitted, &head, body).await,
            Err(RequestDenied { error, body_max }) => {
                discard_refused_body(body, body_max).await;
                Err(error)
            }
        };
        answered.unwrap_or_else(|error| error.into_response(form))
    }

    /// Looks at a request's head only.
    async fn admit_request(
        &self,
        head: &Parts,
        form: ApiForm,
        local: LocalEnd,
    ) -> Result<Admitted, RequestDenied> {
        let stranger = |status, why: &str| RequestDenied {
            error: GatewayError::new(status, why),
            body_max: STRANGERS_BODY_MAX,
        };
        check_client(&head.method, &head.uri, &head.headers, local)
            .map_err(|denied| stranger(StatusCode::FORBIDDEN, denied.sentence()))?;
        let Some(hash) = presented_key(&head.headers) else {
            let why = "The gateway wants a key, as Authorization: Bearer or x-api-key; `nanokimi gateway keys add` makes one.";
            return Err(stranger(StatusCode::UNAUTHORIZED, why));
        };
        let today = Day::from_time(self.setup.clock.now(), &self.setup.zone);
        let found = self.setup.store.find_gateway_key(hash, today.date).await.map_err(|error| {
            tracing::error!("Failed to look a key of the gateway up: {error:#}");
            stranger(StatusCode::INTERNAL_SERVER_ERROR, "The gateway cannot read its keys; its log says why.")
        })?;
        let Some((key, used_today)) = found else {
            return Err(stranger(StatusCode::UNAUTHORIZED, "The gateway does not know this key."));
        };
        let denied = |error| RequestDenied { error, body_max: REFUSED_BODY_MAX };
        let Some(route) = find_route(&head.method, head.uri.path()) else {
            let why = format!("The gateway has no {} {}.", head.method, head.uri.path());
            return Err(denied(GatewayError::new(StatusCode::NOT_FOUND, why)));
        };
        let admitted = Admitted { route, form, key, today, used_today };
        self.check_daily_limit(&admitted).map_err(denied)?;
        Ok(admitted)
    }

    /// What costs tokens is refused when the day's are used up.
    fn check_daily_limit(&self, admitted: &Admitted) -> Result<(), GatewayError> {
        let Admitted { route, key, today, used_today, .. } = admitted;
        let is_used_up = |limit: &u64| route.asks_model() && used_today.tokens.counted_tokens() >= *limit;
        let Some(limit) = key.daily_tokens.filter(is_used_up) else { return Ok(()) };
        let ends = today.ends.to_zoned(self.setup.zone.clone());
        let why = format!(
            "The key {} has used up its {limit} tokens of today; it goes on at {}.",
            key.name,
            ends.strftime("%Y-%m-%d %H:%M %Z")
        );
        let left = Duration::try_from(today.ends.duration_since(self.setup.clock.now())).unwrap_or_default();
        Err(GatewayError::new(StatusCode::TOO_MANY_REQUESTS, why).retry_after(left))
    }

    async fn answer_admitted(
        &self,
        admitted: Admitted,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, GatewayError> {
        match admitted.route {
            GatewayRoute::Usage => Ok(self.answer_usage(&admitted)),
            GatewayRoute::Models => self.answer_models(&admitted, head).await,
            GatewayRoute::ChatCompletions | GatewayRoute::Messages | GatewayRoute::CountTokens => {
                self.answer_model_request(admitted, head, body).await
            }
            GatewayRoute::Responses => self.answer_responses_request(admitted, head, body).await,
        }
    }

    fn answer_usage(&self, admitted: &Admitted) -> Response<Body> {
        let Admitted { key, today, used_today: KeyUsage { requests, tokens }, .. } = admitted;
        success_response(&json!({
            "object": "usage", "key": key.name.as_str(), "day": today.date.to_string(), "requests": requests,
            "input_tokens": tokens.input, "cached_tokens": tokens.cached, "output_tokens": tokens.output,
            "daily_tokens": key.daily_tokens,
            "daily_tokens_left": key.daily_tokens.map(|limit| limit.saturating_sub(tokens.counted_tokens())),
            "resets_at": today.ends.to_string(),
        }))
    }

    async fn answer_models(&self, admitted: &Admitted, head: &Parts) -> Result<Response<Body>, GatewayError> {
        let call = KimiCall {
            method: head.method.clone(),
            path: "models",
            headers: headers_for_kimi(&head.headers, admitted.key.identity, &self.setup.kimi_cli),
            body: Bytes::new(),
            form: ApiForm::OpenAi,
            conversation: String::new(),
            asks_model: false,
        };
        let mut answer = self.setup.kimi.call(call, Duration::ZERO).await.map_err(error_of_refusal)?;
        let mut list = BytesMut::new();
        let read = timeout(MODELS_TIMEOUT, async {
            while let Ok(Some(piece)) = answer.body.next_piece().await
                && list.len() + piece.len() <= MODELS_MAX
            {
                list.extend_from_slice(&piece);
            }
        });
        read.await.ok();
        match list_models(&list, admitted.form, &admitted.key.models) {
            Some(list) => Ok(success_response(&list)),
            None => Err(GatewayError::new(StatusCode::BAD_GATEWAY, "Kimi's list of models cannot be read.")),
        }
    }

    /// A request that is passed on in the form in which it comes.
    async fn answer_model_request(
        &self,
        admitted: Admitted,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, GatewayError> {
        let body = self.buffer_body(body).await?;
        let (form, request) =
            (admitted.form, ModelRequestHead { route: admitted.route, form: admitted.form, head });
        let begun = self.begin_model_call(&admitted.key, &request, &body.bytes).await?;
        let answer = begun.answer.map_err(error_of_refusal)?;
        // Kimi has the request by now, so its part of the budget is free again.
        drop(body);
        Ok(pass_answer(answer, form, self.usage_record(admitted), Some(begun.slot)))
    }

    /// `POST /v1/responses` is made of a chat completion: the body becomes one, goes the way of
    /// [`Self::answer_model_request`], and its events become those of the Responses API.
    async fn answer_responses_request(
        &self,
        admitted: Admitted,
        head: &Parts,
        body: Incoming,
    ) -> Result<Response<Body>, GatewayError> {
        let body = self.buffer_body(body).await?;
        let chat = match to_chat_completions(&body.bytes) {
            Ok(chat) => chat,
            Err(error) => return Ok(responses_error_response(&error)),
        };
        let chat_head = ModelRequestHead { route: admitted.route, form: ApiForm::OpenAi, head };
        let begun = self.begin_model_call(&admitted.key, &chat_head, &chat.body.into()).await?;
        drop(body);
        let id = format!("resp_{}", hex::encode(rand::random::<[u8; 16]>()));
        let mut events = ResponseEvents::new(chat.form, id, self.setup.clock.now());
        let answer = match begun.answer {
            Ok(answer) => answer,
            // Codex compacts a conversation that is too long only if a stream says so.
            Err(refusal) => {
                let error = error_for_responses(&refusal);
                if chat.wants_stream && error.is_of_context_length() {
                    return Ok(event_stream_response(Body::from(events.break_off(error))));
                }
                return Err(error_of_refusal(refusal));
            }
        };
        let record = self.usage_record(admitted);
        if chat.wants_stream {
            return Ok(pass_as_response_events(answer, events, record, Some(begun.slot)));
        }
        let gathered = gather_response_object(answer, events, record, Some(begun.slot)).await;
        Ok(gathered.unwrap_or_else(|error| responses_error_response(&error)))
    }

    /// Asks Kimi with a body that the gateway has changed as it must.
    async fn begin_model_call(
        &self,
        key: &GatewayKey,
        request: &ModelRequestHead<'_>,
        body: &Bytes,
    ) -> Result<BegunCall, GatewayError> {
        let ModelRequestHead { route, form, head } = *request;
        let session = client_session(&head.headers).unwrap_or_else(|| self.session_of_key(key));
        let rewritten = rewrite_body(body, form, &session)
            .map_err(|fault| GatewayError::new(StatusCode::BAD_REQUEST, fault.to_string()))?;
        require_allowed_model(key, &rewritten.asked_model)?;
        let call = KimiCall {
            method: head.method.clone(),
            path: upstream_path(route, head.uri.query()).unwrap_or_default(),
            headers: headers_for_kimi(&head.headers, key.identity, &self.setup.kimi_cli),
            body: rewritten.bytes,
            form,
            conversation: rewritten.conversation,
            asks_model: route.asks_model(),
        };
        let began = Instant::now();
        loop {
            let slot = self.share.take_slot().await?;
            let answer = self.setup.kimi.call(call.clone(), began.elapsed()).await;
            let Some(free_at) = answer.as_ref().err().and_then(|refusal| refusal.free_at) else {
                return Ok(BegunCall { answer, slot });
            };
            // Whoever waits for an account keeps nobody from his place.
            drop(slot);
            self.setup.kimi.wait_for_account(&call.conversation, free_at).await;
        }
    }

    fn usage_record(&self, admitted: Admitted) -> UsageRecord {
        UsageRecord {
            store: self.setup.store.clone(),
            is_limited: admitted.key.daily_tokens.is_some(),
            key: admitted.key.name,
            day: admitted.today.date,
        }
    }

    async fn buffer_body(&self, body: Incoming) -> Result<BufferedBody, GatewayError> {
        let error = |status, why: &str| Err(GatewayError::new(status, why));
        match timeout(BODY_TIMEOUT, self.bodies.buffer_body(body)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyRejection::TooLong)) => {
                let why = format!("The request is longer than {} MiB.", BODY_MAX / (1024 * 1024));
                error(StatusCode::PAYLOAD_TOO_LARGE, &why)
            }
            Ok(Err(BodyRejection::Broken)) => error(StatusCode::BAD_REQUEST, "The request broke off."),
            Ok(Err(BodyRejection::NoRoom)) => {
                error(StatusCode::SERVICE_UNAVAILABLE, "The gateway holds as many long requests as it can.")
            }
            Err(_) => error(StatusCode::REQUEST_TIMEOUT, "The request came too slowly."),
        }
    }

    /// What stands for the session of a client that names none: the same for all that a key asks, until the gateway starts
    /// anew.
    fn session_of_key(&self, key: &GatewayKey) -> String {
        let digest = Sha256::new().chain_update(self.process).chain_update(key.name.as_str()).finalize();
        hex::encode(&digest[..16])
    }
}

fn require_allowed_model(key: &GatewayKey, model: &str) -> Result<(), GatewayError> {
    if is_model_allowed(model, &key.models) {
        return Ok(());
    }
    let shown: String = model.chars().take(100).collect();
    let why = format!(
        "The key {} may not use the model {shown:?}; it may use {}.",
        key.name,
        key.models.join(", ")
    );
    Err(GatewayError::new(StatusCode::FORBIDDEN, why))
}

fn error_of_refusal(refusal: KimiRefusal) -> GatewayError {
    let KimiRefusal { status, kind, reason, retry_after, .. } = refusal;
    GatewayError { status, kind: Some(kind), message: reason, retry_after }
}

fn error_for_responses(refusal: &KimiRefusal) -> ResponsesError {
    let (kind, reason) = (refusal.kind.clone(), refusal.reason.clone());
    ResponsesError::from_api_error(refusal.status.as_u16(), &ApiError { kind, reason })
}

fn responses_error_response(error: &ResponsesError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    json_response(status, error.to_body())
}

/// Reads what is left of a refused request, within bounds.
async fn discard_refused_body(body: Incoming, most: usize) {
    let mut pieces = Body::new(body).into_data_stream();
    let mut discarded: usize = 0;
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            discarded = discarded.saturating_add(piece.len());
            if discarded > most {
                return;
            }
        }
    };
    timeout(REFUSED_BODY_TIMEOUT, read).await.ok();
}

fn success_response(value: &Value) -> Response<Body> {
    json_response(StatusCode::OK, value.to_string())
}
