//! Markdown, as models write it, into the formatting that WhatsApp shows: `*bold*`, `_italic_`, `~struck~`.
//!
//! Only the delimiters of known constructs are replaced, in the source itself, and tables, which WhatsApp
//! does not have. Everything else (lists, quotes, code, HTML, line breaks, escapes) stays as typed. Source:
//! CommonMark 0.31 with GitHub's tables and strikethrough, and WhatsApp's help page "How to format your
//! messages".

use std::mem::take;
use std::ops::Range;

use pulldown_cmark::{Event, LinkType, Tag, TagEnd};

use super::characters::has_visible_text;
use super::flanking::{is_uncased_letter, mark_style_boundaries};
use super::formatted::FormattedText;
use super::parser;
use super::table::MarkdownTable;
use super::verbatim::{TextRanges, find_verbatim_ranges};

const BOLD: char = '*';
const ITALIC: char = '_';
const STRUCK: char = '~';

/// `source` as WhatsApp shows it best.
pub fn markdown_to_whatsapp(source: &str) -> FormattedText {
    let verbatim = find_verbatim_ranges(source);
    let bounded = parser::limit_nesting(source);
    let boundaries = mark_style_boundaries(&bounded, &verbatim);
    let mut events = parser::parse_markdown_events(&boundaries).peekable();
    let mut writer = WhatsAppWriter::new(source, &verbatim);
    while let Some((event, range)) = events.next() {
        match event {
            Event::Start(tag) => writer.begin_construct(tag, range, events.peek()),
            Event::End(tag) => writer.end_construct(tag),
            Event::Code(_) => writer.copy_inline_code(range),
            Event::Text(_)
            | Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::Html(_)
            | Event::InlineHtml(_)
            | Event::FootnoteReference(_)
            | Event::SoftBreak
            | Event::HardBreak
            | Event::Rule
            | Event::TaskListMarker(_) => writer.copy_source_to(range.end),
        }
    }
    writer.finish_text()
}

/// Writes what was read, from the source's beginning to its end.
struct WhatsAppWriter<'a> {
    source: &'a str,
    verbatim: &'a TextRanges,
    /// What stands before it has been written or left out. It only moves forward, so that no two changes can
    /// overlap, whatever the parser says.
    read: usize,
    written: FormattedText,
    /// What has begun and not ended yet.
    open: Vec<MarkdownConstruct>,
    /// The styles that are on, each once: a second one would get delimiters that WhatsApp shows.
    styles_on: Vec<char>,
    /// Where the inner half of a `***` begins.
    swapped_at: Option<usize>,
    table: Option<OpenTable>,
}

/// Something that begins and ends in the source.
struct MarkdownConstruct {
    kind: ConstructKind,
    /// With the delimiters.
    range: Range<usize>,
    /// Bytes of the delimiter that it begins with.
    width: usize,
    /// The same stretch, with those delimiters around it that touch its own.
    outer: Range<usize>,
    /// Where its content begins in what is written.
    written_from: usize,
}

enum ConstructKind {
    /// Bold, italic or struck through, or a heading.
    Style(StyleDisplay),
    /// A link or an image, with its address.
    Link(String),
    /// An address in angle brackets.
    Address,
    Other,
}

/// How a style is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StyleDisplay {
    /// By the delimiter that WhatsApp wants.
    By(char),
    /// WhatsApp would show the delimiters, or it is on already: they go, and the words stay.
    Omitted,
    /// It was not meant as a style.
    AsTyped,
}

/// A table that is being read.
struct OpenTable {
    range: Range<usize>,
    /// What was written before it.
    before: FormattedText,
    table: MarkdownTable,
    row: Vec<FormattedText>,
}

impl<'a> WhatsAppWriter<'a> {
    fn new(source: &'a str, verbatim: &'a TextRanges) -> Self {
        Self {
            source,
            verbatim,
            read: 0,
            written: FormattedText::default(),
            open: Vec::new(),
            styles_on: Vec::new(),
            swapped_at: None,
            table: None,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what we do not know stays as typed")]
    fn begin_construct(&mut self, tag: Tag, mut range: Range<usize>, next: Option<&(Event, Range<usize>)>) {
        let typed = self.source.get(range.clone()).unwrap_or_default();
        let (mut kind, mut width) = (ConstructKind::Other, 0);
        match tag {
            Tag::Emphasis => {
                width = 1;
                let inner = range.start + 1..range.end.saturating_sub(1);
                // `***both***`: CommonMark puts italic outside, and we write `*_both_*`.
                let is_both = matches!(next, Some((Event::Start(Tag::Strong), next)) if *next == inner);
                self.swapped_at = is_both.then_some(inner.start).or(self.swapped_at);
                kind = ConstructKind::Style(self.style_display(
                    if is_both { BOLD } else { ITALIC },
                    &range,
                    width,
                ));
            }
            Tag::Strong => {
                width = 2;
                let is_both = self.swapped_at == Some(range.start);
                kind = ConstructKind::Style(self.style_display(
                    if is_both { ITALIC } else { BOLD },
                    &range,
                    width,
                ));
            }
            Tag::Strikethrough => {
                width = count_leading_bytes(typed, &['~']).min(2);
                kind = ConstructKind::Style(self.style_display(STRUCK, &range, width));
            }
            // A heading of several lines has its last one below it as an underline, and stays.
            Tag::Heading { .. } if !typed.trim_end().contains(['\n', '\r']) => {
                range.end = range.start + typed.trim_end_matches(['\r', '\n']).len();
                if next.is_some_and(|(event, _)| !matches!(event, Event::End(_))) {
                    let hashes = count_leading_bytes(typed, &['#']);
                    width = hashes + count_leading_bytes(&typed[hashes..], &[' ', '\t']);
                    kind = ConstructKind::Style(self.display_style_once(BOLD));
                }
            }
            Tag::Link { link_type: LinkType::Inline, dest_url, .. } => {
                (kind, width) = (ConstructKind::Link(dest_url.into_string()), "[".len());
            }
            Tag::Image { link_type: LinkType::Inline, dest_url, .. } => {
                (kind, width) = (ConstructKind::Link(dest_url.into_string()), "![".len());
            }
            Tag::Link { link_type: LinkType::Autolink | LinkType::Email, .. } => {
                (kind, width) = (ConstructKind::Address, "<".len());
            }
            Tag::Table(_) => {
                self.copy_source_to(range.start);
                let before = take(&mut self.written);
                let range = range.clone();
                self.table =
                    Some(OpenTable { range, before, table: MarkdownTable::default(), row: Vec::new() });
            }
            Tag::TableCell => {
                self.skip_source_to(range.start + count_leading_bytes(typed, &[' ', '\t']));
            }
            _ => {}
        }
        if !matches!(kind, ConstructKind::Other | ConstructKind::Style(StyleDisplay::AsTyped)) {
            self.copy_source_to(range.start);
            self.skip_source_to(range.start + width);
        }
        if let ConstructKind::Style(StyleDisplay::By(delimiter)) = kind {
            self.written.text.push(delimiter);
            self.styles_on.push(delimiter);
        }
        let outer = self.outer_range(&range);
        self.open.push(MarkdownConstruct {
            kind,
            range,
            width,
            outer,
            written_from: self.written.text.len(),
        });
    }

    fn end_construct(&mut self, tag: TagEnd) {
        let Some(MarkdownConstruct { kind, range, written_from, .. }) = self.open.pop() else { return };
        match kind {
            ConstructKind::Style(StyleDisplay::By(delimiter)) => {
                self.styles_on.pop();
                if has_visible_text(self.written.text.get(written_from..).unwrap_or_default()) {
                    self.written.text.push(delimiter);
                    self.written.mark_styled_from(written_from - 1, 1);
                } else {
                    // Nobody sees what is between: the delimiters would be all there is.
                    self.written.text.remove(written_from - 1);
                }
                self.skip_source_to(range.end);
            }
            ConstructKind::Link(address) => {
                let words = self.written.text.get(written_from..).unwrap_or_default();
                let end = link_address_suffix(words, &address);
                self.written.text.push_str(&end);
                self.skip_source_to(range.end);
            }
            ConstructKind::Style(StyleDisplay::Omitted) | ConstructKind::Address => {
                self.skip_source_to(range.end)
            }
            ConstructKind::Style(StyleDisplay::AsTyped) | ConstructKind::Other => {}
        }
        self.end_table_part(tag);
    }

    /// What the end of a cell, a row or a table means for the table.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no part of a table")]
    fn end_table_part(&mut self, tag: TagEnd) {
        let Some(open) = &mut self.table else { return };
        match tag {
            TagEnd::TableCell => open.row.push(take(&mut self.written)),
            TagEnd::TableHead => open.table.head = take(&mut open.row),
            TagEnd::TableRow => open.table.rows.push(take(&mut open.row)),
            TagEnd::Table => self.end_table(),
            _ => {}
        }
    }

    fn end_table(&mut self) {
        let Some(OpenTable { range, before, table, .. }) = self.table.take() else { return };
        let typed = self.source.get(range.clone()).unwrap_or_default().trim_end_matches(['\r', '\n']);
        let line_start = self.source[..range.start].rfind(['\n', '\r']).map_or(0, |at| at + 1);
        let margin = self.source[line_start..range.start].chars().map(|c| if c == '>' { c } else { ' ' });
        let table = table.layout_for_whatsapp(&margin.collect::<String>(), typed.len());
        self.written = before;
        self.written.append(&table.unwrap_or_else(|| FormattedText::from(typed.to_owned())));
        self.skip_source_to(range.start + typed.len());
    }

    fn copy_inline_code(&mut self, range: Range<usize>) {
        self.copy_source_to(range.start);
        let from = self.written.text.len();
        let ticks = count_leading_bytes(self.source.get(range.clone()).unwrap_or_default(), &['`']);
        self.copy_source_to(range.end);
        self.written.mark_styled_from(from, ticks);
    }

    /// Writes the source as typed, up to `end`.
    fn copy_source_to(&mut self, end: usize) {
        let Some(typed) = self.source.get(self.read..end) else { return };
        if self.table.is_some() {
            // A bar within a cell.
            self.written.text.push_str(&typed.replace("\\|", "|"));
        } else {
            self.written.text.push_str(typed);
        }
        self.read = end;
    }

    /// Leaves out the source up to `end`.
    fn skip_source_to(&mut self, end: usize) {
        if end > self.read && self.source.is_char_boundary(end) {
            self.read = end;
        }
    }

    fn finish_text(mut self) -> FormattedText {
        self.copy_source_to(self.source.len());
        self.written.styled.sort_by_key(|styled| styled.range.start);
        self.written
    }

    /// A style by its delimiter, if it can be shown where it stands.
    fn style_display(&self, delimiter: char, range: &Range<usize>, width: usize) -> StyleDisplay {
        let outer = self.outer_range(range);
        match classify_neighbours(self.source, &outer, range, width) {
            _ if self.verbatim.contains_byte(range.start) => StyleDisplay::AsTyped,
            StyleNeighbours::Apart => self.display_style_once(delimiter),
            StyleNeighbours::Glued => StyleDisplay::Omitted,
            StyleNeighbours::OneWord => StyleDisplay::AsTyped,
        }
    }

    fn display_style_once(&self, delimiter: char) -> StyleDisplay {
        if self.styles_on.contains(&delimiter) { StyleDisplay::Omitted } else { StyleDisplay::By(delimiter) }
    }

    /// `range` with the delimiters of the styles around it that touch it.
    fn outer_range(&self, range: &Range<usize>) -> Range<usize> {
        let mut outer = range.clone();
        if let Some(parent) = self.open.last()
            && matches!(parent.kind, ConstructKind::Style(_))
        {
            if parent.range.start + parent.width == range.start {
                outer.start = parent.outer.start;
            }
            if range.end + parent.width == parent.range.end {
                outer.end = parent.outer.end;
            }
        }
        outer
    }
}

/// How a style stands to the words beside it. WhatsApp shows none whose delimiter touches a word. Only cased
/// letters and digits make words: other scripts are written without spaces.
enum StyleNeighbours {
    Apart,
    /// It is meant as a style, and touches a word.
    Glued,
    /// Its delimiters belong to a name, as in `__init__.py`, or to a sum, as in `2*3*4`.
    OneWord,
}

fn classify_neighbours(
    source: &str,
    outer: &Range<usize>,
    range: &Range<usize>,
    width: usize,
) -> StyleNeighbours {
    let is_word = |c: char| c.is_alphanumeric() && !is_uncased_letter(c);
    let (before, after) = (&source[..outer.start], &source[outer.end..]);
    let typed = &source[range.clone()];
    let content = typed.get(width..typed.len().saturating_sub(width)).unwrap_or_default();
    let (last_before, first_after) = (before.chars().next_back(), after.chars().next());
    let is_name = typed.starts_with('_')
        && (before.ends_with(['.', '/'])
            || after.strip_prefix(['.', '/']).is_some_and(|rest| rest.starts_with(is_word)));
    if is_name {
        return StyleNeighbours::OneWord;
    }
    match (last_before.filter(|c| is_word(*c)), first_after.filter(|c| is_word(*c))) {
        (None, None) => StyleNeighbours::Apart,
        // `un**believ**able`, but not `2**3**4` or `a**b**c`.
        (Some(before), Some(after)) => {
            let is_long = content.chars().nth(1).is_some();
            let is_style = width > 1 && is_long && [before, after].into_iter().all(char::is_alphabetic);
            if is_style { StyleNeighbours::Glued } else { StyleNeighbours::OneWord }
        }
        (None, Some(_)) | (Some(_), None) if width > 1 => StyleNeighbours::Glued,
        // `*Nota:*texto`, but not `a *b*c` or `x.*y *z`.
        (None, Some(_)) => {
            let is_apart = last_before
                .is_none_or(|c| c.is_whitespace() || is_uncased_letter(c) || "([{¿¡\"“«".contains(c));
            let is_style = is_apart && !content.ends_with(is_word);
            if is_style { StyleNeighbours::Glued } else { StyleNeighbours::OneWord }
        }
        (Some(_), None) => StyleNeighbours::OneWord,
    }
}

/// What follows the words of a link: its address, unless that is the words.
fn link_address_suffix(words: &str, address: &str) -> String {
    // An entity may name a character that no address has, such as a line end.
    let address: String = address.chars().filter(|c| !c.is_control()).collect();
    if words.is_empty() {
        address
    } else if address.is_empty() || words == address {
        String::new()
    } else {
        format!(" ({address})")
    }
}

/// How many bytes at the beginning of `text` are one of these ASCII characters.
fn count_leading_bytes(text: &str, characters: &[char]) -> usize {
    text.len() - text.trim_start_matches(characters).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn becomes(cases: &[(&str, &str)]) {
        for (source, expected) in cases {
            assert_eq!(markdown_to_whatsapp(source).text, *expected, "{source:?}");
        }
    }

    #[track_caller]
    fn stay_as_typed(sources: &[&str]) {
        for source in sources {
            assert_eq!(markdown_to_whatsapp(source).text, *source);
        }
    }

    #[test]
    fn styles_get_the_delimiters_of_whatsapp() {
        becomes(&[
            ("**hello**", "*hello*"),
            ("__important__", "*important*"),
            ("say *this* now", "say _this_ now"),
            ("say _this_ now", "say _this_ now"),
            ("**bold** *italic*", "*bold* _italic_"),
            ("~~deleted~~", "~deleted~"),
            ("~deleted~", "~deleted~"),
            ("***both***", "*_both_*"),
            ("___both___", "*_both_*"),
            ("**_both_**", "*_both_*"),
            ("_**both**_", "*_both_*"),
            ("~~**both**~~", "~*both*~"),
            ("**a *b* c**", "*a _b_ c*"),
            ("*a **b** c*", "_a *b* c_"),
            ("**¿Qué?** 😀 *sí*", "*¿Qué?* 😀 _sí_"),
            ("**two\nlines**", "*two\nlines*"),
            ("(**a**), \"**b**\": **c**.", "(*a*), \"*b*\": *c*."),
            ("这**很**好", "这*很*好"),
        ]);
    }

    #[test]
    fn a_style_that_is_on_already_is_not_doubled() {
        becomes(&[
            ("**a __b__ c**", "*a b c*"),
            ("*a _b_ c*", "_a b c_"),
            ("# **Title**", "*Title*"),
            ("# A **b** c", "*A b c*"),
            ("# *Title*", "*_Title_*"),
            ("# ***Title***", "*_Title_*"),
            ("# A __b__ *c*", "*A b _c_*"),
        ]);
    }

    #[test]
    fn headings_become_bold_lines() {
        becomes(&[
            ("# Top", "*Top*"),
            ("## Hello World", "*Hello World*"),
            ("### Section", "*Section*"),
            ("###### Six", "*Six*"),
            ("#   Padded title  ", "*Padded title*"),
            ("## Closed ##", "*Closed*"),
            ("# One\n\ntext\n## Two\r\ntext", "*One*\n\ntext\n*Two*\r\ntext"),
            ("> # Quoted", "> *Quoted*"),
            ("- # Item", "- *Item*"),
            ("# `code`", "*`code`*"),
            ("# 5 * 3 = 15", "*5 * 3 = 15*"),
            ("# \\* star", "*\\* star*"),
            ("# [Link](https://a.test)", "*Link (https://a.test)*"),
        ]);
        stay_as_typed(&[
            "not a ## heading in middle",
            "#hashtag",
            "#",
            "####### seven",
            "Title\n=====",
            "#hashtag\n---",
            "a paragraph\nand then a line\n---\nmore",
        ]);
    }

    #[test]
    fn links_show_their_address() {
        becomes(&[
            ("[Link](https://example.com)", "Link (https://example.com)"),
            ("[https://d.test](https://d.test)", "https://d.test"),
            ("see [a](https://a.test), [b](https://b.test)", "see a (https://a.test), b (https://b.test)"),
            ("[**bold** text](https://a.test \"title\")", "*bold* text (https://a.test)"),
            ("**[Link](https://a.test)**", "*Link (https://a.test)*"),
            ("[`code`](https://a.test)", "`code` (https://a.test)"),
            ("[a\\]](https://a.test)", "a\\] (https://a.test)"),
            ("[wiki](https://a.test/x_(y)_z)", "wiki (https://a.test/x_(y)_z)"),
            ("[wiki](<https://a.test/a b>)", "wiki (https://a.test/a b)"),
            ("[](https://a.test)", "https://a.test"),
            ("[text]()", "text"),
            ("![alt](https://a.test/b.png)", "alt (https://a.test/b.png)"),
            ("![](https://a.test/b.png)", "https://a.test/b.png"),
            ("[![alt](https://a.test/b.png)](https://a.test)", "alt (https://a.test/b.png) (https://a.test)"),
            ("<https://a.test/x_y_z>", "https://a.test/x_y_z"),
            ("write to <kai@a.test>", "write to kai@a.test"),
        ]);
        stay_as_typed(&[
            "[a][b]\n\n[b]: https://b.test",
            "[not a link]",
            "[ ] to do",
            "- [x] done",
            "a[0](1",
        ]);
    }

    #[test]
    fn words_names_and_addresses_keep_their_characters() {
        stay_as_typed(&[
            "a * b * c",
            "2*3*4 and 2**3**4",
            "snake_case_name and __dunder__name",
            "__init__.py",
            "obj.__class__",
            "src/__pycache__/x",
            "https://a.test/some_long_path_/x",
            "https://a.test/__x__ and https://a.test/?q=**x**",
            "(see https://a.test/__x__/y)",
            "C:\\*.txt and \\*literal\\*",
            "a & b < c > d",
            "&amp; &lt; &#42;",
            "* * *",
            "** not bold **",
            "**never closed",
            "5 ~ 6 ~ 7",
        ]);
    }

    #[test]
    fn code_is_not_touched() {
        stay_as_typed(&[
            "```\n**not bold**\n```",
            "```rust\n# x\nlet a = b * c * d;\n```",
            "~~~\n**not bold**\n~~~",
            "    **indented**",
            "use `*star*` literally",
            "``a ` **b**``",
            "```\n**never closed**",
        ]);
        becomes(&[
            ("**bold** and `*code*` and *italic*", "*bold* and `*code*` and _italic_"),
            ("**bold**\n```\n**raw**\n```\n*italic*", "*bold*\n```\n**raw**\n```\n_italic_"),
            ("**`x`**", "*`x`*"),
        ]);
    }

    #[test]
    fn the_layout_stays_as_typed() {
        stay_as_typed(&[
            "",
            " \n \n",
            "- one\n* two\n+ three\n1. four\n   - five",
            "> quoted\n> more\n\nplain",
            "hard  \nbreak\\\nhere",
            "<div>\n**html**\n</div>",
            "a <br> b",
            "a\r\nb\r\n",
            "one\n\n\n\ntwo\n",
        ]);
        becomes(&[
            ("* **one**: *a*\n* two", "* *one*: _a_\n* two"),
            ("> **quoted\n> lines**", "> *quoted\n> lines*"),
        ]);
    }

    #[test]
    fn every_line_end_ends_a_line() {
        // Eight bytes of the first once ended the service: a heading behind a bare CR was taken for one of
        // one line.
        stay_as_typed(&[
            "a\r===",
            "a\r\n===",
            "*\r===",
            "# \r# ",
            "a\u{2028}===",
            "a\u{85}---",
            "a\u{b}b\u{c}c\0d",
            "> a\r> b",
        ]);
        becomes(&[
            ("*a*\r===", "_a_\r==="),
            ("**a**\r---", "*a*\r---"),
            ("_a_ b\r===", "_a_ b\r==="),
            ("*a*\r\r**b**\r\n~~c~~\n", "_a_\r\r*b*\r\n~c~\n"),
            ("# a\r*b*\r\n# c\r", "*a*\r_b_\r\n*c*\r"),
            ("# a\u{2028}*b*", "*a\u{2028}_b_*"),
            ("*a\0b*", "_a\0b_"),
        ]);
    }

    #[test]
    fn writing_without_spaces_has_styles_too() {
        becomes(&[
            ("**标签：**正文", "*标签：*正文"),
            ("含**「重点」**内容", "含*「重点」*内容"),
            ("1. **时间：**周六\n2. **地点：**公园。", "1. *时间：*周六\n2. *地点：*公园。"),
            ("**「重要」**です", "*「重要」*です"),
            ("这是**“重点”**，不是*（别的）*吗", "这是*“重点”*，不是_（别的）_吗"),
            ("~~「旧」~~新", "~「旧」~新"),
            ("__标签：__正文", "*标签：*正文"),
            ("含_重点_内容", "含_重点_内容"),
            ("***注意！***请看", "*_注意！_*请看"),
            ("**สำคัญ:**ครับ", "*สำคัญ:*ครับ"),
            ("**참고:**내용", "*참고:*내용"),
            ("**重点😀**内容", "*重点😀*内容"),
            // if WhatsApp shows no style, the words stay
            ("**Precio:**10 euros", "Precio:10 euros"),
            ("*Nota:*texto", "Nota:texto"),
            ("**Nota**s y un**believ**able", "Notas y unbelievable"),
            ("~~viejo.~~nuevo", "viejo.nuevo"),
            ("***Ojo:***ahora", "Ojo:ahora"),
        ]);
        stay_as_typed(&[
            "f(*args, **kwargs)",
            "2*(3+4)*5",
            "foo.*bar and baz.*qux",
            "a *b*c",
            "obj._private and self._x",
            "base**e**mod",
        ]);
    }

    #[test]
    fn a_style_around_nothing_that_is_seen_has_no_delimiters() {
        becomes(&[("**\u{200b}**", "\u{200b}"), ("***\u{2060}***", "\u{2060}"), ("# \u{2800}", "\u{2800}")]);
    }

    #[test]
    fn tables_become_blocks_or_lines() {
        becomes(&[
            ("| a | b |\n|---|:-:|\n| 5 * | * 6 |", "```\na   | b\n----|----\n5 * | * 6\n```"),
            (
                "Here:\n\n| **Día** | Qué |\n|---|---|\n| *lunes* | `pan` \\| té |\n\nDone",
                "Here:\n\n*Día*: _lunes_ · *Qué*: `pan` | té\n\nDone",
            ),
            (
                "| 名前 | 数 |\n|---|---|\n| りんご | 12 |\n",
                "```\n名前   | 数\n-------|---\nりんご | 12\n```\n",
            ),
            (
                "| Task | Status | Notes of all who were there |\n|---|---|---|\n| Fix routing | **Done** | |\n| Test |",
                "*Task*: Fix routing · *Status*: *Done*\n*Task*: Test",
            ),
            ("a|b\n-|-\n@34600000001|x", "*a*: @34600000001 · *b*: x"),
            ("a|b\n-|-\n[x](https://a.test)|", "*a*: x (https://a.test)"),
            ("> a|b\n> -|-\n> 1|2\n> 3|4", "> *a*: 1 · *b*: 2\n> *a*: 3 · *b*: 4"),
            ("- a|b\n  -|-\n  1|2\n  3|4", "- *a*: 1 · *b*: 2\n  *a*: 3 · *b*: 4"),
            ("a|b\n-|-", "*a* · *b*"),
            (
                "|Name:||\n|-|-|\n|a name of a good thirty characters|x|",
                "*Name*: a name of a good thirty characters · x",
            ),
        ]);
        let header = format!("|{}|\n|-|\n", "a".repeat(3_000));
        let wide = header + &"|b|\n".repeat(10_000);
        assert_eq!(markdown_to_whatsapp(&wide).text, wide, "what would become thirty megabytes stays");
    }

    #[test]
    fn delimiters_are_told_with_the_text() {
        let formatted = markdown_to_whatsapp("**a *b* c** `d `\n\n| x | `y` |\n|-|-|\n| ~~z~~ | |");
        let told: Vec<&str> =
            formatted.styled.iter().map(|styled| &formatted.text[styled.range.clone()]).collect();
        assert_eq!(told, ["*a _b_ c*", "_b_", "`d `", "*x*", "~z~"]);
        let within = formatted.styled.iter().map(|styled| &formatted.text[styled.content.clone()]);
        assert_eq!(within.collect::<Vec<_>>(), ["a _b_ c", "b", "d", "x", "z"]);
    }

    proptest! {
        #[test]
        fn any_text_is_bearable(source in any::<String>()) {
            markdown_to_whatsapp(&source);
        }

        #[test]
        fn any_markdown_is_bearable(
            source in "(\\*|\\*\\*|_|__|~~|#|# |===|\\[|\\]|\\(|\\)|!\\[|<|>|`|```|\\||---|\\|-\\||- |1\\. |    |\t\
                |\\\\|\n|\n\n|\r|\r\n|\u{2028}|\u{85}|\u{b}|\u{c}|\0|\u{200b}| |&amp;|&#10;|://|@|a|é|很|：|「|𝒳|1)*",
        ) {
            let formatted = markdown_to_whatsapp(&source);
            let mut end_of_all = 0;
            for styled in &formatted.styled {
                prop_assert!(formatted.text.get(styled.range.clone()).is_some(), "{:?}", styled);
                prop_assert!(formatted.text.get(styled.content.clone()).is_some(), "{:?}", styled);
                end_of_all = end_of_all.max(styled.range.end);
            }
            prop_assert!(end_of_all <= formatted.text.len());
        }

        #[test]
        fn words_are_never_lost(source in "(\\*|\\*\\*|_|__|~~|# |`|- |> |===|\n|\r|\r\n|\u{2028}| |a|é|很|：|「|1)*") {
            let words = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            prop_assert_eq!(words(&markdown_to_whatsapp(&source).text), words(&source));
        }

        #[test]
        fn the_words_of_a_table_are_never_lost(cells in prop::collection::vec("[a-z*_ é很]{0,9}", 6..12)) {
            let lines: Vec<String> = cells.chunks(2).map(|row| format!("|{}|", row.join("|"))).collect();
            let source = [&lines[..1], &["|-|-|".to_owned()], &lines[1..]].concat().join("\n");
            let text = markdown_to_whatsapp(&source).text;
            for word in cells.iter().flat_map(|cell| cell.split(|c: char| !c.is_alphanumeric())) {
                prop_assert!(text.contains(word), "{:?} is not in {:?}", word, text);
            }
        }

        #[test]
        fn plain_words_stay(source in r"[\pL\pN ,.;:'?/=+\n-]*") {
            // A line of dashes or equal signs may make a heading, an indented one code; neither is touched.
            prop_assert_eq!(markdown_to_whatsapp(&source).text, source);
        }
    }
}
