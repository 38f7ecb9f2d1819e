//! The table `outages`: what keeps all chats from being answered, and who was told of it.
//!
//! The owner is told once of each, in the main channel, and each chat once, when something is asked there. The first
//! answer anywhere ends them all.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{Reply, Store, groups, millis, outbox, time};
use crate::types::{ChatId, Outage, TurnId};

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

    /// Notes that an outage is over.
    pub async fn end_outage(&self, outage: Outage) -> Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let ended = transaction.execute("DELETE FROM outages WHERE outage = ?1", [word(outage)])?;
            if ended > 0 && !transaction.prepare("SELECT 1 FROM outages")?.exists([])? {
                forget_who_was_told(&transaction)?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Whether an outage has kept since then what was asked in a chat, and nothing of it is being tried now.
    pub async fn keeps(&self, chat: &ChatId, since: Timestamp) -> Result<bool> {
        let chat = chat.clone();
        self.with(move |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT 1 FROM turns JOIN groups ON groups.name = turns.group_name
                     WHERE groups.chat = ?1 AND turns.outcome = 'failed' AND turns.ended_at >= ?2
                       AND EXISTS (SELECT 1 FROM outages)
                       AND EXISTS (SELECT 1 FROM inbox WHERE chat = ?1 AND state = 'pending' AND wake = 'wakes')
                       AND NOT EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_claimed
                                       WHERE chat = ?1 AND state = 'claimed')",
                )?
                .exists(params![chat.as_str(), millis(since)])?)
        })
        .await
    }

    /// The outages that there are, the oldest first, each with when it began.
    pub async fn outages(&self) -> Result<Vec<(Outage, Timestamp)>> {
        self.with(|connection| {
            let mut statement =
                connection.prepare("SELECT outage, since FROM outages ORDER BY since, outage")?;
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
    begin(connection, outage, Some(chat), to_owner, now)
}

/// `told` is a chat that knows already.
fn begin(
    connection: &Connection,
    outage: Outage,
    told: Option<&ChatId>,
    to_owner: &str,
    now: Timestamp,
) -> Result<()> {
    let is_news = connection
        .prepare_cached("INSERT INTO outages (outage, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![word(outage), millis(now)])?;
    match groups::main_chat(connection)? {
        Some(main) if is_news > 0 && told != Some(&main) => {
            connection
                .prepare_cached("UPDATE groups SET outage_told_at = ?2 WHERE chat = ?1")?
                .execute(params![main.as_str(), millis(now)])?;
            outbox::enqueue(connection, &main, None, &Reply::text(to_owner), now)
        }
        Some(_) | None => Ok(()),
    }
}

/// There was an answer: nothing keeps the chats from being answered any more.
pub(super) fn over(connection: &Connection) -> Result<()> {
    if connection.prepare_cached("DELETE FROM outages")?.execute([])? > 0 {
        forget_who_was_told(connection)?;
    }
    Ok(())
}

fn forget_who_was_told(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached("UPDATE groups SET outage_told_at = NULL WHERE outage_told_at IS NOT NULL")?
        .execute([])?;
    Ok(())
}

fn word(outage: Outage) -> &'static str {
    match outage {
        Outage::NotLoggedIn => "not_logged_in",
        Outage::Refused => "refused",
        Outage::RateLimited => "rate_limited",
        Outage::QuotaUsedUp => "quota_used_up",
        Outage::ModelRefused => "model_refused",
    }
}
