//! Runs the bridge: one run of the library after the other. When a run has ended by itself,
//! `reconnect_policy` says what follows: the next run after a backoff, or the end that only a person can
//! change.

use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client_loop::{RunAim, RunOutcome, run_client_once};
use super::key_folder::KeyFolder;
use super::linking::Linking;
use super::reconnect_policy::{
    DisconnectReason, GiveUpReason, ReconnectDecision, ReconnectPolicy, VersionSource,
};
use super::running_bridge::{DISK_SPACE_CHECK_EVERY, RunningBridge, WhatsAppBridge};
use super::{client, outbound};
use crate::bridge::channels::BridgeEnd;
use crate::types::{LinkState, Pairing, PairingFailure};

/// How long removing this device may take before it is done without the server.
const UNLINK_LIMIT: Duration = Duration::from_secs(45);

/// What a run of the bridge is for.
#[derive(Debug)]
pub enum BridgeTask {
    /// Carries messages, until the shutdown or a link state that only a person can change.
    Serve,
    /// Links an account, and ends when it is `Online` and its chats were told, or the pairing failed.
    LinkAccount {
        /// Digits with the country's code, for a pairing code instead of a QR code.
        phone: Option<String>,
        /// The answers of a passkey, as the browser's WebAuthn interface gives them, in JSON; then `yes` from
        /// the person, if the phone shows the same code.
        passkey: mpsc::Receiver<String>,
    },
    /// Removes this device from the account. `Unlinked` says that WhatsApp knows; any other state that only
    /// the keys were moved aside, and the phone still lists the device.
    Unlink,
}

impl WhatsAppBridge {
    /// Whether an account is linked; makes nothing.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn is_linked(&self) -> Result<bool> {
        client::has_linked_device(&KeyFolder::new(self.folder.clone())).await
    }

    /// Runs until `shutdown` resolves or the task is over; returns how the link stands then.
    ///
    /// # Errors
    /// The files of the link cannot be used.
    pub async fn run_bridge(
        self,
        end: BridgeEnd,
        task: BridgeTask,
        shutdown: impl Future<Output = ()>,
    ) -> Result<LinkState> {
        let mut shutdown = pin!(shutdown);
        let linked = self.is_linked().await;
        let mut bridge = RunningBridge::new(self, end)?;
        if let (BridgeTask::Unlink, Err(error)) = (&task, &linked) {
            tracing::warn!("{error:#}");
            return bridge.abandon_link("damaged");
        }
        let mut aim = match (task, linked?) {
            (BridgeTask::Serve | BridgeTask::Unlink, false) => {
                return Ok(bridge.publish_link(LinkState::Unlinked));
            }
            (BridgeTask::Serve, true) => RunAim::Serve,
            (BridgeTask::LinkAccount { .. }, true) => bail!("An account is linked already"),
            (BridgeTask::LinkAccount { phone, passkey }, false) => {
                let linking = Linking::new(phone, passkey, bridge.settings.clock.now());
                if !linking.has_plausible_phone() {
                    return Ok(bridge.publish_pairing_failure(PairingFailure::RefusedNumber));
                }
                RunAim::Link(linking)
            }
            (BridgeTask::Unlink, true) => {
                bridge.folder.prepare_folder()?;
                return bridge.unlink_device(&mut shutdown).await;
            }
        };
        bridge.folder.prepare_folder()?;
        bridge.run_with_reconnects(&mut aim, &mut shutdown).await
    }
}

impl RunningBridge {
    /// Runs the library until the aim is reached, somebody wants it to stop, or only a person can go on.
    async fn run_with_reconnects(
        &mut self,
        aim: &mut RunAim,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> Result<LinkState> {
        let mut policy = ReconnectPolicy::default();
        let mut version = VersionSource::Known;
        let mut ended_for_room = false;
        loop {
            // A run that has ended for want of room is not begun anew on the first few bytes.
            if matches!(aim, RunAim::Serve)
                && (ended_for_room || self.folder.min_free_disk_space().is_low())
                && self.wait_until_disk_has_space(shutdown).await == WaitResult::Interrupted
            {
                return Ok(self.current_link());
            }
            let fixed = match version {
                VersionSource::Known => None,
                VersionSource::Fresh => match self.http.fetch_version().await {
                    Ok(fresh) => Some(fresh),
                    Err(error) => {
                        tracing::warn!("Failed to look up which version WhatsApp wants: {error:#}");
                        let pause = policy.pause_after_failed_lookup();
                        if self.wait_refusing_orders(pause, shutdown).await == WaitResult::Interrupted {
                            return Ok(self.current_link());
                        }
                        continue;
                    }
                },
            };
            let (end, online) = match run_client_once(self, aim, fixed, shutdown).await? {
                RunOutcome::Stopped | RunOutcome::Reached => return Ok(self.current_link()),
                RunOutcome::Failed(failure) => return Ok(self.publish_pairing_failure(failure)),
                RunOutcome::Over { end, online } => (end, online),
            };
            if let (RunAim::Link(linking), false) = (&mut *aim, end == DisconnectReason::Outdated)
                && !linking.has_agreed()
            {
                if !client::has_linked_device(&self.folder).await? {
                    return Ok(self.publish_pairing_failure(pairing_failure_from(end)));
                }
                // The library keeps the link before it says that there is one.
                linking.on_pairing_signal(client::PairingSignal::Agreed, self.settings.clock.now());
                self.publish_link(LinkState::Pairing(Pairing::Agreed));
            }
            tracing::info!(?end, "The WhatsApp library has ended");
            ended_for_room = end == DisconnectReason::NoRoom;
            let next = policy.decide_reconnect(end, online, self.settings.clock.now());
            if let (Some(advice), false) =
                (end.advice_for_person(), matches!(next, ReconnectDecision::GiveUp(_)))
            {
                tracing::warn!("{advice}");
            }
            let after = match next {
                ReconnectDecision::GiveUp(given_up) => return self.give_up_link(given_up),
                ReconnectDecision::Again { after, version: next } => {
                    version = next;
                    self.publish_between_runs(aim, LinkState::Connecting);
                    after
                }
                // Nobody sits before a terminal that long.
                ReconnectDecision::AfterBan { until, .. } if matches!(aim, RunAim::Link(_)) => {
                    return Ok(self.publish_link(LinkState::Banned { until }));
                }
                ReconnectDecision::AfterBan { until, after } => {
                    self.publish_between_runs(aim, LinkState::Banned { until });
                    after
                }
            };
            let after = match &*aim {
                RunAim::Link(linking) => after.min(linking.time_left(self.settings.clock.now())),
                RunAim::Serve | RunAim::Unlink => after,
            };
            if self.wait_refusing_orders(after, shutdown).await == WaitResult::Interrupted {
                return Ok(self.current_link());
            }
            self.publish_between_runs(aim, LinkState::Connecting);
        }
    }

    /// Waits until the disk has room again.
    async fn wait_until_disk_has_space(
        &mut self,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> WaitResult {
        self.publish_link(LinkState::DiskFull);
        while !self.folder.min_free_disk_space().is_enough() {
            if self.wait_refusing_orders(DISK_SPACE_CHECK_EVERY, shutdown).await == WaitResult::Interrupted {
                return WaitResult::Interrupted;
            }
        }
        self.publish_link(LinkState::Connecting);
        WaitResult::ToTheEnd
    }

    /// Shows how the link stands between two runs, unless the person is being led through linking.
    fn publish_between_runs(&self, aim: &RunAim, link: LinkState) {
        match (aim, &link) {
            (RunAim::Link(linking), LinkState::Connecting) if !linking.has_agreed() => {}
            _ => drop(self.publish_link(link)),
        }
    }

    fn give_up_link(&mut self, given_up: GiveUpReason) -> Result<LinkState> {
        match given_up {
            GiveUpReason::LoggedOut => {
                let aside = self.folder.move_aside("logged-out", self.settings.clock.now())?;
                tracing::warn!("The link was removed; its keys were moved to {}", aside.display());
            }
            GiveUpReason::Replaced | GiveUpReason::Outdated => {}
        }
        Ok(self.publish_link(given_up.final_link()))
    }

    async fn unlink_device(
        &mut self,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> Result<LinkState> {
        let mut aim = RunAim::Unlink;
        let limit = async {
            tokio::select! {
                () = &mut *shutdown => {}
                () = sleep(UNLINK_LIMIT) => {}
            }
        };
        match run_client_once(self, &mut aim, None, &mut pin!(limit)).await {
            Ok(RunOutcome::Reached | RunOutcome::Over { end: DisconnectReason::LoggedOut, .. }) => {
                self.folder.remove_keys()?;
                Ok(self.publish_link(LinkState::Unlinked))
            }
            Ok(RunOutcome::Stopped | RunOutcome::Failed(_) | RunOutcome::Over { .. }) => {
                self.abandon_link("unlinked")
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                self.abandon_link("damaged")
            }
        }
    }

    /// Ends a link that WhatsApp could not be told of.
    fn abandon_link(&mut self, why: &str) -> Result<LinkState> {
        let aside = self.folder.move_aside(why, self.settings.clock.now())?;
        tracing::warn!("WhatsApp was not reached; the link's keys were moved to {}", aside.display());
        Ok(self.publish_link(LinkState::Connecting))
    }

    /// Waits without leaving orders unanswered.
    async fn wait_refusing_orders(
        &mut self,
        time: Duration,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> WaitResult {
        let over = sleep(time);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut *shutdown => return WaitResult::Interrupted,
                () = &mut over => return WaitResult::ToTheEnd,
                order = self.orders.recv() => match order {
                    Some(order) => outbound::refuse_order(order),
                    None => return WaitResult::Interrupted,
                },
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitResult {
    ToTheEnd,
    /// Somebody wants the bridge to stop, or nobody is there any more.
    Interrupted,
}

/// Why a device that is not linked yet was not let in.
fn pairing_failure_from(end: DisconnectReason) -> PairingFailure {
    match end {
        DisconnectReason::Lost => PairingFailure::Unreachable,
        DisconnectReason::Banned { .. } => PairingFailure::Throttled,
        DisconnectReason::Refused { reason } => {
            PairingFailure::Other(format!("WhatsApp refuses the login ({reason})"))
        }
        DisconnectReason::Storage | DisconnectReason::NoRoom => {
            PairingFailure::Other("the link could not be stored".to_owned())
        }
        DisconnectReason::Replaced | DisconnectReason::LoggedOut | DisconnectReason::Outdated => {
            PairingFailure::Other("WhatsApp ended the connection".to_owned())
        }
    }
}
