//! A person's home with a gateway that has a Kimi login, and with a coding tool that has a key of the gateway.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nanokimi::clock::Clock;
use nanokimi::practice::{Brain, Conversation, ModelReply, Practice, ReplyStep, start_practice_model};
use support::fixture::variable;
use support::login_server::{LoginTerms, MockLoginServer};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// What the person says to the tool.
pub const PROMPT: &str = "Please write the word of the day into note.txt.";
/// What the model has the tool write into [`NOTE`].
pub const WORD: &str = "heliotrope";
/// What the model thinks before it asks for the tool.
pub const THOUGHT: &str = "A file is what they want.";
/// What the model says once it has the result.
pub const LAST_WORDS: &str = "There it stands, the word of the day.";
/// The file that the tool writes, in the folder where it works.
const NOTE: &str = "note.txt";
/// The model that tools are told to ask for here, so that each request has an alias to resolve.
pub const ASKED_MODEL: &str = "kimicode-kimi-k2.5-thinking";
/// What Kimi calls it.
pub const KIMI_MODEL: &str = "kimi-for-coding";

/// A tool starts and answers within seconds, unless the machine has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// The time between two looks at the gateway's first words.
const LOOK: Duration = Duration::from_millis(20);
/// Where nothing listens: whatever a tool asks of the world outside ends there at once.
const NO_PROXY_THERE: &str = "http://127.0.0.1:9";

/// The home, its gateway, and the practice model behind it. Dropping it ends them.
pub struct World {
    pub practice: Practice,
    home: TempDir,
    address: SocketAddr,
    key: String,
    _login_server: MockLoginServer,
    _gateway: Child,
}

/// The reply of a model that has the person's tool do something, and says its last words when it is done. To anything
/// else that a tool asks on the side, such as a title for the conversation, it says a word.
pub fn reply_with_tool(conversation: &Conversation, tool: &str, arguments: &str) -> ModelReply {
    let is_about_the_note = conversation.message_to_answer().contains(PROMPT)
        && !conversation.said.iter().any(|said| said.contains("Generate a title"));
    ModelReply::Answer(if !is_about_the_note {
        vec![ReplyStep::Say("Words".to_owned())]
    } else if conversation.tool_answers.is_empty() {
        let call = ReplyStep::Call { tool: tool.to_owned(), arguments: arguments.to_owned() };
        vec![ReplyStep::Think(THOUGHT.to_owned()), call]
    } else {
        vec![ReplyStep::Say(LAST_WORDS.to_owned())]
    })
}

impl World {
    pub async fn start(brain: Brain) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let practice = start_practice_model(brain, any_port).await.unwrap();
        let login_server = MockLoginServer::start(&practice, LoginTerms::default());
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        let credentials = home.path().join("nanokimi/data/credentials");
        fs::create_dir_all(&credentials).unwrap();
        let login = login_server.issue_login_file(Clock::System.now(), Duration::ZERO);
        fs::write(credentials.join("kimi-code.json"), login).unwrap();
        fs::set_permissions(credentials.join("kimi-code.json"), fs::Permissions::from_mode(0o600)).unwrap();

        let address = free_address();
        run_nanokimi(home.path(), &practice, &["gateway", "enable", "--listen", &address.to_string()]).await;
        let key = run_nanokimi(home.path(), &practice, &["gateway", "keys", "add", "tool"]).await;
        let gateway = start_gateway(home.path(), &practice).await;
        let key = key.trim().to_owned();
        assert!(key.starts_with("nk-"), "no key was made");
        Self { practice, home, address, key, _login_server: login_server, _gateway: gateway }
    }

    /// What `nanokimi` prints with these arguments.
    pub async fn run_nanokimi(&self, arguments: &[&str]) -> String {
        run_nanokimi(self.home.path(), &self.practice, arguments).await
    }

    /// What the owner pastes into the settings of a tool, with another model.
    pub async fn client_config(&self, client: &str) -> String {
        self.run_nanokimi(&["gateway", "config", client]).await.replace(KIMI_MODEL, ASKED_MODEL)
    }

    /// The gateway's URL without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn home_file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn write_home_file(&self, name: &str, text: &str) {
        let path = self.home_file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A tool in the person's work folder, with the key and nothing else of our environment. It reaches this machine only.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .current_dir(self.home.path().join("work"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.env("HOME", self.home.path()).env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("TERM", "dumb").env("KIMI_GATEWAY_KEY", &self.key);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, NO_PROXY_THERE);
        }
        command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost");
        command
    }

    /// A shell that runs what the person types after the pasted settings.
    pub fn shell(&self, settings: &str, typed: &str) -> Command {
        let mut command = self.command("/bin/sh");
        command.arg("-ec").arg(format!("{settings}\n{typed}"));
        command
    }

    /// Runs the tool to its end. It has written the word and said the model's last words, and has learnt and told no
    /// secret. Returns all that it printed.
    pub async fn hold_conversation(&self, mut tool: Command) -> String {
        let output = timeout(PATIENCE, tool.output()).await.expect("the tool ends").unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        let seen = || {
            let requests = self.practice.received_requests();
            let lines = requests.iter().map(|request| format!("{}\n", request.line));
            format!("{}\n{said}\n{}", output.status, lines.collect::<String>())
        };
        assert!(output.status.success(), "{}", seen());
        assert!(stdout.contains(LAST_WORDS), "{}", seen());
        let note = fs::read_to_string(self.home_file("work").join(NOTE));
        assert_eq!(note.ok().as_deref().map(str::trim), Some(WORD), "{}", seen());

        assert!(!said.contains(&self.key), "the tool shows its key");
        let login = self.login_token_marks();
        assert!(!login.iter().any(|mark| said.contains(mark)), "the tool shows the login");
        for file in files_beneath(self.home.path()) {
            let is_ours = file.starts_with(self.home.path().join("nanokimi"));
            let bytes = fs::read(&file).unwrap_or_default();
            let has_login = login.iter().any(|mark| contains_bytes(&bytes, mark.as_bytes()));
            assert!(is_ours || !has_login, "{} has the login", file.display());
        }
        let log = fs::read_to_string(self.home_file("gateway.log")).unwrap();
        assert!(!log.contains(&self.key) && !login.iter().any(|mark| log.contains(mark)), "{log}");
        said
    }

    /// How each access and each refresh token of the practice model's login server begins.
    pub fn login_token_marks(&self) -> [String; 2] {
        ["access", "refresh"].map(|kind| format!("{kind}-{}-", self.practice.port()))
    }
}

/// Where a tool is installed, or what belongs to it.
pub fn installed(name: &str) -> PathBuf {
    let folder = variable("TEST_CLIENTS").expect("TEST_CLIENTS is set; `tests/run clients` does it");
    let path = Path::new(&folder).join(name);
    assert!(path.exists(), "{name} is not installed; `tests/run clients` does it");
    path
}

/// A file of this folder, for a tool to read.
pub fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The version that `packages/` pins: what stands behind `"name": "` or `name==`.
pub fn pinned_version(list: &str, name: &str) -> String {
    let text = fs::read_to_string(test_file("packages").join(list)).unwrap();
    let openings = [format!("\"{name}\": \""), format!("{name}==")];
    let found = openings.iter().find_map(|opening| Some(text.split_once(opening)?.1));
    let rest = found.unwrap_or_else(|| panic!("{list} pins {name}"));
    rest.split(['"', '\n']).next().unwrap().to_owned()
}

/// The port is free when it is given out, and nothing else takes one that was free just now.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn nanokimi(home: &Path, practice: &Practice, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanokimi"));
    command.args(arguments).env_clear().current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
    command.env("PATH", "/usr/bin:/bin").env("HOME", home).env("TZ", "UTC");
    command.env("KIMI_CODE_BASE_URL", practice.base_url());
    command.env("KIMI_CODE_OAUTH_HOST", practice.oauth_host());
    command
}

async fn run_nanokimi(home: &Path, practice: &Practice, arguments: &[&str]) -> String {
    let mut command = nanokimi(home, practice, arguments);
    let output = timeout(PATIENCE, command.output()).await.expect("nanokimi ends").unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn start_gateway(home: &Path, practice: &Practice) -> Child {
    let log = home.join("gateway.log");
    let mut command = nanokimi(home, practice, &["gateway", "run"]);
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut gateway = command.spawn().unwrap();
    let listening = async {
        while !fs::read_to_string(&log).unwrap().contains("The gateway listens on") {
            let ended = gateway.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended: {}", fs::read_to_string(&log).unwrap());
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, listening).await.expect("the gateway listens");
    gateway
}

fn files_beneath(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A tool may still be clearing up behind itself.
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.is_symlink());
    paths.flat_map(|path| if path.is_dir() { files_beneath(&path) } else { vec![path] }).collect()
}

fn contains_bytes(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
