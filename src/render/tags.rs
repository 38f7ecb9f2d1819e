//! What an answer does besides saying something: `<file path="chart.png">caption</file>` sends a file,
//! `<reaction>👍</reaction>` puts an emoji on the message that is answered.
//!
//! A tag is read only where it is whole and not in code; everything else is text, as typed.

use super::code::{code_in, is_code};

/// Most files of one answer; of those beyond only the captions are said.
const FILES_MAX: usize = 10;
/// Most characters of a reaction: the longest emoji are sequences of ten.
const REACTION_MAX_CHARS: usize = 16;

/// A stretch of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    File { path: &'a str, caption: &'a str },
    Reaction(&'a str),
}

/// The pieces of an answer in order; nothing of it is lost but the tags themselves. Of several reactions only the
/// last would be seen: the others are left out.
pub fn pieces(answer: &str) -> Vec<Piece<'_>> {
    let code = code_in(answer);
    let (mut pieces, mut files) = (Vec::new(), 0);
    let mut read = 0;
    for (at, _) in answer.match_indices('<') {
        if at < read || is_code(&code, at) {
            continue;
        }
        let Some((piece, length)) = tag(&answer[at..]) else { continue };
        pieces.push(Piece::Text(&answer[read..at]));
        read = at + length;
        match piece {
            Piece::File { caption, .. } if files == FILES_MAX => {
                pieces.push(Piece::Text(caption));
                continue;
            }
            Piece::File { .. } => files += 1,
            Piece::Reaction(_) => pieces.retain(|piece| !matches!(piece, Piece::Reaction(_))),
            Piece::Text(_) => {}
        }
        pieces.push(piece);
    }
    pieces.push(Piece::Text(&answer[read..]));
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.trim().is_empty()));
    pieces
}

/// The whole tag at the beginning of `text`, with its length in bytes.
fn tag(text: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(attributes) = text.strip_prefix("<file").filter(|rest| rest.starts_with(char::is_whitespace))
    {
        let (path, after) = path_attribute(attributes)?;
        if let Some(rest) = after.strip_prefix("/>") {
            return Some((Piece::File { path, caption: "" }, text.len() - rest.len()));
        }
        let (caption, rest) = after.strip_prefix('>')?.split_once("</file>")?;
        // The end belongs to a later tag: this one was never closed.
        let closed = !caption.contains("<file");
        return closed.then_some((Piece::File { path, caption: caption.trim() }, text.len() - rest.len()));
    }
    let (emoji, rest) = text.strip_prefix("<reaction>")?.split_once("</reaction>")?;
    let emoji = emoji.trim();
    is_emoji(emoji).then_some((Piece::Reaction(emoji), text.len() - rest.len()))
}

/// Reads ` path="…" `, the only attribute, and what follows it.
fn path_attribute(text: &str) -> Option<(&str, &str)> {
    let value = text.trim_start().strip_prefix("path")?.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (path, after) = value[quote.len_utf8()..].split_once(quote)?;
    let is_path = !path.trim().is_empty() && !path.contains(['<', '>', '\n']);
    is_path.then_some((path, after.trim_start()))
}

/// Whether WhatsApp could show this as one reaction: short, and without a letter or a space.
fn is_emoji(text: &str) -> bool {
    let is_part =
        |c: char| !c.is_alphabetic() && !c.is_whitespace() && !c.is_control() && c != '<' && c != '>';
    let shows = |c: char| !c.is_ascii();
    text.chars().count() <= REACTION_MAX_CHARS && text.chars().all(is_part) && text.chars().any(shows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Piece::{File, Reaction, Text};
    use super::*;

    #[test]
    fn an_answer_is_text_files_and_reactions_in_order() {
        for (answer, expected) in [
            ("hello", vec![Text("hello")]),
            ("", vec![]),
            (
                "<file path=\"chart.png\">The year</file>",
                vec![File { path: "chart.png", caption: "The year" }],
            ),
            ("<file path='a b.pdf'/>", vec![File { path: "a b.pdf", caption: "" }]),
            ("<file path = \"a.pdf\" ></file>", vec![File { path: "a.pdf", caption: "" }]),
            (
                "<file\n path=\"a.pdf\">\n two\nlines \n</file>",
                vec![File { path: "a.pdf", caption: "two\nlines" }],
            ),
            (
                "Here: <file path=\"a\">A</file>\n\n<file path=\"b\">B</file> Done.",
                vec![
                    Text("Here: "),
                    File { path: "a", caption: "A" },
                    File { path: "b", caption: "B" },
                    Text(" Done."),
                ],
            ),
            ("<reaction>👍</reaction>", vec![Reaction("👍")]),
            ("<reaction> 👩🏽\u{200d}🚀 </reaction>ok", vec![Reaction("👩🏽\u{200d}🚀"), Text("ok")]),
            ("<reaction>1\u{fe0f}\u{20e3}</reaction>", vec![Reaction("1\u{fe0f}\u{20e3}")]),
            ("<reaction>👍</reaction>a<reaction>🎉</reaction>", vec![Text("a"), Reaction("🎉")]),
        ] {
            assert_eq!(pieces(answer), expected, "{answer:?}");
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
            "`<file path=\"chart.png\">x</file>`",
            "Write `<reaction>👍</reaction>` for that.",
            "```\n<file path=\"chart.png\">x</file>\n```",
            "```xml\n<reaction>👍</reaction>",
        ] {
            assert_eq!(pieces(answer), [Text(answer)], "{answer:?}");
        }
        assert_eq!(
            pieces("<file path=\"a\">x <file path=\"b\">y</file>"),
            [Text("<file path=\"a\">x "), File { path: "b", caption: "y" }]
        );
    }

    #[test]
    fn ten_files_are_enough() {
        let answer = "<file path=\"a.png\">x</file>".repeat(12) + "done";
        let pieces = pieces(&answer);
        assert_eq!(pieces[..FILES_MAX], vec![File { path: "a.png", caption: "x" }; FILES_MAX]);
        assert_eq!(pieces[FILES_MAX..], [Text("x"), Text("x"), Text("done")]);
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(
            answer in "(<file|</file>| path=|\"|'|>|/>|<reaction>|</reaction>|👍|a|é|`|```|\n| |<)*",
        ) {
            let kept: usize = pieces(&answer).iter().map(|piece| match piece {
                Text(text) | Reaction(text) => text.len(),
                File { path, caption } => path.len() + caption.len(),
            }).sum();
            prop_assert!(kept <= answer.len());
        }

        #[test]
        fn an_answer_without_tags_is_one_text(answer in "[^<]*[^<\\s][^<]*") {
            prop_assert_eq!(pieces(&answer), [Text(&answer)]);
        }
    }
}
