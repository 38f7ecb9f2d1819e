//! Which system calls an agent may use: Docker's default profile for a container without capabilities, and
//! less.
//!
//! `container/seccomp.txt` is Docker's list; the constants below are all that differs from it. A call that is
//! listed nowhere is refused. Programs for another architecture, such as 32-bit ones, end at their first
//! call: only the machine's own is allowed, since another one's calls would lead around the rule for
//! `socket`.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// What Docker allows to a container without capabilities, whatever the arguments.
const DOCKERS: &str = include_str!("../../container/seccomp.txt");

/// Calls that Docker allows, or did in some version, and we do not.
const CLOSED: [&str; 10] = [
    // A second way to most system calls, which no filter sees, and the source of many holes in kernels.
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    // Memory of other processes; debuggers use ptrace, which stays.
    "process_mrelease",
    "process_vm_readv",
    "process_vm_writev",
    // Memory that not even the kernel sees.
    "memfd_secret",
    // Takes the whole disk in an instant, beyond the limit on a file's size, and does not count as written.
    "fallocate",
    // For 16-bit programs.
    "modify_ldt",
    // The 32-bit way to `socket`, of which a filter cannot read the family.
    "socketcall",
];

/// Those of [`CLOSED`] that look like an older kernel: programs try them first and then do without.
const UNKNOWN: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// Those of [`CLOSED`] that look like a file system that has no such thing. C's `posix_fallocate` then writes
/// instead; git, npm, pip and SQLite do without.
const UNSUPPORTED: [&str; 1] = ["fallocate"];

/// The address families of sockets: UNIX, INET, INET6, NETLINK (by which programs ask for the network's
/// interfaces). Docker allows all, or all but vsock, by which a virtual machine's host can be reached past
/// every network's fence.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
const BY_FAMILY: [&str; 2] = ["socket", "socketpair"];

/// The kernel looks at the lower half of such an argument only, and so must a rule.
const LOWER_HALF: u64 = 0xffff_ffff;

/// `clone` may make threads and processes, not namespaces: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}. As
/// Docker's.
const NAMESPACES: u64 = 0x7e02_0000;
/// PER_LINUX, PER_LINUX32, each also with UNAME26, and the question which one it is. As Docker's.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Docker's answer to `clone3`, whose flags no filter can read: programs fall back on `clone`.
const ENOSYS: u32 = 38;
const EOPNOTSUPP: u32 = 95;

/// The profile in the form that Docker takes in a container's `SecurityOpt`.
pub fn seccomp_security_option() -> &'static str {
    static OPTION: LazyLock<String> = LazyLock::new(|| format!("seccomp={}", build_seccomp_profile()));
    &OPTION
}

fn build_seccomp_profile() -> Value {
    let whatever = allowed_syscalls();
    let allow = |names: Value, arguments: Value| json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": arguments });
    let answer =
        |names: Value, errno: u32| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
    let masked = |mask: u64, value: u64| json!([{ "index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }]);
    let mut rules = vec![allow(json!(whatever), json!([]))];
    rules.extend(FAMILIES.map(|family| allow(json!(BY_FAMILY), masked(LOWER_HALF, family))));
    rules.extend(PERSONALITIES.map(|persona| {
        allow(json!(["personality"]), json!([{ "index": 0, "value": persona, "op": "SCMP_CMP_EQ" }]))
    }));
    rules.push(allow(json!(["clone"]), masked(NAMESPACES, 0)));
    rules.push(answer(json!(["clone3"]), ENOSYS));
    rules.push(answer(json!(UNKNOWN), ENOSYS));
    rules.push(answer(json!(UNSUPPORTED), EOPNOTSUPP));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules })
}

/// The calls that are allowed whatever their arguments are.
fn allowed_syscalls() -> Vec<&'static str> {
    docker_default_syscalls().filter(|name| !CLOSED.contains(name) && !BY_FAMILY.contains(name)).collect()
}

fn docker_default_syscalls() -> impl Iterator<Item = &'static str> {
    DOCKERS.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What Docker keeps closed to a container without capabilities.
    const DOCKER_CLOSES: [&str; 47] = [
        "acct",
        "add_key",
        "bpf",
        "chroot",
        "clock_settime",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "get_mempolicy",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "mount",
        "mount_setattr",
        "move_mount",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "process_madvise",
        "quotactl",
        "reboot",
        "request_key",
        "set_mempolicy",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "swapoff",
        "swapon",
        "syslog",
        "umount2",
        "unshare",
        "userfaultfd",
        "vhangup",
    ];

    #[test]
    fn what_docker_closes_stays_closed_and_what_we_close_was_open() {
        let dockers: BTreeSet<&str> = docker_default_syscalls().collect();
        assert!(dockers.len() > 350, "{}", dockers.len());
        let opened: Vec<&str> = DOCKER_CLOSES.into_iter().filter(|name| dockers.contains(name)).collect();
        assert_eq!(opened, [""; 0]);
        for by_arguments in ["clone", "clone3", "personality"] {
            assert!(!dockers.contains(by_arguments));
        }
        for name in CLOSED.iter().chain(&BY_FAMILY) {
            assert!(dockers.contains(name) && !allowed_syscalls().contains(name), "{name}");
        }
        for name in UNKNOWN.iter().chain(&UNSUPPORTED) {
            assert!(CLOSED.contains(name), "{name}");
        }
        assert_eq!(allowed_syscalls().len(), dockers.len() - CLOSED.len() - BY_FAMILY.len());
    }

    #[test]
    fn the_rest_of_the_profile_depends_on_arguments() {
        let profile = build_seccomp_profile();
        let rules = profile["syscalls"].as_array().unwrap();
        let shown: Vec<String> = rules[1..]
            .iter()
            .map(|rule| {
                let args = &rule["args"][0];
                format!(
                    "{} {} {} {} {}",
                    rule["names"],
                    rule["action"].as_str().unwrap(),
                    rule["errnoRet"],
                    args["value"],
                    args["valueTwo"]
                )
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        ["socket","socketpair"] SCMP_ACT_ALLOW null 4294967295 1
        ["socket","socketpair"] SCMP_ACT_ALLOW null 4294967295 2
        ["socket","socketpair"] SCMP_ACT_ALLOW null 4294967295 10
        ["socket","socketpair"] SCMP_ACT_ALLOW null 4294967295 16
        ["personality"] SCMP_ACT_ALLOW null 0 null
        ["personality"] SCMP_ACT_ALLOW null 8 null
        ["personality"] SCMP_ACT_ALLOW null 131072 null
        ["personality"] SCMP_ACT_ALLOW null 131080 null
        ["personality"] SCMP_ACT_ALLOW null 4294967295 null
        ["clone"] SCMP_ACT_ALLOW null 2114060288 0
        ["clone3"] SCMP_ACT_ERRNO 38 null null
        ["io_uring_enter","io_uring_register","io_uring_setup"] SCMP_ACT_ERRNO 38 null null
        ["fallocate"] SCMP_ACT_ERRNO 95 null null
        "#);
        assert!(
            seccomp_security_option().starts_with("seccomp={") && seccomp_security_option().len() < 16 * 1024,
            "{}",
            seccomp_security_option().len()
        );
    }
}
