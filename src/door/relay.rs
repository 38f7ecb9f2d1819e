//! Carries one request from a container to the Kimi API with the real login, and the answer back, both as
//! they come. Keeps in the ledger what the session should know of it.
//!
//! TLS trusts what this system trusts (its CA store, or `SSL_CERT_FILE`). `HTTPS_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` are honoured for the Kimi API, as reqwest does by default; a server on this machine is always
//! reached directly. Redirects are not followed: the login goes to one host only.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use reqwest::Url;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{spawn_blocking, yield_now};

use super::Upstream;
use super::ledger::Ledger;
use super::meter::{Ending, Meter, Seen};
use super::road::{self, Closed};
use crate::types::{Authorization, Failure, Secret, Trouble};

/// Largest request body in bytes: a long history with some photos in it stays below.
const REQUEST_BODY_MAX: u64 = 32 * 1024 * 1024;
/// What is read of the body of a request that is refused: twice of what is let through.
const DISCARD_MAX: u64 = 2 * REQUEST_BODY_MAX;
/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent: before it answers (the upload counts too), and between two pieces of an
/// answer. A model that thinks streams its thoughts, so minutes of silence mean a dead line.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The way from one door to the Kimi API. An answer as a whole has no timeout: turns have one.
#[derive(Debug)]
pub struct Relay {
    client: reqwest::Client,
    base: String,
    authorization: watch::Receiver<Authorization>,
    refusals: watch::Sender<Option<Secret>>,
    ledger: Arc<Ledger>,
}

impl Relay {
    pub async fn new(upstream: Upstream, ledger: Arc<Ledger>) -> Result<Self> {
        let Upstream { base, authorization, refusals, client } = upstream;
        let place = Place::of(&base)?;
        let make = async || spawn_blocking(move || client_for(place)).await?;
        let client = client.get_or_try_init(make).await?.clone();
        Ok(Self { client, base, authorization, refusals, ledger })
    }

    /// Answers a request from inside, whatever it is.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match self.prepare(&head, body.size_hint().exact()) {
            Ok((outgoing, login)) => self.carry(outgoing, body, login).await,
            Err(refused) => {
                discard(body).await;
                refused.response()
            }
        }
    }

    /// What goes to the API in place of the request, without its body, which has `length` bytes if that is
    /// known.
    fn prepare(
        &self,
        head: &Parts,
        length: Option<u64>,
    ) -> Result<(reqwest::RequestBuilder, Secret), Refused> {
        let path = road::to_kimi(&head.method, &head.uri)
            .map_err(|Closed { status, why }| Refused::new(status, "invalid_request_error", why))?;
        if length.is_some_and(|length| length > REQUEST_BODY_MAX) {
            return Err(Refused::too_long());
        }
        let login = match &*self.authorization.borrow() {
            Authorization::ApiKey(login) | Authorization::Login(login) => login.clone(),
            Authorization::Missing(why) => return Err(self.not_logged_in(why)),
        };
        let bearer = bearer(&login).ok_or_else(|| {
            self.not_logged_in("The Kimi login cannot be sent: it contains characters that no login has.")
        })?;
        let url = Url::parse(&format!("{}/{path}", self.base)).map_err(|_| {
            Refused::new(
                StatusCode::NOT_FOUND,
                "invalid_request_error",
                "There is no such path in the Kimi API.",
            )
        })?;
        let mut headers = road::outbound(&head.headers);
        headers.insert(header::AUTHORIZATION, bearer);
        if let Some(length) = length.filter(|length| *length > 0) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok((self.client.request(head.method.clone(), url).headers(headers), login))
    }

    async fn carry(
        &self,
        outgoing: reqwest::RequestBuilder,
        body: Incoming,
        login: Secret,
    ) -> Response<Body> {
        let too_long = TooLong::default();
        let outgoing = if body.is_end_stream() { outgoing } else { outgoing.body(too_long.watch(body)) };
        match outgoing.send().await {
            Ok(answer) => self.pass_back(answer, login),
            Err(_) if too_long.happened() => Refused::too_long().response(),
            Err(error) => {
                let why = format!("The Kimi API cannot be reached: {}", causes(&error.without_url()));
                tracing::warn!("{why}");
                self.ledger.failed(Failure::new(Trouble::Unreachable, &why));
                Refused::new(StatusCode::BAD_GATEWAY, "connection_error", why).response()
            }
        }
    }

    fn not_logged_in(&self, why: &str) -> Refused {
        self.ledger.failed(Failure::new(Trouble::NotLoggedIn, why));
        Refused::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", why)
    }

    /// The answer as it comes: each piece is metered, then passed on at once.
    fn pass_back(&self, answer: reqwest::Response, login: Secret) -> Response<Body> {
        let status = answer.status();
        tracing::debug!(status = status.as_u16(), "the Kimi API answers");
        if status == StatusCode::UNAUTHORIZED {
            self.refusals.send_replace(Some(login.clone()));
        }
        let headers = road::inbound(answer.headers());
        let content_type =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let meter = Meter::new(status.is_success(), content_type, answer.content_length());
        let mut passage = Passage { answer, meter, login, status, ledger: Arc::clone(&self.ledger) };
        passage.note_status();
        let body = stream::unfold(Some(passage), |passage| async {
            let mut passage = passage?;
            match passage.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(passage))),
                Ok(None) => None,
                // A broken connection would make kimi-cli ask again by itself, unseen, and say the first part
                // twice; this ends its turn at once, with an error that the session understands.
                Err(CutShort) if passage.is_event_stream() => {
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

/// What ends an event stream of which a part is missing: whatever line was cut, then an error in OpenAI's shape.
const BROKEN_OFF: &str = "\n\ndata: {\"error\":{\"message\":\"Connection error. The model's answer broke off.\",\
    \"type\":\"stream_broken\"}}\n\n";

/// One answer on its way.
struct Passage {
    answer: reqwest::Response,
    meter: Meter,
    /// Cut out of whatever the API says about a refusal.
    login: Secret,
    status: StatusCode,
    ledger: Arc<Ledger>,
}

impl Passage {
    fn is_event_stream(&self) -> bool {
        matches!(self.meter, Meter::Events(_))
    }

    fn note_status(&mut self) {
        if self.status.is_success() {
            self.ledger.succeeded();
        } else {
            self.note(Seen::Complaint(String::new()));
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, CutShort> {
        match self.answer.chunk().await {
            Ok(Some(piece)) => {
                for seen in self.meter.read(&piece) {
                    self.note(seen);
                }
                Ok(Some(piece))
            }
            Ok(None) => {
                let (seen, ending) = self.meter.end();
                seen.into_iter().for_each(|seen| self.note(seen));
                match ending {
                    Ending::Whole => Ok(None),
                    Ending::CutShort => Err(self.cut_short("it ended too early")),
                }
            }
            Err(error) => Err(self.cut_short(&causes(&error.without_url()))),
        }
    }

    fn note(&self, seen: Seen) {
        match seen {
            Seen::Usage(usage) => self.ledger.add_usage(usage),
            Seen::Complaint(reason) => {
                let reason = reason.replace(self.login.reveal(), "…");
                let detail = format!("HTTP {} {reason}", self.status.as_u16());
                self.ledger.failed(Failure::new(trouble(self.status), detail.trim_end()));
            }
        }
    }

    fn cut_short(&self, why: &str) -> CutShort {
        let why = format!("The answer of the Kimi API was cut short: {why}");
        tracing::warn!("{why}");
        self.ledger.failed(Failure::new(Trouble::Unreachable, why));
        CutShort
    }
}

/// The error that ends an answer of which a part is missing.
#[derive(Debug)]
struct CutShort;

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of the Kimi API was cut short")
    }
}

impl Error for CutShort {}

/// The client for all doors. Reads the system's trust store, where it is needed.
fn client_for(place: Place) -> Result<reqwest::Client> {
    // An error means that somebody has installed one already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT);
    let client = match place {
        Place::Internet => client,
        // Neither proxies nor certificates have a part in it, so that it works where there are none.
        Place::ThisMachine => client.no_proxy().tls_certs_only([]),
    };
    client.build().context("Failed to set up TLS; is the package ca-certificates installed?")
}

/// Whether a request body went over its bound while it was passed on.
#[derive(Clone, Debug, Default)]
struct TooLong(Arc<AtomicBool>);

impl TooLong {
    fn watch(&self, body: Incoming) -> reqwest::Body {
        let mark = Arc::clone(&self.0);
        let mut passed: u64 = 0;
        reqwest::Body::wrap_stream(Body::new(body).into_data_stream().map(move |piece| {
            let piece = piece?;
            passed = passed.saturating_add(piece.len() as u64);
            if passed > REQUEST_BODY_MAX {
                mark.store(true, Ordering::Relaxed);
                return Err(axum::Error::new("the request is too long"));
            }
            Ok(piece)
        }))
    }

    fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The door's own answer: an error in the words of the OpenAI API, which engines show or log.
struct Refused {
    status: StatusCode,
    kind: &'static str,
    why: String,
}

impl Refused {
    fn new(status: StatusCode, kind: &'static str, why: impl Into<String>) -> Self {
        Self { status, kind, why: why.into() }
    }

    fn too_long() -> Self {
        let why = format!("The request is longer than {} MiB.", REQUEST_BODY_MAX / (1024 * 1024));
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", why)
    }

    fn response(self) -> Response<Body> {
        let Self { status, kind, why } = self;
        let body = json!({ "error": { "message": why, "type": kind, "param": null, "code": null } });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Reads a body to its end, within bounds: an engine that is still writing would not see the answer before
/// its connection breaks (measured with kimi-cli 1.51.0).
async fn discard(body: Incoming) {
    let mut pieces = Body::new(body).into_data_stream();
    let mut discarded: u64 = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        discarded = discarded.saturating_add(piece.len() as u64);
        if discarded > DISCARD_MAX {
            return;
        }
    }
}

/// Where a base leads.
enum Place {
    Internet,
    ThisMachine,
}

impl Place {
    /// # Errors
    /// The login may not be sent there: it never travels unencrypted, except within this machine.
    fn of(base: &str) -> Result<Self> {
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

fn bearer(login: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", login.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn trouble(status: StatusCode) -> Trouble {
    match status.as_u16() {
        401 => Trouble::NotLoggedIn,
        403 => Trouble::Refused,
        429 => Trouble::RateLimited,
        400..=499 => Trouble::BadRequest,
        500.. => Trouble::Overloaded,
        // A redirect that is not followed, or an error in the middle of an answer.
        _ => Trouble::Internal,
    }
}

/// An error with what lies behind it, on one line.
fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
