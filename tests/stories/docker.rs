//! Docker starts later than the service, or stops for an upgrade. Questions that come meanwhile are answered
//! afterwards.

use std::time::Duration;

use nanokimi::types::Outage;
use support::scripted_engine::Behaviour;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_docker_that_comes_up_a_moment_later_is_nobodys_news() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.goes_away();
    world.start().await;
    world.says("family", "Ana", "@Kai are you there?").await;
    world.silence(Duration::from_secs(15)).await;
    world.docker.comes_back();
    let back = world.seconds();
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai are you there?");
    assert!(world.seconds() - back < 10, "{}", world.seconds() - back);
    world.silence(MINUTE * 60).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_docker_that_does_not_come_up_is_told_and_what_is_asked_is_kept() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.goes_away();
    world.start().await;
    world.says("family", "Ana", "@Kai are you there?").await;
    let mut told = [world.hears().await, world.hears().await];
    told.sort_by(|one, other| one.group.cmp(&other.group));
    insta::assert_snapshot!(told[0].text, @"Kai: I cannot answer now. Docker, the program that I run in on the server, does not respond. Please ask the owner to run `nanokimi doctor`, which says what to repair. Your message is kept; I answer it as soon as that is over.");
    insta::assert_snapshot!(told[1].text, @"Kai: I cannot answer in any chat now. Docker, the program that I run in on the server, does not respond. Please run `nanokimi doctor` on the server, which says how to start it. After a restart or an upgrade it may come back by itself. What is asked meanwhile is kept and answered then.");
    world.says("family", "Bo", "@Kai hello?").await;
    world.says("main", "Owner", "what is wrong?").await;
    world.silence(MINUTE * 60).await;
    let [(outage, _)] = world.store.open_outages().await.unwrap()[..] else { panic!("there is one outage") };
    assert_eq!(outage, Outage::NoDocker);

    world.docker.comes_back();
    let back = world.seconds();
    let mut answers = [world.hears_in_any().await, world.hears_in_any().await];
    answers.sort();
    assert_eq!(answers, ["Kai: echo: @Kai hello?", "Kai: echo: what is wrong?"]);
    assert!(world.seconds() - back < 10, "{}", world.seconds() - back);
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_asks_only_the_owner_is_told_after_two_minutes() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.goes_away();
    world.start().await;
    let told = world.hears_in("main").await;
    assert!(told.contains("Docker") && (120..130).contains(&world.seconds()), "{told} {}", world.seconds());
    world.silence(MINUTE * 60).await;
    world.docker.comes_back();
    world.silence(MINUTE).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_in_the_middle_of_a_turn_is_outlived() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai think").await;
    world.prompt().await.step();
    world.docker.goes_away();
    world.silence(Duration::from_secs(20)).await;
    world.docker.comes_back();
    world.prompt().await.answer("I have thought.");
    assert_eq!(world.hears_in("family").await, "Kai: I have thought.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_goes_before_anything_new_is_launched() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai think").await;
    world.prompt().await.step();
    world.kill().await;
    assert_eq!(world.docker.running(), 1);
    world.docker.stops_answering();
    world.start().await;
    world.passes(Duration::from_secs(10)).await;
    world.docker.comes_back();
    world.prompt().await.answer("I have thought.");
    assert_eq!(world.docker.running(), 1, "the old one is gone");
    assert_eq!(world.hears_in("family").await, "Kai: I have thought.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_docker_can_be_stopped() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.goes_away();
    world.start().await;
    world.says("family", "Ana", "@Kai are you there?").await;
    let asked = world.seconds();
    // A launch that had begun is waited for, and may end as an outage that the owner is told of.
    let heard = world.stop_hearing().await;
    assert!(heard.iter().all(|heard| heard.text.contains("Docker, the program that I run in")), "{heard:?}");
    assert!(world.seconds() - asked < 45, "{}", world.seconds() - asked);
    world.start().await;
    world.docker.comes_back();
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai are you there?");
    world.ends().await;
}
