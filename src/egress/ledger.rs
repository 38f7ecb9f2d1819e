//! What an egress proxy has seen since the session last asked: tokens, and why the latest request to the
//! model went wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::api_routes::ApiRoute;
use crate::panics::lock_unpoisoned;
use crate::types::{Failure, TokenUsage};

#[derive(Debug, Default)]
pub struct Ledger {
    usage: Mutex<TokenUsage>,
    failure: Mutex<Option<Failure>>,
    asked: AtomicBool,
}

impl Ledger {
    pub fn add_usage(&self, more: TokenUsage) {
        *lock_unpoisoned(&self.usage) += more;
    }

    pub fn take_usage(&self) -> TokenUsage {
        std::mem::take(&mut lock_unpoisoned(&self.usage))
    }

    /// A whole request has come.
    pub fn record_model_asked(&self, route: ApiRoute) {
        match route {
            ApiRoute::ChatCompletions => self.asked.store(true, Ordering::Relaxed),
            ApiRoute::OtherEndpoint => {}
        }
    }

    pub fn was_model_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn record_failure(&self, route: ApiRoute, failure: Failure) {
        self.record_outcome(route, Some(failure));
    }

    pub fn record_success(&self, route: ApiRoute) {
        self.record_outcome(route, None);
    }

    fn record_outcome(&self, route: ApiRoute, failure: Option<Failure>) {
        match route {
            ApiRoute::ChatCompletions => *lock_unpoisoned(&self.failure) = failure,
            ApiRoute::OtherEndpoint => {}
        }
    }

    pub fn take_failure(&self) -> Option<Failure> {
        lock_unpoisoned(&self.failure).take()
    }
}
