//! The table `people`: which names are the same person's, or the same direct chat's. WhatsApp says sometimes
//! a phone number's JID, sometimes a LID. Every comparison of people and of chats goes through here.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use crate::types::SenderId;

/// All names of whomever the SQL expression `id` names, as an SQL set: itself, and what was learned.
pub(super) fn aliases_sql(id: &str) -> String {
    format!(
        "(SELECT {id} UNION SELECT other.id FROM people JOIN people AS other ON other.person = people.person
          WHERE people.id = {id})"
    )
}

/// The linked account's own names.
pub(super) const OWN_NAMES: &str =
    "(SELECT id FROM account UNION SELECT lid FROM account WHERE lid IS NOT NULL)";

/// How WhatsApp marks the two kinds of names.
pub(super) const LID: &str = "@lid";
pub(super) const NUMBER: &str = "@s.whatsapp.net";

/// Remembers that two names are one person's. Two persons who were known apart become one; but a number is
/// one LID's at a time: if it was another's before, it has a new owner.
pub(super) fn record_same_person(connection: &Connection, one: &str, other: &str) -> Result<()> {
    let person = |id: &str| {
        connection
            .prepare_cached("SELECT person FROM people WHERE id = ?1")?
            .query_row([id], |row| row.get::<_, i64>(0))
            .optional()
    };
    if let Some((number, lid)) = number_and_lid(one, other) {
        let before: Option<String> = connection
            .prepare_cached(
                "SELECT before.id FROM people JOIN people AS before ON before.person = people.person
                 WHERE people.id = ?1 AND before.id LIKE '%@lid' AND before.id != ?2",
            )?
            .query_row([number, lid], |row| row.get(0))
            .optional()?;
        if let Some(before) = before {
            // The chat was with the person, not with the number.
            rename_chat(connection, number, &before)?;
            // So was what is allowed there.
            connection
                .prepare_cached("UPDATE OR REPLACE allowed_senders SET person = ?2 WHERE person = ?1")?
                .execute([number, before.as_str()])?;
            delete_person_name(connection, number)?;
        }
    }
    let keep = match (person(one)?, person(other)?) {
        (Some(one), Some(other)) if one == other => return Ok(()),
        (Some(one), Some(other)) => {
            // The one that agents have known for longer.
            let (keep, gone) = (one.min(other), one.max(other));
            connection
                .prepare_cached("UPDATE people SET person = ?1 WHERE person = ?2")?
                .execute(params![keep, gone])?;
            keep
        }
        (Some(known), None) | (None, Some(known)) => known,
        (None, None) => insert_person(connection)?,
    };
    for id in [one, other] {
        connection
            .prepare_cached("INSERT INTO people (id, person) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING")?
            .execute(params![id, keep])?;
    }
    merge_chat_rows(connection, one)
}

pub(super) fn is_own_account(connection: &Connection, person: &SenderId) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {OWN_NAMES} AS ours WHERE ours.id IN {}", aliases_sql("?1"));
    Ok(connection.prepare_cached(&sql)?.exists([person.as_str()])?)
}

/// Whether two names are one person's, as far as was learned.
pub(super) fn is_same_person(connection: &Connection, one: &str, other: &str) -> Result<bool> {
    let sql = format!("SELECT 1 WHERE ?2 IN {}", aliases_sql("?1"));
    Ok(connection.prepare_cached(&sql)?.exists([one, other])?)
}

/// The digits of a person's phone number, if it is known.
pub(super) fn read_phone_number(connection: &Connection, person: &SenderId) -> Result<Option<String>> {
    let sql = format!(
        "SELECT names.id FROM {} AS names WHERE names.id LIKE '%@s.whatsapp.net' LIMIT 1",
        aliases_sql("?1").replacen("SELECT ?1", "SELECT ?1 AS id", 1)
    );
    let name: Option<String> =
        connection.prepare_cached(&sql)?.query_row([person.as_str()], |row| row.get(0)).optional()?;
    Ok(name.and_then(|name| Some(name.split_once('@')?.0.to_owned())))
}

/// Sees to it that somebody who writes is a person with a number of their own, which prompts tell.
pub(super) fn ensure_person(connection: &Connection, id: &SenderId) -> Result<()> {
    let is_known = connection.prepare_cached("SELECT 1 FROM people WHERE id = ?1")?.exists([id.as_str()])?;
    if !is_known {
        let person = insert_person(connection)?;
        connection
            .prepare_cached("INSERT INTO people (id, person) VALUES (?1, ?2)")?
            .execute(params![id.as_str(), person])?;
    }
    Ok(())
}

/// How prompts tell a person from all others, whatever they are called. `number` is the person's in `people`.
pub(super) fn prompt_id(number: Option<i64>) -> String {
    number.map(|number| format!("p{number}")).unwrap_or_default()
}

/// A number that nobody had before.
fn insert_person(connection: &Connection) -> Result<i64> {
    connection.prepare_cached("INSERT INTO persons DEFAULT VALUES")?.execute([])?;
    Ok(connection.last_insert_rowid())
}

/// Forgets whose name this was.
pub(super) fn delete_person_name(connection: &Connection, id: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM people WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Gives a direct chat, with what was said in it and who is served there, another name.
pub(super) fn rename_chat(connection: &Connection, from: &str, to: &str) -> Result<()> {
    for table in ["groups", "inbox", "outbox", "unread"] {
        connection.execute(&format!("UPDATE OR IGNORE {table} SET chat = ?2 WHERE chat = ?1"), [from, to])?;
    }
    Ok(())
}

/// Which of two names is a phone number's and which a LID, if they are one of each.
fn number_and_lid<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str)> {
    match (one.ends_with(NUMBER), other.ends_with(NUMBER)) {
        (true, false) if other.ends_with(LID) => Some((one, other)),
        (false, true) if one.ends_with(LID) => Some((other, one)),
        _ => None,
    }
}

/// A direct chat that was seen under both names was one chat all along: the row that a group is registered
/// with stays, else the older one.
fn merge_chat_rows(connection: &Connection, id: &str) -> Result<()> {
    let names = aliases_sql("?1");
    connection
        .prepare_cached(&format!(
            "DELETE FROM chats WHERE id IN {names}
             AND id != (SELECT id FROM chats WHERE id IN {names}
                        ORDER BY id IN (SELECT chat FROM groups) DESC, rowid LIMIT 1)"
        ))?
        .execute([id])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate_schema(&mut connection).unwrap();
        connection
    }

    fn names(connection: &Connection, id: &str) -> String {
        let mut statement =
            connection.prepare(&format!("SELECT * FROM {} ORDER BY 1", aliases_sql("?1"))).unwrap();
        let names: Vec<String> =
            statement.query_map([id], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        names.join(" ")
    }

    #[test]
    fn who_is_not_known_is_only_themselves() {
        assert_eq!(names(&database(), "ana@lid"), "ana@lid");
    }

    #[test]
    fn what_is_learned_in_pieces_is_one_person_in_the_end() {
        let connection = database();
        record_same_person(&connection, "ana@s", "ana@lid").unwrap();
        record_same_person(&connection, "ana@new", "ana@newlid").unwrap();
        record_same_person(&connection, "bob@s", "bob@lid").unwrap();
        assert_eq!(names(&connection, "ana@lid"), "ana@lid ana@s");
        record_same_person(&connection, "ana@newlid", "ana@s").unwrap();
        for name in ["ana@s", "ana@lid", "ana@new", "ana@newlid"] {
            assert_eq!(names(&connection, name), "ana@lid ana@new ana@newlid ana@s");
        }
        assert_eq!(names(&connection, "bob@s"), "bob@lid bob@s");
    }

    #[test]
    fn a_number_that_has_a_new_owner_leaves_the_old_one() {
        let connection = database();
        let number = "34600000001@s.whatsapp.net";
        record_same_person(&connection, number, "ana@lid").unwrap();
        record_same_person(&connection, "34600000002@s.whatsapp.net", "ana@lid").unwrap();
        record_same_person(&connection, "bob@lid", number).unwrap();
        assert_eq!(names(&connection, number), "34600000001@s.whatsapp.net bob@lid");
        assert_eq!(names(&connection, "ana@lid"), "34600000002@s.whatsapp.net ana@lid");
        // Who had a number of their own keeps it, and the newest word wins.
        record_same_person(&connection, "34600000003@s.whatsapp.net", "bob@lid").unwrap();
        record_same_person(&connection, "34600000003@s.whatsapp.net", "ana@lid").unwrap();
        assert_eq!(names(&connection, "bob@lid"), "34600000001@s.whatsapp.net bob@lid");
    }

    #[test]
    fn everybody_keeps_the_number_that_they_were_met_with() {
        let connection = database();
        let number = |id: &str| -> i64 {
            connection.query_row("SELECT person FROM people WHERE id = ?1", [id], |row| row.get(0)).unwrap()
        };
        for id in ["ana@s", "bob@s", "ana@lid", "ana@s"] {
            ensure_person(&connection, &SenderId::new(id)).unwrap();
        }
        assert_eq!((number("ana@s"), number("bob@s"), number("ana@lid")), (1, 2, 3));
        record_same_person(&connection, "ana@lid", "ana@s").unwrap();
        assert_eq!((number("ana@s"), number("ana@lid")), (1, 1));
        // A number that is free again is nobody else's.
        delete_person_name(&connection, "bob@s").unwrap();
        ensure_person(&connection, &SenderId::new("cy@s")).unwrap();
        ensure_person(&connection, &SenderId::new("bob@s")).unwrap();
        assert_eq!((number("cy@s"), number("bob@s")), (4, 5));
        assert_eq!((prompt_id(Some(4)), prompt_id(None)), ("p4".to_owned(), String::new()));
    }

    #[test]
    fn a_name_may_be_told_to_be_its_own() {
        let connection = database();
        record_same_person(&connection, "ana@s", "ana@s").unwrap();
        assert_eq!(names(&connection, "ana@s"), "ana@s");
    }

    #[test]
    fn a_chat_stays_with_its_person_when_the_number_gets_a_new_owner() {
        let connection = database();
        let (number, ana, bob) = ("1@s.whatsapp.net", "7@lid", "8@lid");
        connection
            .execute(
                "INSERT INTO groups (name, chat, role, added_at) VALUES ('ana', ?1, 'member', 0)",
                [number],
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO unread (chat, wa_id, sender_name, sent_at, noticed_at, ask_at, handle)
                 VALUES (?1, 'm1', 'Ana', 0, 0, 0, x'00')",
                [number],
            )
            .unwrap();
        record_same_person(&connection, number, ana).unwrap();
        record_same_person(&connection, number, bob).unwrap();
        let missing: String = connection.query_row("SELECT chat FROM unread", [], |row| row.get(0)).unwrap();
        assert_eq!(missing, ana, "and so does what could not be read there");
        let serves = |id: &str| {
            let sql = format!("SELECT count(*) FROM groups WHERE chat IN {}", aliases_sql("?1"));
            connection.query_row(&sql, [id], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((serves(ana), serves(bob), serves(number)), (1, 0, 0));
    }
}
