//! What an answer does besides saying something: `<file path="chart.png">caption</file>` sends a file,
//! `<reaction>👍</reaction>` puts an emoji on the message that is answered.
//!
//! A tag is read only if it is whole and not in code; everything else is text, as typed.

use super::characters::is_invisible_character;
use super::verbatim::find_markdown_code;

/// Most files of one answer; of those beyond only the captions are said.
pub const FILES_MAX: usize = 10;
/// Most characters of a reaction: the longest emoji are sequences of ten.
const REACTION_MAX_CHARS: usize = 16;

/// An answer in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaggedAnswer<'a> {
    /// In order; nothing of the answer is lost but the tags themselves.
    pub pieces: Vec<AnswerPiece<'a>>,
    /// Of several reactions the last: the others would not be seen.
    pub reaction: Option<&'a str>,
    /// Files beyond the first [`FILES_MAX`]; of those only the captions are among the pieces.
    pub files_left_out: usize,
}

/// A stretch of an answer. There are at most [`FILES_MAX`] files, and texts only between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece<'a> {
    Text(String),
    File { path: &'a str, caption: &'a str },
}

enum Tag<'a> {
    File { path: &'a str, caption: &'a str },
    Reaction(&'a str),
}

/// Takes the tags out of an answer.
pub fn extract_tags(answer: &str) -> TaggedAnswer<'_> {
    let code = find_markdown_code(answer);
    let mut tagged = TaggedAnswer::default();
    let mut text = String::new();
    let mut files = 0;
    let mut read = 0;
    for (at, _) in answer.match_indices('<') {
        if at < read || code.contains_byte(at) {
            continue;
        }
        let Some((tag, length)) = parse_tag(&answer[at..]) else { continue };
        text.push_str(&answer[read..at]);
        read = at + length;
        match tag {
            Tag::Reaction(emoji) => tagged.reaction = Some(emoji),
            Tag::File { caption, .. } if files == FILES_MAX => {
                tagged.files_left_out += 1;
                push_paragraph(&mut text, caption);
            }
            Tag::File { path, caption } => {
                files += 1;
                tagged.push_text_piece(&mut text);
                tagged.pieces.push(AnswerPiece::File { path, caption });
            }
        }
    }
    text.push_str(&answer[read..]);
    tagged.push_text_piece(&mut text);
    tagged
}

impl TaggedAnswer<'_> {
    fn push_text_piece(&mut self, text: &mut String) {
        let text = std::mem::take(text);
        if !text.trim().is_empty() {
            self.pieces.push(AnswerPiece::Text(text));
        }
    }
}

/// Puts `paragraph` below `text`, and room for another one below it.
fn push_paragraph(text: &mut String, paragraph: &str) {
    text.truncate(text.trim_end().len());
    for piece in ["\n\n", paragraph, "\n\n"] {
        text.push_str(piece);
    }
}

/// The whole tag at the beginning of `text`, with its length in bytes.
fn parse_tag(text: &str) -> Option<(Tag<'_>, usize)> {
    if let Some(attributes) = text.strip_prefix("<file").filter(|rest| rest.starts_with(char::is_whitespace))
    {
        let (path, after) = parse_path_attribute(attributes)?;
        if let Some(rest) = after.strip_prefix("/>") {
            return Some((Tag::File { path, caption: "" }, text.len() - rest.len()));
        }
        let after = after.strip_prefix('>')?;
        // What follows the next beginning closes that one: this one was never closed, and nobody looks
        // further.
        let own = after.split("<file").next().unwrap_or_default();
        let (caption, _) = own.split_once("</file>")?;
        let length = text.len() - after.len() + caption.len() + "</file>".len();
        return Some((Tag::File { path, caption: caption.trim() }, length));
    }
    let (emoji, rest) = text.strip_prefix("<reaction>")?.split_once('<')?;
    let rest = rest.strip_prefix("/reaction>")?;
    let emoji = emoji.trim();
    is_reaction_emoji(emoji).then_some((Tag::Reaction(emoji), text.len() - rest.len()))
}

/// Reads ` path="…" `, the only attribute, and what follows it.
fn parse_path_attribute(text: &str) -> Option<(&str, &str)> {
    let value = text.trim_start().strip_prefix("path")?.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let value = &value[quote.len_utf8()..];
    // A path is of one line: nobody looks further for its end.
    let (path, _) = value.split('\n').next()?.split_once(quote)?;
    let after = &value[path.len() + quote.len_utf8()..];
    let is_path = !path.trim().is_empty() && !path.contains(['<', '>']);
    is_path.then_some((path, after.trim_start()))
}

/// Whether WhatsApp could show this as one reaction: short, and without a letter or a space.
fn is_reaction_emoji(text: &str) -> bool {
    let is_part =
        |c: char| !c.is_alphabetic() && !c.is_whitespace() && !c.is_control() && c != '<' && c != '>';
    let shows = |c: char| !c.is_ascii() && !is_invisible_character(c);
    text.chars().count() <= REACTION_MAX_CHARS && text.chars().all(is_part) && text.chars().any(shows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each piece of an answer: a text as it is, a file as `[path] caption`; a reaction after all of them as
    /// `(👍)`.
    fn shown(answer: &str) -> Vec<String> {
        let TaggedAnswer { pieces, reaction, .. } = extract_tags(answer);
        let pieces = pieces.into_iter().map(|piece| match piece {
            AnswerPiece::Text(text) => text,
            AnswerPiece::File { path, caption } => format!("[{path}] {caption}"),
        });
        pieces.chain(reaction.map(|emoji| format!("({emoji})"))).collect()
    }

    #[test]
    fn an_answer_is_text_files_and_reactions_in_order() {
        for (answer, expected) in [
            ("hello", vec!["hello"]),
            ("", vec![]),
            ("<file path=\"chart.png\">The year</file>", vec!["[chart.png] The year"]),
            ("<file path='a b.pdf'/>", vec!["[a b.pdf] "]),
            ("<file path = \"a.pdf\" ></file>", vec!["[a.pdf] "]),
            ("<file\n path=\"a.pdf\">\n two\nlines \n</file>", vec!["[a.pdf] two\nlines"]),
            (
                "Here: <file path=\"a\">A</file>\n\n<file path=\"b\">B</file> Done.",
                vec!["Here: ", "[a] A", "[b] B", " Done."],
            ),
            ("<reaction>👍</reaction>", vec!["(👍)"]),
            ("<reaction> 👩🏽\u{200d}🚀 </reaction>ok", vec!["ok", "(👩🏽\u{200d}🚀)"]),
            ("<reaction>1\u{fe0f}\u{20e3}</reaction>", vec!["(1\u{fe0f}\u{20e3})"]),
            ("<reaction>👍</reaction>a<reaction>🎉</reaction>b", vec!["ab", "(🎉)"]),
        ] {
            assert_eq!(shown(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn what_is_not_whole_or_in_code_is_text() {
        for answer in [
            "<file path=\"chart.png\">never closed",
            "<file path=\"chart.png\"",
            "<file path=\"chart.png>x</file>",
            "<file>chart.png</file>",
            "<file path=\"\">x</file>",
            "<file path=chart.png>x</file>",
            "<file name=\"chart.png\">x</file>",
            "<files path=\"chart.png\">x</files>",
            "<FILE path=\"chart.png\">x</FILE>",
            "</file> </reaction>",
            "<reaction></reaction>",
            "<reaction>ok</reaction>",
            "<reaction>!</reaction>",
            "<reaction>👍 👍</reaction>",
            "<reaction>👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍👍</reaction>",
            "<reaction>👍",
            "<reaction>\u{200b}\u{fe0f}</reaction>",
            "<file path=\"a\nb\">x</file>",
            "`<file path=\"chart.png\">x</file>`",
            "Write `<reaction>👍</reaction>` for that.",
            "```\n<file path=\"chart.png\">x</file>\n```",
            "```xml\n<reaction>👍</reaction>",
        ] {
            assert_eq!(shown(answer), [answer]);
        }
        assert_eq!(shown("<file path=\"a\">x <file path=\"b\">y</file>"), ["<file path=\"a\">x ", "[b] y"]);
    }

    #[test]
    fn ten_files_are_enough() {
        let answer = "<file path=\"a.png\">x</file>\n".repeat(12) + "done";
        let shown = shown(&answer);
        assert_eq!(shown[..FILES_MAX], vec!["[a.png] x"; FILES_MAX]);
        assert_eq!(shown[FILES_MAX..], ["\n\nx\n\nx\n\n\ndone"]);
        assert_eq!(extract_tags(&answer).files_left_out, 2);
    }

    #[test]
    fn no_number_of_tags_parts_a_text() {
        let answer = "a<reaction>👍</reaction>".repeat(2_500);
        assert_eq!(shown(&answer), ["a".repeat(2_500), "(👍)".to_owned()]);
        let answer = "<file path=\"x\">b</file>".repeat(2_845);
        assert_eq!(
            (extract_tags(&answer).pieces.len(), extract_tags(&answer).files_left_out),
            (FILES_MAX + 1, 2_835)
        );
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(
            answer in "(<file|</file>| path=|\"|'|>|/>|<reaction>|</reaction>|👍|a|é|`|```|\n| |<)*",
        ) {
            let kept: String = shown(&answer).concat();
            let words = |text: &str| text.matches('é').count();
            prop_assert_eq!(words(&kept), words(&answer));
        }

        #[test]
        fn an_answer_without_tags_is_one_text(answer in "[^<]*[^<\\s][^<]*") {
            prop_assert_eq!(shown(&answer), [answer]);
        }
    }
}
