//! How `*`, `_` and `~` open and close styles in writing without spaces.
//!
//! CommonMark decides it by spaces and punctuation: in `**标签：**正文` and `**Precio:**10 euros` the second `**`
//! stands between punctuation and a letter, and may only open. Chinese and Japanese have no space to put
//! there, and models forget it elsewhere. So the parser is shown a punctuation mark in the place of that
//! letter. CommonMark then lets the delimiter do either, whichever has a partner.

use std::borrow::Cow;

use super::verbatim::TextRanges;

/// `text` of the same length in bytes for the parser, by which delimiters beside letters open and close, too;
/// what is `verbatim` stays.
pub fn mark_style_boundaries<'t>(text: &'t str, verbatim: &TextRanges) -> Cow<'t, str> {
    let mut shown = Cow::Borrowed(text);
    let mut characters = text.char_indices().peekable();
    let mut before: Option<(usize, char)> = None;
    let mut is_escaped = false;
    while let Some((at, c)) = characters.next() {
        let is_run = matches!(c, '*' | '_' | '~') && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        if !is_run {
            before = Some((at, c));
            continue;
        }
        while characters.next_if(|(_, next)| *next == c).is_some() {}
        let after = characters.peek().copied();
        if let (Some(outer_before), Some(outer_after)) = (before, after)
            && !verbatim.contains_byte(at)
        {
            if may_close_style(c, outer_before.1, outer_after.1) {
                replace_with_punctuation(shown.to_mut(), outer_after);
            }
            if may_open_style(c, outer_before.1, outer_after.1) {
                replace_with_punctuation(shown.to_mut(), outer_before);
            }
        }
        before = Some((at, c));
    }
    shown
}

/// Whether a run of `delimiter` before the letter `after` may close what stands before it.
fn may_close_style(delimiter: char, before: char, after: char) -> bool {
    const OPENING: &[char] =
        &['(', '[', '{', '<', '¿', '¡', '“', '‘', '«', '「', '『', '（', '《', '〈', '【', '〔', '［', '｛'];
    after.is_alphanumeric()
        && (is_punctuation_or_symbol(before) && !OPENING.contains(&before)
            || delimiter == '_' && is_unspaced_script(before, after))
}

/// Whether a run of `delimiter` behind the letter `before` may open what stands after it.
fn may_open_style(delimiter: char, before: char, after: char) -> bool {
    const CLOSING: &[char] = &[
        ')', ']', '}', '>', '.', ',', ':', ';', '!', '?', '”', '’', '»', '」', '』', '）', '》', '〉', '】',
        '〕', '］', '｝', '。', '，', '、', '：', '；', '！', '？',
    ];
    before.is_alphanumeric()
        && (is_punctuation_or_symbol(after) && !CLOSING.contains(&after)
            || delimiter == '_' && is_unspaced_script(before, after))
}

/// Neither part of a word nor white space: punctuation, a symbol.
fn is_punctuation_or_symbol(c: char) -> bool {
    !c.is_alphanumeric() && !c.is_whitespace()
}

/// Whether one of two neighbours is a letter of a script without upper and lower case, of which most are
/// written without spaces: `_` within a word is no name there.
fn is_unspaced_script(before: char, after: char) -> bool {
    [before, after].into_iter().any(is_uncased_letter) && before.is_alphanumeric() && after.is_alphanumeric()
}

/// A letter of a script without upper and lower case.
pub fn is_uncased_letter(c: char) -> bool {
    c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase()
}

/// Puts punctuation of the same length in the place of a character.
fn replace_with_punctuation(text: &mut String, (at, c): (usize, char)) {
    let mark = match c.len_utf8() {
        1 => ",",
        2 => "¡",
        3 => "、",
        // A mark of Duployan shorthand: there is hardly any punctuation among what takes four bytes.
        _ => "\u{1bc9f}",
    };
    // Another delimiter may have been there before.
    if text.is_char_boundary(at) && text[at..].starts_with(c) {
        text.replace_range(at..at + c.len_utf8(), mark);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::verbatim::find_verbatim_ranges;

    #[test]
    fn a_letter_beside_a_delimiter_becomes_a_boundary() {
        for (text, expected) in [
            ("**标签：**正文", "**标签：**、文"),
            ("含**「重点」**内容", "、**「重点」**、容"),
            ("**Precio:**10", "**Precio:**,0"),
            ("含__重点__内容", "、__、、__、容"),
            ("é**\"a\"**𝒳", "¡**\"a\"**\u{1bc9f}"),
            // CommonMark does these, or no style is meant
            ("a **b** c", "a **b** c"),
            ("这**很**好", "这**很**好"),
            ("snake_case_name", "snake_case_name"),
            ("f(**kwargs)", "f(**kwargs)"),
            ("a\\**\"b\"", "a\\**\"b\""),
            ("`a**\"b\"**c` https://a.test/a**(b", "`a**\"b\"**c` https://a.test/a**(b"),
        ] {
            assert_eq!(mark_style_boundaries(text, &find_verbatim_ranges(text)), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_place_stays_where_it_is(text in r#"(\*|\*\*|_|~~|`|a|1|é|很|𝒳|：|「|」|"|\(|\)|\\| |\n)*"#) {
            let shown = mark_style_boundaries(&text, &TextRanges::default());
            prop_assert!(text.char_indices().map(|(at, _)| at).eq(shown.char_indices().map(|(at, _)| at)));
        }
    }
}
