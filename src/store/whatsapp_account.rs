//! The tables `account` and `link`: whose WhatsApp account is linked, and how the link stood when it last
//! changed.
//!
//! For those who look from outside, such as `nanokimi status`; the service itself goes by the bridge's watch.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, from_unix_millis, people, recipients, to_unix_millis};
use crate::types::{LinkState, LinkedAccount, SenderId};

/// How the link stood, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    pub link: LinkState,
    pub since: Timestamp,
}

impl Store {
    /// The linked account, as the bridge last told it.
    pub async fn linked_account(&self) -> Result<Option<LinkedAccount>> {
        self.with_connection(|connection| {
            let account = connection
                .prepare_cached("SELECT id, lid, name FROM account")?
                .query_row([], |row| {
                    Ok(LinkedAccount {
                        id: SenderId::new(row.get::<_, String>(0)?),
                        lid: row.get::<_, Option<String>>(1)?.map(SenderId::new),
                        name: row.get(2)?,
                    })
                })
                .optional()?;
            Ok(account)
        })
        .await
    }

    /// Notes how the link stands. A pairing is not noted: it is over when its command ends.
    pub async fn record_link_state(&self, link: &LinkState, now: Timestamp) -> Result<()> {
        let Some((state, until)) = link_to_columns(link) else { return Ok(()) };
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let stays = transaction
                .prepare_cached("SELECT 1 FROM link WHERE state = ?1 AND until IS ?2")?
                .exists(params![state, until])?;
            if !stays {
                transaction.execute("DELETE FROM link", [])?;
                transaction.execute(
                    "INSERT INTO link (state, until, changed_at) VALUES (?1, ?2, ?3)",
                    params![state, until, to_unix_millis(now)],
                )?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How the link stood when it last changed; nothing if it was never noted.
    pub async fn last_link_state(&self) -> Result<Option<LinkRecord>> {
        self.with_connection(|connection| {
            let noted = connection
                .prepare_cached("SELECT state, until, changed_at FROM link")?
                .query_row([], |row| {
                    let (state, until, since): (String, Option<i64>, i64) =
                        (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok(link_from_columns(&state, until)
                        .map(|link| LinkRecord { link, since: from_unix_millis(since) }))
                })
                .optional()?;
            Ok(noted.flatten())
        })
        .await
    }
}

/// Remembers whose link this is: its two names are one person's. What an earlier account of somebody else
/// still had to say must not come from this one.
pub(super) fn record_linked_account(connection: &Connection, account: &LinkedAccount) -> Result<()> {
    let lid = account.lid.as_ref().map(SenderId::as_str);
    connection.execute(
        "UPDATE outbox SET state = 'dead', error = 'another account was linked'
         WHERE state IN ('queued', 'sent') AND chat NOT LIKE 'console:%'
           AND EXISTS (SELECT 1 FROM account WHERE id != ?1 AND lid IS NOT coalesce(?2, ''))",
        params![account.id.as_str(), lid],
    )?;
    move_self_chat(connection, account, lid)?;
    if is_another_account(connection, account, lid)? {
        recipients::cancel_repairs(connection)?;
    }
    // Whoever holds the link is the number's owner, whatever LID it had before.
    people::delete_person_name(connection, account.id.as_str())?;
    connection.execute("DELETE FROM account", [])?;
    connection.execute(
        "INSERT INTO account (id, lid, name) VALUES (?1, ?2, ?3)",
        params![account.id.as_str(), lid, account.name],
    )?;
    match lid {
        Some(lid) => people::record_same_person(connection, account.id.as_str(), lid),
        None => Ok(()),
    }
}

/// Whether the link was somebody else's before.
fn is_another_account(connection: &Connection, account: &LinkedAccount, lid: Option<&str>) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM account WHERE id != ?1 AND lid IS NOT coalesce(?2, '')")?
        .exists(params![account.id.as_str(), lid])?)
}

/// The chat with oneself belongs to the account: it goes along to a new number, and ends with another
/// account, which has a chat with somebody else under that name.
fn move_self_chat(connection: &Connection, account: &LinkedAccount, lid: Option<&str>) -> Result<()> {
    let before: Option<(String, Option<String>)> = connection
        .query_row("SELECT id, lid FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, own_lid)) = before.filter(|(number, _)| number != account.id.as_str()) else {
        return Ok(());
    };
    if own_lid.is_some() && own_lid.as_deref() == lid {
        return people::rename_chat(connection, &number, account.id.as_str());
    }
    for chat in [Some(number), own_lid].into_iter().flatten() {
        connection
            .execute("UPDATE inbox SET state = 'done' WHERE chat = ?1 AND state = 'pending'", [&chat])?;
        connection.execute("DELETE FROM groups WHERE chat = ?1", [&chat])?;
    }
    Ok(())
}

/// A link's state as it is kept.
fn link_to_columns(link: &LinkState) -> Option<(&'static str, Option<i64>)> {
    match link {
        LinkState::Unlinked => Some(("unlinked", None)),
        LinkState::Pairing(_) => None,
        LinkState::Connecting => Some(("connecting", None)),
        LinkState::Online => Some(("online", None)),
        LinkState::Replaced => Some(("replaced", None)),
        LinkState::LoggedOut => Some(("logged out", None)),
        LinkState::Banned { until } => Some(("banned", Some(to_unix_millis(*until)))),
        LinkState::Outdated => Some(("outdated", None)),
        LinkState::DiskFull => Some(("disk full", None)),
    }
}

/// The inverse of [`link_to_columns`].
fn link_from_columns(state: &str, until: Option<i64>) -> Option<LinkState> {
    match (state, until) {
        ("unlinked", _) => Some(LinkState::Unlinked),
        ("connecting", _) => Some(LinkState::Connecting),
        ("online", _) => Some(LinkState::Online),
        ("replaced", _) => Some(LinkState::Replaced),
        ("logged out", _) => Some(LinkState::LoggedOut),
        ("banned", Some(until)) => Some(LinkState::Banned { until: from_unix_millis(until) }),
        ("outdated", _) => Some(LinkState::Outdated),
        ("disk full", _) => Some(LinkState::DiskFull),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::rules;
    use crate::types::{ChatId, Event, Group, GroupName, Pairing, Role};

    #[tokio::test]
    async fn what_one_account_had_to_say_is_not_said_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let account = |id: &str, lid: Option<&str>| {
            let (id, lid) = (SenderId::new(id), lid.map(SenderId::new));
            Event::Account(LinkedAccount { id, lid, name: String::new() })
        };
        for chat in ["family@g.us", "console:main"] {
            store.notify_chat(&ChatId::new(chat), "hello", now).await.unwrap();
        }
        for (linked, dead) in [
            (account("ana@s", None), 0),
            (account("ana@s", Some("ana@lid")), 0),
            // Ana has a new number.
            (account("ana2@s", Some("ana@lid")), 0),
            (account("bob@s", None), 1),
        ] {
            store.record_events(vec![linked.clone()], rules(), now).await.unwrap();
            assert_eq!(store.queue_counts().await.unwrap().dead, dead, "{linked:?}");
        }
        assert_eq!(store.given_up_replies().await.unwrap()[0].why, "another account was linked");
    }

    #[tokio::test]
    async fn the_chat_with_oneself_goes_along_to_a_new_number_and_ends_with_another_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let links = async |number: &str, lid: &str| {
            let id = SenderId::new(format!("{number}@s.whatsapp.net"));
            let lid = Some(SenderId::new(format!("{lid}@lid")));
            let linked = Event::Account(LinkedAccount { id, lid, name: String::new() });
            store.record_events(vec![linked], rules(), now).await.unwrap();
            store
                .all_groups()
                .await
                .unwrap()
                .into_iter()
                .map(|group| group.chat.to_string())
                .collect::<Vec<_>>()
        };
        links("1", "7").await;
        let (name, chat) = (GroupName::parse("main").unwrap(), ChatId::new("1@s.whatsapp.net"));
        store.add_group(&Group::new(name, chat, Role::Main), now).await.unwrap();
        assert_eq!(links("1", "7").await, ["1@s.whatsapp.net"]);
        // The account was made anew on the same number.
        assert_eq!(links("1", "8").await, ["1@s.whatsapp.net"]);
        assert_eq!(links("2", "8").await, ["2@s.whatsapp.net"]);
        assert_eq!(links("3", "9").await, [""; 0]);
    }

    #[tokio::test]
    async fn every_state_is_noted_but_a_pairing_and_the_time_is_that_of_the_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        assert_eq!(store.last_link_state().await.unwrap(), None);
        let until = Timestamp::from_second(9_000).unwrap();
        let states = [
            LinkState::Unlinked,
            LinkState::Connecting,
            LinkState::Online,
            LinkState::Replaced,
            LinkState::LoggedOut,
            LinkState::Banned { until },
            LinkState::Outdated,
            LinkState::DiskFull,
        ];
        for (second, link) in (1_i64..).zip(states) {
            let since = Timestamp::from_second(second).unwrap();
            store.record_link_state(&link, since).await.unwrap();
            store.record_link_state(&link, until).await.unwrap();
            store.record_link_state(&LinkState::Pairing(Pairing::Asking), until).await.unwrap();
            assert_eq!(store.last_link_state().await.unwrap(), Some(LinkRecord { link, since }));
        }
    }
}
