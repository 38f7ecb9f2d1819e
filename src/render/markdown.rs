//! Markdown, as models write it, into the formatting that WhatsApp shows: `*bold*`, `_italic_`, `~struck~`.
//!
//! Only the delimiters of known constructs are replaced, in the source itself. Everything else (lists, quotes, code,
//! tables, HTML, line breaks, escapes) stays byte for byte. Source: CommonMark 0.31 with GitHub's tables and
//! strikethrough, and WhatsApp's help page "How to format your messages".

use std::ops::Range;

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag};

/// How far back from a delimiter an address may begin. Longer ones are not what people share.
const ADDRESS_LIMIT_CHARS: usize = 2048;

const BOLD: &str = "*";
const ITALIC: &str = "_";
const STRUCK: &str = "~";
/// A link loses its brackets; a style that is on already gets no delimiters, for WhatsApp would show them.
const NONE: &str = "";

/// `source` as WhatsApp shows it best.
pub fn for_whatsapp(source: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let mut open: Vec<Construct> = Vec::new();
    let mut edits = Vec::new();
    for (event, range) in Parser::new_ext(source, options).into_offset_iter() {
        if let Event::Start(tag) = event {
            let construct = Construct::begin(source, tag, range, &mut open);
            open.push(construct);
            continue;
        }
        if matches!(event, Event::End(_)) {
            edits.extend(open.pop().into_iter().flat_map(|construct| construct.edits(source)));
        }
        if let Some(parent) = open.last_mut() {
            parent.content.end = range.end;
        }
    }
    edited(source, edits)
}

/// A stretch of the source and what replaces it.
type Edit = (Range<usize>, String);

fn edited(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut text = String::with_capacity(source.len());
    let mut copied = 0;
    for (range, replacement) in edits {
        text.push_str(&source[copied..range.start]);
        text.push_str(&replacement);
        copied = range.end;
    }
    text.push_str(&source[copied..]);
    text
}

/// Something that begins and ends in the source.
struct Construct<'a> {
    kind: Kind<'a>,
    /// All of it, with its delimiters.
    range: Range<usize>,
    /// What stands between the delimiters; grows while it is read.
    content: Range<usize>,
}

enum Kind<'a> {
    /// Bold, italic or struck through, by the delimiter that WhatsApp wants.
    Style(&'static str),
    /// A heading on one line. WhatsApp has none, so it becomes bold.
    Heading,
    /// A link or an image, with its address.
    Link(CowStr<'a>),
    /// An address in angle brackets.
    Address,
    AsTyped,
}

impl<'a> Construct<'a> {
    /// What `tag` begins, within the constructs that are `open` already.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what we do not know stays as typed")]
    fn begin(source: &str, tag: Tag<'a>, mut range: Range<usize>, open: &mut [Self]) -> Self {
        let typed = &source[range.clone()];
        let (mut kind, width) = match tag {
            Tag::Strong => (style(BOLD, source, &range, open), 2),
            Tag::Emphasis => (style(ITALIC, source, &range, open), 1),
            Tag::Strikethrough => (style(STRUCK, source, &range, open), leading(typed, &['~'])),
            Tag::Heading { .. } if !typed.trim_end().contains('\n') => {
                range.end = range.start + typed.trim_end_matches(['\r', '\n']).len();
                let hashes = leading(typed, &['#']);
                (Kind::Heading, hashes + leading(&typed[hashes..], &[' ', '\t']))
            }
            Tag::Link { link_type: LinkType::Inline, dest_url, .. } => (Kind::Link(dest_url), "[".len()),
            Tag::Image { link_type: LinkType::Inline, dest_url, .. } => (Kind::Link(dest_url), "![".len()),
            Tag::Link { link_type: LinkType::Autolink | LinkType::Email, .. } => (Kind::Address, "<".len()),
            _ => (Kind::AsTyped, 0),
        };
        let content = range.start + width..range.start + width;
        if let Some(outer) = open.last_mut()
            && (outer.range.start + 1, outer.range.end) == (range.start, range.end + 1)
            && matches!((&outer.kind, &kind), (Kind::Style(ITALIC), Kind::Style(BOLD)))
        {
            // `***both***`: whichever CommonMark puts outside, we write `*_both_*`.
            std::mem::swap(&mut outer.kind, &mut kind);
        }
        Self { kind, range, content }
    }

    /// What its two delimiters become.
    fn edits(self, source: &str) -> Vec<Edit> {
        let (before, after) = match self.kind {
            Kind::Style(delimiter) => (delimiter, delimiter.to_owned()),
            Kind::Heading if !self.content.is_empty() => (BOLD, BOLD.to_owned()),
            Kind::Link(address) => (NONE, link_end(&source[self.content.clone()], &address)),
            Kind::Address => (NONE, String::new()),
            Kind::Heading | Kind::AsTyped => return Vec::new(),
        };
        vec![
            (self.range.start..self.content.start, before.to_owned()),
            (self.content.end..self.range.end, after),
        ]
    }
}

/// A style of WhatsApp, if it can be shown where it stands.
fn style<'a>(delimiter: &'static str, source: &str, range: &Range<usize>, open: &[Construct]) -> Kind<'a> {
    let is_on = open.iter().any(|outer| match outer.kind {
        Kind::Style(on) => on == delimiter,
        Kind::Heading => delimiter == BOLD,
        Kind::Link(_) | Kind::Address | Kind::AsTyped => false,
    });
    if is_glued(source, range) {
        Kind::AsTyped
    } else if is_on {
        Kind::Style(NONE)
    } else {
        Kind::Style(delimiter)
    }
}

/// Whether WhatsApp would show the delimiters because they touch a word, as in `2*3*4`, or belong to a name or an
/// address, as in `__init__.py`. Only cased letters and digits count: other scripts write words without spaces.
fn is_glued(source: &str, range: &Range<usize>) -> bool {
    let is_word = |c: char| c.is_lowercase() || c.is_uppercase() || c.is_numeric();
    let (before, after) = (&source[..range.start], &source[range.end..]);
    let touches_word =
        before.chars().next_back().is_some_and(is_word) || after.chars().next().is_some_and(is_word);
    let is_name = source[range.clone()].starts_with('_')
        && (before.ends_with(['.', '/'])
            || after.strip_prefix(['.', '/']).is_some_and(|rest| rest.starts_with(is_word)));
    touches_word || is_name || ends_in_address(before)
}

/// Whether the last word of `text` is an address, such as `https://x.test/`.
fn ends_in_address(text: &str) -> bool {
    let is_space = |(_, c): &(usize, char)| c.is_whitespace();
    let word =
        text.char_indices().rev().take(ADDRESS_LIMIT_CHARS).take_while(|place| !is_space(place)).last();
    word.is_some_and(|(start, _)| text[start..].contains("://"))
}

/// What follows the text of a link: its address, unless that is the text.
fn link_end(text: &str, address: &str) -> String {
    if text.is_empty() {
        address.to_owned()
    } else if address.is_empty() || text == address {
        String::new()
    } else {
        format!(" ({address})")
    }
}

/// How many bytes at the beginning of `text` are one of these ASCII characters.
fn leading(text: &str, characters: &[char]) -> usize {
    text.len() - text.trim_start_matches(characters).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn becomes(cases: &[(&str, &str)]) {
        for (source, expected) in cases {
            assert_eq!(for_whatsapp(source), *expected, "{source:?}");
        }
    }

    #[track_caller]
    fn stay_as_typed(sources: &[&str]) {
        for source in sources {
            assert_eq!(for_whatsapp(source), *source);
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
            "| a | b |\n|---|:-:|\n| 5 * | * 6 |",
        ]);
        becomes(&[
            ("* **one**: *a*\n* two", "* *one*: _a_\n* two"),
            ("> **quoted\n> lines**", "> *quoted\n> lines*"),
            ("| **a** | b |\n|---|---|\n| *c* | d |", "| *a* | b |\n|---|---|\n| _c_ | d |"),
        ]);
    }

    proptest! {
        #[test]
        fn any_text_is_bearable(source in any::<String>()) {
            for_whatsapp(&source);
        }

        #[test]
        fn any_markdown_is_bearable(
            source in r"(\*|\*\*|_|__|~~|#|# |\[|\]|\(|\)|!\[|<|>|`|```|\||---|- |    |\\|\n|\r\n| |&amp;|://|a|é|很|1)*",
        ) {
            for_whatsapp(&source);
        }

        #[test]
        fn words_are_never_lost(source in r"(\*|\*\*|_|__|~~|# |`|\||- |> |\n| |a|é|很|1)*") {
            let words = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            prop_assert_eq!(words(&for_whatsapp(&source)), words(&source));
        }

        #[test]
        fn plain_words_stay(source in r"[\pL\pN ,.;:'?/=+\n-]*") {
            // A line of dashes or equal signs may make a heading, an indented one code; neither is touched.
            prop_assert_eq!(for_whatsapp(&source), source);
        }
    }
}
