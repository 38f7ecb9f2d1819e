//! What the engine finds in its home: where everything lies, and the files that it needs before it starts.
//!
//! Never opens a login: `credentials/` holds a stand-in that the host has written.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::Table;

use crate::web::{self, SearchServices};
use crate::{RunnerError, RunnerExitCode};

/// The folders and files of one container.
#[derive(Clone, Debug)]
pub struct ContainerHome {
    /// The engine's `HOME`.
    pub user: PathBuf,
    /// What only this start needs, in memory: the agent file and a copy of the configuration.
    pub prepared: PathBuf,
    /// The group's folder, where the engine works.
    pub workspace: PathBuf,
    /// What all groups share.
    pub global: PathBuf,
    /// The host's socket.
    pub egress_socket: PathBuf,
    /// Where the engine finds the way to the door, on 127.0.0.1; 0 is any free one.
    pub port: u16,
}

impl ContainerHome {
    /// The paths as `nanokimi` mounts them.
    pub fn for_container() -> Self {
        Self { port: 8787, ..Self::under_root(Path::new("/")) }
    }

    /// The same beneath another root, where 8787 may be somebody else's.
    pub fn under_root(root: &Path) -> Self {
        Self {
            user: root.join("home/node"),
            prepared: root.join("home/node/.nanokimi"),
            workspace: root.join("workspace/group"),
            global: root.join("workspace/global"),
            egress_socket: root.join("run/nanokimi/door.sock"),
            port: 0,
        }
    }

    /// kimi-cli's own folder.
    pub fn kimi_cli_folder(&self) -> PathBuf {
        self.user.join(".kimi")
    }

    pub fn kimi_cli_sessions(&self) -> PathBuf {
        self.kimi_cli_folder().join("sessions")
    }

    /// kimi-code's own folder.
    pub fn kimi_code_folder(&self) -> PathBuf {
        self.user.join(".kimi-code")
    }
}

/// Which engine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineProgram {
    KimiCli,
    KimiCode,
}

/// What the host tells by environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSettings {
    pub program: EngineProgram,
    /// The engine's session, new or to be resumed: one folder name.
    pub session: String,
    /// The device that the Kimi API sees, the same for all containers of an install.
    pub device_id: String,
    /// What the agent is called in its chat.
    pub assistant: String,
    /// The model's name at the API; none leaves it to `config.toml`.
    pub model: Option<String>,
    /// IANA name.
    pub time_zone: Option<String>,
    pub services: SearchServices,
}

impl RunnerSettings {
    /// # Errors
    /// [`RunnerExitCode::Settings`] where a variable is missing or cannot be what it should be.
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
        let program = match required("NANOKIMI_ENGINE")?.as_str() {
            "kimi-cli" => EngineProgram::KimiCli,
            "kimi-code" => EngineProgram::KimiCode,
            other => {
                return Err(RunnerError::new(
                    RunnerExitCode::Settings,
                    format!("NANOKIMI_ENGINE is unknown: {other:?}"),
                ));
            }
        };
        let session = required("NANOKIMI_SESSION")?;
        // The session's name becomes a folder's name inside the engine, and an argument that must not look like
        // an option.
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

/// Writes what the engine must find before it starts.
///
/// Without `kimi.json` naming the work folder, kimi-cli 1.51 takes `--session` for a new session and **deletes
/// its history** (`cli/__init__.py`, `session.py`).
pub fn write_kimi_cli_files(home: &ContainerHome, settings: &RunnerSettings) -> Result<(), RunnerError> {
    let known = json!({"work_dirs": [{"path": home.workspace, "kaos": "local", "last_session_id": null}]})
        .to_string();
    write_home_file(&home.kimi_cli_folder().join("kimi.json"), known.as_bytes())?;
    write_home_file(&home.kimi_cli_folder().join("device_id"), settings.device_id.as_bytes())
}

/// Copies `config.toml` away from the engine's default place, and says where to: there, kimi-cli asks the API
/// for its models at every start and rewrites the file; given by `--config-file`, it does neither.
pub fn copy_kimi_cli_config(
    home: &ContainerHome,
    port: u16,
    services: SearchServices,
) -> Result<PathBuf, RunnerError> {
    let mut config = read_owner_config(&home.kimi_cli_folder().join("config.toml"))?;
    web::set_search_services(&mut config, port, services);
    let copy = home.prepared.join("config.toml");
    write_home_file(&copy, config.to_string().as_bytes())?;
    Ok(copy)
}

/// The owner's `config.toml`.
pub fn read_owner_config(path: &Path) -> Result<Table, RunnerError> {
    let fault = |why: String| {
        RunnerError::new(RunnerExitCode::Settings, format!("Failed to read {}: {why}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| fault(error.message().to_owned()))
}

/// Writes a file of the home, with its folder.
pub fn write_home_file(path: &Path, content: &[u8]) -> Result<(), RunnerError> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder.and_then(|()| fs::write(path, content)).map_err(|error| write_failure(path, &error))
}

fn write_failure(path: &Path, error: &io::Error) -> RunnerError {
    RunnerError::new(RunnerExitCode::Home, format!("Failed to write {}: {error}", path.display()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A container's folders beneath a temporary one.
    pub fn home_in(root: &Path) -> ContainerHome {
        let home = ContainerHome::under_root(root);
        for folder in [&home.workspace, &home.global, &home.kimi_cli_sessions()] {
            fs::create_dir_all(folder).unwrap();
        }
        home
    }

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

    #[test]
    fn the_engine_finds_its_work_folder_and_device() {
        let root = tempfile::tempdir().unwrap();
        let home = home_in(root.path());
        let settings = RunnerSettings {
            program: EngineProgram::KimiCli,
            session: "s".into(),
            device_id: "d1".into(),
            assistant: "Kai".into(),
            model: None,
            time_zone: None,
            services: SearchServices::None,
        };
        write_kimi_cli_files(&home, &settings).unwrap();
        write_kimi_cli_files(&home, &settings).unwrap();
        let known: serde_json::Value =
            serde_json::from_slice(&fs::read(home.kimi_cli_folder().join("kimi.json")).unwrap()).unwrap();
        assert_eq!(known["work_dirs"][0]["path"], home.workspace.to_str().unwrap());
        assert_eq!(fs::read_to_string(home.kimi_cli_folder().join("device_id")).unwrap(), "d1");
    }

    #[test]
    fn the_configuration_is_copied_and_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let home = home_in(root.path());
        let copied = || copy_kimi_cli_config(&home, 8787, SearchServices::None);
        assert_eq!(copied().unwrap_err().code, RunnerExitCode::Settings);
        fs::write(home.kimi_cli_folder().join("config.toml"), "default_yolo = true\n").unwrap();
        assert_eq!(fs::read_to_string(copied().unwrap()).unwrap(), "default_yolo = true\n");
    }

    #[test]
    fn a_home_that_cannot_be_written_is_told() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let fault = write_home_file(&root.path().join("file/below"), b"x").unwrap_err();
        assert_eq!(fault.code, RunnerExitCode::Home);
    }
}
