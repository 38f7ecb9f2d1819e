//! `nanokimi demo`: the whole of nanokimi on this machine, with a practice model in the model's place.
//!
//! Makes the machine ready (rootless Docker under an unprivileged account, the agent image), starts what is
//! not running, and opens a chat. What it started, it stops; what it installed, it says.

mod handover;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::Child;

use super::chat::{self, WasAnswered};
use super::install::{self, Install};
use super::{build, chats, groups, log, ui};
use crate::bridge;
use crate::container::docker::Docker;
use crate::practice;
use crate::types::{ChatId, Group, GroupName, Role, Secret};

const PREPARE: &str = include_str!("../../container/rootless/prepare");
const DAEMON: &str = include_str!("../../container/rootless/daemon");

/// The account that is made when root runs the demo: rootless Docker does not run as root.
const PERSON: &str = "nanokimi";
/// The group that the demo talks in.
const GROUP: &str = "practice";
/// The demo's install, beneath the person's own folder.
const HOME: &str = "nanokimi-demo";
/// How long the Docker daemon may take to answer or to end: measured 2 to 6 s.
const DAEMON_LIMIT: Duration = Duration::from_secs(60);
/// How often its socket is tried meanwhile.
const DAEMON_RETRY: Duration = Duration::from_millis(200);
/// What root's environment passes on to the person's: the terminal, the language, and the way to the network.
const PASSED_ON: [&str; 12] = [
    "TERM",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "PIP_INDEX_URL",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Say this, wait for the answer, and end
    #[arg(long, value_name = "TEXT")]
    say: Option<String>,
    /// The folder of the demo's install [default: ~/nanokimi-demo]
    // In the place of the option that every verb has: its default is another one.
    #[arg(long, value_name = "FOLDER", display_order = ui::LAST_IN_HELP)]
    home: Option<PathBuf>,
}

/// Makes the machine ready. As root, goes on as an ordinary account, and returns how that ended; as that
/// account, returns `None` when all is ready.
pub fn prepare_machine(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
) -> Result<Option<ExitCode>> {
    let is_root = rustix::process::geteuid().is_root();
    let person = if is_root { PERSON.to_owned() } else { current_user_name()? };
    let plan = command_output(Command::new("bash").args(["-c", PREPARE, "prepare", "--plan", &person]))?;
    if !plan.is_empty() {
        ui::print_info("To be ready, this machine needs:");
        plan.lines().for_each(|step| ui::print_info(format!("  - {step}")));
        if !arguments.yes && !ask_to_prepare_machine()? {
            ui::print_info("Nothing was changed.");
            return Ok(Some(ExitCode::FAILURE));
        }
        let mut prepare = if is_root { Command::new("bash") } else { Command::new("sudo") };
        if !is_root {
            prepare.arg("bash");
        }
        let done = prepare.args(["-c", PREPARE, "prepare", &person]).stdout(std::io::stderr()).status();
        if !done.context("Failed to make the machine ready")?.success() {
            bail!("The machine could not be made ready; the reason is above");
        }
    }
    if !is_root {
        return Ok(None);
    }
    rerun_as_account(&person, arguments, environment).map(Some)
}

/// Runs the same demo under the person's account, to its end.
fn rerun_as_account(
    person: &str,
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
) -> Result<ExitCode> {
    let account = command_output(Command::new("getent").args(["passwd", person]))?;
    let mut fields = account.trim().split(':');
    let (uid, person_home) = match (fields.nth(2), fields.nth(2)) {
        (Some(uid), Some(home)) => (uid.to_owned(), PathBuf::from(home)),
        _ => bail!("The account {person} has no home folder"),
    };
    let binary = copy_binary_to_account(person, &person_home)?;
    ui::print_info(format!("Going on as the account \"{person}\" ({})", person_home.display()));
    let mut demo = setpriv_prefix(person);
    demo.push(binary.into());
    if let Some(home) = &arguments.home {
        demo.extend(["--home".into(), home.into()]);
    }
    demo.extend(["demo".into(), "--yes".into()]);
    if let Some(say) = &arguments.say {
        demo.extend(["--say".into(), say.into()]);
    }
    let environment = person_environment(person, &uid, &person_home, environment);
    handover::run_without_root_terminal(&demo, environment, &person_home)
        .context("Failed to go on as an ordinary account")
}

/// Runs what is added to it under the person's account, for no longer than its own parent runs.
fn setpriv_prefix(person: &str) -> Vec<OsString> {
    let change =
        ["setpriv", "--reuid", person, "--regid", person, "--init-groups", "--pdeathsig", "TERM", "--"];
    change.map(OsString::from).to_vec()
}

/// Gives the account this binary, which may lie in a folder that the account cannot read. The account itself
/// writes the copy: root would follow any link in its folders.
fn copy_binary_to_account(person: &str, person_home: &Path) -> Result<PathBuf> {
    const COPY: &str = r#"mkdir -p "${1%/*}" && cat >"$1.new" && chmod 0755 "$1.new" && mv -f "$1.new" "$1""#;
    let binary = person_home.join(".local/bin/nanokimi");
    let own = std::env::current_exe().and_then(File::open).context("Failed to read this binary")?;
    let mut copy = Command::new("setsid");
    copy.arg("--wait").args(setpriv_prefix(person)).args(["sh", "-c", COPY, "copy"]).arg(&binary).stdin(own);
    let copied = copy.output().context("Failed to run setpriv")?;
    if !copied.status.success() {
        let said = ui::sanitize_name(&String::from_utf8_lossy(&copied.stderr));
        bail!("Failed to copy this binary to {}: {said}", binary.display());
    }
    Ok(binary)
}

fn person_environment(
    person: &str,
    uid: &str,
    person_home: &Path,
    environment: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let own = [
        ("HOME", person_home.as_os_str().to_owned()),
        ("USER", person.into()),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("XDG_RUNTIME_DIR", format!("/run/user/{uid}").into()),
    ];
    let passed_on = PASSED_ON.iter().filter_map(|name| Some((*name, environment.get(*name)?.into())));
    own.into_iter().chain(passed_on).map(|(name, value)| (name.into(), value)).collect()
}

fn current_user_name() -> Result<String> {
    Ok(command_output(Command::new("id").arg("-un"))?.trim().to_owned())
}

fn ask_to_prepare_machine() -> Result<bool> {
    let question = dialoguer::Confirm::new().with_prompt("Do this now?").default(true);
    question.interact().context("Nobody is there to ask; use --yes")
}

fn command_output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("Failed to run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed; the reason is above");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The demo itself, on a machine that is ready.
pub async fn run_demo_command(arguments: Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    let environment = install::read_environment();
    let person_home = environment.get("HOME").context("HOME is not set; use --home FOLDER")?;
    let mut install =
        Install::open(Some(arguments.home.unwrap_or_else(|| Path::new(person_home).join(HOME))))?;
    log::start_log("warn");
    ui::print_info("This is a demo: a practice model answers, no real model does. What you say stays here.");
    let _lock = install.lock_install("demo")?;

    let asked_to_stop = install::listen_for_stop_signal()?;
    let (daemon, docker) = tokio::select! {
        found = find_or_start_docker(&install) => found?,
        () = asked_to_stop => return Ok(ExitCode::FAILURE),
    };
    print_startup_stage(began, "rootless Docker answers");
    let done = run_demo_chat(&mut install, &docker, arguments.say, began).await;
    if let Some(daemon) = daemon {
        stop_docker_daemon(daemon).await;
    }
    done
}

async fn run_demo_chat(
    install: &mut Install,
    docker: &Docker,
    say: Option<String>,
    began: Instant,
) -> Result<ExitCode> {
    // Once the chat is open, it listens for this itself.
    let asked_to_stop = install::listen_for_stop_signal()?;
    let engines = install.engines_in_use().await?;
    tokio::select! {
        built = build::build_images_with_progress(docker, &engines, &install.environment) => built?,
        () = asked_to_stop => return Ok(ExitCode::FAILURE),
    }
    print_startup_stage(began, "the agent image is ready");
    let model =
        practice::start_practice_model(practice::tutor_reply, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await?;
    install.config.api_base = model.base_url();
    install.config.api_key = Some(Secret::new("practice"));
    install.config.model = None;

    let store = install.open_store()?;
    let name = GroupName::parse(GROUP)?;
    let group = match store.group_by_name(&name).await? {
        Some(group) => group,
        None => {
            let chat = ChatId::new(chats::console_chat_id(&name));
            let group = Group::new(name.clone(), chat, Role::Member);
            groups::register_group(install, &group).await?;
            group
        }
    };
    let assistant = install.config.assistant_name.clone();
    if let Some(text) = &say {
        chat::ensure_wakes_assistant(&group, &assistant, text)?;
    }
    let (bridge_end, end) = bridge::create_bridge_ends();
    let context = install.build_session_context(docker.clone(), store, end.orders.clone()).await?;
    print_startup_stage(began, "the service is ready");
    let hello = format!("@{assistant} hello");
    match &say {
        Some(text) => ui::print_info(format!("You: {text}")),
        None => ui::print_info(format!(
            "You are in the group \"{name}\"; what you say with \"@{assistant} …\" is answered. Ctrl-D ends.\nYou: {hello}"
        )),
    }
    let script = match say {
        Some(text) => chat::ChatScript::Exchange(text),
        None => chat::ChatScript::Talk { first: Some(hello) },
    };
    let answered = chat::serve_terminal_chat(context, bridge_end, end, group, script).await?;
    Ok(match answered {
        WasAnswered::Yes => ExitCode::SUCCESS,
        WasAnswered::No => ExitCode::FAILURE,
    })
}

/// The running daemon, or one that is started here and belongs to this demo.
async fn find_or_start_docker(install: &Install) -> Result<(Option<Child>, Docker)> {
    if let Ok(docker) = install.find_docker().await {
        return Ok((None, docker));
    }
    let log_path = install.paths.root().join("data/dockerd.log");
    crate::folders::prepare_install_folders(&install.paths)?;
    let log = File::create(&log_path).with_context(|| format!("Failed to write {}", log_path.display()))?;
    let mut daemon = tokio::process::Command::new("bash");
    daemon.args(["-c", DAEMON, "daemon"]).envs(&install.environment).stdin(Stdio::null());
    // A group of its own: Ctrl-C is for the chat, which still needs Docker to clean up.
    daemon.stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
    let mut daemon = daemon.spawn().context("Failed to start the Docker daemon")?;
    let give_up = Instant::now() + DAEMON_LIMIT;
    loop {
        tokio::time::sleep(DAEMON_RETRY).await;
        let error = match install.find_docker().await {
            Ok(docker) => return Ok((Some(daemon), docker)),
            Err(error) => error,
        };
        let ended = daemon.try_wait().context("Failed to watch the Docker daemon")?;
        if ended.is_some() || Instant::now() > give_up {
            stop_docker_daemon(daemon).await;
            return Err(error.context(format!("Docker did not start; see {}", log_path.display())));
        }
    }
}

/// Ends a daemon as it wants to be ended: it takes its helpers with it.
async fn stop_docker_daemon(mut daemon: Child) {
    if let Some(process) = daemon.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        rustix::process::kill_process(process, rustix::process::Signal::TERM).ok();
    }
    match tokio::time::timeout(DAEMON_LIMIT, daemon.wait()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!("Failed to stop the Docker daemon: {error}"),
        Err(_) => tracing::warn!("The Docker daemon does not end"),
    }
}

fn print_startup_stage(began: Instant, what: &str) {
    ui::print_info(format!("  [{:6.3} s] {what}", began.elapsed().as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Verb};
    use super::*;

    #[test]
    fn the_folder_of_a_demo_stands_before_or_after_the_verb() {
        for words in [["nanokimi", "--home", "/srv/x", "demo"], ["nanokimi", "demo", "--home", "/srv/x"]] {
            let Verb::Demo(demo) = Arguments::parse_from(words).verb else { panic!("{words:?} is a demo") };
            assert_eq!(demo.home, Some(PathBuf::from("/srv/x")), "{words:?}");
        }
    }
}
