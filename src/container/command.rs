//! A command in a running container, beside its engine.
//!
//! Docker starts it with the container's own user, rights, system calls and limits. It is ended from within,
//! as Docker cannot end it; and if that fails it goes with its container.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::stream::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use super::spec::{COMMAND_ENVIRONMENT, GROUP};
use super::{COMMAND_OUTPUT_MAX_BYTES, CommandResult, ShellCommand};
use crate::rules::tasks::CommandEnd;

/// Runs `$2` for at most `$1` seconds. The first line is what the kernel goes by when memory runs out: as for
/// the container's first process (`OOM_SCORE_ADJ`).
const WRAPPER: &str = "echo 800 >/proc/self/oom_score_adj; exec timeout -k 2 \"$1\" /bin/sh -c \"$2\"";
/// What `timeout` says of a command that it has ended, and of one that it had to kill.
const TIMED_OUT: [i64; 2] = [124, 137];
/// How much longer Docker may take to tell of the end.
const GRACE: Duration = Duration::from_secs(10);
/// How much a command may print. Beyond that nobody reads, and it is killed when its time is over.
const READ_MAX_BYTES: usize = 1024 * 1024;
/// How often Docker is asked for the end of a command that has closed its output before.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs a command in a running container, and waits for its end.
pub(super) async fn run_in_container(
    client: &bollard::Docker,
    container: &str,
    command: &ShellCommand,
) -> Result<CommandResult> {
    let explain = || format!("Failed to run a command in {container}");
    let seconds = command.limit.as_secs().to_string();
    let exec = CreateExecOptions {
        attach_stdout: Some(true),
        env: Some(COMMAND_ENVIRONMENT.to_vec()),
        cmd: Some(vec!["/bin/sh", "-c", WRAPPER, "sh", &seconds, &command.line]),
        working_dir: Some(GROUP),
        ..CreateExecOptions::default()
    };
    let exec = client.create_exec(container, exec).await.with_context(explain)?.id;
    let began = Instant::now();
    let ends_by = began + command.limit + GRACE;
    let started = client.start_exec(&exec, Some(StartExecOptions::default())).await.with_context(explain)?;
    let mut printed = CommandOutput::default();
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Ok(Some(piece)) = timeout_at(ends_by, output.next()).await {
            match piece.with_context(explain)? {
                LogOutput::StdOut { message } | LogOutput::Console { message } => printed.add(&message),
                LogOutput::StdErr { .. } | LogOutput::StdIn { .. } => {}
            }
            ensure!(
                printed.read_bytes <= READ_MAX_BYTES,
                "A command prints more than {READ_MAX_BYTES} bytes"
            );
        }
    }
    let end = loop {
        let state = client.inspect_exec(&exec).await.with_context(explain)?;
        let is_over_time = began.elapsed() >= command.limit;
        match state.exit_code {
            Some(code) if is_over_time && TIMED_OUT.contains(&code) => break CommandEnd::TooLong,
            Some(code) if state.running != Some(true) => break CommandEnd::Exit(code),
            Some(_) | None if Instant::now() >= ends_by => break CommandEnd::TooLong,
            Some(_) | None => sleep(LOOK_EVERY).await,
        }
    };
    Ok(CommandResult { end, output: printed.into_text() })
}

/// What a command has printed, as far as it is kept.
#[derive(Debug, Default)]
struct CommandOutput {
    kept: Vec<u8>,
    read_bytes: usize,
}

impl CommandOutput {
    fn add(&mut self, piece: &[u8]) {
        self.read_bytes = self.read_bytes.saturating_add(piece.len());
        let room = COMMAND_OUTPUT_MAX_BYTES - self.kept.len();
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// As text: what is no UTF-8 is replaced, and a character that was cut in two is left out.
    fn into_text(self) -> String {
        let was_cut = self.read_bytes > self.kept.len();
        let whole = match std::str::from_utf8(&self.kept) {
            Err(error) if was_cut && error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.kept.len(),
        };
        String::from_utf8_lossy(&self.kept[..whole]).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pieces: &[&[u8]]) -> String {
        let mut output = CommandOutput::default();
        pieces.iter().for_each(|piece| output.add(piece));
        output.into_text()
    }

    #[test]
    fn the_beginning_of_what_is_printed_is_kept_as_text() {
        assert_eq!(kept(&[]), "");
        assert_eq!(kept(&[b"3 new\n", "m\u{e1}s\n\n".as_bytes()]), "3 new\nm\u{e1}s");
        assert_eq!(kept(&[b"a\xffb"]), "a\u{fffd}b");
        let long = "\u{e1}".repeat(COMMAND_OUTPUT_MAX_BYTES);
        let cut = kept(&[b"x", long.as_bytes(), b"more"]);
        assert_eq!(cut.len(), COMMAND_OUTPUT_MAX_BYTES - 1, "no half of a character");
        assert!(cut.ends_with('\u{e1}'));
    }
}
