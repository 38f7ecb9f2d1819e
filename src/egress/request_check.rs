//! What a request to the model asks for: which model, and whether Kimi is to go to the web for it. Pure.
//!
//! A body is read once, in one pass, and nothing of it is kept: an agent may send 32 MiB of the smallest
//! values there are, of which a tree would take gigabytes. Names are compared as the most careless reader
//! would: without regard to case, and every time that they occur.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The fields that engines send (kimi-cli 1.51.0 and kimi-code 2.1.0 with their settings), and those of the
/// OpenAI API that only shape the answer. Any other may switch on something that Kimi runs itself, such as a
/// search.
const FIELDS_OF_ENGINES: [&str; 22] = [
    "messages",
    "model",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "thinking",
    "reasoning_effort",
    "prompt_cache_key",
    "response_format",
    "seed",
    "user",
    "safety_identifier",
];

/// The fields of a message whose value is text, which may begin with a URL like any other text. Kimi fetches
/// none of these.
const TEXT_OF_MESSAGES: [&str; 4] = ["content", "text", "reasoning_content", "arguments"];

/// What a request to the model asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCheck {
    pub model: NamedModel,
    /// Whether something in it may have Kimi go to the web while it answers: a tool of Kimi's own, an
    /// address, or a field that no engine sends. Also true of a body that cannot be read.
    pub leads_kimi_to_the_web: bool,
}

/// The model that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedModel {
    /// One that its engine is configured with; any, if those are not known.
    Configured,
    /// Another one, no model, or nothing that can be read.
    Another,
    /// More than one, or the same one twice: nobody knows which one counts.
    NamedTwice,
}

/// Reads the body of a request. `models` are those that its engine is configured with.
pub fn check_model_request(body: &[u8], models: &[String]) -> RequestCheck {
    let mut json = serde_json::Deserializer::from_slice(body);
    let asked = json.deserialize_map(RequestVisitor { models }).and_then(|asked| json.end().map(|()| asked));
    asked.unwrap_or(RequestCheck { model: classify_named_model(false, models), leads_kimi_to_the_web: true })
}

fn classify_named_model(is_known: bool, models: &[String]) -> NamedModel {
    if is_known || models.is_empty() { NamedModel::Configured } else { NamedModel::Another }
}

/// The body of a request.
struct RequestVisitor<'a> {
    models: &'a [String],
}

impl<'de> Visitor<'de> for RequestVisitor<'_> {
    type Value = RequestCheck;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request to the model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestCheck, A::Error> {
        let mut model = None;
        let mut leads_kimi_to_the_web = false;
        while let Some(field) = map.next_key_seed(StringVisitor(field_of_request))? {
            leads_kimi_to_the_web |= match field {
                RequestField::Model => {
                    let is_known =
                        map.next_value_seed(StringVisitor(|name: &str| is_known_model(name, self.models)))?;
                    model = Some(match model {
                        None => classify_named_model(is_known, self.models),
                        Some(_) => NamedModel::NamedTwice,
                    });
                    false
                }
                RequestField::ModelMisspelt => {
                    map.next_value::<IgnoredAny>()?;
                    // Beside the right name it is a second model; by itself it names none.
                    model = Some(
                        model.map_or(classify_named_model(false, self.models), |_| NamedModel::NamedTwice),
                    );
                    true
                }
                RequestField::Messages => {
                    map.next_value_seed(MessagesVisitor { is_text: false, is_address: false })?
                }
                RequestField::Tools => map.next_value_seed(ToolsVisitor)?,
                RequestField::OfEngines => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
                RequestField::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    true
                }
            };
        }
        Ok(RequestCheck {
            model: model.unwrap_or(classify_named_model(false, self.models)),
            leads_kimi_to_the_web,
        })
    }
}

/// A field of a request.
#[derive(Clone, Copy)]
enum RequestField {
    Model,
    /// Taken for the model by readers that ignore case.
    ModelMisspelt,
    Messages,
    Tools,
    OfEngines,
    Unknown,
}

fn field_of_request(name: &str) -> RequestField {
    match name {
        "model" => RequestField::Model,
        "messages" => RequestField::Messages,
        "tools" => RequestField::Tools,
        _ if FIELDS_OF_ENGINES.contains(&name) => RequestField::OfEngines,
        _ if equals_ignoring_case(name, "model") => RequestField::ModelMisspelt,
        _ => RequestField::Unknown,
    }
}

fn is_known_model(name: &str, models: &[String]) -> bool {
    models.iter().any(|model| model == name)
}

/// Whether messages, or a part of them, lead Kimi to the web: by an address that is not the content itself or
/// a file that was uploaded, or by tools, which messages may bring along, too (kimi-code does so).
#[derive(Clone, Copy)]
struct MessagesVisitor {
    /// Whether a string is text here, rather than a value with a meaning.
    is_text: bool,
    /// Whether a string is an address here.
    is_address: bool,
}

impl<'de> DeserializeSeed<'de> for MessagesVisitor {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        Ok(if self.is_address { !is_content_or_upload(text) } else { !self.is_text && is_web_address(text) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut leads = false;
        while let Some(item_leads) = seq.next_element_seed(self)? {
            leads |= item_leads;
        }
        Ok(leads)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut leads = false;
        while let Some(within) = map.next_key_seed(StringVisitor(field_of_message))? {
            leads |= match within {
                Some(within) => map.next_value_seed(within)?,
                None => map.next_value_seed(ToolsVisitor)?,
            };
        }
        Ok(leads)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// How the value of a message's field is read; `None` for tools.
fn field_of_message(name: &str) -> Option<MessagesVisitor> {
    let is_address = ["url", "urls", "uri", "uris"].iter().any(|end| ends_with_ignoring_case(name, end));
    let is_text = TEXT_OF_MESSAGES.contains(&name);
    (!equals_ignoring_case(name, "tools")).then_some(MessagesVisitor { is_text, is_address })
}

/// Whether an address needs no web: its content is within it, or was uploaded to Kimi.
fn is_content_or_upload(address: &str) -> bool {
    address.starts_with("data:") || address.starts_with("ms://")
}

/// Whether some reader of URLs takes this for one of the web. Such readers skip blanks before it, and line
/// ends and tabs anywhere (WHATWG), and need no slashes.
fn is_web_address(text: &str) -> bool {
    let mut letters = text
        .chars()
        .filter(|c| !c.is_whitespace() && !c.is_control() && *c != '\u{feff}')
        .map(|c| c.to_ascii_lowercase());
    if !"http".chars().all(|expected| letters.next() == Some(expected)) {
        return false;
    }
    match letters.next() {
        Some(':') => true,
        Some('s') => letters.next() == Some(':'),
        Some(_) | None => false,
    }
}

/// Whether there are tools other than functions, which the engine itself carries out.
struct ToolsVisitor;

impl<'de> DeserializeSeed<'de> for ToolsVisitor {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ToolsVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tools")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut are_kimis = false;
        while let Some(is_function) = seq.next_element_seed(ToolVisitor)? {
            are_kimis |= !is_function;
        }
        Ok(are_kimis)
    }
}

/// Whether one tool is a function of the engine's.
struct ToolVisitor;

impl<'de> DeserializeSeed<'de> for ToolVisitor {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ToolVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tool")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut has_type = false;
        let mut is_function = true;
        while let Some((is_type, is_its_function, is_exact)) =
            map.next_key_seed(StringVisitor(|name: &str| {
                (equals_ignoring_case(name, "type"), equals_ignoring_case(name, "function"), name == "type")
            }))?
        {
            if is_type {
                // A reader that respects case sees no type in a tool without the exact name.
                has_type |= is_exact;
                is_function &= map.next_value_seed(StringVisitor(|kind: &str| kind == "function"))?;
            } else if is_its_function {
                is_function &= map.next_value_seed(FunctionVisitor)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(has_type && is_function)
    }
}

/// Whether a function has a name that its engine has given it: Kimi's own have names such as `$web_search`.
struct FunctionVisitor;

impl<'de> DeserializeSeed<'de> for FunctionVisitor {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FunctionVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut is_the_engines = true;
        while let Some(is_name) =
            map.next_key_seed(StringVisitor(|name: &str| equals_ignoring_case(name, "name")))?
        {
            if is_name {
                is_the_engines &= map.next_value_seed(StringVisitor(|name: &str| !name.starts_with('$')))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(is_the_engines)
    }
}

/// Applies a function to a string, of which nothing is kept. A value that is no string cannot be read.
struct StringVisitor<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for StringVisitor<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        json.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for StringVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// Some readers take the letter ſ for an s, too.
fn equals_ignoring_case(name: &str, known: &str) -> bool {
    name.chars().flat_map(char::to_uppercase).eq(known.chars().flat_map(char::to_uppercase))
}

fn ends_with_ignoring_case(name: &str, end: &str) -> bool {
    name.char_indices()
        .rev()
        .nth(end.chars().count() - 1)
        .is_some_and(|(at, _)| equals_ignoring_case(&name[at..], end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: &str = r#"{"type": "builtin_function", "function": {"name": "$web_search"}}"#;
    const SHELL: &str = r#"{"type": "function", "function": {"name": "Shell", "parameters": {}}}"#;

    fn leads_kimi_to_the_web(body: &str) -> bool {
        check_model_request(body.as_bytes(), &[]).leads_kimi_to_the_web
    }

    #[test]
    fn functions_are_the_engines_and_all_else_is_kimis() {
        for (body, leads) in [
            (r#"{"model": "k", "messages": []}"#.to_owned(), false),
            (r#"{"tools": null}"#.to_owned(), false),
            (r#"{"tools": []}"#.to_owned(), false),
            (format!(r#"{{"tools": [{SHELL}]}}"#), false),
            (format!(r#"{{"tools": [{SHELL}, {SEARCH}]}}"#), true),
            (format!(r#"{{"Tools": [{SEARCH}]}}"#), true),
            (format!(r#"{{"toolſ": [{SEARCH}]}}"#), true),
            (format!(r#"{{"tools": [{SEARCH}], "tools": []}}"#), true),
            (format!(r#"{{"tools": [], "tools": [{SEARCH}]}}"#), true),
            (r#"{"tools": [{"type": "function", "Type": "builtin_function"}]}"#.to_owned(), true),
            (r#"{"tools": [{"Type": "function"}]}"#.to_owned(), true),
            (r#"{"tools": [{"Type": "function", "type": "function"}]}"#.to_owned(), false),
            (r#"{"tools": [{"type": "builtin_function", "type": "function"}]}"#.to_owned(), true),
            (
                r#"{"tools": [{"type": "function", "function": {"name": "\u0024web_search"}}]}"#.to_owned(),
                true,
            ),
            (
                r#"{"tools": [{"type": "function", "FUNCTION": {"Name": "$web_search", "name": "x"}}]}"#
                    .to_owned(),
                true,
            ),
            (r#"{"tools": [{"type": "function", "function": [{"name": "x"}]}]}"#.to_owned(), true),
            (r#"{"tools": [{"function": {"name": "x"}}]}"#.to_owned(), true),
            (r#"{"tools": [{"type": "function", "function": {"name": 1}}]}"#.to_owned(), true),
            (r#"{"tools": {"0": {}}}"#.to_owned(), true),
            (r#"{"tools": [1]}"#.to_owned(), true),
            (r#"{"tools": "$web_search"}"#.to_owned(), true),
            (format!(r#"{{"messages": [{{"role": "system", "tools": [{SEARCH}]}}]}}"#), true),
            (format!(r#"{{"messages": [{{"role": "system", "Tools": [{SEARCH}]}}]}}"#), true),
            (format!(r#"{{"messages": [{{"role": "system", "tools": [{SHELL}]}}]}}"#), false),
            ("{".to_owned(), true),
            ("[]".to_owned(), true),
            (format!(r#"{{"model": "k"}} {{"tools": [{SEARCH}]}}"#), true),
            (String::new(), true),
        ] {
            assert_eq!(leads_kimi_to_the_web(&body), leads, "{body}");
        }
    }

    #[test]
    fn no_address_in_a_message_leads_to_the_web() {
        for (part, leads) in [
            (r#"{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}"#, false),
            (r#"{"type": "video_url", "video_url": {"url": "ms://file-1", "id": "file-1"}}"#, false),
            (r#"{"type": "text", "text": "https://example.com is a site"}"#, false),
            (r#"{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}"#, true),
            (r#"{"type": "image_url", "image_url": "http://example.com/x.png"}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": " HTTPS://example.com/"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "\u0009\u0000hTTp://example.com/"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "ht\ntp:example.com"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "\u0068ttp://example.com"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "//example.com/x.png"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "ftp://example.com/x.png"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"URL": "https://example.com"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": "https://example.com", "url": "data:,"}}"#, true),
            (r#"{"type": "image_url", "image_url": {"url": ["data:,", "https://example.com"]}}"#, true),
            (r#"{"type": "video_url", "video_url": {"url": "https://example.com/x.mp4"}}"#, true),
            (r#"{"type": "file_url", "file_url": {"url": "https://example.com/x.pdf"}}"#, true),
            (r#"{"type": "input_file", "fileUrl": "https://example.com/x.pdf"}"#, true),
            (r#"{"type": "file", "file": {"path": "https://example.com/x.pdf"}}"#, true),
            (r#"{"type": "text", "text": {"url": "https://example.com"}}"#, true),
        ] {
            let body = format!(r#"{{"model": "k", "messages": [{{"role": "user", "content": [{part}]}}]}}"#);
            assert_eq!(leads_kimi_to_the_web(&body), leads, "{body}");
        }
        for (message, leads) in [
            (r#"{"role": "user", "content": "https://example.com"}"#, false),
            (r#"{"role": "assistant", "reasoning_content": "https://example.com it is"}"#, false),
            (
                r#"{"role": "assistant", "tool_calls": [{"id": "FetchURL:1", "type": "function",
                    "function": {"name": "FetchURL", "arguments": "https://example.com"}}]}"#,
                false,
            ),
            (r#"{"role": "user", "content": null, "url": "https://example.com"}"#, true),
            (r#"{"role": "user", "n": [1, -1, 0.5, true, null]}"#, false),
        ] {
            let body = format!(r#"{{"messages": [{message}], "stream": true}}"#);
            assert_eq!(leads_kimi_to_the_web(&body), leads, "{body}");
            let twice = format!(r#"{{"messages": [{message}], "messages": []}}"#);
            assert_eq!(leads_kimi_to_the_web(&twice), leads, "{twice}");
        }
    }

    #[test]
    fn only_fields_that_engines_send_are_nothing_of_kimis_own() {
        for field in FIELDS_OF_ENGINES.into_iter().filter(|field| !matches!(*field, "model" | "tools")) {
            assert!(!leads_kimi_to_the_web(&format!(r#"{{"model": "k", "{field}": {{}}}}"#)), "{field}");
        }
        for field in [
            "use_search",
            "search",
            "web_search",
            "web_search_options",
            "functions",
            "function_call",
            "plugins",
            "extra_body",
            "Messages",
            "meſſages",
            "stream ",
            "ref_file_ids",
            "",
        ] {
            assert!(leads_kimi_to_the_web(&format!(r#"{{"model": "k", "{field}": null}}"#)), "{field}");
        }
    }

    #[test]
    fn a_model_is_named_once() {
        let models = ["kimi-for-coding".to_owned(), "k3".to_owned()];
        for (body, model) in [
            (r#"{"model": "k3"}"#, NamedModel::Configured),
            (r#"{"messages": [{"model": "k9"}], "model": "kimi-for-coding"}"#, NamedModel::Configured),
            (r#"{"model": "k\u0033"}"#, NamedModel::Configured),
            (r#"{"model": "K3"}"#, NamedModel::Another),
            (r#"{"model": "k9"}"#, NamedModel::Another),
            (r#"{"model": ["k3"]}"#, NamedModel::Another),
            (r#"{"model": null}"#, NamedModel::Another),
            (r#"{"Model": "k3"}"#, NamedModel::Another),
            ("{}", NamedModel::Another),
            (r#"{"model": "k3""#, NamedModel::Another),
            (r#"{"model": "k3", "model": "k9"}"#, NamedModel::NamedTwice),
            (r#"{"model": "k3", "model": "k3"}"#, NamedModel::NamedTwice),
            (r#"{"model": "k3", "Model": "k9"}"#, NamedModel::NamedTwice),
            (r#"{"MODEL": "k9", "model": "k3"}"#, NamedModel::NamedTwice),
            (r#"{"Model": "k9", "moDel": "k3"}"#, NamedModel::NamedTwice),
            (r#"{"model": "k3", "\u004dodel": "k9"}"#, NamedModel::NamedTwice),
            (r#"{"model": "k3", "a": 1, "model": null, "b": 2}"#, NamedModel::Another),
        ] {
            assert_eq!(check_model_request(body.as_bytes(), &models).model, model, "{body}");
        }
        assert_eq!(
            check_model_request(br#"{"model": "k9"}"#, &[]).model,
            NamedModel::Configured,
            "nobody knows which ones"
        );
        assert_eq!(check_model_request(b"{", &[]).model, NamedModel::Configured);
    }

    /// Set inside of the process of [`a_great_body_takes_no_memory`].
    const INSIDE: &str = "TEST_INSIDE_OF_A_PROCESS";
    /// Long enough: of the first body here a tree takes 94 times as much (measured). The system counts in
    /// steps of its own.
    const GREAT_BYTES: usize = 1024 * 1024;

    /// In a process of its own, whose memory is nobody else's.
    #[test]
    fn a_great_body_takes_no_memory() {
        if std::env::var_os(INSIDE).is_some() {
            return great_bodies_take_no_memory();
        }
        let this_test = "egress::request_check::tests::a_great_body_takes_no_memory";
        let inside = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this_test, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[inside.stdout, inside.stderr].concat()).into_owned();
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
    }

    fn great_bodies_take_no_memory() {
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        for (begin, item, end) in [
            (r#"{"tools":["#, "[0],", "0]}"),
            (r#"{"tools":["#, r#"{"type":"function"},"#, "0]}"),
            (r#"{"messages":["#, "[0],", "0]}"),
            (r#"{"messages":["#, &format!("{deep},"), "0]}"),
            (r#"{"messages":["#, r#"{"url":"data:,"},"#, "0]}"),
            (r#"{"n":["#, "[0],", "0]}"),
            ("{", r#""a":0,"#, r#""a":0}"#),
            (r#"{"model":""#, "k", r#""}"#),
            (r#"{""#, "model", r#"":0}"#),
        ] {
            let mut body = String::with_capacity(GREAT_BYTES);
            body.push_str(begin);
            while body.len() + item.len() + end.len() <= GREAT_BYTES {
                body.push_str(item);
            }
            body.push_str(end);
            // The pages of the program itself count, too, when they are needed first.
            check_model_request(format!("{begin}{item}{end}").as_bytes(), &["k3".to_owned()]);
            let before = most_memory_bytes();
            check_model_request(body.as_bytes(), &["k3".to_owned()]);
            let taken = most_memory_bytes() - before;
            assert!(taken <= 8 * GREAT_BYTES, "{begin}{item}…: {taken} bytes");
        }
    }

    /// The most memory that this process has had at once.
    fn most_memory_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}
