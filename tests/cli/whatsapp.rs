//! WhatsApp without a linked account: every verb that needs an account says so, with an exit code of its own.
//! `tests/whatsapp/program` tests them with an account.

use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use rusqlite::Connection;
use support::fake_docker::{self, Image};

use crate::world::{Home, Said};

const FAMILY: &str = "120363000000000001@g.us";
/// docs/operating.md, "Exit codes".
const NOT_LINKED: i32 = 3;

fn not_linked(said: &Said) {
    assert_eq!(said.code, Some(NOT_LINKED), "{said:?}");
    assert_eq!(said.stderr, "nanokimi: No WhatsApp account is linked; run `nanokimi auth`\n");
}

#[test]
fn what_needs_a_link_says_how_to_make_one() {
    let home = Home::empty();
    let before = home.listing();
    for verb in [&["setup"][..], &["setup", "--main", FAMILY], &["auth", "--status"]] {
        not_linked(&home.run(verb));
    }
    assert_eq!(home.listing(), before, "looking makes nothing");
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    not_linked(&home.run(&["run"]));
}

#[test]
fn a_group_on_whatsapp_needs_the_link_and_its_chat_is_not_at_the_terminal() {
    let home = Home::new();
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    home.run(&["groups", "add", "work", "--chat", FAMILY]).done();
    not_linked(&home.run(&["run"]));
    assert_snapshot!(home.refuses(&["chat", "--group", "work"]), @"The chat of work is on WhatsApp: write there. For a chat at this terminal, make a group of its own with `nanokimi groups add terminal`, then `nanokimi chat --group terminal`");
}

#[test]
fn a_number_that_is_none_is_explained_before_anybody_is_asked() {
    assert_snapshot!(Home::empty().refuses(&["auth", "--pair-code", "0600 111 222"]), @r#""0600 111 222" begins with 0, which is dialled within a country only; write the country's code in its place, as in +34600111222"#);
}

#[test]
fn where_nothing_is_linked_nothing_is_unlinked() {
    let said = Home::new().run(&["auth", "--logout", "--yes"]).done();
    assert_snapshot!(said.stderr, @"No WhatsApp account is linked.");
}

#[test]
fn the_known_chats_are_a_table_and_their_names_are_only_shown() {
    let home = Home::new();
    assert_snapshot!(home.run(&["groups", "chats"]).done().stderr, @"No chats are known yet. `nanokimi auth` links WhatsApp and fetches them.");
    home.run(&["groups", "add", "work", "--chat", FAMILY]).done();
    Connection::open(home.database())
        .unwrap()
        .execute_batch(
            "INSERT INTO account (id, lid, name) VALUES ('34600111222@s.whatsapp.net', '100000000000001@lid', 'Ana');
             INSERT INTO chats (id, name, seen_at, members) VALUES
                 ('120363000000000001@g.us', 'Work' || char(27) || '[2J', 0, 12),
                 ('120363000000000002@g.us', 'Choir', 0, 1),
                 ('34600333444@s.whatsapp.net', '', 0, NULL);",
        )
        .unwrap();
    let said = home.run(&["groups", "chats"]).done();
    assert_snapshot!(said.stdout, @"
    ID                          GROUP  CHAT
    34600111222@s.whatsapp.net  -      Message yourself
    120363000000000002@g.us     -      Choir (1 member)
    120363000000000001@g.us     work   Work[2J (12 members)
    34600333444@s.whatsapp.net  -      +34600333444
    ");
    assert_snapshot!(said.stderr, @"`nanokimi groups add NAME --chat ID` makes a chat a group.");
}

#[test]
fn status_lists_the_replies_that_were_given_up_with_their_reasons() {
    let home = Home::new().set("TZ", "UTC");
    home.run(&["groups", "add", "work", "--chat", FAMILY]).done();
    Connection::open(home.database())
        .unwrap()
        .execute_batch(
            "INSERT INTO outbox (chat, wa_id, text, state, created_at, error) VALUES
                 ('120363000000000001@g.us', '3EB01', 'secret', 'nacked', 1795300000000, 'WhatsApp refused it (463)'),
                 ('120363000000000009@g.us', '3EB02', 'secret', 'dead', 1795300060000, 'the file is too large'),
                 ('120363000000000001@g.us', '3EB03', 'secret', 'sent', 1795300120000, NULL);",
        )
        .unwrap();
    let said = home.run(&["status"]).done();
    assert!(!said.stdout.contains("secret"), "{}", said.stdout);
    let (_, replies) = said.stdout.split_once("replies to send").unwrap();
    assert_snapshot!(replies.trim_start(), @"
    0
    replies unconfirmed  1
    replies given up     2
    tokens               0 in (0 cached), 0 out

    Replies given up, the newest first:
    2026-11-21 22:27 UTC  (removed)  the file is too large
    2026-11-21 22:26 UTC  work       WhatsApp refused it (463)
    ");
}

#[test]
fn status_says_what_no_phone_has_yet() {
    let home = Home::new().set("TZ", "UTC");
    let said = |rows: &str| {
        let sql = format!(
            "DELETE FROM outbox; DELETE FROM account;
             INSERT INTO account (id, lid, name) VALUES ('34600111222@s.whatsapp.net', '1@lid', 'Ana');
             INSERT INTO outbox (chat, wa_id, kind, state, sent_at, delivered_at, text, created_at)
             SELECT column1, column2, column3, column4, unixepoch() * 1000 - column5 * 60000, column6, 'secret', 0
             FROM (VALUES {rows})"
        );
        Connection::open(home.database()).unwrap().execute_batch(&sql).unwrap();
        let stdout = home.run(&["status"]).done().stdout;
        assert!(!stdout.contains("secret"), "{stdout}");
        let line = stdout.lines().find(|line| line.contains("not yet on a phone")).unwrap_or_default();
        line.split("20").next().unwrap().to_owned()
    };
    let one = "('9@g.us', '1', 'text', 'acked', 60, NULL)";
    assert_eq!(said(one), "1 reply is with WhatsApp, not yet on a phone, the oldest since ");
    let others = [
        "('9@g.us', '2', 'file', 'acked', 120, NULL)",
        // On a phone; not with WhatsApp yet; never shown as delivered; the account's own; at a terminal; long
        // ago.
        "('9@g.us', '3', 'text', 'acked', 60, 1)",
        "('9@g.us', '4', 'text', 'sent', 60, NULL)",
        "('9@g.us', '5', 'reaction', 'acked', 60, NULL)",
        "('34600111222@s.whatsapp.net', '6', 'text', 'acked', 60, NULL)",
        "('1@lid', '7', 'text', 'acked', 60, NULL)",
        "('console:main', '8', 'text', 'acked', 60, NULL)",
        "('9@g.us', '9', 'text', 'acked', 30000, NULL)",
    ];
    let all = format!("{one}, {}", others.join(", "));
    assert_eq!(said(&all), "2 replies are with WhatsApp, not yet on a phone, the oldest since ");
    assert_eq!(said(others[1]), "");
}

#[test]
fn status_and_doctor_say_how_the_link_ended() {
    let home = Home::new().set("TZ", "UTC");
    let note = |state: &str, until: &str| {
        let sql = format!(
            "DELETE FROM link; INSERT INTO link (state, until, changed_at) VALUES ('{state}', {until}, 0)"
        );
        Connection::open(home.database()).unwrap().execute_batch(&sql).unwrap();
    };
    note("logged out", "NULL");
    let said = home.run(&["auth", "--status"]);
    assert_eq!(said.code, Some(NOT_LINKED));
    assert_snapshot!(said.stderr, @"nanokimi: WhatsApp has logged this device out: it was removed on the phone, or the account is locked. Look at WhatsApp on the phone, then run `nanokimi auth`");
    let doctor = home.run(&["doctor"]).stdout;
    assert!(
        doctor.contains(
            "BROKEN   WhatsApp has logged this device out: it was removed on the phone, or the account is locked\n         \
             → Look at WhatsApp on the phone, then run `nanokimi auth`\n"
        ),
        "{doctor}"
    );
}

#[test]
fn doctor_sees_keys_that_others_can_read() {
    let home = Home::new();
    home.write("nanokimi/store/auth/wa.db", "");
    for (path, mode) in [("nanokimi/store/auth", 0o700), ("nanokimi/store/auth/wa.db", 0o640)] {
        std::fs::set_permissions(home.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let doctor = home.run(&["doctor"]).stdout;
    let found: Vec<&str> = doctor.lines().skip_while(|line| !line.contains("wa.db")).take(2).collect();
    assert_snapshot!(found.join("\n"), @"
    BROKEN   HOME/nanokimi/store/auth/wa.db can be opened by others, who could write as you on WhatsApp
             → Run chmod -R go= HOME/nanokimi/store/auth
    ");
}
