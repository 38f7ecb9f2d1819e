//! `nanokimi login`: logs in to Kimi on the server itself, by a code that a person takes to Kimi's page in
//! any browser; shows the login and what is left of the plan, and removes it.
//!
//! Works beside a running service, which takes up the new login by itself. No token is ever shown.

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::auth::qr::{self, QrDrawing, TerminalSize};
use super::install::{self, Install};
use super::{log, ui};
use crate::checks;
use crate::folders;
use crate::login::{
    self, AccountRecord, AccountRecords, DeviceCode, LoginFacts, LoginRenewal, LoginServer, LogoutResult,
    PollBackoff, PollResult, Quota, QuotaAmount, QuotaLimit, TokenGrant, config_toml,
};
use crate::store::InstanceLock;
use crate::types::{AccountId, AccountName, Authorization, Secret};

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
    /// Log in with a further account, or anew with one that is there
    #[arg(long, value_name = "NAME", value_parser = ui::parse_typed_text, conflicts_with_all = ["status", "logout"])]
    account: Option<String>,
    /// The region of Kimi that a further account is of [default: KIMI_REGION]
    #[arg(long, value_name = "REGION", value_parser = ["com", "ai"], requires = "account")]
    region: Option<String>,
}

pub async fn run_login_command(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start_log("error");
    if arguments.status {
        return print_login_status(install).await;
    }
    if arguments.logout {
        install.refuse_root()?;
        return log_out_of_kimi(install).await;
    }
    if install.config.api_key.is_some() {
        bail!(
            "MOONSHOT_API_KEY is set, and with it a Kimi login would be ignored; take the key out of {} to use a login",
            install.paths.env_file().display()
        );
    }
    install.refuse_root()?;
    folders::prepare_install_folders(&install.paths)?;
    let target = match arguments.account {
        Some(name) => LoginTarget::of_account(install, AccountName::parse(&name)?, arguments.region)?,
        None => LoginTarget::first(install),
    };
    let new = target.new_account.as_ref().map(|record| record.id.clone());
    let done = log_in_to_kimi(install, target).await;
    // Whatever kept a new account from being listed: nothing of it stays.
    if let Some(id) = new {
        login::forget_unlisted_account(&install.paths, &id)?;
    }
    done
}

/// The account that a person logs in with.
struct LoginTarget {
    account: AccountId,
    file: PathBuf,
    server: LoginServer,
    /// It is listed once its login is there.
    new_account: Option<AccountRecord>,
    has_login: bool,
}

impl LoginTarget {
    fn first(install: &Install) -> Self {
        let now = install.load_login().watch_authorization().borrow().clone();
        Self {
            account: AccountId::first(),
            file: install.paths.login_file(),
            server: LoginServer::new(&install.config.oauth_host, install.paths.device_id_file()),
            new_account: None,
            has_login: matches!(now, Authorization::Login(_)),
        }
    }

    fn of_account(install: &Install, name: AccountName, region: Option<String>) -> Result<Self> {
        let records = AccountRecords::read(&install.paths.accounts_file())?;
        let known = records.accounts.iter().find(|record| record.name.is_same(&name));
        if let Some(known) = known {
            if known.id == AccountId::first() {
                return Ok(Self::first(install));
            }
            if region.is_some() && region != known.region {
                bail!("The account {} is of another region; remove it first", known.name);
            }
            return Ok(Self::further(install, known, None));
        }
        if records.accounts.len() >= login::ACCOUNTS_MAX {
            bail!("There are {} accounts already; remove one first", login::ACCOUNTS_MAX);
        }
        let record =
            AccountRecord { region, ..login::prepare_account(&install.paths, name, install.clock.now())? };
        Ok(Self::further(install, &record, Some(record.clone())))
    }

    fn further(install: &Install, record: &AccountRecord, new_account: Option<AccountRecord>) -> Self {
        let hosts = install.kimi_hosts().for_region(record.region.as_deref());
        let files = login::AccountFiles::of(&install.paths, &record.id);
        Self {
            account: record.id.clone(),
            has_login: files.login.exists(),
            file: files.login,
            server: LoginServer::new(&hosts.oauth_host, files.device_id),
            new_account,
        }
    }
}

async fn log_in_to_kimi(install: &Install, target: LoginTarget) -> Result<ExitCode> {
    let server = &target.server;
    // Before the person goes to the browser for something that could not be kept.
    login::check_space_for_login(&target.file).await?;
    if target.has_login {
        ui::print_info("There is a Kimi login already. It stays until the new one is there.");
    }
    let asked = install::listen_for_stop_signal()?;
    let mut asked = pin!(asked);
    let code = tokio::select! {
        code = server.request_device_code() => code.map_err(|error| {
            anyhow!("Kimi's login server gives no code ({}); {}", checks::render_error(&error), how_to_reach_server(server))
        })?,
        () = &mut asked => return Ok(report_login_cancelled()),
    };
    let until = Instant::now() + code.good_for;
    if let (Some(ours), Some(theirs)) = (kimi_region(server.host()), kimi_region(&code.page_with_code))
        && ours != theirs
    {
        ui::print_info(format!(
            "Kimi's login page is at kimi.{theirs}, but KIMI_REGION is {ours}: if your account is at kimi.{theirs}, put \
             KIMI_REGION={theirs} into {} and run this again.",
            install.paths.env_file().display()
        ));
    }
    let screen = LoginScreen::show_code(&code)?;
    let (trouble, seen_trouble) = watch::channel(None);
    let mut asking = pin!(timeout_at(until, poll_for_grant(server, &code, trouble)));
    let mut second = interval(TICK);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            ended = &mut asking => break ended.unwrap_or(LoginOutcome::TooLate),
            _ = second.tick() => screen.count_down(until, seen_trouble.borrow().as_deref()),
            () = &mut asked => {
                screen.clear_countdown();
                return Ok(report_login_cancelled());
            }
        }
    };
    screen.clear_countdown();
    match ended {
        LoginOutcome::Granted(grant) => save_granted_login(install, grant, &target).await,
        LoginOutcome::Denied => {
            bail!("The login was refused on Kimi's page; run `nanokimi login` again if that was a mistake")
        }
        LoginOutcome::Refused(why) => bail!(
            "Kimi's login server does not want this program ({why}); a newer nanokimi may know how to ask. \
             MOONSHOT_API_KEY in .env works without a login"
        ),
        LoginOutcome::TooLate => {
            let trouble = seen_trouble.borrow().clone();
            match trouble {
                Some(why) => {
                    bail!(
                        "Kimi's login server did not answer in time ({why}); {}",
                        how_to_reach_server(server)
                    )
                }
                None => bail!("Nobody agreed on Kimi's page in time; run `nanokimi login` again"),
            }
        }
    }
}

/// The region of Kimi that an address is of, as `KIMI_REGION` has it.
fn kimi_region(address: &str) -> Option<&'static str> {
    let host = format!(".{}", address.split('/').nth(2)?);
    ["com", "ai"].into_iter().find(|region| host.ends_with(&format!(".kimi.{region}")))
}

fn how_to_reach_server(server: &LoginServer) -> String {
    format!(
        "check this machine's connection with `curl -I {}`, then run `nanokimi login` again",
        server.host()
    )
}

fn report_login_cancelled() -> ExitCode {
    ui::print_info("Nobody was logged in. `nanokimi login` begins anew.");
    ExitCode::FAILURE
}

/// What came of the code.
enum LoginOutcome {
    Granted(TokenGrant),
    Denied,
    Refused(String),
    /// The code has run out.
    TooLate,
}

/// Asks until there is an answer. `trouble` has the reason why the server gives no answer now.
async fn poll_for_grant(
    server: &LoginServer,
    code: &DeviceCode,
    trouble: watch::Sender<Option<String>>,
) -> LoginOutcome {
    let mut pacing = PollBackoff::new(code.interval);
    let mut pause = code.interval;
    loop {
        sleep(pause).await;
        let answer = server.poll_device_grant(code).await;
        pause = pacing.delay_after_answer(&answer);
        match answer {
            PollResult::Granted(grant) => return LoginOutcome::Granted(grant),
            PollResult::Denied => return LoginOutcome::Denied,
            PollResult::Refused(why) => return LoginOutcome::Refused(why),
            PollResult::Expired => {
                trouble.send_replace(None);
                return LoginOutcome::TooLate;
            }
            PollResult::Pending | PollResult::SlowDown => trouble.send_replace(None),
            PollResult::Failed(why) => trouble.send_replace(Some(why)),
        };
    }
}

async fn save_granted_login(install: &Install, grant: TokenGrant, target: &LoginTarget) -> Result<ExitCode> {
    let claimed = login::parse_claimed_account(grant.access_token());
    // One account in two places would be renewed in one of them, and be lost in the other.
    if let Some(same) = install.load_accounts().named_like(claimed.as_deref(), &target.account) {
        bail!("This is the Kimi account of {same}: log in with another one on Kimi's page");
    }
    login::save_login(&target.file, grant, install.clock.now()).await?;
    match target.new_account.clone() {
        Some(record) => {
            let name = record.name.clone();
            let several = AccountRecords::read(&install.paths.accounts_file())?.accounts.len() == 1;
            login::list_account(&install.paths, AccountRecord { claimed, ..record }).await?;
            ui::print_info(format!("Logged in to Kimi with the account {name}."));
            if several {
                super::accounts::print_several_accounts_hint();
            }
        }
        None => {
            login::note_new_login(&install.paths, &target.account, claimed).await?;
            ui::print_info("Logged in to Kimi.");
        }
    }
    let next = match InstanceLock::current_holder(&install.paths.lock_file())? {
        Some(holder) => format!("nanokimi ({holder}) takes it up within half a minute and keeps it fresh."),
        None => "nanokimi keeps it fresh while it runs. Next: `nanokimi doctor`".to_owned(),
    };
    ui::print_info(next);
    if let Err(error) = config_toml::ensure_engine_config(&install.paths.engine_config_file()) {
        ui::print_info(format!("{}. Mend it, or remove it to get a new one.", checks::render_error(&error)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn print_login_status(install: &Install) -> Result<ExitCode> {
    let login = install.load_login();
    let authorization = login.watch_authorization().borrow().clone();
    let token = match authorization {
        Authorization::Login(token) => token,
        Authorization::ApiKey(_) => {
            ui::print_info("MOONSHOT_API_KEY is used; a Kimi login would be ignored.");
            return Ok(ExitCode::SUCCESS);
        }
        Authorization::Missing(why) => bail!(why),
    };
    let Some(facts) = login.login_facts() else { bail!("The login was removed meanwhile") };
    let holder = InstanceLock::current_holder(&install.paths.lock_file())?;
    let now = install.clock.now();
    let asked = if facts.expires_at > now { Some(query_plan_quota(install, &token).await) } else { None };
    let rows = login_status_rows(&facts, asked.as_ref(), holder.as_deref(), now, install);
    ui::print_table(&rows.into_iter().map(|(name, value)| vec![name, value]).collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}

async fn query_plan_quota(install: &Install, token: &Secret) -> Result<Quota> {
    login::fetch_quota(&install.config.api_base, token).await
}

/// What is known of a login; `quota` is `None` if its token is too old to ask with.
fn login_status_rows(
    facts: &LoginFacts,
    quota: Option<&Result<Quota>>,
    holder: Option<&str>,
    now: Timestamp,
    install: &Install,
) -> Vec<(String, String)> {
    let zone = &install.config.zone;
    let known = quota.and_then(|quota| quota.as_ref().ok());
    let account = known.and_then(|quota| quota.account.clone()).or_else(|| facts.claimed_account.clone());
    let account = account.map_or_else(|| "not told".to_owned(), |account| ui::sanitize_name(&account));
    let plan =
        known.and_then(|quota| quota.plan.as_deref()).map(|plan| format!(" ({})", ui::sanitize_name(plan)));
    let until = checks::render_time(facts.expires_at, zone);
    let token = match facts.renewal {
        LoginRenewal::Impossible => format!("good until {until}, and then no more"),
        LoginRenewal::Possible if facts.expires_at > now => {
            format!("good until {until}, renewed before that")
        }
        LoginRenewal::Possible => format!("expired {until}, renewed at the next start"),
    };
    let renewed_by = match (facts.renewal, holder) {
        (LoginRenewal::Impossible, _) => "nobody: it came without a refresh token".to_owned(),
        (LoginRenewal::Possible, Some(holder)) => holder.to_owned(),
        (LoginRenewal::Possible, None) => "nobody now: the service does not run".to_owned(),
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
            let name = limit
                .name
                .as_deref()
                .map(|name| format!(", {}", ui::sanitize_name(name)))
                .unwrap_or_default();
            (format!("quota{name}"), render_quota_left(limit, zone))
        })),
        Some(Err(error)) => {
            rows.push(("quota".to_owned(), format!("not told: {}", checks::render_error(error))))
        }
        None => rows.push(("quota".to_owned(), "not asked for: the token has expired".to_owned())),
    }
    rows
}

fn render_quota_left(limit: &QuotaLimit, zone: &jiff::tz::TimeZone) -> String {
    let QuotaLimit { left_percent, amount, contradicted_by, resets_at, .. } = limit;
    let amount =
        amount.map(|QuotaAmount { used, limit }| format!(" ({used} of {limit} used)")).unwrap_or_default();
    let other = contradicted_by.map(|other| format!(", or {other} % by another figure of Kimi's"));
    let left = format!("{left_percent} % left{amount}{}", other.unwrap_or_default());
    match resets_at {
        Some(at) => format!("{left}, anew {}", checks::render_time(*at, zone)),
        None => left,
    }
}

async fn log_out_of_kimi(install: &Install) -> Result<ExitCode> {
    if !install.paths.credentials_folder().is_dir() {
        ui::print_info("Nobody is logged in to Kimi.");
        return Ok(ExitCode::SUCCESS);
    }
    let facts = install.load_login().login_facts();
    match login::remove_login(&install.paths.login_file()).await? {
        LogoutResult::Nothing => ui::print_info("Nobody is logged in to Kimi."),
        LogoutResult::Login => {
            let until = facts.map(|facts| checks::render_time(facts.expires_at, &install.config.zone));
            let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
            ui::print_info("Removed the Kimi login from this machine. `nanokimi login` makes another one.");
            ui::print_info(format!(
                "Kimi does not know: its last token is good{until}, and whoever has a copy of the file can renew it. Your \
                 account on {WHERE_TO_END_IT} is where a login is ended."
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the code is shown.
enum LoginScreen {
    /// The last line counts down.
    Terminal,
    Pipe,
}

impl LoginScreen {
    fn show_code(code: &DeviceCode) -> Result<Self> {
        render_login_instructions(code).iter().for_each(ui::print_info);
        let Some((rows, columns)) = ui::terminal_size() else {
            ui::print_info(format!("Waiting for you to agree, for {}.", render_minutes_left(code.good_for)));
            return Ok(Self::Pipe);
        };
        // Without it the address is as good.
        if let QrDrawing::Drawn { lines, .. } =
            qr::draw_qr(&code.page_with_code, TerminalSize { rows: rows.saturating_sub(BELOW), columns })?
        {
            ui::print_code(&lines);
        }
        Ok(Self::Terminal)
    }

    fn count_down(&self, until: Instant, trouble: Option<&str>) {
        match self {
            Self::Terminal => {
                let left = render_minutes_left(until.saturating_duration_since(Instant::now()));
                ui::print_in_place(match trouble {
                    Some(_) => format!(
                        "Kimi's login server does not answer; trying again. {left} left; Ctrl-C ends."
                    ),
                    None => format!("Waiting for you to agree. {left} left; Ctrl-C ends."),
                });
            }
            Self::Pipe => {}
        }
    }

    fn clear_countdown(&self) {
        match self {
            Self::Terminal => ui::print_in_place(""),
            Self::Pipe => {}
        }
    }
}

fn render_login_instructions(code: &DeviceCode) -> [String; 5] {
    [
        "Open this page in any browser, on any device, and agree there:".to_owned(),
        String::new(),
        format!("    {}", code.page_with_code),
        String::new(),
        format!("It must show the code {}; where it asks for one, type it in.", code.user_code),
    ]
}

/// Whole seconds, the one that has begun too: "29 min 41 s".
fn render_minutes_left(left: Duration) -> String {
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
            assert_eq!(kimi_region(address), expected, "{address}");
        }
    }
}
