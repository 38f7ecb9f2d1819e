//! `nanokimi gateway keys`: the keys of the gateway's clients. A key is shown once, when it is made.

use anyhow::{Result, bail, ensure};
use clap::Subcommand as ClapSubcommand;

use super::super::install::Install;
use super::super::ui;
use crate::checks;
use crate::clock::Day;
use crate::gateway::generate_client_key;
use crate::store::{KeyUsage, KnownKey};
use crate::types::{ClientIdentity, GatewayKey, KeyName};
use crate::writing::normalize_typed_text;

/// Longest name of a model, in bytes, and most models of one key.
const MODEL_NAME_MAX: usize = 100;
const MODELS_MAX: usize = 50;

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Make a key for a client, and show it once
    Add {
        /// What the client is called here: letters, digits, "-" and "_"
        #[arg(value_name = "NAME", value_parser = ui::parse_typed_text)]
        name: String,
        /// Most tokens that it may use in a day [default: no limit]
        #[arg(long, value_name = "N", value_parser = parse_daily_tokens)]
        daily_tokens: Option<u64>,
        /// The models that it may ask for, with commas between them [default: all]
        #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = parse_model_name)]
        models: Vec<String>,
        /// own: it reaches Kimi as itself; kimi-cli: with the headers of Kimi's own program
        #[arg(long, value_name = "WHICH", default_value = "own", value_parser = ClientIdentity::parse)]
        identity: ClientIdentity,
    },
    /// Show the keys, without the keys themselves, and what each used today
    List,
    /// Take a key away; it is refused at its next request
    Remove {
        /// The key's name, as `list` shows it
        #[arg(value_name = "NAME", value_parser = ui::parse_typed_text)]
        name: String,
    },
}

fn parse_daily_tokens(text: &str) -> Result<u64> {
    let tokens = normalize_typed_text(text).replace('_', "").parse()?;
    // What the database keeps is signed.
    ensure!(
        (1..=u64::MAX / 2).contains(&tokens),
        "a key needs at least 1; `nanokimi gateway keys remove` stops a client"
    );
    Ok(tokens)
}

fn parse_model_name(text: &str) -> Result<String> {
    let name = normalize_typed_text(text);
    let fits = (1..=MODEL_NAME_MAX).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic());
    ensure!(fits, "{name:?} is no name of a model");
    Ok(name)
}

pub async fn run_keys_command(install: &Install, verb: Verb) -> Result<()> {
    match verb {
        Verb::Add { name, daily_tokens, models, identity } => {
            ensure!(models.len() <= MODELS_MAX, "A key has at most {MODELS_MAX} models");
            let key = GatewayKey { name: KeyName::parse(&name)?, daily_tokens, models, identity };
            add_key(install, &key).await
        }
        Verb::List => print_keys(install).await,
        Verb::Remove { name } => remove_key(install, &KeyName::parse(&name)?).await,
    }
}

async fn add_key(install: &Install, key: &GatewayKey) -> Result<()> {
    let store = install.open_store()?;
    let (secret, hash) = generate_client_key();
    if !store.add_gateway_key(key, hash, install.clock.now()).await? {
        bail!(
            "There is a key {} already; remove it first with `nanokimi gateway keys remove {}`",
            key.name,
            key.name
        );
    }
    match key.identity {
        ClientIdentity::Own => {}
        ClientIdentity::KimiCli => ui::print_info(
            "With this key a client shows itself to Kimi as kimi-cli, whatever it is. Kimi's community guidelines forbid \
             that (\"Don't spoof or alter client identity information\"), and Kimi has suspended accounts for it.",
        ),
    }
    ui::print_info(format!(
        "The key of {}, which is shown only now. Clients find it in KIMI_GATEWAY_KEY, or in their own settings; `nanokimi \
         gateway config` says where. `nanokimi gateway keys remove {}` undoes this.",
        key.name, key.name
    ));
    ui::print_result(secret.expose_secret())?;
    if install.config.gateway.is_none() {
        ui::print_info("The gateway is off; `nanokimi gateway enable` turns it on.");
    }
    Ok(())
}

async fn print_keys(install: &Install) -> Result<()> {
    let Some(store) = install.open_store_to_read()? else {
        ui::print_info("There are no keys yet; `nanokimi gateway keys add NAME` makes one.");
        return Ok(());
    };
    let keys = store.gateway_keys().await?;
    if keys.is_empty() {
        ui::print_info("There are no keys yet; `nanokimi gateway keys add NAME` makes one.");
        return Ok(());
    }
    let today = Day::from_time(install.clock.now(), &install.config.zone).date;
    let header = ["NAME", "TOKENS TODAY", "LIMIT A DAY", "MODELS", "IDENTITY", "SINCE"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for KnownKey { key, added_at } in keys {
        let KeyUsage { tokens, .. } = store.gateway_usage(&key.name, today, today).await?;
        rows.push(vec![
            key.name.to_string(),
            tokens.counted_tokens().to_string(),
            key.daily_tokens.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
            if key.models.is_empty() { "all".to_owned() } else { key.models.join(",") },
            key.identity.name().to_owned(),
            checks::render_time(added_at, &install.config.zone),
        ]);
    }
    ui::align_right(&mut rows, 1..3);
    ui::print_table(&rows)
}

async fn remove_key(install: &Install, name: &KeyName) -> Result<()> {
    let removed = match install.open_existing_store()? {
        Some(store) => store.remove_gateway_key(name).await?,
        None => false,
    };
    if !removed {
        bail!("There is no key {name}; `nanokimi gateway keys list` shows those there are");
    }
    ui::print_info(format!("The key {name} is refused from now on."));
    Ok(())
}
