//! The people that write to Kai and count the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nanokimi::paths::Paths;
use support::scripted_engine::AS_A_FILE;
use support::whatsapp_client::{Device, Files, address};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use whatsapp_rust::download::MediaType;
use whatsapp_rust::media::{ImageOptions, image_message};
use whatsapp_rust::prelude::{InboundMessage, MessageExt, wa};
use whatsapp_rust::send::RevokeType;
use whatsapp_rust::upload::{UploadOptions, UploadResponse};
use whatsapp_server::Server;

use crate::rows;
use crate::service::{self, Place};

pub const KAI: &str = "15550002222";
const KAIS_LID: &str = "100000000000002";
pub const ANNA: &str = "15550001111";
/// The people that write: phone number, LID and name.
const PEOPLE: [(&str, &str, &str); 2] =
    [(ANNA, "100000000000001", "Annabel"), ("15550003333", "100000000000003", "Benedict")];
/// The subject of every group, and the beginning of each group's id at WhatsApp.
const SUBJECT: &str = "Family of the canary";
const GROUP_ID: &str = "1203630000000";
/// A word of every question.
const WORD: &str = "question";
/// A text that only answers contain. Kai's name cannot serve for this: the caption of a file that follows a
/// text does not begin with it.
pub const ECHO: &str = "echo: ";
/// What stands before every text of Kai's.
pub const PREFIX: &str = "Kai: ";
/// How often a run checks whether everything is answered.
const LOOK: Duration = Duration::from_millis(100);
/// At most this many traces are printed if messages were lost.
const TRACES_SHOWN: usize = 20;
const WARNINGS_SHOWN: usize = 20;

/// A server with Kai's account, the people that share groups with it, and Kai's home.
pub struct Chats {
    pub server: Server,
    pub place: Place,
    pub groups: Vec<String>,
    /// Whether several questions are asked at once. If so, their answers have no order to keep.
    pub asks_at_once: bool,
    /// The moment from which traces count their seconds.
    began: Instant,
    people: Vec<Arc<Device>>,
    pictures: Vec<UploadResponse>,
    asked: Mutex<BTreeMap<usize, Asked>>,
    next: Mutex<usize>,
    heard: Arc<Mutex<Heard>>,
    listening: Vec<JoinHandle<()>>,
    _files: Vec<Files>,
    _folders: Vec<TempDir>,
}

/// The form of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    /// It is the caption of a picture.
    Picture,
    /// Kai answers with a file.
    AsAFile,
    /// It is the edit of a message that does not call Kai.
    Edit,
    /// It is deleted at once, so it may or may not be answered.
    Deleted,
}

/// Whether a question must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Due,
    /// It may be answered: it was deleted, or its group is not always served.
    Luck,
}

/// A question that was sent.
struct Asked {
    /// The ids of the message that asks, and of the message that changed it.
    ids: Vec<String>,
    group: String,
    at: Instant,
    answer: Answer,
}

/// The messages that the people got from Kai.
#[derive(Default)]
struct Heard {
    /// The answers, by the number of the question.
    answers: BTreeMap<usize, Answered>,
    /// How many messages of Kai reached a person that had them already.
    repeated: usize,
    seen: BTreeSet<(usize, String)>,
    /// The person that asked each question.
    asked_by: BTreeMap<usize, usize>,
    /// The last question of an author in a group whose answer a reader saw: by reader, group and author.
    last: BTreeMap<(usize, String, usize), usize>,
    reordered: usize,
    /// Everything that Kai has said, by id: the chat and the text.
    said: BTreeMap<String, (String, String)>,
}

struct Answered {
    /// The ids of the messages that answer the question.
    ids: BTreeSet<String>,
    people: BTreeSet<usize>,
    first_at: Instant,
}

/// The counts of a run.
pub struct Counts {
    /// Questions that had to be answered.
    pub asked: usize,
    pub answered: usize,
    lost: Vec<usize>,
    /// Questions whose answer came under more than one id.
    renamed: usize,
    /// Answers that reached a person after the answer to a later question of the same author in the same
    /// group.
    reordered: usize,
    /// Messages that reached a person once more, under the same id.
    repeated: usize,
}

impl Chats {
    pub async fn new(groups: usize) -> Self {
        let home = TempDir::new().unwrap();
        let mut chats = Self::at(home.path().to_owned(), groups).await;
        chats._folders.push(home);
        chats
    }

    /// The same, with Kai's home in a folder that exists.
    pub async fn at(home: PathBuf, groups: usize) -> Self {
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
        service::make_home(&home, &groups).await;
        link(&server, &home).await;
        server.keep_no_record();
        server.trace_messages_to(KAI);
        let began = Instant::now();
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
        let log = TempDir::new().unwrap();
        let place = Place::new(home, log.path().join("log"), server.url());
        Self {
            server,
            place,
            groups,
            asks_at_once: false,
            began,
            people,
            pictures: Vec::new(),
            asked: Mutex::default(),
            next: Mutex::default(),
            heard,
            listening,
            _files: files,
            _folders: vec![log],
        }
    }

    /// One of the people asks the next question, in the next group.
    pub async fn ask(&self) {
        self.ask_in(Form::Text, &self.groups, Answer::Due).await;
    }

    /// The people ask questions for this long, with a pause between two questions.
    pub async fn ask_for(&self, time: Duration, pause: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.ask().await;
            sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// One of the people asks the next question, in one of these groups.
    pub async fn ask_in(&self, form: Form, groups: &[String], answer: Answer) {
        let number = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next - 1
        };
        let group = groups[number % groups.len()].clone();
        let person = (number / groups.len()) % self.people.len();
        self.heard.lock().unwrap().asked_by.insert(number, person);
        let at = Instant::now();
        let ids = self.write(form, number, person, &group).await;
        self.asked().insert(number, Asked { ids, group, at, answer });
    }

    /// Sends the messages of a question. Returns their ids.
    async fn write(&self, form: Form, number: usize, person: usize, group: &str) -> Vec<String> {
        let (device, chat) = (&self.people[person], address(group));
        let question = format!("@Kai {WORD} {number}.");
        match form {
            Form::Text => vec![device.write(group, &question).await],
            Form::AsAFile => vec![device.write(group, &format!("{question} Please {AS_A_FILE}.")).await],
            Form::Picture => {
                let options = ImageOptions { caption: Some(question), ..Default::default() };
                let picture = image_message(self.pictures[person].clone(), options);
                vec![device.client.send_message(chat, picture).await.unwrap().message_id]
            }
            Form::Edit => {
                let first = device.write(group, "Tomorow").await;
                let text = wa::Message { conversation: Some(question), ..Default::default() };
                vec![device.client.edit_message(&chat, &first, text).await.unwrap(), first]
            }
            Form::Deleted => {
                let id = device.write(group, &question).await;
                device.client.revoke_message(&chat, &id, RevokeType::Sender).await.unwrap();
                vec![id]
            }
        }
    }

    /// Uploads a picture for each of the people.
    pub async fn take_pictures(&mut self) {
        for device in &self.people {
            let uploaded = device.client.upload(vec![7; 10_000], MediaType::Image, UploadOptions::new());
            self.pictures.push(uploaded.await.unwrap());
        }
    }

    /// Waits until all due questions are answered, or until no new answer has come for this long.
    pub async fn count(&self, patience: Duration) -> Counts {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let counts = self.counts();
            if counts.lost.is_empty() || since.elapsed() > patience {
                return counts;
            }
            if counts.answered > last {
                (last, since) = (counts.answered, Instant::now());
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until all due questions that were asked so far are answered, for this long at most. Returns how
    /// long it took.
    pub async fn wait_until_answered(&self, limit: Duration) -> Duration {
        let began = Instant::now();
        while !self.counts().lost.is_empty() && began.elapsed() < limit {
            sleep(LOOK.min(limit / 10)).await;
        }
        began.elapsed()
    }

    /// For each answered question its number, when it was asked, and when it was first answered.
    pub fn answered_at(&self) -> Vec<(usize, Instant, Instant)> {
        let (asked, heard) = (self.asked(), self.heard.lock().unwrap());
        let times = asked.iter().filter_map(|(number, asked)| {
            let answered = heard.answers.get(number)?;
            Some((*number, asked.at, answered.first_at))
        });
        times.collect()
    }

    /// Everything that Kai has said so far: id, chat and text.
    pub fn said(&self) -> Vec<(String, String, String)> {
        let heard = self.heard.lock().unwrap();
        heard.said.iter().map(|(id, (chat, text))| (id.clone(), chat.clone(), text.clone())).collect()
    }

    /// Prints the counts, and fails if a message was lost or has two ids. A wrong order is only counted: a
    /// message that a reader could not decrypt at once comes after later messages.
    pub fn report(&self, what: &str, counts: &Counts) {
        let Counts { asked, answered, lost, renamed, reordered, repeated } = counts;
        println!(
            "{what} · messages sent: {asked} · answered: {answered} · lost: {} · answered under two ids: {renamed} · \
             out of order: {reordered} · came again under the same id: {repeated}",
            lost.len()
        );
        for number in lost.iter().take(TRACES_SHOWN) {
            println!("{}", self.trace(*number));
        }
        if !lost.is_empty() {
            self.show_warnings();
        }
        assert_eq!(lost.len(), 0, "messages were lost");
        assert_eq!(*renamed, 0, "an answer came under two ids");
    }

    /// Prints the newest warnings of the service, if it has written a log.
    fn show_warnings(&self) {
        let log = std::fs::read_to_string(&self.place.log).unwrap_or_default();
        let warnings = log.lines().filter(|line| ["WARN", "ERROR"].iter().any(|level| line.contains(level)));
        warnings.rev().take(WARNINGS_SHOWN).for_each(|warning| println!("  {warning}"));
    }

    /// Checks that the log of the service contains no person's number, name or words.
    pub fn check_log(&self) {
        let log = std::fs::read_to_string(&self.place.log).unwrap();
        assert!(log.contains(" INFO "), "nothing was logged");
        let people = PEOPLE.iter().flat_map(|(phone, lid, name)| [*phone, *lid, *name]);
        for canary in people.chain([KAI, KAIS_LID, SUBJECT, GROUP_ID, WORD]) {
            let told = log.lines().find(|line| line.contains(canary));
            assert_eq!(told, None, "the log tells {canary:?}");
        }
    }

    fn counts(&self) -> Counts {
        let (asked, heard) = (self.asked(), self.heard.lock().unwrap());
        let due = || asked.iter().filter(|(_, asked)| asked.answer == Answer::Due).map(|(number, _)| *number);
        let lost: Vec<usize> = due().filter(|number| !heard.answers.contains_key(number)).collect();
        Counts {
            asked: due().count(),
            answered: due().count() - lost.len(),
            lost,
            renamed: heard.answers.values().filter(|answered| answered.ids.len() > 1).count(),
            reordered: if self.asks_at_once { 0 } else { heard.reordered },
            repeated: heard.repeated,
        }
    }

    /// What happened to a question on its way.
    pub fn trace(&self, number: usize) -> String {
        let (asked, heard) = (self.asked(), self.heard.lock().unwrap());
        let Asked { ids, group, at, .. } = &asked[&number];
        let secs = |at: Instant| format!("{:.3} s", (at - self.began).as_secs_f64());
        let answered = heard.answers.get(&number).map(|answered| secs(answered.first_at));
        let (chat, at) = (group.trim_start_matches(GROUP_ID), secs(*at));
        let answered = answered.unwrap_or_else(|| "never".to_owned());
        let mut lines = vec![format!("  question {number} in {chat}, asked at {at}, answered: {answered}")];
        for id in ids {
            lines.push(format!("    {id}: {}", self.server.trace_of(id).join(" · ")));
            lines.extend(rows::of_message(&self.place.home, id).iter().map(|row| format!("      {row}")));
        }
        lines.join("\n")
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<usize, Asked>> {
        self.asked.lock().unwrap()
    }
}

impl Drop for Chats {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

impl Heard {
    fn note(&mut self, person: usize, message: &InboundMessage) {
        let said = message.message.text_content().or(message.message.get_caption());
        let Some(text) = said else { return };
        let id = message.info.id.to_string();
        if text.starts_with(PREFIX) {
            let chat = message.info.source.chat.to_string();
            self.said.insert(id.clone(), (chat, text.to_owned()));
        }
        if !text.contains(ECHO) {
            return;
        }
        if !self.seen.insert((person, id.clone())) {
            self.repeated += 1;
        }
        let group = message.info.source.chat.to_string();
        for number in questions_in(text) {
            let author = self.asked_by.get(&number).copied().unwrap_or_default();
            let last = self.last.entry((person, group.clone(), author)).or_default();
            let first_at = Instant::now();
            let new = Answered { ids: BTreeSet::new(), people: BTreeSet::new(), first_at };
            let answered = self.answers.entry(number).or_insert(new);
            answered.ids.insert(id.clone());
            if answered.people.insert(person) && number < *last {
                self.reordered += 1;
            }
            *last = number.max(*last);
        }
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
    files.moved_to(&Paths::new(home).whatsapp_keys_folder());
}
