//! `nanokimi build`: builds the agent image, with progress.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::install::Install;
use super::ui;
use crate::container::docker::Docker;
use crate::container::image::{self, BuildOptions, BuildOutcome, BuildProgress};
use crate::types::Engine;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

pub async fn run_build_command(install: &Install) -> Result<ExitCode> {
    build_images_with_progress(
        &install.require_docker().await?,
        &install.engines_in_use().await?,
        &install.environment,
    )
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the images of these engines that are missing, and shows its progress.
pub async fn build_images_with_progress(
    docker: &Docker,
    engines: &[Engine],
    environment: &BTreeMap<String, String>,
) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} [{elapsed}] {prefix}: {wide_msg}")?);
    bar.enable_steady_tick(TICK);
    let built = image::build_agent_images(
        docker,
        engines,
        &build_options_from_environment(environment),
        |progress| match progress {
            BuildProgress::Stage(stage) => {
                bar.set_prefix(stage.to_string());
                bar.set_message("");
                if bar.is_hidden() {
                    ui::print_info(stage);
                }
            }
            BuildProgress::Line(line) => bar.set_message(ui::sanitize_to_one_line(&line)),
        },
    )
    .await;
    bar.finish_and_clear();
    for (image, built) in built? {
        match built {
            BuildOutcome::Before => ui::print_info(format!("The agent image {image} is there already.")),
            BuildOutcome::Now => ui::print_info(format!("Built the agent image {image}.")),
        }
    }
    Ok(())
}

/// What this machine says about its way to the network.
fn build_options_from_environment(environment: &BTreeMap<String, String>) -> BuildOptions {
    let either = |name: &str| {
        let value = environment.get(name).or_else(|| environment.get(&name.to_lowercase()));
        value.filter(|value| !value.is_empty()).cloned()
    };
    BuildOptions {
        ca_bundle: either("SSL_CERT_FILE").map(PathBuf::from),
        http_proxy: either("HTTP_PROXY"),
        https_proxy: either("HTTPS_PROXY"),
        no_proxy: either("NO_PROXY"),
        pip_index_url: either("PIP_INDEX_URL"),
        npm_registry: either("NPM_CONFIG_REGISTRY"),
    }
}
