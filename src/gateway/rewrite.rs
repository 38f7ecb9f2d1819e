//! What changes in a client's request on its way to Kimi: the model's name and what follows from it, and the cache key.
//! All other bytes stay as they came, tool ids and `reasoning_content` among them. Pure.
//!
//! Only the names of the top level are read; values are skipped over, whatever is in them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::routes::ApiForm;

/// The prefix that turns a model's name into an alias.
const ALIAS_PREFIX: &str = "kimicode-";
/// What the aliases of [`MODEL_ALIASES`] stand for.
pub const ALIASED_MODEL: &str = "kimi-for-coding";
/// The aliases that choose whether the model thinks.
pub const MODEL_ALIASES: [(&str, ThinkingMode); 2] =
    [("kimicode-kimi-k2.5", ThinkingMode::Off), ("kimicode-kimi-k2.5-thinking", ThinkingMode::High)];

/// Most names at the top level of a request; the API knows some thirty.
const MEMBERS_MAX: usize = 256;
/// Longest conversation key that is taken from a request, in bytes.
const CONVERSATION_MAX: usize = 512;

/// What an alias says about thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingMode {
    Off,
    High,
}

/// A request as it goes to Kimi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewrittenBody {
    pub bytes: Bytes,
    /// As the client named it.
    pub asked_model: String,
    /// As Kimi knows it.
    pub model: String,
    /// What tells the conversation apart, for the choice of the account.
    pub conversation: String,
}

/// Why a request's body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    NoObject,
    NamedTwice,
    NoModel,
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoObject => "The body of the request is no JSON object.",
            Self::NamedTwice => "The body of the request has the same name twice.",
            Self::NoModel => "The request names no model.",
        })
    }
}

/// The names of the top level and the text of their values.
struct TopLevel<'b>(Vec<(String, &'b RawValue)>);

impl<'de> Deserialize<'de> for TopLevel<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = TopLevel<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(de::Error::custom("too many names"));
                    }
                    members.push(member);
                }
                Ok(TopLevel(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

impl TopLevel<'_> {
    fn value(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(written, _)| written == name).map(|(_, value)| *value)
    }

    /// The value, if it is a string.
    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.value(name)?.get()).ok()
    }
}

/// The body that takes the place of a client's. `session` is what tells the client's conversation apart if the body does
/// not say it.
///
/// # Errors
/// The body is no object with one `model`.
pub fn rewrite_body(body: &Bytes, form: ApiForm, session: &str) -> Result<RewrittenBody, BodyFault> {
    let members: TopLevel<'_> = serde_json::from_slice(body).map_err(|_| BodyFault::NoObject)?;
    let names: BTreeSet<&str> = members.0.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() < members.0.len() {
        return Err(BodyFault::NamedTwice);
    }
    let asked_model = members.text("model").filter(|model| !model.is_empty()).ok_or(BodyFault::NoModel)?;
    let (model, thinking) = resolve_model_alias(&asked_model);
    let mut edits = BodyEdits::new(body, &members);
    if model != asked_model {
        edits.set_member("model", &quote_json(model));
    }
    match (form, thinking) {
        (_, None) => {}
        (_, Some(ThinkingMode::Off)) => edits.set_member("thinking", r#"{"type":"disabled"}"#),
        (ApiForm::OpenAi, Some(ThinkingMode::High)) => {
            edits.set_member("reasoning_effort", r#""high""#);
            edits.set_member("thinking", r#"{"type":"enabled"}"#);
        }
        // There thinking has a budget, which only the client knows.
        (ApiForm::Anthropic, Some(ThinkingMode::High)) => {}
    }
    let conversation = match form {
        ApiForm::OpenAi => match members.text("prompt_cache_key") {
            Some(key) => key,
            None => {
                edits.set_member("prompt_cache_key", &quote_json(session));
                session.to_owned()
            }
        },
        ApiForm::Anthropic => metadata_user_id(&members).unwrap_or_else(|| session.to_owned()),
    };
    let conversation = conversation.chars().take(CONVERSATION_MAX).collect();
    Ok(RewrittenBody { bytes: edits.into_body(), model: model.to_owned(), asked_model, conversation })
}

/// The name by which Kimi knows a model, and what an alias says about thinking.
pub fn resolve_model_alias(name: &str) -> (&str, Option<ThinkingMode>) {
    if let Some((_, thinking)) = MODEL_ALIASES.iter().find(|(alias, _)| *alias == name) {
        return (ALIASED_MODEL, Some(*thinking));
    }
    match name.strip_prefix(ALIAS_PREFIX) {
        Some(model) if !model.is_empty() => (model, None),
        Some(_) | None => (name, None),
    }
}

/// `metadata.user_id` of Anthropic's form: Claude Code puts its session into it.
fn metadata_user_id(members: &TopLevel<'_>) -> Option<String> {
    let metadata: TopLevel<'_> = serde_json::from_str(members.value("metadata")?.get()).ok()?;
    metadata.text("user_id").filter(|id| !id.is_empty())
}

fn quote_json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Members to replace, and members to put in front.
struct BodyEdits<'b> {
    body: &'b Bytes,
    members: &'b TopLevel<'b>,
    replaced: Vec<(Range<usize>, String)>,
    added: Vec<String>,
}

impl<'b> BodyEdits<'b> {
    fn new(body: &'b Bytes, members: &'b TopLevel<'b>) -> Self {
        Self { body, members, replaced: Vec::new(), added: Vec::new() }
    }

    /// Replaces the value of a member, or adds the member.
    fn set_member(&mut self, name: &str, value: &str) {
        match self.members.value(name) {
            Some(old) => {
                // A raw value borrows its text from the body.
                let start = old.get().as_ptr().addr() - self.body.as_ptr().addr();
                self.replaced.push((start..start + old.get().len(), value.to_owned()));
            }
            None => self.added.push(format!("{}:{value}", quote_json(name))),
        }
    }

    fn into_body(mut self) -> Bytes {
        if self.replaced.is_empty() && self.added.is_empty() {
            return self.body.clone();
        }
        let mut bytes = Vec::with_capacity(self.body.len() + 256);
        let opening = self.body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
        bytes.extend_from_slice(&self.body[..opening]);
        bytes.extend_from_slice(self.added.join(",").as_bytes());
        if !self.added.is_empty() && !self.members.0.is_empty() {
            bytes.push(b',');
        }
        self.replaced.sort_by_key(|(range, _)| range.start);
        let mut copied = opening;
        for (range, value) in self.replaced {
            bytes.extend_from_slice(&self.body[copied..range.start]);
            bytes.extend_from_slice(value.as_bytes());
            copied = range.end;
        }
        bytes.extend_from_slice(&self.body[copied..]);
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rewritten(body: &str, form: ApiForm) -> Result<String, BodyFault> {
        let body = rewrite_body(&Bytes::from(body.to_owned()), form, "s1")?;
        Ok(String::from_utf8(body.bytes.to_vec()).unwrap())
    }

    #[test]
    fn specification_model_alias_resolution() {
        for (name, model, thinking) in [
            ("kimicode-kimi-k2.5", "kimi-for-coding", Some(ThinkingMode::Off)),
            ("kimicode-kimi-k2.5-thinking", "kimi-for-coding", Some(ThinkingMode::High)),
            ("kimicode-k3", "k3", None),
            ("kimicode-kimi-for-coding", "kimi-for-coding", None),
            ("kimicode-kimicode-k3", "kimicode-k3", None),
            ("kimi-for-coding", "kimi-for-coding", None),
            ("k3-256k", "k3-256k", None),
            ("kimicode-", "kimicode-", None),
            ("KIMICODE-k3", "KIMICODE-k3", None),
            ("gpt-5", "gpt-5", None),
        ] {
            assert_eq!(resolve_model_alias(name), (model, thinking), "{name}");
        }
    }

    #[test]
    fn specification_thinking_off() {
        assert_eq!(
            rewritten(r#"{"model":"kimicode-kimi-k2.5","prompt_cache_key":"p"}"#, ApiForm::OpenAi).unwrap(),
            r#"{"thinking":{"type":"disabled"},"model":"kimi-for-coding","prompt_cache_key":"p"}"#
        );
        assert_eq!(
            rewritten(
                r#"{"thinking": {"type": "enabled"}, "model": "kimicode-kimi-k2.5", "max_tokens": 1}"#,
                ApiForm::Anthropic
            )
            .unwrap(),
            r#"{"thinking": {"type":"disabled"}, "model": "kimi-for-coding", "max_tokens": 1}"#
        );
    }

    #[test]
    fn specification_thinking_on() {
        assert_eq!(
            rewritten(r#"{"model":"kimicode-kimi-k2.5-thinking","prompt_cache_key":"p"}"#, ApiForm::OpenAi)
                .unwrap(),
            r#"{"reasoning_effort":"high","thinking":{"type":"enabled"},"model":"kimi-for-coding","prompt_cache_key":"p"}"#
        );
        assert_eq!(
            rewritten(
                r#"{"model":"kimicode-kimi-k2.5-thinking","reasoning_effort":"low","prompt_cache_key":"p"}"#,
                ApiForm::OpenAi
            )
            .unwrap(),
            r#"{"thinking":{"type":"enabled"},"model":"kimi-for-coding","reasoning_effort":"high","prompt_cache_key":"p"}"#
        );
        let budget =
            r#"{"model":"kimicode-kimi-k2.5-thinking","thinking":{"type":"enabled","budget_tokens":4000}}"#;
        assert_eq!(
            rewritten(budget, ApiForm::Anthropic).unwrap(),
            budget.replace("kimicode-kimi-k2.5-thinking", "kimi-for-coding")
        );
    }

    #[test]
    fn specification_prompt_cache_key() {
        for (body, form, expected, conversation) in [
            (r#"{"model":"k3"}"#, ApiForm::OpenAi, r#"{"prompt_cache_key":"s1","model":"k3"}"#, "s1"),
            (
                r#"{"model":"k3","prompt_cache_key":"mine"}"#,
                ApiForm::OpenAi,
                r#"{"model":"k3","prompt_cache_key":"mine"}"#,
                "mine",
            ),
            (
                r#"{"model":"k3","prompt_cache_key":null}"#,
                ApiForm::OpenAi,
                r#"{"model":"k3","prompt_cache_key":"s1"}"#,
                "s1",
            ),
            (r#"{"model":"k3"}"#, ApiForm::Anthropic, r#"{"model":"k3"}"#, "s1"),
            (
                r#"{"model":"k3","metadata":{"user_id":"u_session_7"}}"#,
                ApiForm::Anthropic,
                r#"{"model":"k3","metadata":{"user_id":"u_session_7"}}"#,
                "u_session_7",
            ),
        ] {
            let found = rewrite_body(&Bytes::from_static(body.as_bytes()), form, "s1").unwrap();
            assert_eq!(std::str::from_utf8(&found.bytes).unwrap(), expected);
            assert_eq!(found.conversation, conversation, "{body}");
        }
    }

    #[test]
    fn specification_body_essentially_unmodified() {
        // As a client might write it: an order, numbers and escapes that a parser would write in another way.
        let body = " \n{ \"messages\" : [ {\"role\":\"assistant\",\"reasoning_content\":\"h\\u00e9, \\/ 1e2\",\
            \"tool_calls\":[{\"id\":\"functions.Bash:0\",\"function\":{\"arguments\":\"{\\\"a\\\": 1.0}\"}}]} ],\
            \"temperature\": 1.00, \"seed\":123456789012345678901234567890,\r\n \"mod\\u0065l\"  :\t\"kimicode-k3\"\n}\n";
        assert_eq!(
            rewritten(body, ApiForm::OpenAi).unwrap(),
            body.replace("{ \"messages\"", "{\"prompt_cache_key\":\"s1\", \"messages\"")
                .replace("kimicode-k3", "k3")
        );
        let untouched = Bytes::from_static(br#"{"model":"k3","prompt_cache_key":"p"}"#);
        let same = rewrite_body(&untouched, ApiForm::OpenAi, "s1").unwrap().bytes;
        assert_eq!(same.as_ptr(), untouched.as_ptr());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (body, fault) in [
            ("", BodyFault::NoObject),
            ("null", BodyFault::NoObject),
            ("[]", BodyFault::NoObject),
            (r#"[{"model":"k3"}]"#, BodyFault::NoObject),
            (r#"{"model":"k3""#, BodyFault::NoObject),
            (r#"{"model":"k3"} x"#, BodyFault::NoObject),
            (r#"{"model":"k3","a":}"#, BodyFault::NoObject),
            ("{\"model\":\"k3\",\"a\":\"\u{1}\"}", BodyFault::NoObject),
            ("{}", BodyFault::NoModel),
            (r#"{"model":""}"#, BodyFault::NoModel),
            (r#"{"model":7}"#, BodyFault::NoModel),
            (r#"{"model":["k3"]}"#, BodyFault::NoModel),
            (r#"{"model":"k3","model":"k3"}"#, BodyFault::NamedTwice),
            (r#"{"model":"k3","mod\u0065l":"other"}"#, BodyFault::NamedTwice),
            (r#"{"model":"k3","n":1,"n":2}"#, BodyFault::NamedTwice),
        ] {
            assert_eq!(rewritten(body, ApiForm::OpenAi), Err(fault), "{body}");
        }
        assert_eq!(
            rewrite_body(&Bytes::from_static(b"{\"model\":\"\xff\"}"), ApiForm::OpenAi, "s"),
            Err(BodyFault::NoObject)
        );
        let many: Vec<String> = (0..=MEMBERS_MAX).map(|n| format!("\"n{n}\":0")).collect();
        assert_eq!(rewritten(&format!("{{{}}}", many.join(",")), ApiForm::OpenAi), Err(BodyFault::NoObject));
        let deep = format!(
            r#"{{"model":"k3","a":{}{},"prompt_cache_key":"p"}}"#,
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        assert_eq!(rewritten(&deep, ApiForm::OpenAi), Ok(deep.clone()));
    }

    proptest! {
        #[test]
        fn a_rewritten_body_means_the_same_but_for_what_was_rewritten(
            names in prop::collection::btree_set("[a-z\"\\\\é ]{0,8}|thinking|reasoning_effort|prompt_cache_key", 0..6),
            text in "\\PC{0,12}",
            thinks in prop::bool::ANY,
        ) {
            let mut before: serde_json::Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!({ "a": [text, { name: 1.5 }] }))).collect();
            before.insert("model".to_owned(), json!(if thinks { "kimicode-kimi-k2.5-thinking" } else { "k3" }));
            let body = Bytes::from(Value::Object(before.clone()).to_string());
            let after = rewrite_body(&body, ApiForm::OpenAi, "s\"1").unwrap();
            let after: serde_json::Map<String, Value> = serde_json::from_slice(&after.bytes).unwrap();
            if thinks {
                before.insert("model".to_owned(), json!("kimi-for-coding"));
                before.insert("reasoning_effort".to_owned(), json!("high"));
                before.insert("thinking".to_owned(), json!({ "type": "enabled" }));
            }
            // In the strategy a given key is no string, so it is filled, too.
            before.insert("prompt_cache_key".to_owned(), json!("s\"1"));
            prop_assert_eq!(Value::Object(after), Value::Object(before));
        }
    }
}
