//! The settings. They are read as written; unknown ones are refused; each is resolved once. No other module
//! reads `.env` or the environment.
//!
//! Pure: takes the text of `.env` and the variables of the environment. The environment wins over the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::{self, TimeZone};

use crate::notices;
use crate::types::{DirectChatPolicy, Engine, GatewayAddress, Lang, Secret, TranscriptionServer};

/// Every setting, with its text in `.env.example`. A test keeps that file and this list equal.
pub const SETTINGS: [&str; 27] = [
    "ASSISTANT_NAME",
    "ASSISTANT_LANG",
    "ASSISTANT_HAS_OWN_NUMBER",
    "TZ",
    "LOG_LEVEL",
    "MOONSHOT_API_KEY",
    "MOONSHOT_BASE_URL",
    "KIMI_REGION",
    "KIMI_CODE_BASE_URL",
    "KIMI_CODE_OAUTH_HOST",
    "KIMI_MODEL",
    "ENGINE",
    "MAX_AGENTS",
    "AGENTS_MEMORY_MB",
    "IDLE_MINUTES",
    "TURN_MINUTES",
    "ANSWER_WITHIN_HOURS",
    "DIRECT_CHATS",
    "MEDIA_MB",
    "TRANSCRIBE_URL",
    "TRANSCRIBE_KEY",
    "TRANSCRIBE_MODEL",
    "AGENT_MEMORY_MB",
    "AGENT_CPUS",
    "DOCKER_HOST",
    "GATEWAY_LISTEN",
    "KIMI_CODE_CLI_VERSION",
];
/// The folder of the install. `.env` is in it, so `.env` cannot set it.
const HOME: &str = "NANOKIMI_HOME";
/// A WhatsApp server for tests. It is never suggested to a user.
const TEST_SERVER: &str = "NANOKIMI_WHATSAPP_URL";
/// What nanokimi reads from the environment besides the settings.
const ENVIRONMENT_ONLY: [&str; 2] = [HOME, TEST_SERVER];
/// The quotes that word processors and phones put in place of straight ones.
const CURVED_QUOTES: [(char, char); 8] =
    [('“', '”'), ('”', '”'), ('„', '“'), ('„', '”'), ('‘', '’'), ('’', '’'), ('«', '»'), ('»', '«')];
/// Names that other programs or people use for one of our settings.
const OTHER_NAMES: [(&str, &str); 24] = [
    ("KIMI_API_KEY", "MOONSHOT_API_KEY"),
    ("MOONSHOT_KEY", "MOONSHOT_API_KEY"),
    ("OPENAI_API_KEY", "MOONSHOT_API_KEY"),
    ("API_KEY", "MOONSHOT_API_KEY"),
    ("REGION", "KIMI_REGION"),
    ("KIMI_BASE_URL", "KIMI_CODE_BASE_URL"),
    ("OPENAI_BASE_URL", "MOONSHOT_BASE_URL"),
    ("KIMI_MODEL_NAME", "KIMI_MODEL"),
    ("MODEL", "KIMI_MODEL"),
    ("NAME", "ASSISTANT_NAME"),
    ("BOT_NAME", "ASSISTANT_NAME"),
    ("TRIGGER", "ASSISTANT_NAME"),
    ("LANG", "ASSISTANT_LANG"),
    ("LANGUAGE", "ASSISTANT_LANG"),
    ("LOCALE", "ASSISTANT_LANG"),
    ("TIMEZONE", "TZ"),
    ("TIME_ZONE", "TZ"),
    ("ZONE", "TZ"),
    ("DEBUG", "LOG_LEVEL"),
    ("RUST_LOG", "LOG_LEVEL"),
    ("MEMORY_MB", "AGENT_MEMORY_MB"),
    ("CPUS", "AGENT_CPUS"),
    ("DOCKER_SOCKET", "DOCKER_HOST"),
    ("WHISPER_URL", "TRANSCRIBE_URL"),
];
/// The model that OpenAI itself and most local servers know.
const TRANSCRIBE_MODEL: &str = "whisper-1";
/// The version that clients with the identity of kimi-cli name.
const KIMI_CLI_VERSION: &str = "1.12.0";
/// Longest version that a header carries.
const VERSION_MAX: usize = 40;
/// How similar a name must be to be suggested: 0 is nothing in common, 1 is the same.
const SUGGEST_FROM: f64 = 0.75;

/// The settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    pub assistant_name: String,
    /// The language of chat notices.
    pub lang: Lang,
    /// Kai has its own phone number: replies need no prefix.
    pub own_number: OwnNumber,
    pub zone: TimeZone,
    pub log_level: String,
    /// A key of the Moonshot platform. `None`: the Kimi login is used.
    pub api_key: Option<Secret>,
    /// The model API, without a slash at the end.
    pub api_base: String,
    /// The server that gives out and renews Kimi logins, without a slash at the end.
    pub oauth_host: String,
    /// The model's name, if it is not the one in `config.toml`.
    pub model: Option<String>,
    /// The agent program of groups that have chosen no engine.
    pub engine: Engine,
    pub max_agents: usize,
    /// How much memory all agents may use together. Without a number: what the machine has for them.
    pub agents_memory_mb: Option<u64>,
    pub idle_timeout: Duration,
    pub turn_timeout: Duration,
    /// If nanokimi was away, a call that is older than this is only context.
    pub answer_within: Duration,
    /// Which direct chats are served besides the main channel.
    pub direct_chats: DirectChatPolicy,
    /// Larger files are not fetched from WhatsApp, and not sent to it.
    pub media_limit_bytes: u64,
    /// What turns voice notes into words. `None`: nothing does.
    pub transcription: Option<TranscriptionServer>,
    pub agent_memory_mb: i64,
    pub agent_cpus: f64,
    /// `unix://…`. `None`: the socket of the rootless daemon in `XDG_RUNTIME_DIR`.
    pub docker_host: Option<String>,
    /// Where the gateway listens. `None`: there is none.
    pub gateway: Option<GatewayAddress>,
    /// What a client names whose key has the identity of kimi-cli.
    pub kimi_cli_version: String,
    /// `ws://127.0.0.1:…`: a WhatsApp server for tests, on this machine. `None`: WhatsApp itself.
    pub whatsapp_url: Option<String>,
}

/// The region of a Kimi account. Each region knows only its own accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Com,
    Ai,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnNumber {
    Shared,
    Own,
}

impl Config {
    /// Resolves the settings from the text of `.env` (empty if there is no file), the environment and the
    /// machine's own time zone (its IANA name, if known). Reports what is wrong: lines that are not
    /// `NAME=value`, unknown names (with the nearest known one), values out of range. Each mistake is a
    /// sentence with its remedy, and holds nothing that could be a key. A wrong value is replaced by the
    /// default.
    pub fn resolve_settings(
        env_file: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        machine_zone: Option<&str>,
    ) -> (Self, Vec<String>) {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut values = SettingValues::parse_env_file(env_file);
        values.apply_environment(&environment);
        // An empty variable counts as not set: POSIX, "Environment Variables", 8.2.
        let set = |name: &&str| environment.get(*name).map(String::as_str).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(set);
        let config = Self::from_values(&mut values, locale, machine_zone);
        (config, values.mistakes)
    }

    fn from_values(values: &mut SettingValues, locale: Option<&str>, machine_zone: Option<&str>) -> Self {
        let api_key = values.setting_text("MOONSHOT_API_KEY").map(Secret::new);
        // Both are checked, whichever is used now. Else a mistake would show only on the day when the key is
        // removed.
        let platform = values.parse_url_setting("MOONSHOT_BASE_URL", "https://api.moonshot.ai/v1");
        let (plan, oauth_host) = match values.parse_region_setting() {
            Region::Com => ("https://api.kimi.com/coding/v1", "https://auth.kimi.com"),
            Region::Ai => ("https://api.kimi.ai/coding/v1", "https://auth.kimi.ai"),
        };
        let plan = values.parse_url_setting("KIMI_CODE_BASE_URL", plan);
        let (api_base, default_model) =
            if api_key.is_some() { (platform, Some("kimi-latest")) } else { (plan, None) };
        Self {
            assistant_name: values.parse_name_setting("ASSISTANT_NAME", "Kai"),
            lang: values
                .parse_language_setting("ASSISTANT_LANG")
                .unwrap_or(notices::language_of_locale(locale)),
            own_number: values
                .parse_choice_setting(
                    "ASSISTANT_HAS_OWN_NUMBER",
                    &[("false", OwnNumber::Shared), ("true", OwnNumber::Own)],
                    &[
                        ("no", OwnNumber::Shared),
                        ("off", OwnNumber::Shared),
                        ("0", OwnNumber::Shared),
                        ("yes", OwnNumber::Own),
                        ("on", OwnNumber::Own),
                        ("1", OwnNumber::Own),
                    ],
                )
                .unwrap_or(OwnNumber::Shared),
            zone: values.parse_zone_setting("TZ", machine_zone),
            log_level: values
                .parse_choice_setting(
                    "LOG_LEVEL",
                    &["error", "warn", "info", "debug", "trace"].map(|level| (level, level)),
                    &[("warning", "warn")],
                )
                .unwrap_or("info")
                .to_owned(),
            api_key,
            api_base,
            oauth_host: values.parse_url_setting("KIMI_CODE_OAUTH_HOST", oauth_host),
            model: values.setting_text("KIMI_MODEL").or(default_model).map(str::to_owned),
            max_agents: values.parse_number_setting("MAX_AGENTS", 10, 1, 100),
            agents_memory_mb: Some(values.parse_number_setting("AGENTS_MEMORY_MB", 0, 256, 1024 * 1024))
                .filter(|mb| *mb > 0),
            idle_timeout: duration_from_minutes(values.parse_number_setting("IDLE_MINUTES", 60, 1, 24 * 60)),
            turn_timeout: duration_from_minutes(values.parse_number_setting("TURN_MINUTES", 30, 1, 24 * 60)),
            answer_within: duration_from_minutes(
                values.parse_number_setting("ANSWER_WITHIN_HOURS", 24, 1, 24 * 30) * 60,
            ),
            direct_chats: values
                .parse_choice_setting(
                    "DIRECT_CHATS",
                    &DirectChatPolicy::ALL.map(|policy| (policy.name(), policy)),
                    &[("nobody", DirectChatPolicy::Listed), ("all", DirectChatPolicy::Anyone)],
                )
                .unwrap_or_default(),
            media_limit_bytes: values.parse_number_setting("MEDIA_MB", 32, 1, 100) * 1024 * 1024,
            transcription: values.parse_transcription_setting(),
            agent_memory_mb: values.parse_number_setting("AGENT_MEMORY_MB", 768, 256, 1024 * 1024),
            agent_cpus: values.parse_number_setting("AGENT_CPUS", 1.0, 0.1, 256.0),
            docker_host: values.setting_text("DOCKER_HOST").map(str::to_owned),
            whatsapp_url: values.parse_loopback_setting("NANOKIMI_WHATSAPP_URL"),
            engine: values.parse_engine_setting("ENGINE"),
            gateway: values.parse_gateway_setting("GATEWAY_LISTEN"),
            kimi_cli_version: values.parse_version_setting("KIMI_CODE_CLI_VERSION", KIMI_CLI_VERSION),
        }
    }

    /// The text in front of every reply.
    pub fn reply_prefix(&self) -> String {
        match self.own_number {
            OwnNumber::Shared => format!("{}: ", self.assistant_name),
            OwnNumber::Own => String::new(),
        }
    }
}

/// A value as it was written, and its place, for the person that has to correct it.
struct SettingValue {
    text: String,
    place: SettingOrigin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SettingOrigin {
    EnvFile,
    Environment,
}

impl Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnvFile => ".env",
            Self::Environment => "the environment",
        })
    }
}

/// The values by setting, and the mistakes found so far.
struct SettingValues {
    by_name: BTreeMap<String, SettingValue>,
    mistakes: Vec<String>,
}

impl SettingValues {
    fn parse_env_file(text: &str) -> Self {
        let mut values = Self { by_name: BTreeMap::new(), mistakes: Vec::new() };
        // An editor of another system may have added a byte order mark, and may end lines in its own way.
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            match parse_env_line(line.trim()) {
                Ok(None) => {}
                Ok(Some((name, value))) if SETTINGS.contains(&name.as_str()) => {
                    values.insert_setting(&name, &value, SettingOrigin::EnvFile);
                }
                Ok(Some((name, _))) if ENVIRONMENT_ONLY.contains(&name.as_str()) => {
                    let mistake =
                        format!("{name} counts only in the environment, not in .env (line {number})");
                    values.mistakes.push(mistake);
                }
                Ok(Some((name, _))) => {
                    let mistake =
                        describe_unknown_setting(&name, &SETTINGS, &format!("line {number} of .env"));
                    values.mistakes.push(mistake);
                }
                Err(why) => values.mistakes.push(format!("Line {number} of .env {why}")),
            }
        }
        values
    }

    fn apply_environment(&mut self, environment: &BTreeMap<String, String>) {
        let known = [&SETTINGS[..], &[HOME]].concat();
        for (name, value) in environment {
            if name.starts_with("NANOKIMI_") && !ENVIRONMENT_ONLY.contains(&name.as_str()) {
                self.mistakes.push(describe_unknown_setting(name, &known, "the environment"));
            }
            // `TZ` has more forms than names. A form that we cannot read overrides nothing.
            let is_for_us = name != "TZ" || find_time_zone(value).is_some() || means_machine_zone(value);
            if is_for_us && (SETTINGS.contains(&name.as_str()) || ENVIRONMENT_ONLY.contains(&name.as_str())) {
                self.insert_setting(name, value, SettingOrigin::Environment);
            }
        }
    }

    fn insert_setting(&mut self, name: &str, text: &str, place: SettingOrigin) {
        self.by_name.insert(name.to_owned(), SettingValue { text: strip_quotes(text).to_owned(), place });
    }

    /// The value; an empty one counts as not set.
    fn setting_text(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Notes that a value is not what its setting `must` be.
    fn record_mistake(&mut self, name: &str, must: &str) {
        let place = self.by_name.get(name).map_or(SettingOrigin::EnvFile, |value| value.place);
        self.mistakes.push(format!("{name} in {place} must be {must}"));
    }

    fn parse_number_setting<N: FromStr + PartialOrd + Display>(
        &mut self,
        name: &str,
        default: N,
        least: N,
        most: N,
    ) -> N {
        let Some(text) = self.setting_text(name) else { return default };
        // Many countries write 0,5.
        let parsed = text.parse().or_else(|error| match text.replacen(',', ".", 1) {
            point if point == text => Err(error),
            point => point.parse(),
        });
        match parsed {
            Ok(number) if (&least..=&most).contains(&&number) => number,
            Ok(_) | Err(_) => {
                let must = format!("a number from {least} to {most}, not {text:?}");
                self.record_mistake(name, &must);
                default
            }
        }
    }

    fn parse_engine_setting(&mut self, name: &str) -> Engine {
        match self.setting_text(name).map_or(Ok(Engine::DEFAULT), Engine::parse) {
            Ok(engine) => engine,
            Err(error) => {
                self.mistakes.push(format!("{name}: {error}"));
                Engine::DEFAULT
            }
        }
    }

    fn parse_gateway_setting(&mut self, name: &str) -> Option<GatewayAddress> {
        match GatewayAddress::parse(self.setting_text(name)?) {
            Ok(address) => Some(address),
            Err(error) => {
                self.mistakes.push(format!("{name}: {error}"));
                None
            }
        }
    }

    /// A version as it stands in a header.
    fn parse_version_setting(&mut self, name: &str, default: &str) -> String {
        let text = self.setting_text(name).unwrap_or(default).to_owned();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if text.len() > VERSION_MAX || !text.chars().all(fits) {
            self.record_mistake(name, &format!("a version, such as {default}"));
            return default.to_owned();
        }
        text
    }

    /// A value that is one of a few words; `also` are other words with the same meaning.
    fn parse_choice_setting<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
        also: &[(&str, T)],
    ) -> Option<T> {
        let text = self.setting_text(name)?;
        let choice = choices.iter().chain(also).find(|(word, _)| word.eq_ignore_ascii_case(text));
        if choice.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let must = format!("{}, not {text:?}", join_choices(&words));
            self.record_mistake(name, &must);
        }
        choice.map(|(_, value)| *value)
    }

    fn parse_region_setting(&mut self) -> Region {
        let also = [("kimi.com", Region::Com), ("kimi.ai", Region::Ai)];
        self.parse_choice_setting("KIMI_REGION", &[("com", Region::Com), ("ai", Region::Ai)], &also)
            .unwrap_or(Region::Com)
    }

    /// A language. Its name in English or Spanish is accepted too, and a locale such as `es_ES.UTF-8`.
    fn parse_language_setting(&mut self, name: &str) -> Option<Lang> {
        if let Some(lang) = notices::parse_language(self.setting_text(name)?) {
            return Some(lang);
        }
        let also = [
            ("english", Lang::En),
            ("inglés", Lang::En),
            ("ingles", Lang::En),
            ("spanish", Lang::Es),
            ("español", Lang::Es),
            ("espanol", Lang::Es),
        ];
        self.parse_choice_setting(name, &[("en", Lang::En), ("es", Lang::Es)], &also)
    }

    /// An address. A wrong value is not shown, since it may be a key.
    fn parse_url_setting(&mut self, name: &str, default: &str) -> String {
        let url = self.setting_text(name).unwrap_or(default).trim_end_matches('/').to_owned();
        // The login is sent there: unencrypted only within this machine, as the egress proxy demands too.
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
            self.record_mistake(name, "an address that begins with https://");
        } else if url.contains(strange) {
            self.record_mistake(name, "an address of a host and a path only, without ?, #, @ or \\");
        }
        url
    }

    fn parse_transcription_setting(&mut self) -> Option<TranscriptionServer> {
        self.setting_text("TRANSCRIBE_URL")?;
        let base = self.parse_url_setting("TRANSCRIBE_URL", "");
        Some(TranscriptionServer {
            base,
            key: self.setting_text("TRANSCRIBE_KEY").map(Secret::new),
            model: self.setting_text("TRANSCRIBE_MODEL").unwrap_or(TRANSCRIBE_MODEL).to_owned(),
        })
    }

    /// The address of a server on this machine, never another one: messages and keys are sent there.
    fn parse_loopback_setting(&mut self, name: &str) -> Option<String> {
        let url = self.setting_text(name)?.to_owned();
        if url.starts_with("ws://127.0.0.1:") {
            return Some(url);
        }
        self.record_mistake(name, "an address that begins with ws://127.0.0.1:");
        None
    }

    fn parse_name_setting(&mut self, name: &str, default: &str) -> String {
        let text = self.setting_text(name).unwrap_or(default).trim_start_matches('@').to_owned();
        if text.is_empty() || text.chars().any(char::is_control) {
            self.record_mistake(name, &format!("a name, such as {default}"));
        }
        text
    }

    /// The machine's zone if the setting is empty, and UTC if that is unknown too.
    fn parse_zone_setting(&mut self, name: &str, machine_zone: Option<&str>) -> TimeZone {
        let machine = machine_zone.and_then(find_time_zone).unwrap_or(TimeZone::UTC);
        let Some(text) = self.setting_text(name).filter(|text| !means_machine_zone(text)) else {
            return machine;
        };
        if let Some(zone) = find_time_zone(text) {
            return zone;
        }
        let near = tz::db().available().find(|zone| {
            let place = zone.as_str().rsplit_once('/').map(|(_, place)| place.replace('_', " "));
            place.is_some_and(|place| place.eq_ignore_ascii_case(&text.replace('_', " ")))
        });
        let must = match near {
            Some(near) => format!("a time zone by its name, not {text:?}; did you mean {}", near.as_str()),
            None => format!("a time zone such as America/New_York, not {text:?}"),
        };
        self.record_mistake(name, &must);
        machine
    }
}

/// The zone that `TZ` names. It may stand after a colon, or be a file of the zone database: tzset(3).
fn find_time_zone(text: &str) -> Option<TimeZone> {
    let text = text.trim().trim_start_matches(':');
    let name = text.rsplit_once("zoneinfo/").map_or(text, |(_, name)| name);
    let name = name.strip_prefix("posix/").or_else(|| name.strip_prefix("right/")).unwrap_or(name);
    match name {
        "Etc/UTC" | "Etc/UCT" | "UCT" | "Zulu" | "Etc/Zulu" | "Universal" | "Etc/Universal" => {
            Some(TimeZone::UTC)
        }
        name => TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some()),
    }
}

/// Whether `TZ` means the machine's own zone.
fn means_machine_zone(text: &str) -> bool {
    matches!(text.trim().trim_start_matches(':'), "" | "localtime" | "/etc/localtime")
}

/// The value without invisible characters around it, and without quotes around it. Quotes in the environment
/// are removed by no other program, and word processors make curved ones.
fn strip_quotes(text: &str) -> &str {
    let text = text.trim_matches(is_blank_or_invisible);
    let mut quotes = CURVED_QUOTES.iter().chain(&[('"', '"'), ('\'', '\'')]);
    let inner = quotes.find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close));
    inner.map_or(text, |inner| inner.trim_matches(is_blank_or_invisible))
}

/// Spaces of all widths, and marks without width: joiners, direction marks, soft hyphens, byte order marks.
fn is_blank_or_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text of `.env` with this setting, or without it: in its old place, else at the end. All other lines stay as
/// they are. `value` needs no quotes.
pub fn with_setting(env_file: &str, name: &str, value: Option<&str>) -> String {
    let is_ours = |line: &&str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        line.split_once('=').is_some_and(|(written, _)| written.trim() == name)
    };
    let line_end = if env_file.contains("\r\n") { "\r\n" } else { "\n" };
    let mut ours = value.map(|value| format!("{name}={value}{line_end}"));
    let mut text = String::new();
    for line in env_file.split_inclusive('\n') {
        if is_ours(&line) {
            // Of several the last one counts, so only one is left.
            text.push_str(&ours.take().unwrap_or_default());
        } else {
            text.push_str(line);
        }
    }
    if let Some(ours) = ours {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(line_end);
        }
        text.push_str(&ours);
    }
    text
}

/// The name and value of a line of `.env`, or nothing if the line is blank or a comment.
///
/// # Errors
/// Says what is wrong with the line. Never shows a piece of it: it may hold a key.
fn parse_env_line(line: &str) -> Result<Option<(String, String)>, &'static str> {
    // dotenvy would insert the environment's value there.
    let single_quoted = line.split_once('=').is_some_and(|(_, value)| value.trim_start().starts_with('\''));
    if line.contains('$') && !single_quoted && !line.starts_with('#') {
        return Err("has a $; put single quotes around its value");
    }
    let line = straighten_quotes(line);
    let pair = dotenvy::from_read_iter(line.as_bytes()).next().transpose();
    pair.map_err(|_| "is not NAME=value; put quotes around a value with spaces")
}

/// A line whose value has curved quotes around it, with straight quotes instead: only straight ones hold a
/// value with spaces together.
fn straighten_quotes(line: &str) -> Cow<'_, str> {
    let Some((name, value)) = line.split_once('=') else { return line.into() };
    match CURVED_QUOTES
        .iter()
        .find_map(|(open, close)| value.trim().strip_prefix(*open)?.strip_suffix(*close))
    {
        Some(inner) if !inner.contains('\'') => format!("{name}='{inner}'").into(),
        Some(_) | None => line.into(),
    }
}

/// Choices as in a sentence: "en or es", "error, warn or info".
fn join_choices(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// Says that there is no such setting. If the name is not similar to a `known` one, it is shown only if it
/// looks like a name: it may be a pasted key.
fn describe_unknown_setting(name: &str, known: &[&str], place: &str) -> String {
    let other = OTHER_NAMES.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    if let Some((_, ours)) = other.filter(|(_, ours)| known.contains(ours)) {
        return format!("There is no setting {name} ({place}); here it is {ours}");
    }
    // Some people put our name before a setting's name.
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

fn duration_from_minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(env_file: &str) -> Config {
        let (config, mistakes) = Config::resolve_settings(env_file, [], None);
        assert_eq!(mistakes, [""; 0]);
        config
    }

    fn mistakes(env_file: &str) -> Vec<String> {
        Config::resolve_settings(env_file, [], None).1
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        let config = resolve("");
        assert_eq!(config.reply_prefix(), "Kai: ");
        assert_eq!(
            (config.max_agents, config.idle_timeout.as_secs(), config.turn_timeout.as_secs()),
            (10, 3600, 1800)
        );
        assert_eq!(config.api_base, "https://api.kimi.com/coding/v1");
        assert_eq!(config.oauth_host, "https://auth.kimi.com");
        assert!(config.api_key.is_none() && config.model.is_none());
    }

    #[test]
    fn a_platform_key_goes_to_the_platform() {
        let config = resolve("MOONSHOT_API_KEY=sk-canary");
        assert_eq!(config.api_base, "https://api.moonshot.ai/v1");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn the_gateway_is_off_until_it_has_an_address_on_this_machine() {
        let config = resolve("");
        assert_eq!((config.gateway, config.kimi_cli_version.as_str()), (None, "1.12.0"));
        let config = resolve("GATEWAY_LISTEN=127.0.0.1:8788\nKIMI_CODE_CLI_VERSION=1.30.0");
        assert_eq!(config.gateway.unwrap().to_string(), "127.0.0.1:8788");
        assert_eq!(config.kimi_cli_version, "1.30.0");
        let said = mistakes("GATEWAY_LISTEN=0.0.0.0:8788\nKIMI_CODE_CLI_VERSION='1 (x)'");
        assert!(
            said[0].starts_with("GATEWAY_LISTEN: The gateway is for programs on this machine only"),
            "{said:?}"
        );
        assert_eq!(said[1], "KIMI_CODE_CLI_VERSION in .env must be a version, such as 1.12.0");
    }

    #[test]
    fn one_setting_is_written_and_all_other_lines_stay() {
        let set = |text: &str, value| with_setting(text, "GATEWAY_LISTEN", value);
        for (text, value, expected) in [
            ("", Some("a"), "GATEWAY_LISTEN=a\n"),
            ("", None, ""),
            ("# mine\nTZ=UTC", Some("a"), "# mine\nTZ=UTC\nGATEWAY_LISTEN=a\n"),
            ("TZ=UTC\r\n", Some("a"), "TZ=UTC\r\nGATEWAY_LISTEN=a\r\n"),
            ("GATEWAY_LISTEN=b\nTZ=UTC\n", Some("a"), "GATEWAY_LISTEN=a\nTZ=UTC\n"),
            (" export GATEWAY_LISTEN = b\nTZ=UTC\nGATEWAY_LISTEN=c", Some("a"), "GATEWAY_LISTEN=a\nTZ=UTC\n"),
            ("GATEWAY_LISTEN=b\n# GATEWAY_LISTEN=\nX=1", None, "# GATEWAY_LISTEN=\nX=1"),
        ] {
            assert_eq!(set(text, value), expected, "{text:?}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let environment = [("MAX_AGENTS".to_owned(), "2".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
        assert_eq!(Config::resolve_settings("MAX_AGENTS=3", environment, None).0.max_agents, 2);
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
            Config::resolve_settings("", environment, None).1,
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
    fn quotes_and_marks_that_nobody_means_are_left_out() {
        for (value, expected) in [
            ("“Ana”", "Ana"),
            ("”Ana”", "Ana"),
            ("„Ana“", "Ana"),
            ("‘Ana’", "Ana"),
            ("«Ana María»", "Ana María"),
            ("« Ana »", "Ana"),
            ("\u{200e}Ana\u{200b}", "Ana"),
            ("\u{a0}Ana\u{feff}", "Ana"),
            ("O’Hara", "O’Hara"),
            ("“Ana", "“Ana"),
            ("👩\u{200d}🍳", "👩\u{200d}🍳"),
        ] {
            for place in [format!("ASSISTANT_NAME=\"{value}\""), format!("ASSISTANT_NAME='{value}'")] {
                assert_eq!(resolve(&place).assistant_name, expected, "{place:?}");
            }
            let environment = [("ASSISTANT_NAME".to_owned(), value.to_owned())];
            assert_eq!(
                Config::resolve_settings("", environment, None).0.assistant_name,
                expected,
                "{value:?}"
            );
        }
        assert_eq!(resolve("ASSISTANT_NAME=“Ana”").assistant_name, "Ana");
        assert_eq!(resolve("ASSISTANT_NAME = “Ana María”").assistant_name, "Ana María");
        let environment = [("ASSISTANT_NAME".to_owned(), "\"Ana\"".to_owned())];
        assert_eq!(Config::resolve_settings("", environment, None).0.assistant_name, "Ana");
    }

    #[test]
    fn values_mean_what_people_mean() {
        assert_eq!(resolve("AGENT_CPUS=0,5").agent_cpus, 0.5);
        assert_eq!(resolve("TZ=UTC\rMAX_AGENTS=3\r").max_agents, 3);
        assert_eq!(resolve("TZ=UTC\r\nMAX_AGENTS=3\r\n").max_agents, 3);
        for (value, expected) in [
            ("yes", OwnNumber::Own),
            ("1", OwnNumber::Own),
            ("No", OwnNumber::Shared),
            ("off", OwnNumber::Shared),
        ] {
            assert_eq!(resolve(&format!("ASSISTANT_HAS_OWN_NUMBER={value}")).own_number, expected, "{value}");
        }
        assert_eq!(resolve("LOG_LEVEL=Warning").log_level, "warn");
        for value in ["es", "ES", "es_ES.UTF-8", "es-MX", "Spanish", "Español"] {
            assert_eq!(resolve(&format!("ASSISTANT_LANG={value}")).lang, Lang::Es, "{value}");
        }
        for (value, wrong) in [("MAX_AGENTS=1,5", 1), ("AGENT_MEMORY_MB=1,024", 1), ("AGENT_CPUS=NaN", 1)] {
            assert_eq!(mistakes(value).len(), wrong, "{value}");
        }
    }

    #[test]
    fn what_other_programs_call_it_is_named_as_ours() {
        for (name, ours) in [
            ("KIMI_API_KEY", "MOONSHOT_API_KEY"),
            ("kimi_api_key", "MOONSHOT_API_KEY"),
            ("TIMEZONE", "TZ"),
            ("LANG", "ASSISTANT_LANG"),
            ("MODEL", "KIMI_MODEL"),
        ] {
            assert_eq!(
                mistakes(&format!("{name}=x")),
                [format!("There is no setting {name} (line 1 of .env); here it is {ours}")]
            );
        }
        assert!(OTHER_NAMES.iter().all(|(other, ours)| SETTINGS.contains(ours) && !SETTINGS.contains(other)));
    }

    #[test]
    fn a_locale_that_is_empty_counts_as_not_set() {
        for (locale, expected) in [
            (&[("LC_ALL", ""), ("LANG", "es_ES.UTF-8")][..], Lang::Es),
            (&[("LC_ALL", ""), ("LC_MESSAGES", ""), ("LANG", "es_ES.UTF-8")], Lang::Es),
            (&[("LC_ALL", "en_GB.UTF-8"), ("LANG", "es_ES.UTF-8")], Lang::En),
            (&[("LC_ALL", "es_MX"), ("LANG", "en_US.UTF-8")], Lang::Es),
            (&[("LANG", "")], Lang::En),
            (&[("LANG", "C.UTF-8")], Lang::En),
        ] {
            let environment = locale.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            assert_eq!(Config::resolve_settings("", environment, None).0.lang, expected, "{locale:?}");
        }
    }

    #[test]
    fn the_zone_is_the_machines_unless_tz_says_another() {
        let zone = |env_file: &str, environment: Option<&str>, machine: Option<&str>| {
            let environment = environment.map(|zone| ("TZ".to_owned(), zone.to_owned()));
            let (config, mistakes) = Config::resolve_settings(env_file, environment, machine);
            assert_eq!(mistakes, [""; 0]);
            config.zone.iana_name().unwrap().to_owned()
        };
        let madrid = Some("Europe/Madrid");
        for (env_file, environment, machine, expected) in [
            ("", None, madrid, "Europe/Madrid"),
            ("", None, None, "UTC"),
            ("", None, Some("Etc/UTC"), "UTC"),
            ("", None, Some("Mars/Olympus"), "UTC"),
            ("", Some(""), madrid, "Europe/Madrid"),
            ("TZ=", None, madrid, "Europe/Madrid"),
            ("TZ=Asia/Tokyo", None, madrid, "Asia/Tokyo"),
            ("TZ=Asia/Tokyo", Some("America/Lima"), madrid, "America/Lima"),
            ("", Some(":America/Lima"), madrid, "America/Lima"),
            ("TZ=:America/Lima", None, madrid, "America/Lima"),
            ("", Some("/usr/share/zoneinfo/America/Lima"), madrid, "America/Lima"),
            ("", Some(":/usr/share/zoneinfo/posix/America/Lima"), madrid, "America/Lima"),
            ("", Some("posix/America/Lima"), madrid, "America/Lima"),
            ("", Some("america/lima"), madrid, "America/Lima"),
            ("", Some(":/etc/localtime"), madrid, "Europe/Madrid"),
            ("", Some("localtime"), madrid, "Europe/Madrid"),
            ("TZ=\"Asia/Tokyo\"", Some("/etc/localtime"), madrid, "Europe/Madrid"),
            // A rule is not a zone name: it overrides nothing.
            ("", Some("CET-1CEST,M3.5.0,M10.5.0/3"), madrid, "Europe/Madrid"),
            ("TZ=Asia/Tokyo", Some("IST-2"), madrid, "Asia/Tokyo"),
        ] {
            assert_eq!(
                zone(env_file, environment, machine),
                expected,
                "{env_file} {environment:?} {machine:?}"
            );
        }
        assert_eq!(
            mistakes("TZ=Madrid"),
            ["TZ in .env must be a time zone by its name, not \"Madrid\"; did you mean Europe/Madrid"]
        );
    }

    #[test]
    fn the_login_is_never_sent_unencrypted() {
        for (url, mistakes_made) in [
            ("https://mirror.example/v1", 0),
            ("https://mirror.example/v1?key=1", 1),
            ("https://mirror.example/v1#x", 1),
            ("https://somebody@mirror.example/v1", 1),
            ("https://mirror.example /v1", 1),
            ("\"https://mirror.example /v1\"", 1),
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
    fn a_region_has_its_own_api_and_login_server_unless_others_are_named() {
        for (env_file, expected) in [
            ("KIMI_REGION=com", ("https://api.kimi.com/coding/v1", "https://auth.kimi.com")),
            ("KIMI_REGION=AI", ("https://api.kimi.ai/coding/v1", "https://auth.kimi.ai")),
            ("KIMI_REGION=kimi.ai", ("https://api.kimi.ai/coding/v1", "https://auth.kimi.ai")),
            ("REGION=ai", ("https://api.kimi.com/coding/v1", "https://auth.kimi.com")),
            (
                "KIMI_REGION=ai\nKIMI_CODE_BASE_URL=https://mirror.example/v1",
                ("https://mirror.example/v1", "https://auth.kimi.ai"),
            ),
            ("KIMI_REGION=ai\nMOONSHOT_API_KEY=k", ("https://api.moonshot.ai/v1", "https://auth.kimi.ai")),
        ] {
            let (config, _) = Config::resolve_settings(env_file, [], None);
            assert_eq!((config.api_base.as_str(), config.oauth_host.as_str()), expected, "{env_file}");
        }
        assert_eq!(mistakes("KIMI_REGION=cn"), ["KIMI_REGION in .env must be com or ai, not \"cn\""]);
        assert_eq!(
            mistakes("REGION=ai"),
            ["There is no setting REGION (line 1 of .env); here it is KIMI_REGION"]
        );
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

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(text in any::<String>(), value in any::<String>()) {
            let environment = SETTINGS.map(|name| (name.to_owned(), value.clone()));
            Config::resolve_settings(&text, environment, Some(&value));
            for name in SETTINGS {
                Config::resolve_settings(&format!("{name}={value}"), [], None);
            }
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
