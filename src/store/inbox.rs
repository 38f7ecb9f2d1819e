//! The table `inbox`: every message of a registered chat, once, from its arrival to its answer.
//!
//! ```text
//! pending ──claim──▶ claimed ──answered, stopped──▶ done
//!    ▲                  ├──failed, tried too often──▶ parked
//!    └──failed, returned, lost──┘
//! ```
//! Claims and their endings are in `turns`; what the authors change later is in `changes`.

mod approvals;
mod changes;
mod commands;
mod refusals;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use self::refusals::CallCount;
use super::outbox::enqueue;
use super::{
    OutboxChange, Reply, Store, from_unix_millis, groups, media, outbox, people, recipients, senders,
    sessions, to_unix_millis, unread, whatsapp_account,
};
use crate::commands::{ChatStanding, GivenCommand};
use crate::rules::inbox::{
    AskPermission, CallDecision, KnownMessage, KnownQuote, MessageChange, MessageFacts, QuoteSource,
    QuotedAuthor, SenderStanding, StoredMessage, WakeDecision, decide_message,
};
use crate::rules::{Rules, absence};
use crate::types::{
    ChatId, Event, Forwarded, Group, GroupName, IncomingMessage, Media, MessageId, Role, SenderId,
    SenderPolicy, TurnId, UnreadableMessage,
};

/// For so long after a group's last turn, somebody who speaks there may be about to call Kai once more.
const TALKED_LATELY: SignedDuration = SignedDuration::from_hours(1);

/// What has come of taking events in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeResult {
    /// The groups that have something new to answer, each once.
    pub woken: Vec<GroupName>,
    /// The groups in which somebody may ask for something soon, each once.
    pub expected: Vec<GroupName>,
    /// The groups whose owner wants the agent ready.
    pub warmed: Vec<GroupName>,
    /// The turns that the owner has stopped.
    pub stopped: Vec<StoppedTurn>,
    pub outbox: OutboxChange,
    /// Whether there are messages that could not be read.
    pub unread: bool,
    /// Whether the owner was asked something, whose time for an answer runs.
    pub asked: bool,
    /// Files of messages that were taken back, to be removed: whose group, and the path in its folder.
    pub taken_back: Vec<(GroupName, String)>,
}

/// A turn whose rows are over, and whose engine is still to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedTurn {
    pub group: GroupName,
    pub turn: TurnId,
}

impl Store {
    /// Stores what happened, all or nothing; on disk when this returns.
    ///
    /// A message that is there already, or that we sent ourselves, is a no-op (idempotent). Of an unregistered chat only
    /// its existence is kept.
    pub async fn record_events(
        &self,
        events: Vec<Event>,
        rules: Rules,
        now: Timestamp,
    ) -> Result<IntakeResult> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut intake = Intake::new(&transaction, &rules, now);
            for event in &events {
                intake.record_event(event)?;
            }
            let taken = intake.finish_intake()?;
            transaction.commit()?;
            Ok(taken)
        })
        .await
    }

    /// Makes context of the calls that have waited too long for an answer, and tells their chats that Kai was
    /// away. Tasks have rules of their own.
    pub async fn expire_old_calls(&self, rules: Rules, now: Timestamp) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let mut intake = Intake::new(&transaction, &rules, now);
            let mut statement = transaction.prepare(
                "SELECT id, chat, sent_at FROM inbox INDEXED BY inbox_pending
                 WHERE state = 'pending' AND wake = 'wakes' AND task_run IS NULL",
            )?;
            let calls = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, from_unix_millis(row.get(2)?))))?
                .collect::<rusqlite::Result<Vec<(i64, String, Timestamp)>>>()?;
            drop(statement);
            for (row, chat, sent_at) in calls {
                if !absence::is_past_answer_window(&rules, sent_at, now) {
                    continue;
                }
                transaction
                    .prepare_cached("UPDATE inbox SET wake = 'context' WHERE id = ?1")?
                    .execute([row])?;
                if let Some(group) = intake.registered_group(&ChatId::new(chat))? {
                    intake.notify_chat_of_absence(&group)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The groups that have something to answer, the longest waiting first; then those whose session is to be put
    /// into a summary.
    pub async fn groups_with_pending_calls(&self) -> Result<Vec<GroupName>> {
        self.with_connection(|connection| {
            let mut statement = connection.prepare(
                "SELECT groups.name FROM groups JOIN inbox ON inbox.chat = groups.chat
                 WHERE inbox.state = 'pending' AND inbox.wake = 'wakes'
                 GROUP BY groups.name ORDER BY min(inbox.id)",
            )?;
            let names = statement
                .query_map([], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let others = sessions::groups_with_asked_compaction(connection)?;
            let others = others.into_iter().filter(|other| !names.contains(other)).collect::<Vec<_>>();
            names.iter().chain(&others).map(|name| GroupName::parse(name)).collect()
        })
        .await
    }
}

/// One transaction of intake.
struct Intake<'a> {
    connection: &'a Connection,
    rules: &'a Rules,
    now: Timestamp,
    taken: IntakeResult,
    /// The groups in which somebody has said something that is context.
    spoke: Vec<GroupName>,
}

/// What a row is made of; its chat is the group's.
struct NewRow<'a> {
    id: &'a MessageId,
    sender: &'a SenderId,
    sender_name: &'a str,
    text: &'a str,
    sent_at: Timestamp,
    forwarded: Forwarded,
    quote: Option<&'a KnownQuote>,
    /// The message whose new text this is.
    edits: Option<&'a MessageId>,
    media: Option<&'a Media>,
    wake: WakeDecision,
    state: &'static str,
}

impl<'a> Intake<'a> {
    fn new(connection: &'a Connection, rules: &'a Rules, now: Timestamp) -> Self {
        Self { connection, rules, now, taken: IntakeResult::default(), spoke: Vec::new() }
    }

    fn record_event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Message(message) => self.handle_message(message),
            Event::Edited(edit) => self.handle_edit(edit),
            Event::Deleted { chat, sender, target } => self.handle_deletion(chat, sender, target),
            Event::Reacted(reaction) => self.handle_reaction(reaction),
            Event::Noted(note) => self.handle_note(note),
            Event::Chat { id, name, members } => {
                groups::record_chat_name(self.connection, id, name, *members, self.now)
            }
            Event::SamePerson { one, other } => {
                people::record_same_person(self.connection, one.as_str(), other.as_str())
            }
            Event::Account(account) => whatsapp_account::record_linked_account(self.connection, account),
            Event::Answered { id, answer } => {
                outbox::record_answer(self.connection, id, *answer, self.rules, self.now)?;
                self.taken.outbox = OutboxChange::Changed;
                Ok(())
            }
            Event::Receipt(receipt) => {
                self.merge_outbox_change(recipients::record_receipt(self.connection, receipt, self.now)?)
            }
            Event::PhoneMissed { id, person } => self.merge_outbox_change(recipients::record_missed_phone(
                self.connection,
                id,
                person,
                self.now,
            )?),
            Event::IdentityChanged { person } => self
                .merge_outbox_change(recipients::record_identity_change(self.connection, person, self.now)?),
            Event::Unread(message) => self.handle_unread_event(message),
            Event::ReadAfterAll { chat, id } => match self.registered_group(chat)? {
                Some(group) => unread::resolve_unread_message(self.connection, &group.chat, id),
                None => Ok(()),
            },
            Event::Typing { chat } => self.handle_typing(chat),
        }
    }

    /// Has delivery look again, if there is something to repair.
    fn merge_outbox_change(&mut self, change: OutboxChange) -> Result<()> {
        if change == OutboxChange::Changed {
            self.taken.outbox = change;
        }
        Ok(())
    }

    fn handle_unread_event(&mut self, message: &UnreadableMessage) -> Result<()> {
        groups::record_chat_seen(self.connection, &message.chat, self.now)?;
        let Some(group) = self.registered_group(&message.chat)? else { return Ok(()) };
        if self.is_duplicate_or_own(&group, &message.id, &message.sender)? {
            return Ok(());
        }
        self.taken.unread = true;
        unread::record_unread_message(self.connection, &group.chat, message, self.now)
    }

    fn handle_message(&mut self, message: &IncomingMessage) -> Result<()> {
        groups::record_chat_seen(self.connection, &message.chat, self.now)?;
        groups::record_disappearing_timer(self.connection, &message.chat, message.expires_secs)?;
        let Some(group) = groups::read_group_by_chat(self.connection, &message.chat)? else {
            return self.handle_unserved_message(message);
        };
        unread::resolve_unread_message(self.connection, &group.chat, &message.id)?;
        let quoted = message.quote.as_ref().map(|quote| &quote.id);
        let is_known = self.is_duplicate_or_own(&group, &message.id, &message.sender)?;
        // What costs a query is looked up only if it can matter: a week's messages come at once.
        let command = GivenCommand::from_text(&message.text).map(|given| given.command);
        let facts = MessageFacts {
            is_known,
            sender: match command {
                Some(_) => senders::read_command_standing(self.connection, &group, &message.sender)?,
                None => SenderStanding::Other,
            },
            permission: if is_known {
                AskPermission::Granted
            } else {
                self.read_permission(&group, &message.sender)?
            },
            quotes: if is_known { QuotedAuthor::Other } else { self.quoted_author(&group, quoted)? },
        };
        let edit = if is_known { None } else { self.find_earlier_edit(&group, message)? };
        // A command is one, whatever it quotes.
        let is_command = facts.sender == SenderStanding::Owner && command.is_some();
        if !is_known && !is_command && edit.is_none() && self.settle_owner_answer(&group, message)? {
            return Ok(());
        }
        let standing = match (facts.sender, command) {
            (SenderStanding::Owner, Some(command)) if !is_known => self.chat_standing(&group, command)?,
            (SenderStanding::Owner | SenderStanding::Other, _) => ChatStanding::default(),
        };
        let earlier_edit = edit.as_ref().map(|edit| edit.row);
        let is_counted = edit.as_ref().is_some_and(|edit| edit.wake == WakeDecision::Wakes);
        let count = if is_counted { CallCount::Counted } else { CallCount::New };
        let known = KnownMessage { facts, edit, standing };
        let change = decide_message(&group, message, known, self.rules, self.now);
        if change == MessageChange::Dropped {
            return Ok(());
        }
        let wrote_at = message.sent_at.min(self.now);
        self.merge_outbox_change(recipients::record_activity(
            self.connection,
            &group.chat,
            &message.sender,
            wrote_at,
            self.now,
        )?)?;
        let quote = match &message.quote {
            Some(quote) => Some(
                self.find_quoted_message(&group, &quote.id)?
                    .unwrap_or_else(|| KnownQuote::from_client_quote(quote)),
            ),
            None => None,
        };
        let row = NewRow {
            id: &message.id,
            sender: &message.sender,
            sender_name: &message.sender_name,
            text: &message.text,
            sent_at: message.sent_at,
            forwarded: message.forwarded,
            quote: quote.as_ref(),
            edits: None,
            media: message.media.as_ref(),
            wake: WakeDecision::Context,
            state: "done",
        };
        match change {
            MessageChange::Dropped => {}
            MessageChange::Command(command) => self.settle_command(&group, command, &row)?,
            MessageChange::Refused(reason) => {
                // Nothing of it stays; if an edit came before it and was stored, that neither.
                if let Some(edit) = earlier_edit {
                    self.clear_edit_row(edit)?;
                }
                return self.notify_refused_sender(&group, &row, reason);
            }
            MessageChange::Stored(StoredMessage { text, call, is_pending, replaced_edit }) => {
                if let Some(edit) = replaced_edit {
                    self.clear_edit_row(edit)?;
                }
                self.notify_if_missed(&group, call)?;
                let state = if is_pending { "pending" } else { "done" };
                let row = NewRow { text: &text, wake: call.wake, state, ..row };
                self.record_permitted_row(&group, facts.permission, &row)?;
                self.count_call(&group, &message.sender, call, count)?;
                if let Some(reason) = call.refusal {
                    self.notify_refused_sender(&group, &row, reason)?;
                }
            }
        }
        self.update_pending_quotes(&group, &message.id)
    }

    fn say_in_chat(&mut self, group: &Group, text: String) -> Result<()> {
        self.taken.outbox = OutboxChange::Changed;
        enqueue::enqueue_reply(self.connection, &group.chat, None, &Reply::from_text(text), self.now)
    }

    fn quoted_author(&self, group: &Group, quoted: Option<&MessageId>) -> Result<QuotedAuthor> {
        Ok(match quoted {
            Some(quoted) if self.is_own_message(group, quoted)? => QuotedAuthor::Kai,
            Some(_) | None => QuotedAuthor::Other,
        })
    }

    /// Whether this message came before, under any name of its sender, or is one of our own.
    fn is_duplicate_or_own(&self, group: &Group, id: &MessageId, sender: &SenderId) -> Result<bool> {
        let came_before = self
            .connection
            .prepare_cached(&format!(
                "SELECT 1 FROM inbox WHERE chat = ?2 AND wa_id = ?3 AND sender IN {}",
                people::aliases_sql("?1")
            ))?
            .exists(params![sender.as_str(), group.chat.as_str(), id.as_str()])?;
        Ok(came_before || self.is_own_message(group, id)?)
    }

    /// Whether we sent this message ourselves: known by its id, never by its text.
    fn is_own_message(&self, group: &Group, id: &MessageId) -> Result<bool> {
        Ok(self
            .connection
            .prepare_cached("SELECT 1 FROM outbox WHERE wa_id = ?1 AND chat = ?2")?
            .exists([id.as_str(), group.chat.as_str()])?)
    }

    /// Of what has called Kai too long ago the chat hears that he was away.
    fn notify_if_missed(&mut self, group: &Group, call: CallDecision) -> Result<()> {
        if call.is_missed { self.notify_chat_of_absence(group) } else { Ok(()) }
    }

    /// Tells a chat that Kai was away, once for all that came meanwhile.
    fn notify_chat_of_absence(&mut self, group: &Group) -> Result<()> {
        let told_at: Option<i64> = self
            .connection
            .prepare_cached("SELECT away_told_at FROM groups WHERE name = ?1")?
            .query_row([group.name.as_str()], |row| row.get(0))?;
        if !absence::is_absence_news(self.rules, told_at.map(from_unix_millis), self.now) {
            return Ok(());
        }
        self.connection
            .prepare_cached("UPDATE groups SET away_told_at = ?2 WHERE name = ?1")?
            .execute(params![group.name.as_str(), to_unix_millis(self.now)])?;
        self.say_in_chat(group, absence::absence_notice(self.rules))
    }

    /// A message that we know, as a quote: what the quoting client says of it may be anything.
    fn find_quoted_message(&self, group: &Group, id: &MessageId) -> Result<Option<KnownQuote>> {
        let own = self
            .connection
            .prepare_cached("SELECT text, kind, path FROM outbox WHERE wa_id = ?2 AND chat = ?1")?
            .query_row([group.chat.as_str(), id.as_str()], |row| {
                let (kind, path): (String, Option<String>) = (row.get(1)?, row.get(2)?);
                Ok(KnownQuote::own_reply(id, row.get(0)?, kind == "reaction", path.as_deref()))
            })
            .optional()?;
        if own.is_some() {
            return Ok(own);
        }
        // The plus keeps SQLite from walking through the chat in the order of ids. What was taken back before
        // it came is nobody's words.
        Ok(self
            .connection
            .prepare_cached(
                "SELECT sender, sender_name, text, media_kind, media_mime, media_name, media_bytes, media_handle,
                        media_path
                 FROM inbox WHERE chat = ?1 AND wa_id = ?2
                 ORDER BY text = '' AND media_kind IS NULL, +id LIMIT 1",
            )?
            .query_row([group.chat.as_str(), id.as_str()], |row| {
                let quote = KnownQuote {
                    id: id.clone(),
                    source: QuoteSource::Chat,
                    sender: Some(SenderId::new(row.get::<_, String>(0)?)),
                    sender_name: row.get(1)?,
                    text: row.get(2)?,
                    media: media::media_from_row(row, "media")?,
                    path: row.get("media_path")?,
                };
                Ok(quote.mark_deleted())
            })
            .optional()?)
    }

    /// Writes a row, and notes which group is woken or may call soon.
    fn record_inbox_row(&mut self, group: &Group, row: &NewRow<'_>) -> Result<()> {
        self.insert_inbox_row(group, row)?;
        match row.wake {
            WakeDecision::Wakes => self.add_woken_group(group),
            WakeDecision::Context if !self.spoke.contains(&group.name) => self.spoke.push(group.name.clone()),
            WakeDecision::Context => {}
        }
        Ok(())
    }

    fn insert_inbox_row(&self, group: &Group, row: &NewRow<'_>) -> Result<()> {
        people::ensure_person(self.connection, row.sender)?;
        let NewRow { quote, media, .. } = row;
        let quoted = quote.and_then(|quote| quote.media.as_ref());
        self.connection
            .prepare_cached(
                "INSERT INTO inbox (chat, wa_id, sender, sender_name, text, sent_at, received_at,
                                    quote_id, quote_sender_name, quote_text,
                                    media_kind, media_mime, media_name, media_bytes, media_handle, media_state,
                                    wake, state, edits, forwarded, quote_sender, quote_source,
                                    quote_media_kind, quote_media_mime, quote_media_name, quote_media_bytes,
                                    quote_media_handle, quote_media_state, quote_media_path)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                         ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)
                 ON CONFLICT (chat, wa_id, sender) DO NOTHING",
            )?
            .execute(params![
                group.chat.as_str(),
                row.id.as_str(),
                row.sender.as_str(),
                row.sender_name,
                row.text,
                to_unix_millis(row.sent_at),
                to_unix_millis(self.now),
                quote.map(|quote| quote.id.as_str()),
                quote.map(|quote| quote.sender_name.as_str()),
                quote.map(|quote| quote.text.as_str()),
                media.map(|media| media.kind.name()),
                media.map(|media| media.mime.as_str()),
                media.and_then(|media| media.name.as_deref()),
                media.map(media::stored_bytes),
                media.map(|media| media.handle.as_slice()),
                media.map(|_| "wanted"),
                wake_name(row.wake),
                row.state,
                row.edits.map(MessageId::as_str),
                forwarded_name(row.forwarded),
                quote.and_then(|quote| quote.sender.as_ref()).map(SenderId::as_str),
                quote.map(|quote| quote_source_name(quote.source)),
                quoted.map(|media| media.kind.name()),
                quoted.map(|media| media.mime.as_str()),
                quoted.and_then(|media| media.name.as_deref()),
                quoted.map(media::stored_bytes),
                quoted.map(|media| media.handle.as_slice()),
                quoted.map(|_| "wanted"),
                quote.and_then(|quote| quote.path.as_deref()),
            ])?;
        if let Some(sender) = quote.and_then(|quote| quote.sender.as_ref()) {
            people::ensure_person(self.connection, sender)?;
        }
        Ok(())
    }

    /// Ends with what was taken in: where somebody has spoken, Kai may be called next, if that happened there
    /// lately.
    fn finish_intake(mut self) -> Result<IntakeResult> {
        let since = to_unix_millis(self.now.saturating_sub(TALKED_LATELY)?);
        for group in std::mem::take(&mut self.spoke) {
            let talked_lately = self
                .connection
                .prepare_cached("SELECT 1 FROM turns WHERE group_name = ?1 AND began_at >= ?2")?
                .exists(params![group.as_str(), since])?;
            if talked_lately {
                self.taken.expected.push(group);
            }
        }
        let IntakeResult { woken, expected, .. } = &mut self.taken;
        expected.sort();
        expected.dedup();
        expected.retain(|group| !woken.contains(group));
        Ok(self.taken)
    }

    /// In a direct chat, and in the main channel, everything is for Kai; in a group others write to each
    /// other. Nobody says who types in a group, so nothing is begun there if somebody may not ask.
    fn handle_typing(&mut self, chat: &ChatId) -> Result<()> {
        let group = self.registered_group(chat)?;
        let Some(group) = group else { return Ok(()) };
        let is_for_kai = if group.chat.is_whatsapp_group() {
            group.role == Role::Main && group.senders.may_ask == SenderPolicy::Anyone
        } else {
            self.read_permission(&group, &SenderId::new(chat.as_str()))? == AskPermission::Granted
        };
        self.taken.expected.extend(is_for_kai.then_some(group.name));
        Ok(())
    }

    fn add_woken_group(&mut self, group: &Group) {
        if !self.taken.woken.contains(&group.name) {
            self.taken.woken.push(group.name.clone());
        }
    }

    /// The group that a chat belongs to, by any of its names.
    fn registered_group(&self, chat: &ChatId) -> Result<Option<Group>> {
        groups::read_group_by_chat(self.connection, chat)
    }
}

fn quote_source_name(source: QuoteSource) -> &'static str {
    match source {
        QuoteSource::Kai => "kai",
        QuoteSource::Chat => "chat",
        QuoteSource::Client => "client",
    }
}

fn forwarded_name(forwarded: Forwarded) -> Option<&'static str> {
    match forwarded {
        Forwarded::No => None,
        Forwarded::Once => Some("once"),
        Forwarded::Many => Some("many"),
    }
}

fn wake_name(wake: WakeDecision) -> &'static str {
    match wake {
        WakeDecision::Wakes => "wakes",
        WakeDecision::Context => "context",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::*;
    use crate::store::tests::{add_group, rules};
    use crate::types::MediaKind;
    use crate::types::{
        Answer, DeviceKind, Edit, LinkedAccount, Mention, Quote, Reaction, Receipt, ReceiptKind, Role,
    };

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
    }

    fn message(chat: &str, id: &str, sender: &str, text: &str) -> IncomingMessage {
        IncomingMessage {
            chat: ChatId::new(chat),
            id: MessageId::new(id),
            sender: SenderId::new(sender),
            sender_name: sender.to_owned(),
            text: text.to_owned(),
            sent_at: at(NOW),
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    fn deleted(sender: &str) -> Event {
        Event::Deleted {
            chat: ChatId::new("family@g.us"),
            sender: SenderId::new(sender),
            target: MessageId::new("1"),
        }
    }

    async fn rows(store: &Store) -> String {
        let rows = store.with_connection(|connection| {
            let mut statement = connection.prepare(
                "SELECT concat_ws('|', wa_id, text, media_kind, media_mime, media_name, media_bytes, media_handle,
                                  media_state, wake, state) FROM inbox ORDER BY id",
            )?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?)
        });
        rows.await.unwrap().join("\n")
    }

    #[tokio::test]
    async fn media_is_wanted_until_its_author_takes_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        add_group(&store, "family", Role::Member, at(NOW)).await;
        let media = Media {
            kind: MediaKind::Document,
            mime: "application/pdf".to_owned(),
            name: Some("plan.pdf".to_owned()),
            bytes: u64::MAX,
            handle: b"handle".to_vec(),
        };
        let sent =
            IncomingMessage { media: Some(media), ..message("family@g.us", "1", "Ana", "@Kai read this") };
        let taken = store.record_events(vec![Event::Message(sent)], rules(), at(NOW)).await.unwrap();
        assert_eq!(taken.woken, [GroupName::parse("family").unwrap()]);
        insta::assert_snapshot!(rows(&store).await, @"1|@Kai read this|document|application/pdf|plan.pdf|9223372036854775807|handle|wanted|wakes|pending");

        store.record_events(vec![deleted("Mallory")], rules(), at(NOW)).await.unwrap();
        assert!(rows(&store).await.contains("handle"));
        store.record_events(vec![deleted("Ana")], rules(), at(NOW)).await.unwrap();
        insta::assert_snapshot!(rows(&store).await, @"1||wakes|done");
    }

    /// Events of few people, chats and ids, so that they meet, and of any text and time.
    fn event() -> impl Strategy<Value = Event> {
        let id = || prop_oneof!["[0-3]", any::<String>()];
        let person = || prop::sample::select(vec!["Ana@s", "Ana@lid", "Bob@s", "Bob@lid", ""]);
        let chat = || prop::sample::select(vec!["family@g.us", "main@g.us", "Ana@s", "Ana@lid", "x@g.us"]);
        let text = || prop_oneof!["@Kai .*", ".*", "\\[Edited\\] .*"];
        let second = || prop_oneof![NOW - 200_000..NOW + 200_000, any::<i64>()];
        let quote = (id(), text(), prop::option::of(person())).prop_map(|(id, text, sender)| Quote {
            id: MessageId::new(id),
            sender: sender.map(SenderId::new),
            sender_name: "?".to_owned(),
            text,
            media: None,
        });
        let inbound = (chat(), id(), person(), text(), second(), prop::option::of(quote)).prop_map(
            |(chat, id, sender, text, second, quote)| IncomingMessage {
                quote,
                sent_at: at(second),
                ..message(chat, &id, sender, &text)
            },
        );
        prop_oneof![
            inbound.clone().prop_map(Event::Message),
            (id(), inbound.clone()).prop_map(|(target, message)| Event::Edited(Edit {
                target: MessageId::new(target),
                message
            })),
            (chat(), person(), id()).prop_map(|(chat, sender, target)| Event::Deleted {
                chat: ChatId::new(chat),
                sender: SenderId::new(sender),
                target: MessageId::new(target)
            }),
            (inbound, id()).prop_map(|(message, target)| Event::Reacted(Reaction {
                chat: message.chat,
                id: message.id,
                sender: message.sender,
                sender_name: message.sender_name,
                target: MessageId::new(target),
                emoji: message.text,
                sent_at: message.sent_at,
            })),
            (chat(), text(), any::<Option<u32>>()).prop_map(|(chat, name, members)| Event::Chat {
                id: ChatId::new(chat),
                name,
                members
            }),
            (person(), person()).prop_map(|(one, other)| Event::SamePerson {
                one: SenderId::new(one),
                other: SenderId::new(other)
            }),
            (person(), text()).prop_map(|(id, name)| Event::Account(LinkedAccount {
                id: SenderId::new(id),
                lid: None,
                name
            })),
            (id(), any::<Option<u32>>()).prop_map(|(id, code)| Event::Answered {
                id: MessageId::new(id),
                answer: code.map_or(Answer::Acked, |code| Answer::Nacked { code }),
            }),
            (id(), person(), any::<bool>(), any::<bool>()).prop_map(|(id, person, phone, read)| {
                Event::Receipt(Receipt {
                    id: MessageId::new(id),
                    person: SenderId::new(person),
                    device: if phone { DeviceKind::Phone } else { DeviceKind::Companion },
                    kind: if read { ReceiptKind::Read } else { ReceiptKind::Retry },
                })
            }),
            (id(), person()).prop_map(|(id, person)| Event::PhoneMissed {
                id: MessageId::new(id),
                person: SenderId::new(person)
            }),
            person().prop_map(|person| Event::IdentityChanged { person: SenderId::new(person) }),
        ]
    }

    /// What is there of every row but its time of arrival.
    fn whole(connection: &Connection) -> Vec<Vec<Value>> {
        let mut statement = connection.prepare("SELECT * FROM inbox ORDER BY id").unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
        rows.unwrap().map(Result::unwrap).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_comes_is_taken_in_and_a_second_time_changes_nothing(
            events in prop::collection::vec(event(), 1..24),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
                add_group(&store, "main", Role::Main, at(NOW)).await;
                add_group(&store, "family", Role::Member, at(NOW)).await;
                let mut events = events;
                // A number that changes hands in between makes another person of who wrote before.
                events.sort_by_key(|event| !matches!(event, Event::SamePerson { .. } | Event::Account(_)));
                store.record_events(events.clone(), rules(), at(NOW)).await.unwrap();
                let strangers: Vec<Vec<Value>> = store
                    .with_connection(|connection| {
                        let mut known = whole(connection);
                        known.retain(|row| {
                            ![Value::Text("main@g.us".into()), Value::Text("family@g.us".into())].contains(&row[1])
                        });
                        Ok(known)
                    })
                    .await
                    .unwrap();
                assert_eq!(strangers, Vec::<Vec<Value>>::new(), "only registered chats are stored");

                let messages: Vec<Event> = events
                    .into_iter()
                    .filter(|event| matches!(event, Event::Message(_) | Event::Edited(_) | Event::Reacted(_)))
                    .collect();
                let before = store.with_connection(|connection| Ok(whole(connection))).await.unwrap();
                let taken = store.record_events(messages, rules(), at(NOW)).await.unwrap();
                assert_eq!(taken.woken, []);
                assert_eq!(store.with_connection(|connection| Ok(whole(connection))).await.unwrap(), before);
            });
        }
    }
}
