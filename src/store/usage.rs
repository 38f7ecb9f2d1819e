//! What the turns used, by group and day, and what a group does that has used up its day's tokens.
//!
//! A turn belongs to the day in which it began. Its tokens are written at its end, whatever came of it; one
//! that was lost with a killed process has none.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

use super::outbox::enqueue;
use super::{OutboxChange, Reply, Store, sessions, tasks, to_unix_millis, turns};
use crate::clock::Day;
use crate::rules::Rules;
use crate::rules::turns::limited_compaction_notice;
use crate::types::{Group, GroupName, TokenUsage};

/// How often a chat is told that its day's tokens are used up: somebody who calls again within this has just
/// read it.
pub const LIMIT_TOLD_EVERY: Duration = Duration::from_secs(10 * 60);

/// What the turns of one group used in one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    /// Those that ended as `returned` left out: nobody tried to answer.
    pub turns: u64,
    pub tokens: TokenUsage,
}

/// What one group used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupUsage {
    pub name: GroupName,
    pub standing: GroupStatus,
    /// One for each day that was asked for, in that order.
    pub days: Vec<DayUsage>,
}

/// Whether a group is served still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStatus {
    Served { daily_tokens: Option<u64> },
    Removed,
}

impl Store {
    /// What every group used in these days: main first, then by name, then those that were removed.
    pub async fn usage_by_group(&self, days: Vec<Day>) -> Result<Vec<GroupUsage>> {
        self.with_connection(move |connection| read_usage_by_group(connection, &days)).await
    }

    /// What one group used in a day.
    pub async fn group_usage_in_day(&self, day: Day, group: &GroupName) -> Result<DayUsage> {
        let group = group.clone();
        self.with_connection(move |connection| read_day_usage(connection, group.as_str(), day)).await
    }

    /// Makes context of all that waits for an answer in a group's chat, since the tokens of `today` are used
    /// up: the agent reads it with the next call that it may answer. Runs of tasks have failed, and a summary is not
    /// made, of which the chat is told. Who called is told `notice`, unless the chat was told today within
    /// [`LIMIT_TOLD_EVERY`].
    pub async fn skip_over_limit(
        &self,
        group: &Group,
        today: Day,
        notice: String,
        rules: Rules,
        now: Timestamp,
    ) -> Result<OutboxChange> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            turns::release_claimed_rows(&transaction, &group.chat, now)?;
            let mut is_told = tasks::fail_waiting_runs(&transaction, &group.chat, &rules, today, now)?;
            let summary = limited_compaction_notice(&rules);
            is_told |= sessions::give_up_asked_compaction(&transaction, &group.chat, &summary, now)?;
            let calls = transaction
                .prepare_cached(
                    "UPDATE inbox INDEXED BY inbox_pending SET wake = 'context'
                     WHERE chat = ?1 AND wake = 'wakes' AND state = 'pending'",
                )?
                .execute([group.chat.as_str()])?;
            if calls > 0 {
                is_told |= notify_chat_of_limit(&transaction, &group, today, &notice, now)?;
            }
            transaction.commit()?;
            Ok(if is_told { OutboxChange::Changed } else { OutboxChange::Same })
        })
        .await
    }
}

/// What every group used in these days: main first, then by name, then those that were removed.
pub(super) fn read_usage_by_group(connection: &Connection, days: &[Day]) -> Result<Vec<GroupUsage>> {
    // One look into the index for each name: by itself SQLite would walk through all turns.
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE worked (name) AS (
             SELECT min(group_name) FROM turns INDEXED BY turns_group
             UNION ALL
             SELECT (SELECT min(group_name) FROM turns INDEXED BY turns_group
                      WHERE group_name > worked.name)
             FROM worked WHERE worked.name IS NOT NULL)
         SELECT known.name, groups.role IS NOT NULL, groups.daily_tokens
         FROM (SELECT name FROM worked WHERE name IS NOT NULL UNION SELECT name FROM groups) AS known
         LEFT JOIN groups ON groups.name = known.name
         ORDER BY groups.role IS NULL, groups.role, known.name",
    )?;
    let known = statement.query_map([], |row| {
        let daily_tokens = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
        let standing = if row.get(1)? { GroupStatus::Served { daily_tokens } } else { GroupStatus::Removed };
        Ok((row.get::<_, String>(0)?, standing))
    })?;
    let mut usage = Vec::new();
    for known in known {
        let (name, standing) = known?;
        let days = days.iter().map(|day| read_day_usage(connection, &name, *day)).collect::<Result<_>>()?;
        usage.push(GroupUsage { name: GroupName::parse(&name)?, standing, days });
    }
    Ok(usage)
}

fn read_day_usage(connection: &Connection, group: &str, day: Day) -> Result<DayUsage> {
    Ok(connection
        .prepare_cached(
            "SELECT coalesce(sum(outcome IS NOT 'returned'), 0), coalesce(sum(input_tokens), 0),
                    coalesce(sum(cached_tokens), 0), coalesce(sum(output_tokens), 0)
             FROM turns INDEXED BY turns_group WHERE group_name = ?1 AND began_at >= ?2 AND began_at < ?3",
        )?
        .query_row(params![group, to_unix_millis(day.begins), to_unix_millis(day.ends)], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let tokens = TokenUsage { input: number(1)?, cached: number(2)?, output: number(3)? };
            Ok(DayUsage { turns: number(0)?, tokens })
        })?)
}

/// Returns whether it was told.
fn notify_chat_of_limit(
    connection: &Connection,
    group: &Group,
    today: Day,
    notice: &str,
    now: Timestamp,
) -> Result<bool> {
    let stale = now.saturating_sub(SignedDuration::try_from(LIMIT_TOLD_EVERY)?).unwrap_or(Timestamp::MIN);
    let due = connection
        .prepare_cached(
            "UPDATE groups SET limit_told_at = ?2
             WHERE name = ?1 AND (limit_told_at IS NULL OR limit_told_at <= ?3 OR limit_told_at < ?4
                                  OR limit_told_at > ?2)",
        )?
        .execute(params![
            group.name.as_str(),
            to_unix_millis(now),
            to_unix_millis(stale),
            to_unix_millis(today.begins)
        ])?;
    if due == 0 {
        return Ok(false);
    }
    enqueue::enqueue_reply(connection, &group.chat, None, &Reply::from_text(notice), now)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::super::tests::{add_group, rules};
    use super::*;
    use crate::store::{TurnEnding, TurnOutcome};
    use crate::types::{Engine, Event, Forwarded, IncomingMessage, Mention, MessageId, Role, SenderId};

    /// A turn of the group that began at `now` and ended in this way.
    async fn turn(store: &Store, group: &str, now: &str, finish: TurnOutcome, usage: TokenUsage) {
        let now: Timestamp = now.parse().unwrap();
        let group = store.group_by_name(&GroupName::parse(group).unwrap()).await.unwrap().unwrap();
        let call = IncomingMessage {
            chat: group.chat.clone(),
            id: MessageId::new(now.to_string()),
            sender: SenderId::new("ana@s.whatsapp.net"),
            sender_name: "Ana".to_owned(),
            text: "@Kai hello".to_owned(),
            sent_at: now,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        };
        store.record_events(vec![Event::Message(call)], rules(), now).await.unwrap();
        let claim = store.claim_pending_rows(&group, Engine::KimiCli, now).await.unwrap().unwrap();
        let (unread, replies) = (Vec::new(), Vec::new());
        let ending =
            TurnEnding { turn: claim.turn, chat: group.chat, finish, never_read: unread, replies, usage };
        store.finish_turn(ending, now).await.unwrap();
    }

    fn tokens(input: u64, cached: u64, output: u64) -> TokenUsage {
        TokenUsage { input, cached, output }
    }

    #[tokio::test]
    async fn tokens_are_summed_by_group_and_day_whatever_came_of_the_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        let now: Timestamp = "2026-11-22T20:00:00Z".parse().unwrap();
        for (name, role) in [("family", Role::Member), ("old", Role::Member), ("zoo", Role::Main)] {
            add_group(&store, name, role, now).await;
        }
        let hopeless = || TurnOutcome::Hopeless { notice: "no".to_owned() };
        turn(&store, "family", "2026-11-20T22:59:59Z", TurnOutcome::Answered, tokens(1, 1, 1)).await;
        turn(&store, "family", "2026-11-20T23:00:00Z", TurnOutcome::Answered, tokens(100, 80, 10)).await;
        turn(&store, "family", "2026-11-21T12:00:00Z", hopeless(), tokens(1_000, 0, 5)).await;
        turn(&store, "family", "2026-11-22T12:00:00Z", TurnOutcome::Returned, tokens(7, 0, 0)).await;
        turn(&store, "old", "2026-11-21T12:00:00Z", TurnOutcome::Answered, tokens(20, 0, 2)).await;
        store.remove_group(&GroupName::parse("old").unwrap()).await.unwrap();

        let usage = store.usage_by_group(Day::last_days(2, now, &zone)).await.unwrap();
        let shown: Vec<_> = usage
            .iter()
            .map(|group| {
                let days = group.days.iter().map(|used| (used.turns, used.tokens));
                (group.name.as_str(), group.standing, days.collect::<Vec<_>>())
            })
            .collect();
        let served = GroupStatus::Served { daily_tokens: None };
        let nothing = (0, tokens(0, 0, 0));
        assert_eq!(
            shown,
            [
                ("zoo", served, vec![nothing, nothing]),
                ("family", served, vec![(2, tokens(1_100, 80, 15)), (0, tokens(7, 0, 0))]),
                ("old", GroupStatus::Removed, vec![(1, tokens(20, 0, 2)), nothing]),
            ]
        );
        assert_eq!(usage[1].days[0].tokens.counted_tokens(), 1_115);
    }
}
