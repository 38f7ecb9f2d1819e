//! `nanokimi gateway config`: what to put into the settings of a coding tool, and OpenCode's own file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::super::install::Install;
use super::super::ui;
use super::DEFAULT_ADDRESS;
use crate::folders;
use crate::gateway::{CodingClient, add_nanokimi_provider, remove_nanokimi_provider, render_client_config};
use crate::types::GatewayAddress;

/// Beneath the folder of the person's settings.
const OPENCODE_FOLDER: &str = "opencode";
/// OpenCode reads each of them; the first that is there is changed.
const OPENCODE_FILES: [&str; 3] = ["opencode.json", "opencode.jsonc", "config.json"];
/// Larger settings are none.
const SETTINGS_MAX_BYTES: u64 = 1024 * 1024;

pub fn run_config_command(install: &Install, client: CodingClient, write: bool, undo: bool) -> Result<()> {
    if (write || undo) && client != CodingClient::OpenCode {
        bail!(
            "Only OpenCode's settings can be written; `nanokimi gateway config {}` shows what to paste",
            client.name()
        );
    }
    if undo {
        // In whichever of them it was written.
        for file in opencode_settings_files(install)? {
            change_opencode_settings(&file, remove_nanokimi_provider, "The gateway is out of")?;
        }
        return Ok(());
    }
    let base = gateway_base_url(install)?;
    if write {
        let files = opencode_settings_files(install)?;
        let file = files.first().context("OpenCode has no settings")?;
        change_opencode_settings(file, |text| add_nanokimi_provider(text, &base), "The gateway is in")?;
        ui::print_info(
            "Start OpenCode with the key in KIMI_GATEWAY_KEY, and choose one of the two models there. `nanokimi gateway config \
             opencode --undo` takes them out.",
        );
        return Ok(());
    }
    let (place, key_place) = (client.place(), client.key_place());
    ui::print_info(format!("Into {place}, with the key of this client in {key_place}:"));
    ui::print_result(render_client_config(client, &base))
}

/// Where the gateway will be reached.
fn gateway_base_url(install: &Install) -> Result<String> {
    let address = match &install.config.gateway {
        Some(address) => address.clone(),
        None => {
            ui::print_info("The gateway is off; `nanokimi gateway enable` turns it on.");
            GatewayAddress::parse(DEFAULT_ADDRESS)?
        }
    };
    address.base_url().context(
        "The gateway listens on a unix socket, which this client cannot reach; `nanokimi gateway enable --listen \
         127.0.0.1:8788` gives it an address",
    )
}

fn change_opencode_settings(
    file: &Path,
    change: impl FnOnce(&str) -> Result<String>,
    done: &str,
) -> Result<()> {
    let before = match fs::metadata(file) {
        Ok(metadata) => {
            let is_plain = metadata.is_file() && metadata.len() <= SETTINGS_MAX_BYTES;
            ensure!(is_plain, "{} is no settings file", file.display());
            fs::read_to_string(file).with_context(|| format!("Failed to read {}", file.display()))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ensure!(!file.is_symlink(), "{} is a link that leads nowhere", file.display());
            String::new()
        }
        Err(error) => return Err(error).with_context(|| format!("Failed to read {}", file.display())),
    };
    let after = change(&before)
        .with_context(|| format!("Failed to change {}, which stays as it is", file.display()))?;
    if after == before {
        ui::print_info(format!("There was nothing to change in {}.", file.display()));
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("Failed to make {}", folder.display()))?;
    }
    folders::replace_text_file(file, &after)?;
    ui::print_info(format!("{done} {}.", file.display()));
    Ok(())
}

/// Those that are there; the first one if there are none.
fn opencode_settings_files(install: &Install) -> Result<Vec<PathBuf>> {
    let absolute =
        |name: &str| install.environment.get(name).map(Path::new).filter(|path| path.is_absolute());
    let config = match (absolute("XDG_CONFIG_HOME"), absolute("HOME")) {
        (Some(config), _) => config.to_owned(),
        (None, Some(home)) => home.join(".config"),
        (None, None) => bail!("HOME is not set, so OpenCode's settings cannot be found"),
    };
    let folder = config.join(OPENCODE_FOLDER);
    let all = OPENCODE_FILES.map(|name| folder.join(name));
    let found: Vec<PathBuf> = all.iter().filter(|file| file.symlink_metadata().is_ok()).cloned().collect();
    Ok(if found.is_empty() { vec![all[0].clone()] } else { found })
}
