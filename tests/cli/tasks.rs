//! `nanokimi tasks`: planning, looking, and what is refused.

use insta::assert_snapshot;
use serde_json::Value;

use crate::world::{Home, Said};

fn home() -> Home {
    Home::new().set("TZ", "Europe/Madrid")
}

fn json(said: Said) -> Value {
    serde_json::from_str(&said.done().stdout).unwrap()
}

#[test]
fn a_task_is_planned_shown_changed_and_cancelled() {
    let home = home();
    let added = home.run(&["tasks", "add", "family", "cron 0 9 1 1 *", "wish a happy\nnew year"]).done();
    assert!(added.stdout.starts_with("Task 1: ") && added.stdout.contains(" 1 Jan "), "{added:?}");
    assert!(added.stdout.contains(" 09:00 Europe/Madrid, in "), "{added:?}");
    assert_snapshot!(added.stderr, @"The service is not running; tasks come due while it is: `nanokimi run`.");
    let listed = home.run(&["tasks", "list"]).done().stdout;
    assert!(listed.starts_with("TASK  GROUP ") && listed.contains("wish a happy new year"), "{listed}");

    let edited =
        ["--schedule", "every 2h from 2026-01-01T00:00Z", "--zone", "Asia/Tokyo", "--late", "within 90m"];
    let isolated =
        ["tasks", "edit", "1", "--max-tokens", "5000", "--context", "isolated", "--only-if", "test -s news"];
    home.run(&[&isolated, &edited[..]].concat()).done();
    let task = json(home.run(&["tasks", "show", "1", "--json"]));
    assert_eq!(task["schedule"], "every 2h from 2026-01-01T00:00:00Z");
    let rest = ["zone", "late", "context", "only_if", "max_tokens", "state", "text"]
        .map(|name| task[name].to_string())
        .join(" ");
    assert_snapshot!(rest, @r#""Asia/Tokyo" "within 1h30m" "isolated" "test -s news" 5000 "active" "wish a happy\nnew year""#);

    home.run(&["tasks", "edit", "1", "--zone", "", "--late", "", "--context", ""]).done();
    let kept = json(home.run(&["tasks", "show", "1", "--json"]));
    assert_eq!(
        (&kept["zone"], &kept["late"], &kept["context"]),
        (&task["zone"], &task["late"], &task["context"])
    );

    assert_snapshot!(home.run(&["tasks", "pause", "1"]).done().stdout, @"Task 1: paused (asked)");
    assert_eq!(json(home.run(&["tasks", "list", "--json"]))[0]["next_at"], Value::Null);
    assert!(home.run(&["tasks", "resume", "1"]).done().stdout.contains("Asia/Tokyo, in "));
    assert_snapshot!(home.run(&["tasks", "history", "1", "--json"]).done().stdout, @"[]");
    assert_snapshot!(home.run(&["tasks", "run", "1"]).done().stderr, @"Task 1 runs when the service is started.");
    assert_eq!(json(home.run(&["tasks", "history", "1", "--json"]))[0]["state"], "due");
    assert_snapshot!(home.refuses(&["tasks", "run", "1"]), @"A run of this task waits or goes on; wait until it has ended");
    assert_snapshot!(home.run(&["tasks", "cancel", "1"]).done().stderr, @"Cancelled task 1 of family; nothing of it is left.");
    assert_snapshot!(home.run(&["tasks", "list"]).done().stderr, @r#"No tasks yet. `nanokimi tasks add GROUP "every 2h" TEXT` plans one."#);
}

#[test]
fn what_is_no_task_is_refused_with_what_is() {
    let home = home();
    let refuses = |schedule: &str| home.refuses(&["tasks", "add", "family", schedule, "water the plants"]);
    for (schedule, said) in [
        ("tomorrow", "write \"cron 0 9 * * MON-FRI\""),
        ("cron not a cron", "five fields for minute"),
        ("cron 0 0 30 2 *", "never comes"),
        ("every abc", "such as 90s, 30m"),
        ("every 0", "such as 90s, 30m"),
        ("every 30s", "at most once a minute"),
        ("at not-a-date", "write 2026-12-01 09:00"),
        ("at 2020-01-01 09:00", "That time has passed"),
    ] {
        let refusal = refuses(schedule);
        assert!(refusal.contains(said), "{schedule}: {refusal}");
    }
    for (option, value, said) in [
        ("--zone", "IST-2", "There is no time zone"),
        ("--late", "sometimes", "\"within 2h\""),
        ("--context", "alone", "\"isolated\", a fresh one each time"),
        ("--max-tokens", "many", "a number of tokens"),
        ("--max-tokens", "0", "above 0"),
    ] {
        let refusal = home.refuses(&["tasks", "add", "family", "every 2h", "x", option, value]);
        assert!(refusal.contains(said), "{value}: {refusal}");
    }
    assert_snapshot!(home.refuses(&["tasks", "add", "famly", "every 2h", "x"]), @"There is no group famly; `nanokimi groups list` shows those there are");
    for verb in ["show", "pause", "resume", "run", "cancel", "history"] {
        assert_eq!(home.refuses(&["tasks", verb, "7"]), "There is no task 7");
    }
    assert_snapshot!(Home::empty().refuses(&["tasks", "cancel", "7"]), @"There is no task 7");
}
