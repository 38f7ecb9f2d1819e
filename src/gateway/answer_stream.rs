//! One answer on its way to a client: each event passes as soon as it is whole, a comment keeps the connection alive
//! while Kimi is silent, and what breaks off ends in an error of the client's own API.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::civil::Date;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::error_format::{GatewayError, json_response};
use super::event_stream::{EventBuffer, KEEP_ALIVE};
use super::headers::headers_for_client;
use super::responses::{ResponseEvents, ResponsesError};
use super::routes::ApiForm;
use super::share::ShareSlot;
use super::upstream::{AnswerCutShort, AnswerStream, KimiAnswer};
use crate::store::{KeyUsage, Store};
use crate::types::{KeyName, TokenUsage};

/// What a client is told of an answer that is not whole.
const BROKE_OFF: &str = "Kimi's answer broke off; ask again.";
/// How long a stream may be silent before a comment is sent: clients and proxies give up after a minute and more.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// What one request has used, to be written down once.
pub struct UsageRecord {
    pub store: Store,
    pub key: KeyName,
    pub day: Date,
    /// Whether the key's next request must find it. If so, the end of the answer waits for the disk.
    pub is_limited: bool,
}

impl UsageRecord {
    pub async fn write_down(self, tokens: TokenUsage) {
        let used = KeyUsage { requests: 1, tokens };
        if let Err(error) = self.store.add_gateway_usage(&self.key, self.day, used).await {
            tracing::error!(key = %self.key, "Failed to note what a key of the gateway has used: {error:#}");
        }
    }
}

/// Passes an answer on as it comes. `slot` is free again when it has ended.
pub fn pass_answer(
    answer: KimiAnswer,
    form: ApiForm,
    record: UsageRecord,
    slot: Option<ShareSlot>,
) -> Response<Body> {
    let events =
        answer.body.is_event_stream().then(|| EventPassage::AsTheyCome(EventBuffer::default(), form));
    let (status, headers) = (answer.status, headers_for_client(&answer.headers));
    let mut response = Response::new(PassingAnswer::new(answer.body, events, record, slot).into_body());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Passes a chat completion on as the events of the Responses API.
pub fn pass_as_response_events(
    answer: KimiAnswer,
    events: ResponseEvents,
    record: UsageRecord,
    slot: Option<ShareSlot>,
) -> Response<Body> {
    let events = Some(EventPassage::AsResponse(Box::new(events)));
    event_stream_response(PassingAnswer::new(answer.body, events, record, slot).into_body())
}

/// Gathers a chat completion, and answers with one object of the Responses API.
///
/// # Errors
/// The answer broke off, or says that it cannot go on.
pub async fn gather_response_object(
    answer: KimiAnswer,
    mut events: ResponseEvents,
    record: UsageRecord,
    slot: Option<ShareSlot>,
) -> Result<Response<Body>, ResponsesError> {
    let mut passing = PassingAnswer::new(answer.body, None, record, slot);
    loop {
        match passing.body.next_piece().await {
            Ok(Some(piece)) => {
                drop(events.read_piece(&piece));
                if events.has_failed() {
                    break;
                }
            }
            Ok(None) => break,
            Err(AnswerCutShort(why)) => {
                tracing::warn!("An answer of the Kimi API was cut short: {why}");
                events.break_off(ResponsesError::broken_answer(BROKE_OFF));
                break;
            }
        }
    }
    passing.end().await;
    Ok(json_response(StatusCode::OK, events.into_response_object()?))
}

/// A stream of events that is a success, whatever they say.
pub fn event_stream_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// How the events of a stream reach the client.
enum EventPassage {
    /// In the client's own form.
    AsTheyCome(EventBuffer, ApiForm),
    AsResponse(Box<ResponseEvents>),
}

impl EventPassage {
    fn read_piece(&mut self, piece: Bytes) -> Bytes {
        match self {
            Self::AsTheyCome(events, _) => events.add_piece(piece),
            Self::AsResponse(events) => events.read_piece(&piece).into(),
        }
    }

    /// Whether the client has got its last event while Kimi still sends.
    fn has_ended(&self) -> bool {
        match self {
            Self::AsTheyCome(..) => false,
            Self::AsResponse(events) => events.has_failed(),
        }
    }

    /// Whether something of our own may be sent now.
    fn is_between_events(&self) -> bool {
        match self {
            Self::AsTheyCome(events, _) => events.is_between_events(),
            Self::AsResponse(_) => true,
        }
    }

    /// The last bytes when Kimi's stream has ended.
    fn finish(&mut self) -> Bytes {
        match self {
            Self::AsTheyCome(events, _) => events.take_rest(),
            Self::AsResponse(events) => events.finish().into(),
        }
    }

    /// The last bytes when it broke off: the error of the client's own API.
    fn break_off(&mut self) -> Bytes {
        match self {
            Self::AsTheyCome(events, form) => {
                let event = GatewayError::new(StatusCode::BAD_GATEWAY, BROKE_OFF).to_event(*form);
                // Whatever line was cut ends here.
                if events.is_between_events() { event } else { [&b"\n\n"[..], &event].concat().into() }
            }
            Self::AsResponse(events) => events.break_off(ResponsesError::broken_answer(BROKE_OFF)).into(),
        }
    }
}

struct PassingAnswer {
    body: AnswerStream,
    /// Of an event stream.
    events: Option<EventPassage>,
    /// Until it is written down.
    record: Option<UsageRecord>,
    has_ended: bool,
    _slot: Option<ShareSlot>,
}

impl PassingAnswer {
    fn new(
        body: AnswerStream,
        events: Option<EventPassage>,
        record: UsageRecord,
        slot: Option<ShareSlot>,
    ) -> Self {
        Self { body, events, record: Some(record), has_ended: false, _slot: slot }
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut passing| async move {
            let piece = passing.next_piece().await?;
            Some((piece, passing))
        }))
    }

    async fn next_piece(&mut self) -> Option<Result<Bytes, CutConnection>> {
        if self.has_ended {
            return None;
        }
        let Some(events) = &mut self.events else { return self.next_piece_of_whole().await };
        // Since the client has heard something, which not every piece of Kimi's makes it.
        let mut quiet_since = Instant::now();
        loop {
            match timeout_at(quiet_since + KEEP_ALIVE_EVERY, self.body.next_piece()).await {
                Err(_) if events.is_between_events() => {
                    return Some(Ok(Bytes::from_static(KEEP_ALIVE.as_bytes())));
                }
                Err(_) => quiet_since = Instant::now(),
                Ok(Ok(Some(piece))) => {
                    let whole = events.read_piece(piece);
                    if events.has_ended() {
                        self.end().await;
                        return (!whole.is_empty()).then_some(Ok(whole));
                    }
                    if !whole.is_empty() {
                        return Some(Ok(whole));
                    }
                }
                Ok(Ok(None)) => {
                    let rest = events.finish();
                    self.end().await;
                    return (!rest.is_empty()).then_some(Ok(rest));
                }
                Ok(Err(AnswerCutShort(why))) => {
                    tracing::warn!("An answer of the Kimi API was cut short: {why}");
                    let event = events.break_off();
                    self.end().await;
                    return Some(Ok(event));
                }
            }
        }
    }

    /// An answer in one piece of JSON: if it is cut, so is the connection, which is how HTTP says that something is
    /// missing.
    async fn next_piece_of_whole(&mut self) -> Option<Result<Bytes, CutConnection>> {
        match self.body.next_piece().await {
            Ok(Some(piece)) => Some(Ok(piece)),
            Ok(None) => {
                self.end().await;
                None
            }
            Err(AnswerCutShort(why)) => {
                tracing::warn!("An answer of the Kimi API was cut short: {why}");
                self.end().await;
                // hyper sends what it has only while it waits for more; an error at once would swallow it.
                yield_now().await;
                Some(Err(CutConnection))
            }
        }
    }

    async fn end(&mut self) {
        self.has_ended = true;
        match self.record.take() {
            Some(record) if record.is_limited => record.write_down(self.body.tokens_seen()).await,
            Some(record) => drop(tokio::spawn(record.write_down(self.body.tokens_seen()))),
            None => {}
        }
    }
}

impl Drop for PassingAnswer {
    /// The client has hung up: what it has used until then counts.
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(record.write_down(self.body.tokens_seen()));
        }
    }
}

/// Ends a client's connection in the middle of an answer.
#[derive(Debug)]
struct CutConnection;

impl fmt::Display for CutConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of the Kimi API was cut short")
    }
}

impl std::error::Error for CutConnection {}
