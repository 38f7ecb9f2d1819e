//! Reads answers of Kimi's Anthropic surface while they pass: the token usage, errors, and whether an event stream came
//! to its end. Pure: fed with bytes however they were cut, it never holds more than its bounds.
//!
//! A stream tells its usage at the beginning (`message_start.message.usage`) and, as sums so far, near the end
//! (`message_delta.usage`); an answer in one piece has `usage`. Each token counts once. `input_tokens` there is without
//! what came from the cache.

use serde_json::Value;

use crate::api_error::ApiError;
use crate::relay::event_lines::{EventLine, EventLines};
use crate::relay::meter::{MeterReading, StreamEnding};
use crate::types::TokenUsage;

/// Longest line of a stream that is read. Those with usage have some hundred bytes; a longer one is skipped.
const LINE_MAX: usize = 64 * 1024;
/// Longest answer in one piece of which the usage is read: the longest output has some hundred KB.
const WHOLE_MAX: usize = 4 * 1024 * 1024;
/// No request comes near this many tokens; a greater number is nonsense and must not overflow the sums.
const TOKENS_MAX: u64 = u32::MAX as u64;

/// The meter of one answer.
#[derive(Debug)]
pub struct AnthropicMeter {
    form: MessageForm,
    counted: TokenUsage,
    is_done: bool,
}

#[derive(Debug)]
enum MessageForm {
    Events(EventLines),
    /// The answer so far; one byte over its bound marks it as too long to be read.
    Whole(Vec<u8>),
}

impl AnthropicMeter {
    /// `is_event_stream`: the answer comes as server-sent events, else as one piece of JSON.
    pub fn new(is_event_stream: bool) -> Self {
        let form = if is_event_stream {
            MessageForm::Events(EventLines::default())
        } else {
            MessageForm::Whole(Vec::new())
        };
        Self { form, counted: TokenUsage::default(), is_done: false }
    }

    /// Reads the next piece; its readings are known before the piece is passed on.
    pub fn read_piece(&mut self, mut piece: &[u8]) -> Vec<MeterReading> {
        let mut seen = Vec::new();
        loop {
            let line = match &mut self.form {
                MessageForm::Events(lines) => lines.next_line(&mut piece, LINE_MAX),
                MessageForm::Whole(held) => {
                    let room = (WHOLE_MAX + 1).saturating_sub(held.len());
                    held.extend_from_slice(&piece[..piece.len().min(room)]);
                    None
                }
            };
            let Some(line) = line else { return seen };
            seen.extend(self.read_line(&line));
        }
    }

    /// There is nothing more to read.
    pub fn finish_reading(&mut self) -> (Vec<MeterReading>, StreamEnding) {
        match &mut self.form {
            MessageForm::Events(lines) => {
                let last = lines.last_line(LINE_MAX);
                let seen = self.read_line(&last).into_iter().collect();
                (seen, if self.is_done { StreamEnding::Whole } else { StreamEnding::CutShort })
            }
            MessageForm::Whole(held) => {
                let message = serde_json::from_slice::<Value>(&std::mem::take(held)).ok();
                let usage = message.and_then(|message| self.count_usage(message.get("usage")));
                (usage.into_iter().collect(), StreamEnding::Whole)
            }
        }
    }

    fn read_line(&mut self, line: &EventLine) -> Option<MeterReading> {
        if line.is_cut {
            return None;
        }
        let event: Value = serde_json::from_slice(line.text.strip_prefix(b"data:")?).ok()?;
        match event.get("type").and_then(Value::as_str) {
            Some("message_start") => self.count_usage(event.pointer("/message/usage")),
            Some("message_delta") => self.count_usage(event.get("usage")),
            Some("message_stop") => {
                self.is_done = true;
                None
            }
            Some("error") => {
                self.is_done = true;
                ApiError::from_error_json(&event).map(MeterReading::ApiError)
            }
            Some(_) | None => None,
        }
    }

    /// What is more than was counted before.
    fn count_usage(&mut self, usage: Option<&Value>) -> Option<MeterReading> {
        let usage = usage?;
        let number = |name| usage.get(name).and_then(Value::as_u64).unwrap_or(0).min(TOKENS_MAX);
        let cached = number("cache_read_input_tokens");
        let input = number("input_tokens") + cached + number("cache_creation_input_tokens");
        let more = TokenUsage {
            input: input.saturating_sub(self.counted.input),
            cached: cached.saturating_sub(self.counted.cached),
            output: number("output_tokens").saturating_sub(self.counted.output),
        };
        self.counted += more;
        (more != TokenUsage::default()).then_some(MeterReading::Usage(more))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "event: message_start\n\
        data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":80,\
        \"cache_creation_input_tokens\":5,\"output_tokens\":1}}}\n\n\
        event: ping\ndata: {\"type\": \"ping\"}\n\n\
        event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\
        \"text\":\"\\\"usage\\\":{\\\"input_tokens\\\":7}\"}}\r\n\r\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
        \"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":80,\"cache_creation_input_tokens\":5,\"output_tokens\":30}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn sum(readings: Vec<MeterReading>) -> TokenUsage {
        readings.into_iter().fold(TokenUsage::default(), |mut sum, reading| {
            let MeterReading::Usage(more) = reading else { panic!("{reading:?}") };
            sum += more;
            sum
        })
    }

    proptest! {
        #[test]
        fn usage_counts_once_however_the_stream_is_cut(size in 1usize..400) {
            let mut meter = AnthropicMeter::new(true);
            let seen = STREAM.as_bytes().chunks(size).flat_map(|piece| meter.read_piece(piece)).collect();
            prop_assert_eq!(sum(seen), TokenUsage { input: 95, cached: 80, output: 30 });
            prop_assert_eq!(meter.finish_reading(), (vec![], StreamEnding::Whole));
        }

        #[test]
        fn garbage_tells_nothing_and_breaks_nothing(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
            for is_event_stream in [true, false] {
                let mut meter = AnthropicMeter::new(is_event_stream);
                prop_assert_eq!(meter.read_piece(&garbage), []);
                meter.finish_reading();
            }
        }
    }

    #[test]
    fn an_answer_in_one_piece_is_counted() {
        let mut meter = AnthropicMeter::new(false);
        let answer = r#"{"type":"message","content":[{"type":"text","text":"usage"}],"usage":{"input_tokens":4,"cache_read_input_tokens":2,"output_tokens":3}}"#;
        for piece in answer.as_bytes().chunks(7) {
            assert_eq!(meter.read_piece(piece), []);
        }
        let (seen, ending) = meter.finish_reading();
        assert_eq!((sum(seen), ending), (TokenUsage { input: 6, cached: 2, output: 3 }, StreamEnding::Whole));
        let mut meter = AnthropicMeter::new(false);
        meter.read_piece(br#"{"input_tokens":12}"#);
        assert_eq!(meter.finish_reading(), (vec![], StreamEnding::Whole));
    }

    #[test]
    fn a_stream_that_never_stops_was_cut_short_and_an_error_is_an_end() {
        let (begun, _) = STREAM.split_once("event: message_stop").unwrap();
        let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
        let busy = ApiError { kind: "overloaded_error".to_owned(), reason: "busy".to_owned() };
        for (text, ending, error) in [
            (String::new(), StreamEnding::CutShort, None),
            (begun.to_owned(), StreamEnding::CutShort, None),
            (format!("{begun}{error}"), StreamEnding::Whole, Some(MeterReading::ApiError(busy))),
        ] {
            let mut meter = AnthropicMeter::new(true);
            let seen = meter.read_piece(text.as_bytes());
            assert_eq!(meter.finish_reading(), (vec![], ending), "{text}");
            assert_eq!(seen.last().filter(|seen| matches!(seen, MeterReading::ApiError(_))), error.as_ref());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_never_held() {
        let mut meter = AnthropicMeter::new(true);
        for _ in 0..100 {
            meter.read_piece(&[b'x'; LINE_MAX]);
        }
        let MessageForm::Events(lines) = &meter.form else { panic!("it is a stream") };
        assert!(lines.is_over(LINE_MAX) && !lines.is_over(LINE_MAX + 1));
        let seen = meter.read_piece(format!("\n{STREAM}").as_bytes());
        assert_eq!(sum(seen).output, 30);
    }
}
