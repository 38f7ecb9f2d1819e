//! Rootless Docker: the only module that speaks to it (through bollard, in `docker` and `image`).
//!
//! `spec` decides, purely, what a group's container may see and do, and `seccomp` what it may ask of the
//! kernel. `docker` launches it. `processes` reads what the processes inside hold, and `memory` how much of
//! the machine's memory. `image` builds the agent image. [`Containers`] is the seam: real Docker here, a
//! scripted engine in the story tests.

pub mod docker;
pub mod image;
pub mod memory;
pub mod processes;
pub mod seccomp;
pub mod spec;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::{AgentMemory, MemoryPressure};
pub use spec::{ContainerSpec, DaemonUser};

use crate::types::{Failure, GroupName, InstallId};

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

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerExit {
    Code(i64),
    /// Docker could not say.
    Unknown,
}
