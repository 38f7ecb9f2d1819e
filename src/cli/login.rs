//! `nanokimi login`: logs in to Kimi on the server itself, by a code that a person takes to Kimi's page in any browser;
//! shows the login and what is left of the plan, and removes it.
//!
//! Works beside a running service, which takes the new login up by itself. No token is ever shown.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::auth::qr::{self, Drawing, Room};
use super::install::{self, Install};
use super::{log, ui};
use crate::auth::{
    self, Amount, DeviceCode, Facts, Grant, Limit, LoginServer, Pacing, Poll, Quota, Removed, Renewal,
    config_toml,
};
use crate::checks;
use crate::home;
use crate::store::InstanceLock;
use crate::types::{Authorization, Secret};

/// How often the time that is left is counted down.
const TICK: Duration = Duration::from_secs(1);
/// Lines that stand below the QR code.
const BELOW: usize = 2;
const WHERE_TO_END_IT: &str = "https://www.kimi.com";

#[derive(clap::Args)]
pub struct Arguments {
    /// Show whose login there is, who renews it, and what is left of the plan
    #[arg(long, conflicts_with = "logout")]
    status: bool,
    /// Remove the login from this machine
    #[arg(long)]
    logout: bool,
}

pub async fn run(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start("error");
    if arguments.status {
        return status(install).await;
    }
    if arguments.logout {
        install.refuse_root()?;
        return log_out(install).await;
    }
    if install.config.api_key.is_some() {
        bail!(
            "MOONSHOT_API_KEY is set, and with it a Kimi login would be ignored; take the key out of {} to use a login",
            install.paths.env_file().display()
        );
    }
    install.refuse_root()?;
    log_in(install).await
}

async fn log_in(install: &Install) -> Result<ExitCode> {
    home::prepare(&install.paths)?;
    let file = install.paths.login_file();
    // Before the person goes to the browser for something that could not be kept.
    auth::try_room(&file).await?;
    if let Authorization::Login(_) = &*install.login().authorization().borrow() {
        ui::note("There is a Kimi login already. It stays until the new one is there.");
    }
    let asked = install::asked_to_stop()?;
    let server = LoginServer::new(&install.config.oauth_host, install.paths.device_id());
    let mut asked = pin!(asked);
    let code = tokio::select! {
        code = server.device_code() => code.map_err(|error| {
            anyhow!("Kimi's login server gives no code ({}); {}", checks::sentence(&error), how_to_reach(&server))
        })?,
        () = &mut asked => return Ok(given_up()),
    };
    let until = Instant::now() + code.good_for;
    if let (Some(ours), Some(theirs)) = (region(server.host()), region(&code.page_with_code))
        && ours != theirs
    {
        ui::note(format!(
            "Kimi's login page is at kimi.{theirs}, but KIMI_REGION is {ours}: if your account is at kimi.{theirs}, put \
             KIMI_REGION={theirs} into {} and run this again.",
            install.paths.env_file().display()
        ));
    }
    let screen = Screen::show(&code)?;
    let (trouble, seen_trouble) = watch::channel(None);
    let mut asking = pin!(timeout_at(until, ask(&server, &code, trouble)));
    let mut second = interval(TICK);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            ended = &mut asking => break ended.unwrap_or(Ended::TooLate),
            _ = second.tick() => screen.count_down(until, seen_trouble.borrow().as_deref()),
            () = &mut asked => {
                screen.done();
                return Ok(given_up());
            }
        }
    };
    screen.done();
    match ended {
        Ended::Granted(grant) => logged_in(install, grant).await,
        Ended::Denied => {
            bail!("The login was refused on Kimi's page; run `nanokimi login` again if that was a mistake")
        }
        Ended::Refused(why) => bail!(
            "Kimi's login server does not want this program ({why}); a newer nanokimi may know how to ask. \
             MOONSHOT_API_KEY in .env works without a login"
        ),
        Ended::TooLate => {
            let trouble = seen_trouble.borrow().clone();
            match trouble {
                Some(why) => {
                    bail!("Kimi's login server did not answer in time ({why}); {}", how_to_reach(&server))
                }
                None => bail!("Nobody agreed on Kimi's page in time; run `nanokimi login` again"),
            }
        }
    }
}

/// The region of Kimi that an address is of, as `KIMI_REGION` has it.
fn region(address: &str) -> Option<&'static str> {
    let host = format!(".{}", address.split('/').nth(2)?);
    ["com", "ai"].into_iter().find(|region| host.ends_with(&format!(".kimi.{region}")))
}

fn how_to_reach(server: &LoginServer) -> String {
    format!(
        "check this machine's connection with `curl -I {}`, then run `nanokimi login` again",
        server.host()
    )
}

fn given_up() -> ExitCode {
    ui::note("Nobody was logged in. `nanokimi login` begins anew.");
    ExitCode::FAILURE
}

/// What came of the code.
enum Ended {
    Granted(Grant),
    Denied,
    Refused(String),
    /// The code has run out.
    TooLate,
}

/// Asks until there is an answer. `trouble` has why the server gives none now.
async fn ask(server: &LoginServer, code: &DeviceCode, trouble: watch::Sender<Option<String>>) -> Ended {
    let mut pacing = Pacing::new(code.interval);
    let mut pause = code.interval;
    loop {
        sleep(pause).await;
        let answer = server.poll(code).await;
        pause = pacing.after(&answer);
        match answer {
            Poll::Granted(grant) => return Ended::Granted(grant),
            Poll::Denied => return Ended::Denied,
            Poll::Refused(why) => return Ended::Refused(why),
            Poll::Expired => {
                trouble.send_replace(None);
                return Ended::TooLate;
            }
            Poll::Pending | Poll::SlowDown => trouble.send_replace(None),
            Poll::Failed(why) => trouble.send_replace(Some(why)),
        };
    }
}

async fn logged_in(install: &Install, grant: Grant) -> Result<ExitCode> {
    auth::save(&install.paths.login_file(), grant, install.clock.now()).await?;
    ui::note("Logged in to Kimi.");
    let next = match InstanceLock::holder(&install.paths.lock_file())? {
        Some(holder) => format!("nanokimi ({holder}) takes it up within half a minute and keeps it fresh."),
        None => "nanokimi keeps it fresh while it runs. Next: `nanokimi doctor`".to_owned(),
    };
    ui::note(next);
    if let Err(error) = config_toml::ensure(&install.paths.engine_config()) {
        ui::note(format!("{}. Mend it, or remove it to get a new one.", checks::sentence(&error)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(install: &Install) -> Result<ExitCode> {
    let login = install.login();
    let authorization = login.authorization().borrow().clone();
    let token = match authorization {
        Authorization::Login(token) => token,
        Authorization::ApiKey(_) => {
            ui::note("MOONSHOT_API_KEY is used; a Kimi login would be ignored.");
            return Ok(ExitCode::SUCCESS);
        }
        Authorization::Missing(why) => bail!(why),
    };
    let Some(facts) = login.facts() else { bail!("The login was removed meanwhile") };
    let holder = InstanceLock::holder(&install.paths.lock_file())?;
    let now = install.clock.now();
    let asked = if facts.expires_at > now { Some(quota(install, &token).await) } else { None };
    let rows = rows(&facts, asked.as_ref(), holder.as_deref(), now, install);
    ui::table(&rows.into_iter().map(|(name, value)| vec![name, value]).collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}

async fn quota(install: &Install, token: &Secret) -> Result<Quota> {
    auth::quota(&install.config.api_base, token).await
}

/// What is known of a login; `quota` is none where its token is too old to ask with.
fn rows(
    facts: &Facts,
    quota: Option<&Result<Quota>>,
    holder: Option<&str>,
    now: Timestamp,
    install: &Install,
) -> Vec<(String, String)> {
    let zone = &install.config.zone;
    let told = quota.and_then(|quota| quota.as_ref().ok());
    let account = told.and_then(|quota| quota.account.clone()).or_else(|| facts.claimed_account.clone());
    let account = account.map_or_else(|| "not told".to_owned(), |account| ui::plain(&account));
    let plan = told.and_then(|quota| quota.plan.as_deref()).map(|plan| format!(" ({})", ui::plain(plan)));
    let until = checks::time(facts.expires_at, zone);
    let token = match facts.renewal {
        Renewal::Impossible => format!("good until {until}, and then no more"),
        Renewal::Possible if facts.expires_at > now => format!("good until {until}, renewed before that"),
        Renewal::Possible => format!("expired {until}, renewed at the next start"),
    };
    let renewed_by = match (facts.renewal, holder) {
        (Renewal::Impossible, _) => "nobody: it came without a refresh token".to_owned(),
        (Renewal::Possible, Some(holder)) => holder.to_owned(),
        (Renewal::Possible, None) => "nobody now: the service does not run".to_owned(),
    };
    let mut rows = vec![
        ("account".to_owned(), account + &plan.unwrap_or_default()),
        ("token".to_owned(), token),
        ("renewed by".to_owned(), renewed_by),
    ];
    match quota {
        Some(Ok(Quota { limits, .. })) if limits.is_empty() => {
            rows.push(("quota".to_owned(), "not told".to_owned()));
        }
        Some(Ok(Quota { limits, .. })) => rows.extend(limits.iter().map(|limit| {
            let name = limit.name.as_deref().map(|name| format!(", {}", ui::plain(name))).unwrap_or_default();
            (format!("quota{name}"), left(limit, zone))
        })),
        Some(Err(error)) => rows.push(("quota".to_owned(), format!("not told: {}", checks::sentence(error)))),
        None => rows.push(("quota".to_owned(), "not asked for: the token has expired".to_owned())),
    }
    rows
}

fn left(limit: &Limit, zone: &jiff::tz::TimeZone) -> String {
    let Limit { left_percent, amount, contradicted_by, resets_at, .. } = limit;
    let amount =
        amount.map(|Amount { used, limit }| format!(" ({used} of {limit} used)")).unwrap_or_default();
    let other = contradicted_by.map(|other| format!(", or {other} % by another figure of Kimi's"));
    let left = format!("{left_percent} % left{amount}{}", other.unwrap_or_default());
    match resets_at {
        Some(at) => format!("{left}, anew {}", checks::time(*at, zone)),
        None => left,
    }
}

async fn log_out(install: &Install) -> Result<ExitCode> {
    if !install.paths.credentials().is_dir() {
        ui::note("Nobody is logged in to Kimi.");
        return Ok(ExitCode::SUCCESS);
    }
    let facts = install.login().facts();
    match auth::remove(&install.paths.login_file()).await? {
        Removed::Nothing => ui::note("Nobody is logged in to Kimi."),
        Removed::Login => {
            let until = facts.map(|facts| checks::time(facts.expires_at, &install.config.zone));
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            ui::note("Removed the Kimi login from this machine. `nanokimi login` makes another one.");
            ui::note(format!(
                "Kimi does not know: its last token is good{until}, and whoever has a copy of the file can renew it. Your \
                 account on {WHERE_TO_END_IT} is where a login is ended."
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the code is shown.
enum Screen {
    /// The last line counts down.
    Terminal,
    Pipe,
}

impl Screen {
    fn show(code: &DeviceCode) -> Result<Self> {
        words(code).iter().for_each(ui::note);
        let Some((rows, columns)) = ui::room() else {
            ui::note(format!("Waiting for you to agree, for {}.", time(code.good_for)));
            return Ok(Self::Pipe);
        };
        // Without it the address is as good.
        if let Drawing::Drawn { lines, .. } =
            qr::draw(&code.page_with_code, Room { rows: rows.saturating_sub(BELOW), columns })?
        {
            ui::note_code(&lines);
        }
        Ok(Self::Terminal)
    }

    fn count_down(&self, until: Instant, trouble: Option<&str>) {
        match self {
            Self::Terminal => {
                let left = time(until.saturating_duration_since(Instant::now()));
                ui::in_place(match trouble {
                    Some(_) => format!(
                        "Kimi's login server does not answer; trying again. {left} left; Ctrl-C ends."
                    ),
                    None => format!("Waiting for you to agree. {left} left; Ctrl-C ends."),
                });
            }
            Self::Pipe => {}
        }
    }

    fn done(&self) {
        match self {
            Self::Terminal => ui::in_place(""),
            Self::Pipe => {}
        }
    }
}

fn words(code: &DeviceCode) -> [String; 5] {
    [
        "Open this page in any browser, on any device, and agree there:".to_owned(),
        String::new(),
        format!("    {}", code.page_with_code),
        String::new(),
        format!("It must show the code {}; where it asks for one, type it in.", code.user_code),
    ]
}

/// Whole seconds, the one that has begun too: "29 min 41 s".
fn time(left: Duration) -> String {
    let seconds = left.as_millis().div_ceil(1000);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_tells_its_region() {
        for (address, expected) in [
            ("https://auth.kimi.com", Some("com")),
            ("https://www.kimi.ai/code/authorize_device?user_code=A", Some("ai")),
            ("https://kimi.ai/x", Some("ai")),
            ("https://notkimi.ai/x", None),
            ("https://kimi.ai.example.com", None),
            ("https://example.com/www.kimi.ai", None),
            ("http://127.0.0.1:9", None),
            ("kimi.ai", None),
        ] {
            assert_eq!(region(address), expected, "{address}");
        }
    }
}
