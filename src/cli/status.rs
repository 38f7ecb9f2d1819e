//! `nanokimi status`: what this install serves, what waits, what was used.

use std::process::ExitCode;

use anyhow::Result;

use super::install::Install;
use super::ui;
use crate::store::{InstanceLock, QueueCounts};

pub async fn run(install: &Install) -> Result<ExitCode> {
    let root = install.paths.root().display().to_string();
    let Some(store) = install.existing_store()? else {
        ui::note(format!(
            "There is no install in {root} yet. `nanokimi groups add main --main` begins one; `nanokimi demo` is a first look."
        ));
        return Ok(ExitCode::SUCCESS);
    };
    let QueueCounts { waiting, claimed, parked, unsent, dead, usage } = store.queue_counts().await?;
    let service = InstanceLock::holder(&install.paths.lock_file())?
        .unwrap_or_else(|| "not running; `nanokimi run` starts it".to_owned());
    let rows = [
        ("install", root),
        ("service", service),
        ("groups", store.groups().await?.len().to_string()),
        ("messages waiting", waiting.to_string()),
        ("being answered", claimed.to_string()),
        ("given up", parked.to_string()),
        ("replies to send", unsent.to_string()),
        ("replies given up", dead.to_string()),
        ("tokens", format!("{} in ({} cached), {} out", usage.input, usage.cached, usage.output)),
    ];
    ui::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    Ok(ExitCode::SUCCESS)
}
