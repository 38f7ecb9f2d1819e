//! What many tasks cost: while none is due, and when one is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nanokimi::clock::Clock;
use nanokimi::paths::Paths;
use nanokimi::store::{ClaimedTasks, Store, TaskDraft};
use nanokimi::types::{ChatId, Group, GroupName, Role};
use rusqlite::{Connection, params};
use support::figures::{Figure, Spread};
use support::test_service;
use tempfile::TempDir;

use crate::timed_service::{self, TimedService};

/// In as many groups as that takes.
const TASKS: u32 = 10_000;
const TASKS_PER_GROUP: u32 = 500;
/// Each is due once a day, this long after another one.
const APART: SignedDuration = SignedDuration::from_secs(8);
/// How long it is until the first one is due.
const QUIET_FOR: SignedDuration = SignedDuration::from_hours(1);
/// Looks and claims that are timed.
const LOOKS: usize = 1_000;
const CLAIMS: usize = 500;
/// How long before a task is due its agent is started (`src/service/scheduler.rs`).
const START_AHEAD: SignedDuration = SignedDuration::from_secs(10);
/// What a start does is over by then.
const SETTLED: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);

pub async fn figures(folder: &Path) -> Result<Vec<Figure>> {
    let without = count_wakeups(timed_service::prepare_home(folder).await?).await?;
    let first_due = Clock::System.now().saturating_add(QUIET_FOR)?;
    let with = count_wakeups(home_with_tasks(folder, first_due).await?).await?;
    let home = home_with_tasks(folder, first_due).await?;
    let store = Store::open(&Paths::new(home.path()).database_file())?;
    let began = Instant::now();
    store.bring_tasks_forward(Clock::System.now()).await?;
    let first_look = began.elapsed();
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        let began = Instant::now();
        look(&store).await?;
        looks.push(began.elapsed());
    }
    let mut disk = File::create(folder.join("flushes")).context("Failed to make a file")?;
    let (mut claims, mut flushes) = (Vec::new(), Vec::new());
    let mut now = first_due;
    for _ in 0..CLAIMS {
        let began = Instant::now();
        let claimed = store.claim_due_tasks(now).await?;
        claims.push(began.elapsed());
        ensure!(claimed.woken.len() == 1, "Not one task was due, but {claimed:?}");
        now = now.saturating_add(APART)?;
        flushes.push(crate::flush(&mut disk).context("Failed to write to the disk")?);
    }
    let looks = Spread::of(looks);
    Ok(vec![
        Figure::time("With 10,000 tasks, a look at what is due: half of them within", looks.p50, Some(1.0)),
        Figure::time("  99 of 100 within", looks.p99, None),
        Figure::time("  the first one after a start, which looks at each task", first_look, None),
        Figure::spread("  to claim one that is due, which is on disk then", &Spread::of(claims)),
        Figure::spread("  one flush of this disk, between the claims", &Spread::of(flushes)),
        Figure::number("  wake-ups of all threads in a quiet minute", with),
        Figure::number("  the same without tasks", without),
    ])
}

/// What the scheduler does at each wake-up (`handle_due_tasks` in `src/service/scheduler.rs`).
async fn look(store: &Store) -> Result<()> {
    let now = Clock::System.now();
    let claimed = store.claim_due_tasks(now).await?;
    ensure!(claimed == ClaimedTasks::default(), "A task was due too early");
    store.tell_task_news(test_service::rules(), now).await?;
    store.next_task_due_at().await?.context("There are no tasks")?;
    let ahead = store.groups_with_tasks_due_until(now.saturating_add(START_AHEAD)?).await?;
    ensure!(ahead.is_empty(), "A task is due too early");
    Ok(())
}

/// A home whose tasks come due one after the other from `first_due` on.
async fn home_with_tasks(folder: &Path, first_due: Timestamp) -> Result<TempDir> {
    let home = timed_service::prepare_home(folder).await?;
    let database = Paths::new(home.path()).database_file();
    let store = Store::open(&database)?;
    let now = Clock::System.now();
    for number in 0..TASKS / TASKS_PER_GROUP {
        let name = GroupName::parse(&format!("group-{number}"))?;
        let group = Group::new(name, ChatId::new(format!("{number}@g.us")), Role::Member);
        store.add_group(&group, now).await?;
        let draft = TaskDraft {
            text: "Say which of the plants on the balcony need water today, and how much".to_owned(),
            schedule: "every 1d".to_owned(),
            ..TaskDraft::default()
        };
        store.add_task(&group.name, draft, TimeZone::UTC, now).await?;
    }
    // One by one they would take as many flushes of the disk.
    let connection = Connection::open(&database).context("Failed to open the database")?;
    connection.execute(
        "WITH RECURSIVE numbers (number) AS
             (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?1 - 1)
         INSERT INTO tasks (group_name, text, schedule, zone, late, created_at)
         SELECT group_name, text, schedule, zone, late, created_at FROM tasks, numbers",
        [TASKS_PER_GROUP],
    )?;
    let planned = connection.execute(
        "UPDATE tasks SET next_at = ?1 + (id - 1) * ?2,
             schedule = strftime('every 1d from %Y-%m-%dT%H:%M:%SZ', (?1 + (id - 1) * ?2) / 1000, 'unixepoch')",
        params![first_due.as_second() * 1_000, i64::try_from(APART.as_millis())?],
    )?;
    ensure!(planned == TASKS as usize, "{planned} tasks were planned");
    Ok(home)
}

/// How often threads of this process wake in a minute in which the service has nothing to do.
async fn count_wakeups(home: TempDir) -> Result<usize> {
    let service = TimedService::start_in(home).await?;
    tokio::time::sleep(SETTLED).await;
    let before = wakeups_of_threads()?;
    tokio::time::sleep(MINUTE).await;
    let after = wakeups_of_threads()?;
    service.stop().await;
    let gained = after.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0));
    Ok(gained.sum())
}

/// How often each thread has gone to sleep so far.
fn wakeups_of_threads() -> Result<HashMap<String, usize>> {
    let mut counts = HashMap::new();
    for thread in fs::read_dir("/proc/self/task").context("Failed to list the threads")? {
        let thread = thread.context("Failed to list the threads")?;
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.context("The kernel does not count wake-ups")?.trim().parse()?;
        counts.insert(thread.file_name().to_string_lossy().into_owned(), count);
    }
    Ok(counts)
}
