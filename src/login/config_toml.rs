//! The engine's `config.toml` (kimi-cli 1.51.0, `config.py`): the one that nanokimi starts with, and what
//! must be true of an owner's own. Containers read this file, so it holds no secret. Every request goes
//! through the egress proxy, so it names only Kimi.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::private_file;
use crate::types::OfferedModels;

/// A good `config.toml` for a Kimi login.
pub const DEFAULT_CONFIG: &str = r#"# Settings of the Kimi agent in every container, which reads this file: put no keys here.
# An API key belongs into .env as MOONSHOT_API_KEY; a login stays in kimi-code.json beside this file.

# The model of all chats: one of [models] below.
default_model = "kimi-for-coding"

# The agent may use its tools without asking: its container is the fence around it.
default_yolo = true

# Send no usage statistics.
telemetry = false

[models."kimi-for-coding"]
provider = "managed:kimi-code"
model = "kimi-for-coding"
# In tokens.
max_context_size = 262144
capabilities = ["thinking", "image_in"]

[providers."managed:kimi-code"]
# The only type that can be reached from a container.
type = "kimi"
base_url = "https://api.kimi.com/coding/v1"
# Stays empty: nanokimi adds the login outside of the container.
api_key = ""

# The container's own stand-in for the login.
[providers."managed:kimi-code".oauth]
storage = "file"
key = "oauth/kimi-code"
"#;

/// Names of keys whose values are secrets, with `-` for `_` and in any case, and with anything before them.
const SECRET_NAMES: [&str; 8] = [
    "api_key",
    "authorization",
    "access_token",
    "refresh_token",
    "auth_token",
    "cookie",
    "password",
    "secret",
];

/// Models that take pictures, as kimi-cli knows, whatever `capabilities` says (1.51.0, `llm.py`).
const SEEING_MODELS: [&str; 2] = ["kimi-for-coding", "kimi-code"];

/// What kimi-cli does not start without, and what its model can do.
#[derive(Deserialize)]
struct EngineConfig {
    default_model: Option<String>,
    #[serde(default)]
    models: BTreeMap<String, Model>,
    #[serde(default)]
    providers: BTreeMap<String, Provider>,
}

#[derive(Deserialize)]
struct Model {
    provider: String,
    model: String,
    #[serde(rename = "max_context_size")]
    _max_context_size: u64,
    #[serde(default)]
    capabilities: Vec<String>,
}

#[derive(Deserialize)]
struct Provider {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "base_url")]
    _base_url: String,
    #[serde(rename = "api_key")]
    _api_key: String,
}

/// Checks the `config.toml` at `path`. If there is no file, writes [`DEFAULT_CONFIG`]. A file that is there
/// is never changed.
///
/// # Errors
/// As [`check_config_text`], or the file cannot be read or written.
pub fn ensure_engine_config(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(true) => check_config_file(path),
        Ok(false) => private_file::write_private_file(path, DEFAULT_CONFIG),
        Err(error) => Err(error).with_context(|| format!("Failed to look for {}", path.display())),
    }
}

/// Checks the `config.toml` at `path`.
///
/// # Errors
/// As [`check_config_text`], or the file cannot be read.
pub fn check_config_file(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("Failed to read {}", path.display()))?;
    check_config_text(&text).with_context(|| format!("Failed to understand {}", path.display()))
}

/// Whether the model of all chats takes pictures, as kimi-cli reads its `config.toml` at `path`; `model` is
/// the name that replaces the model's own. A file that cannot be read promises nothing.
pub fn can_take_images(path: &Path, model: Option<&str>) -> bool {
    fs::read_to_string(path).is_ok_and(|text| config_can_take_images(&text, model))
}

fn config_can_take_images(text: &str, model: Option<&str>) -> bool {
    let Ok(EngineConfig { default_model: Some(alias), models, .. }) = toml::from_str(text) else {
        return false;
    };
    let Some(chosen) = models.get(&alias) else { return false };
    chosen.capabilities.iter().any(|capability| capability == "image_in")
        || SEEING_MODELS.contains(&model.unwrap_or(&chosen.model))
}

/// The models that the `config.toml` at `path` offers, by the names that Kimi knows; `model` is the name that
/// replaces theirs. Empty if the file cannot be read.
pub fn list_offered_models(path: &Path, model: Option<&str>) -> Vec<String> {
    let config = fs::read_to_string(path).ok().and_then(|text| toml::from_str::<EngineConfig>(&text).ok());
    let offered =
        config.into_iter().flat_map(|config| config.models.into_values().map(|chosen| chosen.model));
    offered.chain(model.map(str::to_owned)).collect()
}

/// The same for the people who choose: each model once, and which of them is the usual one.
pub fn read_offered_models(path: &Path, model: Option<&str>) -> OfferedModels {
    let mut names = list_offered_models(path, model);
    names.sort_unstable();
    names.dedup();
    let config = fs::read_to_string(path).ok().and_then(|text| toml::from_str::<EngineConfig>(&text).ok());
    let by_default = config.and_then(|EngineConfig { default_model, mut models, .. }| {
        models.remove(&default_model?).map(|chosen| chosen.model)
    });
    OfferedModels { usual: model.map(str::to_owned).or(by_default), names }
}

/// Checks the text of a `config.toml`.
///
/// # Errors
/// Says the first thing that would keep the engine from working or give a secret away, and what to do.
pub fn check_config_text(text: &str) -> Result<()> {
    let table: Table = toml::from_str(text).map_err(|error| error_with_line(text, &error))?;
    if let Some(place) = find_secret(&table, "") {
        bail!(
            "{place} holds a secret, and every container reads this file; remove it, and put an API key into .env \
             as MOONSHOT_API_KEY"
        );
    }
    let config: EngineConfig = toml::from_str(text).map_err(|error| error_with_line(text, &error))?;
    for (name, provider) in &config.providers {
        if provider.kind != "kimi" {
            bail!(
                "The provider {name:?} has the type {:?}, which containers cannot reach; use type = \"kimi\", or \
                 remove it",
                provider.kind
            );
        }
    }
    for (name, model) in &config.models {
        if !config.providers.contains_key(&model.provider) {
            bail!(
                "The model {name:?} has the provider {:?}, which is not in [providers]; {}",
                model.provider,
                render_name_choices("there is", config.providers.keys())
            );
        }
    }
    match config.default_model {
        Some(model) if config.models.contains_key(&model) => Ok(()),
        Some(model) if !model.is_empty() => {
            bail!(
                "default_model is {model:?}, which is not in [models]; {}",
                render_name_choices("there is", config.models.keys())
            )
        }
        Some(_) | None => {
            bail!("default_model is missing; {}", render_name_choices("choose one of", config.models.keys()))
        }
    }
}

fn render_name_choices<'n>(beginning: &str, names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "there is none".to_owned() } else { format!("{beginning} {}", names.join(", ")) }
}

/// The path of the first value that is a secret.
fn find_secret(table: &Table, above: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| find_secret_in_value(name, value, &format!("{above}{name}")))
}

fn find_secret_in_value(name: &str, value: &Value, place: &str) -> Option<String> {
    match value {
        Value::String(text) => {
            let name = name.to_lowercase().replace('-', "_");
            let is_secret =
                !text.trim().is_empty() && SECRET_NAMES.iter().any(|secret| name.ends_with(secret));
            is_secret.then(|| place.to_owned())
        }
        Value::Table(table) => find_secret(table, &format!("{place}.")),
        Value::Array(values) => values.iter().find_map(|value| find_secret_in_value(name, value, place)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => None,
    }
}

/// The error without the line itself, which may hold a key.
fn error_with_line(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    anyhow!("Line {line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The default with one piece of its text replaced.
    fn changed(from: &str, to: &str) -> String {
        assert!(DEFAULT_CONFIG.contains(from), "{from}");
        DEFAULT_CONFIG.replace(from, to)
    }

    fn error(text: &str) -> String {
        check_config_text(text).unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_good() {
        check_config_text(DEFAULT_CONFIG).unwrap();
        check_config_text(&changed("telemetry = false", "[services]")).unwrap();
    }

    #[test]
    fn what_would_not_work_is_said_with_what_to_do() {
        insta::assert_snapshot!(error(""), @"default_model is missing; there is none");
        insta::assert_snapshot!(error(&changed("default_model = \"kimi-for-coding\"", "")), @r#"default_model is missing; choose one of "kimi-for-coding""#);
        insta::assert_snapshot!(error(&changed("default_model = \"kimi-for-coding\"", "default_model = \"k3\"")), @r#"default_model is "k3", which is not in [models]; there is "kimi-for-coding""#);
        insta::assert_snapshot!(error(&changed("provider = \"managed:kimi-code\"", "provider = \"kimi\"")), @r#"The model "kimi-for-coding" has the provider "kimi", which is not in [providers]; there is "managed:kimi-code""#);
        insta::assert_snapshot!(error(&changed("type = \"kimi\"", "type = \"anthropic\"")), @r#"The provider "managed:kimi-code" has the type "anthropic", which containers cannot reach; use type = "kimi", or remove it"#);
        insta::assert_snapshot!(error(&changed("telemetry = false", "telemetry = ")), @"Line 11: string values must be quoted, expected literal string");
        insta::assert_snapshot!(error(&changed("max_context_size = 262144", "max_context_size = \"big\"")), @r#"Line 17: invalid type: string "big", expected u64"#);
        insta::assert_snapshot!(error(&changed("api_key = \"\"", "")), @"Line 20: missing field `api_key`");
    }

    #[test]
    fn whether_the_model_sees_is_read_as_the_engine_reads_it() {
        let other = changed("\nmodel = \"kimi-for-coding\"", "\nmodel = \"kimi-latest\"");
        let blind = other.replace(", \"image_in\"", "");
        for (text, model, expected) in [
            (DEFAULT_CONFIG, None, true),
            (&other, None, true),
            (&blind, None, false),
            (&blind, Some("kimi-code"), true),
            (&changed(", \"image_in\"", ""), None, true),
            (&changed(", \"image_in\"", ""), Some("kimi-latest"), false),
            ("", None, false),
            ("[", None, false),
        ] {
            assert_eq!(config_can_take_images(text, model), expected, "{model:?} in {text}");
        }
    }

    #[test]
    fn secrets_are_refused_wherever_they_stand() {
        for (from, to, place) in [
            ("api_key = \"\"", "api_key = \"sk-canary\"", "providers.managed:kimi-code.api_key"),
            (
                "api_key = \"\"",
                "api_key = \"\"\ncustom_headers = { authorization = \"Bearer canary\" }",
                "providers.managed:kimi-code.custom_headers.authorization",
            ),
            (
                "api_key = \"\"",
                "api_key = \"\"\nenv = { KIMI_API_KEY = \"canary\" }",
                "providers.managed:kimi-code.env.KIMI_API_KEY",
            ),
            (
                "telemetry = false",
                "[services.moonshot_search]\ncustom_headers = { X-Api-Key = \"canary\" }",
                "services.moonshot_search.custom_headers.X-Api-Key",
            ),
            ("telemetry = false", "[[hooks]]\napi_key = [[\"canary\"]]", "hooks.api_key"),
        ] {
            let said = error(&changed(from, to));
            assert!(said.starts_with(&format!("{place} holds a secret, ")), "{said}");
            assert!(said.ends_with(".env as MOONSHOT_API_KEY") && !said.contains("canary"), "{said}");
        }
        let unquoted = error(&changed("api_key = \"\"", "api_key = sk-canary"));
        assert!(unquoted.starts_with("Line ") && !unquoted.contains("canary"), "{unquoted}");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,60}", cut in 0usize..DEFAULT_CONFIG.len()) {
            check_config_text(&text).ok();
            check_config_text(&format!("{}{text}", &DEFAULT_CONFIG[..cut])).ok();
        }
    }
}
