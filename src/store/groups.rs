//! The tables `chats`, `groups` and `sessions`: which chats Kai serves, and which history belongs to each.

use anyhow::{Result, bail};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, millis};
use crate::types::{ChatId, Group, GroupName, Role};

impl Store {
    /// All groups, main first, then by name.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        self.with(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT name, chat, role, trigger FROM groups ORDER BY role, name")?;
            let groups = statement.query_map([], group_from)?.collect::<rusqlite::Result<Vec<_>>>()?;
            groups.into_iter().collect()
        })
        .await
    }

    pub async fn group(&self, name: &GroupName) -> Result<Option<Group>> {
        let name = name.clone();
        self.with(move |connection| {
            connection
                .prepare_cached("SELECT name, chat, role, trigger FROM groups WHERE name = ?1")?
                .query_row([name.as_str()], group_from)
                .optional()?
                .transpose()
        })
        .await
    }

    /// Registers a group.
    ///
    /// # Errors
    /// A name, chat or main channel that is taken; says by which group.
    pub async fn add_group(&self, group: &Group, now: Timestamp) -> Result<()> {
        let group = group.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            if let Some(taken) = taken(&transaction, &group)? {
                bail!("{taken}");
            }
            transaction.execute(
                "INSERT INTO groups (name, chat, role, trigger, added_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    group.name.as_str(),
                    group.chat.as_str(),
                    role_name(group.role),
                    group.trigger,
                    millis(now)
                ],
            )?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Unregisters a group. Its folder and its history stay; what was pending is not answered any more.
    pub async fn remove_group(&self, name: &GroupName) -> Result<()> {
        let name = name.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "UPDATE inbox SET state = 'done' WHERE state = 'pending'
                 AND chat = (SELECT chat FROM groups WHERE name = ?1)",
                [name.as_str()],
            )?;
            transaction.execute("DELETE FROM groups WHERE name = ?1", [name.as_str()])?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The engine's session id of a group; the same for ever, until somebody asks for a new one.
    pub async fn engine_session(&self, name: &GroupName) -> Result<String> {
        let name = name.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO sessions (group_name, engine_session) VALUES (?1, 'main') ON CONFLICT DO NOTHING",
                [name.as_str()],
            )?;
            let session = transaction.query_row(
                "SELECT engine_session FROM sessions WHERE group_name = ?1",
                [name.as_str()],
                |row| row.get(0),
            )?;
            transaction.commit()?;
            Ok(session)
        })
        .await
    }
}

/// Why a group cannot be registered, with what to do about it.
fn taken(connection: &Connection, group: &Group) -> Result<Option<String>> {
    let held_by = |condition: &str, value: &str| -> rusqlite::Result<Option<String>> {
        connection
            .query_row(&format!("SELECT name FROM groups WHERE {condition}"), [value], |row| row.get(0))
            .optional()
    };
    if let Some(name) = held_by("name = ?1", group.name.as_str())? {
        return Ok(Some(format!(
            "There is a group {name} already; to change it, `nanokimi groups remove {name}` first"
        )));
    }
    if let Some(name) = held_by("chat = ?1", group.chat.as_str())? {
        return Ok(Some(format!(
            "The group {name} serves that chat already; `nanokimi groups remove {name}` frees it"
        )));
    }
    if group.role == Role::Main
        && let Some(name) = held_by("role = ?1", role_name(Role::Main))?
    {
        return Ok(Some(format!(
            "The main channel is {name} already; `nanokimi groups remove {name}` makes room for another"
        )));
    }
    Ok(None)
}

/// The group of a chat, if it has one.
pub(super) fn group_of(connection: &Connection, chat: &ChatId) -> Result<Option<Group>> {
    connection
        .prepare_cached("SELECT name, chat, role, trigger FROM groups WHERE chat = ?1")?
        .query_row([chat.as_str()], group_from)
        .optional()?
        .transpose()
}

/// Remembers that a chat exists and what it is called now.
pub(super) fn see_chat(
    connection: &Connection,
    chat: &ChatId,
    name: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO chats (id, name, seen_at) VALUES (?1, coalesce(?2, ?1), ?3)
             ON CONFLICT (id) DO UPDATE SET name = coalesce(?2, name), seen_at = max(seen_at, ?3)",
        )?
        .execute(params![chat.as_str(), name, millis(now)])?;
    Ok(())
}

fn group_from(row: &Row<'_>) -> rusqlite::Result<Result<Group>> {
    let (name, chat, role, trigger): (String, String, String, Option<String>) =
        (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(GroupName::parse(&name).map(|name| Group {
        name,
        chat: ChatId::new(chat),
        role: if role == "main" { Role::Main } else { Role::Member },
        trigger,
    }))
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Main => "main",
        Role::Member => "member",
    }
}
