//! `nanokimi usage`: the tokens and turns of each group by day. If the output is a pipe, it is a plain table
//! without bars.

use insta::assert_snapshot;
use nanokimi::clock::Clock;
use rusqlite::Connection;

use crate::world::Home;

/// A time zone in which it is about noon, so that no day ends during a test.
fn noon_zone() -> String {
    let hour = Clock::System.now().to_zoned(jiff::tz::TimeZone::UTC).hour();
    // In these names, zones east of Greenwich have a minus.
    format!("Etc/GMT{:+}", hour - 12)
}

/// The midnight, in that zone, at the beginning of the day this many days ago.
fn midnight(days: i64) -> jiff::Zoned {
    let today = Clock::System.now().in_tz(&noon_zone()).unwrap().start_of_day().unwrap();
    &today - jiff::SignedDuration::from_hours(24 * days)
}

/// In milliseconds.
fn at_midnight(days: i64) -> i64 {
    midnight(days).timestamp().as_millisecond()
}

fn turn(home: &Home, group: &str, began_at: i64, tokens: [i64; 3]) {
    let [input, cached, output] = tokens;
    Connection::open(home.database())
        .unwrap()
        .execute(
            "INSERT INTO turns (group_name, began_at, ended_at, outcome, input_tokens, cached_tokens, output_tokens)
             VALUES (?1, ?2, ?2, 'failed', ?3, ?4, ?5)",
            rusqlite::params![group, began_at, input, cached, output],
        )
        .unwrap();
}

/// The text with the dates replaced, so that it is the same on every day.
fn dated(said: &str) -> String {
    let date = |days| midnight(days).date().to_string();
    said.replace(&date(0), "----today-").replace(&date(1), "-yesterday").replace(&date(9), "9-days-ago")
}

#[test]
fn each_group_has_its_days_and_its_limit() {
    let home = Home::new().set("TZ", &noon_zone());
    home.run(&["groups", "set", "family", "--daily-tokens", "20_000"]).done();
    home.run(&["groups", "add", "gone"]).done();
    turn(&home, "main", at_midnight(1), [120_000, 100_000, 3_000]);
    turn(&home, "main", at_midnight(0), [1_000, 0, 50]);
    turn(&home, "main", at_midnight(1) - 1, [9, 9, 9]);
    turn(&home, "family", at_midnight(0), [5_000, 4_000, 500]);
    turn(&home, "family", at_midnight(0) + 1, [600, 0, 60]);
    turn(&home, "gone", at_midnight(9), [70, 7, 7]);
    home.run(&["groups", "remove", "gone"]).done();
    let said = home.run(&["usage", "--days", "2"]).done();
    assert_eq!(said.stderr, "");
    assert_snapshot!(dated(&said.stdout), @"
    GROUP   DAY         TURNS   INPUT  CACHED  OUTPUT
    main    -yesterday      1  120000  100000    3000
    main    ----today-      1    1000       0      50
    family  ----today-      2    5600    4000     560

    GROUP   TURNS   INPUT  CACHED  OUTPUT  TODAY  LIMIT A DAY
    main        2  121000  100000    3050   1050  -
    family      2    5600    4000     560   6160  20000 (30 % used)
    gone        0       0       0       0      0  (removed)
    ");
    assert_snapshot!(dated(&home.run(&["usage", "--days", "10", "--group", "gone"]).done().stdout), @"
    GROUP  DAY         TURNS  INPUT  CACHED  OUTPUT
    gone   9-days-ago      1     70       7       7

    GROUP  TURNS  INPUT  CACHED  OUTPUT  TODAY  LIMIT A DAY
    gone       1     70       7       7      0  (removed)
    ");

    home.run(&["groups", "set", "family", "--daily-tokens", "6000"]).done();
    let said = home.run(&["usage", "--days", "1", "--group", "family"]).done();
    assert_snapshot!(said.stdout.lines().last().unwrap(), @"family      2   5600    4000     560   6160  6000 (used up)");
}

#[test]
fn who_was_on_the_web_is_shown_with_what_it_moved() {
    let home = Home::new().set("TZ", &noon_zone());
    let moved = |group: &str, days: i64, sent: i64, received: i64| {
        Connection::open(home.database())
            .unwrap()
            .execute(
                "INSERT INTO web_traffic (group_name, day, sent_bytes, received_bytes) VALUES (?1, ?2, ?3, ?4)",
                rusqlite::params![group, midnight(days).date().to_string(), sent, received],
            )
            .unwrap();
    };
    moved("family", 0, 1_000, 50_000);
    moved("family", 1, 20, 300);
    moved("main", 9, 7, 7);
    assert_snapshot!(home.run(&["usage"]).done().stdout, @"
    GROUP   TURNS  INPUT  CACHED  OUTPUT  TODAY  LIMIT A DAY
    main        0      0       0       0      0  -
    family      0      0       0       0      0  -

    GROUP   BYTES TO THE WEB  BYTES FROM IT
    family              1020          50300
    ");
    let main = home.run(&["usage", "--days", "10", "--group", "main"]).done().stdout;
    assert_snapshot!(main.lines().last().unwrap(), @"main                  7              7");
}

#[test]
fn where_nothing_was_used_it_says_so() {
    let home = Home::empty();
    assert_snapshot!(home.run(&["usage"]).done().stderr, @"Nothing was used yet, as there are no groups. `nanokimi setup` makes your main channel on WhatsApp, `nanokimi groups add main --main` one at this terminal.");
    assert!(home.listing().is_empty(), "{:?}", home.listing());
    let said = Home::new().run(&["usage"]).done();
    assert_snapshot!(said.stderr, @"No turns in the last 7 days.");
    assert_snapshot!(said.stdout, @"
    GROUP   TURNS  INPUT  CACHED  OUTPUT  TODAY  LIMIT A DAY
    main        0      0       0       0      0  -
    family      0      0       0       0      0  -
    ");
}

#[test]
fn a_group_that_never_was_is_named_and_so_are_too_many_days() {
    assert_snapshot!(Home::new().refuses(&["usage", "--group", "famly"]), @"There is no group famly; `nanokimi groups list` shows those there are");
    let said = Home::new().run(&["usage", "--days", "0"]);
    assert_eq!(said.code, Some(2));
    assert_snapshot!(said.stderr.lines().next().unwrap(), @"error: invalid value '0' for '--days <N>': 0 is not in 1..=366");
}

/// On a terminal of 80 columns there are bars, and no line is broken.
#[test]
fn on_a_terminal_there_are_bars() {
    let home = Home::new().set("TZ", &noon_zone()).set("TERM", "xterm");
    turn(&home, "main", at_midnight(0), [1_000, 0, 0]);
    turn(&home, "main", at_midnight(1), [500, 0, 0]);
    let program = home.command(&["usage"]);
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = std::process::Command::new("script");
    script.args([
        "--quiet",
        "--return",
        "--command",
        &format!("stty cols 80; {}", words.join(" ")),
        "/dev/null",
    ]);
    script
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(home.path(""));
    script.stdin(std::process::Stdio::null());
    let said = home.said(script.output().unwrap()).done();
    let lines: Vec<&str> = said.stdout.lines().map(str::trim_end).collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert_snapshot!(dated(&lines[..3].join("\n")), @"
    GROUP  DAY         TURNS  INPUT  CACHED  OUTPUT
    main   -yesterday      1    500       0       0
    main   ----today-      1   1000       0       0
    ");
}
