//! The one place that writes to the terminal, so that stdout stays data and stderr stays talk.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};

use crate::checks;

/// The results go nowhere: whoever took them has closed the pipe.
#[derive(Debug)]
pub struct NobodyReads;

impl Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nobody reads the results any more")
    }
}

impl std::error::Error for NobodyReads {}

/// A result: what was asked for.
///
/// # Errors
/// [`NobodyReads`], or it cannot be written.
pub fn result(line: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        written => written.context("Failed to write the results"),
    }
}

/// What happens meanwhile. That nobody reads it stops nothing.
pub fn note(line: impl Display) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Why nothing came of it, and what to do.
pub fn error(error: &anyhow::Error) {
    note(format!("nanokimi: {}", checks::sentence(error)));
}

/// Whether a person sits at the keyboard, or a file or program is read.
pub fn somebody_types() -> bool {
    io::stdin().is_terminal()
}

/// A prompt without a line end, where somebody sits at the terminal.
pub fn prompt(text: &str) {
    if somebody_types() {
        write!(io::stderr(), "{text}").ok();
    }
}

/// A table with aligned columns; the first row is the header.
///
/// # Errors
/// As [`result`].
pub fn table(rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        result(cells.join("  ").trim_end())?;
    }
    Ok(())
}
