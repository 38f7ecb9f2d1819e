//! How an answer's Markdown is read: which of it is known, and how deep it may nest.
//!
//! The parser is shown a text of the same length, so that every place that it names is one of the answer
//! itself. In that text only characters that would lead it astray are others.

use std::borrow::Cow;
use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser};

/// Most quotes and lists within each other that one line may begin. The parser looks at each of them again on
/// every line that follows, so that thousands would take seconds; people see no difference after three.
const NESTED_MAX: usize = 32;

/// What `text` consists of, with the place of each part.
pub fn parse_markdown_events(text: &str) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
    Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH).into_offset_iter()
}

/// `text` of the same length, in which no line begins more than [`NESTED_MAX`] quotes and lists.
pub fn limit_nesting(text: &str) -> Cow<'_, str> {
    let mut bounded = Cow::Borrowed(text);
    let mut line_start = 0;
    for line in text.split_inclusive(['\n', '\r']) {
        if let Some(at) = find_marker_beyond(line, NESTED_MAX) {
            let at = line_start + at;
            bounded.to_mut().replace_range(at..=at, "x");
        }
        line_start += line.len();
    }
    bounded
}

/// The first byte of the marker after the first `most` that `line` begins with.
fn find_marker_beyond(line: &str, most: usize) -> Option<usize> {
    let bytes = line.as_bytes();
    let is_gap = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r') | None);
    let (mut at, mut markers) = (0, 0);
    while at < bytes.len() {
        let length = match bytes[at] {
            b' ' | b'\t' => {
                at += 1;
                continue;
            }
            b'>' => 1,
            b'-' | b'+' | b'*' if is_gap(at + 1) => 1,
            b'0'..=b'9' => {
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let is_marker =
                    matches!(bytes.get(at + digits), Some(b'.' | b')')) && is_gap(at + digits + 1);
                if !is_marker {
                    return None;
                }
                digits + 1
            }
            _ => return None,
        };
        markers += 1;
        if markers > most {
            return Some(at);
        }
        at += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_nests_no_deeper_than_anybody_sees() {
        let deep = ">".repeat(NESTED_MAX);
        for (text, expected) in [
            (deep.clone(), deep.clone()),
            (format!("{deep}>>"), format!("{deep}x>")),
            (format!("{deep} - a"), format!("{deep} x a")),
            (format!("a\r{deep} 12) b"), format!("a\r{deep} x2) b")),
            (format!("{deep} -a"), format!("{deep} -a")),
            (format!("{deep} 12"), format!("{deep} 12")),
            ("-".repeat(80), "-".repeat(80)),
        ] {
            assert_eq!(limit_nesting(&text), expected);
        }
    }
}
