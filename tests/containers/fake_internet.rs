//! A small internet for one test. This machine is in a network namespace of its own. Its only cable leads to
//! another namespace, with hosts at public addresses and at all addresses that no agent may reach. No way
//! leads out, so a fault cannot send a packet to a real address.
//!
//! It needs no rights except those of a user that may make user namespaces. Rootless Docker needs these too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use rcgen::CertifiedKey;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use support::fixture::{until, variable};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// Set inside the namespaces.
const INSIDE: &str = "TEST_INSIDE_OF_THE_TOWN";

/// The host that agents may reach, and the public addresses of this machine.
pub const PUBLIC: &str = "93.184.216.34";
pub const PUBLIC_IPV6: &str = "2606:2800:220:1::34";
pub const OWN: &str = "93.184.216.1";
pub const OWN_IPV6: &str = "2606:2800:220:1::1";
/// The name server, at the address that home routers use. This machine asks it; no agent reaches it.
const NAME_SERVER: &str = "10.0.0.53";

/// Hosts that no agent may reach. If an address cannot be a host's, such as a broadcast address, no host is
/// there.
pub const CLOSED: [&str; 31] = [
    "10.0.0.1",
    "10.0.0.53",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "240.0.0.1",
    "::a00:1",
    "::ffff:0:a00:1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
];

/// The addresses of names. If two answers have a bar between them, the first is given once, then the second.
const NAMES: [(&str, &str); 12] = [
    ("public.example", PUBLIC),
    ("www.public.example", PUBLIC),
    ("both.example", "2606:2800:220:1::34"),
    ("router.example", "192.168.1.1"),
    ("local.example", "127.0.0.1"),
    ("metadata.example", "169.254.169.254"),
    ("six.example", "fd00:ec2::254"),
    ("mapped.example", "::ffff:10.0.0.1"),
    ("translated.example", "64:ff9b::a00:1"),
    ("mixed.example", "93.184.216.34 10.0.0.1"),
    ("own.example", OWN),
    ("turning.example", "93.184.216.34 | 127.0.0.1"),
];

/// The ports where hosts listen: the web's ports, and two others.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;
const OTHERS: [u16; 2] = [22, 8080];
/// The fake internet itself connects to this, to know that all earlier connections were counted.
const LAST: u16 = 7_777;

/// Gives this machine its cable, its names and its routes. `$1` is the folder with its settings, `$2` a
/// process in the other namespace, `$3` the addresses there.
const LAY_CABLE: &str = r#"
    for file in resolv.conf hosts nsswitch.conf; do mount --bind "$1/$file" "/etc/$file"; done
    # A cache of names would ask outside.
    [ ! -d /run/nscd ] || mount -t tmpfs none /run/nscd
    ip link set lo up
    ip link add cable type veth peer name far-end
    ip link set far-end netns "$2"
    ip addr add 93.184.216.1/32 dev cable
    ip addr add 2606:2800:220:1::1/128 dev cable nodad
    ip link set cable up
    ip route add default dev cable
    ip -6 route add default dev cable
    process=$2
    far() { nsenter --net="/proc/$process/ns/net" "$@"; }
    far ip link set lo up
    far ip link set far-end up
    for address in $3; do
        case $address in
            *:*) far ip addr add "$address/128" dev far-end nodad ;;
            *) far ip addr add "$address/32" dev far-end ;;
        esac
    done
    far ip route add default dev far-end
    far ip -6 route add default dev far-end
"#;

pub struct FakeInternet {
    /// The certificate by which its hosts trust each other, as PEM.
    pub certificate: String,
    seen: Arc<Mutex<Seen>>,
    /// Keeps the other namespace alive.
    keeper: Child,
    _settings: TempDir,
}

#[derive(Default)]
struct Seen {
    /// The hosts that connections reached, in order of time.
    connections: Vec<String>,
    lookups: BTreeMap<String, usize>,
    /// A folder that the web's host serves beside its own pages.
    served: Option<PathBuf>,
}

/// Runs a test once more inside a fake internet, and returns the fake internet there. Outside, it returns
/// nothing once the test has ended well.
pub async fn enter(test: &str) -> Option<FakeInternet> {
    if variable(INSIDE).is_some() {
        return Some(FakeInternet::build().await);
    }
    let arguments =
        ["--user", "--map-current-user", "--keep-caps", "--net", "--mount", "--kill-child", "--fork", "--"];
    let program = fs::read_link("/proc/self/exe").unwrap();
    let mut inside = tokio::process::Command::new("unshare");
    inside
        .args(arguments)
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .kill_on_drop(true);
    let output = inside.output().await.unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "Inside of the fake internet, {test} failed:\n{said}"
    );
    None
}

impl FakeInternet {
    async fn build() -> Self {
        let settings = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("resolv.conf", format!("nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n")),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
            ("nsswitch.conf", "hosts: files dns\n".to_owned()),
        ] {
            fs::write(settings.path().join(name), text).unwrap();
        }
        let keeper = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let namespace = namespace_of(&keeper).await;
        let addresses = [&[PUBLIC, PUBLIC_IPV6][..], &CLOSED[..]].concat().join(" ");
        let laid = Command::new("sh")
            .args(["-euc", LAY_CABLE, "sh"])
            .arg(settings.path())
            .args([keeper.id().to_string(), addresses])
            .output()
            .unwrap();
        assert!(laid.status.success(), "{}", String::from_utf8_lossy(&laid.stderr));

        let names = ["public.example", "both.example"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        rustls::crypto::ring::default_provider().install_default().ok();
        let tls =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
        let tls = TlsAcceptor::from(Arc::new(tls.unwrap()));
        let seen = Arc::<Mutex<Seen>>::default();
        live(None, Arc::clone(&seen), tls.clone());
        live(Some(namespace), Arc::clone(&seen), tls);
        Self { certificate: cert.pem(), seen, keeper, _settings: settings }
    }

    /// Lets the web's host serve a folder.
    pub fn serves(&self, folder: PathBuf) {
        lock(&self.seen).served = Some(folder);
    }

    /// The hosts that connections have reached since the last call, this machine included.
    pub async fn connections(&self) -> Vec<String> {
        // Earlier connections are counted before these.
        let last = [PUBLIC, "127.0.0.1"].map(|host| format!("{host}:{LAST}"));
        for place in &last {
            TcpStream::connect(place).await.unwrap();
        }
        let seen = async || last.iter().all(|place| lock(&self.seen).connections.contains(place));
        until("the hosts count who came", seen).await;
        let mut connections = std::mem::take(&mut lock(&self.seen).connections);
        connections.retain(|place| !last.contains(place));
        connections
    }

    /// How often a look-up asked for the IPv4 addresses of a name.
    pub fn lookups(&self, name: &str) -> usize {
        lock(&self.seen).lookups.get(name).copied().unwrap_or(0)
    }
}

impl Drop for FakeInternet {
    fn drop(&mut self) {
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}

/// The network of a process that has just started in a network of its own.
async fn namespace_of(process: &Child) -> File {
    let (own, its) = ("/proc/self/ns/net", format!("/proc/{}/ns/net", process.id()));
    let made = async || fs::read_link(&its).unwrap() != fs::read_link(own).unwrap();
    until("unshare makes a network", made).await;
    File::open(&its).unwrap()
}

/// Starts one of the networks, in a thread of its own: a network belongs to a thread.
fn live(namespace: Option<File>, seen: Arc<Mutex<Seen>>, tls: TlsAcceptor) {
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        if let Some(namespace) = &namespace {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for port in [HTTP, HTTPS, LAST].into_iter().chain(OTHERS) {
                let listener = TcpListener::bind(("::", port)).await.unwrap();
                tokio::spawn(host(listener, Arc::clone(&seen), tls.clone()));
            }
            let names = match namespace {
                Some(_) => Some(UdpSocket::bind((NAME_SERVER, 53)).await.unwrap()),
                None => None,
            };
            ready.send(()).unwrap();
            match names {
                Some(socket) => name_server(socket, seen).await,
                None => std::future::pending().await,
            }
        });
    });
    is_ready.recv().unwrap();
}

async fn host(listener: TcpListener, seen: Arc<Mutex<Seen>>, tls: TlsAcceptor) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let reached = stream.local_addr().unwrap();
        let reached = SocketAddr::new(reached.ip().to_canonical(), reached.port());
        lock(&seen).connections.push(reached.to_string());
        let (seen, tls) = (Arc::clone(&seen), tls.clone());
        tokio::spawn(async move {
            match reached.port() {
                HTTP => answer(stream, &seen).await,
                HTTPS => {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, &seen).await;
                    }
                }
                _ => {}
            }
        });
    }
}

/// Answers one request.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Seen>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let served = lock(seen).served.clone();
    let (head, body) = match path.strip_prefix("/to/") {
        Some(place) => (format!("302 Found\r\nlocation: http://{place}"), Vec::new()),
        None if path == "/" => ("200 OK\r\ncontent-type: text/plain".to_owned(), b"the web\n".to_vec()),
        None => match served.and_then(|folder| file(&folder, path)) {
            Some((kind, content)) => (format!("200 OK\r\ncontent-type: {kind}"), content),
            None => ("404 Not Found".to_owned(), Vec::new()),
        },
    };
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok();
    stream.shutdown().await.ok();
}

fn file(folder: &Path, path: &str) -> Option<(&'static str, Vec<u8>)> {
    let path = folder.join(path.trim_start_matches('/'));
    let path = if path.is_dir() { path.join("index.html") } else { path };
    let kind = match path.extension().and_then(|kind| kind.to_str()) {
        Some("html") => "text/html",
        Some("txt") => "text/plain",
        _ => "application/octet-stream",
    };
    Some((kind, fs::read(path).ok()?))
}

/// Answers questions about [`NAMES`] (RFC 1035, 4.1).
async fn name_server(socket: UdpSocket, seen: Arc<Mutex<Seen>>) {
    const A: u8 = 1;
    const AAAA: u8 = 28;
    let mut question = [0; 512];
    loop {
        let (length, who) = socket.recv_from(&mut question).await.unwrap();
        let mut labels = Vec::new();
        let mut at = 12;
        while question[at] != 0 {
            let label = &question[at + 1..at + 1 + usize::from(question[at])];
            labels.push(String::from_utf8_lossy(label).into_owned());
            at += 1 + label.len();
        }
        let (name, kind) = (labels.join(".").to_lowercase(), question[at + 2]);
        let asked_before = if kind == A {
            let mut seen = lock(&seen);
            let lookups = seen.lookups.entry(name.clone()).or_default();
            *lookups += 1;
            *lookups > 1
        } else {
            false
        };
        let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, answers)| *answers);
        let turns: Vec<&str> = known.unwrap_or_default().split('|').collect();
        let turn = if asked_before { turns.last() } else { turns.first() };
        let addresses: Vec<IpAddr> =
            turn.unwrap().split_whitespace().map(|address| address.parse().unwrap()).collect();
        let mut records = Vec::new();
        let mut count = 0;
        for address in addresses {
            let bytes = match address {
                IpAddr::V4(address) if kind == A => address.octets().to_vec(),
                IpAddr::V6(address) if kind == AAAA => address.octets().to_vec(),
                IpAddr::V4(_) | IpAddr::V6(_) => continue,
            };
            // The name as in the question, its kind, the internet, no time to live.
            records.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()]);
            records.extend(bytes);
            count += 1;
        }
        let rcode = if known.is_some() { 0 } else { 3 };
        let mut answer = question[..2].to_vec();
        answer.extend([0x85, 0x80 | rcode, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend(&question[12..length.min(at + 5)]);
        answer.extend(records);
        socket.send_to(&answer, who).await.unwrap();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
