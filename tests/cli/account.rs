//! The Kimi account as `doctor` sees it: the engine's settings, a login that Kimi does not take, a folder in which a
//! renewed one would be lost. The names of the tests are the messages by which people know these troubles.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use crate::fake_kimi;
use crate::world::{Home, NANOKIMI};

const CONFIG: &str = "nanokimi/data/credentials/config.toml";
const LOGIN: &str = "nanokimi/data/credentials/kimi-code.json";
/// A login that is good until 2100.
const GOOD: &str =
    r#"{"access_token":"canary-token","refresh_token":"canary-refresh","expires_at":4102444800}"#;

/// What `doctor` says in this home of the Kimi account: its findings between those of Docker and of WhatsApp.
fn account(home: &Home) -> String {
    let before = home.listing();
    let said = home.run(&["doctor"]);
    assert_eq!(home.listing(), before, "doctor leaves nothing behind");
    assert!(!said.stdout.contains("canary"), "{said:?}");
    between(&said.stdout)
}

fn between(doctor: &str) -> String {
    let lines = doctor.lines().skip_while(|line| !line.contains("config.toml"));
    let lines: Vec<&str> = lines.take_while(|line| !line.contains("WhatsApp")).collect();
    lines.join("\n")
}

/// A home whose login is asked about at a Kimi that answers so.
fn home_with(login: &str, status: &'static str) -> (Home, fake_kimi::FakeKimi) {
    let kimi = fake_kimi::start(status);
    let home = Home::new().set("KIMI_CODE_BASE_URL", &kimi.base_url).set("MOONSHOT_BASE_URL", &kimi.base_url);
    home.write(LOGIN, login);
    (home, kimi)
}

#[test]
fn a_login_that_kimi_accepts_is_good_and_was_shown_to_kimi_only() {
    let (home, kimi) = home_with(GOOD, "200 OK");
    assert_snapshot!(account(&home), @"
    ok       The engine's config.toml will be written at the first start
    ok       There is a login for the Kimi API, and Kimi accepts it
    ");
    let head = kimi.asked.recv().unwrap();
    assert_eq!(head[0], "get /coding/v1/models http/1.1");
    assert!(head.contains(&"authorization: bearer canary-token".to_owned()), "{head:?}");
    assert!(kimi.asked.try_recv().is_err(), "one request is enough");
}

#[test]
fn llm_is_not_set() {
    let home = Home::new();
    let model = "[models.k2]\nprovider = \"kimi\"\nmodel = \"k2\"\nmax_context_size = 1000\n";
    let provider =
        "[providers.kimi]\ntype = \"kimi\"\nbase_url = \"https://api.kimi.com/coding/v1\"\napi_key = \"\"\n";
    let said = [
        format!("{model}{provider}"),
        format!("default_model = \"\"\n{model}{provider}"),
        format!("default_model = \"k3\"\n{model}{provider}"),
        String::new(),
    ]
    .map(|config| {
        home.write(CONFIG, &config);
        account(&home).lines().take(2).collect::<Vec<_>>().join("\n")
    });
    assert_snapshot!(said.join("\n"), @r#"
    BROKEN   Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is missing; choose one of "k2"
             → Mend it, or remove it to get a new one
    BROKEN   Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is missing; choose one of "k2"
             → Mend it, or remove it to get a new one
    BROKEN   Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is "k3", which is not in [models]; there is "k2"
             → Mend it, or remove it to get a new one
    BROKEN   Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is missing; there is none
             → Mend it, or remove it to get a new one
    "#);
}

#[test]
fn invalid_authentication_401() {
    let (home, _kimi) = home_with(GOOD, "401 Unauthorized");
    assert_snapshot!(account(&home), @"
    ok       The engine's config.toml will be written at the first start
    BROKEN   Kimi does not accept the login (401): it was ended there, or another program has renewed it
             → Start nanokimi, which renews it; should that not help, run `nanokimi login`
    ");
    let home = home.set("MOONSHOT_API_KEY", "sk-canary");
    assert_snapshot!(account(&home), @"
    ok       The engine's config.toml will be written at the first start
    BROKEN   Kimi does not accept the key of MOONSHOT_API_KEY (401): it was revoked, or is of another platform
             → Make a new one on the platform's page; a key from China needs MOONSHOT_BASE_URL=https://api.moonshot.cn/v1
    ");
}

#[test]
fn a_token_that_has_expired_is_not_shown_to_anybody() {
    let expired = GOOD.replace("4102444800", "1795291200");
    let (home, kimi) = home_with(&expired, "200 OK");
    assert_snapshot!(account(&home).lines().nth(1).unwrap(), @"ok       There is a login for the Kimi API; its token has expired, and is renewed when nanokimi runs");
    home.write(LOGIN, &expired.replace("canary-refresh", ""));
    assert_snapshot!(account(&home).lines().nth(1).unwrap(), @"BROKEN   The Kimi login expired at 2026-11-21T20:00:00Z, and cannot be renewed; run `nanokimi login`");
    assert!(kimi.asked.try_recv().is_err());
}

#[test]
fn what_else_kimi_may_say_of_a_login() {
    let said = ["403 Forbidden", "429 Too Many Requests", "529 Overloaded", "404 Not Found"].map(|status| {
        let (home, kimi) = home_with(GOOD, status);
        let said = account(&home).lines().skip(1).collect::<Vec<_>>().join("\n");
        said.replace(&kimi.base_url, "https://kimi.test")
    });
    assert_snapshot!(said.join("\n"), @"
    BROKEN   Kimi refuses this account, or this version of nanokimi (403)
             → Look at the account's plan on Kimi's page; if that is good, install a newer nanokimi
    warning  Kimi answers, but only that it is busy or out of order (429)
             → Wait a few minutes, and run this again
    warning  Kimi answers, but only that it is busy or out of order (529)
             → Wait a few minutes, and run this again
    warning  What answers at https://kimi.test is not the Kimi API (404)
             → Mend KIMI_CODE_BASE_URL or MOONSHOT_BASE_URL in .env, or leave them out
    ");
}

#[test]
fn a_kimi_that_is_out_of_reach_is_a_warning() {
    let home = Home::new().set("KIMI_CODE_BASE_URL", "http://127.0.0.1:9/coding/v1");
    home.write(LOGIN, GOOD);
    assert_snapshot!(account(&home), @"
    ok       The engine's config.toml will be written at the first start
    warning  The Kimi API at http://127.0.0.1:9/coding/v1 cannot be reached, so nobody knows whether it accepts the login: Connection refused
             → Check this machine's connection with curl -I http://127.0.0.1:9/coding/v1; behind a proxy, set HTTPS_PROXY
    ");
}

/// What `doctor` says when these mounts were made in a home with a good login; `$CREDENTIALS` is the login's folder.
fn with_mounts(mounts: &str) -> String {
    let (home, kimi) = home_with(GOOD, "200 OK");
    let credentials = home.path("nanokimi/data/credentials");
    let mut unshare = Command::new("timeout");
    unshare.args(["60", "unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]);
    unshare.arg(format!(r#"{mounts}; "{NANOKIMI}" doctor || test $? = 1"#));
    unshare.env_clear().env("HOME", home.path("")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    unshare.env("CREDENTIALS", &credentials).env("KIMI_CODE_BASE_URL", &kimi.base_url);
    let said = home.said(unshare.output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(fs::read_to_string(home.path(LOGIN)).unwrap(), GOOD);
    assert_eq!(fs::read_dir(credentials).unwrap().count(), 1, "the trial has left something behind");
    between(&said.stdout)
}

#[test]
fn read_only_file_system_on_refresh() {
    let said =
        with_mounts(r#"mount --bind "$CREDENTIALS" "$CREDENTIALS"; mount -o remount,bind,ro "$CREDENTIALS""#);
    assert_snapshot!(said, @"
    ok       The engine's config.toml will be written at the first start
    ok       There is a login for the Kimi API, and Kimi accepts it
    BROKEN   A renewed login could not be saved in HOME/nanokimi/data/credentials: that disk can only be read
             → Make that folder writable for the user who runs nanokimi, before the login is renewed: the old one is void then
    ");
}

#[test]
fn a_login_that_is_mounted_as_a_single_file_cannot_be_replaced() {
    let said = with_mounts(r#"mount --bind "$CREDENTIALS/kimi-code.json" "$CREDENTIALS/kimi-code.json""#);
    assert_snapshot!(said, @"
    ok       The engine's config.toml will be written at the first start
    ok       There is a login for the Kimi API, and Kimi accepts it
    BROKEN   HOME/nanokimi/data/credentials/kimi-code.json is mounted as a single file, so a renewed login could not be saved in its place
             → Mount its folder HOME/nanokimi/data/credentials instead
    ");
}

#[test]
fn a_folder_of_others_is_named() {
    let (home, _kimi) = home_with(GOOD, "200 OK");
    let folder = home.path("nanokimi/data/credentials");
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
    assert_snapshot!(account(&home).lines().skip(2).collect::<Vec<_>>().join("\n"), @"
    BROKEN   A renewed login could not be saved in HOME/nanokimi/data/credentials: permission denied
             → Make that folder writable for the user who runs nanokimi, before the login is renewed: the old one is void then
    ");
}
