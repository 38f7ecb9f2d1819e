//! The tables `account` and `link`: whose WhatsApp account is linked, and how the link stood when it last changed.
//!
//! For those who look from outside, such as `nanokimi status`; the service itself goes by the bridge's watch.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, millis, people, recipients, time};
use crate::types::{Account, Link, SenderId};

/// How the link stood, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkNote {
    pub link: Link,
    pub since: Timestamp,
}

impl Store {
    /// The linked account, as the bridge last told it.
    pub async fn account(&self) -> Result<Option<Account>> {
        self.with(|connection| {
            let account = connection
                .prepare_cached("SELECT id, lid, name FROM account")?
                .query_row([], |row| {
                    Ok(Account {
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
    pub async fn set_link(&self, link: &Link, now: Timestamp) -> Result<()> {
        let Some((state, until)) = words(link) else { return Ok(()) };
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let stays = transaction
                .prepare_cached("SELECT 1 FROM link WHERE state = ?1 AND until IS ?2")?
                .exists(params![state, until])?;
            if !stays {
                transaction.execute("DELETE FROM link", [])?;
                transaction.execute(
                    "INSERT INTO link (state, until, changed_at) VALUES (?1, ?2, ?3)",
                    params![state, until, millis(now)],
                )?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How the link stood when it last changed; nothing where it was never noted.
    pub async fn link(&self) -> Result<Option<LinkNote>> {
        self.with(|connection| {
            let noted = connection
                .prepare_cached("SELECT state, until, changed_at FROM link")?
                .query_row([], |row| {
                    let (state, until, since): (String, Option<i64>, i64) =
                        (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok(link(&state, until).map(|link| LinkNote { link, since: time(since) }))
                })
                .optional()?;
            Ok(noted.flatten())
        })
        .await
    }
}

/// Remembers whose link this is: its two names are one person's. What an earlier account of somebody else still had to
/// say must not come from this one.
pub(super) fn set(connection: &Connection, account: &Account) -> Result<()> {
    let lid = account.lid.as_ref().map(SenderId::as_str);
    connection.execute(
        "UPDATE outbox SET state = 'dead', error = 'another account was linked'
         WHERE state IN ('queued', 'sent') AND chat NOT LIKE 'console:%'
           AND EXISTS (SELECT 1 FROM account WHERE id != ?1 AND lid IS NOT coalesce(?2, ''))",
        params![account.id.as_str(), lid],
    )?;
    own_chat_follows(connection, account, lid)?;
    if is_another(connection, account, lid)? {
        recipients::forget_repairs(connection)?;
    }
    // Whoever holds the link is the number's owner, whatever LID it had before.
    people::forget(connection, account.id.as_str())?;
    connection.execute("DELETE FROM account", [])?;
    connection.execute(
        "INSERT INTO account (id, lid, name) VALUES (?1, ?2, ?3)",
        params![account.id.as_str(), lid, account.name],
    )?;
    match lid {
        Some(lid) => people::same_person(connection, account.id.as_str(), lid),
        None => Ok(()),
    }
}

/// Whether the link was somebody else's before.
fn is_another(connection: &Connection, account: &Account, lid: Option<&str>) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM account WHERE id != ?1 AND lid IS NOT coalesce(?2, '')")?
        .exists(params![account.id.as_str(), lid])?)
}

/// The chat with oneself belongs to the account: it goes along to a new number, and ends with another account, which
/// has a chat with somebody else under that name.
fn own_chat_follows(connection: &Connection, account: &Account, lid: Option<&str>) -> Result<()> {
    let before: Option<(String, Option<String>)> = connection
        .query_row("SELECT id, lid FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, own_lid)) = before.filter(|(number, _)| number != account.id.as_str()) else {
        return Ok(());
    };
    if own_lid.is_some() && own_lid.as_deref() == lid {
        return people::move_chat(connection, &number, account.id.as_str());
    }
    for chat in [Some(number), own_lid].into_iter().flatten() {
        connection
            .execute("UPDATE inbox SET state = 'done' WHERE chat = ?1 AND state = 'pending'", [&chat])?;
        connection.execute("DELETE FROM groups WHERE chat = ?1", [&chat])?;
    }
    Ok(())
}

/// A link's state as it is kept.
fn words(link: &Link) -> Option<(&'static str, Option<i64>)> {
    match link {
        Link::Unlinked => Some(("unlinked", None)),
        Link::Pairing(_) => None,
        Link::Connecting => Some(("connecting", None)),
        Link::Online => Some(("online", None)),
        Link::Replaced => Some(("replaced", None)),
        Link::LoggedOut => Some(("logged out", None)),
        Link::Banned { until } => Some(("banned", Some(millis(*until)))),
        Link::Outdated => Some(("outdated", None)),
        Link::DiskFull => Some(("disk full", None)),
    }
}

/// The inverse of [`words`].
fn link(state: &str, until: Option<i64>) -> Option<Link> {
    match (state, until) {
        ("unlinked", _) => Some(Link::Unlinked),
        ("connecting", _) => Some(Link::Connecting),
        ("online", _) => Some(Link::Online),
        ("replaced", _) => Some(Link::Replaced),
        ("logged out", _) => Some(Link::LoggedOut),
        ("banned", Some(until)) => Some(Link::Banned { until: time(until) }),
        ("outdated", _) => Some(Link::Outdated),
        ("disk full", _) => Some(Link::DiskFull),
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
            Event::Account(Account { id, lid, name: String::new() })
        };
        for chat in ["family@g.us", "console:main"] {
            store.say(&ChatId::new(chat), "hello", now).await.unwrap();
        }
        for (linked, dead) in [
            (account("ana@s", None), 0),
            (account("ana@s", Some("ana@lid")), 0),
            // Ana has a new number.
            (account("ana2@s", Some("ana@lid")), 0),
            (account("bob@s", None), 1),
        ] {
            store.take_in(vec![linked.clone()], rules(), now).await.unwrap();
            assert_eq!(store.queue_counts().await.unwrap().dead, dead, "{linked:?}");
        }
        assert_eq!(store.given_up().await.unwrap()[0].why, "another account was linked");
    }

    #[tokio::test]
    async fn the_chat_with_oneself_goes_along_to_a_new_number_and_ends_with_another_account() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let links = async |number: &str, lid: &str| {
            let id = SenderId::new(format!("{number}@s.whatsapp.net"));
            let lid = Some(SenderId::new(format!("{lid}@lid")));
            let linked = Event::Account(Account { id, lid, name: String::new() });
            store.take_in(vec![linked], rules(), now).await.unwrap();
            store.groups().await.unwrap().into_iter().map(|group| group.chat.to_string()).collect::<Vec<_>>()
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
        assert_eq!(store.link().await.unwrap(), None);
        let until = Timestamp::from_second(9_000).unwrap();
        let states = [
            Link::Unlinked,
            Link::Connecting,
            Link::Online,
            Link::Replaced,
            Link::LoggedOut,
            Link::Banned { until },
            Link::Outdated,
            Link::DiskFull,
        ];
        for (second, link) in (1_i64..).zip(states) {
            let since = Timestamp::from_second(second).unwrap();
            store.set_link(&link, since).await.unwrap();
            store.set_link(&link, until).await.unwrap();
            store.set_link(&Link::Pairing(Pairing::Asking), until).await.unwrap();
            assert_eq!(store.link().await.unwrap(), Some(LinkNote { link, since }));
        }
    }
}
