//! Long answers into several messages, cut where a reader would pause.
//!
//! Nothing but white space at the cuts is lost. What must be cut in its middle is closed and opened again: a
//! block of code (of a table with its header), a quote, a style. Never cuts a character from its marks, an
//! address or a number, if the limit leaves another place.

use unicode_segmentation::UnicodeSegmentation;

use super::formatted::{FormattedText, StyledRange};
use super::verbatim::TextRanges;
use crate::writing::find_addresses;

/// If less fits into a message, styles are not opened again: they could take all of it.
const STYLES_FROM_CHARS: usize = 48;
/// Most backticks around code within a line that a cut opens again.
const STYLE_MAX_WIDTH: usize = 3;

/// Cuts a text into messages of at most `limit_chars` characters (Unicode scalar values), none of them blank.
///
/// Each ends at the last end of a paragraph that fits, else of a line, a sentence, a word, else anywhere.
/// Blocks of code are kept whole only if the limit is at least twice what closing and opening them again
/// costs.
pub fn split_into_messages(formatted: &FormattedText, limit_chars: usize) -> Vec<String> {
    let text = &TextSplitter::new(formatted, limit_chars.max(1));
    let mut chunks = Vec::new();
    let mut start = skip_blank_gap(text.all, 0);
    let mut open = OpenMarkup::default();
    while !text.all[start..].trim().is_empty() {
        let rest = &text.all[start..];
        let opening = open.reopening_text();
        let room = text.limit.saturating_sub(opening.chars().count()).max(1);
        if fits_in_chars(rest, room) {
            chunks.push(open.reopen_before_body(rest));
            break;
        }
        let cut = text.best_cut(start, room, &open);
        let body = text.all[start..cut.at].trim_end();
        if !body.is_empty() {
            chunks.push(open.reopen_before_body(body) + &cut.open.closing_text());
        }
        (start, open) = text.start_after_cut(cut);
    }
    chunks
}

fn fits_in_chars(text: &str, room: usize) -> bool {
    text.chars().nth(room).is_none()
}

/// What goes on across a cut.
#[derive(Clone, Debug, Default)]
struct OpenMarkup<'a> {
    fence: Option<CodeFence<'a>>,
    /// What the line that is cut begins with, if it is a quote's.
    quote: &'a str,
    /// The delimiters of the styles, the outermost first.
    styles: Vec<&'a str>,
}

impl OpenMarkup<'_> {
    /// What the next message begins with.
    fn reopening_text(&self) -> String {
        self.fence.map(CodeFence::reopening_text).unwrap_or_default() + self.quote + &self.styles.concat()
    }

    /// The next message, which goes on with `body`: styles begin behind the marks of its line.
    fn reopen_before_body(&self, body: &str) -> String {
        let marks = if self.quote.is_empty() { leading_quote_marks(body) } else { "" };
        let fence = self.fence.map(CodeFence::reopening_text).unwrap_or_default();
        fence + self.quote + marks + &self.styles.concat() + &body[marks.len()..]
    }

    /// What the message before ends with.
    fn closing_text(&self) -> String {
        let styles: String = self.styles.iter().rev().copied().collect();
        styles + &self.fence.map(CodeFence::closing_text).unwrap_or_default()
    }
}

/// An open block of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeFence<'a> {
    /// What each of its lines begins with in a quote.
    quote: &'a str,
    /// The line that opened it, such as ```` ```rust ````; of a table with its header.
    opening: &'a str,
    /// Its backticks alone, three or more, which also close it.
    ticks: &'a str,
}

impl<'a> CodeFence<'a> {
    /// The block that a line opens whose `marks` are a quote's, if it does and cutting it would leave half of
    /// the limit for its content. `head` is the line, with the header that belongs to it.
    fn from_opening_line(quote: &'a str, line: &'a str, head: &'a str, limit: usize) -> Option<Self> {
        let ticks = &line[..line.len() - line.trim_start_matches('`').len()];
        let opens = ticks.len() >= 3 && !line[ticks.len()..].contains('`');
        let openings = [head, line, ticks].map(|opening| Self { quote, opening, ticks });
        openings.into_iter().find(|fence| opens && fence.reopening_cost() <= limit / 2)
    }

    fn is_closing_line(self, line: &str) -> bool {
        line.len() >= self.ticks.len() && line.bytes().all(|byte| byte == b'`')
    }

    /// Characters that a message spends on opening the block again and closing it.
    fn reopening_cost(self) -> usize {
        self.reopening_text().chars().count() + self.closing_text().chars().count()
    }

    fn reopening_text(self) -> String {
        format!("{}{}\n", self.quote, self.opening)
    }

    fn closing_text(self) -> String {
        format!("\n{}{}", self.quote, self.ticks)
    }
}

/// How good a place is for a cut, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CutQuality {
    /// Within an address or a number.
    Inside,
    /// Within a word.
    Nowhere,
    Word,
    Sentence,
    Line,
    Paragraph,
}

/// A place to cut.
#[derive(Clone, Debug)]
struct CutPoint<'a> {
    /// Bytes before it.
    at: usize,
    open: OpenMarkup<'a>,
}

/// What is cut.
struct TextSplitter<'a> {
    all: &'a str,
    limit: usize,
    styled: Vec<&'a StyledRange>,
    formatted: &'a FormattedText,
    addresses: TextRanges,
}

impl<'a> TextSplitter<'a> {
    fn new(formatted: &'a FormattedText, limit: usize) -> Self {
        let reopens = |styled: &&StyledRange| styled.width <= STYLE_MAX_WIDTH && limit >= STYLES_FROM_CHARS;
        Self {
            all: &formatted.text,
            limit,
            styled: formatted.styled.iter().filter(reopens).collect(),
            formatted,
            addresses: find_addresses(&formatted.text).into(),
        }
    }

    /// The best place within the `room` characters that follow `start`; of equal ones the last.
    fn best_cut(&self, start: usize, room: usize, open: &OpenMarkup<'a>) -> CutPoint<'a> {
        let rest = &self.all[start..];
        let visible_from = start + (rest.len() - rest.trim_start().len());
        let mut best: Option<(CutQuality, CutPoint)> = None;
        let mut styles = OpenStyles::styles_open_at(start, &self.styled);
        let (mut fence, mut line_start, mut chars) = (open.fence, start, 0);
        'lines: for line in rest.split_inclusive('\n') {
            let after = self.fence_after(fence, line_start, line);
            for (offset, cluster) in line.grapheme_indices(true) {
                let at = line_start + offset;
                let is_line_end = cluster.ends_with('\n');
                let here = if is_line_end { after } else { fence };
                // No cut within a line that opens or closes a block, nor between the opening and the block.
                let is_apart = fence == after || is_line_end && after.is_none();
                if let Some(styles) = styles.styles_cut_at(at)
                    && is_apart
                    && at > visible_from
                    && !self.is_in_table_head(at)
                {
                    let open = OpenMarkup { fence: here, quote: "", styles: self.style_delimiters(styles) };
                    let pause = self.cut_quality_at(at, cluster, here);
                    if chars + open.closing_text().chars().count() <= room
                        && best.as_ref().is_none_or(|(found, _)| *found <= pause)
                    {
                        best = Some((pause, CutPoint { at, open }));
                    }
                }
                chars += cluster.chars().count();
                if chars > room {
                    break 'lines;
                }
            }
            (fence, line_start) = (after, line_start + line.len());
        }
        best.map_or_else(|| self.cut_anywhere(start, room, open.fence), |(_, cut)| cut)
    }

    /// The place if nothing but the room counts.
    fn cut_anywhere(&self, start: usize, room: usize, fence: Option<CodeFence<'a>>) -> CutPoint<'a> {
        let styles_room = self.styled.first().map_or(0, |_| 2 * STYLE_MAX_WIDTH);
        let room =
            room.saturating_sub(fence.map_or(0, |fence| fence.closing_text().chars().count()) + styles_room);
        let rest = &self.all[start..];
        let at = start + rest.char_indices().nth(room.max(1)).map_or(rest.len(), |(at, _)| at);
        let mut styles = OpenStyles::styles_open_at(at, &self.styled);
        let styles = self.style_delimiters(styles.styles_cut_at(at).unwrap_or_default());
        CutPoint { at, open: OpenMarkup { fence, quote: "", styles } }
    }

    /// The block that is open after a line, if `open` was before it.
    fn fence_after(&self, open: Option<CodeFence<'a>>, start: usize, line: &'a str) -> Option<CodeFence<'a>> {
        if !self.is_line_start(start) {
            return open;
        }
        let quote = leading_quote_marks(line);
        let words = line[quote.len()..].trim();
        match open {
            None => {
                let heads = &self.formatted.table_heads;
                let head = heads
                    .iter()
                    .find(|head| head.start == start)
                    .map_or(words, |head| &self.all[head.clone()]);
                CodeFence::from_opening_line(quote.trim_start_matches(' '), words, head, self.limit)
            }
            Some(fence) if fence.is_closing_line(words) => None,
            Some(fence) => Some(fence),
        }
    }

    fn is_line_start(&self, at: usize) -> bool {
        at == 0 || self.all[..at].ends_with('\n')
    }

    fn is_in_table_head(&self, at: usize) -> bool {
        self.formatted.table_heads.iter().any(|head| head.start < at && at <= head.end)
    }

    fn style_delimiters(&self, styles: &[&StyledRange]) -> Vec<&'a str> {
        styles.iter().map(|styled| &self.all[styled.range.start..styled.range.start + styled.width]).collect()
    }

    /// What a reader notices at `at`, where `cluster` follows.
    fn cut_quality_at(&self, at: usize, cluster: &str, fence: Option<CodeFence>) -> CutQuality {
        let (before, after) = self.all.split_at(at);
        let last = before.chars().next_back().unwrap_or(' ');
        let next = cluster.chars().next().unwrap_or(' ');
        if cluster.ends_with('\n') {
            let next_line = after[cluster.len()..].trim_start_matches([' ', '\t', '\r']);
            let is_paragraph = fence.is_none() && next_line.starts_with('\n');
            if is_paragraph { CutQuality::Paragraph } else { CutQuality::Line }
        } else if matches!(last, '。' | '！' | '？')
            || next.is_whitespace() && matches!(last, '.' | '!' | '?' | '…')
        {
            CutQuality::Sentence
        } else if next.is_whitespace() {
            CutQuality::Word
        } else if self.addresses.is_cut_inside(at)
            || next.is_numeric() && (last.is_numeric() || matches!(last, '@' | '+'))
        {
            CutQuality::Inside
        } else {
            CutQuality::Nowhere
        }
    }

    /// Where the next message begins, without the white space that the cut replaces, and what is still open
    /// there.
    fn start_after_cut(&self, cut: CutPoint<'a>) -> (usize, OpenMarkup<'a>) {
        let CutPoint { at, mut open } = cut;
        let mut start = skip_blank_gap(self.all, at);
        let line = self.all[start..].lines().next().unwrap_or_default();
        if let Some(fence) = open.fence
            && fence.is_closing_line(line[leading_quote_marks(line).len()..].trim())
        {
            // The cut has closed the block.
            open.fence = None;
            start = skip_blank_gap(self.all, start + line.len());
        }
        if !self.is_line_start(start) {
            let line_start = self.all[..start].rfind('\n').map_or(0, |line_end| line_end + 1);
            let quote = open
                .fence
                .map_or_else(|| leading_quote_marks(&self.all[line_start..start]), |fence| fence.quote);
            open.quote = if quote.len() <= self.limit / 4 { quote } else { "" };
        }
        (start, open)
    }
}

/// The styles around a place that moves forward.
struct OpenStyles<'t, 'a> {
    around: Vec<&'a StyledRange>,
    ahead: &'t [&'a StyledRange],
}

impl<'t, 'a> OpenStyles<'t, 'a> {
    fn styles_open_at(at: usize, styled: &'t [&'a StyledRange]) -> Self {
        let (begun, ahead) = styled.split_at(styled.partition_point(|styled| styled.range.start < at));
        let around = begun.iter().copied().filter(|styled| styled.range.end > at).collect();
        Self { around, ahead }
    }

    /// The styles that a cut at `at` would part, the outermost first; none if it would leave one of them
    /// empty.
    fn styles_cut_at(&mut self, at: usize) -> Option<&[&'a StyledRange]> {
        while let Some((first, ahead)) = self.ahead.split_first()
            && first.range.start < at
        {
            (self.ahead, _) = (ahead, self.around.push(first));
        }
        self.around.retain(|styled| styled.range.end > at);
        let is_within = |styled: &&StyledRange| styled.content.start < at && at < styled.content.end;
        self.around.iter().all(is_within).then_some(&self.around[..])
    }
}

/// The marks of a quote that a line begins with, with the space behind them; nothing if it is none.
fn leading_quote_marks(line: &str) -> &str {
    let marks = line.trim_start_matches([' ', '>']);
    let marks = &line[..line.len() - marks.len()];
    let quote = marks.trim_end();
    if quote.is_empty() { "" } else { &marks[..marks.len().min(quote.len() + 1)] }
}

/// The first byte from `at` on that is no white space, or that begins the indentation of its line.
fn skip_blank_gap(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let gap = &rest[..rest.len() - rest.trim_start().len()];
    at + gap.rfind('\n').map_or(gap.len(), |line_end| line_end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::markdown::markdown_to_whatsapp;

    fn plain(text: &str) -> FormattedText {
        FormattedText::from(text.to_owned())
    }

    #[track_caller]
    fn cuts(text: &str, limit: usize, expected: &[&str]) {
        assert_eq!(split_into_messages(&plain(text), limit), expected, "{text:?} at {limit}");
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
            assert_eq!(split_into_messages(&plain(text), limit), expected, "{rule}");
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
            ("a vowel sign", "कि"),
            ("a conjunct", "क्ष"),
            ("a Tamil vowel", "நி"),
            ("a Thai vowel", "กำ"),
            ("a Korean syllable", "\u{1112}\u{1161}\u{11ab}"),
            ("a person at work", "👩🏽\u{200d}🚀"),
            ("a flag of tags", "🏴\u{e0067}\u{e0062}\u{e007f}"),
        ] {
            let limit = cluster.chars().count() + 1;
            assert_eq!(split_into_messages(&plain(&cluster.repeat(3)), limit), [cluster; 3], "{what}");
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

    #[track_caller]
    fn cuts_markdown(source: &str, limit: usize, expected: &[&str]) {
        assert_eq!(
            split_into_messages(&markdown_to_whatsapp(source), limit),
            expected,
            "{source:?} at {limit}"
        );
    }

    #[test]
    fn a_style_that_is_cut_is_closed_and_opened_again() {
        let words = "one two three four five six seven eight nine ten eleven twelve";
        let (before, after) = ("one two three four five six seven eight nine", "ten eleven twelve");
        for (open, close, shown, shown_end) in [
            ("**", "**", "*", "*"),
            ("*", "*", "_", "_"),
            ("~~", "~~", "~", "~"),
            ("`", "`", "`", "`"),
            ("``", "``", "``", "``"),
            ("***", "***", "*_", "_*"),
            ("~~**", "**~~", "~*", "*~"),
            ("# ", "", "*", "*"),
            ("> **", "**", "> *", "*"),
            ("> ", "", "> ", ""),
            ("> > ", "", "> > ", ""),
        ] {
            let expected = [before, after].map(|words| format!("{shown}{words}{shown_end}"));
            cuts_markdown(&format!("{open}{words}{close}"), 49, &expected.each_ref().map(String::as_str));
        }
        cuts_markdown(
            &format!("a **b *c {words} d* e** f"),
            54,
            &[&format!("a *b _c {before}_*"), &format!("*_{after} d_ e* f")],
        );
        cuts_markdown(
            "> **one two three four five\n> six seven eight nine ten eleven\n> twelve**",
            60,
            &["> *one two three four five*", "> *six seven eight nine ten eleven\n> twelve*"],
        );
        let bold: String = "a".repeat(8_500);
        let stars = split_into_messages(&markdown_to_whatsapp(&format!("**{bold}**")), 4_000);
        let stars: Vec<usize> = stars.iter().map(|message| message.matches('*').count()).collect();
        assert_eq!(stars, [2, 2, 2]);
    }

    #[test]
    fn a_cut_never_leaves_an_empty_style() {
        let long = "a".repeat(44);
        cuts_markdown(&format!("{long} **bold** b"), 49, &[&long, "*bold* b"]);
        cuts_markdown(&format!("aa{long}前**「bold」**"), 49, &[&format!("aa{long}前"), "*「bold」*"]);
        cuts_markdown(&format!("{long} ` b ` c"), 48, &[&long, "` b ` c"]);
    }

    #[test]
    fn a_block_in_a_quote_stays_in_it() {
        cuts_markdown(
            "> ```rust\n> let first = 1;\n> let second = 2;\n> let third = 3;\n> ```\nDone",
            60,
            &[
                "> ```rust\n> let first = 1;\n> let second = 2;\n> ```",
                "> ```rust\n> let third = 3;\n> ```\nDone",
            ],
        );
        cuts_markdown(
            "```\n> let first = 1; let second = 2;\n```",
            32,
            &["```\n> let first = 1; let\n```", "```\nsecond = 2;\n```"],
        );
    }

    #[test]
    fn a_table_is_cut_between_its_rows_and_tells_its_header_again() {
        let rows: String = (10..20).map(|nth| format!("| {nth} | task |\n")).collect();
        cuts_markdown(
            format!("| Nr | What |\n|---|---|\n{rows}").trim(),
            80,
            &[
                "```\nNr | What\n---|-----\n10 | task\n11 | task\n12 | task\n13 | task\n14 | task\n```",
                "```\nNr | What\n---|-----\n15 | task\n16 | task\n17 | task\n18 | task\n19 | task\n```",
            ],
        );
        let rows: String =
            (1..4).map(|nth| format!("| {nth} | a task with a name of some length |\n")).collect();
        cuts_markdown(
            format!("| Nr | What |\n|---|---|\n{rows}").trim(),
            120,
            &[
                "*Nr*: 1 · *What*: a task with a name of some length\n*Nr*: 2 · *What*: a task with a name of some length",
                "*Nr*: 3 · *What*: a task with a name of some length",
            ],
        );
    }

    #[test]
    fn an_address_or_a_number_is_whole() {
        cuts("前前前前前https://a.test/x/y后后", 20, &["前前前前前", "https://a.test/x/y后后"]);
        cuts("前前前前，kai@a.test后后", 12, &["前前前前，", "kai@a.test后后"]);
        cuts("请@34600000001看", 12, &["请", "@34600000001", "看"]);
        cuts("前+34600000001后", 12, &["前", "+34600000001", "后"]);
        let address = format!("https://a.test/{}", "x".repeat(20));
        cuts(&format!("see {address}"), 30, &["see", &address[..30], &address[30..]]);
        let text = format!("{}https://a.test/{}{}", "前".repeat(3_000), "y".repeat(2_000), "后".repeat(900));
        let messages = split_into_messages(&plain(&text), 4_000);
        assert_eq!(messages[0].chars().count(), 3_000);
        assert!(messages[1].starts_with("https://a.test/yyy"));
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
        fn any_markdown_is_cut_within_the_limit(
            source in "(\\*|\\*\\*|_|~~|# |`|```\n|\\|\\|-\\|\n|> |- |\n|\n\n| |a|aaa aaa|é|很|。|https://a.test/x|@1)*",
            limit in 1_usize..120,
        ) {
            let formatted = markdown_to_whatsapp(&source);
            let chunks = split_into_messages(&formatted, limit);
            for chunk in &chunks {
                prop_assert!(chunk.chars().count() <= limit, "{:?}", chunk);
            }
            let words = |text: &str| text.chars().filter(|c| matches!(c, 'é' | '很' | '。')).collect::<String>();
            prop_assert_eq!(words(&chunks.concat()), words(&formatted.text));
        }

        #[test]
        fn a_style_is_closed_in_each_message(words in "[ab ]{1,300}", limit in 48_usize..90) {
            for chunk in split_into_messages(&markdown_to_whatsapp(&format!("x **a{words}b** x")), limit) {
                prop_assert_eq!(chunk.matches('*').count() % 2, 0, "{:?}", chunk);
                prop_assert!(!chunk.contains("**"), "{:?}", chunk);
            }
        }

        #[test]
        fn every_message_is_within_the_limit_and_says_something(text in any::<String>(), limit in 1_usize..40) {
            for chunk in split_into_messages(&plain(&text), limit) {
                prop_assert!(chunk.chars().count() <= limit, "{:?}", chunk);
                prop_assert!(!chunk.trim().is_empty());
            }
        }

        // A quote is the exception: its mark is said again in each message.
        #[test]
        fn only_white_space_is_lost(text in "([^`>]|\n|\n\n| |\\. |é|\u{301}|👩\u{200d}👧)*", limit in 1_usize..40) {
            prop_assert_eq!(visible(&split_into_messages(&plain(&text), limit).concat()), visible(&text));
        }

        #[test]
        fn code_stays_code(
            parts in prop::collection::vec("([a-z ]{0,12}\n){0,3}(```(rust)?\n([ a-z.]{0,30}\n){0,6}```\n)?\n?", 0..6),
            limit in 32_usize..80,
        ) {
            let text = parts.concat();
            let chunks = split_into_messages(&plain(&text), limit);
            for chunk in &chunks {
                prop_assert!(chunk.chars().count() <= limit, "{:?}", chunk);
                prop_assert_eq!(chunk.matches("```").count() % 2, 0, "{:?}", chunk);
            }
            let said = lines_without_fences(chunks.iter().map(String::as_str));
            prop_assert_eq!(visible(&said), visible(&lines_without_fences([text.as_str()])));
        }

        #[test]
        fn fences_of_any_shape_are_bearable(text in "(`|```|````|rust|\n|\n\n| |a|é)*", limit in 0_usize..40) {
            for chunk in split_into_messages(&plain(&text), limit) {
                prop_assert!(chunk.chars().count() <= limit.max(1), "{:?}", chunk);
                prop_assert!(!chunk.trim().is_empty());
            }
        }
    }
}
