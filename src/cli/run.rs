//! `nanokimi run`: the service in the foreground, with WhatsApp, until it is asked to stop or only a person
//! can help.

use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::install::{self, Install};
use super::systemd::notify_systemd;
use super::{auth, exit, gateway, log};
use crate::bridge;
use crate::bridge::whatsapp::BridgeTask;
use crate::container::docker::Docker;
use crate::service::{self, BridgeReach, StopReason};
use crate::session::SessionContext;
use crate::types::{Group, Role};

/// More open files than any number of agents needs.
const FILES_MAX: u64 = 65_536;

pub async fn run_service_in_foreground(install: &Install) -> Result<ExitCode> {
    log::start_log(&install.config.log_level);
    raise_open_file_limit();
    let docker = install.docker_for_service().await?;
    let _lock = install.lock_install("run")?;
    let store = install.open_store()?;
    let groups = store.all_groups().await?;
    let is_linked = install.whatsapp_bridge().is_linked().await?;
    if !is_linked && needs_whatsapp_link(&groups) {
        return Ok(auth::exit_for_missing_link(Some(&store), install).await?.report_exit());
    }
    if !groups.iter().any(|group| group.role == Role::Main) {
        tracing::warn!("There is no main channel; `nanokimi setup` makes it");
    }
    let (bridge_end, end) = bridge::create_bridge_ends();
    let context = install.build_session_context(docker, store, end.orders.clone()).await?;
    let _gateway = gateway::start_gateway_beside_chats(install, &context).await;
    let ended = if is_linked {
        serve_with_whatsapp(install, context, bridge_end, end).await?
    } else {
        tracing::warn!(
            "WhatsApp is not linked: messages come only from `nanokimi chat`, which needs this service stopped. \
             `nanokimi auth` links it"
        );
        serve_until_stopped(context, end, BridgeReach::Nothing, std::future::pending()).await?
    };
    Ok(match ended {
        StopReason::Asked => ExitCode::SUCCESS,
        StopReason::Link(link) => {
            let end = exit::exit_for_link(&link, &install.config.zone);
            end.context("Failed to keep the link to WhatsApp")?.report_exit()
        }
    })
}

/// Each connection of an agent to its egress proxy, and on to the web, is an open file. The usual limit is
/// low for the sake of programs that call `select`, which this one does not.
fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit })
    {
        tracing::warn!("Failed to allow more open files: {error}");
    }
}

/// Whether there is nothing to do without WhatsApp. An install whose groups are all at the terminal may run.
fn needs_whatsapp_link(groups: &[Group]) -> bool {
    groups.is_empty() || groups.iter().any(|group| !group.chat.is_console_chat())
}

/// The service beside the bridge, which ends last: it carries the last replies.
async fn serve_with_whatsapp(
    install: &Install,
    context: SessionContext<Docker>,
    bridge_end: bridge::BridgeEnd,
    end: bridge::ServiceEnd,
) -> Result<StopReason> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (broke, broken) = oneshot::channel();
    let whatsapp = install.whatsapp_bridge();
    let carrying = tokio::spawn(async move {
        let carried = whatsapp.run_bridge(bridge_end, BridgeTask::Serve, async { drop(stopped.await) }).await;
        broke.send(carried.is_err()).ok();
        carried
    });
    let bridge_broke = async {
        // If it ended in order, the state of the link says what follows; if it broke off, nothing does.
        if let Ok(false) = broken.await {
            std::future::pending::<()>().await;
        }
    };
    let ended = serve_until_stopped(context, end, BridgeReach::All, bridge_broke).await;
    stop.send(()).ok();
    carrying.await.context("Failed to end the bridge to WhatsApp")??;
    ended
}

/// The service, until the person or the system asks it to stop, or `broken` resolves.
async fn serve_until_stopped(
    context: SessionContext<Docker>,
    end: bridge::ServiceEnd,
    reach: BridgeReach,
    broken: impl Future<Output = ()>,
) -> Result<StopReason> {
    // Before the service says that it is ready: a stop that comes at once is heard, too.
    let asked = install::listen_for_stop_signal()?;
    let stop = async {
        tokio::select! {
            () = asked => {}
            () = broken => {}
        }
        notify_systemd(NotifyState::Stopping);
    };
    let (ready, is_ready) = oneshot::channel();
    let notify_ready = async {
        if is_ready.await.is_ok() {
            notify_systemd(NotifyState::Ready);
        }
    };
    let (ended, ()) = tokio::join!(service::run_service(context, end, reach, ready, stop), notify_ready);
    ended
}
