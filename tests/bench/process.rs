//! The service as its own process, with real Docker: how soon it is ready, what it holds, how fast it ends.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nanokimi::clock::Clock;
use nanokimi::paths::Paths;
use nanokimi::store::Store;
use nanokimi::types::Event;
use support::figures::{Figure, Spread};
use support::test_service;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};

use crate::{CHATTER, timed_service};

/// The binary that `cargo bench` has built, as a release has it.
const BINARY: &str = env!("CARGO_BIN_EXE_nanokimi");
/// Messages in the database when the starts are timed: a quarter of a year of a busy group.
const HISTORY: usize = 100_000;
/// Messages of the history that are stored at a time.
const HISTORY_STEP: usize = 1_000;
/// Starts after the very first one.
const STARTS: usize = 10;
/// How long the service is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(10);
/// Longest wait for a start or an end.
const LIMIT: Duration = Duration::from_secs(30);

/// What `/proc` says of a process's memory, in kilobytes.
struct Memory {
    resident: u64,
    /// What it wrote itself: the part that no other process shares and that cannot be dropped.
    own: u64,
}

struct Service {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    took: Duration,
}

/// # Errors
/// Docker or the agent image is missing; says so in the service's own words.
pub async fn figures(folder: &Path) -> Result<Vec<Figure>> {
    let home = folder.join("home");
    timed_service::add_group(&Store::open(&Paths::new(&home).database_file())?).await?;
    let first = start(&home).await?;
    let first_took = first.took;
    first.stop().await?;
    write_history(&home).await?;
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let service = start(&home).await?;
        starts.push(service.took);
        stops.push(service.stop().await?);
    }
    let resting = start(&home).await?;
    sleep(REST).await;
    let memory = resting.memory()?;
    resting.stop().await?;
    let starts = Spread::of(starts);
    Ok(vec![
        Figure::time("From the start to ready, with 100,000 messages stored", starts.p50, Some(100.0)),
        Figure::time("  the slowest of these starts", starts.max, None),
        Figure::time("  the very first, in a new folder", first_took, None),
        Figure::memory("Memory of the idle service, without WhatsApp", memory.resident, None),
        Figure::memory("  of which is its own", memory.own, None),
        Figure::time("From SIGTERM to the end", Spread::of(stops).p50, None),
    ])
}

async fn write_history(home: &Path) -> Result<()> {
    let store = Store::open(&Paths::new(home).database_file())?;
    for begin in (0..HISTORY).step_by(HISTORY_STEP) {
        let messages = (begin..begin + HISTORY_STEP)
            .map(|number| Event::Message(timed_service::message(number, CHATTER)))
            .collect();
        store.record_events(messages, test_service::rules(), Clock::System.now()).await?;
    }
    Ok(())
}

/// Starts the service and waits until it says that it is ready.
async fn start(home: &Path) -> Result<Service> {
    let began = Instant::now();
    let mut process = Command::new(BINARY)
        .arg("--home")
        .arg(home)
        .arg("run")
        .env("LOG_LEVEL", "info")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("Failed to start {BINARY}"))?;
    let mut log = BufReader::new(process.stderr.take().context("The service has no stderr")?).lines();
    let mut said = Vec::new();
    loop {
        let line = timeout(LIMIT, log.next_line()).await;
        let line = line.context("The service was not ready in time")?.context("Failed to read its log")?;
        match line {
            Some(line) if line.ends_with(" Ready") => {
                return Ok(Service { process, log, took: began.elapsed() });
            }
            Some(line) => said.push(line),
            None => bail!("The service ended before it was ready, saying: {}", said.join(" / ")),
        }
    }
}

impl Service {
    fn memory(&self) -> Result<Memory> {
        let process = self.process.id().context("The service has ended by itself")?;
        let path = format!("/proc/{process}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("Failed to read {path}"))?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            value.with_context(|| format!("Failed to find {name} in {path}"))
        };
        Ok(Memory { resident: kilobytes("VmRSS")?, own: kilobytes("RssAnon")? })
    }

    /// Asks the service to end as systemd does; returns how long it took.
    async fn stop(mut self) -> Result<Duration> {
        let process = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let process = process.context("The service has ended by itself")?;
        let began = Instant::now();
        rustix::process::kill_process(process, rustix::process::Signal::TERM)
            .context("Failed to send SIGTERM")?;
        let status =
            timeout(LIMIT, self.process.wait()).await.context("The service did not end in time")??;
        let took = began.elapsed();
        // Its pipe was open until here, or its last words would have been an error.
        drop(self.log);
        if !status.success() {
            bail!("The service ended badly: {status}");
        }
        Ok(took)
    }
}
