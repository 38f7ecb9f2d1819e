//! One run of the library from its start to its end: its signals become link states, orders go out, the person is led
//! through linking. One task owns all of it; whatever takes time is a task beside it.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use whatsapp_rust::passkey::PasskeyError;
use whatsapp_rust::prelude::{Client, Jid};
use whatsapp_rust::wacore::iq::devices::RemoveCompanionDeviceSpec;
use whatsapp_rust::wacore::stats::StatsSnapshot;
use whatsapp_rust::wacore::time::now_millis;

use super::courtesies::Courtesy;
use super::greeting::{Greeting, greet, tell_group};
use super::hook::{Desk, Stored};
use super::inbound;
use super::library::{Library, Signal};
use super::linking::{Linking, Said, Step};
use super::notes::Notes;
use super::outbound::{Line, Outbound};
use super::policy::End;
use super::uptime::Uptime;
use super::{Bridge, ROOM_LOOK_EACH};
use crate::types::{Event, Link, Pairing, PairingFailure};

/// How long the library may take to stop: it flushes for up to 15 s where the network hangs.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often the connection is looked at.
const LOOK_EACH: Duration = Duration::from_secs(30);
/// How often all groups are told.
const GROUPS_EACH: Duration = Duration::from_secs(24 * 60 * 60);
/// The first pause before WhatsApp is made to deliver again what was not stored; it doubles.
const REDELIVERY_PAUSE: Duration = Duration::from_secs(5);
const REDELIVERY_PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long WhatsApp may take over a passkey's answer. Nothing else goes on meanwhile.
const PASSKEY_LIMIT: Duration = Duration::from_secs(20);
/// What intake is still to be told; an answer of WhatsApp's beyond it makes us send that message again.
const TELLING_MAX: usize = 1024;
/// How long what was not told yet may take at the end.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);
/// How long WhatsApp may take to forget this device. Nothing else goes on meanwhile, not even an end.
const FORGETTING_LIMIT: Duration = Duration::from_secs(20);
/// Groups that are asked about at the same time, and how long one is left alone then. That doubles while WhatsApp does
/// not say how the group is called.
const GROUPS_ASKED_MAX: usize = 4;
const GROUP_ASKED_EACH: Duration = Duration::from_secs(30);
const GROUP_ASKED_EACH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Groups of which it is remembered that they were asked about.
const ASKED_REMEMBERED_MAX: usize = 1000;

/// Messages of the own phone that cannot be read, one after the other, after which its session counts as broken: one
/// may be damaged, and another still on its way when the first is asked for.
const OWN_PHONE_UNREAD_MAX: u32 = 3;

/// What a run is for.
#[derive(Debug)]
pub enum Aim {
    Serve,
    Link(Linking),
    Unlink,
}

/// How a run has ended.
#[derive(Debug)]
pub enum Outcome {
    /// Somebody wanted it.
    Stopped,
    /// What it was for.
    Reached,
    Failed(PairingFailure),
    /// By itself; `online` is how long it was.
    Over {
        end: End,
        online: Option<Duration>,
    },
}

/// Runs the library once.
///
/// # Errors
/// The files of the link cannot be used.
pub async fn run(
    bridge: &mut Bridge,
    aim: &mut Aim,
    version: Option<(u32, u32, u32)>,
    shutdown: &mut Pin<&mut impl Future<Output = ()>>,
) -> Result<Outcome> {
    if let Aim::Link(linking) = aim
        && let Step::Show(pairing) = linking.lost(bridge.settings.clock.now())
    {
        bridge.publish(Link::Pairing(pairing));
    }
    let (url, web, desk) = (bridge.settings.url.clone(), bridge.web.clone(), bridge.desk.clone());
    let library = Library::start(&bridge.folder, url.as_deref(), web, desk.clone(), version).await?;
    let (telling, told) = mpsc::channel(TELLING_MAX);
    let (noting, to_note) = mpsc::unbounded_channel();
    let mut tellers = JoinSet::new();
    tellers.spawn(note_all(desk.clone(), library.notes.clone(), to_note));
    tellers.spawn(tell(desk, told));
    let (presence, clock) = (bridge.settings.presence, bridge.settings.clock);
    let outbound = Outbound::new(library.client.clone(), presence, clock, telling.clone());
    let mut running = Running {
        bridge,
        library,
        outbound,
        telling,
        noting,
        greetings: JoinSet::new(),
        errands: JoinSet::new(),
        uptime: Uptime::closed(Instant::now()),
        end: None,
        redelivery: None,
        redelivery_pause: REDELIVERY_PAUSE,
        not_stored: None,
        asked: HashMap::new(),
        own_phone_unread: 0,
    };
    let outcome = running.drive(aim, shutdown).await;
    let Running { library, outbound, telling, noting, greetings, errands, .. } = running;
    drop((outbound, greetings, errands));
    let Library { running, mut signals, .. } = library;
    // Flushes what the library still holds in memory, also after it has ended by itself.
    let stopping = async {
        let mut stopping = pin!(running.shutdown());
        loop {
            tokio::select! {
                () = &mut stopping => return,
                // What it acknowledges meanwhile waits for that.
                Some(signal) = signals.recv() => tell_last(signal, &telling, &noting),
            }
        }
    };
    if timeout(STOP_LIMIT, stopping).await.is_err() {
        tracing::warn!("The WhatsApp library does not stop; ending it");
    }
    while let Ok(signal) = signals.try_recv() {
        tell_last(signal, &telling, &noting);
    }
    drop((telling, noting));
    let told = async { while tellers.join_next().await.is_some() {} };
    timeout(LAST_WORDS_LIMIT, told).await.ok();
    Ok(outcome)
}

/// What intake is told of a signal that came after the run's end.
fn tell_last(signal: Signal, telling: &mpsc::Sender<Vec<Event>>, noting: &mpsc::UnboundedSender<Vec<Event>>) {
    match signal {
        Signal::Events(events) => drop(telling.try_send(events)),
        Signal::Unread { noted, .. } => drop(noting.send(vec![*noted])),
        Signal::Unavailable(events) => drop(noting.send(events)),
        Signal::Connected
        | Signal::Disconnected
        | Signal::Pairing(_)
        | Signal::Ends(_)
        | Signal::Hash { .. }
        | Signal::GroupsChanged(_)
        | Signal::Named
        | Signal::OwnPhoneRead => {}
    }
}

/// Has intake store what nobody could read, one after the other: until then nothing leaves to WhatsApp.
async fn note_all(desk: Desk, notes: Notes, mut to_note: mpsc::UnboundedReceiver<Vec<Event>>) {
    while let Some(events) = to_note.recv().await {
        match desk.hand_over_firmly(events).await {
            Stored::Yes => notes.stored(),
            Stored::No => notes.lost(),
        }
    }
}

/// Tells intake what WhatsApp does not deliver twice.
async fn tell(desk: Desk, mut told: mpsc::Receiver<Vec<Event>>) {
    while let Some(events) = told.recv().await {
        if events.iter().all(may_be_lost) {
            desk.pass_on(events).await;
        } else {
            // What intake did not take it had no time for: the service stops.
            desk.hand_over_firmly(events).await;
        }
    }
}

/// Whether nothing is lost with an event but a little time: what WhatsApp did not answer is sent again, and what a device
/// has, it says of the next message.
fn may_be_lost(event: &Event) -> bool {
    match event {
        Event::Answered { .. } | Event::Receipt(_) | Event::Typing { .. } => true,
        Event::Message(_)
        | Event::Edited(_)
        | Event::Deleted { .. }
        | Event::Reacted(_)
        | Event::Noted(_)
        | Event::Chat { .. }
        | Event::SamePerson { .. }
        | Event::Account(_)
        | Event::Unread(_)
        | Event::ReadAfterAll { .. }
        | Event::PhoneMissed { .. }
        | Event::IdentityChanged { .. } => false,
    }
}

struct Running<'a> {
    bridge: &'a mut Bridge,
    library: Library,
    outbound: Outbound,
    telling: mpsc::Sender<Vec<Event>>,
    noting: mpsc::UnboundedSender<Vec<Event>>,
    /// The greeting of the newest connection.
    greetings: JoinSet<Greeting>,
    errands: JoinSet<()>,
    uptime: Uptime,
    /// Why the library is about to end.
    end: Option<End>,
    /// When WhatsApp is to deliver again what was not stored.
    redelivery: Option<Instant>,
    redelivery_pause: Duration,
    /// When it was last found that something was not stored.
    not_stored: Option<Instant>,
    /// Groups whose names were asked for, until when they are left alone, and how long that is.
    asked: HashMap<Jid, (Instant, Duration)>,
    /// Messages of the own phone that could not be read, one after the other.
    own_phone_unread: u32,
}

impl Running<'_> {
    async fn drive(&mut self, aim: &mut Aim, shutdown: &mut Pin<&mut impl Future<Output = ()>>) -> Outcome {
        let mut look = interval(LOOK_EACH);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut room_look = interval(ROOM_LOOK_EACH);
        room_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let redelivery_wanted = self.bridge.desk.redelivery.clone();
        loop {
            let redelivery = self.redelivery;
            let limit = self.time_left(aim);
            let done = tokio::select! {
                biased;
                () = &mut *shutdown => Some(Outcome::Stopped),
                Some(signal) = self.library.signals.recv() => self.on_signal(signal, aim).await,
                fault = self.library.fault.happens() => Some(self.on_fault(&fault, aim)),
                () = &mut self.library.running => Some(self.over()),
                Some(greeted) = self.greetings.join_next() => self.on_greeted(greeted.ok(), aim),
                order = self.bridge.orders.recv() => match order {
                    Some(order) => { self.outbound.take(order, self.uptime.line()); None }
                    None => Some(Outcome::Stopped),
                },
                () = self.outbound.next_done() => None,
                Some(_) = self.errands.join_next() => None,
                answer = next_answer(aim) => self.on_answer(answer).await,
                () = redelivery_wanted.notified() => { self.plan_redelivery(); None }
                () = sleep_until(redelivery.unwrap_or_else(Instant::now)), if redelivery.is_some() => {
                    self.ask_for_redelivery();
                    None
                }
                () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => self.on_limit(aim),
                _ = look.tick() => self.look(aim),
                _ = room_look.tick() => self.look_at_room(aim),
            };
            if let Some(outcome) = done {
                return outcome;
            }
        }
    }

    async fn on_signal(&mut self, signal: Signal, aim: &mut Aim) -> Option<Outcome> {
        match signal {
            Signal::Connected => return self.on_connected(aim).await,
            Signal::Disconnected => {
                self.on_away(aim);
                let Aim::Link(linking) = aim else { return None };
                let step = linking.lost(self.bridge.settings.clock.now());
                return self.take_step(step, linking).await;
            }
            Signal::Ends(end) => {
                self.end = Some(end);
                self.on_away(aim);
            }
            Signal::Pairing(signal) => {
                let Aim::Link(linking) = aim else { return None };
                let step = linking.on(signal, self.bridge.settings.clock.now());
                return self.take_step(step, linking).await;
            }
            Signal::Events(events) => {
                if self.telling.try_send(events).is_err() {
                    tracing::warn!("Intake is far behind: left out what WhatsApp answered");
                }
            }
            Signal::Hash { id, hash } => self.outbound.answered(&id, hash.as_deref()),
            Signal::GroupsChanged(groups) => {
                for group in groups {
                    self.ask_about(group);
                }
            }
            Signal::Named => {
                self.outbound.show(Courtesy::Named);
                if self.uptime.line() == Line::Open {
                    self.greet(Greeting::Account);
                }
            }
            Signal::OwnPhoneRead => self.own_phone_unread = 0,
            Signal::Unread { noted, by_own_phone } => self.on_unread(*noted, by_own_phone),
            Signal::Unavailable(events) => drop(self.noting.send(events)),
        }
        None
    }

    fn on_unread(&mut self, noted: Event, by_own_phone: bool) {
        self.noting.send(vec![noted]).ok();
        if !by_own_phone {
            tracing::warn!("A message could not be read; its author and your phone are asked for it");
            return;
        }
        tracing::warn!("A message of your own phone could not be read; the phone is asked for it");
        self.own_phone_unread += 1;
        if self.own_phone_unread >= OWN_PHONE_UNREAD_MAX {
            self.own_phone_unread = 0;
            tracing::warn!("Nothing of your own phone's can be read: beginning a new session with it");
            self.errands.spawn(forget_session_with_phone(self.library.client.clone()));
        }
    }

    /// The library is logged in, for the first time or once more.
    async fn on_connected(&mut self, aim: &mut Aim) -> Option<Outcome> {
        self.on_away(aim);
        self.uptime.progresses(Instant::now());
        if let Aim::Unlink = aim {
            return Some(log_out(&self.library.client).await);
        }
        let told = self.bridge.groups_told.is_some_and(|at| at.elapsed() < GROUPS_EACH);
        self.greet(if told { Greeting::Account } else { Greeting::AccountAndGroups });
        self.outbound.show(Courtesy::Arrived);
        None
    }

    fn greet(&mut self, greeting: Greeting) {
        self.greetings.abort_all();
        self.greetings.detach_all();
        self.greetings.spawn(greet(self.library.client.clone(), self.bridge.desk.clone(), greeting));
    }

    /// Intake knows whose link this is. From here on orders are carried out.
    fn on_greeted(&mut self, greeted: Option<Greeting>, aim: &Aim) -> Option<Outcome> {
        if greeted == Some(Greeting::AccountAndGroups) {
            self.bridge.groups_told = Some(Instant::now());
        }
        if greeted.is_none() || self.end.is_some() {
            return None;
        }
        self.uptime.open(Instant::now());
        self.bridge.publish(Link::Online);
        match aim {
            Aim::Link(_) => Some(Outcome::Reached),
            Aim::Serve | Aim::Unlink => None,
        }
    }

    /// The connection is gone, or a new one is not greeted yet.
    fn on_away(&mut self, aim: &Aim) {
        self.greetings.abort_all();
        self.greetings.detach_all();
        self.uptime.close(Instant::now());
        match aim {
            // The person sees how the linking stands instead.
            Aim::Link(_) => {}
            Aim::Serve | Aim::Unlink => drop(self.bridge.publish(Link::Connecting)),
        }
    }

    /// What the library holds in memory ends here: the database has refused to keep it.
    fn on_fault(&mut self, fault: &str, aim: &Aim) -> Outcome {
        self.on_away(aim);
        tracing::warn!(
            "The link's database failed: {fault}. Nothing is lost: WhatsApp delivers again what is not stored"
        );
        Outcome::Over { end: End::Storage, online: self.uptime.online(Instant::now()) }
    }

    /// The library has ended: why, it may have said just before.
    fn over(&mut self) -> Outcome {
        while let Ok(signal) = self.library.signals.try_recv() {
            if let Signal::Ends(end) = signal {
                self.end = Some(end);
            } else {
                tell_last(signal, &self.telling, &self.noting);
            }
        }
        Outcome::Over { end: self.end.unwrap_or(End::Lost), online: self.uptime.online(Instant::now()) }
    }

    /// Whether the connection is as dead as it is silent.
    fn look(&mut self, aim: &Aim) -> Option<Outcome> {
        let linked = match aim {
            Aim::Link(linking) => linking.has_agreed(),
            Aim::Serve | Aim::Unlink => true,
        };
        let (now, stats) = (Instant::now(), self.library.client.stats());
        if !linked || !self.uptime.is_dead(now, silence(&stats), stats.reconnect_errors) {
            return None;
        }
        tracing::warn!("The connection to WhatsApp is dead, beginning anew");
        self.on_away(aim);
        Some(Outcome::Over { end: End::Lost, online: self.uptime.online(now) })
    }

    /// Goes offline before anything fails for want of room.
    fn look_at_room(&self, aim: &Aim) -> Option<Outcome> {
        let serves = matches!(aim, Aim::Serve);
        if !serves || !self.bridge.folder.room().is_low() {
            return None;
        }
        self.bridge.publish(Link::DiskFull);
        Some(Outcome::Over { end: End::NoRoom, online: self.uptime.online(Instant::now()) })
    }

    fn ask_about(&mut self, group: Jid) {
        let now = Instant::now();
        let pause = match self.asked.get(&group) {
            Some((until, _)) if now < *until => return,
            Some((_, pause)) if !self.bridge.desk.told.knows(&inbound::chat(&group)) => {
                (*pause * 2).min(GROUP_ASKED_EACH_MAX)
            }
            Some(_) | None => GROUP_ASKED_EACH,
        };
        if self.uptime.line() == Line::Closed || self.errands.len() >= GROUPS_ASKED_MAX {
            return;
        }
        if self.asked.len() >= ASKED_REMEMBERED_MAX {
            self.asked.clear();
        }
        self.asked.insert(group.clone(), (now + pause, pause));
        self.errands.spawn(tell_group(self.library.client.clone(), self.bridge.desk.clone(), group));
    }

    fn plan_redelivery(&mut self) {
        let long_ago = self.not_stored.is_none_or(|at| at.elapsed() > 2 * REDELIVERY_PAUSE_MAX);
        if long_ago {
            self.redelivery_pause = REDELIVERY_PAUSE;
        }
        self.not_stored = Some(Instant::now());
        if self.redelivery.is_none() {
            self.redelivery = Some(Instant::now() + self.redelivery_pause);
            self.redelivery_pause = (self.redelivery_pause * 2).min(REDELIVERY_PAUSE_MAX);
        }
    }

    /// WhatsApp delivers again what was not acknowledged when the connection is a new one.
    fn ask_for_redelivery(&mut self) {
        self.redelivery = None;
        if self.bridge.desk.is_closed() {
            return;
        }
        let client = self.library.client.clone();
        self.errands.spawn(async move { client.reconnect_immediately().await });
    }

    async fn take_step(&mut self, step: Step, linking: &Linking) -> Option<Outcome> {
        match step {
            Step::Nothing => {}
            Step::Show(pairing) => {
                self.uptime.progresses(Instant::now());
                self.bridge.publish(Link::Pairing(pairing));
            }
            Step::AskForCode => {
                self.bridge.publish(Link::Pairing(Pairing::Asking));
                let (client, code) = (self.library.client.clone(), linking.code()?);
                // How it went, the library says by its signals.
                self.errands.spawn(async move { drop(client.pair_with_code(code).await) });
            }
            Step::Confirm => return self.confirm_passkey().await,
            Step::Fail(failure) => return Some(Outcome::Failed(failure)),
        }
        None
    }

    async fn on_answer(&mut self, said: Said) -> Option<Outcome> {
        match said {
            Said::Passkey(assertion) => {
                let sending = self.library.client.send_passkey_response(assertion);
                passkey_failure(timeout(PASSKEY_LIMIT, sending).await)
            }
            Said::SameCode => self.confirm_passkey().await,
        }
    }

    async fn confirm_passkey(&self) -> Option<Outcome> {
        let confirming = self.library.client.send_passkey_confirmation();
        passkey_failure(timeout(PASSKEY_LIMIT, confirming).await)
    }

    /// How long the person, or WhatsApp, may still take.
    fn time_left(&self, aim: &Aim) -> Option<Duration> {
        let Aim::Link(linking) = aim else { return None };
        Some(linking.time_left(self.bridge.settings.clock.now()))
    }

    fn on_limit(&mut self, aim: &Aim) -> Option<Outcome> {
        let Aim::Link(linking) = aim else { return None };
        if linking.has_agreed() {
            // The device is linked; what is missing comes with the service.
            return Some(Outcome::Stopped);
        }
        let shown = self.bridge.shown();
        Some(Outcome::Failed(linking.timed_out(&shown)))
    }
}

fn passkey_failure(done: Result<Result<(), PasskeyError>, Elapsed>) -> Option<Outcome> {
    match done {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Outcome::Failed(PairingFailure::Other(error.to_string()))),
        Err(_) => Some(Outcome::Failed(PairingFailure::Unreachable)),
    }
}

/// What the person who links a device says next.
async fn next_answer(aim: &mut Aim) -> Said {
    match aim {
        Aim::Link(linking) => linking.answer().await,
        Aim::Serve | Aim::Unlink => std::future::pending().await,
    }
}

/// Has the server forget this device.
async fn log_out(client: &Arc<Client>) -> Outcome {
    let Some(device) = client.pn() else { return Outcome::Reached };
    let asking = timeout(FORGETTING_LIMIT, client.execute(RemoveCompanionDeviceSpec::new(&device))).await;
    match asking.context("Failed to wait for WhatsApp").and_then(|answer| Ok(answer?)) {
        Ok(()) => Outcome::Reached,
        Err(error) => {
            tracing::warn!("WhatsApp did not confirm that the device is removed: {error:#}");
            Outcome::Over { end: End::Lost, online: None }
        }
    }
}

/// The next question to the phone begins a new session, in which the phone answers and goes on.
async fn forget_session_with_phone(client: Arc<Client>) {
    let phone =
        [client.pn(), client.lid()].into_iter().flatten().map(|jid| jid.to_non_ad()).collect::<Vec<_>>();
    if let Err(error) = client.signal().delete_sessions(&phone).await {
        tracing::warn!("Failed to begin a new session with your phone: {error}");
    }
}

/// How long nothing has come in.
fn silence(stats: &StatsSnapshot) -> Duration {
    let now = u64::try_from(now_millis()).unwrap_or_default();
    Duration::from_millis(now.saturating_sub(stats.last_data_received_ms))
}
