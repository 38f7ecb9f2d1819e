//! What a door has seen since the session last asked: tokens, and why the latest request to the model went wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::road::Road;
use crate::types::{Failure, TokenUsage};

#[derive(Debug, Default)]
pub struct Ledger {
    usage: Mutex<TokenUsage>,
    failure: Mutex<Option<Failure>>,
    asked: AtomicBool,
}

impl Ledger {
    pub fn add_usage(&self, more: TokenUsage) {
        *lock(&self.usage) += more;
    }

    pub fn take_usage(&self) -> TokenUsage {
        std::mem::take(&mut lock(&self.usage))
    }

    /// A whole request has come.
    pub fn asked(&self, road: Road) {
        match road {
            Road::ToTheModel => self.asked.store(true, Ordering::Relaxed),
            Road::Beside => {}
        }
    }

    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn failed(&self, road: Road, failure: Failure) {
        self.fares(road, Some(failure));
    }

    pub fn succeeded(&self, road: Road) {
        self.fares(road, None);
    }

    fn fares(&self, road: Road, failure: Option<Failure>) {
        match road {
            Road::ToTheModel => *lock(&self.failure) = failure,
            Road::Beside => {}
        }
    }

    pub fn take_failure(&self) -> Option<Failure> {
        lock(&self.failure).take()
    }
}

/// Plain values stay whole whatever happens to the thread that held them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
