//! The relay with several accounts, over real connections. The test is the Kimi API and answers by the token that
//! it is asked with.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::login::{AccountLogin, AccountLogins};
use crate::panics::lock_unpoisoned;
use crate::types::{AccountId, Authorization, Cooldown, CooldownCause, Failure, Secret, TokenUsage, Trouble};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);
const BODY: &[u8] = b"{}";
const GOOD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const USED_UP: &str = r#"403 Forbidden
{"error":{"type":"access_terminated_error","message":"You've reached your weekly (7-day) usage limit."}}"#;
const TOO_MANY: &str = "429 Too Many Requests
retry-after: 2
{\"error\":{\"type\":\"rate_limit_reached_error\",\"message\":\"slow down\"}}";

/// The Kimi API: what it says next to each token, and who has asked.
#[derive(Clone, Default)]
struct FakeKimi {
    says: Arc<Mutex<HashMap<String, VecDeque<String>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeKimi {
    async fn start() -> (Self, SocketAddr) {
        let (kimi, listener) = (Self::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (address, server) = (listener.local_addr().unwrap(), kimi.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        (kimi, address)
    }

    async fn answer(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        // What is not read would break the connection before the answer is.
        stream.read_exact(&mut [0; BODY.len()]).await.ok();
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let token = head.split("bearer ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        lock_unpoisoned(&self.asked).push(token.clone());
        let next = lock_unpoisoned(&self.says).get_mut(&token).and_then(VecDeque::pop_front);
        stream.write_all(next.as_deref().unwrap_or(GOOD).as_bytes()).await.ok();
    }

    /// What it says to a token, the next so many times: a status, headers and a body, a line each.
    fn will_say(&self, token: &str, times: usize, answer: &str) {
        let (head, body) = answer.rsplit_once('\n').unwrap_or((answer, ""));
        let head = head.replace('\n', "\r\n");
        let length = body.len();
        let full = format!(
            "HTTP/1.1 {head}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut says = lock_unpoisoned(&self.says);
        says.entry(token.to_owned()).or_default().extend(std::iter::repeat_n(full, times));
    }

    /// The tokens that it was asked with since the last look.
    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut lock_unpoisoned(&self.asked))
    }
}

/// Hears what a session would hear.
#[derive(Default)]
struct Heard(Mutex<Vec<Trouble>>);

impl AnswerObserver for Heard {
    fn add_usage(&self, _usage: TokenUsage) {}

    fn record_failure(&self, failure: Failure) {
        lock_unpoisoned(&self.0).push(failure.trouble);
    }

    fn record_success(&self) {}
}

/// Accounts that are called as their tokens are.
struct World {
    kimi: FakeKimi,
    logins: watch::Sender<AccountLogins>,
    tokens: Vec<watch::Sender<Authorization>>,
    upstream: KimiUpstream,
    sender: KimiSender,
    heard: Arc<Heard>,
}

impl World {
    async fn of(names: &[&str]) -> Self {
        Self::with_limits(names, []).await
    }

    async fn with_limits<const N: usize>(names: &[&str], limits: [(&str, Cooldown); N]) -> Self {
        let (kimi, address) = FakeKimi::start().await;
        let mut tokens = Vec::new();
        let accounts = names.iter().map(|name| {
            let (token, authorization) = watch::channel(Authorization::Login(Secret::new(*name)));
            tokens.push(token);
            AccountLogin {
                id: id(name),
                name: (*name).to_owned(),
                api_base: format!("http://{address}/coding/v1"),
                is_enabled: true,
                authorization,
                refused_tokens: watch::Sender::default(),
            }
        });
        let logins = watch::Sender::new(AccountLogins { accounts: accounts.collect(), active: 0 });
        let limits = limits.map(|(name, cooldown)| (id(name), cooldown));
        let upstream = KimiUpstream::with_accounts(Arc::new(AccountPool::new(logins.subscribe(), limits)));
        let sender = KimiSender::new(&upstream).await.unwrap();
        Self { kimi, logins, tokens, upstream, sender, heard: Arc::default() }
    }

    async fn ask(&self, conversation: &str) -> Result<ApiAnswer, Box<Refusal>> {
        self.ask_for(conversation, AskedModel::Configured, ANSWER_TIMEOUT).await
    }

    async fn ask_for(
        &self,
        conversation: &str,
        model: AskedModel,
        patience: Duration,
    ) -> Result<ApiAnswer, Box<Refusal>> {
        let call = ApiCall { model, patience, ..self.call(conversation) };
        self.send(&call).await
    }

    fn call(&self, conversation: &str) -> ApiCall {
        ApiCall {
            method: Method::POST,
            path: "chat/completions".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(BODY),
            route: ApiRoute::Model,
            model: AskedModel::Configured,
            conversation: conversation.to_owned(),
            waited: Duration::ZERO,
            patience: ANSWER_TIMEOUT,
            waits_for_account: true,
        }
    }

    async fn send(&self, call: &ApiCall) -> Result<ApiAnswer, Box<Refusal>> {
        let asking = self.sender.send_with_retries(call, self.heard.as_ref());
        timeout(PATIENCE, asking).await.expect("there was no answer")
    }

    /// Who was asked, in this order, for one request that is answered.
    async fn answered_by(&self, conversation: &str) -> String {
        self.ask(conversation).await.unwrap_or_else(|refusal| panic!("{}", refusal.response.error_detail()));
        self.kimi.take_asked().join(" ")
    }

    fn limits(&self) -> BTreeMap<AccountId, Cooldown> {
        self.upstream.account_pool().watch_cooldowns().borrow().clone()
    }
}

fn id(name: &str) -> AccountId {
    AccountId::parse(name).unwrap()
}

fn limited_for(cause: CooldownCause, seconds: i64) -> Cooldown {
    let now = Clock::System.now();
    Cooldown {
        cause,
        since: now - SignedDuration::from_secs(1),
        until: now + SignedDuration::from_secs(seconds),
        resets_at: None,
        failures: 1,
    }
}

#[tokio::test]
async fn the_active_account_answers_until_another_one_is_preferred_and_then_only_new_conversations() {
    let world = World::of(&["anna", "bert"]).await;
    assert_eq!(world.answered_by("family").await, "anna");
    world.logins.send_modify(|logins| logins.active = 1);
    assert_eq!(world.answered_by("family").await, "anna");
    assert_eq!(world.answered_by("work").await, "bert");
}

#[tokio::test]
async fn when_one_is_used_up_the_other_answers_the_same_request_and_those_after_it() {
    let world = World::of(&["anna", "bert"]).await;
    world.kimi.will_say("anna", 1, USED_UP);
    assert_eq!(world.answered_by("family").await, "anna bert");
    assert_eq!(world.answered_by("family").await, "bert");
    assert_eq!(world.answered_by("work").await, "bert");
    assert_eq!(world.limits()[&id("anna")].cause, CooldownCause::QuotaUsedUp);
    assert_eq!(*lock_unpoisoned(&world.heard.0), []);
}

#[tokio::test]
async fn each_refusal_of_an_account_turns_to_the_next_and_each_refusal_of_a_request_does_not() {
    for (says, asked) in [
        (USED_UP, "anna bert"),
        (TOO_MANY, "anna bert"),
        ("402 Payment Required\n", "anna bert"),
        ("403 Forbidden\n{\"error\":{\"message\":\"Access terminated.\"}}", "anna bert"),
        ("503 Service Unavailable\n", "anna bert"),
        ("529 Overloaded\n", "anna bert"),
        ("500 Internal Server Error\n", "anna bert"),
        ("400 Bad Request\n", "anna"),
        // Nobody knows whether the account is meant, or the program that asks.
        ("403 Forbidden\n", "anna"),
        ("404 Not Found\n", "anna"),
        ("413 Payload Too Large\n", "anna"),
        (
            "403 Forbidden\n{\"error\":{\"message\":\"is currently only available for Coding Agents\"}}",
            "anna",
        ),
    ] {
        let world = World::of(&["anna", "bert"]).await;
        world.kimi.will_say("anna", 1, says);
        let is_answered = world.ask("family").await.is_ok();
        assert_eq!(
            (world.kimi.take_asked().join(" "), is_answered),
            (asked.to_owned(), asked == "anna bert"),
            "{says}"
        );
    }
}

#[tokio::test]
async fn an_account_that_cannot_be_used_is_never_asked() {
    let world = World::of(&["anna", "bert", "cleo"]).await;
    world.logins.send_modify(|logins| logins.accounts[0].is_enabled = false);
    world.tokens[1].send_replace(Authorization::Missing("ended".to_owned()));
    assert_eq!(world.answered_by("family").await, "cleo");
    // The only one that is left is asked whatever it said before.
    world.kimi.will_say("cleo", 1, USED_UP);
    let refusal = world.ask("family").await.unwrap_err();
    assert_eq!((refusal.trouble, refusal.is_final), (Some(Trouble::QuotaUsedUp), true));
    assert_eq!(world.kimi.take_asked(), ["cleo"]);
    assert_eq!(world.answered_by("family").await, "cleo");
    world.logins.send_modify(|logins| logins.accounts[2].is_enabled = false);
    let refusal = world.ask("family").await.unwrap_err();
    assert_eq!(refusal.response.status, StatusCode::UNAUTHORIZED);
    world.tokens[1].send_replace(Authorization::Login(Secret::new("bert2")));
    assert_eq!(world.answered_by("family").await, "bert2");
}

#[tokio::test]
async fn when_all_are_limited_the_request_waits_for_the_first_that_comes_back() {
    let world = World::with_limits(
        &["anna", "bert"],
        [
            ("anna", limited_for(CooldownCause::QuotaUsedUp, 60)),
            ("bert", limited_for(CooldownCause::RateLimited, 2)),
        ],
    )
    .await;
    let began = Instant::now();
    assert_eq!(world.answered_by("family").await, "bert");
    assert!((1..4).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(!world.limits().contains_key(&id("bert")));
}

#[tokio::test]
async fn a_request_whose_last_account_is_used_up_waits_for_one_as_if_it_had_known() {
    const ENDED: &str = "402 Payment Required\n{\"error\":{\"message\":\"no membership\"}}";
    for (berts, cause) in [(USED_UP, CooldownCause::QuotaUsedUp), (ENDED, CooldownCause::Refused)] {
        let world = World::of(&["anna", "bert"]).await;
        world.kimi.will_say("anna", 1, TOO_MANY);
        world.kimi.will_say("bert", 1, berts);
        assert_eq!(world.answered_by("family").await, "anna bert anna");
        assert_eq!(world.limits()[&id("bert")].cause, cause);
        // A session hears meanwhile why there is no answer yet.
        assert!(!lock_unpoisoned(&world.heard.0).is_empty());
    }
    // Nothing comes back by itself: it is said at once.
    let world = World::of(&["anna", "bert"]).await;
    world.kimi.will_say("anna", 1, ENDED);
    world.kimi.will_say("bert", 1, ENDED);
    let refusal = world.ask("family").await.unwrap_err();
    assert_eq!((refusal.trouble, world.kimi.take_asked().len()), (Some(Trouble::NoMembership), 2));
    // It would wait for longer than its caller does.
    let world = World::of(&["anna", "bert"]).await;
    world.kimi.will_say("anna", 1, USED_UP);
    world.kimi.will_say("bert", 1, USED_UP);
    let refusal = world.ask_for("family", AskedModel::Configured, Duration::from_secs(10)).await.unwrap_err();
    let why = refusal.response.api_error.reason;
    for part in
        ["No Kimi account can answer now: anna has used up its allowance, ", "; bert has used up its "]
    {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn a_request_that_waits_goes_on_as_soon_as_an_account_can_answer() {
    let both = || async {
        let limited = limited_for(CooldownCause::QuotaUsedUp, 60);
        World::with_limits(&["anna", "bert"], [("anna", limited), ("bert", limited)]).await
    };
    // Kimi says that the allowance is whole again sooner.
    let world = both().await;
    let pool = world.upstream.account_pool();
    let tell = async {
        sleep(Duration::from_millis(200)).await;
        pool.note_reset_time(&id("bert"), Clock::System.now() + SignedDuration::from_secs(1));
    };
    let (asked, ()) = tokio::join!(timeout(PATIENCE, world.answered_by("family")), tell);
    assert_eq!(asked.expect("it waits for too long"), "bert");
    // Somebody adds an account.
    let world = both().await;
    let add = async {
        sleep(Duration::from_millis(200)).await;
        world.logins.send_modify(|logins| {
            let cleo = AccountLogin { id: id("cleo"), ..logins.accounts[0].clone() };
            logins.accounts.push(cleo);
        });
    };
    let (asked, ()) = tokio::join!(timeout(PATIENCE, world.answered_by("family")), add);
    assert_eq!(asked.expect("it waits for too long"), "anna");
}

#[tokio::test]
async fn when_all_are_limited_for_long_the_error_names_each_and_when_it_comes_back() {
    let mut quota = limited_for(CooldownCause::QuotaUsedUp, 400);
    quota.resets_at = Some(Clock::System.now() + SignedDuration::from_secs(3 * 3600));
    let world = World::with_limits(
        &["home", "work"],
        [("home", quota), ("work", limited_for(CooldownCause::RateLimited, 330))],
    )
    .await;
    let refusal = world.ask("family").await.unwrap_err();
    assert_eq!(refusal.response.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        refusal.response.api_error.reason,
        "No Kimi account can answer now: home has used up its allowance, and has it again in 3 h 0 min; \
         work has asked too often, and is tried again in 6 min."
    );
    let retry_after = refusal.response.retry_after.unwrap().as_secs();
    assert!((325..=330).contains(&retry_after), "{retry_after}");
    assert_eq!(world.kimi.take_asked(), [""; 0]);
}

#[tokio::test]
async fn what_is_known_of_limits_holds_after_a_restart_and_a_clock_that_was_set_back_ends_it() {
    let known = limited_for(CooldownCause::QuotaUsedUp, 3600);
    assert_eq!(
        World::with_limits(&["anna", "bert"], [("anna", known)]).await.answered_by("family").await,
        "bert"
    );
    let ahead = Cooldown { since: Timestamp::MAX, until: Timestamp::MAX, ..known };
    assert_eq!(
        World::with_limits(&["anna", "bert"], [("anna", ahead)]).await.answered_by("family").await,
        "anna"
    );
}

#[tokio::test]
async fn a_model_that_an_agent_has_made_up_costs_no_account_its_turn() {
    let world = World::of(&["anna", "bert"]).await;
    world.kimi.will_say("anna", 1, USED_UP);
    world.ask_for("family", AskedModel::Another, ANSWER_TIMEOUT).await.unwrap_err();
    assert_eq!((world.kimi.take_asked(), world.limits().len()), (vec!["anna".to_owned()], 0));
}

#[tokio::test]
async fn a_server_that_always_fails_is_asked_a_few_times_and_then_the_request_ends() {
    let world = World::of(&["anna", "bert"]).await;
    for token in ["anna", "bert"] {
        world.kimi.will_say(token, 100, "500 Internal Server Error\n");
    }
    let refusal = world.ask_for("family", AskedModel::Configured, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(world.kimi.take_asked(), ["anna", "bert"]);
    assert_eq!(refusal.trouble, Some(Trouble::Overloaded));
}

#[tokio::test]
async fn a_refused_token_is_renewed_before_another_account_is_asked() {
    let world = World::of(&["anna", "bert"]).await;
    world.kimi.will_say("anna", 1, "401 Unauthorized\n");
    let mut refused = world.logins.borrow().accounts[0].refused_tokens.subscribe();
    let renew = async {
        refused.wait_for(|token| token.as_ref() == Some(&Secret::new("anna"))).await.unwrap();
        world.tokens[0].send_replace(Authorization::Login(Secret::new("anna2")));
    };
    let (asked, ()) = tokio::join!(world.answered_by("family"), renew);
    assert_eq!(asked, "anna anna2");
    // The renewed one is refused, too: the account is out.
    world.kimi.will_say("anna2", 1, "401 Unauthorized\n");
    let renew = async {
        refused.wait_for(|token| token.as_ref() == Some(&Secret::new("anna2"))).await.unwrap();
        world.kimi.will_say("anna3", 1, "401 Unauthorized\n");
        world.tokens[0].send_replace(Authorization::Login(Secret::new("anna3")));
    };
    let (asked, ()) = tokio::join!(world.answered_by("family"), renew);
    assert_eq!(asked, "anna2 anna3 bert");
}

#[tokio::test]
async fn thirty_requests_that_find_it_out_together_are_each_answered_once() {
    let world = Arc::new(World::of(&["anna", "bert"]).await);
    world.kimi.will_say("anna", 30, USED_UP);
    let asking = (0..30).map(|number| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.ask(&format!("c{number}")).await.is_ok() })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert!(asked.await.unwrap());
    }
    let asked = world.kimi.take_asked();
    assert_eq!(asked.iter().filter(|token| *token == "bert").count(), 30);
    // One finding, however many have made it.
    assert_eq!(world.limits()[&id("anna")].failures, 1);
}

#[tokio::test]
async fn only_requests_for_the_model_set_limits_and_obey_them() {
    let limited = limited_for(CooldownCause::QuotaUsedUp, 3600);
    let world = World::with_limits(&["anna", "bert"], [("anna", limited), ("bert", limited)]).await;
    let other = ApiCall { route: ApiRoute::OtherEndpoint, ..world.call("family") };
    world.send(&other).await.unwrap();
    assert_eq!((world.kimi.take_asked().join(" "), world.limits().len()), ("anna".to_owned(), 2));

    let world = World::of(&["anna", "bert"]).await;
    for says in ["402 Payment Required\n", "401 Unauthorized\n", USED_UP] {
        world.kimi.will_say("anna", 1, says);
        world.send(&other).await.unwrap_err();
        assert_eq!(
            (world.kimi.take_asked().join(" "), world.limits().len()),
            ("anna".to_owned(), 0),
            "{says}"
        );
    }
    // What a conversation has kept goes on with it.
    world.kimi.will_say("anna", 1, USED_UP);
    assert_eq!(world.answered_by("family").await, "anna bert");
    world.send(&other).await.unwrap();
    assert_eq!(world.kimi.take_asked(), ["bert"]);
}

#[tokio::test]
async fn an_answer_to_an_earlier_request_does_not_end_a_limit() {
    let world = World::of(&["anna", "bert"]).await;
    let (pool, before) = (world.upstream.account_pool(), Clock::System.now());
    pool.cool_down(&id("anna"), CooldownCause::RateLimited, None, before + SignedDuration::from_millis(5));
    pool.note_answer(&id("anna"), before, before + SignedDuration::from_secs(9));
    assert_eq!(world.limits().len(), 1);
    pool.note_answer(
        &id("anna"),
        before + SignedDuration::from_secs(31),
        before + SignedDuration::from_secs(32),
    );
    assert_eq!(world.limits().len(), 0);
}

#[tokio::test]
async fn each_account_has_its_login_renewed_once_for_a_request() {
    let world = World::of(&["anna", "bert"]).await;
    for token in ["anna", "bert"] {
        world.kimi.will_say(token, 1, "401 Unauthorized\n");
    }
    let accounts = world.logins.borrow().accounts.clone();
    let renew = async {
        let mut refused = accounts[0].refused_tokens.subscribe();
        refused.wait_for(|token| token.as_ref() == Some(&Secret::new("anna"))).await.unwrap();
        world.tokens[0].send_replace(Authorization::Missing("ended".to_owned()));
        let mut refused = accounts[1].refused_tokens.subscribe();
        refused.wait_for(|token| token.as_ref() == Some(&Secret::new("bert"))).await.unwrap();
        world.tokens[1].send_replace(Authorization::Login(Secret::new("bert2")));
    };
    let (asked, ()) = tokio::join!(world.answered_by("family"), renew);
    assert_eq!(asked, "anna bert bert2");
}

#[tokio::test]
async fn a_caller_that_waits_elsewhere_hears_until_when() {
    let limited = limited_for(CooldownCause::QuotaUsedUp, 2);
    let world = World::with_limits(&["anna", "bert"], [("anna", limited), ("bert", limited)]).await;
    let call = ApiCall { waits_for_account: false, ..world.call("family") };
    let refusal = world.send(&call).await.unwrap_err();
    assert_eq!(refusal.free_at, Some(limited.until));
    world.sender.wait_for_account("family", limited.until).await;
    world.send(&call).await.unwrap();
    // Beyond its patience there is nothing to wait for.
    let limited = limited_for(CooldownCause::QuotaUsedUp, 3600);
    let world = World::with_limits(&["anna", "bert"], [("anna", limited), ("bert", limited)]).await;
    assert_eq!(world.send(&call).await.unwrap_err().free_at, None);
}
