//! The command of a task while it runs in the container, in a task of its own: the session goes on with what
//! happens meanwhile.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Instrument;

use crate::container::{CommandResult, Containers, ShellCommand};
use crate::store::Claim;
use crate::types::Group;

/// How much longer than the command Docker may take. Then its end is unknown.
const DOCKER_GRACE: Duration = Duration::from_secs(30);

/// A command that runs.
pub struct RunningCondition {
    /// The run that waits for it.
    pub claim: Claim,
    pub group: Group,
    pub result: oneshot::Receiver<Result<CommandResult>>,
}

impl RunningCondition {
    /// Resolves, once, when the command has ended; never without a command.
    pub async fn wait_for_result(running: &mut Option<Self>) -> Result<CommandResult> {
        match running {
            Some(running) => (&mut running.result).await.context("The command was not waited for").flatten(),
            None => std::future::pending().await,
        }
    }
}

/// Runs a command in a container; its result comes unless nobody waits for it any more.
pub fn spawn_command<C: Containers>(
    containers: C,
    container: String,
    command: ShellCommand,
) -> oneshot::Receiver<Result<CommandResult>> {
    let (sender, result) = oneshot::channel();
    let run = async move {
        let run = timeout(command.limit + DOCKER_GRACE, containers.run_command(&container, &command));
        let result = run.await.context("Docker does not tell how a command ended").flatten();
        // A turn that has ended meanwhile needs it no more.
        sender.send(result).ok();
    };
    tokio::spawn(run.in_current_span());
    result
}
