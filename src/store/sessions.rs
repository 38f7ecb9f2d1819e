//! The tables `sessions` and `kept_sessions`: which of an engine's histories belongs to a group, and those that the
//! owner has left. None is ever deleted here: a session is a name, and its history lies in the agent's folders.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::enqueue;
use super::waiting::{NextClaim, next_claim};
use super::{OutboxChange, Reply, Store};
use crate::commands::ChatSession;
use crate::types::{ChatId, Group, GroupName, TaskContext, TurnId};

/// The session of a group that has never begun another one; also its name for the owner.
const FIRST_SESSION: &str = "main";

/// Which history an engine goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineSession {
    /// The chat's own, by the engine's id of it: a plain name.
    OfChat(String),
    /// A fresh one, for this run of a task and nothing else.
    OfRun(i64),
}

impl EngineSession {
    /// The engine's id of it: a plain name.
    pub fn engine_id(&self) -> String {
        match self {
            Self::OfChat(id) => id.clone(),
            Self::OfRun(run) => format!("task-run-{run}"),
        }
    }

    pub fn is_of_run(&self) -> bool {
        match self {
            Self::OfChat(_) => false,
            Self::OfRun(_) => true,
        }
    }

    /// As what is told in it is kept.
    pub(super) fn context(&self) -> TaskContext {
        match self {
            Self::OfChat(_) => TaskContext::Group,
            Self::OfRun(_) => TaskContext::Isolated,
        }
    }
}

impl Store {
    /// The chat's own session of a group; the same for ever, until somebody asks for a new one.
    pub async fn chat_session(&self, name: &GroupName) -> Result<EngineSession> {
        let name = name.clone();
        self.with_connection(move |connection| read_chat_session(connection, &name)).await
    }

    /// The session in which the next turn of a group will be.
    pub async fn next_engine_session(&self, group: &Group) -> Result<EngineSession> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let next = next_claim(connection, &group.chat)?;
            session_of_claim(connection, &group.name, next)
        })
        .await
    }

    /// The turn in which the summary of a group's session is being made.
    pub async fn compaction_turn(&self, group: &Group) -> Result<Option<TurnId>> {
        let chat = group.chat.clone();
        self.with_connection(move |connection| {
            Ok(match read_open_compaction(connection, &chat)? {
                Some(OpenCompaction::InTurn(turn)) => Some(turn),
                Some(OpenCompaction::Asked) | None => None,
            })
        })
        .await
    }

    /// Gives the summary up that somebody has asked for and no turn has begun with. The chat is told so.
    pub async fn give_up_asked_compaction(
        &self,
        group: &Group,
        notice: String,
        now: Timestamp,
    ) -> Result<OutboxChange> {
        let chat = group.chat.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let was_asked = give_up_asked_compaction(&transaction, &chat, &notice, now)?;
            transaction.commit()?;
            Ok(if was_asked { OutboxChange::Changed } else { OutboxChange::Same })
        })
        .await
    }
}

/// Notes that the current session of a group is to be put into a summary.
pub(super) fn ask_for_compaction(connection: &Connection, group: &GroupName) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO sessions (group_name, engine_session, compaction_turn) VALUES (?1, ?2, 0)
             ON CONFLICT (group_name) DO UPDATE SET compaction_turn = coalesce(compaction_turn, 0)",
        )?
        .execute(params![group.as_str(), FIRST_SESSION])?;
    Ok(())
}

/// Where the summary of a session is that somebody has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenCompaction {
    Asked,
    InTurn(TurnId),
}

/// The summary that is still to be made of the session of a chat's group. If no turn runs there, one that is in
/// a turn is of a turn whose end could not be written, and is to be made, too.
pub(super) fn read_open_compaction(connection: &Connection, chat: &ChatId) -> Result<Option<OpenCompaction>> {
    let turn: Option<i64> = connection
        .prepare_cached(
            "SELECT compaction_turn FROM sessions JOIN groups ON groups.name = group_name
             WHERE groups.chat = ?1 AND compaction_turn IS NOT NULL",
        )?
        .query_row([chat.as_str()], |row| row.get(0))
        .optional()?;
    Ok(turn.map(|turn| match turn {
        0 => OpenCompaction::Asked,
        turn => OpenCompaction::InTurn(TurnId(turn)),
    }))
}

/// The groups that are served and whose session is to be put into a summary.
pub(super) fn groups_with_asked_compaction(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT group_name FROM sessions JOIN groups ON groups.name = group_name WHERE compaction_turn = 0",
    )?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// This turn puts the current session of a group into a summary.
pub(super) fn begin_compaction(connection: &Connection, group: &GroupName, turn: TurnId) -> Result<()> {
    connection
        .prepare_cached("UPDATE sessions SET compaction_turn = ?2 WHERE group_name = ?1")?
        .execute(params![group.as_str(), turn.0])?;
    Ok(())
}

/// The end of a turn, if it was one that makes a summary. What the chat was not told of is to be done again.
pub(super) fn end_compaction(connection: &Connection, turn: TurnId, was_told: bool) -> Result<()> {
    connection
        .prepare_cached("UPDATE sessions SET compaction_turn = iif(?2, NULL, 0) WHERE compaction_turn = ?1")?
        .execute(params![turn.0, was_told])?;
    Ok(())
}

/// The summary that a chat's group waits for is not made, whether a turn has begun with it or not.
pub(super) fn drop_compaction(connection: &Connection, chat: &ChatId) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE sessions SET compaction_turn = NULL
             WHERE compaction_turn IS NOT NULL AND group_name IN (SELECT name FROM groups WHERE chat = ?1)",
        )?
        .execute([chat.as_str()])?;
    Ok(())
}

/// The same for what no turn has begun with; the chat is told so. Returns whether there was such.
pub(super) fn give_up_asked_compaction(
    connection: &Connection,
    chat: &ChatId,
    notice: &str,
    now: Timestamp,
) -> Result<bool> {
    if read_open_compaction(connection, chat)? != Some(OpenCompaction::Asked) {
        return Ok(false);
    }
    drop_compaction(connection, chat)?;
    enqueue::enqueue_reply(connection, chat, None, &Reply::from_text(notice), now)?;
    Ok(true)
}

/// A process that was killed leaves it to the next one.
pub(super) fn release_lost_compactions(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE sessions SET compaction_turn = 0 WHERE compaction_turn > 0", [])?;
    Ok(())
}

/// The session in which this is told.
pub(super) fn session_of_claim(
    connection: &Connection,
    group: &GroupName,
    claim: Option<NextClaim>,
) -> Result<EngineSession> {
    match claim {
        Some(NextClaim::Run { run, context: TaskContext::Isolated, .. }) => Ok(EngineSession::OfRun(run)),
        Some(NextClaim::Run { context: TaskContext::Group, .. } | NextClaim::Messages { .. }) | None => {
            read_chat_session(connection, group)
        }
    }
}

fn read_chat_session(connection: &Connection, group: &GroupName) -> Result<EngineSession> {
    current_session(connection, group).map(EngineSession::OfChat)
}

fn current_session(connection: &Connection, group: &GroupName) -> Result<String> {
    let current = connection
        .prepare_cached("SELECT engine_session FROM sessions WHERE group_name = ?1")?
        .query_row([group.as_str()], |row| row.get(0))
        .optional()?;
    Ok(current.unwrap_or_else(|| FIRST_SESSION.to_owned()))
}

/// The sessions of a group, the current one first.
pub(super) fn read_sessions(connection: &Connection, group: &GroupName) -> Result<Vec<ChatSession>> {
    let current = current_session(connection, group)?;
    let mut statement = connection.prepare_cached(
        "SELECT engine_session, name, left_nth FROM kept_sessions
         WHERE group_name = ?1 ORDER BY engine_session IS NOT ?2, left_nth DESC",
    )?;
    let mut sessions = statement
        .query_map(params![group.as_str(), current], |row| {
            Ok(ChatSession { id: row.get(0)?, name: row.get(1)?, left_nth: row.get(2)? })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if sessions.first().is_none_or(|first| first.id != current) {
        sessions.insert(0, ChatSession { id: current.clone(), name: current, left_nth: None });
    }
    Ok(sessions)
}

/// Leaves the current session of a group for another one, which may be new. The next prompt begins in it.
pub(super) fn change_session(connection: &Connection, group: &GroupName, to: &ChatSession) -> Result<()> {
    let left = current_session(connection, group)?;
    connection
        .prepare_cached(
            "INSERT INTO kept_sessions (group_name, engine_session, name, left_nth)
             VALUES (?1, ?2, ?2, (SELECT coalesce(max(left_nth), 0) + 1 FROM kept_sessions WHERE group_name = ?1))
             ON CONFLICT (group_name, engine_session) DO UPDATE SET left_nth = excluded.left_nth",
        )?
        .execute(params![group.as_str(), left])?;
    connection
        .prepare_cached(
            "INSERT INTO kept_sessions (group_name, engine_session, name) VALUES (?1, ?2, ?3)
             ON CONFLICT (group_name, engine_session) DO NOTHING",
        )?
        .execute(params![group.as_str(), to.id, to.name])?;
    connection
        .prepare_cached(
            "INSERT INTO sessions (group_name, engine_session, since_turn)
             VALUES (?1, ?2, (SELECT coalesce(max(id), 0) FROM turns))
             ON CONFLICT (group_name) DO UPDATE SET
                 engine_session = excluded.engine_session, since_turn = excluded.since_turn,
                 compaction_turn = NULL",
        )?
        .execute(params![group.as_str(), to.id])?;
    Ok(())
}
