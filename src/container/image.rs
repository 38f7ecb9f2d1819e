//! The agent image: its name, and building it on the person's Docker from what this binary carries.
//!
//! `context` holds the recipes, `base` finds or makes the image that they start from. Nothing here launches
//! an agent. bollard's classic build is used: it needs nothing but the daemon.

mod base;
mod context;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use bollard::body_full;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use futures_util::stream::StreamExt;

use super::docker::{Docker, is_disk_full_message, response_status};
use crate::types::Engine;

const REPOSITORY: &str = "nanokimi-agent";
/// Lines of a failed build that an error repeats: enough for the cause, which comes last, to be among them.
const LINES_IN_ERROR: usize = 12;

/// What the host knows about its way to the network. An ordinary server needs nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// The host's own certificate authorities (`SSL_CERT_FILE`), in PEM.
    pub ca_bundle: Option<PathBuf>,
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
    /// The index of Python packages (`PIP_INDEX_URL`).
    pub pip_index_url: Option<String>,
    /// The registry of Node's packages (`NPM_CONFIG_REGISTRY`).
    pub npm_registry: Option<String>,
}

/// What a build reports on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildProgress {
    Stage(BuildStage),
    /// What the working program says, without its end of line.
    Line(String),
}

/// What is being done. Printed as a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStage {
    PullBase,
    MakeBase,
    Build { step: u32, of: u32 },
    CleanUp,
}

impl fmt::Display for BuildStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullBase => f.write_str("Fetching the base image"),
            Self::MakeBase => f.write_str("Making the base image from Debian's packages"),
            Self::Build { step, of } => write!(f, "Building the agent image, step {step} of {of}"),
            Self::CleanUp => f.write_str("Removing old agent images"),
        }
    }
}

/// How a build ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildOutcome {
    /// This binary's image was there already.
    Before,
    Now,
}

/// The name of this binary's agent image for an engine: `nanokimi-agent:` and 12 hex digits of its recipe.
pub fn agent_image_name(engine: Engine) -> String {
    static TAGS: LazyLock<BTreeMap<Engine, String>> =
        LazyLock::new(|| Engine::ALL.map(|engine| (engine, compute_image_name(engine))).into());
    TAGS.get(&engine).cloned().unwrap_or_else(|| compute_image_name(engine))
}

fn compute_image_name(engine: Engine) -> String {
    format!("{REPOSITORY}:{}", &context::recipe_hash(engine)[..12])
}

/// Builds the agent image of each of these engines unless it is there, then removes the images of other
/// versions that nobody uses. Says what became of each.
///
/// # Errors
/// Says what stopped it, with the last lines of the program that failed.
pub async fn build_agent_images(
    docker: &Docker,
    engines: &[Engine],
    options: &BuildOptions,
    mut progress: impl FnMut(BuildProgress),
) -> Result<Vec<(String, BuildOutcome)>> {
    let mut images = Vec::new();
    for &engine in engines {
        let tag = agent_image_name(engine);
        let built = if docker.has_image(&tag).await? {
            BuildOutcome::Before
        } else {
            let base = base::ensure_base_image(docker, options, &mut progress).await?;
            build_on_base_image(docker, &base, engine, &tag, options, &mut progress).await?;
            BuildOutcome::Now
        };
        images.push((tag, built));
    }
    progress(BuildProgress::Stage(BuildStage::CleanUp));
    remove_old_images(docker, &mut progress).await?;
    Ok(images)
}

async fn build_on_base_image(
    docker: &Docker,
    base: &str,
    engine: Engine,
    tag: &str,
    options: &BuildOptions,
    progress: &mut impl FnMut(BuildProgress),
) -> Result<()> {
    let request = BuildImageOptionsBuilder::default()
        .dockerfile(context::RECIPE)
        .t(tag)
        .buildargs(&docker_build_args(base, options))
        .rm(true)
        .forcerm(true)
        .build();
    let archive = context::pack_build_context(engine, options.ca_bundle.as_deref()).await?;
    let client = docker.new_api_client()?;
    let mut events = client.build_image(request, None, Some(body_full(archive.into())));
    let mut said = LastLines::default();
    while let Some(event) = events.next().await {
        let text = event.map_err(|error| said.build_error(&error.to_string()))?.stream.unwrap_or_default();
        for line in text.lines().map(strip_terminal_codes).filter(|line| !line.is_empty()) {
            match parse_build_step(&line) {
                Some(stage) => progress(BuildProgress::Stage(stage)),
                None => {
                    said.push(&line);
                    progress(BuildProgress::Line(line));
                }
            }
        }
    }
    // Docker ends its report the same way when it dies in the middle.
    if !docker.has_image(tag).await? {
        bail!("Failed to build the agent image: Docker stopped in the middle; see its own log");
    }
    Ok(())
}

/// Docker passes these on to the build only; it knows the proxies by both spellings, and apt only the one in
/// lower case.
fn docker_build_args(base: &str, options: &BuildOptions) -> HashMap<&'static str, String> {
    let settings = [
        ("HTTP_PROXY", &options.http_proxy),
        ("http_proxy", &options.http_proxy),
        ("HTTPS_PROXY", &options.https_proxy),
        ("https_proxy", &options.https_proxy),
        ("NO_PROXY", &options.no_proxy),
        ("no_proxy", &options.no_proxy),
        ("PIP_INDEX_URL", &options.pip_index_url),
        ("NPM_CONFIG_REGISTRY", &options.npm_registry),
    ];
    let set = settings.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name, value)));
    std::iter::once(("BASE", base.to_owned())).chain(set).collect()
}

/// Reads the classic builder's `Step 3/11 : RUN …`.
fn parse_build_step(line: &str) -> Option<BuildStage> {
    let (step, of) = line.strip_prefix("Step ")?.split_once(" : ")?.0.split_once('/')?;
    Some(BuildStage::Build { step: step.parse().ok()?, of: of.parse().ok()? })
}

/// Without the colours that Docker gives to a build's stderr, and without what a carriage return overwrote.
fn strip_terminal_codes(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, escape)) = rest.split_once("\u{1b}[") {
        text.push_str(before);
        rest = escape.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.trim_end().rsplit('\r').next().unwrap_or_default().to_owned()
}

/// The last lines that a program printed, for the error if it fails.
#[derive(Debug, Default)]
struct LastLines(VecDeque<String>);

impl LastLines {
    fn push(&mut self, line: &str) {
        if self.0.len() == LINES_IN_ERROR {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn build_error(&self, reason: &str) -> anyhow::Error {
        if is_disk_full_message(reason) || self.0.iter().any(|line| is_disk_full_message(line)) {
            return anyhow::anyhow!("Failed to build the agent image: the disk is full; it needs about 2 GB");
        }
        let lines: String = self.0.iter().map(|line| format!("\n    {line}")).collect();
        anyhow::anyhow!("Failed to build the agent image: {reason}{lines}")
    }
}

/// Another engine's image of this version stays: another install may use it.
async fn remove_old_images(docker: &Docker, progress: &mut impl FnMut(BuildProgress)) -> Result<()> {
    let filters = HashMap::from([("reference", vec![REPOSITORY])]);
    let is_old = |name: &str| Engine::ALL.into_iter().all(|engine| agent_image_name(engine) != name);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let images = docker
        .new_api_client()?
        .list_images(Some(options))
        .await
        .context("Failed to list the agent images")?;
    for old in images.iter().flat_map(|image| &image.repo_tags).filter(|name| is_old(name)) {
        let options = RemoveImageOptionsBuilder::default().build();
        match docker.new_api_client()?.remove_image(old, Some(options), None).await {
            Ok(_) => progress(BuildProgress::Line(format!("Removed {old}"))),
            // In use by a running agent, or gone meanwhile.
            Err(error) if matches!(response_status(&error), Some(404 | 409)) => {
                progress(BuildProgress::Line(format!("Kept {old}: an agent still runs on it")));
            }
            Err(error) => return Err(error).with_context(|| format!("Failed to remove the image {old}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_names_the_recipe() {
        let tag = agent_image_name(Engine::DEFAULT);
        let (name, hash) = tag.split_once(':').unwrap();
        assert_eq!(name, "nanokimi-agent");
        assert!(hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{tag}");
    }

    #[test]
    fn what_docker_prints_becomes_stages_and_plain_lines() {
        let stages = [
            ("Step 3/11 : RUN set -eu", Some(BuildStage::Build { step: 3, of: 11 })),
            ("Step 3 of 11", None),
            ("Step x/11 : RUN", None),
            (" ---> 3f2a", None),
        ];
        for (line, stage) in stages {
            assert_eq!(parse_build_step(line), stage, "{line:?}");
        }
        let lines = [
            ("\u{1b}[91mERROR: no\u{1b}[0m", "ERROR: no"),
            ("\u{1b}[0mkimi 1\n", "kimi 1"),
            ("10%\r50%\r100%\r\n", "100%"),
            ("cut off \u{1b}[9", "cut off"),
            ("", ""),
        ];
        for (line, text) in lines {
            assert_eq!(strip_terminal_codes(line), text, "{line:?}");
        }
    }

    #[test]
    fn a_failed_build_is_explained_by_its_last_lines() {
        let mut said = LastLines::default();
        for number in 0..20 {
            said.push(&format!("line {number}"));
        }
        let explained = said.build_error("a command ended with 1").to_string();
        assert!(
            explained.starts_with("Failed to build the agent image: a command ended with 1\n"),
            "{explained}"
        );
        assert!(explained.ends_with("line 19") && !explained.contains("line 7\n"), "{explained}");

        said.push("tar: write: No space left on device");
        assert!(said.build_error("a command ended with 1").to_string().contains("the disk is full"));
    }

    #[test]
    fn only_what_is_set_reaches_the_build() {
        let base = ("BASE", "python:3".to_owned());
        assert_eq!(docker_build_args("python:3", &BuildOptions::default()), HashMap::from([base.clone()]));
        let behind_a_proxy =
            BuildOptions { https_proxy: Some("http://proxy:3128".to_owned()), ..BuildOptions::default() };
        let proxy = "http://proxy:3128".to_owned();
        assert_eq!(
            docker_build_args("python:3", &behind_a_proxy),
            HashMap::from([base, ("HTTPS_PROXY", proxy.clone()), ("https_proxy", proxy)])
        );
    }
}
