//! One run of the library from its start to its end: its signals become link states, orders go out, the
//! person is led through linking. One task owns all of it; work that takes time is a task beside it. WhatsApp
//! is made to deliver again what was not stored, with a backoff; redelivery is idempotent, since intake knows
//! each message by its id.

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

use super::client::{ClientRun, ClientSignal};
use super::inbound;
use super::initial_sync::{InitialSync, announce_group, run_initial_sync};
use super::intake_sink::{IntakeSink, StoreResult};
use super::linking::{Linking, LinkingStep, PasskeyAnswer};
use super::liveness::Liveness;
use super::notes::UnreadNotes;
use super::outbound::{Outbound, SendGate};
use super::presence::PresenceUpdate;
use super::reconnect_policy::DisconnectReason;
use super::running_bridge::{DISK_SPACE_CHECK_EVERY, RunningBridge};
use crate::types::{Event, LinkState, Pairing, PairingFailure};

/// How long the library may take to stop: it flushes for up to 15 s when the network hangs.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often the connection is checked.
const LIVENESS_CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often intake is told all groups.
const GROUPS_SYNC_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The first pause before WhatsApp is made to deliver again what was not stored; it doubles.
const REDELIVERY_PAUSE: Duration = Duration::from_secs(5);
const REDELIVERY_PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long WhatsApp may take over a passkey's answer. Nothing else goes on meanwhile.
const PASSKEY_LIMIT: Duration = Duration::from_secs(20);
/// Events that wait for intake; if an answer of WhatsApp's is left out, its message is sent again.
const EVENTS_WAITING_MAX: usize = 1024;
/// How long the last events may take at the end.
const LAST_EVENTS_LIMIT: Duration = Duration::from_secs(2);
/// How long WhatsApp may take to forget this device. Nothing else goes on meanwhile, not even a shutdown.
const LOG_OUT_LIMIT: Duration = Duration::from_secs(20);
/// Groups that are asked about at the same time, and the pause before the same group is asked about again. It
/// doubles while WhatsApp does not say how the group is called.
const GROUPS_ASKED_MAX: usize = 4;
const GROUP_ASK_PAUSE: Duration = Duration::from_secs(30);
const GROUP_ASK_PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Groups of which it is remembered that they were asked about.
const ASKED_REMEMBERED_MAX: usize = 1000;

/// Messages of the own phone that cannot be read, one after the other, after which its session counts as
/// broken: one may be damaged, and another still on its way when the first is asked for.
const OWN_PHONE_UNREAD_MAX: u32 = 3;

/// What a run is for.
#[derive(Debug)]
pub enum RunAim {
    Serve,
    Link(Linking),
    Unlink,
}

/// How a run has ended.
#[derive(Debug)]
pub enum RunOutcome {
    /// Somebody wanted it to stop.
    Stopped,
    /// It has reached its aim.
    Reached,
    Failed(PairingFailure),
    /// It ended by itself; `online` is how long it was online.
    Over {
        end: DisconnectReason,
        online: Option<Duration>,
    },
}

/// Runs the library once.
///
/// # Errors
/// The files of the link cannot be used.
pub async fn run_client_once(
    bridge: &mut RunningBridge,
    aim: &mut RunAim,
    version: Option<(u32, u32, u32)>,
    shutdown: &mut Pin<&mut impl Future<Output = ()>>,
) -> Result<RunOutcome> {
    if let RunAim::Link(linking) = aim
        && let LinkingStep::Show(pairing) = linking.on_connection_lost(bridge.settings.clock.now())
    {
        bridge.publish_link(LinkState::Pairing(pairing));
    }
    let (url, http, intake) = (bridge.settings.url.clone(), bridge.http.clone(), bridge.intake.clone());
    let client_run =
        ClientRun::start_client(&bridge.folder, url.as_deref(), http, intake.clone(), version).await?;
    let (event_sender, event_receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let (note_sender, note_receiver) = mpsc::unbounded_channel();
    let mut forwarders = JoinSet::new();
    forwarders.spawn(store_unread_notes(intake.clone(), client_run.notes.clone(), note_receiver));
    forwarders.spawn(forward_events(intake, event_receiver));
    let (presence, clock) = (bridge.settings.presence, bridge.settings.clock);
    let outbound = Outbound::new(client_run.client.clone(), presence, clock, event_sender.clone());
    let mut running = ClientLoop {
        bridge,
        client_run,
        outbound,
        event_sender,
        note_sender,
        initial_syncs: JoinSet::new(),
        side_tasks: JoinSet::new(),
        liveness: Liveness::new_closed(Instant::now()),
        end: None,
        redelivery: None,
        redelivery_pause: REDELIVERY_PAUSE,
        not_stored: None,
        asked_groups: HashMap::new(),
        own_phone_unread: 0,
    };
    let outcome = running.run_until_outcome(aim, shutdown).await;
    let ClientLoop { client_run, outbound, event_sender, note_sender, initial_syncs, side_tasks, .. } =
        running;
    drop((outbound, initial_syncs, side_tasks));
    let ClientRun { bot_handle: running, mut signals, .. } = client_run;
    // Flushes what the library still holds in memory, also after it has ended by itself.
    let stopping = async {
        let mut stopping = pin!(running.shutdown());
        loop {
            tokio::select! {
                () = &mut stopping => return,
                // What it acknowledges meanwhile waits for that.
                Some(signal) = signals.recv() => forward_late_signal(signal, &event_sender, &note_sender),
            }
        }
    };
    if timeout(STOP_LIMIT, stopping).await.is_err() {
        tracing::warn!("The WhatsApp library does not stop; ending it");
    }
    while let Ok(signal) = signals.try_recv() {
        forward_late_signal(signal, &event_sender, &note_sender);
    }
    drop((event_sender, note_sender));
    let all_forwarded = async { while forwarders.join_next().await.is_some() {} };
    timeout(LAST_EVENTS_LIMIT, all_forwarded).await.ok();
    Ok(outcome)
}

/// What intake is told of a signal that came after the run's end.
fn forward_late_signal(
    signal: ClientSignal,
    event_sender: &mpsc::Sender<Vec<Event>>,
    note_sender: &mpsc::UnboundedSender<Vec<Event>>,
) {
    match signal {
        ClientSignal::Events(events) => drop(event_sender.try_send(events)),
        ClientSignal::Unread { noted, .. } => drop(note_sender.send(vec![*noted])),
        ClientSignal::Unavailable(events) => drop(note_sender.send(events)),
        ClientSignal::Connected
        | ClientSignal::Disconnected
        | ClientSignal::Pairing(_)
        | ClientSignal::Ends(_)
        | ClientSignal::Hash { .. }
        | ClientSignal::GroupsChanged(_)
        | ClientSignal::Named
        | ClientSignal::OwnPhoneRead => {}
    }
}

/// Has intake store what nobody could read, one after the other: until then nothing leaves to WhatsApp.
async fn store_unread_notes(
    intake: IntakeSink,
    notes: UnreadNotes,
    mut note_receiver: mpsc::UnboundedReceiver<Vec<Event>>,
) {
    while let Some(events) = note_receiver.recv().await {
        match intake.submit_with_retry(events).await {
            StoreResult::Stored => notes.mark_stored(),
            StoreResult::NotStored => notes.mark_lost(),
        }
    }
}

/// Tells intake what WhatsApp does not deliver twice.
async fn forward_events(intake: IntakeSink, mut event_receiver: mpsc::Receiver<Vec<Event>>) {
    while let Some(events) = event_receiver.recv().await {
        if events.iter().all(may_be_lost) {
            intake.submit_unconfirmed(events).await;
        } else {
            // If intake did not take it, the service is stopping.
            intake.submit_with_retry(events).await;
        }
    }
}

/// Whether losing an event costs only a little time: a message without WhatsApp's answer is sent again, and
/// with the next message a device says again what it has.
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

struct ClientLoop<'a> {
    bridge: &'a mut RunningBridge,
    client_run: ClientRun,
    outbound: Outbound,
    event_sender: mpsc::Sender<Vec<Event>>,
    note_sender: mpsc::UnboundedSender<Vec<Event>>,
    /// The initial sync of the newest connection.
    initial_syncs: JoinSet<InitialSync>,
    side_tasks: JoinSet<()>,
    liveness: Liveness,
    /// Why the library is about to end.
    end: Option<DisconnectReason>,
    /// When WhatsApp is to deliver again what was not stored.
    redelivery: Option<Instant>,
    redelivery_pause: Duration,
    /// When it was last found that something was not stored.
    not_stored: Option<Instant>,
    /// Groups whose names were asked for: the time at which they may be asked for again, and the pause until
    /// then.
    asked_groups: HashMap<Jid, (Instant, Duration)>,
    /// Messages of the own phone that could not be read, one after the other.
    own_phone_unread: u32,
}

impl ClientLoop<'_> {
    async fn run_until_outcome(
        &mut self,
        aim: &mut RunAim,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> RunOutcome {
        let mut look = interval(LIVENESS_CHECK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut space_look = interval(DISK_SPACE_CHECK_EVERY);
        space_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let redelivery_wanted = self.bridge.intake.redelivery.clone();
        loop {
            let redelivery = self.redelivery;
            let limit = self.time_left(aim);
            let done = tokio::select! {
                biased;
                () = &mut *shutdown => Some(RunOutcome::Stopped),
                Some(signal) = self.client_run.signals.recv() => self.on_signal(signal, aim).await,
                fault = self.client_run.fault.wait_for_fault() => Some(self.on_storage_fault(&fault, aim)),
                () = &mut self.client_run.bot_handle => Some(self.outcome_after_end()),
                Some(synced) = self.initial_syncs.join_next() => self.on_initial_sync_done(synced.ok(), aim),
                order = self.bridge.orders.recv() => match order {
                    Some(order) => { self.outbound.handle_order(order, self.liveness.send_gate()); None }
                    None => Some(RunOutcome::Stopped),
                },
                () = self.outbound.wait_for_finished_send() => None,
                Some(_) = self.side_tasks.join_next() => None,
                answer = next_person_answer(aim) => self.on_passkey_answer(answer).await,
                () = redelivery_wanted.notified() => { self.schedule_redelivery(); None }
                () = sleep_until(redelivery.unwrap_or_else(Instant::now)), if redelivery.is_some() => {
                    self.request_redelivery();
                    None
                }
                () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => self.on_linking_timeout(aim),
                _ = look.tick() => self.check_liveness(aim),
                _ = space_look.tick() => self.check_disk_space(aim),
            };
            if let Some(outcome) = done {
                return outcome;
            }
        }
    }

    async fn on_signal(&mut self, signal: ClientSignal, aim: &mut RunAim) -> Option<RunOutcome> {
        match signal {
            ClientSignal::Connected => return self.on_connected(aim).await,
            ClientSignal::Disconnected => {
                self.on_disconnected(aim);
                let RunAim::Link(linking) = aim else { return None };
                let step = linking.on_connection_lost(self.bridge.settings.clock.now());
                return self.apply_linking_step(step, linking).await;
            }
            ClientSignal::Ends(end) => {
                self.end = Some(end);
                self.on_disconnected(aim);
            }
            ClientSignal::Pairing(signal) => {
                let RunAim::Link(linking) = aim else { return None };
                let step = linking.on_pairing_signal(signal, self.bridge.settings.clock.now());
                return self.apply_linking_step(step, linking).await;
            }
            ClientSignal::Events(events) => {
                if self.event_sender.try_send(events).is_err() {
                    tracing::warn!("Intake is far behind: left out what WhatsApp answered");
                }
            }
            ClientSignal::Hash { id, hash } => self.outbound.on_server_ack(&id, hash.as_deref()),
            ClientSignal::GroupsChanged(groups) => {
                for group in groups {
                    self.request_group_name(group);
                }
            }
            ClientSignal::Named => {
                self.outbound.queue_presence_update(PresenceUpdate::Named);
                if self.liveness.send_gate() == SendGate::Open {
                    self.start_initial_sync(InitialSync::Account);
                }
            }
            ClientSignal::OwnPhoneRead => self.own_phone_unread = 0,
            ClientSignal::Unread { noted, by_own_phone } => self.on_unread(*noted, by_own_phone),
            ClientSignal::Unavailable(events) => drop(self.note_sender.send(events)),
        }
        None
    }

    fn on_unread(&mut self, noted: Event, by_own_phone: bool) {
        self.note_sender.send(vec![noted]).ok();
        if !by_own_phone {
            tracing::warn!("A message could not be read; its author and your phone are asked for it");
            return;
        }
        tracing::warn!("A message of your own phone could not be read; the phone is asked for it");
        self.own_phone_unread += 1;
        if self.own_phone_unread >= OWN_PHONE_UNREAD_MAX {
            self.own_phone_unread = 0;
            tracing::warn!("Nothing of your own phone's can be read: beginning a new session with it");
            self.side_tasks.spawn(reset_phone_session(self.client_run.client.clone()));
        }
    }

    /// The library is logged in, for the first time or once more.
    async fn on_connected(&mut self, aim: &mut RunAim) -> Option<RunOutcome> {
        self.on_disconnected(aim);
        self.liveness.restart_patience(Instant::now());
        if let RunAim::Unlink = aim {
            return Some(log_out_device(&self.client_run.client).await);
        }
        let recently_announced =
            self.bridge.groups_announced.is_some_and(|at| at.elapsed() < GROUPS_SYNC_EVERY);
        self.start_initial_sync(if recently_announced {
            InitialSync::Account
        } else {
            InitialSync::AccountAndGroups
        });
        self.outbound.queue_presence_update(PresenceUpdate::Connected);
        None
    }

    fn start_initial_sync(&mut self, sync: InitialSync) {
        self.initial_syncs.abort_all();
        self.initial_syncs.detach_all();
        self.initial_syncs.spawn(run_initial_sync(
            self.client_run.client.clone(),
            self.bridge.intake.clone(),
            sync,
        ));
    }

    /// Intake knows whose link this is. From here on orders are carried out.
    fn on_initial_sync_done(&mut self, synced: Option<InitialSync>, aim: &RunAim) -> Option<RunOutcome> {
        if synced == Some(InitialSync::AccountAndGroups) {
            self.bridge.groups_announced = Some(Instant::now());
        }
        if synced.is_none() || self.end.is_some() {
            return None;
        }
        self.liveness.mark_open(Instant::now());
        self.bridge.publish_link(LinkState::Online);
        match aim {
            RunAim::Link(_) => Some(RunOutcome::Reached),
            RunAim::Serve | RunAim::Unlink => None,
        }
    }

    /// The connection is gone, or the initial sync of a new one is not done yet.
    fn on_disconnected(&mut self, aim: &RunAim) {
        self.initial_syncs.abort_all();
        self.initial_syncs.detach_all();
        self.liveness.mark_closed(Instant::now());
        match aim {
            // The person sees how the linking stands instead.
            RunAim::Link(_) => {}
            RunAim::Serve | RunAim::Unlink => drop(self.bridge.publish_link(LinkState::Connecting)),
        }
    }

    /// What the library holds in memory ends here: the database has refused to keep it.
    fn on_storage_fault(&mut self, fault: &str, aim: &RunAim) -> RunOutcome {
        self.on_disconnected(aim);
        tracing::warn!(
            "The link's database failed: {fault}. Nothing is lost: WhatsApp delivers again what is not stored"
        );
        RunOutcome::Over { end: DisconnectReason::Storage, online: self.liveness.online_time(Instant::now()) }
    }

    /// The library has ended; it may have said why just before.
    fn outcome_after_end(&mut self) -> RunOutcome {
        while let Ok(signal) = self.client_run.signals.try_recv() {
            if let ClientSignal::Ends(end) = signal {
                self.end = Some(end);
            } else {
                forward_late_signal(signal, &self.event_sender, &self.note_sender);
            }
        }
        RunOutcome::Over {
            end: self.end.unwrap_or(DisconnectReason::Lost),
            online: self.liveness.online_time(Instant::now()),
        }
    }

    /// Ends the run if the connection is dead.
    fn check_liveness(&mut self, aim: &RunAim) -> Option<RunOutcome> {
        let linked = match aim {
            RunAim::Link(linking) => linking.has_agreed(),
            RunAim::Serve | RunAim::Unlink => true,
        };
        let (now, stats) = (Instant::now(), self.client_run.client.stats());
        if !linked || !self.liveness.is_dead(now, time_since_data(&stats), stats.reconnect_errors) {
            return None;
        }
        tracing::warn!("The connection to WhatsApp is dead, beginning anew");
        self.on_disconnected(aim);
        Some(RunOutcome::Over { end: DisconnectReason::Lost, online: self.liveness.online_time(now) })
    }

    /// Goes offline before anything fails for want of room.
    fn check_disk_space(&self, aim: &RunAim) -> Option<RunOutcome> {
        let serves = matches!(aim, RunAim::Serve);
        if !serves || !self.bridge.folder.min_free_disk_space().is_low() {
            return None;
        }
        self.bridge.publish_link(LinkState::DiskFull);
        Some(RunOutcome::Over {
            end: DisconnectReason::NoRoom,
            online: self.liveness.online_time(Instant::now()),
        })
    }

    fn request_group_name(&mut self, group: Jid) {
        let now = Instant::now();
        let pause = match self.asked_groups.get(&group) {
            Some((until, _)) if now < *until => return,
            Some((_, pause))
                if !self.bridge.intake.announced.knows_chat_name(&inbound::to_chat_id(&group)) =>
            {
                (*pause * 2).min(GROUP_ASK_PAUSE_MAX)
            }
            Some(_) | None => GROUP_ASK_PAUSE,
        };
        if self.liveness.send_gate() == SendGate::Closed || self.side_tasks.len() >= GROUPS_ASKED_MAX {
            return;
        }
        if self.asked_groups.len() >= ASKED_REMEMBERED_MAX {
            self.asked_groups.clear();
        }
        self.asked_groups.insert(group.clone(), (now + pause, pause));
        self.side_tasks.spawn(announce_group(
            self.client_run.client.clone(),
            self.bridge.intake.clone(),
            group,
        ));
    }

    fn schedule_redelivery(&mut self) {
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
    fn request_redelivery(&mut self) {
        self.redelivery = None;
        if self.bridge.intake.is_closed() {
            return;
        }
        let client = self.client_run.client.clone();
        self.side_tasks.spawn(async move { client.reconnect_immediately().await });
    }

    async fn apply_linking_step(&mut self, step: LinkingStep, linking: &Linking) -> Option<RunOutcome> {
        match step {
            LinkingStep::Nothing => {}
            LinkingStep::Show(pairing) => {
                self.liveness.restart_patience(Instant::now());
                self.bridge.publish_link(LinkState::Pairing(pairing));
            }
            LinkingStep::AskForCode => {
                self.bridge.publish_link(LinkState::Pairing(Pairing::Asking));
                let (client, code) = (self.client_run.client.clone(), linking.pair_code_options()?);
                // The library's signals say how it went.
                self.side_tasks.spawn(async move { drop(client.pair_with_code(code).await) });
            }
            LinkingStep::Confirm => return self.confirm_passkey().await,
            LinkingStep::Fail(failure) => return Some(RunOutcome::Failed(failure)),
        }
        None
    }

    async fn on_passkey_answer(&mut self, answer: PasskeyAnswer) -> Option<RunOutcome> {
        match answer {
            PasskeyAnswer::Passkey(assertion) => {
                let sending = self.client_run.client.send_passkey_response(assertion);
                passkey_failure(timeout(PASSKEY_LIMIT, sending).await)
            }
            PasskeyAnswer::SameCode => self.confirm_passkey().await,
        }
    }

    async fn confirm_passkey(&self) -> Option<RunOutcome> {
        let confirming = self.client_run.client.send_passkey_confirmation();
        passkey_failure(timeout(PASSKEY_LIMIT, confirming).await)
    }

    /// How long the person, or WhatsApp, may still take.
    fn time_left(&self, aim: &RunAim) -> Option<Duration> {
        let RunAim::Link(linking) = aim else { return None };
        Some(linking.time_left(self.bridge.settings.clock.now()))
    }

    fn on_linking_timeout(&mut self, aim: &RunAim) -> Option<RunOutcome> {
        let RunAim::Link(linking) = aim else { return None };
        if linking.has_agreed() {
            // The device is linked; what is missing comes with the service.
            return Some(RunOutcome::Stopped);
        }
        let shown = self.bridge.current_pairing();
        Some(RunOutcome::Failed(linking.timeout_failure(&shown)))
    }
}

fn passkey_failure(done: Result<Result<(), PasskeyError>, Elapsed>) -> Option<RunOutcome> {
    match done {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(RunOutcome::Failed(PairingFailure::Other(error.to_string()))),
        Err(_) => Some(RunOutcome::Failed(PairingFailure::Unreachable)),
    }
}

/// What the person who links a device says next.
async fn next_person_answer(aim: &mut RunAim) -> PasskeyAnswer {
    match aim {
        RunAim::Link(linking) => linking.next_passkey_answer().await,
        RunAim::Serve | RunAim::Unlink => std::future::pending().await,
    }
}

/// Has the server forget this device.
async fn log_out_device(client: &Arc<Client>) -> RunOutcome {
    let Some(device) = client.pn() else { return RunOutcome::Reached };
    let asking = timeout(LOG_OUT_LIMIT, client.execute(RemoveCompanionDeviceSpec::new(&device))).await;
    match asking.context("Failed to wait for WhatsApp").and_then(|answer| Ok(answer?)) {
        Ok(()) => RunOutcome::Reached,
        Err(error) => {
            tracing::warn!("WhatsApp did not confirm that the device is removed: {error:#}");
            RunOutcome::Over { end: DisconnectReason::Lost, online: None }
        }
    }
}

/// The next question to the phone begins a new session, in which the phone answers and goes on.
async fn reset_phone_session(client: Arc<Client>) {
    let phone =
        [client.pn(), client.lid()].into_iter().flatten().map(|jid| jid.to_non_ad()).collect::<Vec<_>>();
    if let Err(error) = client.signal().delete_sessions(&phone).await {
        tracing::warn!("Failed to begin a new session with your phone: {error}");
    }
}

/// How long nothing has come in.
fn time_since_data(stats: &StatsSnapshot) -> Duration {
    let now = u64::try_from(now_millis()).unwrap_or_default();
    Duration::from_millis(now.saturating_sub(stats.last_data_received_ms))
}
