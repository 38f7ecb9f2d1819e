//! The people who write to Kai and count what comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nanokimi::paths::Paths;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use whatsapp_rust::prelude::{InboundMessage, MessageExt};

use crate::client::{Device, Files};
use crate::server::Server;
use crate::service;

pub const KAI: &str = "15550002222";
const KAIS_LID: &str = "100000000000002";
pub const ANNA: &str = "15550001111";
/// Those who write.
const PEOPLE: [(&str, &str, &str); 2] =
    [(ANNA, "100000000000001", "Annabel"), ("15550003333", "100000000000003", "Benedict")];
/// What the groups are called, and how each of them is known to WhatsApp.
const SUBJECT: &str = "Family of the canary";
const GROUP_ID: &str = "1203630000000";
/// A word of every message.
const WORD: &str = "question";
/// How often it is looked whether all is answered.
const LOOK: Duration = Duration::from_millis(100);

/// A server with Kai's account, people who share groups with it, and Kai's home.
pub struct Chats {
    pub server: Server,
    pub home: TempDir,
    pub groups: Vec<String>,
    people: Vec<Arc<Device>>,
    heard: Arc<Mutex<Heard>>,
    listening: Vec<JoinHandle<()>>,
    _files: Vec<Files>,
}

/// What the people got from Kai.
#[derive(Default)]
struct Heard {
    /// By the number of the question: the ids of the messages that answer it, for each person who got them.
    answers: BTreeMap<usize, BTreeSet<String>>,
    /// Messages of Kai that came to somebody who had them already.
    repeated: usize,
    seen: BTreeSet<(usize, String)>,
}

/// What was counted.
pub struct Counts {
    pub asked: usize,
    pub answered: usize,
    /// Questions whose answer came under more than one id.
    pub renamed: usize,
    /// Messages that came to somebody once more, under the same id.
    pub repeated: usize,
}

impl Chats {
    pub async fn new(groups: usize) -> Self {
        let server = Server::start().await.unwrap();
        server.add_account(KAI, KAIS_LID, "Owner");
        let mut members = vec![KAI];
        for (phone, lid, name) in PEOPLE {
            server.add_account(phone, lid, name);
            members.push(phone);
        }
        let groups: Vec<String> = (0..groups).map(|number| format!("{GROUP_ID}{number:05}@g.us")).collect();
        for group in &groups {
            server.add_group(group, SUBJECT, &members);
        }
        let home = TempDir::new().unwrap();
        service::make_home(home.path(), &groups).await;
        link(&server, home.path()).await;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (mut people, mut listening, mut files) = (vec![], vec![], vec![]);
        for (person, (phone, ..)) in PEOPLE.into_iter().enumerate() {
            let own = Files::new();
            let mut device = Device::linked(&server, &own, phone).await;
            let mut inbox = device.take_inbox();
            let heard = heard.clone();
            listening.push(tokio::spawn(async move {
                while let Some(message) = inbox.recv().await {
                    heard.lock().unwrap().note(person, &message);
                }
            }));
            people.push(Arc::new(device));
            files.push(own);
        }
        Self { server, home, groups, people, heard, listening, _files: files }
    }

    /// Question number so-and-so is asked by one of the people in one of the groups.
    pub async fn ask(&self, number: usize) {
        let group = &self.groups[number % self.groups.len()];
        let person = &self.people[(number / self.groups.len()) % self.people.len()];
        person.write(group, &format!("@Kai {WORD} {number}.")).await;
    }

    /// Waits until all questions below `asked` are answered, for as long as answers keep coming.
    pub async fn count(&self, asked: usize, patience: Duration) -> Counts {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let counts = self.heard.lock().unwrap().counts(asked);
            if counts.answered == asked || since.elapsed() > patience {
                return counts;
            }
            if counts.answered > last {
                (last, since) = (counts.answered, Instant::now());
            }
            sleep(LOOK).await;
        }
    }
}

impl Chats {
    /// What the service has logged tells nobody's number, name or words.
    pub fn check_log(&self) {
        let log = std::fs::read_to_string(service::log_file(self.home.path())).unwrap();
        assert!(log.contains(" INFO "), "nothing was logged");
        let people = PEOPLE.iter().flat_map(|(phone, lid, name)| [*phone, *lid, *name]);
        for canary in people.chain([KAI, KAIS_LID, SUBJECT, GROUP_ID, WORD]) {
            let told = log.lines().find(|line| line.contains(canary));
            assert_eq!(told, None, "the log tells {canary:?}");
        }
    }
}

impl Drop for Chats {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

impl Heard {
    fn note(&mut self, person: usize, message: &InboundMessage) {
        let Some(text) = message.message.text_content() else { return };
        let id = message.info.id.to_string();
        if !text.starts_with("Kai: ") {
            return;
        }
        if !self.seen.insert((person, id.clone())) {
            self.repeated += 1;
        }
        for number in questions_in(text) {
            self.answers.entry(number).or_default().insert(id.clone());
        }
    }

    fn counts(&self, asked: usize) -> Counts {
        let answered = (0..asked).filter(|number| self.answers.contains_key(number)).count();
        let renamed = self.answers.values().filter(|ids| ids.len() > 1).count();
        Counts { asked, answered, renamed, repeated: self.repeated }
    }
}

impl Counts {
    /// Prints what was counted; nothing may be lost, nothing have two ids.
    pub fn report(&self, what: &str) {
        let Self { asked, answered, renamed, repeated } = self;
        println!(
            "{what} · messages sent: {asked} · answered: {answered} · answered under two ids: {renamed} · came again \
             under the same id: {repeated}"
        );
        assert_eq!(answered, asked, "messages were lost");
        assert_eq!(*renamed, 0, "an answer came under two ids");
    }
}

/// The numbers in `… question 12. …`.
fn questions_in(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.split(WORD).skip(1).filter_map(|rest| rest.trim_start().split('.').next()?.parse().ok())
}

/// Links Kai's account to a home, as `nanokimi auth` does.
async fn link(server: &Server, home: &Path) {
    let files = Files::new();
    let device = Device::linked(server, &files, KAI).await;
    server.wait_until_settled(KAI).await;
    device.stop().await;
    server.wait_until_offline(KAI).await;
    files.moved_to(&Paths::new(home).whatsapp());
}
