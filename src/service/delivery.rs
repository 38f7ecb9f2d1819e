//! Sends what is in the outbox while the link is online: in order within each chat, chats side by side, no
//! faster than people write. A reply stays until WhatsApp has answered or it is given up.
//!
//! A reply that was handed over waits for its answer as `sent`. If the link is new, or the answer does not
//! come, it is sent again under the same id, before what follows it in its chat. So sending is idempotent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::bridge_reach::BridgeReach;
use super::deadlines::{ReplyAges, ReplyDeadlines};
use super::pacing::{SendRateLimiter, WaitReason};
use super::{outgoing, repairs};
use crate::bridge::{self, Content, HandedOver, Order, QuoteTo, Recipients, SendError};
use crate::clock::sleep_until_or_never;
use crate::container::Containers;
use crate::panics::{WorkPanicked, catch_panic};
use crate::session::SessionContext;
use crate::store::{
    DueRepair, DueReply, QuotedMessage, RepairBatch, Rules, SendAttempt, SendResult, StaleCutoff,
};
use crate::types::{ChatId, LinkState};

/// How long the bridge may take over one message; its chat waits meanwhile.
const SEND_LIMIT: Duration = Duration::from_secs(20);
/// The same for a file, which has to be uploaded first: a little more than the bridge itself gives it.
const FILE_LIMIT: Duration = Duration::from_secs(6 * 60);
/// The most messages that the bridge sends at a time, each of another chat: one that hangs does not hold up
/// the others.
const SENDS_IN_FLIGHT: usize = 8;
/// How long WhatsApp may take to answer the last replies when the service stops. Those without an answer are
/// sent again after the next start.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(3);
/// How often a fault of our own may break a reply off before it is given up. It would be the same each time,
/// and what follows it in its chat waits.
const BREAKS_MAX: u32 = 3;
/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// Runs until it is told to stop. Then sends what is due, and ends when WhatsApp has answered or takes too
/// long.
pub async fn run_delivery<C: Containers>(
    context: SessionContext<C>,
    orders: mpsc::Sender<Order>,
    link: watch::Receiver<LinkState>,
    reach: BridgeReach,
    mut stopped: oneshot::Receiver<()>,
) {
    let (only, pacing) = match reach {
        // Without a bridge the link is never online.
        BridgeReach::All | BridgeReach::Nothing => (None, Some(SendRateLimiter::new(Instant::now()))),
        // At a terminal nobody mistrusts fast replies.
        BridgeReach::Only(chat) => (Some(chat), None),
    };
    let mut delivery = Delivery {
        only,
        pacing,
        deadlines: ReplyDeadlines::default(),
        began: context.clock.now(),
        ages: ReplyAges::new(context.settings.answer_within),
        newest_at_start: None,
        sending: JoinSet::new(),
        busy: HashSet::new(),
        broke_off: HashMap::new(),
        repairing: JoinSet::new(),
        is_stopping: false,
        link_age: LinkAge::New,
        context,
        orders,
        link,
    };
    loop {
        let next = delivery.send_due_replies().await;
        tokio::select! {
            () = delivery.context.outbox_hint.notified() => {}
            () = sleep_until_or_never(next.earliest_wakeup()) => {}
            Some(Ok(ended)) = delivery.sending.join_next() => delivery.record_send_result(ended).await,
            Some(Ok(not_made)) = delivery.repairing.join_next() => delivery.undo_unmade_repairs(not_made).await,
            Ok(()) = delivery.link.changed() => delivery.link_age = LinkAge::New,
            _ = &mut stopped => break,
        }
    }
    delivery.is_stopping = true;
    // What is due is sent. What has to wait for its next attempt waits for the next start.
    let mut give_up_at = None;
    loop {
        let next = delivery.send_due_replies().await;
        if delivery.sending.is_empty() && next.paced.is_none() {
            let now = Instant::now();
            if next.unanswered.is_none() || *give_up_at.get_or_insert(now + LAST_ANSWERS_LIMIT) <= now {
                return;
            }
        } else {
            give_up_at = None;
        }
        tokio::select! {
            () = delivery.context.outbox_hint.notified() => {}
            Some(Ok(ended)) = delivery.sending.join_next() => delivery.record_send_result(ended).await,
            () = sleep_until_or_never(next.paced) => {}
            () = sleep_until_or_never(give_up_at) => {}
        }
    }
}

struct Delivery<C> {
    context: SessionContext<C>,
    orders: mpsc::Sender<Order>,
    link: watch::Receiver<LinkState>,
    only: Option<ChatId>,
    pacing: Option<SendRateLimiter>,
    deadlines: ReplyDeadlines,
    /// What the wall clock showed when this run began.
    began: Timestamp,
    ages: ReplyAges,
    /// The newest reply that an earlier run has left; `None` before the first look.
    newest_at_start: Option<i64>,
    sending: JoinSet<(DueReply, Result<SendResult, WorkPanicked>)>,
    /// The chats of `sending`.
    busy: HashSet<ChatId>,
    /// How often a row has broken off.
    broke_off: HashMap<i64, u32>,
    /// One batch of repairs at a time, beside what is sent: nothing waits for them.
    repairing: JoinSet<Vec<DueRepair>>,
    is_stopping: bool,
    link_age: LinkAge,
}

/// Whether what was sent before went over the link that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkAge {
    New,
    Known,
}

/// Why to look again.
#[derive(Clone, Copy, Debug, Default)]
struct DeliveryWakeups {
    /// A reply is due, but too soon after others.
    paced: Option<Instant>,
    /// A reply will be due.
    due: Option<Instant>,
    /// An answer will be overdue.
    unanswered: Option<Instant>,
}

impl DeliveryWakeups {
    fn earliest_wakeup(self) -> Option<Instant> {
        self.paced.into_iter().chain(self.due).chain(self.unanswered).min()
    }
}

impl<C: Containers> Delivery<C> {
    /// Begins to send what may leave now, and says when to look again.
    async fn send_due_replies(&mut self) -> DeliveryWakeups {
        match self.try_send_due_replies().await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!("Failed to work on the outbox: {error:#}");
                DeliveryWakeups { due: Some(Instant::now() + ERROR_PAUSE), ..DeliveryWakeups::default() }
            }
        }
    }

    async fn try_send_due_replies(&mut self) -> Result<DeliveryWakeups> {
        let newest = self.context.store.newest_reply_row().await?;
        let newest_at_start = *self.newest_at_start.get_or_insert(newest);
        // Also while the link is away: that is when replies get old.
        self.ages.record_newest_reply(newest, Instant::now());
        if *self.link.borrow() != LinkState::Online {
            return Ok(DeliveryWakeups::default());
        }
        let waiting = self.context.store.delayed_replies().await?;
        self.deadlines.track_waiting_replies(&waiting, self.context.clock.now(), Instant::now());
        let (again, unanswered) = match self.link_age {
            // The link is new: an answer on the old one is lost.
            LinkAge::New => (waiting.unanswered.iter().map(|sent| sent.row).collect(), None),
            LinkAge::Known => {
                let now = Instant::now();
                (self.deadlines.overdue_replies(now), self.deadlines.next_overdue_at(now))
            }
        };
        if !again.is_empty() {
            self.context
                .store
                .requeue_unanswered(again, self.current_rules(), self.context.clock.now())
                .await?;
        }
        self.link_age = LinkAge::Known;
        let mut next = DeliveryWakeups {
            unanswered,
            due: self.start_due_repairs().await?,
            ..DeliveryWakeups::default()
        };
        let mut replies = self.context.store.next_queued_replies(self.only.as_ref()).await?;
        let old = self.stale_cutoff(newest_at_start);
        if replies.iter().any(|reply| old.is_stale_reply(reply)) {
            self.context
                .store
                .expire_stale_replies(old, self.current_rules(), self.context.clock.now())
                .await?;
            replies = self.context.store.next_queued_replies(self.only.as_ref()).await?;
        }
        for reply in replies {
            if self.busy.contains(&reply.chat) {
                continue;
            }
            let now = Instant::now();
            let ready_at = self.pacing.as_ref().map_or(now, |pacing| pacing.ready_at(&reply.chat, now));
            let due_at =
                self.deadlines.attempt_due_at(reply.row, reply.put_off, self.context.clock.now(), now);
            if due_at > now {
                next.due = Some(next.due.map_or(due_at, |due| due.min(due_at)));
            } else if self.sending.len() >= SENDS_IN_FLIGHT {
                // The first send that ends makes room.
            } else if ready_at > now {
                match self
                    .pacing
                    .as_mut()
                    .map_or(WaitReason::Brief, |pacing| pacing.take_wait_reason(&reply.chat, now))
                {
                    WaitReason::Brief => {
                        next.paced = Some(next.paced.map_or(ready_at, |paced| paced.min(ready_at)));
                        continue;
                    }
                    WaitReason::Lasting => {}
                    WaitReason::LastingUntold => self.notify_owner_of_slow_chat(&reply.chat).await?,
                }
                next.due = Some(next.due.map_or(ready_at, |due| due.min(ready_at)));
            } else if self.context.store.begin_attempt(&reply).await? == SendAttempt::Begins {
                if let Some(pacing) = &mut self.pacing {
                    pacing.record_send(&reply.chat, now);
                }
                self.spawn_send(reply);
            }
        }
        Ok(next)
    }

    /// Which replies are too old to be sent. The age of this run's replies is known by a clock that nobody
    /// sets. The age of those that an earlier run has left is known only by the wall clock.
    fn stale_cutoff(&self, newest_at_start: i64) -> StaleCutoff {
        let limit = self.context.settings.answer_within;
        let written_before = self.context.clock.now().checked_sub(limit).unwrap_or(Timestamp::MIN);
        StaleCutoff {
            newest_stale: self.ages.last_row_over_limit(Instant::now()).unwrap_or_default(),
            newest_left_over: newest_at_start,
            // This run, too, may have written something before it took its first look.
            written_before: written_before.min(self.began),
        }
    }

    async fn notify_owner_of_slow_chat(&self, chat: &ChatId) -> Result<()> {
        tracing::warn!(
            "A chat has had very many messages in an hour; the rest comes slowly, and the owner is told"
        );
        self.context
            .store
            .notify_owner_of_slowness(chat, self.current_rules(), self.context.clock.now())
            .await?;
        self.context.outbox_hint.notify_one();
        Ok(())
    }

    /// Begins the repairs that are due, and says when to look again. A terminal needs no repairs.
    async fn start_due_repairs(&mut self) -> Result<Option<Instant>> {
        if self.only.is_some() || self.is_stopping || !self.repairing.is_empty() {
            return Ok(None);
        }
        let RepairBatch { due, next } =
            self.context.store.claim_due_repairs(self.current_rules(), self.context.clock.now()).await?;
        if !due.is_empty() {
            self.repairing.spawn(repairs::send_repairs(self.orders.clone(), due));
        }
        let ahead = next.map(|next| Duration::try_from(next.duration_since(self.context.clock.now())));
        Ok(ahead.map(|ahead| Instant::now() + ahead.unwrap_or(Duration::ZERO)))
    }

    /// Takes back the count of the repairs that were not made because the link was lost.
    async fn undo_unmade_repairs(&mut self, not_made: Vec<DueRepair>) {
        if *self.link.borrow() == LinkState::Online || not_made.is_empty() {
            return;
        }
        if let Err(error) = self.context.store.undo_repairs(&not_made, self.context.clock.now()).await {
            tracing::error!("Failed to record what was not repaired: {error:#}");
        }
    }

    fn spawn_send(&mut self, reply: DueReply) {
        self.busy.insert(reply.chat.clone());
        let (context, orders) = (self.context.clone(), self.orders.clone());
        self.sending.spawn(async move {
            let result = catch_panic(send_reply(&context, &orders, &reply)).await;
            (reply, result)
        });
    }

    /// Records how a send ended.
    async fn record_send_result(&mut self, (reply, result): (DueReply, Result<SendResult, WorkPanicked>)) {
        self.busy.remove(&reply.chat);
        let result = self.resolve_send_result(reply.row, result);
        let online = *self.link.borrow() == LinkState::Online;
        let lost = !online && matches!(result, SendResult::Later(_) | SendResult::NoKeys);
        let result = if lost { SendResult::LinkLost } else { result };
        match &result {
            SendResult::Sent { .. } | SendResult::Seen => tracing::debug!(reply = reply.row, "Sent"),
            SendResult::LinkLost => tracing::debug!(reply = reply.row, "The link was lost on the way"),
            SendResult::Later(error) => tracing::info!(reply = reply.row, "Could not send now: {error}"),
            SendResult::NoKeys => {
                tracing::info!(
                    reply = reply.row,
                    "Could not send now: WhatsApp has no keys of this person's devices"
                );
            }
            SendResult::Never(error) => tracing::warn!(reply = reply.row, "Gave a reply up: {error}"),
        }
        if let Err(error) = self
            .context
            .store
            .record_attempt(&reply, result, self.current_rules(), self.context.clock.now())
            .await
        {
            tracing::error!("Failed to record what was sent: {error:#}");
        }
    }

    /// How a send ended, also if it broke off.
    fn resolve_send_result(&mut self, row: i64, result: Result<SendResult, WorkPanicked>) -> SendResult {
        let broke_off = match result {
            Ok(result) => {
                self.broke_off.remove(&row);
                return result;
            }
            Err(broke_off) => broke_off,
        };
        let times = self.broke_off.entry(row).or_default();
        *times += 1;
        if *times < BREAKS_MAX {
            return SendResult::Later(broke_off.to_string());
        }
        self.broke_off.remove(&row);
        SendResult::Never(broke_off.to_string())
    }

    fn current_rules(&self) -> Rules {
        self.context.settings.store_rules()
    }
}

async fn send_reply<C: Containers>(
    context: &SessionContext<C>,
    orders: &mpsc::Sender<Order>,
    reply: &DueReply,
) -> SendResult {
    let content = match outgoing::build_content(context, reply).await {
        Ok(content) => content,
        Err(SendError::Later(error)) => return SendResult::Later(error),
        Err(SendError::NoKeys) => return SendResult::NoKeys,
        Err(SendError::Never(error)) => return SendResult::Never(error),
    };
    let limit = match &content {
        Content::File(_) => FILE_LIMIT,
        Content::Text { .. } | Content::Reaction { .. } | Content::Encoded(_) => SEND_LIMIT,
    };
    let (outcome, answer) = oneshot::channel();
    let (encoded, mut message) = oneshot::channel();
    let order = bridge::SendOrder {
        chat: reply.chat.clone(),
        id: reply.id.clone(),
        content,
        quote: reply.quote.clone().map(|QuotedMessage { id, sender, text }| QuoteTo { id, sender, text }),
        expires_secs: reply.expires_secs,
        recipients: if reply.attempts == 0 { Recipients::Remembered } else { Recipients::LookedUp },
        encoded,
        outcome,
    };
    let handed_over = async {
        orders.send(Order::Send(order)).await.map_err(|_| "the bridge is gone")?;
        answer.await.map_err(|_| "the bridge dropped the message")
    };
    match timeout(limit, handed_over).await {
        // A bridge that gives no encoded message has nothing to repair.
        Ok(Ok(Ok(HandedOver::Sent))) => SendResult::Sent { message: message.try_recv().unwrap_or_default() },
        Ok(Ok(Ok(HandedOver::Seen))) => SendResult::Seen,
        Ok(Ok(Err(SendError::Later(error)))) => SendResult::Later(error),
        Ok(Ok(Err(SendError::NoKeys))) => SendResult::NoKeys,
        Ok(Ok(Err(SendError::Never(error)))) => SendResult::Never(error),
        Ok(Err(error)) => SendResult::Later(error.to_owned()),
        Err(_) => SendResult::Later(format!("the bridge did not answer within {} s", limit.as_secs())),
    }
}
