//! A service on a machine without systemd. `tests/systemd/story` tests it with systemd.

use std::os::unix::fs::{PermissionsExt, symlink};

use insta::assert_snapshot;

use crate::world::{Home, Person};

/// The verbs that ask systemd.
const ASK_SYSTEMD: [&[&str]; 5] = [
    &["service", "install"],
    &["service", "install", "--linger"],
    &["service", "uninstall"],
    &["service", "status"],
    &["service", "logs"],
];

/// A home whose only programs are these, and the ones that the tests need.
fn home_with(programs: &[(&str, &str)]) -> Home {
    let home = Home::new();
    std::fs::create_dir(home.path("bin")).unwrap();
    for needed in ["timeout", "unshare"] {
        symlink(format!("/usr/bin/{needed}"), home.path("bin").join(needed)).unwrap();
    }
    for (name, script) in programs {
        let program = home.path("bin").join(name);
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let bin = home.path("bin").to_str().unwrap().to_owned();
    home.set("PATH", &bin)
}

#[test]
fn without_systemd_another_supervisor_is_advised() {
    let home = home_with(&[]);
    assert_snapshot!(home.all_refuse(&ASK_SYSTEMD), @"There is no systemd on this machine; have your own supervisor run `nanokimi run`");
    home.write(".config/systemd/user/nanokimi.service", "");
    assert_snapshot!(home.refuses(&["service", "logs"]), @"There is no systemd on this machine, and so no journal to read");
}

#[test]
fn without_a_systemd_of_ones_own_a_login_is_advised() {
    let home = home_with(&[("systemctl", "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")]);
    assert_snapshot!(home.all_refuse(&ASK_SYSTEMD), @"Your own systemd does not answer; log in as yourself (over ssh, not with su or sudo) with the package dbus-user-session installed, and try again");
}

#[test]
fn root_is_sent_to_the_account_that_has_docker() {
    let home = home_with(&[("systemctl", "#!/bin/sh\nexit 0\n")]).of(Person::Root);
    assert_snapshot!(home.all_refuse(&ASK_SYSTEMD), @"The service belongs to the account whose rootless Docker it uses; log in as that one");
}

#[test]
fn what_could_not_start_is_not_installed() {
    let home = home_with(&[("systemctl", "#!/bin/sh\nexit 0\n")]);
    let refusal = home.refuses(&["service", "install"]);
    assert!(refusal.starts_with("Docker does not answer at HOME/run/docker.sock."), "{refusal}");
}

#[test]
fn where_there_is_no_service_nothing_was_logged() {
    let home = home_with(&[
        ("systemctl", "#!/bin/sh\nexit 0\n"),
        ("journalctl", "#!/bin/sh\necho -- No entries --\n"),
    ]);
    let said = home.run(&["service", "logs"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert_snapshot!(said.stderr, @"There is no service here; `nanokimi service install` makes it.");
    assert_eq!(home.run(&["service", "status"]), said, "the same");
}

#[test]
fn a_service_that_systemd_does_not_start_any_more_is_installed_anew() {
    let shown = |result: &str, code: &str| {
        let script = format!(
            "#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState=failed\\nSubState=failed\\nResult={result}\\n\\
             NRestarts=10\\nUnitFileState=enabled\\nExecMainStatus={code}\\n'\n"
        );
        let said = home_with(&[("systemctl", &script)]).run(&["service", "status"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        said.stderr
    };
    assert_snapshot!(shown("start-limit-hit", "1"), @"It failed too often within a short time, so systemd does not start it any more. `nanokimi service logs` says why it failed; `nanokimi service install` writes a unit without that limit and starts it.");
    assert_snapshot!(shown("exit-code", "1"), @"`nanokimi service logs` says why; `systemctl --user restart nanokimi` starts it.");
    assert_snapshot!(shown("exit-code", "3"), @"No WhatsApp account is linked any more, or none yet; run `nanokimi auth`. Then `systemctl --user restart nanokimi` starts it.");
}

#[test]
fn logs_are_the_journal_of_the_unit() {
    let home = home_with(&[("journalctl", "#!/bin/sh\necho \"$@\"\n")]);
    home.write(".config/systemd/user/nanokimi.service", "");
    for (arguments, expected) in [
        (&["service", "logs"][..], "--user-unit nanokimi.service --lines 100\n"),
        (
            &["service", "logs", "--follow", "--lines", "5"],
            "--user-unit nanokimi.service --lines 5 --follow\n",
        ),
    ] {
        assert_eq!(home.run(arguments).done().stdout, expected);
    }
}
