//! `nanokimi groups people`: who has written in a group, and who may ask there. And how the owner names one of
//! them on the command line.

use anyhow::{Result, bail};

use super::super::auth::phone;
use super::super::install::Install;
use super::super::ui;
use super::quote_for_shell;
use crate::router::{AskPermission, RefusalReason, SenderListing, SenderStanding};
use crate::store::{KnownSender, Store};
use crate::types::{Group, GroupName, OthersPolicy, RefusalPolicy, SenderId, SenderPolicy, SenderRule};

pub async fn print_people(install: &Install, name: &GroupName) -> Result<()> {
    let found = match install.open_store_to_read()? {
        Some(store) => store.group_by_name(name).await?.map(|group| (store, group)),
        None => None,
    };
    let Some((store, group)) = found else {
        bail!("There is no group {name}; `nanokimi groups list` shows those there are");
    };
    let people = store.people_of_group(&group).await?;
    if people.is_empty() {
        ui::print_info(format!("Nobody has written in {name} yet."));
        return Ok(());
    }
    let mut rows = vec![["ID", "NAME", "NUMBER", "SINCE", "MAY ASK"].map(str::to_owned).to_vec()];
    for person in &people {
        let since = person
            .wrote_since
            .map(|since| since.to_zoned(install.config.zone.clone()).strftime("%Y-%m-%d").to_string());
        rows.push(vec![
            person.id.clone(),
            name_or_dash(person),
            person
                .number
                .as_ref()
                .map_or_else(|| "-".to_owned(), |id| phone::phone_number_from_id(id.as_str())),
            since.unwrap_or_else(|| "-".to_owned()),
            describe_permission(person).to_owned(),
        ]);
    }
    ui::print_table(&rows)
}

fn name_or_dash(person: &KnownSender) -> String {
    Some(ui::sanitize_name(&person.name)).filter(|name| !name.is_empty()).unwrap_or_else(|| "-".to_owned())
}

fn describe_permission(person: &KnownSender) -> &'static str {
    match (person.permission, person.standing, person.listing) {
        (AskPermission::Granted, SenderStanding::Owner, _) => "yes, the owner",
        (AskPermission::Granted, SenderStanding::Other, _) => "yes",
        (AskPermission::Refused(RefusalReason::NotAllowed), _, SenderListing::Listed) => "no, though allowed",
        (AskPermission::Refused(RefusalReason::NotAllowed), _, SenderListing::NotListed) => "no",
        (AskPermission::Refused(RefusalReason::TooManyCalls), _, _) => "not this hour",
    }
}

/// What `groups list` adds to what a group listens to.
pub fn describe_sender_policy(policy: SenderPolicy) -> &'static str {
    match policy {
        SenderPolicy::Anyone => "",
        SenderPolicy::Listed => ", of listed people",
        SenderPolicy::Owner => ", of the owner",
    }
}

/// The people to be put on a group's list, and to be taken off it.
#[derive(Debug, Default)]
pub struct ListChanges {
    pub allow: Vec<SenderId>,
    pub disallow: Vec<SenderId>,
}

impl ListChanges {
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.disallow.is_empty()
    }
}

/// Whom `--allow` and `--disallow` name. Says who that is, since names can be anybody's.
pub async fn resolve_list_changes(
    store: &Store,
    group: &Group,
    allow: &[String],
    disallow: &[String],
) -> Result<ListChanges> {
    if allow.is_empty() && disallow.is_empty() {
        return Ok(ListChanges::default());
    }
    let people = store.people_of_group(group).await?;
    let resolve = |typed: &[String], says: &str| -> Result<Vec<SenderId>> {
        typed
            .iter()
            .map(|typed| {
                let named = resolve_person(typed, &people, &group.name)?;
                ui::print_info(format!("{says} {}.", named.described));
                Ok(named.sender)
            })
            .collect()
    };
    let disallow = resolve(disallow, "Not allowed any more:")?;
    Ok(ListChanges { allow: resolve(allow, "Allowed:")?, disallow })
}

/// A person as they were named, and as they are known.
#[derive(Debug, PartialEq, Eq)]
struct NamedPerson {
    sender: SenderId,
    described: String,
}

impl NamedPerson {
    fn from_known(person: &KnownSender) -> Self {
        let number =
            person.number.as_ref().map(|id| format!(", {}", phone::phone_number_from_id(id.as_str())));
        let described = format!("{} ({}{})", name_or_dash(person), person.id, number.unwrap_or_default());
        Self { sender: person.sender.clone(), described }
    }
}

/// A phone number with its country's code names anybody; an id or a name, those who are shown.
fn resolve_person(typed: &str, people: &[KnownSender], group: &GroupName) -> Result<NamedPerson> {
    if typed.starts_with(['+', '\u{ff0b}']) {
        let number = format!("{}@s.whatsapp.net", phone::parse_phone_number(typed)?);
        let known =
            people.iter().find(|person| person.number.as_ref().is_some_and(|known| known.as_str() == number));
        return Ok(known.map_or_else(
            || NamedPerson {
                described: format!("{}, who has not written there yet", phone::phone_number_from_id(&number)),
                sender: SenderId::new(&number),
            },
            NamedPerson::from_known,
        ));
    }
    let by_id = people.iter().find(|person| person.id.eq_ignore_ascii_case(typed));
    let is_named = |person: &&KnownSender| {
        !person.name.is_empty() && ui::sanitize_name(&person.name).to_lowercase() == typed.to_lowercase()
    };
    let mut by_name = people.iter().filter(is_named);
    match (by_id, by_name.next(), by_name.next()) {
        (Some(person), _, _) | (None, Some(person), None) => Ok(NamedPerson::from_known(person)),
        (None, Some(_), Some(_)) => bail!(
            "More than one person in {group} is called {typed:?}; name them by the id that `nanokimi groups people \
             {group}` shows, or by phone number"
        ),
        (None, None, _) => bail!(
            "{typed:?} is nobody who has written in {group}; `nanokimi groups people {group}` shows who has, and a phone \
             number such as +34600111222 names anybody"
        ),
    }
}

/// The options of `groups set` that choose this rule, each with a space before it.
pub fn render_sender_options(rule: SenderRule) -> String {
    let mut options = String::new();
    match rule.may_ask {
        SenderPolicy::Anyone => {}
        SenderPolicy::Listed | SenderPolicy::Owner => {
            options.push_str(&format!(" --senders {}", rule.may_ask.name()));
        }
    }
    match rule.others {
        OthersPolicy::Context => {}
        OthersPolicy::Dropped => options.push_str(" --others dropped"),
    }
    match rule.refusals {
        RefusalPolicy::Silent => {}
        RefusalPolicy::Told => options.push_str(" --refuse told"),
    }
    options
}

/// The options of `groups set` that allow these people again.
pub fn render_allow_options(people: &[KnownSender]) -> String {
    let listed = people.iter().filter(|person| person.listing == SenderListing::Listed);
    listed
        .map(|person| {
            let number = person.number.as_ref().map(|id| phone::phone_number_from_id(id.as_str()));
            format!(" --allow {}", quote_for_shell(&number.unwrap_or_else(|| person.id.clone())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(id: &str, name: &str, number: Option<&str>) -> KnownSender {
        KnownSender {
            id: id.to_owned(),
            sender: SenderId::new(format!("{id}@lid")),
            name: name.to_owned(),
            number: number.map(|digits| SenderId::new(format!("{digits}@s.whatsapp.net"))),
            wrote_since: None,
            standing: SenderStanding::Other,
            listing: SenderListing::NotListed,
            permission: AskPermission::Granted,
        }
    }

    #[test]
    fn a_person_is_named_by_number_id_or_an_unmistakable_name() {
        let people = [
            person("p1", "Ana", Some("34600111222")),
            person("p2", "Bob", None),
            person("p3", "bob", None),
            person("p4", "p2", None),
            person("p5", "", None),
        ];
        let family = GroupName::parse("family").unwrap();
        let named = |typed: &str| match resolve_person(typed, &people, &family) {
            Ok(named) => format!("{} {}", named.sender, named.described),
            Err(error) => format!("{error}"),
        };
        let said =
            ["+34 600-111 222", "+34 600 999 999", "ana", "P2", "Bob", "Zoe", "600 111 222", ""].map(named);
        insta::assert_snapshot!(said.join("\n"), @r#"
        p1@lid Ana (p1, +34600111222)
        34600999999@s.whatsapp.net +34600999999, who has not written there yet
        p1@lid Ana (p1, +34600111222)
        p2@lid Bob (p2)
        More than one person in family is called "Bob"; name them by the id that `nanokimi groups people family` shows, or by phone number
        "Zoe" is nobody who has written in family; `nanokimi groups people family` shows who has, and a phone number such as +34600111222 names anybody
        "600 111 222" is nobody who has written in family; `nanokimi groups people family` shows who has, and a phone number such as +34600111222 names anybody
        "" is nobody who has written in family; `nanokimi groups people family` shows who has, and a phone number such as +34600111222 names anybody
        "#);
    }
}
