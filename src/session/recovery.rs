//! Clears away what a session has left that broke off: its container, and the turn that nobody ends any more.

use anyhow::Result;
use tokio::time::{sleep, timeout};

use super::Host;
use super::driver::KILL_LIMIT;
use super::ending::write_ending;
use super::machine::{After, CLOSE_GRACE};
use crate::container::Containers;
use crate::notices;
use crate::store::{Finish, Finished, MAX_ATTEMPTS, TurnEnding};
use crate::types::{GroupName, TokenUsage, Trouble};

/// Removes the group's containers, however often that has to be tried, and ends its turn as failed. Says what is pending
/// then.
///
/// A session that broke off before it had claimed anything has tried to all the same: what waits counts as tried, or it
/// would be tried for ever.
#[tracing::instrument(name = "recovery", skip_all, fields(group = %name))]
pub async fn clear_away<C: Containers>(host: Host<C>, name: GroupName) -> After {
    remove_containers(&host, &name).await;
    let finished = match fail_what_was_tried(&host, &name).await {
        Ok(finished) => finished,
        Err(error) => {
            // The rows stay claimed; the next claim of this chat frees them.
            tracing::error!("Failed to end the turn of a session that broke off: {error:#}");
            Finished::RetryPending { attempt: 1 }
        }
    };
    host.outbox_hint.notify_one();
    finished.into()
}

async fn remove_containers<C: Containers>(host: &Host<C>, name: &GroupName) {
    loop {
        match timeout(KILL_LIMIT, host.containers.remove_group(&host.settings.install, name)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!("Failed to remove the container, will try again: {error:#}"),
            Err(_) => tracing::warn!("Docker did not remove the container in time, will try again"),
        }
        sleep(CLOSE_GRACE).await;
    }
}

async fn fail_what_was_tried<C: Containers>(host: &Host<C>, name: &GroupName) -> Result<Finished> {
    let Some(group) = host.store.group(name).await? else { return Ok(Finished::NothingPending) };
    let settings = &host.settings;
    let turn = match host.store.turn_of_claimed(&group.chat).await? {
        Some(turn) => turn,
        None => {
            let engine = settings.engine_of(&group).name();
            let claim = host.store.claim(&group, &engine, host.clock.now()).await?;
            let Some(claim) = claim else { return Ok(Finished::NothingPending) };
            claim.turn
        }
    };
    let notice = settings.notice(notices::gave_up(settings.lang, Trouble::Internal, MAX_ATTEMPTS));
    let ending = TurnEnding {
        turn,
        chat: group.chat,
        finish: Finish::Failed { notice },
        unread: Vec::new(),
        replies: Vec::new(),
        usage: TokenUsage::default(),
    };
    write_ending(host, &ending).await
}
