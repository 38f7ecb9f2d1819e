//! What the owner is told in the main channel of other chats, and when they were told of the same before. Writes to the
//! outbox, and never sends anything itself.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

use super::{Reply, Rules, groups, millis, outbox};
use crate::notices;
use crate::types::{ChatId, GroupName, Lang};

/// The owner reads the same trouble of the same chat at most once in this time.
const TELL_AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// Says in the main channel what is wrong with another chat, unless that was said a short time ago.
pub(super) fn tell_owner(
    connection: &Connection,
    about: &ChatId,
    sentence: fn(Lang, &GroupName) -> String,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    tell_owner_unless_told(connection, about, sentence, told_again_from(now)?, rules, now)
}

/// The same, unless it was said since then.
pub(super) fn tell_owner_unless_told(
    connection: &Connection,
    about: &ChatId,
    sentence: fn(Lang, &GroupName) -> String,
    since: Timestamp,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let (Some(group), Some(main)) = (groups::group_of(connection, about)?, groups::main_chat(connection)?)
    else {
        return Ok(());
    };
    if group.chat == main {
        return Ok(());
    }
    let notice = rules.notice(&sentence(rules.lang, &group.name));
    // Walks through the table: once in a while, when something is wrong anyway. What was told before a clock was set
    // back, and so has still to come by that clock, is told again.
    let told = connection
        .prepare_cached(
            "SELECT 1 FROM outbox WHERE chat = ?1 AND text = ?2 AND created_at > ?3 AND created_at <= ?4",
        )?
        .exists(params![main.as_str(), notice, millis(since), millis(now)])?;
    if told { Ok(()) } else { outbox::enqueue(connection, &main, None, &Reply::text(notice), now) }
}

/// What the owner was told before this time is told again.
pub(super) fn told_again_from(now: Timestamp) -> Result<Timestamp> {
    Ok(now.saturating_sub(TELL_AGAIN)?)
}

/// Tells the owner which chats lack how many replies that were too old to be sent. What comes within a day after that is
/// counted, and told with the next.
pub(super) fn tell_of_stale(
    connection: &Connection,
    hours: u64,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let Some(main) = groups::main_chat(connection)? else { return Ok(()) };
    // What was told before a clock was set back is told again.
    let by_group = connection
        .prepare_cached(
            "SELECT name, stale_more FROM groups
             WHERE stale_more > 0 AND coalesce(stale_told_at NOT BETWEEN ?1 AND ?2, TRUE)",
        )?
        .query_map([millis(told_again_from(now)?) + 1, millis(now)], |row| {
            Ok((row.get(0)?, row.get::<_, u32>(1)?.into()))
        })?
        .collect::<rusqlite::Result<BTreeMap<String, u64>>>()?;
    if by_group.is_empty() {
        return Ok(());
    }
    for group in by_group.keys() {
        connection
            .prepare_cached("UPDATE groups SET stale_told_at = ?2, stale_more = 0 WHERE name = ?1")?
            .execute(params![group, millis(now)])?;
    }
    let notice = notices::too_old_to_send(rules.lang, hours, &by_group);
    outbox::enqueue(connection, &main, None, &Reply::text(rules.notice(&notice)), now)
}
