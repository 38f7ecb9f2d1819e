//! Puts the gateway into OpenCode's settings, and takes it out again: JSON with comments, of which all else stays as it
//! is. Pure: text in, text out.

use std::ops::Range;

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::client_key::KEY_VARIABLE;
use super::models::{CONTEXT_TOKENS, OUTPUT_TOKENS};

const PROVIDERS: &str = "provider";
/// What the gateway is called among the providers.
const OURS: &str = "nanokimi";
/// Deepest nesting that is looked into; OpenCode's settings have six levels.
const DEPTH_MAX: usize = 200;

/// The gateway as a provider with its two models. Lines after the first begin with `indent`.
pub fn opencode_provider(base: &str, indent: &str) -> String {
    let model = |name: &str, thinks: bool| {
        let mut model = json!({
            "name": name, "attachment": true, "tool_call": true, "reasoning": thinks,
            "limit": { "context": CONTEXT_TOKENS, "output": OUTPUT_TOKENS },
            "modalities": { "input": ["text", "image"], "output": ["text"] },
        });
        if thinks {
            // Kimi refuses a history of tool calls without what it thought.
            model["interleaved"] = json!({ "field": "reasoning_content" });
        }
        model
    };
    let provider = json!({
        "npm": "@ai-sdk/openai-compatible",
        "name": "Kimi (nanokimi)",
        "options": { "baseURL": format!("{base}/v1"), "apiKey": format!("{{env:{KEY_VARIABLE}}}") },
        "models": {
            "kimicode-kimi-k2.5": model("Kimi Code (K2.5)", false),
            "kimicode-kimi-k2.5-thinking": model("Kimi Code (K2.5) Thinking", true),
        },
    });
    render_indented(&provider, indent)
}

fn render_indented(value: &Value, indent: &str) -> String {
    format!("{value:#}").replace('\n', &format!("\n{indent}"))
}

/// The settings with the gateway among the providers, in place of an earlier one.
///
/// # Errors
/// The text is no object of JSON with comments.
pub fn add_nanokimi_provider(settings: &str, base: &str) -> Result<String> {
    let settings = if is_blank(settings, 0..settings.len()) {
        // There may be comments.
        let before = if settings.trim().is_empty() { "" } else { settings };
        let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        format!("{before}{gap}{{\n  \"$schema\": \"https://opencode.ai/config.json\"\n}}\n")
    } else {
        remove_nanokimi_provider(settings)?
    };
    let top = read_top_level(&settings)?;
    let ours = format!("\"{OURS}\": {}", opencode_provider(base, "    "));
    match top.member(PROVIDERS)? {
        Some(providers) => {
            let providers = read_object(&settings, providers.value.start)?;
            Ok(insert_first(&settings, &providers, &ours, "    "))
        }
        None => {
            let providers = format!("\"{PROVIDERS}\": {{\n    {ours}\n  }}");
            Ok(insert_first(&settings, &top, &providers, "  "))
        }
    }
}

/// The settings without the gateway; as they are, if it is not in them.
///
/// # Errors
/// As [`add_nanokimi_provider`].
pub fn remove_nanokimi_provider(settings: &str) -> Result<String> {
    if is_blank(settings, 0..settings.len()) {
        return Ok(settings.to_owned());
    }
    let top = read_top_level(settings)?;
    let Some(place) = top.member(PROVIDERS)? else { return Ok(settings.to_owned()) };
    let providers = read_object(settings, place.value.start)?;
    let Some(ours) = providers.member(OURS)? else { return Ok(settings.to_owned()) };
    let without = remove_member(settings, &providers, ours);
    // What is left of the providers goes too, if it is nothing.
    let top = read_top_level(&without)?;
    let Some(place) = top.member(PROVIDERS)? else { return Ok(without) };
    let left = &without[place.value.clone()];
    let is_empty = left
        .strip_prefix('{')
        .and_then(|left| left.strip_suffix('}'))
        .is_some_and(|left| left.trim().is_empty());
    Ok(if is_empty { remove_member(&without, &top, place) } else { without })
}

/// An object in a text.
struct ObjectSpan {
    /// Behind its opening bracket.
    inner_start: usize,
    /// At its closing bracket.
    inner_end: usize,
    members: Vec<MemberSpan>,
}

struct MemberSpan {
    name: String,
    /// Behind what comes before: the object's bracket, or a comma.
    after: usize,
    /// From the quote that opens the name.
    start: usize,
    value: Range<usize>,
}

impl ObjectSpan {
    fn member(&self, name: &str) -> Result<Option<&MemberSpan>> {
        let mut found = self.members.iter().filter(|member| member.name == name);
        let member = found.next();
        ensure!(found.next().is_none(), "OpenCode's settings have {name:?} twice");
        Ok(member)
    }
}

/// Whether there is nothing but space and comments.
fn is_blank(text: &str, range: Range<usize>) -> bool {
    skip_blank(text, range.start).is_ok_and(|at| at >= range.end)
}

fn insert_first(text: &str, object: &ObjectSpan, member: &str, indent: &str) -> String {
    let (before, after) = text.split_at(object.inner_start);
    if object.members.is_empty() {
        let outer = &indent[2..];
        return format!(
            "{before}\n{indent}{member}\n{outer}{}",
            after.trim_start_matches([' ', '\t', '\r', '\n'])
        );
    }
    format!("{before}\n{indent}{member},{after}")
}

/// Takes a member out with the comma that belongs to it, and with the space before it. Comments stay.
fn remove_member(text: &str, object: &ObjectSpan, member: &MemberSpan) -> String {
    let is_space = |range: Range<usize>| text[range].trim().is_empty();
    let mut start = if is_space(member.after..member.start) { member.after } else { member.start };
    let comma_after = skip_blank(text, member.value.end).ok().filter(|at| text[*at..].starts_with(','));
    let end = match comma_after {
        Some(comma) => comma + 1,
        // Alone in its object: nothing but space is left there.
        None if object.members.len() == 1 && is_space(member.value.end..object.inner_end) => {
            if start == object.inner_start { object.inner_end } else { member.value.end }
        }
        None => {
            // The last of several: the comma before it has nothing to separate any more.
            if start == member.after && start > object.inner_start {
                start -= 1;
            }
            member.value.end
        }
    };
    format!("{}{}", &text[..start], &text[end..])
}

fn read_top_level(text: &str) -> Result<ObjectSpan> {
    let start = skip_blank(text, 0)?;
    let object = read_object(text, start)?;
    ensure!(
        is_blank(text, object.inner_end + 1..text.len()),
        "Something follows the object of OpenCode's settings"
    );
    Ok(object)
}

/// Reads the object that begins at `start`.
fn read_object(text: &str, start: usize) -> Result<ObjectSpan> {
    ensure!(text[start..].starts_with('{'), "OpenCode's settings have no object where one should be");
    let inner_start = start + 1;
    let mut members = Vec::new();
    let mut after = inner_start;
    let mut at = skip_blank(text, after)?;
    loop {
        if text[at..].starts_with('}') {
            return Ok(ObjectSpan { inner_start, inner_end: at, members });
        }
        let name_start = at;
        let name_end = skip_string(text, name_start)?;
        let name: String = serde_json::from_str(&text[name_start..name_end])?;
        let colon = skip_blank(text, name_end)?;
        ensure!(text[colon..].starts_with(':'), "OpenCode's settings have a name without a value: {name:?}");
        let value_start = skip_blank(text, colon + 1)?;
        let value = value_start..skip_value(text, value_start)?;
        at = skip_blank(text, value.end)?;
        members.push(MemberSpan { name, after, start: name_start, value });
        if text[at..].starts_with(',') {
            // A comma behind the last member is allowed there.
            after = at + 1;
            at = skip_blank(text, after)?;
        } else if !text[at..].starts_with('}') {
            bail!(
                "OpenCode's settings lack a comma behind {:?}",
                members.last().map(|member| member.name.as_str())
            );
        }
    }
}

/// Behind space, line comments and block comments.
fn skip_blank(text: &str, start: usize) -> Result<usize> {
    let mut at = start;
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{feff}']);
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("//") {
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        } else if trimmed.starts_with("/*") {
            let end =
                trimmed.find("*/").ok_or_else(|| anyhow!("A comment in OpenCode's settings does not end"))?;
            at += end + 2;
        } else {
            return Ok(at);
        }
    }
}

/// Behind the string that begins at `start`.
fn skip_string(text: &str, start: usize) -> Result<usize> {
    let bytes = text.as_bytes();
    ensure!(
        bytes.get(start) == Some(&b'"'),
        "OpenCode's settings have something else where a name should be"
    );
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => bail!("A text in OpenCode's settings does not end"),
        }
    }
}

/// Behind the value that begins at `start`.
fn skip_value(text: &str, start: usize) -> Result<usize> {
    let mut depth = 0;
    let mut at = start;
    loop {
        let Some(byte) = text.as_bytes().get(at) else { bail!("OpenCode's settings end in the middle") };
        match byte {
            b'"' => at = skip_string(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                ensure!(depth <= DEPTH_MAX, "OpenCode's settings are nested too deeply");
                at += 1;
            }
            b'}' | b']' => {
                ensure!(depth > 0, "OpenCode's settings lack a value");
                depth -= 1;
                at += 1;
            }
            b',' | b':' if depth > 0 => at += 1,
            b',' | b':' => bail!("OpenCode's settings lack a value"),
            // A number or a word.
            _ => {
                let length = text[at..].find([',', ':', '}', ']', '{', '[', '"', '/', ' ', '\t', '\r', '\n']);
                let length = length.unwrap_or(text.len() - at);
                ensure!(length > 0, "OpenCode's settings have something in them that is no value");
                at += length;
            }
        }
        if depth == 0 {
            return Ok(at);
        }
        at = skip_blank(text, at)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "http://127.0.0.1:8788";
    const SETTINGS: &str = "// mine\n{\n  \"$schema\": \"https://opencode.ai/config.json\", /* a \"provider\": {} */\n  \
        \"theme\": \"a // b\",\n  \"provider\": {\n    // my own\n    \"local\": { \"models\": { \"x\": {}, }, },\n  },\n}\n";

    /// The value of JSON with comments and commas at ends.
    fn value_of(text: &str) -> Value {
        let mut plain = String::new();
        let mut at = 0;
        while at < text.len() {
            let next = skip_blank(text, at).unwrap();
            if next > at {
                plain.push(' ');
                at = next;
            } else if text[at..].starts_with('"') {
                let end = skip_string(text, at).unwrap();
                plain.push_str(&text[at..end]);
                at = end;
            } else {
                let c = text[at..].chars().next().unwrap();
                if matches!(c, '}' | ']') && plain.trim_end().ends_with(',') {
                    plain.truncate(plain.trim_end().len() - 1);
                }
                plain.push(c);
                at += c.len_utf8();
            }
        }
        serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn the_gateway_comes_and_goes_and_all_else_stays() {
        for settings in [
            SETTINGS,
            "{}",
            "{\n}\n",
            "{\"theme\":\"x\"}",
            "{\"provider\":{\"a\":{}}}",
            "{ \"a\": [1, {\"provider\": 2}], // end\n }",
            "{\r\n  \"provider\": { \"a\": 1 } }\r\n",
        ] {
            let with = add_nanokimi_provider(settings, BASE).unwrap();
            let (before, after) = (value_of(settings), value_of(&with));
            let ours = &after["provider"]["nanokimi"];
            assert_eq!(ours["options"]["baseURL"], "http://127.0.0.1:8788/v1", "{with}");
            let mut expected = before.clone();
            expected["provider"]["nanokimi"] = ours.clone();
            assert_eq!(after, expected, "{with}");
            assert_eq!(add_nanokimi_provider(&with, BASE).unwrap(), with, "twice is once");
            let without = remove_nanokimi_provider(&with).unwrap();
            assert_eq!(value_of(&without), before, "{without}");
            if settings != "{\n}\n" {
                assert_eq!(without, settings);
            }
            assert_eq!(remove_nanokimi_provider(settings).unwrap(), settings);
        }
    }

    #[test]
    fn new_settings_are_made_of_nothing() {
        for nothing in ["", " \n", "// only a comment\n", "/* one */ // two"] {
            let made = add_nanokimi_provider(nothing, BASE).unwrap();
            assert!(made.starts_with(nothing.trim()), "{made}");
            assert_eq!(value_of(&made)["$schema"], "https://opencode.ai/config.json");
            assert!(made.contains("\"kimicode-kimi-k2.5-thinking\""), "{made}");
        }
    }

    #[test]
    fn a_provider_of_ours_is_taken_out_wherever_it_stands() {
        for (with, without) in [
            (r#"{"provider":{"a":1,"nanokimi":{"x":[]},"b":2}}"#, r#"{"provider":{"a":1,"b":2}}"#),
            (r#"{"provider":{"a":1, "nanokimi":{} }}"#, r#"{"provider":{"a":1 }}"#),
            (r#"{"a":1,"provider":{"nanokimi":{}}}"#, r#"{"a":1}"#),
            (r#"{"provider":{"nanokimi":{},},"a":1}"#, r#"{"a":1}"#),
            // A comment before it is not ours, and must not swallow the bracket.
            ("{\"provider\":{\n// keep\n\"nanokimi\":{}}}", "{\"provider\":{\n// keep\n}}"),
            ("{\"provider\":{\n// keep,\n\"nanokimi\":{}}}", "{\"provider\":{\n// keep,\n}}"),
        ] {
            assert_eq!(remove_nanokimi_provider(with).unwrap(), without, "{with}");
        }
    }

    #[test]
    fn what_is_no_settings_file_is_left_alone() {
        for text in [
            "[]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1 \"b\":2}",
            "{} {}",
            "{a:1}",
            "/* x",
            "{\"provider\":[]}",
            "{\"provider\":{},\"provider\":{}}",
        ] {
            assert!(add_nanokimi_provider(text, BASE).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[{}\\[\\]:,\"/*\\\\a1 \n]{0,40}") {
            if let Ok(with) = add_nanokimi_provider(&text, BASE) {
                prop_assert!(with.contains("nanokimi"));
            }
        }
    }
}
