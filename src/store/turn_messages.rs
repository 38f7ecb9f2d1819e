//! What an agent says while its turn goes on, before its answer: rows of `outbox` that belong to the turn.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox::{ReplyContent, enqueue};
use super::{Reply, Store, to_unix_millis};
use crate::types::{ChatId, TurnId};

/// Most messages that a turn may send before its answer: more would only bury a chat.
const MESSAGES_MAX: u64 = 20;
/// A turn that got no answer is tried again, and may write the same once more. Within this time it is sent once.
const SAID_ONCE_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// What an agent says in a chat during its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnMessage {
    pub turn: TurnId,
    pub chat: ChatId,
    /// In order.
    pub replies: Vec<Reply>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnMessageResult {
    Written,
    /// The same words were written in this chat a few minutes ago, by a turn that got no answer and that this
    /// one tries again.
    SaidBefore,
    /// The turn has said as much as it may.
    TooMany,
    TurnOver,
}

impl Store {
    /// Writes what an agent says, all or nothing.
    pub async fn record_turn_message(
        &self,
        message: TurnMessage,
        now: Timestamp,
    ) -> Result<TurnMessageResult> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let TurnMessage { turn, chat, replies } = &message;
            let Some(group) = group_of_open_turn(&transaction, *turn)? else {
                return Ok(TurnMessageResult::TurnOver);
            };
            if count_turn_messages(&transaction, *turn)? + replies.len() as u64 > MESSAGES_MAX {
                return Ok(TurnMessageResult::TooMany);
            }
            let since = now.saturating_sub(SAID_ONCE_WITHIN)?;
            let was_said = |reply: &Reply| was_said_before(&transaction, *turn, &group, chat, reply, since);
            if !replies.is_empty()
                && replies.iter().map(was_said).collect::<Result<Vec<_>>>()?.into_iter().all(|said| said)
            {
                return Ok(TurnMessageResult::SaidBefore);
            }
            for reply in replies {
                enqueue::enqueue_reply(&transaction, chat, Some(*turn), reply, now)?;
            }
            transaction.commit()?;
            Ok(TurnMessageResult::Written)
        })
        .await
    }
}

/// The group's name, as the turn's row has it.
fn group_of_open_turn(connection: &Connection, turn: TurnId) -> Result<Option<String>> {
    Ok(connection
        .prepare_cached("SELECT group_name FROM turns WHERE id = ?1 AND ended_at IS NULL")?
        .query_row([turn.0], |row| row.get(0))
        .optional()?)
}

fn count_turn_messages(connection: &Connection, turn: TurnId) -> Result<u64> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM outbox INDEXED BY outbox_turn WHERE turn = ?1")?
        .query_row([turn.0], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// Files and reactions are not compared: a file may have changed since, and a reaction replaces the one before.
fn was_said_before(
    connection: &Connection,
    turn: TurnId,
    group: &str,
    chat: &ChatId,
    reply: &Reply,
    since: Timestamp,
) -> Result<bool> {
    let ReplyContent::Text { text, .. } = &reply.content else { return Ok(false) };
    // Of one group's turns one ends before the next begins: those that may have said it come after the last one
    // that was over by then. A turn that the owner has stopped counts as failed, but nothing of it is tried again.
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM turns NOT INDEXED JOIN outbox INDEXED BY outbox_turn ON outbox.turn = turns.id
             WHERE turns.id > coalesce((SELECT id FROM turns AS over INDEXED BY turns_group
                                        WHERE group_name = ?1 AND ended_at < ?4
                                        ORDER BY began_at DESC LIMIT 1), 0)
               AND turns.group_name = ?1 AND chat = ?2 AND kind = 'text' AND text = ?3 AND created_at >= ?4
               AND (turns.outcome IN ('returned', 'lost')
                    OR (turns.outcome = 'failed'
                        AND EXISTS (SELECT 1 FROM inbox INDEXED BY inbox_claimed
                                    WHERE turn = ?5 AND state = 'claimed' AND attempts > 1)))",
        )?
        .exists(params![group, chat.as_str(), text, to_unix_millis(since), turn.0])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::turns::TurnOutcome;
    use crate::store::TurnEnding;
    use crate::store::tests::{add_group, rules};
    use crate::types::{
        Engine, Event, Forwarded, Group, IncomingMessage, Mention, MessageId, Role, SenderId, TokenUsage,
    };

    struct World {
        store: Store,
        family: Group,
        now: Timestamp,
        _folder: tempfile::TempDir,
    }

    impl World {
        /// A group whose call waits.
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
            let now = "2026-12-01T12:00:00Z".parse().unwrap();
            add_group(&store, "family", Role::Member, now).await;
            let family = store.all_groups().await.unwrap().remove(0);
            let call = IncomingMessage {
                chat: family.chat.clone(),
                id: MessageId::new("m1"),
                sender: SenderId::new("ana@s.whatsapp.net"),
                sender_name: "Ana".to_owned(),
                text: "@Kai hello".to_owned(),
                sent_at: now,
                mention: Mention::NotMe,
                forwarded: Forwarded::No,
                quote: None,
                media: None,
                expires_secs: None,
            };
            store.record_events(vec![Event::Message(call)], rules(), now).await.unwrap();
            Self { store, family, now, _folder: folder }
        }

        async fn begin_turn(&self) -> TurnId {
            let claim = self.store.claim_pending_rows(&self.family, Engine::KimiCode, self.now).await;
            claim.unwrap().unwrap().turn
        }

        async fn says(&self, turn: TurnId, text: &str, minutes: i64) -> TurnMessageResult {
            let chat = self.family.chat.clone();
            let message = TurnMessage { turn, chat, replies: vec![Reply::from_text(text)] };
            let now = self.now + SignedDuration::from_mins(minutes);
            self.store.record_turn_message(message, now).await.unwrap()
        }

        async fn end_turn(&self, turn: TurnId, finish: TurnOutcome, minutes: i64) {
            let ending = TurnEnding {
                turn,
                chat: self.family.chat.clone(),
                finish,
                never_read: Vec::new(),
                replies: Vec::new(),
                usage: TokenUsage::default(),
            };
            self.store.finish_turn(ending, self.now + SignedDuration::from_mins(minutes)).await.unwrap();
        }

        /// Much is said in other chats.
        async fn others_are_told(&self, count: usize) {
            let other = ChatId::new("work@g.us");
            for number in 0..count {
                self.store.notify_chat(&other, &format!("{number}"), self.now).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_turn_says_no_more_than_it_may_however_much_is_said_elsewhere() {
        let world = World::new().await;
        let turn = world.begin_turn().await;
        for number in 0..MESSAGES_MAX {
            assert_eq!(world.says(turn, &format!("{number}"), 0).await, TurnMessageResult::Written);
        }
        assert_eq!(world.says(turn, "one more", 0).await, TurnMessageResult::TooMany);
        world.others_are_told(600).await;
        assert_eq!(world.says(turn, "one more", 0).await, TurnMessageResult::TooMany);
    }

    #[tokio::test]
    async fn what_a_turn_without_an_answer_has_said_is_not_said_again_within_ten_minutes() {
        for (outcome, minutes, expected) in [
            (TurnOutcome::Returned, 1, TurnMessageResult::SaidBefore),
            (TurnOutcome::Failed { notice: "sorry".to_owned() }, 1, TurnMessageResult::SaidBefore),
            (TurnOutcome::Returned, 11, TurnMessageResult::Written),
        ] {
            let world = World::new().await;
            let turn = world.begin_turn().await;
            assert_eq!(world.says(turn, "I look for it", 0).await, TurnMessageResult::Written);
            world.others_are_told(600).await;
            // The turn itself may take long.
            world.end_turn(turn, outcome.clone(), minutes).await;
            let again = world.begin_turn().await;
            assert_eq!(world.says(again, "I have it", minutes).await, TurnMessageResult::Written);
            assert_eq!(world.says(again, "I look for it", minutes).await, expected, "{outcome:?}");
        }
    }
}
