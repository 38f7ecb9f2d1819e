//! What part of the web an agent may reach, as the owner says it: host names, and a group's policy.

use std::fmt;

use anyhow::{Result, bail};

/// Longest host name and longest label in it, in bytes (RFC 1035, 2.3.4).
const HOST_NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// What part of the web a group's agent reaches through the egress proxy. Private addresses are always
/// refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WebPolicy {
    None,
    /// These hosts, and all hosts below them.
    Allowlist(Vec<HostName>),
    #[default]
    Web,
}

/// Bytes that a group's agent has sent to the web and received from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebTraffic {
    pub sent: u64,
    pub received: u64,
}

/// A host's name in lower case, such as `example.org`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Accepts labels of letters, digits and `-` with dots between them. A dot at the end is dropped. A name
    /// in another script is written as in DNS, `xn--…` (RFC 5891).
    ///
    /// # Errors
    /// Says what a host name looks like.
    pub fn parse(name: &str) -> Result<Self> {
        let plain = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if plain.len() > HOST_NAME_MAX || !plain.split('.').all(is_label) {
            bail!(
                "{name:?} is not the name of a host, such as example.org, without https:// and without a path"
            );
        }
        Ok(Self(plain.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this host or below it: `example.org` covers `www.example.org`, not
    /// `badexample.org`.
    pub fn covers_host(&self, other: &HostName) -> bool {
        other.0.strip_suffix(&self.0).is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_those_of_dns() {
        for (typed, name) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("a-b.c0", "a-b.c0"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(HostName::parse(typed).unwrap().as_str(), name, "{typed}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "https://a.b",
            "a.b/c",
            "a.b:443",
            "*.a.b",
            "a b",
            "é.org",
            "a_b",
            "[::1]",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_covers_those_beneath_it() {
        let host = |name| HostName::parse(name).unwrap();
        for (other, covered) in [
            ("example.org", true),
            ("www.EXAMPLE.org", true),
            ("badexample.org", false),
            ("org", false),
            ("example.org.evil.net", false),
        ] {
            assert_eq!(host("example.org").covers_host(&host(other)), covered, "{other}");
        }
    }
}
