//! Long answers into several messages, cut where a reader would pause.
//!
//! Nothing but white space at the cuts is lost, and a code block that must be cut is closed and opened again.
//! Never cuts a character from its marks where the limit leaves another place.

/// Cuts `text` into messages of at most `limit_chars` characters (Unicode scalar values), none of them blank.
///
/// Each ends at the last end of a paragraph that fits, else of a line, a sentence, a word, else anywhere. Code
/// fences are kept whole only where the limit is at least twice what closing and opening them again costs.
pub fn split(text: &str, limit_chars: usize) -> Vec<String> {
    let limit = limit_chars.max(1);
    let mut chunks = Vec::new();
    let mut rest = without_gap(text);
    let mut fence = None;
    while !rest.trim().is_empty() {
        let opening = fence.map(Fence::reopened).unwrap_or_default();
        let room = limit - opening.chars().count();
        if fits(rest, room) {
            chunks.push(opening + rest);
            break;
        }
        let cut = Cut::find(rest, room, limit, fence);
        let body = rest[..cut.at].trim_end();
        if !body.is_empty() {
            chunks.push(opening + body + &cut.fence.map(Fence::closed).unwrap_or_default());
        }
        (rest, fence) = cut.after(rest);
    }
    chunks
}

fn fits(text: &str, room: usize) -> bool {
    text.chars().nth(room).is_none()
}

/// An open code block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence<'a> {
    /// The line that opened it, such as ```` ```rust ````.
    opening: &'a str,
    /// Its backticks alone, three or more, which also close it.
    ticks: &'a str,
}

impl<'a> Fence<'a> {
    /// The state after `line`, when it was `open` before.
    fn after(open: Option<Self>, line: &'a str, limit: usize) -> Option<Self> {
        match open {
            None => Self::opened_by(line.trim(), limit),
            Some(fence) if fence.is_closed_by(line.trim()) => None,
            Some(fence) => Some(fence),
        }
    }

    /// The block that `line` opens, if it does and cutting it would leave half of the limit for its content.
    fn opened_by(line: &'a str, limit: usize) -> Option<Self> {
        let ticks = &line[..line.len() - line.trim_start_matches('`').len()];
        let opens = ticks.len() >= 3 && !line[ticks.len()..].contains('`');
        let with_info = Self { opening: line, ticks };
        let without_info = Self { opening: ticks, ticks };
        [with_info, without_info].into_iter().find(|fence| opens && fence.cost() <= limit / 2)
    }

    fn is_closed_by(self, line: &str) -> bool {
        line.len() >= self.ticks.len() && line.bytes().all(|byte| byte == b'`')
    }

    /// Characters that a message spends on opening the block again and closing it.
    fn cost(self) -> usize {
        self.reopened().chars().count() + self.closed().chars().count()
    }

    fn reopened(self) -> String {
        format!("{}\n", self.opening)
    }

    fn closed(self) -> String {
        format!("\n{}", self.ticks)
    }
}

/// How good a place is for a cut, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pause {
    /// Inside a word.
    Nowhere,
    Word,
    Sentence,
    Line,
    Paragraph,
}

/// A place to cut.
#[derive(Clone, Copy, Debug)]
struct Cut<'a> {
    /// Bytes before it.
    at: usize,
    /// The code block that is open there.
    fence: Option<Fence<'a>>,
}

impl<'a> Cut<'a> {
    /// The best place within the first `room` characters of `rest`; of equal ones the last.
    fn find(rest: &'a str, room: usize, limit: usize, open: Option<Fence<'a>>) -> Self {
        let room_in = |fence: Option<Fence>| room - fence.map_or(0, |fence| fence.closed().len());
        let visible_from = rest.len() - rest.trim_start().len();
        let anywhere = Self { at: byte_of_char(rest, room_in(open)), fence: open };
        Self::places(rest, limit, open)
            .enumerate()
            .take_while(|(chars, _)| *chars <= room)
            .filter_map(|(chars, place)| place.filter(|cut| chars <= room_in(cut.fence)))
            .filter(|cut| cut.at > visible_from)
            .filter_map(|cut| Some((cut.pause(rest)?, cut)))
            .max_by_key(|(pause, _)| *pause)
            .map_or(anywhere, |(_, cut)| cut)
    }

    /// The place before each character of `text`; none within a line that opens or closes a code block, nor between
    /// the opening line and its block.
    fn places(text: &'a str, limit: usize, open: Option<Fence<'a>>) -> impl Iterator<Item = Option<Self>> {
        let (mut fence, mut line_start) = (open, 0);
        text.split_inclusive('\n').flat_map(move |line| {
            let (before, start) = (fence, line_start);
            let after = Fence::after(before, line, limit);
            (fence, line_start) = (after, start + line.len());
            line.char_indices().map(move |(offset, c)| {
                let allowed = before == after || c == '\n' && after.is_none();
                let here = if c == '\n' { after } else { before };
                allowed.then_some(Self { at: start + offset, fence: here })
            })
        })
    }

    /// What a reader notices here; nothing may come between a character and its marks.
    fn pause(self, text: &str) -> Option<Pause> {
        let (before, after) = text.split_at(self.at);
        let (last, next) = (before.chars().next_back()?, after.chars().next()?);
        if next == '\n' {
            let next_line = after[1..].trim_start_matches([' ', '\t', '\r']);
            let is_paragraph = self.fence.is_none() && next_line.starts_with('\n');
            Some(if is_paragraph { Pause::Paragraph } else { Pause::Line })
        } else if matches!(last, '。' | '！' | '？')
            || next.is_whitespace() && matches!(last, '.' | '!' | '?' | '…')
        {
            Some(Pause::Sentence)
        } else if next.is_whitespace() {
            Some(Pause::Word)
        } else {
            (!belong_together(before, next)).then_some(Pause::Nowhere)
        }
    }

    /// What follows the cut, without the white space that it replaces, and the block that is still open there.
    fn after(self, text: &'a str) -> (&'a str, Option<Fence<'a>>) {
        let rest = without_gap(&text[self.at..]);
        let line = rest.lines().next().unwrap_or_default();
        match self.fence {
            // The block has been closed by the cut.
            Some(fence) if fence.is_closed_by(line.trim()) => (without_gap(&rest[line.len()..]), None),
            fence => (rest, fence),
        }
    }
}

/// `text` without the white space at its beginning, but with the indentation of its first line.
fn without_gap(text: &str) -> &str {
    let visible = text.trim_start();
    let gap = &text[..text.len() - visible.len()];
    gap.rfind('\n').map_or(visible, |line_end| &text[line_end + 1..])
}

fn byte_of_char(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

/// Whether `next` is seen as part of the character before it: a mark, joiner or selector, what a joiner joins, a skin
/// tone, or the second half of a flag. A part of the Unicode rules for grapheme clusters (UAX #29).
fn belong_together(before: &str, next: char) -> bool {
    const JOINER: char = '\u{200d}';
    let is_flag_half = |c: &char| ('\u{1f1e6}'..='\u{1f1ff}').contains(c);
    // `escape_debug` writes as `\u{…}` what extends the character before it and what nobody could see.
    let is_mark_or_unseen = next.escape_debug().len() > r"\n".len();
    is_mark_or_unseen
        || ('\u{1f3fb}'..='\u{1f3ff}').contains(&next)
        || before.ends_with(JOINER)
        || is_flag_half(&next) && before.chars().rev().take_while(is_flag_half).count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn cuts(text: &str, limit: usize, expected: &[&str]) {
        assert_eq!(split(text, limit), expected, "{text:?} at {limit}");
    }

    #[test]
    fn what_fits_is_one_message() {
        cuts("hello", 5, &["hello"]);
        cuts("é😀", 2, &["é😀"]);
        cuts("one\n\n  two\n", 100, &["one\n\n  two\n"]);
        cuts("```\ncode\n```", 12, &["```\ncode\n```"]);
    }

    #[test]
    fn nothing_to_say_is_no_message() {
        cuts("", 10, &[]);
        cuts(" \n\t\n ", 2, &[]);
    }

    #[test]
    fn a_message_ends_where_a_reader_would_pause() {
        for (rule, text, limit, expected) in [
            ("a paragraph", "One. Two\nthree\n\nfour five six", 24, vec!["One. Two\nthree", "four five six"]),
            ("the last paragraph", "a\n\nb\n\nc\n\nd", 6, vec!["a\n\nb", "c\n\nd"]),
            ("a paragraph after spaces", "a b\n \nc d", 7, vec!["a b", "c d"]),
            ("a line", "One. Two\nthree four", 12, vec!["One. Two", "three four"]),
            ("a sentence", "One two. Three four", 14, vec!["One two.", "Three four"]),
            ("a question", "¿Uno? ¡Dos! Tres cuatro", 17, vec!["¿Uno? ¡Dos!", "Tres cuatro"]),
            ("a Chinese sentence", "你好。我们走吧", 5, vec!["你好。", "我们走吧"]),
            ("a word", "one two three", 9, vec!["one two", "three"]),
            ("not within a number", "it is 3.14159 long", 9, vec!["it is", "3.14159", "long"]),
            ("anywhere", "aaaaaa", 3, vec!["aaa", "aaa"]),
            ("anywhere at last", "one twothree", 5, vec!["one", "twoth", "ree"]),
        ] {
            assert_eq!(split(text, limit), expected, "{rule}");
        }
    }

    #[test]
    fn only_white_space_goes_at_a_cut() {
        cuts("one  \n\n\n  - two", 9, &["one", "  - two"]);
        cuts("\n\n  one two", 5, &["  one", "two"]);
        cuts("one\r\n\r\ntwo", 6, &["one", "two"]);
        cuts("a         b", 3, &["a", "b"]);
        cuts("          b", 3, &["b"]);
    }

    #[test]
    fn marks_stay_with_their_character() {
        for (what, cluster) in [
            ("an accent", "e\u{301}"),
            ("a Hebrew point", "ש\u{5b8}"),
            ("a selector", "❤\u{fe0f}"),
            ("a keycap", "1\u{fe0f}\u{20e3}"),
            ("a family", "👩\u{200d}👧\u{200d}👦"),
            ("a skin tone", "👍🏽"),
            ("a flag", "🇪🇸"),
        ] {
            let limit = cluster.chars().count() + 1;
            assert_eq!(split(&cluster.repeat(3), limit), [cluster; 3], "{what}");
        }
        cuts("🇪🇸🇫🇷🇵🇹", 5, &["🇪🇸🇫🇷", "🇵🇹"]);
        cuts("e\u{301}\u{301}\u{301}", 2, &["e\u{301}", "\u{301}\u{301}"]);
        cuts("ab", 0, &["a", "b"]);
    }

    #[test]
    fn a_code_block_that_is_cut_is_closed_and_opened_again() {
        let code = "```rust\nlet a = 1;\n\n    let b = 2;\nlet c = 3;\n```\nDone.";
        cuts(
            code,
            36,
            &["```rust\nlet a = 1;\n```", "```rust\n    let b = 2;\n```", "```rust\nlet c = 3;\n```\nDone."],
        );
        cuts("```\naaaaaaaaaaaaaaaaaaaaaa\n```", 20, &["```\naaaaaaaaaaaa\n```", "```\naaaaaaaaaa\n```"]);
        cuts(
            "````\n```\naaa bbb ccc ddd\n````",
            22,
            &["````\n```\n````", "````\naaa bbb ccc\n````", "````\nddd\n````"],
        );
    }

    #[test]
    fn a_code_block_moves_as_a_whole_where_it_can() {
        cuts("Look at this:\n\n```\ncode code\n```", 24, &["Look at this:", "```\ncode code\n```"]);
        cuts("Look at this:\n```\ncode code\n```", 24, &["Look at this:", "```\ncode code\n```"]);
        cuts("```\ncode code\n```\nThat was it.", 24, &["```\ncode code\n```", "That was it."]);
    }

    #[test]
    fn a_cut_leaves_no_empty_code_block() {
        cuts("```\naaaa bbbb cccc\n\n  ```\nthat was it", 22, &["```\naaaa bbbb cccc\n```", "that was it"]);
    }

    #[test]
    fn an_info_string_too_long_to_repeat_is_said_once() {
        let opening = "```a-language-with-a-long-name";
        cuts(
            &format!("{opening}\naaaaaaaa\nbbbbbbbb\n```"),
            43,
            &[&format!("{opening}\naaaaaaaa\n```")[..], "```\nbbbbbbbb\n```"],
        );
    }

    #[test]
    fn backticks_within_a_line_are_no_code_block() {
        cuts("```a``` bbbb cccc dddd", 17, &["```a``` bbbb cccc", "dddd"]);
    }

    fn visible(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }

    /// What a person reads when the messages follow each other: everything but the lines that fence code.
    fn lines_without_fences<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
        texts.into_iter().flat_map(str::lines).filter(|line| !line.trim().starts_with("```")).collect()
    }

    proptest! {
        #[test]
        fn every_message_is_within_the_limit_and_says_something(text in any::<String>(), limit in 1_usize..40) {
            for chunk in split(&text, limit) {
                prop_assert!(chunk.chars().count() <= limit, "{:?}", chunk);
                prop_assert!(!chunk.trim().is_empty());
            }
        }

        #[test]
        fn only_white_space_is_lost(text in "([^`]|\n|\n\n| |\\. |é|\u{301}|👩\u{200d}👧)*", limit in 1_usize..40) {
            prop_assert_eq!(visible(&split(&text, limit).concat()), visible(&text));
        }

        #[test]
        fn code_stays_code(
            parts in prop::collection::vec("([a-z ]{0,12}\n){0,3}(```(rust)?\n([ a-z.]{0,30}\n){0,6}```\n)?\n?", 0..6),
            limit in 32_usize..80,
        ) {
            let text = parts.concat();
            let chunks = split(&text, limit);
            for chunk in &chunks {
                prop_assert!(chunk.chars().count() <= limit, "{:?}", chunk);
                prop_assert_eq!(chunk.matches("```").count() % 2, 0, "{:?}", chunk);
            }
            let said = lines_without_fences(chunks.iter().map(String::as_str));
            prop_assert_eq!(visible(&said), visible(&lines_without_fences([text.as_str()])));
        }

        #[test]
        fn fences_of_any_shape_are_bearable(text in "(`|```|````|rust|\n|\n\n| |a|é)*", limit in 0_usize..40) {
            for chunk in split(&text, limit) {
                prop_assert!(chunk.chars().count() <= limit.max(1), "{:?}", chunk);
                prop_assert!(!chunk.trim().is_empty());
            }
        }
    }
}
