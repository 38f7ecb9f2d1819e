//! The table `outbox`: what Kai says, from the end of a turn to WhatsApp's answer.
//!
//! ```text
//! queued ──handed over──▶ sent ──answered──▶ acked | nacked
//!   ▲  └──tried too often──▶ dead └──no answer, or the link was lost──┐
//!   └────────────────────────────────────────────────────────────────┘
//! ```
//! `acked` is the word of WhatsApp's server, and ends sending. What devices say afterwards is in `recipients`.
//!
//! A row gets its message id when it is written, and every attempt to send uses that id. The attempt is
//! counted before it is made. What is given up stays as `dead` or `nacked`, for `nanokimi status`, and the
//! owner is told in the main channel.

pub(super) mod enqueue;
mod row;

use enqueue::enqueue_reply;
pub use row::{
    DelayedReplies, DueReply, GivenUp, QuotedMessage, Reply, ReplyContent, RetryPause, SendAttempt,
    SentReply, StaleCutoff,
};

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use rand::Rng;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::owner::{notify_owner_of_stale, notify_owner_unless_told};
use super::{Store, from_unix_millis, groups, people, to_unix_millis};
use crate::rules::Rules;
use crate::rules::delivery::{
    self, ChatFate, ChatTrouble, ReplyDecision, ReplyFate, SendResult, TriedReply, after_attempt,
    after_refusal, after_silence,
};
use crate::types::{Answer, ChatId, GroupName, MessageId, Role, SenderId, UsageChart};

/// Most given-up replies in a list: the newest say what is wrong now.
const GIVEN_UP_SHOWN: i64 = 20;

impl Store {
    /// Writes something that nanokimi itself says in a chat, outside of a turn's end.
    pub async fn notify_chat(&self, chat: &ChatId, text: &str, now: Timestamp) -> Result<()> {
        let (chat, text) = (chat.clone(), text.to_owned());
        self.with_connection(move |connection| {
            enqueue_reply(connection, &chat, None, &Reply::from_text(text), now)
        })
        .await
    }

    /// The first reply that waits in each chat, due or not, the oldest first. Within a chat the order is
    /// kept: a reply waits for the one before it. `only` limits the search to one chat; without it, what was
    /// asked at a terminal waits until somebody sits there again.
    pub async fn next_queued_replies(&self, only: Option<&ChatId>) -> Result<Vec<DueReply>> {
        let only = only.map(|chat| chat.as_str().to_owned());
        self.with_connection(move |connection| {
            // By itself SQLite would walk through every reply ever sent, for the order of their ids.
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, chat, wa_id, kind, text, mentions, path, quote_id, quote_sender, quote_text,
                        (SELECT expires_secs FROM chats WHERE chats.id IN {}), put_off_at, pause_millis,
                        created_at, (SELECT name FROM groups WHERE groups.chat = reply.chat), attempts,
                        iif(kind = 'file', message, NULL),
                        iif(kind = 'file', (SELECT group_name FROM turns WHERE turns.id = reply.turn), NULL),
                        chart
                 FROM outbox AS reply
                 WHERE id IN (SELECT min(id) FROM outbox INDEXED BY outbox_queued
                              WHERE state = 'queued' AND iif(?1 IS NULL, chat NOT LIKE 'console:%', chat = ?1)
                              GROUP BY chat)
                 ORDER BY id",
                people::aliases_sql("reply.chat")
            ))?;
            let replies =
                statement.query_map([only], due_reply_from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            replies.into_iter().collect()
        })
        .await
    }

    /// The newest reply that there is; 0 if there is no reply.
    pub async fn newest_reply_row(&self) -> Result<i64> {
        self.with_connection(|connection| {
            Ok(connection.query_row("SELECT coalesce(max(id), 0) FROM outbox", [], |row| row.get(0))?)
        })
        .await
    }

    /// Gives up what still waits and is older than an answer may be: said now, it would make no sense, or
    /// wake somebody for nothing. The owner is told of all of it at once, and of the same chat once a day.
    /// What was asked at a terminal stays: by it, whoever sits there next sees what was asked.
    pub async fn expire_stale_replies(&self, old: StaleCutoff, rules: Rules, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(
                "UPDATE outbox INDEXED BY outbox_queued SET state = 'dead', error = ?4
                 WHERE state = 'queued' AND (id <= ?1 OR (id <= ?2 AND created_at < ?3))
                   AND chat NOT LIKE 'console:%'
                 RETURNING (SELECT name FROM groups WHERE groups.chat = outbox.chat)",
            )?;
            let error = delivery::expired_reply_error(&rules);
            let stale = statement
                .query_map(
                    params![
                        old.newest_stale,
                        old.newest_left_over,
                        to_unix_millis(old.written_before),
                        error
                    ],
                    |row| row.get::<_, Option<String>>(0),
                )?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            for group in stale.iter().flatten() {
                transaction
                    .prepare_cached("UPDATE groups SET stale_more = stale_more + 1 WHERE name = ?1")?
                    .execute([group])?;
            }
            notify_owner_of_stale(&transaction, &rules, now)?;
            transaction.commit()?;
            tracing::warn!(
                replies = stale.len(),
                "Gave up what was too old to be sent; the owner is told once a day"
            );
            Ok(())
        })
        .await
    }

    /// Tells the owner that so much is said in a chat that the rest of it comes slowly.
    pub async fn notify_owner_of_slowness(&self, chat: &ChatId, rules: Rules, now: Timestamp) -> Result<()> {
        let chat = chat.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            match groups::read_group_by_chat(&transaction, &chat)? {
                // Said behind all that waits there, since the owner reads that anyway.
                Some(group) if group.role == Role::Main => {
                    let notice = ChatTrouble::SlowSending.notice(&rules, &group.name);
                    enqueue_reply(&transaction, &group.chat, None, &Reply::from_text(notice), now)?;
                }
                Some(_) | None => {
                    notify_owner_unless_told(
                        &transaction,
                        &chat,
                        ChatTrouble::SlowSending.as_daily_news(now),
                        &rules,
                        now,
                    )?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// What waits for a time to come.
    pub async fn delayed_replies(&self) -> Result<DelayedReplies> {
        self.with_connection(|connection| {
            let put_off = connection
                .prepare_cached(
                    "SELECT id, put_off_at, pause_millis FROM outbox INDEXED BY outbox_queued
                     WHERE state = 'queued' AND put_off_at IS NOT NULL",
                )?
                .query_map([], |row| Ok((row.get(0)?, RetryPause::from_columns(row.get(1)?, row.get(2)?))))?
                .filter_map(|row| row.map(|(id, put_off)| Some((id, put_off?))).transpose())
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let unanswered = connection
                .prepare_cached(
                    "SELECT id, attempts FROM outbox INDEXED BY outbox_sent WHERE state = 'sent' ORDER BY id",
                )?
                .query_map([], |row| Ok(SentReply { row: row.get(0)?, attempts: row.get(1)? }))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(DelayedReplies { put_off, unanswered })
        })
        .await
    }

    /// Counts an attempt, before it is made. The caller has waited as long as the reply was put off.
    pub async fn begin_attempt(&self, reply: &DueReply) -> Result<SendAttempt> {
        let (row, put_off) = (reply.row, reply.put_off);
        self.with_connection(move |connection| {
            let counted = connection
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1
                     WHERE id = ?1 AND state = 'queued' AND put_off_at IS ?2",
                )?
                .execute(params![row, put_off.map(|put_off| to_unix_millis(put_off.at))])?;
            Ok(if counted == 0 { SendAttempt::Overtaken } else { SendAttempt::Begins })
        })
        .await
    }

    /// Records how an attempt ended; an answer of WhatsApp that came before stays. Too many
    /// [`SendResult::Later`] become the end; of a file, a sentence in its place.
    pub async fn record_attempt(
        &self,
        reply: &DueReply,
        result: SendResult,
        rules: Rules,
        now: Timestamp,
    ) -> Result<()> {
        let reply = reply.clone();
        self.with_connection(move |connection| {
            let row = reply.row;
            let transaction = connection.transaction()?;
            if let SendResult::Sent { message } = &result {
                // Also if the answer was faster: a repair needs it.
                transaction
                    .prepare_cached("UPDATE outbox SET message = ?2 WHERE id = ?1")?
                    .execute(params![row, message])?;
            }
            // If WhatsApp has refused it for a time meanwhile, it is put off already.
            let attempts: Option<u32> = transaction
                .prepare_cached(
                    "SELECT attempts FROM outbox WHERE id = ?1 AND state = 'queued' AND put_off_at IS ?2",
                )?
                .query_row(params![row, reply.put_off.map(|put_off| to_unix_millis(put_off.at))], |row| {
                    row.get(0)
                })
                .optional()?;
            let Some(attempts) = attempts else {
                transaction.commit()?;
                return Ok(());
            };
            let tried = TriedReply {
                attempts,
                is_file: matches!(reply.content, ReplyContent::File { .. } | ReplyContent::UsageChart { .. }),
                is_served: reply.group.is_some(),
                written_at: reply.written_at,
            };
            let jitter = rand::rng().random_range(delivery::JITTER);
            let decision = after_attempt(result, &tried, jitter, now);
            apply_decision(&transaction, (row, &reply.chat), decision, &rules, now)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Puts replies that WhatsApp has not answered back into the queue, in front of what follows them in
    /// their chats. Of these rows, those that it has answered meanwhile stay as they are.
    pub async fn requeue_unanswered(&self, unanswered: Vec<i64>, rules: Rules, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            for row in unanswered {
                let unanswered = transaction
                    .prepare_cached("SELECT chat, attempts FROM outbox WHERE id = ?1 AND state = 'sent'")?
                    .query_row([row], |row| Ok((ChatId::new(row.get::<_, String>(0)?), row.get(1)?)))
                    .optional()?;
                if let Some((chat, attempts)) = unanswered {
                    apply_decision(&transaction, (row, &chat), after_silence(attempts, now), &rules, now)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The newest replies that were given up.
    pub async fn given_up_replies(&self) -> Result<Vec<GivenUp>> {
        self.with_connection(|connection| {
            let mut statement = connection.prepare(
                "SELECT (SELECT name FROM groups WHERE groups.chat = outbox.chat), created_at, coalesce(error, '')
                 FROM outbox WHERE state IN ('dead', 'nacked') ORDER BY id DESC LIMIT ?1",
            )?;
            let rows = statement
                .query_map([GIVEN_UP_SHOWN], |row| Ok((row.get(0)?, from_unix_millis(row.get(1)?), row.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(Option<String>, Timestamp, String)>>>()?;
            rows.into_iter()
                .map(|(group, written_at, why)| {
                    let group = group.map(|name| GroupName::parse(&name)).transpose()?;
                    Ok(GivenUp { group, written_at, why })
                })
                .collect()
        })
        .await
    }
}

/// Records what WhatsApp says of a reply, and what follows for its chat.
pub(super) fn record_answer(
    connection: &Connection,
    id: &MessageId,
    answer: Answer,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let code = match answer {
        Answer::Acked => {
            // Also one that was given up: it has arrived after all.
            connection
                .prepare_cached(
                    "UPDATE outbox SET state = 'acked', sent_at = coalesce(sent_at, ?2), error = NULL
                     WHERE wa_id = ?1 AND state IN ('queued', 'sent', 'dead')",
                )?
                .execute(params![id.as_str(), to_unix_millis(now)])?;
            return Ok(());
        }
        Answer::Nacked { code } => code,
    };
    let refused = connection
        .prepare_cached(
            "SELECT id, chat, attempts FROM outbox WHERE wa_id = ?1 AND state IN ('queued', 'sent')",
        )?
        .query_row([id.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, ChatId::new(row.get::<_, String>(1)?), row.get::<_, u32>(2)?))
        })
        .optional()?;
    let Some((row, chat, attempts)) = refused else { return Ok(()) };
    apply_decision(connection, (row, &chat), after_refusal(code, attempts, now), rules, now)
}

/// Does what was decided about a reply of this chat.
fn apply_decision(
    connection: &Connection,
    (row, chat): (i64, &ChatId),
    decision: ReplyDecision,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    match decision.reply {
        ReplyFate::Sent => record_sent_state(connection, row, "sent", now)?,
        ReplyFate::Seen => {
            record_sent_state(connection, row, "acked", now)?;
            connection
                .prepare_cached("UPDATE outbox SET delivered_at = ?2 WHERE id = ?1")?
                .execute([row, to_unix_millis(now)])?;
        }
        ReplyFate::Untried => {
            connection
                .prepare_cached("UPDATE outbox SET attempts = attempts - 1 WHERE id = ?1")?
                .execute([row])?;
        }
        ReplyFate::Later { pause, error } => requeue_after_pause(connection, row, now, pause, &error)?,
        ReplyFate::BecomesText { error } => replace_file_with_text(connection, row, &error, rules)?,
        ReplyFate::Refused { error } => set_final_state(connection, row, "nacked", &error)?,
        ReplyFate::Dead { error } => set_final_state(connection, row, "dead", &error)?,
    }
    match decision.chat {
        ChatFate::GoesOn => {}
        ChatFate::Rests(pause) => {
            connection
                .prepare_cached(
                    "UPDATE outbox SET put_off_at = ?2, pause_millis = ?3
                     WHERE chat = ?1 AND state = 'queued' AND coalesce(pause_millis, 0) <= ?3",
                )?
                .execute(params![chat.as_str(), to_unix_millis(now), duration_to_millis(pause)?])?;
        }
        ChatFate::Lost { error } => {
            connection
                .prepare_cached(
                    "UPDATE outbox SET state = 'dead', error = ?2 WHERE chat = ?1 AND state = 'queued'",
                )?
                .execute(params![chat.as_str(), error])?;
        }
    }
    match decision.owner_hears {
        Some(news) => notify_owner_unless_told(connection, chat, news, rules, now),
        None => Ok(()),
    }
}

fn record_sent_state(connection: &Connection, row: i64, state: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET state = ?2, sent_at = ?3, error = NULL WHERE id = ?1")?
        .execute(params![row, state, to_unix_millis(now)])?;
    Ok(())
}

/// Back into the queue, for after a pause.
fn requeue_after_pause(
    connection: &Connection,
    row: i64,
    now: Timestamp,
    pause: Duration,
    error: &str,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox SET state = 'queued', put_off_at = ?2, pause_millis = ?3, error = ?4 WHERE id = ?1",
        )?
        .execute(params![row, to_unix_millis(now), duration_to_millis(pause)?, error])?;
    Ok(())
}

/// A length of time as the database keeps it.
fn duration_to_millis(length: Duration) -> Result<i64> {
    Ok(i64::try_from(length.as_millis())?)
}

/// A file that WhatsApp does not take becomes a sentence, which has its own attempts and the same id.
fn replace_file_with_text(connection: &Connection, row: i64, error: &str, rules: &Rules) -> Result<()> {
    let caption: String = connection
        .prepare_cached("SELECT text FROM outbox WHERE id = ?1")?
        .query_row([row], |row| row.get(0))?;
    connection
        .prepare_cached(
            "UPDATE outbox SET kind = 'text', text = ?2, path = NULL, chart = NULL, message = NULL, attempts = 0, put_off_at = NULL,
                               pause_millis = NULL, error = ?3
             WHERE id = ?1",
        )?
        .execute(params![row, delivery::file_not_sent_text(rules, &caption), error])?;
    Ok(())
}

fn set_final_state(connection: &Connection, row: i64, state: &str, error: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET state = ?2, error = ?3 WHERE id = ?1")?
        .execute(params![row, state, error])?;
    Ok(())
}

fn due_reply_from_row(row: &Row<'_>) -> rusqlite::Result<Result<DueReply>> {
    let (kind, text): (String, String) = (row.get(3)?, row.get(4)?);
    let mentions: Option<String> = row.get(5)?;
    let path: Option<String> = row.get(6)?;
    let chart = row.get::<_, Option<String>>(18)?.map(|chart| UsageChart::parse_stored_text(&chart));
    let chart = match chart.transpose() {
        Ok(chart) => chart,
        Err(error) => return Ok(Err(error)),
    };
    let content = match (kind.as_str(), path) {
        ("file", None) if let Some(chart) = chart => ReplyContent::UsageChart { chart, caption: text },
        ("file", Some(path)) => ReplyContent::File { path, caption: text },
        ("reaction", _) => ReplyContent::Reaction { emoji: text },
        _ => {
            let mentions = mentions.unwrap_or_default();
            let mentions = mentions.split_terminator(row::MENTIONS_BETWEEN).map(SenderId::new).collect();
            ReplyContent::Text { text, mentions }
        }
    };
    let quote_id: Option<String> = row.get(7)?;
    let quote = match quote_id {
        Some(id) => Some(QuotedMessage {
            id: MessageId::new(id),
            sender: SenderId::new(row.get::<_, String>(8)?),
            text: row.get(9)?,
        }),
        None => None,
    };
    let (group, author): (Option<String>, Option<String>) = (row.get(14)?, row.get(17)?);
    let parsed = |name: Option<String>| name.map(|name| GroupName::parse(&name)).transpose();
    let (group, author) = match (parsed(group), parsed(author)) {
        (Ok(group), Ok(author)) => (group, author),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    Ok(Ok(DueReply {
        row: row.get(0)?,
        chat: ChatId::new(row.get::<_, String>(1)?),
        group,
        author,
        id: MessageId::new(row.get::<_, String>(2)?),
        content,
        quote,
        expires_secs: row.get(10)?,
        put_off: RetryPause::from_columns(row.get(11)?, row.get(12)?),
        written_at: from_unix_millis(row.get(13)?),
        attempts: row.get(15)?,
        message: row.get(16)?,
    }))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tempfile::TempDir;

    use super::*;
    use crate::rules::delivery::{KEYLESS_ATTEMPTS_UNTOLD, REST, SEND_ATTEMPTS};
    use crate::store::tests::{add_group, rules};
    use crate::types::Event;

    /// A database with one reply that waits in the chat of the group `family`.
    async fn one_waits(now: Timestamp) -> (TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        add_group(&store, "main", Role::Main, now).await;
        add_group(&store, "family", Role::Member, now).await;
        store.notify_chat(&ChatId::new("family@g.us"), "hello", now).await.unwrap();
        (folder, store)
    }

    async fn first(store: &Store) -> Option<DueReply> {
        store.next_queued_replies(Some(&ChatId::new("family@g.us"))).await.unwrap().into_iter().next()
    }

    async fn answer(store: &Store, id: &MessageId, answer: Answer, now: Timestamp) {
        store.record_events(vec![Event::Answered { id: id.clone(), answer }], rules(), now).await.unwrap();
    }

    /// Queued, sent and without answer, refused, dead.
    async fn counts(store: &Store) -> [u64; 4] {
        let counts = store.queue_counts().await.unwrap();
        [counts.unsent, counts.unanswered, counts.nacked, counts.dead]
    }

    fn handed_over() -> SendResult {
        SendResult::Sent { message: b"as it was sent".to_vec() }
    }

    #[tokio::test]
    async fn a_reply_without_an_answer_is_sent_forty_times_and_then_given_up_and_told() {
        let mut now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for _ in 0..SEND_ATTEMPTS {
            let reply = first(&store).await.expect("it is tried again");
            assert_eq!(store.begin_attempt(&reply).await.unwrap(), SendAttempt::Begins);
            store.record_attempt(&reply, handed_over(), rules(), now).await.unwrap();
            assert_eq!(first(&store).await, None);
            let [sent] = store.delayed_replies().await.unwrap().unanswered[..] else {
                panic!("one was sent")
            };
            now += sent.answer_timeout();
            store.requeue_unanswered(vec![sent.row], rules(), now).await.unwrap();
        }
        // The notice to the owner waits in the main channel.
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        assert!(now.as_second() < 2 * 24 * 60 * 60, "{now}");
        assert_eq!(store.given_up_replies().await.unwrap()[0].why, "WhatsApp does not answer");
    }

    /// What waits in the main channel, where the owner reads it.
    async fn told(store: &Store) -> u64 {
        store.count_unfinished_work(&ChatId::new("main@g.us")).await.unwrap()
    }

    /// One attempt that ends like this.
    async fn tries(store: &Store, result: SendResult, now: Timestamp) {
        let reply = first(store).await.expect("it is tried again");
        assert_eq!(store.begin_attempt(&reply).await.unwrap(), SendAttempt::Begins);
        store.record_attempt(&reply, result, rules(), now).await.unwrap();
    }

    #[tokio::test]
    async fn who_has_no_keys_is_told_of_once_whatever_happened_at_the_attempt_when_it_was_due() {
        let mut now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for attempt in 1..SEND_ATTEMPTS {
            let result = match attempt {
                KEYLESS_ATTEMPTS_UNTOLD => SendResult::Later("the link is slow".to_owned()),
                _ => SendResult::NoKeys,
            };
            now += SignedDuration::from_hours(1);
            tries(&store, result, now).await;
            assert_eq!(told(&store).await, u64::from(attempt > KEYLESS_ATTEMPTS_UNTOLD), "{attempt}");
        }
        tries(&store, SendResult::NoKeys, now).await;
        // The notice of all these hours waits, and no second one.
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        // The next reply there is another matter, but nobody needs to hear of it on the same day.
        store.notify_chat(&ChatId::new("family@g.us"), "hello again", now).await.unwrap();
        for _ in 0..SEND_ATTEMPTS {
            tries(&store, SendResult::NoKeys, now).await;
        }
        assert_eq!(counts(&store).await, [2, 0, 0, 2]);
    }

    #[tokio::test]
    async fn a_reply_whose_last_attempt_finds_no_keys_is_not_given_up_in_silence() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for _ in 1..SEND_ATTEMPTS {
            tries(&store, SendResult::Later("the link is slow".to_owned()), now).await;
        }
        assert_eq!(told(&store).await, 0);
        tries(&store, SendResult::NoKeys, now).await;
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
    }

    #[tokio::test]
    async fn the_loss_of_the_link_uses_no_attempt_up() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for _ in 0..=SEND_ATTEMPTS {
            let reply = first(&store).await.unwrap();
            assert_eq!(store.begin_attempt(&reply).await.unwrap(), SendAttempt::Begins);
            store.record_attempt(&reply, SendResult::LinkLost, rules(), now).await.unwrap();
        }
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply).await.unwrap();
        store.record_attempt(&reply, SendResult::Later("no".to_owned()), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 0]);
    }

    #[tokio::test]
    async fn whatsapps_answer_counts_whenever_it_comes() {
        let now = Timestamp::UNIX_EPOCH;
        let refused = |code| Answer::Nacked { code };
        for (answered, then, expected) in [
            // An answer before the bridge has said how the attempt ended.
            (Answer::Acked, handed_over(), [0, 0, 0, 0]),
            (Answer::Acked, SendResult::Later("late".to_owned()), [0, 0, 0, 0]),
            (Answer::Acked, SendResult::Never("late".to_owned()), [0, 0, 0, 0]),
            // The one that waits then is the notice in the main channel.
            (refused(400), handed_over(), [1, 0, 1, 0]),
            (refused(463), handed_over(), [1, 0, 1, 0]),
            // And here also the reply itself, for an hour.
            (refused(429), handed_over(), [2, 0, 0, 0]),
        ] {
            let (_folder, store) = one_waits(now).await;
            let reply = first(&store).await.unwrap();
            store.begin_attempt(&reply).await.unwrap();
            answer(&store, &reply.id, answered, now).await;
            store.record_attempt(&reply, then.clone(), rules(), now).await.unwrap();
            assert_eq!(counts(&store).await, expected, "{answered:?} {then:?}");
        }
    }

    #[tokio::test]
    async fn while_a_chat_rests_nothing_of_it_is_due_and_other_chats_go_on() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let sent = first(&store).await.unwrap();
        store.begin_attempt(&sent).await.unwrap();
        store.record_attempt(&sent, handed_over(), rules(), now).await.unwrap();
        store.notify_chat(&ChatId::new("family@g.us"), "and more", now).await.unwrap();
        answer(&store, &sent.id, Answer::Nacked { code: 429 }, now).await;
        answer(&store, &sent.id, Answer::Acked, now).await;
        let more = first(&store).await.unwrap();
        assert_eq!(more.put_off.unwrap().remaining_at(now), REST, "what follows rests, too");
        let all = store.next_queued_replies(None).await.unwrap();
        let notice = all.iter().find(|reply| reply.chat.as_str() == "main@g.us").unwrap();
        assert_eq!(notice.put_off, None);
        assert_eq!(store.begin_attempt(&more).await.unwrap(), SendAttempt::Begins);
    }

    #[tokio::test]
    async fn who_saw_a_reply_before_it_was_put_off_begins_nothing() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let seen = first(&store).await.unwrap();
        store.begin_attempt(&seen).await.unwrap();
        answer(&store, &seen.id, Answer::Nacked { code: 429 }, now).await;
        assert_eq!(store.begin_attempt(&seen).await.unwrap(), SendAttempt::Overtaken);
        // Nor does the end of the attempt that was refused change anything.
        store.record_attempt(&seen, handed_over(), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [2, 0, 0, 0]);
    }

    #[test]
    fn no_clock_makes_a_pause_longer_than_it_is() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let put_off = RetryPause { at, pause: Duration::from_secs(600) };
        for (seen_after_secs, left) in
            [(0, 600), (1, 599), (599, 1), (600, 0), (7_200, 0), (-1, 0), (-600, 0), (-7_200, 0)]
        {
            let seen = at + SignedDuration::from_secs(seen_after_secs);
            assert_eq!(put_off.remaining_at(seen), Duration::from_secs(left), "{seen_after_secs}");
        }
        assert_eq!(put_off.remaining_at(Timestamp::MIN), Duration::ZERO);
        assert_eq!(put_off.remaining_at(Timestamp::MAX), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_was_given_up_and_arrived_after_all_has_arrived_and_a_refusal_cannot_undo_that() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply).await.unwrap();
        store.record_attempt(&reply, SendResult::Never("no".to_owned()), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        answer(&store, &reply.id, Answer::Acked, now).await;
        answer(&store, &reply.id, Answer::Nacked { code: 463 }, now).await;
        answer(&store, &MessageId::new("nobody's"), Answer::Nacked { code: 429 }, now).await;
        assert_eq!(counts(&store).await, [1, 0, 0, 0]);
        assert_eq!(store.given_up_replies().await.unwrap(), []);
    }
}
