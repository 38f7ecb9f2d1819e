//! How each engine is made ready. What is an engine's own lies in a folder of its name beside this file.

use std::path::Path;
use std::process::Command;

use crate::home::ContainerHome;
use crate::settings::{EngineProgram, RunnerSettings};
use crate::{RunnerError, kimi_cli, kimi_code};

impl EngineProgram {
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
