//! The table `recipients`: what is known of a reply on the devices of each person that it is for, and when it
//! is to be sealed anew. Whether there is reason for that is decided in `repair`; nothing that is sent ever
//! waits for it.
//!
//! A row is made by the first thing that is heard. Receipts may come before WhatsApp's own answer, twice, or
//! for messages that we do not know.

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::people::OWN_NAMES;
use super::{OutboxChange, Store, from_unix_millis, groups, owner, people, to_unix_millis};
use crate::repair::{self, Evidence, REPAIRED_FOR, RepairStep, SentCopy};
use crate::rules::Rules;
use crate::rules::delivery::ChatTrouble;
use crate::types::{ChatId, DeviceKind, MessageId, Receipt, ReceiptKind, SenderId};

/// Earlier replies of a chat that one thing heard may cast doubt on: the newest.
const EARLIER_MAX: i64 = 50;
/// The first repair waits no longer than this for a receipt.
const FIRST_REPAIR_WITHIN_MILLIS: i64 = 2 * 60 * 1000;
/// Replies that are taken for repair at a time.
const REPAIRS_AT_A_TIME: i64 = 20;

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
pub struct RepairBatch {
    pub due: Vec<DueRepair>,
    pub next: Option<Timestamp>,
}

/// Replies that WhatsApp has and no phone of anybody else yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndeliveredReplies {
    pub replies: u64,
    pub oldest_sent_at: Timestamp,
}

impl Store {
    /// Takes what is to be repaired now: each attempt is counted before it is made. What was repaired in vain
    /// is told to the owner.
    pub async fn claim_due_repairs(&self, rules: Rules, now: Timestamp) -> Result<RepairBatch> {
        self.with_connection(move |connection| {
            if next_repair_at(connection)?.is_none() {
                return Ok(RepairBatch::default());
            }
            let transaction = connection.transaction()?;
            let due = claim_due_repair_rows(&transaction, &rules, now)?;
            clamp_repair_times(&transaction, now)?;
            let next = next_repair_at(&transaction)?;
            transaction.commit()?;
            Ok(RepairBatch { due, next })
        })
        .await
    }

    /// The link was lost on the way to these repairs: they do not count, and are made again at once.
    pub async fn undo_repairs(&self, repairs: &[DueRepair], now: Timestamp) -> Result<()> {
        let undone: Vec<(i64, String)> =
            repairs.iter().map(|repair| (repair.reply, repair.person.as_str().to_owned())).collect();
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            for (reply, person) in undone {
                transaction
                    .prepare_cached(
                        "UPDATE recipients SET repairs = repairs - 1, repair_at = ?3
                         WHERE reply = ?1 AND person = ?2 AND repair_at IS NOT NULL",
                    )?
                    .execute(params![reply, person, to_unix_millis(now)])?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// How many replies WhatsApp has and no phone yet. A chat with oneself, or a group of one, has no other
    /// phone.
    pub async fn undelivered_replies(&self, now: Timestamp) -> Result<Option<UndeliveredReplies>> {
        self.with_connection(move |connection| {
            let sql = format!(
                "SELECT count(*), min(sent_at) FROM outbox INDEXED BY outbox_undelivered
                 WHERE state = 'acked' AND delivered_at IS NULL AND kind != 'reaction' AND sent_at >= ?1
                   AND chat NOT LIKE 'console:%' AND chat NOT IN {OWN_NAMES}
                   AND NOT EXISTS (SELECT 1 FROM chats WHERE chats.id = outbox.chat AND members = 1)"
            );
            let (replies, oldest): (i64, Option<i64>) =
                connection
                    .query_row(&sql, [repair_cutoff_millis(now)], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(oldest.map(|oldest| UndeliveredReplies {
                replies: replies.cast_unsigned(),
                oldest_sent_at: from_unix_millis(oldest),
            }))
        })
        .await
    }
}

/// Takes a receipt in.
pub(super) fn record_receipt(
    connection: &Connection,
    receipt: &Receipt,
    now: Timestamp,
) -> Result<OutboxChange> {
    let Some(sending) = find_recipient(connection, &receipt.id, &receipt.person)? else {
        return Ok(OutboxChange::Same);
    };
    match (receipt.kind, receipt.device) {
        (ReceiptKind::Retry, device) => {
            suspect_reply(connection, &sending, Evidence::AskedAgain(device), now)
        }
        (ReceiptKind::Delivered | ReceiptKind::Read, device) => {
            record_device_delivery(connection, &sending, device, now)?;
            if receipt.kind == ReceiptKind::Read {
                connection
                    .prepare_cached("UPDATE outbox SET read_at = coalesce(read_at, ?2) WHERE id = ?1")?
                    .execute([sending.reply, to_unix_millis(now)])?;
            }
            let evidence = match (device, receipt.kind) {
                (DeviceKind::Phone, _) => Evidence::LaterReply,
                (DeviceKind::Companion, ReceiptKind::Read) => Evidence::Active { at: now },
                (DeviceKind::Companion, ReceiptKind::Delivered | ReceiptKind::Retry) => {
                    return Ok(OutboxChange::Same);
                }
            };
            let (chat, person) = (&sending.chat, &receipt.person);
            suspect_earlier_replies(connection, chat, person, Some(sending.reply), evidence, now)
        }
    }
}

/// A reply went without a copy for this person's phone.
pub(super) fn record_missed_phone(
    connection: &Connection,
    id: &MessageId,
    person: &SenderId,
    now: Timestamp,
) -> Result<OutboxChange> {
    match find_recipient(connection, id, person)? {
        Some(sending) => suspect_reply(connection, &sending, Evidence::PhoneMissed, now),
        None => Ok(OutboxChange::Same),
    }
}

/// Somebody wrote in a chat.
pub(super) fn record_activity(
    connection: &Connection,
    chat: &ChatId,
    person: &SenderId,
    at: Timestamp,
    now: Timestamp,
) -> Result<OutboxChange> {
    suspect_earlier_replies(connection, chat, person, None, Evidence::Active { at }, now)
}

/// Somebody has set WhatsApp up anew.
pub(super) fn record_identity_change(
    connection: &Connection,
    person: &SenderId,
    now: Timestamp,
) -> Result<OutboxChange> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT chat FROM groups WHERE chat LIKE '%@g.us' OR chat IN {} ORDER BY name",
        people::aliases_sql("?1")
    ))?;
    let chats = statement
        .query_map([person.as_str()], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut change = OutboxChange::Same;
    for chat in chats {
        let doubted = suspect_earlier_replies(
            connection,
            &ChatId::new(chat),
            person,
            None,
            Evidence::IdentityChanged,
            now,
        )?;
        if doubted == OutboxChange::Changed {
            change = doubted;
        }
    }
    Ok(change)
}

/// What an earlier account of somebody else has sent cannot be repaired by this one.
pub(super) fn cancel_repairs(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE recipients SET repair_at = NULL WHERE repair_at IS NOT NULL", [])?;
    Ok(())
}

/// A reply and one of the people that it is for.
struct ReplyRecipient {
    reply: i64,
    chat: ChatId,
    /// The name under which the person has a row, or would get one.
    person: String,
    sent_at: Timestamp,
}

/// The reply of this id; nothing if we did not send it, or the person is ourselves: what our own devices say
/// tells nothing of somebody else's.
fn find_recipient(
    connection: &Connection,
    id: &MessageId,
    person: &SenderId,
) -> Result<Option<ReplyRecipient>> {
    if people::is_own_account(connection, person)? {
        return Ok(None);
    }
    let found = connection
        .prepare_cached(&format!(
            "SELECT id, chat, coalesce(sent_at, created_at),
                    coalesce((SELECT person FROM recipients WHERE reply = outbox.id AND person IN {}), ?2)
             FROM outbox WHERE wa_id = ?1",
            people::aliases_sql("?2")
        ))?
        .query_row([id.as_str(), person.as_str()], recipient_from_row)
        .optional()?;
    Ok(found)
}

fn recipient_from_row(row: &Row<'_>) -> rusqlite::Result<ReplyRecipient> {
    Ok(ReplyRecipient {
        reply: row.get(0)?,
        chat: ChatId::new(row.get::<_, String>(1)?),
        sent_at: from_unix_millis(row.get(2)?),
        person: row.get(3)?,
    })
}

/// A device has it: nothing of it is to be repaired there.
fn record_device_delivery(
    connection: &Connection,
    sending: &ReplyRecipient,
    device: DeviceKind,
    now: Timestamp,
) -> Result<()> {
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
        .execute(params![sending.reply, sending.person, to_unix_millis(now), device_kind_name(device)])?;
    if device == DeviceKind::Phone {
        connection
            .prepare_cached("UPDATE outbox SET delivered_at = coalesce(delivered_at, ?2) WHERE id = ?1")?
            .execute([sending.reply, to_unix_millis(now)])?;
    }
    Ok(())
}

/// What a person's sign of life says of the replies of a chat that they have given no receipt for: those
/// before the reply `before`, and after the last one that is known to be on their phone.
fn suspect_earlier_replies(
    connection: &Connection,
    chat: &ChatId,
    person: &SenderId,
    before: Option<i64>,
    evidence: Evidence,
    now: Timestamp,
) -> Result<OutboxChange> {
    // A terminal has no other devices.
    if chat.is_console_chat() || people::is_own_account(connection, person)? {
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
        people::aliases_sql("?2")
    ))?;
    let mut earlier =
        statement.query(params![chat.as_str(), person.as_str(), before, repair_cutoff_millis(now)])?;
    let (mut doubted, mut first_seen) = (Vec::new(), None);
    while let Some(row) = earlier.next()? {
        let (sending, copy) = (recipient_from_row(row)?, sent_copy_from_row(row, 4)?);
        // Usually the first row: what is before it was looked at when its receipt came.
        if copy.on_phone {
            break;
        }
        if repair::suspected_since(&copy, evidence, now).is_none() {
            continue;
        }
        let first_seen = match &first_seen {
            Some(first_seen) => *first_seen,
            None => *first_seen.insert(self::member_first_seen(connection, chat, person)?),
        };
        let was_there = !chat.is_whatsapp_group() || first_seen.is_some_and(|seen| seen <= sending.sent_at);
        if let Some(since) = repair::suspected_since(&SentCopy { was_there, ..copy }, evidence, now) {
            doubted.push((sending, since));
        }
    }
    for (sending, since) in &doubted {
        plan_repair(connection, sending, evidence, *since)?;
    }
    Ok(if doubted.is_empty() { OutboxChange::Same } else { OutboxChange::Changed })
}

/// Looks at one reply that a person should have, and plans its repair if this evidence makes it suspect.
fn suspect_reply(
    connection: &Connection,
    sending: &ReplyRecipient,
    evidence: Evidence,
    now: Timestamp,
) -> Result<OutboxChange> {
    let copy = connection
        .prepare_cached(
            "SELECT id, chat, coalesce(sent_at, created_at), phone_at IS NOT NULL, companion_at IS NOT NULL,
                    coalesce(suspicions, 0), repair_at IS NOT NULL
             FROM outbox LEFT JOIN recipients ON reply = outbox.id AND person = ?2 WHERE id = ?1",
        )?
        .query_row(params![sending.reply, sending.person], |row| sent_copy_from_row(row, 3))?;
    let Some(since) = repair::suspected_since(&copy, evidence, now) else { return Ok(OutboxChange::Same) };
    plan_repair(connection, sending, evidence, since)?;
    Ok(OutboxChange::Changed)
}

/// What is known of a reply on a person's devices: column 2 has when it was sent, and those from `first` on
/// have what `recipients` knows. Whether the person was there is the caller's to find out.
fn sent_copy_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<SentCopy> {
    Ok(SentCopy {
        sent_at: from_unix_millis(row.get(2)?),
        on_phone: row.get(first)?,
        on_companion: row.get(first + 1)?,
        was_there: true,
        suspicions: row.get(first + 2)?,
        is_suspected: row.get(first + 3)?,
    })
}

fn plan_repair(
    connection: &Connection,
    sending: &ReplyRecipient,
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
        .execute(params![
            sending.reply,
            sending.person,
            to_unix_millis(since),
            device_kind_name(evidence.suspected_device())
        ])?;
    Ok(())
}

/// When a group's member was first seen there: they wrote, or one of their devices had a reply.
fn member_first_seen(connection: &Connection, chat: &ChatId, person: &SenderId) -> Result<Option<Timestamp>> {
    let names = people::aliases_sql("?2");
    let first: Option<i64> = connection
        .prepare_cached(&format!(
            "SELECT min(seen_at) FROM (
                 SELECT min(received_at) AS seen_at FROM inbox WHERE chat = ?1 AND sender IN {names}
                 UNION ALL
                 SELECT min(sent_at) FROM recipients JOIN outbox ON outbox.id = reply
                 WHERE person IN {names} AND chat = ?1 AND coalesce(phone_at, companion_at) IS NOT NULL)"
        ))?
        .query_row([chat.as_str(), person.as_str()], |row| row.get(0))?;
    Ok(first.map(from_unix_millis))
}

fn next_repair_at(connection: &Connection) -> Result<Option<Timestamp>> {
    let next: Option<i64> = connection
        .prepare_cached(
            "SELECT min(repair_at) FROM recipients INDEXED BY recipients_repair JOIN outbox ON outbox.id = reply
             WHERE repair_at IS NOT NULL AND state = 'acked'",
        )?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(from_unix_millis))
}

/// After the clock was set back no repair waits for longer than the whole pause before it: one that would is
/// due at the next look, at once, and those that follow it come as much earlier.
fn clamp_repair_times(connection: &Connection, now: Timestamp) -> Result<()> {
    let pause_before = |repairs: u32| {
        let at = |repairs| repair::next_repair_step(Timestamp::UNIX_EPOCH, repairs).scheduled_at();
        to_unix_millis(at(repairs)) - to_unix_millis(at(repairs - 1))
    };
    connection
        .prepare_cached(
            "UPDATE recipients INDEXED BY recipients_repair
             SET suspected_at = suspected_at - (repair_at - ?1), repair_at = ?1
             WHERE repair_at IS NOT NULL AND repair_at > ?1 + CASE repairs
                 WHEN 0 THEN ?2 WHEN 1 THEN ?3 WHEN 2 THEN ?4 ELSE ?5 END",
        )?
        .execute([
            to_unix_millis(now),
            FIRST_REPAIR_WITHIN_MILLIS,
            pause_before(1),
            pause_before(2),
            pause_before(3),
        ])?;
    Ok(())
}

fn claim_due_repair_rows(connection: &Connection, rules: &Rules, now: Timestamp) -> Result<Vec<DueRepair>> {
    let mut statement = connection.prepare_cached(
        "SELECT reply, person, suspected_at, suspected, repairs, wa_id, message, outbox.chat
         FROM recipients INDEXED BY recipients_repair JOIN outbox ON outbox.id = reply
         WHERE repair_at <= ?1 AND state = 'acked' ORDER BY reply LIMIT ?2",
    )?;
    let suspect = statement
        .query_map([to_unix_millis(now), REPAIRS_AT_A_TIME], |row| {
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
                from_unix_millis(row.get(2)?),
                row.get::<_, u32>(4)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    drop(statement);
    let mut due = Vec::new();
    for (repair, suspected_at, repairs) in suspect {
        let is_served = groups::read_group_by_chat(connection, &repair.chat)?.is_some();
        // What was not handed over in this form, or whose chat is not served any more, stays as it is.
        let suspected_at = repair::postpone_suspicion(suspected_at, repairs, now);
        let next = match repair::next_repair_step(suspected_at, repairs) {
            RepairStep::Repair(_) if is_served && !repair.message.is_empty() => {
                Some(to_unix_millis(repair::next_repair_step(suspected_at, repairs + 1).scheduled_at()))
            }
            RepairStep::InVain(_) if is_served => {
                let news = ChatTrouble::UnreadableReply.as_daily_news(now);
                owner::notify_owner_unless_told(connection, &repair.chat, news, rules, now)?;
                None
            }
            RepairStep::Repair(_) | RepairStep::InVain(_) => None,
        };
        connection
            .prepare_cached(
                "UPDATE recipients SET repairs = repairs + (?3 IS NOT NULL), repair_at = ?3, suspected_at = ?4
                 WHERE reply = ?1 AND person = ?2",
            )?
            .execute(params![repair.reply, repair.person.as_str(), next, to_unix_millis(suspected_at)])?;
        if next.is_some() {
            due.push(repair);
        }
    }
    Ok(due)
}

/// Replies that were sent before this are not repaired.
fn repair_cutoff_millis(now: Timestamp) -> i64 {
    to_unix_millis(now.saturating_sub(REPAIRED_FOR).unwrap_or(Timestamp::MIN))
}

fn device_kind_name(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Phone => "phone",
        DeviceKind::Companion => "companion",
    }
}
