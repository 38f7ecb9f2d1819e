//! Who of a chat may ask Kai there, as its owner chose it.

/// The people whose messages may call Kai in a group. The owner's always may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderPolicy {
    #[default]
    Anyone,
    /// The people whom the owner has allowed.
    Listed,
    /// The owner only.
    Owner,
}

impl SenderPolicy {
    pub const ALL: [Self; 3] = [Self::Anyone, Self::Listed, Self::Owner];

    pub fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Listed => "listed",
            Self::Owner => "owner",
        }
    }

    /// The inverse of [`Self::name`]. What cannot be read denies everybody but the owner.
    pub fn from_stored_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|policy| policy.name() == name).unwrap_or(Self::Owner)
    }
}

/// Which direct chats Kai serves besides the main channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectChatPolicy {
    /// Those that the owner has added.
    #[default]
    Listed,
    /// The same; and when somebody else writes, the owner is asked once.
    Ask,
    /// All in which somebody writes.
    Anyone,
}

impl DirectChatPolicy {
    pub const ALL: [Self; 3] = [Self::Listed, Self::Ask, Self::Anyone];

    pub fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Ask => "ask",
            Self::Anyone => "anyone",
        }
    }
}

/// What happens with the messages of people who may not ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OthersPolicy {
    /// They are told with the next message that calls Kai.
    #[default]
    Context,
    /// They are not stored.
    Dropped,
}

impl OthersPolicy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Dropped => "dropped",
        }
    }

    /// The inverse of [`Self::name`]. What cannot be read lets no agent read anything.
    pub fn from_stored_name(name: &str) -> Self {
        if name == Self::Context.name() { Self::Context } else { Self::Dropped }
    }
}

/// What people hear who call Kai and may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalPolicy {
    #[default]
    Silent,
    /// One sentence, once a day and person.
    Told,
}

impl RefusalPolicy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Told => "told",
        }
    }

    pub fn from_stored_name(name: &str) -> Self {
        if name == Self::Told.name() { Self::Told } else { Self::Silent }
    }
}

/// What an owner has chosen about the people of a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderRule {
    pub may_ask: SenderPolicy,
    pub others: OthersPolicy,
    pub refusals: RefusalPolicy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again_and_what_cannot_be_read_denies() {
        for policy in SenderPolicy::ALL {
            assert_eq!(SenderPolicy::from_stored_name(policy.name()), policy);
        }
        for others in [OthersPolicy::Context, OthersPolicy::Dropped] {
            assert_eq!(OthersPolicy::from_stored_name(others.name()), others);
        }
        for refusals in [RefusalPolicy::Silent, RefusalPolicy::Told] {
            assert_eq!(RefusalPolicy::from_stored_name(refusals.name()), refusals);
        }
        for broken in ["", "Anyone", "everybody", "anyone "] {
            assert_eq!(SenderPolicy::from_stored_name(broken), SenderPolicy::Owner, "{broken:?}");
            assert_eq!(OthersPolicy::from_stored_name(broken), OthersPolicy::Dropped, "{broken:?}");
        }
    }
}
