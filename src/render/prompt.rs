//! What the agent reads: the pending messages of its chat as one XML-like text.
//!
//! Everything that people wrote is escaped, so that no message can pretend to be another one, or a command: the
//! text always begins with `<context`, never with the `/` of an engine command. A steer is such a text too.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::excerpt::excerpt_ranges;
use super::times::describe_duration;
use crate::paths::GROUP_IN_CONTAINER;
use crate::types::{Forwarded, Lang, LastAnswer};
use crate::writing::find_calls_by_name;

pub use crate::types::{FileLocation, PromptAuthor, PromptFile, PromptMessage, PromptQuote, VoiceWords};

/// Most characters of what people wrote in all of a prompt, as the agent reads it, whatever their script. A character
/// is four tokens at worst (rare ones are told by their bytes), and the engine lets its history grow to 50,000 tokens
/// below the model's memory before it makes it shorter: no chat member can fill the memory with one prompt, which would
/// make every later request fail.
const PROMPT_MAX_CHARS: usize = 12_000;
/// Most characters of what was said earlier, beside that.
const EARLIER_MAX_CHARS: usize = 6_000;
/// Most characters of one message's text, and of one that is quoted. The whole of a longer one is a file.
const TEXT_MAX_CHARS: usize = 8_000;
/// Characters of a name, of a person or a file, and of an id: enough to recognise it.
const NAME_MAX_CHARS: usize = 100;
/// Characters of a path or reason: they are our own words, and short.
const OURS_MAX_CHARS: usize = 500;
/// What a file with the whole of a text is called in prompts.
const WHOLE_TEXT: &str = "text";
/// Stands for a message that was taken back.
pub const DELETED: &str = "[deleted message]";
/// In front of a new text, where the old one was read already.
const EDITED: &str = "[Edited] ";
/// `Jan 1, 2024, 12:00 AM`, in the owner's time zone: the agent plans in the family's time.
const TIME_FORMAT: &str = "%b %-d, %Y, %-I:%M %p";

impl PromptAuthor {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Kai | Self::Host | Self::Task { .. } => None,
            Self::Person { name, .. } => Some(name),
        }
    }

    fn last_answer(&self) -> Option<&LastAnswer> {
        match self {
            Self::Kai | Self::Host | Self::Person { .. } => None,
            Self::Task { last_answer, .. } => last_answer.as_ref(),
        }
    }

    fn output(&self) -> Option<&str> {
        match self {
            Self::Kai | Self::Host | Self::Person { .. } => None,
            Self::Task { output, .. } => output.as_deref(),
        }
    }
}

/// A text of a message that a prompt does not tell whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncatedText {
    Own,
    Quoted,
}

/// What is told in one prompt or steer.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// A zone without an IANA name counts as UTC, so that the header and the times always agree.
    pub zone: &'a TimeZone,
    /// What calls Kai in this chat: it is never cut away.
    pub names: &'a [String],
    /// What was said before, for an agent that was not there.
    pub earlier: &'a [PromptMessage],
    pub messages: &'a [PromptMessage],
}

impl Prompt<'_> {
    /// The time zone, then the messages in the order given.
    pub fn render_prompt(&self) -> String {
        let utc = TimeZone::UTC;
        let (zone_name, zone) = self.zone.iana_name().map_or(("UTC", &utc), |name| (name, self.zone));
        let elements = |messages: &[PromptMessage], most| {
            let told =
                PromptRenderer { zone, names: self.names, share: fair_share_of_messages(messages, most) };
            messages.iter().map(|message| told.render_message(message)).collect::<Vec<_>>().join("\n")
        };
        let earlier = match self.earlier {
            [] => String::new(),
            earlier => format!("<earlier>\n{}\n</earlier>\n", elements(earlier, EARLIER_MAX_CHARS)),
        };
        format!(
            "<context timezone=\"{}\" />\n{earlier}<messages>\n{}\n</messages>",
            escape_and_truncate(zone_name, NAME_MAX_CHARS),
            elements(self.messages, PROMPT_MAX_CHARS)
        )
    }

    /// The texts of `messages` that the prompt does not tell whole, each by its message's place.
    pub fn truncated_texts(&self) -> Vec<(usize, TruncatedText)> {
        let most = fair_share_of_messages(self.messages, PROMPT_MAX_CHARS).min(TEXT_MAX_CHARS);
        let is_cut = |text: &str| escaped_length(text) > most;
        let cut = self.messages.iter().enumerate().flat_map(|(place, message)| {
            let own = is_cut(&message.text).then_some((place, TruncatedText::Own));
            let quote = message.quote.as_ref().filter(|quote| is_cut(&quote.text));
            own.into_iter().chain(quote.map(|_| (place, TruncatedText::Quoted)))
        });
        cut.collect()
    }
}

/// The new text of a message that was read already.
pub fn render_edited_text(text: &str) -> String {
    format!("{EDITED}{text}")
}

/// A reaction; an empty one takes an earlier one back.
pub fn render_reaction(emoji: &str) -> String {
    match emoji {
        "" => "[Reaction taken back]".to_owned(),
        emoji => format!("[Reaction: {emoji}]"),
    }
}

/// One of our own messages: its text, else what it was. `path` is its file's, in the group's folder.
pub fn render_own_reply(text: String, is_reaction: bool, path: Option<&str>) -> String {
    match path {
        Some(path) if text.is_empty() => format!("[File: {path}]"),
        Some(path) => format!("[File: {path}] {text}"),
        None if is_reaction => format!("[Reaction: {text}]"),
        None => text,
    }
}

/// How many characters each part may have so that all of them together have at most `total`: the short ones stay whole,
/// and the long ones share what is left.
fn fair_share(mut lengths: Vec<usize>, total: usize) -> usize {
    lengths.sort_unstable();
    let (mut left, mut sharers) = (total, lengths.len());
    for length in lengths {
        let share = left / sharers;
        if length > share {
            return share;
        }
        left -= length;
        sharers -= 1;
    }
    total
}

/// How much each thing that people wrote may take of a prompt of these messages.
fn fair_share_of_messages(messages: &[PromptMessage], total: usize) -> usize {
    fair_share(messages.iter().flat_map(text_lengths).collect(), total)
}

/// The characters of each thing that people wrote in a message, as far as the prompt would show it if it stood alone.
fn text_lengths(message: &PromptMessage) -> Vec<usize> {
    let mut parts = vec![(message.id.as_str(), NAME_MAX_CHARS), (message.text.as_str(), TEXT_MAX_CHARS)];
    parts.extend(message.author.name().map(|name| (name, NAME_MAX_CHARS)));
    parts.extend(message.author.last_answer().map(|last| (last.text.as_str(), TEXT_MAX_CHARS)));
    parts.extend(message.author.output().map(|output| (output, TEXT_MAX_CHARS)));
    if let Some(quote) = &message.quote {
        parts.extend([(quote.id.as_str(), NAME_MAX_CHARS), (quote.text.as_str(), TEXT_MAX_CHARS)]);
        parts.extend(quote.author.name().map(|name| (name, NAME_MAX_CHARS)));
    }
    let files = [message.file.as_ref(), message.quote.as_ref().and_then(|quote| quote.file.as_ref())];
    for file in files.into_iter().flatten() {
        parts.extend(file.name.as_deref().map(|name| (name, NAME_MAX_CHARS)));
        if let Some(VoiceWords::Heard(words)) = &file.words {
            parts.push((words.as_str(), TEXT_MAX_CHARS));
        }
    }
    parts.into_iter().map(|(text, most)| escaped_length(text).min(most)).collect()
}

/// How messages are told in one prompt.
struct PromptRenderer<'a> {
    zone: &'a TimeZone,
    names: &'a [String],
    /// Most characters of each thing that people wrote.
    share: usize,
}

impl PromptRenderer<'_> {
    fn render_message(&self, message: &PromptMessage) -> String {
        let name = match &message.author {
            PromptAuthor::Kai => "yours",
            PromptAuthor::Person { .. } => "message",
            PromptAuthor::Host => "notice",
            PromptAuthor::Task { .. } => "task",
        };
        let id = match &message.author {
            PromptAuthor::Host => String::new(),
            PromptAuthor::Task { id, .. } => format!(" id=\"{id}\""),
            PromptAuthor::Kai | PromptAuthor::Person { .. } => {
                format!(" id=\"{}\"", self.render_name(message.id.as_str()))
            }
        };
        format!(
            "<{name}{id}{} time=\"{}\"{}>{}{}{}{}{}{}</{name}>",
            self.render_author(&message.author),
            self.render_time(message.sent_at),
            match message.forwarded {
                Forwarded::No => "",
                Forwarded::Once => " forwarded=\"true\"",
                Forwarded::Many => " forwarded=\"many times\"",
            },
            message.author.last_answer().map(|last| self.render_last_answer(last)).unwrap_or_default(),
            message.author.output().map(|output| self.render_output(output)).unwrap_or_default(),
            message.quote.as_ref().map(|quote| self.render_quote(quote)).unwrap_or_default(),
            message.file.as_ref().map(|file| self.render_file(file)).unwrap_or_default(),
            render_whole_text_file(message.whole.as_deref()),
            self.render_message_text(&message.text),
        )
    }

    fn render_time(&self, time: Timestamp) -> String {
        time.to_zoned(self.zone.clone()).strftime(TIME_FORMAT).to_string()
    }

    fn render_last_answer(&self, last: &LastAnswer) -> String {
        format!(
            "<last-answer time=\"{}\">{}</last-answer>\n",
            self.render_time(last.said_at),
            self.render_message_text(&last.text)
        )
    }

    fn render_output(&self, output: &str) -> String {
        format!("<output>{}</output>\n", self.render_message_text(output))
    }

    fn render_quote(&self, quote: &PromptQuote) -> String {
        format!(
            "<quoted id=\"{}\"{}{}>{}{}{}</quoted>\n",
            self.render_name(quote.id.as_str()),
            match &quote.author {
                PromptAuthor::Kai => " yours=\"true\"".to_owned(),
                author @ (PromptAuthor::Person { .. } | PromptAuthor::Host | PromptAuthor::Task { .. }) =>
                    self.render_author(author),
            },
            if quote.is_claimed { " unverified=\"true\"" } else { "" },
            quote.file.as_ref().map(|file| self.render_file(file)).unwrap_or_default(),
            render_whole_text_file(quote.whole.as_deref()),
            self.render_message_text(&quote.text),
        )
    }

    /// A name tells people apart for people, the id for the agent.
    fn render_author(&self, author: &PromptAuthor) -> String {
        match author {
            PromptAuthor::Kai | PromptAuthor::Host => String::new(),
            PromptAuthor::Task { late_by, .. } if late_by.is_zero() => String::new(),
            PromptAuthor::Task { late_by, .. } => {
                format!(" late=\"{}\"", describe_duration(Lang::En, *late_by))
            }
            PromptAuthor::Person { id, name } if id.is_empty() => {
                format!(" sender=\"{}\"", self.render_name(name))
            }
            PromptAuthor::Person { id, name } => {
                format!(
                    " sender=\"{}\" person=\"{}\"",
                    self.render_name(name),
                    escape_and_truncate(id, NAME_MAX_CHARS)
                )
            }
        }
    }

    fn render_file(&self, file: &PromptFile) -> String {
        let place = match &file.whereabouts {
            FileLocation::Saved { path } => render_path_attribute(path),
            FileLocation::Missing { reason } => {
                format!(" missing=\"{}\"", escape_and_truncate(reason, OURS_MAX_CHARS))
            }
        };
        let name = file
            .name
            .as_ref()
            .map(|name| format!(" name=\"{}\"", self.render_name(name)))
            .unwrap_or_default();
        let kind = file.kind.name();
        match &file.words {
            None => format!("<file kind=\"{kind}\"{place}{name} />\n"),
            Some(VoiceWords::Heard(words)) => {
                let words = self.render_message_text(words);
                format!("<file kind=\"{kind}\"{place}{name}><words>{words}</words></file>\n")
            }
            Some(VoiceWords::Unheard { reason }) => {
                let reason = escape_and_truncate(reason, OURS_MAX_CHARS);
                format!("<file kind=\"{kind}\"{place}{name} words-missing=\"{reason}\" />\n")
            }
        }
    }

    fn render_name(&self, name: &str) -> String {
        escape_and_truncate(name, NAME_MAX_CHARS.min(self.share))
    }

    /// A text, or its head, its tail and what calls Kai, with how much is left out between.
    fn render_message_text(&self, text: &str) -> String {
        let most = TEXT_MAX_CHARS.min(self.share);
        let mut calls: Vec<usize> =
            self.names.iter().flat_map(|name| find_calls_by_name(text, name)).collect();
        calls.sort_unstable();
        calls.dedup();
        let mut told = String::new();
        let mut end = 0;
        for part in excerpt_ranges(text, most, escaped_char_length, &calls) {
            if part.start > end {
                let left_out = text[end..part.start].chars().count();
                told.push_str(&format!("<left-out characters=\"{left_out}\" />"));
            }
            end = part.end;
            text[part].chars().for_each(|c| push_escaped_char(&mut told, c));
        }
        told
    }
}

/// The file that holds the whole of a text, if it is not told whole.
fn render_whole_text_file(path: Option<&str>) -> String {
    path.map(|path| format!("<file kind=\"{WHOLE_TEXT}\"{} />\n", render_path_attribute(path)))
        .unwrap_or_default()
}

fn render_path_attribute(path: &str) -> String {
    format!(" path=\"{}\"", escape_and_truncate(&format!("{GROUP_IN_CONTAINER}/{path}"), OURS_MAX_CHARS))
}

/// `text` as an attribute, of at most so many characters; `…` says that there was more.
fn escape_and_truncate(text: &str, most_chars: usize) -> String {
    const CUT: char = '…';
    let mut escaped = String::new();
    let is_whole = escaped_length(text) <= most_chars;
    let mut left = if is_whole { most_chars } else { most_chars.saturating_sub(1) };
    for c in text.chars() {
        match left.checked_sub(escaped_char_length(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        push_escaped_char(&mut escaped, c);
    }
    if !is_whole && most_chars > 0 {
        escaped.push(CUT);
    }
    escaped
}

/// The characters that a text takes in a prompt.
fn escaped_length(text: &str) -> usize {
    text.chars().map(escaped_char_length).sum()
}

/// The characters that one takes in a prompt.
fn escaped_char_length(c: char) -> usize {
    xml_entity(c).map_or(1, str::len)
}

fn push_escaped_char(told: &mut String, c: char) {
    match xml_entity(c) {
        Some(entity) => told.push_str(entity),
        None if matches!(c, '\n' | '\t') || !c.is_control() => told.push(c),
        // XML cannot hold it.
        None => told.push(char::REPLACEMENT_CHARACTER),
    }
}

fn xml_entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{MediaKind, MessageId};

    fn person(name: &str) -> PromptAuthor {
        PromptAuthor::Person { id: "p1".to_owned(), name: name.to_owned() }
    }

    fn from(sender_name: &str, text: &str) -> PromptMessage {
        PromptMessage {
            id: MessageId::new("3EB0"),
            author: person(sender_name),
            text: text.to_owned(),
            sent_at: "2024-01-01T00:00:00Z".parse().unwrap(),
            forwarded: Forwarded::No,
            quote: None,
            file: None,
            whole: None,
        }
    }

    fn prompt(zone: &TimeZone, messages: &[PromptMessage]) -> String {
        Prompt { zone, names: &["Kai".to_owned()], earlier: &[], messages }.render_prompt()
    }

    fn with_file(
        kind: MediaKind,
        name: Option<&str>,
        whereabouts: FileLocation,
        text: &str,
    ) -> PromptMessage {
        let file = PromptFile { kind, name: name.map(str::to_owned), whereabouts, words: None };
        PromptMessage { file: Some(file), ..from("Alice", text) }
    }

    #[test]
    fn a_task_is_told_as_one_with_how_late_it_is() {
        let task = |seconds| PromptMessage {
            author: PromptAuthor::Task {
                id: 7,
                late_by: jiff::SignedDuration::from_secs(seconds),
                last_answer: (seconds > 0).then(|| LastAnswer {
                    text: "Kai: They are <dry>".to_owned(),
                    said_at: "2023-12-31T00:00:00Z".parse().unwrap(),
                }),
                output: (seconds > 0).then(|| "3 <plants>".to_owned()),
            },
            ..from("", "water the <plants>")
        };
        insta::assert_snapshot!(prompt(&TimeZone::UTC, &[task(0), task(7_500)]), @r#"
        <context timezone="UTC" />
        <messages>
        <task id="7" time="Jan 1, 2024, 12:00 AM">water the &lt;plants&gt;</task>
        <task id="7" late="2 h 5 min" time="Jan 1, 2024, 12:00 AM"><last-answer time="Dec 31, 2023, 12:00 AM">Kai: They are &lt;dry&gt;</last-answer>
        <output>3 &lt;plants&gt;</output>
        water the &lt;plants&gt;</task>
        </messages>
        "#);
    }

    #[test]
    fn what_nanokimi_itself_says_is_no_message() {
        let notice = PromptMessage { author: PromptAuthor::Host, ..from("", "The owner answers: <yes>") };
        insta::assert_snapshot!(prompt(&TimeZone::UTC, &[notice]), @r#"
        <context timezone="UTC" />
        <messages>
        <notice time="Jan 1, 2024, 12:00 AM">The owner answers: &lt;yes&gt;</notice>
        </messages>
        "#);
    }

    #[test]
    fn files_are_told_by_their_place_or_by_why_they_are_missing() {
        let saved = |path: &str| FileLocation::Saved { path: path.to_owned() };
        let missing = |reason: &str| FileLocation::Missing { reason: reason.to_owned() };
        let messages = [
            with_file(MediaKind::Voice, None, saved("inbox/2026-11-21/101502-a1b2c3.ogg"), ""),
            with_file(
                MediaKind::Document,
                Some("../\"My\" <plan>\n.pdf"),
                saved("inbox/2026-11-21/101503-a1b2c4.pdf"),
                "see page 2",
            ),
            PromptMessage {
                quote: quoting("Shall we?").quote,
                ..with_file(MediaKind::Image, None, missing("larger than 32 MB"), "look")
            },
            with_file(MediaKind::Sticker, None, missing("could not be decrypted"), ""),
        ];
        insta::assert_snapshot!(prompt(&TimeZone::UTC, &messages), @r#"
        <context timezone="UTC" />
        <messages>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM"><file kind="voice" path="/workspace/group/inbox/2026-11-21/101502-a1b2c3.ogg" />
        </message>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM"><file kind="document" path="/workspace/group/inbox/2026-11-21/101503-a1b2c4.pdf" name="../&quot;My&quot; &lt;plan&gt;
        .pdf" />
        see page 2</message>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" sender="B &amp; C" person="p1">Shall we?</quoted>
        <file kind="image" missing="larger than 32 MB" />
        look</message>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM"><file kind="sticker" missing="could not be decrypted" />
        </message>
        </messages>
        "#);
        let long = with_file(MediaKind::Document, Some(&"x".repeat(300)), saved("a"), "");
        assert!(prompt(&TimeZone::UTC, &[long]).contains(&format!("name=\"{}…\"", "x".repeat(99))));
    }

    #[test]
    fn no_message_and_no_number_of_them_fills_the_models_memory() {
        let flood = |text: &str| {
            let file = PromptFile {
                kind: MediaKind::Document,
                name: Some(text.to_owned()),
                whereabouts: FileLocation::Saved { path: "a".to_owned() },
                words: Some(VoiceWords::Heard(text.to_owned())),
            };
            let quote = PromptQuote {
                id: MessageId::new(text),
                author: person(text),
                is_claimed: true,
                text: text.to_owned(),
                file: Some(file.clone()),
                whole: None,
            };
            let id = MessageId::new(text);
            PromptMessage { id, quote: Some(quote), file: Some(file), ..from(text, text) }
        };
        for c in ["x", "&", "\"", "𓀀", "中", "\u{1}"] {
            let message = flood(&c.repeat(16_000));
            for number in [1, 2, 13, 200] {
                let chars = prompt(&TimeZone::UTC, &vec![message.clone(); number]).chars().count();
                let frames = 500 * number;
                assert!(chars <= PROMPT_MAX_CHARS + frames, "{number} of {c:?}: {chars} characters");
            }
        }
    }

    #[test]
    fn of_a_long_message_the_ends_and_the_call_are_told_whatever_its_script() {
        for letter in ["x", "é", "中", "𓀀"] {
            let text = format!("{} @Kai and that? {} last", letter.repeat(10_000), letter.repeat(10_000));
            let whole = Some("inbox/2024-01-01/000000-000001.txt".to_owned());
            let message = PromptMessage { whole, ..from("Alice", &text) };
            assert_eq!(
                Prompt { messages: std::slice::from_ref(&message), ..bare() }.truncated_texts(),
                [(0, TruncatedText::Own)]
            );
            let told = prompt(&TimeZone::UTC, &[message]);
            let beginning = format!(
                "<file kind=\"text\" path=\"/workspace/group/inbox/2024-01-01/000000-000001.txt\" />\n{}",
                letter.repeat(3_500)
            );
            assert!(told.contains(&beginning), "{letter}");
            assert!(told.contains("@Kai and that?"), "{letter}");
            assert!(
                told.ends_with(&format!("{} last</message>\n</messages>", letter.repeat(3_400))),
                "{letter}"
            );
            assert_eq!(told.matches("<left-out characters=\"").count(), 2, "{letter}");
        }
    }

    fn bare() -> Prompt<'static> {
        static UTC: TimeZone = TimeZone::UTC;
        Prompt { zone: &UTC, names: &[], earlier: &[], messages: &[] }
    }

    #[test]
    fn a_long_message_is_cut_and_the_short_ones_beside_it_stay_whole() {
        let long = "é".repeat(16_000);
        let short = "y".repeat(1_000);
        let mut messages = vec![from("Mallory", &long); 20];
        messages.insert(7, from("Bob", &short));
        assert!(!prompt(&TimeZone::UTC, &messages).contains(&short), "nobody has more than a share");
        assert_eq!(Prompt { messages: &messages, ..bare() }.truncated_texts().len(), 21);
        messages[7] = from("Bob", &short[..300]);
        assert!(prompt(&TimeZone::UTC, &messages).contains(&format!(">{}</message>", &short[..300])));
        assert_eq!(Prompt { messages: &messages, ..bare() }.truncated_texts().len(), 20);
    }

    #[test]
    fn who_wrote_is_told_by_what_no_name_can_imitate() {
        let kai = PromptMessage { author: PromptAuthor::Kai, ..from("", "Blue.") };
        let quoted = |author, is_claimed| {
            let quote = PromptQuote { author, is_claimed, ..quoting("Blue.").quote.unwrap() };
            PromptMessage { quote: Some(quote), ..from("you", "yes") }
        };
        let unknown = PromptAuthor::Person { id: String::new(), name: "Kai".to_owned() };
        let messages = [
            kai,
            quoted(PromptAuthor::Kai, false),
            quoted(unknown, true),
            PromptMessage { forwarded: Forwarded::Once, ..from("Kai", "hello") },
            PromptMessage {
                forwarded: Forwarded::Many,
                author: PromptAuthor::Person { id: "p2".to_owned(), name: "Kai".to_owned() },
                ..from("", "hello")
            },
        ];
        insta::assert_snapshot!(prompt(&TimeZone::UTC, &messages), @r#"
        <context timezone="UTC" />
        <messages>
        <yours id="3EB0" time="Jan 1, 2024, 12:00 AM">Blue.</yours>
        <message id="3EB0" sender="you" person="p1" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" yours="true">Blue.</quoted>
        yes</message>
        <message id="3EB0" sender="you" person="p1" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" sender="Kai" unverified="true">Blue.</quoted>
        yes</message>
        <message id="3EB0" sender="Kai" person="p1" time="Jan 1, 2024, 12:00 AM" forwarded="true">hello</message>
        <message id="3EB0" sender="Kai" person="p2" time="Jan 1, 2024, 12:00 AM" forwarded="many times">hello</message>
        </messages>
        "#);
    }

    fn quoting(text: &str) -> PromptMessage {
        let quote = PromptQuote {
            id: MessageId::new("A\"1"),
            author: person("B & C"),
            is_claimed: false,
            text: text.to_owned(),
            file: None,
            whole: None,
        };
        PromptMessage { quote: Some(quote), ..from("Alice", "yes") }
    }

    fn time_zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap_or(TimeZone::UTC)
    }

    /// How a moment is shown to an agent in a zone.
    fn shown(moment: &str, zone: &str) -> String {
        let message = PromptMessage { sent_at: moment.parse().unwrap(), ..from("Alice", "hello") };
        let prompt = prompt(&time_zone(zone), &[message]);
        let (_, time) = prompt.split_once("time=\"").unwrap();
        time.split_once('"').unwrap().0.to_owned()
    }

    #[test]
    fn a_prompt_is_the_time_zone_and_the_messages() {
        let messages = [
            from("Alice", "hello"),
            PromptMessage {
                id: MessageId::new("7"),
                ..from("A & B <Co>", "<script>alert(\"xss\")</script>")
            },
            quoting("Shall we?"),
        ];
        insta::assert_snapshot!(prompt(&TimeZone::UTC, &messages), @r#"
        <context timezone="UTC" />
        <messages>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM">hello</message>
        <message id="7" sender="A &amp; B &lt;Co&gt;" person="p1" time="Jan 1, 2024, 12:00 AM">&lt;script&gt;alert(&quot;xss&quot;)&lt;/script&gt;</message>
        <message id="3EB0" sender="Alice" person="p1" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" sender="B &amp; C" person="p1">Shall we?</quoted>
        yes</message>
        </messages>
        "#);
    }

    #[test]
    fn no_messages_make_an_empty_list() {
        assert_eq!(prompt(&TimeZone::UTC, &[]), "<context timezone=\"UTC\" />\n<messages>\n\n</messages>");
    }

    #[test]
    fn both_senders_and_both_texts_are_there() {
        let prompt = prompt(&TimeZone::UTC, &[from("Alice", "hi"), from("Bob", "hey")]);
        for part in ["sender=\"Alice\"", ">hi</message>", "sender=\"Bob\"", ">hey</message>"] {
            assert!(prompt.contains(part), "{part} in {prompt}");
        }
    }

    #[test]
    fn what_people_write_is_only_text() {
        for (text, expected) in [
            ("", ""),
            ("hello world", "hello world"),
            ("a & b", "a &amp; b"),
            ("a < b", "a &lt; b"),
            ("a > b", "a &gt; b"),
            ("\"hello\"", "&quot;hello&quot;"),
            ("a & b < c > d \"e\"", "a &amp; b &lt; c &gt; d &quot;e&quot;"),
            ("A<B", "A&lt;B"),
            ("x > y && z", "x &gt; y &amp;&amp; z"),
            ("&amp;", "&amp;amp;"),
            ("it's\tone\nor two", "it's\tone\nor two"),
            ("nul\0 bell\u{7} del\u{7f} nel\u{85}", "nul\u{fffd} bell\u{fffd} del\u{fffd} nel\u{fffd}"),
            ("😀 é 你好", "😀 é 你好"),
        ] {
            assert_eq!(escape_and_truncate(text, 1_000), expected, "{text:?}");
        }
    }

    #[test]
    fn times_are_told_in_the_owners_zone() {
        for (moment, zone, expected) in [
            ("2024-01-01T00:00:00Z", "UTC", "Jan 1, 2024, 12:00 AM"),
            ("2024-01-01T12:05:00Z", "UTC", "Jan 1, 2024, 12:05 PM"),
            ("2024-01-01T18:30:00Z", "America/New_York", "Jan 1, 2024, 1:30 PM"),
            ("2026-02-04T18:30:00Z", "America/New_York", "Feb 4, 2026, 1:30 PM"),
            ("2026-06-15T12:00:00Z", "America/New_York", "Jun 15, 2026, 8:00 AM"),
            ("2026-06-15T12:00:00Z", "Asia/Tokyo", "Jun 15, 2026, 9:00 PM"),
            ("2026-06-15T12:00:00Z", "NotATimezone", "Jun 15, 2026, 12:00 PM"),
        ] {
            assert_eq!(shown(moment, zone), expected, "{moment} in {zone}");
        }
    }

    #[test]
    fn a_zone_without_a_name_counts_as_utc_in_header_and_times() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(prompt(&zone, &[from("Alice", "hi")]), prompt(&TimeZone::UTC, &[from("Alice", "hi")]));
    }

    #[test]
    fn a_quote_is_told_as_whole_as_any_message() {
        let long = "é".repeat(7_990);
        assert!(prompt(&TimeZone::UTC, &[quoting(&long)]).contains(&format!(">{long}</quoted>")));
        let longer = quoting(&"é".repeat(9_000));
        assert_eq!(
            Prompt { messages: std::slice::from_ref(&longer), ..bare() }.truncated_texts(),
            [(0, TruncatedText::Quoted)]
        );
        assert!(prompt(&TimeZone::UTC, &[longer]).contains("<left-out characters=\"1000\" />"));
    }

    proptest! {
        #[test]
        fn no_message_looks_like_another_one_or_like_a_command(
            id in any::<String>(),
            sender_name in any::<String>(),
            text in any::<String>(),
            quoted in any::<Option<String>>(),
        ) {
            let quote = quoted.map(|text| PromptQuote {
                id: MessageId::new(&id),
                author: person(&sender_name),
                text,
                ..quoting("").quote.unwrap()
            });
            let quotes = usize::from(quote.is_some());
            let message = PromptMessage { id: MessageId::new(&id), quote, ..from(&sender_name, &text) };
            let prompt = prompt(&TimeZone::UTC, &[message]);
            prop_assert!(!prompt.starts_with('/'));
            prop_assert_eq!(prompt.matches('<').count(), 5 + 2 * quotes, "{}", prompt);
            prop_assert_eq!(prompt.matches('"').count(), 2 + 8 + 6 * quotes, "{}", prompt);
            prop_assert!(prompt.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }

        #[test]
        fn what_is_cut_is_within_its_bound(text in any::<String>(), most in 1_usize..40) {
            let whole = escape_and_truncate(&text, 10_000);
            let cut = escape_and_truncate(&text, most);
            prop_assert!(cut.chars().count() <= most);
            prop_assert!(cut == whole || whole.starts_with(cut.strip_suffix('…').unwrap()));
        }

        #[test]
        fn escaping_loses_nothing(text in "[^\u{0}-\u{8}\u{b}-\u{1f}\u{7f}-\u{9f}]*") {
            let back = escape_and_truncate(&text, usize::MAX / 2).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }

        #[test]
        fn any_moment_can_be_told(second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second()) {
            let message = PromptMessage { sent_at: Timestamp::from_second(second).unwrap(), ..from("Alice", "hi") };
            prop_assert!(prompt(&time_zone("Asia/Tokyo"), &[message]).contains("sender=\"Alice\""));
        }
    }
}
