//! The tables `allowed_senders`, `sender_calls` and `sender_notices`: whom the owner has allowed to ask in a
//! group, how often people have called lately where that is limited, and who was told why Kai does not answer
//! them. People are compared as sets of names, as everywhere.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, from_unix_millis, groups, people, to_unix_millis};
use crate::rules::inbox::{AskPermission, SenderFacts, SenderListing, SenderStanding};
use crate::rules::refusals::{CALLS_COUNTED_FOR, RecentCalls};
use crate::types::{Group, GroupName, SenderId};

/// Somebody who has written in a group's chat, or whom its owner has allowed to ask there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSender {
    /// As prompts tell this person from others, such as `p3`.
    pub id: String,
    /// One of the person's names on WhatsApp. It is the LID, if that is known: a number may change hands.
    pub sender: SenderId,
    /// What the person last called themselves; empty if they have not written.
    pub name: String,
    /// The name that holds the phone number, if it is known.
    pub number: Option<SenderId>,
    /// The oldest message that is kept.
    pub wrote_since: Option<Timestamp>,
    pub standing: SenderStanding,
    pub listing: SenderListing,
    pub permission: AskPermission,
}

impl Store {
    /// The people of a group's chat: those who have written there, the first one first, then those who were
    /// allowed before they have written.
    pub async fn people_of_group(&self, group: &Group) -> Result<Vec<KnownSender>> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare(
                "SELECT * FROM (SELECT people.person AS person, min(inbox.received_at) AS since,
                        max(CASE WHEN inbox.sender_name != '' THEN inbox.id END)
                 FROM inbox JOIN people ON people.id = inbox.sender
                 WHERE inbox.chat = ?1 GROUP BY people.person
                 UNION ALL
                 SELECT DISTINCT people.person, NULL, NULL
                 FROM allowed_senders JOIN people ON people.id = allowed_senders.person
                 WHERE group_name = ?2 AND people.person NOT IN
                     (SELECT people.person FROM inbox JOIN people ON people.id = inbox.sender WHERE inbox.chat = ?1))
                 ORDER BY since IS NULL, since, person",
            )?;
            let found = statement
                .query_map([group.chat.as_str(), group.name.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<Vec<(i64, Option<i64>, Option<i64>)>>>()?;
            found
                .into_iter()
                .map(|(person, since, named)| read_known_sender(&transaction, &group, person, since, named))
                .collect()
        })
        .await
    }

    /// Puts people on the list of those who may ask in a group, and takes others off it, under any of their
    /// names. Each of them becomes a person, whom lists can show.
    pub async fn change_allowed_senders(
        &self,
        group: &GroupName,
        allow: Vec<SenderId>,
        disallow: Vec<SenderId>,
    ) -> Result<()> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let delete = format!(
                "DELETE FROM allowed_senders WHERE group_name = ?2 AND person IN {}",
                people::aliases_sql("?1")
            );
            for person in allow.iter().chain(&disallow) {
                transaction.execute(&delete, [person.as_str(), group.as_str()])?;
            }
            for person in &allow {
                people::ensure_person(&transaction, person)?;
                transaction.execute(
                    &format!(
                        "INSERT INTO allowed_senders (group_name, person)
                         SELECT ?2, names.id FROM {} AS names ORDER BY names.id LIKE '%@lid' DESC LIMIT 1
                         ON CONFLICT DO NOTHING",
                        people::aliases_sql("?1").replacen("SELECT ?1", "SELECT ?1 AS id", 1)
                    ),
                    [person.as_str(), group.as_str()],
                )?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }
}

/// What the rule about a group's senders says of one of them.
pub(super) fn read_permission(
    connection: &Connection,
    group: &Group,
    sender: &SenderId,
) -> Result<AskPermission> {
    Ok(AskPermission::from_rule(
        group.senders.may_ask,
        read_sender_standing(connection, group, sender)?,
        read_listing(connection, &group.name, sender)?,
    ))
}

/// Who a sender is, as far as asking needs it: the person whose direct chat is the main channel is the owner in
/// every chat.
pub(super) fn read_sender_standing(
    connection: &Connection,
    group: &Group,
    sender: &SenderId,
) -> Result<SenderStanding> {
    let main = groups::main_chat(connection)?.filter(|main| !main.is_whatsapp_group());
    let is_main_channel = match main {
        Some(main) => people::is_same_person(connection, sender.as_str(), main.as_str())?,
        None => false,
    };
    let facts = read_sender_facts(connection, group, sender)?;
    Ok(SenderStanding::in_group(group, SenderFacts { is_main_channel, ..facts }))
}

/// The same as far as commands need it: outside of the main channel they are the linked account's alone.
pub(super) fn read_command_standing(
    connection: &Connection,
    group: &Group,
    sender: &SenderId,
) -> Result<SenderStanding> {
    Ok(SenderStanding::in_group(group, read_sender_facts(connection, group, sender)?))
}

fn read_sender_facts(connection: &Connection, group: &Group, sender: &SenderId) -> Result<SenderFacts> {
    Ok(SenderFacts {
        is_linked_account: people::is_own_account(connection, sender)?,
        is_other_side: people::is_same_person(connection, sender.as_str(), group.chat.as_str())?,
        is_main_channel: false,
    })
}

fn read_listing(connection: &Connection, group: &GroupName, sender: &SenderId) -> Result<SenderListing> {
    let is_listed = connection
        .prepare_cached(&format!(
            "SELECT 1 FROM allowed_senders WHERE group_name = ?2 AND person IN {}",
            people::aliases_sql("?1")
        ))?
        .exists([sender.as_str(), group.as_str()])?;
    Ok(if is_listed { SenderListing::Listed } else { SenderListing::NotListed })
}

/// The calls of this person that count still. Those that a clock which was set back has in the future do not.
pub(super) fn read_recent_calls(
    connection: &Connection,
    group: &GroupName,
    sender: &SenderId,
    now: Timestamp,
) -> Result<RecentCalls> {
    let since = now.saturating_sub(CALLS_COUNTED_FOR).unwrap_or(Timestamp::MIN);
    Ok(connection
        .prepare_cached(&format!(
            "SELECT count(*), min(called_at), max(called_at) FROM sender_calls
             WHERE group_name = ?2 AND called_at > ?3 AND called_at <= ?4 AND person IN {}",
            people::aliases_sql("?1")
        ))?
        .query_row(
            params![sender.as_str(), group.as_str(), to_unix_millis(since), to_unix_millis(now)],
            |row| {
                let time = |column| row.get::<_, Option<i64>>(column).map(|time| time.map(from_unix_millis));
                Ok(RecentCalls { count: row.get(0)?, oldest: time(1)?, newest: time(2)? })
            },
        )?)
}

/// Counts a call. Those that count no more go, so that there are few.
pub(super) fn record_call(
    connection: &Connection,
    group: &GroupName,
    sender: &SenderId,
    now: Timestamp,
) -> Result<()> {
    let since = now.saturating_sub(CALLS_COUNTED_FOR).unwrap_or(Timestamp::MIN);
    connection
        .prepare_cached(
            "DELETE FROM sender_calls WHERE group_name = ?1 AND (called_at <= ?2 OR called_at > ?3)",
        )?
        .execute(params![group.as_str(), to_unix_millis(since), to_unix_millis(now)])?;
    connection
        .prepare_cached("INSERT INTO sender_calls (group_name, person, called_at) VALUES (?1, ?2, ?3)")?
        .execute(params![group.as_str(), sender.as_str(), to_unix_millis(now)])?;
    Ok(())
}

/// The longest that it matters when somebody was told something.
const NOTICES_KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Notes that a person is told why Kai does not answer, unless they were told so after `since`. What was told
/// before a clock was set back is told again. Old notes go, so that there is one for each person.
pub(super) fn record_sender_notice(
    connection: &Connection,
    group: &GroupName,
    sender: &SenderId,
    why: &str,
    since: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let old = to_unix_millis(now.saturating_sub(NOTICES_KEPT_FOR).unwrap_or(Timestamp::MIN));
    let (now, since) = (to_unix_millis(now), to_unix_millis(since));
    let aliases = people::aliases_sql("?1");
    let was_told = connection
        .prepare_cached(&format!(
            "SELECT 1 FROM sender_notices
             WHERE group_name = ?2 AND why = ?3 AND told_at > ?4 AND told_at <= ?5 AND person IN {aliases}"
        ))?
        .exists(params![sender.as_str(), group.as_str(), why, since, now])?;
    if was_told {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "DELETE FROM sender_notices WHERE group_name = ?1 AND why = ?2 AND (told_at <= ?3 OR told_at > ?4)",
        )?
        .execute(params![group.as_str(), why, old, now])?;
    connection
        .prepare_cached(
            "INSERT INTO sender_notices (group_name, person, why, told_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET told_at = excluded.told_at",
        )?
        .execute(params![group.as_str(), sender.as_str(), why, now])?;
    Ok(true)
}

fn read_known_sender(
    connection: &Connection,
    group: &Group,
    person: i64,
    since: Option<i64>,
    named: Option<i64>,
) -> Result<KnownSender> {
    let mut statement = connection.prepare_cached("SELECT id FROM people WHERE person = ?1 ORDER BY id")?;
    let names = statement
        .query_map([person], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let ending_with = |server: &str| {
        names.iter().find(|name| name.ends_with(server)).map(|name| SenderId::new(name.as_str()))
    };
    let number = ending_with(people::NUMBER);
    let sender = ending_with(people::LID)
        .or_else(|| number.clone())
        .or_else(|| names.first().map(|name| SenderId::new(name.as_str())))
        .unwrap_or_else(|| SenderId::new(""));
    let name: Option<String> = connection
        .prepare_cached("SELECT sender_name FROM inbox WHERE id = ?1")?
        .query_row([named], |row| row.get(0))
        .optional()?;
    Ok(KnownSender {
        id: people::prompt_id(Some(person)),
        name: name.unwrap_or_default(),
        number,
        wrote_since: since.map(from_unix_millis),
        standing: read_sender_standing(connection, group, &sender)?,
        listing: read_listing(connection, &group.name, &sender)?,
        permission: read_permission(connection, group, &sender)?,
        sender,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::add_group;
    use crate::types::{Event, Role, SenderPolicy, SenderRule};

    const NUMBER: &str = "34600000001@s.whatsapp.net";

    fn same_person(one: &str, other: &str) -> Event {
        Event::SamePerson { one: SenderId::new(one), other: SenderId::new(other) }
    }

    async fn listed_family(store: &Store) -> Group {
        add_group(store, "family", Role::Member, Timestamp::UNIX_EPOCH).await;
        let family = store.group_by_name(&GroupName::parse("family").unwrap()).await.unwrap().unwrap();
        let senders = SenderRule { may_ask: SenderPolicy::Listed, ..SenderRule::default() };
        let family = Group { senders, ..family };
        store.update_group(&family).await.unwrap();
        family
    }

    async fn may_ask(store: &Store, group: &Group, sender: &str) -> bool {
        let (group, sender) = (group.clone(), SenderId::new(sender));
        let permission = store
            .with_connection(move |connection| read_permission(connection, &group, &sender))
            .await
            .unwrap();
        permission == AskPermission::Granted
    }

    #[tokio::test]
    async fn a_list_names_people_and_not_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let family = listed_family(&store).await;
        let learn = async |event| {
            store
                .record_events(vec![event], crate::store::tests::rules(), Timestamp::UNIX_EPOCH)
                .await
                .unwrap();
        };
        store.change_allowed_senders(&family.name, vec![SenderId::new(NUMBER)], Vec::new()).await.unwrap();
        assert!(may_ask(&store, &family, NUMBER).await);
        assert!(!may_ask(&store, &family, "ana@lid").await, "nobody knows yet whose that is");
        assert!(!may_ask(&store, &family, "").await);
        assert!(!may_ask(&store, &family, "134600000001@s.whatsapp.net").await, "no beginnings and ends");

        learn(same_person(NUMBER, "ana@lid")).await;
        assert!(may_ask(&store, &family, "ana@lid").await);
        // The number gets a new owner: Ana may still ask, and who has her number may not.
        learn(same_person("bob@lid", NUMBER)).await;
        assert!(may_ask(&store, &family, "ana@lid").await);
        assert!(!may_ask(&store, &family, "bob@lid").await && !may_ask(&store, &family, NUMBER).await);

        let shown = store.people_of_group(&family).await.unwrap();
        let told: Vec<_> =
            shown.iter().map(|person| (person.sender.as_str(), person.wrote_since, person.listing)).collect();
        assert_eq!(told, [("ana@lid", None, SenderListing::Listed)]);
        store.change_allowed_senders(&family.name, Vec::new(), vec![SenderId::new("ana@lid")]).await.unwrap();
        assert!(!may_ask(&store, &family, "ana@lid").await);
        assert_eq!(store.people_of_group(&family).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_person_is_told_once_in_a_while_under_whichever_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let family = listed_family(&store).await.name;
        let (ana, day) = (SenderId::new("ana@lid"), SignedDuration::from_hours(24));
        let told = store
            .with_connection(move |connection| {
                people::record_same_person(connection, NUMBER, "ana@lid")?;
                let tell = |sender: &SenderId, hour: i64| {
                    let now = Timestamp::from_second(1_800_000_000 + hour * 60 * 60)?;
                    record_sender_notice(connection, &family, sender, "not_allowed", now - day, now)
                };
                let number = SenderId::new(NUMBER);
                Ok([
                    tell(&ana, 0)?,
                    tell(&number, 23)?,
                    tell(&SenderId::new("bob@lid"), 23)?,
                    tell(&number, 24)?,
                    tell(&ana, 25)?,
                    // The clock was set back.
                    tell(&ana, 3)?,
                ])
            })
            .await
            .unwrap();
        assert_eq!(told, [true, false, true, true, false, true]);
    }
}
