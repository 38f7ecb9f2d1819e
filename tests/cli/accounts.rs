//! `nanokimi accounts` as a process: added by a login and by an import, listed with what is left, and removed.

use std::fs;
use std::time::Duration;

use nanokimi::practice::Practice;
use support::login_server::{LoginTerms, MockLoginServer};
use support::scripted_model::start_scripted_model;
use tokio::runtime::Runtime;

use crate::world::Home;

struct World {
    _practice: Practice,
    _login_server: MockLoginServer,
    home: Home,
    _runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let practice = runtime.block_on(start_scripted_model());
        let terms = LoginTerms { interval: Duration::from_millis(50), ..LoginTerms::default() };
        let login_server = MockLoginServer::start(&practice, terms);
        let home = Home::empty()
            .set("KIMI_CODE_OAUTH_HOST", &practice.oauth_host())
            .set("KIMI_CODE_BASE_URL", &practice.base_url())
            .set("TZ", "UTC");
        Self { _practice: practice, _login_server: login_server, home, _runtime: runtime }
    }

    /// What both of a verb's streams show, which is never a token.
    fn run(&self, arguments: &[&str]) -> String {
        let said = self.home.run(arguments);
        let text = format!("{}{}", said.stdout, said.stderr);
        for secret in ["access-", "refresh-", "device-"] {
            assert!(!text.contains(secret), "a secret is shown: {text}");
        }
        text
    }

    /// The names of the accounts, as they are listed.
    fn names(&self) -> Vec<String> {
        let list = self.run(&["accounts", "list"]);
        list.lines().skip(1).map(|line| line.split("  ").next().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_second_account_is_added_preferred_renamed_switched_off_and_removed() {
    let world = World::new();
    world.run(&["login"]);
    assert_eq!(world.names(), ["first"]);
    let said = world.run(&["login", "--account", "work"]);
    assert!(said.contains("Logged in to Kimi with the account work"), "{said}");
    assert!(said.contains("docs/security.md"), "what the rules say is told once: {said}");
    assert_eq!(world.names(), ["first (first)", "work"]);
    world.run(&["accounts", "use", "WORK"]);
    world.run(&["accounts", "rename", "work", "office"]);
    assert_eq!(world.names(), ["first", "office (first)"]);
    world.run(&["accounts", "disable", "office"]);
    assert!(world.run(&["accounts", "list"]).contains("disabled"));
    world.run(&["accounts", "enable", "office"]);
    assert!(!world.run(&["accounts", "list"]).contains("disabled"));
    world.run(&["accounts", "remove", "office"]);
    assert_eq!(world.names(), ["first"]);
    let folder = world.home.path("nanokimi/data/credentials/accounts");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn the_plugins_file_is_taken_over_once() {
    let world = World::new();
    world.run(&["login"]);
    let file = world.home.path("kimicode-accounts.json");
    fs::write(
        &file,
        r#"{"version": 1, "accounts": [{"email": "ana@example.com", "refreshToken": "refresh-x", "enabled": true},
            {"email": "ben@example.com", "refreshToken": "refresh-y", "enabled": false}]}"#,
    )
    .unwrap();
    let said = world.run(&["accounts", "import", file.to_str().unwrap()]);
    assert!(said.contains("Added the account ana") && said.contains("log the other program out"), "{said}");
    let again = world.run(&["accounts", "import", file.to_str().unwrap()]);
    assert!(again.contains("It is here already, as ana"), "{again}");
    assert_eq!(world.names(), ["first (first)", "ana", "ben"]);
    world.run(&["accounts", "remove", "ana"]);
    world.run(&["accounts", "remove", "ben"]);
    assert_eq!(world.names(), ["first"]);
}

#[test]
fn what_cannot_be_done_says_why_and_what_there_is() {
    let world = World::new();
    world.run(&["login"]);
    for (arguments, why) in [
        (&["accounts", "use", "nobody"][..], "There is no account nobody; there is first"),
        (&["accounts", "rename", "first", "two words"], "is no name for an account"),
        (&["accounts", "import", "nowhere.json"], "Failed to read nowhere.json"),
        (&["login", "--account", "../x"], "is no name for an account"),
        (&["login", "--region", "ai"], "--account"),
    ] {
        let said = world.run(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    let list = world.home.path("nanokimi/data/credentials/kimi-accounts.json");
    fs::write(&list, "{").unwrap();
    let said = world.run(&["accounts", "list"]);
    assert!(said.contains("is not a list of Kimi accounts"), "{said}");
    assert_eq!(fs::read_to_string(list).unwrap(), "{");
}
