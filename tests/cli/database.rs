//! A file that is no database, and a database that is damaged, is newer, belongs to others, or is in use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Stdio;

use insta::assert_snapshot;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use support::fake_docker::{self, Image};

use crate::world::Home;

/// The verbs that need only the database.
const NEED_THE_DATABASE: [&[&str]; 5] = [
    &["status"],
    &["groups", "list"],
    &["groups", "add", "more"],
    &["groups", "remove", "family"],
    &["chat", "--group", "family"],
];

/// The refusal of this home. It is the same for every verb that needs the database; `doctor` says it too.
fn refusal(home: &Home) -> String {
    let refusal = home.all_refuse(&NEED_THE_DATABASE);
    let before = home.listing();
    let doctor = home.run(&["doctor"]);
    assert_eq!(home.listing(), before, "doctor looks and changes nothing");
    assert!(doctor.code == Some(1) && doctor.stdout.contains(&format!("BROKEN   {refusal}\n")), "{doctor:?}");
    refusal
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let home = Home::new();
    fs::write(home.database(), "Dear diary, ".repeat(1000)).unwrap();
    assert_snapshot!(refusal(&home), @"HOME/nanokimi/store/nanokimi.db is not a database of nanokimi; restore it from a copy, or move it away to begin anew. Nothing was changed");
}

#[test]
fn a_folder_in_its_place_is_left_alone() {
    let home = Home::new();
    fs::remove_file(home.database()).unwrap();
    fs::create_dir(home.database()).unwrap();
    assert_snapshot!(refusal(&home), @"HOME/nanokimi/store/nanokimi.db is not a database of nanokimi; restore it from a copy, or move it away to begin anew. Nothing was changed");
}

#[test]
fn a_damaged_one_is_left_alone() {
    let home = Home::new();
    let file = fs::OpenOptions::new().write(true).open(home.database()).unwrap();
    let length = file.metadata().unwrap().len();
    // Everything except the first page, which holds the schema.
    file.write_all_at(&vec![0xff; usize::try_from(length).unwrap() - 4096], 4096).unwrap();
    assert_snapshot!(refusal(&home), @"The database HOME/nanokimi/store/nanokimi.db is damaged; stop nanokimi and restore it from a copy, or move it away to begin anew");
}

#[test]
fn one_that_may_not_be_read_is_named_with_who_must_own_it() {
    let home = Home::new();
    fs::set_permissions(home.database(), fs::Permissions::from_mode(0o000)).unwrap();
    assert_snapshot!(refusal(&home), @"The database HOME/nanokimi/store/nanokimi.db cannot be opened for writing; it and its folder must belong to the user who runs nanokimi, on a disk that can be written to");
}

#[test]
fn one_of_a_newer_nanokimi_is_left_alone() {
    let home = Home::new();
    fs::remove_file(home.database()).unwrap();
    let newer = Connection::open(home.database()).unwrap();
    newer.execute_batch("CREATE TABLE later (x); PRAGMA user_version = 999").unwrap();
    drop(newer);
    let refused = refusal(&home);
    let (before, after) = refused.split_once("this one knows ").unwrap();
    let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    assert_snapshot!(format!("{before}this one knows N{after}"), @"The database was written by a newer nanokimi (its version is 999, this one knows N); install the newer nanokimi again. Nothing was changed");
}

#[test]
fn one_that_another_program_keeps_is_not_waited_for_for_ever() {
    let home = Home::new();
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_snapshot!(home.run(&["groups", "add", "more"]).refusal(), @"Another program works on the database HOME/nanokimi/store/nanokimi.db just now; end that program, or try again later");
    home.run(&["groups", "list"]).done();
}

#[test]
fn the_second_nanokimi_is_told_who_is_there() {
    let home = Home::new();
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    let mut first = home.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(first.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().ends_with("Ready")), "the first one runs");
    let holder = fs::read_to_string(home.path("nanokimi/store/nanokimi.lock")).unwrap();
    let (verb, process) = holder.split_once(", process ").unwrap();
    assert_eq!(verb, "`nanokimi run`");

    let refusal = home.all_refuse(&[&["run"], &["chat"], &["chat", "--say", "hello"]]);
    assert_snapshot!(refusal.replace(process, "1234"), @"nanokimi already works on this install (`nanokimi run`, process 1234); stop that one first: systemctl --user stop nanokimi, or Ctrl-C where it runs");
    let status = home.run(&["status"]).done().stdout;
    assert!(status.contains(&format!("service              {holder}\n")), "{status}");
    home.run(&["groups", "add", "more"]).done();

    let process = Pid::from_raw(process.parse().unwrap()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    assert!(first.wait().unwrap().success(), "who is asked to stop has done well");
    let status = home.run(&["status"]).done().stdout;
    assert!(
        status.contains("not running; `nanokimi service install` (or `nanokimi run`) starts it"),
        "{status}"
    );
}
