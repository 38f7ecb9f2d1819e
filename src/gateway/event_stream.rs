//! An event stream on its way to a client: what is passed on ends at the end of an event, so that something of our own
//! can follow it at any time. Pure.
//!
//! Kimi sends whole events, so nothing is held back but what a network has cut in the middle.

use bytes::Bytes;

/// Most bytes of one event that are held back. A longer event passes as it comes.
const HELD_MAX: usize = 256 * 1024;

/// A comment, which every reader of a stream skips (WHATWG, 9.2.5).
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// The beginning of an event whose end has not come yet.
#[derive(Debug, Default)]
pub struct EventBuffer {
    held: Vec<u8>,
    /// A part of an event that was too long has been passed on.
    is_cut_event_out: bool,
}

impl EventBuffer {
    /// Takes the next piece, and gives what is whole by now.
    pub fn add_piece(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() && ends_event(&piece) {
            self.is_cut_event_out = false;
            return piece;
        }
        // The end of an event may lie across the pieces.
        let seen = self.held.len().saturating_sub(3);
        self.held.extend_from_slice(&piece);
        match last_event_end(&self.held[seen..]) {
            Some(end) => {
                self.is_cut_event_out = false;
                let rest = self.held.split_off(seen + end);
                std::mem::replace(&mut self.held, rest).into()
            }
            None if self.held.len() > HELD_MAX || self.is_cut_event_out => {
                self.is_cut_event_out = true;
                std::mem::take(&mut self.held).into()
            }
            None => Bytes::new(),
        }
    }

    /// Whether something else may be sent now.
    pub fn is_between_events(&self) -> bool {
        !self.is_cut_event_out
    }

    /// What is left when the stream has ended: a last line need not end.
    pub fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }
}

fn ends_event(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\r\r")
}

/// Behind the last end of an event, if there is one: an empty line.
fn last_event_end(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len()).rev().find(|end| ends_event(&bytes[..*end]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(buffer: &mut EventBuffer, piece: &str) -> String {
        String::from_utf8(buffer.add_piece(Bytes::from(piece.to_owned())).to_vec()).unwrap()
    }

    #[test]
    fn whole_events_pass_at_once_and_a_cut_one_waits_for_its_end() {
        let mut buffer = EventBuffer::default();
        for (piece, expected) in [
            ("data: 1\n\n", "data: 1\n\n"),
            ("data: 2\n\ndata: 3\n\nda", "data: 2\n\ndata: 3\n\n"),
            ("ta: 4\n", ""),
            ("\n", "data: 4\n\n"),
            ("event: x\r\ndata: 5\r\n\r", ""),
            ("\n", "event: x\r\ndata: 5\r\n\r\n"),
            ("data: 6\r\r", "data: 6\r\r"),
            (": a comment", ""),
        ] {
            assert_eq!(passed(&mut buffer, piece), expected, "{piece:?}");
            assert!(buffer.is_between_events());
        }
        assert_eq!(buffer.take_rest(), ": a comment");
    }

    #[test]
    fn an_event_that_is_too_long_is_not_held() {
        let mut buffer = EventBuffer::default();
        let long = format!("data: {}", "x".repeat(HELD_MAX));
        assert_eq!(passed(&mut buffer, &long), long);
        assert!(!buffer.is_between_events());
        assert_eq!(passed(&mut buffer, "more"), "more");
        assert_eq!(passed(&mut buffer, "end\n\n"), "end\n\n");
        assert!(buffer.is_between_events());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_the_stream_is_cut(
            pieces in prop::collection::vec("[a\r\n]{0,6}", 0..12),
        ) {
            let mut buffer = EventBuffer::default();
            let mut out = String::new();
            for piece in &pieces {
                let whole = passed(&mut buffer, piece);
                prop_assert!(whole.is_empty() || ends_event(whole.as_bytes()), "{whole:?}");
                out.push_str(&whole);
            }
            out.push_str(std::str::from_utf8(&buffer.take_rest()).unwrap());
            prop_assert_eq!(out, pieces.concat());
        }
    }
}
