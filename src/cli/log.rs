//! The log: to stderr, a line for each event. An agent's words may stand in it. So nothing in a line moves a
//! cursor or turns the writing around, and a rate limit holds for each place in the code.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::discreet::{DISCREET_LIBRARIES, DiscreetFormat, OURS};
use super::ui;
use crate::panics::lock_unpoisoned;

/// What one place in the code may write in [`SHARE_TIME`]: some four hundred lines.
const SHARE_BYTES: usize = 64 * 1024;
/// The same if somebody asked for details.
const SHARE_OF_DETAILS_BYTES: usize = 1024 * 1024;
const SHARE_TIME: Duration = Duration::from_secs(60);
/// Longest value in a line, in bytes as it is written: a screenful.
const VALUE_MAX: usize = 4 * 1024;

/// Whether words, names and numbers of people may be shown.
fn may_show_personal_data(level: &str) -> bool {
    ["debug", "trace"].contains(&level)
}

/// What is heard at a level: ours as it was asked for, a library's only when it warns, and at `error` only
/// when it fails and is discreet.
fn log_filter(level: &str) -> Targets {
    // The settings let no other word through.
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    if level == LevelFilter::ERROR {
        return Targets::new()
            .with_targets(DISCREET_LIBRARIES.map(|library| (library, level)))
            .with_target(OURS, level);
    }
    Targets::new().with_default(LevelFilter::WARN).with_target(OURS, level)
}

/// Starts the log.
pub fn start_log(level: &str) {
    // Colours are for people who look on; in a file or the journal they are noise.
    let colours = io::stderr().is_terminal();
    log_subscriber(level, colours, io::stderr).init();
}

/// From now on a panic is told by its place in the code: its words may be a piece of a message.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(log_panic_place));
}

fn log_panic_place(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    if tracing::dispatcher::has_been_set() {
        tracing::error!(place, "nanokimi has a fault; please report the place");
        tracing::debug!("What it said: {}", panic.payload_as_str().unwrap_or_default());
    } else {
        ui::print_info(format!("nanokimi has a fault; please report the place: {place}"));
    }
}

/// The log of a level, written to `writer`.
pub fn log_subscriber<W>(level: &str, colours: bool, writer: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::format().with_target(false).with_ansi(colours);
    let lines = DiscreetFormat::new(lines, may_show_personal_data(level));
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(colours)
        .with_writer(writer)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .event_format(RateLimitedFormat { lines, shares: Mutex::default() })
        .finish()
        .with(log_filter(level))
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name().starts_with("log.") {
        // Where a line of a library comes from, which the line's head says.
        return Ok(());
    }
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(SanitizingWriter { writer, room: VALUE_MAX }, "{value:?}")
}

/// Writes with nothing that moves a cursor, and no more than there is room for.
struct SanitizingWriter<'a, W> {
    writer: &'a mut W,
    room: usize,
}

impl<W: Write> Write for SanitizingWriter<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.room == 0 {
                return Ok(());
            }
            let before = self.room;
            if ui::is_unsafe_on_terminal(character) {
                let escaped = character.escape_default();
                self.room = before.saturating_sub(escaped.len());
                write!(self.writer, "{escaped}")?;
            } else {
                self.room = before.saturating_sub(character.len_utf8());
                self.writer.write_char(character)?;
            }
            if self.room == 0 {
                self.writer.write_char('…')?;
            }
        }
        Ok(())
    }
}

/// Lines, of which each place in the code has its share.
struct RateLimitedFormat<F> {
    lines: F,
    shares: Mutex<HashMap<Identifier, CallsiteBudget>>,
}

impl<S, N, F> FormatEvent<S, N> for RateLimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let most =
            if *event.metadata().level() <= Level::INFO { SHARE_BYTES } else { SHARE_OF_DETAILS_BYTES };
        let now = Instant::now();
        let left_out = {
            let mut shares = lock_unpoisoned(&self.shares);
            shares.entry(event.metadata().callsite()).or_insert_with(|| CallsiteBudget::new(now)).admit_line(
                line.len(),
                most,
                now,
            )
        };
        match left_out {
            None => return Ok(()),
            Some(0) => {}
            Some(lines) => writeln!(writer, "({lines} lines like the next one were left out)")?,
        }
        writer.write_str(&line)
    }
}

/// What a place in the code has written in the running minute.
#[derive(Debug)]
struct CallsiteBudget {
    since: Instant,
    bytes: usize,
    left_out: usize,
}

impl CallsiteBudget {
    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, left_out: 0 }
    }

    /// Whether a line is to be written; if so, how many before it were not.
    fn admit_line(&mut self, bytes: usize, most: usize, now: Instant) -> Option<usize> {
        if now.duration_since(self.since) >= SHARE_TIME {
            (self.since, self.bytes) = (now, 0);
        }
        if self.bytes + bytes > most {
            self.left_out += 1;
            return None;
        }
        self.bytes += bytes;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    /// A log that a test reads.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log() -> (Log, impl Fn() -> Log) {
        let log = Log::default();
        let writer = log.clone();
        (log, move || writer.clone())
    }

    #[test]
    fn no_value_moves_the_cursor_or_goes_on_for_ever() {
        let (log, writer) = log();
        tracing::subscriber::with_default(log_subscriber("debug", false, writer), || {
            let said = "\x1b]52;c;cm0=\x07\r\nERROR forged\u{9b}2J\u{202e}\u{2028}é 你";
            tracing::debug!(line = %said, words = said, "It said {said}");
            let _span = tracing::info_span!("session", group = said).entered();
            tracing::info!(long = "x".repeat(10_000), "Words");
        });
        let text = log.text();
        let lines: Vec<&str> = text.lines().collect();
        let plain = "\\u{1b}]52;c;cm0=\\u{7}\\r\\nERROR forged\\u{9b}2J\\u{202e}\\u{2028}é 你";
        assert!(lines[0].contains(&format!("It said {plain} line={plain} words=")), "{text}");
        assert!(lines[1].contains("session{group=") && lines[1].contains("x…"), "{text}");
        assert_eq!(lines.len(), 2, "{text}");
        assert!(!text.chars().any(|c| ui::is_unsafe_on_terminal(c) && c != '\n'), "{text:?}");
        assert!(text.len() < 6_000, "{}", text.len());
    }

    #[test]
    fn an_agent_cannot_fill_the_log() {
        let (log, writer) = log();
        tracing::subscriber::with_default(log_subscriber("debug", false, writer), || {
            for number in 0..20_000 {
                tracing::warn!("flood {number} {}", "x".repeat(300));
                tracing::debug!("detail {number} {}", "x".repeat(300));
            }
            tracing::warn!("of another place");
        });
        let text = log.text();
        let bytes = |word| text.lines().filter(|line| line.contains(word)).map(str::len).sum::<usize>();
        assert!((SHARE_BYTES - 1_000..=SHARE_BYTES).contains(&bytes("flood")), "{}", bytes("flood"));
        let details = SHARE_OF_DETAILS_BYTES - 10_000..=SHARE_OF_DETAILS_BYTES;
        assert!(details.contains(&bytes("detail")), "{}", bytes("detail"));
        assert_eq!(text.lines().filter(|line| line.contains("another place")).count(), 1);
    }

    #[test]
    fn what_was_left_out_is_told_when_the_minute_is_over() {
        let began = Instant::now();
        let mut share = CallsiteBudget::new(began);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(share.admit_line(60, 100, at(0)), Some(0));
        assert_eq!(share.admit_line(60, 100, at(1)), None);
        assert_eq!(share.admit_line(60, 100, at(59)), None);
        assert_eq!(share.admit_line(40, 100, at(59)), Some(2), "what fits is written");
        assert_eq!(share.admit_line(1, 100, at(59)), None);
        assert_eq!(share.admit_line(100, 100, at(60)), Some(1));
    }

    #[test]
    fn the_words_of_a_panic_are_told_to_nobody_but_those_who_ask_for_details() {
        let before = std::panic::take_hook();
        install_panic_hook();
        let told = ["info", "debug"].map(|level| {
            let (log, writer) = log();
            tracing::subscriber::with_default(log_subscriber(level, false, writer), || {
                let said = "what Ana wrote\x1b[2J";
                std::panic::catch_unwind(|| panic!("{said}")).unwrap_err();
            });
            log.text()
        });
        std::panic::set_hook(before);
        assert!(told.iter().all(|text| text.contains("place=\"src/cli/log.rs:")), "{told:?}");
        assert!(
            !told[0].contains("Ana") && told[1].contains("What it said: what Ana wrote\\u{1b}[2J"),
            "{told:?}"
        );
    }

    /// What a log of this level says of what happens, without times and levels.
    fn told(level: &str, happens: impl Fn()) -> Vec<String> {
        let (log, writer) = log();
        tracing::subscriber::with_default(log_subscriber(level, false, writer), happens);
        let text = log.text();
        // Behind the time and the level, which has two spaces before it if it is short.
        text.lines().map(|line| line[28..].trim_start().split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn whatsapps_library_is_heard_and_never_names_people_in_the_log_of_everyday() {
        let happens = || {
            tracing::info!(target: "nanokimi::bridge", "ours tells");
            tracing::warn!(target: "nanokimi::bridge", "ours warns");
            tracing::error!(target: "nanokimi::bridge", "ours failed");
            tracing::warn!(target: "bollard::docker", "Docker warns");
            tracing::info!(target: "whatsapp_rust::client", "+34600111222");
            tracing::warn!(target: "usync", number = "+34600111222", "+34600111222");
            tracing::error!(target: "whatsapp_rust::client", "+34600111222");
            tracing::error!(target: "nanokimi_not_ours", "+34600111222");
        };
        let ours = ["ours tells", "ours warns", "ours failed", "Docker warns"];
        for (level, expected, libraries) in
            [("error", &ours[2..3], 1), ("warn", &ours[1..], 3), ("info", &ours[..], 3)]
        {
            let told = told(level, happens);
            assert_eq!(told[..expected.len()], *expected, "{level}");
            let others = &told[expected.len()..];
            assert_eq!(others.len(), libraries, "{level}: {others:?}");
            for line in others {
                assert!(line.starts_with("A library warns in nanokimi::cli::log::tests, line "), "{line}");
                assert!(!line.contains("34600111222"), "{line}");
            }
        }
        let everything = told("debug", happens);
        assert_eq!(everything.iter().filter(|line| line.contains("+34600111222")).count(), 3);
    }

    #[test]
    fn a_library_that_goes_through_the_log_crate_is_told_by_its_own_place() {
        let told = told("info", || {
            let (library, module) = ("Client/TcToken", "whatsapp_rust::send");
            tracing::warn!(target: "log", { log.target = library, log.module_path = module, log.line = 7_u64 },
                           "Phash mismatch for +34600111222");
            let library = "bollard::docker";
            tracing::warn!(target: "log", { log.target = library, log.module_path = library, log.line = 3_u64 },
                           "Docker warns");
        });
        assert!(told[0].starts_with("A library warns in whatsapp_rust::send, line 7;"), "{told:?}");
        assert!(told[1].starts_with("Docker warns"), "{told:?}");
    }
}
