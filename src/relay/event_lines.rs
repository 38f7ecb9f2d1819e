//! Cuts a stream of server-sent events into its lines, however its bytes come: pure.
//!
//! By the grammar of the WHATWG: lines end with CR, LF or both, and a mark of the byte order at the beginning is
//! none of the text.

/// What a stream may begin with (WHATWG, 9.2.5).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The line that has not ended yet.
#[derive(Debug, Default)]
pub struct EventLines {
    /// Up to one byte over its bound.
    line: Vec<u8>,
    has_begun: bool,
    /// An LF that comes next belongs to the line end before.
    after_cr: bool,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub struct EventLine {
    pub text: Vec<u8>,
    /// It was longer than its bound, and the text is not all of it.
    pub is_cut: bool,
}

impl EventLines {
    /// The next line that ends in `piece`, of which it takes what it has read. `None` if no more ends there; what
    /// is left waits for the next piece. Of a line with more than `most` bytes the rest is dropped.
    pub fn next_line(&mut self, piece: &mut &[u8], most: usize) -> Option<EventLine> {
        if piece.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.after_cr) {
            *piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        let end = piece.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let (text, rest) = piece.split_at(end.unwrap_or(piece.len()));
        let room = (most + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&text[..text.len().min(room)]);
        let Some((end, rest)) = rest.split_first() else {
            *piece = &[];
            return None;
        };
        *piece = rest;
        self.after_cr = *end == b'\r';
        Some(self.end_line(most))
    }

    /// Nothing more comes. What is left is a line, too.
    pub fn last_line(&mut self, most: usize) -> EventLine {
        self.end_line(most)
    }

    /// Whether the line that has not ended is longer than this already.
    pub fn is_over(&self, most: usize) -> bool {
        self.line.len() > most
    }

    fn end_line(&mut self, most: usize) -> EventLine {
        let is_cut = self.is_over(most);
        let mut text = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.has_begun, true) && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        EventLine { text, is_cut }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "\u{feff}one\r\ntwo\rthree\n\n\r\r\nlonger than ten\nlast";

    fn lines_of(cuts: &[usize]) -> Vec<String> {
        let (mut lines, mut seen, mut rest) = (EventLines::default(), Vec::new(), STREAM.as_bytes());
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (mut piece, more) = rest.split_at(cut.min(rest.len()));
            while let Some(line) = lines.next_line(&mut piece, 10) {
                seen.push(line);
            }
            rest = more;
        }
        seen.push(lines.last_line(10));
        let shown = |line: EventLine| {
            format!("{}{}", String::from_utf8(line.text).unwrap(), if line.is_cut { "…" } else { "" })
        };
        seen.into_iter().map(shown).collect()
    }

    #[test]
    fn lines_end_in_three_ways_and_a_long_one_is_cut() {
        assert_eq!(lines_of(&[]), ["one", "two", "three", "", "", "", "longer than…", "last"]);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(cuts in prop::collection::vec(0_usize..9, 0..40)) {
            prop_assert_eq!(lines_of(&cuts), lines_of(&[]));
        }
    }
}
