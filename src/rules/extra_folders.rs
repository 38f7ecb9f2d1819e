//! Which folders of the host a group's container may see beside its own: what the owner asked for, held
//! against an allowlist that no agent can reach. Pure: every path here is absolute and resolved, so that no
//! link stands in it; paths are compared by component.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};

use crate::types::{ExtraFolder, MountAccess, Role};

/// The folder in the container that holds the extra folders.
pub const EXTRA_IN_CONTAINER: &str = "/workspace/extra";

/// Names under which people keep what opens other things. A path with such a name in it is refused.
const SECRET_NAMES: [&str; 17] = [
    ".ssh",
    ".gnupg",
    ".gpg",
    ".aws",
    ".azure",
    ".gcloud",
    ".kube",
    ".docker",
    "credentials",
    ".env",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "id_rsa",
    "id_ed25519",
    "private_key",
    ".secret",
];

/// Files of many projects that are called like secrets and hold none.
const HARMLESS_FILES: [&str; 4] = [".dockerignore", ".env.example", ".env.sample", ".env.template"];

/// Places of the kernel, and of the sockets of programs such as Docker.
const SYSTEM_PLACES: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/var/run"];

/// A path on the allowlist, with all beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedRoot {
    pub path: PathBuf,
    pub most: MountAccess,
}

/// The allowlist file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderAllowlist {
    pub roots: Vec<AllowedRoot>,
    /// More names that are refused, beside those of secrets.
    pub blocked_patterns: Vec<String>,
    /// What only the main channel's agent may write.
    pub is_read_only_outside_main: bool,
}

impl FolderAllowlist {
    /// Reads the file. What is not understood allows nothing.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| anyhow!("It is no JSON: {error}"))?;
        let Value::Object(fields) = value else { bail!("It is no object with \"allowedRoots\"") };
        refuse_other_fields(&fields, &["allowedRoots", "blockedPatterns", "nonMainReadOnly"])?;
        let roots = fields.get("allowedRoots").context("\"allowedRoots\" is missing")?;
        let roots = roots.as_array().context("\"allowedRoots\" is no list")?;
        let is_read_only_outside_main = match fields.get("nonMainReadOnly") {
            None => true,
            Some(value) => value.as_bool().context("\"nonMainReadOnly\" is neither true nor false")?,
        };
        let blocked_patterns = match fields.get("blockedPatterns") {
            None => Vec::new(),
            Some(value) => {
                let names = value.as_array().context("\"blockedPatterns\" is no list")?;
                let names = names.iter().map(|name| {
                    let name = name.as_str().filter(|name| !name.is_empty());
                    name.map(str::to_owned).context("\"blockedPatterns\" holds something that is no name")
                });
                names.collect::<Result<_>>()?
            }
        };
        let roots = roots.iter().map(read_allowed_root).collect::<Result<_>>()?;
        Ok(Self { roots, blocked_patterns, is_read_only_outside_main })
    }
}

fn read_allowed_root(value: &Value) -> Result<AllowedRoot> {
    let Value::Object(fields) = value else { bail!("\"allowedRoots\" holds something without a \"path\"") };
    refuse_other_fields(fields, &["path", "allowReadWrite", "description"])?;
    let path = fields.get("path").and_then(Value::as_str).context("A root has no \"path\"")?;
    ensure!(path.starts_with('/') || path.starts_with("~/"), "The root {path:?} is no whole path");
    let most = match fields.get("allowReadWrite") {
        None | Some(Value::Bool(false)) => MountAccess::ReadOnly,
        Some(Value::Bool(true)) => MountAccess::ReadWrite,
        Some(_) => bail!("\"allowReadWrite\" of {path} is neither true nor false"),
    };
    Ok(AllowedRoot { path: PathBuf::from(path), most })
}

/// A field that is spelt wrong would else be one that is not there.
fn refuse_other_fields(fields: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => bail!("There is no field {field:?}; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// An extra folder as it is on disk now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedFolder {
    pub asked: ExtraFolder,
    /// Where it is, with all links followed.
    pub place: PathBuf,
    /// The names of what lies directly in it.
    pub entries: Vec<String>,
}

/// What no extra folder may show, and who asks.
#[derive(Clone, Copy, Debug)]
pub struct FolderRules<'a> {
    /// The roots of it are resolved. `None`: there is no allowlist, or it is not understood.
    pub allowlist: Option<&'a FolderAllowlist>,
    pub role: Role,
    /// The install, and the folder of the allowlist. Neither is shown, nor a folder above or in it.
    pub own_places: &'a [PathBuf],
    /// The folders of any group that its agent may write. In these an agent could put a link in a folder's
    /// place.
    pub writable_by_agents: &'a [PathBuf],
}

/// A folder that a container is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedFolder {
    pub place: PathBuf,
    /// The path in the container.
    pub container: String,
    pub access: MountAccess,
}

/// Why a folder is not mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderRefusal {
    NoAllowlist,
    NotOnAllowlist,
    /// The path has this name in it.
    SecretName(String),
    /// The folder holds something of this name.
    HoldsSecret(String),
    /// It would show what belongs to nanokimi.
    Own,
    System,
    /// It lies in a folder that an agent may write.
    InWritableFolder,
}

impl fmt::Display for FolderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAllowlist => f.write_str("there is no allowlist that can be read"),
            Self::NotOnAllowlist => f.write_str("it is beneath no root of the allowlist"),
            Self::SecretName(name) => write!(f, "{name:?} in its path may hold secrets"),
            Self::HoldsSecret(name) => write!(f, "{name:?} in it may hold secrets"),
            Self::Own => f.write_str("it would show what belongs to nanokimi"),
            Self::System => f.write_str("it belongs to the kernel or to running programs"),
            Self::InWritableFolder => f.write_str("it lies in another folder that an agent may write"),
        }
    }
}

/// Decides what becomes of one extra folder; the first reason against it counts.
///
/// # Errors
/// Why it is not mounted.
pub fn decide_extra_folder(
    folder: &ResolvedFolder,
    rules: FolderRules<'_>,
) -> Result<GrantedFolder, FolderRefusal> {
    let Some(allowlist) = rules.allowlist else { return Err(FolderRefusal::NoAllowlist) };
    let place = &folder.place;
    if rules.own_places.iter().any(|own| own.starts_with(place) || place.starts_with(own)) {
        return Err(FolderRefusal::Own);
    }
    if SYSTEM_PLACES.iter().any(|system| place.starts_with(system)) || place.parent().is_none() {
        return Err(FolderRefusal::System);
    }
    if let Some(name) =
        secret_name_in(place, allowlist).or_else(|| secret_name_in(&folder.asked.path, allowlist))
    {
        return Err(FolderRefusal::SecretName(name));
    }
    if let Some(name) = folder.entries.iter().find(|entry| is_secret_file(entry, allowlist)) {
        return Err(FolderRefusal::HoldsSecret(name.clone()));
    }
    if rules.writable_by_agents.iter().any(|writable| place.starts_with(writable) && place != writable) {
        return Err(FolderRefusal::InWritableFolder);
    }
    let roots = allowlist.roots.iter().filter(|root| place.starts_with(&root.path));
    // Of roots within each other the innermost counts.
    let Some(root) = roots.max_by_key(|root| root.path.components().count()) else {
        return Err(FolderRefusal::NotOnAllowlist);
    };
    let may_write = root.most == MountAccess::ReadWrite
        && (rules.role == Role::Main || !allowlist.is_read_only_outside_main);
    let access = if may_write { folder.asked.access } else { MountAccess::ReadOnly };
    Ok(GrantedFolder {
        place: place.clone(),
        container: format!("{EXTRA_IN_CONTAINER}/{}", folder.asked.name_in_container()),
        access,
    })
}

/// The part of a path that has a secret's name in it, in any case.
fn secret_name_in(path: &Path, allowlist: &FolderAllowlist) -> Option<String> {
    path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).find(|part| {
        let part = part.to_lowercase();
        refused_names(allowlist).any(|name| part.contains(&name.to_lowercase()))
    })
}

/// Whether something that lies in a folder is called as secrets are.
fn is_secret_file(entry: &str, allowlist: &FolderAllowlist) -> bool {
    let entry = entry.to_lowercase();
    let is_harmless = HARMLESS_FILES.contains(&entry.as_str());
    let mut secrets = SECRET_NAMES.into_iter().filter(|_| !is_harmless);
    secrets.any(|name| entry.contains(name))
        || allowlist.blocked_patterns.iter().any(|name| entry.contains(&name.to_lowercase()))
}

fn refused_names(allowlist: &FolderAllowlist) -> impl Iterator<Item = &str> {
    SECRET_NAMES.into_iter().chain(allowlist.blocked_patterns.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowlist() -> FolderAllowlist {
        FolderAllowlist::from_json(
            r#"{"allowedRoots": [{"path": "/srv/shared", "allowReadWrite": true}, {"path": "/srv/shared/books"},
                                 {"path": "/home/u/projects"}, {"path": "/home/u"}],
                "nonMainReadOnly": true}"#,
        )
        .unwrap()
    }

    fn folder(place: &str, access: MountAccess) -> ResolvedFolder {
        let asked = ExtraFolder { path: PathBuf::from(place), access };
        ResolvedFolder { asked, place: PathBuf::from(place), entries: Vec::new() }
    }

    fn decide(
        folder: &ResolvedFolder,
        role: Role,
        allowlist: Option<&FolderAllowlist>,
    ) -> Result<GrantedFolder, FolderRefusal> {
        let own_places = [PathBuf::from("/home/u/nanokimi"), PathBuf::from("/home/u/.config/nanokimi")];
        let writable_by_agents = [PathBuf::from("/srv/shared/games")];
        let rules =
            FolderRules { allowlist, role, own_places: &own_places, writable_by_agents: &writable_by_agents };
        decide_extra_folder(folder, rules)
    }

    #[test]
    fn without_an_allowlist_that_is_understood_nothing_is_mounted() {
        for broken in [
            "",
            "[]",
            "null",
            "{}",
            "[\"/srv\"]",
            r#"{"allowedRoots": "/srv"}"#,
            r#"{"allowedRoots": {"path": "/srv"}}"#,
            r#"{"allowedRoots": ["/srv"]}"#,
            r#"{"allowedRoots": [{"path": "srv"}]}"#,
            r#"{"allowedRoots": [{"path": 1}]}"#,
            r#"{"allowedRoots": [{"path": "/srv", "allowReadWrite": "yes"}]}"#,
            r#"{"allowedRoots": [{"path": "/srv", "readWrite": true}]}"#,
            r#"{"allowedRoots": [], "nonMainReadOnly": "no"}"#,
            r#"{"allowedRoots": [], "nonMainReadOnly": null}"#,
            r#"{"allowedRoots": [], "nonMainReadonly": false}"#,
            r#"{"allowedRoots": [], "blockedPatterns": [""]}"#,
            r#"{"allowedRoots": [], "blockedPatterns": "x"}"#,
        ] {
            assert!(FolderAllowlist::from_json(broken).is_err(), "{broken}");
        }
        for role in [Role::Main, Role::Member] {
            let refused = decide(&folder("/srv/shared", MountAccess::ReadOnly), role, None);
            assert_eq!(refused, Err(FolderRefusal::NoAllowlist));
        }
        let empty = FolderAllowlist::from_json(r#"{"allowedRoots": []}"#).unwrap();
        let refused = decide(&folder("/srv/shared", MountAccess::ReadOnly), Role::Main, Some(&empty));
        assert_eq!(refused, Err(FolderRefusal::NotOnAllowlist));
    }

    #[test]
    fn names_of_secrets_are_refused_anywhere_in_a_path() {
        for name in [
            ".ssh",
            ".ssh/x",
            ".aws",
            "app/.env",
            ".env.local",
            "id_rsa",
            "id_rsa.pub",
            "credentials",
            "Credentials.json",
            ".kube",
            ".docker/x",
            ".netrc",
            ".npmrc",
            ".pypirc",
            "my_private_key.pem",
            ".secret",
            ".secrets/a",
            ".gnupg",
            ".gpg",
            ".azure",
            ".gcloud",
            "id_ed25519",
            ".SSH",
        ] {
            let place = format!("/home/u/{name}");
            let refused = decide(&folder(&place, MountAccess::ReadOnly), Role::Main, Some(&allowlist()));
            assert!(matches!(refused, Err(FolderRefusal::SecretName(_))), "{place}: {refused:?}");
        }
        let mut project = folder("/home/u/projects/web", MountAccess::ReadOnly);
        for name in [".env", ".Env.local", "credentials.json", "my_private_key.pem", "id_rsa.pub", ".docker"]
        {
            project.entries = vec!["src".to_owned(), name.to_owned()];
            let refused = decide(&project, Role::Main, Some(&allowlist()));
            assert_eq!(refused, Err(FolderRefusal::HoldsSecret(name.to_owned())));
        }
        project.entries =
            ["src", ".dockerignore", ".env.example", "environment.md"].map(str::to_owned).into();
        assert!(decide(&project, Role::Main, Some(&allowlist())).is_ok());
        let more = FolderAllowlist { blocked_patterns: vec!["tax".to_owned()], ..allowlist() };
        let refused = decide(&folder("/srv/shared/Taxes", MountAccess::ReadOnly), Role::Main, Some(&more));
        assert_eq!(refused, Err(FolderRefusal::SecretName("Taxes".to_owned())));
    }

    #[test]
    fn what_a_path_leads_to_counts_and_not_how_it_is_written() {
        use FolderRefusal::{InWritableFolder, NotOnAllowlist, Own, SecretName, System};
        for (asked, place, expected) in [
            ("/srv/shared/a", "/srv/shared/a", None),
            ("/srv/shared", "/srv/shared", None),
            // A link within a root that leads elsewhere.
            ("/srv/shared/link", "/etc", Some(NotOnAllowlist)),
            ("/srv/shared/link", "/srv/shared2", Some(NotOnAllowlist)),
            ("/srv/shared/link", "/", Some(Own)),
            ("/srv/shared/.ssh", "/srv/shared/keys", Some(SecretName(".ssh".to_owned()))),
            // A link elsewhere that leads into a root.
            ("/tmp/link", "/srv/shared/a", None),
            ("/srv/sharedx", "/srv/sharedx", Some(NotOnAllowlist)),
            ("/srv", "/srv", Some(NotOnAllowlist)),
            ("/home/u/nanokimi", "/home/u/nanokimi", Some(Own)),
            ("/home/u/nanokimi/groups/family", "/home/u/nanokimi/groups/family", Some(Own)),
            ("/home/u", "/home/u", Some(Own)),
            ("/home/u/.config", "/home/u/.config", Some(Own)),
            ("/home/u/.config/nanokimi", "/home/u/.config/nanokimi", Some(Own)),
            ("/home/u/nanokimi-notes", "/home/u/nanokimi-notes", None),
            ("/srv/shared/link", "/run/user/1000", Some(System)),
            ("/srv/shared/link", "/proc/self", Some(System)),
            ("/srv/shared/games/x", "/srv/shared/games/x", Some(InWritableFolder)),
            ("/srv/shared/games", "/srv/shared/games", None),
        ] {
            let asked = ExtraFolder { path: PathBuf::from(asked), access: MountAccess::ReadOnly };
            let folder = ResolvedFolder { asked, place: PathBuf::from(place), entries: Vec::new() };
            assert_eq!(decide(&folder, Role::Main, Some(&allowlist())).err(), expected, "{folder:?}");
        }
    }

    #[test]
    fn a_folder_is_read_only_unless_that_was_said_and_allowed() {
        use MountAccess::{ReadOnly, ReadWrite};
        let shared = FolderAllowlist { is_read_only_outside_main: false, ..allowlist() };
        for (place, asked, role, is_read_only_outside_main, expected) in [
            ("/srv/shared/a", ReadOnly, Role::Main, true, ReadOnly),
            ("/srv/shared/a", ReadWrite, Role::Main, true, ReadWrite),
            ("/srv/shared/a", ReadWrite, Role::Member, true, ReadOnly),
            ("/srv/shared/a", ReadWrite, Role::Member, false, ReadWrite),
            ("/home/u/projects/a", ReadWrite, Role::Main, false, ReadOnly),
            // The innermost root counts.
            ("/srv/shared/books/b", ReadWrite, Role::Main, false, ReadOnly),
        ] {
            let list = if is_read_only_outside_main { allowlist() } else { shared.clone() };
            let granted = decide(&folder(place, asked), role, Some(&list)).unwrap();
            assert_eq!(granted.access, expected, "{place} {asked:?} {role:?} {is_read_only_outside_main}");
        }
    }

    #[test]
    fn it_stands_in_the_container_under_its_own_name() {
        for (place, expected) in [
            ("/srv/shared/recipes", "/workspace/extra/recipes"),
            ("/srv/shared/my recipes é", "/workspace/extra/my-recipes--"),
            ("/srv/shared/..a", "/workspace/extra/..a"),
        ] {
            let granted =
                decide(&folder(place, MountAccess::ReadOnly), Role::Main, Some(&allowlist())).unwrap();
            assert_eq!(granted.container, expected);
        }
    }

    proptest! {
        /// Told from outside: whatever is granted lies beneath a root, shows nothing of nanokimi's, and is
        /// written only where that is allowed.
        #[test]
        fn nothing_is_granted_that_is_not_allowed(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "srv", "shared", "home", "u", "nanokimi", ".config", "projects", ".ssh", "games", "books", "x", "run",
                ]), 0..5),
            wants_write in any::<bool>(), is_main in any::<bool>(),
        ) {
            let place = format!("/{}", parts.join("/"));
            let access = if wants_write { MountAccess::ReadWrite } else { MountAccess::ReadOnly };
            let role = if is_main { Role::Main } else { Role::Member };
            if let Ok(granted) = decide(&folder(&place, access), role, Some(&allowlist())) {
                prop_assert!(place.starts_with("/srv/shared") || place.starts_with("/home/u/"));
                prop_assert!(!parts.contains(&".ssh"));
                let inside = place + "/";
                prop_assert!(!"/home/u/nanokimi/".starts_with(&inside));
                prop_assert!(!inside.starts_with("/home/u/nanokimi/"));
                let may_write = wants_write && is_main && inside.starts_with("/srv/shared/");
                prop_assert!(granted.access == MountAccess::ReadOnly || may_write);
            }
        }
    }
}
