//! The first process of an agent container: it prepares the engine's home, opens the way to the door, starts
//! the engine with this process's own stdio, and ends when the engine ends.
//!
//! ```text
//! environment ─▶ home ─▶ history ─▶ agent file ─▶ relay ─▶ config ─▶ engine ─▶ its exit code        (kimi-cli)
//! environment ─▶ relay ─▶ config ─▶ system prompt ─▶ history ─▶ engine ─▶ its exit code             (kimi-code)
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
mod kimi_code;
mod pictures;
mod prompt;
mod records;
mod relay;
mod web;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use home::{Home, Program, Settings};

/// Where an image keeps its engine.
const KIMI_CLI: &str = "/opt/kimi/bin/kimi";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let engine = arguments.next();
    let home = arguments.next().map_or_else(Home::of_container, |root| Home::beneath(&root));
    match run(&home, engine.as_deref()) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            eprintln!("agent-runner: {fault}");
            ExitCode::from(fault.code as u8)
        }
    }
}

fn run(home: &Home, engine: Option<&Path>) -> Result<u8, Fault> {
    let settings = Settings::read(|name| std::env::var_os(name))?;
    engine::run(match settings.program {
        Program::KimiCli => kimi_cli(home, &settings, engine.unwrap_or(Path::new(KIMI_CLI)))?,
        Program::KimiCode => kimi_code::prepare(home, &settings, engine)?,
    })
}

fn kimi_cli(home: &Home, settings: &Settings, engine: &Path) -> Result<Command, Fault> {
    home::seed(home, settings)?;
    history::mend(&home.sessions(), &settings.session)
        .map_err(|error| Fault::new(Code::History, format!("Failed to mend the history: {error}")))?;
    let agent_file = agent_file::write(home, &settings.assistant)?;
    let port = relay::open(home.port, home.door.clone())?;
    let config = home::copy_config(home, port, settings.services)?;
    Ok(engine::command(engine, home, settings, port, &config, &agent_file))
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
