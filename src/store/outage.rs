//! The table `outages`: what keeps all chats from being answered, and who was told of it.
//!
//! The owner is told once of each, in the main channel, and each chat once, when something is asked there. The first
//! answer to a turn that began later ends them all; a chat whose messages wait has been told all the same, and an outage
//! that comes back within [`TELL_OWNER_EVERY`] is none of the owner's news.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

use super::{Reply, Store, groups, millis, outbox, time};
use crate::types::{ChatId, Outage, TurnId};

/// How often the owner is told of the same outage, should it come and go.
const TELL_OWNER_EVERY: SignedDuration = SignedDuration::from_hours(1);

impl Store {
    /// Notes an outage that showed itself outside of a turn; the owner is told once.
    pub async fn begin_outage(&self, outage: Outage, to_owner: &str, now: Timestamp) -> Result<()> {
        let to_owner = to_owner.to_owned();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            begin(&transaction, outage, None, &to_owner, now)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Says something in the main channel, where there is one.
    pub async fn tell_owner(&self, notice: &str, now: Timestamp) -> Result<()> {
        let notice = notice.to_owned();
        self.with(move |connection| match groups::main_chat(connection)? {
            Some(main) => outbox::enqueue(connection, &main, None, &Reply::text(notice), now),
            None => Ok(()),
        })
        .await
    }

    /// Notes that an outage is over, unless it still keeps something.
    pub async fn end_outage(&self, outage: Outage, now: Timestamp) -> Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                &format!(
                    "UPDATE outages SET ended_at = ?2 WHERE outage = ?1 AND ended_at IS NULL
                     AND NOT EXISTS (SELECT 1 FROM groups WHERE outage_told_at IS NOT NULL AND {SOMETHING_WAITS})"
                ),
                params![word(outage), millis(now)],
            )?;
            forget_who_was_told(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Whether the latest turn of a chat has ended since then in an outage, which keeps what was asked.
    pub async fn keeps(&self, chat: &ChatId, since: Timestamp) -> Result<bool> {
        let chat = chat.clone();
        self.with(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT 1 FROM turns
                     WHERE id = (SELECT id FROM turns WHERE group_name = (SELECT name FROM groups WHERE chat = ?1)
                                 ORDER BY began_at DESC, id DESC LIMIT 1)
                       AND outage IS NOT NULL AND ended_at >= ?2
                       AND EXISTS (SELECT 1 FROM inbox WHERE chat = ?1 AND state = 'pending' AND wake = 'wakes')",
                )?
                .exists(params![chat.as_str(), millis(since)])?)
        })
        .await
    }

    /// The outages that there are, the oldest first, each with when it began.
    pub async fn outages(&self) -> Result<Vec<(Outage, Timestamp)>> {
        self.with(|connection| {
            let mut statement = connection
                .prepare("SELECT outage, since FROM outages WHERE ended_at IS NULL ORDER BY since, outage")?;
            let rows = statement
                .query_map([], |row| Ok((row.get::<_, String>(0)?, time(row.get(1)?))))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let known = |name: &str| Outage::ALL.into_iter().find(|outage| word(*outage) == name);
            Ok(rows.into_iter().filter_map(|(name, since)| Some((known(&name)?, since))).collect())
        })
        .await
    }
}

/// Notes the outage that a turn has met. Its chat is told once, and the owner, who may be the same, once.
pub(super) fn met(
    connection: &Connection,
    outage: Outage,
    (chat, turn): (&ChatId, TurnId),
    (to_chat, to_owner): (&str, &str),
    now: Timestamp,
) -> Result<()> {
    let is_news = connection
        .prepare_cached("UPDATE groups SET outage_told_at = ?2 WHERE chat = ?1 AND outage_told_at IS NULL")?
        .execute(params![chat.as_str(), millis(now)])?;
    if is_news > 0 {
        outbox::enqueue(connection, chat, Some(turn), &Reply::text(to_chat), now)?;
    }
    connection
        .prepare_cached("UPDATE turns SET outage = ?2 WHERE id = ?1")?
        .execute(params![turn.0, word(outage)])?;
    begin(connection, outage, (is_news > 0).then_some(chat), to_owner, now)
}

/// `told` is a chat that was told just now.
fn begin(
    connection: &Connection,
    outage: Outage,
    told: Option<&ChatId>,
    to_owner: &str,
    now: Timestamp,
) -> Result<()> {
    let has_begun = connection
        .prepare_cached(
            "INSERT INTO outages (outage, since, since_turn)
             VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM turns))
             ON CONFLICT DO UPDATE SET since = excluded.since, since_turn = excluded.since_turn, ended_at = NULL
             WHERE ended_at IS NOT NULL",
        )?
        .execute(params![word(outage), millis(now)])?
        > 0;
    let Some(main) = groups::main_chat(connection)? else { return Ok(()) };
    let is_news = connection
        .prepare_cached(
            "UPDATE outages SET told_at = ?2
             WHERE outage = ?1 AND (told_at IS NULL OR (told_at < since AND told_at <= ?3)
                                    -- The clock was set back since.
                                    OR (?4 AND told_at > ?2))",
        )?
        .execute(params![
            word(outage),
            millis(now),
            millis(now.saturating_sub(TELL_OWNER_EVERY)?),
            has_begun
        ])?;
    if is_news == 0 || told == Some(&main) {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE groups SET outage_told_at = ?2 WHERE chat = ?1")?
        .execute(params![main.as_str(), millis(now)])?;
    outbox::enqueue(connection, &main, None, &Reply::text(to_owner), now)
}

/// There was an answer to a turn: what began before that one does not keep anybody from being answered any more.
pub(super) fn over(connection: &Connection, turn: TurnId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE outages SET ended_at = ?2 WHERE ended_at IS NULL AND since_turn < ?1")?
        .execute(params![turn.0, millis(now)])?;
    // Also where they were over before: this chat waited until now.
    forget_who_was_told(connection)
}

/// Whether it is rather a turn's messages that Kimi refuses than the account: they were tried `most` times since others
/// that came to their turn later than they were answered.
pub(super) fn is_about_messages(connection: &Connection, turn: TurnId, most: u32) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "WITH others (answered_at) AS (
                 SELECT min(ended_at) FROM turns
                 WHERE outcome = 'answered'
                   AND began_at >= (SELECT min(received_at) FROM inbox
                                    WHERE turn = ?1 AND state = 'claimed' AND wake = 'wakes'))
             SELECT 1 FROM others
             WHERE (SELECT count(*) FROM turns INDEXED BY turns_group
                    WHERE group_name = (SELECT group_name FROM turns WHERE id = ?1)
                      AND began_at >= others.answered_at AND id <= ?1 AND outcome IS NOT 'answered') >= ?2",
        )?
        .exists(params![turn.0, most])?)
}

/// Of a group: whether something waits to be answered in its chat.
const SOMETHING_WAITS: &str = "EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_pending
    WHERE inbox.chat = groups.chat AND wake = 'wakes' AND state = 'pending')";

/// Where nothing keeps anybody, each chat is told of the next outage; but not one that waits still.
fn forget_who_was_told(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE groups SET outage_told_at = NULL WHERE outage_told_at IS NOT NULL AND NOT {SOMETHING_WAITS}
             AND NOT EXISTS (SELECT 1 FROM outages WHERE ended_at IS NULL)"
        ))?
        .execute([])?;
    Ok(())
}

fn word(outage: Outage) -> &'static str {
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
