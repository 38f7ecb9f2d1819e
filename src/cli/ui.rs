//! The one place that writes to the terminal, so that stdout stays data and stderr stays talk.
//!
//! No words, whoever wrote them, move the cursor, write into the clipboard or turn the writing around: all
//! that is printed goes through [`sanitize_for_terminal`]. The log escapes such characters itself.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use dialoguer::console::Term;

use crate::checks;
use crate::render::normalize_line_ends;
use crate::writing::{is_bidi_control, normalize_typed_text};

/// Longest name of somebody else's that is shown, in characters: one line stays one line.
const PLAIN_MAX: usize = 60;
/// Where an option that every verb has stands in its help.
pub const LAST_IN_HELP: usize = 100;

/// The results go nowhere: the program that read them has closed the pipe.
#[derive(Debug)]
pub struct ResultPipeClosed;

impl Display for ResultPipeClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nobody reads the results any more")
    }
}

impl std::error::Error for ResultPipeClosed {}

/// Words as a terminal may show them: lines and tabs, but no other control character (C0 and C1, so no escape
/// sequence either), and none of the marks that turn the direction of what follows.
pub fn sanitize_for_terminal(words: &str) -> String {
    normalize_line_ends(words).chars().filter(|c| !is_bidi_control(*c)).collect()
}

/// The same on one line.
pub fn sanitize_to_one_line(words: &str) -> String {
    sanitize_for_terminal(words).replace(['\n', '\t'], " ")
}

/// A result: what was asked for.
///
/// # Errors
/// [`ResultPipeClosed`], or it cannot be written.
pub fn print_result(line: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{}", sanitize_for_terminal(&line.to_string())) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ResultPipeClosed.into()),
        written => written.context("Failed to write the results"),
    }
}

/// What happens meanwhile. The verb goes on if nobody reads it.
pub fn print_info(line: impl Display) {
    writeln!(io::stderr(), "{}", sanitize_for_terminal(&line.to_string())).ok();
}

/// Why nothing came of it, and what to do.
pub fn print_error(error: &anyhow::Error) {
    print_info(format!("nanokimi: {}", checks::render_error(error)));
}

/// Whether a person sits at the keyboard, or a file or program is read.
pub fn is_stdin_terminal() -> bool {
    io::stdin().is_terminal()
}

/// A name, number, id or word of the command line, as the person sees it.
///
/// # Errors
/// Never; clap's parsers may fail.
pub fn parse_typed_text(text: &str) -> Result<String, Infallible> {
    Ok(normalize_typed_text(text))
}

/// A question that the person answers with yes or no; `option` is how a script says yes.
///
/// # Errors
/// Nobody sits at a terminal.
pub fn ask_yes_no(question: &str, option: &str) -> Result<bool> {
    if !is_stdin_terminal() || !io::stderr().is_terminal() {
        bail!("Nobody is there to ask: {question} Add {option} to say yes");
    }
    let question = dialoguer::Confirm::new().with_prompt(sanitize_for_terminal(question)).default(false);
    question.interact().context("Failed to ask")
}

/// Whether a character moves the cursor, turns the writing around or cannot be seen.
pub fn is_unsafe_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A name that somebody else chose, with nothing in it that moves the cursor or turns the writing around.
pub fn sanitize_name(name: &str) -> String {
    let name: String = name.chars().filter(|c| !is_unsafe_on_terminal(*c)).collect();
    let name = name.trim();
    if name.chars().count() <= PLAIN_MAX {
        return name.to_owned();
    }
    let shown: String = name.chars().take(PLAIN_MAX - 1).collect();
    format!("{shown}…")
}

/// The columns of the terminal that shows the results; `None` if they go into a file or a program.
pub fn result_columns() -> Option<usize> {
    let (_, columns) = Term::stdout().size_checked()?;
    io::stdout().is_terminal().then_some(columns.into())
}

/// A bar for `value` that is `width` characters long for `most`, in eighths of a character; what is more than
/// nothing can be seen.
pub fn render_bar(value: u64, most: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let whole = width as u128 * 8;
    let length = u128::from(value) * whole / u128::from(most.max(1));
    let length = usize::try_from(length.clamp(u128::from(value > 0), whole)).unwrap_or(0);
    format!("{}{}", "█".repeat(length / 8), EIGHTHS[length % 8])
}

/// Puts spaces before the cells of these columns, so that numbers stand one below the other.
pub fn align_right(rows: &mut [Vec<String>], columns: Range<usize>) {
    for column in columns {
        let cells = || rows.iter().filter_map(|row| row.get(column));
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *cell = format!("{cell:>width$}");
        }
    }
}

/// The rows and columns of the terminal that a person looks at, if there is one.
pub fn terminal_size() -> Option<(usize, usize)> {
    let (rows, columns) = Term::stderr().size_checked()?;
    io::stderr().is_terminal().then_some((rows.into(), columns.into()))
}

/// A code for a phone in colours of its own, as `auth::qr` draws it. It and [`draw_alternate_screen`] are all
/// that goes to the terminal as it is: blocks, colours and our own words.
pub fn print_code(lines: &[String]) {
    for line in lines {
        writeln!(io::stderr(), "{line}").ok();
    }
}

/// Draws these lines on the terminal's second screen, from its top: a code for a phone, and what to do with
/// it.
pub fn draw_alternate_screen(lines: &[String]) {
    // The second screen without a cursor; then each line, and nothing behind and below it: xterm's control
    // sequences.
    write!(io::stderr(), "\x1b[?1049h\x1b[?25l\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n")).ok();
}

/// Takes the second screen away.
pub fn leave_alternate_screen() {
    write!(io::stderr(), "\x1b[?25h\x1b[?1049l").ok();
}

/// Writes over the terminal's last line, without a line end; nothing takes the line away.
pub fn print_in_place(line: impl Display) {
    write!(io::stderr(), "\r{}\x1b[K", sanitize_to_one_line(&line.to_string())).ok();
}

/// A prompt without a line end, if somebody sits at the terminal.
pub fn print_prompt(text: &str) {
    if is_stdin_terminal() {
        write!(io::stderr(), "{text}").ok();
    }
}

/// A table with aligned columns; the first row is the header.
///
/// # Errors
/// As [`print_result`].
pub fn print_table(rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| sanitize_to_one_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        print_result(cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        for (value, expected) in
            [(0, ""), (1, "▏"), (500, "██"), (600, "██▍"), (1000, "████"), (1001, "████")]
        {
            assert_eq!(render_bar(value, 1000, 4), expected, "{value}");
        }
        assert_eq!(
            (render_bar(0, 0, 4), render_bar(u64::MAX, u64::MAX, 2)),
            (String::new(), "██".to_owned())
        );
    }

    #[test]
    fn numbers_stand_one_below_the_other() {
        let mut rows = [["NAME", "IN"], ["a", "7"], ["b", "1234"]].map(|row| row.map(str::to_owned).to_vec());
        align_right(&mut rows, 1..2);
        assert_eq!(rows.map(|row| row[1].clone()), ["  IN", "   7", "1234"]);
    }

    #[test]
    fn words_move_nothing_on_a_terminal() {
        for (words, expected) in [
            ("two\nlines\tand a tab ñ 很 👩\u{200d}🚀", "two\nlines\tand a tab ñ 很 👩\u{200d}🚀"),
            ("\x1b]52;c;cm0gLXJm\x07", "]52;c;cm0gLXJm"),
            ("\x1b]0;title\x1b\\\x1b[2J\x1b[H", "]0;title\\[2J[H"),
            ("\u{9b}31m\u{9d}52;c;x\u{9c}\u{90}q", "31m52;c;xq"),
            ("safe\rrm -rf\r\nnext\u{85}line\u{2028}line", "safe\nrm -rf\nnext\nline\nline"),
            ("\u{202e}nimda\u{2066}\u{200f}\u{61c}", "nimda"),
            ("\0a\u{7f}b\u{8}c\u{e}d\u{c}e", "abcd\ne"),
        ] {
            assert_eq!(sanitize_for_terminal(words), expected, "{words:?}");
        }
        assert_eq!(sanitize_to_one_line("a\r\nb\tc\x1b[A"), "a b c[A");
    }

    #[test]
    fn names_of_others_are_only_shown() {
        for (name, expected) in [
            ("Family 🎉", "Family 🎉"),
            ("\x1b[2J\x07Ana\r\n", "[2JAna"),
            ("\u{202e}nimda\u{202c}\u{2028}", "nimda"),
            ("  ", ""),
        ] {
            assert_eq!(sanitize_name(name), expected);
        }
        assert_eq!(sanitize_name(&"a".repeat(61)), format!("{}…", "a".repeat(59)));
    }
}
