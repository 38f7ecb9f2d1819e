//! Letters, words, addresses and code in what people write: the one rule for all code that looks for a name
//! in a text.
//!
//! Pure. Never knows whose name is looked for.

use std::ops::Range;

use anyhow::{Result, bail};

/// An `@` that may begin a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtSign {
    /// The place of the `@`.
    pub at: usize,
    /// Where the name begins: behind the `@`, and behind marks that only turn the direction.
    pub name: usize,
}

/// The places where a name may begin, in order: each `@` that is not the end of a word and not in an address.
pub fn find_at_signs(text: &str) -> Vec<AtSign> {
    let addresses = find_addresses(text);
    let mut signs = Vec::new();
    for (at, sign) in text.match_indices('@') {
        if ends_with_word(&text[..at]) || is_in_ranges(&addresses, at) {
            continue;
        }
        let behind = &text[at + sign.len()..];
        let name = text.len() - behind.trim_start_matches(is_bidi_control).len();
        signs.push(AtSign { at, name });
    }
    signs
}

/// The places where `text` calls somebody of this name, with or without its `@`: each `@<name>` as a word, in
/// any case.
///
/// The one rule: the `@` is one that may begin a name (no letter before it, in no address), it is not in
/// code, the name follows it letter by letter, and no letter stands directly after. Lookalikes of other
/// scripts and invisible characters inside the name are other letters, so they do not match. An assistant
/// without a name is never called.
pub fn find_calls_by_name(text: &str, name: &str) -> Vec<usize> {
    let name = name.trim();
    let name = name.strip_prefix('@').unwrap_or(name);
    if name.is_empty() {
        return Vec::new();
    }
    let code = find_whatsapp_code(text);
    let calls = find_at_signs(text).into_iter().filter(|sign| {
        let after = strip_name(&text[sign.name..], name);
        !is_in_ranges(&code, sign.at) && after.is_some_and(|after| !begins_with_word(after))
    });
    calls.map(|sign| sign.at).collect()
}

/// What follows `name` at the beginning of `text`, if it is there.
fn strip_name<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = text.chars();
    let is_there =
        name.chars().all(|expected| rest.next().is_some_and(|found| is_same_letter(found, expected)));
    is_there.then_some(rest.as_str())
}

/// Equal but for case. ASCII letters equal only ASCII ones: Unicode would fold the Kelvin sign to `k`.
fn is_same_letter(a: char, b: char) -> bool {
    if a.is_ascii() || b.is_ascii() {
        a.eq_ignore_ascii_case(&b)
    } else {
        a.to_lowercase().eq(b.to_lowercase())
    }
}

/// A letter or digit of any script, `_`, or what belongs to one: combining marks and zero-width characters. A
/// mark that only turns the direction is not among these: it ends a word.
pub fn is_word_character(c: char) -> bool {
    !is_bidi_control(c) && (c.is_alphanumeric() || c == '_' || is_mark_or_invisible(c))
}

/// Whether a text begins with a word, or in one. Underscores in front of anything else are those of a style.
pub fn begins_with_word(text: &str) -> bool {
    text.trim_start_matches('_').starts_with(is_word_character)
}

/// Whether a text ends within a word. The marks that end an emoji belong to it, and an emoji is no word;
/// neither are underscores behind anything else, which begin a style.
fn ends_with_word(text: &str) -> bool {
    // The variation selectors, the frame of a keycap, the end of a flag's tags.
    let ends_an_emoji = |c| matches!(c, '\u{fe0e}' | '\u{fe0f}' | '\u{20e3}' | '\u{e007f}');
    let last = text.trim_end_matches('_').chars().next_back();
    last.is_some_and(|last| is_word_character(last) && !ends_an_emoji(last))
}

/// `escape_debug` writes as `\u{…}` what extends the character before it and what nobody could see.
fn is_mark_or_invisible(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && c.escape_debug().len() > r"\n".len()
}

/// Marks that only turn the direction of what follows or stands between them (Unicode's `Bidi_Control`).
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name, a number, an id or a code as it was meant by the person who typed or pasted it: without invisible
/// characters, with the spaces, hyphens and digits of a keyboard in the place of their like.
pub fn normalize_typed_text(text: &str) -> String {
    let seen = text.chars().filter(|c| c.is_whitespace() || !(c.is_control() || is_zero_width(*c)));
    let plain = seen.map(|c| match c {
        c if c.is_whitespace() => ' ',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        // The full-width forms of a Chinese or Japanese keyboard.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        c => c,
    });
    plain.collect::<String>().trim().to_owned()
}

/// Characters that take no room: marks of direction, joiners, selectors, tags, a hyphen that is there for
/// line ends only.
fn is_zero_width(c: char) -> bool {
    is_bidi_control(c)
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether the byte at `at` is in one of these, which stand in their order, each behind the one before.
pub fn is_in_ranges(ranges: &[Range<usize>], at: usize) -> bool {
    let begun = ranges.partition_point(|range| range.start <= at);
    begun.checked_sub(1).is_some_and(|last| ranges[last].contains(&at))
}

/// The addresses in a text, in order: of the web, with or without their scheme (`https://…`, `www.…`,
/// `t.me/…`), of mail, and of networks in which `@ana@example.org` or `@ana.example.org` names a person.
pub fn find_addresses(text: &str) -> Vec<Range<usize>> {
    let mut addresses = Vec::new();
    let mut start = 0;
    for piece in text.split_inclusive(is_address_end) {
        let word = piece.trim_end_matches(is_address_end);
        if let Some(address) = find_web_address(word).or_else(|| find_person_address(word)) {
            addresses.push(start + address.start..start + address.end);
        }
        start += piece.len();
    }
    addresses
}

/// What no address has in it. The signs of Chinese and Japanese writing are among them, which puts no spaces.
fn is_address_end(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || is_bidi_control(c)
        || matches!(c, '<' | '>' | '"' | '`' | '“' | '”' | '„' | '«' | '»' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}')
}

/// The place of an address of the web in a word, if there is one: it goes to the end, or up to a bracket that
/// it does not open.
fn find_web_address(word: &str) -> Option<Range<usize>> {
    let begin = find_url_scheme(word).or_else(|| find_bare_host(word))?;
    let mut open = 0_i32;
    for (at, c) in word[begin..].char_indices() {
        match c {
            '(' | '[' => open += 1,
            ')' | ']' if open == 0 => return Some(begin..begin + at),
            ')' | ']' => open -= 1,
            _ => {}
        }
    }
    Some(begin..word.len())
}

/// The place where `https://` or another scheme begins, or one that needs no `//`.
fn find_url_scheme(word: &str) -> Option<usize> {
    if let Some(end) = word.find("://") {
        let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let name = word[..end].len() - word[..end].trim_end_matches(is_of_scheme).len();
        return (name > 0).then_some(end - name);
    }
    let lower = word.to_ascii_lowercase();
    ["mailto:", "www."].iter().find_map(|beginning| {
        let begin = lower.find(beginning)?;
        (!ends_with_word(&word[..begin])).then_some(begin)
    })
}

/// The place where `example.org/…` begins: a name with a dot in it and a path behind it.
fn find_bare_host(word: &str) -> Option<usize> {
    let end = word.find(['/', '?', '#'])?;
    let host = word[..end].rsplit(['(', '[', '{', '\'', ',', ';', '=']).next()?;
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    is_dns_name(name, 2).then(|| end - host.len())
}

/// The place of `ana@example.org`, `@ana@example.org` or `@ana.example.org` in a word.
fn find_person_address(word: &str) -> Option<Range<usize>> {
    let is_local = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-');
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    word.match_indices('@').find_map(|(at, sign)| {
        let behind = &word[at + sign.len()..];
        let host = &behind[..behind.find(|c| !is_of_host(c)).unwrap_or(behind.len())];
        let end = at + sign.len() + host.len();
        let host = host.trim_end_matches('.');
        let local = word[..at].len() - word[..at].trim_end_matches(is_local).len();
        if local > 0 && is_dns_name(host, 2) {
            let begin = at - local;
            return Some(if word[..begin].ends_with('@') { begin - 1 } else { begin }..end);
        }
        // One full stop without a space behind it is as common as such a name; two of them are rarer.
        (local == 0 && is_dns_name(host, 3)).then_some(at..end)
    })
}

/// Whether this is a host's name of so many labels or more, the last of them a top-level domain of letters.
fn is_dns_name(name: &str, labels_min: usize) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let is_label =
        |label: &&str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let last = labels.last().copied().unwrap_or_default();
    labels.len() >= labels_min
        && labels.iter().all(is_label)
        && last.len() >= 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Characters of code that three backticks enclose, as WhatsApp shows it.
const FENCE: usize = 3;

/// What stands between backticks, as WhatsApp shows code: within a line, or between fences of three over
/// many. One that is never closed encloses nothing.
pub fn find_whatsapp_code(text: &str) -> Vec<Range<usize>> {
    let mut code = Vec::new();
    let mut from = 0;
    while let Some(open) = text[from..].find('`').map(|at| from + at) {
        let ticks = count_leading_ticks(&text[open..]);
        let inside = open + ticks;
        let closing = if ticks >= FENCE {
            find_closing_fence(text, inside)
        } else {
            find_closing_ticks(text, inside, ticks)
        };
        from = match closing {
            Some(end) => {
                code.push(open..end);
                end
            }
            None => inside,
        };
    }
    code
}

/// How many backticks a text begins with.
fn count_leading_ticks(text: &str) -> usize {
    text.len() - text.trim_start_matches('`').len()
}

fn find_closing_fence(text: &str, inside: usize) -> Option<usize> {
    let close = inside + text[inside..].find("```")?;
    Some(close + count_leading_ticks(&text[close..]))
}

fn find_closing_ticks(text: &str, inside: usize, ticks: usize) -> Option<usize> {
    let line = inside + text[inside..].find('\n').unwrap_or(text.len() - inside);
    let mut from = inside;
    while let Some(close) = text[from..line].find('`').map(|at| from + at) {
        let found = count_leading_ticks(&text[close..]);
        if found == ticks {
            return Some(close + found);
        }
        from = close + found;
    }
    None
}

/// Longest word that calls Kai, in characters: people type it into a phone.
const TRIGGER_MAX_CHARS: usize = 60;

/// A word that is to call Kai, typed with or without its "@".
///
/// # Errors
/// Says what is wrong with it, in words for the person that typed it.
pub fn parse_trigger_word(typed: &str) -> Result<String> {
    // Refused, and not left out like what comes along when a word is pasted: nobody copies these by chance.
    if typed.chars().any(char::is_control) {
        bail!("The trigger has a control character in it; type the word anew, such as Kai");
    }
    let typed = normalize_typed_text(typed);
    let word = typed.trim_start_matches('@').trim();
    if word.is_empty() {
        bail!("The trigger needs a word, such as Kai");
    }
    if word.chars().count() > TRIGGER_MAX_CHARS {
        bail!(
            "The trigger is longer than {TRIGGER_MAX_CHARS} characters; choose a shorter word, such as Kai"
        );
    }
    Ok(word.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(text: &str) -> Vec<&str> {
        find_addresses(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn addresses_are_found_whole() {
        for (text, expected) in [
            ("see https://medium.com/@kai/post-1, please", vec!["https://medium.com/@kai/post-1,"]),
            ("(https://a.example/b_(c)/@kai)@Kai", vec!["https://a.example/b_(c)/@kai"]),
            ("[@Ana](https://a.example/@ana) and", vec!["https://a.example/@ana"]),
            ("<https://a.example/@ana>", vec!["https://a.example/@ana"]),
            ("看https://a.example/@kai。@Kai", vec!["https://a.example/@kai"]),
            ("ssh://git@kai.example/x HTTP://A.example", vec!["ssh://git@kai.example/x", "HTTP://A.example"]),
            ("www.tiktok.com/@carlos WWW.x.com", vec!["www.tiktok.com/@carlos", "WWW.x.com"]),
            ("t.me/@kai youtube.com:443/@kai", vec!["t.me/@kai", "youtube.com:443/@kai"]),
            ("example.org?to=@kai", vec!["example.org?to=@kai"]),
            ("foo@kai.example, foo.@kai.example", vec!["foo@kai.example", "foo.@kai.example"]),
            ("mailto:foo-@kai", vec!["mailto:foo-@kai"]),
            ("@kai@mastodon.social", vec!["@kai@mastodon.social"]),
            ("@kai.bsky.social!", vec!["@kai.bsky.social"]),
            ("josé+x@kai.example.", vec!["josé+x@kai.example."]),
            // none
            ("hola.@Kai @Kai.Mañana @Kai.ok Ana/@Kai y/o @Kai@Ana", vec![]),
            ("1/2 @Kai 3.5/@Kai ://@Kai", vec![]),
            ("a.b. www @Kai", vec![]),
        ] {
            assert_eq!(addresses(text), expected, "{text:?}");
        }
    }

    #[test]
    fn backticks_enclose_code_as_whatsapp_shows_it() {
        for (text, expected) in [
            ("a `b` c", vec!["`b`"]),
            ("a ``b ` c`` d", vec!["``b ` c``"]),
            ("a ` b\nc ` d", vec![]),
            ("```a\nb``` `c`", vec!["```a\nb```", "`c`"]),
            ("```a `b`", vec!["`b`"]),
            ("`", vec![]),
        ] {
            let found: Vec<&str> = find_whatsapp_code(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn an_emoji_is_no_word_whatever_marks_it_ends_with() {
        for before in ["👍", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "👍🏽", "👩‍🚀", "\u{200f}", "x\u{200f}", "_", " __", "👍_"]
        {
            assert!(!ends_with_word(before), "{before:?}");
        }
        for before in ["x", "é", "e\u{301}", "你", "٣", "x_", "\u{200b}", "x\u{200d}"] {
            assert!(ends_with_word(before), "{before:?}");
        }
    }

    #[test]
    fn what_is_pasted_is_taken_as_it_is_seen() {
        for (pasted, typed) in [
            ("\u{202a}+34 600 111 222\u{202c}", "+34 600 111 222"),
            ("\u{2068}+34\u{a0}600\u{202f}111\u{2009}222\u{2069}", "+34 600 111 222"),
            ("+34 600\u{2011}111\u{2013}222", "+34 600-111-222"),
            ("\u{feff}34600111222@s.whatsapp.net\u{200b}\r\n", "34600111222@s.whatsapp.net"),
            ("1203630\u{ad}41234567890@g.us\t", "120363041234567890@g.us"),
            ("＋３４６００", "+34600"),
            ("fami\u{200d}ly\u{fe0f}", "family"),
            ("Señor Ñandú", "Señor Ñandú"),
        ] {
            assert_eq!(normalize_typed_text(pasted), typed, "{pasted:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_bearable(text in any::<String>()) {
            for range in find_addresses(&text).into_iter().chain(find_whatsapp_code(&text)) {
                prop_assert!(text.get(range).is_some_and(|found| !found.is_empty()));
            }
            for sign in find_at_signs(&text) {
                prop_assert!(text[sign.at..].starts_with('@') && text.is_char_boundary(sign.name));
            }
        }

        #[test]
        fn nothing_in_an_address_is_a_sign(before in "[ a-z.(]{0,4}", path in "[a-z@/?=&.-]{0,20}") {
            let text = format!("{before}https://example.org/{path}");
            prop_assert_eq!(find_at_signs(&text), []);
        }
    }
}
