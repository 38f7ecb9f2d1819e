//! What nanokimi remembers: one SQLite file, in the only module that speaks SQL.
//!
//! Inbox and outbox are the hand-over points between the tasks of the service: the row is the truth, a
//! wake-up only a hint. Each hand-over is one transaction, in the module of its table. Calls run on Tokio's
//! blocking pool; one connection is enough, since SQLite writes one at a time anyway.

mod approvals;
mod claimed;
mod claims;
mod errors;
mod gateway_keys;
mod groups;
mod handover;
mod inbox;
mod lock;
mod media;
mod outage;
mod outbox;
mod owner;
mod people;
mod reading;
mod recipients;
mod reserve;
mod row;
mod schema;
mod senders;
mod sessions;
mod stops;
mod tasks;
mod turn_messages;
mod turns;
mod unread;
mod usage;
mod waiting;
mod web_traffic;
mod whatsapp_account;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub use approvals::{ExpiredApprovals, HeldCall, HoldResult};
pub use claims::Claim;
pub use errors::is_caused_by_data;
pub use gateway_keys::{KeyHash, KeyUsage, KnownKey};
pub use groups::KnownChat;
pub use inbox::{IntakeResult, StoppedTurn};
pub use lock::InstanceLock;
pub use media::{AttachedTo, WantedFile};
pub use outbox::{
    DelayedReplies, DueReply, GivenUp, QuotedMessage, Reply, ReplyContent, RetryPause, SendAttempt,
    SentReply, StaleCutoff,
};
pub use recipients::{DueRepair, RepairBatch, UndeliveredReplies};
pub use row::{OutboxChange, RowId};
pub use senders::KnownSender;
pub use sessions::EngineSession;
pub use stops::AgentStop;
pub use tasks::ClaimedTasks;
pub use turn_messages::{TurnMessage, TurnMessageResult};
pub use turns::{QueueCounts, TurnEnding};
pub use unread::{UnreadCount, UnreadWork};
pub use usage::{DayUsage, GroupStatus, GroupUsage};
pub use whatsapp_account::LinkRecord;

pub use crate::rules::Rules;
pub use crate::rules::delivery::SendResult;
pub use crate::rules::tasks::{TaskDraft, TaskEdit, TaskRefusal};
pub use crate::rules::turns::{MAX_ATTEMPTS, PendingAfterTurn, TurnOutcome};

use crate::panics::{lock_unpoisoned, run_blocking};
use crate::types::InstallId;

/// How long messages and sent replies are kept: long enough for redeliveries and late quotes.
const KEEP_DAYS: i64 = 90;

/// Rows of a table that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: u32 = 10_000;

/// A handle to the database. Cheap to clone; the lock within is private and never held over an await.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the database, making it and its folder (0700, file 0600) if they are not there, and migrates it.
    ///
    /// # Errors
    /// A file that cannot be read, is not a database, or is of a newer nanokimi; each says so and changes nothing.
    pub fn open(path: &Path) -> Result<Self> {
        create_private_file(path)
            .and_then(|()| Self::connect_and_migrate(path))
            .map_err(|error| errors::explain_error(error, path))
    }

    /// Opens the database, if there is one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_existing(path: &Path) -> Result<Option<Self>> {
        let found = path.try_exists().map_err(|error| errors::explain_error(error.into(), path))?;
        if found { Self::open(path).map(Some) } else { Ok(None) }
    }

    /// Opens the database, if there is one, for somebody who only reads: also when nothing can be written, as
    /// the disk is full or read-only.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_for_reading(path: &Path) -> Result<Option<Self>> {
        let found = path.try_exists().map_err(|error| errors::explain_error(error.into(), path))?;
        if !found {
            return Ok(None);
        }
        let opened =
            create_private_file(path).and_then(|()| Self::connect_and_migrate(path)).or_else(|error| {
                if !errors::is_write_error(&error) {
                    return Err(error);
                }
                // What kept it from being opened says more than why it cannot be read, either.
                reading::connect_read_only(path)
                    .map(|connection| Self::from_connection(connection, path))
                    .map_err(|_| error)
            });
        opened.map(Some).map_err(|error| errors::explain_error(error, path))
    }

    fn connect_and_migrate(path: &Path) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        schema::configure_connection(&connection)?;
        schema::migrate_schema(&mut connection)?;
        // A transaction that begins by reading could not write any more once another process has written.
        connection.set_transaction_behavior(TransactionBehavior::Immediate);
        Ok(Self::from_connection(connection, path))
    }

    fn from_connection(connection: Connection, path: &Path) -> Self {
        Self { connection: Arc::new(Mutex::new(connection)), path: path.into() }
    }

    /// Keeps room on the disk for what will be written, as far as there is enough of it: for hundreds of
    /// turns, when the disk is full otherwise. A disk that has no such thing does without.
    pub async fn reserve_disk_space(&self) {
        let path = Arc::clone(&self.path);
        let reserved =
            run_blocking(move || reserve::preallocate_journal(&path, schema::JOURNAL_KEPT_BYTES)).await;
        if let Err(error) = reserved.map_err(io::Error::other).flatten() {
            tracing::warn!("Failed to reserve room on the disk for the database: {error}");
        }
    }

    /// Looks through the whole file for damage.
    ///
    /// # Errors
    /// There is some, or the file cannot be read.
    pub async fn check_integrity(&self) -> Result<()> {
        let path = Arc::clone(&self.path);
        self.with_connection(move |connection| {
            // More than the first finding would say nothing more to anybody.
            let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if found == "ok" { Ok(()) } else { Err(errors::corrupt_database_error(&path)) }
        })
        .await
    }

    /// Runs `work` with the connection on the blocking pool.
    async fn with_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        run_blocking(move || {
            // A panic in another call rolled its transaction back: the connection itself is sound.
            work(&mut lock_unpoisoned(&connection))
        })
        .await
        .context("Failed to end a call of the database")?
        .map_err(|error| errors::explain_error(error, &self.path))
    }

    /// This install's id, made at the first call.
    pub async fn install_id(&self) -> Result<InstallId> {
        self.with_connection(|connection| {
            let transaction = connection.transaction()?;
            let fresh = format!("{:016x}", rand::random::<u64>());
            transaction.execute(
                "INSERT INTO install (id) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM install)",
                [fresh],
            )?;
            let id: String = transaction.query_row("SELECT id FROM install", [], |row| row.get(0))?;
            transaction.commit()?;
            Ok(InstallId::new(id))
        })
        .await
    }

    /// Forgets what is more than [`KEEP_DAYS`] old, except what still waits for its answer or to be sent.
    ///
    /// Rows were written in the order of time: the search ends at the first young one, so that a start does
    /// not read everything that stays. If even the newest message is that old, the clock may be wrong: all
    /// would go at once, and so nothing goes before somebody writes again.
    pub async fn expire_old_rows(&self, now: Timestamp) -> Result<()> {
        let before = to_unix_millis(now) - KEEP_DAYS * 24 * 60 * 60 * 1000;
        while self.with_connection(move |connection| delete_expired_batch(connection, before)).await?
            == ExpiryProgress::MoreLeft
        {}
        self.with_connection(move |connection| {
            approvals::delete_old_approvals(connection, before)?;
            tasks::delete_done_tasks(connection, before)
        })
        .await
    }
}

/// Whether there may be more to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpiryProgress {
    MoreLeft,
    Complete,
}

/// Forgets at most [`FORGOTTEN_AT_ONCE`] rows of each table: other writers do not wait long meanwhile, and
/// the journal stays short.
fn delete_expired_batch(connection: &Connection, before: i64) -> Result<ExpiryProgress> {
    let newest: Option<i64> = connection
        .query_row("SELECT received_at FROM inbox ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    if newest.is_some_and(|newest| newest < before) {
        return Ok(ExpiryProgress::Complete);
    }
    let messages = connection.execute(
        "DELETE FROM inbox WHERE id IN
         (SELECT id FROM inbox
          WHERE id < coalesce((SELECT id FROM inbox WHERE received_at >= ?1 ORDER BY id LIMIT 1),
                              (SELECT max(id) + 1 FROM inbox))
            AND (state IN ('done', 'parked') OR (state = 'pending' AND wake = 'context'))
          ORDER BY id LIMIT ?2)",
        params![before, FORGOTTEN_AT_ONCE],
    )?;
    let replies = connection.execute(
        "DELETE FROM outbox WHERE id IN
         (SELECT id FROM outbox
          WHERE id < coalesce((SELECT id FROM outbox WHERE created_at >= ?1 ORDER BY id LIMIT 1),
                              (SELECT max(id) + 1 FROM outbox))
            AND state IN ('acked', 'nacked', 'dead')
          ORDER BY id LIMIT ?2)",
        params![before, FORGOTTEN_AT_ONCE],
    )?;
    let some = messages.max(replies) >= FORGOTTEN_AT_ONCE as usize;
    Ok(if some { ExpiryProgress::MoreLeft } else { ExpiryProgress::Complete })
}

/// Makes the file, private from its first byte; SQLite gives its WAL the same mode.
fn create_private_file(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(())
}

/// A time as the database keeps it.
fn to_unix_millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// The inverse of [`to_unix_millis`]; a value outside of jiff's range becomes the nearest time in it.
fn from_unix_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::*;
    use crate::types::{
        ChatId, Engine, Event, Forwarded, Group, GroupName, IncomingMessage, Lang, Mention, MessageId, Role,
        SenderId,
    };

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn message(id: &str, text: &str, sent_at: Timestamp) -> IncomingMessage {
        IncomingMessage {
            chat: ChatId::new("family@g.us"),
            id: MessageId::new(id),
            sender: SenderId::new("ana@s.whatsapp.net"),
            sender_name: "Ana".to_owned(),
            text: text.to_owned(),
            sent_at,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    pub(super) fn rules() -> Rules {
        Rules {
            assistant: "Kai".to_owned(),
            answer_within: Duration::from_secs(24 * 60 * 60),
            lang: Lang::En,
            reply_prefix: "Kai: ".to_owned(),
            zone: jiff::tz::TimeZone::UTC,
            engine: Engine::KimiCode,
            models: crate::types::OfferedModels::default(),
            direct_chats: crate::types::DirectChatPolicy::Listed,
        }
    }

    pub(super) async fn add_group(store: &Store, name: &str, role: Role, now: Timestamp) {
        let chat = ChatId::new(format!("{name}@g.us"));
        let group = Group::new(GroupName::parse(name).unwrap(), chat, role);
        store.add_group(&group, now).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_given_up_long_ago_is_forgotten_and_what_waits_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        add_group(&store, "family", Role::Member, began).await;
        let chat = ChatId::new("family@g.us");
        store.notify_chat(&chat, "lost", began).await.unwrap();
        let lost = store.next_queued_replies(Some(&chat)).await.unwrap().remove(0);
        store.begin_attempt(&lost).await.unwrap();
        store.record_attempt(&lost, SendResult::Never("no".to_owned()), rules(), began).await.unwrap();
        store.notify_chat(&chat, "still to be sent", began).await.unwrap();
        store.expire_old_rows(began + DAY * 89).await.unwrap();
        assert_eq!(store.given_up_replies().await.unwrap().len(), 1);
        store.expire_old_rows(began + DAY * 91).await.unwrap();
        assert_eq!(store.given_up_replies().await.unwrap(), []);
        assert_eq!(store.next_queued_replies(None).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_a_removed_group_was_told_when_the_host_was_killed_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        add_group(&store, "family", Role::Member, now).await;
        store
            .record_events(vec![Event::Message(message("1", "@Kai hello", now))], rules(), now)
            .await
            .unwrap();
        let family = store.all_groups().await.unwrap().remove(0);
        assert!(store.claim_pending_rows(&family, Engine::KimiCli, now).await.unwrap().is_some());
        store.remove_group(&family.name).await.unwrap();
        store.release_lost_claims("gave up".to_owned(), now).await.unwrap();
        let counts = store.queue_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.claimed), (0, 0));
    }

    #[tokio::test]
    async fn a_great_clean_up_leaves_no_great_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nanokimi.db");
        let store = Store::open(&path).unwrap();
        let write = |count: u32, at: i64| {
            store.with_connection(move |connection| {
                connection.execute(
                    "INSERT INTO inbox (chat, wa_id, sender, sender_name, text, sent_at, received_at, wake, state)
                     WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                     SELECT 'x@g.us', n || '-' || ?2, 'ana', 'Ana', printf('%.400c', 'x'), ?2, ?2, 'context', 'done'
                     FROM numbers",
                    params![count, at],
                )?;
                Ok(())
            })
        };
        let journal = || std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
        write(45_000, 0).await.unwrap();
        assert!(journal() > 20 * 1024 * 1024, "{}", journal());
        write(1, 1_000_000_000_000).await.unwrap();
        store.expire_old_rows(from_unix_millis(1_000_000_000_000)).await.unwrap();
        assert_eq!(kept(&store).await.len(), 1);
        assert!(journal() <= 16 * 1024 * 1024, "{}", journal());
    }

    #[tokio::test]
    async fn the_room_of_the_journal_is_taken_before_it_is_used_and_outlives_its_new_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nanokimi.db");
        let store = Store::open(&path).unwrap();
        let journal = || std::fs::metadata(reserve::journal_path(&path)).unwrap();
        let length = journal().len();
        store.reserve_disk_space().await;
        assert_eq!(journal().len(), length, "SQLite sees what it has written, and no more");
        let reserved = || journal().blocks() * 512 >= schema::JOURNAL_KEPT_BYTES;
        assert!(reserved());
        add_group(&store, "family", Role::Member, Timestamp::UNIX_EPOCH).await;
        let checkpoint = |connection: &mut Connection| {
            connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
            Ok(())
        };
        store.with_connection(checkpoint).await.unwrap();
        add_group(&store, "work", Role::Member, Timestamp::UNIX_EPOCH).await;
        assert!(reserved());
        assert_eq!(store.all_groups().await.unwrap().len(), 2);
    }

    async fn kept(store: &Store) -> Vec<String> {
        let ids = store.with_connection(|connection| {
            let mut statement = connection.prepare("SELECT wa_id FROM inbox ORDER BY id")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?)
        });
        ids.await.unwrap()
    }

    #[tokio::test]
    async fn what_is_old_is_forgotten_unless_somebody_waits_for_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        add_group(&store, "family", Role::Member, began).await;
        let take_in = |id: &str, text: &str, now: Timestamp| {
            store.record_events(vec![Event::Message(message(id, text, now))], rules(), now)
        };
        take_in("old", "We meet at nine.", began).await.unwrap();
        take_in("asked", "@Kai when do we meet?", began).await.unwrap();
        take_in("young", "See you there.", began + DAY * 50).await.unwrap();

        store.expire_old_rows(began + DAY * 89).await.unwrap();
        assert_eq!(kept(&store).await, ["old", "asked", "young"]);
        store.expire_old_rows(began + DAY * 91).await.unwrap();
        assert_eq!(kept(&store).await, ["asked", "young"]);
        // Nobody has written for 91 days, or the clock is wrong.
        store.expire_old_rows(began + DAY * 141).await.unwrap();
        assert_eq!(kept(&store).await, ["asked", "young"]);
        take_in("new", "Who is there?", began + DAY * 141).await.unwrap();
        store.expire_old_rows(began + DAY * 142).await.unwrap();
        assert_eq!(kept(&store).await, ["asked", "new"]);
    }
}
