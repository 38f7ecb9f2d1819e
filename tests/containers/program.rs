//! The program as people run it: an install of its own, the practice model as its API, lines in and lines
//! out.

use std::path::Path;
use std::process::Stdio;

use nanokimi::clock::Clock;
use nanokimi::container::docker::Docker;
use nanokimi::paths::Paths;
use nanokimi::practice::Practice;
use nanokimi::store::Store;
use nanokimi::types::{ChatId, Event, Forwarded, IncomingMessage, InstallId, Mention, MessageId, SenderId};
use rustix::process::{Pid, Signal, kill_process};
use support::fixture::{PATIENCE, asked, nothing_is_left, ready, variable};
use support::scripted_model::start_scripted_model;
use support::whatsapp_client::{Device, Files};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use whatsapp_server::Server;

/// The owner's key in `.env`.
pub const KEY: &str = "sk-canary-7f3a91";

pub struct Program {
    pub practice: Practice,
    docker: Docker,
    folder: TempDir,
}

impl Program {
    /// An install with the main channel, which is the chat at the terminal.
    pub async fn new() -> Self {
        let program = Self::without_groups().await;
        program.does(&["groups", "add", "main", "--main"]).await;
        program
    }

    /// An install that is linked to this phone's account, as `nanokimi auth` does it. The program itself
    /// cannot do it: only tests are built to accept our server's certificate, which it shows once, at the
    /// linking.
    pub async fn linked(server: &Server, phone: &str) -> Self {
        let program = Self::without_groups().await;
        let files = Files::new();
        let device = Device::linked(server, &files, phone).await;
        server.wait_until_settled(phone).await;
        device.stop().await;
        server.wait_until_offline(phone).await;
        files.moved_to(&program.paths().whatsapp_keys_folder());
        program
    }

    async fn without_groups() -> Self {
        let docker = ready().await;
        let practice = start_scripted_model().await;
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("MOONSHOT_API_KEY={KEY}\nMOONSHOT_BASE_URL={}\n", practice.base_url());
        let program = Self { practice, docker, folder };
        std::fs::write(program.paths().env_file(), settings).unwrap();
        program
    }

    pub fn paths(&self) -> Paths {
        Paths::new(self.folder.path())
    }

    fn store(&self) -> Store {
        Store::open(&self.paths().database_file()).unwrap()
    }

    pub async fn install(&self) -> InstallId {
        self.store().install_id().await.unwrap()
    }

    pub fn asked(&self, sql: &str) -> Vec<String> {
        asked(&self.paths().database_file(), sql)
    }

    /// A message waits in the main channel before the program is started.
    pub async fn receives(&self, text: &str) {
        let now = Clock::System.now();
        let message = IncomingMessage {
            chat: ChatId::new("console:main"),
            id: MessageId::new("m1"),
            sender: SenderId::new("console:you"),
            sender_name: "You".to_owned(),
            text: text.to_owned(),
            sent_at: now,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        };
        self.store()
            .record_events(vec![Event::Message(message)], support::test_service::rules(), now)
            .await
            .unwrap();
    }

    /// Runs a verb that ends by itself without an error. Returns its output.
    pub async fn does(&self, arguments: &[&str]) -> String {
        let output = timeout(PATIENCE, self.command(arguments).output()).await.unwrap().unwrap();
        let (printed, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "nanokimi {arguments:?}: {printed}{said}");
        printed.into_owned()
    }

    /// Runs a verb that may refuse. Returns whether it succeeded, and its output.
    pub async fn tries(&self, arguments: &[&str]) -> (bool, String) {
        self.tries_with(arguments, &[]).await
    }

    /// The same with environment variables.
    pub async fn tries_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The output of a verb for a person in this folder that names no install.
    pub async fn looks_from(&self, folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(variable("TEST_NANOKIMI").expect("TEST_NANOKIMI names the program"));
        let nobodys_home = tempfile::tempdir().unwrap();
        command.args(arguments).current_dir(folder).env("HOME", nobodys_home.path());
        let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Starts a verb that runs until it is ended.
    pub fn starts(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(read_lines(child.stdout.take().unwrap(), sender.clone()));
        tokio::spawn(read_lines(child.stderr.take().unwrap(), sender));
        Process { stdin: child.stdin.take(), child, lines, printed: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = variable("TEST_NANOKIMI").expect("TEST_NANOKIMI names the program");
        let mut command = Command::new(program);
        command.arg("--home").arg(self.folder.path()).args(arguments);
        command.env("DOCKER_HOST", format!("unix://{}", self.docker.socket_path().display()));
        command.kill_on_drop(true);
        command
    }

    /// The test is over: no container of the install is left on Docker.
    pub async fn ends(self) {
        nothing_is_left(&self.install().await).await;
    }
}

/// A running program.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    /// All lines that were read from both outputs.
    printed: Vec<String>,
}

impl Process {
    pub async fn types(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Waits for a line with this text.
    pub async fn prints(&mut self, text: &str) {
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await.ok().flatten();
            let line = line.unwrap_or_else(|| panic!("nobody printed {text:?}: {:#?}", self.printed));
            let found = line.contains(text);
            self.printed.push(line);
            if found {
                return;
            }
        }
    }

    /// Everything that it has printed so far.
    pub fn printed_so_far(&mut self) -> &[String] {
        while let Ok(line) = self.lines.try_recv() {
            self.printed.push(line);
        }
        &self.printed
    }

    /// The most memory that it has used so far, in MB.
    pub fn most_memory_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// As `kill -9` does.
    pub async fn dies(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The input ends; the program ends by itself without an error. Returns its output.
    pub async fn ends(mut self) -> Vec<String> {
        self.stdin = None;
        self.ended().await
    }

    /// As `systemctl stop` does. Returns its output.
    pub async fn stops(self) -> Vec<String> {
        let process = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(process, Signal::TERM).unwrap();
        self.ended().await
    }

    async fn ended(mut self) -> Vec<String> {
        while let Some(line) = timeout(PATIENCE, self.lines.recv()).await.expect("the program ends") {
            self.printed.push(line);
        }
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{status}: {:#?}", self.printed);
        self.printed
    }
}

async fn read_lines(from: impl AsyncRead + Unpin, to: mpsc::UnboundedSender<String>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        to.send(line).ok();
    }
}
