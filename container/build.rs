//! Compiles `container/agent-runner`, the first process of every agent container, for `include_bytes!`:
//! static, so that it runs in any image, and the same bytes for the same sources wherever it is built,
//! because the image's tag is made of it. And asks the linker for short tables of relocations.

#![allow(clippy::disallowed_methods, reason = "cargo tells a build script everything by its environment")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables of the build around us that must reach the inner one: where cargo finds packages, and the linker
/// of a foreign target. All other `CARGO_…` are meant for the package that is being built.
const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];

/// Variables that would make another binary, or (`RUSTC_WORKSPACE_WRAPPER`: clippy) no binary at all.
const DROPPED: [&str; 4] = ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOCFLAGS"];

/// The glibc that reads packed relocations. Unpacked, they are half a megabyte more that each start reads and keeps.
const PACKED_RELOCATIONS_SINCE: (u32, u32) = (2, 36);

fn main() {
    let sources = PathBuf::from(required_variable("CARGO_MANIFEST_DIR")).join("container/agent-runner");
    let out = PathBuf::from(required_variable("OUT_DIR"));
    for source in ["Cargo.toml", "Cargo.lock", "src"] {
        println!("cargo:rerun-if-changed={}", sources.join(source).display());
    }
    println!("cargo:rerun-if-changed=container/build.rs");
    if runs_where_it_is_built() && glibc_version().is_some_and(|version| version >= PACKED_RELOCATIONS_SINCE)
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }

    let built = compile_agent_runner(&sources, &out.join("agent-runner-target"));
    let runner = out.join("agent-runner");
    std::fs::copy(&built, &runner)
        .unwrap_or_else(|error| panic!("Failed to copy {}: {error}", built.display()));
}

fn runs_where_it_is_built() -> bool {
    required_variable("TARGET") == required_variable("HOST")
}

/// This machine's glibc, if it has one: `glibc 2.36`.
fn glibc_version() -> Option<(u32, u32)> {
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(asked.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Runs cargo on the package and says where the binary lies.
fn compile_agent_runner(sources: &Path, target_folder: &Path) -> PathBuf {
    let target = required_variable("TARGET");
    let mut cargo = Command::new(required_variable("CARGO"));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let linker = name.starts_with("CARGO_TARGET_") && name.ends_with("_LINKER");
        let leaks = name.starts_with("CARGO_") && !linker && !KEPT.iter().any(|kept| name.starts_with(kept));
        if leaks || DROPPED.contains(&name.as_str()) {
            cargo.env_remove(&name);
        }
    }
    // The order of `--remap-path-prefix` matters: the last that fits wins.
    let packages = env::var_os("CARGO_HOME").map_or_else(|| user_home_folder().join(".cargo"), PathBuf::from);
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
        format!("--remap-path-prefix={}=cargo", packages.display()),
        format!("--remap-path-prefix={}=agent-runner", sources.display()),
    ];
    let status = cargo
        .args(["build", "--release", "--locked", "--target", &target])
        .arg("--manifest-path")
        .arg(sources.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_folder)
        // An explicit target keeps these flags away from the build scripts and macros of dependencies.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .status();
    match status {
        Ok(status) if status.success() => target_folder.join(target).join("release/agent-runner"),
        Ok(status) => panic!("Failed to compile {}: {status}", sources.display()),
        Err(error) => panic!("Failed to run cargo: {error}"),
    }
}

fn user_home_folder() -> PathBuf {
    env::home_dir().expect("cargo ran, so there is a home")
}

fn required_variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
