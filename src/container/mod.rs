//! Rootless Docker: the only module that speaks to it (through bollard, in `docker` and `image`).
//!
//! `spec` decides, purely, what a group's container may see and do, and `seccomp` what it may ask of the
//! kernel. `docker` launches it. `processes` reads what the processes inside hold, and `memory` how much of
//! the machine's memory. `image` builds the agent image. `command` runs a command in a running container.
//! [`Containers`] is the seam: real Docker here, a scripted engine in the story tests.

mod command;
pub mod docker;
pub mod image;
pub mod memory;
pub mod processes;
pub mod seccomp;
pub mod spec;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::{AgentMemory, MemoryPressure};
pub use spec::{ContainerSpec, DaemonUser};

use crate::rules::tasks::CommandEnd;
use crate::types::{Failure, GroupName, InstallId};

/// How much is kept of what a command prints.
pub const COMMAND_OUTPUT_MAX_BYTES: usize = 8 * 1024;

/// Launches and removes containers.
pub trait Containers: Clone + Send + Sync + 'static {
    /// Whether Docker answers now.
    fn ping_docker(&self) -> impl Future<Output = Result<()>> + Send;

    /// The user that containers run as here.
    fn fetch_daemon_user(&self) -> impl Future<Output = Result<DaemonUser>> + Send;

    /// Creates, attaches to and starts a container. It runs when this returns. A launch that is dropped
    /// halfway may leave its container: remove it by the spec's name.
    fn launch_container(
        &self,
        spec: &ContainerSpec,
    ) -> impl Future<Output = Result<RunningContainer, Failure>> + Send;

    /// Runs a command in a running container: in the group's folder, as the container's user and within its
    /// limits.
    ///
    /// # Errors
    /// Docker does not answer, or the container is gone.
    fn run_command(
        &self,
        container: &str,
        command: &ShellCommand,
    ) -> impl Future<Output = Result<CommandResult>> + Send;

    /// What the containers of these groups hold of the machine's memory. `groups` are their names and their
    /// folders.
    fn measure_group_memory(
        &self,
        groups: Vec<(GroupName, PathBuf)>,
    ) -> impl Future<Output = AgentMemory> + Send;

    /// Kills and removes a container. If it is gone already, that is a success.
    fn remove_container(&self, name: &str) -> impl Future<Output = Result<()>> + Send;

    /// Kills and removes every container of a group. If there is no container, that is a success.
    fn remove_containers_of_group(
        &self,
        install: &InstallId,
        group: &GroupName,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Removes every container that carries this install's label, and returns how many. One that resists does
    /// not keep the others.
    fn remove_install_containers(&self, install: &InstallId) -> impl Future<Output = Result<usize>> + Send;
}

/// A running container, held by its three pipes. Dropping it does not stop it: see
/// [`Containers::remove_container`].
pub struct RunningContainer {
    pub name: String,
    /// Dropping or shutting it down closes the container's stdin.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Diagnostics. What nobody reads is dropped and holds up nothing.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Resolves when the container has ended.
    pub exit: Pin<Box<dyn Future<Output = ContainerExit> + Send>>,
}

/// A command for the shell of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellCommand {
    pub line: String,
    /// How long it may take; then it is killed.
    pub limit: Duration,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    pub end: CommandEnd,
    /// The beginning of what it printed to stdout, at most [`COMMAND_OUTPUT_MAX_BYTES`].
    pub output: String,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerExit {
    Code(i64),
    /// Docker could not say.
    Unknown,
}
