//! No Docker, a Docker of another person, a Docker that runs as root, no image.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use support::fake_docker::{self, Image};

use crate::world::{Home, Person};

/// The verbs that need Docker before they change anything.
const NEED_DOCKER: [&[&str]; 3] = [&["build"], &["chat"], &["chat", "--say", "hello"]];

#[test]
fn without_docker_its_start_is_told() {
    let home = Home::new();
    assert_snapshot!(home.all_refuse(&NEED_DOCKER), @"Docker does not answer at HOME/run/docker.sock. Start it with `systemctl --user start docker`; docs/operating.md says how to set it up");
}

#[test]
fn on_a_fresh_machine_run_and_build_make_nothing() {
    let home = Home::empty();
    let refusal = home.all_refuse(&[&["run"], &["build"]]);
    assert!(refusal.starts_with("Docker does not answer at HOME/run/docker.sock."), "{refusal}");
}

#[test]
fn root_is_sent_to_the_account_that_has_docker() {
    let home = Home::new().of(Person::Root);
    assert_snapshot!(home.all_refuse(&[&["run"], NEED_DOCKER[0], NEED_DOCKER[1], NEED_DOCKER[2]]), @"Docker does not answer at HOME/run/docker.sock. Rootless Docker belongs to an ordinary account: log in as that one (`nanokimi demo` makes one)");
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_no_docker() {
    let home = Home::new();
    std::fs::create_dir(home.path("run")).unwrap();
    drop(UnixListener::bind(home.path("run/docker.sock")).unwrap());
    assert_snapshot!(home.all_refuse(&NEED_DOCKER), @"Docker does not answer at HOME/run/docker.sock. Start it with `systemctl --user start docker`; docs/operating.md says how to set it up");
}

#[test]
fn somebody_elses_docker_is_named_as_such() {
    let home = Home::new();
    let socket = home.path("run/docker.sock");
    fake_docker::start(&socket, Image::Built);
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_snapshot!(home.all_refuse(&NEED_DOCKER), @"Docker does not answer at HOME/run/docker.sock, whose socket belongs to another user. Start it with `systemctl --user start docker`; docs/operating.md says how to set it up");
}

#[test]
fn a_docker_host_that_does_not_answer_can_be_left_out() {
    let home = Home::new();
    let nowhere = format!("unix://{}", home.path("nowhere.sock").display());
    let home = home.set("DOCKER_HOST", &nowhere);
    assert_snapshot!(home.all_refuse(&NEED_DOCKER), @"Docker does not answer at HOME/nowhere.sock. Start it there, or leave DOCKER_HOST out to use your own rootless Docker");
}

#[test]
fn a_docker_of_another_machine_is_refused() {
    let home = Home::new().set("DOCKER_HOST", "tcp://127.0.0.1:2375");
    assert_snapshot!(home.all_refuse(&[&["run"], NEED_DOCKER[0], NEED_DOCKER[1], NEED_DOCKER[2]]), @r#"DOCKER_HOST is "tcp://127.0.0.1:2375", but nanokimi needs the Docker of this machine; set it to unix:///path/to/docker.sock, or leave it out"#);
}

#[test]
fn without_the_image_its_build_is_told() {
    let home = Home::new();
    fake_docker::start(&home.path("run/docker.sock"), Image::Missing);
    assert_snapshot!(home.all_refuse(&[&["run"], &["chat"], &["chat", "--say", "hello"]]), @"The agent image of kimi-code is not built yet; run `nanokimi build`");
}

#[test]
fn run_waits_for_docker_says_so_and_works_when_it_is_there() {
    let home = Home::new();
    let mut run = home.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = log.next().unwrap();
    assert!(waits.contains("WARN Docker does not answer at "), "{waits}");
    assert!(waits.ends_with("docs/operating.md says how to set it up. It is waited for"), "{waits}");
    assert!(log.any(|line| line.ends_with("Ready")), "messages are taken in");
    let status = home.run(&["status"]).done().stdout;
    assert!(
        status.contains("docker               Docker does not answer at HOME/run/docker.sock. Start it"),
        "{status}"
    );

    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    assert!(log.any(|line| line.ends_with("INFO Docker answers")), "it is found by itself");
    let status = home.run(&["status"]).done().stdout;
    assert!(status.contains("docker               answers\n"), "{status}");
    let holder = std::fs::read_to_string(home.path("nanokimi/store/nanokimi.lock")).unwrap();
    let process = holder.rsplit(' ').next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(process).unwrap(), Signal::TERM).unwrap();
    assert!(run.wait().unwrap().success());
}

#[test]
fn doctor_warns_of_a_docker_that_runs_as_root_and_says_what_is_missing() {
    let home = Home::new();
    fake_docker::start(&home.path("run/docker.sock"), Image::Missing);
    let said = home.run(&["doctor"]);
    assert_eq!(said.code, Some(1));
    let docker: Vec<&str> = said.stdout.lines().skip(1).take(4).collect();
    assert_snapshot!(docker.join("\n"), @"
    warning  Docker 26.1.5 runs as root: whoever breaks out of a container owns this machine
             → Use rootless Docker: dockerd-rootless-setuptool.sh install, and no DOCKER_HOST
    BROKEN   The agent image of kimi-code is not built
             → Run `nanokimi build`
    ");
}
