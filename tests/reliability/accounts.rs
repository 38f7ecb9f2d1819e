//! Four Kimi accounts behind the gateway: their tokens live for seconds, and their allowances run out in turn. Clients
//! ask all the time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::tz::TimeZone;
use nanokimi::clock::Clock;
use nanokimi::folders;
use nanokimi::gateway::{Gateway, GatewayServer, GatewaySetup, KimiApi, KimiCliHeaders, generate_client_key};
use nanokimi::login::{self, AccountFiles, AccountRecords, Accounts};
use nanokimi::panics::lock_unpoisoned;
use nanokimi::paths::Paths;
use nanokimi::practice::Practice;
use nanokimi::relay::{KimiUpstream, run_account_upkeep};
use nanokimi::store::Store;
use nanokimi::types::{AccountName, ClientIdentity, GatewayAddress, GatewayKey, KeyName, KimiHosts};
use serde_json::{Value, json};
use support::login_server::{LoginTerms, MockLoginServer};
use support::raw_http::{RawAnswer, RawConnection};
use support::scripted_model::start_scripted_model;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::limited_kimi::{ACCOUNTS, KimiCounts, LAST_RETRY_AFTER_SECS, LimitedKimi};

/// How long an access token lives. It is renewed at half of that.
const LIFETIME: Duration = Duration::from_secs(6);
/// A renewal that comes sooner than this was one too many.
const PERIOD_MIN: Duration = Duration::from_millis(2_900);
/// The names of the accounts, the first of which an install has by itself.
const NAMES: [&str; ACCOUNTS] = ["first", "ana", "ben", "cleo"];
const CLIENTS: usize = 6;
/// Between an answer and a client's next request.
const PAUSE: Duration = Duration::from_millis(30);
/// Requests of one conversation, after which a client begins another.
const CONVERSATION: usize = 25;
/// The most requests of a client, however long the run is.
const REQUESTS_MAX: usize = 20_000;
/// How long any request may take; all accounts together are limited for 5 s at most.
const PATIENCE: Duration = Duration::from_secs(40);
/// How much of the log is shown when a request is not answered.
const LOG_LINES_SHOWN: usize = 60;
/// Requests of each client after all accounts are limited for long.
const LAST_REQUESTS: usize = 3;

/// Runs it as a process of its own, whose whole log is caught.
pub async fn run_in_own_process(length: Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("accounts").arg(length.as_secs().to_string()).stdin(Stdio::null()).kill_on_drop(true);
    assert!(command.status().await.unwrap().success(), "the run with four accounts failed");
}

pub async fn run(length: Duration) {
    let log = CaughtLog::default();
    let (lines, catch) = (tracing_subscriber::fmt().with_ansi(false), log.clone());
    lines.with_max_level(tracing::Level::DEBUG).with_writer(move || catch.clone()).init();

    let world = World::start(log.clone()).await;
    let began = Instant::now();
    let results = world.ask_until(began + length).await;
    world.kimi.close();
    let refused = world.ask_when_all_are_limited().await;
    let counts = world.kimi.counts();
    let secrets = world.secrets();
    let login_server = world.login_server.clone();
    let renewals = login_server.renewals();
    let paths = world.paths.clone();
    let _folder = world.ends().await;

    check_answers(&results, &counts);
    check_refusals(&refused);
    for asked in results.iter().chain(&refused) {
        let RawAnswer { head, body } = &asked.answer;
        let found = secrets.iter().find(|secret| head.text.contains(*secret) || body.contains(*secret));
        assert_eq!(found, None, "{}: {:?}", asked.text, asked.answer);
    }
    let renewals = check_renewals(&login_server, &renewals);
    check_logins_on_disk(&paths, &login_server);
    let lines = check_log(&log, &secrets);
    report(&results, &counts, refused.len(), &renewals, lines, length);
}

/// The gateway with its accounts, between clients and Kimi.
struct World {
    paths: Paths,
    login_server: MockLoginServer,
    kimi: LimitedKimi,
    keys: Vec<String>,
    host: String,
    requests: AtomicUsize,
    stop: oneshot::Sender<()>,
    upkeep: JoinHandle<()>,
    server: JoinHandle<()>,
    log: CaughtLog,
    _practice: Practice,
    folder: TempDir,
}

/// What was logged, by all libraries, too.
#[derive(Clone, Default)]
struct CaughtLog(Arc<Mutex<Vec<u8>>>);

impl CaughtLog {
    fn text(&self) -> String {
        String::from_utf8_lossy(&lock_unpoisoned(&self.0)).into_owned()
    }

    /// Ours, without those of the libraries.
    fn last_lines(&self) -> Vec<String> {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(" nanokimi::")).collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

impl io::Write for CaughtLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock_unpoisoned(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came of a request: its text, and the answer.
struct Asked {
    text: String,
    form: RequestForm,
    answer: RawAnswer,
    took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestForm {
    Whole,
    Stream,
    Responses,
}

impl World {
    async fn start(log: CaughtLog) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        folders::prepare_install_folders(&paths).unwrap();
        let practice = start_scripted_model().await;
        let terms = LoginTerms { lifetime: LIFETIME, ..LoginTerms::default() };
        let login_server = MockLoginServer::start(&practice, terms);
        log_in(&paths, &login_server).await;
        let kimi = LimitedKimi::start(login_server.clone()).await;
        let hosts = KimiHosts { oauth_host: practice.oauth_host(), api_base: kimi.base_url.clone() };
        let accounts = Arc::new(Accounts::load_from_disk(&paths, None, hosts, Clock::System.now()));
        let upstream = KimiUpstream::of_accounts(&accounts);
        let (stop, stopped) = oneshot::channel();
        let upkeep = run_account_upkeep(accounts, upstream.account_pool(), Clock::System, stopped);
        let upkeep = tokio::spawn(upkeep);
        let store = Store::open(&paths.database_file()).unwrap();
        let keys = vec![add_key(&store, "laptop").await, add_key(&store, "desk").await];
        let gateway = Arc::new(Gateway::new(GatewaySetup {
            store,
            clock: Clock::System,
            zone: TimeZone::UTC,
            kimi: KimiApi::new(&upstream).await.unwrap(),
            kimi_cli: KimiCliHeaders {
                version: "1.12.0".to_owned(),
                device_name: "host".to_owned(),
                device_model: "Linux".to_owned(),
                os_version: "#1".to_owned(),
                device_id: "d0".to_owned(),
            },
        }));
        let address = GatewayAddress::Loopback("127.0.0.1:0".parse().unwrap());
        let server = GatewayServer::bind(&address).await.unwrap();
        let host = server.address().base_url().unwrap().replace("http://", "");
        let server = tokio::spawn(async move { match server.serve(gateway).await {} });
        Self {
            paths,
            login_server,
            kimi,
            keys,
            host,
            requests: AtomicUsize::new(0),
            stop,
            upkeep,
            server,
            log,
            _practice: practice,
            folder,
        }
    }

    /// All clients ask until then.
    async fn ask_until(&self, end: Instant) -> Vec<Asked> {
        let clients = (0..CLIENTS).map(|client| async move {
            let mut connection = RawConnection::open(&self.host).await.unwrap();
            let mut all = Vec::new();
            while Instant::now() < end && all.len() < REQUESTS_MAX {
                all.push(self.ask(&mut connection, client, all.len()).await);
                sleep(PAUSE).await;
            }
            all
        });
        futures_util::future::join_all(clients).await.into_iter().flatten().collect()
    }

    async fn ask_when_all_are_limited(&self) -> Vec<Asked> {
        let clients = (0..CLIENTS).map(|client| async move {
            let mut connection = RawConnection::open(&self.host).await.unwrap();
            let mut all = Vec::new();
            for number in 0..LAST_REQUESTS {
                all.push(self.ask(&mut connection, client, number).await);
            }
            all
        });
        futures_util::future::join_all(clients).await.into_iter().flatten().collect()
    }

    async fn ask(&self, connection: &mut RawConnection, client: usize, number: usize) -> Asked {
        let text = format!("request {} of client {client}", self.requests.fetch_add(1, Ordering::Relaxed));
        let form = [RequestForm::Whole, RequestForm::Stream, RequestForm::Responses][number % 3];
        let (line, body) = request_body(form, &text);
        let key = format!("authorization: Bearer {}", self.keys[client % self.keys.len()]);
        let session = format!("x-session-affinity: client-{client}-{}", number / CONVERSATION);
        let began = Instant::now();
        let headers = [&*key, &*session];
        let answer = timeout(PATIENCE, connection.ask(line, &headers, &body)).await;
        let last = || self.log.last_lines().join("\n");
        let answer =
            answer.unwrap_or_else(|_| panic!("{text} was never answered; the log ends in\n{}", last()));
        let answer = answer.unwrap();
        Asked { text, form, answer, took: began.elapsed() }
    }

    /// What no log and no answer may have in it.
    fn secrets(&self) -> Vec<String> {
        self.login_server.token_prefixes().into_iter().chain(self.keys.iter().cloned()).collect()
    }

    async fn ends(self) -> TempDir {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.upkeep).await.expect("the upkeep does not end").unwrap();
        self.server.abort();
        self.folder
    }
}

fn request_body(form: RequestForm, text: &str) -> (&'static str, String) {
    let messages = json!([{ "role": "user", "content": text }]);
    match form {
        RequestForm::Whole | RequestForm::Stream => {
            let is_stream = form == RequestForm::Stream;
            let body = json!({ "model": "kimi-for-coding", "stream": is_stream, "messages": messages });
            ("POST /v1/chat/completions", body.to_string())
        }
        RequestForm::Responses => {
            let body = json!({ "model": "kimi-for-coding", "stream": true, "input": text });
            ("POST /v1/responses", body.to_string())
        }
    }
}

/// Four logins, given out just now.
async fn log_in(paths: &Paths, login_server: &MockLoginServer) {
    let first = login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
    fs::write(paths.login_file(), first).unwrap();
    fs::set_permissions(paths.login_file(), Permissions::from_mode(0o600)).unwrap();
    for name in &NAMES[1..] {
        let file = login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
        let account = login::read_imported_accounts(file.as_bytes()).unwrap().remove(0);
        let name = AccountName::parse(name).unwrap();
        login::import_account(paths, name, account, Clock::System.now()).await.unwrap();
    }
}

async fn add_key(store: &Store, name: &str) -> String {
    let (secret, hash) = generate_client_key();
    let key = GatewayKey {
        name: KeyName::parse(name).unwrap(),
        daily_tokens: None,
        models: Vec::new(),
        identity: ClientIdentity::Own,
    };
    assert!(store.add_gateway_key(&key, hash, Clock::System.now()).await.unwrap());
    secret.expose_secret().to_owned()
}

/// Each request has its own answer, whole, and Kimi has begun no answer twice.
fn check_answers(results: &[Asked], counts: &KimiCounts) {
    for asked in results {
        let Asked { text, form, answer, .. } = asked;
        if answer.head.status == 429 {
            check_refusal(asked);
            continue;
        }
        let end = match form {
            RequestForm::Whole => "\"finish_reason\":\"stop\"",
            RequestForm::Stream => "data: [DONE]",
            RequestForm::Responses => "response.completed",
        };
        assert!(
            answer.head.status == 200
                && answer.body.contains(&format!("echo of {text}"))
                && answer.body.contains(end),
            "{text}: {answer:?}"
        );
        assert_eq!(counts.answers.get(text), Some(&1), "{text} was answered by Kimi once");
    }
    let found = counts.errors.get(&403).copied().unwrap_or_default();
    assert!(
        counts.looks_at_plan <= found,
        "{} looks at what is left after {found} findings",
        counts.looks_at_plan
    );
}

fn check_refusals(refused: &[Asked]) {
    for asked in refused {
        check_refusal(asked);
        let seconds: u64 = asked.answer.head.header("retry-after").unwrap().parse().unwrap();
        assert!((LAST_RETRY_AFTER_SECS - 60..=LAST_RETRY_AFTER_SECS).contains(&seconds), "{seconds}");
    }
}

/// It names each account and when it comes back, in words and for programs.
fn check_refusal(asked: &Asked) {
    let Asked { text, answer, .. } = asked;
    assert_eq!(answer.head.status, 429, "{text}: {answer:?}");
    assert!(
        answer.head.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()),
        "{answer:?}"
    );
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let why = body["error"]["message"].as_str().unwrap();
    assert!(why.starts_with("No Kimi account can answer now: "), "{why}");
    for name in NAMES {
        assert!(why.contains(&format!("{name} ")), "{why}");
    }
}

/// The times between the renewals of each account.
fn check_renewals(login_server: &MockLoginServer, renewals: &[Vec<Instant>]) -> Vec<Vec<Duration>> {
    let periods: Vec<Vec<Duration>> =
        renewals.iter().map(|given| given.windows(2).map(|pair| pair[1] - pair[0]).collect()).collect();
    assert_eq!(periods.len(), ACCOUNTS);
    for (name, periods) in NAMES.iter().zip(&periods) {
        // Each period has one renewal, at half of the token's life, and no token was left to expire.
        let is_once = periods.iter().all(|period| (PERIOD_MIN..LIFETIME).contains(period));
        assert!(is_once, "{name} was renewed after {periods:?}");
    }
    for (name, given) in NAMES.iter().zip(renewals) {
        assert!(given.last().unwrap().elapsed() < LIFETIME, "{name} was not renewed any more");
    }
    let counts = login_server.counts();
    assert_eq!((counts.refreshes_refused, counts.refreshes - counts.refreshes_granted), (0, 0));
    periods
}

fn check_logins_on_disk(paths: &Paths, login_server: &MockLoginServer) {
    let records = AccountRecords::read(&paths.accounts_file()).unwrap();
    assert_eq!(records.accounts.iter().map(|record| record.name.as_str()).collect::<Vec<_>>(), NAMES);
    for record in &records.accounts {
        let file = fs::read_to_string(AccountFiles::of(paths, &record.id).login).unwrap();
        assert!(login_server.can_refresh_from(&file), "the login of {} cannot be renewed", record.name);
        assert!(record.cooldown.is_some(), "what is known of {} is not kept", record.name);
    }
}

/// How many lines the log has.
fn check_log(log: &CaughtLog, secrets: &[String]) -> usize {
    tracing::debug!("a decoy: {}", secrets.join(" "));
    let log = log.text();
    assert!(log.contains("is left alone for a while"), "the log was not caught");
    for secret in secrets {
        let found: Vec<&str> = log.lines().filter(|line| line.contains(secret.as_str())).collect();
        assert_eq!(found.len(), 1, "{found:?}");
    }
    log.lines().count()
}

fn report(
    results: &[Asked],
    counts: &KimiCounts,
    refused: usize,
    renewals: &[Vec<Duration>],
    log_lines: usize,
    length: Duration,
) {
    let answered = results.iter().filter(|asked| asked.answer.head.status == 200).count();
    let mut errors: Vec<(u16, usize)> =
        counts.errors.iter().map(|(status, count)| (*status, *count)).collect();
    errors.sort_unstable();
    let errors: Vec<String> =
        errors.iter().map(|(status, count)| format!("{count} times {status}")).collect();
    let longest = results.iter().map(|asked| asked.took).max().unwrap_or_default();
    let periods: Vec<Duration> = renewals.iter().flatten().copied().collect();
    let (least, most) = (periods.iter().min().unwrap(), periods.iter().max().unwrap());
    let distinct: HashSet<&str> = results.iter().map(|asked| asked.text.as_str()).collect();
    let by_account: HashMap<&str, usize> = NAMES.into_iter().zip(counts.answers_of).collect();
    println!(
        "accounts: {} s, {CLIENTS} clients · {} requests, {answered} answered, {} refused with names, longest {:.1} s · \
         answers by account: {}",
        length.as_secs(),
        distinct.len(),
        results.len() - answered,
        longest.as_secs_f64(),
        NAMES.map(|name| format!("{name} {}", by_account[name])).join(", "),
    );
    println!(
        "  Kimi said {}; said {} times what is left · {} renewals of {ACCOUNTS} accounts, each {:.1} to {:.1} s after the \
         last, none refused · {refused} requests after all were limited for long, each refused with all names · \
         no token and no key in {log_lines} lines of log, nor in an answer",
        errors.join(", "),
        counts.looks_at_plan,
        periods.len(),
        least.as_secs_f64(),
        most.as_secs_f64(),
    );
}
