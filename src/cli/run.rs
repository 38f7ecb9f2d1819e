//! `nanokimi run`: the service in the foreground, until it is asked to stop.

use std::process::ExitCode;

use anyhow::Result;
use tokio::sync::oneshot;

use super::install::{self, Install};
use super::systemd::{News, Supervisor};
use crate::bridge;
use crate::service::{self, Reach};
use crate::types::Role;

pub async fn run(install: &Install) -> Result<ExitCode> {
    install::start_log(&install.config.log_level);
    let docker = install.docker_with_image().await?;
    let _lock = install.lock("run")?;
    let store = install.store()?;
    let groups = store.groups().await?;
    let (_bridge, end) = bridge::pair();
    let host = install.host(docker, store, end.orders.clone()).await?;
    if !groups.iter().any(|group| group.role == Role::Main) {
        tracing::warn!("There is no main channel; `nanokimi groups add main --main` makes it");
    }
    tracing::warn!(
        "WhatsApp is not linked: messages come only from `nanokimi chat`, which needs this service stopped"
    );
    let supervisor = Supervisor::of(&install.environment);
    // Before the service says that it is ready: who then stops it at once is heard, too.
    let asked = install::asked_to_stop()?;
    let stop = async {
        asked.await;
        supervisor.tell(News::Stopping);
    };
    let (ready, is_ready) = oneshot::channel();
    let told = async {
        if is_ready.await.is_ok() {
            supervisor.tell(News::Ready);
        }
    };
    let (ended, ()) = tokio::join!(service::run(host, end, Reach::Nothing, ready, stop), told);
    ended?;
    Ok(ExitCode::SUCCESS)
}
