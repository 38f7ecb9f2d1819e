//! The shape of the database: migrations that only go forward, and the settings of every connection.
//!
//! `docs/schema.sql` shows the result; a test keeps the two equal.

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, TransactionBehavior};

/// How long a connection waits for another process's transaction before it gives up.
const BUSY_TIMEOUT_MILLIS: u32 = 5_000;

/// Each entry brings the database from the version of its index to the next. Never edit one that was
/// released.
const MIGRATIONS: [&str; 17] = ["
    CREATE TABLE install (
        id TEXT NOT NULL
    ) STRICT;

    CREATE TABLE chats (
        id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        seen_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE groups (
        name TEXT PRIMARY KEY NOT NULL,
        chat TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL CHECK (role IN ('main', 'member')),
        trigger TEXT,
        added_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX groups_one_main ON groups (role) WHERE role = 'main';

    CREATE TABLE sessions (
        group_name TEXT PRIMARY KEY NOT NULL,
        engine_session TEXT NOT NULL
    ) STRICT;

    CREATE TABLE turns (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL,
        began_at INTEGER NOT NULL,
        ended_at INTEGER,
        outcome TEXT CHECK (outcome IN ('answered', 'failed', 'returned', 'lost')),
        input_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX turns_open ON turns (id) WHERE ended_at IS NULL;

    CREATE TABLE inbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat TEXT NOT NULL,
        wa_id TEXT NOT NULL,
        sender TEXT NOT NULL,
        sender_name TEXT NOT NULL,
        text TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        quote_id TEXT,
        quote_sender_name TEXT,
        quote_text TEXT,
        wake TEXT NOT NULL CHECK (wake IN ('wakes', 'context')),
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'claimed', 'done', 'parked')),
        turn INTEGER REFERENCES turns (id),
        attempts INTEGER NOT NULL DEFAULT 0,
        UNIQUE (chat, wa_id)
    ) STRICT;
    CREATE INDEX inbox_pending ON inbox (chat, wake, id) WHERE state = 'pending';
    CREATE INDEX inbox_claimed ON inbox (turn) WHERE state = 'claimed';

    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat TEXT NOT NULL,
        wa_id TEXT NOT NULL UNIQUE,
        turn INTEGER REFERENCES turns (id),
        text TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        sent_at INTEGER,
        error TEXT
    ) STRICT;
    CREATE INDEX outbox_queued ON outbox (chat, id) WHERE state = 'queued';
", "
    CREATE TABLE people (
        id TEXT PRIMARY KEY NOT NULL,
        person INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX people_person ON people (person);

    CREATE TABLE account (
        id TEXT NOT NULL,
        lid TEXT,
        name TEXT NOT NULL
    ) STRICT;

    CREATE TABLE link (
        state TEXT NOT NULL,
        until INTEGER,
        changed_at INTEGER NOT NULL
    ) STRICT;

    ALTER TABLE chats ADD COLUMN members INTEGER;
    ALTER TABLE chats ADD COLUMN expires_secs INTEGER;
    ALTER TABLE groups ADD COLUMN away_told_at INTEGER;

    CREATE TABLE new_inbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat TEXT NOT NULL,
        wa_id TEXT NOT NULL,
        sender TEXT NOT NULL,
        sender_name TEXT NOT NULL,
        text TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        quote_id TEXT,
        quote_sender_name TEXT,
        quote_text TEXT,
        edits TEXT,
        media_kind TEXT CHECK (media_kind IN ('image', 'video', 'voice', 'audio', 'document', 'sticker')),
        media_mime TEXT,
        media_name TEXT,
        media_bytes INTEGER,
        media_handle BLOB,
        media_state TEXT CHECK (media_state IN ('wanted', 'saved', 'missing')),
        media_path TEXT,
        media_missing TEXT,
        wake TEXT NOT NULL CHECK (wake IN ('wakes', 'context')),
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'claimed', 'done', 'parked')),
        turn INTEGER REFERENCES turns (id),
        attempts INTEGER NOT NULL DEFAULT 0,
        UNIQUE (chat, wa_id, sender)
    ) STRICT;
    INSERT INTO new_inbox (id, chat, wa_id, sender, sender_name, text, sent_at, received_at, quote_id, quote_sender_name,
                           quote_text, wake, state, turn, attempts)
    SELECT id, chat, wa_id, sender, sender_name, text, sent_at, received_at, quote_id, quote_sender_name,
           quote_text, wake, state, turn, attempts FROM inbox;
    DROP TABLE inbox;
    ALTER TABLE new_inbox RENAME TO inbox;
    CREATE INDEX inbox_pending ON inbox (chat, wake, id) WHERE state = 'pending';
    CREATE INDEX inbox_claimed ON inbox (turn) WHERE state = 'claimed';
    CREATE INDEX inbox_wanted ON inbox (chat, id) WHERE media_state = 'wanted' AND state = 'pending';
    CREATE INDEX inbox_chat ON inbox (chat, id);

    CREATE TABLE new_outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat TEXT NOT NULL,
        wa_id TEXT NOT NULL UNIQUE,
        turn INTEGER REFERENCES turns (id),
        kind TEXT NOT NULL DEFAULT 'text' CHECK (kind IN ('text', 'file', 'reaction')),
        text TEXT NOT NULL,
        mentions TEXT,
        path TEXT,
        quote_id TEXT,
        quote_sender TEXT,
        quote_text TEXT,
        state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'acked', 'nacked', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        sent_at INTEGER,
        error TEXT
    ) STRICT;
    INSERT INTO new_outbox (id, chat, wa_id, turn, text, state, attempts, due_at, created_at, sent_at, error)
    SELECT id, chat, wa_id, turn, text, iif(state = 'sent', 'acked', state), attempts, due_at, created_at, sent_at,
           error FROM outbox;
    DROP TABLE outbox;
    ALTER TABLE new_outbox RENAME TO outbox;
    CREATE INDEX outbox_queued ON outbox (chat, id) WHERE state = 'queued';
    CREATE INDEX outbox_sent ON outbox (sent_at) WHERE state = 'sent';
", "
    ALTER TABLE groups ADD COLUMN engine TEXT;
    ALTER TABLE groups ADD COLUMN web TEXT NOT NULL DEFAULT 'web' CHECK (web IN ('none', 'allowlist', 'web'));
    ALTER TABLE groups ADD COLUMN web_hosts TEXT NOT NULL DEFAULT '';
    ALTER TABLE groups ADD COLUMN daily_tokens INTEGER;
    -- Until now there was one engine.
    ALTER TABLE turns ADD COLUMN engine TEXT NOT NULL DEFAULT 'kimi-cli';
    CREATE INDEX turns_answered ON turns (group_name, id) WHERE outcome = 'answered';
    ALTER TABLE groups ADD COLUMN outage_told_at INTEGER;

    CREATE TABLE outages (
        outage TEXT PRIMARY KEY NOT NULL,
        since INTEGER NOT NULL,
        ended_at INTEGER,
        told_at INTEGER
    ) STRICT;

    ALTER TABLE groups ADD COLUMN limit_told_at INTEGER;
    CREATE INDEX turns_group ON turns (group_name, began_at);

    CREATE TABLE web_traffic (
        group_name TEXT NOT NULL,
        day TEXT NOT NULL,
        sent_bytes INTEGER NOT NULL,
        received_bytes INTEGER NOT NULL,
        PRIMARY KEY (group_name, day)
    ) STRICT;
", "
    ALTER TABLE turns ADD COLUMN outage TEXT;
", "
    -- Pauses instead of times: a wall clock may be set.
    ALTER TABLE outbox DROP COLUMN due_at;
    ALTER TABLE outbox ADD COLUMN put_off_at INTEGER;
    ALTER TABLE outbox ADD COLUMN pause_millis INTEGER;
    -- Which turns began later: their order is no matter of a clock.
    ALTER TABLE outages ADD COLUMN since_turn INTEGER NOT NULL DEFAULT 0;
", "
    CREATE TABLE persons (
        id INTEGER PRIMARY KEY AUTOINCREMENT
    ) STRICT;
    INSERT INTO persons (id) SELECT DISTINCT person FROM people;
    INSERT INTO people (id, person)
    SELECT sender, (SELECT coalesce(max(id), 0) FROM persons) + row_number() OVER (ORDER BY min(id))
    FROM inbox WHERE sender NOT IN (SELECT id FROM people) GROUP BY sender;
    INSERT INTO persons (id) SELECT person FROM people WHERE person NOT IN (SELECT id FROM persons);

    ALTER TABLE groups ADD COLUMN forwards TEXT NOT NULL DEFAULT 'told' CHECK (forwards IN ('told', 'call'));

    ALTER TABLE inbox ADD COLUMN forwarded TEXT CHECK (forwarded IN ('once', 'many'));
    ALTER TABLE inbox ADD COLUMN text_path TEXT;
    ALTER TABLE inbox ADD COLUMN quote_sender TEXT;
    ALTER TABLE inbox ADD COLUMN quote_source TEXT CHECK (quote_source IN ('kai', 'chat', 'client'));
    ALTER TABLE inbox ADD COLUMN quote_media_kind TEXT
        CHECK (quote_media_kind IN ('image', 'video', 'voice', 'audio', 'document', 'sticker'));
    ALTER TABLE inbox ADD COLUMN quote_media_mime TEXT;
    ALTER TABLE inbox ADD COLUMN quote_media_name TEXT;
    ALTER TABLE inbox ADD COLUMN quote_media_bytes INTEGER;
    ALTER TABLE inbox ADD COLUMN quote_media_handle BLOB;
    ALTER TABLE inbox ADD COLUMN quote_media_state TEXT CHECK (quote_media_state IN ('wanted', 'saved', 'missing'));
    ALTER TABLE inbox ADD COLUMN quote_media_path TEXT;
    ALTER TABLE inbox ADD COLUMN quote_media_missing TEXT;
    DROP INDEX inbox_wanted;
    CREATE INDEX inbox_wanted ON inbox (chat, id)
        WHERE state = 'pending' AND (media_state = 'wanted' OR quote_media_state = 'wanted');
    CREATE INDEX inbox_edits ON inbox (chat, edits) WHERE edits IS NOT NULL;
    CREATE INDEX inbox_claims ON inbox (chat, quote_id) WHERE state = 'pending' AND quote_source = 'client';
", "
    CREATE TABLE stops (
        group_name TEXT PRIMARY KEY NOT NULL,
        why TEXT NOT NULL CHECK (why IN ('disk', 'kernel')),
        at INTEGER NOT NULL
    ) STRICT;
", "
    ALTER TABLE outbox ADD COLUMN message BLOB;
    ALTER TABLE outbox ADD COLUMN delivered_at INTEGER;
    ALTER TABLE outbox ADD COLUMN read_at INTEGER;
    -- Until now nobody asked whether it was.
    UPDATE outbox SET delivered_at = coalesce(sent_at, created_at) WHERE state = 'acked';
    CREATE INDEX outbox_undelivered ON outbox (sent_at) WHERE state = 'acked' AND delivered_at IS NULL;
    CREATE INDEX outbox_acked ON outbox (chat, id) WHERE state = 'acked';

    CREATE TABLE recipients (
        reply INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
        person TEXT NOT NULL,
        phone_at INTEGER,
        companion_at INTEGER,
        suspected_at INTEGER,
        suspected TEXT CHECK (suspected IN ('phone', 'companion')),
        suspicions INTEGER NOT NULL DEFAULT 0,
        repairs INTEGER NOT NULL DEFAULT 0,
        repair_at INTEGER,
        PRIMARY KEY (reply, person)
    ) STRICT;
    CREATE INDEX recipients_person ON recipients (person, reply);
    CREATE INDEX recipients_repair ON recipients (repair_at) WHERE repair_at IS NOT NULL;
", "
    CREATE TABLE unread (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat TEXT NOT NULL,
        wa_id TEXT NOT NULL,
        sender_name TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        noticed_at INTEGER NOT NULL,
        ask_at INTEGER NOT NULL,
        asked INTEGER NOT NULL DEFAULT 0,
        told_at INTEGER,
        handle BLOB NOT NULL,
        UNIQUE (chat, wa_id)
    ) STRICT;
", "
    ALTER TABLE groups ADD COLUMN unread_told_at INTEGER;
    ALTER TABLE groups ADD COLUMN unread_more INTEGER NOT NULL DEFAULT 0;
    UPDATE groups SET unread_told_at = (SELECT max(told_at) FROM unread WHERE unread.chat = groups.chat);
    ALTER TABLE groups ADD COLUMN stale_told_at INTEGER;
    ALTER TABLE groups ADD COLUMN stale_more INTEGER NOT NULL DEFAULT 0;
", "
    -- kimi-cli was the engine of those who chose none: a group that has worked with it goes on with it.
    UPDATE groups SET engine = 'kimi-cli' WHERE engine IS NULL AND
        (SELECT turns.engine FROM turns WHERE turns.group_name = groups.name ORDER BY turns.id DESC LIMIT 1) = 'kimi-cli';
", "
    CREATE TABLE tasks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL REFERENCES groups (name) ON DELETE CASCADE,
        text TEXT NOT NULL,
        schedule TEXT NOT NULL,
        zone TEXT NOT NULL,
        late TEXT NOT NULL DEFAULT 'once',
        context TEXT NOT NULL DEFAULT 'group' CHECK (context IN ('group', 'isolated')),
        max_tokens INTEGER,
        state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'done')),
        paused_why TEXT CHECK (paused_why IN ('asked', 'failures', 'tokens')),
        pause_told_at INTEGER,
        next_at INTEGER,
        failures INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX tasks_due ON tasks (next_at) WHERE state = 'active';
    CREATE INDEX tasks_group ON tasks (group_name);
    CREATE INDEX tasks_untold ON tasks (id) WHERE state = 'paused' AND pause_told_at IS NULL;

    CREATE TABLE task_runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
        due_at INTEGER NOT NULL,
        late_millis INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('due', 'running', 'answered', 'failed', 'unknown', 'skipped')),
        turn INTEGER,
        tokens INTEGER NOT NULL DEFAULT 0,
        ended_at INTEGER,
        told_at INTEGER,
        UNIQUE (task, due_at)
    ) STRICT;
    CREATE INDEX task_runs_open ON task_runs (task) WHERE state IN ('due', 'running');
    CREATE INDEX task_runs_running ON task_runs (turn) WHERE state = 'running';
    CREATE INDEX task_runs_untold ON task_runs (id) WHERE state = 'unknown' AND told_at IS NULL;

    ALTER TABLE inbox ADD COLUMN task_run INTEGER;
    CREATE INDEX inbox_task_run ON inbox (task_run) WHERE task_run IS NOT NULL;
", "
    ALTER TABLE groups ADD COLUMN senders TEXT NOT NULL DEFAULT 'anyone'
        CHECK (senders IN ('anyone', 'listed', 'owner'));
    ALTER TABLE groups ADD COLUMN others TEXT NOT NULL DEFAULT 'context' CHECK (others IN ('context', 'dropped'));
    ALTER TABLE groups ADD COLUMN refusals TEXT NOT NULL DEFAULT 'silent' CHECK (refusals IN ('silent', 'told'));
    ALTER TABLE groups ADD COLUMN turns_per_hour INTEGER;
    ALTER TABLE groups ADD COLUMN turn_tokens INTEGER;
    ALTER TABLE groups ADD COLUMN folders TEXT NOT NULL DEFAULT '';

    CREATE TABLE allowed_senders (
        group_name TEXT NOT NULL,
        person TEXT NOT NULL,
        PRIMARY KEY (group_name, person)
    ) STRICT;

    CREATE TABLE sender_notices (
        group_name TEXT NOT NULL,
        person TEXT NOT NULL,
        why TEXT NOT NULL CHECK (why IN ('not_allowed', 'too_many_calls')),
        told_at INTEGER NOT NULL,
        PRIMARY KEY (group_name, person, why)
    ) STRICT;

    CREATE TABLE sender_calls (
        group_name TEXT NOT NULL,
        person TEXT NOT NULL,
        called_at INTEGER NOT NULL
    ) STRICT;
    ALTER TABLE inbox ADD COLUMN media_words TEXT;
    ALTER TABLE inbox ADD COLUMN media_unheard TEXT;
    ALTER TABLE inbox ADD COLUMN quote_media_words TEXT;
    ALTER TABLE inbox ADD COLUMN quote_media_unheard TEXT;

    CREATE INDEX sender_calls_group ON sender_calls (group_name, called_at);
", "
    ALTER TABLE sessions ADD COLUMN since_turn INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE groups ADD COLUMN model TEXT;

    CREATE TABLE kept_sessions (
        group_name TEXT NOT NULL,
        engine_session TEXT NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        left_nth INTEGER,
        PRIMARY KEY (group_name, engine_session),
        UNIQUE (group_name, name)
    ) STRICT;
", "
    CREATE TABLE approvals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        asker TEXT,
        asker_chat TEXT,
        action TEXT NOT NULL CHECK (action IN ('send_message', 'remove_group', 'serve_chat', 'ask_owner')),
        target_chat TEXT,
        target_group TEXT,
        text TEXT NOT NULL DEFAULT '',
        about TEXT NOT NULL,
        question_id TEXT NOT NULL UNIQUE,
        asked_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'granted', 'refused', 'expired', 'void')),
        ended_at INTEGER
    ) STRICT;
    CREATE INDEX approvals_open ON approvals (expires_at) WHERE state = 'open';
    CREATE INDEX approvals_chat ON approvals (target_chat) WHERE action = 'serve_chat';

    ALTER TABLE outbox ADD COLUMN chart TEXT;
", "
    ALTER TABLE turns ADD COLUMN context TEXT NOT NULL DEFAULT 'group' CHECK (context IN ('group', 'isolated'));
    ALTER TABLE sessions ADD COLUMN compaction_turn INTEGER;
    ALTER TABLE tasks ADD COLUMN last_answer TEXT;
    ALTER TABLE tasks ADD COLUMN last_answer_at INTEGER;
    ALTER TABLE tasks ADD COLUMN only_if TEXT;
    ALTER TABLE task_runs ADD COLUMN why TEXT;

    CREATE INDEX outbox_turn ON outbox (turn) WHERE turn IS NOT NULL;
", "
    CREATE TABLE gateway_keys (
        name TEXT PRIMARY KEY NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        daily_tokens INTEGER,
        models TEXT,
        identity TEXT NOT NULL CHECK (identity IN ('own', 'kimi-cli')),
        added_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE gateway_usage (
        key_name TEXT NOT NULL,
        day TEXT NOT NULL,
        requests INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        PRIMARY KEY (key_name, day)
    ) STRICT;
"];

/// How much of the journal's file is kept: four times what SQLite lets it grow to in everyday use.
pub const JOURNAL_KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// As many as there are: with fewer, each message would have most of its statements prepared anew.
const STATEMENTS_KEPT: usize = 128;

/// Sets a new connection up: durable commits, enforced references.
///
/// # Errors
/// Refuses a database of a newer nanokimi, untouched.
pub fn configure_connection(connection: &Connection) -> Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MILLIS.into()))?;
    // Before the journal's mode, which is kept in the file.
    read_schema_version(connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit is on disk before WhatsApp hears that we have the message.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // After a great change the journal is cut to this once it begins anew, instead of keeping its greatest
    // size.
    connection.pragma_update(None, "journal_size_limit", i64::try_from(JOURNAL_KEPT_BYTES)?)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// Brings the database to the newest version, in one transaction.
///
/// # Errors
/// As [`configure_connection`].
pub fn migrate_schema(connection: &mut Connection) -> Result<()> {
    let newest = MIGRATIONS.len();
    if read_schema_version(connection)? == newest {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: another process may have migrated while we waited.
    let version = self::read_schema_version(&transaction)?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        transaction
            .execute_batch(migration)
            .with_context(|| format!("Failed to migrate to version {}", index + 1))?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(newest)?)?;
    transaction.commit()?;
    Ok(())
}

/// Refuses a database of another nanokimi, older or newer: nothing here would find its way in it.
///
/// # Errors
/// It is of another version.
pub fn require_newest_version(connection: &Connection) -> Result<()> {
    let (version, newest) = (read_schema_version(connection)?, MIGRATIONS.len());
    ensure!(version == newest, "The database is of version {version}, and not of {newest}");
    Ok(())
}

/// Which migration this database is at; one that we do not know is refused.
fn read_schema_version(connection: &Connection) -> Result<usize> {
    let newest = MIGRATIONS.len();
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(version) if version <= newest => Ok(version),
        Ok(_) | Err(_) => bail!(
            "The database was written by a newer nanokimi (its version is {version}, this one knows {newest}); \
             install the newer nanokimi again. Nothing was changed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_schema_is_the_real_one() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_schema(&mut connection).unwrap();
        let mut statement = connection
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid")
            .unwrap();
        let real: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        // SQLite puts a column that came later behind a space and before the bracket.
        let words = |sql: &str| {
            let apart = sql.replace(',', " , ").replace(')', " ) ");
            apart.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let documented: String = include_str!("../../docs/schema.sql")
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(words(&documented.replace(';', " ")), words(&real.join("\n")));
    }

    #[test]
    fn a_chat_that_was_told_before_it_was_counted_how_often_is_not_told_again_at_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        for migration in &MIGRATIONS[..9] {
            connection.execute_batch(migration).unwrap();
        }
        connection.pragma_update(None, "user_version", 9).unwrap();
        connection
            .execute_batch(
                "INSERT INTO groups (name, chat, role, added_at)
                 VALUES ('family', 'family@g.us', 'member', 0), ('work', 'work@g.us', 'member', 0);
                 INSERT INTO unread (chat, wa_id, sender_name, sent_at, noticed_at, ask_at, told_at, handle)
                 VALUES ('family@g.us', '1', 'Ana', 0, 0, 0, 7, x'00'),
                        ('family@g.us', '2', 'Ana', 0, 0, 0, 9, x'00'),
                        ('work@g.us', '3', 'Ana', 0, 0, 0, NULL, x'00')",
            )
            .unwrap();
        migrate_schema(&mut connection).unwrap();
        let mut statement =
            connection.prepare("SELECT unread_told_at, unread_more FROM groups ORDER BY name").unwrap();
        let told: Vec<(Option<i64>, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(told, [(Some(9), 0), (None, 0)]);
    }

    #[test]
    fn a_group_that_has_worked_with_the_engine_of_before_goes_on_with_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        for migration in &MIGRATIONS[..10] {
            connection.execute_batch(migration).unwrap();
        }
        connection.pragma_update(None, "user_version", 10).unwrap();
        connection
            .execute_batch(
                "INSERT INTO groups (name, chat, role, added_at, engine)
                 VALUES ('changed', '1@g.us', 'member', 0, NULL), ('chosen', '2@g.us', 'member', 0, 'kimi-code'),
                        ('new', '3@g.us', 'member', 0, NULL), ('old', '4@g.us', 'member', 0, NULL);
                 INSERT INTO turns (group_name, began_at, engine)
                 VALUES ('changed', 0, 'kimi-cli'), ('changed', 1, 'kimi-code'), ('chosen', 0, 'kimi-cli'),
                        ('old', 0, 'kimi-code'), ('old', 1, 'kimi-cli')",
            )
            .unwrap();
        migrate_schema(&mut connection).unwrap();
        let mut statement = connection.prepare("SELECT name, engine FROM groups ORDER BY name").unwrap();
        let engines: Vec<(String, Option<String>)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let engine = |name: &str, engine: Option<&str>| (name.to_owned(), engine.map(str::to_owned));
        assert_eq!(
            engines,
            [
                engine("changed", None),
                engine("chosen", Some("kimi-code")),
                engine("new", None),
                engine("old", Some("kimi-cli"))
            ]
        );
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate_schema(&mut connection).unwrap_err().to_string();
        assert!(error.contains("newer nanokimi"), "{error}");
        let kept: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(kept, 99);
    }
}
