//! The first process of an agent container: it prepares the engine's home, opens the way to the egress proxy,
//! starts the engine with this process's own stdio, and ends when the engine ends.
//!
//! ```text
//! environment ─▶ home ─▶ history ─▶ skills ─▶ agent file ─▶ relay ─▶ config ─▶ engine ─▶ its exit code  (kimi-cli)
//! environment ─▶ relay ─▶ skills ─▶ config ─▶ system prompt ─▶ history ─▶ engine ─▶ its exit code       (kimi-code)
//! ```
//!
//! It never touches what the engine says: stdin, stdout and stderr are the engine's, except for one line
//! `agent-runner: …` on stderr if something fails here. `agent-runner [ENGINE [ROOT]]` starts another program
//! than the image's engine, and takes everything else beneath another root, for tests.
//!
//! | exit code | |
//! |---|---|
//! | 70 | the engine could not be waited for |
//! | 71 | the engine could not be started |
//! | 72 | there is no engine program |
//! | 73 | the engine's home could not be written |
//! | 74 | the history could not be read or mended |
//! | 76 | the way to the egress proxy could not be opened |
//! | 78 | the environment or `config.toml` is missing or wrong |
//! | 128 + n | signal n ended the engine |
//! | any other | the engine's own |
//!
//! (75 is left out: the engine itself uses it for "try again".)

mod engine;
mod home;
mod json_lines;
mod kimi_cli;
mod kimi_code;
mod program;
mod prompt;
mod relay;
mod settings;
mod skills;
mod web;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use home::ContainerHome;
use settings::RunnerSettings;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let engine = arguments.next();
    let home =
        arguments.next().map_or_else(ContainerHome::for_container, |root| ContainerHome::under_root(&root));
    match prepare_and_run_engine(&home, engine.as_deref()) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            eprintln!("agent-runner: {fault}");
            ExitCode::from(fault.code as u8)
        }
    }
}

fn prepare_and_run_engine(home: &ContainerHome, engine: Option<&Path>) -> Result<u8, RunnerError> {
    let settings = RunnerSettings::from_environment(|name| std::env::var_os(name))?;
    engine::run_engine(settings.program.prepare_command(home, &settings, engine)?)
}

/// Why the engine did not run.
#[derive(Debug)]
pub struct RunnerError {
    code: RunnerExitCode,
    message: String,
}

/// The exit codes: see the table at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunnerExitCode {
    Wait = 70,
    Start = 71,
    NoEngine = 72,
    Home = 73,
    History = 74,
    Relay = 76,
    Settings = 78,
}

impl RunnerError {
    pub fn new(code: RunnerExitCode, said: impl Into<String>) -> Self {
        Self { code, message: said.into() }
    }
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
