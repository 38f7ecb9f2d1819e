//! The table `outages`: what keeps all chats from being answered, and who was told of it.
//!
//! The owner is told once of each, in the main channel, and each chat once, when something is asked there.
//! The first answer to a turn that began later ends them all; a chat whose messages wait has been told all
//! the same, and an outage that comes back soon is none of the owner's news; `rules` decides that.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::enqueue;
use super::{Reply, Store, from_unix_millis, groups, to_unix_millis};
use crate::rules::outage::{KnownOutage, when_outage_shows};
use crate::types::{ChatId, Outage, TurnId};

impl Store {
    /// Notes an outage that showed itself outside of a turn; the owner is told once.
    pub async fn begin_outage(&self, outage: Outage, to_owner: &str, now: Timestamp) -> Result<()> {
        let to_owner = to_owner.to_owned();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            begin_outage_and_notify(&transaction, outage, None, &to_owner, now)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Says something in the main channel, if there is one.
    pub async fn notify_owner(&self, notice: &str, now: Timestamp) -> Result<()> {
        let notice = notice.to_owned();
        self.with_connection(move |connection| match groups::main_chat(connection)? {
            Some(main) => enqueue::enqueue_reply(connection, &main, None, &Reply::from_text(notice), now),
            None => Ok(()),
        })
        .await
    }

    /// Notes that an outage is over, unless it still keeps something.
    pub async fn end_outage(&self, outage: Outage, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                &format!(
                    "UPDATE outages SET ended_at = ?2 WHERE outage = ?1 AND ended_at IS NULL
                     AND NOT EXISTS (SELECT 1 FROM groups WHERE outage_told_at IS NOT NULL AND {SOMETHING_WAITS})"
                ),
                params![outage_name(outage), to_unix_millis(now)],
            )?;
            clear_outage_notices(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Whether the latest turn of a chat has ended since then in an outage, which keeps what was asked.
    pub async fn is_kept_by_outage(&self, chat: &ChatId, since: Timestamp) -> Result<bool> {
        let chat = chat.clone();
        self.with_connection(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT 1 FROM turns
                     WHERE id = (SELECT id FROM turns WHERE group_name = (SELECT name FROM groups WHERE chat = ?1)
                                 ORDER BY began_at DESC, id DESC LIMIT 1)
                       AND outage IS NOT NULL AND ended_at >= ?2
                       AND EXISTS (SELECT 1 FROM inbox WHERE chat = ?1 AND state = 'pending' AND wake = 'wakes')",
                )?
                .exists(params![chat.as_str(), to_unix_millis(since)])?)
        })
        .await
    }

    /// The outages that there are, the oldest first, each with when it began.
    pub async fn open_outages(&self) -> Result<Vec<(Outage, Timestamp)>> {
        self.with_connection(|connection| read_open_outages(connection)).await
    }
}

pub(super) fn read_open_outages(connection: &Connection) -> Result<Vec<(Outage, Timestamp)>> {
    let mut statement = connection
        .prepare_cached("SELECT outage, since FROM outages WHERE ended_at IS NULL ORDER BY since, outage")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, from_unix_millis(row.get(1)?))))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let known = |name: &str| Outage::ALL.into_iter().find(|outage| outage_name(*outage) == name);
    Ok(rows.into_iter().filter_map(|(name, since)| Some((known(&name)?, since))).collect())
}

/// Notes the outage that a turn has met. Its chat is told once, and so is the owner, whose chat it may be.
pub(super) fn record_outage(
    connection: &Connection,
    outage: Outage,
    (chat, turn): (&ChatId, TurnId),
    (to_chat, to_owner): (&str, &str),
    now: Timestamp,
) -> Result<()> {
    let is_news = connection
        .prepare_cached("UPDATE groups SET outage_told_at = ?2 WHERE chat = ?1 AND outage_told_at IS NULL")?
        .execute(params![chat.as_str(), to_unix_millis(now)])?;
    if is_news > 0 {
        enqueue::enqueue_reply(connection, chat, Some(turn), &Reply::from_text(to_chat), now)?;
    }
    connection
        .prepare_cached("UPDATE turns SET outage = ?2 WHERE id = ?1")?
        .execute(params![turn.0, outage_name(outage)])?;
    begin_outage_and_notify(connection, outage, (is_news > 0).then_some(chat), to_owner, now)
}

/// `told` is a chat that was told just now.
fn begin_outage_and_notify(
    connection: &Connection,
    outage: Outage,
    told: Option<&ChatId>,
    to_owner: &str,
    now: Timestamp,
) -> Result<()> {
    let known = connection
        .prepare_cached("SELECT since, ended_at IS NOT NULL, told_at FROM outages WHERE outage = ?1")?
        .query_row([outage_name(outage)], |row| {
            Ok(KnownOutage {
                since: from_unix_millis(row.get(0)?),
                is_over: row.get(1)?,
                told_at: row.get::<_, Option<i64>>(2)?.map(from_unix_millis),
            })
        })
        .optional()?;
    let change = when_outage_shows(known, now);
    if change.begins {
        connection
            .prepare_cached(
                "INSERT INTO outages (outage, since, since_turn)
                 VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM turns))
                 ON CONFLICT DO UPDATE SET
                    since = excluded.since, since_turn = excluded.since_turn, ended_at = NULL",
            )?
            .execute(params![outage_name(outage), to_unix_millis(now)])?;
    }
    let Some(main) = groups::main_chat(connection)?.filter(|_| change.is_owner_news) else { return Ok(()) };
    connection
        .prepare_cached("UPDATE outages SET told_at = ?2 WHERE outage = ?1")?
        .execute(params![outage_name(outage), to_unix_millis(now)])?;
    if told == Some(&main) {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE groups SET outage_told_at = ?2 WHERE chat = ?1")?
        .execute(params![main.as_str(), to_unix_millis(now)])?;
    enqueue::enqueue_reply(connection, &main, None, &Reply::from_text(to_owner), now)
}

/// There was an answer to a turn: what began before that one does not keep anybody from being answered any
/// more.
pub(super) fn resolve_outage(connection: &Connection, turn: TurnId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE outages SET ended_at = ?2 WHERE ended_at IS NULL AND since_turn < ?1")?
        .execute(params![turn.0, to_unix_millis(now)])?;
    // Also if they were over before: this chat waited until now.
    clear_outage_notices(connection)
}

/// How often a turn's chat was tried in vain, this time included, since others that came to their turn later
/// than its messages were answered.
pub(super) fn count_tries_since_others_were_answered(connection: &Connection, turn: TurnId) -> Result<u32> {
    Ok(connection
        .prepare_cached(
            "WITH others (answered_at) AS (
                 SELECT min(ended_at) FROM turns
                 WHERE outcome = 'answered'
                   AND began_at >= (SELECT min(received_at) FROM inbox
                                    WHERE turn = ?1 AND state = 'claimed' AND wake = 'wakes'))
             SELECT (SELECT count(*) FROM turns INDEXED BY turns_group
                     WHERE group_name = (SELECT group_name FROM turns WHERE id = ?1)
                       AND began_at >= others.answered_at AND id <= ?1 AND outcome IS NOT 'answered')
             FROM others",
        )?
        .query_row([turn.0], |row| row.get(0))?)
}

/// Of a group: whether something waits to be answered in its chat.
const SOMETHING_WAITS: &str = "EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_pending
    WHERE inbox.chat = groups.chat AND wake = 'wakes' AND state = 'pending')";

/// When there is no outage any more, each chat is told of the next one; but a chat that still waits is not.
fn clear_outage_notices(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE groups SET outage_told_at = NULL WHERE outage_told_at IS NOT NULL AND NOT {SOMETHING_WAITS}
             AND NOT EXISTS (SELECT 1 FROM outages WHERE ended_at IS NULL)"
        ))?
        .execute([])?;
    Ok(())
}

fn outage_name(outage: Outage) -> &'static str {
    match outage {
        Outage::NoDocker => "no_docker",
        Outage::NoSpace => "no_space",
        Outage::NotLoggedIn => "not_logged_in",
        Outage::ClientRefused => "client_refused",
        Outage::AccountEnded => "account_ended",
        Outage::NoMembership => "no_membership",
        Outage::Refused => "refused",
        Outage::RateLimited => "rate_limited",
        Outage::QuotaUsedUp => "quota_used_up",
        Outage::ModelRefused => "model_refused",
    }
}
