//! An agent's answer as the messages that the chat gets, in order and bounded.

use super::characters::{has_visible_text, normalize_line_ends};
use super::formatted::FormattedText;
use super::mention::{self, MentionablePerson};
use super::tags::{self, AnswerPiece};
use super::{internal, markdown, split};
use crate::types::SenderId;

/// Characters of one WhatsApp message. WhatsApp takes 65,536, but hides what is long behind "Read more"; a
/// message of this length is opened and read in one go.
pub const MESSAGE_LIMIT_CHARS: usize = 4000;
/// Characters of a file's caption, as WhatsApp's own clients allow; what is longer follows as text.
const CAPTION_LIMIT_CHARS: usize = 1024;

/// Endings of what WhatsApp plays as a voice note or a song, which has no caption there.
const PLAYED: [&str; 6] = ["ogg", "opus", "mp3", "m4a", "aac", "amr"];

/// Most messages of one answer, a reaction not counted: the longest that a turn can give (`session::turn`) is
/// seventeen full ones, and ten files with words before each are twenty. More would only bury a chat.
const PARTS_MAX: usize = 20;

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPart {
    Text {
        text: String,
        mentions: Vec<SenderId>,
    },
    /// `path` as the agent wrote it: the code that opens it must not trust it.
    File {
        path: String,
        caption: String,
    },
    /// An emoji on the message that is answered.
    Reaction(String),
}

/// An answer as the chat gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedAnswer {
    /// Empty if the answer holds nothing for the chat.
    pub parts: Vec<AnswerPart>,
    pub left_out: OmittedParts,
}

/// What of an answer the chat does not get, and has to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OmittedParts {
    pub files: usize,
    /// Words at its end, which went beyond the most messages of one answer.
    pub has_words: bool,
}

/// The messages that an agent's answer becomes, each text beginning with `prefix` (such as `Kai: `, or
/// empty); `people` can be mentioned in it. Each is at most [`MESSAGE_LIMIT_CHARS`] long, and shows
/// something.
pub fn render_answer(answer: &str, prefix: &str, people: &[MentionablePerson]) -> RenderedAnswer {
    let public = internal::strip_hidden_text(&normalize_line_ends(answer));
    let tagged = tags::extract_tags(&public);
    let mut parts = Vec::new();
    for piece in tagged.pieces {
        match piece {
            AnswerPiece::Text(text) => parts.extend(render_text_parts(&text, prefix, people)),
            AnswerPiece::File { path, caption } => {
                parts.extend(render_file_parts(path, caption, prefix, people, &parts))
            }
        }
    }
    let beyond = parts.split_off(parts.len().min(PARTS_MAX));
    let files = beyond.iter().filter(|part| matches!(part, AnswerPart::File { .. })).count();
    let left_out = OmittedParts { files: tagged.files_left_out + files, has_words: beyond.len() > files };
    // It is seen at once, on the message that it answers.
    let reaction = tagged.reaction.map(|emoji| AnswerPart::Reaction(emoji.to_owned()));
    RenderedAnswer { parts: reaction.into_iter().chain(parts).collect(), left_out }
}

/// A file with its caption, after what was said `before`.
fn render_file_parts(
    path: &str,
    caption: &str,
    prefix: &str,
    people: &[MentionablePerson],
    before: &[AnswerPart],
) -> Vec<AnswerPart> {
    if is_audio_file(path) {
        let mut parts = render_text_parts(caption, prefix, people);
        parts.push(AnswerPart::File { path: path.to_owned(), caption: String::new() });
        return parts;
    }
    // Who speaks is said once, at the top.
    let is_first = !before.iter().any(|part| matches!(part, AnswerPart::Text { .. }));
    let prefix_of_caption = if is_first { prefix } else { "" };
    let room = CAPTION_LIMIT_CHARS.saturating_sub(prefix_of_caption.chars().count());
    let mut captions = split::split_into_messages(&markdown::markdown_to_whatsapp(caption), room).into_iter();
    let caption = captions.next().filter(|caption| has_visible_text(caption));
    let caption = caption.map(|caption| format!("{prefix_of_caption}{caption}")).unwrap_or_default();
    let mut parts = vec![AnswerPart::File { path: path.to_owned(), caption }];
    let rest = captions.collect::<Vec<_>>().join("\n\n");
    parts.extend(split_into_parts(
        &FormattedText::from(mention::insert_mentions(&rest, people)),
        prefix,
        people,
    ));
    parts
}

fn is_audio_file(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| PLAYED.iter().any(|it| it.eq_ignore_ascii_case(ending)))
}

/// The messages that a text of the agent becomes.
fn render_text_parts(text: &str, prefix: &str, people: &[MentionablePerson]) -> Vec<AnswerPart> {
    // Taking a tag out may have put together what hides a note.
    let text = internal::strip_hidden_text(text);
    split_into_parts(
        &markdown::markdown_to_whatsapp(&mention::insert_mentions(&text, people)),
        prefix,
        people,
    )
}

fn split_into_parts(text: &FormattedText, prefix: &str, people: &[MentionablePerson]) -> Vec<AnswerPart> {
    let room = MESSAGE_LIMIT_CHARS.saturating_sub(prefix.chars().count());
    let part = |chunk| {
        let text = format!("{prefix}{chunk}");
        let mentions = mention::find_mentioned_ids(&text, people);
        AnswerPart::Text { text, mentions }
    };
    split::split_into_messages(text, room)
        .into_iter()
        .filter(|chunk| has_visible_text(chunk))
        .map(part)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(answer: &str, prefix: &str) -> Vec<String> {
        let text = |part| match part {
            AnswerPart::Text { text, .. } => text,
            AnswerPart::File { path, caption } => format!("[{path}] {caption}"),
            AnswerPart::Reaction(emoji) => format!("[{emoji}]"),
        };
        render_answer(answer, prefix, &[]).parts.into_iter().map(text).collect()
    }

    #[test]
    fn an_answer_becomes_what_the_chat_reads() {
        for (answer, prefix, expected) in [
            ("Hello", "Kai: ", vec!["Kai: Hello"]),
            ("Hello", "", vec!["Hello"]),
            (
                "<internal>they ask for 6*7</internal>\n\nThe answer is **42**",
                "Kai: ",
                vec!["Kai: The answer is *42*"],
            ),
            ("# Plan\n- **one**\n", "Kai: ", vec!["Kai: *Plan*\n- *one*"]),
            ("<internal>only this</internal>", "Kai: ", vec![]),
            ("<internal>never closed", "Kai: ", vec![]),
            (" \n ", "Kai: ", vec![]),
            (
                "**Done.**\n\n<file path=\"a.png\">The *year*</file>\n\nMore?",
                "Kai: ",
                vec!["Kai: *Done.*", "[a.png] The _year_", "Kai: More?"],
            ),
            ("<file path=\"a.png\">The year</file>", "Kai: ", vec!["[a.png] Kai: The year"]),
            ("<file path=\"a.png\"></file>", "Kai: ", vec!["[a.png] "]),
            ("<file path=\"a.OGG\">**Listen**</file>", "Kai: ", vec!["Kai: *Listen*", "[a.OGG] "]),
            ("<file path=\"a.mp3\"/>", "Kai: ", vec!["[a.mp3] "]),
            ("<reaction>👍</reaction>", "Kai: ", vec!["[👍]"]),
            ("<reaction>👍</reaction> On it.", "Kai: ", vec!["[👍]", "Kai: On it."]),
            ("<internal><file path=\"a.png\">x</file></internal>", "Kai: ", vec![]),
            ("use `<reaction>👍</reaction>`", "", vec!["use `<reaction>👍</reaction>`"]),
        ] {
            assert_eq!(texts(answer, prefix), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_long_answer_leaves_room_for_the_prefix() {
        let paragraph = "word ".repeat(500).trim().to_owned();
        let replies = texts(&[paragraph.as_str(); 3].join("\n\n"), "Kai: ");
        assert_eq!(replies, vec![format!("Kai: {paragraph}"); 3]);

        let replies = texts(&"a".repeat(2 * MESSAGE_LIMIT_CHARS), "Kai: ");
        let lengths: Vec<usize> = replies.iter().map(|reply| reply.chars().count()).collect();
        assert_eq!(lengths, [MESSAGE_LIMIT_CHARS, MESSAGE_LIMIT_CHARS, 15]);
    }

    #[test]
    fn a_long_caption_goes_on_as_text() {
        let caption = format!("{}\n\nThe end.", "a".repeat(1_015));
        let answer = format!("<file path=\"a.png\">{caption}</file>");
        let first = format!("[a.png] Kai: {}", "a".repeat(1_015));
        assert_eq!(texts(&answer, "Kai: "), [first, "Kai: The end.".to_owned()]);
    }

    #[test]
    fn mentions_go_with_the_message_that_they_stand_in() {
        let people = [("Ana", "1@lid"), ("Bo", "2@lid")]
            .map(|(name, id)| MentionablePerson { name: name.to_owned(), id: SenderId::new(id) });
        let answer = format!("@Ana first\n\n{}\n\n@Bo last", "a".repeat(3_999));
        let mentions = render_answer(&answer, "", &people).parts.into_iter().map(|part| match part {
            AnswerPart::Text { mentions, .. } => mentions,
            AnswerPart::File { .. } | AnswerPart::Reaction(_) => Vec::new(),
        });
        assert_eq!(
            mentions.collect::<Vec<_>>(),
            [vec![SenderId::new("1@lid")], vec![], vec![SenderId::new("2@lid")]]
        );
    }

    #[test]
    fn a_caption_that_is_a_text_of_its_own_mentions_too() {
        let people = [MentionablePerson { name: "Ana".to_owned(), id: SenderId::new("1@lid") }];
        let ana = || vec![SenderId::new("1@lid")];
        assert_eq!(
            render_answer("<file path=\"a.ogg\">@Ana listen</file>", "", &people).parts[0],
            AnswerPart::Text { text: "@1 listen".to_owned(), mentions: ana() }
        );
        let long = format!("<file path=\"a.png\">{}\n\n@Ana look</file>", "a".repeat(1_020));
        assert_eq!(
            render_answer(&long, "", &people).parts[1],
            AnswerPart::Text { text: "@1 look".to_owned(), mentions: ana() }
        );
        assert_eq!(
            render_answer("<file path=\"a.png\">@Ana look</file>", "", &people).parts,
            [AnswerPart::File { path: "a.png".to_owned(), caption: "@Ana look".to_owned() }]
        );
    }

    #[test]
    fn no_line_end_ends_the_service() {
        for (answer, expected) in [
            ("*a*\r===", "_a_\n==="),
            ("a\r\n**b**\rc\u{2028}# d\u{85}e\0\u{1b}[2J", "a\n*b*\nc\n*d*\ne[2J"),
            ("> a\r> b\u{b}c\u{c}d", "> a\n> b\nc\nd"),
        ] {
            assert_eq!(texts(answer, ""), [expected], "{answer:?}");
        }
    }

    #[test]
    fn an_answer_with_nothing_to_see_is_none() {
        for answer in [
            "\u{200b}",
            "\u{feff}\u{2060}\n",
            "\u{200e}\u{200f}",
            "\u{fe0f}",
            "\u{2800}",
            "\u{3164}",
            "\u{115f}",
            "**\u{200b}**",
            "\0\u{1b}",
            "<internal>x</internal>\u{200b}",
            "\r\u{2028}\u{85}",
        ] {
            assert_eq!(render_answer(answer, "Kai: ", &[]).parts, [], "{answer:?}");
        }
        let file = texts("<file path=\"a.png\">\u{200b}</file>\u{2060}", "Kai: ");
        assert_eq!(file, ["[a.png] "]);
    }

    #[test]
    fn no_answer_becomes_more_messages_than_anybody_reads() {
        let most = 64 * 1024;
        let reactions = "a<reaction>👍</reaction>".repeat(2_516);
        assert_eq!(texts(&reactions, "Kai: "), ["[👍]".to_owned(), format!("Kai: {}", "a".repeat(2_516))]);

        let files = render_answer(&"<file path=\"x\">b</file>".repeat(2_845), "Kai: ", &[]);
        assert_eq!(
            (files.parts.len(), files.left_out),
            (13, OmittedParts { files: 2_835, has_words: false })
        );

        let whole = render_answer(&"a".repeat(most), "Kai: ", &[]);
        assert_eq!((whole.parts.len(), whole.left_out), (17, OmittedParts::default()));

        let beyond = ("a".repeat(3_000) + "<file path=\"x\"/>").repeat(10) + &"b".repeat(34_000);
        let beyond = render_answer(&beyond, "Kai: ", &[]);
        assert_eq!(
            (beyond.parts.len(), beyond.left_out),
            (PARTS_MAX, OmittedParts { files: 0, has_words: true })
        );

        let last = "a".repeat(most) + &"<file path=\"x\"/>b".repeat(10);
        let last = render_answer(&last, "Kai: ", &[]);
        assert_eq!(
            (last.parts.len(), last.left_out),
            (PARTS_MAX, OmittedParts { files: 8, has_words: true })
        );
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(answer in any::<String>(), prefix in any::<String>()) {
            for part in render_answer(&answer, &prefix, &[]).parts {
                let says_who = matches!(part, AnswerPart::Text { text, .. } if text.starts_with(&prefix));
                prop_assert!(says_who);
            }
        }
    }
}
