//! `nanokimi login` as a process, with the practice model's login server: every way it can end, and what
//! stays on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use nanokimi::clock::Clock;
use nanokimi::practice::Practice;
use serde_json::Value;
use support::login_server::{Approval, LoginFault, LoginTerms, MockLoginServer};
use support::scripted_model::start_scripted_model;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::world::{Home, Said};

const FILE: &str = "nanokimi/data/credentials/kimi-code.json";
/// Longer than anything that these tests wait for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two checks of something that does not report its changes.
const LOOK: Duration = Duration::from_millis(5);

/// Kimi's servers, and a home whose nanokimi uses them.
struct World {
    practice: Practice,
    login_server: MockLoginServer,
    home: Home,
    runtime: Runtime,
}

impl World {
    fn new(terms: LoginTerms) -> Self {
        let runtime = Runtime::new().unwrap();
        let practice = runtime.block_on(start_scripted_model());
        let login_server = MockLoginServer::start(&practice, terms);
        let home = Home::empty()
            .set("KIMI_CODE_OAUTH_HOST", &practice.oauth_host())
            .set("KIMI_CODE_BASE_URL", &practice.base_url())
            .set("TZ", "UTC");
        Self { practice, login_server, home, runtime }
    }

    fn quick() -> Self {
        Self::new(LoginTerms { interval: Duration::from_millis(50), ..LoginTerms::default() })
    }

    fn start(&self) -> Child {
        let mut command = self.home.command(&["login"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn ended(&self, child: Child) -> Said {
        self.cleared(self.home.said(child.wait_with_output().unwrap()))
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.cleared(self.home.run(arguments))
    }

    /// Checks that it shows no token, and removes the server's port.
    fn cleared(&self, said: Said) -> Said {
        let server = self.practice.oauth_host();
        let clear = |text: String| {
            for secret in ["access-", "refresh-", "device-"] {
                assert!(!text.contains(secret), "a secret is shown: {text}");
            }
            text.replace(&server, "SERVER")
        };
        Said { code: said.code, stdout: clear(said.stdout), stderr: clear(said.stderr) }
    }

    fn polls(&self, count: u64) {
        let asked = async {
            while self.login_server.counts().polls < count {
                tokio::time::sleep(LOOK).await;
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, asked).await }).expect("nobody asks");
    }

    fn put(&self, age: Duration) {
        self.home.write(FILE, &self.login_server.issue_login_file(Clock::System.now(), age));
    }

    fn text(&self) -> String {
        fs::read_to_string(self.home.path(FILE)).unwrap()
    }

    /// The login has failed, and no file of the attempt is left.
    fn nobody_is_logged_in(&self) {
        let folder = self.home.path("nanokimi/data/credentials");
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["device_id", "kimi-code.lock"]);
    }
}

fn refused(said: &Said) -> &str {
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    said.stderr.lines().last().unwrap()
}

#[test]
fn a_login_is_one_command_and_a_page_in_any_browser() {
    let world = World::quick();
    world.login_server.set_approval(Approval::Waits);
    let child = world.start();
    world.polls(3);
    world.login_server.set_approval(Approval::Agrees);
    let said = world.ended(child).done();
    assert_eq!(said.stdout, "");
    assert_snapshot!(said.stderr, @"
    Open this page in any browser, on any device, and agree there:

        https://www.kimi.com/code/authorize_device?user_code=ABCD-1234

    It must show the code ABCD-1234; where it asks for one, type it in.
    Waiting for you to agree, for 30 min.
    Logged in to Kimi.
    nanokimi keeps it fresh while it runs. Next: `nanokimi doctor`
    ");
    let login: Value = serde_json::from_str(&world.text()).unwrap();
    assert_eq!(login.as_object().unwrap().len(), 6);
    assert!(world.login_server.can_refresh_from(&world.text()));
    for (name, mode) in [(FILE, 0o600), ("nanokimi/data/credentials", 0o700)] {
        assert_eq!(fs::metadata(world.home.path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    let config = fs::read_to_string(world.home.path("nanokimi/data/credentials/config.toml")).unwrap();
    assert!(config.contains("managed:kimi-code"), "{config}");

    let requests = world.practice.received_requests();
    assert_eq!(requests[0].line, "POST /api/oauth/device_authorization");
    let device = fs::read_to_string(world.home.path("nanokimi/data/credentials/device_id")).unwrap();
    for request in &requests {
        assert_eq!(request.body["client_id"], "17e5f671-d194-4dfb-9706-5516cb48c098");
        assert_eq!(request.headers["x-msh-platform"], "nanokimi");
        assert_eq!(request.headers["x-msh-device-id"], device);
    }
    assert_eq!(requests[1].body["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
}

#[test]
fn a_second_login_takes_the_place_of_the_first_and_only_then() {
    let world = World::quick();
    world.put(Duration::ZERO);
    world.home.write("nanokimi/data/credentials/config.toml", "mine = true\n");
    let before = world.text();
    world.login_server.set_approval(Approval::Denies);
    let said = world.run(&["login"]);
    assert_snapshot!(refused(&said), @"nanokimi: The login was refused on Kimi's page; run `nanokimi login` again if that was a mistake");
    assert!(said.stderr.starts_with("There is a Kimi login already. It stays until the new one is there.\n"));
    assert_eq!(world.text(), before);

    world.login_server.set_approval(Approval::Agrees);
    let said = world.run(&["login"]).done();
    assert_ne!(world.text(), before);
    let config = fs::read_to_string(world.home.path("nanokimi/data/credentials/config.toml")).unwrap();
    assert_eq!(config, "mine = true\n", "it is never changed");
    assert_snapshot!(said.stderr.lines().last().unwrap(), @"Failed to understand HOME/nanokimi/data/credentials/config.toml: default_model is missing; there is none. Mend it, or remove it to get a new one.");
}

#[test]
fn a_code_that_nobody_uses_runs_out() {
    let second = Duration::from_secs(1);
    let world = World::new(LoginTerms {
        interval: Duration::from_millis(50),
        codes_last: second,
        ..LoginTerms::default()
    });
    world.login_server.set_approval(Approval::Waits);
    assert_snapshot!(refused(&world.run(&["login"])), @"nanokimi: Nobody agreed on Kimi's page in time; run `nanokimi login` again");
    world.nobody_is_logged_in();
    world.login_server.queue_faults([LoginFault::Expired]);
    assert!(refused(&world.run(&["login"])).starts_with("nanokimi: Nobody agreed on Kimi's page in time"));
}

#[test]
fn a_login_that_is_refused_on_the_page_says_so() {
    let world = World::quick();
    world.login_server.set_approval(Approval::Denies);
    assert_snapshot!(refused(&world.run(&["login"])), @"nanokimi: The login was refused on Kimi's page; run `nanokimi login` again if that was a mistake");
    world.nobody_is_logged_in();
}

#[test]
fn a_server_that_wants_to_be_asked_less_often_is() {
    let world = World::quick();
    world.login_server.queue_faults([LoginFault::SlowDown]);
    let began = Instant::now();
    world.run(&["login"]).done();
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(world.login_server.counts().polls, 2);
}

#[test]
fn a_server_in_trouble_is_asked_again_until_the_code_runs_out() {
    let world = World::quick();
    let child = world.start();
    world.login_server.set_approval(Approval::Waits);
    world.polls(1);
    world.login_server.queue_faults([LoginFault::Status(503), LoginFault::HangUp, LoginFault::Nonsense]);
    world.login_server.set_approval(Approval::Agrees);
    world.ended(child);

    let second = Duration::from_secs(1);
    let world = World::new(LoginTerms {
        interval: Duration::from_millis(50),
        codes_last: second,
        ..LoginTerms::default()
    });
    world.login_server.set_approval(Approval::Waits);
    let child = world.start();
    world.polls(1);
    world.login_server.queue_faults([LoginFault::Status(503); 40]);
    assert_snapshot!(refused(&world.ended(child)), @"nanokimi: Kimi's login server did not answer in time (it answers HTTP 503, server_error); check this machine's connection with `curl -I SERVER`, then run `nanokimi login` again");
    world.nobody_is_logged_in();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let home = Home::empty().set("KIMI_CODE_OAUTH_HOST", "http://127.0.0.1:9");
    assert_snapshot!(refused(&home.run(&["login"])), @"nanokimi: Kimi's login server gives no code (Connection refused); check this machine's connection with `curl -I http://127.0.0.1:9`, then run `nanokimi login` again");
    let world = World::quick();
    world.login_server.queue_faults([LoginFault::Status(500)]);
    assert_snapshot!(refused(&world.run(&["login"])), @"nanokimi: Kimi's login server gives no code (it answers HTTP 500, server_error); check this machine's connection with `curl -I SERVER`, then run `nanokimi login` again");
}

#[test]
fn whoever_gives_up_leaves_nothing_behind() {
    for signal in ["INT", "TERM", "HUP"] {
        let world = World::quick();
        world.login_server.set_approval(Approval::Waits);
        let child = world.start();
        world.polls(1);
        // The signal goes to `timeout`, which passes it on.
        let sent = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let said = world.ended(child);
        assert!(
            said.stderr.ends_with("Nobody was logged in. `nanokimi login` begins anew.\n"),
            "{signal}: {said:?}"
        );
        world.nobody_is_logged_in();
    }
}

#[test]
fn where_nothing_can_be_kept_nobody_is_asked() {
    let world = World::quick();
    fs::create_dir_all(world.home.path("nanokimi/data/credentials/kimi-code.lock")).unwrap();
    assert_snapshot!(refused(&world.run(&["login"])), @"nanokimi: Failed to lock HOME/nanokimi/data/credentials/kimi-code.lock: that is a folder, not a file; move it away");
    assert_eq!(world.login_server.counts().device_codes, 0);
}

#[test]
fn with_an_api_key_a_login_would_be_ignored() {
    let world = World::quick();
    world.home.write("nanokimi/.env", "MOONSHOT_API_KEY=sk-canary\n");
    let refusal = world.home.refuses(&["login"]);
    assert_snapshot!(refusal, @"MOONSHOT_API_KEY is set, and with it a Kimi login would be ignored; take the key out of HOME/nanokimi/.env to use a login");
    assert_snapshot!(world.run(&["login", "--status"]).done().stderr, @"MOONSHOT_API_KEY is used; a Kimi login would be ignored.");
    assert_eq!(world.login_server.counts().device_codes, 0);
}

#[test]
fn status_shows_whose_login_it_is_and_what_is_left_of_the_plan() {
    let world = World::quick();
    assert_snapshot!(refused(&world.run(&["login", "--status"])), @"nanokimi: Nobody is logged in to Kimi; run `nanokimi login`");
    world.put(Duration::ZERO);
    let said = world.run(&["login", "--status"]).done();
    let until = said.stdout.lines().find(|line| line.starts_with("token")).unwrap().to_owned();
    let date = &until[until.find("until ").unwrap() + 6..][..20];
    assert_snapshot!(said.stdout.replace(date, "DATE"), @"
    account     practice (LEVEL_BASIC)
    token       good until DATE, renewed before that
    renewed by  nobody now: the service does not run
    quota       99 % left (1 of 100 used), anew 2100-01-01 00:00 UTC
    quota, 5 h  99 % left (1 of 100 used), anew 2100-01-01 00:00 UTC
    ");

    // Revoked at Kimi; too old to use; without a refresh token.
    world.login_server.expire_access_tokens();
    let said = world.run(&["login", "--status"]).done();
    assert_snapshot!(said.stdout.lines().last().unwrap(), @"quota       not told: it does not accept the login (HTTP 401)");
    world.put(Duration::from_secs(3600));
    let said = world.run(&["login", "--status"]).done();
    assert!(
        said.stdout.contains("token       expired ") && said.stdout.contains(", renewed at the next start\n")
    );
    assert_snapshot!(said.stdout.lines().last().unwrap(), @"quota       not asked for: the token has expired");
    let mut login: Value =
        serde_json::from_str(&world.login_server.issue_login_file(Clock::System.now(), Duration::ZERO))
            .unwrap();
    login["refresh_token"] = "".into();
    world.home.write(FILE, &login.to_string());
    let said = world.run(&["login", "--status"]).done();
    assert!(said.stdout.contains("renewed by  nobody: it came without a refresh token\n"), "{said:?}");
}

#[test]
fn logout_removes_the_login_and_says_what_is_still_good() {
    let world = World::quick();
    assert_snapshot!(world.run(&["login", "--logout"]).done().stderr, @"Nobody is logged in to Kimi.");
    world.run(&["login"]).done();
    let device = fs::read_to_string(world.home.path("nanokimi/data/credentials/device_id")).unwrap();
    let said = world.run(&["login", "--logout"]).done();
    let date = &said.stderr[said.stderr.find("good until ").unwrap() + 11..][..20];
    assert_snapshot!(said.stderr.replace(date, "DATE"), @"
    Removed the Kimi login from this machine. `nanokimi login` makes another one.
    Kimi does not know: its last token is good until DATE, and whoever has a copy of the file can renew it. Your account on https://www.kimi.com is where a login is ended.
    ");
    assert!(!world.home.path(FILE).exists());
    assert_eq!(fs::read_to_string(world.home.path("nanokimi/data/credentials/device_id")).unwrap(), device);
    assert_snapshot!(world.run(&["login", "--logout"]).done().stderr, @"Nobody is logged in to Kimi.");
}

#[test]
fn on_a_terminal_the_page_is_a_qr_code_too_and_the_time_is_counted_down() {
    let world = World::quick();
    world.login_server.set_approval(Approval::Waits);
    let mut command = std::process::Command::new("script");
    let run = format!("stty rows 40 cols 100; exec unshare --user -- {} login", crate::world::NANOKIMI);
    command.args(["--quiet", "--return", "--command", &run, "/dev/null"]).stdin(Stdio::null());
    let inner = world.home.command(&[]);
    command.env_clear().current_dir(world.home.path(""));
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    // This takes longer than a second.
    world.polls(40);
    world.login_server.set_approval(Approval::Agrees);
    let shown = world.ended(child).done().stdout;
    assert!(shown.contains("\x1b[38;5;16;48;5;231m"), "a code is drawn: {shown}");
    assert!(shown.contains("\rWaiting for you to agree. 30 min left; Ctrl-C ends.\x1b[K"), "{shown}");
    assert!(shown.contains("\rWaiting for you to agree. 29 min 59 s left; Ctrl-C ends.\x1b[K"), "{shown}");
    assert!(shown.contains("\r\x1b[KLogged in to Kimi."), "{shown}");
}
