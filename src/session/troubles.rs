//! What a trouble means for what comes next: another try, or a doubt about the agent's memory. Pure.

use crate::types::Trouble;

/// Whether the same prompt could succeed a little later without anybody's help.
pub fn is_retryable_trouble(trouble: Trouble) -> bool {
    match trouble {
        Trouble::SystemLimit
        | Trouble::LaunchFailed
        | Trouble::NeverReady
        | Trouble::EngineDied
        | Trouble::EngineGarbage
        | Trouble::Overloaded
        | Trouble::Unreachable
        | Trouble::EmptyAnswer
        | Trouble::Internal => true,
        Trouble::NoImage
        | Trouble::DiskShare
        | Trouble::TurnTooLong
        | Trouble::NoModel
        | Trouble::Unsupported
        | Trouble::BadRequest
        | Trouble::TooLarge
        // These are outages.
        | Trouble::NoDocker
        | Trouble::NoSpace
        | Trouble::NotLoggedIn
        | Trouble::ClientRefused
        | Trouble::AccountEnded
        | Trouble::NoMembership
        | Trouble::Refused
        | Trouble::RateLimited
        | Trouble::QuotaUsedUp
        | Trouble::ModelRefused => false,
    }
}

/// Whether a trouble in an engine's first turn may come from the memory that it began with. `asked` says
/// whether the model was asked.
pub fn may_come_from_memory(trouble: Trouble, asked: bool) -> bool {
    match trouble {
        Trouble::NeverReady => true,
        // A history that the API does not accept goes with every request.
        Trouble::BadRequest => asked,
        Trouble::EngineDied
        | Trouble::EngineGarbage
        | Trouble::TurnTooLong
        | Trouble::Internal
        | Trouble::EmptyAnswer => !asked,
        Trouble::NoDocker
        | Trouble::NoImage
        | Trouble::NoSpace
        | Trouble::LaunchFailed
        | Trouble::NoModel
        | Trouble::Unsupported
        | Trouble::NotLoggedIn
        | Trouble::ClientRefused
        | Trouble::AccountEnded
        | Trouble::NoMembership
        | Trouble::Refused
        | Trouble::RateLimited
        | Trouble::QuotaUsedUp
        | Trouble::ModelRefused
        | Trouble::TooLarge
        | Trouble::Overloaded
        | Trouble::Unreachable
        | Trouble::DiskShare
        | Trouble::SystemLimit => false,
    }
}
