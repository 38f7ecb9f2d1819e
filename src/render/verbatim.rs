//! Which parts of an answer mean something only as they are typed: code, addresses, where links lead.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, LinkType, Tag, TagEnd};

use super::parser;
use crate::writing::find_addresses;

/// Stretches of a text, in order, none of them within or beside another.
#[derive(Debug, Default)]
pub struct TextRanges(Vec<Range<usize>>);

impl TextRanges {
    /// Whether the byte at `at` is in one of them.
    pub fn contains_byte(&self, at: usize) -> bool {
        self.range_around(at).is_some()
    }

    /// The one that the byte at `at` is in.
    pub fn range_around(&self, at: usize) -> Option<Range<usize>> {
        let before = self.0.partition_point(|range| range.start <= at);
        let last = self.0.get(before.checked_sub(1)?)?;
        last.contains(&at).then(|| last.clone())
    }

    /// Whether a cut before the byte at `at` would go through one of them.
    pub fn is_cut_inside(&self, at: usize) -> bool {
        let before = self.0.partition_point(|range| range.start < at);
        before.checked_sub(1).is_some_and(|last| at < self.0[last].end)
    }
}

impl From<Vec<Range<usize>>> for TextRanges {
    fn from(mut ranges: Vec<Range<usize>>) -> Self {
        ranges.sort_by_key(|range| range.start);
        let mut stretches: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match stretches.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => stretches.push(range),
            }
        }
        Self(stretches)
    }
}

/// The fenced blocks and the texts between backticks, with their delimiters. A block that is never closed
/// goes to the end.
pub fn find_markdown_code(text: &str) -> TextRanges {
    let bounded = parser::limit_nesting(text);
    let code = parser::parse_markdown_events(&bounded).filter(|(event, _)| is_code_event(event));
    code.map(|(_, range)| range).collect::<Vec<_>>().into()
}

/// Code, addresses, and where links lead.
pub fn find_verbatim_ranges(text: &str) -> TextRanges {
    let mut ranges = find_addresses(text);
    let bounded = parser::limit_nesting(text);
    // Where the words of a link end, which have their own events.
    let mut read = 0;
    for (event, range) in parser::parse_markdown_events(&bounded) {
        let is_bare_link =
            matches!(event, Event::Start(Tag::Link { link_type: LinkType::Autolink | LinkType::Email, .. }));
        if is_code_event(&event) || is_bare_link {
            ranges.push(range.clone());
        } else if matches!(event, Event::End(TagEnd::Link | TagEnd::Image)) {
            ranges.push(read.max(range.start)..range.end);
        }
        read = if matches!(event, Event::Start(_)) { range.start } else { range.end };
    }
    ranges.into()
}

fn is_code_event(event: &Event) -> bool {
    matches!(event, Event::Code(_) | Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(stretches: &TextRanges, text: &'a str) -> Vec<&'a str> {
        stretches.0.iter().map(|range| &text[range.clone()]).collect()
    }

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
            assert_eq!(shown(&find_markdown_code(text), text), expected, "{text:?}");
        }
    }

    #[test]
    fn addresses_and_where_links_lead_are_verbatim_too() {
        for (text, expected) in [
            ("`a` https://a.test b", vec!["`a`", "https://a.test"]),
            ("[the *page*](https://a.test \"Title\") b", vec!["](https://a.test \"Title\")"]),
            ("[](x) ![alt](y.png) <https://a.test>", vec!["[](x)", "](y.png)", "<https://a.test>"]),
            ("[`a`](x)", vec!["`a`](x)"]),
            ("nothing", vec![]),
        ] {
            let verbatim = find_verbatim_ranges(text);
            assert_eq!(shown(&verbatim, text), expected, "{text:?}");
            for (at, _) in text.char_indices() {
                assert_eq!(verbatim.contains_byte(at), verbatim.0.iter().any(|range| range.contains(&at)));
            }
        }
    }
}
