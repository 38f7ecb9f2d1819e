//! Whether a group may begin a turn, and how many tokens the turn may use: the owner may have limited both.
//!
//! The limit of the day is looked at before a container is launched and before a prompt, never in the middle
//! of a turn. A running turn is finished, and may go beyond it.

use anyhow::Result;

use super::context::SessionContext;
use crate::clock::Day;
use crate::notices;
use crate::store::OutboxChange;
use crate::types::{Group, GroupName};

/// The tokens at which a turn is ended, and whose limit that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnTokenLimit {
    /// That of the group, for each of its turns.
    Group(u64),
    /// That of the task whose run it is.
    Task(u64),
}

impl TurnTokenLimit {
    /// The limit that is reached first. `left_to_task` is what the run may still use, if the turn is a task's
    /// alone.
    pub fn first_reached(of_group: Option<u64>, left_to_task: Option<u64>) -> Option<Self> {
        // A run may use all that is left to it, and not one more.
        let of_task = left_to_task.map(|left| left.saturating_add(1));
        match (of_group, of_task) {
            (Some(group), Some(task)) if task < group => Some(Self::Task(task)),
            (Some(group), _) => Some(Self::Group(group)),
            (None, Some(task)) => Some(Self::Task(task)),
            (None, None) => None,
        }
    }

    pub fn tokens(self) -> u64 {
        match self {
            Self::Group(tokens) | Self::Task(tokens) => tokens,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_at_the_limit_that_is_reached_first() {
        use TurnTokenLimit::{Group, Task};
        for (of_group, left_to_task, expected) in [
            (None, None, None),
            (Some(10), None, Some(Group(10))),
            (None, Some(10), Some(Task(11))),
            (Some(10), Some(8), Some(Task(9))),
            (Some(10), Some(9), Some(Group(10))),
            (None, Some(0), Some(Task(1))),
            (None, Some(u64::MAX), Some(Task(u64::MAX))),
        ] {
            assert_eq!(TurnTokenLimit::first_reached(of_group, left_to_task), expected);
        }
    }
}
