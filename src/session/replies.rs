//! Makes replies for the outbox of what the agent said: in order, each with the message that it answers.

use super::turn::TurnAnswer;
use crate::notices;
use crate::render::{self, AnswerPart, MentionablePerson, OmittedParts, RenderedAnswer};
use crate::store::{Reply, ReplyContent};
use crate::types::Lang;

/// Which part of an answer quotes the message that called for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotePlacement {
    /// In a chat of several people, where it shows whom Kai answers.
    FirstPart,
    NoPart,
}

/// The replies of one answer. If something was left out, the last ones tell the chat.
pub fn build_replies(
    answer: &TurnAnswer,
    prefix: &str,
    lang: Lang,
    people: &[MentionablePerson],
    quoted: QuotePlacement,
) -> Vec<Reply> {
    let mut quote = match quoted {
        QuotePlacement::FirstPart => answer.to,
        QuotePlacement::NoPart => None,
    };
    let reply = |part| match part {
        AnswerPart::Text { text, mentions } => {
            Reply { content: ReplyContent::Text { text, mentions }, to: quote.take() }
        }
        AnswerPart::File { path, caption } => {
            Reply { content: ReplyContent::File { path, caption }, to: quote.take() }
        }
        AnswerPart::Reaction(emoji) => Reply { content: ReplyContent::Reaction { emoji }, to: answer.to },
    };
    let RenderedAnswer { parts, left_out: OmittedParts { files, has_words } } =
        render::render_answer(&answer.text, prefix, people);
    let files = (files > 0).then(|| notices::files_left_out_notice(lang, files, render::FILES_MAX));
    let words = has_words.then(|| notices::answer_cut_notice(lang));
    let omissions =
        files.into_iter().chain(words).map(|sentence| Reply::from_text(format!("{prefix}{sentence}")));
    parts.into_iter().map(reply).chain(omissions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RowId;

    /// Each reply as `content -> the row that it answers`.
    fn shown(text: &str, quoted: QuotePlacement) -> Vec<String> {
        let answer = TurnAnswer { text: text.to_owned(), to: Some(RowId::from_number(7)) };
        let shown = |Reply { content, to }| {
            let content = match content {
                ReplyContent::Text { text, .. } => text,
                ReplyContent::File { path, caption } => format!("[{path}] {caption}"),
                ReplyContent::UsageChart { caption, .. } => format!("[usage] {caption}"),
                ReplyContent::Reaction { emoji } => format!("[{emoji}]"),
            };
            to.map_or(content.clone(), |row| format!("{content} -> {}", row.number()))
        };
        build_replies(&answer, "", Lang::En, &[], quoted).into_iter().map(shown).collect()
    }

    #[test]
    fn the_first_part_quotes_in_a_group_and_a_reaction_is_to_the_message_anywhere() {
        let answer = "<reaction>👍</reaction>Here.<file path=\"a.png\">The year</file>More.";
        assert_eq!(
            shown(answer, QuotePlacement::FirstPart),
            ["[👍] -> 7", "Here. -> 7", "[a.png] The year", "More."]
        );
        assert_eq!(
            shown(answer, QuotePlacement::NoPart),
            ["[👍] -> 7", "Here.", "[a.png] The year", "More."]
        );
        assert_eq!(shown("<file path=\"a.png\"/>x", QuotePlacement::FirstPart), ["[a.png]  -> 7", "x"]);
    }
    #[test]
    fn what_is_left_out_is_said() {
        let files = shown(&"<file path=\"x\"/>".repeat(12), QuotePlacement::NoPart);
        insta::assert_snapshot!(files[10..].join("\n"), @"I left out 2 files: at most 10 go with one answer. Ask me for the rest.");
        let words = shown(
            &format!("{}{}", "<file path=\"x\"/>a".repeat(10), "a\n\n".repeat(15_000)),
            QuotePlacement::NoPart,
        );
        insta::assert_snapshot!(words[20..].join("\n"), @"My answer was too long for a chat, so I stopped here. Ask me for a shorter one, or for a file.");
    }
}
