//! Tasks come due all the time, and the service is killed again and again: at random moments, and right after
//! something came due. Meanwhile people write in the same chats. Afterwards `task_runs` compares the instants
//! that there were with the database, and with what the people have heard.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nanokimi::clock::Clock;
use nanokimi::paths::Paths;
use nanokimi::store::{Store, TaskDraft};
use nanokimi::types::GroupName;
use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::chats::{Chats, KAI};
use crate::kills::{KILLED_AT_START, PATIENCE};
use crate::service::group_name;
use crate::task_runs::{Absence, TaskAudit};

/// Groups that people write in, and that have tasks.
const GROUPS: usize = 5;
/// Every task comes due once a minute, which is as often as a task may. So these come due one after the other,
/// spread over each minute.
const SPREAD_TASKS: usize = 40;
/// These come due all at once, when a minute begins.
const MINUTE_TASKS: usize = 10;
/// The rules for late runs, in turn.
const LATE_RULES: [&str; 3] = ["once", "skip", "within 2m"];
pub const MINUTE: Duration = Duration::from_secs(60);
/// The service lives for a random time up to this, as in `kills`.
const LIFE: Duration = Duration::from_millis(1_500);
/// How many of a hundred processes are killed within [`AIM`] after the next instant of a task: all of a run
/// happens then, from its claim to the answer that WhatsApp has.
const AIMED: u32 = 50;
const AIM: Duration = Duration::from_millis(100);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// After this many kills the service may answer everything once, and then nobody starts it for a while: some
/// instants pass, and of those of one task only the last is made up for.
const KILLS_WITHOUT_ABSENCE: usize = 100;
const ABSENCE: Duration = Duration::from_secs(90);
/// How long the service works undisturbed before the tasks are paused at the end. What came due before is
/// claimed then.
pub const LAST_WORK: Duration = Duration::from_secs(5);
/// How often the state at the end is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A task as this run knows it.
pub struct PlannedTask {
    pub id: i64,
    pub text: String,
    /// The chat of its group.
    pub chat: String,
    /// Its first instant, as seconds since 1970. One follows every minute.
    pub first: i64,
}

pub async fn run(kills: usize, mut chance: Chance) {
    let began = Instant::now();
    let chats = Chats::new(GROUPS).await;
    let store = Store::open(&Paths::new(&chats.place.home).database_file()).unwrap();
    let tasks = plan_tasks(&chats, &store).await;
    let mut absences = Vec::new();
    for kill in 1..=kills {
        let mut service = chats.place.spawn();
        if !chance.random.random_ratio(KILLED_AT_START, 100) {
            chats.server.wait_until_online(KAI).await;
        }
        let random: f64 = chance.random.random();
        let life = match chance.random.random_ratio(AIMED, 100) {
            true => time_to_next_instant(&tasks) + AIM.mul_f64(random),
            false => LIFE.mul_f64(random),
        };
        let is_absent = kill % KILLS_WITHOUT_ABSENCE == 0;
        let shot = async {
            sleep(life).await;
            if is_absent {
                chats.wait_until_answered(PATIENCE).await;
            }
            service.kill().await.unwrap();
        };
        tokio::join!(chats.ask_for(life, PAUSE), shot);
        chats.server.wait_until_offline(KAI).await;
        if is_absent {
            let from = Clock::System.now();
            sleep(ABSENCE).await;
            absences.push(Absence { from, to: Clock::System.now() });
        }
    }
    let _service = chats.place.spawn();
    chats.server.wait_until_online(KAI).await;
    sleep(LAST_WORK).await;
    let paused_from = Clock::System.now();
    for task in &tasks {
        store.pause_task(task.id, Clock::System.now()).await.unwrap();
    }
    let pauses = paused_from..=Clock::System.now();
    let counts = chats.count(PATIENCE).await;
    wait_until_all_is_said(&store).await;
    let audit = wait_until_right(|| TaskAudit::new(&chats, &tasks, &absences, &pauses)).await;
    let (seed, secs) = (chance.seed, began.elapsed().as_secs());
    let what = format!("tasks: {kills} kills in {secs} s, seed {seed}");
    audit.print(&what);
    chats.report("tasks: the questions meanwhile", &counts);
    audit.check();
    chats.check_log();
}

/// Plans the tasks, in all groups.
async fn plan_tasks(chats: &Chats, store: &Store) -> Vec<PlannedTask> {
    let mut tasks = Vec::new();
    for number in 0..SPREAD_TASKS + MINUTE_TASKS {
        let now = Clock::System.now();
        let minute = MINUTE.as_secs() as i64;
        let (schedule, second) = if number < SPREAD_TASKS {
            let second = number as i64 * minute / SPREAD_TASKS as i64;
            let past = Timestamp::from_second(now.as_second() / minute * minute - minute + second).unwrap();
            (format!("every 1m from {past}"), second)
        } else {
            ("cron * * * * *".to_owned(), 0)
        };
        let draft = TaskDraft {
            text: format!("Water plant {number} without a question."),
            schedule,
            late: LATE_RULES[number % LATE_RULES.len()].to_owned(),
            ..TaskDraft::default()
        };
        let group = number % GROUPS;
        let name = GroupName::parse(&group_name(group)).unwrap();
        let task = store.add_task(&name, draft, TimeZone::UTC, now).await.unwrap();
        let to_wait = (second - now.as_second() - 1).rem_euclid(minute) + 1;
        tasks.push(PlannedTask {
            id: task.id,
            text: task.text,
            chat: chats.groups[group].clone(),
            first: now.as_second() + to_wait,
        });
    }
    tasks
}

/// How long it is until some task comes due.
fn time_to_next_instant(tasks: &[PlannedTask]) -> Duration {
    let now = Clock::System.now().as_millisecond();
    let minute = MINUTE.as_millis() as i64;
    let waits = tasks.iter().map(|task| (task.first * 1_000 - now).rem_euclid(minute));
    Duration::from_millis(waits.min().unwrap_or_default().cast_unsigned())
}

/// Waits until nothing is left to be done, or until nothing has been done for long.
async fn wait_until_all_is_said(store: &Store) {
    let (mut last, mut since) = (u64::MAX, Instant::now());
    loop {
        let counts = store.queue_counts().await.unwrap();
        let left = counts.waiting + counts.claimed + counts.unsent + counts.unanswered;
        if left == 0 || since.elapsed() > PATIENCE {
            return;
        }
        if left < last {
            (last, since) = (left, Instant::now());
        }
        sleep(LOOK).await;
    }
}

/// WhatsApp has everything; the people hear it a moment later.
async fn wait_until_right(audit: impl Fn() -> TaskAudit) -> TaskAudit {
    let began = Instant::now();
    loop {
        sleep(LOOK).await;
        let found = audit();
        if found.is_right() || began.elapsed() > LAST_WORK {
            return found;
        }
    }
}
