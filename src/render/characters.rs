//! What of a text is seen: line ends of one kind, and which characters show nothing.

use std::borrow::Cow;

/// `text` with every line end as `\n`, and without the control characters that no chat shows.
///
/// Line ends are those of the Unicode Standard (section 5.8): CR, LF, CRLF, NEL, VT, FF, LS and PS. The code
/// that reads the text after this need not know that there are several.
pub fn normalize_line_ends(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_odd_line_end(c) || is_hidden_control(c)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            // The line ends with the LF that follows.
            '\r' if characters.peek() == Some(&'\n') => {}
            c if is_odd_line_end(c) => plain.push('\n'),
            c if is_hidden_control(c) => {}
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

fn is_odd_line_end(c: char) -> bool {
    matches!(c, '\r' | '\u{0b}' | '\u{0c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_hidden_control(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

/// Whether a person who is shown `text` sees anything at all.
pub fn has_visible_text(text: &str) -> bool {
    text.chars().any(|c| !is_invisible_character(c))
}

/// Whether `c` leaves no mark where it stands: white space, what the Unicode Character Database calls
/// `Default_Ignorable_Code_Point` (joiners, direction marks, variation selectors, fillers, tags), the
/// annotation controls, and the Braille pattern without dots.
pub fn is_invisible_character(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_line_end_is_one() {
        for (text, expected) in [
            ("a\nb", "a\nb"),
            ("a\r\nb\rc\r\r\nd\n\re", "a\nb\nc\n\nd\n\ne"),
            ("a\u{2028}b\u{2029}c\u{85}d\u{0b}e\u{0c}f", "a\nb\nc\nd\ne\nf"),
            ("\0a\u{1b}[2Jb\u{7}\tc\u{9b}d\u{7f}", "a[2Jb\tcd"),
            ("\r", "\n"),
        ] {
            assert_eq!(normalize_line_ends(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_nobody_sees_is_nothing() {
        for unseen in [
            "",
            " \n\t",
            "\u{200b}",
            "\u{2060}\u{feff}",
            "\u{200e}\u{200f}\u{202e}\u{2068}",
            "\u{fe0f}",
            "\u{e0100}",
            "\u{2800}\u{2800}",
            "\u{3164}",
            "\u{115f}\u{1160}\u{ffa0}",
            "\u{ad}\u{34f}\u{180e}",
            "\u{a0}\u{3000}",
            "\u{e0041}\u{e007f}",
            "\0\u{1b}",
            "\u{2064}\u{206a}",
        ] {
            assert!(!has_visible_text(unseen), "{unseen:?}");
        }
        for seen in ["a", ".", "\u{200b}a\u{200b}", "👍", "❤\u{fe0f}", "\u{2801}", "가", "ㅤa", "\u{301}", "*"]
        {
            assert!(has_visible_text(seen), "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_seen_is_lost(text in any::<String>()) {
            let seen = |text: &str| text.chars().filter(|c| !is_invisible_character(*c)).collect::<String>();
            prop_assert_eq!(seen(&normalize_line_ends(&text)), seen(&text));
        }
    }
}
