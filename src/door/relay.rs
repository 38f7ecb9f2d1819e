//! Carries one request from a container to the Kimi API with the real login, and the answer back as it comes. Where
//! there is no good answer, does what `verdict` says: has the login renewed, waits, or gives up. Keeps in the ledger
//! what the session should know of it.
//!
//! TLS trusts what this system trusts (its CA store, or `SSL_CERT_FILE`). `HTTPS_PROXY`, `ALL_PROXY` and
//! `NO_PROXY` are honoured for the Kimi API, as reqwest does by default; a server on this machine is always
//! reached directly. Redirects are not followed: the login goes to one host only.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Upstream;
use super::asked::{self, Asked, Model};
use super::body::{self, BODY_MAX, NotHeld, Room};
use super::ledger::Ledger;
use super::meter::{Ending, Meter, Seen};
use super::refusal::Refusal;
use super::road::{self, Closed, Road};
use super::verdict::{self, Tried, Verdict};
use crate::panics::blocking;
use crate::types::{Authorization, Failure, Secret, Trouble};

/// A server that is there accepts within seconds, even over a poor line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API may be silent: before it answers (the upload counts too), and between two pieces of an
/// answer. A model that thinks streams its thoughts, so minutes of silence mean a dead line.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a request may take in all until its answer begins, so that it is the door that gives up and knows why: Node's
/// fetch does after 5 minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(270);
/// An API that does not answer within less than this may still be well: the request had to wait for others first.
const LEAST_PATIENCE: Duration = Duration::from_secs(4 * 60);
/// Requests to the model of one door at a time, until their answers have ended; who comes after waits. An engine with a
/// handful of subagents stays below, and an agent's program does not use up what the account may ask for at once.
pub const ASKED_AT_ONCE_MAX: usize = 8;
/// How long a login may take to be renewed. The keeper itself tries for longer, for the requests that follow.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(45);

/// The way from one door to the Kimi API. An answer as a whole has no timeout: turns have one.
#[derive(Debug)]
pub struct Relay {
    client: reqwest::Client,
    base: String,
    authorization: watch::Receiver<Authorization>,
    refusals: watch::Sender<Option<Secret>>,
    models: Arc<[String]>,
    ledger: Arc<Ledger>,
    room: Room,
    slots: Arc<Semaphore>,
}

/// A place among the [`ASKED_AT_ONCE_MAX`]; what goes beside the model needs none.
struct Slot {
    waited: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request as it goes to the API, but for its login and its body.
struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    road: Road,
}

/// A login, and the header that carries it.
struct Login {
    authorization: Authorization,
    token: Secret,
    header: HeaderValue,
}

impl Relay {
    pub async fn new(upstream: Upstream, ledger: Arc<Ledger>) -> Result<Self> {
        let Upstream { base, authorization, refusals, models, client } = upstream;
        let place = Place::of(&base)?;
        let make = async || blocking(move || client_for(place)).await?;
        let client = client.get_or_try_init(make).await?.clone();
        let slots = Arc::new(Semaphore::new(ASKED_AT_ONCE_MAX));
        let models = models.into();
        Ok(Self { client, base, authorization, refusals, models, ledger, room: Room::new(), slots })
    }

    /// Answers a request from inside, whatever it is. `web_is_closed` answers who asks Kimi to go to the web, where that is
    /// closed.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        web_is_closed: Option<Response<Body>>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let outgoing = match self.prepare(&head) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                body::discard(body).await;
                return refusal.response();
            }
        };
        let road = outgoing.road;
        if road::asks_kimi_for_the_web(&head.uri)
            && let Some(refused) = web_is_closed
        {
            body::discard(body).await;
            return refused;
        }
        if let Err(Closed { status, why }) = road::is_an_engines(&head.headers) {
            body::discard(body).await;
            return Refusal::new(status, "invalid_request_error", why).response();
        }
        if let Err(refusal) = self.login(road) {
            body::discard(body).await;
            return refusal.final_response();
        }
        let Some(slot) = self.slot(road).await else {
            body::discard(body).await;
            // The agent's own doing, and so no trouble that the session should know of.
            let why = "The agent asks the model for more at once than the door carries.";
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why).final_response();
        };
        match self.room.take_in(body).await {
            Ok(held) => {
                let asked = self.read(road, &held.bytes).await;
                match web_is_closed {
                    Some(refused) if asked.leads_kimi_to_the_web => refused,
                    Some(_) | None if asked.model == Model::NamedTwice => {
                        let why = "The request names its model more than once.";
                        Refusal::new(StatusCode::BAD_REQUEST, "invalid_request_error", why).response()
                    }
                    Some(_) | None => {
                        self.ledger.asked(road);
                        self.ask(&outgoing, &held.bytes, asked.model, slot).await
                    }
                }
            }
            Err(NotHeld::NoRoom) => {
                let why = "The agent sends more to Kimi at once than the door holds.";
                self.ledger.failed(road, Failure::new(Trouble::Internal, why));
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", why).final_response()
            }
            Err(NotHeld::TooLong) => {
                let why = format!("The request is longer than {} MiB.", BODY_MAX / (1024 * 1024));
                self.ledger.failed(road, Failure::new(Trouble::TooLarge, &why));
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", why).response()
            }
            Err(NotHeld::Broken) => {
                let why = "The request broke off.";
                Refusal::new(StatusCode::BAD_REQUEST, "invalid_request_error", why).response()
            }
        }
    }

    /// What goes to the API in place of the request.
    fn prepare(&self, head: &Parts) -> Result<Outgoing, Box<Refusal>> {
        let path = road::to_kimi(&head.method, &head.uri)
            .map_err(|Closed { status, why }| Box::new(Refusal::new(status, "invalid_request_error", why)))?;
        let url = Url::parse(&format!("{}/{path}", self.base)).map_err(|_| {
            let why = "There is no such path in the Kimi API.";
            Box::new(Refusal::new(StatusCode::NOT_FOUND, "invalid_request_error", why))
        })?;
        let road = road::kind(&path);
        Ok(Outgoing { method: head.method.clone(), url, headers: road::outbound(&head.headers), road })
    }

    /// Waits for a slot, if one is needed; none where none came free in time.
    async fn slot(&self, road: Road) -> Option<Slot> {
        if road == Road::Beside {
            return Some(Slot { waited: Duration::ZERO, _permit: None });
        }
        let began = Instant::now();
        let permit = timeout(ANSWER_TIMEOUT, Arc::clone(&self.slots).acquire_owned()).await.ok()?.ok()?;
        Some(Slot { waited: began.elapsed(), _permit: Some(permit) })
    }

    /// What a request asks for; beside the model nothing that matters here. The greatest bodies take a tenth of a second.
    async fn read(&self, road: Road, body: &Bytes) -> Asked {
        if road == Road::Beside {
            return Asked { model: Model::Configured, leads_kimi_to_the_web: false };
        }
        let (body, models) = (body.clone(), Arc::clone(&self.models));
        let read = blocking(move || asked::read(&body, &models)).await;
        read.unwrap_or(Asked { model: Model::Another, leads_kimi_to_the_web: true })
    }

    fn login(&self, road: Road) -> Result<Login, Box<Refusal>> {
        let authorization = self.authorization.borrow().clone();
        let token = match &authorization {
            Authorization::ApiKey(token) | Authorization::Login(token) => token.clone(),
            Authorization::Missing(why) => return Err(self.not_logged_in(road, why)),
        };
        let header = bearer(&token).ok_or_else(|| {
            self.not_logged_in(
                road,
                "The Kimi login cannot be sent: it contains characters that no login has.",
            )
        })?;
        Ok(Login { authorization, token, header })
    }

    /// `why` is for the session; it may name files of this machine.
    fn not_logged_in(&self, road: Road, why: &str) -> Box<Refusal> {
        self.ledger.failed(road, Failure::new(Trouble::NotLoggedIn, why));
        let why = "Nobody is logged in to Kimi on the server.";
        Box::new(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", why))
    }

    /// Asks the API until there is an answer to pass back.
    async fn ask(&self, outgoing: &Outgoing, body: &Bytes, model: Model, slot: Slot) -> Response<Body> {
        let mut tried = Tried::default();
        let began = Instant::now();
        let patience = ANSWER_TIMEOUT.saturating_sub(slot.waited);
        loop {
            let login = match self.login(outgoing.road) {
                Ok(login) => login,
                Err(refusal) => return refusal.final_response(),
            };
            let answer = timeout_at(began + patience, self.send(outgoing, body, &login)).await;
            tried.waited = slot.waited + began.elapsed();
            let Ok(answer) = answer else {
                let refusal = unreachable("it does not answer in time");
                if patience < LEAST_PATIENCE {
                    // Others of the same agent have taken its time, not the API.
                    return refusal.final_response();
                }
                return self.note(outgoing, refusal, Trouble::Unreachable).final_response();
            };
            let (refusal, verdict) = match answer {
                Ok(answer) if answer.status().is_success() => match unreadable(outgoing, &answer) {
                    None => return self.pass_back(outgoing, answer, login.token, model, slot),
                    Some(refusal) => (refusal, Verdict::GiveUp(Trouble::Unreachable)),
                },
                Ok(answer) => {
                    let refusal = Refusal::read(answer, &login.token).await;
                    let verdict = verdict::of_refusal(
                        outgoing.road,
                        refusal.status,
                        &refusal.complaint,
                        refusal.retry_after,
                        &login.authorization,
                        &tried,
                    );
                    // What an agent's program has made up is no trouble of the account, which would be told to all.
                    let verdict = match model {
                        Model::Configured => verdict,
                        Model::Another | Model::NamedTwice => verdict::about_another_model(verdict),
                    };
                    (refusal, verdict)
                }
                Err(error) => {
                    let verdict = if error.is_connect() {
                        verdict::of_no_connection(&tried)
                    } else {
                        Verdict::GiveUp(Trouble::Unreachable)
                    };
                    (unreachable(&causes(&error.without_url())), verdict)
                }
            };
            match verdict {
                Verdict::Renew => {
                    tried.renewals += 1;
                    self.renew(&login).await;
                }
                Verdict::Wait(pause, trouble) => {
                    let why = refusal.detail();
                    tracing::info!(pause_secs = pause.as_secs(), ?trouble, "The Kimi API cannot answer now");
                    tracing::debug!("What it said: {why}");
                    // Known already, should the engine not wait for what comes of it.
                    self.ledger.failed(outgoing.road, Failure::new(trouble, why));
                    tried.pauses += 1;
                    sleep(pause).await;
                }
                Verdict::Pass(trouble) => return self.note(outgoing, refusal, trouble).response(),
                Verdict::GiveUp(trouble) => return self.note(outgoing, refusal, trouble).final_response(),
            }
        }
    }

    async fn send(
        &self,
        outgoing: &Outgoing,
        body: &Bytes,
        login: &Login,
    ) -> reqwest::Result<reqwest::Response> {
        let mut headers = outgoing.headers.clone();
        headers.insert(header::AUTHORIZATION, login.header.clone());
        let request = self.client.request(outgoing.method.clone(), outgoing.url.clone()).headers(headers);
        let request = if body.is_empty() { request } else { request.body(body.clone()) };
        request.send().await
    }

    /// Lets the keeper know that the API has refused this login, and waits for what comes of it.
    async fn renew(&self, login: &Login) {
        let mut authorization = self.authorization.clone();
        if *authorization.borrow() == login.authorization {
            self.refusals.send_replace(Some(login.token.clone()));
        }
        let another = authorization.wait_for(|now| *now != login.authorization);
        if timeout(RENEWAL_TIMEOUT, another).await.is_err() {
            tracing::warn!("The Kimi login was refused and could not be renewed in time");
        }
    }

    /// Keeps for the session why the API did not answer.
    fn note(&self, outgoing: &Outgoing, refusal: Refusal, trouble: Trouble) -> Refusal {
        let detail = refusal.detail();
        tracing::warn!(?trouble, "The Kimi API does not answer");
        tracing::debug!("What it said: {detail}");
        self.ledger.failed(outgoing.road, Failure::new(trouble, detail));
        refusal
    }

    /// The answer as it comes: each piece is metered, then passed on at once.
    fn pass_back(
        &self,
        outgoing: &Outgoing,
        answer: reqwest::Response,
        login: Secret,
        model: Model,
        slot: Slot,
    ) -> Response<Body> {
        let status = answer.status();
        tracing::debug!(status = status.as_u16(), "the Kimi API answers");
        let headers = road::inbound(answer.headers());
        let meter = Meter::new(content_type(&answer));
        self.ledger.succeeded(outgoing.road);
        let passage = Passage {
            answer,
            meter,
            road: outgoing.road,
            model,
            complained: Complained::No,
            login,
            ledger: Arc::clone(&self.ledger),
            _slot: slot,
        };
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

/// A success that no engine can read: somebody on the way answers in the API's place, such as a hotel's sign-in page.
fn unreadable(outgoing: &Outgoing, answer: &reqwest::Response) -> Option<Refusal> {
    let readable = matches!(Meter::new(content_type(answer)), Meter::Events(_) | Meter::Whole(_));
    if outgoing.road == Road::Beside || readable {
        return None;
    }
    let what = if content_type(answer).is_empty() { "something unknown" } else { content_type(answer) };
    Some(unreachable(&format!("it answers with {what}, which is no answer of a model")))
}

fn unreachable(why: &str) -> Refusal {
    let why = format!("The Kimi API cannot be reached: {why}");
    Refusal::new(StatusCode::BAD_GATEWAY, "connection_error", why)
}

fn content_type(answer: &reqwest::Response) -> &str {
    answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What ends an event stream of which a part is missing: whatever line was cut, then an error in OpenAI's shape.
const BROKEN_OFF: &str = "\n\ndata: {\"error\":{\"message\":\"Connection error. The model's answer broke off.\",\
    \"type\":\"stream_broken\"}}\n\n";

/// One answer on its way.
struct Passage {
    answer: reqwest::Response,
    meter: Meter,
    road: Road,
    model: Model,
    complained: Complained,
    /// Cut out of whatever the API complains of.
    login: Secret,
    ledger: Arc<Ledger>,
    /// Free again when the answer has ended.
    _slot: Slot,
}

/// Whether an answer that began well says that it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complained {
    No,
    Yes,
}

impl Passage {
    fn is_event_stream(&self) -> bool {
        matches!(self.meter, Meter::Events(_))
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
                if ending == Ending::CutShort {
                    return Err(self.cut_short("it ended too early"));
                }
                if self.complained == Complained::No {
                    // Whatever failed meanwhile was another request's.
                    self.ledger.succeeded(self.road);
                }
                Ok(None)
            }
            Err(error) => Err(self.cut_short(&causes(&error.without_url()))),
        }
    }

    fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Usage(usage) => self.ledger.add_usage(usage),
            Seen::Complaint(complaint) => {
                self.complained = Complained::Yes;
                let detail = self.login.cut_out_of(&complaint.to_string());
                let trouble = match self.model {
                    Model::Configured => verdict::in_mid_answer(&complaint),
                    Model::Another | Model::NamedTwice => Trouble::BadRequest,
                };
                self.ledger.failed(self.road, Failure::new(trouble, detail));
            }
        }
    }

    fn cut_short(&self, why: &str) -> CutShort {
        let why = format!("The answer of the Kimi API was cut short: {why}");
        tracing::warn!("{why}");
        self.ledger.failed(self.road, Failure::new(Trouble::Unreachable, why));
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
