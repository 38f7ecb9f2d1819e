//! Which parts of an answer are code, where nothing but code is meant.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};

/// The fenced blocks and the texts between backticks, in order, with their delimiters. A block that is never
/// closed goes to the end.
pub fn code_in(text: &str) -> Vec<Range<usize>> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let events = Parser::new_ext(text, options).into_offset_iter();
    let code = events.filter(|(event, _)| {
        matches!(event, Event::Code(_) | Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))))
    });
    code.map(|(_, range)| range).collect()
}

/// Whether the byte at `at` is in one of these.
pub fn is_code(code: &[Range<usize>], at: usize) -> bool {
    code.iter().any(|range| range.contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_and_backticks_are_code() {
        for (text, expected) in [
            ("a `b` c", vec!["`b`"]),
            ("a ``b ` c`` d", vec!["``b ` c``"]),
            ("a ` b", vec![]),
            ("```rust\nlet a;\n```\nb", vec!["```rust\nlet a;\n```"]),
            ("a\n~~~\nb", vec!["~~~\nb"]),
            ("- x\n  ```\n  y\n  ```\n- `z`", vec!["```\n  y\n  ```", "`z`"]),
            ("    <file path=\"a\">b</file>", vec![]),
            ("| `a` |\n|---|\n| `b` |", vec!["`a`", "`b`"]),
        ] {
            let found: Vec<&str> = code_in(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
