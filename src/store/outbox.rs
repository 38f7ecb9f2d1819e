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
//! counted before it is made. What is given up stays as `dead` or `nacked`, for `nanokimi status`, and the owner is
//! told in the main channel.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use rand::Rng;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::owner::{tell_of_stale, tell_owner, tell_owner_unless_told, told_again_from};
use super::{RowId, Rules, Store, groups, millis, people, time};
use crate::notices::{self, FileRefused};
use crate::types::{Answer, ChatId, GroupName, MessageId, Role, SenderId, TurnId};

/// Attempts before a reply is given up: with the pauses below a day and a half.
const SEND_ATTEMPTS: u32 = 40;
/// The same for a file: its chat waits for it, and soon prefers a sentence.
const FILE_ATTEMPTS: u32 = 5;
/// The first pause after a failed attempt; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Attempts to write to somebody whose devices have no keys, before the owner is told: an hour with the pauses above.
const KEYLESS_ATTEMPTS_UNTOLD: u32 = 13;

/// How long WhatsApp may take to answer the first attempt; twice as long for each that follows, up to an hour.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// WhatsApp's code for a message to somebody who never wrote first.
const NOT_FIRST_TO_WRITE: u32 = 463;
/// WhatsApp's code for too many messages.
const TOO_MANY: u32 = 429;
/// How long a chat rests after [`TOO_MANY`].
const REST: Duration = Duration::from_secs(60 * 60);
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
    pub put_off: Option<PutOff>,
    pub written_at: Timestamp,
    /// How often it was tried before.
    pub attempts: u32,
    /// Of a file that was handed over before: the message, so that it need not be uploaded again.
    pub message: Option<Vec<u8>>,
}

/// A pause before the next attempt: how long, and what the wall clock showed when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOff {
    at: Timestamp,
    pause: Duration,
}

impl PutOff {
    /// What is left of the pause for who sees it first at `now`: never more than the whole of it, and nothing where the
    /// clock was set back since, as nobody knows how much has passed.
    pub fn left(&self, now: Timestamp) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.at));
        passed.map_or(Duration::ZERO, |passed| self.pause.saturating_sub(passed))
    }

    fn read(at: Option<i64>, pause_millis: Option<i64>) -> Option<Self> {
        let pause = Duration::from_millis(pause_millis?.try_into().unwrap_or_default());
        Some(Self { at: time(at?), pause })
    }
}

/// What waits for a time to come, as far as the outbox knows. How long that still is, who waits has to keep: a wall clock
/// that is set would shorten or lengthen it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Replies that wait for their next attempt, by row.
    pub put_off: Vec<(i64, PutOff)>,
    /// Replies that wait for WhatsApp's answer, the oldest first.
    pub unanswered: Vec<SentReply>,
}

/// A reply that was handed over and that WhatsApp has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentReply {
    pub row: i64,
    pub attempts: u32,
}

impl SentReply {
    /// How long its answer may take after the latest attempt.
    pub fn answer_limit(self) -> Duration {
        doubled(ANSWER_LIMIT, self.attempts)
    }
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
    /// Handed over, in this form: WhatsApp's answer is to come.
    Sent { message: Vec<u8> },
    /// It was seen: no answer is to come.
    Seen,
    /// The link was lost meanwhile: the attempt does not count.
    LinkLost,
    /// To be tried again after a pause.
    Later(String),
    /// The same, and nobody could read anything else either: WhatsApp has no keys of the person's devices.
    NoKeys,
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

/// Which replies are older than an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// All up to this row.
    pub surely: i64,
    /// And of those up to this row, which an earlier run has left, the ones that were written before this time.
    pub left_over: i64,
    pub written_before: Timestamp,
}

impl Old {
    pub fn has(&self, reply: &DueReply) -> bool {
        let is_left_over = reply.row <= self.left_over && reply.written_at < self.written_before;
        (reply.row <= self.surely || is_left_over) && !reply.chat.is_console()
    }
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
                        (SELECT expires_secs FROM chats WHERE chats.id IN {}), put_off_at, pause_millis,
                        created_at, (SELECT name FROM groups WHERE groups.chat = reply.chat), attempts,
                        iif(kind = 'file', message, NULL)
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

    /// The newest reply that there is; 0 where there is none.
    pub async fn newest_reply(&self) -> Result<i64> {
        self.with(|connection| {
            Ok(connection.query_row("SELECT coalesce(max(id), 0) FROM outbox", [], |row| row.get(0))?)
        })
        .await
    }

    /// Gives up what still waits and is older than an answer may be: said now, it would make no sense, or wake somebody
    /// for nothing. The owner is told of all of it at once, and of the same chat once a day. What was asked at a terminal
    /// stays: who sits there again sees by it what was asked.
    pub async fn let_stale_go(&self, old: Old, rules: Rules, now: Timestamp) -> Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let hours = rules.answer_within.as_secs() / 3600;
            let mut statement = transaction.prepare_cached(
                "UPDATE outbox INDEXED BY outbox_queued SET state = 'dead', error = ?4
                 WHERE state = 'queued' AND (id <= ?1 OR (id <= ?2 AND created_at < ?3))
                   AND chat NOT LIKE 'console:%'
                 RETURNING (SELECT name FROM groups WHERE groups.chat = outbox.chat)",
            )?;
            let error = format!("older than {hours} hours when it could have been sent");
            let stale = statement
                .query_map(params![old.surely, old.left_over, millis(old.written_before), error], |row| {
                    row.get::<_, Option<String>>(0)
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            drop(statement);
            for group in stale.iter().flatten() {
                transaction
                    .prepare_cached("UPDATE groups SET stale_more = stale_more + 1 WHERE name = ?1")?
                    .execute([group])?;
            }
            tell_of_stale(&transaction, hours, &rules, now)?;
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
    pub async fn tell_of_slowness(&self, chat: &ChatId, rules: Rules, now: Timestamp) -> Result<()> {
        let chat = chat.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            match groups::group_of(&transaction, &chat)? {
                // Said behind all that waits there, since the owner reads that anyway.
                Some(group) if group.role == Role::Main => {
                    let notice = rules.notice(&notices::says_much(rules.lang, &group.name));
                    enqueue(&transaction, &group.chat, None, &Reply::text(notice), now)?;
                }
                Some(_) | None => tell_owner(&transaction, &chat, notices::says_much, &rules, now)?,
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// What waits for a time to come.
    pub async fn waiting(&self) -> Result<Waiting> {
        self.with(|connection| {
            let put_off = connection
                .prepare_cached(
                    "SELECT id, put_off_at, pause_millis FROM outbox INDEXED BY outbox_queued
                     WHERE state = 'queued' AND put_off_at IS NOT NULL",
                )?
                .query_map([], |row| Ok((row.get(0)?, PutOff::read(row.get(1)?, row.get(2)?))))?
                .filter_map(|row| row.map(|(id, put_off)| Some((id, put_off?))).transpose())
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let unanswered = connection
                .prepare_cached(
                    "SELECT id, attempts FROM outbox INDEXED BY outbox_sent WHERE state = 'sent' ORDER BY id",
                )?
                .query_map([], |row| Ok(SentReply { row: row.get(0)?, attempts: row.get(1)? }))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Waiting { put_off, unanswered })
        })
        .await
    }

    /// Counts an attempt, before it is made. Who calls has waited as long as the reply was put off.
    pub async fn begin_attempt(&self, reply: &DueReply) -> Result<Attempt> {
        let (row, put_off) = (reply.row, reply.put_off);
        self.with(move |connection| {
            let counted = connection
                .prepare_cached(
                    "UPDATE outbox SET attempts = attempts + 1
                     WHERE id = ?1 AND state = 'queued' AND put_off_at IS ?2",
                )?
                .execute(params![row, put_off.map(|put_off| millis(put_off.at))])?;
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
            if let SendResult::Sent { message } = &result {
                // Also where the answer was faster: a repair needs it.
                transaction
                    .prepare_cached("UPDATE outbox SET message = ?2 WHERE id = ?1")?
                    .execute(params![row, message])?;
            }
            // Where WhatsApp has refused it for a time meanwhile, it is put off already.
            let attempts: Option<u32> = transaction
                .prepare_cached(
                    "SELECT attempts FROM outbox WHERE id = ?1 AND state = 'queued' AND put_off_at IS ?2",
                )?
                .query_row(params![row, reply.put_off.map(|put_off| millis(put_off.at))], |row| row.get(0))
                .optional()?;
            let Some(attempts) = attempts else {
                transaction.commit()?;
                return Ok(());
            };
            let limit = match reply.content {
                DueContent::File { .. } => FILE_ATTEMPTS,
                DueContent::Text { .. } | DueContent::Reaction { .. } => SEND_ATTEMPTS,
            };
            match result {
                SendResult::Sent { .. } => set_sent(&transaction, row, "sent", now)?,
                SendResult::Seen => {
                    set_sent(&transaction, row, "acked", now)?;
                    transaction
                        .prepare_cached("UPDATE outbox SET delivered_at = ?2 WHERE id = ?1")?
                        .execute([row, millis(now)])?;
                }
                SendResult::NoKeys => keyless(&transaction, &reply, attempts, &rules, now)?,
                SendResult::LinkLost => {
                    transaction
                        .prepare_cached("UPDATE outbox SET attempts = attempts - 1 WHERE id = ?1")?
                        .execute([row])?;
                }
                SendResult::Later(error) if attempts < limit => {
                    put_off(&transaction, row, now, pause(attempts), &error)?;
                }
                SendResult::Later(error) | SendResult::Never(error) => match (&reply.content, &reply.group) {
                    (DueContent::File { caption, .. }, Some(_)) => {
                        say_instead(&transaction, row, caption, &error, &rules)?;
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

    /// Puts replies that WhatsApp has not answered back into the queue, in front of what follows them in their chats. Of
    /// these rows, those that it has answered meanwhile stay as they are.
    pub async fn send_again(&self, unanswered: Vec<i64>, rules: Rules, now: Timestamp) -> Result<()> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for row in unanswered {
                let attempts: Option<u32> = transaction
                    .prepare_cached("SELECT attempts FROM outbox WHERE id = ?1 AND state = 'sent'")?
                    .query_row([row], |row| row.get(0))
                    .optional()?;
                match attempts {
                    None => {}
                    Some(attempts) if attempts >= SEND_ATTEMPTS => {
                        give_up(&transaction, row, "dead", "WhatsApp does not answer", &rules, now)?;
                    }
                    Some(_) => put_off(&transaction, row, now, Duration::ZERO, "WhatsApp did not answer")?,
                }
            }
            transaction.commit()?;
            Ok(())
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
            Ok((row.get::<_, i64>(0)?, ChatId::new(row.get::<_, String>(1)?), row.get::<_, u32>(2)?))
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
            connection
                .prepare_cached(
                    "UPDATE outbox SET put_off_at = ?2, pause_millis = ?3
                     WHERE chat = ?1 AND state = 'queued' AND coalesce(pause_millis, 0) <= ?3",
                )?
                .execute(params![chat.as_str(), millis(now), in_millis(REST)?])?;
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

/// No device of the person has keys: neither would they read a sentence in the place of a file. The owner hears of it
/// once, long before it is given up.
fn keyless(
    connection: &Connection,
    reply: &DueReply,
    attempts: u32,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let error = "WhatsApp has no keys of this person's devices";
    if attempts >= KEYLESS_ATTEMPTS_UNTOLD {
        let since = reply.written_at.min(told_again_from(now)?);
        tell_owner_unless_told(connection, &reply.chat, notices::on_no_phone, since, rules, now)?;
    }
    if attempts < SEND_ATTEMPTS {
        return put_off(connection, reply.row, now, pause(attempts), error);
    }
    // The owner was told by now: just above, or long ago.
    end(connection, reply.row, "dead", error)?;
    Ok(())
}

/// Back into the queue, for after a pause.
fn put_off(connection: &Connection, row: i64, now: Timestamp, pause: Duration, error: &str) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox SET state = 'queued', put_off_at = ?2, pause_millis = ?3, error = ?4 WHERE id = ?1",
        )?
        .execute(params![row, millis(now), in_millis(pause)?, error])?;
    Ok(())
}

/// A length of time as the database keeps it.
fn in_millis(length: Duration) -> Result<i64> {
    Ok(i64::try_from(length.as_millis())?)
}

/// A file that WhatsApp does not take becomes a sentence, which has its own attempts and the same id.
fn say_instead(connection: &Connection, row: i64, caption: &str, error: &str, rules: &Rules) -> Result<()> {
    let text = notices::instead_of_file(rules.lang, &rules.reply_prefix, caption, FileRefused::NotTaken);
    connection
        .prepare_cached(
            "UPDATE outbox SET kind = 'text', text = ?2, path = NULL, message = NULL, attempts = 0, put_off_at = NULL,
                               pause_millis = NULL, error = ?3
             WHERE id = ?1",
        )?
        .execute(params![row, text, error])?;
    Ok(())
}

/// Ends a reply that nobody will see, and tells the owner.
fn give_up(
    connection: &Connection,
    row: i64,
    state: &str,
    error: &str,
    rules: &Rules,
    now: Timestamp,
) -> Result<()> {
    let chat = end(connection, row, state, error)?;
    tell_owner(connection, &chat, notices::reply_lost, rules, now)
}

/// Ends a reply; returns its chat.
fn end(connection: &Connection, row: i64, state: &str, error: &str) -> Result<ChatId> {
    let chat: String = connection
        .prepare_cached("UPDATE outbox SET state = ?2, error = ?3 WHERE id = ?1 RETURNING chat")?
        .query_row(params![row, state, error], |row| row.get(0))?;
    Ok(ChatId::new(chat))
}

/// The pause after the given number of attempts, with a quarter of jitter so that chats do not march in step.
fn pause(attempts: u32) -> Duration {
    doubled(FIRST_PAUSE, attempts).mul_f64(rand::rng().random_range(1.0..1.25))
}

/// `first` after the first attempt, and twice as long after each that follows, up to [`LONGEST_PAUSE`].
fn doubled(first: Duration, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Writes a reply, with the message id that it keeps. What a turn says in the chat of a group that was removed meanwhile is
/// said to nobody.
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
        .prepare_cached(&format!(
            "INSERT INTO outbox (chat, wa_id, turn, kind, text, mentions, path, created_at,
                                 quote_id, quote_sender, quote_text)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                    coalesce(quoted.edits, quoted.wa_id), quoted.sender, quoted.text
             FROM (SELECT 1) LEFT JOIN inbox AS quoted ON quoted.id = ?9
             WHERE ?3 IS NULL OR EXISTS (SELECT 1 FROM groups WHERE chat IN {})",
            people::names_of("?1")
        ))?
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
    let group: Option<String> = row.get(14)?;
    let reply = DueReply {
        row: row.get(0)?,
        chat: ChatId::new(row.get::<_, String>(1)?),
        group: None,
        id: MessageId::new(row.get::<_, String>(2)?),
        content,
        quote,
        expires_secs: row.get(10)?,
        put_off: PutOff::read(row.get(11)?, row.get(12)?),
        written_at: time(row.get(13)?),
        attempts: row.get(15)?,
        message: row.get(16)?,
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
    use jiff::SignedDuration;
    use tempfile::TempDir;

    use super::*;
    use crate::store::tests::{add_group, rules};
    use crate::types::Event;

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

    fn handed_over() -> SendResult {
        SendResult::Sent { message: b"as it was sent".to_vec() }
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
            assert_eq!(store.begin_attempt(&reply).await.unwrap(), Attempt::Begins);
            store.attempted(&reply, handed_over(), rules(), now).await.unwrap();
            assert_eq!(first(&store).await, None);
            let [sent] = store.waiting().await.unwrap().unanswered[..] else { panic!("one was sent") };
            now += sent.answer_limit();
            store.send_again(vec![sent.row], rules(), now).await.unwrap();
        }
        // The notice to the owner waits in the main channel.
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        assert!(now.as_second() < 2 * 24 * 60 * 60, "{now}");
        assert_eq!(store.given_up().await.unwrap()[0].why, "WhatsApp does not answer");
    }

    /// What waits in the main channel, where the owner reads it.
    async fn told(store: &Store) -> u64 {
        store.still_to_come(&ChatId::new("main@g.us")).await.unwrap()
    }

    /// One attempt that ends like this.
    async fn tries(store: &Store, result: SendResult, now: Timestamp) {
        let reply = first(store).await.expect("it is tried again");
        assert_eq!(store.begin_attempt(&reply).await.unwrap(), Attempt::Begins);
        store.attempted(&reply, result, rules(), now).await.unwrap();
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
        store.say(&ChatId::new("family@g.us"), "hello again", now).await.unwrap();
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
            assert_eq!(store.begin_attempt(&reply).await.unwrap(), Attempt::Begins);
            store.attempted(&reply, SendResult::LinkLost, rules(), now).await.unwrap();
        }
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply).await.unwrap();
        store.attempted(&reply, SendResult::Later("no".to_owned()), rules(), now).await.unwrap();
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
            store.attempted(&reply, then.clone(), rules(), now).await.unwrap();
            assert_eq!(counts(&store).await, expected, "{answered:?} {then:?}");
        }
    }

    #[tokio::test]
    async fn while_a_chat_rests_nothing_of_it_is_due_and_other_chats_go_on() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let sent = first(&store).await.unwrap();
        store.begin_attempt(&sent).await.unwrap();
        store.attempted(&sent, handed_over(), rules(), now).await.unwrap();
        store.say(&ChatId::new("family@g.us"), "and more", now).await.unwrap();
        answer(&store, &sent.id, Answer::Nacked { code: 429 }, now).await;
        answer(&store, &sent.id, Answer::Acked, now).await;
        let more = first(&store).await.unwrap();
        assert_eq!(more.put_off.unwrap().left(now), REST, "what follows rests, too");
        let all = store.first_waiting(None).await.unwrap();
        let notice = all.iter().find(|reply| reply.chat.as_str() == "main@g.us").unwrap();
        assert_eq!(notice.put_off, None);
        assert_eq!(store.begin_attempt(&more).await.unwrap(), Attempt::Begins);
    }

    #[tokio::test]
    async fn who_saw_a_reply_before_it_was_put_off_begins_nothing() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let seen = first(&store).await.unwrap();
        store.begin_attempt(&seen).await.unwrap();
        answer(&store, &seen.id, Answer::Nacked { code: 429 }, now).await;
        assert_eq!(store.begin_attempt(&seen).await.unwrap(), Attempt::Overtaken);
        // Nor does the end of the attempt that was refused change anything.
        store.attempted(&seen, handed_over(), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [2, 0, 0, 0]);
    }

    #[test]
    fn no_clock_makes_a_pause_longer_than_it_is() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let put_off = PutOff { at, pause: Duration::from_secs(600) };
        for (seen_after_secs, left) in
            [(0, 600), (1, 599), (599, 1), (600, 0), (7_200, 0), (-1, 0), (-600, 0), (-7_200, 0)]
        {
            let seen = at + SignedDuration::from_secs(seen_after_secs);
            assert_eq!(put_off.left(seen), Duration::from_secs(left), "{seen_after_secs}");
        }
        assert_eq!(put_off.left(Timestamp::MIN), Duration::ZERO);
        assert_eq!(put_off.left(Timestamp::MAX), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_was_given_up_and_arrived_after_all_has_arrived_and_a_refusal_cannot_undo_that() {
        let now = Timestamp::UNIX_EPOCH;
        let (_folder, store) = one_waits(now).await;
        let reply = first(&store).await.unwrap();
        store.begin_attempt(&reply).await.unwrap();
        store.attempted(&reply, SendResult::Never("no".to_owned()), rules(), now).await.unwrap();
        assert_eq!(counts(&store).await, [1, 0, 0, 1]);
        answer(&store, &reply.id, Answer::Acked, now).await;
        answer(&store, &reply.id, Answer::Nacked { code: 463 }, now).await;
        answer(&store, &MessageId::new("nobody's"), Answer::Nacked { code: 429 }, now).await;
        assert_eq!(counts(&store).await, [1, 0, 0, 0]);
        assert_eq!(store.given_up().await.unwrap(), []);
    }
}
