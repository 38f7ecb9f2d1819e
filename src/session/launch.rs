//! Makes a group's container ready and starts it: folders, stand-in credentials, door, then the container.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::Instrument;

use super::Host;
use super::pictures::Sight;
use crate::agent::{self, Agent, AgentEvent};
use crate::container::spec::Services;
use crate::container::{Containers, Exit, Running, image, spec};
use crate::door::{self, Door};
use crate::panics::blocking;
use crate::paths::Paths;
use crate::types::{Authorization, Failure, Group, GroupName, RunId, Trouble, WebPolicy};
use crate::{auth, home};

/// How long Docker may take to start or remove a container: measured 0.2 s, and 9 s for ten at once.
const LAUNCH_LIMIT: Duration = Duration::from_secs(45);
/// Longest line of an engine's stderr that is logged.
const STDERR_LINE_MAX_BYTES: u64 = 4_096;

/// A started engine and everything that belongs to it.
pub struct Engine {
    pub container: String,
    pub agent: Agent,
    pub events: mpsc::Receiver<AgentEvent>,
    /// None once it has been told.
    pub exit: Option<oneshot::Receiver<Exit>>,
    pub door: Door,
    pub has_worked: HasWorked,
    pub sight: Sight,
    /// The group as it was at the start: its role decided what is mounted.
    group: Group,
    /// What the group's prompt files were at the start.
    prompt_files: PromptFiles,
}

/// Whether an engine has had a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HasWorked {
    NotYet,
    Yes,
}

impl Engine {
    /// Resolves, once, when the container has ended.
    pub async fn ended(exit: &mut Option<oneshot::Receiver<Exit>>) -> Exit {
        let Some(receiver) = exit else { return std::future::pending().await };
        let how = receiver.await.unwrap_or(Exit::Unknown);
        *exit = None;
        how
    }

    /// Whether the engine was started for something else than the group is now. It has one turn in any case:
    /// an agent that changes the prompts without end must not keep others from ever being answered.
    pub fn is_stale(&self, group: &Group, paths: &Paths) -> bool {
        self.group != *group
            || (self.has_worked == HasWorked::Yes && self.prompt_files != PromptFiles::of(paths, &group.name))
    }
}

/// Which prompt files an engine was started with. Told by their metadata: the files belong to the agent, who
/// may have put anything in their place, so the host never opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PromptFiles {
    global: Option<FileStamp>,
    group: Option<FileStamp>,
}

/// Inode, size in bytes, and time of the last change in seconds and nanoseconds.
type FileStamp = (u64, u64, i64, i64);

impl PromptFiles {
    fn of(paths: &Paths, group: &GroupName) -> Self {
        Self {
            global: stamp(&paths.global().join("KIMI.md")),
            group: stamp(&paths.group(group).join("KIMI.md")),
        }
    }
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Launches the group's container and begins to speak with its engine.
pub async fn launch<C: Containers>(host: &Host<C>, group: Group) -> Result<Engine, Failure> {
    let program = host.settings.engine_of(&group);
    let (spec, door) = prepare(host, &group, program).await.map_err(|error| {
        let full = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(is_disk_full);
        Failure::new(if full { Trouble::NoSpace } else { Trouble::LaunchFailed }, format!("{error:#}"))
    })?;
    let prompt_files = PromptFiles::of(&host.paths, &group.name);
    let sight = Sight::of(&host.paths.engine_config(), host.settings.model.as_deref());
    let Running { name, stdin, stdout, stderr, exit } =
        match timeout(LAUNCH_LIMIT, host.containers.launch(&spec)).await {
            Ok(launched) => launched?,
            Err(_) => return Err(give_up(host, &spec.name).await),
        };
    tokio::spawn(log_stderr(stderr).in_current_span());
    let (ended, exit_receiver) = oneshot::channel();
    tokio::spawn(async move { ended.send(exit.await) });
    let (agent, events) = Agent::start(program, stdin, stdout);
    Ok(Engine {
        container: name,
        agent,
        events,
        exit: Some(exit_receiver),
        door,
        has_worked: HasWorked::NotYet,
        sight,
        group,
        prompt_files,
    })
}

/// Docker may have got as far as a running container, which would go on with the group's history by itself.
async fn give_up<C: Containers>(host: &Host<C>, container: &str) -> Failure {
    match timeout(LAUNCH_LIMIT, host.containers.remove(container)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("Failed to remove a container that did not start: {error:#}"),
        Err(_) => tracing::warn!("Docker did not remove a container that did not start"),
    }
    Failure::new(Trouble::NoDocker, "Docker did not start the container in time")
}

async fn prepare<C: Containers>(
    host: &Host<C>,
    group: &Group,
    program: agent::Engine,
) -> anyhow::Result<(spec::ContainerSpec, Door)> {
    host.login.reread(host.clock.now());
    let (paths, its) = (host.paths.clone(), group.clone());
    let session = host.store.engine_session(&group.name).await?;
    // An engine that names its histories itself finds those of one session in a folder of their own.
    let sessions_apart = program.sessions_apart().map(|folder| format!("{folder}/{session}"));
    let apart = sessions_apart.clone();
    let folders = blocking(move || {
        home::prepare_group(&paths, &its)?;
        if let Some(folder) = apart {
            home::prepare_sessions_apart(&paths, &its, &folder)?;
        }
        auth::write_stand_in(&paths.agent_credentials(&its.name))
    });
    folders.await??;
    let spec = spec::spec(
        &spec::Launch {
            paths: &host.paths,
            install: &host.settings.install,
            run: &RunId::new(format!("{:08x}", rand::random::<u32>())),
            engine: spec::Engine {
                name: program.name(),
                home: program.home(),
                config: program.config(),
                sessions_apart,
            },
            image: &image::tag(&program.name()),
            daemon: host.settings.daemon,
            limits: host.settings.container_limits,
            time_zone: host.settings.zone.iana_name().unwrap_or("UTC"),
            assistant: &host.settings.assistant,
            model: host.settings.model.as_deref(),
            session: &session,
            device: &host.settings.device_id,
            services: services(group, &host.login.authorization().borrow()),
        },
        group,
    )?;
    let door = door::open(&host.paths.door(&group.name), host.upstream.clone(), group).await?;
    Ok((spec, door))
}

/// Kimi's search and fetch belong to its plans, not to keys of the platform, and they reach the whole web.
fn services(group: &Group, login: &Authorization) -> Services {
    match (&group.web, login) {
        (WebPolicy::Web, Authorization::Login(_) | Authorization::Missing(_)) => Services::Kimi,
        (WebPolicy::Web, Authorization::ApiKey(_)) | (WebPolicy::None | WebPolicy::Allowlist(_), _) => {
            Services::None
        }
    }
}

fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The engine's complaints go to the log, line by line. They may hold words of people: never above DEBUG.
async fn log_stderr(stderr: Box<dyn tokio::io::AsyncRead + Send + Unpin>) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(STDERR_LINE_MAX_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                tracing::debug!(line = %String::from_utf8_lossy(&line).trim_end(), "The engine complains")
            }
        }
    }
}
