//! What the documents promise: the settings, findings, commands and links that they name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use nanokimi::config::SETTINGS;

use super::text::{Code, File, read, root, text_files, without_tests};

/// Verbs that the documents name before they exist, with the reason.
const ANNOUNCED: [(&str, &str); 0] = [];

#[test]
fn the_settings_page_is_the_code() {
    let example = read(".env.example");
    let documented = settings_table(&read("docs/operating.md"));
    let names: Vec<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, SETTINGS, "the table in docs/operating.md and config::SETTINGS differ");
    let defaults: Vec<(String, String)> = example
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once('='))
        .filter(|(name, _)| SETTINGS.contains(name))
        .map(|(name, default)| (name.to_owned(), default.to_owned()))
        .collect();
    assert_eq!(documented, defaults, "the table in docs/operating.md and .env.example differ");

    assert_eq!(
        settings_table("| `A` | `1` | x |\n| B | 2 |\n| `C` | empty | y |\n"),
        [("A".to_owned(), "1".to_owned()), ("C".to_owned(), String::new())]
    );
}

#[test]
fn every_finding_of_doctor_is_explained() {
    let missing = |checks: &str, page: &str| -> Vec<String> {
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let sentences = Code::of(without_tests(checks)).literals;
        let pieces = sentences.iter().flat_map(|sentence| sentence.split(['{', '}']));
        let telling =
            pieces.map(|piece| piece.trim_matches([' ', ':', ',', ';'])).filter(|piece| piece.len() > 11);
        telling.filter(|piece| !page.contains(piece)).map(str::to_owned).collect()
    };
    let page = read("docs/operating.md");
    let checks =
        ["src/checks.rs", "src/checks/gateway.rs", "src/checks/kimi.rs", "src/checks/lent_folders.rs"]
            .map(read);
    let found: Vec<String> = checks.iter().flat_map(|checks| missing(checks, &page)).collect();
    assert!(found.is_empty(), "docs/operating.md does not explain:\n{}", found.join("\n"));
    let planted = "fn f() { bad(format!(\"Only {room} MB are left on the disk\"), \"Make room\") }";
    assert_eq!(missing(planted, "Only … MB are free"), ["MB are left on the disk"]);
    assert_eq!(missing(planted, "MB are\nleft on the disk"), [""; 0]);
}

#[test]
fn every_command_that_is_named_exists() {
    let verbs = verbs();
    assert!(verbs.contains_key("groups"), "{verbs:?}");
    let mut faults = Vec::new();
    let mut announced_and_named = BTreeSet::new();
    for file in text_files().iter().filter(|file| speaks_of_commands(&file.path)) {
        for command in commands_in(&file.path, &file.text) {
            match command_fault(&command, &verbs) {
                Fault::None => {}
                Fault::NoSuchVerb(verb) if ANNOUNCED.iter().any(|(announced, _)| *announced == verb) => {
                    announced_and_named.insert(verb);
                }
                Fault::NoSuchVerb(verb) => {
                    faults.push(format!("{} names `nanokimi {verb}`, which does not exist", file.path));
                }
                Fault::NoSuchWord(word) => {
                    faults.push(format!("{}: `{command}` has {word}, which does not exist", file.path));
                }
            }
        }
    }
    for (verb, _) in ANNOUNCED {
        if verbs.contains_key(verb) {
            faults.push(format!("`nanokimi {verb}` exists now; take it off the list ANNOUNCED"));
        } else if !announced_and_named.contains(verb) {
            faults.push(format!("nobody names `nanokimi {verb}`; take it off the list ANNOUNCED"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));

    let page = "Run `nanokimi dance`, `nanokimi chat --loud` or `nanokimi groups burn x`; nanokimi is kind.\n\
        ```\n$ nanokimi sing\ncargo run --release -- hop\n./target/release/nanokimi jump # high\n```\n";
    let found: Vec<Fault> =
        commands_in("x.md", page).iter().map(|command| command_fault(command, &verbs)).collect();
    let expected = [
        Fault::NoSuchVerb("dance".to_owned()),
        Fault::NoSuchWord("--loud".to_owned()),
        Fault::NoSuchWord("burn".to_owned()),
        Fault::NoSuchVerb("sing".to_owned()),
        Fault::NoSuchVerb("hop".to_owned()),
        Fault::NoSuchVerb("jump".to_owned()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn links_lead_somewhere() {
    let pages: Vec<File> = text_files().into_iter().filter(|file| file.path.ends_with(".md")).collect();
    assert!(pages.len() > 7, "only {} pages were found", pages.len());
    let faults: Vec<String> = pages.iter().flat_map(|page| link_faults(&page.path, &page.text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));

    let page = "[a](nowhere.md) [b](../README.md) [c](architecture.md#no-such-part) [d](https://x.y/z) [e](#here)\n# Here\n";
    let expected =
        ["nowhere.md", "architecture.md#no-such-part"].map(|link| format!("docs/x.md links to {link}"));
    assert_eq!(link_faults("docs/x.md", page), expected);
}

/// The rows of a table whose first cell is a setting: its name and its default.
fn settings_table(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let settings = rows.filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    settings
        .map(|(name, rest)| {
            let default = rest.split(" |").next().unwrap_or_default().trim_matches('`');
            (name.to_owned(), if default == "empty" { String::new() } else { default.to_owned() })
        })
        .collect()
}

/// The verbs of the binary, each with the words that it knows: its options and its own verbs.
fn verbs() -> BTreeMap<String, BTreeSet<String>> {
    let listed = |help: &str| -> Vec<String> {
        let commands = help.split("Commands:\n").nth(1).unwrap_or_default().lines();
        let commands =
            commands.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
        commands
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    let options = |help: &str| -> Vec<String> {
        help.split([' ', ',', '\n']).filter(|word| word.starts_with("--")).map(str::to_owned).collect()
    };
    let mut verbs = BTreeMap::new();
    for verb in listed(&help(&[])) {
        let own_help = help(&[&verb]);
        let mut words: BTreeSet<String> = options(&own_help).into_iter().collect();
        for inner in listed(&own_help) {
            let inner_help = help(&[&verb, &inner]);
            words.extend(options(&inner_help));
            for innermost in listed(&inner_help) {
                words.extend(options(&help(&[&verb, &inner, &innermost])));
            }
            words.insert(inner);
        }
        verbs.insert(verb, words);
    }
    verbs
}

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nanokimi")).args(words).arg("--help").output();
    let output = output.expect("nanokimi runs");
    assert!(output.status.success(), "nanokimi {words:?} --help failed");
    String::from_utf8(output.stdout).expect("help is text")
}

/// The places that tell people what to type: the documents, the sentences in the code, and the scripts.
fn speaks_of_commands(path: &str) -> bool {
    let is_text = [".md", ".rs", ".example"].iter().any(|ending| path.ends_with(ending));
    path != "tests/architecture/documents.rs"
        && (is_text || path.starts_with("container/rootless/") || path == "tests/run")
}

/// The words after the program's name: in backticks or escaped quotes, and in the code blocks of pages.
fn commands_in(path: &str, text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        if in_block && path.ends_with(".md") {
            let line = line.trim_start().trim_start_matches("$ ");
            let typed = ["nanokimi ", "./target/release/nanokimi ", "cargo run --release -- "];
            commands.extend(typed.iter().filter_map(|start| line.strip_prefix(start)).map(str::to_owned));
            continue;
        }
        for (opening, closing) in [("`nanokimi ", "`"), ("\\\"nanokimi ", "\\\"")] {
            let spoken = line.split(opening).skip(1).filter_map(|rest| Some(rest.split_once(closing)?.0));
            commands.extend(spoken.map(str::to_owned));
        }
    }
    commands
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    None,
    NoSuchVerb(String),
    NoSuchWord(String),
}

fn command_fault(command: &str, verbs: &BTreeMap<String, BTreeSet<String>>) -> Fault {
    let typed = command.split(['#', '|', '>', '<']).next().unwrap_or_default();
    let mut words = typed.split_whitespace().peekable();
    while words.next_if(|word| *word == "--home").is_some() {
        words.next();
    }
    let Some(verb) = words.next() else { return Fault::None };
    // A name to fill in, or an option of nanokimi itself.
    if verb.starts_with(['{', '-', '<', '…']) {
        return Fault::None;
    }
    let Some(known) = verbs.get(verb) else { return Fault::NoSuchVerb(verb.to_owned()) };
    let has_verbs = known.iter().any(|word| !word.starts_with("--"));
    let options = words.clone().filter(|word| word.starts_with("--"));
    let inner = words.next().filter(|word| has_verbs && !word.starts_with("--"));
    let unknown = inner.into_iter().chain(options).find(|word| !known.contains(*word));
    unknown.map_or(Fault::None, |word| Fault::NoSuchWord(word.to_owned()))
}

fn link_faults(path: &str, text: &str) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let ours = links.filter(|link| !link.contains("://") && !link.starts_with("mailto:"));
    let broken = ours.filter(|link| {
        let (file, part) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { root().join(path) } else { root().join(folder).join(file) };
        let page = if file.is_empty() { Some(text.to_owned()) } else { fs::read_to_string(&target).ok() };
        let part_is_there = || page.is_some_and(|page| page.lines().any(|line| is_heading(line, part)));
        !(file.is_empty() || target.exists()) || !(part.is_empty() || part_is_there())
    });
    broken.map(|link| format!("{path} links to {link}")).collect()
}

/// Whether a line is the heading that the `#part` of a link means, as forges spell it.
fn is_heading(line: &str, part: &str) -> bool {
    let Some(title) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()) else {
        return false;
    };
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').eq(part.chars())
}
