//! The figures of `docs/performance.md`: what nanokimi itself adds to an answer, and what it costs to have it
//! run.
//!
//! Real clock, real SQLite on a real disk, and for the process's own figures the release binary with real
//! Docker. Only the engine is scripted: its time is the model's, not ours. Never skips: a figure that cannot
//! be taken ends the run with the reason.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod process;
mod tasks;
mod timed_service;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nanokimi::bridge::Event;
use support::figures::{self, Figure, Spread};
use tokio::time::timeout;

use timed_service::TimedService;

/// As many as the service has (`src/cli/install.rs`).
const WORKER_THREADS: usize = 2;
/// Messages whose way is timed: enough for twenty beyond the 99th percentile.
const MESSAGES: usize = 2_000;
/// Messages before them that are not timed: the container starts, and SQLite prepares its statements.
const WARM_UP_MESSAGES: usize = 50;
/// Between an answer and the next message, so that delivery's last write does not count as the next one's
/// time.
const PAUSE: Duration = Duration::from_millis(10);
/// Messages of one burst: what a phone that comes back after a holiday delivers.
const BURST_MESSAGES: usize = 10_000;
/// Bursts of each shape; the slowest counts.
const BURSTS: usize = 5;
/// What people say to each other, and nobody has to answer.
const CHATTER: &str = "The trip is on Friday, we meet at the station at nine.";
/// Longest wait for anything here; all of it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let (table, code) = figures::take_table(take_all);
    println!("{table}");
    code
}

fn take_all(figures: &mut Vec<Figure>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(WORKER_THREADS)
        .build()
        .context("Failed to start the runtime")?;
    let folder = timed_service::real_disk()?;
    runtime.block_on(async {
        figures.extend(way_of_a_message(folder.path()).await?);
        figures.push(intake(folder.path(), 1).await?);
        figures.push(intake(folder.path(), 100).await?);
        figures.extend(tasks::figures(folder.path()).await?);
        figures.extend(process::figures(folder.path()).await?);
        Ok(())
    })
}

/// From the bridge's event to the line on the engine's stdin, and from its answer to the bridge, in a session
/// whose container runs.
async fn way_of_a_message(folder: &Path) -> Result<Vec<Figure>> {
    let mut timed = TimedService::start(folder).await?;
    let mut disk = File::create(folder.join("flushes")).context("Failed to make a file")?;
    let (mut stored, mut prompted, mut whole, mut answered) = (vec![], vec![], vec![], vec![]);
    let mut flushes = vec![];
    for number in 0..WARM_UP_MESSAGES + MESSAGES {
        let message = timed_service::message(number, "@Kai what did we decide about the trip?");
        let began = Instant::now();
        let committed = timed.deliver(vec![Event::Message(message)]).await;
        timeout(LIMIT, committed).await.context("The message was not stored in time")??;
        let on_disk = Instant::now();
        let prompt = timeout(LIMIT, timed.prompts.recv()).await.context("No prompt came in time")?;
        let prompt = prompt.context("The engine is gone")?;
        let reply = timed.reply(LIMIT).await;
        if number >= WARM_UP_MESSAGES {
            stored.push(on_disk - began);
            // The prompt may be there before we have heard that the message is on disk.
            prompted.push(prompt.duration_since(on_disk));
            whole.push(prompt - began);
            answered.push(reply - prompt);
        }
        tokio::time::sleep(PAUSE).await;
        flushes.push(flush(&mut disk).context("Failed to write to the disk")?);
    }
    timed.stop().await;
    let whole = Spread::of(whole);
    Ok(vec![
        Figure::time("From the message to the agent's prompt: half of them within", whole.p50, Some(5.0)),
        Figure::time("  99 of 100 within", whole.p99, Some(20.0)),
        Figure::time("  all of them within", whole.max, None),
        Figure::spread("  of which until the message is on disk", &Spread::of(stored)),
        Figure::spread("  of which from there to the prompt", &Spread::of(prompted)),
        Figure::spread("From the agent's answer to the bridge", &Spread::of(answered)),
        Figure::spread("One flush of this disk, between the messages", &Spread::of(flushes)),
    ])
}

/// What the disk alone takes for a commit: a page at the end of a file, until it is safe.
fn flush(disk: &mut File) -> std::io::Result<Duration> {
    let began = Instant::now();
    disk.write_all(&[0; 4096])?;
    disk.sync_all()?;
    Ok(began.elapsed())
}

/// How fast bursts of messages that nobody has to answer get onto the disk.
async fn intake(folder: &Path, per_batch: usize) -> Result<Figure> {
    let timed = TimedService::start(folder).await?;
    let mut slowest = f64::INFINITY;
    for burst in 0..BURSTS {
        let messages: Vec<Event> = (0..BURST_MESSAGES)
            .map(|number| burst * BURST_MESSAGES + number)
            .map(|number| timed_service::message(number, CHATTER))
            .map(Event::Message)
            .collect();
        let batches: Vec<Vec<Event>> = messages.chunks(per_batch).map(<[Event]>::to_vec).collect();
        let began = Instant::now();
        let mut waiting = Vec::with_capacity(batches.len());
        for batch in batches {
            waiting.push(timed.deliver(batch).await);
        }
        for committed in waiting {
            timeout(LIMIT, committed).await.context("The messages were not stored in time")??;
        }
        slowest = slowest.min(BURST_MESSAGES as f64 / began.elapsed().as_secs_f64());
    }
    timed.stop().await;
    let name = format!("Messages stored in a burst, in batches of {per_batch}");
    Ok(Figure::rate(&name, slowest, 10_000.0))
}
