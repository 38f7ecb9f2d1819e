//! Tables, which WhatsApp does not have: a small one becomes a block of code, a larger one a line for each
//! row.

use unicode_width::UnicodeWidthStr;

use super::characters::has_visible_text;
use super::formatted::FormattedText;
use crate::writing::find_addresses;

/// Columns of text that a phone shows in a block of code without breaking lines.
const BLOCK_MAX_COLUMNS: usize = 30;
/// How many times as long as it was typed a table may become. Each row repeats the header: without a bound an
/// answer could become hundreds of times as long.
const GROWTH_MAX: usize = 8;

/// A table while it is read.
#[derive(Debug, Default)]
pub struct MarkdownTable {
    pub head: Vec<FormattedText>,
    pub rows: Vec<Vec<FormattedText>>,
}

impl MarkdownTable {
    /// The table as WhatsApp can show it. `margin` begins every line but the first, as in a quote or a list.
    /// `None` if it is best left as it was typed, in so many bytes.
    pub fn layout_for_whatsapp(&self, margin: &str, typed_bytes: usize) -> Option<FormattedText> {
        self.layout_as_code_block(margin).or_else(|| self.layout_as_lines(margin, typed_bytes))
    }

    /// A block of code with aligned columns.
    fn layout_as_code_block(&self, margin: &str) -> Option<FormattedText> {
        const GAP: &str = " | ";
        let words = |row: &Vec<FormattedText>| {
            row.iter().map(FormattedText::text_without_delimiters).collect::<Vec<_>>()
        };
        let head = words(&self.head);
        let most = BLOCK_MAX_COLUMNS;
        // Nothing may be lost by being code: a mention, an address that can be tapped.
        let fits = |row: &Vec<FormattedText>| {
            row.iter().all(|cell| {
                cell.text.len() < 8 * most && cell.text.width() <= most && is_plain_cell(&cell.text)
            })
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
        Some(FormattedText { text: format!("{top}{rows}\n```"), table_heads, ..FormattedText::default() })
    }

    /// `*Task*: Fix routing · *Status*: Done`, a line for each row.
    fn layout_as_lines(&self, margin: &str, typed_bytes: usize) -> Option<FormattedText> {
        let names: Vec<FormattedText> = self.head.iter().map(bold_header).collect();
        let head_bytes: usize = names.iter().map(|name| name.text.len() + margin.len() + 4).sum();
        if head_bytes.saturating_mul(self.rows.len()) > typed_bytes.saturating_mul(GROWTH_MAX) {
            return None;
        }
        let row = |row: &Vec<FormattedText>| {
            let cells = row.iter().zip(&names).filter(|(cell, _)| has_visible_text(&cell.text));
            join_formatted(
                " · ",
                cells.map(|(cell, name)| {
                    if name.text.is_empty() {
                        cell.clone()
                    } else {
                        join_formatted(": ", [name.clone(), cell.clone()])
                    }
                }),
            )
        };
        let mut lines: Vec<FormattedText> =
            self.rows.iter().map(row).filter(|line| !line.text.is_empty()).collect();
        if lines.is_empty() {
            lines.push(join_formatted(" · ", names.into_iter().filter(|name| !name.text.is_empty())));
        }
        Some(join_formatted(&format!("\n{margin}"), lines))
    }
}

fn is_plain_cell(text: &str) -> bool {
    let is_mention =
        text.match_indices('@').any(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    !is_mention && !text.contains(['`', '\n']) && find_addresses(text).is_empty()
}

/// A header's words in bold, or nothing.
fn bold_header(header: &FormattedText) -> FormattedText {
    let words = header.text_without_delimiters();
    let words = words.trim().trim_end_matches([':', '：']).trim_end();
    if !has_visible_text(words) || words.contains(['*', '\n']) || words.ends_with(char::is_whitespace) {
        return FormattedText::from(words.trim().to_owned());
    }
    let mut name = FormattedText::from(format!("*{words}*"));
    name.mark_styled_from(0, 1);
    name
}

fn join_formatted(separator: &str, texts: impl IntoIterator<Item = FormattedText>) -> FormattedText {
    let mut joined = FormattedText::default();
    for (nth, text) in texts.into_iter().enumerate() {
        if nth > 0 {
            joined.text.push_str(separator);
        }
        joined.append(&text);
    }
    joined
}
