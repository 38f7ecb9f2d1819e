//! A row of `inbox` as a turn takes it: who sent it, and what the agent reads of it.

use jiff::SignedDuration;
use rusqlite::Row;

use super::{AttachedTo, RowId, approvals, from_unix_millis, media, people, tasks};
use crate::rules::inbox::{WakeDecision, text_for_agent};
use crate::types::{Forwarded, MessageId, PromptAuthor, PromptMessage, PromptQuote, SenderId};

/// A row as it is claimed.
pub(super) struct ClaimedRow {
    pub row: RowId,
    pub sender: SenderId,
    pub wake: WakeDecision,
    /// The run of a task that it tells, with how late that is.
    pub task_run: Option<(i64, SignedDuration)>,
    pub message: PromptMessage,
}

/// What [`claimed_from_row`] reads of a row of `inbox`.
pub(super) const CLAIMED_COLUMNS: &str = "*, (SELECT person FROM people WHERE people.id = sender) AS person,
    (SELECT person FROM people WHERE people.id = quote_sender) AS quote_person,
    (SELECT began_at FROM turns WHERE turns.id = turn) AS turn_began_at";

pub(super) fn claimed_from_row(row: &Row<'_>) -> rusqlite::Result<ClaimedRow> {
    let person = |id: &str, name: &str| -> rusqlite::Result<PromptAuthor> {
        let id = people::prompt_id(row.get(id)?);
        Ok(PromptAuthor::Person { id, name: row.get::<_, Option<String>>(name)?.unwrap_or_default() })
    };
    let quote_id: Option<String> = row.get("quote_id")?;
    let quote = match quote_id {
        Some(id) => {
            let source: Option<String> = row.get("quote_source")?;
            Some(PromptQuote {
                id: MessageId::new(id),
                author: match source.as_deref() {
                    Some("kai") => PromptAuthor::Kai,
                    Some(_) | None => person("quote_person", "quote_sender_name")?,
                },
                is_claimed: source.as_deref() == Some("client"),
                text: row.get::<_, Option<String>>("quote_text")?.unwrap_or_default(),
                file: media::prompt_file_from_row(row, AttachedTo::Quoted)?,
                whole: None,
            })
        }
        None => None,
    };
    let is_edit = row.get::<_, Option<String>>("edits")?.is_some();
    let text: String = row.get("text")?;
    let sender: String = row.get("sender")?;
    let sent_at = from_unix_millis(row.get("sent_at")?);
    let turn_began_at = row.get::<_, Option<i64>>("turn_began_at")?.map(from_unix_millis);
    let task_run = row
        .get::<_, Option<i64>>("task_run")?
        .map(|run| (run, tasks::lateness_of_row(sent_at, turn_began_at)));
    let author = match task_run {
        Some((_, late_by)) => {
            let id = tasks::task_id_of_sender(&sender);
            PromptAuthor::Task { id, late_by, last_answer: None, output: None }
        }
        None if approvals::is_host_sender(&sender) => PromptAuthor::Host,
        None => person("person", "sender_name")?,
    };
    let message = PromptMessage {
        id: MessageId::new(row.get::<_, String>("wa_id")?),
        author,
        text: text_for_agent(&text, is_edit),
        sent_at,
        forwarded: match row.get::<_, Option<String>>("forwarded")?.as_deref() {
            Some("many") => Forwarded::Many,
            Some(_) => Forwarded::Once,
            None => Forwarded::No,
        },
        quote,
        file: media::prompt_file_from_row(row, AttachedTo::Message)?,
        whole: None,
    };
    let wakes = row.get::<_, String>("wake")? == "wakes";
    Ok(ClaimedRow {
        row: RowId(row.get("id")?),
        sender: SenderId::new(sender),
        wake: if wakes { WakeDecision::Wakes } else { WakeDecision::Context },
        task_run,
        message,
    })
}
