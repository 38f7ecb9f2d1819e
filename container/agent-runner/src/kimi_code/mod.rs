//! kimi-code, made ready: its configuration from the owner's, its system prompt, its history, and how it is
//! called.
//!
//! It reads its settings in its home and nowhere else. So the owner's file lies beside them, and they are
//! written anew at every start. All its requests go to the egress proxy, with the stand-in as an API key: a
//! login file would have to be named after the API's address, and a key needs no file. Measured with 2.1.0.

mod history;
mod system_prompt;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::engine::PATH;
use crate::home::{self, ContainerHome};
use crate::settings::RunnerSettings;
use crate::{RunnerError, RunnerExitCode, relay, skills, web};
use system_prompt::{host_prompt_part, render_system_prompt};

const NODE: &str = "/usr/local/bin/node";
const PROGRAM: &str = "/opt/kimi-code/node_modules/@moonshot-ai/kimi-code/dist/main.mjs";
/// The cache of compiled code, made for the same options when the image was built.
const COMPILED: &str = "/opt/kimi-code/compiled";
/// Node knows no certificates but its own.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// With less it gives up at the thirtieth picture of 1 MB. A small young generation keeps an idle engine
/// small.
const OPTIONS: [&str; 2] = ["--max-old-space-size=256", "--max-semi-space-size=2"];
/// The heap gives memory back to the system once so many bytes at its end are free: 8 MB when idle, 145 MB
/// after pictures.
const TRIM_FROM_BYTES: &str = "131072";

const VERSION: &str = "2.1.0";
/// How often a request to the model is tried, whatever the owner's file says. A second try after an answer
/// that broke off would say its first part once more, and nothing shows that it is a second try. The egress
/// proxy and the host try again instead.
const ATTEMPTS: i64 = 1;
/// Nobody answers questions in a chat, and nobody approves plans.
const FOR_A_PERSON_THERE: [&str; 4] = ["AskUserQuestion", "EnterPlanMode", "ExitPlanMode", "NotifyUser"];
/// Tools that go on after the turn: nobody hears what comes of them. Without the three for tasks, a command
/// that takes too long is ended and the model learns of it. With them it would go on in the background.
const AFTER_THE_TURN: [&str; 14] = [
    "TaskList",
    "TaskOutput",
    "TaskStop",
    "WaitFor",
    "CronCreate",
    "CronList",
    "CronDelete",
    "CreateGoal",
    "GetGoal",
    "SetGoalBudget",
    "UpdateGoal",
    "TowerInit",
    "TowerStatus",
    "TowerTeardown",
];

/// Prepares everything and says how the engine is called; `other` is another program in its place.
pub fn prepare_kimi_code(
    home: &ContainerHome,
    settings: &RunnerSettings,
    other: Option<&Path>,
) -> Result<Command, RunnerError> {
    let port = relay::open_relay(home.port, home.egress_socket.clone())?;
    let folder = own_folder(home);
    let owners = home::read_owner_config(&folder.join("owner.toml"))?;
    let skills = skills::offer_skills(home);
    let mut config = build_kimi_code_config(owners, port, &read_stand_in_key(&folder)?, settings);
    skills::set_skill_folders(&mut config, &skills.folders);
    home::write_home_file(&folder.join("config.toml"), config.to_string().as_bytes())?;
    home::write_home_file(&folder.join("device_id"), settings.device_id.as_bytes())?;
    let prompt = render_system_prompt(home, &settings.assistant, &skills.left_out);
    home::write_home_file(&folder.join("SYSTEM.md"), prompt.as_bytes())?;
    history::repair_kimi_code_history(&folder.join("sessions"), host_prompt_part(&prompt)).map_err(
        |error| RunnerError::new(RunnerExitCode::History, format!("Failed to mend the history: {error}")),
    )?;
    Ok(kimi_code_command(home, settings, port, other))
}

/// kimi-code's own folder.
fn own_folder(home: &ContainerHome) -> PathBuf {
    home.user.join(".kimi-code")
}

/// The key that the host has written for this container. It means nothing outside.
fn read_stand_in_key(folder: &Path) -> Result<String, RunnerError> {
    let path = folder.join("credentials/kimi-code.json");
    let login = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok());
    match login.as_ref().and_then(|login| login["access_token"].as_str()) {
        Some(key) => Ok(key.to_owned()),
        None => Err(RunnerError::new(RunnerExitCode::Settings, format!("Failed to read {}", path.display()))),
    }
}

/// kimi-code's settings: the owner's, with every way out leading to the egress proxy, and no questions to
/// anybody.
fn build_kimi_code_config(mut config: Table, port: u16, key: &str, settings: &RunnerSettings) -> Table {
    let api = format!("http://127.0.0.1:{port}/coding/v1");
    for provider in subtables_mut(&mut config, "providers") {
        provider.insert("base_url".to_owned(), api.clone().into());
        route_to_egress(provider, key, settings);
    }
    web::set_search_services(&mut config, port, settings.services);
    for service in subtables_mut(&mut config, "services") {
        let leads_to_egress =
            service.get("base_url").and_then(Value::as_str).is_some_and(|url| url.starts_with(&api));
        if leads_to_egress {
            route_to_egress(service, key, settings);
        }
    }
    let default = config.get("default_model").and_then(Value::as_str).map(str::to_owned);
    if let (Some(model), Some(default)) = (&settings.model, default) {
        let models = config.get_mut("models").and_then(Value::as_table_mut);
        if let Some(chosen) = models.and_then(|models| models.get_mut(&default)).and_then(Value::as_table_mut)
        {
            chosen.insert("model".to_owned(), model.clone().into());
        }
    }
    // kimi-cli's names for the same.
    if let Some(thinking) = config.remove("default_thinking") {
        ensure_subtable(&mut config, "thinking").entry("enabled").or_insert(thinking);
    }
    config.remove("default_yolo");
    let control = ensure_subtable(&mut config, "loop_control");
    control.remove("max_retries_per_step");
    control.insert("max_attempts_per_step".to_owned(), ATTEMPTS.into());

    config.insert("default_permission_mode".to_owned(), "yolo".into());
    config.insert("telemetry".to_owned(), false.into());
    let left_out: Vec<Value> =
        FOR_A_PERSON_THERE.into_iter().chain(AFTER_THE_TURN).map(Value::from).collect();
    ensure_subtable(&mut config, "tools").insert("disabled".to_owned(), left_out.into());
    config
}

/// As an ACP agent, kimi-code does not say to the API what it is, and the API serves only programs that it
/// knows.
fn route_to_egress(place: &mut Table, key: &str, settings: &RunnerSettings) {
    place.remove("oauth");
    place.insert("api_key".to_owned(), key.into());
    let headers = ensure_subtable(place, "custom_headers");
    for (name, value) in [
        ("User-Agent", format!("kimi-code-cli/{VERSION}")),
        ("X-Msh-Platform", "kimi_code_cli".to_owned()),
        ("X-Msh-Version", VERSION.to_owned()),
        ("X-Msh-Device-Name", "nanokimi".to_owned()),
        ("X-Msh-Device-Id", settings.device_id.clone()),
    ] {
        headers.entry(name).or_insert(value.into());
    }
}

/// The tables within the table of this name, if it is a table.
fn subtables_mut<'a>(config: &'a mut Table, name: &str) -> impl Iterator<Item = &'a mut Table> {
    let all = config.get_mut(name).and_then(Value::as_table_mut);
    all.into_iter().flat_map(|all| all.iter_mut().filter_map(|(_, value)| value.as_table_mut()))
}

/// The table of this name, made if it is missing or something else.
fn ensure_subtable<'a>(config: &'a mut Table, name: &str) -> &'a mut Table {
    if !config.get(name).is_some_and(Value::is_table) {
        config.insert(name.to_owned(), Value::Table(Table::new()));
    }
    match config.get_mut(name) {
        Some(Value::Table(table)) => table,
        Some(_) | None => unreachable!("it was put there"),
    }
}

/// How the engine is called. It gets no variable but these.
fn kimi_code_command(
    home: &ContainerHome,
    settings: &RunnerSettings,
    port: u16,
    other: Option<&Path>,
) -> Command {
    let egress = format!("http://127.0.0.1:{port}");
    let mut command = Command::new(other.unwrap_or(Path::new(NODE)));
    command
        .args(OPTIONS)
        .args([PROGRAM, "acp"])
        .current_dir(&home.workspace)
        .env_clear()
        .env("HOME", &home.user)
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("KIMI_CODE_HOME", own_folder(home))
        .env("KIMI_CODE_BASE_URL", format!("{egress}/coding/v1"))
        .env("KIMI_CODE_OAUTH_HOST", &egress)
        .env("KIMI_DISABLE_TELEMETRY", "1")
        .env("KIMI_DISABLE_CRON", "1")
        .env("KIMI_CODE_NO_AUTO_UPDATE", "1")
        .env("NODE_COMPILE_CACHE", COMPILED)
        .env("MALLOC_TRIM_THRESHOLD_", TRIM_FROM_BYTES)
        .env("NODE_EXTRA_CA_CERTS", CERTIFICATES)
        .envs(web::proxy_variables(port));
    if let Some(time_zone) = &settings.time_zone {
        command.env("TZ", time_zone);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::EngineProgram;
    use crate::web::SearchServices;

    const OWNERS: &str = r#"
        default_model = "kimi-for-coding"
        default_yolo = true
        default_thinking = false
        telemetry = true
        [models."kimi-for-coding"]
        provider = "managed:kimi-code"
        model = "kimi-for-coding"
        max_context_size = 262144
        capabilities = ["thinking", "image_in"]
        [providers."managed:kimi-code"]
        type = "kimi"
        base_url = "https://api.kimi.com/coding/v1"
        api_key = ""
        [providers."managed:kimi-code".oauth]
        storage = "file"
        key = "oauth/kimi-code"
        [services.moonshot_search]
        base_url = "https://api.kimi.com/coding/v1/search"
        api_key = ""
        [services.elsewhere]
        base_url = "https://example.org/search"
        [loop_control]
        max_retries_per_step = 5
    "#;

    fn settings(model: Option<&str>) -> RunnerSettings {
        RunnerSettings {
            program: EngineProgram::KimiCode,
            session: "main".into(),
            device_id: "d1".into(),
            assistant: "Kai".into(),
            model: model.map(str::to_owned),
            time_zone: Some("Europe/Madrid".into()),
            services: SearchServices::Kimi,
        }
    }

    #[test]
    fn the_owners_settings_lead_to_the_door() {
        let owners: Table = OWNERS.parse().unwrap();
        let config = build_kimi_code_config(owners, 8787, "door", &settings(Some("k3")));
        let provider = &config["providers"]["managed:kimi-code"];
        assert_eq!(provider["base_url"].as_str(), Some("http://127.0.0.1:8787/coding/v1"));
        assert_eq!(provider["api_key"].as_str(), Some("door"));
        assert!(provider.get("oauth").is_none());
        assert_eq!(provider["custom_headers"]["User-Agent"].as_str(), Some("kimi-code-cli/2.1.0"));
        assert_eq!(provider["custom_headers"]["X-Msh-Device-Id"].as_str(), Some("d1"));
        let search = &config["services"]["moonshot_search"];
        assert_eq!(search["base_url"].as_str(), Some("http://127.0.0.1:8787/coding/v1/search"));
        assert_eq!(search["api_key"].as_str(), Some("door"));
        assert!(config["services"]["elsewhere"].get("api_key").is_none(), "no key for others");
        assert_eq!(config["models"]["kimi-for-coding"]["model"].as_str(), Some("k3"));
        assert_eq!(config["models"]["kimi-for-coding"]["max_context_size"].as_integer(), Some(262_144));
        assert_eq!(config["thinking"]["enabled"].as_bool(), Some(false));
        assert_eq!(config["loop_control"].to_string(), "{ max_attempts_per_step = 1 }");
        assert_eq!(config["default_permission_mode"].as_str(), Some("yolo"));
        assert_eq!(config["telemetry"].as_bool(), Some(false));
        assert_eq!(config["tools"]["disabled"].as_array().map(Vec::len), Some(18));
        assert!(config.get("default_yolo").is_none());
    }

    #[test]
    fn settings_that_say_little_or_nonsense_do_no_harm() {
        for text in
            ["", "providers = 3\nservices = []\ntools = false\nloop_control = \"x\"", "default_model = \"x\""]
        {
            let config = build_kimi_code_config(text.parse().unwrap(), 8787, "k", &settings(Some("m")));
            assert_eq!(
                config["loop_control"]["max_attempts_per_step"].as_integer(),
                Some(ATTEMPTS),
                "{text}"
            );
        }
    }

    #[test]
    fn the_engine_is_called_with_what_it_needs_and_nothing_else() {
        let home = ContainerHome::for_container();
        let command = kimi_code_command(&home, &settings(None), home.port, None);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(args[2..], [PROGRAM, "acp"]);
        let env: Vec<_> = command
            .get_envs()
            .map(|(name, value)| format!("{}={}", name.display(), value.unwrap().display()))
            .collect();
        assert_eq!(
            env.join("\n"),
            "HOME=/home/node\n\
             HTTPS_PROXY=http://127.0.0.1:8787\n\
             HTTP_PROXY=http://127.0.0.1:8787\n\
             KIMI_CODE_BASE_URL=http://127.0.0.1:8787/coding/v1\n\
             KIMI_CODE_HOME=/home/node/.kimi-code\n\
             KIMI_CODE_NO_AUTO_UPDATE=1\n\
             KIMI_CODE_OAUTH_HOST=http://127.0.0.1:8787\n\
             KIMI_DISABLE_CRON=1\n\
             KIMI_DISABLE_TELEMETRY=1\n\
             LANG=C.UTF-8\n\
             MALLOC_TRIM_THRESHOLD_=131072\n\
             NODE_COMPILE_CACHE=/opt/kimi-code/compiled\n\
             NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt\n\
             NODE_USE_ENV_PROXY=1\n\
             NO_PROXY=127.0.0.1,localhost\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             TZ=Europe/Madrid\n\
             http_proxy=http://127.0.0.1:8787\n\
             https_proxy=http://127.0.0.1:8787\n\
             no_proxy=127.0.0.1,localhost"
        );
    }

    #[test]
    fn the_image_has_compiled_for_these_options() {
        let recipe = include_str!("../../../kimi-code.Dockerfile");
        for line in [
            format!("options=\"{}\"", OPTIONS.join(" ")),
            "node $options /opt/kimi-code/precompile.mjs".to_owned(),
            format!("NODE_COMPILE_CACHE={COMPILED};"),
            format!("kimi={PROGRAM};"),
            format!("--version | tee /dev/stderr | grep -qwF {VERSION};"),
        ] {
            assert!(recipe.contains(&line), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            home::read_owner_config(&root.path().join("owner.toml")).unwrap_err().code,
            RunnerExitCode::Settings
        );
        assert_eq!(read_stand_in_key(root.path()).unwrap_err().code, RunnerExitCode::Settings);
        fs::write(root.path().join("owner.toml"), "default_model = ").unwrap();
        assert!(
            home::read_owner_config(&root.path().join("owner.toml"))
                .unwrap_err()
                .to_string()
                .contains("owner.toml")
        );
        fs::create_dir(root.path().join("credentials")).unwrap();
        fs::write(root.path().join("credentials/kimi-code.json"), r#"{"access_token":"k"}"#).unwrap();
        assert_eq!(read_stand_in_key(root.path()).unwrap(), "k");
    }
}
