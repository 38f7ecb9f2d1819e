//! Several accounts: each login is renewed by itself, whoever is used; what changes in the list is taken up; and a
//! kill at any moment loses no account.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::clock::Clock;
use nanokimi::login::{self, AccountRecords, Accounts, ImportResult, update_accounts};
use nanokimi::relay::{AccountPool, KimiUpstream, run_account_upkeep};
use nanokimi::types::{AccountId, AccountName, Authorization, Cooldown, CooldownCause, KimiHosts};
use serde_json::Value;
use support::fake_docker;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::world::{PATIENCE, World};

/// Kills while four logins are renewed all the time.
const KILLS: usize = 100;
/// How long a request of a killed process may still be on its way.
const IN_FLIGHT: Duration = Duration::from_millis(50);
const FURTHER: [&str; 3] = ["ana", "ben", "cleo"];

/// The upkeep of all accounts, as a service has it.
struct Upkeep {
    accounts: Arc<Accounts>,
    pool: Arc<AccountPool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Upkeep {
    fn start(world: &World) -> Self {
        let hosts =
            KimiHosts { oauth_host: world.practice.oauth_host(), api_base: world.practice.base_url() };
        let accounts = Arc::new(Accounts::load_from_disk(&world.paths, None, hosts, Clock::System.now()));
        let pool = KimiUpstream::of_accounts(&accounts).account_pool();
        let (stop, stopped) = oneshot::channel();
        let upkeep = run_account_upkeep(Arc::clone(&accounts), Arc::clone(&pool), Clock::System, stopped);
        Self { accounts, pool, stop, task: tokio::spawn(upkeep) }
    }

    /// Waits until it knows this of the account's limits.
    async fn knows(&self, id: &AccountId, cooldown: Option<Cooldown>) {
        self.accounts.reload_if_changed(Clock::System.now());
        let mut known = self.pool.watch_cooldowns();
        let is_known = known.wait_for(|known| known.get(id).copied() == cooldown);
        timeout(PATIENCE, is_known).await.expect("it never knows").unwrap();
    }

    /// What is sent for each account now, by name; an account without a login has none.
    fn tokens(&self) -> BTreeMap<String, String> {
        let logins = self.accounts.watch_logins().borrow().clone();
        let token = |authorization: &Authorization| match authorization {
            Authorization::Login(token) => Some(token.expose_secret().to_owned()),
            Authorization::ApiKey(_) | Authorization::Missing(_) => None,
        };
        let sent = logins.accounts.iter();
        sent.filter_map(|account| Some((account.name.clone(), token(&account.authorization.borrow())?)))
            .collect()
    }

    async fn ends(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.expect("the upkeep does not end").unwrap();
    }
}

/// Adds an account with a login that was made just now.
async fn add(world: &World, name: &str) {
    let file = world.login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
    let mut imported = login::read_imported_accounts(file.as_bytes()).unwrap();
    let name = AccountName::parse(name).unwrap();
    let added = login::import_account(&world.paths, name.clone(), imported.remove(0), Clock::System.now())
        .await
        .unwrap();
    assert_eq!(added, ImportResult::Added(name));
}

async fn with_four_accounts(lifetime: Duration) -> World {
    let world = World::new(lifetime).await;
    world.log_in(Duration::ZERO);
    for name in FURTHER {
        add(&world, name).await;
    }
    world
}

/// The refresh tokens on disk, the first account's included.
fn logins_on_disk(world: &World) -> Vec<String> {
    let records = AccountRecords::read(&world.paths.accounts_file()).unwrap();
    let file = |id| fs::read_to_string(login::AccountFiles::of(&world.paths, id).login).unwrap();
    records.accounts.iter().map(|record| file(&record.id)).collect()
}

#[tokio::test]
async fn every_login_is_renewed_once_in_its_time_whoever_is_used() {
    let world = with_four_accounts(Duration::from_secs(4)).await;
    let off = AccountName::parse("ben").unwrap();
    update_accounts(&world.paths.accounts_file(), |records| {
        records.named_mut(&off)?.is_enabled = false;
        Ok(())
    })
    .await
    .unwrap();
    let upkeep = Upkeep::start(&world);
    let first = upkeep.tokens();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["ana", "ben", "cleo", "first"]);
    // Half of the life is over after two seconds.
    world.refreshes(4).await;
    sleep(Duration::from_millis(500)).await;
    let second = upkeep.tokens();
    assert!(first.iter().all(|(name, token)| second[name] != *token), "{first:?} {second:?}");
    let counts = world.login_server.counts();
    assert_eq!((counts.refreshes, counts.refreshes_granted), (4, 4));
    upkeep.ends().await;
    assert!(logins_on_disk(&world).iter().all(|login| world.login_server.can_refresh_from(login)));
}

#[tokio::test]
async fn what_changes_in_the_list_is_taken_up_without_a_restart() {
    let world = with_four_accounts(Duration::from_secs(900)).await;
    let upkeep = Upkeep::start(&world);
    add(&world, "dora").await;
    upkeep.accounts.reload_if_changed(Clock::System.now());
    assert!(upkeep.tokens().contains_key("dora"));
    let cleo = AccountName::parse("Cleo").unwrap();
    login::remove_account(&world.paths, &cleo).await.unwrap();
    upkeep.accounts.reload_if_changed(Clock::System.now());
    assert_eq!(upkeep.tokens().into_keys().collect::<Vec<_>>(), ["ana", "ben", "dora", "first"]);
    assert_eq!(fs::read_dir(world.paths.credentials_folder().join("accounts")).unwrap().count(), 3);
    upkeep.ends().await;
}

#[tokio::test]
async fn an_account_that_a_person_enables_is_asked_again_by_a_service_that_knew_its_limit() {
    let world = with_four_accounts(Duration::from_secs(900)).await;
    let (now, ana) = (Clock::System.now(), second_account(&world));
    let limited_for = |minutes| Cooldown {
        cause: CooldownCause::QuotaUsedUp,
        since: now,
        until: now + SignedDuration::from_mins(minutes),
        resets_at: Some(now + SignedDuration::from_hours(48)),
        failures: 4,
    };
    let write = async |cooldown| {
        update_accounts(&world.paths.accounts_file(), |records| {
            records.accounts[1].cooldown = cooldown;
            Ok(())
        })
        .await
        .unwrap();
    };
    write(Some(limited_for(120))).await;
    let (service, gateway) = (Upkeep::start(&world), Upkeep::start(&world));
    service.knows(&ana, Some(limited_for(120))).await;
    // As `nanokimi accounts enable` does.
    write(None).await;
    service.knows(&ana, None).await;
    gateway.knows(&ana, None).await;
    // What another process finds out is known to all.
    write(Some(limited_for(60))).await;
    service.knows(&ana, Some(limited_for(60))).await;
    gateway.knows(&ana, Some(limited_for(60))).await;
    for upkeep in [service, gateway] {
        upkeep.ends().await;
    }
    let records = AccountRecords::read(&world.paths.accounts_file()).unwrap();
    assert_eq!(records.accounts[1].cooldown, Some(limited_for(60)));
}

#[tokio::test]
async fn an_account_that_is_ended_at_kimi_names_the_command_that_helps_and_the_others_go_on() {
    let world = with_four_accounts(Duration::from_secs(900)).await;
    world.login_server.revoke_all_tokens();
    let file = login::AccountFiles::of(&world.paths, &second_account(&world)).login;
    let mut login: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    login["expires_at"] = 0.0.into();
    fs::write(&file, login.to_string()).unwrap();
    let upkeep = Upkeep::start(&world);
    let logins = upkeep.accounts.watch_logins().borrow().clone();
    let mut ana = logins.accounts[1].authorization.clone();
    let missing =
        timeout(PATIENCE, ana.wait_for(|now| matches!(now, Authorization::Missing(_)))).await.unwrap();
    let Authorization::Missing(why) = missing.unwrap().clone() else { panic!("it is missing") };
    assert!(why.ends_with("run `nanokimi login --account ana`"), "{why}");
    assert_eq!(upkeep.tokens().len(), 3);
    upkeep.ends().await;
}

fn second_account(world: &World) -> AccountId {
    AccountRecords::read(&world.paths.accounts_file()).unwrap().accounts[1].id.clone()
}

#[tokio::test]
async fn the_plugins_account_is_renewed_at_once_and_comes_only_once() {
    let world = World::new(Duration::from_secs(900)).await;
    world.log_in(Duration::ZERO);
    let given = world.login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
    let given: Value = serde_json::from_str(&given).unwrap();
    let file = serde_json::json!({ "version": 1, "activeIndex": 0, "accounts": [{
        "email": "ana@example.com", "refreshToken": given["refresh_token"], "addedAt": 1, "enabled": true,
        "fingerprint": { "deviceId": "0f8fad5b-d9cb-469f-a165-70867728950e" },
    }]})
    .to_string();
    let import = async |name: &str| {
        let account = login::read_imported_accounts(file.as_bytes()).unwrap().remove(0);
        let name = AccountName::parse(name).unwrap();
        login::import_account(&world.paths, name, account, Clock::System.now()).await.unwrap()
    };
    let ana = AccountName::parse("ana").unwrap();
    assert_eq!(import("ana").await, ImportResult::Added(ana.clone()));
    let upkeep = Upkeep::start(&world);
    world.refreshes(1).await;
    sleep(Duration::from_millis(300)).await;
    assert!(upkeep.tokens()["ana"].starts_with("access-"));
    // The token was rotated meanwhile; the file still has the old one.
    assert_eq!(import("ana-2").await, ImportResult::Known(ana));
    upkeep.ends().await;
    let device = login::AccountFiles::of(&world.paths, &second_account(&world)).device_id;
    assert_eq!(fs::read_to_string(device).unwrap(), "0f8fad5b-d9cb-469f-a165-70867728950e");
}

#[tokio::test]
async fn an_import_finds_the_account_that_is_here_already() {
    let world = with_four_accounts(Duration::from_secs(900)).await;
    let import = async |account| {
        login::import_account(
            &world.paths,
            AccountName::parse("again").unwrap(),
            account,
            Clock::System.now(),
        )
        .await
        .unwrap()
    };
    let known = |name| ImportResult::Known(AccountName::parse(name).unwrap());
    // Its own files, copied.
    for (place, name) in ["first", "ana", "ben", "cleo"].into_iter().enumerate() {
        let copy = login::read_imported_accounts(logins_on_disk(&world)[place].as_bytes()).unwrap().remove(0);
        assert_eq!(import(copy).await, known(name));
    }
    // Another token for a device that is known: the plugin has renewed its own meanwhile, and knows no e-mail address.
    let device = "0f8fad5b-d9cb-469f-a165-70867728950e".to_owned();
    let new_token = || {
        let file = world.login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
        let account = login::read_imported_accounts(file.as_bytes()).unwrap().remove(0);
        login::ImportedAccount { device_id: Some(device.clone()), ..account }
    };
    assert!(matches!(import(new_token()).await, ImportResult::Added(_)));
    assert_eq!(import(new_token()).await, known("again"));
    assert_eq!(AccountRecords::read(&world.paths.accounts_file()).unwrap().accounts.len(), 5);
    assert_eq!(fs::read_dir(world.paths.credentials_folder().join("accounts")).unwrap().count(), 4);
}

/// The service in this world, with a Docker that only says that it is there.
fn start_service(world: &World) -> Child {
    let root = world.paths.root();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanokimi"));
    command.arg("--home").arg(root).arg("run").env_clear().env("HOME", root);
    command.env("DOCKER_HOST", format!("unix://{}", root.join("docker.sock").display()));
    command.env("KIMI_CODE_OAUTH_HOST", world.practice.oauth_host());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Puts another login in place of one that nobody could have kept: its server had changed its mind, and had told
/// nobody yet. Says for how many accounts.
fn mend_what_nobody_could_keep(world: &World) -> usize {
    let records = AccountRecords::read(&world.paths.accounts_file()).expect("the list is whole");
    assert_eq!(records.accounts.len(), 1 + FURTHER.len());
    let mut mended = 0;
    for record in &records.accounts {
        let file = login::AccountFiles::of(&world.paths, &record.id).login;
        if world.login_server.can_refresh_from(&fs::read_to_string(&file).expect("each account has a login"))
        {
            continue;
        }
        let folder = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let left = folder.filter(|path| path.to_string_lossy().contains("kimi-code.json.after-"));
        let left = left.map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>();
        if !left.iter().any(|left| world.login_server.can_refresh_from(left)) {
            assert!(left.iter().all(|left| left.trim().is_empty()), "an answer was there and is not whole");
            fs::write(&file, world.login_server.issue_login_file(Clock::System.now(), Duration::ZERO))
                .unwrap();
            mended += 1;
        }
    }
    mended
}

#[tokio::test]
async fn a_hundred_kills_lose_no_account() {
    let world = with_four_accounts(Duration::from_millis(800)).await;
    let added = Command::new(env!("CARGO_BIN_EXE_nanokimi"))
        .args(["--home", world.paths.root().to_str().unwrap(), "groups", "add", "main", "--main"])
        .env_clear()
        .env("HOME", world.paths.root())
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    fake_docker::start(&world.paths.root().join("docker.sock"), fake_docker::Image::Built);
    let mut mended = 0;
    for kill in 0..KILLS {
        let mut service = start_service(&world);
        world.refreshes(world.login_server.counts().refreshes + 1 + kill as u64 % 4).await;
        sleep(Duration::from_micros(kill as u64 * 617 % 9000)).await;
        service.kill().unwrap();
        service.wait().unwrap();
        // What was on its way to the server is there by then.
        sleep(IN_FLIGHT).await;
        mended += mend_what_nobody_could_keep(&world);
    }
    let upkeep = Upkeep::start(&world);
    world.refreshes(world.login_server.counts().refreshes + 4).await;
    assert_eq!(upkeep.tokens().len(), 1 + FURTHER.len());
    upkeep.ends().await;
    let counts = world.login_server.counts();
    assert_eq!(counts.refreshes_refused, 0, "a spent token was never used again");
    assert!(mended < KILLS, "{mended}");
}
