//! The table `recipients`: what is known of a reply on the devices of each person that it is for, and when it is to be
//! sealed anew. Whether there is reason for that is decided in `repair`; nothing that is sent ever waits for it.
//!
//! A row is made by the first thing that is heard. Receipts may come before WhatsApp's own answer, twice, or for
//! messages that we do not know.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{OutboxChange, Rules, Store, groups, millis, owner, people, time};
use crate::notices;
use crate::repair::{self, Evidence, REPAIRED_FOR, RepairStep, SentCopy};
use crate::types::{ChatId, DeviceKind, MessageId, Receipt, ReceiptKind, SenderId};

/// Earlier replies of a chat that one thing heard may cast doubt on: the newest.
const EARLIER_MAX: i64 = 50;
/// The first repair waits no longer than this for a receipt.
const FIRST_REPAIR_WITHIN_MILLIS: i64 = 2 * 60 * 1000;
/// Replies that are taken for repair at a time.
const REPAIRS_AT_A_TIME: i64 = 20;

/// The linked account's own names.
const OURS: &str = "(SELECT id FROM account UNION SELECT lid FROM account WHERE lid IS NOT NULL)";

/// A reply to be sealed anew for one person's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueRepair {
    reply: i64,
    pub chat: ChatId,
    pub id: MessageId,
    pub person: SenderId,
    pub device: DeviceKind,
    /// As the bridge has encoded it.
    pub message: Vec<u8>,
}

/// What is to be repaired now, the oldest first, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    pub due: Vec<DueRepair>,
    pub next: Option<Timestamp>,
}

/// Replies that WhatsApp has and no phone of anybody else yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    pub replies: u64,
    pub oldest_sent_at: Timestamp,
}

impl Store {
    /// Takes what is to be repaired now: each attempt is counted before it is made. What was repaired in vain is told
    /// to the owner.
    pub async fn take_due_repairs(&self, rules: Rules, now: Timestamp) -> Result<Repairs> {
        self.with(move |connection| {
            if next_repair_at(connection)?.is_none() {
                return Ok(Repairs::default());
            }
            let transaction = connection.transaction()?;
            let due = take_due(&transaction, &rules, now)?;
            shorten_waits(&transaction, now)?;
            let next = next_repair_at(&transaction)?;
            transaction.commit()?;
            Ok(Repairs { due, next })
        })
        .await
    }

    /// The link was lost on the way to these repairs: they do not count, and are made again at once.
    pub async fn undo_repairs(&self, repairs: &[DueRepair], now: Timestamp) -> Result<()> {
        let undone: Vec<(i64, String)> =
            repairs.iter().map(|repair| (repair.reply, repair.person.as_str().to_owned())).collect();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for (reply, person) in undone {
                transaction
                    .prepare_cached(
                        "UPDATE recipients SET repairs = repairs - 1, repair_at = ?3
                         WHERE reply = ?1 AND person = ?2 AND repair_at IS NOT NULL",
                    )?
                    .execute(params![reply, person, millis(now)])?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How many replies WhatsApp has and no phone yet. A chat with oneself, or a group of one, has no other phone.
    pub async fn undelivered(&self, now: Timestamp) -> Result<Option<Undelivered>> {
        self.with(move |connection| {
            let sql = format!(
                "SELECT count(*), min(sent_at) FROM outbox INDEXED BY outbox_undelivered
                 WHERE state = 'acked' AND delivered_at IS NULL AND kind != 'reaction' AND sent_at >= ?1
                   AND chat NOT LIKE 'console:%' AND chat NOT IN {OURS}
                   AND NOT EXISTS (SELECT 1 FROM chats WHERE chats.id = outbox.chat AND members = 1)"
            );
            let (replies, oldest): (i64, Option<i64>) =
                connection.query_row(&sql, [oldest_repaired(now)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(oldest
                .map(|oldest| Undelivered { replies: replies.cast_unsigned(), oldest_sent_at: time(oldest) }))
        })
        .await
    }
}

/// Takes a receipt in.
pub(super) fn receive(connection: &Connection, receipt: &Receipt, now: Timestamp) -> Result<OutboxChange> {
    let Some(sending) = find(connection, &receipt.id, &receipt.person)? else {
        return Ok(OutboxChange::Same);
    };
    match (receipt.kind, receipt.device) {
        (ReceiptKind::Retry, device) => doubt(connection, &sending, Evidence::AskedAgain(device), now),
        (ReceiptKind::Delivered | ReceiptKind::Read, device) => {
            arrived(connection, &sending, device, now)?;
            if receipt.kind == ReceiptKind::Read {
                connection
                    .prepare_cached("UPDATE outbox SET read_at = coalesce(read_at, ?2) WHERE id = ?1")?
                    .execute([sending.reply, millis(now)])?;
            }
            let evidence = match (device, receipt.kind) {
                (DeviceKind::Phone, _) => Evidence::LaterReply,
                (DeviceKind::Companion, ReceiptKind::Read) => Evidence::Active { at: now },
                (DeviceKind::Companion, ReceiptKind::Delivered | ReceiptKind::Retry) => {
                    return Ok(OutboxChange::Same);
                }
            };
            let (chat, person) = (&sending.chat, &receipt.person);
            doubt_earlier(connection, chat, person, Some(sending.reply), evidence, now)
        }
    }
}

/// A reply went without a copy for this person's phone.
pub(super) fn phone_missed(
    connection: &Connection,
    id: &MessageId,
    person: &SenderId,
    now: Timestamp,
) -> Result<OutboxChange> {
    match find(connection, id, person)? {
        Some(sending) => doubt(connection, &sending, Evidence::PhoneMissed, now),
        None => Ok(OutboxChange::Same),
    }
}

/// Somebody wrote in a chat.
pub(super) fn active(
    connection: &Connection,
    chat: &ChatId,
    person: &SenderId,
    at: Timestamp,
    now: Timestamp,
) -> Result<OutboxChange> {
    doubt_earlier(connection, chat, person, None, Evidence::Active { at }, now)
}

/// Somebody has set WhatsApp up anew.
pub(super) fn identity_changed(
    connection: &Connection,
    person: &SenderId,
    now: Timestamp,
) -> Result<OutboxChange> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT chat FROM groups WHERE chat LIKE '%@g.us' OR chat IN {} ORDER BY name",
        people::names_of("?1")
    ))?;
    let chats = statement
        .query_map([person.as_str()], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut change = OutboxChange::Same;
    for chat in chats {
        let doubted =
            doubt_earlier(connection, &ChatId::new(chat), person, None, Evidence::IdentityChanged, now)?;
        if doubted == OutboxChange::Changed {
            change = doubted;
        }
    }
    Ok(change)
}

/// What an earlier account of somebody else has sent cannot be repaired by this one.
pub(super) fn forget_repairs(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE recipients SET repair_at = NULL WHERE repair_at IS NOT NULL", [])?;
    Ok(())
}

/// A reply and one of the people that it is for.
struct Sending {
    reply: i64,
    chat: ChatId,
    /// The name under which the person has a row, or would get one.
    person: String,
    sent_at: Timestamp,
}

/// The reply of this id; none where we did not send it, or the person is ourselves: what our own devices say tells
/// nothing of somebody else's.
fn find(connection: &Connection, id: &MessageId, person: &SenderId) -> Result<Option<Sending>> {
    if is_ours(connection, person)? {
        return Ok(None);
    }
    let found = connection
        .prepare_cached(&format!(
            "SELECT id, chat, coalesce(sent_at, created_at),
                    coalesce((SELECT person FROM recipients WHERE reply = outbox.id AND person IN {}), ?2)
             FROM outbox WHERE wa_id = ?1",
            people::names_of("?2")
        ))?
        .query_row([id.as_str(), person.as_str()], sending)
        .optional()?;
    Ok(found)
}

fn sending(row: &Row<'_>) -> rusqlite::Result<Sending> {
    Ok(Sending {
        reply: row.get(0)?,
        chat: ChatId::new(row.get::<_, String>(1)?),
        sent_at: time(row.get(2)?),
        person: row.get(3)?,
    })
}

fn is_ours(connection: &Connection, person: &SenderId) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {OURS} AS ours WHERE ours.id IN {}", people::names_of("?1"));
    Ok(connection.prepare_cached(&sql)?.exists([person.as_str()])?)
}

/// A device has it: nothing of it is to be repaired there.
fn arrived(connection: &Connection, sending: &Sending, device: DeviceKind, now: Timestamp) -> Result<()> {
    let column = match device {
        DeviceKind::Phone => "phone_at",
        DeviceKind::Companion => "companion_at",
    };
    connection
        .prepare_cached(&format!(
            "INSERT INTO recipients (reply, person, {column}) VALUES (?1, ?2, ?3)
             ON CONFLICT (reply, person) DO UPDATE SET
                {column} = coalesce({column}, excluded.{column}),
                repair_at = iif(suspected = ?4, NULL, repair_at)"
        ))?
        .execute(params![sending.reply, sending.person, millis(now), name(device)])?;
    if device == DeviceKind::Phone {
        connection
            .prepare_cached("UPDATE outbox SET delivered_at = coalesce(delivered_at, ?2) WHERE id = ?1")?
            .execute([sending.reply, millis(now)])?;
    }
    Ok(())
}

/// What a person's sign of life says of the replies of a chat that they have given no receipt for: those before the
/// reply `before`, and after the last one that is known to be on their phone.
fn doubt_earlier(
    connection: &Connection,
    chat: &ChatId,
    person: &SenderId,
    before: Option<i64>,
    evidence: Evidence,
    now: Timestamp,
) -> Result<OutboxChange> {
    // A terminal has no other devices.
    if chat.is_console() || is_ours(connection, person)? {
        return Ok(OutboxChange::Same);
    }
    // Of a long history only the newest replies are looked at, whatever is known of them.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT newest.id, chat, coalesce(sent_at, created_at), coalesce(person, ?2),
                phone_at IS NOT NULL, companion_at IS NOT NULL, coalesce(suspicions, 0), repair_at IS NOT NULL
         FROM (SELECT * FROM outbox INDEXED BY outbox_acked
               WHERE chat = ?1 AND state = 'acked' AND id < coalesce(?3, 9223372036854775807)
               ORDER BY id DESC LIMIT {EARLIER_MAX}) AS newest
         LEFT JOIN recipients ON reply = newest.id AND person IN {}
         WHERE kind != 'reaction' AND message IS NOT NULL AND sent_at >= ?4
         ORDER BY newest.id DESC",
        people::names_of("?2")
    ))?;
    let mut earlier =
        statement.query(params![chat.as_str(), person.as_str(), before, oldest_repaired(now)])?;
    let (mut doubted, mut first_seen) = (Vec::new(), None);
    while let Some(row) = earlier.next()? {
        let (sending, copy) = (sending(row)?, copy(row, 4)?);
        // Usually the first row: what is before it was looked at when its receipt came.
        if copy.on_phone {
            break;
        }
        if repair::suspect(&copy, evidence, now).is_none() {
            continue;
        }
        let first_seen = match &first_seen {
            Some(first_seen) => *first_seen,
            None => *first_seen.insert(self::first_seen(connection, chat, person)?),
        };
        let was_there = !chat.is_whatsapp_group() || first_seen.is_some_and(|seen| seen <= sending.sent_at);
        if let Some(since) = repair::suspect(&SentCopy { was_there, ..copy }, evidence, now) {
            doubted.push((sending, since));
        }
    }
    for (sending, since) in &doubted {
        plan_repair(connection, sending, evidence, *since)?;
    }
    Ok(if doubted.is_empty() { OutboxChange::Same } else { OutboxChange::Changed })
}

/// Looks at one reply that a person should have, and plans its repair if this evidence makes it suspect.
fn doubt(
    connection: &Connection,
    sending: &Sending,
    evidence: Evidence,
    now: Timestamp,
) -> Result<OutboxChange> {
    let copy = connection
        .prepare_cached(
            "SELECT id, chat, coalesce(sent_at, created_at), phone_at IS NOT NULL, companion_at IS NOT NULL,
                    coalesce(suspicions, 0), repair_at IS NOT NULL
             FROM outbox LEFT JOIN recipients ON reply = outbox.id AND person = ?2 WHERE id = ?1",
        )?
        .query_row(params![sending.reply, sending.person], |row| copy(row, 3))?;
    let Some(since) = repair::suspect(&copy, evidence, now) else { return Ok(OutboxChange::Same) };
    plan_repair(connection, sending, evidence, since)?;
    Ok(OutboxChange::Changed)
}

/// What is known of a reply on a person's devices: column 2 has when it was sent, and those from `first` on have what
/// `recipients` knows. Whether the person was there is the caller's to find out.
fn copy(row: &Row<'_>, first: usize) -> rusqlite::Result<SentCopy> {
    Ok(SentCopy {
        sent_at: time(row.get(2)?),
        on_phone: row.get(first)?,
        on_companion: row.get(first + 1)?,
        was_there: true,
        suspicions: row.get(first + 2)?,
        is_suspected: row.get(first + 3)?,
    })
}

fn plan_repair(
    connection: &Connection,
    sending: &Sending,
    evidence: Evidence,
    since: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO recipients (reply, person, suspected_at, suspected, suspicions, repair_at)
             VALUES (?1, ?2, ?3, ?4, 1, ?3)
             ON CONFLICT (reply, person) DO UPDATE SET
                suspected_at = excluded.suspected_at, suspected = excluded.suspected,
                suspicions = suspicions + 1, repairs = 0, repair_at = excluded.repair_at",
        )?
        .execute(params![sending.reply, sending.person, millis(since), name(evidence.device())])?;
    Ok(())
}

/// When a group's member was first seen there: they wrote, or one of their devices had a reply.
fn first_seen(connection: &Connection, chat: &ChatId, person: &SenderId) -> Result<Option<Timestamp>> {
    let names = people::names_of("?2");
    let first: Option<i64> = connection
        .prepare_cached(&format!(
            "SELECT min(seen_at) FROM (
                 SELECT min(received_at) AS seen_at FROM inbox WHERE chat = ?1 AND sender IN {names}
                 UNION ALL
                 SELECT min(sent_at) FROM recipients JOIN outbox ON outbox.id = reply
                 WHERE person IN {names} AND chat = ?1 AND coalesce(phone_at, companion_at) IS NOT NULL)"
        ))?
        .query_row([chat.as_str(), person.as_str()], |row| row.get(0))?;
    Ok(first.map(time))
}

fn next_repair_at(connection: &Connection) -> Result<Option<Timestamp>> {
    let next: Option<i64> = connection
        .prepare_cached(
            "SELECT min(repair_at) FROM recipients INDEXED BY recipients_repair JOIN outbox ON outbox.id = reply
             WHERE repair_at IS NOT NULL AND state = 'acked'",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(time))
}

/// After the clock was set back no repair waits for longer than the whole pause before it: one that would is due at the
/// next look, at once, and those that follow it come as much earlier.
fn shorten_waits(connection: &Connection, now: Timestamp) -> Result<()> {
    let pause_before = |repairs: u32| {
        let at = |repairs| repair::next_repair(Timestamp::UNIX_EPOCH, repairs).at();
        millis(at(repairs)) - millis(at(repairs - 1))
    };
    connection
        .prepare_cached(
            "UPDATE recipients INDEXED BY recipients_repair
             SET suspected_at = suspected_at - (repair_at - ?1), repair_at = ?1
             WHERE repair_at IS NOT NULL AND repair_at > ?1 + CASE repairs
                 WHEN 0 THEN ?2 WHEN 1 THEN ?3 WHEN 2 THEN ?4 ELSE ?5 END",
        )?
        .execute([
            millis(now),
            FIRST_REPAIR_WITHIN_MILLIS,
            pause_before(1),
            pause_before(2),
            pause_before(3),
        ])?;
    Ok(())
}

fn take_due(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<Vec<DueRepair>> {
    let mut statement = connection.prepare_cached(
        "SELECT reply, person, suspected_at, suspected, repairs, wa_id, message, outbox.chat
         FROM recipients INDEXED BY recipients_repair JOIN outbox ON outbox.id = reply
         WHERE repair_at <= ?1 AND state = 'acked' ORDER BY reply LIMIT ?2",
    )?;
    let suspect = statement
        .query_map([millis(now), REPAIRS_AT_A_TIME], |row| {
            let person: String = row.get(1)?;
            let suspected: String = row.get(3)?;
            Ok((
                DueRepair {
                    reply: row.get(0)?,
                    chat: ChatId::new(row.get::<_, String>(7)?),
                    id: MessageId::new(row.get::<_, String>(5)?),
                    person: SenderId::new(person),
                    device: if suspected == "companion" { DeviceKind::Companion } else { DeviceKind::Phone },
                    message: row.get::<_, Option<Vec<u8>>>(6)?.unwrap_or_default(),
                },
                time(row.get(2)?),
                row.get::<_, u32>(4)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    drop(statement);
    let mut due = Vec::new();
    for (repair, suspected_at, repairs) in suspect {
        let is_served = groups::group_of(connection, &repair.chat)?.is_some();
        // What was not handed over in this form, or whose chat is not served any more, stays as it is.
        let suspected_at = repair::rebased(suspected_at, repairs, now);
        let next = match repair::next_repair(suspected_at, repairs) {
            RepairStep::Repair(_) if is_served && !repair.message.is_empty() => {
                Some(millis(repair::next_repair(suspected_at, repairs + 1).at()))
            }
            RepairStep::InVain(_) if is_served => {
                owner::tell_owner(connection, &repair.chat, notices::on_no_phone, rules, now)?;
                None
            }
            RepairStep::Repair(_) | RepairStep::InVain(_) => None,
        };
        connection
            .prepare_cached(
                "UPDATE recipients SET repairs = repairs + (?3 IS NOT NULL), repair_at = ?3, suspected_at = ?4
                 WHERE reply = ?1 AND person = ?2",
            )?
            .execute(params![repair.reply, repair.person.as_str(), next, millis(suspected_at)])?;
        if next.is_some() {
            due.push(repair);
        }
    }
    Ok(due)
}

/// Replies that were sent before this are not repaired.
fn oldest_repaired(now: Timestamp) -> i64 {
    millis(now.saturating_sub(REPAIRED_FOR).unwrap_or(Timestamp::MIN))
}

fn name(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Phone => "phone",
        DeviceKind::Companion => "companion",
    }
}
