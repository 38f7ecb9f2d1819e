//! How a library may warn without naming people. WhatsApp's library names them in its warnings, under many
//! names of its own (`Client/TcToken`, `usync`). So if a library is not known to be discreet, the log shows
//! where it warned and how often, and never its words. Those are shown at `debug`, where everything may be
//! told.

use crate::panics::lock_unpoisoned;
use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The libraries that never name people in what they warn of.
pub const DISCREET_LIBRARIES: [&str; 6] = ["axum", "bollard", "hyper", "hyper_util", "reqwest", "rustls"];
/// Ours, whose words are shown.
pub const OURS: &str = "nanokimi";
/// How long a library's warning is counted before it is told again: some come with every message.
const TOLD_AGAIN: Duration = Duration::from_secs(60 * 60);
/// More places than WhatsApp's library warns from.
const PLACES_MAX: usize = 1024;

/// Writes lines, of an indiscreet library without its words.
pub struct DiscreetFormat<F> {
    lines: F,
    /// Whether words, names and numbers of people may be shown.
    tells_everything: bool,
    warned: Mutex<HashMap<WarningCallsite, WarningCount>>,
}

/// Where a library warns: a module and a line, which are the library's own and never a person's.
type WarningCallsite = (String, Option<u64>);

#[derive(Clone, Copy)]
struct WarningCount {
    told_at: Instant,
    untold: u64,
}

impl<S, N, F> FormatEvent<S, N> for DiscreetFormat<F>
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
        let place = EventSource::from_event(event);
        if self.tells_everything || place.is_discreet() {
            return self.lines.format_event(context, writer, event);
        }
        let Some(untold) = self.count_warning(place.warning_callsite()) else { return Ok(()) };
        SystemTime.format_time(&mut writer)?;
        let level = event.metadata().level();
        let (module, line) = (&place.module, place.line.unwrap_or_default());
        write!(writer, " {level:>5} A library warns in {module}, line {line}")?;
        if untold > 0 {
            write!(writer, ", {untold} more times since it was last told")?;
        }
        writeln!(writer, "; LOG_LEVEL=debug shows its words, which may name people")
    }
}

impl<F> DiscreetFormat<F> {
    pub fn new(lines: F, tells_everything: bool) -> Self {
        Self { lines, tells_everything, warned: Mutex::default() }
    }

    /// Counts a warning. If it is to be shown, gives how many before it were not.
    fn count_warning(&self, place: WarningCallsite) -> Option<u64> {
        let now = Instant::now();
        let mut warned = lock_unpoisoned(&self.warned);
        if warned.len() >= PLACES_MAX {
            warned.clear();
        }
        match warned.get_mut(&place) {
            Some(before) if now - before.told_at < TOLD_AGAIN => {
                before.untold += 1;
                None
            }
            Some(before) => {
                let untold = before.untold;
                *before = WarningCount { told_at: now, untold: 0 };
                Some(untold)
            }
            None => {
                warned.insert(place, WarningCount { told_at: now, untold: 0 });
                Some(0)
            }
        }
    }
}

/// Which code an event comes from. What goes through the `log` crate carries that in fields of its own.
#[derive(Debug)]
struct EventSource {
    target: String,
    module: String,
    line: Option<u64>,
}

impl EventSource {
    fn from_event(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut source = Self {
            target: metadata.target().to_owned(),
            module: metadata.module_path().unwrap_or("a library").to_owned(),
            line: metadata.line().map(u64::from),
        };
        event.record(&mut source);
        source
    }

    fn is_discreet(&self) -> bool {
        let (library, _) = self.target.split_once("::").unwrap_or((&self.target, ""));
        library == OURS || DISCREET_LIBRARIES.contains(&library)
    }

    fn warning_callsite(&self) -> WarningCallsite {
        (self.module.clone(), self.line)
    }
}

impl Visit for EventSource {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => value.clone_into(&mut self.target),
            "log.module_path" => value.clone_into(&mut self.module),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_library_that_warns_all_the_time_is_told_once_an_hour_with_how_often() {
        let discreet = DiscreetFormat::new((), false);
        let place = || ("whatsapp_rust::send".to_owned(), Some(7));
        assert_eq!(discreet.count_warning(place()), Some(0));
        for _ in 0..5 {
            assert_eq!(discreet.count_warning(place()), None);
        }
        assert_eq!(discreet.count_warning(("whatsapp_rust::send".to_owned(), Some(8))), Some(0));
        tokio::time::advance(TOLD_AGAIN).await;
        assert_eq!(discreet.count_warning(place()), Some(5));
        assert_eq!(discreet.count_warning(place()), None);
    }
}
