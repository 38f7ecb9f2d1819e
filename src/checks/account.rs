//! The Kimi account: the engine's configuration, whether there is a login that Kimi accepts, and whether a renewed one
//! could be kept.

use anyhow::Error;
use jiff::Timestamp;

use super::{Finding, sentence};
use crate::auth::{Login, Obstacle, Renewal, Verdict, config_toml, obstacle_to_saving, probe};
use crate::config::Config;
use crate::paths::Paths;
use crate::types::Authorization;

/// Looks at the engine's configuration and the login, and asks Kimi about the login.
pub async fn account(paths: &Paths, config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![engine(paths)];
    let login = Login::load(paths, config.api_key.as_ref(), &config.oauth_host, now);
    let authorization = login.authorization().borrow().clone();
    findings.push(match (&authorization, &config.api_key) {
        (Authorization::Login(_), _) if waits_for_renewal(&login, now) => Finding::good(
            "There is a login for the Kimi API; its token has expired, and is renewed when nanokimi runs",
        ),
        (Authorization::ApiKey(token) | Authorization::Login(token), _) => {
            verdict(probe(&config.api_base, token).await, config)
        }
        (Authorization::Missing(why), Some(_)) => Finding::broken(why, "Copy the key again"),
        (Authorization::Missing(why), None) => {
            Finding::broken(why, format!("Or put MOONSHOT_API_KEY=sk-… into {}", paths.env_file().display()))
        }
    });
    // A key is never renewed.
    if config.api_key.is_none() {
        findings.extend(keeping(paths));
    }
    findings
}

/// A token lives for minutes; where the service was stopped for longer, its end says nothing of the login.
fn waits_for_renewal(login: &Login, now: Timestamp) -> bool {
    login.facts().is_some_and(|facts| facts.expires_at <= now && facts.renewal == Renewal::Possible)
}

fn engine(paths: &Paths) -> Finding {
    let path = paths.engine_config();
    if !path.exists() {
        return Finding::good("The engine's config.toml will be written at the first start");
    }
    match config_toml::check_file(&path) {
        Ok(()) => Finding::good("The engine's config.toml is good"),
        Err(error) => Finding::broken(sentence(&error), "Mend it, or remove it to get a new one"),
    }
}

fn verdict(verdict: Verdict, config: &Config) -> Finding {
    let base = &config.api_base;
    match (verdict, &config.api_key) {
        (Verdict::Accepted, _) => Finding::good("There is a login for the Kimi API, and Kimi accepts it"),
        (Verdict::NotAccepted, None) => Finding::broken(
            "Kimi does not accept the login (401): it was ended there, or another program has renewed it",
            "Start nanokimi, which renews it; should that not help, run `nanokimi login`",
        ),
        (Verdict::NotAccepted, Some(_)) => Finding::broken(
            "Kimi does not accept the key of MOONSHOT_API_KEY (401): it was revoked, or is of another platform",
            "Make a new one on the platform's page; a key from China needs MOONSHOT_BASE_URL=https://api.moonshot.cn/v1",
        ),
        (Verdict::Refused, _) => Finding::broken(
            "Kimi refuses this account, or this version of nanokimi (403)",
            "Look at the account's plan on Kimi's page; if that is good, install a newer nanokimi",
        ),
        (Verdict::Busy { status }, _) => Finding::warning(
            format!("Kimi answers, but only that it is busy or out of order ({status})"),
            "Wait a few minutes, and run this again",
        ),
        (Verdict::Strange { status }, _) => Finding::warning(
            format!("What answers at {base} is not the Kimi API ({status})"),
            "Mend KIMI_CODE_BASE_URL or MOONSHOT_BASE_URL in .env, or leave them out",
        ),
        (Verdict::Unreachable(why), _) => Finding::warning(
            format!(
                "The Kimi API at {base} cannot be reached, so nobody knows whether it accepts the login: {why}"
            ),
            format!("Check this machine's connection with curl -I {base}; behind a proxy, set HTTPS_PROXY"),
        ),
    }
}

/// What would keep a renewed login from being saved.
fn keeping(paths: &Paths) -> Option<Finding> {
    let folder = paths.credentials();
    let folder = folder.display();
    Some(match obstacle_to_saving(paths)? {
        Obstacle::MountedFile => Finding::broken(
            format!(
                "{} is mounted as a single file, so a renewed login could not be saved in its place",
                paths.login_file().display()
            ),
            format!("Mount its folder {folder} instead"),
        ),
        Obstacle::Folder(error) => {
            let why = sentence(&Error::new(error));
            // What helps against such errors elsewhere is of no help here.
            let why = why.split(';').next().unwrap_or(&why);
            Finding::broken(
                format!("A renewed login could not be saved in {folder}: {why}"),
                "Make that folder writable for the user who runs nanokimi, before the login is renewed: the old one is \
                 void then",
            )
        }
    })
}
