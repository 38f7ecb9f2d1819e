//! A disk without room, a read-only disk, a home that is no folder or belongs to others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use insta::assert_snapshot;

use crate::world::{Home, NANOKIMI, Said, need_user_namespaces};

/// What happens to a disk of 2 MB after an install was made on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Full,
    ReadOnly,
}

/// Runs the binary with a disk of its own as home; no file on that disk may change. `made` is what exists
/// there before.
fn on(disk: Disk, made: &str, arguments: &str) -> Said {
    need_user_namespaces();
    let outside = tempfile::tempdir().unwrap();
    let home = outside.path().join("home");
    fs::create_dir(&home).unwrap();
    let spoil = match disk {
        Disk::Full => "cat /dev/zero >\"$HOME/filling\" 2>/dev/null || true",
        Disk::ReadOnly => "mount -o remount,ro tmpfs \"$HOME\"",
    };
    let script = format!(
        r#"set -eu
        mount -t tmpfs -o size=2m,mode=700 tmpfs "$HOME"
        cd "$HOME"
        {made}
        {spoil}
        # SQLite's scratch files come and go with whoever opens the database; the lock says who works here.
        listing() {{ find . -type f ! -name nanokimi.lock ! -name '*.db-shm' -size +0 -exec sha256sum {{}} +; }}
        listing >../before
        code=0
        "{NANOKIMI}" {arguments} >../stdout 2>../stderr || code=$?
        listing >../after
        echo "$code" >../code"#
    );
    let mut unshare = Command::new("timeout");
    unshare.args(["60", "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    unshare.env_clear().env("HOME", &home).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = unshare.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = |name: &str| {
        let text = fs::read_to_string(outside.path().join(name)).unwrap();
        text.replace(home.to_str().unwrap(), "HOME")
    };
    assert_eq!(told("after"), told("before"), "{arguments} changed a file");
    Said { code: told("code").trim().parse().ok(), stdout: told("stdout"), stderr: told("stderr") }
}

fn made() -> String {
    format!(r#""{NANOKIMI}" groups add main --main 2>/dev/null; "{NANOKIMI}" groups add family 2>/dev/null"#)
}

#[test]
fn a_full_disk_is_named() {
    let [add, remove] =
        ["groups add more", "groups remove family"].map(|verb| on(Disk::Full, &made(), verb).refusal());
    assert_eq!(remove, add);
    assert_snapshot!(add, @"There is no space left for the database HOME/nanokimi/store/nanokimi.db; make room on that disk and try again");
}

#[test]
fn a_full_disk_is_named_on_a_fresh_machine() {
    assert_snapshot!(on(Disk::Full, ":", "groups add main --main").refusal(), @"Failed to write HOME/nanokimi/groups/global/KIMI.md: there is no space left on that disk; make room and try again");
}

#[test]
fn doctor_names_a_full_disk() {
    let said = on(Disk::Full, &made(), "doctor");
    assert_eq!(said.code, Some(1));
    assert!(said.stdout.contains("BROKEN   Only 0 MB are free on the disk\n"), "{said:?}");
}

#[test]
fn a_disk_that_can_only_be_read_is_named() {
    assert_snapshot!(on(Disk::ReadOnly, &made(), "groups add more").refusal(), @"The database HOME/nanokimi/store/nanokimi.db cannot be opened for writing; it and its folder must belong to the user who runs nanokimi, on a disk that can be written to");
    assert_snapshot!(on(Disk::ReadOnly, ":", "groups add main --main").refusal(), @"Failed to make the folder HOME/nanokimi/store: that disk can only be read; choose another folder with --home");
}

#[test]
fn who_only_looks_needs_no_room_and_writes_nothing() {
    for disk in [Disk::Full, Disk::ReadOnly] {
        for (verb, shown) in [
            ("status", "messages waiting"),
            ("usage", "family"),
            ("groups list", "family"),
            ("doctor", "groups"),
        ] {
            let said = on(disk, &made(), verb);
            assert!(said.code == Some(0) || verb == "doctor", "{disk:?} {verb}: {said:?}");
            assert!(said.stdout.contains(shown), "{disk:?} {verb}: {said:?}");
        }
    }
}

#[test]
fn a_home_of_others_is_named() {
    let home = Home::empty();
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o555)).unwrap();
    assert_snapshot!(home.refuses(&["groups", "add", "main", "--main"]), @"Failed to make the folder HOME/nanokimi/store: permission denied; it must belong to the user who runs nanokimi");
    let doctor = home.run(&["doctor"]);
    assert!(
        doctor.code == Some(1) && doctor.stdout.contains("BROKEN   Nothing can be written in HOME"),
        "{doctor:?}"
    );
}

#[test]
fn a_home_that_is_a_file_is_named() {
    let home = Home::empty();
    home.write("notes.txt", "milk");
    let home = {
        let notes = home.path("notes.txt");
        home.set("NANOKIMI_HOME", notes.to_str().unwrap())
    };
    let refusal = home.all_refuse(&[
        &["status"],
        &["groups", "list"],
        &["groups", "add", "x"],
        &["run"],
        &["chat"],
        &["build"],
        &["--home", "notes.txt", "status"],
    ]);
    assert_snapshot!(refusal, @"HOME/notes.txt is a file; name the folder of an install with --home or NANOKIMI_HOME");
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert_snapshot!(doctor.stdout, @"BROKEN   HOME/notes.txt is a file; name the folder of an install with --home or NANOKIMI_HOME");
}
