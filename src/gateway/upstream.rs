//! The gateway's way to the Kimi API: one request goes out with the login, its answer comes back as a stream. Chooses
//! nothing and tries nothing twice.

use std::time::Duration;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::anthropic_meter::AnthropicMeter;
use super::meter::{Meter, MeterReading, StreamEnding};
use super::routes::ApiForm;
use crate::api_error::ApiError;
use crate::kimi_http::{bearer_header, build_kimi_http_client};
use crate::types::{Authorization, Secret, TokenUsage};

/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent, before it answers and between two pieces of an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How much of an error's body is read, and how long that may take.
const ERROR_MAX: usize = 16 * 1024;
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);

/// One request to the Kimi API in a client's place.
#[derive(Clone, Debug)]
pub struct KimiCall {
    pub method: Method,
    /// Beneath the API's base, such as `chat/completions`.
    pub path: &'static str,
    /// All but the login.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whose form the request and its answer have.
    pub form: ApiForm,
    /// What tells the conversation apart, so that the same account goes on with it.
    pub conversation: Option<String>,
}

/// A good answer, of which the body is still to come.
#[derive(Debug)]
pub struct KimiAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: AnswerStream,
}

/// Why there is no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KimiRefusal {
    pub status: StatusCode,
    /// Kimi's own word for it; empty if it has none.
    pub kind: String,
    /// A sentence for the person in front of the client.
    pub reason: String,
    pub retry_after: Option<Duration>,
}

/// A part of the answer is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerCutShort(pub String);

/// The Kimi API, and the login for it.
#[derive(Clone, Debug)]
pub struct KimiApi {
    client: reqwest::Client,
    base: String,
    authorization: watch::Receiver<Authorization>,
}

impl KimiApi {
    /// `base` is the API without a slash at its end. `authorization` is read at every request.
    ///
    /// # Errors
    /// No login may be sent to `base`, or TLS cannot be set up.
    pub async fn new(base: &str, authorization: watch::Receiver<Authorization>) -> Result<Self> {
        let client = build_kimi_http_client(base, |client| {
            client.connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_TIMEOUT)
        })
        .await?;
        Ok(Self { client, base: base.to_owned(), authorization })
    }

    /// Asks the API once.
    pub async fn call(&self, call: KimiCall) -> Result<KimiAnswer, KimiRefusal> {
        let authorization = self.authorization.borrow().clone();
        let token = match authorization {
            Authorization::ApiKey(token) | Authorization::Login(token) => token,
            Authorization::Missing(_) => return Err(not_logged_in()),
        };
        let mut headers = call.headers;
        headers.insert(header::AUTHORIZATION, bearer_header(&token).ok_or_else(not_logged_in)?);
        let request =
            self.client.request(call.method, format!("{}/{}", self.base, call.path)).headers(headers);
        let request = if call.body.is_empty() { request } else { request.body(call.body) };
        let answer = request.send().await.map_err(|error| {
            tracing::warn!("The Kimi API cannot be reached: {}", error.without_url());
            unreachable_api("The Kimi API cannot be reached.")
        })?;
        if !answer.status().is_success() {
            return Err(read_refusal(answer, &token).await);
        }
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let meter = Meter::new(content_type.unwrap_or_default());
        let is_event_stream = matches!(meter, Meter::Events(_));
        let meter = match (call.form, meter) {
            // Somebody on the way answers in the API's place, such as a hotel's sign-in page.
            (_, Meter::Other) => return Err(unreachable_api("What answers is not the Kimi API.")),
            (ApiForm::OpenAi, meter) => AnswerMeter::OpenAi(meter),
            (ApiForm::Anthropic, _) => AnswerMeter::Anthropic(AnthropicMeter::new(is_event_stream)),
        };
        Ok(KimiAnswer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: AnswerStream { answer, meter, is_event_stream, tokens: TokenUsage::default() },
        })
    }
}

/// An answer while it comes. Dropping it breaks the request off.
#[derive(Debug)]
pub struct AnswerStream {
    answer: reqwest::Response,
    meter: AnswerMeter,
    is_event_stream: bool,
    tokens: TokenUsage,
}

#[derive(Debug)]
enum AnswerMeter {
    OpenAi(Meter),
    Anthropic(AnthropicMeter),
}

impl AnswerStream {
    /// The next piece as it came, or `None` at the end of a whole answer. Nothing is lost when the call is dropped before
    /// it ends.
    ///
    /// # Errors
    /// A part of the answer is missing; nothing more will come.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, AnswerCutShort> {
        match self.answer.chunk().await {
            Ok(Some(piece)) => {
                let seen = match &mut self.meter {
                    AnswerMeter::OpenAi(meter) => meter.read_piece(&piece),
                    AnswerMeter::Anthropic(meter) => meter.read_piece(&piece),
                };
                self.count_tokens(seen);
                Ok(Some(piece))
            }
            Ok(None) => {
                let (seen, ending) = match &mut self.meter {
                    AnswerMeter::OpenAi(meter) => meter.finish_reading(),
                    AnswerMeter::Anthropic(meter) => meter.finish_reading(),
                };
                self.count_tokens(seen);
                match ending {
                    StreamEnding::Whole => Ok(None),
                    StreamEnding::CutShort => Err(AnswerCutShort("it ended too early".to_owned())),
                }
            }
            Err(error) => Err(AnswerCutShort(error.without_url().to_string())),
        }
    }

    /// The tokens that the answer has told of so far.
    pub fn tokens_seen(&self) -> TokenUsage {
        self.tokens
    }

    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    fn count_tokens(&mut self, seen: Vec<MeterReading>) {
        for reading in seen {
            match reading {
                MeterReading::Usage(more) => self.tokens += more,
                // The client reads it in the stream.
                MeterReading::ApiError(_) => {}
            }
        }
    }
}

async fn read_refusal(mut answer: reqwest::Response, token: &Secret) -> KimiRefusal {
    let status = answer.status();
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|secs| secs.trim().parse().ok()).map(Duration::from_secs);
    let mut body = BytesMut::new();
    let read = async {
        while let Ok(Some(piece)) = answer.chunk().await {
            let left = ERROR_MAX - body.len();
            body.extend_from_slice(&piece[..piece.len().min(left)]);
            if body.len() == ERROR_MAX {
                return;
            }
        }
    };
    // What has come by then is enough.
    timeout(ERROR_TIMEOUT, read).await.ok();
    let ApiError { kind, reason } =
        ApiError::from_error_body(token.redact_from(&String::from_utf8_lossy(&body)).as_bytes());
    if status == StatusCode::UNAUTHORIZED {
        return KimiRefusal { kind, retry_after, ..not_logged_in() };
    }
    let reason =
        if reason.is_empty() { format!("Kimi answers with HTTP {}.", status.as_u16()) } else { reason };
    KimiRefusal { status, kind, reason, retry_after }
}

fn not_logged_in() -> KimiRefusal {
    KimiRefusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        kind: String::new(),
        reason: "nanokimi has no login that Kimi takes; run `nanokimi login`.".to_owned(),
        retry_after: None,
    }
}

fn unreachable_api(reason: &str) -> KimiRefusal {
    KimiRefusal {
        status: StatusCode::BAD_GATEWAY,
        kind: "connection_error".to_owned(),
        reason: reason.to_owned(),
        retry_after: None,
    }
}
