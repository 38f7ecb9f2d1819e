//! The Kimi account: the engine's configuration, whether Kimi accepts the login, what is left of the plan,
//! what Kimi has last refused, and whether a renewed login could be saved.

use anyhow::Error;
use jiff::Timestamp;

use super::{Finding, render_error, render_time};
use crate::config::Config;
use crate::login::{
    self, AccountLogin, AccountRecords, Accounts, Login, LoginRenewal, ProbeResult, QuotaLimit,
    WriteObstacle, check_writable, config_toml, probe_login,
};
use crate::paths::Paths;
use crate::store::Store;
use crate::types::{Authorization, KimiHosts, Outage, Secret, Trouble};

/// What to do when the plan is used up.
const QUOTA_FIX: &str = "Wait until it begins anew, which `nanokimi login --status` tells, or buy more on the account's page at Kimi";

/// Looks at the engine's configuration and the login, and asks Kimi about the login.
pub async fn check_kimi_account(paths: &Paths, config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![check_engine_config(paths)];
    let login = Login::load_from_disk(paths, config.api_key.as_ref(), &config.oauth_host, now);
    let authorization = login.watch_authorization().borrow().clone();
    let further = load_further_accounts(paths, config, now);
    let mut accepted = None;
    findings.push(match (&authorization, &config.api_key) {
        (Authorization::Login(_), _) if is_expired_but_refreshable(&login, now) => Finding::good(
            "There is a login for the Kimi API; its token has expired, and is renewed when nanokimi runs",
        ),
        (Authorization::ApiKey(token) | Authorization::Login(token), _) => {
            let result = probe_login(&config.api_base, token).await;
            accepted = (result == ProbeResult::Accepted).then_some(token);
            probe_finding(result, config)
        }
        (Authorization::Missing(why), Some(_)) => Finding::broken(why, "Copy the key again"),
        (Authorization::Missing(why), None) if further.iter().any(AccountLogin::is_usable) => {
            Finding::warning(why, "Another account answers meanwhile; `nanokimi accounts list` shows which")
        }
        (Authorization::Missing(why), None) => {
            Finding::broken(why, format!("Or put MOONSHOT_API_KEY=sk-… into {}", paths.env_file().display()))
        }
    });
    // Kimi may refuse a turn but not the probe: it asks for the list of models, which any account gets.
    findings.extend(check_kimi_outages(paths, config).await);
    // An API key has no plan, and is never renewed.
    if config.api_key.is_none() {
        if let Some(token) = accepted {
            findings.extend(check_plan_quota(config, token).await);
        }
        findings.extend(check_login_writable(paths));
        findings.extend(check_further_accounts(paths, &further));
    }
    findings
}

/// The accounts beside the first.
fn load_further_accounts(paths: &Paths, config: &Config, now: Timestamp) -> Vec<AccountLogin> {
    let hosts = KimiHosts { oauth_host: config.oauth_host.clone(), api_base: config.api_base.clone() };
    let accounts = Accounts::load_from_disk(paths, config.api_key.as_ref(), hosts, now);
    let logins = accounts.watch_logins().borrow().clone();
    logins.accounts.into_iter().skip(1).collect()
}

/// Each account beside the first that answers nothing, and what to do. Another one answers meanwhile.
fn check_further_accounts(paths: &Paths, further: &[AccountLogin]) -> Vec<Finding> {
    if let Err(error) = AccountRecords::read(&paths.accounts_file()) {
        let fix =
            "Mend it, or remove it, and log in to each account anew with `nanokimi login --account NAME`";
        return vec![Finding::warning(render_error(&error), fix)];
    }
    let enabled = further.iter().filter(|account| account.is_enabled);
    enabled
        .filter_map(|account| match &*account.authorization.borrow() {
            Authorization::Missing(why) => {
                let what = format!("The account {} answers nothing: {why}", account.name);
                Some(Finding::warning(
                    what,
                    format!("Or remove it: `nanokimi accounts remove {}`", account.name),
                ))
            }
            Authorization::ApiKey(_) | Authorization::Login(_) => None,
        })
        .collect()
}

/// A token lives for minutes. If the service was stopped for longer, an expired token says nothing of the
/// login.
fn is_expired_but_refreshable(login: &Login, now: Timestamp) -> bool {
    login
        .login_facts()
        .is_some_and(|facts| facts.expires_at <= now && facts.renewal == LoginRenewal::Possible)
}

fn check_engine_config(paths: &Paths) -> Finding {
    let path = paths.engine_config_file();
    if !path.exists() {
        return Finding::good("The engine's config.toml will be written at the first start");
    }
    match config_toml::check_config_file(&path) {
        Ok(()) => Finding::good("The engine's config.toml is good"),
        Err(error) => Finding::broken(render_error(&error), "Mend it, or remove it to get a new one"),
    }
}

/// Why Kimi has refused the service, as long as nothing was answered since.
async fn check_kimi_outages(paths: &Paths, config: &Config) -> Vec<Finding> {
    let outages = match Store::open_for_reading(&paths.database_file()) {
        Ok(Some(store)) => store.open_outages().await.unwrap_or_default(),
        // The groups' check says what is wrong with it.
        Ok(None) | Err(_) => Vec::new(),
    };
    let refusals = outages.into_iter().filter_map(|(outage, since)| {
        let (what, fix) = refusal_advice(outage.trouble())?;
        let what = format!("{what}, since {}", render_time(since, &config.zone));
        Some(if outage == Outage::RateLimited {
            Finding::warning(what, fix)
        } else {
            Finding::broken(what, fix)
        })
    });
    refusals.collect()
}

/// Why Kimi refuses an account, and what to do about it.
fn refusal_advice(trouble: Trouble) -> Option<(&'static str, &'static str)> {
    let known = [
        (
            Trouble::ClientRefused,
            "Kimi does not serve the agent program, or not in this version any more (403)",
            "Install the newest nanokimi; groups that use kimi-cli, which has ended, change over with \
             `nanokimi groups set --all --engine kimi-code`",
        ),
        (
            Trouble::AccountEnded,
            "Kimi has ended the access of this account (403)",
            "Read what Kimi has written to you, and ask its support; `nanokimi login` puts another account in its place",
        ),
        (
            Trouble::NoMembership,
            "Kimi finds no active membership for this account (402)",
            "See on the account's page at Kimi that it is active and paid",
        ),
        (
            Trouble::Refused,
            "Kimi refuses this account or the agent program, and does not say why (403)",
            "Look at the account's page at Kimi; if all is well there, install the newest nanokimi",
        ),
        (Trouble::QuotaUsedUp, "Kimi says that what the plan holds is used up", QUOTA_FIX),
        (
            Trouble::RateLimited,
            "Kimi was asked more than it allows at once (429)",
            "That ends by itself; if it happens often, look at the account's plan at Kimi",
        ),
        (
            Trouble::ModelRefused,
            "Kimi does not give the model that is set (404)",
            "Check KIMI_MODEL in .env and the models in data/credentials/config.toml",
        ),
    ];
    known.into_iter().find(|(known, ..)| *known == trouble).map(|(_, what, fix)| (what, fix))
}

/// What is left of the plan, if Kimi tells it.
async fn check_plan_quota(config: &Config, token: &Secret) -> Option<Finding> {
    let limits = login::fetch_quota(&config.api_base, token).await.ok()?.limits;
    let left = limits.iter().map(|limit| {
        let QuotaLimit { name, left_percent: left, contradicted_by, .. } = limit;
        let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        match contradicted_by {
            Some(other) => format!("{left} or {other} %{name}, by two figures of Kimi's"),
            None => format!("{left} %{name}"),
        }
    });
    let left = left.collect::<Vec<_>>().join(", ");
    let what = format!("Left of the plan: {left}");
    if limits.iter().any(|limit| limit.left_percent == 0) {
        return Some(Finding::warning(what, QUOTA_FIX));
    }
    (!limits.is_empty()).then(|| Finding::good(what))
}

fn probe_finding(result: ProbeResult, config: &Config) -> Finding {
    let base = &config.api_base;
    match (result, &config.api_key) {
        (ProbeResult::Accepted, _) => Finding::good("There is a login for the Kimi API, and Kimi accepts it"),
        (ProbeResult::NotAccepted, None) => Finding::broken(
            "Kimi does not accept the login (401): it was ended there, or another program has renewed it",
            "Start nanokimi, which renews it; should that not help, run `nanokimi login`. An account of kimi.ai needs \
             KIMI_REGION=ai in .env",
        ),
        (ProbeResult::NotAccepted, Some(_)) => Finding::broken(
            "Kimi does not accept the key of MOONSHOT_API_KEY (401): it was revoked, or is of another platform",
            "Make a new one on the platform's page; a key from China needs MOONSHOT_BASE_URL=https://api.moonshot.cn/v1",
        ),
        (ProbeResult::Refused(trouble), _) => {
            let (what, fix) = refusal_advice(trouble).unwrap_or(("Kimi refuses this account", ""));
            Finding::broken(what, fix)
        }
        (ProbeResult::Busy { status }, _) => Finding::warning(
            format!("Kimi answers, but only that it is busy or out of order ({status})"),
            "Wait a few minutes, and run this again",
        ),
        (ProbeResult::Strange { status }, _) => Finding::warning(
            format!("What answers at {base} is not the Kimi API ({status})"),
            "Mend KIMI_CODE_BASE_URL or MOONSHOT_BASE_URL in .env, or leave them out",
        ),
        (ProbeResult::Unreachable(why), _) => Finding::warning(
            format!(
                "The Kimi API at {base} cannot be reached, so nobody knows whether it accepts the login: {why}"
            ),
            format!("Check this machine's connection with curl -I {base}; behind a proxy, set HTTPS_PROXY"),
        ),
    }
}

/// What would keep a renewed login from being saved.
fn check_login_writable(paths: &Paths) -> Option<Finding> {
    let folder = paths.credentials_folder();
    let folder = folder.display();
    Some(match check_writable(paths)? {
        WriteObstacle::MountedFile => Finding::broken(
            format!(
                "{} is mounted as a single file, so a renewed login could not be saved in its place",
                paths.login_file().display()
            ),
            format!("Mount its folder {folder} instead"),
        ),
        WriteObstacle::Folder(error) => {
            let why = render_error(&Error::new(error));
            // The usual advice for such errors is of no help here.
            let why = why.split(';').next().unwrap_or(&why);
            Finding::broken(
                format!("A renewed login could not be saved in {folder}: {why}"),
                "Make that folder writable for the user who runs nanokimi, before the login is renewed: the old one is \
                 void then",
            )
        }
    })
}
