//! Several Kimi accounts, as chats and their owner see them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nanokimi::login::{self, AccountFiles, AccountRecords};
use nanokimi::types::AccountName;
use support::scripted_engine::Behaviour;

use crate::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);
const LOGIN: &str = r#"{"access_token":"work-token","refresh_token":"work-refresh","expires_at":4102444800.0,"scope":"kimi-code","token_type":"Bearer","expires_in":900.0}"#;

/// A service with the accounts `first` and `work`.
async fn with_two_accounts() -> World {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.forgets_the_key();
    fs::write(world.paths().login_file(), LOGIN.replace("work-", "first-")).unwrap();
    let account = login::read_imported_accounts(LOGIN.as_bytes()).unwrap().remove(0);
    let name = AccountName::parse("work").unwrap();
    login::import_account(&world.paths(), name, account, world.now()).await.unwrap();
    world.start().await;
    world
}

/// Where the login of `work` lies.
fn work_login(world: &World) -> PathBuf {
    let records = AccountRecords::read(&world.paths().accounts_file()).unwrap();
    AccountFiles::of(&world.paths(), &records.accounts[1].id).login
}

/// The first account's login has run out, and nobody can renew it.
fn first_login_ends(world: &World, token: &str) {
    let ended =
        LOGIN.replace("work-token", token).replace("\"work-refresh\"", "\"\"").replace("4102444800.0", "1.0");
    fs::write(world.paths().login_file(), ended).unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_the_first_login_ends_the_other_account_answers_and_the_owner_is_told_once_which_it_was() {
    let mut world = with_two_accounts().await;
    first_login_ends(&world, "one");
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: The login of your Kimi account first has ended; the other accounts answer. Please run `nanokimi login --account first` on the server, or `nanokimi accounts remove first`.");
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    world.silence(HOUR).await;
    world.stop().await;
    world.start().await;
    world.silence(HOUR).await;
    // Each login ends once, and that is told.
    world.logs_in("again");
    world.silence(HOUR).await;
    first_login_ends(&world, "two");
    assert!(world.hears_in("main").await.contains("account first has ended"));
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_that_somebody_has_removed_has_not_ended() {
    let mut world = with_two_accounts().await;
    world.logs_out();
    world.silence(HOUR).await;
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn when_no_account_is_left_what_is_asked_waits_until_one_comes_back() {
    let mut world = with_two_accounts().await;
    let kept = fs::read_to_string(work_login(&world)).unwrap();
    fs::remove_file(work_login(&world)).unwrap();
    world.logs_out();
    assert!(world.hears_in("main").await.contains("I cannot answer in any chat now."));
    world.says("family", "Ana", "@Kai hello").await;
    assert!(world.hears_in("family").await.contains("Your message is kept"));
    fs::write(work_login(&world), kept).unwrap();
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    world.ends().await;
}
