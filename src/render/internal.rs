//! What the agent says to itself never leaves the host: its notes, between `<internal>` and `</internal>`,
//! and what the model thought, between `<think>` and `</think>` or the tags that stand for them.
//!
//! If it is unclear where such words end, more is kept back, never less.

use super::verbatim::{TextRanges, find_markdown_code};

/// How often a text is read again because what was taken out has put another tag together. Only an attack
/// looks so: what follows the tag that is still there is kept back.
const READINGS_MAX: usize = 8;
/// How often a text is searched for code. Beyond that, a tag in code counts like any other.
const CODE_LOOKS_MAX: usize = 8;

/// The tags around what the model thought, of the models that people use with these engines, and around the
/// calls of tools, which Kimi's models say as text when they go wrong.
const THOUGHTS: [&str; 6] = ["think", "thinking", "thought", "thoughts", "reasoning", "antthinking"];
const CALLS_BEGIN: [&str; 2] = ["tool_calls_section_begin", "tool_call_begin"];
const CALLS_END: [&str; 2] = ["tool_calls_section_end", "tool_call_end"];

/// What kind of words a tag is around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HiddenKind {
    Note,
    Thought,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HiddenTag {
    Begin(HiddenKind),
    End(HiddenKind),
}

/// How many of each kind have begun and not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHiddenTags {
    notes: usize,
    thoughts: usize,
}

impl OpenHiddenTags {
    fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn after_tag(mut self, tag: HiddenTag) -> Self {
        match tag {
            HiddenTag::Begin(HiddenKind::Note) => self.notes += 1,
            HiddenTag::Begin(HiddenKind::Thought) => self.thoughts += 1,
            HiddenTag::End(HiddenKind::Note) => self.notes = self.notes.saturating_sub(1),
            HiddenTag::End(HiddenKind::Thought) => self.thoughts = self.thoughts.saturating_sub(1),
        }
        self
    }

    fn max_of_each(self, other: Self) -> Self {
        Self { notes: self.notes.max(other.notes), thoughts: self.thoughts.max(other.thoughts) }
    }
}

/// `text` without what is not for the chat, and without white space around it.
pub fn strip_hidden_text(text: &str) -> String {
    strip_hidden_text_after(text, OpenHiddenTags::default()).0
}

/// The same for a text that goes on where another one has left notes `open`; with those that it leaves open.
///
/// Tags are read in any case and may nest. What never ends goes to the end of the text. The end of a note
/// without a beginning is dropped; the end of a thought without one takes along all that stands before it,
/// for models leave out the beginning only. Within code a thought's tags are code. What is left holds no
/// other tag, not even one that the removal of another put together.
pub fn strip_hidden_text_after(text: &str, open: OpenHiddenTags) -> (String, OpenHiddenTags) {
    let mut code_looks = CODE_LOOKS_MAX;
    let (mut text, mut open) = text_outside_tags(text, open, &mut code_looks);
    for _ in 0..READINGS_MAX {
        let (public, put_together) = text_outside_tags(&text, OpenHiddenTags::default(), &mut code_looks);
        open = open.max_of_each(put_together);
        if public == text {
            return (public.trim().to_owned(), open);
        }
        text = public;
    }
    let first = find_hidden_tags(&text).next().map_or(text.len(), |(at, _, _)| at);
    (text[..first].trim().to_owned(), open)
}

/// What stands outside every pair of tags, read once from left to right, where some are `open` at its
/// beginning; with those that are at its end.
fn text_outside_tags(
    text: &str,
    mut open: OpenHiddenTags,
    code_looks: &mut usize,
) -> (String, OpenHiddenTags) {
    let mut outside = String::with_capacity(text.len());
    let mut read = 0;
    let mut code = CodeDetector::new(text, 0);
    for (at, tag, length) in find_hidden_tags(text) {
        let is_thought =
            matches!(tag, HiddenTag::Begin(HiddenKind::Thought) | HiddenTag::End(HiddenKind::Thought));
        if at < read || open.is_empty() && is_thought && code.is_code_at(at, code_looks) {
            continue;
        }
        if open.is_empty() {
            outside.push_str(&text[read..at]);
            if tag == HiddenTag::End(HiddenKind::Thought) {
                outside.clear();
            }
        }
        open = open.after_tag(tag);
        read = at + length;
        if open.is_empty() {
            code = CodeDetector::new(text, read);
        }
    }
    if open.is_empty() {
        outside.push_str(&text[read..]);
    }
    (outside, open)
}

/// What is code in a text from some place on. What was hidden before that place may hold a stray backtick.
struct CodeDetector<'a> {
    text: &'a str,
    from: usize,
    code: Option<TextRanges>,
}

impl<'a> CodeDetector<'a> {
    fn new(text: &'a str, from: usize) -> Self {
        Self { text, from, code: None }
    }

    /// Whether the byte at `at` is in code that was meant as such.
    fn is_code_at(&mut self, at: usize, looks_left: &mut usize) -> bool {
        let text = &self.text[self.from..];
        if self.code.is_none() {
            let Some(left) = looks_left.checked_sub(1) else { return false };
            *looks_left = left;
            self.code = Some(find_markdown_code(text));
        }
        let around = self.code.as_ref().and_then(|code| code.range_around(at - self.from));
        around.is_some_and(|range| {
            let before = text[..range.start].chars().next_back();
            let after = text[range.end..].chars().next();
            is_meant_as_code(&text[range], before, after)
        })
    }
}

/// Whether backticks or a fence stand around `code` on purpose. In a thought one alone may stand, and meet
/// another one far behind it, in the answer.
fn is_meant_as_code(code: &str, before: Option<char>, after: Option<char>) -> bool {
    let code = code.trim_end();
    let fence = code.trim_start_matches(['`', '~']);
    let fence = &code[..code.len() - fence.len()];
    if code.contains('\n') {
        return fence.len() >= 3 && code.len() > 2 * fence.len() && code.ends_with(fence);
    }
    let inner = code.trim_matches('`');
    let touches = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    !inner.starts_with(' ') && !inner.ends_with(' ') && !touches(before) && !touches(after)
}

/// The tags of a text: where each begins, what it is, how many bytes it has.
fn find_hidden_tags(text: &str) -> impl Iterator<Item = (usize, HiddenTag, usize)> {
    let brackets = text.match_indices(['<', '◁']);
    brackets.filter_map(|(at, _)| parse_hidden_tag(&text[at..]).map(|(tag, length)| (at, tag, length)))
}

/// The tag at the beginning of `text` and its length in bytes: `<think>`, `</think>`, `◁think▷`, `<|think|>`,
/// `<x:think>`, `<|tool_call_begin|>`.
///
/// Attributes are allowed. A tag that is never closed by its bracket ends after its name, so that words cut
/// short in the middle of their tag are hidden, too.
fn parse_hidden_tag(text: &str) -> Option<(HiddenTag, usize)> {
    let inner = text.strip_prefix(['<', '◁'])?;
    let inner = inner.trim_start_matches('|');
    let end = inner.strip_prefix('/').map(|name| name.trim_start_matches('|'));
    let (name, is_end) = (end.unwrap_or(inner), end.is_some());
    let after = name.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ':'));
    let name = &name[..name.len() - after.len()];
    let tag = name.split(':').find_map(|name| hidden_tag_by_name(name, is_end))?;
    let closing = after.find(['<', '>', '◁', '▷']).filter(|&at| after[at..].starts_with(['>', '▷']));
    let closing = closing.and_then(|at| Some(at + after[at..].chars().next()?.len_utf8()));
    Some((tag, text.len() - after.len() + closing.unwrap_or(0)))
}

/// The tag of this name.
fn hidden_tag_by_name(name: &str, is_end: bool) -> Option<HiddenTag> {
    let is_among = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    let (kind, is_end) = if is_among(&["internal"]) {
        (HiddenKind::Note, is_end)
    } else if is_among(&THOUGHTS) {
        (HiddenKind::Thought, is_end)
    } else if is_among(&CALLS_BEGIN) {
        (HiddenKind::Thought, false)
    } else if is_among(&CALLS_END) {
        (HiddenKind::Thought, true)
    } else {
        return None;
    };
    Some(if is_end { HiddenTag::End(kind) } else { HiddenTag::Begin(kind) })
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
            assert_eq!(strip_hidden_text(text), expected, "{text:?}");
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
            ("<think>a", "b</think>c", "c"),
            ("<think><internal>a</think>", "b</internal>c", "c"),
        ] {
            let (_, open) = strip_hidden_text_after(before, OpenHiddenTags::default());
            assert_eq!(strip_hidden_text_after(after, open).0, expected, "{before:?} then {after:?}");
        }
    }

    #[test]
    fn what_the_model_thought_is_taken_out() {
        for (text, expected) in [
            ("<think>They ask of Ana.</think>Hello Ana", "Hello Ana"),
            ("<think>\nThey ask.\n</think>\n\nHello Ana", "Hello Ana"),
            ("<THINK>x</Think>Hello", "Hello"),
            ("<thinking>x</thinking>Hello", "Hello"),
            ("<thought>x</thought>Hello", "Hello"),
            ("<reasoning effort=\"high\">x</reasoning>Hello", "Hello"),
            ("◁think▷x◁/think▷Hello", "Hello"),
            ("<|think|>x<|/think|>Hello", "Hello"),
            ("<thinking>x</thinking>Hello", "Hello"),
            ("One. <think>x</think>Two. <thinking>y</thinking>Three.", "One. Two. Three."),
            (
                "<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_end|><|tool_calls_section_end|>Hello",
                "Hello",
            ),
            // nested, mixed, put together
            ("<think>a<think>b</think>c</think>Hello", "Hello"),
            ("<think>a<internal>b</internal>c</think>Hello", "Hello"),
            ("<internal>a</think>b</internal>Hello", "Hello"),
            ("<thi<internal>x</internal>nk>secret</think>Hello", "Hello"),
            // never closed
            ("Hello <think>They ask", "Hello"),
            ("Hello <thinking", "Hello"),
            ("Hello ◁think▷They ask", "Hello"),
            ("<think>only this", ""),
            // only the end
            ("They ask of Ana.</think>Hello Ana", "Hello Ana"),
            ("They ask.\n</thinking>\n\nHello", "Hello"),
            ("They ask.◁/think▷Hello", "Hello"),
            ("a</think>b</think>Hello", "Hello"),
            ("They ask </think", ""),
            // backticks within a thought belong to no code of the answer
            ("<think>use ` here</think>Hello `x`", "Hello `x`"),
            ("<think>```\ncode</think>Hello\n```\nx\n```", "Hello\n```\nx\n```"),
            ("they use ` here</think>Hello `x`", "Hello `x`"),
            ("a ```\ncode</think>Hello", "Hello"),
            // code
            (
                "The tag `<think>` opens it, `</think>` closes it.",
                "The tag `<think>` opens it, `</think>` closes it.",
            ),
            ("`<think>x</think>` and ``a </thinking> b``", "`<think>x</think>` and ``a </thinking> b``"),
            ("```xml\n<think>\nx\n</think>\n```\nSo.", "```xml\n<think>\nx\n</think>\n```\nSo."),
            ("<think>a</think>`<think>` <think>b</think>c", "`<think>` c"),
            // not the tag
            (
                "I think> so <thinker> <think-tank> <thoughtful> think",
                "I think> so <thinker> <think-tank> <thoughtful> think",
            ),
            ("◁ a ▷ <| b |>", "◁ a ▷ <| b |>"),
        ] {
            assert_eq!(strip_hidden_text(text), expected, "{text:?}");
        }
    }

    #[test]
    fn tags_that_put_each_other_together_are_bounded() {
        let mut text = "<internal>".to_owned();
        for _ in 0..2_000 {
            text = format!("<inter{text}</internal>nal>");
        }
        let shown = strip_hidden_text(&format!("Hello {text} secret"));
        assert!(
            shown.starts_with("Hello")
                && !shown.contains("secret")
                && find_hidden_tags(&shown).next().is_none()
        );
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
            prop_assert_eq!(strip_hidden_text(&text), expected);
        }

        #[test]
        fn a_note_hides_whatever_is_in_it(before in "[^<◁]*", note in any::<String>(), after in "[^<>◁▷]*") {
            let note = note.replace(['<', '◁'], "[");
            let shown = strip_hidden_text(&format!("{before}<internal>{note}</internal>{after}"));
            let expected = before + &after;
            prop_assert_eq!(shown, expected.trim());
        }

        #[test]
        fn no_tag_is_left(text in "(<|</|>|inter|nal|internal|<internal>|</internal>|<think>|</think>|thi|nk|◁think▷| |é)*") {
            let shown = strip_hidden_text(&text);
            prop_assert_eq!(find_hidden_tags(&shown).next(), None, "{}", shown);
        }

        #[test]
        fn a_thought_hides_whatever_is_in_it(before in "[^<`◁]*", thought in any::<String>(), after in "[^<>◁▷]*") {
            let thought = thought.replace(['<', '◁'], "[");
            let shown = strip_hidden_text(&format!("{before}<think>{thought}</think>{after}"));
            let expected = before + &after;
            prop_assert_eq!(shown, expected.trim());
        }

        #[test]
        fn text_without_brackets_is_only_trimmed(text in "[^<◁]*") {
            prop_assert_eq!(strip_hidden_text(&text), text.trim());
        }

        #[test]
        fn any_text_is_bearable(text in any::<String>()) {
            strip_hidden_text(&text);
        }
    }
}
