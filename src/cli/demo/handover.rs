//! Runs a program of an ordinary account for root, without root's terminal: a program that holds a terminal
//! can type into it (TIOCSTI, ioctl_tty(2)) or read from it later, and root's shell does what is typed there.
//!
//! If a person sits at a terminal, the program gets one of its own from script(1), which carries every byte,
//! the window's size and the exit code. If files and programs are connected instead, a pipe takes the place
//! of each terminal among them. Either way the program is in a session of its own, from which /dev/tty leads
//! nowhere else.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};
use rustix::termios::{QueueSelector, tcflush};

/// Runs a program with its arguments, to its end.
pub fn run_without_root_terminal(
    program: &[OsString],
    environment: Vec<(OsString, OsString)>,
    folder: &Path,
) -> Result<ExitCode> {
    let settle = |mut command: Command| {
        command.env_clear().envs(environment.iter().cloned()).current_dir(folder);
        command
    };
    let status = if io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal() {
        let mut script = settle(Command::new("script"));
        script.args(["--quiet", "--return", "--command"]).arg(join_shell_words(program)).arg("/dev/null");
        let status = script.env("SHELL", "/bin/sh").status().context("Failed to run script")?;
        // A program can make a terminal say something, which would stand there as if root had typed it.
        tcflush(io::stdin(), QueueSelector::IFlush).ok();
        status
    } else {
        let mut setsid = settle(Command::new("setsid"));
        let child = setsid.arg("--wait").args(program).stdin(pipe_if_terminal(io::stdin().is_terminal()));
        let child = child
            .stdout(pipe_if_terminal(io::stdout().is_terminal()))
            .stderr(pipe_if_terminal(io::stderr().is_terminal()));
        copy_streams_until_exit(child.spawn().context("Failed to run setsid")?)
            .context("Failed to wait for it")?
    };
    Ok(exit_code_from_status(status))
}

/// What stands in the place of a terminal, and what else there is.
fn pipe_if_terminal(terminal: bool) -> Stdio {
    if terminal { Stdio::piped() } else { Stdio::inherit() }
}

/// Carries what a program reads and writes by pipes, until it ends.
fn copy_streams_until_exit(mut child: Child) -> io::Result<ExitStatus> {
    if let Some(stdin) = child.stdin.take() {
        // A read from a terminal cannot be broken off: this thread ends with the process.
        thread::spawn(move || copy_and_flush(io::stdin(), stdin));
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|from| copy_and_flush(from, io::stdout())));
        scope.spawn(|| stderr.map(|from| copy_and_flush(from, io::stderr())));
    });
    child.wait()
}

/// As it comes: a line that is being typed has no end yet.
fn copy_and_flush(mut from: impl Read, mut to: impl Write) {
    let mut bytes = [0; 8 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn exit_code_from_status(status: ExitStatus) -> ExitCode {
    let signal = || status.signal().map_or(1, |signal| 128 + signal);
    ExitCode::from(u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(1))
}

/// The words as a shell reads them.
fn join_shell_words(words: &[OsString]) -> OsString {
    words.iter().map(|word| quote_os_str(word)).collect::<Vec<_>>().join(OsStr::new(" "))
}

fn quote_os_str(word: &OsStr) -> OsString {
    let mut quoted = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            _ => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_shell_reads_the_words_that_were_meant(words in prop::collection::vec("[^\0]{0,12}", 1..5)) {
            let meant: Vec<OsString> = words.iter().map(OsString::from).collect();
            let mut line = OsString::from("printf '%s\\0' ");
            line.push(join_shell_words(&meant));
            let said = Command::new("sh").arg("-c").arg(line).output().unwrap();
            let read: Vec<&[u8]> = said.stdout.split(|byte| *byte == 0).collect();
            let (end, read) = read.split_last().unwrap();
            prop_assert!(end.is_empty());
            prop_assert_eq!(read, words.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_program_has_no_terminal_but_its_own_and_its_end_is_told() {
        let run = |script: &str| {
            let program = ["sh", "-c", script].map(OsString::from);
            let environment = vec![("PATH".into(), "/usr/bin:/bin".into())];
            run_without_root_terminal(&program, environment, Path::new("/")).unwrap()
        };
        assert_eq!(run("exit 7"), ExitCode::from(7));
        assert_eq!(run("kill -KILL $$"), ExitCode::from(137));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = own.rsplit(") ").next().unwrap().split(' ').collect();
        let (session, terminal) = (fields[3], fields[4]);
        let other = format!(
            "read pid name state parent group session terminal rest </proc/$$/stat
             [ $session != {session} ] && {{ [ $terminal = 0 ] || [ $terminal != {terminal} ]; }} && exit 5"
        );
        assert_eq!(run(&other), ExitCode::from(5));
    }
}
