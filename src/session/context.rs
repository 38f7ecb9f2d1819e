//! What every session of a service has in common: handles and the settings.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::{Notify, OnceCell, mpsc};

use super::settings::Settings;
use crate::bridge::Order;
use crate::clock::Clock;
use crate::container::Containers;
use crate::login::Accounts;
use crate::paths::Paths;
use crate::relay::KimiUpstream;
use crate::store::Store;
use crate::types::ChatId;

/// What every session of a service has in common.
#[derive(Clone)]
pub struct SessionContext<C> {
    pub store: Store,
    pub containers: C,
    pub paths: Paths,
    pub clock: Clock,
    pub accounts: Arc<Accounts>,
    /// The API to which the egress proxies of all groups lead.
    pub upstream: KimiUpstream,
    pub settings: Arc<Settings>,
    /// To the bridge: typing and read receipts. Replies go through the outbox.
    pub orders: mpsc::Sender<Order>,
    /// Tells delivery that the outbox has something new.
    pub outbox_hint: Arc<Notify>,
    /// Tells the scheduler that tasks, their runs, or questions to the owner have changed.
    pub tasks_hint: Arc<Notify>,
    /// Set when the containers that an earlier run left are gone.
    pub swept: Arc<OnceCell<()>>,
}

impl<C: Containers> SessionContext<C> {
    /// Removes the containers that an earlier run left: once, before this run launches its first.
    ///
    /// # Errors
    /// Docker does not answer. The next call tries again.
    pub async fn sweep_old_containers(&self) -> Result<()> {
        let sweep = || async {
            let swept = self.containers.remove_install_containers(&self.settings.install).await?;
            if swept > 0 {
                tracing::info!(containers = swept, "Removed what an earlier run left");
            }
            anyhow::Ok(())
        };
        self.swept.get_or_try_init(sweep).await.context("Failed to remove old containers").map(drop)
    }
}

impl<C> SessionContext<C> {
    /// Says a sentence of our own in a chat. If it cannot be written, that is not worth a turn.
    pub async fn try_notify_chat(&self, chat: &ChatId, sentence: &str) {
        match self.store.notify_chat(chat, sentence, self.clock.now()).await {
            Ok(()) => self.outbox_hint.notify_one(),
            Err(error) => tracing::warn!("Failed to write a sentence of our own: {error:#}"),
        }
    }
}
