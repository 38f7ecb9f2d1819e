//! One group's session with its agent: from rows that wait to rows that are done.
//!
//! `machine` decides (pure), `driver` performs: it alone owns the group's container, its engine and its turn.
//! `launch` makes a container ready; `whole_texts` keeps what is too long for a prompt; `pictures` shows the model what was
//! sent; `turn` gathers an answer, which `replies` makes ready to be sent and `ending` writes down; `attention` is what the chat sees meanwhile.
//! `memory` doubts what an agent has left when engines fail on it, `share` watches what an agent takes of the machine;
//! `troubles` knows which trouble is worth another try. `recovery` comes after a session that broke off.

mod driver;
mod ending;
mod images;
mod launch;
pub mod machine;
mod mailbox;
mod memory;
mod progress;
mod recovery;
mod replies;
mod share;
mod token_limit;
mod troubles;
mod turn;
mod whole_texts;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use tokio::sync::{Notify, OnceCell, mpsc};

pub use driver::run_session;
pub use launch::{LOOK_FOR_DOCKER_EVERY, wait_for_docker};
pub use mailbox::{ReportKind, SessionCommand, SessionReport};
pub use recovery::clean_up_broken_session;

use crate::bridge::Order;
use crate::clock::Clock;
use crate::container::Containers;
use crate::container::spec::ContainerLimits;
use crate::egress::KimiUpstream;
use crate::login::Login;
use crate::paths::Paths;
use crate::store::Store;
use crate::types::{ChatId, Engine, EngineChoice, Group, InstallId, Lang};

/// What every session of a service has in common.
#[derive(Clone)]
pub struct SessionContext<C> {
    pub store: Store,
    pub containers: C,
    pub paths: Paths,
    pub clock: Clock,
    pub login: Arc<Login>,
    /// Where the doors of all groups lead.
    pub upstream: KimiUpstream,
    pub settings: Arc<Settings>,
    /// To the bridge: typing and what was read; replies go through the outbox.
    pub orders: mpsc::Sender<Order>,
    /// Tells delivery that the outbox has something new.
    pub outbox_hint: Arc<Notify>,
    /// Whether the containers that an earlier run left are gone.
    pub swept: Arc<OnceCell<()>>,
}

impl<C: Containers> SessionContext<C> {
    /// Removes the containers that an earlier run left: once, and before any of this run's is launched.
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
    /// Says a sentence of our own in a chat. One that cannot be written is not worth a turn.
    pub async fn try_notify_chat(&self, chat: &ChatId, sentence: &str) {
        match self.store.notify_chat(chat, sentence, self.clock.now()).await {
            Ok(()) => self.outbox_hint.notify_one(),
            Err(error) => tracing::warn!("Failed to write a sentence of our own: {error:#}"),
        }
    }
}

/// The settings that sessions obey, resolved once.
#[derive(Clone, Debug)]
pub struct Settings {
    pub install: InstallId,
    /// The word that wakes Kai in groups without a trigger of their own, and the name in notices.
    pub assistant: String,
    /// In front of every reply: `Kai: `, or nothing when Kai has its own number.
    pub reply_prefix: String,
    pub lang: Lang,
    pub zone: TimeZone,
    /// The engine of groups without one of their own.
    pub engine: Engine,
    pub container_limits: ContainerLimits,
    /// The model's name for the engine, where it is not the one in `config.toml`.
    pub model: Option<String>,
    pub device_id: String,
    pub time_limits: machine::TimeLimits,
    /// What called Kai longer ago than this, while nanokimi was away, is only context.
    pub answer_within: Duration,
    /// Larger files are not fetched from WhatsApp, nor sent to it.
    pub media_limit_bytes: u64,
    /// Most containers that run at once.
    pub max_agents: usize,
    /// How much memory they may hold together.
    pub agents_memory_bytes: u64,
}

impl Settings {
    /// The engine of a group: its own choice, else the install's. A choice that this nanokimi does not know counts
    /// as none.
    pub fn engine_for_group(&self, group: &Group) -> Engine {
        group.engine.as_ref().and_then(EngineChoice::engine).unwrap_or(self.engine)
    }

    /// A sentence of nanokimi's own as it stands in a chat.
    pub fn with_reply_prefix(&self, sentence: String) -> String {
        format!("{}{sentence}", self.reply_prefix)
    }
}
