//! A QR code as characters: pure, from its content and the window's size to lines of text.
//!
//! ```text
//! half blocks   1 × 2 modules a character: what every terminal shows
//! sextants      2 × 3 modules a character: where half blocks do not fit
//! ```
//! Black on white by colours of their own, so that it scans on a dark terminal and on a light one.

use anyhow::{Context, Result};
use qrcode::{Color, EcLevel, QrCode};

/// White around the code, in modules: what the standard asks for, and what phones still read.
const QUIET: [usize; 2] = [4, 2];
/// The first of the sextants, which has only the upper left sixth: Unicode, "Symbols for Legacy Computing".
const FIRST_SEXTANT: u32 = 0x1FB00;
/// Black on white, of the 256 colours, which no theme changes.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const COLOURS_END: &str = "\x1b[0m";

/// How much room there is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: usize,
    pub columns: usize,
}

/// What came of drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QrDrawing {
    Drawn {
        lines: Vec<String>,
        cells: QrCells,
    },
    /// It takes so much room.
    TooLarge(TerminalSize),
}

/// What one character shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QrCells {
    HalfBlocks,
    Sextants,
}

impl QrCells {
    /// Modules of one character: across and down.
    const fn modules_per_cell(self) -> (usize, usize) {
        match self {
            Self::HalfBlocks => (1, 2),
            Self::Sextants => (2, 3),
        }
    }

    /// The character whose modules are black as the bits say: row by row, the upper left one first.
    fn cell_character(self, bits: u32) -> char {
        match (self, bits) {
            (_, 0) => ' ',
            (Self::HalfBlocks, 0b01) => '▀',
            (Self::HalfBlocks, 0b10) => '▄',
            (Self::HalfBlocks, _) | (Self::Sextants, 0b11_1111) => '█',
            // These two characters are older than the sextants, which leave them out.
            (Self::Sextants, 0b01_0101) => '▌',
            (Self::Sextants, 0b10_1010) => '▐',
            (Self::Sextants, _) => {
                let left_out = u32::from(bits > 0b01_0101) + u32::from(bits > 0b10_1010);
                char::from_u32(FIRST_SEXTANT + bits - 1 - left_out).unwrap_or(' ')
            }
        }
    }
}

/// The most readable drawing that fits.
///
/// # Errors
/// The content is too long for a QR code.
pub fn draw_qr(content: &str, room: TerminalSize) -> Result<QrDrawing> {
    let modules = QrModules::from_content(content)?;
    for cells in [QrCells::HalfBlocks, QrCells::Sextants] {
        for quiet in QUIET {
            let needed = modules.size_needed(cells, quiet);
            if needed.rows <= room.rows && needed.columns <= room.columns {
                return Ok(QrDrawing::Drawn { lines: modules.render_lines(cells, quiet), cells });
            }
        }
    }
    Ok(QrDrawing::TooLarge(modules.size_needed(QrCells::Sextants, QUIET[1])))
}

/// In half blocks and full white, whatever there is room for.
///
/// # Errors
/// As [`draw_qr`].
pub fn draw_qr_full_size(content: &str) -> Result<Vec<String>> {
    Ok(QrModules::from_content(content)?.render_lines(QrCells::HalfBlocks, QUIET[0]))
}

/// The little squares of a code.
struct QrModules {
    width: usize,
    colors: Vec<Color>,
}

impl QrModules {
    fn from_content(content: &str) -> Result<Self> {
        // A screen is clean: the least correction makes the smallest code.
        let code = QrCode::with_error_correction_level(content, EcLevel::L);
        let code = code.context("Failed to draw the code of WhatsApp")?;
        Ok(Self { width: code.width(), colors: code.into_colors() })
    }

    fn size_needed(&self, cells: QrCells, quiet: usize) -> TerminalSize {
        let (across, down) = cells.modules_per_cell();
        let size = self.width + 2 * quiet;
        TerminalSize { rows: size.div_ceil(down), columns: size.div_ceil(across) }
    }

    fn render_lines(&self, cells: QrCells, quiet: usize) -> Vec<String> {
        let (across, down) = cells.modules_per_cell();
        let TerminalSize { rows, columns } = self.size_needed(cells, quiet);
        let character = |row: usize, column: usize| {
            let mut bits = 0;
            for place in 0..across * down {
                let (x, y) = (column * across + place % across, row * down + place / across);
                bits |= u32::from(self.is_black_at(x, y, quiet)) << place;
            }
            cells.cell_character(bits)
        };
        (0..rows)
            .map(|row| {
                let text: String = (0..columns).map(|column| character(row, column)).collect();
                format!("{BLACK_ON_WHITE}{text}{COLOURS_END}")
            })
            .collect()
    }

    /// At a place of the drawing, with its white border.
    fn is_black_at(&self, x: usize, y: usize, quiet: usize) -> bool {
        let inside = |place: usize| place.checked_sub(quiet).filter(|place| *place < self.width);
        let (Some(x), Some(y)) = (inside(x), inside(y)) else { return false };
        self.colors[y * self.width + x] == Color::Dark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A character on a screen, in pixels.
    const CELL: (usize, usize) = (8, 16);
    const SMALL: TerminalSize = TerminalSize { rows: 24, columns: 80 };
    const LARGE: TerminalSize = TerminalSize { rows: 40, columns: 80 };

    /// As WhatsApp makes them: a reference, three keys and the kind of client, `length` bytes in all.
    fn payload(length: usize) -> String {
        let key = |seed: usize| -> String {
            let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let one = |place: usize| char::from(letters[(place * 37 + seed * 11 + place * place) % 64]);
            (0..43).map(one).chain(['=']).collect()
        };
        let keys = format!(",{},{},{},1", key(1), key(2), key(3));
        let reference: String =
            key(4).chars().cycle().filter(|c| *c != '=').take(length - keys.len() - 2).collect();
        format!("2@{reference}{keys}")
    }

    fn drawn(content: &str, room: TerminalSize) -> (Vec<String>, QrCells) {
        match draw_qr(content, room).unwrap() {
            QrDrawing::Drawn { lines, cells } => (lines, cells),
            QrDrawing::TooLarge(needed) => panic!("needs {needed:?}"),
        }
    }

    /// Without its colours, which every line must have.
    fn characters(line: &str) -> Vec<char> {
        let inner = line.strip_prefix(BLACK_ON_WHITE).and_then(|line| line.strip_suffix(COLOURS_END));
        inner.expect("black on white").chars().collect()
    }

    /// Whether a pixel of a character is black, by what Unicode says of the character: independent of
    /// `character`.
    fn is_black(c: char, x: usize, y: usize) -> bool {
        let (left, upper) = (x < CELL.0 / 2, y < CELL.1 / 2);
        match c {
            ' ' => false,
            '█' => true,
            '▀' => upper,
            '▄' => !upper,
            '▌' => left,
            '▐' => !left,
            sextant => {
                let index = u32::from(sextant) - FIRST_SEXTANT;
                // In the order of their bits, the empty, the two halves and the full one are left out.
                let bits = (1..63).filter(|bits| ![21, 42].contains(bits)).nth(index as usize).unwrap();
                let sixth = 2 * (y * 3 / CELL.1) + usize::from(!left);
                bits >> sixth & 1 == 1
            }
        }
    }

    /// What a camera reads from the screen.
    fn scanned(lines: &[String]) -> String {
        let screen: Vec<Vec<char>> = lines.iter().map(|line| characters(line)).collect();
        let (width, height) = (screen[0].len() * CELL.0, screen.len() * CELL.1);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            let c = screen[y / CELL.1][x / CELL.0];
            if is_black(c, x % CELL.0, y % CELL.1) { 0 } else { 255 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code is seen");
        grids[0].decode().expect("it is read").1
    }

    #[test]
    fn what_is_drawn_is_what_a_phone_reads() {
        for (length, room, expected) in [
            (230, SMALL, QrCells::Sextants),
            (260, SMALL, QrCells::Sextants),
            (290, SMALL, QrCells::Sextants),
            (230, LARGE, QrCells::HalfBlocks),
            (260, LARGE, QrCells::HalfBlocks),
            (290, LARGE, QrCells::HalfBlocks),
        ] {
            let content = payload(length);
            assert_eq!(content.len(), length);
            // The caption needs two lines below.
            let (lines, cells) = drawn(&content, TerminalSize { rows: room.rows - 2, ..room });
            assert_eq!(cells, expected, "{length} bytes in {room:?}");
            assert!(lines.len() + 2 <= room.rows, "{} lines", lines.len());
            assert!(lines.iter().all(|line| characters(line).len() <= room.columns));
            assert_eq!(scanned(&lines), content, "{length} bytes in {room:?}");
        }
    }

    #[test]
    fn without_a_window_the_drawing_is_as_large_as_it_has_to_be() {
        for length in [230, 260, 290] {
            let content = payload(length);
            assert_eq!(scanned(&draw_qr_full_size(&content).unwrap()), content);
        }
    }

    #[test]
    fn where_nothing_fits_the_room_it_takes_is_told() {
        let content = payload(290);
        let needed = match draw_qr(&content, TerminalSize { rows: 15, columns: 80 }).unwrap() {
            QrDrawing::TooLarge(needed) => needed,
            QrDrawing::Drawn { .. } => panic!("15 rows are too few"),
        };
        assert_eq!(needed, TerminalSize { rows: 22, columns: 33 });
        assert_eq!(scanned(&drawn(&content, needed).0), content);
    }

    #[test]
    fn all_sixty_four_sextants_are_the_characters_that_unicode_gives_them() {
        for bits in 0..64_u32 {
            let c = QrCells::Sextants.cell_character(bits);
            let shown = (0..6).filter(|sixth| {
                let (x, y) = ((sixth % 2) * CELL.0 / 2, (sixth / 2) * CELL.1 / 3 + 1);
                is_black(c, x, y)
            });
            assert_eq!(shown.map(|sixth| 1 << sixth).sum::<u32>(), bits, "{c}");
        }
    }
}
