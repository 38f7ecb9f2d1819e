//! An agent's answer as the messages that the chat gets, in order and bounded.

use super::characters::{shows_something, with_plain_lines};
use super::formatted::Formatted;
use super::mention::{self, Person};
use super::tags::{self, Piece};
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
pub enum Part {
    Text {
        text: String,
        mentions: Vec<SenderId>,
    },
    /// `path` as the agent wrote it: whoever opens it must not trust it.
    File {
        path: String,
        caption: String,
    },
    /// An emoji on the message that is answered.
    Reaction(String),
}

/// An answer as the chat gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// None where the answer holds nothing for the chat.
    pub parts: Vec<Part>,
    pub left_out: LeftOut,
}

/// What of an answer the chat does not get, and has to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub files: usize,
    /// Words at its end, which went beyond the most messages of one answer.
    pub has_words: bool,
}

/// The messages that an agent's answer becomes, each text beginning with `prefix` (such as `Kai: `, or empty);
/// `people` can be mentioned in it. Each is at most [`MESSAGE_LIMIT_CHARS`] long, and shows something.
pub fn rendered(answer: &str, prefix: &str, people: &[Person]) -> Rendered {
    let public = internal::public_part(&with_plain_lines(answer));
    let tagged = tags::tagged(&public);
    let mut parts = Vec::new();
    for piece in tagged.pieces {
        match piece {
            Piece::Text(text) => parts.extend(texts(&text, prefix, people)),
            Piece::File { path, caption } => parts.extend(file(path, caption, prefix, people, &parts)),
        }
    }
    let beyond = parts.split_off(parts.len().min(PARTS_MAX));
    let files = beyond.iter().filter(|part| matches!(part, Part::File { .. })).count();
    let left_out = LeftOut { files: tagged.files_left_out + files, has_words: beyond.len() > files };
    // It is seen at once, on the message that it answers.
    let reaction = tagged.reaction.map(|emoji| Part::Reaction(emoji.to_owned()));
    Rendered { parts: reaction.into_iter().chain(parts).collect(), left_out }
}

/// A file with its caption, after what was said `before`.
fn file(path: &str, caption: &str, prefix: &str, people: &[Person], before: &[Part]) -> Vec<Part> {
    if is_played(path) {
        let mut parts = texts(caption, prefix, people);
        parts.push(Part::File { path: path.to_owned(), caption: String::new() });
        return parts;
    }
    // Who speaks is said once, at the top.
    let is_first = !before.iter().any(|part| matches!(part, Part::Text { .. }));
    let prefix_of_caption = if is_first { prefix } else { "" };
    let room = CAPTION_LIMIT_CHARS.saturating_sub(prefix_of_caption.chars().count());
    let mut captions = split::split(&markdown::for_whatsapp(caption), room).into_iter();
    let caption = captions.next().filter(|caption| shows_something(caption));
    let caption = caption.map(|caption| format!("{prefix_of_caption}{caption}")).unwrap_or_default();
    let mut parts = vec![Part::File { path: path.to_owned(), caption }];
    let rest = captions.collect::<Vec<_>>().join("\n\n");
    parts.extend(chunks(&Formatted::from(mention::with_mentions(&rest, people)), prefix, people));
    parts
}

fn is_played(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| PLAYED.iter().any(|it| it.eq_ignore_ascii_case(ending)))
}

/// The messages that a text of the agent becomes.
fn texts(text: &str, prefix: &str, people: &[Person]) -> Vec<Part> {
    // Taking a tag out may have put together what hides a note.
    let text = internal::public_part(text);
    chunks(&markdown::for_whatsapp(&mention::with_mentions(&text, people)), prefix, people)
}

fn chunks(text: &Formatted, prefix: &str, people: &[Person]) -> Vec<Part> {
    let room = MESSAGE_LIMIT_CHARS.saturating_sub(prefix.chars().count());
    let part = |chunk| {
        let text = format!("{prefix}{chunk}");
        let mentions = mention::mentioned(&text, people);
        Part::Text { text, mentions }
    };
    split::split(text, room).into_iter().filter(|chunk| shows_something(chunk)).map(part).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(answer: &str, prefix: &str) -> Vec<String> {
        let text = |part| match part {
            Part::Text { text, .. } => text,
            Part::File { path, caption } => format!("[{path}] {caption}"),
            Part::Reaction(emoji) => format!("[{emoji}]"),
        };
        rendered(answer, prefix, &[]).parts.into_iter().map(text).collect()
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
            .map(|(name, id)| Person { name: name.to_owned(), id: SenderId::new(id) });
        let answer = format!("@Ana first\n\n{}\n\n@Bo last", "a".repeat(3_999));
        let mentions = rendered(&answer, "", &people).parts.into_iter().map(|part| match part {
            Part::Text { mentions, .. } => mentions,
            Part::File { .. } | Part::Reaction(_) => Vec::new(),
        });
        assert_eq!(
            mentions.collect::<Vec<_>>(),
            [vec![SenderId::new("1@lid")], vec![], vec![SenderId::new("2@lid")]]
        );
    }

    #[test]
    fn a_caption_that_is_a_text_of_its_own_mentions_too() {
        let people = [Person { name: "Ana".to_owned(), id: SenderId::new("1@lid") }];
        let ana = || vec![SenderId::new("1@lid")];
        assert_eq!(
            rendered("<file path=\"a.ogg\">@Ana listen</file>", "", &people).parts[0],
            Part::Text { text: "@1 listen".to_owned(), mentions: ana() }
        );
        let long = format!("<file path=\"a.png\">{}\n\n@Ana look</file>", "a".repeat(1_020));
        assert_eq!(
            rendered(&long, "", &people).parts[1],
            Part::Text { text: "@1 look".to_owned(), mentions: ana() }
        );
        assert_eq!(
            rendered("<file path=\"a.png\">@Ana look</file>", "", &people).parts,
            [Part::File { path: "a.png".to_owned(), caption: "@Ana look".to_owned() }]
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
            assert_eq!(rendered(answer, "Kai: ", &[]).parts, [], "{answer:?}");
        }
        let file = texts("<file path=\"a.png\">\u{200b}</file>\u{2060}", "Kai: ");
        assert_eq!(file, ["[a.png] "]);
    }

    #[test]
    fn no_answer_becomes_more_messages_than_anybody_reads() {
        let most = 64 * 1024;
        let reactions = "a<reaction>👍</reaction>".repeat(2_516);
        assert_eq!(texts(&reactions, "Kai: "), ["[👍]".to_owned(), format!("Kai: {}", "a".repeat(2_516))]);

        let files = rendered(&"<file path=\"x\">b</file>".repeat(2_845), "Kai: ", &[]);
        assert_eq!((files.parts.len(), files.left_out), (13, LeftOut { files: 2_835, has_words: false }));

        let whole = rendered(&"a".repeat(most), "Kai: ", &[]);
        assert_eq!((whole.parts.len(), whole.left_out), (17, LeftOut::default()));

        let beyond = ("a".repeat(3_000) + "<file path=\"x\"/>").repeat(10) + &"b".repeat(34_000);
        let beyond = rendered(&beyond, "Kai: ", &[]);
        assert_eq!((beyond.parts.len(), beyond.left_out), (PARTS_MAX, LeftOut { files: 0, has_words: true }));

        let last = "a".repeat(most) + &"<file path=\"x\"/>b".repeat(10);
        let last = rendered(&last, "Kai: ", &[]);
        assert_eq!((last.parts.len(), last.left_out), (PARTS_MAX, LeftOut { files: 8, has_words: true }));
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(answer in any::<String>(), prefix in any::<String>()) {
            for part in rendered(&answer, &prefix, &[]).parts {
                let says_who = matches!(part, Part::Text { text, .. } if text.starts_with(&prefix));
                prop_assert!(says_who);
            }
        }
    }
}
