//! The allowlist of the Kimi API: which requests may leave, and with which headers. Pure decisions over a
//! request's head. A request that is not exactly one of the few that engines need is refused, so that nothing
//! depends on how another program reads a URL.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};

use crate::relay::{ApiRoute, end_to_end_headers};

/// What engines know as the Kimi API, inside the container.
const KIMI_PREFIX: &str = "/coding/v1/";

/// Headers of engines that reach the Kimi API unchanged: those that say what a request and its answer are,
/// and one that Node's fetch adds. All others are left out.
const FROM_INSIDE: [HeaderName; 5] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("sec-fetch-mode"),
];
/// Prefixes of further such headers: which device asks, and with which build of OpenAI's client.
const FAMILIES_FROM_INSIDE: [&str; 2] = ["x-msh-", "x-stainless-"];

/// What the engines call themselves before their version: kimi-cli, and kimi-code as its configuration has
/// it.
const ENGINES: [&str; 2] = ["KimiCLI/", "kimi-code-cli/"];
/// Longest version of an engine, and longest name in brackets of the client that it works for.
const VERSION_MAX: usize = 40;
const CLIENT_MAX: usize = 100;

const MODEL: &str = "chat/completions";
/// What engines need. The rest of the API belongs to the account, which all groups share: its files and its
/// keys.
const OPEN_ENDPOINTS: [(&str, &str); 5] =
    [("POST", MODEL), ("POST", "files"), ("POST", "search"), ("POST", "fetch"), ("GET", "models")];

/// Those of [`OPEN_ENDPOINTS`] by which Kimi goes to the web for an agent: to any host, with any words of the
/// agent's.
const KIMI_WEB_PATHS: [&str; 2] = ["/coding/v1/search", "/coding/v1/fetch"];

/// The answer to a request that may not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteDenied {
    pub status: StatusCode,
    /// For the engine, and for people who read its log.
    pub why: &'static str,
}

/// The route of a path beneath the Kimi API's base.
pub fn route_of(path: &str) -> ApiRoute {
    if path.split('?').next() == Some(MODEL) { ApiRoute::Model } else { ApiRoute::OtherEndpoint }
}

/// The path and query of a request beneath the Kimi API's base, such as `chat/completions` or
/// `models?page=2`.
pub fn allowed_api_path(method: &Method, uri: &Uri) -> Result<String, RouteDenied> {
    let denied = |status, why| Err(RouteDenied { status, why });
    if method == Method::CONNECT || uri.authority().is_some() {
        return denied(StatusCode::FORBIDDEN, "This is a request to the web, not to the Kimi API.");
    }
    let Some(path) = uri.path().strip_prefix(KIMI_PREFIX) else {
        return denied(StatusCode::NOT_FOUND, "There is nothing here; the Kimi API is under /coding/v1/.");
    };
    if !OPEN_ENDPOINTS.iter().any(|(open, endpoint)| *open == method.as_str() && *endpoint == path) {
        return denied(StatusCode::FORBIDDEN, "This part of the Kimi API is not open to agents.");
    }
    match uri.query() {
        Some(_) if method == Method::POST => {
            denied(StatusCode::FORBIDDEN, "What is sent to the Kimi API has no query; no engine adds one.")
        }
        Some(query) => Ok(format!("{path}?{query}")),
        None => Ok(path.to_owned()),
    }
}

/// Lets a request pass whose User-Agent is an engine's. Kimi serves only programs that it knows, and refuses
/// others in the same words as an account that it has closed.
pub fn require_engine_user_agent(headers: &HeaderMap) -> Result<(), RouteDenied> {
    let mut names = headers.get_all(header::USER_AGENT).iter();
    let is_known = names.next().and_then(|name| name.to_str().ok()).is_some_and(is_engine_user_agent);
    if is_known && names.next().is_none() {
        return Ok(());
    }
    let why = "The Kimi API serves only the agent's own engine, and this User-Agent is another program's.";
    Err(RouteDenied { status: StatusCode::FORBIDDEN, why })
}

/// `KimiCLI/1.51.0`, `kimi-code-cli/2.1.0`, and either with the client in brackets:
/// `KimiCLI/1.51.0 (nanokimi 0.1)`.
fn is_engine_user_agent(user_agent: &str) -> bool {
    let Some(rest) = ENGINES.iter().find_map(|engine| user_agent.strip_prefix(engine)) else { return false };
    let (version, client) = match rest.split_once(' ') {
        Some((version, client)) => (version, Some(client)),
        None => (rest, None),
    };
    let is_version = version.len() <= VERSION_MAX
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
    let is_client = client.is_none_or(|client| {
        let within = client.strip_prefix('(').and_then(|client| client.strip_suffix(')'));
        within.is_some_and(|name| name.len() <= CLIENT_MAX && !name.contains(['(', ')']))
    });
    is_version && is_client
}

/// Whether a request has Kimi go to the web.
pub fn is_kimi_web_request(uri: &Uri) -> bool {
    KIMI_WEB_PATHS.contains(&uri.path())
}

/// The headers of a container's request that go to the Kimi API.
pub fn filter_request_headers(headers: &HeaderMap) -> HeaderMap {
    let end_to_end = end_to_end_headers(headers);
    let mut kept = HeaderMap::new();
    for (name, value) in &end_to_end {
        let is_of_a_family = FAMILIES_FROM_INSIDE.iter().any(|family| name.as_str().starts_with(family));
        if is_of_a_family || FROM_INSIDE.contains(name) {
            kept.append(name, value.clone());
        }
    }
    // A compressed answer could not be metered.
    kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked_path(method: &str, uri: &str) -> Result<String, u16> {
        allowed_api_path(&method.parse().unwrap(), &uri.parse().unwrap())
            .map_err(|denied| denied.status.as_u16())
    }

    #[test]
    fn only_plain_paths_to_the_kimi_api_pass() {
        for (request, leads_to) in [
            ("POST /coding/v1/chat/completions", Ok("chat/completions")),
            ("GET /coding/v1/models", Ok("models")),
            ("GET /coding/v1/models?page=2", Ok("models?page=2")),
            ("GET /coding/v1/models?x=%2e%2e/x", Ok("models?x=%2e%2e/x")),
            ("POST /coding/v1/chat/completions?x=%2e%2e/x", Err(403)),
            ("POST /coding/v1/chat/completions?", Err(403)),
            ("POST /coding/v1/files?purpose=batch", Err(403)),
            ("GET /coding/v1/files/file-1", Err(403)),
            ("GET /coding/v1/chat/completions", Err(403)),
            ("GET /coding/v1/..", Err(403)),
            ("GET /coding/v1/../../admin", Err(403)),
            ("GET /coding/v1/models/../..", Err(403)),
            ("GET /coding/v1/./models", Err(403)),
            ("GET /coding/v1/...", Err(403)),
            ("GET /coding/v1/%2e%2e/admin", Err(403)),
            ("GET /coding/v1/%2E%2E%2Fadmin", Err(403)),
            ("GET /coding/v1/..%5cadmin", Err(403)),
            ("GET /coding/v1//evil.example/x", Err(403)),
            ("GET /coding/v1/a;b", Err(403)),
            ("GET /coding/v1/", Err(403)),
            ("GET /coding/v1", Err(404)),
            ("GET /coding/v10/models", Err(404)),
            ("GET /", Err(404)),
            ("GET /admin", Err(404)),
            ("OPTIONS *", Err(404)),
            ("TRACE /coding/v1/models", Err(403)),
            ("DELETE /coding/v1/files/1", Err(403)),
            ("CONNECT api.kimi.com:443", Err(403)),
            ("GET http://example.com/", Err(403)),
            ("GET http://127.0.0.1/coding/v1/models", Err(403)),
        ] {
            let (method, uri) = request.split_once(' ').unwrap();
            assert_eq!(checked_path(method, uri), leads_to.map(str::to_owned), "{request}");
        }
    }

    #[test]
    fn who_one_is_and_the_connection_stay_behind() {
        let inside: HeaderMap = [
            ("host", "127.0.0.1:8080"),
            ("authorization", "Bearer stand-in"),
            ("x-api-key", "k"),
            ("cookie", "c=1"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "12"),
            ("accept-encoding", "gzip"),
            ("content-type", "application/json"),
            ("user-agent", "KimiCLI/1.51.0"),
            ("x-msh-device-id", "d"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/coding/v1/usages"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("range", "bytes=0-"),
            ("content-encoding", "gzip"),
            ("openai-organization", "o"),
            ("idempotency-key", "i"),
            ("traceparent", "00-1"),
            ("x-msh", "m"),
            ("accept", "application/json"),
            ("accept-language", "*"),
            ("sec-fetch-mode", "cors"),
            ("x-stainless-lang", "python"),
            ("x-msh-tool-call-id", "FetchURL:1"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
        let mut seen: Vec<_> = filter_request_headers(&inside)
            .iter()
            .map(|(k, v)| format!("{k}: {}", v.to_str().unwrap()))
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "accept-encoding: identity",
                "accept-language: *",
                "accept: application/json",
                "content-type: application/json",
                "sec-fetch-mode: cors",
                "user-agent: KimiCLI/1.51.0",
                "x-msh-device-id: d",
                "x-msh-tool-call-id: FetchURL:1",
                "x-stainless-lang: python",
            ]
        );
    }

    #[test]
    fn an_engine_is_known_by_how_it_calls_itself() {
        for (user_agents, known) in [
            (&["KimiCLI/1.51.0"][..], true),
            (&["KimiCLI/1.51.0 (nanokimi 0.1)"], true),
            (&["KimiCLI/1.52.0rc1 ()"], true),
            (&["kimi-code-cli/2.1.0"], true),
            (&["kimi-code-cli/2.2.0-beta.1+build (web)"], true),
            (&[], false),
            (&[""], false),
            (&["curl/8.5.0"], false),
            (&["OpenAI/Python 1.0"], false),
            (&["node"], false),
            (&["KimiCLI"], false),
            (&["KimiCLI/"], false),
            (&["KimiCLI/ 1.51.0"], false),
            (&["kimicli/1.51.0"], false),
            (&["Kimi-Code-CLI/2.1.0"], false),
            (&["Mozilla/5.0 KimiCLI/1.51.0"], false),
            (&["KimiCLI/1.51.0 curl/8.5.0"], false),
            (&["KimiCLI/1.51.0 (nanokimi 0.1) curl/8.5.0"], false),
            (&["KimiCLI/1.51.0 (a) (b)"], false),
            (&["KimiCLI/1.51.0  (a)"], false),
            (&["KimiCLI/1.51.0;curl"], false),
            (&["KimiCLI/1.51.0 (ä)"], false),
            (&["KimiCLI/1.51.0", "KimiCLI/1.51.0"], false),
            (&["KimiCLI/1.51.0", "curl/8.5.0"], false),
            (&[&format!("KimiCLI/1{}", "0".repeat(VERSION_MAX))], false),
            (&[&format!("KimiCLI/1 ({})", "n".repeat(CLIENT_MAX + 1))], false),
        ] {
            let mut headers = HeaderMap::new();
            for user_agent in user_agents {
                headers.append(header::USER_AGENT, HeaderValue::from_bytes(user_agent.as_bytes()).unwrap());
            }
            assert_eq!(require_engine_user_agent(&headers).is_ok(), known, "{user_agents:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_stays_beneath_the_base(path in "[-a-zA-Z0-9%./\\\\;:@~_]{0,40}") {
            let uri: Uri = format!("/coding/v1/{path}").parse().unwrap();
            if let Ok(rest) = allowed_api_path(&Method::GET, &uri) {
                let url = reqwest::Url::parse(&format!("https://api.kimi.com/coding/v1/{rest}")).unwrap();
                prop_assert_eq!(url.host_str(), Some("api.kimi.com"));
                prop_assert_eq!(url.path(), format!("/coding/v1/{rest}"));
            }
        }
    }
}
