//! Reads answers of the Kimi API while they pass: the token usage, complaints, and whether an event stream
//! came to its end. Pure: fed with bytes however they were cut, it never holds more than its bounds.
//!
//! Usage is in `choices[0].usage` or in a chunk with `choices: []`, often in both; it counts once per answer.

use serde_json::Value;

use super::complaint::Complaint;
use crate::types::TokenUsage;

/// Longest line of an event stream that is read; a chunk of an answer has some hundred bytes.
const LINE_MAX: usize = 64 * 1024;
/// Longest answer in one piece that is read.
const WHOLE_MAX: usize = 1024 * 1024;
/// No request comes near this many tokens; a greater number is nonsense and must not overflow the sums.
const TOKENS_MAX: u64 = u32::MAX as u64;

/// What a good answer is, by its content type.
#[derive(Debug)]
pub enum Meter {
    Events(Events),
    Whole(Whole),
    /// Neither events nor JSON.
    Other,
}

/// What the bytes that were just read have told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Tokens to add to what was seen before.
    Usage(TokenUsage),
    /// Why the API cannot go on.
    Complaint(Complaint),
}

/// How an answer ended, when nothing more came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Whole,
    /// The stream stopped before it said that it was done, so that a part of the answer is missing.
    CutShort,
}

impl Meter {
    /// `content_type` as the header has it; `length` in bytes, where the answer told it.
    pub fn new(content_type: &str, length: Option<u64>) -> Self {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "text/event-stream" => Self::Events(Events::default()),
            "application/json" => Self::Whole(Whole { length, ..Whole::default() }),
            _ => Self::Other,
        }
    }

    /// Reads the next piece; what it tells is known before the piece is passed on.
    pub fn read(&mut self, piece: &[u8]) -> Vec<Seen> {
        match self {
            Self::Events(events) => events.read(piece),
            Self::Whole(whole) => whole.read(piece).into_iter().collect(),
            Self::Other => Vec::new(),
        }
    }

    /// There is nothing more to read.
    pub fn end(&mut self) -> (Option<Seen>, Ending) {
        match self {
            Self::Events(events) if !events.done => (None, Ending::CutShort),
            Self::Whole(whole) => (whole.weigh(), Ending::Whole),
            Self::Events(_) | Self::Other => (None, Ending::Whole),
        }
    }
}

/// A stream of server-sent events.
#[derive(Debug, Default)]
pub struct Events {
    /// The line that has not ended yet, up to its bound.
    line: Vec<u8>,
    counted: TokenUsage,
    /// The answer says that it is complete.
    done: bool,
}

impl Events {
    fn read(&mut self, piece: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            // One byte over the bound marks a line as too long to be read.
            let room = (LINE_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if line.len() <= LINE_MAX {
                    seen.extend(self.event(&line));
                }
            }
        }
        seen
    }

    fn event(&mut self, line: &[u8]) -> Option<Seen> {
        let data = line.strip_prefix(b"data:")?.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return None;
        }
        let chunk: Value = serde_json::from_slice(data).ok()?;
        if let Some(complaint) = Complaint::in_json(&chunk) {
            self.done = true;
            return Some(Seen::Complaint(complaint));
        }
        // A server that stops after the last chunk without "[DONE]" has still told everything.
        self.done |= chunk.pointer("/choices/0/finish_reason").is_some_and(Value::is_string);
        let usage = usage(&chunk)?;
        let more = TokenUsage {
            input: usage.input.saturating_sub(self.counted.input),
            cached: usage.cached.saturating_sub(self.counted.cached),
            output: usage.output.saturating_sub(self.counted.output),
        };
        self.counted += more;
        (more != TokenUsage::default()).then_some(Seen::Usage(more))
    }
}

/// An answer in one piece of JSON.
#[derive(Debug, Default)]
pub struct Whole {
    body: Vec<u8>,
    received: u64,
    length: Option<u64>,
}

impl Whole {
    fn read(&mut self, piece: &[u8]) -> Option<Seen> {
        self.received = self.received.saturating_add(piece.len() as u64);
        let room = (WHOLE_MAX + 1).saturating_sub(self.body.len());
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
        // Whoever gets the last byte may act on it before the end is seen here.
        if self.length == Some(self.received) { self.weigh() } else { None }
    }

    fn weigh(&mut self) -> Option<Seen> {
        let body = std::mem::take(&mut self.body);
        if body.len() > WHOLE_MAX {
            return None;
        }
        usage(&serde_json::from_slice(&body).ok()?).map(Seen::Usage)
    }
}

fn usage(answer: &Value) -> Option<TokenUsage> {
    let usage = [answer.get("usage"), answer.pointer("/choices/0/usage")]
        .into_iter()
        .flatten()
        .find(|u| u.is_object())?;
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
            "x".repeat(2 * LINE_MAX),
        )
    }

    fn read_in_pieces(meter: &mut Meter, text: &str, cuts: &[usize]) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            seen.extend(meter.read(piece));
            rest = more;
        }
        seen.extend(meter.read(rest));
        seen
    }

    fn tokens(input: u64, cached: u64, output: u64) -> Seen {
        Seen::Usage(TokenUsage { input, cached, output })
    }

    proptest! {
        #[test]
        fn usage_counts_once_however_the_stream_is_cut(cuts in prop::collection::vec(1usize..200_000, 0..20)) {
            let mut meter = Meter::new("text/event-stream; charset=utf-8", None);
            prop_assert_eq!(read_in_pieces(&mut meter, &stream(), &cuts), [tokens(100, 60, 7)]);
            prop_assert_eq!(meter.end(), (None, Ending::Whole));
        }

        #[test]
        fn garbage_tells_nothing_and_breaks_nothing(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
            for kind in ["text/event-stream", "application/json", ""] {
                let mut meter = Meter::new(kind, Some(garbage.len() as u64));
                prop_assert_eq!(meter.read(&garbage), []);
                meter.end();
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
            let mut events = Meter::new("text/event-stream", None);
            assert_eq!(events.read(format!("data: {line}\n").as_bytes()).pop(), expected, "{line}");
            let mut whole = Meter::new("application/json", Some(line.len() as u64));
            assert_eq!(whole.read(line.as_bytes()).pop(), expected, "{line}");
            assert_eq!(whole.end(), (None, Ending::Whole), "counted once");
        }
    }

    #[test]
    fn a_json_answer_without_a_length_is_counted_at_its_end() {
        let mut meter = Meter::new("application/json", None);
        assert_eq!(meter.read(br#"{"usage":{"prompt_tokens":5,"completion_tokens":1}}"#), []);
        assert_eq!(meter.end(), (Some(tokens(5, 0, 1)), Ending::Whole));
    }

    #[test]
    fn a_stream_that_never_says_it_is_done_was_cut_short() {
        let piece = r#"data: {"choices":[{"delta":{"content":"half an ans"},"finish_reason":null}]}"#;
        let last = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        for (text, ending) in [
            (String::new(), Ending::CutShort),
            (format!("{piece}\n\n"), Ending::CutShort),
            (format!("{piece}\n\n{last}\n\n"), Ending::Whole),
            (format!("{piece}\n\ndata: [DONE]\n\n"), Ending::Whole),
        ] {
            let mut meter = Meter::new("text/event-stream", None);
            meter.read(text.as_bytes());
            assert_eq!(meter.end(), (None, ending), "{text}");
        }
    }

    #[test]
    fn an_error_in_the_stream_is_its_end() {
        let mut meter = Meter::new("text/event-stream", None);
        let seen = meter.read(b"data: {\"error\":{\"message\":\"engine overloaded\"}}\n");
        let complaint = Complaint { kind: String::new(), reason: "engine overloaded".to_owned() };
        assert_eq!(seen, [Seen::Complaint(complaint)]);
        assert_eq!(meter.end(), (None, Ending::Whole));
    }
}
