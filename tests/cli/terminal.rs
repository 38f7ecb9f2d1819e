//! Texts that attack the terminal: whoever wrote them, they must not move the cursor, fill the clipboard or
//! change the writing direction.

use insta::assert_snapshot;
use rusqlite::Connection;
use support::fake_docker::{self, Image};

use crate::world::{Home, Said};

/// Clears the screen, fills the clipboard, sets the title, types over the line, sets colours with C1 codes,
/// changes the writing direction, rings.
const EVIL: &str =
    "\x1b[2J\x1b]52;c;cm0=\x07\x1b]0;mine\x1b\\over\rwritten\u{9b}31m\u{202e}nimda\u{2066}\u{7}\u{8}!";

/// Every character of the output is only shown; no character controls the terminal.
#[track_caller]
fn only_shows(what: &str, said: &Said) {
    for (stream, text) in [("stdout", &said.stdout), ("stderr", &said.stderr)] {
        let acts = |c: char| {
            c.is_control() && !"\n\t".contains(c)
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        let found: Vec<char> = text.chars().filter(|c| acts(*c)).collect();
        assert!(found.is_empty(), "{what} lets {found:?} through to {stream}: {text:?}");
    }
}

#[test]
fn no_verb_lets_words_act_on_the_terminal() {
    let home = Home::new();
    home.write("nanokimi/.env", "LOG_LEVEL=debug\nMOONSHOT_API_KEY=sk-none\n");
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    // An older version, or another program, may have left these.
    let database = Connection::open(home.database()).unwrap();
    database.execute("UPDATE groups SET trigger = ?1 WHERE name = 'family'", [EVIL]).unwrap();
    database.execute("INSERT INTO chats (id, name, seen_at) VALUES ('1203630@g.us', ?1, 0)", [EVIL]).unwrap();
    drop(database);
    for (verb, told) in [
        (vec!["chat", "--say", EVIL], "Kai: "),
        (vec!["chat", "--group", "family", "--say", "@Kai hello"], "Nobody would answer that"),
        (vec!["groups", "list"], "nimda"),
        (vec!["groups", "chats"], "nimda"),
        (vec!["groups", "remove", "family"], "nimda"),
        (vec!["status"], "waiting"),
        (vec!["usage"], ""),
        (vec!["doctor"], "settings"),
        // the refusal repeats what was typed
        (vec!["groups", "add", EVIL], "nimda"),
        (vec!["groups", "remove", EVIL], "nimda"),
        (vec!["groups", "add", "more", "--chat", EVIL], "nimda"),
        (vec!["groups", "add", "more", "--trigger", EVIL], "trigger"),
        (vec!["groups", "set", "main", "--hosts", EVIL], ""),
        (vec!["chat", "--group", EVIL], "nimda"),
        (vec!["usage", "--group", EVIL], ""),
        (vec!["auth", "--pair-code", EVIL], ""),
        (vec!["--home", EVIL, "status"], ""),
        (vec![EVIL], "nimda"),
        (vec!["status", EVIL], "nimda"),
    ] {
        let said = home.run(&verb);
        only_shows(&format!("{verb:?}"), &said);
        assert!(format!("{}{}", said.stdout, said.stderr).contains(told), "{verb:?}: {said:?}");
    }
    home.write("nanokimi/.env", &format!("LOG_LEVEL={EVIL}\n{EVIL}=1\nMAX_AGENTS={EVIL}\n"));
    for verb in ["status", "doctor", "run"] {
        let said = home.run(&[verb]);
        only_shows(verb, &said);
        assert!(format!("{}{}", said.stdout, said.stderr).contains(".env"), "{verb}: {said:?}");
    }
}

#[test]
fn a_trigger_is_what_people_can_type() {
    let home = Home::new();
    let refusal = |trigger: &str| home.refuses(&["groups", "set", "family", "--trigger", trigger]);
    assert_snapshot!(refusal("\x1b[31mKai"), @"The trigger has a control character in it; type the word anew, such as Kai");
    for trigger in ["K\nai", "Kai\n", "K\tai", "\u{9b}Kai", "\u{7f}Kai", "Kai\r", "\x07", EVIL] {
        assert!(refusal(trigger).starts_with("The trigger has a control character"), "{trigger:?}");
    }
    assert_snapshot!(refusal(&"a".repeat(61)), @"The trigger is longer than 60 characters; choose a shorter word, such as Kai");
    assert_snapshot!(refusal("@\u{200e}\u{200b}"), @"The trigger needs a word, such as Kai");
    for (trigger, listed) in
        [("Ñandú", "@Ñandú"), ("@小开", "@小开"), ("\u{2066}Kai\u{2069}", "@Kai"), ("Kai Bot", "@Kai Bot")]
    {
        home.run(&["groups", "set", "family", "--trigger", trigger]).done();
        let groups = home.run(&["groups", "list"]).done().stdout;
        assert!(groups.contains(&format!("family  {listed} ")), "{groups}");
    }
}
