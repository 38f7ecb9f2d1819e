//! The figures of the gateway in `docs/performance.md`: what it adds to a request, what an open stream costs, and what
//! thirty of them cost the chats beside them.
//!
//! Overhead and memory are those of the program itself, as a process of its own before the practice model. The chats are
//! the real service with the gateway beside it on its own threads, as `nanokimi run` has them; the model and the clients
//! are on others.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod paced_model;
mod timed_service;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::tz::TimeZone;
use nanokimi::bridge::Event;
use nanokimi::clock::Clock;
use nanokimi::gateway::{
    Gateway, GatewayServer, GatewaySetup, KimiApi, KimiCliHeaders, SHARE, generate_client_key,
};
use nanokimi::paths::Paths;
use nanokimi::relay::KimiUpstream;
use nanokimi::store::Store;
use nanokimi::types::{Authorization, ClientIdentity, GatewayAddress, GatewayKey, KeyName, Secret};
use serde_json::json;
use support::figures::{self, Figure, Spread};
use support::raw_http::RawConnection;
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use paced_model::PacedModel;
use timed_service::TimedService;

const BINARY: &str = env!("CARGO_BIN_EXE_nanokimi");
/// As many as the service has (`src/cli/install.rs`).
const WORKER_THREADS: usize = 2;
/// Requests whose overhead is timed, of each kind, and those before them that are not.
const REQUESTS: usize = 1_000;
const WARM_UP_REQUESTS: usize = 50;
/// Requests that only look the key up, and flushes of the disk between them.
const LOOKS: usize = 200;
/// Streams that clients have open at once; the gateway lets [`SHARE`] of them run.
const STREAMS: usize = 30;
/// Messages of a chat that are timed without the streams and beside them, in turns.
const CHAT_ROUNDS: usize = 5;
const CHAT_MESSAGES: usize = 60;
/// Between an answer in the chat and the next message.
const CHAT_PAUSE: Duration = Duration::from_millis(30);
/// How long the streams are open before the memory is looked at.
const SETTLED: Duration = Duration::from_secs(3);
/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let (table, code) = figures::take_table(take_all);
    println!("{table}");
    code
}

fn take_all(figures: &mut Vec<Figure>) -> Result<()> {
    let folder = timed_service::real_disk()?;
    let runtime = Builder::new_multi_thread().enable_all().worker_threads(WORKER_THREADS).build();
    let runtime = runtime.context("Failed to start the runtime")?;
    let model = PacedModel::start()?;
    figures.extend(runtime.block_on(overhead_and_memory(folder.path(), &model))?);
    figures.extend(runtime.block_on(chats_beside_streams(folder.path(), &model))?);
    Ok(())
}

/// A request by the gateway beside the same one straight to the model, by turns; then streams that stay open.
async fn overhead_and_memory(folder: &Path, model: &PacedModel) -> Result<Vec<Figure>> {
    let mut gateway = GatewayProcess::start(&folder.join("gateway-home"), model).await?;
    let mut figures = Vec::new();
    for (what, text, is_stream) in
        [("A request through the gateway", "hello", false), ("A streamed one", "hello", true)]
    {
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        let mut straight = RawConnection::open(&model.host()).await?;
        let mut by_gateway = RawConnection::open(&gateway.host).await?;
        let processor_before = gateway.processor_time()?;
        for number in 0..WARM_UP_REQUESTS + REQUESTS {
            let alone = ask(&mut straight, "POST /coding/v1/chat/completions", "sk", text, is_stream).await?;
            let with =
                ask(&mut by_gateway, "POST /v1/chat/completions", &gateway.key, text, is_stream).await?;
            if number >= WARM_UP_REQUESTS {
                direct.push(alone);
                through.push(with);
            }
        }
        let processor = gateway.processor_time()?.saturating_sub(processor_before);
        let (direct, through) = (Spread::of(direct), Spread::of(through));
        let added = |with: Duration, without: Duration| with.saturating_sub(without);
        figures.extend([
            Figure::time(
                &format!("{what} takes longer than without it: half of them by"),
                added(through.p50, direct.p50),
                Some(2.0),
            ),
            Figure::time("  99 of 100 by", added(through.p99, direct.p99), None),
            Figure::spread("  through the gateway", &through),
            Figure::spread("  straight to the model", &direct),
            Figure::time(
                "  processor time of the gateway for each",
                processor / (WARM_UP_REQUESTS + REQUESTS) as u32,
                None,
            ),
        ]);
    }
    let (mut looks, mut flushes) = (Vec::new(), Vec::new());
    let mut connection = RawConnection::open(&gateway.host).await?;
    let mut disk = File::create(folder.join("flushes")).context("Failed to make a file")?;
    for _ in 0..LOOKS {
        let began = Instant::now();
        let answer = connection.ask("GET /v1/usage", &[&bearer(&gateway.key)], "").await?;
        looks.push(began.elapsed());
        ensure!(answer.head.status == 200, "No answer: {answer:?}");
        let began = Instant::now();
        disk.write_all(&[0; 4096]).and_then(|()| disk.sync_all()).context("Failed to write to the disk")?;
        flushes.push(began.elapsed());
    }
    figures.extend([
        Figure::spread("  of which is to look the key up (`GET /v1/usage`)", &Spread::of(looks)),
        Figure::spread("  and one flush of this disk, which what was used takes", &Spread::of(flushes)),
    ]);
    let before = gateway.resident_kilobytes()?;
    let mut open = Vec::new();
    for _ in 0..SHARE {
        let mut stream = RawConnection::open(&gateway.host).await?;
        stream.send("POST /v1/chat/completions", &[&bearer(&gateway.key)], &chat_body("LONG", true)).await?;
        let head = timeout(LIMIT, stream.read_head()).await.context("A stream did not begin")??;
        ensure!(head.status == 200, "A stream was refused: {}", head.text);
        open.push((stream, head));
    }
    let mut reading = JoinSet::new();
    for (mut stream, head) in open {
        reading.spawn(async move {
            while stream.read_piece(&head, 0).await.is_ok_and(|piece| piece.is_some()) {}
        });
    }
    sleep(SETTLED).await;
    ensure!(reading.try_join_next().is_none(), "A stream ended too early");
    let during = gateway.resident_kilobytes()?;
    drop(reading);
    let each = during.saturating_sub(before) / SHARE as u64;
    figures.extend([
        Figure::kilobytes("Memory of the gateway for each of 20 open streams", each, Some(200)),
        Figure::memory("  of the gateway alone, after these requests", before, None),
    ]);
    gateway.process.kill().await.context("Failed to end the gateway")?;
    Ok(figures)
}

/// Messages of a chat with and without thirty streams through the gateway beside them, by turns.
async fn chats_beside_streams(folder: &Path, model: &PacedModel) -> Result<Vec<Figure>> {
    let mut timed = TimedService::start(folder).await?;
    let store = Store::open(&folder.join("gateway.db"))?;
    let key = add_key(&store).await?;
    let (_login, authorization) = watch::channel(Authorization::Login(Secret::new("sk-bench")));
    let upstream = KimiUpstream::new(model.base_url(), authorization, watch::Sender::default());
    let gateway = Arc::new(Gateway::new(GatewaySetup {
        store,
        clock: Clock::System,
        zone: TimeZone::UTC,
        kimi: KimiApi::new(&upstream).await?,
        kimi_cli: KimiCliHeaders {
            version: String::new(),
            device_name: String::new(),
            device_model: String::new(),
            os_version: String::new(),
            device_id: String::new(),
        },
    }));
    let server = GatewayServer::bind(&GatewayAddress::parse("127.0.0.1:0")?).await?;
    let host = host_of(server.address())?;
    let serving = tokio::spawn(async move { match server.serve(gateway).await {} });
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut events = 0;
    let mut number = 0;
    time_messages(&mut timed, &mut number, &mut Vec::new()).await?;
    for _ in 0..CHAT_ROUNDS {
        time_messages(&mut timed, &mut number, &mut alone).await?;
        let streams = Streams::open(&host, &key)?;
        sleep(SETTLED).await;
        time_messages(&mut timed, &mut number, &mut beside).await?;
        events += streams.end()?;
    }
    serving.abort();
    timed.stop().await;
    let (alone, beside) = (Spread::of(alone), Spread::of(beside));
    Ok(vec![
        Figure::time(
            "Beside 30 streams, a message's way to the prompt and its answer's way back: half take longer by",
            beside.p50.saturating_sub(alone.p50),
            Some(5.0),
        ),
        Figure::spread("  beside the streams", &beside),
        Figure::spread("  without them, in turns", &alone),
        Figure::number("  events that the clients got meanwhile", events),
    ])
}

/// From the bridge's event to the engine's prompt, and from its answer to the bridge; the engine answers at once.
async fn time_messages(
    timed: &mut TimedService,
    number: &mut usize,
    times: &mut Vec<Duration>,
) -> Result<()> {
    for _ in 0..CHAT_MESSAGES {
        *number += 1;
        let message = timed_service::message(*number, "@Kai what did we decide about the trip?");
        let began = Instant::now();
        let _committed = timed.deliver(vec![Event::Message(message)]).await;
        let prompt = timeout(LIMIT, timed.prompts.recv()).await.context("No prompt came in time")?;
        prompt.context("The engine is gone")?;
        let reply = timed.reply(LIMIT).await;
        times.push(reply - began);
        sleep(CHAT_PAUSE).await;
    }
    Ok(())
}

/// Thirty clients on a thread of their own, each with one stream after the other.
struct Streams {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<usize>>,
}

impl Streams {
    fn open(host: &str, key: &str) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (host, key) = (host.to_owned(), key.to_owned());
        let thread = thread::Builder::new().name("clients".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let mut clients = JoinSet::new();
                let counts = watch::Sender::new(0);
                for _ in 0..STREAMS {
                    let (host, key, counts) = (host.clone(), key.clone(), counts.clone());
                    clients.spawn(async move { read_streams(&host, &key, &counts).await });
                }
                tokio::select! {
                    _ = stopped => {}
                    Some(ended) = clients.join_next() => bail!("A client gave up: {:?}", ended?),
                }
                Ok(*counts.borrow())
            })
        });
        Ok(Self { stop, thread: thread.context("Failed to start a thread")? })
    }

    /// How many events the clients have got.
    fn end(self) -> Result<usize> {
        self.stop.send(()).ok();
        match self.thread.join() {
            Ok(events) => events,
            Err(_) => bail!("The clients broke off"),
        }
    }
}

async fn read_streams(host: &str, key: &str, counts: &watch::Sender<usize>) -> Result<()> {
    let mut connection = RawConnection::open(host).await?;
    loop {
        connection.send("POST /v1/chat/completions", &[&bearer(key)], &chat_body("LONG", true)).await?;
        let head = connection.read_head().await?;
        ensure!(head.status == 200, "It was refused: {}", head.text);
        while connection.read_piece(&head, 0).await?.is_some() {
            counts.send_modify(|count| *count += 1);
        }
    }
}

/// `nanokimi gateway run` on a home of its own.
struct GatewayProcess {
    process: Child,
    host: String,
    key: String,
}

impl GatewayProcess {
    async fn start(home: &Path, model: &PacedModel) -> Result<Self> {
        let paths = Paths::new(home);
        nanokimi::folders::prepare_install_folders(&paths)?;
        let store = Store::open(&paths.database_file())?;
        let key = add_key(&store).await?;
        drop(store);
        let free = std::net::TcpListener::bind("127.0.0.1:0").context("Failed to find a free port")?;
        let host = free.local_addr().context("Failed to find a free port")?.to_string();
        drop(free);
        let process = Command::new(BINARY)
            .arg("--home")
            .arg(home)
            .args(["gateway", "run"])
            .env("GATEWAY_LISTEN", &host)
            .env("MOONSHOT_API_KEY", "sk-bench")
            .env("MOONSHOT_BASE_URL", model.base_url())
            .env("LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("Failed to start {BINARY}"))?;
        let listens = async {
            while RawConnection::open(&host).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, listens).await.context("The gateway does not listen")?;
        Ok(Self { process, host, key })
    }

    /// How long its threads have been on a processor, to a hundredth of a second.
    fn processor_time(&self) -> Result<Duration> {
        let process = self.process.id().context("The gateway has ended by itself")?;
        let told = fs::read_to_string(format!("/proc/{process}/stat")).context("Failed to look at it")?;
        let (_, fields) = told.rsplit_once(')').context("The kernel does not say how long it ran")?;
        // utime and stime of proc_pid_stat(5), whose first two fields are left out here.
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>().context("The kernel does not say how long it ran")?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis(ticks * 1_000 / per_second))
    }

    fn resident_kilobytes(&self) -> Result<u64> {
        let process = self.process.id().context("The gateway has ended by itself")?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).context("Failed to look at it")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        value.context("The kernel does not say how much memory it holds")
    }
}

async fn ask(
    connection: &mut RawConnection,
    line: &str,
    key: &str,
    text: &str,
    is_stream: bool,
) -> Result<Duration> {
    let (authorization, body) = (bearer(key), chat_body(text, is_stream));
    let began = Instant::now();
    let answer = timeout(LIMIT, connection.ask(line, &[&authorization], &body)).await;
    let answer = answer.context("A request was not answered")??;
    let took = began.elapsed();
    ensure!(answer.head.status == 200 && answer.body.contains("word"), "No answer: {answer:?}");
    Ok(took)
}

fn chat_body(text: &str, is_stream: bool) -> String {
    let messages = json!([{ "role": "user", "content": text }]);
    json!({ "model": "kimi-for-coding", "stream": is_stream, "messages": messages }).to_string()
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}")
}

async fn add_key(store: &Store) -> Result<String> {
    let (secret, hash) = generate_client_key();
    let name = KeyName::parse("laptop")?;
    let key = GatewayKey { name, daily_tokens: None, models: Vec::new(), identity: ClientIdentity::Own };
    ensure!(store.add_gateway_key(&key, hash, Clock::System.now()).await?, "The key is there already");
    Ok(secret.expose_secret().to_owned())
}

fn host_of(address: &GatewayAddress) -> Result<String> {
    let url = address.base_url().context("The gateway is on no port")?;
    Ok(url.replace("http://", ""))
}
