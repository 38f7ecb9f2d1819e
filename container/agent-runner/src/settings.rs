//! What the host says about this start, by environment variables.

use std::ffi::OsString;

use crate::web::SearchServices;
use crate::{RunnerError, RunnerExitCode};

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
}

/// What the host says about this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSettings {
    pub program: EngineProgram,
    /// The engine's session, new or to be resumed: one folder name.
    pub session: String,
    /// The device that the Kimi API sees, the same for all containers of an install.
    pub device_id: String,
    /// What the agent is called in its chat.
    pub assistant: String,
    /// The model's name at the API. Without one, `config.toml` says it.
    pub model: Option<String>,
    /// IANA name.
    pub time_zone: Option<String>,
    pub services: SearchServices,
}

impl RunnerSettings {
    /// # Errors
    /// [`RunnerExitCode::Settings`]: a variable is missing, or is not what it should be.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, RunnerError> {
        let optional = |name: &str| match variable(name) {
            None => Ok(None),
            Some(value) => match value.into_string() {
                Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
                Err(_) => Err(RunnerError::new(RunnerExitCode::Settings, format!("{name} is not text"))),
            },
        };
        let required = |name: &str| {
            optional(name)?
                .ok_or_else(|| RunnerError::new(RunnerExitCode::Settings, format!("{name} is not set")))
        };
        let program = EngineProgram::parse(&required("NANOKIMI_ENGINE")?)?;
        let session = required("NANOKIMI_SESSION")?;
        // The session's name becomes a folder's name inside the engine, and an argument that must not look
        // like an option.
        let plain = session.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
        if !plain || session.starts_with(['.', '-']) {
            return Err(RunnerError::new(
                RunnerExitCode::Settings,
                format!("NANOKIMI_SESSION is not a plain name: {session:?}"),
            ));
        }
        Ok(Self {
            program,
            session,
            device_id: required("NANOKIMI_DEVICE_ID")?,
            assistant: required("NANOKIMI_ASSISTANT")?,
            model: optional("NANOKIMI_MODEL")?,
            time_zone: optional("TZ")?,
            services: match optional("NANOKIMI_SERVICES")?.as_deref() {
                Some("kimi") => SearchServices::Kimi,
                Some(_) | None => SearchServices::None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<RunnerSettings, RunnerError> {
        RunnerSettings::from_environment(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_host_names_the_session_the_device_the_agent_and_perhaps_a_model() {
        let least = read(&[
            ("NANOKIMI_ENGINE", "kimi-cli"),
            ("NANOKIMI_SESSION", "main-2"),
            ("NANOKIMI_DEVICE_ID", "abc"),
            ("NANOKIMI_ASSISTANT", "Kai"),
            ("NANOKIMI_MODEL", ""),
        ]);
        assert_eq!(
            least.unwrap(),
            RunnerSettings {
                program: EngineProgram::KimiCli,
                session: "main-2".into(),
                device_id: "abc".into(),
                assistant: "Kai".into(),
                model: None,
                time_zone: None,
                services: SearchServices::None,
            }
        );
        let all = [
            ("NANOKIMI_ENGINE", "kimi-code"),
            ("NANOKIMI_SESSION", "s"),
            ("NANOKIMI_DEVICE_ID", "d"),
            ("NANOKIMI_ASSISTANT", "Kai"),
            ("NANOKIMI_MODEL", "kimi-for-coding"),
            ("TZ", "Europe/Madrid"),
            ("NANOKIMI_SERVICES", "kimi"),
        ];
        let all = read(&all).unwrap();
        assert_eq!((all.model.as_deref(), all.services), (Some("kimi-for-coding"), SearchServices::Kimi));
    }

    #[test]
    fn a_session_that_is_no_plain_name_is_refused() {
        for session in ["", "..", ".", "../other", "a/b", "-c", "a b", "ä"] {
            let given =
                [("NANOKIMI_ENGINE", "kimi-cli"), ("NANOKIMI_SESSION", session), ("NANOKIMI_DEVICE_ID", "d")];
            let fault = read(&given).unwrap_err();
            assert_eq!(fault.code, RunnerExitCode::Settings, "{session:?}");
        }
        assert_eq!(
            read(&[("NANOKIMI_ENGINE", "kimi-cli"), ("NANOKIMI_SESSION", "s")]).unwrap_err().to_string(),
            "NANOKIMI_DEVICE_ID is not set"
        );
        assert_eq!(
            read(&[("NANOKIMI_ENGINE", "gpt")]).unwrap_err().to_string(),
            "NANOKIMI_ENGINE is unknown: \"gpt\""
        );
    }
}
