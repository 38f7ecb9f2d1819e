//! Does what an agent asks of the host, if the guard allows it. One call after the other, so that messages keep
//! their order.
//!
//! The group is the one whose socket the call came through. Its registration is read anew for each call.

use anyhow::Result;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

use super::context::SessionContext;
use super::held_calls::{HeldCalls, unknown_group_answer};
use super::replies::{QuotePlacement, build_replies};
use super::running_turn::RunningTurn;
use super::task_tools::TaskTools;
use super::turn::TurnAnswer;
use crate::agent::{Agent, EngineToolCall, Request};
use crate::container::Containers;
use crate::egress::ToolCall;
use crate::store::{Reply, ReplyContent, TurnMessage, TurnMessageResult};
use crate::tools::{
    CallFacts, Denial, Destination, GuardDecision, HostTool, TaskStanding, ToolAction, ToolAnswer,
};
use crate::types::{ChatId, Group, GroupName, Role};

/// The most calls of one agent that wait.
const CALLS_IN_FLIGHT: usize = 8;

/// Starts the task for the calls of one container. It ends when the sender of its calls is gone. The watch says
/// which turn runs.
pub fn spawn_tool_calls<C: Containers>(
    context: &SessionContext<C>,
    group: &Group,
) -> (mpsc::Sender<ToolCall>, watch::Sender<Option<RunningTurn>>) {
    let (calls, mut receiver) = mpsc::channel::<ToolCall>(CALLS_IN_FLIGHT);
    let (running_turn, turn) = watch::channel(None);
    let tools = GroupToolCalls { context: context.clone(), group: group.name.clone(), turn };
    tokio::spawn(
        async move {
            while let Some(ToolCall { tool, action, answer }) = receiver.recv().await {
                let said = tools.handle_tool_call(tool, &action).await.unwrap_or_else(|error| {
                    tracing::error!(
                        tool = tool.tool_name(),
                        "Failed to do what an agent asked for: {error:#}"
                    );
                    ToolAnswer::failed("The host could not do it. Nothing was done.")
                });
                // An engine that was closed meanwhile hears nothing.
                answer.send(said).ok();
            }
        }
        .in_current_span(),
    );
    (calls, running_turn)
}

/// Hands a call on that came over the engine's own protocol; its answer goes back the same way. A call that
/// finds too many before it is refused, so that an engine cannot pile them up.
pub fn forward_engine_call(agent: Agent, calls: &mpsc::Sender<ToolCall>, call: EngineToolCall) {
    let EngineToolCall { id, tool, arguments } = call;
    let (answer, answered) = oneshot::channel();
    let refused = match serde_json::from_str(&arguments).map_err(|error| error.to_string()) {
        Ok(arguments) => match tool.parse_arguments(arguments) {
            Ok(action) => match calls.try_send(ToolCall { tool, action, answer }) {
                Ok(()) => None,
                Err(_) => Some("The host is busy. Nothing was done.".to_owned()),
            },
            Err(why) => Some(why),
        },
        Err(why) => Some(format!("The arguments of {} are no JSON object: {why}.", tool.tool_name())),
    };
    if let Some(why) = refused {
        agent.queue_request(Request::ToolAnswer { id, answer: ToolAnswer::failed(why) });
        return;
    }
    tokio::spawn(async move {
        let answer = answered.await.unwrap_or_else(|_| ToolAnswer::failed("The host could not do it."));
        agent.queue_request(Request::ToolAnswer { id, answer });
    });
}

struct GroupToolCalls<C> {
    context: SessionContext<C>,
    group: GroupName,
    turn: watch::Receiver<Option<RunningTurn>>,
}

impl<C: Containers> GroupToolCalls<C> {
    async fn handle_tool_call(&self, tool: HostTool, action: &ToolAction) -> Result<ToolAnswer> {
        let Some(group) = self.context.store.group_by_name(&self.group).await? else {
            return Ok(ToolAnswer::failed("This chat is not served any more. Nothing was done."));
        };
        // If the group's name was given to another chat meanwhile, the turn is not of this group.
        let turn = self.turn.borrow().clone().filter(|turn| turn.chat == group.chat);
        let facts = CallFacts {
            role: group.role,
            is_in_turn: turn.is_some(),
            is_task_turn: turn.as_ref().is_some_and(RunningTurn::is_of_task),
            task: self.find_task_standing(action).await?,
            destination: self.find_destination(&group, action).await?,
        };
        let decision = tool.decide_call(action, &facts);
        tracing::debug!(tool = tool.tool_name(), ?decision, "The agent calls a tool of the host");
        match (decision, turn) {
            (GuardDecision::Allow, Some(turn)) => {
                self.perform_action(&group, &turn, action, facts.destination).await
            }
            (GuardDecision::Hold, Some(turn)) => {
                self.held_calls().hold_call(&group, &turn, action, facts.destination).await
            }
            (GuardDecision::Allow | GuardDecision::Hold, None) => {
                Ok(ToolAnswer::failed(Denial::NoTurn.sentence()))
            }
            (GuardDecision::Deny(denial), _) => Ok(ToolAnswer::failed(denial.sentence())),
        }
    }

    /// The chat that a call names: a group's name first, then a chat's id.
    async fn find_destination(&self, group: &Group, action: &ToolAction) -> Result<Destination> {
        let Some(named) = action.named_destination() else { return Ok(Destination::OwnChat) };
        // Another group's agent learns nothing of which chats there are.
        if group.role == Role::Member && named != group.name.as_str() && named != group.chat.as_str() {
            return Ok(Destination::Unknown);
        }
        let store = &self.context.store;
        let by_name = match GroupName::parse(named) {
            Ok(name) => store.group_by_name(&name).await?,
            Err(_) => None,
        };
        let registered = match by_name {
            Some(found) => Some(found),
            None => store.group_by_chat(&ChatId::new(named)).await?,
        };
        Ok(match registered {
            Some(found) if found.name == group.name => Destination::OwnChat,
            Some(found) => Destination::Registered(found.name, found.chat),
            None => {
                let mut known = store.known_chats().await?.into_iter();
                match known.find(|chat| chat.id.as_str() == named) {
                    Some(chat) => Destination::Unregistered(chat.id),
                    None => Destination::Unknown,
                }
            }
        })
    }

    async fn find_task_standing(&self, action: &ToolAction) -> Result<TaskStanding> {
        let Some(number) = action.named_task() else { return Ok(TaskStanding::Unknown) };
        Ok(match self.context.store.task(number).await? {
            Some(task) if task.group == self.group => TaskStanding::OwnGroup,
            Some(_) => TaskStanding::OtherGroup,
            None => TaskStanding::Unknown,
        })
    }

    async fn perform_action(
        &self,
        group: &Group,
        turn: &RunningTurn,
        action: &ToolAction,
        destination: Destination,
    ) -> Result<ToolAnswer> {
        match action {
            ToolAction::SendMessage { text, .. } => {
                self.send_text(turn, chat_of_destination(group, destination), text).await
            }
            ToolAction::SendFile { path, caption, .. } => {
                let content = ReplyContent::File { path: path.clone(), caption: caption.clone() };
                let chat = chat_of_destination(group, destination);
                self.send_replies(turn, chat, vec![Reply { content, to: None }]).await
            }
            ToolAction::React { emoji } => {
                let content = ReplyContent::Reaction { emoji: emoji.clone() };
                match turn.called_by {
                    Some(row) => {
                        let reaction = Reply { content, to: Some(row) };
                        self.send_replies(turn, group.chat.clone(), vec![reaction]).await
                    }
                    None => Ok(ToolAnswer::failed("There is no message to react to.")),
                }
            }
            ToolAction::ListChats => self.list_chats().await,
            ToolAction::ListGroups => self.list_groups().await,
            ToolAction::AddGroup { chat, name, trigger } => {
                self.add_group(chat, name, trigger.as_ref()).await
            }
            ToolAction::SetGroup { name, trigger, daily_tokens } => {
                self.set_group(name, trigger.as_ref(), *daily_tokens).await
            }
            // The guard holds them.
            ToolAction::RemoveGroup { .. } | ToolAction::AskOwner { .. } => {
                Ok(ToolAnswer::failed("Only the owner can allow this. Nothing was done."))
            }
            ToolAction::ScheduleTask { draft, .. } => {
                let of_group = match destination {
                    Destination::Registered(name, _) => name,
                    Destination::OwnChat | Destination::Unregistered(_) | Destination::Unknown => {
                        self.group.clone()
                    }
                };
                self.task_tools().schedule_task(&of_group, draft).await
            }
            ToolAction::ListTasks => self.task_tools().list_tasks(group).await,
            ToolAction::UpdateTask { task, edit } => self.task_tools().update_task(*task, edit).await,
            ToolAction::PauseTask { task } => self.task_tools().pause_task(*task).await,
            ToolAction::ResumeTask { task } => self.task_tools().resume_task(*task).await,
            ToolAction::CancelTask { task } => self.task_tools().cancel_task(*task).await,
        }
    }

    fn held_calls(&self) -> HeldCalls<'_, C> {
        HeldCalls { context: &self.context }
    }

    fn task_tools(&self) -> TaskTools<'_, C> {
        TaskTools { context: &self.context }
    }

    async fn send_text(&self, turn: &RunningTurn, chat: ChatId, text: &str) -> Result<ToolAnswer> {
        let people = match chat.is_whatsapp_group() {
            true => self.context.store.recent_senders(&chat).await?,
            false => Vec::new(),
        };
        let settings = &self.context.settings;
        let answer = TurnAnswer { text: text.to_owned(), to: None };
        let replies =
            build_replies(&answer, &settings.reply_prefix, settings.lang, &people, QuotePlacement::NoPart);
        if replies.is_empty() {
            return Ok(ToolAnswer::failed(
                "There is nothing in it that the chat would see. Nothing was sent.",
            ));
        }
        self.send_replies(turn, chat, replies).await
    }

    async fn send_replies(
        &self,
        turn: &RunningTurn,
        chat: ChatId,
        replies: Vec<Reply>,
    ) -> Result<ToolAnswer> {
        let message = TurnMessage { turn: turn.id, chat, replies };
        let written = self.context.store.record_turn_message(message, self.context.clock.now()).await?;
        Ok(match written {
            TurnMessageResult::Written => {
                self.context.outbox_hint.notify_one();
                ToolAnswer::done("Sent.")
            }
            TurnMessageResult::SaidBefore => ToolAnswer::done("Sent before; it was not sent once more."),
            TurnMessageResult::TooMany => ToolAnswer::failed(
                "That is too many messages for one answer. It was not sent; put the rest into your answer.",
            ),
            TurnMessageResult::TurnOver => ToolAnswer::failed(Denial::NoTurn.sentence()),
        })
    }

    async fn list_chats(&self) -> Result<ToolAnswer> {
        let chats = self.context.store.known_chats().await?;
        let shown = chats.iter().map(|chat| {
            let group = chat.registered.as_ref().map(GroupName::as_str);
            json!({"id": chat.id.as_str(), "name": chat.name, "members": chat.members, "group": group})
        });
        Ok(ToolAnswer::done(json!(shown.collect::<Vec<_>>()).to_string()))
    }

    async fn list_groups(&self) -> Result<ToolAnswer> {
        let groups = self.context.store.all_groups().await?;
        let shown = groups.iter().map(|group| {
            json!({
                "name": group.name.as_str(),
                "chat": group.chat.as_str(),
                "main": group.role == Role::Main,
                "trigger": group.trigger_or(&self.context.settings.assistant),
                "daily_tokens": group.daily_tokens,
            })
        });
        Ok(ToolAnswer::done(json!(shown.collect::<Vec<_>>()).to_string()))
    }

    async fn add_group(&self, chat: &str, name: &GroupName, trigger: Option<&String>) -> Result<ToolAnswer> {
        let store = &self.context.store;
        let Some(known) = store.known_chats().await?.into_iter().find(|known| known.id.as_str() == chat)
        else {
            return Ok(ToolAnswer::failed(Denial::UnknownChat.sentence()));
        };
        let paths = &self.context.paths;
        let is_left = paths.group_folder(name).exists() || paths.agent_folder(name).exists();
        if is_left && store.group_by_name(name).await?.is_none() {
            // What an earlier group's agent knew is not for another chat.
            return Ok(ToolAnswer::failed(format!(
                "The name {name} was another group's, whose folder is still there. Nothing was changed; choose a name \
                 that was never used."
            )));
        }
        let group = Group { trigger: trigger.cloned(), ..Group::new(name.clone(), known.id, Role::Member) };
        Ok(match store.add_group(&group, self.context.clock.now()).await {
            Ok(()) => ToolAnswer::done(format!("The group {name} is served from now on.")),
            Err(taken) => ToolAnswer::failed(format!("{taken:#}")),
        })
    }

    async fn set_group(
        &self,
        name: &GroupName,
        trigger: Option<&String>,
        daily_tokens: Option<u64>,
    ) -> Result<ToolAnswer> {
        let Some(mut group) = self.context.store.group_by_name(name).await? else {
            return Ok(unknown_group_answer(name));
        };
        if group.role == Role::Main && trigger.is_some() {
            return Ok(ToolAnswer::failed("The main channel needs no trigger. Nothing was changed."));
        }
        group.trigger = trigger.cloned().or(group.trigger);
        group.daily_tokens = match daily_tokens {
            None => group.daily_tokens,
            Some(0) => None,
            Some(tokens) => Some(tokens.min(i64::MAX.cast_unsigned())),
        };
        self.context.store.update_group(&group).await?;
        Ok(ToolAnswer::done(format!("The group {name} was changed.")))
    }
}

/// The chat to which something is sent that the guard has allowed.
fn chat_of_destination(group: &Group, destination: Destination) -> ChatId {
    match destination {
        Destination::Registered(_, chat) => chat,
        Destination::OwnChat | Destination::Unregistered(_) | Destination::Unknown => group.chat.clone(),
    }
}
