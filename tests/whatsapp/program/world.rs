//! A person's home, the program that they start there, and its output as they read it.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;
use whatsapp_server::{PATIENCE, Server};

const NANOKIMI: &str = env!("CARGO_BIN_EXE_nanokimi");
pub const ANNA: &str = "15550001111";
pub const KAI: &str = "15550002222";
pub const KAIS_CHAT: &str = "15550002222@s.whatsapp.net";
pub const FAMILY: &str = "120363000000000001@g.us";

/// How a line of a drawn code begins and ends: black on white.
const CODE_LINE: (&str, &str) = ("\u{1b}[38;5;16;48;5;231m", "\u{1b}[0m");

/// A character on a screen, in pixels.
const CELL: (usize, usize) = (8, 16);
/// The first of the characters with two by three blocks: Unicode, "Symbols for Legacy Computing".
const FIRST_SEXTANT: u32 = 0x1FB00;

/// A server that knows Anna, the account that Kai is linked to, and a group of both.
pub async fn server() -> Server {
    let server = Server::start().await.unwrap();
    server.add_account(ANNA, "100000000000001", "Anna");
    server.add_account(KAI, "100000000000002", "Kai's owner");
    server.add_group(FAMILY, "Family", &[ANNA, KAI]);
    server
}

pub struct Home {
    folder: TempDir,
    url: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    /// Without the drawn codes and without the log.
    pub stderr: String,
}

impl Home {
    pub fn new(server: &Server) -> Self {
        Self { folder: TempDir::new().unwrap(), url: server.url() }
    }

    /// A home whose install is linked.
    pub async fn linked(server: &Server) -> Self {
        let home = Self::new(server);
        let mut auth = home.start(&["auth"]);
        server.scan_qr(KAI, &auth.qr_code().await).unwrap();
        auth.ended().await.with_code(0);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with these arguments and nothing of our environment.
    pub fn start(&self, arguments: &[&str]) -> Program {
        let mut command = Command::new(NANOKIMI);
        command.args(arguments).kill_on_drop(true);
        self.settle(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let keyboard = child.stdin.take();
        Program { child, keyboard, lines, said: Vec::new() }
    }

    /// Sets a command up to run here, with nothing of our environment.
    pub fn settle(&self, command: &mut Command) {
        command.env_clear().current_dir(self.folder.path());
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("NANOKIMI_WHATSAPP_URL", &self.url);
    }

    pub async fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments).ended().await
    }
}

/// The content of the code that these lines draw, as a camera reads it. Lines without a drawing are skipped.
pub fn scanned(lines: &[String]) -> String {
    let drawn: Vec<Vec<char>> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(CODE_LINE.0)?.strip_suffix(CODE_LINE.1))
        .map(|line| line.chars().collect())
        .collect();
    let (width, height) = (drawn[0].len() * CELL.0, drawn.len() * CELL.1);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        let is_black = is_black(drawn[y / CELL.1][x / CELL.0], x % CELL.0, y % CELL.1);
        if is_black { 0 } else { 255 }
    });
    let codes = image.detect_grids();
    assert_eq!(codes.len(), 1, "one code is seen");
    codes[0].decode().unwrap().1
}

/// Whether a pixel of a character is black, as Unicode describes the character.
fn is_black(c: char, x: usize, y: usize) -> bool {
    let (left, upper) = (x < CELL.0 / 2, y < CELL.1 / 2);
    match c {
        ' ' => false,
        '█' => true,
        '▀' => upper,
        '▄' => !upper,
        '▌' => left,
        '▐' => !left,
        sextant => {
            let index = usize::try_from(u32::from(sextant) - FIRST_SEXTANT).unwrap();
            // They are in the order of their bits; the empty one, the two halves and the full one are left
            // out.
            let bits = (1..63).filter(|bits| ![21, 42].contains(bits)).nth(index).unwrap();
            let sixth = 2 * (y * 3 / CELL.1) + usize::from(!left);
            bits >> sixth & 1 == 1
        }
    }
}

/// The program while it runs.
pub struct Program {
    pub child: Child,
    keyboard: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Program {
    /// The next line in which `wanted` finds something.
    pub async fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let search = async {
            loop {
                let line = self.lines.next_line().await.unwrap();
                let line = line.unwrap_or_else(|| panic!("ended without {what}: {:?}", self.said));
                self.said.push(line.clone());
                if let Some(found) = wanted(&line) {
                    return found;
                }
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited too long for {what}: {:?}", self.said),
        }
    }

    pub async fn says(&mut self, words: &str) {
        self.wait_for(words, |line| line.contains(words).then_some(())).await;
    }

    /// The content of the next drawn code, as a camera reads it.
    pub async fn qr_code(&mut self) -> String {
        let before = self.said.len();
        self.says("Scan within").await;
        scanned(&self.said[before..])
    }

    pub async fn types(&mut self, line: &str) {
        self.keyboard.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Ends its input, as a script does.
    pub fn types_no_more(&mut self) {
        self.keyboard = None;
    }

    /// Asks it to stop, as systemd does.
    pub fn stop(&self) {
        let process = i32::try_from(self.child.id().unwrap()).unwrap();
        let process = rustix::process::Pid::from_raw(process).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    pub async fn ended(mut self) -> Said {
        let rest = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.said.push(line);
            }
            let mut stdout = String::new();
            self.child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
            (stdout, self.child.wait().await.unwrap())
        };
        let (stdout, status) = timeout(PATIENCE, rest).await.expect("the program ends");
        let is_talk = |line: &&String| {
            !line.starts_with(CODE_LINE.0) && !["INFO", "WARN"].iter().any(|level| line.contains(level))
        };
        let said: Vec<String> = self.said.iter().filter(is_talk).cloned().collect();
        Said { code: status.code(), stdout, stderr: said.join("\n") }
    }
}

impl Said {
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}
