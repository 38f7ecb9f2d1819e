//! Reads answers of the Kimi API while they pass: the token usage, errors, and whether an event stream came
//! to its end. Pure: fed with bytes however they were cut, it never holds more than its bounds.
//!
//! Usage is in `usage` or in `choices[0].usage`, of a chunk or of an answer in one piece, often in both; it
//! counts once per answer, as soon as it is read.

use serde_json::Value;

use super::event_lines::{EventLine, EventLines};
use crate::api_error::ApiError;
use crate::types::TokenUsage;

/// Longest event of a stream that is read, and its longest line; a chunk of an answer has some hundred bytes.
const EVENT_MAX: usize = 64 * 1024;
/// Longest `usage` of an answer in one piece that is read; it has some hundred bytes.
const USAGE_MAX: usize = 4 * 1024;
/// Longest name of a field that is looked at.
const NAME_MAX: usize = 16;
/// No request comes near this many tokens; a greater number is nonsense and must not overflow the sums.
const TOKENS_MAX: u64 = u32::MAX as u64;

/// What a good answer is, by its content type.
#[derive(Debug)]
pub enum Meter {
    Events(EventStreamMeter),
    Whole(JsonMeter),
    /// Neither events nor JSON.
    Other,
}

/// What the bytes just read have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeterReading {
    /// Tokens to add to what was seen before.
    Usage(TokenUsage),
    /// Why the API cannot go on.
    ApiError(ApiError),
}

/// How an answer ended, when nothing more came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnding {
    Whole,
    /// The stream stopped before it said that it was done, so that a part of the answer is missing.
    CutShort,
}

impl Meter {
    /// `content_type` as the header has it; a media type has no case (RFC 9110, 8.3.1).
    pub fn new(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("text/event-stream") {
            Self::Events(EventStreamMeter::default())
        } else if essence.eq_ignore_ascii_case("application/json") {
            Self::Whole(JsonMeter::default())
        } else {
            Self::Other
        }
    }

    /// Reads the next piece; its readings are known before the piece is passed on.
    pub fn read_piece(&mut self, piece: &[u8]) -> Vec<MeterReading> {
        match self {
            Self::Events(events) => events.read_piece(piece),
            Self::Whole(whole) => whole.read_piece(piece),
            Self::Other => Vec::new(),
        }
    }

    /// There is nothing more to read.
    pub fn finish_reading(&mut self) -> (Vec<MeterReading>, StreamEnding) {
        match self {
            Self::Events(events) => events.finish_reading(),
            Self::Whole(_) | Self::Other => (Vec::new(), StreamEnding::Whole),
        }
    }
}

/// The tokens of one answer, each of which counts once.
#[derive(Debug, Default)]
struct UsageCount(TokenUsage);

impl UsageCount {
    /// What is more than was counted before.
    fn count_new_tokens(&mut self, usage: TokenUsage) -> Option<MeterReading> {
        let more = TokenUsage {
            input: usage.input.saturating_sub(self.0.input),
            cached: usage.cached.saturating_sub(self.0.cached),
            output: usage.output.saturating_sub(self.0.output),
        };
        self.0 += more;
        (more != TokenUsage::default()).then_some(MeterReading::Usage(more))
    }
}

/// A stream of server-sent events: an event ends with an empty line, and the lines of its data belong together.
#[derive(Debug, Default)]
pub struct EventStreamMeter {
    lines: EventLines,
    /// Lines of data of the current event that say nothing by themselves.
    data: Vec<u8>,
    count: UsageCount,
    /// The answer says that it is complete.
    done: bool,
}

impl EventStreamMeter {
    fn read_piece(&mut self, mut piece: &[u8]) -> Vec<MeterReading> {
        let mut seen = Vec::new();
        while let Some(line) = self.lines.next_line(&mut piece, EVENT_MAX) {
            seen.extend(self.end_line(&line));
        }
        seen
    }

    /// A last line need not end: the reader of the answer takes it as it is.
    fn finish_reading(&mut self) -> (Vec<MeterReading>, StreamEnding) {
        let last = self.lines.last_line(EVENT_MAX);
        let seen = self.end_line(&last).into_iter().chain(self.end_event()).collect();
        (seen, if self.done { StreamEnding::Whole } else { StreamEnding::CutShort })
    }

    fn end_line(&mut self, line: &EventLine) -> Option<MeterReading> {
        if line.is_cut {
            return None;
        }
        let line = line.text.as_slice();
        if line.is_empty() {
            return self.end_event();
        }
        let value = match line.strip_prefix(b"data")? {
            [] => &[],
            [b':', value @ ..] => value.trim_ascii(),
            // A field of another name.
            _ => return None,
        };
        if self.data.is_empty()
            && let Some(reading) = self.read_event_data(value)
        {
            return reading;
        }
        if self.data.len() + value.len() < EVENT_MAX {
            self.data.extend_from_slice(value);
            self.data.push(b'\n');
        }
        None
    }

    fn end_event(&mut self) -> Option<MeterReading> {
        let data = std::mem::take(&mut self.data);
        self.read_event_data(data.trim_ascii()).flatten()
    }

    /// What data says; `None` while it is not whole.
    fn read_event_data(&mut self, data: &[u8]) -> Option<Option<MeterReading>> {
        if data == b"[DONE]" {
            self.done = true;
            return Some(None);
        }
        let chunk: Value = serde_json::from_slice(data).ok()?;
        if let Some(api_error) = ApiError::from_error_json(&chunk) {
            self.done = true;
            return Some(Some(MeterReading::ApiError(api_error)));
        }
        // A server that stops after the last chunk without "[DONE]" has still said everything.
        self.done |= chunk.pointer("/choices/0/finish_reason").is_some_and(Value::is_string);
        let usages = [chunk.get("usage"), chunk.pointer("/choices/0/usage")];
        let usage = usages.into_iter().flatten().find(|usage| usage.is_object()).and_then(parse_token_usage);
        Some(usage.and_then(|usage| self.count.count_new_tokens(usage)))
    }
}

/// An answer in one piece of JSON, of any length and depth. Nothing of it is kept but a `usage` while it is
/// read.
///
/// ```text
///   depth 1 {"usage": …, "choices":   2 [   3 {"usage": …}, …   ]}
/// ```
#[derive(Debug, Default)]
pub struct JsonMeter {
    /// Brackets that are open.
    depth: usize,
    /// Whether the values at depths 1, 2 and 3 are an object's.
    in_object: [bool; 3],
    /// The latest names at depths 1, 2 (an array has none) and 3.
    names: [JsonName; 3],
    /// Which element of the array at depth 2 is read.
    element: usize,
    text: JsonStringState,
    /// The name that is being read, up to its bound.
    name: Vec<u8>,
    awaits_name: bool,
    /// The `usage` that is being read, and the depth at which it began.
    usage: Option<(Vec<u8>, usize)>,
    count: UsageCount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum JsonName {
    #[default]
    Other,
    Usage,
    Choices,
}

/// Whether a string is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum JsonStringState {
    #[default]
    Outside,
    Inside,
    AfterBackslash,
}

impl JsonMeter {
    fn read_piece(&mut self, piece: &[u8]) -> Vec<MeterReading> {
        piece.iter().filter_map(|byte| self.read_byte(*byte)).collect()
    }

    fn read_byte(&mut self, byte: u8) -> Option<MeterReading> {
        if let Some((usage, _)) = &mut self.usage
            && usage.len() <= USAGE_MAX
        {
            usage.push(byte);
        }
        match (self.text, byte) {
            (JsonStringState::AfterBackslash, _) => {
                self.add_to_name(byte);
                self.text = JsonStringState::Inside;
            }
            (JsonStringState::Inside, b'\\') => {
                self.add_to_name(byte);
                self.text = JsonStringState::AfterBackslash;
            }
            (JsonStringState::Inside, b'"') => {
                self.text = JsonStringState::Outside;
                self.end_name();
            }
            (JsonStringState::Inside, _) => self.add_to_name(byte),
            (JsonStringState::Outside, b'"') => self.text = JsonStringState::Inside,
            (JsonStringState::Outside, b'{' | b'[') => self.open_bracket(byte == b'{'),
            (JsonStringState::Outside, b'}' | b']') => return self.close_bracket(),
            (JsonStringState::Outside, b',') => {
                if self.depth == 2 {
                    self.element += 1;
                }
                self.awaits_name = self.is_in_object();
            }
            (JsonStringState::Outside, _) => {}
        }
        None
    }

    fn open_bracket(&mut self, object: bool) {
        if object && self.usage.is_none() && self.is_counted_usage() {
            self.usage = Some((vec![b'{'], self.depth));
        }
        if self.depth == 1 {
            self.element = 0;
        }
        if let Some(in_object) = self.in_object.get_mut(self.depth) {
            *in_object = object;
            self.names[self.depth] = JsonName::Other;
        }
        self.depth += 1;
        self.awaits_name = self.is_in_object();
    }

    fn close_bracket(&mut self) -> Option<MeterReading> {
        self.depth = self.depth.saturating_sub(1);
        self.awaits_name = false;
        let (usage, _) = self.usage.take_if(|(_, depth)| *depth >= self.depth)?;
        let usage = serde_json::from_slice(&usage).ok().filter(|_| usage.len() <= USAGE_MAX)?;
        self.count.count_new_tokens(parse_token_usage(&usage)?)
    }

    /// Whether the innermost open bracket is an object's, which has names.
    fn is_in_object(&self) -> bool {
        self.depth.checked_sub(1).and_then(|depth| self.in_object.get(depth)).is_some_and(|object| *object)
    }

    /// Whether a value that begins here is a `usage` that counts.
    fn is_counted_usage(&self) -> bool {
        let [top, array, element] = self.in_object;
        match self.depth {
            1 => top && self.names[0] == JsonName::Usage,
            3 => {
                let in_first_choice =
                    top && self.names[0] == JsonName::Choices && !array && self.element == 0;
                in_first_choice && element && self.names[2] == JsonName::Usage
            }
            _ => false,
        }
    }

    fn add_to_name(&mut self, byte: u8) {
        if self.awaits_name && self.name.len() <= NAME_MAX {
            self.name.push(byte);
        }
    }

    fn end_name(&mut self) {
        if !std::mem::take(&mut self.awaits_name) {
            return;
        }
        let name = match self.name.as_slice() {
            b"usage" => JsonName::Usage,
            b"choices" => JsonName::Choices,
            _ => JsonName::Other,
        };
        self.name.clear();
        if let Some(place) = self.depth.checked_sub(1).and_then(|depth| self.names.get_mut(depth)) {
            *place = name;
        }
    }
}

fn parse_token_usage(usage: &Value) -> Option<TokenUsage> {
    let tokens =
        |place: &str| usage.pointer(place).and_then(Value::as_u64).map(|tokens| tokens.min(TOKENS_MAX));
    Some(TokenUsage {
        input: tokens("/prompt_tokens")?,
        cached: tokens("/cached_tokens")
            .or_else(|| tokens("/prompt_tokens_details/cached_tokens"))
            .unwrap_or(0),
        output: tokens("/completion_tokens").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer as reference servers stream it: usage twice, a long line, a comment, and the end.
    fn stream() -> String {
        let usage = r#"{"prompt_tokens":100,"completion_tokens":7,"total_tokens":107,"cached_tokens":60}"#;
        format!(
            ": welcome\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"¿qué?\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n\
             data: {}\n\n\
             data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\",\"usage\":{usage}}}]}}\r\n\r\n\
             data:{{\"choices\":[],\"usage\":{usage}}}\n\n\
             data: [DONE]\n\n",
            "x".repeat(2 * EVENT_MAX),
        )
    }

    fn read_in_pieces(meter: &mut Meter, text: &str, cuts: &[usize]) -> Vec<MeterReading> {
        let mut seen = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            seen.extend(meter.read_piece(piece));
            rest = more;
        }
        seen.extend(meter.read_piece(rest));
        seen
    }

    fn tokens(input: u64, cached: u64, output: u64) -> MeterReading {
        MeterReading::Usage(TokenUsage { input, cached, output })
    }

    /// JSON in which usages stand where they count, and where they do not.
    fn json() -> impl Strategy<Value = Value> {
        let usage = (0u64..9, 0u64..9).prop_map(
            |(input, output)| serde_json::json!({"prompt_tokens": input, "completion_tokens": output}),
        );
        let leaf = prop_oneof![usage, r#"[a-z"\\{}\[\]:,é]{0,6}"#.prop_map(Value::from), Just(Value::Null)];
        let name = prop::sample::select(vec!["usage", "choices", "a", r#"usage""#, r"us\age", "{"]);
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| {
                    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn usage_counts_once_however_the_stream_is_cut(cuts in prop::collection::vec(1usize..200_000, 0..20)) {
            let mut meter = Meter::new("text/event-stream; charset=utf-8");
            prop_assert_eq!(read_in_pieces(&mut meter, &stream(), &cuts), [tokens(100, 60, 7)]);
            prop_assert_eq!(meter.finish_reading(), (vec![], StreamEnding::Whole));
        }

        #[test]
        fn what_counts_of_json_is_what_a_reader_of_the_whole_would_count(
            answer in json(), cuts in prop::collection::vec(1usize..40, 0..8),
        ) {
            let usages = [answer.get("usage"), answer.pointer("/choices/0/usage")];
            let usages = usages.into_iter().flatten().filter(|usage| usage.is_object()).filter_map(parse_token_usage);
            let most = usages.fold(TokenUsage::default(), |most, usage| TokenUsage {
                input: most.input.max(usage.input),
                cached: most.cached.max(usage.cached),
                output: most.output.max(usage.output),
            });
            let seen = read_in_pieces(&mut Meter::new("application/json"), &answer.to_string(), &cuts);
            let counted = seen.into_iter().fold(TokenUsage::default(), |mut sum, seen| {
                let MeterReading::Usage(more) = seen else { panic!("JSON does not complain") };
                sum += more;
                sum
            });
            prop_assert_eq!(counted, most);
        }

        #[test]
        fn garbage_tells_nothing_and_breaks_nothing(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
            for kind in ["text/event-stream", "application/json", ""] {
                let mut meter = Meter::new(kind);
                prop_assert_eq!(meter.read_piece(&garbage), []);
                meter.finish_reading();
            }
        }
    }

    #[test]
    fn usage_is_read_in_every_shape_the_api_uses() {
        for (line, expected) in [
            (r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#, Some(tokens(9, 0, 2))),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#,
                Some(tokens(9, 4, 2)),
            ),
            (
                r#"{"choices":[{"usage":{"prompt_tokens":9,"completion_tokens":2,"cached_tokens":4}}],"usage":null}"#,
                Some(tokens(9, 4, 2)),
            ),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":99999999999999,"completion_tokens":1}}"#,
                Some(tokens(TOKENS_MAX, 0, 1)),
            ),
            (r#"{"choices":[],"usage":{"prompt_tokens":-1}}"#, None),
            (r#"{"choices":[],"usage":{}}"#, None),
            (r#"{"choices":null}"#, None),
        ] {
            let mut events = Meter::new("text/event-stream");
            assert_eq!(events.read_piece(format!("data: {line}\n").as_bytes()).pop(), expected, "{line}");
            let mut whole = Meter::new("application/json");
            assert_eq!(whole.read_piece(line.as_bytes()).pop(), expected, "{line}");
            assert_eq!(whole.finish_reading(), (vec![], StreamEnding::Whole), "counted once");
        }
    }

    /// An answer that is much longer than anything that is held.
    fn long_answer() -> String {
        let padding = "[{\\\"".repeat(1024 * 1024);
        let usage = r#"{"prompt_tokens":5,"completion_tokens":1}"#;
        format!(
            r#"{{"id":"{padding}","deep":{0}{1},"choices":[{{"text":"{padding}","usage":{usage}}}],"usage":{usage}}}"#,
            "[".repeat(300_000),
            "]".repeat(300_000)
        )
    }

    #[test]
    fn a_json_answer_of_any_length_is_counted_as_it_comes() {
        let mut meter = Meter::new("application/json");
        let answer = long_answer();
        assert!(answer.len() > 8 * 1024 * 1024);
        let seen: Vec<MeterReading> =
            answer.as_bytes().chunks(10_007).flat_map(|piece| meter.read_piece(piece)).collect();
        assert_eq!(seen, [tokens(5, 0, 1)]);
        assert_eq!(meter.finish_reading(), (vec![], StreamEnding::Whole));

        // An engine that hangs up before the end has had these tokens all the same.
        let mut meter = Meter::new("Application/JSON ;charset=utf-8");
        let seen = meter.read_piece(br#"{"usage":{"prompt_tokens":5,"completion_tokens":1},"choices":[{"te"#);
        assert_eq!(seen, [tokens(5, 0, 1)]);
    }

    #[test]
    fn only_the_answers_own_usage_counts() {
        for (answer, counts) in [
            (r#"{"usage":USAGE}"#, true),
            ("\n{ \"usage\" :\t USAGE }", true),
            (r#"{"choices":[{"usage":USAGE}]}"#, true),
            (r#"{"choices":[{"message":{"usage":1,"x":["usage"]},"usage":USAGE}]}"#, true),
            (r#"{"a":{"usage":1},"usage":null,"b":[],"usage":USAGE}"#, true),
            (r#"{"choices":[{},{"usage":USAGE}]}"#, false),
            (r#"{"choices":{"usage":USAGE}}"#, false),
            (r#"{"choices":[[{"usage":USAGE}]]}"#, false),
            (r#"{"message":{"usage":USAGE}}"#, false),
            (r#"{"text":"\"usage\":USAGE"}"#, false),
            (r#"{"usage":[USAGE]}"#, false),
            (r#"{"us\u0061ge":USAGE}"#, false),
            (r#"[{"usage":USAGE}]"#, false),
            (r#"{"x":"usage","y":USAGE}"#, false),
        ] {
            let mut meter = Meter::new("application/json");
            let answer =
                answer.replace("USAGE", r#"{"prompt_tokens":5,"a":{"b":[{}]},"completion_tokens":1}"#);
            let expected = if counts { vec![tokens(5, 0, 1)] } else { vec![] };
            assert_eq!(meter.read_piece(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[test]
    fn streams_are_read_by_their_grammar() {
        const LAST: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;
        let (head, tail) = LAST.split_once(r#""usage""#).unwrap();
        for (text, ending) in [
            (format!("data: {LAST}\n\n"), StreamEnding::Whole),
            (format!("data: {LAST}\r\n\r\n"), StreamEnding::Whole),
            (format!("data: {LAST}\r\r"), StreamEnding::Whole),
            (format!("data: {LAST}\r\ndata: [DONE]\r"), StreamEnding::Whole),
            (format!("data: {LAST}"), StreamEnding::Whole),
            (format!("data: {LAST}\r"), StreamEnding::Whole),
            (format!("\u{feff}data: {LAST}\n\n"), StreamEnding::Whole),
            (format!(": a comment\rid: 7\revent: message\rretry: 1\rdata:{LAST}\r\r"), StreamEnding::Whole),
            (format!("data: {head}\ndata: \"usage\"{tail}\n\n"), StreamEnding::Whole),
            (format!("data: {head}\rdata\rdata:\"usage\"{tail}\r\r"), StreamEnding::Whole),
            (format!("data: {head}\n: comment\ndata: \"usage\"{tail}"), StreamEnding::Whole),
            // A field of another name, a comment, and events that are not whole.
            (format!("database: {LAST}\n\n"), StreamEnding::CutShort),
            (format!("Data: {LAST}\n\n"), StreamEnding::CutShort),
            (format!(" data: {LAST}\n\n"), StreamEnding::CutShort),
            (format!(":data: {LAST}\n\n"), StreamEnding::CutShort),
            (format!("data: {head}\n\ndata: \"usage\"{tail}\n\n"), StreamEnding::CutShort),
        ] {
            for size in [1, 2, 7, text.len()] {
                let mut meter = Meter::new("Text/Event-Stream; charset=UTF-8");
                let mut seen: Vec<MeterReading> =
                    text.as_bytes().chunks(size).flat_map(|piece| meter.read_piece(piece)).collect();
                let (last, ended) = meter.finish_reading();
                seen.extend(last);
                assert_eq!(ended, ending, "{text:?} by {size}");
                let expected = if ending == StreamEnding::Whole { vec![tokens(5, 0, 1)] } else { vec![] };
                assert_eq!(seen, expected, "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_let_go_and_the_next_one_is_read() {
        let long = "data: x\n".repeat(EVENT_MAX);
        let mut meter = Meter::new("text/event-stream");
        assert_eq!(meter.read_piece(long.as_bytes()), []);
        let Meter::Events(events) = &meter else { panic!() };
        assert!(events.data.len() <= EVENT_MAX + 1 && !events.lines.is_over(0));
        assert_eq!(
            meter.read_piece(b"\ndata: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n"),
            [tokens(5, 0, 1)]
        );
    }

    #[test]
    fn a_stream_that_never_says_it_is_done_was_cut_short() {
        let piece = r#"data: {"choices":[{"delta":{"content":"half an ans"},"finish_reason":null}]}"#;
        let last = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        for (text, ending) in [
            (String::new(), StreamEnding::CutShort),
            (format!("{piece}\n\n"), StreamEnding::CutShort),
            (format!("{piece}\n\n{last}\n\n"), StreamEnding::Whole),
            (format!("{piece}\n\ndata: [DONE]\n\n"), StreamEnding::Whole),
        ] {
            let mut meter = Meter::new("text/event-stream");
            meter.read_piece(text.as_bytes());
            assert_eq!(meter.finish_reading(), (vec![], ending), "{text}");
        }
    }

    #[test]
    fn an_error_in_the_stream_is_its_end() {
        let mut meter = Meter::new("text/event-stream");
        let seen = meter.read_piece(b"data: {\"error\":{\"message\":\"engine overloaded\"}}\n");
        let api_error = ApiError { kind: String::new(), reason: "engine overloaded".to_owned() };
        assert_eq!(seen, [MeterReading::ApiError(api_error)]);
        assert_eq!(meter.finish_reading(), (vec![], StreamEnding::Whole));
    }
}
