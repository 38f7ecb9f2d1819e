//! The end of a turn: its answer, or what went wrong, becomes replies and the outcome of its rows.
//!
//! The engine says that a turn is over. Whether it failed, the egress proxy may know better.

use std::sync::Arc;

use super::driver::SessionDriver;
use super::ending::finish_turn_with_retry;
use super::images::Vision;
use super::launch::is_disk_full;
use super::machine::{AfterTurn, SessionEvent};
use super::replies::{QuotePlacement, build_replies};
use super::token_limit::TurnTokenLimit;
use super::troubles::{is_retryable_trouble, may_come_from_memory};
use super::turn::{AnswerLength, Turn, TurnWork};
use crate::agent::{CompactionEnd, EngineInput, Request, TurnEnd};
use crate::bridge::{Order, Typing};
use crate::container::Containers;
use crate::notices;
use crate::store::{MAX_ATTEMPTS, PendingAfterTurn, Reply, TurnEnding, TurnOutcome};
use crate::types::{Failure, Outage, Role, Trouble};

impl From<PendingAfterTurn> for AfterTurn {
    fn from(finished: PendingAfterTurn) -> Self {
        match finished {
            PendingAfterTurn::NothingPending => Self::Nothing,
            PendingAfterTurn::MorePending => Self::More,
            PendingAfterTurn::RetryPending { attempt } => Self::Retry { attempt },
            PendingAfterTurn::KeptPending(outage) => Self::Outage(outage),
        }
    }
}

impl<C: Containers> SessionDriver<C> {
    pub async fn handle_turn_end(&mut self, end: TurnEnd) -> Option<SessionEvent> {
        if self.turn.as_ref()?.is_stopped() {
            return Some(self.end_stopped_turn().await);
        }
        if self.turn.as_ref()?.work == TurnWork::Compaction {
            return Some(self.end_compaction(CompactionEnd::Failed).await);
        }
        let was_refused =
            self.engine.as_ref().is_some_and(|engine| engine.egress.was_refused_over_turn_tokens());
        let is_whole = match end {
            TurnEnd::Finished => true,
            TurnEnd::FinishedOrFailed => !was_refused,
            TurnEnd::StepLimit(_) | TurnEnd::Cancelled | TurnEnd::Failed(_) => false,
        };
        if !is_whole && let Some(event) = self.end_turn_over_tokens().await {
            return Some(event);
        }
        let settings = Arc::clone(&self.context.settings);
        let mut replies = self.render_replies().await;
        if self.turn.as_ref()?.answer_length() == AnswerLength::Cut {
            replies.push(Reply::from_text(
                settings.with_reply_prefix(notices::answer_cut_notice(settings.lang)),
            ));
        }
        match self.turn_end_seen_by_proxy(end) {
            TurnEnd::Finished | TurnEnd::FinishedOrFailed => {}
            TurnEnd::StepLimit(steps) => {
                tracing::warn!(steps, "The engine reached its limit of steps");
                replies.push(Reply::from_text(
                    settings.with_reply_prefix(notices::step_limit_notice(settings.lang)),
                ));
            }
            TurnEnd::Cancelled => return Some(self.fail_turn(Trouble::TurnTooLong).await),
            TurnEnd::Failed(failure) => {
                if failure.trouble == Trouble::Unsupported && self.retry_without_images() {
                    return None;
                }
                // The egress proxy has seen what the API said. The engine tells it in fewer words.
                let seen = self.engine.as_ref().and_then(|engine| engine.egress.take_failure());
                let Failure { trouble, detail } = seen.unwrap_or(failure);
                tracing::warn!(?trouble, "The engine could not answer");
                tracing::debug!("What it said of that: {detail}");
                if matches!(trouble, Trouble::BadRequest | Trouble::TooLarge) {
                    // What the API refuses stays in this engine's memory and goes with every later request.
                    // The next engine begins without it.
                    if self.turn.as_ref().is_some_and(Turn::has_shown_images) {
                        self.is_next_engine_blind = true;
                    }
                    return Some(SessionEvent::Lost(trouble));
                }
                return Some(self.fail_turn(trouble).await);
            }
        }
        Some(SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Answered, replies).await))
    }

    /// Ends a turn that has used all the tokens that it may: with what it has said so far, and a sentence,
    /// which comes with the pause of the task if the limit is a task's. It is not tried again. Returns `None`
    /// if the turn has not.
    pub async fn end_turn_over_tokens(&mut self) -> Option<SessionEvent> {
        self.record_tokens_refused_by_proxy();
        let limit = self.turn.as_ref()?.exceeded_token_limit()?;
        tracing::warn!(?limit, "The turn has used all the tokens that it may");
        let mut replies = self.render_replies().await;
        let settings = &self.context.settings;
        match limit {
            TurnTokenLimit::Group(tokens) => {
                let notice = notices::turn_tokens_notice(settings.lang, &self.name, tokens);
                replies.push(Reply::from_text(settings.with_reply_prefix(notice)));
            }
            TurnTokenLimit::Task(_) => {}
        }
        Some(SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Answered, replies).await))
    }

    /// The engine's end may be read before the proxy's word that the tokens are used up. If the model was refused
    /// for that, it is why the turn has ended, whatever the engine says of it.
    fn record_tokens_refused_by_proxy(&mut self) {
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.egress.was_refused_over_turn_tokens())
        else {
            return;
        };
        if let (Some(turn), Some(limit)) = (&mut self.turn, engine.turn_tokens) {
            turn.record_tokens_used_up(limit);
        }
    }

    /// How the turn ended. The engine may hide that it failed, but the egress proxy has seen the model's API.
    fn turn_end_seen_by_proxy(&self, end: TurnEnd) -> TurnEnd {
        let seen = match end {
            TurnEnd::FinishedOrFailed => self.engine.as_ref().and_then(|engine| engine.egress.take_failure()),
            TurnEnd::Finished | TurnEnd::Cancelled | TurnEnd::StepLimit(_) | TurnEnd::Failed(_) => None,
        };
        seen.map_or(end, TurnEnd::Failed)
    }

    /// What the running turn has said so far, as the chat will read it.
    async fn render_replies(&self) -> Vec<Reply> {
        let Some(turn) = &self.turn else { return Vec::new() };
        let (people, quoted) = if turn.chat.is_whatsapp_group() {
            let people = self.context.store.recent_senders(&turn.chat).await.unwrap_or_else(|error| {
                tracing::warn!("Failed to look for people to mention: {error:#}");
                Vec::new()
            });
            (people, QuotePlacement::FirstPart)
        } else {
            (Vec::new(), QuotePlacement::NoPart)
        };
        let (prefix, lang) = (&self.context.settings.reply_prefix, self.context.settings.lang);
        turn.collect_answers()
            .iter()
            .flat_map(|answer| build_replies(answer, prefix, lang, &people, quoted))
            .collect()
    }

    /// The model turned out not to see: prompts once more, without images. Returns false if there were none.
    fn retry_without_images(&mut self) -> bool {
        let Some(input) = self.turn.as_mut().and_then(Turn::restart_without_images) else { return false };
        tracing::info!("The model does not take pictures; they are left out from here on");
        if let Some(engine) = &mut self.engine {
            engine.vision = Vision::Blind;
        }
        self.send_engine_request(Request::Prompt(input));
        true
    }

    /// Ends the turn that the owner has stopped. Intake has settled its rows and told the chat, so that only
    /// its tokens are left to be written.
    pub async fn end_stopped_turn(&mut self) -> SessionEvent {
        SessionEvent::TurnOver(self.finish_current_turn(TurnOutcome::Returned, Vec::new()).await)
    }

    /// Ends the running turn without an answer.
    pub async fn fail_turn(&mut self, trouble: Trouble) -> SessionEvent {
        if self.turn.as_ref().is_some_and(|turn| turn.work == TurnWork::Compaction) {
            return self.end_compaction(CompactionEnd::Failed).await;
        }
        let trouble = self.trouble_or_full_disk(trouble);
        let proxy_was_asked = self.engine.as_ref().is_some_and(|engine| engine.egress.was_model_asked());
        let asked = proxy_was_asked || self.turn.as_ref().is_some_and(Turn::has_reached_model);
        if !self.turn.as_ref().is_none_or(Turn::is_of_chat_memory) {
            // It says nothing of the chat's memory.
        } else if may_come_from_memory(trouble, asked) {
            self.memory.record_engine_failure().await;
        } else if asked && let Some(chat) = self.turn.as_ref().map(|turn| turn.chat.clone()) {
            self.memory.record_engine_success(&self.context, &chat).await;
        }
        let finish = self.finish_for_trouble(trouble);
        SessionEvent::TurnOver(self.finish_current_turn(finish, Vec::new()).await)
    }

    /// There is no engine for what waits. That counts as an attempt, too.
    pub async fn fail_waiting_rows(&mut self, trouble: Trouble) -> SessionEvent {
        let trouble = self.trouble_or_full_disk(trouble);
        let begun = async {
            let Some(group) = self.current_group().await? else { return Ok(None) };
            let engine = self.context.settings.engine_for_group(&group);
            let claim =
                self.context.store.claim_pending_rows(&group, engine, self.context.clock.now()).await?;
            anyhow::Ok(claim.map(|claim| Turn::from_claim(&claim, &group, &EngineInput::from_text(""))))
        };
        let begun = begun.await;
        let is_isolated = matches!(&begun, Ok(Some(turn)) if !turn.is_of_chat_memory());
        if may_come_from_memory(trouble, false) && !is_isolated {
            self.memory.record_engine_failure().await;
        }
        match begun {
            Ok(Some(turn)) => {
                self.turn = Some(turn);
                let finish = self.finish_for_trouble(trouble);
                SessionEvent::TurnOver(self.finish_current_turn(finish, Vec::new()).await)
            }
            Ok(None) => {
                if let Err(error) = self.give_up_asked_compaction().await {
                    tracing::error!("Failed to say that a summary is not made: {error:#}");
                }
                SessionEvent::TurnOver(AfterTurn::Nothing)
            }
            Err(error) => {
                tracing::error!("Failed to claim what waits: {error:#}");
                SessionEvent::TurnOver(AfterTurn::Retry { attempt: 1 })
            }
        }
    }

    /// Nearly everything may fail on a full disk. Then that is the reason, and what was asked is kept.
    fn trouble_or_full_disk(&self, trouble: Trouble) -> Trouble {
        if is_retryable_trouble(trouble) && is_disk_full(&self.context) { Trouble::NoSpace } else { trouble }
    }

    fn finish_for_trouble(&self, trouble: Trouble) -> TurnOutcome {
        let settings = &self.context.settings;
        let gave_up =
            |attempts| settings.with_reply_prefix(notices::gave_up_notice(settings.lang, trouble, attempts));
        if let Some(outage) = Outage::from_trouble(trouble) {
            let now = self.context.clock.now();
            let limits = self.context.upstream.account_pool().limited_accounts(now);
            let accounts = notices::limited_accounts_sentence(settings.lang, &limits, &settings.zone, now);
            let notice = notices::outage_notice_to_owner(settings.lang, outage);
            let to_owner = settings.with_reply_prefix(format!("{notice}{accounts}"));
            let is_main = self.turn.as_ref().is_some_and(|turn| turn.role == Role::Main);
            let to_chat = settings.with_reply_prefix(notices::outage_notice_to_chat(settings.lang, outage));
            let to_chat = if is_main { to_owner.clone() } else { to_chat };
            return TurnOutcome::Kept { outage, to_chat, to_owner, gave_up: gave_up(MAX_ATTEMPTS) };
        }
        if is_retryable_trouble(trouble) || self.is_next_engine_blind {
            TurnOutcome::Failed { notice: gave_up(MAX_ATTEMPTS) }
        } else {
            TurnOutcome::Hopeless { notice: gave_up(1) }
        }
    }

    /// Records the end of the turn and its replies, and tells delivery.
    pub async fn finish_current_turn(&mut self, finish: TurnOutcome, replies: Vec<Reply>) -> AfterTurn {
        let Some(turn) = self.turn.take() else { return AfterTurn::Nothing };
        if matches!(finish, TurnOutcome::Answered) && turn.is_of_chat_memory() {
            self.memory.record_engine_success(&self.context, &turn.chat).await;
        }
        (self.progress, self.condition) = (None, None);
        if let Some(engine) = &self.engine {
            engine.running_turn.send_replace(None);
        }
        let usage = self.engine.as_ref().map(|engine| engine.egress.take_usage()).unwrap_or_default();
        self.context.orders.try_send(Order::Typing { chat: turn.chat.clone(), shown: Typing::Off }).ok();
        let unread = turn.unread_rows();
        let ending =
            TurnEnding { turn: turn.id, chat: turn.chat, finish, never_read: unread, replies, usage };
        let finished = finish_turn_with_retry(&self.context, &ending).await.unwrap_or_else(|error| {
            // The rows stay claimed; the next claim of this chat frees them.
            tracing::error!(turn = turn.id.0, "Failed to finish the turn: {error:#}");
            PendingAfterTurn::RetryPending { attempt: 1 }
        });
        tracing::info!(turn = turn.id.0, ?finished, output_tokens = usage.output, "The turn is over");
        self.flush_web_traffic().await;
        self.context.outbox_hint.notify_one();
        self.context.tasks_hint.notify_one();
        finished.into()
    }
}
