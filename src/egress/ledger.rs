//! What an egress proxy has seen since the session last asked: tokens, and why the latest request to the
//! model went wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::panics::lock_unpoisoned;
use crate::relay::{AnswerObserver, ApiRoute};
use crate::types::{Failure, TokenUsage};

#[derive(Debug, Default)]
pub struct Ledger {
    usage: Mutex<TokenUsage>,
    failure: Mutex<Option<Failure>>,
    asked: AtomicBool,
    turn: Mutex<TurnTokens>,
    /// The turn has used more than it may.
    used_up: Notify,
}

/// What the running turn has used, and the most that it may use.
#[derive(Debug, Default)]
struct TurnTokens {
    used: u64,
    limit: Option<u64>,
    /// A request was refused for it.
    was_refused: bool,
}

impl TurnTokens {
    fn is_used_up(&self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }
}

impl Ledger {
    pub fn add_usage(&self, more: TokenUsage) {
        *lock_unpoisoned(&self.usage) += more;
        let mut turn = lock_unpoisoned(&self.turn);
        turn.used = turn.used.saturating_add(more.counted_tokens());
        if turn.is_used_up() {
            self.used_up.notify_one();
        }
    }

    /// A turn begins, and may use this many tokens.
    pub fn begin_turn(&self, limit: Option<u64>) {
        *lock_unpoisoned(&self.turn) = TurnTokens { used: 0, limit, was_refused: false };
    }

    /// From now on the running turn may use this many tokens in all.
    pub fn set_turn_limit(&self, limit: Option<u64>) {
        lock_unpoisoned(&self.turn).limit = limit;
    }

    /// Whether a request is refused, since the running turn has used all that it may.
    pub fn refuse_over_turn_tokens(&self) -> bool {
        let mut turn = lock_unpoisoned(&self.turn);
        turn.was_refused |= turn.is_used_up();
        turn.is_used_up()
    }

    /// Whether a request of the running turn was refused for that.
    pub fn was_refused_over_turn_tokens(&self) -> bool {
        lock_unpoisoned(&self.turn).was_refused
    }

    /// Resolves when an answer has used up what its turn may use.
    pub async fn wait_for_turn_tokens(&self) {
        loop {
            self.used_up.notified().await;
            // It may have been an earlier turn's.
            if lock_unpoisoned(&self.turn).is_used_up() {
                return;
            }
        }
    }

    pub fn take_usage(&self) -> TokenUsage {
        std::mem::take(&mut lock_unpoisoned(&self.usage))
    }

    /// A whole request has come.
    pub fn record_model_asked(&self, route: ApiRoute) {
        match route {
            ApiRoute::Model => self.asked.store(true, Ordering::Relaxed),
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
            ApiRoute::Model => *lock_unpoisoned(&self.failure) = failure,
            ApiRoute::OtherEndpoint => {}
        }
    }

    pub fn take_failure(&self) -> Option<Failure> {
        lock_unpoisoned(&self.failure).take()
    }
}

/// One request's part of the ledger.
#[derive(Debug)]
pub struct RequestLedger {
    pub ledger: Arc<Ledger>,
    pub route: ApiRoute,
}

impl AnswerObserver for RequestLedger {
    fn add_usage(&self, usage: TokenUsage) {
        self.ledger.add_usage(usage);
    }

    fn record_failure(&self, failure: Failure) {
        self.ledger.record_failure(self.route, failure);
    }

    fn record_success(&self) {
        self.ledger.record_success(self.route);
    }
}
