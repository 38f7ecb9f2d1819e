//! The engines that there are: a name from the host, and how each is made ready. What is an engine's own lies
//! in a folder of its name beside this file.

use std::path::Path;
use std::process::Command;

use crate::home::ContainerHome;
use crate::settings::RunnerSettings;
use crate::{RunnerError, RunnerExitCode, kimi_cli, kimi_code};

/// Which engine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineProgram {
    KimiCli,
    KimiCode,
}

impl EngineProgram {
    /// # Errors
    /// [`RunnerExitCode::Settings`]: no engine has this name.
    pub fn parse(name: &str) -> Result<Self, RunnerError> {
        match name {
            "kimi-cli" => Ok(Self::KimiCli),
            "kimi-code" => Ok(Self::KimiCode),
            other => Err(RunnerError::new(
                RunnerExitCode::Settings,
                format!("NANOKIMI_ENGINE is unknown: {other:?}"),
            )),
        }
    }

    /// Prepares everything for this engine and says how it is called. `other` is another program in its
    /// place.
    pub fn prepare_command(
        self,
        home: &ContainerHome,
        settings: &RunnerSettings,
        other: Option<&Path>,
    ) -> Result<Command, RunnerError> {
        match self {
            Self::KimiCli => kimi_cli::prepare_kimi_cli(home, settings, other),
            Self::KimiCode => kimi_code::prepare_kimi_code(home, settings, other),
        }
    }
}
