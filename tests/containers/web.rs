//! What part of the web an agent reaches, tried from inside its container against an internet that the test
//! makes.

use std::net::IpAddr;

use nanokimi::agent::Engine;
use nanokimi::clock::Clock;
use nanokimi::types::{HostName, Role, WebPolicy, WebTraffic};
use support::container_world::World;
use support::fixture::PATIENCE;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fake_internet::{self, CLOSED, OWN, OWN_IPV6, PUBLIC, PUBLIC_IPV6};

/// Sends one request to the proxy for each line of `targets.txt`, exactly as it is written there, and prints
/// the first line of the answer. So no client can read an address in its own way.
const KNOCK: &str = r#"
import socket, sys
for target in open("/workspace/group/targets.txt").read().splitlines():
    method = "GET" if target.startswith("http") else "CONNECT"
    proxy = socket.create_connection(("127.0.0.1", 8787))
    proxy.settimeout(60)
    proxy.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    line = b""
    while not line.endswith(b"\n"):
        byte = proxy.recv(1)
        if not byte:
            break
        line += byte
    print(target, "|", line.decode().strip().removeprefix("HTTP/1.1 "))
    proxy.close()
"#;

/// Destinations that no agent reaches, whatever its group's policy, and what the refusal says of each.
const REFUSED: [(&str, &str); 70] = [
    // This machine, by its own names.
    ("127.0.0.1:443", "403 127.0.0.1 is a loopback address"),
    ("127.8.8.8:80", "403 127.8.8.8 is a loopback address"),
    ("http://127.0.0.1/", "403 127.0.0.1 is a loopback address"),
    ("http://127.0.0.1:8787/coding/v1/models", "403 Port 8787 is closed"),
    ("[::1]:443", "403 ::1 is a loopback address"),
    ("0.0.0.0:80", "403 0.0.0.0 is no address of a host"),
    ("[::]:80", "403 :: is no address of a host"),
    ("localhost:80", "403 localhost leads to a loopback address"),
    ("http://LOCALHOST./", "403 localhost leads to a loopback address"),
    ("local.example:443", "403 local.example leads to a loopback address"),
    // And by its public addresses, since its services listen there too.
    ("93.184.216.1:443", "403 93.184.216.1 is an address of this machine"),
    ("http://[2606:2800:220:1::1]/", "403 2606:2800:220:1::1 is an address of this machine"),
    ("own.example:80", "403 own.example leads to an address of this machine"),
    // The network around it.
    ("10.0.0.1:80", "403 10.0.0.1 is a private address"),
    ("10.0.0.53:80", "403 10.0.0.53 is a private address"),
    ("http://172.16.0.1/", "403 172.16.0.1 is a private address"),
    ("172.31.255.254:443", "403 172.31.255.254 is a private address"),
    ("http://192.168.1.1/", "403 192.168.1.1 is a private address"),
    ("router.example:443", "403 router.example leads to a private address"),
    ("http://router.example/", "403 router.example leads to a private address"),
    ("[fc00::1]:443", "403 fc00::1 is a private address"),
    ("[fec0::1]:443", "403 fec0::1 is a private address"),
    ("[fe80::53]:443", "403 fe80::53 is a link-local address"),
    ("100.64.0.1:443", "403 100.64.0.1 is an address of a carrier's own network"),
    // The metadata servers of clouds.
    ("http://169.254.169.254/latest/meta-data/", "403 169.254.169.254 is a link-local address"),
    ("169.254.169.254:80", "403 169.254.169.254 is a link-local address"),
    ("http://metadata.example/", "403 metadata.example leads to a link-local address"),
    ("http://168.63.129.16/", "403 168.63.129.16 is an address of a cloud's own servers"),
    ("http://100.100.100.200/", "403 100.100.100.200 is an address of a carrier's own network"),
    ("http://192.0.0.192/", "403 192.0.0.192 is a reserved address"),
    ("http://[fd00:ec2::254]/", "403 fd00:ec2::254 is a private address"),
    ("six.example:80", "403 six.example leads to a private address"),
    // Addresses that no public host has.
    ("192.0.2.1:443", "403 192.0.2.1 is an address for documentation only"),
    ("192.88.99.1:443", "403 192.88.99.1 is a reserved address"),
    ("198.18.0.1:443", "403 198.18.0.1 is an address for benchmarks only"),
    ("198.51.100.1:443", "403 198.51.100.1 is an address for documentation only"),
    ("203.0.113.1:443", "403 203.0.113.1 is an address for documentation only"),
    ("224.0.0.1:443", "403 224.0.0.1 is a multicast address"),
    ("240.0.0.1:443", "403 240.0.0.1 is a reserved address"),
    ("255.255.255.255:443", "403 255.255.255.255 is a broadcast address"),
    ("[2001:db8::1]:443", "403 2001:db8::1 is an address for documentation only"),
    ("[3fff::1]:443", "403 3fff::1 is an address for documentation only"),
    ("[100::1]:443", "403 100::1 is a reserved address"),
    ("[4000::1]:443", "403 4000::1 is a reserved address"),
    ("[5f00::1]:443", "403 5f00::1 is a reserved address"),
    ("[ff02::1]:443", "403 ff02::1 is a multicast address"),
    // IPv4 addresses inside IPv6 addresses.
    ("[::ffff:127.0.0.1]:443", "403 ::ffff:127.0.0.1 is an IPv6 address with an IPv4 address inside"),
    (
        "http://[::ffff:a9fe:a9fe]/",
        "403 ::ffff:169.254.169.254 is an IPv6 address with an IPv4 address inside",
    ),
    ("[::ffff:0:a00:1]:443", "403 ::ffff:0:a00:1 is an IPv6 address with an IPv4 address inside"),
    ("[::a00:1]:443", "403 ::a00:1 is an IPv6 address with an IPv4 address inside"),
    ("[64:ff9b::a00:1]:443", "403 64:ff9b::a00:1 is an IPv6 address with an IPv4 address inside"),
    ("[64:ff9b:1::a00:1]:443", "403 64:ff9b:1::a00:1 is an IPv6 address with an IPv4 address inside"),
    ("[2002:a00:1::1]:443", "403 2002:a00:1::1 is an IPv6 address with an IPv4 address inside"),
    ("[2001::1]:443", "403 2001::1 is an IPv6 address with an IPv4 address inside"),
    ("mapped.example:443", "403 mapped.example leads to"),
    ("translated.example:443", "403 translated.example leads to an IPv6 address with an IPv4 address inside"),
    // Spellings that some programs read as an address.
    ("http://2130706433/", "400 \"2130706433\" is neither the name of a host nor an address"),
    ("http://0x7f000001/", "400 \"0x7f000001\" is neither"),
    ("0x7f.1:80", "400 \"0x7f.1\" is neither"),
    ("0177.0.0.1:80", "400 \"0177.0.0.1\" is neither"),
    ("127.1:80", "400 \"127.1\" is neither"),
    ("http://2852039166/latest/meta-data/", "400 \"2852039166\" is neither"),
    ("http://0xA9.254.0251.0376/", "400 \"0xA9.254.0251.0376\" is neither"),
    ("127.0.0.1.:80", "400 \"127.0.0.1.\" is neither"),
    ("http://public.example@127.0.0.1/", "400 \"public.example@127.0.0.1\" is not a host with a port"),
    // One bad address among good ones, and ports that are not for the web.
    ("mixed.example:443", "403 mixed.example leads to a private address"),
    ("public.example:22", "403 Port 22 is closed"),
    ("http://public.example:8080/", "403 Port 8080 is closed"),
    ("http://public.example:443/", "403 Port 443 is closed"),
    ("nowhere.example:443", "502 nowhere.example cannot be found"),
];

#[tokio::test]
async fn an_agent_reaches_public_hosts_and_nothing_else() {
    let Some(internet) = fake_internet::enter("web::an_agent_reaches_public_hosts_and_nothing_else").await
    else {
        return;
    };
    // All of them exist: only the egress proxy keeps an agent away.
    let listening = CLOSED.into_iter().chain(["127.0.0.1", OWN, OWN_IPV6]);
    for address in listening.clone() {
        let address: IpAddr = address.parse().unwrap();
        timeout(PATIENCE, TcpStream::connect((address, 80))).await.unwrap().unwrap();
    }
    assert_eq!(internet.connections().await.len(), listening.count());
    let mut world = World::new().await;
    let folder = world.folder_of("family");
    std::fs::write(folder.join("knock.py"), KNOCK).unwrap();
    let targets = |targets: &[&str]| std::fs::write(folder.join("targets.txt"), targets.join("\n")).unwrap();
    targets(&REFUSED.map(|(target, _)| target));
    let table = world.agent_runs("family", "python3 knock.py").await;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), REFUSED.len(), "{table}");
    for (row, (target, answer)) in rows.iter().zip(REFUSED) {
        assert!(row.starts_with(&format!("{target} | {answer}")), "{answer}\n{row}");
    }
    assert_eq!(internet.connections().await, [""; 0], "nothing was connected to");

    // Public hosts are reached, by name and by address, over IPv4 and IPv6.
    targets(&[
        "public.example:443",
        "public.example:80",
        "http://public.example/",
        "http://both.example/",
        "93.184.216.34:443",
        "[2606:2800:220:1::34]:443",
    ]);
    let reached = world.agent_runs("family", "python3 knock.py").await;
    assert!(reached.lines().all(|row| row.ends_with("| 200 OK")), "{reached}");
    let (four, six) = (format!("{PUBLIC}:"), format!("[{PUBLIC_IPV6}]:"));
    let expected = [(&four, 443), (&four, 80), (&four, 80), (&six, 80), (&four, 443), (&six, 443)];
    assert_eq!(internet.connections().await, expected.map(|(host, port)| format!("{host}{port}")));

    // A name may lead elsewhere at its second look-up. So it is looked up once, and the connection goes to
    // the address that was checked.
    targets(&["turning.example:443", "turning.example:443"]);
    let before = internet.lookups("turning.example");
    let turned = world.agent_runs("family", "python3 knock.py").await;
    assert_eq!(
        turned.lines().collect::<Vec<_>>(),
        [
            "turning.example:443 | 200 OK",
            "turning.example:443 | 403 turning.example leads to a loopback address; agents reach public addresses only.",
        ]
    );
    assert_eq!(internet.lookups("turning.example") - before, 2, "once for each request");
    assert_eq!(internet.connections().await, [format!("{PUBLIC}:443")]);

    // A redirect causes another request.
    for (place, word) in [
        ("10.0.0.1/", "10.0.0.1 is a private address"),
        ("169.254.169.254/latest/", "169.254.169.254 is a link-local address"),
        ("router.example/", "router.example leads to a private address"),
        ("127.0.0.1/", "the agent's own"),
        (&format!("{OWN}/"), "is an address of this machine"),
        (&format!("[{OWN_IPV6}]/"), "is an address of this machine"),
    ] {
        let followed =
            world.agent_runs("family", &format!("curl -sSg -L http://public.example/to/{place}")).await;
        // If curl takes a name for its own machine, it does not ask the proxy. Its own machine is the
        // container.
        let refused =
            followed.contains(word) || (word == "the agent's own" && followed.contains("curl: (7)"));
        assert!(refused, "{place}: {followed}");
    }
    let only_the_host = internet.connections().await;
    assert!(
        only_the_host.len() == 6 && only_the_host.iter().all(|one| *one == format!("{PUBLIC}:80")),
        "{only_the_host:?}"
    );
    world.ends().await;
}

#[tokio::test]
async fn curl_git_pip_and_the_engines_own_tools_find_the_way() {
    let Some(internet) =
        fake_internet::enter("web::curl_git_pip_and_the_engines_own_tools_find_the_way").await
    else {
        return;
    };
    // The tool names are those of kimi-cli; the other engine's fetch has a test of its own.
    let mut world = World::without_service_with(Engine::KimiCli).await;
    world.logged_in();
    world.start().await;
    let folder = world.folder_of("family");
    std::fs::write(folder.join("town.pem"), &internet.certificate).unwrap();
    let ran = world.agent_runs("family", "curl -sS http://public.example/").await;
    assert_eq!(ran, "the web\n");
    let ran = world.agent_runs("family", "curl -sS --cacert town.pem https://public.example/").await;
    assert_eq!(ran, "the web\n");
    let ran = world
        .agent_runs("family", "curl -sSv https://10.0.0.1/ 2>&1 | grep -o '403 10.0.0.1 is a private.*'")
        .await;
    assert_eq!(ran.trim_end(), "403 10.0.0.1 is a private address; agents reach public addresses only.");

    // The agent itself makes the files that the web's host serves.
    let made = world
        .agent_runs(
            "family",
            "mkdir -p served/simple/town served/files && cd served && export GIT_CONFIG_GLOBAL=/dev/null && \
             git init -q -b main work && cd work && echo from git >read.txt && git add read.txt && \
             git -c user.name=Kai -c user.email=kai@example.org commit -qm first && cd .. && \
             git clone -q --bare work repo.git && git -C repo.git update-server-info && \
             echo 'from fetch' >page.txt && \
             echo '<a href=/files/town-1.0-py3-none-any.whl>town</a>' >simple/town/index.html && \
             python3 -c 'import zipfile; z = zipfile.ZipFile(\"files/town-1.0-py3-none-any.whl\", \"w\"); \
             z.writestr(\"town.py\", \"print(1)\"); d = \"town-1.0.dist-info/\"; \
             z.writestr(d + \"METADATA\", \"Metadata-Version: 2.1\\nName: town\\nVersion: 1.0\\n\"); \
             z.writestr(d + \"WHEEL\", \"Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n\"); \
             z.writestr(d + \"RECORD\", \"\"); z.close()' && echo made",
        )
        .await;
    assert_eq!(made, "made\n");
    internet.serves(folder.join("served"));
    let ran = world
        .agent_runs("family", "git clone -q http://public.example/repo.git plain && cat plain/read.txt")
        .await;
    assert_eq!(ran, "from git\n");
    let secure = "git -c http.sslCAInfo=$PWD/town.pem clone -q https://public.example/repo.git secure && cat secure/read.txt";
    assert_eq!(world.agent_runs("family", secure).await, "from git\n");
    let refused =
        world.agent_runs("family", "git clone -q http://router.example/repo.git refused || true").await;
    assert!(refused.contains("403"), "{refused}");
    let pip = "python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check --cert town.pem \
               --index-url https://public.example/simple/ town && venv/bin/pip list --format freeze | grep town";
    assert_eq!(world.agent_runs("family", pip).await, "town==1.0\n");

    // Kimi searches and fetches for the engine. If Kimi cannot fetch, the engine does it itself.
    let searched = world.asks("family", "@Kai CALL SearchWeb {\"query\":\"town hall\"}").await;
    assert!(searched.contains("A practice result for \"town hall\""), "{searched}");
    let fetched =
        world.asks("family", "@Kai CALL FetchURL {\"url\":\"http://public.example/page.txt\"}").await;
    assert!(fetched.contains("A practice page of \"http://public.example/page.txt\""), "{fetched}");
    world.ends().await;
}

#[tokio::test]
async fn node_npm_and_the_second_engines_fetch_find_the_way() {
    let Some(internet) =
        fake_internet::enter("web::node_npm_and_the_second_engines_fetch_find_the_way").await
    else {
        return;
    };
    let mut world = World::without_service().await;
    world.settings(|settings| settings.engine = Engine::KimiCode);
    let allowed = WebPolicy::Allowlist(vec![HostName::parse("public.example").unwrap()]);
    world.add_group_with("some", Role::Member, allowed).await;
    world.start().await;
    let folder = world.folder_of("some");
    let fetch = |host: &str| {
        format!(
            "node -e 'fetch(\"http://{host}/\").then(async answer => console.log(answer.status, (await answer.text()).trim()))'"
        )
    };
    assert_eq!(world.agent_runs("some", &fetch("public.example")).await, "200 the web\n");
    let refused = world.agent_runs("some", &fetch("router.example")).await;
    assert!(refused.contains("fetch failed"), "{refused}");

    let made = "mkdir -p served town && cd town && echo '{\"name\":\"town\",\"version\":\"1.0.0\"}' >package.json && \
                npm pack --silent --pack-destination ../served && echo 'from fetch' >../served/page.txt";
    assert_eq!(world.agent_runs("some", made).await, "town-1.0.0.tgz\n");
    internet.serves(folder.join("served"));
    let npm = "npm install --silent --no-audit --no-fund --prefix user http://public.example/town-1.0.0.tgz && ls user/node_modules";
    assert_eq!(world.agent_runs("some", npm).await, "town\n");
    let fetched = world.asks("some", "@Kai CALL FetchURL {\"url\":\"http://public.example/page.txt\"}").await;
    assert!(fetched.contains("from fetch"), "{fetched}");
    world.ends().await;
}

#[tokio::test]
async fn a_groups_policy_holds_and_what_it_moved_is_counted() {
    let Some(internet) =
        fake_internet::enter("web::a_groups_policy_holds_and_what_it_moved_is_counted").await
    else {
        return;
    };
    // The tool names are those of kimi-cli; the other engine's fetch has a test of its own.
    let mut world = World::without_service_with(Engine::KimiCli).await;
    let allowed = HostName::parse("public.example").unwrap();
    for (group, web) in [("closed", WebPolicy::None), ("some", WebPolicy::Allowlist(vec![allowed]))] {
        world.add_group_with(group, Role::Member, web).await;
    }
    std::fs::write(world.folder_of("some").join("page.txt"), "from fetch").unwrap();
    internet.serves(world.folder_of("some"));
    world.start().await;

    let ran = world.agent_runs("closed", "curl -sS http://public.example/").await;
    assert_eq!(
        ran,
        "nanokimi: The web is closed to this chat's agent. The owner can open it: nanokimi groups set closed --web web\n"
    );
    let tools = world.asks("closed", "@Kai CALL SearchWeb {\"query\":\"x\"}").await;
    assert!(
        tools.contains("SearchWeb") && tools.contains("not found"),
        "the engine does not offer it: {tools}"
    );

    let ran = world.agent_runs("some", "curl -sS http://www.public.example/ http://both.example/").await;
    assert!(
        ran.starts_with(
            "the web\nnanokimi: both.example is not among the hosts that are open to this chat's agent."
        ),
        "{ran}"
    );
    // Kimi's own fetch would reach any host; the engine's fetch uses the proxy variables.
    let fetched = world.asks("some", "@Kai CALL FetchURL {\"url\":\"http://public.example/page.txt\"}").await;
    assert!(fetched.contains("from fetch"), "{fetched}");
    let fetched = world.asks("some", "@Kai CALL FetchURL {\"url\":\"http://router.example/\"}").await;
    assert!(fetched.contains("Status: 403"), "{fetched}");
    assert_eq!(internet.connections().await, [format!("{PUBLIC}:80"), format!("{PUBLIC}:80")]);
    let by_way_of_kimi =
        world.agent_runs("some", "curl -sS -d '{}' http://127.0.0.1:8787/coding/v1/fetch").await;
    assert!(by_way_of_kimi.contains("Kimi's own search and fetch reach every host"), "{by_way_of_kimi}");

    // The engine's own requests to the model do not count as requests to the web.
    world.stop().await;
    let moved = world.asked(
        "SELECT group_name || ' ' || (sent_bytes > 0) || ' ' || (received_bytes > 0) FROM web_traffic",
    );
    assert_eq!(moved, ["some 1 1"]);
    let today = Clock::System.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (first, last) = (today.yesterday().unwrap(), today.tomorrow().unwrap());
    let moved = world.store.web_traffic_by_group(first, last).await.unwrap();
    let [(name, WebTraffic { sent, received })] = moved.as_slice() else { panic!("{moved:?}") };
    assert!(
        name.as_str() == "some" && (100..10_000).contains(sent) && (100..10_000).contains(received),
        "{moved:?}"
    );
    world.start().await;
    world.ends().await;
}
