//! What people hear whose calls are refused, and how often.

use jiff::SignedDuration;

use super::Rules;
use crate::notices;
use crate::router::RefusalReason;
use crate::types::{RefusalPolicy, SenderRule};

/// What the author of a refused call is told; `None` if the owner wants silence.
pub fn refusal_notice(rules: &Rules, rule: SenderRule, reason: RefusalReason) -> Option<String> {
    match (reason, rule.refusals) {
        (RefusalReason::NotAllowed, RefusalPolicy::Silent) => None,
        (RefusalReason::NotAllowed, RefusalPolicy::Told) => {
            Some(rules.prefix_notice(&notices::may_not_ask_notice(rules.lang, rule.others)))
        }
    }
}

/// How long a person is not told the same again.
pub fn told_within(reason: RefusalReason) -> SignedDuration {
    match reason {
        RefusalReason::NotAllowed => SignedDuration::from_hours(24),
    }
}

/// What a reason is called in the database.
pub fn refusal_name(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::NotAllowed => "not_allowed",
    }
}
