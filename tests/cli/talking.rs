//! `run` and `chat` with a Docker that cannot create containers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use support::fake_docker::{self, Image};

use crate::world::{Home, Said};

fn home_with_docker() -> Home {
    let home = Home::new();
    home.write("nanokimi/.env", "MOONSHOT_API_KEY=sk-none");
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    home
}

#[test]
fn without_a_login_what_is_said_is_kept() {
    let home = Home::new();
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    let said = home.run(&["chat", "--say", "hello"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_snapshot!(said.stdout, @"Kai: I cannot answer in any chat now. I am not logged in to Kimi, or the login has expired. Please run `nanokimi doctor` on the server; mostly `nanokimi login` is all it takes. What is asked meanwhile is kept and answered then.");
    // What is told of the answer may come before or after what is told at the end.
    let told_first = told(&said);
    let mut stages: Vec<&str> = told_first.lines().collect();
    stages.sort_unstable();
    assert_snapshot!(stages.join("\n"), @"
    What was said is kept; the next `nanokimi chat` goes on with it.
    answered
    stored
    ");
    let again = home.run(&["chat", "--say", "hello?"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""), "told once");
    assert_snapshot!(told(&again), @"
    stored
    What was said is kept; the next `nanokimi chat` goes on with it.
    No answer came.
    ");
    assert!(home.run(&["status"]).done().stdout.contains("messages waiting     2\n"));
}

/// What was reported meanwhile, without times and without the log.
fn told(said: &Said) -> String {
    let lines = said.stderr.lines().filter(|line| !line.contains(" WARN "));
    lines.map(|line| line.split_once(" s] ").map_or(line, |(_, stage)| stage)).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_piped_into_chat_is_answered_before_it_ends() {
    let home = home_with_docker();
    let said = home.run_with_input(&["chat", "--group", "family"], "we need milk\n@Kai what do we need?\n");
    assert_eq!(said.code, Some(1), "a notice is no answer: {said:?}");
    assert_snapshot!(said.stdout, @"Kai: I could not answer. I am not completely installed on the server. Please ask the owner to run `nanokimi build`. Your message is kept; to try again, send it again.");
    assert_snapshot!(told(&said), @r#"
    This is family. "@Kai …" is answered, the rest is context.
    stored
    stored
    answered
    "#);
    let status = home.run(&["status"]).done().stdout;
    assert!(
        status.contains("messages waiting     0\n") && status.contains("replies to send      0\n"),
        "{status}"
    );
}

#[test]
fn what_is_piped_without_a_last_line_end_or_in_another_script_is_still_said() {
    let home = home_with_docker();
    let said = home.run_with_input(&["chat"], "¿qué?\n\n   \nhello");
    assert_eq!(told(&said).matches("stored").count(), 2, "{said:?}");
    assert!(said.stdout.starts_with("Kai: "), "{said:?}");
}

#[test]
fn chat_ends_with_its_input_where_nobody_is_called() {
    let home = home_with_docker();
    let silent = home.run_with_input(&["chat", "--group", "family"], "").done();
    assert_snapshot!(told(&silent), @r#"This is family. "@Kai …" is answered, the rest is context."#);
    let context = home.run_with_input(&["chat", "--group", "family"], "we need milk\n");
    assert_eq!(context.code, Some(1), "{context:?}");
    assert_snapshot!(told(&context), @r#"
    This is family. "@Kai …" is answered, the rest is context.
    stored
    No answer came.
    "#);
}

#[test]
fn one_exchange_that_fails_is_no_success() {
    let said = home_with_docker().run(&["chat", "--say", "hello"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.starts_with("Kai: "), "{said:?}");
}

#[test]
fn run_without_whatsapp_serves_the_terminal_says_so_and_ends_when_asked() {
    let home = Home::empty();
    home.run(&["groups", "add", "family"]).done();
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    let mut run = home.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(run.stderr.take().unwrap()).lines();
    let mut warnings = Vec::new();
    loop {
        let line = log.next().expect("it gets ready").unwrap();
        if line.ends_with("Ready") {
            break;
        }
        warnings.extend(line.split_once("WARN ").map(|(_, warning)| warning.to_owned()));
    }
    assert_snapshot!(warnings.join("\n"), @"
    There is no main channel; `nanokimi setup` makes it
    WhatsApp is not linked: messages come only from `nanokimi chat`, which needs this service stopped. `nanokimi auth` links it
    Nobody can be answered: Nobody is logged in to Kimi; run `nanokimi login`
    ");
    let holder = std::fs::read_to_string(home.path("nanokimi/store/nanokimi.lock")).unwrap();
    let process = holder.rsplit(' ').next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(process).unwrap(), Signal::TERM).unwrap();
    assert!(run.wait().unwrap().success());
}
