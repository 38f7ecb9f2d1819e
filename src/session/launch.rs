//! Makes a group's container ready and starts it: folders, stand-in credentials, egress proxy, then the
//! container.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::context::SessionContext;
use super::images::Vision;
use super::running_turn::RunningTurn;
use super::share::{self, Overuse};
use super::token_limit::TurnTokenLimit;
use super::tool_calls;
use crate::agent::{Agent, AgentEvent};
use crate::container::spec::SearchServices;
use crate::container::{ContainerExit, Containers, DaemonUser, RunningContainer, image, spec};
use crate::egress::{self, EgressProxy, ToolCall};
use crate::folders::FolderState;
use crate::login::config_toml;
use crate::panics::run_blocking;
use crate::paths::{ISOLATED_SESSIONS, Paths};
use crate::rules::extra_folders::GrantedFolder;
use crate::store::EngineSession;
use crate::types::{Authorization, DiskSpace, Failure, Group, GroupName, RunId, Trouble, WebPolicy};
use crate::{folders, login};

/// How long Docker may take to start or remove a container: measured 0.2 s, and 9 s for ten at once.
const LAUNCH_LIMIT: Duration = Duration::from_secs(45);
/// How long a launch waits if Docker does not answer or the disk is full. Shorter than the time that stopping
/// the service may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a launch looks for room on the disk meanwhile.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(3);
/// How often Docker is asked meanwhile, and afterwards.
pub const LOOK_FOR_DOCKER_EVERY: Duration = Duration::from_secs(3);
/// How long Docker may take to answer.
const LOOK_FOR_DOCKER_LIMIT: Duration = Duration::from_secs(10);
/// The longest line of an engine's stderr that is logged.
const STDERR_LINE_MAX_BYTES: u64 = 4_096;

/// A started engine and everything that belongs to it.
pub struct RunningEngine {
    pub container: String,
    pub agent: Agent,
    pub events: mpsc::Receiver<AgentEvent>,
    /// None after it was reported.
    pub exit: Option<oneshot::Receiver<ContainerExit>>,
    pub egress: EgressProxy,
    /// Where calls of the host's tools go that come over the engine's own protocol.
    pub tool_calls: mpsc::Sender<ToolCall>,
    /// What the tools of the host go by.
    pub running_turn: watch::Sender<Option<RunningTurn>>,
    /// Whether it has had a turn.
    pub has_worked: bool,
    pub vision: Vision,
    /// The most tokens of the running turn.
    pub turn_tokens: Option<TurnTokenLimit>,
    /// None after it was reported.
    pub overuse: Option<oneshot::Receiver<Overuse>>,
    /// The group as it was at the start. Its role decided what is mounted.
    group: Group,
    /// The session that it goes on with.
    session: EngineSession,
    /// The group's prompt files and skills as they were at the start.
    prompt_files: PromptFiles,
}

impl RunningEngine {
    /// Resolves, once, when the container has ended.
    pub async fn wait_for_exit(exit: &mut Option<oneshot::Receiver<ContainerExit>>) -> ContainerExit {
        let Some(receiver) = exit else { return std::future::pending().await };
        let how = receiver.await.unwrap_or(ContainerExit::Unknown);
        *exit = None;
        how
    }

    /// Resolves, once, when the agent has taken too much of the machine.
    pub async fn wait_for_overuse(overuse: &mut Option<oneshot::Receiver<Overuse>>) -> Overuse {
        let reported = match overuse {
            Some(receiver) => receiver.await.ok(),
            None => None,
        };
        *overuse = None;
        match reported {
            Some(overuse) => overuse,
            // The watch has ended without a word.
            None => std::future::pending().await,
        }
    }

    /// Whether its history is this session's.
    pub fn is_in_session(&self, session: &EngineSession) -> bool {
        self.session == *session
    }

    /// Whether it was started for the run of a task and nothing else.
    pub fn is_of_run(&self) -> bool {
        self.session.is_of_run()
    }

    /// Whether the group has changed since the engine was started. An engine has one turn in any case: an
    /// agent that changes its prompt files or skills again and again must not keep its chat from being
    /// answered.
    pub fn is_stale(&self, group: &Group, session: &EngineSession, paths: &Paths) -> bool {
        self.group != *group
            || !self.is_in_session(session)
            || (self.has_worked && self.prompt_files != PromptFiles::for_group(paths, group))
    }
}

/// Which prompt files and skills an engine was started with, and which copy of the global folder. Known by
/// their metadata only: the files belong to the agent, which may have put anything in their place, so
/// nanokimi never opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PromptFiles {
    global: FolderState,
    group: Option<FileStamp>,
    skills: FolderState,
}

/// Inode, size in bytes, and time of the last change in seconds and nanoseconds.
type FileStamp = (u64, u64, i64, i64);

impl PromptFiles {
    fn for_group(paths: &Paths, group: &Group) -> Self {
        Self::with_global_state(folders::global_folder_state(paths, group.role), paths, &group.name)
    }

    fn with_global_state(global: FolderState, paths: &Paths, group: &GroupName) -> Self {
        let folder = paths.group_folder(group);
        Self {
            global,
            group: read_file_stamp(&folder.join("KIMI.md")),
            skills: folders::skills_folder_state(&folder.join(folders::SKILLS_FOLDER)),
        }
    }
}

fn read_file_stamp(path: &Path) -> Option<FileStamp> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Launches the group's container and begins to speak with its engine. After a boot or an upgrade Docker may
/// just be starting, and a full disk may have room a moment later. A launch waits for that a little, so that
/// nobody has to be told.
pub async fn launch_engine_with_retry<C: Containers>(
    context: &SessionContext<C>,
    group: Group,
    session: EngineSession,
) -> Result<RunningEngine, Failure> {
    let launched = try_launch_engine(context, group.clone(), session.clone()).await;
    let may_be_over = match &launched {
        Err(failure) if failure.trouble == Trouble::NoDocker => {
            timeout(PATIENCE, wait_for_docker(context)).await
        }
        Err(failure) if failure.trouble == Trouble::NoSpace => {
            timeout(PATIENCE, wait_for_install_disk_space(context)).await
        }
        Ok(_) | Err(_) => return launched,
    };
    match may_be_over {
        Ok(()) => try_launch_engine(context, group, session).await,
        Err(_) => launched,
    }
}

/// Waits until the disk of the install has room; takes the first look after a while. Ignores Docker's disk if
/// that is another one.
async fn wait_for_install_disk_space<C: Containers>(context: &SessionContext<C>) {
    loop {
        sleep(LOOK_FOR_ROOM_EVERY).await;
        if !is_disk_full(context) {
            return;
        }
    }
}

/// Whether the disk of the install counts as full. If that cannot be read, it does not.
pub fn is_disk_full<C: Containers>(context: &SessionContext<C>) -> bool {
    folders::free_space_of_folder(context.paths.root()).is_ok_and(DiskSpace::is_low)
}

/// Waits until Docker answers; asks first after a while.
pub async fn wait_for_docker<C: Containers>(context: &SessionContext<C>) {
    loop {
        sleep(LOOK_FOR_DOCKER_EVERY).await;
        if let Ok(Ok(())) = timeout(LOOK_FOR_DOCKER_LIMIT, context.containers.ping_docker()).await {
            return;
        }
    }
}

/// The failure that an error in a launch's preparation means.
pub fn failure_from_error<C: Containers>(context: &SessionContext<C>, error: &anyhow::Error) -> Failure {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    let trouble = causes.find_map(|cause| {
        trouble_from_io_error(cause, folders::free_space_of_folder(context.paths.root()).ok())
    });
    Failure::new(trouble.unwrap_or(Trouble::LaunchFailed), format!("{error:#}"))
}

async fn try_launch_engine<C: Containers>(
    context: &SessionContext<C>,
    group: Group,
    session: EngineSession,
) -> Result<RunningEngine, Failure> {
    // An engine would ask the model and then fail to save the answer.
    if is_disk_full(context) {
        return Err(Failure::new(Trouble::NoSpace, "The disk of the install is full"));
    }
    let program = context.settings.engine_for_group(&group);
    let no_docker = |error| Failure::new(Trouble::NoDocker, format!("{error:#}"));
    context.sweep_old_containers().await.map_err(no_docker)?;
    let daemon = context.containers.fetch_daemon_user().await.map_err(no_docker)?;
    let PreparedLaunch { spec, egress, tool_calls, running_turn, global, lent } =
        prepare_launch(context, &group, &session, daemon)
            .await
            .map_err(|error| failure_from_error(context, &error))?;
    let prompt_files = PromptFiles::with_global_state(global, &context.paths, &group.name);
    let model = context.settings.model_for_group(&group);
    let vision = Vision::from_engine_config(&context.paths.engine_config_file(), model);
    let RunningContainer { name, stdin, stdout, stderr, exit } =
        match timeout(LAUNCH_LIMIT, context.containers.launch_container(&spec)).await {
            Ok(launched) => launched?,
            Err(_) => return Err(remove_unstarted_container(context, &spec.name).await),
        };
    if !lent.iter().all(folders::is_folder_in_place) {
        remove_unstarted_container(context, &name).await;
        let why = "A lent folder was replaced while the container started";
        return Err(Failure::new(Trouble::LaunchFailed, why));
    }
    tokio::spawn(log_engine_stderr(stderr).in_current_span());
    let (paths, name_of_group) = (context.paths.clone(), group.name.clone());
    tokio::spawn(run_blocking(move || folders::empty_trash(&paths, &name_of_group)));
    let (ended, exit_receiver) = oneshot::channel();
    tokio::spawn(async move { ended.send(exit.await) });
    let (over, overuse) = oneshot::channel();
    let limits = context.settings.container_limits;
    tokio::spawn(
        share::watch_for_overuse(context.paths.clone(), group.clone(), limits, over).in_current_span(),
    );
    let (agent, events) = Agent::start_protocol(program, group.role, stdin, stdout);
    Ok(RunningEngine {
        container: name,
        agent,
        events,
        exit: Some(exit_receiver),
        egress,
        tool_calls,
        running_turn,
        has_worked: false,
        vision,
        turn_tokens: None,
        overuse: Some(overuse),
        group,
        session,
        prompt_files,
    })
}

/// Removes what Docker may have started after all: such a container would go on with the group's history by
/// itself.
async fn remove_unstarted_container<C: Containers>(context: &SessionContext<C>, container: &str) -> Failure {
    let trouble = match timeout(LAUNCH_LIMIT, context.containers.remove_container(container)).await {
        Ok(Ok(())) => Trouble::LaunchFailed,
        Ok(Err(error)) => {
            tracing::warn!("Failed to remove a container that did not start: {error:#}");
            Trouble::NoDocker
        }
        Err(_) => {
            tracing::warn!("Docker did not remove a container that did not start");
            Trouble::NoDocker
        }
    };
    Failure::new(trouble, "Docker did not start the container in time")
}

/// What a container is started with.
struct PreparedLaunch {
    spec: spec::ContainerSpec,
    egress: EgressProxy,
    tool_calls: mpsc::Sender<ToolCall>,
    running_turn: watch::Sender<Option<RunningTurn>>,
    /// The global folder as it was when it was copied.
    global: FolderState,
    lent: Vec<GrantedFolder>,
}

/// The folders that the owner lends this group, as they are now. Those that may not be mounted are left out.
async fn decide_lent_folders<C: Containers>(
    context: &SessionContext<C>,
    group: &Group,
) -> anyhow::Result<Vec<GrantedFolder>> {
    if group.folders.is_empty() {
        return Ok(Vec::new());
    }
    let groups = context.store.all_groups().await?;
    let (paths, place) = (context.paths.clone(), context.settings.allowlist.clone());
    let its = group.clone();
    let decided = run_blocking(move || folders::decide_extra_folders(&paths, place.as_ref(), &its, &groups));
    let granted = decided.await?.into_iter().filter_map(|decision| match decision.outcome {
        Ok(granted) => Some(granted),
        Err(why) => {
            tracing::warn!("A lent folder is not mounted: {why}; `nanokimi groups list` says which");
            None
        }
    });
    Ok(granted.collect())
}

async fn prepare_launch<C: Containers>(
    context: &SessionContext<C>,
    group: &Group,
    session: &EngineSession,
    daemon: DaemonUser,
) -> anyhow::Result<PreparedLaunch> {
    context.accounts.reload_if_changed(context.clock.now());
    let program = context.settings.engine_for_group(group);
    let (paths, its) = (context.paths.clone(), group.clone());
    let sessions_apart = separate_sessions_for_group(context, group, session);
    let apart = sessions_apart.clone();
    let folders = run_blocking(move || {
        folders::prepare_group_folders(&paths, &its)?;
        folders::discard_isolated_sessions(&paths, &its.name)?;
        if let Some(folder) = apart {
            folders::prepare_separate_sessions(&paths, &its, &folder)?;
        }
        let credentials = paths.agent_credentials_folder(&its.name);
        folders::replace_with_empty_folder(&paths, &its.name, &credentials)?;
        login::write_stand_in(&credentials)?;
        folders::copy_shared_files(&paths, &its.name, its.role)
    });
    let global = folders.await??;
    let model = context.settings.model_for_group(group);
    let lent = decide_lent_folders(context, group).await?;
    let spec = spec::build_container_spec(
        &spec::LaunchInputs {
            paths: &context.paths,
            install: &context.settings.install,
            run: &RunId::new(format!("{:08x}", rand::random::<u32>())),
            engine: spec::EngineSpec {
                name: program.name(),
                home: program.home_in_container(),
                config: program.config_path_in_container(),
                sessions_apart,
            },
            image: &image::agent_image_name(program),
            daemon,
            limits: context.settings.container_limits,
            time_zone: context.settings.zone.iana_name().unwrap_or("UTC"),
            assistant: &context.settings.assistant,
            model,
            session: &session.engine_id(),
            device: &context.settings.device_id,
            services: allowed_services(group, &context.accounts.usable_authorization()),
            lent: &lent,
        },
        group,
    )?;
    let models = config_toml::list_offered_models(&context.paths.engine_config_file(), model);
    let upstream = context.upstream.clone().with_models(models);
    let (tool_calls, running_turn) = tool_calls::spawn_tool_calls(context, group);
    let egress = egress::start_egress_proxy(
        &context.paths.egress_folder(&group.name),
        upstream,
        group,
        tool_calls.clone(),
    )
    .await?;
    Ok(PreparedLaunch { spec, egress, tool_calls, running_turn, global, lent })
}

/// Kimi's search and fetch belong to its plans, not to keys of the platform. They reach the whole web.
fn allowed_services(group: &Group, login: &Authorization) -> SearchServices {
    match (&group.web, login) {
        (WebPolicy::Web, Authorization::Login(_) | Authorization::Missing(_)) => SearchServices::Kimi,
        (WebPolicy::Web, Authorization::ApiKey(_)) | (WebPolicy::None | WebPolicy::Allowlist(_), _) => {
            SearchServices::None
        }
    }
}

/// The trouble behind an error that says that something is full. The kernel reports a full disk and an
/// exhausted limit of a user, such as epoll watches, with the same error. With room on the disk it can only
/// be the limit.
fn trouble_from_io_error(error: &std::io::Error, free: Option<DiskSpace>) -> Option<Trouble> {
    let is_full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    // EAGAIN from a call that never waits: no more threads, or no more kernel memory.
    let has_run_out = matches!(error.kind(), std::io::ErrorKind::WouldBlock);
    let has_room = free.is_some_and(|free| !free.is_low());
    match (is_full, has_run_out) {
        (true, _) if !has_room => Some(Trouble::NoSpace),
        (true, _) | (_, true) => Some(Trouble::SystemLimit),
        (false, false) => None,
    }
}

/// The folder in which an engine of this group has its histories.
pub fn history_folder_for_group<C: Containers>(
    context: &SessionContext<C>,
    group: &Group,
    session: &EngineSession,
) -> PathBuf {
    match separate_sessions_for_group(context, group, session) {
        Some(folder) => context.paths.separate_sessions_folder(&group.name, &folder),
        None => context.paths.sessions_folder(&group.name),
    }
}

/// The folder of one session's histories: for an engine that names its histories itself, and for the run of a
/// task, whose history is removed at the next start.
fn separate_sessions_for_group<C>(
    context: &SessionContext<C>,
    group: &Group,
    session: &EngineSession,
) -> Option<String> {
    match session {
        EngineSession::OfRun(_) => Some(ISOLATED_SESSIONS.to_owned()),
        EngineSession::OfChat(id) => {
            let apart = context.settings.engine_for_group(group).sessions_apart();
            apart.map(|folder| format!("{folder}/{id}"))
        }
    }
}

/// Logs what the engine writes to stderr, line by line. It may hold words of people: never above DEBUG.
async fn log_engine_stderr(stderr: Box<dyn tokio::io::AsyncRead + Send + Unpin>) {
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_told_from_what_the_kernel_has_no_more_of() {
        const ENOSPC: i32 = 28;
        const EDQUOT: i32 = 122;
        const EAGAIN: i32 = 11;
        const EACCES: i32 = 13;
        let plenty = Some(DiskSpace { bytes: 1 << 30, entries: 1 << 20 });
        let without_bytes = Some(DiskSpace { bytes: 4096, entries: 1 << 20 });
        let without_entries = Some(DiskSpace { bytes: 1 << 30, entries: 0 });
        for (errno, free, expected) in [
            (ENOSPC, without_bytes, Some(Trouble::NoSpace)),
            (ENOSPC, without_entries, Some(Trouble::NoSpace)),
            (EDQUOT, without_bytes, Some(Trouble::NoSpace)),
            (ENOSPC, None, Some(Trouble::NoSpace)),
            (ENOSPC, plenty, Some(Trouble::SystemLimit)),
            (EDQUOT, plenty, Some(Trouble::SystemLimit)),
            (EAGAIN, plenty, Some(Trouble::SystemLimit)),
            (EACCES, plenty, None),
            (EACCES, without_bytes, None),
        ] {
            assert_eq!(
                trouble_from_io_error(&io::Error::from_raw_os_error(errno), free),
                expected,
                "{errno} {free:?}"
            );
        }
    }
}
