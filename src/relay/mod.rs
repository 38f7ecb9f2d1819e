//! The one relay to the Kimi API: carries a request with a login that only the host has, and the answer back
//! as it comes. The containers' egress proxies use it, and programs on this machine do.
//!
//! ```text
//! a request ─▶ KimiSender ─▶ accounts: which login ─▶ the Kimi API
//!                  │  ▲          rules::accounts
//!                  ▼  │ renew, wait, another account, or give up
//!              retry_policy
//! ```
//! `api_call` is what a caller gives and hears, `sender` the loop over tries, `accounts` the logins and what is
//! known of their limits, `upkeep` keeps both, `retry_policy` (pure) what follows an error, `meter` (pure) reads the tokens from an
//! answer, by the lines that `event_lines` (pure) cuts, while `response_stream` passes it on. `request_body` and `unread` bound what a caller can hold.
//!
//! A login goes into one request header and nowhere else: never into a log, an error or an answer.

mod accounts;
mod api_call;
mod error_response;
pub mod event_lines;
mod headers;
pub mod meter;
mod request_body;
mod response_stream;
mod retry_policy;
mod sender;
mod unread;
mod upkeep;
mod upstream;

pub use accounts::{AccountPool, describe_cooldown};
pub use api_call::{AnswerObserver, ApiCall, ApiRoute, AskedModel};
pub use error_response::ErrorResponse;
pub use headers::{end_to_end_headers, filter_response_headers};
pub use request_body::{BODY_MAX, BodyBudget, BodyRejection, BufferedBody, discard_body};
pub use response_stream::ResponseStream;
pub use sender::{ANSWER_TIMEOUT, ApiAnswer, KimiSender, Refusal};
pub use unread::{UNREAD_TIMEOUT, UnreadTimeoutStream};
pub use upkeep::run_account_upkeep;
pub use upstream::KimiUpstream;

#[cfg(test)]
mod tests;
