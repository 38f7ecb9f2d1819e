//! The program is killed again and again while it renews its login, and still has one at the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::fake_docker;
use tokio::time::sleep;

use crate::world::World;

const KILLS: usize = 40;
/// So short that it is renewed all the time.
const LIFETIME: Duration = Duration::from_millis(400);

/// `nanokimi run` in this world, with a Docker that only says that it is there.
fn start(world: &World, socket: &Path) -> Child {
    let root = world.paths.root();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanokimi"));
    command.arg("--home").arg(root).arg("run").env_clear().env("HOME", root);
    command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    command.env("KIMI_CODE_OAUTH_HOST", world.practice.oauth_host());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a killed process has left in the place of an answer.
fn left_behind(world: &World) -> Option<PathBuf> {
    let names = world.names();
    let name = names.iter().find(|name| name.starts_with("kimi-code.json.after-"))?;
    Some(world.paths.credentials_folder().join(name))
}

#[tokio::test]
async fn a_service_that_is_killed_while_it_renews_has_a_login_at_its_next_start() {
    let world = World::new(LIFETIME).await;
    let groups = ["groups", "add", "main", "--main"];
    let added = Command::new(env!("CARGO_BIN_EXE_nanokimi"))
        .arg("--home")
        .arg(world.paths.root())
        .args(groups)
        .env_clear()
        .env("HOME", world.paths.root())
        .output()
        .unwrap();
    assert!(added.status.success(), "{added:?}");
    let socket = world.paths.root().join("docker.sock");
    fake_docker::start(&socket, fake_docker::Image::Built);
    world.log_in(Duration::ZERO);
    for kill in 0..KILLS {
        let mut service = start(&world, &socket);
        world.refreshes(world.login_server.counts().refreshes + 1).await;
        // A different moment of the renewal, or of the pause after it, each time.
        sleep(Duration::from_micros(kill as u64 * 617 % 9000)).await;
        service.kill().unwrap();
        service.wait().unwrap();
        if world.login_server.can_refresh_from(&world.text()) {
            continue;
        }
        let left =
            fs::read_to_string(left_behind(&world).expect("there was a place for the answer")).unwrap();
        if !world.login_server.can_refresh_from(&left) {
            // Nothing can help here: the server had changed its mind, and had not told us yet.
            assert_eq!(left.trim(), "", "an answer was there and is not whole");
            world.log_in(Duration::ZERO);
        }
    }
    let mut service = start(&world, &socket);
    world.refreshes(world.login_server.counts().refreshes + 2).await;
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(world.login_server.counts().refreshes_refused, 0, "a spent token was never used again");
}
