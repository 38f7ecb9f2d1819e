//! The table of what the gateway answers: a request that is not in it gets 404. Pure.
//!
//! Of the rule that any path is passed on beneath the Kimi API's base, only what coding tools need is open: the rest of
//! the API belongs to the account, its files and keys among it, and `search` and `fetch` would have Kimi go to the web.

use hyper::Method;
use hyper::header::HeaderMap;

/// A place of the gateway that needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayRoute {
    /// What the key has used today.
    Usage,
    Models,
    ChatCompletions,
    Messages,
    CountTokens,
    Responses,
}

impl GatewayRoute {
    /// Whether the model answers, which costs tokens.
    pub fn asks_model(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Messages | Self::Responses => true,
            Self::CountTokens | Self::Models | Self::Usage => false,
        }
    }
}

/// Whose API a client speaks: its errors have that form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiForm {
    OpenAi,
    Anthropic,
}

static ROUTES: [(Method, &str, GatewayRoute); 6] = [
    (Method::POST, "/v1/chat/completions", GatewayRoute::ChatCompletions),
    (Method::GET, "/v1/models", GatewayRoute::Models),
    (Method::POST, "/v1/messages", GatewayRoute::Messages),
    (Method::POST, "/v1/messages/count_tokens", GatewayRoute::CountTokens),
    (Method::POST, "/v1/responses", GatewayRoute::Responses),
    (Method::GET, "/v1/usage", GatewayRoute::Usage),
];
/// What Claude Code adds to the paths of messages.
const BETA: &str = "beta=true";
/// The version that every client of Anthropic's API names.
const ANTHROPIC_VERSION: &str = "anthropic-version";

/// Whether a request only asks if the gateway is there: `GET /healthz` needs no key.
pub fn is_health_check(method: &Method, path: &str) -> bool {
    method == Method::GET && path == "/healthz"
}

/// The route of a request, if there is one.
pub fn find_route(method: &Method, path: &str) -> Option<GatewayRoute> {
    let found = ROUTES.iter().find(|(open, place, _)| open == method && *place == path)?;
    Some(found.2)
}

/// Where a route leads beneath the Kimi API's base (`/v1/chat/completions` → `chat/completions`); `None` if the
/// gateway itself answers. Of a query only what is known is passed on.
pub fn upstream_path(route: GatewayRoute, query: Option<&str>) -> Option<&'static str> {
    let is_beta = query == Some(BETA);
    match route {
        GatewayRoute::ChatCompletions | GatewayRoute::Responses => Some("chat/completions"),
        GatewayRoute::Models => Some("models"),
        GatewayRoute::Messages if is_beta => Some("messages?beta=true"),
        GatewayRoute::Messages => Some("messages"),
        GatewayRoute::CountTokens if is_beta => Some("messages/count_tokens?beta=true"),
        GatewayRoute::CountTokens => Some("messages/count_tokens"),
        GatewayRoute::Usage => None,
    }
}

/// The form of a client's API, by what it asks for and how.
pub fn api_form_of(path: &str, headers: &HeaderMap) -> ApiForm {
    match path {
        "/v1/messages" => ApiForm::Anthropic,
        "/v1/chat/completions" | "/v1/responses" => ApiForm::OpenAi,
        _ if path.starts_with("/v1/messages/") || headers.contains_key(ANTHROPIC_VERSION) => {
            ApiForm::Anthropic
        }
        _ => ApiForm::OpenAi,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specification_url_rewriting() {
        for (request, query, leads_to) in [
            ("POST /v1/chat/completions", None, Some("chat/completions")),
            ("POST /v1/chat/completions", Some("x=1"), Some("chat/completions")),
            ("GET /v1/models", Some("limit=1000"), Some("models")),
            ("POST /v1/messages", None, Some("messages")),
            ("POST /v1/messages", Some("beta=true"), Some("messages?beta=true")),
            ("POST /v1/messages", Some("beta=true&x=../y"), Some("messages")),
            ("POST /v1/messages/count_tokens", Some("beta=true"), Some("messages/count_tokens?beta=true")),
            ("POST /v1/responses", None, Some("chat/completions")),
            ("GET /v1/usage", None, None),
        ] {
            let (method, path) = request.split_once(' ').unwrap();
            let route = find_route(&method.parse().unwrap(), path).expect(request);
            assert_eq!(upstream_path(route, query), leads_to, "{request}");
        }
    }

    #[test]
    fn specification_generic_rule_is_closed_but_for_the_table() {
        for request in [
            "GET /",
            "GET /v1",
            "GET /v1/",
            "GET /v1/chat/completions",
            "POST /v1/models",
            "GET /v1/models/kimi-for-coding",
            "GET /v1/models/",
            "GET //v1/models",
            "GET /v1/../v1/models",
            "GET /v1/%6dodels",
            "POST /v1/embeddings",
            "POST /v1/files",
            "GET /v1/files",
            "POST /v1/search",
            "POST /v1/fetch",
            "GET /v1/usages",
            "GET /coding/v1/models",
            "POST /v1/messages/batches",
            "DELETE /v1/messages",
            "OPTIONS /v1/models",
            "HEAD /v1/models",
            "POST /healthz",
            "GET /healthz/",
        ] {
            let (method, path) = request.split_once(' ').unwrap();
            let method = method.parse().unwrap();
            assert_eq!(find_route(&method, path), None, "{request}");
            assert!(!is_health_check(&method, path), "{request}");
        }
    }

    #[test]
    fn a_client_is_answered_in_its_own_form() {
        let mut headers = HeaderMap::new();
        for (path, form) in [
            ("/v1/messages", ApiForm::Anthropic),
            ("/v1/messages/batches", ApiForm::Anthropic),
            ("/v1/messages2", ApiForm::OpenAi),
            ("/v1/models", ApiForm::OpenAi),
        ] {
            assert_eq!(api_form_of(path, &headers), form, "{path}");
        }
        // Of what both have, the header decides; what is only one's stays its own.
        headers.insert(ANTHROPIC_VERSION, "2023-06-01".parse().unwrap());
        for (path, form) in [
            ("/v1/models", ApiForm::Anthropic),
            ("/v1/messages", ApiForm::Anthropic),
            ("/v1/nothing", ApiForm::Anthropic),
            ("/v1/chat/completions", ApiForm::OpenAi),
            ("/v1/responses", ApiForm::OpenAi),
        ] {
            assert_eq!(api_form_of(path, &headers), form, "{path}");
        }
    }
}
