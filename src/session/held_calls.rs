//! What an agent wants and only the owner can allow or answer: the question to them, and what the agent hears.
//!
//! What follows from their answer is done by `store`, when it comes.

use anyhow::Result;

use super::context::SessionContext;
use super::replies::{QuotePlacement, build_replies};
use super::running_turn::RunningTurn;
use super::turn::TurnAnswer;
use crate::rules::approvals::{HELD_TEXT_MAX, HeldAction};
use crate::store::{HeldCall, HoldResult, Reply, ReplyContent};
use crate::tools::{Denial, Destination, ToolAction, ToolAnswer};
use crate::types::{ChatId, Group, GroupName, Role};

/// Of a chat's name so much is shown that its id has room beside it, in characters.
const NAME_MAX_CHARS: usize = 30;

/// The tools whose calls wait for the owner.
pub struct HeldCalls<'a, C> {
    pub context: &'a SessionContext<C>,
}

impl<C> HeldCalls<'_, C> {
    /// Asks the owner about a call that the guard holds.
    pub async fn hold_call(
        &self,
        group: &Group,
        turn: &RunningTurn,
        action: &ToolAction,
        destination: Destination,
    ) -> Result<ToolAnswer> {
        let (action, about) = match (action, destination) {
            (ToolAction::SendMessage { text, .. }, Destination::Unregistered(chat)) => {
                match self.render_held_text(text) {
                    Some(text) => (HeldAction::SendMessage { chat: chat.clone(), text }, chat),
                    None => {
                        return Ok(ToolAnswer::failed(format!(
                            "To a chat that is not served goes one text of at most {HELD_TEXT_MAX} characters, which \
                             the owner reads first. Nothing was sent."
                        )));
                    }
                }
            }
            (ToolAction::RemoveGroup { name }, _) => match self.find_removable_group(name).await? {
                Ok(found) => {
                    (HeldAction::RemoveGroup { group: found.name, chat: found.chat.clone() }, found.chat)
                }
                Err(refused) => return Ok(refused),
            },
            (ToolAction::AskOwner { question }, _) => {
                (HeldAction::AskOwner { question: question.clone() }, group.chat.clone())
            }
            (_, _) => {
                return Ok(ToolAnswer::failed("The owner cannot be asked about this. Nothing was done."));
            }
        };
        let about = self.chat_name(&about).await?;
        let is_question = matches!(action, HeldAction::AskOwner { .. });
        let call = HeldCall { group: group.clone(), turn: turn.id, action, about };
        let settings = &self.context.settings;
        let now = self.context.clock.now();
        Ok(match self.context.store.hold_action(call, settings.store_rules(), now).await? {
            HoldResult::Asked => {
                self.context.outbox_hint.notify_one();
                self.context.tasks_hint.notify_one();
                ToolAnswer::done(if is_question {
                    "The owner is asked. Do not wait: end your answer, and say that you have asked. What they say comes \
                     as a <notice>."
                } else {
                    "The owner is asked first, in their main channel; it is done when they allow it within 10 minutes. Do \
                     not wait, and do not work around it. You hear of it in a <notice>."
                })
            }
            HoldResult::AskedBefore => {
                ToolAnswer::done("The owner is being asked just this already. Do not wait for it.")
            }
            HoldResult::TooMany => ToolAnswer::failed(
                "The owner has not yet answered what you have asked before. Nothing was done; do not work around it.",
            ),
            HoldResult::NoMainChannel => ToolAnswer::failed(
                "The owner has no main channel in which they could be asked. Nothing was done; do not work around it.",
            ),
            HoldResult::TurnOver => ToolAnswer::failed(Denial::NoTurn.sentence()),
        })
    }

    /// The text as the chat would show it, if it is one that a question can show whole.
    fn render_held_text(&self, text: &str) -> Option<String> {
        let settings = &self.context.settings;
        let answer = TurnAnswer { text: text.to_owned(), to: None };
        let replies =
            build_replies(&answer, &settings.reply_prefix, settings.lang, &[], QuotePlacement::NoPart);
        match replies.as_slice() {
            [Reply { content: ReplyContent::Text { text, .. }, .. }]
                if text.chars().count() <= HELD_TEXT_MAX =>
            {
                Some(text.clone())
            }
            _ => None,
        }
    }

    async fn find_removable_group(&self, name: &GroupName) -> Result<Result<Group, ToolAnswer>> {
        Ok(match self.context.store.group_by_name(name).await? {
            None => Err(unknown_group_answer(name)),
            Some(group) if group.role == Role::Main => {
                Err(ToolAnswer::failed("The main channel cannot be removed from here. Nothing was changed."))
            }
            Some(group) => Ok(group),
        })
    }

    /// A chat as people call it; a direct chat with its id beside, as anybody can call themselves anything.
    async fn chat_name(&self, chat: &ChatId) -> Result<String> {
        let known = self.context.store.known_chats().await?;
        let name = known.into_iter().find(|known| known.id == *chat).map(|known| known.name);
        Ok(match name {
            Some(name) if name != chat.as_str() => {
                let name: String = name.chars().take(NAME_MAX_CHARS).collect();
                format!("{name} ({chat})")
            }
            Some(_) | None => chat.to_string(),
        })
    }
}

pub(super) fn unknown_group_answer(name: &GroupName) -> ToolAnswer {
    ToolAnswer::failed(format!(
        "There is no group {name}. Nothing was changed; list_groups shows those that exist."
    ))
}
