//! The tables `chats` and `groups`: which chats there are, and which of them Kai serves.

use anyhow::{Result, bail};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, people, to_unix_millis};
use crate::types::{
    ChatId, EngineChoice, ExtraFolder, ForwardPolicy, Group, GroupName, HostName, OthersPolicy,
    RefusalPolicy, Role, SenderPolicy, SenderRule, WebPolicy,
};

/// What [`group_from_row`] reads.
const COLUMNS: &str = "name, chat, role, trigger, engine, web, web_hosts, daily_tokens, forwards, senders, others, refusals, \
     turns_per_hour, turn_tokens, folders, model";

/// A WhatsApp chat that was ever heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownChat {
    pub id: ChatId,
    /// As WhatsApp calls it; the id, if that is not known.
    pub name: String,
    pub members: Option<u32>,
    /// The group that serves it.
    pub registered: Option<GroupName>,
}

impl Store {
    /// The chats to choose from: the one with oneself first, then groups, then direct chats, each by name.
    pub async fn known_chats(&self) -> Result<Vec<KnownChat>> {
        self.with_connection(|connection| {
            // Before its first message the chat with oneself is only known from the account.
            let mut statement = connection.prepare(&format!(
                "WITH own AS (SELECT names.id FROM account, people AS me JOIN people AS names USING (person)
                              WHERE me.id = account.id
                              UNION SELECT id FROM account),
                      known AS (SELECT id, name, members FROM chats
                                UNION ALL
                                SELECT id, name, NULL FROM account
                                WHERE NOT EXISTS (SELECT 1 FROM chats WHERE id IN own))
                 SELECT id, coalesce((SELECT nullif(name, '') FROM account WHERE known.id IN own),
                                     nullif(name, ''), id), members,
                        (SELECT groups.name FROM groups WHERE groups.chat IN {}
                         ORDER BY role, added_at LIMIT 1)
                 FROM known
                 WHERE id NOT LIKE 'console:%' AND id NOT LIKE '%@broadcast' AND id NOT LIKE '%@newsletter'
                 ORDER BY id IN own DESC, id LIKE '%@g.us' DESC, lower(name), id",
                people::aliases_sql("known.id")
            ))?;
            let chats =
                statement.query_map([], known_chat_from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            chats.into_iter().collect()
        })
        .await
    }

    /// The group that serves a chat, by any of the chat's names.
    pub async fn group_by_chat(&self, chat: &ChatId) -> Result<Option<Group>> {
        let chat = chat.clone();
        self.with_connection(move |connection| read_group_by_chat(connection, &chat)).await
    }

    /// All groups, main first, then by name.
    pub async fn all_groups(&self) -> Result<Vec<Group>> {
        self.with_connection(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM groups ORDER BY role, name"))?;
            let groups = statement.query_map([], group_from_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
            groups.into_iter().collect()
        })
        .await
    }

    pub async fn group_by_name(&self, name: &GroupName) -> Result<Option<Group>> {
        let name = name.clone();
        self.with_connection(move |connection| read_group(connection, &name)).await
    }

    /// Registers a group.
    ///
    /// # Errors
    /// A name, chat or main channel that is taken; says by which group.
    pub async fn add_group(&self, group: &Group, now: Timestamp) -> Result<()> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            if let Some(taken) = registration_conflict(&transaction, &group)? {
                bail!("{taken}");
            }
            insert_group(&transaction, &group, now)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Changes what the owner chose for a group; its name, chat and role stay. A session takes it up at its
    /// next turn.
    pub async fn update_group(&self, group: &Group) -> Result<()> {
        let group = group.clone();
        self.with_connection(move |connection| update_group_settings(connection, &group)).await
    }

    /// Unregisters a group. Its folder and its history stay; what was pending is not answered any more, and
    /// what was to be said is not sent, nor sent again.
    pub async fn remove_group(&self, name: &GroupName) -> Result<()> {
        let name = name.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            delete_group(&transaction, &name)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }
}

/// Registers a group whose name and chat are free.
pub(super) fn insert_group(connection: &Connection, group: &Group, now: Timestamp) -> Result<()> {
    connection.execute(
        "INSERT INTO groups (name, chat, role, added_at) VALUES (?1, ?2, ?3, ?4)",
        params![group.name.as_str(), group.chat.as_str(), role_name(group.role), to_unix_millis(now)],
    )?;
    // Whom an earlier group of this name allowed is not allowed in this one.
    delete_sender_rows(connection, &group.name)?;
    update_group_settings(connection, group)
}

/// Unregisters a group; what of it is over, [`Store::remove_group`] says.
pub(super) fn delete_group(connection: &Connection, name: &GroupName) -> Result<()> {
    connection.execute(
        "UPDATE inbox SET state = 'done' WHERE state = 'pending'
         AND chat = (SELECT chat FROM groups WHERE name = ?1)",
        [name.as_str()],
    )?;
    connection.execute(
        "UPDATE outbox SET state = 'dead', error = 'the group was removed'
         WHERE state IN ('queued', 'sent') AND chat = (SELECT chat FROM groups WHERE name = ?1)",
        [name.as_str()],
    )?;
    connection
        .execute("UPDATE sessions SET compaction_turn = NULL WHERE group_name = ?1", [name.as_str()])?;
    delete_sender_rows(connection, name)?;
    connection.execute("DELETE FROM groups WHERE name = ?1", [name.as_str()])?;
    Ok(())
}

fn update_group_settings(connection: &Connection, group: &Group) -> Result<()> {
    let (web, hosts) = web_policy_to_columns(&group.web);
    connection.execute(
        // With another limit, the chat is told anew when it is reached.
        "UPDATE groups SET trigger = ?2, engine = ?3, web = ?4, web_hosts = ?5, daily_tokens = ?6, forwards = ?7,
                           senders = ?8, others = ?9, refusals = ?10, turns_per_hour = ?11, turn_tokens = ?12,
                           folders = ?13, model = ?14,
                           limit_told_at = iif(daily_tokens IS ?6, limit_told_at, NULL)
         WHERE name = ?1",
        params![
            group.name.as_str(),
            group.trigger,
            group.engine.as_ref().map(EngineChoice::name),
            web,
            hosts,
            group.daily_tokens.map(u64::cast_signed),
            forwards_name(group.forwards),
            group.senders.may_ask.name(),
            group.senders.others.name(),
            group.senders.refusals.name(),
            group.turns_per_hour,
            group.turn_tokens.map(u64::cast_signed),
            group.folders.iter().map(ExtraFolder::to_stored_line).collect::<Vec<_>>().join("\n"),
            group.model
        ],
    )?;
    Ok(())
}

/// Forgets what `senders` keeps of a group.
fn delete_sender_rows(connection: &Connection, group: &GroupName) -> Result<()> {
    for table in ["allowed_senders", "sender_calls", "sender_notices"] {
        connection.execute(&format!("DELETE FROM {table} WHERE group_name = ?1"), [group.as_str()])?;
    }
    Ok(())
}

/// Notes the model that the owner has chosen for a group; `None` is the install's.
pub(super) fn set_group_model(connection: &Connection, group: &GroupName, model: Option<&str>) -> Result<()> {
    connection
        .prepare_cached("UPDATE groups SET model = ?2 WHERE name = ?1")?
        .execute(params![group.as_str(), model])?;
    Ok(())
}

/// Why a group cannot be registered, with what to do about it.
fn registration_conflict(connection: &Connection, group: &Group) -> Result<Option<String>> {
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
    let same_chat = format!("chat IN {}", people::aliases_sql("?1"));
    if let Some(name) = held_by(&same_chat, group.chat.as_str())? {
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

pub(super) fn read_group(connection: &Connection, name: &GroupName) -> Result<Option<Group>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM groups WHERE name = ?1"))?
        .query_row([name.as_str()], group_from_row)
        .optional()?
        .transpose()
}

/// The group of a chat, if it has one, by any of the chat's names. If two names were registered before they
/// were known to be one chat's, it is the main channel, else the older group.
pub(super) fn read_group_by_chat(connection: &Connection, chat: &ChatId) -> Result<Option<Group>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM groups WHERE chat IN {} ORDER BY role, added_at LIMIT 1",
            people::aliases_sql("?1")
        ))?
        .query_row([chat.as_str()], group_from_row)
        .optional()?
        .transpose()
}

/// The main channel's chat.
pub(super) fn main_chat(connection: &Connection) -> Result<Option<ChatId>> {
    Ok(connection
        .prepare_cached("SELECT chat FROM groups WHERE role = 'main'")?
        .query_row([], |row| row.get::<_, String>(0))
        .optional()?
        .map(ChatId::new))
}

/// Remembers that a chat exists; under whichever name, it is one row.
pub(super) fn record_chat_seen(connection: &Connection, chat: &ChatId, now: Timestamp) -> Result<()> {
    let seen = connection
        .prepare_cached(&format!(
            "UPDATE chats SET seen_at = max(seen_at, ?2) WHERE id IN {}",
            people::aliases_sql("?1")
        ))?
        .execute(params![chat.as_str(), to_unix_millis(now)])?;
    if seen == 0 {
        connection
            .prepare_cached("INSERT INTO chats (id, name, seen_at) VALUES (?1, ?1, ?2)")?
            .execute(params![chat.as_str(), to_unix_millis(now)])?;
    }
    Ok(())
}

/// Remembers what a chat is called now, and how many people are in it.
pub(super) fn record_chat_name(
    connection: &Connection,
    chat: &ChatId,
    name: &str,
    members: Option<u32>,
    now: Timestamp,
) -> Result<()> {
    record_chat_seen(connection, chat, now)?;
    connection
        .prepare_cached(&format!(
            "UPDATE chats SET name = iif(?2 = '', name, ?2), members = coalesce(?3, members) WHERE id IN {}",
            people::aliases_sql("?1")
        ))?
        .execute(params![chat.as_str(), name, members])?;
    Ok(())
}

/// Remembers after how many seconds the messages of a chat disappear, or that they do not.
pub(super) fn record_disappearing_timer(
    connection: &Connection,
    chat: &ChatId,
    expires_secs: Option<u32>,
) -> Result<()> {
    connection
        .prepare_cached(&format!(
            "UPDATE chats SET expires_secs = ?2 WHERE expires_secs IS NOT ?2 AND id IN {}",
            people::aliases_sql("?1")
        ))?
        .execute(params![chat.as_str(), expires_secs])?;
    Ok(())
}

fn known_chat_from_row(row: &Row<'_>) -> rusqlite::Result<Result<KnownChat>> {
    let (id, name, members) = (row.get::<_, String>(0)?, row.get(1)?, row.get(2)?);
    let registered: Option<String> = row.get(3)?;
    let registered = registered.map(|name| GroupName::parse(&name)).transpose();
    Ok(registered.map(|registered| KnownChat { id: ChatId::new(id), name, members, registered }))
}

fn group_from_row(row: &Row<'_>) -> rusqlite::Result<Result<Group>> {
    let name: String = row.get("name")?;
    let (role, web): (String, String) = (row.get("role")?, row.get("web")?);
    let hosts: String = row.get("web_hosts")?;
    let read = || {
        Ok(Group {
            name: GroupName::parse(&name)?,
            chat: ChatId::new(row.get::<_, String>("chat")?),
            role: if role == "main" { Role::Main } else { Role::Member },
            trigger: row.get("trigger")?,
            engine: row.get::<_, Option<String>>("engine")?.map(EngineChoice::from_stored_name),
            model: row.get("model")?,
            web: web_policy_from_columns(&web, &hosts)?,
            daily_tokens: row.get::<_, Option<i64>>("daily_tokens")?.map(i64::cast_unsigned),
            forwards: if row.get::<_, String>("forwards")? == "call" {
                ForwardPolicy::Call
            } else {
                ForwardPolicy::Told
            },
            senders: SenderRule {
                may_ask: SenderPolicy::from_stored_name(&row.get::<_, String>("senders")?),
                others: OthersPolicy::from_stored_name(&row.get::<_, String>("others")?),
                refusals: RefusalPolicy::from_stored_name(&row.get::<_, String>("refusals")?),
            },
            turns_per_hour: row.get("turns_per_hour")?,
            turn_tokens: row.get::<_, Option<i64>>("turn_tokens")?.map(i64::cast_unsigned),
            folders: row
                .get::<_, String>("folders")?
                .lines()
                .filter_map(ExtraFolder::from_stored_line)
                .collect(),
        })
    };
    Ok(read())
}

fn web_policy_to_columns(policy: &WebPolicy) -> (&'static str, String) {
    match policy {
        WebPolicy::None => ("none", String::new()),
        WebPolicy::Allowlist(hosts) => {
            ("allowlist", hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(" "))
        }
        WebPolicy::Web => ("web", String::new()),
    }
}

/// The inverse of [`web_policy_to_columns`]; what cannot be read allows nothing.
fn web_policy_from_columns(web: &str, hosts: &str) -> Result<WebPolicy> {
    Ok(match web {
        "web" => WebPolicy::Web,
        "allowlist" => {
            WebPolicy::Allowlist(hosts.split_whitespace().map(HostName::parse).collect::<Result<_>>()?)
        }
        _ => WebPolicy::None,
    })
}

fn forwards_name(forwards: ForwardPolicy) -> &'static str {
    match forwards {
        ForwardPolicy::Told => "told",
        ForwardPolicy::Call => "call",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Main => "main",
        Role::Member => "member",
    }
}
