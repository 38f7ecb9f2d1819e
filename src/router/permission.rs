//! Whether the author of a message may ask Kai in a group. Every way of calling Kai passes this one rule: the
//! name, a mention, a reply, a forwarded message, an edit, and the main channel.

use super::SenderStanding;
use crate::types::{OthersPolicy, SenderPolicy, SenderRule};

/// Whether a sender is on the group's list, under any of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderListing {
    Listed,
    NotListed,
}

/// Whether a message may call Kai, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskPermission {
    Granted,
    Refused(RefusalReason),
}

/// Why a message may not call Kai.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// Its author may not ask in this group.
    NotAllowed,
    /// Its author has called as often as one person may in an hour.
    TooManyCalls,
}

impl AskPermission {
    /// The rule. Who is unknown is `Other` and `NotListed`.
    pub fn from_rule(policy: SenderPolicy, sender: SenderStanding, listing: SenderListing) -> Self {
        let is_granted = match (policy, sender, listing) {
            (_, SenderStanding::Owner, _) | (SenderPolicy::Anyone, SenderStanding::Other, _) => true,
            (SenderPolicy::Listed, SenderStanding::Other, listing) => listing == SenderListing::Listed,
            (SenderPolicy::Owner, SenderStanding::Other, _) => false,
        };
        if is_granted { Self::Granted } else { Self::Refused(RefusalReason::NotAllowed) }
    }

    /// The same with the limit on the calls of one person; `calls` are those of the last hour.
    pub fn limit_calls(self, sender: SenderStanding, limit: Option<u32>, calls: u32) -> Self {
        let is_at_limit = limit.is_some_and(|limit| calls >= limit);
        if self == Self::Granted && sender == SenderStanding::Other && is_at_limit {
            Self::Refused(RefusalReason::TooManyCalls)
        } else {
            self
        }
    }

    /// What holds for the new text of a call that was granted and counted before.
    pub fn for_counted_call(self) -> Self {
        match self {
            Self::Granted | Self::Refused(RefusalReason::TooManyCalls) => Self::Granted,
            Self::Refused(RefusalReason::NotAllowed) => self,
        }
    }

    /// Why a message that calls Kai is refused, if it is.
    pub fn refusal(self) -> Option<RefusalReason> {
        match self {
            Self::Granted => None,
            Self::Refused(reason) => Some(reason),
        }
    }

    /// Whether the group keeps the message at all.
    pub fn is_kept(self, rule: SenderRule) -> bool {
        match self {
            Self::Granted | Self::Refused(RefusalReason::TooManyCalls) => true,
            Self::Refused(RefusalReason::NotAllowed) => rule.others == OthersPolicy::Context,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask() {
        use SenderListing::{Listed, NotListed};
        use SenderStanding::{Other, Owner};
        for (policy, sender, listing, may_ask) in [
            (SenderPolicy::Anyone, Owner, NotListed, true),
            (SenderPolicy::Anyone, Other, NotListed, true),
            (SenderPolicy::Anyone, Other, Listed, true),
            (SenderPolicy::Listed, Owner, NotListed, true),
            (SenderPolicy::Listed, Other, NotListed, false),
            (SenderPolicy::Listed, Other, Listed, true),
            (SenderPolicy::Owner, Owner, NotListed, true),
            (SenderPolicy::Owner, Other, NotListed, false),
            (SenderPolicy::Owner, Other, Listed, false),
            (SenderPolicy::from_stored_name("broken"), Other, Listed, false),
            (SenderPolicy::from_stored_name("broken"), Owner, NotListed, true),
        ] {
            let permission = AskPermission::from_rule(policy, sender, listing);
            assert_eq!(permission.refusal().is_none(), may_ask, "{policy:?} {sender:?} {listing:?}");
        }
    }

    #[test]
    fn a_person_may_call_so_often_and_the_owner_as_often_as_they_like() {
        use SenderStanding::{Other, Owner};
        let (granted, too_many) =
            (AskPermission::Granted, AskPermission::Refused(RefusalReason::TooManyCalls));
        let not_allowed = AskPermission::Refused(RefusalReason::NotAllowed);
        for (before, sender, limit, calls, expected) in [
            (granted, Other, None, 10_000, granted),
            (granted, Other, Some(3), 0, granted),
            (granted, Other, Some(3), 2, granted),
            (granted, Other, Some(3), 3, too_many),
            (granted, Other, Some(3), 4, too_many),
            (granted, Owner, Some(3), 1_000, granted),
            (not_allowed, Other, Some(3), 9, not_allowed),
        ] {
            assert_eq!(before.limit_calls(sender, limit, calls), expected, "{sender:?} {limit:?} {calls}");
        }
        assert_eq!(too_many.for_counted_call(), granted);
        assert_eq!(not_allowed.for_counted_call(), not_allowed);
        assert!(too_many.is_kept(SenderRule { others: OthersPolicy::Dropped, ..SenderRule::default() }));
    }

    #[test]
    fn what_others_write_is_kept_unless_the_owner_wants_it_dropped() {
        let refused = AskPermission::Refused(RefusalReason::NotAllowed);
        for (permission, others, is_kept) in [
            (AskPermission::Granted, OthersPolicy::Dropped, true),
            (refused, OthersPolicy::Context, true),
            (refused, OthersPolicy::Dropped, false),
        ] {
            let rule = SenderRule { others, ..SenderRule::default() };
            assert_eq!(permission.is_kept(rule), is_kept, "{permission:?} {others:?}");
        }
    }
}
