//! Text on its way: messages into prompts for the agent, answers into messages for the chat.
//!
//! Owns what either of them looks like. Never sends anything.

mod internal;
mod markdown;
pub mod prompt;
mod split;

/// Characters of one WhatsApp message. WhatsApp takes 65,536, but hides what is long behind "Read more"; a
/// message of this length is opened and read in one go.
pub const MESSAGE_LIMIT_CHARS: usize = 4000;

/// The messages that an agent's answer becomes, in order, each beginning with `prefix` (such as `Kai: `, or empty).
///
/// None where the answer holds nothing for the chat. Each is at most [`MESSAGE_LIMIT_CHARS`] long.
pub fn replies(answer: &str, prefix: &str) -> Vec<String> {
    let text = markdown::for_whatsapp(&internal::public_part(answer));
    let room = MESSAGE_LIMIT_CHARS.saturating_sub(prefix.chars().count());
    split::split(&text, room).into_iter().map(|chunk| format!("{prefix}{chunk}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        ] {
            assert_eq!(replies(answer, prefix), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_long_answer_leaves_room_for_the_prefix() {
        let paragraph = "word ".repeat(500).trim().to_owned();
        let replies = replies(&[paragraph.as_str(); 3].join("\n\n"), "Kai: ");
        assert_eq!(replies, vec![format!("Kai: {paragraph}"); 3]);

        let replies = super::replies(&"a".repeat(2 * MESSAGE_LIMIT_CHARS), "Kai: ");
        let lengths: Vec<usize> = replies.iter().map(|reply| reply.chars().count()).collect();
        assert_eq!(lengths, [MESSAGE_LIMIT_CHARS, MESSAGE_LIMIT_CHARS, 15]);
    }

    proptest! {
        #[test]
        fn any_answer_is_bearable(answer in any::<String>(), prefix in any::<String>()) {
            for reply in replies(&answer, &prefix) {
                prop_assert!(reply.starts_with(&prefix));
            }
        }
    }
}
