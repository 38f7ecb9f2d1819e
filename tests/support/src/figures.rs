//! The figures in the form for readers: the name, the target, the measured value.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

/// One row of the table.
pub struct Figure {
    what: String,
    target: String,
    measured: String,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// There is no target.
    None,
    Met,
    Missed,
}

/// The distribution of times.
pub struct Spread {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Spread {
    /// Needs at least one time.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredths: usize| times[(times.len() * hundredths / 100).min(times.len() - 1)];
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

impl Figure {
    /// A time that should be at most this many milliseconds.
    pub fn time(what: &str, measured: Duration, at_most_ms: Option<f64>) -> Self {
        Self {
            what: what.to_owned(),
            target: at_most_ms.map_or_else(String::new, |ms| format!("≤ {ms} ms")),
            measured: format!("{:.2} ms", millis(measured)),
            verdict: Verdict::of(at_most_ms.map(|at_most| millis(measured) <= at_most)),
        }
    }

    /// A part of another figure, or a value to compare with: there is no target.
    pub fn spread(what: &str, spread: &Spread) -> Self {
        let Spread { p50, p99, max } = spread;
        Self {
            what: what.to_owned(),
            target: String::new(),
            measured: format!(
                "{:.2} ms (99 %: {:.2}, longest: {:.2})",
                millis(*p50),
                millis(*p99),
                millis(*max)
            ),
            verdict: Verdict::None,
        }
    }

    /// A rate per second, which should be at least this high.
    pub fn rate(what: &str, per_second: f64, at_least: f64) -> Self {
        Self {
            what: what.to_owned(),
            target: format!("≥ {at_least:.0}/s"),
            measured: format!("{per_second:.0}/s"),
            verdict: Verdict::of(Some(per_second >= at_least)),
        }
    }

    /// A count: there is no target.
    pub fn number(what: &str, number: usize) -> Self {
        Self {
            what: what.to_owned(),
            target: String::new(),
            measured: number.to_string(),
            verdict: Verdict::None,
        }
    }

    /// Memory in kilobytes, which should be at most this many.
    pub fn kilobytes(what: &str, kilobytes: u64, at_most: Option<u64>) -> Self {
        Self {
            what: what.to_owned(),
            target: at_most.map_or_else(String::new, |at_most| format!("≤ {at_most} KB")),
            measured: format!("{kilobytes} KB"),
            verdict: Verdict::of(at_most.map(|at_most| kilobytes <= at_most)),
        }
    }

    /// Memory, which should be at most this many megabytes.
    pub fn memory(what: &str, kilobytes: u64, at_most_mb: Option<f64>) -> Self {
        let megabytes = kilobytes as f64 / 1024.0;
        Self {
            what: what.to_owned(),
            target: at_most_mb.map_or_else(String::new, |mb| format!("≤ {mb} MB")),
            measured: format!("{megabytes:.1} MB"),
            verdict: Verdict::of(at_most_mb.map(|at_most| megabytes <= at_most)),
        }
    }
}

impl Verdict {
    fn of(met: Option<bool>) -> Self {
        match met {
            None => Self::None,
            Some(true) => Self::Met,
            Some(false) => Self::Missed,
        }
    }
}

/// The figures as a table in Markdown, as `docs/performance.md` has it.
pub fn table(figures: &[Figure]) -> String {
    let mut lines = vec!["| figure | target | measured |".to_owned(), "|---|---|---|".to_owned()];
    lines.extend(figures.iter().map(|figure| {
        let missed = match figure.verdict {
            Verdict::Missed => " **missed**",
            Verdict::None | Verdict::Met => "",
        };
        format!("| {} | {} | {}{missed} |", figure.what, figure.target, figure.measured)
    }));
    lines.join("\n")
}

/// What a run of figures prints at its end, and its exit code. Figures that were taken before one that failed are
/// in the table.
pub fn take_table(take_all: impl FnOnce(&mut Vec<Figure>) -> Result<()>) -> (String, ExitCode) {
    let mut figures = Vec::new();
    let taken = take_all(&mut figures);
    let table = table(&figures);
    match taken {
        Ok(()) => (table, ExitCode::SUCCESS),
        Err(error) => {
            (format!("{table}\nThe other figures could not be taken: {error:#}"), ExitCode::FAILURE)
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
