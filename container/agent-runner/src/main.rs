//! The first process of an agent container: it prepares the engine's home, opens the way to the door, starts
//! the engine with this process's own stdio, and ends when the engine ends.
//!
//! ```text
//! environment ─▶ home ─▶ history ─▶ agent file ─▶ relay ─▶ config ─▶ engine ─▶ its exit code
//! ```
//!
//! It never touches what the engine says: stdin, stdout and stderr are the engine's, except for one line
//! `agent-runner: …` on stderr where something here fails. `agent-runner [ENGINE [ROOT]]` starts another program
//! than the image's engine, and takes everything else beneath another root, for tests.
//!
//! | exit code | |
//! |---|---|
//! | 70 | the engine could not be waited for |
//! | 71 | the engine could not be started |
//! | 72 | there is no engine program |
//! | 73 | the engine's home could not be written |
//! | 74 | the history could not be read or mended |
//! | 76 | the way to the door could not be opened |
//! | 78 | the environment or `config.toml` is missing or wrong |
//! | 128 + n | signal n ended the engine |
//! | any other | the engine's own |
//!
//! (75 is left out: the engine itself uses it for "try again".)

mod agent_file;
mod engine;
mod history;
mod home;
mod pictures;
mod relay;
mod web;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use home::{Home, Settings};

/// Where the image keeps the engine.
const ENGINE: &str = "/opt/kimi/bin/kimi";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let engine = arguments.next().unwrap_or_else(|| PathBuf::from(ENGINE));
    let home = arguments.next().map_or_else(Home::of_container, |root| Home::beneath(&root));
    match run(&home, &engine) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            eprintln!("agent-runner: {fault}");
            ExitCode::from(fault.code as u8)
        }
    }
}

fn run(home: &Home, engine: &Path) -> Result<u8, Fault> {
    let settings = Settings::read(|name| std::env::var_os(name))?;
    home::seed(home, &settings)?;
    history::mend(&home.sessions(), &settings.session)
        .map_err(|error| Fault::new(Code::History, format!("Failed to mend the history: {error}")))?;
    let agent_file = agent_file::write(home, &settings.assistant)?;
    let port = relay::open(home.port, home.door.clone())?;
    let config = home::copy_config(home, port, settings.services)?;
    engine::run(engine::command(engine, home, &settings, port, &config, &agent_file))
}

/// Why the engine did not run.
#[derive(Debug)]
pub struct Fault {
    code: Code,
    said: String,
}

/// The exit codes: see the table at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Wait = 70,
    Start = 71,
    NoEngine = 72,
    Home = 73,
    History = 74,
    Relay = 76,
    Settings = 78,
}

impl Fault {
    pub fn new(code: Code, said: impl Into<String>) -> Self {
        Self { code, said: said.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}
