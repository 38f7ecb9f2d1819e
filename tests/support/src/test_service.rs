//! The real service, with the bridge's end controlled by a test: the common part of the stories and the
//! container tests. Knows neither Docker nor engines: those are the `Containers` that it is given.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nanokimi::agent::Engine;
use nanokimi::bridge::{
    self, Answer, Batch, BridgeEnd, Content, Event, FetchError, FetchOrder, HandedOver, LinkState, Order,
    SendError, Typing,
};
use nanokimi::container::Containers;
use nanokimi::container::spec::ContainerLimits;
use nanokimi::service::{self, BridgeReach, StopReason};
use nanokimi::session::{SessionContext, Settings, machine};
use nanokimi::store::Rules;
use nanokimi::types::{
    ChatId, DeviceKind, DirectChatPolicy, Edit, Forwarded, Group, GroupName, IncomingMessage, InstallId,
    Lang, Media, MediaKind, Mention, MessageId, OfferedModels, Reaction, Role, SenderId,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A message that a chat has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The group's name, or the whole id of a direct chat.
    pub group: String,
    pub id: String,
    /// A message's text, a file's caption, or a reaction's emoji.
    pub text: String,
    pub what: What,
    /// The id of the message that it quotes or reacts to.
    pub to: Option<String>,
    pub mentions: Vec<String>,
    pub expires_secs: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Text,
    File {
        kind: MediaKind,
        mime: String,
        name: String,
        bytes: Vec<u8>,
    },
    Reaction,
    /// A file that was handed over before, with its content at that time.
    SentBefore,
}

/// Messages that were shown as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub group: String,
    pub sender: String,
    pub messages: Vec<String>,
}

/// A message that was encrypted again for a person's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    pub group: String,
    pub id: String,
    pub person: String,
    pub device: DeviceKind,
}

pub struct TestService {
    batches: mpsc::Sender<Batch>,
    link: watch::Sender<LinkState>,
    heard: mpsc::UnboundedReceiver<Heard>,
    stuck: mpsc::UnboundedReceiver<bridge::SendOrder>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<anyhow::Result<StopReason>>,
    bridge: JoinHandle<()>,
}

/// What the bridge must do and has seen; it outlives the service.
#[derive(Clone, Default)]
pub struct Chats {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    link: Option<LinkState>,
    refusals: VecDeque<SendError>,
    unacknowledged: bool,
    hanging: HashSet<String>,
    typing: Vec<(String, Typing)>,
    read: Vec<Read>,
    files: HashMap<Vec<u8>, Result<Vec<u8>, FetchError>>,
    fetched: Vec<Vec<u8>>,
    asked_again: Vec<Vec<u8>>,
    stuck_files: HashSet<Vec<u8>>,
    /// Fetches that are stuck.
    on_the_way: Vec<FetchOrder>,
    repaired: Vec<Repaired>,
    /// People whose devices have no keys at WhatsApp.
    keyless: HashSet<String>,
}

impl Chats {
    /// How the link is when the service starts: `Online`, unless the story says otherwise.
    pub fn link_at_start(&self, link: LinkState) {
        self.state().link = Some(link);
    }

    /// The bridge refuses the next message like this.
    pub fn refuse_next(&self, error: SendError) {
        self.state().refusals.push_back(error);
    }

    /// From now on messages are only handed over. The story says what WhatsApp answers, with
    /// [`TestService::answers`].
    pub fn leave_unacknowledged(&self) {
        self.state().unacknowledged = true;
    }

    /// From now on messages to this group get stuck in the bridge; [`TestService::stuck`] returns them.
    pub fn hang(&self, group: &str) {
        self.state().hanging.insert(group.to_owned());
    }

    pub fn hang_no_more(&self, group: &str) {
        self.state().hanging.remove(group);
    }

    pub fn typing(&self) -> Vec<(String, Typing)> {
        self.state().typing.clone()
    }

    /// The messages that were shown as read, in order.
    pub fn read(&self) -> Vec<Read> {
        self.state().read.clone()
    }

    /// The messages that were encrypted again, in order.
    pub fn repaired(&self) -> Vec<Repaired> {
        self.state().repaired.clone()
    }

    /// From now on WhatsApp has no keys of this person's devices.
    pub fn loses_keys(&self, person: &SenderId) {
        self.state().keyless.insert(person.to_string());
    }

    /// The file with this handle can be fetched, and has these bytes.
    pub fn hold_file(&self, handle: &[u8], bytes: &[u8]) {
        self.state().files.insert(handle.to_owned(), Ok(bytes.to_owned()));
    }

    /// The file with this handle cannot be fetched. A file that the story has not named is `Gone`.
    pub fn refuse_file(&self, handle: &[u8], error: FetchError) {
        self.state().files.insert(handle.to_owned(), Err(error));
    }

    /// The fetch of this handle never ends by itself.
    pub fn hang_file(&self, handle: &[u8]) {
        self.state().stuck_files.insert(handle.to_owned());
    }

    /// From now on no fetch gets stuck.
    pub fn let_files_come(&self) {
        self.state().stuck_files.clear();
    }

    /// The messages that the phone was asked for, in order.
    pub fn asked_again(&self) -> Vec<Vec<u8>> {
        self.state().asked_again.clone()
    }

    /// The handles that were fetched, in order.
    pub fn fetched(&self) -> Vec<Vec<u8>> {
        self.state().fetched.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl TestService {
    /// Starts the service. `context` is built with the service's way to the bridge.
    pub async fn start<C: Containers>(
        chats: &Chats,
        context: impl FnOnce(mpsc::Sender<Order>) -> SessionContext<C>,
    ) -> Self {
        Self::start_reaching(BridgeReach::All, chats, context).await
    }

    /// The same with a bridge that may not reach all chats.
    pub async fn start_reaching<C: Containers>(
        reach: BridgeReach,
        chats: &Chats,
        context: impl FnOnce(mpsc::Sender<Order>) -> SessionContext<C>,
    ) -> Self {
        let (BridgeEnd { batches, orders, link }, end) = bridge::create_bridge_ends();
        link.send_replace(chats.state().link.clone().unwrap_or(LinkState::Online));
        let (heard_sender, heard) = mpsc::unbounded_channel();
        let (stuck_sender, stuck) = mpsc::unbounded_channel();
        let bridge = tokio::spawn(hold_bridge(orders, heard_sender, stuck_sender, chats.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async {
            // A story that is over has not asked for a stop.
            if stopped.await.is_err() {
                std::future::pending().await
            }
        };
        let context = context(end.orders.clone());
        let task = tokio::spawn(service::run_service(context, end, reach, ready, stopped));
        is_ready.await.expect("the service starts");
        Self { batches, link, heard, stuck, stop: Some(stop), task, bridge }
    }

    /// Asks the service to stop, as SIGTERM does.
    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }

    /// Stops the service. Returns the messages that the test did not expect.
    pub async fn stop(mut self) -> Vec<Heard> {
        self.begin_stop();
        let Self { mut heard, task, .. } = self;
        task.await.unwrap().unwrap();
        std::iter::from_fn(|| heard.try_recv().ok()).collect()
    }

    /// Waits until the service ends by itself.
    pub async fn ended(self, patience: Duration) -> StopReason {
        timeout(patience, self.task).await.expect("the service ends").unwrap().unwrap()
    }

    /// Ends the service as SIGKILL does: there is no clean-up, and Docker's containers go on.
    pub async fn kill(self) {
        self.task.abort();
        self.bridge.abort();
        self.task.await.ok();
    }

    /// The bridge reports these events, in one batch. Returns once they are stored.
    pub async fn tells(&self, events: Vec<Event>) {
        self.hands_over(events).await.await.expect("the events are stored");
    }

    /// The bridge reports these events, in one batch. The result reports when they are stored.
    pub async fn hands_over(&self, events: Vec<Event>) -> oneshot::Receiver<()> {
        let (committed, stored) = oneshot::channel();
        self.batches.send(Batch { events, committed }).await.expect("the service takes events in");
        stored
    }

    /// The bridge delivers this message.
    pub async fn writes(&self, message: IncomingMessage) {
        self.tells(vec![Event::Message(message)]).await;
    }

    /// WhatsApp answers a message of ours.
    pub async fn answers(&self, id: &str, answer: Answer) {
        self.tells(vec![Event::Answered { id: MessageId::new(id), answer }]).await;
    }

    pub fn link(&self, link: LinkState) {
        self.link.send_replace(link);
    }

    /// The next message that a chat sees.
    pub async fn hears(&mut self, patience: Duration) -> Heard {
        timeout(patience, self.heard.recv()).await.expect("a message comes").expect("the bridge runs")
    }

    pub fn hears_now(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }

    /// The next message that gets stuck in the bridge.
    pub async fn stuck(&mut self, patience: Duration) -> bridge::SendOrder {
        timeout(patience, self.stuck.recv()).await.expect("a message gets stuck").expect("the bridge runs")
    }

    /// Nothing is said for this long.
    pub async fn silence(&mut self, length: Duration) {
        if let Ok(heard) = timeout(length, self.heard.recv()).await {
            panic!("{heard:?} breaks the silence");
        }
    }
}

/// The settings of a new install.
pub fn settings(install: InstallId) -> Settings {
    Settings {
        install,
        assistant: "Kai".to_owned(),
        reply_prefix: "Kai: ".to_owned(),
        lang: Lang::En,
        zone: TimeZone::UTC,
        engine: Engine::KimiCli,
        container_limits: ContainerLimits::STANDARD,
        model: None,
        device_id: "0".repeat(32),
        time_limits: machine::TimeLimits {
            idle: Duration::from_secs(15 * 60),
            turn: Duration::from_secs(30 * 60),
        },
        answer_within: Duration::from_secs(24 * 60 * 60),
        direct_chats: DirectChatPolicy::Listed,
        media_limit_bytes: 32 * 1024 * 1024,
        max_agents: 5,
        agents_memory_bytes: u64::MAX,
        allowlist: None,
        transcription: None,
    }
}

/// The rules that go with [`settings`].
pub fn rules() -> Rules {
    Rules {
        assistant: "Kai".to_owned(),
        direct_chats: DirectChatPolicy::Listed,
        answer_within: Duration::from_secs(24 * 60 * 60),
        lang: Lang::En,
        reply_prefix: "Kai: ".to_owned(),
        zone: TimeZone::UTC,
        engine: Engine::KimiCli,
        models: OfferedModels::default(),
    }
}

pub fn chat(group: &str) -> ChatId {
    ChatId::new(format!("{group}@g.us"))
}

pub fn name(group: &str) -> GroupName {
    GroupName::parse(group).unwrap()
}

pub fn group(of: &str, role: Role) -> Group {
    Group::new(name(of), chat(of), role)
}

pub fn message(group: &str, id: &str, sender: &str, text: &str, sent_at: Timestamp) -> IncomingMessage {
    IncomingMessage {
        chat: chat(group),
        id: MessageId::new(id),
        sender: SenderId::new(format!("{sender}@s.whatsapp.net")),
        sender_name: sender.to_owned(),
        text: text.to_owned(),
        sent_at,
        mention: Mention::NotMe,
        forwarded: Forwarded::No,
        quote: None,
        media: None,
        expires_secs: None,
    }
}

/// The author gives a message a new text; `id` is the id of the edit itself.
pub fn edited(target: &str, id: &str, message: IncomingMessage) -> Event {
    Event::Edited(Edit {
        target: MessageId::new(target),
        message: IncomingMessage { id: MessageId::new(id), ..message },
    })
}

/// Somebody deletes a message for everybody.
pub fn deleted(group: &str, sender: &str, target: &str) -> Event {
    Event::Deleted { chat: chat(group), sender: phone(sender), target: MessageId::new(target) }
}

/// Somebody puts an emoji on a message; an empty one removes it.
pub fn reacted(group: &str, id: &str, sender: &str, target: &str, emoji: &str, sent_at: Timestamp) -> Event {
    Event::Reacted(Reaction {
        chat: chat(group),
        id: MessageId::new(id),
        sender: phone(sender),
        sender_name: sender.to_owned(),
        target: MessageId::new(target),
        emoji: emoji.to_owned(),
        sent_at,
    })
}

/// A person's phone number and LID belong together.
pub fn same_person(name: &str) -> Event {
    Event::SamePerson { one: phone(name), other: lid(name) }
}

/// The id of a person by phone number.
pub fn phone(name: &str) -> SenderId {
    SenderId::new(format!("{name}@s.whatsapp.net"))
}

/// The same person's id as WhatsApp's newer groups use it.
pub fn lid(name: &str) -> SenderId {
    SenderId::new(format!("{name}@lid"))
}

/// Something attached to a message.
pub fn media(kind: MediaKind, mime: &str, handle: &[u8]) -> Media {
    Media { kind, mime: mime.to_owned(), name: None, bytes: 1_000, handle: handle.to_owned() }
}

async fn hold_bridge(
    mut orders: mpsc::Receiver<Order>,
    heard: mpsc::UnboundedSender<Heard>,
    stuck: mpsc::UnboundedSender<bridge::SendOrder>,
    chats: Chats,
) {
    while let Some(order) = orders.recv().await {
        let mut state = chats.state();
        match order {
            Order::Read { chat, sender, messages } => state.read.push(Read {
                group: group_of(&chat),
                sender: sender.to_string(),
                messages: messages.iter().map(MessageId::to_string).collect(),
            }),
            Order::Fetch(fetch) => {
                state.fetched.push(fetch.media.handle.clone());
                if state.stuck_files.contains(&fetch.media.handle) {
                    state.on_the_way.push(fetch);
                    continue;
                }
                let file = state.files.get(&fetch.media.handle).cloned().unwrap_or(Err(FetchError::Gone));
                hand_out(fetch, file);
            }
            Order::Typing { chat, shown } => state.typing.push((group_of(&chat), shown)),
            Order::AskAgain { handle } => state.asked_again.push(handle),
            Order::Send(send) if state.hanging.contains(&group_of(&send.chat)) => drop(stuck.send(send)),
            Order::Send(send) => {
                let handed_over = match state.refusals.pop_front() {
                    Some(refusal) => Err(refusal),
                    None if state.unacknowledged => Ok(HandedOver::Sent),
                    None => Ok(HandedOver::Seen),
                };
                if handed_over.is_ok() {
                    heard.send(seen(&send)).ok();
                }
                send.encoded.send(format!("as it was: {}", send.id).into_bytes()).ok();
                send.outcome.send(handed_over).ok();
            }
            Order::Repair(repair) => {
                let outcome = match state.keyless.contains(repair.person.as_str()) {
                    true => Err(SendError::NoKeys),
                    false => Ok(()),
                };
                state.repaired.push(Repaired {
                    group: group_of(&repair.chat),
                    id: repair.id.to_string(),
                    person: repair.person.to_string(),
                    device: repair.device,
                });
                assert_eq!(repair.message, format!("as it was: {}", repair.id).into_bytes());
                repair.outcome.send(outcome).ok();
            }
        }
    }
}

fn group_of(chat: &ChatId) -> String {
    chat.as_str().trim_end_matches("@g.us").to_owned()
}

/// A message as the people in its chat see it.
fn seen(send: &bridge::SendOrder) -> Heard {
    let quoted = send.quote.as_ref().map(|quote| quote.id.to_string());
    let (text, what, to, mentions) = match &send.content {
        Content::Text { text, mentions } => {
            (text, What::Text, quoted, mentions.iter().map(SenderId::to_string).collect())
        }
        Content::File(file) => {
            let mut bytes = Vec::new();
            (&file.file).read_to_end(&mut bytes).expect("an opened file can be read");
            let (mime, name) = (file.mime.clone(), file.name.clone());
            (&file.caption, What::File { kind: file.kind, mime, name, bytes }, quoted, Vec::new())
        }
        Content::Reaction { target, emoji, .. } => {
            (emoji, What::Reaction, Some(target.to_string()), Vec::new())
        }
        Content::Encoded(_) => {
            static AGAIN: String = String::new();
            (&AGAIN, What::SentBefore, None, Vec::new())
        }
    };
    Heard {
        group: group_of(&send.chat),
        id: send.id.to_string(),
        text: text.clone(),
        what,
        to,
        mentions,
        expires_secs: send.expires_secs,
    }
}

/// Writes the requested file to the path that was given for it.
fn hand_out(mut fetch: FetchOrder, file: Result<Vec<u8>, FetchError>) {
    let outcome = match file {
        Ok(bytes) if bytes.len() as u64 > fetch.limit_bytes => Err(FetchError::TooLarge),
        Ok(bytes) => {
            fetch.into.write_all(&bytes).expect("the file can be written");
            Ok(bytes.len() as u64)
        }
        Err(error) => Err(error),
    };
    fetch.outcome.send(outcome).ok();
}
