//! Groups that are not possible, and messages that a group would not answer.

use std::fs;

use insta::assert_snapshot;

use crate::world::Home;

#[test]
fn a_name_that_is_no_folder_name_is_refused() {
    let home = Home::new();
    assert_snapshot!(home.refuses(&["groups", "add", "my family"]), @r#""my family" is not a group name; use 1 to 64 letters, digits, "-" or "_", starting with a letter or digit"#);
    for bad in ["", ".", "../../etc", "-x", "$(id)", "a/b", "ñandú", &"a".repeat(65)] {
        for verb in ["add", "remove"] {
            let refusal = home.refuses(&["groups", verb, "--", bad]);
            assert!(refusal.contains("is not a group name; use 1 to 64 letters"), "{refusal}");
        }
        let refusal = home.refuses(&["chat", &format!("--group={bad}")]);
        assert!(refusal.contains("is not a group name; use 1 to 64 letters"), "{refusal}");
    }
}

#[test]
fn global_is_no_group() {
    assert_snapshot!(Home::new().refuses(&["groups", "add", "Global"]), @r#""global" is reserved for what all groups share; choose another name"#);
}

#[test]
fn a_group_is_added_once() {
    assert_snapshot!(Home::new().refuses(&["groups", "add", "family"]), @"There is a group family already; to change it, `nanokimi groups remove family` first");
}

#[test]
fn a_chat_belongs_to_one_group() {
    let home = Home::new();
    let chat = ["--chat", "1203630@g.us"];
    home.run(&["groups", "add", "work", chat[0], chat[1]]).done();
    assert_snapshot!(home.refuses(&["groups", "add", "office", chat[0], chat[1]]), @"The group work serves that chat already; `nanokimi groups remove work` frees it");
}

#[test]
fn what_is_pasted_is_taken_as_it_is_seen() {
    let home = Home::new();
    for (name, id) in [
        ("\u{2068}work\u{2069}", "\u{202a}1203630\u{2011}41@g.us\u{202c}"),
        ("ana\u{200b}", " \u{feff}34600111222@s.whatsapp.net\u{a0}"),
        ("bo", "34600111333@c.us"),
    ] {
        home.run(&["groups", "add", name, "--chat", id]).done();
    }
    home.run(&[
        "groups",
        "set",
        "work\u{200e}",
        "--daily-tokens",
        "200\u{202f}000",
        "--trigger",
        "Kai\u{2069}",
    ])
    .done();
    let listed = home.run(&["groups", "list"]).done().stdout;
    for row in ["1203630-41@g.us", "34600111222@s.whatsapp.net", "34600111333@s.whatsapp.net"] {
        assert!(listed.lines().any(|line| line.ends_with(&format!(" {row}"))), "{row} in {listed}");
    }
    assert!(listed.contains("200000") && listed.contains("@Kai ") && listed.is_ascii(), "{listed}");
}

#[test]
fn there_is_one_main_channel() {
    assert_snapshot!(Home::new().refuses(&["groups", "add", "mine", "--main"]), @"The main channel is main already; `nanokimi groups remove main` makes room for another");
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    assert_snapshot!(Home::new().refuses(&["groups", "remove", "famly"]), @"There is no group famly; `nanokimi groups list` shows those there are");
    assert_snapshot!(Home::empty().refuses(&["groups", "remove", "family"]), @"There is no group family; `nanokimi groups list` shows those there are");
}

#[test]
fn what_is_not_there_cannot_be_talked_to() {
    assert_snapshot!(Home::new().refuses(&["chat", "--group", "famly"]), @"There is no group famly; `nanokimi groups add famly` makes it, `nanokimi groups list` shows those there are");
    assert_snapshot!(Home::empty().refuses(&["chat"]), @"There is no group main; `nanokimi groups add main --main` makes it, `nanokimi groups list` shows those there are");
}

#[test]
fn the_name_of_a_chat_is_not_its_id() {
    assert_snapshot!(Home::new().refuses(&["groups", "add", "work", "--chat", "Our work"]), @r#""Our work" is not the id of a chat, which looks like 34600111222@s.whatsapp.net or 120363041234567890@g.us; `nanokimi groups chats` shows them"#);
    for id in [
        "ana@s.whatsapp.net",
        "status@broadcast",
        "1203630@newsletter",
        "@g.us",
        "34600111222:3@s.whatsapp.net",
        "1-@g.us",
    ] {
        let refusal = Home::new().refuses(&["groups", "add", "work", "--chat", id]);
        assert!(refusal.contains("is not the id of a chat"), "{refusal}");
    }
}

#[test]
fn a_chat_that_nobody_knows_is_added_with_a_warning() {
    let home = Home::new();
    assert_snapshot!(home.run(&["groups", "add", "work", "--chat", "34600111222-1399999999@g.us", "--trigger", "@Ana"]).done().stderr, @"
    Added work. Its folder is HOME/nanokimi/groups/work.
    `nanokimi groups remove work` undoes that.
    Careful: 34600111222-1399999999@g.us is not among the chats that are known so far. If it is mistyped, nothing will ever come from there; `nanokimi groups chats` shows the known ones.
    ");
    assert_snapshot!(home.run(&["groups", "remove", "work"]).done().stderr, @"Removed work. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add work --chat 34600111222-1399999999@g.us --trigger Ana` takes them up.");
}

#[test]
fn what_takes_a_group_up_again_can_be_pasted_into_a_shell() {
    let home = Home::new();
    home.run(&["groups", "add", "work", "--trigger", "Bot me; it's $(id)"]).done();
    assert_snapshot!(home.run(&["groups", "remove", "work"]).done().stderr, @r"Removed work. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add work --trigger 'Bot me; it'\''s $(id)'` takes them up.");
}

#[test]
fn what_is_chosen_for_a_group_is_shown_and_taken_up_again() {
    let home = Home::new();
    let set = |options: &[&str]| home.run(&[&["groups", "set", "family"], options].concat()).done().stderr;
    assert_snapshot!(set(&["--web", "allowlist", "--hosts", "Example.ORG,example.net", "--daily-tokens", "200_000"]), @"Changed family; it counts from the next message on.");
    assert_snapshot!(set(&["--daily-tokens", "200000"]), @"family is like that already.");
    set(&["--hosts", "example.org", "--engine", "kimi-cli", "--trigger", "@Ana"]);
    assert_snapshot!(home.run(&["groups", "list"]).done().stdout, @"
    NAME    LISTENS TO  ENGINE     WEB        TOKENS A DAY  CHAT
    main    everything  kimi-code  web        -             console:main
    family  @Ana        kimi-cli   allowlist  200000        console:family
    ");
    assert_snapshot!(home.run(&["groups", "remove", "family"]).done().stderr, @"Removed family. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add family --trigger Ana && nanokimi groups set family --engine kimi-cli --web allowlist --hosts example.org --daily-tokens 200000` takes them up.");
}

#[test]
fn who_may_ask_is_chosen_shown_and_taken_up_again() {
    let home = Home::new();
    home.run(&["groups", "add", "trip", "--chat", "1203630@g.us"]).done();
    let set = |options: &[&str]| home.run(&[&["groups", "set", "trip"], options].concat()).done().stderr;
    assert_snapshot!(set(&["--senders", "listed"]), @"
    Changed trip; it counts from the next message on.
    Nobody is on its list yet, so only you may ask there; `nanokimi groups set trip --allow PERSON` adds people, `nanokimi groups people trip` shows them.
    ");
    assert_snapshot!(set(&["--allow", "+34 600-111 222", "+44 7700 900123", "--refuse", "told", "--others", "dropped"]), @"
    Allowed: +34600111222, who has not written there yet.
    Allowed: +447700900123, who has not written there yet.
    Changed trip; it counts from the next message on.
    ");
    assert_snapshot!(set(&["--disallow", "p2"]), @"
    Not allowed any more: - (p2, +447700900123).
    Changed trip; it counts from the next message on.
    ");
    assert_snapshot!(home.run(&["groups", "people", "trip"]).done().stdout, @"
    ID  NAME  NUMBER        SINCE  MAY ASK
    p1  -     +34600111222  -      yes
    ");
    assert_snapshot!(home.run(&["groups", "list"]).done().stdout, @"
    NAME    LISTENS TO              ENGINE     WEB  TOKENS A DAY  CHAT
    main    everything              kimi-code  web  -             console:main
    family  @Kai                    kimi-code  web  -             console:family
    trip    @Kai, of listed people  kimi-code  web  -             1203630@g.us
    ");
    assert_snapshot!(set(&["--senders", "owner", "--allow", "p1"]), @"
    Allowed: - (p1, +34600111222).
    Changed trip; it counts from the next message on.
    Now only you may ask there; the list counts with `nanokimi groups set trip --senders listed`.
    ");
    assert_snapshot!(home.run(&["groups", "remove", "trip"]).done().stderr, @"Removed trip. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add trip --chat 1203630@g.us && nanokimi groups set trip --senders owner --others dropped --refuse told --allow '+34600111222'` takes them up.");
}

#[test]
fn limits_are_chosen_shown_and_taken_up_again() {
    let home = Home::new();
    let set = |options: &[&str]| home.run(&[&["groups", "set", "family"], options].concat()).done().stderr;
    set(&["--turns-per-hour", "10", "--turn-tokens", "100_000"]);
    assert_snapshot!(home.run(&["groups", "list"]).done().stderr, @"family answers 10 calls of one person in an hour, and uses 100000 tokens in a turn at most.");
    assert_snapshot!(home.run(&["groups", "remove", "family"]).done().stderr, @"Removed family. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add family && nanokimi groups set family --turns-per-hour 10 --turn-tokens 100000` takes them up.");
    let refuses = |option: &str, number: &str| home.refuses(&["groups", "set", "main", option, number]);
    assert_snapshot!(refuses("--turns-per-hour", "0"), @r#"--turns-per-hour needs a number from 1 to 1000, or "none", not "0""#);
    assert_snapshot!(refuses("--turn-tokens", "many"), @r#"--turn-tokens needs a number, such as 200000, or "none", not "many""#);
    assert_snapshot!(refuses("--turn-tokens", "0"), @"--turn-tokens needs at least 1; `--daily-tokens 0` silences a group");
    home.run(&["groups", "set", "--all", "--turns-per-hour", "none"]).done();
}

#[test]
fn a_person_who_is_not_known_is_not_allowed_by_a_guess() {
    let home = Home::new();
    let refuses = |person: &str| home.refuses(&["groups", "set", "family", "--allow", person]);
    assert_snapshot!(refuses("Ana"), @r#""Ana" is nobody who has written in family; `nanokimi groups people family` shows who has, and a phone number such as +34600111222 names anybody"#);
    for person in ["600 111 222", "p1", "34600111222@s.whatsapp.net", "@lid", ""] {
        assert!(refuses(person).contains("is nobody who has written in family"), "{person:?}");
    }
    assert_snapshot!(refuses("+600"), @r#""+600" has 3 digits; a number with its country's code has 8 to 15, as in +34600111222"#);
    assert_snapshot!(home.refuses(&["groups", "set", "--all", "--allow", "+34600111222"]), @"--allow and --disallow are of one group; name it");
    assert_snapshot!(home.refuses(&["groups", "people", "famly"]), @"There is no group famly; `nanokimi groups list` shows those there are");
}

#[test]
fn a_folder_is_lent_only_from_the_allowlist() {
    let home = Home::new();
    let lend = |folder: &str| home.refuses(&["groups", "set", "family", "--folder", folder]);
    let refused = lend("/srv/recipes:rw");
    assert!(refused.starts_with("family may not have /srv/recipes: There is no allowlist"), "{refused}");
    assert!(refused.contains("nanokimi/mount-allowlist.json"), "{refused}");
    assert_snapshot!(lend("recipes"), @r#""recipes" is not the whole path of a folder, such as /srv/recipes or ~/recipes:rw"#);
    assert_snapshot!(home.refuses(&["groups", "set", "family", "--no-folder", "/srv/x"]), @"It has no folder /srv/x; `nanokimi groups list` shows those it has");
    assert_snapshot!(home.refuses(&["groups", "set", "--all", "--folder", "/srv/x"]), @"--folder and --no-folder are of one group; name it");
}

#[test]
fn doctor_names_a_lent_folder_that_is_gone() {
    let home = Home::new();
    let lent = home.path("shared/recipes");
    fs::create_dir_all(&lent).unwrap();
    home.write(".config/nanokimi/mount-allowlist.json", r#"{"allowedRoots": [{"path": "~/shared"}]}"#);
    let told = || {
        let doctor = home.run(&["doctor"]).stdout;
        let lines = doctor.lines().skip_while(|line| !line.contains("is lent"));
        lines.take(2).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(told(), "");
    home.run(&["groups", "set", "family", "--folder", "~/shared/recipes"]).done();
    assert!(
        told().starts_with(
            "ok       The group family is lent HOME/shared/recipes, as /workspace/extra/recipes\n"
        )
    );
    fs::remove_dir(&lent).unwrap();
    assert_snapshot!(told(), @"
    warning  The group family is lent HOME/shared/recipes, but its agent does not see it: it is not there, or cannot be reached
             → Mend that, or take the folder back with `nanokimi groups set family --no-folder PATH`
    ");
}

#[test]
fn an_engine_that_has_ended_is_named_with_the_command_that_changes_all_groups_over() {
    let home = Home::new();
    let all = |engine: &str| home.run(&["groups", "set", "--all", "--engine", engine]).done().stderr;
    let of_the_engine = |home: &Home| {
        let doctor = home.run(&["doctor"]).stdout;
        let lines = doctor.lines().skip_while(|line| !line.contains("has ended"));
        lines.take(2).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(of_the_engine(&home), "");
    assert_snapshot!(all("kimi-cli"), @"
    Changed 2 groups; it counts from the next message on.
    Now run `nanokimi build`, which makes the image of an engine that is new here.
    ");
    assert_snapshot!(of_the_engine(&home), @"
    warning  The engine kimi-cli has ended: nobody mends it any more, and Kimi may stop serving it on any day
             → Run `nanokimi groups set --all --engine kimi-code`, then `nanokimi build`
    ");
    home.run(&["groups", "set", "main", "--engine", "kimi-code"]).done();
    assert_snapshot!(all("kimi-code"), @"
    Changed family; it counts from the next message on.
    Now run `nanokimi build`, which makes the image of an engine that is new here.
    ");
    assert_snapshot!(all("kimi-code"), @"All groups are like that already.");
    assert_eq!(of_the_engine(&home), "");
    let home = home.set("ENGINE", "kimi-cli");
    home.run(&["groups", "set", "main", "--engine", "default"]).done();
    assert_snapshot!(of_the_engine(&home), @"
    warning  The engine kimi-cli has ended: nobody mends it any more, and Kimi may stop serving it on any day
             → Write ENGINE=kimi-code into .env, run `nanokimi groups set --all --engine kimi-code` and `nanokimi build`, and start nanokimi again
    ");
}

#[test]
fn whether_what_was_forwarded_calls_is_shown_and_taken_up_again() {
    let home = Home::new();
    home.run(&["groups", "set", "family", "--forwards", "call"]).done();
    let listed = home.run(&["groups", "list"]).done().stdout;
    assert!(listed.contains("@Kai, forwarded too"), "{listed}");
    let said = home.run(&["groups", "remove", "family"]).done().stderr;
    assert!(
        said.contains("`nanokimi groups add family && nanokimi groups set family --forwards call`"),
        "{said}"
    );
    assert_snapshot!(home.refuses(&["groups", "set", "main", "--forwards", "told"]), @"In the main channel every message is for the assistant, a forwarded one too");
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let home = Home::new();
    let refuses = |options: &[&str]| home.refuses(&[&["groups", "set", "family"], options].concat());
    assert_snapshot!(home.refuses(&["groups", "set", "famly", "--web", "none"]), @"There is no group famly; `nanokimi groups list` shows those there are");
    assert_snapshot!(home.refuses(&["groups", "set", "main", "--trigger", "Ana"]), @"The main channel needs no trigger: every message there is for the assistant");
    assert_snapshot!(home.refuses(&["groups", "set", "--all", "--trigger", "Ana"]), @"--trigger and --forwards are of one group; name it");
    assert_snapshot!(home.refuses(&["groups", "set", "--all"]), @"There is nothing to change: `nanokimi groups set --help` shows what can be chosen");
    assert_snapshot!(refuses(&[]), @"There is nothing to change: `nanokimi groups set --help` shows what can be chosen");
    assert_snapshot!(refuses(&["--engine", "claude"]), @r#""claude" is not an engine; there is kimi-code and kimi-cli"#);
    assert_snapshot!(refuses(&["--web", "allowlist"]), @"--web allowlist needs its hosts, such as --hosts example.org,example.net");
    assert_snapshot!(refuses(&["--web", "web", "--hosts", "example.org"]), @"--hosts goes with --web allowlist");
    assert_snapshot!(refuses(&["--hosts", "https://example.org/"]), @r#""https://example.org/" is not the name of a host, such as example.org, without https:// and without a path"#);
    assert_snapshot!(refuses(&["--web", "allowlist", "--hosts", "https://example.org/"]), @r#""https://example.org/" is not the name of a host, such as example.org, without https:// and without a path"#);
    assert_snapshot!(refuses(&["--daily-tokens", "many"]), @r#"--daily-tokens needs a number, such as 200000, or "none", not "many""#);
    assert_snapshot!(refuses(&["--daily-tokens", "9999999999999999999"]), @r#"--daily-tokens needs a number, such as 200000, or "none", not "9999999999999999999""#);
    assert_snapshot!(refuses(&["--trigger", "@"]), @"The trigger needs a word, such as Kai");
}

#[test]
fn a_trigger_is_a_word() {
    assert_snapshot!(Home::new().refuses(&["groups", "add", "work", "--trigger", "@"]), @"The trigger needs a word, such as Kai");
}

#[test]
fn what_nobody_would_answer_is_not_said() {
    let home = Home::new();
    assert_snapshot!(home.refuses(&["chat", "--group", "family", "--say", "hello"]), @r#"Nobody would answer that in family: say "@Kai …""#);
    assert_snapshot!(home.refuses(&["chat", "--say", " "]), @"There is nothing to say: put the message after --say, in quotes");
}

#[test]
fn a_removed_group_leaves_its_folder_and_comes_back() {
    let home = Home::new();
    home.write("nanokimi/groups/family/notes.md", "milk");
    assert_snapshot!(home.run(&["groups", "remove", "family"]).done().stderr, @"Removed family. What was still to be said there is not sent. Its folder and history are kept; `nanokimi groups add family` takes them up.");
    assert_eq!(std::fs::read_to_string(home.path("nanokimi/groups/family/notes.md")).unwrap(), "milk");
    assert_snapshot!(home.run(&["groups", "add", "family"]).done().stderr, @"
    Added family. Its folder is HOME/nanokimi/groups/family.
    `nanokimi groups remove family` undoes that.
    ");
}
