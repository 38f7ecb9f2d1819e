//! Docker as the person has it: where its socket is, what it can enforce, and launching containers on it.
//!
//! Owns the one client, the hardening of every container and the way from Docker's errors to a [`Failure`].
//! Never decides what a container may see: that is `spec`'s.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount as DockerMount, MountType, ResourcesUlimits,
    SystemInfo, SystemInfoCgroupDriverEnum,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::future::{FutureExt, join_all};
use futures_util::stream::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};

use super::command::run_in_container;
use super::spec::{ContainerSpec, DaemonUser, HOME, MountAccess};
use super::{
    AgentMemory, CommandResult, ContainerExit, Containers, RunningContainer, ShellCommand, memory, seccomp,
};
use crate::panics::run_blocking;
use crate::types::{Failure, GroupName, InstallId, Trouble};

/// Longest wait for the daemon's answer, in seconds: a small server under load creates a container slowly; a
/// daemon that says nothing for longer hangs.
const ANSWER_TIMEOUT_SECS: u64 = 60;
/// Bytes of each pipe between a container and the session. A side that is ahead waits.
const PIPE_BYTES: usize = 64 * 1024;
/// How much of a container's diagnostics is read in a second: hundreds of times what an engine writes. After
/// that nothing of the container is read until the second is over, so that its diagnostics cannot keep Docker
/// and us busy.
const STDERR_BYTES_PER_SECOND: usize = 1024 * 1024;
/// One processor in the kernel's scheduler: a quota of this many microseconds in each such period.
const CPU_PERIOD_MICROS: i64 = 100_000;
/// Room for the agent's temporary files. Programs may be run from here: builds do that.
/// Files are bounded in number as well: each takes a kilobyte of the kernel's memory, however small it is.
const TMP_OPTIONS: &str = "rw,exec,nosuid,nodev,size=128m,nr_inodes=64k,mode=1777";
/// Room for caches and settings in the home, and for the engine's own files.
const HOME_OPTIONS: &str = "rw,noexec,nosuid,nodev,size=64m,nr_inodes=16k,mode=0700";
/// Memory that programs share by files; Docker's own default is 64 MB and any number of files.
const SHM_OPTIONS: &str = "rw,noexec,nosuid,nodev,size=16m,nr_inodes=1k,mode=1777";
/// When memory runs out, the kernel ends an agent before anything else that has less than this many
/// thousandths of the machine's memory more than it, such as Docker or the service. An agent may take that
/// back to 0, not below.
const OOM_SCORE_ADJ: i64 = 800;
/// The name of every container for those inside; the engine shows it to the Kimi API as the device's name.
const HOST_NAME: &str = "nanokimi";

const INSTALL_LABEL: &str = "nanokimi.install";
const RUN_LABEL: &str = "nanokimi.run";
const GROUP_LABEL: &str = "nanokimi.group";

/// The Docker daemon behind one socket. Each request makes its own connection, so a restarted daemon is found
/// again.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: PathBuf,
    /// The user that the daemon works as, once it has said so.
    rights: Arc<OnceCell<DaemonRights>>,
}

/// What matters about a daemon, for `doctor` and for making specs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonFacts {
    pub version: String,
    /// Where images and containers lie: the disk that must have room.
    pub data_root: PathBuf,
    pub rights: DaemonRights,
    pub limits: EnforcedLimits,
}

/// The user that the daemon works as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonRights {
    /// As the person themselves.
    Rootless,
    /// As root: a program that reaches its socket is root.
    Rootful,
}

/// Whether the limits on memory, processor and processes are enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnforcedLimits {
    All,
    /// The daemon accepts these and ignores them: `memory`, `processes`, `processor`.
    AllBut(Vec<&'static str>),
}

impl Docker {
    /// The daemon at `docker_host` (`DOCKER_HOST`), else at `docker.sock` in `runtime_dir`
    /// (`XDG_RUNTIME_DIR`), whether it answers or not.
    ///
    /// No version of the protocol is negotiated: bollard 0.21 never sends one, and a daemon then takes its
    /// own newest. Our requests have been the same since 1.41 (Docker 20.10).
    ///
    /// # Errors
    /// `docker_host` is not a unix socket.
    pub fn for_docker_host(docker_host: Option<&str>, runtime_dir: Option<&Path>) -> Result<Self> {
        Ok(Self { socket: resolve_docker_socket(docker_host, runtime_dir)?, rights: Arc::default() })
    }

    /// As [`Docker::for_docker_host`], when it answers.
    ///
    /// # Errors
    /// `docker_host` is not a unix socket, or nothing answers.
    pub async fn connect_and_ping(docker_host: Option<&str>, runtime_dir: Option<&Path>) -> Result<Self> {
        let docker = Self::for_docker_host(docker_host, runtime_dir)?;
        docker.ping_docker().await?;
        Ok(docker)
    }

    /// The ids of all containers that carry these labels.
    async fn list_container_ids(&self, labels: Vec<String>) -> Result<Vec<String>> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self
            .new_api_client()?
            .list_containers(Some(options))
            .await
            .context("Failed to list the containers")?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    /// Where it listens.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// What the daemon says about itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn fetch_daemon_facts(&self) -> Result<DaemonFacts> {
        let info = self.new_api_client()?.info().await.context("Failed to ask Docker about itself")?;
        Ok(parse_daemon_facts(info))
    }

    /// Whether this image is there, by its name with tag.
    ///
    /// # Errors
    /// Docker does not answer.
    pub async fn has_image(&self, name: &str) -> Result<bool> {
        match self.new_api_client()?.inspect_image(name).await {
            Ok(_) => Ok(true),
            Err(error) if response_status(&error) == Some(404) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("Failed to look for the image {name}")),
        }
    }

    /// For `image`, which speaks with Docker too.
    pub(super) fn new_api_client(&self) -> std::result::Result<bollard::Docker, Error> {
        // It makes no connection, but looks whether the socket is there.
        let (socket, version) = (self.socket.to_string_lossy(), bollard::API_DEFAULT_VERSION);
        bollard::Docker::connect_with_unix(&socket, ANSWER_TIMEOUT_SECS, version)
    }

    async fn attach_and_start(&self, spec: &ContainerSpec) -> std::result::Result<RunningContainer, Error> {
        let wait = WaitContainerOptionsBuilder::default().condition("next-exit").build();
        // Asked for before the start, so that not even the shortest run is missed.
        let client = self.new_api_client()?;
        let mut ends = Box::pin(client.wait_container(&spec.name, Some(wait)));
        let ended =
            tokio::spawn(async move { ends.next().await.map_or(ContainerExit::Unknown, exit_from_wait) });
        let attach =
            AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true);
        let started = async {
            let attached = client.attach_container(&spec.name, Some(attach.build())).await?;
            client.start_container(&spec.name, None).await?;
            Ok(attached)
        };
        let attached = match started.await {
            Ok(attached) => attached,
            Err(error) => {
                ended.abort();
                return Err(error);
            }
        };
        let (stdin, stdin_far) = tokio::io::duplex(PIPE_BYTES);
        let (stdout_far, stdout) = tokio::io::duplex(PIPE_BYTES);
        let (stderr_far, stderr) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(copy_to_stdin(stdin_far, attached.input));
        tokio::spawn(split_container_output(attached.output, stdout_far, stderr_far));
        Ok(RunningContainer {
            name: spec.name.clone(),
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit: Box::pin(ended.map(|exit| exit.unwrap_or(ContainerExit::Unknown))),
        })
    }
}

impl Containers for Docker {
    async fn ping_docker(&self) -> Result<()> {
        let answer = async { self.new_api_client()?.version().await };
        answer.await.with_context(|| format!("Docker does not answer at {}", self.socket.display())).map(drop)
    }

    async fn fetch_daemon_user(&self) -> Result<DaemonUser> {
        let rights = self
            .rights
            .get_or_try_init(|| async { Ok::<_, anyhow::Error>(self.fetch_daemon_facts().await?.rights) });
        Ok(match rights.await? {
            DaemonRights::Rootless => DaemonUser::Rootless,
            DaemonRights::Rootful => DaemonUser::Rootful {
                uid: rustix::process::getuid().as_raw(),
                gid: rustix::process::getgid().as_raw(),
            },
        })
    }

    async fn run_command(&self, container: &str, command: &ShellCommand) -> Result<CommandResult> {
        run_in_container(&self.new_api_client()?, container, command).await
    }

    async fn measure_group_memory(&self, groups: Vec<(GroupName, PathBuf)>) -> AgentMemory {
        run_blocking(move || memory::measure_agent_memory(&groups)).await.unwrap_or_default()
    }

    async fn launch_container(&self, spec: &ContainerSpec) -> std::result::Result<RunningContainer, Failure> {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let created = async {
            self.new_api_client()?.create_container(Some(options), container_create_body(spec)).await
        }
        .await;
        let created = created.map_err(|error| launch_failure(&error, LaunchStep::Create))?;
        for warning in created.warnings {
            tracing::debug!(container = spec.name, warning, "Docker has a remark on a container");
        }
        match self.attach_and_start(spec).await {
            Ok(running) => Ok(running),
            Err(error) => {
                if let Err(left) = self.remove_container(&spec.name).await {
                    tracing::warn!(
                        container = spec.name,
                        "A container that did not start is still there: {left:#}"
                    );
                }
                Err(launch_failure(&error, LaunchStep::Start))
            }
        }
    }

    async fn remove_container(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.new_api_client()?.remove_container(name, Some(options)).await {
            // Gone already, or being removed by Docker itself because it has ended.
            Err(error) if matches!(response_status(&error), Some(404 | 409)) => Ok(()),
            other => other.with_context(|| format!("Failed to remove the container {name}")),
        }
    }

    async fn remove_containers_of_group(&self, install: &InstallId, group: &GroupName) -> Result<()> {
        let labels = [format!("{INSTALL_LABEL}={install}"), format!("{GROUP_LABEL}={group}")];
        let ids = self.list_container_ids(labels.to_vec()).await?;
        join_all(ids.iter().map(|id| self.remove_container(id))).await.into_iter().collect()
    }

    async fn remove_install_containers(&self, install: &InstallId) -> Result<usize> {
        let ids = self.list_container_ids(vec![format!("{INSTALL_LABEL}={install}")]).await?;
        let outcomes = join_all(ids.iter().map(|id| self.remove_container(id))).await;
        let mut removed = 0;
        for outcome in outcomes {
            match outcome {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!("A container of an earlier run is still there: {error:#}"),
            }
        }
        Ok(removed)
    }
}

fn resolve_docker_socket(docker_host: Option<&str>, runtime_dir: Option<&Path>) -> Result<PathBuf> {
    match (docker_host, runtime_dir) {
        (Some(host), _) => match host.strip_prefix("unix://") {
            Some(path) if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
            Some(_) | None => bail!(
                "DOCKER_HOST is {host:?}, but nanokimi needs the Docker of this machine; \
                 set it to unix:///path/to/docker.sock, or leave it out"
            ),
        },
        (None, Some(dir)) => Ok(dir.join("docker.sock")),
        (None, None) => bail!(
            "Neither DOCKER_HOST nor XDG_RUNTIME_DIR is set, so Docker's socket cannot be found; \
             log in as yourself (not by su or sudo), or set DOCKER_HOST=unix:///path/to/docker.sock"
        ),
    }
}

fn parse_daemon_facts(info: SystemInfo) -> DaemonFacts {
    let options = info.security_options.unwrap_or_default();
    let rootless = options.iter().any(|option| option.split(',').any(|part| part == "name=rootless"));
    let cgroups = !matches!(
        info.cgroup_driver,
        None | Some(SystemInfoCgroupDriverEnum::NONE | SystemInfoCgroupDriverEnum::EMPTY)
    );
    let ignored: Vec<&'static str> =
        [("memory", info.memory_limit), ("processes", info.pids_limit), ("processor", info.cpu_cfs_quota)]
            .into_iter()
            .filter(|(_, holds)| !cgroups || *holds != Some(true))
            .map(|(what, _)| what)
            .collect();
    DaemonFacts {
        version: info.server_version.unwrap_or_default(),
        data_root: info.docker_root_dir.unwrap_or_default().into(),
        rights: if rootless { DaemonRights::Rootless } else { DaemonRights::Rootful },
        limits: if ignored.is_empty() { EnforcedLimits::All } else { EnforcedLimits::AllBut(ignored) },
    }
}

/// The request that creates a container, hardened on every launch.
fn container_create_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let labels = [
        (INSTALL_LABEL, spec.install.as_str()),
        (RUN_LABEL, spec.run.as_str()),
        (GROUP_LABEL, spec.group.as_str()),
    ];
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(HOST_NAME.to_owned()),
        user: Some(format!("{}:{}", spec.uid, spec.gid)),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        open_stdin: Some(true),
        // Our closing of stdin is the container's end of input.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        host_config: Some(container_host_config(spec)),
        ..ContainerCreateBody::default()
    }
}

fn container_host_config(spec: &ContainerSpec) -> HostConfig {
    let limits = &spec.limits;
    let own_home = format!("{HOME_OPTIONS},uid={},gid={}", spec.uid, spec.gid);
    let tmpfs = [
        ("/tmp", TMP_OPTIONS),
        ("/dev/shm", SHM_OPTIONS),
        (HOME, &own_home),
        (spec.engine_home.as_str(), &own_home),
    ];
    HostConfig {
        auto_remove: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec![
            "no-new-privileges".to_owned(),
            seccomp::seccomp_security_option().to_owned(),
        ]),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        readonly_rootfs: Some(true),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        // The agent-runner is the first process and reaps by itself.
        init: Some(false),
        // The conversation passes through stdout; it must not stay in Docker's logs.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        mounts: Some(spec.mounts.iter().map(docker_bind_mount).collect()),
        tmpfs: Some(tmpfs.map(|(at, options)| (at.to_owned(), options.to_owned())).into()),
        memory: Some(limits.memory_bytes),
        // The same figure again: no swap on top of it.
        memory_swap: Some(limits.memory_bytes),
        // As a quota: without cgroups Docker refuses `NanoCpus`, and merely ignores a quota.
        cpu_period: Some(CPU_PERIOD_MICROS),
        cpu_quota: Some(limits.cpus_milli * CPU_PERIOD_MICROS / 1000),
        pids_limit: Some(limits.pids),
        ulimits: Some(vec![
            docker_ulimit("nofile", limits.open_files),
            docker_ulimit("nproc", limits.threads_of_person),
            docker_ulimit("fsize", limits.file_bytes),
            docker_ulimit("sigpending", limits.signals_of_person),
            // A crash of the engine would otherwise fill the group's folder with its memory.
            docker_ulimit("core", 0),
        ]),
        ..HostConfig::default()
    }
}

fn docker_bind_mount(mount: &super::spec::ContainerMount) -> DockerMount {
    DockerMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host.to_string_lossy().into_owned()),
        target: Some(mount.container.clone()),
        read_only: Some(mount.access == MountAccess::ReadOnly),
        ..DockerMount::default()
    }
}

fn docker_ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) }
}

/// Carries what is written to the container's stdin. Dropping or shutting down the other end closes it.
async fn copy_to_stdin(mut from: DuplexStream, mut to: impl AsyncWrite + Unpin) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!("A container took no more input: {error}");
    }
    // Fails only when the container is gone, and then there is nothing to close.
    to.shutdown().await.ok();
}

/// Sorts what the container prints into its two pipes, until both end with the container.
async fn split_container_output(
    mut output: impl Stream<Item = std::result::Result<LogOutput, Error>> + Unpin,
    mut stdout: DuplexStream,
    mut stderr: DuplexStream,
) {
    let (mut second, mut heard_bytes) = (Instant::now(), 0);
    while let Some(frame) = output.next().await {
        match frame {
            // A reader that has gone away wants nothing more; the container must not wait for it.
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                stdout.write_all(&message).await.ok();
            }
            // Never waited for: diagnostics that nobody reads must not hold up the conversation. Only a flood
            // of them does.
            Ok(LogOutput::StdErr { message }) => {
                stderr.write_all(&message).now_or_never();
                if second.elapsed() >= Duration::from_secs(1) {
                    (second, heard_bytes) = (Instant::now(), 0);
                }
                heard_bytes += message.len();
                if heard_bytes >= STDERR_BYTES_PER_SECOND {
                    sleep_until(second + Duration::from_secs(1)).await;
                }
            }
            Ok(LogOutput::StdIn { .. }) => {}
            Err(error) => {
                tracing::debug!("The connection to a container broke: {error}");
                break;
            }
        }
    }
}

fn exit_from_wait(
    ended: std::result::Result<bollard::models::ContainerWaitResponse, Error>,
) -> ContainerExit {
    match ended {
        Ok(end) => ContainerExit::Code(end.status_code),
        // bollard's way to report any code but 0.
        Err(Error::DockerContainerWaitError { code, .. }) => ContainerExit::Code(code),
        Err(error) => {
            tracing::debug!("Docker could not tell how a container ended: {error}");
            ContainerExit::Unknown
        }
    }
}

/// Which of the two steps of a launch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaunchStep {
    Create,
    Start,
}

fn launch_failure(error: &Error, at: LaunchStep) -> Failure {
    let trouble = if is_docker_unreachable(error) {
        Trouble::NoDocker
    } else if is_system_limit_message(&error.to_string()) {
        Trouble::SystemLimit
    } else if is_disk_full_message(&error.to_string()) {
        Trouble::NoSpace
    } else if at == LaunchStep::Create && response_status(error) == Some(404) {
        Trouble::NoImage
    } else {
        Trouble::LaunchFailed
    };
    Failure::new(trouble, error.to_string())
}

/// Docker's HTTP status, if it answered.
pub(super) fn response_status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error { Some(*status_code) } else { None }
}

/// Whether Docker did not answer at all, or went away while answering.
fn is_docker_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// Whether the words mean that the kernel has run out of something that it limits per user. The kernel uses
/// the same words for a full disk, but the call that failed is another.
fn is_system_limit_message(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    let calls =
        ["epoll", "inotify", "accept", "keyring", "resource temporarily unavailable", "too many open files"];
    calls.iter().any(|sign| words.contains(sign))
}

/// Whether the words of Docker, or of a program in a build, mean a full disk.
pub(super) fn is_disk_full_message(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["no space left on device", "disk quota exceeded", "not enough free space"]
        .iter()
        .any(|sign| words.contains(sign))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    use super::*;
    use crate::container::spec::{ContainerLimits, ContainerMount};
    use crate::types::{GroupName, RunId};

    fn a_spec() -> ContainerSpec {
        ContainerSpec {
            name: "nanokimi-family-7".to_owned(),
            image: "nanokimi-agent:1".to_owned(),
            group: GroupName::parse("family").unwrap(),
            install: InstallId::new("in"),
            run: RunId::new("7"),
            uid: 1000,
            gid: 100,
            engine_home: "/home/node/.engine".to_owned(),
            env: vec![("TZ".to_owned(), "UTC".to_owned())],
            mounts: vec![ContainerMount {
                host: "/srv/k/groups/global".into(),
                container: "/workspace/global".to_owned(),
                access: MountAccess::ReadOnly,
            }],
            limits: ContainerLimits::STANDARD,
        }
    }

    fn answered(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn the_socket_is_found_or_the_person_is_told_how_to_name_it() {
        let run = Path::new("/run/user/1000");
        let found = |host, dir| resolve_docker_socket(host, dir).map_err(|error| error.to_string());
        assert_eq!(found(Some("unix:///a/d.sock"), Some(run)), Ok("/a/d.sock".into()));
        assert_eq!(found(None, Some(run)), Ok("/run/user/1000/docker.sock".into()));
        for host in ["tcp://10.0.0.1:2375", "ssh://me@there", "unix://d.sock", "/a/d.sock", ""] {
            assert!(found(Some(host), Some(run)).unwrap_err().contains("DOCKER_HOST is"), "{host:?}");
        }
        assert!(found(None, None).unwrap_err().contains("Neither DOCKER_HOST nor XDG_RUNTIME_DIR"));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Docker::connect_and_ping(None, Some(folder.path())).await.unwrap_err().to_string();
        assert!(nowhere.contains(folder.path().to_str().unwrap()), "{nowhere}");

        let host = format!("unix://{}/left-over.sock", folder.path().display());
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("left-over.sock")).unwrap());
        let silent = Docker::connect_and_ping(Some(&host), None).await.unwrap_err().to_string();
        assert!(silent.contains("left-over.sock"), "{silent}");
    }

    #[tokio::test]
    async fn a_daemon_that_went_away_is_told_from_a_bad_launch() {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let daemon = async move {
            let (mut visitor, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            assert!(visitor.read(&mut asked).await.unwrap() > 0);
            let version = "{\"ApiVersion\":\"1.41\"}";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{version}", version.len());
            visitor.write_all(answer.as_bytes()).await.unwrap();
        };
        let (docker, ()) = tokio::join!(Docker::connect_and_ping(None, Some(folder.path())), daemon);
        let docker = docker.unwrap();
        assert_eq!(docker.launch_container(&a_spec()).await.err().unwrap().trouble, Trouble::NoDocker);
        assert!(docker.remove_container("nanokimi-family-7").await.is_err());
        assert!(docker.remove_install_containers(&InstallId::new("in")).await.is_err());
        let group = GroupName::parse("family").unwrap();
        assert!(docker.remove_containers_of_group(&InstallId::new("in"), &group).await.is_err());
    }

    #[test]
    fn limits_count_only_where_the_daemon_enforces_them() {
        let info = |driver, memory| SystemInfo {
            cgroup_driver: Some(driver),
            memory_limit: Some(memory),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(true),
            security_options: Some(vec!["name=seccomp,profile=default".into(), "name=rootless".into()]),
            ..SystemInfo::default()
        };
        assert_eq!(
            parse_daemon_facts(info(SystemInfoCgroupDriverEnum::SYSTEMD, true)).limits,
            EnforcedLimits::All
        );
        assert_eq!(
            parse_daemon_facts(info(SystemInfoCgroupDriverEnum::SYSTEMD, false)).limits,
            EnforcedLimits::AllBut(vec!["memory"])
        );
        assert_eq!(
            parse_daemon_facts(info(SystemInfoCgroupDriverEnum::NONE, true)).limits,
            EnforcedLimits::AllBut(vec!["memory", "processes", "processor"])
        );
        assert_eq!(
            parse_daemon_facts(info(SystemInfoCgroupDriverEnum::SYSTEMD, true)).rights,
            DaemonRights::Rootless
        );
        assert_eq!(parse_daemon_facts(SystemInfo::default()).rights, DaemonRights::Rootful);
    }

    #[test]
    fn every_container_is_asked_for_with_the_whole_hardening() {
        let mut asked = serde_json::to_value(container_create_body(&a_spec())).unwrap();
        assert_eq!(asked["HostConfig"]["SecurityOpt"][1], seccomp::seccomp_security_option());
        asked["HostConfig"]["SecurityOpt"][1] = "seccomp=…".into();
        asked.sort_all_objects();
        let asked = serde_json::to_string_pretty(&asked).unwrap();
        insta::assert_snapshot!(asked, @r#"
        {
          "AttachStderr": true,
          "AttachStdin": true,
          "AttachStdout": true,
          "Env": [
            "TZ=UTC"
          ],
          "HostConfig": {
            "AutoRemove": true,
            "CapDrop": [
              "ALL"
            ],
            "CpuPeriod": 100000,
            "CpuQuota": 100000,
            "Init": false,
            "IpcMode": "private",
            "LogConfig": {
              "Type": "none"
            },
            "Memory": 805306368,
            "MemorySwap": 805306368,
            "Mounts": [
              {
                "ReadOnly": true,
                "Source": "/srv/k/groups/global",
                "Target": "/workspace/global",
                "Type": "bind"
              }
            ],
            "NetworkMode": "none",
            "OomScoreAdj": 800,
            "PidsLimit": 256,
            "ReadonlyRootfs": true,
            "SecurityOpt": [
              "no-new-privileges",
              "seccomp=…"
            ],
            "Tmpfs": {
              "/dev/shm": "rw,noexec,nosuid,nodev,size=16m,nr_inodes=1k,mode=1777",
              "/home/node": "rw,noexec,nosuid,nodev,size=64m,nr_inodes=16k,mode=0700,uid=1000,gid=100",
              "/home/node/.engine": "rw,noexec,nosuid,nodev,size=64m,nr_inodes=16k,mode=0700,uid=1000,gid=100",
              "/tmp": "rw,exec,nosuid,nodev,size=128m,nr_inodes=64k,mode=1777"
            },
            "Ulimits": [
              {
                "Hard": 4096,
                "Name": "nofile",
                "Soft": 4096
              },
              {
                "Hard": 1024,
                "Name": "nproc",
                "Soft": 1024
              },
              {
                "Hard": 1073741824,
                "Name": "fsize",
                "Soft": 1073741824
              },
              {
                "Hard": 1024,
                "Name": "sigpending",
                "Soft": 1024
              },
              {
                "Hard": 0,
                "Name": "core",
                "Soft": 0
              }
            ]
          },
          "Hostname": "nanokimi",
          "Image": "nanokimi-agent:1",
          "Labels": {
            "nanokimi.group": "family",
            "nanokimi.install": "in",
            "nanokimi.run": "7"
          },
          "OpenStdin": true,
          "StdinOnce": true,
          "Tty": false,
          "User": "1000:100"
        }
        "#);
    }

    #[test]
    fn what_docker_says_becomes_what_a_person_can_act_on() {
        let io = |kind: std::io::ErrorKind| Error::IOError { err: kind.into() };
        let table = [
            (io(std::io::ErrorKind::BrokenPipe), LaunchStep::Start, Trouble::NoDocker),
            (Error::RequestTimeoutError, LaunchStep::Create, Trouble::NoDocker),
            (answered(404, "No such image: nanokimi-agent:1"), LaunchStep::Create, Trouble::NoImage),
            (answered(404, "No such container: x"), LaunchStep::Start, Trouble::LaunchFailed),
            (answered(500, "write /x: no space left on device"), LaunchStep::Create, Trouble::NoSpace),
            (answered(500, "mkdir /x/overlay2/1: disk quota exceeded"), LaunchStep::Create, Trouble::NoSpace),
            (
                answered(500, "accept unix /run/docker.sock: no space left on device"),
                LaunchStep::Create,
                Trouble::SystemLimit,
            ),
            (answered(500, "epoll_ctl: no space left on device"), LaunchStep::Start, Trouble::SystemLimit),
            (
                answered(
                    500,
                    "runc: unable to join session keyring: unable to create session key: disk quota exceeded",
                ),
                LaunchStep::Start,
                Trouble::SystemLimit,
            ),
            (
                answered(500, "failed to create fsnotify watcher: inotify_init1: too many open files"),
                LaunchStep::Start,
                Trouble::SystemLimit,
            ),
            (
                answered(500, "fork/exec /usr/bin/runc: resource temporarily unavailable"),
                LaunchStep::Start,
                Trouble::SystemLimit,
            ),
            (
                answered(400, "bind source path does not exist: /srv"),
                LaunchStep::Create,
                Trouble::LaunchFailed,
            ),
        ];
        for (error, at, trouble) in table {
            assert_eq!(launch_failure(&error, at).trouble, trouble, "{error}");
        }
    }

    #[test]
    fn any_exit_code_is_told_and_a_lost_daemon_is_not_a_code() {
        let response = |code| bollard::models::ContainerWaitResponse { status_code: code, error: None };
        assert_eq!(exit_from_wait(Ok(response(0))), ContainerExit::Code(0));
        assert_eq!(
            exit_from_wait(Err(Error::DockerContainerWaitError { error: String::new(), code: 137 })),
            ContainerExit::Code(137)
        );
        assert_eq!(exit_from_wait(Err(answered(404, "No such container"))), ContainerExit::Unknown);
    }

    #[tokio::test]
    async fn output_is_sorted_and_unread_diagnostics_hold_up_nothing() {
        let out = |text: &'static str| Ok(LogOutput::StdOut { message: Bytes::from(text) });
        let flood = Bytes::from(vec![b'e'; 4 * PIPE_BYTES]);
        let frames = vec![out("{\"a\""), Ok(LogOutput::StdErr { message: flood }), out(":1}\n")];
        let (stdout_far, mut stdout) = tokio::io::duplex(PIPE_BYTES);
        let (stderr_far, mut stderr) = tokio::io::duplex(PIPE_BYTES);

        split_container_output(stream::iter(frames), stdout_far, stderr_far).await;

        let (mut said, mut grumbled) = (String::new(), Vec::new());
        stdout.read_to_string(&mut said).await.unwrap();
        stderr.read_to_end(&mut grumbled).await.unwrap();
        assert_eq!(said, "{\"a\":1}\n");
        assert_eq!(grumbled.len(), PIPE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_diagnostics_is_read_at_a_pace_and_the_conversation_goes_on() {
        let grumble = || Ok(LogOutput::StdErr { message: Bytes::from(vec![b'e'; 32 * 1024]) });
        let out = || Ok(LogOutput::StdOut { message: Bytes::from("{}\n") });
        // 10 MB, with a line every MB.
        let frames = (0..320).map(move |number| if number % 32 == 0 { out() } else { grumble() });
        let (stdout_far, stdout) = tokio::io::duplex(PIPE_BYTES);
        let (stderr_far, _unread) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(split_container_output(stream::iter(frames), stdout_far, stderr_far));

        let mut lines = tokio::io::BufReader::new(stdout).lines();
        let mut before = Instant::now();
        let began = before;
        let mut heard = 0;
        while lines.next_line().await.unwrap().is_some() {
            assert!(before.elapsed() <= Duration::from_millis(1_100), "{:?}", before.elapsed());
            before = Instant::now();
            heard += 1;
        }
        assert_eq!((heard, began.elapsed().as_secs()), (10, 9));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_engine_usually_writes_waits_for_nothing() {
        let began = Instant::now();
        let frames = (0..30).map(|_| Ok(LogOutput::StdErr { message: Bytes::from(vec![b'e'; 32 * 1024]) }));
        let (stdout_far, _stdout) = tokio::io::duplex(PIPE_BYTES);
        let (stderr_far, _stderr) = tokio::io::duplex(PIPE_BYTES);
        split_container_output(stream::iter(frames), stdout_far, stderr_far).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn dropping_stdin_closes_it_for_the_container() {
        let (mut stdin, stdin_far) = tokio::io::duplex(PIPE_BYTES);
        let (input, mut container) = tokio::io::duplex(PIPE_BYTES);
        let passing = tokio::spawn(copy_to_stdin(stdin_far, input));
        stdin.write_all(b"hello").await.unwrap();
        drop(stdin);
        let mut read = String::new();
        container.read_to_string(&mut read).await.unwrap();
        passing.await.unwrap();
        assert_eq!(read, "hello");
    }
}
