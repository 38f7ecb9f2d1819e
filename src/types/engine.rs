//! The engines that exist: the programs in the containers that talk to the model.
//!
//! A name is parsed once, at the place it comes in: from `ENGINE` in `.env`, from the command line, or from a
//! group's row.

use std::fmt;

use anyhow::{Result, bail};

/// An engine. `agent` knows its protocol, and `container` knows how its image is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    KimiCode,
    KimiCli,
}

impl Engine {
    pub const ALL: [Self; 2] = [Self::KimiCode, Self::KimiCli];

    /// The engine of an install if its owner has chosen nothing.
    pub const DEFAULT: Self = Self::KimiCode;

    /// Its name as people write it, and as the database and the containers store it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KimiCode => "kimi-code",
            Self::KimiCli => "kimi-cli",
        }
    }

    /// # Errors
    /// No engine has this name. The error lists the names that exist.
    pub fn parse(name: &str) -> Result<Self> {
        match Self::find_by_name(name) {
            Some(engine) => Ok(engine),
            None => bail!("{name:?} is not an engine; there is {}", Self::ALL.map(Self::name).join(" and ")),
        }
    }

    fn find_by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The engine that replaces this one, if this one has ended: it is no longer maintained, and Kimi will
    /// serve it only for a while.
    pub fn successor(self) -> Option<Self> {
        match self {
            Self::KimiCode => None,
            Self::KimiCli => Some(Self::KimiCode),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The models that an install offers, by the names that Kimi knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfferedModels {
    /// The model of groups that have chosen none, if it is known.
    pub usual: Option<String>,
    /// All of them, each once.
    pub names: Vec<String>,
}

/// The engine that a group has chosen, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    Known(Engine),
    /// Another version of nanokimi wrote it. Here it counts as no choice, and it is kept for that version.
    Unknown(String),
}

impl EngineChoice {
    /// Reads the name in a row.
    pub fn from_stored_name(name: String) -> Self {
        match Engine::find_by_name(&name) {
            Some(engine) => Self::Known(engine),
            None => Self::Unknown(name),
        }
    }

    /// The name for the row.
    pub fn name(&self) -> &str {
        match self {
            Self::Known(engine) => engine.name(),
            Self::Unknown(name) => name,
        }
    }

    /// The engine, if this nanokimi has it.
    pub fn engine(&self) -> Option<Engine> {
        match self {
            Self::Known(engine) => Some(*engine),
            Self::Unknown(_) => None,
        }
    }
}

impl From<Engine> for EngineChoice {
    fn from(engine: Engine) -> Self {
        Self::Known(engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_is_found_by_its_name() {
        for engine in Engine::ALL {
            assert_eq!(Engine::parse(engine.name()).unwrap(), engine);
            assert_eq!(EngineChoice::from_stored_name(engine.name().to_owned()), engine.into());
        }
        assert_eq!(
            Engine::parse("gpt").unwrap_err().to_string(),
            "\"gpt\" is not an engine; there is kimi-code and kimi-cli"
        );
    }

    #[test]
    fn a_choice_of_another_version_is_kept_as_it_was_written() {
        let choice = EngineChoice::from_stored_name("kimi-next".to_owned());
        assert_eq!((choice.name(), choice.engine()), ("kimi-next", None));
    }
}
