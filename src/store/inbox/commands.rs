//! What the owner's commands do in the database, in the transaction that stores their message.
//!
//! So a command is carried out and answered exactly once, whenever the process is killed: the row is there
//! with its answer, or WhatsApp delivers the message again. What each command does is decided in `rules`.

use anyhow::Result;

use super::{Intake, NewRow, StoppedTurn};
use crate::clock::Day;
use crate::commands::{ChatStanding, Command, CommandEffect, DayTokens};
use crate::rules::inbox::CommandChange;
use crate::store::outbox::enqueue;
use crate::store::sessions::OpenCompaction;
use crate::store::usage::{self, GroupUsage};
use crate::store::{OutboxChange, Reply, ReplyContent, groups, outage, sessions, tasks, turns};
use crate::types::{Group, Role, Task};

impl Intake<'_> {
    /// Carries a command out and answers it. Its message is over at once, and never in a turn: no agent is told
    /// of it.
    pub(super) fn settle_command(
        &mut self,
        group: &Group,
        command: CommandChange,
        row: &NewRow<'_>,
    ) -> Result<()> {
        self.insert_inbox_row(group, row)?;
        match command {
            CommandChange::Answered { answer, effect: CommandEffect::ShowsChart(chart) } => {
                let content = ReplyContent::UsageChart { chart, caption: answer };
                self.taken.outbox = OutboxChange::Changed;
                let reply = Reply { content, to: None };
                enqueue::enqueue_reply(self.connection, &group.chat, None, &reply, self.now)
            }
            CommandChange::Answered { answer, effect } => {
                self.carry_out_command(group, effect)?;
                self.say_in_chat(group, answer)
            }
            CommandChange::Missed => self.notify_chat_of_absence(group),
        }
    }

    fn carry_out_command(&mut self, group: &Group, effect: CommandEffect) -> Result<()> {
        match effect {
            CommandEffect::Nothing | CommandEffect::ShowsChart(_) => {}
            CommandEffect::StartsAgent => self.taken.warmed.push(group.name.clone()),
            CommandEffect::ChangesSession(to) => sessions::change_session(self.connection, &group.name, &to)?,
            CommandEffect::CompactsSession => {
                sessions::ask_for_compaction(self.connection, &group.name)?;
                self.add_woken_group(group);
            }
            CommandEffect::ChoosesModel(model) => {
                groups::set_group_model(self.connection, &group.name, model.as_deref())?;
            }
            CommandEffect::StopsWork => {
                if let Some(turn) = turns::stop_chat_work(self.connection, &group.chat, self.now)? {
                    self.taken.stopped.push(StoppedTurn { group: group.name.clone(), turn });
                }
            }
        }
        Ok(())
    }

    /// What a command may say of its chat.
    pub(super) fn chat_standing(&self, group: &Group, command: Command) -> Result<ChatStanding> {
        let waiting: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM inbox INDEXED BY inbox_pending
                 WHERE state = 'pending' AND chat = ?1 AND wake = 'wakes'",
            )?
            .query_row([group.chat.as_str()], |row| row.get(0))?;
        // The command that asks for a summary is a message that waits.
        let asked = sessions::read_open_compaction(self.connection, &group.chat)?;
        let waiting = waiting + i64::from(asked == Some(OpenCompaction::Asked));
        Ok(ChatStanding {
            turn_since: turns::running_turn(self.connection, &group.chat)?.map(|(_, began_at)| began_at),
            waiting: waiting.cast_unsigned(),
            outages: outage::read_open_outages(self.connection)?
                .into_iter()
                .map(|(outage, _)| outage)
                .collect(),
            days: self.tokens_by_day(group, command.days_told())?,
            sessions: sessions::read_sessions(self.connection, &group.name)?,
            tasks: self.planned_tasks(group, command)?,
        })
    }

    /// The tasks of this chat, or of all for the main channel, if the command tells of them.
    fn planned_tasks(&self, group: &Group, command: Command) -> Result<Vec<Task>> {
        if command != Command::Tasks {
            return Ok(Vec::new());
        }
        let of_group = match group.role {
            Role::Main => None,
            Role::Member => Some(&group.name),
        };
        tasks::read_tasks(self.connection, of_group)
    }

    /// What was used in the last days, in this group's chat and in all.
    fn tokens_by_day(&self, group: &Group, count: u32) -> Result<Vec<DayTokens>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let days = Day::last_days(count, self.now, &self.rules.zone);
        let mut tokens = vec![DayTokens::default(); days.len()];
        for GroupUsage { name, days, .. } in usage::read_usage_by_group(self.connection, &days)? {
            for (sum, used) in tokens.iter_mut().zip(days) {
                sum.in_all += used.tokens;
                if name == group.name {
                    sum.in_chat += used.tokens;
                }
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use crate::clock::Day;
    use crate::store::tests::{add_group, rules};
    use crate::store::{PendingAfterTurn, Reply, StoppedTurn, Store, TurnEnding, TurnOutcome};
    use crate::types::{
        ChatId, Engine, Event, Forwarded, Group, GroupName, IncomingMessage, LinkedAccount, Mention,
        MessageId, Role, SenderId, TokenUsage,
    };

    fn says(id: &str, sender: &str, text: &str, now: Timestamp) -> Event {
        Event::Message(IncomingMessage {
            chat: ChatId::new("family@g.us"),
            id: MessageId::new(id),
            sender: SenderId::new(sender),
            sender_name: sender.to_owned(),
            text: text.to_owned(),
            sent_at: now,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        })
    }

    /// A database with the group `family`, and the time at which it was added.
    async fn family_store() -> (TempDir, Store, Group, Timestamp) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let now: Timestamp = "2026-11-22T20:00:00Z".parse().unwrap();
        add_group(&store, "family", Role::Member, now).await;
        let family = store.group_by_name(&GroupName::parse("family").unwrap()).await.unwrap().unwrap();
        (folder, store, family, now)
    }

    #[tokio::test]
    async fn a_stopped_turn_gets_nothing_more_says_nothing_and_its_tokens_count() {
        let (_folder, store, family, now) = family_store().await;
        let account = LinkedAccount { id: SenderId::new("olga@lid"), lid: None, name: "Olga".to_owned() };
        let asked = vec![Event::Account(account), says("1", "ana@lid", "@Kai hello", now)];
        store.record_events(asked, rules(), now).await.unwrap();
        let turn =
            store.claim_pending_rows(&family, Engine::KimiCode, now).await.unwrap().expect("it waits").turn;
        let more = vec![
            says("2", "ana@lid", "@Kai more", now),
            says("3", "olga@lid", "/stop", now),
            says("4", "ana@lid", "@Kai later", now),
        ];
        let taken = store.record_events(more, rules(), now).await.unwrap();
        assert_eq!(taken.stopped, [StoppedTurn { group: family.name.clone(), turn }]);
        let session = store.chat_session(&family.name).await.unwrap();
        assert_eq!(store.claim_more_rows(turn, &session, &family.chat).await.unwrap(), None);
        let usage = TokenUsage { input: 100, cached: 50, output: 7 };
        let ending = TurnEnding {
            turn,
            chat: family.chat.clone(),
            finish: TurnOutcome::Answered,
            never_read: Vec::new(),
            replies: vec![Reply::from_text("too late")],
            usage,
        };
        let after = store.finish_turn(ending, now).await.unwrap();
        assert_eq!(after, PendingAfterTurn::MorePending, "what came after it is answered");
        let day = Day::from_time(now, &jiff::tz::TimeZone::UTC);
        assert_eq!(store.group_usage_in_day(day, &family.name).await.unwrap().tokens, usage);
        let said = store.next_queued_replies(Some(&family.chat)).await.unwrap();
        assert_eq!(said.len(), 1, "the command's answer and no other: {said:?}");
        let claim = store.claim_pending_rows(&family, Engine::KimiCode, now).await.unwrap().unwrap();
        assert_eq!(claim.messages.len(), 1, "{claim:?}");
    }

    #[tokio::test]
    async fn a_summary_whose_turn_has_no_end_is_made_by_the_next_turn() {
        let (_folder, store, family, now) = family_store().await;
        let account = LinkedAccount { id: SenderId::new("olga@lid"), lid: None, name: "Olga".to_owned() };
        let asked = vec![Event::Account(account), says("1", "olga@lid", "/compact", now)];
        store.record_events(asked, rules(), now).await.unwrap();
        assert_eq!(store.compaction_turn(&family).await.unwrap(), None, "it is only asked for");
        let lost = store.begin_compaction(&family, Engine::KimiCode, now).await.unwrap().unwrap();
        assert_eq!(store.compaction_turn(&family).await.unwrap(), Some(lost));
        // Its end could not be written, so that nobody has heard of it.
        assert!(store.has_pending_calls(&family).await.unwrap());
        let turn = store.begin_compaction(&family, Engine::KimiCode, now).await.unwrap().unwrap();
        let ending = TurnEnding {
            turn,
            chat: family.chat.clone(),
            finish: TurnOutcome::Returned,
            never_read: Vec::new(),
            replies: vec![Reply::from_text("Done.")],
            usage: TokenUsage::default(),
        };
        assert_eq!(store.finish_turn(ending, now).await.unwrap(), PendingAfterTurn::NothingPending);
        assert_eq!(store.begin_compaction(&family, Engine::KimiCode, now).await.unwrap(), None);
    }
}
