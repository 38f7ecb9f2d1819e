//! What a container may see and do, as Docker and the agent inside report it.

use nanokimi::agent::Engine;
use nanokimi::container::seccomp;
use serde_json::{Value, json};
use support::container_world::{World, search};
use support::fixture::plain_docker;

#[tokio::test]
async fn every_answer_comes_through_a_hardened_container_with_these_mounts_and_no_others() {
    let info = serde_json::to_value(plain_docker().await.info().await.unwrap()).unwrap();
    let daemon = info["SecurityOptions"].to_string();
    assert!(daemon.contains("name=rootless") && daemon.contains("name=seccomp"), "{daemon}");

    for engine in Engine::ALL {
        is_in_its_fence(engine).await;
    }
}

async fn is_in_its_fence(engine: Engine) {
    let mut world = World::with(engine).await;
    assert_eq!(world.asks("main", "SAY hello").await, "Kai: hello");
    assert_eq!(world.asks("family", "@Kai SAY hello").await, "Kai: hello");
    for (group, global, mode) in
        [("main", "groups/global", "rw"), ("family", "data/agents/family/global", "ro")]
    {
        let container = world.container(group).await;
        is_hardened(&container);
        let labels = &container["Config"]["Labels"];
        assert_eq!(labels["nanokimi.install"], world.install().as_str());
        assert_eq!(labels["nanokimi.group"], group);
        let run = labels["nanokimi.run"].as_str().unwrap();
        assert_eq!(container["Name"], format!("/nanokimi-{group}-{run}"));

        let paths = world.paths();
        let mount = |host: &str, inside: &str, mode: &str| {
            format!("{} -> {inside} {mode}", paths.root().join(host).display())
        };
        let home = engine.home_in_container();
        let sessions = match engine.sessions_apart() {
            Some(apart) => format!("data/agents/{group}/sessions/{apart}/main"),
            None => format!("data/sessions/{group}"),
        };
        let mut asked = [
            mount(&format!("data/agents/{group}/config.toml"), engine.config_path_in_container(), "ro"),
            mount(&format!("data/agents/{group}/credentials"), &format!("{home}/credentials"), "rw"),
            mount(&sessions, &format!("{home}/sessions"), "rw"),
            mount(&format!("groups/{group}"), "/workspace/group", "rw"),
            mount(global, "/workspace/global", mode),
            mount(&format!("data/run/{group}"), "/run/nanokimi", "ro"),
        ];
        asked.sort();
        assert_eq!(mounts(&container), asked);
    }
    world.ends().await;
}

fn is_hardened(container: &Value) {
    let host = &container["HostConfig"];
    let nothing = |value: &Value| value.is_null() || *value == json!([]) || *value == json!("");
    let facts = [
        ("user", &container["Config"]["User"], json!("0:0")),
        ("capabilities", &host["CapDrop"], json!(["ALL"])),
        ("privileged", &host["Privileged"], json!(false)),
        ("root", &host["ReadonlyRootfs"], json!(true)),
        ("network", &host["NetworkMode"], json!("none")),
        ("memory of others", &host["IpcMode"], json!("private")),
        ("security", &host["SecurityOpt"], json!(["no-new-privileges", seccomp::seccomp_security_option()])),
        ("first to go", &host["OomScoreAdj"], json!(800)),
        ("runtime", &host["Runtime"], json!("runc")),
        ("log", &host["LogConfig"]["Type"], json!("none")),
        ("removal", &host["AutoRemove"], json!(true)),
        ("pids", &host["PidsLimit"], json!(256)),
        ("memory", &host["Memory"], json!(768 * 1024 * 1024)),
        ("swap", &host["MemorySwap"], json!(768 * 1024 * 1024)),
        ("processor", &host["CpuQuota"], json!(100_000)),
        ("terminal", &container["Config"]["Tty"], json!(false)),
    ];
    for (what, found, expected) in facts {
        assert_eq!(*found, expected, "{what}");
    }
    for unset in
        ["CapAdd", "Devices", "DeviceRequests", "DeviceCgroupRules", "Binds", "VolumesFrom", "GroupAdd"]
    {
        assert!(nothing(&host[unset]), "{unset}: {}", host[unset]);
    }
    for host_namespace in ["PidMode", "UTSMode", "UsernsMode"] {
        assert!(nothing(&host[host_namespace]), "{host_namespace}: {}", host[host_namespace]);
    }
    let limits: Vec<(&str, i64)> = host["Ulimits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| (limit["Name"].as_str().unwrap(), limit["Hard"].as_i64().unwrap()))
        .collect();
    let expected = [("nofile", 4096), ("nproc", 1024), ("fsize", 1 << 30), ("sigpending", 1024), ("core", 0)];
    assert_eq!(limits, expected);
}

/// The mounts as `host -> inside mode`, sorted.
fn mounts(container: &Value) -> Vec<String> {
    let shown = |mount: &Value| {
        let text = |key: &str| mount[key].as_str().unwrap().to_owned();
        let mode = if mount["RW"] == true { "rw" } else { "ro" };
        format!("{} -> {} {mode}", text("Source"), text("Destination"))
    };
    let mut mounts: Vec<String> = container["Mounts"].as_array().unwrap().iter().map(shown).collect();
    mounts.sort();
    mounts
}

#[tokio::test]
async fn an_agent_has_no_rights_no_network_and_nothing_to_write_to_but_its_own() {
    for engine in Engine::ALL {
        has_nothing_but_its_own(engine).await;
    }
}

async fn has_nothing_but_its_own(engine: Engine) {
    let mut world = World::with(engine).await;
    let home = engine.home_in_container();
    let rights = world
        .agent_runs("family", "grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '")
        .await;
    assert_eq!(
        rights,
        "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
         CapBnd: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(world.agent_runs("family", "ls /sys/class/net").await, "lo\n");

    let places = format!(
        "/ /usr /etc /opt /run /run/nanokimi /workspace /workspace/global /workspace/group /home/node /tmp {home} \
         {home}/credentials {home}/sessions /dev /sys /proc"
    );
    let writable = format!(
        "for place in {places}; do if touch $place/x 2>/dev/null; then echo $place; rm $place/x; fi; done"
    );
    assert_eq!(
        world.agent_runs("family", &writable).await,
        format!("/workspace/group\n/home/node\n/tmp\n{home}\n{home}/credentials\n{home}/sessions\n/dev\n")
    );
    let config = engine.config_path_in_container();
    let replace =
        format!("rm -f /run/nanokimi/door.sock; echo x >>{config}; ls /run/nanokimi; grep -c x$ {config}");
    let replaced = world.agent_runs("family", &replace).await;
    assert!(replaced.contains("door.sock") && replaced.ends_with("\n0\n"), "{replaced}");
    world.ends().await;
}

#[tokio::test]
async fn what_one_group_keeps_is_nowhere_in_the_container_of_another() {
    let mut world = World::new().await;
    std::fs::write(world.folder_of("main").join("diary.txt"), "canary-of-main").unwrap();
    std::fs::write(world.folder_of("family").join("list.txt"), "canary-of-family").unwrap();
    let everywhere = search("canary[-]of[-](main|family)");
    assert_eq!(world.agent_runs("main", &everywhere).await, "/workspace/group/diary.txt\nsearched\n");
    assert_eq!(world.agent_runs("family", &everywhere).await, "/workspace/group/list.txt\nsearched\n");
    world.ends().await;
}
