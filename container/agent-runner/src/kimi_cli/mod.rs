//! kimi-cli, made ready: its home, its history, its agent file and its configuration, and how it is called.
//!
//! `history` repairs what it has kept, `pictures` makes that lighter, and `agent_file` is its system prompt.

mod agent_file;
mod history;
mod pictures;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::engine::PATH;
use crate::home::{self, ContainerHome};
use crate::settings::RunnerSettings;
use crate::web::{self, SearchServices};
use crate::{RunnerError, RunnerExitCode, relay, skills};

const PROGRAM: &str = "/opt/kimi/bin/kimi";

/// Prepares everything and says how the engine is called; `other` is another program in its place.
pub fn prepare_kimi_cli(
    home: &ContainerHome,
    settings: &RunnerSettings,
    other: Option<&Path>,
) -> Result<Command, RunnerError> {
    write_kimi_cli_files(home, settings)?;
    history::repair_kimi_cli_history(&own_folder(home).join("sessions"), &settings.session).map_err(
        |error| RunnerError::new(RunnerExitCode::History, format!("Failed to mend the history: {error}")),
    )?;
    let skills = skills::offer_skills(home);
    let agent_file = agent_file::write_agent_file(home, &settings.assistant, &skills.left_out)?;
    let port = relay::open_relay(home.port, home.egress_socket.clone())?;
    let config = copy_kimi_cli_config(home, port, settings.services, &skills.folders)?;
    Ok(kimi_cli_command(other.unwrap_or(Path::new(PROGRAM)), home, settings, port, &config, &agent_file))
}

/// kimi-cli's own folder.
fn own_folder(home: &ContainerHome) -> PathBuf {
    home.user.join(".kimi")
}

/// Writes what the engine must find before it starts.
///
/// Without `kimi.json` naming the work folder, kimi-cli 1.51 takes `--session` for a new session and
/// **deletes its history** (`cli/__init__.py`, `session.py`).
fn write_kimi_cli_files(home: &ContainerHome, settings: &RunnerSettings) -> Result<(), RunnerError> {
    let known = json!({"work_dirs": [{"path": home.workspace, "kaos": "local", "last_session_id": null}]})
        .to_string();
    home::write_home_file(&own_folder(home).join("kimi.json"), known.as_bytes())?;
    home::write_home_file(&own_folder(home).join("device_id"), settings.device_id.as_bytes())
}

/// Copies `config.toml` away from the engine's default place, and returns the copy's path. At the default
/// place kimi-cli asks the API for its models at every start and rewrites the file. With `--config-file` it
/// does neither.
fn copy_kimi_cli_config(
    home: &ContainerHome,
    port: u16,
    services: SearchServices,
    skill_folders: &[PathBuf],
) -> Result<PathBuf, RunnerError> {
    let mut config = home::read_owner_config(&own_folder(home).join("config.toml"))?;
    web::set_search_services(&mut config, port, services);
    skills::set_skill_folders(&mut config, skill_folders);
    let copy = home.prepared.join("config.toml");
    home::write_home_file(&copy, config.to_string().as_bytes())?;
    Ok(copy)
}

/// How kimi-cli is called. It gets no variable but these: `KIMI_API_KEY`, say, would be sent in place of the
/// stand-in key, and `KIMI_MODEL_CAPABILITIES` would replace what `config.toml` says.
fn kimi_cli_command(
    engine: &Path,
    home: &ContainerHome,
    settings: &RunnerSettings,
    port: u16,
    config: &Path,
    agent_file: &Path,
) -> Command {
    let egress = format!("http://127.0.0.1:{port}");
    let api = format!("{egress}/coding/v1");
    let mut command = Command::new(engine);
    command
        .args(["--wire", "--session", &settings.session, "-w"])
        .arg(&home.workspace)
        .arg("--config-file")
        .arg(config)
        .arg("--agent-file")
        .arg(agent_file)
        .current_dir(&home.workspace)
        .env_clear()
        .env("HOME", &home.user)
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("KIMI_BASE_URL", &api)
        .env("KIMI_CODE_BASE_URL", &api)
        .env("KIMI_CODE_OAUTH_HOST", &egress)
        .env("KIMI_DISABLE_TELEMETRY", "1")
        .envs(web::proxy_variables(port));
    if let Some(model) = &settings.model {
        command.env("KIMI_MODEL_NAME", model);
    }
    if let Some(time_zone) = &settings.time_zone {
        command.env("TZ", time_zone);
    }
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::home::tests::home_in;
    use crate::settings::EngineProgram;

    fn kimi_cli_home(root: &Path) -> ContainerHome {
        let home = home_in(root);
        fs::create_dir_all(own_folder(&home)).unwrap();
        home
    }

    #[test]
    fn the_engine_finds_its_work_folder_and_device() {
        let root = tempfile::tempdir().unwrap();
        let home = kimi_cli_home(root.path());
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
            serde_json::from_slice(&fs::read(own_folder(&home).join("kimi.json")).unwrap()).unwrap();
        assert_eq!(known["work_dirs"][0]["path"], home.workspace.to_str().unwrap());
        assert_eq!(fs::read_to_string(own_folder(&home).join("device_id")).unwrap(), "d1");
    }

    #[test]
    fn the_configuration_is_copied_and_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let home = kimi_cli_home(root.path());
        let copied = || copy_kimi_cli_config(&home, 8787, SearchServices::None, &[]);
        assert_eq!(copied().unwrap_err().code, RunnerExitCode::Settings);
        fs::write(own_folder(&home).join("config.toml"), "default_yolo = true\n").unwrap();
        assert_eq!(fs::read_to_string(copied().unwrap()).unwrap(), "default_yolo = true\n");
    }

    #[test]
    fn the_engine_is_called_with_what_it_needs_and_nothing_else() {
        let home = ContainerHome::for_container();
        let mut settings = RunnerSettings {
            program: EngineProgram::KimiCli,
            session: "main".into(),
            device_id: "d".into(),
            assistant: "Kai".into(),
            model: Some("kimi-for-coding".into()),
            time_zone: Some("Europe/Madrid".into()),
            services: web::SearchServices::Kimi,
        };
        let called = |settings: &RunnerSettings| {
            let command = kimi_cli_command(
                Path::new("/k"),
                &home,
                settings,
                home.port,
                Path::new("/c.toml"),
                Path::new("/a.yaml"),
            );
            let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
            let env: Vec<_> = command
                .get_envs()
                .map(|(name, value)| format!("{}={}", name.display(), value.unwrap().display()))
                .collect();
            (args.join(" "), env.join("\n"))
        };
        let (args, env) = called(&settings);
        assert_eq!(
            args,
            "--wire --session main -w /workspace/group --config-file /c.toml --agent-file /a.yaml"
        );
        assert_eq!(
            env,
            "HOME=/home/node\n\
             HTTPS_PROXY=http://127.0.0.1:8787\n\
             HTTP_PROXY=http://127.0.0.1:8787\n\
             KIMI_BASE_URL=http://127.0.0.1:8787/coding/v1\n\
             KIMI_CODE_BASE_URL=http://127.0.0.1:8787/coding/v1\n\
             KIMI_CODE_OAUTH_HOST=http://127.0.0.1:8787\n\
             KIMI_DISABLE_TELEMETRY=1\n\
             KIMI_MODEL_NAME=kimi-for-coding\n\
             LANG=C.UTF-8\n\
             NODE_USE_ENV_PROXY=1\n\
             NO_PROXY=127.0.0.1,localhost\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             TZ=Europe/Madrid\n\
             http_proxy=http://127.0.0.1:8787\n\
             https_proxy=http://127.0.0.1:8787\n\
             no_proxy=127.0.0.1,localhost"
        );
        (settings.model, settings.time_zone) = (None, None);
        let (_, env) = called(&settings);
        assert!(!env.contains("KIMI_MODEL_NAME") && !env.contains("TZ="), "{env}");
    }
}
