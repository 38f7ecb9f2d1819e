//! What the owner is told in the main channel of other chats, and when they were told of the same before.
//! Writes to the outbox, and never sends anything itself.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::outbox::enqueue;
use super::{OutboxChange, Reply, Store, groups, to_unix_millis};
use crate::rules::Rules;
use crate::rules::delivery::{self, OwnerNews};
use crate::types::ChatId;

impl Store {
    /// Says something in the main channel, if that was never said there.
    pub async fn notify_owner_once(&self, notice: String, now: Timestamp) -> Result<OutboxChange> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let Some(main) = groups::main_chat(&transaction)? else { return Ok(OutboxChange::Same) };
            let was_told = transaction
                .prepare_cached("SELECT 1 FROM outbox WHERE chat = ?1 AND text = ?2")?
                .exists([main.as_str(), notice.as_str()])?;
            if was_told {
                return Ok(OutboxChange::Same);
            }
            enqueue::enqueue_reply(&transaction, &main, None, &Reply::from_text(notice), now)?;
            transaction.commit()?;
            Ok(OutboxChange::Changed)
        })
        .await
    }
}

/// Says in the main channel what is wrong with another chat, unless that was said since.
pub(super) fn notify_owner_unless_told(
    connection: &Connection,
    about: &ChatId,
    news: OwnerNews,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let (Some(group), Some(main)) =
        (groups::read_group_by_chat(connection, about)?, groups::main_chat(connection)?)
    else {
        return Ok(());
    };
    if group.chat == main {
        return Ok(());
    }
    let notice = news.trouble.notice(rules, &group.name);
    // Walks through the table: once in a while, when something is wrong anyway. What was told before a clock
    // was set back, and so has still to come by that clock, is told again.
    let was_told = connection
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE chat = ?1 AND text = ?2 AND created_at > ?3 AND created_at <= ?4",
        )?
        .exists(params![
            main.as_str(),
            notice,
            to_unix_millis(news.unless_told_since),
            to_unix_millis(now)
        ])?;
    if was_told {
        Ok(())
    } else {
        enqueue::enqueue_reply(connection, &main, None, &Reply::from_text(notice), now)
    }
}

/// Tells the owner which chats lack how many replies that were too old to be sent. What comes within a day
/// after that is counted, and told with the next.
pub(super) fn notify_owner_of_stale(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<()> {
    let Some(main) = groups::main_chat(connection)? else { return Ok(()) };
    // What was told before a clock was set back is told again.
    let by_group = connection
        .prepare_cached(
            "SELECT name, stale_more FROM groups
             WHERE stale_more > 0 AND coalesce(stale_told_at NOT BETWEEN ?1 AND ?2, TRUE)",
        )?
        .query_map([to_unix_millis(delivery::notice_repeat_cutoff(now)) + 1, to_unix_millis(now)], |row| {
            Ok((row.get(0)?, row.get::<_, u32>(1)?.into()))
        })?
        .collect::<rusqlite::Result<BTreeMap<String, u64>>>()?;
    if by_group.is_empty() {
        return Ok(());
    }
    for group in by_group.keys() {
        connection
            .prepare_cached("UPDATE groups SET stale_told_at = ?2, stale_more = 0 WHERE name = ?1")?
            .execute(params![group, to_unix_millis(now)])?;
    }
    let notice = delivery::expired_replies_notice(rules, &by_group);
    enqueue::enqueue_reply(connection, &main, None, &Reply::from_text(notice), now)
}
