//! What every way to one of Kimi's servers has in common: where a login may be sent, the client that carries
//! it, and its header. TLS trusts what this system trusts (its CA store, or `SSL_CERT_FILE`); `HTTPS_PROXY`,
//! `ALL_PROXY` and `NO_PROXY` are honoured, as reqwest does by default. A server on this machine is always
//! reached directly. Redirects are not followed: a login goes to one host only, and never unencrypted over a
//! network.

use anyhow::{Context, Result, bail, ensure};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};

use crate::panics::run_blocking;
use crate::types::Secret;

/// Where a server stands that logins are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginDestination {
    Internet,
    ThisMachine,
}

impl LoginDestination {
    /// `base` is the beginning of the server's addresses, without a slash at its end.
    ///
    /// # Errors
    /// It is no such beginning, or no login may be sent there.
    pub fn from_base_url(base: &str) -> Result<Self> {
        let url = Url::parse(base).with_context(|| format!("{base:?} is not a URL"))?;
        ensure!(
            !base.ends_with('/') && url.query().is_none() && url.fragment().is_none(),
            "{base:?} must be a URL without a slash, query or fragment at its end"
        );
        let this_machine = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            "https" => Ok(Self::Internet),
            "http" if this_machine => Ok(Self::ThisMachine),
            other => bail!("The Kimi login is sent over https only, not {other}, to {base:?}"),
        }
    }
}

/// Makes the client for the server of `base`; `with_timeouts` adds what it may wait for. Reads the system's
/// trust store if it is needed: some milliseconds and a megabyte, so a client is made once.
///
/// # Errors
/// As [`LoginDestination::from_base_url`], or the trust store cannot be read.
pub async fn build_kimi_http_client(
    base: &str,
    with_timeouts: impl FnOnce(ClientBuilder) -> ClientBuilder + Send + 'static,
) -> Result<Client> {
    let destination = LoginDestination::from_base_url(base)?;
    run_blocking(move || {
        // An error means that one is installed already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = with_timeouts(Client::builder().redirect(Policy::none()).referer(false));
        let client = match destination {
            LoginDestination::Internet => client,
            // Without proxies and certificates, so that it works on a machine that has none.
            LoginDestination::ThisMachine => client.no_proxy().tls_certs_only([]),
        };
        client.build().context("Failed to set up TLS; is the package ca-certificates installed?")
    })
    .await?
}

/// The value of `Authorization` for this token; `None` if it has characters that no header may have.
pub fn bearer_header(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_travels_encrypted_or_not_at_all() {
        for (base, expected) in [
            ("https://auth.kimi.com", Some(LoginDestination::Internet)),
            ("https://api.kimi.com/coding/v1", Some(LoginDestination::Internet)),
            ("http://127.0.0.1:9100", Some(LoginDestination::ThisMachine)),
            ("http://[::1]:9100", Some(LoginDestination::ThisMachine)),
            ("http://localhost", Some(LoginDestination::ThisMachine)),
            ("http://auth.kimi.com", None),
            ("http://127.0.0.1.example.com", None),
            ("http://localhost@example.com", None),
            ("file:///etc/passwd", None),
            ("auth.kimi.com", None),
            ("https://api.kimi.com/coding/v1/", None),
            ("https://api.kimi.com/coding/v1?to=you", None),
            ("https://api.kimi.com/coding/v1#end", None),
        ] {
            assert_eq!(LoginDestination::from_base_url(base).ok(), expected, "{base}");
        }
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_not_sent() {
        assert!(bearer_header(&Secret::new("two\nlines".to_owned())).is_none());
        let header = bearer_header(&Secret::new("abc".to_owned())).unwrap();
        assert_eq!(header.to_str().ok(), Some("Bearer abc"));
        assert!(header.is_sensitive());
    }
}
