//! `nanokimi run`: the service in the foreground, with WhatsApp, until it is asked to stop or only a person can help.

use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::oneshot;

use super::install::{self, Install};
use super::systemd::{News, Supervisor};
use super::{auth, exit, log};
use crate::bridge;
use crate::bridge::whatsapp::Task;
use crate::container::docker::Docker;
use crate::service::{self, Ended, Reach};
use crate::session::Host;
use crate::types::{Group, Role};

/// More open files than any number of agents needs.
const FILES_MAX: u64 = 65_536;

pub async fn run(install: &Install) -> Result<ExitCode> {
    log::start(&install.config.log_level);
    allow_more_files();
    let docker = install.docker_for_service().await?;
    let _lock = install.lock("run")?;
    let store = install.store()?;
    let groups = store.groups().await?;
    let is_linked = install.whatsapp().is_linked().await?;
    if !is_linked && needs_a_link(&groups) {
        return Ok(auth::ended(Some(&store), install).await?.tell());
    }
    if !groups.iter().any(|group| group.role == Role::Main) {
        tracing::warn!("There is no main channel; `nanokimi setup` makes it");
    }
    let (bridge_end, end) = bridge::pair();
    let host = install.host(docker, store, end.orders.clone()).await?;
    let ended = if is_linked {
        with_whatsapp(install, host, bridge_end, end).await?
    } else {
        tracing::warn!(
            "WhatsApp is not linked: messages come only from `nanokimi chat`, which needs this service stopped. \
             `nanokimi auth` links it"
        );
        serve(install, host, end, Reach::Nothing, std::future::pending()).await?
    };
    Ok(match ended {
        Ended::Asked => ExitCode::SUCCESS,
        Ended::Link(link) => {
            let end = exit::of_link(&link, &install.config.zone);
            end.context("Failed to keep the link to WhatsApp")?.tell()
        }
    })
}

/// Each connection of an agent to its door, and on to the web, is an open file. The usual limit is low for the sake of
/// programs that this one is none of (those that call `select`).
fn allow_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit })
    {
        tracing::warn!("Failed to allow more open files: {error}");
    }
}

/// Whether there is nothing to do without WhatsApp. An install whose groups are all at the terminal may run.
fn needs_a_link(groups: &[Group]) -> bool {
    groups.is_empty() || groups.iter().any(|group| !group.chat.is_console())
}

/// The service beside the bridge, which ends last: it carries the last replies.
async fn with_whatsapp(
    install: &Install,
    host: Host<Docker>,
    bridge_end: bridge::BridgeEnd,
    end: bridge::ServiceEnd,
) -> Result<Ended> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (broke, broken) = oneshot::channel();
    let whatsapp = install.whatsapp();
    let carrying = tokio::spawn(async move {
        let carried = whatsapp.run(bridge_end, Task::Serve, async { drop(stopped.await) }).await;
        broke.send(carried.is_err()).ok();
        carried
    });
    let bridge_broke = async {
        // Where it ended in order, the state of the link says what follows; where it broke off, there is no word.
        if let Ok(false) = broken.await {
            std::future::pending::<()>().await;
        }
    };
    let ended = serve(install, host, end, Reach::All, bridge_broke).await;
    stop.send(()).ok();
    carrying.await.context("Failed to end the bridge to WhatsApp")??;
    ended
}

/// The service, until the person or the system asks it to stop, or `broken` resolves.
async fn serve(
    install: &Install,
    host: Host<Docker>,
    end: bridge::ServiceEnd,
    reach: Reach,
    broken: impl Future<Output = ()>,
) -> Result<Ended> {
    let supervisor = Supervisor::of(&install.environment);
    // Before the service says that it is ready: who then stops it at once is heard, too.
    let asked = install::asked_to_stop()?;
    let stop = async {
        tokio::select! {
            () = asked => {}
            () = broken => {}
        }
        supervisor.tell(News::Stopping);
    };
    let (ready, is_ready) = oneshot::channel();
    let told = async {
        if is_ready.await.is_ok() {
            supervisor.tell(News::Ready);
        }
    };
    let (ended, ()) = tokio::join!(service::run(host, end, reach, ready, stop), told);
    ended
}
