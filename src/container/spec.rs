//! The sandbox: what a group's container may see and do, as a pure function of the install, the group and the limits.
//!
//! Never talks to Docker. Refuses every mount that could show a container a secret or another group.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::paths::{self, Paths};
use crate::rules::extra_folders::{EXTRA_IN_CONTAINER, GrantedFolder};
use crate::types::{Group, GroupName, InstallId, Role, RunId};

pub use crate::types::MountAccess;

/// The paths in the container. The agent-runner and the engine's prompt rely on them.
pub const HOME: &str = "/home/node";
pub const GROUP: &str = paths::GROUP_IN_CONTAINER;
pub const GLOBAL: &str = "/workspace/global";
pub const EGRESS_FOLDER: &str = "/run/nanokimi";

/// What a command that is run beside the engine finds in its environment, as the agent's own commands do: the
/// way to the egress proxy is the agent-runner's.
pub const COMMAND_ENVIRONMENT: [&str; 9] = [
    "HOME=/home/node",
    "LANG=C.UTF-8",
    "HTTP_PROXY=http://127.0.0.1:8787",
    "HTTPS_PROXY=http://127.0.0.1:8787",
    "NO_PROXY=127.0.0.1,localhost",
    "http_proxy=http://127.0.0.1:8787",
    "https_proxy=http://127.0.0.1:8787",
    "no_proxy=127.0.0.1,localhost",
    "NODE_USE_ENV_PROXY=1",
];

/// What one launch of a group's container is made from.
#[derive(Clone, Debug)]
pub struct LaunchInputs<'a> {
    pub paths: &'a Paths,
    pub install: &'a InstallId,
    pub run: &'a RunId,
    pub engine: EngineSpec,
    /// The image's name with its tag (`image::agent_image_name`).
    pub image: &'a str,
    pub daemon: DaemonUser,
    pub limits: ContainerLimits,
    /// IANA name, such as `Europe/Madrid`.
    pub time_zone: &'a str,
    /// What the agent is called in its chat.
    pub assistant: &'a str,
    /// The model's name in the engine's configuration. Without one, that configuration chooses.
    pub model: Option<&'a str>,
    /// The engine's id of the session to go on with.
    pub session: &'a str,
    /// The engine's device id, the same for all containers of an install.
    pub device: &'a str,
    pub services: SearchServices,
    /// The folders that the owner lends this group, as decided at this launch.
    pub lent: &'a [GrantedFolder],
}

/// Whether Kimi searches and fetches for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchServices {
    Kimi,
    /// This login does not have them, or they would lead further than the group's policy.
    None,
}

/// What a container must know of its engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    pub name: &'static str,
    /// The folder in the container that it calls its own.
    pub home: &'static str,
    /// The path in the container for the owner's `config.toml`.
    pub config: &'static str,
    /// The folder of its histories on the host, if they are not in [`Paths::sessions_folder`].
    pub sessions_apart: Option<String>,
}

/// The user that the Docker daemon works as, which decides who owns the files of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonUser {
    /// As the person who runs nanokimi: uid 0 inside is that person outside.
    Rootless,
    /// As root: the container must take the person's own ids.
    Rootful { uid: u32, gid: u32 },
}

/// Everything `docker` needs to launch one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// `nanokimi-<group>-<run id>`.
    pub name: String,
    pub image: String,
    pub group: GroupName,
    pub install: InstallId,
    pub run: RunId,
    /// The ids inside: 0 and 0 under a rootless daemon, the person's own under a rootful one.
    pub uid: u32,
    pub gid: u32,
    /// The folder inside that the engine calls its own.
    pub engine_home: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<ContainerMount>,
    pub limits: ContainerLimits,
}

/// One folder or file of the host inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    pub host: PathBuf,
    pub container: String,
    pub access: MountAccess,
}

/// What one container may use of the machine. Memory, processor and pids hold only if the daemon has cgroups
/// (`DaemonFacts::limits`). The others always hold, those of the disk a second or two late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerLimits {
    pub memory_bytes: i64,
    /// Thousandths of one processor.
    pub cpus_milli: i64,
    pub pids: i64,
    /// Open files of each process.
    pub open_files: i64,
    /// Threads of the person whose ids the container has, over all containers: see
    /// [`ContainerLimits::STANDARD`].
    pub threads_of_person: i64,
    /// Size of a file that a process writes.
    pub file_bytes: i64,
    /// Signals that wait for a process of the person, counted like the threads.
    pub signals_of_person: i64,
    /// How much of the disk a group may fill with its files, and their number. No daemon enforces these: the
    /// session stops an agent that takes more.
    pub disk_bytes: u64,
    pub disk_entries: u64,
}

impl ContainerLimits {
    /// For a small server with several groups.
    pub const STANDARD: Self = Self {
        // The engine takes 130 MB, the folders in memory at most 336 MB (/tmp 128, the two homes 64 each,
        // /dev 64, /dev/shm 16); the rest is for the agent's commands.
        memory_bytes: 768 * MIB,
        // A busy agent leaves the machine's other processors to the host service and to other agents.
        cpus_milli: 1000,
        // Engine and agent-runner idle with 7 threads; the agent's builds and pipelines need dozens more.
        pids: 256,
        // The usual limit of a login, four times: package managers and searches open many.
        open_files: 4096,
        // The kernel counts this over all containers of a rootless daemon *and the daemon itself*, but holds
        // it only against those that carry it. Measured: ten idle agents with the daemon come to 230 threads;
        // a fork bomb ends here, while the daemon, which is not limited, still starts and kills containers.
        threads_of_person: 1024,
        // Larger than what a chat can carry, far smaller than a disk.
        file_bytes: 1024 * MIB,
        // Programs queue a handful. Without a bound of its own an agent could take all that its person may
        // have, and timers of other programs would fail.
        signals_of_person: 1024,
        // A tenth of a small server's disk, and twice the files of a large project with all its packages.
        disk_bytes: 4 * 1024 * 1024 * 1024,
        disk_entries: 200_000,
    };
}

const MIB: i64 = 1024 * 1024;

/// Decides what the group's container sees and may do.
///
/// # Errors
/// A mount would show something that the group must not see.
pub fn build_container_spec(launch: &LaunchInputs<'_>, group: &Group) -> Result<ContainerSpec> {
    let mut mounts = container_mounts(launch.paths, group, &launch.engine);
    deny_forbidden_mounts(launch.paths, group, &launch.engine, &mounts)?;
    mounts.extend(lent_mounts(launch.paths, launch.lent)?);
    let (uid, gid) = match launch.daemon {
        DaemonUser::Rootless => (0, 0),
        DaemonUser::Rootful { uid, gid } => (uid, gid),
    };
    Ok(ContainerSpec {
        name: format!("nanokimi-{}-{}", group.name, launch.run),
        image: launch.image.to_owned(),
        group: group.name.clone(),
        install: launch.install.clone(),
        run: launch.run.clone(),
        uid,
        gid,
        engine_home: launch.engine.home.to_owned(),
        env: container_environment(launch),
        mounts,
        limits: launch.limits,
    })
}

/// The environment of the agent-runner. The image brings the rest (`PATH`, `HOME`).
fn container_environment(launch: &LaunchInputs<'_>) -> Vec<(String, String)> {
    let services = match launch.services {
        SearchServices::Kimi => "kimi",
        SearchServices::None => "none",
    };
    let mut env = vec![
        ("NANOKIMI_ENGINE".to_owned(), launch.engine.name.to_owned()),
        ("NANOKIMI_SESSION".to_owned(), launch.session.to_owned()),
        ("NANOKIMI_DEVICE_ID".to_owned(), launch.device.to_owned()),
        ("NANOKIMI_ASSISTANT".to_owned(), launch.assistant.to_owned()),
        ("NANOKIMI_SERVICES".to_owned(), services.to_owned()),
        ("TZ".to_owned(), launch.time_zone.to_owned()),
    ];
    if let Some(model) = launch.model {
        env.push(("NANOKIMI_MODEL".to_owned(), model.to_owned()));
    }
    env
}

fn container_mounts(paths: &Paths, group: &Group, engine: &EngineSpec) -> Vec<ContainerMount> {
    // Each group has its own copy of what all read. On a shared file, two agents could speak with each other
    // by locks and sockets, and each could see when the other one starts.
    let (global, global_access) = match group.role {
        Role::Main => (paths.global_folder(), MountAccess::ReadWrite),
        Role::Member => (paths.agent_global_folder(&group.name), MountAccess::ReadOnly),
    };
    let mount = |host: PathBuf, container: &str, access| ContainerMount {
        host,
        container: container.to_owned(),
        access,
    };
    vec![
        mount(paths.agent_config_file(&group.name), engine.config, MountAccess::ReadOnly),
        mount(
            paths.agent_credentials_folder(&group.name),
            &format!("{}/credentials", engine.home),
            MountAccess::ReadWrite,
        ),
        mount(
            host_sessions_folder(paths, group, engine),
            &format!("{}/sessions", engine.home),
            MountAccess::ReadWrite,
        ),
        mount(paths.group_folder(&group.name), GROUP, MountAccess::ReadWrite),
        mount(global, GLOBAL, global_access),
        // Connecting to a socket needs no writable folder, and in a read-only one nobody inside can replace
        // it.
        mount(paths.egress_folder(&group.name), EGRESS_FOLDER, MountAccess::ReadOnly),
    ]
}

/// The mounts of lent folders. Whatever was decided before: none of them shows anything of the install, and none
/// covers another mount.
fn lent_mounts(paths: &Paths, lent: &[GrantedFolder]) -> Result<Vec<ContainerMount>> {
    let mount = |folder: &GrantedFolder| {
        let GrantedFolder { place, container, access } = folder;
        let shows_install = paths.root().starts_with(place) || place.starts_with(paths.root());
        let name = container.strip_prefix(EXTRA_IN_CONTAINER).and_then(|rest| rest.strip_prefix('/'));
        let is_plain_name = name.is_some_and(|name| !matches!(name, "" | "." | "..") && !name.contains('/'));
        let is_unique = lent.iter().filter(|other| other.container == *container).count() == 1;
        ensure!(
            is_plain_absolute_path(place) && !shows_install && is_plain_name && is_unique,
            "Refused to mount {} as {container}: it is no folder that can be lent",
            place.display()
        );
        Ok(ContainerMount { host: place.clone(), container: container.clone(), access: *access })
    };
    lent.iter().map(mount).collect()
}

fn host_sessions_folder(paths: &Paths, group: &Group, engine: &EngineSpec) -> PathBuf {
    match &engine.sessions_apart {
        Some(folder) => paths.separate_sessions_folder(&group.name, folder),
        None => paths.sessions_folder(&group.name),
    }
}

/// Refuses everything that is not on the short list of what a group may ever see, and writing where it may
/// only read. So the store, `.env`, the real login, the install's root and its parents, other groups' folders
/// and Docker's socket are refused without being known here.
fn deny_forbidden_mounts(
    paths: &Paths,
    group: &Group,
    engine: &EngineSpec,
    mounts: &[ContainerMount],
) -> Result<()> {
    let writable = [
        paths.agent_credentials_folder(&group.name),
        host_sessions_folder(paths, group, engine),
        paths.group_folder(&group.name),
    ];
    for ContainerMount { host, access, .. } in mounts {
        ensure!(
            is_plain_absolute_path(host),
            "Refused to mount {}: not an absolute path without \"..\"",
            host.display()
        );
        let own = writable.iter().any(|folder| host.starts_with(folder));
        let global = group.role == Role::Main && host.starts_with(paths.global_folder());
        let copies = [paths.agent_config_file(&group.name), paths.agent_global_folder(&group.name)];
        let readable = own || global || copies.contains(host) || *host == paths.egress_folder(&group.name);
        if !readable {
            bail!("Refused to mount {}: the group {} must not see it", host.display(), group.name);
        }
        let may_write = own || global;
        if *access == MountAccess::ReadWrite && !may_write {
            bail!(
                "Refused to mount {} for writing: the group {} may only read it",
                host.display(),
                group.name
            );
        }
    }
    Ok(())
}

fn is_plain_absolute_path(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::types::ChatId;

    fn group(name: &str, role: Role) -> Group {
        Group::new(GroupName::parse(name).unwrap(), ChatId::new("chat"), role)
    }

    fn engine() -> EngineSpec {
        EngineSpec {
            name: "engine",
            home: "/home/node/.kimi",
            config: "/home/node/.kimi/config.toml",
            sessions_apart: None,
        }
    }

    fn spec_of(root: &str, daemon: DaemonUser, model: Option<&str>, group: &Group) -> Result<ContainerSpec> {
        let launch = LaunchInputs {
            paths: &Paths::new(root),
            install: &InstallId::new("in"),
            run: &RunId::new("7"),
            engine: engine(),
            image: "nanokimi-agent:1",
            daemon,
            limits: ContainerLimits::STANDARD,
            time_zone: "Europe/Madrid",
            assistant: "Kai",
            model,
            session: "main",
            device: "d1",
            services: SearchServices::Kimi,
            lent: &[],
        };
        build_container_spec(&launch, group)
    }

    fn shown(spec: &ContainerSpec) -> String {
        let mut text = format!("{} as {}:{}\n", spec.name, spec.uid, spec.gid);
        for (name, value) in &spec.env {
            writeln!(text, "{name}={value}").unwrap();
        }
        for ContainerMount { host, container, access } in &spec.mounts {
            writeln!(text, "{} -> {container} {access:?}", host.display()).unwrap();
        }
        text
    }

    #[test]
    fn a_member_reads_what_is_global_and_writes_only_its_own() {
        let spec = spec_of("/srv/k", DaemonUser::Rootless, None, &group("family", Role::Member)).unwrap();
        insta::assert_snapshot!(shown(&spec), @r"
        nanokimi-family-7 as 0:0
        NANOKIMI_ENGINE=engine
        NANOKIMI_SESSION=main
        NANOKIMI_DEVICE_ID=d1
        NANOKIMI_ASSISTANT=Kai
        NANOKIMI_SERVICES=kimi
        TZ=Europe/Madrid
        /srv/k/data/agents/family/config.toml -> /home/node/.kimi/config.toml ReadOnly
        /srv/k/data/agents/family/credentials -> /home/node/.kimi/credentials ReadWrite
        /srv/k/data/sessions/family -> /home/node/.kimi/sessions ReadWrite
        /srv/k/groups/family -> /workspace/group ReadWrite
        /srv/k/data/agents/family/global -> /workspace/global ReadOnly
        /srv/k/data/run/family -> /run/nanokimi ReadOnly
        ");
    }

    #[test]
    fn main_also_writes_what_is_global_and_a_rootful_daemon_gets_the_persons_ids() {
        let daemon = DaemonUser::Rootful { uid: 1000, gid: 100 };
        let spec = spec_of("/srv/k", daemon, Some("kimi-k2"), &group("me", Role::Main)).unwrap();
        insta::assert_snapshot!(shown(&spec), @r"
        nanokimi-me-7 as 1000:100
        NANOKIMI_ENGINE=engine
        NANOKIMI_SESSION=main
        NANOKIMI_DEVICE_ID=d1
        NANOKIMI_ASSISTANT=Kai
        NANOKIMI_SERVICES=kimi
        TZ=Europe/Madrid
        NANOKIMI_MODEL=kimi-k2
        /srv/k/data/agents/me/config.toml -> /home/node/.kimi/config.toml ReadOnly
        /srv/k/data/agents/me/credentials -> /home/node/.kimi/credentials ReadWrite
        /srv/k/data/sessions/me -> /home/node/.kimi/sessions ReadWrite
        /srv/k/groups/me -> /workspace/group ReadWrite
        /srv/k/groups/global -> /workspace/global ReadWrite
        /srv/k/data/run/me -> /run/nanokimi ReadOnly
        ");
    }

    #[test]
    fn an_engine_that_keeps_its_histories_apart_sees_no_others() {
        let paths = Paths::new("/srv/k");
        let family = group("family", Role::Member);
        let apart = EngineSpec {
            home: "/home/node/.second",
            config: "/home/node/.second/owner.toml",
            sessions_apart: Some("second/main".to_owned()),
            ..engine()
        };
        let mounts = container_mounts(&paths, &family, &apart);
        deny_forbidden_mounts(&paths, &family, &apart, &mounts).unwrap();
        let places: Vec<String> =
            mounts.iter().map(|mount| format!("{} -> {}", mount.host.display(), mount.container)).collect();
        assert_eq!(
            places[..3],
            [
                "/srv/k/data/agents/family/config.toml -> /home/node/.second/owner.toml",
                "/srv/k/data/agents/family/credentials -> /home/node/.second/credentials",
                "/srv/k/data/agents/family/sessions/second/main -> /home/node/.second/sessions",
            ]
        );
        // Neither engine sees the other's histories.
        let sessions =
            |host| [ContainerMount { host, container: GROUP.to_owned(), access: MountAccess::ReadOnly }];
        assert!(
            deny_forbidden_mounts(&paths, &family, &apart, &sessions(paths.sessions_folder(&family.name)))
                .is_err()
        );
        let second = paths.separate_sessions_folder(&family.name, "second/main");
        assert!(deny_forbidden_mounts(&paths, &family, &engine(), &sessions(second)).is_err());
    }

    #[test]
    fn a_lent_folder_stands_beside_the_others_and_never_in_their_place() {
        let paths = Paths::new("/srv/k");
        let lent = |place: &str, container: &str| GrantedFolder {
            place: PathBuf::from(place),
            container: container.to_owned(),
            access: MountAccess::ReadOnly,
        };
        let good = lent("/srv/recipes", "/workspace/extra/recipes");
        let mounts = lent_mounts(&paths, std::slice::from_ref(&good)).unwrap();
        assert_eq!(mounts[0].host, Path::new("/srv/recipes"));
        assert_eq!(
            (mounts[0].container.as_str(), mounts[0].access),
            ("/workspace/extra/recipes", MountAccess::ReadOnly)
        );
        for bad in [
            lent("/srv/k", "/workspace/extra/k"),
            lent("/srv", "/workspace/extra/srv"),
            lent("/", "/workspace/extra/all"),
            lent("/srv/k/store", "/workspace/extra/store"),
            lent("/srv/k/groups/family", "/workspace/extra/family"),
            lent("/srv/x/../k", "/workspace/extra/k"),
            lent("srv/x", "/workspace/extra/x"),
            lent("/srv/x", "/workspace/group"),
            lent("/srv/x", "/workspace/extra"),
            lent("/srv/x", "/workspace/extra/"),
            lent("/srv/x", "/workspace/extra/.."),
            lent("/srv/x", "/workspace/extra/a/b"),
            lent("/srv/x", "/workspace/extrax"),
        ] {
            assert!(lent_mounts(&paths, std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        assert!(lent_mounts(&paths, &[good.clone(), good]).is_err(), "two in one place");
    }

    #[test]
    fn an_install_without_an_absolute_root_launches_nothing() {
        for root in ["", ".", "nanokimi", "/srv/k/../other"] {
            let refused =
                spec_of(root, DaemonUser::Rootless, None, &group("family", Role::Member)).unwrap_err();
            assert!(refused.to_string().contains("not an absolute path"), "{root:?}: {refused}");
        }
    }

    #[test]
    fn secrets_neighbours_and_docker_are_refused_by_name() {
        let paths = Paths::new("/srv/k");
        let other = GroupName::parse("family-2").unwrap();
        let forbidden = [
            paths.store_folder(),
            paths.database_file(),
            paths.env_file(),
            paths.credentials_folder(),
            paths.login_file(),
            paths.device_id_file(),
            paths.engine_config_file(),
            paths.agent_folder(&GroupName::parse("family").unwrap()),
            paths.agent_trash_folder(&GroupName::parse("family").unwrap()),
            paths.agent_global_folder(&other),
            paths.root().to_owned(),
            paths.root().join("data"),
            paths.groups_folder(),
            paths.group_folder(&other),
            paths.sessions_folder(&other),
            paths.agent_credentials_folder(&other),
            paths.egress_folder(&other),
            paths.group_folder(&GroupName::parse("family").unwrap()).join("../family-2"),
            PathBuf::from("groups/family"),
            PathBuf::from("/srv"),
            PathBuf::from("/"),
            PathBuf::from("/run/user/1000/docker.sock"),
            PathBuf::from("/run/user/1000"),
            PathBuf::from("/var/run/docker.sock"),
        ];
        for role in [Role::Main, Role::Member] {
            for host in &forbidden {
                let mount = ContainerMount {
                    host: host.clone(),
                    container: GROUP.to_owned(),
                    access: MountAccess::ReadOnly,
                };
                assert!(
                    deny_forbidden_mounts(&paths, &group("family", role), &engine(), &[mount]).is_err(),
                    "{} is refused",
                    host.display()
                );
            }
        }
    }

    #[test]
    fn what_may_only_be_read_is_refused_for_writing() {
        let paths = Paths::new("/srv/k");
        let family = GroupName::parse("family").unwrap();
        let table = [
            (paths.agent_config_file(&family), [false, false]),
            (paths.agent_global_folder(&family), [false, false]),
            (paths.egress_folder(&family), [false, false]),
            (paths.global_folder(), [false, true]),
            (paths.group_folder(&family), [true, true]),
        ];
        for (host, allowed) in table {
            for (role, allowed) in [Role::Member, Role::Main].into_iter().zip(allowed) {
                let mount = ContainerMount {
                    host: host.clone(),
                    container: GROUP.to_owned(),
                    access: MountAccess::ReadWrite,
                };
                let outcome = deny_forbidden_mounts(&paths, &group("family", role), &engine(), &[mount]);
                assert_eq!(outcome.is_ok(), allowed, "{} for {role:?}", host.display());
            }
        }
    }

    proptest! {
        /// Told from outside, not by the list that the code uses: nothing secret, nothing above it, nobody
        /// else's.
        #[test]
        fn no_group_name_reaches_a_forbidden_path(
            own in "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
            other in "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
            main in any::<bool>(),
        ) {
            let (Ok(own), Ok(other)) = (GroupName::parse(&own), GroupName::parse(&other)) else { return Ok(()) };
            prop_assume!(own != other);
            let paths = Paths::new("/srv/k");
            let role = if main { Role::Main } else { Role::Member };
            let group = group(own.as_str(), role);
            let spec = spec_of("/srv/k", DaemonUser::Rootless, None, &group).unwrap();
            let secrets = [
                paths.store_folder(), paths.env_file(), paths.login_file(), paths.device_id_file(),
                paths.group_folder(&other), paths.sessions_folder(&other), paths.agent_folder(&other), paths.egress_folder(&other),
                PathBuf::from("/var/run/docker.sock"),
            ];
            for mount in &spec.mounts {
                // Nothing is shared but what main alone may write.
                prop_assert!(mount.host.components().any(|part| part.as_os_str() == own.as_str())
                    || (main && mount.host == paths.global_folder()));
                for secret in &secrets {
                    prop_assert!(!secret.starts_with(&mount.host), "{} shows {}", mount.host.display(), secret.display());
                    prop_assert!(!mount.host.starts_with(secret), "{} is in {}", mount.host.display(), secret.display());
                }
            }
        }
    }
}
