//! The tree as text: its files, and Rust code without the parts that only look like code.
//!
//! Knows just enough of Rust's grammar to tell code from comments and strings, and to read paths. It does not
//! judge.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that are not part of the repository, or that belong to the user: see `.gitignore`. Agents write into
/// `groups`; only the two prompts there that come with nanokimi are ours.
const NOT_OURS: [&str; 5] = [".git", ".env", "data", "store", "groups"];
const OUR_PROMPTS: [&str; 2] = ["groups/global/KIMI.md", "groups/main/KIMI.md"];

/// The words that declare a type.
const TYPE_KINDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];

/// A file, by its path from the root of the repository.
pub struct File {
    pub path: String,
    pub text: String,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("Failed to read {path}: {error}"))
}

/// Every file of the repository that is text.
pub fn text_files() -> Vec<File> {
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    paths.extend(OUR_PROMPTS.map(|path| root().join(path)));
    paths.sort();
    let text_of = |path: PathBuf| {
        let text = String::from_utf8(fs::read(&path).expect("a file can be read")).ok()?;
        let path = path.strip_prefix(root()).expect("the walk stays beneath the root");
        Some(File { path: path.to_string_lossy().into_owned(), text })
    };
    paths.into_iter().filter_map(text_of).collect()
}

/// Every Rust file below a folder, or of the whole repository if the folder is empty.
pub fn rust_files(folder: &str) -> Vec<File> {
    let files = text_files().into_iter();
    files.filter(|file| file.path.ends_with(".rs") && file.path.starts_with(folder)).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let at_root = folder == root();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("Failed to read {folder:?}: {error}")) {
        let entry = entry.expect("a folder can be read");
        let name = entry.file_name();
        if name == "target" || (at_root && NOT_OURS.iter().any(|other| name == *other)) {
            continue;
        }
        let kind = entry.file_type().expect("a file has a type");
        if kind.is_dir() {
            walk(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// A file without its test modules, which are at its end.
pub fn without_tests(text: &str) -> &str {
    let end =
        text.match_indices("#[cfg(test)]\n").find(|(at, sign)| text[at + sign.len()..].starts_with("mod "));
    end.map_or(text, |(at, _)| &text[..at])
}

/// The code in a Rust text.
pub struct Code {
    /// The text, with blanks in place of comments and of quoted text.
    bare: String,
    pub paths: Vec<Named>,
    /// The quoted texts, with continued lines joined.
    pub literals: Vec<String>,
}

/// A path as the code names it; a group such as `a::{b, c}` is taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Counted from 1.
    pub line: usize,
    pub segments: Vec<String>,
    /// Inline modules of the file (`mod tests { … }`) around the path.
    inside: usize,
}

impl Code {
    pub fn of(text: &str) -> Self {
        let (bare, literals) = strip(text);
        let paths = paths(&bare);
        Self { bare, paths, literals }
    }

    /// Whether the code has this text, but not as the end of a longer name.
    pub fn names(&self, what: &str) -> bool {
        self.bare.match_indices(what).any(|(at, _)| !self.bare[..at].ends_with(is_word))
    }

    /// The types that it declares without indentation, public or not.
    pub fn types(&self) -> Vec<String> {
        let declared = self.bare.lines().filter_map(|line| {
            let line = match line.strip_prefix("pub") {
                Some(rest) => rest.split_once(' ')?.1,
                None => line,
            };
            let (kind, name) = line.split_once(' ')?;
            TYPE_KINDS.contains(&kind).then(|| name.split(|c| !is_word(c)).next().map(str::to_owned))?
        });
        declared.collect()
    }
}

impl Named {
    /// Whether it is this path or leads through it.
    pub fn is_in(&self, path: &str) -> bool {
        let mut own = self.segments.iter();
        path.split("::").all(|segment| own.next().is_some_and(|own| own == segment))
    }

    /// The top module that the path leads to, if it leaves the file's own module. The file is `depth` modules
    /// below the crate.
    pub fn own_module(&self, depth: usize) -> Option<&str> {
        let segments: Vec<&str> =
            self.segments.iter().map(String::as_str).skip_while(|name| *name == "self").collect();
        let ups = segments.iter().take_while(|segment| **segment == "super").count();
        let from_root = segments.first() == Some(&"crate") || (ups > 0 && ups >= depth + self.inside);
        from_root.then(|| segments.get(ups.max(1)).copied()).flatten().filter(|name| *name != "*")
    }
}

/// Puts blanks in place of comments, strings and characters, and keeps the lines. Returns the strings too.
fn strip(text: &str) -> (String, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut bare, mut literals) = (String::with_capacity(text.len()), Vec::new());
    let blank = |from: usize, to: usize| -> String {
        chars[from..to].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }).collect()
    };
    let mut at = 0;
    while at < chars.len() {
        let from = at;
        at = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => end_of_line(&chars, at),
            ('/', Some('*')) => end_of_block(&chars, at),
            ('"', _) => {
                let end = end_of_string(&chars, at);
                literals.push(unescape(&chars[at + 1..end - 1]));
                end
            }
            ('r', Some('"' | '#')) if !bare.ends_with(is_word) || bare.ends_with('b') => {
                match end_of_raw(&chars, at) {
                    Some((inside, end)) => {
                        literals.push(chars[inside.0..inside.1].iter().collect());
                        end
                    }
                    None => at,
                }
            }
            ('\'', Some('\\')) => 1 + position(&chars, at + 3, '\''),
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if at == from {
            bare.push(chars[at]);
            at += 1;
        } else {
            bare.push_str(&blank(from, at));
        }
    }
    (bare, literals)
}

fn position(chars: &[char], from: usize, what: char) -> usize {
    chars.iter().skip(from).position(|c| *c == what).map_or(chars.len() - 1, |found| from + found)
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    chars.iter().skip(from).position(|c| *c == '\n').map_or(chars.len(), |found| from + found)
}

/// Block comments can be nested.
fn end_of_block(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => depth += 1,
            ('*', Some('/')) => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The range of the text in `r#"…"#`, and its end; `None` for `r#name`.
fn end_of_raw(chars: &[char], from: usize) -> Option<((usize, usize), usize)> {
    let hashes = chars.iter().skip(from + 1).take_while(|c| **c == '#').count();
    let begin = from + 1 + hashes;
    (chars.get(begin) == Some(&'"')).then_some(())?;
    let closes = |at: usize| {
        chars[at] == '"' && chars.iter().skip(at + 1).take(hashes).filter(|c| **c == '#').count() == hashes
    };
    let end = (begin + 1..chars.len()).find(|at| closes(*at))?;
    Some(((begin + 1, end), end + 1 + hashes))
}

/// Joins continued lines, and reads the escapes that are used in sentences.
fn unescape(literal: &[char]) -> String {
    let (mut text, mut rest) = (String::new(), literal.iter().copied().peekable());
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some('\n')) => while rest.next_if(|c| c.is_whitespace()).is_some() {},
            ('\\', Some(_)) => text.extend(rest.next().map(|c| if c == 'n' { '\n' } else { c })),
            _ => text.push(c),
        }
    }
    text
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `::`
    Then,
    Open,
    Close,
    Comma,
    Other(char),
}

fn tokens(bare: &str) -> Vec<(usize, Token)> {
    let mut tokens = Vec::new();
    for (index, line) in bare.lines().enumerate() {
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            let token = match c {
                ' ' | '\t' => continue,
                ':' if rest.next_if_eq(&':').is_some() => Token::Then,
                '{' => Token::Open,
                '}' => Token::Close,
                ',' => Token::Comma,
                c if is_word(c) => {
                    let mut name = c.to_string();
                    while let Some(more) = rest.next_if(|c| is_word(*c)) {
                        name.push(more);
                    }
                    Token::Name(name)
                }
                c => Token::Other(c),
            };
            tokens.push((index + 1, token));
        }
    }
    tokens
}

/// The paths of more than one segment, and the single names after `use`.
fn paths(bare: &str) -> Vec<Named> {
    let tokens = tokens(bare);
    let mut found = Vec::new();
    // For each open brace, whether it is a module's.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).map(|index| &tokens[index].1);
        let is_name =
            |token: Option<&Token>, name: &str| matches!(token, Some(Token::Name(found)) if found == name);
        let inside = braces.iter().filter(|module| **module).count();
        let token = &tokens[at].1;
        let begins = matches!(token, Token::Name(_))
            && (before(1) != Some(&Token::Then)
                || before(2).is_none_or(|token| !matches!(token, Token::Name(_) | Token::Other('>'))));
        let after_use = is_name(before(1), "use");
        if begins || (after_use && *token == Token::Open) {
            let count = found.len();
            at = tree(&tokens, at, &[], inside, &mut found);
            if !after_use && found.len() == count + 1 && found[count].segments.len() == 1 {
                found.pop();
            }
            continue;
        }
        match token {
            Token::Open => braces.push(is_name(before(2), "mod")),
            Token::Close => drop(braces.pop()),
            Token::Name(_) | Token::Then | Token::Comma | Token::Other(_) => {}
        }
        at += 1;
    }
    found
}

/// Reads one path, or a group of them in braces, after `prefix`. Returns where it ends.
fn tree(
    tokens: &[(usize, Token)],
    from: usize,
    prefix: &[String],
    inside: usize,
    found: &mut Vec<Named>,
) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = from;
    loop {
        match tokens.get(at) {
            Some((line, Token::Name(name))) => {
                segments.push(name.clone());
                at += 1;
                let goes_on = matches!(tokens.get(at), Some((_, Token::Then)))
                    && matches!(
                        tokens.get(at + 1),
                        Some((_, Token::Name(_) | Token::Open | Token::Other('*')))
                    );
                if !goes_on {
                    found.push(Named { line: *line, segments, inside });
                    return at;
                }
                at += 1;
            }
            Some((line, Token::Other('*'))) if at > from => {
                segments.push("*".to_owned());
                found.push(Named { line: *line, segments, inside });
                return at + 1;
            }
            Some((_, Token::Open)) => {
                at += 1;
                loop {
                    match tokens.get(at) {
                        // The new name after it is not part of a path.
                        Some((_, Token::Name(name))) if name == "as" => at += 2,
                        Some((_, Token::Name(_))) => at = tree(tokens, at, &segments, inside, found),
                        Some((_, Token::Close)) | None => return at + 1,
                        Some(_) => at += 1,
                    }
                }
            }
            Some((_, Token::Then | Token::Close | Token::Comma | Token::Other(_))) | None => {
                return at.max(from + 1);
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        Code::of(text)
            .paths
            .iter()
            .map(|named| format!("{} {}", named.line, named.segments.join("::")))
            .collect()
    }

    #[test]
    fn paths_are_read_as_rust_reads_them() {
        for (text, expected) in [
            ("use a::b;", vec!["1 a::b"]),
            (
                "use a::{b, c::{d, e::*}, self};\nf();",
                vec!["1 a::b", "1 a::c::d", "1 a::c::e::*", "1 a::self"],
            ),
            ("use {a, b::c as d};", vec!["1 a", "1 b::c"]),
            ("use a;", vec!["1 a"]),
            ("fn f(x: a::B<c::D>) -> Vec<e::F> {\n::g::h() }", vec!["1 a::B", "1 c::D", "1 e::F", "2 g::h"]),
            ("x.collect::<a::B>()", vec!["1 a::B"]),
            ("<T as a::B>::c()", vec!["1 a::B"]),
            ("let a: B = c(d);", vec![]),
            ("#[a::b]\nmatch x { A::B => {} }", vec!["1 a::b", "2 A::B"]),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_and_quotes_are_no_code() {
        let text = "// a::b\n/* a::b /* a::b */ a::b */ \"a::b \\\" a::b\" r#\"a::b\" a::b\"# b\"a::b\" br\"a::b\" \
            'a' '\\'' '\\u{1F600}' fn f<'a>(x: &'a str) { r#match::c('\"', d::e) }";
        assert_eq!(shown(text), ["2 match::c", "2 d::e"]);
        let text = "say(\"one \\\n     two \\\"three\\\"\", r\"four\")";
        assert_eq!(Code::of(text).literals, ["one two \"three\"", "four"]);
    }

    #[test]
    fn the_way_up_is_counted() {
        let module = |text: &str, depth| Code::of(text).paths[0].own_module(depth).map(str::to_owned);
        for (text, depth, expected) in [
            ("crate::store::Store", 1, Some("store")),
            ("super::store", 1, Some("store")),
            ("super::other", 2, None),
            ("super::super::store", 2, Some("store")),
            ("mod tests { use super::x; }", 1, None),
            ("mod tests { use super::super::store; }", 1, Some("store")),
            ("mod tests { use super::super::x; }", 2, None),
            ("self::x", 1, None),
            ("tokio::time", 1, None),
            ("use super::*;", 1, None),
        ] {
            assert_eq!(module(text, depth).as_deref(), expected, "{text:?}");
        }
    }
}
