//! The base of the container tests: the user's rootless Docker with the agent image. The tests also ask this Docker
//! directly, past the code under test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bollard::query_parameters::ListContainersOptionsBuilder;
use nanokimi::agent::Engine;
use nanokimi::container::docker::Docker;
use nanokimi::container::image::{self, BuildOptions, BuildOutcome, BuildProgress};
use nanokimi::types::InstallId;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};

/// Longer than anything that a test waits for: three tries at a model that refuses are over after 40 s.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The time between two checks of something that does not report its changes.
pub const LOOK: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "a test has no Config")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The user's own Docker.
pub async fn docker() -> Docker {
    assert!(
        !rustix::process::geteuid().is_root(),
        "These tests are for an ordinary person; `tests/run containers` runs them as one"
    );
    let (socket, runtime_dir) = (variable("TEST_DOCKER"), variable("XDG_RUNTIME_DIR"));
    Docker::connect_and_ping(socket.as_deref(), runtime_dir.as_deref().map(Path::new)).await.unwrap()
}

pub async fn build(docker: &Docker, engine: Engine) -> Result<(BuildOutcome, Vec<BuildProgress>)> {
    let options = BuildOptions {
        ca_bundle: variable("SSL_CERT_FILE").map(PathBuf::from),
        http_proxy: variable("HTTP_PROXY"),
        https_proxy: variable("HTTPS_PROXY"),
        no_proxy: variable("NO_PROXY"),
        pip_index_url: variable("PIP_INDEX_URL"),
        npm_registry: variable("NPM_CONFIG_REGISTRY"),
    };
    let mut told = Vec::new();
    let built =
        image::build_agent_images(docker, &Engine::ALL, &options, |progress| told.push(progress)).await?;
    let own = image::agent_image_name(engine);
    let became = built.into_iter().find(|(tag, _)| *tag == own).map(|(_, built)| built);
    Ok((became.context("the engine has an image")?, told))
}

/// Docker with the images of all engines, built once for all tests of this run.
pub async fn ready() -> Docker {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let docker = docker().await;
    BUILT.get_or_init(async || drop(build(&docker, Engine::KimiCli).await.unwrap())).await;
    docker
}

/// Docker, asked directly, past the code under test.
pub async fn plain_docker() -> bollard::Docker {
    let socket = docker().await.socket_path().to_str().unwrap().to_owned();
    let client =
        bollard::Docker::connect_with_unix(&socket, PATIENCE.as_secs(), bollard::API_DEFAULT_VERSION);
    client.unwrap().negotiate_version().await.unwrap()
}

/// Docker's description of a container; `None` once it is gone.
pub async fn inspected(name: &str) -> Option<Value> {
    let found = plain_docker().await.inspect_container(name, None).await;
    found.ok().map(|container| serde_json::to_value(container).unwrap())
}

/// Waits until a container is removed.
pub async fn gone(name: &str) {
    until("the container is removed", async || inspected(name).await.is_none()).await;
}

/// An install's containers as `docker ps -a` shows them.
pub async fn containers_of(install: &InstallId) -> Vec<Value> {
    let filters = HashMap::from([("label", vec![format!("nanokimi.install={install}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = plain_docker().await.list_containers(Some(options)).await.unwrap();
    found.into_iter().map(|container| serde_json::to_value(container).unwrap()).collect()
}

/// The names of an install's running containers.
pub async fn running(install: &InstallId) -> Vec<String> {
    let containers = containers_of(install).await;
    let running = containers.iter().filter(|container| container["State"] == "running");
    running.map(|container| container["Names"][0].as_str().unwrap().trim_matches('/').to_owned()).collect()
}

/// Checks that no container of an install runs, and that Docker has removed the last one or is just removing
/// it.
pub async fn nothing_is_left(install: &InstallId) {
    assert_eq!(running(install).await, Vec::<String>::new(), "no container runs on");
    until("no container is left", async || containers_of(install).await.is_empty()).await;
}

/// Checks again and again until it is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let watch = async {
        while !so().await {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, watch).await.unwrap_or_else(|_| panic!("waited for nothing: {what}"));
}

/// The first column of a query's result, read while others use the database.
pub fn asked(database: &Path, sql: &str) -> Vec<String> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|value| value.unwrap()).collect()
}
