//! Text on its way: messages into prompts for the agent, answers into messages for the chat.
//!
//! Owns what either of them looks like. Never sends anything.

mod code;
mod excerpt;
mod internal;
mod markdown;
mod mention;
pub mod prompt;
mod split;
mod tags;

pub use internal::without_notes;
pub use mention::Person;

use crate::types::SenderId;
use tags::Piece;

/// Characters of one WhatsApp message. WhatsApp takes 65,536, but hides what is long behind "Read more"; a
/// message of this length is opened and read in one go.
pub const MESSAGE_LIMIT_CHARS: usize = 4000;
/// Characters of a file's caption, as WhatsApp's own clients allow; what is longer follows as text.
const CAPTION_LIMIT_CHARS: usize = 1024;

/// Endings of what WhatsApp plays as a voice note or a song, which has no caption there.
const PLAYED: [&str; 6] = ["ogg", "opus", "mp3", "m4a", "aac", "amr"];

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

/// The messages that an agent's answer becomes, in order, each text beginning with `prefix` (such as `Kai: `, or
/// empty); `people` can be mentioned in it.
///
/// None where the answer holds nothing for the chat. Each is at most [`MESSAGE_LIMIT_CHARS`] long.
pub fn parts(answer: &str, prefix: &str, people: &[Person]) -> Vec<Part> {
    let public = internal::public_part(answer);
    let mut parts = Vec::new();
    for piece in tags::pieces(&public) {
        match piece {
            Piece::Text(text) => parts.extend(texts(text, prefix, people)),
            Piece::File { path, caption } if is_played(path) => {
                parts.extend(texts(caption, prefix, people));
                parts.push(Part::File { path: path.to_owned(), caption: String::new() });
            }
            Piece::File { path, caption } => {
                // Who speaks is said once, at the top.
                let is_first = !parts.iter().any(|part| matches!(part, Part::Text { .. }));
                let before = if is_first { prefix } else { "" };
                let room = CAPTION_LIMIT_CHARS.saturating_sub(before.chars().count());
                let mut captions = split::split(&markdown::for_whatsapp(caption), room).into_iter();
                let caption = captions.next().map(|caption| format!("{before}{caption}")).unwrap_or_default();
                parts.push(Part::File { path: path.to_owned(), caption });
                let rest = captions.collect::<Vec<_>>().join("\n\n");
                parts.extend(chunks(&mention::with_mentions(&rest, people), prefix, people));
            }
            Piece::Reaction(emoji) => parts.push(Part::Reaction(emoji.to_owned())),
        }
    }
    parts
}

fn is_played(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| PLAYED.iter().any(|it| it.eq_ignore_ascii_case(ending)))
}

/// The messages that a text of the agent becomes.
fn texts(text: &str, prefix: &str, people: &[Person]) -> Vec<Part> {
    chunks(&markdown::for_whatsapp(&mention::with_mentions(text.trim_end(), people)), prefix, people)
}

fn chunks(text: &str, prefix: &str, people: &[Person]) -> Vec<Part> {
    let room = MESSAGE_LIMIT_CHARS.saturating_sub(prefix.chars().count());
    let part = |chunk| {
        let text = format!("{prefix}{chunk}");
        let mentions = mention::mentioned(&text, people);
        Part::Text { text, mentions }
    };
    split::split(text, room).into_iter().map(part).collect()
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
        parts(answer, prefix, &[]).into_iter().map(text).collect()
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
        let mentions = parts(&answer, "", &people).into_iter().map(|part| match part {
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
            parts("<file path=\"a.ogg\">@Ana listen</file>", "", &people)[0],
            Part::Text { text: "@1 listen".to_owned(), mentions: ana() }
        );
        let long = format!("<file path=\"a.png\">{}\n\n@Ana look</file>", "a".repeat(1_020));
        assert_eq!(parts(&long, "", &people)[1], Part::Text { text: "@1 look".to_owned(), mentions: ana() });
        assert_eq!(
            parts("<file path=\"a.png\">@Ana look</file>", "", &people),
            [Part::File { path: "a.png".to_owned(), caption: "@Ana look".to_owned() }]
        );
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(answer in any::<String>(), prefix in any::<String>()) {
            for part in parts(&answer, &prefix, &[]) {
                let says_who = matches!(part, Part::Text { text, .. } if text.starts_with(&prefix));
                prop_assert!(says_who);
            }
        }
    }
}
