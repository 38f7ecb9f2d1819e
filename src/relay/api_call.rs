//! What a caller of the relay gives, and what it hears meanwhile.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;

use crate::types::{Failure, TokenUsage};

/// What a request is for. Only a request for the model says how an account does: others, such as an engine's
/// search, may fail while turns go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    Model,
    OtherEndpoint,
}

/// Which model a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedModel {
    /// One that is known to be the account's: if Kimi refuses it, that is about the account.
    Configured,
    /// One that the caller has made up: whatever Kimi says then is about this one request.
    Another,
}

/// A request to the Kimi API, but for its login.
#[derive(Clone, Debug)]
pub struct ApiCall {
    pub method: Method,
    /// Path and query beneath the API's base, such as `chat/completions`; allowed by the caller.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub route: ApiRoute,
    pub model: AskedModel,
    /// Requests of one conversation stay with one account.
    pub conversation: String,
    /// How long the caller has waited already, for its turn.
    pub waited: Duration,
    /// How long the request may take in all until its answer begins.
    pub patience: Duration,
    /// Whether it waits here while all accounts are left alone; else the refusal says when to ask again.
    pub waits_for_account: bool,
}

/// Hears how a request goes, while it goes.
pub trait AnswerObserver: Send + Sync {
    /// An answer has reported these tokens, beside those that it reported before.
    fn add_usage(&self, usage: TokenUsage);

    /// Why there is no answer yet, or none at all, or no end of it.
    fn record_failure(&self, failure: Failure);

    /// An answer has begun, or has come to its end.
    fn record_success(&self);
}
