//! The rules of the architecture as tests: which module may import which, how every file begins, what the
//! documents promise.
//!
//! Works on the text of the tree, so it needs nothing else. Every rule is also tried on a text that breaks
//! it: a rule that cannot fail is no rule.

#[path = "architecture/documents.rs"]
mod documents;
#[path = "architecture/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};

use nanokimi::types::Engine;
use text::{Code, File, read, rust_files, text_files, without_tests};

// -------------------------------------------------------------------------------------------------------
// The import table
// -------------------------------------------------------------------------------------------------------

/// `src/lib.rs` shows the same table to readers; `the_table_is_the_one_in_lib_rs` compares the two.
const LEVELS: [&[&str]; 5] = [
    &["types", "clock", "rate", "backoff", "paths", "panics", "writing", "kimi_http"],
    &[
        "config",
        "router",
        "commands",
        "rules",
        "render",
        "notices",
        "repair",
        "tools",
        "api_error",
        "schedule",
    ],
    &["folders", "store", "bridge", "container", "agent", "login", "egress", "practice", "transcribe"],
    &["session", "service", "checks", "gateway"],
    &["cli"],
];

/// Modules whose decisions are functions of values: they use nothing of [`EFFECTS`].
const PURE: [&str; 14] = [
    "types",
    "backoff",
    "paths",
    "writing",
    "config",
    "router",
    "commands",
    "rules",
    "render",
    "notices",
    "repair",
    "tools",
    "api_error",
    "schedule",
];
const EFFECTS: [&str; 6] = ["tokio", "std::fs", "std::net", "std::process", "std::env", "std::thread"];

/// Imports within one level. The edges (level 2) have no such imports: each is one foreign world.
const NEIGHBOURS: [(&str, &str, &str); 15] = [
    ("kimi_http", "panics", "a client is made beside the tasks, and may panic"),
    ("kimi_http", "types", "what it carries is a secret"),
    ("paths", "types", "a group's folders are named after its checked name"),
    ("config", "render", "the time zone is the one that prompts can show"),
    ("config", "notices", "the language is one that notices have"),
    ("notices", "render", "a time is told as it is everywhere"),
    ("router", "commands", "which texts are commands is each command's own"),
    ("commands", "notices", "a command's answer is a notice"),
    ("tools", "rules", "a task is asked for in the words that rules checks"),
    ("rules", "commands", "what a command answers is stored with its message"),
    ("rules", "notices", "what is decided to be said is a notice"),
    ("rules", "render", "what the agent reads of edits, reactions and quotes is kept in its words"),
    ("rules", "schedule", "what is due of a task follows from its schedule"),
    ("rules", "router", "what becomes of a message depends on what it does to the agent"),
    ("service", "session", "dispatch starts the sessions and is told how they do"),
];

/// Modules below that a module must not know, with the reason.
const STRANGERS: [(&str, &str, &str); 3] = [
    ("store", "router", "rules says what becomes of a message"),
    ("store", "notices", "rules says what is told to whom"),
    ("store", "render", "rules says in which words the agent reads what had none"),
];

/// The modules that may name a foreign crate. A crate of `Cargo.toml` that is not here, or that no module
/// uses, fails.
const CRATES: [(&str, &[&str]); 40] = [
    ("agent_client_protocol", &["agent"]),
    ("anyhow", EVERYWHERE),
    ("axum", &["egress", "practice"]),
    ("base64", &["agent", "login"]),
    ("bollard", &["container"]),
    ("bytes", &["agent", "bridge", "container", "egress", "practice"]),
    ("clap", &["cli"]),
    ("cronexpr", &["schedule"]),
    ("dialoguer", &["cli"]),
    ("dotenvy", &["config"]),
    ("embedded_graphics", &["render"]),
    ("futures_util", &["container", "egress", "panics", "practice"]),
    ("hex", &["container", "login", "store", "transcribe"]),
    ("hyper", &["egress", "practice"]),
    ("hyper_util", &["egress", "practice"]),
    ("indicatif", &["cli"]),
    ("jiff", EVERYWHERE),
    ("png", &["render"]),
    ("pulldown_cmark", &["render"]),
    ("qrcode", &["cli"]),
    ("rand", &["login", "bridge", "session", "store", "transcribe"]),
    ("reqwest", &["login", "bridge", "egress", "kimi_http", "transcribe"]),
    ("rmcp", &["egress"]),
    ("rusqlite", &["store"]),
    ("rustix", &["login", "bridge", "checks", "cli", "container", "egress", "folders", "store", "types"]),
    ("rustls", &["bridge", "kimi_http"]),
    ("sd_notify", &["cli"]),
    ("serde", &["agent", "login", "egress", "gateway", "tools"]),
    (
        "serde_json",
        &[
            "agent",
            "login",
            "bridge",
            "cli",
            "api_error",
            "container",
            "egress",
            "gateway",
            "practice",
            "session",
            "tools",
            "rules",
            "transcribe",
        ],
    ),
    ("sha2", &["login", "bridge", "container"]),
    ("strsim", &["config"]),
    ("tar", &["container"]),
    ("tokio", EVERYWHERE),
    ("toml", &["login"]),
    ("tracing", EVERYWHERE),
    ("tracing_subscriber", &["cli"]),
    ("unicode_segmentation", &["render"]),
    ("unicode_width", &["render"]),
    ("uuid", &["login"]),
    ("whatsapp_rust", &["bridge"]),
];
const EVERYWHERE: &[&str] = &["everywhere"];

/// Only one module prints, so that stdout stays data.
const PRINTERS: [&str; 1] = ["cli"];
const PRINTING: [&str; 7] =
    ["println!", "print!", "eprintln!", "eprint!", "std::io::stdout", "std::io::stderr", "std::io::stdin"];

#[test]
fn modules_import_downwards_only() {
    let files = rust_files("src/");
    assert!(files.len() > 40, "only {} files were found", files.len());
    let faults: Vec<String> = files.iter().flat_map(|file| import_faults(&file.path, &file.text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));

    let planted = [
        ("src/store/inbox.rs", "use crate::bridge::Event;", "store imports bridge, which is another edge"),
        (
            "src/store/inbox.rs",
            "use crate::{types::Group, session};",
            "store imports session, which is above it",
        ),
        ("src/router.rs", "fn f() { crate::store::open(); }", "router imports store, which is above it"),
        ("src/render/prompt.rs", "use super::super::cli;", "render imports cli, which is above it"),
        (
            "src/render/mod.rs",
            "mod tests { use super::super::egress; }",
            "render imports egress, which is above it",
        ),
        ("src/types.rs", "use crate::config::Config;", "types imports config, which is above it"),
        ("src/router.rs", "use crate::notices;", "router imports its neighbour notices"),
        ("src/store/inbox.rs", "use crate::router;", "store imports router; rules says"),
        (
            "src/store/outbox/row.rs",
            "mod tests { use crate::notices::x; }",
            "store imports notices; rules says",
        ),
        ("src/session/turn.rs", "use crate::magic;", "session imports magic, which is in no level"),
        ("src/stray.rs", "use crate::types;", "stray is in no level"),
        ("src/main.rs", "fn main() { nanokimi::store::open() }", "main.rs names store; it may name cli only"),
        ("src/render/mod.rs", "use std::fs::File;", "render is pure and names std::fs"),
        ("src/config.rs", "use std::{env, fmt};", "config is pure and names std::env"),
    ];
    for (path, code, expected) in planted {
        let found = import_faults(path, code).join("\n");
        assert!(found.contains(expected), "{path}: {code:?} should have been found, was {found:?}");
    }
    for (path, code) in [
        ("src/store/inbox.rs", "use crate::{rules, types::{Group, GroupName}};"),
        ("src/store/inbox.rs", "mod tests { use super::super::turns; use super::*; }"),
        ("src/agent/mod.rs", "// use crate::cli;\nconst A: &str = \"crate::cli\";"),
        ("src/cli/run.rs", "use super::install;"),
        ("src/config.rs", "use crate::{notices, render};"),
    ] {
        assert_eq!(import_faults(path, code), [""; 0], "{code:?}");
    }
}

#[test]
fn the_table_is_the_one_in_lib_rs() {
    let lib = read("src/lib.rs");
    let rows: Vec<Vec<&str>> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.strip_prefix(|c: char| c.is_ascii_digit()))
        .filter_map(|row| Some(row.split('|').nth(1)?.split('`').skip(1).step_by(2).collect()))
        .collect();
    assert_eq!(
        rows,
        LEVELS.map(<[&str]>::to_vec),
        "src/lib.rs shows another table than tests/architecture.rs"
    );
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, LEVELS.concat().into_iter().collect());
}

#[test]
fn each_foreign_world_is_imported_by_its_own_module() {
    let allowed: BTreeMap<&str, &[&str]> = CRATES.into();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut faults = Vec::new();
    for file in rust_files("src/") {
        for (krate, fault) in foreign_names(&file.path, &file.text, &allowed) {
            used.insert(krate);
            faults.extend(fault);
        }
    }
    for krate in dependencies() {
        if !allowed.contains_key(krate.as_str()) {
            faults.push(format!("Cargo.toml has {krate}, which is not in the table CRATES"));
        } else if !used.contains(&krate) {
            faults.push(format!("Cargo.toml has {krate}, which nobody uses"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));

    for (path, code, expected) in [
        (
            "src/session/driver.rs",
            "use rusqlite::Connection;",
            "src/session/driver.rs:1: session names rusqlite",
        ),
        ("src/checks.rs", "fn f(d: bollard::Docker) {}", "src/checks.rs:1: checks names bollard"),
        ("src/login/mod.rs", "\nuse {clap::Parser};", "src/login/mod.rs:2: login names clap"),
    ] {
        let found: Vec<String> =
            foreign_names(path, code, &allowed).into_iter().filter_map(|(_, fault)| fault).collect();
        assert_eq!(found, [expected], "{code:?}");
    }
}

#[test]
fn only_the_face_prints() {
    let faults = |path: &str, text: &str| -> Vec<String> {
        let code = Code::of(text);
        let named = PRINTING.iter().filter(|name| code.names(name));
        let module = module_of(path).unwrap_or_default();
        named.filter(|_| !PRINTERS.contains(&module)).map(|name| format!("{path} uses {name}")).collect()
    };
    let found: Vec<String> =
        rust_files("src/").iter().flat_map(|file| faults(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(
        faults("src/store/mod.rs", "fn f() { eprintln!(\"x\"); }"),
        ["src/store/mod.rs uses eprintln!"]
    );
    assert_eq!(faults("src/login/mod.rs", "// println!\nfn f() { \"print!\" }"), [""; 0]);
}

/// If a task ends in a panic, Tokio's own error repeats the panic's words: they may be a piece of a message.
#[test]
fn the_words_of_a_panic_end_in_panics() {
    const REPEATS_THEM: [&str; 2] = ["spawn_blocking", "JoinError"];
    let faults = |path: &str, text: &str| -> Vec<String> {
        let named = REPEATS_THEM.iter().filter(|name| without_tests(text).contains(**name));
        named.map(|name| format!("{path} uses {name}; take what is in panics")).collect()
    };
    let files = rust_files("src/");
    let others = files.iter().filter(|file| file.path != "src/panics.rs");
    let found: Vec<String> = others.flat_map(|file| faults(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(faults("src/a.rs", "use tokio::task::spawn_blocking;").len(), 1);
}

fn import_faults(path: &str, text: &str) -> Vec<String> {
    let code = Code::of(text);
    let Some(own) = module_of(path) else {
        // main.rs is the only file with code that belongs to no module.
        let named = code.paths.iter().filter(|named| path == "src/main.rs" && named.is_in("nanokimi"));
        let others = named.filter_map(|named| named.segments.get(1)).filter(|module| *module != "cli");
        return others
            .map(|module| format!("{path}: main.rs names {module}; it may name cli only"))
            .collect();
    };
    let Some(level) = level_of(own) else { return vec![format!("{path}: {own} is in no level")] };
    let mut faults = Vec::new();
    for named in &code.paths {
        let place = format!("{path}:{}", named.line);
        if let Some(other) = named.own_module(depth_of(path)).filter(|other| *other != own) {
            match level_of(other) {
                None => faults.push(format!("{place}: {own} imports {other}, which is in no level")),
                Some(above) if above > level => {
                    faults.push(format!("{place}: {own} imports {other}, which is above it"));
                }
                Some(2) if level == 2 => {
                    faults.push(format!("{place}: {own} imports {other}, which is another edge"));
                }
                Some(same) if same == level => {
                    if !NEIGHBOURS.iter().any(|(from, to, _)| (*from, *to) == (own, other)) {
                        faults.push(format!("{place}: {own} imports its neighbour {other}"));
                    }
                }
                Some(_) => {}
            }
            let strange = STRANGERS.iter().find(|(from, to, _)| (*from, *to) == (own, other));
            faults.extend(strange.map(|(_, _, why)| format!("{place}: {own} imports {other}; {why}")));
        }
        for effect in EFFECTS.iter().filter(|effect| PURE.contains(&own) && named.is_in(effect)) {
            faults.push(format!("{place}: {own} is pure and names {effect}"));
        }
    }
    faults
}

/// The crates of the table that a file names, each with what is wrong about it, if anything. Test modules may
/// name any crate.
fn foreign_names(path: &str, text: &str, allowed: &BTreeMap<&str, &[&str]>) -> Vec<(String, Option<String>)> {
    let module = module_of(path).unwrap_or("main");
    if is_test_file(path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for named in Code::of(without_tests(text)).paths {
        let Some((krate, modules)) = allowed.get_key_value(named.segments[0].as_str()) else { continue };
        let fits = *modules == EVERYWHERE || modules.contains(&module);
        let fault = (!fits).then(|| format!("{path}:{}: {module} names {krate}", named.line));
        found.push(((*krate).to_owned(), fault));
    }
    found
}

fn level_of(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// The top module that a file of `src` belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    Some(name.strip_suffix(".rs").unwrap_or(name)).filter(|name| !["lib", "main"].contains(name))
}

/// How many modules are between a file's items and the crate's root.
fn depth_of(path: &str) -> usize {
    path.strip_suffix("/mod.rs").unwrap_or(path).matches('/').count()
}

/// The crates of `[dependencies]`, as code names them.
fn dependencies() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n"));
    let lines = section.expect("Cargo.toml has [dependencies]").lines();
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect()
}

// -------------------------------------------------------------------------------------------------------
// Names
// -------------------------------------------------------------------------------------------------------

/// Each command-line verb has types with these names in its file: clap reads their fields.
const TYPES_OF_EACH_VERB: [&str; 2] = ["Arguments", "Verb"];

/// A stranger searches for a name with grep, and finds one thing.
#[test]
fn a_type_name_means_one_thing() {
    let doubled = |files: &[File]| -> Vec<String> {
        let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for file in files.iter().filter(|file| !is_test_file(&file.path)) {
            let types = Code::of(without_tests(&file.text)).types();
            let counted = types.into_iter().filter(|name| !TYPES_OF_EACH_VERB.contains(&name.as_str()));
            for name in counted {
                places.entry(name).or_default().push(&file.path);
            }
        }
        let doubled = places.into_iter().filter(|(_, files)| files.len() > 1);
        doubled.map(|(name, files)| format!("{name} is a type in {}", files.join(" and in "))).collect()
    };
    let files = rust_files("src/");
    let types: usize = files.iter().map(|file| Code::of(&file.text).types().len()).sum();
    assert!(types > 300, "only {types} types were found");
    let found = doubled(&files);
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let planted = [
        file("src/a.rs", "pub struct Room(u8);\nenum Wake {}\npub struct Arguments;\npub struct Held;"),
        file(
            "src/b.rs",
            "pub(super) enum Room {}\n// struct Wake;\npub struct Arguments;\npub trait Wakes {}",
        ),
        file("src/c.rs", "mod inner {\n    struct Wake;\n}\n#[cfg(test)]\nmod tests {\nstruct Wake;\n}\n"),
        file("src/a/tests/mod.rs", "struct Held;"),
    ];
    assert_eq!(doubled(&planted), ["Room is a type in src/a.rs and in src/b.rs"]);
}

/// Whether a file of `src` has only tests.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

// -------------------------------------------------------------------------------------------------------
// Files
// -------------------------------------------------------------------------------------------------------

/// A file is one idea, read at one go. A longer file has two ideas, which have names of their own.
const LINES_MAX: usize = 700;

/// Words that say that something is missing. A test that is skipped tells nothing.
const UNFINISHED: [&str; 4] = ["#[ignore", "todo!", "unimplemented!", "#[should_panic]"];

#[test]
fn every_file_says_what_it_owns_and_is_read_in_one_sitting() {
    let faults = |path: &str, text: &str| -> Vec<String> {
        let mut faults = Vec::new();
        let opening = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
        if opening.trim().len() < 12 || opening.starts_with('(') {
            faults.push(format!("{path} does not open with a `//!` that says what it is"));
        }
        let lines = without_tests(text).lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path} has {lines} lines; split it at its second idea"));
        }
        faults
    };
    let files = rust_files("");
    assert!(files.len() > 60, "only {} files were found", files.len());
    let found: Vec<String> = files.iter().flat_map(|file| faults(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    assert_eq!(faults("a.rs", "fn f() {}").len(), 1);
    assert_eq!(faults("a.rs", "//! (to come)").len(), 1);
    let long = format!("//! What this file owns.\n{}", "fn f() {}\n".repeat(LINES_MAX));
    assert_eq!(faults("a.rs", &long), ["a.rs has 701 lines; split it at its second idea"]);
    let tested = long.replacen("fn f() {}\n", "#[cfg(test)]\nmod tests {\n", 1);
    assert_eq!(faults("a.rs", &tested), [""; 0]);
}

#[test]
fn nothing_is_left_for_later() {
    let faults = |path: &str, text: &str| -> Vec<String> {
        let code = Code::of(text);
        let left = UNFINISHED.iter().filter(|sign| code.names(sign));
        left.map(|sign| format!("{path} has {sign}")).collect()
    };
    let found: Vec<String> = rust_files("").iter().flat_map(|file| faults(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    assert_eq!(faults("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn t() {}"), ["a.rs has #[ignore"]);
    assert_eq!(faults("a.rs", "fn f() { todo!(\"x\") }"), ["a.rs has todo!"]);
    assert_eq!(faults("a.rs", "// todo!()\nfn f() -> &'static str { r#\"unimplemented!\"# }"), [""; 0]);
}

#[test]
fn the_tree_knows_no_registry_and_no_developers_machine() {
    // In pieces, so that this file does not contain them.
    let forbidden = [
        ["/wo", "rk/"],
        ["/tmp", "/wt"],
        ["crates", ".io"],
        ["pypi", ".org"],
        ["python", "hosted.org"],
        ["npmjs", ".org"],
        ["deb.debian", ".org"],
        ["archive.ubuntu", ".com"],
        ["registry-1.", "docker"],
        ["ghcr", ".io"],
        ["quay", ".io"],
        ["proxy.golang", ".org"],
    ]
    .map(|pieces| pieces.concat());
    let faults = |path: &str, text: &str| -> Vec<String> {
        let named = forbidden.iter().filter(|name| text.contains(*name));
        named.map(|name| format!("{path} names {name}")).collect()
    };
    let files = text_files();
    assert!(files.len() > 80, "only {} files were found", files.len());
    // cargo writes the lock files, and names its registry in them.
    let ours = files.iter().filter(|file| !file.path.ends_with("Cargo.lock"));
    let found: Vec<String> = ours.flat_map(|file| faults(&file.path, &file.text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(faults("a", &["see /wo", "rk/main"].concat()).len(), 1);
    assert_eq!(faults("a", "/workspace/group"), [""; 0]);
}

// -------------------------------------------------------------------------------------------------------
// Engines
// -------------------------------------------------------------------------------------------------------

/// The places that a new engine touches: its name, what it speaks, its image, its preparation, and its page.
const ENGINE_PLACES: [&str; 6] = [
    "src/types/engine.rs",
    "src/agent/engine.rs",
    "src/container/image/context.rs",
    "container/agent-runner/src/settings.rs",
    "container/agent-runner/src/program.rs",
    "docs/engines.md",
];

#[test]
fn every_engine_is_in_each_of_its_places() {
    let missing = |place: &str, text: &str| -> Vec<String> {
        let text = without_tests(text);
        let absent = Engine::ALL
            .into_iter()
            .filter(|engine| !text.contains(engine.name()) && !text.contains(&format!("{engine:?}")));
        absent.map(|engine| format!("{place} does not name {engine}")).collect()
    };
    let found: Vec<String> = ENGINE_PLACES.iter().flat_map(|place| missing(place, &read(place))).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(
        missing("a.rs", "match name { \"kimi-code\" => 1 }\n#[cfg(test)]\nmod tests { KimiCli }"),
        ["a.rs does not name kimi-cli"]
    );
    assert_eq!(missing("a.rs", "Self::KimiCli | Self::KimiCode"), [""; 0]);
}
