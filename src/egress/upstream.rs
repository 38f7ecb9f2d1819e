//! The Kimi API that the egress proxies of an install lead to, and the login that they use.

use std::sync::Arc;

use tokio::sync::{OnceCell, watch};

use crate::types::{Authorization, Secret};

/// The Kimi API that all egress proxies of an install lead to, and the login for it. Clones share one client.
#[derive(Clone, Debug)]
pub struct KimiUpstream {
    pub(super) base: String,
    pub(super) authorization: watch::Receiver<Authorization>,
    pub(super) refused_tokens: watch::Sender<Option<Secret>>,
    /// The models that the engines are configured with; empty if they are not known.
    pub(super) models: Vec<String>,
    /// Made with the first egress proxy: it reads the system's trust store, some milliseconds and a megabyte.
    pub(super) client: Arc<OnceCell<reqwest::Client>>,
}

impl KimiUpstream {
    /// `base` is the Kimi API without a trailing slash, such as `https://api.kimi.com/coding/v1`.
    /// `authorization` is read at every request. A login that the API refuses is put into `refused_tokens`;
    /// then another one is awaited for a while.
    pub fn new(
        base: impl Into<String>,
        authorization: watch::Receiver<Authorization>,
        refused_tokens: watch::Sender<Option<Secret>>,
    ) -> Self {
        Self { base: base.into(), authorization, refused_tokens, models: Vec::new(), client: Arc::default() }
    }

    /// The same for engines that are configured with these models: when Kimi refuses another model, that is
    /// no trouble of the account.
    pub fn with_models(self, models: Vec<String>) -> Self {
        Self { models, ..self }
    }
}
