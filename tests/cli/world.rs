//! A person's home in a temporary folder, and the binary that they run there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const NANOKIMI: &str = env!("CARGO_BIN_EXE_nanokimi");
/// Longer than any of these runs takes; a run that takes longer hangs.
const LIMIT_SECS: &str = "60";

/// The user that runs the binary, in a user namespace of its own. So it does not matter which user runs the
/// tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// An ordinary user that owns the home, and may do only what the file modes allow.
    Ordinary,
    Root,
}

/// A home. Its install is the folder `nanokimi` in it.
pub struct Home {
    folder: TempDir,
    person: Person,
    variables: BTreeMap<String, String>,
}

/// How a run ended, with the home's path replaced by `HOME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    /// An empty home.
    pub fn empty() -> Self {
        need_user_namespaces();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, person: Person::Ordinary, variables: BTreeMap::new() }
    }

    /// A home with the groups `main` (the owner's) and `family`.
    pub fn new() -> Self {
        let home = Self::empty();
        home.run(&["groups", "add", "main", "--main"]).done();
        home.run(&["groups", "add", "family"]).done();
        home
    }

    pub fn of(mut self, person: Person) -> Self {
        self.person = person;
        self
    }

    /// Sets an environment variable for the runs that follow.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("nanokimi/store/nanokimi.db")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The binary with these arguments and nothing of our environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([LIMIT_SECS, "unshare", "--user"]);
        if self.person == Person::Root {
            command.arg("--map-root-user");
        }
        command.arg("--").arg(NANOKIMI).args(arguments);
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.folder.path());
        command.env("XDG_RUNTIME_DIR", self.path("run")).envs(&self.variables);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        self.said(output)
    }

    /// Runs with this text on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        self.said(child.wait_with_output().unwrap())
    }

    pub fn said(&self, output: std::process::Output) -> Said {
        let home = self.folder.path().to_str().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(home, "HOME");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a command that must be refused, and returns the one sentence that says why. Nothing in the home
    /// has changed.
    pub fn refuses(&self, arguments: &[&str]) -> String {
        let before = self.listing();
        let said = self.run(arguments);
        let after = self.listing();
        assert_eq!(after, before, "{arguments:?} was refused and yet changed something");
        said.refusal()
    }

    /// Like [`Home::refuses`], for verbs that are refused with the same sentence.
    pub fn all_refuse(&self, verbs: &[&[&str]]) -> String {
        let refusals: Vec<String> = verbs.iter().map(|verb| self.refuses(verb)).collect();
        let [first, others @ ..] = &refusals[..] else { panic!("no verbs, no refusal") };
        assert!(others.iter().all(|other| other == first), "{refusals:#?}");
        first.clone()
    }

    /// Everything in the home: kind and mode, and the content of files. The lock is left out: it only says
    /// which process works here.
    pub fn listing(&self) -> BTreeMap<PathBuf, String> {
        let mut listing = BTreeMap::new();
        list(self.folder.path(), &mut listing);
        listing.remove(&self.path("nanokimi/store/nanokimi.lock"));
        // The index of SQLite's journal. A reader, such as a running service, leaves a mark in it.
        listing.remove(&self.path("nanokimi/store/nanokimi.db-shm"));
        listing
    }
}

fn list(path: &Path, listing: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = match fs::read(&path) {
            Ok(bytes) => format!("{:x}", Sha256::digest(bytes)),
            Err(_) => String::new(),
        };
        listing.insert(path.clone(), format!("{:o} {content}", metadata.permissions().mode()));
        if metadata.is_dir() {
            list(&path, listing);
        }
    }
}

impl Said {
    /// The run succeeded.
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The one sentence of a refusal, in plain English.
    pub fn refusal(&self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [line] = lines[..] else { panic!("one line is enough: {self:?}") };
        let sentence = line.strip_prefix("nanokimi: ").unwrap_or_else(|| panic!("who says that? {self:?}"));
        for noise in ["os error", "Error", "Some(", "None", "rusqlite", "hyper", "panicked", "  "] {
            assert!(!sentence.contains(noise), "{noise:?} is nothing for people: {sentence}");
        }
        sentence.to_owned()
    }
}

/// # Panics
/// If an ordinary user may not make user namespaces. These tests use them to be root, or not to be root, and
/// to mount.
pub fn need_user_namespaces() {
    static LOOKED: Once = Once::new();
    LOOKED.call_once(|| {
        let tried = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
        let said = match tried {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        panic!(
            "These tests need user namespaces, and cannot make one ({}). Install util-linux, and allow them: \
             sysctl kernel.unprivileged_userns_clone=1 on Debian, \
             sysctl kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu",
            said.trim()
        );
    });
}
