//! One answer on its way to a client: each event passes as soon as it is whole, a comment keeps the connection alive
//! while Kimi is silent, and what breaks off ends in an error of the client's own API.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::{Response, StatusCode};
use jiff::civil::Date;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::error_format::GatewayError;
use super::event_stream::{EventBuffer, KEEP_ALIVE};
use super::headers::headers_for_client;
use super::routes::ApiForm;
use super::share::ShareSlot;
use super::upstream::{AnswerCutShort, AnswerStream, KimiAnswer};
use crate::store::{KeyUsage, Store};
use crate::types::{KeyName, TokenUsage};

/// How long a stream may be silent before a comment is sent: clients and proxies give up after a minute and more.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// What one request has used, to be written down once.
pub struct UsageRecord {
    pub store: Store,
    pub key: KeyName,
    pub day: Date,
}

impl UsageRecord {
    pub async fn write_down(self, tokens: TokenUsage) {
        let used = KeyUsage { requests: 1, tokens };
        if let Err(error) = self.store.add_gateway_usage(&self.key, self.day, used).await {
            tracing::error!(key = %self.key, "Failed to note what a key of the gateway has used: {error:#}");
        }
    }
}

/// Passes an answer on. `slot` is free again when it has ended.
pub fn pass_answer(
    answer: KimiAnswer,
    form: ApiForm,
    record: UsageRecord,
    slot: Option<ShareSlot>,
) -> Response<Body> {
    let events = answer.body.is_event_stream().then(EventBuffer::default);
    let passing = PassingAnswer {
        body: answer.body,
        events,
        form,
        record: Some(record),
        has_ended: false,
        _slot: slot,
    };
    let body = stream::unfold(passing, |mut passing| async move {
        let piece = passing.next_piece().await?;
        Some((piece, passing))
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers_for_client(&answer.headers);
    response
}

struct PassingAnswer {
    body: AnswerStream,
    /// Of an event stream.
    events: Option<EventBuffer>,
    form: ApiForm,
    /// Until it is written down.
    record: Option<UsageRecord>,
    has_ended: bool,
    _slot: Option<ShareSlot>,
}

impl PassingAnswer {
    async fn next_piece(&mut self) -> Option<Result<Bytes, CutConnection>> {
        if self.has_ended {
            return None;
        }
        let Some(events) = &mut self.events else { return self.next_piece_of_whole().await };
        loop {
            match timeout(KEEP_ALIVE_EVERY, self.body.next_piece()).await {
                Err(_) if events.is_between_events() => {
                    return Some(Ok(Bytes::from_static(KEEP_ALIVE.as_bytes())));
                }
                Err(_) => {}
                Ok(Ok(Some(piece))) => {
                    let whole = events.add_piece(piece);
                    if !whole.is_empty() {
                        return Some(Ok(whole));
                    }
                }
                Ok(Ok(None)) => {
                    let rest = events.take_rest();
                    self.end().await;
                    return (!rest.is_empty()).then_some(Ok(rest));
                }
                Ok(Err(AnswerCutShort(why))) => {
                    tracing::warn!("An answer of the Kimi API was cut short: {why}");
                    let error =
                        GatewayError::new(StatusCode::BAD_GATEWAY, "Kimi's answer broke off; ask again.");
                    let event = error.to_event(self.form);
                    // Whatever line was cut ends here.
                    let event = if events.is_between_events() {
                        event
                    } else {
                        [&b"\n\n"[..], &event].concat().into()
                    };
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
        if let Some(record) = self.record.take() {
            record.write_down(self.body.tokens_seen()).await;
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
