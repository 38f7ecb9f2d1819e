//! What a person sees while an account is being linked, on a terminal or in a pipe.
//!
//! On a terminal the codes stand on its second screen, which is taken away afterwards: a person who sees a
//! code can use it.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::qr::{self, QrCells, QrDrawing, TerminalSize};
use crate::cli::ui;
use crate::types::{Pairing, Secret};

/// How often the seconds that are left are counted down, and the window's size is looked at.
pub const TICK: Duration = Duration::from_secs(1);
const ASKING: &str = "Asking WhatsApp for a code … (up to a minute; Ctrl-C ends)";
const WHERE: &str = "WhatsApp → Settings → Linked devices → Link a device";

/// Where codes are shown.
pub enum PairingScreen {
    Terminal(ScreenContent),
    /// Each code once, as it comes.
    Pipe,
}

/// Whether the second screen is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenContent {
    Nothing,
    Codes,
}

impl PairingScreen {
    pub fn new() -> Self {
        if ui::terminal_size().is_some() { Self::Terminal(ScreenContent::Nothing) } else { Self::Pipe }
    }

    /// Shows where the linking stands, as it has just become.
    pub fn show_pairing(&mut self, pairing: &Pairing, now: Timestamp) -> Result<()> {
        match self {
            Self::Terminal(_) => {
                self.redraw_pairing(pairing, now)?;
                if *pairing == Pairing::Asking {
                    ui::print_info(ASKING);
                }
            }
            Self::Pipe => ui::print_code(&render_for_pipe(pairing, now)?),
        }
        Ok(())
    }

    /// Shows the same again, as time has gone on.
    pub fn redraw_pairing(&mut self, pairing: &Pairing, now: Timestamp) -> Result<()> {
        let Self::Terminal(shown) = self else { return Ok(()) };
        let (rows, columns) = ui::terminal_size().unwrap_or((24, 80));
        match render_on_terminal(pairing, now, TerminalSize { rows, columns })? {
            Some(lines) => {
                *shown = ScreenContent::Codes;
                ui::draw_alternate_screen(&lines);
            }
            None => self.clear_codes(),
        }
        Ok(())
    }

    /// Takes the codes away.
    pub fn clear_codes(&mut self) {
        if let Self::Terminal(shown @ ScreenContent::Codes) = self {
            *shown = ScreenContent::Nothing;
            ui::leave_alternate_screen();
        }
    }
}

impl Drop for PairingScreen {
    fn drop(&mut self) {
        self.clear_codes();
    }
}

/// What stands on the second screen, line by line; nothing if there is no code.
fn render_on_terminal(pairing: &Pairing, now: Timestamp, room: TerminalSize) -> Result<Option<Vec<String>>> {
    Ok(match pairing {
        Pairing::Qr { code, until } => Some(render_qr_lines(code, &render_seconds_left(*until, now), room)?),
        Pairing::Code { code, until } => {
            let how = render_code_lines(code, &render_seconds_left(*until, now));
            Some(how.iter().flat_map(|line| wrap_line(line, room.columns)).collect())
        }
        Pairing::Asking
        | Pairing::Passkey { .. }
        | Pairing::PasskeyCode { .. }
        | Pairing::Agreed
        | Pairing::Failed(_) => None,
    })
}

/// What is written into a pipe.
fn render_for_pipe(pairing: &Pairing, now: Timestamp) -> Result<Vec<String>> {
    Ok(match pairing {
        Pairing::Qr { code, until } => {
            let mut lines = qr::draw_qr_full_size(code.expose_secret())?;
            lines.push(format!("Scan within {}: {WHERE}", render_seconds_left(*until, now)));
            lines
        }
        Pairing::Code { code, until } => render_code_lines(code, &render_seconds_left(*until, now)),
        Pairing::Asking => vec![ASKING.to_owned()],
        Pairing::Passkey { .. } | Pairing::PasskeyCode { .. } | Pairing::Agreed | Pairing::Failed(_) => {
            Vec::new()
        }
    })
}

fn render_qr_lines(code: &Secret, left: &str, room: TerminalSize) -> Result<Vec<String>> {
    let how = wrap_line(&format!("Scan within {left}: {WHERE}"), room.columns);
    let hint =
        wrap_line("Looks broken? Enlarge the window, or use --pair-code PHONE. Ctrl-C ends.", room.columns);
    let below = how.len() + hint.len();
    let above = TerminalSize { rows: room.rows.saturating_sub(below), ..room };
    Ok(match qr::draw_qr(code.expose_secret(), above)? {
        QrDrawing::Drawn { mut lines, cells } => {
            lines.extend(how);
            if cells == QrCells::Sextants {
                lines.extend(hint);
            }
            lines
        }
        QrDrawing::TooLarge(needed) => {
            let rows = needed.rows + below;
            let columns = needed.columns;
            let words = format!(
                "This window is too small for the code, which needs {columns} columns and {rows} rows: enlarge it, or \
                 end this with Ctrl-C and link with --pair-code PHONE."
            );
            wrap_line(&words, room.columns)
        }
    })
}

fn render_code_lines(code: &Secret, left: &str) -> Vec<String> {
    vec![
        format!("Type this code into the phone within {left}:"),
        String::new(),
        format!("    {}", group_pairing_code(code.expose_secret())),
        String::new(),
        format!("{WHERE} → Link with phone number instead"),
    ]
}

/// A pairing code as the phone shows it: ABCD-EFGH.
fn group_pairing_code(code: &str) -> String {
    let letters: Vec<char> = code.chars().filter(char::is_ascii_alphanumeric).collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// Whole seconds, the one that has begun too.
fn render_seconds_left(until: Timestamp, now: Timestamp) -> String {
    let millis = until.as_millisecond().saturating_sub(now.as_millisecond()).max(0);
    format!("{} s", millis.unsigned_abs().div_ceil(1000))
}

/// Breaks a line between words.
fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    if line.chars().count() <= columns {
        return vec![line.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split_whitespace() {
        let last = lines
            .last_mut()
            .filter(|last| last.is_empty() || last.chars().count() + 1 + word.chars().count() <= columns);
        match last {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) => {
                last.push(' ');
                last.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const ROOM: TerminalSize = TerminalSize { rows: 24, columns: 80 };

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    fn qr() -> Pairing {
        Pairing::Qr { code: Secret::new("2@canary".repeat(30)), until: at("08:01:00") }
    }

    fn words(lines: &[String]) -> String {
        lines.iter().filter(|line| !line.starts_with('\u{1b}')).cloned().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_qr_code_counts_down_and_fits() {
        for (rows, columns) in [(24, 80), (40, 80), (60, 200), (26, 40)] {
            let room = TerminalSize { rows, columns };
            let lines = render_on_terminal(&qr(), at("08:00:13.2"), room).unwrap().unwrap();
            assert!(lines.len() <= rows, "{} lines in {room:?}", lines.len());
            assert!(words(&lines).lines().all(|line| line.chars().count() <= columns), "{room:?}");
            assert!(lines.len() > 20, "the code is there in {room:?}");
        }
        let lines = render_on_terminal(&qr(), at("08:00:13.2"), ROOM).unwrap().unwrap();
        assert_snapshot!(words(&lines), @"
        Scan within 47 s: WhatsApp → Settings → Linked devices → Link a device
        Looks broken? Enlarge the window, or use --pair-code PHONE. Ctrl-C ends.
        ");
        let lines = render_on_terminal(&qr(), at("08:02:00"), TerminalSize { rows: 40, columns: 80 })
            .unwrap()
            .unwrap();
        assert_snapshot!(words(&lines), @"Scan within 0 s: WhatsApp → Settings → Linked devices → Link a device");
    }

    #[test]
    fn a_window_that_is_too_small_says_how_large_it_must_be() {
        let lines = render_on_terminal(&qr(), at("08:00:00"), TerminalSize { rows: 12, columns: 60 })
            .unwrap()
            .unwrap();
        assert_snapshot!(lines.join("\n"), @"
        This window is too small for the code, which needs 31
        columns and 25 rows: enlarge it, or end this with Ctrl-C and
        link with --pair-code PHONE.
        ");
    }

    #[test]
    fn a_pairing_code_is_shown_in_groups() {
        let code = Pairing::Code { code: Secret::new("ABCDEFGH"), until: at("08:03:00") };
        let expected = "Type this code into the phone within 172 s:\n\n    ABCD-EFGH\n\n\
            WhatsApp → Settings → Linked devices → Link a device → Link with phone number instead";
        assert_eq!(render_for_pipe(&code, at("08:00:08")).unwrap().join("\n"), expected);
        let lines = render_on_terminal(&code, at("08:00:08"), ROOM).unwrap().unwrap();
        assert_snapshot!(lines.join("\n"), @"
        Type this code into the phone within 172 s:

            ABCD-EFGH

        WhatsApp → Settings → Linked devices → Link a device → Link with phone number
        instead
        ");
    }
}
