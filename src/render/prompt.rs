//! What the agent reads: the pending messages of its chat as one XML-like text.
//!
//! Everything that people wrote is escaped, so that no message can pretend to be another one, or a command: the
//! text always begins with `<context`, never with the `/` of an engine command. A steer is such a text too.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::paths::GROUP_IN_CONTAINER;
use crate::types::{MediaKind, MessageId, Quote};

/// Most bytes of what people wrote in all of a prompt, as the agent reads it. A byte is a token at worst (rare
/// characters are told by their bytes), and the engine lets its history grow to 50,000 tokens below the model's
/// memory before it makes it shorter: no chat member can fill the memory with one prompt, which would make every
/// later request fail.
const PROMPT_MAX_BYTES: usize = 40_000;
/// Most bytes of what was said earlier, beside that.
const EARLIER_MAX_BYTES: usize = 20_000;
/// Most bytes of one message's text.
const TEXT_MAX_BYTES: usize = 20_000;
/// Bytes of a quoted message that the agent sees: enough to recognise it. The whole one was told before, or stands
/// in the chat's history.
const QUOTE_MAX_BYTES: usize = 500;
/// Bytes of a name, of a person or a file, and of an id: enough to recognise it.
const NAME_MAX_BYTES: usize = 100;
/// Bytes of a path or reason: they are our own words, and short.
const OURS_MAX_BYTES: usize = 500;
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
    pub file: Option<PromptFile>,
}

/// Something attached to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptFile {
    pub kind: MediaKind,
    /// As the sender called it.
    pub name: Option<String>,
    pub whereabouts: Whereabouts,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// `path` is relative to the group's folder.
    Saved { path: String },
    /// It will not come; `reason` is a phrase such as `larger than 32 MB`.
    Missing { reason: String },
}

/// The text of a prompt or steer: the time zone, then the messages in the order given.
///
/// A zone without an IANA name counts as UTC, so that the header and the times always agree.
pub fn prompt(zone: &TimeZone, messages: &[PromptMessage]) -> String {
    prompt_after(zone, &[], messages)
}

/// The same, for an agent that was not there when the `earlier` ones were said.
pub fn prompt_after(zone: &TimeZone, earlier: &[PromptMessage], messages: &[PromptMessage]) -> String {
    let utc = TimeZone::UTC;
    let (zone_name, zone) = zone.iana_name().map_or(("UTC", &utc), |name| (name, zone));
    let earlier = match earlier {
        [] => String::new(),
        earlier => format!("<earlier>\n{}\n</earlier>\n", elements(zone, earlier, EARLIER_MAX_BYTES)),
    };
    format!(
        "<context timezone=\"{}\" />\n{earlier}<messages>\n{}\n</messages>",
        escaped(zone_name, NAME_MAX_BYTES),
        elements(zone, messages, PROMPT_MAX_BYTES)
    )
}

fn elements(zone: &TimeZone, messages: &[PromptMessage], most_bytes: usize) -> String {
    let share = fair_share(messages.iter().flat_map(lengths).collect(), most_bytes);
    let messages: Vec<String> =
        messages.iter().map(|message| message_element(zone, message, share)).collect();
    messages.join("\n")
}

/// How many bytes each may have so that all of them together have at most `total`: the short ones stay whole, and
/// the long ones share what is left.
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

/// The bytes of each thing that people wrote in a message, as far as the prompt would show it if it stood alone.
fn lengths(message: &PromptMessage) -> Vec<usize> {
    let mut parts = vec![
        (message.id.as_str(), NAME_MAX_BYTES),
        (message.sender_name.as_str(), NAME_MAX_BYTES),
        (message.text.as_str(), TEXT_MAX_BYTES),
    ];
    if let Some(quote) = &message.quote {
        parts.extend([
            (quote.id.as_str(), NAME_MAX_BYTES),
            (quote.sender_name.as_str(), NAME_MAX_BYTES),
            (quote.text.as_str(), QUOTE_MAX_BYTES),
        ]);
    }
    if let Some(name) = message.file.as_ref().and_then(|file| file.name.as_ref()) {
        parts.push((name, NAME_MAX_BYTES));
    }
    parts.into_iter().map(|(text, most)| escaped(text, most).len()).collect()
}

fn message_element(zone: &TimeZone, message: &PromptMessage, share: usize) -> String {
    format!(
        "<message id=\"{}\" sender=\"{}\" time=\"{}\">{}{}{}</message>",
        escaped(message.id.as_str(), NAME_MAX_BYTES.min(share)),
        escaped(&message.sender_name, NAME_MAX_BYTES.min(share)),
        message.sent_at.to_zoned(zone.clone()).strftime(TIME_FORMAT),
        message.quote.as_ref().map(|quote| quoted_element(quote, share)).unwrap_or_default(),
        message.file.as_ref().map(|file| file_element(file, share)).unwrap_or_default(),
        escaped(&message.text, TEXT_MAX_BYTES.min(share)),
    )
}

fn quoted_element(quote: &Quote, share: usize) -> String {
    format!(
        "<quoted id=\"{}\" sender=\"{}\">{}</quoted>\n",
        escaped(quote.id.as_str(), NAME_MAX_BYTES.min(share)),
        escaped(&quote.sender_name, NAME_MAX_BYTES.min(share)),
        escaped(&quote.text, QUOTE_MAX_BYTES.min(share)),
    )
}

fn file_element(file: &PromptFile, share: usize) -> String {
    let kind = file.kind.name();
    let place = match &file.whereabouts {
        Whereabouts::Saved { path } => {
            format!(" path=\"{}\"", escaped(&format!("{GROUP_IN_CONTAINER}/{path}"), OURS_MAX_BYTES))
        }
        Whereabouts::Missing { reason } => format!(" missing=\"{}\"", escaped(reason, OURS_MAX_BYTES)),
    };
    let name = file.name.as_ref().map(|name| escaped(name, NAME_MAX_BYTES.min(share)));
    let name = name.map(|name| format!(" name=\"{name}\"")).unwrap_or_default();
    format!("<file kind=\"{kind}\"{place}{name} />\n")
}

/// `text` as XML content or attribute, of at most so many bytes; `…` says that there was more. Control characters,
/// which XML cannot hold, become U+FFFD.
fn escaped(text: &str, most_bytes: usize) -> String {
    const CUT: char = '…';
    let mut escaped = String::new();
    // Where the cut would be, with room for its sign.
    let mut cut = 0;
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
        if escaped.len() > most_bytes {
            escaped.truncate(cut);
            escaped.push(CUT);
            return escaped;
        }
        if escaped.len() + CUT.len_utf8() <= most_bytes {
            cut = escaped.len();
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
            file: None,
        }
    }

    fn with_file(kind: MediaKind, name: Option<&str>, whereabouts: Whereabouts, text: &str) -> PromptMessage {
        let file = PromptFile { kind, name: name.map(str::to_owned), whereabouts };
        PromptMessage { file: Some(file), ..from("Alice", text) }
    }

    #[test]
    fn files_are_told_by_their_place_or_by_why_they_are_missing() {
        let saved = |path: &str| Whereabouts::Saved { path: path.to_owned() };
        let missing = |reason: &str| Whereabouts::Missing { reason: reason.to_owned() };
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
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM"><file kind="voice" path="/workspace/group/inbox/2026-11-21/101502-a1b2c3.ogg" />
        </message>
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM"><file kind="document" path="/workspace/group/inbox/2026-11-21/101503-a1b2c4.pdf" name="../&quot;My&quot; &lt;plan&gt;
        .pdf" />
        see page 2</message>
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM"><quoted id="A&quot;1" sender="B &amp; C">Shall we?</quoted>
        <file kind="image" missing="larger than 32 MB" />
        look</message>
        <message id="3EB0" sender="Alice" time="Jan 1, 2024, 12:00 AM"><file kind="sticker" missing="could not be decrypted" />
        </message>
        </messages>
        "#);
        let long = with_file(MediaKind::Document, Some(&"x".repeat(300)), saved("a"), "");
        assert!(prompt(&TimeZone::UTC, &[long]).contains(&format!("name=\"{}…\"", "x".repeat(97))));
    }

    #[test]
    fn no_message_and_no_number_of_them_fills_the_models_memory() {
        let flood = |text: &str| {
            let file = PromptFile {
                kind: MediaKind::Document,
                name: Some(text.to_owned()),
                whereabouts: Whereabouts::Saved { path: "a".to_owned() },
            };
            let quote =
                Quote { id: MessageId::new(text), sender_name: text.to_owned(), text: text.to_owned() };
            let id = MessageId::new(text);
            PromptMessage { id, quote: Some(quote), file: Some(file), ..from(text, text) }
        };
        for c in ["x", "&", "\"", "𓀀", "\u{1}"] {
            let message = flood(&c.repeat(16_000));
            for number in [1, 2, 13, 200] {
                let length = prompt(&TimeZone::UTC, &vec![message.clone(); number]).len();
                let frames = 300 * number;
                assert!(length <= PROMPT_MAX_BYTES + frames, "{number} of {c:?}: {length} bytes");
            }
        }
    }

    #[test]
    fn a_long_message_is_cut_and_the_short_ones_beside_it_stay_whole() {
        let long = "é".repeat(16_000);
        let alone = prompt(&TimeZone::UTC, &[from("Alice", &long)]);
        assert!(alone.contains(&format!(">{}…</message>", "é".repeat(9_998))), "{}", alone.len());
        let short = "y".repeat(3_000);
        let mut messages = vec![from("Mallory", &long); 20];
        messages.insert(7, from("Bob", &short));
        let together = prompt(&TimeZone::UTC, &messages);
        assert!(!together.contains(&short), "nobody has more than a share");
        messages[7] = from("Bob", &short[..1_000]);
        assert!(prompt(&TimeZone::UTC, &messages).contains(&format!(">{}</message>", &short[..1_000])));
    }

    fn quoting(text: &str) -> PromptMessage {
        let quote =
            Quote { id: MessageId::new("A\"1"), sender_name: "B & C".to_owned(), text: text.to_owned() };
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
            assert_eq!(escaped(text, 1_000), expected, "{text:?}");
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
    fn a_long_quote_is_cut_between_characters() {
        let fits = "é".repeat(250);
        assert!(prompt(&TimeZone::UTC, &[quoting(&fits)]).contains(&format!(">{fits}</quoted>")));
        for (letter, cut) in [("é", "é".repeat(248)), ("&", "&amp;".repeat(99))] {
            let too_long = letter.repeat(251);
            assert!(prompt(&TimeZone::UTC, &[quoting(&too_long)]).contains(&format!(">{cut}…</quoted>")));
        }
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
        fn what_is_cut_is_within_its_bound(text in any::<String>(), most in 3_usize..40) {
            let whole = escaped(&text, 10_000);
            let cut = escaped(&text, most);
            prop_assert!(cut.len() <= most);
            prop_assert!(cut == whole || whole.starts_with(cut.strip_suffix('…').unwrap()));
        }

        #[test]
        fn escaping_loses_nothing(text in "[^\u{0}-\u{8}\u{b}-\u{1f}\u{7f}-\u{9f}]*") {
            let back = escaped(&text, usize::MAX / 2).replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            prop_assert_eq!(back.replace("&amp;", "&"), text);
        }

        #[test]
        fn any_moment_can_be_told(second in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second()) {
            let message = PromptMessage { sent_at: Timestamp::from_second(second).unwrap(), ..from("Alice", "hi") };
            prop_assert!(prompt(&time_zone("Asia/Tokyo"), &[message]).contains("sender=\"Alice\""));
        }

    }
}
