//! Several Kimi accounts as values: which there are, and for how long one gives no answers.

use std::fmt;

use anyhow::{Result, ensure};
use jiff::Timestamp;

/// Longest name of an account, in characters.
const NAME_MAX: usize = 32;

/// What an account is known by for as long as it is there, whatever its name: a folder's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(String);

impl AccountId {
    /// The account whose login kimi-cli knows too.
    pub fn first() -> Self {
        Self("first".to_owned())
    }

    /// `None` if the text is no id: 1 to 32 lower-case letters and digits.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ((1..=32).contains(&text.len()) && plain).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What its owner calls an account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(String);

impl AccountName {
    /// # Errors
    /// The text is no name: 1 to 32 letters, digits, `-` and `_`, such as `work`.
    pub fn parse(text: &str) -> Result<Self> {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        ensure!(
            (1..=NAME_MAX).contains(&text.len()) && plain && !text.starts_with('-'),
            "{text:?} is no name for an account: it has 1 to {NAME_MAX} letters, digits, - and _, such as work"
        );
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names that a person would mix up are the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where Kimi's servers are, each without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KimiHosts {
    /// Such as `https://auth.kimi.com`.
    pub oauth_host: String,
    /// Such as `https://api.kimi.com/coding/v1`.
    pub api_base: String,
}

impl KimiHosts {
    /// Those of an account, whose region may be another one.
    pub fn for_region(&self, region: Option<&str>) -> Self {
        region.map_or_else(|| self.clone(), |region| self.in_region(region))
    }

    /// The same servers in another region of Kimi, `com` or `ai`. What is no server of Kimi's stays.
    fn in_region(&self, region: &str) -> Self {
        let moved = |address: &str| {
            let moved = ["https://auth.kimi.", "https://api.kimi."].iter().find_map(|host| {
                let rest = address.strip_prefix(host)?;
                let path = rest.strip_prefix("com").or_else(|| rest.strip_prefix("ai"))?;
                (path.is_empty() || path.starts_with('/')).then(|| format!("{host}{region}{path}"))
            });
            moved.unwrap_or_else(|| address.to_owned())
        };
        Self { oauth_host: moved(&self.oauth_host), api_base: moved(&self.api_base) }
    }
}

/// Why an account is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CooldownCause {
    /// Too many requests (HTTP 429).
    RateLimited,
    /// The allowance of its plan is used up.
    QuotaUsedUp,
    /// Kimi is overloaded (HTTP 503 and 529).
    Overloaded,
    /// Kimi fails without a reason (HTTP 500).
    ServerError,
    /// There is no way to Kimi.
    Unreachable,
    /// Kimi refuses the account, or its login.
    Refused,
}

impl CooldownCause {
    pub const ALL: [Self; 6] = [
        Self::RateLimited,
        Self::QuotaUsedUp,
        Self::Overloaded,
        Self::ServerError,
        Self::Unreachable,
        Self::Refused,
    ];

    /// The word in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::QuotaUsedUp => "quota_used_up",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }
}

/// How long an account is left alone, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    pub cause: CooldownCause,
    /// When it began.
    pub since: Timestamp,
    /// When the account is tried again.
    pub until: Timestamp,
    /// When Kimi says that the allowance is whole again, if it says so.
    pub resets_at: Option<Timestamp>,
    /// How often in a row the account has failed for this cause.
    pub failures: u32,
}

impl Cooldown {
    /// Whether the account is still left alone. A clock that was set back ends it: nobody knows how long it has
    /// lasted.
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.since <= now && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_word() {
        for (text, is_id) in
            [("first", true), ("0f3a", true), ("", false), ("A", false), ("../x", false), ("a b", false)]
        {
            assert_eq!(AccountId::parse(text).is_some(), is_id, "{text:?}");
        }
        assert_eq!(AccountId::parse(&"a".repeat(33)), None);
    }

    #[test]
    fn a_name_is_one_that_can_be_typed_and_told_apart() {
        for (text, is_name) in [
            ("work", true),
            ("Ana_2", true),
            ("", false),
            ("two words", false),
            ("-x", false),
            ("../x", false),
            ("é", false),
        ] {
            assert_eq!(AccountName::parse(text).is_ok(), is_name, "{text:?}");
        }
        let name = |text| AccountName::parse(text).unwrap();
        assert!(name("Work").is_same(&name("work")));
    }

    #[test]
    fn only_kimis_own_servers_have_regions() {
        let hosts = |oauth_host: &str, api_base: &str| KimiHosts {
            oauth_host: oauth_host.to_owned(),
            api_base: api_base.to_owned(),
        };
        let com = hosts("https://auth.kimi.com", "https://api.kimi.com/coding/v1");
        let ai = hosts("https://auth.kimi.ai", "https://api.kimi.ai/coding/v1");
        assert_eq!((com.in_region("ai"), ai.in_region("com"), com.in_region("com")), (ai, com.clone(), com));
        let own = hosts("http://127.0.0.1:9", "https://api.kimi.community/v1");
        assert_eq!(own.in_region("ai"), own);
    }

    #[test]
    fn each_cause_has_a_word_of_its_own() {
        for cause in CooldownCause::ALL {
            assert_eq!(CooldownCause::from_word(cause.word()), Some(cause));
        }
    }

    #[test]
    fn a_cooldown_ends_with_its_time_or_when_the_clock_is_set_back() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let cooldown = Cooldown {
            cause: CooldownCause::RateLimited,
            since: at(100),
            until: at(130),
            resets_at: None,
            failures: 1,
        };
        for (now, is_on) in [(99, false), (100, true), (129, true), (130, false)] {
            assert_eq!(cooldown.is_on(at(now)), is_on, "{now}");
        }
    }
}
