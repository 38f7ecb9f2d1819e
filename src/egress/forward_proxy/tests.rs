//! The forward proxy over real unix sockets. The test is the container on one side and all hosts of the web
//! on the other: names lead where it says, and every connection ends at its own listener, so that nothing
//! leaves this machine.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::super::server::{EgressProxy, start_with_network};
use super::super::tests::{Log, PATIENCE, Pipe, connect_to, no_tools};
use super::Network;
use super::proxy::QUIET_TIMEOUT;
use crate::relay::KimiUpstream;
use crate::types::{Authorization, ChatId, Group, GroupName, HostName, Role, WebPolicy, WebTraffic};

const PUBLIC: &str = "93.184.216.34";
const PUBLIC_IPV6: &str = "2606:2800:220:1::34";
const OWN: &str = "93.184.216.1";
const CLOSED: &str = "93.184.216.98";
const SILENT: &str = "93.184.216.99";

/// A fake internet: names and hosts as a test wants them.
#[derive(Clone)]
struct FakeInternet {
    hosts: SocketAddr,
    names: Arc<Mutex<Names>>,
    connections: Arc<Mutex<Vec<SocketAddr>>>,
}

/// What a name leads to at its first look-up, its second, and so on; the last stays.
type Names = BTreeMap<&'static str, Vec<Vec<IpAddr>>>;

impl Network for FakeInternet {
    async fn lookup_addresses(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        if name.as_str() == "slow.example" {
            std::future::pending::<()>().await;
        }
        let mut names = self.names.lock().unwrap();
        let answers = names.get_mut(name.as_str()).ok_or_else(|| io::Error::other("no such name"))?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }

    async fn connect_to_address(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.connections.lock().unwrap().push(to);
        match to.ip().to_string().as_str() {
            SILENT => std::future::pending().await,
            CLOSED => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => TcpStream::connect(self.hosts).await,
        }
    }

    fn local_address_kind(&self, address: IpAddr) -> Option<&'static str> {
        (address.to_string() == OWN).then_some("an address of this machine")
    }
}

/// An egress proxy between a container and the fake internet.
struct ProxyFixture {
    egress: EgressProxy,
    folder: TempDir,
    hosts: TcpListener,
    internet: FakeInternet,
}

impl ProxyFixture {
    async fn new(policy: WebPolicy) -> Self {
        let folder = TempDir::new().unwrap();
        let hosts = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names = [
            ("public.example", vec![vec![PUBLIC]]),
            ("both.example", vec![vec![PUBLIC_IPV6, PUBLIC]]),
            ("second.example", vec![vec![CLOSED, SILENT, PUBLIC]]),
            ("closed.example", vec![vec![CLOSED]]),
            ("silent.example", vec![vec![SILENT]]),
            ("nowhere.example", vec![vec![]]),
            ("router.example", vec![vec!["192.168.1.1"]]),
            ("localhost", vec![vec!["127.0.0.1"]]),
            ("six.example", vec![vec!["fd00::1"]]),
            ("metadata.example", vec![vec!["169.254.169.254"]]),
            ("mapped.example", vec![vec!["::ffff:10.0.0.1"]]),
            ("mixed.example", vec![vec![PUBLIC, "10.0.0.1"]]),
            ("own.example", vec![vec![OWN]]),
            ("turning.example", vec![vec![PUBLIC], vec!["127.0.0.1"]]),
        ];
        let parsed = |answers: Vec<Vec<&str>>| {
            answers.iter().map(|found| found.iter().map(|one| one.parse().unwrap()).collect()).collect()
        };
        let internet = FakeInternet {
            hosts: hosts.local_addr().unwrap(),
            names: Arc::new(Mutex::new(
                names.into_iter().map(|(name, answers)| (name, parsed(answers))).collect(),
            )),
            connections: Arc::default(),
        };
        let name = GroupName::parse("family").unwrap();
        let group = Group { web: policy, ..Group::new(name, ChatId::new("c"), Role::Member) };
        let (_login, authorization) = tokio::sync::watch::channel(Authorization::Missing("nobody".into()));
        let upstream = KimiUpstream::new(
            "http://127.0.0.1:9/coding/v1",
            authorization,
            tokio::sync::watch::Sender::new(None),
        );
        let egress =
            start_with_network(folder.path(), upstream, &group, no_tools(), internet.clone()).await.unwrap();
        Self { egress, folder, hosts, internet }
    }

    async fn send_request(&self, request: &str) -> Pipe<UnixStream> {
        let mut container = connect_to(self.folder.path()).await;
        container.send(request).await;
        container
    }

    /// The status line and body of the answer to one request; a tunnel is none.
    async fn answer(&self, line: &str) -> String {
        let answer = self
            .send_request(&format!(
                "{line} HTTP/1.1\r\nhost: x\r\nuser-agent: KimiCLI/1.51.0\r\nconnection: close\r\n\r\n"
            ))
            .await
            .rest()
            .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        format!("{}\n{}", head.lines().next().unwrap_or_default(), body.trim_end())
    }

    async fn next_host_connection(&self) -> Pipe<TcpStream> {
        Pipe(timeout(PATIENCE, self.hosts.accept()).await.expect("no host was reached").unwrap().0)
    }

    fn connections(&self) -> Vec<String> {
        self.internet.connections.lock().unwrap().drain(..).map(|to| to.to_string()).collect()
    }
}

#[tokio::test]
async fn what_is_not_public_is_refused_with_its_reason_and_never_connected_to() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    for (request, status, word) in [
        ("CONNECT 127.0.0.1:443", 403, "127.0.0.1 is a loopback address"),
        ("CONNECT 10.0.0.1:443", 403, "a private address"),
        ("CONNECT [::ffff:169.254.169.254]:80", 403, "with an IPv4 address inside"),
        ("CONNECT [64:ff9b::a00:1]:443", 403, "with an IPv4 address inside"),
        ("CONNECT [fe80::1]:443", 403, "a link-local address"),
        ("CONNECT 93.184.216.1:443", 403, "93.184.216.1 is an address of this machine"),
        ("GET http://127.0.0.1:80/coding/v1/models", 403, "a loopback address"),
        ("GET http://169.254.169.254/latest/meta-data/", 403, "a link-local address"),
        ("GET http://[::1]/", 403, "a loopback address"),
        ("GET http://localhost/", 403, "localhost leads to a loopback address"),
        ("GET http://router.example/", 403, "router.example leads to a private address"),
        ("GET http://ROUTER.example./", 403, "router.example leads to a private address"),
        ("CONNECT six.example:443", 403, "a private address"),
        ("CONNECT metadata.example:80", 403, "a link-local address"),
        ("CONNECT mapped.example:443", 403, "with an IPv4 address inside"),
        ("CONNECT mixed.example:443", 403, "mixed.example leads to a private address"),
        ("CONNECT own.example:443", 403, "own.example leads to an address of this machine"),
        ("GET http://2130706433/", 400, "neither the name of a host nor an address"),
        ("GET http://0x7f.1/", 400, "neither the name of a host nor an address"),
        ("GET http://0177.0.0.1/", 400, "neither the name of a host nor an address"),
        ("GET http://public.example@127.0.0.1/", 400, "is not a host with a port"),
        ("GET https://public.example/", 400, "https:// goes through CONNECT"),
        ("CONNECT public.example:22", 403, "Port 22 is closed"),
        ("GET http://public.example:8080/", 403, "Port 8080 is closed"),
        ("CONNECT unknown.example:443", 502, "unknown.example cannot be found: no such name"),
        ("CONNECT nowhere.example:443", 502, "nowhere.example has no address"),
    ] {
        let answer = fixture.answer(request).await;
        let (line, body) = answer.split_once('\n').unwrap();
        assert!(
            line.starts_with(&format!("HTTP/1.1 {status} ")) && line.contains(word),
            "{request}: {answer}"
        );
        assert!(body.starts_with("nanokimi: ") && body.contains(word), "{request}: {answer}");
        assert!(!body.contains("192.168.1.1"), "what a name leads to stays here: {answer}");
    }
    assert_eq!(fixture.connections(), [""; 0]);
    assert_eq!(fixture.egress.take_web_traffic(), WebTraffic::default());
}

#[tokio::test]
async fn the_groups_policy_counts_before_anything_is_looked_up() {
    let fixture = ProxyFixture::new(WebPolicy::None).await;
    let answer = fixture.answer("CONNECT slow.example:443").await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("groups set family --web web"),
        "{answer}"
    );

    let fixture =
        ProxyFixture::new(WebPolicy::Allowlist(vec![HostName::parse("public.example").unwrap()])).await;
    let answer = fixture.answer("GET http://slow.example/").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("slow.example is not among"), "{answer}");
    let answer = fixture.answer(&format!("CONNECT {PUBLIC}:443")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    for service in ["search", "fetch"] {
        let answer = fixture.answer(&format!("POST /coding/v1/{service}")).await;
        assert!(answer.contains("Kimi's own search and fetch reach every host"), "{answer}");
    }
    assert_eq!(fixture.connections(), [""; 0]);

    let mut container = fixture.send_request("CONNECT public.example:443 HTTP/1.1\r\n\r\n").await;
    assert_eq!(container.until("\r\n\r\n").await.lines().next(), Some("HTTP/1.1 200 OK"));
    let open = ProxyFixture::new(WebPolicy::Web).await;
    assert!(
        open.answer("POST /coding/v1/fetch").await.contains("Nobody is logged in"),
        "it is the Kimi API's"
    );
    assert_eq!(fixture.connections(), [format!("{PUBLIC}:443")]);
}

/// A client reads the answer only after it has sent its request to the end.
#[tokio::test]
async fn a_refusal_is_heard_after_a_long_request() {
    let fixture = ProxyFixture::new(WebPolicy::None).await;
    let long = "x".repeat(4 * 1024 * 1024);
    for path in ["http://public.example/", "/coding/v1/fetch"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", long.len());
        let answer = fixture.send_request(&format!("{head}{long}")).await.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("groups set family --web web\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_as_they_come() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    // A hasty client sends its first bytes before the answer says that it may.
    let mut container = fixture
        .send_request("CONNECT public.example:443 HTTP/1.1\r\nhost: public.example:443\r\n\r\nhello")
        .await;
    let mut host = fixture.next_host_connection().await;
    let head = container.until("\r\n\r\n").await;
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    host.until("hello").await;
    host.send("welcome").await;
    container.until("welcome").await;
    let much = "x".repeat(1_000_000);
    let (_, read) = tokio::join!(container.send(&much), async {
        let mut read = vec![0; much.len()];
        host.0.read_exact(&mut read).await.unwrap();
        read
    });
    assert_eq!(read, much.as_bytes());
    let traffic = fixture.egress.take_web_traffic();
    assert_eq!(traffic, WebTraffic { sent: 1_000_005, received: 7 });

    // A side that has sent all may still listen.
    container.0.shutdown().await.unwrap();
    assert_eq!(host.rest().await, "");
    host.send("bye").await;
    drop(host);
    assert_eq!(container.rest().await, "bye");
    assert_eq!(fixture.egress.take_web_traffic(), WebTraffic { sent: 0, received: 3 });
}

#[tokio::test]
async fn a_plain_request_and_its_answer_pass_as_they_come() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let request = "POST http://Public.example:80/a/../b?c=%20 HTTP/1.1\r\nhost: other.example\r\n\
        proxy-authorization: Basic eA==\r\nproxy-connection: keep-alive\r\nconnection: x-mine\r\nx-mine: 1\r\n\
        authorization: Bearer theirs\r\ncookie: a=b\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut container = fixture.send_request(request).await;
    let mut host = fixture.next_host_connection().await;
    let mut head: Vec<String> = host.until("\r\n\r\n").await.trim_end().lines().map(str::to_owned).collect();
    head[1..].sort();
    assert_eq!(
        head,
        [
            "POST /a/../b?c=%20 HTTP/1.1",
            "authorization: Bearer theirs",
            "connection: close",
            "cookie: a=b",
            "host: Public.example:80",
            "transfer-encoding: chunked",
        ]
    );
    container.until("100 Continue\r\n\r\n").await;
    container.send("3\r\none\r\n").await;
    host.until("one\r\n").await;
    // The answer may begin before the request has ended.
    host.send(
        "HTTP/1.1 200 OK\r\nset-cookie: c=d\r\nkeep-alive: timeout=5\r\nconnection: close\r\n\r\nfirst",
    )
    .await;
    let head = container.until("\r\n\r\n").await;
    assert!(head.contains("set-cookie: c=d\r\n") && !head.contains("keep-alive"), "{head}");
    container.until("first\r\n").await;
    container.send("3\r\ntwo\r\n0\r\n\r\n").await;
    host.until("two\r\n0\r\n\r\n").await;
    host.send("last").await;
    drop(host);
    container.until("4\r\nlast\r\n0\r\n\r\n").await;

    // The same connection asks another host.
    container
        .send("GET http://both.example?q HTTP/1.1\r\nhost: both.example\r\nconnection: close\r\n\r\n")
        .await;
    let mut host = fixture.next_host_connection().await;
    assert!(host.until("\r\n\r\n").await.starts_with("GET /?q HTTP/1.1\r\n"));
    host.send("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n").await;
    let answer = container.rest().await;
    assert!(answer.starts_with("HTTP/1.1 302 ") && answer.contains("location: http://10.0.0.1/"), "{answer}");
    assert_eq!(
        fixture.connections(),
        [format!("{PUBLIC}:80"), format!("[{PUBLIC_IPV6}]:80")],
        "a redirect is not followed"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let ask = "GET http://public.example/ HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut container = fixture.send_request(ask).await;
    let mut host = fixture.next_host_connection().await;
    host.until("\r\n\r\n").await;
    host.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    container.until("half").await;
    drop(host);
    assert_eq!(container.rest().await, "", "96 bytes are missing, and the connection ends");

    let mut container = fixture.send_request(ask).await;
    drop(fixture.next_host_connection().await);
    let answer = container.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("public.example broke the connection"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_connected_to_where_it_was_checked() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let mut container = fixture.send_request("CONNECT turning.example:443 HTTP/1.1\r\n\r\n").await;
    container.until("\r\n\r\n").await;
    assert_eq!(fixture.connections(), [format!("{PUBLIC}:443")]);
    let answer = fixture.answer("CONNECT turning.example:443").await;
    assert!(answer.contains("turning.example leads to a loopback address"), "{answer}");
    assert_eq!(fixture.connections(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_addresses_of_a_host_are_tried_in_turn_and_not_without_end() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let mut container = fixture.send_request("CONNECT second.example:443 HTTP/1.1\r\n\r\n").await;
    container.until("\r\n\r\n").await;
    assert_eq!(fixture.connections(), [CLOSED, SILENT, PUBLIC].map(|address| format!("{address}:443")));
    for (request, line) in [
        ("CONNECT closed.example:443", "HTTP/1.1 502 closed.example cannot be reached: connection refused."),
        ("CONNECT silent.example:443", "HTTP/1.1 504 silent.example did not accept a connection in time."),
        ("GET http://slow.example/", "HTTP/1.1 504 slow.example could not be looked up in time."),
    ] {
        let answer = fixture.answer(request).await;
        assert!(answer.starts_with(line), "{request}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_opens_connections_without_end_is_refused_for_a_while() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let mut tried = 0;
    let refused = loop {
        let answer = fixture.answer("GET http://closed.example/").await;
        if !answer.starts_with("HTTP/1.1 502 ") || tried == 1_000 {
            break answer;
        }
        tried += 1;
    };
    assert!(
        refused.starts_with("HTTP/1.1 429 This chat's agent opens too many connections to the web"),
        "{refused}"
    );
    assert!(tried >= 100);
    assert_eq!(fixture.connections().len(), tried, "none was made for the one that was refused");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(fixture.answer("GET http://closed.example/").await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test(start_paused = true)]
async fn what_falls_silent_ends() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let mut container = fixture.send_request("CONNECT public.example:443 HTTP/1.1\r\n\r\n").await;
    let mut host = fixture.next_host_connection().await;
    container.until("\r\n\r\n").await;
    let opened = Instant::now();
    container.0.read_to_end(&mut Vec::new()).await.ok();
    assert!(opened.elapsed() >= QUIET_TIMEOUT);
    assert_eq!(host.0.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);

    let mut container = fixture.send_request("GET http://public.example/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let _host = fixture.next_host_connection().await;
    let mut answer = Vec::new();
    container.0.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 504 public.example did not answer in time."));
}

#[tokio::test]
async fn a_shut_door_cuts_what_it_carried() {
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    let mut tunnel = fixture.send_request("CONNECT public.example:443 HTTP/1.1\r\n\r\n").await;
    tunnel.until("\r\n\r\n").await;
    let mut tunnels_host = fixture.next_host_connection().await;
    let mut asking = fixture.send_request("GET http://public.example/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut asked_host = fixture.next_host_connection().await;
    asked_host.until("\r\n\r\n").await;
    asked_host.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    asking.until("first\r\n").await;
    let ProxyFixture { egress, folder: _folder, .. } = fixture;
    drop(egress);
    for ended in [&mut tunnel, &mut asking] {
        assert_eq!(ended.rest().await, "");
    }
    for ended in [&mut tunnels_host, &mut asked_host] {
        assert_eq!(ended.rest().await, "");
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_host_when_the_door_is_shut() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = ProxyFixture::new(WebPolicy::Web).await;
    for _ in 0..2 {
        let mut container = fixture.send_request("CONNECT public.example:443 HTTP/1.1\r\n\r\nhello").await;
        let mut host = fixture.next_host_connection().await;
        host.until("hello").await;
        host.send("you").await;
        drop(host);
        container.until("you").await;
        container.0.shutdown().await.unwrap();
        container.rest().await;
    }
    fixture.answer("CONNECT router.example:443").await;
    let ProxyFixture { egress, internet, .. } = fixture;
    drop(egress);
    // The last connection's task holds what is counted until it has ended.
    while Arc::strong_count(&internet.connections) > 1 {
        tokio::task::yield_now().await;
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> =
        logged.lines().filter_map(|line| line.split_once("traffic: ")).map(|(_, line)| line).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    The agent was on the web group=family host="public.example" visits=2 refused=0 sent_bytes=10 received_bytes=6
    The agent was on the web group=family host="router.example" visits=0 refused=1 sent_bytes=0 received_bytes=0
    "#);
}
