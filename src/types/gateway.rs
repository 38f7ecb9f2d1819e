//! The gateway's nouns: where it listens, and what is known of a client's key.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// Longest name of a key, in characters: `^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$`.
const KEY_NAME_MAX: usize = 40;
/// What an address of a unix socket begins with.
const UNIX: &str = "unix:";

/// Where the gateway listens: on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    Loopback(SocketAddr),
    Unix(PathBuf),
}

impl GatewayAddress {
    /// Reads `127.0.0.1:8788`, `[::1]:8788`, `localhost:8788` or `unix:/path`, as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// It is something else, or an address that other machines can reach.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix(UNIX) {
            // systemd and Docker write two slashes before the path.
            let path = if path.starts_with("//") { path.trim_start_matches('/') } else { path };
            let path = if text.starts_with("unix://") { format!("/{path}") } else { path.to_owned() };
            if !path.starts_with('/') || path.len() < 2 || path.chars().any(char::is_control) {
                bail!("{text:?} is no whole path of a socket, such as unix:/run/user/1000/nanokimi.sock");
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let named = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let address = match named {
            Some(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            None => text.parse::<SocketAddr>().ok(),
        };
        match address {
            Some(address) if !address.ip().is_loopback() => bail!(
                "The gateway is for programs on this machine only: {} can be reached from others. Use 127.0.0.1, or a \
                 unix socket",
                address.ip()
            ),
            Some(address) => Ok(Self::Loopback(address)),
            None => bail!("{text:?} is no address such as 127.0.0.1:8788"),
        }
    }

    /// What clients are configured with, without a path; `None` for a unix socket, which has no URL.
    pub fn base_url(&self) -> Option<String> {
        match self {
            Self::Loopback(address) => Some(format!("http://{address}")),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// What the owner calls the key of a client, such as `laptop-opencode`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// # Errors
    /// Says what a name may be made of.
    pub fn parse(name: &str) -> Result<Self> {
        let shape = name.len() <= KEY_NAME_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !shape {
            bail!(
                "{name:?} is no name for a key; use 1 to {KEY_NAME_MAX} letters, digits, \"-\" or \"_\", starting with \
                 a letter or digit"
            );
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As what the requests of a key reach Kimi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIdentity {
    /// As the client that they come from.
    #[default]
    Own,
    /// With the headers of kimi-cli, whatever they come from.
    KimiCli,
}

impl ClientIdentity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::KimiCli => "kimi-cli",
        }
    }

    /// # Errors
    /// There is no such identity.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "own" => Ok(Self::Own),
            "kimi-cli" => Ok(Self::KimiCli),
            _ => bail!("{name:?} is no identity; there are own and kimi-cli"),
        }
    }
}

/// A key that the owner has given to a client, without the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayKey {
    pub name: KeyName,
    /// Most tokens that it may use in a day; they are counted when an answer has ended.
    pub daily_tokens: Option<u64>,
    /// The models that it may ask for, by any of their names; all if there are none.
    pub models: Vec<String>,
    pub identity: ClientIdentity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_listens_on_this_machine_only() {
        for (text, expected) in [
            ("127.0.0.1:8788", Ok("127.0.0.1:8788")),
            ("127.9.9.9:1", Ok("127.9.9.9:1")),
            ("localhost:8788", Ok("127.0.0.1:8788")),
            ("[::1]:8788", Ok("[::1]:8788")),
            ("unix:/run/user/1000/nanokimi.sock", Ok("unix:/run/user/1000/nanokimi.sock")),
            ("unix:///run/nanokimi.sock", Ok("unix:/run/nanokimi.sock")),
            ("0.0.0.0:8788", Err("can be reached from others")),
            ("[::]:8788", Err("can be reached from others")),
            ("[::ffff:127.0.0.1]:8788", Err("can be reached from others")),
            ("192.168.1.2:8788", Err("can be reached from others")),
            ("unix:nanokimi.sock", Err("no whole path")),
            ("unix:/", Err("no whole path")),
            ("unix:", Err("no whole path")),
            ("127.0.0.1", Err("no address")),
            ("example.com:80", Err("no address")),
            ("localhost:99999", Err("no address")),
            ("", Err("no address")),
        ] {
            let parsed = GatewayAddress::parse(text);
            match expected {
                Ok(shown) => assert_eq!(parsed.unwrap().to_string(), shown, "{text}"),
                Err(why) => {
                    let error = parsed.unwrap_err().to_string();
                    assert!(error.contains(why), "{text}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_keys_name_is_one_plain_word() {
        for name in ["laptop", "7-opencode_x", &"a".repeat(KEY_NAME_MAX)] {
            assert_eq!(KeyName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "-x", "a b", "a/b", "ä", &"a".repeat(KEY_NAME_MAX + 1)] {
            assert!(KeyName::parse(name).is_err(), "{name}");
        }
    }
}
