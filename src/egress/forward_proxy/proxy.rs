//! One request to the web: parsed, checked, connected and carried.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::network::Network;
use super::proxy_error::ProxyError;
use super::public_address;
use super::target::{Host, ProxyMethod, ProxyTarget};
use super::traffic::{CountedStream, ProxiedConnection, TrafficCounter};
use crate::panics::lock_unpoisoned;
use crate::rate::{RateLimit, TokenBucket};
use crate::relay::{discard_body, end_to_end_headers};
use crate::types::{GroupName, WebPolicy};

/// How long a name may take to be looked up. A resolver asks each of its servers twice, 5 s each.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long all addresses of a host together may take to accept a connection, and each of them.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(8);
/// More addresses of a name are not tried; some hosts have dozens.
const ADDRESSES_MAX: usize = 8;
/// How long nothing may move on a connection. Long, since a server may think before it answers.
pub const QUIET_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// What is read at a time, in each direction of a tunnel.
const TUNNEL_BUFFER_BYTES: usize = 16 * 1024;
/// The rate limit for connections of one group: at once as many as a page with its parts needs, or a package
/// manager at its start. A port stays taken for a minute after its connection has ended; so one group takes
/// 700 of the 28,000 that a machine has for all.
const CONNECTIONS: RateLimit = RateLimit { burst: 100, pause: Duration::from_millis(100) };

/// The forward proxy of one group.
#[derive(Debug)]
pub struct ForwardProxy<N> {
    group: GroupName,
    policy: WebPolicy,
    network: N,
    traffic: Arc<TrafficCounter>,
    connections: Mutex<TokenBucket>,
}

/// What a request is answered with, and what its connection becomes after that.
pub struct ProxyOutcome {
    pub response: Response<Body>,
    pub tunnel: Option<Tunnel>,
}

impl<N: Network> ForwardProxy<N> {
    pub fn new(group: GroupName, policy: WebPolicy, network: N, traffic: Arc<TrafficCounter>) -> Self {
        let connections = Mutex::new(TokenBucket::new_full(CONNECTIONS, Instant::now()));
        Self { group, policy, network, traffic, connections }
    }

    /// Whether a request is one for a forward proxy.
    pub fn is_proxy_request(request: &Request<Incoming>) -> bool {
        ProxyTarget::is_proxy_form(request.method(), request.uri())
    }

    pub async fn proxy_request(&self, request: Request<Incoming>) -> ProxyOutcome {
        let error = match self.parse_and_connect(request.method(), request.uri()).await {
            Ok((target, upstream)) => match forward_or_tunnel(request, &target, upstream).await {
                Ok(answer) => return answer,
                Err(error) => error,
            },
            Err(error) => {
                discard_body(request.into_body()).await;
                error
            }
        };
        tracing::debug!(status = error.status.as_u16(), "The web is refused: {}", error.why);
        ProxyOutcome { response: error.into_response(), tunnel: None }
    }

    /// The answer to a request that has Kimi go to the web; `None` if it may.
    pub fn deny_kimi_web_request(&self) -> Option<Response<Body>> {
        match self.policy {
            WebPolicy::Web => None,
            WebPolicy::None | WebPolicy::Allowlist(_) => {
                let why = format!(
                    "Kimi's own search and fetch reach every host, and the web is not open to this chat's agent. The \
                     owner can open it: nanokimi groups set {} --web web",
                    self.group
                );
                Some(ProxyError::new(StatusCode::FORBIDDEN, why).into_response())
            }
        }
    }

    /// What a request asks for, and a connection to it, if it may.
    async fn parse_and_connect(
        &self,
        method: &Method,
        uri: &Uri,
    ) -> Result<(ProxyTarget, CountedStream), ProxyError> {
        let target = ProxyTarget::parse(method, uri)?;
        let upstream = self.connect_to_target(&target).await.inspect_err(|error| {
            if matches!(error.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
                self.traffic.record_refused_request(&target.host.to_string());
            }
        })?;
        Ok((target, upstream))
    }

    async fn connect_to_target(&self, target: &ProxyTarget) -> Result<CountedStream, ProxyError> {
        target.check_web_policy(&self.policy, &self.group)?;
        self.check_connection_rate()?;
        let addresses = self.resolve_host(&target.host).await?;
        for address in &addresses {
            self.require_public_address(*address, &target.host)?;
        }
        let connection = ProxiedConnection::new_shared(target.host.to_string(), Arc::clone(&self.traffic));
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let mut failure = None;
        for (tried, address) in addresses.into_iter().take(ADDRESSES_MAX).enumerate() {
            if tried > 0 {
                self.check_connection_rate()?;
            }
            let to = SocketAddr::new(address, target.port);
            let until = deadline.min(Instant::now() + ADDRESS_TIMEOUT);
            match timeout_at(until, self.network.connect_to_address(to)).await {
                Ok(Ok(stream)) => return Ok(CountedStream::new(stream, connection)),
                Ok(Err(error)) => failure = Some(error),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        let host = &target.host;
        Err(match failure {
            Some(error) => ProxyError::bad_gateway(format!("{host} cannot be reached: {error}.")),
            None => ProxyError::gateway_timeout(format!("{host} did not accept a connection in time.")),
        })
    }

    /// Each connection that is tried takes a port of this machine for a while, which all groups share.
    fn check_connection_rate(&self) -> Result<(), ProxyError> {
        let mut connections = lock_unpoisoned(&self.connections);
        let is_admitted = connections.try_take_token(Instant::now());
        if is_admitted {
            return Ok(());
        }
        let why = "This chat's agent opens too many connections to the web: 100 at once, then 10 a second.";
        Err(ProxyError::new(StatusCode::TOO_MANY_REQUESTS, why.to_owned()))
    }

    async fn resolve_host(&self, host: &Host) -> Result<Vec<IpAddr>, ProxyError> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        match timeout(LOOKUP_TIMEOUT, self.network.lookup_addresses(name)).await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => Err(ProxyError::bad_gateway(format!("{name} has no address."))),
            Ok(Err(error)) => Err(ProxyError::bad_gateway(format!("{name} cannot be found: {error}."))),
            Err(_) => Err(ProxyError::gateway_timeout(format!("{name} could not be looked up in time."))),
        }
    }

    /// A single address that is not a public host's closes the whole name: its other addresses are no better.
    fn require_public_address(&self, address: IpAddr, host: &Host) -> Result<(), ProxyError> {
        let what = public_address::special_address_kind(address)
            .or_else(|| self.network.local_address_kind(address));
        let Some(what) = what else { return Ok(()) };
        // The container is not told the address of a name: it may be known on this network only.
        tracing::debug!(%address, "An agent asks for {what}");
        let leads = match host {
            Host::Name(_) => "leads to",
            Host::Address(_) => "is",
        };
        Err(ProxyError::new(
            StatusCode::FORBIDDEN,
            format!("{host} {leads} {what}; agents reach public addresses only."),
        ))
    }
}

/// Carries a request over its connection, or makes a tunnel of that.
async fn forward_or_tunnel(
    request: Request<Incoming>,
    target: &ProxyTarget,
    upstream: CountedStream,
) -> Result<ProxyOutcome, ProxyError> {
    match target.proxy_method {
        ProxyMethod::Tunnel => {
            let tunnel = Tunnel { inside: hyper::upgrade::on(request), outside: upstream };
            Ok(ProxyOutcome { response: Response::new(Body::empty()), tunnel: Some(tunnel) })
        }
        ProxyMethod::Plain => Ok(ProxyOutcome {
            response: forward_request(request, upstream, &target.host).await?,
            tunnel: None,
        }),
    }
}

/// A connection that was asked for with `CONNECT`.
pub struct Tunnel {
    inside: OnUpgrade,
    outside: CountedStream,
}

impl Tunnel {
    /// Carries bytes both ways until both sides have ended, one breaks, or nothing moves any more.
    pub async fn copy_both_ways(self) {
        let Self { inside, mut outside } = self;
        let Ok(inside) = inside.await else { return };
        let (mut inside, connection) = (TokioIo::new(inside), Arc::clone(&outside.connection));
        let copied = copy_bidirectional_with_sizes(
            &mut inside,
            &mut outside,
            TUNNEL_BUFFER_BYTES,
            TUNNEL_BUFFER_BYTES,
        );
        tokio::select! {
            copied = copied => if let Err(error) = copied {
                // Either side may hang up as it likes.
                tracing::debug!("A tunnel to the web broke: {error}");
            },
            () = connection.wait_for_idle(QUIET_TIMEOUT) => tracing::debug!("A tunnel to the web fell silent"),
        }
    }
}

/// Sends one request over a connection of its own, and passes the answer back as it comes.
async fn forward_request(
    request: Request<Incoming>,
    upstream: CountedStream,
    host: &Host,
) -> Result<Response<Body>, ProxyError> {
    let connection = Arc::clone(&upstream.connection);
    let outgoing = build_forwarded_request(request)?;
    let broke =
        |error: hyper::Error| ProxyError::bad_gateway(format!("{host} broke the connection: {error}."));
    let (mut sender, http) = http1::handshake(TokioIo::new(upstream)).await.map_err(broke)?;
    // Ends with the answer: dropping the answer drops the connection.
    let mut driver = JoinSet::new();
    driver.spawn(http);
    let answer = tokio::select! {
        answer = sender.send_request(outgoing) => answer.map_err(broke)?,
        () = connection.wait_for_idle(QUIET_TIMEOUT) => return Err(ProxyError::gateway_timeout(format!("{host} did not answer in time."))),
    };
    let (mut head, body) = answer.into_parts();
    head.headers = end_to_end_headers(&head.headers);
    head.version = Version::HTTP_11;
    let pieces = Body::new(body).into_data_stream();
    let rest = stream::unfold((pieces, driver, connection), |(mut pieces, driver, connection)| async {
        let piece: Result<Bytes, ProxiedBodyCutShort> = tokio::select! {
            piece = pieces.next() => piece?.map_err(|_| ProxiedBodyCutShort),
            () = connection.wait_for_idle(QUIET_TIMEOUT) => Err(ProxiedBodyCutShort),
        };
        Some((piece, (pieces, driver, connection)))
    });
    Ok(Response::from_parts(head, Body::from_stream(rest)))
}

/// The request as the host gets it: with a path in place of the URL, and for this connection only.
fn build_forwarded_request(request: Request<Incoming>) -> Result<Request<Incoming>, ProxyError> {
    let (mut head, body) = request.into_parts();
    let unfit = || ProxyError::new(StatusCode::BAD_REQUEST, "The URL cannot be sent to a host.".to_owned());
    let host = head.uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::try_from(host).map_err(|_| unfit())?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    // A URL may have a query right after its host.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    head.uri = path.parse::<Uri>().map_err(|_| unfit())?;
    head.version = Version::HTTP_11;
    head.headers = end_to_end_headers(&head.headers);
    // The container was told to go on already.
    head.headers.remove(header::EXPECT);
    head.headers.insert(header::HOST, host);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(Request::from_parts(head, body))
}

/// The error that ends an answer of which a part is missing.
#[derive(Debug)]
struct ProxiedBodyCutShort;

impl fmt::Display for ProxiedBodyCutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer from the web broke off")
    }
}

impl Error for ProxiedBodyCutShort {}
