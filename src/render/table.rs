//! Tables, which WhatsApp does not have: a small one becomes a block of code, a larger one a line for each row.

use unicode_width::UnicodeWidthStr;

use super::characters::shows_something;
use super::formatted::Formatted;
use crate::writing::addresses_in;

/// Columns of text that a phone shows in a block of code without breaking lines.
const BLOCK_MAX_COLUMNS: usize = 30;
/// How many times as long as it was typed a table may become. Each row repeats the header: without a bound an answer
/// could become hundreds of times as long.
const GROWTH_MAX: usize = 8;

/// A table while it is read.
#[derive(Debug, Default)]
pub struct Table {
    pub head: Vec<Formatted>,
    pub rows: Vec<Vec<Formatted>>,
}

impl Table {
    /// The table as WhatsApp can show it. `margin` begins every line but the first, as in a quote or a list. None if it
    /// is best left as it was typed, in so many bytes.
    pub fn laid_out(&self, margin: &str, typed_bytes: usize) -> Option<Formatted> {
        self.as_block(margin).or_else(|| self.as_lines(margin, typed_bytes))
    }

    /// A block of code with aligned columns.
    fn as_block(&self, margin: &str) -> Option<Formatted> {
        const GAP: &str = " | ";
        let words = |row: &Vec<Formatted>| row.iter().map(Formatted::words).collect::<Vec<_>>();
        let head = words(&self.head);
        let most = BLOCK_MAX_COLUMNS;
        // Nothing may be lost by being code: a mention, an address that can be tapped.
        let fits = |row: &Vec<Formatted>| {
            row.iter()
                .all(|cell| cell.text.len() < 8 * most && cell.text.width() <= most && is_plain(&cell.text))
        };
        if !margin.is_empty() || self.rows.is_empty() || !self.rows.iter().chain([&self.head]).all(fits) {
            return None;
        }
        let rows: Vec<Vec<String>> = self.rows.iter().map(words).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        if widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1) > most {
            return None;
        }
        let line = |row: &Vec<String>| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width()))));
            cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
        };
        let dashes = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("-|-");
        let top = format!("```\n{}\n{dashes}", line(&head));
        let rows: String = rows.iter().map(|row| format!("\n{}", line(row))).collect();
        let table_heads = std::iter::once(0..top.len()).collect();
        Some(Formatted { text: format!("{top}{rows}\n```"), table_heads, ..Formatted::default() })
    }

    /// `*Task*: Fix routing · *Status*: Done`, a line for each row.
    fn as_lines(&self, margin: &str, typed_bytes: usize) -> Option<Formatted> {
        let names: Vec<Formatted> = self.head.iter().map(name).collect();
        let head_bytes: usize = names.iter().map(|name| name.text.len() + margin.len() + 4).sum();
        if head_bytes.saturating_mul(self.rows.len()) > typed_bytes.saturating_mul(GROWTH_MAX) {
            return None;
        }
        let row = |row: &Vec<Formatted>| {
            let cells = row.iter().zip(&names).filter(|(cell, _)| shows_something(&cell.text));
            joined(
                " · ",
                cells.map(|(cell, name)| {
                    if name.text.is_empty() {
                        cell.clone()
                    } else {
                        joined(": ", [name.clone(), cell.clone()])
                    }
                }),
            )
        };
        let mut lines: Vec<Formatted> =
            self.rows.iter().map(row).filter(|line| !line.text.is_empty()).collect();
        if lines.is_empty() {
            lines.push(joined(" · ", names.into_iter().filter(|name| !name.text.is_empty())));
        }
        Some(joined(&format!("\n{margin}"), lines))
    }
}

fn is_plain(text: &str) -> bool {
    let is_mention =
        text.match_indices('@').any(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    !is_mention && !text.contains(['`', '\n']) && addresses_in(text).is_empty()
}

/// A header's words in bold, or nothing.
fn name(header: &Formatted) -> Formatted {
    let words = header.words();
    let words = words.trim().trim_end_matches([':', '：']).trim_end();
    if !shows_something(words) || words.contains(['*', '\n']) || words.ends_with(char::is_whitespace) {
        return Formatted::from(words.trim().to_owned());
    }
    let mut name = Formatted::from(format!("*{words}*"));
    name.styled_from(0, 1);
    name
}

fn joined(separator: &str, texts: impl IntoIterator<Item = Formatted>) -> Formatted {
    let mut joined = Formatted::default();
    for (nth, text) in texts.into_iter().enumerate() {
        if nth > 0 {
            joined.text.push_str(separator);
        }
        joined.append(&text);
    }
    joined
}
