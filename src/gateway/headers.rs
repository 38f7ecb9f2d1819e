//! Which headers pass through the gateway, as what a client reaches Kimi, and what tells its conversation apart. Pure.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::types::ClientIdentity;

/// Headers of a client that reach Kimi unchanged. All others stay behind: keys, cookies, sessions, and what is about the
/// connection only.
const FROM_CLIENT: [HeaderName; 5] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::USER_AGENT,
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
];
/// The headers of the official SDKs: which build asks, and how often it has.
const SDK_FAMILY: &str = "x-stainless-";
/// Headers of Kimi's answer that reach the client: what it is, and by which number Kimi knows it.
const FROM_KIMI: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-trace-id"),
    HeaderName::from_static("msh-trace-id"),
];
/// Where clients name the session that a request belongs to: OpenCode (`x-session-affinity`, before 1.0
/// `x-opencode-session`), Codex (`session_id`, `conversation_id`, newer ones with dashes, and `thread-id`), Claude Code,
/// and whatever follows the general custom.
const SESSION_HEADERS: [&str; 9] = [
    "x-session-id",
    "x-session-affinity",
    "x-opencode-session",
    "session_id",
    "session-id",
    "conversation_id",
    "conversation-id",
    "thread-id",
    "x-claude-code-session-id",
];
/// Longest session that is taken from a header, in bytes.
const SESSION_MAX: usize = 200;

/// What kimi-cli says of the machine that it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KimiCliHeaders {
    /// Of kimi-cli, such as `1.12.0`.
    pub version: String,
    pub device_name: String,
    /// Such as `Linux 6.12.0 x86_64`.
    pub device_model: String,
    pub os_version: String,
    /// This install's own, the same for ever.
    pub device_id: String,
}

/// The headers with which a client's request goes to Kimi, but for the login.
pub fn headers_for_kimi(
    client: &HeaderMap,
    identity: ClientIdentity,
    kimi_cli: &KimiCliHeaders,
) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in client {
        if name.as_str().starts_with(SDK_FAMILY) || FROM_CLIENT.contains(name) {
            kept.append(name, value.clone());
        }
    }
    // A compressed answer could not be metered.
    kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    match identity {
        ClientIdentity::Own => {}
        ClientIdentity::KimiCli => kept.extend(kimi_cli_headers(kimi_cli)),
    }
    kept
}

/// As the specification lists them. A value that no header can carry becomes what is left of it.
fn kimi_cli_headers(kimi_cli: &KimiCliHeaders) -> HeaderMap {
    let KimiCliHeaders { version, device_name, device_model, os_version, device_id } = kimi_cli;
    let value = |text: &str| {
        let text: String = text.chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
    };
    [
        (header::USER_AGENT, value(&format!("KimiCLI/{version}"))),
        (HeaderName::from_static("x-msh-platform"), HeaderValue::from_static("kimi_cli")),
        (HeaderName::from_static("x-msh-version"), value(version)),
        (HeaderName::from_static("x-msh-device-name"), value(device_name)),
        (HeaderName::from_static("x-msh-device-model"), value(device_model)),
        (HeaderName::from_static("x-msh-os-version"), value(os_version)),
        (HeaderName::from_static("x-msh-device-id"), value(device_id)),
    ]
    .into_iter()
    .collect()
}

/// The headers of Kimi's answer that go to the client.
pub fn headers_for_client(kimi: &HeaderMap) -> HeaderMap {
    let kept = FROM_KIMI.into_iter().filter_map(|name| Some((name.clone(), kimi.get(name)?.clone())));
    kept.collect()
}

/// The session that a client names, if it does.
pub fn client_session(headers: &HeaderMap) -> Option<String> {
    let sessions = SESSION_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    let mut fitting = sessions.map(str::trim).filter(|session| (1..=SESSION_MAX).contains(&session.len()));
    fitting.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kimi_cli() -> KimiCliHeaders {
        KimiCliHeaders {
            version: "1.12.0".to_owned(),
            device_name: "müller".to_owned(),
            device_model: "Linux 6.12.0 x86_64".to_owned(),
            os_version: "#1 SMP".to_owned(),
            device_id: "d0".to_owned(),
        }
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        shown
    }

    const CLIENT: [(&str, &str); 22] = [
        ("host", "127.0.0.1:8788"),
        ("authorization", "Bearer nk-secret"),
        ("x-api-key", "nk-secret"),
        ("proxy-authorization", "Basic x"),
        ("cookie", "a=b"),
        ("user-agent", "opencode/1.18.0"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("content-encoding", "gzip"),
        ("connection", "keep-alive, x-stainless-os"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14"),
        ("x-stainless-lang", "js"),
        ("x-session-id", "s1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-msh-device-id", "another"),
        ("openai-organization", "o"),
    ];

    #[test]
    fn a_client_reaches_kimi_as_itself() {
        assert_eq!(
            shown(&headers_for_kimi(&map(&CLIENT), ClientIdentity::Own, &kimi_cli())),
            [
                "accept-encoding: identity",
                "accept: application/json",
                "anthropic-beta: interleaved-thinking-2025-05-14",
                "anthropic-version: 2023-06-01",
                "content-type: application/json",
                "user-agent: opencode/1.18.0",
                "x-stainless-lang: js",
            ]
        );
    }

    #[test]
    fn specification_headers_applied_per_request() {
        assert_eq!(
            shown(&headers_for_kimi(&map(&CLIENT), ClientIdentity::KimiCli, &kimi_cli())),
            [
                "accept-encoding: identity",
                "accept: application/json",
                "anthropic-beta: interleaved-thinking-2025-05-14",
                "anthropic-version: 2023-06-01",
                "content-type: application/json",
                "user-agent: KimiCLI/1.12.0",
                "x-msh-device-id: d0",
                "x-msh-device-model: Linux 6.12.0 x86_64",
                "x-msh-device-name: mller",
                "x-msh-os-version: #1 SMP",
                "x-msh-platform: kimi_cli",
                "x-msh-version: 1.12.0",
                "x-stainless-lang: js",
            ]
        );
    }

    #[test]
    fn of_an_answer_nothing_of_the_account_reaches_the_client() {
        let answer = map(&[
            ("content-type", "text/event-stream"),
            ("set-cookie", "a=b"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("x-trace-id", "t1"),
            ("access-control-allow-origin", "*"),
            ("server", "x"),
        ]);
        assert_eq!(
            shown(&headers_for_client(&answer)),
            ["content-type: text/event-stream", "x-trace-id: t1"]
        );
    }

    #[test]
    fn a_session_is_taken_from_the_header_of_each_client() {
        for (headers, expected) in [
            (vec![], None),
            (vec![("x-session-affinity", "ses_1")], Some("ses_1")),
            (vec![("x-opencode-session", "ses_1")], Some("ses_1")),
            (vec![("session_id", "019a")], Some("019a")),
            (vec![("session-id", "019a")], Some("019a")),
            (vec![("x-claude-code-session-id", "c1")], Some("c1")),
            (vec![("session_id", "second"), ("x-session-id", "first")], Some("first")),
            (vec![("x-session-id", "  "), ("session_id", "second")], Some("second")),
        ] {
            assert_eq!(client_session(&map(&headers)).as_deref(), expected, "{headers:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", HeaderValue::try_from("s".repeat(SESSION_MAX + 1)).unwrap());
        assert_eq!(client_session(&headers), None);
    }
}
