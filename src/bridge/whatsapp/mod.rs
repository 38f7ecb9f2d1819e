//! The bridge to WhatsApp: the only module that speaks to whatsapp-rust.
//!
//! ```text
//!            run ─► running: one run of the library, again and again as `policy` says
//!                      │
//! WhatsApp ─► library ─┼─► hook ─► inbound, contents ─► intake       messages, before WhatsApp is told
//!    fault ◄─ storage ◄─┤   arrivals ──► unread ───► intake           what is on disk before what
//!                      ├─► greeting, told ────────────► intake       the account, chats, who is who
//!                      ├─► linking ───────────────────► the link     codes, passkeys
//! WhatsApp ◄───────────┴── outbound ─► sessions, letter, media, courtesies ◄── the service's orders
//! ```
//! Never logs what was written, or by whom. Keeps nothing but the library's own files, in `folder`.

mod arrivals;
mod contents;
mod courtesies;
mod fault;
mod files;
mod folder;
mod greeting;
mod hook;
mod http;
mod inbound;
mod kinds;
mod letter;
mod library;
mod linking;
mod media;
mod notes;
mod offers;
mod outbound;
mod policy;
mod running;
mod sessions;
mod storage;
mod told;
mod unread;
mod uptime;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use self::folder::Folder;
use self::hook::Desk;
use self::http::Web;
use self::linking::Linking;
use self::policy::{End, GivenUp, Next, Policy, Version};
use self::running::{Aim, Outcome};
use super::{BridgeEnd, Link, Order};
use crate::clock::Clock;
use crate::types::{Pairing, PairingFailure};

/// How often it is looked how much room the disk has.
const ROOM_LOOK_EACH: Duration = Duration::from_secs(5);
/// How long removing this device may take before it is done without the server.
const UNLINK_LIMIT: Duration = Duration::from_secs(45);

/// What the bridge needs to know.
#[derive(Clone, Debug)]
pub struct WhatsApp {
    /// The keys of the link, in a folder of their own (0700).
    pub folder: PathBuf,
    /// `ws://127.0.0.1:…` of a test's own server; WhatsApp's, where there is none.
    pub url: Option<String>,
    pub presence: Presence,
    pub clock: Clock,
}

/// Whether the account shows itself online all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Kai shares the owner's number: unavailable but for typing, so that the phone keeps its notifications.
    Hidden,
    /// Kai has a number of its own.
    Shown,
}

/// What a run of the bridge is for.
#[derive(Debug)]
pub enum Task {
    /// Carries messages, until the shutdown or a link state that only a person can change.
    Serve,
    /// Links an account, and ends when it is `Online` and its chats were told, or the pairing failed.
    LinkAccount {
        /// Digits with the country's code, for a pairing code instead of a QR code.
        phone: Option<String>,
        /// The answers of a passkey, as the browser's WebAuthn interface gives them, in JSON; then `yes` from whoever
        /// sees that the phone shows the same code.
        passkey: mpsc::Receiver<String>,
    },
    /// Removes this device from the account. `Unlinked` says that WhatsApp knows; any other state that only the
    /// keys were moved aside, and the phone still lists the device.
    Unlink,
}

impl WhatsApp {
    /// Whether an account is linked; makes nothing.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn is_linked(&self) -> Result<bool> {
        library::is_linked(&Folder::new(self.folder.clone())).await
    }

    /// Runs until `shutdown` resolves or the task is over; returns how the link stands then.
    ///
    /// # Errors
    /// The files of the link cannot be used.
    pub async fn run(self, end: BridgeEnd, task: Task, shutdown: impl Future<Output = ()>) -> Result<Link> {
        let mut shutdown = pin!(shutdown);
        let linked = self.is_linked().await;
        let mut bridge = Bridge::new(self, end)?;
        if let (Task::Unlink, Err(error)) = (&task, &linked) {
            tracing::warn!("{error:#}");
            return bridge.leave_behind("damaged");
        }
        let mut aim = match (task, linked?) {
            (Task::Serve | Task::Unlink, false) => return Ok(bridge.publish(Link::Unlinked)),
            (Task::Serve, true) => Aim::Serve,
            (Task::LinkAccount { .. }, true) => bail!("An account is linked already"),
            (Task::LinkAccount { phone, passkey }, false) => {
                let linking = Linking::new(phone, passkey, bridge.settings.clock.now());
                if !linking.phone_is_plausible() {
                    return Ok(bridge.fail(PairingFailure::RefusedNumber));
                }
                Aim::Link(linking)
            }
            (Task::Unlink, true) => {
                bridge.folder.prepare()?;
                return bridge.unlink(&mut shutdown).await;
            }
        };
        bridge.folder.prepare()?;
        bridge.keep_running(&mut aim, &mut shutdown).await
    }
}

/// The bridge while it runs, whichever run of the library it is at.
struct Bridge {
    settings: WhatsApp,
    folder: Folder,
    web: Web,
    desk: Desk,
    orders: mpsc::Receiver<Order>,
    link: watch::Sender<Link>,
    /// When intake was told of all groups.
    groups_told: Option<Instant>,
}

impl Bridge {
    fn new(settings: WhatsApp, end: BridgeEnd) -> Result<Self> {
        let folder = Folder::new(settings.folder.clone());
        Ok(Self {
            web: Web::new(&folder, settings.url.as_deref())?,
            desk: Desk::new(end.batches),
            orders: end.orders,
            link: end.link,
            groups_told: None,
            folder,
            settings,
        })
    }

    /// Runs the library until the aim is reached, somebody wants it to stop, or only a person can go on.
    async fn keep_running(
        &mut self,
        aim: &mut Aim,
        shutdown: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Link> {
        let mut policy = Policy::default();
        let mut version = Version::Known;
        let mut ended_for_room = false;
        loop {
            // A run that has ended for want of room is not begun anew on the first few bytes.
            if matches!(aim, Aim::Serve)
                && (ended_for_room || self.folder.room().is_low())
                && self.wait_for_room(shutdown).await == Waited::Interrupted
            {
                return Ok(self.standing());
            }
            let fixed = match version {
                Version::Known => None,
                Version::Fresh => match self.web.version().await {
                    Ok(fresh) => Some(fresh),
                    Err(error) => {
                        tracing::warn!("Failed to look up which version WhatsApp wants: {error:#}");
                        let pause = policy.not_updated();
                        if self.wait(pause, shutdown).await == Waited::Interrupted {
                            return Ok(self.standing());
                        }
                        continue;
                    }
                },
            };
            let (end, online) = match running::run(self, aim, fixed, shutdown).await? {
                Outcome::Stopped | Outcome::Reached => return Ok(self.standing()),
                Outcome::Failed(failure) => return Ok(self.fail(failure)),
                Outcome::Over { end, online } => (end, online),
            };
            if let (Aim::Link(linking), false) = (&mut *aim, end == End::Outdated)
                && !linking.has_agreed()
            {
                if !library::is_linked(&self.folder).await? {
                    return Ok(self.fail(unlinked_end(end)));
                }
                // The library keeps the link before it says that there is one.
                linking.on(library::PairingSignal::Agreed, self.settings.clock.now());
                self.publish(Link::Pairing(Pairing::Agreed));
            }
            tracing::info!(?end, "The WhatsApp library has ended");
            ended_for_room = end == End::NoRoom;
            let next = policy.after(end, online, self.settings.clock.now());
            if let (Some(advice), false) = (end.advice(), matches!(next, Next::GiveUp(_))) {
                tracing::warn!("{advice}");
            }
            let after = match next {
                Next::GiveUp(given_up) => return self.give_up(given_up),
                Next::Again { after, version: next } => {
                    version = next;
                    self.stand_by(aim, Link::Connecting);
                    after
                }
                // Nobody sits before a terminal that long.
                Next::AfterBan { until, .. } if matches!(aim, Aim::Link(_)) => {
                    return Ok(self.publish(Link::Banned { until }));
                }
                Next::AfterBan { until, after } => {
                    self.stand_by(aim, Link::Banned { until });
                    after
                }
            };
            let after = match &*aim {
                Aim::Link(linking) => after.min(linking.time_left(self.settings.clock.now())),
                Aim::Serve | Aim::Unlink => after,
            };
            if self.wait(after, shutdown).await == Waited::Interrupted {
                return Ok(self.standing());
            }
            self.stand_by(aim, Link::Connecting);
        }
    }

    /// Waits until the disk has room again.
    async fn wait_for_room(&mut self, shutdown: &mut Pin<&mut impl Future<Output = ()>>) -> Waited {
        self.publish(Link::DiskFull);
        while !self.folder.room().is_enough() {
            if self.wait(ROOM_LOOK_EACH, shutdown).await == Waited::Interrupted {
                return Waited::Interrupted;
            }
        }
        self.publish(Link::Connecting);
        Waited::ToTheEnd
    }

    /// Shows how the link stands between two runs, unless the person is being led through linking.
    fn stand_by(&self, aim: &Aim, link: Link) {
        match (aim, &link) {
            (Aim::Link(linking), Link::Connecting) if !linking.has_agreed() => {}
            _ => drop(self.publish(link)),
        }
    }

    fn give_up(&mut self, given_up: GivenUp) -> Result<Link> {
        match given_up {
            GivenUp::LoggedOut => {
                let aside = self.folder.move_aside("logged-out", self.settings.clock.now())?;
                tracing::warn!("The link was removed; its keys were moved to {}", aside.display());
            }
            GivenUp::Replaced | GivenUp::Outdated => {}
        }
        Ok(self.publish(given_up.link()))
    }

    async fn unlink(&mut self, shutdown: &mut Pin<&mut impl Future<Output = ()>>) -> Result<Link> {
        let mut aim = Aim::Unlink;
        let limit = async {
            tokio::select! {
                () = &mut *shutdown => {}
                () = sleep(UNLINK_LIMIT) => {}
            }
        };
        match running::run(self, &mut aim, None, &mut pin!(limit)).await {
            Ok(Outcome::Reached | Outcome::Over { end: End::LoggedOut, .. }) => {
                self.folder.remove()?;
                Ok(self.publish(Link::Unlinked))
            }
            Ok(Outcome::Stopped | Outcome::Failed(_) | Outcome::Over { .. }) => self.leave_behind("unlinked"),
            Err(error) => {
                tracing::warn!("{error:#}");
                self.leave_behind("damaged")
            }
        }
    }

    /// Ends a link that WhatsApp could not be told of.
    fn leave_behind(&mut self, why: &str) -> Result<Link> {
        let aside = self.folder.move_aside(why, self.settings.clock.now())?;
        tracing::warn!("WhatsApp was not reached; the link's keys were moved to {}", aside.display());
        Ok(self.publish(Link::Connecting))
    }

    /// Waits without leaving orders unanswered.
    async fn wait(&mut self, time: Duration, shutdown: &mut Pin<&mut impl Future<Output = ()>>) -> Waited {
        let over = sleep(time);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut *shutdown => return Waited::Interrupted,
                () = &mut over => return Waited::ToTheEnd,
                order = self.orders.recv() => match order {
                    Some(order) => outbound::later(order),
                    None => return Waited::Interrupted,
                },
            }
        }
    }

    fn fail(&self, failure: PairingFailure) -> Link {
        self.publish(Link::Pairing(Pairing::Failed(failure)))
    }

    fn publish(&self, link: Link) -> Link {
        self.link.send_if_modified(|standing| {
            let changed = *standing != link;
            standing.clone_from(&link);
            changed
        });
        link
    }

    fn standing(&self) -> Link {
        self.link.borrow().clone()
    }

    /// What the person who links a device sees now.
    fn shown(&self) -> Pairing {
        match self.standing() {
            Link::Pairing(pairing) => pairing,
            Link::Unlinked
            | Link::Connecting
            | Link::Online
            | Link::Replaced
            | Link::LoggedOut
            | Link::Banned { .. }
            | Link::Outdated
            | Link::DiskFull => Pairing::Asking,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    ToTheEnd,
    /// Somebody wants the bridge to stop, or nobody is there any more.
    Interrupted,
}

/// Why a device that is not linked yet was not let in.
fn unlinked_end(end: End) -> PairingFailure {
    match end {
        End::Lost => PairingFailure::Unreachable,
        End::Banned { .. } => PairingFailure::Throttled,
        End::Refused { reason } => PairingFailure::Other(format!("WhatsApp refuses the login ({reason})")),
        End::Storage | End::NoRoom => PairingFailure::Other("the link could not be stored".to_owned()),
        End::Replaced | End::LoggedOut | End::Outdated => {
            PairingFailure::Other("WhatsApp ended the connection".to_owned())
        }
    }
}
