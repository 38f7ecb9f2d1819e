//! `nanokimi groups set`: what an owner chooses for one group's agent.

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::super::install::Install;
use super::super::ui;
use super::{lent_folders, people};
use crate::store::Store;
use crate::types::{
    Engine, ForwardPolicy, Group, GroupName, HostName, OthersPolicy, RefusalPolicy, Role, SenderPolicy,
    WebPolicy,
};
use crate::writing::parse_trigger_word;

/// The word that takes a choice back.
const DEFAULT: &str = "default";
const TO_BUILD: &str = "Now run `nanokimi build`, which makes the image of an engine that is new here.";
/// The word of `--daily-tokens` for no limit.
const NO_LIMIT: &str = "none";

#[derive(Args, Clone)]
pub struct Choices {
    /// The word after "@" that wakes the assistant there; "default" is the assistant's name
    #[arg(long, value_name = "WORD")]
    trigger: Option<String>,
    /// The agent program: kimi-code, or kimi-cli, which has ended; "default" is ENGINE of .env
    #[arg(long, value_name = "ENGINE", value_parser = ui::parse_typed_text)]
    engine: Option<String>,
    /// What of the web its agent reaches: nothing, the hosts of --hosts, or every public address
    #[arg(long)]
    web: Option<WebChoice>,
    /// The hosts of `--web allowlist`, with those beneath them; they replace the ones before
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = ui::parse_typed_text)]
    hosts: Vec<String>,
    /// Most tokens that it may use in a day; "none" is no limit
    #[arg(long, value_name = "NUMBER", value_parser = ui::parse_typed_text)]
    daily_tokens: Option<String>,
    /// Most calls of one person, you left out, that it answers in an hour; "none" is no limit
    #[arg(long, value_name = "NUMBER", value_parser = ui::parse_typed_text)]
    turns_per_hour: Option<String>,
    /// Most tokens that one turn may use: it ends there, and says so; "none" is no limit
    #[arg(long, value_name = "NUMBER", value_parser = ui::parse_typed_text)]
    turn_tokens: Option<String>,
    /// A folder of this machine that its agent may read, or with ":rw" change; the allowlist must have it
    #[arg(long, value_name = "PATH[:rw]", value_parser = ui::parse_typed_text)]
    folder: Vec<String>,
    /// A folder that its agent sees no more
    #[arg(long, value_name = "PATH", value_parser = ui::parse_typed_text)]
    no_folder: Vec<String>,
    /// What a forwarded message does that names the assistant: it is told with the next message, or calls it
    #[arg(long)]
    forwards: Option<ForwardsChoice>,
    /// Who may ask there, beside you: anyone, the people of --allow, or nobody
    #[arg(long)]
    senders: Option<SendersChoice>,
    /// People who may ask there with `--senders listed`: a phone number, or what `groups people` shows
    #[arg(long, value_name = "PERSON", num_args = 1.., value_parser = ui::parse_typed_text)]
    allow: Vec<String>,
    /// People who may not any more
    #[arg(long, value_name = "PERSON", num_args = 1.., value_parser = ui::parse_typed_text)]
    disallow: Vec<String>,
    /// What becomes of the messages of those who may not ask: told with the next message that calls, or dropped
    #[arg(long)]
    others: Option<OthersChoice>,
    /// What those hear who call and may not ask: nothing, or one sentence a day
    #[arg(long)]
    refuse: Option<RefuseChoice>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WebChoice {
    None,
    Allowlist,
    Web,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ForwardsChoice {
    Told,
    Call,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SendersChoice {
    Anyone,
    Listed,
    Owner,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OthersChoice {
    Context,
    Dropped,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RefuseChoice {
    Silent,
    Told,
}

pub async fn change_group(install: &Install, name: &GroupName, choices: Choices) -> Result<()> {
    let Some((store, group)) = install.find_group(name).await? else {
        bail!("There is no group {name}; `nanokimi groups list` shows those there are");
    };
    choices.ensure_any_chosen()?;
    let (allow, disallow) = (choices.allow.clone(), choices.disallow.clone());
    let (add, remove) = (choices.folder.clone(), choices.no_folder.clone());
    let mut changed = choices.apply_to_group(group.clone())?;
    let home = install.allowlist_place().map(|place| place.home);
    changed.folders = lent_folders::change_folders(changed.folders, &add, &remove, home.as_deref())?;
    if changed.folders != group.folders {
        let decisions = lent_folders::decide_folders(install, &store, &changed).await?;
        lent_folders::require_folders(&changed, &group.folders, &decisions)?;
    }
    let list = people::resolve_list_changes(&store, &group, &allow, &disallow).await?;
    if changed == group && list.is_empty() {
        ui::print_info(format!("{name} is like that already."));
        return Ok(());
    }
    store.change_allowed_senders(name, list.allow, list.disallow).await?;
    if changed != group {
        store.update_group(&changed).await?;
    }
    ui::print_info(format!("Changed {name}; it counts from the next message on."));
    warn_about_list(&store, &changed, !allow.is_empty(), changed.senders != group.senders).await?;
    if changed.engine != group.engine {
        ui::print_info(TO_BUILD);
    }
    Ok(())
}

/// A list that does not count, or that nobody is on.
async fn warn_about_list(store: &Store, group: &Group, has_allowed: bool, has_new_rule: bool) -> Result<()> {
    let name = &group.name;
    match group.senders.may_ask {
        SenderPolicy::Anyone | SenderPolicy::Owner if has_allowed => {
            let now = if group.senders.may_ask == SenderPolicy::Anyone { "anyone" } else { "only you" };
            ui::print_info(format!(
                "Now {now} may ask there; the list counts with `nanokimi groups set {name} --senders listed`."
            ));
        }
        SenderPolicy::Listed if has_new_rule => {
            let people = store.people_of_group(group).await?;
            if people::render_allow_options(&people).is_empty() {
                ui::print_info(format!(
                    "Nobody is on its list yet, so only you may ask there; `nanokimi groups set {name} --allow PERSON` \
                     adds people, `nanokimi groups people {name}` shows them."
                ));
            }
        }
        SenderPolicy::Anyone | SenderPolicy::Listed | SenderPolicy::Owner => {}
    }
    Ok(())
}

/// The same for every group, or for none.
pub async fn change_all_groups(install: &Install, choices: Choices) -> Result<()> {
    choices.ensure_any_chosen()?;
    ensure!(
        choices.trigger.is_none() && choices.forwards.is_none(),
        "--trigger and --forwards are of one group; name it"
    );
    ensure!(
        choices.folder.is_empty() && choices.no_folder.is_empty(),
        "--folder and --no-folder are of one group; name it"
    );
    ensure!(
        choices.allow.is_empty() && choices.disallow.is_empty(),
        "--allow and --disallow are of one group; name it"
    );
    let Some(store) = install.open_existing_store()? else {
        bail!("There are no groups yet; `nanokimi setup` makes one")
    };
    let groups = store.all_groups().await?;
    let mut changed = Vec::new();
    for group in &groups {
        let new = choices.clone().apply_to_group(group.clone())?;
        if new != *group {
            changed.push(new);
        }
    }
    for group in &changed {
        store.update_group(group).await?;
    }
    match changed.len() {
        0 => ui::print_info("All groups are like that already."),
        1 => ui::print_info(format!("Changed {}; it counts from the next message on.", changed[0].name)),
        number => ui::print_info(format!("Changed {number} groups; it counts from the next message on.")),
    }
    if choices.engine.is_some() && !changed.is_empty() {
        ui::print_info(TO_BUILD);
    }
    Ok(())
}

impl Choices {
    /// # Errors
    /// Nothing was chosen.
    fn ensure_any_chosen(&self) -> Result<()> {
        let Self {
            trigger,
            engine,
            web,
            hosts,
            daily_tokens,
            turns_per_hour,
            turn_tokens,
            folder,
            no_folder,
            forwards,
            senders,
            allow,
            disallow,
            others,
            refuse,
        } = self;
        let single = [trigger.is_some(), engine.is_some(), web.is_some(), daily_tokens.is_some()];
        let about_senders = [forwards.is_some(), senders.is_some(), others.is_some(), refuse.is_some()];
        let limits = [turns_per_hour.is_some(), turn_tokens.is_some()];
        let lists = [hosts, allow, disallow, folder, no_folder];
        ensure!(
            single.contains(&true)
                || about_senders.contains(&true)
                || limits.contains(&true)
                || lists.into_iter().any(|list| !list.is_empty()),
            "There is nothing to change: `nanokimi groups set --help` shows what can be chosen"
        );
        Ok(())
    }

    fn apply_to_group(self, mut group: Group) -> Result<Group> {
        if let Some(word) = self.trigger {
            ensure!(
                group.role == Role::Member,
                "The main channel needs no trigger: every message there is for the assistant"
            );
            group.trigger = if word == DEFAULT { None } else { Some(parse_trigger_word(&word)?) };
        }
        if let Some(name) = self.engine {
            group.engine = if name == DEFAULT { None } else { Some(Engine::parse(&name)?.into()) };
        }
        group.web = resolve_web_policy(self.web, &self.hosts, group.web)?;
        if let Some(number) = self.daily_tokens {
            group.daily_tokens = parse_token_number("--daily-tokens", &number)?;
        }
        if let Some(number) = self.turns_per_hour {
            group.turns_per_hour = parse_turns_per_hour(&number)?;
        }
        if let Some(number) = self.turn_tokens {
            group.turn_tokens = parse_token_number("--turn-tokens", &number)?;
            ensure!(
                group.turn_tokens != Some(0),
                "--turn-tokens needs at least 1; `--daily-tokens 0` silences a group"
            );
        }
        if let Some(senders) = self.senders {
            group.senders.may_ask = match senders {
                SendersChoice::Anyone => SenderPolicy::Anyone,
                SendersChoice::Listed => SenderPolicy::Listed,
                SendersChoice::Owner => SenderPolicy::Owner,
            };
        }
        if let Some(others) = self.others {
            group.senders.others = match others {
                OthersChoice::Context => OthersPolicy::Context,
                OthersChoice::Dropped => OthersPolicy::Dropped,
            };
        }
        if let Some(refuse) = self.refuse {
            group.senders.refusals = match refuse {
                RefuseChoice::Silent => RefusalPolicy::Silent,
                RefuseChoice::Told => RefusalPolicy::Told,
            };
        }
        if let Some(forwards) = self.forwards {
            ensure!(
                group.role == Role::Member,
                "In the main channel every message is for the assistant, a forwarded one too"
            );
            group.forwards = match forwards {
                ForwardsChoice::Told => ForwardPolicy::Told,
                ForwardsChoice::Call => ForwardPolicy::Call,
            };
        }
        Ok(group)
    }
}

fn resolve_web_policy(web: Option<WebChoice>, hosts: &[String], before: WebPolicy) -> Result<WebPolicy> {
    let hosts = hosts.iter().map(|host| HostName::parse(host)).collect::<Result<Vec<_>>>()?;
    Ok(match (web, before) {
        (None, before) if hosts.is_empty() => before,
        (None, WebPolicy::Allowlist(_)) => WebPolicy::Allowlist(hosts),
        (Some(WebChoice::Allowlist), WebPolicy::Allowlist(before)) if hosts.is_empty() => {
            WebPolicy::Allowlist(before)
        }
        (Some(WebChoice::Allowlist), _) if !hosts.is_empty() => WebPolicy::Allowlist(hosts),
        (Some(WebChoice::Allowlist), _) => {
            bail!("--web allowlist needs its hosts, such as --hosts example.org,example.net")
        }
        (Some(WebChoice::None), _) if hosts.is_empty() => WebPolicy::None,
        (Some(WebChoice::Web), _) if hosts.is_empty() => WebPolicy::Web,
        (Some(_) | None, _) => bail!("--hosts goes with --web allowlist"),
    })
}

fn parse_token_number(option: &str, number: &str) -> Result<Option<u64>> {
    if number == NO_LIMIT {
        return Ok(None);
    }
    match number.replace(['_', ',', ' '], "").parse::<u64>() {
        // SQLite's numbers end there.
        Ok(tokens) if i64::try_from(tokens).is_ok() => Ok(Some(tokens)),
        Ok(_) | Err(_) => bail!("{option} needs a number, such as 200000, or \"none\", not {number:?}"),
    }
}

/// Nobody types more in an hour.
const TURNS_PER_HOUR_MAX: u32 = 1_000;

fn parse_turns_per_hour(number: &str) -> Result<Option<u32>> {
    if number == NO_LIMIT {
        return Ok(None);
    }
    match number.parse::<u32>() {
        Ok(turns) if (1..=TURNS_PER_HOUR_MAX).contains(&turns) => Ok(Some(turns)),
        Ok(_) | Err(_) => {
            bail!(
                "--turns-per-hour needs a number from 1 to {TURNS_PER_HOUR_MAX}, or \"none\", not {number:?}"
            )
        }
    }
}

/// What a policy is called.
pub fn render_web_policy(policy: &WebPolicy) -> &'static str {
    match policy {
        WebPolicy::None => "none",
        WebPolicy::Allowlist(_) => "allowlist",
        WebPolicy::Web => "web",
    }
}

/// The limits of a group beside that of the day, if it has any.
pub fn describe_limits(group: &Group) -> Option<String> {
    let calls = group.turns_per_hour.map(|turns| format!("answers {turns} calls of one person in an hour"));
    let tokens = group.turn_tokens.map(|tokens| format!("uses {tokens} tokens in a turn"));
    let limits: Vec<String> = calls.into_iter().chain(tokens).collect();
    (!limits.is_empty()).then(|| format!("{} {} at most.", group.name, limits.join(", and ")))
}

/// The options of `groups set` that make a new group like this one, each with a space before it; its trigger
/// is `add`'s.
pub fn render_set_options(group: &Group) -> String {
    let mut options = String::new();
    if let Some(engine) = &group.engine {
        options.push_str(&format!(" --engine {}", engine.name()));
    }
    match &group.web {
        WebPolicy::Web => {}
        WebPolicy::None => options.push_str(" --web none"),
        WebPolicy::Allowlist(hosts) => {
            let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            options.push_str(&format!(" --web allowlist --hosts {}", hosts.join(",")));
        }
    }
    if let Some(tokens) = group.daily_tokens {
        options.push_str(&format!(" --daily-tokens {tokens}"));
    }
    if let Some(turns) = group.turns_per_hour {
        options.push_str(&format!(" --turns-per-hour {turns}"));
    }
    if let Some(tokens) = group.turn_tokens {
        options.push_str(&format!(" --turn-tokens {tokens}"));
    }
    match group.forwards {
        ForwardPolicy::Told => {}
        ForwardPolicy::Call => options.push_str(" --forwards call"),
    }
    options.push_str(&people::render_sender_options(group.senders));
    options.push_str(&lent_folders::render_folder_options(&group.folders));
    options
}
