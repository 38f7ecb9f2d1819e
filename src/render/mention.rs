//! `@Ana` in an answer becomes a mention that WhatsApp shows and tells Ana of: `@<her number>` in the text.

use std::collections::HashSet;

use super::verbatim::find_verbatim_ranges;
use crate::types::SenderId;
use crate::writing::{begins_with_word, find_at_signs};

pub use crate::types::MentionablePerson;

impl MentionablePerson {
    /// What a mention is written with: the digits before the `@` of a JID.
    fn jid_digits(&self) -> Option<&str> {
        let (digits, _) = self.id.as_str().split_once('@')?;
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
    }
}

/// `text` with each `@<name>` outside of code and addresses written as WhatsApp wants it. Of names that begin
/// alike the longest counts; a name within a longer word is no mention.
pub fn insert_mentions(text: &str, people: &[MentionablePerson]) -> String {
    let verbatim = find_verbatim_ranges(text);
    let mut written = String::with_capacity(text.len());
    let mut read = 0;
    for sign in find_at_signs(text) {
        if sign.at < read || verbatim.contains_byte(sign.at) {
            continue;
        }
        let Some((name, digits)) = find_longest_name(&text[sign.name..], people) else { continue };
        written.push_str(&text[read..=sign.at]);
        written.push_str(digits);
        read = sign.name + name.len();
    }
    written.push_str(&text[read..]);
    written
}

/// Who is mentioned in a text that [`insert_mentions`] has written, in the order of `people`.
pub fn find_mentioned_ids(text: &str, people: &[MentionablePerson]) -> Vec<SenderId> {
    let verbatim = find_verbatim_ranges(text);
    let signs = find_at_signs(text).into_iter().filter(|sign| !verbatim.contains_byte(sign.at));
    let digits = signs.filter_map(|sign| {
        let name = &text[sign.name..];
        let after = name.trim_start_matches(|c: char| c.is_ascii_digit());
        (!begins_with_word(after)).then(|| &name[..name.len() - after.len()])
    });
    let digits: HashSet<&str> = digits.collect();
    let is_in = |own: &str| digits.contains(own);
    let mut ids: Vec<SenderId> = Vec::new();
    for person in people {
        if person.jid_digits().is_some_and(is_in) && !ids.contains(&person.id) {
            ids.push(person.id.clone());
        }
    }
    ids
}

/// The longest name that `text` begins with, and how its bearer is mentioned.
fn find_longest_name<'p>(text: &str, people: &'p [MentionablePerson]) -> Option<(&'p str, &'p str)> {
    let mut found: Option<(&str, &str)> = None;
    for person in people {
        let Some(digits) = person.jid_digits() else { continue };
        let Some(rest) = text.strip_prefix(person.name.as_str()) else { continue };
        let is_longer = found.is_none_or(|(name, _)| person.name.len() > name.len());
        if !person.name.is_empty() && is_longer && !begins_with_word(rest) {
            found = Some((&person.name, digits));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn people() -> Vec<MentionablePerson> {
        [
            ("Ana", "34600000001@s.whatsapp.net"),
            ("Ana María", "100000000000003@lid"),
            ("J.", "34600000002@s.whatsapp.net"),
            ("Console", "console:you"),
            ("", "34600000003@s.whatsapp.net"),
        ]
        .map(|(name, id)| MentionablePerson { name: name.to_owned(), id: SenderId::new(id) })
        .into()
    }

    #[test]
    fn names_of_the_chat_become_mentions() {
        for (text, expected) in [
            ("@Ana, it is your turn", "@34600000001, it is your turn"),
            ("ask @Ana María or (@Ana)", "ask @100000000000003 or (@34600000001)"),
            ("**@Ana**", "**@34600000001**"),
            ("@J. knows", "@34600000002 knows"),
            // nobody's name
            ("@Anatole @ana @Bob @ Ana Ana@ @", "@Anatole @ana @Bob @ Ana Ana@ @"),
            ("kai@Ana.test", "kai@Ana.test"),
            ("@Console", "@Console"),
            ("@Ana_x x_@Ana", "@Ana_x x_@Ana"),
            // within styles
            ("_gracias, @Ana_", "_gracias, @34600000001_"),
            (
                "__@Ana__ *@Ana* ~~@Ana~~ ***@Ana María***",
                "__@34600000001__ *@34600000001* ~~@34600000001~~ ***@100000000000003***",
            ),
            ("> @Ana\n- @Ana\n# @Ana", "> @34600000001\n- @34600000001\n# @34600000001"),
            ("[@Ana](https://a.test/@Ana)", "[@34600000001](https://a.test/@Ana)"),
            // addresses
            ("https://www.tiktok.com/@Ana/video/1", "https://www.tiktok.com/@Ana/video/1"),
            ("see <https://a.test/@Ana>, medium.com/@Ana/x", "see <https://a.test/@Ana>, medium.com/@Ana/x"),
            ("t.me/@Ana and @Ana", "t.me/@Ana and @34600000001"),
            ("@Ana@example.org", "@Ana@example.org"),
            ("❤\u{fe0f}@Ana", "❤\u{fe0f}@34600000001"),
            ("@\u{2068}Ana\u{2069}, hello", "@34600000001\u{2069}, hello"),
            ("@Ana\u{301}", "@Ana\u{301}"),
            // code
            ("`@Ana` and @Ana", "`@Ana` and @34600000001"),
            ("```\n@Ana\n```", "```\n@Ana\n```"),
        ] {
            assert_eq!(insert_mentions(text, &people()), expected, "{text:?}");
        }
    }

    #[test]
    fn who_is_mentioned_is_told_with_the_text() {
        let ids = |text: &str| -> Vec<String> {
            find_mentioned_ids(text, &people()).iter().map(|id| id.as_str().to_owned()).collect()
        };
        assert_eq!(
            ids("@34600000001 and @100000000000003"),
            ["34600000001@s.whatsapp.net", "100000000000003@lid"]
        );
        for text in ["_gracias, @34600000001_", "*@34600000001*", "~(@34600000001)~", "> *_@34600000001_*"] {
            assert_eq!(ids(text), ["34600000001@s.whatsapp.net"], "{text:?}");
        }
        for nobody in [
            "@346000000012, 34600000001, @Ana",
            "https://x.example/@34600000001",
            "a@34600000001",
            "`@34600000001`",
            "```\n@34600000001\n```",
        ] {
            assert_eq!(ids(nobody), [""; 0], "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_name_is_bearable(text in any::<String>(), name in any::<String>()) {
            let people = [MentionablePerson { name, id: SenderId::new("1@lid") }];
            find_mentioned_ids(&insert_mentions(&text, &people), &people);
        }

        #[test]
        fn a_text_without_the_sign_stays(text in "[^@]*") {
            prop_assert_eq!(insert_mentions(&text, &people()), text);
        }
    }
}
