//! The gateway's way to the Kimi API: by the relay, which chooses the account, has logins renewed and tries again.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use jiff::Timestamp;

use super::anthropic_meter::AnthropicMeter;
use super::routes::ApiForm;
use crate::relay::meter::{Meter, MeterReading, StreamEnding};
use crate::relay::{
    ANSWER_TIMEOUT, AnswerObserver, ApiAnswer, ApiCall, ApiRoute, AskedModel, KimiSender, KimiUpstream,
    Refusal,
};
use crate::types::{Failure, TokenUsage, Trouble};

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
    pub conversation: String,
    /// Whether it is answered by the model, and so from the account's allowance.
    pub asks_model: bool,
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
    /// All accounts are left alone until then: who can wait asks again.
    pub free_at: Option<Timestamp>,
}

/// A part of the answer is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerCutShort(pub String);

/// The Kimi API with the accounts of the install.
#[derive(Clone, Debug)]
pub struct KimiApi {
    sender: KimiSender,
}

impl KimiApi {
    /// # Errors
    /// No login may be sent to this API, or TLS cannot be set up.
    pub async fn new(upstream: &KimiUpstream) -> Result<Self> {
        Ok(Self { sender: KimiSender::new(upstream).await? })
    }

    /// Asks the API until there is an answer to pass on. `waited` is how long the client has waited already.
    ///
    /// # Errors
    /// There is none.
    pub async fn call(&self, call: KimiCall, waited: Duration) -> Result<KimiAnswer, KimiRefusal> {
        let api_call = ApiCall {
            method: call.method,
            path: call.path.to_owned(),
            headers: call.headers,
            body: call.body,
            route: if call.asks_model { ApiRoute::Model } else { ApiRoute::OtherEndpoint },
            model: AskedModel::Configured,
            conversation: call.conversation,
            waited,
            patience: ANSWER_TIMEOUT,
            waits_for_account: false,
        };
        match self.sender.send_with_retries(&api_call, &Unobserved).await {
            Ok(answer) => Ok(begun_answer(answer, call.form)),
            Err(refusal) => Err(refusal_for_client(*refusal)),
        }
    }

    /// Waits until then, or until an account can be asked sooner.
    pub async fn wait_for_account(&self, conversation: &str, free_at: Timestamp) {
        self.sender.wait_for_account(conversation, free_at).await;
    }
}

/// The client itself reads how its request goes.
struct Unobserved;

impl AnswerObserver for Unobserved {
    fn add_usage(&self, _usage: TokenUsage) {}

    fn record_failure(&self, _failure: Failure) {}

    fn record_success(&self) {}
}

fn begun_answer(answer: ApiAnswer, form: ApiForm) -> KimiAnswer {
    let ApiAnswer { response, meter, .. } = answer;
    let is_event_stream = matches!(meter, Meter::Events(_));
    let meter = match form {
        ApiForm::OpenAi => AnswerMeter::OpenAi(meter),
        ApiForm::Anthropic => AnswerMeter::Anthropic(AnthropicMeter::new(is_event_stream)),
    };
    KimiAnswer {
        status: response.status(),
        headers: response.headers().clone(),
        body: AnswerStream { response, meter, is_event_stream, tokens: TokenUsage::default() },
    }
}

/// What a client's key has to do with it is nothing: a login that Kimi refuses is the host's trouble.
fn refusal_for_client(refusal: Refusal) -> KimiRefusal {
    let Refusal { response, trouble, free_at, .. } = refusal;
    if trouble == Some(Trouble::NotLoggedIn) {
        return KimiRefusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: String::new(),
            reason: "nanokimi has no login that Kimi takes; run `nanokimi login`.".to_owned(),
            retry_after: None,
            free_at: None,
        };
    }
    let reason = match response.api_error.reason.as_str() {
        "" => format!("Kimi answers with HTTP {}.", response.status.as_u16()),
        reason => reason.to_owned(),
    };
    KimiRefusal {
        status: response.status,
        kind: response.api_error.kind,
        reason,
        retry_after: response.retry_after,
        free_at,
    }
}

/// An answer while it comes. Dropping it breaks the request off.
#[derive(Debug)]
pub struct AnswerStream {
    response: reqwest::Response,
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
        let broken = match self.response.chunk().await {
            Ok(Some(piece)) => {
                let seen = match &mut self.meter {
                    AnswerMeter::OpenAi(meter) => meter.read_piece(&piece),
                    AnswerMeter::Anthropic(meter) => meter.read_piece(&piece),
                };
                self.count_tokens(seen);
                return Ok(Some(piece));
            }
            Ok(None) => None,
            Err(error) => Some(error.without_url().to_string()),
        };
        let (seen, ending) = match &mut self.meter {
            AnswerMeter::OpenAi(meter) => meter.finish_reading(),
            AnswerMeter::Anthropic(meter) => meter.finish_reading(),
        };
        self.count_tokens(seen);
        match (ending, broken) {
            (StreamEnding::Whole, None) => Ok(None),
            // It had said everything, so whoever asked again would pay for it twice.
            (StreamEnding::Whole, Some(_)) if self.is_event_stream => Ok(None),
            (StreamEnding::Whole | StreamEnding::CutShort, Some(why)) => Err(AnswerCutShort(why)),
            (StreamEnding::CutShort, None) => Err(AnswerCutShort("it ended too early".to_owned())),
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
