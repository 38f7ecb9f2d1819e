//! What the agent notes for itself, between `<internal>` and `</internal>`, never leaves the host.
//!
//! Where it is unclear where a note ends, more is kept back, never less.

/// The tags' word.
const NAME: &str = "internal";

#[derive(Clone, Copy)]
enum Tag {
    Begin,
    End,
}

/// `text` without internal notes and without white space around it.
pub fn public_part(text: &str) -> String {
    without_notes(text, 0).0
}

/// The same for a text that goes on where another one has left so many notes open; with how many it leaves open.
///
/// Tags are read in any case and may nest. A note without end goes to the end of the text; an end without a
/// beginning is dropped. What is left holds no tag, not even one that the removal of another put together.
pub fn without_notes(text: &str, open: usize) -> (String, usize) {
    let (mut text, mut open) = outside_tags(text, open);
    loop {
        let (public, put_together) = outside_tags(&text, 0);
        open = open.max(put_together);
        if public == text {
            return (public.trim().to_owned(), open);
        }
        text = public;
    }
}

/// What stands outside every pair of tags, read once from left to right, where so many notes are `open` at its
/// beginning; with how many are at its end.
fn outside_tags(text: &str, open: usize) -> (String, usize) {
    let mut outside = String::with_capacity(text.len());
    let mut depth = open;
    let mut read = 0;
    for (at, _) in text.match_indices('<') {
        let Some((tag, length)) = tag(&text[at..]) else { continue };
        if depth == 0 {
            outside.push_str(&text[read..at]);
        }
        depth = match tag {
            Tag::Begin => depth + 1,
            Tag::End => depth.saturating_sub(1),
        };
        read = at + length;
    }
    if depth == 0 {
        outside.push_str(&text[read..]);
    }
    (outside, depth)
}

/// The tag at the beginning of `text` and its length in bytes.
///
/// Attributes are allowed. A tag that is never closed by `>` ends after its name, so that a note cut short in the
/// middle of its tag is one too.
fn tag(text: &str) -> Option<(Tag, usize)> {
    let (tag, bracket) = if text.starts_with("</") { (Tag::End, "</") } else { (Tag::Begin, "<") };
    let named = text.get(bracket.len()..bracket.len() + NAME.len())?;
    let rest = &text[bracket.len() + NAME.len()..];
    let goes_on = rest.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
    if goes_on || !named.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let closing = rest.find(['<', '>']).filter(|&at| rest[at..].starts_with('>'));
    Some((tag, text.len() - rest.len() + closing.map_or(0, |at| at + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn notes_are_taken_out() {
        for (text, expected) in [
            ("hello world", "hello world"),
            ("", ""),
            ("  hello \n", "hello"),
            ("hello <internal>secret</internal> world", "hello  world"),
            ("hello <internal>\nsecret\nstuff\n</internal> world", "hello  world"),
            ("<internal>a</internal>hello<internal>b</internal>", "hello"),
            ("<internal>only this</internal>", ""),
            ("<internal>thinking</internal>The answer is 42", "The answer is 42"),
            // any case, white space and attributes
            ("<INTERNAL>secret</Internal>42", "42"),
            ("<internal >secret</internal\n>42", "42"),
            ("<internal kind=\"plan\">secret</internal>42", "42"),
            // nested
            ("a<internal>x<internal>y</internal>z</internal>b", "ab"),
            ("a<internal><internal>secret</internal>also secret", "a"),
            // never closed
            ("hello <internal>unclosed secret", "hello"),
            ("hello <internal", "hello"),
            ("hello <internal \nsecret", "hello"),
            ("a<internal>secret</internal", "a"),
            ("a<internal>secret</intern", "a"),
            // never opened
            ("hello</internal> world", "hello world"),
            ("</internal>\nHello", "Hello"),
            ("</internal\nHello", "Hello"),
            // put together by taking another out
            ("<inter<internal>x</internal>nal>secret", ""),
            ("<<internal></internal>/internal>hello", "hello"),
            // not the tag
            (
                "the <internals> of <internal-note> and <internal_x>",
                "the <internals> of <internal-note> and <internal_x>",
            ),
            ("internal > external < internal", "internal > external < internal"),
            ("a < b > c <b>bold</b>", "a < b > c <b>bold</b>"),
            ("<İnternal>", "<İnternal>"),
        ] {
            assert_eq!(public_part(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_note_that_was_left_open_goes_on() {
        for (before, after, expected) in [
            ("<internal>plan: be", " careful</internal> Hello", "Hello"),
            ("It is 42. <internal>they", "will ask again", ""),
            ("<internal><internal>a", "b</internal>c</internal>d", "d"),
            ("<internal", "secret</internal>d", "d"),
            ("<inter<internal>x</internal>nal>a", "b</internal>c", "c"),
            ("<internal>a</internal>b", "c", "c"),
        ] {
            let (_, open) = without_notes(before, 0);
            assert_eq!(without_notes(after, open).0, expected, "{before:?} then {after:?}");
        }
    }

    /// Text that is public or secret by where it stands among the tags.
    #[derive(Clone, Debug)]
    enum Piece {
        Begin(&'static str),
        End(&'static str),
        Word,
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let begin = prop::sample::select(vec!["<internal>", "<INTERNAL>", "<Internal x=\"1\">"]);
        let end = prop::sample::select(vec!["</internal>", "</INTERNAL >"]);
        prop::collection::vec(
            prop_oneof![begin.prop_map(Piece::Begin), end.prop_map(Piece::End), Just(Piece::Word)],
            0..40,
        )
    }

    proptest! {
        #[test]
        fn nothing_between_the_tags_survives(pieces in pieces()) {
            let (mut text, mut expected, mut depth) = (String::new(), String::new(), 0_usize);
            for piece in pieces {
                match piece {
                    Piece::Begin(tag) => { text += tag; depth += 1; }
                    Piece::End(tag) => { text += tag; depth = depth.saturating_sub(1); }
                    Piece::Word if depth == 0 => { text += "(said)"; expected += "(said)"; }
                    Piece::Word => text += "(secret)",
                }
            }
            prop_assert_eq!(public_part(&text), expected);
        }

        #[test]
        fn a_note_hides_whatever_is_in_it(before in "[^<]*", note in any::<String>(), after in "[^<>]*") {
            let note = note.replace('<', "[");
            let shown = public_part(&format!("{before}<internal>{note}</internal>{after}"));
            let expected = before + &after;
            prop_assert_eq!(shown, expected.trim());
        }

        #[test]
        fn no_tag_is_left(text in "(<|</|>|inter|nal|internal|<internal>|</internal>| |é)*") {
            let shown = public_part(&text);
            prop_assert!(shown.match_indices('<').all(|(at, _)| tag(&shown[at..]).is_none()), "{}", shown);
        }

        #[test]
        fn text_without_brackets_is_only_trimmed(text in "[^<]*") {
            prop_assert_eq!(public_part(&text), text.trim());
        }

        #[test]
        fn any_text_is_bearable(text in any::<String>()) {
            public_part(&text);
        }
    }
}
