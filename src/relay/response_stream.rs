//! One answer of the Kimi API on its way to its caller: each piece is metered, then passed on at once.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;

use super::api_call::{AnswerObserver, AskedModel};
use super::error_response::render_error_chain;
use super::meter::{Meter, MeterReading, StreamEnding};
use super::retry_policy;
use super::sender::ApiAnswer;
use crate::types::{Failure, Trouble};

/// What ends an event stream of which a part is missing: whatever line was cut, then an error in OpenAI's
/// shape.
const BROKEN_OFF: &str = "\n\ndata: {\"error\":{\"message\":\"Connection error. The model's answer broke off.\",\
    \"type\":\"stream_broken\"}}\n\n";

/// One answer on its way.
pub struct ResponseStream {
    answer: ApiAnswer,
    model: AskedModel,
    /// Whether an answer that began well has said that it cannot go on.
    error_reported: bool,
    observer: Arc<dyn AnswerObserver>,
    /// The place among its caller's requests; free again when the answer has ended.
    _permit: Option<OwnedSemaphorePermit>,
}

impl ResponseStream {
    pub fn new(
        answer: ApiAnswer,
        model: AskedModel,
        observer: Arc<dyn AnswerObserver>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { answer, model, error_reported: false, observer, _permit: permit }
    }

    pub fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), |response_stream| async {
            let mut response_stream = response_stream?;
            match response_stream.next_piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(response_stream))),
                Ok(None) => None,
                // A broken connection would make kimi-cli ask again by itself, unseen, and say the first part
                // twice; this ends its turn at once, with an error that the session understands.
                Err(ResponseCutShort) if response_stream.is_event_stream() => {
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
        }))
    }

    fn is_event_stream(&self) -> bool {
        matches!(self.answer.meter, Meter::Events(_))
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, ResponseCutShort> {
        match self.answer.response.chunk().await {
            Ok(Some(piece)) => {
                for seen in self.answer.meter.read_piece(&piece) {
                    self.record_meter_reading(seen);
                }
                Ok(Some(piece))
            }
            Ok(None) => {
                let (seen, ending) = self.answer.meter.finish_reading();
                seen.into_iter().for_each(|seen| self.record_meter_reading(seen));
                if ending == StreamEnding::CutShort {
                    return Err(self.record_cut_short("it ended too early"));
                }
                if !self.error_reported {
                    // Whatever failed meanwhile was another request's.
                    self.observer.record_success();
                }
                Ok(None)
            }
            Err(error) => Err(self.record_cut_short(&render_error_chain(&error.without_url()))),
        }
    }

    fn record_meter_reading(&mut self, seen: MeterReading) {
        match seen {
            MeterReading::Usage(usage) => self.observer.add_usage(usage),
            MeterReading::ApiError(api_error) => {
                self.error_reported = true;
                let detail = self.answer.login.redact_from(&api_error.to_string());
                let trouble = match self.model {
                    AskedModel::Configured => retry_policy::classify_stream_error(&api_error),
                    AskedModel::Another => Trouble::BadRequest,
                };
                self.observer.record_failure(Failure::new(trouble, detail));
            }
        }
    }

    fn record_cut_short(&self, why: &str) -> ResponseCutShort {
        let why = format!("The answer of the Kimi API was cut short: {why}");
        tracing::warn!("{why}");
        self.observer.record_failure(Failure::new(Trouble::Unreachable, why));
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
