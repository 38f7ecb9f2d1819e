//! The settings: read as written, refused where unknown, resolved once. Nobody else reads `.env` or the
//! environment.
//!
//! Pure: takes the text of `.env` and the environment's pairs. The environment wins over the file.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::types::{EngineName, Lang, Secret};
use crate::{notices, render};

/// Every setting, with what `.env.example` says of it. A test keeps that file and this list equal.
pub const SETTINGS: [&str; 19] = [
    "ASSISTANT_NAME",
    "ASSISTANT_LANG",
    "ASSISTANT_HAS_OWN_NUMBER",
    "TZ",
    "LOG_LEVEL",
    "MOONSHOT_API_KEY",
    "MOONSHOT_BASE_URL",
    "KIMI_CODE_BASE_URL",
    "KIMI_CODE_OAUTH_HOST",
    "KIMI_MODEL",
    "ENGINE",
    "MAX_AGENTS",
    "IDLE_MINUTES",
    "TURN_MINUTES",
    "ANSWER_WITHIN_HOURS",
    "MEDIA_MB",
    "AGENT_MEMORY_MB",
    "AGENT_CPUS",
    "DOCKER_HOST",
];
/// Which install: `.env` lies in it, so that it cannot say so itself.
const HOME: &str = "NANOKIMI_HOME";
/// A WhatsApp server for tests: never suggested to anybody.
const TEST_SERVER: &str = "NANOKIMI_WHATSAPP_URL";
/// What nanokimi reads from the environment beside the settings.
const ENVIRONMENT_ONLY: [&str; 2] = [HOME, TEST_SERVER];
const DEFAULT_ENGINE: &str = "kimi-cli";
/// How alike a name must be to be suggested: 0 is nothing in common, 1 the same.
const SUGGEST_FROM: f64 = 0.75;

/// The settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    pub assistant_name: String,
    /// The language of chat notices.
    pub lang: Lang,
    /// Kai has a number of its own: replies need no prefix.
    pub own_number: OwnNumber,
    pub zone: TimeZone,
    pub log_level: String,
    /// A key of the Moonshot platform; without one, the Kimi login is used.
    pub api_key: Option<Secret>,
    /// The model API, without a slash at the end.
    pub api_base: String,
    /// Where a Kimi login is made and renewed, without a slash at the end.
    pub oauth_host: String,
    /// The model's name, where it is not the one in `config.toml`.
    pub model: Option<String>,
    /// The agent program of groups without one of their own. Which there are is not known here.
    pub engine: EngineName,
    pub max_agents: usize,
    pub idle_timeout: Duration,
    pub turn_timeout: Duration,
    /// What called Kai longer ago than this, while nanokimi was away, is only context.
    pub answer_within: Duration,
    /// Larger files are not fetched from WhatsApp, nor sent to it.
    pub media_limit_bytes: u64,
    pub agent_memory_mb: i64,
    pub agent_cpus: f64,
    /// `unix://…`; without one, the rootless daemon's socket in `XDG_RUNTIME_DIR`.
    pub docker_host: Option<String>,
    /// `ws://127.0.0.1:…`: a WhatsApp server for tests, on this machine; without one, WhatsApp.
    pub whatsapp_url: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnNumber {
    Shared,
    Own,
}

impl Config {
    /// Resolves the settings from the text of `.env` (empty where there is none) and the environment, and says
    /// what is wrong with them: lines that are not `NAME=value`, unknown names (with the nearest known one), values
    /// out of range. Each mistake is a sentence with its remedy, and holds nothing that could be a key; in the
    /// place of such a value stands the default.
    pub fn resolve(
        env_file: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Vec<String>) {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut values = Values::from_env_file(env_file);
        values.take_environment(&environment);
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| environment.get(*name));
        let config = Self::from_values(&mut values, locale.map(String::as_str));
        (config, values.mistakes)
    }

    fn from_values(values: &mut Values, locale: Option<&str>) -> Self {
        let api_key = values.text("MOONSHOT_API_KEY").map(Secret::new);
        // Both are looked at, whichever counts now: a mistake must not show itself on the day that the key is taken out.
        let platform = values.url("MOONSHOT_BASE_URL", "https://api.moonshot.ai/v1");
        let plan = values.url("KIMI_CODE_BASE_URL", "https://api.kimi.com/coding/v1");
        let (api_base, default_model) = match api_key {
            Some(_) => (platform, Some("kimi-latest")),
            None => (plan, None),
        };
        Self {
            assistant_name: values.name("ASSISTANT_NAME", "Kai"),
            lang: values
                .one_of("ASSISTANT_LANG", &[("en", Lang::En), ("es", Lang::Es)])
                .unwrap_or(notices::lang(locale)),
            own_number: values
                .one_of("ASSISTANT_HAS_OWN_NUMBER", &[("false", OwnNumber::Shared), ("true", OwnNumber::Own)])
                .unwrap_or(OwnNumber::Shared),
            zone: values.zone("TZ"),
            log_level: values
                .one_of("LOG_LEVEL", &["error", "warn", "info", "debug", "trace"].map(|level| (level, level)))
                .unwrap_or("info")
                .to_owned(),
            api_key,
            api_base,
            oauth_host: values.url("KIMI_CODE_OAUTH_HOST", "https://auth.kimi.com"),
            model: values.text("KIMI_MODEL").or(default_model).map(str::to_owned),
            engine: EngineName::new(values.text("ENGINE").unwrap_or(DEFAULT_ENGINE)),
            max_agents: values.number("MAX_AGENTS", 5, 1, 100),
            idle_timeout: minutes(values.number("IDLE_MINUTES", 15, 1, 24 * 60)),
            turn_timeout: minutes(values.number("TURN_MINUTES", 30, 1, 24 * 60)),
            answer_within: minutes(values.number("ANSWER_WITHIN_HOURS", 24, 1, 24 * 30) * 60),
            media_limit_bytes: values.number("MEDIA_MB", 32, 1, 100) * 1024 * 1024,
            agent_memory_mb: values.number("AGENT_MEMORY_MB", 768, 256, 1024 * 1024),
            agent_cpus: values.number("AGENT_CPUS", 1.0, 0.1, 256.0),
            docker_host: values.text("DOCKER_HOST").map(str::to_owned),
            whatsapp_url: values.loopback("NANOKIMI_WHATSAPP_URL"),
        }
    }

    /// What stands in front of every reply.
    pub fn reply_prefix(&self) -> String {
        match self.own_number {
            OwnNumber::Shared => format!("{}: ", self.assistant_name),
            OwnNumber::Own => String::new(),
        }
    }
}

/// A value as it was written, and where, for the one who has to mend it.
struct Value {
    text: String,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    EnvFile,
    Environment,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnvFile => ".env",
            Self::Environment => "the environment",
        })
    }
}

/// Values by setting, and what was wrong so far.
struct Values {
    by_name: BTreeMap<String, Value>,
    mistakes: Vec<String>,
}

impl Values {
    fn from_env_file(text: &str) -> Self {
        let mut values = Self { by_name: BTreeMap::new(), mistakes: Vec::new() };
        // An editor of another system may have put a byte order mark in front.
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let number = index + 1;
            match assignment(line.trim()) {
                Ok(None) => {}
                Ok(Some((name, value))) if SETTINGS.contains(&name.as_str()) => {
                    values.set(&name, &value, Place::EnvFile);
                }
                Ok(Some((name, _))) if ENVIRONMENT_ONLY.contains(&name.as_str()) => {
                    let mistake =
                        format!("{name} counts only in the environment, not in .env (line {number})");
                    values.mistakes.push(mistake);
                }
                Ok(Some((name, _))) => {
                    let mistake = unknown(&name, &SETTINGS, &format!("line {number} of .env"));
                    values.mistakes.push(mistake);
                }
                Err(why) => values.mistakes.push(format!("Line {number} of .env {why}")),
            }
        }
        values
    }

    fn take_environment(&mut self, environment: &BTreeMap<String, String>) {
        let known = [&SETTINGS[..], &[HOME]].concat();
        for (name, value) in environment {
            if name.starts_with("NANOKIMI_") && !ENVIRONMENT_ONLY.contains(&name.as_str()) {
                self.mistakes.push(unknown(name, &known, "the environment"));
            }
            if SETTINGS.contains(&name.as_str()) || ENVIRONMENT_ONLY.contains(&name.as_str()) {
                self.set(name, value, Place::Environment);
            }
        }
    }

    fn set(&mut self, name: &str, text: &str, place: Place) {
        self.by_name.insert(name.to_owned(), Value { text: text.trim().to_owned(), place });
    }

    /// The value; an empty one counts as not set.
    fn text(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Notes that a value is not what its setting `must` be.
    fn refuse(&mut self, name: &str, must: &str) {
        let place = self.by_name.get(name).map_or(Place::EnvFile, |value| value.place);
        self.mistakes.push(format!("{name} in {place} must be {must}"));
    }

    fn number<N: FromStr + PartialOrd + Display>(&mut self, name: &str, default: N, least: N, most: N) -> N {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if (&least..=&most).contains(&&number) => number,
            Ok(_) | Err(_) => {
                let must = format!("a number from {least} to {most}, not {text:?}");
                self.refuse(name, &must);
                default
            }
        }
    }

    fn one_of<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let choice = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        if choice.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let must = format!("{}, not {text:?}", one_of_these(&words));
            self.refuse(name, &must);
        }
        choice.map(|(_, value)| *value)
    }

    /// An address; what was written there instead is not shown, since it may be a key.
    fn url(&mut self, name: &str, default: &str) -> String {
        let url = self.text(name).unwrap_or(default).trim_end_matches('/').to_owned();
        // The login goes there: unencrypted only within this machine, as the door sees to.
        let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let this_machine = |host: &str| {
            ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| {
                let Some(port) = host.strip_prefix(name) else { return false };
                let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
                port.is_empty() || port.strip_prefix(':').is_some_and(digits)
            })
        };
        let strange = |c: char| matches!(c, '?' | '#' | '@' | '\\') || c.is_whitespace() || c.is_control();
        if !url.starts_with("https://") && !host.is_some_and(this_machine) {
            self.refuse(name, "an address that begins with https://");
        } else if url.contains(strange) {
            self.refuse(name, "an address without a name, a query and spaces: nothing of ?, #, @ and \\");
        }
        url
    }

    /// The address of a server on this machine, never another: messages and keys go there.
    fn loopback(&mut self, name: &str) -> Option<String> {
        let url = self.text(name)?.to_owned();
        if url.starts_with("ws://127.0.0.1:") {
            return Some(url);
        }
        self.refuse(name, "an address that begins with ws://127.0.0.1:");
        None
    }

    fn name(&mut self, name: &str, default: &str) -> String {
        let text = self.text(name).unwrap_or(default).trim_start_matches('@').to_owned();
        if text.is_empty() || text.chars().any(char::is_control) {
            self.refuse(name, &format!("a name, such as {default}"));
        }
        text
    }

    /// UTC where none is set. The system's own `TZ` has more forms than names: those are UTC too.
    fn zone(&mut self, name: &str) -> TimeZone {
        let Some(Value { text, place }) = self.by_name.get(name).filter(|value| !value.text.is_empty())
        else {
            return TimeZone::UTC;
        };
        if *place == Place::EnvFile && TimeZone::get(text).is_err() {
            let must = format!("a time zone such as America/New_York, not {text:?}");
            self.refuse(name, &must);
            return TimeZone::UTC;
        }
        render::prompt::time_zone(text)
    }
}

/// The name and value of a line of `.env`, or nothing where it is blank or a comment.
///
/// # Errors
/// What the line is or has, never a piece of it: it may hold a key.
fn assignment(line: &str) -> Result<Option<(String, String)>, &'static str> {
    // dotenvy would put the environment's value there.
    let single_quoted = line.split_once('=').is_some_and(|(_, value)| value.trim_start().starts_with('\''));
    if line.contains('$') && !single_quoted && !line.starts_with('#') {
        return Err("has a $; put single quotes around its value");
    }
    let pair = dotenvy::from_read_iter(line.as_bytes()).next().transpose();
    pair.map_err(|_| "is not NAME=value; put quotes around a value with spaces")
}

/// Choices as a sentence has them: "en or es", "error, warn or info".
fn one_of_these(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// Says that there is no such setting. A name that is like none of the `known` ones is shown only where it looks
/// like a name: it may be a key that was pasted.
fn unknown(name: &str, known: &[&str], place: &str) -> String {
    // Some put our name before a setting's.
    let bare = |name: &str| name.strip_prefix("NANOKIMI_").unwrap_or(name).to_owned();
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&bare(&name.to_uppercase()), &bare(known)), known))
        .filter(|(likeness, _)| *likeness >= SUGGEST_FROM);
    let hidden = name.chars().any(|c| c.is_ascii_lowercase());
    match near.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((_, known)) => format!("There is no setting {name} ({place}); did you mean {known}?"),
        None if hidden => format!("There is no such setting ({place}); see .env.example for the names"),
        None => format!("There is no setting {name} ({place}); see .env.example for the names"),
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(env_file: &str) -> Config {
        let (config, mistakes) = Config::resolve(env_file, []);
        assert_eq!(mistakes, [""; 0]);
        config
    }

    fn mistakes(env_file: &str) -> Vec<String> {
        Config::resolve(env_file, []).1
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        let config = resolve("");
        assert_eq!(config.reply_prefix(), "Kai: ");
        assert_eq!(
            (config.max_agents, config.idle_timeout.as_secs(), config.turn_timeout.as_secs()),
            (5, 900, 1800)
        );
        assert_eq!(config.api_base, "https://api.kimi.com/coding/v1");
        assert!(config.api_key.is_none() && config.model.is_none());
    }

    #[test]
    fn a_platform_key_goes_to_the_platform() {
        let config = resolve("MOONSHOT_API_KEY=sk-canary");
        assert_eq!(config.api_base, "https://api.moonshot.ai/v1");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let environment = [("MAX_AGENTS".to_owned(), "2".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
        assert_eq!(Config::resolve("MAX_AGENTS=3", environment).0.max_agents, 2);
    }

    #[test]
    fn values_are_read_as_dotenvy_reads_them() {
        for (line, expected) in [
            ("ASSISTANT_NAME=Kai", "Kai"),
            ("ASSISTANT_NAME = Ana  # ours", "Ana"),
            ("ASSISTANT_NAME=\"Kai #1\" # ours", "Kai #1"),
            ("ASSISTANT_NAME='Ca$h \\n'", "Ca$h \\n"),
            ("export ASSISTANT_NAME=Kai\r", "Kai"),
            ("\u{feff}ASSISTANT_NAME=C#", "C#"),
            ("ASSISTANT_NAME=\"\"", "Kai"),
            ("ASSISTANT_NAME=Ana\nASSISTANT_NAME=Kai", "Kai"),
        ] {
            assert_eq!(resolve(line).assistant_name, expected, "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_remedy() {
        for (text, expected) in [
            (
                "ASSISTENT_NAME=Kai",
                "There is no setting ASSISTENT_NAME (line 1 of .env); did you mean ASSISTANT_NAME?",
            ),
            ("max_agents=2", "There is no setting max_agents (line 1 of .env); did you mean MAX_AGENTS?"),
            (
                "TZ=UTC\nNANOKIMI_HOME=/srv/kai",
                "NANOKIMI_HOME counts only in the environment, not in .env (line 2)",
            ),
            (
                "NANOKIMI_HOMES=/srv",
                "There is no setting NANOKIMI_HOMES (line 1 of .env); see .env.example for the names",
            ),
            (
                "NANOKIMI_WHATSAPP=ws",
                "There is no setting NANOKIMI_WHATSAPP (line 1 of .env); see .env.example for the names",
            ),
            ("\nXYZZY=1", "There is no setting XYZZY (line 2 of .env); see .env.example for the names"),
            ("MAX_AGENTS=0", "MAX_AGENTS in .env must be a number from 1 to 100, not \"0\""),
            ("MAX_AGENTS=many", "MAX_AGENTS in .env must be a number from 1 to 100, not \"many\""),
            ("LOG_LEVEL=loud", "LOG_LEVEL in .env must be error, warn, info, debug or trace, not \"loud\""),
            ("ASSISTANT_NAME=@", "ASSISTANT_NAME in .env must be a name, such as Kai"),
            (
                "TZ=Mars/Olympus",
                "TZ in .env must be a time zone such as America/New_York, not \"Mars/Olympus\"",
            ),
            (
                "TZ=UTC\nMAX_AGENTS=2\nA",
                "Line 3 of .env is not NAME=value; put quotes around a value with spaces",
            ),
            ("=x", "Line 1 of .env is not NAME=value; put quotes around a value with spaces"),
            (
                "ASSISTANT_NAME=\"Kai",
                "Line 1 of .env is not NAME=value; put quotes around a value with spaces",
            ),
            ("ASSISTANT_NAME=$HOME", "Line 1 of .env has a $; put single quotes around its value"),
            ("ASSISTANT_NAME=\"it's $HOME\"", "Line 1 of .env has a $; put single quotes around its value"),
        ] {
            assert_eq!(mistakes(text), [expected]);
        }
        let environment = [
            ("MAX_AGENTS", "x"),
            ("NANOKIMI_ASSISTANT_NAME", "Ana"),
            ("NANOKIMI_HOMES", ""),
            ("NANOKIMI_LANG", "es"),
            ("NANOKIMI_WHATSAPP_URI", ""),
            ("TZ", ":/etc/localtime"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            Config::resolve("", environment).1,
            [
                "There is no setting NANOKIMI_ASSISTANT_NAME (the environment); did you mean ASSISTANT_NAME?",
                "There is no setting NANOKIMI_HOMES (the environment); did you mean NANOKIMI_HOME?",
                "There is no setting NANOKIMI_LANG (the environment); see .env.example for the names",
                "There is no setting NANOKIMI_WHATSAPP_URI (the environment); see .env.example for the names",
                "MAX_AGENTS in the environment must be a number from 1 to 100, not \"x\"",
            ]
        );
        assert_eq!(mistakes("MAX_AGENTS=0\nIDLE_MINUTES=0\nX").len(), 3, "all at once");
    }

    #[test]
    fn the_login_is_never_sent_unencrypted() {
        for (url, mistakes_made) in [
            ("https://mirror.example/v1", 0),
            ("http://127.0.0.1:8080/v1", 0),
            ("http://localhost/v1", 0),
            ("http://mirror.example/v1", 1),
            ("http://127.0.0.1.example/v1", 1),
            ("http://localhost.example/v1", 1),
            ("http://127.0.0.1:80@mirror.example/v1", 1),
            ("http://127.0.0.1@mirror.example/v1", 1),
            ("http://localhost:x/v1", 1),
            ("https://kai:secret@mirror.example/v1", 1),
            ("https://mirror.example/v1?key=1", 1),
            ("https://mirror.example/v1#x", 1),
            ("https://mirror.example\\@other.example/v1", 1),
            ("https://mirror.example/v1\tx", 1),
        ] {
            for key in ["", "MOONSHOT_API_KEY=sk-1\n"] {
                for name in ["KIMI_CODE_BASE_URL", "MOONSHOT_BASE_URL"] {
                    assert_eq!(mistakes(&format!("{key}{name}={url}")).len(), mistakes_made, "{name} {url}");
                }
            }
            assert_eq!(mistakes(&format!("KIMI_CODE_BASE_URL={url}")).len(), mistakes_made, "{url}");
        }
    }

    #[test]
    fn no_mistake_shows_a_key() {
        for line in [
            "sk-canary",
            "sk-canary=",
            "export sk-canary",
            "canary0=",
            "MOONSHOT_API_KEY:sk-canary",
            "MOONSHOT_API_KEY=\"sk-canary",
            "MOONSHOT_API_KEYS=sk-canary",
            "KIMI_CODE_BASE_URL=sk-canary",
        ] {
            let mistakes = mistakes(line);
            assert!(!mistakes.is_empty(), "{line:?}");
            assert!(!mistakes.concat().contains("canary"), "{mistakes:?}");
        }
    }

    #[test]
    fn the_example_names_every_setting() {
        let example = include_str!("../.env.example");
        let named: Vec<&str> = example
            .lines()
            .filter_map(|line| line.strip_prefix("# ").unwrap_or(line).split_once('='))
            .map(|(name, _)| name)
            .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .collect();
        assert_eq!(named, SETTINGS);
        resolve(example);
    }
}
