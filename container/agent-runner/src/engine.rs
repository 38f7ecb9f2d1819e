//! The engine as this process's child: started, waited for, and followed to the end. Also the duties of a
//! container's first process: to reap whatever is left to it, and to hear SIGTERM.

use std::io;
use std::process::{Command, ExitStatus};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{RunnerError, RunnerExitCode};

/// Programs of the image.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the engine and answers with its exit code, once it has ended.
///
/// # Errors
/// It cannot be started ([`RunnerExitCode::NoEngine`], [`RunnerExitCode::Start`]) or waited for
/// ([`RunnerExitCode::Wait`]).
pub fn run_engine(mut command: Command) -> Result<u8, RunnerError> {
    let cannot_start = |error: io::Error| {
        let code = if error.kind() == io::ErrorKind::NotFound {
            RunnerExitCode::NoEngine
        } else {
            RunnerExitCode::Start
        };
        RunnerError::new(code, format!("Failed to start the engine: {error}"))
    };
    // Before the engine is there, so that no signal is missed.
    let signals = Signals::new([SIGTERM, SIGINT]).map_err(cannot_start)?;
    let engine = command.spawn().map_err(|error| {
        let fault = cannot_start(error);
        RunnerError { message: format!("{} ({})", fault.message, command.get_program().display()), ..fault }
    })?;
    let engine = Pid::from_child(&engine);
    detach_stdio().map_err(cannot_start)?;
    thread::spawn(move || forward_signals(signals, engine));
    wait_for_engine(engine).map_err(|error| {
        RunnerError::new(RunnerExitCode::Wait, format!("Failed to wait for the engine: {error}"))
    })
}

/// stdin and stdout are the engine's alone: when it closes stdout, the host must see the end, and likewise
/// with stdin.
fn detach_stdio() -> io::Result<()> {
    let nowhere = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nowhere)?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    Ok(())
}

/// The kernel gives a container's first process no default actions: without a handler, SIGTERM would be lost.
fn forward_signals(mut signals: Signals, engine: Pid) {
    for _ in signals.forever() {
        // An engine that has ended already is being reaped.
        rustix::process::kill_process(engine, Signal::TERM).ok();
    }
}

/// Reaps every child, our own and the orphans that were left to us, until the engine is among them. Processes
/// that still live then end with the container.
fn wait_for_engine(engine: Pid) -> io::Result<u8> {
    use std::os::unix::process::ExitStatusExt;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == engine => {
                return Ok(exit_code_of_status(ExitStatus::from_raw(status.as_raw())));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code_of_status(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_exit_code_is_the_engines() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(exit_code_of_status(ExitStatus::from_raw(raw)), code);
        }
    }

    #[test]
    fn a_missing_engine_is_told_apart_from_one_that_cannot_run() {
        let fault = run_engine(Command::new("/nowhere/kimi")).unwrap_err();
        assert_eq!(fault.code, RunnerExitCode::NoEngine);
        assert!(fault.message.contains("/nowhere/kimi"), "{fault}");
        assert_eq!(run_engine(Command::new("/")).unwrap_err().code, RunnerExitCode::Start);
    }
}
