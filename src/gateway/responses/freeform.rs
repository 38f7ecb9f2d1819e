//! The text for a freeform tool, taken out of Kimi's arguments while they come.
//!
//! Kimi is asked for `{"input": "…"}`, so that a client sees a long patch grow. What comes in another form is
//! looked at when it is whole: a model that forgets the form gives the text alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The argument of a function that stands for a freeform tool.
pub const FREEFORM_ARGUMENT: &str = "input";
/// What the arguments begin with, but for blanks.
const OPENING: &str = "{\"input\":\"";

#[derive(Debug, Default)]
pub struct FreeformInput {
    state: FreeformState,
    /// What has come of [`OPENING`].
    opening: String,
    /// The digits of `\u`.
    digits: String,
    /// The first half of a character beyond the basic plane.
    high_surrogate: Option<u16>,
    text: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FreeformState {
    #[default]
    Opening,
    Text,
    AfterBackslash,
    InDigits,
    AfterText,
    AnotherForm,
}

impl FreeformInput {
    /// Takes more of the arguments, and returns what they add to the text.
    pub fn read_arguments(&mut self, arguments: &str) -> &str {
        let known = self.text.len();
        arguments.chars().for_each(|c| self.read_char(c));
        self.text.get(known..).unwrap_or_default()
    }

    /// The text so far; `arguments` are all that was read.
    pub fn text(&self, arguments: &str) -> String {
        match self.state {
            FreeformState::Opening | FreeformState::AnotherForm => unwrap_input(arguments),
            FreeformState::Text
            | FreeformState::AfterBackslash
            | FreeformState::InDigits
            | FreeformState::AfterText => self.text.clone(),
        }
    }

    /// Whether the text grew while it was read. Otherwise it is known only now.
    pub fn was_read_in_pieces(&self) -> bool {
        !matches!(self.state, FreeformState::Opening | FreeformState::AnotherForm)
    }

    fn read_char(&mut self, c: char) {
        match self.state {
            FreeformState::Opening if c.is_ascii_whitespace() => {}
            FreeformState::Opening => {
                self.opening.push(c);
                if self.opening == OPENING {
                    self.state = FreeformState::Text;
                } else if !OPENING.starts_with(&self.opening) {
                    self.state = FreeformState::AnotherForm;
                }
            }
            FreeformState::Text => match c {
                '\\' => self.state = FreeformState::AfterBackslash,
                '"' => {
                    self.end_surrogate();
                    self.state = FreeformState::AfterText;
                }
                // A line break that should have been escaped means itself.
                c => self.push(c),
            },
            FreeformState::AfterBackslash => {
                self.state = FreeformState::Text;
                match c {
                    'u' => self.state = FreeformState::InDigits,
                    'n' => self.push('\n'),
                    't' => self.push('\t'),
                    'r' => self.push('\r'),
                    'b' => self.push('\u{8}'),
                    'f' => self.push('\u{c}'),
                    c => self.push(c),
                }
            }
            FreeformState::InDigits => {
                self.digits.push(c);
                if self.digits.chars().count() == 4 {
                    self.state = FreeformState::Text;
                    let digits = std::mem::take(&mut self.digits);
                    match u16::from_str_radix(&digits, 16) {
                        Ok(unit) => self.push_unit(unit),
                        Err(_) => self.push(char::REPLACEMENT_CHARACTER),
                    }
                }
            }
            FreeformState::AfterText | FreeformState::AnotherForm => {}
        }
    }

    fn push(&mut self, c: char) {
        self.end_surrogate();
        self.text.push(c);
    }

    /// One unit of UTF-16, of which two may be one character.
    fn push_unit(&mut self, unit: u16) {
        if let (Some(high), 0xdc00..=0xdfff) = (self.high_surrogate, unit) {
            self.high_surrogate = None;
            let character = 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(unit) - 0xdc00);
            self.text.push(char::from_u32(character).unwrap_or(char::REPLACEMENT_CHARACTER));
            return;
        }
        self.end_surrogate();
        if (0xd800..=0xdbff).contains(&unit) {
            self.high_surrogate = Some(unit);
        } else {
            self.text.push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
    }

    fn end_surrogate(&mut self) {
        if self.high_surrogate.take().is_some() {
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// The arguments by which a text is handed to a freeform tool.
pub fn wrap_input(input: &str) -> String {
    json!({ FREEFORM_ARGUMENT: input }).to_string()
}

fn unwrap_input(arguments: &str) -> String {
    let wrapped: Option<BTreeMap<String, Value>> = serde_json::from_str(arguments).ok();
    match wrapped.and_then(|mut wrapped| wrapped.remove(FREEFORM_ARGUMENT)) {
        Some(Value::String(input)) => input,
        Some(_) | None => arguments.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pieces of the text, and the text, for arguments in pieces.
    fn read(pieces: &[&str]) -> (Vec<String>, String) {
        let mut input = FreeformInput::default();
        let grown = pieces.iter().map(|piece| input.read_arguments(piece).to_owned()).collect();
        (grown, input.text(&pieces.concat()))
    }

    #[test]
    fn the_text_grows_with_the_arguments() {
        let (grown, text) =
            read(&["{ \"inp", "ut\" : \"*** Be", "gin\\", "n\\u00", "e9\\ud83d", "\\ude00\"", "}"]);
        assert_eq!(grown, ["", "*** Be", "gin", "\n", "é", "😀", ""]);
        assert_eq!(text, "*** Begin\né😀");
    }

    #[test]
    fn a_model_may_forget_the_form() {
        for (arguments, text) in [
            ("*** Begin Patch\n", "*** Begin Patch\n"),
            (r#"{"patch":"x"}"#, r#"{"patch":"x"}"#),
            (r#"{"why":"so","input":"x"}"#, "x"),
            (r#"{"input":1}"#, r#"{"input":1}"#),
            ("{\"input\":\"a\nb\"}", "a\nb"),
            (r#"{"input":"a"#, "a"),
            (r#"{"input":"\ud83d!"}"#, "\u{fffd}!"),
            (r#"{"input":"\ud83d\ud83d\ude00\udead\uzzzz"}"#, "\u{fffd}😀\u{fffd}\u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(read(&[arguments]).1, text, "{arguments}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_whole_and_in_order(text in any::<String>(), cut in 0usize..20) {
            let arguments: Vec<String> =
                wrap_input(&text).chars().collect::<Vec<_>>().chunks(cut + 1).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (grown, whole) = read(&pieces);
            prop_assert_eq!(grown.concat(), text.clone());
            prop_assert_eq!(whole, text);
        }

        #[test]
        fn any_arguments_give_a_text(arguments in "[{}\"\\\\u:input d8ef0é\n]{0,40}") {
            let (grown, whole) = read(&[&arguments]);
            prop_assert!(whole.starts_with(&grown.concat()));
        }
    }
}
