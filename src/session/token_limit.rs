//! Whether a group may begin a turn: the owner may have limited its tokens per day.
//!
//! The limit is looked at before a container is launched and before a prompt, never in the middle of a turn.
//! A running turn is finished, and may go beyond the limit.

use anyhow::Result;

use super::context::SessionContext;
use crate::clock::Day;
use crate::notices;
use crate::store::OutboxChange;
use crate::types::{Group, GroupName};

/// The group as it is registered now, if it may begin a turn; `None` if it was removed or has used up its
/// day's tokens. In the second case the chat has been told, and what waits was made context.
pub async fn group_within_token_limit<C>(
    context: &SessionContext<C>,
    name: &GroupName,
) -> Result<Option<Group>> {
    let Some(group) = context.store.group_by_name(name).await? else { return Ok(None) };
    let Some(limit) = group.daily_tokens else { return Ok(Some(group)) };
    let now = context.clock.now();
    let today = Day::from_time(now, &context.settings.zone);
    let used = context.store.group_usage_in_day(today, name).await?.tokens.counted_tokens();
    if used < limit {
        return Ok(Some(group));
    }
    let midnight = today.ends.to_zoned(context.settings.zone.clone()).strftime("%H:%M %Z").to_string();
    let notice = notices::token_limit_notice(context.settings.lang, name, limit, &midnight);
    match context
        .store
        .skip_over_limit(
            &group,
            today,
            context.settings.with_reply_prefix(notice),
            context.settings.store_rules(),
            now,
        )
        .await?
    {
        OutboxChange::Changed => {
            tracing::info!(used, limit, "The day's tokens are used up; the chat is told");
            context.outbox_hint.notify_one();
        }
        OutboxChange::Same => {}
    }
    Ok(None)
}
