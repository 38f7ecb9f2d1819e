//! What one bridge holds over all runs of the library: its settings, its files, its channels, and how the
//! link stands.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::http::WhatsAppHttpClient;
use super::intake_sink::IntakeSink;
use super::key_folder::KeyFolder;
use super::presence::Presence;
use crate::bridge::channels::{BridgeEnd, Order};
use crate::clock::Clock;
use crate::types::{LinkState, Pairing, PairingFailure};

/// How often the free disk space is checked.
pub const DISK_SPACE_CHECK_EVERY: Duration = Duration::from_secs(5);

/// What the bridge needs to know.
#[derive(Clone, Debug)]
pub struct WhatsAppBridge {
    /// The keys of the link, in a folder of their own (0700).
    pub folder: PathBuf,
    /// `ws://127.0.0.1:…` of a test's own server; WhatsApp's if there is none.
    pub url: Option<String>,
    pub presence: Presence,
    pub clock: Clock,
}

/// The bridge while it runs, over all runs of the library.
pub struct RunningBridge {
    pub settings: WhatsAppBridge,
    pub folder: KeyFolder,
    pub http: WhatsAppHttpClient,
    pub intake: IntakeSink,
    pub orders: mpsc::Receiver<Order>,
    pub link: watch::Sender<LinkState>,
    /// When intake was told of all groups.
    pub groups_announced: Option<Instant>,
}

impl RunningBridge {
    pub fn new(settings: WhatsAppBridge, end: BridgeEnd) -> Result<Self> {
        let folder = KeyFolder::new(settings.folder.clone());
        Ok(Self {
            http: WhatsAppHttpClient::new(&folder, settings.url.as_deref())?,
            intake: IntakeSink::new(end.batches),
            orders: end.orders,
            link: end.link,
            groups_announced: None,
            folder,
            settings,
        })
    }

    pub fn publish_pairing_failure(&self, failure: PairingFailure) -> LinkState {
        self.publish_link(LinkState::Pairing(Pairing::Failed(failure)))
    }

    pub fn publish_link(&self, link: LinkState) -> LinkState {
        self.link.send_if_modified(|standing| {
            let changed = *standing != link;
            standing.clone_from(&link);
            changed
        });
        link
    }

    pub fn current_link(&self) -> LinkState {
        self.link.borrow().clone()
    }

    /// What the person who links a device sees now.
    pub fn current_pairing(&self) -> Pairing {
        match self.current_link() {
            LinkState::Pairing(pairing) => pairing,
            LinkState::Unlinked
            | LinkState::Connecting
            | LinkState::Online
            | LinkState::Replaced
            | LinkState::LoggedOut
            | LinkState::Banned { .. }
            | LinkState::Outdated
            | LinkState::DiskFull => Pairing::Asking,
        }
    }
}
