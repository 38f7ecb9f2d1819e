//! The table `outbox`: what Kai says, from the end of a turn to WhatsApp's answer.
//!
//! ```text
//! queued ──handed over──▶ sent ──answered──▶ acked | nacked
//!   ▲  └──tried too often──▶ dead └──no answer, or the link was lost──┐
//!   └────────────────────────────────────────────────────────────────┘
//! ```
//! A row gets its message id when it is written, and every attempt to send uses that id. The attempt is
//! counted before it is made. What is given up stays as `dead` or `nacked`, for `nanokimi status`, and the owner is
//! told in the main channel.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{RowId, Rules, Store, groups, millis, people, time};
use crate::notices::{self, FileRefused};
use crate::types::{Answer, ChatId, GroupName, Lang, MessageId, SenderId, TurnId};

/// Attempts before a reply is given up: with the pauses below a day and a half.
const SEND_ATTEMPTS: i64 = 40;
/// The same for a file: its chat waits for it, and soon prefers a sentence.
const FILE_ATTEMPTS: i64 = 5;
/// The first pause after a failed attempt; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How long WhatsApp may take to answer the first attempt; twice as long for each that follows, up to an hour.
const ANSWER_LIMIT_MILLIS: i64 = 60 * 1000;
/// How often that is doubled: 64 minutes are beyond [`LONGEST_PAUSE`].
const ANSWER_LIMIT_DOUBLINGS: i64 = 6;
/// WhatsApp's code for a message to somebody who never wrote first.
const NOT_FIRST_TO_WRITE: u32 = 463;
/// WhatsApp's code for too many messages.
const TOO_MANY: u32 = 429;
/// How long a chat rests after [`TOO_MANY`].
const REST: SignedDuration = SignedDuration::from_hours(1);
/// The owner reads the same trouble of the same chat at most once in this time.
const TELL_AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// Most given-up replies in a list: the newest say what is wrong now.
const GIVEN_UP_SHOWN: i64 = 20;

/// Between the ids of a row's mentions.
const MENTIONS_BETWEEN: &str = " ";

/// The first reply that waits in its chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReply {
    pub row: i64,
    pub chat: ChatId,
    /// The group of the chat; none where it was removed since.
    pub group: Option<GroupName>,
    pub id: MessageId,
    pub content: DueContent,
    pub quote: Option<Quoted>,
    /// After how many seconds messages of this chat disappear, where they do.
    pub expires_secs: Option<u32>,
    pub due_at: Timestamp,
}

/// What a reply consists of, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DueContent {
    Text {
        text: String,
        mentions: Vec<SenderId>,
    },
    /// `path` is relative to the group's folder, as the agent wrote it: whoever opens it must not trust it.
    File {
        path: String,
        caption: String,
    },
    /// On the message in [`DueReply::quote`].
    Reaction {
        emoji: String,
    },
}

/// The message that a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub id: MessageId,
    pub sender: SenderId,
    pub text: String,
}

/// Something to be said in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub content: DueContent,
    /// The row of the message that it answers and quotes; a reaction needs one.
    pub to: Option<RowId>,
}

impl Reply {
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: DueContent::Text { text: text.into(), mentions: Vec::new() }, to: None }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendResult {
    /// Handed over: WhatsApp's answer is to come.
    Sent,
    /// It was seen: no answer is to come.
    Seen,
    /// The link was lost meanwhile: the attempt does not count.
    LinkLost,
    /// To be tried again after a pause.
    Later(String),
    /// Given up.
    Never(String),
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is counted.
    Begins,
    /// The reply does not wait any more, or not yet.
    Overtaken,
}

/// Which replies without an answer are to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The link is new: an answer on the old one is lost.
    All,
    /// Those for which WhatsApp takes too long.
    Overdue,
}

/// A reply that nobody will see. Never its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// None where the group was removed since.
    pub group: Option<GroupName>,
    pub written_at: Timestamp,
    pub why: String,
}

impl Store {
    /// Writes something that nanokimi itself says in a chat, outside of a turn's end.
    pub async fn say(&self, chat: &ChatId, text: &str, now: Timestamp) -> Result<()> {
        let (chat, text) = (chat.clone(), text.to_owned());
        self.with(move |connection| enqueue(connection, &chat, None, &Reply::text(text), now)).await
    }

    /// The first reply that waits in each chat, due or not, the oldest first. Within a chat the order is kept: a
    /// reply waits for the one before it. `only` limits the search to one chat; without it, what was asked at a
    /// terminal waits until somebody sits there again.
    pub async fn first_waiting(&self, only: Option<&ChatId>) -> Result<Vec<DueReply>> {
        let only = only.map(|chat| chat.as_str().to_owned());
        self.with(move |connection| {
            // By itself SQLite would walk through every reply ever sent, for the order of their ids.
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, chat, wa_id, kind, text, mentions, path, quote_id, quote_sender, quote_text,
                        (SELECT expires_secs FROM chats WHERE chats.id IN {}), due_at,
                        (SELECT name FROM groups WHERE groups.chat = reply.chat)
                 FROM outbox AS reply
                 WHERE id IN (SELECT min(id) FROM outbox INDEXED BY outbox_queued
                              WHERE state = 'queued' AND iif(?1 IS NULL, chat NOT LIKE 'console:%', chat = ?1)
                              GROUP BY chat)
                 ORDER BY id",
                people::names_of("reply.chat")
            ))?;
            let replies = statement.query_map([only], due_from)?.collect::<rusqlite::Result<Vec<_>>>()?;
            replies.into_iter().collect()
        })
        .await
    }

    /// Counts an attempt, before it is made.
    pub async fn begin_attempt(&self, reply: &DueReply, now: Timestamp) -> Result<Attempt> {
        let row = reply.row;
        self.with(move |connection| {
            let counted = connection
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1 WHERE id = ?1 AND state = 'queued' AND due_at <= ?2",
                )?
                .execute(params![row, millis(now)])?;
            Ok(if counted == 0 { Attempt::Overtaken } else { Attempt::Begins })
        })
        .await
    }

    /// Records how an attempt ended; an answer of WhatsApp that came before stays. Too many [`SendResult::Later`]
    /// become the end; of a file, a sentence in its place.
    pub async fn attempted(
        &self,
        reply: &DueReply,
        result: SendResult,
        rules: Rules,
        now: Timestamp,
    ) -> Result<()> {
        let reply = reply.clone();
        self.with(move |connection| {
            let row = reply.row;
            let transaction = connection.transaction()?;
            // A refusal for a time has moved the row into the future.
            let attempts: Option<i64> = transaction
                .prepare_cached(
                    "SELECT attempts FROM outbox WHERE id = ?1 AND state = 'queued' AND due_at <= ?2",
                )?
                .query_row(params![row, millis(now)], |row| row.get(0))
                .optional()?;
            let Some(attempts) = attempts else { return Ok(()) };
            let limit = match reply.content {
                DueContent::File { .. } => FILE_ATTEMPTS,
                DueContent::Text { .. } | DueContent::Reaction { .. } => SEND_ATTEMPTS,
            };
            match result {
                SendResult::Sent => set_sent(&transaction, row, "sent", now)?,
                SendResult::Seen => set_sent(&transaction, row, "acked", now)?,
                SendResult::LinkLost => {
                    transaction
                        .prepare_cached("UPDATE outbox SET attempts = attempts - 1 WHERE id = ?1")?
                        .execute([row])?;
                }
                SendResult::Later(error) if attempts < limit => {
                    put_off(&transaction, row, now, SignedDuration::try_from(pause(attempts))?, &error)?;
                }
                SendResult::Later(error) | SendResult::Never(error) => match (&reply.content, &reply.group) {
                    (DueContent::File { caption, .. }, Some(_)) => {
                        say_instead(&transaction, row, caption, &error, &rules, now)?;
                    }
                    (DueContent::File { .. }, None)
                    | (DueContent::Text { .. } | DueContent::Reaction { .. }, _) => {
                        give_up(&transaction, row, "dead", &error, &rules, now)?;
                    }
                },
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Puts replies that WhatsApp has not answered back into the queue, in front of what follows them in their
    /// chats. Returns when the next of those that are left will be overdue.
    pub async fn send_again(
        &self,
        which: Unanswered,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(
                "SELECT id, attempts, sent_at + min(?1 << min(attempts - 1, ?2), ?3) 
                 FROM outbox INDEXED BY outbox_sent WHERE state = 'sent' ORDER BY id",
            )?;
            let longest = i64::try_from(LONGEST_PAUSE.as_millis())?;
            let unanswered = statement
                .query_map([ANSWER_LIMIT_MILLIS, ANSWER_LIMIT_DOUBLINGS, longest], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            let mut next: Option<i64> = None;
            for (row, attempts, overdue_at) in unanswered {
                if which == Unanswered::Overdue && overdue_at > millis(now) {
                    next = Some(next.map_or(overdue_at, |next| next.min(overdue_at)));
                } else if attempts >= SEND_ATTEMPTS {
                    give_up(&transaction, row, "dead", "WhatsApp does not answer", &rules, now)?;
                } else {
                    put_off(&transaction, row, now, SignedDuration::ZERO, "WhatsApp did not answer")?;
                }
            }
            transaction.commit()?;
            Ok(next.map(time))
        })
        .await
    }

    /// The newest replies that were given up.
    pub async fn given_up(&self) -> Result<Vec<GivenUp>> {
        self.with(|connection| {
            let mut statement = connection.prepare(
                "SELECT (SELECT name FROM groups WHERE groups.chat = outbox.chat), created_at, coalesce(error, '')
                 FROM outbox WHERE state IN ('dead', 'nacked') ORDER BY id DESC LIMIT ?1",
            )?;
            let rows = statement
                .query_map([GIVEN_UP_SHOWN], |row| Ok((row.get(0)?, time(row.get(1)?), row.get(2)?)))?
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
pub(super) fn answered(
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
                .execute(params![id.as_str(), millis(now)])?;
            return Ok(());
        }
        Answer::Nacked { code } => code,
    };
    let refused = connection
        .prepare_cached(
            "SELECT id, chat, attempts FROM outbox WHERE wa_id = ?1 AND state IN ('queued', 'sent')",
        )?
        .query_row([id.as_str()], |row| {
            Ok((row.get::<_, i64>(0)?, ChatId::new(row.get::<_, String>(1)?), row.get::<_, i64>(2)?))
        })
        .optional()?;
    let Some((row, chat, attempts)) = refused else { return Ok(()) };
    let error = format!("WhatsApp refused it ({code})");
    match code {
        NOT_FIRST_TO_WRITE => {
            connection
                .prepare_cached(
                    "UPDATE outbox SET state = iif(id = ?1, 'nacked', 'dead'), error = ?3
                     WHERE id = ?1 OR (chat = ?2 AND state = 'queued')",
                )?
                .execute(params![row, chat.as_str(), error])?;
            tell_owner(connection, &chat, notices::may_not_write, rules, now)
        }
        TOO_MANY if attempts < SEND_ATTEMPTS => {
            put_off(connection, row, now, REST, &error)?;
            let rested = millis(now.saturating_add(REST)?);
            connection
                .prepare_cached(
                    "UPDATE outbox SET due_at = max(due_at, ?2) WHERE chat = ?1 AND state = 'queued'",
                )?
                .execute(params![chat.as_str(), rested])?;
            tell_owner(connection, &chat, notices::must_rest, rules, now)
        }
        _ => give_up(connection, row, "nacked", &error, rules, now),
    }
}

fn set_sent(connection: &Connection, row: i64, state: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET state = ?2, sent_at = ?3, error = NULL WHERE id = ?1")?
        .execute(params![row, state, millis(now)])?;
    Ok(())
}

/// Back into the queue, for after a pause.
fn put_off(
    connection: &Connection,
    row: i64,
    now: Timestamp,
    pause: SignedDuration,
    error: &str,
) -> Result<()> {
    connection
        .prepare_cached("UPDATE outbox SET state = 'queued', due_at = ?2, error = ?3 WHERE id = ?1")?
        .execute(params![row, millis(now.saturating_add(pause)?), error])?;
    Ok(())
}

/// A file that WhatsApp does not take becomes a sentence, which has its own attempts and the same id.
fn say_instead(
    connection: &Connection,
    row: i64,
    caption: &str,
    error: &str,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let text = notices::instead_of_file(rules.lang, &rules.reply_prefix, caption, FileRefused::NotTaken);
    connection
        .prepare_cached(
            "UPDATE outbox SET kind = 'text', text = ?2, path = NULL, attempts = 0, due_at = ?3, error = ?4
             WHERE id = ?1",
        )?
        .execute(params![row, text, millis(now), error])?;
    Ok(())
}

fn give_up(
    connection: &Connection,
    row: i64,
    state: &str,
    error: &str,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let chat: String = connection
        .prepare_cached("UPDATE outbox SET state = ?2, error = ?3 WHERE id = ?1 RETURNING chat")?
        .query_row(params![row, state, error], |row| row.get(0))?;
    tell_owner(connection, &ChatId::new(chat), notices::reply_lost, rules, now)
}

/// Says in the main channel what is wrong with another chat, unless that was said a short time ago.
fn tell_owner(
    connection: &Connection,
    about: &ChatId,
    sentence: fn(Lang, &GroupName) -> String,
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
    // Walks through the table: once in a while, when something is wrong anyway.
    let told = connection
        .prepare_cached("SELECT 1 FROM outbox WHERE chat = ?1 AND text = ?2 AND created_at > ?3")?
        .exists(params![main.as_str(), notice, millis(now.saturating_sub(TELL_AGAIN)?)])?;
    if told { Ok(()) } else { enqueue(connection, &main, None, &Reply::text(notice), now) }
}

/// The pause after the given number of attempts, with a quarter of jitter so that chats do not march in step.
fn pause(attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    pause.mul_f64(rand::rng().random_range(1.0..1.25))
}

/// Writes a reply, with the message id that it keeps.
pub(super) fn enqueue(
    connection: &Connection,
    chat: &ChatId,
    turn: Option<TurnId>,
    reply: &Reply,
    now: Timestamp,
) -> Result<()> {
    let (kind, text, mentions, path) = match &reply.content {
        DueContent::Text { text, mentions } => ("text", text, mentions.as_slice(), None),
        DueContent::File { path, caption } => ("file", caption, [].as_slice(), Some(path)),
        DueContent::Reaction { emoji } => ("reaction", emoji, [].as_slice(), None),
    };
    let mentions: Vec<&str> = mentions.iter().map(SenderId::as_str).collect();
    connection
        .prepare_cached(
            "INSERT INTO outbox (chat, wa_id, turn, kind, text, mentions, path, due_at, created_at,
                                 quote_id, quote_sender, quote_text)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8,
                    coalesce(quoted.edits, quoted.wa_id), quoted.sender, quoted.text
             FROM (SELECT 1) LEFT JOIN inbox AS quoted ON quoted.id = ?9",
        )?
        .execute(params![
            chat.as_str(),
            new_message_id(),
            turn.map(|turn| turn.0),
            kind,
            text,
            (!mentions.is_empty()).then(|| mentions.join(MENTIONS_BETWEEN)),
            path,
            millis(now),
            reply.to.map(|row| row.0)
        ])?;
    Ok(())
}

fn due_from(row: &Row<'_>) -> rusqlite::Result<Result<DueReply>> {
    let (kind, text): (String, String) = (row.get(3)?, row.get(4)?);
    let mentions: Option<String> = row.get(5)?;
    let path: Option<String> = row.get(6)?;
    let content = match (kind.as_str(), path) {
        ("file", Some(path)) => DueContent::File { path, caption: text },
        ("reaction", _) => DueContent::Reaction { emoji: text },
        _ => {
            let mentions = mentions.unwrap_or_default();
            let mentions = mentions.split_terminator(MENTIONS_BETWEEN).map(SenderId::new).collect();
            DueContent::Text { text, mentions }
        }
    };
    let quote_id: Option<String> = row.get(7)?;
    let quote = match quote_id {
        Some(id) => Some(Quoted {
            id: MessageId::new(id),
            sender: SenderId::new(row.get::<_, String>(8)?),
            text: row.get(9)?,
        }),
        None => None,
    };
    let group: Option<String> = row.get(12)?;
    let reply = DueReply {
        row: row.get(0)?,
        chat: ChatId::new(row.get::<_, String>(1)?),
        group: None,
        id: MessageId::new(row.get::<_, String>(2)?),
        content,
        quote,
        expires_secs: row.get(10)?,
        due_at: time(row.get(11)?),
    };
    Ok(group.map(|name| GroupName::parse(&name)).transpose().map(|group| DueReply { group, ..reply }))
}

/// A message id of the shape that WhatsApp's own clients make: `3EB0` and 18 hex digits.
fn new_message_id() -> String {
    let mut bytes = [0_u8; 9];
    rand::rng().fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    format!("3EB0{hex}")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::store::tests::{add_group, rules};
    use crate::types::{Event, Role};

    /// A database with one reply that waits in the chat of the group `family`.
    async fn one_waits(now: Timestamp) -> (TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        add_group(&store, "main", Role::Main, now).await;
        add_group(&store, "family", Role::Member, now).await;
        store.say(&ChatId::new("family@g.us"), "hello", now).await.unwrap();
        (folder, store)
    }

    async fn first(store: &Store) -> Option<DueReply> {
        store.first_waiting(Some(&ChatId::new("family@g.us"))).await.unwrap().into_iter().next()
    }

    async fn answer(store: &Store, id: &MessageId, answer: Answer, now: Timestamp) {
        store.take_in(vec![Event::Answered { id: id.clone(), answer }], rules(), now).await.unwrap();
    }

    /// Queued, sent and without answer, refused, dead.
    async fn counts(store: &Store) -> [u64; 4] {
        let counts = store.queue_counts().await.unwrap();
        [counts.unsent, counts.unanswered, counts.nacked, counts.dead]
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!(pause(1) >= FIRST_PAUSE && pause(1) < FIRST_PAUSE * 2);
        assert!(pause(3) >= FIRST_PAUSE * 4);
        assert!(pause(1_000) <= LONGEST_PAUSE * 2);
    }

    #[tokio::test]
    async fn a_reply_without_an_answer_is_sent_forty_times_and_then_given_up_and_told() {
        let mut now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for _ in 0..SEND_ATTEMPTS {
            let reply = first(&store).await.expect("it is tried again");
            assert_eq!(store.begin_attempt(&reply, now).await.unwrap(), Attempt::Begins);
            store.attempted(&reply, SendResult::Sent, rules(), now).await.unwrap();
            assert_eq!(first(&store).await, None);
            let overdue = store.send_again(Unanswered::Overdue, rules(), now).await.unwrap();
            now = overdue.expect("an answer is waited for");
            store.send_again(Unanswered::Overdue, rules(), now).await.unwrap();
        }
        // The notice to the owner waits in the main channel.
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        assert!(now.as_second() < 2 * 24 * 60 * 60, "{now}");
        assert_eq!(store.given_up().await.unwrap()[0].why, "WhatsApp does not answer");
    }

    #[tokio::test]
    async fn the_loss_of_the_link_uses_no_attempt_up() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        for _ in 0..=SEND_ATTEMPTS {
            let reply = first(&store).await.unwrap();
            assert_eq!(store.begin_attempt(&reply, now).await.unwrap(), Attempt::Begins);
            store.attempted(&reply, SendResult::LinkLost, rules(), now).await.unwrap();
        }
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply, now).await.unwrap();
        store.attempted(&reply, SendResult::Later("no".to_owned()), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 0]);
    }

    #[tokio::test]
    async fn whatsapps_answer_counts_whenever_it_comes() {
        let now = Timestamp::UNIX_EPOCH;
        let refused = |code| Answer::Nacked { code };
        for (answered, then, expected) in [
            // An answer before the bridge has said how the attempt ended.
            (Answer::Acked, SendResult::Sent, [0, 0, 0, 0]),
            (Answer::Acked, SendResult::Later("late".to_owned()), [0, 0, 0, 0]),
            (Answer::Acked, SendResult::Never("late".to_owned()), [0, 0, 0, 0]),
            // The one that waits then is the notice in the main channel.
            (refused(400), SendResult::Sent, [1, 0, 1, 0]),
            (refused(463), SendResult::Sent, [1, 0, 1, 0]),
            // And here also the reply itself, for an hour.
            (refused(429), SendResult::Sent, [2, 0, 0, 0]),
        ] {
            let (_folder, store) = one_waits(now).await;
            let reply = first(&store).await.unwrap();
            store.begin_attempt(&reply, now).await.unwrap();
            answer(&store, &reply.id, answered, now).await;
            store.attempted(&reply, then.clone(), rules(), now).await.unwrap();
            assert_eq!(counts(&store).await, expected, "{answered:?} {then:?}");
        }
    }

    #[tokio::test]
    async fn while_a_chat_rests_nothing_of_it_is_due_and_other_chats_go_on() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let sent = first(&store).await.unwrap();
        store.begin_attempt(&sent, now).await.unwrap();
        store.attempted(&sent, SendResult::Sent, rules(), now).await.unwrap();
        store.say(&ChatId::new("family@g.us"), "and more", now).await.unwrap();
        answer(&store, &sent.id, Answer::Nacked { code: 429 }, now).await;
        answer(&store, &sent.id, Answer::Acked, now).await;
        let rested = now + REST;
        assert_eq!(first(&store).await.unwrap().due_at, rested, "what follows rests, too");
        let all = store.first_waiting(None).await.unwrap();
        let notice = all.iter().find(|reply| reply.chat.as_str() == "main@g.us").unwrap();
        assert_eq!(store.begin_attempt(notice, now).await.unwrap(), Attempt::Begins);
        let more = first(&store).await.unwrap();
        assert_eq!(store.begin_attempt(&more, now).await.unwrap(), Attempt::Overtaken);
        assert_eq!(store.begin_attempt(&more, rested).await.unwrap(), Attempt::Begins);
    }

    #[tokio::test]
    async fn what_was_given_up_and_arrived_after_all_has_arrived_and_a_refusal_cannot_undo_that() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply, now).await.unwrap();
        store.attempted(&reply, SendResult::Never("no".to_owned()), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        answer(&store, &reply.id, Answer::Acked, now).await;
        answer(&store, &reply.id, Answer::Nacked { code: 463 }, now).await;
        answer(&store, &MessageId::new("nobody's"), Answer::Nacked { code: 429 }, now).await;
        assert_eq!(counts(&store).await, [1, 0, 0, 0]);
        assert_eq!(store.given_up().await.unwrap(), []);
    }
}
