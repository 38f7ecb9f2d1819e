//! Skills: the folders `skills/NAME/` with a `SKILL.md`, of the group and of all groups, offered to the engine.
//!
//! The engine gets copies in memory, and never opens what an agent has written: one file that it cannot read
//! could keep it from starting, and so end the chat. A copy's head is written anew, in words that every YAML
//! parser reads alike; its text is as it was, and whatever else lies in the skill's folder is linked beside
//! it. What is no good costs that one skill, and the agent is told why.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use granit_parser::{Event, Parser, ScalarStyle};
use toml::{Table, Value};

use crate::home::ContainerHome;
use crate::prompt;
use crate::yaml::quote_for_yaml;

/// Most skills of one folder. Each request carries their names and descriptions, which are at most 54 KiB.
const SKILLS_MAX: usize = 50;
/// Most of what stands in one folder of skills that is looked into, in the order of the names.
const LOOKED_INTO_MAX: usize = 200;
/// Most names that are read of one folder of skills, to put them in order.
const NAMES_MAX: usize = 4_096;
/// A longer SKILL.md is no good: it is read whole when the skill is used, and 64 KiB are some 16,000 tokens.
const SKILL_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of its head.
const HEAD_MAX_BYTES: usize = 8 * 1024;
/// As the Agent Skills format has it.
const NAME_MAX_CHARS: usize = 64;
/// The Agent Skills format allows 1,024 characters. A longer description is cut.
const DESCRIPTION_MAX_BYTES: usize = 1_024;
/// Most files beside a SKILL.md that stand beside its copy.
const LINKS_MAX: usize = 100;
/// How many of the skills that are left out the agent is told of, for each folder.
const TOLD_MAX: usize = 5;

/// What an engine is offered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OfferedSkills {
    /// The folders of the copies. Of two skills of one name, that in the first folder wins.
    pub folders: Vec<PathBuf>,
    /// Which skills are left out and why, as the agent reads it.
    pub left_out: String,
}

/// Copies what is good of the skills of the group and of all groups.
pub fn offer_skills(home: &ContainerHome) -> OfferedSkills {
    let mut offered = OfferedSkills::default();
    for (owner, name) in [(&home.workspace, "group"), (&home.global, "global")] {
        let (from, to) = (owner.join("skills"), home.prepared.join("skills").join(name));
        let FolderOfCopies { copies, left_out } = copy_skills(&from, &to);
        if copies > 0 {
            offered.folders.push(to);
        }
        for why in left_out {
            eprintln!("agent-runner: A skill is left out: {why}");
            offered.left_out.push_str(&format!("- {why}\n"));
        }
    }
    offered
}

/// Names the folders to the engine, before those that the owner has named. Both engines know this setting,
/// and look into these folders after the ones that they find by themselves.
pub fn set_skill_folders(config: &mut Table, folders: &[PathBuf]) {
    if folders.is_empty() {
        return;
    }
    let ours = folders.iter().map(|folder| Value::from(folder.to_string_lossy().into_owned()));
    let owners = match config.remove("extra_skill_dirs") {
        Some(Value::Array(owners)) => owners,
        Some(_) | None => Vec::new(),
    };
    config.insert("extra_skill_dirs".to_owned(), ours.chain(owners).collect::<Vec<_>>().into());
}

#[derive(Debug, Default)]
struct FolderOfCopies {
    copies: usize,
    left_out: Vec<String>,
}

fn copy_skills(from: &Path, to: &Path) -> FolderOfCopies {
    let mut done = FolderOfCopies::default();
    let names = match list_candidates(from) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return done,
        Err(error) => {
            done.left_out.push(format!("all of {}: {error}", from.display()));
            return done;
        }
    };
    let mut not_told = names.len().saturating_sub(LOOKED_INTO_MAX);
    for name in names.iter().take(LOOKED_INTO_MAX) {
        let copied = if done.copies < SKILLS_MAX {
            copy_skill(from, to, name)
        } else {
            Err(format!("there are more than {SKILLS_MAX}"))
        };
        match copied {
            Ok(()) => done.copies += 1,
            Err(why) if done.left_out.len() < TOLD_MAX => {
                done.left_out.push(format!("{name:?} in {}: {why}", from.display()));
            }
            Err(_) => not_told += 1,
        }
    }
    if not_told > 0 {
        done.left_out.push(format!("{not_told} more in {}", from.display()));
    }
    done
}

/// The names in a folder of skills that may be skills: no plain file, and nothing hidden.
fn list_candidates(from: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(from)?
        .take(NAMES_MAX)
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink()))
        // A name that is not UTF-8 would reach the model garbled.
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !name.chars().any(char::is_control))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Copies one skill, or says what is wrong with it.
fn copy_skill(from: &Path, to: &Path, name: &str) -> Result<(), String> {
    let (folder, copy) = (from.join(name), to.join(name));
    let text = read_skill(&folder.join("SKILL.md"))?;
    let skill = parse_skill(&text, name)?;
    write_copy(&skill, &folder, &copy).map_err(|error| {
        // What is there of it would be a bad skill.
        fs::remove_dir_all(&copy).ok();
        format!("it could not be copied: {error}")
    })
}

fn read_skill(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => "it has no SKILL.md".to_owned(),
        _ => format!("its SKILL.md cannot be read: {error}"),
    };
    let file = prompt::open_plain_file(path).map_err(unreadable)?;
    let file = file.ok_or_else(|| "its SKILL.md is no file".to_owned())?;
    let mut bytes = Vec::new();
    file.take(SKILL_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > SKILL_MAX_BYTES {
        return Err(format!("its SKILL.md is longer than {SKILL_MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "its SKILL.md is not UTF-8".to_owned())
}

/// A skill that is good.
#[derive(Debug, PartialEq, Eq)]
struct Skill<'a> {
    name: String,
    description: String,
    /// What stands below the head.
    body: &'a str,
}

fn parse_skill<'a>(text: &'a str, folder_name: &str) -> Result<Skill<'a>, String> {
    let (head, body) = split_head(text).ok_or("its SKILL.md has no head between two lines `---`")?;
    if head.len() > HEAD_MAX_BYTES {
        return Err(format!("the head of its SKILL.md is longer than {HEAD_MAX_BYTES} bytes"));
    }
    let nodes = read_top_nodes(head)
        .map_err(|why| format!("the head of its SKILL.md is no YAML mapping: {}", one_line(&why)))?;
    let field = |key: &str| {
        let value = nodes.chunks_exact(2).find(|pair| pair[0].as_deref() == Some(key))?[1].as_deref()?;
        Some(one_line(value)).filter(|value| !value.is_empty())
    };
    let description = field("description").ok_or("the head of its SKILL.md has no `description`")?;
    let name = field("name").unwrap_or_else(|| folder_name.to_owned());
    if name.chars().count() > NAME_MAX_CHARS {
        return Err(format!("its name is longer than {NAME_MAX_CHARS} characters"));
    }
    Ok(Skill { name, description: cut_description(description), body })
}

/// The keys and values of a YAML mapping, one behind the other; one that is no scalar is `None`. What an alias
/// stands for is not looked up: aliases of aliases could make gigabytes of a few bytes.
fn read_top_nodes(yaml: &str) -> Result<Vec<Option<String>>, String> {
    let (mut nodes, mut depth) = (Vec::new(), 0_usize);
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let begins = matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
        if depth == 0 && event.is_node() && !matches!(event, Event::MappingStart(..)) {
            return Err("it has no fields".to_owned());
        }
        if depth == 1 && event.is_node() {
            let text = event.scalar().filter(|(text, style)| {
                // A value that is left out is told as `~`.
                *style != ScalarStyle::Plain || !matches!(*text, "~" | "null")
            });
            nodes.push(text.map(|(text, _)| text.to_owned()));
        }
        if begins {
            depth += 1;
        } else if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            depth = depth.saturating_sub(1);
        }
    }
    Ok(nodes)
}

/// What stands between the two lines `---` at the beginning, and what follows them.
fn split_head(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.split_inclusive('\n').next().filter(|line| is_fence(line))?;
    let mut end = first.len();
    for line in text[first.len()..].split_inclusive('\n') {
        if is_fence(line) {
            return Some((&text[first.len()..end], &text[end + line.len()..]));
        }
        end += line.len();
    }
    None
}

fn is_fence(line: &str) -> bool {
    line.trim_end() == "---"
}

/// The text without line ends and control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|char: char| char.is_whitespace() || char.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn cut_description(mut text: String) -> String {
    const CUT: &str = "…";
    if text.len() > DESCRIPTION_MAX_BYTES {
        text.truncate(text.floor_char_boundary(DESCRIPTION_MAX_BYTES - CUT.len()));
        text.push_str(CUT);
    }
    text
}

/// Writes a skill's copy, which nobody changes by mistake, and links what else lies in its folder.
fn write_copy(skill: &Skill<'_>, folder: &Path, copy: &Path) -> io::Result<()> {
    fs::create_dir_all(copy)?;
    let file = copy.join("SKILL.md");
    let text = format!(
        "---\nname: {}\ndescription: {}\n---\n\n\
         (This is a copy. The skill itself lies in `{}`, with all its files: if it is to be changed, change it \
         there.)\n\n{}",
        quote_for_yaml(&skill.name),
        quote_for_yaml(&skill.description),
        folder.display(),
        skill.body.trim_start_matches(['\r', '\n'])
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, Permissions::from_mode(0o400))?;
    for entry in fs::read_dir(folder)?.take(LINKS_MAX).filter_map(Result::ok) {
        // The copy itself stands there already. One that cannot be linked is found in the skill's folder.
        symlink(entry.path(), copy.join(entry.file_name())).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::home::tests::home_in;

    const GOOD: &str = "---\nname: bread\ndescription: Bakes bread.\n---\n\nKnead.\n";

    struct Machine {
        _root: tempfile::TempDir,
        home: ContainerHome,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let home = home_in(root.path());
            Self { _root: root, home }
        }

        /// The group's folder of skills, with a good one in it.
        fn skills(&self) -> PathBuf {
            let skills = self.home.workspace.join("skills");
            write_skill(&skills.join("bread"), GOOD);
            skills
        }

        /// The names of the skills that are offered, and what is told of the others, without the places.
        fn offers(&self) -> (Vec<String>, String) {
            let offered = offer_skills(&self.home);
            let mut names = Vec::new();
            for folder in &offered.folders {
                names.extend(fs::read_dir(folder).unwrap().map(|entry| {
                    let entry = entry.unwrap();
                    assert!(entry.path().join("SKILL.md").is_file(), "{entry:?}");
                    entry.file_name().into_string().unwrap()
                }));
            }
            names.sort();
            let places = [&self.home.workspace, &self.home.global];
            let told = places
                .into_iter()
                .fold(offered.left_out, |told, place| told.replace(&format!("{}/", place.display()), ""));
            (names, told)
        }
    }

    fn write_skill(folder: &Path, text: impl AsRef<[u8]>) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("SKILL.md"), text).unwrap();
    }

    #[test]
    fn without_skills_nothing_is_offered_and_nothing_told() {
        let machine = Machine::new();
        assert_eq!(offer_skills(&machine.home), OfferedSkills::default());
        fs::create_dir(machine.home.workspace.join("skills")).unwrap();
        fs::write(machine.home.workspace.join("skills/README.md"), "none yet").unwrap();
        fs::create_dir(machine.home.workspace.join("skills/.git")).unwrap();
        assert_eq!(offer_skills(&machine.home), OfferedSkills::default());
    }

    #[test]
    fn the_groups_come_before_those_of_all() {
        let machine = Machine::new();
        machine.skills();
        write_skill(&machine.home.global.join("skills/boat"), GOOD);
        let OfferedSkills { folders, left_out } = offer_skills(&machine.home);
        let prepared = machine.home.prepared.join("skills");
        assert_eq!(folders, [prepared.join("group"), prepared.join("global")]);
        assert_eq!(left_out, "");
        assert!(prepared.join("group/bread/SKILL.md").is_file());
        assert!(prepared.join("global/boat/SKILL.md").is_file());
    }

    #[test]
    fn a_copy_says_where_the_skill_lies_and_has_its_files() {
        let machine = Machine::new();
        let bread = machine.skills().join("bread");
        fs::create_dir(bread.join("scripts")).unwrap();
        fs::write(bread.join("scripts/oven.sh"), "echo hot").unwrap();
        offer_skills(&machine.home);
        let copy = machine.home.prepared.join("skills/group/bread");
        assert_eq!(
            fs::read_to_string(copy.join("SKILL.md")).unwrap(),
            format!(
                "---\nname: \"bread\"\ndescription: \"Bakes bread.\"\n---\n\n\
                 (This is a copy. The skill itself lies in `{}`, with all its files: if it is to be changed, \
                 change it there.)\n\nKnead.\n",
                bread.display()
            )
        );
        assert_eq!(fs::metadata(copy.join("SKILL.md")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(copy.join("scripts/oven.sh")).unwrap(), "echo hot");
    }

    #[test]
    fn a_head_is_read_as_yaml_and_written_anew() {
        let parsed = |head: &str| {
            let text = format!("---\n{head}\n---\nbody");
            parse_skill(&text, "folder").map(|skill| (skill.name, skill.description))
        };
        let good = |name: &str, description: &str| Ok((name.to_owned(), description.to_owned()));
        assert_eq!(parsed("description: d"), good("folder", "d"));
        assert_eq!(parsed("name: n\ndescription: 'it''s: \"so\"'"), good("n", "it's: \"so\""));
        assert_eq!(parsed("name: n\ndescription: >-\n  two\n  lines\nlicense: MIT"), good("n", "two lines"));
        assert_eq!(parsed("name: \"a\\nb\"\ndescription: |\n  x\n  y"), good("a b", "x y"));
        assert_eq!(
            parsed("description: d\nmetadata:\n  tags: [a, b]\nallowed-tools: Bash(git:*) Read"),
            good("folder", "d")
        );
        let long = "é".repeat(1_000);
        let cut = parsed(&format!("description: {long}")).unwrap().1;
        assert_eq!(cut, "é".repeat(510) + "…");
        let bomb = "a: &a [x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nname: *c\ndescription: *c";
        for (head, why) in [
            ("name: n", "the head of its SKILL.md has no `description`"),
            ("description: ' '", "the head of its SKILL.md has no `description`"),
            ("description: ~", "the head of its SKILL.md has no `description`"),
            ("description:", "the head of its SKILL.md has no `description`"),
            ("description: [d]", "the head of its SKILL.md has no `description`"),
            (bomb, "the head of its SKILL.md has no `description`"),
            (&format!("name: {}\ndescription: d", "n".repeat(65)), "its name is longer than 64 characters"),
            (
                &format!("description: {}", "d".repeat(8192)),
                "the head of its SKILL.md is longer than 8192 bytes",
            ),
        ] {
            assert_eq!(parsed(head).unwrap_err(), why, "{head}");
        }
        assert_eq!(parsed("description: d\nx: {name: n, description: e}\n? [k]\n: v"), good("folder", "d"));
        let deep = format!("description: {}", "[".repeat(8_000));
        for head in ["description: Bakes: bread", "- a", "d", "name: \"", &deep] {
            let why = parsed(head).unwrap_err();
            assert!(why.starts_with("the head of its SKILL.md is no YAML mapping: "), "{head}: {why}");
            assert!(why.len() < 300 && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn a_head_ends_at_the_second_line_of_dashes() {
        assert_eq!(split_head("---\na\n---\nb\n---\nc"), Some(("a\n", "b\n---\nc")));
        assert_eq!(split_head("\u{feff}---  \r\na\r\n---\r\nb"), Some(("a\r\n", "b")));
        assert_eq!(split_head("---\n---"), Some(("", "")));
        for none in ["", "a", "\n---\na\n---\n", "---\na", "--- a\n---\n", "----\na\n----\n"] {
            assert_eq!(split_head(none), None, "{none:?}");
        }
    }

    /// Each costs itself and no more, whatever an agent has left there.
    #[test]
    fn a_bad_skill_costs_that_skill() {
        for (make, told) in BAD_SKILLS {
            let machine = Machine::new();
            let skills = machine.skills();
            make(&skills.join("bad"));
            let told = told.map_or_else(String::new, |why| format!("- \"bad\" in skills: {why}\n"));
            assert_eq!(machine.offers(), (vec!["bread".to_owned()], told));
        }
    }

    type BadSkill = (fn(&Path), Option<&'static str>);
    const BAD_SKILLS: [BadSkill; 14] = [
        (|bad| write_skill(bad, [0xff]), Some("its SKILL.md is not UTF-8")),
        (|bad| write_skill(bad, ""), Some("its SKILL.md has no head between two lines `---`")),
        (|bad| write_skill(bad, "Knead."), Some("its SKILL.md has no head between two lines `---`")),
        (|bad| fs::create_dir(bad).unwrap(), Some("it has no SKILL.md")),
        (|bad| fs::create_dir_all(bad.join("SKILL.md")).unwrap(), Some("its SKILL.md is no file")),
        (
            |bad| {
                fs::create_dir(bad).unwrap();
                mkfifoat(CWD, bad.join("SKILL.md"), Mode::RUSR | Mode::WUSR).unwrap();
            },
            Some("its SKILL.md is no file"),
        ),
        (
            |bad| {
                fs::create_dir(bad).unwrap();
                symlink("/dev/zero", bad.join("SKILL.md")).unwrap();
            },
            Some("its SKILL.md is no file"),
        ),
        (
            |bad| {
                fs::create_dir(bad).unwrap();
                fs::File::create(bad.join("SKILL.md")).unwrap().set_len(1 << 30).unwrap();
            },
            Some("its SKILL.md is longer than 65536 bytes"),
        ),
        (
            |bad| {
                fs::create_dir(bad).unwrap();
                symlink("SKILL.md", bad.join("SKILL.md")).unwrap();
            },
            Some("its SKILL.md cannot be read: Too many levels of symbolic links (os error 40)"),
        ),
        (
            |bad| symlink("bad", bad).unwrap(),
            Some("its SKILL.md cannot be read: Too many levels of symbolic links (os error 40)"),
        ),
        (|bad| symlink("../../../nowhere", bad).unwrap(), Some("it has no SKILL.md")),
        (|bad| fs::write(bad, GOOD).unwrap(), None),
        (|bad| mkfifoat(CWD, bad, Mode::RWXU).unwrap(), None),
        (|bad| write_skill(&bad.with_file_name(OsStr::from_bytes(b"\xff")), GOOD), None),
    ];

    #[test]
    fn a_folder_that_is_closed_costs_itself() {
        let machine = Machine::new();
        let closed = machine.skills().join("closed");
        write_skill(&closed, GOOD);
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        let (mut names, _) = machine.offers();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        // Root may read it; in a container root may not.
        names.retain(|name| name != "closed");
        assert_eq!(names, ["bread"]);
    }

    #[test]
    fn whatever_stands_in_the_place_of_all_skills_those_of_all_groups_are_offered() {
        let makers: [fn(&Path); 4] = [
            |skills| fs::write(skills, GOOD).unwrap(),
            |skills| mkfifoat(CWD, skills, Mode::RWXU).unwrap(),
            |skills| symlink("skills", skills).unwrap(),
            |skills| drop(UnixListener::bind(skills).unwrap()),
        ];
        for make in makers {
            let machine = Machine::new();
            write_skill(&machine.home.global.join("skills/boat"), GOOD);
            make(&machine.home.workspace.join("skills"));
            let (names, told) = machine.offers();
            assert_eq!(names, ["boat"]);
            assert!(told.starts_with("- all of skills: ") || told.starts_with("- all of "), "{told}");
        }
    }

    #[test]
    fn three_thousand_skills_are_fifty_and_as_many_bad_ones_are_few_words() {
        let machine = Machine::new();
        for number in 0..3_000 {
            write_skill(&machine.home.workspace.join(format!("skills/good-{number:04}")), GOOD);
            write_skill(&machine.home.global.join(format!("skills/bad-{number:04}")), [0xff]);
        }
        let (names, told) = machine.offers();
        assert_eq!(names.len(), SKILLS_MAX);
        assert_eq!(names[49], "good-0049", "in the order of the names");
        assert_eq!(told.lines().count(), 2 * (TOLD_MAX + 1), "{told}");
        assert!(told.starts_with("- \"good-0050\" in skills: there are more than 50\n"), "{told}");
        assert!(told.contains("- 2945 more in skills\n- \"bad-0000\" in skills: "), "{told}");
        assert!(told.ends_with("- 2995 more in skills\n"), "{told}");
    }

    #[test]
    fn many_files_of_a_skill_are_linked_in_part() {
        let machine = Machine::new();
        let bread = machine.skills().join("bread");
        for number in 0..300 {
            fs::write(bread.join(number.to_string()), "").unwrap();
        }
        offer_skills(&machine.home);
        let copy = machine.home.prepared.join("skills/group/bread");
        assert!(copy.join("SKILL.md").symlink_metadata().unwrap().is_file());
        assert!((99..=LINKS_MAX + 1).contains(&fs::read_dir(copy).unwrap().count()));
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_left_out() {
        let machine = Machine::new();
        machine.skills();
        fs::create_dir_all(&machine.home.prepared).unwrap();
        fs::write(machine.home.prepared.join("skills"), "").unwrap();
        let (names, told) = machine.offers();
        assert!(names.is_empty());
        assert!(told.starts_with("- \"bread\" in skills: it could not be copied: "), "{told}");
    }

    #[test]
    fn the_engine_is_told_of_ours_before_the_owners() {
        let told = |text: &str, folders: &[PathBuf]| {
            let mut config: Table = text.parse().unwrap();
            set_skill_folders(&mut config, folders);
            config.to_string()
        };
        let ours = [PathBuf::from("/a"), PathBuf::from("/b")];
        assert_eq!(told("", &[]), "");
        assert_eq!(told("extra_skill_dirs = 3", &[]), "extra_skill_dirs = 3\n", "it is the owner's");
        assert_eq!(told("", &ours), "extra_skill_dirs = [\"/a\", \"/b\"]\n");
        assert_eq!(
            told("extra_skill_dirs = [\"~/c\"]", &ours),
            "extra_skill_dirs = [\"/a\", \"/b\", \"~/c\"]\n"
        );
        assert_eq!(told("extra_skill_dirs = 3", &ours), "extra_skill_dirs = [\"/a\", \"/b\"]\n");
    }
}
