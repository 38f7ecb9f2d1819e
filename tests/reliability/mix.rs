//! The service is killed while people send pictures, ask for files, edit and delete. Meanwhile the connection
//! is lost, and the owner removes a group and adds it again with the command line.

use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::chats::{Answer, Chats, Form, KAI};
use crate::kills::{KILLED_AT_START, KILLS_WITHOUT_REST, PATIENCE};
use crate::service::group_name;

const NANOKIMI: &str = env!("CARGO_BIN_EXE_nanokimi");

/// Groups that are always served; one more is removed and added.
const GROUPS: usize = 4;
/// One of these is chosen at random each time. A form that is listed more often is chosen more often.
const FORMS: [Form; 10] = [
    Form::Text,
    Form::Text,
    Form::Text,
    Form::Text,
    Form::Text,
    Form::Picture,
    Form::Picture,
    Form::AsAFile,
    Form::Edit,
    Form::Deleted,
];
/// The service lives for a random time up to this.
const LIFE: Duration = Duration::from_secs(3);
/// The pause between two things that people do.
const PAUSE: Duration = Duration::from_millis(250);
/// How likely it is each time that the owner changes the groups, and that the connection is lost.
const GROUP_CHANGE: f64 = 0.08;
const LOST_CONNECTION: f64 = 0.04;

pub async fn run(kills: usize, mut chance: Chance) {
    let began = Instant::now();
    let mut chats = Chats::new(GROUPS + 1).await;
    chats.take_pictures().await;
    let (served, at_times) = chats.groups.split_at(GROUPS);
    let (mut is_served, mut changes, mut lost_connections) = (true, 0, 0);
    for kill in 1..=kills {
        let mut service = chats.place.spawn();
        if !chance.random.random_ratio(KILLED_AT_START, 100) {
            chats.server.wait_until_online(KAI).await;
        }
        let end = Instant::now() + LIFE.mul_f64(chance.random.random());
        while Instant::now() < end {
            let form = *FORMS.choose(&mut chance.random).unwrap();
            match form {
                Form::Deleted => chats.ask_in(form, served, Answer::Luck).await,
                Form::Text | Form::Picture | Form::AsAFile | Form::Edit => {
                    chats.ask_in(form, served, Answer::Due).await;
                }
            }
            if chance.random.random_bool(GROUP_CHANGE) {
                is_served = !is_served;
                changes += 1;
                change_group(&chats, GROUPS, is_served).await;
                chats.ask_in(Form::Text, at_times, Answer::Luck).await;
            }
            if chance.random.random_bool(LOST_CONNECTION) {
                lost_connections += 1;
                chats.server.drop_connection(KAI);
            }
            sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
        }
        if kill % KILLS_WITHOUT_REST == 0 {
            chats.wait_until_answered(PATIENCE).await;
        }
        service.kill().await.unwrap();
    }
    let _service = chats.place.spawn();
    let counts = chats.count(PATIENCE).await;
    let (seed, secs) = (chance.seed, began.elapsed().as_secs());
    let what = format!(
        "mix: {kills} kills in {secs} s, seed {seed}, group removed or added {changes} times, {lost_connections} \
         connections lost"
    );
    chats.report(&what, &counts);
    chats.check_log();
}

/// Adds or removes a group as the owner does, beside the running service.
async fn change_group(chats: &Chats, number: usize, is_served: bool) {
    let name = group_name(number);
    let mut command = Command::new(NANOKIMI);
    command.arg("--home").arg(&chats.place.home).arg("groups");
    match is_served {
        true => command.args(["add", &name, "--chat", &chats.groups[number]]),
        false => command.args(["remove", &name]),
    };
    let ended = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
