//! One answer of the Kimi API on its way to the engine: each piece is metered, then passed on at once.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;

use super::api_routes::ApiRoute;
use super::ledger::Ledger;
use super::meter::{Meter, MeterReading, StreamEnding};
use super::request_check::NamedModel;
use super::retry_policy;
use crate::types::{Failure, Secret, Trouble};

/// What ends an event stream of which a part is missing: whatever line was cut, then an error in OpenAI's
/// shape.
const BROKEN_OFF: &str = "\n\ndata: {\"error\":{\"message\":\"Connection error. The model's answer broke off.\",\
    \"type\":\"stream_broken\"}}\n\n";

/// One answer on its way.
pub struct ResponseStream {
    pub answer: reqwest::Response,
    pub meter: Meter,
    pub route: ApiRoute,
    pub model: NamedModel,
    /// Whether an answer that began well has said that it cannot go on.
    pub error_reported: bool,
    /// Cut out of the API's errors.
    pub login: Secret,
    pub ledger: Arc<Ledger>,
    /// The place among the requests of one group; free again when the answer has ended.
    pub _permit: Option<OwnedSemaphorePermit>,
}

impl ResponseStream {
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
                if !self.error_reported {
                    // Whatever failed meanwhile was another request's.
                    self.ledger.record_success(self.route);
                }
                Ok(None)
            }
            Err(error) => Err(self.record_cut_short(&render_error_chain(&error.without_url()))),
        }
    }

    fn record_meter_reading(&mut self, seen: MeterReading) {
        match seen {
            MeterReading::Usage(usage) => self.ledger.add_usage(usage),
            MeterReading::ApiError(api_error) => {
                self.error_reported = true;
                let detail = self.login.redact_from(&api_error.to_string());
                let trouble = match self.model {
                    NamedModel::Configured => retry_policy::classify_stream_error(&api_error),
                    NamedModel::Another | NamedModel::NamedTwice => Trouble::BadRequest,
                };
                self.ledger.record_failure(self.route, Failure::new(trouble, detail));
            }
        }
    }

    fn record_cut_short(&self, why: &str) -> ResponseCutShort {
        let why = format!("The answer of the Kimi API was cut short: {why}");
        tracing::warn!("{why}");
        self.ledger.record_failure(self.route, Failure::new(Trouble::Unreachable, why));
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

/// An error with what lies behind it, on one line.
pub fn render_error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
