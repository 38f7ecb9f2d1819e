//! A login is renewed ahead of time, alone, and on disk before anybody uses it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use nanokimi::clock::Clock;
use nanokimi::login::{self, Login};
use nanokimi::types::{Authorization, Secret};
use serde_json::Value;
use support::login_server::{LoginCounts, LoginFault};
use tokio::sync::oneshot;

use crate::world::World;

const QUARTER_HOUR: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_login_is_renewed_at_half_of_its_life_by_one_request_each_time() {
    let world = World::new(Duration::from_secs(2)).await;
    world.log_in(Duration::ZERO);
    let mut refresher = world.refresher();
    let began = Instant::now();
    for renewed in 1..=4 {
        let token = refresher.next_token().await;
        assert_eq!(token, world.on_disk(), "it is on disk by the time that it is used");
        assert!(began.elapsed() > Duration::from_millis(900) * renewed, "{:?}", began.elapsed());
    }
    let LoginCounts { refreshes, refreshes_granted, refreshes_refused, .. } = world.login_server.counts();
    assert_eq!((refreshes, refreshes_granted, refreshes_refused), (4, 4, 0));
    assert_eq!(fs::metadata(world.file()).unwrap().permissions().mode() & 0o777, 0o600);
    refresher.ends().await;
    assert_eq!(world.names(), ["device_id", "kimi-code.json", "kimi-code.lock"]);
}

#[tokio::test]
async fn a_login_that_has_expired_is_renewed_at_once_and_a_fresh_one_is_left_alone() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR * 4);
    let mut refresher = world.refresher();
    let renewed = refresher.next_token().await;
    refresher.silence(Duration::from_millis(300)).await;
    // As a service that is started again, some minutes later.
    refresher.ends().await;
    let mut refresher = world.refresher();
    refresher.silence(Duration::from_millis(300)).await;
    assert_eq!((refresher.token(), world.login_server.counts().refreshes), (renewed, 1));
    refresher.ends().await;
}

#[tokio::test]
async fn a_renewal_is_asked_for_as_kimi_cli_asks_in_our_own_name() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let mut refresher = world.refresher();
    refresher.next_token().await;
    let requests = world.practice.received_requests();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.line, "POST /api/oauth/token");
    let fields = &request.body;
    assert_eq!(fields["client_id"], "17e5f671-d194-4dfb-9706-5516cb48c098");
    assert_eq!(fields["grant_type"], "refresh_token");
    assert!(fields["refresh_token"].as_str().unwrap().starts_with("refresh-"));
    assert_eq!(fields.as_object().unwrap().len(), 3);
    let header = |name: &str| request.headers[name].as_str();
    assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((header("x-msh-platform"), header("x-msh-version")), ("nanokimi", version));
    assert_eq!(header("user-agent"), format!("nanokimi/{version}"));
    let device = fs::read_to_string(world.paths.device_id_file()).unwrap();
    assert_eq!(header("x-msh-device-id"), device);
    assert!(header("x-msh-device-model").starts_with("Linux "), "{request:?}");
    for name in ["x-msh-device-name", "x-msh-os-version"] {
        assert!(!header(name).is_empty(), "{name}");
    }
    assert!(!request.headers.contains_key("authorization"));
    refresher.ends().await;
}

#[tokio::test]
async fn the_file_is_one_that_kimi_cli_reads() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let mut refresher = world.refresher();
    refresher.next_token().await;
    let login: Value = serde_json::from_str(&world.text()).unwrap();
    let mut fields: Vec<&String> = login.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["access_token", "expires_at", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!((&login["scope"], &login["token_type"]), (&"kimi-code".into(), &"Bearer".into()));
    assert_eq!(login["expires_in"], 900.0);
    let left = login["expires_at"].as_f64().unwrap() - Clock::System.now().as_duration().as_secs_f64();
    assert!((890.0..=900.0).contains(&left), "{left}");
    assert!(world.login_server.can_refresh_from(&world.text()));
    refresher.ends().await;
}

#[tokio::test]
async fn whoever_is_refused_gets_another_token_by_one_request_for_all() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(Duration::ZERO);
    let mut refresher = world.refresher();
    let old = refresher.token();
    world.login_server.expire_access_tokens();
    // Three egress proxies at once, and one that comes late.
    for _ in 0..3 {
        refresher.refuse(&old);
    }
    let new = refresher.next_token().await;
    assert_ne!(new, old);
    refresher.refuse(&old);
    refresher.silence(Duration::from_millis(300)).await;
    assert_eq!((world.login_server.counts().refreshes, refresher.token()), (1, new));
    refresher.ends().await;
}

#[tokio::test]
async fn a_token_that_is_refused_right_after_it_was_given_is_no_reason_for_another() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(Duration::ZERO);
    let mut refresher = world.refresher();
    refresher.refuse(&refresher.token());
    let new = refresher.next_token().await;
    refresher.refuse(&new);
    refresher.next().await;
    assert_snapshot!(refresher.missing(), @"Kimi refuses this login; look at your account there, or run `nanokimi login`");
    refresher.silence(Duration::from_millis(300)).await;
    assert_eq!(world.login_server.counts().refreshes, 1);
    refresher.ends().await;
}

#[tokio::test]
async fn a_renewal_that_has_begun_is_finished_before_the_service_ends() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let before = world.on_disk();
    world.login_server.queue_faults([LoginFault::Slow(Duration::from_millis(700))]);
    let refresher = world.refresher();
    world.refreshes(1).await;
    assert_eq!(world.on_disk(), before);
    refresher.ends().await;
    assert_ne!(world.on_disk(), before);
    assert!(world.login_server.can_refresh_from(&world.text()));
}

#[tokio::test(start_paused = true)]
async fn a_new_login_takes_effect_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let paths = nanokimi::paths::Paths::new(folder.path());
    nanokimi::folders::prepare_install_folders(&paths).unwrap();
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let (instant, set_millis) = (tokio::time::Instant::now(), Box::leak(Box::default()));
    let clock = Clock::Anchored { wall: now, instant, set_millis };
    let login = Arc::new(Login::load_from_disk(&paths, None, "http://127.0.0.1:9", now));
    let mut seen = login.watch_authorization();
    let (_stop, stopped) = oneshot::channel();
    let refresher = tokio::spawn(login::run_refresher(Arc::clone(&login), clock, stopped));
    assert!(matches!(&*seen.borrow_and_update(), Authorization::Missing(_)));
    // 2100: far from half of its life.
    fs::write(paths.login_file(), r#"{"access_token":"new","refresh_token":"r","expires_at":4102444800}"#)
        .unwrap();
    let waited = tokio::time::Instant::now();
    seen.changed().await.unwrap();
    assert_eq!(*seen.borrow(), Authorization::Login(Secret::new("new")));
    assert!(waited.elapsed() <= Duration::from_secs(30), "{:?}", waited.elapsed());
    refresher.abort();
}

#[tokio::test]
async fn with_an_api_key_nothing_is_renewed() {
    let world = World::new(QUARTER_HOUR).await;
    world.log_in(QUARTER_HOUR);
    let key = Secret::new("sk-1");
    let host = world.practice.oauth_host();
    let login = Arc::new(Login::load_from_disk(&world.paths, Some(&key), &host, Clock::System.now()));
    let mut seen = login.watch_authorization();
    let (stop, stopped) = oneshot::channel();
    let refresher = tokio::spawn(login::run_refresher(Arc::clone(&login), Clock::System, stopped));
    login.refused_token_sender().send_replace(Some(key.clone()));
    assert!(tokio::time::timeout(Duration::from_millis(300), seen.changed()).await.is_err());
    assert_eq!(*seen.borrow(), Authorization::ApiKey(key));
    stop.send(()).unwrap();
    refresher.await.unwrap();
    assert_eq!(world.login_server.counts().refreshes, 0);
}
