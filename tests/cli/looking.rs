//! `status`, `groups list` and `doctor`: they only look, create nothing, and say how to begin.

use std::process::Stdio;

use insta::assert_snapshot;

use crate::world::Home;

#[test]
fn on_a_fresh_machine_looking_makes_nothing_and_says_how_to_begin() {
    let home = Home::empty();
    assert_snapshot!(home.run(&["status"]).done().stderr, @"There is no install in HOME/nanokimi yet. `nanokimi auth` begins one; `nanokimi demo` is a first look.");
    assert_snapshot!(home.run(&["groups", "list"]).done().stderr, @"No groups yet. `nanokimi setup` makes your main channel on WhatsApp, `nanokimi groups add main --main` one at this terminal.");
    let doctor = home.run(&["doctor"]);
    assert_eq!((doctor.code, doctor.stderr.as_str()), (Some(1), ""));
    assert_snapshot!(without_free_room(&doctor.stdout), @"
    ok       The settings of HOME/nanokimi are good
    BROKEN   Docker does not answer at HOME/run/docker.sock
             → Start it with `systemctl --user start docker`; docs/operating.md says how to set it up
    ok       The engine's config.toml will be written at the first start
    BROKEN   Nobody is logged in to Kimi; run `nanokimi login`
             → Or put MOONSHOT_API_KEY=sk-… into HOME/nanokimi/.env
    warning  No WhatsApp account is linked
             → Run `nanokimi auth`
    warning  There is no install in HOME/nanokimi yet
             → Run `nanokimi auth`, then `nanokimi setup`
    ");
    assert!(home.listing().is_empty(), "{:?}", home.listing());
}

#[test]
fn a_folder_is_an_install_once_something_is_kept_in_it_and_a_checkout_is_none() {
    let home = Home::empty();
    home.write("checkout/groups/global/KIMI.md", "");
    home.write("checkout/store/.gitkeep", "");
    let in_it = |home: &Home, arguments: &[&str]| {
        let output = home.command(arguments).current_dir(home.path("checkout")).output().unwrap();
        home.said(output)
    };
    in_it(&home, &["groups", "add", "main"]).done();
    assert!(home.database().exists(), "the install is ~/nanokimi, not the checkout");
    for kept in ["checkout/store/nanokimi.db", "checkout/store/auth/keys"] {
        let home = Home::empty();
        home.write("checkout/groups/global/KIMI.md", "");
        home.write(kept, "");
        let doctor = in_it(&home, &["doctor"]).stdout;
        assert!(doctor.starts_with("ok       The settings of HOME/checkout are good"), "{kept}: {doctor}");
    }
}

#[test]
fn nobody_is_led_to_an_install_that_an_agent_has_planted() {
    let home = Home::new();
    for planted in ["groups/family", "groups/family/photos", "data/sessions/family", "data/agents/family"] {
        let place = format!("nanokimi/{planted}");
        home.write(&format!("{place}/groups/global/KIMI.md"), "");
        home.write(&format!("{place}/store/nanokimi.db"), "");
        home.write(&format!("{place}/store/auth/keys"), "");
        home.write(&format!("{place}/.env"), "KIMI_CODE_OAUTH_HOST=https://mallory.example\n");
        let there = |arguments: &[&str]| {
            let output = home.command(arguments).current_dir(home.path(&place)).output().unwrap();
            home.said(output)
        };
        let doctor = there(&["doctor"]).stdout;
        assert!(doctor.starts_with("ok       The settings of HOME/nanokimi are good"), "{planted}: {doctor}");
        assert!(there(&["groups", "list"]).done().stdout.contains("family"));
        let planted_store = std::fs::read(home.path(&format!("{place}/store/nanokimi.db"))).unwrap();
        assert!(planted_store.is_empty(), "{planted}: nothing is written there");
    }
    // A path that depends on the current folder does not work either.
    let home = Home::new().set("NANOKIMI_HOME", "nanokimi/groups/family");
    assert_snapshot!(home.refuses(&["status"]), @"NANOKIMI_HOME=nanokimi/groups/family is not a whole path; write it from the beginning, with /");
}

#[test]
fn the_groups_are_a_table() {
    let home = Home::new();
    home.run(&["groups", "add", "work", "--chat", "1203630@g.us", "--trigger", "@Ana"]).done();
    let said = home.run(&["groups", "list"]).done();
    assert_eq!(said.stderr, "");
    assert_snapshot!(said.stdout, @"
    NAME    LISTENS TO  ENGINE     WEB  TOKENS A DAY  CHAT
    main    everything  kimi-code  web  -             console:main
    family  @Kai        kimi-code  web  -             console:family
    work    @Ana        kimi-code  web  -             1203630@g.us
    ");
}

#[test]
fn status_is_a_table() {
    let said = Home::new().set("AGENTS_MEMORY_MB", "1536").run(&["status"]).done();
    assert_eq!(said.stderr, "");
    assert_snapshot!(said.stdout, @"
    install              HOME/nanokimi
    service              not running; `nanokimi service install` (or `nanokimi run`) starts it
    whatsapp             No WhatsApp account is linked; run `nanokimi auth`
    docker               Docker does not answer at HOME/run/docker.sock. Start it with `systemctl --user start docker`; docs/operating.md says how to set it up
    kimi                 Nobody is logged in to Kimi; run `nanokimi login`
    gateway              off
    groups               2
    agents               0 run; there are 1536 MB for them
    messages waiting     0
    being answered       0
    messages unread      0
    given up             0
    replies to send      0
    replies unconfirmed  0
    replies given up     0
    tokens               0 in (0 cached), 0 out
    ");
}

#[test]
fn doctor_names_every_problem_at_once() {
    let home = Home::new().set("NANOKIMI_LANG", "es");
    home.write("nanokimi/.env", "MAX_AGENTS=none\nsk-canary\n");
    home.write("nanokimi/data/credentials/config.toml", "default_model = \"k9\"\n");
    home.write("nanokimi/data/credentials/kimi-code.json", "{}");
    home.run(&["groups", "remove", "main"]);
    std::fs::write(home.database(), "no database").unwrap();
    let before = home.listing();
    let doctor = home.run(&["doctor"]);
    assert_eq!(home.listing(), before);
    assert_eq!((doctor.code, doctor.stderr.as_str()), (Some(1), ""));
    assert_snapshot!(without_free_room(&doctor.stdout), @r#"
    BROKEN   Line 2 of .env is not NAME=value; put quotes around a value with spaces
    BROKEN   There is no setting NANOKIMI_LANG (the environment); see .env.example for the names
    BROKEN   MAX_AGENTS in .env must be a number from 1 to 100, not "none"
             → Mend HOME/nanokimi/.env, or the environment
    BROKEN   Docker does not answer at HOME/run/docker.sock
             → Start it with `systemctl --user start docker`; docs/operating.md says how to set it up
    BROKEN   Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is "k9", which is not in [models]; there is none
             → Mend it, or remove it to get a new one
    BROKEN   HOME/nanokimi/data/credentials/kimi-code.json is not a Kimi login (see line 1, column 2); run `nanokimi login`
             → Or put MOONSHOT_API_KEY=sk-… into HOME/nanokimi/.env
    warning  No WhatsApp account is linked
             → Run `nanokimi auth`
    BROKEN   HOME/nanokimi/store/nanokimi.db is not a database of nanokimi; restore it from a copy, or move it away to begin anew. Nothing was changed
    "#);
}

#[test]
fn who_has_seen_enough_may_leave() {
    let home = Home::new();
    let mut child =
        home.command(&["groups", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn results_that_cannot_be_written_are_no_success() {
    let home = Home::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home.command(&["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @"nanokimi: Failed to write the results: there is no space left on that disk; make room and try again");
}

/// The test does not depend on the room on this machine's disk.
fn without_free_room(doctor: &str) -> String {
    let lines =
        doctor.lines().filter(|line| !line.contains("are free on the disk") && !line.contains("Make room"));
    lines.collect::<Vec<_>>().join("\n")
}
