//! `nanokimi doctor`: looks for what is wrong, and says how to mend it. Exit code 1 when something is broken.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::install::Install;
use super::ui;
use crate::checks::{self, Finding, Severity};

pub async fn run_doctor_command(home: Option<PathBuf>) -> Result<ExitCode> {
    let findings = match Install::open_with_mistakes(home) {
        Ok((install, mistakes)) => collect_findings(&install, mistakes).await,
        Err(error) => vec![Finding::broken(checks::render_error(&error), "")],
    };
    for Finding { state, what, fix } in &findings {
        let mark = match state {
            Severity::Good => "ok     ",
            Severity::Warning => "warning",
            Severity::Broken => "BROKEN ",
        };
        ui::print_result(format!("{mark}  {what}"))?;
        if !fix.is_empty() {
            ui::print_result(format!("         → {fix}"))?;
        }
    }
    let broken = findings.iter().any(|finding| finding.state == Severity::Broken);
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn collect_findings(install: &Install, mistakes: Vec<String>) -> Vec<Finding> {
    let paths = &install.paths;
    let mut findings = checks::check_settings(paths, mistakes);
    // A database that cannot be read is another finding.
    let engines = install.engines_in_use().await.unwrap_or_else(|_| vec![install.config.engine]);
    let docker = install.find_docker().await;
    findings.extend(checks::check_docker(docker, &engines, install.how_to_start_docker()).await);
    findings.extend(checks::check_engines(&engines, install.config.engine));
    findings.extend(checks::check_kimi_account(paths, &install.config, install.clock.now()).await);
    findings.extend(checks::check_whatsapp(&install.whatsapp_bridge(), paths, &install.config.zone).await);
    findings.extend(checks::check_groups(paths).await);
    findings.extend(checks::check_lent_folders(paths, install.allowlist_place().as_ref()).await);
    findings.extend(checks::check_gateway(paths, install.config.gateway.as_ref()).await);
    findings.extend(checks::check_disk(paths));
    findings
}
