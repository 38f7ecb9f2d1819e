//! The columns `media_…` and `quote_media_…` of the table `inbox`: what is attached to messages and to what
//! they quote, from WhatsApp's servers to the group's folder. Also who writes in a chat, as an answer may
//! name them.
//!
//! ```text
//! wanted ──fetched──▶ saved
//!    └──cannot be had──▶ missing
//! ```
//! A file stays `wanted` until a prompt needs it: what nobody asks about is never fetched.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{RowId, Store, from_unix_millis, waiting};
use crate::types::{
    ChatId, FileLocation, GroupName, Media, MediaKind, MentionablePerson, PromptFile, SenderId, VoiceWords,
};

/// How far back people of a chat count as there, in messages.
const RECENT_MESSAGES: i64 = 500;

/// A file that the next prompt needs and that is still on WhatsApp's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFile {
    pub row: RowId,
    pub whose: AttachedTo,
    pub media: Media,
    pub sent_at: Timestamp,
    /// The path under which it was saved before, if it was.
    pub path: Option<String>,
}

/// What a file is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedTo {
    Message,
    /// The message that this one quotes.
    Quoted,
}

impl AttachedTo {
    /// What its columns begin with.
    fn column_prefix(self) -> &'static str {
        match self {
            Self::Message => "media",
            Self::Quoted => "quote_media",
        }
    }
}

impl RowId {
    /// The same for the same message, for ever.
    pub fn number(self) -> i64 {
        self.0
    }

    #[cfg(test)]
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }
}

impl Store {
    /// The files that a group's claims wait for, the newest message's first; nothing while nobody calls Kai.
    pub async fn wanted_files(&self, group: &GroupName) -> Result<Vec<WantedFile>> {
        let group = group.clone();
        self.with_connection(move |connection| {
            let chat: Option<String> = connection
                .prepare_cached("SELECT chat FROM groups WHERE name = ?1")?
                .query_row([group.as_str()], |row| row.get(0))
                .optional()?;
            let Some(chat) = chat.map(ChatId::new) else { return Ok(Vec::new()) };
            let transaction = connection.transaction()?;
            let Some(up_to) = waiting::newest_claimable_with_files(&transaction, &chat)? else { return Ok(Vec::new()) };
            let mut statement = transaction.prepare_cached(
                "SELECT * FROM inbox INDEXED BY inbox_wanted
                 WHERE chat = ?1 AND state = 'pending' AND (media_state = 'wanted' OR quote_media_state = 'wanted')
                   AND id <= ?2
                 ORDER BY id DESC",
            )?;
            let mut wanted = Vec::new();
            let mut rows = statement.query(params![chat.as_str(), up_to])?;
            while let Some(row) = rows.next()? {
                for whose in [AttachedTo::Message, AttachedTo::Quoted] {
                    wanted.extend(wanted_file_from_row(row, whose)?);
                }
            }
            drop(rows);
            drop(statement);
            transaction.commit()?;
            Ok(wanted)
        })
        .await
    }

    /// A file lies in the group's folder; `path` is relative to that. False if its message does not want it
    /// any more.
    pub async fn record_saved_file(&self, row: RowId, whose: AttachedTo, path: String) -> Result<bool> {
        self.with_connection(move |connection| {
            record_file_state(connection, (row, whose), "saved", Some(&path), None)?;
            // Also what an earlier try has written without our hearing of it.
            let columns = whose.column_prefix();
            Ok(connection
                .prepare_cached(&format!(
                    "SELECT 1 FROM inbox WHERE id = ?1 AND {columns}_path = ?2 AND {columns}_state = 'saved'"
                ))?
                .exists(params![row.0, path])?)
        })
        .await
    }

    /// What a voice note says, before its file counts as saved.
    pub async fn record_voice_words(&self, row: RowId, whose: AttachedTo, words: VoiceWords) -> Result<()> {
        self.with_connection(move |connection| {
            let columns = whose.column_prefix();
            let (heard, unheard) = match words {
                VoiceWords::Heard(text) => (Some(text), None),
                VoiceWords::Unheard { reason } => (None, Some(reason)),
            };
            connection
                .prepare_cached(&format!(
                    "UPDATE inbox SET {columns}_words = ?2, {columns}_unheard = ?3
                     WHERE id = ?1 AND {columns}_state = 'wanted'"
                ))?
                .execute(params![row.0, heard, unheard])?;
            Ok(())
        })
        .await
    }

    /// Files will not come; `reason` is for the agent, such as `larger than 32 MB`.
    pub async fn record_missing_files(&self, files: Vec<(RowId, AttachedTo)>, reason: String) -> Result<()> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            for file in files {
                record_file_state(&transaction, file, "missing", None, Some(&reason))?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The whole text of a message lies in the group's folder.
    pub async fn record_text_path(&self, row: RowId, path: String) -> Result<()> {
        self.with_connection(move |connection| {
            connection
                .prepare_cached("UPDATE inbox SET text_path = ?2 WHERE id = ?1")?
                .execute(params![row.0, path])?;
            Ok(())
        })
        .await
    }

    /// The people of a chat's recent messages whose name is theirs alone, each name with who it is.
    pub async fn recent_senders(&self, chat: &ChatId) -> Result<Vec<MentionablePerson>> {
        let chat = chat.clone();
        self.with_connection(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sender_name, sender,
                        coalesce((SELECT CAST(person AS TEXT) FROM people WHERE people.id = sender), sender)
                 FROM inbox INDEXED BY inbox_chat WHERE chat = ?1 AND task_run IS NULL
                 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![chat.as_str(), RECENT_MESSAGES], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })?;
            let mut people: Vec<MentionablePerson> = Vec::new();
            let mut bearers: HashMap<String, HashSet<String>> = HashMap::new();
            for row in rows {
                let (name, sender, person) = row?;
                let bearers = bearers.entry(name.clone()).or_default();
                if bearers.is_empty() {
                    people.push(MentionablePerson { name, id: SenderId::new(sender) });
                }
                bearers.insert(person);
            }
            people.retain(|person| bearers.get(&person.name).is_some_and(|bearers| bearers.len() == 1));
            Ok(people)
        })
        .await
    }
}

/// Says what became of a file; a second word on it changes nothing. What finds it stays: somebody may quote
/// it.
fn record_file_state(
    connection: &Connection,
    (row, whose): (RowId, AttachedTo),
    state: &str,
    path: Option<&str>,
    missing: Option<&str>,
) -> Result<()> {
    let columns = whose.column_prefix();
    connection
        .prepare_cached(&format!(
            "UPDATE inbox SET {columns}_state = ?2, {columns}_path = ?3, {columns}_missing = ?4
             WHERE id = ?1 AND {columns}_state = 'wanted'"
        ))?
        .execute(params![row.0, state, path, missing])?;
    Ok(())
}

/// A file, if it is still wanted.
fn wanted_file_from_row(row: &Row<'_>, whose: AttachedTo) -> rusqlite::Result<Option<WantedFile>> {
    let columns = whose.column_prefix();
    let state: Option<String> = row.get(format!("{columns}_state").as_str())?;
    let Some(media) = media_from_row(row, columns)?.filter(|_| state.as_deref() == Some("wanted")) else {
        return Ok(None);
    };
    let path = row.get(format!("{columns}_path").as_str())?;
    Ok(Some(WantedFile {
        row: RowId(row.get("id")?),
        whose,
        media,
        sent_at: from_unix_millis(row.get("sent_at")?),
        path,
    }))
}

/// What is attached, from the columns that begin with this.
pub(super) fn media_from_row(row: &Row<'_>, columns: &str) -> rusqlite::Result<Option<Media>> {
    let column = |name: &str| format!("{columns}_{name}");
    let Some(kind_name) = row.get::<_, Option<String>>(column("kind").as_str())? else { return Ok(None) };
    let bytes: Option<i64> = row.get(column("bytes").as_str())?;
    Ok(Some(Media {
        kind: parse_media_kind(&kind_name),
        mime: row.get::<_, Option<String>>(column("mime").as_str())?.unwrap_or_default(),
        name: row.get(column("name").as_str())?,
        bytes: bytes.unwrap_or_default().cast_unsigned(),
        handle: row.get::<_, Option<Vec<u8>>>(column("handle").as_str())?.unwrap_or_default(),
    }))
}

/// A file's size as SQLite can hold it.
pub(super) fn stored_bytes(media: &Media) -> i64 {
    i64::try_from(media.bytes).unwrap_or(i64::MAX)
}

/// The file of a claimed row, or of what it quotes, as the agent hears of it.
pub(super) fn prompt_file_from_row(row: &Row<'_>, whose: AttachedTo) -> rusqlite::Result<Option<PromptFile>> {
    let column = |name: &str| format!("{}_{name}", whose.column_prefix());
    let Some(kind_name) = row.get::<_, Option<String>>(column("kind").as_str())? else { return Ok(None) };
    let is_saved = row.get::<_, Option<String>>(column("state").as_str())?.as_deref() == Some("saved");
    let path: Option<String> = row.get(column("path").as_str())?;
    let whereabouts = match path.filter(|_| is_saved) {
        Some(path) => FileLocation::Saved { path },
        None => FileLocation::Missing {
            reason: row.get::<_, Option<String>>(column("missing").as_str())?.unwrap_or_default(),
        },
    };
    let text = |name: &str| row.get::<_, Option<String>>(column(name).as_str());
    let words = match (text("words")?, text("unheard")?) {
        (Some(text), _) => Some(VoiceWords::Heard(text)),
        (None, Some(reason)) => Some(VoiceWords::Unheard { reason }),
        (None, None) => None,
    };
    Ok(Some(PromptFile {
        words: words.filter(|_| is_saved),
        kind: parse_media_kind(&kind_name),
        name: row.get(column("name").as_str())?,
        whereabouts,
    }))
}

/// The kind of a name that the schema allows.
fn parse_media_kind(name: &str) -> MediaKind {
    match name {
        "image" => MediaKind::Image,
        "video" => MediaKind::Video,
        "voice" => MediaKind::Voice,
        "audio" => MediaKind::Audio,
        "sticker" => MediaKind::Sticker,
        _ => MediaKind::Document,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Claim, Rules};
    use crate::types::{Engine, Event, Forwarded, Group, IncomingMessage, Mention, MessageId, Role};

    struct Chat {
        store: Store,
        group: Group,
        _folder: tempfile::TempDir,
    }

    impl Chat {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
            let name = GroupName::parse("family").unwrap();
            let group = Group::new(name, ChatId::new("family@g.us"), Role::Member);
            store.add_group(&group, Timestamp::UNIX_EPOCH).await.unwrap();
            Self { store, group, _folder: folder }
        }

        async fn tell(&self, events: Vec<Event>) {
            let rules = Rules {
                answer_within: std::time::Duration::from_secs(60),
                reply_prefix: String::new(),
                ..crate::store::tests::rules()
            };
            self.store.record_events(events, rules, Timestamp::UNIX_EPOCH).await.unwrap();
        }

        async fn says(&self, id: &str, (number, name): (&str, &str), text: &str, media: Option<Media>) {
            let message = IncomingMessage {
                chat: self.group.chat.clone(),
                id: MessageId::new(id),
                sender: SenderId::new(format!("{number}@s.whatsapp.net")),
                sender_name: name.to_owned(),
                text: text.to_owned(),
                sent_at: Timestamp::UNIX_EPOCH,
                mention: Mention::NotMe,
                forwarded: Forwarded::No,
                quote: None,
                media,
                expires_secs: None,
            };
            self.tell(vec![Event::Message(message)]).await;
        }

        /// The ids of the next claim's messages, the waking one last.
        async fn claims(&self) -> Vec<String> {
            let claim = self
                .store
                .claim_pending_rows(&self.group, Engine::KimiCli, Timestamp::UNIX_EPOCH)
                .await
                .unwrap();
            let ids = |claim: Claim| claim.messages.iter().map(|message| message.id.to_string()).collect();
            claim.map(ids).unwrap_or_default()
        }

        async fn wanted(&self) -> Vec<WantedFile> {
            self.store.wanted_files(&self.group.name).await.unwrap()
        }
    }

    fn photo() -> Option<Media> {
        let mime = "image/jpeg".to_owned();
        Some(Media { kind: MediaKind::Image, mime, name: None, bytes: 7, handle: b"photo".to_vec() })
    }

    const ANA: (&str, &str) = ("34600000001", "Ana");

    #[tokio::test]
    async fn nothing_is_told_before_the_files_in_front_of_it() {
        let chat = Chat::new().await;
        chat.says("1", ANA, "@Kai first", None).await;
        chat.says("2", ANA, "look", photo()).await;
        assert_eq!(chat.wanted().await, [], "nobody has asked about it");
        chat.says("3", ANA, "@Kai and this?", photo()).await;
        chat.says("4", ANA, "@Kai hurry", None).await;
        chat.says("5", ANA, "another", photo()).await;

        assert_eq!(chat.claims().await, ["1"]);
        chat.store.claim_pending_rows(&chat.group, Engine::KimiCli, Timestamp::UNIX_EPOCH).await.unwrap();
        let wanted = chat.wanted().await;
        assert_eq!(wanted.iter().map(|file| file.row.number()).collect::<Vec<_>>(), [3, 2], "newest first");
        assert_eq!(Some(&wanted[0].media), photo().as_ref());

        chat.store
            .record_saved_file(wanted[0].row, AttachedTo::Message, "inbox/a.jpg".to_owned())
            .await
            .unwrap();
        assert_eq!(chat.claims().await, ["1"], "the older one is still to come");
        chat.store
            .record_missing_files(vec![(wanted[1].row, AttachedTo::Message)], "too late".to_owned())
            .await
            .unwrap();
        // A second word on it changes nothing.
        assert!(
            !chat
                .store
                .record_saved_file(wanted[1].row, AttachedTo::Message, "inbox/b.jpg".to_owned())
                .await
                .unwrap()
        );
        assert!(
            chat.store
                .record_saved_file(wanted[0].row, AttachedTo::Message, "inbox/a.jpg".to_owned())
                .await
                .unwrap()
        );
        assert!(chat.store.has_pending_calls(&chat.group).await.unwrap());
        let claim = chat
            .store
            .claim_pending_rows(&chat.group, Engine::KimiCli, Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
            .unwrap();
        let files: Vec<_> = claim.messages.iter().map(|message| message.file.clone()).collect();
        let file =
            |whereabouts| Some(PromptFile { kind: MediaKind::Image, name: None, whereabouts, words: None });
        assert_eq!(
            files,
            [
                None,
                file(FileLocation::Missing { reason: "too late".to_owned() }),
                file(FileLocation::Saved { path: "inbox/a.jpg".to_owned() }),
                None,
            ]
        );
        assert_eq!(claim.called_by, Some(RowId(4)));
        assert_eq!(claim.senders.len(), 1);
        assert_eq!(chat.wanted().await, [], "nobody has asked about the last");
    }

    #[tokio::test]
    async fn a_file_behind_more_calls_than_a_claim_takes_is_fetched_all_the_same() {
        let chat = Chat::new().await;
        for call in 0..110 {
            chat.says(&format!("{call}"), ANA, "@Kai and?", None).await;
        }
        chat.says("last", ANA, "@Kai look", photo()).await;
        assert_eq!(chat.wanted().await.len(), 1);
    }

    #[tokio::test]
    async fn context_that_is_never_told_is_not_fetched() {
        let chat = Chat::new().await;
        for picture in 0..150 {
            chat.says(&format!("{picture}"), ANA, "look", photo()).await;
        }
        chat.says("call", ANA, "@Kai which?", None).await;
        let wanted = chat.wanted().await;
        assert_eq!(wanted.len(), 100);
        assert_eq!(wanted.last().unwrap().row, RowId(51));
        let rows = wanted.iter().map(|file| (file.row, file.whose)).collect();
        chat.store.record_missing_files(rows, "too many files at once".to_owned()).await.unwrap();
        assert_eq!(chat.wanted().await, []);
        assert_eq!(chat.claims().await.len(), 101);
    }

    #[tokio::test]
    async fn what_was_claimed_by_a_turn_that_is_no_more_still_waits() {
        let chat = Chat::new().await;
        chat.says("1", ANA, "@Kai hello", None).await;
        assert_eq!(chat.claims().await, ["1"]);
        assert!(chat.store.has_pending_calls(&chat.group).await.unwrap());
        assert_eq!(chat.claims().await, ["1"]);
    }

    #[tokio::test]
    async fn what_cannot_be_claimed_wakes_nobody() {
        let chat = Chat::new().await;
        chat.says("1", ANA, "@Kai look", photo()).await;
        assert!(!chat.store.has_pending_calls(&chat.group).await.unwrap());
        assert_eq!(chat.claims().await, [""; 0]);
        let wanted = chat.wanted().await;
        chat.store
            .record_saved_file(wanted[0].row, AttachedTo::Message, "inbox/a.jpg".to_owned())
            .await
            .unwrap();
        assert!(chat.store.has_pending_calls(&chat.group).await.unwrap());
        assert_eq!(chat.claims().await, ["1"]);
    }

    #[tokio::test]
    async fn who_can_be_mentioned_is_who_bears_a_name_alone() {
        let chat = Chat::new().await;
        chat.says("1", ANA, "hello", None).await;
        chat.says("2", ("34600000002", "Bo"), "hello", None).await;
        chat.says("3", ("34600000003", "Bo"), "hello", None).await;
        // One person by two names of WhatsApp's.
        let ana = |id: &str| SenderId::new(id);
        chat.tell(vec![Event::SamePerson {
            one: ana("34600000001@s.whatsapp.net"),
            other: ana("34600000009@s.whatsapp.net"),
        }])
        .await;
        chat.says("4", ("34600000009", "Ana"), "me again", None).await;
        let people = chat.store.recent_senders(&chat.group.chat).await.unwrap();
        let shown: Vec<_> = people.iter().map(|person| (person.name.as_str(), person.id.as_str())).collect();
        assert_eq!(shown, [("Ana", "34600000009@s.whatsapp.net")]);
    }
}
