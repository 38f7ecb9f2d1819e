//! `nanokimi gateway`: enabling it, its keys, and what goes into the settings of coding tools.

use insta::assert_snapshot;

use crate::world::Home;

#[test]
fn it_is_enabled_on_this_machine_only_and_disabled_again() {
    let home = Home::empty();
    home.write("nanokimi/.env", "# mine\nTZ=UTC\n");
    assert_snapshot!(home.run(&["gateway", "enable"]).done().stderr, @"The gateway listens on 127.0.0.1:8788 from the next start of nanokimi on; `nanokimi gateway run` starts it alone. `nanokimi gateway keys add NAME` makes a key for a client, `nanokimi gateway disable` undoes this.");
    assert_eq!(home.read("nanokimi/.env"), "# mine\nTZ=UTC\nGATEWAY_LISTEN=127.0.0.1:8788\n");
    home.run(&["gateway", "enable", "--unix", "a socket"]).done();
    let env = home.read("nanokimi/.env");
    assert!(
        env.starts_with("# mine\nTZ=UTC\nGATEWAY_LISTEN='unix:/") && env.ends_with("/a socket'\n"),
        "{env}"
    );
    assert_snapshot!(home.refuses(&["gateway", "enable", "--listen", "0.0.0.0:8788"]), @"The gateway is for programs on this machine only: 0.0.0.0 can be reached from others. Use 127.0.0.1, or a unix socket");
    assert_eq!(home.read("nanokimi/.env"), env);
    assert_snapshot!(home.run(&["gateway", "disable"]).done().stderr, @"The gateway is off from the next start of nanokimi on. The keys stay.");
    assert_eq!(home.read("nanokimi/.env"), "# mine\nTZ=UTC\n");
    assert_snapshot!(home.refuses(&["gateway", "run"]), @"The gateway is off; `nanokimi gateway enable` turns it on");
}

#[test]
fn a_key_is_shown_once() {
    let home = Home::new().set("TZ", "UTC");
    let options = ["--daily-tokens", "2_000_000", "--models", "k3,kimi-for-coding"];
    let said = home.run(&[&["gateway", "keys", "add", "laptop"], &options[..]].concat()).done();
    let key = said.stdout.trim();
    assert!(key.len() == 67 && key.starts_with("nk-"), "{key}");
    assert!(!said.stderr.contains(key), "{}", said.stderr);
    let said = home.run(&["gateway", "keys", "add", "posing", "--identity", "kimi-cli"]).done();
    assert!(said.stderr.contains("Kimi's community guidelines forbid that"), "{}", said.stderr);
    let list = home.run(&["gateway", "keys", "list"]).done().stdout;
    assert!(!list.contains("nk-"), "{list}");
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().take(5).collect()).collect();
    assert_eq!(rows[1], ["laptop", "0", "2000000", "k3,kimi-for-coding", "own"]);
    assert_eq!(rows[2], ["posing", "0", "-", "all", "kimi-cli"]);
    assert_snapshot!(home.refuses(&["gateway", "keys", "add", "laptop"]), @"There is a key laptop already; remove it first with `nanokimi gateway keys remove laptop`");
    assert_snapshot!(home.run(&["gateway", "keys", "remove", "laptop"]).done().stderr, @"The key laptop is refused from now on.");
    assert_snapshot!(home.refuses(&["gateway", "keys", "remove", "laptop"]), @"There is no key laptop; `nanokimi gateway keys list` shows those there are");
    assert_snapshot!(home.refuses(&["gateway", "keys", "add", "a b"]), @r#""a b" is no name for a key; use 1 to 40 letters, digits, "-" or "_", starting with a letter or digit"#);
}

#[test]
fn opencodes_own_settings_are_written_and_put_back() {
    let home = Home::empty();
    let settings = "{\n  // mine\n  \"theme\": \"dark\",\n}\n";
    home.write(".config/opencode/opencode.json", settings);
    home.run(&["gateway", "config", "opencode", "--write"]).done();
    let written = home.read(".config/opencode/opencode.json");
    for piece in [
        "// mine",
        "\"theme\": \"dark\",",
        "http://127.0.0.1:8788/v1",
        "kimicode-kimi-k2.5-thinking",
        "262144",
        "32000",
    ] {
        assert!(written.contains(piece), "{piece}: {written}");
    }
    home.run(&["gateway", "config", "opencode", "--write"]).done();
    assert_eq!(home.read(".config/opencode/opencode.json"), written);
    home.run(&["gateway", "config", "opencode", "--undo"]).done();
    assert_eq!(home.read(".config/opencode/opencode.json"), settings);
    // It is found wherever it was written.
    home.write(".config/opencode/opencode.jsonc", &written);
    home.run(&["gateway", "config", "opencode", "--undo"]).done();
    assert!(!home.read(".config/opencode/opencode.jsonc").contains("nanokimi"));
    assert_snapshot!(home.refuses(&["gateway", "config", "zed", "--write"]), @"Only OpenCode's settings can be written; `nanokimi gateway config zed` shows what to paste");
    let pasted = home.run(&["gateway", "config", "claude"]).done().stdout;
    assert!(pasted.starts_with("export ANTHROPIC_BASE_URL=http://127.0.0.1:8788\n"), "{pasted}");
}
