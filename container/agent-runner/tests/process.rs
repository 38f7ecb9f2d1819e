//! The runner as a process, with a scripted engine: what the host sees of it from outside.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A container's folders, as the host mounts them.
fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["home/node/.kimi/sessions", "workspace/group", "workspace/global", "run/nanokimi"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("home/node/.kimi/config.toml"), "default_yolo = true\n").unwrap();
    root
}

fn runner(root: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-runner"));
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine.sh"))
        .arg(root.path())
        .env("NANOKIMI_ENGINE", "kimi-cli")
        .env("NANOKIMI_SESSION", "main")
        .env("NANOKIMI_DEVICE_ID", "d1")
        .env("NANOKIMI_ASSISTANT", "Kai")
        .env("KIMI_API_KEY", "not for the engine")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it with an engine that does this.
fn start(root: &TempDir, order: &str) -> Child {
    let mut child = runner(root).spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{order}").unwrap();
    child
}

fn run(root: &TempDir, order: &str) -> (String, String, Option<i32>) {
    let Output { status, stdout, stderr } = start(root, order).wait_with_output().unwrap();
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), status.code())
}

#[test]
fn the_engine_speaks_through_and_its_exit_code_is_ours() {
    let root = root();
    let (stdout, stderr, code) = run(&root, r#"echo "$@"; echo why >&2; exit 7"#);
    let root = root.path().display();
    assert_eq!(
        stdout,
        format!(
            "--wire --session main -w {root}/workspace/group --config-file {root}/home/node/.nanokimi/config.toml \
             --agent-file {root}/home/node/.nanokimi/agent.yaml\n"
        )
    );
    assert_eq!((stderr.as_str(), code), ("why\n", Some(7)));
}

#[test]
fn the_engine_finds_its_home_prepared() {
    let root = root();
    fs::write(root.path().join("workspace/group/KIMI.md"), "Our rules").unwrap();
    let session = root.path().join("home/node/.kimi/sessions/4f2a/main");
    fs::create_dir_all(&session).unwrap();
    fs::write(session.join("context.jsonl"), "{\"role\":\"_system_prompt\"}\n{\"role\":\"user\"}\n").unwrap();
    let (stdout, _, _) = run(
        &root,
        r#"cd; cat .kimi/device_id .kimi/sessions/4f2a/main/context.jsonl .nanokimi/config.toml; grep -c Our .nanokimi/agent.yaml; grep -c group .kimi/kimi.json; env | grep -c API_KEY"#,
    );
    assert_eq!(stdout, "d1{\"role\":\"user\"}\ndefault_yolo = true\n1\n1\n0\n");
}

#[test]
fn closing_stdin_reaches_the_engine() {
    let (stdout, _, code) = run(&root(), "cat; echo bye");
    assert_eq!((stdout.as_str(), code), ("bye\n", Some(0)));
}

#[test]
fn the_engines_closing_of_stdout_reaches_the_host() {
    let root = root();
    let mut child = start(&root, "exec >&-; read -r wait; exit 3");
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn sigterm_ends_the_engine_and_then_the_runner() {
    let root = root();
    let mut child = start(&root, "echo ready; exec sleep 600");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn what_the_engine_asks_goes_to_the_door() {
    let root = root();
    let door = UnixListener::bind(root.path().join("run/nanokimi/door.sock")).unwrap();
    let mut child = start(&root, "echo $KIMI_CODE_OAUTH_HOST; cat");
    let mut address = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut address).unwrap();
    let mut engine = TcpStream::connect(address.trim().strip_prefix("http://").unwrap()).unwrap();
    engine.write_all(b"GET").unwrap();
    let mut asked = [0; 3];
    door.accept().unwrap().0.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"GET");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_keeps_the_engine_from_starting_is_one_line_and_a_code() {
    let root = root();
    let failed = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.status.code())
    };
    let (said, code) = failed(runner(&root).env_remove("NANOKIMI_SESSION"));
    assert_eq!((said.as_str(), code), ("agent-runner: NANOKIMI_SESSION is not set\n", Some(78)));

    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-runner"));
    command
        .arg("/nowhere/kimi")
        .arg(root.path())
        .env("NANOKIMI_ENGINE", "kimi-cli")
        .env("NANOKIMI_SESSION", "s")
        .env("NANOKIMI_DEVICE_ID", "d")
        .env("NANOKIMI_ASSISTANT", "Kai");
    let (said, code) = failed(&mut command);
    assert!(said.starts_with("agent-runner: Failed to start the engine: No such file"), "{said}");
    assert_eq!((said.lines().count(), code), (1, Some(72)));

    fs::remove_file(root.path().join("home/node/.kimi/config.toml")).unwrap();
    let (said, code) = failed(&mut runner(&root));
    assert!(said.starts_with("agent-runner: Failed to read "), "{said}");
    assert_eq!((said.lines().count(), code), (1, Some(78)));

    fs::remove_dir_all(root.path().join("home/node/.kimi")).unwrap();
    fs::write(root.path().join("home/node/.kimi"), "").unwrap();
    let (said, code) = failed(&mut runner(&root));
    assert!(said.starts_with("agent-runner: Failed to write "), "{said}");
    assert_eq!((said.lines().count(), code), (1, Some(73)));
}
