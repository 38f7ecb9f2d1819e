//! Clears away what a broken session has left: its container, and its turn, which nobody else would end.

use anyhow::Result;
use tokio::time::{sleep, timeout};

use super::compaction::{compaction_over_notice, give_up_asked_compaction};
use super::context::SessionContext;
use super::ending::finish_turn_with_retry;
use super::engine_life::KILL_LIMIT;
use super::machine::{AfterTurn, CLOSE_GRACE};
use crate::container::Containers;
use crate::notices::{self, CompactionResult};
use crate::store::{MAX_ATTEMPTS, PendingAfterTurn, Reply, TurnEnding, TurnOutcome};
use crate::types::{GroupName, TokenUsage, Trouble};

/// Removes the group's containers, however often that has to be tried, and ends its turn as failed. Returns
/// what is pending then.
///
/// If the session broke off before it had claimed anything, what waits counts as tried all the same, or it
/// would be tried for ever.
#[tracing::instrument(name = "recovery", skip_all, fields(group = %name))]
pub async fn clean_up_broken_session<C: Containers>(
    context: SessionContext<C>,
    name: GroupName,
) -> AfterTurn {
    remove_containers_until_gone(&context, &name).await;
    let finished = match fail_interrupted_turn(&context, &name).await {
        Ok(finished) => finished,
        Err(error) => {
            // The rows stay claimed; the next claim of this chat frees them.
            tracing::error!("Failed to end the turn of a session that broke off: {error:#}");
            PendingAfterTurn::RetryPending { attempt: 1 }
        }
    };
    context.outbox_hint.notify_one();
    context.tasks_hint.notify_one();
    finished.into()
}

async fn remove_containers_until_gone<C: Containers>(context: &SessionContext<C>, name: &GroupName) {
    loop {
        match timeout(
            KILL_LIMIT,
            context.containers.remove_containers_of_group(&context.settings.install, name),
        )
        .await
        {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!("Failed to remove the container, will try again: {error:#}"),
            Err(_) => tracing::warn!("Docker did not remove the container in time, will try again"),
        }
        sleep(CLOSE_GRACE).await;
    }
}

async fn fail_interrupted_turn<C: Containers>(
    context: &SessionContext<C>,
    name: &GroupName,
) -> Result<PendingAfterTurn> {
    let Some(group) = context.store.group_by_name(name).await? else {
        return Ok(PendingAfterTurn::NothingPending);
    };
    let settings = &context.settings;
    let ending = |turn, finish, replies| TurnEnding {
        turn,
        chat: group.chat.clone(),
        finish,
        never_read: Vec::new(),
        replies,
        usage: TokenUsage::default(),
    };
    if let Some(turn) = context.store.compaction_turn(&group).await? {
        let told = vec![Reply::from_text(compaction_over_notice(settings, CompactionResult::Failed))];
        return finish_turn_with_retry(context, &ending(turn, TurnOutcome::Returned, told)).await;
    }
    let turn = match context.store.turn_with_claimed_rows(&group.chat).await? {
        Some(turn) => turn,
        None => {
            let engine = settings.engine_for_group(&group);
            let claim = context.store.claim_pending_rows(&group, engine, context.clock.now()).await?;
            let Some(claim) = claim else {
                give_up_asked_compaction(context, &group).await?;
                return Ok(PendingAfterTurn::NothingPending);
            };
            claim.turn
        }
    };
    let notice =
        settings.with_reply_prefix(notices::gave_up_notice(settings.lang, Trouble::Internal, MAX_ATTEMPTS));
    finish_turn_with_retry(context, &ending(turn, TurnOutcome::Failed { notice }, Vec::new())).await
}
