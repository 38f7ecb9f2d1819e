//! The engines that there are, and what others must know of each: as values, so that they need no name.

use anyhow::{Result, bail};

use crate::paths;
use crate::types::EngineName;

/// Where every engine works, in its container.
pub const WORK_FOLDER: &str = paths::GROUP_IN_CONTAINER;

/// The engines that there are. Their names are those of `ENGINE` in `.env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    KimiCode,
    KimiCli,
}

impl Engine {
    pub const ALL: [Self; 2] = [Self::KimiCode, Self::KimiCli];

    pub fn name(self) -> EngineName {
        EngineName::new(match self {
            Self::KimiCli => "kimi-cli",
            Self::KimiCode => "kimi-code",
        })
    }

    /// The engine that has taken the place of this one, which has ended: nobody mends it, and Kimi will let it in only for a
    /// while.
    pub fn successor(self) -> Option<Self> {
        match self {
            Self::KimiCli => Some(Self::KimiCode),
            Self::KimiCode => None,
        }
    }

    /// # Errors
    /// A name that no engine has; says which there are.
    pub fn parse(name: &str) -> Result<Self> {
        let known = Self::ALL.map(|engine| engine.name().to_string());
        match Self::ALL.into_iter().find(|engine| engine.name().as_str() == name) {
            Some(engine) => Ok(engine),
            None => bail!("{name:?} is not an engine; there is {}", known.join(" and ")),
        }
    }

    /// The folder in the container that the engine calls its own.
    pub fn home_in_container(self) -> &'static str {
        match self {
            Self::KimiCli => "/home/node/.kimi",
            Self::KimiCode => "/home/node/.kimi-code",
        }
    }

    /// Where the agent-runner finds the owner's `config.toml`. kimi-code looks for its own in its home and nowhere
    /// else, so there the owner's lies beside it.
    pub fn config_path_in_container(self) -> &'static str {
        match self {
            Self::KimiCli => "/home/node/.kimi/config.toml",
            Self::KimiCode => "/home/node/.kimi-code/owner.toml",
        }
    }

    /// The folder of the engine's histories on the host, where it keeps them apart from those that were first.
    pub fn sessions_apart(self) -> Option<&'static str> {
        match self {
            Self::KimiCli => None,
            Self::KimiCode => Some("kimi-code"),
        }
    }
}
