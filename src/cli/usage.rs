//! `nanokimi usage`: what each group used, day by day, and how much of its daily limit is left; and what each key of the
//! gateway used.
//!
//! The bars are for eyes only: results that go into a file or a program have no bars.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};

use super::install::Install;
use super::ui;
use crate::clock::Day;
use crate::store::{DayUsage, GroupStatus, GroupUsage, KeyUsage, Store};
use crate::types::{GroupName, KeyName, WebTraffic};
use crate::writing::normalize_typed_text;

/// Most days that one table shows.
const DAYS_MAX: u32 = 366;
/// Longest bar, in characters, and the least room that a bar needs.
const BAR_MAX: usize = 30;
const BAR_MIN: usize = 4;
/// Between two columns of a table.
const GAP: usize = 2;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many days, today included
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = parse_day_count)]
    days: u32,
    /// This group only
    #[arg(long, value_name = "NAME", value_parser = ui::parse_typed_text)]
    group: Option<String>,
}

/// The number of `--days`.
fn parse_day_count(text: &str) -> Result<u32> {
    let days = normalize_typed_text(text).parse()?;
    ensure!((1..=DAYS_MAX).contains(&days), "{days} is not in 1..={DAYS_MAX}");
    Ok(days)
}

pub async fn run_usage_command(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    let only = arguments.group.as_deref().map(GroupName::parse).transpose()?;
    let days = Day::last_days(arguments.days, install.clock.now(), &install.config.zone);
    let (mut usage, mut web, mut keys) = match install.open_store_to_read()? {
        Some(store) => (
            store.usage_by_group(days.clone()).await?,
            group_web_traffic(&store, &days).await?,
            gateway_key_usage(&store, &days).await?,
        ),
        None => (Vec::new(), Vec::new(), Vec::new()),
    };
    if let Some(only) = only {
        keys.clear();
        web.retain(|(group, _)| *group == only);
        usage.retain(|group| group.name == only);
        if usage.is_empty() {
            bail!("There is no group {only}; `nanokimi groups list` shows those there are");
        }
    }
    if usage.is_empty() && !keys.is_empty() {
        ui::print_table(&gateway_key_rows(&keys))?;
        return Ok(ExitCode::SUCCESS);
    }
    if usage.is_empty() {
        ui::print_info(
            "Nothing was used yet, as there are no groups. `nanokimi setup` makes your main channel on WhatsApp, \
             `nanokimi groups add main --main` one at this terminal.",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let by_day = daily_usage_rows(&days, &usage, ui::result_columns());
    if by_day.is_empty() {
        ui::print_info(match arguments.days {
            1 => "No turns today.".to_owned(),
            days => format!("No turns in the last {days} days."),
        });
    } else {
        ui::print_table(&by_day)?;
        ui::print_result("")?;
    }
    ui::print_table(&total_usage_rows(&usage))?;
    if !web.is_empty() {
        ui::print_result("")?;
        ui::print_table(&web_traffic_rows(&web))?;
    }
    if !keys.is_empty() {
        ui::print_result("")?;
        ui::print_table(&gateway_key_rows(&keys))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What each key of the gateway used in these days, all together.
async fn gateway_key_usage(store: &Store, days: &[Day]) -> Result<Vec<(KeyName, KeyUsage)>> {
    match days {
        [] => Ok(Vec::new()),
        [first, ..] => store.gateway_usage_by_key(first.date, days[days.len() - 1].date).await,
    }
}

/// A row for each key of the gateway that was used.
fn gateway_key_rows(keys: &[(KeyName, KeyUsage)]) -> Vec<Vec<String>> {
    let header = ["GATEWAY KEY", "REQUESTS", "INPUT", "CACHED", "OUTPUT"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (name, KeyUsage { requests, tokens }) in keys {
        let mut row = vec![name.to_string()];
        row.extend([*requests, tokens.input, tokens.cached, tokens.output].map(|number| number.to_string()));
        rows.push(row);
    }
    ui::align_right(&mut rows, 1..5);
    rows
}

/// What each group's agent moved on the web in these days, all together.
async fn group_web_traffic(store: &Store, days: &[Day]) -> Result<Vec<(GroupName, WebTraffic)>> {
    match days {
        [] => Ok(Vec::new()),
        [first, ..] => store.web_traffic_by_group(first.date, days[days.len() - 1].date).await,
    }
}

/// A row for each group that was on the web.
fn web_traffic_rows(web: &[(GroupName, WebTraffic)]) -> Vec<Vec<String>> {
    let mut rows = vec![["GROUP", "BYTES TO THE WEB", "BYTES FROM IT"].map(str::to_owned).to_vec()];
    for (name, WebTraffic { sent, received }) in web {
        rows.push(vec![name.to_string(), sent.to_string(), received.to_string()]);
    }
    ui::align_right(&mut rows, 1..3);
    rows
}

/// A row for each day of each group in which it did something, with its bar if there is room; nothing if
/// there is no such day.
fn daily_usage_rows(days: &[Day], usage: &[GroupUsage], columns: Option<usize>) -> Vec<Vec<String>> {
    let mut rows = vec![["GROUP", "DAY", "TURNS", "INPUT", "CACHED", "OUTPUT"].map(str::to_owned).to_vec()];
    let mut counted = Vec::new();
    for group in usage {
        for (day, used) in days.iter().zip(&group.days).filter(|(_, used)| **used != DayUsage::default()) {
            let mut row = vec![group.name.to_string(), day.date.to_string()];
            row.extend(usage_cells(*used));
            rows.push(row);
            counted.push(used.tokens.counted_tokens());
        }
    }
    let Some(most) = counted.iter().copied().max() else { return Vec::new() };
    ui::align_right(&mut rows, 2..6);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + GAP;
    let taken: usize = (0..rows[0].len()).map(width).sum();
    let room = columns.unwrap_or(0).saturating_sub(taken).min(BAR_MAX);
    if room >= BAR_MIN {
        for (row, counted) in rows.iter_mut().skip(1).zip(counted) {
            row.push(ui::render_bar(counted, most, room));
        }
    }
    rows
}

/// A row for each group: all its days together, and its limit.
fn total_usage_rows(usage: &[GroupUsage]) -> Vec<Vec<String>> {
    let header = ["GROUP", "TURNS", "INPUT", "CACHED", "OUTPUT", "TODAY", "LIMIT A DAY"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for GroupUsage { name, standing, days } in usage {
        let mut all = DayUsage::default();
        for used in days {
            all.turns += used.turns;
            all.tokens += used.tokens;
        }
        let today = days.last().map_or(0, |used| used.tokens.counted_tokens());
        let mut row = vec![name.to_string()];
        row.extend(usage_cells(all));
        row.push(today.to_string());
        row.push(render_daily_limit(*standing, today));
        rows.push(row);
    }
    ui::align_right(&mut rows, 1..6);
    rows
}

fn usage_cells(used: DayUsage) -> [String; 4] {
    [used.turns, used.tokens.input, used.tokens.cached, used.tokens.output].map(|number| number.to_string())
}

/// A group's daily limit, and how much of it today has taken.
fn render_daily_limit(standing: GroupStatus, today: u64) -> String {
    match standing {
        GroupStatus::Removed => "(removed)".to_owned(),
        GroupStatus::Served { daily_tokens: None } => "-".to_owned(),
        GroupStatus::Served { daily_tokens: Some(limit) } if today >= limit => format!("{limit} (used up)"),
        GroupStatus::Served { daily_tokens: Some(limit) } => {
            format!("{limit} ({} % used)", u128::from(today) * 100 / u128::from(limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TokenUsage;

    fn used(turns: u64, input: u64, output: u64) -> DayUsage {
        DayUsage { turns, tokens: TokenUsage { input, cached: input / 2, output } }
    }

    /// A table's lines as a terminal of so many columns shows them.
    fn drawn(usage: &[GroupUsage], columns: Option<usize>) -> String {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let rows = daily_usage_rows(&Day::last_days(3, now, &jiff::tz::TimeZone::UTC), usage, columns);
        let widths: Vec<usize> = (0..7)
            .map(|column| {
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        assert!(lines.iter().all(|line| line.chars().count() <= columns.unwrap_or(usize::MAX)), "{lines:#?}");
        lines.join("\n")
    }

    fn usage() -> Vec<GroupUsage> {
        let group = |name: &str, days: [DayUsage; 3]| GroupUsage {
            name: GroupName::parse(name).unwrap(),
            standing: GroupStatus::Served { daily_tokens: None },
            days: days.to_vec(),
        };
        vec![
            group("main", [used(3, 1_000_000, 9_000), DayUsage::default(), used(1, 500_000, 4_000)]),
            group(
                "a-family-with-a-longer-name",
                [DayUsage::default(), used(12, 2_500, 100), DayUsage::default()],
            ),
        ]
    }

    #[test]
    fn bars_take_the_room_that_is_left() {
        insta::assert_snapshot!(drawn(&usage(), Some(80)), @"
        GROUP                        DAY         TURNS    INPUT  CACHED  OUTPUT
        main                         2026-11-19      3  1000000  500000    9000  ███████
        main                         2026-11-21      1   500000  250000    4000  ███▍
        a-family-with-a-longer-name  2026-11-20     12     2500    1250     100  ▏
        ");
        insta::assert_snapshot!(drawn(&usage()[..1], Some(80)), @"
        GROUP  DAY         TURNS    INPUT  CACHED  OUTPUT
        main   2026-11-19      3  1000000  500000    9000  █████████████████████████████
        main   2026-11-21      1   500000  250000    4000  ██████████████▍
        ");
        insta::assert_snapshot!(drawn(&usage()[..1], Some(50)), @"
        GROUP  DAY         TURNS    INPUT  CACHED  OUTPUT
        main   2026-11-19      3  1000000  500000    9000
        main   2026-11-21      1   500000  250000    4000
        ");
        assert_eq!(drawn(&usage()[..1], None), drawn(&usage()[..1], Some(50)));
    }

    #[test]
    fn a_limit_is_shown_with_what_today_has_taken() {
        for (daily_tokens, today, expected) in [
            (None, 5, "-"),
            (Some(200), 0, "200 (0 % used)"),
            (Some(200), 199, "200 (99 % used)"),
            (Some(200), 200, "200 (used up)"),
            (Some(0), 0, "0 (used up)"),
        ] {
            assert_eq!(render_daily_limit(GroupStatus::Served { daily_tokens }, today), expected);
        }
    }
}
