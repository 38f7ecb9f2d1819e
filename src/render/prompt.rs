//! What the agent reads: the pending messages of its chat as one XML-like text.
//!
//! Everything that people wrote is escaped, so that no message can pretend to be another one, or a command: the
//! text always begins with `<context`, never with the `/` of an engine command. A steer is such a text too.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::types::{MessageId, Quote};

/// Characters of a quoted message that the agent sees: enough to recognise it. The whole one was told before, or
/// stands in the chat's history.
const QUOTE_LIMIT_CHARS: usize = 500;
/// Most characters of one message, and of all of a prompt together: a quarter of the model's memory, so that no
/// chat member can fill it with one message and make every later request fail.
const MESSAGE_LIMIT_CHARS: usize = 20_000;
const PROMPT_LIMIT_CHARS: usize = 200_000;
/// `Jan 1, 2024, 12:00 AM`, in the owner's time zone: the agent plans in the family's time.
const TIME_FORMAT: &str = "%b %-d, %Y, %-I:%M %p";

/// One message as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptMessage {
    pub id: MessageId,
    pub sender_name: String,
    pub text: String,
    pub sent_at: Timestamp,
    pub quote: Option<Quote>,
}

/// The text of a prompt or steer: the time zone, then the messages in the order given.
///
/// A zone without an IANA name counts as UTC, so that the header and the times always agree.
pub fn prompt(zone: &TimeZone, messages: &[PromptMessage]) -> String {
    let utc = TimeZone::UTC;
    let (zone_name, zone) = zone.iana_name().map_or(("UTC", &utc), |name| (name, zone));
    let limit = MESSAGE_LIMIT_CHARS.min(PROMPT_LIMIT_CHARS / messages.len().max(1));
    let messages: Vec<String> =
        messages.iter().map(|message| message_element(zone, message, limit)).collect();
    format!(
        "<context timezone=\"{}\" />\n<messages>\n{}\n</messages>",
        escaped(zone_name),
        messages.join("\n")
    )
}

/// The time zone of an IANA name; UTC for anything else, POSIX rules such as `IST-2` included.
pub fn time_zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn message_element(zone: &TimeZone, message: &PromptMessage, limit_chars: usize) -> String {
    format!(
        "<message id=\"{}\" sender=\"{}\" time=\"{}\">{}{}</message>",
        escaped(message.id.as_str()),
        escaped(&message.sender_name),
        message.sent_at.to_zoned(zone.clone()).strftime(TIME_FORMAT),
        message.quote.as_ref().map(quoted_element).unwrap_or_default(),
        escaped(&shortened(&message.text, limit_chars)),
    )
}

fn quoted_element(quote: &Quote) -> String {
    format!(
        "<quoted id=\"{}\" sender=\"{}\">{}</quoted>\n",
        escaped(quote.id.as_str()),
        escaped(&quote.sender_name),
        escaped(&shortened(&quote.text, QUOTE_LIMIT_CHARS)),
    )
}

/// The first characters; `…` says that there was more.
fn shortened(text: &str, limit_chars: usize) -> String {
    match text.char_indices().nth(limit_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `text` as XML content or attribute. Control characters, which XML cannot hold, become U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(sender_name: &str, text: &str) -> PromptMessage {
        PromptMessage {
            id: MessageId::new("3EB0"),
            sender_name: sender_name.to_owned(),
            text: text.to_owned(),
            sent_at: "2024-01-01T00:00:00Z".parse().unwrap(),
            quote: None,
        }
    }

    #[test]
    fn no_message_and_no_number_of_them_fills_the_models_memory() {
        let long = from("Mallory", &"x".repeat(1_000_000));
        assert!(prompt(&TimeZone::UTC, std::slice::from_ref(&long)).len() < MESSAGE_LIMIT_CHARS + 200);
        assert!(prompt(&TimeZone::UTC, &vec![long; 200]).len() < PROMPT_LIMIT_CHARS + 200 * 200);
    }

    fn quoting(text: &str) -> PromptMessage {
        let quote =
            Quote { id: MessageId::new("A\"1"), sender_name: "B & C".to_owned(), text: text.to_owned() };
        PromptMessage { quote: Some(quote), ..from("Alice", "yes") }
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
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM">hello</message>
        <message id="7" sender="A &amp; B &lt;Co&gt;" time="Jan 1, 2024, 12:00 AM">&lt;script&gt;alert(&quot;xss&quot;)&lt;/script&gt;</message>
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" sender="B &amp; C">Shall we?</quoted>
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
            assert_eq!(escaped(text), expected, "{text:?}");
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
    fn only_names_of_the_time_zone_database_are_zones() {
        for (name, expected) in [
            ("UTC", "UTC"),
            ("America/New_York", "America/New_York"),
            ("Asia/Tokyo", "Asia/Tokyo"),
            ("Asia/Jerusalem", "Asia/Jerusalem"),
            ("europe/madrid", "Europe/Madrid"),
            ("IST-2", "UTC"),
            ("XYZ+3", "UTC"),
            ("", "UTC"),
            ("NotATimezone", "UTC"),
            ("Etc/Unknown", "UTC"),
            ("../../etc/passwd", "UTC"),
        ] {
            let header = format!("<context timezone=\"{expected}\" />\n<messages>");
            let prompt = prompt(&time_zone(name), &[]);
            assert!(prompt.starts_with(&header), "{name:?}: {prompt}");
        }
    }

    #[test]
    fn a_zone_without_a_name_counts_as_utc_in_header_and_times() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(prompt(&zone, &[from("Alice", "hi")]), prompt(&TimeZone::UTC, &[from("Alice", "hi")]));
    }

    #[test]
    fn a_long_quote_is_cut_between_characters() {
        let fits = "é".repeat(QUOTE_LIMIT_CHARS);
        assert!(prompt(&TimeZone::UTC, &[quoting(&fits)]).contains(&format!(">{fits}</quoted>")));
        let too_long = "&".repeat(QUOTE_LIMIT_CHARS + 1);
        let cut = "&amp;".repeat(QUOTE_LIMIT_CHARS);
        assert!(prompt(&TimeZone::UTC, &[quoting(&too_long)]).contains(&format!(">{cut}…</quoted>")));
    }

    proptest! {
        #[test]
        fn no_message_looks_like_another_one_or_like_a_command(
            id in any::<String>(),
            sender_name in any::<String>(),
            text in any::<String>(),
            quoted in any::<Option<String>>(),
        ) {
            let quote = quoted.map(|text| Quote { id: MessageId::new(&id), sender_name: sender_name.clone(), text });
            let quotes = usize::from(quote.is_some());
            let message = PromptMessage { id: MessageId::new(&id), sender_name, quote, ..from("", &text) };
            let prompt = prompt(&TimeZone::UTC, &[message]);
            prop_assert!(!prompt.starts_with('/'));
            prop_assert_eq!(prompt.matches('<').count(), 5 + 2 * quotes, "{}", prompt);
            prop_assert_eq!(prompt.matches('"').count(), 2 + 6 + 4 * quotes, "{}", prompt);
            prop_assert!(prompt.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }

        #[test]
        fn escaping_loses_nothing(text in "[^\u{0}-\u{8}\u{b}-\u{1f}\u{7f}-\u{9f}]*") {
            let back = escaped(&text).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }

        #[test]
        fn any_moment_can_be_told(second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second()) {
            let message = PromptMessage { sent_at: Timestamp::from_second(second).unwrap(), ..from("Alice", "hi") };
            prop_assert!(prompt(&time_zone("Asia/Tokyo"), &[message]).contains("sender=\"Alice\""));
        }

        #[test]
        fn any_name_gives_a_zone(name in any::<String>()) {
            time_zone(&name);
        }
    }
}
