//! The agent image and its containers, without the service around them.

use bollard::query_parameters::TagImageOptionsBuilder;
use nanokimi::agent::Engine;
use nanokimi::container::docker::DaemonRights;
use nanokimi::container::image::{self, BuildOutcome, BuildProgress, BuildStage};
use nanokimi::container::spec::{
    self, ContainerLimits, ContainerSpec, DaemonUser, LaunchInputs, SearchServices,
};
use nanokimi::container::{ContainerExit, Containers, RunningContainer};
use nanokimi::paths::Paths;
use nanokimi::types::{ChatId, Group, GroupName, InstallId, Role, RunId, Trouble};
use serde_json::{Value, json};
use support::fixture::{PATIENCE, build, docker, gone, inspected, plain_docker, ready};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

fn engine() -> spec::EngineSpec {
    let engine = Engine::KimiCli;
    spec::EngineSpec {
        name: engine.name(),
        home: engine.home_in_container(),
        config: engine.config_path_in_container(),
        sessions_apart: None,
    }
}

/// An install with one group, ready for launches.
struct Install {
    folder: TempDir,
    paths: Paths,
    id: InstallId,
    group: Group,
}

impl Install {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let paths = Paths::new(folder.path());
        // The folder's random name, so that the installs on one Docker are told apart.
        let id = InstallId::new(folder.path().file_name().unwrap().to_string_lossy().trim_start_matches('.'));
        let name = GroupName::parse("family").unwrap();
        let group = Group::new(name.clone(), ChatId::new("chat"), Role::Member);
        let folders = [
            paths.agent_credentials_folder(&name),
            paths.sessions_folder(&name),
            paths.group_folder(&name),
            paths.agent_global_folder(&name),
            paths.egress_folder(&name),
        ];
        for folder in folders.iter().chain([&paths.credentials_folder()]) {
            std::fs::create_dir_all(folder).unwrap();
        }
        let config = "default_model = \"kimi-code\"\n\
                      [providers.kimi-code]\ntype = \"kimi\"\nbase_url = \"https://api.kimi.com/coding/v1\"\napi_key = \"\"\n\
                      [providers.kimi-code.oauth]\nstorage = \"file\"\nkey = \"oauth/kimi-code\"\n\
                      [models.kimi-code]\nprovider = \"kimi-code\"\nmodel = \"kimi-for-coding\"\nmax_context_size = 262144\n";
        std::fs::write(paths.agent_config_file(&name), config).unwrap();
        let stand_in = json!({
            "access_token": "door-key", "refresh_token": "", "expires_at": 4_102_444_800.0,
            "scope": "kimi-code", "token_type": "Bearer", "expires_in": 900.0,
        });
        std::fs::write(paths.agent_credentials_folder(&name).join("kimi-code.json"), stand_in.to_string())
            .unwrap();
        Self { folder, paths, id, group }
    }

    fn spec(&self, run: &str) -> ContainerSpec {
        let launch = LaunchInputs {
            paths: &self.paths,
            install: &self.id,
            run: &RunId::new(format!("{}-{run}", self.id)),
            engine: engine(),
            image: &image::agent_image_name(Engine::KimiCli),
            daemon: DaemonUser::Rootless,
            limits: ContainerLimits::STANDARD,
            time_zone: "Europe/Madrid",
            assistant: "Kai",
            model: None,
            session: "main",
            device: "0123456789abcdef0123456789abcdef",
            services: SearchServices::Kimi,
            lent: &[],
        };
        spec::build_container_spec(&launch, &self.group).unwrap()
    }
}

/// Says hello to the engine and returns its first line.
async fn greet(running: &mut RunningContainer) -> Value {
    let hello = json!({
        "jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {"protocol_version": "1.10"},
    });
    running.stdin.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(&mut running.stdout).read_line(&mut line)).await.unwrap().unwrap();
    if line.is_empty() {
        let mut said = String::new();
        running.stderr.read_to_string(&mut said).await.unwrap();
        panic!("the engine said nothing but: {said}");
    }
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn an_agent_starts_answers_and_ends_with_its_input() {
    let docker = ready().await;
    let install = Install::new();
    let mut running = docker.launch_container(&install.spec("1")).await.unwrap();
    let answer = greet(&mut running).await;
    assert_eq!(answer["result"]["server"]["version"], "1.51.0", "{answer}");

    drop(running.stdin);
    assert_eq!(timeout(PATIENCE, running.exit).await.unwrap(), ContainerExit::Code(0));
    gone(&running.name).await;
}

#[tokio::test]
async fn a_launch_that_cannot_work_says_why_and_leaves_nothing() {
    let docker = ready().await;
    let install = Install::new();

    let no_image = ContainerSpec { image: "nanokimi-agent:none".to_owned(), ..install.spec("1") };
    assert_eq!(docker.launch_container(&no_image).await.err().unwrap().trouble, Trouble::NoImage);

    let mut no_folder = install.spec("2");
    no_folder.mounts[0].host = install.folder.path().join("missing");
    let failure = docker.launch_container(&no_folder).await.err().unwrap();
    assert_eq!(failure.trouble, Trouble::LaunchFailed);
    assert!(failure.detail.contains("missing"), "{}", failure.detail);

    // A file in place of a folder of the image: Docker creates the container but cannot start it.
    let mut no_start = install.spec("3");
    no_start.mounts[0].container = "/etc".to_owned();
    assert_eq!(docker.launch_container(&no_start).await.err().unwrap().trouble, Trouble::LaunchFailed);

    assert_eq!(docker.remove_install_containers(&install.id).await.unwrap(), 0, "nothing is left over");
}

#[tokio::test]
async fn sweeping_takes_this_installs_containers_and_no_others() {
    let docker = ready().await;
    let (mine, neighbours) = (Install::new(), Install::new());
    let mut kept = Vec::new();
    for spec in [mine.spec("1"), mine.spec("2"), neighbours.spec("1")] {
        kept.push(docker.launch_container(&spec).await.unwrap());
    }
    assert_eq!(docker.remove_install_containers(&mine.id).await.unwrap(), 2);
    gone(&kept[0].name).await;
    gone(&kept[1].name).await;
    assert!(inspected(&kept[2].name).await.is_some());

    docker.remove_container(&kept[2].name).await.unwrap();
    docker.remove_container(&kept[2].name).await.expect("one that is gone already is a success");
}

#[tokio::test]
async fn a_second_build_does_nothing_but_remove_old_images() {
    let docker = ready().await;
    let old = TagImageOptionsBuilder::default().repo("nanokimi-agent").tag("000000000000").build();
    plain_docker().await.tag_image(&image::agent_image_name(Engine::KimiCli), Some(old)).await.unwrap();

    let (built, told) = build(&docker, Engine::KimiCli).await.unwrap();
    assert_eq!(built, BuildOutcome::Before);
    let removed = BuildProgress::Line("Removed nanokimi-agent:000000000000".to_owned());
    assert_eq!(told, [BuildProgress::Stage(BuildStage::CleanUp), removed]);
    assert!(docker.has_image(&image::agent_image_name(Engine::KimiCli)).await.unwrap());
}

#[tokio::test]
async fn docker_says_that_it_is_rootless() {
    let facts = docker().await.fetch_daemon_facts().await.unwrap();
    assert_eq!(facts.rights, DaemonRights::Rootless);
    assert!(facts.data_root.is_absolute() && !facts.version.is_empty(), "{facts:?}");
}
