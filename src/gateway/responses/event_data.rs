//! Cuts a stream of server-sent events into the data of its events, however its bytes come.
//!
//! By the grammar of the WHATWG: an event ends with an empty line, and the lines of its data belong together. Fields
//! other than `data`, and comments, say nothing here.

use crate::relay::event_lines::{EventLine, EventLines};

/// Longest event that is read. A chunk of Kimi's answers has some hundred bytes; one that carries the whole
/// arguments of a call may have as many as the file that is written by it.
const EVENT_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub struct EventDataReader {
    lines: EventLines,
    /// The data of the event that has not ended yet.
    data: Vec<u8>,
}

/// An event is longer than any that makes sense.
#[derive(Debug, PartialEq, Eq)]
pub struct EventTooLong;

impl EventDataReader {
    /// Returns the data of each event that ends in this piece.
    pub fn read_piece(&mut self, mut piece: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        while let Some(line) = self.lines.next_line(&mut piece, self.room()) {
            if line.is_cut {
                return Err(EventTooLong);
            }
            events.extend(self.end_line(&line));
        }
        if self.lines.is_over(self.room()) { Err(EventTooLong) } else { Ok(events) }
    }

    /// Nothing more comes. A last event need not end: it is taken as it is.
    pub fn finish_reading(&mut self) -> Option<Vec<u8>> {
        let last = self.lines.last_line(self.room());
        self.end_line(&last).or_else(|| self.end_event())
    }

    /// How long a line may be beside the data that is there.
    fn room(&self) -> usize {
        EVENT_MAX.saturating_sub(self.data.len())
    }

    fn end_line(&mut self, line: &EventLine) -> Option<Vec<u8>> {
        let line = line.text.as_slice();
        if line.is_empty() {
            return self.end_event();
        }
        let value = match line.strip_prefix(b"data")? {
            [] => &[],
            [b':', value @ ..] => value.strip_prefix(b" ").unwrap_or(value),
            // A field of another name.
            _ => return None,
        };
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        None
    }

    fn end_event(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "\u{feff}: hello\n\ndata: one\n\nevent: chunk\r\ndata:two\r\ndata: lines\r\n\r\n\
        id: 7\rdata: three\r\r\n\ndatabase: no\n\ndata\n\ndata: last";

    fn read_in_pieces(cuts: &[usize]) -> Vec<String> {
        let mut reader = EventDataReader::default();
        let mut events = Vec::new();
        let mut rest = STREAM.as_bytes();
        for cut in cuts {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            events.extend(reader.read_piece(piece).unwrap());
            rest = more;
        }
        events.extend(reader.read_piece(rest).unwrap());
        events.extend(reader.finish_reading());
        events.into_iter().map(|event| String::from_utf8(event).unwrap()).collect()
    }

    #[test]
    fn each_event_has_its_data() {
        assert_eq!(read_in_pieces(&[]), ["one", "two\nlines", "three", "last"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = EventDataReader::default();
        assert_eq!(reader.read_piece(&vec![b'x'; EVENT_MAX]), Ok(Vec::new()));
        assert_eq!(reader.read_piece(b"x"), Err(EventTooLong));
        let mut reader = EventDataReader::default();
        let line = format!("data: {}\n", "x".repeat(1000));
        let first_refusal = (0..2000).find(|_| reader.read_piece(line.as_bytes()).is_err());
        assert!(first_refusal.is_some_and(|lines| lines > 1000));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(cuts in prop::collection::vec(0usize..9, 0..40)) {
            prop_assert_eq!(read_in_pieces(&cuts), read_in_pieces(&[]));
        }
    }
}
