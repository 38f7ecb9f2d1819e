//! Takes out of a model request what people wrote: pure, and forgiving about everything else.
//!
//! A prompt is `<messages><message id=… sender=… person=… time=…>text</message>…</messages>` with the text
//! escaped. What the engine adds for the model alone (`<system-reminder>…</system-reminder>`) was said by
//! nobody. Text without this wrapping counts as one message.

use std::fmt;

use serde_json::Value;

/// A conversation as far as it was sent with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// What people wrote, oldest first, without the name that wakes the assistant.
    pub said: Vec<String>,
    /// What tools answered after that, when they did: then the model speaks next about them.
    pub tool_answers: Vec<String>,
}

impl Conversation {
    /// `None` if the request has no list of messages.
    pub fn from_request(request: &Value) -> Option<Self> {
        let mut conversation = Self { said: Vec::new(), tool_answers: Vec::new() };
        for message in request.get("messages")?.as_array()? {
            let parts = text_parts(message.get("content").unwrap_or(&Value::Null));
            match message.get("role").and_then(Value::as_str) {
                Some("user") => {
                    let said: Vec<String> = parts.iter().flat_map(|part| messages_in_part(part)).collect();
                    if !said.is_empty() {
                        conversation.tool_answers.clear();
                    }
                    conversation.said.extend(said);
                }
                Some("tool") => conversation.tool_answers.push(parts.join("\n")),
                Some("assistant") => conversation.tool_answers.clear(),
                _ => {}
            }
        }
        Some(conversation)
    }

    /// The message to answer; empty when nobody has said anything.
    pub fn message_to_answer(&self) -> &str {
        self.said.last().map_or("", String::as_str)
    }

    /// What was said before the message to answer.
    pub fn earlier_messages(&self) -> &[String] {
        self.said.split_last().map_or(&[], |(_, earlier)| earlier)
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message_to_answer())
    }
}

/// The texts of a message's content, which is one string or a list of parts.
fn text_parts(content: &Value) -> Vec<String> {
    match content {
        Value::String(text) => vec![text.clone()],
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text")?.as_str()).map(str::to_owned).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// What was said in one part of a user message.
fn messages_in_part(part: &str) -> Vec<String> {
    // What was said before needs no answer.
    let part = without_elements(&without_elements(part, "system-reminder"), "earlier");
    // What a task says comes as a message does.
    let mut messages = find_elements(&part, "message");
    messages.extend(find_elements(&part, "task"));
    let texts: Vec<String> = if messages.is_empty() {
        vec![part]
    } else {
        // The text is escaped, so what is still markup, such as a quote, is not the sender's own.
        messages.into_iter().map(|inner| unescape_entities(&text_outside_elements(inner))).collect()
    };
    texts.iter().map(|text| strip_mention(text.trim()).to_owned()).filter(|text| !text.is_empty()).collect()
}

/// `@Kai, hello` → `hello`, whatever the assistant is called.
fn strip_mention(text: &str) -> &str {
    match text.strip_prefix('@').and_then(|named| named.split_once(char::is_whitespace)) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    }
}

/// An element found in a text: where it begins and ends, and what is in it.
struct FoundElement<'t> {
    start: usize,
    end: usize,
    inner: &'t str,
}

/// The next `<name …>…</name>` at or after `from`.
fn find_element<'t>(text: &'t str, name: &str, from: usize) -> Option<FoundElement<'t>> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut from = from;
    loop {
        let start = from + text[from..].find(&open)?;
        let attributes = start + open.len();
        if text[attributes..].starts_with(|c: char| c == '>' || c.is_whitespace()) {
            let inner = attributes + text[attributes..].find('>')? + 1;
            let length = text[inner..].find(&close)?;
            return Some(FoundElement {
                start,
                end: inner + length + close.len(),
                inner: &text[inner..inner + length],
            });
        }
        from = attributes;
    }
}

fn find_elements<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let mut inner = Vec::new();
    let mut from = 0;
    while let Some(found) = find_element(text, name, from) {
        inner.push(found.inner);
        from = found.end;
    }
    inner
}

fn without_elements(text: &str, name: &str) -> String {
    let mut kept = String::new();
    let mut from = 0;
    while let Some(found) = find_element(text, name, from) {
        kept.push_str(&text[from..found.start]);
        from = found.end;
    }
    kept + &text[from..]
}

/// A text without the elements in it, whatever they are called.
fn text_outside_elements(text: &str) -> String {
    let Some(open) = text.find('<') else { return text.to_owned() };
    let name: String =
        text[open + 1..].chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
    // An element without content, such as a file's.
    if let Some(end) = text[open..].find('>').filter(|end| text[open..open + end].ends_with('/')) {
        return text[..open].to_owned() + &text_outside_elements(&text[open + end + 1..]);
    }
    match find_element(text, &name, open) {
        Some(found) if !name.is_empty() && found.start == open => {
            text[..open].to_owned() + &text_outside_elements(&text[found.end..])
        }
        _ => text.to_owned(),
    }
}

fn unescape_entities(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        match after.split_once(';').and_then(|(entity, rest)| Some((entity_character(entity)?, rest))) {
            Some((character, after)) => {
                plain.push(character);
                rest = after;
            }
            None => {
                plain.push('&');
                rest = after;
            }
        }
    }
    plain + rest
}

fn entity_character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn said(content: Value) -> Vec<String> {
        Conversation::from_request(&json!({ "messages": [{ "role": "user", "content": content }] }))
            .unwrap()
            .said
    }

    #[test]
    fn people_are_heard_through_the_wrapping() {
        for (content, heard) in [
            (json!("plain words"), vec!["plain words"]),
            (
                json!([{ "type": "text", "text": "a part" }, { "type": "image_url", "image_url": {} }]),
                vec!["a part"],
            ),
            (
                json!(
                    "<messages>\n<message id=\"1\" sender=\"Ana\" time=\"10:00\">hello</message>\n\
                    <message id=\"2\" sender=\"Bo\" time=\"10:01\">@Kai 1 &lt; 2 &amp;&amp; &quot;ok&quot; &#39;&#x41;</message>\n</messages>"
                ),
                vec!["hello", "1 < 2 && \"ok\" 'A"],
            ),
            (
                json!(
                    "<messages><message id=\"1\"><quoted sender=\"Bo\"><file kind=\"image\" path=\"a\" />\nCALL x {}</quoted>\n\
                     <file kind=\"text\" path=\"b\" />\n@Kai SAY hi<left-out characters=\"9\" />, Ana</message></messages>"
                ),
                vec!["SAY hi, Ana"],
            ),
            (
                json!("<messages><task id=\"1\" time=\"10:00\">SAY good morning</task></messages>"),
                vec!["SAY good morning"],
            ),
            (
                json!(
                    "<earlier>\n<task id=\"1\">SAY good night</task>\n</earlier>\n<messages><message id=\"1\">SAY hi\
                     </message></messages>"
                ),
                vec!["SAY hi"],
            ),
            (
                json!(
                    "<messages><message id=\"1\"><file kind=\"image\" path=\"/a.png\" />\nSAY hi</message></messages>"
                ),
                vec!["SAY hi"],
            ),
            (
                json!([{ "type": "text", "text": "<system-reminder>\nbe good\n</system-reminder>" }, { "type": "text", "text": "hi" }]),
                vec!["hi"],
            ),
            (
                json!("<messages><message>&lt;system-reminder&gt;</message></messages>"),
                vec!["<system-reminder>"],
            ),
            (json!("<messages></messages>"), vec!["<messages></messages>"]),
            (json!("me@example.com is mine"), vec!["me@example.com is mine"]),
            (json!(" "), vec![]),
            (json!(7), vec![]),
        ] {
            assert_eq!(said(content.clone()), heard, "{content}");
        }
    }

    #[test]
    fn tools_have_the_word_until_somebody_speaks() {
        let mut messages = json!([
            { "role": "system", "content": "you are Kai" },
            { "role": "user", "content": "look it up" },
            { "role": "assistant", "content": "", "tool_calls": [{}, {}] },
            { "role": "tool", "content": "one" },
            { "role": "tool", "content": [{ "type": "text", "text": "two" }] },
            { "role": "user", "content": "<system-reminder>x</system-reminder>" },
        ]);
        let read = |messages: &Value| Conversation::from_request(&json!({ "messages": messages })).unwrap();
        assert_eq!(read(&messages).tool_answers, ["one", "two"]);
        messages.as_array_mut().unwrap().push(json!({ "role": "user", "content": "never mind" }));
        let steered = read(&messages);
        assert_eq!(
            (steered.tool_answers.len(), steered.message_to_answer(), steered.earlier_messages()),
            (0, "never mind", &["look it up".to_owned()][..])
        );
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back_as_it_was(text in "\\PC{0,40}") {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
            let expected = strip_mention(text.trim());
            let heard = said(json!(format!("<messages><message id=\"1\">{escaped}</message></messages>")));
            prop_assert_eq!(heard.first().map_or("", String::as_str), expected);
        }

        #[test]
        fn no_text_is_too_strange(text in "[<>/&;#x@a-c \"=-]{0,60}|(<message>|</message>|<system-reminder>|&lt;|<){0,12}") {
            said(json!(text));
        }
    }
}
