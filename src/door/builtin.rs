//! Tools that Kimi runs itself while it answers, such as its web search: whoever may ask the model could reach the web by
//! them. Pure.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::road::Road;

/// Whether a request to the model may ask for other tools than functions, which the engine itself carries out. What cannot
/// be read may.
pub fn is_asked_for(road: Road, body: &[u8]) -> bool {
    road == Road::ToTheModel
        && serde_json::Deserializer::from_slice(body).deserialize_map(Request).unwrap_or(true)
}

/// Looks at a request's tools, whatever else it holds. Names are compared as the most careless reader does: without
/// regard to case, and each time that they stand there.
struct Request;

impl<'de> Visitor<'de> for Request {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request to the model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut asked = false;
        while let Some(name) = map.next_key::<String>()? {
            if is(&name, "tools") {
                let tools: Value = map.next_value()?;
                asked |=
                    !tools.is_null() && !tools.as_array().is_some_and(|tools| tools.iter().all(is_function));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(asked)
    }
}

fn is_function(tool: &Value) -> bool {
    let Some(tool) = tool.as_object() else { return false };
    let mut kinds = tool.iter().filter(|(name, _)| is(name, "type")).peekable();
    let mut functions = tool.iter().filter(|(name, _)| is(name, "function"));
    kinds.peek().is_some()
        && kinds.all(|(_, kind)| kind == "function")
        && functions.all(|(_, function)| is_named_by_its_engine(function))
}

/// Kimi's own have names such as `$web_search`.
fn is_named_by_its_engine(function: &Value) -> bool {
    let Some(function) = function.as_object() else { return false };
    let mut names = function.iter().filter(|(name, _)| is(name, "name"));
    names.all(|(_, name)| name.as_str().is_some_and(|name| !name.starts_with('$')))
}

/// Some readers take the letter ſ for an s, too.
fn is(name: &str, known: &str) -> bool {
    name.to_uppercase() == known.to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_the_engines_and_all_else_is_kimis() {
        let function = r#"{"type": "function", "function": {"name": "Shell", "parameters": {}}}"#;
        let search = r#"{"type": "builtin_function", "function": {"name": "$web_search"}}"#;
        for (body, asked) in [
            (r#"{"model": "k", "messages": []}"#.to_owned(), false),
            (r#"{"tools": null}"#.to_owned(), false),
            (r#"{"tools": []}"#.to_owned(), false),
            (format!(r#"{{"tools": [{function}]}}"#), false),
            (format!(r#"{{"tools": [{function}, {search}]}}"#), true),
            (format!(r#"{{"Tools": [{search}]}}"#), true),
            (format!(r#"{{"toolſ": [{search}]}}"#), true),
            (format!(r#"{{"tools": [{search}], "tools": []}}"#), true),
            (r#"{"tools": [{"type": "function", "Type": "builtin_function"}]}"#.to_owned(), true),
            (
                r#"{"tools": [{"type": "function", "function": {"name": "\u0024web_search"}}]}"#.to_owned(),
                true,
            ),
            (r#"{"tools": [{"function": {"name": "x"}}]}"#.to_owned(), true),
            (r#"{"tools": {"0": {}}}"#.to_owned(), true),
            (r#"{"tools": [1]}"#.to_owned(), true),
            ("{".to_owned(), true),
            ("[]".to_owned(), true),
            (String::new(), true),
        ] {
            assert_eq!(is_asked_for(Road::ToTheModel, body.as_bytes()), asked, "{body}");
        }
        assert!(!is_asked_for(Road::Beside, b"a file"));
    }
}
