//! `nanokimi doctor`: looks for what is wrong, and says how to mend it. Exit code 1 when something is broken.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::install::Install;
use super::ui;
use crate::checks::{self, Finding, State};

pub async fn run(home: Option<PathBuf>) -> Result<ExitCode> {
    let findings = match Install::look(home) {
        Ok((install, mistakes)) => look(&install, mistakes).await,
        Err(error) => vec![Finding::broken(checks::sentence(&error), "")],
    };
    for Finding { state, what, fix } in &findings {
        let mark = match state {
            State::Good => "ok     ",
            State::Warning => "warning",
            State::Broken => "BROKEN ",
        };
        ui::result(format!("{mark}  {what}"))?;
        if !fix.is_empty() {
            ui::result(format!("         → {fix}"))?;
        }
    }
    let broken = findings.iter().any(|finding| finding.state == State::Broken);
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn look(install: &Install, mistakes: Vec<String>) -> Vec<Finding> {
    let paths = &install.paths;
    let mut findings = checks::settings(paths, mistakes);
    // A database that cannot be read is another finding.
    let engines = install.engines().await.unwrap_or_else(|_| vec![install.config.engine.clone()]);
    let docker = install.find_docker().await;
    findings.extend(checks::docker(docker, &engines, install.how_to_start_docker()).await);
    findings.extend(checks::engines(&engines, &install.config.engine));
    findings.extend(checks::account(paths, &install.config, install.clock.now()).await);
    findings.extend(checks::whatsapp(&install.whatsapp(), paths, &install.config.zone).await);
    findings.extend(checks::groups(paths).await);
    findings.extend(checks::disk(paths));
    findings
}
