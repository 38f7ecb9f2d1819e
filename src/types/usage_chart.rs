//! The tokens of some days, as a picture shows them.

use std::fmt::{self, Display};

use anyhow::{Context, Result};
use jiff::ToSpan;
use jiff::civil::Date;

/// The tokens of some days in a row, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageChart {
    pub last_day: Date,
    pub days: Vec<ChartDay>,
}

/// The tokens of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChartDay {
    /// In all chats.
    pub in_all: u64,
    /// In the chat that is shown the picture.
    pub in_chat: u64,
}

impl UsageChart {
    /// The date of each day.
    pub fn dates(&self) -> impl Iterator<Item = Date> {
        let before =
            |days: usize| self.last_day.saturating_sub(i64::try_from(days).unwrap_or(i64::MAX).days());
        (0..self.days.len()).rev().map(before)
    }

    /// The inverse of [`Display`], which is how it is kept.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse_stored_text(text: &str) -> Result<Self> {
        let (date, days) = text.split_once(' ').context("A chart has no days")?;
        let read_day = |day: &str| -> Result<ChartDay> {
            let (all, chat) = day.split_once('/').context("A day of a chart has one number")?;
            Ok(ChartDay { in_all: all.parse()?, in_chat: chat.parse()? })
        };
        Ok(Self { last_day: date.parse()?, days: days.split(' ').map(read_day).collect::<Result<_>>()? })
    }
}

impl Display for UsageChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.last_day)?;
        self.days.iter().try_for_each(|day| write!(f, " {}/{}", day.in_all, day.in_chat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_as_a_text() {
        let day = |in_all, in_chat| ChartDay { in_all, in_chat };
        let chart = UsageChart {
            last_day: "2026-03-01".parse().unwrap(),
            days: vec![day(3_000, 10), day(0, 0), day(u64::MAX, 7)],
        };
        let text = chart.to_string();
        assert_eq!(text, "2026-03-01 3000/10 0/0 18446744073709551615/7");
        assert_eq!(UsageChart::parse_stored_text(&text).unwrap(), chart);
        let dates: Vec<String> = chart.dates().map(|date| date.to_string()).collect();
        assert_eq!(dates, ["2026-02-27", "2026-02-28", "2026-03-01"]);
        for wrong in ["", "2026-03-01", "x 1/2", "2026-03-01 1", "2026-03-01 1/2 x/3", "2026-13-01 1/2"] {
            assert!(UsageChart::parse_stored_text(wrong).is_err(), "{wrong:?}");
        }
    }
}
