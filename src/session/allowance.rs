//! Whether a group may begin a turn: its owner may have limited the tokens of a day.
//!
//! The limit is looked at before a container is launched and before a prompt, never in the middle of a turn: one that
//! runs is finished, and may go beyond.

use anyhow::Result;

use super::Host;
use crate::clock::Day;
use crate::notices;
use crate::store::OutboxChange;
use crate::types::{Group, GroupName};

/// The group as it is registered now, if it may begin a turn. None where it was removed, or has used up its day's
/// tokens: then who calls has been told, and what waits was made context.
pub async fn group_that_may_begin<C>(host: &Host<C>, name: &GroupName) -> Result<Option<Group>> {
    let Some(group) = host.store.group(name).await? else { return Ok(None) };
    let Some(limit) = group.daily_tokens else { return Ok(Some(group)) };
    let now = host.clock.now();
    let today = Day::of(now, &host.settings.zone);
    let used = host.store.used_in(today, name).await?.tokens.counted();
    if used < limit {
        return Ok(Some(group));
    }
    let midnight = today.ends.to_zoned(host.settings.zone.clone()).strftime("%H:%M %Z").to_string();
    let notice = notices::tokens_used_up(host.settings.lang, name, limit, &midnight);
    match host.store.let_calls_go(&group, today, host.settings.notice(notice), now).await? {
        OutboxChange::Changed => {
            tracing::info!(used, limit, "The day's tokens are used up; the chat is told");
            host.outbox_hint.notify_one();
        }
        OutboxChange::Same => {}
    }
    Ok(None)
}
