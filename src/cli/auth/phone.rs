//! Phone numbers as people type them, and as WhatsApp's ids hold them. Pure.

use anyhow::{Result, bail};

use crate::writing::normalize_typed_text;

/// Fewer digits hold no country's code, more no phone number has: ITU-T E.164.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// The digits of a number with its country's code.
///
/// # Errors
/// Says what is missing or too much.
pub fn parse_phone_number(typed: &str) -> Result<String> {
    let typed = normalize_typed_text(typed);
    let number = typed.strip_prefix('+').unwrap_or(&typed);
    let digits: String = number.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        bail!("{typed:?} is not a phone number; it looks like +34600111222");
    }
    if digits.starts_with('0') {
        bail!(
            "{typed:?} begins with 0, which is dialled within a country only; write the country's code in its place, \
             as in +34600111222"
        );
    }
    if !typed.starts_with('+') {
        bail!("{typed:?} does not begin with \"+\" and the country's code, as in +34600111222");
    }
    if !DIGITS.contains(&digits.len()) {
        bail!(
            "{typed:?} has {} digits; a number with its country's code has {} to {}, as in +34600111222",
            digits.len(),
            DIGITS.start(),
            DIGITS.end()
        );
    }
    Ok(digits)
}

/// The number of a WhatsApp id such as `34600111222@s.whatsapp.net`, as people write it.
pub fn phone_number_from_id(id: &str) -> String {
    match id.split_once('@') {
        Some((digits, "s.whatsapp.net")) => format!("+{digits}"),
        Some(_) | None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_as_people_write_them() {
        for typed in [
            "+34600111222",
            " +34 600-111-222 ",
            "+34 (600) 111.222",
            "\u{202a}+34 600 111 222\u{202c}",
            "\u{2068}+34\u{a0}600\u{2011}111\u{202f}222\u{2069}",
            "＋34 600 111 222\u{200b}",
        ] {
            assert_eq!(parse_phone_number(typed).unwrap(), "34600111222", "{typed:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_explained() {
        let said: Vec<String> = [
            "0600 111 222",
            "0034600111222",
            "600111222",
            "+600",
            "+1234567890123456",
            "Ana",
            "+",
            "++34600111222",
        ]
        .iter()
        .map(|typed| parse_phone_number(typed).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        "0600 111 222" begins with 0, which is dialled within a country only; write the country's code in its place, as in +34600111222
        "0034600111222" begins with 0, which is dialled within a country only; write the country's code in its place, as in +34600111222
        "600111222" does not begin with "+" and the country's code, as in +34600111222
        "+600" has 3 digits; a number with its country's code has 8 to 15, as in +34600111222
        "+1234567890123456" has 16 digits; a number with its country's code has 8 to 15, as in +34600111222
        "Ana" is not a phone number; it looks like +34600111222
        "+" is not a phone number; it looks like +34600111222
        "++34600111222" is not a phone number; it looks like +34600111222
        "#);
    }

    #[test]
    fn an_id_is_shown_as_the_number_that_it_is() {
        assert_eq!(phone_number_from_id("34600111222@s.whatsapp.net"), "+34600111222");
        assert_eq!(phone_number_from_id("100000000000003@lid"), "100000000000003@lid");
    }
}
