//! The Kimi account as `doctor` sees it: the engine's settings, a login that Kimi does not accept, a folder
//! in which a renewed login would be lost. The tests are named after the messages by which people know these
//! troubles.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;
use rusqlite::Connection;

use crate::fake_kimi;
use crate::world::{Home, NANOKIMI};

const CONFIG: &str = "nanokimi/data/credentials/config.toml";
const LOGIN: &str = "nanokimi/data/credentials/kimi-code.json";
/// A login that is valid until 2100.
const GOOD: &str =
    r#"{"access_token":"canary-token","refresh_token":"canary-refresh","expires_at":4102444800}"#;

/// What `doctor` says about the Kimi account in this home: its findings between those of Docker and of
/// WhatsApp.
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

/// A home whose login is checked at a Kimi that gives this answer.
fn home_with(login: &str, status: &'static str) -> (Home, fake_kimi::FakeKimi) {
    home_at(fake_kimi::start(status), login)
}

fn home_at(kimi: fake_kimi::FakeKimi, login: &str) -> (Home, fake_kimi::FakeKimi) {
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
    for path in ["models", "usages"] {
        let head = kimi.asked.recv().unwrap();
        assert_eq!(head[0], format!("get /coding/v1/{path} http/1.1"));
        assert!(head.contains(&"authorization: bearer canary-token".to_owned()), "{head:?}");
    }
    assert!(kimi.asked.try_recv().is_err(), "two requests are enough");
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
             → Start nanokimi, which renews it; should that not help, run `nanokimi login`. An account of kimi.ai needs KIMI_REGION=ai in .env
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
    BROKEN   Kimi refuses this account or the agent program, and does not say why (403)
             → Look at the account's page at Kimi; if all is well there, install the newest nanokimi
    warning  Kimi answers, but only that it is busy or out of order (429)
             → Wait a few minutes, and run this again
    warning  Kimi answers, but only that it is busy or out of order (529)
             → Wait a few minutes, and run this again
    warning  What answers at https://kimi.test is not the Kimi API (404)
             → Mend KIMI_CODE_BASE_URL or MOONSHOT_BASE_URL in .env, or leave them out
    ");
}

#[test]
fn what_kimi_refuses_an_account_for() {
    let said = [
        (
            "403 Forbidden",
            r#"{"error": {"message": "Kimi For Coding is currently only available for Coding Agents"}}"#,
        ),
        ("403 Forbidden", r#"{"error": {"message": "Access terminated. Review our Community Guidelines"}}"#),
        (
            "402 Payment Required",
            r#"{"error": {"message": "We're unable to verify your membership benefits"}}"#,
        ),
        (
            "403 Forbidden",
            r#"{"error": {"message": "You've reached your usage limit for this billing cycle"}}"#,
        ),
    ]
    .map(|(status, body)| {
        let (home, _kimi) = home_at(fake_kimi::start_saying(status, body), GOOD);
        account(&home).lines().skip(1).collect::<Vec<_>>().join("\n")
    });
    assert_snapshot!(said.join("\n"), @"
    BROKEN   Kimi does not serve the agent program, or not in this version any more (403)
             → Install the newest nanokimi; groups that use kimi-cli, which has ended, change over with `nanokimi groups set --all --engine kimi-code`
    BROKEN   Kimi has ended the access of this account (403)
             → Read what Kimi has written to you, and ask its support; `nanokimi login` puts another account in its place
    BROKEN   Kimi finds no active membership for this account (402)
             → See on the account's page at Kimi that it is active and paid
    BROKEN   Kimi says that what the plan holds is used up
             → Wait until it begins anew, which `nanokimi login --status` tells, or buy more on the account's page at Kimi
    ");
}

#[test]
fn what_kimi_has_last_refused_the_service_for_is_told_until_something_is_answered() {
    let (home, _kimi) = home_with(GOOD, "200 OK");
    let said =
        ["client_refused", "account_ended", "no_membership", "refused", "quota_used_up"].map(|outage| {
            let database = Connection::open(home.database()).unwrap();
            database.execute("DELETE FROM outages", []).unwrap();
            database.execute("INSERT INTO outages (outage, since) VALUES (?1, 0)", [outage]).unwrap();
            drop(database);
            let status = home.run(&["status"]).done().stdout;
            let kimi = status.lines().find(|line| line.starts_with("kimi")).unwrap_or_default().to_owned();
            let doctor = account(&home).lines().skip(2).collect::<Vec<_>>().join("\n");
            format!("{kimi}\n{doctor}")
        });
    assert_snapshot!(said.join("\n\n"), @"
    kimi                 logged in; Kimi does not serve the agent program since 1970-01-01 00:00 UTC
    BROKEN   Kimi does not serve the agent program, or not in this version any more (403), since 1970-01-01 00:00 UTC
             → Install the newest nanokimi; groups that use kimi-cli, which has ended, change over with `nanokimi groups set --all --engine kimi-code`

    kimi                 logged in; Kimi has ended the account's access since 1970-01-01 00:00 UTC
    BROKEN   Kimi has ended the access of this account (403), since 1970-01-01 00:00 UTC
             → Read what Kimi has written to you, and ask its support; `nanokimi login` puts another account in its place

    kimi                 logged in; Kimi finds no active membership since 1970-01-01 00:00 UTC
    BROKEN   Kimi finds no active membership for this account (402), since 1970-01-01 00:00 UTC
             → See on the account's page at Kimi that it is active and paid

    kimi                 logged in; Kimi refuses the account or the agent program since 1970-01-01 00:00 UTC
    BROKEN   Kimi refuses this account or the agent program, and does not say why (403), since 1970-01-01 00:00 UTC
             → Look at the account's page at Kimi; if all is well there, install the newest nanokimi

    kimi                 logged in; the plan is used up since 1970-01-01 00:00 UTC
    BROKEN   Kimi says that what the plan holds is used up, since 1970-01-01 00:00 UTC
             → Wait until it begins anew, which `nanokimi login --status` tells, or buy more on the account's page at Kimi
    ");
}

#[test]
fn what_is_left_of_the_plan_in_each_shape_that_kimi_tells_it() {
    let said = [
        r#"{"usage": {"limit": "100", "used": "12"}, "limits": [{"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}, "detail": {"limit": 100, "used": 60}}]}"#,
        r#"{"usages": {"limit_5h": {"used_ratio": 0.25}, "limit_7d": {"used_ratio": 0.5}, "limit_month_code": {"used_ratio": 0.75}}}"#,
        r#"{"usage": {"limit": "100", "used": "12"}, "usages": {"limit_7d": {"used_ratio": 0.9}}}"#,
        r#"{"usages": {"limit_5h": {"used_ratio": 1, "reset_time": "2100-01-01T00:00:00Z"}}}"#,
    ]
    .map(|body| {
        let (home, _kimi) = home_at(fake_kimi::start_saying("200 OK", body), GOOD);
        let doctor = account(&home).lines().skip(2).collect::<Vec<_>>().join("\n");
        let status = home.run(&["login", "--status"]).done().stdout;
        let quota: Vec<&str> = status.lines().filter(|line| line.starts_with("quota")).collect();
        format!("{doctor}\n{}", quota.join("\n"))
    });
    assert_snapshot!(said.join("\n\n"), @"
    ok       Left of the plan: 88 %, 40 % (5 h)
    quota       88 % left (12 of 100 used)
    quota, 5 h  40 % left (60 of 100 used)

    ok       Left of the plan: 75 % (5 h), 50 % (7 d), 25 % (month, for code)
    quota, 5 h              75 % left
    quota, 7 d              50 % left
    quota, month, for code  25 % left

    ok       Left of the plan: 10 or 88 % (7 d), by two figures of Kimi's
    quota, 7 d  10 % left, or 88 % by another figure of Kimi's

    warning  Left of the plan: 0 % (5 h)
             → Wait until it begins anew, which `nanokimi login --status` tells, or buy more on the account's page at Kimi
    quota, 5 h  0 % left, anew 2100-01-01 00:00 UTC
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

/// What `doctor` says if these mounts were made in a home with a good login. `$CREDENTIALS` is the login's
/// folder.
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
