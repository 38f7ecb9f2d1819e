//! `nanokimi service`: nanokimi as a service of the person's own systemd.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, bail};
use clap::Subcommand as ClapSubcommand;

use super::exit::ExitCause;
use super::install::{self, Install};
use super::{systemd, ui};
use crate::writing::normalize_typed_text;

const UNIT: &str = "nanokimi.service";
const NO_SERVICE: &str = "There is no service here; `nanokimi service install` makes it.";

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Start nanokimi now and at every boot, and again when it breaks
    Install {
        /// Also let your services run while you are not logged in
        #[arg(long)]
        linger: bool,
    },
    /// Stop the service and remove it; the install and all its data stay
    Uninstall,
    /// Show whether the service runs
    Status,
    /// Show what the service logged
    Logs {
        /// Go on with what it logs from now on, until Ctrl-C
        #[arg(long)]
        follow: bool,
        /// How many of the last lines to show
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = parse_line_count)]
        lines: u32,
    },
}

/// The number of `--lines`.
fn parse_line_count(text: &str) -> Result<u32> {
    Ok(normalize_typed_text(text).parse()?)
}

pub async fn run_service_command(home: Option<PathBuf>, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Install { linger } => install_service(&Install::open(home)?, linger).await?,
        Verb::Uninstall => {
            uninstall_service(&Systemd::find_running(install::environment_with_runtime_dir())?)?
        }
        Verb::Status => {
            return print_service_status(&Systemd::find_running(install::environment_with_runtime_dir())?);
        }
        Verb::Logs { follow, lines } => return show_service_logs(follow, lines),
    }
    Ok(ExitCode::SUCCESS)
}

async fn install_service(install: &Install, linger: bool) -> Result<()> {
    let systemd = Systemd::find_running(install.environment.clone())?;
    install.docker_with_image().await?;
    let program = std::env::current_exe().context("Failed to find this binary")?;
    let unit = systemd::render_systemd_unit(&program, install.paths.root())?;
    let file = unit_file_path(&systemd.environment)?;
    write_unit_file(&file, &unit)?;
    ui::print_info(format!(
        "Wrote {} for the install in {}.",
        file.display(),
        install.paths.root().display()
    ));
    systemd.systemctl_checked(&["daemon-reload"])?;
    systemd.systemctl_checked(&["enable", "--quiet", UNIT])?;
    // Not `enable --now`: one that runs already, perhaps an older version, begins anew.
    if systemd.systemctl_checked(&["restart", UNIT]).is_err() {
        bail!("The service did not start; `nanokimi service logs` says why");
    }
    ui::print_info("The service runs. `nanokimi service logs --follow` shows what it does.");
    systemd.enable_lingering_if_wanted(linger)
}

fn uninstall_service(systemd: &Systemd) -> Result<()> {
    let file = unit_file_path(&systemd.environment)?;
    if !file.exists() {
        ui::print_info("There is no service to remove.");
        return Ok(());
    }
    systemd.systemctl_checked(&["disable", "--quiet", "--now", UNIT])?;
    fs::remove_file(&file).with_context(|| format!("Failed to remove {}", file.display()))?;
    systemd.systemctl_checked(&["daemon-reload"])?;
    ui::print_info(format!(
        "Stopped the service and removed {}. The install and all its data are kept; `nanokimi service install` takes \
         them up.",
        file.display()
    ));
    Ok(())
}

/// Exit code 1 if it does not run.
fn print_service_status(systemd: &Systemd) -> Result<ExitCode> {
    const ASKED: &str = "--property=LoadState,ActiveState,SubState,Result,StateChangeTimestamp,NRestarts,UnitFileState,ExecMainStatus";
    let shown = systemd.systemctl_stdout(&["show", UNIT, ASKED])?;
    let value = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    if value("LoadState") != "loaded" {
        ui::print_info(NO_SERVICE);
        return Ok(ExitCode::FAILURE);
    }
    let rows = [
        ("service", format!("{} ({})", value("ActiveState"), value("SubState"))),
        ("since", value("StateChangeTimestamp")),
        ("restarts", value("NRestarts")),
        ("at boot", value("UnitFileState")),
    ];
    ui::print_table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    if value("ActiveState") == "active" {
        return Ok(ExitCode::SUCCESS);
    }
    // An older nanokimi has written a unit with a limit of starts; while it is used up, systemd starts
    // nothing.
    if value("Result") == "start-limit-hit" {
        ui::print_info(
            "It failed too often within a short time, so systemd does not start it any more. `nanokimi service logs` says \
             why it failed; `nanokimi service install` writes a unit without that limit and starts it.",
        );
        return Ok(ExitCode::FAILURE);
    }
    // What it left when it ended last; 0 while it begins anew.
    match ExitCause::explain_service_exit(&value("ExecMainStatus")) {
        Some(why) => ui::print_info(format!("{why}. Then `systemctl --user restart nanokimi` starts it.")),
        None => {
            ui::print_info("`nanokimi service logs` says why; `systemctl --user restart nanokimi` starts it.")
        }
    }
    Ok(ExitCode::FAILURE)
}

/// Exit code 1 if there is no service.
fn show_service_logs(follow: bool, lines: u32) -> Result<ExitCode> {
    let environment = install::environment_with_runtime_dir();
    if !unit_file_path(&environment)?.exists() {
        // If this machine can have no service, that is said instead.
        Systemd::find_running(environment)?;
        ui::print_info(NO_SERVICE);
        return Ok(ExitCode::FAILURE);
    }
    let mut journal = Command::new("journalctl");
    journal.args(["--user-unit", UNIT, "--lines", &lines.to_string()]);
    if follow {
        journal.arg("--follow");
    }
    // Returns only if that fails.
    let error = journal.exec();
    if error.kind() == ErrorKind::NotFound {
        bail!("There is no systemd on this machine, and so no journal to read");
    }
    Err(error).context("Failed to run journalctl")
}

/// The person's own systemd.
struct Systemd {
    environment: BTreeMap<String, String>,
}

impl Systemd {
    /// # Errors
    /// There is none to ask; says what to do.
    fn find_running(environment: BTreeMap<String, String>) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            bail!("The service belongs to the account whose rootless Docker it uses; log in as that one");
        }
        let systemd = Self { environment };
        match systemd.run_systemctl(&["show-environment"]) {
            Ok(output) if output.status.success() => Ok(systemd),
            Ok(_) => bail!(
                "Your own systemd does not answer; log in as yourself (over ssh, not with su or sudo) with the \
                 package dbus-user-session installed, and try again"
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("There is no systemd on this machine; have your own supervisor run `nanokimi run`")
            }
            Err(error) => Err(error).context("Failed to run systemctl"),
        }
    }

    fn run_systemctl(&self, arguments: &[&str]) -> io::Result<Output> {
        Command::new("systemctl").arg("--user").args(arguments).envs(&self.environment).output()
    }

    fn systemctl_stdout(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run_systemctl(arguments).context("Failed to run systemctl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("systemctl --user {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn systemctl_checked(&self, arguments: &[&str]) -> Result<()> {
        self.systemctl_stdout(arguments).map(drop)
    }

    /// Whether the service goes on when the person logs out, and starts before they log in.
    fn enable_lingering_if_wanted(&self, wanted: bool) -> Result<()> {
        let person = rustix::process::getuid().as_raw().to_string();
        let loginctl = |arguments: &[&str]| {
            let output =
                Command::new("loginctl").args(arguments).arg(&person).envs(&self.environment).output();
            output.context("Failed to run loginctl")
        };
        let lingers = loginctl(&["show-user", "--property=Linger", "--value"])?;
        if lingers.stdout.trim_ascii() == b"yes" {
            ui::print_info("It starts at every boot.");
            return Ok(());
        }
        if !wanted {
            ui::print_info(
                "It ends when you log out: `nanokimi service install --linger`, or `sudo loginctl enable-linger \
                 \"$USER\"`, lets it run without you.",
            );
            return Ok(());
        }
        if !loginctl(&["enable-linger"])?.status.success() {
            bail!("systemd does not let you; run `sudo loginctl enable-linger \"$USER\"`");
        }
        ui::print_info("It starts at every boot, without your login.");
        Ok(())
    }
}

/// Where the person's units lie: systemd.unit(5).
fn unit_file_path(environment: &BTreeMap<String, String>) -> Result<PathBuf> {
    let named = |name: &str| environment.get(name).map(Path::new).filter(|path| path.is_absolute());
    let config = match (named("XDG_CONFIG_HOME"), named("HOME")) {
        (Some(config), _) => config.to_owned(),
        (None, Some(home)) => home.join(".config"),
        (None, None) => bail!("HOME is not set, and so there is no place for the service; set it"),
    };
    Ok(config.join("systemd/user").join(UNIT))
}

fn write_unit_file(file: &Path, unit: &str) -> Result<()> {
    let folder = file.parent().context("Failed to find the folder of the unit")?;
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(file, unit));
    written.with_context(|| format!("Failed to write {}", file.display()))
}
